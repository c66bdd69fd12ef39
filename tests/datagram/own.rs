//! What udsd itself said, as journald forwards the lines of its log to a socket: taken by collect,
//! refused by echo, and never a reason for another line.

use std::{
    io::{self, BufRead, BufReader, IoSlice},
    mem::MaybeUninit,
    os::fd::AsFd,
};

use rustix::{
    event::PollFlags,
    net::{
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, UCred, sendmsg_addr,
    },
    process::{getegid, geteuid},
};

use super::{
    Client, collecting, config, counted,
    harness::{Daemon, Setup, identity, is_root, wait_for},
    json,
};

/// As journald does: in the name of the daemon's own process.
fn forward(daemon: &Daemon, text: &str) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmCredentials(UCred {
        pid: daemon.pid(),
        uid: geteuid(),
        gid: getegid(),
    })));
    let parts = [IoSlice::new(text.as_bytes())];
    let client = Client::unbound(daemon);
    let to = SocketAddrUnix::new(&client.to).unwrap();
    sendmsg_addr(
        &client.socket,
        &to,
        &parts,
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

/// What the log says after the start.
fn said(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains(" s: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn collect_records_what_udsd_said() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::start(&collecting("message-size = \"10B\"", ""));
    forward(&daemon, "a line");
    forward(&daemon, "a line that is too long");
    Client::unbound(&daemon).send(b"another's");
    let lines = daemon.wait_output(3);
    assert_eq!(json(&lines[0])["message"], "a line");
    assert_eq!(json(&lines[0])["pid"], daemon.pid().as_raw_nonzero().get());
    assert_eq!(json(&lines[1])["message"], "a line tha");
    assert_eq!(json(&lines[1])["truncated"], true);
    assert_eq!(said(&daemon), Vec::<String>::new());
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "refused"), 0);
    assert_eq!(counted(&daemon, "s", "truncated"), 1);
}

#[test]
fn echo_and_access_lists_refuse_it_without_a_word() {
    if !is_root() {
        return;
    }
    for config in [config(""), collecting("allow-users = [7001]", "")] {
        let mut daemon = Daemon::start(&config);
        for _ in 0..3 {
            forward(&daemon, "a line");
        }
        assert!(daemon.stop().success());
        let refused = counted(&daemon, "s", "refused");
        let unread = counted(&daemon, "s", "bytes unread") / 6;
        assert_eq!(refused + unread, 3);
        let [summary] = &said(&daemon)[..] else {
            panic!("{}", daemon.log());
        };
        assert!(summary.contains("INFO"), "{summary}");
    }
}

#[test]
fn a_record_that_is_the_journal_takes_none_of_it() {
    if !is_root() {
        return;
    }
    let (reader, writer) = io::pipe().unwrap();
    let mut daemon = Setup::new()
        .config(&collecting("", ""))
        .variable("JOURNAL_STREAM", &identity(&writer))
        .stdout(writer)
        .start();
    forward(&daemon, "a line of the log");
    Client::unbound(&daemon).send(b"another's");
    assert!(wait_for(reader.as_fd(), PollFlags::IN), "nothing comes");
    let line = BufReader::new(reader).lines().next().unwrap().unwrap();
    assert!(line.starts_with("<6>{"), "{line}");
    assert!(line.contains("another's"), "{line}");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "refused"), 1);
}
