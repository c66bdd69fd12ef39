//! The log lines that clients of a socket can cause: one for each event of a client's life and for each loss, all
//! of a kind at a limited rate, each with the client, its sender, and the key that decides. What has a counter is
//! counted here too, whether the line is written or left out.

use std::time::Instant;

use super::{
    Now, Socket,
    log_rates::Kind,
    socket::{Loss, Rules},
};
use crate::{
    config::SlowClient,
    connection::{Connection, Stream},
    counters::Counters,
    error::Close,
    frame::Framing,
    input::{Announced, TooLong},
    limits::{Limits, Over, OverKey, OverQuota, Quota},
    peer::{ClientId, Peer},
    record::{Full, Gap},
};

impl Socket {
    /// Writes a line of so many events if its kind may have one now, and says what was left out before.
    pub(super) fn write(
        &mut self,
        kind: Kind,
        events: u64,
        now: Now,
        line: impl FnOnce(&Socket) -> String,
    ) {
        if let Some(left_out) = self.lines.pass(kind, events, now.instant) {
            let line = line(self);
            self.lines
                .tell(kind, left_out, &self.name, line, now.instant);
        }
    }

    /// As `Lines::tell_left_out`.
    pub(super) fn tell_left_out(&mut self, now: Option<Instant>) {
        self.lines.tell_left_out(&self.name, now);
    }

    /// The last line of each kind that the log had of this socket, but for clients that came and went: when something
    /// of its kind last happened, what lines of its kind tell of, and the line.
    pub fn last_lines(&self) -> impl Iterator<Item = (Instant, &'static str, &str)> {
        self.lines.last()
    }

    pub(super) fn entered(&mut self, id: ClientId, peer: &Peer, now: Now) {
        self.write(Kind::Entered, 1, now, |_| {
            format!("client {id} ({peer}) connected")
        });
    }

    /// `what`: a client, or a datagram.
    pub(super) fn denied(&mut self, what: &str, peer: &Peer, now: Now) {
        self.counters.refused_access += 1;
        self.write(Kind::Denied, 1, now, |socket| {
            let name = &socket.name;
            match socket.is_control() {
                true => format!(
                    "refused {what} ({peer}): not in daemon.control-users or daemon.control-groups"
                ),
                false => format!(
                    "refused {what} ({peer}): not in socket.{name}.allow-users or allow-groups"
                ),
            }
        });
    }

    pub(super) fn refused(&mut self, peer: &Peer, over: Over, now: Now) {
        let counters = &mut self.counters;
        *match over.key {
            OverKey::Daemon => &mut counters.refused_clients,
            OverKey::Share { .. } => &mut counters.refused_share,
            OverKey::User => &mut counters.refused_clients_per_user,
            OverKey::Socket => &mut counters.refused_socket_clients,
            OverKey::Files => &mut counters.refused_open_files,
        } += 1;
        let limit = over.limit;
        self.write(Kind::Refused, 1, now, |socket| {
            let name = &socket.name;
            let why = match over.key {
                OverKey::Daemon | OverKey::Share { .. } | OverKey::User if socket.is_control() => {
                    format!("{} may ask at once", Limits::of_control())
                }
                OverKey::Daemon => format!("{limit} clients are here, limits.clients = {limit}"),
                OverKey::Share { own, free } => format!(
                    "its user has {own} clients here, and {free} more may come: the last sixteenth of limits.clients = {limit} is for users who have less"
                ),
                OverKey::User => {
                    format!("its user has {limit} clients here, limits.clients-per-user = {limit}")
                }
                OverKey::Socket => {
                    format!("this socket has {limit} clients, socket.{name}.clients = {limit}")
                }
                OverKey::Files => format!(
                    "out of descriptors, limit of open files = {limit}; raise LimitNOFILE= or lower limits.clients"
                ),
            };
            format!("refused a client ({peer}): {why}")
        });
    }

