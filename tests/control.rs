//! Promise: at the control socket, those who may ask learn what the daemon is doing, and root and its own user have
//! it act; nobody else is harmed by it, and whoever talks there goes on over a restart.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixDatagram},
    },
    path::Path,
};

use harness::{
    Daemon, Random, Setup, acting, is_root,
    manager::{STORED, passing},
    read_all, read_n, round_trip,
    varlink::Caller,
    write_until_full,
};
use serde_json::{Value, json};

const CONTROL: &str = "[daemon]\ncontrol = \"{dir}/control\"\n";
const ECHO: &str = "[socket.e]\npath = \"{dir}/e\"\n";
const RELAY: &str = "[socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\n";

fn start(rest: &str) -> Daemon {
    Daemon::start(&format!("{CONTROL}{rest}"))
}

fn caller(daemon: &Daemon) -> Caller {
    Caller::new(&daemon.path("control"))
}

/// Waits until a call's answer is as it should be.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < harness::HANG, "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn it_tells_what_the_daemon_and_its_sockets_and_clients_are() {
    let daemon = start(&format!("{ECHO}{RELAY}"));
    let (client, _other) = (daemon.connect("e"), daemon.connect("r"));
    round_trip(&client, b"five\n");
    let mut caller = caller(&daemon);
    let status = caller.ask("Status", json!({}));
    assert_eq!(status["pid"], daemon.pid().as_raw_nonzero().get());
    assert_eq!(
        status["config"][0],
        daemon.path("udsd.toml").to_str().unwrap()
    );
    assert_eq!(
        (&status["clients"], &status["sockets"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(status["problem"], Value::Null);
    let sockets = caller.ask("Sockets", json!({}));
    let names = sockets["sockets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["e", "r", "daemon.control"]);
    let socket = &caller.ask("Sockets", json!({"name": "e"}))["sockets"][0];
    for (key, value) in [("type", "stream"), ("service", "echo"), ("framing", "none")] {
        assert_eq!(socket[key], value);
    }
    assert_eq!(
        (&socket["clients"], &socket["inherited"]),
        (&json!(1), &json!(false))
    );
    let clients = caller.clients(json!({}));
    assert_eq!(clients.len(), 2);
    let [echo] = &caller.clients(json!({"socket": "e"}))[..] else {
        panic!("{clients:?}");
    };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    assert_eq!((&echo["pid"], &echo["socket"]), (&json!(own), &json!("e")));
    let counts = ["messages_in", "bytes_in", "messages_out", "bytes_out"];
    assert_eq!(counts.map(|key| echo[key].as_u64().unwrap()), [1, 5, 1, 5]);
    assert_eq!(caller.clients(json!({"uid": 4_000_000})).len(), 0);
}

#[test]
fn what_a_relay_gave_its_clients_is_told() {
    let daemon = start(RELAY);
    let early = daemon.connect("r");
    let mut caller = caller(&daemon);
    wait_until(|| caller.clients(json!({})).len() == 1);
    let speaker = daemon.connect("r");
    wait_until(|| caller.clients(json!({})).len() == 2);
    (&speaker).write_all(b"one\ntwo\n").unwrap();
    assert_eq!(read_n(&early, 8), b"one\ntwo\n");
    let _late = daemon.connect("r");
    wait_until(|| caller.clients(json!({})).len() == 3);
    (&early).write_all(b"three\n").unwrap();
    assert_eq!(read_n(&speaker, 6), b"three\n");
    let told = caller.clients(json!({}));
    let counts =
        |key: &str| -> Vec<u64> { told.iter().map(|of| of[key].as_u64().unwrap()).collect() };
    assert_eq!(counts("messages_in"), [1, 2, 0]);
    assert_eq!(counts("messages_out"), [2, 1, 1]);
    assert_eq!(counts("bytes_in"), [6, 8, 0]);
    assert_eq!(counts("bytes_out"), [8, 6, 6]);
}

#[test]
fn many_clients_come_in_parts_and_each_once() {
    let daemon = start(ECHO);
    let clients: Vec<_> = (0..300).map(|_| daemon.connect("e")).collect();
    clients
        .iter()
        .for_each(|client| round_trip(client, b"here"));
    let mut caller = caller(&daemon);
    let ids: Vec<u64> = caller
        .clients(json!({}))
        .iter()
        .map(|of| of["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), 300);
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(caller.fail("Clients", json!({})).0, "ExpectedMore");
}

#[test]
fn a_client_is_ended_by_its_number() {
    let daemon = start(ECHO);
    let (one, other) = (daemon.connect("e"), daemon.connect("e"));
    round_trip(&one, b"here");
    round_trip(&other, b"here");
    let mut caller = caller(&daemon);
    assert_eq!(caller.ask("Disconnect", json!({"id": 1})), json!({}));
    assert_eq!(read_all(&one), b"");
    round_trip(&other, b"still here");
    daemon.wait_log(&["client 1 ", "disconnected by an administrator"]);
    for id in [1, 99] {
        let error = caller.fail("Disconnect", json!({"id": id}));
        assert_eq!(error, ("NoSuchClient".into(), json!({"id": id})));
    }
}

#[test]
fn who_is_connected_to_ask_is_told_where_that_is_asked_for_and_can_be_ended() {
    let daemon = start(ECHO);
    let _client = daemon.connect("e");
    let (mut asks, mut stuck) = (caller(&daemon), caller(&daemon));
    stuck.ask("Status", json!({}));
    let callers = asks.clients(json!({"socket": "daemon.control"}));
    let told: Vec<&Value> = callers.iter().map(|of| &of["socket"]).collect();
    assert_eq!(told, ["daemon.control"; 2]);
    let nobody = json!({"socket": "daemon.control", "uid": 4_000_000});
    assert!(asks.clients(nobody).is_empty());
    asks.ask("Disconnect", json!({"id": callers[1]["id"]}));
    assert_eq!(stuck.next(), None);
    wait_until(|| asks.clients(json!({"socket": "daemon.control"})).len() == 1);
    assert_eq!(asks.clients(json!({})).len(), 1);
}

#[test]
fn who_ends_itself_is_gone_and_the_others_are_served() {
    let daemon = start(ECHO);
    // Its number is the first.
    let mut caller = caller(&daemon);
    caller.send("Disconnect", json!({"id": 1}), false);
    assert_eq!(caller.next(), None);
    round_trip(&daemon.connect("e"), b"still here");
    Caller::new(&daemon.path("control")).ask("Status", json!({}));
}

#[test]
fn a_reload_answers_with_the_faults_of_the_file() {
    let daemon = start(ECHO);
    let mut caller = caller(&daemon);
    assert_eq!(caller.ask("Reload", json!({})), json!({}));
    daemon.write_config(&format!("{CONTROL}{ECHO}mode = \"0999\"\nno-key = 1\n"));
    let (name, error) = caller.fail("Reload", json!({}));
    assert_eq!(name, "ReloadFailed");
    let faults = error["faults"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> = faults.iter().map(|of| (&of["key"], &of["line"])).collect();
    assert_eq!(
        told,
        [
            (&json!("socket.e.mode"), &json!(5)),
            (&json!("socket.e.no-key"), &json!(6))
        ]
    );
    let problem = caller.ask("Status", json!({}))["problem"].take();
    assert!(
        problem.as_str().unwrap().starts_with("reload failed"),
        "{problem}"
    );
    round_trip(&daemon.connect("e"), b"as before");
    daemon.write_config(&format!("{CONTROL}{ECHO}"));
    assert_eq!(caller.ask("Reload", json!({})), json!({}));
    assert_eq!(caller.ask("Status", json!({}))["problem"], Value::Null);
}

#[test]
fn whoever_ends_sending_gets_all_answers_in_order() {
    let daemon = start(ECHO);
    let mut caller = caller(&daemon);
    for _ in 0..3 {
        caller.send("Status", json!({}), false);
        caller.send("Disconnect", json!({"id": 77}), false);
        caller.send("Reload", json!({}), false);
    }
    caller.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert!(caller.next().unwrap()["parameters"]["version"].is_string());
        assert!(caller.next().unwrap()["error"].is_string());
        assert_eq!(caller.next().unwrap(), json!({"parameters": {}}));
    }
    assert_eq!(caller.next(), None);
}

#[test]
fn it_speaks_as_every_varlink_service() {
    let daemon = start(ECHO);
    let mut caller = caller(&daemon);
    let mut service = |method: &str, parameters: Value| {
        let call = json!({"method": method, "parameters": parameters});
        caller
            .stream
            .write_all(format!("{call}\0").as_bytes())
            .unwrap();
        caller.next().unwrap()
    };
    let info = service("org.varlink.service.GetInfo", json!({}));
    let interfaces = json!(["org.varlink.service", "dev.udsd.Daemon"]);
    assert_eq!(info["parameters"]["interfaces"], interfaces);
    for name in interfaces.as_array().unwrap() {
        let got = service(
            "org.varlink.service.GetInterfaceDescription",
            json!({"interface": name}),
        );
        let text = got["parameters"]["description"].as_str().unwrap();
        assert!(text.contains(&format!("interface {}", name.as_str().unwrap())));
    }
    for (method, error) in [
        ("org.varlink.service.No", "MethodNotFound"),
        ("dev.udsd.Daemon.No", "MethodNotFound"),
        ("a.b.C", "InterfaceNotFound"),
        ("", "InterfaceNotFound"),
        (
            "org.varlink.service.GetInterfaceDescription",
            "InvalidParameter",
        ),
    ] {
        let got = service(method, json!({}));
        assert_eq!(
            got["error"],
            format!("org.varlink.service.{error}"),
            "{method}"
        );
    }
    let got = service("org.varlink.service.GetInfo", json!({"x": 1}));
    assert_eq!(got["parameters"], json!({"parameter": "x"}));
}

#[test]
fn a_parameter_that_is_wrong_is_named() {
    let daemon = start(ECHO);
    let mut caller = caller(&daemon);
    for (method, parameters, wrong) in [
        ("Disconnect", json!({}), "id"),
        ("Disconnect", json!({"id": "one"}), "id"),
        ("Clients", json!({"uid": "root"}), "uid"),
        ("Sockets", json!({"socket": "e"}), "socket"),
        ("Sockets", json!(["e"]), "parameters"),
        ("Status", json!({"x": 1}), "x"),
        ("Metrics", json!({"socket": "e"}), "socket"),
        ("Reload", json!({"file": null}), "file"),
    ] {
        let error = caller.fail(method, parameters);
        let expected = ("InvalidParameter".into(), json!({"parameter": wrong}));
        assert_eq!(error, expected, "{method}");
    }
}

/// The texts that a tap told of, and how many it missed.
fn tapped(caller: &mut Caller, messages: usize) -> (Vec<String>, u64) {
    let (mut texts, mut missed) = (Vec::new(), 0);
    while texts.len() < messages {
        let reply = caller.next().unwrap();
        assert_eq!(reply["continues"], true);
        let reply = &reply["parameters"];
        missed += reply["missed"].as_u64().unwrap();
        if let Some(text) = reply["message"]["message"].as_str() {
            texts.push(text.to_owned());
        }
    }
    (texts, missed)
}

#[test]
fn a_tap_shows_what_passes_and_who_said_it() {
    let datagrams = "[socket.d]\npath = \"{dir}/d\"\ntype = \"datagram\"\n";
    let daemon = start(&format!("{RELAY}{datagrams}"));
    let mut taps = ["r", "d"].map(|name| {
        let mut tap = caller(&daemon);
        tap.send("Tap", json!({"socket": name}), true);
        let opened = tap.next().unwrap();
        assert_eq!(opened["parameters"], json!({"message": null, "missed": 0}));
        tap
    });
    let (speaker, _hearer) = (daemon.connect("r"), daemon.connect("r"));
    let mut asks = caller(&daemon);
    wait_until(|| asks.clients(json!({})).len() == 2);
    let id = &asks.clients(json!({}))[0]["id"];
    (&speaker).write_all(b"one\ntw\xff\n").unwrap();
    let mut message = taps[0].next().unwrap()["parameters"]["message"].take();
    assert!(message["time"].take().as_f64().unwrap() > 1.7e9);
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // Told by a test in the lab: here it is that of whoever runs this.
    (message["unit"], message["user_unit"]) = (Value::Null, Value::Null);
    let expected = json!({
        "time": null, "client": id, "uid": uid.as_raw(), "gid": gid.as_raw(), "pid": own,
        "unit": null, "user_unit": null,
        "message": "one", "message_base64": null, "truncated": false, "receivers": 1,
    });
    assert_eq!(message, expected);
    let message = &taps[0].next().unwrap()["parameters"]["message"];
    assert_eq!(message["message"], "tw\u{fffd}");
    assert_eq!(message["message_base64"], "dHf/");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"", daemon.path("d")).unwrap();
    sender.send_to(b"a datagram", daemon.path("d")).unwrap();
    assert_eq!(
        tapped(&mut taps[1], 2),
        (vec![String::new(), "a datagram".into()], 0)
    );
    let error = caller(&daemon).fail("Tap", json!({"socket": "r"}));
    assert_eq!(error.0, "ExpectedMore");
    let mut wrong = caller(&daemon);
    wrong.send("Tap", json!({"socket": "no"}), true);
    assert_eq!(
        wrong.next().unwrap()["error"],
        "dev.udsd.Daemon.NoSuchSocket"
    );
}

#[test]
fn a_tap_that_is_not_read_misses_messages_and_says_how_many() {
    let daemon = start(RELAY);
    let mut tap = caller(&daemon);
    tap.send("Tap", json!({"socket": "r"}), true);
    tap.next().unwrap();
    let (speaker, hearer) = (daemon.connect("r"), daemon.connect("r"));
    wait_until(|| caller(&daemon).clients(json!({})).len() == 2);
    let line = format!("{}\n", "x".repeat(99));
    const LINES: u64 = 50_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..LINES).for_each(|_| (&speaker).write_all(line.as_bytes()).unwrap()));
        // The relay does not wait for the tap.
        read_n(&hearer, line.len() * LINES as usize);
    });
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < LINES {
        let reply = tap.next().unwrap()["parameters"].take();
        missed += reply["missed"].as_u64().unwrap();
        seen += u64::from(reply["message"].is_object());
    }
    assert!(missed > 0, "it had room for all of {seen}");
    (&speaker).write_all(b"last\n").unwrap();
    assert_eq!(tapped(&mut tap, 1), (vec!["last".into()], 0));
}

