//! The config file: TOML text to a checked `Config`. Reads the file and nothing else of the system.
//!
//! This file holds the types and the entry points. `keys` has a row for every key, with its default and all
//! else that holds for it, `bounds` says how far values may go. `load` finds and reads the file and its drop-ins,
//! `base_dirs` knows where. `parse` reads the tables (`source` knows their lines and lays files over each other,
//! `origin` says where each key stands), `value` and `path` one value each, `show` is their reverse, `check` says
//! which values contradict each other, `write` turns a `Config` into TOML again. Faults gather in `diagnostics`;
//! `last_good` is the copy that serves where a file has some.

mod base_dirs;
mod bounds;
mod check;
mod choices;
mod control;
mod diagnostics;
pub mod keys;
pub mod last_good;
mod load;
mod options;
mod origin;
mod parse;
mod path;
mod show;
mod source;
mod value;
mod write;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net;

pub use base_dirs::BaseDirs;
pub use control::CONTROL_SOCKET;
pub use origin::{Origin, switch};
pub use parse::Parsed;
pub(crate) use parse::is_name;
pub use value::read_size;

use crate::{
    error::{Fault, Faults},
    frame::Framing,
    record::{Format, OnFull, Parse},
};

/// The shipped file, which serves where there is no other.
pub const DEFAULT: &str = include_str!("../config/udsd.toml");

/// Everything that the file and its drop-ins say, checked, with defaults filled in and paths expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What holds for the process.
    pub daemon: Daemon,
    /// What holds for all sockets together.
    pub limits: Limits,
    /// Those that are enabled, in the order of the files.
    pub sockets: Vec<Socket>,
    /// Where it was read from, and where each key stands; empty for the command line.
    pub origin: Origin,
}

/// What holds for the process (`[daemon]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Log filter as env_logger reads it; RUST_LOG wins over it.
    pub log: String,
    /// The control socket's path; `None` = none.
    pub control: Option<PathBuf>,
    /// Users who may ask there, beside root and the daemon's own user: names or numbers.
    pub control_users: Vec<String>,
    /// Groups whose members may ask there.
    pub control_groups: Vec<String>,
    /// How long a stop waits for queues to empty.
    pub drain_timeout: Duration,
    /// How long the daemon is idle until it ends; `None` = never.
    pub exit_on_idle: Option<Duration>,
}

/// What holds for all sockets together (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once; 0 = derived from RLIMIT_NOFILE.
    pub clients: usize,
    /// Clients of one user; 0 = half of `clients`.
    pub clients_per_user: usize,
    /// Bytes held for all clients of one user.
    pub queue_per_user: usize,
    /// Bytes held for everybody together.
    pub queue_total: usize,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A file in the file system, specifiers expanded.
    Path(PathBuf),
    /// A name in the abstract namespace, without the "@".
    Abstract(Vec<u8>),
}

impl Address {
    /// As a socket unit has it: systemd takes /var/run for /run, of which it is a link
    /// (`patch_var_run` in its source), and passes a socket that is bound there.
    #[must_use]
    pub fn in_unit(&self) -> Self {
        match self {
            Address::Path(path) => match path.strip_prefix("/var/run") {
                Ok(rest) => Address::Path(Path::new("/run").join(rest)),
                Err(_) => self.clone(),
            },
            Address::Abstract(_) => self.clone(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// How the kernel carries messages (`type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketType {
    /// SOCK_STREAM: clients connect and send bytes, which `framing` cuts into messages.
    Stream,
    /// SOCK_SEQPACKET: clients connect, and a packet is a message.
    Seqpacket,
    /// SOCK_DGRAM: nobody connects, and a packet is a message.
    Datagram,
}

impl SocketType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Stream, Self::Seqpacket, Self::Datagram];

    /// As `socket(2)` has it.
    #[must_use]
    pub fn raw(self) -> net::SocketType {
        match self {
            Self::Stream => net::SocketType::STREAM,
            Self::Seqpacket => net::SocketType::SEQPACKET,
            Self::Datagram => net::SocketType::DGRAM,
        }
    }

    /// The one that `socket(2)` has so; `None` where no key says it.
    #[must_use]
    pub fn of_raw(raw: net::SocketType) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.raw() == raw)
    }

    /// The directive that has the address in a socket unit.
    #[must_use]
    pub fn listen_directive(self) -> &'static str {
        match self {
            Self::Stream => "ListenStream",
            Self::Seqpacket => "ListenSequentialPacket",
            Self::Datagram => "ListenDatagram",
        }
    }
}

/// What is done with the messages of a socket (`service`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// They go back to the sender.
    Echo,
    /// They go to all other clients of the socket.
    Relay,
    /// They go into a record.
    Collect,
    /// They are calls, which the daemon answers.
    Control,
}

/// What happens when a client's queue is full (`slow-client`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClient {
    /// Reading from the senders stops.
    Wait,
    /// The slow client is closed.
    Disconnect,
    /// The message is dropped for it alone.
    Drop,
}

