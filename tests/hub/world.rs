//! What stands for the kernel, the event loop, the clock and the records' threads.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io::{self, Cursor, IoSlice},
    mem,
    path::Path,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use udsd::{
    access::Access,
    config::{self, BaseDirs, Config},
    connection::{Stream, Watch},
    handover_state::State,
    hub::{Counters, Hub, Now, Socket, SocketChange, WatchChange},
    limits::Limits,
    peer::Peer,
    record::{Encoder, Lines, Record, Recorder, Rotation, Segment, SegmentEnd},
};

/// The hub's read buffer: what one client may send in a turn.
pub const READ_BUFFER: usize = 64 * 1024;

pub const SECOND: Duration = Duration::from_secs(1);

/// Both directions of one client, and what the kernel knows of them.
#[derive(Debug)]
pub struct Wire {
    /// Sent by the client, not yet read by the hub.
    pub sent: VecDeque<u8>,
    /// Bytes that the hub has read.
    pub read: usize,
    /// The hub has seen the end of what the client sent.
    pub ended: bool,
    /// Never empty to the reader.
    pub endless: bool,
    /// The client has shut down its sending side.
    pub finished: bool,
    /// The client is gone: writing fails.
    pub gone: bool,
    /// Reading, once nothing is left, says ECONNRESET.
    pub reset: bool,
    /// Written by the hub, not yet taken by the client.
    pub kernel: VecDeque<u8>,
    /// Bytes that the kernel holds for the client.
    pub capacity: usize,
    /// Bytes that the hub has written.
    pub written: usize,
    /// All that the hub has written.
    pub said: Vec<u8>,
    /// In how many calls.
    pub writes: usize,
    /// A write fell short: there is no room until the client takes something.
    pub full: bool,
    /// What the client got.
    pub got: Vec<u8>,
    /// What the hub asked to have it watched for.
    pub watched: Watch,
    /// The hub ended it, with these bytes unread.
    pub hung_up: Option<usize>,
    /// The hub has closed it with so much unread.
    pub cut_off: Option<usize>,
    /// The hub let go of it.
    pub dropped: bool,
    /// Whims: short reads, short writes, interrupted calls.
    pub whims: Option<Random>,
}

impl Wire {
    /// One that carries whatever it is given.
    fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Wire {
            sent: VecDeque::new(),
            read: 0,
            ended: false,
            endless: false,
            finished: false,
            gone: false,
            reset: false,
            kernel: VecDeque::new(),
            capacity: 1 << 20,
            written: 0,
            said: Vec::new(),
            writes: 0,
            full: false,
            got: Vec::new(),
            watched: Watch::default(),
            hung_up: None,
            cut_off: None,
            dropped: false,
            whims: None,
        }))
    }

    /// What epoll reports now, level-triggered: an end of both directions even where nothing is
    /// watched for but one of them.
    pub fn event(&self) -> Watch {
        let Watch { read, write, end } = self.watched;
        let something = self.endless || !self.sent.is_empty() || self.finished || self.reset;
        let over = self.gone && (read || write || end);
        Watch {
            read: (read && something) || over,
            write: (write && !self.full) || over,
            end: over,
        }
    }

    fn room(&self) -> usize {
        if self.full {
            0
        } else {
            self.capacity.saturating_sub(self.kernel.len())
        }
    }

    fn whim(&mut self, one_in: u64) -> bool {
        self.whims
            .as_mut()
            .is_some_and(|random| random.below(one_in) == 0)
    }

    fn below(&mut self, limit: usize) -> usize {
        match &mut self.whims {
            Some(random) => random.below(limit as u64) as usize,
            None => 0,
        }
    }
}

/// The hub's end.
pub struct End(Rc<RefCell<Wire>>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}

