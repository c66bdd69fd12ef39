//! relay: every message goes to all other clients of the socket, in one order that all see.
//!
//! What clients send in a turn gathers in a buffer. It is given out at the end of the turn, or when the buffer is
//! full: each receiver gets one write of the buffer less what it sent itself. What the kernel does not take
//! waits in the receiver's queue, so the buffer never grows beyond the room in the fullest queue.
//!
//! Where that queue is full, `slow-client` decides. `wait`: senders wait until the receivers that hold them
//! up have read half of their queues. `disconnect`: these receivers are closed. `drop`: each message is
//! dropped for the receivers that have no room for it, and they are told of the gap where messages are
//! stamped. No receiver loses anything before it had a chance to read: once the buffer was full, the senders that
//! are left wait for the next turn, and what waits for a receiver is written again before it is judged.
//!
//! With a `history`, who comes first gets the last messages that were given out: what came in this turn is given
//! out before, so that nothing is missing between the last of them and the first that follows, and nothing repeated.

mod history;
mod slow_receivers;
mod stamp;
mod turn_buffer;

use std::{collections::HashMap, mem};

use slab::Slab;

use history::History;
use stamp::Stamp;
use turn_buffer::TurnBuffer;

use super::{Outbox, Sender, Standing};
use crate::{
    config::SlowClient,
    connection::{Connection, Stream, waits::HoldUps},
    error::Close,
    frame::{Cut, Framing},
    message_batch::Batch,
    record::Encoder,
    round_robin::{DELIVERY, FANOUT, MESSAGE},
};

/// One socket's relay.
#[derive(Debug)]
pub struct Relay {
    framing: Framing,
    /// Bytes that each message has here and not on the wire.
    unseen: usize,
    slow_client: SlowClient,
    /// Where messages are stamped.
    stamp: Option<Stamp>,
    members: Vec<Member>,
    /// How many members each user has.
    users: HashMap<u32, usize>,
    /// The messages of this turn.
    buffer: TurnBuffer,
    /// Bytes that the buffer may have. Found anew when something comes into an empty buffer.
    room: usize,
    /// Set while one client sent all that the buffer has: it gets nothing of that, so its own queue needs no
    /// room.
    only_sender: Option<usize>,
    /// The buffer was full in this turn: more is taken in the next one.
    is_paused: bool,
    /// The receivers for which senders wait.
    hold_ups: HoldUps,
    history: History,
}

#[derive(Debug)]
struct Member {
    key: usize,
    uid: u32,
    /// Where the buffer stood when it came; 0 in the turns after that.
    since: usize,
}

impl Relay {
    /// A relay without clients. `unseen`: bytes that each message has under `framing` and not on the
    /// wire. `stamp`: what makes JSON records of messages, and the number of the last one.
    #[must_use]
    pub fn new(
        framing: Framing,
        unseen: usize,
        slow_client: SlowClient,
        stamp: Option<(Encoder, u64)>,
    ) -> Self {
        Relay {
            framing,
            unseen,
            slow_client,
            stamp: stamp.map(|(encoder, seq)| Stamp::new(encoder, framing, seq)),
            members: Vec::new(),
            users: HashMap::new(),
            buffer: TurnBuffer::default(),
            room: 0,
            only_sender: None,
            is_paused: false,
            hold_ups: HoldUps::default(),
            history: History::default(),
        }
    }

    /// Who comes gets the last messages first: up to `most`, of no more than `size` bytes.
    #[must_use]
    pub fn with_history(mut self, most: usize, size: usize) -> Self {
        self.history = History::new(most, size);
        self
    }

    /// Whether `other` keeps as much of what it gave out.
    #[must_use]
    pub fn has_history_of(&self, other: &Relay) -> bool {
        self.history.has_bounds_of(&other.history)
    }

    /// Takes over `slow-client`, `stamp` and `history` of `new`, which is of the same framing and has no clients.
    /// Nothing may be in the buffer. Who holds up senders is found anew when these go on.
    pub fn renew<S: Stream>(
        &mut self,
        new: Relay,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) {
        debug_assert!(self.buffer.is_empty(), "renewed in mid-turn");
        self.slow_client = new.slow_client;
        self.history.renew(&new.history);
        if self.stamp.is_some() != new.stamp.is_some() {
            // Nobody is to get messages of two forms.
            self.history = new.history;
        }
        self.stamp = new.stamp;
        for member in &self.members {
            if self.hold_ups.release(&mut clients[member.key]) {
                touched.push(member.key);
            }
        }
    }

    /// Numbers of messages go on from `seq`, or from where they stand if that is further.
    pub fn go_on_from(&mut self, seq: u64) {
        if let Some(stamp) = &mut self.stamp {
            stamp.go_on_from(seq);
        }
    }

