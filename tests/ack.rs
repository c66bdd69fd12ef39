//! Promise: where `ack` is set, `ok N` says that the first N messages of a client are stored, never early, and with
//! `sync` that the disk has them; a restart keeps what is owed, and a kill what was acknowledged.
//!
//! `UDSD_TEST_KILLS=300 cargo test --release --test ack` kills so often.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use harness::{
    Daemon, Folder, Random, Setup, Signal,
    faults::{Disk, files_in},
    packets::Packets,
    read_all, read_n, skip, write_until_full,
};
use serde_json::Value;

fn collect(keys: &str, record_keys: &str) -> String {
    format!(
        "[socket.c]\npath = \"{{dir}}/c\"\nservice = \"collect\"\nack = true\n{keys}\n[socket.c.record]\nfile = \"{{dir}}/record\"\n{record_keys}\n"
    )
}

fn lines(record_keys: &str) -> String {
    collect("framing = \"lines\"", record_keys)
}

/// The messages that the record has, with their numbers.
fn recorded(path: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let message = line["message"].as_str().unwrap().to_owned();
        (line["seq"].as_u64().unwrap(), message)
    });
    lines.collect()
}

#[test]
fn each_message_is_acknowledged_under_every_framing_that_can() {
    for (framing, sent, answers) in [
        ("lines", &b"one\ntwo\n"[..], &b"ok 2\n"[..]),
        ("nul", b"one\0two\0", b"ok 2\0"),
        ("syslog", b"<1>one\n<2>two\n", b"ok 2\n"),
        (
            "length-prefixed",
            b"\0\0\0\x03one\0\0\0\x03two",
            b"\0\0\0\x04ok 2",
        ),
    ] {
        for record in ["", "sync = true"] {
            let daemon = Daemon::start(&collect(&format!("framing = \"{framing}\""), record));
            let client = daemon.connect("c");
            (&client).write_all(sent).unwrap();
            assert_eq!(read_n(&client, answers.len()), answers, "{framing}");
            assert_eq!(recorded(&daemon.path("record")).len(), 2);
        }
    }
    let daemon = Daemon::start(&collect("type = \"seqpacket\"", "sync = true"));
    let packets = Packets::connect(&daemon.path("c"));
    for n in 1..=3 {
        packets.send(b"a packet");
        assert_eq!(packets.receive(), Some(format!("ok {n}").into_bytes()));
    }
}

#[test]
fn who_ends_its_sending_gets_the_last_answer_first() {
    let daemon = Daemon::start(&lines("sync = true"));
    let client = daemon.connect("c");
    (&client).write_all(b"one\ntwo\nunfinished").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let said = String::from_utf8(read_all(&client)).unwrap();
    assert!(said.ends_with("ok 3\n"), "{said:?}");
    // What is longer than message-size is stored in part, and counts.
    let long = daemon.connect("c");
    (&long).write_all(&[b'x'; 100_000]).unwrap();
    (&long).write_all(b"\n").unwrap();
    assert_eq!(read_n(&long, 5), b"ok 1\n");
}

#[test]
fn who_reads_no_answers_costs_a_number() {
    let daemon = Daemon::start(&lines(""));
    let client = daemon.connect("c");
    let sent = write_until_full(&client, &b"a line\n".repeat(1_000_000), 0);
    client.set_nonblocking(false).unwrap();
    let other = daemon.connect("c");
    (&other).write_all(b"served\n").unwrap();
    assert_eq!(read_n(&other, 5), b"ok 1\n");
    assert!(daemon.memory() < 40 << 20, "{}", daemon.memory());
    client.shutdown(Shutdown::Write).unwrap();
    let said = String::from_utf8(read_all(&client)).unwrap();
    let counts: Vec<u64> = said
        .lines()
        .map(|line| line.strip_prefix("ok ").unwrap().parse().unwrap())
        .collect();
    assert!(counts.is_sorted_by(|a, b| a < b));
    // A line that was cut counts as one.
    assert_eq!(*counts.last().unwrap(), sent.div_ceil(7) as u64);
}

