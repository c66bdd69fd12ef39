//! One client's turn: what waits for it is written, its messages that waited are offered to the service
//! again, or new ones are read and delivered. Then its charge, its timers and its watch follow from its new
//! state, and so do those of other clients that its messages reached.

use std::io;

use super::{Hub, READ_BUFFER, STALL, Timer, receive::Taken, socket::Loss};
use crate::{
    connection::{Awaits, Full, Now, Stream, Watch},
    error::Close,
    input::{Announced, Input},
    queue::Queue,
    round_robin::MESSAGES,
    service::{Outbox, Sender},
};

/// A read of READ_BUFFER halved so often has no more bytes than a turn may have messages.
const MOST_READ_SHIFT: u8 = (READ_BUFFER as u64 / MESSAGES).trailing_zeros() as u8;

/// What `Hub::deliver` does with a client's input.
#[derive(Clone, Copy)]
enum Step {
    /// Offers what waited.
    Resume,
    /// Cuts this many bytes of the read buffer.
    Feed(usize),
    /// Ends the stream.
    Finish,
}

/// How often READ_BUFFER is halved for the next read, after a turn that took so much of what was read.
fn read_shift(before: u8, taken: &Taken) -> u8 {
    if taken.awaits == Some(Awaits::Turn) {
        (before + 1).min(MOST_READ_SHIFT)
    } else if taken.messages < taken.most / 4 {
        before.saturating_sub(1)
    } else {
        before
    }
}

impl<S: Stream> Hub<S> {
    /// One client's turn, and what follows from it.
    pub(super) fn work(&mut self, key: usize, event: Watch, now: Now) {
        let socket = self.clients[key].socket as usize;
        let served = self.serve_client(key, event, now);
        let settled = served.and_then(|()| self.apply_state(key, event.end, now));
        if !self.effects.dropped.is_empty() {
            self.note_dropped(now);
        }
        let senders_wait = self.sockets[socket].rules.senders_wait;
        if senders_wait {
            self.sockets[socket].wait_queue.had_turn(key);
        }
        match settled {
            Ok(()) if senders_wait => self.call(socket, now),
            Ok(()) => {}
            Err(reason) => self.close(key, &reason, now),
        }
        if !self.effects.is_empty() {
            self.follow_up(now);
        }
    }

    /// Writes what waits for the client, offers what it sent and was not taken, or else reads.
    fn serve_client(&mut self, key: usize, event: Watch, now: Now) -> Result<(), Close> {
        if event.write {
            let owed = self.clients[key].queue.len();
            self.write_owed(key, now)?;
            self.effects.work += owed.saturating_sub(self.clients[key].queue.len());
        }
        let client = &mut self.clients[key];
        if client.awaits.is_some() {
            return Ok(());
        }
        if client.is_blocked() {
            return self.deliver(key, Step::Resume, now);
        }
        if !event.read || client.ending.is_some() {
            return Ok(());
        }
        // No more is read than may be held: it may have to wait.
        let socket = &self.sockets[client.socket as usize];
        let mut room = (READ_BUFFER >> client.read_shift) + socket.rules.packet;
        if self.limits.ample_for_input() < room {
            room = room.min(self.limits.input_room(client.peer.uid));
            if room < socket.least_held() {
                self.wait(key, Awaits::Quota, false);
                return Ok(());
            }
            room = room.max(socket.rules.packet);
        }
        let step = match client.stream.read(&mut self.buffer[..room]) {
            Ok(0) => {
                client.ending = Some(if client.is_write_shut {
                    Close::HangUp
                } else {
                    Close::Done
                });
                Step::Finish
            }
            Ok(bytes) => {
                client.active = now.instant;
                self.effects.work += bytes;
                Step::Feed(bytes)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Step::Resume,
                // It closed its end with something unread. All that it sent was read before this error.
                io::ErrorKind::ConnectionReset => {
                    client.ending = Some(Close::HangUp);
                    Step::Finish
                }
                _ => return Err(Close::Io(error)),
            },
        };
        self.deliver(key, step, now)
    }

    /// Writes what waits for the client. A receiver that has shut its end gets no more.
    pub(super) fn write_owed(&mut self, key: usize, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let service = &self.sockets[client.socket as usize].service;
        match client.flush(&mut self.limits, now.instant, |gap| service.tell(gap)) {
            Err(Close::HangUp) if client.receiver => self.shut_write_side(key, now),
            flushed => _ = flushed?,
        }
        Ok(())
    }

    /// A receiver takes nothing more. What it sent is still read and delivered.
    fn shut_write_side(&mut self, key: usize, now: Now) {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        socket.counters.undelivered += client.queue.len() as u64;
        if client.is_owed() {
            socket.write_side_shut(client, now.instant);
        }
        client.change_queue(&mut self.limits, |queue| *queue = Queue::default());
        client.gap = None;
        client.is_write_shut = true;
        socket.service.leave(key, client);
    }

