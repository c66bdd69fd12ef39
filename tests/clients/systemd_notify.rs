//! systemd-notify: what a service tells its manager goes to a datagram socket of udsd. Behind it comes
//! `BARRIER=1` with a descriptor that the receiver is to close (`sd_notify_barrier(3)`). The kernel keeps
//! that from udsd where it can, and systemd-notify fails with EPERM; what was sent before udsd had the
//! socket, or comes on an older kernel, is taken and the descriptor closed. `--no-block` sends none.

use std::{fs, os::fd::AsFd, os::unix::process::CommandExt, path::Path, process::Command};

use rustix::net::{RecvFlags, SocketType, recv};
use udsd::sys::{can_refuse_descriptors, set_peek_offset};

use crate::{
    Program,
    harness::{Daemon, Setup, has_program, is_root, manager},
    messages, open_to_all, records, run, socket,
};

/// A datagram socket `n` with this service.
fn config(service: &str) -> String {
    let keys = format!("type = \"datagram\"\nservice = \"{service}\"");
    socket("n", &keys)
}

fn start(service: &str) -> Daemon {
    let setup = Setup::new();
    open_to_all(setup.folder());
    setup.config(&config(service)).start()
}

fn notify(socket: &Path) -> Command {
    let mut command = Command::new("systemd-notify");
    command
        .args(["--ready", "--status=all is well"])
        .env("NOTIFY_SOCKET", socket);
    command
}

#[track_caller]
fn assert_is_state(message: &str) {
    let mut lines: Vec<&str> = message.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["READY=1", "STATUS=all is well"]);
}

#[test]
fn what_it_says_is_recorded_whatever_becomes_of_its_barrier() {
    if !has_program("systemd-notify") {
        return;
    }
    let daemon = start("collect");
    let open = || {
        let all = fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
        all.unwrap().count()
    };
    let before = open();
    let second = match can_refuse_descriptors() {
        // It says that it failed.
        true => "ERRNO=1",
        false => "BARRIER=1",
    };
    for n in 1..=5 {
        let output = notify(&daemon.path("n")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // It would fail otherwise if the descriptor stayed open.
        let refused = said.contains("Operation not permitted");
        assert_eq!(output.status.success(), !refused, "{said}");
        assert_eq!(refused, can_refuse_descriptors());
        let records = records(&daemon, 2 * n);
        let messages = messages(&records);
        assert_is_state(messages[2 * n - 2]);
        assert_eq!(messages[2 * n - 1], second);
        let uid = &records[2 * n - 2]["uid"];
        assert_eq!(*uid, rustix::process::getuid().as_raw());
    }
    assert!(open() <= before, "{} open, {before} before", open());
}

#[test]
fn a_barrier_that_waited_for_the_start_is_passed() {
    if !has_program("systemd-notify") {
        return;
    }
    let setup = Setup::new();
    let path = setup.folder().join("n");
    let manager = manager::socket_at(&path, SocketType::DGRAM);
    let waiting = Program::start(&mut notify(&path));
    set_peek_offset(&manager, 0).unwrap();
    for start in ["READY=1", "BARRIER=1"] {
        let mut note = [0; 100];
        let (_, length) = recv(&manager, &mut note[..], RecvFlags::PEEK).unwrap();
        assert!(note[..length].starts_with(start.as_bytes()));
    }
    set_peek_offset(&manager, -1).unwrap();
    let setup = setup.config(&config("collect"));
    let daemon = manager::passing(setup, &[manager.as_fd()], Some("n")).start();
    let pid = waiting.finish(b"").pid;
    let records = records(&daemon, 2);
    let [state, barrier] = messages(&records)[..] else {
        panic!("{records:?}");
    };
    assert_is_state(state);
    assert_eq!(barrier, "BARRIER=1");
    // With the privilege to do so it speaks for its parent, whose descriptor it is not.
    assert_eq!(records[1]["pid"], pid);
}

#[test]
fn who_may_not_claim_a_pid_is_recorded_with_its_own() {
    if !is_root() || !has_program("systemd-notify") {
        return;
    }
    let daemon = start("collect");
    let mut notify = notify(&daemon.path("n"));
    let ended = run(notify.arg("--no-block").uid(7001).gid(7002), b"");
    for record in records(&daemon, 1) {
        assert_eq!(record["pid"], ended.pid);
        assert_eq!(record["uid"], 7001);
        assert_eq!(record["gid"], 7002);
    }
}

#[test]
fn an_echo_has_nobody_to_answer_and_holds_no_one_up() {
    if !has_program("systemd-notify") {
        return;
    }
    let mut daemon = start("echo");
    run(notify(&daemon.path("n")).arg("--no-block"), b"");
    assert!(daemon.stop().success());
    daemon.wait_log(&["n: ", " 1 messages", "1 unbound"]);
}
