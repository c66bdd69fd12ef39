//! What follows from a turn. For the client itself, and for others that its messages reached: its charge, its
//! timers and its watch, by its new state, and its end. For those who wait (`connection::waits`): who of them
//! goes on.

use std::mem;

use super::{Due, Hub, STALL, Timer, socket::Loss};
use crate::{
    connection::{
        Full, Now, Stream,
        waits::{self, Awaits},
    },
    error::Close,
    input::Announced,
    queue::Queue,
    service::Sender,
};

impl<S: Stream> Hub<S> {
    /// Does what follows from the client's state after its turn, or after a turn of another client that
    /// changed it: settles its charge, closes it if it has ended and is owed nothing, starts its timer if
    /// its queue is full, and changes what it is watched for. `gone`: both directions have ended.
    pub(super) fn apply_state(&mut self, key: usize, gone: bool, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        let weight = client.weight();
        client.charge.settle(&mut self.limits, weight);
        if client.holds_up {
            socket.service.relieve(client, socket.rules.queue_size);
        }
        let held_up = client.is_blocked() || client.awaits.is_some();
        // What it asked for before it went is done all the same, but it is not waited for.
        if gone && client.awaits == Some(Awaits::Answer) && self.effects.calls.has_begun(key) {
            return Err(Close::HangUp);
        }
        let is_gone = gone || matches!(client.ending, Some(Close::HangUp));
        let awaits_ack = client.awaits_ack() && !is_gone;
        if !held_up && !client.is_owed() && !awaits_ack {
            let stays = match &client.ending {
                None => true,
                Some(Close::Done) => client.receiver && !gone,
                Some(Close::Stopping) => client.receiver && !gone && !socket.has_given_all,
                Some(_) => false,
            };
            if !stays && let Some(reason) = client.ending.take() {
                return Err(reason);
            }
        }
        // A client that only ended its sending may read slowly. One that is closed by the daemon may not.
        let cut_off = matches!(
            client.ending,
            Some(Close::MessageTooLong { .. } | Close::Changed(_))
        );
        let full = client.holds_up
            || cut_off && client.is_owed()
            || match client.awaits {
                // It waits for others, whose time runs, and not for its own queue.
                Some(Awaits::Room | Awaits::Turn | Awaits::Answer) => false,
                Some(Awaits::Quota) => true,
                None => held_up,
            };
        match (full, &client.full) {
            (true, None) => {
                client.full = Some(Box::new(Full {
                    since: now.instant,
                    taken: 0,
                    told: false,
                }));
                let mut span = socket.rules.slow_timeout;
                if client.stalls() {
                    span = span.min(STALL);
                }
                super::set(
                    &mut self.timers,
                    client,
                    key,
                    Timer::Slow,
                    now.instant + span,
                );
            }
            (false, Some(_)) => client.full = None,
            _ => {}
        }
        self.watch_changes.note(key, client);
        Ok(())
    }

    /// Does what follows for clients to which a turn of another one did something.
    pub(super) fn follow_up(&mut self, now: Now) {
        self.note_dropped(now);
        while let Some((key, reason)) = self.effects.failed.pop() {
            match reason {
                Close::HangUp if self.clients.contains(key) => {
                    self.shut_write_side(key, now);
                    self.effects.touched.push(key);
                }
                reason if self.clients.contains(key) => self.close(key, &reason, now),
                _ => {}
            }
        }
        while let Some(key) = self.effects.touched.pop() {
            if self.clients.contains(key)
                && let Err(reason) = self.apply_state(key, false, now)
            {
                self.close(key, &reason, now);
            }
        }
    }

    /// Notes what was dropped, and for whom.
    pub(super) fn note_dropped(&mut self, now: Now) {
        for (key, messages) in self.effects.dropped.drain(..) {
            let client = &mut self.clients[key];
            client.traffic.dropped += messages;
            let uid = client.charge.uid();
            let socket = &mut self.sockets[client.socket as usize];
            let quota = self.limits.room(uid) < client.queue.room(socket.rules.queue_size);
            let over = quota.then(|| self.limits.over(uid));
            socket.dropped(client, messages, over, now);
        }
    }

    /// Notes the messages of a turn that were too long.
    #[cold]
    pub(super) fn note_long(
        &mut self,
        from: &Sender,
        truncated: u64,
        oversized: u64,
        announced: Option<Announced>,
        now: Now,
    ) {
        let socket = &mut self.sockets[self.clients[from.key].socket as usize];
        let Sender { id, peer, .. } = from;
        if truncated > 0 {
            socket.truncated(*id, peer, truncated, now);
        }
        if let Some(announced) = announced {
            socket.announced((*id, peer), &announced, now);
        }
        if oversized > 0 {
            socket.oversized(*id, peer, oversized, now);
        }
    }

