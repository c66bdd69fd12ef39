//! Clients that can send descriptors (SCM_RIGHTS, `unix(7)`): what they sent is received with room for
//! them and closed elsewhere (`closer`), and so are sockets in which some wait.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::ioctl_fionread,
    net::{self, Shutdown},
};

use crate::{
    closer,
    sys::{self, Received},
};

/// Looks that what one client has sent is worth.
const LOOKS: usize = 1024;

/// What comes next. `passcred`: whether the socket has SO_PASSCRED.
///
/// # Errors
/// Those of `recvmsg(2)`, and where descriptors come while too many that came before are not closed yet.
pub(super) fn receive(fd: impl AsFd, buffer: &mut [u8], passcred: bool) -> io::Result<Received> {
    let fd = fd.as_fd();
    let mut most = buffer.len();
    if !closer::has_room() {
        let found = sys::look(fd, buffer, passcred)?;
        if found.has_descriptors {
            return Err(io::Error::other(
                "it sends more descriptors, and those that clients sent before are not closed yet",
            ));
        }
        // Nothing that came since. A length of 0 would not tell the end.
        most = most.min(found.length.max(1));
    }
    let mut descriptors = Vec::new();
    let received = sys::receive_with_descriptors(fd, &mut buffer[..most], &mut descriptors)?;
    if !descriptors.is_empty() {
        closer::close_sent(descriptors, &sys::peer_of(fd)?);
    }
    Ok(received)
}

/// Closes a client with what it had sent, and returns how many bytes that were.
pub(super) fn cut_off(fd: OwnedFd, takes_descriptors: bool, passcred: bool) -> usize {
    let unread = unread(&fd);
    if takes_descriptors && brings_descriptors(&fd, passcred) {
        closer::close(fd);
    }
    unread
}

/// Shuts a client down and reads away what it had sent by `read`, which returns `None` at the end;
/// returns how many bytes that were.
pub(super) fn hang_up(
    fd: OwnedFd,
    takes_descriptors: bool,
    passcred: bool,
    mut read: impl FnMut(BorrowedFd<'_>, &mut [u8]) -> io::Result<Option<usize>>,
) -> usize {
    // After this the peer can send no more, so the loop ends with what its buffer held.
    if net::shutdown(&fd, Shutdown::Both).is_err() {
        return 0;
    }
    if takes_descriptors && brings_descriptors(&fd, passcred) {
        let unread = unread(&fd);
        closer::read_away(fd);
        return unread;
    }
    let mut unread = 0;
    let mut buffer = [0; 4096];
    loop {
        match read(fd.as_fd(), &mut buffer) {
            Ok(Some(length)) => unread += length,
            Ok(None) => return unread,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                _ => return unread,
            },
        }
    }
}

/// Whether descriptors wait anywhere in what a client has sent, to whom it says that it can send no more.
fn brings_descriptors(fd: &OwnedFd, passcred: bool) -> bool {
    let mut buffer = [0; 4096];
    // Whatever it is that cannot be looked at, its close is better waited for elsewhere.
    if net::shutdown(fd, Shutdown::Read).is_err() || sys::set_peek_offset(fd, 0).is_err() {
        return true;
    }
    for _ in 0..LOOKS {
        match sys::look(fd, &mut buffer, passcred) {
            Ok(found) if found.has_descriptors => return true,
            Ok(found) if found.is_end => return false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // ECONNRESET is said once.
            Ok(_) | Err(_) => {}
        }
    }
    true
}

/// Bytes that wait to be read: of both types all of them (`unix_inq_len` in net/unix/af_unix.c).
fn unread(fd: impl AsFd) -> usize {
    let bytes = ioctl_fionread(fd).unwrap_or_default();
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
