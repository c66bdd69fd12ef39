//! One socket of a schedule: the common order of its messages as its witness tells it, and what
//! follows from it for each client.

use std::{collections::VecDeque, time::Duration};

use udsd::{
    config::{ServiceKind, SlowClient},
    record::Format,
};

use crate::{
    actor::Actor,
    plan::{Plan, Witness, number_after},
    world::World,
};

pub struct Room {
    pub plan: Plan,
    /// Its place among the rooms.
    pub index: usize,
    /// The socket's number in the hub.
    pub place: usize,
    /// The file no longer has the socket, or not so: its clients get what they are owed and are closed.
    pub dismissed: bool,
    /// Messages dropped on the one before.
    pub dropped_before: usize,
    /// The largest `queue-size` that it had before, bytes.
    pub before: usize,
    /// The longest message that it passed on under an earlier file, bytes.
    longest_before: usize,
    /// Its counters have also what happened on the one before.
    pub came_after: bool,
    /// What the socket's counter said when this began.
    base: usize,
    /// The number of the last message that had one.
    pub numbered: usize,
    /// How much its clients have to read in `slow-timeout`, bytes.
    pub half: usize,
    /// Since when its `idle-timeout` holds.
    pub idle_since: Duration,
    /// Clients that came.
    pub entered: usize,
    /// Messages in the common order so far.
    position: usize,
    /// How many messages had been taken by which time; the last step's is not yet in it.
    times: Vec<(usize, Duration)>,
    /// Bytes that wait to be written to its record.
    pub unwritten: usize,
    /// Clients that wait for room in that, by their keys.
    pub line: Vec<usize>,
    /// Bytes of the listener's stream that were looked at.
    seen: usize,
    /// Which record it has or had last.
    pub record: usize,
    /// Bytes of that that were looked at.
    recorded: usize,
    /// The rooms that have the same, with this one.
    pub sharers: Vec<usize>,
    /// The number of its next line is not known, but that it is higher than `numbered`.
    pub is_renumbered: bool,
    /// Where the lines of messages end there, and the places of their senders among the actors.
    ends: Vec<(usize, usize)>,
    /// What the record is to have behind them, where its messages are known from elsewhere.
    lines: Vec<u8>,
    /// The last messages that were passed on, which who comes gets first.
    history: VecDeque<Vec<u8>>,
    /// Its `slow-client` has been "drop".
    pub ever_dropped: bool,
}

impl Room {
    /// What its record has was there before.
    pub fn new(plan: Plan, index: usize, place: usize, world: &World) -> Self {
        let (record, before) = world.record(place);
        Room {
            is_renumbered: plan.is_sharing(),
            sharers: vec![index],
            record,
            recorded: before.len(),
            half: plan.socket.queue_size / 2,
            ever_dropped: plan.drops(),
            idle_since: Duration::ZERO,
            plan,
            index,
            place,
            dismissed: false,
            came_after: false,
            before: 0,
            longest_before: 0,
            dropped_before: 0,
            base: 0,
            numbered: 0,
            entered: 0,
            position: 0,
            times: Vec::new(),
            unwritten: 0,
            line: Vec::new(),
            seen: 0,
            ends: Vec::new(),
            lines: Vec::new(),
            history: VecDeque::new(),
        }
    }

    /// It is in place of another one of the same name, whose last message had this number.
    pub fn follows(mut self, numbered: usize, world: &World) -> Self {
        self.came_after = true;
        self.dropped_before = world.hub.sockets()[self.place].counters().dropped() as usize;
        self.base = self.taken(world);
        self.numbered = numbered;
        self
    }

    /// The number of its next message is not known.
    pub fn renumber(&mut self) {
        (self.is_renumbered, self.numbered) = (true, 0);
    }

    /// Whether the number of its next message is not known, nor will be that of a stamp.
    pub fn is_unnumbered(&self) -> bool {
        self.is_renumbered || self.plan.is_sharing()
    }

    pub fn is_numbered(&self) -> bool {
        self.plan.socket.record.is_some() || self.plan.socket.stamp
    }

    /// As `follow`, when the socket is no more, after `taken` messages: its counters are another's now.
    pub fn follow_to_the_end(&mut self, taken: usize, actors: &mut [Actor], now: Duration) {
        if self.plan.witness == Witness::Listener {
            self.listen(actors, now);
        }
        assert!(
            !self.is_relay() || self.position == taken,
            "{taken} messages were taken and {} given out when the socket went",
            self.position
        );
    }

