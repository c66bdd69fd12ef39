//! One client and another: budgets, the ready list, keys that are used again.

use udsd::{connection::Watch, peer::Peer};

use crate::world::{Client, PEER, READ_BUFFER, World, pattern};

#[test]
fn endless_input_of_one_keeps_no_other_from_its_turn() {
    let mut world = World::echo("");
    let greedy = world.enter(0);
    greedy.wire.borrow_mut().endless = true;
    greedy.wire.borrow_mut().capacity = usize::MAX;
    let other = world.enter(0);
    for round in 1..=20 {
        other.send(b"hello");
        world.events();
        world.turn();
        other.take(usize::MAX);
        assert_eq!(other.got().len(), 5 * round, "served in the same turn");
        assert_eq!(greedy.wire.borrow().read, READ_BUFFER * round);
        greedy.wire.borrow_mut().kernel.clear();
    }
}

#[test]
fn clients_with_much_input_take_turns() {
    let mut world = World::echo("");
    let clients: Vec<Client> = (0..10).map(|_| world.enter(0)).collect();
    for client in &clients {
        client.wire.borrow_mut().capacity = usize::MAX;
        client.send(&pattern(4 * READ_BUFFER));
    }
    for round in 1..=4 {
        world.events();
        world.turn();
        for client in &clients {
            assert_eq!(client.wire.borrow().read, round * READ_BUFFER);
        }
    }
}

#[test]
fn an_event_for_a_client_that_left_is_passed_over() {
    let mut world = World::echo("");
    let client = world.enter(0);
    client.finish();
    world.settle();
    assert!(client.is_closed());
    for key in [client.key, client.key + 7] {
        let event = Watch {
            read: true,
            write: true,
            end: false,
        };
        world.hub.event(key, event);
    }
    world.assert_empty();
}

fn user(uid: u32) -> Peer {
    Peer { uid, ..PEER }
}

/// Clients of this user, each of whom sends more than a turn can bring, in messages as short as they
/// can be.
fn flooders(world: &mut World, uid: u32, many: usize) -> Vec<Client> {
    let enter = |_| {
        let (client, wire) = world.try_enter(0, user(uid), &[]);
        wire.borrow_mut().capacity = usize::MAX;
        wire.borrow_mut().sent = b"a\n".repeat(READ_BUFFER).into();
        client.unwrap()
    };
    (0..many).map(enter).collect()
}

/// Messages of others that are taken before `client` of socket 0 has what it awaits, where all events
/// come before it: each turn of the loop serves and then asks who is there.
fn taken_before(world: &mut World, client: &Client) -> u64 {
    let before = world.counters().messages;
    for _ in 0..1000 {
        world.events_before_turn();
        world.turn();
        if client.take(usize::MAX) > 0 {
            return world.counters().messages - before;
        }
    }
    panic!("it waits for ever");
}

#[test]
fn another_user_waits_for_one_client_and_not_for_all() {
    let services = [
        ("echo", "framing = \"lines\""),
        ("echo", "framing = \"lines\"\nmessage-size = \"8B\""),
        (
            "a record",
            "framing = \"lines\"\n[socket.s.record]\nqueue-size = \"1GiB\"",
        ),
    ];
    for (name, keys) in services {
        let mut world = World::echo(keys);
        flooders(&mut world, 1000, 100);
        let (other, _) = world.try_enter(0, user(1001), &[]);
        let other = other.unwrap();
        for round in 0..5 {
            other.send(b"ping\n");
            let taken = taken_before(&mut world, &other);
            // What is left of the turn in which it comes, and one client's.
            assert!(
                taken < 40_000,
                "{name}: {taken} messages before that of round {round}"
            );
        }
    }
}

#[test]
fn turns_are_short_while_somebody_waits_to_be_let_in() {
    let mut world = World::echo("framing = \"lines\"");
    flooders(&mut world, 1000, 100);
    for (waits, is_short) in [(true, true), (false, false), (true, true)] {
        let before = world.counters().messages;
        world.hub.expect_clients(waits);
        world.events_before_turn();
        world.turn();
        let taken = world.counters().messages - before;
        assert_eq!(taken < 40_000, is_short, "{waits}: {taken} messages");
    }
}

#[test]
fn a_client_has_so_many_messages_in_a_turn() {
    let mut world = World::collect("queue-size = \"1GiB\"");
    flooders(&mut world, 1000, 1);
    let (other, _) = world.try_enter(0, user(1001), &[]);
    let other = other.unwrap();
    let mut seen = 0;
    for round in 0..100 {
        other.send(b"mine\n");
        world.events_before_turn();
        world.turn();
        let lines = &world.records[0][seen..];
        let mine = lines.windows(5).position(|line| line == b"mine\n");
        let before = mine.unwrap() / 2;
        assert!(
            before <= 2048,
            "{before} messages before the one of round {round}"
        );
        seen = world.records[0].len();
    }
    // It is read from in parts that hold about as many as are taken: little waits.
    assert!(world.hub.held() <= 8192, "{} bytes wait", world.hub.held());
}

