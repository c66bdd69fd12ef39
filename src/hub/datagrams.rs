//! The datagram sockets of the hub: judges every datagram by its socket's rules, gives it to the
//! record and back to its sender, and counts what becomes of it.
//!
//! An event brings one batch, and repeats while there is more. Of a batch that the record has no room
//! for the rest is held, and nothing more is received until it is taken: what comes meanwhile waits
//! in the kernel, where senders that may wait do so.

mod notes;

use std::{
    io, mem,
    time::{Duration, Instant},
};

use log::warn;
use slab::Slab;

use super::{Hub, Now, Socket, Turn};
use crate::{
    connection::Stream,
    datagram::{Datagrams, Exchange, HeldDatagram, Lost, Parked, Reply, Sender},
    frame::Framing,
    header::{BATCH, Header},
    input::TooLong,
    limits::Limits,
    peer::Peer,
    service::{Record, Service},
    turns::{CLIENT, DELIVERY, NOBODY},
};
use notes::Notes;

/// Bytes of the buffer that all datagram sockets share, unless one datagram needs more. What no
/// datagram ever reached is never backed by memory.
const BUFFER: usize = 16 << 20;
/// What a datagram may have beyond `message-size`: a terminator that is cut off (LF NUL), and one
/// byte more, which tells that it is too long.
const BEYOND: usize = 3;
/// How long receiving rests after the kernel failed to.
const REST: Duration = Duration::from_millis(100);

/// All datagram sockets.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// Each with the number of its socket.
    exchanges: Slab<(usize, Exchange)>,
    buffer: Vec<u8>,
    headers: Vec<Header>,
    notes: Notes,
    /// Of sockets that are not open: what waited there in an earlier process, or at another datagram socket.
    /// Nothing of retired ones.
    parked: Vec<(usize, Parked)>,
}

impl Exchanges {
    /// Lets go of all sockets, and returns what waited at each, and for those that are not open.
    pub(super) fn park(self, now: Instant) -> impl Iterator<Item = (usize, Parked)> {
        let exchanges = self.exchanges.into_iter();
        exchanges
            .map(move |(_, (socket, exchange))| (socket, exchange.park(now)))
            .chain(self.parked)
    }

    /// What waited at this socket in an earlier process, to go on once it is open.
    pub(super) fn resume(&mut self, socket: usize, parked: Parked) {
        self.parked.push((socket, parked));
    }

    fn of_socket(&mut self, socket: usize) -> Option<&mut Exchange> {
        let number = self.number(socket)?;
        Some(&mut self.exchanges[number].1)
    }

    fn number(&self, socket: usize) -> Option<usize> {
        let mut all = self.exchanges.iter();
        all.find_map(|(number, (of, _))| (*of == socket).then_some(number))
    }

    /// Whether a socket has a datagram socket.
    pub(super) fn has(&self, socket: usize) -> bool {
        self.number(socket).is_some()
    }

    /// What waits for the datagram socket of a socket is for the one that is opened there next.
    pub(super) fn move_out(&mut self, socket: usize, limits: &mut Limits) {
        if let Some(exchange) = self.of_socket(socket) {
            let parked = exchange.move_out(limits);
            self.parked.push((socket, parked));
        }
    }

    /// Gives the exchange of one socket to another, which receives no more; what its senders are owed
    /// is still tried. Returns the bytes that were read away, and the datagrams that were received
    /// and not taken.
    pub(super) fn retire(
        &mut self,
        socket: usize,
        to: usize,
        limits: &mut Limits,
    ) -> Option<(u64, u64)> {
        let number = self.number(socket)?;
        let (of, exchange) = &mut self.exchanges[number];
        *of = to;
        exchange.ending = true;
        let unread = exchange.datagram_socket.hang_up() as u64;
        Some((unread, drain(exchange, limits)))
    }

    /// Gives up what the record of a socket had no room for; returns how many datagrams.
    pub(super) fn give_up_held(&mut self, socket: usize, limits: &mut Limits) -> u64 {
        let mut parked = self.parked.iter_mut();
        let parked = parked.find(|(of, _)| *of == socket);
        let parked = parked.map_or(0, |(_, parked)| parked.give_up_held());
        let exchange = self.of_socket(socket);
        parked + exchange.map_or(0, |exchange| drain(exchange, limits))
    }

    /// Lets go of the exchanges of a retired socket that owe nothing; whether one is left.
    pub(super) fn clear_retired(&mut self, socket: usize) -> bool {
        self.exchanges.retain(|_, (of, exchange)| {
            *of != socket || exchange.held() > 0 || exchange.replies.waiting() > 0
        });
        self.number(socket).is_some()
    }