    /// Does what follows from the client's state after its turn, or after a turn of another client that
    /// changed it: settles its charge, closes it if it has ended and is owed nothing, starts its timer if
    /// its queue is full, and changes what it is watched for. `gone`: both directions have ended.
    fn apply_state(&mut self, key: usize, gone: bool, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        let weight = client.weight();
        client.charge.settle(&mut self.limits, weight);
        if client.holds_up {
            socket.service.relieve(client, socket.rules.queue_size);
        }
        let held_up = client.is_blocked() || client.awaits.is_some();
        if !held_up && !client.is_owed() {
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
                Some(Awaits::Room | Awaits::Turn) => false,
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

    /// Counts and logs what was dropped, and for whom.
    fn note_dropped(&mut self, now: Now) {
        for (key, messages) in self.effects.dropped.drain(..) {
            let client = &self.clients[key];
            let uid = client.peer.uid;
            let socket = &mut self.sockets[client.socket as usize];
            socket.counters.dropped += messages;
            let quota = self.limits.room(uid) < client.queue.room(socket.rules.queue_size);
            let over = quota.then(|| self.limits.over(uid));
            socket.dropped(client, messages, over, now.instant);
        }
    }

    /// Runs one step of the client's input through its socket's service.
    fn deliver(&mut self, key: usize, step: Step, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        if let Step::Feed(bytes) = step
            && socket.service.has_receivers()
        {
            // Held while receivers' queues grow by it.
            let held = client.charge.held() + bytes;
            client.charge.settle(&mut self.limits, held);
        }
        let from = Sender {
            key,
            id: client.id,
            peer: client.peer,
        };
        // Taken out of the client: the service may change every client while these bytes are read.
        let input = client.input.take();
        let mut input = input.map_or_else(Input::default, |input| *input);
        let credit = client.charge.held() - client.queue.held();
        let mut out = Outbox::new(
            &mut self.clients,
            &mut self.limits,
            &mut self.effects,
            socket.rules.queue_size,
            now,
        );
        out.credit = credit;
        let rule = socket.rules.input;
        let mut taken = Taken {
            most: socket.service.most_messages(),
            ..Taken::default()
        };
        let mut batches = match step {
            Step::Resume => input.resume(rule),
            Step::Feed(bytes) => input.feed(&mut self.buffer[..bytes], rule),
            Step::Finish => input.finish(rule),
        };
        socket.receive(&from, &mut batches, &mut out, &mut taken);
        let too_long = batches.too_long;
        let oversized = input.take_refused();
        let announced = input.take_announced();
        if taken.truncated > 0 || oversized > 0 || announced.is_some() {
            self.note_long(&from, taken.truncated, oversized, announced, now);
        }
        if taken.dropped > 0 {
            self.effects.dropped.push((key, taken.dropped));
        }
        if let Some(awaits) = taken.awaits {
            self.wait(key, awaits, taken.messages > 0);
        }
        let client = &mut self.clients[key];
        if !input.is_clear() {
            client.input = Some(Box::new(input));
        }
        if let Some(reason) = taken.failed {
            return Err(reason);
        }
        client.read_shift = read_shift(client.read_shift, &taken);
        if let Some(limit) = too_long {
            // What it sent before is still owed.
            client.ending = Some(Close::MessageTooLong { limit });
        }
        Ok(())
    }

    /// Counts and logs the messages of a turn that were too long.
    #[cold]
    fn note_long(
        &mut self,
        from: &Sender,
        truncated: u64,
        oversized: u64,
        announced: Option<Announced>,
        now: Now,
    ) {
        let socket = &mut self.sockets[self.clients[from.key].socket as usize];
        socket.counters.truncated += truncated;
        socket.counters.oversized += oversized;
        let Sender { id, peer, .. } = from;
        if truncated > 0 {
            socket.truncated(*id, peer, truncated, now.instant);
        }
        if let Some(announced) = announced {
            socket.announced((*id, peer), &announced, now.instant);
        }
        if oversized > 0 {
            socket.oversized(*id, peer, oversized, now.instant);
        }
    }

    /// Takes a client out and ends its stream.
    pub(super) fn close(&mut self, key: usize, reason: &Close, now: Now) {
        let mut client = self.clients.remove(key);
        if !self.effects.is_empty() {
            self.effects.forget(key);
        }
        self.left = true;
        for timer in [Timer::Idle, Timer::Slow] {
            if let Some(at) = client.note_timer(timer as usize, None) {
                self.timers.remove(&(at, key, timer));
            }
        }
        client.charge.settle(&mut self.limits, 0);
        self.limits.leave(client.peer.uid);
        self.users.leave(client.peer.uid);
        if client.awaits == Some(Awaits::Quota) {
            self.leave_quota_queue(key);
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
        socket.counters.lost(&loss);
        let ended = matches!(
            reason,
            Close::Done | Close::HangUp | Close::Stopping | Close::Changed(_)
        );
        socket.counters.closed += u64::from(!ended);
        socket.counters.oversized += u64::from(matches!(reason, Close::MessageTooLong { .. }));
        socket.closed((client.id, &client.peer), reason, &loss, now.instant);
        self.call(client.socket as usize, now);
    }
}
