//! Datagrams: who gets a reply and when, what is held for a full record, and the bounds of both.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io, mem,
    rc::Rc,
    time::Duration,
};

use udsd::{
    config::{BaseDirs, Config},
    datagram::Datagrams,
    datagram_header::{Address, Header},
    limits::Limits,
    peer::Peer,
};

use crate::world::{PEER, Random, SECOND, World};

/// The kernel's queues: what was sent to the hub, and what each receiver has room for.
#[derive(Debug, Default)]
struct Post {
    sent: VecDeque<(Peer, Address, Vec<u8>)>,
    /// Receivers by name: what they got and have not read, and how many more they have room for.
    rooms: BTreeMap<String, (Vec<Vec<u8>>, usize)>,
    /// Calls of `send`.
    tries: usize,
    /// Receiving fails with this.
    broken: bool,
    /// Datagrams that one call brings at most.
    most: usize,
    hung_up: bool,
}

#[derive(Debug)]
struct DatagramSocket(Rc<RefCell<Post>>);

impl Datagrams for DatagramSocket {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        headers: &mut Vec<Header>,
    ) -> io::Result<()> {
        let post = &mut *self.0.borrow_mut();
        if post.broken {
            return Err(io::Error::from_raw_os_error(5));
        }
        let slots = buffer.chunks_exact_mut(slot).take(post.most);
        assert!(slots.len() > 0);
        for place in slots {
            let Some((peer, from, bytes)) = post.sent.pop_front() else {
                break;
            };
            let kept = bytes.len().min(slot);
            place[..kept].copy_from_slice(&bytes[..kept]);
            headers.push(Header {
                from,
                peer,
                length: bytes.len(),
            });
        }
        if headers.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn send(&mut self, to: &Address, owner: u32, bytes: &[u8]) -> io::Result<()> {
        let post = &mut *self.0.borrow_mut();
        post.tries += 1;
        assert_eq!(owner, PEER.uid);
        match post.rooms.get_mut(&to.to_string()) {
            None => Err(io::ErrorKind::ConnectionRefused.into()),
            Some((_, 0)) => Err(io::ErrorKind::WouldBlock.into()),
            Some((got, room)) => {
                got.push(bytes.to_vec());
                *room -= 1;
                Ok(())
            }
        }
    }

    fn unread(&self) -> usize {
        0
    }

    fn send_buffer(&self) -> usize {
        usize::MAX
    }

    fn disown(&mut self) {}

    fn shut_down(&mut self) -> bool {
        self.0.borrow_mut().hung_up = true;
        true
    }

    fn hang_up(&mut self) -> usize {
        let post = &mut *self.0.borrow_mut();
        post.hung_up = true;
        post.sent.drain(..).map(|(_, _, bytes)| bytes.len()).sum()
    }
}

/// A world whose one socket takes datagrams.
pub struct Datagram {
    pub world: World,
    post: Rc<RefCell<Post>>,
}

impl Datagram {
    pub fn new(keys: &str) -> Self {
        Self::with_limits(keys, Limits::new(1000, 1000))
    }

    pub fn with_limits(keys: &str, limits: Limits) -> Self {
        let config = format!("[socket.s]\npath = \"/run/s\"\ntype = \"datagram\"\n{keys}\n");
        let mut world = World::with_limits(&config, limits);
        let (post, datagram_socket) = datagram_socket();
        world.hub.open(0, datagram_socket);
        Datagram { world, post }
    }

    fn place(&self) -> usize {
        self.world.hub.key("s").unwrap()
    }

    /// A reload with another datagram socket in place of this one, which is returned.
    fn move_to(&mut self, keys: &str) -> Rc<RefCell<Post>> {
        let config = format!("[socket.s]\npath = \"/run/t\"\ntype = \"datagram\"\n{keys}\n");
        let config = Config::parse(&config, None, &BaseDirs::system()).unwrap();
        let mut change = self.world.changes(&config.sockets, None).remove(0);
        let (post, datagram_socket) = datagram_socket();
        change.datagram_socket = Some(datagram_socket);
        let (limits, now) = (Limits::new(1000, 1000), self.world.now());
        let place = self.place();
        self.world.hub.apply(vec![change], &limits, now);
        let record = mem::take(&mut self.world.records[place]);
        let place = self.place();
        self.world.records.resize_with(place + 1, Vec::new);
        self.world.segment_ends.resize_with(place + 1, Vec::new);
        self.world.records[place] = record;
        mem::replace(&mut self.post, post)
    }

