//! One client and another: budgets, the ready list, keys that are used again.

use udsd::hub::Readiness;

use crate::world::{Client, TURN_BYTES, World, pattern};

#[test]
fn endless_input_of_one_keeps_no_other_from_its_turn() {
    let mut world = World::echo("");
    let greedy = world.enter(0);
    greedy.wire.borrow_mut().endless = true;
    greedy.wire.borrow_mut().capacity = usize::MAX;
    let other = world.enter(0);
    greedy.send(b"x");
    for round in 1..=20 {
        other.send(b"hello");
        world.events();
        world.turn();
        other.take(usize::MAX);
        assert_eq!(other.got().len(), 5 * round, "served in the same turn");
        assert!(
            world.hub.has_ready(),
            "the rest of the greedy one is forgotten"
        );
        assert_eq!(greedy.wire.borrow().read, TURN_BYTES * round);
        greedy.wire.borrow_mut().kernel.clear();
    }
}

#[test]
fn clients_with_much_input_take_turns() {
    let mut world = World::echo("");
    let clients: Vec<Client> = (0..10).map(|_| world.enter(0)).collect();
    for client in &clients {
        client.wire.borrow_mut().capacity = usize::MAX;
        client.send(&pattern(4 * TURN_BYTES));
    }
    for round in 1..=4 {
        world.events();
        world.turn();
        for client in &clients {
            assert_eq!(client.wire.borrow().read, round * TURN_BYTES);
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
        let readiness = Readiness {
            readable: true,
            stops_short: true,
        };
        world.hub.event(key, readiness);
    }
    world.assert_empty();
}
