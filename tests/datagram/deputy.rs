//! An address is its sender's word: udsd speaks for nobody to sockets of others, and a path never holds
//! it up.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::Command,
};

use rustix::net::{SocketAddrUnix, bind};

use super::{
    Client, config, counted,
    harness::acting,
    harness::{Daemon, Setup, has_program, is_root},
};

fn start(keys: &str) -> Daemon {
    let setup = Setup::new();
    fs::set_permissions(setup.folder().path(), PermissionsExt::from_mode(0o777)).unwrap();
    setup.config(&config(keys)).start()
}

/// Sends from an abstract address in a network namespace of its own, as uid 7001.
fn send_from_elsewhere(daemon: &Daemon, name: &str, text: &str) {
    let script = format!(
        "import os, socket\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         os.setgid(7002)\n\
         os.setuid(7001)\n\
         s.bind('\\0{name}')\n\
         s.sendto(b'{text}', '{}')",
        daemon.path("s").display()
    );
    let status = Command::new("unshare")
        .args(["--net", "python3", "-c", &script])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_abstract_name_of_another_network_namespace_is_not_answered() {
    if !is_root() || !has_program("unshare") || !has_program("python3") {
        return;
    }
    let mut daemon = start("");
    let name = format!("udsd-victim-{}", daemon.pid());
    let victim = Client::abstract_name(&daemon, name.as_bytes());
    for _ in 0..3 {
        send_from_elsewhere(&daemon, &name, "chosen bytes");
    }
    // What comes to it is its own.
    victim.round_trip(b"asked for");
    assert!(!victim.has_more());
    let line = daemon.wait_log(&["WARN", "s: does not answer client 1 at @udsd-victim-"]);
    for part in ["uid 7001, gid 7002", "socket.s.answer-abstract = true"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    assert!(daemon.stop().success());
    assert_eq!(daemon.log().matches("does not answer").count(), 1);
    assert_eq!(counted(&daemon, "s", "unproven"), 3);
    assert_eq!(counted(&daemon, "s", "messages"), 4);
}

#[test]
fn names_of_others_are_answered_where_the_file_says_so_and_autobound_ones_always() {
    if !is_root() {
        return;
    }
    for is_answered in [false, true] {
        let mut daemon = start(&format!("answer-abstract = {is_answered}"));
        let name = format!("udsd-other-{}", daemon.pid());
        acting(7001, 7002, &[], || {
            let named = Client::abstract_name(&daemon, name.as_bytes());
            if is_answered {
                named.round_trip(b"named");
            } else {
                named.send(b"named");
            }
            let autobound = UnixDatagram::unbound().unwrap();
            bind(&autobound, &SocketAddrUnix::new_unnamed()).unwrap();
            let autobound = Client::of(autobound, &daemon, "s");
            autobound.round_trip(b"autobound");
            assert!(!named.has_more());
        });
        assert!(daemon.stop().success());
        let unproven = u64::from(!is_answered);
        assert_eq!(counted(&daemon, "s", "unproven"), unproven);
    }
}

#[test]
fn a_path_on_a_file_system_that_does_not_answer_holds_up_nobody() {
    if !is_root() || !has_program("unshare") || !has_program("bash") || !has_program("python3") {
        return;
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/datagram/fuse.py");
    for silent in ["all", "attributes"] {
        let setup = Setup::new();
        let folder = setup.folder().join("fuse");
        fs::create_dir(&folder).unwrap();
        for path in [setup.folder().path(), &folder] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        }
        // For the daemon alone: the sender binds its path below.
        let script = format!(
            "exec 4< <(python3 {server} {} {silent}) && read -r _ <&4 && exec \"$@\"",
            folder.display()
        );
        let wrapper = ["unshare", "--mount", "bash", "-c", &script, "bash"];
        let mut daemon = setup.config(&config("")).wrapper(&wrapper).start();
        let witness = Client::bound(&daemon, "witness");
        acting(7001, 7002, &[], || {
            let sender = Client::bound(&daemon, "fuse/x");
            for _ in 0..3 {
                sender.send(b"to nowhere");
            }
        });
        witness.round_trip(b"all read");
        assert!(daemon.stop().success());
        assert_eq!(counted(&daemon, "s", "unreachable"), 3, "{silent}");
    }
}
