//! A client on a seqpacket socket (`unix(7)`), as the byte stream that the hub knows: each packet is a
//! message with its length before it, as `Framing::LengthPrefixed` has it. What is read here gets its
//! length, what is written loses it. How long a message may be the framing judges; a longer packet
//! only has to show that it is one.

use std::io::{self, IoSlice};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::ClientSocket;
use crate::sys;

/// Bytes of the length before a message.
const PREFIX: usize = 4;
/// Packets that one call reads or writes at most: small ones cost as much as large ones, and other
/// clients have their turns. Events tell of the rest.
const CALL_PACKETS: usize = 64;

/// How long the packets of a socket may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `message-size`, bytes; what is longer is cut one byte behind it.
    message: u32,
    /// Bytes of the longest packet that is sent, where SO_SNDBUF must be raised for it.
    raise: Option<usize>,
}

impl Sizes {
    /// Of one that is only to be ended.
    #[must_use]
    pub fn any() -> Self {
        Sizes {
            message: 0,
            raise: None,
        }
    }

    /// For clients that send messages of `message` bytes and are sent packets of `longest` bytes.
    /// Returns with it how long a sent packet can be: less than `longest` where SO_SNDBUF cannot be
    /// raised so far (`socket(7)`: net.core.wmem_max, or CAP_NET_ADMIN).
    ///
    /// # Errors
    /// Those of `socket(2)` and `setsockopt(2)`.
    pub fn new(message: usize, longest: usize) -> io::Result<(Self, usize)> {
        // Not the listener: what it has its clients do not inherit, and it may be the manager's.
        let flags = SocketFlags::CLOEXEC;
        let probe = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let mut room = sys::make_room(&probe, 0)?;
        let raise = (room < longest).then_some(longest);
        if raise.is_some() {
            room = sys::make_room(&probe, longest)?;
        }
        let sizes = Sizes {
            message: u32::try_from(message).unwrap_or(u32::MAX),
            raise,
        };
        Ok((sizes, room))
    }
}

impl ClientSocket {
    /// Makes this the socket of a client that sends and is sent packets.
    pub(super) fn carry_packets(&mut self, sizes: Sizes) -> io::Result<()> {
        // Tells an empty packet from the end. Nobody looks at what they say: the sender is who
        // connected.
        sockopt::set_socket_passcred(&self.fd, true)?;
        if let Some(longest) = sizes.raise {
            sys::make_room(&self.fd, longest)?;
        }
        self.message_size = Some(sizes.message);
        Ok(())
    }

