//! Who may send is judged for every datagram, by the real ids of its sender.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    Client, collecting, counted,
    harness::{Daemon, Setup, acting, has_program, is_root},
    json,
};

fn setup(keys: &str) -> Setup {
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o755)).unwrap();
    setup.config(&collecting(keys, ""))
}

/// Sends one datagram for each user, with what each says of itself: only those of `let_in` are
/// recorded, the last of whom has to be the last of all.
#[track_caller]
fn assert_let_in(daemon: &mut Daemon, senders: &[(u32, u32, &[u32])], let_in: &[u32]) {
    let client = Client::unbound(daemon);
    for &(uid, gid, groups) in senders {
        acting(uid, gid, groups, || {
            client.send(format!("{uid} {gid}").as_bytes());
        });
    }
    let records = daemon.wait_output(let_in.len());
    assert!(daemon.stop().success());
    assert_eq!(daemon.wait_output(let_in.len()), records);
    let uids = records.iter().map(|line| {
        let record = json(line);
        let said = format!("{} {}", record["uid"], record["gid"]);
        assert_eq!(record["message"], said.as_str());
        record["uid"].as_u64().unwrap()
    });
    assert!(
        uids.eq(let_in.iter().map(|&uid| u64::from(uid))),
        "{records:?}"
    );
    let refused = senders.len() - let_in.len();
    assert_eq!(counted(daemon, "s", "refused"), refused as u64);
    assert_eq!(counted(daemon, "s", "messages"), let_in.len() as u64);
}

#[test]
fn by_user_by_primary_group_and_by_nothing_else() {
    if !is_root() {
        return;
    }
    let mut daemon = setup("allow-users = [7001]\nallow-groups = [7020]").start();
    let senders: [(u32, u32, &[u32]); 7] = [
        (7001, 7, &[]),
        (7002, 7, &[]),
        (7003, 7020, &[]),
        // What groups its process has besides, nobody vouches for.
        (7004, 7, &[7020]),
        (0, 0, &[]),
        (7020, 7001, &[]),
        (7001, 8, &[]),
    ];
    assert_let_in(&mut daemon, &senders, &[7001, 7003, 7001]);
    daemon.wait_log(&[
        "WARN",
        "s: refused a datagram (pid ",
        "uid 7002, gid 7): not in socket.s.allow-users or allow-groups",
    ]);
}

#[test]
fn members_of_a_group_in_the_user_database_are_let_in() {
    if !is_root() || !has_program("unshare") {
        return;
    }
    let setup = setup("allow-groups = [\"staff-here\", 7021]");
    let folder = setup.folder().path().display().to_string();
    let write = |name: &str, text: &str| fs::write(setup.folder().join(name), text).unwrap();
    write(
        "passwd",
        "root:x:0:0::/:/bin/sh\nann:x:7001:7::/:\nbob:x:7002:7::/:\ncy:x:7003:7::/:\n",
    );
    write(
        "group",
        "staff-here:x:7020:ann,unknown\nmore:x:7021:bob,root\nlast:x:7022:cy\n",
    );
    let script = format!(
        "mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/group /etc/group && exec \"$@\""
    );
    let mut daemon = setup
        .wrapper(&["unshare", "--mount", "sh", "-c", &script, "sh"])
        .start();
    let senders: [(u32, u32, &[u32]); 5] = [
        (7001, 7, &[]),
        (7002, 7, &[]),
        (7003, 7, &[7020, 7021]),
        (0, 0, &[]),
        (7004, 7020, &[]),
    ];
    assert_let_in(&mut daemon, &senders, &[7001, 7002, 0, 7004]);
}

#[test]
fn nobody_is_refused_even_where_it_is_listed() {
    if !is_root() {
        return;
    }
    let keys = "allow-users = [65534, 7001]\nallow-groups = [65534]";
    let mut daemon = setup(keys).start();
    let senders: [(u32, u32, &[u32]); 3] =
        [(65534, 7, &[]), (7002, 65534, &[]), (7001, 65534, &[])];
    assert_let_in(&mut daemon, &senders, &[7001]);
}

#[test]
fn ten_thousand_refusals_make_few_lines_and_hide_nobody() {
    const REFUSED: u64 = 10_000;
    if !is_root() {
        return;
    }
    let mut daemon = setup("allow-users = [7001]").start();
    let client = Client::unbound(&daemon);
    for _ in 0..REFUSED {
        client.send(b"root is not exempt");
    }
    acting(7001, 7, &[], || client.send(b"let in"));
    let line = daemon.wait_output(1).remove(0);
    assert_eq!(json(&line)["message"], "let in");
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "refused"), REFUSED);
    let lines = daemon.log().matches("socket.s.allow-users").count();
    assert!((1..=60).contains(&lines), "{lines} lines");
}
