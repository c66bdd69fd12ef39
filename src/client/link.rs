//! A server that udsc is connected to, and what its faults are called.

use std::{io, os::unix::net::UnixStream};

use super::{failure::Failure, messages::Broken};
use crate::{config::ServiceKind, frame::Framing};

/// A connected server.
pub(crate) struct Link {
    /// The connection.
    pub stream: UnixStream,
    /// How its messages are told apart.
    pub framing: Framing,
    /// What the server does, where the config file says so.
    pub service: Option<ServiceKind>,
    /// The server's address, as errors and replies show it.
    pub name: String,
}

impl Link {
    /// What an error on the connection is.
    pub(crate) fn broke(&self, source: io::Error) -> Failure {
        Failure::Link(self.name.clone(), source)
    }

    /// What it is that the server's messages cannot be told apart.
    pub(crate) fn garbled(&self, broken: Broken) -> Failure {
        broken.at(&self.name, self.framing)
    }

    /// The server left bytes unread until time ran out.
    pub(crate) fn unread(&self, bytes: usize) -> Failure {
        Failure::Amount(format!(
            "{}: time ran out with {bytes} bytes unsent, which the server did not read",
            self.name
        ))
    }

    /// The same connection, for another thread.
    pub(crate) fn duplicate(&self) -> Result<Self, Failure> {
        let stream = self.stream.try_clone();
        Ok(Self {
            stream: stream
                .map_err(|source| Failure::System("duplicating the connection", source))?,
            framing: self.framing,
            service: self.service,
            name: self.name.clone(),
        })
    }

    /// One to a server that is the other end.
    #[cfg(test)]
    pub(crate) fn pair(framing: Framing) -> (Self, UnixStream) {
        let (stream, server) = UnixStream::pair().expect("a pair of sockets");
        let link = Self {
            stream,
            framing,
            service: None,
            name: "/x".into(),
        };
        (link, server)
    }
}
