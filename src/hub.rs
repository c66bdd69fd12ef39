//! All clients, sockets, services and limits, and what happens next. Knows no descriptor, no event
//! loop and no clock: events, records' progress and `now` come in; interest, lines for the writers
//! and one next deadline go out.
//!
//! A client is worked on when there is an event for it: what waits for it is written, what it sent is
//! read, once. Events repeat for as long as there is something to read or room to write, so nothing
//! need be remembered of what an event said, and a client that sends without end takes its turn with
//! the others. What the event loop is to watch follows from the client's state after each turn. Only
//! what no event tells, room in a record and the stop, puts clients on the ready list.

mod log;
mod socket;

use std::{
    collections::{BTreeSet, VecDeque},
    io, mem,
    time::{Instant, SystemTime},
};

use slab::Slab;

pub use socket::{Counters, Socket};

use log::Lines;
use socket::{Loss, Time};

use crate::{
    batch::Batch,
    config::SlowClient,
    connection::{Connection, Full, Stream, Watch},
    error::Close,
    frame::Framing,
    input::{Fed, Input},
    limits::{Limits, Over, OverKey},
    peer::{ClientId, Peer},
    service::{Outbox, Record, Sender},
};

/// The read buffer that all clients share, in bytes: what one client may send in a turn.
const READ_BUFFER: usize = 64 * 1024;

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For spans.
    pub instant: Instant,
    /// For records.
    pub wall: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Idle,
    Slow,
}

/// Everything that the daemon serves.
#[derive(Debug)]
pub struct Hub<S> {
    clients: Slab<Connection<S>>,
    sockets: Vec<Socket>,
    limits: Limits,
    ready: VecDeque<usize>,
    timers: BTreeSet<(Instant, usize, Timer)>,
    buffer: Box<[u8]>,
    ids: u64,
    lines: Lines,
}

impl<S: Stream> Hub<S> {
    /// A hub without clients.
    #[must_use]
    pub fn new(sockets: Vec<Socket>, limits: Limits) -> Self {
        Hub {
            clients: Slab::new(),
            sockets,
            limits,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            ids: 0,
            lines: Lines::default(),
        }
    }

    /// Clients at present.
    #[must_use]
    pub fn present(&self) -> usize {
        self.clients.len()
    }

    /// The sockets, in the order of `new`.
    #[must_use]
    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// The records of the sockets that have one.
    pub fn records(&mut self) -> impl Iterator<Item = &mut Record> {
        self.sockets
            .iter_mut()
            .filter_map(|socket| socket.record.as_mut())
    }

    /// A client comes by socket number `socket`. Returns its key, for events; the event loop watches
    /// it for reading from now on. Where an access list or a limit keeps it out, its stream is ended
    /// and `None` returned. `groups`: its supplementary groups, where the socket asks for them.
    pub fn enter(
        &mut self,
        socket: usize,
        mut stream: S,
        peer: Peer,
        groups: &[u32],
        now: Now,
    ) -> Option<usize> {
        let rules = &mut self.sockets[socket];
        // Before the limits: raising one would not let this client in.
        if !rules.access.admits(&peer, groups) {
            rules.counters.refused += 1;
            stream.hang_up();
            self.lines.denied(rules, &peer, now.instant);
            return None;
        }
        if let Err(over) = self.limits.enter(peer.uid, rules.present, rules.clients) {
            rules.counters.refused += 1;
            stream.hang_up();
            self.lines.refused(rules, &peer, over, now.instant);
            return None;
        }
        rules.present += 1;
        rules.counters.clients += 1;
        self.ids += 1;
        let id = ClientId(self.ids);
        self.lines.entered(rules, id, &peer, now.instant);
        let client = Connection::new(id, peer, socket as u32, stream, now.instant);
        let key = self.clients.insert(client);
        if let Some(timeout) = rules.idle_timeout {
            let due = now.instant + timeout;
            set(
                &mut self.timers,
                &mut self.clients[key],
                key,
                Timer::Idle,
                due,
            );
        }
        Some(key)
    }

