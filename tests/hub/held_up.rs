//! relay under `wait`: who holds up whom, for how long, and that nobody is forgotten over it.

use crate::world::{Client, SECOND, World, lines};

/// A relay of lines with these keys, and a raw record of 40 bytes beside it.
fn recorded(keys: &str) -> World {
    World::relay(&format!(
        "{keys}\n[socket.s.record]\nformat = \"raw\"\nqueue-size = \"40B\""
    ))
}

/// A receiver whose kernel holds 10 bytes.
fn narrow(world: &mut World) -> Client {
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client
}

#[test]
fn a_receiver_that_half_closed_and_reads_slowly_stays() {
    let mut world = World::relay("queue-size = \"40B\"");
    let (slow, sender) = (narrow(&mut world), world.enter(0));
    slow.finish();
    sender.send(&lines(100..200));
    world.settle();
    // The stall is told, which is a look at the client.
    world.pass(SECOND);
    assert!(!slow.is_closed());
    while slow.take(usize::MAX) > 0 {
        world.settle();
    }
    assert_eq!(slow.got(), lines(100..200));
}

#[test]
fn a_receiver_that_goes_in_a_stop_is_closed() {
    let mut world = recorded("");
    let (listener, sender) = (world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    world.hub.stop();
    world.settle();
    assert!(!listener.is_closed(), "the rest is still to come");
    listener.wire.borrow_mut().gone = true;
    // To come to rest here takes that its end is not told again and again.
    world.settle();
    assert!(listener.is_closed());
    while world.written(0) > 0 {
        world.settle();
    }
    assert_eq!(world.records[0], lines(100..200));
    world.assert_empty();
}

#[test]
fn a_silent_receiver_gets_in_a_stop_what_is_still_to_come() {
    let mut world = recorded("idle-timeout = \"3s\"");
    let (listener, sender) = (world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    world.hub.stop();
    world.settle();
    world.pass(SECOND * 4);
    while world.written(0) > 0 {
        world.settle();
    }
    listener.take(usize::MAX);
    assert_eq!(listener.got(), lines(100..200));
    world.assert_empty();
}

#[test]
fn a_stop_goes_on_when_the_last_who_waited_is_closed() {
    let mut world = recorded("");
    let (listener, sender) = (world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    world.hub.stop();
    world.settle();
    assert!(!listener.is_closed() && !sender.is_closed());
    let now = world.now();
    let reason = std::io::ErrorKind::Other.into();
    world.hub.fail(sender.key, reason, now);
    world.settle();
    assert!(listener.is_closed(), "waits for nobody");
}
