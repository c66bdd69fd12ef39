//! Why udsc ends with exit code 1. Each text names what was at fault and, where there is one, the
//! remedy.

use std::{fmt, io, time::Duration};

use crate::{
    error::Fatal,
    frame::{Framing, Unfit},
};

/// Ends udsc.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The config file cannot be used.
    Config(Fatal),
    /// What `-s` says is neither a NAME nor a path.
    Name(String),
    /// The file has no such socket.
    NoSocket {
        /// What was asked for; `None` for the first one of the file.
        name: Option<String>,
        /// The file.
        file: String,
        /// The names that it has.
        known: Vec<String>,
    },
    /// `--user`, where Places knows of no user's daemon.
    NoUser,
    /// A type that udsc does not speak yet.
    Type(&'static str),
    /// fixed:N or cstring:N with an N that udsc does not hold.
    Framing(Framing),
    /// No daemon answered; each address with its reason and remedy, in the order tried.
    Connect(Vec<Refusal>),
    /// The connection broke.
    Link {
        /// The server's address.
        address: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The server closed while answers were waited for.
    Closed(String),
    /// The server closed before it had read everything.
    Unread(String),
    /// A message cannot be put on the wire.
    Unfit {
        /// Where it stood, as "line 3 of standard input".
        place: String,
        /// The framing.
        framing: Framing,
        /// What is wrong.
        why: Unfit,
    },
    /// A message is longer than udsc holds.
    TooLong {
        /// Where it came from.
        place: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream ended inside a message.
    Unfinished {
        /// Where it came from.
        place: String,
        /// The framing.
        framing: Framing,
        /// How many bytes of the message came.
        bytes: usize,
    },
    /// Fewer answers came than were waited for.
    Answers {
        /// How many came.
        came: u64,
        /// How many were waited for.
        wanted: u64,
        /// The timeout that ran out; `None` where the server closed.
        timeout: Option<Duration>,
    },
    /// Time ran out with some bytes unsent.
    Unsent {
        /// The server's address.
        address: String,
        /// How many.
        bytes: usize,
    },
    /// Some pings had no answer, or a wrong one; the summary has said how many.
    Lost,
    /// Standard input or output failed.
    Standard(&'static str, io::Error),
    /// A call to the operating system failed that udsc cannot do without.
    System(&'static str, io::Error),
}

/// Why one address could not be connected.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The address.
    pub address: String,
    /// The kernel's answer.
    pub source: io::Error,
    /// What starts the daemon there.
    pub start: &'static str,
}

impl Failure {
    /// What an error on the connection to `address` means: a peer that closes with input unread
    /// shows as ECONNRESET or EPIPE.
    pub(crate) fn of_link(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Unread(address),
            _ => Failure::Link { address, source },
        }
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            address,
            source,
            start,
        } = self;
        write!(f, "cannot connect to {address}: {}", reason(source))?;
        if source.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) {
            return f.write_str(" (the socket there is no stream)");
        }
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                write!(f, " (is udsd running? {start})")
            }
            io::ErrorKind::PermissionDenied => {
                f.write_str(" (the file's owner and mode, and those of its folders, say who may)")
            }
            io::ErrorKind::InvalidInput => f.write_str(" (a path has at most 107 bytes)"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Config(fatal) => write!(f, "{fatal}"),
            Failure::Name(text) => write!(
                f,
                "\"{text}\" is neither the NAME of a socket nor a path: write \"./{text}\" for a file, \"@{text}\" for an abstract name"
            ),
            Failure::NoSocket { name, file, known } => {
                match name {
                    Some(name) => write!(f, "no such socket {name} in {file}")?,
                    None => write!(f, "no socket in {file}")?,
                }
                if !known.is_empty() {
                    write!(f, "; it has: {}", known.join(", "))?;
                }
                Ok(())
            }
            Failure::NoUser => f.write_str(
                "--user: no user's daemon here (root has none, and XDG_RUNTIME_DIR must be set); use --system",
            ),
            Failure::Type(name) => write!(
                f,
                "sockets of type {name} are not available yet in udsc, only stream"
            ),
            Failure::Framing(framing) => write!(
                f,
                "framing {framing} exceeds the {} bytes of a message that udsc holds",
                super::MESSAGE_LIMIT
            ),
            Failure::Connect(refusals) => {
                for (i, refusal) in refusals.iter().enumerate() {
                    write!(f, "{}{refusal}", if i > 0 { "\nudsc: " } else { "" })?;
                }
                Ok(())
            }
            Failure::Link { address, source } => write!(f, "{address}: {}", reason(source)),
            Failure::Closed(address) => write!(f, "{address}: the server closed the connection"),
            Failure::Unread(address) => write!(
                f,
                "{address}: the server closed before it had read everything that was sent"
            ),
            Failure::Unfit {
                place,
                framing,
                why,
            } => write!(f, "{place} has no form under framing {framing}: {why}"),
            Failure::TooLong { place, limit } => write!(
                f,
                "{place}: a message is longer than the {limit} bytes that udsc holds"
            ),
            Failure::Unfinished {
                place,
                framing,
                bytes,
            } => write!(
                f,
                "{place}: the stream ended after {bytes} bytes of a message (framing {framing})"
            ),
            Failure::Answers {
                came,
                wanted,
                timeout: Some(timeout),
            } => write!(
                f,
                "{came} of {wanted} messages came within {}",
                humantime::format_duration(*timeout)
            ),
            Failure::Answers { came, wanted, .. } => write!(
                f,
                "the server closed after {came} of {wanted} messages"
            ),
            Failure::Unsent { address, bytes } => write!(
                f,
                "{address}: time ran out with {bytes} bytes unsent, which the server did not read"
            ),
            Failure::Lost => f.write_str("not every ping came back"),
            Failure::Standard(which, source) => write!(f, "standard {which}: {}", reason(source)),
            Failure::System(doing, source) => write!(f, "{doing}: {}", reason(source)),
        }
    }
}
