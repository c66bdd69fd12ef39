//! The tables of the file: which keys there are, and what is to be read for each.
//!
//! A faulty value leaves its default in place and the reading goes on, so that one run tells all
//! that is wrong. serde would stop at the first fault and knows no lines.

use std::{collections::BTreeMap, path::Path, time::Duration};

use toml::de::{DeTable, DeValue, Error};

use super::{
    Address, Config, Daemon, Limits, Places, Record, ServiceKind, Socket, check, defaults,
    faults::Faults,
    path,
    source::{Source, join},
    value,
    words::{either, nearest},
};
use crate::error::Fault;

const ROOT: &[&str] = &["daemon", "limits", "socket"];
const DAEMON: &[&str] = &["log", "control", "drain-timeout", "exit-on-idle"];
const LIMITS: &[&str] = &[
    "clients",
    "clients-per-user",
    "queue-per-user",
    "queue-total",
];
const SOCKET: &[&str] = &[
    "path",
    "type",
    "mode",
    "user",
    "group",
    "backlog",
    "allow-users",
    "allow-groups",
    "service",
    "framing",
    "message-size",
    "queue-size",
    "slow-client",
    "slow-timeout",
    "idle-timeout",
    "clients",
    "stamp",
    "ack",
    "record",
];
const RECORD: &[&str] = &[
    "file",
    "mode",
    "queue-size",
    "format",
    "sync",
    "rotate-size",
    "keep",
];

/// Every table and its keys, for keys that stand in the wrong one.
const TABLES: [(&str, &[&str]); 4] = [
    ("[daemon]", DAEMON),
    ("[limits]", LIMITS),
    ("[socket.NAME]", SOCKET),
    ("[socket.NAME.record]", RECORD),
];

/// Most repeated keys that are looked at: to find the first takes another reading of the file.
const MOST_REPEATS: usize = 20;

/// What the parser's messages begin with, and what would be right.
const REMEDIES: [(&str, &str); 12] = [
    (
        "unexpected leading zero",
        "write the number without, or a mode in quotes, as \"0660\"",
    ),
    (
        "string values must be quoted",
        "write text in double quotes, as \"/run/udsd.sock\"",
    ),
    (
        "invalid unquoted key",
        "write KEY = VALUE, or begin a comment with #",
    ),
    ("key with no value", "write KEY = VALUE"),
    (
        "unquoted keys cannot be empty",
        "write KEY = VALUE, or a table as [socket.NAME]",
    ),
    (
        "invalid basic string",
        "end the string with the quote it began with",
    ),
    (
        "invalid literal string",
        "end the string with the quote it began with",
    ),
    ("missing escaped value", "write a backslash as two"),
    ("invalid boolean", "write true or false"),
    ("unexpected key or value", "write one KEY = VALUE on a line"),
    (
        "unclosed",
        "close it on the same line, a list on any later one",
    ),
    ("cannot extend", "keep the value or the table"),
];

/// Reads and checks the whole file.
pub(super) fn parse(
    text: &str,
    file: Option<&Path>,
    places: &Places,
) -> Result<Config, Vec<Fault>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let (root, source) = (root.get_ref(), Source::new(text));
    let (repeats, errors): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| error.message() == "duplicate key");
    // What the parser made of the text behind a syntax error is a guess, not worth a judgement.
    if let Some(error) = errors
        .iter()
        .min_by_key(|error| error.span().map(|span| span.start))
    {
        return Err(vec![syntax_fault(error, &source, file)]);
    }
    let lines = source.lines(root);
    let mut faults = Faults::of_file(file, lines.clone());
    let mut tables: Vec<String> = Vec::new();
    for span in repeats.iter().filter_map(Error::span).take(MOST_REPEATS) {
        let line = Some(source.line(span.start));
        let Some((key, first)) = source.repeated(&span) else {
            faults.at(line, &text[span], "is given twice: keep one of them");
            continue;
        };
        // What a repeated table repeats is no second fault.
        if tables.iter().any(|table| key.starts_with(table)) {
            continue;
        }
        tables.push(format!("{key}."));
        let dotted = text[span.end..].trim_start().starts_with('.');
        let message = match first {
            Some(first) if dotted => {
                format!("has a header of its own on line {first}: write its keys below that")
            }
            Some(first) => format!("is given twice, first on line {first}: keep one of them"),
            None => "is given twice: keep one of them".into(),
        };
        faults.at(line, &key, &message);
    }
    let mut reader = Reader { places, faults };
    let config = reader.config(root, &lines);
    let mut faults = reader.faults;
    check::check(&config, &mut faults);
    Ok(Config {
        file: file.map(Into::into),
        lines: faults.verdict()?,
        ..config
    })
}

