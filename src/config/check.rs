//! Values that are right by themselves: which of them contradict each other, and which the daemon
//! does not have yet.

use std::path::Path;

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
    for socket in &config.sockets {
        contradictions(socket, faults);
    }
    shared_paths(config, faults);
    shared_records(config, faults);
    not_available_yet(config, faults);
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

fn shared_paths(config: &Config, faults: &mut Faults) {
    for (i, socket) in config.sockets.iter().enumerate() {
        let key = format!("socket.{}.path", socket.name);
        let same = |other: &&Socket| other.address == socket.address;
        for other in config.sockets[..i].iter().filter(same) {
            let other = format!("socket.{}.path", other.name);
            let message = format!("is the path of {other} too: give each socket its own");
            faults.clash(&[&key, &other], &message);
        }
        let Address::Path(path) = &socket.address else {
            continue;
        };
        if config.daemon.control.as_ref() == Some(path) {
            let message = "is the path of daemon.control too: give each socket its own";
            faults.clash(&[&key, "daemon.control"], message);
        }
    }
}

fn shared_records(config: &Config, faults: &mut Faults) {
    let mut seen: Vec<(&Path, String)> = Vec::new();
    for socket in &config.sockets {
        let Some(file) = socket
            .record
            .as_ref()
            .and_then(|record| record.file.as_deref())
        else {
            continue;
        };
        let key = format!("socket.{}.record.file", socket.name);
        if let Some((_, other)) = seen.iter().find(|(other, _)| *other == file) {
            let message = format!("is {other} too: give each record its own file");
            faults.clash(&[&key, other], &message);
        }
        let address = Address::Path(file.into());
        if let Some(other) = config.sockets.iter().find(|other| other.address == address) {
            let other = format!("socket.{}.path", other.name);
            let message = format!("is {other} too: a record cannot be written into a socket");
            faults.clash(&[&key, &other], &message);
        }
        seen.push((file, key));
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
