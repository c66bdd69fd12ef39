//! Promise: no client ever hangs because a read stopped short of what had already come, and none of its
//! bytes is left out. A read of a Unix stream stops at a write that carries descriptors, at urgent data,
//! and before the end of file, and no further edge tells of the bytes behind (`unix(7)`); and a
//! descriptor that a client passes is closed. Who connects while udsd listens cannot pass one
//! (SO_PASSRIGHTS), so the clients here have connected before.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    hint,
    io::{self, PipeReader, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::Instant,
};

use harness::{
    Daemon, HANG, Random, Setup, manager, read_all, read_n, round_trip, send_urgent, send_with,
};
use rustix::{event::PollFlags, net::SocketType};

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
    /// Its last byte is urgent.
    Urgent,
    /// Its first byte comes alone and is urgent.
    UrgentAlone,
}

use Step::{Plain, Urgent, UrgentAlone, WithDescriptor};

/// What may stop a read, and what follows it.
const ORDERS: [&[Step]; 12] = [
    &[Plain],
    &[WithDescriptor],
    &[WithDescriptor, Plain],
    &[Plain, WithDescriptor, Plain],
    &[WithDescriptor, WithDescriptor, WithDescriptor],
    &[Urgent],
    &[UrgentAlone, Plain],
    &[Urgent, Plain],
    &[Plain, Urgent, Plain],
    &[Urgent, UrgentAlone, Urgent],
    &[WithDescriptor, Urgent, Plain],
    &[Urgent, WithDescriptor, Plain],
];

/// Where each message is cut between two writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Between,
    Inside,
}

/// A daemon with one socket of this framing, and clients of it that connected before the start.
fn start(framing: &str, keys: &str, clients: usize) -> (Daemon, Vec<UnixStream>) {
    let (setup, socket, clients) = begin(clients);
    (go(setup, &socket, framing, keys), clients)
}

/// The clients, and nobody who serves them.
fn begin(clients: usize) -> (Setup, OwnedFd, Vec<UnixStream>) {
    let setup = Setup::new();
    let path = setup.folder().join("socket");
    let socket = manager::socket_at(&path, SocketType::STREAM);
    let clients = (0..clients).map(|_| harness::connect(&path)).collect();
    (setup, socket, clients)
}