#[test]
fn a_tap_and_whoever_asks_go_on_over_a_restart() {
    let config = format!("{CONTROL}{RELAY}[socket.d]\npath = \"{{dir}}/d\"\ntype = \"datagram\"\n");
    let daemon = Setup::new().keeping().config(&config).start();
    let mut datagrams = caller(&daemon);
    datagrams.send("Tap", json!({"socket": "d"}), true);
    datagrams.next().unwrap();
    let mut tap = caller(&daemon);
    tap.send("Tap", json!({"socket": "r"}), true);
    tap.next().unwrap();
    let mut asks = caller(&daemon);
    let first = asks.ask("Status", json!({}));
    let speaker = daemon.connect("r");
    (&speaker).write_all(b"before\n").unwrap();
    assert_eq!(tapped(&mut tap, 1), (vec!["before".into()], 0));
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(daemon.path("d")).unwrap();
    let mut daemon = daemon;
    let near = daemon.park();
    // It waits there before the next process does anything.
    sender.send(b"meanwhile").unwrap();
    let next = Setup::within(daemon.folder().clone())
        .keeping()
        .config(&config);
    let daemon = passing(next, &[near.as_fd()], Some(STORED)).start();
    assert_eq!(tapped(&mut datagrams, 1), (vec!["meanwhile".into()], 0));
    assert_ne!(asks.ask("Status", json!({}))["pid"], first["pid"]);
    (&speaker).write_all(b"after\n").unwrap();
    assert_eq!(tapped(&mut tap, 1), (vec!["after".into()], 0));
    let clients = asks.clients(json!({}));
    assert_eq!((&clients[0]["messages_in"], clients.len()), (&json!(2), 1));
    drop(daemon);
}

