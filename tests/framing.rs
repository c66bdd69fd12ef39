//! Promise: a message is delivered whole or not at all, under every framing, at every size, to the
//! last one before the end of file; and no bytes that a client can send break or bloat the daemon.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    thread,
};

use harness::{Daemon, Random, read_all, read_until_closed, round_trip};

const FRAMINGS: [&str; 7] = [
    "none",
    "lines",
    "nul",
    "length-prefixed",
    "fixed:6",
    "cstring:6",
    "syslog",
];

/// Keys of a socket at the limits that these tests use.
const SMALL: &str = "message-size = \"1KiB\"\nqueue-size = \"16KiB\"\n";

/// An echo and a collecting socket for a framing, the latter to standard output.
fn pair(framing: &str, keys: &str) -> Daemon {
    Daemon::start(&format!(
        "[socket.echo]\npath = \"{{dir}}/echo\"\nservice = \"echo\"\nframing = \"{framing}\"\n{keys}\
         [socket.log]\npath = \"{{dir}}/log\"\nservice = \"collect\"\nframing = \"{framing}\"\n{keys}"
    ))
}

/// Sends `bytes` in pieces of random size, then half-closes.
fn send_split(mut stream: &UnixStream, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = (1 + random.below(7)).min(rest.len());
        stream.write_all(&rest[..n]).unwrap();
        rest = &rest[n..];
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// All that a client gets that sends `bytes` and half-closes.
fn exchange(daemon: &Daemon, socket: &str, bytes: &[u8]) -> Vec<u8> {
    let mut client = daemon.connect(socket);
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client)
}

/// The records that the daemon has written: `(message, truncated)`, in order.
fn records(daemon: &Daemon, n: usize) -> Vec<(String, bool)> {
    let lines = daemon.wait_output(n);
    let records = lines.iter().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = record["message"].as_str().unwrap_or("(base64)").to_owned();
        (message, record["truncated"].as_bool().unwrap_or(false))
    });
    records.collect()
}

fn whole(messages: &[&str]) -> Vec<(String, bool)> {
    messages.iter().map(|m| ((*m).to_owned(), false)).collect()
}

/// A framing, bytes, what comes back of them, and the messages in them.
type Case = (
    &'static str,
    &'static [u8],
    &'static [u8],
    &'static [&'static str],
);

const CASES: [Case; 6] = [
    (
        "lines",
        b"one\ntwo\r\n\nfour\n",
        b"one\ntwo\r\n\nfour\n",
        &["one", "two", "", "four"],
    ),
    (
        "nul",
        b"one\0tw\no\0\0four\0",
        b"one\0tw\no\0\0four\0",
        &["one", "tw\no", "", "four"],
    ),
    (
        "length-prefixed",
        b"\0\0\0\x03one\0\0\0\0\0\0\0\x05t\nw\0o",
        b"\0\0\0\x03one\0\0\0\0\0\0\0\x05t\nw\0o",
        &["one", "", "t\nw\0o"],
    ),
    (
        "fixed:6",
        b"onetwothree\n",
        b"onetwothree\n",
        &["onetwo", "three\n"],
    ),
    (
        "cstring:6",
        b"one\0zzsecond\0zzzzz\0fou\0z",
        b"one\0\0\0second\0\0\0\0\0\0\0\0\0\0\0\0",
        &["one", "second", "", ""],
    ),
    (
        "syslog",
        b"<13>one\n9 <14>a\nb\0c<15>two\0<16>3\n\x0010 <17>123456",
        b"<13>one\n9 <14>a\nb\0c<15>two\0<16>3\n\x0010 <17>123456",
        &["<13>one", "<14>a\nb\0c", "<15>two", "<16>3", "<17>123456"],
    ),
];

#[test]
fn messages_come_back_whole_however_they_are_split() {
    for (framing, sent, back, messages) in CASES {
        let daemon = pair(framing, "");
        let mut random = Random::new(5);
        for _ in 0..100 {
            let client = daemon.connect("echo");
            send_split(&client, sent, &mut random);
            assert_eq!(read_all(&client), back, "{framing}");
        }
        for _ in 0..20 {
            let client = daemon.connect("log");
            send_split(&client, sent, &mut random);
            assert_eq!(read_all(&client), b"", "{framing}: collect owes nothing");
        }
        let all = whole(&messages.repeat(20));
        assert_eq!(records(&daemon, all.len()), all, "{framing}");
    }
}

