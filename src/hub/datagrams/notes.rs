//! What the log says of datagrams alone, each kind at a limited rate, and the counts that go with it.

use std::{
    io, process,
    time::{Duration, Instant},
};

use rustix::process::geteuid;

use crate::{
    datagram::{Blame, DatagramSender, Lost, Why},
    datagram_header::{AddressKind, Header},
    hub::{
        Socket,
        log_rates::{Kind, Lines},
        socket::Rules,
    },
    peer::Peer,
};

/// The log lines that datagrams alone cause, and their rates.
#[derive(Debug)]
pub(super) struct Notes {
    /// The daemon's own process.
    own_pid: i32,
    /// Its user.
    own_uid: u32,
    /// Of all datagram sockets together.
    pub(super) lines: Lines,
}

impl Default for Notes {
    fn default() -> Self {
        Notes {
            own_pid: process::id().cast_signed(),
            own_uid: geteuid().as_raw(),
            lines: Lines::default(),
        }
    }
}

impl Notes {
    /// Whether udsd itself sent it. The log says nothing of that: each line that journald forwards here
    /// would make another.
    pub(super) fn is_own(&self, peer: &Peer) -> bool {
        peer.pid == self.own_pid
    }

    /// Whether an answer to this sender's address goes to nobody else. A path is looked at when it is
    /// written to. An abstract name is free in a network namespace that the sender made for itself,
    /// whoever has it in udsd's. Root and udsd's own user need nobody to speak for them.
    pub(super) fn proves(&self, socket: &Socket, sender: &DatagramSender) -> bool {
        let Some(AddressKind::Abstract(_)) = sender.address.kind() else {
            return true;
        };
        socket.rules.answer_abstract
            || sender.address.is_autobound()
            || [0, self.own_uid].contains(&sender.peer.uid)
    }

    pub(super) fn unproven(&mut self, socket: &Socket, sender: &DatagramSender, now: Instant) {
        let name = &socket.name;
        let DatagramSender { id, peer, address } = sender;
        self.lines.write(Kind::Unproven, 1, now, || {
            format!(
                "{name}: does not answer client {id} at {address} ({peer}): the abstract name may be somebody else's; have it bind a path, or autobind, or write socket.{name}.answer-abstract = true"
            )
        });
    }

    pub(super) fn failed(
        &mut self,
        socket: &Socket,
        error: &io::Error,
        rest: Duration,
        now: Instant,
    ) {
        let name = &socket.name;
        self.lines.write(Kind::Failed, 1, now, || {
            format!("{name}: cannot receive: {error}; resting for {rest:?}")
        });
    }

    pub(super) fn nobody(&mut self, socket: &Socket, header: &Header, now: Instant) {
        let (name, from) = (&socket.name, &header.from);
        self.lines.write(Kind::Nobody, 1, now, || {
            format!(
                "{name}: refused a datagram from {from}: the kernel vouches for nobody who sent it; where the manager passes the socket, its unit needs PassCredentials=yes"
            )
        });
    }

    pub(super) fn oversized(&mut self, socket: &Socket, header: &Header, now: Instant) {
        let (name, limit) = (&socket.name, socket.rules.input.message_size);
        let Header { from, peer, length } = header;
        self.lines.write(Kind::Oversized, 1, now, || {
            format!(
                "{name}: refused a datagram of {length} bytes from {from} ({peer}): socket.{name}.message-size = {limit} bytes"
            )
        });
    }

    /// Counts replies that will not be delivered, and says so.
    pub(super) fn lost(&mut self, socket: &mut Socket, lost: &Lost, now: Instant) {
        let Lost { to, replies, why } = lost;
        let kind = match why {
            None => {
                socket.counters.unreachable += replies;
                Kind::Unreachable
            }
            Some(_) => {
                socket.counters.dropped += replies;
                Kind::Dropped
            }
        };
        let Socket { name, rules, .. } = socket;
        let Rules {
            queue_size,
            slow_timeout,
            ..
        } = rules;
        self.lines.write(kind, *replies, now, || {
            let why = match why {
                None => "nobody is there, or udsd may not write to it".into(),
                Some(Why::Full(blame)) => {
                    let cause = cause(*blame);
                    format!(
                        "{cause}; its queue is full, socket.{name}.queue-size = {queue_size} bytes"
                    )
                }
                Some(Why::Quota(over)) => {
                    format!("no room for it, {} = {} bytes", over.key, over.limit)
                }
                Some(Why::Receivers(most)) => {
                    format!("{most} receivers wait already, and no more may of one user and of all")
                }
                Some(Why::Slow(blame)) => {
                    let cause = cause(*blame);
                    format!("{cause}, for socket.{name}.slow-timeout = {slow_timeout:?}")
                }
            };
            let DatagramSender { id, peer, address } = to;
            format!(
                "{name}: dropped {replies} messages for client {id} at {address} ({peer}): {why}"
            )
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
