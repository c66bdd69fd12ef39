//! The log lines that clients of a socket can cause: one for each event of a client's life and for each loss, all
//! of a kind at a limited rate, each with the client, its sender, and the key that decides.

use std::time::Instant;

use log::{Level, log};

use super::{Socket, socket::Loss};
use crate::{
    config::SlowClient,
    connection::Connection,
    error::Close,
    limits::{Over, OverKey},
    peer::{ClientId, Peer},
    throttle::Throttle,
};

/// The rates of all kinds of lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    entered: Throttle,
    left: Throttle,
    denied: Throttle,
    refused: Throttle,
    closed: Throttle,
    dropped: Throttle,
    truncated: Throttle,
    stalled: Throttle,
    starved: Throttle,
    oversized: Throttle,
}

impl Lines {
    pub(super) fn entered(&mut self, socket: &Socket, id: ClientId, peer: &Peer, now: Instant) {
        let name = &socket.name;
        write(&mut self.entered, Level::Debug, now, || {
            format!("{name}: client {id} ({peer}) connected")
        });
    }

    /// `what`: a client, or a datagram.
    pub(super) fn denied(&mut self, socket: &Socket, what: &str, peer: &Peer, now: Instant) {
        let name = &socket.name;
        write(&mut self.denied, Level::Warn, now, || {
            format!(
                "{name}: refused {what} ({peer}): not in socket.{name}.allow-users or allow-groups"
            )
        });
    }

    pub(super) fn refused(&mut self, socket: &Socket, peer: &Peer, over: Over, now: Instant) {
        let (name, limit) = (&socket.name, over.limit);
        write(&mut self.refused, Level::Warn, now, || {
            let why = match over.key {
                OverKey::Daemon => format!("{limit} clients are here, limits.clients = {limit}"),
                OverKey::Share => format!(
                    "the last sixteenth of limits.clients = {limit} is for users who have fewer clients here than it has places left"
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
                OverKey::UserQueue | OverKey::TotalQueue => {
                    format!("no room for its bytes, {} = {limit} bytes", over.key)
                }
            };
            format!("{name}: refused a client ({peer}): {why}")
        });
    }

    pub(super) fn closed(
        &mut self,
        socket: &Socket,
        (id, peer): (ClientId, &Peer),
        reason: &Close,
        loss: &Loss,
        now: Instant,
    ) {
        let ordinary = match reason {
            Close::Done => !loss.unfinished && loss.untaken == 0,
            // It did not wait for its own answers.
            Close::HangUp => !loss.unfinished,
            Close::Stopping | Close::Changed(_) => loss.is_none(),
            _ => false,
        };
        let (throttle, level) = if ordinary {
            (&mut self.left, Level::Debug)
        } else {
            (&mut self.closed, Level::Warn)
        };
        write(throttle, level, now, || {
            let name = &socket.name;
            let why = why(socket, reason);
            format!("{name}: client {id} ({peer}) closed: {why}; {loss}")
        });
    }

    /// `over`: the limit that was in the way, where it was not the client's queue.
    pub(super) fn dropped<S>(
        &mut self,
        socket: &Socket,
        client: &Connection<S>,
        messages: u64,
        over: Option<Over>,
        now: Instant,
    ) {
        let Socket {
            name, queue_size, ..
        } = socket;
        let Connection { id, peer, .. } = client;
        write(&mut self.dropped, Level::Warn, now, || match over {
            None => format!(
                "{name}: dropped {messages} messages for client {id} ({peer}): its queue is full, socket.{name}.queue-size = {queue_size} bytes"
            ),
            Some(Over { key, limit }) => format!(
                "{name}: dropped {messages} messages for client {id} ({peer}): no room for them, {key} = {limit} bytes"
            ),
        });
    }

    pub(super) fn stalled<S>(&mut self, socket: &Socket, client: &Connection<S>, now: Instant) {
        let name = &socket.name;
        let Connection {
            id, peer, queue, ..
        } = client;
        let (waiting, timeout) = (queue.len(), socket.slow_timeout);
        write(&mut self.stalled, Level::Warn, now, || {
            format!(
                "{name}: client {id} ({peer}) does not read and holds up the others: {waiting} bytes wait for it; closed after socket.{name}.slow-timeout = {timeout:?}"
            )
        });
    }

    pub(super) fn starved<S>(
        &mut self,
        socket: &Socket,
        client: &Connection<S>,
        over: Over,
        now: Instant,
    ) {
        let (name, timeout) = (&socket.name, socket.slow_timeout);
        let Connection { id, peer, .. } = client;
        let Over { key, limit } = over;
        write(&mut self.starved, Level::Warn, now, || {
            format!(
                "{name}: client {id} ({peer}) waits for room under {key} = {limit} bytes; closed after socket.{name}.slow-timeout = {timeout:?}"
            )
        });
    }

    /// A receiver takes nothing more and was owed something.
    pub(super) fn deaf<S>(&mut self, socket: &Socket, client: &Connection<S>, now: Instant) {
        let name = &socket.name;
        let Connection {
            id, peer, queue, ..
        } = client;
        let undelivered = queue.len();
        write(&mut self.closed, Level::Warn, now, || {
            format!(
                "{name}: client {id} ({peer}) hung up on what it was owed: {undelivered} bytes undelivered"
            )
        });
    }

    pub(super) fn truncated(
        &mut self,
        socket: &Socket,
        id: ClientId,
        peer: &Peer,
        messages: u64,
        now: Instant,
    ) {
        let (name, limit) = (&socket.name, socket.rule.message_size);
        write(&mut self.truncated, Level::Warn, now, || {
            format!(
                "{name}: kept the first part of {messages} messages of client {id} ({peer}): socket.{name}.message-size = {limit} bytes"
            )
        });
    }

    pub(super) fn oversized(
        &mut self,
        socket: &Socket,
        id: ClientId,
        peer: &Peer,
        messages: u64,
        now: Instant,
    ) {
        let (name, limit) = (&socket.name, socket.rule.message_size);
        write(&mut self.oversized, Level::Warn, now, || {
            format!(
                "{name}: refused {messages} messages of client {id} ({peer}): too long, socket.{name}.message-size = {limit} bytes"
            )
        });
    }
}

/// Why a client is closed, with the key that decides.
fn why(socket: &Socket, reason: &Close) -> String {
    let Socket {
        name,
        queue_size,
        slow_client,
        slow_timeout,
        idle_timeout,
        ..
    } = socket;
    match reason {
        Close::Idle => {
            let span = idle_timeout.unwrap_or_default();
            format!("silent for socket.{name}.idle-timeout = {span:?}")
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

/// Writes a line if its kind may have one now, and says how many it could not have before.
pub(super) fn write(
    throttle: &mut Throttle,
    level: Level,
    now: Instant,
    line: impl FnOnce() -> String,
) {
    if level > log::max_level() {
        return;
    }
    match throttle.pass(now) {
        None => {}
        Some(0) => log!(level, "{}", line()),
        Some(more) => log!(level, "{} ({more} lines like this left out)", line()),
    }
}
