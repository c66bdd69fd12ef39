//! What happened on a socket, in numbers: for the log, and for the process that goes on with them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happened on a socket since the start, of this process or of the one whose clients it took over.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Clients that came in.
    pub clients: u64,
    /// Clients, or datagrams, that an access list or a limit kept out, or that have no sender.
    pub refused: u64,
    /// Clients that were closed for what they did or did not do.
    pub closed: u64,
    /// Messages that the service took.
    pub messages: u64,
    /// Their bytes, in wire form; of packets what they hold.
    pub bytes: u64,
    /// Messages of which only the first part was taken.
    pub truncated: u64,
    /// Messages refused because they were too long, their senders closed or not.
    pub oversized: u64,
    /// Messages dropped for a slow client.
    pub dropped: u64,
    /// Datagrams with nobody to answer to: their senders have no address.
    pub unbound: u64,
    /// Datagrams whose senders' addresses could not be written to.
    pub unreachable: u64,
    /// Datagrams whose senders' abstract addresses may be somebody else's.
    pub unproven: u64,
    /// Whole messages that were read and had not been taken when their senders ended.
    pub untaken: u64,
    /// Unfinished messages that ended with their senders.
    pub unfinished: u64,
    /// Bytes that clients had sent and nobody read, at their end.
    pub unread: u64,
    /// Bytes that clients were owed and did not take, at their end; each packet with 4 of its length.
    pub undelivered: u64,
}

/// More than anything can be counted to.
pub const UNCOUNTABLE: u64 = 1 << 62;

impl Counters {
    /// Whether they can be counted on from.
    #[must_use]
    pub fn are_sound(mut self) -> bool {
        self.each().into_iter().all(|count| *count < UNCOUNTABLE)
    }

    /// Adds what happened on another socket.
    pub fn add(&mut self, mut other: Counters) {
        for (count, more) in self.each().into_iter().zip(other.each()) {
            *count += *more;
        }
    }

    fn each(&mut self) -> [&mut u64; 15] {
        let Counters {
            clients,
            refused,
            closed,
            messages,
            bytes,
            truncated,
            oversized,
            dropped,
            unbound,
            unreachable,
            unproven,
            untaken,
            unfinished,
            unread,
            undelivered,
        } = self;
        [
            clients,
            refused,
            closed,
            messages,
            bytes,
            truncated,
            oversized,
            dropped,
            unbound,
            unreachable,
            unproven,
            untaken,
            unfinished,
            unread,
            undelivered,
        ]
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters {
            clients,
            refused,
            closed,
            messages,
            bytes,
            truncated,
            oversized,
            dropped,
            unbound,
            unreachable,
            unproven,
            untaken,
            unfinished,
            unread,
            undelivered,
        } = self;
        write!(
            f,
            "{clients} clients, {refused} refused, {closed} closed, {messages} messages of {bytes} bytes, {truncated} truncated, {oversized} oversized, {dropped} dropped, {untaken} untaken, {unfinished} unfinished; {unread} bytes unread, {undelivered} undelivered"
        )?;
        // Of datagrams alone.
        for (count, what) in [
            (unbound, "unbound"),
            (unreachable, "unreachable"),
            (unproven, "unproven"),
        ] {
            if *count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}