    /// `buffer` has room for the longest message, its length and one byte more.
    #[inline(never)] // A read of a stream is not to pay for it.
    pub(super) fn read_packets(
        &mut self,
        message_size: u32,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let room = PREFIX + message_size as usize + 1;
        if buffer.len() < room {
            // No caller does this. It must not look like the end.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut filled = 0;
        for _ in 0..CALL_PACKETS {
            let Some(place) = buffer.get_mut(filled..filled + room) else {
                break;
            };
            let (prefix, body) = place.split_at_mut(PREFIX);
            match self.receive(body) {
                Ok(Some(length)) => {
                    let length = length.min(body.len());
                    prefix.copy_from_slice(&(length as u32).to_be_bytes());
                    filled += PREFIX + length;
                }
                // Said once, and before the packets that came earlier.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.reset = true,
                // The end, like a lack of packets, is told again.
                Ok(None) | Err(_) if filled > 0 => break,
                Ok(None) if self.reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(None) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Sends whole messages, each as a packet; returns their bytes, lengths included.
    #[inline(never)] // A write to a stream is not to pay for it.
    pub(super) fn write_packets(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        send_each(parts, |body| self.send(body).map(|_| ()))
    }
}

/// Sends each message of `parts` as a packet, until `send` fails; returns the bytes of those sent, lengths
/// included. `parts` together are whole messages with their lengths.
fn send_each(
    parts: &[IoSlice<'_>],
    mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
) -> io::Result<usize> {
    let mut rest = Rest {
        part: &[],
        more: parts,
    };
    let mut sent = 0;
    for _ in 0..CALL_PACKETS {
        let Some(length) = rest.length() else {
            break;
        };
        let first = rest.piece(length);
        let result = if first.len() == length {
            send(&[IoSlice::new(first)])
        } else {
            // It waits in more than one chunk of its queue.
            let mut pieces = vec![IoSlice::new(first)];
            let mut missing = length - first.len();
            while missing > 0 {
                let piece = rest.piece(missing);
                if piece.is_empty() {
                    // No caller does this. A packet that is not whole is not sent.
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                missing -= piece.len();
                pieces.push(IoSlice::new(piece));
            }
            send(&pieces)
        };
        match result {
            Ok(()) => sent += PREFIX + length,
            Err(_) if sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Bytes that stand in several parts, seen from some place on.
struct Rest<'a> {
    part: &'a [u8],
    more: &'a [IoSlice<'a>],
}

impl<'a> Rest<'a> {
    /// Passes over the next `most` bytes, or as many of them as stand in one part.
    fn piece(&mut self, most: usize) -> &'a [u8] {
        while self.part.is_empty()
            && let Some((part, more)) = self.more.split_first()
        {
            (self.part, self.more) = (part, more);
        }
        let (piece, part) = self.part.split_at(most.min(self.part.len()));
        self.part = part;
        piece
    }

    /// Passes over the length of a message; `None` at the end.
    fn length(&mut self) -> Option<usize> {
        let mut prefix = [0; PREFIX];
        let mut missing = &mut prefix[..];
        while !missing.is_empty() {
            let piece = self.piece(missing.len());
            if piece.is_empty() {
                return None;
            }
            let (place, rest) = missing.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            missing = rest;
        }
        Some(u32::from_be_bytes(prefix) as usize)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::fd::OwnedFd;

    use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, socketpair};

    use super::*;
    use crate::connection::Stream;

    const LIMIT: usize = 8;

    /// The daemon's end, for messages of `LIMIT` bytes, and the client's.
    fn pair() -> (ClientSocket, OwnedFd) {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let (sizes, _) = Sizes::new(LIMIT, LIMIT).unwrap();
        (carrying(ours, sizes), theirs)
    }

    fn carrying(fd: OwnedFd, sizes: Sizes) -> ClientSocket {
        let mut socket = ClientSocket::new(fd, false);
        socket.carry_packets(sizes).unwrap();
        socket
    }

    fn put(client: &OwnedFd, packets: &[&[u8]]) {
        for packet in packets {
            let sent = send(client, packet, SendFlags::DONTWAIT).unwrap();
            assert_eq!(sent, packet.len());
        }
    }

    fn prefixed(packets: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for packet in packets {
            bytes.extend((packet.len() as u32).to_be_bytes());
            bytes.extend_from_slice(packet);
        }
        bytes
    }

    fn read(ours: &mut ClientSocket, room: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0xee; room];
        let n = ours.read(&mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn packets_get_their_lengths_and_empty_ones_are_not_the_end() {
        let (mut ours, client) = pair();
        assert_eq!(kind(read(&mut ours, 100)), io::ErrorKind::WouldBlock);
        put(&client, &[b"one", b"", b"12345678", b""]);
        assert_eq!(
            read(&mut ours, 100).unwrap(),
            prefixed(&[b"one", b"", b"12345678", b""])
        );
        put(&client, &[b""]);
        assert_eq!(read(&mut ours, 100).unwrap(), prefixed(&[b""]));
        put(&client, &[b"", b"last"]);
        net::shutdown(&client, Shutdown::Write).unwrap();
        assert_eq!(read(&mut ours, 100).unwrap(), prefixed(&[b"", b"last"]));
        for _ in 0..3 {
            assert_eq!(read(&mut ours, 100).unwrap(), b"", "the end");
        }
    }

    #[test]
    fn one_that_is_too_long_shows_it_and_no_more() {
        let (mut ours, client) = pair();
        put(&client, &[b"123456789", &[b'x'; 5000], b"next"]);
        let cut = [&b"123456789"[..], &[b'x'; LIMIT + 1], b"next"];
        assert_eq!(read(&mut ours, 100).unwrap(), prefixed(&cut));
    }

    #[test]
    fn no_packet_is_received_that_might_not_fit() {
        let (mut ours, client) = pair();
        put(&client, &[b"1", b"2", b"3", b"4"]);
        let room = PREFIX + LIMIT + 1;
        assert_eq!(kind(read(&mut ours, room - 1)), io::ErrorKind::InvalidInput);
        assert_eq!(read(&mut ours, room).unwrap(), prefixed(&[b"1"]));
        assert_eq!(read(&mut ours, room + 4).unwrap(), prefixed(&[b"2"]));
        assert_eq!(read(&mut ours, room + 5).unwrap(), prefixed(&[b"3", b"4"]));
        assert_eq!(kind(read(&mut ours, room)), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_call_reads_and_writes_a_bounded_number() {
        let (mut ours, client) = pair();
        let all = vec![&b""[..]; CALL_PACKETS + 1];
        put(&client, &all);
        let bytes = prefixed(&all[1..]);
        assert_eq!(read(&mut ours, 10_000).unwrap(), bytes);
        assert_eq!(read(&mut ours, 10_000).unwrap(), prefixed(&[b""]));
        let more = prefixed(&all);
        assert_eq!(ours.write(&[IoSlice::new(&more)]).unwrap(), bytes.len());
    }

    #[test]
    fn what_was_sent_before_a_reset_is_read_before_it_is_told() {
        let (mut ours, client) = pair();
        put(&client, &[b"one", b"two"]);
        let unread = prefixed(&[b"unread"]);
        assert_eq!(ours.write(&[IoSlice::new(&unread)]).unwrap(), unread.len());
        drop(client);
        assert_eq!(read(&mut ours, 100).unwrap(), prefixed(&[b"one", b"two"]));
        let end = kind(read(&mut ours, 100));
        assert_eq!(end, io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn hanging_up_counts_the_bytes_that_nobody_read() {
        let (ours, client) = pair();
        put(&client, &[b"12345", b"", &[b'x'; 5000], b"1"]);
        assert_eq!(ours.hang_up(), 5006);
        let mut end = [0; 1];
        assert_eq!(
            recv(&client, &mut end[..], RecvFlags::DONTWAIT).unwrap().1,
            0
        );

        let (mut ours, client) = pair();
        let unread = prefixed(&[b"unread"]);
        ours.write(&[IoSlice::new(&unread)]).unwrap();
        put(&client, &[b"12345"]);
        drop(client);
        assert_eq!(ours.hang_up(), 5, "behind the reset");
    }

    /// What arrives when the bytes stand in these parts and the kernel takes `room` packets a call.
    fn sent(parts: [&[u8]; 3], room: usize) -> Vec<Vec<u8>> {
        let whole = parts.concat();
        let mut packets: Vec<Vec<u8>> = Vec::new();
        let mut done = 0;
        while done < whole.len() {
            let mut skip = done;
            let parts = parts.map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                IoSlice::new(&part[skipped..])
            });
            let before = packets.len();
            done += send_each(&parts, |body| {
                if packets.len() == before + room {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                packets.push(body.iter().flat_map(|piece| piece.to_vec()).collect());
                Ok(())
            })
            .unwrap();
        }
        packets
    }

    #[test]
    fn messages_leave_as_packets_wherever_the_parts_end() {
        let messages = [&b"abc"[..], b"", b"defgh", b"i", b"", b"jk"];
        let bytes = prefixed(&messages);
        for room in [1, 2, usize::MAX] {
            for i in 0..=bytes.len() {
                for j in i..=bytes.len() {
                    let parts = [&bytes[..i], &bytes[i..j], &bytes[j..]];
                    assert_eq!(sent(parts, room), messages, "parted at {i} and {j}");
                }
            }
        }
    }

    #[test]
    fn where_nothing_was_sent_the_reason_is_told() {
        let bytes = prefixed(&[b"abc"]);
        let full = || Err(io::ErrorKind::WouldBlock.into());
        let parts = [IoSlice::new(&bytes[..5]), IoSlice::new(&bytes[5..])];
        assert_eq!(
            kind(send_each(&parts, |_| full())),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(send_each(&[], |_| full()).unwrap(), 0);
        let torn = send_each(&parts[..1], |_| panic!("sent a part"));
        assert_eq!(kind(torn), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_send_buffer_is_raised_where_it_must_be() {
        let most = |ours: &ClientSocket| sys::make_room(ours, 0).unwrap();
        let before = most(&pair().0);
        let (sizes, room) = Sizes::new(100, before + 1).unwrap();
        assert!(
            room > before,
            "net.core.wmem_max is no more than the default"
        );
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, client) = socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let mut ours = carrying(ours, sizes);
        assert_eq!(most(&ours), room);
        let packet = prefixed(&[&vec![7; before + 1]]);
        assert_eq!(ours.write(&[IoSlice::new(&packet)]).unwrap(), packet.len());
        let mut back = vec![0; before + 2];
        let (_, n) = recv(&client, &mut back[..], RecvFlags::DONTWAIT).unwrap();
        assert_eq!(n, before + 1);
    }
}
