//! Promise: a socket that the manager passes is served under the config file's rules for it, whatever
//! name it has, or refused with both sides named; it stays the manager's in every other way.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon, Folder, HANG, Random, Setup, apply_command, connect, is_root, manager,
    packets::Packets, read_all, round_trip,
};
use rustix::{
    net::{
        AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket,
        sockopt::set_socket_passcred,
    },
    process::geteuid,
};

/// How long a failed start stays up where the manager holds sockets.
const FAILED_START: Duration = Duration::from_secs(1);

/// One socket named `a` at `a` in the folder.
const ONE: &str = "[socket.a]\npath = \"{dir}/a\"\n";

/// As the manager passes them.
fn passing<const N: usize>(setup: Setup, sockets: [&dyn AsFd; N], names: Option<&str>) -> Setup {
    manager::passing(setup, &sockets.map(AsFd::as_fd), names)
}

/// A listener at `name` in the folder, as the manager makes it: blocking, and kept.
fn listener(setup: &Setup, name: &str) -> UnixListener {
    let path = setup.folder().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    set_mode(setup.folder(), name, 0o660);
    listener
}

fn set_mode(folder: &Folder, name: &str, mode: u32) {
    fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
}

/// The start fails with code 1 and these words, and holds out long enough for the start limit.
#[track_caller]
fn assert_fails(setup: Setup, code: i32, words: &[&str]) {
    let begun = Instant::now();
    let (ended, log) = setup.fail();
    assert_eq!(ended, Some(code), "{log}");
    let span = begun.elapsed();
    assert!(span >= FAILED_START, "ended after {span:?}");
    for word in words {
        assert!(log.contains(word), "\"{word}\" is not in: {log}");
    }
}

fn assert_served(daemon: &Daemon, name: &str) {
    // Twice: the listener that was passed blocks, the daemon must not.
    for _ in 0..2 {
        round_trip(&daemon.connect(name), b"hello");
    }
}

#[test]
fn matched_by_its_name() {
    let setup = Setup::new().config(ONE);
    let socket = listener(&setup, "a");
    let daemon = passing(setup, [&socket], Some("a")).start();
    daemon.wait_log(&["socket a (", "inherited"]);
    assert_served(&daemon, "a");
    assert!(!daemon.path("a.lock").exists(), "it needs no lock");
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

#[test]
fn matched_by_path_and_type_where_the_name_says_nothing() {
    for names in [None, Some(""), Some("udsd.socket"), Some("unknown")] {
        let setup = Setup::new().config(ONE);
        let socket = listener(&setup, "a");
        let daemon = passing(setup, [&socket], names).start();
        daemon.wait_log(&["socket a (", "inherited"]);
        assert_served(&daemon, "a");
    }
}

#[test]
fn two_sockets_find_their_places_in_any_order() {
    let config =
        "[socket.a]\npath = \"{dir}/a\"\n[socket.b]\npath = \"{dir}/b\"\nframing = \"lines\"\n";
    for names in [Some("b:a"), Some("x.socket:a"), Some(":"), None] {
        let setup = Setup::new().config(config);
        let (a, b) = (listener(&setup, "a"), listener(&setup, "b"));
        let daemon = passing(setup, [&b, &a], names).start();
        assert_served(&daemon, "a");
        // Only b has lines: an unfinished one gets its end there.
        for (name, echo) in [("a", "x"), ("b", "x\n")] {
            let mut client = daemon.connect(name);
            client.write_all(b"x").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&client), echo.as_bytes());
        }
    }
}

#[test]
fn an_abstract_one_is_matched_by_its_name_in_the_kernel() {
    let setup = Setup::new();
    let name = setup
        .folder()
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixListener::bind_addr(&address).unwrap();
    let setup = setup.config(&format!("[socket.a]\npath = \"@{name}\"\n"));
    let daemon = passing(setup, [&socket], None).start();
    daemon.wait_log(&["socket a (", "inherited"]);
    let client = UnixStream::connect_addr(&address).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    round_trip(&client, b"hello");
}

