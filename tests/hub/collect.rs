//! Collect: lines in order, a full record, what waits for it.

use std::io;

use udsd::{
    access::Access,
    config::{BaseDirs, Config},
    hub::{Hub, Socket},
    limits::Limits,
    record::{Encoder, Format, OnFull, Record, Recorder},
};

use crate::world::{Random, SECOND, World, collect_socket, lines};

#[test]
fn messages_become_lines_in_order_with_their_senders() {
    let mut world =
        World::new(&collect_socket("").replace("format = \"raw\"", "format = \"json\""));
    let client = world.enter(0);
    client.send(b"one\ntwo\nthr");
    world.settle();
    client.send(b"ee\n");
    world.settle();
    let record = String::from_utf8(world.records[0].clone()).unwrap();
    let found: Vec<serde_json::Value> = record
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages = ["one", "two", "three"];
    assert_eq!(found.len(), messages.len());
    for (i, (line, message)) in found.iter().zip(messages).enumerate() {
        assert_eq!(line["message"], message);
        assert_eq!(line["seq"], i + 1);
        assert_eq!((&line["pid"], &line["uid"]), (&100.into(), &7.into()));
        assert_eq!(line["socket"], "log");
        assert_eq!(line["time"], "1970-01-01T00:00:00.000000Z");
    }
    assert_eq!(client.wire.borrow().written, 0, "collect answers nothing");
}

#[test]
fn a_full_record_stops_reading_and_progress_goes_on_with_it() {
    let mut world = World::collect("queue-size = \"65B\"");
    let clients = [world.enter(0), world.enter(0)];
    for client in &clients {
        client.send(&lines(1000..1100));
    }
    world.settle();
    for client in &clients {
        client.send(&lines(1100..1200));
    }
    world.settle();
    for client in &clients {
        assert_eq!(client.unread(), 500, "read on while the record is full");
    }
    assert_eq!(world.hub.sockets()[0].wait_queue().waiting().count(), 2);
    while let waiting = world.unwritten(0)
        && waiting > 0
    {
        assert!(waiting <= 65, "{waiting} bytes wait");
        world.write(0, waiting.div_ceil(2));
        world.settle();
    }
    // Each sender's lines are whole and in order: two sequences, merged.
    let record = String::from_utf8(world.records[0].clone()).unwrap();
    let mut next = [1000, 1000];
    for line in record.lines() {
        let n: usize = line.parse().unwrap();
        let sender = next.iter().position(|&next| next == n).unwrap();
        next[sender] += 1;
    }
    assert_eq!(next, [1200, 1200]);
    assert_eq!(world.counters().messages, 400);
}

#[test]
fn a_line_that_is_longer_than_the_queue_waits_alone() {
    let config = Config::parse(&collect_socket(""), None, &BaseDirs::system()).unwrap();
    let tiny = Recorder::new(Encoder::new(Format::Raw, false, "log"), Record::new(1, 0));
    let mut world = World::collect("");
    world.hub = Hub::new(
        vec![Socket::new(
            &config.sockets[0],
            Access::default(),
            Some(tiny),
        )],
        Limits::new(10, 10),
    );
    let client = world.enter(0);
    client.send(b"longer\nthan\nthis\n");
    world.settle();
    assert_eq!(world.records[0], b"longer\n");
    while world.written(0) > 0 {
        world.settle();
    }
    assert_eq!(world.records[0], b"longer\nthan\nthis\n");
}

#[test]
fn a_long_message_is_cut_marked_and_counted() {
    let mut world =
        World::new(&collect_socket("").replace("format = \"raw\"", "format = \"json\""));
    let client = world.enter(0);
    client.send(&[b'x'; 1000]);
    client.send(b"\nnext\n");
    world.settle();
    let record = String::from_utf8(world.records[0].clone()).unwrap();
    let found: Vec<serde_json::Value> = record
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["message"], "x".repeat(64));
    assert_eq!(found[0]["truncated"], true);
    assert_eq!(found[1]["message"], "next");
    assert_eq!(world.counters().truncated, 1);
}