#[test]
fn owed_answers_survive_restarts() {
    let config = lines("sync = true");
    let mut daemon = Setup::new().keeping().config(&config).start();
    let clients: Vec<UnixStream> = (0..8).map(|_| daemon.connect("c")).collect();
    for round in 1..=5_u64 {
        for client in &clients {
            let mut client: &UnixStream = client;
            client
                .write_all(format!("{round}\n").repeat(10).as_bytes())
                .unwrap();
        }
        daemon = daemon.restart(|setup| setup.config(&config));
        for client in &clients {
            let mut said = String::new();
            while !said.ends_with(&format!("ok {}\n", 10 * round)) {
                said += str::from_utf8(&read_n(client, 1)).unwrap();
            }
        }
    }
    let seqs: Vec<u64> = recorded(&daemon.path("record"))
        .iter()
        .map(|of| of.0)
        .collect();
    assert!(seqs == (1..=400).collect::<Vec<u64>>());
}

#[test]
fn nobody_is_told_while_the_disk_is_full() {
    // A file may grow no further than this: as on a full disk.
    let setup = Setup::new().wrapper(&["prlimit", "--fsize=4096"]);
    let daemon = setup.config(&lines("sync = true")).start();
    let client = daemon.connect("c");
    (&client)
        .write_all(&b"a line of some length\n".repeat(100))
        .unwrap();
    daemon.wait_log(&["WARN", "trying again every second"]);
    let (reader, mut said) = (client.try_clone().unwrap(), String::new());
    reader
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let _ = BufReader::new(reader).read_line(&mut said);
    let told: usize = said
        .trim_end()
        .strip_prefix("ok ")
        .map_or(0, |n| n.parse().unwrap());
    let text = fs::read_to_string(daemon.path("record")).unwrap();
    let whole = text.matches('\n').count();
    assert!(told <= whole && whole < 100, "ok {told}, {whole} lines");
}

/// One client that sends until it is told to end; returns how much was acknowledged.
fn talk(mut client: &UnixStream, name: usize, ended: &AtomicBool) -> u64 {
    client
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut answers = BufReader::new(client.try_clone().unwrap());
    let (mut sent, mut acknowledged) = (0, 0);
    let mut random = Random::new(name as u64 + 1);
    let mut line = String::new();
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..random.below(20) {
            if client
                .write_all(format!("{name}.{sent}\n").as_bytes())
                .is_err()
            {
                break;
            }
            sent += 1;
        }
        while answers.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            acknowledged = line[3..].trim_end().parse().unwrap();
            line.clear();
            if acknowledged as usize >= sent {
                break;
            }
        }
    }
    // What is on its way was sent by the daemon.
    while answers.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
        acknowledged = line[3..].trim_end().parse().unwrap();
        line.clear();
    }
    acknowledged
}

/// All messages of a record and its segments, in order.
fn all_recorded(folder: &Folder) -> Vec<(u64, String)> {
    let mut files = files_in(folder.path(), "record.");
    files.push(folder.join("record"));
    let all = files.iter().filter(|path| path.exists());
    all.flat_map(|path| recorded(path)).collect()
}

