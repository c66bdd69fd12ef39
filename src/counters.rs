//! What happened on a socket, in numbers: for the log, and for the process that goes on with them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines each counter once.
macro_rules! counters {
    ($($(#[doc = $meaning:literal])+ $name:ident,)+) => {
        /// What happened on a socket since the start, of this process or of the one whose clients it took over.
        #[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($(#[doc = $meaning])+ pub $name: u64,)+
        }

        impl Counters {
            fn each(&mut self) -> impl Iterator<Item = &mut u64> {
                [$(&mut self.$name),+].into_iter()
            }
        }
    };
}

counters! {
    /// Clients that came in.
    clients,
    /// Clients, or datagrams, that an access list or a limit kept out, or that have no sender.
    refused,
    /// Clients that were closed for what they did or did not do.
    closed,
    /// Messages that the service took.
    messages,
    /// Their bytes, in wire form; of packets what they hold.
    bytes,
    /// Messages of which only the first part was taken.
    truncated,
    /// Messages refused because they were too long, their senders closed or not.
    oversized,
    /// Messages dropped for a slow client.
    dropped,
    /// Datagrams with nobody to answer to: their senders have no address.
    unbound,
    /// Datagrams whose senders' addresses could not be written to.
    unreachable,
    /// Datagrams whose senders' abstract addresses may be somebody else's.
    unproven,
    /// Whole messages that were read and had not been taken when their senders ended.
    untaken,
    /// Unfinished messages that ended with their senders.
    unfinished,
    /// Bytes that clients had sent and nobody read, at their end.
    unread,
    /// Bytes that clients were owed and did not take, at their end; each packet with 4 of its length.
    undelivered,
}

/// More than anything can be counted to.
pub const UNCOUNTABLE: u64 = 1 << 62;

impl Counters {
    /// Whether they can be counted on from.
    #[must_use]
    pub fn are_sound(mut self) -> bool {
        self.each().all(|count| *count < UNCOUNTABLE)
    }

    /// Adds what happened on another socket.
    pub fn add(&mut self, mut other: Counters) {
        for (count, more) in self.each().zip(other.each()) {
            *count += *more;
        }
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
