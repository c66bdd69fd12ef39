//! Datagram sockets under random schedules: what was received is recorded and sent back in its order, none
//! twice and none missing, whoever is full, whatever is put into force, whichever process goes on.
//!
//! The kernel's side tells what was received, the records what was taken; what each sender must get
//! follows from the two.

use std::{cell::RefCell, collections::VecDeque, mem, rc::Rc, time::Duration};

use udsd::{
    config::{self, Record, ServiceKind, SocketType},
    datagram::Datagrams,
    limits::Limits,
    record::{Format, OnFull},
};

use crate::{
    datagram_socket::{DatagramSocket, Queue, SENDERS, Sender, Senders},
    schedule::base,
    world::{Random, World},
};

const HOUR: Duration = Duration::from_secs(3600);

/// One socket of the file.
struct Room {
    socket: config::Socket,
    /// Of the hub.
    place: usize,
    queue: Rc<RefCell<Queue>>,
    /// Received, and not yet taken by the record.
    held: VecDeque<(usize, Vec<u8>)>,
    /// The lengths of those that were dropped for the record, which has not told of it yet.
    ack_due: Vec<usize>,
    /// What the counter of those is to say.
    dropped: usize,
    /// What each sender is to get from here, in this order.
    due: Vec<VecDeque<Vec<u8>>>,
    /// Bytes of the record that were looked at.
    seen: usize,
    /// What the counters are to say.
    taken: usize,
    untaken: usize,
}

pub struct Schedule {
    world: World,
    random: Random,
    senders: Senders,
    rooms: Vec<Room>,
    /// What senders are to get from sockets that are gone, or elsewhere now.
    gone: Vec<Vec<VecDeque<Vec<u8>>>>,
    names: usize,
}

