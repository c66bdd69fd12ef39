//! The real `udsc bench`, against the real daemon and against small servers in this process that do wrong: every
//! message is accounted for, and only where all came as they were sent is the exit code 0.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    io::{Read, Write},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use harness::{
    Folder,
    udsc::{Ended, Udsc, User},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A socket called `name` with these keys, which anyone may use.
fn socket(name: &str, keys: &str) -> String {
    format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\nmode = \"0666\"\n{keys}\n")
}

/// What udsc printed under `--json`.
fn report(ended: &Ended) -> Value {
    let text = ended.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap()
}

/// So many messages were to come, all came, and the histogram has each once.
#[track_caller]
fn assert_whole(report: &Value, receivers: u64) {
    let sent = number(report, "sent");
    assert!(sent > 0, "{report}");
    assert_eq!(sent, number(report, "messages") * receivers, "{report}");
    assert_eq!(number(report, "received"), sent, "{report}");
    for key in ["lost", "late", "wrong"] {
        assert_eq!(number(report, key), 0, "{report}");
    }
    assert_eq!(report["error"], Value::Null);
    let steps = report["histogram"].as_array().unwrap().iter();
    let drawn: u64 = steps.map(|step| number(step, "messages")).sum();
    let times = &report["latency_ns"];
    if times.is_null() {
        assert_eq!(drawn, 0, "{report}");
    } else {
        assert_eq!(drawn, sent, "{report}");
        let order = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|key| number(times, key));
        assert!(order.is_sorted(), "{report}");
    }
}

#[test]
fn an_echo_of_every_framing_and_type_has_all_messages_back() {
    let kinds = [
        "framing = \"none\"",
        "framing = \"lines\"",
        "framing = \"nul\"",
        "framing = \"length-prefixed\"",
        "framing = \"fixed:100\"",
        "framing = \"cstring:100\"",
        "framing = \"syslog\"",
        "type = \"seqpacket\"",
        "type = \"datagram\"",
    ];
    let name = |i: usize| format!("s{i}");
    let sockets = kinds.iter().enumerate();
    let text: String = sockets.map(|(i, keys)| socket(&name(i), keys)).collect();
    let user = User::new(&text);
    let _daemon = user.daemon();
    for (i, keys) in kinds.iter().enumerate() {
        let line = format!("-s {} bench --json -d 50ms -c 3 -P 4", name(i));
        let ended = user.udsc(&line).given(b"").code(0);
        let report = report(&ended);
        assert_whole(&report, 1);
        let size = if keys.contains("fixed:") { 100 } else { 64 };
        assert_eq!(number(&report, "size"), size, "{keys}");
        assert_eq!(report["service"], "echo");
        let framing = keys
            .strip_prefix("framing = \"")
            .map(|rest| rest.trim_end_matches('"'));
        assert_eq!(report["framing"].as_str(), framing, "as udsd.toml has it");
    }
}

/// None of it fits into what the kernel holds.
#[test]
fn long_messages_and_many_under_way_wait_for_nothing() {
    let user = User::new(
        &[
            socket(
                "stream",
                "framing = \"length-prefixed\"\nmessage-size = \"1MiB\"\nqueue-size = \"4MiB\"",
            ),
            socket("packets", "type = \"seqpacket\""),
            socket("relay", "service = \"relay\"\nframing = \"lines\""),
        ]
        .concat(),
    );
    let _daemon = user.daemon();
    for (line, receivers) in [
        ("-s stream bench --size 1MiB -P 10 -c 2", 1),
        ("-s packets bench --size 60KiB -P 50 -c 2", 1),
        ("-s relay bench --size 64KiB -P 50 -c 4", 3),
    ] {
        let udsc = user.udsc(&format!("{line} --json -d 50ms -W 30s"));
        assert_whole(&report(&udsc.given(b"").code(0)), receivers);
    }
}

#[test]
fn on_a_relay_one_sends_and_all_others_receive_everything() {
    for kind in [
        "framing = \"lines\"",
        "framing = \"none\"",
        "type = \"seqpacket\"",
    ] {
        let user = User::new(&socket("relay", &format!("service = \"relay\"\n{kind}")));
        let _daemon = user.daemon();
        let ended = user
            .udsc("-s relay bench --json -d 50ms -c 5 -P 8")
            .given(b"");
        assert_whole(&report(&ended.code(0)), 4);
    }
}

#[test]
fn what_is_collected_is_in_the_record_at_the_end() {
    for (kind, record) in [
        ("framing = \"lines\"", "stream"),
        ("type = \"seqpacket\"", "packets"),
    ] {
        let keys =
            format!("service = \"collect\"\n{kind}\n[socket.{record}.record]\nformat = \"raw\"");
        let user = User::new(&socket(record, &keys));
        let mut daemon = user.daemon();
        let line = format!("-s {record} bench --json -d 50ms -c 3 -P 8");
        let report = report(&user.udsc(&line).given(b"").code(0));
        assert_whole(&report, 1);
        daemon.stop();
        let lines = daemon.output().split(|&byte| byte == b'\n').count() - 1;
        assert_eq!(lines as u64, number(&report, "messages"), "{kind}");
    }
}

