//! Promise: whoever `allow-users` and `allow-groups` do not admit is let go before a byte of theirs is
//! read, sees a clean end, is counted and named in the log; and whoever they admit is served.
//!
//! Most clients here are threads that have taken on another user: the kernel keeps credentials for
//! each thread, and those of the one that connects are what counts.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Write,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixStream},
        },
    },
    process::{Command, Stdio},
    time::Instant,
};

use harness::{
    Daemon, HANG, Setup, acting, has_program, is_root, read_all, round_trip, was_cut_off,
};
use rustix::{
    process::{Gid, getegid, geteuid, getpid},
    thread::set_thread_groups,
};

/// The kernel's number for whoever has none.
const NOBODY: u32 = 65534;
/// The most groups that a process can have (NGROUPS_MAX).
const GROUPS_MAX: u32 = 65536;

/// An echo socket `s` that anyone may connect to, with these keys.
fn setup(keys: &str) -> Setup {
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o755)).unwrap();
    setup.config(&format!(
        "[socket.s]\npath = \"{{dir}}/s\"\nmode = \"0666\"\n{keys}\n"
    ))
}

fn start(keys: &str) -> Daemon {
    setup(keys).start()
}

/// A client of this user on socket `s`.
fn client(daemon: &Daemon, uid: u32, gid: u32, groups: &[u32]) -> UnixStream {
    acting(uid, gid, groups, || daemon.connect("s"))
}

#[track_caller]
fn served(daemon: &Daemon, uid: u32, gid: u32, groups: &[u32]) {
    round_trip(&client(daemon, uid, gid, groups), b"let in");
}

/// Sees the end of the file; who has sent something before the daemon looks sees that it was not read.
#[track_caller]
fn refused(daemon: &Daemon, uid: u32, gid: u32, groups: &[u32]) {
    assert_eq!(read_all(&client(daemon, uid, gid, groups)), b"");
    daemon.halt();
    let mut eager = client(daemon, uid, gid, groups);
    eager.write_all(&[7; 100_000]).unwrap();
    daemon.resume();
    was_cut_off(&eager);
}

/// A number that is not this process' own.
fn another(number: u32) -> u32 {
    if number == 4321 { 8765 } else { 4321 }
}

#[test]
fn a_user_who_is_listed_enters_and_another_is_refused_with_one_line() {
    if !is_root() {
        return;
    }
    let mut daemon = start("allow-users = [7001, \"7002\"]");
    for uid in [7001, 7002] {
        served(&daemon, uid, 7, &[]);
    }
    // Whatever groups have the number.
    assert_eq!(read_all(&client(&daemon, 7003, 7001, &[7002])), b"");
    assert!(daemon.stop().success());
    daemon.wait_log(&["s: 2 clients, 1 refused (1 access), 0 closed, 2 messages"]);
    let log = daemon.log();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("refuse")).collect();
    let line = format!(
        "WARN  s: refused a client (pid {}, uid 7003, gid 7001): not in socket.s.allow-users or allow-groups",
        getpid()
    );
    assert!(refusals[0].ends_with(&line), "{refusals:?}");
    // The other is the sum at the end.
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}

#[test]
fn a_member_enters_by_its_primary_or_by_a_supplementary_group_alone() {
    if !is_root() {
        return;
    }
    let daemon = start("allow-groups = [7020]");
    served(&daemon, 7001, 7020, &[]);
    served(&daemon, 7001, 7, &[7020]);
    served(&daemon, 7001, 7, &[7019, 7020, 7021]);
    // Not even the user who has the number.
    refused(&daemon, 7020, 7, &[7019, 7021]);
}

#[test]
fn of_two_lists_either_admits() {
    if !is_root() {
        return;
    }
    let daemon = start("allow-users = [7001]\nallow-groups = [7020]");
    served(&daemon, 7001, 7, &[]);
    served(&daemon, 7002, 7, &[7020]);
    refused(&daemon, 7002, 7, &[7]);
}

#[test]
fn however_many_groups_a_member_has_each_counts() {
    if !is_root() {
        return;
    }
    for count in [1, 31, 32, 33, 1000, GROUPS_MAX] {
        let last = 10_000 + count;
        let groups: Vec<u32> = (10_001..=last).collect();
        let daemon = start(&format!("allow-groups = [{last}]"));
        served(&daemon, 7001, 7, &groups);
        assert_eq!(
            read_all(&client(&daemon, 7001, 7, &groups[..groups.len() - 1])),
            b""
        );
    }
}