    /// A client came by socket number `socket` that cannot be served: `files` descriptors are open,
    /// and there may be no more.
    pub fn refuse(&mut self, socket: usize, peer: &Peer, files: usize, now: Now) {
        let over = Over {
            key: OverKey::Files,
            limit: files,
        };
        let rules = &mut self.sockets[socket];
        rules.counters.refused += 1;
        self.lines.refused(rules, peer, over, now.instant);
    }

    /// The stream of client `key`.
    #[must_use]
    pub fn stream(&self, key: usize) -> Option<&S> {
        self.clients.get(key).map(|client| &client.stream)
    }

    /// The event loop cannot watch client `key`: it is closed.
    pub fn fail(&mut self, key: usize, error: io::Error, now: Now) {
        self.close(key, &Close::Io(error), now);
    }

    /// The record of socket number `socket`, where it has one.
    pub fn record(&mut self, socket: usize) -> Option<&mut Record> {
        self.sockets[socket].record.as_mut()
    }

    /// An event for client `key`; one that has left is passed over. `event` says what there is: an
    /// error or the end of both directions counts as both. `watch` changes what the event loop
    /// watches a stream for, from one to the other.
    pub fn event(&mut self, key: usize, event: Watch, now: Now, watch: &mut WatchFn<'_, S>) {
        if self.clients.contains(key) {
            self.work(key, event, now, watch);
        }
    }

