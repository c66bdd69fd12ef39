//! Promise: sockets that name one record file write one record: one thread, one `seq` without gap or repeat, each
//! line with the name of its socket, over reloads and restarts too.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::BTreeMap, fs, io::Write, net::Shutdown, ops::Range, os::unix::net::UnixStream,
    thread, time::Instant,
};

use harness::{Daemon, HANG, Setup, read_all};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::Value;

/// A collecting socket, its record in this file.
fn socket(name: &str, file: &str, keys: &str) -> String {
    format!(
        "[socket.{name}]\npath = \"{{dir}}/{name}\"\nservice = \"collect\"\nframing = \"lines\"\n\
         [socket.{name}.record]\nfile = \"{{dir}}/{file}\"\n{keys}\n"
    )
}

/// Sockets with these numbers, which share a record.
fn sharing(numbers: Range<usize>) -> String {
    let all = numbers.map(|n| socket(&format!("s{n}"), "record", ""));
    all.collect()
}

/// One message to each of these sockets; returns when all are taken.
fn send(daemon: &Daemon, sockets: impl Iterator<Item = String>, message: &str) {
    let clients = sockets.map(|name| {
        let mut client = daemon.connect(&name);
        writeln!(client, "{message} to {name}").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let clients: Vec<UnixStream> = clients.collect();
    clients.iter().for_each(|client| drop(read_all(client)));
}

fn names(numbers: Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("s{n}"))
}

/// The lines of a record, whose numbers go on from 1; each has the name of its socket. Returns the messages of each.
#[track_caller]
fn messages(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["seq"], i + 1, "{line}");
        let (socket, message) = (&line["socket"], line["message"].as_str().unwrap());
        let (message, to) = message.rsplit_once(" to ").unwrap();
        assert_eq!(socket, to, "{line}");
        found.entry(to.into()).or_default().push(message.into());
    }
    found
}

fn threads(daemon: &Daemon) -> usize {
    let pid = daemon.pid().as_raw_nonzero();
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

#[test]
fn two_hundred_sockets_write_one_record_over_reloads_and_restarts() {
    let one = Daemon::start(&sharing(0..1));
    let few = threads(&one);
    drop(one);
    let mut daemon = Setup::new().keeping().config(&sharing(0..200)).start();
    assert_eq!(threads(&daemon), few, "one thread for the record");
    send(&daemon, names(0..200), "first");
    // The one that came first is no more, and others have come.
    daemon.reload_with(&sharing(1..201));
    send(&daemon, names(1..201), "after a reload");
    let mut clients: Vec<UnixStream> = names(1..201).map(|name| daemon.connect(&name)).collect();
    for (client, name) in clients.iter_mut().zip(names(1..201)) {
        writeln!(client, "before a restart to {name}").unwrap();
        write!(client, "half ").unwrap();
    }
    // In another order.
    let reversed: String = (1..201).rev().map(|n| sharing(n..n + 1)).collect();
    daemon = daemon.restart(|setup| setup.config(&reversed));
    assert_eq!(threads(&daemon), few);
    for (client, name) in clients.iter_mut().zip(names(1..201)) {
        writeln!(client, "a message to {name}").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_all(client);
    }
    send(&daemon, names(1..201), "last");
    let record = daemon.path("record");
    assert!(daemon.stop().success());
    let found = messages(&fs::read_to_string(record).unwrap());
    for name in names(1..200) {
        let all = [
            "first",
            "after a reload",
            "before a restart",
            "half a message",
            "last",
        ];
        assert_eq!(found[&name], all, "{name}");
    }
    assert_eq!(found["s0"], ["first"]);
    assert_eq!(found.len(), 201);
}

#[test]
fn a_socket_leaves_a_shared_record_and_comes_back() {
    let mut daemon = Daemon::start(&sharing(0..2));
    let both = || ["s0", "s1"].map(String::from).into_iter();
    send(&daemon, both(), "shared");
    // The first leaves, and the file stays with the second.
    daemon.reload_with(&format!("{}{}", socket("s0", "own", ""), sharing(1..2)));
    send(&daemon, both(), "apart");
    daemon.reload_with(&sharing(0..2));
    send(&daemon, both(), "again");
    // All of it moves.
    daemon.reload_with(&format!(
        "{}{}",
        socket("s0", "other", ""),
        socket("s1", "other", "")
    ));
    send(&daemon, both(), "moved");
    let paths = ["record", "own", "other"].map(|file| daemon.path(file));
    assert!(daemon.stop().success());
    let [record, own, other] = paths.map(|path| fs::read_to_string(path).unwrap());
    let found = messages(&record);
    assert_eq!(found["s0"], ["shared", "again"]);
    assert_eq!(found["s1"], ["shared", "apart", "again"]);
    assert_eq!(messages(&own)["s0"], ["apart"]);
    let seqs = |text: &str| {
        let all = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["seq"].as_u64().unwrap()
        });
        all.collect::<Vec<u64>>()
    };
    // They never go back.
    assert_eq!(seqs(&other), [6, 7]);
}

#[test]
fn lines_that_wait_go_over_once_and_gaps_name_the_socket_that_lacks_them() {
    let keys = "on-full = \"drop\"\nqueue-size = \"128KiB\"";
    let both: String = ["s0", "s1"]
        .map(|name| socket(name, "record", keys))
        .concat();
    let both = both.replace("\"lines\"", "\"lines\"\nmessage-size = \"1KiB\"");
    let mut daemon = Setup::new().keeping().config(&both).start();
    send(&daemon, ["s0".to_owned()].into_iter(), "first");
    // The disk is full.
    let room = |current| {
        let maximum = None;
        prlimit(
            Some(daemon.pid()),
            Resource::Fsize,
            Rlimit { current, maximum },
        )
        .unwrap();
    };
    room(Some(1000));
    let long = "x".repeat(800);
    for _ in 0..500 {
        send(&daemon, ["s1".to_owned()].into_iter(), &long);
    }
    // What is handed over is a file too.
    room(None);
    daemon = daemon.restart(|setup| setup.config(&both));
    let record = daemon.path("record");
    // Else the queue may be full still.
    let begun = Instant::now();
    while !fs::read_to_string(&record).unwrap().contains("\"gap\"") {
        assert!(begun.elapsed() < HANG, "the gap is not told");
        thread::yield_now();
    }
    send(&daemon, ["s0".to_owned()].into_iter(), "last");
    assert!(daemon.stop().success());
    let (mut seq, mut told, mut sockets) = (0, 0, String::new());
    for line in fs::read_to_string(record).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(count) = line["gap"]["count"].as_u64() {
            assert_eq!(line["socket"], "s1", "{line}");
            told += count;
            continue;
        }
        seq += 1;
        assert_eq!(line["seq"], seq, "{line}");
        sockets += line["socket"].as_str().unwrap();
    }
    assert!(told > 0);
    assert_eq!(told + seq, 502, "each message is there or told");
    assert!(sockets.starts_with("s0s1"), "{sockets}");
    assert!(sockets.ends_with("s1s0"), "{sockets}");
}
