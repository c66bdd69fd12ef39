//! Promise: collect records every message once, in its sender's order, with the sender that the
//! kernel vouches for; a slow or full target makes senders wait and loses nothing.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown, symlink},
            net::UnixStream,
            process::CommandExt,
        },
    },
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use harness::{
    Daemon, Folder, Setup, Signal, close_reader, has_program, is_root, read_all, write_until_full,
};
use rustix::{
    event::PollFlags,
    fs::{CWD, FileType, Mode, mknodat},
    io::ioctl_fionbio,
    process::{Pid, Resource, Rlimit, getegid, geteuid, getpid, kill_process, prlimit},
};
use serde_json::Value;

/// A collecting socket called `log` with these keys, its record with those.
fn config(keys: &str, record: &str) -> String {
    format!(
        "[socket.log]\npath = \"{{dir}}/log\"\nservice = \"collect\"\nframing = \"lines\"\nmode = \"0666\"\n{keys}\n\
         [socket.log.record]\n{record}\n"
    )
}

const FILE: &str = "file = \"{dir}/record\"";

/// Sends lines as one client; returns when all are taken.
fn send(daemon: &Daemon, lines: &[u8]) {
    let mut client = daemon.connect("log");
    client.write_all(lines).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn is_time(text: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000000Z";
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(c, p)| {
            if p == b'0' {
                c.is_ascii_digit()
            } else {
                c == p
            }
        })
}

#[test]
fn json_names_time_socket_number_and_sender() {
    let daemon = Daemon::start(&config("", ""));
    send(&daemon, b"plain \"quoted\"\n\xff\xfe\n");
    send(&daemon, "é\x1b\n".as_bytes());
    let records: Vec<Value> = daemon
        .wait_output(3)
        .iter()
        .map(|line| json(line))
        .collect();
    for (i, record) in records.iter().enumerate() {
        assert!(is_time(record["time"].as_str().unwrap()), "{record}");
        assert_eq!(record["socket"], "log");
        assert_eq!(record["seq"], i + 1);
        assert_eq!(record["client"], if i < 2 { 1 } else { 2 });
        assert_eq!(record["pid"], getpid().as_raw_nonzero().get());
        assert_eq!(record["uid"], geteuid().as_raw());
        assert_eq!(record["gid"], getegid().as_raw());
    }
    assert_eq!(records[0]["message"], "plain \"quoted\"");
    assert_eq!(records[1]["message"], "\u{fffd}\u{fffd}");
    assert_eq!(records[1]["message_base64"], "//4=");
    assert_eq!(records[2].get("message_base64"), None);
    assert_eq!(records[2]["message"], "é\u{1b}");
}

#[test]
fn text_is_one_readable_line_a_message() {
    let daemon = Daemon::start(&config("", "format = \"text\""));
    send(&daemon, b"a\tb\\\x1b[2J\xff\n");
    let line = daemon.wait_output(1).remove(0);
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(is_time(time), "{line}");
    let pid = getpid();
    let uid = geteuid().as_raw();
    assert_eq!(
        rest,
        format!("log[{pid}] uid={uid} a\\tb\\\\\\u{{1b}}[2J\\xff")
    );
}

#[test]
fn raw_is_the_bytes_and_a_line_feed() {
    let mut daemon = Daemon::start(&config("", &format!("format = \"raw\"\n{FILE}")));
    send(&daemon, b"a\0\xff\r\n\nlast");
    assert!(daemon.stop().success());
    assert_eq!(
        fs::read(daemon.path("record")).unwrap(),
        b"a\0\xff\n\nlast\n"
    );
    assert_eq!(daemon.output(), b"", "a record in a file is nowhere else");
}

#[test]
fn lines_for_the_journal_carry_a_priority_that_no_message_can_forge() {
    for format in ["json", "text", "raw"] {
        let (reader, writer) = io::pipe().unwrap();
        let journal = harness::identity(&writer);
        let daemon = Setup::new()
            .config(&config("", &format!("format = \"{format}\"")).replace("\"lines\"", "\"nul\""));
        let daemon = daemon
            .variable("JOURNAL_STREAM", &journal)
            .stdout(writer)
            .start();
        send(&daemon, b"<0>one\n<0>two\0");
        let n = if format == "raw" { 2 } else { 1 };
        for line in BufReader::new(reader).lines().take(n) {
            let line = line.unwrap();
            assert!(line.starts_with("<6>"), "{line}");
        }
    }
}

