//! Promise: no client ever hangs because a read stopped short of what had already come. A read of a
//! Unix stream stops at a write that carries descriptors, at urgent data, and before the end of
//! file, and no further edge tells of the bytes behind (`unix(7)`); and a descriptor that a client
//! passes is closed at once.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fmt::Write as _,
    hint,
    io::{self, PipeReader, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
};

use harness::{Daemon, Random, read_all, read_n, send_urgent, send_with};
use rustix::event::PollFlags;

const FRAMINGS: [&str; 7] = [
    "none",
    "lines",
    "nul",
    "length-prefixed",
    "fixed:6",
    "cstring:6",
    "syslog",
];

/// A message on the wire, the same when it comes back.
fn message(framing: &str, number: u8) -> Vec<u8> {
    let digit = b'0' + number;
    match framing {
        "lines" => vec![b'l', digit, b'\n'],
        "nul" => vec![b'n', digit, 0],
        "length-prefixed" => vec![0, 0, 0, 2, b'p', digit],
        "fixed:6" => vec![b'f', digit, 0, 1, 2, 3],
        "cstring:6" => vec![b'c', digit, 0, 0, 0, 0],
        "syslog" if number.is_multiple_of(2) => vec![b'5', b' ', b'<', b'1', b'>', b's', digit],
        "syslog" => vec![b'<', b'1', b'>', b's', digit, b'\n'],
        _ => vec![digit],
    }
}

/// One write.
#[derive(Clone, Copy, Debug)]
enum Step {
    Plain,
    WithDescriptor,
    /// An urgent byte behind the write's own; it stays out of the stream.
    Urgent,
    /// Nothing but an urgent byte.
    UrgentAlone,
}

use Step::{Plain, Urgent, UrgentAlone, WithDescriptor};

/// What may stop a read, and what follows it. Never two urgent bytes: the second would make the first
/// part of the stream.
const ORDERS: [&[Step]; 11] = [
    &[Plain],
    &[WithDescriptor],
    &[WithDescriptor, Plain],
    &[Plain, WithDescriptor, Plain],
    &[WithDescriptor, WithDescriptor, WithDescriptor],
    &[Urgent],
    &[UrgentAlone, Plain],
    &[Urgent, Plain],
    &[Plain, Urgent, Plain],
    &[WithDescriptor, Urgent, Plain],
    &[Urgent, WithDescriptor, Plain],
];

/// Where each message is cut between two writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Between,
    Inside,
}

fn start() -> Daemon {
    let mut config = String::new();
    for (i, framing) in FRAMINGS.iter().enumerate() {
        let _ = write!(
            config,
            "[socket.s{i}]\npath = \"{{dir}}/{framing}\"\nframing = \"{framing}\"\nservice = \"echo\"\n"
        );
    }
    Daemon::start(&config)
}

/// Sends the writes of `order`; returns what is to come back, and the ends of the passed pipes.
fn send(
    stream: &UnixStream,
    framing: &str,
    order: &[Step],
    cut: Cut,
) -> (Vec<u8>, Vec<PipeReader>) {
    let messages: Vec<Vec<u8>> = (1..=order.len())
        .map(|n| message(framing, n as u8))
        .collect();
    let owed = messages.concat();
    let mut writes = messages;
    if cut == Cut::Inside {
        // The last byte of each message goes with the next write.
        for i in 1..writes.len() {
            let moved = writes[i - 1].pop().unwrap();
            writes[i].insert(0, moved);
        }
        writes.retain(|write| !write.is_empty());
    }
    let mut pipes = Vec::new();
    for (i, bytes) in writes.iter().enumerate() {
        match order[i] {
            Plain => (&mut &*stream).write_all(bytes).unwrap(),
            WithDescriptor => {
                let (reader, writer) = io::pipe().unwrap();
                send_with(stream, bytes, &[writer.as_fd()]);
                pipes.push(reader);
            }
            Urgent => send_urgent(stream, &[bytes, &b"!"[..]].concat()),
            UrgentAlone => {
                send_urgent(stream, b"!");
                (&mut &*stream).write_all(bytes).unwrap();
            }
        }
    }
    (owed, pipes)
}

