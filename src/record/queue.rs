//! A record as the event loop has it: lines gather here, and what is written is noted.
//!
//! Lines gather in `lines` until the end of the turn, when the event loop hands them to the record's
//! writer. What is not written, there and here, is bounded by the record's `queue-size`. Each of its sockets puts
//! them here by a `Recorder`, which says what happens where there is no room. `rotation` says between which lines a
//! file ends.

use std::{mem, time::SystemTime};

use super::{
    Ack, Amount, Found, Lines, ParkedAck, Position, Progress, Rotation, Segment, SegmentEnd,
    Segments, acks::Acks, statistics::Steps,
};
use crate::peer::ClientId;

/// What happens with a message that finds `queue-size` reached (`on-full`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Its sender waits.
    #[default]
    Wait,
    /// The record does without it.
    Drop,
}

/// Why a record takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its output is not open.
    NotOpen,
    /// So many bytes wait for the disk: `queue-size`.
    Queue(usize),
}

/// The record of one socket or of several.
#[derive(Debug)]
pub struct Record {
    /// The numbers of its sockets in the hub, in their order.
    sockets: Vec<usize>,
    /// Which of them comes first when there is room the next time.
    turn: usize,
    /// The socket whose next message found no room: what comes at others waits until it has. Else shorter messages
    /// would have the room for ever.
    reserved: Option<usize>,
    /// The socket that put a line here last.
    last: Option<usize>,
    queue_size: usize,
    on_full: OnFull,
    /// The number of the last line.
    seq: u64,
    /// What that was before the first line since the start: of this process, or of the first that handed over.
    start: u64,
    /// Bytes that earlier processes have written since the start.
    written_before: u64,
    /// What became of segments under them.
    segments_before: Segments,
    /// What was handed over and is not written.
    steps: Steps,
    /// The lines that are not handed over: those of this turn.
    lines: Lines,
    rotation: Rotation,
    /// The file that they are for; `None` while it is not known, and then it does not end.
    segment: Option<Segment>,
    /// Where they begin (see `Position`).
    handed_over: Position,
    /// As far as the event loop has heard.
    written: Position,
    /// Who is to be told what is stored.
    acks: Acks,
    /// What is written is to be on the disk before it counts as written.
    sync: bool,
    /// A line did not fit, and nothing has been written since.
    full: bool,
    /// Where it has no output yet, it takes nothing.
    is_open: bool,
}

impl Record {
    /// `queue_size`: bytes that may wait for the disk (one longer line may wait alone); `seq`: the
    /// number of the record's last line, 0 where it is new.
    #[must_use]
    pub fn new(queue_size: usize, seq: u64) -> Self {
        Record {
            sockets: Vec::new(),
            turn: 0,
            reserved: None,
            last: None,
            queue_size,
            on_full: OnFull::Wait,
            seq,
            start: seq,
            written_before: 0,
            segments_before: Segments::default(),
            steps: Steps::default(),
            lines: Lines::default(),
            rotation: Rotation::default(),
            segment: None,
            handed_over: 0,
            written: 0,
            acks: Acks::default(),
            sync: false,
            full: false,
            is_open: true,
        }
    }

    /// Socket number `socket` writes it too.
    pub fn join(&mut self, socket: usize) {
        self.sockets.push(socket);
        // Nobody had a number before.
        (self.reserved, self.last) = (None, None);
    }

    /// The numbers of its sockets, in their order.
    #[must_use]
    pub fn sockets(&self) -> &[usize] {
        &self.sockets
    }

    /// The same, the one whose turn it is last.
    pub fn take_turns(&mut self) -> Vec<usize> {
        let mut sockets = self.sockets.clone();
        let reserved = sockets.iter().position(|of| self.reserved == Some(*of));
        self.turn = (self.turn + 1) % sockets.len().max(1);
        sockets.rotate_left(reserved.unwrap_or(self.turn));
        sockets.reverse();
        sockets
    }

    /// Socket number `socket` no longer waits for room. Whether others did for it.
    pub fn release(&mut self, socket: usize) -> bool {
        let released = self.reserved.take_if(|of| *of == socket).is_some();
        // What did not fit is not there any more, and others may fit.
        self.full &= !released;
        released && self.sockets.len() > 1
    }

    /// Its output could not be opened: it takes nothing until that is `opened`.
    pub fn await_open(&mut self) {
        self.is_open = false;
    }

    /// Its output is open, and goes on as was `found` there.
    pub fn opened(&mut self, found: Found) {
        self.is_open = true;
        self.go_on_from(found.last_seq);
        self.segment = self.segment.or(found.segment);
    }

    /// What happens where its queue is full.
    pub fn set_on_full(&mut self, on_full: OnFull) {
        self.on_full = on_full;
    }