fn syntax_fault(error: &Error, source: &Source<'_>, file: Option<&Path>) -> Fault {
    let (line, key) = source.place(error);
    let wrong = error.message();
    let remedy = REMEDIES
        .iter()
        .find(|(prefix, _)| wrong.starts_with(prefix));
    let remedy = remedy.map_or("udsd.toml(5) shows the form of the file", |(_, remedy)| {
        remedy
    });
    let message = format!("not TOML: {wrong}: {remedy}");
    Fault {
        file: file.map(Into::into),
        line: Some(line),
        key,
        message,
    }
}

/// Whether a socket can have this name.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=defaults::NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// A table of the file and its whole name.
struct Section<'a> {
    name: String,
    table: &'a DeTable<'a>,
}

impl Section<'_> {
    fn key(&self, key: &str) -> String {
        join(&self.name, key)
    }
}

/// Reads tables, noting every fault.
struct Reader<'a> {
    places: &'a Places,
    faults: Faults,
}

impl Reader<'_> {
    fn config(&mut self, root: &DeTable<'_>, lines: &BTreeMap<String, usize>) -> Config {
        let root = Section {
            name: String::new(),
            table: root,
        };
        self.refuse_unknown(&root, ROOT);
        let mut config = Config {
            daemon: Daemon::default(),
            limits: Limits::default(),
            sockets: Vec::new(),
            file: None,
            lines: BTreeMap::new(),
        };
        if let Some(section) = self.section(&root, "daemon", DAEMON) {
            self.daemon(&section, &mut config.daemon);
        }
        if let Some(section) = self.section(&root, "limits", LIMITS) {
            self.limits(&section, &mut config.limits);
        }
        config.sockets = self.sockets(&root);
        // The parser moves a table to the end when its header comes after that of its record.
        let line = |socket: &Socket| lines.get(&join("socket", &socket.name)).copied();
        config.sockets.sort_by_key(line);
        config
    }

    fn sockets(&mut self, root: &Section<'_>) -> Vec<Socket> {
        const RIGHT: &str = "write at least one table [socket.NAME] with a path";
        let Some(sockets) = self.table(root, "socket") else {
            if !self.faults.is_invalid("socket") {
                self.faults
                    .invalid("socket", &format!("there is none: {RIGHT}"));
            }
            return Vec::new();
        };
        match sockets.table.len() {
            0 => self.faults.invalid("socket", &format!("is empty: {RIGHT}")),
            n if n > defaults::SOCKETS => {
                let most = defaults::SOCKETS;
                let message = format!("{n} sockets are too many: write at most {most}");
                self.faults.invalid("socket", &message);
            }
            _ => {}
        }
        let mut out = Vec::new();
        for (name, _) in sockets.table.iter().take(defaults::SOCKETS) {
            let name = name.get_ref();
            if let Some(section) = self.section(&sockets, name, SOCKET) {
                out.push(self.socket(name, &section));
            }
        }
        out
    }

    fn daemon(&mut self, section: &Section<'_>, daemon: &mut Daemon) {
        let places = self.places;
        self.set(section, "log", &mut daemon.log, value::log);
        self.set(section, "control", &mut daemon.control, |v| {
            path::control(v, places)
        });
        self.set(section, "drain-timeout", &mut daemon.drain_timeout, |v| {
            value::span(v, Duration::ZERO)
        });
        self.set(section, "exit-on-idle", &mut daemon.exit_on_idle, |v| {
            value::span_or_never(v, defaults::SHORTEST_EXIT)
        });
    }

    fn limits(&mut self, section: &Section<'_>, limits: &mut Limits) {
        let count = |v: &DeValue<'_>| value::count(v, &defaults::CLIENTS);
        let size = |v: &DeValue<'_>| value::size(v, &defaults::QUEUE_SIZE);
        self.set(section, "clients", &mut limits.clients, count);
        self.set(
            section,
            "clients-per-user",
            &mut limits.clients_per_user,
            count,
        );
        self.set(section, "queue-per-user", &mut limits.queue_per_user, size);
        self.set(section, "queue-total", &mut limits.queue_total, size);
    }

    fn socket(&mut self, name: &str, section: &Section<'_>) -> Socket {
        if !is_name(name) {
            let message = "is no name of a socket: write 1 to 64 letters, digits, \"-\" and \"_\"";
            self.faults.invalid(&section.name, message);
        }
        if !section.table.contains_key("path") {
            let message = "is missing: write where the socket listens, as path = \"%t/udsd.sock\"";
            self.faults.invalid(&section.key("path"), message);
        }
        let places = self.places;
        let mut socket = Socket::new(name.into(), Address::Abstract(Vec::new()));
        let s = &mut socket;
        self.set(section, "path", &mut s.address, |v| {
            path::address(v, places)
        });
        self.set(section, "type", &mut s.kind, |v| value::word(v, "stream"));
        self.set(section, "mode", &mut s.mode, value::socket_mode);
        self.set(section, "user", &mut s.user, value::account);
        self.set(section, "group", &mut s.group, value::account);
        self.set(section, "backlog", &mut s.backlog, |v| {
            value::count(v, &defaults::BACKLOG)
        });
        self.set(section, "allow-users", &mut s.allow_users, value::accounts);
        self.set(
            section,
            "allow-groups",
            &mut s.allow_groups,
            value::accounts,
        );
        self.set(section, "service", &mut s.service, |v| {
            value::word(v, "echo")
        });
        self.set(section, "framing", &mut s.framing, |v| {
            value::word(v, "lines")
        });
        self.set(section, "message-size", &mut s.message_size, |v| {
            value::size(v, &defaults::MESSAGE_SIZE)
        });
        self.set(section, "queue-size", &mut s.queue_size, |v| {
            value::size(v, &defaults::QUEUE_SIZE)
        });
        self.set(section, "slow-client", &mut s.slow_client, |v| {
            value::word(v, "wait")
        });
        self.set(section, "slow-timeout", &mut s.slow_timeout, |v| {
            value::span(v, defaults::SHORTEST_TIMEOUT)
        });
        self.set(section, "idle-timeout", &mut s.idle_timeout, |v| {
            value::span_or_never(v, defaults::SHORTEST_TIMEOUT)
        });
        self.set(section, "clients", &mut s.clients, |v| {
            value::count(v, &defaults::CLIENTS)
        });
        self.set(section, "stamp", &mut s.stamp, value::flag);
        self.set(section, "ack", &mut s.ack, value::flag);
        s.record = match self.section(section, "record", RECORD) {
            Some(section) => Some(self.record(&section)),
            None => (s.service == ServiceKind::Collect).then(Record::default),
        };
        socket
    }

    fn record(&mut self, section: &Section<'_>) -> Record {
        let places = self.places;
        let mut record = Record::default();
        let r = &mut record;
        self.set(section, "file", &mut r.file, |v| {
            path::file(v, places, "%L/udsd/udsd.json")
        });
        self.set(section, "mode", &mut r.mode, value::mode);
        self.set(section, "queue-size", &mut r.queue_size, |v| {
            value::size(v, &defaults::QUEUE_SIZE)
        });
        self.set(section, "format", &mut r.format, |v| value::word(v, "json"));
        self.set(section, "sync", &mut r.sync, value::flag);
        self.set(section, "rotate-size", &mut r.rotate_size, |v| {
            value::size(v, &defaults::ROTATE_SIZE)
        });
        self.set(section, "keep", &mut r.keep, |v| {
            value::count(v, &defaults::KEEP)
        });
        record
    }

    /// Puts the value of `key` in its place; without one, or with a faulty one, the default stays.
    fn set<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        place: &mut T,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) {
        match section.table.get(key).map(|value| read(value.get_ref())) {
            Some(Ok(value)) => *place = value,
            Some(Err(message)) => self.faults.invalid(&section.key(key), &message),
            None => {}
        }
    }

    /// The table `key`, all of whose keys are known.
    fn section<'t>(
        &mut self,
        outer: &Section<'t>,
        key: &str,
        known: &[&str],
    ) -> Option<Section<'t>> {
        let section = self.table(outer, key)?;
        self.refuse_unknown(&section, known);
        Some(section)
    }

    fn table<'t>(&mut self, outer: &Section<'t>, key: &str) -> Option<Section<'t>> {
        let name = outer.key(key);
        match outer.table.get(key)?.get_ref() {
            DeValue::Table(table) => Some(Section { name, table }),
            other => {
                let message = match name.as_str() {
                    _ if outer.name == "socket" && SOCKET.contains(&key) => {
                        "stands in no socket: a socket's keys stand in [socket.NAME]".into()
                    }
                    "socket" => must_be_table(other, "socket.NAME"),
                    name => must_be_table(other, name),
                };
                self.faults.invalid(&name, &message);
                None
            }
        }
    }

    fn refuse_unknown(&mut self, section: &Section<'_>, known: &[&str]) {
        for (key, _) in section.table {
            let key = key.get_ref();
            if known.contains(&key.as_ref()) {
                continue;
            }
            let elsewhere = TABLES.iter().find(|(_, keys)| keys.contains(&key.as_ref()));
            let hint = match (nearest(key, known), elsewhere) {
                (Some(word), _) => format!("is not known here: did you mean {word}?"),
                (None, Some((table, _))) => {
                    format!("stands in the wrong table: it belongs in {table}")
                }
                (None, None) => format!(
                    "is not known here: what may stand here is {}",
                    either(known)
                ),
            };
            self.faults.invalid(&section.key(key), &hint);
        }
    }
}

