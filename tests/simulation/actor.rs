//! One client of a schedule: what it sent, what became of it, and what it must get.

use std::{fmt, time::Duration};

use udsd::frame::Framing;

use crate::{
    plan::{Plan, Witness},
    receiver::Receiver,
    world::{Client, PEER},
};

pub struct Actor {
    pub client: Client,
    pub room: usize,
    pub uid: u32,
    /// The hub's number for it.
    pub number: usize,
    /// Its number among the clients of its socket.
    pub nth: usize,
    /// The first place in the common order that it is to see.
    pub joined: usize,
    /// It was given what was passed on last before it came.
    pub is_greeted: bool,
    /// It sends nothing, always has room, and sees the common order.
    pub witness: bool,
    /// It takes nothing until the end.
    pub deaf: bool,
    /// Messages as they are passed on.
    pub messages: Vec<Vec<u8>>,
    /// Where each ends in what it sent.
    ends: Vec<usize>,
    sent: usize,
    /// The last message has no terminator: the end of the stream ends it.
    unterminated: bool,
    /// The last message is to be lost.
    pub unfinished: bool,
    /// Its last message is too long: the hub will close it.
    pub too_long: bool,
    /// Messages that it sent behind that: perhaps they are read, and they are not taken.
    pub behind: usize,
    pub finished: bool,
    pub gone: bool,
    pub killed: bool,
    /// After the last step some of what it sent was taken and not stored, of which it is told.
    pub awaits_ack: bool,
    /// Its socket had another record before all that it sent was stored.
    pub parted: bool,
    /// What was to be checked at its end has been.
    pub over: bool,
    /// Messages that the service took.
    pub taken: usize,
    /// Messages read whole and counted as due under echo.
    pub echoed: usize,
    pub receiver: Receiver,
    /// Messages of which it was told that they are stored, and the bytes of what it was told.
    pub told: usize,
    heard: usize,
    /// What had been written to it when: the last value of each moment.
    written: Vec<(Duration, usize)>,
    /// Bytes read from it.
    pub read: usize,
    /// Bytes that it may be owed beyond `queue-size`: they were before that was lowered.
    pub before: usize,
    /// Bytes of gaps that may wait for it beyond `queue-size`: a reload told them.
    pub gaps: usize,
    /// The hub had begun to stop, or its socket was gone, when this was last looked at.
    pub stopped: bool,
    /// Something was read of it in this step.
    pub was_read: bool,
    /// Messages of it waited after the last step; what had been taken.
    pub held: Option<usize>,
    /// After the last step others kept it waiting.
    pub excused: bool,
    /// When bytes last went either way, or it was last kept waiting.
    pub active: Duration,
    /// When it was first seen closed.
    pub closed_at: Option<Duration>,
    /// Since when its queue stands in somebody's way.
    pub in_way_since: Option<Duration>,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = self.client.wire.borrow();
        write!(
            f,
            "client {} on {}: {} messages, {} bytes read of {}, {} taken; {} bytes owed, {} in the kernel, {:?}",
            self.number,
            self.room,
            self.messages.len(),
            wire.read,
            self.sent,
            self.taken,
            self.receiver.owed(),
            wire.kernel.len(),
            wire.watched
        )?;
        for (is, what) in [
            (self.witness, "listens"),
            (self.deaf, "deaf"),
            (self.finished, "finished"),
            (self.gone, "gone"),
            (self.too_long, "too long"),
            (self.excused, "excused"),
            (wire.full, "full"),
        ] {
            if is {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}

impl Actor {
    pub fn new(client: Client, room: usize, number: usize, nth: usize, now: Duration) -> Self {
        Actor {
            client,
            room,
            uid: PEER.uid,
            number,
            nth,
            joined: 0,
            is_greeted: false,
            witness: false,
            deaf: false,
            messages: Vec::new(),
            ends: Vec::new(),
            sent: 0,
            unterminated: false,
            unfinished: false,
            too_long: false,
            behind: 0,
            finished: false,
            gone: false,
            killed: false,
            awaits_ack: false,
            parted: false,
            over: false,
            taken: 0,
            echoed: 0,
            receiver: Receiver::default(),
            told: 0,
            heard: 0,
            written: vec![(now, 0)],
            read: 0,
            before: 0,
            gaps: 0,
            stopped: false,
            was_read: false,
            held: None,
            excused: false,
            active: now,
            closed_at: None,
            in_way_since: None,
        }
    }

    pub fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    pub fn can_send(&self) -> bool {
        self.is_open() && !self.finished && !self.gone && !self.too_long && !self.witness
    }

    fn put(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
        self.sent += bytes.len();
    }

    /// Sends its next `count` messages.
    pub fn send(&mut self, plan: &Plan, count: usize) {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let message = plan.message(self.number, self.nth, self.messages.len());
            bytes.extend(&message);
            self.ends.push(self.sent + bytes.len());
            self.messages.push(plan.passed(message));
        }
        self.put(&bytes);
    }

    /// What the limit at the time of a change says of it is not known: a part of a length was read, or
    /// something is on its way that is no message.
    pub fn is_undecided(&self) -> bool {
        let whole = self.ends.partition_point(|&end| end <= self.read);
        let start = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        let is_begun = (1..4).contains(&(self.read - start));
        !self.over && (is_begun || self.too_long || self.unfinished)
    }

    /// Messages that it sent and of which nothing was read are judged by `plan`: at the first that is too
    /// long it will be closed.
    pub fn judge(&mut self, plan: &Plan) {
        let start = |i: usize| i.checked_sub(1).map_or(0, |last| self.ends[last]);
        let is_too_long = |&i: &usize| {
            let body = plan.body_of(&self.messages[i]);
            start(i) >= self.read && body.len() > plan.socket.message_size
        };
        if let Some(i) = (0..self.messages.len()).find(is_too_long) {
            self.unterminated &= i == self.messages.len();
            self.behind = self.messages.len() - i;
            self.messages.truncate(i);
            self.ends.truncate(i);
            self.too_long = true;
        }
    }

    pub fn send_too_long(&mut self, plan: &Plan) {
        if let Some(bytes) = plan.too_long() {
            self.put(&bytes);
            self.too_long = true;
        }
    }

    /// Shuts down its sending side, in the middle of a message where `torn`.
    pub fn finish(&mut self, plan: &Plan, torn: bool) {
        let message = plan.message(self.number, self.nth, self.messages.len());
        if torn && message.len() > 1 && self.can_send() && !plan.has_packets() {
            self.put(&message[..message.len() - 1]);
            if matches!(plan.socket.framing, Framing::Lines | Framing::Nul) {
                self.unterminated = true;
                self.ends.push(self.sent);
                self.messages.push(plan.passed(message));
            } else {
                self.unfinished = true;
            }
        }
        self.finished = true;
        self.client.finish();
    }

    /// Closes: reading goes on to the end of what it sent, writing fails.
    pub fn close(&mut self) {
        self.finished = true;
        self.gone = true;
        let mut wire = self.client.wire.borrow_mut();
        wire.finished = true;
        wire.gone = true;
        wire.kernel.clear();
    }

    /// Messages that the hub has read to their end.
    pub fn whole(&self) -> usize {
        let whole = self.ends.partition_point(|&end| end <= self.read);
        let open_end = self.unterminated && !self.client.wire.borrow().ended;
        whole - usize::from(open_end && whole == self.ends.len())
    }

    /// Bytes that are held for it: input that waits, and what it is owed.
    pub fn held_bytes(&self, plan: &Plan) -> usize {
        let done = match plan.witness {
            Witness::Nobody => self.echoed,
            _ => self.taken,
        };
        let end = done.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.receiver.owed() + self.read.saturating_sub(end)
    }

    /// It sent a too long message, and the hub has seen some of that.
    pub fn is_cut_off(&self) -> bool {
        self.too_long && self.read > self.ends.last().copied().unwrap_or(0)
    }

    /// Something of it is to be read.
    pub fn is_unread(&self) -> bool {
        let wire = self.client.wire.borrow();
        !wire.sent.is_empty() || ((wire.finished || wire.reset) && !wire.ended)
    }

    /// The kernel has no room for more; an event will tell when it has.
    pub fn awaits_room(&self) -> bool {
        let wire = self.client.wire.borrow();
        wire.watched.write && wire.full
    }

    /// Looks at what it was told since the last time: each answer is for more messages than the one before.
    pub fn look_at_answers(&mut self, plan: &Plan, said: &[u8]) {
        while let Some(length) = plan.first(&said[self.heard..]) {
            let answer = &said[self.heard..self.heard + length];
            let text = str::from_utf8(plan.body_of(answer)).unwrap();
            let told = text.strip_prefix("ok ").and_then(|n| n.parse().ok());
            let more = told.filter(|told| *told > self.told);
            self.told = more.unwrap_or_else(|| panic!("client {} got {text:?}", self.number));
            self.heard += length;
        }
    }

    pub fn note_progress(&mut self, now: Duration) {
        let (read, written) = {
            let wire = self.client.wire.borrow();
            (wire.read, wire.written)
        };
        let last = self.written.last_mut().unwrap();
        if read != self.read || written != last.1 {
            self.active = now;
        }
        self.read = read;
        if last.0 == now {
            last.1 = written;
        } else if written != last.1 {
            self.written.push((now, written));
        }
    }

    /// Bytes written to it in the last `span`.
    pub fn written_within(&self, span: Duration, now: Duration) -> usize {
        let (_, all) = *self.written.last().unwrap();
        let before = self.written.iter().rev().find(|(at, _)| *at + span <= now);
        all - before.map_or(0, |(_, written)| *written)
    }
}
