//! All clients, sockets, services and limits, and what happens next. The hub knows no descriptor, no event
//! loop and no clock. It is told of events, of what records have written, and of the time; it says what to
//! watch streams for, what records are to write, and when its next deadline is.
//!
//! An event makes a client ready. So do the stop and room for which a client waits (`connection::waits`): no event
//! tells of those. A ready client gets a turn: what waits for it is written, and what it sent is read, once.
//! Users take turns, and each user's clients among themselves. All turns between two looks at the event
//! loop do a bounded amount of work (`round_robin`); clients that are left keep their places, while the event loop
//! asks who else has come. Events repeat for as long as there is something to read or room to write, so a
//! client that sends without end is ready again. After each turn the client's state says what the event loop
//! is to watch it for. Datagram sockets are served in `datagrams`, by the same turns and timers.

mod acks;
mod admit;
mod apply;
mod calls;
mod datagrams;
mod follow_up;
mod log;
mod log_rates;
mod park;
mod records;
mod socket;
mod tap;
mod turn;
mod watch;

use std::{collections::BTreeSet, mem, time::Instant};

use slab::Slab;

pub use apply::SocketChange;
pub use calls::Found;
pub use log_rates::Kind;
pub use park::Unusable;
pub use socket::{Nature, Socket};
pub use tap::{Tapped, Wanted};
pub use watch::WatchChange;

pub use crate::{connection::Now, counters::Counters};

use datagrams::Shared;
use socket::{STALL, Time};

use crate::{
    connection::{
        Connection, Stream, Watch,
        waits::{Awaits, QuotaQueue},
    },
    error::Close,
    limits::Limits,
    round_robin::{ALONE, CLIENT, RoundRobin, SHARED, Users},
    service::{Effects, Outbox},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Idle,
    Slow,
}

/// Whose timer it is. Those of datagram sockets that are gone may be among them and are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// One of the client with this key.
    Client(usize, Timer),
    /// That of the datagram socket of the socket with this number.
    Datagrams(usize),
}

/// Everything that the daemon serves.
#[derive(Debug)]
pub struct Hub<S> {
    clients: Slab<Connection<S>>,
    /// A socket keeps its key until it is removed, which is when its last client has gone.
    sockets: Slab<Socket>,
    limits: Limits,
    /// Who is at the control socket.
    callers: Limits,
    users: Users,
    ready: Ready,
    quota_queue: QuotaQueue,
    /// What services did to clients that had no turn, until `follow_up`.
    effects: Effects,
    watch_changes: watch::WatchChanges,
    timers: BTreeSet<(Instant, Due)>,
    buffer: Box<[u8]>,
    ids: u64,
    stopping: bool,
    /// The stop began or a client left since the last turn: receivers that waited for it may go now.
    left: bool,
    datagrams: Shared,
    /// There are sockets that the file no longer has.
    draining: bool,
    /// Clients of any user may wait to be let in: turns are short.
    expects_clients: bool,
}

/// Who is to have a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    /// The client with this key.
    Client(usize),
    /// The datagram socket of the socket with this number.
    Datagrams(usize),
}

/// All who are to have a turn. Keys of clients that have left may be among them and are passed over.
#[derive(Debug, Default)]
struct Ready(RoundRobin<Turn>);

impl Ready {
    /// Adds a client, once.
    #[inline(always)]
    fn list<S>(&mut self, client: &mut Connection<S>, key: usize) {
        if !mem::replace(&mut client.listed, true) {
            self.0.push(client.user, Turn::Client(key));
        }
    }

    /// Adds a client before the others of its user. If it was listed, its later turn is passed over.
    fn list_first<S>(&mut self, client: &mut Connection<S>, key: usize) {
        client.listed = true;
        self.0.push_front(client.user, Turn::Client(key), false);
    }
}

impl<S: Stream> Hub<S> {
    /// A hub without clients.
    #[must_use]
    pub fn new(sockets: Vec<Socket>, limits: Limits) -> Self {
        let buffer = sockets.iter().map(|socket| socket.rules.read_size).max();
        let mut hub = Hub {
            clients: Slab::new(),
            sockets: sockets.into_iter().enumerate().collect(),
            limits,
            callers: Limits::of_control(),
            users: Users::default(),
            ready: Ready::default(),
            quota_queue: QuotaQueue::default(),
            effects: Effects::default(),
            watch_changes: watch::WatchChanges::default(),
            timers: BTreeSet::new(),
            buffer: vec![0; buffer.unwrap_or(0)].into_boxed_slice(),
            ids: 0,
            stopping: false,
            left: false,
            datagrams: Shared::default(),
            draining: false,
            expects_clients: false,
        };
        hub.join_records();
        hub
    }

    /// Clients at present, beside those of the control socket.
    #[must_use]
    pub fn present(&self) -> usize {
        let control = self.sockets.iter().filter(|(_, of)| of.is_control());
        self.clients.len() - control.map(|(_, of)| of.present).sum::<usize>()
    }

