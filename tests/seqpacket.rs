//! Promise: on a seqpacket socket a packet is a message, whatever its length: none is joined, parted,
//! cut or lost in silence, an empty one is a message too, and the end is the end.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{fs, thread};

use harness::{
    Daemon, Random, Setup, Signal, has_program, is_root,
    packets::{Packets, try_connect},
    round_trip,
};
use rustix::{
    io::Errno,
    net::{SendFlags, SocketType, sockopt},
    process::geteuid,
};
use serde_json::Value;

/// A seqpacket socket `s` with these keys.
fn config(keys: &str) -> String {
    format!("[socket.s]\npath = \"{{dir}}/s\"\ntype = \"seqpacket\"\n{keys}\n")
}

fn start(keys: &str) -> Daemon {
    Daemon::start(&config(keys))
}

fn client(daemon: &Daemon) -> Packets {
    Packets::connect(&daemon.path("s"))
}

/// Packet number `n`: it says which one it is, and whether it is whole.
fn numbered(n: usize) -> Vec<u8> {
    let length = n * 7919 % 2000;
    let mut packet = (n as u32).to_be_bytes().to_vec();
    packet.resize(4 + length, n as u8);
    packet
}

fn number(packet: &[u8]) -> usize {
    let n = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
    assert!(packet == numbered(n), "packet {n} is damaged");
    n
}

/// What the last lines of the log count under this word for socket `s`.
fn counted(daemon: &mut Daemon, word: &str) -> usize {
    assert!(daemon.stop().success());
    let line = daemon.wait_log(&[" s: ", " unfinished; "]);
    let before = line.split(&format!(" {word}")).next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The objects of a record.
fn recorded(daemon: &Daemon, lines: usize) -> Vec<Value> {
    let lines = daemon.wait_output(lines);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn packets_of_every_size_come_back_as_they_were_to_many_clients_at_once() {
    const LONGEST: usize = 4096;
    let daemon = start("message-size = \"4KiB\"");
    thread::scope(|scope| {
        for seed in 1..=8 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut sizes: Vec<usize> = (0..=LONGEST).collect();
                for i in (1..sizes.len()).rev() {
                    sizes.swap(i, random.below(i + 1));
                }
                let client = client(daemon);
                let expected = |size: usize| vec![(size as u8) ^ (seed as u8); size];
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for &size in &sizes {
                            client.send(&expected(size));
                        }
                        client.finish();
                    });
                    for &size in &sizes {
                        assert!(client.receive() == Some(expected(size)), "{size} bytes");
                    }
                    assert_eq!(client.receive(), None);
                });
            });
        }
    });
    let mut daemon = daemon;
    assert_eq!(counted(&mut daemon, "messages of"), 8 * (LONGEST + 1));
    let bytes = 8 * (LONGEST * (LONGEST + 1) / 2);
    daemon.wait_log(&[&format!("of {bytes} bytes,")]);
}

#[test]
fn empty_packets_are_messages_and_not_the_end() {
    let daemon = start("");
    let client = client(&daemon);
    for _ in 0..3 {
        client.round_trip(b"");
    }
    daemon.halt();
    for packet in [&b""[..], b"a", b"", b""] {
        client.send(packet);
    }
    client.finish();
    daemon.resume();
    assert_eq!(client.receive_all(), [&b""[..], b"a", b"", b""]);
}

#[test]
fn whoever_sends_nothing_more_gets_what_is_owed_and_then_the_end() {
    let daemon = start("");
    let client = client(&daemon);
    daemon.halt();
    let packets: Vec<_> = (0..50).map(numbered).collect();
    for packet in &packets {
        client.send(packet);
    }
    client.finish();
    daemon.resume();
    assert!(client.receive_all() == packets);

    let silent = self::client(&daemon);
    silent.finish();
    assert_eq!(silent.receive(), None);
}

