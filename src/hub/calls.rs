//! The calls of the control socket's clients, for the event loop to answer: what they ask for, no part of the
//! hub knows alone.

use std::mem;

use super::{Hub, Now, Socket, Tapped, Wanted};
use crate::{
    connection::{Connection, Stream, waits::Awaits},
    control::varlink::Reply,
    peer::Peer,
    service::{Outbox, PendingCall},
};

/// Bytes that may wait for a client before it gets a further part of an answer.
const WAITING: usize = 64 << 10;
/// Keys at which one look for clients looks, whether somebody has them or not.
const LOOKED_AT: usize = 1024;

/// Some of the clients, as one look finds them.
#[derive(Debug)]
pub struct Found {
    /// Their keys, in order.
    pub keys: Vec<usize>,
    /// Where the next look goes on.
    pub reached: usize,
    /// There is nobody behind it.
    pub is_all: bool,
}

impl<S: Stream> Hub<S> {
    /// Whether there are calls to be answered now: there may be something for them, and their clients read.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.effects.calls.iter().any(|of| self.is_due(of))
    }

    /// Takes those out. Each is to be answered, or to be put back.
    pub fn take_calls(&mut self) -> Vec<PendingCall> {
        let mut calls = mem::take(&mut self.effects.calls);
        let due = calls.take(|of| self.is_due(of));
        self.effects.calls = calls;
        due
    }

    /// Takes out the calls of `method` that have begun.
    pub fn take_begun(&mut self, method: &str) -> Vec<PendingCall> {
        self.effects.calls.take(|of| {
            let call = of.call.as_ref();
            of.has_begun && call.is_ok_and(|call| call.method == method)
        })
    }

    /// There may be something for all calls that wait.
    pub fn wake_calls(&mut self) {
        self.effects.calls.wake_all();
    }

    fn is_due(&self, pending: &PendingCall) -> bool {
        !pending.waits && self.has_room(pending)
    }

    /// Puts back a call that is not answered to its end.
    pub fn put_back(&mut self, pending: PendingCall) {
        if self.clients.contains(pending.client) {
            self.effects.calls.add(pending);
        }
    }

    /// Whether the client of a call is here and reads what it is sent.
    #[must_use]
    pub fn has_room(&self, pending: &PendingCall) -> bool {
        let client = self.clients.get(pending.client);
        client.is_some_and(|client| client.queue.len() < WAITING)
    }

    /// The sender of a call; `None` where it is gone.
    #[must_use]
    pub fn caller(&self, pending: &PendingCall) -> Option<&Peer> {
        Some(&self.clients.get(pending.client)?.peer)
    }

    /// Sends a reply to the client of a call, unless the call has ended that client. Behind the last one the client
    /// may call again. Returns how long the reply is, bytes.
    pub fn reply(&mut self, pending: &PendingCall, reply: &Reply, now: Now) -> usize {
        let key = pending.client;
        let bytes = reply.encode();
        if !self.clients.contains(key) {
            return bytes.len();
        }
        let is_heard = !pending.call.as_ref().is_ok_and(|call| call.oneway);
        if is_heard {
            let socket = &self.sockets[self.clients[key].socket as usize];
            let mut out = Outbox::new(
                &mut self.clients,
                &mut self.limits,
                &mut self.effects,
                socket.rules.queue_size,
                now,
            );
            if let Err(reason) = out.give(key, &[std::io::IoSlice::new(&bytes)]) {
                self.close(key, &reason, now);
                return bytes.len();
            }
        }
        let client = &mut self.clients[key];
        if !reply.continues && client.awaits == Some(Awaits::Answer) {
            self.resume(key, now);
        } else {
            self.follow_up(now);
        }
        bytes.len()
    }

    /// Looks for clients with keys from `first` on that are `meant`, until there are `most` of them. What one look
    /// does is bounded, however many keys nobody has any more.
    pub fn find_clients(
        &self,
        first: usize,
        most: usize,
        meant: impl Fn(&Connection<S>, &Socket) -> bool,
    ) -> Found {
        let all = self.clients.capacity();
        let mut keys = Vec::new();
        let mut reached = first.min(all);
        let end = all.min(reached + LOOKED_AT);
        while reached < end && keys.len() < most {
            let client = self.clients.get(reached);
            if client.is_some_and(|client| meant(client, &self.sockets[client.socket as usize])) {
                keys.push(reached);
            }
            reached += 1;
        }
        Found {
            keys,
            reached,
            is_all: reached == all,
        }
    }

    /// Opens a tap for the client of `call` on socket `socket`.
    pub fn open_tap(&mut self, call: &PendingCall, socket: usize, wanted: Wanted) {
        let taps = &mut self.sockets[socket].taps;
        taps.open(call.client, wanted, call.missed);
    }

    /// Whether client `key` has a tap.
    #[must_use]
    pub fn has_tap(&self, key: usize) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|(_, socket)| socket.taps.has(key))
    }

    /// The next message for the tap of `call`, or how many it missed since the last one, if either is there.
    pub fn next_tapped(&mut self, call: &PendingCall) -> Option<Result<Tapped, u64>> {
        let mut sockets = self.sockets.iter_mut();
        sockets.find_map(|(_, socket)| socket.taps.next(call.client))
    }

    /// Ends the taps of client `key`; returns how many messages it has not seen.
    pub fn close_taps(&mut self, key: usize) -> u64 {
        let sockets = self.sockets.iter_mut();
        sockets.map(|(_, socket)| socket.taps.close(key)).sum()
    }
}
