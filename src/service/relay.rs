//! relay: every message goes to all other clients of the socket, in one order that all see.
//!
//! What clients send in a turn gathers in a log, and is given out at the end of the turn or when the
//! log is full: each receiver gets one write of the log less what it sent itself. What the kernel
//! does not take of it waits in the receiver's queue, so the log never grows beyond what the fullest
//! queue has room for. Where there is none, `slow-client` decides: senders wait in a line until those
//! who hold them up have read half of their queues; or those who hold up are closed; or, message by
//! message, who has no room goes without, and is told of the gap where messages are stamped.

use std::{collections::HashMap, io::IoSlice, mem};

use slab::Slab;

use super::{Line, Outbox, Sender};
use crate::{
    batch::Batch,
    config::SlowClient,
    connection::{Connection, Gap, Stream},
    error::Close,
    frame::Framing,
    record::Encoder,
};

/// One socket's relay.
#[derive(Debug)]
pub struct Relay {
    framing: Framing,
    /// Bytes that each message has here and not on the wire.
    unseen: usize,
    slow_client: SlowClient,
    /// Makes a JSON record of each message, where they are stamped.
    stamp: Option<Encoder>,
    /// The number of the last message.
    seq: u64,
    /// A record before it is framed.
    record: Vec<u8>,
    members: Vec<Member>,
    /// How many members each user has.
    users: HashMap<u32, usize>,
    /// The messages of this turn, as they are delivered.
    log: Vec<u8>,
    /// Whose they are, in order.
    parts: Vec<Part>,
    /// Bytes that the log may have; of no meaning while it is empty.
    room: usize,
    /// The one whose messages all of the log is, and whose own queue does not matter therefore.
    sole: Option<usize>,
    /// Receivers for whom senders wait.
    holding_up: usize,
    /// The room in its queue at which a receiver no longer does.
    enough: usize,
}

#[derive(Debug)]
struct Member {
    key: usize,
    uid: u32,
    /// Where the log stood when it came; 0 in the turns after that.
    since: usize,
}

/// A run of messages of one sender.
#[derive(Debug)]
struct Part {
    from: usize,
    end: usize,
}

impl Relay {
    /// A relay without clients. `unseen`: bytes that each message has under `framing` and not on the
    /// wire. `stamp`: messages become JSON records, numbered on from `seq`.
    #[must_use]
    pub fn new(
        framing: Framing,
        unseen: usize,
        slow_client: SlowClient,
        stamp: Option<Encoder>,
        seq: u64,
    ) -> Self {
        Relay {
            framing,
            unseen,
            slow_client,
            stamp,
            seq,
            record: Vec::new(),
            members: Vec::new(),
            users: HashMap::new(),
            log: Vec::new(),
            parts: Vec::new(),
            room: 0,
            sole: None,
            holding_up: 0,
            enough: 0,
        }
    }

    /// Whether messages carry the time.
    #[must_use]
    pub fn stamps(&self) -> bool {
        self.stamp.is_some()
    }

    /// Client `key` of user `uid` gets what comes from now on.
    pub fn join(&mut self, key: usize, uid: u32) {
        self.members.push(Member {
            key,
            uid,
            since: self.log.len(),
        });
        *self.users.entry(uid).or_default() += 1;
    }

    /// Client `key` gets no more. `held_up`: senders waited for it.
    pub fn leave(&mut self, key: usize, held_up: bool) {
        if let Some(place) = self.members.iter().position(|member| member.key == key) {
            let member = self.members.swap_remove(place);
            self.forget(member.uid);
        }
        if held_up {
            self.holding_up -= 1;
        }
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
    /// take a part; the sender then has to wait until the socket's line calls it.
    pub fn receive<S: Stream>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        out: &mut Outbox<'_, S>,
    ) -> usize {
        if self.members.iter().all(|member| member.key == from.key) {
            self.seq += batch.messages;
            return batch.bytes.len();
        }
        let mut taken = 0;
        loop {
            let room = self.room(from.key, out);
            taken = self.take(from, batch, taken, room, out);
            if taken == batch.bytes.len() {
                return taken;
            }
            if !self.log.is_empty() {
                self.give_out(out);
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
            // No queue is in the way but a quota, which others may have used up: one message, of
            // which the kernel will take what it can.
            taken = self.take(from, batch, taken, needed, out);
        }
    }

    /// Adds messages of `batch` behind `start` to the log, no more than `room` bytes; returns where
    /// it stopped.
    fn take<S>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        start: usize,
        room: usize,
        out: &Outbox<'_, S>,
    ) -> usize {
        let before = self.log.len();
        let mut end = start;
        if self.stamp.is_some() {
            end = batch.bytes.len();
            let mut done = start;
            for message in batch.behind(start) {
                let so_far = self.log.len();
                self.put_stamped(from, message.body, out);
                if self.log.len() - before > room {
                    self.log.truncate(so_far);
                    end = done;
                    break;
                }
                self.seq += 1;
                done = message.end;
            }
        } else {
            end = batch.fit(end, room);
            self.log.extend_from_slice(&batch.bytes[start..end]);
        }
        if self.log.len() > before {
            let end = self.log.len();
            match self.parts.last_mut() {
                Some(last) if last.from == from.key => last.end = end,
                _ => self.parts.push(Part {
                    from: from.key,
                    end,
                }),
            }
        }
        end
    }