    /// Works once on every client that stands on the ready list.
    pub fn turn(&mut self, now: Now, watch: &mut WatchFn<'_, S>) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            if let Some(client) = self.clients.get_mut(key) {
                client.listed = false;
                self.work(key, Watch::default(), now, watch);
            }
        }
    }

    /// One client's turn, and what follows from it.
    fn work(&mut self, key: usize, event: Watch, now: Now, watch: &mut WatchFn<'_, S>) {
        let socket = self.clients[key].socket as usize;
        let served = self.serve(key, event, now).and_then(|()| {
            let client = &mut self.clients[key];
            let wanted = client.watch();
            if client.watched != wanted {
                let watched = mem::replace(&mut client.watched, wanted);
                watch(key, &client.stream, watched, wanted).map_err(Close::Io)?;
            }
            Ok(())
        });
        if let Some(record) = &mut self.sockets[socket].record {
            record.served(key);
        }
        match served {
            Ok(()) => self.call(socket, now),
            Err(reason) => self.close(key, &reason, now),
        }
    }

    /// Goes on with the client that is first in the line for its socket's record, if there is room.
    fn call(&mut self, socket: usize, now: Now) {
        if let Some(record) = &mut self.sockets[socket].record
            && let Some(key) = record.call()
        {
            let client = &mut self.clients[key];
            client.awaits_record = false;
            // It was not silent: nobody listened.
            client.active = now.instant;
            list(&mut self.ready, client, key);
        }
    }

    /// Record of socket number `socket`: its writer has written `bytes` more.
    pub fn recorded(&mut self, socket: usize, bytes: usize, now: Now) {
        if let Some(record) = &mut self.sockets[socket].record {
            record.written(bytes);
            self.call(socket, now);
        }
    }

    /// Whether `turn` has something to do without a further event.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When `expire` is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Closes the clients whose time is over: silent for `idle-timeout`, or slow for
    /// `slow-timeout`. Each gets a last look before, for after a pause of the daemon's own what it
    /// sent or took may not have been noticed.
    pub fn expire(&mut self, now: Now, watch: &mut WatchFn<'_, S>) {
        while let Some(&(at, key, timer)) = self.timers.first() {
            if at > now.instant {
                break;
            }
            self.timers.pop_first();
            self.clients[key].note_timer(timer as usize, None);
            let last_look = self.clients[key].watched;
            self.work(key, last_look, now, watch);
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            match self.sockets[client.socket as usize].over(client, timer, now.instant) {
                Time::Off => {}
                Time::Until(due) => set(&mut self.timers, client, key, timer, due),
                Time::Over(reason) => self.close(key, &reason, now),
            }
        }
    }

    /// Begins the stop: nothing more is read, and each client is closed once it has what it is owed
    /// and what it sent is recorded.
    pub fn stop(&mut self) {
        for (key, client) in &mut self.clients {
            client.ending.get_or_insert(Close::Stopping);
            list(&mut self.ready, client, key);
        }
    }

    /// Ends the stop: closes all who are left, whatever they are owed.
    pub fn abandon(&mut self, now: Now) {
        for record in self.records() {
            record.dismiss();
        }
        let left: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in left {
            self.close(key, &Close::Stopping, now);
        }
    }

    /// One client's turn: what it is owed, what waited, what it sends.
    fn serve(&mut self, key: usize, event: Watch, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        if event.write {
            client.flush(now.instant)?;
        }
        let mut fed = Fed::All;
        if client.awaits_record {
            fed = Fed::Blocked;
        } else if client.is_blocked() {
            fed = self.deliver(key, Step::Resume, now)?;
        } else if event.read && client.ending.is_none() {
            let step = match client.stream.read(&mut self.buffer) {
                Ok(0) => {
                    client.ending = Some(Close::Done);
                    Step::Finish
                }
                Ok(bytes) => {
                    client.active = now.instant;
                    Step::Feed(bytes)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Step::Resume,
                    // It went without reading all it was sent; what it sent was read before.
                    io::ErrorKind::ConnectionReset => {
                        client.ending = Some(Close::HangUp);
                        Step::Finish
                    }
                    _ => return Err(Close::Io(error)),
                },
            };
            fed = self.deliver(key, step, now)?;
        }
        self.settle(key, fed, now)
    }

    /// After a turn: closes the client that has ended and is owed nothing; times the one whose queue
    /// is full.
    fn settle(&mut self, key: usize, fed: Fed, now: Now) -> Result<(), Close> {
        let client = &mut self.clients[key];
        let socket = &mut self.sockets[client.socket as usize];
        if fed == Fed::Blocked && client.awaits_record {
            // Whatever holds it up, its own queue does not.
            client.full = None;
            return Ok(());
        }
        if fed == Fed::All
            && client.queue.is_empty()
            && let Some(reason) = client.ending.take()
        {
            return Err(reason);
        }
        // Who half-closed may take its time; who was cut off may not.
        let cut_off = matches!(client.ending, Some(Close::MessageTooLong { .. }));
        let full = fed == Fed::Blocked || (cut_off && !client.queue.is_empty());
        match (full, &client.full) {
            (true, None) => {
                client.full = Some(Box::new(Full {
                    since: now.instant,
                    taken: 0,
                }));
                let due = now.instant + socket.slow_timeout;
                set(&mut self.timers, client, key, Timer::Slow, due);
            }
            (false, Some(_)) => client.full = None,
            _ => {}
        }
        Ok(())
    }

    /// Runs one step of the client's input through its socket's service.
    fn deliver(&mut self, key: usize, step: Step, now: Now) -> Result<Fed, Close> {
        let client = &mut self.clients[key];
        let Socket {
            rule,
            service,
            record,
            counters,
            queue_size,
            slow_client,
            ..
        } = &mut self.sockets[client.socket as usize];
        let from = Sender {
            key,
            id: client.id,
            peer: client.peer,
        };
        // Taken out, so that the service may reach every client while this one's bytes are read.
        let mut input = client
            .input
            .take()
            .map_or_else(Input::default, |input| *input);
        let mut out = Outbox {
            clients: &mut self.clients,
            queue_size: *queue_size,
        };
        let (mut dropped, mut truncated, mut awaits_record) = (0, 0, false);
        let mut failed = None;
        let mut receive = |batch: Batch<'_>| {
            let mark = record.as_ref().map(Record::mark);
            let taken = match record {
                Some(record) => record.receive(&from, &batch, now.wall),
                None => batch.bytes.len(),
            };
            awaits_record = taken < batch.bytes.len();
            let offered = batch.first(taken);
            let done = match service.receive(&from, offered, &mut out) {
                Ok(done) => done,
                Err(reason) => {
                    // What was not taken stays, to be counted.
                    failed = Some(reason);
                    return Ok(0);
                }
            };
            let messages = batch.count(done);
            counters.messages += messages;
            counters.bytes += done as u64;
            if batch.truncated {
                truncated += messages;
            }
            if done == taken {
                return Ok(taken);
            }
            match slow_client {
                SlowClient::Wait => {
                    if let (Some(record), Some(mark)) = (&mut *record, mark) {
                        record.back_to(mark);
                        record.receive(&from, &batch.first(done), now.wall);
                    }
                    awaits_record = false;
                    Ok(done)
                }
                SlowClient::Disconnect => {
                    let waiting = out.clients[key].queue.len();
                    failed = Some(Close::SlowReader { waiting });
                    Ok(done)
                }
                SlowClient::Drop => {
                    dropped += match rule.framing {
                        // The rest of what one read brought.
                        Framing::None => 1,
                        _ => offered.messages - messages,
                    };
                    Ok(taken)
                }
            }
        };
        let fed = match step {
            Step::Resume => input.resume(rule, &mut receive),
            Step::Feed(bytes) => input.feed(&mut self.buffer[..bytes], rule, &mut receive),
            Step::Finish => input.finish(rule, &mut receive),
        };
        counters.dropped += dropped;
        counters.truncated += truncated;
        let client = &mut self.clients[key];
        client.awaits_record = awaits_record;
        if let (true, Some(record)) = (awaits_record, record) {
            record.wait(key);
        }
        let socket = &self.sockets[client.socket as usize];
        if dropped > 0 {
            self.lines
                .dropped(socket, client.id, &client.peer, dropped, now.instant);
        }
        if truncated > 0 {
            self.lines
                .truncated(socket, client.id, &client.peer, truncated, now.instant);
        }
        if !input.is_clear() {
            client.input = Some(Box::new(input));
        }
        if let Some(reason) = failed {
            return Err(reason);
        }
        match fed {
            // What it sent before is still owed.
            Err(reason @ Close::MessageTooLong { .. }) => {
                client.ending = Some(reason);
                Ok(Fed::All)
            }
            other => other,
        }
    }

    /// Takes a client out and ends its stream.
    fn close(&mut self, key: usize, reason: &Close, now: Now) {
        let mut client = self.clients.remove(key);
        for timer in [Timer::Idle, Timer::Slow] {
            if let Some(at) = client.note_timer(timer as usize, None) {
                self.timers.remove(&(at, key, timer));
            }
        }
        self.limits.leave(client.peer.uid);
        let socket = &mut self.sockets[client.socket as usize];
        socket.present -= 1;
        if let Some(record) = &mut socket.record {
            record.leave(key);
        }
        // After an end of file there is nothing left to read away.
        let unread = if matches!(reason, Close::Done) {
            0
        } else {
            client.stream.hang_up()
        };
        let undelivered = client.queue.len();
        let (untaken, unfinished) = match &client.input {
            Some(input) => input.loss(socket.rule.framing),
            None => (0, false),
        };
        let loss = Loss {
            unread,
            undelivered,
            untaken,
            unfinished,
        };
        socket.counters.lost(&loss);
        self.lines
            .closed(socket, &client, reason, &loss, now.instant);
        self.call(client.socket as usize, now);
    }
}

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

/// How the hub has the event loop change what it watches a stream for, from one to the other; an
/// error closes the client.
pub type WatchFn<'a, S> = dyn FnMut(usize, &S, Watch, Watch) -> io::Result<()> + 'a;

/// Puts a client on the ready list, once.
fn list<S>(ready: &mut VecDeque<usize>, client: &mut Connection<S>, key: usize) {
    if !mem::replace(&mut client.listed, true) {
        ready.push_back(key);
    }
}

fn set<S: Stream>(
    timers: &mut BTreeSet<(Instant, usize, Timer)>,
    client: &mut Connection<S>,
    key: usize,
    timer: Timer,
    at: Instant,
) {
    if let Some(before) = client.note_timer(timer as usize, Some(at)) {
        timers.remove(&(before, key, timer));
    }
    timers.insert((at, key, timer));
}
