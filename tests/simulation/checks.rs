//! What must hold after every step, whenever the hub is at rest, and in the end.

use udsd::{
    config::ServiceKind,
    connection::{Connection, Watch},
};

use crate::{plan::Witness, room::Room, schedule::Schedule, world::READ_BUFFER};

impl Schedule {
    /// After every step: who got what, who was closed and why, and what is held.
    pub fn look(&mut self) {
        let now = self.now();
        for actor in self.actors.iter_mut().filter(|actor| !actor.over) {
            let before = actor.read;
            actor.note_progress(now);
            assert!(
                !actor.stopped || actor.read == before,
                "client {} was read after the stop, or the end of its socket",
                actor.number
            );
            actor.stopped = self.stopped || self.rooms[actor.room].dismissed;
            actor.was_read = actor.read != before;
        }
        for room in &mut self.rooms {
            room.look_at_record(&mut self.world);
            room.follow(&self.world, &mut self.actors, now);
        }
        for i in 0..self.actors.len() {
            let room = &self.rooms[self.actors[i].room];
            if self.actors[i].over || room.lags(&self.world) {
                continue;
            }
            let actor = &mut self.actors[i];
            let wire = std::rc::Rc::clone(&actor.client.wire);
            let said = &wire.borrow().said;
            if room.plan.socket.ack {
                actor.look_at_answers(&room.plan, said);
            } else if let Err(fault) = actor.receiver.look(&room.plan, said) {
                panic!("client {} {fault}", actor.number);
            }
        }
        for i in 0..self.actors.len() {
            if self.actors[i].over || self.room(i).lags(&self.world) {
                continue;
            }
            if self.actors[i].is_open() {
                self.check_bounds(i);
            } else {
                self.check_end(i);
                self.actors[i].over = true;
            }
        }
        for i in 0..self.actors.len() {
            if self.actors[i].is_open() {
                self.note_waiting(i);
            } else {
                self.actors[i].closed_at.get_or_insert(now);
            }
        }
        for room in &self.rooms {
            self.check_dropped(room);
        }
        self.check_quotas();
    }

    fn room(&self, i: usize) -> &Room {
        &self.rooms[self.actors[i].room]
    }

    /// No queue is longer than it may be, and nothing is read from who is held up.
    fn check_bounds(&mut self, i: usize) {
        let room = self.room(i);
        let actor = &self.actors[i];
        let owed = actor.receiver.surely_owed();
        let size = room.plan.socket.queue_size.max(actor.before);
        if room.is_relay() && room.waits() && !actor.is_cut_off() && !actor.gone {
            assert!(
                owed <= size,
                "{owed} bytes wait for client {}, queue-size is {size}",
                actor.number
            );
        }
        if room.plan.socket.ack {
            let stored = room.stored(&self.world, i);
            assert!(
                room.dismissed || actor.told <= stored,
                "client {} was told that {} messages are stored, and {stored} are",
                actor.number,
                actor.told
            );
        } else if room.plan.is(ServiceKind::Collect) {
            assert_eq!(
                actor.client.wire.borrow().written,
                0,
                "collect wrote to a client"
            );
        }
        let owed = actor.receiver.owed();
        assert!(owed <= size + READ_BUFFER, "{owed} bytes are held");
        if room.dismissed {
            return;
        }
        // What was read while messages waited would have no bound.
        if room.plan.witness != Witness::Nobody && actor.held == Some(actor.taken) {
            assert!(
                !actor.was_read,
                "client {} was read while its messages waited",
                actor.number
            );
        }
    }

    /// Notes who is kept waiting now, and who keeps others waiting.
    fn note_waiting(&mut self, i: usize) {
        let now = self.now();
        let lined_up = self.is_lined_up(i);
        let room = &self.rooms[self.actors[i].room];
        let lags = room.lags(&self.world);
        self.actors[i].held = None;
        if room.dismissed {
            let in_way = room.is_in_way(&self.actors, &self.actors[i], now);
            let actor = &mut self.actors[i];
            if in_way {
                actor.in_way_since.get_or_insert(now);
            }
            if std::mem::take(&mut actor.excused) {
                actor.active = now;
            }
            return;
        }
        if lags {
            // What was taken of it is not known now.
            return;
        }
        let in_way = room.is_in_way(&self.actors, &self.actors[i], now);
        let held_up = self.actors[i].taken < self.actors[i].whole();
        let is_echo = room.plan.is(ServiceKind::Echo);
        let awaits_ack = room.plan.socket.ack && room.stored(&self.world, i) < self.actors[i].taken;
        let actor = &mut self.actors[i];
        actor.held = held_up.then_some(actor.taken);
        // Of an echo its own queue may be in its way, which is no excuse.
        actor.awaits_ack = awaits_ack;
        let excused = lined_up || awaits_ack || (held_up && !is_echo);
        // Also in the step that ends its wait.
        if actor.excused || excused {
            actor.active = now;
        }
        actor.excused = excused;
        if in_way && actor.in_way_since.is_none() {
            actor.in_way_since = Some(now);
        }
    }

