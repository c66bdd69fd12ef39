//! Collect: every datagram becomes one record, with its sender; what the disk does not take yet makes
//! senders wait.

use std::{
    io::{self, BufRead, BufReader, PipeReader, Read},
    os::fd::AsFd,
    process::Command,
    thread,
};

use rustix::{
    event::PollFlags,
    process::{getegid, geteuid, getpid},
};

use super::{
    Client, collecting, counted,
    harness::{Daemon, Setup, Signal, has_program, wait_for},
    json, number_of, numbered,
};

#[test]
fn a_record_names_the_sender_by_process_user_and_address() {
    let daemon = Daemon::start(&collecting("", ""));
    let (one, two) = (Client::bound(&daemon, "one"), Client::bound(&daemon, "two"));
    let unbound = Client::unbound(&daemon);
    one.send(b"a \"b\"\nc");
    two.send(b"\xff");
    unbound.send(b"");
    one.send(b"again");
    let lines = daemon.wait_output(4);
    let records: Vec<_> = lines.iter().map(|line| json(line)).collect();
    for (record, (seq, client)) in records.iter().zip([(1, 1), (2, 2), (3, 0), (4, 1)]) {
        assert_eq!(record["seq"], seq);
        assert_eq!(record["client"], client);
        assert_eq!(record["pid"], getpid().as_raw_nonzero().get());
        assert_eq!(record["uid"], geteuid().as_raw());
        assert_eq!(record["gid"], getegid().as_raw());
    }
    assert_eq!(records[0]["message"], "a \"b\"\nc");
    assert_eq!(records[1]["message"], "\u{fffd}");
    assert_eq!(records[1]["message_base64"], "/w==");
    assert_eq!(records[2]["message"], "");
}

#[test]
fn what_is_too_long_is_cut_and_marked() {
    let mut daemon = Daemon::start(&collecting("message-size = \"10B\"", ""));
    let client = Client::unbound(&daemon);
    let texts = [
        "0123456789",
        "0123456789a",
        "0123456789abc",
        "0123456789abcdefgh",
        "x",
    ];
    for text in texts {
        client.send(text.as_bytes());
    }
    for (line, text) in daemon.wait_output(5).iter().zip(texts) {
        let record = json(line);
        assert_eq!(record["message"], text[..text.len().min(10)]);
        let cut = (text.len() > 10).then_some(true);
        assert_eq!(record.get("truncated").and_then(|t| t.as_bool()), cut);
    }
    daemon.wait_log(&[
        "WARN",
        "kept the first part of 1 messages",
        "socket.s.message-size = 10",
    ]);
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "truncated"), 3);
}

#[test]
fn under_syslog_one_terminator_is_cut() {
    let keys = "framing = \"syslog\"\nmessage-size = \"8B\"";
    let daemon = Daemon::start(&collecting(keys, ""));
    let client = Client::unbound(&daemon);
    let cases = [
        (&b"<1>a\n"[..], "<1>a"),
        (b"<1>a\0", "<1>a"),
        (b"<1>a\n\0", "<1>a"),
        (b"<1>a\0\n", "<1>a\0"),
        (b"<1>a\n\n", "<1>a\n"),
        (b"\n", ""),
        (b"<1>a", "<1>a"),
        // Its limit is without the terminator too.
        (b"<1>45678\n\0", "<1>45678"),
        (b"<1>456789\n\0", "<1>45678"),
        (b"<1>4567\n9\n\0", "<1>4567\n"),
    ];
    for (n, (bytes, message)) in cases.into_iter().enumerate() {
        client.send(bytes);
        let record = json(&daemon.wait_output(n + 1)[n]);
        assert_eq!(record["message"], message, "{}", bytes.escape_ascii());
        let cut = (bytes.len() > 10).then_some(true);
        let marked = record.get("truncated").and_then(|t| t.as_bool());
        assert_eq!(marked, cut, "{}", bytes.escape_ascii());
    }
}

/// The daemon's standard output, where a record that does not come fails the test.
struct Output(PipeReader);

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(wait_for(self.0.as_fd(), PollFlags::IN), "nothing comes");
        self.0.read(buffer)
    }
}

/// Numbered datagrams of several senders, at full speed; each waits for as long as it must.
fn burst(daemon: &Daemon, senders: usize, each: usize, then: impl FnOnce()) {
    thread::scope(|scope| {
        for sender in 0..senders {
            let client = Client::unbound(daemon);
            scope.spawn(move || {
                for n in 0..each {
                    client.send(format!("{n} of {sender} {}", "x".repeat(n % 200)).as_bytes());
                }
            });
        }
        then();
    });
}

/// Each sender's in order, and all of them.
fn assert_whole(lines: impl Iterator<Item = String>, senders: usize, each: usize) {
    let mut next = vec![0; senders];
    for line in lines.take(senders * each) {
        let words: Vec<&str> = line.split(' ').collect();
        let (n, sender): (usize, usize) = (words[0].parse().unwrap(), words[2].parse().unwrap());
        assert_eq!(n, next[sender], "sender {sender}");
        assert_eq!(words[3].len(), n % 200);
        next[sender] += 1;
    }
    assert_eq!(next, vec![each; senders]);
}