#[test]
fn groups_are_those_of_the_moment_of_connecting() {
    if !is_root() {
        return;
    }
    let daemon = start("allow-groups = [7020]");
    let (before, after) = acting(0, 0, &[], || {
        daemon.halt();
        let before = daemon.connect("s");
        set_thread_groups(&[Gid::from_raw(7020)]).unwrap();
        let after = daemon.connect("s");
        set_thread_groups(&[]).unwrap();
        daemon.resume();
        (before, after)
    });
    assert_eq!(read_all(&before), b"");
    round_trip(&after, b"let in");
}

#[test]
fn who_left_before_it_was_let_in_is_refused_all_the_same() {
    let own = geteuid().as_raw();
    let daemon = start(&format!("allow-users = [{}]", own + 1));
    daemon.halt();
    drop(daemon.connect("s"));
    daemon.resume();
    let line = daemon.wait_log(&["WARN", "refused a client", "allow-users"]);
    assert!(line.contains(&format!("uid {own}")), "{line}");
}

#[test]
fn root_is_not_exempt() {
    if !is_root() {
        return;
    }
    let daemon = start("allow-users = [7001]\nallow-groups = [7020]");
    refused(&daemon, 0, 0, &[0]);
    daemon.wait_log(&["WARN", "uid 0, gid 0", "allow-users"]);
}

#[test]
fn names_stand_for_their_numbers() {
    if !is_root() {
        return;
    }
    let users = start("allow-users = [\"root\"]");
    served(&users, 0, 7, &[]);
    refused(&users, 7001, 0, &[0]);
    let groups = start("allow-groups = [\"root\"]");
    served(&groups, 7001, 7, &[0]);
    refused(&groups, 0, 7, &[7]);
}

#[test]
fn nobody_is_refused_even_where_it_is_listed() {
    if !is_root() {
        return;
    }
    let daemon = start(&format!(
        "allow-users = [{NOBODY}, 7001]\nallow-groups = [{NOBODY}]"
    ));
    refused(&daemon, NOBODY, 7, &[]);
    refused(&daemon, 7002, NOBODY, &[]);
    refused(&daemon, 7002, 7, &[NOBODY]);
    served(&daemon, 7001, NOBODY, &[NOBODY]);
    for (line, key) in [(4, "allow-users"), (5, "allow-groups")] {
        let key = format!("udsd.toml:{line}: socket.s.{key}: {NOBODY} never matches");
        daemon.wait_log(&["WARN", &key]);
    }
}

/// As directories have them.
#[test]
fn names_are_taken_as_the_databases_have_them() {
    if !is_root() || !has_program("unshare") {
        return;
    }
    let names = [
        "domain users",
        "DOMAIN\\\\name",
        "first.last",
        "ann@example.com",
        "host$",
        "50% off, +1",
    ];
    let list = names.map(|name| format!("\"{name}\"")).join(", ");
    let setup = setup(&format!(
        "allow-users = [{list}]\nallow-groups = [{list}]\nuser = \"{}\"\ngroup = \"{}\"",
        names[1], names[0]
    ));
    let folder = setup.folder().path().display().to_string();
    let mut databases = [
        "root:x:0:0::/:/bin/sh\n".to_owned(),
        "root:x:0:\n".to_owned(),
    ];
    for (i, name) in names.iter().enumerate() {
        let name = name.replace("\\\\", "\\");
        databases[0] += &format!("{name}:x:{}:7::/:\n", 7100 + i);
        databases[1] += &format!("{name}:x:{}:\n", 7200 + i);
    }
    for (name, text) in ["passwd", "group"].iter().zip(databases) {
        fs::write(setup.folder().join(name), text).unwrap();
    }
    let script = format!(
        "mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/group /etc/group && exec \"$@\""
    );
    let daemon = setup
        .wrapper(&["unshare", "--mount", "sh", "-c", &script, "sh"])
        .start();
    for i in 0..names.len() as u32 {
        served(&daemon, 7100 + i, 7, &[]);
        served(&daemon, 7001, 7, &[7200 + i]);
    }
    let owner = fs::metadata(daemon.path("s")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (7101, 7200));
}

