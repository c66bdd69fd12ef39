//! The connection to a server: puts messages on it, and names what goes wrong on it.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    MESSAGE_LIMIT,
    failure::Failure,
    messages::Messages,
    packets::{self, Reader},
};
use crate::{
    config::{ServiceKind, SocketType},
    frame::Framing,
    sys,
};

/// A connection, and what is known of the server.
pub(crate) struct Connection {
    /// udsc's own socket.
    pub socket: UnixStream,
    /// Its type.
    pub kind: SocketType,
    /// How messages are told apart in what comes and what is sent.
    pub framing: Framing,
    /// What the server does, where the config file says so.
    pub service: Option<ServiceKind>,
    /// Bytes of the longest message that the server takes, and the name of its socket, where the config file says
    /// so.
    pub limit: Option<(usize, String)>,
    /// The server's address, as errors and replies show it.
    pub name: String,
    /// Whether anything came from the server.
    pub answered: AtomicBool,
}

impl Connection {
    /// Puts one message on the wire, at the end of `wire`; `place` is where it stood, as "line 3 of
    /// standard input".
    pub(crate) fn put(
        &self,
        message: &[u8],
        wire: &mut Vec<u8>,
        place: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let length = message.len();
        if let Some((limit, socket)) = &self.limit
            && length > *limit
        {
            return Err(Failure::Told(format!(
                "{} has {length} bytes, and message-size of socket {socket} is {limit}: send it in parts, or raise message-size",
                place()
            )));
        }
        if self.is_packets() {
            let largest = sys::make_room(&self.socket, length)
                .map_err(|source| Failure::System("raising the send buffer", source))?;
            if largest < length {
                return Err(Failure::Told(format!(
                    "{} does not fit into a packet: it has {length} bytes, a packet at most {largest}; send it in parts, or raise net.core.wmem_max",
                    place()
                )));
            }
        }
        let framing = self.framing;
        framing.put(message, wire).map_err(|why| {
            let place = place();
            Failure::Told(format!(
                "{place} cannot be sent under framing {framing}: {why}"
            ))
        })
    }

    /// Whether a message is a packet.
    fn is_packets(&self) -> bool {
        self.kind != SocketType::Stream
    }

    /// Whether either side can end it and the other is told. Datagrams have no connection.
    pub(crate) fn has_end(&self) -> bool {
        self.kind != SocketType::Datagram
    }

    /// Sends of `unsent`, which are whole messages, what the socket takes at once.
    pub(crate) fn send(&self, unsent: &mut &[u8]) -> Result<(), Failure> {
        if unsent.is_empty() {
            return Ok(());
        }
        let sent = match self.kind {
            SocketType::Stream => (&self.socket).write(unsent),
            _ => packets::send_first(&self.socket, unsent),
        };
        match sent {
            Ok(n) => *unsent = &unsent[n..],
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) => return Err(self.broke(error)),
        }
        Ok(())
    }

    /// What comes, cut into messages.
    pub(crate) fn messages(&self) -> Messages<Reader<'_>> {
        let reader = Reader::new(&self.socket, self.kind);
        Messages::new(reader, self.framing, MESSAGE_LIMIT)
    }

    /// Receives once, so many bytes; 0 at the end, or where nothing is there and the socket does not wait.
    pub(crate) fn receive(&self, messages: &mut Messages<Reader<'_>>) -> Result<usize, Failure> {
        match messages.receive() {
            Ok(n) => {
                self.answered.fetch_or(n > 0, Ordering::Relaxed);
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(self.broke(error)),
        }
    }

    /// Makes `send` and `receive` return where they would wait.
    pub(crate) fn never_wait(&self) -> Result<(), Failure> {
        self.socket
            .set_nonblocking(true)
            .map_err(|source| Failure::System("making the connection non-blocking", source))
    }

    /// The failure that an error on the connection is.
    pub(crate) fn broke(&self, source: io::Error) -> Failure {
        Failure::Connection(self.name.clone(), source)
    }

    /// The failure of which `why` tells, with the server's address before it.
    pub(crate) fn failure(&self, why: impl Display) -> Failure {
        Failure::Told(format!("{}: {why}", self.name))
    }

    /// The failure that time ran out, after everything was sent.
    pub(crate) fn late(&self) -> Failure {
        self.failure("time ran out before the server had read everything that was sent")
    }

    /// The failure that time ran out while `wire` was unsent.
    pub(crate) fn unread(&self, wire: &[u8]) -> Failure {
        let amount = if self.is_packets() {
            format!("{} packets", packets::count(wire))
        } else {
            format!("{} bytes", wire.len())
        };
        self.failure(format!(
            "time ran out with {amount} unsent, which the server did not read"
        ))
    }

    /// One whose other end is the server.
    #[cfg(test)]
    pub(crate) fn pair(framing: Framing) -> (Self, UnixStream) {
        Self::to(SocketType::Stream, framing)
    }

    /// As `pair`, of packets.
    #[cfg(test)]
    pub(crate) fn packets(kind: SocketType) -> (Self, UnixStream) {
        Self::to(kind, packets::FRAMING)
    }

    #[cfg(test)]
    fn to(kind: SocketType, framing: Framing) -> (Self, UnixStream) {
        let (socket, server) = super::socket::pair(kind).expect("a pair of sockets");
        let conn = Self {
            socket,
            kind,
            framing,
            service: None,
            limit: None,
            name: "/x".into(),
            answered: AtomicBool::new(false),
        };
        (conn, server)
    }
}
