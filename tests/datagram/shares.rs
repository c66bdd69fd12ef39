//! The send buffer that all receivers of a socket have in common: none takes it from the others, however
//! little it reads. A receiver that is connected to the daemon has no queue of its own in the kernel.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::process::geteuid;

use super::{
    Client, config,
    harness::{Daemon, Setup, is_root},
    number_of, numbered,
};
use crate::harness::acting;

/// Bytes of a datagram of who does not read, and as many of them as no send buffer holds: 64 MiB as root,
/// else perhaps 416 KiB, in which a few long ones would be all that there is.
fn flood() -> (usize, usize) {
    if geteuid().is_root() {
        (32 * 1024, 2500)
    } else {
        (100, 15_000)
    }
}

/// A client that is connected to the daemon.
fn connected(daemon: &Daemon, name: &str) -> Client {
    let client = Client::bound(daemon, name);
    client.socket.connect(&client.to).unwrap();
    client
}

/// Talks to the daemon, each message when the one before has come back.
fn talk(client: &Client, messages: usize) {
    for n in 0..messages {
        let message = numbered(n, 100);
        assert_eq!(client.socket.send(&message).unwrap(), message.len());
        assert_eq!(client.receive(), message);
    }
}

#[test]
fn one_that_reads_nothing_leaves_room_for_the_others() {
    let daemon = Daemon::start(&config(""));
    let sleeper = connected(&daemon, "sleeper");
    let (one, other) = (connected(&daemon, "one"), connected(&daemon, "other"));
    let ends = AtomicBool::new(false);
    let (length, most) = flood();
    thread::scope(|scope| {
        for n in 0..most {
            sleeper.socket.send(&numbered(n, length)).unwrap();
        }
        scope.spawn(|| {
            for n in most.. {
                sleeper.socket.send(&numbered(n, length)).unwrap();
                if ends.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        scope.spawn(|| talk(&one, 200));
        talk(&other, 200);
        ends.store(true, Ordering::Relaxed);
    });
    // It got what it has in order, and is a client like any other once it reads.
    let mut next = 0;
    while sleeper.has_more() {
        let number = number_of(&sleeper.receive());
        assert!(number >= next, "{number} after {next}");
        next = number + 1;
    }
}

#[test]
fn many_that_read_nothing_leave_room_for_who_reads() {
    let daemon = Daemon::start(&config(""));
    let sleepers: Vec<Client> = (0..50)
        .map(|n| connected(&daemon, &format!("sleeper{n}")))
        .collect();
    let talker = connected(&daemon, "talker");
    let (length, most) = flood();
    thread::scope(|scope| {
        for sleepers in sleepers.chunks(25) {
            scope.spawn(move || {
                for n in 0..2 * most / sleepers.len() {
                    for sleeper in sleepers {
                        sleeper.socket.send(&numbered(n, length)).unwrap();
                    }
                }
            });
        }
        talk(&talker, 200);
    });
    talk(&talker, 200);
}

#[test]
fn a_user_who_reads_nothing_leaves_room_for_another() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o777)).unwrap();
    let daemon = setup.config(&config("queue-size = \"64KiB\"")).start();
    let _sleepers = acting(7001, 7001, &[], || {
        // More of them than one user may have tried.
        let sleepers: Vec<Client> = (0..600)
            .map(|n| connected(&daemon, &format!("sleeper{n}")))
            .collect();
        for _ in 0..6 {
            for sleeper in &sleepers {
                sleeper.socket.send(&vec![b'x'; flood().0]).unwrap();
            }
        }
        sleepers
    });
    talk(&connected(&daemon, "talker"), 200);
}