impl Stream for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        assert!(!buffer.is_empty(), "read into nothing");
        if wire.whim(16) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if wire.endless {
            buffer.fill(b'e');
            wire.read += buffer.len();
            return Ok(buffer.len());
        }
        if wire.sent.is_empty() {
            wire.ended |= wire.finished || wire.reset;
            if wire.finished {
                return Ok(0);
            }
            let reset = wire.reset;
            let kind = if reset {
                io::ErrorKind::ConnectionReset
            } else {
                io::ErrorKind::WouldBlock
            };
            return Err(kind.into());
        }
        // Descriptors, urgent data and the end stop a read short.
        let most = buffer.len().min(wire.sent.len());
        let bytes = if wire.whim(4) {
            1 + wire.below(most)
        } else {
            most
        };
        io::Read::read_exact(&mut wire.sent, &mut buffer[..bytes])?;
        wire.read += bytes;
        Ok(bytes)
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        if wire.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes = parts
            .iter()
            .map(|part| &**part)
            .collect::<Vec<_>>()
            .concat();
        assert!(!bytes.is_empty(), "wrote nothing");
        let mut fits = bytes.len().min(wire.room());
        if wire.whim(4) {
            fits = wire.below(fits + 1);
        }
        wire.full |= fits < bytes.len();
        wire.kernel.extend(&bytes[..fits]);
        wire.written += fits;
        wire.said.extend(&bytes[..fits]);
        wire.writes += 1;
        if fits == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(fits)
    }

    fn cut_off(self) -> usize {
        let wire = &mut *self.0.borrow_mut();
        wire.cut_off = Some(wire.sent.len());
        wire.sent.len()
    }

    fn hang_up(self) -> usize {
        let wire = &mut *self.0.borrow_mut();
        let unread = wire.sent.len();
        wire.sent.clear();
        wire.hung_up = Some(unread);
        unread
    }
}

/// The client's end.
#[derive(Clone, Debug)]
pub struct Client {
    pub key: usize,
    pub wire: Rc<RefCell<Wire>>,
}

impl Client {
    pub fn send(&self, bytes: &[u8]) {
        self.wire.borrow_mut().sent.extend(bytes);
    }

    /// `shutdown(SHUT_WR)`.
    pub fn finish(&self) {
        self.wire.borrow_mut().finished = true;
    }

    /// Closes with unread input, so that the hub's reads end in ECONNRESET.
    pub fn vanish(&self) {
        let mut wire = self.wire.borrow_mut();
        wire.gone = true;
        wire.reset = true;
        wire.kernel.clear();
    }

    /// Reads up to `most` bytes of what the hub wrote.
    pub fn take(&self, most: usize) -> usize {
        let wire = &mut *self.wire.borrow_mut();
        let n = most.min(wire.kernel.len());
        let rest = wire.kernel.split_off(n);
        wire.got
            .append(&mut mem::replace(&mut wire.kernel, rest).into());
        if n > 0 || wire.kernel.is_empty() {
            wire.full = false;
        }
        n
    }

    pub fn got(&self) -> Vec<u8> {
        self.wire.borrow().got.clone()
    }

    /// The hub has let go of it.
    pub fn is_closed(&self) -> bool {
        self.wire.borrow().dropped
    }

    pub fn hung_up(&self) -> Option<usize> {
        self.wire.borrow().hung_up
    }

    /// What the hub left unread when it cut the client off.
    pub fn cut_off(&self) -> Option<usize> {
        self.wire.borrow().cut_off
    }

    pub fn unread(&self) -> usize {
        self.wire.borrow().sent.len()
    }
}

/// A hub, its clients, its clock, and what stands for the event loop and the records' threads.
pub struct World {
    pub hub: Hub<End>,
    pub clients: BTreeMap<usize, Client>,
    pub start: Instant,
    pub passed: Duration,
    /// What each socket's record was handed. That of several stands at the first of them.
    pub records: Vec<Vec<u8>>,
    /// Where segments end in that.
    pub segment_ends: Vec<Vec<SegmentEnd>>,
    /// Which record that is.
    ids: Vec<usize>,
    /// Records that ever were.
    known: usize,
    sockets: Vec<config::Socket>,
}

pub const PEER: Peer = Peer {
    pid: 100,
    uid: 7,
    gid: 8,
};

