//! Bound and inherited sockets, their files, and what a start says of them.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixDatagram, UnixListener},
        },
    },
};

use rustix::net::sockopt::set_socket_passcred;

use super::{
    Client, collecting, config, counted,
    harness::{Daemon, Setup, is_root},
    json,
};

/// As the manager passes a socket: descriptor 3.
pub(super) fn passing(setup: Setup, socket: &UnixDatagram, name: &str, wrapper: &[&str]) -> Setup {
    let fd: OwnedFd = socket.try_clone().unwrap().into();
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"";
    setup
        .stdin(fd)
        .wrapper(&[wrapper, &["sh", "-c", script, "sh"]].concat())
        .variable("LISTEN_FDS", "1")
        .variable("LISTEN_FDNAMES", name)
}

/// A socket at `s` as the manager makes it.
pub(super) fn made(setup: &Setup) -> UnixDatagram {
    let path = setup.folder().join("s");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    socket
}

#[test]
fn an_inherited_socket_is_served_and_keeps_what_waits_for_the_next() {
    let setup = Setup::new();
    let socket = made(&setup);
    set_socket_passcred(&socket, true).unwrap();
    let folder = setup.folder().clone();
    let early = UnixDatagram::unbound().unwrap();
    for (round, name) in ["s", "s.socket", ""].into_iter().enumerate() {
        // Before the daemon is there.
        early.send_to(b"early", folder.join("s")).unwrap();
        let setup = Setup::within(folder.clone()).config(&collecting("", ""));
        let mut daemon = passing(setup, &socket, name, &[]).start();
        let client = Client::bound(&daemon, &format!("c{round}"));
        client.send(b"late");
        let lines = daemon.wait_output(2);
        assert_eq!(json(&lines[0])["message"], "early");
        assert_eq!(json(&lines[1])["message"], "late");
        assert!(
            !daemon.log().contains("PassCredentials"),
            "{}",
            daemon.log()
        );
        daemon.wait_log(&["socket s (", "inherited"]);
        assert!(daemon.stop().success());
        // It is the manager's.
        assert!(folder.join("s").exists() && !folder.join("s.lock").exists());
    }
}

#[test]
fn what_came_without_credentials_is_refused_and_counted() {
    let setup = Setup::new();
    let socket = made(&setup);
    let early = UnixDatagram::unbound().unwrap();
    for _ in 0..3 {
        early.send_to(b"early", setup.folder().join("s")).unwrap();
    }
    let mut daemon = passing(setup.config(&config("")), &socket, "s", &[]).start();
    daemon.wait_log(&["WARN", "socket s (", "PassCredentials=yes"]);
    Client::bound(&daemon, "c").round_trip(b"late");
    daemon.wait_log(&[
        "WARN",
        "s: refused a datagram from no address: the kernel vouches for nobody",
    ]);
    assert!(daemon.stop().success());
    assert_eq!(counted(&daemon, "s", "refused"), 3);
    assert_eq!(counted(&daemon, "s", "messages"), 1);
}

#[test]
fn a_type_that_does_not_fit_names_both() {
    let setup = Setup::new();
    let path = setup.folder().join("s");
    let listener = UnixListener::bind(path).unwrap();
    let socket = UnixDatagram::from(OwnedFd::from(listener));
    let (code, log) = passing(setup.config(&config("")), &socket, "s", &[]).fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("as a stream socket") && log.contains("says datagram"),
        "{log}"
    );
}

#[test]
fn the_file_has_its_mode_and_owner() {
    let owner = if is_root() {
        "user = 7001\ngroup = 7002"
    } else {
        ""
    };
    let daemon = Daemon::start(&config(owner).replace("0666", "0620"));
    let file = fs::symlink_metadata(daemon.path("s")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o620);
    if !owner.is_empty() {
        assert_eq!((file.uid(), file.gid()), (7001, 7002));
    }
}

#[test]
fn abstract_and_ad_hoc_ones_are_served() {
    let daemon = Daemon::ad_hoc(&["--type", "datagram"]);
    Client::of(
        UnixDatagram::bind(daemon.path("c")).unwrap(),
        &daemon,
        "socket",
    )
    .round_trip(b"x");
    let setup = Setup::new();
    let name = setup.folder().join("name");
    let name = name.to_str().unwrap();
    let config = format!("[socket.s]\npath = \"@{name}\"\ntype = \"datagram\"\n");
    let daemon = setup.config(&config).start();
    let client = Client::bound(&daemon, "c");
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            name,
        )
        .unwrap();
    client.socket.send_to_addr(b"hello", &address).unwrap();
    assert_eq!(client.receive(), b"hello");
    daemon.wait_log(&["WARN", "anyone on this machine"]);
}

#[test]
fn a_short_kernel_queue_earns_one_warning_where_there_are_datagrams() {
    let length = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let short = length.trim().parse::<u32>().unwrap() < 512;
    let two = format!(
        "{}[socket.t]\npath = \"{{dir}}/t\"\ntype = \"datagram\"",
        config("")
    );
    let mut daemon = Daemon::start(&two);
    assert!(daemon.stop().success());
    let warnings = daemon
        .log()
        .matches("WARN  net.unix.max_dgram_qlen")
        .count();
    assert_eq!(warnings, usize::from(short), "{}", daemon.log());
    let mut streams = Daemon::start("[socket.s]\npath = \"{dir}/s\"\n");
    assert!(streams.stop().success());
    assert!(!streams.log().contains("max_dgram_qlen"));
}

#[test]
fn a_message_size_that_no_answer_could_have_is_a_fault() {
    let keys = "message-size = \"1GiB\"\nqueue-size = \"1GiB\"";
    let limits = "[limits]\nqueue-per-user = \"2GiB\"\nqueue-total = \"2GiB\"\n";
    let setup = Setup::new().config(&format!("{limits}{}", config(keys)));
    let (code, log) = setup.fail();
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains("socket.s.message-size: the longest datagram"),
        "{log}"
    );
}
