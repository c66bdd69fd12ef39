//! Waiting: for one descriptor, or one of several, up to a point in time.

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use signal_hook::{consts::SIGINT, low_level::pipe};

use super::failure::Failure;

/// Catches SIGINT from now on: each makes one byte to read.
pub(crate) fn interrupts() -> Result<UnixStream, Failure> {
    let system = |source| Failure::System("catching SIGINT", source);
    let (stop, signal) = UnixStream::pair().map_err(system)?;
    pipe::register(SIGINT, signal).map_err(system)?;
    Ok(stop)
}

/// Waits until `fd` is ready for `wanted`, has an error or has hung up, or until `deadline`. What it
/// is ready for; nothing once time is up.
pub(crate) fn until_ready(
    fd: &impl AsFd,
    wanted: PollFlags,
    deadline: Option<Instant>,
) -> Result<PollFlags, Failure> {
    let mut fds = [PollFd::new(fd, wanted)];
    until_any(&mut fds, deadline)?;
    Ok(fds[0].revents())
}

/// Waits until one of `fds` is ready; false once `deadline` has passed without.
pub(crate) fn until_any(
    fds: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> Result<bool, Failure> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // Centuries are as good as never.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::System("poll(2)", error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_past_deadline_still_sees_what_is_ready() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let now = Some(Instant::now());
        assert!(until_ready(&ours, PollFlags::IN, now).unwrap().is_empty());
        theirs.write_all(b"x").unwrap();
        assert_eq!(
            until_ready(&ours, PollFlags::IN, now).unwrap(),
            PollFlags::IN
        );
    }

    #[test]
    fn hanging_up_needs_both_directions() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let now = Some(Instant::now());
        let state = || until_ready(&ours, PollFlags::empty(), now).unwrap();
        assert!(state().is_empty());
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(state(), PollFlags::HUP);
    }
}
