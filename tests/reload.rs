//! Promise: SIGHUP puts a changed file into force, all of it or nothing; whom it does not concern
//! notices nothing, and whom it does gets what it is owed and an end. The manager and the log are told.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use harness::{
    AtLast, Daemon, HANG, Random, Setup, Signal, apply_command, close_reader, connect, has_program,
    is_root, manager::passing, packets::Packets, read_all, read_n, round_trip, write_until_full,
};
use rustix::{
    io::ioctl_fionread,
    process::{Resource, Rlimit, getegid, geteuid, prlimit},
};
use udsd::config::keys::{self, Effect};

/// A socket of this name at its path in the folder.
fn socket(name: &str, keys: &str) -> String {
    format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\n{keys}\n")
}

/// A collecting socket called `log`.
fn collect(record: &str) -> String {
    let keys = "service = \"collect\"\nframing = \"lines\"";
    socket("log", keys) + &format!("[socket.log.record]\n{record}\n")
}

const RECORD: &str = "file = \"{dir}/record\"";

fn mode(daemon: &Daemon, name: &str) -> u32 {
    fs::metadata(daemon.path(name)).unwrap().mode() & 0o777
}

fn inode(daemon: &Daemon, name: &str) -> u64 {
    fs::metadata(daemon.path(name)).unwrap().ino()
}

/// What lies in the folder beside the harness' own.
fn files(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.folder().path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours = |name: &String| !name.starts_with("notify-") && !name.starts_with("udsd.toml");
    let mut names: Vec<String> = names.filter(ours).collect();
    names.sort();
    names
}

#[test]
fn limits_and_access_hold_for_newcomers_and_who_is_here_stays() {
    let daemon = Daemon::start(&socket("a", ""));
    let here = [daemon.connect("a"), daemon.connect("a")];
    here.iter().for_each(|client| round_trip(client, b"before"));
    daemon.reload_with(&socket("a", "clients = 2"));
    assert_eq!(read_all(&daemon.connect("a")), b"");
    daemon.wait_log(&["WARN", "a: refused a client", "socket.a.clients = 2"]);
    daemon.reload_with(&socket("a", "allow-users = [4242]"));
    assert_eq!(read_all(&daemon.connect("a")), b"");
    daemon.wait_log(&["WARN", "a: refused a client", "allow-users"]);
    here.iter().for_each(|client| round_trip(client, b"after"));
    daemon.reload_with(&("[limits]\nclients = 2\n".to_owned() + &socket("a", "")));
    assert_eq!(read_all(&daemon.connect("a")), b"");
    daemon.reload_with(&socket("a", "idle-timeout = \"1ms\""));
    here.iter()
        .for_each(|client| assert_eq!(read_all(client), b""));
}

#[test]
fn only_the_keys_that_say_so_end_clients() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let others: [(&str, &str, String); 17] = [
        ("path", "path = \"{dir}/a\"", "path = \"{dir}/b\"".into()),
        ("type", "", "type = \"seqpacket\"".into()),
        ("mode", "", "mode = \"0600\"".into()),
        ("user", "", format!("user = {uid}")),
        ("group", "", format!("group = {gid}")),
        ("backlog", "", "backlog = 9".into()),
        ("allow-users", "", format!("allow-users = [{uid}]")),
        ("allow-groups", "", format!("allow-groups = [{gid}]")),
        ("service", "", "service = \"relay\"".into()),
        ("framing", "framing = \"nul\"", "framing = \"lines\"".into()),
        ("message-size", "", "message-size = 9".into()),
        ("queue-size", "", "queue-size = \"9MiB\"".into()),
        ("slow-client", "", "slow-client = \"drop\"".into()),
        ("slow-timeout", "", "slow-timeout = \"9s\"".into()),
        ("idle-timeout", "", "idle-timeout = \"9min\"".into()),
        ("clients", "", "clients = 9".into()),
        ("history-size", "", "history-size = \"9KiB\"".into()),
    ];
    // What takes the socket away, or is of datagrams, relays or records alone.
    let apart = ["enabled", "answer-abstract", "stamp", "history", "ack"];
    let daemon = Daemon::start(&socket("a", ""));
    for key in keys::SOCKET.keys().filter(|key| !apart.contains(&key.name)) {
        let (name, before, after) = others.iter().find(|other| other.0 == key.name).unwrap();
        let path = if *name == "path" {
            ""
        } else {
            "path = \"{dir}/a\"\n"
        };
        daemon.reload_with(&format!("[socket.a]\n{path}{before}\n"));
        let client = daemon.connect("a");
        round_trip(&client, b"before\0");
        daemon.reload_with(&format!("[socket.a]\n{path}{after}\n"));
        // Without units, a socket of another type is made in its place.
        if key.effect == Effect::EndsClients || *name == "type" {
            assert_eq!(read_all(&client), b"", "{name}");
        } else {
            round_trip(&client, b"after\0");
        }
    }
}

