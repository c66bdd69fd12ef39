//! Keeps those who do not read from filling the send buffer (SO_SNDBUF) that all receivers of a socket
//! have in common: one that is connected to us is not bound by net.unix.max_dgram_qlen.
//!
//! The kernel tells only the sum of what is unread. From half of the buffer on, these rules hold:
//! 1. Who reads is found out alone: a datagram is sent to one receiver, and to nobody else until it is read
//!    or `PATIENCE` is over. Who read it in time reads. Who did not is charged with it, and rests.
//! 2. Those who read are sent to together, in rounds, while what nobody is charged with is less than 5/8 of
//!    the buffer, and alone beyond. After a round that was not read in time each of its members is sent to
//!    alone once.
//! 3. The other 3/8 are for trials of those who are not known to read. What is left of the 3/8, squared, is a
//!    user's share (of 1: half left is a share of a quarter). A receiver that was never tried is tried while
//!    its user is charged with less than that; one that left something unread and never read in time, with
//!    less than a quarter of it; one that did, or that has read all of it late, with less than twice of it,
//!    so that those who never read cannot keep it out.
//! 4. Users take turns to have a receiver sent to alone, and after a trial those who read have as much time.
//!    Where receivers of a user did not read, those of them that never did wait, each time `PATIENCE` longer.
//! 5. What somebody reads late is taken off the charges of those most likely to: who read before, then who
//!    failed to less often, then who was tried last. Such a guess may be wrong: what a receiver is still
//!    charged with when it reads in time goes to the user who is charged most.
//!
//! So however many users do not read, room for the trial of another is left. What nobody is charged with
//! stays below 5/8, as trials charge all that they add; and n users leave at least 1/(2n + 1) of the 3/8, as
//! a user who takes twice the square of what it leaves, l, found l + 2l², and 1/l is at most two more than
//! 1/(l + 2l²). Each bound holds but for a round, and a datagram of each user and of each receiver that read
//! before.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use super::{Datagrams, RECEIVERS, numbers::Key};

/// How long a round or a trial may take: a reader on a busy machine needs some milliseconds to be run,
/// and all the others wait for it. A round takes in more in the first half of it.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long one who did not read rests at first: ten trials may fail meanwhile. Each further time is twice
/// as long, as it leaves another datagram unread for good,
const FIRST_REST: Duration = Duration::from_millis(100);
/// up to this, after which one who reads again is served.
const LAST_REST: Duration = Duration::from_secs(10);
/// After a longer one it counts no more that it read before.
const LAST_REST_OF_READER: Duration = Duration::from_millis(1600);
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
        datagrams: &mut dyn Datagrams,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.look(datagrams, now);
        let kind = match &mut self.tight {
            Some(tight) => Some(tight.admit(to, now)?),
            None => None,
        };
        let (address, uid) = to;
        datagrams
            .send(address, *uid, bytes)
            .map_err(Refusal::Kernel)?;
        // The kernel counts whole pages or powers of two, and what describes them.
        self.most = self.most.saturating_add(2 * bytes.len() + 1024);
        if let (Some(tight), Some(kind)) = (&mut self.tight, kind) {
            tight.sent(to, kind, datagrams.unread(), now);
        }
        Ok(())
    }

    /// Asks how much is unread, where it may be much.
    fn look(&mut self, datagrams: &dyn Datagrams, now: Instant) {
        let size = datagrams.send_buffer();
        if self.tight.is_none() && self.most <= size / 2 {
            return;
        }
        self.most = datagrams.unread();
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
    /// It read in time once, and has not rested for longer than `LAST_REST_OF_READER` since.
    has_read: bool,
}

