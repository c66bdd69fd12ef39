//! netcat (OpenBSD's) on streams and datagrams.

use crate::{
    Program, command,
    harness::{Daemon, Random, has_program, read_n},
    messages, records, run, socket,
};

#[test]
fn it_gets_its_bytes_and_ends() {
    if !has_program("nc") {
        return;
    }
    let daemon = Daemon::start(&socket("s", ""));
    let bytes = Random::new(3).bytes(300_001);
    let ended = run(&mut command(&["nc", "-NU"], &daemon.path("s")), &bytes);
    assert!(ended.stdout == bytes);
}

#[test]
fn without_a_half_close_it_talks_on_until_the_daemon_stops() {
    if !has_program("nc") {
        return;
    }
    let mut daemon = Daemon::start(&socket("s", "framing = \"lines\""));
    let mut nc = Program::start(&mut command(&["nc", "-U"], &daemon.path("s")));
    for line in ["one", "", "three"] {
        nc.say(&format!("{line}\n"));
        assert_eq!(nc.line(), line);
    }
    assert!(daemon.stop().success());
    // Its input is still open.
    assert!(nc.end().success());
    daemon.wait_log(&["s: 1 clients,", " 3 messages", " 0 undelivered"]);
}

#[test]
fn its_datagrams_come_back() {
    if !has_program("nc") {
        return;
    }
    let daemon = Daemon::start(&socket("d", "type = \"datagram\""));
    let own = daemon.path("own");
    let words = ["nc", "-uU", "-s", own.to_str().unwrap()];
    let mut nc = Program::start(&mut command(&words, &daemon.path("d")));
    for line in ["one", "two"] {
        nc.say(&format!("{line}\n"));
        assert_eq!(nc.line(), line);
    }
    drop(nc);
    // Without -s it binds a path of its own choice. -W: how many it waits for.
    let ended = run(
        &mut command(&["nc", "-uU", "-W", "1"], &daemon.path("d")),
        b"whole\nand once\n",
    );
    assert_eq!(ended.stdout, b"whole\nand once\n");
}

#[test]
fn its_datagrams_are_recorded() {
    if !has_program("nc") {
        return;
    }
    let keys = "type = \"datagram\"\nservice = \"collect\"";
    let daemon = Daemon::start(&socket("d", keys));
    let own = daemon.path("own");
    let words = ["nc", "-uU", "-s", own.to_str().unwrap()];
    let mut nc = Program::start(&mut command(&words, &daemon.path("d")));
    for n in 1..=3 {
        nc.say(&format!("line {n}\n"));
        // One read of it is one datagram: the next line is for the next.
        records(&daemon, n);
    }
    let records = records(&daemon, 3);
    assert_eq!(messages(&records), ["line 1\n", "line 2\n", "line 3\n"]);
    for record in &records {
        assert_eq!(record["pid"], nc.pid());
        assert_eq!(record["client"], records[0]["client"]);
        // It has an address, so it has a number.
        assert_ne!(record["client"], 0);
    }
}

#[test]
fn it_takes_part_in_a_relay_and_hears_on_after_its_half_close() {
    if !has_program("nc") || !has_program("socat") {
        return;
    }
    let keys = "service = \"relay\"\nframing = \"lines\"";
    let mut daemon = Daemon::start(&socket("r", keys));
    let path = daemon.path("r");
    let witness = daemon.connect("r");
    // Who was heard is a member.
    let hears = |text: &str| assert_eq!(read_n(&witness, text.len()), text.as_bytes());
    let mut nc = Program::start(&mut command(&["nc", "-NU"], &path));
    nc.say("nc is here\n");
    hears("nc is here\n");
    let address = format!("UNIX-CONNECT:{}", path.display());
    let mut socat = Program::start(std::process::Command::new("socat").args(["-", &address]));
    socat.say("socat is here\n");
    hears("socat is here\n");
    assert_eq!(nc.line(), "socat is here");
    nc.say("one\ntwo\n");
    nc.hush();
    hears("one\ntwo\n");
    assert_eq!([socat.line(), socat.line()], ["one", "two"]);
    socat.say("three\n");
    hears("three\n");
    assert_eq!(nc.line(), "three");
    assert!(daemon.stop().success());
    assert!(nc.end().success());
    assert!(socat.end().success());
    daemon.wait_log(&["r: 3 clients", " 5 messages", " 0 undelivered"]);
}
