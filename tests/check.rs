//! Promise: `udsd --check` finds what a start would find, and beside a running daemon what a reload would,
//! and leaves no trace of it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown},
            net::{UnixDatagram, UnixListener},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use harness::{Daemon, Folder, Setup, Signal, has_program, manager::passing, round_trip, wait_for};
use rustix::{
    event::PollFlags,
    pipe::fcntl_setpipe_size,
    process::{Pid, PidfdFlags, Resource, Rlimit, geteuid, kill_process, pidfd_open, prlimit},
};
use serde_json::Value;

/// A user other than root, who need not exist.
const USER: u32 = 54321;

fn socket(name: &str, keys: &str) -> String {
    format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\n{keys}\n")
}

fn collect(file: &str) -> String {
    socket("log", "service = \"collect\"\nframing = \"lines\"")
        + &format!("[socket.log.record]\nfile = \"{file}\"\n")
}

/// The check of udsd.toml in the folder.
fn check(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udsd"));
    command.env_clear().arg("--check").arg("--config");
    command.arg(folder.join("udsd.toml"));
    command
}

fn write(folder: &Folder, text: &str) {
    let text = text.replace("{dir}", folder.path().to_str().unwrap());
    fs::write(folder.join("udsd.toml"), text).unwrap();
}

/// What lies in the folder: names, kinds, sizes and times.
fn contents(folder: &Folder) -> Vec<(String, u32, u64, i64, i64)> {
    let mut all: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let there = fs::symlink_metadata(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (
                name,
                there.mode(),
                there.size(),
                there.mtime(),
                there.ctime_nsec(),
            )
        })
        .collect();
    all.sort();
    all
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    assert!(said(&output).is_empty(), "{output:#?}");
}

/// One fault, of this key, with these words.
#[track_caller]
fn fails(command: &mut Command, key: &str, words: &str) {
    let output = command.output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(78), "{key}: {output:#?}");
    assert!(output.stdout.is_empty(), "{output:#?}");
    assert!(said.contains(&format!(": {key}: ")), "{key}: {said}");
    assert!(said.contains("udsd.toml:"), "{said}");
    assert!(said.contains(words), "{words}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A check is a command like any other: what waits for its reader, or for a file system, can be ended.
#[test]
fn a_check_that_waits_ends_with_any_signal() {
    let folder = Folder::new();
    let sockets: String = (0..40).map(|i| socket(&format!("s{i}"), "")).collect();
    write(&folder, &sockets);
    for signal in [Signal::TERM, Signal::USR1, Signal::XCPU] {
        let (output, input) = std::io::pipe().unwrap();
        fcntl_setpipe_size(&output, 4096).unwrap();
        let mut check = check(&folder).stdout(input).spawn().unwrap();
        // It writes more than the pipe holds.
        let writes = wait_for(output.as_fd(), PollFlags::IN);
        let pid = Pid::from_child(&check);
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill_process(pid, signal).unwrap();
        let has_ended = wait_for(process.as_fd(), PollFlags::IN);
        drop(output);
        let status = check.wait().unwrap();
        assert!(writes && has_ended, "{signal:?}: {status}");
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }
}

#[test]
fn what_a_start_would_find_is_found_without_a_trace() {
    let folder = Folder::new();
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("subfolder")).unwrap();
    fs::write(folder.join("foreign.lock"), "not a pid").unwrap();
    let _server = UnixListener::bind(folder.join("taken")).unwrap();
    let mut cases = vec![
        (
            collect("{dir}/none/record"),
            "log.record.file",
            "create the folder first: mkdir -p ",
        ),
        (
            collect("{dir}/subfolder"),
            "log.record.file",
            "it is a folder",
        ),
        (
            collect("{dir}/taken"),
            "log.record.file",
            "something other than a regular file",
        ),
        (
            collect("{dir}/file/record"),
            "log.record.file",
            "choose a path in a folder",
        ),
        (
            socket("none/s", "").replace("socket.none/s", "socket.s"),
            "s.path",
            "create the folder first",
        ),
        (
            socket("file", ""),
            "file.path",
            "something that is no socket is there",
        ),
        (
            socket("foreign", ""),
            "foreign.path",
            "foreign.lock is no lock file of udsd",
        ),
        (
            socket("s", "user = \"nobody-has-this-name\""),
            "s.user",
            "there is no user",
        ),
        (
            socket("s", "allow-groups = [\"nobody-has-this-name\"]"),
            "s.allow-groups",
            "there is no group",
        ),
    ];
    let sealed = folder.join("sealed");
    fs::create_dir(&sealed).unwrap();
    if !geteuid().is_root() {
        fs::write(folder.join("read"), "").unwrap();
        fs::set_permissions(folder.join("read"), PermissionsExt::from_mode(0o400)).unwrap();
        fs::set_permissions(&sealed, PermissionsExt::from_mode(0o500)).unwrap();
        cases.extend([
            (
                collect("{dir}/read"),
                "log.record.file",
                "must be able to read and write it",
            ),
            (
                collect("{dir}/sealed/new"),
                "log.record.file",
                "must be able to create files in ",
            ),
            (
                socket("sealed/s", "").replace("socket.sealed/s", "socket.s"),
                "s.path",
                "that this user may write to",
            ),
            (
                socket("s", "user = 0"),
                "s.path",
                "run as root, or let a socket unit create it",
            ),
        ]);
    }
    let most = fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    if !geteuid().is_root() && most.trim().parse::<u32>().unwrap() < 1 << 20 {
        for kind in ["seqpacket", "datagram"] {
            let keys = format!("type = \"{kind}\"\nmessage-size = \"4MiB\"\nqueue-size = \"8MiB\"");
            cases.push((socket("s", &keys), "s.message-size", "net.core.wmem_max"));
        }
    }
    for (text, key, words) in cases {
        write(&folder, &text);
        let before = contents(&folder);
        fails(&mut check(&folder), &format!("socket.{key}"), words);
        assert_eq!(contents(&folder), before, "{text}");
        let (code, log) = Setup::within(Arc::clone(&folder)).config(&text).fail();
        assert!(code.is_some_and(|code| code != 0), "{text}\n{log}");
        assert!(
            log.contains(words),
            "a start says something else: {words}\n{log}"
        );
    }
    // And where nothing is wrong, nothing is made, and what is dead is left.
    drop(UnixListener::bind(folder.join("dead")).unwrap());
    fs::write(folder.join("dead.lock"), "1\n").unwrap();
    write(
        &folder,
        &(collect("{dir}/record") + &socket("a", "") + &socket("dead", "")),
    );
    let before = contents(&folder);
    passes(&mut check(&folder));
    assert_eq!(contents(&folder), before);
    fs::set_permissions(&sealed, PermissionsExt::from_mode(0o700)).unwrap();
}

