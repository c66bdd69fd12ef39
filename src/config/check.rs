//! Judges values that could be read: which of them make no sense, and which contradict each other. What is refused
//! stays in the `Config` as it was given: an earlier version may have served by it.

use std::collections::BTreeMap;

use super::{
    Address, Config, Format, OnFull, Parse, ServiceKind, Socket, SocketType,
    diagnostics::Diagnostics, keys, value::show_size,
};
use crate::{frame::Framing, lock};

/// Bytes of the longest packet. Linux allocates one whole (`sock_alloc_send_pskb`: what kmalloc has
/// in one piece, 4 MiB, and 64 KiB of pages): a longer one fails with ENOBUFS whatever SO_SNDBUF is.
const PACKET: usize = 4 << 20;

/// Reports every contradiction.
pub(super) fn check(config: &Config, faults: &mut Diagnostics) {
    for socket in &config.sockets {
        let mut check = SocketCheck { socket, faults };
        check.modes();
        check.contradictions();
        check.sizes();
        check.history_size();
        check.record_size();
    }
    limits(config, faults);
    shared_files(config, faults);
}

const WHOLE: &str = "a record needs whole messages; use another framing, as lines";
const PACKETS: &str = "packets need no framing; leave it at none";
const CONNECTED: &str = "a relay needs connected clients; use stream or seqpacket";
const FORM: &str =
    "what udsd writes does not fit this framing; use lines, nul, length-prefixed or syslog";
const ANSWER: &str = "an answer needs a connection; use stream or seqpacket";
const ADDRESS: &str = "only an echo of datagrams answers addresses";
const LAST: &str = "relay alone keeps a history";
const MESSAGES: &str = "a history needs whole messages; use another framing, as lines";
const RELAY: &str = "relay alone stamps messages";
const DISK: &str = "only of a file it is known what the disk has; name one";
const COLLECT: &str = "collect alone acknowledges messages";
const SEGMENTS: &str = "only a file has segments; name one";
const STORED: &str = "what is dropped is never stored; leave one of them out";
const FIELDS: &str = "a line of JSON alone has fields; leave one of them out";
const FILE: &str = "an abstract socket has no file; leave it out";

/// Checks one socket.
struct SocketCheck<'a> {
    socket: &'a Socket,
    faults: &'a mut Diagnostics,
}

