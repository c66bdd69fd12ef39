//! Random schedules: clients that send, take, stop and vanish at any time, calls that are cut short
//! or interrupted, and after each of them the same questions. Is what came back a prefix of what was
//! sent, is it all there in the end, does every queue keep its bound, and does all that is undone
//! wait for something that will come?

use std::{collections::VecDeque, env, io, mem, panic, thread};

use udsd::connection::Watch;

use crate::world::{Client, READ_BUFFER, Random, SECOND, World, collect_socket};

const SCHEDULES: u64 = 2000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    None,
    Lines,
    LengthPrefixed,
    CString,
}

/// A client of a schedule: what it has sent, and what must come of it.
struct Actor {
    client: Client,
    socket: usize,
    sent: Vec<u8>,
    /// Where messages end in `sent`.
    ends: Vec<usize>,
    /// Bytes that came back and were compared.
    compared: usize,
    finished: bool,
    vanished: bool,
    /// Its number in the record.
    number: usize,
    messages: usize,
}

struct Schedule {
    world: World,
    random: Random,
    framing: Framing,
    message_size: usize,
    queue_size: usize,
    record_size: usize,
    actors: Vec<Actor>,
    entered: usize,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let framing = random.pick(&[
            Framing::None,
            Framing::Lines,
            Framing::LengthPrefixed,
            Framing::CString,
        ]);
        let message_size = random.pick(&[1, 7, 16, 100]);
        let largest = message_size + 8;
        let queue_size = largest + random.below(3) as usize * random.below(60) as usize;
        let name = match framing {
            Framing::None => "none".to_owned(),
            Framing::Lines => "lines".to_owned(),
            Framing::LengthPrefixed => "length-prefixed".to_owned(),
            Framing::CString => format!("cstring:{message_size}"),
        };
        let record_size = 65 + random.below(200) as usize;
        let timeouts = if random.one_in(2) {
            "slow-timeout = \"1h\"\nidle-timeout = \"1h\"\n"
        } else {
            "slow-timeout = \"1h\"\n"
        };
        let world = World::new(&format!(
            "[socket.s]\npath = \"/run/s\"\nframing = \"{name}\"\nmessage-size = \"{message_size}B\"\nqueue-size = \"{queue_size}B\"\n{timeouts}{}",
            [("log", "collect"), ("audit", "echo")]
                .map(|(name, service)| {
                    collect_socket(&format!("queue-size = \"{record_size}B\""))
                        .replace("log", name)
                        .replace("collect", service)
                })
                .concat()
        ));
        Schedule {
            world,
            random,
            framing,
            message_size,
            queue_size,
            record_size,
            actors: Vec::new(),
            entered: 0,
        }
    }

    fn enter(&mut self) {
        // echo, collect, echo with a record
        let socket = self.random.pick(&[0, 0, 1, 2]);
        let client = self.world.enter(socket);
        {
            let mut wire = client.wire.borrow_mut();
            wire.capacity = 1 + self.random.below(200) as usize;
            if self.random.one_in(2) {
                wire.whims = Some(Random::new(self.random.next()));
            }
        }
        self.entered += 1;
        self.actors.push(Actor {
            client,
            socket,
            sent: Vec::new(),
            ends: Vec::new(),
            compared: 0,
            finished: false,
            vanished: false,
            number: self.entered,
            messages: 0,
        });
    }

    fn send(&mut self, i: usize) {
        let random = &mut self.random;
        let actor = &mut self.actors[i];
        if actor.finished || actor.vanished {
            return;
        }
        let start = actor.sent.len();
        for _ in 0..=random.below(20) {
            if actor.socket != 0 {
                let line = format!("{} {}\n", actor.number, actor.messages);
                actor.sent.extend(line.as_bytes());
            } else {
                let length = random.below(self.message_size as u64 + 1) as usize;
                let body = (0..length).map(|n| b'a' + ((actor.messages + n) % 26) as u8);
                match self.framing {
                    Framing::None => actor.sent.extend(body),
                    Framing::Lines => {
                        actor.sent.extend(body);
                        actor.sent.push(b'\n');
                    }
                    Framing::LengthPrefixed => {
                        actor.sent.extend((length as u32).to_be_bytes());
                        actor.sent.extend(body);
                    }
                    Framing::CString => {
                        actor.sent.extend(body);
                        let rest = self.message_size - length;
                        actor.sent.extend(vec![0; rest]);
                    }
                }
            }
            actor.messages += 1;
            actor.ends.push(actor.sent.len());
        }
        actor.client.send(&actor.sent[start..]);
    }

    /// One thing happens.
    fn step(&mut self) {
        let present = self.actors.len() as u64;
        if present == 0 || (present < 5 && self.random.one_in(8)) {
            self.enter();
            return;
        }
        let i = self.random.below(present) as usize;
        match self.random.below(100) {
            0..30 => self.send(i),
            30..50 => {
                let most = self.random.pick(&[1, 5, 50, usize::MAX]);
                self.actors[i].client.take(most);
            }
            50..65 => {
                let key = self.actors[i].client.key;
                if !self.actors[i].client.is_closed() {
                    self.world.event(key);
                }
            }
            65..85 => self.world.turn(),
            85..92 => {
                let socket = self.random.pick(&[1, 2]);
                let waiting = self.world.hub.record(socket).unwrap().waiting() as u64;
                let written = self.random.below(waiting + 1) as usize;
                if written > 0 {
                    let now = self.world.now();
                    self.world.hub.recorded(socket, written, now);
                }
            }
            92..94 => self.world.pass(SECOND),
            94..96 => {
                let actor = &mut self.actors[i];
                actor.finished = true;
                actor.client.finish();
            }
            96 => {
                let actor = &mut self.actors[i];
                // After an end of stream there is no reset to be read.
                if !actor.finished {
                    actor.vanished = true;
                    actor.client.vanish();
                }
            }
            97 => self.kill(i),
            _ => {
                self.world.settle();
                self.check_rest();
            }
        }
        self.check_prefixes();
        self.bury();
    }

    /// Closes a client from the hub's side; what was queued is then told by the counter.
    fn kill(&mut self, i: usize) {
        if self.actors[i].client.is_closed() {
            return;
        }
        let socket = self.actors[i].socket;
        let undelivered =
            |world: &World| world.hub.sockets()[socket].counters().undelivered as usize;
        let before = undelivered(&self.world);
        let now = self.world.now();
        let key = self.actors[i].client.key;
        self.world.hub.fail(key, io::ErrorKind::Other.into(), now);
        let queued = undelivered(&self.world) - before;
        let queue_size = if socket == 0 { self.queue_size } else { 1024 };
        assert!(
            queued <= queue_size,
            "{queued} bytes in a queue of {queue_size}"
        );
        self.actors[i].vanished = true;
    }

    fn check_prefixes(&mut self) {
        for actor in &mut self.actors {
            let wire = actor.client.wire.borrow();
            let got = wire.got.len();
            if actor.socket == 1 {
                assert_eq!(wire.written, 0, "collect wrote to a client");
            } else if !actor.vanished {
                let sent = actor.sent.get(actor.compared..got);
                assert!(
                    sent == Some(&wire.got[actor.compared..]),
                    "client {} got what it did not send",
                    actor.number
                );
                actor.compared = got;
                let held = wire.read - wire.written;
                let most = self.queue_size.max(1024) + 2 * READ_BUFFER;
                assert!(held <= most, "{held} bytes are held for one client");
            }
        }
    }

    /// When the hub rests, whatever is undone waits for something that will come.
    fn check_rest(&mut self) {
        let lines = [1, 2].map(|socket| {
            let record = self.world.hub.record(socket).unwrap();
            let waiting = record.waiting();
            assert!(
                waiting <= self.record_size,
                "{waiting} bytes wait for a record of {}",
                self.record_size
            );
            if waiting > 0 {
                self.world.hub.sockets()[socket].line().waiting().clone()
            } else {
                VecDeque::new()
            }
        });
        for actor in &self.actors {
            let wire = actor.client.wire.borrow();
            if wire.dropped {
                continue;
            }
            assert_eq!(wire.event(), Watch::default());
            let undone = !wire.sent.is_empty() || wire.finished || wire.reset;
            let for_record = lines.iter().any(|line| line.contains(&actor.client.key));
            let for_room = wire.watched.write && wire.full;
            assert!(
                !undone || for_record || for_room,
                "client {} has {} bytes unread and nothing brings it back",
                actor.number,
                wire.sent.len()
            );
            if actor.socket != 1 {
                let whole = actor.ends.partition_point(|&end| end <= wire.read);
                let read = if actor.socket == 0 && self.framing == Framing::None {
                    wire.read
                } else {
                    whole.checked_sub(1).map_or(0, |last| actor.ends[last])
                };
                assert!(
                    wire.written >= read || for_room || for_record,
                    "client {} is owed {} bytes and nothing brings it back",
                    actor.number,
                    read - wire.written
                );
            }
        }
    }

    /// Forgets who has left, once it was checked that it has all.
    fn bury(&mut self) {
        let (gone, here) = mem::take(&mut self.actors)
            .into_iter()
            .partition(|actor| actor.client.is_closed());
        self.actors = here;
        for actor in gone {
            self.check_whole(&actor);
        }
    }

    fn check_whole(&self, actor: &Actor) {
        if actor.vanished {
            return;
        }
        assert!(
            actor.finished,
            "client {} was closed without reason",
            actor.number
        );
        if actor.socket != 1 {
            actor.client.take(usize::MAX);
            assert!(
                actor.client.got() == actor.sent,
                "client {} sent {} bytes and got {}",
                actor.number,
                actor.sent.len(),
                actor.client.got().len()
            );
        }
        if actor.socket != 0 {
            let now = self.recorded_of(actor.socket, actor.number);
            assert!(
                now == actor.messages,
                "client {} sent {} lines, {now} are recorded",
                actor.number,
                actor.messages
            );
        }
    }

    /// How many lines of a client the record has; they must be the first ones, in order.
    fn recorded_of(&self, socket: usize, number: usize) -> usize {
        let record = str::from_utf8(&self.world.records[socket]).unwrap();
        let sender = number.to_string();
        let mine = record.lines().filter_map(|line| {
            let (from, n) = line.split_once(' ').unwrap();
            (from == sender).then(|| n.parse::<usize>().unwrap())
        });
        let mut next = 0;
        for n in mine {
            assert_eq!(
                n, next,
                "client {number}: a line is lost, doubled or misplaced"
            );
            next += 1;
        }
        next
    }

    /// Everybody finishes and reads; then nothing may be left.
    fn end(&mut self) {
        for actor in &mut self.actors {
            if !actor.vanished && !actor.finished {
                actor.finished = true;
                actor.client.finish();
            }
        }
        for _ in 0..100_000 {
            self.world.settle();
            self.check_rest();
            for actor in &self.actors {
                actor.client.take(usize::MAX);
            }
            self.world.written(1);
            self.world.written(2);
            self.check_prefixes();
            self.bury();
            if self.actors.is_empty() {
                break;
            }
        }
        assert!(
            self.actors.is_empty(),
            "{} clients never ended",
            self.actors.len()
        );
        self.world.settle();
        self.world.assert_empty();
        for number in 1..=self.entered {
            self.recorded_of(1, number);
            self.recorded_of(2, number);
        }
    }
}

fn run(seed: u64) {
    let mut schedule = Schedule::new(seed);
    let steps = 50 + schedule.random.below(300);
    for _ in 0..steps {
        schedule.step();
    }
    schedule.end();
}

#[test]
fn under_any_schedule_nothing_is_lost_reordered_or_left_undone() {
    if let Ok(seed) = env::var("UDSD_TEST_SEED") {
        run(seed.parse().unwrap());
        return;
    }
    // In several threads: a schedule needs a millisecond or a few.
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..SCHEDULES).step_by(threads as usize) {
                    if let Err(reason) = panic::catch_unwind(|| run(seed)) {
                        eprintln!("schedule {seed} failed; UDSD_TEST_SEED={seed} replays it alone");
                        panic::resume_unwind(reason);
                    }
                }
            });
        }
    });
}