#[test]
fn every_packet_is_one_record_with_its_sender() {
    let daemon = start("service = \"collect\"");
    let client = client(&daemon);
    for packet in [&b"one\ntwo\0"[..], b"", b"\xff", b"last"] {
        client.send(packet);
    }
    client.finish();
    assert_eq!(client.receive(), None);
    let records = recorded(&daemon, 4);
    assert_eq!(records[0]["message"], "one\ntwo\0");
    assert_eq!(records[1]["message"], "");
    assert_eq!(records[2]["message"], "\u{fffd}");
    assert_eq!(records[2]["message_base64"], "/w==");
    assert_eq!(records[3]["message"], "last");
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], i + 1);
        assert_eq!(record["pid"], std::process::id());
        assert_eq!(record["uid"], geteuid().as_raw());
        assert_eq!(record["truncated"], Value::Null);
    }
}

#[test]
fn one_that_is_too_long_is_refused_alone() {
    let mut daemon = start("message-size = 100");
    let client = client(&daemon);
    for size in [101, 100, 102, 50_000, 0, 101] {
        client.send(&vec![b'x'; size]);
    }
    for size in [100, 0] {
        assert_eq!(client.receive(), Some(vec![b'x'; size]));
    }
    client.round_trip(b"still here");
    daemon.wait_log(&[
        "WARN",
        "s: refused",
        "of client 1 (pid",
        "socket.s.message-size = 100 bytes",
    ]);
    assert_eq!(counted(&mut daemon, "oversized"), 4);
    assert!(daemon.log().contains(" 3 messages of 110 bytes"));
}

#[test]
fn of_one_that_is_too_long_the_first_part_is_recorded() {
    let mut daemon = start("service = \"collect\"\nmessage-size = 10");
    let client = client(&daemon);
    for packet in [&b"01234567890"[..], b"0123456789", &[b'y'; 9999], b"", b"z"] {
        client.send(packet);
    }
    client.finish();
    assert_eq!(client.receive(), None);
    let records = recorded(&daemon, 5);
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            let message = record["message"].as_str().unwrap();
            (message, record["truncated"] == true)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("0123456789", true),
            ("0123456789", false),
            ("yyyyyyyyyy", true),
            ("", false),
            ("z", false)
        ]
    );
    daemon.wait_log(&["WARN", "kept the first part of", "socket.s.message-size"]);
    assert_eq!(counted(&mut daemon, "truncated"), 2);
}

#[test]
fn a_slow_reader_is_waited_for_and_loses_nothing() {
    const PACKETS: usize = 5000;
    let daemon = start("message-size = \"2KiB\"\nqueue-size = \"8KiB\"");
    let client = client(&daemon);
    // More than the kernel holds for the daemon: its own queue is full, and it waits. It may be told
    // of room only once the kernel's queue is down to a quarter, so not more than this is certain.
    let mut sent = client.send_until_full((0..PACKETS).map(numbered), 100);
    assert!(sent < PACKETS);
    // And again, once there was room.
    for n in 0..100 {
        assert_eq!(client.receive().map(|packet| number(&packet)), Some(n));
    }
    sent += client.send_until_full((sent..PACKETS).map(numbered), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in sent..PACKETS {
                client.send(&numbered(n));
            }
            client.finish();
        });
        for n in 100..PACKETS {
            assert_eq!(client.receive().map(|packet| number(&packet)), Some(n));
        }
        assert_eq!(client.receive(), None);
    });
}

