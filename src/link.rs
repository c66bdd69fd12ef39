//! The kernel's end of one client: a connected socket that never waits. The bytes of a stream pass
//! here as they come; `packets` makes a stream of a seqpacket socket.

mod packets;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, ioctl_fionread},
    net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags},
};

pub use packets::Sizes;

use crate::{connection::Stream, peer::Peer, sys};
use packets::Packets;

/// Parts that one call can have (UIO_MAXIOV, `sendmsg(2)`).
const PARTS: usize = 1024;

/// The kernel's end of a client.
#[derive(Debug)]
pub struct Link(Kind);

#[derive(Debug)]
enum Kind {
    Stream(OwnedFd),
    Packets(Packets),
}

impl Link {
    /// The next client of `listener`, and its credentials. `packets`: of a seqpacket socket, how
    /// long they may be.
    ///
    /// # Errors
    /// Those of `accept4(2)`; `WouldBlock` where nobody waits.
    pub fn accept(listener: impl AsFd, packets: Option<Sizes>) -> io::Result<(Self, Peer)> {
        let fd = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let peer = sys::peer_of(&fd)?;
        Ok((Link::resume(fd, packets)?, peer))
    }
}

impl Link {
    /// Goes on with a client that an earlier process accepted.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn resume(fd: OwnedFd, packets: Option<Sizes>) -> io::Result<Self> {
        Ok(Link(match packets {
            None => Kind::Stream(fd),
            Some(sizes) => Kind::Packets(Packets::new(fd, sizes)?),
        }))
    }
}

/// Bytes that wait to be read: of both types all of them (`unix_inq_len` in net/unix/af_unix.c).
fn unread(fd: impl AsFd) -> usize {
    let bytes = ioctl_fionread(fd).unwrap_or_default();
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Stream(fd) => fd.as_fd(),
            Kind::Packets(packets) => packets.as_fd(),
        }
    }
}

impl Stream for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = match &mut self.0 {
            Kind::Stream(fd) => fd,
            Kind::Packets(packets) => return packets.read(buffer),
        };
        // Without room for control data the kernel itself closes descriptors that were sent
        // (`unix(7)`, SCM_RIGHTS): they never enter this process.
        let (read, _) = net::recv(fd, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = match &mut self.0 {
            Kind::Stream(fd) => fd,
            Kind::Packets(packets) => return packets.write(parts),
        };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let parts = &parts[..parts.len().min(PARTS)];
        let written = match parts {
            [part] => net::send(fd, part, flags)?,
            parts => net::sendmsg(fd, parts, &mut SendAncillaryBuffer::default(), flags)?,
        };
        Ok(written)
    }

    fn resize(&mut self, message: usize, longest: usize) -> io::Result<()> {
        match &mut self.0 {
            Kind::Stream(_) => Ok(()),
            Kind::Packets(packets) => packets.resize(message, longest),
        }
    }

    fn cut_off(&mut self) -> usize {
        unread(&*self)
    }

    fn hang_up(&mut self) -> usize {
        let fd = match &mut self.0 {
            Kind::Stream(fd) => fd,
            Kind::Packets(packets) => return packets.hang_up(),
        };
        // After this the peer can send no more, so the loop ends with what its buffer held.
        if net::shutdown(&*fd, Shutdown::Both).is_err() {
            return 0;
        }
        let mut unread = 0;
        let mut buffer = [0; 4096];
        loop {
            match net::recv(&*fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return unread,
                Ok((_, n)) => unread += n,
                Err(Errno::INTR) => {}
                Err(_) => return unread,
            }
        }
    }
}
