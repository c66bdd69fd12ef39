//! Keeps those who do not read from filling the send buffer (SO_SNDBUF) that all receivers of a socket
//! have in common: one that is connected to us is not bound by net.unix.max_dgram_qlen.
//!
//! The kernel tells only the sum of what is unread. From half of the buffer on, five rules hold:
//! 1. Only a datagram that is sent to one receiver alone, while nobody else is sent anything, tells who
//!    reads: those who read it within `PATIENCE` do, and those who do not are charged with it and rest.
//! 2. Those who read are sent to together, in rounds, while less than 5/8 of the buffer is unread beside
//!    what is charged, and alone beyond; after a round that was not read in time each of its members is
//!    sent to alone once.
//! 3. The other 3/8 are for trials: one of whom nothing is known is tried alone while its
//!    user is charged with less than the square of the part that is left of them, and one that rested
//!    while its user is with less than a quarter of that.
//! 4. Users take turns to have a receiver sent to alone, and after a trial those who read have as much time. A
//!    user whose receivers did not read waits before the next is tried, each time `PATIENCE` longer, until all is
//!    read that they left.
//! 5. What somebody reads late is taken off the charges of those who were tried last.
//!
//! So however many users do not read, room for the trial of another is left. What nobody is charged with
//! stays below 5/8, as trials charge all that they add; and n users leave at least 1/(n + 1) of the 3/8: where a user's part is the square of
//! what it leaves, l, what was left before it was l + l², and 1/l is at most one more than 1/(l + l²).
//! Each bound holds but for a round, and a datagram of each user and of each receiver that read before.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use super::{Datagrams, numbers::Key, replies::RECEIVERS};

/// How long a round or a trial may take: a reader on a busy machine needs some milliseconds to be run,
/// and all the others wait for it. A round takes in more in the first half of it.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long one who did not read rests at first: ten trials may fail meanwhile. Each further time is twice
/// as long, as it leaves another datagram unread for good,
const FIRST_REST: Duration = Duration::from_millis(100);
/// up to this, after which one who reads again is served.
const LAST_REST: Duration = Duration::from_secs(10);
/// The longest that a user waits after a trial that failed: those of its receivers that read are served all
/// the while, and each trial holds up all others.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Receivers of which something is known: as many as keep their numbers.
const KNOWN: usize = 4096;

/// Why a datagram could not be sent.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel says so.
    Kernel(io::Error),
    /// Its receiver has not read what it was sent.
    Unread,
    /// The others' turn is not over, and its own comes soon.
    Turn,
    /// Another receiver of its user goes first.
    Later,
    /// What others have not read leaves no room to try its receiver.
    Share,
}

/// The shares of one socket's receivers.
#[derive(Debug)]
pub(super) struct Shares {
    /// No less than what is unread: what was sent since the last look counts whole.
    most: usize,
    /// From half of the buffer on, until it is down to a quarter.
    tight: Option<Tight>,
}

impl Default for Shares {
    fn default() -> Self {
        // Another process may have sent before.
        Shares {
            most: usize::MAX,
            tight: None,
        }
    }
}

impl Shares {
    /// Sends a datagram where its receiver's share allows.
    pub(super) fn send(
        &mut self,
        to: &Key,
        bytes: &[u8],
        datagram_socket: &mut dyn Datagrams,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.look(datagram_socket, now);
        let kind = match &mut self.tight {
            Some(tight) => Some(tight.admit(to, now)?),
            None => None,
        };
        let (address, uid) = to;
        datagram_socket
            .send(address, *uid, bytes)
            .map_err(Refusal::Kernel)?;
        // The kernel counts whole pages or powers of two, and what describes them.
        self.most = self.most.saturating_add(2 * bytes.len() + 1024);
        if let (Some(tight), Some(kind)) = (&mut self.tight, kind) {
            tight.sent(to, kind, datagram_socket.unread(), now);
        }
        Ok(())
    }

    /// Asks how much is unread, where it may be much.
    fn look(&mut self, datagram_socket: &dyn Datagrams, now: Instant) {
        let size = datagram_socket.send_buffer();
        if self.tight.is_none() && self.most <= size / 2 {
            return;
        }
        self.most = datagram_socket.unread();
        let bound = if self.tight.is_some() { 4 } else { 2 };
        if self.most <= size / bound {
            self.tight = None;
            return;
        }
        let tight = self.tight.get_or_insert_with(|| Tight::new(size, now));
        tight.settle(self.most, now);
    }
}