    /// Makes room in the buffer for a batch of this socket's.
    pub(super) fn make_room(&mut self, socket: &Socket) {
        let slot = slot(socket);
        let needed = slot.saturating_mul(BATCH).min(BUFFER).max(slot);
        if self.buffer.len() < needed {
            self.buffer = vec![0; needed];
        }
    }

    /// The record of this socket has room.
    pub(super) fn call(&mut self, socket: usize) {
        if let Some(exchange) = self.of_socket(socket) {
            exchange.called = exchange.held() > 0;
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.exchanges
            .iter()
            .any(|(_, (_, exchange))| exchange.called)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = self
            .exchanges
            .iter()
            .map(|(_, (_, exchange))| exchange.deadline());
        deadlines.flatten().chain(self.notes.lines.due()).min()
    }

    /// As `Lines::tell_left_out`, of what is told of datagrams alone.
    pub(super) fn tell_left_out(&mut self, now: Option<Instant>) {
        self.notes.lines.tell_left_out("datagram sockets", now);
    }
}

impl<S: Stream> Hub<S> {
    /// Serves socket number `socket` by datagrams; returns the number that events have.
    pub fn open(
        &mut self,
        socket: usize,
        datagram_socket: Box<dyn Datagrams>,
        now: Instant,
    ) -> usize {
        self.exchanges.make_room(&self.sockets[socket]);
        let mut exchange = Exchange::new(datagram_socket);
        let mut parked = self.exchanges.parked.iter();
        if let Some(place) = parked.position(|(of, _)| *of == socket) {
            let (_, parked) = self.exchanges.parked.swap_remove(place);
            exchange.resume(parked, &mut self.limits, now);
        }
        self.exchanges.exchanges.insert((socket, exchange))
    }

    /// Whether the event loop is to watch datagram socket `number` for reading.
    #[must_use]
    pub fn receives(&self, number: usize) -> bool {
        self.exchanges.exchanges[number].1.receives()
    }

    /// Datagrams that were received and are not yet where they belong.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        let exchanges = self.exchanges.exchanges.iter();
        let open: usize = exchanges
            .map(|(_, (_, exchange))| exchange.held() + exchange.replies.waiting())
            .sum();
        let parked = self
            .exchanges
            .parked
            .iter()
            .map(|(_, parked)| parked.waiting());
        open + parked.sum::<usize>()
    }

    /// Nobody else receives from the datagram socket of socket number `socket` any more, if it has one: what
    /// waits there is lost with it unless it is received.
    pub fn disown(&mut self, socket: usize) {
        if let Some(exchange) = self.exchanges.of_socket(socket) {
            exchange.datagram_socket.disown();
        }
    }

    /// Whether somebody waits for room in the record of socket number `socket`.
    pub fn awaits_record(&mut self, socket: usize) -> bool {
        let exchange = self.exchanges.of_socket(socket);
        exchange.is_some_and(|exchange| exchange.held() > 0)
            || !self.sockets[socket].wait_queue.is_empty()
    }

    /// An event for datagram socket `number`, which gets its turn.
    pub fn datagram_event(&mut self, number: usize) {
        if let Some((_, exchange)) = self.exchanges.exchanges.get_mut(number)
            && !mem::replace(&mut exchange.listed, true)
        {
            self.ready.0.push(NOBODY, Turn::Datagrams(number));
        }
    }

    /// The turn of datagram socket `number`.
    pub(super) fn receive_next(&mut self, number: usize, now: Now) {
        if let Some((_, exchange)) = self.exchanges.exchanges.get_mut(number)
            && mem::take(&mut exchange.listed)
        {
            self.effects.work += CLIENT;
            self.receive(number, now);
        }
    }

    /// Whether there are datagram sockets.
    pub(super) fn has_datagrams(&self) -> bool {
        !self.exchanges.exchanges.is_empty()
    }

    /// Receives one batch of datagram socket `number`, where that may be. Returns whether anything came.
    pub fn receive(&mut self, number: usize, now: Now) -> bool {
        self.receives(number) && self.receive_batch(number, now)
    }

    /// What waits for the datagram socket of socket number `socket`, and all that still waits in the kernel
    /// there, is for the one that is opened in its place: no more than the kernel's queue is held beyond
    /// a batch.
    pub(super) fn move_mail(&mut self, socket: usize, now: Now) {
        let Some(number) = self.exchanges.number(socket) else {
            return;
        };
        // Else those who know only this one could send without end.
        if self.exchanges.exchanges[number]
            .1
            .datagram_socket
            .shut_down()
        {
            self.exchanges.make_room(&self.sockets[socket]);
            while self.receive_batch(number, now) {}
        }
        self.exchanges.move_out(socket, &mut self.limits);
    }

