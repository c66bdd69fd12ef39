//! Every key, once. A row of a table has its name, the field that holds it and that field's default, how
//! its value is read and written, what a reload does with another value, the directives of the units that
//! follow it, and what it means.
//!
//! Whatever goes through the keys goes through these tables: the reader, `--check`, hints at slips, a
//! reload, the generator, and the tests of the manual and of the shipped file.

use std::time::Duration;

use toml::{Value, de::DeValue};

use super::{
    Address, BaseDirs, Config, Daemon, Format, Limits, OnFull, Parse, Record, ServiceKind,
    SlowClient, Socket, SocketType,
    bounds::{
        BACKLOG, CLIENTS, HISTORY, KEEP, MESSAGE_SIZE, QUEUE_SIZE, ROTATE_SIZE, SHORTEST_AGE,
        SHORTEST_EXIT, SHORTEST_TIMEOUT,
    },
    path::{address, control, file},
    show,
    value::{
        count, flag, log, mode, name_or_number, size, size_or_never, span, span_or_never, users,
        word,
    },
};
use crate::frame::Framing;

/// What holds for a key, whatever its value is.
#[derive(Debug)]
pub struct Key {
    /// As the file writes it.
    pub name: &'static str,
    /// What a reload does with another value.
    pub effect: Effect,
    /// Directives of the units that are made from it.
    pub directives: &'static [&'static str],
    /// One line; what stands in the file is in backticks.
    pub(super) meaning: &'static str,
}

/// How a changed value takes effect at a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// For everybody.
    AtOnce,
    /// For who comes from now on: who is connected stays as before.
    Newcomers,
    /// At once, but who is connected gets what is owed, then the end.
    EndsClients,
    /// Where systemd passes the socket, its unit has to follow, and until then the file is refused.
    Units,
    /// The unit has to follow, but the rest of the file need not wait for that.
    UnitsLater,
}

impl Key {
    /// Whether it is a rule for the socket's file, which an abstract socket does not have: `SocketMode=`,
    /// `SocketUser=`, `SocketGroup=`.
    pub(super) fn is_of_file(&self) -> bool {
        self.directives
            .iter()
            .any(|name| name.starts_with("Socket"))
    }
}

/// The keys of one kind of table, whose values a `T` holds.
pub struct Keys<T: 'static> {
    /// The name of all such tables, as "socket.NAME".
    kind: &'static str,
    meaning: &'static str,
    pub(super) rows: &'static [Row<T>],
}