/// Who reads and who does not, while the buffer is tight.
#[derive(Debug)]
struct Tight {
    /// The send buffer.
    size: usize,
    /// What is unread, and what of that was before the flight.
    unread: usize,
    stuck: usize,
    /// What was sent and may yet be read in time.
    flight: Option<Flight>,
    known: HashMap<Key, Known>,
    /// What all are charged with, and the users whose receivers are.
    charged: usize,
    users: HashMap<u32, OfUser>,
    /// Those who wait to be sent to alone, one of each user.
    waiting: VecDeque<Key>,
    /// Until when nobody but the first of them is sent anything.
    turn: Option<Instant>,
    /// Until when nobody is tried.
    pause: Instant,
}

#[derive(Debug)]
struct Flight {
    kind: Kind,
    since: Instant,
    /// Bytes sent to each.
    members: HashMap<Key, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// To those who read.
    Together,
    /// To one who read before.
    Alone,
    /// To one of whom nothing is known, or who did not read.
    Trial,
}

#[derive(Debug)]
struct OfUser {
    /// What its receivers are charged with.
    charge: usize,
    /// How long it waits after a trial that failed, and until when it does.
    pause: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Known {
    standing: Standing,
    /// What it did not read alone.
    charge: usize,
    /// When it was last sent something alone.
    tried: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Reads,
    /// It was in a round that was not read in time.
    Doubted,
    /// It did not read, and is left alone so long.
    Rests(Duration),
}

impl Tight {
    fn new(size: usize, now: Instant) -> Self {
        Tight {
            size,
            unread: 0,
            stuck: 0,
            flight: None,
            known: HashMap::new(),
            charged: 0,
            users: HashMap::new(),
            waiting: VecDeque::new(),
            turn: None,
            pause: now,
        }
    }

    /// So many bytes are unread: perhaps the flight is over, and somebody else has a turn.
    fn settle(&mut self, unread: usize, now: Instant) {
        self.unread = unread;
        let is_over = |flight: &mut Flight| unread <= self.stuck || flight.since + PATIENCE <= now;
        let flight = self.flight.take_if(is_over);
        if self.flight.is_some() {
            return;
        }
        let left = unread.saturating_sub(self.stuck);
        self.discharge(self.stuck.saturating_sub(unread), now);
        self.stuck = unread;
        if let Some(Flight {
            kind,
            since,
            members,
        }) = flight
        {
            for key in members.into_keys() {
                match kind {
                    _ if left == 0 => self.know(key, now).standing = Standing::Reads,
                    Kind::Together => self.know(key, now).standing = Standing::Doubted,
                    Kind::Alone | Kind::Trial => self.rest(key, left, now),
                }
            }
            if kind == Kind::Trial {
                self.pause = now + (now - since);
            }
        }
        if self.turn.is_some_and(|end| end <= now) {
            // It does not come.
            self.waiting.pop_front();
            self.turn = None;
            self.pause = now + PATIENCE;
        }
        while self.turn.is_none()
            && self.pause <= now
            && let Some(first) = self.waiting.front()
        {
            match self.may_be_alone(first, now) {
                Ok(()) => self.turn = Some(now + PATIENCE),
                Err(_) => drop(self.waiting.pop_front()),
            }
        }
    }

    /// Whether a receiver may be sent a datagram now, and with whom.
    fn admit(&mut self, to: &Key, now: Instant) -> Result<Kind, Refusal> {
        let standing = self.known.get(to).map(|known| known.standing);
        let kind = match standing {
            Some(Standing::Reads) if self.unread < self.size / 8 * 5 + self.charged => {
                Kind::Together
            }
            Some(Standing::Reads | Standing::Doubted) => Kind::Alone,
            Some(Standing::Rests(_)) | None => Kind::Trial,
        };
        let is_free = match &self.flight {
            None => true,
            Some(flight) => {
                // What one of them leaves unread nobody is charged with: 64 could reach the line.
                let sent = flight.members.get(to).copied().unwrap_or_default();
                let is_open = now < flight.since + PATIENCE / 2 && sent < self.size / 512;
                (kind, flight.kind) == (Kind::Together, Kind::Together) && is_open
            }
        };
        if kind == Kind::Together {
            let is_free = is_free && self.turn.is_none();
            return is_free.then_some(kind).ok_or(Refusal::Turn);
        }
        self.may_be_alone(to, now)?;
        let is_room = self.waiting.iter().all(|(_, uid)| *uid != to.1);
        if is_room && self.waiting.len() < RECEIVERS {
            self.waiting.push_back(*to);
        } else if !self.waiting.contains(to) {
            return Err(Refusal::Later);
        }
        let is_paused = kind == Kind::Trial && self.pause > now;
        if !is_free || is_paused || self.waiting.front() != Some(to) {
            return Err(Refusal::Turn);
        }
        self.waiting.pop_front();
        self.turn = None;
        Ok(kind)
    }