#[test]
fn the_manager_is_told_when_it_begins_and_when_it_is_done() {
    let daemon = Daemon::start(&socket("a", ""));
    daemon.reload_with(&(socket("a", "") + &socket("b", "")));
    let notes = daemon.notes();
    let begun = notes.iter().position(|note| note.contains("RELOADING=1"));
    let usec = notes[begun.unwrap()].lines().find_map(|line| {
        let usec = line.strip_prefix("MONOTONIC_USEC=")?;
        usec.parse::<u64>().ok()
    });
    assert_ne!(usec.expect("MONOTONIC_USEC"), 0);
    assert!(notes[begun.unwrap() + 1].contains("READY=1"), "{notes:?}");
    assert!(notes[begun.unwrap() + 1].contains("STATUS=0 clients, 0 messages, 2 sockets"));
    daemon.wait_log(&["INFO", "reloaded", "udsd.toml"]);
    daemon.wait_log(&["INFO", "socket b (", "bound"]);
}

#[test]
fn a_drop_in_is_followed_when_it_comes_changes_hides_and_goes() {
    let daemon = Daemon::start(&socket("a", ""));
    let client = daemon.connect("a");
    let drop_ins = daemon.path("udsd.toml.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let write = |name: &str, text: &str| {
        let text = text.replace("{dir}", daemon.folder().path().to_str().unwrap());
        fs::write(drop_ins.join(name), text).unwrap();
        daemon.reload()
    };
    write("10-b.toml", &socket("b", "clients = 1"));
    let of_b = daemon.connect("b");
    round_trip(&of_b, b"it came");
    daemon.wait_log(&["INFO", "reloaded", "udsd.toml, ", "10-b.toml"]);
    assert_eq!(read_all(&daemon.connect("b")), b"");
    write("20-mine.toml", "socket.b.clients = 2\n");
    round_trip(&daemon.connect("b"), b"the later key wins");
    let status = write("20-mine.toml", "socket.b.clients = 'x'\n");
    assert!(
        status.contains("20-mine.toml:1: socket.b.clients"),
        "{status}"
    );
    round_trip(&daemon.connect("b"), b"nothing applies");
    write("20-mine.toml", "socket.b.enabled = false\n");
    assert_eq!(read_all(&of_b), b"");
    assert!(!daemon.path("b").exists());
    write("20-mine.toml", "");
    round_trip(&daemon.connect("b"), b"on again");
    fs::remove_file(drop_ins.join("10-b.toml")).unwrap();
    daemon.reload();
    assert!(!daemon.path("b").exists());
    round_trip(&client, b"of no concern");
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported_until_it_is_mended() {
    let daemon = Daemon::start(&socket("a", ""));
    let client = daemon.connect("a");
    round_trip(&client, b"before");
    let text = socket("a", "clients = 1\nmode = \"rw\"") + &socket("b", "backlog = \"x\"");
    let status = daemon.fail_to_reload(&text);
    assert!(status.contains("udsd.toml:4: socket.a.mode"), "{status}");
    daemon.wait_log(&["ERROR", "udsd.toml:4: socket.a.mode"]);
    daemon.wait_log(&["ERROR", "socket.b.backlog"]);
    daemon.wait_log(&["ERROR", "reload failed, serving as before"]);
    round_trip(&client, b"after");
    round_trip(&daemon.connect("a"), b"no limit");
    assert_eq!(files(&daemon), ["a", "a.lock"]);
    fs::remove_file(daemon.path("udsd.toml")).unwrap();
    let status = daemon.reload();
    assert!(status.contains("cannot be read"), "{status}");
    daemon.reload_with(&socket("a", "clients = 1"));
    assert_eq!(read_all(&daemon.connect("a")), b"");
    // A user that does not exist is found before anything is touched.
    let status = daemon.fail_to_reload(&socket("a", "allow-users = [\"nobody-has-this-name\"]"));
    assert!(status.contains("socket.a.allow-users"), "{status}");
}

#[test]
fn what_fails_behind_the_check_changes_nothing_either() {
    let daemon = Daemon::start(&(socket("a", "") + &socket("t", "") + &socket("gone", "")));
    let foreign = UnixListener::bind(daemon.path("foreign")).unwrap();
    let clients = ["a", "t", "gone"].map(|name| daemon.connect(name));
    clients
        .iter()
        .for_each(|client| round_trip(client, b"before"));
    let before = (inode(&daemon, "a"), inode(&daemon, "t"), files(&daemon));
    let changed = socket("a", "mode = \"0600\"\nclients = 1")
        + &socket("t", "type = \"seqpacket\"")
        + &socket("new", "");
    for (fails, words) in [
        (socket("foreign", ""), "in use by pid"),
        (
            collect("file = \"{dir}/no/folder/record\""),
            "socket.log.record.file",
        ),
        (collect("file = \"{dir}\""), "socket.log.record.file"),
    ] {
        let status = daemon.fail_to_reload(&(changed.clone() + &fails));
        assert!(status.contains(words), "{status}");
        daemon.wait_log(&["ERROR", words]);
        let after = (inode(&daemon, "a"), inode(&daemon, "t"), files(&daemon));
        assert_eq!(after, before);
        assert_eq!(mode(&daemon, "a"), 0o660);
        for (client, name) in clients.iter().zip(["a", "t", "gone"]) {
            round_trip(client, b"after");
            round_trip(&daemon.connect(name), b"newcomer");
        }
    }
    drop(foreign);
}

#[test]
fn sockets_come_go_and_move_and_the_rest_keep_their_clients() {
    let mut daemon =
        Daemon::start(&(socket("stays", "") + &socket("goes", "") + &socket("moves", "")));
    let clients = ["stays", "goes", "moves"].map(|name| daemon.connect(name));
    clients
        .iter()
        .for_each(|client| round_trip(client, b"before"));
    let moved = socket("moves", "").replace("/moves", "/moved");
    daemon.reload_with(&(socket("new", "") + &moved + &socket("stays", "")));
    assert_eq!(
        files(&daemon),
        [
            "moved",
            "moved.lock",
            "new",
            "new.lock",
            "stays",
            "stays.lock"
        ]
    );
    let [stays, goes, moves] = &clients;
    assert_eq!(read_all(goes), b"");
    for client in [stays, moves] {
        round_trip(client, b"after");
    }
    for name in ["new", "stays", "moved"] {
        round_trip(&daemon.connect(name), b"newcomer");
    }
    daemon.wait_log(&["INFO", "socket goes (", "removed"]);
    daemon.wait_log(&["INFO", "goes: 1 clients", "its socket is gone"]);
    daemon.wait_log(&[
        "socket moves (",
        "/moved): bound, ",
        ", in place of socket moves (",
    ]);
    let told = |line: &str| daemon.log().matches(line).count();
    assert_eq!(told("): bound, stream, echo"), 3 + 2, "{}", daemon.log());
    assert_eq!(told("): removed"), 1, "{}", daemon.log());
    // Back to the old path, and a name that was there before.
    daemon.reload_with(&(socket("goes", "") + &socket("moves", "")));
    round_trip(moves, b"moved back");
    round_trip(&daemon.connect("goes"), b"newcomer");
    assert_eq!(read_all(stays), b"");
    assert!(daemon.stop().success());
    assert_eq!(files(&daemon), [""; 0]);
}

#[test]
fn two_sockets_may_change_places() {
    let at = |name: &str, path: &str| socket(name, "").replace(&format!("/{name}"), path);
    let daemon = Daemon::start(&(at("a", "/x") + &at("b", "/y")));
    let clients = [daemon.connect("x"), daemon.connect("y")];
    clients
        .iter()
        .for_each(|client| round_trip(client, b"before"));
    daemon.reload_with(&(at("a", "/y") + &(at("b", "/x") + "clients = 1")));
    clients
        .iter()
        .for_each(|client| round_trip(client, b"after"));
    round_trip(&daemon.connect("y"), b"newcomer");
    assert_eq!(
        read_all(&daemon.connect("x")),
        b"",
        "b has a client already"
    );
    assert_eq!(files(&daemon), ["x", "x.lock", "y", "y.lock"]);
}

#[test]
fn an_abstract_name_passes_to_another_socket_by_a_restart_alone() {
    let name = format!("udsd-reload-{}", std::process::id());
    let text = |socket: &str| format!("[socket.{socket}]\npath = \"@{name}\"\n");
    let daemon = Daemon::start(&text("a"));
    let client = || {
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        UnixStream::connect_addr(&address).unwrap()
    };
    let here = client();
    round_trip(&here, b"before");
    let status = daemon.fail_to_reload(&text("b"));
    assert!(status.contains("restart udsd to pass it on"), "{status}");
    round_trip(&here, b"after");
    daemon.reload_with(&(text("a") + "type = \"seqpacket\"\n"));
    assert_eq!(read_all(&here), b"");
    let refused = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap());
    assert!(refused.is_err());
}

