//! Every key, once: where its value stands, how it is read and written, how a change of it takes effect,
//! which directives of the units follow it, and what it means. Whatever goes through the keys (the
//! reader, `--check`, hints, a reload, the generator, the tables in README and in the shipped file)
//! visits this list.

use std::{fmt::Display, str::FromStr, time::Duration};

use toml::{Value, de::DeValue};

use super::{Address, Config, Daemon, Limits, Places, Record, Socket, defaults, path, show, value};

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As the file writes it.
    pub name: &'static str,
    /// What a reload does with another value.
    pub effect: Effect,
    /// Directives of the units that are made from it.
    pub directives: &'static [&'static str],
    /// A rule for the socket's file, which an abstract socket does not have.
    pub(super) is_of_file: bool,
    /// Of what it promises the daemon has only the default.
    pub(super) is_not_yet: bool,
    /// One line; what stands in the file is in backticks.
    pub(super) meaning: &'static str,
}

/// How a changed value takes effect at a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// For everybody.
    AtOnce,
    /// Who is connected stays as before.
    Newcomers,
    /// At once, but who is connected gets what is owed, then the end.
    EndsClients,
    /// Where systemd passes the socket, its unit has to follow, and until then the file is refused.
    Units,
    /// The same, but the rest of the file need not wait for that.
    UnitsLater,
}

const fn key(name: &'static str, effect: Effect, meaning: &'static str) -> Key {
    Key {
        name,
        effect,
        directives: &[],
        is_of_file: false,
        is_not_yet: false,
        meaning,
    }
}

const fn at_once(name: &'static str, meaning: &'static str) -> Key {
    key(name, Effect::AtOnce, meaning)
}

const fn newcomers(name: &'static str, meaning: &'static str) -> Key {
    key(name, Effect::Newcomers, meaning)
}

const fn ends_clients(name: &'static str, meaning: &'static str) -> Key {
    key(name, Effect::EndsClients, meaning)
}

const fn units(name: &'static str, meaning: &'static str) -> Key {
    key(name, Effect::Units, meaning)
}

/// Nobody can have set it to anything but its default yet.
const fn not_yet(name: &'static str) -> Key {
    Key {
        is_not_yet: true,
        ..at_once(name, "not available yet")
    }
}

impl Key {
    const fn of_file(self) -> Self {
        Self {
            is_of_file: true,
            ..self
        }
    }

    const fn makes(self, directives: &'static [&'static str]) -> Self {
        Self { directives, ..self }
    }
}

/// Takes the keys of one table in the order of the manual.
pub(super) trait Visitor {
    /// `place` holds the default, or the value; `read` and `show` turn it from and into TOML.
    fn key<T>(
        &mut self,
        key: Key,
        place: &mut T,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    );

    /// A key that is one of the words of `T`; `example` is one.
    fn word<T: FromStr<Err = String> + Display>(&mut self, key: Key, place: &mut T, example: &str) {
        self.key(key, place, |v| value::word(v, example), show::word);
    }
}

/// `[daemon]`
pub(super) fn daemon(d: &mut Daemon, places: &Places, v: &mut impl Visitor) {
    let control = |v: &DeValue<'_>| path::control(v, places);
    let drain = |v: &DeValue<'_>| value::span(v, Duration::ZERO);
    let idle = |v: &DeValue<'_>| value::span_or_never(v, defaults::SHORTEST_EXIT);
    v.key(
        at_once(
            "log",
            "`off`, `error`, `warn`, `info`, `debug`, `trace`, `MODULE=LEVEL,...`; RUST_LOG wins",
        ),
        &mut d.log,
        value::log,
        show::word,
    );
    v.key(not_yet("control"), &mut d.control, control, show::file);
    v.key(
        at_once("drain-timeout", "how long a stop waits for queues to empty")
            .makes(&["TimeoutStopSec"]),
        &mut d.drain_timeout,
        drain,
        show::span,
    );
    v.key(
        at_once(
            "exit-on-idle",
            "1s or more: ends once idle for so long; only where systemd passes every socket",
        ),
        &mut d.exit_on_idle,
        idle,
        show::or_never,
    );
}

/// `[limits]`
pub(super) fn limits(l: &mut Limits, v: &mut impl Visitor) {
    let count = |v: &DeValue<'_>| value::count(v, &defaults::CLIENTS);
    let size = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    v.key(
        newcomers(
            "clients",
            "clients at once; 0: as the limit of open files, and a restart, allow",
        ),
        &mut l.clients,
        count,
        show::count,
    );
    v.key(
        newcomers(
            "clients-per-user",
            "of one user; 0: half of `clients`; root counts like anyone",
        ),
        &mut l.clients_per_user,
        count,
        show::count,
    );
    v.key(
        at_once(
            "queue-per-user",
            "bytes held for all clients of one user: input that waits and output unsent",
        ),
        &mut l.queue_per_user,
        size,
        show::size,
    );
    v.key(
        at_once("queue-total", "the same for everybody together"),
        &mut l.queue_total,
        size,
        show::size,
    );
}

