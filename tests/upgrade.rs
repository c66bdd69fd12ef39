//! Promise: an upgrade closes nobody for what the older version served by. Where today's checks refuse a
//! value, the file that is there now is judged by them, and what was in force goes on.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

#[path = "upgrade/first.rs"]
mod first;

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixStream},
        },
    },
    sync::Arc,
    time::Duration,
};

use first::{Client, Kind};
use harness::{
    Daemon, Folder, Setup, connect,
    manager::{STORED, passing},
    raise_open_files, read_all, read_n, round_trip,
};
use udsd::{
    handover_state::State,
    parking::{Memory, Parking, Stored},
};

/// Parks `daemon` as one that was served with `there` in place of `here` in its config.
fn park_with(daemon: &mut Daemon, here: &str, there: &str) -> OwnedFd {
    let parked = Stored::find(&daemon.park()).unwrap().unwrap();
    let mut state = State::decode(parked.memory()).unwrap();
    let config = state.config.replace(here, there);
    assert_ne!(config, state.config, "{here} is not there");
    state.config = config;
    let (descriptors, _) = parked.descriptors().unwrap();
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let (parking, near) = Parking::new().unwrap();
    let memory = Memory::new(|file| state.encode(file)).unwrap();
    assert!(parking.leave(&memory, &descriptors).unwrap().1.is_none());
    near
}

fn go_on(daemon: &Daemon, near: OwnedFd, config: &str) -> Daemon {
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let next = passing(setup.config(config), &[near.as_fd()], Some(STORED)).start();
    // It holds all clients open.
    drop(near);
    next
}

const RECORD: &str = "
[socket.log]
path = \"{dir}/log\"
service = \"collect\"
framing = \"lines\"
message-size = \"256KiB\"
[socket.log.record]
file = \"{dir}/record\"
";

#[test]
fn sizes_that_contradict_each_other_today_cost_no_client() {
    let refused = RECORD.replace("256KiB", "512KiB");
    for (file, is_judged) in [(RECORD, false), (&refused, true)] {
        let mut daemon = Setup::new().keeping().config(RECORD).start();
        let client = daemon.connect("log");
        (&client).write_all(b"half of ").unwrap();
        let near = park_with(&mut daemon, "256KiB", "512KiB");
        let daemon = go_on(&daemon, near, file);
        if is_judged {
            daemon.wait_log(&["ERROR", "udsd.toml:6: socket.log.message-size", "8"]);
            daemon.wait_log(&["ERROR", "serving as before the restart"]);
        } else {
            assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
        }
        (&client).write_all(b"a line\n").unwrap();
        let newcomer = daemon.connect("log");
        (&newcomer).write_all(b"a newcomer\n").unwrap();
        for client in [client, newcomer] {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&client), b"");
        }
        // And once more.
        let mut daemon = daemon.restart(|setup| setup.config(RECORD));
        // Until then some of what came along may not be written.
        assert!(daemon.stop().success());
        let text = fs::read_to_string(daemon.path("record")).unwrap();
        for message in ["\"half of a line\"", "\"a newcomer\""] {
            assert!(text.contains(message), "{text}");
        }
    }
}

