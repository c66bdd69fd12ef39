//! Echo: every datagram goes back to its sender's address, and nowhere else.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixDatagram,
    },
    sync::mpsc::sync_channel,
    thread,
};

use rustix::process::geteuid;

use super::{
    Client, config, counted,
    harness::{Daemon, Random, Setup, has_program, is_root},
    json, kernel_queue, number_of, numbered, own_pid,
};
use crate::harness::acting;

#[test]
fn every_length_comes_back_in_one_piece() {
    let mut daemon = Daemon::start(&config(""));
    let path = Client::bound(&daemon, "c");
    let name = Client::abstract_name(&daemon, daemon.path("x\0y").to_str().unwrap().as_bytes());
    let bytes = Random::new(5).bytes(64 * 1024);
    let mut sent = 0;
    for length in (0..200).chain([1000, 4096, 65_535, 65_536]) {
        for client in [&path, &name] {
            client.round_trip(&bytes[..length]);
            sent += 1;
        }
    }
    // Several at once do not run together.
    for length in [3, 0, 1, 0, 0, 7] {
        path.send(&bytes[..length]);
    }
    for length in [3, 0, 1, 0, 0, 7] {
        assert_eq!(path.receive(), &bytes[..length]);
    }
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "clients"), 2);
    assert_eq!(counted(&daemon, "s", "messages"), sent + 6);
}

#[test]
fn many_at_once_each_get_their_own_in_order() {
    const CLIENTS: usize = 10;
    const EACH: usize = 3000;
    let mut daemon = Daemon::start(&config(""));
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let client = Client::bound(&daemon, &format!("c{n}"));
            let reader = client.socket.try_clone().unwrap();
            // Who asks for more than its queue holds loses some.
            let (asked, answered) = sync_channel(200);
            scope.spawn(move || {
                let mut random = Random::new(1 + n as u64);
                for i in 0..EACH {
                    let length = random.below(3000);
                    asked.send(()).unwrap();
                    client.send(&numbered(i * CLIENTS + n, length));
                }
            });
            scope.spawn(move || {
                let mut buffer = [0; 4096];
                for i in 0..EACH {
                    let length = reader.recv(&mut buffer).unwrap();
                    assert_eq!(number_of(&buffer[..length]), i * CLIENTS + n);
                    answered.recv().unwrap();
                }
            });
        }
    });
    assert!(daemon.stop().success());
    let all = (CLIENTS * EACH) as u64;
    assert_eq!(counted(&daemon, "s", "messages"), all);
    assert_eq!(counted(&daemon, "s", "dropped"), 0);
}

#[test]
fn who_stops_reading_gets_all_in_order_later_and_costs_the_others_nothing() {
    let all = kernel_queue() + 2000;
    let daemon = Daemon::start(&config("slow-timeout = \"1h\""));
    let sleeper = Client::bound(&daemon, "sleeper");
    let other = Client::bound(&daemon, "other");
    for n in 0..all {
        sleeper.send(&numbered(n, 100));
        if n % 100 == 0 {
            other.round_trip(b"still served");
        }
    }
    other.round_trip(b"all read");
    for n in 0..all {
        assert_eq!(sleeper.receive(), numbered(n, 100));
    }
    sleeper.round_trip(b"and on");
}

#[test]
fn a_full_queue_drops_what_is_new_and_says_so() {
    let all = kernel_queue() + 200;
    let keys = "message-size = \"100B\"\nqueue-size = \"5KiB\"\nslow-timeout = \"1h\"";
    let mut daemon = Daemon::start(&config(keys));
    let sleeper = Client::bound(&daemon, "sleeper");
    for n in 0..all {
        sleeper.send(&numbered(n, 100));
    }
    Client::bound(&daemon, "other").round_trip(b"all read");
    let line = daemon.wait_log(&[
        "WARN",
        "s: dropped 1 messages",
        "it does not read",
        "socket.s.queue-size = 5120",
    ]);
    let address = daemon.path("sleeper");
    for part in [address.to_str().unwrap(), &own_pid(), "uid "] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    // What the kernel holds, and what the queue holds, where each costs 64 bytes more: the oldest.
    let kept = kernel_queue() + 5 * 1024 / 164;
    for n in 0..kept {
        assert_eq!(number_of(&sleeper.receive()), n);
    }
    sleeper.round_trip(b"awake");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "dropped"), (all - kept) as u64);
    let lines = daemon.log().matches("dropped 1 messages").count();
    assert!((1..=40).contains(&lines), "{lines} lines");
}

