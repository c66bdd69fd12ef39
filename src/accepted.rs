//! An accepted socket: the kernel's end of one client, used without ever waiting. The bytes of a stream pass
//! here as they come; `packets` makes a stream of a seqpacket socket.
//!
//! Most clients cannot send descriptors: the listener that they connected to keeps them out. Those that
//! can (they connected before, or the kernel is older than 6.16) are read from by `rights`.

mod packets;
mod rights;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, sockopt};

pub use packets::Sizes;

use crate::{connection::Stream, peer::Peer, sys};
use packets::Packets;

/// Parts that one call can have (UIO_MAXIOV, `sendmsg(2)`).
const PARTS: usize = 1024;

/// An accepted socket (`accept(2)`).
#[derive(Debug)]
pub struct Accepted {
    kind: Kind,
    left: bool,
}

#[derive(Debug)]
enum Kind {
    /// A stream, and whether descriptors may come with its bytes.
    Stream(OwnedFd, bool),
    Packets(Packets),
}

impl Accepted {
    /// The next client of `listener`, and its credentials. `packets`: of a seqpacket socket, how
    /// long they may be.
    ///
    /// # Errors
    /// Those of `accept4(2)`; `WouldBlock` where nobody waits.
    pub fn accept(listener: impl AsFd, packets: Option<Sizes>) -> io::Result<(Self, Peer)> {
        let fd = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let peer = sys::peer_of(&fd)?;
        // Such clients may come faster than others can be let in: nothing more is asked of them. Not of
        // packets: one may be empty.
        if packets.is_none() && has_left(&fd) {
            let kind = Kind::Stream(fd, false);
            return Ok((Accepted { kind, left: true }, peer));
        }
        Ok((Accepted::resume(fd, packets)?, peer))
    }

    /// Goes on with a client that an earlier process accepted.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn resume(fd: OwnedFd, packets: Option<Sizes>) -> io::Result<Self> {
        let takes_descriptors = sys::takes_descriptors(&fd);
        let kind = match packets {
            None => {
                // An urgent byte (MSG_OOB) is a byte like others: without this, reads leave it out.
                sockopt::set_socket_oobinline(&fd, true)?;
                Kind::Stream(fd, takes_descriptors)
            }
            Some(sizes) => Kind::Packets(Packets::new(fd, takes_descriptors, sizes)?),
        };
        Ok(Accepted { kind, left: false })
    }

    /// Whether the peer had left again before it was accepted, and had sent nothing.
    #[must_use]
    pub fn had_left(&self) -> bool {
        self.left
    }
}

/// Whether the peer of a stream has left and nothing is to be read.
fn has_left(fd: &OwnedFd) -> bool {
    let peeked = net::recv(fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    // Who only ended its sending may still want what others say. An urgent byte (MSG_OOB), which a peek
    // passes over, is told by POLLPRI.
    let mut polled = [PollFd::new(fd, PollFlags::PRI)];
    matches!(peeked, Ok((_, 0)))
        && matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1..))
        && polled[0].revents().contains(PollFlags::HUP)
        && !polled[0].revents().contains(PollFlags::PRI)
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Stream(fd, _) => fd.as_fd(),
            Kind::Packets(packets) => packets.as_fd(),
        }
    }
}

impl Stream for Accepted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Stream(fd, false) => Ok(net::recv(fd, buffer, RecvFlags::DONTWAIT)?.0),
            Kind::Stream(fd, true) => Ok(rights::receive(fd, buffer, false)?.header.length),
            Kind::Packets(packets) => packets.read(buffer),
        }
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = match &mut self.kind {
            Kind::Stream(fd, _) => fd,
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
        match &mut self.kind {
            Kind::Stream(..) => Ok(()),
            Kind::Packets(packets) => packets.resize(message, longest),
        }
    }

    fn cut_off(self) -> usize {
        let (fd, takes_descriptors) = match self.kind {
            Kind::Stream(fd, takes_descriptors) => (fd, takes_descriptors),
            Kind::Packets(packets) => return packets.cut_off(),
        };
        rights::cut_off(fd, takes_descriptors, false)
    }

    fn hang_up(self) -> usize {
        let (fd, takes_descriptors) = match self.kind {
            Kind::Stream(fd, takes_descriptors) => (fd, takes_descriptors),
            Kind::Packets(packets) => return packets.hang_up(),
        };
        rights::hang_up(fd, takes_descriptors, false, |fd, buffer| {
            let (_, length) = net::recv(fd, buffer, RecvFlags::DONTWAIT)?;
            Ok((length > 0).then_some(length))
        })
    }
}
