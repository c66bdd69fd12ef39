//! The shares, tried with a kernel in memory that counts as the real one does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::datagram_header::{Address, Header};

const SIZE: usize = 1 << 21;
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

#[test]
fn users_who_read_nothing_leave_room_for_one_more_however_many_they_are() {
    for users in [8, 20] {
        let mut world = World::new();
        let (early, late) = (key(0, 7), key(0, 8));
        let mut next = vec![0; users];
        let (mut longest, mut got) = ([0; 2], [0; 2]);
        let mut waits = [0; 2];
        for turn in 0..(users + 1) * 2000 {
            // One user more each time takes all that it is let: it always has another receiver.
            for (next, uid) in next.iter_mut().zip(100..).take(1 + turn / 2000) {
                while world.send(&key(*next, uid)) {
                    *next += 1;
                }
            }
            let readers = if turn < users * 2000 { 1 } else { 2 };
            for n in 0..readers {
                let is_sent = world.send(&[early, late][n]);
                waits[n] = if is_sent { 0 } else { waits[n] + 1 };
                got[n] += usize::from(is_sent);
                longest[n] = longest[n].max(waits[n]);
            }
            world.pass([early, late].map(|key| (key, MILLISECOND)).into_iter());
        }
        assert!(world.kernel.most < SIZE, "{users} users");
        assert!(got[0] >= 1000 * users && got[1] >= 1000, "{got:?}");
        assert!(
            longest.iter().all(|&longest| longest <= 25 * users),
            "{longest:?} ms"
        );
    }
}

#[test]
fn receivers_that_read_for_each_other_do_not_fill_the_buffer() {
    let mut world = World::new();
    let reader = key(0, 7);
    let plotters: Vec<Key> = (1..=20).map(|n| key(n, 8)).collect();
    let mut got = 0;
    for turn in 0..60_000 {
        for plotter in &plotters {
            world.send(plotter);
        }
        got += usize::from(world.send(&reader));
        // Somebody else than who is tried reads one.
        let plotter = &plotters[turn % plotters.len()];
        if let Some(waiting) = world.kernel.waiting.get_mut(plotter) {
            waiting.pop_front();
        }
        world.pass([(reader, MILLISECOND)].into_iter());
    }
    assert!(world.kernel.most < SIZE, "{}", world.kernel.most);
    // One of each user at a time, and of the plotters each takes what it may.
    assert!(got >= 2_500, "{got}");
}

#[test]
fn one_slow_reader_costs_the_others_no_more_than_a_trial_each() {
    let mut world = World::new();
    let sleeper = key(0, 7);
    let readers: Vec<Key> = (1..=49).map(|n| key(n, 8)).collect();
    let slow = key(50, 8);
    let fast: Vec<_> = readers.iter().map(|&key| (key, MILLISECOND)).collect();
    for _ in 0..1000 {
        while world.send(&sleeper) {}
        for key in readers.iter().chain([&slow]) {
            world.send(key);
        }
        world.pass(fast.iter().copied().chain([(slow, MILLISECOND)]));
    }
    // It reads no more. Each of the others has its trial, and is served as before.
    let mut waits = vec![0; readers.len()];
    let (mut longest, mut got) = (0, 0);
    for turn in 0..1000 {
        world.send(&slow);
        for n in 0..readers.len() {
            let n = (n + turn) % readers.len();
            if world.send(&readers[n]) {
                got += 1;
                waits[n] = 0;
            } else {
                waits[n] += 1;
                longest = longest.max(waits[n]);
            }
        }
        world.pass(fast.iter().copied());
    }
    assert!(longest <= 120, "{longest} ms");
    assert!(got >= 500 * readers.len(), "{got}");
    let unread = world.kernel.waiting[&slow].len();
    assert!(unread <= 8, "{unread} datagrams");
}

#[test]
fn who_reads_late_at_times_is_served_however_many_of_its_user_read_nothing() {
    for (sleepers, period) in [(2, 2), (20, 2), (20, 3), (20, 7), (50, 7)] {
        let mut world = World::new();
        let all: Vec<Key> = (0..=sleepers).map(|n| key(n, 7)).collect();
        let reader = all[0];
        let (mut waits, mut longest, mut got) = (0, 0, 0);
        for turn in 0..30_000 {
            waits += 1;
            // Who begins differs, as it does where each comes when it likes.
            for n in 0..all.len() {
                let to = all[(n + turn) % all.len()];
                if world.send(&to) && to == reader {
                    (waits, got) = (0, got + 1);
                }
            }
            longest = longest.max(waits);
            // A machine that is busy runs it late, now and then.
            let delay = if got % period == 0 { 10 + got % 30 } else { 1 };
            world.pass([(reader, MILLISECOND * delay)].into_iter());
        }
        let most = world.kernel.most;
        let case = format!("{sleepers} sleepers, late each {period}: {longest} ms, {got}, {most}");
        assert!(most < SIZE / 8 * 7, "{case}");
        assert!(longest <= 2_000 && got >= 500, "{case}");
    }
}

#[test]
fn a_user_that_reads_late_at_times_is_served_whatever_another_user_does() {
    let mut world = World::new();
    let reader = key(0, 7);
    let sleepers: Vec<Key> = (1..=20).map(|n| key(n, 8)).collect();
    // These read at once or much later, so that what others read late is taken off their charges.
    let plotters: Vec<Key> = (21..=24).map(|n| key(n, 8)).collect();
    let (mut waits, mut longest, mut got) = (0, 0, 0);
    for turn in 0..100_000 {
        waits += 1;
        if world.send(&reader) {
            (waits, got) = (0, got + 1);
        }
        for n in 0..sleepers.len() {
            world.send(&sleepers[(n + turn) % sleepers.len()]);
        }
        for plotter in &plotters {
            world.send(plotter);
        }
        longest = longest.max(waits);
        let late = MILLISECOND * if got % 7 == 0 { 10 + got % 30 } else { 1 };
        let plot = MILLISECOND * if turn % 5000 < 4000 { 1 } else { 3000 };
        let plotters = plotters.iter().map(|&key| (key, plot));
        world.pass(plotters.chain([(reader, late)]));
        if let Some(tight) = &world.shares.tight {
            let users = tight.users.values().map(|user| user.charge);
            assert_eq!(users.sum::<usize>(), tight.charged, "after {turn} ms");
        }
    }
    assert!(world.kernel.most < SIZE, "{}", world.kernel.most);
    assert!(longest <= 2_000 && got >= 1_000, "{longest} ms, {got}");
    // It has left nothing unread, but perhaps the last.
    let tight = world.shares.tight.as_ref().unwrap();
    let charge = tight.users.get(&7).map_or(0, |user| user.charge);
    assert!(charge <= 2 * COST, "{charge}");
}