    /// It may wait for a record that is being written.
    fn is_lined_up(&self, i: usize) -> bool {
        let actor = &self.actors[i];
        let room = self.room(i);
        let waits = if room.plan.is(ServiceKind::Echo) {
            room.line.contains(&actor.client.key)
        } else {
            actor.taken < actor.whole()
        };
        actor.is_open() && room.unwritten > 0 && waits
    }

    /// It was closed in this step: for a reason that the rules have, and after it had its due.
    fn check_end(&self, i: usize) {
        let room = self.room(i);
        let now = self.actors[i].closed_at.unwrap_or(self.now());
        let (plan, socket) = (&room.plan, &room.plan.socket);
        let actor = &self.actors[i];
        let all_taken = plan.witness == Witness::Nobody || actor.taken == actor.whole();
        let owed = actor.receiver.owed();
        let served = actor.receiver.is_served();
        if actor.killed || actor.parted || actor.gone || self.abandoned {
            return;
        }
        // Who has no room under a quota is closed at once or after a time; when that was is not seen.
        if self.quotas.is_some() {
            return;
        }
        if (actor.is_cut_off() && all_taken) || (room.dismissed && served) {
            return;
        }
        let ended = actor.client.wire.borrow().ended;
        if ended && !room.is_relay() && all_taken && served {
            assert_eq!(
                actor.whole(),
                actor.messages.len(),
                "client {} was closed before all was read",
                actor.number
            );
            room.check_told(actor);
            return;
        }
        if self.stopped && all_taken && served {
            let waits = self.actors.iter().find(|other| {
                other.room == room.index && other.is_open() && other.taken < other.whole()
            });
            let last = !room.is_relay() || waits.is_none();
            assert!(
                last,
                "client {} was closed by the stop while messages of others were still to come",
                actor.number
            );
            room.check_told(actor);
            return;
        }
        if (room.waits() || room.dismissed)
            && let Some(since) = actor.in_way_since
            && since + socket.slow_timeout <= now
            && actor.written_within(socket.slow_timeout, now) < room.half
        {
            return;
        }
        // A gap may wait with what it is owed.
        if room.disconnects() && (owed > socket.queue_size || actor.receiver.is_unsure()) {
            return;
        }
        if let Some(timeout) = socket.idle_timeout
            && !actor.excused
            && actor.active + timeout <= now
        {
            return;
        }
        panic!(
            "client {} was closed without reason at {now:?}: active at {:?}, in the way since {:?}, {} of {} messages taken, {owed} bytes owed",
            actor.number,
            actor.active,
            actor.in_way_since,
            actor.taken,
            actor.messages.len()
        );
    }

    /// Somebody may wait until less is held; that is timed.
    fn may_starve(&self) -> bool {
        let hub = &self.world.hub;
        self.quotas.is_some() && hub.held() > 0 && hub.deadline().is_some()
    }

    /// When the hub rests, whatever is undone waits for something that will come.
    pub fn check_rest(&mut self) {
        self.tell_all();
        for room in &self.rooms {
            assert!(
                !room.lags(&self.world),
                "the witness did not see all that was taken"
            );
            if let Some(record) = &room.plan.socket.record {
                let waiting = room.unwritten;
                let all = self.rooms.iter();
                let sharing = all.filter(|of| {
                    of.index == room.index || of.plan.is_sharing() && room.plan.is_sharing()
                });
                // One longer line may wait alone.
                let longest = sharing.map(longest_line).max().unwrap_or(0);
                assert!(
                    waiting <= record.queue_size.max(longest),
                    "{waiting} bytes wait for a record of {}",
                    record.queue_size
                );
            }
        }
        let now = self.now();
        for i in 0..self.actors.len() {
            if self.actors[i].is_open() {
                self.rest(i);
            }
            let room = &self.rooms[self.actors[i].room];
            let in_way = room.is_in_way(&self.actors, &self.actors[i], now);
            let is_known = room.knows(&self.actors[i]);
            if in_way && is_known && room.unwritten == 0 {
                assert!(
                    self.world.hub.deadline().is_some(),
                    "client {} may be in the way for ever",
                    self.actors[i].number
                );
            }
            if !in_way {
                self.actors[i].in_way_since = None;
            }
        }
        self.check_held();
        for room in &self.rooms {
            self.check_dropped(room);
        }
    }