#[test]
fn the_text_fits_a_line_and_has_no_colours_where_it_is_no_terminal() {
    let user = User::new(&socket("echo", "framing = \"lines\""));
    let _daemon = user.daemon();
    let ended = user.udsc("bench -d 50ms -c 2").given(b"").code(0);
    let text = ended.text();
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.contains("2 clients, 64 bytes a message, pipeline 1, 0."),
        "{text}"
    );
    assert!(text.contains(" received, 0 lost\n"), "{text}");
    assert!(text.contains("    p99.9      max\nlatency, ms "), "{text}");
    assert!(text.contains('█'), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    // Nor is there a progress bar.
    assert!(ended.complaints().is_empty());
}

#[test]
fn a_daemon_that_is_killed_is_told_with_the_figures_so_far() {
    for kind in ["framing = \"lines\"", "type = \"seqpacket\""] {
        // The record of the echo shows when messages pass.
        let sockets = ["echo", "collect"].map(|service| {
            let record = format!("[socket.{service}.record]\nformat = \"raw\"");
            let keys = format!("service = \"{service}\"\n{kind}\n{record}");
            socket(service, &keys)
        });
        let user = User::new(&sockets.concat());
        for service in ["echo", "collect"] {
            let mut daemon = user.daemon();
            let line = format!("-s {service} bench --json -d 10min -c 2");
            let mut udsc = user.udsc(&line);
            daemon.wait_output(10);
            daemon.kill();
            let ended = udsc.end().code(1);
            let report = report(&ended);
            let why = ended.complaints().join("\n");
            assert!(why.contains("the server closed"), "{why}");
            assert_eq!(why, format!("udsc: {}", report["error"].as_str().unwrap()));
        }
    }
}

/// A socket of this process, served by a thread.
struct Server {
    _folder: Arc<Folder>,
    path: PathBuf,
}

impl Server {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.join("socket");
        Self {
            _folder: folder,
            path,
        }
    }

    /// Serves one client of a stream, line by line: `answer` has the number of each, from 0, and gives
    /// what goes back.
    fn lines(answer: impl FnMut(usize, Vec<u8>) -> Vec<u8> + Send + 'static) -> Self {
        let server = Self::new();
        let listener = UnixListener::bind(&server.path).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0, answer));
        server
    }

    /// `udsc -s PATH` with the arguments in `line`.
    fn udsc(&self, line: &str) -> Udsc {
        Udsc::start(&format!("-s {} {line}", self.path.display()))
    }

    /// As udsc says it.
    fn says(&self, why: &str) -> String {
        format!("{}: {why}", self.path.display())
    }
}

fn serve(mut client: UnixStream, mut answer: impl FnMut(usize, Vec<u8>) -> Vec<u8>) {
    let mut line = Vec::new();
    let mut count = 0;
    let mut byte = [0];
    // The client may go at any time.
    while client.read_exact(&mut byte).is_ok() {
        line.push(byte[0]);
        if byte == *b"\n" {
            let answer = answer(count, std::mem::take(&mut line));
            if client.write_all(&answer).is_err() {
                return;
            }
            count += 1;
        }
    }
}

#[test]
fn an_answer_that_is_wrong_in_one_byte_twice_there_or_missing_is_told() {
    let changed = |n: usize, mut line: Vec<u8>| {
        if n == 5 {
            line[40] ^= 1;
        }
        line
    };
    let server = Server::lines(changed);
    let ended = server.udsc("bench -c 1 --service echo --json").given(b"");
    let report = report(&ended);
    assert_eq!((number(&report, "sent"), number(&report, "wrong")), (6, 1));
    let why = ended.code(1).complaints().join("\n");
    let due = server.says("message 5 of client 0 was due, and what came is none: 65 bytes, \"");
    assert!(
        why.starts_with(&format!("udsc: {due}0000000000000005")),
        "{why}"
    );

    let twice = |n: usize, line: Vec<u8>| if n == 5 { line.repeat(2) } else { line };
    let server = Server::lines(twice);
    let ended = server.udsc("bench -c 1 -P 3 --service echo").given(b"");
    let why = "message 6 of client 0 was due, and message 5 came";
    ended.code(1).complained(&server.says(why));

    let missing = |n: usize, line: Vec<u8>| if n == 5 { Vec::new() } else { line };
    let server = Server::lines(missing);
    let ended = server.udsc("bench -c 1 -P 3 --service echo").given(b"");
    let why = "message 5 of client 0 was due, and message 6 came";
    ended.code(1).complained(&server.says(why));
    let server = Server::lines(missing);
    let ended = server.udsc("bench -c 1 --service echo -W 200ms").given(b"");
    let why = "nothing has come for 200ms, and messages are under way";
    ended.code(1).complained(&server.says(why));
}

