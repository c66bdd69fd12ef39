//! The tables of the file, from their text to a `Config`.
//!
//! A faulty value leaves its default in place and the reading goes on, so that one run tells all
//! that is wrong. serde would stop at the first fault and knows no lines.

use std::path::Path;

use toml::de::{DeTable, DeValue, Error};

use super::{
    Address, BaseDirs, Config, Origin, Record, ServiceKind, Socket, bounds, check,
    choices::{either, nearest},
    diagnostics::{Diagnostics, one_line},
    keys::{self, Keys},
    origin::switch,
    source::{Source, join},
    value,
};
use crate::error::{Fault, Faults};

/// Most repeated keys that are reported: to find where one was given first takes another reading of the file.
const MOST_REPEATS: usize = 20;

/// Words of the parser's messages, and the remedy; the first word that is found counts.
const REMEDIES: [(&str, &str); 8] = [
    ("zero", "write a number without, a mode as \"0660\""),
    ("must be quoted", "write text in double quotes"),
    ("cannot extend", "keep the value or the table"),
    ("key", "write KEY = VALUE, one on a line"),
    ("escape", "write a backslash as two"),
    ("string", "end it with the quote that it began with"),
    ("boolean", "write true or false"),
    ("unclosed", "close it"),
];

/// Files whose text is TOML: what of it can be used, and what is wrong with the rest.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// All sockets that have a table and are enabled. A value that cannot be read has its default here.
    pub config: Config,
    /// In the order of the files.
    pub faults: Vec<Fault>,
}

/// One of the files that are laid over each other.
pub(super) struct Layer<'a> {
    file: Option<&'a Path>,
    text: Vec<u8>,
}

impl<'a> Layer<'a> {
    /// `file` is `None` for the embedded one.
    pub(super) fn new(file: Option<&'a Path>, text: Vec<u8>) -> Self {
        Self { file, text }
    }

    fn text(&self) -> Result<&str, Fault> {
        let text = &self.text;
        str::from_utf8(text).map_err(|error| {
            let before = text[..error.valid_up_to()].iter();
            let line = 1 + before.filter(|&&byte| byte == b'\n').count();
            let message = "is not UTF-8, which TOML has to be: save the file as UTF-8";
            Fault::of_file(self.file, Some(line), message)
        })
    }
}

impl Parsed {
    /// Reads and checks `text` as if it stood in `file`.
    ///
    /// # Errors
    /// Why it is not TOML.
    pub fn new(text: &[u8], file: Option<&Path>, dirs: &BaseDirs) -> Result<Self, Fault> {
        Self::of_layers(&[Layer::new(file, text.into())], dirs)
    }

