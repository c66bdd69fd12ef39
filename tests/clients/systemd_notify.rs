//! systemd-notify: what a service tells its manager goes to a datagram socket of udsd. It waits until
//! the receiver has closed the descriptor that it sends with `BARRIER=1` (`sd_notify_barrier(3)`), and
//! fails after 5 s.

use std::{fs, os::unix::process::CommandExt, process::Command};

use crate::{
    harness::{Daemon, Setup, has_program, is_root},
    messages, open_to_all, records, run, socket,
};

/// A datagram socket `n` with this service.
fn start(service: &str) -> Daemon {
    let setup = Setup::new();
    open_to_all(setup.folder());
    let keys = format!("type = \"datagram\"\nservice = \"{service}\"");
    setup.config(&socket("n", &keys)).start()
}

fn notify(daemon: &Daemon) -> Command {
    let mut command = Command::new("systemd-notify");
    command
        .args(["--ready", "--status=all is well"])
        .env("NOTIFY_SOCKET", daemon.path("n"));
    command
}

#[test]
fn a_barrier_is_passed_and_all_of_it_is_recorded() {
    if !has_program("systemd-notify") {
        return;
    }
    let daemon = start("collect");
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count();
    // It would fail if the descriptor stayed open.
    let pids: Vec<u32> = (0..5).map(|_| run(&mut notify(&daemon), b"").pid).collect();
    let records = records(&daemon, 10);
    for (pid, pair) in pids.iter().zip(records.chunks(2)) {
        let [state, barrier] = messages(pair)[..] else {
            panic!("{pair:?}");
        };
        let mut lines: Vec<&str> = state.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["READY=1", "STATUS=all is well"]);
        assert_eq!(barrier, "BARRIER=1");
        // With the privilege to do so it speaks for its parent, whose descriptor it is not.
        assert_eq!(pair[1]["pid"], *pid);
        for record in pair {
            assert_eq!(record["uid"], rustix::process::getuid().as_raw());
        }
    }
    let now = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count();
    assert!(now <= open, "{now} open, {open} before");
}

#[test]
fn who_may_not_claim_a_pid_is_recorded_with_its_own() {
    if !is_root() || !has_program("systemd-notify") {
        return;
    }
    let daemon = start("collect");
    let ended = run(notify(&daemon).uid(7001).gid(7002), b"");
    for record in records(&daemon, 2) {
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
    run(&mut notify(&daemon), b"");
    assert!(daemon.stop().success());
    daemon.wait_log(&["n: ", " 2 messages", "2 unbound"]);
}