#[test]
fn whether_a_path_that_no_file_has_is_an_echo_is_seen_by_a_message() {
    let server = Server::lines(|_, line| line);
    let ended = server.udsc("bench -c 1 -d 50ms --json").given(b"").code(0);
    assert_eq!(report(&ended)["service"], "echo");
    let silent = Server::lines(|_, _| Vec::new());
    silent.udsc("bench -c 1").given(b"").code(1).complained(&silent.says(
        "no udsd.toml says what it does, and a message did not come back within 1s, so it is no echo: say --service relay or --service collect",
    ));
    let other = Server::lines(|_, _| b"hello\n".to_vec());
    other.udsc("bench -c 1").given(b"").code(1).complained(&other.says(
        "something else came than the message that was sent, so it is no echo; if it is a relay, say --service relay",
    ));
    let silent = Server::lines(|_, _| Vec::new());
    let line = "bench -c 1 -d 50ms --json --service collect";
    assert_whole(&report(&silent.udsc(line).given(b"").code(0)), 1);
}

#[test]
fn lost_datagrams_are_counted_and_the_others_measured() {
    let server = Server::new();
    let socket = UnixDatagram::bind(&server.path).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        for n in 0_u64.. {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            // The client may be gone.
            if n % 10 != 9 {
                let _ = socket.send_to_addr(&buffer[..length], &from);
            }
        }
    });
    let line = "--type datagram bench -c 2 -P 5 -d 100ms -W 500ms --service echo --json";
    let ended = server.udsc(line).given(b"");
    let report = report(&ended);
    let [sent, received, lost] = ["sent", "received", "lost"].map(|key| number(&report, key));
    assert_eq!(lost, sent / 10 + number(&report, "late"), "{report}");
    assert!(received > 0 && lost > 0, "{report}");
    let why = format!("{lost} of {sent} messages did not come");
    ended.code(1).complained(&server.says(&why));
}

#[test]
fn an_interrupt_ends_it_with_the_figures_so_far() {
    let (tell, ten) = std::sync::mpsc::channel();
    let server = Server::lines(move |n, line| {
        if n == 9 {
            tell.send(()).unwrap();
        }
        line
    });
    let mut udsc = server.udsc("bench -c 1 -d 10min --service echo --json");
    ten.recv().unwrap();
    let pid = Pid::from_child(&udsc.child);
    kill_process(pid, Signal::INT).unwrap();
    let report = report(&udsc.end().code(0));
    assert_whole(&report, 1);
    assert!(number(&report, "sent") >= 10, "{report}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_sent() {
    let user = User::new(
        &[
            socket("echo", "framing = \"lines\"\nmessage-size = 1000"),
            socket("fixed", "framing = \"fixed:100\""),
            socket("short", "framing = \"fixed:8\""),
            socket(
                "stamped",
                "service = \"relay\"\nframing = \"lines\"\nstamp = true",
            ),
            socket("relay", "service = \"relay\"\nframing = \"lines\""),
        ]
        .concat(),
    );
    let _daemon = user.daemon();
    for (line, code, why) in [
        (
            "-s echo bench --size 1001",
            1,
            "a message of 1001 bytes has 1001 bytes, and message-size of socket echo is 1000: send it in parts, or raise message-size",
        ),
        (
            "-s echo bench --size 15",
            2,
            "a message of 15 bytes is too short to be checked: it holds its sender and number, 16 bytes",
        ),
        (
            "-s short bench",
            1,
            "a message of 8 bytes is too short to be checked: it holds its sender and number, 16 bytes",
        ),
        (
            "-s fixed bench --size 99",
            2,
            "--size 99 contradicts framing fixed:100: leave it out",
        ),
        (
            "-s stamped bench",
            1,
            "socket stamped has stamp = true and delivers records, not the bytes that were sent: bench one without",
        ),
        (
            "-s relay bench -c 1",
            2,
            "--clients 1: on a relay one client sends and the others receive: 2 or more",
        ),
    ] {
        user.udsc(line)
            .given(b"")
            .code(code)
            .printed("")
            .complained(why);
    }
    for line in [
        "bench -c 0",
        "bench -P 0",
        "bench --size 0",
        "bench --size 5x",
        "bench --size 1TiB",
        "bench -d 0s",
        "bench -d 5",
        "bench -d 100years",
        "bench --service chat",
    ] {
        let ended = user.udsc(&format!("-s echo {line}")).given(b"").code(2);
        assert!(ended.printed("").complaints()[0].contains("invalid value"));
    }
}
