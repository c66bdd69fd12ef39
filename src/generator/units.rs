//! The texts of the units: a checked `Config` in, files and links out. Reads and writes nothing.
//!
//! The static udsd.socket is always the file's first socket and gets a drop-in; each further socket
//! has a unit of its own, since a unit has one FileDescriptorName=. Addresses are written with %t, %S and %L
//! replaced by their folders: udsd compares them with the address that the kernel tells, and older user
//! managers take %S for another folder.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::Scope;
use crate::{
    config::{Address, BaseDirs, Config, ServiceKind, Socket, SocketType, keys},
    datagram_socket,
    error::Fault,
};

/// The unit of the file's first socket.
pub(super) const FIRST: &str = "udsd.socket";
/// Its Description=, as the static unit has it.
const DESCRIPTION: &str = "Message socket of udsd";
/// Comes before every drop-in of the administrator, since the later name wins (`systemd.unit(5)`).
const DROP_IN: &str = "00-udsd.conf";
/// User and group of the service, who own a socket where the file names nobody.
pub(super) const OWNER: &str = "udsd";
/// Longest abstract name that a socket unit takes, in bytes: systemd counts the "@" among the 107 of
/// a path.
const ABSTRACT_NAME: usize = 106;
/// The folder below %t, %S and %L that is the service's own: RuntimeDirectory= and the like.
const OWN_FOLDER: &str = "udsd";
/// Folders that the service does not see as others do, and why.
const NOT_SEEN: [(&str, &str); 5] = [
    ("/tmp", TEMPORARY),
    ("/var/tmp", TEMPORARY),
    ("/home", HIDDEN),
    ("/root", HIDDEN),
    ("/run/user", HIDDEN),
];
const TEMPORARY: &str = "is the service's own (PrivateTmp=), and empty again once it stops";
const HIDDEN: &str = "is hidden from the service (ProtectHome=)";

/// The first systemd that has StopPropagatedFrom=.
const PROPAGATES_STOPS: u32 = 249;
/// The first systemd that has AcceptFileDescriptors=, which keeps descriptors out of a socket from its
/// first moment on.
const REFUSES_DESCRIPTORS: u32 = 258;

/// How long the manager waits for a stop by default (`systemd-system.conf(5)`, DefaultTimeoutStopSec=).
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// What a stop may take beside `drain-timeout`.
const STOP_SPARE: Duration = Duration::from_secs(30);

const HEADER: &str = "# Written by udsd-generator from udsd.toml and its drop-ins, anew at each daemon-reload: edit those.\n";

/// One file or link of the generator's folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the folder.
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    /// A symbolic link to this path, relative to where the link is.
    Link(PathBuf),
}

impl Entry {
    fn text(path: impl AsRef<Path>, text: String) -> Self {
        Self {
            path: path.as_ref().into(),
            content: Content::Text(text),
        }
    }

    #[cfg(test)]
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Link(_) => None,
        }
    }
}

/// A socket that a unit can express.
pub(super) struct SocketUnit {
    pub(super) name: String,
    pub(super) socket: Socket,
    /// The file that has its table, or whose faults keep it from being read; `None`: the embedded one.
    pub(super) source: Option<PathBuf>,
    /// Lines of its section [Socket]; `None` where the unit is the administrator's own.
    keys: Option<String>,
    /// The folder of its record, for ReadWritePaths=; `None` where the service may write there anyway.
    record_folder: Option<String>,
}

/// What the units are made of.
pub(super) struct Followed {
    /// There is no file, and the embedded one serves.
    pub(super) is_built_in: bool,
    /// How long a stop waits for queues to empty (`drain-timeout`).
    pub(super) drain: Duration,
    /// Empty where the static units have to do.
    pub(super) sockets: Vec<SocketUnit>,
    pub(super) faults: Vec<Fault>,
    /// For the log: what serves in place of what is faulty.
    pub(super) instead: String,
}

/// Makes units for one manager.
pub(super) struct Maker<'a> {
    pub(super) dirs: &'a BaseDirs,
    pub(super) scope: Scope,
    /// udsd.socket is the administrator's own.
    pub(super) own_first: bool,
    /// The version of systemd.
    pub(super) version: u32,
}

