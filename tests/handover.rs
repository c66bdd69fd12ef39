//! Promise: a restart is invisible. Every client stays connected, with what it has half sent, what it
//! is owed, its number and its place; nothing is lost, repeated or out of order, and nobody who
//! connects is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    sync::Arc,
    time::Duration,
};

use harness::{
    Daemon, Setup, Signal,
    manager::{STORED, passing},
    packets::Packets,
    read_all, read_n, round_trip, write_until_full,
};
use udsd::{
    parking::{Memory, Parking},
    state::State,
};

const SOCKETS: &str = "
[socket.echo]
path = \"{dir}/echo\"
framing = \"lines\"

[socket.raw]
path = \"{dir}/raw\"

[socket.talk]
path = \"{dir}/talk\"
service = \"relay\"
framing = \"lines\"

[socket.packets]
path = \"{dir}/packets\"
type = \"seqpacket\"
";

fn start(config: &str) -> Daemon {
    Setup::new().keeping().config(config).start()
}

fn restart(daemon: Daemon, config: &str) -> Daemon {
    daemon.restart(|setup| setup.config(config))
}

#[test]
fn conversations_go_on() {
    let mut daemon = start(SOCKETS);
    let mut half = daemon.connect("echo");
    half.write_all(b"one\nhalf of ").unwrap();
    assert_eq!(read_n(&half, 4), b"one\n");
    let behind = daemon.connect("raw");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = write_until_full(&behind, &bytes, 1_000_000);
    let packets = Packets::connect(&daemon.path("packets"));
    packets.send(b"");
    packets.send(b"packet");
    let (mut speaker, mut listener) = (daemon.connect("talk"), daemon.connect("talk"));
    listener.write_all(b"here\nI ").unwrap();
    assert_eq!(read_n(&speaker, 5), b"here\n");
    for n in 0..12 {
        daemon = restart(daemon, SOCKETS);
        speaker.write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(read_n(&listener, 2 + n / 10), format!("{n}\n").as_bytes());
        round_trip(&daemon.connect("raw"), b"a newcomer");
    }
    half.write_all(b"a line\n").unwrap();
    assert_eq!(read_n(&half, 15), b"half of a line\n");
    listener.write_all(b"was here\n").unwrap();
    assert_eq!(read_n(&speaker, 11), b"I was here\n");
    assert_eq!(packets.receive().as_deref(), Some(&b""[..]));
    assert_eq!(packets.receive().as_deref(), Some(&b"packet"[..]));
    behind.set_nonblocking(false).unwrap();
    behind.shutdown(Shutdown::Write).unwrap();
    assert!(
        read_all(&behind) == bytes[..sent],
        "bytes were lost or changed"
    );
    assert!(daemon.stop().success());
    for stream in [&mut half, &mut speaker, &mut listener] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

/// A process that goes on with what waits at `near`.
fn next(daemon: &Daemon, near: &OwnedFd) -> Setup {
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    passing(setup.config(SOCKETS), &[near.as_fd()], Some(STORED))
}

/// A client in the middle of a line, and with one that it has not read.
fn client(daemon: &Daemon) -> UnixStream {
    let client = daemon.connect("echo");
    round_trip(&client, b"here\n");
    (&client).write_all(b"unread\nhalf").unwrap();
    client
}

#[test]
fn who_is_killed_before_it_serves_has_lost_nothing() {
    let mut daemon = start(SOCKETS);
    let clients: Vec<UnixStream> = (0..300).map(|_| client(&daemon)).collect();
    let near = daemon.park();
    for _ in 0..2 {
        let mut killed = next(&daemon, &near).stuck().spawn();
        killed.wait_restored();
        killed.kill();
    }
    let mut daemon = next(&daemon, &near).start();
    for client in &clients {
        assert_eq!(read_n(client, 7), b"unread\n");
        (&*client).write_all(b" a line\n").unwrap();
        assert_eq!(read_n(client, 12), b"half a line\n");
    }
    assert!(daemon.stop().success());
}

#[test]
fn what_three_processes_did_not_survive_is_given_up() {
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    // Nobody reads that; its sender sees the end all the same, and no reset.
    (&client).write_all(b" a line\n").unwrap();
    for _ in 0..3 {
        let mut killed = next(&daemon, &near).stuck().spawn();
        killed.wait_restored();
        killed.kill();
    }
    let mut daemon = next(&daemon, &near).start();
    assert_eq!(read_all(&client), b"unread\n");
    let line = daemon.wait_log(&["ERROR", "cannot be used", "3 processes"]);
    assert!(line.contains(" 1 clients are closed"), "{line}");
    round_trip(&daemon.connect("echo"), b"served\n");
    assert!(daemon.stop().success());
}

#[test]
fn a_start_that_fails_in_good_order_is_no_attempt() {
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    for _ in 0..5 {
        // Out of descriptors before it can serve.
        let (code, log) = next(&daemon, &near).open_files(12).fail();
        assert_eq!(code, Some(1), "{log}");
    }
    let mut daemon = next(&daemon, &near).start();
    assert_eq!(read_n(&client, 7), b"unread\n");
    assert!(daemon.stop().success());
}

#[test]
fn a_state_that_cannot_be_used_costs_its_clients_and_no_more() {
    let damages: [(&str, fn(&mut Vec<u8>)); 4] = [
        ("version 2", |bytes| bytes[14] = b'2'),
        ("checksum", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("checksum", |bytes| bytes.truncate(bytes.len() / 2)),
        ("too short", Vec::clear),
    ];
    for (why, damage) in damages {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(b"unread").unwrap();
        let mut bytes = vec![0; udsd::state::HEAD];
        let head = State::default().encode(&mut bytes).unwrap();
        bytes[..head.len()].copy_from_slice(&head);
        damage(&mut bytes);
        let (parking, near) = Parking::new().unwrap();
        let memory = Memory::new(|file| file.write_all(&bytes).map(|()| []));
        parking.leave(&memory.unwrap(), &[ours.as_fd()]).unwrap();
        drop(ours);
        let setup = Setup::new().keeping().config(SOCKETS);
        let mut daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
        drop(near);
        let line = daemon.wait_log(&["ERROR", "handed over cannot be used", why]);
        assert!(line.contains(" 1 clients are closed"), "{line}");
        assert_eq!(read_all(&theirs), b"");
        daemon.wait_note("FDSTOREREMOVE=1");
        round_trip(&daemon.connect("echo"), b"served\n");
        assert!(daemon.stop().success());
    }
}

#[test]
fn without_a_descriptor_store_clients_get_what_they_are_owed_and_the_end() {
    let mut daemon = Daemon::start(SOCKETS);
    let client = client(&daemon);
    daemon.signal(Signal::USR2);
    assert_eq!(read_all(&client), b"unread\n");
    assert!(daemon.wait().success());
    daemon.wait_log(&["WARN", "SIGUSR2", "FileDescriptorStoreMax"]);
}

#[test]
fn socket_files_stay_as_they_are() {
    let daemon = start(SOCKETS);
    let inode = |daemon: &Daemon| fs::metadata(daemon.path("echo")).unwrap().ino();
    let before = inode(&daemon);
    let mut daemon = restart(daemon, SOCKETS);
    assert_eq!(inode(&daemon), before);
    let pid = fs::read_to_string(daemon.path("echo.lock")).unwrap();
    assert_eq!(pid, format!("{}\n", daemon.pid().as_raw_nonzero()));
    // Its place is taken.
    let (code, log) = Setup::within(Arc::clone(daemon.folder()))
        .config(SOCKETS)
        .fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(daemon.stop().success());
    for name in ["echo", "echo.lock", "raw", "talk", "packets.lock"] {
        assert!(!daemon.path(name).exists(), "{name} stays behind");
    }
}

const RECORD: &str = "
[socket.log]
path = \"{dir}/log\"
service = \"collect\"
framing = \"lines\"
[socket.log.record]
file = \"FILE\"
";

#[test]
fn records_go_on_with_their_numbers_and_those_of_their_clients() {
    let full = RECORD.replace("FILE", "/dev/full");
    let kept = RECORD.replace("FILE", "{dir}/kept");
    let mut daemon = start(&full);
    let (mut one, mut other) = (daemon.connect("log"), daemon.connect("log"));
    one.write_all(b"first\nsec").unwrap();
    daemon.wait_log(&["WARN", "/dev/full"]);
    daemon = restart(daemon, &full);
    daemon.wait_log(&["WARN", "/dev/full"]);
    other.write_all(b"another\n").unwrap();
    daemon = restart(daemon, &kept);
    one.write_all(b"ond\n").unwrap();
    // Both are read before it ends.
    one.shutdown(Shutdown::Write).unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    read_all(&one);
    read_all(&other);
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("kept")).unwrap();
    let seen: Vec<(u64, u64, String)> = text
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = record["message"].as_str().unwrap().to_owned();
            (
                record["seq"].as_u64().unwrap(),
                record["client"].as_u64().unwrap(),
                message,
            )
        })
        .collect();
    let expected = [(1, 1, "first"), (2, 2, "another"), (3, 1, "second")];
    assert_eq!(
        seen,
        expected.map(|(seq, client, text)| (seq, client, text.to_owned()))
    );
}

#[test]
fn nobody_was_silent_while_nobody_listened() {
    const TIMED: &str = "[socket.echo]\npath = \"{dir}/echo\"\nidle-timeout = \"2s\"\n";
    let mut daemon = start(TIMED);
    let client = daemon.connect("echo");
    round_trip(&client, b"here");
    let near = daemon.park();
    // The pause is the condition.
    std::thread::sleep(Duration::from_millis(2500));
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let next = passing(setup.config(TIMED), &[near.as_fd()], Some(STORED)).start();
    drop(near);
    round_trip(&client, b"still here");
    assert_eq!(read_all(&client), b"");
    next.wait_log(&["client 1 ", "idle-timeout"]);
}