fn limits() -> Limits {
    Limits::new(1000, 1000)
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = random.pick(&[1, 1, 2, 3]);
        let sockets: Vec<_> = (0..count).map(|n| rules(&mut random, n)).collect();
        let senders = (0..SENDERS).map(|_| Sender::default()).collect();
        let mut schedule = Schedule {
            world: World::of(&sockets, limits()),
            random,
            senders: Rc::new(RefCell::new(senders)),
            rooms: Vec::new(),
            gone: Vec::new(),
            names: count,
        };
        for (place, socket) in sockets.into_iter().enumerate() {
            let queue = schedule.queue();
            let datagram_socket = schedule.datagram_socket(&queue);
            schedule.world.hub.open(place, datagram_socket);
            schedule.add(socket, place, queue);
        }
        schedule
    }

    fn queue(&mut self) -> Rc<RefCell<Queue>> {
        Rc::new(RefCell::new(Queue {
            most: self.random.pick(&[1, 3, 64]),
            ..Queue::default()
        }))
    }

    fn datagram_socket(&self, queue: &Rc<RefCell<Queue>>) -> Box<dyn Datagrams> {
        Box::new(DatagramSocket {
            queue: Rc::clone(queue),
            senders: Rc::clone(&self.senders),
        })
    }

    fn add(&mut self, socket: config::Socket, place: usize, queue: Rc<RefCell<Queue>>) {
        self.rooms.push(Room {
            socket,
            place,
            queue,
            held: VecDeque::new(),
            ack_due: Vec::new(),
            dropped: 0,
            due: vec![VecDeque::new(); SENDERS],
            seen: self.world.records[place].len(),
            taken: 0,
            untaken: 0,
        });
    }

    pub fn run(&mut self) {
        for _ in 0..20 + self.random.below(100) {
            self.step();
            self.look();
        }
        self.end();
    }

    fn step(&mut self) {
        let room = self.random.below(self.rooms.len() as u64) as usize;
        let sender = self.random.below(SENDERS as u64) as usize;
        match self.random.below(100) {
            0..35 => self.send(sender, room),
            35..45 => {
                let more = self.random.below(6) as usize;
                self.senders.borrow_mut()[sender].room += more;
            }
            45..60 => self.event(room),
            60..70 => self.write(room),
            70..78 => self.world.turn(),
            78..86 => {
                let span = self.random.pick(&[1, 20, 200, 2000]);
                self.world.pass(Duration::from_millis(span));
            }
            86..90 => self.restart(),
            90..93 => self.resize(room),
            93..95 => self.change(room),
            95..97 => self.move_to_another_place(room),
            97 if self.rooms.len() > 1 => self.remove(room),
            98 if self.rooms.len() < 4 => self.come(),
            _ => {
                self.settle();
                self.check_rest();
            }
        }
    }

    fn send(&mut self, sender: usize, room: usize) {
        for _ in 0..1 + self.random.below(5) {
            let mut senders = self.senders.borrow_mut();
            let n = senders[sender].sent;
            senders[sender].sent += 1;
            let pad = ".".repeat(self.random.below(40) as usize);
            let bytes = format!("{sender}.{n}{pad}").into_bytes();
            self.rooms[room]
                .queue
                .borrow_mut()
                .sent
                .push_back((sender, bytes));
        }
    }

    fn event(&mut self, room: usize) {
        let place = self.rooms[room].place;
        assert!(
            self.rooms[room].held.is_empty() || !self.world.hub.receives(place),
            "more is received while some is held"
        );
        if self.world.hub.receives(place) && !self.rooms[room].queue.borrow().sent.is_empty() {
            self.world.hub.datagram_event(place);
        }
        self.world.turn();
    }

    fn write(&mut self, room: usize) {
        let place = self.rooms[room].place;
        let waiting = self.world.hub.record(place).map(|of| of.unwritten());
        if let Some(waiting) = waiting {
            let written = self.random.below(waiting as u64 + 1) as usize;
            self.world.write(place, written);
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            for room in 0..self.rooms.len() {
                self.event(room);
                self.look();
            }
            let mut rooms = self.rooms.iter();
            let any = rooms.any(|room| {
                self.world.hub.receives(room.place) && !room.queue.borrow().sent.is_empty()
            });
            if !any && !self.world.hub.has_ready() {
                return;
            }
        }
        panic!("the hub does not come to rest");
    }

    /// What was received is held; what was recorded is taken, and due to its sender.
    fn look(&mut self) {
        for room in &mut self.rooms {
            room.look(&self.world);
        }
        let mut senders = self.senders.borrow_mut();
        for (n, sender) in senders.iter_mut().enumerate() {
            while let Some(got) = sender.got.pop_front() {
                let rooms = self.rooms.iter_mut().map(|room| &mut room.due);
                let mut all = rooms.chain(&mut self.gone).map(|due| &mut due[n]);
                let from = all.find(|due| due.front() == Some(&got));
                let text = got.escape_ascii();
                from.unwrap_or_else(|| panic!("{n} got {text} out of turn"))
                    .pop_front();
            }
        }
    }

    /// Whatever is undone waits for a record, a receiver or the clock.
    fn check_rest(&mut self) {
        for room in &self.rooms {
            let waits = self
                .world
                .hub
                .record(room.place)
                .is_some_and(|record| record.unwritten() > 0);
            assert!(
                waits || room.held.is_empty(),
                "{} are held for nothing",
                room.held.len()
            );
            assert!(
                waits || room.queue.borrow().sent.is_empty(),
                "datagrams are not received"
            );
        }
        let is_owed = |due: &Vec<VecDeque<Vec<u8>>>| due.iter().any(|due| !due.is_empty());
        let mut all = self.rooms.iter().map(|room| &room.due).chain(&self.gone);
        assert!(
            !all.any(is_owed) || self.world.hub.deadline().is_some(),
            "replies are owed and nothing brings them"
        );
    }

    fn restart(&mut self) {
        let in_bytes = self.random.one_in(4);
        self.world
            .restart(limits(), in_bytes, Some(&mut self.random));
        // What is owed from there only the process before could send.
        self.gone.clear();
        for n in 0..self.rooms.len() {
            let place = self.world.hub.key(&self.rooms[n].socket.name).unwrap();
            let datagram_socket = self.datagram_socket(&self.rooms[n].queue);
            self.rooms[n].place = place;
            self.world.hub.open(place, datagram_socket);
        }
    }

    /// Puts the sockets of all rooms and `new` into force, in any order; the one of the name `opened`
    /// has another queue.
    fn apply(&mut self, new: Option<&config::Socket>, opened: Option<(&str, &Rc<RefCell<Queue>>)>) {
        let sockets = self.rooms.iter().map(|room| &room.socket).chain(new);
        let mut sockets: Vec<_> = sockets.cloned().collect();
        for last in (1..sockets.len()).rev() {
            sockets.swap(last, self.random.below(last as u64 + 1) as usize);
        }
        let mut changes = self.world.changes(&sockets, None);
        for (socket, change) in sockets.iter().zip(&mut changes) {
            if let Some((name, queue)) = opened
                && socket.name == name
            {
                change.datagram_socket = Some(self.datagram_socket(queue));
            }
        }
        self.world.apply(sockets, changes, &limits());
    }

    /// More or less may wait for the record, which may have another format; beside echo it may come or go.
    fn resize(&mut self, room: usize) {
        self.look();
        let has_dropped = !self.rooms[room].ack_due.is_empty();
        let socket = &mut self.rooms[room].socket;
        match (&mut socket.record, socket.service) {
            (record, ServiceKind::Echo) if self.random.one_in(2) => {
                *record = record.is_none().then(|| self::record(&mut self.random));
            }
            (Some(record), service) => {
                *record = self::record(&mut self.random);
                may_drop(record, service, &mut self.random);
                if has_dropped {
                    // The gap is still to be told.
                    record.format = Format::Json;
                }
            }
            (None, _) => {}
        }
        self.apply(None, None);
    }

    /// Another service: what is held is given up.
    fn change(&mut self, room: usize) {
        self.look();
        let name = self.rooms[room].socket.name.clone();
        let before = self.rooms[room].socket.service;
        loop {
            let socket = rules(&mut self.random, 0);
            if socket.service != before {
                self.rooms[room].socket = config::Socket { name, ..socket };
                break;
            }
        }
        let room = &mut self.rooms[room];
        room.untaken += mem::take(&mut room.held).len();
        match &mut room.socket.record {
            Some(record) if !room.ack_due.is_empty() => record.format = Format::Json,
            Some(_) => {}
            None => {}
        }
        self.apply(None, None);
    }

    /// What is held, and what waits in the kernel, goes along.
    fn move_to_another_place(&mut self, room: usize) {
        self.look();
        let queue = self.queue();
        let waiting = self.rooms[room].queue.borrow().sent.len();
        let name = self.rooms[room].socket.name.clone();
        self.apply(None, Some((&name, &queue)));
        let moved = &mut self.rooms[room];
        moved.place = self.world.hub.key(&name).unwrap();
        let received = moved.queue.borrow().received.len();
        assert_eq!(received, waiting, "datagrams were left behind");
        // What was taken is sent back from the old place.
        moved.look(&self.world);
        moved.queue = queue;
        let due = mem::replace(&mut moved.due, vec![VecDeque::new(); SENDERS]);
        self.gone.push(due);
    }

    fn remove(&mut self, room: usize) {
        self.look();
        let room = self.rooms.remove(room);
        self.gone.push(room.due);
        self.apply(None, None);
    }

    fn come(&mut self) {
        let socket = rules(&mut self.random, self.names);
        self.names += 1;
        let queue = self.queue();
        self.apply(Some(&socket), Some((&socket.name, &queue)));
        let place = self.world.hub.key(&socket.name).unwrap();
        self.add(socket, place, queue);
    }

    /// Everybody reads, all is written, time passes: then nothing is left.
    fn end(&mut self) {
        for sender in self.senders.borrow_mut().iter_mut() {
            sender.room = usize::MAX;
        }
        for _ in 0..10_000 {
            self.settle();
            let mut moved = 0;
            for room in 0..self.rooms.len() {
                let place = self.rooms[room].place;
                if self.world.hub.record(place).is_some() {
                    moved += self.world.written(place);
                }
            }
            if let Some(due) = self.world.hub.deadline() {
                let span = due.saturating_duration_since(self.world.now().instant);
                self.world.pass(span);
                // What was held may be taken in a turn that its timer brings.
                self.look();
                moved += 1;
            }
            if moved == 0 {
                break;
            }
        }
        self.settle();
        self.check_rest();
        let all = self.rooms.iter().map(|room| &room.due).chain(&self.gone);
        for due in all.flatten() {
            assert!(due.is_empty(), "{} replies never came", due.len());
        }
        for room in &self.rooms {
            let counters = self.world.hub.sockets()[room.place].counters();
            assert_eq!(
                counters.messages as usize, room.taken,
                "messages of {}",
                room.socket.name
            );
            assert_eq!(
                counters.untaken as usize, room.untaken,
                "untaken of {}",
                room.socket.name
            );
            assert_eq!(counters.dropped(), 0);
            assert_eq!(counters.unrecorded as usize, room.dropped);
            assert!(room.ack_due.is_empty(), "a gap is never told");
        }
        assert_eq!(self.world.hub.undelivered(), 0);
        assert_eq!(self.world.hub.held(), 0, "bytes are held for nobody");
    }
}

