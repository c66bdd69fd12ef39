//! Why udsc fails. Each text names what was at fault and, where there is one, the remedy.

use std::{
    fmt,
    io::{self, ErrorKind},
};

use crate::error::Faults;

/// Said where only the server knows why it closed.
pub(super) const WHY: &str =
    "(udsd's log says why: access rules or a limit refused it, or it stopped)";

/// Why udsc ends. What only a person has to tell apart is a text.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be done, or was not done in full.
    Told(String),
    /// What was asked for makes no sense: nothing was tried.
    Usage(String),
    /// The connection to the server at this address broke.
    Connection(String, io::Error),
    /// Standard input or output failed.
    Standard(&'static str, io::Error),
    /// A call to the operating system failed that udsc cannot do without.
    System(&'static str, io::Error),
}

impl Failure {
    /// The server closed before all messages came that were waited for.
    pub(crate) fn closed(came: u64, wanted: u64) -> Self {
        Failure::Told(format!(
            "the server closed after {came} of {wanted} messages"
        ))
    }

    /// As the process tells it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Whether it is only that nobody reads standard output any more (`udsc listen | head`).
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Standard(_, source) if source.kind() == ErrorKind::BrokenPipe)
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
            Failure::Told(text) | Failure::Usage(text) => f.write_str(text),
            Failure::Connection(address, source) => match source.kind() {
                // What the kernel says where a peer closes with input unread.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => write!(
                    f,
                    "{address}: the server closed before it had read everything that was sent {WHY}"
                ),
                // What the kernel says where a datagram socket is gone.
                ErrorKind::ConnectionRefused | ErrorKind::NotConnected => {
                    write!(f, "{address}: the server is gone")
                }
                _ => write!(f, "{address}: {}", reason(source)),
            },
            Failure::Standard(which, source) => write!(f, "standard {which}: {}", reason(source)),
            Failure::System(doing, source) => write!(f, "{doing}: {}", reason(source)),
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Failure::Told(faults.to_string())
    }
}
