//! Stops, restarts, kills: what waits is delivered or counted, and nothing stays behind.

use std::{fs, os::unix::net::UnixDatagram, sync::Arc};

use super::{
    Client, config, counted,
    harness::{Daemon, Setup, Signal},
    kernel_queue, number_of, numbered,
};

fn with_drain(span: &str, keys: &str) -> String {
    format!("[daemon]\ndrain-timeout = \"{span}\"\n{}", config(keys))
}

#[test]
fn replies_that_wait_are_delivered_in_a_stop() {
    let keys = "slow-timeout = \"1h\"";
    let mut daemon = Daemon::start(&with_drain("1h", keys));
    let client = Client::bound(&daemon, "c");
    let all = kernel_queue() + 500;
    for n in 0..all {
        client.send(&numbered(n, 100));
    }
    Client::bound(&daemon, "witness").round_trip(b"all read");
    daemon.signal(Signal::TERM);
    daemon.wait_note("STOPPING=1");
    for n in 0..all {
        assert_eq!(number_of(&client.receive()), n);
    }
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(counted(&daemon, "s", "undelivered"), 0);
    assert!(!daemon.path("s").exists() && !daemon.path("s.lock").exists());
}

#[test]
fn what_nobody_takes_in_time_is_counted() {
    let mut daemon = Daemon::start(&with_drain("200ms", "slow-timeout = \"1h\""));
    let client = Client::bound(&daemon, "c");
    let all = kernel_queue() + 500;
    for n in 0..all {
        client.send(&numbered(n, 100));
    }
    Client::bound(&daemon, "witness").round_trip(b"all read");
    assert_eq!(daemon.stop().code(), Some(0));
    let mut came = 0;
    while client.has_more() {
        assert_eq!(number_of(&client.receive()), came);
        came += 1;
    }
    let lost = 100 * (all - came) as u64;
    assert!(lost > 0);
    assert_eq!(counted(&daemon, "s", "undelivered"), lost);
    daemon.wait_log(&[
        "WARN",
        "cut short by drain-timeout",
        " datagrams are not delivered",
    ]);
}

#[test]
fn a_stop_loses_count_of_nothing() {
    for _ in 0..10 {
        let mut daemon = Daemon::start(&config(""));
        let client = Client::bound(&daemon, "c");
        client.round_trip(b"here");
        daemon.halt();
        for n in 0..5 {
            client.send(&numbered(n, 100));
        }
        daemon.signal(Signal::TERM);
        daemon.resume();
        assert_eq!(daemon.wait().code(), Some(0));
        // Read before the signal was seen, or read away after it.
        let bytes = counted(&daemon, "s", "bytes unread") + 100 * counted(&daemon, "s", "messages");
        assert_eq!(bytes, 600);
    }
}

#[test]
fn a_killed_daemon_is_followed_by_another_at_the_same_path() {
    let setup = Setup::new().config(&config(""));
    let folder = Arc::clone(setup.folder());
    let mut daemon = setup.start();
    let client = Client::bound(&daemon, "c");
    client.round_trip(b"first");
    daemon.kill();
    assert!(folder.join("s").exists());
    let again = Setup::within(Arc::clone(&folder))
        .config(&config(""))
        .start();
    client.round_trip(b"second");
    // While it serves, nobody else may.
    let (code, log) = Setup::within(Arc::clone(&folder))
        .config(&config(""))
        .fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains(&format!("in use by pid {}", again.pid())),
        "{log}"
    );
    client.round_trip(b"still");
}

#[test]
fn a_living_socket_of_another_program_is_left_alone() {
    let setup = Setup::new().config(&config(""));
    let folder = Arc::clone(setup.folder());
    let there = UnixDatagram::bind(folder.join("s")).unwrap();
    let (code, log) = setup.fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("in use"), "{log}");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"alive", folder.join("s")).unwrap();
    assert_eq!(there.recv(&mut [0; 9]).unwrap(), 5);
    // Dead, it makes way.
    drop(there);
    let daemon = Setup::within(folder).config(&config("")).start();
    Client::bound(&daemon, "c").round_trip(b"served");
}

#[test]
fn a_lock_is_held_as_long_as_the_daemon_serves() {
    let mut daemon = Daemon::start(&config(""));
    let lock = fs::read_to_string(daemon.path("s.lock")).unwrap();
    assert_eq!(lock, format!("{}\n", daemon.pid()));
    assert!(daemon.stop().success());
    assert!(!daemon.path("s.lock").exists());
}
