//! Bytes held for one user, and for everybody together: who would have more held waits, and is
//! closed if that lasts.

use udsd::{limits::Limits, peer::Peer};

use crate::world::{Client, PEER, SECOND, World, lines, pattern};

const ECHO: &str = "[socket.s]\npath = \"/run/s\"\nqueue-size = \"100B\"\nmessage-size = \"16B\"\nslow-timeout = \"3s\"\n";

fn enter(world: &mut World, uid: u32, capacity: usize) -> Client {
    let client = world.try_enter(0, Peer { uid, ..PEER }, &[]).0.unwrap();
    client.wire.borrow_mut().capacity = capacity;
    client
}

#[test]
fn one_user_waits_and_another_does_not() {
    let limits = Limits::new(9, 9).with_queues(150, 1000);
    let mut world = World::with_limits(&format!("{ECHO}framing = \"lines\"\n"), limits);
    let mine = [enter(&mut world, 1, 10), enter(&mut world, 1, 10)];
    let other = enter(&mut world, 2, 10);
    for client in &mine {
        client.send(&lines(100..200));
    }
    other.send(&lines(100..110));
    world.settle();
    assert!(world.hub.held_for(1) <= 150);
    assert_eq!(other.take(usize::MAX), 10);
    // All of it comes, as they read.
    loop {
        let taken: usize = [&mine[0], &mine[1], &other]
            .map(|client| client.take(9))
            .iter()
            .sum();
        if taken == 0 {
            break;
        }
        world.settle();
        assert!(world.hub.held_for(1) <= 150, "{}", world.hub.held_for(1));
    }
    for client in &mine {
        assert_eq!(client.got(), lines(100..200));
    }
    assert_eq!(world.hub.held(), 0);
    world.pass(SECOND * 3600);
    assert!(world.hub.deadline().is_none() && world.hub.present() == 3);
}

#[test]
fn unfinished_messages_count_and_who_waits_too_long_is_closed() {
    let limits = Limits::new(9, 9).with_queues(26, 1000);
    let mut world = World::with_limits(&format!("{ECHO}framing = \"lines\"\n"), limits);
    let clients: Vec<Client> = (0..3).map(|_| enter(&mut world, 1, 100)).collect();
    for client in &clients {
        client.send(&pattern(8)[1..]);
    }
    world.settle();
    assert_eq!(world.hub.held_for(1), 20);
    // The third has no room for the rest of its message.
    assert_eq!(clients[2].unread(), 1);
    clients[2].send(b"\n");
    world.pass(SECOND * 2);
    world.settle();
    assert!(!clients[2].is_closed());
    clients[0].send(b"\n");
    world.settle();
    assert_eq!(clients[0].unread(), 1);
    world.pass(SECOND * 2);
    world.settle();
    // The first found room when the third was closed, which had waited longer.
    let closed: Vec<bool> = clients.iter().map(Client::is_closed).collect();
    assert_eq!(closed, [false, false, true]);
    clients[0].take(usize::MAX);
    assert!(clients[0].got().ends_with(b"\n"));
}

#[test]
fn a_relay_keeps_the_quotas_of_its_receivers() {
    let keys = "queue-size = \"200B\"\nslow-timeout = \"3s\"";
    let relay = format!(
        "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\n{keys}\n"
    );
    let limits = Limits::new(20, 20).with_queues(300, 1000);
    let mut world = World::with_limits(&relay, limits);
    let slow: Vec<Client> = (0..5).map(|_| enter(&mut world, 1, 10)).collect();
    let sender = enter(&mut world, 2, 10);
    sender.send(&lines(100..200));
    world.settle();
    assert!(world.hub.held_for(1) <= 300);
    loop {
        let taken: usize = slow.iter().map(|client| client.take(7)).sum();
        if taken == 0 {
            break;
        }
        world.settle();
        assert!(world.hub.held_for(1) <= 300);
    }
    for client in &slow {
        assert_eq!(client.got(), lines(100..200));
    }
    assert_eq!(world.hub.held(), 0);
}

#[test]
fn who_finds_no_room_is_silent_if_it_says_nothing_and_does_not_hold_up_a_stop() {
    let keys = ECHO.replace("3s", "1h") + "framing = \"lines\"\nidle-timeout = \"3s\"\n";
    let limits = Limits::new(9, 9).with_queues(26, 1000);
    let mut world = World::with_limits(&keys, limits);
    let silent = enter(&mut world, 1, 10);
    world.pass(SECOND);
    let fillers = [12, 8].map(|length| {
        let client = enter(&mut world, 1, 10);
        client.send(&vec![b'x'; length]);
        world.settle();
        client
    });
    assert_eq!(world.hub.held_for(1), 20);
    world.pass(SECOND * 2);
    assert!(silent.is_closed());
    // One of those who hold it all has more to say, and waits.
    fillers[0].send(b"y");
    world.settle();
    assert_eq!(fillers[0].unread(), 1);
    world.hub.stop();
    world.settle();
    world.assert_empty();
}

