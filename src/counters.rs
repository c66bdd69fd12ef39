//! What happened on a socket, in numbers. One table names, explains and types each counter, once: the log, the
//! state that one process hands to the next, and whatever else shows counters are made from it.
//!
//! A family counts one kind of event. Where it has several counters, each is for one reason: of a limit it is
//! named like the key that sets it. What the family is then has a sentence of its own, true of all reasons.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the counters: each family with its measure, then its counters with what they mean. A counter is named
/// after its family and its reason, or after its family alone where there is no other.
macro_rules! counters {
    ($($(#[doc = $all:literal])* $family:ident: $measure:ident {
        $($(#[doc = $meaning:literal])+ $(#[serde($alias:meta)])? $name:ident,)+
    })+) => {
        /// What happened on a socket since the start, of this process or of the one whose clients it took over.
        #[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($($(#[doc = $meaning])+ $(#[serde($alias)])? pub $name: u64,)+)+
        }

        /// What all counters of a family are; empty where it has one.
        fn family_meaning(family: &str) -> &'static str {
            match family {
                $(stringify!($family) => concat!($($all),*),)+
                _ => "",
            }
        }

        impl Counters {
            /// All counters, in the order of the table.
            pub fn rows(&self) -> impl Iterator<Item = Row> {
                [$($(Row::new(
                    stringify!($name),
                    stringify!($family),
                    Measure::$measure,
                    concat!($($meaning),+),
                    self.$name,
                ),)+)+]
                .into_iter()
            }

            fn each(&mut self) -> impl Iterator<Item = &mut u64> {
                [$($(&mut self.$name,)+)+].into_iter()
            }

            $(
                /// All of this family, whatever the reason.
                #[must_use]
                pub fn $family(&self) -> u64 {
                    0_u64$(.saturating_add(self.$name))+
                }
            )+
        }
    };
}

counters! {
    clients: Clients {
        /// Clients that came in; on a datagram socket, senders by their addresses.
        clients,
    }
    /// Clients and datagrams that were not let in.
    refused: Clients {
        /// Clients and datagrams that the lists of who is allowed do not admit.
        refused_access,
        /// Clients that came when as many were here as limits.clients allows, or 64 at the control socket.
        refused_clients,
        /// Clients whose users had more than their share of the last places under limits.clients.
        refused_share,
        /// Clients whose users had as many as limits.clients-per-user allows, or 32 at the control socket.
        refused_clients_per_user,
        /// Clients that came when the socket had as many as its own key clients allows.
        refused_socket_clients,
        /// Clients that came when the daemon could open no more files.
        refused_open_files,
        /// Datagrams whose senders the kernel does not know.
        refused_no_sender,
        /// Datagrams that udsd itself sent, as lines of its log that came back, where they would go round.
        refused_own,
        /// Clients and datagrams that an earlier version refused, which told no reasons apart.
        #[serde(alias = "refused")]
        refused_earlier,
    }
    /// Clients that udsd closed.
    closed: Clients {
        /// Clients that were silent for idle-timeout.
        closed_idle_timeout,
        /// Clients that sent a message longer than message-size.
        closed_message_size,
        /// Clients that took less than half of queue-size in slow-timeout.
        closed_slow_timeout,
        /// Clients whose queue was full under slow-client = "disconnect".
        closed_slow_client,
        /// Clients for whose bytes limits.queue-per-user left no room.
        closed_queue_per_user,
        /// Clients for whose bytes limits.queue-total left no room.
        closed_queue_total,
        /// Clients with which the kernel could not go on.
        closed_error,
        /// Clients whose descriptors did not reach the next process in a restart.
        closed_restart,
        /// Clients that an administrator disconnected.
        closed_disconnected,
        /// Clients that an earlier version closed, which told no reasons apart.
        #[serde(alias = "closed")]
        closed_earlier,
    }
    messages: Messages {
        /// Messages that the service took.
        messages,
    }
    bytes: Bytes {
        /// Bytes of the messages that the service took, in wire form; of packets what they hold.
        bytes,
    }
    truncated: Messages {
        /// Messages longer than message-size of which only the first part was taken.
        truncated,
    }
    oversized: Messages {
        /// Messages refused as longer than message-size, whether their senders were closed or not.
        oversized,
    }
    /// Messages, replies to datagrams among them, that a receiver did not get.
    dropped: Messages {
        /// Messages for clients whose queue was full.
        dropped_queue_size,
        /// Messages for clients to which limits.queue-per-user left no room.
        dropped_queue_per_user,
        /// Messages for clients to which limits.queue-total left no room.
        dropped_queue_total,
        /// Replies to datagrams whose receivers took nothing for slow-timeout.
        dropped_slow_timeout,
        /// Replies to datagrams that came when replies to too many others waited.
        dropped_receivers,
        /// Messages that an earlier version dropped, which told no reasons apart.
        #[serde(alias = "dropped")]
        dropped_earlier,
    }
    /// Datagrams that got no reply.
    unanswered: Messages {
        /// Datagrams whose senders have no address.
        #[serde(alias = "unbound")]
        unanswered_unbound,
        /// Datagrams to whose senders' addresses nothing could be sent.
        #[serde(alias = "unreachable")]
        unanswered_unreachable,
        /// Datagrams whose senders' abstract addresses may be somebody else's.
        #[serde(alias = "unproven")]
        unanswered_unproven,
    }
    unrecorded: Messages {
        /// Messages that the record went without, since its queue was full.
        unrecorded,
    }
    untaken: Messages {
        /// Whole messages that were read and had not been taken when their senders ended.
        untaken,
    }
    unfinished: Messages {
        /// Unfinished messages that ended with their senders.
        unfinished,
    }
    unread: Bytes {
        /// Bytes that clients had sent and nobody read, at their end.
        unread,
    }
    undelivered: Bytes {
        /// Bytes that clients were owed and did not take, at their end; each packet with 4 of its length.
        undelivered,
    }
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Clients or, on datagram sockets, senders.
    Clients,
    /// Messages.
    Messages,
    /// Bytes.
    Bytes,
}