#[test]
fn who_waits_to_be_accepted_is_served_where_the_socket_moves_and_ended_where_it_goes() {
    let daemon = Daemon::start(&(socket("goes", "") + &socket("moves", "")));
    round_trip(&daemon.connect("goes"), b"awake");
    daemon.write_config(&socket("moves", "").replace("/moves", "/moved"));
    daemon.halt();
    let goes: Vec<UnixStream> = (0..100).map(|_| daemon.connect("goes")).collect();
    let moves: Vec<UnixStream> = (0..100).map(|_| daemon.connect("moves")).collect();
    daemon.signal(Signal::HUP);
    daemon.resume();
    for client in &goes {
        // No error: an end of file.
        assert_eq!(read_all(client), b"");
    }
    for client in &moves {
        round_trip(client, b"served");
    }
}

#[test]
fn mode_and_owner_change_in_place() {
    let daemon = Daemon::start(&socket("a", ""));
    let client = daemon.connect("a");
    let before = inode(&daemon, "a");
    daemon.reload_with(&socket("a", "mode = \"0600\""));
    assert_eq!((mode(&daemon, "a"), inode(&daemon, "a")), (0o600, before));
    if is_root() {
        daemon.reload_with(&socket(
            "a",
            "mode = \"0666\"\nuser = \"4242\"\ngroup = \"4343\"",
        ));
        let there = fs::metadata(daemon.path("a")).unwrap();
        assert_eq!(
            (there.uid(), there.gid(), there.ino()),
            (4242, 4343, before)
        );
        assert_eq!(mode(&daemon, "a"), 0o666);
        // Back to what the daemon runs as.
        daemon.reload_with(&socket("a", "mode = \"0640\""));
        let there = fs::metadata(daemon.path("a")).unwrap();
        assert_eq!((there.uid(), there.gid()), (0, 0));
        assert_eq!(mode(&daemon, "a"), 0o640);
    }
    round_trip(&client, b"after");
    // What somebody else put in its place is not touched.
    fs::remove_file(daemon.path("a")).unwrap();
    fs::write(daemon.path("a"), "foreign").unwrap();
    fs::set_permissions(daemon.path("a"), fs::Permissions::from_mode(0o644)).unwrap();
    let status = daemon.fail_to_reload(&socket("a", "mode = \"0600\""));
    assert!(status.contains("left untouched"), "{status}");
    assert_eq!(mode(&daemon, "a"), 0o644);
    round_trip(&client, b"after");
}

