//! The texts of the units: a checked `Config` in, files and links out. Reads and writes nothing.
//!
//! The static udsd.socket is always the file's first socket and gets a drop-in; each further socket
//! has a unit of its own, since a unit has one FileDescriptorName=. Addresses are written with the
//! places of %t, %S and %L filled in: what udsd compares with is the address that the kernel tells,
//! and older user managers take %S for another folder.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::Scope;
use crate::{
    config::{Address, Config, Places, Socket, SocketType},
    error::Fault,
};

/// The unit of the file's first socket.
pub(super) const FIRST: &str = "udsd.socket";
/// Before every drop-in of the administrator: the later name wins (`systemd.unit(5)`).
const DROP_IN: &str = "00-udsd.conf";
/// User and group of the service, who own a socket where the file names nobody.
const OWNER: &str = "udsd";
/// Longest abstract name that a socket unit takes, in bytes: systemd counts the "@" among the 107 of
/// a path.
const ABSTRACT_NAME: usize = 106;
/// The folder below %t, %S and %L that is the service's own: RuntimeDirectory= and the like.
const OWN_FOLDER: &str = "udsd";
/// Folders of which PrivateTmp= gives the service one of its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// How long the manager waits for a stop by default (`systemd-system.conf(5)`, DefaultTimeoutStopSec=).
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// What a stop may take beside `drain-timeout`.
const STOP_SPARE: Duration = Duration::from_secs(30);

const HEADER: &str =
    "# Written by udsd-generator from udsd.toml, anew at each daemon-reload: edit that file.\n";

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
}

/// All that belongs into the generator's folder. `own_first`: udsd.socket is the administrator's own.
///
/// # Errors
/// Each value of the file that a unit cannot express.
pub(super) fn entries(
    config: &Config,
    places: &Places,
    scope: Scope,
    own_first: bool,
) -> Result<Vec<Entry>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut entries = Vec::new();
    let source = source(config);
    for (i, socket) in config.sockets.iter().enumerate() {
        if i == 0 && own_first {
            continue;
        }
        let keys = match socket_keys(socket, config, places, scope) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found);
                continue;
            }
        };
        if i > 0 {
            entries.extend(further_socket(
                socket,
                &source,
                &after(socket, config),
                &keys,
            ));
        } else {
            // One reset forgets the addresses of all types (`systemd.socket(5)`).
            let text = format!("{HEADER}[Unit]\n{source}\n[Socket]\nListenStream=\n{keys}");
            entries.push(Entry::text(format!("{FIRST}.d/{DROP_IN}"), text));
        }
    }
    match service(config, places, scope) {
        Ok(text) => entries.push(Entry::text(format!("udsd.service.d/{DROP_IN}"), text)),
        Err(found) => faults.extend(found),
    }
    if faults.is_empty() {
        Ok(entries)
    } else {
        Err(faults)
    }
}

/// The unit of the socket at place `i` of the file.
fn unit(i: usize, socket: &Socket) -> String {
    match i {
        0 => FIRST.into(),
        _ => format!("udsd-{}.socket", socket.name),
    }
}

/// SourcePath=, by which `systemctl` warns of a file that has changed since. A path that no unit can
/// hold is left out: nothing else depends on it.
fn source(config: &Config) -> String {
    let file = config.file.as_deref().and_then(Path::to_str);
    let file = file.and_then(|file| value(file).ok());
    file.map_or_else(String::new, |file| format!("SourcePath={file}\n"))
}

/// After=, of an abstract socket, all others that have files. A name is free once nobody has the socket
/// open, and while the manager gives files their owners it has processes that have all its sockets open:
/// at a restart this one is to be closed before that begins, and bound again after it.
fn after(socket: &Socket, config: &Config) -> String {
    let mut after = String::new();
    if matches!(socket.address, Address::Abstract(_)) {
        let others = config.sockets.iter().enumerate().skip(1);
        let others = others.filter(|(_, other)| matches!(other.address, Address::Path(_)));
        let others: Vec<String> = others.map(|(i, other)| unit(i, other)).collect();
        if !others.is_empty() {
            line(&mut after, "After", &others.join(" "));
        }
    }
    after
}

/// A unit like the static one, and the link by which udsd.socket brings it up.
fn further_socket(socket: &Socket, source: &str, after: &str, keys: &str) -> [Entry; 2] {
    let name = unit(1, socket);
    // The same start limit as udsd.socket has, for the same reason. Before=: who waits for
    // udsd.socket, as `systemctl restart` does, has waited for all.
    let text = format!(
        "{HEADER}[Unit]\n\
         Description=Message socket {} of udsd\n\
         Documentation=man:udsd(8) man:udsd.toml(5)\n\
         {source}\
         PartOf={FIRST}\n\
         Before={FIRST}\n\
         {after}\
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

/// Address, name, mode, owner and backlog, for the section [Socket].
fn socket_keys(
    socket: &Socket,
    config: &Config,
    places: &Places,
    scope: Scope,
) -> Result<String, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut fault = |key: &str, message: String| {
        let key = format!("socket.{}.{key}", socket.name);
        faults.push(config.fault(&key, message));
    };
    let mut keys = String::new();
    match address(&socket.address.in_unit(), places) {
        Ok(address) => line(&mut keys, listen_key(socket.kind), &address),
        Err(message) => fault("path", message),
    }
    line(&mut keys, "FileDescriptorName", &socket.name);
    if socket.kind == SocketType::Datagram {
        // Set before anyone can send, so that every datagram has its sender.
        line(&mut keys, "PassCredentials", &"yes");
    } else {
        line(&mut keys, "Backlog", &socket.backlog);
    }
    let file = matches!(socket.address, Address::Path(_));
    if file {
        line(&mut keys, "SocketMode", &format!("{:04o}", socket.mode));
    }
    for (key, name, account) in [
        ("SocketUser", "user", &socket.user),
        ("SocketGroup", "group", &socket.group),
    ] {
        match owner(account, scope) {
            // An abstract socket has no owner; empty, so that nobody is looked up either.
            Ok(_) if !file => line(&mut keys, key, &""),
            Ok(owner) => line(&mut keys, key, &owner),
            Err(message) => fault(name, message),
        }
    }
    if faults.is_empty() {
        Ok(keys)
    } else {
        Err(faults)
    }
}

fn line(out: &mut String, key: &str, value: &impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key}={value}");
}

