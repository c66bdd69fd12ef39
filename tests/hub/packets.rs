//! What the hub does for seqpacket sockets, whose messages come with their lengths: it reads where a
//! whole packet can be held, and refuses what is too long alone.

use udsd::limits::Limits;

use crate::world::{Client, World};

const PACKETS: &str = "[socket.s]\npath = \"/run/s\"\ntype = \"seqpacket\"\nmessage-size = \"16B\"\nqueue-size = \"100B\"\n";

fn enter(world: &mut World, capacity: usize) -> Client {
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = capacity;
    client
}

fn packet(length: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, length];
    bytes.resize(4 + usize::from(length), b'x');
    bytes
}

#[test]
fn nothing_is_read_where_a_packet_might_not_be_held() {
    let limits = Limits::new(9, 9).with_queues(33, 1000);
    let mut world = World::with_limits(PACKETS, limits);
    let (slow, other) = (enter(&mut world, 10), enter(&mut world, 10));
    slow.send(&packet(16));
    world.settle();
    assert_eq!(world.hub.held(), 10);
    other.send(&packet(16));
    world.settle();
    assert_eq!((other.unread(), world.hub.held()), (20, 10));
    assert_eq!(slow.take(10), 10);
    world.settle();
    assert_eq!((other.unread(), world.hub.held()), (0, 10));
    assert_eq!(other.take(10), 10);
    world.settle();
    assert_eq!((slow.take(10), other.take(10)), (10, 10));
    assert_eq!((slow.got(), other.got()), (packet(16), packet(16)));
    assert_eq!(world.hub.held(), 0);
}

#[test]
fn too_long_ones_are_counted_and_bytes_are_those_of_the_bodies() {
    let mut world = World::new(PACKETS);
    let client = enter(&mut world, 1000);
    client.send(&[packet(17), packet(16), packet(0), packet(17), packet(3)].concat());
    world.settle();
    client.take(usize::MAX);
    assert_eq!(client.got(), [packet(16), packet(0), packet(3)].concat());
    let counters = world.counters();
    assert_eq!(
        (counters.messages, counters.bytes, counters.oversized),
        (3, 19, 2)
    );
    assert!(!client.is_closed());
}
