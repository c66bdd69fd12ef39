//! The datagram sockets of the hub: judges every datagram by its socket's rules, gives it to the
//! record and back to its sender, and counts what becomes of it.
//!
//! An event brings one batch, and repeats while there is more. If the record has no room, the rest of the
//! batch is held, and nothing more is received until that is taken. What comes meanwhile waits in the
//! kernel, and once that is full, senders that block wait there.

mod notes;

use std::{
    io, iter, mem, process,
    time::{Duration, Instant},
};

use log::warn;
use rustix::process::geteuid;

use super::{Due, Hub, Now, Socket, Turn, tap::Origin};
use crate::{
    connection::Stream,
    datagram::{DatagramSender, Datagrams, HeldDatagram, Lost, OpenSocket, Reply, Sending},
    datagram_header::{AddressKind, BATCH, Header},
    frame::Framing,
    input::TooLong,
    limits::Limits,
    message_batch::Message,
    peer::Peer,
    record::{Line, Recorder},
    round_robin::{DATAGRAM_SOCKETS, DELIVERY},
    service::{Calls, Service},
    unit::UnitLookup,
};

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
    own: Own,
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
}

/// The daemon's own process, as a sender and as one who answers.
#[derive(Debug)]
struct Own {
    pid: i32,
    uid: u32,
}

impl Default for Own {
    fn default() -> Self {
        Own {
            pid: process::id().cast_signed(),
            uid: geteuid().as_raw(),
        }
    }
}

impl Own {
    /// Whether udsd itself sent it. The log says nothing of that: each line that journald forwards here
    /// would make another.
    fn is_sender(&self, peer: &Peer) -> bool {
        peer.pid == self.pid
    }

    /// Whether an answer to this sender's address goes to nobody else. A path is looked at when it is
    /// written to. An abstract name is free in a network namespace that the sender made for itself,
    /// whoever has it in udsd's. Root and udsd's own user need nobody to speak for them.
    fn proves(&self, socket: &Socket, sender: &DatagramSender) -> bool {
        let Some(AddressKind::Abstract(_)) = sender.address.kind() else {
            return true;
        };
        socket.rules.answer_abstract
            || sender.address.is_autobound()
            || [0, self.uid].contains(&sender.peer.uid)
    }
}

impl Socket {
    /// Its datagram socket receives no more; what its senders are owed is still tried.
    pub(super) fn stop(&mut self, limits: &mut Limits) {
        match &mut self.open {
            Some(open) => {
                open.ending = true;
                self.counters.unread += open.datagrams.hang_up() as u64;
            }
            // Only another process could deliver it.
            None => self.give_up_pending(limits),
        }
    }

    /// Gives up what its record had no room for.
    pub(super) fn give_up_held(&mut self, limits: &mut Limits) {
        self.counters.untaken += self.pending.give_up_held(limits);
    }

    /// Gives up all that waits, and who waits.
    pub(super) fn abandon(&mut self, limits: &mut Limits) {
        self.wait_queue.clear();
        self.give_up_pending(limits);
    }

    /// Gives up all that waits.
    fn give_up_pending(&mut self, limits: &mut Limits) {
        let (held, replies) = (self.pending.held(), self.pending.replies.waiting());
        if self.open.is_none() && held + replies > 0 {
            let name = &self.name;
            warn!(
                "{name}: nobody served it since a restart: {held} datagrams that it had received are lost, and {replies} replies"
            );
        }
        self.give_up_held(limits);
        self.counters.undelivered += self.pending.replies.abandon(limits) as u64;
    }

    /// Whether its datagram socket is received from.
    pub(super) fn receives_datagrams(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| !open.ending && open.rest.is_none()) && self.pending.held() == 0
    }

    /// When there is something to do for its datagrams without an event.
    fn datagrams_due(&self) -> Option<Instant> {
        let rest = self.open.as_ref()?.rest;
        self.pending
            .replies
            .deadline()
            .into_iter()
            .chain(rest)
            .min()
    }
}

impl<S: Stream> Hub<S> {
    /// Serves socket number `number` by datagrams, and goes on with what waited for that.
    pub fn open(&mut self, number: usize, datagrams: Box<dyn Datagrams>) {
        let socket = &mut self.sockets[number];
        self.datagrams.make_room(socket);
        let user = self.users.enter(DATAGRAM_SOCKETS);
        socket.open = Some(OpenSocket::new(datagrams, user));
        // No event tells of what waits.
        self.list_datagrams(number);
    }

    /// Whether the datagram socket of socket number `socket` is received from.
    #[must_use]
    pub fn receives(&self, socket: usize) -> bool {
        self.sockets
            .get(socket)
            .is_some_and(Socket::receives_datagrams)
    }