#[test]
fn a_mode_that_is_refused_today_is_known_as_it_was() {
    let echo = "[socket.echo]\npath = \"{dir}/echo\"\nmode = \"0660\"\n";
    let mut daemon = Setup::new().keeping().config(echo).start();
    let client = daemon.connect("echo");
    round_trip(&client, b"before");
    let near = park_with(&mut daemon, "0660", "0066");
    let file = daemon.path("echo");
    fs::set_permissions(&file, Permissions::from_mode(0o066)).unwrap();
    let daemon = go_on(&daemon, near, echo);
    round_trip(&client, b"after");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    // What the file says now is in force.
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

/// The file under which 26e5ed3 served.
const FIRST: &str = "
[socket.echo]
path = \"{dir}/echo\"
framing = \"lines\"
message-size = \"64B\"
queue-size = \"1KiB\"
slow-timeout = \"1h\"
[socket.drop]
path = \"{dir}/drop\"
service = \"relay\"
framing = \"lines\"
message-size = \"64B\"
queue-size = \"4KiB\"
slow-client = \"drop\"
stamp = true
[socket.wait]
path = \"{dir}/wait\"
service = \"relay\"
framing = \"lines\"
message-size = \"64B\"
queue-size = \"1KiB\"
slow-timeout = \"1h\"
[socket.log]
path = \"{dir}/log\"
service = \"collect\"
framing = \"lines\"
message-size = \"64B\"
[socket.log.record]
file = \"{dir}/record\"
[socket.packets]
path = \"{dir}/packets\"
type = \"seqpacket\"
message-size = \"64B\"
queue-size = \"1KiB\"
slow-timeout = \"1h\"
[socket.post]
path = \"{dir}/post\"
type = \"datagram\"
message-size = \"64B\"
queue-size = \"4KiB\"
slow-timeout = \"1h\"
";

/// Both ends of each client are open at once.
fn as_many_as_fit() -> usize {
    ((raise_open_files() - 100) / 2).min(1000)
}

#[test]
fn whoever_came_before_the_first_upgrade_finds_all_of_it() {
    let folder = Folder::new();
    let receiver = UnixDatagram::bind(folder.join("receiver")).unwrap();
    let hang = Some(Duration::from_secs(30));
    receiver.set_read_timeout(hang).unwrap();
    let (near, clients, replies) = first::park(&folder, as_many_as_fit());
    let setup = Setup::within(folder).keeping().config(FIRST);
    let daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
    drop(near);
    let taken_over = format!("clients taken over: {}", clients.len());
    daemon.wait_log(&[&taken_over]);
    for client in &clients {
        goes_on(client);
    }
    relays_go_on(&clients);
    for (n, reply) in replies.iter().enumerate() {
        let mut bytes = [0; 100];
        let length = receiver.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], reply, "reply {n}");
    }
    assert_eq!(replies.len(), 29);
    round_trip(&daemon.connect("echo"), b"a newcomer\n");
    for client in &clients {
        client.stream.shutdown(Shutdown::Write).unwrap();
    }
    for client in clients.iter().filter(|client| client.kind == Kind::LogHalf) {
        assert_eq!(read_all(&client.stream), b"");
    }
    // Its end has all that was said before.
    let log = connect(&daemon.path("log"));
    log.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&log), b"");
    let mut daemon = daemon;
    assert_eq!(daemon.stop().code(), Some(0));
    for socket in ["echo", "drop", "wait", "log", "packets", "post"] {
        daemon.wait_log(&["INFO", &format!(" {socket}: "), "0 refused, 0 closed"]);
    }
    let text = fs::read_to_string(daemon.path("record")).unwrap();
    let halves = clients.iter().filter(|client| client.kind == Kind::LogHalf);
    assert_eq!(text.lines().count(), halves.count(), "{text}");
    for (n, line) in text.lines().enumerate() {
        // One had been recorded before.
        assert!(line.contains(&format!("\"seq\":{},", n + 2)), "{line}");
        assert!(line.contains("\"message\":\"half of a line\""), "{line}");
    }
}

/// What `client` is owed comes, in its order, then what it sends from now on.
fn goes_on(client: &Client) {
    let mut stream = &client.stream;
    match client.kind {
        Kind::Half => {
            stream.write_all(b"a line\n").unwrap();
            assert_eq!(read_n(stream, 15), b"half of a line\n");
        }
        Kind::Idle => round_trip(stream, b"a line\n"),
        Kind::Full => {
            let all = [&client.owed[..], &client.input].concat();
            assert_eq!(read_n(stream, all.len()), all);
            round_trip(stream, b"a line\n");
        }
        Kind::Finished => {
            stream.shutdown(Shutdown::Write).unwrap();
            let all = [&client.owed[..], &client.input].concat();
            assert_eq!(read_all(stream), all);
        }
        Kind::LogHalf => stream.write_all(b"a line\n").unwrap(),
        Kind::PacketsIdle => round_trip(stream, b"a packet"),
        Kind::PacketsFull => {
            let mut packets = [&client.owed[..], &client.input].concat();
            while let Some((length, rest)) = packets.split_first_chunk() {
                let (packet, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
                let mut bytes = [0; 100];
                let read = stream.read(&mut bytes).unwrap();
                assert_eq!(&bytes[..read], packet);
                packets = rest.to_vec();
            }
            round_trip(stream, b"a packet");
        }
        _ => {}
    }
}

fn relays_go_on(clients: &[Client]) {
    let find = |kind| clients.iter().find(|client| client.kind == kind).unwrap();
    let line = |stream: &UnixStream| {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(read_n(stream, 1));
        }
        String::from_utf8(line).unwrap()
    };
    // Under `drop`: what waits, then the gap, then what comes.
    let slow = find(Kind::DropReceiver);
    assert_eq!(read_n(&slow.stream, slow.owed.len()), slow.owed);
    assert_eq!(
        line(&slow.stream),
        "{\"gap\":{\"count\":396,\"bytes\":65340}}\n"
    );
    (&find(Kind::DropSender).stream)
        .write_all(b"a line\n")
        .unwrap();
    for receiver in [slow, find(Kind::DropReader)] {
        let line = line(&receiver.stream);
        assert!(line.contains("\"seq\":1401,"), "{line}");
        assert!(line.contains("\"message\":\"half of a line\""), "{line}");
    }
    // Under `wait`: what waits, what waited behind it with its sender, then what comes.
    let (slow, sender) = (find(Kind::WaitReceiver), find(Kind::WaitSender));
    let all = [&slow.owed[..], &sender.input].concat();
    assert_eq!(read_n(&slow.stream, all.len()), all);
    let half = find(Kind::WaitHalf);
    assert_eq!(read_n(&half.stream, sender.input.len()), sender.input);
    (&half.stream).write_all(b"a line\n").unwrap();
    for receiver in [slow, sender] {
        assert_eq!(line(&receiver.stream), "half of a line\n");
    }
}
