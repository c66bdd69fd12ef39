//! What time and waiting mean across a restart: nobody's time begins anew, and none of it passes while
//! nobody listens; who waited longest goes first.

use udsd::{limits::Limits, record::Amount};

use crate::world::{Client, SECOND, World, lines, pattern};

fn restart(world: &mut World) {
    world.restart(Limits::new(1000, 1000), true, None);
}

#[test]
fn who_was_silent_before_is_silent_for_as_long() {
    let mut world = World::echo("idle-timeout = \"10s\"");
    let client = world.enter(0);
    for _ in 0..4 {
        world.pass(2 * SECOND);
        restart(&mut world);
        // A pause of the daemon is nobody's silence.
        world.settle();
    }
    assert!(!client.is_closed());
    assert_eq!(world.hub.deadline(), Some(world.start + 10 * SECOND));
    world.pass(2 * SECOND);
    assert!(client.is_closed());
}

#[test]
fn a_slow_clients_time_goes_on_with_what_it_took() {
    let keys = "message-size = \"16B\"\nqueue-size = \"100B\"\nslow-timeout = \"10s\"";
    for (taken, stays) in [(20, false), (60, true)] {
        let mut world = World::echo(keys);
        let client = world.enter(0);
        client.wire.borrow_mut().capacity = 10;
        client.send(&pattern(1000));
        world.settle();
        for _ in 0..taken / 10 {
            client.take(10);
            world.settle();
        }
        world.pass(6 * SECOND);
        restart(&mut world);
        world.settle();
        world.pass(4 * SECOND);
        assert_eq!(!client.is_closed(), stays, "{taken} bytes taken");
    }
}

#[test]
fn a_receiver_that_holds_up_others_does_so_afterwards() {
    let mut world = World::relay("queue-size = \"40B\"\nslow-timeout = \"10s\"");
    let (slow, sender) = (world.enter(0), world.enter(0));
    slow.wire.borrow_mut().capacity = 10;
    sender.send(&lines(100..200));
    world.settle();
    world.pass(6 * SECOND);
    restart(&mut world);
    world.settle();
    assert!(!slow.is_closed());
    world.pass(4 * SECOND);
    assert!(slow.is_closed(), "its time began anew");
    // Its sender goes on.
    world.settle();
    assert!(world.hub.sockets()[0].wait_queue().is_empty());
    assert!(!sender.is_closed());
}

#[test]
fn who_waited_longest_goes_first() {
    let mut world = World::collect("queue-size = \"65B\"");
    let senders: Vec<Client> = (0..5).map(|_| world.enter(0)).collect();
    // In this order they find no room.
    let order = [3, 1, 4, 0, 2];
    for n in order {
        senders[n].send(format!("{n}").repeat(60).as_bytes());
        senders[n].send(b"\n");
        world.settle();
    }
    for _ in 0..5 {
        restart(&mut world);
        world.settle();
        world.written(0);
        world.settle();
    }
    let said: Vec<u8> = world.records[0]
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.first().copied())
        .collect();
    assert_eq!(said, order.map(|n| b'0' + n as u8));
}

#[test]
fn what_a_record_has_written_and_what_waits_for_it_is_counted_on() {
    let mut world = World::collect("queue-size = \"1KiB\"");
    let client = world.enter(0);
    let amount = |messages| Amount {
        messages,
        bytes: 4 * messages,
    };
    for round in 1..=3 {
        for range in [100..140, 140..150] {
            client.send(&lines(range));
            world.settle();
        }
        // All but the last ten lines.
        let waiting = world.unwritten(0);
        world.write(0, waiting - 40);
        restart(&mut world);
        world.settle();
        let progress = world.hub.sockets()[0].record().unwrap().progress(0);
        assert_eq!(progress.written, amount(50 * round - 10));
        assert_eq!(progress.waiting, amount(10));
    }
}
