//! One client's turn: what waits for it is written, its messages that waited are offered to the service
//! again, or new ones are read and delivered. What follows from its new state is in `follow_up`.

use std::io;

use super::{Hub, receive::Taken};
use crate::{
    connection::{Now, Stream, Watch, waits::Awaits},
    error::Close,
    input::Input,
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
        let settled = served.and_then(|()| self.apply_state(key, event.end, now));
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
        let client = &mut self.clients[key];
        if client.awaits.is_some() {
            return Ok(());
        }
        if client.is_blocked() {
            return self.deliver(key, Step::Resume, now);
        }
        if !event.read || client.ending.is_some() {
            return Ok(());
        }
        // No more is read than may be held: it may have to wait.
        let socket = &self.sockets[client.socket as usize];
        let mut room = (READ >> client.read_shift) + socket.rules.packet;
        if self.limits.ample_for_input() < room {
            room = room.min(self.limits.input_room(client.peer.uid));
            if room < socket.least_held() {
                self.wait(key, Awaits::Quota, false);
                return Ok(());
            }
            room = room.max(socket.rules.packet);
        }
        let step = match client.stream.read(&mut self.buffer[..room]) {
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
        };
        self.deliver(key, step, now)
    }

    /// Writes what waits for the client. A receiver that has shut its end gets no more.
    pub(super) fn write_owed(&mut self, key: usize, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let service = &self.sockets[client.socket as usize].service;
        match client.flush(&mut self.limits, now.instant, |gap| service.tell(gap)) {
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
        let mut taken = Taken {
            most: socket.service.most_messages(),
            ..Taken::default()
        };
        let mut batches = match step {
            Step::Resume => input.resume(rule),
            Step::Feed(bytes) => input.feed(&mut self.buffer[..bytes], rule),
            Step::Finish => input.finish(rule),
        };
        socket.receive(&from, &mut batches, &mut out, &mut taken);
        let too_long = batches.too_long;
        let oversized = input.take_refused();
        let announced = input.take_announced();
        if taken.truncated > 0 || oversized > 0 || announced.is_some() {
            self.note_long(&from, taken.truncated, oversized, announced, now);
        }
        if taken.dropped > 0 {
            self.effects.dropped.push((key, taken.dropped));
        }
        if let Some(awaits) = taken.awaits {
            self.wait(key, awaits, taken.messages > 0);
        }
        let client = &mut self.clients[key];
        if !input.is_clear() {
            client.input = Some(Box::new(input));
        }
        if let Some(reason) = taken.failed {
            return Err(reason);
        }
        client.read_shift = read_shift(client.read_shift, &taken);
        if let Some(limit) = too_long {
            // What it sent before is still owed.
            client.ending = Some(Close::MessageTooLong { limit });
        }
        Ok(())
    }
}