/// It may be a service manager's, to be passed: no fault of the file.
#[test]
fn a_path_that_somebody_serves_is_told_and_nobody_there_notices() {
    let folder = Folder::new();
    let streams = UnixListener::bind(folder.join("streams")).unwrap();
    let datagrams = UnixDatagram::bind(folder.join("datagrams")).unwrap();
    for (name, kind) in [("streams", "stream"), ("datagrams", "datagram")] {
        write(&folder, &socket(name, &format!("type = \"{kind}\"")));
        let before = contents(&folder);
        let output = check(&folder).output().unwrap();
        let path = folder.join(name).display().to_string();
        let note = format!("udsd: note: socket.{name}.path: {path} is served by somebody");
        assert_eq!(output.status.code(), Some(0), "{output:#?}");
        assert!(said(&output).starts_with(&note), "{output:#?}");
        // That of a unit without a runtime folder.
        passes(check(&folder).env("MAINPID", "1"));
        assert_eq!(contents(&folder), before);
    }
    streams.set_nonblocking(true).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let nobody = std::io::ErrorKind::WouldBlock;
    assert_eq!(streams.accept().unwrap_err().kind(), nobody);
    assert_eq!(datagrams.recv(&mut [0; 1]).unwrap_err().kind(), nobody);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let folder = Folder::new();
    let text = collect("{dir}/none/record") + &socket("s", "user = \"nobody-has-this-name\"");
    write(&folder, &(text + "[socket.t]\npath = \"{dir}/none/t\"\n"));
    let output = check(&folder).output().unwrap();
    let said = said(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, place) in lines.iter().zip([
        ":6: socket.log.record.file: ",
        ":9: socket.s.user: ",
        ":11: socket.t.path: ",
    ]) {
        assert!(line.contains(place), "{said}");
    }
    let output = check(&folder).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stderr.is_empty(), "{output:#?}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[1]["file"], folder.join("udsd.toml").to_str().unwrap());
    assert_eq!(
        (&all[1]["line"], &all[1]["key"]),
        (&9.into(), &"socket.s.user".into())
    );
    assert!(
        all[1]["message"]
            .as_str()
            .unwrap()
            .starts_with("there is no user")
    );
    write(&folder, &socket("a", ""));
    let output = check(&folder).arg("--json").output().unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"[]\n"[..])
    );
}