#[test]
fn who_takes_nothing_for_slow_timeout_loses_what_waits() {
    let mut daemon = Daemon::start(&config("slow-timeout = \"200ms\""));
    let sleeper = Client::bound(&daemon, "sleeper");
    let all = kernel_queue() + 500;
    for n in 0..all {
        sleeper.send(&numbered(n, 50));
    }
    let line = daemon.wait_log(&["WARN", "messages for client 1", "slow-timeout = 200ms"]);
    let lost: usize = line
        .split_once("dropped ")
        .unwrap()
        .1
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for n in 0..all - lost {
        assert_eq!(number_of(&sleeper.receive()), n);
    }
    // It is a client like any other.
    sleeper.round_trip(b"awake");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "dropped"), lost as u64);
}

#[test]
fn many_who_never_read_leave_room_for_one_who_does() {
    let daemon = Daemon::start(&config("slow-timeout = \"1h\"\nqueue-size = \"64KiB\""));
    // How much they may hold together depends on who may raise the send buffer.
    let many = if geteuid().is_root() { 200 } else { 10 };
    let sleepers: Vec<Client> = (0..many)
        .map(|n| Client::bound(&daemon, &format!("sleeper{n}")))
        .collect();
    for sleeper in &sleepers {
        for n in 0..30 {
            sleeper.send(&numbered(n, 100));
        }
    }
    let reader = Client::bound(&daemon, "reader");
    for n in 0..100 {
        reader.round_trip(&numbered(n, 100));
    }
    for n in 0..30 {
        assert_eq!(number_of(&sleepers[7].receive()), n);
    }
}

#[test]
fn without_an_address_or_with_nobody_there_it_is_counted() {
    let mut daemon = Daemon::start(&config(""));
    let unbound = Client::unbound(&daemon);
    for _ in 0..3 {
        unbound.send(b"nobody");
    }
    // One whose file is gone, one whose process is.
    daemon.halt();
    let gone = Client::bound(&daemon, "gone");
    gone.send(b"gone");
    fs::remove_file(daemon.path("gone")).unwrap();
    let closed = Client::bound(&daemon, "closed");
    closed.send(b"closed");
    drop(closed);
    // Somebody put something else there.
    let other = Client::bound(&daemon, "other");
    other.send(b"other");
    fs::remove_file(daemon.path("other")).unwrap();
    fs::write(daemon.path("other"), "precious").unwrap();
    daemon.resume();
    Client::bound(&daemon, "witness").round_trip(b"all read");
    assert_eq!(fs::read(daemon.path("other")).unwrap(), b"precious");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "unbound"), 3);
    assert_eq!(counted(&daemon, "s", "unreachable"), 3);
    assert_eq!(counted(&daemon, "s", "messages"), 7);
    assert!(!daemon.log().contains("dropped 1"), "{}", daemon.log());
}