impl SocketCheck<'_> {
    /// Modes by which nobody connects, or that give the owner less than others.
    fn modes(&mut self) {
        let mode = self.socket.mode;
        if mode & 0o222 == 0 {
            let message = format!(
                "\"{mode:04o}\" lets nobody connect, since that needs the right to write: write \"0600\", or wider for others"
            );
            self.faults.invalid(&whole(self.socket, "mode"), &message);
        } else {
            self.owner("mode", mode);
        }
        if let Some(record) = &self.socket.record {
            self.owner("record.mode", record.mode);
        }
    }

    /// The owner must have all rights that others have, and the right to write: anything else is a slip, as "0066"
    /// for "0660".
    fn owner(&mut self, key: &str, mode: u32) {
        let (owner, group, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
        let needed = group | others | 2;
        if needed & !owner != 0 {
            let right = (owner | needed) << 6 | group << 3 | others;
            let message = format!(
                "\"{mode:04o}\" gives the owner less than others, or not the right to write: write \"{right:04o}\""
            );
            self.faults.invalid(&whole(self.socket, key), &message);
        }
    }

    fn contradictions(&mut self) {
        let socket = self.socket;
        let stream = socket.kind == SocketType::Stream;
        let datagram = socket.kind == SocketType::Datagram;
        let relay = socket.service == ServiceKind::Relay;
        let collect = socket.service == ServiceKind::Collect;
        let echo = socket.service == ServiceKind::Echo;
        let (stamp, ack, answer) = (socket.stamp, socket.ack, socket.answer_abstract);
        let history = socket.history > 0;
        let (bytes, unfit, syslog) = match socket.framing {
            Framing::None => (true, stream, false),
            Framing::Fixed(_) | Framing::CString(_) => (false, stream, false),
            framing => (false, false, framing == Framing::Syslog),
        };
        let record = socket.record.as_ref();
        let parses = record.is_some_and(|of| of.parse != Parse::None && of.format != Format::Json);
        let has_file = record.is_some_and(|record| record.file.is_some());
        let drops = record.is_some_and(|record| record.on_full == OnFull::Drop);
        let bytes_to_record = stream && bytes && socket.record.is_some();
        // A datagram under syslog loses its trailing LF and NUL.
        let unframed = bytes || datagram && syslog;
        for (wrong, key, other, why) in [
            (bytes_to_record && collect, "framing", "service", WHOLE),
            (bytes_to_record && !collect, "framing", "record", WHOLE),
            (!stream && !unframed, "framing", "type", PACKETS),
            (relay && datagram, "service", "type", CONNECTED),
            (stamp && unfit, "stamp", "framing", FORM),
            (ack && unfit, "ack", "framing", FORM),
            (ack && datagram, "ack", "type", ANSWER),
            (stamp && !relay, "stamp", "service", RELAY),
            (history && !relay, "history", "service", LAST),
            (
                history && relay && stream && bytes,
                "history",
                "framing",
                MESSAGES,
            ),
            (answer && !datagram, "answer-abstract", "type", ADDRESS),
            (answer && !echo, "answer-abstract", "service", ADDRESS),
            (ack && !collect, "ack", "service", COLLECT),
            (ack && !has_file, "ack", "record.file", DISK),
            (ack && drops, "ack", "record.on-full", STORED),
            (parses, "record.parse", "record.format", FIELDS),
        ] {
            if wrong {
                self.contradicts(key, other, why);
            }
        }
        if let Address::Abstract(_) = socket.address {
            for key in keys::SOCKET.keys().filter(|key| key.is_of_file()) {
                if self.faults.given(&whole(socket, key.name)) {
                    self.contradicts(key.name, "path", FILE);
                }
            }
        }
    }

    fn contradicts(&mut self, key: &str, other: &str, why: &str) {
        let (this, that) = (self.setting(key), self.setting(other));
        self.clash([key, other], &format!("{this} contradicts {that}: {why}"));
    }

    fn clash(&mut self, keys: [&str; 2], message: &str) {
        let [key, other] = keys.map(|key| whole(self.socket, key));
        self.faults.clash(&[&key, &other], message);
    }

    /// A key and its value, as the file or the command line writes them.
    fn setting(&self, key: &str) -> String {
        match keys::value_of(self.socket, key) {
            Some(value) => self.faults.setting(&whole(self.socket, key), &value),
            None => format!("the {key} table"),
        }
    }

    fn sizes(&mut self) {
        let socket = self.socket;
        let framing = self.setting("framing");
        let message_size = self.setting("message-size");
        let counted = match socket.framing {
            Framing::Fixed(n) | Framing::CString(n) => Some(n),
            _ => None,
        };
        if counted.is_some_and(|n| n > socket.message_size) {
            let message = format!(
                "{framing} is over {message_size}: its messages could never pass; raise message-size or lower N"
            );
            self.clash(["framing", "message-size"], &message);
        }
        let packets = socket.kind == SocketType::Seqpacket;
        let stamped = if socket.stamp { ", stamped" } else { "" };
        if packets && socket.longest_sent() > PACKET {
            let message = format!(
                "{message_size}{stamped} contradicts {}: a packet holds at most {}; lower message-size, or use stream",
                self.setting("type"),
                show_size(PACKET as u64)
            );
            self.clash(["message-size", "type"], &message);
        }
        let largest = largest(socket);
        if socket.queue_size < largest {
            let (other, of) = match counted {
                Some(_) if !socket.stamp => ("framing", framing),
                _ => ("message-size", message_size),
            };
            let prefixed = match packets && !socket.stamp {
                true => ", which waits with 4 bytes of its length",
                false => "",
            };
            let message = format!(
                "{} cannot hold one message of {of}{stamped}{prefixed}: write \"{}\" or more",
                self.setting("queue-size"),
                show_size(largest as u64)
            );
            self.clash(["queue-size", other], &message);
        }
    }

    fn history_size(&mut self) {
        let socket = self.socket;
        if socket.history > 0 && socket.history_size > socket.queue_size / 2 {
            let message = format!(
                "{} is over half of {}: who comes could be sent nothing else; write \"{}\" or less, or raise queue-size",
                self.setting("history-size"),
                self.setting("queue-size"),
                show_size(socket.queue_size as u64 / 2)
            );
            self.clash(["history-size", "queue-size"], &message);
        }
    }

    fn record_size(&mut self) {
        let Some(record) = &self.socket.record else {
            return;
        };
        let rotates = [
            (record.rotate_size.is_some(), "record.rotate-size"),
            (record.rotate_age.is_some(), "record.rotate-age"),
        ];
        for (is_set, key) in rotates {
            if is_set && record.file.is_none() {
                self.contradicts(key, "record.file", SEGMENTS);
            }
        }
        if record.sync && record.file.is_none() {
            self.contradicts("record.sync", "record.file", DISK);
        }
        let largest = record
            .format
            .longest(record.parse, self.socket.message_size);
        if record.queue_size < largest {
            let fields = match record.parse {
                Parse::None => "",
                Parse::Syslog => " with fields",
            };
            let message = format!(
                "queue-size = \"{}\" of the record cannot hold one message of {} as {}{fields}: write \"{}\" or more",
                show_size(record.queue_size as u64),
                self.setting("message-size"),
                record.format,
                show_size(largest as u64)
            );
            self.clash(["record.queue-size", "message-size"], &message);
        }
    }
}

