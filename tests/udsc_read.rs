//! Promise: `udsc read` gives each message of a record once and in order, across its segments and while it is
//! written, restarted and rotated; what it leaves out was not asked for, and damage and gaps are told.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Write},
    net::Shutdown,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use harness::{
    Daemon, Folder, Setup, read_all,
    udsc::{Ended, Udsc},
};
use serde_json::Value;

const FILE: &str = r#"
[socket.log]
path = "{dir}/log"
service = "collect"
framing = "lines"
record = { file = "{dir}/log.json" }

[socket.text]
path = "{dir}/text"
service = "collect"
framing = "lines"
record = { file = "{dir}/log.text", format = "text" }

[socket.journal]
path = "{dir}/journal"
service = "collect"
framing = "lines"

[socket.echo]
path = "{dir}/echo"
"#;

/// Sends messages as one client; returns when they are taken.
fn say(daemon: &Daemon, socket: &str, messages: &[&str]) {
    let mut client = daemon.connect(socket);
    client
        .write_all((messages.join("\n") + "\n").as_bytes())
        .unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}

/// A daemon that has recorded four messages, and ended.
fn recorded() -> Arc<Folder> {
    let folder = Folder::new();
    let mut daemon = Setup::within(folder.clone()).config(FILE).start();
    say(&daemon, "log", &["one", "two \u{1b}[2J"]);
    say(&daemon, "log", &["three"]);
    say(&daemon, "log", &["four"]);
    say(&daemon, "text", &["as text", "\u{1b}"]);
    daemon.stop();
    folder
}

/// udsc for the file in the folder.
fn udsc(folder: &Folder, line: &str) -> Udsc {
    let file = folder.join("udsd.toml");
    Udsc::start(&format!("--config {} {line}", file.display()))
}

fn read(folder: &Folder, line: &str) -> Ended {
    udsc(folder, &format!("read {line}")).end()
}

/// The messages that are printed as JSON.
fn messages(ended: &Ended) -> Vec<String> {
    let lines = ended.text().lines().map(serde_json::from_str::<Value>);
    let messages = lines.map(|line| line.unwrap()["message"].as_str().unwrap().to_owned());
    messages.collect()
}

#[test]
fn a_record_is_read_by_the_name_of_its_socket_or_its_path_also_without_a_daemon() {
    let folder = recorded();
    let ended = read(&folder, "log").code(0);
    let lines: Vec<&str> = ended.text().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[1].ends_with("  two \\u{1b}[2J"), "{}", lines[1]);
    let user = format!(" 4 {}[{}]  four", user_name(), std::process::id());
    assert!(lines[3].ends_with(&user), "{}", lines[3]);
    let as_they_are = fs::read(folder.join("log.json")).unwrap();
    read(&folder, "log --json").code(0).printed(&as_they_are);
    let path = folder.join("log.json").display().to_string();
    read(&folder, &format!("{path} --json"))
        .code(0)
        .printed(&as_they_are);
    let ended = read(&folder, &path).code(0);
    let of_socket = format!(" 1 log {}[", user_name());
    assert!(ended.text().lines().next().unwrap().contains(&of_socket));
    let as_they_are = fs::read(folder.join("log.text")).unwrap();
    read(&folder, "text").code(0).printed(as_they_are);
}

fn user_name() -> String {
    let output = std::process::Command::new("id").arg("-un").output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .into()
}

#[test]
fn only_what_is_asked_for_is_printed() {
    let folder = recorded();
    let uid = rustix::process::getuid().as_raw();
    let pid = std::process::id();
    for (options, expected) in [
        ("--from 3".to_owned(), &["three", "four"][..]),
        ("--last 1".into(), &["four"]),
        ("-n 2 --grep o".into(), &["two \u{1b}[2J", "four"]),
        ("--grep thr".into(), &["three"]),
        ("--grep Thr".into(), &[]),
        (format!("--user {uid} --pid {pid} -n 1"), &["four"]),
        (format!("--user {}", uid + 1), &[]),
        (format!("--pid {}", pid + 1), &[]),
        ("--unit nginx".into(), &[]),
        ("--until now -n1".into(), &["four"]),
        (
            "--since -1h".into(),
            &["one", "two \u{1b}[2J", "three", "four"],
        ),
        ("--since 2020-01-01 --until 2020-01-02".into(), &[]),
        ("--since +1h".into(), &[]),
        ("--until -1h".into(), &[]),
    ] {
        let ended = read(&folder, &format!("log --json {options}")).code(0);
        assert_eq!(messages(&ended), expected, "{options}");
    }
    // The second of a record of which the first lines are gone.
    let text = fs::read_to_string(folder.join("log.json")).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(folder.join("log.json"), rest).unwrap();
    let ended = read(&folder, "log --from 1").code(0);
    assert_eq!(
        ended.text().lines().next(),
        Some("... message 1 is missing")
    );
    let complaints = read(&folder, "log --from 1 --json").code(0).complaints();
    assert_eq!(complaints, ["udsc: message 1 is missing"]);
}

