//! The few places of the control socket: who asks nothing leaves them, and who finds none is told.

use udsd::{
    config::{BaseDirs, Config},
    hub::Wanted,
    limits::Limits,
    peer::Peer,
    service::PendingCall,
};

use crate::world::{Client, PEER, SECOND, World};

/// An echo, and the control socket as its number 1.
fn world() -> World {
    let text = "[socket.s]\npath = \"/run/s\"\n";
    let config = Config::parse(text, None, &BaseDirs::system()).unwrap();
    World::of(&config.with_control().sockets, Limits::new(5000, 5000))
}

fn try_ask(world: &mut World) -> Result<Client, Vec<u8>> {
    let own = Peer {
        uid: rustix::process::geteuid().as_raw(),
        ..PEER
    };
    let (client, wire) = world.try_enter(1, own, &[]);
    client.ok_or_else(|| wire.borrow().said.clone())
}

/// A caller with a call that is not answered.
fn call(world: &mut World) -> (Client, PendingCall) {
    let caller = try_ask(world).unwrap();
    caller.send(b"{\"method\":\"a.B\",\"more\":true}\0");
    world.settle();
    let mut calls = world.hub.take_calls();
    let own = calls.iter().find(|of| of.client == caller.key).unwrap();
    let own = own.clone();
    calls.drain(..).for_each(|of| world.hub.put_back(of));
    (caller, own)
}

/// It gets a part of an answer, which stays with udsd as long as it reads nothing.
fn part(world: &mut World, (caller, call): &(Client, PendingCall)) {
    caller.wire.borrow_mut().capacity = 10;
    let now = world.now();
    let reply = udsd::control::varlink::Reply::more("a part");
    world.hub.reply(call, &reply, now);
    world.settle();
}

#[test]
fn who_asks_nothing_leaves_and_whoever_waits_for_an_answer_stays() {
    let mut world = world();
    let echo = world.enter(0);
    let silent = try_ask(&mut world).unwrap();
    let (waits, _) = call(&mut world);
    let (deaf, tap, slow) = (call(&mut world), call(&mut world), call(&mut world));
    world.hub.open_tap(&tap.1, 0, Wanted::default());
    for of in [&deaf, &tap, &slow] {
        part(&mut world, of);
    }
    for _ in 0..13 {
        world.pass(5 * SECOND);
        slow.0.take(1);
        world.settle();
    }
    assert!(silent.is_closed() && deaf.0.is_closed());
    assert!(!waits.is_closed() && !tap.0.is_closed() && !slow.0.is_closed());
    assert!(!echo.is_closed());
    let counters = world.hub.sockets()[1].counters();
    assert_eq!(counters.closed_idle_timeout, 2, "{counters}");
    // Only those of the file count for exit-on-idle.
    assert!(!world.hub.has_timers());
}

#[test]
fn who_finds_no_place_is_told_and_counted() {
    let mut world = world();
    let callers: Vec<Client> = (0..32).map(|_| try_ask(&mut world).unwrap()).collect();
    let told = String::from_utf8(try_ask(&mut world).unwrap_err()).unwrap();
    let expected = r#"{"parameters":{"why":"32 callers of your user are connected, and no more may be"},"error":"dev.udsd.Daemon.Refused"}"#;
    assert_eq!(told, format!("{expected}\0"));
    let wire = world.refuse(1, &PEER, 1024);
    let told = String::from_utf8(wire.borrow().said.clone()).unwrap();
    assert!(told.contains("can open no more files"), "{told}");
    let counters = world.hub.sockets()[1].counters();
    let refused = [
        counters.refused_clients_per_user,
        counters.refused_open_files,
        counters.refused(),
    ];
    assert_eq!(refused, [1, 1, 2]);
    drop(callers);
}

#[test]
fn who_may_not_ask_gets_no_answer() {
    let mut world = world();
    let stranger = Peer {
        uid: 4_000_000,
        ..PEER
    };
    let (client, wire) = world.try_enter(1, stranger, &[]);
    assert!(client.is_none() && wire.borrow().said.is_empty());
}

#[test]
fn a_look_for_clients_is_bounded_also_where_nobody_is_any_more() {
    let mut world = world();
    let mut clients: Vec<Client> = (0..3000).map(|_| world.enter(0)).collect();
    let last = clients.pop().unwrap();
    clients.iter().for_each(Client::vanish);
    world.settle();
    let (mut first, mut found, mut looks) = (0, Vec::new(), 0);
    loop {
        let look = world.hub.find_clients(first, 16, |_, _| true);
        assert!(look.reached - first <= 1024);
        first = look.reached;
        found.extend(look.keys);
        looks += 1;
        if look.is_all {
            break;
        }
    }
    assert_eq!(found, [last.key]);
    assert!(looks > 2, "{looks}");
    let beyond = world.hub.find_clients(usize::MAX, 16, |_, _| true);
    assert!(beyond.is_all && beyond.keys.is_empty());
}

#[test]
fn a_call_for_which_there_is_nothing_is_not_looked_at_in_each_turn() {
    let mut world = world();
    let speaker = world.enter(0);
    let (_caller, tap) = call(&mut world);
    world.hub.open_tap(&tap, 0, Wanted::default());
    let rest = |world: &mut World| {
        assert!(world.hub.has_calls());
        for mut pending in world.hub.take_calls() {
            pending.waits = true;
            world.hub.put_back(pending);
        }
        assert!(!world.hub.has_calls() && world.hub.take_calls().is_empty());
    };
    rest(&mut world);
    speaker.send(b"it passes");
    world.settle();
    assert!(world.hub.has_calls());
    assert!(matches!(world.hub.next_tapped(&tap), Some(Ok(_))));
    rest(&mut world);
    // As where look-ups have ended.
    world.hub.wake_calls();
    rest(&mut world);
    world.hub.stop();
    assert!(world.hub.has_calls());
}
