//! udsc's own socket, of whichever type: how it is connected, and what is the same for all types.
//! What is read from it and written to it is a byte stream; `packets` makes one of packets.

use std::{
    io::{self, Write},
    os::unix::{ffi::OsStrExt, net::UnixStream},
};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, sockopt};

use super::packets::{self, Reader};
use crate::{
    config::{Address, SocketType},
    sys,
};

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Of any type, since the standard library has none for packets: all its calls but reading and writing are
    /// those of any connected socket.
    pub(crate) socket: UnixStream,
    kind: SocketType,
}

impl Transport {
    /// Connects to `address`.
    ///
    /// # Errors
    /// Those of `connect(2)` and, for an address that has no room in it, ENAMETOOLONG.
    pub(crate) fn connect(address: &Address, kind: SocketType) -> io::Result<Self> {
        let address = match address {
            Address::Path(path) => SocketAddrUnix::new(path.as_os_str().as_bytes())?,
            Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        };
        let socket = net::socket_with(AddressFamily::UNIX, kind.raw(), SocketFlags::CLOEXEC, None)?;
        net::connect(&socket, &address)?;
        Self::of(socket.into(), kind)
    }

    /// Prepares a connected `socket`.
    fn of(socket: UnixStream, kind: SocketType) -> io::Result<Self> {
        match kind {
            SocketType::Stream => {}
            // Tells empty packets from the end. Not earlier: connecting would then bind an address
            // that nobody needs (`unix(7)`).
            SocketType::Seqpacket => sockopt::set_socket_passcred(&socket, true)?,
            // An abstract address that the kernel chooses (`unix(7)`, autobind), for the answers.
            // Not earlier: now nobody but the server can send there.
            SocketType::Datagram => net::bind(&socket, &SocketAddrUnix::new_unnamed())?,
        }
        Ok(Self { socket, kind })
    }

    /// Whether a message is a packet.
    pub(crate) fn is_packets(&self) -> bool {
        self.kind != SocketType::Stream
    }

    /// Whether either side can end it and the other is told. Datagrams have no connection.
    pub(crate) fn has_end(&self) -> bool {
        self.kind != SocketType::Datagram
    }

    /// What comes.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.socket, self.kind)
    }

    /// Raises the send buffer so that packets of `length` bytes pass. Where the system does not allow that:
    /// `Some`, with the longest that pass.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub(crate) fn make_room(&self, length: usize) -> io::Result<Option<usize>> {
        if !self.is_packets() {
            return Ok(None);
        }
        let largest = sys::make_room(&self.socket, length)?;
        Ok((largest < length).then_some(largest))
    }

    /// Two that are connected with each other, the second as a plain socket.
    #[cfg(test)]
    pub(crate) fn pair(kind: SocketType) -> io::Result<(Self, UnixStream)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = net::socketpair(AddressFamily::UNIX, kind.raw(), flags, None)?;
        Ok((Self::of(ours.into(), kind)?, theirs.into()))
    }
}

/// On packets each call sends one; `wire` holds whole ones.
impl Write for &Transport {
    fn write(&mut self, wire: &[u8]) -> io::Result<usize> {
        match self.kind {
            SocketType::Stream => (&self.socket).write(wire),
            _ => packets::send_first(&self.socket, wire),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