/// The key that has the address.
fn listen_key(kind: SocketType) -> &'static str {
    match kind {
        SocketType::Stream => "ListenStream",
        SocketType::Seqpacket => "ListenSequentialPacket",
        SocketType::Datagram => "ListenDatagram",
    }
}

/// Value of that key.
fn address(address: &Address, places: &Places) -> Result<String, String> {
    match address {
        Address::Path(path) => {
            let own = places.runtime.join(OWN_FOLDER);
            if path.starts_with(&own) {
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

/// Value of SocketUser= or SocketGroup=. Names go in as they are: whether they exist, only the start
/// of the unit can tell.
fn owner(account: &str, scope: Scope) -> Result<String, String> {
    if account.is_empty() {
        // A user's sockets are their own without a word.
        let owner = if scope == Scope::System { OWNER } else { "" };
        return Ok(owner.into());
    }
    match account.parse::<u32>() {
        // What systemd reads as "no change" where numbers have 16 bits.
        Ok(65535) => Err("systemd refuses 65535 in a socket unit: write another number".into()),
        // Without zeros in front, which systemd refuses.
        Ok(number) => Ok(number.to_string()),
        Err(_) if [".", ".."].contains(&account) => Err(format!(
            "systemd refuses \"{account}\" in a socket unit: write a name as in `getent passwd`"
        )),
        Err(_) => value(account),
    }
}

/// The drop-in of the service.
fn service(config: &Config, places: &Places, scope: Scope) -> Result<String, Vec<Fault>> {
    let units = config.sockets.iter().enumerate();
    let units: Vec<String> = units.map(|(i, socket)| unit(i, socket)).collect();
    let units = units.join(" ");
    // Not Requires=: one socket that cannot be bound must cost only itself.
    let mut text = format!("{HEADER}[Unit]\n");
    for key in ["Wants", "PartOf", "After"] {
        line(&mut text, key, &units);
    }
    text += "\n[Service]\n";
    line(&mut text, "Sockets", &units);
    let drain = config.daemon.drain_timeout;
    if drain + STOP_SPARE > STOP_TIMEOUT {
        let seconds = (drain + STOP_SPARE).as_millis().div_ceil(1000);
        line(&mut text, "TimeoutStopSec", &seconds);
    }
    // A user's manager cannot protect the file system, so there is nothing to open up.
    if scope == Scope::System {
        for folder in record_folders(config, places)? {
            line(&mut text, "ReadWritePaths", &folder);
        }
    }
    Ok(text)
}

/// The folders of record files that the service may not write to by itself (ProtectSystem=strict),
/// each as a value of ReadWritePaths=. With "-": one that is missing must not keep the service from
/// starting with an error of systemd's, where udsd names file and key. Not RequiresMountsFor=: while
/// the mount failed, a waiting client would make the sockets run into their trigger limit.
fn record_folders(config: &Config, places: &Places) -> Result<BTreeSet<String>, Vec<Fault>> {
    let own = [&places.runtime, &places.state, &places.logs].map(|place| place.join(OWN_FOLDER));
    let mut faults = Vec::new();
    let mut folders = BTreeSet::new();
    for socket in &config.sockets {
        let Some(file) = socket.record.as_ref().and_then(|r| r.file.as_deref()) else {
            continue;
        };
        if let Some(folder) = TEMPORARY.iter().find(|folder| file.starts_with(folder)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let message = format!(
                "{folder} is the service's own (PrivateTmp=), and empty again once it stops: write a path below another folder, as \"%L/udsd/{name}\""
            );
            let key = format!("socket.{}.record.file", socket.name);
            faults.push(config.fault(&key, message));
            continue;
        }
        if own.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        // A file in "/" alone: the folder would open up everything.
        let folder = file.parent().filter(|folder| folder.parent().is_some());
        match word(&format!("-{}", folder.unwrap_or(file).to_string_lossy())) {
            Ok(folder) => {
                folders.insert(folder);
            }
            Err(message) => {
                let key = format!("socket.{}.record.file", socket.name);
                faults.push(config.fault(&key, message));
            }
        }
    }
    if faults.is_empty() {
        Ok(folders)
    } else {
        Err(faults)
    }
}

/// Text as the whole value of a key that is not split into words.
fn value(text: &str) -> Result<String, String> {
    let mut out = plain(text)?;
    // Blanks at the end are cut off and a backslash there joins lines. %i, the name of an instance,
    // is empty here and keeps both (`systemd.unit(5)`).
    if out.ends_with([' ', '\\']) {
        out += "%i";
    }
    Ok(out)
}

/// Text as one word of a list.
fn word(text: &str) -> Result<String, String> {
    let text = plain(text)?.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{text}\""))
}

/// A plain % is doubled. What a unit file cannot hold is refused: control characters, and the code
/// points that are no characters, which systemd does not take for UTF-8.
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