    pub(super) fn closed(
        &mut self,
        (id, peer): (ClientId, &Peer),
        reason: &Close,
        loss: &Loss,
        now: Now,
    ) {
        self.count_closed(reason, loss);
        let ordinary = match reason {
            Close::Done => !loss.unfinished && loss.untaken == 0,
            // It did not wait for its own answers.
            Close::HangUp => !loss.unfinished,
            Close::Stopping | Close::Changed(_) => loss.is_none(),
            _ => false,
        };
        let kind = if ordinary { Kind::Left } else { Kind::Closed };
        self.write(kind, 1, now, |socket| {
            let why = why(socket, reason);
            format!("client {id} ({peer}) closed: {why}; {loss}")
        });
    }

    fn count_closed(&mut self, reason: &Close, loss: &Loss) {
        let counters = &mut self.counters;
        counters.unread += loss.unread as u64;
        counters.undelivered += loss.undelivered as u64;
        counters.untaken += loss.untaken;
        counters.unfinished += u64::from(loss.unfinished);
        *match reason {
            Close::Done | Close::HangUp | Close::Stopping | Close::Changed(_) => return,
            Close::Idle => &mut counters.closed_idle_timeout,
            Close::MessageTooLong { .. } => {
                counters.oversized += 1;
                &mut counters.closed_message_size
            }
            Close::SlowReader { .. } => match self.rules.slow_client {
                SlowClient::Disconnect => &mut counters.closed_slow_client,
                SlowClient::Wait | SlowClient::Drop => &mut counters.closed_slow_timeout,
            },
            Close::OverQuota(over) => match over.quota {
                Quota::PerUser => &mut counters.closed_queue_per_user,
                Quota::Total => &mut counters.closed_queue_total,
            },
            Close::Disconnected => &mut counters.closed_disconnected,
            Close::Io(_) => &mut counters.closed_error,
        } += 1;
    }

    /// `over`: the limit that was in the way, where it was not the client's queue.
    pub(super) fn dropped<S>(
        &mut self,
        client: &Connection<S>,
        messages: u64,
        over: Option<OverQuota>,
        now: Now,
    ) {
        let counters = &mut self.counters;
        *match over {
            None => &mut counters.dropped_queue_size,
            Some(over) => counters.dropped_for(over.quota),
        } += messages;
        let Connection { id, peer, .. } = client;
        self.write(Kind::Dropped, messages, now, |socket| {
            let why = match over {
                None => {
                    let (name, limit) = (&socket.name, socket.rules.queue_size);
                    format!("its queue is full, socket.{name}.queue-size = {limit} bytes")
                }
                Some(over) => format!("no room for them, {over}"),
            };
            format!("dropped {messages} messages for client {id} ({peer}): {why}")
        });
    }

    /// The record went without these messages.
    pub(super) fn unrecorded(&mut self, gap: Gap, why: Full, now: Now) {
        self.counters.unrecorded += gap.count;
        self.write(Kind::Unrecorded, gap.count, now, |socket| {
            let (name, Gap { count, bytes }) = (&socket.name, gap);
            let why = match why {
                Full::NotOpen => "it is not open".into(),
                Full::Queue(limit) => {
                    format!("its queue is full, socket.{name}.record.queue-size = {limit} bytes")
                }
            };
            format!("dropped {count} messages of {bytes} bytes for the record: {why}")
        });
    }

    pub(super) fn stalled<S>(&mut self, client: &Connection<S>, now: Now) {
        let Connection { id, peer, .. } = client;
        let waiting = client.queue.len();
        self.write(Kind::Stalled, 1, now, |socket| {
            let (name, timeout) = (&socket.name, socket.rules.slow_timeout);
            format!(
                "client {id} ({peer}) does not read and holds up the others: {waiting} bytes wait for it; closed after socket.{name}.slow-timeout = {timeout:?}"
            )
        });
    }

    pub(super) fn waits_for_quota<S>(&mut self, client: &Connection<S>, over: OverQuota, now: Now) {
        let Connection { id, peer, .. } = client;
        self.write(Kind::AwaitsQuota, 1, now, |socket| {
            let (name, timeout) = (&socket.name, socket.rules.slow_timeout);
            format!(
                "client {id} ({peer}) waits for room under {over}; closed after socket.{name}.slow-timeout = {timeout:?}"
            )
        });
    }