#[test]
fn a_client_that_is_closed_while_it_waits_leaves_nothing_behind() {
    let mut world = World::new(&collect_socket("queue-size = \"65B\"").replace(
        "queue-size = \"1KiB\"",
        "queue-size = \"1KiB\"\nidle-timeout = \"1min\"",
    ));
    let (leaver, stayer) = (world.enter(0), world.enter(0));
    leaver.send(&lines(1000..1100));
    stayer.send(&lines(2000..2010));
    world.settle();
    assert_eq!(world.hub.sockets()[0].wait_queue().waiting().count(), 2);
    let now = world.now();
    world.hub.fail(leaver.key, io::ErrorKind::Other.into(), now);
    assert_eq!(
        world.hub.sockets()[0].wait_queue().first(),
        Some(stayer.key)
    );
    // Somebody else gets its key, and none of its wait.
    let heir = world.enter(0);
    assert_eq!(heir.key, leaver.key);
    while world.written(0) > 0 {
        world.settle();
    }
    assert!(world.records[0].ends_with(&lines(2000..2010)));
    for client in [&stayer, &heir] {
        client.finish();
    }
    world.settle();
    world.assert_empty();
}

#[test]
fn the_end_of_a_waiting_client_is_seen_after_its_last_line() {
    let mut world = World::collect("queue-size = \"65B\"");
    let client = world.enter(0);
    client.send(&lines(1000..1100));
    client.send(b"last");
    client.finish();
    world.settle();
    assert!(!client.is_closed());
    while world.written(0) > 0 {
        world.settle();
    }
    let mut expected = lines(1000..1100);
    expected.extend(b"last\n");
    assert_eq!(world.records[0], expected);
    assert!(client.is_closed());
    world.assert_empty();
}

/// An echo socket of lines whose messages are recorded too.
fn audited(queue_size: usize, record_size: usize, keys: &str) -> World {
    World::new(
        &collect_socket(&format!("queue-size = \"{record_size}B\""))
            .replace(
                "service = \"collect\"",
                &format!("service = \"echo\"\n{keys}"),
            )
            .replace(
                "queue-size = \"1KiB\"",
                &format!("queue-size = \"{queue_size}B\""),
            ),
    )
}

#[test]
fn beside_echo_each_message_is_recorded_once_whoever_waits() {
    let sent = lines(1000..1400);
    for (queue_size, record_size, capacity) in [(70, 1000, 10), (1000, 70, 1000), (70, 70, 33)] {
        let mut world = audited(queue_size, record_size, "");
        let client = world.enter(0);
        client.wire.borrow_mut().capacity = capacity;
        client.send(&sent);
        client.finish();
        while !client.is_closed() {
            world.settle();
            assert!(world.unwritten(0) <= record_size);
            assert!(world.hub.sockets()[0].wait_queue().waiting().count() <= 1);
            // Both go on by turns, so that each is at times the one that is waited for.
            if client.take(7) == 0 {
                world.written(0);
            }
        }
        client.take(usize::MAX);
        assert!(
            client.got() == sent,
            "queue {queue_size}, record {record_size}"
        );
        assert!(
            world.records[0] == sent,
            "queue {queue_size}, record {record_size}"
        );
        world.assert_empty();
    }
}

