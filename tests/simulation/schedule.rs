//! One schedule: a hub with random sockets, and what happens to it, step by step.

use std::{cell::OnceCell, time::Duration};

use udsd::{
    config::{self, BaseDirs, Config},
    limits::Limits,
    peer::Peer,
};

use crate::{
    actor::Actor,
    plan::{Plan, Witness, record},
    room::Room,
    world::{PEER, Random, SECOND, World},
};

/// Most clients of one socket: under `none` a byte has four bits for its sender.
pub const CLIENTS: usize = 16;

/// The users that clients belong to.
pub const USERS: [u32; 3] = [1, 2, 3];

pub struct Schedule {
    pub world: World,
    pub random: Random,
    pub rooms: Vec<Room>,
    pub actors: Vec<Actor>,
    /// Clients that the hub has let in.
    entered: usize,
    /// `queue-per-user` and `queue-total`, where they matter.
    pub quotas: Option<(usize, usize)>,
    pub stopped: bool,
    pub abandoned: bool,
    /// After one of so many steps the next process takes over; never, where it is 0.
    pub restarts: u64,
    /// Likewise, the file is put into force again.
    reloads: u64,
    /// Prints what happens.
    pub told: bool,
    /// Sockets that ever were, by their names.
    pub names: usize,
    /// The longest message that the quotas have room for.
    pub longest: usize,
}

/// What the limits of a schedule are.
pub fn limits(quotas: Option<(usize, usize)>) -> Limits {
    let limits = Limits::new(1000, 1000);
    match quotas {
        Some((per_user, total)) => limits.with_queues(per_user, total),
        None => limits,
    }
}

thread_local! {
    /// A socket with all defaults: to read a file for each schedule would take half of the time.
    static BASE: OnceCell<config::Socket> = const { OnceCell::new() };
}

pub fn base() -> config::Socket {
    let parse = || {
        let text = "[socket.s]\npath = \"/run/s\"\n";
        Config::parse(text, None, &BaseDirs::system())
            .unwrap()
            .sockets
            .remove(0)
    };
    BASE.with(|base| base.get_or_init(parse).clone())
}

impl Schedule {
    /// `told`: it prints what happens.
    pub fn new(seed: u64, told: bool) -> Self {
        let mut random = Random::new(seed);
        let base = base();
        let count = random.pick(&[1, 1, 1, 2, 3]);
        let shared = (count > 1 && random.one_in(2)).then(|| record(&mut random));
        let mut plans: Vec<Plan> = (0..count)
            .map(|i| match &shared {
                Some(record) => Plan::sharing(&mut random, &base, i, record),
                None => Plan::random(&mut random, &base, i),
            })
            .collect();
        let longest = plans.iter().map(Plan::longest).max().unwrap_or(0);
        // A listener too would lose what there is no room for, or be closed.
        let listened = plans.iter().any(|plan| plan.witness == Witness::Listener);
        let quotas = (!listened && random.one_in(4)).then(|| {
            let per_user = longest * (8 + random.below(8) as usize);
            (per_user, per_user * (1 + random.below(3) as usize))
        });
        if quotas.is_some() {
            plans.iter_mut().for_each(Plan::forget);
        }
        let sockets: Vec<_> = plans.iter().map(|plan| plan.socket.clone()).collect();
        // Each takes its time.
        let restarts = match random.below(32) {
            0 => 1,
            1..4 => 10,
            4..12 => 40,
            _ => 0,
        };
        let reloads = random.pick(&[0, 0, 1, 3, 10]);
        let world = World::of(&sockets, limits(quotas));
        let rooms = plans.into_iter().enumerate();
        let mut schedule = Schedule {
            rooms: rooms
                .map(|(i, plan)| Room::new(plan, i, i, &world))
                .collect(),
            world,
            random,
            actors: Vec::new(),
            entered: 0,
            quotas,
            stopped: false,
            abandoned: false,
            restarts,
            reloads,
            told,
            names: count,
            longest,
        };
        schedule.note_records();
        for room in &schedule.rooms {
            schedule.tell(|| format!("{:?} {:?}", room.plan.witness, room.plan.socket));
        }
        for room in 0..count {
            schedule.listen(room);
        }
        schedule
    }

    /// The witness of a room comes, where that is a client.
    pub fn listen(&mut self, room: usize) {
        if self.rooms[room].plan.witness == Witness::Listener {
            self.enter(room);
            let listener = self.actors.last_mut().unwrap();
            listener.witness = true;
            let mut wire = listener.client.wire.borrow_mut();
            wire.capacity = usize::MAX;
            wire.whims = None;
        }
    }