    /// Datagrams that were received and are not yet where they belong.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        let waiting = self.sockets.iter().map(|(_, of)| of.pending.waiting());
        waiting.sum()
    }

    /// Nobody else receives from the datagram socket of socket number `socket` any more, if it has one: what
    /// waits there is lost with it unless it is received.
    pub fn disown(&mut self, socket: usize) {
        if let Some(open) = &mut self.sockets[socket].open {
            open.datagrams.disown();
        }
    }

    /// An event for the datagram socket of socket number `socket`, which gets its turn.
    pub fn datagram_event(&mut self, socket: usize) {
        if let Some(open) = &mut self.sockets[socket].open {
            open.event = true;
            self.list_datagrams(socket);
        }
    }

    /// There is something to do for the datagram socket of socket number `socket`, if it is open: it gets its
    /// turn.
    pub(super) fn list_datagrams(&mut self, socket: usize) {
        if let Some(open) = &mut self.sockets[socket].open
            && !mem::replace(&mut open.listed, true)
        {
            self.ready.0.push(open.user, Turn::Datagrams(socket));
        }
    }

    /// Whether the datagram socket of socket number `socket` waits for its turn, which it is about to have.
    /// It may be gone since.
    pub(super) fn takes_turn(&mut self, socket: usize) -> bool {
        let socket = self.sockets.get_mut(socket);
        let open = socket.and_then(|socket| socket.open.as_mut());
        open.is_some_and(|open| mem::take(&mut open.listed))
    }

    /// The turn of the datagram socket of socket number `number`, if it is still open: replies that are due
    /// are tried, and what is held is taken. One batch is received, if an event tells of one and nothing is
    /// held any more. Then its timer follows from its new state.
    pub(super) fn work_datagrams(&mut self, number: usize, now: Now) {
        let Some(socket) = self.sockets.get_mut(number) else {
            return;
        };
        let Some(open) = &mut socket.open else {
            return;
        };
        let is_readable = mem::take(&mut open.event);
        open.rest = open.rest.filter(|&until| until > now.instant);
        let by = Sending {
            datagrams: &mut *open.datagrams,
            limits: &mut self.limits,
            now: now.instant,
        };
        for lost in socket.pending.replies.retry(socket.rules.slow_timeout, by) {
            socket.lost(&lost, now);
        }
        let mut judge = Judge {
            socket,
            limits: &mut self.limits,
            calls: &mut self.effects.calls,
            own: &self.datagrams.own,
            now,
        };
        judge.take_held();
        if is_readable && judge.socket.receives_datagrams() {
            self.receive_batch(number, now);
        }
        let socket = &mut self.sockets[number];
        // Replies that are still due are for its next turn.
        let later = now.instant + Duration::from_nanos(1);
        let due = socket.datagrams_due().map(|due| due.max(later));
        if let Some(open) = &mut socket.open {
            let due_before = mem::replace(&mut open.timer, due);
            let timer = |at| (at, Due::Datagrams(number));
            due_before.map(|at| self.timers.remove(&timer(at)));
            self.timers.extend(due.map(timer));
        }
    }

    /// Receives one batch of socket number `socket`, where that may be. Returns whether anything came.
    pub fn receive(&mut self, socket: usize, now: Now) -> bool {
        // Its turn sets its timer.
        self.list_datagrams(socket);
        self.receives(socket) && self.receive_batch(socket, now)
    }

    /// Takes out of the datagram socket of socket `old` what is for the one that is opened at socket `new` in
    /// its place: what waits there, and all that still waits in the kernel, judged by the rules of `new`. No more
    /// than the kernel's queue is held beyond a batch.
    pub(super) fn move_datagrams(&mut self, old: usize, new: usize, now: Now) {
        let mut pending = mem::take(&mut self.sockets[old].pending);
        let Some(mut open) = self.sockets[old].open.take() else {
            self.sockets[new].pending = pending;
            return;
        };
        // Else senders that are connected to this one could send without end.
        let is_shut = open.datagrams.shut_down();
        let socket = &mut self.sockets[new];
        (socket.open, socket.pending) = (Some(open), pending);
        if is_shut {
            self.datagrams.make_room(socket);
            while self.receive_batch(new, now) {}
        }
        let socket = &mut self.sockets[new];
        let received = socket.pending.take_received();
        pending = mem::replace(&mut socket.pending, received);
        let open = socket.open.take();
        let socket = &mut self.sockets[old];
        (socket.open, socket.pending) = (open, pending);
    }

    fn receive_batch(&mut self, socket: usize, now: Now) -> bool {
        let Shared {
            buffer,
            headers,
            own,
        } = &mut self.datagrams;
        let socket = &mut self.sockets[socket];
        let slot = slot(socket);
        headers.clear();
        let Some(open) = &mut socket.open else {
            return false;
        };
        match open.datagrams.receive(buffer, slot, headers) {
            Ok(()) => {
                let mut judge = Judge {
                    socket,
                    limits: &mut self.limits,
                    calls: &mut self.effects.calls,
                    own,
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
                    open.rest = Some(now.instant + REST);
                    socket.failed(&error, REST, now);
                }
            },
        }
        !headers.is_empty()
    }
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
    let recorder = socket.recorder.as_ref();
    matches!(socket.service, Service::Collect) && !recorder.is_some_and(Recorder::is_journal)
}

