//! Values that are right by themselves: which of them contradict each other, and which the daemon
//! does not have yet.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

use super::{
    Address, Config, Format, Record, ServiceKind, Socket, SocketType, faults::Faults,
    value::show_size,
};
use crate::frame::Framing;

/// Bytes of a JSON record, or of a stamped message, beside the message itself.
const STAMP: usize = 512;
/// Bytes that one byte of a message can become in JSON, or in text with its controls escaped.
const ESCAPED: usize = 6;

/// Reports every contradiction, and every value that is not available yet.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    // First, so that no remedy leads from one fault into the other.
    not_available_yet(config, faults);
    for socket in &config.sockets {
        contradictions(socket, faults);
    }
    limits(config, faults);
    shared_files(config, faults);
}

/// The contradictions inside one socket.
fn contradictions(socket: &Socket, faults: &mut Faults) {
    let kind = faults.setting("type", &socket.kind.to_string());
    let service = faults.setting("service", &socket.service.to_string());
    let framing = faults.setting("framing", &socket.framing.to_string());
    let mut judge = Judge {
        socket,
        faults,
        kind,
        service,
        framing,
    };
    judge.framing();
    judge.relay();
    judge.stamp_and_ack();
    judge.sizes();
    judge.record_size();
    judge.abstract_name();
}

/// One socket, and its choices as they were given.
struct Judge<'a> {
    socket: &'a Socket,
    faults: &'a mut Faults,
    kind: String,
    service: String,
    framing: String,
}

impl Judge<'_> {
    fn clash(&mut self, keys: [&str; 2], message: &str) {
        let keys = keys.map(|key| format!("socket.{}.{key}", self.socket.name));
        self.faults
            .clash(&keys.each_ref().map(String::as_str), message);
    }

    fn framing(&mut self) {
        let Self {
            socket,
            kind,
            service,
            framing,
            ..
        } = &*self;
        let (other, message) = match (socket.kind, socket.framing) {
            (SocketType::Stream, Framing::None) if socket.service == ServiceKind::Collect => {
                let message = "a record needs whole messages; use another framing, as lines";
                (
                    "service",
                    format!("{framing} contradicts {service}: {message}"),
                )
            }
            (SocketType::Stream, Framing::None) if socket.record.is_some() => {
                let message = "a record needs whole messages; use another framing, as lines";
                (
                    "record",
                    format!("{framing} contradicts the record table: {message}"),
                )
            }
            // A datagram under syslog loses its trailing LF and NUL.
            (SocketType::Stream, _)
            | (_, Framing::None)
            | (SocketType::Datagram, Framing::Syslog) => {
                return;
            }
            _ => {
                let message = "packets need no framing; leave it at none";
                ("type", format!("{framing} contradicts {kind}: {message}"))
            }
        };
        self.clash(["framing", other], &message);
    }

    fn relay(&mut self) {
        if self.socket.service == ServiceKind::Relay && self.socket.kind == SocketType::Datagram {
            let Self { kind, service, .. } = &*self;
            let message = "a relay needs connected clients; use stream or seqpacket";
            let message = format!("{service} contradicts {kind}: {message}");
            self.clash(["service", "type"], &message);
        }
    }

    fn stamp_and_ack(&mut self) {
        let socket = self.socket;
        let Self {
            kind,
            service,
            framing,
            ..
        } = &*self;
        let unfit = socket.kind == SocketType::Stream
            && matches!(
                socket.framing,
                Framing::None | Framing::Fixed(_) | Framing::CString(_)
            );
        let datagram = socket.kind == SocketType::Datagram;
        let (relay, collect) = (ServiceKind::Relay, ServiceKind::Collect);
        let form = "what udsd writes has no form there; use lines, nul, length-prefixed or syslog";
        let clashes = [
            ("stamp", socket.stamp && unfit, "framing", framing, form),
            ("ack", socket.ack && unfit, "framing", framing, form),
            (
                "ack",
                socket.ack && datagram,
                "type",
                kind,
                "an answer needs a connection; use stream or seqpacket",
            ),
            (
                "stamp",
                socket.stamp && socket.service != relay,
                "service",
                service,
                "relay alone stamps messages",
            ),
            (
                "ack",
                socket.ack && socket.service != collect,
                "service",
                service,
                "collect alone acknowledges messages",
            ),
        ];
        let clashes = clashes.map(|(key, wrong, other, setting, why)| {
            wrong.then(|| {
                (
                    [key, other],
                    format!("{key} = true contradicts {setting}: {why}"),
                )
            })
        });
        for (keys, message) in clashes.into_iter().flatten() {
            self.clash(keys, &message);
        }
    }

    fn message_size(&self) -> String {
        format!(
            "message-size = \"{}\"",
            show_size(self.socket.message_size as u64)
        )
    }

    fn sizes(&mut self) {
        let socket = self.socket;
        let (framing, message_size) = (self.framing.clone(), self.message_size());
        let counted = match socket.framing {
            Framing::Fixed(n) | Framing::CString(n) => Some(n),
            _ => None,
        };
        if counted.is_some_and(|n| n > socket.message_size) {
            let message = "its messages could never pass; raise message-size or lower N";
            let message = format!("{framing} is over {message_size}: {message}");
            self.clash(["framing", "message-size"], &message);
        }
        let largest = largest(socket);
        if socket.queue_size < largest {
            let (other, setting) = match counted {
                Some(_) if !socket.stamp => ("framing", framing),
                _ => ("message-size", message_size),
            };
            let stamped = if socket.stamp { ", stamped" } else { "" };
            let message = format!(
                "queue-size = \"{}\" cannot hold one message of {setting}{stamped}: write \"{}\" or more",
                show_size(socket.queue_size as u64),
                show_size(largest as u64)
            );
            self.clash(["queue-size", other], &message);
        }
    }

    fn record_size(&mut self) {
        let Some(record) = &self.socket.record else {
            return;
        };
        let largest = largest_record(record, self.socket.message_size);
        if record.queue_size < largest {
            let message = format!(
                "queue-size = \"{}\" of the record cannot hold one message of {} as {}: write \"{}\" or more",
                show_size(record.queue_size as u64),
                self.message_size(),
                record.format,
                show_size(largest as u64)
            );
            self.clash(["record.queue-size", "message-size"], &message);
        }
    }

    fn abstract_name(&mut self) {
        let Address::Abstract(_) = self.socket.address else {
            return;
        };
        for key in ["mode", "user", "group"] {
            if self
                .faults
                .given(&format!("socket.{}.{key}", self.socket.name))
            {
                let message = format!(
                    "{key} contradicts path = \"@...\": an abstract socket has no file; leave {key} out"
                );
                self.clash([key, "path"], &message);
            }
        }
    }
}