#[test]
fn a_burst_of_senders_that_wait_loses_nothing() {
    let (senders, each) = (4, 10_000);
    let mut daemon = Daemon::start(&collecting("", "format = \"raw\""));
    burst(&daemon, senders, each, || {});
    Client::unbound(&daemon).send(b"the end");
    daemon.wait_for("end of the record", |said| {
        said.output.ends_with(b"the end\n").then_some(())
    });
    assert!(daemon.stop().success());
    let output = String::from_utf8(daemon.output()).unwrap();
    assert_whole(output.lines().map(str::to_owned), senders, each);
}

#[test]
fn a_record_that_is_full_makes_senders_wait_and_loses_nothing() {
    let (senders, each) = (3, 3000);
    let (reader, writer) = io::pipe().unwrap();
    let record = "format = \"raw\"\nqueue-size = \"2KiB\"";
    let keys = "message-size = \"1KiB\"";
    let mut daemon = Setup::new()
        .config(&collecting(keys, record))
        .stdout(writer)
        .start();
    let mut lines = BufReader::with_capacity(512, Output(reader))
        .lines()
        .map(Result::unwrap);
    burst(&daemon, senders, each, || {
        assert_whole(lines.by_ref(), senders, each);
    });
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "messages"), (senders * each) as u64);
    assert_eq!(lines.next(), None);
}

#[test]
fn nothing_is_busy_while_a_record_is_full() {
    let (reader, writer) = io::pipe().unwrap();
    let record = "format = \"raw\"\nqueue-size = \"2KiB\"";
    let daemon = Setup::new()
        .config(&collecting("message-size = \"1KiB\"", record))
        .stdout(writer)
        .start();
    let client = Client::unbound(&daemon);
    let each = |n| numbered(n, 1000);
    let sent = client.send_until_full(each, 10_000);
    assert!(sent < 10_000, "nothing stopped it");
    let before = daemon.cpu_time();
    let more = client.send_until_full(each, 10_000);
    assert_eq!(more, 0);
    let used = daemon.cpu_time() - before;
    assert!(used.as_millis() <= 20, "{used:?} for nothing");
    drop(reader);
}

#[test]
fn a_stop_writes_what_was_read_and_counts_what_was_not() {
    let (reader, writer) = io::pipe().unwrap();
    let record = "format = \"raw\"\nqueue-size = \"2KiB\"";
    let stop = "[daemon]\ndrain-timeout = \"1h\"\n";
    let config = collecting("message-size = \"1KiB\"", record);
    let mut daemon = Setup::new()
        .config(&format!("{stop}{config}"))
        .stdout(writer)
        .start();
    let client = Client::unbound(&daemon);
    let sent = client.send_until_full(|n| numbered(n, 1000), 10_000);
    daemon.signal(Signal::TERM);
    daemon.wait_note("STOPPING=1");
    // Soon nobody takes what comes, and who sends is told.
    while client.socket.send(b"").is_ok() {}
    let lines: Vec<String> = BufReader::new(Output(reader))
        .lines()
        .map(Result::unwrap)
        .collect();
    assert!(daemon.wait().success());
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(number_of(line.as_bytes()), n);
    }
    assert_eq!(counted(&daemon, "s", "messages"), lines.len() as u64);
    let unread = counted(&daemon, "s", "bytes unread");
    assert!(unread > 0);
    assert_eq!(lines.len() as u64 * 1000 + unread, sent as u64 * 1000);
}

#[test]
fn logger_and_pythons_handler_are_senders_as_they_are() {
    if !has_program("logger") || !has_program("python3") {
        return;
    }
    let daemon = Daemon::start(&collecting("framing = \"syslog\"", ""));
    let path = daemon.path("s");
    let mut logger = Command::new("logger")
        .args(["-t", "app", "-u"])
        .arg(&path)
        .arg("from logger")
        .spawn()
        .unwrap();
    let pid = logger.id();
    assert!(logger.wait().unwrap().success());
    let script = format!(
        "import logging.handlers as h, logging as l\ng = l.getLogger()\ng.addHandler(h.SysLogHandler('{}'))\ng.error('two\\nlines')",
        path.display()
    );
    let python = Command::new("python3")
        .args(["-c", &script])
        .status()
        .unwrap();
    assert!(python.success());
    let lines = daemon.wait_output(2);
    let (logger, python) = (json(&lines[0]), json(&lines[1]));
    assert_eq!(logger["pid"], pid);
    let text = logger["message"].as_str().unwrap();
    assert!(
        text.starts_with("<13>") && text.ends_with(" app: from logger"),
        "{text}"
    );
    assert_eq!(python["message"], "<11>two\nlines");
}
