//! A changed config file under running clients: which of them its sockets still serve, and what becomes
//! of the others.
//!
//! A socket is known by its name. Where type, service and framing are as before, its clients stay and
//! the new values hold from their next message on. Where not, or where the socket is gone, its clients
//! rely on what is no more: they get what they are owed and are closed. They do so at a retired entry
//! of the table, which keeps the old service and framing; the socket itself keeps its number.

use log::info;

use super::{
    Hub, Now, Timer, WatchFn, set,
    socket::{Nature, Retired, Socket},
};
use crate::{
    config::SocketType,
    connection::Stream,
    datagram::Datagrams,
    error::{Changed, Close},
    limits::Limits,
    record::{Encoder, Record},
};

/// What a config file has of one socket.
#[derive(Debug)]
pub struct Renewal {
    /// Its rules, as `Socket::new` makes them, without a record.
    pub socket: Socket,
    /// Its record.
    pub trail: Trail,
    /// A datagram socket in place of the one it had, if it had one.
    pub datagram_socket: Option<Box<dyn Datagrams>>,
}

/// What becomes of a record.
#[derive(Debug)]
pub enum Trail {
    /// There is none, or no longer.
    None,
    /// It is a new one.
    New(Record),
    /// It is that of socket number `of`, and goes on.
    Kept {
        /// Whose it is so far.
        of: usize,
        /// What makes its lines from now on.
        encoder: Encoder,
        /// Bytes that may wait for the disk.
        queue_size: usize,
        /// The number of the last line of the file that it goes to.
        seq: u64,
    },
}

impl Trail {
    /// The record that there is now; `records` are those of all sockets so far.
    fn follow(self, records: &mut [Option<Record>]) -> Option<Record> {
        match self {
            Trail::None => None,
            Trail::New(record) => Some(record),
            Trail::Kept {
                of,
                encoder,
                queue_size,
                seq,
            } => {
                let mut record = records.get_mut(of)?.take()?;
                record.renew(encoder, queue_size, seq);
                Some(record)
            }
        }
    }
}