pub(super) struct Row<T> {
    pub(super) key: Key,
    /// Puts the value that the file has into its field, or says what would be right.
    pub(super) read: fn(&mut T, &DeValue<'_>, &BaseDirs) -> Result<(), String>,
    show: fn(&T) -> Value,
}

/// Makes a table, and the defaults of its type. A row: name, field and default, form, effect, directives,
/// meaning. The form is the name of two functions: one of `value` or `path` reads, the one of `show` writes.
/// In the braces before the rows: fields that are no keys.
macro_rules! keys {
    (
        $(#[$doc:meta])* $table:ident: $type:ident, $kind:literal, $about:literal,
        |$dirs:ident| $({ $($beside:tt)* })?
        $($name:literal $field:ident: $default:expr, $form:ident($($bound:expr)?),
            $effect:ident $($directive:literal)*, $meaning:literal;)*
    ) => {
        impl Default for $type {
            fn default() -> Self {
                Self { $($field: $default,)* $($($beside)*)? }
            }
        }

        $(#[$doc])*
        pub static $table: Keys<$type> = Keys {
            kind: $kind,
            meaning: $about,
            rows: &[$(Row {
                key: Key {
                    name: $name,
                    effect: Effect::$effect,
                    directives: &[$($directive),*],
                    meaning: $meaning,
                },
                read: |table, value, $dirs| {
                    // Most forms need none.
                    let _ = $dirs;
                    table.$field = $form(value $(, $bound)?)?;
                    Ok(())
                },
                show: |table| show::$form(&table.$field),
            }),*],
        };
    };
}

/// The system's; the default of others is in their own folder.
const CONTROL: &str = "/run/udsd/control.sock";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

keys! {
    /// The keys of `[daemon]`.
    DAEMON: Daemon, "daemon", "of the process", |dirs|
    "log"              log: "info".into(),                        log(),                           AtOnce,
        "`off`, `error`, `warn`, `info`, `debug`, `trace`, `MODULE=LEVEL,...`; RUST_LOG wins";
    "control"          control: Some(CONTROL.into()),             control(dirs),                   AtOnce,
        "the socket at which `udsc status` and others ask; `\"\"`: none";
    "control-users"    control_users: Vec::new(),                 users(),                         Newcomers,
        "who may ask there, beside root and udsd's own user, who may act too";
    "control-groups"   control_groups: Vec::new(),                users(),                         Newcomers,
        "likewise, by groups";
    "drain-timeout"    drain_timeout: Duration::from_secs(5),     span(Duration::ZERO),            AtOnce "TimeoutStopSec",
        "how long a stop waits for queues to empty";
    "exit-on-idle"     exit_on_idle: None,                        span_or_never(SHORTEST_EXIT),    AtOnce,
        "1s or more: ends once idle for so long; only where systemd passes every socket";
}

keys! {
    /// The keys of `[limits]`.
    LIMITS: Limits, "limits", "of all sockets together", |dirs|
    "clients"          clients: 0,                                count(&CLIENTS),                 Newcomers,
        "clients at once; 0: as the limit of open files, and a restart, allow";
    "clients-per-user" clients_per_user: 0,                       count(&CLIENTS),                 Newcomers,
        "of one user; 0: half of `clients`; root counts like anyone";
    "queue-per-user"   queue_per_user: 64 * MIB,                  size(&QUEUE_SIZE),               AtOnce,
        "bytes held for all clients of one user: input that waits and output unsent";
    "queue-total"      queue_total: 512 * MIB,                    size(&QUEUE_SIZE),               AtOnce,
        "the same for everybody together";
}

keys! {
    /// The keys of `[socket.NAME]`, without its record.
    SOCKET: Socket, "socket.NAME", "NAME is for logs, and FileDescriptorName= where systemd passes it",
    |dirs| { name: String::new(), record: None }
    "enabled"          enabled: true,                             flag(),                          Units,
        "`false`: as if this table were not there";
    "path"             address: Address::Abstract(Vec::new()),    address(dirs),                   Units
        "ListenStream" "ListenSequentialPacket" "ListenDatagram",
        "the socket file, at most 107 bytes, or `\"@name\"`: abstract";
    "type"             kind: SocketType::Stream,                  word("stream"),                  Units "PassCredentials",
        "`stream`, `seqpacket` or `datagram`";
    "mode"             mode: 0o660,                               mode(),                          Units "SocketMode",
        "of the socket file; not of `\"@name\"`, as `user` and `group`";
    "user"             user: String::new(),                       name_or_number(),                Units "SocketUser",
        "its owner, name or number; `\"\"`: as the daemon runs";
    "group"            group: String::new(),                      name_or_number(),                Units "SocketGroup",
        "its group, likewise";
    "backlog"          backlog: 4096,                             count(&BACKLOG),                 UnitsLater "Backlog",
        "connections that wait to be accepted";
    "allow-users"      allow_users: Vec::new(),                   users(),                         Newcomers,
        "names or numbers; both lists empty: anyone the file mode lets in";
    "allow-groups"     allow_groups: Vec::new(),                  users(),                         Newcomers,
        "primary and supplementary groups; either list admits, root is not exempt";
    "service"          service: ServiceKind::Echo,                word("echo"),                    EndsClients "SendBuffer",
        "`echo`, `relay` or `collect`";
    "framing"          framing: Framing::None,                    word("lines"),                   EndsClients,
        "of a stream: `none`, `lines`, `nul`, `length-prefixed`, `fixed:N`, `cstring:N`, `syslog`";
    "message-size"     message_size: 64 * KIB,                    size(&MESSAGE_SIZE),             AtOnce,
        "without terminator or prefix; `collect` cuts what is longer, others refuse it";
    "queue-size"       queue_size: MIB,                           size(&QUEUE_SIZE),               AtOnce,
        "bytes that wait for one client";
    "slow-client"      slow_client: SlowClient::Wait,             word("wait"),                    AtOnce,
        "when that queue is full: `wait`, `disconnect`, or `drop` the message, for it alone";
    "slow-timeout"     slow_timeout: Duration::from_secs(10),     span(SHORTEST_TIMEOUT),          AtOnce,
        "`wait`: who takes less than half of a full queue in this time is closed";
    "idle-timeout"     idle_timeout: None,                        span_or_never(SHORTEST_TIMEOUT), AtOnce,
        "who is silent for this time is closed";
    "clients"          clients: 0,                                count(&CLIENTS),                 Newcomers,
        "clients of this socket; 0: no limit of its own";
    "answer-abstract"  answer_abstract: false,                    flag(),                          AtOnce,
        "`echo` of datagrams: answer abstract addresses that any user chose, maybe another's";
    "stamp"            stamp: false,                              flag(),                          AtOnce,
        "`relay`: deliver each message as a JSON record, with its sender";
    "history"          history: 0,                                count(&HISTORY),                 AtOnce,
        "`relay`: who comes first gets so many of the last messages";
    "history-size"     history_size: 256 * KIB,                   size(&QUEUE_SIZE),               AtOnce,
        "bytes that those may have together: half of `queue-size` at most";
    "ack"              ack: false,                                flag(),                          EndsClients,
        "`collect`: answer `ok N` once the first N messages of the client are stored";
}

keys! {
    /// The keys of `[socket.NAME.record]`.
    RECORD: Record, "socket.NAME.record", "of `collect`, or an audit trail beside `echo` and `relay`",
    |dirs|
    "file"             file: None,                                file(dirs),                      AtOnce "ReadWritePaths",
        "`\"\"`: standard output, and so the journal";
    "mode"             mode: 0o640,                               mode(),                          Newcomers,
        "of a new file";
    "queue-size"       queue_size: 4 * MIB,                       size(&QUEUE_SIZE),               AtOnce,
        "bytes that wait for the disk";
    "on-full"          on_full: OnFull::Wait,                     word("wait"),                    AtOnce,
        "when so many wait: senders `wait`, or `drop` the message for the record";
    "format"           format: Format::Json,                      word("json"),                    AtOnce,
        "`json`, `text` (`TIME SOCKET[PID] uid=UID MESSAGE`) or `raw`";
    "parse"            parse: Parse::None,                        word("none"),                    AtOnce,
        "`syslog`: beside each message its fields, from facility to text; or `none`";
    "sync"             sync: false,                               flag(),                          AtOnce,
        "stored is what the disk has (fdatasync): one for all who wait";
    "rotate-size"      rotate_size: None,                         size_or_never(&ROTATE_SIZE),     AtOnce,
        "a file that would grow beyond it becomes the segment `FILE.SEQ`";
    "rotate-age"       rotate_age: None,                          span_or_never(SHORTEST_AGE),     AtOnce,
        "a file begun longer ago becomes a segment with the next message";
    "keep"             keep: 0,                                   count(&KEEP),                    AtOnce,
        "segments that are kept, the oldest are removed; 0: all";
}

impl<T: Default> Keys<T> {
    /// All of them, in the order of the manual.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.rows.iter().map(|row| &row.key)
    }

    fn table(&self, of_socket: &str, values: &T) -> Table {
        let (rows, defaults) = (self.rows.iter(), T::default());
        let setting = |row: &'static Row<T>| Setting {
            key: &row.key,
            value: (row.show)(values),
            default: (row.show)(&defaults),
        };
        Table {
            name: self.kind.replace("NAME", of_socket),
            kind: self.kind,
            meaning: self.meaning,
            settings: rows.map(setting).collect(),
        }
    }
}

/// One table of a file, and the values of its keys.
pub(super) struct Table {
    /// As "socket.udsd.record".
    pub(super) name: String,
    /// The name of all tables of its kind, as "socket.NAME.record".
    pub(super) kind: &'static str,
    pub(super) meaning: &'static str,
    pub(super) settings: Vec<Setting>,
}

/// A key with its value.
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    /// What it would be where the file does not say.
    pub(super) default: Value,
}