/// `[socket.NAME]`, without its record.
pub(super) fn socket(s: &mut Socket, places: &Places, v: &mut impl Visitor) {
    endpoint(s, places, v);
    access(s, v);
    messages(s, v);
    slow_clients(s, v);
    answers(s, v);
}

fn endpoint(s: &mut Socket, places: &Places, v: &mut impl Visitor) {
    let backlog = |v: &DeValue<'_>| value::count(v, &defaults::BACKLOG);
    v.key(
        units(
            "path",
            "the socket file, at most 107 bytes, or `\"@name\"`: abstract",
        )
        .makes(&["ListenStream", "ListenSequentialPacket", "ListenDatagram"]),
        &mut s.address,
        |v| path::address(v, places),
        show::address,
    );
    v.word(
        units("type", "`stream`, `seqpacket` or `datagram`").makes(&["PassCredentials"]),
        &mut s.kind,
        "stream",
    );
    v.key(
        units(
            "mode",
            "of the socket file; not of `\"@name\"`, as `user` and `group`",
        )
        .of_file()
        .makes(&["SocketMode"]),
        &mut s.mode,
        value::mode,
        show::mode,
    );
    v.key(
        units(
            "user",
            "its owner, name or number; `\"\"`: as the daemon runs",
        )
        .of_file()
        .makes(&["SocketUser"]),
        &mut s.user,
        value::account,
        show::word,
    );
    v.key(
        units("group", "its group, likewise")
            .of_file()
            .makes(&["SocketGroup"]),
        &mut s.group,
        value::account,
        show::word,
    );
    v.key(
        key(
            "backlog",
            Effect::UnitsLater,
            "connections that wait to be accepted",
        )
        .makes(&["Backlog"]),
        &mut s.backlog,
        backlog,
        show::count,
    );
}

fn access(s: &mut Socket, v: &mut impl Visitor) {
    v.key(
        newcomers(
            "allow-users",
            "names or numbers; both lists empty: anyone the file mode lets in",
        ),
        &mut s.allow_users,
        value::users,
        show::list,
    );
    v.key(
        newcomers(
            "allow-groups",
            "primary and supplementary groups; either list admits, root is not exempt",
        ),
        &mut s.allow_groups,
        value::users,
        show::list,
    );
}

fn messages(s: &mut Socket, v: &mut impl Visitor) {
    let message = |v: &DeValue<'_>| value::size(v, &defaults::MESSAGE_SIZE);
    v.word(
        ends_clients("service", "`echo`, `relay` or `collect`").makes(&["SendBuffer"]),
        &mut s.service,
        "echo",
    );
    v.word(
        ends_clients(
            "framing",
            "of a stream: `none`, `lines`, `nul`, `length-prefixed`, `fixed:N`, `cstring:N`, `syslog`",
        ),
        &mut s.framing,
        "lines",
    );
    v.key(
        at_once(
            "message-size",
            "without terminator or prefix; `collect` cuts what is longer, others refuse it",
        ),
        &mut s.message_size,
        message,
        show::size,
    );
}

fn slow_clients(s: &mut Socket, v: &mut impl Visitor) {
    let queue = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    let slow = |v: &DeValue<'_>| value::span(v, defaults::SHORTEST_TIMEOUT);
    let idle = |v: &DeValue<'_>| value::span_or_never(v, defaults::SHORTEST_TIMEOUT);
    let clients = |v: &DeValue<'_>| value::count(v, &defaults::CLIENTS);
    v.key(
        at_once("queue-size", "bytes that wait for one client"),
        &mut s.queue_size,
        queue,
        show::size,
    );
    v.word(
        at_once(
            "slow-client",
            "when that queue is full: `wait`, `disconnect`, or `drop` the message, for it alone",
        ),
        &mut s.slow_client,
        "wait",
    );
    v.key(
        at_once(
            "slow-timeout",
            "`wait`: who takes less than half of a full queue in this time is closed",
        ),
        &mut s.slow_timeout,
        slow,
        show::span,
    );
    v.key(
        at_once("idle-timeout", "who is silent for this time is closed"),
        &mut s.idle_timeout,
        idle,
        show::or_never,
    );
    v.key(
        newcomers("clients", "clients of this socket; 0: no limit of its own"),
        &mut s.clients,
        clients,
        show::count,
    );
}

fn answers(s: &mut Socket, v: &mut impl Visitor) {
    v.key(
        at_once(
            "answer-abstract",
            "`echo` of datagrams: answer abstract addresses that any user chose, maybe another's",
        ),
        &mut s.answer_abstract,
        value::flag,
        show::flag,
    );
    v.key(
        at_once(
            "stamp",
            "`relay`: deliver each message as a JSON record, with its sender",
        ),
        &mut s.stamp,
        value::flag,
        show::flag,
    );
    v.key(not_yet("ack"), &mut s.ack, value::flag, show::flag);
}