#[test]
fn a_tap_ends_with_its_socket() {
    let daemon = start(&format!("{ECHO}{RELAY}"));
    let (mut tap, mut asks) = (caller(&daemon), caller(&daemon));
    tap.send("Tap", json!({"socket": "r"}), true);
    tap.next().unwrap();
    daemon.write_config(&format!("{CONTROL}{ECHO}"));
    asks.ask("Reload", json!({}));
    let end = tap.next().unwrap();
    assert_eq!(end["error"], "dev.udsd.Daemon.NoSuchSocket", "{end}");
}

#[test]
fn a_stop_ends_taps() {
    let mut daemon = start(RELAY);
    let mut tap = caller(&daemon);
    tap.send("Tap", json!({"socket": "r"}), true);
    tap.send("Reload", json!({}), false);
    tap.next().unwrap();
    assert!(daemon.stop().success());
    assert_eq!(
        tap.next().unwrap(),
        json!({"parameters": {"message": null, "missed": 0}})
    );
    assert!(!daemon.path("control").exists());
}

#[test]
fn who_reads_no_answers_holds_up_no_stop() {
    let mut daemon = start(RELAY);
    let mut tap = caller(&daemon);
    tap.send("Tap", json!({"socket": "r"}), true);
    tap.next().unwrap();
    let speaker = daemon.connect("r");
    (&speaker).write_all(&b"a line\n".repeat(50_000)).unwrap();
    let mut asks = caller(&daemon);
    wait_until(|| asks.clients(json!({}))[0]["messages_in"] == 50_000);
    drop(speaker);
    let mut status = || asks.ask("Status", json!({}))["clients"] == 0;
    wait_until(&mut status);
    assert!(daemon.stop().success());
    assert!(!daemon.log().contains("cut short"), "{}", daemon.log());
}

