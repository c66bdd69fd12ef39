//! Keeps each receiver and each user to a share of the send buffer that all receivers of a socket have in
//! common.
//!
//! What a receiver has not read counts against our SO_SNDBUF, and one that is connected to us is not
//! bound by net.unix.max_dgram_qlen: a single one that does not read could take all of it. The kernel
//! tells only the sum of what is unread. While that is small, nobody is asked. Beyond half of the
//! buffer it is told who reads: datagrams go out in rounds, to one receiver alone until it has read
//! what it got, then to all together who have. A round is over when the sum is what it was before.
//! Where that takes too long, somebody in it does not read: one who was alone is left alone for a
//! while, the others are tried alone again. After a round of all, one who waits to be tried goes first.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    time::{Duration, Instant},
};

use super::{Datagrams, numbers::Key};

/// How long a round is waited for.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a round takes in more.
const ROUND: Duration = Duration::from_millis(5);
/// How long no other of its user's is tried after one who did not read: users take turns.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one who did not read is left alone at first; each further time is twice as long,
const FIRST_REST: Duration = Duration::from_millis(100);
/// up to this.
const LAST_REST: Duration = Duration::from_secs(10);
/// Receivers that are left alone, and those of one user among them.
const RECEIVERS: usize = 1024;
const RECEIVERS_PER_USER: usize = RECEIVERS / 2;
/// Receivers of which it is known that they read.
const READERS: usize = 4096;
/// Receivers that wait to be tried, one of each user.
const WAITING: usize = 8;

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
    ///
    /// # Errors
    /// `WouldBlock` where it does not now; those of `Datagrams::send`.
    pub(super) fn send(
        &mut self,
        to: &Key,
        bytes: &[u8],
        mailbox: &mut dyn Datagrams,
        now: Instant,
    ) -> io::Result<()> {
        if !self.admit(to, mailbox, now) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (address, uid) = to;
        mailbox.send(address, *uid, bytes)?;
        // The kernel counts whole pages or powers of two, and what describes them.
        self.most = self.most.saturating_add(2 * bytes.len() + 1024);
        if let Some(tight) = &mut self.tight {
            let unread = mailbox.unread();
            tight.sent(to, unread.saturating_sub(tight.unread), now);
            tight.unread = unread;
        }
        Ok(())
    }

    /// Whether a receiver waits to be tried: its turn comes soon, and is not waited for long.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        let tight = self.tight.as_ref();
        tight.is_some_and(|tight| tight.waiting.contains(key))
    }

    /// Whether a receiver may be sent a datagram now.
    fn admit(&mut self, to: &Key, mailbox: &dyn Datagrams, now: Instant) -> bool {
        let size = mailbox.send_buffer();
        if self.tight.is_none() && self.most <= size / 2 {
            return true;
        }
        self.most = mailbox.unread();
        let leaves_at = match self.tight {
            Some(_) => size / 4,
            None => size / 2,
        };
        if self.most <= leaves_at {
            self.tight = None;
            return true;
        }
        let tight = self.tight.get_or_insert_with(|| Tight::new(size));
        tight.look(self.most, now);
        tight.admit(to, now)
    }
}

/// Who reads and who does not, while the buffer is tight.
#[derive(Debug)]
struct Tight {
    /// Bytes that one user's receivers may have left unread in trials, if there is to be another of one of
    /// them; of one that was never tried, twice as many.
    share: usize,
    /// What was unread at the last look.
    unread: usize,
    /// What is unread of those who do not read.
    stuck: usize,
    round: Option<Round>,
    readers: HashSet<Key>,
    resting: HashMap<Key, Rest>,
    users: HashMap<u32, OfUser>,
    /// Those who wait to be tried, in their order.
    waiting: VecDeque<Key>,
    /// Until when nobody but the first of them is sent anything.
    turn: Option<Instant>,
}

/// Who was sent something since all was read that ever will be.
#[derive(Debug)]
struct Round {
    since: Instant,
    /// Bytes sent to each.
    members: HashMap<Key, usize>,
    /// It is for this one alone, of whom it is not known that it reads.
    is_trial: bool,
}