    /// Whether a receiver may be sent something alone: one that reads always, another where there is room to
    /// try it.
    fn may_be_alone(&self, to: &Key, now: Instant) -> Result<(), Refusal> {
        let known = self.known.get(to);
        if known.is_some_and(|known| !matches!(known.standing, Standing::Rests(_))) {
            return Ok(());
        }
        let all = self.size / 8 * 3;
        let left = all.saturating_sub(self.charged);
        // In parts of `all`, the square of what is left.
        let share = left as u64 * left as u64 / all.max(1) as u64;
        let user = self.users.get(&to.1);
        let is_paused = user.is_some_and(|user| now < user.until);
        let of_user = user.map_or(0, |user| user.charge) as u64;
        match known {
            Some(Known {
                standing: Standing::Rests(length),
                tried,
                ..
            }) => {
                // Those who were never tried must not pay for those who were.
                let may_be = !is_paused && *tried + *length <= now && of_user < share / 4;
                may_be.then_some(()).ok_or(Refusal::Unread)
            }
            _ => {
                let may_be = !is_paused && of_user < share;
                may_be.then_some(()).ok_or(Refusal::Share)
            }
        }
    }

    /// A datagram was sent, and so much is unread now.
    fn sent(&mut self, to: &Key, kind: Kind, unread: usize, now: Instant) {
        let flight = self.flight.get_or_insert_with(|| Flight {
            kind,
            since: now,
            members: HashMap::new(),
        });
        *flight.members.entry(*to).or_default() += unread.saturating_sub(self.unread);
        self.unread = unread;
        if let Some(known) = self.known.get_mut(to) {
            known.tried = now;
        }
    }

    /// It did not read this alone.
    fn rest(&mut self, key: Key, bytes: usize, now: Instant) {
        let known = self.know(key, now);
        let length = match known.standing {
            Standing::Rests(length) => (length * 2).min(LAST_REST),
            Standing::Reads | Standing::Doubted => FIRST_REST,
        };
        known.standing = Standing::Rests(length);
        known.tried = now;
        let charge = known.charge + bytes;
        self.charge(&key, charge, now);
        if let Some(user) = self.users.get_mut(&key.1) {
            user.pause = (user.pause + PATIENCE).min(LAST_PAUSE);
            user.until = now + user.pause;
        }
    }

    fn know(&mut self, key: Key, now: Instant) -> &mut Known {
        if self.known.len() >= KNOWN && !self.known.contains_key(&key) {
            // Who reads is found out again soon.
            self.known.retain(|_, known| known.charge > 0);
        }
        self.known.entry(key).or_insert(Known {
            standing: Standing::Doubted,
            charge: 0,
            tried: now,
        })
    }

    /// Somebody has read so many bytes late.
    fn discharge(&mut self, mut bytes: usize, now: Instant) {
        while bytes > 0 {
            let charged = self.known.iter().filter(|(_, known)| known.charge > 0);
            let Some((&key, known)) = charged.max_by_key(|(_, known)| known.tried) else {
                return;
            };
            let is_known_to_rest = matches!(known.standing, Standing::Rests(_));
            let read = known.charge.min(bytes);
            bytes -= read;
            let charge = known.charge - read;
            self.charge(&key, charge, now);
            if charge == 0 && is_known_to_rest {
                self.known.remove(&key);
            }
        }
    }

    /// A known receiver is charged with so much.
    fn charge(&mut self, key: &Key, charge: usize, now: Instant) {
        let Some(known) = self.known.get_mut(key) else {
            return;
        };
        // Its place counts too: so no user takes all of `known`.
        let place = self.size / KNOWN;
        let cost = |charge| if charge == 0 { 0 } else { charge + place };
        let (before, after) = (cost(known.charge), cost(charge));
        known.charge = charge;
        self.charged = self.charged + after - before;
        let user = self.users.entry(key.1).or_insert(OfUser {
            charge: 0,
            pause: Duration::ZERO,
            until: now,
        });
        user.charge = user.charge + after - before;
        if user.charge == 0 {
            self.users.remove(&key.1);
        }
    }
}

#[cfg(test)]
mod tests;
