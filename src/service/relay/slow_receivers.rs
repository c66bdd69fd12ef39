//! What a relay does about receivers whose queues have no room, by `slow-client`: under `wait` they hold up
//! senders, under `disconnect` they are closed, under `drop` they are given the messages that fit, and told of
//! the gap. How the senders wait is said in `connection/waits.rs`.

use std::{io::IoSlice, mem};

use slab::Slab;

use super::Relay;
use crate::{
    connection::{Connection, Notice, Stream, waits::WaitQueue},
    error::Close,
    message_batch::Batch,
    record::Gap,
    service::Outbox,
};

impl Relay {
    /// Notes which receivers hold up client `from`, whose next message takes `needed` bytes. Returns
    /// whether there are any.
    pub(super) fn hold_up<S: Stream>(
        &mut self,
        from: usize,
        needed: usize,
        out: &mut Outbox<'_, S>,
    ) -> bool {
        let members = self.members.len();
        let quota = out.limits.room_each(&self.users, members) / 2 < needed
            && out.limits.most_each(&self.users, members) / 2 >= needed;
        self.hold_ups.need(needed, out.queue_size, quota);
        for member in &self.members {
            let full = !out.fits(member.key, needed);
            let client = &mut out.clients[member.key];
            let over = quota && !client.queue.is_empty();
            if member.key != from && (full || over) && self.hold_ups.hold(client) {
                out.effects.touched.push(member.key);
            }
        }
        self.hold_ups.hold_up(&out.clients[from])
    }

    /// `client`, which holds up senders, no longer does if it has read enough.
    pub fn relieve<S: Stream>(&mut self, client: &mut Connection<S>, queue_size: usize) {
        self.hold_ups.relieve(client, queue_size);
    }

    /// Whether nothing of this relay is in the way of the first client in `queue`, as `Service::frees` has it.
    pub fn frees<S: Stream>(
        &mut self,
        queue: &WaitQueue,
        clients: &mut Slab<Connection<S>>,
        touched: &mut Vec<usize>,
    ) -> bool {
        if self.hold_ups.is_empty() {
            return !self.is_paused;
        }
        let members = self.members.iter().map(|member| member.key);
        queue.is_free(&mut self.hold_ups, members, clients, touched)
    }

    /// Closes who has no room for `needed` bytes that client `from` says; whether anybody was.
    pub(super) fn evict<S: Stream>(
        &mut self,
        from: usize,
        needed: usize,
        out: &mut Outbox<'_, S>,
    ) -> bool {
        let before = self.members.len();
        let mut members = mem::take(&mut self.members);
        members.retain(|member| {
            if member.key == from || out.fits(member.key, needed) {
                return true;
            }
            let reason = match self.write_again(member.key, out) {
                Ok(()) if out.fits(member.key, needed) => return true,
                Ok(()) => {
                    let waiting = out.clients[member.key].queue.len();
                    Close::SlowReader { waiting }
                }
                Err(reason) => reason,
            };
            self.forget(member.uid);
            out.effects.failed.push((member.key, reason));
            false
        });
        self.members = members;
        self.members.len() < before
    }

    /// Writes what waits for client `key`, as far as the kernel takes it now.
    pub(super) fn write_again<S: Stream>(
        &self,
        key: usize,
        out: &mut Outbox<'_, S>,
    ) -> Result<(), Close> {
        let client = &mut out.clients[key];
        let tell = |notice: Notice<'_>| match notice {
            Notice::Gap(gap) => self.tell(gap),
            Notice::Stored(_) => Vec::new(),
        };
        while client.flush(out.limits, out.now.instant, tell)? {}
        Ok(())
    }

    /// Message by message; counts what does not fit.
    pub(super) fn give_what_fits<S: Stream>(
        &self,
        key: usize,
        slices: &[IoSlice<'_>],
        out: &mut Outbox<'_, S>,
    ) -> Result<(), Close> {
        let mut lost = 0;
        for slice in slices {
            let batch = Batch::scan(self.framing, slice, usize::MAX);
            let mut start = 0;
            for message in batch.iter() {
                let bytes = &slice[mem::replace(&mut start, message.end)..message.end];
                if !self.offer(key, bytes, out)? {
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            out.effects.dropped.push((key, lost));
        }
        Ok(())
    }

    /// Gives one message, and what is to be told before it, if both fit.
    fn offer<S: Stream>(
        &self,
        key: usize,
        message: &[u8],
        out: &mut Outbox<'_, S>,
    ) -> Result<bool, Close> {
        let told = out.clients[key].gap.as_deref().map(|gap| self.tell(gap));
        let told = told.unwrap_or_default();
        let slices = [IoSlice::new(&told), IoSlice::new(message)];
        let slices = if told.is_empty() {
            &slices[1..]
        } else {
            &slices
        };
        if out.offer(key, slices)? {
            out.clients[key].gap = None;
            return Ok(true);
        }
        if self.stamp.is_some() {
            let client = &mut out.clients[key];
            if !client.watched.write {
                // Its queue may be empty, and it is to be told all the same.
                out.effects.touched.push(key);
            }
            let gap = client.gap.get_or_insert_default();
            gap.count += 1;
            gap.bytes += (message.len() - self.unseen) as u64;
        }
        Ok(false)
    }

    /// A gap as its receiver is told of it; nothing where messages are not stamped.
    #[must_use]
    pub fn tell(&self, gap: &Gap) -> Vec<u8> {
        let stamp = self.stamp.as_ref();
        stamp.map(|stamp| stamp.gap(gap)).unwrap_or_default()
    }
}
