//! The exit codes of the real `udsc` against the real daemon: 0 only when what was asked was done, and
//! otherwise the reason as far as it can be known.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::io::{BufRead, BufReader, Read, Write};

use harness::{
    Setup,
    udsc::{Ended, Udsc, User},
};
use rustix::process::Signal;

/// A user with this number nobody is.
const ONE: u32 = 4_000_000_001;

/// How often what depends on who comes first is tried.
const ROUNDS: usize = 20;

const TOO_EARLY: &str = "the server closed before it had read everything that was sent (udsd's log says why: access rules or a limit refused it, or it stopped)";

/// Exit code 1 with one of the reasons that udsc can see: the end may come before the line that was to be
/// sent.
fn assert_cut_off(ended: Ended, path: &str) {
    let reasons = [TOO_EARLY, "the server closed before standard input ended"]
        .map(|why| format!("udsc: {path}: {why}"));
    let complaints = ended.code(1).complaints();
    assert!(reasons.contains(&complaints.join("\n")), "{complaints:?}");
}

/// A socket for each service of type `kind`, each with the keys in `more`.
fn sockets(kind: &str, more: &str) -> String {
    ["echo", "relay", "collect"]
        .map(|service| {
            let record = match service {
                "collect" => "[socket.collect.record]\nformat = \"raw\"\n",
                _ => "",
            };
            let framing = match kind {
                "stream" => "lines",
                _ => "none",
            };
            format!(
                "[socket.{service}]\npath = \"{{dir}}/{service}\"\nmode = \"0666\"\ntype = \"{kind}\"\n\
                 service = \"{service}\"\nframing = \"{framing}\"\n{more}\n{record}"
            )
        })
        .concat()
}

#[test]
fn who_is_refused_by_a_list_is_never_told_that_it_was_done() {
    for kind in ["stream", "seqpacket"] {
        let user = User::new(&sockets(kind, &format!("allow-users = [{ONE}]")));
        let daemon = user.daemon();
        for service in ["echo", "relay", "collect"] {
            let path = user.path(service);
            for target in [service.to_owned(), format!("{path} --type {kind}")] {
                for command in ["", "send hi"] {
                    for _ in 0..ROUNDS {
                        let ended = user.udsc(&format!("-s {target} {command}")).given(b"hi\n");
                        assert_cut_off(ended.printed(""), &path);
                    }
                }
            }
        }
        user.udsc("-s relay listen").end().code(1).complained(&format!(
            "{}: the server closed before a message came (udsd's log says why: access rules or a limit refused it, or it stopped)",
            user.path("relay")
        ));
        user.udsc("-s echo ping -c 1").given(b"").code(1);
        assert_eq!(daemon.output(), b"");
    }
}

#[test]
fn a_message_over_the_files_message_size_is_refused_before_it_is_sent() {
    for kind in ["stream", "seqpacket", "datagram"] {
        let mut text = sockets(kind, "message-size = 5");
        if kind == "datagram" {
            text = text.replace("service = \"relay\"", "service = \"echo\"");
        }
        let user = User::new(&text);
        let daemon = user.daemon();
        for service in ["echo", "relay", "collect"] {
            let over = format!(
                "has 6 bytes, and message-size of socket {service} is 5: send it in parts, or raise message-size"
            );
            let ended = user
                .udsc(&format!("-s {service}"))
                .given(b"12345\n123456\n1\n");
            ended
                .code(1)
                .complained(&format!("line 2 of standard input {over}"));
            // A path is known by its file too, where type and framing are the file's.
            let path = user.path(service);
            for target in [service.to_owned(), format!("{path} --type {kind}")] {
                let udsc = user.udsc(&format!("-s {target} send 123456"));
                udsc.given(b"")
                    .code(1)
                    .complained(&format!("message 1 {over}"));
            }
        }
        assert_eq!(daemon.wait_output(1), ["12345"]);
        let udsc = user.udsc("-s echo ping -c 1 --size 6");
        udsc.given(b"").code(1).complained(
            "a ping of 6 bytes has 6 bytes, and message-size of socket echo is 5: send it in parts, or raise message-size",
        );
    }
}