#[test]
fn beside_its_own_daemon_nothing_is_in_the_way_and_nobody_notices() {
    let text = "[daemon]\nlog = \"debug\"\n".to_owned()
        + &collect("{dir}/record")
        + &socket("a", "")
        + &socket("p", "type = \"seqpacket\"")
        + &socket("d", "type = \"datagram\"");
    let daemon = Daemon::start(&text);
    let folder = daemon.folder();
    let before = contents(folder);
    passes(&mut check(folder));
    let mut relative = Command::new(env!("CARGO_BIN_EXE_udsd"));
    relative.env_clear().current_dir(folder.path());
    passes(relative.args(["--config", "udsd.toml", "--check"]));
    // By another file it is another daemon, unless the manager says that it is this one.
    let other = Folder::new();
    fs::copy(folder.join("udsd.toml"), other.join("udsd.toml")).unwrap();
    let pid = daemon.pid().as_raw_nonzero().to_string();
    let output = check(&other).output().unwrap();
    let in_use = said(&output);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        in_use.matches(&format!(" pid {pid}")).count(),
        in_use.lines().count()
    );
    for key in ["log.path", "log.record.file", "a.path", "p.path", "d.path"] {
        assert!(in_use.contains(&format!("socket.{key}: ")), "{in_use}");
    }
    passes(check(&other).env("MAINPID", &pid));
    assert_eq!(contents(folder), before);
    // The first client that it has had is this one.
    round_trip(&daemon.connect("a"), b"hello");
    daemon.wait_log(&["a: client ", "connected"]);
    assert_eq!(daemon.log().matches(" connected").count(), 1);
    // What is new in the file is looked at all the same.
    daemon.write_config(&(text + "[socket.new]\npath = \"{dir}/none/new\"\n"));
    fails(
        &mut check(folder),
        "socket.new.path",
        "create the folder first",
    );
}

/// For an image, or another machine.
#[test]
fn the_text_alone_can_be_judged() {
    let folder = Folder::new();
    let text = |folder: &Folder| {
        let mut check = check(folder);
        check.arg("--text");
        check
    };
    let there = collect("{dir}/none/record") + &socket("other", "user = \"nobody-of-that-name\"");
    write(&folder, &there.replace("{dir}/other", "{dir}/none/other"));
    assert_eq!(check(&folder).output().unwrap().status.code(), Some(78));
    passes(&mut text(&folder));
    let shown = String::from_utf8(text(&folder).output().unwrap().stdout).unwrap();
    assert!(shown.contains("/none/record"), "{shown}");
    write(&folder, &socket("a", "framing = \"line\""));
    fails(&mut text(&folder), "socket.a.framing", "lines");
}

/// Where it was full when the daemon took its locks, they hold no pid, or that of an earlier process.
#[test]
fn a_full_disk_makes_nobody_take_the_daemons_locks_for_those_of_another() {
    if !has_program("prlimit") {
        return;
    }
    let text = collect("{dir}/record") + &socket("a", "");
    let full = ["prlimit", "--fsize=0:unlimited", "--"];
    let locks = ["a.lock", "log.lock", ".record.lock"];
    let fresh = Setup::new().wrapper(&full).keeping().config(&text).start();
    let again = Setup::new().keeping().config(&text).start();
    let old = format!("{}\n", again.pid().as_raw_nonzero());
    let again = again.restart(|setup| setup.wrapper(&full).config(&text));
    for (daemon, held) in [(fresh, ""), (again, &old)] {
        let pid = daemon.pid().as_raw_nonzero().to_string();
        let contents = || locks.map(|lock| fs::read_to_string(daemon.path(lock)).unwrap());
        assert_eq!(contents(), [held; 3]);
        passes(check(daemon.folder()).env("MAINPID", &pid));
        let none = Rlimit {
            current: None,
            maximum: None,
        };
        prlimit(Some(daemon.pid()), Resource::Fsize, none).unwrap();
        daemon.reload_with(&text);
        assert_eq!(contents(), locks.map(|_| format!("{pid}\n")));
        passes(&mut check(daemon.folder()));
    }
}

