//! Packets as udsc reads and writes them: each as a message with its length before it, so that all
//! above this file sees a stream under `length-prefixed`. One packet there is one call here.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{config::SocketType, frame::Framing, sys};

/// What packets look like above this file.
pub(crate) const FRAMING: Framing = Framing::LengthPrefixed;

/// Bytes of the length before a packet.
const PREFIX: usize = 4;

/// What comes on a socket: the bytes of a stream, or packets.
pub(crate) struct Reader<'a> {
    socket: &'a UnixStream,
    kind: SocketType,
    /// The packet at hand with its length before it. Bytes behind it are left from longer packets.
    packet: Vec<u8>,
    /// Up to here it was read, and up to here it reaches.
    given: usize,
    filled: usize,
    /// The reset that the server's close caused; returned after the last packet.
    reset: Option<io::Error>,
}

impl<'a> Reader<'a> {
    /// Reads `socket`; on one for seqpackets SO_PASSCRED is set. Reading datagrams never waits: only another
    /// datagram would end the wait.
    pub(crate) fn new(socket: &'a UnixStream, kind: SocketType) -> Self {
        Self {
            socket,
            kind,
            packet: Vec::new(),
            given: 0,
            filled: 0,
            reset: None,
        }
    }

    /// Whether the rest of a packet was received, but not read.
    pub(crate) fn is_amid_packet(&self) -> bool {
        self.given < self.filled
    }

    /// Takes the next packet; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            match self.receive() {
                Ok(Some(length)) => {
                    let prefix = u32::try_from(length).map_err(io::Error::other)?;
                    self.packet[..PREFIX].copy_from_slice(&prefix.to_be_bytes());
                    (self.given, self.filled) = (0, PREFIX + length);
                    return Ok(true);
                }
                Ok(None) => return self.reset.take().map_or(Ok(false), Err),
                // Where a server closes with packets unread, this error comes before the packets that it had
                // sent, unlike on a stream.
                Err(error)
                    if self.kind == SocketType::Seqpacket
                        && self.reset.is_none()
                        && error.kind() == io::ErrorKind::ConnectionReset =>
                {
                    self.reset = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives one packet behind the room for its length; `None` at the end.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        // Asks for the length first: of a packet longer than the buffer, the rest would be lost. The sender's
        // SO_SNDBUF bounds how long one can be.
        let wait = match self.kind {
            SocketType::Datagram => RecvFlags::DONTWAIT,
            _ => RecvFlags::empty(),
        };
        let flags = wait | RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) = recv(self.socket, &mut [0_u8; 0][..], flags)?;
        if self.packet.len() < PREFIX + length {
            self.packet.resize(PREFIX + length, 0);
        }
        let room = &mut self.packet[PREFIX..PREFIX + length];
        if self.kind == SocketType::Seqpacket {
            return sys::receive_packet(self.socket, room);
        }
        let (received, _) = recv(self.socket, room, wait)?;
        Ok(Some(received))
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.kind == SocketType::Stream {
            return self.socket.read(buffer);
        }
        if !self.is_amid_packet() && !self.fill()? {
            return Ok(0);
        }
        let n = (&self.packet[self.given..self.filled]).read(buffer)?;
        self.given += n;
        Ok(n)
    }
}

/// Sends the first message of `wire` as a packet; how many bytes of `wire` it was.
///
/// # Errors
/// Those of `send(2)`; `InvalidInput` where `wire` does not start with a whole message.
pub(crate) fn send_first(socket: &UnixStream, wire: &[u8]) -> io::Result<usize> {
    let packet = wire
        .split_first_chunk::<PREFIX>()
        .and_then(|(prefix, rest)| rest.get(..u32::from_be_bytes(*prefix) as usize))
        .ok_or(io::ErrorKind::InvalidInput)?;
    match send(socket, packet, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(PREFIX + packet.len()),
        // Within SO_SNDBUF, but more than the kernel can put into one packet.
        Err(Errno::NOBUFS) => Err(io::Error::other(format!(
            "a packet of {} bytes is more than the kernel can carry",
            packet.len()
        ))),
        Err(error) => Err(error.into()),
    }
}

