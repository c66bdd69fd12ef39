//! Promise: each signal that somebody may send does what the manual says, and none ends the daemon by
//! accident: SIGUSR1 begins the records anew, SIGXFSZ is a full disk, SIGQUIT a stop.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Write,
    net::Shutdown,
    os::unix::fs::symlink,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use harness::{AtLast, Daemon, HANG, Setup, Signal, has_program, read_all, round_trip};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::Value;

const ECHO: &str = "[socket.echo]\npath = \"{dir}/echo\"\n";
const COLLECT: &str = "[socket.log]\npath = \"{dir}/log\"\nservice = \"collect\"\nframing = \"lines\"\n\
     [socket.log.record]\nfile = \"{dir}/record\"\n";

/// Sends any signal, by its number.
fn send(daemon: &Daemon, signal: i32) {
    let pid = daemon.pid().as_raw_nonzero();
    let mut kill = Command::new("sh");
    let sent = kill.args(["-c", &format!("kill -{signal} {pid}")]).status();
    assert!(sent.unwrap().success(), "signal {signal}");
}

/// Sends lines as one client; returns when all are taken.
fn say(daemon: &Daemon, lines: &str) {
    let mut client = daemon.connect("log");
    client.write_all(lines.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}

/// The numbers and messages of these files, one behind the other.
fn records(daemon: &Daemon, files: &[&str]) -> Vec<(u64, String)> {
    let texts = files.iter().map(|file| {
        let path = daemon.path(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    let text: String = texts.collect();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = line["message"].as_str().unwrap().to_owned();
        (line["seq"].as_u64().unwrap(), message)
    });
    lines.collect()
}

/// What a person, a timer or a limit may send and has no meaning here: alarms and timers, SIGIO,
/// SIGSTKFLT, and all that are real-time signals to the C library.
#[test]
fn signals_that_mean_nothing_end_nothing() {
    let mut daemon = Daemon::start(ECHO);
    let client = daemon.connect("echo");
    let (alarms, io, stack, file_size) = ([14, 26, 27], 29, 16, 25);
    let real_time = 34..=64;
    for signal in alarms
        .into_iter()
        .chain([io, stack, file_size])
        .chain(real_time)
    {
        send(&daemon, signal);
        round_trip(&client, b"still here");
    }
    assert!(daemon.stop().success());
}

/// SIGQUIT, SIGPWR and SIGXCPU.
#[test]
fn what_asks_for_an_end_gets_a_stop_in_good_order() {
    for signal in [3, 30, 24] {
        let mut daemon = Daemon::start(&format!("{ECHO}{COLLECT}"));
        let client = daemon.connect("echo");
        round_trip(&client, b"here");
        say(&daemon, "one\n");
        send(&daemon, signal);
        assert_eq!(read_all(&client), b"");
        assert_eq!(daemon.wait().code(), Some(0), "signal {signal}");
        assert_eq!(records(&daemon, &["record"]), [(1, "one".into())]);
        assert!(!daemon.path("echo").exists());
    }
}

#[test]
fn sigusr1_begins_a_record_that_was_moved_away_anew_and_loses_nothing() {
    let mut daemon = Daemon::start(&format!("{ECHO}{COLLECT}"));
    let mut client = daemon.connect("log");
    let over = AtomicBool::new(false);
    let names: Vec<String> = (0..10).map(|n| format!("record.{n}")).collect();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                client.write_all(format!("{n}\n").as_bytes()).unwrap();
                n += 1;
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&client), b"");
            n
        });
        let end = AtLast(&over);
        for name in &names {
            fs::rename(daemon.path("record"), daemon.path(name)).unwrap();
            daemon.signal(Signal::USR1);
            let deadline = Instant::now() + HANG;
            while !daemon.path("record").exists() {
                assert!(Instant::now() < deadline, "no new record");
                thread::yield_now();
            }
        }
        drop(end);
        sender.join().unwrap()
    });
    round_trip(&daemon.connect("echo"), b"still here");
    assert!(daemon.stop().success());
    let files: Vec<&str> = names.iter().map(String::as_str).chain(["record"]).collect();
    let expected: Vec<(u64, String)> = (0..sent).map(|n| (n + 1, n.to_string())).collect();
    assert!(
        records(&daemon, &files) == expected,
        "lost, twice or out of order"
    );
}

#[test]
fn a_record_that_cannot_be_begun_anew_goes_on_in_the_old_file() {
    let mut daemon = Daemon::start(COLLECT);
    say(&daemon, "one\n");
    fs::rename(daemon.path("record"), daemon.path("record.1")).unwrap();
    symlink("elsewhere", daemon.path("record")).unwrap();
    daemon.signal(Signal::USR1);
    daemon.wait_log(&["ERROR", "record", "symbolic link", "goes on"]);
    say(&daemon, "two\n");
    let deadline = Instant::now() + HANG;
    while records(&daemon, &["record.1"]).len() < 2 {
        assert!(Instant::now() < deadline, "not written");
        thread::yield_now();
    }
    fs::remove_file(daemon.path("record")).unwrap();
    daemon.signal(Signal::USR1);
    daemon.wait_log(&["record", "opened anew"]);
    say(&daemon, "three\n");
    assert!(daemon.stop().success());
    let old = [(1, "one".into()), (2, "two".into())];
    assert_eq!(records(&daemon, &["record.1"]), old);
    assert_eq!(records(&daemon, &["record"]), [(3, "three".into())]);
    assert!(!daemon.path("elsewhere").exists());
}

#[test]
fn a_record_that_is_where_it_was_stays_open() {
    let mut daemon = Daemon::start(COLLECT);
    say(&daemon, "one\n");
    for _ in 0..3 {
        daemon.signal(Signal::USR1);
        say(&daemon, "more\n");
    }
    assert!(daemon.stop().success());
    assert_eq!(records(&daemon, &["record"]).len(), 4);
    assert!(!daemon.log().contains("opened anew"), "{}", daemon.log());
}

/// `LimitFSIZE=`: SIGXFSZ comes with the EFBIG of the write, and ends a process by default.
#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    if !has_program("prlimit") {
        return;
    }
    let mut daemon = Setup::new()
        .wrapper(&["prlimit", "--fsize=1000:unlimited", "--"])
        .config(&format!("{ECHO}{COLLECT}"))
        .start();
    let witness = daemon.connect("echo");
    let messages: Vec<String> = (0..100).map(|n| format!("message number {n}")).collect();
    say(&daemon, &(messages.join("\n") + "\n"));
    daemon.wait_log(&["WARN", "record", "File too large", "trying again"]);
    round_trip(&witness, b"of another socket");
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(Some(daemon.pid()), Resource::Fsize, none).unwrap();
    daemon.wait_log(&["writing again"]);
    assert!(daemon.stop().success());
    let expected: Vec<(u64, String)> = (1..).zip(messages).collect();
    assert_eq!(records(&daemon, &["record"]), expected);
}
