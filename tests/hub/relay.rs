//! relay: one order for all, and what happens to those who do not read.

use udsd::limits::Limits;

use crate::world::{Client, PEER, SECOND, World, lines};

/// A receiver whose kernel holds this much.
fn narrow(world: &mut World, capacity: usize) -> Client {
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = capacity;
    client
}

#[test]
fn all_others_get_it_in_one_order_and_in_one_write() {
    let mut world = World::relay("");
    let clients: Vec<Client> = (0..4).map(|_| world.enter(0)).collect();
    for (n, client) in clients.iter().enumerate() {
        client.send(format!("{n}a\n{n}b\n{n}").as_bytes());
    }
    world.settle();
    for (n, client) in clients.iter().enumerate() {
        client.take(usize::MAX);
        let all: Vec<String> = (0..4)
            .filter(|&other| other != n)
            .map(|other| format!("{other}a\n{other}b\n"))
            .collect();
        assert_eq!(client.got(), all.concat().as_bytes());
        assert_eq!(client.wire.borrow().writes, 1, "not in one write");
    }
    assert_eq!(world.counters().messages, 8);
    // The end of its stream is the end of its last message, and the others still reach it.
    clients[0].finish();
    clients[1].send(b"!\n");
    world.settle();
    clients[2].take(usize::MAX);
    assert!(clients[2].got().ends_with(b"0\n1!\n"));
    clients[0].take(usize::MAX);
    assert!(clients[0].got().ends_with(b"1!\n") && !clients[0].is_closed());
    for client in &clients {
        client.vanish();
    }
    world.settle();
    world.assert_empty();
}

#[test]
fn who_half_closed_stays_until_it_is_gone() {
    let mut world = World::relay("");
    let (listener, speaker) = (world.enter(0), world.enter(0));
    listener.finish();
    world.settle();
    speaker.send(b"a\n");
    world.settle();
    assert_eq!(listener.take(usize::MAX), 2);
    listener.wire.borrow_mut().gone = true;
    world.settle();
    assert!(listener.is_closed());
    assert_eq!(listener.hung_up(), None, "closed as one that was done");
    speaker.vanish();
    world.settle();
    world.assert_empty();
}

#[test]
fn a_newcomer_gets_what_comes_after_it() {
    let mut world = World::relay("");
    let (first, second) = (world.enter(0), world.enter(0));
    first.send(b"before\n");
    // Taken, and not yet given out.
    world.event(first.key);
    let newcomer = world.enter(0);
    second.send(b"after\n");
    world.settle();
    newcomer.take(usize::MAX);
    assert_eq!(newcomer.got(), b"after\n");
    // One that takes the place of a client that left in the same turn.
    first.send(b"more\n");
    world.event(first.key);
    first.vanish();
    while !first.is_closed() && world.event(first.key) {}
    let again = world.enter(0);
    assert_eq!(again.key, first.key);
    second.send(b"last\n");
    world.settle();
    again.take(usize::MAX);
    assert_eq!(again.got(), b"last\n");
    newcomer.take(usize::MAX);
    assert_eq!(newcomer.got(), b"after\nmore\nlast\n");
}

