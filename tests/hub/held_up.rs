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
fn senders_that_wait_for_a_record_and_for_receivers_go_on() {
    let mut world = recorded("queue-size = \"40B\"");
    let slow = narrow(&mut world);
    let senders: Vec<Client> = (0..4).map(|_| world.enter(0)).collect();
    for (n, sender) in senders.iter().enumerate() {
        sender.send(&lines(1000 * (n + 1)..1000 * (n + 1) + 50));
    }
    for n in 0.. {
        world.settle();
        // By turns, so that each is at times what is waited for.
        let moved = match n % 3 {
            0 => slow.take(usize::MAX),
            1 => world.written(0),
            _ => senders.iter().map(|sender| sender.take(usize::MAX)).sum(),
        };
        if moved == 0 && slow.got().len() == 1000 {
            break;
        }
        assert!(n < 10_000, "nobody goes on");
    }
    assert_eq!(slow.got(), world.records[0]);
}

#[test]
fn who_holds_up_only_itself_may_send_and_stay() {
    let mut world = World::relay("queue-size = \"40B\"\nslow-timeout = \"3s\"");
    let (slow, sender, listener) = (narrow(&mut world), world.enter(0), world.enter(0));
    sender.send(&lines(100..200));
    world.settle();
    world.pass(SECOND);
    // Now nobody waits for it.
    sender.vanish();
    let now = world.now();
    let reason = std::io::ErrorKind::ConnectionReset.into();
    world.hub.fail(sender.key, reason, now);
    world.settle();
    world.pass(SECOND * 60);
    assert!(!slow.is_closed(), "closed for holding up nobody");
    let before = listener.wire.borrow().written;
    slow.send(b"mine\n");
    world.settle();
    assert_eq!(listener.wire.borrow().written, before + 5);
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