    /// Runs it to its end.
    pub fn run(&mut self) {
        let steps = 20 + self.random.below(100);
        for _ in 0..steps {
            self.step();
            self.look();
            if !self.stopped && self.restarts > 0 && self.random.one_in(self.restarts) {
                self.restart();
                self.look();
            }
            if !self.stopped && self.reloads > 0 && self.random.one_in(self.reloads) {
                self.reload();
                self.look();
            }
        }
        self.end();
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{}", what());
        }
    }

    pub fn tell_all(&self) {
        self.tell(|| {
            let here = self.actors.iter().filter(|actor| actor.is_open());
            let shown: Vec<String> = here.map(ToString::to_string).collect();
            format!("  {}", shown.join("\n  "))
        });
    }

    pub fn now(&self) -> Duration {
        self.world.passed
    }

    pub fn enter(&mut self, room: usize) {
        if self.rooms[room].entered == CLIENTS || self.rooms[room].dismissed {
            return;
        }
        let joined = self.rooms[room].taken(&self.world);
        let uid = self.random.pick(&USERS);
        let place = self.rooms[room].place;
        let client = self.world.try_enter(place, Peer { uid, ..PEER }, &[]);
        let client = client.0.unwrap();
        self.entered += 1;
        {
            let mut wire = client.wire.borrow_mut();
            wire.capacity = 10 + self.random.below(300) as usize;
            if self.random.one_in(2) {
                wire.whims = Some(Random::new(self.random.next()));
            }
        }
        let nth = self.rooms[room].entered;
        self.rooms[room].entered += 1;
        let mut actor = Actor::new(client, room, self.entered, nth, self.world.passed);
        actor.uid = uid;
        actor.joined = joined;
        actor.before = self.rooms[room].before;
        actor.deaf = self.random.one_in(8);
        self.actors.push(actor);
        self.rooms[room].greet(&mut self.actors);
    }

    /// One thing happens.
    fn step(&mut self) {
        self.tell_all();
        let here: Vec<usize> = (0..self.actors.len())
            .filter(|&i| self.actors[i].is_open() && !self.actors[i].witness)
            .collect();
        let present = here.len() as u64;
        if !self.stopped && (present == 0 || (present < 6 && self.random.one_in(8))) {
            let served = self.rooms.iter().filter(|room| !room.dismissed);
            let served: Vec<usize> = served.map(|room| room.index).collect();
            let room = self.random.pick(&served);
            self.enter(room);
            return;
        }
        if present == 0 {
            return;
        }
        let i = self.random.pick(&here);
        let chance = self.random.below(200);
        self.tell(|| format!("{chance}: client {}", self.actors[i].number));
        match chance {
            0..55 => self.send(i),
            55..95 => self.take(i),
            95..125 => {
                let key = self.actors[i].client.key;
                self.world.event(key);
            }
            125..165 => self.world.turn(),
            165..177 => self.write_records(),
            177..180 => {
                let span = self.random.pick(&[SECOND / 2, SECOND, 5 * SECOND]);
                self.pass(span);
            }
            180..184 => self.finish(i),
            184 => self.actors[i].close(),
            // After an end of stream there is no reset to be read.
            185 if !self.actors[i].finished => {
                self.actors[i].gone = true;
                self.actors[i].client.vanish();
            }
            186 => self.kill(i),
            187 => {
                let Actor { room, .. } = self.actors[i];
                if self.actors[i].can_send() {
                    self.actors[i].send_too_long(&self.rooms[room].plan);
                }
            }
            188 if self.random.one_in(4) => self.stop(),
            189 if self.stopped => self.abandon(),
            _ => {
                self.world.settle();
                self.look();
                self.check_rest();
            }
        }
    }

    fn send(&mut self, i: usize) {
        let room = &self.rooms[self.actors[i].room];
        let talks = room.plan.witness != Witness::Talker
            || !self.actors.iter().any(|other| {
                other.room == room.index
                    && other.number != self.actors[i].number
                    && !other.messages.is_empty()
                    && !other.over
            });
        let actor = &mut self.actors[i];
        if talks && actor.can_send() {
            let most = if room.plan.bytewise() { 100 } else { 12 };
            let count = 1 + self.random.below(most) as usize;
            actor.send(&room.plan, count);
        }
    }

    fn take(&mut self, i: usize) {
        let most = self.random.pick(&[1, 5, 50, 200, usize::MAX]);
        let actor = &self.actors[i];
        if !actor.deaf {
            actor.client.take(most);
        }
    }

    fn write_records(&mut self) {
        for room in self.rooms.iter().filter(|room| !room.dismissed) {
            // That of several is written where the first has it.
            if self.world.hub.recorded_at(room.place) == Some(room.place) {
                let waiting = self.world.unwritten(room.place);
                let written = self.random.below(waiting as u64 + 1) as usize;
                self.world.write(room.place, written);
            }
        }
    }

    fn finish(&mut self, i: usize) {
        let room = &self.rooms[self.actors[i].room];
        // In the middle of a message only where no other client speaks.
        let torn =
            !room.plan.bytewise() && room.plan.witness != Witness::Talker && self.random.one_in(3);
        self.actors[i].finish(&room.plan, torn);
    }

    /// Closes a client from the hub's side; what was queued is then told by the counter.
    fn kill(&mut self, i: usize) {
        let room = self.actors[i].room;
        if self.rooms[room].dismissed {
            return;
        }
        let place = self.rooms[room].place;
        let undelivered =
            |world: &World| world.hub.sockets()[place].counters().undelivered as usize;
        let before = undelivered(&self.world);
        let now = self.world.now();
        let key = self.actors[i].client.key;
        let reason = std::io::ErrorKind::Other.into();
        self.world.hub.fail(key, reason, now);
        let queued = undelivered(&self.world) - before;
        let queue_size = self.rooms[room].plan.socket.queue_size;
        let queue_size = queue_size.max(self.actors[i].before) + self.actors[i].gaps;
        assert!(
            queued <= queue_size,
            "{queued} bytes in a queue of {queue_size}"
        );
        self.actors[i].killed = true;
    }

    fn pass(&mut self, span: Duration) {
        // The event loop does not wait while there is something to do, or a time is over: a reload may set one
        // for at once.
        while self.world.hub.has_ready() || self.world.is_due() {
            self.world.pass(Duration::ZERO);
            self.world.turn();
            self.look();
        }
        self.tell(|| format!("{span:?} pass"));
        self.world.pass(span);
        self.look();
        self.world.settle();
        self.look();
        self.check_rest();
        self.check_silence();
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.world.hub.stop();
    }

    fn abandon(&mut self) {
        // As the event loop: at the end of a turn.
        self.world.turn();
        self.look();
        self.abandoned = true;
        let now = self.world.now();
        self.world.hub.abandon(now);
    }

    /// Everybody finishes, or the daemon stops; then nothing may be left.
    fn end(&mut self) {
        if !self.stopped && self.random.one_in(3) {
            self.stop();
        }
        if !self.stopped {
            for i in 0..self.actors.len() {
                if self.actors[i].is_open() && !self.actors[i].finished {
                    let room = &self.rooms[self.actors[i].room];
                    self.actors[i].finish(&room.plan, false);
                }
            }
        }
        self.drain();
        // Who does not read stands in somebody's way for only so long.
        let mut patience = 3 * self.actors.len() + 1;
        while self.actors.iter().any(|actor| self.is_impatient(actor)) {
            assert!(patience > 0, "clients that do not read hold up the others");
            patience -= 1;
            self.pass(Duration::from_secs(3600));
            self.drain();
        }
        for actor in &mut self.actors {
            actor.deaf = false;
        }
        self.drain();
        for i in 0..self.actors.len() {
            let actor = &mut self.actors[i];
            if actor.is_open() {
                assert!(
                    !self.stopped
                        && self.rooms[actor.room].is_relay()
                        && !self.rooms[actor.room].dismissed,
                    "client {} never ended",
                    actor.number
                );
                assert!(
                    actor.gone || actor.is_cut_off() || actor.taken == actor.messages.len(),
                    "client {} sent {} messages, {} were taken",
                    actor.number,
                    actor.messages.len(),
                    actor.taken
                );
                // A receiver stays until it goes.
                actor.close();
            }
        }
        self.drain();
        for actor in &self.actors {
            assert!(
                !actor.is_open(),
                "client {} is gone and was not closed",
                actor.number
            );
        }
        self.world.assert_empty();
        self.check_counters();
    }

    /// It will be closed, or others will, if that lasts.
    fn is_impatient(&self, actor: &Actor) -> bool {
        let starves = self.quotas.is_some() && !self.stopped && actor.is_unread();
        let in_way = actor.in_way_since.is_some() && self.rooms[actor.room].knows(actor);
        actor.is_open() && (in_way || starves)
    }

    /// Everybody who reads takes all, and all records are written, until nothing moves.
    fn drain(&mut self) {
        self.tell(|| "draining".into());
        for _ in 0..10_000 {
            self.world.settle();
            self.look();
            self.check_rest();
            let mut moved = 0;
            for actor in self.actors.iter().filter(|actor| !actor.deaf) {
                let full = actor.is_open() && actor.client.wire.borrow().full;
                moved += actor.client.take(usize::MAX) + usize::from(full);
            }
            for room in self.rooms.iter().filter(|room| !room.dismissed) {
                if self.world.hub.recorded_at(room.place) == Some(room.place) {
                    moved += self.world.written(room.place);
                }
            }
            if moved == 0 {
                return;
            }
        }
        panic!("the hub does not come to an end");
    }
}