#[test]
fn an_unfinished_last_message_counts_where_the_framing_can_end_it() {
    let cases: [Case; 8] = [
        ("lines", b"one\nla", b"one\nla\n", &["one", "la"]),
        ("lines", b"one\nla\r", b"one\nla\r\n", &["one", "la"]),
        ("nul", b"one\0la", b"one\0la\0", &["one", "la"]),
        (
            "syslog",
            b"<1>one\n<2>l",
            b"<1>one\n<2>l\n",
            &["<1>one", "<2>l"],
        ),
        ("syslog", b"<1>one\n9 <2>l", b"<1>one\n", &["<1>one"]),
        (
            "length-prefixed",
            b"\0\0\0\x01a\0\0\0\x02b",
            b"\0\0\0\x01a",
            &["a"],
        ),
        ("fixed:6", b"onetwothree", b"onetwo", &["onetwo"]),
        ("cstring:6", b"one\0\0\0la\0", b"one\0\0\0", &["one"]),
    ];
    for (framing, sent, back, messages) in cases {
        let mut daemon = pair(framing, "");
        assert_eq!(exchange(&daemon, "echo", sent), back, "{framing}");
        assert_eq!(exchange(&daemon, "log", sent), b"", "{framing}");
        assert!(daemon.stop().success(), "{framing}");
        assert_eq!(
            records(&daemon, messages.len()),
            whole(messages),
            "{framing}"
        );
        let lines = daemon
            .output()
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        assert_eq!(lines, messages.len(), "{framing}: no more than these");
        let unfinished = u64::from(!back.starts_with(sent));
        daemon.wait_log(&["echo: 1 clients", &format!("{unfinished} unfinished")]);
    }
}

#[test]
fn without_framing_bytes_come_back_as_they_are() {
    let daemon = Daemon::ad_hoc(&["--service", "echo", "--framing", "none"]);
    let bytes = Random::new(9).bytes(500_000);
    thread::scope(|scope| {
        let client = daemon.connect("socket");
        let (stream, all) = (client.try_clone().unwrap(), &bytes);
        scope.spawn(move || {
            (&stream).write_all(all).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&client) == bytes);
    });
}

/// The framings with a message that can be too long: one of `n` bytes on the wire.
fn of_length(framing: &str, n: usize) -> Vec<u8> {
    let body = vec![b'a'; n];
    match framing {
        "lines" => [&body[..], b"\n"].concat(),
        "nul" => [&body[..], b"\0"].concat(),
        "length-prefixed" => [&(n as u32).to_be_bytes(), &body[..]].concat(),
        "syslog" => [b"<", &body[1..], b"\n"].concat(),
        "octets" => [format!("{n} <").as_bytes(), &body[1..]].concat(),
        other => panic!("{other}"),
    }
}

const UNBOUNDED: [(&str, &str); 5] = [
    ("lines", "lines"),
    ("nul", "nul"),
    ("length-prefixed", "length-prefixed"),
    ("syslog", "syslog"),
    ("syslog", "octets"),
];

#[test]
fn echo_closes_who_sends_too_long_a_message_after_what_it_is_owed() {
    for (framing, form) in UNBOUNDED {
        let daemon = pair(framing, SMALL);
        let stays = daemon.connect("echo");
        let fits = of_length(form, 1024);
        round_trip(&stays, &fits);
        for size in [1025, 5_000, 70_000] {
            let owed = fits.repeat(3);
            let too_long = of_length(form, size);
            let mut client = daemon.connect("echo");
            let sent = [&owed[..], &too_long[..], &fits[..]].concat();
            // The daemon may hang up before it has taken all.
            let _ = client.write_all(&sent);
            assert!(read_until_closed(&client) == owed, "{form} {size}");
        }
        let line = daemon.wait_log(&["closed", "message-size = 1024 bytes"]);
        assert!(line.contains("uid") && line.contains("pid"), "{line}");
        round_trip(&stays, &fits);
    }
}

#[test]
fn collect_keeps_the_first_part_of_too_long_a_message_and_goes_on() {
    for (framing, form) in UNBOUNDED {
        let daemon = pair(framing, SMALL);
        let mut expected = Vec::new();
        let mut client = daemon.connect("log");
        for size in [1024, 1025, 1024, 70_000, 1, 2_000_000, 3] {
            let wire = of_length(form, size);
            client.write_all(&wire).unwrap();
            let first = if framing == "syslog" { "<" } else { "a" };
            let kept = size.min(1024);
            let body = format!("{first}{}", "a".repeat(kept - 1));
            expected.push((body, size > 1024));
        }
        assert!(records(&daemon, expected.len()) == expected, "{form}");
        assert_eq!(exchange(&daemon, "log", b""), b"");
    }
}