fn all_closed(pipes: &[PipeReader]) {
    for pipe in pipes {
        assert!(harness::wait_for(pipe.as_fd(), PollFlags::IN), "kept open");
        assert_eq!(io::Read::read(&mut &*pipe, &mut [0]).unwrap(), 0);
    }
}

/// Every framing, order and cut.
fn cases() -> impl Iterator<Item = (&'static str, &'static [Step], Cut)> {
    FRAMINGS.into_iter().flat_map(|framing| {
        ORDERS.into_iter().flat_map(move |order| {
            [Cut::Between, Cut::Inside].map(move |cut| (framing, order, cut))
        })
    })
}

/// Runs every case: `queue` connects, sends, and half-closes where told; all of it is there before
/// the daemon reads.
fn all_at_once(accepted: bool, half_close: bool) {
    harness::raise_open_files();
    let daemon = start();
    let before = daemon.descriptors("none");
    let connect = |framing| daemon.connect(framing);
    let mut early: Vec<UnixStream> = Vec::new();
    if accepted {
        early = cases().map(|(framing, ..)| connect(framing)).collect();
        // The newest has been served, so all have been accepted.
        for (stream, (framing, ..)) in early.iter().zip(cases()) {
            harness::round_trip(stream, &message(framing, 0));
        }
    }
    daemon.halt();
    let mut early = early.into_iter();
    let sent: Vec<_> = cases()
        .map(|(framing, order, cut)| {
            let stream = early.next().unwrap_or_else(|| connect(framing));
            let (owed, pipes) = send(&stream, framing, order, cut);
            if half_close {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            (stream, owed, pipes)
        })
        .collect();
    daemon.resume();
    for (case, (stream, owed, pipes)) in cases().zip(sent) {
        let came = read_n(&stream, owed.len());
        assert_eq!(came, owed, "{case:?}");
        if !half_close {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(read_all(&stream), b"", "{case:?}");
        all_closed(&pipes);
    }
    assert_eq!(daemon.descriptors("none"), before, "descriptors leaked");
}

#[test]
fn what_waited_in_a_connected_stream_is_read_to_its_last_byte() {
    all_at_once(true, false);
}

#[test]
fn what_waited_in_a_connected_stream_is_read_to_its_end() {
    all_at_once(true, true);
}

#[test]
fn what_came_before_the_accept_is_read_to_its_last_byte() {
    all_at_once(false, false);
}

#[test]
fn what_came_before_the_accept_is_read_to_its_end() {
    all_at_once(false, true);
}

#[test]
fn what_comes_while_the_daemon_reads_is_read_to_its_last_byte_and_end() {
    let daemon = start();
    let before = daemon.descriptors("none");
    for round in 0..20 {
        for case in cases() {
            let (framing, order, cut) = case;
            let stream = daemon.connect(framing);
            let (owed, pipes) = send(&stream, framing, order, cut);
            if round % 2 == 0 {
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&stream), owed, "{case:?}");
            } else {
                assert_eq!(read_n(&stream, owed.len()), owed, "{case:?}");
            }
            all_closed(&pipes);
        }
    }
    assert_eq!(daemon.descriptors("none"), before, "descriptors leaked");
}

