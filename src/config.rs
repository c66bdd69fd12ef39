//! The config file: TOML text to a checked `Config`. Reads the file and nothing else of the system.
//!
//! This file holds the types and the entry points. `keys` has a row for every key, with its default and
//! all else that holds for it, `bounds` says how far values may go, `parse` reads the tables (`source` knows their lines),
//! `value` and `path` one value each, `show` is their reverse, `check` says which values contradict each
//! other, `write` turns a `Config` into TOML again. `draft` is a file that may have faults, `last_good` the
//! copy that is kept for that.

mod bounds;
mod check;
mod draft;
mod faults;
pub mod keys;
pub mod last_good;
mod options;
mod parse;
mod path;
mod places;
mod show;
mod source;
mod value;
mod words;
mod write;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use draft::Draft;
pub(crate) use parse::is_name;
pub use places::Places;

use crate::{
    error::{Fatal, Fault},
    frame::Framing,
    record::Format,
};

/// The shipped file, which serves where there is no other.
pub const DEFAULT: &str = include_str!("../config/udsd.toml");

/// Everything that the file says, checked, with defaults filled in and paths expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[limits]`
    pub limits: Limits,
    /// `[socket.NAME]`, in the order of the file.
    pub sockets: Vec<Socket>,
    /// Where it was read from; `None` for the embedded file and the command line.
    pub file: Option<PathBuf>,
    /// Line of each key and table that the file has, by its whole name ("socket.udsd.user").
    pub lines: BTreeMap<String, usize>,
}

/// `[daemon]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Log filter as env_logger reads it; RUST_LOG wins over it.
    pub log: String,
    /// The control socket's path; `None` = none.
    pub control: Option<PathBuf>,
    /// How long a stop waits for queues to empty.
    pub drain_timeout: Duration,
    /// `None` = never.
    pub exit_on_idle: Option<Duration>,
}

/// `[limits]`, for the whole daemon.
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

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketType {
    /// SOCK_STREAM
    Stream,
    /// SOCK_SEQPACKET
    Seqpacket,
    /// SOCK_DGRAM
    Datagram,
}

/// `service`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Back to the sender.
    Echo,
    /// To all other clients of the socket.
    Relay,
    /// Into a record.
    Collect,
}

/// `slow-client`: what happens when a client's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClient {
    /// Reading from the senders stops.
    Wait,
    /// The slow client is closed.
    Disconnect,
    /// The message is dropped for it alone.
    Drop,
}

/// `[socket.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// NAME
    pub name: String,
    /// `path`
    pub address: Address,
    /// `type`
    pub kind: SocketType,
    /// `mode`, permission bits of the socket file.
    pub mode: u32,
    /// `user`, name or number; empty = as the daemon runs.
    pub user: String,
    /// `group`, likewise.
    pub group: String,
    /// `backlog`: connections waiting to be accepted.
    pub backlog: u32,
    /// `allow-users`
    pub allow_users: Vec<String>,
    /// `allow-groups`
    pub allow_groups: Vec<String>,
    /// `service`
    pub service: ServiceKind,
    /// `framing`
    pub framing: Framing,
    /// `message-size`, bytes of a message without its terminator or prefix.
    pub message_size: usize,
    /// `queue-size`, bytes waiting for one client.
    pub queue_size: usize,
    /// `slow-client`
    pub slow_client: SlowClient,
    /// `slow-timeout`
    pub slow_timeout: Duration,
    /// `idle-timeout`; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// `clients`; 0 = the daemon's.
    pub clients: usize,
    /// `answer-abstract`
    pub answer_abstract: bool,
    /// `stamp`
    pub stamp: bool,
    /// `ack`
    pub ack: bool,
    /// `[socket.NAME.record]`; always there under collect.
    pub record: Option<Record>,
}

/// `[socket.NAME.record]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `file`; `None` = standard output.
    pub file: Option<PathBuf>,
    /// `mode` of the file.
    pub mode: u32,
    /// `queue-size`, bytes waiting for the disk.
    pub queue_size: usize,
    /// `format`
    pub format: Format,
    /// `sync`
    pub sync: bool,
    /// `rotate-size`, bytes; 0 = never.
    pub rotate_size: u64,
    /// `keep`, rotated files.
    pub keep: u32,
}

/// `--socket PATH [--type T] [--service S] [--framing F]`: one socket in place of the file's.
#[derive(Clone, Debug, Default)]
pub struct AdHoc {
    /// `--socket`
    pub path: String,
    /// `--type`
    pub kind: Option<String>,
    /// `--service`
    pub service: Option<String>,
    /// `--framing`
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
}

impl Config {
    /// No sockets, and the defaults.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(Vec::new())
    }

    /// These sockets, and the defaults.
    fn of(sockets: Vec<Socket>) -> Self {
        Self {
            daemon: Daemon::default(),
            limits: Limits::default(),
            sockets,
            file: None,
            lines: BTreeMap::new(),
        }
    }

    /// Reads `file`, or where that is `None` the first of `places.files` that exists, or else the
    /// embedded file.
    ///
    /// # Errors
    /// `Fatal::Config` with all faults found.
    pub fn load(file: Option<&Path>, places: &Places) -> Result<Self, Fatal> {
        let draft = Draft::load(file, places).map_err(|fault| Fatal::Config(vec![fault]))?;
        draft.verdict().map_err(Fatal::Config)
    }

    /// Checks `text` as if it stood in `file`.
    ///
    /// # Errors
    /// All faults found.
    pub fn parse(text: &str, file: Option<&Path>, places: &Places) -> Result<Self, Vec<Fault>> {
        let draft = Draft::parse(text.as_bytes(), file, places).map_err(|fault| vec![fault])?;
        draft.verdict()
    }

    /// The configuration of `--socket`.
    ///
    /// # Errors
    /// `Fatal::Config`, its keys named as the options are.
    pub fn ad_hoc(options: &AdHoc, places: &Places) -> Result<Self, Fatal> {
        options::parse(options, places).map_err(Fatal::Config)
    }

    /// The effective configuration as TOML that loads again to the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::plain(self)
    }

    /// The same for people, with what each key means behind it.
    #[must_use]
    pub fn to_commented_toml(&self) -> String {
        write::commented(self)
    }

    /// A fault of `key`, with file and line, for what only the running system can tell (a user that
    /// does not exist). Where the file does not have the key, the line is that of its table.
    #[must_use]
    pub fn fault(&self, key: &str, message: String) -> Fault {
        Fault {
            file: self.file.clone(),
            line: faults::line(&self.lines, key),
            key: key.into(),
            message,
        }
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