#[test]
fn a_client_of_another_pid_namespace_has_no_pid_in_records_and_stamps() {
    if !is_root() || !has_program("unshare") {
        return;
    }
    let relay =
        "[socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\nstamp = true\n";
    // It sees no process but its own.
    let alone = ["unshare", "--pid", "--fork", "--kill-child"];
    let daemon = Setup::new()
        .config(&format!("{}{relay}", config("", "")))
        .wrapper(&alone)
        .start();
    send(&daemon, b"recorded\n");
    let recorded = daemon.wait_output(1).remove(0);
    let (mut one, other) = (daemon.connect("r"), daemon.connect("r"));
    one.write_all(b"stamped\n").unwrap();
    let stamped = BufReader::new(other).lines().next().unwrap().unwrap();
    for (line, message) in [(recorded, "recorded"), (stamped, "stamped")] {
        let record = json(&line);
        assert_eq!(record["message"], message);
        assert_eq!(record.get("pid"), None, "{line}");
        assert_eq!(record["uid"], geteuid().as_raw());
    }
}

/// The records of a file, whole ones; what is no record is passed over.
fn records(folder: &Folder) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("record")).unwrap();
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn start_in(folder: &Arc<Folder>) -> Daemon {
    Setup::within(Arc::clone(folder))
        .config(&config("", FILE))
        .start()
}

#[test]
fn numbers_go_on_over_restarts() {
    let folder = Folder::new();
    for round in 0..3 {
        let mut daemon = start_in(&folder);
        send(&daemon, b"one\ntwo\n");
        assert!(daemon.stop().success());
        let numbers: Vec<u64> = records(&folder)
            .iter()
            .map(|record| record["seq"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (1..=2 * (round + 1)).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn numbers_go_on_after_a_kill_and_a_torn_line_is_cut_off() {
    let folder = Folder::new();
    for round in 0..4 {
        let mut daemon = start_in(&folder);
        let mut client = daemon.connect("log");
        for n in 0..20_000 {
            writeln!(client, "line {n} of round {round}").unwrap();
        }
        daemon.kill();
        let file = File::options()
            .write(true)
            .open(folder.join("record"))
            .unwrap();
        let length = file.metadata().unwrap().len();
        // A process can be killed in the middle of a line; here it certainly was.
        file.set_len(length.saturating_sub(20)).unwrap();
    }
    let mut daemon = start_in(&folder);
    send(&daemon, b"the last\n");
    assert!(daemon.stop().success());
    let records = records(&folder);
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], i + 1);
    }
    assert_eq!(records.last().unwrap()["message"], "the last");
    let text = fs::read_to_string(folder.join("record")).unwrap();
    assert_eq!(text.lines().count(), records.len());
    daemon.wait_log(&["WARN", "last line was not finished", "cut off"]);
}

#[test]
fn senders_are_those_that_the_kernel_vouches_for() {
    if !has_program("nc") {
        return;
    }
    let daemon = Daemon::start(&config("", ""));
    let mut expected = HashMap::new();
    let mut children: Vec<Child> = Vec::new();
    for i in 0..6 {
        let mut nc = Command::new("nc");
        nc.arg("-NU").arg(daemon.path("log")).stdin(Stdio::piped());
        let (uid, gid) = if geteuid().is_root() {
            (i * 1000, i * 1000 + 7)
        } else {
            (geteuid().as_raw(), getegid().as_raw())
        };
        if geteuid().is_root() {
            nc.uid(uid).gid(gid);
        }
        let child = nc.spawn().unwrap();
        expected.insert(child.id(), (uid, gid));
        children.push(child);
    }
    for child in &mut children {
        let line = format!("I am {} and claim pid=1 uid=0\n", child.id());
        // Dropped: the end of its input.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    for line in daemon.wait_output(6) {
        let record = json(&line);
        let pid = u32::try_from(record["pid"].as_u64().unwrap()).unwrap();
        let (uid, gid) = expected.remove(&pid).unwrap();
        assert_eq!((&record["uid"], &record["gid"]), (&uid.into(), &gid.into()));
        let message = record["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("I am {pid} ")), "{line}");
    }
}

fn numbered(sender: usize, lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| format!("sender {sender} line {n:07}\n").into_bytes())
        .collect()
}

/// All lines of three senders, each in its order.
fn all_there(lines: impl Iterator<Item = String>, senders: usize, each: usize) {
    let mut next = vec![0; senders];
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, sender, _, number] = words[..] else {
            panic!("{line}");
        };
        let sender: usize = sender.parse().unwrap();
        assert_eq!(number.parse::<usize>().unwrap(), next[sender], "{line}");
        next[sender] += 1;
    }
    assert_eq!(next, vec![each; senders]);
}