#[test]
fn a_newcomer_gets_the_last_messages_first() {
    for policy in ["wait", "disconnect", "drop"] {
        let mut world = World::relay(&format!(
            "history = 3\nhistory-size = \"20B\"\nqueue-size = \"40B\"\nslow-client = \"{policy}\""
        ));
        // Nobody hears it but who comes later.
        let first = world.enter(0);
        first.send(b"one\ntwo\nthree\nfour\n");
        world.settle();
        first.send(b"five\n");
        // Taken, and not yet given out.
        world.event(first.key);
        let newcomer = narrow(&mut world, 5);
        first.send(b"six\n");
        world.settle();
        while newcomer.take(2) > 0 {
            world.settle();
        }
        assert_eq!(newcomer.got(), b"three\nfour\nfive\nsix\n", "{policy}");
        assert_eq!(first.wire.borrow().written, 0);
        // Who is at the end of its stream has left nothing out.
        first.finish();
        world.settle();
        let last = world.enter(0);
        last.take(usize::MAX);
        assert_eq!(last.got(), b"four\nfive\nsix\n", "{policy}");
        for client in [first, newcomer, last] {
            client.vanish();
        }
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn who_has_little_room_gets_the_last_of_the_history() {
    let relay = "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\nmessage-size = \"50B\"\nqueue-size = \"400B\"\nhistory = 9\nhistory-size = \"200B\"\n";
    let limits = Limits::new(9, 9).with_queues(400, 400);
    let mut world = World::with_limits(relay, limits);
    let speaker = world.enter(0);
    let lines: Vec<String> = (0..9).map(|n| format!("{n} is a line of 20 b\n")).collect();
    speaker.send(lines.concat().as_bytes());
    world.settle();
    let mut shown = usize::MAX;
    let sleepers: Vec<Client> = (0..4).map(|_| narrow(&mut world, 1)).collect();
    for sleeper in &sleepers {
        while sleeper.take(usize::MAX) > 0 {
            world.settle();
        }
        let got = sleeper.got();
        assert!(lines.concat().into_bytes().ends_with(&got));
        assert!(got.len() <= shown, "more than the one before");
        shown = got.len();
    }
    assert!(shown < 200);
}

#[test]
fn under_wait_senders_wait_for_the_slowest_and_nothing_is_lost() {
    let mut world = World::relay("queue-size = \"40B\"");
    let (slow, fast) = (narrow(&mut world, 10), world.enter(0));
    let senders = [world.enter(0), world.enter(0)];
    for (n, sender) in senders.iter().enumerate() {
        sender.send(&lines(1000 * (n + 1)..1000 * (n + 1) + 100));
    }
    world.settle();
    let given = fast.wire.borrow().written;
    assert!(given <= 50, "{given} bytes past a full queue");
    world.settle();
    assert_eq!(fast.wire.borrow().written, given, "went on");
    let mut rounds = 0;
    while slow.take(7) > 0 {
        world.settle();
        rounds += 1;
    }
    assert!(rounds > 100);
    fast.take(usize::MAX);
    assert_eq!(slow.got(), fast.got());
    assert_eq!(slow.got().len(), 1000);
    for from in [b'1', b'2'] {
        let got = slow.got();
        let of: Vec<u8> = got
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| line[0] == from)
            .flatten()
            .copied()
            .collect();
        let start = 1000 * usize::from(from - b'0');
        assert_eq!(of, lines(start..start + 100));
    }
    world.pass(SECOND * 3600);
    assert!(!slow.is_closed() && world.hub.deadline().is_none());
}

#[test]
fn under_wait_who_reads_nothing_is_closed_and_the_others_go_on() {
    let mut world = World::relay("queue-size = \"40B\"\nslow-timeout = \"3s\"");
    let (slow, fast, sender) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    world.pass(SECOND * 2);
    world.settle();
    assert!(!slow.is_closed());
    world.pass(SECOND);
    world.settle();
    assert!(slow.is_closed());
    fast.take(usize::MAX);
    assert_eq!(fast.got(), lines(100..200));
    assert!(!sender.is_closed());
    assert_eq!(world.hub.deadline(), None);
}

#[test]
fn under_wait_who_leaves_sets_the_others_free() {
    let mut world = World::relay("queue-size = \"40B\"");
    let (slow, fast, sender) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    slow.vanish();
    world.settle();
    fast.take(usize::MAX);
    assert_eq!(fast.got(), lines(100..200));
    assert!(slow.is_closed());
}

#[test]
fn disconnect_ends_who_has_no_room() {
    let mut world = World::relay("queue-size = \"40B\"\nslow-client = \"disconnect\"");
    let (slow, fast, sender) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    assert!(slow.is_closed() && slow.cut_off().is_some());
    fast.take(usize::MAX);
    assert_eq!(fast.got(), lines(100..200));
    let counters = world.counters();
    assert_eq!((counters.messages, counters.dropped()), (100, 0));
    // 10 bytes with the kernel.
    assert!(counters.undelivered > 0 && counters.undelivered <= 40);
}

#[test]
fn drop_costs_the_slow_client_alone_and_counts_it() {
    let mut world = World::relay("queue-size = \"40B\"\nslow-client = \"drop\"");
    let (slow, fast, sender) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    fast.take(usize::MAX);
    assert_eq!(fast.got(), lines(100..200));
    while slow.take(7) > 0 {
        world.settle();
    }
    let got = slow.got();
    let whole = got.split_inclusive(|&byte| byte == b'\n').count() as u64;
    assert!(got.ends_with(b"\n") && whole >= 12, "{whole}");
    assert_eq!(world.counters().dropped(), 100 - whole);
    sender.send(b"200\n");
    world.settle();
    slow.take(usize::MAX);
    assert!(slow.got().ends_with(b"200\n"));
}

/// What a stamped receiver got: numbers of messages, and the sums of the gaps between them.
fn stamped(got: &[u8]) -> Vec<Result<usize, (u64, u64)>> {
    let lines = got.split(|&byte| byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            match json["gap"].as_object() {
                Some(gap) => Err((
                    gap["count"].as_u64().unwrap(),
                    gap["bytes"].as_u64().unwrap(),
                )),
                None => Ok(json["message"].as_str().unwrap().parse().unwrap()),
            }
        })
        .collect()
}