/// By a path of which no file says what is behind it.
#[test]
fn a_message_over_message_size_is_told_of_a_path_too() {
    for service in ["echo", "relay"] {
        let text = format!(
            "[socket.s]\npath = \"{{dir}}/s\"\nmode = \"0666\"\nservice = \"{service}\"\n\
             framing = \"lines\"\nmessage-size = 5\n"
        );
        let daemon = Setup::new().config(&text).start();
        let path = daemon.path("s").display().to_string();
        for command in ["", "send 123456"] {
            for _ in 0..ROUNDS {
                let ended = Udsc::start(&format!("-s {path} {command}")).given(b"123456\n");
                assert_cut_off(ended, &path);
            }
        }
        daemon.wait_log(&["sent a message longer than socket.s.message-size"]);
    }
}

#[test]
fn a_daemon_that_ends_before_the_input_is_no_success() {
    for service in ["echo", "relay", "collect"] {
        let user = User::new(&sockets("stream", ""));
        let mut daemon = user.daemon();
        let mut hears = daemon.connect("relay");
        let mut udsc = user.udsc(&format!("-s {service}"));
        let mut input = udsc.child.stdin.take().unwrap();
        input.write_all(b"one\n").unwrap();
        match service {
            "collect" => assert_eq!(daemon.wait_output(1), ["one"]),
            "relay" => hears.read_exact(&mut [0; 4]).unwrap(),
            _ => {
                let mut lines = BufReader::new(udsc.child.stdout.as_mut().unwrap()).lines();
                assert_eq!(lines.next().unwrap().unwrap(), "one");
            }
        }
        daemon.stop();
        let ended = udsc.end().code(1);
        ended.complained(&format!(
            "{}: the server closed before standard input ended",
            user.path(service)
        ));
        drop(input);
    }
}

/// The end that a stop gives is one of file, also to whom it throws something away.
#[test]
fn what_a_stop_left_unread_is_no_success() {
    for _ in 0..ROUNDS {
        let user = User::new(&sockets("stream", ""));
        let mut daemon = user.daemon();
        let mut udsc = user.udsc("-s collect");
        let mut input = udsc.child.stdin.take().unwrap();
        input.write_all(b"one\n").unwrap();
        assert_eq!(daemon.wait_output(1), ["one"]);
        daemon.halt();
        input.write_all(b"two\n").unwrap();
        drop(input);
        // udsc may not have come so far; then it finds nobody who reads.
        daemon.signal(Signal::TERM);
        daemon.resume();
        daemon.wait();
        let ended = udsc.end();
        // Where it came in time, udsc may know that or not.
        if daemon.output() != b"one\ntwo\n" {
            let complaint = format!("{}: {TOO_EARLY}", user.path("collect"));
            ended.code(1).complained(&complaint);
        }
    }
}

#[test]
fn a_relay_is_left_once_it_has_read_everything() {
    let user = User::new(&sockets("stream", ""));
    let daemon = user.daemon();
    let hears = daemon.connect("relay");
    let hears = BufReader::new(&hears).lines();
    user.udsc("-s relay")
        .given(b"one\ntwo\n")
        .code(0)
        .printed("");
    user.udsc("-s relay send three")
        .given(b"")
        .code(0)
        .printed("");
    let heard: Vec<String> = hears.take(3).map(Result::unwrap).collect();
    assert_eq!(heard, ["one", "two", "three"]);
}

#[test]
fn a_record_is_waited_for() {
    let user = User::new(&sockets("stream", ""));
    let mut daemon = user.daemon();
    daemon.halt();
    let line = "-s collect send --timeout 100ms hi";
    user.udsc(line).given(b"").code(1).complained(&format!(
        "{}: time ran out before the server had read everything that was sent",
        user.path("collect")
    ));
    let udsc = user.udsc("-s collect send there");
    daemon.resume();
    udsc.given(b"").code(0);
    assert_eq!(daemon.wait_output(2), ["hi", "there"]);
    daemon.stop();
}
