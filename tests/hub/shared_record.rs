//! A record of several sockets: the room that is kept for one of them is the others' once nobody there waits for it.

use udsd::peer::Peer;

use crate::world::{Client, PEER, World};

/// Sockets that share a raw record of 100 bytes: the first is such a `service`.
fn sharing(service: &str) -> World {
    let socket = |name: &str, service: &str| {
        format!(
            "[socket.{name}]\npath = \"/run/{name}\"\nservice = \"{service}\"\nframing = \"lines\"\n\
             message-size = \"99B\"\nqueue-size = \"2KiB\"\n[socket.{name}.record]\n\
             file = \"/var/log/record\"\nformat = \"raw\"\nqueue-size = \"100B\"\n"
        )
    };
    World::new(&(socket("a", service) + &socket("b", "collect") + &socket("c", "collect")))
}

fn enter(world: &mut World, socket: usize, uid: u32) -> Client {
    let peer = Peer { uid, ..PEER };
    world.try_enter(socket, peer, &[]).0.unwrap()
}

fn recorded(world: &World) -> String {
    String::from_utf8_lossy(&world.records[0]).replace('\n', " ")
}

/// The record has 90 bytes, and its room is kept for a long message of the first client, which is at socket a.
fn kept_for_one(world: &mut World) -> [Client; 3] {
    let clients = [0, 1, 2].map(|socket| enter(world, socket, 10 + socket as u32));
    let filled = "x".repeat(89);
    for (client, text) in clients.iter().rev().zip([&filled, "b", &"a".repeat(50)]) {
        client.send(format!("{text}\n").as_bytes());
    }
    // In the order in which they sent: c, b, a. The long one comes before the short one.
    for i in [2, 0, 1] {
        world.event(clients[i].key);
    }
    world.settle();
    assert_eq!(recorded(world), filled + " ");
    let waits = |place| world.hub.sockets()[place].wait_queue().waiting().count();
    assert_eq!([0, 1, 2].map(waits), [1, 1, 0]);
    clients
}

#[test]
fn who_goes_leaves_the_room_that_was_kept_for_it_to_others() {
    let mut world = sharing("collect");
    let [long, ..] = kept_for_one(&mut world);
    let now = world.now();
    let reason = std::io::ErrorKind::Other.into();
    world.hub.fail(long.key, reason, now);
    world.settle();
    // Nothing was written meanwhile.
    assert!(recorded(&world).ends_with("x b "), "{}", recorded(&world));
}

#[test]
fn a_relay_that_gives_back_room_until_a_receiver_reads_leaves_it_to_others() {
    let mut world = sharing("relay");
    let slow = enter(&mut world, 0, 20);
    slow.wire.borrow_mut().capacity = 0;
    // The next message of the relay finds no room in the queue of the receiver.
    let sender = enter(&mut world, 0, 10);
    for _ in 0..25 {
        sender.send(format!("{}\n", "r".repeat(80)).as_bytes());
        world.settle();
        world.written(0);
    }
    world.records[0].clear();
    let [long, short, _] = kept_for_one(&mut world);
    // Somebody comes in between, and finds that the room is kept.
    short.send(b"later\n");
    world.hub.event(short.key, short.wire.borrow().event());
    world.written(0);
    world.settle();
    assert!(long.unread() == 0 && !long.is_closed());
    assert!(
        recorded(&world).ends_with("x b later "),
        "{}",
        recorded(&world)
    );
    // It has its turn once the receiver reads.
    world.written(0);
    slow.wire.borrow_mut().capacity = usize::MAX;
    slow.take(usize::MAX);
    while {
        world.settle();
        world.written(0) > 0
    } {}
    assert!(recorded(&world).ends_with("a "), "{}", recorded(&world));
}
