//! Who is kept out, and who may come once another has left.

use udsd::{limits::Limits, peer::Peer};

use crate::world::{PEER, World};

#[test]
fn a_newcomer_over_a_limit_is_ended_and_counted() {
    let mut world = World::with_limits(
        "[socket.a]\npath = \"/run/a\"\nclients = 2\n[socket.b]\npath = \"/run/b\"\n",
        Limits::new(4, 3),
    );
    let on_a = [world.enter(0), world.enter(0)];
    let refused = |world: &mut World, socket, uid| {
        let (client, wire) = world.try_enter(socket, Peer { uid, ..PEER }, &[]);
        let wire = wire.borrow();
        assert!(client.is_none() && wire.dropped && wire.hung_up.is_some());
    };
    refused(&mut world, 0, 7);
    let on_b = world.enter(1);
    refused(&mut world, 1, 7);
    let (other, _) = world.try_enter(1, Peer { uid: 9, ..PEER }, &[]);
    refused(&mut world, 1, 10);
    assert_eq!(world.hub.present(), 4);
    assert_eq!(world.hub.sockets()[0].counters().refused, 1);
    assert_eq!(world.hub.sockets()[1].counters().refused, 2);
    // Who leaves makes room, for its socket and for its user.
    on_a[0].finish();
    world.settle();
    let again = world.enter(0);
    for client in [&on_a[1], &on_b, &again, &other.unwrap()] {
        client.finish();
    }
    world.settle();
    world.assert_empty();
}
