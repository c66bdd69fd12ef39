//! Echo: whole and in order, however the kernel cuts it.

use crate::world::{Random, World, lines, pattern};

#[test]
fn bytes_go_back_whole_and_in_order() {
    let mut world = World::echo("");
    let client = world.enter(0);
    let sent = pattern(300_000);
    client.send(&sent);
    world.settle();
    client.take(usize::MAX);
    assert!(client.got() == sent);
    assert_eq!(world.counters().bytes, 300_000);
}

#[test]
fn a_kernel_that_takes_one_byte_at_a_time_delivers_all() {
    let mut world =
        World::echo("framing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"32B\"");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 1;
    let sent = lines(0..300);
    client.send(&sent);
    for _ in 0..sent.len() {
        world.settle();
        assert_eq!(client.take(1), 1);
    }
    world.settle();
    assert_eq!(client.got(), sent);
    assert_eq!(world.counters().messages, 300);
}

#[test]
fn a_kernel_that_takes_nothing_is_waited_for() {
    let mut world = World::echo("");
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 0;
    client.send(b"hello");
    world.settle();
    assert!(client.wire.borrow().watched.write);
    client.wire.borrow_mut().capacity = 100;
    client.take(0);
    world.settle();
    client.take(usize::MAX);
    assert_eq!(client.got(), b"hello");
    assert!(
        !client.wire.borrow().watched.write,
        "watches for room without need"
    );
}

#[test]
fn reads_that_stop_at_control_data_go_on() {
    let mut world = World::echo("");
    let client = world.enter(0);
    client.wire.borrow_mut().whims = Some(Random::new(5));
    let sent = pattern(10_000);
    client.send(&sent);
    world.settle();
    client.take(usize::MAX);
    world.settle();
    client.take(usize::MAX);
    assert!(client.got() == sent);
}

#[test]
fn reads_that_stop_short_leave_nothing_behind() {
    let mut world = World::echo("");
    let client = world.enter(0);
    let sent = pattern(1000);
    client.send(&sent);
    client.wire.borrow_mut().whims = Some(Random::new(9));
    world.settle();
    assert_eq!(client.unread(), 0);
}

#[test]
fn a_message_in_pieces_comes_back_in_one() {
    let mut world = World::echo("framing = \"length-prefixed\"");
    let client = world.enter(0);
    for byte in b"\0\0\0\x03abc" {
        assert_eq!(client.wire.borrow().written, 0);
        client.send(&[*byte]);
        world.settle();
    }
    client.take(usize::MAX);
    assert_eq!(client.got(), b"\0\0\0\x03abc");
    assert_eq!(world.counters().messages, 1);
}

#[test]
fn bytes_that_belong_to_no_message_fit_a_queue_of_any_size() {
    for at in [0, 6, 3000] {
        let mut world =
            World::echo("framing = \"syslog\"\nmessage-size = \"512B\"\nqueue-size = \"1KiB\"");
        let client = world.enter(0);
        client.wire.borrow_mut().capacity = 100;
        let mut sent = vec![b'\n'; 3000];
        sent.splice(at..at, *b"<1>hi\n");
        client.send(&sent);
        client.finish();
        world.settle();
        while client.take(100) > 0 {
            world.settle();
        }
        assert!(client.is_closed(), "message at {at}");
        assert!(client.got() == sent, "message at {at}");
        assert_eq!(world.counters().messages, 1);
    }
}
