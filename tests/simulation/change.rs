//! What changes under running clients: the next process goes on, and another file is put into force, in
//! which sockets come, go, are renamed, or are others; on those that stay, limits, `slow-client`, stamps and records
//! change. The model says what becomes of the clients.

use std::time::Duration;

use udsd::{
    config::{self, ServiceKind, SlowClient, SocketType},
    frame::Framing,
};

use crate::{
    actor::Actor,
    plan::{Plan, Witness, record},
    room::Room,
    schedule::{Schedule, base, limits},
    world::SECOND,
};

/// What a socket has that is no more, after a restart: all defaults.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HALF: usize = 512 * 1024;
/// More bytes than a gap has.
const LONGEST_GAP: usize = 64;
/// Most sockets of one file.
const SOCKETS: u64 = 4;

impl Schedule {
    /// The next process goes on.
    pub fn restart(&mut self) {
        self.tell(|| "restart".into());
        let in_bytes = self.random.one_in(8);
        let limits = limits(self.quotas);
        let became = self.world.restart(limits, in_bytes, Some(&mut self.random));
        for actor in self.actors.iter_mut().filter(|actor| actor.is_open()) {
            actor.client.key = became[&actor.client.key];
        }
        for room in &mut self.rooms {
            if room.dismissed {
                room.plan.socket.slow_timeout = DEFAULT_TIMEOUT;
                room.plan.socket.idle_timeout = None;
                room.half = DEFAULT_HALF;
                continue;
            }
            room.place = self.world.hub.key(&room.plan.socket.name).unwrap();
            if !room.is_numbered() {
                // Nobody asks for its number.
                room.numbered = 0;
            }
        }
    }

    /// Another file is put into force.
    pub fn reload(&mut self) {
        let served = self.rooms.iter().filter(|room| !room.dismissed);
        let served: Vec<usize> = served.map(|room| room.index).collect();
        let i = self.random.pick(&served);
        match self.random.below(14) {
            0 if served.len() > 1 => self.apply(Some(i), None),
            1 if (served.len() as u64) < SOCKETS => {
                let plan = self.another_plan(None);
                self.apply(None, Some((plan, None)));
            }
            2 => {
                let mut plan = self.rooms[i].plan.clone();
                plan.socket.name = self.another_name();
                self.apply(Some(i), Some((plan, Some(i))));
            }
            3..5 => {
                let plan = self.another_plan(Some(i));
                self.apply(Some(i), Some((plan, None)));
            }
            5 => {
                let mut plan = self.another_plan(Some(i));
                plan.socket.kind = SocketType::Datagram;
                plan.socket.record = None;
                let before = self.rooms[i].plan.clone();
                self.apply_briefly(i, &plan, before);
            }
            6..9 => self.resize(i),
            9..11 => self.leave_or_share(i),
            _ => self.apply(None, None),
        }
    }

    fn another_name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    /// Rules of a socket that is new, or for which those who came to room `instead` did not come.
    fn another_plan(&mut self, instead: Option<usize>) -> Plan {
        loop {
            let mut plan = Plan::random(&mut self.random, &base(), 0);
            let fits = plan.longest() <= self.longest && plan.witness != Witness::Listener;
            if self.quotas.is_some() {
                if !fits {
                    continue;
                }
                plan.forget();
            }
            let Some(before) = instead else {
                plan.socket.name = self.another_name();
                if let Some(record) = self.shared()
                    && plan.may_share()
                {
                    plan.share(&record);
                }
                return plan;
            };
            let before = &self.rooms[before];
            if before.is_unnumbered() {
                plan.forget_numbers();
            }
            let before = &before.plan.socket;
            if (plan.socket.service, plan.socket.framing) != (before.service, before.framing) {
                plan.socket.name.clone_from(&before.name);
                return plan;
            }
        }
    }

    /// The sockets of the file in which room `without` is not, and `with` is, in any order.
    fn file(&mut self, without: Option<usize>, with: Option<&Plan>) -> Vec<config::Socket> {
        let served = self.rooms.iter();
        let served = served.filter(|room| !room.dismissed && Some(room.index) != without);
        let plans = served.map(|room| &room.plan).chain(with);
        let mut sockets: Vec<_> = plans.map(|plan| plan.socket.clone()).collect();
        for last in (1..sockets.len()).rev() {
            let other = self.random.below(last as u64 + 1) as usize;
            sockets.swap(last, other);
        }
        sockets
    }

