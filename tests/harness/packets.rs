//! A client on a seqpacket socket, which tells an empty packet from the end.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvFlags, SendFlags, Shutdown, SocketAddrUnix,
        SocketFlags, SocketType, connect, recvmsg, send, shutdown, socket_with,
        sockopt::{self, Timeout},
    },
};

use super::{HANG, wait_for};

/// Longest packet that a client receives whole, bytes.
const LONGEST: usize = 2 << 20;

/// Connects to the socket at `path`, whatever `kind` it has itself.
pub fn try_connect(path: &Path, kind: SocketType) -> Result<OwnedFd, Errno> {
    // Other tests start daemons meanwhile, which are not to have it open too.
    let fd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

/// A client. A call on it that takes longer than `HANG` fails.
#[derive(Debug)]
pub struct Packets(OwnedFd);

impl Packets {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Self {
        let fd = try_connect(path, SocketType::SEQPACKET)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for timeout in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&fd, timeout, Some(HANG)).unwrap();
        }
        sockopt::set_socket_passcred(&fd, true).unwrap();
        Packets(fd)
    }

    /// Makes room for packets of this many bytes; false where this process may not.
    pub fn make_room(&self, length: usize) -> bool {
        sockopt::set_socket_send_buffer_size(&self.0, length).unwrap();
        // The kernel keeps 32 bytes back.
        sockopt::socket_send_buffer_size(&self.0).unwrap() >= length + 32
    }

    /// Sends one packet.
    pub fn send(&self, packet: &[u8]) {
        self.try_send(packet, SendFlags::empty()).unwrap();
    }

    /// Sends one packet; with DONTWAIT only if it fits.
    pub fn try_send(&self, packet: &[u8], flags: SendFlags) -> Result<(), Errno> {
        let sent = send(&self.0, packet, flags | SendFlags::NOSIGNAL)?;
        assert_eq!(sent, packet.len());
        Ok(())
    }

    /// Sends until nothing has fitted for a while, but `least` have been sent, or all are; returns
    /// how many were.
    pub fn send_until_full(&self, packets: impl Iterator<Item = Vec<u8>>, least: usize) -> usize {
        let mut sent = 0;
        for packet in packets {
            while let Err(error) = self.try_send(&packet, SendFlags::DONTWAIT) {
                assert_eq!(error, Errno::AGAIN);
                let a_while = Timespec {
                    tv_sec: 0,
                    tv_nsec: 300_000_000,
                };
                // Nothing tells that the daemon will take no more.
                let mut room = [PollFd::new(self, PollFlags::OUT)];
                if sent < least {
                    assert!(wait_for(self.as_fd(), PollFlags::OUT), "only {sent} sent");
                } else if poll(&mut room, Some(&a_while)).unwrap() == 0 {
                    return sent;
                }
            }
            sent += 1;
        }
        sent
    }

    /// Sends one packet together with descriptors (SCM_RIGHTS).
    pub fn send_with(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        super::send_with(&self.0, packet, descriptors);
    }

    /// The next packet; `None` at the end.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.try_receive().unwrap()
    }

    /// As `receive`.
    pub fn try_receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut packet = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut packet)];
        let length = recvmsg(&self.0, parts, &mut control, RecvFlags::empty())?.bytes;
        assert!(length < LONGEST, "cut");
        // Only a packet brings credentials.
        let is_packet = control.drain().count() > 0;
        packet.truncate(length);
        Ok(is_packet.then_some(packet))
    }

    /// All packets until the end.
    pub fn receive_all(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive()).collect()
    }

    /// Sends a packet and receives it back: the daemon has done all that went before.
    pub fn round_trip(&self, packet: &[u8]) {
        self.send(packet);
        assert_eq!(self.receive().as_deref(), Some(packet));
    }

    /// Sends no more.
    pub fn finish(&self) {
        shutdown(&self.0, Shutdown::Write).unwrap();
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