    pub fn collect(record: &str) -> Self {
        Self::new(&format!(
            "service = \"collect\"\nmessage-size = \"64B\"\nqueue-size = \"1KiB\"\n\
             [socket.s.record]\nformat = \"raw\"\n{record}"
        ))
    }

    pub fn room(&self, name: &str, room: usize) {
        let mut post = self.post.borrow_mut();
        post.rooms.entry(name.into()).or_default().1 = room;
    }

    pub fn got(&self, name: &str) -> Vec<String> {
        let post = self.post.borrow();
        let texts = post.rooms[name].0.iter();
        texts
            .map(|bytes| String::from_utf8(bytes.clone()).unwrap())
            .collect()
    }

    pub fn send(&self, name: &str, text: &str) {
        self.send_as(PEER, name, text.as_bytes());
    }

    fn send_as(&self, peer: Peer, name: &str, bytes: &[u8]) {
        let address = Address::new(name.as_bytes());
        let mut post = self.post.borrow_mut();
        post.sent.push_back((peer, address, bytes.to_vec()));
    }

    /// Turns until nothing happens without the receivers, the record or the clock.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let readable = !self.post.borrow().sent.is_empty() || self.post.borrow().broken;
            let place = self.place();
            let event = readable && self.world.hub.receives(place);
            if !event && !self.world.hub.has_ready() {
                return;
            }
            if event {
                let now = self.world.now();
                self.world.hub.receive(place, now);
            }
            self.world.turn();
        }
        panic!("the hub does not come to rest");
    }

    fn counted(&self) -> (u64, u64, u64, u64) {
        let c = self.world.counters();
        (
            c.messages,
            c.unanswered_unbound,
            c.unanswered_unreachable,
            c.dropped(),
        )
    }
}