    fn rest(&mut self, i: usize) {
        let lined_up = self.is_lined_up(i);
        let room = &self.rooms[self.actors[i].room];
        let actor = &self.actors[i];
        let number = actor.number;
        assert_eq!(actor.client.wire.borrow().event(), Watch::default());
        let for_room = actor.awaits_room();
        if room.dismissed {
            // Its record may go on as that of another socket.
            let client = self.world.hub.client(actor.client.key);
            let awaits_record = client.is_some_and(Connection::awaits_ack)
                && self.rooms.iter().any(|room| room.unwritten > 0);
            assert!(
                for_room || awaits_record,
                "client {number} of a socket that is gone is owed nothing more, and still here"
            );
            return;
        }
        let is_relay = room.is_relay();
        let held_up = match room.plan.witness {
            Witness::Nobody => for_room,
            _ => actor.taken < actor.whole(),
        };
        let excused = lined_up
            || self.may_starve()
            || (!is_relay && for_room)
            || (is_relay && self.somebody_is_in_way(room))
            || (is_relay && self.somebody_is_lined_up(room));
        assert!(
            !held_up || excused,
            "{} messages of client {number} wait and nothing brings them back",
            actor.whole() - actor.taken
        );
        assert!(
            !actor.is_unread()
                || held_up
                || self.may_starve()
                || lined_up
                || self.stopped
                || (actor.is_cut_off() && for_room),
            "client {number} is unread and nothing brings it back"
        );
        assert!(
            !actor.gone || held_up || lined_up || self.may_starve(),
            "client {number} is gone and still here"
        );
        if actor.is_cut_off() {
            assert!(
                for_room || held_up || self.stopped || self.may_starve(),
                "client {number} should be closed"
            );
            return;
        }
        if actor.gone {
            return;
        }
        if self.stopped && !self.may_starve() && (!is_relay || !self.somebody_is_held_up(room)) {
            let awaits_record = room.plan.socket.ack && room.unwritten > 0;
            assert!(
                for_room || held_up || awaits_record,
                "client {number} was forgotten by the stop"
            );
        }
        if !for_room && !lined_up && !held_up {
            let ack_due = actor.receiver.to_be_told();
            assert!(
                ack_due == 0,
                "client {number} has room and was not told of {ack_due} messages"
            );
            self.actors[i].receiver.what_waits_is_dropped();
        }
        let actor = &self.actors[i];
        let owed = actor.receiver.surely_owed();
        assert!(
            owed == 0 || for_room || lined_up,
            "client {number} is owed {owed} bytes and nothing brings it back"
        );
        let room = &self.rooms[actor.room];
        if room.disconnects() && is_relay {
            assert!(
                owed <= room.plan.socket.queue_size.max(actor.before),
                "client {number} has no room and was not closed"
            );
        }
    }

    /// Somebody whose queue has no room for the next message will have it, and wakes the others.
    fn somebody_is_in_way(&self, room: &Room) -> bool {
        self.actors.iter().any(|actor| {
            actor.room == room.index
                && actor.awaits_room()
                && room.is_in_way(&self.actors, actor, self.now())
        })
    }

    fn somebody_is_lined_up(&self, room: &Room) -> bool {
        (0..self.actors.len()).any(|i| self.actors[i].room == room.index && self.is_lined_up(i))
    }

    fn somebody_is_held_up(&self, room: &Room) -> bool {
        self.actors
            .iter()
            .any(|actor| actor.room == room.index && actor.is_open() && actor.taken < actor.whole())
    }

    /// After a pause: nobody is left who was silent for too long.
    pub fn check_silence(&self) {
        // Who is silent may be taken for one that waits for a quota.
        if self.stopped || self.quotas.is_some() {
            return;
        }
        for (i, actor) in self.actors.iter().enumerate() {
            let room = self.room(i);
            let Some(timeout) = room.plan.socket.idle_timeout else {
                continue;
            };
            if room.dismissed {
                continue;
            }
            assert!(
                !actor.is_open()
                    || actor.excused
                    || actor.active.max(room.idle_since) + timeout > self.now()
                    || actor.is_unread()
                    || actor.receiver.owed() > 0,
                "client {} was silent since {:?} and is still here",
                actor.number,
                actor.active
            );
        }
    }
}

/// The longest line that a message of this socket can make in its record.
fn longest_line(room: &Room) -> usize {
    6 * room.plan.socket.message_size + 512
}
