//! What udsd does with the messages of one socket. A service owns no descriptor and reads no clock:
//! batches come in, and what it wants written goes to the `Outbox`.
//!
//! Its life: clients join, or come back from an earlier process; their messages are received; at the end
//! of a turn it gives out what it gathered; clients leave; a reload renews it; it is parked. echo,
//! collect and control have nothing to do but to receive.

mod control;
mod echo;
mod relay;

pub use control::{Calls, PendingCall};
pub use relay::Relay;

use std::io::IoSlice;

use slab::Slab;

use crate::{
    connection::{Connection, Now, Stream, waits::WaitQueue},
    error::Close,
    limits::{Limits, OverQuota},
    message_batch::Batch,
    peer::{ClientId, Peer},
    record::Gap,
    round_robin::{FANOUT, MESSAGES},
};

/// The service of one socket.
#[derive(Debug)]
pub enum Service {
    /// Back to the sender.
    Echo,
    /// To all others.
    Relay(Box<Relay>),
    /// Into the socket's record, and nowhere else.
    Collect,
    /// To the event loop, which answers.
    Control,
}

/// Where a service stands between two turns.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The number of the last message that was stamped; 0 where messages are not.
    pub stamped: u64,
    /// The room in its queue at which a receiver that held up senders no longer does, bytes.
    pub enough: usize,
    /// The last messages, as they were given out.
    pub history: Vec<u8>,
}

/// The sender of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its place among the hub's clients.
    pub key: usize,
    /// Its number.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
}

impl Service {
    /// Client `to` has come. It may be written to at once.
    pub fn join<S: Stream>(&mut self, to: usize, out: &mut Outbox<'_, S>) {
        if let Service::Relay(relay) = self {
            relay.join(to, out);
        }
    }

    /// Client `key` of an earlier process goes on as it was there, as far as this service has a use for that.
    pub fn rejoin<S: Stream>(&mut self, key: usize, client: &mut Connection<S>) {
        match self {
            Service::Relay(relay) if client.receiver => relay.rejoin(key, client),
            _ => (client.receiver, client.holds_up) = (false, false),
        }
        if !(client.receiver && self.stamps()) {
            // There is nothing to tell it by.
            client.gap = None;
        }
    }

    /// Client `key` gets no more from others.
    pub fn leave<S: Stream>(&mut self, key: usize, client: &mut Connection<S>) {
        if let Service::Relay(relay) = self {
            relay.leave(key, client);
        }
    }

    /// Takes messages from the start of `batch`; returns the bytes that it took. The rest waits
    /// with its sender.
    ///
    /// # Errors
    /// What ends the sender.
    pub fn receive<S: Stream>(
        &mut self,
        from: &Sender,
        batch: &Batch<'_>,
        out: &mut Outbox<'_, S>,
    ) -> Result<usize, Close> {
        match self {
            Service::Echo => echo::receive(from, batch, out),
            Service::Relay(relay) => Ok(relay.receive(from, batch, out)),
            Service::Collect => Ok(batch.bytes.len()),
            Service::Control => Ok(control::receive(from, batch, out)),
        }
    }

    /// Messages of one client that are taken in its turn.
    #[must_use]
    pub fn most_messages(&self) -> u64 {
        match self {
            Service::Relay(relay) => match FANOUT.checked_div(relay.message_work()) {
                Some(most) => (most as u64).clamp(1, MESSAGES),
                None => MESSAGES,
            },
            Service::Echo | Service::Collect | Service::Control => MESSAGES,
        }
    }

    /// What each message costs beside its bytes, for all receivers together: where it is not part of one
    /// write.
    #[must_use]
    pub fn message_work(&self) -> usize {
        match self {
            Service::Relay(relay) => relay.message_work(),
            Service::Echo | Service::Collect | Service::Control => 0,
        }
    }

    /// Gives out what it gathered in this turn.
    pub fn end_turn<S: Stream>(&mut self, out: &mut Outbox<'_, S>) {
        if let Service::Relay(relay) = self {
            relay.end_turn(out);
        }
    }

    /// `client`, which holds up senders, no longer does once it has read enough.
    pub fn relieve<S: Stream>(&mut self, client: &mut Connection<S>, queue_size: usize) {
        if let Service::Relay(relay) = self {
            relay.relieve(client, queue_size);
        }
    }

