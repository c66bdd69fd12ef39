//! Promise: where a bound socket is no longer at its path, because a process was killed as another
//! took its place or because somebody removed its file, a restart or a reload brings it back. What
//! somebody else has put there is left untouched.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    sync::Arc,
};

use harness::{
    Daemon, HANG, Setup, Signal,
    manager::{STORED, passing},
    packets::Packets,
    read_all, round_trip,
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
    for n in 0..2 {
        let mut killed = next(daemon, &near, &format!("{PACKETS}{B}"))
            // The last line, with which all is made ready, does not fit. The second one that is killed has
            // a warning before it: the file that the first bound is in its way.
            .log_room(100 + 100 * n)
            .spawn();
        killed.wait_halted();
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
fn a_file_that_was_changed_back_after_that_finds_its_socket_in_place() {
    let (mut daemon, client) = start();
    let near = killed(&mut daemon);
    // It waits where nobody could have come in.
    let waiting = UnixStream::connect(daemon.path("a.replaced")).unwrap();
    let daemon = next(&daemon, &near, &both()).start();
    drop(near);
    round_trip(&client, b"after\n");
    round_trip(&waiting, b"waited\n");
    round_trip(&daemon.connect("a"), b"here\n");
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
fn what_somebody_put_there_after_that_is_left_untouched() {
    let (mut daemon, client) = start();
    let near = killed(&mut daemon);
    fs::remove_file(daemon.path("a")).unwrap();
    fs::write(daemon.path("a"), "foreign").unwrap();
    let daemon = next(&daemon, &near, &format!("{PACKETS}{B}")).start();
    drop(near);
    daemon.wait_log(&["ERROR", "/a", "left untouched"]);
    daemon.wait_log(&["ERROR", "serving as before the restart"]);
    round_trip(&client, b"after\n");
    assert_eq!(fs::read(daemon.path("a")).unwrap(), b"foreign");
    // Once that is gone, a reload is enough.
    fs::remove_file(daemon.path("a")).unwrap();
    daemon.reload_with(&both());
    round_trip(&daemon.connect("a"), b"here\n");
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

#[test]
fn a_socket_whose_file_was_removed_is_bound_anew_by_a_restart() {
    let (daemon, client) = start();
    let here = daemon.connect("a");
    round_trip(&here, b"before\n");
    fs::remove_file(daemon.path("a")).unwrap();
    let b = fs::metadata(daemon.path("b")).unwrap().ino();
    let daemon = daemon.restart(|setup| setup.config(&both()));
    round_trip(&client, b"after\n");
    round_trip(&here, b"after\n");
    round_trip(&daemon.connect("a"), b"new\n");
    assert_eq!(fs::metadata(daemon.path("b")).unwrap().ino(), b);
    // And the one bound anew is handed over as any other.
    let daemon = daemon.restart(|setup| setup.config(&both()));
    round_trip(&here, b"again\n");
    round_trip(&daemon.connect("a"), b"newer\n");
    stop(daemon);
}

#[test]
fn a_socket_whose_file_was_removed_is_bound_anew_by_a_reload() {
    let (daemon, client) = start();
    let here = daemon.connect("a");
    round_trip(&here, b"before\n");
    // Who waits at the old one comes in by it.
    daemon.halt();
    let waiting = daemon.connect("a");
    fs::remove_file(daemon.path("a")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.resume();
    round_trip(&waiting, b"waited\n");
    round_trip(&here, b"after\n");
    round_trip(&client, b"after\n");
    daemon.wait_log(&["INFO", "reloaded"]);
    round_trip(&daemon.connect("a"), b"new\n");
    drop(waiting);
    stop(daemon);
}

#[test]
fn what_was_sent_to_a_datagram_socket_whose_file_was_removed_is_answered() {
    let mail = "[socket.a]\npath = \"{dir}/a\"\ntype = \"datagram\"\n";
    let mut daemon = Setup::new().keeping().config(mail).start();
    let near = daemon.park();
    let [waiting, new] = ["waiting", "new"].map(|name| {
        let socket = UnixDatagram::bind(daemon.path(name)).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket
    });
    let answer = |socket: &UnixDatagram| {
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    };
    waiting.send_to(b"one", daemon.path("a")).unwrap();
    fs::remove_file(daemon.path("a")).unwrap();
    let daemon = next(&daemon, &near, mail).start();
    drop(near);
    assert_eq!(answer(&waiting), b"one");
    new.send_to(b"two", daemon.path("a")).unwrap();
    assert_eq!(answer(&new), b"two");
    stop(daemon);
}

#[test]
fn what_was_put_in_the_place_of_a_removed_file_is_left_untouched() {
    let (daemon, _client) = start();
    let here = daemon.connect("a");
    fs::remove_file(daemon.path("a")).unwrap();
    let other = UnixListener::bind(daemon.path("a")).unwrap();
    let status = daemon.fail_to_reload(&both());
    assert!(status.contains("in use by pid"), "{status}");
    round_trip(&here, b"after\n");
    let mut daemon = daemon.restart(|setup| setup.config(&both()));
    daemon.wait_log(&["ERROR", "serving as before the restart"]);
    round_trip(&here, b"after\n");
    let _there = UnixStream::connect(daemon.path("a")).unwrap();
    // Not that of a probe, which has gone again.
    other.set_nonblocking(true).unwrap();
    assert!(other.incoming().next().unwrap().is_ok());
    assert!(daemon.stop().success());
    assert!(daemon.path("a").exists());
    assert_eq!(read_all(&here), b"");
}