/// Has 8 clients talk at a time, `rounds` times, until the daemon is killed; `loses_power`: what was not synced is then
/// lost. What was acknowledged is there once, and in order.
fn kill_in_mid_talk(rounds: usize, loses_power: bool) {
    let config = lines("sync = true\nrotate-size = \"64KiB\"");
    let first = Setup::new();
    let folder = Arc::clone(first.folder());
    let Some(disk) = Disk::new(&folder) else {
        return skip("no C compiler");
    };
    let start = |setup: Setup| match loses_power {
        true => disk.of(setup.config(&config)).start(),
        false => setup.config(&config).start(),
    };
    let mut daemon = start(first);
    let mut random = Random::new(20_261_129);
    let mut due: Vec<(usize, u64)> = Vec::new();
    for round in 0..rounds {
        let ended = AtomicBool::new(false);
        let clients: Vec<UnixStream> = (0..8).map(|_| daemon.connect("c")).collect();
        let talked: Vec<(usize, u64)> = thread::scope(|scope| {
            let talk = |(n, client): (usize, UnixStream)| {
                let (ended, name) = (&ended, round * 8 + n);
                scope.spawn(move || (name, talk(&client, name, ended)))
            };
            let talkers: Vec<_> = clients.into_iter().enumerate().map(talk).collect();
            // When it is killed is to be random: nothing is waited for.
            thread::sleep(Duration::from_millis(random.below(60) as u64));
            daemon.kill();
            ended.store(true, Ordering::Relaxed);
            let ends = talkers.into_iter().map(|talker| talker.join().unwrap());
            ends.collect()
        });
        due.extend(talked);
        if loses_power {
            disk.lose_power(folder.path(), "record");
        }
        daemon = start(Setup::within(Arc::clone(&folder)));
    }
    assert!(daemon.stop().success());
    let all = all_recorded(&folder);
    for pair in all.windows(2) {
        assert_eq!(pair[0].0 + 1, pair[1].0, "a gap or a repeat");
    }
    let mut stored: HashMap<usize, u64> = HashMap::new();
    for (_, message) in &all {
        let (name, number) = message.split_once('.').unwrap();
        let next = stored.entry(name.parse().unwrap()).or_default();
        assert_eq!(number.parse::<u64>().unwrap(), *next, "of client {name}");
        *next += 1;
    }
    for (name, acknowledged) in &due {
        let stored = stored.get(name).copied().unwrap_or(0);
        assert!(
            stored >= *acknowledged,
            "client {name}: {stored} of {acknowledged} are there"
        );
    }
    assert!(due.iter().any(|of| of.1 > 0), "nothing was acknowledged");
}