    /// Whether nothing of it is in the way of the first client in `queue`. Receivers that hold up nobody any
    /// more are added to `touched`.
    pub fn frees<S: Stream>(
        &mut self,
        queue: &WaitQueue,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) -> bool {
        match self {
            Service::Relay(relay) => relay.frees(queue, clients, touched),
            Service::Echo | Service::Collect | Service::Control => true,
        }
    }

    /// Takes over what a changed file says of it: `new` is of the same kind and has no clients.
    pub fn renew<S: Stream>(
        &mut self,
        new: Service,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) {
        if let (Service::Relay(relay), Service::Relay(new)) = (self, new) {
            relay.renew(*new, clients, touched);
        }
    }

    /// Whether it keeps as much of what it gave out as `new`.
    #[must_use]
    pub fn has_history_of(&self, new: &Service) -> bool {
        match (self, new) {
            (Service::Relay(relay), Service::Relay(new)) => relay.has_history_of(new),
            _ => true,
        }
    }

    /// The number of the last message that was stamped; 0 where messages are not.
    #[must_use]
    pub fn stamped(&self) -> u64 {
        match self {
            Service::Relay(relay) => relay.stamped(),
            Service::Echo | Service::Collect | Service::Control => 0,
        }
    }

    /// What a later process goes on from.
    #[must_use]
    pub fn park(&self) -> Standing {
        match self {
            Service::Relay(relay) => relay.park(),
            Service::Echo | Service::Collect | Service::Control => Standing::default(),
        }
    }

    /// Goes on from where an earlier process stood.
    pub fn resume(&mut self, standing: &Standing) {
        if let Service::Relay(relay) = self {
            relay.resume(standing);
        }
    }

    /// The numbers of messages go on from `seq`, or from where they stand if that is further.
    pub fn go_on_from(&mut self, seq: u64) {
        if let Service::Relay(relay) = self {
            relay.go_on_from(seq);
        }
    }

    /// A gap as its receiver is told of it; nothing where messages are not stamped.
    #[must_use]
    pub fn tell(&self, gap: &Gap) -> Vec<u8> {
        match self {
            Service::Relay(relay) => relay.tell(gap),
            Service::Echo | Service::Collect | Service::Control => Vec::new(),
        }
    }

    /// Whether messages go to others than their sender, who may then have to wait for these.
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        matches!(self, Service::Relay(_))
    }

    /// How many clients get a message beside its sender.
    #[must_use]
    pub fn receivers(&self) -> usize {
        match self {
            Service::Relay(relay) => relay.receivers(),
            Service::Echo | Service::Collect | Service::Control => 0,
        }
    }

    /// Whether it has something to do at the end of the turn.
    #[must_use]
    pub fn is_due(&self) -> bool {
        matches!(self, Service::Relay(relay) if relay.is_due())
    }

    /// Whether messages carry the time.
    #[must_use]
    pub fn stamps(&self) -> bool {
        matches!(self, Service::Relay(relay) if relay.stamps())
    }
}

/// What a service did to clients other than the sender, for the hub to follow up.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whose state changed.
    pub touched: Vec<usize>,
    /// Who is to be closed, and why.
    pub failed: Vec<(usize, Close)>,
    /// For whom messages were dropped, and how many.
    pub dropped: Vec<(usize, u64)>,
    /// Work that was done, in bytes (`round_robin`).
    pub work: usize,
    /// Calls that were made at the control socket.
    pub calls: Calls,
}

impl Effects {
    /// Whether there is nothing to follow up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.failed.is_empty() && self.dropped.is_empty()
    }

    /// Client `key` is no more; another one may soon have its key.
    pub fn forget(&mut self, key: usize) {
        self.touched.retain(|&of| of != key);
        self.failed.retain(|(of, _)| *of != key);
        self.dropped.retain(|(of, _)| *of != key);
        self.calls.forget(key);
    }
}

/// The clients' queues as a service sees them.
#[derive(Debug)]
pub struct Outbox<'a, S> {
    /// All clients of the daemon.
    pub clients: &'a mut Slab<Connection<S>>,
    /// What may be held for them.
    pub limits: &'a mut Limits,
    /// `queue-size` of the socket, bytes.
    pub queue_size: usize,
    /// Bytes of the sender's input that are counted as held. Moved to its own queue they count no more
    /// than before.
    pub credit: usize,
    /// What kept the sender's own messages from being held, where it was not its queue.
    pub over: Option<OverQuota>,
    /// The sender has had its share of the turn.
    pub is_turn_over: bool,
    /// The time of this turn.
    pub now: Now,
    /// What the hub has to follow up.
    pub effects: &'a mut Effects,
}