    /// Reads and checks files that are laid over each other: later keys win, key by key, lists as a whole.
    ///
    /// # Errors
    /// Why one is not TOML.
    pub(super) fn of_layers(layers: &[Layer<'_>], dirs: &BaseDirs) -> Result<Self, Fault> {
        let (mut root, mut origin) = (DeTable::new(), Origin::default());
        let mut faults = Vec::new();
        for layer in layers {
            let text = layer.text()?;
            let source = Source::new(text);
            let (table, errors) = DeTable::parse_recoverable(text);
            faults.extend(judge(errors, text, &source, layer.file)?);
            origin.add_file(layer.file);
            let mut note = |key, line| origin.add_key(key, line);
            source.lay(table.into_inner(), &mut root, &mut note);
        }
        let mut faults = Diagnostics::of_files(origin, faults);
        let mut config = config(&root, dirs, &mut faults);
        check::check(&config, &mut faults);
        let (faults, origin) = faults.found();
        config.origin = origin;
        Ok(Parsed { config, faults })
    }

    /// Whether the table of `socket` has no fault.
    #[must_use]
    pub fn is_sound(&self, socket: &Socket) -> bool {
        let table = join("socket", &socket.name);
        let of_table = |fault: &Fault| {
            let rest = fault.key.strip_prefix(&table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.faults.iter().any(of_table)
    }

    /// The whole file, if it has no fault.
    ///
    /// # Errors
    /// `Faults::Config` with all faults found.
    pub fn verdict(self) -> Result<Config, Faults> {
        Faults::of_config(self.faults).map(|()| self.config)
    }
}

/// What can be made of a text that is no TOML.
pub(super) fn guess(text: &str, dirs: &BaseDirs) -> Config {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut faults = Diagnostics::of_files(Origin::default(), Vec::new());
    config(root.get_ref(), dirs, &mut faults)
}

/// What the parser found wrong: keys that are given twice, of which the first counts.
///
/// # Errors
/// Why the text is not TOML.
fn judge(
    errors: Vec<Error>,
    text: &str,
    source: &Source<'_>,
    file: Option<&Path>,
) -> Result<Vec<Fault>, Fault> {
    let (repeats, errors): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| error.message() == "duplicate key");
    // Behind a syntax error the parser guesses: what it makes of that text is not judged.
    if let Some(error) = errors
        .iter()
        .min_by_key(|error| error.span().map(|span| span.start))
    {
        return Err(syntax_fault(error, source, file));
    }
    let mut faults = Vec::new();
    let mut fault = |line, key: &str, message: &str| {
        faults.push(Fault {
            key: key.into(),
            ..Fault::of_file(file, Some(line), one_line(message))
        });
    };
    let mut tables: Vec<String> = Vec::new();
    for error in repeats.iter().take(MOST_REPEATS) {
        let span = error.span().unwrap_or_default();
        let line = source.line(span.start);
        let Some((key, first)) = source.repeated(&span) else {
            fault(line, &text[span], "is given twice: keep one of them");
            continue;
        };
        // The keys of a repeated table are no further faults.
        if tables.iter().any(|table| key.starts_with(table)) {
            continue;
        }
        tables.push(format!("{key}."));
        let message = match text[span.end..].trim_start().starts_with('.') {
            true => format!("has a header of its own on line {first}: write its keys below that"),
            false => format!("is given twice, first on line {first}: keep one of them"),
        };
        fault(line, &key, &message);
    }
    Ok(faults)
}

fn syntax_fault(error: &Error, source: &Source<'_>, file: Option<&Path>) -> Fault {
    let (line, column) = source.position(error.span().map_or(0, |span| span.start));
    let wrong = error.message();
    let remedy = REMEDIES.iter().find(|(word, _)| wrong.contains(word));
    let remedy = remedy.map_or("udsd.toml(5) shows the form", |(_, remedy)| remedy);
    let message = format!("not TOML at column {column}: {wrong}: {remedy}");
    Fault::of_file(file, Some(line), message)
}

/// Whether a socket can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=bounds::NAME).contains(&name.len()) && name.bytes().all(plain)
}

fn config(root: &DeTable<'_>, dirs: &BaseDirs, faults: &mut Diagnostics) -> Config {
    let mut config = Config::default();
    let mut root = Section {
        name: String::new(),
        table: root,
        known: Vec::new(),
        dirs,
        faults,
    };
    let runtime = dirs.runtime.as_deref();
    config.daemon.control = runtime.map(|folder| folder.join("udsd/control.sock"));
    root.read_table("daemon", &keys::DAEMON, &mut config.daemon);
    root.read_table("limits", &keys::LIMITS, &mut config.limits);
    if root.table.contains_key("socket") {
        config.sockets = root.inner("socket", sockets).unwrap_or_default();
    } else {
        root.invalid("socket", &format!("there is none: {AT_LEAST_ONE}"));
    }
    root.known = vec!["daemon", "limits", "socket"];
    root.refuse_unknown();
    // The parser moves a table to the end when its header comes after that of its record.
    let place = |socket: &Socket| faults.origin.place(&join("socket", &socket.name));
    config.sockets.sort_by_key(place);
    if let Some(first) = config.sockets.first()
        && config.sockets.iter().all(|socket| !socket.enabled)
    {
        let message = "is false, and no other socket is enabled: write true for one of them, or a table [socket.NAME] with a path";
        faults.invalid(&switch(&first.name), message);
    }
    // As if it were not there: two sockets may have one path where one of them is off.
    config.sockets.retain(|socket| socket.enabled);
    config
}

const AT_LEAST_ONE: &str = "write at least one table [socket.NAME] with a path";

fn sockets(section: &mut Section<'_>) -> Vec<Socket> {
    const MOST: usize = bounds::SOCKETS;
    let table = section.table;
    let wrong = match table.len() {
        0 => Some(format!("is empty: {AT_LEAST_ONE}")),
        n if n > MOST => Some(format!("{n} sockets are too many: write at most {MOST}")),
        _ => None,
    };
    if let Some(message) = wrong {
        section.faults.invalid("socket", &message);
    }
    let names = table.iter().take(MOST).map(|(name, _)| name.get_ref());
    names
        .filter_map(|name| section.inner(name, |section| socket(name, section)))
        .collect()
}

fn socket(name: &str, section: &mut Section<'_>) -> Socket {
    if !is_name(name) {
        let message = "is no name of a socket: write 1 to 64 letters, digits, \"-\" and \"_\"";
        section.faults.invalid(&section.name, message);
    }
    let mut socket = Socket::new(name.into(), Address::Abstract(Vec::new()));
    section.read(&keys::SOCKET, &mut socket);
    // What switches a socket off may stay when the file that brought it goes.
    if socket.enabled && !section.table.contains_key("path") {
        let message = "is missing: write where the socket listens, as path = \"%t/udsd.sock\"; \
             if this is left of a socket that is gone, remove it";
        section.invalid("path", message);
    }
    let mut record = Record::default();
    let has_table = section.read_table("record", &keys::RECORD, &mut record);
    let is_needed = has_table || socket.service == ServiceKind::Collect;
    socket.record = is_needed.then_some(record);
    section.known.push("record");
    section.refuse_unknown();
    socket
}

/// A table of the file.
struct Section<'a> {
    /// Whole, as "socket.udsd".
    name: String,
    table: &'a DeTable<'a>,
    /// The keys that were looked for.
    known: Vec<&'static str>,
    dirs: &'a BaseDirs,
    faults: &'a mut Diagnostics,
}