/// Bytes of the longest message as it waits in a queue.
fn largest(socket: &Socket) -> usize {
    match socket.kind {
        _ if socket.stamp => ESCAPED * socket.message_size + STAMP,
        SocketType::Stream => socket.framing.largest(socket.message_size),
        _ => socket.message_size,
    }
}

/// Bytes of the longest message as it waits for the disk.
fn largest_record(record: &Record, message_size: usize) -> usize {
    match record.format {
        Format::Json | Format::Text => ESCAPED * message_size + STAMP,
        Format::Raw => message_size + 1,
    }
}

/// As `endpoint` takes it.
fn lock_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// A file that two keys name would be written over, or keep a socket from being bound.
fn shared_files(config: &Config, faults: &mut Faults) {
    let control = config.daemon.control.as_deref();
    let control = control.map(|path| (Address::Path(path.into()), ("", "daemon.control".into())));
    let mut seen: BTreeMap<Address, (&str, String)> = control.into_iter().collect();
    for socket in &config.sockets {
        let path = format!("socket.{}.path", socket.name);
        let file = format!("socket.{}.record.file", socket.name);
        let lock = match &socket.address {
            Address::Path(path) => Some(Address::Path(lock_file(path))),
            Address::Abstract(_) => None,
        };
        let record = socket
            .record
            .as_ref()
            .and_then(|record| record.file.clone());
        let uses = [
            (Some(socket.address.clone()), "", path.clone()),
            (lock, "the lock file of ", path),
            (record.map(Address::Path), "", file),
        ];
        for (address, what, key) in uses {
            let Some(address) = address else { continue };
            match seen.entry(address) {
                Entry::Vacant(place) => {
                    place.insert((what, key));
                }
                Entry::Occupied(other) => {
                    let (other_what, other) = other.get();
                    // Two locks are one where the paths are, which is a fault already.
                    if !what.is_empty() && !other_what.is_empty() {
                        continue;
                    }
                    let this = if what.is_empty() { "" } else { "lock file " };
                    let remedy = if key.ends_with(".file") {
                        "give each record its own file"
                    } else {
                        "give each socket its own path"
                    };
                    let message = format!("{this}is {other_what}{other} too: {remedy}");
                    faults.clash(&[&key, other], &message);
                }
            }
        }
    }
}

/// A limit below another one that it would have to hold.
fn limits(config: &Config, faults: &mut Faults) {
    let (clients, per_user) = (config.limits.clients, config.limits.clients_per_user);
    if clients > 0 && per_user > clients {
        let message = format!(
            "clients-per-user = {per_user} is over clients = {clients}: lower it, or write 0 for half of them"
        );
        faults.clash(&["limits.clients-per-user", "limits.clients"], &message);
    }
    for socket in &config.sockets {
        if clients > 0 && socket.clients > clients {
            let message = format!(
                "clients = {} is over limits.clients = {clients}: lower it, or write 0 for all of them",
                socket.clients
            );
            let key = format!("socket.{}.clients", socket.name);
            faults.clash(&[&key, "limits.clients"], &message);
        }
    }
}