/// More than fits anywhere, and the least that is then owed.
const FLOOD: usize = 8 << 20;
const LEAST: usize = 1 << 20;

#[test]
fn another_service_framing_or_type_dismisses_clients_with_what_they_are_owed() {
    for keys in [
        "framing = \"nul\"",
        "service = \"relay\"",
        "type = \"seqpacket\"",
    ] {
        let daemon = Daemon::start(&socket("a", "slow-timeout = \"1h\""));
        let bytes = Random::new(7).bytes(FLOOD);
        let (client, idle) = (daemon.connect("a"), daemon.connect("a"));
        round_trip(&idle, b"owed nothing");
        write_until_full(&client, &bytes, LEAST);
        daemon.reload_with(&socket("a", keys));
        assert_eq!(read_all(&idle), b"");
        daemon.wait_log(&["INFO", "a: 2 clients get what they are owed"]);
        if keys.starts_with("type") {
            let [one, _] = [
                Packets::connect(&daemon.path("a")),
                Packets::connect(&daemon.path("a")),
            ];
            one.round_trip(b"newcomer");
        } else {
            let (one, other) = (daemon.connect("a"), daemon.connect("a"));
            let reader = if keys.starts_with("service") {
                &other
            } else {
                &one
            };
            // Members from the moment they are here.
            daemon.wait_note("STATUS=3 clients");
            (&one).write_all(b"newcomer\0").unwrap();
            assert_eq!(read_n(reader, 9), b"newcomer\0", "{keys}");
        }
        // An error here would be a reset.
        let came = read_all(&client);
        assert!(came.len() >= LEAST && bytes.starts_with(&came), "{keys}");
        daemon.wait_log(&["WARN", "changed in the config file", "bytes unread"]);
    }
}

#[test]
fn a_type_that_cannot_change_leaves_the_old_socket_in_its_place() {
    let daemon = Daemon::start(&socket("a", ""));
    fs::write(daemon.path("a.replaced"), "foreign").unwrap();
    let before = inode(&daemon, "a");
    let status = daemon.fail_to_reload(&socket("a", "type = \"seqpacket\""));
    assert!(status.contains("a.replaced"), "{status}");
    assert_eq!(inode(&daemon, "a"), before);
    round_trip(&daemon.connect("a"), b"still here");
    assert_eq!(fs::read(daemon.path("a.replaced")).unwrap(), b"foreign");
}

#[test]
fn conversations_do_not_notice_reloads() {
    let texts = [
        socket("a", "queue-size = \"64KiB\""),
        socket("a", "queue-size = \"1MiB\"\nidle-timeout = \"1h\"") + &socket("b", ""),
        socket("new", "") + &socket("a", "mode = \"0600\""),
        socket("a", "backlog = 10").replace("/a", "/moved"),
    ];
    let daemon = Daemon::start(&texts[0]);
    let clients: Vec<UnixStream> = (0..8).map(|_| daemon.connect("a")).collect();
    clients
        .iter()
        .for_each(|client| round_trip(client, b"here"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (seed, client) in (1..).zip(&clients) {
            let over = &over;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !over.load(Ordering::Relaxed) {
                    let length = 1 + random.below(300_000);
                    let bytes = random.bytes(length);
                    thread::scope(|scope| {
                        scope.spawn(|| (&mut &*client).write_all(&bytes).unwrap());
                        assert!(read_n(client, length) == bytes, "other bytes came back");
                    });
                }
            });
        }
        let _end = AtLast(&over);
        for text in texts.iter().cycle().skip(1).take(60) {
            daemon.reload_with(text);
        }
    });
    let idle = daemon.connect("a");
    round_trip(&idle, b"newcomer");
}

#[test]
fn nothing_is_left_of_what_came_and_went() {
    let few = socket("a", "");
    let datagram = socket("d", "type = \"datagram\"");
    let many = socket("a", "") + &datagram + &socket("b", "") + &collect(RECORD);
    let daemon = Daemon::start(&few);
    let open = |daemon: &Daemon| daemon.descriptors("a");
    let before = open(&daemon);
    // The record's thread ends, and lets go of the file, once all is written.
    let await_end = |daemon: &Daemon| {
        let tasks = format!("/proc/{}/task", daemon.pid().as_raw_nonzero());
        let deadline = Instant::now() + HANG;
        while fs::read_dir(&tasks).unwrap().count() > 1 {
            assert!(Instant::now() < deadline, "a thread is left");
            thread::yield_now();
        }
    };
    for round in 0..5 {
        daemon.reload_with(&many);
        let client = daemon.connect("log");
        (&client).write_all(b"line\n").unwrap();
        let b = daemon.connect("b");
        round_trip(&b, b"x");
        daemon.reload_with(&few);
        assert_eq!(
            (read_all(&client), read_all(&b)),
            (vec![], vec![]),
            "{round}"
        );
        await_end(&daemon);
    }
    // The clients' ends came before they were closed.
    let told = daemon.reload();
    assert!(told.starts_with("0 clients"), "{told}");
    assert_eq!(open(&daemon), before);
}

