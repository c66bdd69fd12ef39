//! Who waits for whom, and who goes on when. A client waits for one thing at a time (`Awaits`), and nothing is
//! read from it meanwhile, so that what it sends on waits with itself.
//!
//! 1. **Relay**: a sender waits for the receivers whose queues have no room for its next message. Each of
//!    them holds senders up until it has read enough: as a rule, half of its queue (`HoldUps`).
//! 2. **Record**: a sender waits while the record has no room for its next line, until something was written.
//! 3. **Quota**: a client waits while `queue-per-user` or `queue-total` leaves no room for its messages, until
//!    less is held for others (`QuotaQueue`).
//!
//! Those who wait for a relay or a record stand in the `WaitQueue` of their socket. It calls one at a time,
//! and the next when that one had its turn: so nobody is called for room that is taken by then. Two others
//! wait without a place in a queue: a client that sent more than one turn takes waits for its next turn, and
//! a client whose own queue is full goes on when it reads.
//!
//! The hub asks who goes on (`hub/follow_up.rs`): after a turn of one of the socket's clients, when one has gone,
//! when the relay has given out what it had, when the record has written something, and when less is held.

use std::{collections::VecDeque, mem};

use slab::Slab;

use super::{Connection, Stream};
use crate::{
    limits::Limits,
    round_robin::{READ, RoundRobin},
};

/// What a client waits for before its messages are taken, or more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// Room in its socket's record, and in the queues of those who are to get its messages.
    Room,
    /// Room under `queue-per-user` or `queue-total`.
    Quota,
    /// Its next turn: it sent more than one may take.
    Turn,
    /// The answer to its call.
    Answer,
}

/// The receivers of a relay that hold up its senders. `Connection::holds_up` says of each whether it does.
#[derive(Debug, Default)]
pub struct HoldUps {
    /// How many they are.
    count: usize,
    /// A receiver holds up nobody once its queue has room for so many bytes.
    enough: usize,
}

impl HoldUps {
    /// As they were when an earlier process ended, but for the receivers, which `join` one by one.
    #[must_use]
    pub fn resume(enough: usize) -> Self {
        HoldUps { count: 0, enough }
    }

    /// A receiver of an earlier process, which may hold up senders.
    pub fn join<S>(&mut self, client: &Connection<S>) {
        self.count += usize::from(client.holds_up);
    }

    /// The room in its queue at which a receiver holds up nobody any more, bytes.
    #[must_use]
    pub fn enough(&self) -> usize {
        self.enough
    }

    /// A message finds no room that takes `needed` bytes: says how much each receiver that holds it up has to
    /// read. `is_quota`: more may be held only where all of its queue is gone.
    pub fn need(&mut self, needed: usize, queue_size: usize, is_quota: bool) {
        self.enough = if is_quota {
            queue_size
        } else {
            needed.max(queue_size / 2).min(queue_size)
        };
    }

    /// `client` holds up senders from now on. Returns whether it did not before.
    pub fn hold<S>(&mut self, client: &mut Connection<S>) -> bool {
        if mem::replace(&mut client.holds_up, true) {
            return false;
        }
        // Its time runs from now on, whatever else it is timed for.
        client.full = None;
        self.count += 1;
        true
    }

    /// `client` holds up nobody from now on. Returns whether it did before.
    pub fn release<S>(&mut self, client: &mut Connection<S>) -> bool {
        let held_up = mem::take(&mut client.holds_up);
        self.count -= usize::from(held_up);
        held_up
    }

    /// `client`, which holds up senders, no longer does if it has read enough.
    pub fn relieve<S>(&mut self, client: &mut Connection<S>, queue_size: usize) {
        if client.queue.room(queue_size) >= self.enough {
            self.release(client);
        }
    }

    /// Whether nobody holds up senders.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether anybody holds up `client`: it may hold up others, but not itself.
    #[must_use]
    pub fn hold_up<S>(&self, client: &Connection<S>) -> bool {
        self.count > usize::from(client.holds_up)
    }
}

/// Senders that wait for room with their socket, by their keys: users take turns, and the clients of one
/// user have theirs in the order in which they came.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiting: RoundRobin<usize>,
    /// The one that was called and has not had its turn.
    called: Option<usize>,
}

impl WaitQueue {
    /// Whether client `key` has to let others go first.
    #[must_use]
    pub fn has_before(&self, key: usize) -> bool {
        self.called
            .map_or(!self.waiting.is_empty(), |called| called != key)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those who wait, in the order of their turns.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter()
    }

    /// The one whose turn is next.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.waiting.first()
    }

    /// All of them in the order of their turns, the one that was called first.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.called.into_iter().chain(self.waiting.iter())
    }

    /// A client of the user with this number waits. If it was called and is not done, it comes before the
    /// others of its user, and where nothing was taken (`took`) before everybody: else shorter messages
    /// would have the room for ever.
    pub fn wait(&mut self, user: u32, key: usize, took: bool) {
        if self.called == Some(key) {
            self.waiting.push_front(user, key, !took);
        } else {
            self.waiting.push(user, key);
        }
    }

    /// Whether no receiver holds up the first of those who wait. `members`: all receivers; those of them that
    /// hold up nobody any more are added to `touched`.
    pub fn is_free<S: Stream>(
        &self,
        hold_ups: &mut HoldUps,
        members: impl Iterator<Item = usize>,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) -> bool {
        let first = self.waiting.first();
        let mut release = |key: usize| {
            if hold_ups.release(&mut clients[key]) {
                touched.push(key);
            }
        };
        match first {
            _ if self.called.is_some() => {}
            None => members.for_each(release),
            // It does not wait for itself. No look at all members: this is asked in every turn.
            Some(first) if self.waiting.is_single() => release(first),
            Some(_) => {}
        }
        first.map_or(hold_ups.is_empty(), |key| !hold_ups.hold_up(&clients[key]))
    }

    /// Calls the next client, where nobody else is having a turn.
    pub fn call(&mut self) -> Option<usize> {
        if self.called.is_some() {
            return None;
        }
        self.called = self.waiting.pop();
        self.called
    }

    /// A client had its turn.
    pub fn had_turn(&mut self, key: usize) {
        if self.called == Some(key) {
            self.called = None;
        }
    }

    /// A client that waits goes.
    pub fn leave(&mut self, user: u32, key: usize) {
        self.waiting.remove(user, key);
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.called = None;
    }
}

/// Clients that wait for a quota, which all sockets share, by their keys in the order in which they came.
#[derive(Debug, Default)]
pub struct QuotaQueue(VecDeque<usize>);

impl QuotaQueue {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them in their order.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// Client `key` waits.
    pub fn wait(&mut self, key: usize) {
        self.0.push_back(key);
    }

    /// Those of whom `leaves` says so wait no more.
    pub fn leave(&mut self, leaves: impl Fn(usize) -> bool) {
        self.0.retain(|&key| !leaves(key));
    }

    /// Those for whom there is room, by `has_quota`: they wait no more.
    pub fn call(&mut self, has_quota: impl Fn(usize) -> bool) -> VecDeque<usize> {
        let all = mem::take(&mut self.0).into_iter();
        let (called, waiting) = all.partition(|&key| has_quota(key));
        self.0 = waiting;
        called
    }
}

/// Whether enough may be held for `client` to go on; `least`: without which nothing is read on its socket.
pub fn has_quota<S: Stream>(client: &Connection<S>, least: usize, limits: &Limits) -> bool {
    let room = if client.is_blocked() {
        limits.room(client.charge.uid())
    } else {
        limits.input_room(client.charge.uid())
    };
    room >= READ.min(limits.smallest() / 8).max(least)
}