#[test]
fn a_reader_that_stops_makes_senders_wait_and_loses_nothing() {
    const LINES: usize = 150_000;
    let (reader, writer) = io::pipe().unwrap();
    let daemon = Setup::new()
        .config(&config(
            "message-size = \"1KiB\"",
            "format = \"raw\"\nqueue-size = \"64KiB\"",
        ))
        .stdout(writer)
        .start();
    let before = daemon.memory();
    let senders: Vec<(UnixStream, Vec<u8>)> = (0..3)
        .map(|sender| (daemon.connect("log"), numbered(sender, LINES)))
        .collect();
    let taken: Vec<usize> = senders
        .iter()
        .map(|(stream, bytes)| write_until_full(stream, bytes, 0))
        .collect();
    for taken in &taken {
        // The kernel's buffers and the daemon's read buffer, of 3 MiB.
        assert!(
            *taken < 1 << 20,
            "{taken} bytes were taken while nobody reads"
        );
    }
    // A record's queue, what the writer holds, and a read buffer for each sender.
    let grown = daemon.peak_memory().saturating_sub(before);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    thread::scope(|scope| {
        for ((mut stream, bytes), taken) in senders.into_iter().zip(taken) {
            // Ends without waiting for anything: what it sent is recorded all the same.
            scope.spawn(move || stream.write_all(&bytes[taken..]).unwrap());
        }
        let lines = BufReader::new(reader).lines().take(3 * LINES);
        all_there(lines.map(Result::unwrap), 3, LINES);
    });
}