/// The numbers that the lines of these record files end with, in their order.
fn numbers(daemon: &Daemon, files: &[&str]) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for file in files {
        for line in fs::read_to_string(daemon.path(file)).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = line["message"].as_str().unwrap().parse().unwrap();
            all.push((line["seq"].as_u64().unwrap(), message));
        }
    }
    all
}

#[test]
fn a_record_that_was_moved_away_goes_on_in_a_new_file() {
    let daemon = Daemon::start(&collect(RECORD));
    let mut client = daemon.connect("log");
    let over = AtomicBool::new(false);
    let names: Vec<String> = (0..10).map(|n| format!("record.{n}")).collect();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                client
                    .write_all(format!("{}\n{}\n", n, n + 1).as_bytes())
                    .unwrap();
                n += 2;
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&client), b"");
            n
        });
        let end = AtLast(&over);
        for name in &names {
            fs::rename(daemon.path("record"), daemon.path(name)).unwrap();
            let status = daemon.reload();
            assert!(!status.contains("failed"), "{status}");
            assert_eq!(mode(&daemon, "record"), 0o640);
            // The lines of several reloads may not wait at a time.
            let hung = Instant::now() + HANG;
            while fs::metadata(daemon.path("record")).unwrap().len() == 0 {
                assert!(Instant::now() < hung, "nothing is written to the new file");
            }
        }
        drop(end);
        sender.join().unwrap()
    });
    let files: Vec<&str> = names.iter().map(String::as_str).chain(["record"]).collect();
    let mut daemon = daemon;
    assert!(daemon.stop().success());
    let expected: Vec<(u64, u64)> = (0..sent).map(|n| (n + 1, n)).collect();
    assert!(
        numbers(&daemon, &files) == expected,
        "lost, twice or out of order"
    );
}

#[test]
fn a_record_that_stayed_is_not_opened_anew() {
    let daemon = Daemon::start(&collect(RECORD));
    let before = inode(&daemon, "record");
    for _ in 0..3 {
        let status = daemon.reload();
        assert!(!status.contains("failed"), "{status}");
    }
    assert_eq!(inode(&daemon, "record"), before);
}