/// One datagram socket at work.
struct Judge<'a> {
    socket: &'a mut Socket,
    limits: &'a mut Limits,
    calls: &'a mut Calls,
    own: &'a Own,
    now: Now,
}

impl Judge<'_> {
    /// Takes what was held, where there is room in the record again.
    fn take_held(&mut self) {
        while let Some(datagram) = self.socket.pending.next_held(self.limits) {
            if !self.take(&datagram.from, &datagram.bytes, datagram.truncated) {
                self.socket.pending.put_back(datagram, self.limits);
                break;
            }
        }
    }

    /// Judges one datagram, of which `slot` holds the first part, and takes or holds what passes.
    fn open(&mut self, header: &Header, slot: &[u8], ids: &mut u64) {
        let (socket, now) = (&mut *self.socket, self.now);
        let is_own = self.own.is_sender(&header.peer);
        let is_admitted = socket.rules.access.admits(&header.peer, &[]);
        if header.peer == Peer::NONE {
            socket.nobody(header, now);
            return;
        } else if is_own && !(is_admitted && takes_own(socket)) {
            socket.counters.refused_own += 1;
            return;
        } else if !is_admitted {
            socket.denied("a datagram", &header.peer, now);
            return;
        }
        let most = socket.rules.input.message_size;
        let mut bytes = &slot[..slot.len().min(header.length)];
        let cut = header.length > slot.len();
        let truncated = cut || body(socket.rules.input.framing, bytes).len() > most;
        if truncated {
            if socket.rules.input.too_long != TooLong::Keep {
                socket.datagram_oversized(header, now);
                return;
            }
            bytes = &bytes[..most];
        }
        let (from, is_new) = socket.pending.sender(header, || {
            *ids += 1;
            *ids
        });
        socket.counters.clients += u64::from(is_new);
        if is_new && matches!(socket.service, Service::Echo) && !self.own.proves(socket, &from) {
            socket.unproven(&from, now);
        }
        if self.socket.pending.held() > 0 || !self.take(&from, bytes, truncated) {
            let datagram = HeldDatagram {
                from,
                bytes: bytes.into(),
                truncated,
            };
            self.socket.pending.hold(datagram, self.limits);
        }
    }

    /// Takes one datagram; false where the record has no room for it, and nothing has happened.
    fn take(&mut self, from: &DatagramSender, bytes: &[u8], truncated: bool) -> bool {
        let Judge {
            socket, calls, now, ..
        } = self;
        let message = match truncated {
            // Its end is not its own.
            true => bytes,
            false => body(socket.rules.input.framing, bytes),
        };
        let line = Line {
            client: from.id,
            peer: &from.peer,
            message,
            truncated,
        };
        if let Some(recorder) = &mut socket.recorder
            && !recorder.put(&line, now.wall)
        {
            return false;
        }
        socket.counters.messages += 1;
        socket.counters.bytes += bytes.len() as u64;
        if !socket.taps.is_empty() {
            let message = Message {
                body: message,
                truncated,
                end: bytes.len(),
            };
            let of = Origin {
                time: now.wall,
                id: from.id,
                peer: from.peer,
                unit: UnitLookup::none(),
                receivers: 0,
            };
            socket.taps.note(&of, 1, || iter::once(message), calls);
        }
        if truncated {
            if self.own.is_sender(&from.peer) {
                socket.counters.truncated += 1;
            } else {
                socket.truncated(from.id, &from.peer, 1, *now);
            }
        }
        if matches!(socket.service, Service::Echo) {
            self.reply(from, bytes);
        }
        true
    }

    fn reply(&mut self, to: &DatagramSender, bytes: &[u8]) {
        let (socket, now) = (&mut *self.socket, self.now);
        let lost = |why| Lost {
            to: *to,
            replies: 1,
            why,
        };
        if !self.own.proves(socket, to) {
            socket.counters.unanswered_unproven += 1;
            return;
        }
        let Some(open) = &mut socket.open else {
            // Nothing is taken before the socket is open.
            socket.counters.undelivered += bytes.len() as u64;
            return;
        };
        let by = Sending {
            datagrams: &mut *open.datagrams,
            limits: self.limits,
            now: now.instant,
        };
        let replies = &mut socket.pending.replies;
        match replies.send(to, bytes, socket.rules.queue_size, by) {
            Reply::Sent | Reply::Waits => {}
            Reply::Unbound => socket.counters.unanswered_unbound += 1,
            Reply::Unreachable => socket.lost(&lost(None), now),
            Reply::Dropped(why) => socket.lost(&lost(Some(why)), now),
        }
    }
}