/// A call, whole, damaged in up to three places, or nothing but random bytes; without its NUL.
fn damaged(random: &mut Random) -> Vec<u8> {
    const WHOLE: [&str; 5] = [
        r#"{"method":"dev.udsd.Daemon.Clients","parameters":{"socket":"e","uid":null},"more":true}"#,
        r#"{"method":"dev.udsd.Daemon.Disconnect","parameters":{"id":4000000000}}"#,
        r#"{"method":"dev.udsd.Daemon.Tap","parameters":{"socket":"r","uid":7},"more":true}"#,
        r#"{"method":"dev.udsd.Daemon.Sockets","parameters":{"name":"e"}}"#,
        r#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"dev.udsd.Daemon"}}"#,
    ];
    let byte = |random: &mut Random| random.below(255) as u8 + 1;
    if random.below(8) == 0 {
        return (0..=random.below(500)).map(|_| byte(random)).collect();
    }
    let mut call = WHOLE[random.below(WHOLE.len())].as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(call.len());
        match random.below(3) {
            0 => call[at] = byte(random),
            1 => drop(call.remove(at)),
            _ => call.insert(at, byte(random)),
        }
    }
    call
}

#[test]
fn ten_thousand_random_and_damaged_calls_are_answered_and_leave_the_memory_flat() {
    const CALLS: u64 = 10_000;
    let daemon = start(&format!("{ECHO}{RELAY}"));
    let mut random = Random::new(20_261_128);
    let mut answers = BTreeMap::<String, u64>::new();
    let mut ask = |calls: u64| {
        for _ in 0..calls {
            let mut caller = caller(&daemon);
            let mut call = damaged(&mut random);
            call.push(0);
            // Some leave in the middle of it.
            if random.below(8) == 0 {
                call.truncate(call.len() / 2 + 1);
                caller.stream.write_all(&call).unwrap();
                continue;
            }
            caller.stream.write_all(&call).unwrap();
            let reply = caller.next().unwrap();
            assert!(reply["parameters"].is_object(), "{reply}");
            let name = reply["error"].as_str().unwrap_or("none");
            let short = name.rsplit('.').next().unwrap();
            *answers.entry(short.into()).or_default() += 1;
        }
    };
    ask(CALLS / 5);
    let before = daemon.memory();
    ask(CALLS - CALLS / 5);
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    // They reached all that there is to reach.
    for (answer, least) in [
        ("none", CALLS / 10),
        ("InvalidParameter", CALLS / 10),
        ("InterfaceNotFound", 100),
        ("MethodNotFound", 100),
        ("NoSuchSocket", 10),
        ("NoSuchClient", 100),
        ("ExpectedMore", 10),
    ] {
        let got = answers.get(answer).copied().unwrap_or_default();
        assert!(got >= least, "{got} {answer} of {answers:?}");
    }
    round_trip(&daemon.connect("e"), b"still here");
    let mut asks = caller(&daemon);
    wait_until(|| {
        let sockets = asks.ask("Sockets", json!({"name": "daemon.control"}));
        let counters = &sockets["sockets"][0]["counters"];
        // The unfinished ones are calls too, at their ends.
        counters["messages"].as_u64().unwrap() > CALLS
    });
}