    fn put_stamped<S>(&mut self, from: &Sender, body: &[u8], out: &Outbox<'_, S>) {
        let Some(encoder) = &mut self.stamp else {
            return;
        };
        encoder.set_time(out.now.wall);
        self.record.clear();
        encoder.put(
            &mut self.record,
            self.seq.saturating_add(1),
            from.id,
            &from.peer,
            body,
            false,
        );
        put(self.framing, self.record.trim_ascii_end(), &mut self.log);
    }

    /// Bytes that the message behind `start` takes in the log.
    fn next<S>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        start: usize,
        out: &Outbox<'_, S>,
    ) -> usize {
        let Some(message) = batch.behind(start).next() else {
            return batch.bytes.len() - start;
        };
        if self.stamp.is_none() {
            return match self.framing {
                Framing::None => 1,
                _ => message.end - start,
            };
        }
        let before = self.log.len();
        self.put_stamped(from, message.body, out);
        let needed = self.log.len() - before;
        self.log.truncate(before);
        needed
    }

    /// Bytes that the log may still grow by what client `from` says.
    fn room<S: Stream>(&mut self, from: usize, out: &Outbox<'_, S>) -> usize {
        if self.log.is_empty() {
            self.sole = Some(from);
            self.room = out.queue_size;
            if self.slow_client != SlowClient::Drop {
                let others = self.members.iter().filter(|member| member.key != from);
                let queues = others.map(|member| out.queue_room(member.key)).min();
                // What the other sockets of the daemon do in this turn has the other half.
                let quota = out.limits.room_each(&self.users, self.members.len()) / 2;
                self.room = quota.min(queues.unwrap_or(out.queue_size));
            }
        } else if let Some(sole) = self.sole
            && sole != from
        {
            self.sole = None;
            if self.slow_client != SlowClient::Drop && out.clients.contains(sole) {
                self.room = self.room.min(out.queue_room(sole));
            }
        }
        self.room.saturating_sub(self.log.len())
    }

    /// Notes who holds up client `from`, whose next message takes `needed` bytes; whether anybody
    /// does.
    fn hold_up<S: Stream>(&mut self, from: usize, needed: usize, out: &mut Outbox<'_, S>) -> bool {
        let quota = out.limits.room_each(&self.users, self.members.len()) / 2 < needed;
        self.enough = if quota {
            out.queue_size
        } else {
            needed.max(out.queue_size / 2)
        };
        for member in &self.members {
            let client = &mut out.clients[member.key];
            let full = client.queue.room(out.queue_size) < needed;
            let over = quota && !client.queue.is_empty();
            if member.key != from && (full || over) && !client.holds_up {
                client.holds_up = true;
                self.holding_up += 1;
                out.effects.touched.push(member.key);
            }
        }
        self.holding_up > usize::from(out.clients[from].holds_up)
    }

    /// Whether `client`, which holds up senders, has read enough; it then no longer does.
    pub fn relieve<S: Stream>(&mut self, client: &mut Connection<S>, queue_size: usize) {
        if client.queue.room(queue_size) >= self.enough {
            client.holds_up = false;
            self.holding_up -= 1;
        }
    }

    /// Whether nobody holds up the first of `line`. Those whom nobody waits for any more hold up
    /// nobody: they are added to `touched`.
    pub fn frees<S: Stream>(
        &mut self,
        line: &Line,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) -> bool {
        if self.holding_up == 0 {
            return true;
        }
        let waiting = line.waiting();
        if waiting.len() < 2 && !line.is_served() {
            for member in &self.members {
                let alone = waiting.front().is_none_or(|&first| first == member.key);
                if alone && mem::take(&mut clients[member.key].holds_up) {
                    self.holding_up -= 1;
                    touched.push(member.key);
                }
            }
        }
        // What the first does not read itself, others sent.
        let first = waiting.front();
        self.holding_up == usize::from(first.is_some_and(|&key| clients[key].holds_up))
    }

    /// Closes who has no room for `needed` bytes that client `from` says; whether anybody was.
    fn evict<S: Stream>(&mut self, from: usize, needed: usize, out: &mut Outbox<'_, S>) -> bool {
        let before = self.members.len();
        let mut members = mem::take(&mut self.members);
        members.retain(|member| {
            let stays = member.key == from || out.queue_room(member.key) >= needed;
            if !stays {
                self.forget(member.uid);
                let waiting = out.clients[member.key].queue.len();
                let reason = Close::SlowReader { waiting };
                out.effects.failed.push((member.key, reason));
            }
            stays
        });
        self.members = members;
        self.members.len() < before
    }

    /// Whether messages of this turn are not given out yet.
    #[must_use]
    pub fn has_log(&self) -> bool {
        !self.log.is_empty()
    }

    /// Gives every client what the others said in this turn.
    pub fn give_out<S: Stream>(&mut self, out: &mut Outbox<'_, S>) {
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
        self.log.clear();
        self.parts.clear();
    }

    fn give<S: Stream>(&self, member: &Member, out: &mut Outbox<'_, S>) -> Result<(), Close> {
        let own = self.parts.iter().any(|part| part.from == member.key);
        if member.since == 0 && !own {
            return self.give_slices(member.key, &[IoSlice::new(&self.log)], out);
        }
        // Runs of what others said.
        let mut slices = Vec::new();
        let mut run = member.since..member.since;
        for part in self.parts.iter().filter(|part| part.end > member.since) {
            if part.from == member.key {
                slices.push(IoSlice::new(&self.log[run]));
                run = part.end..part.end;
            } else {
                run.end = part.end;
            }
        }
        slices.push(IoSlice::new(&self.log[run]));
        slices.retain(|slice| !slice.is_empty());
        self.give_slices(member.key, &slices, out)
    }

    fn give_slices<S: Stream>(
        &self,
        key: usize,
        slices: &[IoSlice<'_>],
        out: &mut Outbox<'_, S>,
    ) -> Result<(), Close> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes == 0 {
            return Ok(());
        }
        if self.slow_client == SlowClient::Drop
            && (out.clients[key].gap.is_some() || out.room(key) < bytes)
        {
            return self.give_what_fits(key, slices, out);
        }
        out.give(key, slices)
    }

    /// Message by message; counts what does not fit.
    fn give_what_fits<S: Stream>(
        &self,
        key: usize,
        slices: &[IoSlice<'_>],
        out: &mut Outbox<'_, S>,
    ) -> Result<(), Close> {
        let mut lost = 0;
        for slice in slices {
            let batch = Batch::scan(self.framing, slice, usize::MAX);
            let mut start = 0;
            for message in batch.iter() {
                let bytes = &slice[mem::replace(&mut start, message.end)..message.end];
                if !self.offer(key, bytes, out)? {
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            out.effects.dropped.push((key, lost));
        }
        Ok(())
    }

    /// Gives one message, and what is to be told before it, if both fit.
    fn offer<S: Stream>(
        &self,
        key: usize,
        message: &[u8],
        out: &mut Outbox<'_, S>,
    ) -> Result<bool, Close> {
        let told = out.clients[key].gap.as_deref().map(|gap| self.tell(gap));
        let told = told.unwrap_or_default();
        if out.room(key) >= told.len() + message.len() {
            out.clients[key].gap = None;
            let slices = [IoSlice::new(&told), IoSlice::new(message)];
            let slices = if told.is_empty() {
                &slices[1..]
            } else {
                &slices
            };
            out.give(key, slices)?;
            return Ok(true);
        }
        if self.stamp.is_some() {
            let gap = out.clients[key].gap.get_or_insert_default();
            gap.count += 1;
            gap.bytes += (message.len() - self.unseen) as u64;
        }
        Ok(false)
    }

    /// A gap as its receiver is told of it.
    #[must_use]
    pub fn tell(&self, gap: &Gap) -> Vec<u8> {
        let Gap { count, bytes } = gap;
        let text = format!("{{\"gap\":{{\"count\":{count},\"bytes\":{bytes}}}}}");
        let mut framed = Vec::new();
        put(self.framing, text.as_bytes(), &mut framed);
        framed
    }
}

/// Frames JSON, which holds no byte that ends a message under a framing that may be stamped.
fn put(framing: Framing, json: &[u8], to: &mut Vec<u8>) {
    let put = framing.put(json, to);
    debug_assert!(put.is_ok(), "JSON that does not fit {framing}");
}