    /// Its files end by `rotation`. `segment`: the one that is there.
    pub fn rotate(&mut self, rotation: Rotation, segment: Option<Segment>) {
        (self.rotation, self.segment) = (rotation, segment);
    }

    /// Goes on with the file that an earlier process was taking lines for, after what became of others.
    pub fn resume_segment(&mut self, segment: Option<Segment>, before: Segments) {
        self.segment = segment.or(self.segment);
        self.segments_before = before;
    }

    /// What became of segments since the start, where this is what did under this process.
    #[must_use]
    pub fn segments(&self, now: Segments) -> Segments {
        self.segments_before.and(now)
    }

    /// The file that lines are taken for now, as far as it is known.
    #[must_use]
    pub fn segment(&self) -> Option<Segment> {
        self.segment
    }

    /// Goes on where `old` is, with its lines; only what the config says is as here, and what was found in another
    /// file.
    pub fn continue_from(&mut self, old: &mut Record) {
        self.go_on_from(old.seq);
        self.start = self.seq - (old.seq - old.start);
        (self.written_before, self.steps) = (old.written_before, mem::take(&mut old.steps));
        self.segments_before = old.segments_before;
        (self.lines, self.is_open) = (mem::take(&mut old.lines), old.is_open);
        self.segment = self.segment.or(old.segment);
        (self.handed_over, self.written) = (old.handed_over, old.written);
        self.acks = mem::take(&mut old.acks);
    }

    /// Whether what is written is to be on the disk before it counts as written.
    pub fn set_sync(&mut self, sync: bool) {
        self.sync = sync;
    }