impl World {
    /// Sockets as `sockets` has them: tables of a config file.
    pub fn new(sockets: &str) -> Self {
        Self::with_limits(sockets, Limits::new(1000, 1000))
    }

    pub fn with_limits(sockets: &str, limits: Limits) -> Self {
        let config = Config::parse(sockets, None, &BaseDirs::system()).unwrap();
        Self::of(&config.sockets, limits)
    }

    /// Sockets with these rules.
    pub fn of(configs: &[config::Socket], limits: Limits) -> Self {
        let new = configs
            .iter()
            .map(|of| new_recorder(of, Some(Segment::NONE)));
        let sockets = sockets_of(configs, new.collect());
        let records = sockets.iter().map(|_| Vec::new()).collect();
        let segment_ends = sockets.iter().map(|_| Vec::new()).collect();
        let known = sockets.len();
        World {
            hub: Hub::new(sockets, limits),
            clients: BTreeMap::new(),
            start: Instant::now(),
            passed: Duration::ZERO,
            records,
            segment_ends,
            ids: (0..known).collect(),
            known,
            sockets: configs.to_vec(),
        }
    }

    /// One echo socket with these keys.
    pub fn echo(keys: &str) -> Self {
        Self::new(&format!("[socket.s]\npath = \"/run/s\"\n{keys}\n"))
    }

    /// One relay socket of lines with these keys.
    pub fn relay(keys: &str) -> Self {
        Self::new(&format!(
            "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\n{keys}\n"
        ))
    }

    /// One collect socket of lines, its record raw.
    pub fn collect(record_keys: &str) -> Self {
        Self::new(&collect_socket(record_keys))
    }

    pub fn now(&self) -> Now {
        Now {
            instant: self.start + self.passed,
            wall: SystemTime::UNIX_EPOCH + self.passed,
        }
    }

    pub fn enter(&mut self, socket: usize) -> Client {
        self.try_enter(socket, PEER, &[]).0.unwrap()
    }

    /// Somebody comes by `socket` while no more than `files` may be open. Its wire.
    pub fn refuse(&mut self, socket: usize, peer: &Peer, files: usize) -> Rc<RefCell<Wire>> {
        let wire = Wire::new();
        let now = self.now();
        let end = End(Rc::clone(&wire));
        self.hub.refuse(socket, end, peer, files, now);
        wire
    }

    /// A client with these supplementary groups; and its wire, also where it is kept out.
    pub fn try_enter(
        &mut self,
        socket: usize,
        peer: Peer,
        groups: &[u32],
    ) -> (Option<Client>, Rc<RefCell<Wire>>) {
        let wire = Wire::new();
        let now = self.now();
        let end = End(Rc::clone(&wire));
        let key = self.hub.enter(socket, end, peer, groups, now);
        self.watch();
        let client = key.map(|key| Client {
            key,
            wire: Rc::clone(&wire),
        });
        if let Some(client) = &client {
            self.clients.insert(client.key, client.clone());
        }
        (client, wire)
    }

    /// The events that are due, as epoll reports them: with all that is true of the stream now.
    pub fn events(&mut self) -> bool {
        self.clients.retain(|_, client| !client.is_closed());
        let keys: Vec<usize> = self.clients.keys().copied().collect();
        let mut any = false;
        for key in keys {
            any |= self.event(key);
        }
        any
    }

    /// The events that are due, all of them before anybody has a turn.
    pub fn events_before_turn(&mut self) {
        self.clients.retain(|_, client| !client.is_closed());
        for (&key, client) in &self.clients {
            let event = client.wire.borrow().event();
            if event != Watch::default() {
                self.hub.event(key, event);
            }
        }
    }

    pub fn event(&mut self, key: usize) -> bool {
        let event = self.clients[&key].wire.borrow().event();
        if event == Watch::default() {
            return false;
        }
        let now = self.now();
        self.hub.event(key, event);
        self.hub.serve(now);
        self.watch();
        self.hand_over();
        true
    }

