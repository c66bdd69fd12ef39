//! The three kinds of failure: `Faults` keep a file, or a part of it, from coming into force; a `Fatal` ends the
//! daemon; a `Close` ends one client.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::OverQuota;

/// What is wrong; its text names the path or key at fault and what would be right. A start ends by it, as
/// `Fatal`; a reload or a restart logs it and serves as before.
#[derive(Debug)]
pub enum Faults {
    /// The config file, or what it asks of this machine, is wrong.
    Config(Vec<Fault>),
    /// A socket could not be bound, or an inherited one does not fit.
    Socket {
        /// The socket's name or address.
        socket: String,
        /// What is wrong, and the remedy.
        fault: String,
    },
    /// Something failed that the daemon cannot do without: what, and why.
    System(String),
}

/// One fault of a config file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The file; `None` where the text came with the binary or from the command line.
    #[serde(serialize_with = "as_text")]
    pub file: Option<PathBuf>,
    /// Line in the file, from 1; `None` where no line is at fault.
    pub line: Option<usize>,
    /// The key with its tables, as "socket.udsd.mode"; empty where no key is at fault.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A path that is not UTF-8 is shown as in the log.
fn as_text<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.display().to_string());
    text.serialize(to)
}

impl Fault {
    /// A fault of a file as a whole, or of a line in it, and of no key.
    #[must_use]
    pub fn of_file(file: Option<&Path>, line: Option<usize>, message: impl Into<String>) -> Self {
        Fault {
            file: file.map(Into::into),
            line,
            key: String::new(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl Faults {
    /// Those found in a config file, if any.
    ///
    /// # Errors
    /// `Faults::Config`.
    pub fn of_config(found: Vec<Fault>) -> Result<(), Self> {
        match found.is_empty() {
            true => Ok(()),
            false => Err(Faults::Config(found)),
        }
    }

    /// One by one.
    #[must_use]
    pub fn list(self) -> Vec<Fault> {
        match self {
            Faults::Config(all) => all,
            other => vec![Fault::of_file(None, None, other.to_string())],
        }
    }

    /// A call failed while this was being done.
    pub fn system(doing: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| Faults::System(format!("{doing}: {error}"))
    }

    /// The exit code of what ends by it: 78 (EX_CONFIG) for the config file, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Faults::Config(_) => 78,
            _ => 1,
        }
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Faults::Config(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faults::Config(faults) => {
                let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Faults::Socket { socket, fault } => write!(f, "{socket}: {fault}"),
            Faults::System(what) => f.write_str(what),
        }
    }
}

/// Ends the daemon, always.
#[derive(Debug)]
pub struct Fatal(pub Faults);

impl From<Faults> for Fatal {
    fn from(faults: Faults) -> Self {
        Fatal(faults)
    }
}

/// Ends one client: logged once, counted, never stops the daemon.
#[derive(Debug)]
pub enum Close {
    /// The client had finished and has all it is owed.
    Done,
    /// The client went away.
    HangUp,
    /// It was silent for `idle-timeout`.
    Idle,
    /// It sent a message longer than `message-size`.
    MessageTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Its queue was full and it did not read.
    SlowReader {
        /// Bytes that waited for it.
        waiting: usize,
    },
    /// More would have been held for its user, or for everybody, than may be.
    OverQuota(OverQuota),
    /// An administrator disconnected it.
    Disconnected,
    /// The daemon stops.
    Stopping,
    /// The config file no longer has what it connected to.
    Changed(Changed),
    /// The kernel refused to go on with it.
    Io(io::Error),
}

/// What of a socket is not as it was when its clients came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// The file has no socket of that name any more.
    Gone,
    /// `type`
    Type,
    /// `service`
    Service,
    /// `framing`
    Framing,
    /// `ack`
    Ack,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Changed::Gone => "its socket is gone from the config file",
            Changed::Type => "the type of its socket changed in the config file",
            Changed::Service => "the service of its socket changed in the config file",
            Changed::Framing => "the framing of its socket changed in the config file",
            Changed::Ack => "ack of its socket changed in the config file",
        })
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::Done => f.write_str("done"),
            Close::HangUp => f.write_str("hung up"),
            Close::Idle => f.write_str("silent for idle-timeout"),
            Close::MessageTooLong { limit } => {
                write!(f, "sent a message longer than message-size = {limit} bytes")
            }
            Close::SlowReader { waiting } => {
                write!(
                    f,
                    "did not read: {waiting} bytes waited in its queue (queue-size, slow-client)"
                )
            }
            Close::OverQuota(over) => write!(f, "no room for its bytes under {over}"),
            Close::Disconnected => f.write_str("disconnected by an administrator"),
            Close::Stopping => f.write_str("the daemon stops"),
            Close::Changed(what) => write!(f, "{what}"),
            Close::Io(error) => write!(f, "{error}"),
        }
    }
}
