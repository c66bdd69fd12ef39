//! A changed config file under running clients: which of them its sockets still serve, and what becomes
//! of the others.
//!
//! A socket is known by its name, and where its clients rely on nothing that changed (`Nature`), it
//! stays: the new values hold from the next message on. Where they do, or where the socket is gone, it
//! drains: nobody new comes to it, its clients get what they are owed and are closed, and then it is
//! removed. The one that has its name from then on is another, with a key of its own.

use std::collections::HashMap;

use log::info;

use super::{
    Hub, Now, Timer, set,
    socket::{Draining, Socket},
};
use crate::{
    config::SocketType,
    connection::Stream,
    datagram::Datagrams,
    error::{Changed, Close},
    limits::Limits,
    record::Recorder,
    round_robin::DATAGRAM_SOCKETS,
};

/// What a config file has of one socket.
#[derive(Debug)]
pub struct SocketChange {
    /// Its rules and its recorder, as `Socket::new` makes them.
    pub socket: Socket,
    /// The key of a socket whose record goes on as that of this one; of several that share one, the first says so.
    pub record_of: Option<usize>,
    /// A datagram socket in place of the one it had, if it had one.
    pub datagram_socket: Option<Box<dyn Datagrams>>,
}

impl<S: Stream> Hub<S> {
    /// The key of the socket `name`.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        let found = sockets.find(|(_, socket)| socket.name == name && !socket.is_draining());
        found.map(|(key, _)| key)
    }

    /// Client `key`, whose socket drains, is closed once it has what it is owed. Nothing more is
    /// read from it; what it sent and was not taken is counted when it is closed.
    fn end(&mut self, key: usize, why: Changed) {
        let client = &mut self.clients[key];
        // Who was cut off is closed for that.
        if !matches!(client.ending, Some(Close::MessageTooLong { .. })) {
            client.ending = Some(Close::Changed(why));
        }
        client.awaits = None;
        self.ready.list(client, key);
        if self.effects.calls.is_calling(key) {
            self.effects.calls.forget(key);
            self.close_taps(key);
        }
    }

    /// Serves by a new config file from now on: `file` has all its sockets, and `limits` its limits.
    /// Nothing may wait to be handed over to a record. Returns the sockets' keys, in the order of the file.
    pub fn apply(&mut self, file: Vec<SocketChange>, limits: &Limits, now: Now) -> Vec<usize> {
        self.give_out(now);
        self.limits.adopt(limits);
        let mut recorders = HashMap::new();
        for (key, socket) in &mut self.sockets {
            socket.note_number();
            recorders.extend(socket.recorder.take().map(|recorder| (key, recorder)));
        }
        let before = file.iter().map(|of| self.key(&of.socket.name));
        let before: Vec<Option<usize>> = before.collect();
        for (key, recorder) in &mut recorders {
            let goes_on = |of: &SocketChange| of.socket.recorder.is_some();
            let mut all = before.iter().zip(&file);
            if !all.any(|(before, of)| *before == Some(*key) && goes_on(of)) {
                // Nobody else can tell it.
                recorder.put_gap(now.wall);
            }
        }
        let all = self.sockets.iter();
        let gone = all.filter(|(key, of)| !of.is_draining() && !before.contains(&Some(*key)));
        for key in gone.map(|(key, _)| key).collect::<Vec<_>>() {
            self.end_socket(key, None, Changed::Gone);
        }
        let all = before.into_iter().zip(file);
        let keys = all.map(|(before, change)| self.put(before, change, &recorders, now));
        let keys: Vec<usize> = keys.collect();
        self.join_records();
        self.close_moved(&recorders, now);
        for recorder in recorders.into_values() {
            self.forget_acks(|| recorder.record().forget_ack());
        }
        let sizes = self.sockets.iter().map(|(_, of)| of.rules.read_size);
        if let Some(size) = sizes.max()
            && self.buffer.len() < size
        {
            self.buffer = vec![0; size].into_boxed_slice();
        }
        for &key in &keys {
            self.call(key, now);
        }
        self.follow_up(now);
        if self.draining {
            self.clear_drained();
        }
        keys
    }

    /// Puts one socket of the file into force, of which `before` is the one of its name so far. Returns its
    /// key.
    fn put(
        &mut self,
        before: Option<usize>,
        change: SocketChange,
        recorders: &HashMap<usize, Recorder>,
        now: Now,
    ) -> usize {
        let SocketChange {
            mut socket,
            record_of,
            datagram_socket,
        } = change;
        let mut seq = before.map_or(0, |key| self.sockets[key].numbered);
        if let Some(recorder) = &mut socket.recorder {
            if let Some(old) = record_of.and_then(|of| recorders.get(&of)) {
                recorder.record().continue_from(&mut old.record());
            }
            if let Some(own) = before.and_then(|key| recorders.get(&key)) {
                recorder.resume_gap(own.gap());
            }
            if !recorder.is_shared() {
                let mut record = recorder.record();
                // The lines of one that goes on have numbers without a hole.
                if record_of.is_none() {
                    record.go_on_from(seq);
                }
                seq = record.seq();
            }
        }
        socket.start_at(seq);
        let key = match before {
            None => self.sockets.insert(socket),
            Some(key) if self.stays(key, &socket, datagram_socket.is_some()) => {
                self.renew(key, socket, now);
                key
            }
            Some(key) => self.succeed(key, socket, now),
        };
        if let Some(datagram_socket) = datagram_socket {
            self.open(key, datagram_socket);
        }
        key
    }

    /// Whether those who are at socket `key` can go on at it, when it is as `new`; `is_opened`: with a datagram
    /// socket that was just opened.
    fn stays(&self, key: usize, new: &Socket, is_opened: bool) -> bool {
        let old = &self.sockets[key];
        match old.nature.change(&new.nature) {
            _ if is_opened && old.open.is_some() => false,
            None => true,
            Some(Changed::Service | Changed::Framing) => {
                // Its senders are not connected, and what they are owed waits by their addresses.
                new.nature.kind == SocketType::Datagram
            }
            Some(_) => false,
        }
    }

    /// Puts `new` beside the socket `old` of its name, which drains. Returns its key.
    fn succeed(&mut self, old: usize, mut new: Socket, now: Now) -> usize {
        let before = &mut self.sockets[old];
        let why = before.nature.change(&new.nature);
        if before.nature.service != new.nature.service
            || before.nature.framing != new.nature.framing
        {
            before.give_up_held(&mut self.limits);
        }
        new.counters = std::mem::take(&mut before.counters);
        new.lines = std::mem::take(&mut before.lines);
        new.taps = std::mem::take(&mut before.taps);
        let new = self.sockets.insert(new);
        if why != Some(Changed::Type) {
            self.move_datagrams(old, new, now);
        }
        self.end_socket(old, Some(new), why.unwrap_or(Changed::Gone));
        // Replies to what was moved.
        self.list_datagrams(old);
        new
    }

    /// Nobody comes to socket `key` any more; its clients get what they are owed, and are closed for the reason
    /// `why`. `successor`: the socket that has its name now.
    fn end_socket(&mut self, key: usize, successor: Option<usize>, why: Changed) {
        let socket = &mut self.sockets[key];
        socket.draining = Some(Draining { successor });
        self.draining = true;
        // In the order of their turns they waited for what no longer comes.
        socket.wait_queue.clear();
        socket.stop(&mut self.limits);
        socket.give_up_held(&mut self.limits);
        let clients = &self.clients;
        let of_socket = |client: usize| clients[client].socket as usize == key;
        self.quota_queue.leave(of_socket);
        let all = clients.iter().map(|(client, _)| client);
        let all: Vec<usize> = all.filter(|&client| of_socket(client)).collect();
        for &client in &all {
            let service = &self.sockets[key].service;
            self.clients[client].queue_gap(&mut self.limits, |gap| service.tell(gap));
            self.end(client, why);
        }
        if !all.is_empty() {
            let (name, clients) = (&self.sockets[key].name, all.len());
            info!("{name}: {clients} clients get what they are owed and are closed: {why}");
        }
    }

    /// Takes over what `new` has, at which the clients and senders of the socket `number` can go on.
    fn renew(&mut self, number: usize, new: Socket, now: Now) {
        let socket = &mut self.sockets[number];
        let are_gaps_over =
            socket.rules.slow_client != new.rules.slow_client || socket.stamps() != new.stamps();
        let old = std::mem::replace(&mut socket.rules, new.rules);
        let rules = &socket.rules;
        let is_resized = old.packet != rules.packet || old.longest != rules.longest;
        let is_idle_changed = old.idle_timeout != rules.idle_timeout;
        let is_queue_changed = old.queue_size != rules.queue_size;
        let is_slow_changed = is_queue_changed || old.slow_timeout != rules.slow_timeout;
        socket.recorder = new.recorder;
        socket.start_at(new.numbered);
        if new.nature.kind == SocketType::Datagram {
            if socket.nature != new.nature {
                socket.give_up_held(&mut self.limits);
                (socket.nature, socket.service) = (new.nature, new.service);
            }
            self.datagrams.make_room(socket);
            return;
        }
        let all = self.clients.iter_mut();
        let mut failed = Vec::new();
        for (key, client) in all.filter(|(_, client)| client.socket as usize == number) {
            // In place of what was lost, and before what comes.
            if are_gaps_over && client.queue_gap(&mut self.limits, |gap| socket.service.tell(gap)) {
                self.effects.touched.push(key);
            }
            // Its queue may have room now, or what does not fit may be dropped now: no event tells of that.
            if (are_gaps_over || is_queue_changed) && client.is_blocked() {
                self.ready.list(client, key);
            }
            if is_resized
                && socket.rules.packet > 0
                && let Err(error) = client
                    .stream
                    .resize(socket.rules.input.message_size, socket.rules.longest)
            {
                failed.push((key, Close::Io(error)));
            }
            // Not from when it was last heard of: it could not know.
            if is_idle_changed && let Some(timeout) = socket.rules.idle_timeout {
                let due = now.instant + timeout;
                set(&mut self.timers, client, key, Timer::Idle, due);
            }
            // When it is over is asked anew.
            if is_slow_changed && client.full.is_some() {
                set(&mut self.timers, client, key, Timer::Slow, now.instant);
            }
        }
        self.effects.failed.append(&mut failed);
        let is_history_changed = !socket.service.has_history_of(&new.service);
        if are_gaps_over || is_queue_changed || is_history_changed {
            let touched = &mut self.effects.touched;
            socket
                .service
                .renew(new.service, &mut self.clients, touched);
        }
        if !socket.rules.senders_wait {
            // There is nothing to wait for any more, and nobody to be called by.
            let waiting: Vec<usize> = socket.wait_queue.waiting().collect();
            socket.wait_queue.clear();
            for key in waiting {
                self.resume(key, now);
            }
        }
    }

    /// Removes the sockets that have drained. Their counts go to those that have their names.
    pub(super) fn clear_drained(&mut self) {
        self.draining = false;
        let draining = self.sockets.iter();
        let draining = draining.filter_map(|(key, of)| Some((key, of.draining?.successor)));
        for (key, successor) in draining.collect::<Vec<_>>() {
            let gives = |of: &Socket| of.draining.is_some_and(|of| of.successor == Some(key));
            let is_successor = self.sockets.iter().any(|(_, of)| gives(of));
            let socket = &mut self.sockets[key];
            let is_owed = socket.pending.waiting() > 0;
            if !is_owed && socket.open.take().is_some() {
                self.users.leave(DATAGRAM_SOCKETS);
            }
            let is_left = is_owed || socket.present > 0 || is_successor;
            self.draining |= is_left;
            if let Some(successor) = successor {
                let counters = std::mem::take(&mut socket.counters);
                let mut lines = std::mem::take(&mut socket.lines);
                lines.tell_left_out(&socket.name, None);
                let successor = &mut self.sockets[successor];
                successor.counters.add(counters);
                successor.lines.take_last(&mut lines);
            }
            if !is_left {
                let mut socket = self.sockets.remove(key);
                // Its taps are gone with it.
                self.effects.calls.wake_all();
                socket.tell_left_out(None);
                if successor.is_none() {
                    info!("{}: gone: {}", socket.name, socket.counters);
                }
            }
        }
    }
}

impl Socket {
    /// Notes the number of its last message, where messages are numbered.
    fn note_number(&mut self) {
        let own = self.recorder.as_ref().filter(|of| !of.is_shared());
        let recorded = own.map_or(0, |of| of.record().seq());
        let stamped = self.service.stamped();
        self.numbered = self.numbered.max(recorded).max(stamped);
    }

    /// Numbers go on from `seq`.
    pub(super) fn start_at(&mut self, seq: u64) {
        self.numbered = seq;
        self.service.go_on_from(seq);
    }
}