#[test]
fn who_may_be_closed_for_a_quota_is_looked_at_again_when_another_was() {
    let limits = Limits::new(90, 90).with_queues(100, 1000);
    let mut world = World::with_limits(&format!("{ECHO}framing = \"lines\"\n"), limits);
    let clients: Vec<Client> = (0..10).map(|_| enter(&mut world, 1, 100)).collect();
    for client in &clients {
        client.send(b"0123456789abc");
    }
    world.settle();
    for client in &clients {
        client.send(b"d");
    }
    world.settle();
    world.pass(SECOND * 4);
    world.settle();
    let closed = clients.iter().filter(|client| client.is_closed()).count();
    assert!((1..=3).contains(&closed), "{closed}");
}

#[test]
fn what_others_left_unfinished_closes_no_receiver() {
    let relay = "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"100B\"\n";
    let limits = Limits::new(90, 90).with_queues(100, 100);
    let mut world = World::with_limits(relay, limits);
    let receivers = [enter(&mut world, 2, 8), enter(&mut world, 2, 8)];
    let sender = enter(&mut world, 3, 10);
    sender.send(&lines(100..102));
    world.settle();
    for _ in 0..6 {
        let filler = enter(&mut world, 1, 8);
        filler.send(b"0123456789abcdef");
    }
    world.settle();
    // Three quarters, and no more.
    assert_eq!(world.hub.held(), 75);
    // Nothing waits in their queues, and the kernel takes nothing now.
    sender.send(&lines(102..103));
    world.settle();
    for receiver in &receivers {
        assert!(!receiver.is_closed());
        assert_eq!(receiver.take(usize::MAX), 8);
    }
}

#[test]
fn a_gap_is_told_whatever_others_hold() {
    let relay = "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"1000B\"\nslow-client = \"drop\"\nstamp = true\n[socket.e]\npath = \"/run/e\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"2000B\"\n";
    for capacity in [100, 101, 103, 110, 120, 130] {
        let limits = Limits::new(90, 90).with_queues(2000, 2000);
        let mut world = World::with_limits(relay, limits);
        let (reader, sender) = (enter(&mut world, 2, capacity), enter(&mut world, 3, 10_000));
        sender.send(&lines(100..130));
        world.settle();
        let hog = world.try_enter(1, PEER, &[]).0.unwrap();
        hog.wire.borrow_mut().capacity = 8;
        while reader.take(97) > 0 {
            hog.send(&lines(1000..1030));
            world.settle();
            assert!(!reader.is_closed(), "with {capacity} bytes in the kernel");
        }
        assert!(reader.got().ends_with(b"}}\n"), "no gap at the end");
    }
}

/// The queue of who is to be told a gap is empty; `says` something in the turn that tells it.
fn told_from_an_empty_queue(says: bool) {
    let relay = "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"1000B\"\nslow-client = \"drop\"\nstamp = true\n[socket.e]\npath = \"/run/e\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"2000B\"\n";
    let limits = Limits::new(90, 90).with_queues(400, 4000);
    let mut world = World::with_limits(relay, limits);
    let (reader, sender) = (enter(&mut world, 2, 10_000), enter(&mut world, 3, 10_000));
    sender.send(&lines(100..101));
    world.settle();
    let line = reader.take(usize::MAX);
    // One more fills its kernel and leaves its queue empty; the next finds no room anywhere.
    reader.wire.borrow_mut().capacity = line;
    let hog = world.try_enter(1, Peer { uid: 2, ..PEER }, &[]).0.unwrap();
    hog.wire.borrow_mut().capacity = 8;
    hog.send(&lines(1000..1200));
    world.settle();
    for which in [101, 102] {
        sender.send(&lines(which..which + 1));
        world.settle();
    }
    assert_eq!(world.counters().dropped(), 1);
    hog.vanish();
    world.settle();
    reader.take(10);
    if says {
        reader.send(b"said\n");
    }
    world.settle();
    while reader.take(10) > 0 {
        world.settle();
    }
    assert!(reader.got().ends_with(b"}}\n"));
    sender.take(usize::MAX);
    assert_eq!(sender.got().ends_with(b"\"message\":\"said\"}\n"), says);
}

#[test]
fn a_gap_is_told_where_no_queue_is_to_be_written() {
    told_from_an_empty_queue(false);
}

#[test]
fn a_gap_may_be_told_in_parts_by_the_turn_that_reads() {
    told_from_an_empty_queue(true);
}

#[test]
fn what_is_charged_is_what_is_held() {
    const CHUNK: usize = 16 * 1024;
    let keys = "queue-size = \"1MiB\"\nslow-timeout = \"1h\"";
    let echo = format!("[socket.s]\npath = \"/run/s\"\n{keys}\n");
    let limits = Limits::new(9, 9).with_queues(1 << 26, 1 << 27);
    let mut world = World::with_limits(&echo, limits);
    let client = enter(&mut world, 1, 1000);
    client.send(&pattern(10 * CHUNK));
    world.settle();
    let full = world.hub.held();
    assert!(full >= 10 * CHUNK - 1000, "{full}");
    // Of a chunk, all is held until all of it is written.
    let mut waiting = 10 * CHUNK - 1000;
    while waiting > 0 {
        let taken = client.take(usize::MAX);
        world.settle();
        waiting = waiting.saturating_sub(taken);
        let held = world.hub.held();
        assert!(
            (waiting..=waiting + 2 * CHUNK).contains(&held),
            "{held} bytes are charged where {waiting} wait"
        );
        assert!(held == 0 || (full - held).is_multiple_of(CHUNK), "{held}");
    }
    assert_eq!(world.hub.held(), 0);
}
