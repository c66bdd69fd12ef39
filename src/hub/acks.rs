//! The answers of `ack`: a client learns how many of its messages are stored once the record says so.

use std::{collections::HashMap, io};

use super::{Hub, Now};
use crate::{
    connection::{Acked, Stream},
    error::Close,
    record::{Ack, ParkedAck, Recorder},
};

impl<S: Stream> Hub<S> {
    /// Client `key` is to be told once all its messages so far are stored.
    pub(super) fn add_ack(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let count = client.traffic.messages_in;
        if let Some(mut record) = self.sockets[client.socket as usize].record() {
            record.add_ack((key, client.id), count);
            client.acked.get_or_insert_default().taken = count;
        }
    }

    /// Has those told whose messages are stored in the record of socket number `socket`: each in its turn, and of all
    /// that are stored by then.
    pub(super) fn list_acks(&mut self, socket: usize) {
        while let Some(ack) = self.next_ack(socket) {
            if self.note_stored(&ack, ack.count) {
                let client = &mut self.clients[ack.client];
                client.event.write = true;
                self.ready.list(client, ack.client);
            }
        }
    }

    fn next_ack(&mut self, socket: usize) -> Option<Ack> {
        self.sockets.get(socket)?.record()?.next_ack()
    }

    /// `count` of its messages are stored; whether the client is still here.
    fn note_stored(&mut self, ack: &Ack, count: u64) -> bool {
        let client = self.clients.get_mut(ack.client);
        let client = client.filter(|client| client.id == ack.id);
        let acked = client.and_then(|client| client.acked.as_deref_mut());
        acked.is_some_and(|acked| {
            acked.stored = acked.stored.max(count);
            true
        })
    }

    /// Goes on with what clients of an earlier process were promised; `key` has their keys here.
    pub(super) fn resume_acks(
        &mut self,
        socket: usize,
        acks: Vec<ParkedAck>,
        key: impl Fn(usize) -> Option<usize>,
    ) {
        if let Some(mut record) = self.record(socket) {
            let here = acks.into_iter().filter_map(|ack| {
                let client = key(ack.client)?;
                Some(ParkedAck { client, ..ack })
            });
            record.resume_acks(here.collect());
        }
    }

    /// Closes those of whose messages nobody can tell whether they are stored: an earlier process has given them to a
    /// write that had not returned.
    pub fn close_uncertain(&mut self, socket: usize, now: Now) {
        let next = |hub: &mut Self| hub.sockets.get(socket)?.record()?.next_uncertain();
        while let Some(ack) = next(self) {
            if self.note_stored(&ack, 0) {
                let why = "whether all it sent is stored cannot be told after the restart";
                self.close(ack.client, &Close::Io(io::Error::other(why)), now);
            }
        }
    }

    /// Closes those whose socket has another record now than the one with their messages. What they send next may be
    /// stored before these, and `ok N` would tell of both. `old`: the records of before.
    pub(super) fn close_moved(&mut self, old: &HashMap<usize, Recorder>, now: Now) {
        let (clients, sockets) = (&self.clients, &self.sockets);
        let parted = |ack: &Ack, of: &[usize]| {
            let client = clients.get(ack.client).filter(|of| of.id == ack.id);
            let socket = client.map(|client| client.socket as usize);
            socket.is_some_and(|key| sockets[key].recorder.is_some() && !of.contains(&key))
        };
        let mut all = Vec::new();
        for mut record in self.records() {
            let of = record.sockets().to_vec();
            all.extend(record.take_acks(|ack| parted(ack, &of)));
        }
        for recorder in old.values() {
            all.extend(recorder.record().take_acks(|ack| parted(ack, &[])));
        }
        for ack in all {
            if self.note_stored(&ack, 0) {
                let why = "its socket has another record now, and not all it sent is stored";
                self.close(ack.client, &Close::Io(io::Error::other(why)), now);
            }
        }
    }

    /// The record of which these wait is no more: what they were promised is not told.
    pub(super) fn forget_acks(&mut self, mut left: impl FnMut() -> Option<Ack>) {
        while let Some(ack) = left() {
            if let Some(client) = self.clients.get_mut(ack.client)
                && client.id == ack.id
            {
                client.acked = client.acked.take().map(|acked| {
                    Box::new(Acked {
                        taken: acked.stored,
                        ..*acked
                    })
                });
                self.ready.list(client, ack.client);
            }
        }
    }
}