/// One who did not read what it was sent.
#[derive(Debug)]
struct Rest {
    since: Instant,
    length: Duration,
    bytes: usize,
}

/// Those who rest of one user.
#[derive(Debug)]
struct OfUser {
    receivers: usize,
    bytes: usize,
    /// Since when the last of them does.
    since: Instant,
}

impl Tight {
    fn new(size: usize) -> Self {
        Tight {
            share: size / 8,
            unread: 0,
            // Whose it is nobody knows.
            stuck: 0,
            round: None,
            readers: HashSet::new(),
            resting: HashMap::new(),
            users: HashMap::new(),
            waiting: VecDeque::new(),
            turn: None,
        }
    }

    /// So many bytes are unread: perhaps the round is over.
    fn look(&mut self, unread: usize, now: Instant) {
        self.unread = unread;
        let Some(round) = self.round.take() else {
            self.read_late(self.stuck.saturating_sub(unread));
            self.stuck = unread;
            return;
        };
        let is_trial = round.is_trial;
        if unread <= self.stuck {
            self.read_late(self.stuck - unread);
            for (key, _) in round.members {
                self.forget(&key);
                if self.readers.len() == READERS {
                    self.readers.clear();
                }
                self.readers.insert(key);
            }
        } else if round.since + PATIENCE <= now {
            for (key, _) in round.members {
                self.readers.remove(&key);
                if round.is_trial {
                    self.rest(key, unread - self.stuck, now);
                }
            }
        } else {
            self.round = Some(round);
            return;
        }
        self.stuck = unread;
        // Who reads would begin the next round at once, each time.
        if !is_trial {
            while let Some(first) = self.waiting.front() {
                if self.may_be_tried(first, now) {
                    self.turn = Some(now + PATIENCE);
                    break;
                }
                self.waiting.pop_front();
            }
        }
    }

    fn admit(&mut self, to: &Key, now: Instant) -> bool {
        if self.turn.is_some_and(|end| end <= now) {
            self.turn = None;
            self.waiting.pop_front();
        }
        if !self.readers.contains(to) {
            return self.may_be_tried(to, now) && self.try_alone(to);
        }
        let Some(round) = &self.round else {
            return self.turn.is_none();
        };
        let sent = round.members.get(to).copied().unwrap_or_default();
        let all: usize = round.members.values().sum();
        !round.is_trial && now < round.since + ROUND && sent < self.share / 64 && all < self.share
    }

    /// Whether one of whom it is not known that it reads may be sent something now; else it waits.
    fn try_alone(&mut self, to: &Key) -> bool {
        let is_its_turn = self.turn.is_none() || self.waiting.front() == Some(to);
        if self.round.is_none() && is_its_turn {
            self.turn = None;
            self.waiting.retain(|waiting| waiting != to);
            return true;
        }
        let is_room = self.waiting.iter().all(|(_, uid)| *uid != to.1);
        if is_room && self.waiting.len() < WAITING {
            self.waiting.push_back(*to);
        }
        false
    }

    fn may_be_tried(&self, to: &Key, now: Instant) -> bool {
        let rest = self.resting.get(to);
        if rest.is_some_and(|rest| now < rest.since + rest.length)
            || rest.is_none() && self.resting.len() == RECEIVERS
        {
            return false;
        }
        self.users.get(&to.1).is_none_or(|user| {
            // Those who were never tried must not pay for those who were.
            let is_room = match rest {
                Some(_) => user.bytes < self.share,
                None => user.bytes < 2 * self.share && user.receivers < RECEIVERS_PER_USER,
            };
            is_room && user.since + PAUSE <= now
        })
    }

    fn sent(&mut self, to: &Key, bytes: usize, now: Instant) {
        let is_trial = !self.readers.contains(to);
        let round = self.round.get_or_insert_with(|| Round {
            since: now,
            members: HashMap::new(),
            is_trial,
        });
        *round.members.entry(*to).or_default() += bytes;
    }

