//! Who waits for whom. A client waits for one thing at a time (`Awaits`), and nothing is read from it
//! meanwhile, so that what it sends on waits with itself.
//!
//! 1. **Relay**: a sender waits for the receivers whose queues have no room for its next message. Each of
//!    them holds senders up until it has read enough: as a rule, half of its queue.
//! 2. **Record**: a sender waits while the record has no room for its next line, until something was written.
//! 3. **Quota**: a client waits while `queue-per-user` or `queue-total` leaves no room for its messages, until
//!    less is held for others.
//!
//! Those who wait for a relay or a record stand in the `WaitQueue` of their socket. It calls one at a time,
//! and the next when that one had its turn: so nobody is called for room that is taken by then. Those who
//! wait for a quota, which all sockets share, stand in `Hub::quota_queue` in the order in which they came.
//! Two others wait without a place in a queue: a client that sent more than one turn takes waits for its next
//! turn, and a client whose own queue is full goes on when it reads.

use super::{Hub, Now, READ_BUFFER};
use crate::{
    connection::{Awaits, Stream},
    record::Record,
    round_robin::RoundRobin,
};

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

    /// Whether nobody waits but the one whose turn is next, if there is one, and nobody was called.
    fn is_first_alone(&self) -> bool {
        self.called.is_none() && (self.waiting.is_empty() || self.waiting.is_single())
    }

    /// All of them in the order of their turns, the one that was called first.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        self.called.into_iter().chain(self.waiting.iter())
    }

    /// A client of the user with this number waits. If it was called and is not done, it comes before the
    /// others of its user, and where nothing was taken (`took`) before everybody: else shorter messages
    /// would have the room for ever.
    pub(super) fn wait(&mut self, user: u32, key: usize, took: bool) {
        if self.called == Some(key) {
            self.waiting.push_front(user, key, !took);
        } else {
            self.waiting.push(user, key);
        }
    }

    /// Calls the next client, where nobody else is having a turn.
    fn call(&mut self) -> Option<usize> {
        if self.called.is_some() {
            return None;
        }
        self.called = self.waiting.pop();
        self.called
    }

    /// A client had its turn.
    pub(super) fn had_turn(&mut self, key: usize) {
        if self.called == Some(key) {
            self.called = None;
        }
    }

    /// A client that waits goes.
    pub(super) fn leave(&mut self, user: u32, key: usize) {
        self.waiting.remove(user, key);
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.called = None;
    }
}

impl<S: Stream> Hub<S> {
    /// Client `key` waits from now on. `took`: some of its messages were taken before.
    pub(super) fn wait(&mut self, key: usize, awaits: Awaits, took: bool) {
        let client = &mut self.clients[key];
        client.awaits = Some(awaits);
        match awaits {
            Awaits::Room => {
                let socket = &mut self.sockets[client.socket as usize];
                socket.wait_queue.wait(client.user, key, took);
            }
            Awaits::Quota => self.quota_queue.push_back(key),
            Awaits::Turn => self.ready.list(client, key),
        }
    }

    /// What client `key` waited for has come.
    pub(super) fn resume(&mut self, key: usize, now: Now) {
        let client = &mut self.clients[key];
        client.go_on(now.instant);
        self.ready.list(client, key);
    }

    /// Client `key` waits for a quota no more.
    pub(super) fn leave_quota_queue(&mut self, key: usize) {
        self.quota_queue.retain(|&waiting| waiting != key);
    }

    /// Goes on with the client that is first in the wait queue of socket number `socket`, if there is room.
    pub(super) fn call(&mut self, socket: usize, now: Now) {
        let socket = &mut self.sockets[socket];
        let queue = &mut socket.wait_queue;
        let first = || (queue.first(), queue.is_first_alone());
        let touched = &mut self.effects.touched;
        if socket.service.frees(first, &mut self.clients, touched)
            && socket.record.as_ref().is_none_or(Record::has_room)
            && let Some(key) = queue.call()
        {
            // Before the others of its user: who wants the same room has to let it go first.
            let client = &mut self.clients[key];
            client.go_on(now.instant);
            self.ready.list_first(client, key);
        }
    }

    /// Less is held than before: goes on with those who wait for a quota and find room.
    pub(super) fn call_for_quota(&mut self, now: Now) {
        for _ in 0..self.quota_queue.len() {
            let Some(key) = self.quota_queue.pop_front() else {
                break;
            };
            if self.has_quota(key) {
                self.resume_from_quota(key, now);
            } else {
                self.quota_queue.push_back(key);
            }
        }
    }

    /// There is room for a client that waited for a quota. If it finds none all the same, its time runs
    /// anew.
    pub(super) fn resume_from_quota(&mut self, key: usize, now: Now) {
        let client = &mut self.clients[key];
        if !client.holds_up {
            client.full = None;
        }
        self.resume(key, now);
    }

    /// Whether enough may be held for a client that waits for a quota to go on.
    pub(super) fn has_quota(&self, key: usize) -> bool {
        let client = &self.clients[key];
        let least = self.sockets[client.socket as usize].least_held();
        let enough = READ_BUFFER.min(self.limits.smallest() / 8).max(least);
        if client.is_blocked() {
            self.limits.room(client.peer.uid) >= enough
        } else {
            self.limits.input_room(client.peer.uid) >= enough
        }
    }
}