fn datagram_socket() -> (Rc<RefCell<Post>>, Box<dyn Datagrams>) {
    let post = Rc::new(RefCell::new(Post {
        most: 64,
        ..Post::default()
    }));
    let datagram_socket = Box::new(DatagramSocket(Rc::clone(&post)));
    (post, datagram_socket)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn replies_go_to_their_senders_and_leave_nothing_behind() {
    let mut d = Datagram::new("");
    d.room("/a", 99);
    d.room("/b", 99);
    for (name, text) in [("/a", "1"), ("/b", "2"), ("", "3"), ("/c", "4"), ("/a", "")] {
        d.send(name, text);
    }
    d.settle();
    assert_eq!(d.got("/a"), ["1", ""]);
    assert_eq!(d.got("/b"), ["2"]);
    assert_eq!(d.counted(), (5, 1, 1, 0));
    assert_eq!(d.world.counters().clients, 3);
    assert_eq!(d.world.hub.undelivered(), 0);
    d.world.assert_empty();
}

#[test]
fn who_is_full_is_tried_again_less_and_less_often_and_in_order() {
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    d.room("/full", 0);
    d.room("/other", 1000);
    for n in 0..10 {
        d.send("/full", &n.to_string());
        d.send("/other", &n.to_string());
    }
    d.settle();
    assert_eq!(d.got("/other"), numbers(0..10));
    // The first was tried, the rest stands behind it.
    assert_eq!(d.post.borrow().tries, 11);
    assert_eq!(d.world.hub.undelivered(), 10);
    let mut last = Duration::ZERO;
    for expected in [1, 2, 4, 8, 16, 32, 64, 100, 100, 100] {
        let due = d.world.hub.deadline().unwrap() - d.world.start;
        assert_eq!((due - last).as_millis(), expected);
        let tries = d.post.borrow().tries;
        d.world.pass(due - last - Duration::from_micros(1));
        assert_eq!(d.post.borrow().tries, tries, "before its time");
        d.world.pass(Duration::from_micros(1));
        assert_eq!(d.post.borrow().tries, tries + 1);
        last = due;
    }
    // Room for some: those, the eldest first, and it is soon looked at again.
    d.room("/full", 3);
    d.world.pass(Duration::from_millis(100));
    assert_eq!(d.got("/full"), numbers(0..3));
    let due = d.world.hub.deadline().unwrap();
    assert_eq!(due - d.world.now().instant, Duration::from_millis(1));
    d.send("/full", "10");
    d.settle();
    d.room("/full", 1000);
    d.world.pass(Duration::from_millis(1));
    assert_eq!(d.got("/full"), numbers(0..11));
    d.world.assert_empty();
    d.send("/full", "11");
    d.settle();
    assert_eq!(d.got("/full"), numbers(0..12));
    assert_eq!(d.counted(), (22, 0, 0, 0));
}

#[test]
fn a_queue_is_bounded_by_queue_size_also_for_empty_datagrams() {
    for (length, most) in [(0, 16), (36, 10), (500, 1)] {
        let keys = "message-size = \"500B\"\nqueue-size = \"1KiB\"\nslow-timeout = \"1h\"";
        let mut d = Datagram::new(keys);
        d.room("/full", 0);
        for _ in 0..100 {
            d.send("/full", &"x".repeat(length));
        }
        d.settle();
        assert_eq!(d.world.hub.undelivered(), most, "of {length} bytes");
        assert_eq!(d.counted(), (100, 0, 0, 100 - most as u64));
        assert_eq!(d.world.counters().dropped_queue_size, 100 - most as u64);
    }
}

#[test]
fn the_receivers_that_are_waited_for_are_bounded() {
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    for n in 0..2000 {
        let name = format!("/{n}");
        d.room(&name, 0);
        d.send(&name, "x");
    }
    d.settle();
    assert_eq!(d.world.hub.undelivered(), 512);
    assert_eq!(d.counted(), (2000, 0, 0, 1488));
    assert_eq!(d.world.counters().dropped_receivers, 1488);
    // Who has room is served all the same.
    d.room("/free", 1);
    d.send("/free", "x");
    d.settle();
    assert_eq!(d.got("/free"), ["x"]);
    for n in 0..2000 {
        d.room(&format!("/{n}"), 1);
    }
    d.world.pass(Duration::from_millis(1));
    while d.world.hub.deadline().is_some() {
        d.world.pass(Duration::from_millis(1));
    }
    assert_eq!(
        (0..2000)
            .filter(|n| d.got(&format!("/{n}")) == ["x"])
            .count(),
        512
    );
    d.world.assert_empty();
}

#[test]
fn what_waits_counts_for_its_user_and_is_bounded_by_the_quotas() {
    for (per_user, total) in [(1000, 5000), (5000, 1000)] {
        let limits = Limits::new(9, 9).with_queues(per_user, total);
        let mut d = Datagram::with_limits("slow-timeout = \"10s\"", limits);
        for n in 0..30 {
            let name = format!("/{n}");
            d.room(&name, 0);
            d.send(&name, &"x".repeat(36));
        }
        d.settle();
        assert_eq!(d.world.hub.undelivered(), 10);
        assert_eq!(
            (d.world.hub.held(), d.world.hub.held_for(PEER.uid)),
            (1000, 1000)
        );
        assert_eq!(d.counted(), (30, 0, 0, 20));
        d.room("/0", 1);
        d.world.pass(Duration::from_millis(1));
        assert_eq!(d.world.hub.held(), 900);
        for _ in 0..120 {
            d.world.pass(SECOND / 10);
        }
        assert_eq!(d.world.hub.held(), 0);
        d.world.assert_empty();
    }
}

#[test]
fn what_is_held_for_the_record_counts_until_it_is_taken() {
    let mut d = Datagram::collect("queue-size = \"100B\"");
    for n in 100..200 {
        d.send("", &n.to_string());
    }
    d.settle();
    let held = d.world.hub.undelivered();
    assert!(held > 0);
    assert_eq!(d.world.hub.held_for(PEER.uid), held * 67);
    d.world.hub.stop();
    while d.world.written(0) > 0 {
        d.settle();
    }
    assert_eq!(d.world.hub.held(), 0);
}

#[test]
fn who_takes_nothing_for_slow_timeout_loses_what_waits_and_who_takes_little_does_not() {
    let mut d = Datagram::new("slow-timeout = \"10s\"");
    d.room("/slow", 0);
    d.room("/dead", 0);
    for n in 0..20 {
        d.send("/slow", &n.to_string());
        d.send("/dead", &n.to_string());
    }
    d.settle();
    for n in 0..15 {
        d.room("/slow", 1);
        for _ in 0..90 {
            d.world.pass(SECOND / 10);
        }
        assert_eq!(d.got("/slow").len(), n + 1);
        // At 9 s it still waits for the dead one, at 18 s no more.
        let dropped = if n == 0 { 0 } else { 20 };
        assert_eq!(d.counted(), (40, 0, 0, dropped), "{n}");
        assert_eq!(d.world.counters().dropped_slow_timeout, dropped);
    }
    d.room("/slow", 1000);
    d.world.pass(SECOND);
    assert_eq!(d.got("/slow"), numbers(0..20));
    assert_eq!(d.got("/dead"), numbers(0..0));
    d.world.assert_empty();
}

#[test]
fn who_goes_while_replies_wait_is_unreachable() {
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    d.room("/a", 0);
    for n in 0..20 {
        d.send("/a", &n.to_string());
    }
    d.settle();
    d.post.borrow_mut().rooms.clear();
    d.world.pass(SECOND);
    assert_eq!(d.counted(), (20, 0, 20, 0));
    d.world.assert_empty();
}

#[test]
fn one_that_takes_all_keeps_no_turn_to_itself() {
    let mut d = Datagram::new("slow-timeout = \"1h\"\nqueue-size = \"100MiB\"");
    d.room("/much", 0);
    d.room("/little", 0);
    for n in 0..20_000 {
        d.send("/much", &n.to_string());
    }
    d.send("/little", "x");
    d.settle();
    d.room("/much", usize::MAX);
    d.room("/little", 1);
    d.world.pass(Duration::from_millis(1));
    assert_eq!(d.got("/little"), ["x"]);
    assert!(d.got("/much").len() <= 64 * 64);
    while d.world.hub.deadline().is_some() {
        d.world.pass(Duration::from_millis(1));
    }
    assert_eq!(d.got("/much"), numbers(0..20_000));
    d.world.assert_empty();
}

#[test]
fn a_full_record_holds_one_batch_and_reads_no_more() {
    let mut d = Datagram::collect("queue-size = \"100B\"");
    for n in 0..500 {
        d.send("", &n.to_string());
    }
    d.settle();
    assert!(!d.world.hub.receives(0));
    let unread = d.post.borrow().sent.len();
    assert_eq!(unread, 500 - 64);
    let taken = d.world.counters().messages as usize;
    assert_eq!(taken + d.world.hub.undelivered() + unread, 500);
    assert!(d.world.hub.awaits_record(0));
    while d.world.written(0) > 0 {
        let unread = d.post.borrow().sent.len();
        assert!(unread + d.world.counters().messages as usize + 64 >= 500);
        d.settle();
    }
    let all: String = (0..500).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&d.world.records[0]), all);
    assert!(d.world.hub.receives(0) && !d.world.hub.awaits_record(0));
    assert_eq!(d.world.hub.undelivered(), 0);
    d.world.assert_empty();
}