#[test]
fn foreign_programs_are_judged_alike() {
    if !is_root() || !has_program("setpriv") || !has_program("nc") {
        return;
    }
    let daemon = start("allow-users = [7001]\nallow-groups = [7020]");
    for (uid, groups, answer) in [
        (7001, "--clear-groups", "hello\n"),
        (7002, "--groups=7019,7020", "hello\n"),
        (7002, "--clear-groups", ""),
        (0, "--clear-groups", ""),
    ] {
        let mut nc = Command::new("setpriv")
            .arg(format!("--reuid={uid}"))
            .args(["--regid=7", groups, "--", "nc", "-NU"])
            .arg(daemon.path("s"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It may be gone already.
        let _ = nc.stdin.take().unwrap().write_all(b"hello\n");
        let output = nc.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            answer,
            "{uid} {groups}"
        );
    }
}

#[test]
fn ten_thousand_refusals_make_few_lines_and_hide_no_other() {
    const REFUSED: usize = 10_000;
    if !is_root() {
        return;
    }
    let mut daemon = start("allow-users = [0]\nclients = 1");
    let holder = daemon.connect("s");
    round_trip(&holder, b"in");
    let start = Instant::now();
    acting(7001, 7, &[], || {
        for _ in 0..REFUSED {
            assert_eq!(read_all(&daemon.connect("s")), b"");
        }
    });
    let intervals = 1 + start.elapsed().as_secs() as usize / 10;
    // Who may enter is told of the limit, the others were told of the list.
    assert_eq!(read_all(&daemon.connect("s")), b"");
    daemon.wait_log(&["refused a client", "uid 0", "socket.s.clients = 1"]);
    round_trip(&holder, b"still in");
    assert!(daemon.stop().success());
    let log = daemon.log();
    let lines = log.matches("not in socket.s.allow-users").count();
    assert!(
        (1..=20 * (intervals + 1)).contains(&lines),
        "{lines} lines for {REFUSED} clients"
    );
    assert!(!log.contains("ERROR"));
    daemon.wait_log(&["s: 1 clients, 10001 refused"]);
}

#[test]
fn the_lists_hold_for_whoever_runs_the_daemon() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let in_users = start(&format!("allow-users = [{uid}]"));
    round_trip(&in_users.connect("s"), b"let in");
    let in_groups = start(&format!("allow-groups = [{gid}]"));
    round_trip(&in_groups.connect("s"), b"let in");
    let in_none = start(&format!("allow-users = [{}]", another(uid)));
    assert_eq!(read_all(&in_none.connect("s")), b"");
    in_none.wait_log(&["WARN", &format!("uid {uid}"), "socket.s.allow-users"]);
}

#[test]
fn each_socket_has_its_own_lists() {
    let stranger = another(geteuid().as_raw());
    let daemon = start(&format!(
        "allow-users = [{stranger}]\n[socket.open]\npath = \"{{dir}}/open\""
    ));
    assert_eq!(read_all(&daemon.connect("s")), b"");
    round_trip(&daemon.connect("open"), b"let in");
}

#[test]
fn an_abstract_socket_with_a_list_is_no_longer_open_to_anyone() {
    let setup = Setup::new();
    let name = setup.folder().join("s").to_str().unwrap().to_owned();
    let stranger = another(geteuid().as_raw());
    let config = format!("[socket.s]\npath = \"@{name}\"\nallow-users = [{stranger}]\n");
    let daemon = setup.config(&config).start();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let client = UnixStream::connect_addr(&address).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    assert_eq!(read_all(&client), b"");
    daemon.wait_log(&["refused a client", "socket.s.allow-users"]);
    assert!(!daemon.log().contains("anyone"), "{}", daemon.log());
}

#[test]
fn unknown_names_are_faults_of_their_lines() {
    let setup = setup(
        "allow-users = [\"no-such-user-here\", \"root\", \"nor-this-one\"]\nallow-groups = [\"no-such-group-here\"]",
    );
    let folder = setup.folder().clone();
    let (code, log) = setup.fail();
    assert_eq!(code, Some(78), "{log}");
    let file = folder.join("udsd.toml");
    for (line, key, what) in [
        (4, "allow-users", "user \"no-such-user-here\""),
        (4, "allow-users", "user \"nor-this-one\""),
        (5, "allow-groups", "group \"no-such-group-here\""),
    ] {
        let fault = format!(
            "{}:{line}: socket.s.{key}: there is no {what} on this machine",
            file.display()
        );
        assert!(log.contains(&fault), "no \"{fault}\" in: {log}");
    }
    assert!(!folder.join("s").exists() && !folder.join("s.lock").exists());
}
