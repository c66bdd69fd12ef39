//! relay under `wait`: who holds up whom, for how long, and that nobody is forgotten over it.

use crate::world::{Client, SECOND, World, lines};

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