impl Table {
    /// The value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let mut all = self.settings.iter();
        all.find(|of| of.key.name == name).map(|of| &of.value)
    }
}

/// All tables of `config`.
pub(super) fn tables(config: &Config) -> Vec<Table> {
    let mut out = vec![
        DAEMON.table("", &config.daemon),
        LIMITS.table("", &config.limits),
    ];
    for socket in config.of_file() {
        let mut table = SOCKET.table(&socket.name, socket);
        if let Address::Abstract(_) = socket.address {
            table.settings.retain(|of| !of.key.is_of_file());
        }
        out.push(table);
        let record = socket.record.as_ref();
        out.extend(record.map(|record| RECORD.table(&socket.name, record)));
    }
    out
}

/// All tables that there can be, with their defaults.
pub(super) fn defaults() -> Vec<Table> {
    let mut socket = Socket::new("NAME".into(), Address::Path("/".into()));
    socket.record = Some(Record::default());
    tables(&Config {
        sockets: vec![socket],
        ..Config::default()
    })
}

/// The value of a key of `[socket.NAME]`; `None` where there is no such key.
pub(super) fn value_of(socket: &Socket, name: &str) -> Option<Value> {
    if let Some(name) = name.strip_prefix("record.") {
        let row = RECORD.rows.iter().find(|row| row.key.name == name)?;
        return socket.record.as_ref().map(row.show);
    }
    let row = SOCKET.rows.iter().find(|row| row.key.name == name)?;
    Some((row.show)(socket))
}

/// The keys whose values differ, by their whole names, in tables that both have.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<(String, &'static Key)> {
    let before = tables(before);
    let mut out = Vec::new();
    for table in tables(after) {
        let Some(old) = before.iter().find(|old| old.name == table.name) else {
            continue;
        };
        for Setting { key, value, .. } in table.settings {
            if old.get(key.name).is_some_and(|old| *old != value) {
                out.push((format!("{}.{}", table.name, key.name), key));
            }
        }
    }
    out
}
