//! Promise: where a bound socket is no longer at its path, because a process was killed as another
//! took its place, a restart or a reload brings it back. What somebody else has put there is left
//! untouched.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::Arc,
};

use harness::{
    Daemon, Setup,
    manager::{STORED, passing},
    packets::Packets,
    round_trip,
};

const A: &str = "[socket.a]\npath = \"{dir}/a\"\nframing = \"lines\"\n";
const B: &str = "[socket.b]\npath = \"{dir}/b\"\nframing = \"lines\"\n";
const PACKETS: &str = "[socket.a]\npath = \"{dir}/a\"\ntype = \"seqpacket\"\n";
/// Another type, and then what cannot be: the other type is given up too.
const IMPOSSIBLE: &str = "[socket.z]\npath = \"{dir}/no/z\"\n";

fn both() -> String {
    format!("{A}{B}")
}

/// A daemon with a socket `a` and a client at `b`.
fn start() -> (Daemon, UnixStream) {
    let daemon = Setup::new().keeping().config(&both()).start();
    let client = daemon.connect("b");
    round_trip(&client, b"before\n");
    (daemon, client)
}

/// A process that goes on with what waits at `near`.
fn next(daemon: &Daemon, near: &OwnedFd, config: &str) -> Setup {
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    passing(setup.config(config), &[near.as_fd()], Some(STORED))
}

/// What a daemon has left that was killed while a socket of another type took the place of `a`.
fn killed(daemon: &mut Daemon) -> OwnedFd {
    let near = daemon.park();
    for _ in 0..2 {
        let mut killed = next(daemon, &near, &format!("{PACKETS}{B}"))
            .stuck()
            .spawn();
        killed.wait_restored();
        killed.kill();
        assert!(daemon.path("a.replaced").exists());
    }
    near
}

/// All is over: nothing stays behind.
fn stop(mut daemon: Daemon) {
    assert!(daemon.stop().success());
    for name in ["a", "a.replaced", "a.lock"] {
        assert!(
            fs::symlink_metadata(daemon.path(name)).is_err(),
            "{name} stays behind"
        );
    }
}

#[test]
fn who_is_killed_while_a_socket_takes_anothers_place_keeps_the_next_from_nothing() {
    let (mut daemon, client) = start();
    let near = killed(&mut daemon);
    let daemon = next(&daemon, &near, &format!("{PACKETS}{B}")).start();
    drop(near);
    round_trip(&client, b"after\n");
    Packets::connect(&daemon.path("a")).round_trip(b"a packet");
    assert!(!daemon.path("a.replaced").exists());
    stop(daemon);
}

#[test]
fn a_file_that_cannot_be_put_into_force_after_that_brings_the_socket_back() {
    let (mut daemon, client) = start();
    let near = killed(&mut daemon);
    let wrong = format!("{PACKETS}{B}{IMPOSSIBLE}");
    let daemon = next(&daemon, &near, &wrong).start();
    drop(near);
    daemon.wait_log(&["ERROR", "serving as before the restart"]);
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("a"), b"here\n");
    assert!(!daemon.path("a.replaced").exists());
    stop(daemon);
}

#[test]
fn what_a_killed_process_left_aside_is_in_nobodys_way() {
    let (daemon, client) = start();
    drop(UnixListener::bind(daemon.path("a.replaced")).unwrap());
    daemon.reload_with(&format!("{PACKETS}{B}"));
    round_trip(&client, b"after\n");
    Packets::connect(&daemon.path("a")).round_trip(b"a packet");
    assert!(!daemon.path("a.replaced").exists());
    stop(daemon);
}

#[test]
fn a_server_where_a_socket_would_stand_aside_is_left_untouched() {
    let (daemon, client) = start();
    let other = UnixListener::bind(daemon.path("a.replaced")).unwrap();
    let status = daemon.fail_to_reload(&format!("{PACKETS}{B}"));
    assert!(
        status.contains("a.replaced") && status.contains("in use by pid"),
        "{status}"
    );
    let _here = UnixStream::connect(daemon.path("a.replaced")).unwrap();
    other.accept().unwrap();
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("a"), b"here\n");
}