fn must_be_table(value: &DeValue<'_>, name: &str) -> String {
    let kind = value::kind(value);
    format!("is {kind} and must be a table: write [{name}]")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::DEFAULT;
    use super::*;

    fn config(text: &str) -> Config {
        parse(text, None, &Places::system()).unwrap()
    }

    /// The shipped file with its record uncommented.
    fn shipped() -> String {
        let record = DEFAULT.replace("\n#[", "\n[").replace("\n#", "\n");
        let record = &record[record.find("[socket.udsd.record]").unwrap()..];
        let socket = DEFAULT.replace("service = \"echo\"", "service = \"collect\"");
        format!(
            "{}\n{record}",
            socket.replace("framing = \"none\"", "framing = \"lines\"")
        )
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let config = config(DEFAULT);
        assert_eq!(config.daemon, Daemon::default());
        assert_eq!(config.limits, Limits::default());
        let address = Address::Path("/run/udsd.sock".into());
        assert_eq!(config.sockets, [Socket::new("udsd".into(), address)]);
        assert_eq!(
            self::config(&shipped()).sockets[0].record,
            Some(Record::default())
        );
    }

    #[test]
    fn the_shipped_file_shows_every_key() {
        let lines = config(&shipped()).lines;
        for (table, keys) in ["daemon", "limits", "socket.udsd", "socket.udsd.record"]
            .into_iter()
            .zip(TABLES.map(|(_, keys)| keys))
        {
            for key in keys {
                assert!(lines.contains_key(&join(table, key)), "{table}.{key}");
            }
        }
    }

    #[test]
    fn sockets_stay_in_the_order_of_the_file() {
        let text = "[socket.z]\npath = '/z'\n[socket.m.record]\n[socket.a]\npath = '/a'\n\
                    [socket.m]\npath = '/m'\nservice = 'collect'\nframing = 'nul'\n";
        let config = config(text);
        let names: Vec<_> = config
            .sockets
            .iter()
            .map(|socket| socket.name.as_str())
            .collect();
        assert_eq!(names, ["z", "a", "m"]);
        assert_eq!(config.lines["socket.m.framing"], 9);
    }

    #[test]
    fn a_fault_has_the_line_of_its_key_or_its_table() {
        let config = config("\n[socket.a]\npath = '/a'\nuser = 'nobody'\n");
        assert_eq!(config.fault("socket.a.user", String::new()).line, Some(4));
        assert_eq!(config.fault("socket.a.group", String::new()).line, Some(2));
        assert_eq!(config.fault("limits.clients", String::new()).line, None);
    }

    #[test]
    fn collect_has_a_record_unasked() {
        let config = config("[socket.a]\npath = '/a'\nservice = 'collect'\nframing = 'lines'\n");
        assert_eq!(config.sockets[0].record, Some(Record::default()));
    }

    #[test]
    fn no_file_makes_it_panic() {
        let shipped = shipped();
        let keys = shipped
            .lines()
            .map(|line| line.split('#').next().unwrap().trim_end());
        let text = keys
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        for i in (0..text.len()).filter(|i| text.is_char_boundary(*i)) {
            for wedge in ["\"", "\n", "[", "%", "9", "\0", ".", "µ", "="] {
                let (before, after) = text.split_at(i);
                let after = after.get(1..).unwrap_or_default();
                let _ = parse(&format!("{before}{wedge}{after}"), None, &Places::system());
            }
            let _ = parse(&text[..i], None, &Places::system());
        }
    }
}
