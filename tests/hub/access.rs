//! Who may enter, before any limit is asked.

use udsd::{limits::Limits, peer::Peer};

use crate::world::{PEER, World};

const LISTS: &str = "[socket.a]\npath = \"/run/a\"\nallow-users = [7]\nallow-groups = [20]\n[socket.b]\npath = \"/run/b\"\n";

/// Kept out: ended, let go of, and not a byte read.
#[track_caller]
fn refuse(world: &mut World, peer: Peer, groups: &[u32]) {
    let refused = world.counters().refused();
    let (client, wire) = world.try_enter(0, peer, groups);
    let wire = wire.borrow();
    assert!(client.is_none() && wire.dropped && wire.hung_up.is_none());
    assert_eq!((wire.read, wire.written), (0, 0));
    assert_eq!(world.counters().refused(), refused + 1);
}

#[test]
fn the_lists_of_a_socket_decide_on_that_socket() {
    let mut world = World::new(LISTS);
    let stranger = Peer {
        uid: 9,
        gid: 9,
        ..PEER
    };
    let root = Peer {
        uid: 0,
        gid: 0,
        ..PEER
    };
    assert!(world.try_enter(0, PEER, &[]).0.is_some());
    assert!(world.try_enter(0, stranger, &[3, 20]).0.is_some());
    let primary = Peer {
        gid: 20,
        ..stranger
    };
    assert!(world.try_enter(0, primary, &[]).0.is_some());
    refuse(&mut world, stranger, &[3, 4]);
    refuse(&mut world, root, &[0]);
    assert!(!world.hub.sockets()[1].asks_groups());
    assert!(world.try_enter(1, stranger, &[]).0.is_some());
    assert!(world.try_enter(1, root, &[]).0.is_some());
    assert_eq!(world.hub.present(), 5);
    assert_eq!(
        (world.counters().clients, world.counters().refused()),
        (3, 2)
    );
}

#[test]
fn who_may_not_enter_takes_no_place() {
    let mut world = World::with_limits(LISTS, Limits::new(1, 1));
    let stranger = Peer {
        uid: 9,
        gid: 9,
        ..PEER
    };
    for _ in 0..3 {
        refuse(&mut world, stranger, &[]);
    }
    let client = world.enter(0);
    refuse(&mut world, stranger, &[]);
    client.finish();
    world.settle();
    world.assert_empty();
}
