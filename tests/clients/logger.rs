//! logger(1) of util-linux in all its modes: on a datagram socket, on a stream, and on whichever it
//! finds. `-s` makes it say what it sends.

use std::{os::unix::process::CommandExt, process::Command};

use serde_json::Value;

use crate::{
    harness::{Daemon, Setup, has_program, is_root},
    messages, open_to_all, records, run, socket,
};

/// A datagram socket `d` and a stream `s`.
fn setup() -> Setup {
    let setup = Setup::new();
    open_to_all(setup.folder());
    let keys = "service = \"collect\"\nframing = \"syslog\"";
    let datagram = socket("d", &format!("type = \"datagram\"\n{keys}"));
    setup.config(&(datagram + &socket("s", keys)))
}

fn logger(daemon: &Daemon, name: &str, arguments: &[&str]) -> Command {
    let mut logger = Command::new("logger");
    logger
        .args(["-s", "--socket-errors=on", "-u"])
        .arg(daemon.path(name))
        .args(arguments);
    logger
}

/// What logger says that it sent: the bytes of each message.
fn sent(stderr: &str, octets: bool) -> Vec<String> {
    let lines = stderr.lines().filter(|line| !line.is_empty());
    let message = |line: &str| {
        if !octets {
            return line.to_owned();
        }
        let (count, message) = line.split_once(' ').unwrap();
        assert_eq!(count.parse(), Ok(message.len()), "{line}");
        message.to_owned()
    };
    lines.map(message).collect()
}

/// Runs logger in this mode on both sockets and compares the records with what it says; returns the
/// messages, those of all its runs one behind the other.
fn log(mode: &[&str], input: &str) -> Vec<String> {
    let daemon = setup().start();
    let mut found = Vec::new();
    let ways: [(&str, &[&str]); 5] = [
        // It tries datagrams, then a stream.
        ("d", &[]),
        ("d", &["-d"]),
        ("s", &[]),
        ("s", &["-T"]),
        ("s", &["-T", "--octet-count"]),
    ];
    for (name, way) in ways {
        let arguments = [way, mode].concat();
        let ended = run(&mut logger(&daemon, name, &arguments), input.as_bytes());
        let sent = sent(&ended.stderr, way.contains(&"--octet-count"));
        assert!(!sent.is_empty());
        let first = found.len();
        let records = records(&daemon, first + sent.len()).split_off(first);
        assert_eq!(messages(&records), sent, "{arguments:?}");
        for record in &records {
            assert_eq!(record["socket"], name);
            from(record, ended.pid);
        }
        found.extend(sent);
    }
    found
}

/// A whole record from this process of our user.
fn from(record: &Value, pid: u32) {
    assert_eq!(record["pid"], pid, "{record}");
    assert_eq!(record["uid"], rustix::process::getuid().as_raw());
    assert_eq!(record["gid"], rustix::process::getgid().as_raw());
    assert!(record["truncated"].is_null(), "{record}");
}

