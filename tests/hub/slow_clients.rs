//! A full queue: wait, disconnect, drop, and the clock of who does not read.

use std::io;

use crate::world::{SECOND, World, lines, pattern};

const LINES: &str = "framing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"40B\"";

#[test]
fn wait_stops_reading_and_goes_on_when_there_is_room() {
    let mut world = World::echo(LINES);
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    let first = lines(100..120);
    client.send(&first);
    world.settle();
    let read = client.wire.borrow().read;
    assert_eq!(
        read,
        first.len(),
        "the first read came before the queue was full"
    );
    client.send(&lines(120..200));
    world.settle();
    assert_eq!(
        client.wire.borrow().read,
        read,
        "read on while the queue is full"
    );
    let mut rounds = 0;
    while client.take(7) > 0 {
        world.settle();
        rounds += 1;
    }
    assert_eq!(client.got(), lines(100..200));
    assert!(rounds > 50);
    assert_eq!(world.counters().dropped(), 0);
}

#[test]
fn a_queue_holds_queue_size_and_no_more() {
    let mut world = World::echo("message-size = \"16B\"\nqueue-size = \"40B\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&pattern(1000));
    world.settle();
    let now = world.now();
    world.hub.fail(client.key, io::ErrorKind::Other.into(), now);
    assert_eq!(world.counters().undelivered, 40);
    world.assert_empty();
}

#[test]
fn disconnect_ends_the_client_and_counts_what_it_did_not_take() {
    let mut world = World::echo(&format!("{LINES}\nslow-client = \"disconnect\""));
    let (slow, other) = (world.enter(0), world.enter(0));
    slow.wire.borrow_mut().capacity = 10;
    slow.send(&lines(100..120));
    other.send(b"here\n");
    world.settle();
    assert!(slow.is_closed());
    assert_eq!(slow.cut_off(), Some(0));
    assert!(!other.is_closed());
    other.take(100);
    assert_eq!(other.got(), b"here\n");
    let counters = world.counters();
    // 10 bytes with the kernel, 38 in the queue.
    assert_eq!((counters.messages, counters.undelivered), (13, 38));
    other.finish();
    world.settle();
    world.assert_empty();
}

#[test]
fn drop_loses_whole_messages_for_the_slow_client_and_counts_each() {
    let mut world = World::echo(&format!("{LINES}\nslow-client = \"drop\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..200));
    world.settle();
    assert_eq!(client.unread(), 0, "drop must not stop reading");
    let counters = world.counters();
    assert_eq!(counters.messages + counters.dropped(), 100);
    assert!(counters.dropped() > 50, "{counters:?}");
    while client.take(10) > 0 {
        world.settle();
    }
    client.send(b"last\n");
    world.settle();
    client.take(10);
    let delivered = counters.messages as usize;
    let mut expected = lines(100..100 + delivered);
    expected.extend(b"last\n");
    assert_eq!(client.got(), expected);
    assert_eq!(
        world.hub.deadline(),
        None,
        "nobody is slow where messages are dropped"
    );
}

#[test]
fn what_is_dropped_of_a_stream_without_framing_is_counted() {
    let mut world =
        World::echo("message-size = \"16B\"\nqueue-size = \"40B\"\nslow-client = \"drop\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&pattern(1000));
    world.settle();
    client.take(usize::MAX);
    world.settle();
    client.take(usize::MAX);
    assert!(client.wire.borrow().written < 1000, "nothing was dropped");
    assert!(
        world.counters().dropped() > 0,
        "bytes were lost and nothing says so"
    );
}

#[test]
fn slow_timeout_closes_who_takes_less_than_half_of_queue_size() {
    let mut world = World::echo(&format!("{LINES}\nslow-timeout = \"10s\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..140));
    world.settle();
    assert_eq!(world.hub.deadline(), Some(world.start + 10 * SECOND));
    world.pass(9 * SECOND);
    client.take(10);
    world.settle();
    assert!(!client.is_closed());
    world.pass(SECOND);
    assert!(client.is_closed(), "it took 10 of 40 bytes in 10 seconds");
    world.assert_empty();
    let counters = world.counters();
    assert!(counters.undelivered > 20, "{counters:?}");
}

#[test]
fn who_takes_half_of_queue_size_in_slow_timeout_stays() {
    let mut world = World::echo(&format!("{LINES}\nslow-timeout = \"10s\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    let sent = lines(100..200);
    client.send(&sent);
    world.settle();
    // 20 of 40 bytes in 10 seconds.
    for _ in 0..sent.len() / 10 {
        client.take(10);
        world.settle();
        world.pass(5 * SECOND);
        assert!(!client.is_closed(), "after {:?}", world.passed);
    }
    assert_eq!(client.got(), sent);
    world.pass(10 * SECOND);
    assert_eq!(world.hub.deadline(), None, "it is slow no more");
}

#[test]
fn what_goes_past_the_queue_counts_as_taken() {
    // The kernel holds ten times queue-size, and all but the last bytes go there directly.
    let mut world = World::echo(
        "framing = \"fixed:40\"\nmessage-size = \"40B\"\nqueue-size = \"40B\"\nslow-timeout = \"10s\"",
    );
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 395;
    client.send(&pattern(40 * 100));
    world.settle();
    world.pass(9 * SECOND);
    assert_eq!(client.take(usize::MAX), 395);
    world.settle();
    world.pass(SECOND);
    assert!(!client.is_closed(), "it took 395 bytes in 10 seconds");
}

#[test]
fn a_queue_with_room_is_nobodys_fault() {
    let mut world = World::echo(&format!("{LINES}\nslow-timeout = \"10s\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..105));
    world.settle();
    assert_eq!(world.hub.deadline(), None);
    world.pass(1000 * SECOND);
    assert!(!client.is_closed());
}

#[test]
fn the_clock_of_a_slow_client_starts_anew_once_its_queue_had_room() {
    let mut world = World::echo(&format!("{LINES}\nslow-timeout = \"10s\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..115));
    world.settle();
    world.pass(8 * SECOND);
    while client.take(10) > 0 {
        world.settle();
    }
    client.send(&lines(115..140));
    world.settle();
    world.pass(9 * SECOND);
    assert!(!client.is_closed(), "full for 9 seconds only");
    world.pass(SECOND);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn what_belongs_to_no_message_is_not_dropped_as_one() {
    let mut world = World::echo(
        "framing = \"syslog\"\nslow-client = \"drop\"\nmessage-size = \"16B\"\nqueue-size = \"32B\"",
    );
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 4;
    for _ in 0..2 {
        client.send(b"<1>aaaaaaaaa\n");
    }
    client.send(&[b'\n'; 100]);
    world.settle();
    let counters = world.counters();
    assert_eq!((counters.messages, counters.dropped()), (2, 0));
}