#[test]
fn a_call_without_end_is_cut_off() {
    let daemon = start(ECHO);
    let mut caller = caller(&daemon);
    let _ = caller.stream.write_all(&vec![b'x'; 1 << 20]);
    assert!(matches!(caller.stream.read(&mut [0; 10]), Ok(0) | Err(_)));
    round_trip(&daemon.connect("e"), b"still here");
}

#[test]
fn whoever_does_not_read_answers_is_not_read_from() {
    let daemon = start(ECHO);
    let caller = caller(&daemon);
    let call = b"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"dev.udsd.Daemon\"}}\0";
    write_until_full(&caller.stream, &call.repeat(50_000), 0);
    assert!(daemon.memory() < 64 << 20);
    round_trip(&daemon.connect("e"), b"still here");
}

#[test]
fn who_may_not_ask_is_let_go_and_who_may_look_may_not_act() {
    if !is_root() {
        return;
    }
    let looks = "[daemon]\ncontrol = \"{dir}/control\"\ncontrol-users = [\"7001\"]\ncontrol-groups = [\"7002\"]\n";
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = setup.config(&format!("{looks}{ECHO}")).start();
    let path = daemon.path("control");
    for (uid, gid) in [(7001, 1), (7003, 7002)] {
        let mut caller = acting(uid, gid, &[], || Caller::new(&path));
        assert_eq!(caller.ask("Status", json!({}))["clients"], 0);
        for (method, parameters) in [
            ("Disconnect", json!({"id": 1})),
            ("Reload", json!({})),
            ("Tap", json!({"socket": "e"})),
        ] {
            assert_eq!(caller.fail(method, parameters).0, "PermissionDenied");
        }
    }
    let mut denied = acting(7004, 7004, &[], || Caller::new(&path));
    assert_eq!(denied.next(), None);
    daemon.wait_log(&[
        "daemon.control: refused a client",
        "uid 7004",
        "daemon.control-users",
    ]);
}