    fn receive_batch(&mut self, number: usize, now: Now) -> bool {
        let Exchanges {
            exchanges,
            buffer,
            headers,
            notes,
            ..
        } = &mut self.exchanges;
        let (socket, exchange) = &mut exchanges[number];
        let mut desk = Desk {
            exchange,
            socket: &mut self.sockets[*socket],
            limits: &mut self.limits,
            notes,
            now,
        };
        let slot = slot(desk.socket);
        headers.clear();
        if let Err(error) = desk.exchange.datagram_socket.receive(buffer, slot, headers) {
            let passing = matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            );
            if !passing {
                desk.exchange.rest = Some(now.instant + REST);
                desk.notes.failed(desk.socket, &error, REST, now.instant);
            }
            return false;
        }
        for (header, bytes) in headers.iter().zip(buffer.chunks_exact(slot)) {
            self.effects.work += header.length.min(slot) + DELIVERY;
            desk.open(header, bytes, &mut self.ids);
        }
        !headers.is_empty()
    }

    /// Goes on with what was held, where there is room in the record again.
    pub(super) fn turn_datagrams(&mut self, now: Now) {
        for (_, (socket, exchange)) in &mut self.exchanges.exchanges {
            if !exchange.called {
                continue;
            }
            exchange.called = false;
            let mut desk = Desk {
                exchange,
                socket: &mut self.sockets[*socket],
                limits: &mut self.limits,
                notes: &mut self.exchanges.notes,
                now,
            };
            while let Some(datagram) = desk.exchange.next_held(desk.limits) {
                if !desk.take(&datagram.from, &datagram.bytes, datagram.truncated) {
                    desk.exchange.put_back(datagram, desk.limits);
                    break;
                }
            }
        }
    }

    /// Tries again what receivers had no room for.
    pub(super) fn expire_datagrams(&mut self, now: Now) {
        for (_, (socket, exchange)) in &mut self.exchanges.exchanges {
            exchange.rest = exchange.rest.filter(|&until| until > now.instant);
            let socket = &mut self.sockets[*socket];
            let notes = &mut self.exchanges.notes;
            exchange.replies.retry(
                &mut *exchange.datagram_socket,
                socket.slow_timeout,
                &mut self.limits,
                now.instant,
                |lost| notes.lost(socket, &lost, now.instant),
            );
        }
    }

    /// Begins the stop: nothing more is received.
    pub(super) fn stop_datagrams(&mut self) {
        for (_, (socket, exchange)) in &mut self.exchanges.exchanges {
            exchange.ending = true;
            let counters = &mut self.sockets[*socket].counters;
            counters.unread += exchange.datagram_socket.hang_up() as u64;
        }
        // Only another process could deliver it.
        for socket in 0..self.sockets.len() {
            self.give_up_parked(socket, socket);
        }
    }

    /// Gives up what waits for socket number `from`, which has no datagram socket, and counts it at number `to`.
    pub(super) fn give_up_parked(&mut self, from: usize, to: usize) {
        let mut parked = self.exchanges.parked.iter();
        let Some(place) = parked.position(|(of, _)| *of == from) else {
            return;
        };
        let (_, parked) = self.exchanges.parked.swap_remove(place);
        let (waiting, held, owed) = (parked.waiting(), parked.held(), parked.owed());
        if waiting == 0 {
            return;
        }
        let socket = &mut self.sockets[to];
        socket.counters.untaken += held as u64;
        socket.counters.undelivered += owed as u64;
        let (name, replies) = (&socket.name, waiting - held);
        warn!(
            "{name}: nobody served it since a restart: {held} datagrams that it had received are lost, and {replies} replies"
        );
    }

    /// Ends the stop: gives up what waits.
    pub(super) fn abandon_datagrams(&mut self) {
        self.abandon_where(|_| true);
    }

    /// Gives up what waits for those whose socket is no more.
    pub(super) fn abandon_retired(&mut self) {
        self.abandon_where(Socket::is_retired);
    }

    fn abandon_where(&mut self, is_meant: impl Fn(&Socket) -> bool) {
        for (_, (socket, exchange)) in &mut self.exchanges.exchanges {
            if !is_meant(&self.sockets[*socket]) {
                continue;
            }
            let counters = &mut self.sockets[*socket].counters;
            counters.untaken += drain(exchange, &mut self.limits);
            counters.undelivered += exchange.replies.abandon(&mut self.limits) as u64;
            exchange.called = false;
        }
        for socket in 0..self.sockets.len() {
            if is_meant(&self.sockets[socket]) {
                self.give_up_parked(socket, socket);
            }
        }
    }
}

/// Gives up what is held; returns how many datagrams.
fn drain(exchange: &mut Exchange, limits: &mut Limits) -> u64 {
    let mut datagrams = 0;
    while exchange.next_held(limits).is_some() {
        datagrams += 1;
    }
    exchange.called = false;
    datagrams
}

