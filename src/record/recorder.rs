//! How the messages of one socket go into its record, which other sockets may write too. Each socket has its own
//! `Encoder`, which puts its name into its lines.
//!
//! Where the record is full, senders wait, or messages are dropped (`on-full`): then the line of a gap comes in their
//! place, as soon as there is room for it. What was dropped has no numbers, so these go on without a hole.

use std::{
    cell::{RefCell, RefMut},
    mem,
    rc::Rc,
    time::SystemTime,
};

use super::{Encoder, Full, Gap, Line, OnFull, Record, queue};
use crate::{
    message_batch::Batch,
    peer::{ClientId, Peer},
};

/// A record as one of its sockets sees it.
#[derive(Debug)]
pub struct Recorder {
    encoder: Encoder,
    record: Rc<RefCell<Record>>,
    /// The number of the socket in the hub.
    socket: usize,
    /// What was dropped behind its last line.
    gap: Gap,
    /// What was dropped, and is not counted yet.
    uncounted: Gap,
    /// Why it was dropped.
    why: Full,
}

impl Recorder {
    /// That of the first socket that writes `record`.
    #[must_use]
    pub fn new(encoder: Encoder, record: Record) -> Self {
        Self::of(encoder, Rc::new(RefCell::new(record)))
    }

    /// That of another socket, which writes the same record.
    #[must_use]
    pub fn beside(&self, encoder: Encoder) -> Self {
        Self::of(encoder, Rc::clone(&self.record))
    }

    fn of(encoder: Encoder, record: Rc<RefCell<Record>>) -> Self {
        Recorder {
            encoder,
            record,
            socket: 0,
            gap: Gap::default(),
            uncounted: Gap::default(),
            why: Full::NotOpen,
        }
    }

    /// The record. Nobody else may have it at the same time.
    #[must_use]
    pub fn record(&self) -> RefMut<'_, Record> {
        self.record.borrow_mut()
    }

    /// Its socket has this number in the hub.
    pub fn join(&mut self, socket: usize) {
        self.socket = socket;
        self.record().join(socket);
    }

    /// Whether other sockets write the record too: its numbers are not those of this socket alone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.record) > 1
    }

    /// Whether its lines go to the journal.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.encoder.is_journal()
    }

    /// Goes on behind what was dropped before.
    pub fn resume_gap(&mut self, gap: Gap) {
        self.gap = gap;
    }

    /// What was dropped behind the last line of its socket.
    #[must_use]
    pub fn gap(&self) -> Gap {
        self.gap
    }

    /// What was dropped since this was called last, and why.
    pub fn take_dropped(&mut self) -> (Gap, Full) {
        (mem::take(&mut self.uncounted), self.why)
    }

    /// Whether something of its socket waits to be told or counted.
    #[must_use]
    pub fn has_dropped(&self) -> bool {
        !self.gap.is_none() || !self.uncounted.is_none()
    }

    /// Takes messages from the start of `batch`; returns the bytes that it took.
    pub fn receive(
        &mut self,
        id: ClientId,
        peer: &Peer,
        batch: &Batch<'_>,
        now: SystemTime,
    ) -> usize {
        self.encoder.set_time(now);
        let record = Rc::clone(&self.record);
        let mut record = record.borrow_mut();
        let mut taken = 0;
        for message in batch.iter() {
            let line = Line {
                client: id,
                peer,
                message: message.body,
                truncated: message.truncated,
            };
            if !self.put_line(&mut record, &line, now) {
                return taken;
            }
            taken = message.end;
        }
        batch.bytes.len()
    }

    /// Takes one message, be it to drop it; false where its sender has to wait.
    pub fn put(&mut self, line: &Line<'_>, now: SystemTime) -> bool {
        self.encoder.set_time(now);
        let record = Rc::clone(&self.record);
        self.put_line(&mut record.borrow_mut(), line, now)
    }

    #[inline]
    fn put_line(&mut self, record: &mut Record, line: &Line<'_>, now: SystemTime) -> bool {
        let is_told = self.gap.is_none() || self.tell(record, now);
        let encoder = &mut self.encoder;
        let write = |lines: &mut Vec<u8>, seq| encoder.put(lines, seq, line);
        if is_told && record.put(self.socket, true, now, write) {
            return true;
        }
        if record.on_full() == OnFull::Wait {
            return false;
        }
        self.gap.add(line.message);
        self.uncounted.add(line.message);
        self.why = record.why_full();
        true
    }

    /// Puts a line in place of what was dropped; false while there is no room for it.
    pub fn put_gap(&mut self, now: SystemTime) -> bool {
        self.encoder.set_time(now);
        let record = Rc::clone(&self.record);
        self.gap.is_none() || self.tell(&mut record.borrow_mut(), now)
    }

    fn tell(&mut self, record: &mut Record, now: SystemTime) -> bool {
        let (encoder, gap) = (&self.encoder, &self.gap);
        let write = |lines: &mut Vec<u8>, _| encoder.put_gap(lines, gap);
        let is_told = record.put(self.socket, false, now, write);
        if is_told {
            self.gap = Gap::default();
        }
        is_told
    }

    /// The same, if something was written since there was no room.
    pub fn tell_gap(&mut self, now: SystemTime) {
        if !self.gap.is_none() && !self.record().is_full() {
            self.put_gap(now);
        }
    }

    /// What has been recorded so far, for `roll_back`.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            record: self.record().mark(),
            gaps: (self.gap, self.uncounted),
        }
    }

    /// Takes back what came since `mark`, which is of this turn.
    pub fn roll_back(&mut self, mark: Mark) {
        self.record().roll_back(mark.record);
        (self.gap, self.uncounted) = mark.gaps;
    }
}

/// A state of a record within a turn.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    record: queue::Mark,
    gaps: (Gap, Gap),
}
