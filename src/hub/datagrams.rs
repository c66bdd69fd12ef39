//! The datagram sockets of the hub: judges every datagram by its socket's rules, gives it to the
//! record and back to its sender, and counts what becomes of it.
//!
//! An event brings one batch, and repeats while there is more. If the record has no room, the rest of the
//! batch is held, and nothing more is received until that is taken. What comes meanwhile waits in the
//! kernel, and once that is full, senders that block wait there.

mod notes;

use std::{
    io, mem,
    time::{Duration, Instant},
};

use log::warn;

use super::{Hub, Now, Socket, Turn};
use crate::{
    connection::Stream,
    datagram::{DatagramState, Datagrams, Exchange, HeldDatagram, Lost, Reply, Sender},
    frame::Framing,
    header::{BATCH, Header},
    input::TooLong,
    limits::Limits,
    peer::Peer,
    record::Record,
    service::Service,
    turns::{CLIENT, DELIVERY, NOBODY},
};
use notes::Notes;

/// Bytes of the buffer that all datagram sockets share, unless one datagram needs more. The kernel backs
/// with memory only the pages that a datagram has reached.
const BUFFER: usize = 16 << 20;
/// What a datagram may have beyond `message-size`: a terminator that is cut off (LF NUL), and one
/// byte more, which tells that it is too long.
const BEYOND: usize = 3;
/// How long receiving rests after the kernel failed to.
const REST: Duration = Duration::from_millis(100);

/// What all datagram sockets share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    buffer: Vec<u8>,
    headers: Vec<Header>,
    notes: Notes,
}

impl Shared {
    /// Makes room in the buffer for a batch of this socket's.
    pub(super) fn make_room(&mut self, socket: &Socket) {
        let slot = slot(socket);
        let needed = slot.saturating_mul(BATCH).min(BUFFER).max(slot);
        if self.buffer.len() < needed {
            self.buffer = vec![0; needed];
        }
    }

    /// When the log is to tell what it left out.
    pub(super) fn due(&self) -> Option<Instant> {
        self.notes.lines.due()
    }

    /// As `Lines::tell_left_out`, of what is told of datagrams alone.
    pub(super) fn tell_left_out(&mut self, now: Option<Instant>) {
        self.notes.lines.tell_left_out("datagram sockets", now);
    }
}

impl Socket {
    /// What waits at its datagram socket, or for it, for the next process.
    pub(super) fn park_datagrams(&mut self, now: Instant) -> DatagramState {
        let exchange = self.exchange.take();
        let parked = exchange.map(|exchange| exchange.park(now));
        parked.or(self.parked.take()).unwrap_or_default()
    }

    /// Its datagram socket receives no more; what its senders are owed is still tried.
    pub(super) fn end_datagrams(&mut self, limits: &mut Limits) {
        if let Some(exchange) = &mut self.exchange {
            exchange.ending = true;
            self.counters.unread += exchange.datagram_socket.hang_up() as u64;
            self.counters.untaken += discard_held(exchange, limits);
        }
    }

    /// Gives up what its record had no room for.
    pub(super) fn give_up_held(&mut self, limits: &mut Limits) {
        let parked = self.parked.as_mut().map_or(0, DatagramState::give_up_held);
        let exchange = self.exchange.as_mut();
        self.counters.untaken +=
            parked + exchange.map_or(0, |exchange| discard_held(exchange, limits));
    }

    /// Gives up what waits for its datagram socket, which only another process could deliver.
    pub(super) fn give_up_parked(&mut self) {
        let Some(parked) = self.parked.take() else {
            return;
        };
        let (waiting, held, owed) = (parked.waiting(), parked.held(), parked.owed());
        if waiting == 0 {
            return;
        }
        self.counters.untaken += held as u64;
        self.counters.undelivered += owed as u64;
        let (name, replies) = (&self.name, waiting - held);
        warn!(
            "{name}: nobody served it since a restart: {held} datagrams that it had received are lost, and {replies} replies"
        );
    }

    /// Its record has room.
    pub(super) fn call_datagrams(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.called = exchange.held() > 0;
        }
    }

    /// Datagrams that were received and are not yet where they belong.
    pub(super) fn undelivered(&self) -> usize {
        let open = self.exchange.as_ref();
        let open = open.map_or(0, |exchange| exchange.held() + exchange.replies.waiting());
        open + self.parked.as_ref().map_or(0, DatagramState::waiting)
    }

    /// Gives up all that waits.
    fn abandon_datagrams(&mut self, limits: &mut Limits) {
        if let Some(exchange) = &mut self.exchange {
            self.counters.untaken += discard_held(exchange, limits);
            self.counters.undelivered += exchange.replies.abandon(limits) as u64;
        }
        self.give_up_parked();
    }
}