    /// A receiver takes nothing more. What it sent is still read and delivered.
    pub(super) fn shut_write_side(&mut self, key: usize, now: Now) {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        socket.write_side_shut(client, now);
        client.change_queue(&mut self.limits, |queue| *queue = Queue::default());
        client.gap = None;
        client.is_write_shut = true;
        socket.service.leave(key, client);
    }

    /// Takes a client out and ends its stream.
    pub(super) fn close(&mut self, key: usize, reason: &Close, now: Now) {
        let mut client = self.clients.remove(key);
        if !self.effects.is_empty() || !self.effects.calls.is_empty() {
            self.effects.forget(key);
        }
        self.left = true;
        for timer in [Timer::Idle, Timer::Slow] {
            if let Some(at) = client.note_timer(timer as usize, None) {
                self.timers.remove(&(at, Due::Client(key, timer)));
            }
        }
        client.charge.settle(&mut self.limits, 0);
        self.users.leave(client.charge.uid());
        if client.awaits == Some(Awaits::Quota) {
            self.quota_queue.leave(|waiting| waiting == key);
        }
        if self.sockets[client.socket as usize].is_control() {
            self.close_taps(key);
            self.callers.leave(client.peer.uid);
        } else {
            self.limits.leave(client.peer.uid);
        }
        let socket = &mut self.sockets[client.socket as usize];
        socket.present -= 1;
        if client.awaits == Some(Awaits::Room) {
            socket.wait_queue.leave(client.user, key);
        }
        socket.wait_queue.had_turn(key);
        socket.service.leave(key, &mut client);
        let unread = match reason {
            // After an end of file there is nothing left to read away.
            Close::Done => 0,
            Close::HangUp | Close::Stopping | Close::Changed(_) => client.stream.hang_up(),
            _ => client.stream.cut_off(),
        };
        let undelivered = client.queue.len();
        let (untaken, unfinished) = match &client.input {
            Some(input) => input.loss(socket.rules.input.framing),
            None => (0, false),
        };
        let loss = Loss {
            unread,
            undelivered,
            untaken,
            unfinished,
        };
        socket.closed((client.id, &client.peer), reason, &loss, now);
        self.call(client.socket as usize, now);
    }

    /// Client `key` waits from now on. `took`: some of its messages were taken before.
    pub(super) fn wait(&mut self, key: usize, awaits: Awaits, took: bool) {
        let client = &mut self.clients[key];
        client.awaits = Some(awaits);
        match awaits {
            Awaits::Room => {
                let socket = &mut self.sockets[client.socket as usize];
                socket.wait_queue.wait(client.user, key, took);
            }
            Awaits::Quota => self.quota_queue.wait(key),
            Awaits::Turn => self.ready.list(client, key),
            Awaits::Answer => {}
        }
    }

    /// What client `key` waited for has come.
    pub(super) fn resume(&mut self, key: usize, now: Now) {
        let client = &mut self.clients[key];
        client.go_on(now.instant);
        self.ready.list(client, key);
    }

    /// Goes on with the client that is first in the wait queue of socket number `number`, if there is room, or
    /// with what its datagram socket holds.
    pub(super) fn call(&mut self, number: usize, now: Now) {
        let socket = &mut self.sockets[number];
        let touched = &mut self.effects.touched;
        let is_free = socket
            .service
            .frees(&socket.wait_queue, &mut self.clients, touched);
        if is_free
            && socket.record().is_none_or(|of| of.has_room())
            && let Some(key) = socket.wait_queue.call()
        {
            // Before the others of its user: who wants the same room has to let it go first.
            let client = &mut self.clients[key];
            client.go_on(now.instant);
            self.ready.list_first(client, key);
        } else if socket.pending.held() > 0 {
            self.list_datagrams(number);
        } else if !is_free || socket.wait_queue.order().next().is_none() {
            self.release_record(number, now);
        }
    }

    /// Less is held than before: goes on with those who wait for a quota and find room.
    pub(super) fn call_for_quota(&mut self, now: Now) {
        let mut queue = mem::take(&mut self.quota_queue);
        let called = queue.call(|key| self.has_quota(key));
        self.quota_queue = queue;
        for key in called {
            self.resume_from_quota(key, now);
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
        waits::has_quota(client, least, &self.limits)
    }
}