fn say(daemon: &Daemon, name: &str, line: &str) {
    let client = daemon.connect(name);
    (&client).write_all(format!("{line}\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
}

#[test]
fn a_record_may_change_its_form_and_its_place_and_end() {
    let mut daemon = Daemon::start(&collect(RECORD));
    say(&daemon, "log", "0");
    daemon.reload_with(&collect(&format!("{RECORD}\nformat = \"raw\"")));
    say(&daemon, "log", "raw");
    daemon.reload_with(&collect("file = \"{dir}/other\""));
    say(&daemon, "log", "2");
    daemon.reload_with(&collect(""));
    say(&daemon, "log", "3");
    let output = daemon.wait_output(1);
    assert!(output[0].contains("\"seq\":4,"), "{output:?}");
    daemon.reload_with(&collect("file = \"{dir}/other\""));
    say(&daemon, "log", "4");
    // The trail of an echo ends and begins again where its file stands.
    let echo = socket("log", "framing = \"lines\"");
    let trail = "[socket.log.record]\nfile = \"{dir}/other\"\n";
    daemon.reload_with(&echo);
    say(&daemon, "log", "nobody");
    daemon.reload_with(&(echo + trail));
    say(&daemon, "log", "5");
    assert!(daemon.stop().success());
    assert_eq!(numbers(&daemon, &["other"]), [(3, 2), (5, 4), (6, 5)]);
    let first = fs::read_to_string(daemon.path("record")).unwrap();
    assert!(
        first.contains("\"seq\":1,") && first.ends_with("}\nraw\n"),
        "{first}"
    );
}

/// A daemon by `config`, whose record has taken 20 lines, for which the disk has no room yet.
fn with_full_disk(config: &str) -> Daemon {
    let daemon = Setup::new()
        .wrapper(&["prlimit", "--fsize=1000:unlimited", "--"])
        .config(config)
        .start();
    let mut client = daemon.connect("log");
    (0..20).for_each(|line| writeln!(client, "{line}").unwrap());
    daemon.wait_log(&["WARN", "record", "File too large", "trying again"]);
    daemon
}

fn make_room(daemon: &Daemon) {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(Some(daemon.pid()), Resource::Fsize, none).unwrap();
}

/// The record ends and begins again, or another takes its file, before the disk has taken its lines: those come
/// first, and numbers go on, also those that a relay stamps.
#[test]
fn a_record_begins_behind_the_lines_that_are_still_to_be_written_there() {
    if !has_program("prlimit") {
        return;
    }
    let here = collect(RECORD);
    let elsewhere = collect("file = \"{dir}/other\"");
    let relay = socket(
        "log",
        "service = \"relay\"\nframing = \"lines\"\nstamp = true",
    );
    let trail = format!("{relay}[socket.log.record]\n{RECORD}\n");
    let taken = elsewhere.clone() + &here.replace("log", "new");
    for (steps, name) in [([&relay, &trail], "log"), ([&elsewhere, &taken], "new")] {
        let mut daemon = with_full_disk(&here);
        steps.into_iter().for_each(|step| daemon.reload_with(step));
        let hearer = daemon.connect(name);
        let mut speaker = daemon.connect(name);
        writeln!(speaker, "20").unwrap();
        make_room(&daemon);
        if name == "log" {
            let heard = BufReader::new(&hearer).lines().next().unwrap().unwrap();
            assert!(heard.contains("\"seq\":21,"), "{heard}");
        } else {
            speaker.shutdown(Shutdown::Write).unwrap();
            read_all(&speaker);
        }
        assert!(daemon.stop().success());
        let all: Vec<_> = (0..=20).map(|n| (n + 1, n)).collect();
        assert_eq!(numbers(&daemon, &["record"]), all, "{steps:?}");
        assert!(!daemon.path(".record.lock").exists());
    }
}

/// It left before the disk had taken its lines: it cannot come back until then.
#[test]
fn a_record_comes_back_once_its_lines_are_written() {
    if !has_program("prlimit") {
        return;
    }
    let here = collect(RECORD);
    let mut daemon = with_full_disk(&here);
    daemon.reload_with(&collect("file = \"{dir}/other\""));
    let status = daemon.fail_to_reload(&here);
    assert!(status.contains("of an earlier reload"), "{status}");
    make_room(&daemon);
    daemon.wait_log(&["writing again"]);
    say(&daemon, "log", "20");
    // The old file is left before the other is written to.
    let deadline = Instant::now() + HANG;
    while fs::metadata(daemon.path("other")).unwrap().len() == 0 {
        assert!(Instant::now() < deadline, "nothing is recorded");
        thread::yield_now();
    }
    daemon.reload_with(&here);
    say(&daemon, "log", "21");
    assert!(daemon.stop().success());
    let mut all: Vec<_> = (0..20).map(|n| (n + 1, n)).collect();
    all.extend([(22, 21), (21, 20)]);
    assert_eq!(numbers(&daemon, &["record", "other"]), all);
}

#[test]
fn two_records_do_not_share_a_file_by_two_paths() {
    let text = collect("file = \"{dir}/real/record\"");
    let setup = Setup::new().config(&text);
    fs::create_dir(setup.folder().join("real")).unwrap();
    std::os::unix::fs::symlink("real", setup.folder().join("link")).unwrap();
    let mut daemon = setup.start();
    let other = text.replace("log", "new").replace("real", "link");
    let status = daemon.fail_to_reload(&(text + &other));
    assert!(status.contains("give each its own file"), "{status}");
    assert!(daemon.stop().success());
}

/// Its lines are lost: nobody reads them any more.
#[test]
fn a_standard_output_that_closes_after_its_record_has_ended_ends_the_daemon() {
    for _ in 0..10 {
        let (reader, writer) = std::io::pipe().unwrap();
        let setup = Setup::new().config(&collect(""));
        let mut daemon = setup.stdout(writer.try_clone().unwrap()).start();
        let client = daemon.connect("log");
        // More than a pipe holds.
        (&client)
            .write_all(&b"a line of a few bytes\n".repeat(2000))
            .unwrap();
        let deadline = Instant::now() + HANG;
        while ioctl_fionread(&reader).unwrap() < 32 << 10 {
            assert!(Instant::now() < deadline, "nothing is recorded");
            thread::yield_now();
        }
        daemon.reload_with(&socket("log", "framing = \"lines\""));
        daemon.halt();
        daemon.signal(Signal::HUP);
        close_reader(reader, &writer);
        daemon.resume();
        assert_eq!(daemon.wait().code(), Some(1));
        assert!(daemon.log().contains("standard output"), "{}", daemon.log());
    }
}

#[test]
fn a_standard_output_that_closes_during_a_reload_ends_the_daemon() {
    // Where in a turn the record's thread finds out is open: before the reload, in it or after.
    for _ in 0..10 {
        let (reader, writer) = std::io::pipe().unwrap();
        let setup = Setup::new().config(&collect(""));
        let mut daemon = setup.stdout(writer.try_clone().unwrap()).start();
        let mut client = daemon.connect("log");
        client.write_all(b"one\n").unwrap();
        daemon.halt();
        client.write_all(b"two\n").unwrap();
        daemon.signal(Signal::HUP);
        close_reader(reader, &writer);
        daemon.resume();
        assert_eq!(daemon.wait().code(), Some(1));
        assert!(daemon.log().contains("standard output"), "{}", daemon.log());
    }
}

#[test]
fn a_socket_that_gets_another_name_keeps_path_and_record() {
    let named = |name: &str| collect(RECORD).replace("socket.log", &format!("socket.{name}"));
    let mut daemon = Daemon::start(&named("old"));
    say(&daemon, "log", "0");
    let client = daemon.connect("log");
    (&client).write_all(b"1\n").unwrap();
    daemon.wait_note("STATUS=1 client, 2 messages");
    daemon.reload_with(&named("new"));
    assert_eq!(read_all(&client), b"");
    say(&daemon, "log", "2");
    assert!(daemon.stop().success());
    assert_eq!(numbers(&daemon, &["record"]), [(1, 0), (2, 1), (3, 2)]);
    assert_eq!(files(&daemon), ["record"]);
}

#[test]
fn two_records_may_change_places() {
    let pair = |a: &str, b: &str| {
        let keys = "service = \"collect\"\nframing = \"lines\"";
        let record = |name: &str, file: &str| {
            socket(name, keys)
                + &format!("[socket.{name}.record]\nfile = \"{{dir}}/{file}\"\nformat = \"raw\"\n")
        };
        record("a", a) + &record("b", b)
    };
    let mut daemon = Daemon::start(&pair("x", "y"));
    say(&daemon, "a", "to x");
    say(&daemon, "b", "to y");
    daemon.reload_with(&pair("y", "x"));
    say(&daemon, "a", "then to y");
    say(&daemon, "b", "then to x");
    // One takes over the other's file, which goes elsewhere.
    daemon.reload_with(&pair("x", "z"));
    say(&daemon, "a", "again to x");
    say(&daemon, "b", "to z");
    assert!(daemon.stop().success());
    let text = |name: &str| fs::read_to_string(daemon.path(name)).unwrap();
    assert_eq!(text("x"), "to x\nthen to x\nagain to x\n");
    assert_eq!(text("y"), "to y\nthen to y\n");
    assert_eq!(text("z"), "to z\n");
}

#[test]
fn datagrams_are_judged_anew_and_their_socket_may_move() {
    let keys = "type = \"datagram\"";
    let daemon = Daemon::start(&(socket("a", keys) + &socket("echo", "")));
    let client = UnixDatagram::bind(daemon.path("client")).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    let ask = |path: &str, text: &[u8]| {
        client.send_to(text, daemon.path(path)).unwrap();
        let mut buffer = [0; 100];
        let n = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], text);
    };
    ask("a", b"before");
    let denied = socket("a", &format!("{keys}\nallow-users = [4242]")) + &socket("echo", "");
    daemon.reload_with(&denied);
    client.send_to(b"kept out", daemon.path("a")).unwrap();
    daemon.wait_log(&["WARN", "a: refused a datagram"]);
    let moved = socket("a", keys).replace("/a", "/moved") + &socket("echo", "");
    daemon.reload_with(&moved);
    ask("moved", b"after");
    assert!(client.send_to(b"gone", daemon.path("a")).is_err());
    // The same path, now for clients that connect.
    daemon.reload_with(&(moved.replace(keys, "") + &socket("d", keys)));
    round_trip(&daemon.connect("moved"), b"stream");
    ask("d", b"new");
}