impl<S: Stream> Hub<S> {
    /// Serves socket number `socket` by datagrams.
    pub fn open(&mut self, socket: usize, datagram_socket: Box<dyn Datagrams>, now: Instant) {
        let socket = &mut self.sockets[socket];
        self.datagrams.make_room(socket);
        let mut exchange = Exchange::new(datagram_socket);
        if let Some(parked) = socket.parked.take() {
            exchange.resume(parked, &mut self.limits, now);
        }
        socket.exchange = Some(Box::new(exchange));
    }

    /// Whether the event loop is to watch the datagram socket of socket number `socket` for reading.
    #[must_use]
    pub fn receives(&self, socket: usize) -> bool {
        let socket = self.sockets.get(socket);
        let exchange = socket.and_then(|socket| socket.exchange.as_ref());
        exchange.is_some_and(|exchange| exchange.receives())
    }

    /// Datagrams that were received and are not yet where they belong.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.sockets.iter().map(|(_, of)| of.undelivered()).sum()
    }

    /// Nobody else receives from the datagram socket of socket number `socket` any more, if it has one: what
    /// waits there is lost with it unless it is received.
    pub fn disown(&mut self, socket: usize) {
        if let Some(exchange) = &mut self.sockets[socket].exchange {
            exchange.datagram_socket.disown();
        }
    }

    /// Whether somebody waits for room in the record of socket number `socket`.
    #[must_use]
    pub fn awaits_record(&self, socket: usize) -> bool {
        let socket = &self.sockets[socket];
        let exchange = socket.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.held() > 0) || !socket.wait_queue.is_empty()
    }

    /// An event for the datagram socket of socket number `socket`, which gets its turn.
    pub fn datagram_event(&mut self, socket: usize) {
        if let Some(exchange) = &mut self.sockets[socket].exchange
            && !mem::replace(&mut exchange.listed, true)
        {
            self.ready.0.push(NOBODY, Turn::Datagrams(socket));
        }
    }

    /// The turn of the datagram socket of socket number `socket`.
    pub(super) fn receive_next(&mut self, socket: usize, now: Now) {
        // It may be gone since.
        if let Some(of) = self.sockets.get_mut(socket)
            && let Some(exchange) = &mut of.exchange
            && mem::take(&mut exchange.listed)
        {
            self.effects.work += CLIENT;
            self.receive(socket, now);
        }
    }

    /// Whether there are datagram sockets.
    pub(super) fn has_datagrams(&self) -> bool {
        self.sockets.iter().any(|(_, of)| of.exchange.is_some())
    }

    /// Receives one batch of socket number `socket`, where that may be. Returns whether anything came.
    pub fn receive(&mut self, socket: usize, now: Now) -> bool {
        self.receives(socket) && self.receive_batch(socket, now)
    }

    /// Takes out of the datagram socket of socket `old` what is for the one that is opened at socket `new` in
    /// its place: what waits there, and all that still waits in the kernel, judged by the rules of `new`. No more
    /// than the kernel's queue is held beyond a batch.
    pub(super) fn move_datagrams(&mut self, old: usize, new: usize, now: Now) {
        let Some(mut exchange) = self.sockets[old].exchange.take() else {
            return;
        };
        // Else senders that are connected to this one could send without end.
        let is_shut = exchange.datagram_socket.shut_down();
        let socket = &mut self.sockets[new];
        socket.exchange = Some(exchange);
        if is_shut {
            self.datagrams.make_room(socket);
            while self.receive_batch(new, now) {}
        }
        let socket = &mut self.sockets[new];
        let mut exchange = socket.exchange.take();
        let moved = exchange.as_mut().map(|of| of.move_out(&mut self.limits));
        socket.parked = moved;
        self.sockets[old].exchange = exchange;
    }

    fn receive_batch(&mut self, socket: usize, now: Now) -> bool {
        let socket = &mut self.sockets[socket];
        // Taken out while its datagrams are judged by the socket's rules.
        let Some(mut exchange) = socket.exchange.take() else {
            return false;
        };
        let Shared {
            buffer,
            headers,
            notes,
        } = &mut self.datagrams;
        let slot = slot(socket);
        headers.clear();
        match exchange.datagram_socket.receive(buffer, slot, headers) {
            Ok(()) => {
                let mut judge = Judge {
                    exchange: &mut exchange,
                    socket,
                    limits: &mut self.limits,
                    notes,
                    now,
                };
                for (header, bytes) in headers.iter().zip(buffer.chunks_exact(slot)) {
                    self.effects.work += header.length.min(slot) + DELIVERY;
                    judge.open(header, bytes, &mut self.ids);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => {
                    exchange.rest = Some(now.instant + REST);
                    notes.failed(socket, &error, REST, now.instant);
                }
            },
        }
        socket.exchange = Some(exchange);
        !headers.is_empty()
    }

    /// Goes on with what was held, where there is room in the record again.
    pub(super) fn turn_datagrams(&mut self, now: Now) {
        for (_, socket) in &mut self.sockets {
            let Some(mut exchange) = socket.exchange.take_if(|exchange| exchange.called) else {
                continue;
            };
            exchange.called = false;
            let mut judge = Judge {
                exchange: &mut exchange,
                socket,
                limits: &mut self.limits,
                notes: &mut self.datagrams.notes,
                now,
            };
            while let Some(datagram) = judge.exchange.next_held(judge.limits) {
                if !judge.take(&datagram.from, &datagram.bytes, datagram.truncated) {
                    judge.exchange.put_back(datagram, judge.limits);
                    break;
                }
            }
            socket.exchange = Some(exchange);
        }
    }

    /// Tries again what receivers had no room for.
    pub(super) fn expire_datagrams(&mut self, now: Now) {
        for (_, socket) in &mut self.sockets {
            let Some(mut exchange) = socket.exchange.take() else {
                continue;
            };
            exchange.rest = exchange.rest.filter(|&until| until > now.instant);
            let notes = &mut self.datagrams.notes;
            exchange.replies.retry(
                &mut *exchange.datagram_socket,
                socket.rules.slow_timeout,
                &mut self.limits,
                now.instant,
                |lost| notes.lost(socket, &lost, now.instant),
            );
            socket.exchange = Some(exchange);
        }
    }

    /// Begins the stop: nothing more is received.
    pub(super) fn stop_datagrams(&mut self) {
        for (_, socket) in &mut self.sockets {
            if let Some(exchange) = &mut socket.exchange {
                exchange.ending = true;
                socket.counters.unread += exchange.datagram_socket.hang_up() as u64;
            }
            socket.give_up_parked();
        }
    }

    /// Gives up what waits at all sockets for which `is_meant` holds.
    pub(super) fn abandon_datagrams(&mut self, is_meant: impl Fn(&Socket) -> bool) {
        let meant = self
            .sockets
            .iter_mut()
            .filter(|(_, socket)| is_meant(socket));
        for (_, socket) in meant {
            socket.abandon_datagrams(&mut self.limits);
        }
    }
}