    /// Room `without` is gone, `with` comes, perhaps with the record of another room.
    pub fn apply(&mut self, without: Option<usize>, with: Option<(Plan, Option<usize>)>) {
        let sockets = self.file(without, with.as_ref().map(|(plan, _)| plan));
        self.tell(|| format!("reload without {without:?}, with {with:?}"));
        let renamed = with.as_ref().and_then(|(plan, from)| {
            let from = &self.rooms[(*from)?].plan.socket.name;
            Some((plan.socket.name.clone(), from.clone()))
        });
        let renamed = renamed.as_ref().map(|(new, old)| (&new[..], &old[..]));
        let taken = without.map(|i| self.rooms[i].taken(&self.world));
        let limits = limits(self.quotas);
        self.world.reload_renaming(sockets, &limits, renamed);
        if let (Some(i), Some(taken)) = (without, taken) {
            self.dismiss(i, taken);
        }
        let Some((plan, from)) = with else {
            self.note_records();
            return;
        };
        self.tell(|| format!("{:?} {:?}", plan.witness, plan.socket));
        let place = self.world.hub.key(&plan.socket.name).unwrap();
        let index = self.rooms.len();
        let mut room = Room::new(plan, index, place, &self.world);
        if let Some(before) = without {
            let numbered = self.rooms[before].numbered;
            if self.rooms[before].plan.socket.name == room.plan.socket.name {
                room = room.follows(numbered, &self.world);
            } else if from.is_some() && room.plan.socket.record.is_some() {
                room.numbered = numbered;
            }
            if self.rooms[before].is_unnumbered() || room.is_renumbered {
                room.renumber();
            }
        }
        self.rooms.push(room);
        self.note_records();
        self.listen(index);
    }

    /// A socket of room `i` is of another type for a moment: then it is as `after`.
    fn apply_briefly(&mut self, i: usize, other: &Plan, after: Plan) {
        self.tell(|| format!("reload with {i} of another type"));
        let taken = self.rooms[i].taken(&self.world);
        let sockets = self.file(Some(i), Some(other));
        self.world.reload_as(sockets, &limits(self.quotas));
        self.dismiss(i, taken);
        self.note_records();
        let numbered = self.rooms[i].numbered;
        let sockets = self.file(Some(i), Some(&after));
        self.world.reload_as(sockets, &limits(self.quotas));
        let place = self.world.hub.key(&after.socket.name).unwrap();
        let index = self.rooms.len();
        let mut room = Room::new(after, index, place, &self.world).follows(numbered, &self.world);
        if self.rooms[i].is_unnumbered() {
            room.renumber();
        }
        self.rooms.push(room);
        self.note_records();
        self.listen(index);
    }

    /// The clients of room `i` get what they are owed, of all that was taken until now.
    fn dismiss(&mut self, i: usize, taken: usize) {
        let now = self.now();
        self.rooms[i].follow_to_the_end(taken, &mut self.actors, now);
        self.rooms[i].dismiss();
        let Plan {
            socket, witness, ..
        } = &self.rooms[i].plan;
        if *witness != Witness::Nobody {
            return;
        }
        // Under a quota, a smaller queue than before, or after a restart, which writes what the kernel has
        // room for, less may be taken than there is room for.
        let is_known =
            socket.slow_client == SlowClient::Wait && self.quotas.is_none() && self.restarts == 0;
        for actor in self.actors.iter_mut().filter(|actor| actor.room == i) {
            let room = if is_known && actor.before == 0 && !actor.receiver.is_unsure() {
                socket.queue_size
            } else {
                0
            };
            actor.receiver.end(room);
        }
    }

    /// More or less may wait, for a longer or shorter time.
    fn resize(&mut self, i: usize) {
        // As the event loop: at the end of a turn, when all that was taken is given out.
        self.world.turn();
        self.look();
        // Who was closed is judged by the rules of then.
        let mut actors = self.actors.iter().filter(|actor| actor.room == i);
        if actors.any(|actor| !actor.over && !actor.is_open()) {
            return;
        }
        let before = self.rooms[i].plan.socket.queue_size;
        let now = self.now();
        self.rescale(i);
        if self.random.one_in(2) {
            self.rework(i);
        }
        let room = &mut self.rooms[i];
        let plan = &mut room.plan;
        let longest = plan.longest();
        plan.socket.queue_size = longest + self.random.below(200) as usize;
        if let Some(record) = &mut plan.socket.record {
            record.queue_size = 65 + self.random.below(400) as usize;
        }
        if self.told {
            println!("room {i}: {:?} {:?}", plan.witness, plan.socket);
        }
        room.ever_dropped |= plan.drops();
        plan.socket.slow_timeout =
            self.random
                .pick(&[2 * SECOND, 8 * SECOND, Duration::from_secs(3600)]);
        if plan.witness != Witness::Listener {
            let timeout =
                self.random
                    .pick(&[None, Some(3 * SECOND), Some(Duration::from_secs(3600))]);
            if timeout != plan.socket.idle_timeout {
                plan.socket.idle_timeout = timeout;
                room.idle_since = now;
            }
        }
        room.half = plan.socket.queue_size / 2;
        let keeps = room.is_relay() && !room.plan.bytewise() && self.quotas.is_none();
        let history = self.random.pick(&[0, 3, 10]);
        room.resize_history(if keeps { history } else { 0 });
        room.before = room.before.max(before);
        for actor in self.actors.iter_mut().filter(|actor| actor.room == i) {
            actor.before = actor.before.max(before);
        }
        self.unify(i);
        self.apply(None, None);
    }

