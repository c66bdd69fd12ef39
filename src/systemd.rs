//! The service manager: the sockets that it passes (`sd_listen_fds(3)`), notifications to it (`sd_notify(3)`), its
//! descriptor store, its watchdog and its journal.

use std::{
    env, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use listenfd::ListenFd;
use log::warn;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketType, sockopt},
    pipe::{PipeFlags, pipe_with},
};
use sd_notify::NotifyState;

use crate::sys;

/// The name of udsd's entry in the descriptor store (FDNAME=). It has a dot, which no NAME of a socket has.
const STORED: &str = "udsd.parked";
/// The name of an entry that was stored without one (`sd_pid_notify_with_fds(3)`).
const UNNAMED: &str = "stored";
/// How long to wait for the manager.
const BARRIER: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// What the manager passed.
#[derive(Debug, Default)]
pub struct Passed {
    /// Sockets of its socket units.
    pub sockets: Vec<Inherited>,
    /// Sockets from the descriptor store.
    pub stored: Vec<OwnedFd>,
    /// How many other descriptors the store had: they are closed.
    pub foreign: usize,
}

/// A socket that the manager passed.
#[derive(Debug)]
pub struct Inherited {
    /// FileDescriptorName=, where the manager gave names.
    pub name: Option<String>,
    /// Its type.
    pub kind: SocketType,
    /// The socket.
    pub fd: OwnedFd,
}

impl Inherited {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// Those of `fcntl(2)`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            kind: self.kind,
            fd: self.fd.try_clone()?,
        })
    }

    /// SO_COOKIE (`socket(7)`), which identifies the socket.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn cookie(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(&self.fd)?)
    }
}

/// Takes what the manager passed to this process. Later calls find nothing.
///
/// # Errors
/// The number and name of a descriptor that is no Unix socket.
pub fn passed() -> Result<Passed, String> {
    // listenfd does not read the names.
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names
        .split(':')
        .filter(|_| !names.is_empty())
        .map(str::to_owned);
    let mut passed = ListenFd::from_env();
    let Passed {
        mut sockets,
        mut stored,
        mut foreign,
    } = Passed::default();
    for i in 0..passed.len() {
        let name = names.next();
        let family = i32::from(AddressFamily::UNIX.as_raw());
        let taken = [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM]
            .into_iter()
            .find_map(|kind| {
                let fd = passed
                    .take_custom::<OwnedFd>(i, family, kind.as_raw().cast_signed(), "")
                    .ok()??;
                Some((kind, fd))
            });
        let is_stored = matches!(name.as_deref(), Some(STORED | UNNAMED));
        let Some((kind, fd)) = taken else {
            if is_stored {
                // It is not udsd's, and is closed with `passed`.
                foreign += 1;
                continue;
            }
            return Err(format!(
                "descriptor {} ({}) that the manager passed is no Unix socket: its unit needs ListenStream= with a path",
                i + 3,
                name.as_deref().unwrap_or("unnamed")
            ));
        };
        if is_stored {
            stored.push(fd);
        } else {
            sockets.push(Inherited { name, kind, fd });
        }
    }
    Ok(Passed {
        sockets,
        stored,
        foreign,
    })
}

/// Whether `fd` leads to the journal: JOURNAL_STREAM holds its device and inode (`systemd.exec(5)`).
#[must_use]
pub fn is_journal(fd: impl AsFd) -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(fd).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The network namespace of the manager, as `sys::network_of` gives it, where standard output or error leads to
/// its journal.
#[must_use]
pub fn network() -> Option<u64> {
    let (output, error) = (io::stdout(), io::stderr());
    let all = [output.as_fd(), error.as_fd()];
    let of_journal = all.into_iter().find(|fd| is_journal(fd))?;
    sys::network_of(of_journal).ok()
}

/// Notifies the manager. Without a manager every call does nothing.
#[derive(Debug, Default)]
pub struct Notifier {
    status: String,
}

impl Notifier {
    /// The service is up.
    pub fn ready(&mut self, status: String) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// The line that `systemctl status` shows; sent only where it differs from the last one.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The service reloads its configuration until the next `ready`. Sent with the time, which `Type=notify-reload`
    /// needs (`sd_notify(3)`).
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                warn!("cannot read the clock: {error}");
                tell(&[NotifyState::Reloading]);
            }
        }
    }

    /// The service stops.
    pub fn stopping(&mut self, status: String) {
        tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// The event loop runs: for the watchdog.
    pub fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }
}

/// Whether there is a service manager that takes notifications, and so may keep descriptors.
#[must_use]
pub fn is_manager() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Has the manager keep a descriptor for the next process (FDSTORE=1), until that process removes it or the
/// service is stopped. The manager does not say whether it does.
///
/// # Errors
/// Where there is no manager, or it does not answer.
pub fn store(fd: BorrowedFd<'_>) -> io::Result<()> {
    if !is_manager() {
        return Err(io::Error::other("there is no service manager"));
    }
    // An entry that is there already is of no use, and leaves no room for this one.
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(STORED)])?;
    let states = [
        NotifyState::FdStore,
        // Or else the manager drops the pair when one end hangs up.
        NotifyState::Custom("FDPOLL=0"),
        NotifyState::FdName(STORED),
    ];
    sd_notify::notify_with_fds(&states, &[fd])?;
    barrier()
}

/// Has the manager forget what it keeps, before it acts on any later notification.
///
/// # Errors
/// Those of `sendmsg(2)`.
pub fn empty_store() -> io::Result<()> {
    for name in [STORED, UNNAMED] {
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
    }
    Ok(())
}

/// Waits until the manager has acted on all notifications (BARRIER=1, `sd_notify_barrier(3)`).
fn barrier() -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let mut hang_up = [PollFd::new(&ours, PollFlags::empty())];
    loop {
        match poll(&mut hang_up, Some(&BARRIER)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How often `Notifier::alive` is due: half of WATCHDOG_USEC. `None` where there is no watchdog.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|span| span / 2)
        .filter(|span| !span.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states)
        && error.kind() != io::ErrorKind::WouldBlock
    {
        warn!("NOTIFY_SOCKET: {error}");
    }
}
