//! Promise: with `on-full = "drop"` nobody who sends waits for the disk, and the record itself says where how much
//! is missing.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    path::Path,
    thread,
    time::Instant,
};

use harness::{
    Daemon, HANG, Setup, Signal,
    faults::{SMALL_DISK, can_mount, mounted},
    read_all,
};
use serde_json::Value;

/// The table of a record with these keys beside.
fn config(service: &str, keys: &str) -> String {
    format!(
        "[socket.log]\npath = \"{{dir}}/log\"\nservice = \"{service}\"\nframing = \"lines\"\nmessage-size = \"1KiB\"\n\
         [socket.log.record]\non-full = \"drop\"\nqueue-size = \"64KiB\"\n{keys}\n"
    )
}

/// Message number `n`.
fn message(n: usize) -> String {
    format!("{n} {}", "x".repeat(n % 100))
}

/// One client sends so many messages from number `first` on, and does not wait.
fn send(daemon: &Daemon, first: usize, count: usize) {
    let mut client = daemon.connect("log");
    for n in first..first + count {
        writeln!(client, "{}", message(n)).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
}

/// In `text` stand so many messages in their order, but for those of which gaps tell, to the message and the byte;
/// returns how many these are.
#[track_caller]
fn missing(text: &str, messages: usize) -> u64 {
    let (mut next, mut seq, mut missing) = (0, 0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(count) = line["gap"]["count"].as_u64() {
            let end = next + count as usize;
            let bytes: usize = (next..end).map(|n| message(n).len()).sum();
            assert_eq!(line["gap"]["bytes"], bytes, "{line}");
            assert_eq!(line["socket"], "log");
            (next, missing) = (end, missing + count);
        } else {
            seq += 1;
            assert_eq!(line["seq"], seq, "{line}");
            assert_eq!(line["message"], message(next), "{line}");
            next += 1;
        }
    }
    assert_eq!(next, messages);
    missing
}

/// The count in the daemon's last words of the socket.
fn counted(daemon: &Daemon) -> u64 {
    let log = daemon.log();
    let last = log
        .lines()
        .rfind(|line| line.contains(" unrecorded"))
        .unwrap();
    let (before, _) = last.split_once(" unrecorded").unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_output_that_nobody_reads_holds_up_nobody_and_tells_what_it_lacks() {
    const MESSAGES: usize = 5_000;
    for service in ["collect", "echo"] {
        let (mut reader, writer) = io::pipe().unwrap();
        let setup = Setup::new().config(&config(service, ""));
        let mut daemon = setup.stdout(writer).start();
        let mut client = daemon.connect("log");
        for n in 0..MESSAGES {
            writeln!(client, "{}", message(n)).unwrap();
            if service == "echo" {
                let length = message(n).len() + 1;
                assert_eq!(harness::read_n(&client, length).len(), length);
            }
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&client), b"");
        daemon.wait_log(&[
            "WARN",
            "log: dropped",
            "for the record: its queue is full",
            "socket.log.record.queue-size = 65536",
        ]);
        let reader = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        send(&daemon, MESSAGES, 1);
        assert!(daemon.stop().success());
        let text = reader.join().unwrap().unwrap();
        let missing = missing(&text, MESSAGES + 1);
        assert!(missing > 1_000, "{missing}");
        assert_eq!(counted(&daemon), missing);
    }
}

#[test]
fn text_tells_gaps_that_no_message_forges() {
    let (mut reader, writer) = io::pipe().unwrap();
    let setup = Setup::new().config(&config("collect", "format = \"text\""));
    let mut daemon = setup.stdout(writer).start();
    send(&daemon, 0, 5_000);
    daemon.wait_log(&["log: dropped", "for the record"]);
    let reader = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert!(daemon.stop().success());
    let text = reader.join().unwrap().unwrap();
    let gaps = text
        .lines()
        .filter_map(|line| line.split_once("Z log gap count=")?.1.split_once(" bytes="));
    let missing: u64 = gaps.map(|(count, _)| count.parse::<u64>().unwrap()).sum();
    let messages = text.lines().filter(|line| line.contains(" log[")).count() as u64;
    assert_eq!(messages + missing, 5_000);
    assert_eq!(counted(&daemon), missing);
}

#[test]
fn a_full_disk_holds_up_nobody_and_the_gap_is_told_to_the_message() {
    if !can_mount() {
        return harness::skip("no file system can be mounted");
    }
    let setup = Setup::new().config(&config(
        "collect",
        "file = \"{dir}/disk/record\"\nrotate-size = \"32KiB\"",
    ));
    let (mut daemon, disk) = mounted(setup, SMALL_DISK);
    let wait_for_end = |end: &str| {
        let deadline = Instant::now() + HANG;
        while !text_in(&disk).ends_with(end) {
            assert!(Instant::now() < deadline, "{end} is not written");
            thread::yield_now();
        }
    };
    let mut sent = 0;
    for round in 1..=3 {
        send(&daemon, sent, 20);
        fs::write(disk.join("filler"), vec![0; 1 << 20]).unwrap_err();
        send(&daemon, sent + 20, 3_000);
        sent += 3_020;
        daemon.wait_for("word of a full disk", |said| {
            let told = said.log.matches("No space left").count();
            (told == round).then_some(())
        });
        fs::remove_file(disk.join("filler")).unwrap();
        // The gap comes without another message.
        wait_for_end("}}\n");
    }
    send(&daemon, sent, 1);
    wait_for_end(&format!("\"message\":\"{}\"}}\n", message(sent)));
    let text = text_in(&disk);
    assert!(daemon.stop().success());
    let missing = missing(&text, sent + 1);
    assert!(missing > 0);
    assert_eq!(counted(&daemon), missing);
}

/// All lines of the record in this folder, as far as they can be read.
fn text_in(folder: &Path) -> String {
    let files = fs::read_dir(folder).unwrap().flatten();
    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
    files.retain(|path| path.to_str().unwrap().contains("/record"));
    files.sort();
    // The one without a number is the last.
    let any = files.len().min(1);
    files.rotate_left(any);
    let texts = files.iter().map(fs::read_to_string);
    texts.filter_map(Result::ok).collect()
}

/// What was dropped before there is a file is told as that, and stands as a gap in the file.
#[test]
fn a_record_that_is_not_open_holds_up_nobody_and_nothing_tells_of_waiting() {
    let text = "[socket.echo]\npath = \"{dir}/echo\"\n".to_owned()
        + &config("collect", "file = \"{dir}/missing/record\"");
    let mut daemon = Setup::new().config(&text).start();
    send(&daemon, 0, 20);
    daemon.wait_log(&["WARN", "log: dropped", "for the record: it is not open"]);
    daemon.wait_log(&["ERROR", "until that is mended", "dropped"]);
    daemon.wait_note("STATUS=record of log not open: 0 clients");
    assert!(!daemon.log().contains("its queue is full"));
    fs::create_dir(daemon.path("missing")).unwrap();
    daemon.signal(Signal::USR1);
    daemon.wait_log(&["INFO", "missing/record: opened"]);
    send(&daemon, 20, 1);
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("missing/record")).unwrap();
    let missing = missing(&text, 21);
    assert!(missing >= 20, "{missing}");
    assert_eq!(counted(&daemon), missing);
    assert!(!daemon.log().contains("its queue is full"));
}