    /// Takes in what the listener got.
    fn listen(&mut self, actors: &mut [Actor], now: Duration) {
        let listener = actors
            .iter()
            .find(|actor| actor.room == self.index && actor.witness)
            .unwrap();
        let wire = std::rc::Rc::clone(&listener.client.wire);
        let said = &wire.borrow().said;
        while let Some(length) = self.plan.first(&said[self.seen..]) {
            let message = &said[self.seen..self.seen + length];
            self.seen += length;
            self.follow_listener(message, actors, now);
        }
    }

    /// Its messages go to another record from now on. All that was in the one before is stored, of who is still here.
    pub fn begin_record(&mut self, world: &World) {
        let (record, before) = world.record(self.place);
        (self.record, self.recorded) = (record, before.len());
        self.renumber();
        self.ends.iter_mut().for_each(|(end, _)| *end = 0);
    }

    /// Its clients are served no more.
    pub fn dismiss(&mut self) {
        self.dismissed = true;
        self.unwritten = 0;
        self.line.clear();
    }

    pub fn is_relay(&self) -> bool {
        self.plan.is(ServiceKind::Relay)
    }

    pub fn waits(&self) -> bool {
        self.plan.socket.slow_client == SlowClient::Wait && !self.plan.is(ServiceKind::Collect)
    }

    pub fn drops(&self) -> bool {
        self.plan.drops()
    }

    pub fn disconnects(&self) -> bool {
        self.plan.socket.slow_client == SlowClient::Disconnect
            && !self.plan.is(ServiceKind::Collect)
    }

    /// Messages that the hub says it has taken; bytes under `none`.
    pub fn taken(&self, world: &World) -> usize {
        let counters = world.hub.sockets()[self.place].counters();
        let taken = if self.plan.bytewise() {
            counters.bytes
        } else {
            counters.messages
        };
        taken as usize - self.base
    }

    /// Notes who waits for the record.
    pub fn look_at_record(&mut self, world: &mut World) {
        if self.dismissed {
            return;
        }
        if let Some(record) = world.hub.record(self.place) {
            self.unwritten = record.unwritten();
        }
        self.line.clear();
        self.line
            .extend(world.hub.sockets()[self.place].wait_queue().waiting());
    }

    /// What the witness has not told yet, though it was taken.
    pub fn lags(&self, world: &World) -> bool {
        !self.dismissed && self.is_relay() && self.position < self.taken(world)
    }

    /// When message number `position` of the common order was taken, or would be now.
    fn time_of(&self, position: usize, now: Duration) -> Duration {
        let known = self.times.iter().find(|(taken, _)| *taken > position);
        known.map_or(now, |(_, at)| *at)
    }

    /// Takes in what was taken since the last time. `actors`: all of the schedule.
    pub fn follow(&mut self, world: &World, actors: &mut [Actor], now: Duration) {
        if self.dismissed {
            return;
        }
        let taken = self.taken(world);
        if self.times.last().map_or(0, |last| last.0) < taken {
            self.times.push((taken, now));
        }
        self.times.drain(
            ..self
                .times
                .partition_point(|(taken, _)| *taken <= self.position),
        );
        match self.plan.witness {
            Witness::Record => {
                let (_, record) = world.record(self.place);
                while let Some(length) = record[self.recorded..].iter().position(|&b| b == b'\n') {
                    let line = &record[self.recorded..self.recorded + length];
                    self.recorded += length + 1;
                    self.follow_record(line, actors, now);
                }
            }
            Witness::Listener => self.listen(actors, now),
            Witness::Talker => {
                for _ in self.position..self.taken(world) {
                    let talker = actors.iter().position(|actor| {
                        actor.room == self.index && actor.taken < actor.whole() && !actor.over
                    });
                    let talker = talker.expect("more was taken than was sent");
                    self.take(talker, actors, now);
                }
            }
            Witness::Nobody => {
                for actor in actors.iter_mut().filter(|actor| actor.room == self.index) {
                    while actor.echoed < actor.whole() {
                        let message = &actor.messages[actor.echoed];
                        actor.receiver.push(&self.plan, message);
                        actor.echoed += 1;
                    }
                }
                self.compare_record(world);
                return;
            }
        }
        self.compare_record(world);
        let (known, counted) = (self.position, self.taken(world));
        // A record beside echo has also what found no room on its way back.
        assert!(
            self.plan.is(ServiceKind::Echo) || known <= counted,
            "{known} messages came, {counted} are counted"
        );
    }

    /// Its record has what was taken while there was one, and nothing else.
    fn compare_record(&mut self, world: &World) {
        if self.plan.witness == Witness::Record {
            return;
        }
        let new = &world.record(self.place).1[self.recorded..];
        let length = new.len().min(self.lines.len());
        assert!(
            new[..length] == self.lines[..length]
                && (self.lags(world) || new.len() == self.lines.len()),
            "the record has {:?} where {:?} is next",
            new.escape_ascii().to_string(),
            self.lines.escape_ascii().to_string()
        );
        self.recorded += length;
        self.lines.drain(..length);
    }

