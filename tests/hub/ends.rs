//! How clients end: half-close, a message too long, reset, stop, abandon.

use std::io;

use udsd::connection::Watch;

use crate::world::{SECOND, World, collect_socket, lines};

const LINES: &str = "framing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"40B\"";

#[test]
fn a_message_too_long_ends_its_sender_after_what_came_before_it() {
    let mut world = World::echo(LINES);
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    let mut sent = lines(100..120);
    let owed = sent.clone();
    sent.extend([b'x'; 17]);
    client.send(&sent);
    world.settle();
    while client.take(10) > 0 {
        world.settle();
    }
    assert_eq!(client.got(), owed);
    assert!(client.is_closed());
    assert!(client.cut_off().is_some());
    world.assert_empty();
}

#[test]
fn a_message_too_long_is_closed_by_time_where_nobody_takes_what_came_before() {
    let mut world = World::echo(&format!("{LINES}\nslow-timeout = \"10s\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(b"one\ntwo\nthree\n");
    client.send(&[b'x'; 100]);
    world.settle();
    assert!(!client.is_closed());
    world.pass(10 * SECOND);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn half_close_delivers_what_is_owed_and_ends() {
    let mut world = World::echo(LINES);
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..150));
    client.send(b"unfinished");
    client.finish();
    world.settle();
    while client.take(10) > 0 {
        world.settle();
    }
    let mut expected = lines(100..150);
    expected.extend(b"unfinished\n");
    assert_eq!(client.got(), expected);
    assert!(client.is_closed());
    assert_eq!(
        client.hung_up(),
        None,
        "after an end of file nothing is to be read away"
    );
    assert_eq!(world.counters().unfinished, 0);
    world.assert_empty();
}

#[test]
fn an_unfinished_message_that_is_lost_is_counted() {
    let mut world = World::echo("framing = \"length-prefixed\"");
    let client = world.enter(0);
    client.send(b"\0\0\0\x09half");
    client.finish();
    world.settle();
    assert!(client.is_closed());
    assert_eq!(world.counters().unfinished, 1);
    world.assert_empty();
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let mut world = World::echo(&format!("{LINES}\nidle-timeout = \"1min\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..150));
    world.settle();
    client.vanish();
    world.settle();
    assert!(client.is_closed());
    assert!(world.counters().undelivered > 0);
    world.assert_empty();
}

#[test]
fn a_reset_after_the_last_message_loses_none() {
    let mut world = World::collect("");
    let client = world.enter(0);
    client.send(b"one\ntwo\nthree");
    client.vanish();
    world.settle();
    assert!(client.is_closed());
    assert_eq!(world.records[0], b"one\ntwo\nthree\n");
    world.assert_empty();
}

#[test]
fn stop_delivers_what_was_read_and_reads_no_more() {
    let mut world = World::echo(LINES);
    let (slow, quiet) = (world.enter(0), world.enter(0));
    slow.wire.borrow_mut().capacity = 10;
    let read = lines(100..112);
    slow.send(&read);
    world.settle();
    slow.send(b"later\n");
    quiet.send(b"unheard\n");
    world.hub.stop();
    world.settle();
    assert_eq!(quiet.hung_up(), Some(8));
    assert!(quiet.is_closed());
    while slow.take(10) > 0 {
        world.settle();
    }
    assert_eq!(slow.got(), read);
    assert_eq!(slow.hung_up(), Some(6));
    assert_eq!(world.counters().unread, 14);
    assert_eq!(world.counters().undelivered, 0);
    world.assert_empty();
}

#[test]
fn stop_waits_until_what_was_read_is_recorded() {
    let mut world = World::collect("queue-size = \"65B\"");
    let client = world.enter(0);
    client.send(&lines(1000..1100));
    world.settle();
    world.hub.stop();
    world.settle();
    assert!(!client.is_closed());
    while world.written(0) > 0 {
        world.settle();
    }
    assert!(client.is_closed());
    assert_eq!(world.records[0], lines(1000..1100));
    world.assert_empty();
}

#[test]
fn abandon_closes_all_and_counts_what_they_are_owed() {
    let mut world = World::new(&format!(
        "[socket.s]\npath = \"/run/s\"\nidle-timeout = \"1min\"\n{LINES}\n{}",
        collect_socket("queue-size = \"65B\"")
    ));
    let (slow, quiet, blocked) = (world.enter(0), world.enter(0), world.enter(1));
    slow.wire.borrow_mut().capacity = 10;
    slow.send(&lines(100..150));
    blocked.send(&lines(1000..1100));
    world.settle();
    quiet.send(b"unheard\n");
    world.hub.stop();
    let now = world.now();
    world.hub.abandon(now);
    for client in [&slow, &quiet, &blocked] {
        assert!(client.is_closed() && client.hung_up().is_some());
    }
    assert!(world.counters().undelivered > 0);
    assert_eq!(world.counters().unread, 8);
    world.assert_empty();
}

#[test]
fn a_client_that_the_event_loop_cannot_watch_is_closed() {
    let mut world = World::echo("");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 1;
    client.send(b"hello");
    let now = world.now();
    let event = Watch {
        read: true,
        write: false,
        end: false,
    };
    world.hub.event(client.key, event);
    world.hub.serve(now);
    assert!(world.hub.next_watch_change().is_some());
    let reason = io::ErrorKind::OutOfMemory.into();
    world.hub.fail(client.key, reason, now);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn messages_that_were_read_and_are_lost_are_counted_one_by_one() {
    let mut world = World::collect("queue-size = \"65B\"");
    let client = world.enter(0);
    client.send(&lines(1000..1100));
    client.send(b"half");
    world.settle();
    world.hub.stop();
    world.settle();
    let now = world.now();
    world.hub.abandon(now);
    let counters = world.counters();
    assert!(client.is_closed());
    assert_eq!(counters.messages + counters.untaken, 100);
    assert_eq!(counters.unfinished, 1);
    world.assert_empty();
}
