//! Every key, once: where its value stands, how it is read and how it is written. Whatever goes
//! through the keys (the reader, `--check`, hints, what is not available yet) visits this list.

use std::{fmt::Display, str::FromStr, time::Duration};

use toml::{Value, de::DeValue};

use super::{
    Address, Config, Daemon, Limits, Places, Record, Socket, defaults, path, value, write as show,
};

/// Takes the keys of one table in the order of the manual.
pub(super) trait Visitor {
    /// `place` holds the default, or the value; `read` and `show` turn it from and into TOML.
    fn key<T>(
        &mut self,
        key: &'static str,
        place: &mut T,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    );

    /// A key that is one of the words of `T`; `example` is one.
    fn word<T: FromStr<Err = String> + Display>(
        &mut self,
        key: &'static str,
        place: &mut T,
        example: &str,
    ) {
        self.key(key, place, |v| value::word(v, example), show::word);
    }
}

/// `[daemon]`
pub(super) fn daemon(d: &mut Daemon, places: &Places, v: &mut impl Visitor) {
    let control = |v: &DeValue<'_>| path::control(v, places);
    let drain = |v: &DeValue<'_>| value::span(v, Duration::ZERO);
    let idle = |v: &DeValue<'_>| value::span_or_never(v, defaults::SHORTEST_EXIT);
    v.key("log", &mut d.log, value::log, show::word);
    v.key("control", &mut d.control, control, show::file);
    v.key("drain-timeout", &mut d.drain_timeout, drain, show::span);
    v.key("exit-on-idle", &mut d.exit_on_idle, idle, show::or_never);
}

/// `[limits]`
pub(super) fn limits(l: &mut Limits, v: &mut impl Visitor) {
    let count = |v: &DeValue<'_>| value::count(v, &defaults::CLIENTS);
    let size = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    v.key("clients", &mut l.clients, count, show::count);
    let per_user = &mut l.clients_per_user;
    v.key("clients-per-user", per_user, count, show::count);
    v.key("queue-per-user", &mut l.queue_per_user, size, show::size);
    v.key("queue-total", &mut l.queue_total, size, show::size);
}

/// `[socket.NAME]`, without its record.
pub(super) fn socket(s: &mut Socket, places: &Places, v: &mut impl Visitor) {
    let address = |v: &DeValue<'_>| path::address(v, places);
    let backlog = |v: &DeValue<'_>| value::count(v, &defaults::BACKLOG);
    let clients = |v: &DeValue<'_>| value::count(v, &defaults::CLIENTS);
    let message = |v: &DeValue<'_>| value::size(v, &defaults::MESSAGE_SIZE);
    let queue = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    let slow = |v: &DeValue<'_>| value::span(v, defaults::SHORTEST_TIMEOUT);
    let idle = |v: &DeValue<'_>| value::span_or_never(v, defaults::SHORTEST_TIMEOUT);
    let accounts = value::accounts;
    v.key("path", &mut s.address, address, show::address);
    v.word("type", &mut s.kind, "stream");
    v.key("mode", &mut s.mode, value::mode, show::mode);
    v.key("user", &mut s.user, value::account, show::word);
    v.key("group", &mut s.group, value::account, show::word);
    v.key("backlog", &mut s.backlog, backlog, show::count);
    v.key("allow-users", &mut s.allow_users, accounts, show::list);
    v.key("allow-groups", &mut s.allow_groups, accounts, show::list);
    v.word("service", &mut s.service, "echo");
    v.word("framing", &mut s.framing, "lines");
    v.key("message-size", &mut s.message_size, message, show::size);
    v.key("queue-size", &mut s.queue_size, queue, show::size);
    v.word("slow-client", &mut s.slow_client, "wait");
    v.key("slow-timeout", &mut s.slow_timeout, slow, show::span);
    v.key("idle-timeout", &mut s.idle_timeout, idle, show::or_never);
    v.key("clients", &mut s.clients, clients, show::count);
    let answer = &mut s.answer_abstract;
    v.key("answer-abstract", answer, value::flag, show::flag);
    v.key("stamp", &mut s.stamp, value::flag, show::flag);
    v.key("ack", &mut s.ack, value::flag, show::flag);
}

/// `[socket.NAME.record]`
pub(super) fn record(r: &mut Record, places: &Places, v: &mut impl Visitor) {
    let file = |v: &DeValue<'_>| path::file(v, places, "%L/udsd/udsd.json");
    let queue = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
    let rotate = |v: &DeValue<'_>| value::size(v, &defaults::ROTATE_SIZE);
    let keep = |v: &DeValue<'_>| value::count(v, &defaults::KEEP);
    v.key("file", &mut r.file, file, show::file);
    v.key("mode", &mut r.mode, value::mode, show::mode);
    v.key("queue-size", &mut r.queue_size, queue, show::size);
    v.word("format", &mut r.format, "json");
    v.key("sync", &mut r.sync, value::flag, show::flag);
    v.key("rotate-size", &mut r.rotate_size, rotate, show::size);
    v.key("keep", &mut r.keep, keep, show::count);
}

/// One table and what its keys are.
pub(super) struct Table {
    /// As "socket.udsd.record".
    pub(super) name: String,
    pub(super) keys: Vec<(&'static str, Value)>,
}

impl Visitor for Table {
    fn key<T>(
        &mut self,
        key: &'static str,
        place: &mut T,
        _: impl Fn(&DeValue<'_>) -> Result<T, String>,
        show: impl Fn(&T) -> Value,
    ) {
        self.keys.push((key, show(place)));
    }
}

/// All tables of `config`. An abstract socket has no file to own, so no keys for that.
pub(super) fn tables(config: &Config) -> Vec<Table> {
    fn table(name: String, visit: impl FnOnce(&mut Table)) -> Table {
        let keys = Vec::new();
        let mut table = Table { name, keys };
        visit(&mut table);
        table
    }
    // What is visited can be changed, and where it is read places matter; neither is so here.
    let (mut config, places) = (config.clone(), &Places::system());
    let mut out = vec![
        table("daemon".into(), |t| daemon(&mut config.daemon, places, t)),
        table("limits".into(), |t| limits(&mut config.limits, t)),
    ];
    for s in &mut config.sockets {
        let name = format!("socket.{}", s.name);
        let mut keys = table(name.clone(), |t| socket(s, places, t));
        if let Address::Abstract(_) = s.address {
            let of_file = |key: &str| ["mode", "user", "group"].contains(&key);
            keys.keys.retain(|(key, _)| !of_file(key));
        }
        out.push(keys);
        if let Some(r) = &mut s.record {
            out.push(table(format!("{name}.record"), |t| record(r, places, t)));
        }
    }
    out
}

/// All tables that there can be, with their defaults.
pub(super) fn defaults() -> Vec<Table> {
    let mut socket = Socket::new("NAME".into(), Address::Path("/".into()));
    socket.record = Some(Record::default());
    tables(&Config::of(vec![socket]))
}