#[test]
fn daemon_keys_apply() {
    let text = |daemon: &str| {
        format!(
            "[daemon]\n{daemon}\n{}",
            socket("a", "slow-timeout = \"1h\"")
        )
    };
    let mut daemon = Daemon::start(&text("drain-timeout = \"1h\""));
    round_trip(&daemon.connect("a"), b"quiet");
    assert!(!daemon.log().contains("DEBUG"));
    daemon.reload_with(&text("log = \"debug\"\ndrain-timeout = \"300ms\""));
    let client = daemon.connect("a");
    round_trip(&client, b"loud");
    daemon.wait_log(&["DEBUG", "a: client 2", "connected"]);
    write_until_full(&client, &vec![7; FLOOD], LEAST);
    assert!(daemon.stop().success());
    daemon.wait_log(&["stop cut short by drain-timeout"]);
}

#[test]
fn rust_log_wins_also_over_a_changed_file() {
    let setup = Setup::new().config(&socket("a", ""));
    let daemon = setup.variable("RUST_LOG", "info").start();
    daemon.reload_with(&("[daemon]\nlog = \"debug\"\n".to_owned() + &socket("a", "")));
    round_trip(&daemon.connect("a"), b"x");
    daemon.wait_log(&["INFO", "reloaded"]);
    assert!(!daemon.log().contains("DEBUG"));
}

#[test]
fn exit_on_idle_is_refused_where_the_daemon_binds_its_sockets() {
    let daemon = Daemon::start(&socket("a", ""));
    let status =
        daemon.fail_to_reload(&("[daemon]\nexit-on-idle = \"1s\"\n".to_owned() + &socket("a", "")));
    assert!(status.contains("daemon.exit-on-idle"), "{status}");
}

#[test]
fn an_ad_hoc_socket_has_nothing_to_reload() {
    let daemon = Daemon::ad_hoc(&[]);
    let client = daemon.connect("socket");
    round_trip(&client, b"before");
    daemon.reload();
    daemon.wait_log(&["WARN", "nothing to reload"]);
    round_trip(&client, b"after");
}

#[test]
fn a_reload_is_passed_over_while_the_daemon_stops() {
    let text =
        "[daemon]\ndrain-timeout = \"1h\"\n".to_owned() + &socket("a", "slow-timeout = \"1h\"");
    let mut daemon = Daemon::start(&text);
    let client = daemon.connect("a");
    write_until_full(&client, &vec![7; FLOOD], LEAST);
    daemon.signal(Signal::TERM);
    daemon.wait_note("STOPPING=1");
    daemon.signal(Signal::HUP);
    let mut came = 0;
    let mut piece = [0; 65536];
    loop {
        let n = (&client).read(&mut piece).unwrap();
        came += n;
        if n == 0 {
            break;
        }
    }
    assert!(came >= LEAST);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.notes().concat().contains("RELOADING"));
}

