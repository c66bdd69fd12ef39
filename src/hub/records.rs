//! The records of the sockets. Several sockets may share one; what the event loop has for it stands at the first of
//! them, the one with the lowest number.

use std::cell::RefMut;

use super::{Hub, Now};
use crate::{
    connection::Stream,
    record::{Found, Lines, Position, Record, Recorder},
};

impl<S: Stream> Hub<S> {
    /// Tells all records which sockets they have. They do not know any yet.
    pub(super) fn join_records(&mut self) {
        for (key, socket) in &mut self.sockets {
            if let Some(recorder) = &mut socket.recorder {
                recorder.join(key);
            }
        }
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = RefMut<'_, Record>> {
        let all = self.sockets.iter();
        let all = all.filter(|(key, _)| self.recorded_at(*key) == Some(*key));
        all.filter_map(|(_, socket)| socket.record())
    }

    /// The record of socket number `socket`, where it has one.
    #[must_use]
    pub fn record(&self, socket: usize) -> Option<RefMut<'_, Record>> {
        self.sockets.get(socket)?.record()
    }

    /// The number of the first socket that shares the record of socket number `socket`, where that has one.
    #[must_use]
    pub fn recorded_at(&self, socket: usize) -> Option<usize> {
        self.record(socket)?.sockets().first().copied()
    }

    /// The numbers of all sockets that share the record of socket number `socket`.
    fn sharers(&self, socket: usize) -> Vec<usize> {
        let record = self.record(socket);
        record.map_or(Vec::new(), |of| of.sockets().to_vec())
    }

    /// Whether something waits to be written to the record of socket number `socket`, or to be told there.
    #[must_use]
    pub fn is_record_behind(&self, socket: usize) -> bool {
        let dropped = |of: &usize| {
            let recorder = self.sockets[*of].recorder.as_ref();
            recorder.is_some_and(|of| of.has_dropped())
        };
        self.record(socket).is_some_and(|of| of.unwritten() > 0)
            || self.sharers(socket).iter().any(dropped)
    }

    /// Whether somebody waits for progress of the record of socket number `socket`.
    #[must_use]
    pub fn awaits_record(&self, socket: usize) -> bool {
        let waits = |of: &usize| {
            let socket = &self.sockets[*of];
            let has_gap = |of: &Recorder| !of.gap().is_none();
            socket.pending.held() > 0
                || !socket.wait_queue.is_empty()
                || socket.recorder.as_ref().is_some_and(has_gap)
        };
        self.record(socket).is_some_and(|of| of.has_acks())
            || self.sharers(socket).iter().any(waits)
    }

    /// The lines of this turn for the record of socket number `socket`, which the caller takes out; it is the first
    /// that shares it. What was dropped for it is counted and told.
    pub fn hand_over(&mut self, socket: usize, now: Now) -> Option<RefMut<'_, Lines>> {
        let sharers = self.sharers(socket);
        if sharers.first() != Some(&socket) {
            return None;
        }
        for of in sharers {
            let socket = &mut self.sockets[of];
            let Some(recorder) = &mut socket.recorder else {
                continue;
            };
            recorder.tell_gap(now.wall);
            let (gap, why) = recorder.take_dropped();
            if !gap.is_none() {
                socket.unrecorded(gap, why, now);
            }
        }
        let record = self.record(socket)?;
        Some(RefMut::map(record, |of| of.hand_over(now.wall)))
    }

    /// The record of socket number `socket`, which was not open, is, and goes on as was `found` there. So do numbers
    /// of its sockets, or from where they stand if that is further.
    pub fn record_opened(&mut self, socket: usize, found: Found) {
        let Some(mut record) = self.record(socket) else {
            return;
        };
        record.opened(found);
        let seq = record.seq();
        drop(record);
        for of in self.sharers(socket) {
            self.sockets[of].start_at(seq);
        }
    }

    /// The record of socket number `socket`: its writer has written up to `position`. Of each of its sockets one
    /// sender that waits goes on.
    pub fn recorded(&mut self, socket: usize, position: Position, now: Now) {
        let Some(mut record) = self.record(socket) else {
            return;
        };
        record.note_written(position);
        let sockets = record.take_turns();
        drop(record);
        self.list_acks(socket);
        for of in sockets {
            self.call(of, now);
        }
    }

    /// Nobody waits at socket number `socket` for room in its record. Those go on who wait at others that share it.
    pub(super) fn release_record(&mut self, socket: usize, now: Now) {
        if self.record(socket).is_some_and(|mut of| of.release(socket)) {
            for of in self.sharers(socket).into_iter().filter(|of| *of != socket) {
                self.call(of, now);
            }
        }
    }
}