    /// Whether client `key` came by the control socket.
    #[must_use]
    pub fn is_of_control(&self, key: usize) -> bool {
        let client = self.clients.get(key);
        client.is_some_and(|client| self.sockets[client.socket as usize].is_control())
    }

    /// What holds for all clients together.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Client `key`, if it is here.
    #[must_use]
    pub fn client(&self, key: usize) -> Option<&Connection<S>> {
        self.clients.get(key)
    }

    /// Looks up the unit of client `key`; whether that has ended.
    pub fn look_up_unit(&mut self, key: usize) -> bool {
        let client = self.clients.get_mut(key);
        client.is_none_or(|client| client.look_up_unit().has_ended())
    }

    /// Bytes held for all clients: input that waits and output unsent.
    #[must_use]
    pub fn held(&self) -> usize {
        self.limits.held()
    }

    /// Bytes held for the clients of user `uid`.
    #[must_use]
    pub fn held_for(&self, uid: u32) -> usize {
        self.limits.held_for(uid)
    }

    /// The sockets by their keys: those of `new` have them in its order, from 0 on. Among them are some that
    /// the file no longer has, for as long as somebody is owed something there.
    #[must_use]
    pub fn sockets(&self) -> &Slab<Socket> {
        &self.sockets
    }

    /// Whether clients may wait to be let in. Turns are short then, for they may be of any user.
    pub fn expect_clients(&mut self, expects_clients: bool) {
        self.expects_clients = expects_clients;
    }

    /// An event for client `key`, which gets a turn; a client that has left is passed over. `event` says what
    /// there is: an error, or the end of both directions, counts as something to read and room to write.
    pub fn event(&mut self, key: usize, event: Watch) {
        if let Some(client) = self.clients.get_mut(key) {
            client.event.add(event);
            self.ready.list(client, key);
        }
    }

    /// Gives turns to those who are ready, until all had theirs or one turn of the event loop has done
    /// its work.
    pub fn serve(&mut self, now: Now) {
        let is_shared = self.expects_clients || self.users.present() > 1;
        let most = if is_shared { SHARED } else { ALONE };
        while self.effects.work < most {
            match self.ready.0.pop() {
                None => return,
                Some(Turn::Datagrams(number)) => {
                    if self.takes_turn(number) {
                        self.effects.work += CLIENT;
                        self.work_datagrams(number, now);
                    }
                }
                Some(Turn::Client(key)) => {
                    if let Some(client) = self.clients.get_mut(key)
                        && mem::take(&mut client.listed)
                    {
                        let event = mem::take(&mut client.event);
                        if client.awaits == Some(Awaits::Turn) {
                            client.awaits = None;
                        }
                        self.effects.work += CLIENT;
                        self.work(key, event, now);
                    }
                }
            }
        }
    }

    /// A turn of the event loop: serves those who are ready, and gives out what the relays gathered.
    pub fn turn(&mut self, now: Now) {
        self.effects.work = 0;
        self.serve(now);
        self.give_out(now);
        if self.limits.take_released() {
            self.call_for_quota(now);
        }
        if self.stopping {
            self.left = false;
            self.release_receivers();
        }
        if self.draining {
            self.clear_drained();
        }
    }

    fn give_out(&mut self, now: Now) {
        for number in 0..self.sockets.capacity() {
            if let Some(socket) = self.sockets.get_mut(number)
                && socket.service.is_due()
            {
                socket.service.end_turn(&mut Outbox::new(
                    &mut self.clients,
                    &mut self.limits,
                    &mut self.effects,
                    socket.rules.queue_size,
                    now,
                ));
                self.call(number, now);
            }
        }
        if !self.effects.is_empty() {
            self.follow_up(now);
        }
    }

    /// During the stop: receivers stay until everything was given out that others had sent.
    fn release_receivers(&mut self) {
        for (i, socket) in &mut self.sockets {
            let of_socket = |client: &Connection<S>| client.socket as usize == i;
            if !socket.has_given_all
                && !socket.service.is_due()
                && !self
                    .clients
                    .iter()
                    .any(|(_, client)| of_socket(client) && client.is_blocked())
            {
                socket.has_given_all = true;
                for (key, client) in &mut self.clients {
                    if of_socket(client) {
                        self.ready.list(client, key);
                    }
                }
            }
        }
    }