#[test]
fn a_slow_reader_is_disconnected_and_what_it_got_is_whole() {
    let daemon =
        start("message-size = \"2KiB\"\nqueue-size = \"8KiB\"\nslow-client = \"disconnect\"");
    let client = client(&daemon);
    let mut sent = 0;
    let error = loop {
        match client.try_send(&numbered(sent), SendFlags::empty()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    // By whether it was told of what nobody read of it.
    assert!([Errno::PIPE, Errno::CONNRESET].contains(&error), "{error}");
    daemon.wait_log(&["WARN", "s: client 1 (pid", "did not read", "queue-size"]);
    // The kernel tells of it once, and before what waits to be received (`unix(7)`).
    let _ = sockopt::socket_error(&client);
    let received = client.receive_all();
    assert!(received.len() < sent && received.len() > 10);
    for (n, packet) in received.iter().enumerate() {
        assert_eq!(number(packet), n);
    }
}

#[test]
fn for_a_slow_reader_whole_packets_are_dropped_and_counted() {
    const PACKETS: usize = 5000;
    let mut daemon =
        start("message-size = \"2KiB\"\nqueue-size = \"8KiB\"\nslow-client = \"drop\"");
    let client = client(&daemon);
    for n in 0..PACKETS {
        client.send(&numbered(n));
    }
    client.finish();
    let received: Vec<_> = client.receive_all().iter().map(|p| number(p)).collect();
    assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
    assert!(received.len() < PACKETS, "nothing was dropped");
    daemon.wait_log(&["WARN", "s: dropped", "for client 1 (pid"]);
    let dropped = counted(&mut daemon, "dropped");
    assert_eq!(received.len() + dropped, PACKETS);
}

#[test]
fn a_relay_passes_packets_on_to_all_others() {
    let daemon = start("service = \"relay\"\nmessage-size = \"4KiB\"");
    let receivers: Vec<_> = (0..3).map(|_| client(&daemon)).collect();
    // Clients are let in in the order in which they came: who is heard is the last.
    let sender = client(&daemon);
    let packets: Vec<_> = (0..2000)
        .map(|n| if n % 10 == 0 { Vec::new() } else { numbered(n) })
        .collect();
    thread::scope(|scope| {
        for receiver in &receivers {
            scope.spawn(|| {
                for packet in &packets {
                    assert!(receiver.receive().as_ref() == Some(packet));
                }
            });
        }
        for packet in &packets {
            sender.send(packet);
        }
    });
}

#[test]
fn under_a_quota_that_holds_two_packets_all_get_theirs() {
    let quota = "[limits]\nqueue-per-user = \"4104B\"\n";
    let keys = "message-size = \"2KiB\"\nqueue-size = \"2052B\"";
    let daemon = Daemon::start(&(quota.to_owned() + &config(keys)));
    let longest = vec![7; 2048];
    let slow = client(&daemon);
    slow.round_trip(&longest);
    // What it has not read yet takes up the quota: others wait, and are not taken for ended.
    let sent = slow.send_until_full(std::iter::repeat_n(longest.clone(), 1000), 40);
    let other = client(&daemon);
    other.send(b"");
    other.send(&longest);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..sent {
                assert!(slow.receive().as_ref() == Some(&longest));
            }
        });
        assert_eq!(other.receive(), Some(Vec::new()));
        assert!(other.receive().as_ref() == Some(&longest));
    });
    slow.round_trip(b"");
    other.round_trip(&longest);
}

#[test]
fn a_stop_is_an_end_and_no_error() {
    for _ in 0..10 {
        let mut daemon = start("");
        let client = client(&daemon);
        client.round_trip(b"hello");
        daemon.halt();
        for n in 0..50 {
            client.send(&numbered(n));
        }
        daemon.signal(Signal::TERM);
        daemon.resume();
        // What was read before the stop, if anything, comes back.
        for (n, packet) in client.receive_all().iter().enumerate() {
            assert_eq!(number(packet), n);
        }
        assert!(daemon.wait().success());
    }
}