/// Bytes of the buffer that one datagram may fill.
fn slot(socket: &Socket) -> usize {
    socket.rule.message_size + BEYOND
}

/// A datagram as its record has it: under `syslog` without one LF, NUL or LF NUL at its end.
fn body(framing: Framing, bytes: &[u8]) -> &[u8] {
    match bytes {
        _ if framing != Framing::Syslog => bytes,
        [body @ .., b'\n', 0] | [body @ .., b'\n' | 0] => body,
        _ => bytes,
    }
}

/// Whether a socket takes what udsd itself sent, as journald forwards the lines of its log: where they
/// end in a record. An echo of it could go round for ever, and so could a record that is the journal.
fn takes_own(socket: &Socket) -> bool {
    let record = socket.record.as_ref();
    matches!(socket.service, Service::Collect) && !record.is_some_and(Record::is_journal)
}

/// One datagram socket at work.
struct Desk<'a> {
    exchange: &'a mut Exchange,
    socket: &'a mut Socket,
    limits: &'a mut Limits,
    notes: &'a mut Notes,
    now: Now,
}

impl Desk<'_> {
    /// Judges one datagram, of which `slot` holds the first part, and takes or holds what passes.
    fn open(&mut self, header: &Header, slot: &[u8], ids: &mut u64) {
        let (socket, now) = (&mut *self.socket, self.now.instant);
        let is_own = self.notes.is_own(&header.peer);
        let refused = if header.peer == Peer::NONE {
            self.notes.nobody(socket, header, now);
            true
        } else if is_own && !takes_own(socket) {
            true
        } else if !socket.access.admits(&header.peer, &[]) {
            if !is_own {
                socket.denied("a datagram", &header.peer, now);
            }
            true
        } else {
            false
        };
        if refused {
            socket.counters.refused += 1;
            return;
        }
        let most = socket.rule.message_size;
        let mut bytes = &slot[..slot.len().min(header.length)];
        let cut = header.length > slot.len();
        let truncated = cut || body(socket.rule.framing, bytes).len() > most;
        if truncated {
            if socket.rule.too_long != TooLong::Keep {
                socket.counters.oversized += 1;
                self.notes.oversized(socket, header, now);
                return;
            }
            bytes = &bytes[..most];
        }
        let (from, is_new) = self.exchange.sender(header, || {
            *ids += 1;
            *ids
        });
        socket.counters.clients += u64::from(is_new);
        if is_new && matches!(socket.service, Service::Echo) && !self.notes.proves(socket, &from) {
            self.notes.unproven(socket, &from, now);
        }
        if self.exchange.held() > 0 || !self.take(&from, bytes, truncated) {
            let datagram = HeldDatagram {
                from,
                bytes: bytes.into(),
                truncated,
            };
            self.exchange.hold(datagram, self.limits);
        }
    }

    /// Takes one datagram; false where the record has no room for it, and nothing has happened.
    fn take(&mut self, from: &Sender, bytes: &[u8], truncated: bool) -> bool {
        let Desk { socket, now, .. } = self;
        if let Some(record) = &mut socket.record {
            let text = match truncated {
                // Its end is not its own.
                true => bytes,
                false => body(socket.rule.framing, bytes),
            };
            if !record.put(from.id, &from.peer, text, truncated, now.wall) {
                return false;
            }
        }
        socket.counters.messages += 1;
        socket.counters.bytes += bytes.len() as u64;
        if truncated {
            socket.counters.truncated += 1;
            if !self.notes.is_own(&from.peer) {
                socket.truncated(from.id, &from.peer, 1, now.instant);
            }
        }
        if matches!(socket.service, Service::Echo) {
            self.reply(from, bytes);
        }
        true
    }

    fn reply(&mut self, to: &Sender, bytes: &[u8]) {
        let (socket, now) = (&mut *self.socket, self.now.instant);
        let Exchange {
            replies,
            datagram_socket,
            ..
        } = &mut *self.exchange;
        let lost = |why| Lost {
            to: *to,
            replies: 1,
            why,
        };
        if !self.notes.proves(socket, to) {
            socket.counters.unproven += 1;
            return;
        }
        match replies.send(
            &mut **datagram_socket,
            to,
            bytes,
            socket.queue_size,
            self.limits,
            now,
        ) {
            Reply::Sent | Reply::Waits => {}
            Reply::Unbound => socket.counters.unbound += 1,
            Reply::Unreachable => self.notes.lost(socket, &lost(None), now),
            Reply::Dropped(why) => self.notes.lost(socket, &lost(Some(why)), now),
        }
    }
}