    /// A receiver takes nothing more.
    pub(super) fn write_side_shut<S: Stream>(&mut self, client: &Connection<S>, now: Now) {
        let Connection { id, peer, .. } = client;
        let undelivered = client.queue.len();
        self.counters.undelivered += undelivered as u64;
        if !client.is_owed() {
            return;
        }
        self.write(Kind::Closed, 1, now, |_| {
            format!(
                "client {id} ({peer}) hung up on what it was owed: {undelivered} bytes undelivered"
            )
        });
    }

    pub(super) fn truncated(&mut self, id: ClientId, peer: &Peer, messages: u64, now: Now) {
        self.counters.truncated += messages;
        self.write(Kind::Truncated, messages, now, |socket| {
            let (name, limit) = (&socket.name, socket.rules.input.message_size);
            format!(
                "kept the first part of {messages} messages of client {id} ({peer}): socket.{name}.message-size = {limit} bytes"
            )
        });
    }

    /// Told when the length is seen: what it counts may be long in coming, or never come.
    pub(super) fn announced(
        &mut self,
        (id, peer): (ClientId, &Peer),
        announced: &Announced,
        now: Now,
    ) {
        let Announced { length, prefix } = announced;
        self.write(Kind::Announced, 1, now, |socket| {
            let (name, limit) = (&socket.name, socket.rules.input.message_size);
            let bytes: Vec<String> = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
            let hint = match <[u8; 4]>::try_from(prefix.as_slice()).map(u32::from_le_bytes) {
                Ok(other) if socket.rules.input.framing == Framing::LengthPrefixed && other as usize <= limit => {
                    format!("; from the other end they would be {other}: lengths here are big-endian")
                }
                _ => String::new(),
            };
            let then = match socket.rules.input.too_long {
                TooLong::Keep => "its first part is kept, and the rest passed over",
                TooLong::Close | TooLong::Refuse => "the client is closed",
            };
            format!(
                "client {id} ({peer}) begins a message of {length} bytes, as its first bytes say ({}){hint}; socket.{name}.message-size = {limit} bytes, so {then}",
                bytes.join(" ")
            )
        });
    }

    pub(super) fn oversized(&mut self, id: ClientId, peer: &Peer, messages: u64, now: Now) {
        self.counters.oversized += messages;
        self.write(Kind::Oversized, messages, now, |socket| {
            let (name, limit) = (&socket.name, socket.rules.input.message_size);
            format!(
                "refused {messages} messages of client {id} ({peer}): too long, socket.{name}.message-size = {limit} bytes"
            )
        });
    }
}

impl Counters {
    /// Messages dropped because so much was held already.
    pub(super) fn dropped_for(&mut self, quota: Quota) -> &mut u64 {
        match quota {
            Quota::PerUser => &mut self.dropped_queue_per_user,
            Quota::Total => &mut self.dropped_queue_total,
        }
    }
}

/// Why a client is closed, with the key that decides.
fn why(socket: &Socket, reason: &Close) -> String {
    let Socket { name, rules, .. } = socket;
    let Rules {
        queue_size,
        slow_client,
        slow_timeout,
        idle_timeout,
        ..
    } = rules;
    match reason {
        Close::Idle => {
            let span = idle_timeout.unwrap_or_default();
            match socket.is_control() {
                true => format!("silent for {span:?}, and waits for no answer"),
                false => format!("silent for socket.{name}.idle-timeout = {span:?}"),
            }
        }
        Close::MessageTooLong { limit } if socket.is_control() => {
            format!("sent a call longer than {limit} bytes")
        }
        Close::MessageTooLong { limit } => {
            format!("sent a message longer than socket.{name}.message-size = {limit} bytes")
        }
        Close::SlowReader { waiting } if *slow_client == SlowClient::Disconnect => format!(
            "did not read: {waiting} bytes waited, socket.{name}.queue-size = {queue_size} bytes, slow-client = \"disconnect\""
        ),
        Close::SlowReader { waiting } => format!(
            "did not read: took less than half of socket.{name}.queue-size = {queue_size} bytes in socket.{name}.slow-timeout = {slow_timeout:?}, {waiting} bytes waited"
        ),
        other => other.to_string(),
    }
}