/// How many packets `wire` is.
pub(crate) fn count(wire: &[u8]) -> u64 {
    FRAMING.scan(wire, usize::MAX, u64::MAX).messages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use rustix::net::sockopt;

    use super::*;
    use crate::udsc::socket;

    fn give(server: &UnixStream, packet: &[u8]) {
        assert_eq!(
            send(server, packet, SendFlags::empty()).unwrap(),
            packet.len()
        );
    }

    #[test]
    fn packets_of_any_length_have_it_before_them_until_the_end() {
        for piece in [1, 3, 1 << 20] {
            let (ours, server) = socket::pair(SocketType::Seqpacket).unwrap();
            let long = vec![b'x'; 150_000];
            let mut wire = Vec::new();
            for packet in [&b"a"[..], b"", b"bc"] {
                give(&server, packet);
                FRAMING.put(packet, &mut wire).unwrap();
            }
            if piece > 1 {
                give(&server, &long);
                FRAMING.put(&long, &mut wire).unwrap();
            }
            give(&server, b"");
            FRAMING.put(b"", &mut wire).unwrap();
            drop(server);
            let mut packets = Reader::new(&ours, SocketType::Seqpacket);
            let mut came = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                let n = packets.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                came.extend_from_slice(&buffer[..n]);
            }
            assert!(came == wire, "pieces of {piece}: {} bytes", came.len());
        }
    }

    #[test]
    fn a_reset_hides_no_packet_and_is_told_behind_them() {
        let (ours, server) = socket::pair(SocketType::Seqpacket).unwrap();
        send(&ours, b"unread", SendFlags::empty()).unwrap();
        give(&server, b"one");
        give(&server, b"");
        drop(server);
        let mut packets = Reader::new(&ours, SocketType::Seqpacket);
        let mut came = Vec::new();
        let error = packets.read_to_end(&mut came).unwrap_err();
        assert_eq!(came, b"\0\0\0\x03one\0\0\0\0");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn datagrams_go_on_after_an_empty_one() {
        let (ours, server) = socket::pair(SocketType::Datagram).unwrap();
        give(&server, b"");
        give(&server, b"a");
        let mut packets = Reader::new(&ours, SocketType::Datagram);
        let mut came = [0; 9];
        packets.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"\0\0\0\0\0\0\0\x01a");
        let error = packets.read(&mut came).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn messages_go_out_one_a_packet() {
        let (ours, server) = socket::pair(SocketType::Seqpacket).unwrap();
        let mut wire = Vec::new();
        for message in [&b"one"[..], b"", b"three"] {
            FRAMING.put(message, &mut wire).unwrap();
        }
        assert_eq!(count(&wire), 3);
        let mut left = &wire[..];
        let mut buffer = [0; 9];
        for message in [&b"one"[..], b"", b"three"] {
            left = &left[send_first(&ours, left).unwrap()..];
            let (_, n) = recv(&server, &mut buffer[..], RecvFlags::empty()).unwrap();
            assert_eq!(&buffer[..n], message);
        }
        let error = send_first(&ours, b"\0\0\0\x02a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn room_is_made_as_far_as_it_can_be_and_is_what_the_kernel_takes() {
        let (ours, server) = socket::pair(SocketType::Datagram).unwrap();
        sockopt::set_socket_send_buffer_size(&ours, 5000).unwrap();
        let largest = sys::make_room(&ours, 20_000).unwrap();
        assert!(largest >= 20_000, "{largest}");
        for (length, fits) in [(largest, true), (largest + 1, false)] {
            let sent = send(&ours, &vec![0; length], SendFlags::DONTWAIT);
            assert_eq!(sent.is_ok(), fits, "{length}: {sent:?}");
            if fits {
                recv(&server, &mut [0][..], RecvFlags::empty()).unwrap();
            } else {
                assert_eq!(sent, Err(Errno::MSGSIZE));
            }
        }
    }
}