    /// It did not read this: it is left alone for a while.
    fn rest(&mut self, key: Key, bytes: usize, now: Instant) {
        let user = self.users.entry(key.1).or_insert(OfUser {
            receivers: 0,
            bytes: 0,
            since: now,
        });
        let rest = self.resting.entry(key).or_insert_with(|| {
            user.receivers += 1;
            Rest {
                since: now,
                length: FIRST_REST / 2,
                bytes: 0,
            }
        });
        user.bytes += bytes;
        user.since = now;
        rest.bytes += bytes;
        rest.length = (rest.length * 2).min(LAST_REST);
        rest.since = now;
    }

    /// Some who rest have read so many bytes after all: it is taken for those who were tried last.
    fn read_late(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let last = self.resting.iter_mut().max_by_key(|(_, rest)| rest.since);
            let Some((&key, rest)) = last else {
                return;
            };
            let read = bytes.min(rest.bytes);
            bytes -= read;
            if read == rest.bytes {
                self.forget(&key);
                continue;
            }
            rest.bytes -= read;
            if let Some(user) = self.users.get_mut(&key.1) {
                user.bytes -= read;
            }
        }
    }

    /// It rests no more.
    fn forget(&mut self, key: &Key) {
        let Some(rest) = self.resting.remove(key) else {
            return;
        };
        if let Some(user) = self.users.get_mut(&key.1) {
            user.receivers -= 1;
            user.bytes -= rest.bytes;
            if user.receivers == 0 {
                self.users.remove(&key.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::header::{Address, Header};

    const SIZE: usize = 1 << 20;
    const LENGTH: usize = 3000;
    /// What the kernel counts for one of them.
    const COST: usize = 4096;
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Receivers, and when each of what they have not read was sent.
    #[derive(Debug)]
    struct Kernel {
        waiting: HashMap<Key, VecDeque<Instant>>,
        now: Instant,
        most: usize,
    }

    impl Datagrams for Kernel {
        fn receive(&mut self, _: &mut [u8], _: usize, _: &mut Vec<Header>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, to: &Address, owner: u32, _: &[u8]) -> io::Result<()> {
            if self.unread() >= SIZE {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let waiting = self.waiting.entry((*to, owner)).or_default();
            waiting.push_back(self.now);
            self.most = self.most.max(self.unread());
            Ok(())
        }

        fn unread(&self) -> usize {
            COST * self.waiting.values().map(VecDeque::len).sum::<usize>()
        }

        fn send_buffer(&self) -> usize {
            SIZE
        }

        fn disown(&mut self) {}

        fn shut_down(&mut self) -> bool {
            true
        }

        fn hang_up(&mut self) -> usize {
            0
        }
    }

    /// A socket, its receivers and its clock.
    struct World {
        shares: Shares,
        kernel: Kernel,
    }

    impl World {
        fn new() -> Self {
            let kernel = Kernel {
                waiting: HashMap::new(),
                now: Instant::now(),
                most: 0,
            };
            World {
                shares: Shares::default(),
                kernel,
            }
        }

        /// Whether `to` could be sent one more.
        fn send(&mut self, to: &Key) -> bool {
            let now = self.kernel.now;
            let sent = self.shares.send(to, &[0; LENGTH], &mut self.kernel, now);
            sent.is_ok()
        }

        /// A millisecond, in which `to` reads what has waited for it so long.
        fn pass(&mut self, readers: impl Iterator<Item = (Key, Duration)>) {
            self.kernel.now += MILLISECOND;
            for (key, delay) in readers {
                if let Some(waiting) = self.kernel.waiting.get_mut(&key) {
                    waiting.retain(|&sent| sent + delay > self.kernel.now);
                }
            }
        }
    }

    fn key(n: usize, uid: u32) -> Key {
        (Address::new(format!("/{n}").as_bytes()), uid)
    }

    #[test]
    fn a_receiver_that_does_not_read_is_sent_little_beyond_half_of_the_buffer() {
        let mut world = World::new();
        let (sleeper, reader) = (key(1, 7), key(2, 7));
        let mut got = 0;
        for _ in 0..10_000 {
            while world.send(&sleeper) {}
            got += usize::from(world.send(&reader));
            world.pass([(reader, MILLISECOND)].into_iter());
        }
        // In ten seconds it was tried seven times.
        assert!(
            world.kernel.most <= SIZE / 2 + 10 * COST,
            "{}",
            world.kernel.most
        );
        assert!(got >= 9_000, "{got}");
        // Once it reads, all is as before.
        world.kernel.waiting.clear();
        for _ in 0..SIZE / 2 / COST {
            assert!(world.send(&sleeper));
        }
    }

    #[test]
    fn a_user_has_a_share_however_many_receivers_it_has() {
        let mut world = World::new();
        let reader = key(0, 8);
        let (mut got, mut next) = (0, 1);
        for _ in 0..15_000 {
            // Always another that has not been tried.
            while world.send(&key(next, 7)) {
                next += 1;
            }
            got += usize::from(world.send(&reader));
            world.pass([(reader, MILLISECOND)].into_iter());
        }
        // One that crosses each line, and what the reader is about to read.
        let most = SIZE / 2 + SIZE / 4 + 3 * COST;
        assert!(world.kernel.most <= most, "{}", world.kernel.most);
        assert!(got >= 12_000, "{got}");
    }

    #[test]
    fn who_is_new_is_tried_soon_however_busy_the_others_are() {
        let mut world = World::new();
        let sleeper = key(1, 7);
        let busy: Vec<Key> = (2..20).map(|n| key(n, 9)).collect();
        let read = |keys: &[Key]| {
            let keys = keys.iter().map(|&key| (key, MILLISECOND));
            keys.collect::<Vec<_>>()
        };
        for _ in 0..1000 {
            while world.send(&sleeper) {}
            for key in &busy {
                world.send(key);
            }
            world.pass(read(&busy).into_iter());
        }
        // Each of these comes behind the busy ones.
        let mut longest = 0;
        for n in 100..200 {
            let new = key(n, 10);
            let all = [&busy[..], &[new]].concat();
            let mut waits = 0;
            loop {
                for key in &busy {
                    while world.send(key) {}
                }
                let is_sent = world.send(&new);
                world.pass(read(&all).into_iter());
                if is_sent || waits == 1000 {
                    break;
                }
                waits += 1;
            }
            longest = longest.max(waits);
        }
        assert!(longest <= 50, "{longest} ms");
        // One that waits and never comes again costs the others little.
        let mut got = 0;
        for n in 200..1200 {
            world.send(&key(n, 11));
            for key in &busy {
                got += usize::from(world.send(key));
            }
            world.pass(read(&busy).into_iter());
        }
        assert!(got >= 1000 * busy.len() / 4, "{got}");
    }

    #[test]
    fn who_reads_late_is_served_on_and_who_reads_at_once_waits_for_nobody_for_long() {
        let mut world = World::new();
        let (sleeper, late) = (key(1, 7), key(2, 7));
        let quick: Vec<Key> = (3..20).map(|n| key(n, 9)).collect();
        let delays = || {
            let late = (late, 30 * MILLISECOND);
            let quick = quick.iter().map(|&key| (key, MILLISECOND));
            quick.chain([late]).collect::<Vec<_>>()
        };
        let (mut of_late, mut longest) = (0, 0);
        let mut waits = vec![0; quick.len()];
        for turn in 0..10_000 {
            while world.send(&sleeper) {}
            of_late += usize::from(world.send(&late));
            // Who begins differs, as it does where each comes when it likes.
            for n in 0..quick.len() {
                let n = (n + turn) % quick.len();
                waits[n] = if world.send(&quick[n]) {
                    0
                } else {
                    waits[n] + 1
                };
                longest = longest.max(waits[n]);
            }
            world.pass(delays().into_iter());
        }
        assert!(world.kernel.most < SIZE * 3 / 4, "{}", world.kernel.most);
        // It cannot be told from the sleeper for sure, and so is tried as rarely.
        assert!(of_late >= 5, "{of_late}");
        assert!(longest <= 200, "{longest} ms");
    }
}