#[test]
fn what_a_relay_gives_to_many_is_work_for_many() {
    for (stamp, slow_client) in [
        (false, "wait"),
        (true, "wait"),
        (false, "drop"),
        (true, "drop"),
    ] {
        let keys =
            format!("stamp = {stamp}\nslow-client = \"{slow_client}\"\nqueue-size = \"1MiB\"");
        let mut world = World::relay(&keys);
        let flood = flooders(&mut world, 1000, 150);
        world.try_enter(0, user(1001), &[]);
        let written = |of: &[Client]| of.iter().map(|of| of.wire.borrow().written).sum::<usize>();
        for round in 0..4 {
            let before = written(&flood);
            world.events_before_turn();
            world.turn();
            let given = written(&flood) - before;
            assert!(
                given <= 16 << 20,
                "stamp = {stamp}, {slow_client}: {given} bytes in turn {round}"
            );
            for client in &flood {
                client.take(usize::MAX);
            }
        }
        assert!(written(&flood) > 0);
    }
}

#[test]
fn senders_that_wait_for_a_record_take_turns_by_user() {
    let mut world = World::collect("queue-size = \"65B\"");
    let flood = flooders(&mut world, 1000, 50);
    world.settle();
    let (other, _) = world.try_enter(0, user(1001), &[]);
    let other = other.unwrap();
    other.send(b"mine\n");
    world.settle();
    let mut rounds = 0;
    let mine = |world: &World| world.records[0].windows(5).any(|line| line == b"mine\n");
    while !mine(&world) {
        assert_ne!(world.written(0), 0);
        world.settle();
        rounds += 1;
        assert!(rounds <= 3, "it waits for all of the other user's");
    }
    drop(flood);
}

#[test]
fn who_is_called_for_room_goes_before_the_ready_of_its_user() {
    let mut world = World::collect("queue-size = \"65B\"");
    let _first = flooders(&mut world, 1000, 1);
    world.settle();
    let _others = flooders(&mut world, 1000, 100);
    world.hub.expect_clients(true);
    world.events_before_turn();
    let before = world.records[0].len();
    assert_ne!(world.written(0), 0);
    world.turn();
    assert_ne!(world.records[0].len(), before, "the room stays empty");
}

#[test]
fn a_message_that_is_larger_than_a_turn_is_the_last_in_it() {
    let long = [vec![b'x'; (256 << 10) - 1], b"\n".to_vec()].concat();
    for slow_client in ["wait", "drop", "disconnect"] {
        let mut world = World::new(&format!(
            "[socket.s]\npath = \"/run/s\"\nservice = \"relay\"\nframing = \"lines\"\n\
             slow-client = \"{slow_client}\"\nmessage-size = \"256KiB\"\nqueue-size = \"8MiB\""
        ));
        let enter = |_| {
            let (client, wire) = world.try_enter(0, user(1000), &[]);
            wire.borrow_mut().capacity = usize::MAX;
            client.unwrap()
        };
        let clients: Vec<Client> = (0..65).map(enter).collect();
        for client in &clients[..8] {
            client.send(&long);
        }
        world.hub.expect_clients(true);
        for _ in 0..1000 {
            let before = world.counters().messages;
            world.events_before_turn();
            world.turn();
            let taken = world.counters().messages - before;
            assert!(taken <= 1, "{slow_client}: {taken} messages in a turn");
            for client in &clients {
                client.take(usize::MAX);
            }
            if world.counters().messages == 8 {
                break;
            }
        }
        assert_eq!(world.counters().messages, 8);
        for client in &clients[8..] {
            assert_eq!(client.wire.borrow().written, 2 << 20, "{slow_client}");
        }
    }
}

/// Two sockets that share a record with room for little more than one long message.
fn sharing() -> World {
    let socket = |name: &str| {
        format!(
            "[socket.{name}]\npath = \"/run/{name}\"\nservice = \"collect\"\nframing = \"lines\"\n\
             message-size = \"100B\"\n[socket.{name}.record]\nfile = \"/var/log/record\"\n\
             format = \"raw\"\nqueue-size = \"110B\"\n"
        )
    };
    World::new(&format!("{}{}", socket("a"), socket("b")))
}

#[test]
fn sockets_that_share_a_record_take_turns_for_its_room() {
    let mut world = sharing();
    let clients = [world.enter(0), world.enter(1)];
    for (client, byte) in clients.iter().zip(["a", "b"]) {
        client.send(format!("{}\n", byte.repeat(9)).repeat(200).as_bytes());
    }
    for _ in 0..100 {
        world.settle();
        world.write(0, 10);
    }
    let count = |byte| world.records[0].iter().filter(|of| **of == byte).count() / 9;
    let (a, b) = (count(b'a'), count(b'b'));
    assert!(a + b >= 100, "{a} and {b}");
    assert!(a.abs_diff(b) <= 12, "{a} and {b}");
    assert!(world.hub.records().count() == 1);
}

#[test]
fn short_messages_of_one_socket_leave_room_for_long_ones_of_another() {
    for long in [0, 1] {
        let mut world = sharing();
        let (long, short) = (world.enter(long), world.enter(1 - long));
        short.send("s\n".repeat(5_000).as_bytes());
        world.settle();
        long.send(format!("{}\n", "l".repeat(99)).repeat(3).as_bytes());
        for _ in 0..300 {
            world.settle();
            world.write(0, 2);
        }
        let all = world.records[0].iter().filter(|byte| **byte == b'l');
        assert_eq!(all.count(), 3 * 99);
    }
}
