//! Promise: what a datagram socket has received, or the kernel holds for it, is taken in order or
//! counted, whatever a restart makes of the socket.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::Arc,
    thread,
    time::Instant,
};

use harness::{
    Daemon, HANG, Setup,
    manager::{STORED, passing},
};

/// With a record that has room for a few of `letter`.
fn collect(path: &str, file: &str) -> String {
    format!(
        "[socket.a]\npath = \"{path}\"\ntype = \"datagram\"\nservice = \"collect\"\nmessage-size = \"1KiB\"\n\
         [socket.a.record]\nfile = \"{file}\"\nqueue-size = \"9KiB\"\n"
    )
}

/// Long enough that no record has room for `HELD` of them.
fn letter(n: usize) -> Vec<u8> {
    format!("{n:01000}").into_bytes()
}

/// As many as any kernel's queue has room for.
const HELD: usize = 10;

/// A socket as the manager makes it.
fn made(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o660)).unwrap();
    rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
    socket
}

/// Sends all in one batch, of which the record takes some, and the daemon holds the rest.
fn hold(daemon: &Daemon, sender: &UnixDatagram) {
    daemon.halt();
    for n in 0..HELD {
        sender.send(&letter(n)).unwrap();
    }
    daemon.resume();
    // It is told after the first line was handed over, which is after the batch came.
    daemon.wait_log(&["WARN", "/dev/full", "No space left"]);
}

/// The process that goes on with this config; the manager passes it `socket`, if any.
fn next(mut daemon: Daemon, config: &str, socket: Option<BorrowedFd<'_>>) -> Daemon {
    let Some(socket) = socket else {
        return daemon.restart(|setup| setup.config(config));
    };
    let near = daemon.park();
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let names = format!("{STORED}:a");
    passing(setup.config(config), &[near.as_fd(), socket], Some(&names)).start()
}

/// The numbers of the recorded letters, all of one sender, numbered one after the other.
fn recorded(daemon: &Daemon) -> Vec<usize> {
    let text = fs::read_to_string(daemon.path("record")).unwrap();
    let mut numbers = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["seq"], i + 1);
        assert_eq!(record["client"], 1, "its sender has another number");
        numbers.push(record["message"].as_str().unwrap().parse().unwrap());
    }
    numbers
}

fn wait_recorded(daemon: &Daemon, lines: usize) {
    let begun = Instant::now();
    while fs::read_to_string(daemon.path("record"))
        .unwrap()
        .lines()
        .count()
        < lines
    {
        assert!(begun.elapsed() < HANG, "recorded: {:?}", recorded(daemon));
        thread::yield_now();
    }
}

fn last_line(daemon: &Daemon) -> String {
    daemon.wait_log(&["INFO", "a: 1 clients"])
}

#[test]
fn what_waits_where_the_manager_makes_the_socket_anew_goes_on_in_the_new_one() {
    let setup = Setup::new().keeping();
    let path = setup.folder().join("a");
    let a = made(&path);
    let sender = UnixDatagram::bind(setup.folder().join("sender")).unwrap();
    sender.connect(&path).unwrap();
    let full = collect("{dir}/a", "/dev/full");
    let mut daemon = passing(setup.config(&full), &[a.as_fd()], Some("a")).start();
    hold(&daemon, &sender);
    let near = daemon.park();
    // These wait in the kernel, behind what is held.
    for n in HELD..2 * HELD {
        sender.send(&letter(n)).unwrap();
    }
    drop(a);
    fs::remove_file(&path).unwrap();
    let anew = made(&path);
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let setup = setup.config(&collect("{dir}/a", "{dir}/record"));
    let names = format!("{STORED}:a");
    let passed = [near.as_fd(), anew.as_fd()];
    let mut daemon = passing(setup, &passed, Some(&names)).start();
    drop(near);
    assert!(sender.send(b"nobody reads that").is_err());
    sender.connect(&path).unwrap();
    sender.send(&letter(2 * HELD)).unwrap();
    // What a stop finds in the kernel is left to the manager.
    wait_recorded(&daemon, 2 * HELD + 1);
    assert!(daemon.stop().success());
    assert_eq!(recorded(&daemon), (0..=2 * HELD).collect::<Vec<_>>());
    let counts = last_line(&daemon);
    assert!(counts.contains(" 0 untaken"), "{counts}");
    assert!(counts.contains(" 0 bytes unread"), "{counts}");
}

#[test]
fn what_waits_for_a_socket_that_did_not_come_along_is_taken_once_it_is_there() {
    let (setup, name, a) = abstract_one();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let sender = UnixDatagram::bind(setup.folder().join("sender")).unwrap();
    sender.connect_addr(&address).unwrap();
    let (full, good) = configs(&name);
    let mut daemon = passing(setup.config(&full), &[a.as_fd()], Some("a")).start();
    hold(&daemon, &sender);
    drop(a);
    daemon = next(daemon, &full, None);
    daemon.wait_log(&["ERROR", "no longer has it"]);
    let anew = UnixDatagram::bind_addr(&address).unwrap();
    let mut daemon = next(daemon, &good, Some(anew.as_fd()));
    wait_recorded(&daemon, HELD);
    assert!(daemon.stop().success());
    assert_eq!(recorded(&daemon), (0..HELD).collect::<Vec<_>>());
    let counts = last_line(&daemon);
    assert!(counts.contains(" 0 untaken"), "{counts}");
}

#[test]
fn what_waits_for_a_socket_that_is_not_there_is_counted_when_it_is_given_up() {
    for is_removed in [false, true] {
        let (setup, name, a) = abstract_one();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&address).unwrap();
        let (full, good) = configs(&name);
        let daemon = passing(setup.config(&full), &[a.as_fd()], Some("a")).start();
        hold(&daemon, &sender);
        drop(a);
        let config = if is_removed {
            "[socket.b]\npath = \"{dir}/b\"\n"
        } else {
            &good
        };
        let mut daemon = next(daemon, config, None);
        let counts = if is_removed {
            daemon.wait_log(&["a: gone: "])
        } else {
            assert!(daemon.stop().success());
            daemon.wait_log(&["INFO", "a: 0 clients"])
        };
        let count = |what: &str| -> usize {
            let before = counts.split(what).next().unwrap();
            before.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let untaken = count(" untaken");
        assert!(untaken > 0, "{counts}");
        assert_eq!(count(" messages of") + untaken, HELD, "{counts}");
        let lost = format!("{untaken} datagrams");
        daemon.wait_log(&["WARN", "a: nobody served it", &lost]);
    }
}

fn abstract_one() -> (Setup, String, UnixDatagram) {
    let setup = Setup::new().keeping();
    let name = setup.folder().join("abstract").display().to_string();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let a = UnixDatagram::bind_addr(&address).unwrap();
    rustix::net::sockopt::set_socket_passcred(&a, true).unwrap();
    (setup, name, a)
}

/// With a record that cannot be written, and with one that can.
fn configs(name: &str) -> (String, String) {
    let path = format!("@{name}");
    (collect(&path, "/dev/full"), collect(&path, "{dir}/record"))
}