impl Known {
    /// How likely it reads what it did not read in time, beside others.
    fn likelihood(&self) -> impl Ord {
        let rest = match self.standing {
            Standing::Rests(length) => length,
            Standing::Reads | Standing::Doubted => Duration::ZERO,
        };
        (self.has_read, Reverse(rest), self.tried)
    }
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
        let is_read = unread <= self.stuck;
        // What was sent to one alone was read whole or not at all: what else is gone was read late.
        let before = match &flight {
            Some(flight) if !is_read && flight.kind != Kind::Together => {
                self.stuck + flight.members.values().sum::<usize>()
            }
            _ => self.stuck,
        };
        self.discharge(before.saturating_sub(unread), now);
        self.stuck = unread;
        if let Some(flight) = flight {
            for (key, bytes) in flight.members {
                match flight.kind {
                    _ if is_read => self.reads(key, now),
                    Kind::Together => self.know(key, now).standing = Standing::Doubted,
                    Kind::Alone | Kind::Trial => self.rest(key, bytes, now),
                }
            }
            if flight.kind == Kind::Trial {
                self.pause = now + (now - flight.since);
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
        let all = self.size / 8 * 3;
        let left = all.saturating_sub(self.charged);
        // In parts of `all`, the square of what is left.
        let share = left as u64 * left as u64 / all.max(1) as u64;
        let user = self.users.get(&to.1);
        let of_user = user.map_or(0, |user| user.charge) as u64;
        let Some(known) = known else {
            return (of_user < share).then_some(()).ok_or(Refusal::Share);
        };
        let Standing::Rests(length) = known.standing else {
            return Ok(());
        };
        let is_room = if known.charge == 0 || known.has_read {
            of_user < 2 * share
        } else {
            // Those who were never tried must not pay for those who were.
            of_user < share / 4 && user.is_none_or(|user| user.until <= now)
        };
        let may_be = known.tried + length <= now && is_room;
        may_be.then_some(()).ok_or(Refusal::Unread)
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

    /// It read in time, and so all that it was sent before.
    fn reads(&mut self, key: Key, now: Instant) {
        let known = self.know(key, now);
        known.standing = Standing::Reads;
        known.has_read = true;
        if known.charge == 0 {
            return;
        }
        // What it had read was taken off another's charge, most likely off one of the user who is charged most:
        // that one pays for all of it, and so comes to its share the sooner.
        let before = self.charged;
        self.charge(&key, 0, now);
        let most = self.users.iter().max_by_key(|(_, user)| user.charge);
        let uid = most.map_or(key.1, |(uid, _)| *uid);
        self.user(uid, now).charge += before - self.charged;
        self.charged = before;
    }

    /// It did not read this alone.
    fn rest(&mut self, key: Key, bytes: usize, now: Instant) {
        let known = self.know(key, now);
        let length = match known.standing {
            Standing::Rests(length) => (length * 2).min(LAST_REST),
            Standing::Reads | Standing::Doubted => FIRST_REST,
        };
        known.standing = Standing::Rests(length);
        known.has_read &= length <= LAST_REST_OF_READER;
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
            has_read: false,
        })
    }

    /// Somebody has read so many bytes late.
    fn discharge(&mut self, mut bytes: usize, now: Instant) {
        while bytes > 0 {
            let charged = self.known.iter().filter(|(_, known)| known.charge > 0);
            let Some((&key, known)) = charged.max_by_key(|(_, known)| known.likelihood()) else {
                return;
            };
            let read = known.charge.min(bytes);
            bytes -= read;
            let charge = known.charge - read;
            self.charge(&key, charge, now);
            if charge == 0
                && let Some(known) = self.known.get_mut(&key)
                && let Standing::Rests(length) = &mut known.standing
            {
                *length = FIRST_REST;
            }
        }
    }

    fn user(&mut self, uid: u32, now: Instant) -> &mut OfUser {
        self.users.entry(uid).or_insert(OfUser {
            charge: 0,
            pause: Duration::ZERO,
            until: now,
        })
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
        let user = self.user(key.1, now);
        user.charge = user.charge + after - before;
        if user.charge == 0 {
            self.users.remove(&key.1);
        }
    }
}

#[cfg(test)]
mod tests;
