//! Clients that can send descriptors (SCM_RIGHTS, `unix(7)`): what they sent is received with room for
//! them and closed elsewhere (`closer`), and so are sockets in which some wait.

use std::{io, os::fd::AsFd};

use rustix::net::{self, Shutdown};

use crate::{
    closer,
    sys::{self, Received},
};

/// Looks that what one client has sent is worth.
const LOOKS: usize = 1024;

/// Receives what comes next. `passcred`: whether the socket has SO_PASSCRED.
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

/// Whether descriptors wait anywhere in what a client has sent, to whom it says that it can send no more.
pub(super) fn wait_in(fd: impl AsFd, passcred: bool) -> bool {
    let fd = fd.as_fd();
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