/// Gives up what is held; returns how many datagrams.
fn discard_held(exchange: &mut Exchange, limits: &mut Limits) -> u64 {
    let mut datagrams = 0;
    while exchange.next_held(limits).is_some() {
        datagrams += 1;
    }
    exchange.called = false;
    datagrams
}

/// Bytes of the buffer that one datagram may fill.
fn slot(socket: &Socket) -> usize {
    socket.rules.input.message_size + BEYOND
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
struct Judge<'a> {
    exchange: &'a mut Exchange,
    socket: &'a mut Socket,
    limits: &'a mut Limits,
    notes: &'a mut Notes,
    now: Now,
}

impl Judge<'_> {
    /// Judges one datagram, of which `slot` holds the first part, and takes or holds what passes.
    fn open(&mut self, header: &Header, slot: &[u8], ids: &mut u64) {
        let (socket, now) = (&mut *self.socket, self.now.instant);
        let is_own = self.notes.is_own(&header.peer);
        let refused = if header.peer == Peer::NONE {
            self.notes.nobody(socket, header, now);
            true
        } else if is_own && !takes_own(socket) {
            true
        } else if !socket.rules.access.admits(&header.peer, &[]) {
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
        let most = socket.rules.input.message_size;
        let mut bytes = &slot[..slot.len().min(header.length)];
        let cut = header.length > slot.len();
        let truncated = cut || body(socket.rules.input.framing, bytes).len() > most;
        if truncated {
            if socket.rules.input.too_long != TooLong::Keep {
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
        let Judge { socket, now, .. } = self;
        if let Some(record) = &mut socket.record {
            let text = match truncated {
                // Its end is not its own.
                true => bytes,
                false => body(socket.rules.input.framing, bytes),
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
            (to, bytes),
            socket.rules.queue_size,
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