/// One socket of the file (`[socket.NAME]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Names its table, and the descriptor that systemd passes for it.
    pub name: String,
    /// Whether it is there at all: a `Config` has no other.
    pub enabled: bool,
    /// Where it listens (`path`).
    pub address: Address,
    /// How the kernel carries its messages.
    pub kind: SocketType,
    /// Permission bits of the socket file.
    pub mode: u32,
    /// Owner of the socket file, name or number; empty = as the daemon runs.
    pub user: String,
    /// Group of the socket file, name or number; empty = as the daemon runs.
    pub group: String,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Users who may connect, names or numbers. Where `allow_groups` is empty too, anyone may.
    pub allow_users: Vec<String>,
    /// Groups whose members may connect, names or numbers.
    pub allow_groups: Vec<String>,
    /// What is done with the messages.
    pub service: ServiceKind,
    /// How a stream is cut into messages; `None` for packets.
    pub framing: Framing,
    /// Longest message, in bytes without terminator or prefix.
    pub message_size: usize,
    /// Bytes that may wait for one client.
    pub queue_size: usize,
    /// What happens when they are that many.
    pub slow_client: SlowClient,
    /// Under `Wait`: who takes less than half of a full queue in this time is closed.
    pub slow_timeout: Duration,
    /// Who is silent for this time is closed; `None` = nobody.
    pub idle_timeout: Option<Duration>,
    /// Clients of this socket at once; 0 = no limit of its own.
    pub clients: usize,
    /// An echo of datagrams answers abstract addresses that any user chose.
    pub answer_abstract: bool,
    /// A relay delivers each message as a JSON record with its sender.
    pub stamp: bool,
    /// `history`
    pub history: usize,
    /// `history-size`, bytes
    pub history_size: usize,
    /// Stored messages are acknowledged to their senders.
    pub ack: bool,
    /// Where the messages are written; always there under collect.
    pub record: Option<Record>,
}

/// Where the messages of a socket are written (`[socket.NAME.record]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Path of the file; `None` = standard output.
    pub file: Option<PathBuf>,
    /// Permission bits of a new file.
    pub mode: u32,
    /// Bytes that may wait for the disk.
    pub queue_size: usize,
    /// What happens with a message when as much waits.
    pub on_full: OnFull,
    /// How a message is written.
    pub format: Format,
    /// What a line has beside the message.
    pub parse: Parse,
    /// The disk has what is acknowledged.
    pub sync: bool,
    /// Bytes of a file until it becomes a segment; `None` = never.
    pub rotate_size: Option<u64>,
    /// The age of a file at which it becomes a segment with the next message; `None` = never.
    pub rotate_age: Option<Duration>,
    /// Segments that are kept; 0 = all.
    pub keep: u32,
}

/// What the command line says of its one socket, beside the path.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SocketOptions {
    /// Type of the one socket: stream, seqpacket, datagram
    #[arg(long = "type", value_name = "T", requires = "socket")]
    pub kind: Option<String>,
    /// Service of the one socket: echo, relay, collect
    #[arg(long, value_name = "S", requires = "socket")]
    pub service: Option<String>,
    /// Framing of the one socket: none, lines, nul, length-prefixed, fixed:N, cstring:N, syslog
    #[arg(long, value_name = "F", requires = "socket")]
    pub framing: Option<String>,
}

impl Socket {
    /// A socket of which only name and address are known.
    #[must_use]
    pub fn new(name: String, address: Address) -> Self {
        Self {
            name,
            address,
            ..Self::default()
        }
    }

    /// Whether it is the control socket.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.service == ServiceKind::Control
    }

    /// One of its keys, with its tables.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        control::key(self, key)
    }
}

impl Config {
    /// The place of the first socket that writes the same record file as the one at place `i`, where that is
    /// another: they share a record.
    #[must_use]
    pub fn shares_record(&self, i: usize) -> Option<usize> {
        let (this, before) = (&self.sockets[i], &self.sockets[..i]);
        let file = this.record.as_ref()?.file.as_ref()?;
        let writes = |of: &Record| of.file.as_ref() == Some(file);
        before
            .iter()
            .position(|of| of.record.as_ref().is_some_and(writes))
    }

    /// Reads `file` and the drop-ins beside it; or where that is `None` `dirs.config_file`, or else the embedded
    /// file, and `dirs.drop_ins`.
    ///
    /// # Errors
    /// `Faults::Config` with all faults found.
    pub fn load(file: Option<&Path>, dirs: &BaseDirs) -> Result<Self, Faults> {
        Parsed::load(file, dirs)?.verdict()
    }

    /// Checks `text` as if it stood in `file`.
    ///
    /// # Errors
    /// `Faults::Config` with all faults found.
    pub fn parse(text: &str, file: Option<&Path>, dirs: &BaseDirs) -> Result<Self, Faults> {
        Parsed::new(text.as_bytes(), file, dirs)?.verdict()
    }

    /// With the control socket, if it has one, behind the sockets of the file.
    #[must_use]
    pub fn with_control(mut self) -> Self {
        self.sockets.extend(control::socket(&self.daemon));
        self
    }

    /// The sockets without the control socket.
    pub fn of_file(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(|socket| !socket.is_control())
    }

    /// A fault of `key` that only the running system can tell, as a user that does not exist; with file and
    /// line.
    #[must_use]
    pub fn fault(&self, key: &str, message: String) -> Fault {
        self.origin.fault(key, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_run_for_its_old_name() {
        for (path, unit) in [
            ("/var/run/a.sock", "/run/a.sock"),
            ("/var//run/b/a", "/run/b/a"),
            ("/var/running/a", "/var/running/a"),
            ("/srv/var/run/a", "/srv/var/run/a"),
        ] {
            let unit = Address::Path(unit.into());
            assert_eq!(Address::Path(path.into()).in_unit(), unit, "{path}");
        }
        let name = Address::Abstract(b"/var/run/a".into());
        assert_eq!(name.in_unit(), name);
    }
}