    /// As `set_sync` said.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sync
    }

    /// A client, by its key and number, is to be told once the messages that were taken until now are written:
    /// `count` of its own.
    pub fn add_ack(&mut self, client: (usize, ClientId), count: u64) {
        let end = self.handed_over + self.lines.bytes.len() as u64;
        self.acks.add(client, count, end);
    }

    /// The next client of which messages are written by now.
    pub fn next_ack(&mut self) -> Option<Ack> {
        self.acks.next(self.written)
    }

    /// Forgets the next client that is to be told.
    pub fn forget_ack(&mut self) -> Option<Ack> {
        self.acks.forget()
    }

    /// Forgets those clients that are to be told of which `leaves` says so, and returns them.
    pub fn take_acks(&mut self, leaves: impl FnMut(&Ack) -> bool) -> Vec<Ack> {
        self.acks.take(leaves)
    }

    /// The next client of whose messages nobody can tell whether they are written.
    pub fn next_uncertain(&mut self) -> Option<Ack> {
        self.acks.next_uncertain()
    }

    /// Whether clients are to be told.
    #[must_use]
    pub fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// As the next process has them.
    #[must_use]
    pub fn park_acks(&self) -> Vec<ParkedAck> {
        let end = self.handed_over + self.lines.bytes.len() as u64;
        self.acks.park(end).collect()
    }

    /// Goes on with those of an earlier process.
    pub fn resume_acks(&mut self, parked: Vec<ParkedAck>) {
        self.acks.resume(parked);
    }

    /// Numbers go on from `seq`, or from where they stand if that is further.
    pub fn go_on_from(&mut self, seq: u64) {
        let skipped = seq.saturating_sub(self.seq);
        self.seq += skipped;
        self.start += skipped;
    }

    /// Counts on from what an earlier process had taken: what it had written, and so many messages that were
    /// not. Not to be called once something was taken.
    pub fn count_on(&mut self, written: Amount, waiting: u64) {
        let taken = written.messages.saturating_add(waiting);
        self.start = self.seq.saturating_sub(taken);
        self.written_before = written.bytes;
        self.steps = Steps::after(written.messages);
    }

    /// Takes whole lines that an earlier process had taken and not written, however many they are, before
    /// those that are not handed over yet.
    pub fn prepend(&mut self, lines: &[u8], segment_ends: &[SegmentEnd]) {
        self.lines.prepend(lines, segment_ends);
        let bytes = lines.len() as u64;
        self.acks.note_lines(self.handed_over + bytes, bytes);
    }

    /// Takes one line of socket number `socket`, which `write` adds: that of the next message or, without one, one
    /// before it (`is_message`). False where there is no room for it.
    pub(super) fn put(
        &mut self,
        socket: usize,
        is_message: bool,
        now: SystemTime,
        write: impl FnOnce(&mut Vec<u8>, u64),
    ) -> bool {
        if !self.takes(socket) {
            self.full = true;
            return false;
        }
        let before = self.lines.bytes.len();
        let seq = self.seq.saturating_add(1);
        write(&mut self.lines.bytes, seq);
        if !self.fits(before) {
            self.lines.bytes.truncate(before);
            self.full = true;
            if self.on_full == OnFull::Wait && self.last != Some(socket) {
                self.reserved = Some(socket);
            }
            return false;
        }
        if self.lines.bytes.len() > before {
            self.note_line(before, seq, now);
        }
        if is_message {
            self.seq = seq;
            (self.reserved, self.last) = (None, Some(socket));
        }
        true
    }

    /// Whether it may take a line of socket number `socket`, if there is room.
    fn takes(&self, socket: usize) -> bool {
        match self.on_full {
            _ if !self.is_open => false,
            OnFull::Wait => self.reserved.is_none_or(|of| of == socket),
            // Until something is written, what is too long is dropped, and so is what comes behind it.
            OnFull::Drop => !self.full,
        }
    }

    /// What happens where it is full.
    pub(super) fn on_full(&self) -> OnFull {
        self.on_full
    }

    /// Why it takes no more, where it does not.
    pub(super) fn why_full(&self) -> Full {
        match self.is_open {
            true => Full::Queue(self.queue_size),
            false => Full::NotOpen,
        }
    }

    /// Whether there is room for the line from `before` on. One alone may be longer than the queue.
    fn fits(&self, before: usize) -> bool {
        let ahead = (self.handed_over - self.written) as usize + before;
        ahead == 0 || self.unwritten() + self.acks.size() <= self.queue_size
    }

    /// The line from `before` on, which has this number or is before it, goes to the file, or to the next.
    #[inline]
    fn note_line(&mut self, before: usize, seq: u64, now: SystemTime) {
        let line = self.lines.bytes.len() - before;
        let Some(segment) = &mut self.segment else {
            return;
        };
        if segment.ends(self.seq, line, now, &self.rotation) {
            self.lines.segment_ends.push(SegmentEnd {
                at: before,
                first: segment.first,
                keep: self.rotation.keep,
            });
            *segment = Segment::NONE;
        }
        segment.add(seq, line, now);
    }

    /// The lines of this turn, which the caller takes out for the writer.
    pub fn hand_over(&mut self, now: SystemTime) -> &mut Lines {
        let begin = self.handed_over;
        self.handed_over += self.lines.bytes.len() as u64;
        if self.handed_over > begin {
            let part = (begin, self.handed_over);
            let messages = self.seq - self.start;
            self.steps.add(part, messages, self.queue_size, now);
        }
        &mut self.lines
    }

    /// How far it has come, where all is written up to `position`.
    #[must_use]
    pub fn progress(&self, position: Position) -> Progress {
        let taken = self.seq - self.start;
        let (written, oldest) = self.steps.at(position);
        let bytes = self.handed_over.saturating_sub(position) + self.lines.bytes.len() as u64;
        // Of a write that has not returned before a restart, nobody can tell: its lines wait no more.
        let messages = if bytes == 0 {
            0
        } else {
            taken.saturating_sub(written)
        };
        Progress {
            waiting: Amount { messages, bytes },
            written: Amount {
                messages: taken - messages,
                bytes: self.written_before.saturating_add(position),
            },
            oldest,
        }
    }

    /// Bytes that are not written, with those of this turn, or of all turns where there is no writer.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        (self.handed_over - self.written) as usize + self.lines.bytes.len()
    }

    /// Up to where the event loop has heard that lines are written.
    #[must_use]
    pub fn written(&self) -> Position {
        self.written
    }

    /// The writer has written up to `position`.
    pub fn note_written(&mut self, position: Position) {
        self.written = position;
        self.steps.note_written(position);
        self.full = false;
    }

    /// Whether a line did not fit, and nothing has been written since, or nothing can be.
    pub(super) fn is_full(&self) -> bool {
        self.full || !self.is_open
    }

    /// Whether something was written since a line did not fit, or nobody waits for that.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.full || self.on_full == OnFull::Drop
    }

    /// The number of the last line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What has been recorded so far, for `roll_back`.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            lines: self.lines.bytes.len(),
            segment_ends: self.lines.segment_ends.len(),
            segment: self.segment,
            seq: self.seq,
            turns: (self.reserved, self.last),
        }
    }

    /// Takes back what came since `mark`, which is of this turn.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.lines.bytes.truncate(mark.lines);
        self.lines.segment_ends.truncate(mark.segment_ends);
        (self.seq, self.segment) = (mark.seq, mark.segment);
        // Who waits with its message for a receiver is to leave its room to others, who may have seen it kept.
        (self.reserved, self.last) = mark.turns;
        self.full = false;
    }
}

/// A state of a record within a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    lines: usize,
    segment_ends: usize,
    segment: Option<Segment>,
    seq: u64,
    turns: (Option<usize>, Option<usize>),
}