fn rounds() -> usize {
    env::var("UDSD_TEST_KILLS").map_or(12, |rounds| rounds.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    kill_in_mid_talk(rounds(), false);
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power() {
    kill_in_mid_talk(rounds(), true);
}

/// A daemon with `sync` on a disk that can fail.
fn on_a_disk() -> Option<(Disk, Daemon)> {
    on_a_disk_with("sync = true")
}

/// The same with these keys of its record.
fn on_a_disk_with(record_keys: &str) -> Option<(Disk, Daemon)> {
    let setup = Setup::new();
    let disk = Disk::new(setup.folder())?;
    let daemon = disk.of(setup.config(&lines(record_keys))).start();
    Some((disk, daemon))
}

fn messages(path: &Path) -> Vec<String> {
    recorded(path).into_iter().map(|of| of.1).collect()
}

#[test]
fn what_the_disk_refuses_is_written_anew_and_told_once() {
    let Some((disk, daemon)) = on_a_disk() else {
        return skip("no C compiler");
    };
    let client = daemon.connect("c");
    (&client).write_all(b"first\n").unwrap();
    assert_eq!(read_n(&client, 5), b"ok 1\n");
    let mut follows = Command::new(env!("CARGO_BIN_EXE_udsc"))
        .args([
            "read",
            daemon.path("record").to_str().unwrap(),
            "--follow",
            "--json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    disk.begin("sync-fails");
    (&client).write_all(b"second\nthird\n").unwrap();
    daemon.wait_log(&[
        "WARN",
        "the disk does not take it",
        "written anew every second",
    ]);
    let other = daemon.connect("c");
    (&other).write_all(b"fourth\n").unwrap();
    while disk.refusals() < 3 {
        thread::yield_now();
    }
    assert!(disk.refusals() < 10, "it spins");
    disk.end("sync-fails");
    assert_eq!(read_n(&client, 5), b"ok 3\n");
    assert_eq!(read_n(&other, 5), b"ok 1\n");
    daemon.wait_log(&["INFO", "writing again"]);
    assert_eq!(daemon.log().matches("the disk does not take it").count(), 1);
    let all = ["first", "second", "third", "fourth"];
    assert_eq!(messages(&daemon.path("record")), all);
    // Whoever follows the record is given each once, whatever was cut off meanwhile.
    let said = BufReader::new(follows.stdout.take().unwrap()).lines();
    let followed: Vec<String> = said.take(4).map(|line| line.unwrap()).collect();
    follows.kill().unwrap();
    follows.wait().unwrap();
    let message = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(followed.iter().map(message).collect::<Vec<_>>(), all);
}

#[test]
fn nobody_is_told_of_what_went_into_a_file_that_was_removed() {
    for (record_keys, fault) in [("sync = true", "sync-waits"), ("", "write-waits")] {
        let Some((disk, daemon)) = on_a_disk_with(record_keys) else {
            return skip("no C compiler");
        };
        let client = daemon.connect("c");
        disk.begin(fault);
        (&client).write_all(b"one\n").unwrap();
        // The thread is at it.
        while recorded(&daemon.path("record")).is_empty() {
            thread::yield_now();
        }
        fs::remove_file(daemon.path("record")).unwrap();
        disk.end(fault);
        assert_eq!(read_n(&client, 5), b"ok 1\n");
        assert_eq!(messages(&daemon.path("record")), ["one"], "{fault}");
        daemon.wait_log(&["WARN", "its file was removed"]);
        assert!(!daemon.log().contains("the disk does not take it"));
    }
}

#[test]
fn what_the_disk_refuses_of_a_file_that_is_moved_stands_in_the_next_alone() {
    let Some((disk, daemon)) = on_a_disk() else {
        return skip("no C compiler");
    };
    let client = daemon.connect("c");
    (&client).write_all(b"one\n").unwrap();
    assert_eq!(read_n(&client, 5), b"ok 1\n");
    disk.begin("sync-fails");
    (&client).write_all(b"two\n").unwrap();
    daemon.wait_log(&["WARN", "the disk does not take it"]);
    fs::rename(daemon.path("record"), daemon.path("moved")).unwrap();
    daemon.signal(Signal::USR1);
    daemon.wait_log(&["INFO", "opened anew"]);
    disk.end("sync-fails");
    assert_eq!(read_n(&client, 5), b"ok 2\n");
    assert_eq!(messages(&daemon.path("moved")), ["one"]);
    assert_eq!(messages(&daemon.path("record")), ["two"]);
}

/// What is told counts from the first message of a client: one that came before `ack` would be told of what nobody
/// promised it.
#[test]
fn who_is_here_when_ack_changes_gets_what_is_owed_and_comes_again() {
    let Some((disk, daemon)) = on_a_disk() else {
        return skip("no C compiler");
    };
    let acks = lines("sync = true");
    let silent = acks.replace("ack = true", "ack = false");
    let client = daemon.connect("c");
    disk.begin("sync-waits");
    (&client).write_all(b"one\n").unwrap();
    daemon.wait_idle();
    daemon.reload_with(&silent);
    let other = daemon.connect("c");
    (&other).write_all(b"two\n").unwrap();
    disk.end("sync-waits");
    assert_eq!(read_all(&client), b"ok 1\n");
    daemon.reload_with(&acks);
    assert_eq!(read_all(&other), b"");
    let last = daemon.connect("c");
    (&last).write_all(b"three\n").unwrap();
    assert_eq!(read_n(&last, 5), b"ok 1\n");
    daemon.wait_log(&["INFO", "c: 1 clients get what they are owed", "ack"]);
    assert_eq!(messages(&daemon.path("record")), ["one", "two", "three"]);
}

#[test]
fn answers_that_come_together_are_one() {
    let Some((disk, daemon)) = on_a_disk() else {
        return skip("no C compiler");
    };
    let client = daemon.connect("c");
    disk.begin("sync-waits");
    for n in 0..200 {
        (&client).write_all(format!("{n}\n").as_bytes()).unwrap();
        daemon.wait_idle();
    }
    disk.end("sync-waits");
    let mut said = String::new();
    while !said.ends_with("ok 200\n") {
        said += str::from_utf8(&read_n(&client, 1)).unwrap();
    }
    // One for what the first fdatasync had, and one for the rest.
    assert!(said.lines().count() <= 3, "{said}");
}
