//! Handover in the event loop: SIGUSR2 ends this process at the end of the turn, and the next one goes
//! on.

use std::{fs::File, time::Instant};

use log::{info, warn};

use super::{Phase, Server, count};
use crate::{closer, handover, hub::Now, record::Writer};

/// Descriptors that a handover needs: a pair, the memory, and what it takes to tell the manager.
const SPARE: usize = 8;

/// Something to give up in their place.
pub(super) fn spare() -> Vec<File> {
    let open = (0..SPARE).map(|_| File::open("/dev/null"));
    open.filter_map(Result::ok).collect()
}

impl Server {
    /// Makes sure that there is a place where all can be left; where there is none, stops.
    pub(super) fn begin_handover(&mut self, now: Now) {
        if matches!(self.phase, Phase::HandingOver(_)) {
            return;
        }
        self.spare.clear();
        match handover::prepare() {
            Ok(parking) => self.phase = Phase::HandingOver(parking),
            Err(why) => {
                warn!("SIGUSR2: clients cannot be handed over, stopping as for SIGTERM: {why}");
                self.begin_stop(now);
            }
        }
    }

    /// Leaves everything to the next process.
    pub(super) fn hand_over(mut self, now: Now) {
        let Phase::HandingOver(parking) = self.phase else {
            return;
        };
        let clients = count(self.hub.present() as u64, "client");
        info!("handing over {clients}");
        self.notifier.status(format!("handing over {clients}"));
        let end = Instant::now() + self.settings.drain_timeout;
        let patience = || end.saturating_duration_since(Instant::now());
        // All are told before any is waited for: one that takes all the time leaves the others theirs.
        self.draining.iter().for_each(Writer::request_finish);
        let going_on = self.sockets.writers();
        going_on.for_each(|(_, writer)| writer.request_stop());
        let mut unwritten = Vec::new();
        for (socket, writer) in self.sockets.take_writers() {
            // Where the disk is full, the next process could not make another.
            if let Some(lock) = writer.lock() {
                lock.leave();
            }
            let name = writer.name.clone();
            let back = writer.stop_within(patience());
            if back.uncertain > 0 {
                warn!(
                    "record {name}: a write of {} bytes has not returned within {:?}; of its lines, those not written are lost",
                    back.uncertain, self.settings.drain_timeout
                );
            }
            if let Some(mut record) = self.hub.record(socket) {
                record.note_written(back.written);
            }
            unwritten.push((socket, back));
        }
        for writer in self.draining.drain(..) {
            let name = writer.name.clone();
            let bytes = writer.finish_within(patience());
            if bytes > 0 {
                warn!("record {name}: {bytes} bytes of lines are not written and are lost");
            }
        }
        closer::tell_left_out();
        let mut endpoints = self.sockets.take_endpoints();
        let (mut state, streams) = self.hub.park(now);
        state.config = self.settings.text;
        for (socket, left) in unwritten {
            if let Some(record) = &mut state.sockets[socket].record {
                record.segments = record.segments.and(left.segments);
                (record.lines, record.begun, record.segment_ends) =
                    (left.lines, left.begun, left.segment_ends);
            }
        }
        handover::leave(parking, state, streams, &mut endpoints);
    }
}