#[test]
fn a_shared_record_is_read_as_one_by_its_path_and_by_socket_by_name() {
    let folder = recorded();
    let path = folder.join("log.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen("\"socket\":\"log\"", "\"socket\":\"other\"", 2);
    fs::write(&path, text).unwrap();
    assert_eq!(messages(&read(&folder, "log --json")), ["three", "four"]);
    let all = read(&folder, &format!("{} --json", path.display()));
    assert_eq!(messages(&all).len(), 4);
}

#[test]
fn damage_is_told_and_counted_and_reading_goes_on() {
    let folder = recorded();
    let path = folder.join("log.json");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find('\n').unwrap() + 1;
    fs::write(&path, text[..at].to_owned() + "\0\n" + &text[at..] + "x\n").unwrap();
    let ended = read(&folder, "log --json").code(1);
    assert_eq!(messages(&ended), ["one", "two \u{1b}[2J", "three", "four"]);
    let place = |offset| {
        let path = path.display();
        format!("udsc: {path}, byte {offset}: no line of a JSON record of udsd")
    };
    let complaints = [
        place(at),
        place(text.len() + 2),
        "udsc: 2 lines are damaged".into(),
    ];
    assert_eq!(ended.complaints(), complaints);
}

#[test]
fn what_cannot_be_read_is_told_with_the_remedy() {
    let folder = recorded();
    let path = |name: &str| folder.join(name).display().to_string();
    let nothing = format!(
        "cannot read the record {}: entity not found",
        path("none.json")
    );
    read(&folder, &path("none.json"))
        .code(1)
        .complained(&nothing);
    read(&folder, "echo")
        .code(1)
        .complained("socket echo has no record");
    read(&folder, "journal").code(1).complained(
        "the record of socket journal goes to standard output: under systemd, journalctl -u udsd has it",
    );
    let complaints = read(&folder, "nobody").code(1).complaints();
    assert!(complaints[0].starts_with("udsc: no such socket nobody in "));
    for option in ["--from 1", "--since today", "--pid 1", "--json"] {
        let word = option.split(' ').next().unwrap();
        let text = format!(
            "{word} needs a record of format json, and {} is text",
            path("log.text")
        );
        read(&folder, &format!("text {option}"))
            .code(1)
            .complained(&text);
        let file = format!("{} {option}", path("log.text"));
        read(&folder, &file).code(1).complained(&text);
    }
    assert_eq!(read(&folder, "text -n1").code(0).text().lines().count(), 1);
    udsc(&folder, "-s log read log")
        .end()
        .code(1)
        .complained("this command reads a record, and talks to no socket: leave out --socket");
    for wrong in [
        "log --since soon",
        "log --from 1 --last 1",
        "log --from x",
        "",
    ] {
        read(&folder, wrong).code(2);
    }
}

