//! One client's turn, and with it the way of a message: what waits for the client is written, what it sent is
//! read and cut into batches, and batch by batch goes to the record and to the service, until the client has to
//! wait. `slow-client` says what becomes of messages for which a queue has no room. What follows from the
//! client's new state is in `follow_up`.

use std::io;

use super::{Hub, Socket, tap::Origin};
use crate::{
    config::SlowClient,
    connection::{Notice, Now, Stream, Watch, waits::Awaits},
    error::Close,
    frame::Framing,
    input::Input,
    message_batch::Batch,
    record::Recorder,
    round_robin::{MESSAGES, READ},
    service::{Outbox, Sender},
};

/// A read of READ halved so often has no more bytes than a turn may have messages.
const MOST_READ_SHIFT: u8 = (READ as u64 / MESSAGES).trailing_zeros() as u8;

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

/// What may become of one client's messages in its turn, and what did.
#[derive(Debug, Default)]
struct Taken {
    /// Messages that it may take, whatever it has.
    most: u64,
    /// Messages dropped for the sender itself.
    dropped: u64,
    /// Messages that were taken.
    messages: u64,
    /// Their bytes, as the socket counts them.
    bytes: u64,
    /// Messages of which only the first part was taken.
    truncated: u64,
    /// What the rest waits for; none where it is room in the sender's own queue.
    awaits: Option<Awaits>,
    /// Why the sender is to be closed.
    failed: Option<Close>,
}

/// How often READ is halved for the next read, after a turn that took so much of what was read.
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
        let settled = match served {
            // As for most clients after most turns.
            Ok(()) if self.clients[key].is_at_rest() => Ok(()),
            Ok(()) => self.apply_state(key, event.end, now),
            Err(reason) => Err(reason),
        };
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
        let client = &self.clients[key];
        let step = if client.awaits.is_some() {
            None
        } else if client.is_blocked() {
            Some(Step::Resume)
        } else if event.read && client.ending.is_none() {
            self.read(key, now)?
        } else {
            None
        };
        step.map_or(Ok(()), |step| self.deliver(key, step, now))
    }

    /// Reads what the client sent, once.
    fn read(&mut self, key: usize, now: Now) -> Result<Option<Step>, Close> {
        let client = &mut self.clients[key];
        // No more is read than may be held: it may have to wait.
        let socket = &self.sockets[client.socket as usize];
        let mut room = (READ >> client.read_shift) + socket.rules.packet;
        if self.limits.ample_for_input() < room {
            room = room.min(self.limits.input_room(client.charge.uid()));
            if room < socket.least_held() {
                self.wait(key, Awaits::Quota, false);
                return Ok(None);
            }
            room = room.max(socket.rules.packet);
        }
        Ok(Some(match client.stream.read(&mut self.buffer[..room]) {
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
        }))
    }

    /// Writes what waits for the client. A receiver that has shut its end gets no more.
    pub(super) fn write_owed(&mut self, key: usize, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let socket = &self.sockets[client.socket as usize];
        let tell = |notice: Notice<'_>| socket.tell(notice);
        match client.flush(&mut self.limits, now.instant, tell) {
            Err(Close::HangUp) if client.receiver => self.shut_write_side(key, now),
            flushed => _ = flushed?,
        }
        Ok(())
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
        let mut so_far = Taken {
            most: socket.service.most_messages(),
            ..Taken::default()
        };
        let mut batches = match step {
            Step::Resume => input.resume(rule),
            Step::Feed(bytes) => input.feed(&mut self.buffer[..bytes], rule),
            Step::Finish => input.finish(rule),
        };
        while let Some(batch) = batches.next_batch() {
            let taken = socket.receive(&from, &batch, &mut out, &mut so_far);
            if !batches.took(taken) {
                break;
            }
        }
        if self.effects.calls.is_calling(key) {
            so_far.awaits = Some(Awaits::Answer);
        }
        let too_long = batches.too_long;
        let oversized = input.take_refused();
        let announced = input.take_announced();
        if so_far.truncated > 0 || oversized > 0 || announced.is_some() {
            self.note_long(&from, so_far.truncated, oversized, announced, now);
        }
        if so_far.dropped > 0 {
            self.effects.dropped.push((key, so_far.dropped));
        }
        if let Some(awaits) = so_far.awaits {
            self.wait(key, awaits, so_far.messages > 0);
        }
        self.note_sent(key, so_far.messages, so_far.bytes);
        let client = &mut self.clients[key];
        if !input.is_clear() {
            client.input = Some(Box::new(input));
        }
        if let Some(reason) = so_far.failed {
            return Err(reason);
        }
        client.read_shift = read_shift(client.read_shift, &so_far);
        if let Some(limit) = too_long {
            // What it sent before is still owed.
            client.ending = Some(Close::MessageTooLong { limit });
        }
        Ok(())
    }
}

impl<S: Stream> Hub<S> {
    /// So many messages of a client were taken.
    #[inline]
    fn note_sent(&mut self, key: usize, messages: u64, bytes: u64) {
        let client = &mut self.clients[key];
        client.traffic.sent(messages, bytes);
        if messages > 0 && self.sockets[client.socket as usize].nature.ack {
            self.add_ack(key);
        }
    }
}

impl Socket {
    /// Receives messages from the start of `batch`, which the record and the service take; returns the bytes of
    /// those. The rest waits with the client or, where that is closed, is counted.
    fn receive<S: Stream>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        out: &mut Outbox<'_, S>,
        so_far: &mut Taken,
    ) -> usize {
        if self.wait_queue.has_before(from.key) {
            so_far.awaits = Some(Awaits::Room);
            return 0;
        }
        let first = batch.first_messages(so_far.most.saturating_sub(so_far.messages));
        let taken = self.record_and_serve(from, &first, out, so_far);
        if taken == first.bytes.len() && taken < batch.bytes.len() {
            so_far.awaits = Some(Awaits::Turn);
        }
        taken
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
        out.effects.work += batch.messages as usize * self.rules.message_work;
        let mark = self.recorder.as_ref().map(Recorder::mark);
        let recorded = match &mut self.recorder {
            Some(recorder) => recorder.receive(from.id, &from.peer, batch, out.now.wall),
            None => batch.bytes.len(),
        };
        let offered = if recorded < batch.bytes.len() {
            so_far.awaits = Some(Awaits::Room);
            &batch.first(recorded)
        } else {
            batch
        };
        let served = match self.service.receive(from, offered, out) {
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
        let is_cut = u64::from(batch.truncated);
        let bytes = served as u64 - messages * (1 - is_cut) * self.rules.unseen;
        so_far.truncated += messages * is_cut;
        self.counters.bytes += bytes;
        so_far.bytes += bytes;
        if !self.taps.is_empty() {
            self.show(from, &offered.first(served), out);
        }
        if served == recorded {
            return recorded;
        }
        match self.policy() {
            SlowClient::Wait => {
                if let (Some(recorder), Some(mark)) = (&mut self.recorder, mark) {
                    recorder.roll_back(mark);
                    recorder.receive(from.id, &from.peer, &batch.first(served), out.now.wall);
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

    /// Shows messages that the service took to those who look.
    #[cold]
    fn show<S: Stream>(&mut self, from: &Sender, messages: &Batch<'_>, out: &mut Outbox<'_, S>) {
        let of = Origin {
            time: out.now.wall,
            id: from.id,
            peer: from.peer,
            unit: out.clients[from.key].look_up_unit(),
            receivers: self.service.receivers(),
        };
        let calls = &mut out.effects.calls;
        let count = messages.messages;
        self.taps.note(&of, count, || messages.iter(), calls);
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