#[test]
fn beside_echo_nothing_is_answered_that_is_not_recorded() {
    let keys = "message-size = \"64B\"\n[socket.s.record]\nformat = \"raw\"\nqueue-size = \"70B\"";
    let mut d = Datagram::new(keys);
    d.room("/a", 1000);
    for n in 0..200 {
        d.send("/a", &n.to_string());
        if n % 7 == 0 {
            d.settle();
        }
        let recorded = d.world.records[0]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        assert_eq!(d.got("/a").len(), recorded);
        d.world.written(0);
    }
    d.settle();
    while d.world.written(0) > 0 {
        d.settle();
    }
    assert_eq!(d.got("/a"), numbers(0..200));
}

#[test]
fn each_is_judged_by_itself_and_gets_no_number_if_refused() {
    let mut d = Datagram::new("allow-users = [7]\nmessage-size = \"4B\"");
    d.room("/a", 1000);
    let stranger = Peer { uid: 8, ..PEER };
    let unseen = Peer { pid: 0, ..PEER };
    let own = Peer {
        pid: std::process::id().cast_signed(),
        ..PEER
    };
    for (peer, bytes) in [
        (stranger, &b"no"[..]),
        (PEER, b"yes"),
        (unseen, b"too"),
        (Peer::NONE, b"no"),
        (own, b"no"),
        (PEER, b"too long"),
        (PEER, b"fits"),
    ] {
        d.send_as(peer, "/a", bytes);
    }
    d.settle();
    assert_eq!(d.got("/a"), ["yes", "too", "fits"]);
    let counters = d.world.counters();
    assert_eq!(
        (counters.refused(), counters.oversized, counters.clients),
        (3, 1, 1)
    );
    let refused = [
        counters.refused_access,
        counters.refused_no_sender,
        counters.refused_own,
    ];
    assert_eq!(refused, [1, 1, 1]);
    assert_eq!((counters.messages, counters.bytes), (3, 10));
}