#[test]
fn after_a_kill_the_path_is_bound_anew() {
    let setup = Setup::new().config(&config(""));
    let folder = setup.folder().clone();
    let mut daemon = setup.start();
    let orphan = client(&daemon);
    orphan.round_trip(b"before");
    daemon.kill();
    assert_eq!(orphan.receive(), None);
    let error = try_connect(&folder.join("s"), SocketType::SEQPACKET).unwrap_err();
    assert_eq!(error, Errno::CONNREFUSED);

    let mut daemon = Setup::within(folder.clone()).config(&config("")).start();
    client(&daemon).round_trip(b"after");
    // While it lives, no other takes its place.
    let (code, log) = Setup::new()
        .arguments(&["--type", "seqpacket", "--socket"])
        .arguments(&[folder.join("s").to_str().unwrap()])
        .fail();
    assert_eq!(code, Some(1), "{log}");
    let pid = format!("in use by pid {};", daemon.pid().as_raw_nonzero());
    assert!(log.contains(&pid), "{log}");
    client(&daemon).round_trip(b"still here");
    assert!(daemon.stop().success());
    assert!(!folder.join("s").exists());
}

#[test]
fn a_client_of_another_type_is_told_by_the_kernel() {
    let daemon = Daemon::start(&(config("") + "[socket.e]\npath = \"{dir}/e\"\n"));
    for (name, kind) in [
        ("s", SocketType::STREAM),
        ("s", SocketType::DGRAM),
        ("e", SocketType::SEQPACKET),
    ] {
        let error = try_connect(&daemon.path(name), kind).unwrap_err();
        assert_eq!(error, Errno::PROTOTYPE, "{name}");
    }
    round_trip(&daemon.connect("e"), b"stream");
    client(&daemon).round_trip(b"packet");
}

#[test]
fn access_lists_and_limits_hold() {
    let stranger = geteuid().as_raw() + 1;
    let daemon = start(&format!("allow-users = [{stranger}]"));
    assert_eq!(client(&daemon).receive(), None);
    daemon.wait_log(&["refused a client", "not in socket.s.allow-users"]);

    let daemon = start("clients = 1");
    let first = client(&daemon);
    first.round_trip(b"in");
    assert_eq!(client(&daemon).receive(), None);
    daemon.wait_log(&["refused a client", "socket.s.clients = 1"]);
    first.round_trip(b"still in");
}

#[test]
fn packets_beyond_the_default_send_buffer_pass() {
    // More than net.core.wmem_default lets pass, less than twice its usual self as wmem_max.
    const SIZE: usize = 300 << 10;
    let keys = "message-size = \"300KiB\"\nqueue-size = \"1MiB\"";
    let sockets = config(keys) + "[socket.e]\npath = \"{dir}/e\"\n";
    let daemon = Daemon::start(&sockets);
    let client = client(&daemon);
    assert!(client.make_room(SIZE + 1));
    let packets: Vec<_> = (0..20).map(|n| vec![n; SIZE - n as usize]).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for packet in &packets {
                client.send(packet);
                client.send(&[b'x'; SIZE + 1]);
            }
            client.finish();
        });
        for packet in &packets {
            assert!(client.receive().as_ref() == Some(packet));
        }
        assert_eq!(client.receive(), None);
    });
    // The read buffer that they share serves streams as before.
    round_trip(&daemon.connect("e"), &[7; 150_000]);
}

#[test]
fn a_message_size_that_no_packet_can_have_keeps_the_daemon_from_starting() {
    if !is_root() || !has_program("setpriv") {
        return;
    }
    const SIZE: usize = 4 << 20;
    let setup = Setup::new()
        .config(&config("message-size = \"4MiB\"\nqueue-size = \"8MiB\""))
        .wrapper(&["setpriv", "--bounding-set=-net_admin"]);
    let most = fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    // The kernel doubles it and keeps 32 bytes back.
    let room = 2 * most.trim().parse::<usize>().unwrap() - 32;
    if room >= SIZE {
        let daemon = setup.start();
        client(&daemon).round_trip(b"hello");
        return;
    }
    let (code, log) = setup.fail();
    assert_eq!(code, Some(78), "{log}");
    for words in [
        "socket.s.message-size",
        "SO_SNDBUF",
        "wmem_max",
        &room.to_string(),
    ] {
        assert!(log.contains(words), "\"{words}\" is not in: {log}");
    }
}
