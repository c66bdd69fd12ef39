//! Why udsc ends with exit code 1. Each text names what was at fault and, where there is one, the
//! remedy.

use std::{fmt, io};

use crate::{
    error::Faults,
    frame::{Framing, Unfit},
};

/// Said where only the server knows why it closed.
pub(super) const WHY: &str =
    "(udsd's log says why: access rules or a limit refused it, or it stopped)";

/// Why udsc ends. Failures that only a person has to tell apart share a variant, with their text.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be done.
    Asked(String),
    /// No server was reached: why, for each file and address that was tried, in order.
    Unreached(Vec<String>),
    /// The connection to the server at this address broke.
    Connection(String, io::Error),
    /// A message cannot be put on the wire.
    Unfit {
        /// Where it stood, as "line 3 of standard input".
        place: String,
        /// That of the connection.
        framing: Framing,
        /// What of the message does not fit it.
        why: Unfit,
    },
    /// A message is longer than the server takes.
    TooLong {
        /// Where it stood.
        place: String,
        /// Its bytes.
        length: usize,
        /// Bytes that the server takes (`message-size`).
        limit: usize,
        /// The name of the server's socket.
        socket: String,
    },
    /// A message is longer than a packet can be.
    Packet {
        /// Where it stood.
        place: String,
        /// Its bytes.
        length: usize,
        /// Bytes that a packet can have.
        largest: usize,
    },
    /// Fewer messages came or were read than should have been, or one is longer than udsc holds.
    Amount(String),
    /// Standard input or output failed.
    Standard(&'static str, io::Error),
    /// A call to the operating system failed that udsc cannot do without.
    System(&'static str, io::Error),
}

impl Failure {
    /// A config file that cannot be used.
    pub(crate) fn of_file(fault: &Faults) -> Self {
        Failure::Asked(fault.to_string())
    }

    /// The server closed before all messages came that were waited for.
    pub(crate) fn closed(came: u64, wanted: u64) -> Self {
        Failure::Amount(format!(
            "the server closed after {came} of {wanted} messages"
        ))
    }

    /// Whether it is only that nobody reads standard output any more (`udsc listen | head`).
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Standard(_, source) if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The kernel's answer without the number that `io::Error` adds.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Asked(text) | Failure::Amount(text) => f.write_str(text),
            Failure::Unreached(reasons) => f.write_str(&reasons.join("\nudsc: ")),
            // What the kernel says where a peer closes with input unread.
            Failure::Connection(address, source)
                if matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                write!(
                    f,
                    "{address}: the server closed before it had read everything that was sent {WHY}"
                )
            }
            // What the kernel says where a datagram socket is gone.
            Failure::Connection(address, source)
                if matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected
                ) =>
            {
                write!(f, "{address}: the server is gone")
            }
            Failure::Connection(address, source) => write!(f, "{address}: {}", reason(source)),
            Failure::Unfit {
                place,
                framing,
                why,
            } => write!(f, "{place} cannot be sent under framing {framing}: {why}"),
            Failure::TooLong {
                place,
                length,
                limit,
                socket,
            } => write!(
                f,
                "{place} has {length} bytes, and message-size of socket {socket} is {limit}: send it in parts, or raise message-size"
            ),
            Failure::Packet {
                place,
                length,
                largest,
            } => write!(
                f,
                "{place} does not fit into a packet: it has {length} bytes, a packet at most {largest}; send it in parts, or raise net.core.wmem_max"
            ),
            Failure::Standard(which, source) => write!(f, "standard {which}: {}", reason(source)),
            Failure::System(doing, source) => write!(f, "{doing}: {}", reason(source)),
        }
    }
}
