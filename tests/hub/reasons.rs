//! What is refused, closed or dropped is counted by its reason, and by no other; the last line of each kind tells
//! who that was.

use std::{io, mem};

use log::LevelFilter;
use udsd::{
    config::{BaseDirs, Config},
    counters::{Counters, Row},
    hub::Hub,
    limits::Limits,
    peer::{ClientId, Peer},
};

use crate::world::{Client, PEER, SECOND, World, lines, socket};

/// The counter, further keys of an echo socket, the limits, and what is done there.
type Case = (&'static str, &'static str, Limits, fn(&mut World));

fn many() -> Limits {
    Limits::new(100, 100)
}

fn try_enter(world: &mut World, uid: u32) -> Option<Client> {
    world.try_enter(0, Peer { uid, ..PEER }, &[]).0
}

/// One that reads nothing sends more than is held for it.
fn flood(world: &mut World) {
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..200));
    world.settle();
}

/// The same, until it is slow.
fn flood_for_long(world: &mut World) {
    flood(world);
    for _ in 0..3 {
        world.pass(10 * SECOND);
        world.settle();
    }
}

/// Others read nothing of it.
fn flood_others(world: &mut World) {
    for uid in [8, 9, 10] {
        let receiver = try_enter(world, uid).unwrap();
        receiver.wire.borrow_mut().capacity = 10;
    }
    flood(world);
}

fn enter_two(world: &mut World) {
    try_enter(world, 7).unwrap();
    assert!(try_enter(world, 7).is_none());
}

fn fill_the_last_places(world: &mut World) {
    try_enter(world, 8).unwrap();
    while try_enter(world, 7).is_some() {}
}

#[track_caller]
fn check(counters: &Counters, name: &str) {
    let found = counters.rows().find(|row| row.name == name);
    let Row { family, value, .. } = found.unwrap();
    assert_ne!(value, 0, "{name}: {counters}");
    let others = counters.rows().filter(|row| row.family == family);
    let all: u64 = others.map(|row| row.value).sum();
    assert_eq!(all, value, "{name}: {counters}");
}

#[test]
fn each_reason_has_a_counter() {
    let refused: [Case; 6] = [
        ("refused_access", "allow-users = [9]", many(), |world| {
            assert!(try_enter(world, 7).is_none());
        }),
        ("refused_clients", "", Limits::new(1, 9), enter_two),
        (
            "refused_share",
            "",
            Limits::new(16, 16),
            fill_the_last_places,
        ),
        ("refused_clients_per_user", "", Limits::new(9, 1), enter_two),
        ("refused_socket_clients", "clients = 1", many(), enter_two),
        ("refused_open_files", "", many(), |world| {
            let wire = world.refuse(0, &PEER, 1024);
            assert!(wire.borrow().said.is_empty() && wire.borrow().dropped);
        }),
    ];
    let closed: [Case; 8] = [
        (
            "closed_idle_timeout",
            "idle-timeout = \"10s\"",
            many(),
            |world| {
                world.enter(0);
                world.pass(10 * SECOND);
            },
        ),
        ("closed_message_size", "", many(), |world| {
            world.enter(0).send(&[b'x'; 17]);
            world.settle();
        }),
        ("closed_slow_timeout", "", many(), flood_for_long),
        (
            "closed_slow_client",
            "slow-client = \"disconnect\"",
            many(),
            flood,
        ),
        (
            "closed_queue_per_user",
            "",
            many().with_queues(20, 1000),
            flood_for_long,
        ),
        (
            "closed_queue_total",
            "",
            many().with_queues(1000, 20),
            flood_for_long,
        ),
        ("closed_error", "", many(), |world| {
            let (client, now) = (world.enter(0), world.now());
            world.hub.fail(client.key, io::ErrorKind::Other.into(), now);
        }),
        ("closed_disconnected", "", many(), |world| {
            let (client, now) = (world.enter(0), world.now());
            assert!(!world.hub.disconnect(ClientId(2), now));
            assert!(world.hub.disconnect(ClientId(1), now));
            assert!(client.is_closed());
        }),
    ];
    let drop = "service = \"relay\"\nslow-client = \"drop\"";
    let dropped: [Case; 3] = [
        ("dropped_queue_size", drop, many(), flood_others),
        (
            "dropped_queue_per_user",
            drop,
            many().with_queues(20, 1000),
            flood_others,
        ),
        (
            "dropped_queue_total",
            drop,
            many().with_queues(1000, 36),
            flood_others,
        ),
    ];
    for (name, keys, limits, happens) in refused.into_iter().chain(closed).chain(dropped) {
        let socket = format!(
            "[socket.s]\npath = \"/run/s\"\nframing = \"lines\"\nmessage-size = \"16B\"\nqueue-size = \"40B\"\n{keys}\n"
        );
        let mut world = World::with_limits(&socket, limits);
        happens(&mut world);
        check(&world.counters(), name);
    }
}

#[test]
fn who_is_lost_on_the_way_to_the_next_process_is_counted() {
    let config =
        Config::parse("[socket.s]\npath = \"/run/s\"\n", None, &BaseDirs::system()).unwrap();
    let mut world = World::of(&config.sockets, many());
    world.enter(0);
    let (now, fresh) = (world.now(), Hub::new(Vec::new(), many()));
    let (state, _) = mem::replace(&mut world.hub, fresh).park(now);
    let sockets = config.sockets.iter().map(socket).collect();
    let Ok((hub, _)) = Hub::restore(sockets, many(), state, vec![None], now) else {
        panic!("not restored");
    };
    world.hub = hub;
    check(&world.counters(), "closed_restart");
}

#[test]
fn the_last_line_of_each_kind_is_kept_with_its_time() {
    // Nobody hears it, but without a level no line is made.
    log::set_max_level(LevelFilter::Debug);
    let mut world = World::echo("clients = 1\nframing = \"lines\"\nmessage-size = \"16B\"");
    let client = world.enter(0);
    for _ in 0..3 {
        world.pass(SECOND);
        assert!(try_enter(&mut world, 9).is_none());
    }
    world.pass(SECOND);
    client.send(&[b'x'; 17]);
    world.settle();
    let last: Vec<_> = world.hub.sockets()[0].last_lines().collect();
    let [(refused_at, refused, refusal), (closed_at, closed, close)] = last[..] else {
        panic!("{last:?}");
    };
    let after = |seconds| world.start + seconds * SECOND;
    assert_eq!((refused_at, closed_at), (after(3), after(4)));
    assert_eq!(
        [refused, closed],
        ["clients refused by limits", "clients closed for a reason"]
    );
    assert_eq!(
        refusal,
        "refused a client (pid 100, uid 9, gid 8): this socket has 1 clients, socket.s.clients = 1"
    );
    assert!(
        close.starts_with("client 1 (pid 100, uid 7, gid 8) closed: sent a message longer"),
        "{close}"
    );
}
