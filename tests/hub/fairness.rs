//! One client and another: budgets, the ready list, keys that are used again.

use udsd::connection::Watch;

use crate::world::{Client, READ_BUFFER, World, pattern};

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
        let now = world.now();
        let event = Watch {
            read: true,
            write: true,
            end: false,
        };
        world.hub.event(key, event, now, &mut |_, _, _, _| {
            panic!("watched a client that left")
        });
    }
    world.assert_empty();
}