    /// One turn, after which the records' lines are handed over.
    pub fn turn(&mut self) {
        let now = self.now();
        self.hub.turn(now);
        self.watch();
        self.hand_over();
    }

    /// The event loop's side of what the hub asks to have watched.
    fn watch(&mut self) {
        while let Some(change) = self.hub.next_watch_change() {
            if let WatchChange::Client {
                stream, from, to, ..
            } = change
            {
                let mut wire = stream.0.borrow_mut();
                assert_eq!(wire.watched, from, "the hub forgot what it had asked for");
                assert_ne!(from, to, "told the event loop what it knew");
                wire.watched = to;
            }
        }
    }

    fn hand_over(&mut self) {
        let now = self.now();
        for (i, (record, segment_ends)) in self
            .records
            .iter_mut()
            .zip(&mut self.segment_ends)
            .enumerate()
        {
            if let Some(mut lines) = self.hub.hand_over(i, now) {
                append(record, segment_ends, &mut lines);
            }
        }
    }

    /// Turns until nothing happens without the clients, the records or the clock.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let happened = self.events();
            if !happened && !self.hub.has_ready() {
                return;
            }
            self.turn();
        }
        panic!("the hub does not come to rest");
    }

    /// Hands all over to a fresh hub as a restart does, by way of bytes if `in_bytes`. What was handed to a record
    /// and is not written is handed over too. The sockets come in another order where there is something
    /// to `shuffle` them by. Returns which key became which.
    pub fn restart(
        &mut self,
        limits: Limits,
        in_bytes: bool,
        shuffle: Option<&mut Random>,
    ) -> BTreeMap<usize, usize> {
        let now = self.now();
        let fresh = || Hub::new(Vec::new(), Limits::new(1, 1));
        let mut hub = mem::replace(&mut self.hub, fresh());
        let mut unwritten = Vec::new();
        for (i, (written, segment_ends)) in self
            .records
            .iter_mut()
            .zip(&mut self.segment_ends)
            .enumerate()
        {
            if let Some(mut lines) = hub.hand_over(i, now) {
                append(written, segment_ends, &mut lines);
            }
            unwritten.push(hub.record(i).map_or(0, |record| record.unwritten()));
        }
        let (mut state, streams) = hub.park(now);
        let records = self
            .records
            .iter_mut()
            .zip(&mut self.segment_ends)
            .zip(unwritten);
        for (socket, ((written, segment_ends), unwritten)) in state.sockets.iter_mut().zip(records)
        {
            if let Some(record) = &mut socket.record {
                let end = written.len() - unwritten;
                record.lines = written.split_off(end);
                record.segment_ends = segment_ends.extract_if(.., |of| of.at >= end).collect();
                record.segment_ends.iter_mut().for_each(|of| of.at -= end);
            }
        }
        if let Some(random) = shuffle {
            self.shuffle(&mut state, random);
        }
        if in_bytes {
            let mut bytes = Cursor::new(Vec::new());
            state.encode(&mut bytes).unwrap();
            state = State::decode(bytes).unwrap();
        }
        let wires: Vec<_> = streams.iter().map(|end| Rc::clone(&end.0)).collect();
        for wire in &wires {
            wire.borrow_mut().watched = Watch::default();
        }
        let served = sockets_from(&self.sockets);
        let mut served: Vec<_> = served.into_iter().map(Some).collect();
        let rules = |before: &udsd::handover_state::Socket| {
            let mut names = self.sockets.iter();
            let of_file = names.position(|of| of.name == before.name && !before.retired);
            let socket = of_file.and_then(|i| served[i].take());
            socket.unwrap_or_else(|| Socket::draining(&before.name))
        };
        let sockets = state.sockets.iter().map(rules).collect();
        let recorded: Vec<bool> = state.sockets.iter().map(|of| of.record.is_some()).collect();
        let streams = streams.into_iter().map(Some).collect();
        let (hub, keys) = Hub::restore(sockets, limits, state, streams, now)
            .unwrap_or_else(|(why, ..)| panic!("{why}"));
        self.hub = hub;
        let mut became = BTreeMap::new();
        let clients = mem::take(&mut self.clients);
        for (wire, key) in wires.iter().zip(keys) {
            let here = clients.values().find(|here| Rc::ptr_eq(&here.wire, wire));
            let mut client = here.unwrap().clone();
            let before = mem::replace(&mut client.key, key.unwrap());
            became.insert(before, client.key);
            self.clients.insert(client.key, client);
        }
        for place in (0..recorded.len()).filter(|place| recorded[*place]) {
            self.swap_records(place, self.recorded_at(place));
        }
        self.hand_over();
        became
    }

    /// Where the record of the socket at `place` stands.
    fn recorded_at(&self, place: usize) -> usize {
        self.hub.recorded_at(place).unwrap_or(place)
    }

    /// Which record the socket at `place` has or had last, and what that was handed.
    pub fn record(&self, place: usize) -> (usize, &[u8]) {
        let at = self.recorded_at(place);
        (self.ids[at], &self.records[at])
    }

    fn swap_records(&mut self, one: usize, other: usize) {
        self.records.swap(one, other);
        self.segment_ends.swap(one, other);
        self.ids.swap(one, other);
    }

    /// Puts the sockets of `state` into another order, and their records with them.
    fn shuffle(&mut self, state: &mut State, random: &mut Random) {
        for last in (1..state.sockets.len()).rev() {
            let other = random.below(last as u64 + 1) as usize;
            state.sockets.swap(last, other);
            self.swap_records(last, other);
            for client in &mut state.clients {
                client.socket = match client.socket {
                    socket if socket == last => other,
                    socket if socket == other => last,
                    socket => socket,
                };
            }
        }
    }

    /// Serves by these sockets from now on. A record is that of the socket of the same name.
    pub fn reload(&mut self, sockets: &str) {
        self.reload_with(sockets, &Limits::new(1000, 1000));
    }

    pub fn reload_with(&mut self, sockets: &str, limits: &Limits) {
        let config = Config::parse(sockets, None, &BaseDirs::system()).unwrap();
        self.reload_as(config.sockets, limits);
    }

    pub fn reload_as(&mut self, sockets: Vec<config::Socket>, limits: &Limits) {
        self.reload_renaming(sockets, limits, None);
    }

    /// The same, where the record of a socket is from now on that of another: of the first name, that
    /// of the second.
    pub fn reload_renaming(
        &mut self,
        sockets: Vec<config::Socket>,
        limits: &Limits,
        renamed: Option<(&str, &str)>,
    ) {
        let changes = self.changes(&sockets, renamed);
        self.apply(sockets, changes, limits);
    }

    /// The same, made ready.
    pub fn apply(
        &mut self,
        sockets: Vec<config::Socket>,
        changes: Vec<SocketChange>,
        limits: &Limits,
    ) {
        let now = self.now();
        // By their sockets' places, which a record may outlive.
        let kept = changes.iter().filter_map(|of| of.record_of);
        let kept: Vec<usize> = kept.collect();
        let mut records = Vec::new();
        for (i, change) in changes.iter().enumerate() {
            let place = self.hub.key(change.socket.name());
            let own = place.filter(|place| !kept.contains(place));
            let of = change.record_of.or(own);
            let of = of.filter(|_| shares_with(&sockets, i).is_none());
            records.push(of.map(|of| self.take_record(of)));
        }
        let places = self.hub.apply(changes, limits, now);
        self.watch();
        let capacity = self.hub.sockets().capacity();
        self.records.resize_with(capacity, Vec::new);
        self.segment_ends.resize_with(capacity, Vec::new);
        let new = capacity.saturating_sub(self.ids.len());
        self.ids.extend(self.known..self.known + new);
        self.known += new;
        for (place, record) in places.into_iter().zip(records) {
            if let Some(record) = record {
                let at = self.recorded_at(place);
                (self.records[at], self.segment_ends[at], self.ids[at]) = record;
            }
        }
        self.sockets = sockets;
        self.hand_over();
    }

    /// Takes out what stands at `place`, where another record begins.
    fn take_record(&mut self, place: usize) -> (Vec<u8>, Vec<SegmentEnd>, usize) {
        let id = mem::replace(&mut self.ids[place], self.known);
        self.known += 1;
        let record = mem::take(&mut self.records[place]);
        (record, mem::take(&mut self.segment_ends[place]), id)
    }

    /// What becomes of these sockets. The record of a file goes on as that of the same file; else that of a socket
    /// goes on as that of the same name, or of the one that is `renamed` to it.
    pub fn changes(
        &self,
        sockets: &[config::Socket],
        renamed: Option<(&str, &str)>,
    ) -> Vec<SocketChange> {
        let places = 0..self.hub.sockets().capacity();
        let mut left: Vec<usize> = places
            .filter(|place| self.hub.recorded_at(*place) == Some(*place))
            .collect();
        let mut kept = vec![None; sockets.len()];
        for by_file in [true, false] {
            for (i, config) in sockets.iter().enumerate() {
                let name = match renamed {
                    Some((new, old)) if config.name == new => old,
                    _ => &config.name,
                };
                let file = file_of(config);
                let fits = |place: usize| match by_file {
                    true => file.is_some() && self.file_at(place) == file,
                    false => self.hub.key(name) == Some(place),
                };
                let is_first = config.record.is_some() && shares_with(sockets, i).is_none();
                if is_first && kept[i].is_none() {
                    let found = left.iter().position(|place| fits(*place));
                    kept[i] = found.map(|found| left.remove(found));
                }
            }
        }
        let new = sockets.iter().zip(&kept);
        let new = new.map(|(of, kept)| new_recorder(of, kept.is_none().then_some(Segment::NONE)));
        let all = sockets_of(sockets, new.collect()).into_iter().zip(kept);
        let changes = all.map(|(socket, record_of)| SocketChange {
            socket,
            record_of,
            datagram_socket: None,
        });
        changes.collect()
    }

    /// The file of the record at `place`.
    fn file_at(&self, place: usize) -> Option<&Path> {
        let name = self.hub.sockets()[place].name();
        file_of(self.sockets.iter().find(|of| of.name == name)?)
    }

    pub fn pass(&mut self, span: Duration) {
        self.passed += span;
        let now = self.now();
        self.hub.expire(now);
        self.watch();
        self.hand_over();
    }

    /// Whether a time is over that the hub waited for.
    pub fn is_due(&self) -> bool {
        let deadline = self.hub.deadline();
        deadline.is_some_and(|due| due <= self.now().instant)
    }

    pub fn written(&mut self, socket: usize) -> usize {
        let waiting = self.unwritten(socket);
        self.write(socket, waiting);
        waiting
    }

    /// So many bytes of a record are written.
    pub fn write(&mut self, socket: usize, bytes: usize) {
        // As the event loop: nothing is heard of a record of which nothing waits.
        if bytes > 0 {
            let now = self.now();
            let written = self.hub.record(socket).unwrap().written();
            self.hub.recorded(socket, written + bytes as u64, now);
            self.watch();
            self.hand_over();
        }
    }

    pub fn unwritten(&mut self, socket: usize) -> usize {
        self.hub.record(socket).unwrap().unwritten()
    }

    pub fn counters(&self) -> Counters {
        let first = self.hub.key(&self.sockets[0].name).unwrap();
        *self.hub.sockets()[first].counters()
    }

    /// Nobody is here, and nothing is left of those who were.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        if self.hub.has_ready() {
            self.turn();
        }
        assert_eq!(self.hub.present(), 0, "clients are left");
        assert_eq!(self.hub.deadline(), None, "timers are left");
        assert!(!self.hub.has_ready(), "the ready list is not empty");
        for (_, socket) in self.hub.sockets() {
            assert!(socket.wait_queue().is_empty(), "clients wait in a line");
        }
    }
}

