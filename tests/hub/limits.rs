//! Who is kept out, and who may come once another has left.

use udsd::{limits::Limits, peer::Peer};

use crate::world::{Client, PEER, World};

const LINES: &str = "[socket.a]\npath = \"/run/a\"\nframing = \"lines\"\nslow-timeout = \"1h\"\n";

fn enter(world: &mut World, uid: u32) -> Option<Client> {
    world.try_enter(0, Peer { uid, ..PEER }, &[]).0
}

#[test]
fn two_users_leave_places_for_a_third_and_it_for_a_fourth() {
    let mut world = World::with_limits(LINES, Limits::new(64, 32));
    let mut all: Vec<Client> = Vec::new();
    let mut fill = |world: &mut World, uid| {
        let before = all.len();
        while let Some(client) = enter(world, uid) {
            all.push(client);
        }
        all.len() - before
    };
    let (first, second) = (fill(&mut world, 1), fill(&mut world, 2));
    assert_eq!((first, second), (32, 28));
    // Each leaves something for the next.
    assert_eq!((fill(&mut world, 3), fill(&mut world, 4)), (2, 1));
    assert_eq!((fill(&mut world, 5), fill(&mut world, 6)), (1, 0));
    assert_eq!((fill(&mut world, 1), fill(&mut world, 2)), (0, 0));
}

#[test]
fn who_is_alone_has_all_places() {
    let mut world = World::with_limits(LINES, Limits::new(64, 64));
    let all: Vec<Client> = (0..64).filter_map(|_| enter(&mut world, 1)).collect();
    assert_eq!(all.len(), 64);
    assert!(enter(&mut world, 2).is_none());
    // And no more than that once another is there.
    all[0].finish();
    all[1].finish();
    world.settle();
    let other = enter(&mut world, 2).unwrap();
    assert!(enter(&mut world, 1).is_none());
    other.finish();
    world.settle();
    assert!(enter(&mut world, 1).is_some());
}

#[test]
fn users_who_take_all_of_queue_total_leave_another_its_ping() {
    const TOTAL: usize = 1 << 20;
    let limits = Limits::new(1000, 1000).with_queues(TOTAL / 4, TOTAL);
    let mut world = World::with_limits(LINES, limits);
    let ping = |world: &mut World, victim: &Client| {
        victim.send(b"ping\n");
        world.settle();
        victim.take(usize::MAX)
    };
    let victim = enter(&mut world, 100).unwrap();
    victim.wire.borrow_mut().capacity = 100;
    assert_eq!(ping(&mut world, &victim), 5);
    for uid in 1..6 {
        // Of what waits for them as of what they have not finished.
        for capacity in [0, 0, 0, 1 << 20] {
            let hog = enter(&mut world, uid).unwrap();
            hog.wire.borrow_mut().capacity = capacity;
            for _ in 0..4 {
                hog.send(&[&[b'x'; 30_000][..], b"\n"].concat());
                world.settle();
            }
            hog.send(&[b'y'; 60_000]);
            world.settle();
            assert_eq!(ping(&mut world, &victim), 5);
        }
    }
    let held = world.hub.held();
    assert!((TOTAL * 3 / 4..=TOTAL).contains(&held), "{held}");
    // Something waits for it, too, and for the next.
    for uid in [100, 101, 102] {
        let slow = enter(&mut world, uid).unwrap();
        slow.wire.borrow_mut().capacity = 0;
        slow.send(b"a line\n");
        world.settle();
        assert_eq!(slow.unread(), 0);
        slow.wire.borrow_mut().capacity = 100;
        slow.wire.borrow_mut().full = false;
        world.settle();
        assert_eq!(slow.take(usize::MAX), 7);
    }
}

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
        assert!(client.is_none() && wire.dropped && wire.hung_up.is_none());
    };
    refused(&mut world, 0, 7);
    let on_b = world.enter(1);
    refused(&mut world, 1, 7);
    let (other, _) = world.try_enter(1, Peer { uid: 9, ..PEER }, &[]);
    refused(&mut world, 1, 10);
    assert_eq!(world.hub.present(), 4);
    assert_eq!(world.hub.sockets()[0].counters().refused(), 1);
    assert_eq!(world.hub.sockets()[1].counters().refused(), 2);
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
