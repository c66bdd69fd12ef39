//! Waiting: for one descriptor, one of several, or one of very many, up to a point in time.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, Event, EventData, EventFlags},
        poll,
    },
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

/// Waits for very many descriptors, each of which has a number.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new() -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        Ok(Self(epoll))
    }

    /// Watches one more, for `wanted`.
    pub(crate) fn add(
        &self,
        fd: impl AsFd,
        number: u64,
        wanted: EventFlags,
    ) -> Result<(), Failure> {
        epoll::add(&self.0, fd, EventData::new_u64(number), wanted).map_err(failed)
    }

    /// Watches one for something else than before.
    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        number: u64,
        wanted: EventFlags,
    ) -> Result<(), Failure> {
        epoll::modify(&self.0, fd, EventData::new_u64(number), wanted).map_err(failed)
    }

    /// Waits up to `longest`; fills `events`, as far as they have capacity, with what is ready.
    pub(crate) fn wait(&self, longest: Duration, events: &mut Vec<Event>) -> Result<(), Failure> {
        events.clear();
        let longest = Timespec::try_from(longest).ok();
        match epoll::wait(&self.0, spare_capacity(events), longest.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: Errno) -> Failure {
    Failure::System("epoll(7)", error.into())
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