/// The whole name of a key of `socket`.
fn whole(socket: &Socket, key: &str) -> String {
    format!("socket.{}.{key}", socket.name)
}

/// Bytes of the longest message as it waits in a queue.
fn largest(socket: &Socket) -> usize {
    match socket.kind {
        _ if socket.stamp => Format::Json.longest(Parse::None, socket.message_size),
        SocketType::Stream => socket.framing.largest(socket.message_size),
        SocketType::Seqpacket => Framing::LengthPrefixed.largest(socket.message_size),
        SocketType::Datagram => socket.message_size,
    }
}

impl Config {
    /// The least of `queue-per-user` and `queue-total` with which the longest message can pass, in bytes: it waits
    /// once as it comes and once as it goes.
    #[must_use]
    pub fn least_queue(&self) -> usize {
        2 * self.sockets.iter().map(largest).max().unwrap_or(0)
    }
}

impl Socket {
    /// Bytes of the longest message that a client can be sent, without its framing.
    #[must_use]
    pub fn longest_sent(&self) -> usize {
        if self.stamp {
            Format::Json.longest(Parse::None, self.message_size)
        } else {
            self.message_size
        }
    }
}

/// A file that two keys name would be written over, or keep a socket from being bound.
fn shared_files(config: &Config, faults: &mut Diagnostics) {
    let mut seen: BTreeMap<Address, Taken> = BTreeMap::new();
    for this in taken(config) {
        let Some(other) = seen.get(&this.address) else {
            seen.insert(this.address.clone(), this);
            continue;
        };
        // Two locks are one where the paths are, which is a fault already.
        if this.is_lock && other.is_lock || this.record.is_some() && this.record == other.record {
            continue;
        }
        let lock = if this.is_lock { "lock file " } else { "" };
        let of = match other.is_lock {
            true => "the lock file of ",
            false => "",
        };
        let own = match (this.record, other.record) {
            (Some(_), Some(_)) => {
                "write the same in both record tables, or give each record its own file"
            }
            _ if this.key.ends_with(".file") => "give each record its own file",
            _ => "give each socket its own path",
        };
        let message = format!("{lock}is {of}{} too: {own}", other.key);
        faults.clash(&[&this.key, &other.key], &message);
    }
}

/// An address or a file that udsd takes.
struct Taken<'a> {
    address: Address,
    is_lock: bool,
    /// The whole name of the key that names it, or the file that it locks.
    key: String,
    /// The table, where it is a record: sockets whose tables are equal share it.
    record: Option<&'a super::Record>,
}