/// `[socket.NAME.record]`
pub(super) fn record(r: &mut Record, places: &Places, v: &mut impl Visitor) {
    let queue = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    let rotate = |v: &DeValue<'_>| value::size(v, &defaults::ROTATE_SIZE);
    let keep = |v: &DeValue<'_>| value::count(v, &defaults::KEEP);
    v.key(
        at_once("file", "`\"\"`: standard output, and so the journal").makes(&["ReadWritePaths"]),
        &mut r.file,
        |v| path::file(v, places, "%L/udsd/udsd.json"),
        show::file,
    );
    v.key(
        newcomers("mode", "of a new file"),
        &mut r.mode,
        value::mode,
        show::mode,
    );
    v.key(
        at_once(
            "queue-size",
            "bytes that wait for the disk; then reading stops",
        ),
        &mut r.queue_size,
        queue,
        show::size,
    );
    v.word(
        at_once(
            "format",
            "`json`, `text` (`TIME SOCKET[PID] uid=UID MESSAGE`) or `raw`",
        ),
        &mut r.format,
        "json",
    );
    v.key(not_yet("sync"), &mut r.sync, value::flag, show::flag);
    let size = &mut r.rotate_size;
    v.key(not_yet("rotate-size"), size, rotate, show::size);
    v.key(not_yet("keep"), &mut r.keep, keep, show::count);
}

/// One table and what its keys are.
pub(super) struct Table {
    /// As "socket.udsd.record".
    pub(super) name: String,
    /// The name of all tables of its kind, as "socket.NAME.record".
    pub(super) kind: &'static str,
    pub(super) meaning: &'static str,
    pub(super) keys: Vec<(Key, Value)>,
}

impl Visitor for Table {
    fn key<T>(
        &mut self,
        key: Key,
        place: &mut T,
        _: impl Fn(&DeValue<'_>) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    ) {
        self.keys.push((key, show(place)));
    }
}

impl Table {
    fn new(kind: &'static str, of_socket: &str, meaning: &'static str) -> Self {
        Self {
            name: kind.replace("NAME", of_socket),
            kind,
            meaning,
            keys: Vec::new(),
        }
    }

    /// The value of a key, and its row.
    pub(super) fn get(&self, name: &str) -> Option<&(Key, Value)> {
        self.keys.iter().find(|(key, _)| key.name == name)
    }
}

/// All tables of `config`.
pub(super) fn tables(config: &Config) -> Vec<Table> {
    // What is visited can be changed, and where it is read places matter; neither is so here.
    let (mut config, places) = (config.clone(), &Places::system());
    let mut table = Table::new("daemon", "", "of the process");
    daemon(&mut config.daemon, places, &mut table);
    let mut out = vec![table];
    let mut table = Table::new("limits", "", "of all sockets together");
    limits(&mut config.limits, &mut table);
    out.push(table);
    out.extend(config.sockets.iter_mut().flat_map(of_socket));
    out
}

/// The table of a socket, and that of its record. An abstract socket has no file to own, so no keys for
/// that.
fn of_socket(s: &mut Socket) -> Vec<Table> {
    let places = &Places::system();
    let name = s.name.clone();
    let meaning = "NAME is for logs, and FileDescriptorName= where systemd passes it";
    let mut table = Table::new("socket.NAME", &name, meaning);
    socket(s, places, &mut table);
    if let Address::Abstract(_) = s.address {
        table.keys.retain(|(key, _)| !key.is_of_file);
    }
    let mut out = vec![table];
    if let Some(r) = &mut s.record {
        let meaning = "of `collect`, or an audit trail beside `echo` and `relay`";
        let mut table = Table::new("socket.NAME.record", &name, meaning);
        record(r, places, &mut table);
        out.push(table);
    }
    out
}

/// The value of a key of `socket` itself; `None` where it has no such key.
pub(super) fn value_of(socket: &Socket, name: &str) -> Option<Value> {
    let table = of_socket(&mut socket.clone()).into_iter().next()?;
    table.get(name).map(|(_, value)| value.clone())
}

/// All tables that there can be, with their defaults.
pub(super) fn defaults() -> Vec<Table> {
    let mut socket = Socket::new("NAME".into(), Address::Path("/".into()));
    socket.record = Some(Record::default());
    tables(&Config::of(vec![socket]))
}

/// The keys of `[socket.NAME]`, without its record.
pub fn of_sockets() -> impl Iterator<Item = Key> {
    let tables = defaults().into_iter();
    let mut tables = tables.filter(|table| table.kind == "socket.NAME");
    let keys = tables.next().map(|table| table.keys);
    keys.into_iter().flatten().map(|(key, _)| key)
}

/// The keys whose values differ, by their whole names, in tables that both have.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<(String, Key)> {
    let before = tables(before);
    let mut out = Vec::new();
    for table in tables(after) {
        let Some(old) = before.iter().find(|old| old.name == table.name) else {
            continue;
        };
        for (key, value) in table.keys {
            if old.get(key.name).is_some_and(|(_, old)| *old != value) {
                out.push((format!("{}.{}", table.name, key.name), key));
            }
        }
    }
    out
}