/// As much of `bytes` as the daemon takes, in random pieces, while what comes back is read.
fn pour(daemon: &Daemon, socket: &str, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let client = daemon.connect(socket);
        let reader = client.try_clone().unwrap();
        thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut total = 0;
                let mut buffer = [0; 16384];
                // Reset: it was closed with this client's bytes on their way.
                while let Ok(n @ 1..) = (&reader).read(&mut buffer) {
                    total += n;
                }
                total
            });
            while !rest.is_empty() {
                let n = (1 + random.below(9_000)).min(rest.len());
                match (&client).write(&rest[..n]) {
                    Ok(n) => rest = &rest[n..],
                    Err(error) => {
                        let kind = error.kind();
                        let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                        assert!(closed.contains(&kind), "{error}");
                        // Closed for a message that is too long: on with a new client, elsewhere.
                        rest = &rest[n..];
                        break;
                    }
                }
            }
            let _ = client.shutdown(Shutdown::Write);
            reading.join().unwrap();
        });
    }
}

/// Random bytes, in stretches that look more or less like each framing.
fn noise(random: &mut Random, n: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n);
    while bytes.len() < n {
        let length = 1 + random.below(3_000);
        match random.below(5) {
            0 => bytes.extend(random.bytes(length)),
            1 => bytes.extend(random.bytes(length).iter().map(|b| b % 3 * 5)),
            2 => bytes.extend(format!("{length} <1>").bytes()),
            3 => bytes.extend((length as u32).to_be_bytes()),
            _ => bytes.extend(random.bytes(length).iter().map(|b| b'a' + b % 26)),
        }
    }
    bytes.truncate(n);
    bytes
}

#[test]
fn no_bytes_break_or_bloat_the_daemon() {
    let mut config = String::new();
    for (i, framing) in FRAMINGS.iter().enumerate() {
        config += &format!(
            "[socket.e{i}]\npath = \"{{dir}}/echo-{framing}\"\nservice = \"echo\"\nframing = \"{framing}\"\n{SMALL}"
        );
        if *framing != "none" {
            config += &format!(
                "[socket.c{i}]\npath = \"{{dir}}/log-{framing}\"\nservice = \"collect\"\nframing = \"{framing}\"\n{SMALL}\
                 [socket.c{i}.record]\nfile = \"{{dir}}/record-{i}\"\nformat = \"raw\"\nqueue-size = \"64KiB\"\n"
            );
        }
    }
    let mut daemon = Daemon::start(&config);
    let witness = daemon.connect("echo-none");
    round_trip(&witness, b"before");
    let before = daemon.memory();
    thread::scope(|scope| {
        for (i, framing) in FRAMINGS.iter().enumerate() {
            for service in ["echo", "log"] {
                if (service, *framing) == ("log", "none") {
                    continue;
                }
                for client in 0..2 {
                    let daemon = &daemon;
                    scope.spawn(move || {
                        let mut random = Random::new((i * 10 + client + 1) as u64);
                        let bytes = noise(&mut random, 3 << 20);
                        pour(daemon, &format!("{service}-{framing}"), &bytes, &mut random);
                    });
                }
            }
        }
        for _ in 0..100 {
            round_trip(&witness, b"between");
        }
    });
    round_trip(&witness, b"after");
    // 26 clients with 1 KiB of input, 64 KiB of read-ahead and 16 KiB of output each, 6 records of
    // 64 KiB that wait and as much that is written; 78 MiB went through.
    let grown = daemon.peak_memory() - before;
    assert!(grown < 8 << 20, "grown by {grown} bytes");
    drop(witness);
    assert!(daemon.stop().success());
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn a_length_counted_from_the_other_end_is_logged_as_soon_as_it_is_seen() {
    let daemon = pair("length-prefixed", "");
    for socket in ["echo", "log"] {
        let mut client = daemon.connect(socket);
        client.write_all(&22_u32.to_le_bytes()).unwrap();
        // Nothing more comes, and the client stays.
        let line = daemon.wait_log(&["WARN", &format!("{socket}: client "), "369098752 bytes"]);
        for part in [
            "(16 00 00 00)",
            "would be 22",
            "big-endian",
            "message-size = 65536",
        ] {
            assert!(line.contains(part), "{line}");
        }
        let closes = read_until_closed_or(&client, socket == "log");
        assert_eq!(closes, socket == "echo");
    }
}

/// Whether the daemon closes it; `stays`: nothing is to be waited for.
fn read_until_closed_or(client: &UnixStream, stays: bool) -> bool {
    if stays {
        client.set_nonblocking(true).unwrap();
    }
    match (&mut &*client).read(&mut [0]) {
        Ok(0) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("{other:?}"),
    }
}