/// One counter.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, which no other has.
    pub name: &'static str,
    /// The kind of event.
    pub family: &'static str,
    /// Why that happened; `None` where the family has one counter.
    pub reason: Option<&'static str>,
    /// What is counted.
    pub measure: Measure,
    /// What it means, a sentence.
    pub meaning: &'static str,
    /// What its family means: the same where that has one counter.
    pub family_meaning: &'static str,
    /// How many so far.
    pub value: u64,
}

impl Row {
    fn new(
        name: &'static str,
        family: &'static str,
        measure: Measure,
        meaning: &'static str,
        value: u64,
    ) -> Self {
        let meaning = meaning.trim_start();
        let all = family_meaning(family).trim_start();
        let reason = name.strip_prefix(family);
        Row {
            name,
            family,
            reason: reason.and_then(|reason| reason.strip_prefix('_')),
            measure,
            meaning,
            family_meaning: if all.is_empty() { meaning } else { all },
            value,
        }
    }
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

/// Each family, with those of its reasons that there were: "3 refused (2 access, 1 own)".
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Row> = self.rows().collect();
        for family in rows.chunk_by(|row, next| row.family == next.family) {
            let values = family.iter().map(|row| row.value);
            let all = values.fold(0, u64::saturating_add);
            let (before, what) = match family[0].family {
                first @ "clients" => ("", first),
                "bytes" => (" of ", "bytes"),
                "unread" => ("; ", "bytes unread"),
                // Of datagrams alone.
                "unanswered" if all == 0 => continue,
                other => (", ", other),
            };
            write!(f, "{before}{all} {what}")?;
            let reasons = family.iter().filter(|row| row.value > 0);
            let reasons = reasons.filter_map(|row| {
                let reason = row.reason?.replace('_', "-");
                Some(format!("{} {reason}", row.value))
            });
            let reasons: Vec<String> = reasons.collect();
            if !reasons.is_empty() {
                write!(f, " ({})", reasons.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_counter_has_a_name_of_its_own_and_a_sentence() {
        let mut names = HashSet::new();
        let mut meanings = HashSet::new();
        for row in Counters::default().rows() {
            assert!(names.insert(row.name), "{} twice", row.name);
            assert!(meanings.insert(row.meaning), "{} twice", row.meaning);
            for meaning in [row.meaning, row.family_meaning] {
                let is_sentence = meaning.starts_with(|first: char| first.is_ascii_uppercase())
                    && meaning.ends_with('.')
                    && !meaning.contains("  ");
                assert!(is_sentence, "{}: {meaning}", row.name);
            }
        }
    }

    #[test]
    fn a_family_has_one_counter_or_reasons_and_stands_together() {
        let counters = Counters::default();
        let rows: Vec<Row> = counters.rows().collect();
        let mut families = HashSet::new();
        for family in rows.chunk_by(|row, next| row.family == next.family) {
            assert!(families.insert(family[0].family));
            for row in family {
                match row.reason {
                    None => assert_eq!((row.name, family.len()), (row.family, 1)),
                    Some(reason) => assert_eq!(row.name, format!("{}_{reason}", row.family)),
                }
                assert_eq!(row.measure, family[0].measure);
                assert_eq!(row.reason.is_none(), row.meaning == row.family_meaning);
            }
        }
    }

    #[test]
    fn the_summary_tells_the_reasons_that_there_were() {
        let mut counters = Counters {
            clients: 3,
            closed_slow_timeout: 1,
            messages: 5,
            bytes: 60,
            unread: 7,
            ..Counters::default()
        };
        assert_eq!(
            counters.to_string(),
            "3 clients, 0 refused, 1 closed (1 slow-timeout), 5 messages of 60 bytes, 0 truncated, 0 oversized, 0 dropped, 0 unrecorded, 0 untaken, 0 unfinished; 7 bytes unread, 0 undelivered"
        );
        counters.add(Counters {
            refused_access: 2,
            refused_clients_per_user: 1,
            unanswered_unbound: 4,
            ..Counters::default()
        });
        assert_eq!((counters.refused(), counters.unanswered()), (3, 4));
        let text = counters.to_string();
        assert!(
            text.contains(", 3 refused (2 access, 1 clients-per-user), "),
            "{text}"
        );
        assert!(text.contains(", 4 unanswered (4 unbound), "), "{text}");
    }

    #[test]
    fn what_earlier_versions_counted_is_kept() {
        let before = r#"{"clients":4,"refused":5,"closed":6,"messages":7,"bytes":8,"truncated":9,"oversized":10,"dropped":11,"unbound":12,"unreachable":13,"unproven":14,"untaken":15,"unfinished":16,"unread":17,"undelivered":18}"#;
        let counters: Counters = serde_json::from_str(before).unwrap();
        let all: Vec<u64> = counters.rows().map(|row| row.value).collect();
        assert_eq!(all.iter().sum::<u64>(), (4..=18).sum::<u64>());
        let earlier = [
            counters.refused_earlier,
            counters.closed_earlier,
            counters.dropped_earlier,
            counters.unanswered(),
        ];
        assert_eq!(earlier, [5, 6, 11, 12 + 13 + 14]);
        let parked = serde_json::to_string(&counters).unwrap();
        let next: Counters = serde_json::from_str(&parked).unwrap();
        assert_eq!(next.to_string(), counters.to_string());
    }
}