/// All addresses and files that udsd takes.
fn taken(config: &Config) -> Vec<Taken<'_>> {
    let mut all = Vec::new();
    let mut take = |address, is_lock, key, record| {
        all.push(Taken {
            address,
            is_lock,
            key,
            record,
        });
    };
    if let Some(path) = &config.daemon.control {
        take(
            Address::Path(path.clone()),
            false,
            "daemon.control".into(),
            None,
        );
    }
    for socket in &config.sockets {
        let key = whole(socket, "path");
        take(socket.address.clone(), false, key.clone(), None);
        if let Address::Path(path) = &socket.address {
            take(Address::Path(lock::of_socket(path)), true, key, None);
        }
        if let Some(record) = &socket.record
            && let Some(file) = record.file.as_deref()
        {
            let key = whole(socket, "record.file");
            take(Address::Path(file.into()), false, key.clone(), Some(record));
            take(Address::Path(lock::of_record(file)), true, key, None);
        }
    }
    all
}

/// A limit below another one, or below what it would have to hold.
fn limits(config: &Config, faults: &mut Diagnostics) {
    let queues = [
        ("queue-per-user", config.limits.queue_per_user),
        ("queue-total", config.limits.queue_total),
    ];
    for (key, limit) in queues {
        let largest = |socket: &&Socket| largest(socket);
        if let Some(socket) = config.sockets.iter().max_by_key(largest)
            && let needed = 2 * largest(&socket)
            && limit < needed
        {
            let stamped = if socket.stamp { ", stamped" } else { "" };
            let message = format!(
                "{key} = \"{}\" cannot hold one message of socket.{}.message-size = \"{}\"{stamped} as it comes and as it goes: write \"{}\" or more",
                show_size(limit as u64),
                socket.name,
                show_size(socket.message_size as u64),
                show_size(needed as u64)
            );
            let other = whole(socket, "message-size");
            faults.clash(&[&format!("limits.{key}"), &other], &message);
        }
    }
    let per_user = config.limits.clients_per_user;
    let per_user = ("limits.clients-per-user".into(), per_user, "half");
    let sockets = config.sockets.iter();
    let sockets = sockets.map(|socket| (whole(socket, "clients"), socket.clients, "all"));
    let most = config.limits.clients;
    for (key, clients, part) in [per_user].into_iter().chain(sockets) {
        if most > 0 && clients > most {
            let setting = faults.setting(&key, &(clients as i64).into());
            let message = format!(
                "{setting} is over limits.clients = {most}: lower it, or write 0 for {part} of them"
            );
            faults.clash(&[&key, "limits.clients"], &message);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::{
        super::{Origin, Record},
        *,
    };

    #[test]
    fn keys_that_contradict_each_other_are_named() {
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
            (
                "stream",
                "collect",
                "lines",
                false,
                true,
                "ack = true contradicts on-full = \"drop\"",
            ),
        ] {
            let mut socket = Socket::new("a".into(), Address::Abstract(b"a".into()));
            let on_full = match words.contains("on-full") {
                true => OnFull::Drop,
                false => OnFull::Wait,
            };
            socket.record = ack.then(|| Record {
                file: Some("/record".into()),
                on_full,
                ..Record::default()
            });
            socket.kind = kind.parse().unwrap();
            socket.service = service.parse().unwrap();
            socket.framing = framing.parse().unwrap();
            (socket.stamp, socket.ack) = (stamp, ack);
            let mut faults = Diagnostics::of_files(Origin::default(), Vec::new());
            let mut check = SocketCheck {
                socket: &socket,
                faults: &mut faults,
            };
            check.contradictions();
            check.sizes();
            let (found, _) = faults.found();
            assert!(
                found.len() == 1 && found[0].message.starts_with(words),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_control_socket_has_a_path_of_its_own() {
        let address = Address::Path("/run/a.sock".into());
        let mut config = Config {
            sockets: vec![Socket::new("a".into(), address)],
            ..Config::default()
        };
        for (control, words) in [
            ("/run/a.sock", "is daemon.control too"),
            ("/run/a.sock.lock", "lock file is daemon.control too"),
        ] {
            config.daemon.control = Some(control.into());
            let mut faults = Diagnostics::of_files(Origin::default(), Vec::new());
            shared_files(&config, &mut faults);
            let (found, _) = faults.found();
            assert!(
                found.len() == 1 && found[0].message.starts_with(words),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_stamped_message_needs_eight_bytes_for_one() {
        let mut socket = Socket::new("a".into(), Address::Abstract(b"a".into()));
        (socket.stamp, socket.message_size) = (true, 100);
        assert_eq!(largest(&socket), 1312);
    }
}