/// A socket with a record of its own.
pub fn socket(config: &config::Socket) -> Socket {
    let recorder = new_recorder(config, Some(Segment::NONE));
    Socket::new(config, access(config), recorder)
}

/// What puts the messages of a socket into a record of its own, which goes on in this segment, or in that of the one
/// before; `None` without a record.
fn new_recorder(config: &config::Socket, segment: Option<Segment>) -> Option<Recorder> {
    let keys = config.record.as_ref()?;
    let mut record = Record::new(keys.queue_size, 0);
    let rotation = Rotation {
        size: keys.rotate_size,
        age: keys.rotate_age,
        keep: keys.keep,
    };
    record.rotate(rotation, segment);
    record.set_on_full(keys.on_full);
    Some(Recorder::new(encoder_of(config, keys), record))
}

fn encoder_of(config: &config::Socket, keys: &config::Record) -> Encoder {
    Encoder::new(keys.format, false, &config.name)
}

/// The sockets of a file, with records that are new.
fn sockets_from(configs: &[config::Socket]) -> Vec<Socket> {
    let new = configs.iter();
    let new = new.map(|of| new_recorder(of, Some(Segment::NONE)));
    sockets_of(configs, new.collect())
}

/// The sockets of a file, with these recorders; but those that name one record file share that of the first.
fn sockets_of(configs: &[config::Socket], new: Vec<Option<Recorder>>) -> Vec<Socket> {
    let mut sockets: Vec<Socket> = Vec::new();
    for (i, (config, mut recorder)) in configs.iter().zip(new).enumerate() {
        if let (Some(first), Some(keys)) = (shares_with(configs, i), &config.record) {
            let first = sockets[first].recorder();
            recorder = first.map(|of| of.beside(encoder_of(config, keys)));
        }
        sockets.push(Socket::new(config, access(config), recorder));
    }
    sockets
}

