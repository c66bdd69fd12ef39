//! Promise: an upgrade closes nobody for what the older version served by. Where today's checks refuse a
//! value, the file that is there now is judged by them, and what was in force goes on.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs::{self, Permissions},
    io::Write,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    sync::Arc,
};

use harness::{
    Daemon, Setup,
    manager::{STORED, passing},
    read_all, round_trip,
};
use udsd::{
    parking::{Memory, Parked, Parking},
    state::State,
};

/// Parks `daemon` as one that was served with `there` in place of `here` in its config.
fn park_with(daemon: &mut Daemon, here: &str, there: &str) -> OwnedFd {
    let parked = Parked::find(daemon.park()).unwrap().unwrap();
    let mut state = State::decode(&parked.bytes().unwrap()).unwrap();
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
        let daemon = daemon.restart(|setup| setup.config(RECORD));
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