    fn follow_record(&mut self, line: &[u8], actors: &mut [Actor], now: Duration) {
        let format = self.plan.socket.record.as_ref().unwrap().format;
        let number = match format {
            Format::Json => number_after(str::from_utf8(line).unwrap(), "\"client\":"),
            _ => tag(line),
        };
        if format == Format::Json && std::mem::take(&mut self.is_renumbered) {
            let seq = number_after(str::from_utf8(line).unwrap(), "\"seq\":");
            assert!(seq > self.numbered, "{seq} behind {}", self.numbered);
            self.numbered = seq - 1;
        }
        let from = find(actors, &self.sharers, number);
        if actors[from].room != self.index {
            // Its own room looks at it.
            self.numbered += 1;
            return;
        }
        let expected = self.line_of(format, &actors[from], now);
        assert!(
            line == expected,
            "the record has {:?} where {:?} is next of client {number}",
            line.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        self.ends.push((self.recorded, from));
        self.take(from, actors, now);
    }

    fn follow_listener(&mut self, message: &[u8], actors: &mut [Actor], now: Duration) {
        let from = if self.plan.bytewise() {
            let nth = usize::from(message[0] >> 4);
            let from = actors
                .iter()
                .position(|actor| actor.room == self.index && actor.nth == nth);
            from.expect("a byte of nobody")
        } else {
            let body = self.plan.body_of(message);
            let number = if self.plan.socket.stamp {
                number_after(str::from_utf8(body).unwrap(), "\"client\":")
            } else {
                tag(body)
            };
            find(actors, &[self.index], number)
        };
        let expected = self.passed_on(&actors[from], now);
        assert!(
            message == expected,
            "the listener got {:?} where {:?} is next of client {}",
            message.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            actors[from].number
        );
        self.take(from, actors, now);
    }

    /// The next message of `from`, as the record has it.
    fn line_of(&self, format: Format, from: &Actor, at: Duration) -> Vec<u8> {
        let body = self.next_body(from);
        match format {
            Format::Json => self.json(from, at, body),
            _ => body.to_vec(),
        }
    }

    fn json(&self, from: &Actor, at: Duration, body: &[u8]) -> Vec<u8> {
        let json = self
            .plan
            .json(self.numbered + 1, from.number, from.uid, at, body);
        json.into_bytes()
    }

    fn next_body<'a>(&self, from: &'a Actor) -> &'a [u8] {
        match from.messages.get(from.taken) {
            Some(message) => self.plan.body_of(message),
            None => panic!("client {} did not send so much", from.number),
        }
    }

    /// The next message of `from`, as others would get it now.
    pub fn passed_on(&self, from: &Actor, now: Duration) -> Vec<u8> {
        let body = self.next_body(from);
        if self.plan.socket.stamp {
            let at = self.time_of(self.position, now);
            self.plan.framed(self.json(from, at, body))
        } else {
            from.messages[from.taken].clone()
        }
    }

    /// The next message of client `from` is the next of the common order.
    fn take(&mut self, from: usize, actors: &mut [Actor], now: Duration) {
        let (index, position) = (self.index, self.position);
        let passed = self.passed_on(&actors[from], now);
        if let Some(record) = &self.plan.socket.record
            && self.plan.witness != Witness::Record
        {
            let at = self.time_of(position, now);
            let mut line = self.line_of(record.format, &actors[from], at);
            self.lines.append(&mut line);
            self.lines.push(b'\n');
        }
        self.position += 1;
        if self.is_relay() {
            self.history.push_back(passed.clone());
            self.cut_history();
        }
        self.numbered += usize::from(self.is_numbered());
        let sender = &mut actors[from];
        sender.taken += 1;
        assert!(
            sender.taken <= sender.whole(),
            "a message of client {} was taken before it was read",
            sender.number
        );
        match self.plan.socket.service {
            ServiceKind::Relay => {
                let others = actors.iter_mut().enumerate().filter(|(i, actor)| {
                    *i != from && actor.room == index && !actor.over && actor.joined <= position
                });
                for (_, other) in others {
                    other.receiver.push(&self.plan, &passed);
                }
            }
            ServiceKind::Echo => sender.receiver.push(&self.plan, &passed),
            ServiceKind::Collect | ServiceKind::Control => {}
        }
        self.greet(actors);
    }

    /// Who came when this was the last message that had been taken gets the history.
    pub fn greet(&self, actors: &mut [Actor]) {
        let came = |actor: &&mut Actor| {
            actor.room == self.index && !actor.is_greeted && actor.joined == self.position
        };
        for actor in actors.iter_mut().filter(came) {
            actor.is_greeted = true;
            for message in &self.history {
                actor.receiver.push_given(&self.plan, message);
            }
        }
    }

    fn cut_history(&mut self) {
        let socket = &self.plan.socket;
        let size = |all: &VecDeque<Vec<u8>>| all.iter().map(Vec::len).sum::<usize>();
        while self.history.len() > socket.history || size(&self.history) > socket.history_size {
            self.history.pop_front();
        }
    }

    /// Whether what `actor` is owed shows that something waits behind it: not of an echo without a
    /// record that had more room before, nor while it may be owed what was dropped.
    pub fn knows(&self, actor: &Actor) -> bool {
        let is_sure = self.plan.witness != Witness::Nobody || actor.before == 0;
        self.dismissed || (is_sure && !actor.receiver.is_unsure())
    }

    /// As much of what was passed on is kept as its plan says.
    pub fn resize_history(&mut self, history: usize) {
        let socket = &mut self.plan.socket;
        (socket.history, socket.history_size) = (history, socket.queue_size / 2);
        self.cut_history();
    }

    /// Messages of an actor whose lines are written to the record.
    pub fn stored(&self, world: &World, actor: usize) -> usize {
        let written = world.record(self.place).1.len() - self.unwritten;
        let of_it = |&&(end, from): &&(usize, usize)| from == actor && end <= written;
        self.ends.iter().filter(of_it).count()
    }

    /// Nobody who reads is closed as done before it was told all.
    pub fn check_told(&self, actor: &Actor) {
        let is_unread = actor.client.wire.borrow().full;
        assert!(
            !self.plan.socket.ack || self.dismissed || is_unread || actor.told == actor.taken,
            "client {} was told that {} of {} messages are stored",
            actor.number,
            actor.told,
            actor.taken
        );
    }

    /// It is served by other rules from now on.
    pub fn change_to(&mut self, plan: Plan) {
        self.longest_before = self.longest_before.max(self.plan.longest());
        if self.plan.socket.stamp != plan.socket.stamp {
            self.history.clear();
        }
        self.plan = plan;
    }

    /// Whether there is no room for what waits to be passed on to this client.
    pub fn is_in_way(&self, actors: &[Actor], receiver: &Actor, now: Duration) -> bool {
        if !receiver.is_open() {
            return false;
        }
        if self.dismissed {
            return receiver.receiver.owed() > 0;
        }
        if !self.waits() {
            return false;
        }
        if receiver.receiver.is_unsure() {
            return receiver.awaits_room();
        }
        let (owed, size) = (receiver.receiver.owed(), self.plan.socket.queue_size);
        if !self.is_relay() {
            if self.line.contains(&receiver.client.key) {
                return false;
            }
            let held = match receiver.messages.get(receiver.taken) {
                Some(next) if receiver.taken < receiver.whole() => next.len(),
                _ => 0,
            };
            return match self.plan.witness {
                Witness::Nobody => owed > size,
                _ => held > 0 && owed + held > size,
            };
        }
        if receiver.gone {
            return false;
        }
        // Who was in the way may stay so until half of its queue is read, and there is room for any
        // message, also one that was begun under a larger message-size and was taken since: or else each small
        // step of a slow client would wake all the others.
        let senders = actors.iter().filter(|sender| {
            sender.room == self.index && sender.is_open() && sender.taken < sender.whole()
        });
        let lengths: Vec<(usize, usize)> = senders
            .map(|sender| (sender.number, self.passed_on(sender, now).len()))
            .collect();
        let longest = lengths.iter().map(|(_, length)| *length).max();
        let longest = longest
            .unwrap_or(0)
            .max(self.plan.longest())
            .max(self.longest_before);
        let still = owed > size / 2 || owed + longest > size;
        lengths
            .iter()
            .any(|(sender, length)| *sender != receiver.number && (still || owed + length > size))
    }
}

/// The number of the client that a message begins with.
fn tag(body: &[u8]) -> usize {
    let digits = body.split(|&byte| byte == b'.').next().unwrap();
    match str::from_utf8(digits).map(str::parse) {
        Ok(Ok(number)) => number,
        _ => panic!("{:?} was sent by nobody", body.escape_ascii().to_string()),
    }
}

fn find(actors: &[Actor], rooms: &[usize], number: usize) -> usize {
    let found = actors
        .iter()
        .position(|actor| rooms.contains(&actor.room) && actor.number == number);
    found.unwrap_or_else(|| panic!("sockets {rooms:?} have no client {number}"))
}