impl Maker<'_> {
    /// Whether the unit of the file's socket number `i`, from 0, is the administrator's own.
    pub(super) fn is_own(&self, i: usize) -> bool {
        self.own_first && i == 0
    }

    /// The unit of the file's socket number `i`, from 0, and each value that a unit cannot express. With such a
    /// value there is no unit, except the administrator's own, which is there whatever the file says.
    pub(super) fn express(
        &self,
        i: usize,
        socket: &Socket,
        config: &Config,
    ) -> (Option<SocketUnit>, Vec<Fault>) {
        let mut faults = Vec::new();
        let keys = (!self.is_own(i)).then(|| socket_keys(socket, config, self, &mut faults));
        let record_folder =
            record_folder(socket, self.dirs, self.scope).unwrap_or_else(|message| {
                let key = format!("socket.{}.record.file", socket.name);
                faults.push(config.fault(&key, message));
                None
            });
        let unit = (faults.is_empty() || self.is_own(i)).then(|| SocketUnit {
            name: unit_name(i, socket),
            socket: socket.clone(),
            source: source(socket, config),
            keys,
            record_folder,
        });
        (unit, faults)
    }

    /// The units that could be made, in the order of the file. The first is udsd.socket, which enables udsd,
    /// unless that is the administrator's own.
    pub(super) fn in_order(
        &self,
        units: impl IntoIterator<Item = Option<SocketUnit>>,
    ) -> Vec<SocketUnit> {
        let mut units: Vec<_> = units.into_iter().flatten().collect();
        if !self.own_first
            && let Some(first) = units.first_mut()
        {
            first.name = FIRST.into();
        }
        units
    }

    /// All that belongs into the generator's folder.
    pub(super) fn entries(&self, followed: &Followed) -> Vec<Entry> {
        let mut entries = Vec::new();
        if !self.own_first {
            entries.push(first_socket(followed));
        }
        // PartOf= restarts a further socket with the first, too, which cuts off who is connected to a datagram socket;
        // older versions know no other.
        let stops_with = match self.version {
            PROPAGATES_STOPS.. => "StopPropagatedFrom",
            _ => "PartOf",
        };
        let sockets = &followed.sockets;
        for unit in sockets.iter().filter(|unit| unit.name != FIRST) {
            if let Some(keys) = &unit.keys {
                let after = after(&unit.socket, sockets);
                let source = source_path(unit.source.as_deref());
                let head = format!("{source}{stops_with}={FIRST}\nBefore={FIRST}\n{after}");
                entries.extend(further_socket(unit, &head, keys));
            }
        }
        if !sockets.is_empty() {
            let text = service(followed);
            entries.push(Entry::text(format!("udsd.service.d/{DROP_IN}"), text));
        }
        entries
    }
}

