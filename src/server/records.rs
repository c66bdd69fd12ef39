//! The records in the event loop: lines go to their writers, and what is written goes to the hub.
//!
//! A record that is not open costs its own socket: whoever sends there waits or has messages dropped, as
//! for a full disk (after a restart once its queue is full, since lines may have come along), and its thread tries again.

use log::{info, warn};

use super::Server;
use crate::{
    error::Fatal,
    hub::Now,
    record::{SegmentEnd, Statistics, Writer},
};

impl Server {
    /// Hands this turn's lines to the writers, and what they have written to the hub.
    ///
    /// # Errors
    /// A record that cannot be written any more; each later call returns it too.
    pub(super) fn record(&mut self, now: Now) -> Result<(), Fatal> {
        let mut outcome = self.finish_drained();
        let (to_be_idle, stops) = (self.awaits_idleness(), self.stops());
        for (key, served) in self.sockets.iter_mut().enumerate() {
            let Some(writer) = &mut served.writer else {
                continue;
            };
            if let Some(found) = writer.opened() {
                self.hub.record_opened(key, found);
                self.hub.recorded(key, writer.written(), now);
                self.stale = true;
            }
            let awaited = self.hub.awaits_record(key) || to_be_idle || stops;
            if !self.hub.is_record_behind(key) {
                continue;
            }
            if awaited {
                writer.request_wake();
            }
            let written = writer.written();
            let heard = self.hub.record(key).map(|record| {
                writer.set_sync(record.is_synced());
                record.written()
            });
            if heard.is_some_and(|heard| written > heard) {
                self.hub.recorded(key, written, now);
            }
            if let Some(mut lines) = self.hub.hand_over(key, now)
                && !lines.bytes.is_empty()
            {
                writer.append(&mut lines);
            }
            outcome = outcome.and(writer.check());
        }
        outcome
    }

    /// Lets go of the writers of records that are no more, once they have ended.
    fn finish_drained(&mut self) -> Result<(), Fatal> {
        let outcomes = self.draining.iter().map(Writer::check);
        let outcome = outcomes.fold(Ok(()), Result::and);
        let ended = |writer: &mut Writer| writer.has_ended() && writer.check().is_ok();
        for writer in self.draining.extract_if(.., ended) {
            let lost = writer.unwritten();
            if lost > 0 {
                warn!(
                    "record {}: it is no more, {lost} bytes of lines that could not be written are lost",
                    writer.name
                );
            }
            writer.finish();
            // A record may have begun again in the same file.
            self.sockets
                .writers()
                .for_each(|(_, writer)| writer.retry());
        }
        outcome
    }

    /// What the record of socket `key` tells of itself, where it has one.
    #[must_use]
    pub fn record_statistics(&self, key: usize) -> Option<Statistics> {
        let at = self.hub.recorded_at(key)?;
        let writer = self.sockets.get(at)?.writer.as_ref()?;
        Some(writer.statistics(&*self.hub.record(at)?))
    }

    /// The record of `writer` is no more. What was handed over is still written, where it can be opened.
    pub(super) fn let_go(&mut self, writer: Writer) {
        writer.request_finish();
        self.draining.push(writer);
    }

    /// Lines that an earlier process took into the record of the socket `name` are written first.
    pub fn prepend_lines(&mut self, name: &str, lines: &[u8], segment_ends: &[SegmentEnd]) {
        let key = self.hub.key(name);
        if let Some(mut record) = key.and_then(|key| self.hub.record(key)) {
            record.prepend(lines, segment_ends);
        }
        if let Some(key) = key {
            self.hub.close_uncertain(key, Now::read());
        }
    }

    /// Each record whose file is no longer at its path is begun anew there, by its thread; where it could
    /// not be opened, that is tried now.
    pub(super) fn reopen_records(&mut self) {
        info!("SIGUSR1: looking whether records were moved away");
        for (_, writer) in self.sockets.writers() {
            writer.request_check();
        }
    }

    /// What the status says of records that are not open.
    pub(super) fn unopened_records(&self) -> Option<String> {
        let closed = self.sockets.writers();
        let closed = closed.filter(|(_, writer)| !writer.is_open());
        let mut names = closed.map(|(key, _)| self.hub.sockets()[key].name());
        let first = names.next()?;
        let more = match names.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("record of {first}{more} not open"))
    }
}