    /// Whether messages carry the time.
    #[must_use]
    pub fn stamps(&self) -> bool {
        self.stamp.is_some()
    }

    /// The number of the last message that was stamped; 0 where messages are not.
    #[must_use]
    pub fn stamped(&self) -> u64 {
        self.stamp.as_ref().map_or(0, Stamp::seq)
    }

    /// What a later process goes on from.
    #[must_use]
    pub fn park(&self) -> Standing {
        Standing {
            stamped: self.stamped(),
            enough: self.hold_ups.enough(),
            history: self.history.to_bytes(),
        }
    }

    /// Goes on from where an earlier process stood.
    pub fn resume(&mut self, standing: &Standing) {
        self.go_on_from(standing.stamped);
        self.hold_ups = HoldUps::resume(standing.enough);
        self.history.keep(self.framing, &standing.history);
    }

    /// How many clients get a message of one of them.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.members.len().saturating_sub(1)
    }

    /// Client `key` gets the last messages, and what comes from now on.
    pub fn join<S: Stream>(&mut self, key: usize, out: &mut Outbox<'_, S>) {
        if !self.history.is_off() {
            self.end_turn(out);
            let (count, messages) = self.history.last(out.room(key));
            if count > 0
                && let Err(reason) = out.give(key, &messages)
            {
                out.effects.failed.push((key, reason));
            }
            let traffic = &mut out.clients[key].traffic;
            traffic.before = traffic.before.saturating_sub(count);
        }
        self.enroll(key, &mut out.clients[key]);
    }

    /// Client `key` gets what comes from now on.
    fn enroll<S>(&mut self, key: usize, client: &mut Connection<S>) {
        client.receiver = true;
        let uid = client.peer.uid;
        self.members.push(Member {
            key,
            uid,
            since: self.buffer.len(),
        });
        *self.users.entry(uid).or_default() += 1;
    }

    /// Client `key` of an earlier process, for whom senders may wait, goes on.
    pub fn rejoin<S>(&mut self, key: usize, client: &mut Connection<S>) {
        self.enroll(key, client);
        self.hold_ups.join(client);
    }

    /// Client `key` gets no more.
    pub fn leave<S>(&mut self, key: usize, client: &mut Connection<S>) {
        if let Some(index) = self.members.iter().position(|member| member.key == key) {
            let member = self.members.swap_remove(index);
            self.forget(member.uid);
        }
        self.hold_ups.release(client);
        client.receiver = false;
    }

    fn forget(&mut self, uid: u32) {
        if let Some(users) = self.users.get_mut(&uid) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&uid);
            }
        }
    }

    /// Takes messages from the start of `batch`; returns the bytes that it took. Under `wait` it may
    /// take a part; the sender then waits until the socket's wait queue calls it.
    pub fn receive<S: Stream>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        out: &mut Outbox<'_, S>,
    ) -> usize {
        if self.history.is_off() && self.members.iter().all(|member| member.key == from.key) {
            if let Some(stamp) = &mut self.stamp {
                stamp.pass(batch.messages);
            }
            return batch.bytes.len();
        }
        let mut taken = 0;
        // What a sender says is work for each receiver. One message may always be.
        let mut share = FANOUT / self.members.len().max(1);
        loop {
            if self.is_paused {
                return taken;
            }
            let room = self.room(from.key, out);
            let before = self.buffer.len();
            let mut end = self.take(from, batch, taken, room.min(share), out);
            if end == 0 && share < room {
                let needed = self.next(from, batch, taken, out);
                if needed <= room {
                    end = self.take(from, batch, taken, needed, out);
                }
            }
            taken = end;
            share = share.saturating_sub(self.count(before, out));
            if taken == batch.bytes.len() {
                return taken;
            }
            if share < room && taken > 0 {
                out.is_turn_over = true;
                return taken;
            }
            if !self.buffer.is_empty() {
                self.give_out(out);
                self.is_paused = self.slow_client != SlowClient::Wait;
                continue;
            }
            let needed = self.next(from, batch, taken, out);
            match self.slow_client {
                SlowClient::Wait => {
                    if self.hold_up(from.key, needed, out) {
                        return taken;
                    }
                }
                SlowClient::Disconnect => {
                    if self.evict(from.key, needed, out) {
                        continue;
                    }
                }
                SlowClient::Drop => {}
            }
            // A quota is in the way, and no queue. One message is taken all the same: the kernel takes what it
            // can of it, and for the rest there is the part of the quota that no input may use.
            taken = self.take(from, batch, taken, needed, out);
            share = share.saturating_sub(self.count(0, out));
            if taken == batch.bytes.len() {
                return taken;
            }
        }
    }

    /// Counts the work of what the buffer has grown by, from `before` on; returns that growth.
    fn count<S>(&self, before: usize, out: &mut Outbox<'_, S>) -> usize {
        let grown = self.buffer.len() - before;
        if grown > 0 {
            let writes = if before == 0 { DELIVERY } else { 0 };
            out.effects.work += self.members.len() * (grown + writes);
        }
        grown
    }

    /// Adds messages of `batch` behind `start` to the buffer, no more than `room` bytes; returns where
    /// it stopped.
    fn take<S>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        start: usize,
        room: usize,
        out: &Outbox<'_, S>,
    ) -> usize {
        let Some(stamp) = &mut self.stamp else {
            let end = batch.fit(start, room);
            let bytes = &batch.bytes[start..end];
            self.buffer
                .add(from.key, |buffer| buffer.extend_from_slice(bytes));
            return end;
        };
        let mut taken = start;
        self.buffer.add(from.key, |buffer| {
            let full = buffer.len() + room;
            for message in batch.behind(start) {
                let before = buffer.len();
                stamp.put(from, message.body, out.now.wall, buffer);
                if buffer.len() > full {
                    buffer.truncate(before);
                    return;
                }
                stamp.pass(1);
                taken = message.end;
            }
            taken = batch.bytes.len();
        });
        taken
    }

    /// Bytes that the message behind `start` takes in the buffer.
    fn next<S>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        start: usize,
        out: &Outbox<'_, S>,
    ) -> usize {
        if let Some(stamp) = &mut self.stamp {
            let mut record = Vec::new();
            if let Some(message) = batch.behind(start).next() {
                stamp.put(from, message.body, out.now.wall, &mut record);
            }
            return record.len();
        }
        match self.framing.cut_next(&batch.bytes[start..]) {
            Cut::Whole(bytes) if self.framing != Framing::None => bytes,
            // Any part fits.
            _ => 1,
        }
    }

    /// Bytes that the buffer may still grow by what client `from` says.
    fn room<S: Stream>(&mut self, from: usize, out: &Outbox<'_, S>) -> usize {
        if self.buffer.is_empty() {
            self.only_sender = Some(from);
            self.room = out.queue_size;
            if self.slow_client != SlowClient::Drop {
                let others = self.members.iter().filter(|member| member.key != from);
                let queues = others.map(|member| out.queue_room(member.key)).min();
                // What other sockets do in this turn has the other half.
                let quota = out.limits.room_each(&self.users, self.members.len()) / 2;
                self.room = quota.min(queues.unwrap_or(out.queue_size));
            }
        } else if let Some(only_sender) = self.only_sender
            && only_sender != from
        {
            self.only_sender = None;
            if self.slow_client != SlowClient::Drop && out.clients.contains(only_sender) {
                self.room = self.room.min(out.queue_room(only_sender));
            }
        }
        self.room.saturating_sub(self.buffer.len())
    }

    /// What each message costs beside its bytes, for all receivers together: where it is not part of one
    /// write.
    #[must_use]
    pub fn message_work(&self) -> usize {
        let each = match self.slow_client {
            _ if self.unseen > 0 => DELIVERY,
            SlowClient::Drop => MESSAGE,
            SlowClient::Wait | SlowClient::Disconnect => 0,
        };
        each * self.members.len()
    }

    /// Whether the end of the turn brings something.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_paused || !self.buffer.is_empty()
    }

    /// Gives out what was said in this turn.
    pub fn end_turn<S: Stream>(&mut self, out: &mut Outbox<'_, S>) {
        if !self.buffer.is_empty() {
            self.give_out(out);
        }
        self.is_paused = false;
    }

    /// Gives every client what the others said.
    fn give_out<S: Stream>(&mut self, out: &mut Outbox<'_, S>) {
        let mut members = mem::take(&mut self.members);
        members.retain_mut(|member| {
            let given = self.give(member, out);
            member.since = 0;
            if let Err(reason) = given {
                self.forget(member.uid);
                out.effects.failed.push((member.key, reason));
                return false;
            }
            true
        });
        self.members = members;
        self.history.keep(self.framing, self.buffer.bytes());
        self.buffer.clear();
    }

    fn give<S: Stream>(&self, member: &Member, out: &mut Outbox<'_, S>) -> Result<(), Close> {
        let key = member.key;
        let slices = self.buffer.of_others(key, member.since);
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if bytes == 0 {
            return Ok(());
        }
        if self.slow_client == SlowClient::Drop {
            let is_behind =
                |out: &Outbox<'_, S>| out.clients[key].gap.is_some() || out.room(key) < bytes;
            if is_behind(out) {
                self.write_again(key, out)?;
            }
            if is_behind(out) {
                return self.give_what_fits(key, &slices, out);
            }
        }
        out.give(key, &slices)
    }
}