#[test]
fn a_signal_while_a_non_blocking_output_stalls_changes_nothing() {
    const LINES: usize = 20_000;
    let (reader, writer) = io::pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    let mut daemon = Setup::new()
        .config(&config(
            "message-size = \"1KiB\"",
            "format = \"raw\"\nqueue-size = \"64KiB\"",
        ))
        .stdout(writer)
        .start();
    let client = daemon.connect("log");
    let bytes = numbered(0, LINES);
    let taken = write_until_full(&client, &bytes, 128 * 1024);
    assert!(taken < bytes.len());
    // With a full queue, the record's thread sleeps for its output alone. A signal that is sent to a
    // thread's number is that thread's to handle.
    let tasks = format!("/proc/{}/task", daemon.pid().as_raw_nonzero());
    let thread = fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| fs::read_to_string(task.join("comm")).unwrap() == "record\n")
        .unwrap();
    let sleeps = || {
        let stat = fs::read_to_string(thread.join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    while !sleeps() {
        thread::yield_now();
    }
    let number = thread.file_name().unwrap().to_str().unwrap();
    let number = Pid::from_raw(number.parse().unwrap()).unwrap();
    kill_process(number, Signal::HUP).unwrap();
    daemon.wait_log(&["reloaded"]);
    thread::scope(|scope| {
        let (client, bytes) = (&client, &bytes);
        scope.spawn(move || {
            (&mut &*client).write_all(&bytes[taken..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let lines = BufReader::new(reader).lines().take(LINES);
        all_there(lines.map(Result::unwrap), 1, LINES);
    });
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
}

#[test]
fn a_closed_standard_output_ends_the_daemon() {
    let (reader, writer) = io::pipe().unwrap();
    let output = writer.try_clone().unwrap();
    let mut daemon = Setup::new().config(&config("", "")).stdout(output).start();
    close_reader(reader, &writer);
    let mut client = daemon.connect("log");
    client.write_all(b"to nobody\n").unwrap();
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(daemon.log().contains("standard output"), "{}", daemon.log());
    assert!(!daemon.path("log").exists());
}

#[test]
fn a_new_record_file_has_its_mode_and_an_old_one_keeps_its_own() {
    for (key, mode) in [
        ("", 0o640),
        ("mode = \"0604\"", 0o604),
        ("mode = \"0666\"", 0o666),
    ] {
        let mut daemon = Setup::new()
            .wrapper(&["sh", "-c", "umask 077; exec \"$0\" \"$@\""])
            .config(&config("", &format!("{FILE}\n{key}")))
            .start();
        let found = fs::metadata(daemon.path("record")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode);
        assert_eq!(found.uid(), geteuid().as_raw());
        assert!(daemon.stop().success());
    }
    let folder = Folder::new();
    let path = folder.join("record");
    fs::write(&path, "was here\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut daemon = start_in(&folder);
    send(&daemon, b"hello\n");
    assert!(daemon.stop().success());
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("was here\n{"), "{text}");
}

#[test]
fn what_is_no_regular_file_is_refused_and_untouched() {
    type Make = fn(&Folder);
    let makes: [(&str, Make); 5] = [
        ("FIFO", |folder| {
            mknodat(CWD, folder.join("record"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        }),
        ("folder", |folder| {
            fs::create_dir(folder.join("record")).unwrap();
        }),
        ("link", |folder| {
            fs::write(folder.join("elsewhere"), "precious\n").unwrap();
            symlink(folder.join("elsewhere"), folder.join("record")).unwrap();
        }),
        ("dangling link", |folder| {
            symlink(folder.join("nowhere"), folder.join("record")).unwrap();
        }),
        ("socket", |folder| {
            drop(std::os::unix::net::UnixListener::bind(folder.join("record")).unwrap());
        }),
    ];
    for (what, make) in makes {
        let folder = Folder::new();
        make(&folder);
        let before = fs::symlink_metadata(folder.join("record")).unwrap();
        let (code, log) = Setup::within(Arc::clone(&folder))
            .config(&config("", FILE))
            .fail();
        assert_eq!(code, Some(78), "{what}: {log}");
        assert!(log.contains("socket.log.record.file"), "{what}: {log}");
        assert!(log.contains("udsd.toml:"), "{what}: {log}");
        let after = fs::symlink_metadata(folder.join("record")).unwrap();
        assert_eq!(after.ino(), before.ino(), "{what}");
        assert!(!folder.join("nowhere").exists());
        if let Ok(text) = fs::read_to_string(folder.join("elsewhere")) {
            assert_eq!(text, "precious\n");
        }
        assert!(
            !folder.join("log").exists(),
            "{what}: the socket stays behind"
        );
    }
}

#[test]
fn a_record_has_one_writer() {
    let folder = Folder::new();
    let first = start_in(&folder);
    let text = config("", FILE).replace("{dir}/log", "{dir}/other");
    let (code, log) = Setup::within(Arc::clone(&folder)).config(&text).fail();
    assert_eq!(code, Some(1), "a later start may succeed: {log}");
    let writer = format!("another process writes it, pid {}", first.pid());
    assert!(log.contains(&writer), "{log}");
    assert!(
        log.contains(folder.join("record").to_str().unwrap()),
        "{log}"
    );
}

/// Whoever may read a record may lock it.
#[test]
fn a_reader_of_a_record_is_in_nobodys_way() {
    let folder = Folder::new();
    let mut first = start_in(&folder);
    send(&first, b"one\n");
    let reader = File::open(folder.join("record")).unwrap();
    reader.lock_shared().unwrap();
    let lock = fs::metadata(folder.join(".record.lock")).unwrap();
    assert_eq!(lock.permissions().mode() & 0o7777, 0o600);
    assert!(first.stop().success());
    assert!(!folder.join(".record.lock").exists());
    let mut second = start_in(&folder);
    send(&second, b"two\n");
    assert!(second.stop().success());
    assert_eq!(records(&folder).len(), 2);
}

#[test]
fn a_lock_that_is_not_ones_own_stays_untouched() {
    let setup = Setup::new().config(&config("", FILE));
    let lock = setup.folder().join(".record.lock");
    fs::write(&lock, "precious\n").unwrap();
    assert_refused(setup, &[".record.lock is no lock file of udsd"]);
    let setup = Setup::new().config(&config("", FILE));
    let folder = Arc::clone(setup.folder());
    symlink("elsewhere", folder.join(".record.lock")).unwrap();
    assert_refused(setup, &[".record.lock is no lock file of udsd"]);
    assert!(!folder.join("elsewhere").exists() && !folder.join("record").exists());
}

/// The others are served, and senders wait there as for a full disk.
#[test]
fn a_record_that_cannot_be_had_costs_its_own_socket() {
    let folder = Folder::new();
    let first = start_in(&folder);
    let missing = "file = \"{dir}/missing/record\"";
    let socket = |name: &str, record: &str| {
        config("", record)
            .replace("socket.log", &format!("socket.{name}"))
            .replace("{dir}/log", &format!("{{dir}}/{name}"))
    };
    let text = "[socket.echo]\npath = \"{dir}/echo\"\n".to_owned()
        + &socket("held", FILE)
        + &socket("astray", missing);
    let mut daemon = Setup::within(Arc::clone(&folder)).config(&text).start();
    let writer = format!("another process writes it, pid {}", first.pid());
    daemon.wait_log(&["ERROR", &writer]);
    daemon.wait_log(&[
        "ERROR",
        "udsd.toml:",
        "socket.astray.record.file",
        "mkdir -p",
    ]);
    let clients = ["held", "astray"].map(|name| {
        let mut client = daemon.connect(name);
        client.write_all(format!("to {name}\n").as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    harness::round_trip(&daemon.connect("echo"), b"served");
    fs::create_dir(folder.join("missing")).unwrap();
    drop(first);
    for client in &clients {
        assert_eq!(read_all(client), b"");
    }
    assert!(daemon.stop().success());
    let text = fs::read_to_string(folder.join("missing/record")).unwrap();
    assert_eq!(json(text.trim_end())["message"], "to astray");
    let records = records(&folder);
    assert_eq!(records.last().unwrap()["message"], "to held");
    assert!(!folder.join(".record.lock").exists());
}

/// Why is told again where it is another reason, and the status tells it all the while.
#[test]
fn a_record_that_is_not_open_is_in_the_status_and_its_reason_in_the_log() {
    let text = "[socket.echo]\npath = \"{dir}/echo\"\n".to_owned()
        + &config("", "file = \"{dir}/missing/record\"");
    let mut daemon = Setup::new().config(&text).start();
    daemon.wait_note("STATUS=record of log not open: 0 clients");
    fs::write(daemon.path("missing"), "").unwrap();
    let line = daemon.wait_log(&["ERROR", "record ", "Not a directory"]);
    assert!(line.contains("missing/record"), "{line}");
    // The rest of the file is in force all the same.
    daemon.reload_with(&text.replace("path = \"{dir}/echo\"", "path = \"{dir}/moved\""));
    harness::round_trip(&daemon.connect("moved"), b"served");
    fs::remove_file(daemon.path("missing")).unwrap();
    fs::create_dir(daemon.path("missing")).unwrap();
    daemon.signal(Signal::USR1);
    daemon.wait_log(&["INFO", "missing/record: opened"]);
    send(&daemon, b"one\n");
    daemon.wait_for("a status without it", |said| {
        let last = said.notes.iter().rfind(|note| note.contains("STATUS="))?;
        (!last.contains("not open")).then_some(())
    });
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("missing/record")).unwrap();
    assert_eq!(json(text.trim_end())["message"], "one");
}

/// Its file may lie where nobody answers: the record's own thread waits for that, and no client.
#[test]
fn a_record_on_a_file_system_that_does_not_answer_holds_up_nobody() {
    if !is_root() || !has_program("unshare") || !has_program("python3") {
        return;
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/datagram/fuse.py");
    let text = "[socket.echo]\npath = \"{dir}/echo\"\n".to_owned()
        + &config("", "file = \"{dir}/later/record\"");
    let setup = Setup::new().config(&text);
    let folder = setup.folder().join("fuse");
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "exec 4< <(python3 {server} {} all) && read -r _ <&4 && exec \"$@\"",
        folder.display()
    );
    let wrapper = ["unshare", "--mount", "bash", "-c", &script, "bash"];
    let mut daemon = setup.wrapper(&wrapper).start();
    symlink("fuse", daemon.path("later")).unwrap();
    let statx = match cfg!(target_arch = "x86_64") {
        true => "332 ",
        false => "291 ",
    };
    let tasks = format!("/proc/{}/task", daemon.pid());
    let waits = || {
        let tasks = fs::read_dir(&tasks).unwrap().flatten();
        let mut calls = tasks.map(|task| fs::read_to_string(task.path().join("syscall")));
        calls.any(|call| call.is_ok_and(|call| call.starts_with(statx)))
    };
    let deadline = std::time::Instant::now() + harness::HANG;
    while !waits() {
        assert!(std::time::Instant::now() < deadline, "it is not tried");
        std::thread::yield_now();
    }
    harness::round_trip(&daemon.connect("echo"), b"served");
    // The file system ends by itself after a while.
    assert!(waits(), "served only when it answered");
    assert!(daemon.stop().success());
}

/// What is wrong with a record is found before a lock file is made for it.
#[test]
fn a_record_that_is_refused_leaves_no_lock() {
    let setup = Setup::new().config(&config("", FILE));
    fs::write(setup.folder().join("record"), "").unwrap();
    fs::hard_link(setup.folder().join("record"), setup.folder().join("other")).unwrap();
    fs::write(setup.folder().join(".record.lock"), "precious\n").unwrap();
    assert_refused(setup, &["it has 2 names"]);
}

/// As a user who is not root, if this is root.
fn ordinary(setup: Setup) -> Setup {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    if geteuid().is_root() {
        setup.wrapper(&["setpriv"]).wrapper(&user)
    } else {
        setup
    }
}

/// A start is refused for what `socket.log.record.file` says, with these words.
#[track_caller]
fn assert_refused(setup: Setup, words: &[&str]) {
    let folder = setup.folder().path().to_str().unwrap().to_owned();
    let (code, log) = setup.fail();
    assert_eq!(code, Some(78), "{log}");
    for word in words.iter().chain(&["socket.log.record.file"]) {
        let word = word.replace("{dir}", &folder);
        assert!(log.contains(&word), "\"{word}\" is not in: {log}");
    }
}

#[test]
fn a_record_that_cannot_be_opened_comes_with_its_remedy() {
    let missing = config("", "file = \"{dir}/a/b/record\"");
    assert_refused(
        Setup::new().config(&missing),
        &["create the folder first: mkdir -p {dir}/a/b"],
    );

    let setup = Setup::new().config(&config("", FILE));
    symlink("elsewhere", setup.folder().join("record")).unwrap();
    let words = [
        "is a symbolic link: write the path it leads to",
        "\"\" is standard output",
    ];
    assert_refused(setup, &words);
    let standard = config("", "file = \"/dev/stdout\"");
    assert_refused(Setup::new().config(&standard), &words);

    let setup = Setup::new().config(&config("", FILE));
    fs::create_dir(setup.folder().join("record")).unwrap();
    assert_refused(setup, &["is a folder: write the path of a file in it"]);

    let setup = Setup::new().config(&config("", "file = \"{dir}/file/record\""));
    fs::write(setup.folder().join("file"), "").unwrap();
    assert_refused(setup, &["Not a directory", "choose a path in a folder"]);
}

/// A file that strangers have a hand on, or that is no file at all.
#[test]
fn a_record_that_is_not_udsds_own_is_refused_and_untouched() {
    let setup = Setup::new().config(&config("", FILE));
    let folder = Arc::clone(setup.folder());
    fs::write(folder.join("precious"), "precious\n").unwrap();
    fs::hard_link(folder.join("precious"), folder.join("record")).unwrap();
    assert_refused(setup, &["2 names", "remove the others"]);
    assert_eq!(
        fs::read_to_string(folder.join("precious")).unwrap(),
        "precious\n"
    );

    let kernel = config("", "file = \"/proc/self/comm\"");
    assert_refused(Setup::new().config(&kernel), &["below /proc"]);
}

#[test]
fn a_record_of_another_user_is_refused_and_untouched() {
    if !is_root() {
        return;
    }
    let setup = Setup::new().config(&config("", FILE));
    let folder = Arc::clone(setup.folder());
    let record = folder.join("record");
    fs::write(&record, "of another\n").unwrap();
    chown(&record, Some(65533), None).unwrap();
    assert_refused(setup, &["belongs to uid 65533", "chown 0 "]);
    assert_eq!(fs::read_to_string(&record).unwrap(), "of another\n");
}

#[test]
fn a_record_that_the_user_may_not_write_to_says_who_must() {
    if !has_program("setpriv") {
        return;
    }
    let uid = match geteuid().as_raw() {
        0 => 65534,
        uid => uid,
    };
    let setup = Setup::new().config(&config("", "file = \"{dir}/closed/record\""));
    let closed = setup.folder().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let who = format!("uid {uid}, as which udsd runs, must be able to");
    let into = format!("{who} create files in {{dir}}/closed");
    assert_refused(ordinary(setup), &["Permission denied", &into]);

    let setup = Setup::new().config(&config("", FILE));
    let folder = Arc::clone(setup.folder());
    let record = folder.join("record");
    fs::write(&record, "precious\n").unwrap();
    fs::set_permissions(&record, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let words = ["Permission denied", &format!("{who} read and write it")];
    assert_refused(ordinary(setup), &words);
    assert_eq!(fs::read_to_string(&record).unwrap(), "precious\n");
}

#[test]
fn no_socket_listens_before_its_record_is_open() {
    // Both are wrong: what is opened first is named.
    let text = config("", "file = \"{dir}/missing/record\"");
    let text = text.replace("{dir}/log", "{dir}/absent/log");
    assert_refused(Setup::new().config(&text), &["{dir}/missing"]);
}

#[test]
fn a_start_reads_little_of_a_large_record() {
    const SIZE: u64 = 256 << 20;
    for (format, warns) in [("text", false), ("raw", false), ("json", true)] {
        let folder = Folder::new();
        let path = folder.join("record");
        let mut file = File::create(&path).unwrap();
        // Without a single line feed, but the last byte.
        file.set_len(SIZE).unwrap();
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
        file.write_all(b"\n").unwrap();
        let record = format!("{FILE}\nformat = \"{format}\"");
        let mut daemon = Setup::within(Arc::clone(&folder))
            .config(&config("", &record))
            .start();
        let peak = daemon.peak_memory();
        assert!(peak < 48 << 20, "{format}: {peak} bytes of memory");
        send(&daemon, b"hello\n");
        assert!(daemon.stop().success());
        let warned = daemon.log().contains("numbers start from 1");
        assert_eq!(warned, warns, "{format}: {}", daemon.log());
        let mut line = String::new();
        let mut file = File::open(&path).unwrap();
        io::Seek::seek(&mut file, io::SeekFrom::Start(SIZE + 1)).unwrap();
        file.read_to_string(&mut line).unwrap();
        match format {
            "json" => assert_eq!(json(&line)["seq"], 1),
            _ => assert!(line.ends_with("hello\n"), "{format}: {line}"),
        }
    }
}

#[test]
fn no_message_of_a_client_leads_the_numbers_astray() {
    let folder = Folder::new();
    let start = |format: &str| {
        let record = format!("{FILE}\nformat = \"{format}\"");
        let setup = Setup::within(Arc::clone(&folder)).config(&config("", &record));
        setup.start()
    };
    let mut daemon = start("raw");
    send(
        &daemon,
        b"{\"seq\":18446744073709551615}\n\
          {\"time\":\"2026-11-22T06:20:31.123456Z\",\"socket\":\"log\",\"seq\":18446744073709551615}\n",
    );
    assert!(daemon.stop().success());
    for format in ["raw", "text", "json"] {
        let mut daemon = start(format);
        send(&daemon, b"one\ntwo\n");
        assert!(daemon.stop().success(), "{format}");
    }
    let records = records(&folder);
    assert_eq!(records[records.len() - 2]["seq"], 1);
    assert_eq!(records[records.len() - 1]["seq"], 2);
    // What looks like udsd's own in every way is believed, and still ends nothing.
    let mut daemon = start("raw");
    send(
        &daemon,
        b"{\"time\":\"2026-11-22T06:20:31.123456Z\",\"socket\":\"log\",\"seq\":18446744073709551614}\n",
    );
    assert!(daemon.stop().success());
    let mut daemon = start("json");
    send(&daemon, b"one\ntwo\nthree\n");
    assert!(daemon.stop().success());
}

#[test]
fn a_full_disk_makes_senders_wait_and_a_stop_says_what_is_lost() {
    let keys = "message-size = \"1KiB\"";
    let record = "file = \"/dev/full\"\nformat = \"raw\"\nqueue-size = \"64KiB\"";
    let text = format!(
        "[daemon]\ndrain-timeout = \"300ms\"\n{}",
        config(keys, record)
    );
    let mut daemon = Daemon::start(&text);
    let before = daemon.memory();
    let client = daemon.connect("log");
    let taken = write_until_full(&client, &numbered(0, 100_000), 0);
    assert!(taken < 1 << 20, "{taken} bytes were taken");
    daemon.wait_log(&["WARN", "/dev/full", "No space left"]);
    let grown = daemon.peak_memory().saturating_sub(before);
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    assert_eq!(daemon.stop().code(), Some(1));
    let line = daemon.wait_log(&["bytes of records are not written"]);
    assert!(!line.contains(" 0 bytes of records"), "{line}");
}

#[test]
fn a_disk_that_has_room_again_gets_everything() {
    const LINES: usize = 20_000;
    if !has_program("prlimit") {
        return;
    }
    let record = format!("{FILE}\nformat = \"raw\"\nqueue-size = \"64KiB\"");
    let mut daemon = Setup::new()
        .wrapper(&["prlimit", "--fsize=100001:unlimited", "--"])
        .config(&config("message-size = \"1KiB\"", &record))
        .start();
    let mut client = daemon.connect("log");
    let bytes = numbered(0, LINES);
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&bytes).unwrap());
        daemon.wait_log(&["WARN", "record", "trying again"]);
        let none = Rlimit {
            current: None,
            maximum: None,
        };
        prlimit(Some(daemon.pid()), Resource::Fsize, none).unwrap();
    });
    daemon.wait_log(&["writing again"]);
    // Its end of file comes once all it sent is taken.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    assert!(fs::read(daemon.path("record")).unwrap() == bytes);
}

#[test]
fn many_senders_at_once_lose_nothing() {
    const LINES: usize = 5_000;
    let daemon = Daemon::start(&config("", "format = \"raw\""));
    thread::scope(|scope| {
        for sender in 0..20 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.connect("log");
                for piece in numbered(sender, LINES).chunks(1_000 + 7 * sender) {
                    client.write_all(piece).unwrap();
                }
            });
        }
    });
    all_there(daemon.wait_output(20 * LINES).into_iter(), 20, LINES);
}

#[test]
fn a_collecting_socket_answers_nothing_and_closes_after_a_half_close() {
    let daemon = Daemon::start(&config("", ""));
    let client = daemon.connect("log");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(harness::wait_for(client.as_fd(), PollFlags::IN));
    assert_eq!(read_all(&client), b"");
}

#[test]
fn beside_echo_a_record_is_an_audit_trail() {
    let text = config("", FILE).replace("service = \"collect\"", "service = \"echo\"");
    let mut daemon = Daemon::start(&text);
    let mut client = daemon.connect("log");
    client.write_all(b"one\ntwo\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"one\ntwo\n");
    assert!(daemon.stop().success());
    let record = fs::read_to_string(daemon.folder().join("record")).unwrap();
    let pid = format!("\"pid\":{}", std::process::id());
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines.len(), 2, "{record}");
    for (line, message) in lines.iter().zip(["one", "two"]) {
        assert!(line.contains(&pid) && line.contains(&format!("\"message\":\"{message}\"")));
    }
}