#[test]
fn who_only_asks_takes_no_place_from_others() {
    if !is_root() {
        return;
    }
    let looks = "[daemon]\ncontrol = \"{dir}/control\"\ncontrol-users = [\"7001\"]\n";
    let limits = "[limits]\nclients = 4\nclients-per-user = 4\n";
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = setup.config(&format!("{looks}{limits}{ECHO}")).start();
    let path = daemon.path("control");
    let mut lookers: Vec<Caller> = acting(7001, 7001, &[], || {
        (0..32).map(|_| Caller::new(&path)).collect()
    });
    for looker in &mut lookers {
        looker.ask("Status", json!({}));
    }
    let mut one_more = acting(7001, 7001, &[], || Caller::new(&path));
    let refused = one_more.next().unwrap();
    assert_eq!(refused["error"], "dev.udsd.Daemon.Refused");
    assert_eq!(one_more.next(), None);
    daemon.wait_log(&["daemon.control: refused a client", "32 of one user"]);
    // All places that there are for clients are free, and for who acts as well.
    let clients: Vec<_> = (0..4).map(|_| daemon.connect("e")).collect();
    clients.iter().for_each(|of| round_trip(of, b"here"));
    assert_eq!(caller(&daemon).clients(json!({})).len(), 4);
}

#[test]
fn what_is_asked_for_before_leaving_is_done() {
    let daemon = start(ECHO);
    let clients: Vec<_> = (0..3).map(|_| daemon.connect("e")).collect();
    clients.iter().for_each(|of| round_trip(of, b"here"));
    let mut asks = caller(&daemon);
    let ids = asks.clients(json!({}));
    let calls = ids.iter().map(|of| {
        let call = json!({"method": "dev.udsd.Daemon.Disconnect", "parameters": {"id": of["id"]}, "oneway": true});
        format!("{call}\0")
    });
    // All at once, and gone.
    let calls: String = calls.collect();
    caller(&daemon).stream.write_all(calls.as_bytes()).unwrap();
    clients.iter().for_each(|of| assert_eq!(read_all(of), b""));
}

