//! The sockets of the crowd: connecting, reading, writing, none of which waits. Owns the words for
//! what the kernel says. Knows nothing of what is said on them.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
        SocketType, sockopt,
    },
};

/// A socket that is connected, or waits in its listener's backlog. `None`: the backlog is full.
pub(crate) fn connect(path: &Path, kind: SocketType) -> Result<Option<OwnedFd>, Errno> {
    let fd = unconnected(kind)?;
    match net::connect(&fd, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(fd)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket that never makes its caller wait.
pub(crate) fn unconnected(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// How much was taken, or `None`: no room.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> Result<Option<usize>, Errno> {
    match net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(taken) => Ok(Some(taken)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same of one datagram.
pub(crate) fn send_to(
    fd: impl AsFd,
    bytes: &[u8],
    to: &SocketAddrUnix,
) -> Result<Option<usize>, Errno> {
    match net::sendto(fd, bytes, SendFlags::NOSIGNAL, to) {
        Ok(taken) => Ok(Some(taken)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much came, 0 at the end, or `None`: nothing yet.
pub(crate) fn read(fd: impl AsFd, room: &mut [u8]) -> Result<Option<usize>, Errno> {
    match net::recv(fd, room, RecvFlags::empty()) {
        Ok((length, _)) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends the direction to the daemon.
pub(crate) fn half_close(fd: impl AsFd) -> Result<(), Errno> {
    net::shutdown(fd, Shutdown::Write)
}

/// Written at once as the last piece, so many bytes let `is_taken` tell.
pub(crate) const TELLING: usize = 2048;

/// Whether the other side has read all that was written, the last piece of which had TELLING bytes or
/// more. A Unix socket is writable while what is unread takes a quarter of its send buffer or less
/// (`unix_writable()` of net/unix/af_unix.c); the least buffer (4608 bytes, socket(7)) makes that
/// quarter smaller than such a piece.
pub(crate) fn is_taken(fd: impl AsFd) -> Result<bool, Errno> {
    let usual = sockopt::socket_send_buffer_size(&fd)?;
    sockopt::set_socket_send_buffer_size(&fd, 1)?;
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut room = [PollFd::new(&fd, PollFlags::OUT)];
    poll(&mut room, Some(&at_once))?;
    let taken = room[0].revents().contains(PollFlags::OUT);
    // The kernel doubles what it is given.
    sockopt::set_socket_send_buffer_size(&fd, usual / 2)?;
    Ok(taken)
}
