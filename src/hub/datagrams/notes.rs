//! What the log says of datagrams alone, each kind at a limited rate, and the counts that go with it.

use std::{io, time::Duration};

use crate::{
    datagram::{Blame, DatagramSender, Lost, Why},
    datagram_header::Header,
    hub::{Now, Socket, log_rates::Kind, socket::Rules},
};

impl Socket {
    pub(super) fn unproven(&mut self, sender: &DatagramSender, now: Now) {
        let DatagramSender { id, peer, address } = sender;
        self.write(Kind::Unproven, 1, now, |Socket { name, .. }| {
            format!(
                "does not answer client {id} at {address} ({peer}): the abstract name may be somebody else's; have it bind a path, or autobind, or write socket.{name}.answer-abstract = true"
            )
        });
    }

    pub(super) fn failed(&mut self, error: &io::Error, rest: Duration, now: Now) {
        self.write(Kind::Failed, 1, now, |_| {
            format!("cannot receive: {error}; resting for {rest:?}")
        });
    }

    pub(super) fn nobody(&mut self, Header { from, .. }: &Header, now: Now) {
        self.counters.refused_no_sender += 1;
        self.write(Kind::Nobody, 1, now, |_| {
            format!(
                "refused a datagram from {from}: the kernel vouches for nobody who sent it; where the manager passes the socket, its unit needs PassCredentials=yes"
            )
        });
    }

    pub(super) fn datagram_oversized(&mut self, header: &Header, now: Now) {
        self.counters.oversized += 1;
        let Header { from, peer, length } = header;
        self.write(Kind::Oversized, 1, now, |Socket { name, rules, .. }| {
            let limit = rules.input.message_size;
            format!(
                "refused a datagram of {length} bytes from {from} ({peer}): socket.{name}.message-size = {limit} bytes"
            )
        });
    }

    /// Replies will not be delivered.
    pub(super) fn lost(&mut self, lost: &Lost, now: Now) {
        let Lost { to, replies, why } = lost;
        let kind = why.map_or(Kind::Unreachable, |_| Kind::Dropped);
        let counters = &mut self.counters;
        *match why {
            None => &mut counters.unanswered_unreachable,
            Some(Why::Full(_)) => &mut counters.dropped_queue_size,
            Some(Why::Quota(over)) => counters.dropped_for(over.quota),
            Some(Why::Receivers(_)) => &mut counters.dropped_receivers,
            Some(Why::Slow(_)) => &mut counters.dropped_slow_timeout,
        } += replies;
        self.write(kind, *replies, now, |Socket { name, rules, .. }| {
            let Rules {
                queue_size,
                slow_timeout,
                ..
            } = rules;
            let why = match why {
                None => "nobody is there, or udsd may not write to it".into(),
                Some(Why::Full(blame)) => {
                    let cause = cause(*blame);
                    format!(
                        "{cause}; its queue is full, socket.{name}.queue-size = {queue_size} bytes"
                    )
                }
                Some(Why::Quota(over)) => format!("no room for it, {over}"),
                Some(Why::Receivers(most)) => {
                    format!("{most} receivers wait already, and no more may of one user and of all")
                }
                Some(Why::Slow(blame)) => {
                    let cause = cause(*blame);
                    format!("{cause}, for socket.{name}.slow-timeout = {slow_timeout:?}")
                }
            };
            let DatagramSender { id, peer, address } = to;
            format!("dropped {replies} messages for client {id} at {address} ({peer}): {why}")
        });
    }
}

/// What kept replies from being sent.
fn cause(blame: Blame) -> &'static str {
    match blame {
        Blame::Receiver => "it does not read",
        Blame::Others => "the send buffer is full of what others do not read",
    }
}