#[test]
fn nothing_is_sent_to_a_socket_that_is_not_the_senders() {
    if !is_root() {
        return;
    }
    let daemon = Setup::new();
    let open = |name: &str, mode| {
        fs::set_permissions(daemon.folder().join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    open("", 0o777);
    let victim_path = daemon.folder().join("victim");
    let victim = UnixDatagram::bind(&victim_path).unwrap();
    open("victim", 0o666);
    let mut daemon = daemon.config(&config("")).start();
    // It may write to the victim itself, but not in the daemon's name.
    let path = daemon.path("mine");
    acting(7001, 7, &[], || {
        let mine = Client::bound(&daemon, "mine");
        mine.round_trip(b"mine");
        fs::remove_file(&path).unwrap();
        symlink(&victim_path, &path).unwrap();
        mine.send(b"for the victim");
        let witness = Client::bound(&daemon, "witness");
        witness.round_trip(b"all read");
        // Through a link to its own it is reached.
        fs::remove_file(&path).unwrap();
        symlink(daemon.path("moved"), &path).unwrap();
        let moved = UnixDatagram::bind(daemon.path("moved")).unwrap();
        mine.send(b"moved");
        let mut buffer = [0; 10];
        assert_eq!(moved.recv(&mut buffer).unwrap(), 5);
    });
    victim.set_nonblocking(true).unwrap();
    assert!(victim.recv(&mut [0; 100]).is_err(), "it was written to");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "unreachable"), 1);
}

#[test]
fn what_the_daemon_sends_itself_does_not_go_round() {
    let setup = Setup::new();
    // Its name stays what it was when the daemon has taken the path.
    let path = setup.folder().join("t");
    let sender = UnixDatagram::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let other = "[socket.t]\npath = \"{dir}/t\"\ntype = \"datagram\"";
    let mut daemon = setup.config(&format!("{}{other}", config(""))).start();
    let client = Client::of(sender, &daemon, "s");
    client.send(b"round and round");
    // It comes to `t` before what is sent after it has been read.
    Client::bound(&daemon, "v").round_trip(b"read");
    let witness = Client::of(UnixDatagram::bind(daemon.path("w")).unwrap(), &daemon, "t");
    witness.round_trip(b"fine");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "t", "refused"), 1);
    // Each word of it in the log would be one more that journald forwards.
    assert!(!daemon.log().contains("WARN  t: "), "{}", daemon.log());
    assert_eq!(counted(&daemon, "t", "messages"), 1);
    assert_eq!(counted(&daemon, "s", "messages"), 2);
}

#[test]
fn a_datagram_that_is_too_long_is_refused_alone() {
    let mut daemon = Daemon::start(&config("message-size = \"1KiB\""));
    let client = Client::bound(&daemon, "c");
    for length in [1024, 1025, 1026, 1027, 1028, 200_000, 5] {
        client.send(&numbered(0, length));
    }
    for length in [1024, 5] {
        assert_eq!(client.receive(), numbered(0, length));
    }
    let line = daemon.wait_log(&["WARN", "s: refused a datagram of 200000 bytes"]);
    for part in [&own_pid(), "uid ", "/c ", "socket.s.message-size = 1024"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "oversized"), 5);
    assert_eq!(counted(&daemon, "s", "messages"), 2);
}

#[test]
fn a_record_beside_echo_has_every_datagram_that_was_taken() {
    let keys = "message-size = \"100B\"\n[socket.s.record]";
    let mut daemon = Daemon::start(&config(keys));
    let client = Client::bound(&daemon, "c");
    for n in 0..50 {
        client.round_trip(&numbered(n, 20));
    }
    client.send(&[b'x'; 101]);
    Client::unbound(&daemon).send(b"unbound");
    let lines = daemon.wait_output(51);
    for (n, line) in lines[..50].iter().enumerate() {
        let record = json(line);
        assert_eq!(record["client"], 1);
        assert_eq!(number_of(record["message"].as_str().unwrap().as_bytes()), n);
    }
    assert_eq!(json(&lines[50])["client"], 0);
    assert!(daemon.stop().success());
    assert_eq!(daemon.wait_output(51).len(), 51);
    assert_eq!(counted(&daemon, "s", "messages"), 51);
}

#[test]
fn foreign_programs_get_their_echo() {
    if !has_program("nc") {
        return;
    }
    let daemon = Daemon::start(&config(""));
    let script = format!(
        "printf hello | nc -uU -w1 -s {} {}",
        daemon.path("nc").display(),
        daemon.path("s").display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello");
}