/// What the keys promise and the daemon does not have yet. A line goes when its feature comes.
fn not_available_yet(config: &Config, faults: &mut Faults) {
    let daemon = &config.daemon;
    let limits = (&config.limits, super::Limits::default());
    let default = Record::default();
    let queue_per_user = limits.0.queue_per_user != limits.1.queue_per_user;
    let queue_total = limits.0.queue_total != limits.1.queue_total;
    let mut refuse = |key: &str, used: bool, what: &str, instead: &str| {
        if used {
            faults.not_yet(
                key,
                &format!("{what} is not available yet: leave it {instead}"),
            );
        }
    };
    refuse(
        "daemon.control",
        daemon.control.is_some(),
        "a control socket",
        "at \"\"",
    );
    refuse(
        "daemon.exit-on-idle",
        daemon.exit_on_idle.is_some(),
        "exit-on-idle",
        "at \"never\"",
    );
    refuse(
        "limits.queue-per-user",
        queue_per_user,
        "queue-per-user",
        "at \"64MiB\"",
    );
    refuse(
        "limits.queue-total",
        queue_total,
        "queue-total",
        "at \"512MiB\"",
    );
    for socket in &config.sockets {
        let record = socket.record.as_ref().unwrap_or(&default);
        let (kind, relay) = (socket.kind, socket.service == ServiceKind::Relay);
        let packets = format!("type {kind}");
        for (name, used, what, instead) in [
            (
                "type",
                kind != SocketType::Stream,
                packets.as_str(),
                "at stream",
            ),
            (
                "allow-users",
                !socket.allow_users.is_empty(),
                "allow-users",
                "at []",
            ),
            (
                "allow-groups",
                !socket.allow_groups.is_empty(),
                "allow-groups",
                "at []",
            ),
            ("service", relay, "service relay", "at echo or collect"),
            ("stamp", socket.stamp, "stamp", "at false"),
            ("ack", socket.ack, "ack", "at false"),
            ("record.sync", record.sync, "sync", "at false"),
            (
                "record.rotate-size",
                record.rotate_size != default.rotate_size,
                "rotate-size",
                "at \"64MiB\"",
            ),
            ("record.keep", record.keep != default.keep, "keep", "at 8"),
        ] {
            refuse(
                &format!("socket.{}.{name}", socket.name),
                used,
                what,
                instead,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    /// Of what is not available yet, `check` does not come as far as its contradictions.
    #[test]
    fn what_is_not_available_yet_has_its_contradictions() {
        for (kind, service, framing, stamp, ack, words) in [
            (
                "datagram",
                "relay",
                "none",
                false,
                false,
                "service = \"relay\" contradicts type = \"datagram\"",
            ),
            (
                "seqpacket",
                "echo",
                "lines",
                false,
                false,
                "framing = \"lines\" contradicts type = \"seqpacket\"",
            ),
            (
                "stream",
                "relay",
                "none",
                true,
                false,
                "stamp = true contradicts framing = \"none\"",
            ),
            (
                "stream",
                "echo",
                "lines",
                true,
                false,
                "stamp = true contradicts service = \"echo\"",
            ),
            (
                "stream",
                "collect",
                "cstring:9",
                false,
                true,
                "ack = true contradicts framing = \"cstring:9\"",
            ),
            (
                "datagram",
                "collect",
                "none",
                false,
                true,
                "ack = true contradicts type = \"datagram\"",
            ),
            (
                "stream",
                "echo",
                "lines",
                false,
                true,
                "ack = true contradicts service = \"echo\"",
            ),
        ] {
            let mut socket = Socket::new("a".into(), Address::Abstract(b"a".into()));
            socket.kind = kind.parse().unwrap();
            socket.service = service.parse().unwrap();
            socket.framing = framing.parse().unwrap();
            (socket.stamp, socket.ack) = (stamp, ack);
            let mut faults = Faults::of_file(None, BTreeMap::new());
            contradictions(&socket, &mut faults);
            let found = faults.verdict().unwrap_err();
            assert!(
                found.len() == 1 && found[0].message.starts_with(words),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_stamped_message_needs_six_bytes_for_one() {
        let mut socket = Socket::new("a".into(), Address::Abstract(b"a".into()));
        (socket.stamp, socket.message_size) = (true, 100);
        assert_eq!(largest(&socket), 1112);
    }
}