#[test]
fn a_stamped_receiver_is_told_what_it_lost_where_it_lost_it() {
    let keys = "stamp = true\nqueue-size = \"2000B\"\nslow-client = \"drop\"";
    let mut world = World::relay(keys);
    let (slow, fast, sender) = (narrow(&mut world, 100), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    // Once it has read all that waited it is told, though nothing more is said.
    while slow.take(50) > 0 {
        world.settle();
    }
    let told = stamped(&slow.got());
    let (gap, got) = told.split_last().unwrap();
    assert!(got.len() >= 12);
    let mut at = 100;
    for number in got {
        assert_eq!(*number, Ok(at));
        at += 1;
    }
    let lost = 200 - at;
    fast.take(usize::MAX);
    let all = fast.got();
    let of_lost: usize = all
        .split_inclusive(|&byte| byte == b'\n')
        .skip(got.len())
        .map(<[u8]>::len)
        .sum();
    assert_eq!(*gap, Err((lost as u64, of_lost as u64)));
    assert_eq!(world.counters().dropped(), lost as u64);
    sender.send(b"200\n");
    world.settle();
    while slow.take(50) > 0 {
        world.settle();
    }
    assert_eq!(stamped(&slow.got()).last(), Some(&Ok(200)));
    let peer = format!("\"client\":3,\"pid\":{},\"uid\":7,\"gid\":8", PEER.pid);
    assert!(String::from_utf8(all).unwrap().contains(&peer));
}

#[test]
fn who_goes_without_reading_has_said_what_it_said() {
    let mut world = World::relay("queue-size = \"40B\"");
    let (slow, sender, other) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    other.send(&lines(300..310));
    world.settle();
    // It waits for the slow one, and what the other says cannot be written to it any more.
    sender.wire.borrow_mut().gone = true;
    sender.wire.borrow_mut().finished = true;
    while slow.take(7) > 0 {
        world.settle();
    }
    let got = slow.got();
    let said = got.split_inclusive(|&byte| byte == b'\n');
    assert_eq!(said.filter(|line| line[0] == b'1').count(), 100);
    assert!(sender.is_closed());
}

#[test]
fn a_stop_delivers_what_was_read_and_closes_all() {
    let mut world = World::relay("queue-size = \"40B\"");
    let (slow, idle, sender) = (narrow(&mut world, 10), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    idle.finish();
    world.settle();
    world.hub.stop();
    world.settle();
    assert!(!idle.is_closed(), "it is still to get something");
    while slow.take(7) > 0 {
        world.settle();
    }
    assert_eq!(slow.got(), lines(100..200));
    world.assert_empty();
}

#[test]
fn a_record_beside_relay_has_each_message_once_in_the_same_order() {
    let record = "[socket.s.record]\nformat = \"raw\"\nqueue-size = \"100B\"";
    let mut world = World::relay(&format!("queue-size = \"40B\"\n{record}"));
    let (slow, senders) = (narrow(&mut world, 10), [world.enter(0), world.enter(0)]);
    for (n, sender) in senders.iter().enumerate() {
        sender.send(&lines(1000 * (n + 1)..1000 * (n + 1) + 50));
    }
    loop {
        world.settle();
        if world.written(0) + slow.take(9) == 0 {
            break;
        }
    }
    assert_eq!(slow.got().len(), 500);
    assert_eq!(slow.got(), world.records[0]);
}

#[test]
fn bytes_between_messages_are_in_nobodys_way() {
    for slow_client in ["wait", "disconnect", "drop"] {
        let keys = format!("queue-size = \"40B\"\nslow-client = \"{slow_client}\"");
        let config = format!(
            "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"syslog\"\nmessage-size = \"16B\"\nslow-timeout = \"3s\"\n{keys}\n"
        );
        let mut world = World::new(&config);
        let (fast, slow) = (world.enter(0), narrow(&mut world, 10));
        let noisy = world.enter(0);
        // Terminators with nothing before them, more than a queue holds.
        noisy.send(&[b'\n'; 200]);
        noisy.send(b"said\n");
        for _ in 0..100 {
            world.settle();
            fast.take(usize::MAX);
            slow.take(usize::MAX);
            world.pass(SECOND / 10);
        }
        assert!(!fast.is_closed() && !noisy.is_closed(), "{slow_client}");
        assert!(fast.got().ends_with(b"said\n"), "{slow_client}");
        assert!(!slow.is_closed() || slow_client == "disconnect");
    }
}

#[test]
fn who_reads_is_not_judged_by_what_came_in_one_turn() {
    for slow_client in ["disconnect", "drop"] {
        let keys = format!("queue-size = \"40B\"\nslow-client = \"{slow_client}\"");
        let mut world = World::relay(&keys);
        let reader = narrow(&mut world, 40);
        let senders: Vec<Client> = (0..10).map(|_| world.enter(0)).collect();
        for sender in &senders {
            sender.send(b"0123456789abcde\n");
        }
        // One turn brings four times what its queue holds, and it reads after each.
        for _ in 0..100 {
            world.events();
            world.turn();
            reader.take(usize::MAX);
        }
        assert!(!reader.is_closed(), "{slow_client}");
        assert_eq!(reader.got().len(), 160, "{slow_client}");
        assert_eq!(world.counters().dropped(), 0);
    }
}