#[test]
fn write_and_close_delivers_every_message_under_every_framing() {
    let framings = &FRAMINGS[1..];
    let mut config = String::new();
    for (i, framing) in framings.iter().enumerate() {
        let _ = write!(
            config,
            "[socket.s{i}]\npath = \"{{dir}}/{framing}\"\nframing = \"{framing}\"\nservice = \"collect\"\n\
             [socket.s{i}.record]\nformat = \"raw\"\n"
        );
    }
    let daemon = Daemon::start(&config);
    let mut lines = 0;
    let mut go = |halted: bool| {
        if halted {
            daemon.halt();
        }
        for framing in framings {
            for order in ORDERS {
                let stream = daemon.connect(framing);
                let (_, pipes) = send(&stream, framing, order, Cut::Between);
                drop(stream);
                lines += order.len();
                if !halted {
                    all_closed(&pipes);
                }
            }
        }
        if halted {
            daemon.resume();
        }
    };
    for _ in 0..10 {
        go(true);
        go(false);
    }
    let written = daemon.wait_output(lines);
    for (framing, number) in framings.iter().flat_map(|f| (1..=3).map(move |n| (f, n))) {
        let per_round: usize = ORDERS.iter().filter(|order| order.len() >= number).count();
        let wire = message(framing, number as u8);
        let body = match *framing {
            "length-prefixed" => &wire[4..],
            "cstring:6" => &wire[..2],
            "fixed:6" => &wire[..],
            "syslog" if number.is_multiple_of(2) => &wire[2..],
            _ => &wire[..wire.len() - 1],
        };
        let count = written
            .iter()
            .filter(|line| line.as_bytes() == body)
            .count();
        assert_eq!(count, per_round * 20, "{framing}: {body:?}");
    }
    assert_eq!(daemon.wait_output(lines).len(), lines);
}

#[test]
fn many_descriptors_at_once_are_closed_at_once() {
    let daemon = start();
    let before = daemon.descriptors("none");
    let client = daemon.connect("lines");
    for _ in 0..50 {
        let (reader, writer) = io::pipe().unwrap();
        let descriptors = vec![writer.as_fd(); 253];
        send_with(&client, b"take these\n", &descriptors);
        drop(writer);
        all_closed(&[reader]);
        assert_eq!(read_n(&client, 11), b"take these\n");
    }
    drop(client);
    assert_eq!(daemon.descriptors("none"), before);
}

#[test]
fn no_edge_is_lost_however_a_writer_and_the_daemon_meet() {
    let daemon = start();
    thread::scope(|scope| {
        for seed in 1..=4 {
            let client = daemon.connect("none");
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for round in 0..3_000_u32 {
                    let length = 1 + random.below(4);
                    let bytes = random.bytes(length);
                    for byte in &bytes {
                        (&client).write_all(&[*byte]).unwrap();
                        // From no time at all to about that of one echo.
                        let longest = 1 << random.below(12);
                        for _ in 0..random.below(longest) {
                            hint::spin_loop();
                        }
                    }
                    // The client's read timeout is what a lost edge would run into.
                    assert_eq!(read_n(&client, bytes.len()), bytes, "round {round}");
                }
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&client), b"");
            });
        }
    });
}

#[test]
fn no_edge_is_lost_in_a_stream_of_single_bytes_with_descriptors_and_urgent_data() {
    let daemon = start();
    let before = daemon.descriptors("none");
    thread::scope(|scope| {
        for seed in 11..=13 {
            let client = daemon.connect("none");
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut bytes = random.bytes(20_000);
                bytes.retain(|&byte| byte != b'!');
                thread::scope(|scope| {
                    let (client, bytes) = (&client, &bytes);
                    scope.spawn(move || {
                        for byte in bytes {
                            match random.below(20) {
                                0 => {
                                    let (_, writer) = io::pipe().unwrap();
                                    send_with(client, &[*byte], &[writer.as_fd()]);
                                }
                                1 => send_urgent(client, &[*byte, b'!']),
                                _ => (&mut &*client).write_all(&[*byte]).unwrap(),
                            }
                        }
                        client.shutdown(Shutdown::Write).unwrap();
                    });
                    // An urgent byte is part of the stream if a later one overtakes it.
                    let mut came = read_all(client);
                    came.retain(|&byte| byte != b'!');
                    assert!(came == *bytes);
                });
            });
        }
    });
    assert_eq!(daemon.descriptors("none"), before);
}