#[test]
fn a_kernel_that_fails_is_left_alone_for_a_while() {
    let mut d = Datagram::new("");
    d.room("/a", 9);
    d.send("/a", "x");
    d.post.borrow_mut().broken = true;
    d.settle();
    assert!(!d.world.hub.receives(0));
    d.post.borrow_mut().broken = false;
    let due = d.world.hub.deadline().unwrap();
    d.world.pass(due - d.world.now().instant);
    d.settle();
    assert_eq!(d.got("/a"), ["x"]);
    d.world.assert_empty();
}

#[test]
fn a_socket_that_is_gone_leaves_nothing_for_its_time_to_do() {
    let mut d = Datagram::new("");
    d.post.borrow_mut().broken = true;
    d.settle();
    assert!(d.world.hub.deadline().is_some());
    d.world.reload("[socket.other]\npath = \"/run/o\"\n");
    assert!(d.world.hub.key("s").is_none());
    d.world.pass(SECOND);
    d.world.assert_empty();
}

#[test]
fn a_stop_reads_nothing_new_and_goes_on_with_what_waits() {
    let keys = "slow-timeout = \"1h\"\nmessage-size = \"64B\"\n[socket.s.record]\nformat = \"raw\"\nqueue-size = \"80B\"";
    for abandoned in [false, true] {
        let mut d = Datagram::new(keys);
        d.room("/a", 0);
        for n in 100..300 {
            d.send("/a", &n.to_string());
        }
        d.settle();
        let unread = d.post.borrow().sent.len();
        assert_eq!(unread, 200 - 64);
        d.world.hub.stop();
        assert!(d.post.borrow().hung_up && !d.world.hub.receives(0));
        assert_eq!(d.world.counters().unread, 3 * unread as u64);
        assert_eq!(d.world.hub.undelivered(), 64);
        if abandoned {
            let taken = d.world.counters().messages;
            let now = d.world.now();
            d.world.hub.abandon(now);
            assert_eq!(d.world.counters().untaken, 64 - taken);
            assert_eq!(d.world.counters().undelivered, 3 * taken);
        } else {
            while d.world.written(0) > 0 {
                d.settle();
            }
            d.room("/a", 1000);
            d.world.pass(Duration::from_millis(1));
            assert_eq!(d.got("/a"), numbers(100..164));
            assert!(!d.world.hub.receives(0), "it begins anew");
        }
        assert_eq!(d.world.hub.undelivered(), 0);
        d.world.assert_empty();
    }
}