/// One message for each way, each with this start and end.
fn each(found: &[String], start: &str, end: &str) {
    assert_eq!(found.len(), 5, "{found:?}");
    for message in found {
        assert!(message.starts_with(start), "{message}");
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn a_message_of_its_arguments() {
    if !has_program("logger") {
        return;
    }
    each(
        &log(&["-t", "app", "a", "message"], ""),
        "<13>",
        " app: a message",
    );
}

#[test]
fn a_message_of_a_priority_and_with_its_pid() {
    if !has_program("logger") {
        return;
    }
    let found = log(&["-i", "-p", "local0.err", "-t", "app", "--", "-x-"], "");
    each(&found, "<131>", "]: -x-");
    assert!(found.iter().all(|message| message.contains(" app[")));
}

#[test]
fn a_message_of_the_old_protocol() {
    if !has_program("logger") {
        return;
    }
    let found = log(&["--rfc3164", "-t", "app", "Grüße, 世界"], "");
    each(&found, "<13>", " app: Grüße, 世界");
}

#[test]
fn a_message_of_the_new_protocol() {
    if !has_program("logger") {
        return;
    }
    let new = ["--rfc5424", "-t", "app", "--msgid", "id", "--sd-id", "x@1"];
    let more = ["--sd-param", "a=\"b\"", "--", "text"];
    each(
        &log(&[&new[..], &more].concat(), ""),
        "<13>1 ",
        "[x@1 a=\"b\"] text",
    );
    let short = ["--rfc5424=notq,nohost,notime", "-t", "app", "text"];
    each(&log(&short, ""), "<13>1 - - app - - - text", "");
}

#[test]
fn a_message_for_every_line_it_reads() {
    if !has_program("logger") {
        return;
    }
    let found = log(&["-t", "app"], "one\n\n two \nthe last has no end");
    assert_eq!(found.len(), 20, "{found:?}");
    for lines in found.chunks(4) {
        let ends = [
            " app: one",
            " app: ",
            " app:  two ",
            " app: the last has no end",
        ];
        for (line, end) in lines.iter().zip(ends) {
            assert!(line.ends_with(end), "{lines:?}");
        }
    }
    let found = log(&["--prio-prefix", "-e"], "<11>high\n\n<14>low\n");
    assert_eq!(found.len(), 10, "{found:?}");
    for lines in found.chunks(2) {
        assert!(lines[0].starts_with("<11>") && lines[0].ends_with(" high"));
        assert!(lines[1].starts_with("<14>") && lines[1].ends_with(" low"));
    }
}

#[test]
fn a_long_message_is_parted_by_logger_or_whole_as_its_size_says() {
    if !has_program("logger") {
        return;
    }
    let long = "long ".repeat(4_000);
    let found = log(&["-t", "app", "--size", "20KiB"], &format!("{long}\n"));
    each(&found, "<13>", &format!(" app: {long}"));
    let found = log(&["-t", "app", "--rfc3164"], &format!("{long}\n"));
    assert_eq!(found.len(), 5 * 20, "{}", found.len());
}

#[test]
fn a_message_longer_than_allowed_is_cut_and_marked() {
    if !has_program("logger") {
        return;
    }
    let keys = "service = \"collect\"\nframing = \"syslog\"\nmessage-size = \"1000\"";
    let datagram = socket("d", &format!("type = \"datagram\"\n{keys}"));
    let daemon = Daemon::start(&(datagram + &socket("s", keys)));
    let long = "long ".repeat(400);
    let mut expected = Vec::new();
    let ways: [(&str, &[&str]); 3] = [
        ("d", &["-d"]),
        ("s", &["-T"]),
        ("s", &["-T", "--octet-count"]),
    ];
    for (name, way) in ways {
        let arguments = [way, &["--size", "4KiB", "-t", "app", &long, "the end"]].concat();
        let ended = run(&mut logger(&daemon, name, &arguments), b"");
        expected.extend(sent(&ended.stderr, way.contains(&"--octet-count")));
        run(&mut logger(&daemon, name, &["short"]), b"");
        expected.push(String::new());
    }
    let records = records(&daemon, expected.len());
    assert_eq!(records.len(), 6);
    for (record, whole) in records.iter().zip(expected) {
        let message = record["message"].as_str().unwrap();
        if whole.is_empty() {
            assert!(message.ends_with(": short") && record["truncated"].is_null());
        } else {
            assert!(whole.len() > 2_000);
            assert_eq!(message, &whole[..1000]);
            assert_eq!(record["truncated"], true);
        }
    }
}

#[test]
fn a_pid_that_it_claims_is_not_that_of_the_record() {
    if !has_program("logger") {
        return;
    }
    // As root it claims the pid before the kernel too. On streams only who connected counts.
    let daemon = setup().start();
    let mut logger = logger(&daemon, "s", &["--id=1", "-t", "app", "claim"]);
    let ended = run(&mut logger, b"");
    let records = records(&daemon, 1);
    assert!(messages(&records)[0].ends_with(" app[1]: claim"));
    from(&records[0], ended.pid);
}

#[test]
fn another_user_has_nothing_to_claim() {
    if !is_root() || !has_program("logger") {
        return;
    }
    let daemon = setup().start();
    for (i, name) in ["d", "s"].into_iter().enumerate() {
        let mut logger = logger(&daemon, name, &["--id=1", "-t", "app", "claim"]);
        let ended = run(logger.uid(7001).gid(7002), b"");
        let record = &records(&daemon, i + 1)[i];
        let message = record["message"].as_str().unwrap();
        assert!(message.ends_with(" app[1]: claim"), "{record}");
        assert_eq!(record["pid"], ended.pid);
        assert_eq!(
            (&record["uid"], &record["gid"]),
            (&7001.into(), &7002.into())
        );
    }
}