/// Under PrivateNetwork=yes: what the manager made is in its own network namespace, what udsd binds is not.
#[test]
fn an_abstract_one_that_is_bound_beside_another_network_than_the_managers_is_told_as_out_of_reach()
{
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let name = setup.folder().join("abstract").display().to_string();
    let manager = [listener(&setup, "a"), listener(&setup, "b")];
    let config = format!("{ONE}[socket.open]\npath = \"@{name}\"\n");
    let elsewhere = setup.config(&config);
    let elsewhere = passing(elsewhere, [&manager[0]], Some("a")).wrapper(&["unshare", "--net"]);
    let daemon = elsewhere.start();
    daemon.wait_log(&[
        "ERROR",
        "socket open (",
        "in the network namespace of udsd alone (PrivateNetwork=)",
        apply_command(),
    ]);
    assert!(!daemon.log().contains("may enter"), "{}", daemon.log());
    // As after every start, a reload says it again.
    let status = daemon.reload();
    assert!(!status.contains("failed"), "{status}");
    let told = |log: &str| log.matches("network namespace of udsd alone").count();
    daemon.wait_for("the line once more", |said| {
        (told(&said.log) == 2).then_some(())
    });
    drop(daemon);
    // In the same one anybody reaches it.
    let setup = Setup::new().config(&format!(
        "[socket.b]\npath = \"{}\"\n[socket.open]\npath = \"@{name}\"\n",
        manager[1]
            .local_addr()
            .unwrap()
            .as_pathname()
            .unwrap()
            .display()
    ));
    let daemon = passing(setup, [&manager[1]], Some("b")).start();
    daemon.wait_log(&["WARN", "socket open (", "anyone on this machine may enter"]);
    assert_eq!(told(&daemon.log()), 0);
}

#[test]
fn another_path_names_both() {
    let setup = Setup::new().config(ONE);
    let socket = listener(&setup, "other");
    let folder = setup.folder().clone();
    let (there, wanted) = (folder.join("other"), folder.join("a"));
    let words = [
        there.to_str().unwrap(),
        wanted.to_str().unwrap(),
        "socket a (",
    ];
    assert_fails(passing(setup, [&socket], Some("a")), 1, &words);
    assert!(there.exists() && !wanted.exists());
}

#[test]
fn another_type_names_both() {
    for (kind, name) in [
        (SocketType::SEQPACKET, "seqpacket"),
        (SocketType::DGRAM, "datagram"),
    ] {
        let setup = Setup::new().config(ONE);
        let fd = socket(AddressFamily::UNIX, kind, None).unwrap();
        let path = setup.folder().join("a");
        bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        if kind == SocketType::SEQPACKET {
            listen(&fd, 8).unwrap();
        }
        let words = ["socket a (", name, "stream"];
        assert_fails(passing(setup, [&fd], Some("a")), 1, &words);
    }
}

/// A seqpacket socket named `a`.
const PACKETS: &str = "[socket.a]\npath = \"{dir}/a\"\ntype = \"seqpacket\"\n";

#[test]
fn a_seqpacket_socket_is_matched_by_its_name_and_by_path_and_type() {
    for names in [Some("a"), Some("unknown"), None] {
        let setup = Setup::new().config(PACKETS);
        let path = setup.folder().join("a");
        let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&fd, 8).unwrap();
        // It came and left its packets while no daemon was there.
        let early = Packets::connect(&path);
        early.send(b"early");
        early.send(b"");
        early.finish();
        let mut daemon = passing(setup, [&fd], names).start();
        daemon.wait_log(&["socket a (", "inherited"]);
        assert_eq!(early.receive_all(), [&b"early"[..], b""]);
        let client = Packets::connect(&path);
        client.round_trip(b"hello");
        client.round_trip(b"");
        assert!(daemon.stop().success());
        assert_eq!(client.receive(), None);
        assert!(path.exists(), "unlinked a socket of the manager");
    }
}

#[test]
fn a_stream_socket_in_place_of_seqpackets_names_both() {
    let setup = Setup::new().config(PACKETS);
    let fd = listener(&setup, "a");
    let words = ["socket a (", "as a stream socket", "says seqpacket"];
    assert_fails(passing(setup, [&fd], Some("a")), 1, &words);
}