impl Room {
    fn look(&mut self, world: &World) {
        self.held.append(&mut self.queue.borrow_mut().received);
        let Some(format) = self.socket.record.as_ref().map(|record| record.format) else {
            // Nobody is left to tell of them.
            self.ack_due.clear();
            let recorded = world.records[self.place].len();
            assert_eq!(recorded, self.seen, "lines of a record that is not there");
            // After a record has gone, what waited for it is taken in the next turn.
            let taken = world.hub.sockets()[self.place].counters().messages as usize;
            while self.taken < taken {
                let (from, bytes) = self.held.pop_front().expect("nobody's was taken");
                self.take(from, bytes);
            }
            return;
        };
        let text = &world.records[self.place];
        while let Some(length) = text[self.seen..].iter().position(|&byte| byte == b'\n') {
            let line = &text[self.seen..self.seen + length];
            self.seen += length + 1;
            if let Some((count, bytes)) = gap_of(line) {
                while self.ack_due.len() < count {
                    self.drop_first();
                }
                assert_eq!(
                    (self.ack_due.len(), self.ack_due.iter().sum()),
                    (count, bytes)
                );
                self.ack_due.clear();
                continue;
            }
            assert!(self.ack_due.is_empty(), "a gap is not told in its place");
            let (from, bytes) = self.held.pop_front().expect("a line of nobody's");
            let end = format!("\"message\":\"{}\"}}", bytes.escape_ascii());
            let is_it = match format {
                Format::Raw => line == bytes,
                _ => line.ends_with(end.as_bytes()),
            };
            assert!(
                is_it,
                "{} in place of {}",
                line.escape_ascii(),
                bytes.escape_ascii()
            );
            self.take(from, bytes);
        }
        let recorder = world.hub.sockets()[self.place].recorder();
        while self.ack_due.len() < recorder.unwrap().gap().count as usize {
            self.drop_first();
        }
    }

