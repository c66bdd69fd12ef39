//! Senders whose process udsd cannot see, as from beside the container that it runs in: taken with
//! their true user, and without a pid.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::net::sockopt::set_socket_passcred;

use super::{
    Client, collecting, config,
    harness::acting,
    harness::{Setup, has_program, is_root},
    json,
    sockets::{made, passing},
};

/// A daemon in a pid namespace of its own: it sees no other process.
const ALONE: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child"];

fn setup() -> Setup {
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o755)).unwrap();
    setup
}

#[test]
fn a_sender_of_another_pid_namespace_is_taken_without_a_pid() {
    if !is_root() || !has_program("unshare") {
        return;
    }
    for is_passed in [false, true] {
        for format in ["json", "text"] {
            let setup = setup();
            let record = format!("format = \"{format}\"");
            let config = collecting("allow-users = [7001]", &record);
            let socket;
            let daemon = if is_passed {
                socket = made(&setup);
                set_socket_passcred(&socket, true).unwrap();
                passing(setup.config(&config), &socket, "s", &ALONE).start()
            } else {
                setup.config(&config).wrapper(&ALONE).start()
            };
            let client = Client::unbound(&daemon);
            acting(7001, 7002, &[], || client.send(b"from outside"));
            let line = daemon.wait_output(1).remove(0);
            if format == "text" {
                assert!(line.ends_with(" s[-] uid=7001 from outside"), "{line}");
                continue;
            }
            let record = json(&line);
            assert_eq!(record.get("pid"), None, "{line}");
            let user = (&record["uid"], &record["gid"]);
            assert_eq!(user, (&7001.into(), &7002.into()));
            assert_eq!(record["message"], "from outside");
        }
    }
}

#[test]
fn it_is_answered_and_named_without_a_pid() {
    if !is_root() || !has_program("unshare") {
        return;
    }
    let config = config("allow-users = [0]");
    let daemon = setup().config(&config).wrapper(&ALONE).start();
    let client = Client::bound(&daemon, "c");
    client.round_trip(b"and back");
    acting(7001, 7002, &[], || client.send(b"not on the list"));
    daemon.wait_log(&[
        "WARN",
        "s: refused a datagram (pid in another namespace, uid 7001, gid 7002)",
    ]);
}