/// The drop-in of udsd.socket. Where the file has faults, its description says so: `systemctl status`
/// shows that, and so does the journal when the socket starts.
fn first_socket(followed: &Followed) -> Entry {
    let (first, fault) = (followed.sockets.first(), followed.faults.first());
    let source = match first {
        Some(unit) => unit.source.as_deref(),
        None => fault.and_then(|fault| fault.file.as_deref()),
    };
    let mut text = format!("{HEADER}[Unit]\n{}", source_path(source));
    if let Some(fault) = fault {
        let more = match followed.faults.len() - 1 {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        let said = format!("{DESCRIPTION} (fault: {fault}{more})");
        // A fault quotes the file, in which may stand what a unit cannot hold.
        let said = value(&said).unwrap_or_else(|_| format!("{DESCRIPTION} (faults: udsd --check)"));
        line(&mut text, "Description", &said);
    }
    if let Some(keys) = first.and_then(|unit| unit.keys.as_ref()) {
        // One reset forgets the addresses of all types (`systemd.socket(5)`).
        text += &format!("\n[Socket]\nListenStream=\n{keys}");
    }
    Entry::text(format!("{FIRST}.d/{DROP_IN}"), text)
}

/// The name of the unit of the file's socket number `i`, from 0.
#[must_use]
pub fn unit_name(i: usize, socket: &Socket) -> String {
    match i {
        0 => FIRST.into(),
        _ => format!("udsd-{}.socket", socket.name),
    }
}

/// The file that has the table of `socket`.
pub(super) fn source(socket: &Socket, config: &Config) -> Option<PathBuf> {
    let table = format!("socket.{}", socket.name);
    config.origin.file_of(&table).map(Into::into)
}

/// SourcePath=, by which `systemctl` warns of a file that has changed since. A path that no unit can
/// hold is left out: nothing else depends on it.
fn source_path(file: Option<&Path>) -> String {
    let file = file.and_then(Path::to_str);
    let file = file.and_then(|file| value(file).ok());
    file.map_or_else(String::new, |file| format!("SourcePath={file}\n"))
}

/// After=: an abstract socket comes after all further ones that have files. Its name is free only when no process
/// has it open, and while the manager gives files their owners, helper processes have all its sockets open. So
/// a restart closes it before that begins, and binds it when that is done.
fn after(socket: &Socket, all: &[SocketUnit]) -> String {
    let mut after = String::new();
    if matches!(socket.address, Address::Abstract(_)) {
        let others = all.iter().filter(|unit| unit.name != FIRST);
        let others = others.filter(|unit| matches!(unit.socket.address, Address::Path(_)));
        let others: Vec<&str> = others.map(|unit| unit.name.as_str()).collect();
        if !others.is_empty() {
            line(&mut after, "After", &others.join(" "));
        }
    }
    after
}

/// A unit like the static one, and the link by which udsd.socket brings it up. `head`: more lines of [Unit]. By
/// its Before=, whoever waits for udsd.socket, as `systemctl start` does, waits for all sockets.
fn further_socket(unit: &SocketUnit, head: &str, keys: &str) -> [Entry; 2] {
    let SocketUnit { name, socket, .. } = unit;
    // The same start limit as udsd.socket has, for the same reason.
    let text = format!(
        "{HEADER}[Unit]\n\
         Description=Message socket {} of udsd\n\
         Documentation=man:udsd(8) man:udsd.toml(5)\n\
         {head}\
         StartLimitIntervalSec=10s\n\
         StartLimitBurst=100\n\
         \n\
         [Socket]\n\
         Service=udsd.service\n\
         {keys}\
         RemoveOnStop=yes\n",
        socket.name
    );
    let link = Entry {
        path: format!("{FIRST}.wants/{name}").into(),
        content: Content::Link(format!("../{name}").into()),
    };
    [Entry::text(name, text), link]
}

/// The lines of the section [Socket]: the directives that the rows of the table of keys name, each with its value,
/// and those that no key changes.
fn socket_keys(
    socket: &Socket,
    config: &Config,
    maker: &Maker<'_>,
    faults: &mut Vec<Fault>,
) -> String {
    let mut keys = String::new();
    for key in keys::SOCKET.keys() {
        for directive in key.directives {
            match directive_value(directive, socket, maker) {
                Ok(Some(value)) => line(&mut keys, directive, &value),
                Ok(None) => {}
                Err(message) => {
                    let key = format!("socket.{}.{}", socket.name, key.name);
                    faults.push(config.fault(&key, message));
                }
            }
        }
    }
    line(&mut keys, "FileDescriptorName", &socket.name);
    if maker.version >= REFUSES_DESCRIPTORS {
        line(&mut keys, "AcceptFileDescriptors", &"no");
    }
    keys
}

/// The value of a directive; `None` where the unit of `socket` needs none.
fn directive_value(
    directive: &str,
    socket: &Socket,
    maker: &Maker<'_>,
) -> Result<Option<String>, String> {
    let is_datagram = socket.kind == SocketType::Datagram;
    let has_file = matches!(socket.address, Address::Path(_));
    // An abstract socket has no owner; an empty value makes systemd look nobody up.
    let owner = |name| {
        owner(name, maker.scope).map(|owner| match has_file {
            true => Some(owner),
            false => Some(String::new()),
        })
    };
    match directive {
        "SocketUser" => owner(&socket.user),
        "SocketGroup" => owner(&socket.group),
        "SocketMode" => Ok(has_file.then(|| format!("{:04o}", socket.mode))),
        // Set before anyone can send, so that every datagram has its sender.
        "PassCredentials" => Ok(is_datagram.then(|| "yes".into())),
        // The service itself may have no more than net.core.wmem_max.
        "SendBuffer" => {
            let answers = is_datagram && socket.service == ServiceKind::Echo;
            Ok(answers.then(|| datagram_socket::SEND_BUFFER.to_string()))
        }
        "Backlog" => Ok((!is_datagram).then(|| socket.backlog.to_string())),
        listen if listen == socket.kind.listen_directive() => {
            address(&socket.address.in_unit(), maker.dirs).map(Some)
        }
        _ => Ok(None),
    }
}

fn line(out: &mut String, key: &str, value: &impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key}={value}");
}

/// The value of the directive that has the address.
fn address(address: &Address, dirs: &BaseDirs) -> Result<String, String> {
    match address {
        Address::Path(path) => {
            let own = dirs
                .runtime
                .as_ref()
                .map(|directory| directory.join(OWN_FOLDER));
            if let Some(own) = own.filter(|own| path.starts_with(own)) {
                // The service's RuntimeDirectory=: it is given to the service's user with all that
                // is in it, and removed when the service stops.
                return Err(format!(
                    "{} is the service's own folder and goes when it stops, with the socket that systemd made there: write a path outside of it, as \"%t/NAME.sock\"",
                    own.display()
                ));
            }
            value(&path.to_string_lossy())
        }
        Address::Abstract(name) if name.len() > ABSTRACT_NAME => Err(format!(
            "the name is {} bytes long, and that of a socket unit at most {ABSTRACT_NAME}: write a shorter one",
            name.len()
        )),
        Address::Abstract(name) => value(&format!("@{}", String::from_utf8_lossy(name))),
    }
}