impl<S: Stream> Hub<S> {
    /// The socket by which clients of the socket `name` go on that relied on `nature`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn place_of(&self, name: &str, nature: &Nature) -> Result<usize, Changed> {
        let place = self.place(name).ok_or(Changed::Gone)?;
        match nature.change(&self.sockets[place].nature) {
            None => Ok(place),
            Some(changed) => Err(changed),
        }
    }

    /// The number of the socket `name`.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|socket| socket.name == name && !socket.is_retired())
    }

    /// The numbers that sockets with these names will have once they are applied: their own, or free
    /// ones.
    #[must_use]
    pub fn places<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let vacant = |&place: &usize| self.sockets.get(place).is_none_or(Socket::is_vacant);
        let mut free = (0..).filter(vacant);
        names
            .filter_map(|name| self.place(name).or_else(|| free.next()))
            .collect()
    }

    /// Adds an entry for clients whose socket is no more; `heir` has its name now. Returns its number.
    pub fn retire(&mut self, mut socket: Socket, heir: Option<usize>) -> usize {
        socket.retired = Some(Retired {
            heir,
            is_vacant: false,
        });
        // In the order of their turns they waited for what no longer comes.
        socket.wait_queue.dismiss();
        self.retiring = true;
        match self.sockets.iter().position(Socket::is_vacant) {
            Some(place) => {
                self.sockets[place] = socket;
                place
            }
            None => {
                self.sockets.push(socket);
                self.sockets.len() - 1
            }
        }
    }

    /// Client `key`, whose socket is retired, is closed once it has what it is owed. Nothing more is
    /// read from it; what it sent and was not taken is counted when it is closed.
    fn end(&mut self, key: usize, why: Changed) {
        let client = &mut self.clients[key];
        // Who was cut off is closed for that.
        if !matches!(client.ending, Some(Close::MessageTooLong { .. })) {
            client.ending = Some(Close::Changed(why));
        }
        client.awaits = None;
        self.ready.list(client, key);
    }

    /// Serves by a new config file from now on: `file` has all its sockets, and `limits` its limits.
    /// Nothing may wait to be handed over to a record.
    pub fn apply(
        &mut self,
        file: Vec<Renewal>,
        limits: &Limits,
        now: Now,
        watch: &mut WatchFn<'_, S>,
    ) {
        self.give_out(now, watch);
        self.limits.adopt(limits);
        let places = self.places(file.iter().map(|renewal| renewal.socket.name()));
        self.sockets.iter_mut().for_each(Socket::note_number);
        let records = self.sockets.iter_mut().map(|socket| socket.record.take());
        let mut records: Vec<Option<Record>> = records.collect();
        for place in 0..self.sockets.len() {
            if !places.contains(&place) && !self.sockets[place].is_retired() {
                self.remove(place);
            }
        }
        let mut opened = Vec::new();
        let mut replaced = Vec::new();
        for (&place, renewal) in places.iter().zip(file) {
            let Renewal {
                mut socket,
                trail,
                datagram_socket,
            } = renewal;
            let before = self.sockets.get(place).filter(|old| !old.is_retired());
            let before = before.map_or(0, |old| old.numbered);
            let mut record = trail.follow(&mut records);
            let seq = before.max(record.as_ref().map_or(0, Record::seq));
            if let Some(record) = &mut record {
                record.go_on_from(seq);
            }
            socket.record = record;
            socket.start_at(seq);
            let old = self.sockets.get(place);
            let is_moved =
                datagram_socket.is_some() && old.is_some_and(|old| old.exchange.is_some());
            if let Some((old, why)) = self.put(place, socket, is_moved, now) {
                replaced.push((place, old, why, is_moved));
            }
            if let Some(datagram_socket) = datagram_socket {
                opened.push((place, datagram_socket));
            }
        }
        // Only now: the places of those that are new are taken.
        for (place, old, why, is_moved) in replaced {
            self.replace(place, old, why, is_moved, now);
        }
        for (place, datagram_socket) in opened {
            self.open(place, datagram_socket, now.instant);
        }
        let sizes = self.sockets.iter().map(|socket| socket.read_size);
        if let Some(size) = sizes.max()
            && self.buffer.len() < size
        {
            self.buffer = vec![0; size].into_boxed_slice();
        }
        for &place in &places {
            self.sockets[place].call_datagrams();
            self.call(place, now);
        }
        self.follow_up(now, watch);
    }

    /// The file has this socket no more.
    fn remove(&mut self, place: usize) {
        let socket = &mut self.sockets[place];
        socket.retired = Some(Retired {
            heir: None,
            is_vacant: false,
        });
        socket.wait_queue.dismiss();
        self.retiring = true;
        socket.retire_datagrams(&mut self.limits);
        socket.give_up_parked();
        self.dismiss_all(place, place, Changed::Gone);
    }

    /// Puts `socket` in its place; returns the one that stood there, if its clients cannot go on, and
    /// why. `is_moved`: it is to have another datagram socket.
    fn put(
        &mut self,
        place: usize,
        mut socket: Socket,
        is_moved: bool,
        now: Now,
    ) -> Option<(Socket, Option<Changed>)> {
        let Some(old) = self.sockets.get_mut(place) else {
            self.sockets.push(socket);
            return None;
        };
        if old.is_retired() {
            self.sockets[place] = socket;
            return None;
        }
        let changed = old.nature.change(&socket.nature);
        if changed.is_none() && !is_moved {
            self.renew(place, socket, now);
            return None;
        }
        socket.counters = std::mem::take(&mut old.counters);
        socket.lines = std::mem::take(&mut old.lines);
        socket.exchange = old.exchange.take();
        socket.parked = old.parked.take();
        let old = std::mem::replace(&mut self.sockets[place], socket);
        Some((old, changed))
    }

    /// The socket in `place` is another one for those who came by `old`, for the reason `why`; if it
    /// `is_moved`, it is to have another datagram socket.
    fn replace(
        &mut self,
        place: usize,
        mut old: Socket,
        why: Option<Changed>,
        is_moved: bool,
        now: Now,
    ) {
        if old.nature.kind == SocketType::Datagram
            && let Some(Changed::Service | Changed::Framing) = why
        {
            // Its senders are not connected, and what they are owed waits by their addresses.
            let socket = &mut self.sockets[place];
            socket.give_up_held(&mut self.limits);
            self.datagrams.make_room(socket);
            if !is_moved {
                return;
            }
        }
        let goes_on = why != Some(Changed::Type);
        if goes_on {
            self.move_datagrams(place, now);
        }
        let socket = &mut self.sockets[place];
        old.exchange = socket.exchange.take();
        old.retire_datagrams(&mut self.limits);
        if !goes_on {
            old.parked = socket.parked.take();
            old.give_up_parked();
        }
        let retired = self.retire(old, Some(place));
        if let Some(why) = why {
            self.dismiss_all(place, retired, why);
        }
    }

    /// Moves all clients of socket number `from` to the retired entry `to`, and dismisses them.
    fn dismiss_all(&mut self, from: usize, to: usize, why: Changed) {
        let of_socket = self.clients.iter();
        let of_socket = of_socket.filter(|(_, client)| client.socket as usize == from);
        let keys: Vec<usize> = of_socket.map(|(key, _)| key).collect();
        let clients = &self.clients;
        self.starved
            .retain(|&key| clients[key].socket as usize != from);
        for &key in &keys {
            let client = &mut self.clients[key];
            client.socket = to as u32;
            client.queue_gap(&mut self.limits, |gap| self.sockets[to].service.tell(gap));
            self.end(key, why);
        }
        if !keys.is_empty() {
            let (name, clients) = (&self.sockets[to].name, keys.len());
            info!("{name}: {clients} clients get what they are owed and are closed: {why}");
        }
    }

    /// Takes over the values of `new`, which is of the same nature as the socket in `place`.
    fn renew(&mut self, place: usize, new: Socket, now: Now) {
        let socket = &mut self.sockets[place];
        let is_resized = socket.packet != new.packet || socket.longest != new.longest;
        let is_idle_changed = socket.idle_timeout != new.idle_timeout;
        let is_slow_changed =
            socket.slow_timeout != new.slow_timeout || socket.queue_size != new.queue_size;
        let are_gaps_over =
            socket.slow_client != new.slow_client || socket.stamps() != new.stamps();
        let is_policy_changed = are_gaps_over || socket.queue_size != new.queue_size;
        socket.access = new.access;
        socket.rule = new.rule;
        socket.read_size = new.read_size;
        socket.packet = new.packet;
        socket.message_work = new.message_work;
        socket.longest = new.longest;
        socket.queue_size = new.queue_size;
        socket.slow_client = new.slow_client;
        socket.slow_timeout = new.slow_timeout;
        socket.idle_timeout = new.idle_timeout;
        socket.clients = new.clients;
        socket.answer_abstract = new.answer_abstract;
        socket.record = new.record;
        socket.lines_up = new.lines_up;
        socket.start_at(new.numbered);
        if socket.nature.kind == SocketType::Datagram {
            self.datagrams.make_room(socket);
            return;
        }
        let all = self.clients.iter_mut();
        let mut failed = Vec::new();
        for (key, client) in all.filter(|(_, client)| client.socket as usize == place) {
            // In place of what was lost, and before what comes.
            if are_gaps_over && client.queue_gap(&mut self.limits, |gap| socket.service.tell(gap)) {
                self.effects.touched.push(key);
            }
            if is_resized
                && socket.packet > 0
                && let Err(error) = client
                    .stream
                    .resize(socket.rule.message_size, socket.longest)
            {
                failed.push((key, Close::Io(error)));
            }
            // Not from when it was last heard of: it could not know.
            if is_idle_changed && let Some(timeout) = socket.idle_timeout {
                let due = now.instant + timeout;
                set(&mut self.timers, client, key, Timer::Idle, due);
            }
            // When it is over is asked anew.
            if is_slow_changed && client.full.is_some() {
                set(&mut self.timers, client, key, Timer::Slow, now.instant);
            }
        }
        self.effects.failed.append(&mut failed);
        if is_policy_changed {
            let touched = &mut self.effects.touched;
            socket
                .service
                .renew(new.service, &mut self.clients, touched);
        }
        if !socket.lines_up {
            // There is nothing to wait for any more, and nobody to be called by.
            let waiting: Vec<usize> = socket.wait_queue.waiting().collect();
            socket.wait_queue.dismiss();
            for key in waiting {
                self.resume(key, now);
            }
        }
    }

    /// Lets go of what is retired and empty, and gives its counts to its heir.
    pub(super) fn clear_retired(&mut self) {
        self.retiring = false;
        for place in 0..self.sockets.len() {
            let socket = &mut self.sockets[place];
            let Some(Retired {
                heir,
                is_vacant: false,
            }) = socket.retired
            else {
                continue;
            };
            let has_clients = socket.present > 0;
            if let Some(heir) = heir {
                let counters = std::mem::take(&mut socket.counters);
                self.sockets[heir].counters.add(counters);
            }
            let inherits = |socket: &Socket| {
                let retired = socket.retired.filter(|retired| !retired.is_vacant);
                retired.is_some_and(|retired| retired.heir == Some(place))
            };
            let has_bequests = self.sockets.iter().any(inherits);
            let socket = &mut self.sockets[place];
            let is_owed = socket.undelivered() > 0;
            if !is_owed {
                socket.exchange = None;
            }
            if is_owed || has_clients || has_bequests {
                self.retiring = true;
                continue;
            }
            socket.tell_left_out(None);
            if heir.is_none() {
                info!("{}: gone: {}", socket.name, socket.counters);
            }
            socket.retired = Some(Retired {
                heir,
                is_vacant: true,
            });
        }
    }
}

impl Socket {
    /// Notes the number of its last message, where messages are numbered.
    fn note_number(&mut self) {
        let recorded = self.record.as_ref().map_or(0, Record::seq);
        let stamped = self.service.park().stamped;
        self.numbered = self.numbered.max(recorded).max(stamped);
    }

    /// Numbers go on from `seq`.
    fn start_at(&mut self, seq: u64) {
        self.numbered = seq;
        self.service.go_on_from(seq);
    }
}