#[test]
fn what_is_dropped_for_a_slow_client_is_recorded_all_the_same() {
    let mut world = audited(70, 10_000, "slow-client = \"drop\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    let sent = lines(1000..1400);
    client.send(&sent);
    world.settle();
    assert!(world.counters().dropped() > 300);
    assert!(world.records[0] == sent);
}

#[test]
fn a_record_with_little_room_goes_on_with_few_who_wait_and_in_their_order() {
    let mut world = World::collect("queue-size = \"100B\"");
    let clients: Vec<_> = (0..50).map(|_| world.enter(0)).collect();
    for (i, client) in clients.iter().enumerate() {
        client.send(&lines(10_000 + 100 * i..10_000 + 100 * i + 20));
    }
    world.settle();
    while world.unwritten(0) > 0 {
        let before = world.hub.sockets()[0].wait_queue().waiting().count();
        world.write(0, 6);
        let after = world.hub.sockets()[0].wait_queue().waiting().count();
        assert!(before - after <= 2, "{} woken for one line", before - after);
        world.settle();
    }
    let expected: Vec<u8> = (0..50)
        .flat_map(|i| lines(10_000 + 100 * i..10_000 + 100 * i + 20))
        .collect();
    assert!(world.records[0] == expected, "first come, first recorded");
}

#[test]
fn who_was_called_and_records_nothing_holds_up_nobody() {
    // The first one's own queue is full when the record has room.
    let mut world = audited(70, 70, "");
    let (first, second) = (world.enter(0), world.enter(0));
    first.wire.borrow_mut().capacity = 4;
    first.send(&lines(1000..1100));
    world.settle();
    second.send(&lines(2000..2003));
    second.finish();
    world.settle();
    assert_eq!(world.hub.sockets()[0].wait_queue().waiting().count(), 2);
    while world.written(0) > 0 {
        world.settle();
    }
    second.take(usize::MAX);
    assert!(second.is_closed());
    assert_eq!(second.got(), lines(2000..2003));
}

#[test]
fn who_was_called_and_goes_holds_up_nobody() {
    let mut world = audited(1000, 70, "");
    let (first, second) = (world.enter(0), world.enter(0));
    first.wire.borrow_mut().capacity = 4;
    first.send(&lines(1000..1100));
    world.settle();
    second.send(&lines(2000..2003));
    second.finish();
    world.settle();
    world.written(0);
    first.vanish();
    world.settle();
    while world.written(0) > 0 {
        world.settle();
    }
    assert!(second.is_closed());
    world.assert_empty();
}

#[test]
fn a_disk_that_hangs_makes_nobody_a_slow_client() {
    let mut world = audited(70, 200, "slow-timeout = \"10s\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 4;
    client.send(&lines(1000..1100));
    world.settle();
    // From now on it reads all that it can get.
    client.wire.borrow_mut().capacity = 100_000;
    for _ in 0..60 {
        client.take(usize::MAX);
        world.settle();
        world.pass(SECOND);
    }
    assert!(!client.is_closed());
}

#[test]
fn each_message_of_a_client_that_is_cut_off_is_counted() {
    for record_size in [100, 10_000] {
        let mut world = audited(70, record_size, "slow-client = \"disconnect\"");
        let client = world.enter(0);
        client.wire.borrow_mut().capacity = 10;
        client.send(&lines(1000..1400));
        world.settle();
        assert!(client.is_closed());
        let counters = world.counters();
        assert_eq!(counters.messages + counters.untaken, 400, "{counters}");
        while world.written(0) > 0 {
            world.settle();
        }
        world.assert_empty();
    }
}

#[test]
fn a_long_line_has_its_turn_among_many_short_ones() {
    let mut world = World::collect("queue-size = \"100B\"");
    let [long, short, other] = [0; 3].map(|socket| world.enter(socket));
    short.send(&lines(10_000..10_016));
    world.settle();
    let line = [&[b'L'; 60][..], b"\n"].concat();
    long.send(&line);
    world.settle();
    for round in 0..100 {
        if world.unwritten(0) >= 6 {
            world.write(0, 6);
        }
        let sender = if round % 2 == 0 { &short } else { &other };
        sender.send(&lines(20_000..20_001));
        world.settle();
    }
    let recorded = world.records[0]
        .windows(line.len())
        .any(|part| part == line);
    assert!(recorded, "starved by short lines");
}

#[test]
fn who_sends_to_a_full_record_that_drops_does_not_wait_and_is_counted() {
    let mut world = World::new(&collect_socket("queue-size = \"65B\"\non-full = \"drop\""));
    let client = world.enter(0);
    client.send(&lines(1000..1100));
    client.finish();
    world.settle();
    world.assert_empty();
    assert_eq!(world.records[0], lines(1000..1013));
    let counters = world.counters();
    assert_eq!((counters.messages, counters.unrecorded), (100, 87));
    // Raw lines tell of no gap.
    world.written(0);
    world.settle();
    assert_eq!(world.unwritten(0), 0);
    let late = world.enter(0);
    late.send(b"late\n");
    world.settle();
    assert!(world.records[0].ends_with(b"1012\nlate\n"));
}

/// One who sends, and a disk, restarts and reloads at random: what was dropped is told in its place, to the message
/// and the byte, and files end where they are to.
#[test]
fn what_a_record_lacks_is_told_where_it_is_missing() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let keys = "queue-size = \"2KiB\"\non-full = \"drop\"";
        let text = collect_socket(keys).replace("format = \"raw\"", "format = \"json\"");
        let mut config = Config::parse(&text, None, &BaseDirs::system())
            .unwrap()
            .sockets;
        config[0].record.as_mut().unwrap().rotate_size = Some(300 + random.below(3_000));
        let mut world = World::of(&config, Limits::new(10, 10));
        let client = world.enter(0);
        let mut sent = Vec::new();
        for _ in 0..60 {
            match random.below(10) {
                0..5 => {
                    for _ in 0..random.below(20) {
                        let length = random.below(50) as usize;
                        let message = format!("{} {}", sent.len(), "x".repeat(length));
                        client.send(format!("{message}\n").as_bytes());
                        sent.push(message);
                    }
                    world.settle();
                }
                5..8 => {
                    let written = random.below(world.unwritten(0) as u64 + 1);
                    world.write(0, written as usize);
                    world.settle();
                }
                8 => {
                    world.restart(Limits::new(10, 10), random.one_in(2), None);
                    world.settle();
                }
                _ => {
                    let keys = config[0].record.as_mut().unwrap();
                    keys.on_full = random.pick(&[OnFull::Drop, OnFull::Drop, OnFull::Wait]);
                    keys.queue_size = 1024 + random.below(2_000) as usize;
                    world.reload_as(config.clone(), &Limits::new(10, 10));
                    world.settle();
                }
            }
        }
        world.clients.values().for_each(|client| client.finish());
        while world.written(0) > 0 {
            world.settle();
        }
        let dropped = assert_told(&world, &sent);
        assert_eq!(dropped, world.counters().unrecorded, "seed {seed}");
        assert_segments(
            &world,
            config[0].record.as_ref().unwrap().rotate_size.unwrap(),
        );
    }
}