    /// `slow-client` and `stamp` may change for clients that stay; their record may have another format, or come,
    /// or go. What was taken before is passed on as it was then.
    fn rework(&mut self, i: usize) {
        let Some(mut plan) = self.other_rules(i) else {
            return;
        };
        let room = &self.rooms[i];
        let (has_record, is_echo) = (plan.socket.record.is_some(), plan.is(ServiceKind::Echo));
        let of_room = self.actors.iter_mut().filter(|actor| actor.room == i);
        match plan.witness {
            Witness::Record if has_record => {}
            Witness::Record if is_echo => {
                plan.witness = Witness::Nobody;
                of_room.for_each(|actor| actor.echoed = actor.taken);
            }
            // Nobody else knows the order.
            Witness::Record => plan.socket.record.clone_from(&room.plan.socket.record),
            Witness::Nobody if has_record => {
                let of_room: Vec<_> = of_room.collect();
                let whole: usize = of_room.iter().map(|actor| actor.whole()).sum();
                // Else nobody knows what the record is to begin with.
                if !plan.tagged || room.taken(&self.world) != whole {
                    return;
                }
                plan.witness = Witness::Record;
                for actor in of_room {
                    actor.taken = actor.whole();
                }
            }
            Witness::Nobody if plan.drops() && !room.plan.drops() => {
                of_room.for_each(|actor| actor.receiver.may_drop_the_rest());
            }
            Witness::Nobody | Witness::Listener | Witness::Talker => {}
        }
        for actor in self.actors.iter_mut().filter(|actor| actor.room == i) {
            if actor.receiver.to_be_told() > 0 {
                actor.gaps += LONGEST_GAP;
            }
        }
        self.rooms[i].change_to(plan);
    }

    /// Other rules of room `i` for the same clients, where the model can follow them.
    fn other_rules(&mut self, i: usize) -> Option<Plan> {
        let room = &self.rooms[i];
        let mut plan = room.plan.clone();
        if self.random.one_in(2) {
            plan.socket.slow_client =
                self.random
                    .pick(&[SlowClient::Wait, SlowClient::Disconnect, SlowClient::Drop]);
        }
        if room.is_unnumbered() {
            return Some(plan);
        }
        let is_framed = matches!(
            plan.socket.framing,
            Framing::Lines | Framing::Nul | Framing::LengthPrefixed
        );
        if plan.is(ServiceKind::Relay) && is_framed && self.random.one_in(2) {
            plan.socket.stamp = !plan.socket.stamp;
        }
        // What is missing must be found by what came.
        let is_silent = plan.drops() && !plan.socket.stamp;
        let was_silent = room.plan.drops() && !room.plan.socket.stamp;
        if (is_silent && !plan.tagged) || (plan.bytewise() && is_silent != was_silent) {
            return None;
        }
        if self.quotas.is_some() && plan.longest() > self.longest {
            return None;
        }
        if plan.socket.record.is_some() || !plan.bytewise() {
            plan.socket.record = match self.random.below(3) {
                0 => Some(record(&mut self.random)),
                1 => plan.socket.record,
                _ => None,
            };
        }
        Some(plan)
    }

    /// Messages may be longer, or no longer so long: those that were begun are passed on.
    fn rescale(&mut self, i: usize) {
        let mut plan = self.rooms[i].plan.clone();
        let sizes: &[usize] = if plan.tagged {
            &[10, 16, 40, 100]
        } else {
            &[1, 7, 16, 100]
        };
        plan.socket.message_size = self.random.pick(sizes);
        let is_framed = matches!(
            plan.socket.framing,
            Framing::Lines | Framing::Nul | Framing::LengthPrefixed
        );
        let fits = self.quotas.is_none() || plan.longest() <= self.longest;
        let mut actors = self.actors.iter().filter(|actor| actor.room == i);
        let is_framed = is_framed && !plan.has_packets();
        if plan.is(ServiceKind::Collect) || !is_framed || !fits || actors.any(Actor::is_undecided) {
            return;
        }
        for actor in self
            .actors
            .iter_mut()
            .filter(|actor| actor.room == i && !actor.over)
        {
            actor.judge(&plan);
        }
        self.rooms[i].change_to(plan);
    }
}