fn go(setup: Setup, socket: &OwnedFd, framing: &str, keys: &str) -> Daemon {
    let config = format!(
        "[socket.witness]\npath = \"{{dir}}/witness\"\n\
         [socket.s]\npath = \"{{dir}}/socket\"\nframing = \"{framing}\"\n{keys}\n"
    );
    manager::passing(setup.config(&config), &[socket.as_fd()], None).start()
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
            Urgent => send_urgent(stream, bytes),
            UrgentAlone => {
                send_urgent(stream, &bytes[..1]);
                (&mut &*stream).write_all(&bytes[1..]).unwrap();
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

/// It has no more open than so many, once it has closed what has ended.
fn none_leaked(daemon: &Daemon, most: usize) {
    let start = Instant::now();
    loop {
        let open = daemon.descriptors("witness");
        if open <= most {
            return;
        }
        assert!(start.elapsed() < HANG, "{open} open, {most} before");
    }
}

/// Every order and cut.
fn cases() -> impl Iterator<Item = (&'static [Step], Cut)> {
    ORDERS
        .into_iter()
        .flat_map(|order| [Cut::Between, Cut::Inside].map(move |cut| (order, cut)))
}

/// Runs every case: all of it is there before the daemon reads.
fn all_at_once(accepted: bool, half_close: bool) {
    let bare = start("none", "", 0).0.descriptors("witness");
    for framing in FRAMINGS {
        let (setup, socket, clients) = begin(cases().count());
        let queue = || -> Vec<_> {
            let sent = cases().zip(&clients).map(|((order, cut), stream)| {
                let sent = send(stream, framing, order, cut);
                if half_close {
                    stream.shutdown(Shutdown::Write).unwrap();
                }
                sent
            });
            sent.collect()
        };
        let (daemon, sent) = if accepted {
            let daemon = go(setup, &socket, framing, "");
            for stream in &clients {
                round_trip(stream, &message(framing, 0));
            }
            daemon.halt();
            let sent = queue();
            daemon.resume();
            (daemon, sent)
        } else {
            let sent = queue();
            (go(setup, &socket, framing, ""), sent)
        };
        for (case, (stream, (owed, pipes))) in cases().zip(clients.iter().zip(sent)) {
            let came = read_n(stream, owed.len());
            assert_eq!(came, owed, "{framing} {case:?}");
            if !half_close {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            assert_eq!(read_all(stream), b"", "{framing} {case:?}");
            all_closed(&pipes);
        }
        none_leaked(&daemon, bare);
    }
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
fn what_came_before_the_start_is_read_to_its_last_byte() {
    all_at_once(false, false);
}

#[test]
fn what_came_before_the_start_is_read_to_its_end() {
    all_at_once(false, true);
}

#[test]
fn what_comes_while_the_daemon_reads_is_read_to_its_last_byte_and_end() {
    const ROUNDS: usize = 10;
    for framing in FRAMINGS {
        let (daemon, clients) = start(framing, "", ROUNDS * cases().count());
        for stream in &clients {
            round_trip(stream, &message(framing, 0));
        }
        let before = daemon.descriptors("witness") - clients.len();
        let mut clients = clients.into_iter();
        for round in 0..ROUNDS {
            for (case, stream) in cases().zip(&mut clients) {
                let (order, cut) = case;
                let (owed, pipes) = send(&stream, framing, order, cut);
                if round % 2 == 0 {
                    stream.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(read_all(&stream), owed, "{framing} {case:?}");
                } else {
                    assert_eq!(read_n(&stream, owed.len()), owed, "{framing} {case:?}");
                }
                all_closed(&pipes);
            }
        }
        none_leaked(&daemon, before);
    }
}

#[test]
fn write_and_close_delivers_every_message_under_every_framing() {
    const ROUNDS: usize = 10;
    for framing in &FRAMINGS[1..] {
        let keys = "service = \"collect\"\nrecord.format = \"raw\"";
        let (daemon, clients) = start(framing, keys, 2 * ROUNDS * ORDERS.len());
        let mut clients = clients.into_iter();
        let mut lines = 0;
        for round in 0..2 * ROUNDS {
            let halted = round % 2 == 0;
            if halted {
                daemon.halt();
            }
            for (order, stream) in ORDERS.into_iter().zip(&mut clients) {
                let (_, pipes) = send(&stream, framing, order, Cut::Between);
                drop(stream);
                lines += order.len();
                if !halted {
                    all_closed(&pipes);
                }
            }
            if halted {
                daemon.resume();
            }
        }
        let written = daemon.wait_output(lines);
        for number in 1..=3 {
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
            assert_eq!(count, per_round * 2 * ROUNDS, "{framing}: {body:?}");
        }
        assert_eq!(daemon.wait_output(lines).len(), lines);
    }
}

#[test]
fn an_urgent_byte_keeps_its_place() {
    for collect in [false, true] {
        let keys = match collect {
            false => "",
            true => "service = \"collect\"\nrecord.format = \"raw\"",
        };
        let (daemon, mut clients) = start("lines", keys, 1);
        for client in [clients.remove(0), daemon.connect("socket")] {
            send_urgent(&client, b"pay 10");
            send_urgent(&client, b"0");
            send_urgent(&client, b"\n");
            if !collect {
                assert_eq!(read_n(&client, 8), b"pay 100\n");
            }
        }
        if collect {
            assert_eq!(daemon.wait_output(2), ["pay 100", "pay 100"]);
        }
    }
}

#[test]
fn an_urgent_byte_counts_also_of_a_client_that_left_before_it_was_let_in() {
    let keys = "service = \"collect\"\nrecord.format = \"raw\"";
    let (daemon, _clients) = start("lines", keys, 1);
    daemon.halt();
    for message in [b"a", b"b"] {
        send_urgent(&daemon.connect("socket"), message);
    }
    drop(daemon.connect("socket"));
    daemon.resume();
    assert_eq!(daemon.wait_output(2), ["a", "b"]);
}

#[test]
fn many_descriptors_at_once_are_closed() {
    let (daemon, mut clients) = start("lines", "", 1);
    let client = clients.remove(0);
    round_trip(&client, b"here\n");
    let before = daemon.descriptors("witness");
    for _ in 0..50 {
        let (reader, writer) = io::pipe().unwrap();
        let descriptors = vec![writer.as_fd(); 253];
        send_with(&client, b"take these\n", &descriptors);
        drop(writer);
        all_closed(&[reader]);
        assert_eq!(read_n(&client, 11), b"take these\n");
    }
    none_leaked(&daemon, before);
}

#[test]
fn no_edge_is_lost_however_a_writer_and_the_daemon_meet() {
    let (_daemon, clients) = start("none", "", 4);
    thread::scope(|scope| {
        for (seed, client) in (1..).zip(clients) {
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
    let (daemon, clients) = start("none", "", 3);
    for stream in &clients {
        round_trip(stream, b"here");
    }
    let before = daemon.descriptors("witness");
    thread::scope(|scope| {
        for (seed, client) in (11..).zip(&clients) {
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let bytes = &random.bytes(20_000);
                thread::scope(|scope| {
                    scope.spawn(move || {
                        for byte in bytes {
                            match random.below(20) {
                                0 => {
                                    let (reader, writer) = io::pipe().unwrap();
                                    send_with(client, &[*byte], &[writer.as_fd()]);
                                    drop(writer);
                                    // Who sends more than can be closed in time is itself closed.
                                    all_closed(&[reader]);
                                }
                                1 => send_urgent(client, &[*byte]),
                                _ => (&mut &*client).write_all(&[*byte]).unwrap(),
                            }
                        }
                        client.shutdown(Shutdown::Write).unwrap();
                    });
                    assert!(read_all(client) == *bytes);
                });
            });
        }
    });
    none_leaked(&daemon, before - clients.len());
}