    /// The first that is held was dropped for the record.
    fn drop_first(&mut self) {
        let (from, bytes) = self.held.pop_front().expect("nobody's was dropped");
        self.ack_due.push(bytes.len());
        self.dropped += 1;
        self.take(from, bytes);
    }

    fn take(&mut self, from: usize, bytes: Vec<u8>) {
        self.taken += 1;
        if self.socket.service == ServiceKind::Echo {
            self.due[from].push_back(bytes);
        }
    }
}

fn rules(random: &mut Random, number: usize) -> config::Socket {
    let service = random.pick(&[ServiceKind::Echo, ServiceKind::Collect]);
    let has_record = service == ServiceKind::Collect || random.one_in(2);
    let mut record = has_record.then(|| record(random));
    if let Some(record) = &mut record {
        may_drop(record, service, random);
    }
    config::Socket {
        name: format!("s{number}"),
        kind: SocketType::Datagram,
        service,
        message_size: 100,
        slow_timeout: HOUR,
        record,
        ..base()
    }
}

fn record(random: &mut Random) -> Record {
    Record {
        format: random.pick(&[Format::Raw, Format::Json]),
        queue_size: 65 + random.below(200) as usize,
        rotate_size: random.one_in(2).then(|| 100 + random.below(1_000)),
        ..Record::default()
    }
}

/// A record that tells of gaps may have them; of echo, replies would come before they are told.
fn may_drop(record: &mut Record, service: ServiceKind, random: &mut Random) {
    let tells = record.format == Format::Json && service == ServiceKind::Collect;
    if tells && random.one_in(2) {
        record.on_full = OnFull::Drop;
    }
}

/// Messages and bytes of which a line tells that they were dropped.
fn gap_of(line: &[u8]) -> Option<(usize, usize)> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    let number = |key| Some(line["gap"][key].as_u64()? as usize);
    number("count").zip(number("bytes"))
}