/// What stands in the record is `sent`, but for what gaps tell of; returns how many these are.
fn assert_told(world: &World, sent: &[String]) -> u64 {
    let (mut next, mut dropped) = (0, 0);
    let text = String::from_utf8(world.records[0].clone()).unwrap();
    let mut seq = 0;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let count = line["gap"]["count"].as_u64().unwrap_or(0);
        if count > 0 {
            let lost = &sent[next..next + count as usize];
            let bytes: usize = lost.iter().map(String::len).sum();
            assert_eq!(line["gap"]["bytes"], bytes);
            (next, dropped) = (next + lost.len(), dropped + count);
        } else {
            seq += 1;
            assert_eq!(line["seq"], seq);
            assert_eq!(line["message"], sent[next]);
            next += 1;
        }
    }
    assert_eq!(next, sent.len());
    dropped
}

/// No file is longer than `most`, unless it is one line, and each is named after its first message.
fn assert_segments(world: &World, most: u64) {
    let mut begin = 0;
    for cut in &world.segment_ends[0] {
        let text = str::from_utf8(&world.records[0][begin..cut.at]).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let messages = lines.iter().filter(|line| line["seq"].is_u64());
        assert!(
            text.len() as u64 <= most || messages.clone().count() == 1,
            "{text}"
        );
        assert_eq!(messages.clone().next().unwrap()["seq"], cut.first);
        begin = cut.at;
    }
}