    /// Whether `turn` has something to do without a further event.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let has_quota = !self.quota_queue.is_empty() && self.limits.released();
        let is_due = |(_, socket): (usize, &Socket)| socket.service.is_due();
        let left = self.stopping && self.left;
        !self.ready.0.is_empty() || has_quota || left || self.sockets.iter().any(is_due)
    }

    /// Whether somebody is to have a turn, beside clients of the control socket.
    #[must_use]
    pub fn has_turns(&self) -> bool {
        self.ready.0.iter().any(|turn| match turn {
            Turn::Client(key) => !self.is_of_control(key),
            Turn::Datagrams(_) => true,
        })
    }

    /// Whether something is to be done at a time, beside lines of the log and for clients of the control socket.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.timers.iter().any(|(_, due)| match due {
            Due::Client(key, _) => !self.is_of_control(*key),
            Due::Datagrams(_) => true,
        })
    }

    /// When `expire` is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let mut first = self.timers.first().map(|(at, _)| *at);
        let mut consider = |due: Option<Instant>| {
            if due.is_some_and(|due| first.is_none_or(|first| due < first)) {
                first = due;
            }
        };
        for (_, socket) in &self.sockets {
            consider(socket.lines.due());
        }
        first
    }

    /// Closes the clients whose time is over: silent for `idle-timeout`, or slow for
    /// `slow-timeout`. Each gets a turn before: the daemon itself may have paused and not have noticed
    /// what the client sent or took. If they are many, the rest are left for later.
    pub fn expire(&mut self, now: Now) {
        self.effects.work = 0;
        while let Some(&(at, due)) = self.timers.first() {
            if at > now.instant || self.effects.work >= SHARED {
                break;
            }
            self.effects.work += CLIENT;
            self.timers.pop_first();
            let (key, timer) = match due {
                Due::Client(key, timer) => (key, timer),
                Due::Datagrams(number) => {
                    self.work_datagrams(number, now);
                    continue;
                }
            };
            self.clients[key].note_timer(timer as usize, None);
            // As if an event had come for all that it is watched for. Only the end of both directions has to
            // be told by one. Where no quota is left, nothing could be read.
            let client = &self.clients[key];
            let last_look = Watch {
                read: client.watched.read && self.limits.input_room(client.charge.uid()) > 0,
                end: false,
                ..client.watched
            };
            self.work(key, last_look, now);
            let has_tap = self.has_tap(key);
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            if has_tap {
                // It looks on, however little passes and however slowly it is read.
                client.active = now.instant;
            }
            let socket = &mut self.sockets[client.socket as usize];
            // Nothing is read in the stop, and others may still have something for it.
            let time = if self.stopping && timer == Timer::Idle {
                Time::Off
            } else {
                socket.over(client, timer, now.instant)
            };
            match time {
                Time::Off => {}
                Time::Until(due) => set(&mut self.timers, client, key, timer, due),
                Time::Stall(due) => {
                    set(&mut self.timers, client, key, timer, due);
                    if client.holds_up {
                        socket.stalled(client, now);
                    } else {
                        let over = self.limits.over(client.charge.uid());
                        socket.waits_for_quota(client, over, now);
                    }
                }
                Time::Over(Close::SlowReader { .. })
                    if client.awaits == Some(Awaits::Quota) && !client.holds_up =>
                {
                    if self.has_quota(key) {
                        // Others were closed just now.
                        self.quota_queue.leave(|waiting| waiting == key);
                        self.resume_from_quota(key, now);
                    } else {
                        let over = self.limits.over(self.clients[key].charge.uid());
                        self.close(key, &Close::OverQuota(over), now);
                    }
                }
                Time::Over(reason) => self.close(key, &reason, now),
            }
        }
        self.tell_left_out(Some(now.instant));
    }

    /// Has the log tell of lines that were left out for so long that `now` is their time, or of all of them.
    pub fn tell_left_out(&mut self, now: Option<Instant>) {
        for (_, socket) in &mut self.sockets {
            socket.tell_left_out(now);
        }
    }

    /// Warns of what a client of a socket caused, at the rate that lines of its kind may have.
    pub fn warn(&mut self, socket: usize, of: Kind, now: Now, line: impl FnOnce() -> String) {
        self.sockets[socket].write(of, 1, now, |_| line());
    }

    /// Begins the stop: nothing more is read, and each client is closed once it has what it is owed
    /// and what it sent is recorded.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.left = true;
        self.effects.calls.wake_all();
        for (key, client) in &mut self.clients {
            if client.receiver && matches!(client.ending, Some(Close::Done)) {
                client.ending = None;
            }
            client.ending.get_or_insert(Close::Stopping);
            if client.awaits == Some(Awaits::Quota) && !client.is_blocked() {
                client.awaits = None;
                self.quota_queue.leave(|waiting| waiting == key);
            }
            self.ready.list(client, key);
        }
        for (_, socket) in &mut self.sockets {
            socket.stop(&mut self.limits);
        }
    }

    /// Ends the stop: closes all who are left, whatever they are owed.
    pub fn abandon(&mut self, now: Now) {
        self.give_out(now);
        for (_, socket) in &mut self.sockets {
            socket.abandon(&mut self.limits);
        }
        let left: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in left {
            self.close(key, &Close::Stopping, now);
        }
        self.timers.clear();
        self.clear_drained();
    }
}

fn set<S: Stream>(
    timers: &mut BTreeSet<(Instant, Due)>,
    client: &mut Connection<S>,
    key: usize,
    timer: Timer,
    at: Instant,
) {
    if let Some(before) = client.note_timer(timer as usize, Some(at)) {
        timers.remove(&(before, Due::Client(key, timer)));
    }
    timers.insert((at, Due::Client(key, timer)));
}
