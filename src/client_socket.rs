//! The socket of one client: accepted, and used without ever waiting. The bytes of a stream pass here as they
//! come; `packets` makes a stream of a seqpacket socket.
//!
//! Most clients cannot send descriptors: the listener that they connected to keeps them out. Those that
//! can (they connected before, or the kernel is older than 6.16) are read from by `descriptors`.

mod descriptors;
mod packets;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
    net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, sockopt},
};

pub use packets::Sizes;

use crate::{cgroups, closer, connection::Stream, peer::Peer, sys, unit::UnitLookup};

/// Parts that one call can have (UIO_MAXIOV, `sendmsg(2)`).
const PARTS: usize = 1024;

/// The socket of a client.
#[derive(Debug)]
pub struct ClientSocket {
    fd: OwnedFd,
    /// Descriptors may come with what the client sends.
    takes_descriptors: bool,
    /// Of a seqpacket socket: `message-size`, bytes.
    message_size: Option<u32>,
    /// Of a seqpacket socket, ECONNRESET was seen: the client went without reading all it was sent.
    reset: bool,
    left: bool,
}

impl ClientSocket {
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
            let mut client = Self::new(fd, false);
            client.left = true;
            return Ok((client, peer));
        }
        Ok((Self::resume(fd, packets, false)?, peer))
    }

    /// Goes on with a client that an earlier process accepted; `is_plain`: as that one said of it.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn resume(fd: OwnedFd, packets: Option<Sizes>, is_plain: bool) -> io::Result<Self> {
        let takes_descriptors = !is_plain && sys::takes_descriptors(&fd);
        let mut client = Self::new(fd, takes_descriptors);
        match packets {
            None if is_plain => {}
            // An urgent byte (MSG_OOB) is a byte like others: without this, reads leave it out.
            None => sockopt::set_socket_oobinline(&client, true)?,
            Some(sizes) => client.carry_packets(sizes)?,
        }
        Ok(client)
    }

    /// Whether no descriptors can come, and urgent bytes are among the others: its options need no other look.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.takes_descriptors && !self.left
    }

    fn new(fd: OwnedFd, takes_descriptors: bool) -> Self {
        ClientSocket {
            fd,
            takes_descriptors,
            message_size: None,
            reset: false,
            left: false,
        }
    }

    /// Whether the peer had left again before it was accepted, and had sent nothing.
    #[must_use]
    pub fn had_left(&self) -> bool {
        self.left
    }

    fn has_packets(&self) -> bool {
        self.message_size.is_some()
    }

    /// The length of the next packet, of which `buffer` gets what it has room for, or of the next bytes of a
    /// stream; `None` at the end.
    #[inline(always)]
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.takes_descriptors {
            let received = descriptors::receive(&self.fd, buffer, self.has_packets())?;
            return Ok((!received.is_end).then_some(received.header.length));
        }
        if self.has_packets() {
            return sys::receive_packet(&self.fd, buffer);
        }
        let (_, length) = net::recv(&self.fd, buffer, RecvFlags::DONTWAIT)?;
        Ok((length > 0).then_some(length))
    }

    /// Whether descriptors wait anywhere in what the client has sent. It can send no more then.
    fn brings_descriptors(&self) -> bool {
        self.takes_descriptors && descriptors::wait_in(&self.fd, self.has_packets())
    }

    /// Sends bytes of a stream, or one packet.
    #[inline(always)]
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match parts {
            [part] => net::send(&self.fd, part, flags)?,
            parts => net::sendmsg(&self.fd, parts, &mut SendAncillaryBuffer::default(), flags)?,
        };
        Ok(sent)
    }

    /// Bytes that wait to be read: of both types all of them (`unix_inq_len` in net/unix/af_unix.c).
    fn unread(&self) -> usize {
        let bytes = ioctl_fionread(&self.fd).unwrap_or_default();
        usize::try_from(bytes).unwrap_or(usize::MAX)
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

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream for ClientSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.message_size {
            None => Ok(self.receive(buffer)?.unwrap_or(0)),
            Some(message_size) => self.read_packets(message_size, buffer),
        }
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.has_packets() {
            return self.write_packets(parts);
        }
        self.send(&parts[..parts.len().min(PARTS)])
    }

    fn resize(&mut self, message: usize, longest: usize) -> io::Result<()> {
        if let Some(size) = &mut self.message_size {
            *size = u32::try_from(message).unwrap_or(u32::MAX);
            sys::make_room(&self.fd, longest)?;
        }
        Ok(())
    }

    fn look_up_unit(&self) -> UnitLookup {
        cgroups::unit_of_peer(&self.fd)
    }

    fn cut_off(self) -> usize {
        let unread = self.unread();
        if self.brings_descriptors() {
            closer::close(self.fd);
        }
        unread
    }

    fn hang_up(mut self) -> usize {
        // After this the peer can send no more, so the loop ends with what its buffer held.
        if net::shutdown(&self.fd, Shutdown::Both).is_err() {
            return 0;
        }
        if self.brings_descriptors() {
            let unread = self.unread();
            closer::read_away(self.fd);
            return unread;
        }
        // None wait, and none can come.
        self.takes_descriptors = false;
        let mut unread = 0;
        let mut buffer = [0; 4096];
        loop {
            match self.receive(&mut buffer) {
                Ok(Some(length)) => unread += length,
                Ok(None) => return unread,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                    _ => return unread,
                },
            }
        }
    }
}