#[test]
fn a_seqpacket_socket_that_does_not_listen_is_refused() {
    let setup = Setup::new().config(PACKETS);
    let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    let path = setup.folder().join("a");
    bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let words = ["socket a (", "does not listen", "ListenSequentialPacket="];
    assert_fails(passing(setup, [&fd], Some("a")), 1, &words);
}

#[test]
fn one_left_over_is_an_error_that_names_it() {
    let setup = Setup::new().config(ONE);
    let (a, other) = (listener(&setup, "a"), listener(&setup, "other"));
    let path = setup.folder().join("other");
    let words = [
        "extra at",
        path.to_str().unwrap(),
        "the config file does not have (it has a)",
    ];
    assert_fails(passing(setup, [&a, &other], Some("a:extra")), 1, &words);
}

#[test]
fn two_for_one_name_are_an_error() {
    let setup = Setup::new().config(ONE);
    let (a, other) = (listener(&setup, "a"), listener(&setup, "other"));
    let path = setup.folder().join("other");
    let words = ["a at", path.to_str().unwrap(), "second socket"];
    assert_fails(passing(setup, [&a, &other], Some("a:a")), 1, &words);
}

#[test]
fn one_that_does_not_listen_is_refused() {
    let setup = Setup::new().config(ONE);
    let fd = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let path = setup.folder().join("a");
    bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let words = ["socket a (", "does not listen", "ListenStream="];
    assert_fails(passing(setup, [&fd], Some("a")), 1, &words);
}

#[test]
fn a_connection_is_no_listener() {
    // What Accept=yes passes.
    let setup = Setup::new().config(ONE);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert_fails(passing(setup, [&ours], Some("a")), 1, &["socket a ("]);
}

#[test]
fn what_is_no_unix_socket_is_refused() {
    let setup = Setup::new().config(ONE);
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let words = ["descriptor 3 (a)", "no Unix socket"];
    assert_fails(passing(setup, [&tcp], Some("a")), 1, &words);

    let setup = Setup::new().config(ONE);
    let file = fs::File::open("/dev/null").unwrap();
    assert_fails(passing(setup, [&file], Some("a")), 1, &words);
}

#[test]
fn a_config_error_keeps_its_code_and_waits_too() {
    let setup = Setup::new().config("[socket.a]\npath = \"{dir}/a\"\nmood = \"fine\"\n");
    let socket = listener(&setup, "a");
    let file = setup.folder().join("udsd.toml");
    let line = format!("{}:3:", file.display());
    assert_fails(passing(setup, [&socket], Some("a")), 78, &[&line, "mood"]);
}

#[test]
fn its_file_outlives_the_daemon_and_so_do_those_who_wait() {
    let setup = Setup::new().config(ONE);
    let folder = setup.folder().clone();
    let socket = listener(&setup, "a");
    for _ in 0..2 {
        let setup = Setup::within(folder.clone()).config(ONE);
        // Came while no daemon was there.
        let mut early = connect(&folder.join("a"));
        early.write_all(b"early").unwrap();
        let mut daemon = passing(setup, [&socket], Some("a")).start();
        assert_eq!(harness::read_n(&early, 5), b"early");
        assert!(daemon.stop().success());
        assert!(
            folder.join("a").exists(),
            "unlinked a socket of the manager"
        );
        assert_eq!(read_all(&early), b"");
    }
}