#[test]
fn whoever_has_seen_enough_ends_it_with_success() {
    let folder = recorded();
    let path = folder.join("log.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.repeat(10_000)).unwrap();
    for options in ["--json", "--last 10 --follow"] {
        let mut udsc = udsc(&folder, &format!("read log {options}"));
        let mut line = String::new();
        let mut stdout = BufReader::new(udsc.child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        // Also where nothing more comes.
        drop(stdout);
        assert!(udsc.child_status().success(), "{options}");
    }
}

#[test]
fn a_reader_goes_on_over_a_restart() {
    let folder = recorded();
    let mut reader = udsc(&folder, "read log --json --last 1 --follow");
    let mut lines = BufReader::new(reader.child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        (line["seq"].as_u64().unwrap(), line["message"].clone())
    };
    assert_eq!(next(), (4, "four".into()));
    for seq in 5..8 {
        // As a crash in the middle of a line leaves it.
        let mut file = OpenOptions::new()
            .append(true)
            .open(folder.join("log.json"))
            .unwrap();
        file.write_all(b"{\"time\":\"2026").unwrap();
        let daemon = Setup::within(folder.clone()).config(FILE).start();
        say(&daemon, "log", &["again"]);
        assert_eq!(next(), (seq, "again".into()));
    }
}

/// As many messages as `UDSD_TEST_MESSAGES` says: a million at night.
fn many() -> u64 {
    env::var("UDSD_TEST_MESSAGES").map_or(100_000, |it| it.parse().unwrap())
}

#[test]
fn a_reader_follows_udsd_from_segment_to_segment() {
    let config = FILE.replace("log.json\" }", "log.json\", rotate-size = \"64KiB\" }");
    let folder = Folder::new();
    let daemon = Setup::within(folder.clone()).config(&config).start();
    let mut reader = udsc(&folder, "read log --json --follow");
    let messages = many();
    let writer = thread::spawn(move || {
        let mut daemon = daemon;
        for at in [0, 1] {
            let half = (1 + at * messages / 2)..=(messages / 2 * (1 + at));
            let text: Vec<String> = half.map(|n| format!("message {n}")).collect();
            let text: Vec<&str> = text.iter().map(String::as_str).collect();
            say(&daemon, "log", &text);
            daemon.stop();
            daemon = Setup::within(daemon.folder().clone())
                .config(&config)
                .start();
        }
        daemon
    });
    let mut lines = BufReader::new(reader.child.stdout.take().unwrap());
    let mut line = String::new();
    for seq in 1..=messages / 2 * 2 {
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"seq\":{seq},")), "{seq}: {line}");
        let end = format!("\"message\":\"message {seq}\"}}\n");
        assert!(line.ends_with(&end), "{seq}: {line}");
    }
    drop(writer.join().unwrap());
    assert!(fs::read_dir(folder.path()).unwrap().count() as u64 > messages / 1000);
}

/// Appends messages and begins a new file behind each 64 KiB, as udsd does.
fn write(path: &Path, messages: u64) {
    let open = || BufWriter::new(File::create_new(path).unwrap());
    let (mut file, mut first, mut size) = (open(), 1, 0);
    for seq in 1..=messages {
        let line = format!(
            "{{\"time\":\"2026-11-22T06:20:31.123456Z\",\"socket\":\"log\",\"seq\":{seq},\"client\":1,\"uid\":0,\"gid\":0,\"message\":\"message {seq}\"}}\n"
        );
        file.write_all(line.as_bytes()).unwrap();
        size += line.len();
        // Lines of one write need not end with it.
        if seq % 17 == 0 {
            file.flush().unwrap();
        }
        if size >= 64 * 1024 {
            file.flush().unwrap();
            fs::rename(path, segment(path, first)).unwrap();
            (file, first, size) = (open(), seq + 1, 0);
        }
    }
}

fn segment(path: &Path, first: u64) -> PathBuf {
    format!("{}.{first:020}", path.display()).into()
}

#[test]
fn beside_a_writer_at_full_speed_none_is_missing_and_none_comes_twice() {
    let messages = many();
    let folder = Folder::new();
    let path = folder.join("record.json");
    fs::write(segment(&path, 0), "").unwrap();
    let mut reader = Udsc::start(&format!("read {} --json --follow", path.display()));
    let writer = thread::spawn({
        let path = path.clone();
        move || write(&path, messages)
    });
    let mut lines = BufReader::new(reader.child.stdout.take().unwrap());
    let mut line = String::new();
    for seq in 1..=messages {
        line.clear();
        lines.read_line(&mut line).unwrap();
        let end = format!(
            "\"seq\":{seq},\"client\":1,\"uid\":0,\"gid\":0,\"message\":\"message {seq}\"}}\n"
        );
        assert!(line.ends_with(&end), "{seq}: {line}");
    }
    writer.join().unwrap();
    // From the middle, and the last, of all segments.
    let middle = messages / 2;
    let read =
        |options: &str| Udsc::start(&format!("read {} --json {options}", path.display())).end();
    let rest = read(&format!("--from {middle}")).code(0);
    assert_eq!(rest.text().lines().count() as u64, messages - middle + 1);
    let last = read("--last 2000").code(0);
    assert_eq!(last.text().lines().count(), 2000);
}