#[test]
fn before_a_reload_it_knows_what_the_units_have() {
    let setup = Setup::new();
    let folder = Arc::clone(setup.folder());
    let runtime = folder.join("runtime");
    fs::create_dir(&runtime).unwrap();
    let sockets = ["a", "b"].map(|name| {
        let listener = UnixListener::bind(folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o660)).unwrap();
        listener
    });
    let both = socket("a", "") + &socket("b", "");
    let setup = setup
        .config(&both)
        .variable("RUNTIME_DIRECTORY", runtime.to_str().unwrap());
    let passed = [sockets[0].as_fd(), sockets[1].as_fd()];
    let daemon = passing(setup, &passed, Some("a:b")).start();
    let pid = daemon.pid().as_raw_nonzero().to_string();
    let before_reload = || {
        let mut check = check(&folder);
        check
            .env("MAINPID", &pid)
            .env("RUNTIME_DIRECTORY", &runtime);
        check
    };
    passes(&mut before_reload());
    for (text, key, words) in [
        (socket("a", ""), "socket.b", "is gone"),
        (both.clone() + &socket("c", ""), "socket.c", "is new"),
        (both.replace("/b\"", "/c\""), "socket.b.path", "has changed"),
        (
            socket("a", "type = \"seqpacket\"") + &socket("b", ""),
            "socket.a.type",
            "has changed",
        ),
        (
            socket("a", "mode = \"0600\"") + &socket("b", ""),
            "socket.a.mode",
            "has changed",
        ),
        (
            socket("a", "user = 0") + &socket("b", ""),
            "socket.a.user",
            "has changed",
        ),
        (
            socket("a", "") + &socket("b", "enabled = false"),
            "socket.b.enabled",
            "is false by now",
        ),
    ] {
        let status = daemon.fail_to_reload(&text);
        assert!(status.contains(&format!("{key}: {words}")), "{status}");
        fails(&mut before_reload(), key, words);
    }
    // What no reload can refuse, but does not do either, is a note.
    let backlog = both.replacen("/a\"", "/a\"\nbacklog = 9", 1);
    write(&folder, &backlog);
    let output = before_reload().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    let said = said(&output);
    assert!(
        said.starts_with("udsd: note: ") && said.lines().count() == 1,
        "{said}"
    );
    assert!(
        said.contains("udsd.toml:3: socket.a.backlog: the socket units have to follow"),
        "{said}"
    );
    daemon.reload_with(&backlog);
    daemon.wait_log(&["WARN", "socket.a.backlog: the socket units have to follow"]);
    daemon.reload_with(&both);
    // What the daemon has put into force since its start is what the next file is compared with.
    let limited = socket("a", "clients = 7") + &socket("b", "");
    daemon.reload_with(&limited);
    passes(&mut before_reload());
    let in_force = fs::read_to_string(runtime.join("in-force.toml")).unwrap();
    assert!(in_force.contains("clients = 7"), "{in_force}");
    // It may be what is refused today.
    let older = in_force.replacen("0660", "0066", 1);
    fs::write(runtime.join("in-force.toml"), older).unwrap();
    fails(&mut before_reload(), "socket.a.mode", "has changed");
    drop(daemon);
    // A daemon without units leaves none.
    fs::remove_file(folder.join("a")).unwrap();
    fs::remove_file(folder.join("b")).unwrap();
    let setup = Setup::within(Arc::clone(&folder)).config(&both);
    let daemon = setup
        .variable("RUNTIME_DIRECTORY", runtime.to_str().unwrap())
        .start();
    assert!(!runtime.join("in-force.toml").exists());
    daemon.write_config(&(both + &socket("c", "")));
    let pid = daemon.pid().as_raw_nonzero().to_string();
    passes(
        check(&folder)
            .env("MAINPID", pid)
            .env("RUNTIME_DIRECTORY", &runtime),
    );
}

/// What units cannot have is a fault of the file that they follow.
#[test]
fn what_units_cannot_have_is_found_before_a_reload() {
    let folder = Folder::new();
    let own = folder.join("config/udsd");
    fs::create_dir_all(&own).unwrap();
    fs::create_dir(folder.join("runtime")).unwrap();
    fs::write(
        own.join("udsd.toml"),
        "[socket.a]\npath = \"%t/udsd/a.sock\"\n",
    )
    .unwrap();
    // The daemon that is to be reloaded has its sockets from units.
    fs::copy(own.join("udsd.toml"), folder.join("runtime/in-force.toml")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_udsd"));
    if geteuid().is_root() {
        for path in [folder.path(), &folder.join("runtime")] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        let binary = folder.in_reach(Path::new(env!("CARGO_BIN_EXE_udsd")));
        command = Command::new(binary);
        command.uid(USER).gid(USER);
    }
    command.env_clear().arg("--check");
    command
        .env("MAINPID", "1")
        .env("RUNTIME_DIRECTORY", folder.join("runtime"));
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command
        .env("XDG_RUNTIME_DIR", folder.join("runtime"))
        .env("HOME", folder.path());
    fails(
        &mut command,
        "socket.a.path",
        "is the service's own folder and goes when it stops",
    );
}