#[test]
fn another_mode_than_the_config_file_has_is_warned_of_and_left() {
    let setup = Setup::new().config("[socket.a]\npath = \"{dir}/a\"\nmode = \"0640\"\n");
    let socket = listener(&setup, "a");
    set_mode(setup.folder(), "a", 0o606);
    let daemon = passing(setup, [&socket], Some("a")).start();
    daemon.wait_log(&["WARN", "socket a (", "mode 0606", "says 0640"]);
    let mode = fs::metadata(daemon.path("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
    assert_served(&daemon, "a");
}

#[test]
fn another_owner_than_the_config_file_has_is_warned_of() {
    let own = geteuid().as_raw();
    let other = own + 1;
    let config = format!("[socket.a]\npath = \"{{dir}}/a\"\nuser = \"{other}\"\n");
    let setup = Setup::new().config(&config);
    let socket = listener(&setup, "a");
    let daemon = passing(setup, [&socket], Some("a")).start();
    let there = format!("belongs to user {own}");
    daemon.wait_log(&["WARN", "socket a (", &there, &format!("says \"{other}\"")]);
    assert_served(&daemon, "a");
}

#[test]
fn a_file_that_is_gone_is_warned_of() {
    let setup = Setup::new().config(ONE);
    let socket = listener(&setup, "a");
    fs::remove_file(setup.folder().join("a")).unwrap();
    let daemon = passing(setup, [&socket], Some("a")).start();
    daemon.wait_log(&["WARN", "socket a (", "its file is gone"]);
}

#[test]
fn inherited_and_bound_sockets_serve_side_by_side() {
    let setup =
        Setup::new().config("[socket.bound]\npath = \"{dir}/b\"\n[socket.a]\npath = \"{dir}/a\"\n");
    let socket = listener(&setup, "a");
    let mut daemon = passing(setup, [&socket], Some("a")).start();
    daemon.wait_log(&["socket bound (", "bound"]);
    daemon.wait_log(&["socket a (", "inherited"]);
    assert_served(&daemon, "a");
    assert_served(&daemon, "b");
    assert!(daemon.stop().success());
    assert!(daemon.path("a").exists());
    assert!(!daemon.path("b").exists() && !daemon.path("b.lock").exists());
}

#[test]
fn access_lists_hold_whoever_listened_first() {
    let setup = Setup::new();
    let socket = listener(&setup, "a");
    let stranger = geteuid().as_raw() + 1;
    let config = format!("{ONE}allow-users = [{stranger}]\n");
    let daemon = passing(setup.config(&config), [&socket], None).start();
    assert_eq!(read_all(&daemon.connect("a")), b"");
    daemon.wait_log(&["refused a client", "not in socket.a.allow-users"]);
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let setup = Setup::new().config("[socket.b]\npath = \"{dir}/b\"\n");
    let socket = listener(&setup, "a");
    let daemon = setup
        .stdin(OwnedFd::from(socket))
        .wrapper(&["sh", "-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
        .variable("LISTEN_FDS", "1")
        .variable("LISTEN_PID", "1")
        .start();
    daemon.wait_log(&["socket b (", "bound"]);
    assert_served(&daemon, "b");
}

#[test]
fn with_credentials_on_every_message_nothing_is_lost() {
    // PassCredentials=yes of a socket unit: each read has control data that the daemon passes over.
    let setup = Setup::new().config(ONE);
    let socket = listener(&setup, "a");
    set_socket_passcred(&socket, true).unwrap();
    let daemon = passing(setup, [&socket], Some("a")).start();
    let client = daemon.connect("a");
    let mut random = Random::new(11);
    let bytes = random.bytes(300_000);
    let back = thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&client));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(rest.len().min(1 + random.below(3000)));
            (&client).write_all(piece).unwrap();
            rest = left;
        }
        client.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap()
    });
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
}

#[test]
fn a_read_that_stops_between_two_senders_credentials_goes_on() {
    let setup = Setup::new().config(ONE);
    let socket = listener(&setup, "a");
    set_socket_passcred(&socket, true).unwrap();
    let daemon = passing(setup, [&socket], Some("a")).start();
    let client = daemon.connect("a");
    round_trip(&client, b"here");
    // Two processes write to one connection while the daemon stands still: the kernel does not
    // join what has different senders.
    daemon.halt();
    for word in ["one", "two", "three"] {
        let status = Command::new("/bin/sh")
            .args(["-c", &format!("printf {word}")])
            .stdout(OwnedFd::from(client.try_clone().unwrap()))
            .status();
        assert!(status.unwrap().success());
    }
    daemon.resume();
    assert_eq!(harness::read_n(&client, 11), b"onetwothree");
}