/// The value of SocketUser= or SocketGroup=. A name is not looked up: whether it exists, the start of the unit
/// tells.
fn owner(name: &str, scope: Scope) -> Result<String, String> {
    if name.is_empty() {
        // The sockets of a user's manager belong to that user anyway.
        let owner = if scope == Scope::System { OWNER } else { "" };
        return Ok(owner.into());
    }
    match name.parse::<u32>() {
        // What systemd reads as "no change" where numbers have 16 bits.
        Ok(65535) => Err("systemd refuses 65535 in a socket unit: write another number".into()),
        // Without zeros in front, which systemd refuses.
        Ok(number) => Ok(number.to_string()),
        // `valid_user_group_name` in systemd's src/basic/user-util.c.
        Err(_)
            if [".", ".."].contains(&name)
                || name.starts_with('-')
                || name.contains('/')
                || name.trim() != name =>
        {
            Err(format!(
                "systemd refuses \"{name}\" in a socket unit: write its number, as `getent` tells it"
            ))
        }
        Err(_) => value(name),
    }
}

/// The drop-in of the service.
fn service(followed: &Followed) -> String {
    let units = followed.sockets.iter().map(|unit| unit.name.as_str());
    let units = units.collect::<Vec<_>>().join(" ");
    // Not Requires=: one socket that cannot be bound must cost only itself.
    let mut text = format!("{HEADER}[Unit]\n");
    for key in ["Wants", "PartOf", "After"] {
        line(&mut text, key, &units);
    }
    text += "\n[Service]\n";
    line(&mut text, "Sockets", &units);
    let drain = followed.drain;
    if drain + STOP_SPARE > STOP_TIMEOUT {
        let seconds = (drain + STOP_SPARE).as_millis().div_ceil(1000);
        line(&mut text, "TimeoutStopSec", &seconds);
    }
    let folders = followed.sockets.iter();
    let folders: BTreeSet<&String> = folders
        .filter_map(|unit| unit.record_folder.as_ref())
        .collect();
    for folder in folders {
        line(&mut text, "ReadWritePaths", folder);
    }
    text
}

/// The value of ReadWritePaths= for a record: its folder, unless the service may write there anyway
/// (ProtectSystem=strict). It begins with "-": systemd ignores a folder that is missing, and udsd says then which
/// file and key are at fault. Not RequiresMountsFor=: while a mount fails, clients that wait would make the
/// sockets reach their trigger limit.
fn record_folder(socket: &Socket, dirs: &BaseDirs, scope: Scope) -> Result<Option<String>, String> {
    let Some(file) = socket.record.as_ref().and_then(|r| r.file.as_deref()) else {
        return Ok(None);
    };
    let own = own_folders(dirs);
    // A user's manager cannot protect the file system, so there is nothing to open up.
    if scope == Scope::User || own.iter().any(|folder| file.starts_with(folder)) {
        return Ok(None);
    }
    let mut not_seen = NOT_SEEN.iter();
    if let Some((folder, why)) = not_seen.find(|(folder, _)| file.starts_with(folder)) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        return Err(format!(
            "{folder} {why}: write a path below another folder, as \"%L/udsd/{name}\""
        ));
    }
    // A file in "/" alone: the folder would open up everything.
    let folder = file.parent().filter(|folder| folder.parent().is_some());
    word(&format!("-{}", folder.unwrap_or(file).to_string_lossy())).map(Some)
}

/// The folders that are the service's own.
pub(super) fn own_folders(dirs: &BaseDirs) -> Vec<PathBuf> {
    let known = [&dirs.runtime, &dirs.state, &dirs.logs].into_iter();
    known
        .flatten()
        .map(|directory| directory.join(OWN_FOLDER))
        .collect()
}

/// `text` as the whole value of a directive that is not split into words.
fn value(text: &str) -> Result<String, String> {
    let mut out = plain(text)?;
    // Blanks at the end are cut off and a backslash there joins lines. %i, the name of an instance,
    // is empty here and keeps both (`systemd.unit(5)`).
    if out.ends_with([' ', '\\']) {
        out += "%i";
    }
    Ok(out)
}

/// `text` as one word of a list.
fn word(text: &str) -> Result<String, String> {
    let text = plain(text)?.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{text}\""))
}

/// `text` with each % doubled. What a unit file cannot hold is refused: control characters, and code points that
/// are no characters, which systemd does not accept as UTF-8.
fn plain(text: &str) -> Result<String, String> {
    let unfit = |c: &char| {
        let code = u32::from(*c);
        c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    };
    match text.chars().find(unfit) {
        Some(c) => Err(format!(
            "contains U+{:04X}, which no unit file can hold: leave it out",
            u32::from(c)
        )),
        None => Ok(text.replace('%', "%%")),
    }
}