#[test]
fn a_path_that_cannot_be_had_costs_only_the_answers() {
    let setup = Setup::new();
    fs::write(setup.folder().join("control"), "a file").unwrap();
    let daemon = setup.config(&format!("{CONTROL}{ECHO}")).start();
    daemon.wait_log(&["WARN", "control socket", "nobody can ask"]);
    round_trip(&daemon.connect("e"), b"served");
    // Once it is free, a reload has it.
    fs::remove_file(daemon.path("control")).unwrap();
    daemon.reload();
    caller(&daemon).ask("Status", json!({}));
}

#[test]
fn it_comes_moves_and_goes_with_the_file() {
    let at = |name: &str| format!("[daemon]\ncontrol = \"{{dir}}/{name}\"\n{ECHO}");
    let daemon = Daemon::start(&at("new/control"));
    let folder = fs::metadata(daemon.path("new")).unwrap();
    let mode = if rustix::process::geteuid().is_root() {
        0o755
    } else {
        0o700
    };
    assert_eq!(folder.permissions().mode() & 0o777, mode);
    let mut first = Caller::new(&daemon.path("new/control"));
    first.ask("Status", json!({}));
    daemon.reload_with(&at("moved"));
    Caller::new(&daemon.path("moved")).ask("Status", json!({}));
    // It is the same socket elsewhere.
    first.ask("Status", json!({}));
    assert!(!daemon.path("new/control").exists());
    daemon.reload_with(&format!("[daemon]\ncontrol = \"\"\n{ECHO}"));
    assert!(!Path::new(&daemon.path("moved")).exists());
    assert_eq!(first.next(), None);
}

#[test]
fn a_user_without_room_can_still_ask() {
    let limits = "[limits]\nqueue-per-user = \"256KiB\"\nclients-per-user = 1\n";
    let daemon = start(&format!("{limits}{ECHO}queue-size = \"1MiB\"\n"));
    let floods = daemon.connect("e");
    write_until_full(&floods, &[b'x'; 4 << 20], 0);
    let mut caller = caller(&daemon);
    wait_until(|| {
        let client = &caller.clients(json!({}))[0];
        client["held"].as_u64().unwrap() > 0 && client["waits_for"].is_string()
    });
}

