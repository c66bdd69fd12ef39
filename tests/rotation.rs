//! Promise: whoever moves, compresses or removes the file under a record loses nothing in silence: with
//! packaging/udsd.logrotate nothing at all, and otherwise the log says what is wrong and what to do.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Write,
    net::Shutdown,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
    time::Instant,
};

use harness::{Daemon, Folder, HANG, Setup, has_program, read_all};
use serde_json::Value;

const COLLECT: &str = "[socket.log]\npath = \"{dir}/log\"\nservice = \"collect\"\nframing = \"lines\"\n\
     [socket.log.record]\nfile = \"{dir}/record.json\"\n";

/// The file that is shipped.
const SHIPPED: &str = include_str!("../packaging/udsd.logrotate");

/// Sends a message as one client; returns when it is taken.
fn say(daemon: &Daemon, message: &str) {
    let mut client = daemon.connect("log");
    client.write_all(format!("{message}\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}

/// The lines of all files of the record, compressed ones too.
fn lines(folder: &Folder) -> Vec<Value> {
    let script = "for file in record.json*; do case $file in *.gz) zcat \"$file\" ;; *) cat \"$file\" ;; esac; done";
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-c", script])
        .current_dir(folder.path())
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    lines.map(Result::unwrap).collect()
}

/// Their numbers.
fn numbers(folder: &Folder) -> Vec<u64> {
    let lines = lines(folder);
    let numbers = lines.iter().map(|line| line["seq"].as_u64().unwrap());
    let mut all: Vec<u64> = numbers.collect();
    all.sort_unstable();
    all
}

/// Rotates by this text now, with `systemctl` in the PATH that reaches the daemon.
fn rotate(daemon: &Daemon, text: &str) {
    let folder = daemon.folder();
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let pid = daemon.pid().as_raw_nonzero();
    let systemctl = format!(
        "#!/bin/sh\n[ \"$*\" = 'kill --kill-who=main --signal=USR1 udsd.service' ] && exec kill -USR1 {pid}\n"
    );
    let (config, state) = (
        folder.join("logrotate.conf"),
        folder.join("logrotate.state"),
    );
    for (path, text, mode) in [
        (&programs.join("systemctl"), systemctl.as_str(), 0o755),
        (&config, text, 0o644),
    ] {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let mut logrotate = Command::new("logrotate");
    logrotate
        .arg("--force")
        .arg("--state")
        .args([state, config]);
    logrotate.env("PATH", format!("{}:{path}", programs.display()));
    let output = logrotate.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Lines all the while and six rotations between them.
fn none_lost(text: impl Fn(&Folder) -> String) -> Daemon {
    const LINES: u64 = 6_000;
    let mut daemon = Daemon::start(COLLECT);
    let text = text(daemon.folder());
    let mut client = daemon.connect("log");
    for n in 1..=LINES {
        writeln!(client, "message number {n}").unwrap();
        if n % 1_000 == 0 {
            rotate(&daemon, &text);
        }
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    let expected: Vec<u64> = (1..=LINES).collect();
    let found = numbers(daemon.folder());
    assert!(found == expected, "{} lines of {LINES}", found.len());
    daemon
}

#[test]
fn the_shipped_rotation_loses_nothing() {
    if !has_program("logrotate") {
        return;
    }
    let daemon = none_lost(|folder| {
        let records = format!("{}/*.json", folder.path().display());
        let text = SHIPPED.replace("/var/log/udsd/*.json /var/log/udsd/*.log", &records);
        // The user is there where udsd is installed.
        text.replace("\tsu udsd udsd\n", "")
    });
    let record = fs::metadata(daemon.path("record.json")).unwrap();
    assert_eq!(record.permissions().mode() & 0o777, 0o640);
    assert!(daemon.path("record.json.2.gz").exists());
    assert!(!daemon.log().contains("removed"), "{}", daemon.log());
}

/// Nobody tells udsd of it, and the file is compressed and removed at once.
#[test]
fn a_rotation_of_others_that_removes_the_file_is_noticed_and_nothing_waits_for_it() {
    if !has_program("logrotate") {
        return;
    }
    let mut daemon = Daemon::start(COLLECT);
    let text = format!(
        "{} {{\n\trotate 8\n\tcompress\n\tcreate 0640\n\tpostrotate\n\t\texit 0\n\tendscript\n}}\n",
        daemon.path("record.json").display()
    );
    for n in 1..=6 {
        say(&daemon, "before");
        wait_for_line(&daemon, "before");
        rotate(&daemon, &text);
        probe(&daemon, n);
        say(&daemon, "after");
        wait_for_line(&daemon, "after");
        assert_eq!(daemon.log().matches("its file was removed").count(), n);
    }
    daemon.wait_log(&["WARN", "record.json", "SIGUSR1", "compress"]);
    assert!(daemon.stop().success());
    let lines = lines(daemon.folder());
    for message in ["before", "after"] {
        let found = lines.iter().filter(|line| line["message"] == message);
        assert_eq!(found.count(), 6, "{message}");
    }
}

/// Sends messages that may be lost, until it was said so often that the file was removed.
fn probe(daemon: &Daemon, times: usize) {
    let deadline = Instant::now() + HANG;
    while daemon.log().matches("its file was removed").count() < times {
        assert!(Instant::now() < deadline, "nothing is said");
        say(daemon, "probe");
    }
}

/// Waits until the file at the path ends with this message.
fn wait_for_line(daemon: &Daemon, message: &str) {
    let deadline = Instant::now() + HANG;
    let end = format!("\"message\":\"{message}\"}}\n");
    let path = daemon.path("record.json");
    while !fs::read_to_string(&path).is_ok_and(|text| text.ends_with(&end)) {
        assert!(Instant::now() < deadline, "no {message}: {}", daemon.log());
        std::thread::yield_now();
    }
}

#[test]
fn a_record_whose_file_was_removed_waits_for_one_that_can_be_opened() {
    let mut daemon = Setup::new().config(COLLECT).start();
    say(&daemon, "one");
    wait_for_line(&daemon, "one");
    fs::remove_file(daemon.path("record.json")).unwrap();
    symlink("elsewhere", daemon.path("record.json")).unwrap();
    // What went into the removed file does not count, and waits for the next.
    say(&daemon, "two");
    daemon.wait_log(&["ERROR", "record.json", "symbolic link", "senders wait"]);
    say(&daemon, "three");
    fs::remove_file(daemon.path("record.json")).unwrap();
    wait_for_line(&daemon, "three");
    daemon.wait_log(&["WARN", "its file was removed", "opened anew"]);
    assert!(daemon.stop().success());
    assert_eq!(numbers(daemon.folder()), [2, 3]);
    assert!(!daemon.path("elsewhere").exists());
}

#[test]
fn a_record_whose_file_was_moved_goes_on_there_and_says_so_once() {
    let mut daemon = Daemon::start(COLLECT);
    say(&daemon, "one");
    fs::rename(daemon.path("record.json"), daemon.path("record.json.1")).unwrap();
    let deadline = Instant::now() + HANG;
    let mut said = 1;
    while !daemon.log().contains("its file was moved away") {
        assert!(Instant::now() < deadline, "nothing is said");
        say(&daemon, "more");
        said += 1;
    }
    daemon.wait_log(&["WARN", "record.json", "SIGUSR1", "reload"]);
    for _ in 0..20 {
        say(&daemon, "more");
    }
    assert!(daemon.stop().success());
    assert!(!daemon.path("record.json").exists());
    assert_eq!(numbers(daemon.folder()).len(), said + 20);
    assert_eq!(daemon.log().matches("moved away").count(), 1);
}

/// The file is not looked at with each write, but soon after the last one.
#[test]
fn a_loss_is_told_where_no_line_comes_after_it() {
    let mut daemon = Daemon::start(COLLECT);
    for round in 0..5 {
        say(&daemon, "before");
        fs::remove_file(daemon.path("record.json")).unwrap();
        say(&daemon, "into nothing, or into a new file");
        let told = |said: &harness::Said| {
            let told = said.log.matches("its file was removed").count();
            (told > round).then_some(())
        };
        daemon.wait_for("word of the loss", told);
    }
    assert!(daemon.stop().success());
}