fn file_of(config: &config::Socket) -> Option<&Path> {
    config.record.as_ref()?.file.as_deref()
}

/// The first of these sockets that has the record of number `i`, where that is another.
fn shares_with(configs: &[config::Socket], i: usize) -> Option<usize> {
    let file = file_of(&configs[i])?;
    configs[..i].iter().position(|of| file_of(of) == Some(file))
}

/// Takes lines in as a record's thread does.
fn append(record: &mut Vec<u8>, segment_ends: &mut Vec<SegmentEnd>, lines: &mut Lines) {
    let before = record.len();
    record.append(&mut lines.bytes);
    for cut in lines.segment_ends.drain(..) {
        let begin = segment_ends.last().map_or(0, |last| last.at);
        let at = before + cut.at;
        // What has lines of JSON alone has numbers to look for.
        let text = String::from_utf8_lossy(&record[begin..at]);
        let mut numbers = text.lines().map(|line| line.contains("\"seq\":"));
        let first = format!("\"seq\":{},", cut.first);
        assert!(begin < at, "a segment without lines");
        assert!(
            !numbers.all(|any| any) || text.contains(&first),
            "{first} is not in {text}"
        );
        segment_ends.push(SegmentEnd { at, ..cut });
    }
}

fn access(config: &config::Socket) -> Access {
    let numbers = |names: &[String]| names.iter().map(|name| name.parse().unwrap()).collect();
    Access::new(numbers(&config.allow_users), numbers(&config.allow_groups))
}

pub fn collect_socket(record_keys: &str) -> String {
    format!(
        "[socket.log]\npath = \"/run/log\"\nservice = \"collect\"\nframing = \"lines\"\nmessage-size = \"64B\"\nqueue-size = \"1KiB\"\n\
         [socket.log.record]\nformat = \"raw\"\n{record_keys}\n"
    )
}

/// Lines "0\n", "1\n" and so on.
pub fn lines(range: std::ops::Range<usize>) -> Vec<u8> {
    range.flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

/// Bytes that differ from their neighbours.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// xorshift64*: small, the same everywhere, and good enough to shuffle.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
