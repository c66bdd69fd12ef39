//! The hub as plain data, and back: what one process hands to the next. Streams are handed over beside
//! it, in the order of the state's clients. `handover` adds the lines of records and the descriptors.

use std::{collections::HashSet, mem, time::Duration};

use super::{Hub, Now, STALL, Socket, Timer, set, socket::Draining};
use crate::{
    access::Access,
    config::{self, Address, ServiceKind},
    connection::{Connection, Full, Stream, waits::Awaits},
    counters::UNCOUNTABLE,
    datagram::Pending,
    error::Close,
    handover_state::{self as state, Ending, State},
    limits::{Charge, Limits},
    record::{Gap, Recorder, Segments},
    service::{PendingCall, Standing},
    unit::UnitLookup,
};

/// Why a state is not one that was parked, and what was to go on with it.
pub type Unusable<S> = (&'static str, Vec<Socket>, Vec<Option<S>>);

impl<S: Stream> Hub<S> {
    /// Ends the hub between two turns: gives out what services gathered, writes what the kernel takes at
    /// once, and returns the rest with the clients' streams.
    pub fn park(mut self, now: Now) -> (State, Vec<S>) {
        self.give_out(now);
        for socket in 0..self.sockets.capacity() {
            self.list_acks(socket);
        }
        let owed = |(key, client): (usize, &Connection<S>)| client.is_owed().then_some(key);
        for key in self.clients.iter().filter_map(owed).collect::<Vec<_>>() {
            if let Err(reason) = self.write_owed(key, now) {
                self.close(key, &reason, now);
            }
        }
        let sockets = self.sockets.iter_mut().map(|(_, socket)| socket);
        for socket in sockets.filter(|socket| socket.is_draining()) {
            socket.abandon(&mut self.limits);
        }
        self.tell_left_out(None);
        for (_, client) in &mut self.clients {
            // What it sent is for nobody.
            if client.is_dismissed()
                && let Some(input) = client.input.take()
            {
                let socket = &mut self.sockets[client.socket as usize];
                let (untaken, unfinished) = input.loss(socket.rules.input.framing);
                socket.counters.untaken += untaken;
                socket.counters.unfinished += u64::from(unfinished);
            }
        }
        // Where nobody is left, nothing would bring these counts to the successor later.
        self.clear_drained();
        // Each stands at its key, by which its clients name it. A free key has an entry without clients.
        let mut sockets: Vec<state::Socket> = Vec::new();
        for (key, socket) in &mut self.sockets {
            sockets.resize_with(key, state::Socket::nobody);
            sockets.push(socket.park(key, now));
        }
        let mut indices = vec![None; self.clients.capacity()];
        let (mut clients, mut streams) = (Vec::new(), Vec::new());
        for (key, client) in mem::take(&mut self.clients) {
            indices[key] = Some(clients.len());
            let (client, stream) = client.park(now);
            clients.push(client);
            streams.push(stream);
        }
        let index = |key: usize| indices.get(key).copied().flatten();
        for (key, socket) in &self.sockets {
            sockets[key].wait_queue = socket.wait_queue.order().filter_map(index).collect();
        }
        for mut pending in self.effects.calls.take(|_| true) {
            // What its tap has not passed on stays behind, and it is told how much.
            pending.missed += self.close_taps(pending.client);
            self.effects.calls.add(pending);
        }
        let state = State {
            ids: self.ids,
            quota_queue: self.quota_queue.order().filter_map(index).collect(),
            calls: self.effects.calls.renamed(index),
            sockets: sockets.into_iter().map(|of| of.renamed(index)).collect(),
            clients,
            ..State::default()
        };
        (state, streams)
    }

    /// Goes on where `park` ended, with the same sockets. `streams` are those of the state's clients,
    /// in their order; a client without one was lost on the way, and is counted. Nobody is refused,
    /// whatever `limits` say. Returns the hub and the clients' keys. The event loop watches no client yet:
    /// each gets a turn, which says what to watch it for.
    ///
    /// # Errors
    /// What is wrong with a state that `park` cannot have made.
    pub fn restore(
        sockets: Vec<Socket>,
        limits: Limits,
        state: State,
        streams: Vec<Option<S>>,
        now: Now,
    ) -> Result<(Self, Vec<Option<usize>>), Unusable<S>> {
        if let Err(why) = check(&state, sockets.len(), streams.len()) {
            return Err((why, sockets, streams));
        }
        let mut hub = Hub::new(sockets, limits);
        hub.ids = state.ids;
        for ((_, socket), parked) in hub.sockets.iter_mut().zip(&state.sockets) {
            socket.resume(parked, now);
        }
        let mut keys = Vec::with_capacity(streams.len());
        for (client, stream) in state.clients.into_iter().zip(streams) {
            keys.push(hub.keep(client, stream, now));
        }
        hub.sockets
            .retain(|_, socket| !socket.is_draining() || socket.present > 0);
        for key in 0..hub.sockets.capacity() {
            let successor = hub.sockets.get(key).and_then(|of| hub.key(&of.name));
            if let Some(socket) = hub.sockets.get_mut(key)
                && let Some(draining) = &mut socket.draining
            {
                draining.successor = successor;
                hub.draining = true;
            }
        }
        let key = |index: usize| keys.get(index).copied().flatten();
        for key in state.quota_queue.into_iter().filter_map(key) {
            hub.wait(key, Awaits::Quota, false);
        }
        for pending in state.calls {
            if let Some(key) = key(pending.client) {
                hub.wait(key, Awaits::Answer, false);
                hub.effects.calls.add(PendingCall {
                    client: key,
                    ..pending
                });
            }
        }
        for (number, parked) in state.sockets.into_iter().enumerate() {
            if let Some(of) = parked.record {
                hub.resume_acks(number, of.acks, key);
            }
            hub.close_uncertain(number, now);
            for key in parked.wait_queue.into_iter().filter_map(key) {
                let client = &hub.clients[key];
                if client.is_blocked() && client.socket as usize == number {
                    hub.wait(key, Awaits::Room, false);
                }
            }
            let Some(socket) = hub.sockets.get_mut(number) else {
                continue;
            };
            if !socket.is_draining() {
                socket.pending = Pending::resume(parked.datagrams, &mut hub.limits, now.instant);
            }
            hub.call(number, now);
        }
        Ok((hub, keys))
    }

    /// Takes in a client of an earlier process.
    fn keep(&mut self, parked: state::Client, stream: Option<S>, now: Now) -> Option<usize> {
        let socket = &mut self.sockets[parked.socket];
        let Some(stream) = stream else {
            socket.counters.closed_restart += 1;
            socket.counters.undelivered += parked.queue.len() as u64;
            return None;
        };
        let mut client = Connection::resume(parked, stream, now);
        if socket.record().is_none()
            && let Some(acked) = &mut client.acked
        {
            // Its record went on without it, or not at all.
            acked.taken = acked.stored;
        }
        let uid = socket.user_of(&client.peer);
        client.charge = Charge::new(uid);
        let places = match socket.is_control() {
            true => &mut self.callers,
            false => &mut self.limits,
        };
        places.keep(client.peer.uid);
        let key = self.clients.vacant_key();
        socket.service.rejoin(key, &mut client);
        socket.present += 1;
        client.user = self.users.enter(uid);
        client.charge.settle(&mut self.limits, client.weight());
        if let Some(timeout) = socket.rules.idle_timeout {
            let due = client.active + timeout;
            set(&mut self.timers, &mut client, key, Timer::Idle, due);
        }
        if let Some(full) = &mut client.full {
            // Half of the queue is enough, and more than the queue is never counted.
            full.taken = full.taken.min(socket.rules.queue_size);
            // Early enough for the log line that comes before it is closed.
            let due = full.since + socket.rules.slow_timeout.min(STALL);
            set(&mut self.timers, &mut client, key, Timer::Slow, due);
        }
        self.ready.list(&mut client, key);
        Some(self.clients.insert(client))
    }
}

impl<S> Connection<S> {
    fn park(self, now: Now) -> (state::Client, S) {
        let age = |since| now.instant.saturating_duration_since(since);
        let client = state::Client {
            cookie: 0,
            plain: false,
            socket: self.socket as usize,
            id: self.id,
            peer: self.peer,
            unit: self
                .unit
                .as_ref()
                .and_then(UnitLookup::unit)
                .cloned()
                .filter(|unit| !unit.is_unknown()),
            age: age(self.since).as_millis() as u64,
            silent: age(self.active),
            traffic: self.traffic,
            receiver: self.receiver,
            write_shut: self.is_write_shut,
            holds_up: self.holds_up,
            ending: self.ending.and_then(|reason| match reason {
                Close::Done => Some(Ending::Done),
                Close::HangUp => Some(Ending::HangUp),
                Close::MessageTooLong { limit } => Some(Ending::MessageTooLong(limit)),
                Close::Changed(what) => Some(Ending::Changed(what)),
                // Clients that end for another reason are closed by now.
                _ => None,
            }),
            full: self.full.map(|full| state::Full {
                since: age(full.since),
                taken: full.taken,
                told: full.told,
            }),
            input: self.input,
            queue: self.queue,
            gap: self.gap,
            acked: self.acked,
        };
        (client, self.stream)
    }
}

impl<S: Stream> Connection<S> {
    fn resume(parked: state::Client, stream: S, now: Now) -> Self {
        let then = |age| now.instant.checked_sub(age).unwrap_or(now.instant);
        let socket = parked.socket as u32;
        Connection {
            receiver: parked.receiver,
            is_write_shut: parked.write_shut,
            holds_up: parked.holds_up,
            ending: parked.ending.map(|ending| match ending {
                Ending::Done => Close::Done,
                Ending::HangUp => Close::HangUp,
                Ending::MessageTooLong(limit) => Close::MessageTooLong { limit },
                Ending::Changed(what) => Close::Changed(what),
            }),
            full: parked.full.map(|full| {
                Box::new(Full {
                    since: then(full.since),
                    taken: full.taken,
                    told: full.told,
                })
            }),
            input: parked.input,
            queue: parked.queue,
            gap: parked.gap,
            acked: parked.acked,
            unit: parked.unit.map(|unit| UnitLookup::ended(Ok(unit))),
            since: then(Duration::from_millis(parked.age).max(parked.silent)),
            traffic: parked.traffic,
            ..Connection::new(parked.id, parked.peer, socket, stream, then(parked.silent))
        }
    }
}

impl Socket {
    /// One for clients whose socket is no more, until they have what they are owed.
    #[must_use]
    pub fn draining(name: &str) -> Self {
        let config = config::Socket {
            service: ServiceKind::Collect,
            ..config::Socket::new(name.into(), Address::Abstract(Vec::new()))
        };
        let mut socket = Socket::new(&config, Access::new(Vec::new(), Vec::new()), None);
        socket.draining = Some(Draining { successor: None });
        socket
    }

    fn park(&mut self, key: usize, now: Now) -> state::Socket {
        let Standing {
            stamped,
            enough,
            history,
        } = self.service.park();
        let record = self
            .record()
            .filter(|of| of.sockets().first() == Some(&key));
        let record = record.map(|record| {
            let progress = record.progress(record.written());
            state::Record {
                seq: record.seq(),
                written: progress.written,
                waiting: progress.waiting.messages,
                segment: record.segment(),
                segments: record.segments(Segments::default()),
                acks: record.park_acks(),
                ..state::Record::default()
            }
        });
        state::Socket {
            name: self.name.clone(),
            retired: self.is_draining(),
            counters: self.counters,
            log: self.lines.park(now.instant),
            stamped,
            enough,
            history,
            datagrams: mem::take(&mut self.pending).park(now.instant),
            packets: (self.rules.packet > 0)
                .then_some((self.rules.input.message_size, self.rules.longest)),
            record,
            unrecorded: self.recorder.as_ref().map_or(Gap::default(), Recorder::gap),
            ..state::Socket::default()
        }
    }

    fn resume(&mut self, parked: &state::Socket, now: Now) {
        self.counters = parked.counters;
        self.lines.resume(&parked.log, now.instant);
        self.service.resume(&Standing {
            stamped: parked.stamped,
            enough: parked.enough,
            history: parked.history.clone(),
        });
        if let Some(recorder) = &mut self.recorder {
            recorder.resume_gap(parked.unrecorded);
        }
        if let (Some(mut record), Some(parked)) = (self.record(), &parked.record) {
            record.go_on_from(parked.seq);
            record.count_on(parked.written, parked.waiting);
            // Where they are taken out, they come later.
            if !parked.lines.is_empty() {
                record.prepend(&parked.lines, &parked.segment_ends);
            }
            record.resume_segment(parked.segment, parked.segments);
        }
    }
}

/// Finds what `park` cannot have made.
fn check(state: &State, sockets: usize, streams: usize) -> Result<(), &'static str> {
    if state.sockets.len() != sockets {
        return Err("it has another number of sockets than were made for it");
    }
    if state.clients.len() != streams {
        return Err("it has another number of clients than streams");
    }
    if state.ids >= UNCOUNTABLE
        || !state
            .sockets
            .iter()
            .all(|socket| socket.counters.are_sound())
    {
        return Err("a count is beyond counting");
    }
    let mut ids = HashSet::new();
    for client in &state.clients {
        if client.socket >= sockets {
            return Err("a client came by no socket");
        }
        if client.id.0 > state.ids || !ids.insert(client.id) {
            return Err("the number of a client is not its own");
        }
        let gap = client.gap.as_deref().copied().unwrap_or_default();
        if gap.count.max(gap.bytes) >= UNCOUNTABLE {
            return Err("a gap is beyond counting");
        }
        if client.input.as_ref().is_some_and(|input| !input.is_sound()) {
            return Err("a client's input is not as long as it says");
        }
    }
    let mut placed = vec![false; streams];
    let lines = state.sockets.iter().flat_map(|socket| &socket.wait_queue);
    for &index in state.quota_queue.iter().chain(lines) {
        match placed.get_mut(index) {
            Some(placed @ false) => *placed = true,
            _ => return Err("a client waits in two places, or is none"),
        }
    }
    Ok(())
}