#[test]
fn what_was_refused_and_what_a_record_holds_is_told() {
    let collect = "[socket.c]\npath = \"{dir}/c\"\nservice = \"collect\"\nframing = \"lines\"\nclients = 1\n[socket.c.record]\nfile = \"{dir}/record\"\n";
    let daemon = start(collect);
    let sender = daemon.connect("c");
    let mut caller = caller(&daemon);
    wait_until(|| caller.clients(json!({})).len() == 1);
    read_all(&daemon.connect("c"));
    (&sender).write_all(b"one\ntwo\n").unwrap();
    let mut socket = Value::Null;
    wait_until(|| {
        socket = caller.ask("Sockets", json!({"name": "c"}))["sockets"][0].take();
        socket["record"]["messages_written"] == 2
    });
    let bytes = fs::metadata(daemon.path("record")).unwrap().len();
    let path = daemon.path("record");
    let mut record = socket["record"].take();
    assert!(
        record["behind"]
            .take()
            .as_f64()
            .is_none_or(|behind| behind < 60.0)
    );
    let expected = json!({
        "name": path.to_str().unwrap(), "open": true, "seq": 2, "messages_written": 2,
        "bytes_written": bytes, "segments_ended": 0, "segments_removed": 0, "messages_waiting": 0, "bytes_waiting": 0, "behind": null,
        "error": null, "error_age": null,
    });
    assert_eq!(record, expected);
    let counters = &socket["counters"];
    assert_eq!(
        (&counters["messages"], &counters["refused_socket_clients"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(counters["dropped_queue_size"], 0);
    let last = socket["last"].as_array().unwrap();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(last[0]["kind"], "clients refused by limits");
    assert!(
        last[0]["text"]
            .as_str()
            .unwrap()
            .contains("socket.c.clients = 1"),
        "{last:?}"
    );
    assert!(last[0]["age"].as_f64().unwrap() < 60.0);
}

#[test]
fn the_last_lines_of_the_log_stay_over_a_restart_and_a_changed_socket() {
    let config = |framing| {
        format!("{CONTROL}[socket.e]\npath = \"{{dir}}/e\"\nframing = \"{framing}\"\nclients = 1\n")
    };
    let last = |caller: &mut Caller| {
        let socket = caller.ask("Sockets", json!({"name": "e"}))["sockets"][0].take();
        let lines = socket["last"].as_array().unwrap();
        let texts = lines.iter().map(|line| line["text"].as_str().unwrap());
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    let daemon = Setup::new().keeping().config(&config("lines")).start();
    let client = daemon.connect("e");
    round_trip(&client, b"here\n");
    read_all(&daemon.connect("e"));
    let mut asks = caller(&daemon);
    wait_until(|| last(&mut asks).len() == 1);
    let daemon = daemon.restart(|setup| setup.config(&config("lines")));
    let lines = last(&mut asks);
    assert!(lines.len() == 1 && lines[0].contains("socket.e.clients = 1"));
    // While it is owed something the socket that it came to stays, and its end is told of the next.
    write_until_full(&client, &b"line\n".repeat(1_000_000), 0);
    daemon.reload_with(&config("nul"));
    drop(client);
    wait_until(|| last(&mut asks).len() == 2);
    assert!(last(&mut asks)[1].contains("closed: "));
}

#[test]
fn what_is_dropped_is_told_by_client() {
    let daemon = start(&format!(
        "{RELAY}slow-client = \"drop\"\nqueue-size = \"128KiB\"\n"
    ));
    let (speaker, hearer) = (daemon.connect("r"), daemon.connect("r"));
    let _sleepers = [daemon.connect("r"), daemon.connect("r")];
    let mut caller = caller(&daemon);
    wait_until(|| caller.clients(json!({})).len() == 4);
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..2000 {
        (&speaker).write_all(line.as_bytes()).unwrap();
        read_n(&hearer, line.len());
    }
    let clients = caller.clients(json!({}));
    let dropped: Vec<u64> = clients
        .iter()
        .map(|of| of["dropped"].as_u64().unwrap())
        .collect();
    assert_eq!(dropped[..2], [0, 0]);
    assert!(dropped[2] > 0 && dropped[3] > 0, "{dropped:?}");
    let socket = caller.ask("Sockets", json!({"name": "r"}))["sockets"][0].take();
    let all = socket["counters"]["dropped_queue_size"].as_u64();
    assert_eq!(all, Some(dropped.iter().sum()));
}

#[test]
fn clients_of_a_relay_that_drains_are_told() {
    let daemon = start(&format!("{RELAY}queue-size = \"4MiB\"\n"));
    let speaker = daemon.connect("r");
    let mut caller = caller(&daemon);
    wait_until(|| caller.clients(json!({})).len() == 1);
    (&speaker).write_all(b"before\n").unwrap();
    wait_until(|| caller.clients(json!({}))[0]["messages_in"] == 1);
    let _sleeper = daemon.connect("r");
    wait_until(|| caller.clients(json!({})).len() == 2);
    let line = format!("{}\n", "x".repeat(999));
    (0..1000).for_each(|_| (&speaker).write_all(line.as_bytes()).unwrap());
    wait_until(|| caller.clients(json!({}))[0]["messages_in"] == 1001);
    daemon.reload_with(&format!("{CONTROL}{}", RELAY.replace("lines", "nul")));
    // Its socket's counts have gone to the one that has its name now.
    let clients = caller.clients(json!({}));
    assert!(
        clients
            .iter()
            .all(|of| of["messages_out"].as_u64().unwrap() < 2000),
        "{clients:?}"
    );
}

#[test]
fn a_caller_that_leaves_in_mid_answer_leaves_nothing_to_do() {
    let daemon = start(RELAY);
    let speaker = daemon.connect("r");
    let line = b"a line\n".repeat(5000);
    for _ in 0..20 {
        let mut tap = caller(&daemon);
        tap.send("Tap", json!({"socket": "r"}), true);
        tap.next().unwrap();
        (&speaker).write_all(&line).unwrap();
        tap.next().unwrap();
    }
    daemon.wait_idle();
}