#[test]
fn what_waits_at_a_mailbox_goes_on_at_the_one_that_takes_its_place() {
    let keys = |framing: &str| {
        format!(
            "service = \"collect\"\nmessage-size = \"64B\"\n{framing}\n[socket.s.record]\nformat = \"raw\"\nqueue-size = \"100B\""
        )
    };
    for framing in ["", "framing = \"syslog\""] {
        let mut d = Datagram::new(&keys(""));
        for n in 0..500 {
            d.send("/a", &n.to_string());
        }
        d.settle();
        let (taken, held) = (d.world.counters().messages, d.world.hub.undelivered());
        assert!(taken > 0 && held > 0);
        let before = d.move_to(&keys(framing));
        assert!(before.borrow().hung_up && before.borrow().sent.is_empty());
        for n in 500..600 {
            d.send("/a", &n.to_string());
        }
        d.settle();
        let place = d.place();
        while d.world.written(place) > 0 {
            d.settle();
        }
        // Another framing is another service: what it has received is none of the new one's.
        let lost = if framing.is_empty() { 0 } else { held };
        let taken = taken as usize;
        let all = (0..taken).chain(taken + lost..600);
        let all: String = all.map(|n| format!("{n}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&d.world.records[place]), all);
        let counters = d.world.counters();
        assert_eq!((counters.untaken, counters.unread), (lost as u64, 0));
        assert_eq!(counters.clients, 1, "its sender has another number");
        assert_eq!(d.world.hub.undelivered(), 0);
        d.world.assert_empty();
    }
}

#[test]
fn who_is_owed_a_reply_gets_it_from_the_mailbox_that_it_wrote_to() {
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    d.room("/a", 0);
    d.send("/a", "waits");
    d.settle();
    d.send("/a", "comes late");
    let before = d.move_to("slow-timeout = \"1h\"");
    before.borrow_mut().rooms.get_mut("/a").unwrap().1 = 9;
    d.world.pass(SECOND);
    d.world.turn();
    assert_eq!(
        before.borrow().rooms["/a"].0,
        [&b"waits"[..], b"comes late"]
    );
    assert_eq!(d.world.counters().unread, 0);
    assert_eq!(Rc::strong_count(&before), 1, "it is kept for nothing");
    d.world.assert_empty();
}

/// Receivers that stop and go on, a slow record, at random: whatever is not lost for a reason that was
/// counted comes in order, and nothing is left undone.
#[test]
fn at_random_all_is_delivered_in_order_or_counted() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let keys = "slow-timeout = \"2s\"\nmessage-size = \"64B\"\nqueue-size = \"2KiB\"\n[socket.s.record]\nformat = \"raw\"\nqueue-size = \"300B\"";
        let mut d = Datagram::new(keys);
        d.post.borrow_mut().most = 1 + random.below(64) as usize;
        let names = ["/a", "/b", "/c"];
        let mut sent = 0;
        for name in names {
            d.room(name, 0);
        }
        for _ in 0..random.below(400) {
            let name = random.pick(&names);
            match random.below(6) {
                0..3 => {
                    d.send(
                        name,
                        &format!("{sent} {}", "x".repeat(random.below(40) as usize)),
                    );
                    sent += 1;
                }
                3 => d.room(name, random.below(20) as usize),
                4 => {
                    d.world.written(0);
                }
                _ => d.world.pass(Duration::from_millis(random.below(300))),
            }
            d.settle();
            let waiting = d.world.hub.undelivered();
            assert!(
                waiting == 0 || d.world.hub.deadline().is_some() || d.world.hub.awaits_record(0),
                "seed {seed}: left undone"
            );
        }
        for name in names {
            d.room(name, 1000);
        }
        for _ in 0..100 {
            d.world.written(0);
            d.settle();
            d.world.pass(SECOND / 10);
        }
        assert_eq!(d.world.hub.undelivered(), 0, "seed {seed}");
        let mut delivered = 0;
        for name in names {
            let numbers: Vec<usize> = d
                .got(name)
                .iter()
                .map(|text| text.split(' ').next().unwrap().parse().unwrap())
                .collect();
            assert!(
                numbers.is_sorted_by(|a, b| a < b),
                "seed {seed}: {numbers:?}"
            );
            delivered += numbers.len() as u64;
        }
        let (messages, _, _, dropped) = d.counted();
        assert_eq!(messages, sent, "seed {seed}");
        assert_eq!(delivered + dropped, sent, "seed {seed}");
        let recorded = d.world.records[0]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        assert_eq!(recorded as u64, sent, "seed {seed}");
    }
}
