//! The kernel's end of one client: a connected socket that never waits.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags},
};

use crate::{connection::Stream, peer::Peer, sys};

/// The kernel's end of a client.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// The next client of `listener`, and its credentials.
    ///
    /// # Errors
    /// Those of `accept4(2)`; `WouldBlock` where nobody waits.
    pub fn accept(listener: impl AsFd) -> io::Result<(Self, Peer)> {
        let fd = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let peer = sys::peer_of(&fd)?;
        Ok((Link(fd), peer))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Without room for control data the kernel itself closes descriptors that were sent
        // (`unix(7)`, SCM_RIGHTS): they never enter this process.
        let (read, _) = net::recv(&self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let written = match parts {
            [part] => net::send(&self.0, part, flags)?,
            parts => net::sendmsg(&self.0, parts, &mut SendAncillaryBuffer::default(), flags)?,
        };
        Ok(written)
    }

    fn hang_up(&mut self) -> usize {
        // After this the peer can send no more, so the loop ends with what its buffer held.
        if net::shutdown(&self.0, Shutdown::Both).is_err() {
            return 0;
        }
        let mut unread = 0;
        let mut buffer = [0; 4096];
        loop {
            match net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return unread,
                Ok((_, n)) => unread += n,
                Err(Errno::INTR) => {}
                Err(_) => return unread,
            }
        }
    }
}