/// With a listener at `a` in the folder that the manager passes.
fn inherited(text: &str) -> (Daemon, UnixListener) {
    let setup = Setup::new().config(text);
    let path = setup.folder().join("a");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    let daemon = passing(setup, &[listener.as_fd()], Some("a")).start();
    (daemon, listener)
}

#[test]
fn what_socket_units_have_to_follow_changes_nothing_and_names_the_command() {
    let (daemon, _manager) = inherited(&socket("a", ""));
    let client = connect(&daemon.path("a"));
    round_trip(&client, b"before");
    for (text, key) in [
        (
            socket("a", "clients = 1").replace("/a", "/b"),
            "socket.a.path",
        ),
        (
            socket("a", "clients = 1\ntype = \"seqpacket\""),
            "socket.a.type",
        ),
        (socket("a", "clients = 1\nmode = \"0666\""), "socket.a.mode"),
        (socket("a", "clients = 1\nuser = \"0\""), "socket.a.user"),
        (socket("a", "clients = 1\ngroup = \"0\""), "socket.a.group"),
        (
            socket("a", "clients = 1") + &socket("b", ""),
            "socket.b: is new",
        ),
        (socket("b", ""), "socket.a: is gone"),
    ] {
        let status = daemon.fail_to_reload(&text);
        assert!(status.contains(key), "{key}: {status}");
        assert!(status.contains(apply_command()), "{status}");
        daemon.wait_log(&["ERROR", key, apply_command()]);
        round_trip(&client, b"after");
        round_trip(&connect(&daemon.path("a")), b"newcomer");
    }
    assert_eq!(files(&daemon), ["a"]);
    daemon.reload_with(&socket(
        "a",
        "backlog = 7\nclients = 1\nservice = \"relay\"",
    ));
    daemon.wait_log(&["WARN", "socket.a.backlog", apply_command()]);
    assert_eq!(read_all(&client), b"");
    let _member = connect(&daemon.path("a"));
    assert_eq!(read_all(&connect(&daemon.path("a"))), b"");
}

#[test]
fn one_that_cannot_be_bound_anew_fails_the_reload_also_beside_a_managers() {
    let text = socket("a", "") + &socket("b", "");
    let (daemon, _manager) = inherited(&text);
    let client = connect(&daemon.path("b"));
    round_trip(&client, b"before");
    fs::remove_file(daemon.path("b")).unwrap();
    fs::write(daemon.path("b"), "somebody's").unwrap();
    let text = text.replace("[socket.a]", "[socket.a]\nclients = 1");
    let status = daemon.fail_to_reload(&text);
    assert!(status.contains("socket b ("), "{status}");
    round_trip(&client, b"after");
    let others = [(); 2].map(|()| connect(&daemon.path("a")));
    for other in others {
        round_trip(&other, b"as many as before");
    }
    assert_eq!(fs::read(daemon.path("b")).unwrap(), b"somebody's");
}

#[test]
fn exit_on_idle_may_come_with_a_reload() {
    let (mut daemon, _manager) = inherited(&socket("a", ""));
    daemon.reload_with(&("[daemon]\nexit-on-idle = \"1s\"\n".to_owned() + &socket("a", "")));
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_log(&["idle for 1s"]);
}

#[test]
fn a_restart_after_reloads_goes_on_with_all_of_them() {
    let record = |name: &str| {
        let keys = "service = \"collect\"\nframing = \"lines\"";
        socket(name, keys) + &format!("[socket.{name}.record]\nfile = \"{{dir}}/record\"\n")
    };
    let first = socket("gone", "slow-timeout = \"1h\"")
        + &socket("changed", "slow-timeout = \"1h\"")
        + &socket("stays", "")
        + &record("old");
    let mut daemon = Setup::new().keeping().config(&first).start();
    let bytes = Random::new(9).bytes(FLOOD);
    let owed = ["gone", "changed"].map(|name| daemon.connect(name));
    for client in &owed {
        write_until_full(client, &bytes, LEAST);
    }
    let stays = daemon.connect("stays");
    round_trip(&stays, b"before");
    say(&daemon, "old", "0");
    // Other sockets in other places, and clients of two that are no more.
    let second = socket("new", "")
        + &record("log")
        + &socket("changed", "framing = \"nul\"")
        + &socket("stays", "mode = \"0600\"");
    daemon.reload_with(&second);
    let new = daemon.connect("new");
    round_trip(&new, b"before");
    say(&daemon, "log", "1");
    for n in 2..4 {
        daemon = daemon.restart(|setup| setup.config(&second));
        for client in [&stays, &new] {
            round_trip(client, b"after");
        }
        say(&daemon, "log", &n.to_string());
        daemon.reload_with(&second);
    }
    for client in &owed {
        let came = read_all(client);
        assert!(came.len() >= LEAST && bytes.starts_with(&came));
    }
    round_trip(&daemon.connect("new"), b"newcomer");
    assert_eq!(mode(&daemon, "stays"), 0o600);
    assert!(daemon.stop().success());
    let expected: Vec<(u64, u64)> = (0..4).map(|n| (n + 1, n)).collect();
    assert_eq!(numbers(&daemon, &["record"]), expected);
    assert_eq!(files(&daemon), ["record"]);
}