impl Section<'_> {
    /// Reads the values of `keys`. Where there is none, or a faulty one, the default stays.
    fn read<T>(&mut self, keys: &Keys<T>, values: &mut T) {
        for row in keys.rows {
            let name = row.key.name;
            self.known.push(name);
            if let Some(value) = self.table.get(name)
                && let Err(message) = (row.read)(values, value.get_ref(), self.dirs)
            {
                self.invalid(name, &message);
            }
        }
    }

    /// Reads the table `key` of this one, which has these keys alone. Returns whether it is there.
    fn read_table<T>(&mut self, key: &str, keys: &Keys<T>, values: &mut T) -> bool {
        let read = |section: &mut Section<'_>| {
            section.read(keys, values);
            section.refuse_unknown();
        };
        self.inner(key, read).is_some()
    }

    /// Reads the table `key` of this one.
    fn inner<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> Option<T> {
        let name = join(&self.name, key);
        let table = match self.table.get(key)?.get_ref() {
            DeValue::Table(table) => table,
            _ if self.name == "socket" && table_of(key).is_some() => {
                self.invalid(
                    key,
                    "stands in no socket: a socket's keys stand in [socket.NAME]",
                );
                return None;
            }
            other => {
                let right = match &*name {
                    "socket" => "socket.NAME",
                    name => name,
                };
                let kind = value::kind(other);
                let message = format!("is {kind} and must be a table: write [{right}]");
                self.invalid(key, &message);
                return None;
            }
        };
        Some(read(&mut Section {
            name,
            table,
            known: Vec::new(),
            dirs: self.dirs,
            faults: self.faults,
        }))
    }

    /// The key `key` of this table cannot be used.
    fn invalid(&mut self, key: &str, message: &str) {
        self.faults.invalid(&join(&self.name, key), message);
    }

    /// Refuses all keys but those that were looked for.
    fn refuse_unknown(&mut self) {
        for (key, _) in self.table {
            let key = key.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            let hint = if let Some(word) = nearest(key, &self.known) {
                format!("is not known here: did you mean {word}?")
            } else if let Some(table) = table_of(key) {
                format!("stands in the wrong table: it belongs in [{table}]")
            } else {
                format!("is not known here: write {}", either(&self.known))
            };
            self.invalid(key, &hint);
        }
    }
}

/// The first table that can have `key`.
fn table_of(key: &str) -> Option<&'static str> {
    let mut tables = keys::defaults().into_iter();
    let table = tables.find(|table| table.get(key).is_some())?;
    Some(table.kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::{DEFAULT, Daemon, Limits};
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, None, &BaseDirs::system()).unwrap()
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
        let origin = config(&shipped()).origin;
        for table in keys::defaults() {
            let name = table.kind.replace("NAME", "udsd");
            for setting in table.settings {
                let key = join(&name, setting.key.name);
                assert!(origin.of(&key).is_some(), "{key}");
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
        let place = config.origin.of("socket.m.framing").unwrap();
        assert!(place.ends_with(":9"), "{place}");
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
                let text = format!("{before}{wedge}{after}");
                let _ = Parsed::new(text.as_bytes(), None, &BaseDirs::system());
            }
            let _ = Parsed::new(&text.as_bytes()[..i], None, &BaseDirs::system());
        }
    }
}
