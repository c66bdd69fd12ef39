//! Silence, and what a deadline must not overlook.

use std::time::Duration;

use crate::world::{SECOND, World, collect_socket, lines, pattern};

const IDLE: &str = "idle-timeout = \"10s\"";

#[test]
fn idle_timeout_closes_the_silent_and_no_other() {
    let mut world = World::echo(IDLE);
    let (silent, lively) = (world.enter(0), world.enter(0));
    for _ in 0..3 {
        world.pass(4 * SECOND);
        lively.send(b"x");
        world.settle();
    }
    assert!(silent.is_closed());
    assert_eq!(silent.cut_off(), Some(0));
    assert!(!lively.is_closed());
    assert_eq!(world.hub.deadline(), Some(world.start + 18 * SECOND));
    world.pass(6 * SECOND);
    world.pass(4 * SECOND);
    assert!(lively.is_closed());
    world.assert_empty();
}

#[test]
fn taking_output_is_not_silence() {
    let mut world =
        World::echo("idle-timeout = \"10s\"\nmessage-size = \"16B\"\nqueue-size = \"1KiB\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&pattern(100));
    for _ in 0..4 {
        world.settle();
        world.pass(6 * SECOND);
        client.take(10);
    }
    world.settle();
    assert!(!client.is_closed());
}

#[test]
fn who_has_spoken_when_its_time_is_over_is_heard() {
    // A daemon that was frozen for a while finds events and deadlines at once.
    let mut world = World::echo(IDLE);
    let client = world.enter(0);
    client.send(b"here");
    world.passed += 11 * SECOND;
    world.events();
    world.pass(Duration::ZERO);
    client.take(10);
    assert!(
        !client.is_closed(),
        "closed as idle with its message unread"
    );
    assert_eq!(client.got(), b"here");
}

#[test]
fn who_has_taken_its_output_when_its_time_is_over_is_not_slow() {
    let mut world =
        World::echo("message-size = \"16B\"\nqueue-size = \"40B\"\nslow-timeout = \"10s\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 40;
    client.send(&pattern(200));
    world.settle();
    client.take(40);
    world.events();
    world.pass(11 * SECOND);
    assert!(!client.is_closed(), "closed as slow before room was used");
    while client.take(40) > 0 {
        world.settle();
    }
    assert_eq!(client.got(), pattern(200));
}

#[test]
fn a_client_that_waits_for_the_record_is_not_idle() {
    let mut world = World::new(&collect_socket("queue-size = \"65B\"").replace(
        "queue-size = \"1KiB\"",
        "queue-size = \"1KiB\"\nidle-timeout = \"10s\"",
    ));
    let client = world.enter(0);
    client.send(&lines(1000..1100));
    world.settle();
    for _ in 0..4 {
        world.pass(10 * SECOND);
        assert!(!client.is_closed());
    }
    while world.written(0) > 0 {
        world.settle();
    }
    world.pass(10 * SECOND);
    world.pass(10 * SECOND);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn who_has_just_been_heard_after_a_long_wait_for_the_record_is_not_idle() {
    let mut world = World::new(&collect_socket("queue-size = \"65B\"").replace(
        "queue-size = \"1KiB\"",
        "queue-size = \"1KiB\"\nidle-timeout = \"10s\"",
    ));
    let client = world.enter(0);
    client.send(&lines(1000..1030));
    world.settle();
    world.pass(9 * SECOND);
    while world.written(0) > 0 {
        world.settle();
    }
    world.pass(9 * SECOND);
    assert!(!client.is_closed(), "it was udsd that kept silent");
    world.pass(SECOND);
    assert!(client.is_closed());
}