impl<'a, S: Stream> Outbox<'a, S> {
    /// An outbox of a socket with this `queue-size`.
    #[inline]
    pub fn new(
        clients: &'a mut Slab<Connection<S>>,
        limits: &'a mut Limits,
        effects: &'a mut Effects,
        queue_size: usize,
        now: Now,
    ) -> Self {
        Outbox {
            clients,
            limits,
            queue_size,
            credit: 0,
            over: None,
            is_turn_over: false,
            now,
            effects,
        }
    }

    /// Bytes for which the queue of client `to` has room.
    #[must_use]
    pub fn queue_room(&self, to: usize) -> usize {
        self.clients[to].queue.room(self.queue_size)
    }

    /// Whether the queue of client `to` has room for one message of so many bytes. One that is longer
    /// than `queue-size` may wait alone: it came before a reload that lowered the key.
    #[must_use]
    pub fn fits(&self, to: usize, bytes: usize) -> bool {
        let queue = &self.clients[to].queue;
        queue.is_empty() || queue.room(self.queue_size) >= bytes
    }

    /// Bytes that may still be held for the user of client `to`. May be less than that where it is more
    /// than the queue could take anyway: that spares a look at the user.
    #[must_use]
    pub fn quota(&self, to: usize) -> usize {
        let ample = self.limits.ample();
        if ample >= self.queue_size {
            ample
        } else {
            self.limits.room(self.clients[to].charge.uid())
        }
    }

    /// Bytes that may be put into the queue of client `to`.
    #[must_use]
    pub fn room(&self, to: usize) -> usize {
        self.queue_room(to).min(self.quota(to))
    }

    /// `bytes` of the sender's input are about to leave it.
    fn draw_credit(&mut self, from: &Sender, bytes: usize) {
        let drawn = bytes.min(self.credit);
        if drawn > 0 {
            self.credit -= drawn;
            let charge = &mut self.clients[from.key].charge;
            charge.settle(self.limits, charge.held() - drawn);
        }
    }

    /// Gives client `to` all of `slices`, for which its queue has room.
    ///
    /// # Errors
    /// As `offer`; `OverQuota` also where nothing could be written or held.
    pub fn give(&mut self, to: usize, slices: &[IoSlice<'_>]) -> Result<(), Close> {
        if self.offer(to, slices)? {
            return Ok(());
        }
        let uid = self.clients[to].charge.uid();
        Err(Close::OverQuota(self.limits.over(uid)))
    }

    /// Gives client `to` all of `slices`, or nothing (false) where there is no room. What the kernel
    /// takes at once never enters the queue.
    ///
    /// # Errors
    /// Where writing fails for good, or the rest of what was written must not be held.
    pub fn offer(&mut self, to: usize, slices: &[IoSlice<'_>]) -> Result<bool, Close> {
        let client = &mut self.clients[to];
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = if client.queue.is_empty() {
            client.write(slices, self.now.instant)?
        } else {
            0
        };
        if written == bytes {
            return Ok(true);
        }
        self.queue(to, slices, written)
    }

    /// Lets `slices` wait for client `to`, but for the first `written` bytes; false where there is no room.
    #[inline(never)]
    fn queue(
        &mut self,
        to: usize,
        slices: &[IoSlice<'_>],
        mut written: usize,
    ) -> Result<bool, Close> {
        let client = &mut self.clients[to];
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let alone = client.queue.is_empty();
        let rest = bytes - written;
        let room = if alone && bytes > self.queue_size {
            self.quota(to)
        } else {
            self.room(to)
        };
        if room < rest {
            return match written {
                0 => Ok(false),
                _ => Err(Close::OverQuota(
                    self.limits.over(self.clients[to].charge.uid()),
                )),
            };
        }
        let client = &mut self.clients[to];
        let spare = self.limits.spare();
        client.change_queue(self.limits, |queue| {
            for slice in slices {
                let skipped = written.min(slice.len());
                written -= skipped;
                queue.push(&slice[skipped..], spare);
            }
        });
        if !client.watched.write {
            self.effects.touched.push(to);
        }
        Ok(true)
    }
}
