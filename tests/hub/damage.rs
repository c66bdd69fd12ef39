//! What another process left may be anything: the hub refuses it, or goes on with it, but never
//! panics and always comes to rest.

use std::time::Duration;

use serde_json::{Value, json};
use udsd::{
    config::{BaseDirs, Config},
    handover_state::State,
    hub::Hub,
    limits::Limits,
};

use crate::world::{PEER, Random, World, socket};

const SOCKETS: &str = r#"
[socket.lines]
path = "/run/lines"
framing = "lines"
message-size = "64B"
queue-size = "200B"
[socket.talk]
path = "/run/talk"
service = "relay"
framing = "length-prefixed"
message-size = "64B"
queue-size = "1KiB"
stamp = true
slow-client = "drop"
[socket.wait]
path = "/run/wait"
service = "relay"
framing = "nul"
message-size = "16B"
queue-size = "17B"
idle-timeout = "1h"
[socket.log]
path = "/run/log"
service = "collect"
framing = "syslog"
message-size = "64B"
[socket.log.record]
format = "raw"
queue-size = "70B"
"#;

/// A hub in which everything waits for something.
fn parked() -> Value {
    let mut world = World::new(SOCKETS);
    let mut random = Random::new(1);
    for n in 0..24 {
        let client = world.enter(n % 4);
        client.wire.borrow_mut().capacity = 10 + random.below(40) as usize;
        let text = [&b"a\n"[..], b"\0\0\0\x03abc", b"word\0", b"<1>message\n"][n % 4];
        client.send(&text.repeat(40));
        client.send(&text[..text.len() - 1]);
        if random.one_in(4) {
            client.finish();
        }
    }
    world.settle();
    let now = world.now();
    let fresh = Hub::new(Vec::new(), Limits::new(1, 1));
    let (state, _) = std::mem::replace(&mut world.hub, fresh).park(now);
    serde_json::to_value(&state).unwrap()
}

/// Changes one thing somewhere.
fn damage(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let n = random.below(fields.len() as u64) as usize;
            let key = fields.keys().nth(n).unwrap().clone();
            if random.one_in(40) {
                fields.remove(&key);
            } else {
                damage(&mut fields[&key], random);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let n = random.below(items.len() as u64) as usize;
            match random.below(20) {
                0 => drop(items.remove(n)),
                1 => items.push(items[n].clone()),
                _ => damage(&mut items[n], random),
            }
        }
        Value::Number(number) => {
            let number = number.as_u64().unwrap_or(0);
            let any = random.next();
            let picked = [
                0,
                1,
                number.saturating_add(1),
                number.saturating_sub(1),
                u64::MAX,
                any % 300,
                any,
            ];
            *value = random.pick(&picked).into();
        }
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            if bytes.is_empty() || random.one_in(4) {
                bytes.extend(b"AAAA");
            } else if random.one_in(2) {
                bytes.truncate(bytes.len() / 8 * 4);
            } else {
                let n = random.below(bytes.len() as u64) as usize;
                bytes[n] = b'A' + random.below(26) as u8;
            }
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Bool(flag) => *flag = !*flag,
        other => {
            *other = random
                .pick(&[&json!(null), &json!(true), &json!(7), &json!("Room")])
                .clone();
        }
    }
}

#[test]
fn a_state_that_nobody_parked_is_refused_or_served_but_never_a_panic() {
    let whole = parked();
    let config = Config::parse(SOCKETS, None, &BaseDirs::system()).unwrap();
    let mut served = 0;
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let mut value = whole.clone();
        for _ in 0..=random.below(3) {
            damage(&mut value, &mut random);
        }
        let Ok(mut state) = serde_json::from_value::<State>(value) else {
            continue;
        };
        // Queues stand behind the document.
        for client in &mut state.clients {
            if random.one_in(3) {
                client
                    .queue
                    .push(&vec![b'q'; random.below(9000) as usize], 0);
            }
        }
        let mut world = World::of(&config.sockets, Limits::new(1000, 1000));
        // Streams that nobody else has: those of clients of a hub that is let go.
        let clients: Vec<_> = state.clients.iter().map(|_| world.enter(0)).collect();
        for client in &clients {
            let mut wire = client.wire.borrow_mut();
            wire.capacity = 1 << 20;
            wire.sent.extend(b"<1>more\n\0");
        }
        let now = world.now();
        let fresh = Hub::new(Vec::new(), Limits::new(1, 1));
        let (_, streams) = std::mem::replace(&mut world.hub, fresh).park(now);
        world.clients.clear();
        for client in &clients {
            client.wire.borrow_mut().watched = Default::default();
        }
        let sockets = config.sockets.iter().map(socket).collect();
        let streams = streams
            .into_iter()
            .map(|stream| (seed % 7 != 0).then_some(stream));
        let limits = Limits::new(10, 10);
        let Ok((hub, keys)) = Hub::restore(sockets, limits, state, streams.collect(), now) else {
            continue;
        };
        served += 1;
        world.hub = hub;
        for (mut client, key) in clients.into_iter().zip(keys) {
            if let Some(key) = key {
                client.key = key;
                world.clients.insert(key, client);
            }
        }
        let _ = world.try_enter(0, PEER, &[]);
        world.settle();
        world.pass(Duration::from_secs(5));
        world.settle();
        world.hub.stop();
        world.settle();
        let now = world.now();
        world.hub.abandon(now);
        assert_eq!(world.hub.present(), 0);
        assert_eq!(world.hub.held(), 0);
    }
    assert!(served > 500, "only {served} were served");
}
