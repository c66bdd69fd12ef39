//! socat on streams, seqpackets and datagrams. Each read of its input, at most 8 KiB, is a packet.

use std::{path::Path, process::Command};

use crate::{
    Program,
    harness::{Daemon, Random, has_program, packets::Packets},
    messages, records, run, socket,
};

/// socat between its input and output and this kind of socket at `path`.
fn socat(kind: &str, path: &Path, options: &str) -> Command {
    let mut socat = Command::new("socat");
    let address = format!("{kind}:{}{options}", path.display());
    // -t: how long it waits for the rest after its half-close.
    socat.args(["-t", "60", "-", &address]);
    socat
}

#[test]
fn it_gets_its_bytes_and_ends() {
    if !has_program("socat") {
        return;
    }
    let daemon = Daemon::start(&socket("s", ""));
    let bytes = Random::new(4).bytes(300_001);
    let ended = run(&mut socat("UNIX-CONNECT", &daemon.path("s"), ""), &bytes);
    assert!(ended.stdout == bytes);
}

#[test]
fn it_gets_its_packets_and_ends() {
    if !has_program("socat") {
        return;
    }
    let daemon = Daemon::start(&socket("p", "type = \"seqpacket\""));
    let mut seqpacket = socat("UNIX-CONNECT", &daemon.path("p"), ",socktype=5");
    assert_eq!(run(&mut seqpacket, b"hello\n").stdout, b"hello\n");
    let bytes = Random::new(5).bytes(300_001);
    assert!(run(&mut seqpacket, &bytes).stdout == bytes);
}

#[test]
fn its_packets_are_relayed() {
    if !has_program("socat") {
        return;
    }
    let keys = "type = \"seqpacket\"\nservice = \"relay\"";
    let mut daemon = Daemon::start(&socket("p", keys));
    let start = || Program::start(&mut socat("UNIX-CONNECT", &daemon.path("p"), ",socktype=5"));
    let witness = Packets::connect(&daemon.path("p"));
    let hears = |packet: &str| assert_eq!(witness.receive().unwrap(), packet.as_bytes());
    // Who was heard is a member.
    let mut one = start();
    one.say("one is here\n");
    hears("one is here\n");
    let mut two = start();
    two.say("two is here\n");
    hears("two is here\n");
    assert_eq!(one.line(), "two is here");
    one.say("from one\n");
    assert_eq!(two.line(), "from one");
    two.say("from two\n");
    assert_eq!(one.line(), "from two");
    // Else it would wait for the rest of its input.
    one.hush();
    two.hush();
    assert!(daemon.stop().success());
    assert!(one.end().success() && two.end().success());
}

#[test]
fn its_packets_are_recorded() {
    if !has_program("socat") {
        return;
    }
    let keys = "type = \"seqpacket\"\nservice = \"collect\"";
    let daemon = Daemon::start(&socket("p", keys));
    let mut seqpacket = socat("UNIX-CONNECT", &daemon.path("p"), ",socktype=5");
    let ended = run(&mut seqpacket, b"two\nlines\n");
    let records = records(&daemon, 1);
    assert_eq!(messages(&records), ["two\nlines\n"]);
    assert_eq!(records[0]["pid"], ended.pid);
}

#[test]
fn its_datagrams_come_back_to_whatever_address_it_has() {
    if !has_program("socat") {
        return;
    }
    let daemon = Daemon::start(&socket("d", "type = \"datagram\""));
    let own = |name: &str| format!(",bind={}", daemon.path(name).display());
    for (kind, options) in [
        ("UNIX-SENDTO", own("a")),
        // It tries a stream first.
        ("UNIX-CLIENT", own("b")),
        ("UNIX-CLIENT", own("c") + ",socktype=2"),
        ("UNIX-CONNECT", own("e") + ",socktype=2"),
    ] {
        let mut socat = Program::start(&mut socat(kind, &daemon.path("d"), &options));
        for line in ["one", "two"] {
            socat.say(&format!("{line}\n"));
            assert_eq!(socat.line(), line, "{kind}{options}");
        }
    }
}

#[test]
fn without_an_address_it_gets_nothing_and_is_counted() {
    if !has_program("socat") {
        return;
    }
    let mut daemon = Daemon::start(&socket("d", "type = \"datagram\""));
    let address = format!("UNIX-SENDTO:{}", daemon.path("d").display());
    // It need not wait long: no test can tell that nothing will come.
    let ended = run(
        Command::new("socat").args(["-t", "0.2", "-", &address]),
        b"hello\n",
    );
    assert_eq!(ended.stdout, b"");
    assert_eq!(ended.stderr, "");
    assert!(daemon.stop().success());
    daemon.wait_log(&["d: ", " 1 messages of 6 bytes", "1 unbound"]);
}

#[test]
fn its_datagrams_are_recorded() {
    if !has_program("socat") {
        return;
    }
    let keys = "type = \"datagram\"\nservice = \"collect\"\nframing = \"syslog\"";
    let daemon = Daemon::start(&socket("d", keys));
    let own = format!(",bind={}", daemon.path("own").display());
    let path = daemon.path("d");
    let mut pids = Vec::new();
    for (i, options) in ["", own.as_str()].into_iter().enumerate() {
        let mut socat = Program::start(&mut socat("UNIX-SENDTO", &path, options));
        socat.say("<13>hello\n");
        records(&daemon, i + 1);
        pids.push(socat.pid());
    }
    let records = records(&daemon, 2);
    assert_eq!(messages(&records), ["<13>hello"; 2]);
    for (record, pid) in records.iter().zip(pids) {
        assert_eq!(record["pid"], pid);
    }
    // Nothing tells senders without an address from each other.
    assert_eq!(records[0]["client"], 0);
    assert_ne!(records[1]["client"], 0);
}
