//! What a socket does with what one client sent: batch by batch it goes to the record and to the service,
//! until the client has to wait. `slow-client` says what becomes of messages for which a queue has no room.

use super::Socket;
use crate::{
    config::SlowClient,
    connection::{Stream, waits::Awaits},
    error::Close,
    frame::Framing,
    input::Batches,
    message_batch::Batch,
    record::Record,
    service::{Outbox, Sender},
};

/// What may become of one client's messages in its turn, and what did.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Messages that it may take, whatever it has.
    pub(super) most: u64,
    /// Messages dropped for the sender itself.
    pub(super) dropped: u64,
    /// Messages that were taken.
    pub(super) messages: u64,
    /// Messages of which only the first part was taken.
    pub(super) truncated: u64,
    /// What the rest waits for; none where it is room in the sender's own queue.
    pub(super) awaits: Option<Awaits>,
    /// Why the sender is to be closed.
    pub(super) failed: Option<Close>,
}

impl Socket {
    /// Receives what one client sent, until it has to wait. The rest waits with the client or, where that is
    /// closed, is counted.
    pub(super) fn receive<S: Stream>(
        &mut self,
        from: &Sender,
        batches: &mut Batches<'_>,
        out: &mut Outbox<'_, S>,
        so_far: &mut Taken,
    ) {
        while let Some(batch) = batches.next_batch() {
            let taken = if self.wait_queue.has_before(from.key) {
                so_far.awaits = Some(Awaits::Room);
                0
            } else {
                let most = so_far.most.saturating_sub(so_far.messages);
                let first = batch.first_messages(most);
                out.effects.work += first.messages as usize * self.rules.message_work;
                let taken = self.record_and_serve(from, &first, out, so_far);
                if taken == first.bytes.len() && taken < batch.bytes.len() {
                    so_far.awaits = Some(Awaits::Turn);
                }
                taken
            };
            if !batches.took(taken) {
                return;
            }
        }
    }

    /// Gives messages from the start of `batch` to the record and to the service; returns the bytes of those
    /// that they took.
    fn record_and_serve<S: Stream>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        out: &mut Outbox<'_, S>,
        so_far: &mut Taken,
    ) -> usize {
        if batch.bytes.is_empty() {
            return 0;
        }
        let mark = self.record.as_ref().map(Record::mark);
        let recorded = match &mut self.record {
            Some(record) => record.receive(from.id, &from.peer, batch, out.now.wall),
            None => batch.bytes.len(),
        };
        if recorded < batch.bytes.len() {
            so_far.awaits = Some(Awaits::Room);
        }
        let offered = batch.first(recorded);
        let served = match self.service.receive(from, &offered, out) {
            Ok(served) => served,
            Err(reason) => {
                so_far.failed = Some(reason);
                return 0;
            }
        };
        let messages = offered.count(served);
        so_far.messages += messages;
        out.effects.work += messages as usize * self.service.message_work();
        self.counters.messages += messages;
        self.counters.bytes += served as u64;
        if batch.truncated {
            so_far.truncated += messages;
        } else {
            self.counters.bytes -= messages * self.rules.unseen;
        }
        if served == recorded {
            return recorded;
        }
        match self.policy() {
            SlowClient::Wait => {
                if let (Some(record), Some(mark)) = (&mut self.record, mark) {
                    record.roll_back(mark);
                    record.receive(from.id, &from.peer, &batch.first(served), out.now.wall);
                }
                so_far.awaits = self.awaits(out);
                served
            }
            SlowClient::Disconnect => {
                let waiting = out.clients[from.key].queue.len();
                so_far.failed = Some(match out.over {
                    Some(over) => Close::OverQuota(over),
                    None => Close::SlowReader { waiting },
                });
                served
            }
            SlowClient::Drop => {
                so_far.dropped += match self.rules.input.framing {
                    // Without framing, the rest of one read counts as a message.
                    Framing::None => 1,
                    _ => offered.messages - messages,
                };
                recorded
            }
        }
    }

    fn policy(&self) -> SlowClient {
        if self.service.has_receivers() {
            // It has seen to those who do not read; the sender may have to wait all the same.
            SlowClient::Wait
        } else {
            self.rules.slow_client
        }
    }

    /// What those messages wait for that the service has not taken.
    fn awaits<S: Stream>(&self, out: &Outbox<'_, S>) -> Option<Awaits> {
        if out.is_turn_over {
            Some(Awaits::Turn)
        } else if out.over.is_some() {
            Some(Awaits::Quota)
        } else {
            // Else it is its own queue: it goes on when it reads.
            self.service.has_receivers().then_some(Awaits::Room)
        }
    }
}
