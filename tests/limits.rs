//! Promise: every limit holds, says whom it met and which key raises it, and costs nobody else
//! anything; when descriptors run out the daemon neither spins nor stops serving.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon, HANG, Random, Setup, has_program, is_root, read_all, read_n, read_until_closed,
    round_trip, was_cut_off, write_until_full,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Uid, geteuid, getpid},
    thread::set_thread_res_uid,
};

fn config(top: &str, keys: &str) -> String {
    format!("{top}\n[socket.echo]\npath = \"{{dir}}/echo\"\nservice = \"echo\"\n{keys}\n")
}

/// Leaves, and returns when the daemon knows.
fn leave(client: &UnixStream) {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), b"");
}

/// Fills a socket with `limit` clients, then checks that the next is refused by `key`.
fn refuses(top: &str, keys: &str, limit: usize, key: &str) {
    let other = "[socket.other]\npath = \"{dir}/other\"\nservice = \"echo\"\n";
    let daemon = Daemon::start(&(config(top, keys) + other));
    let present: Vec<UnixStream> = (0..limit).map(|_| daemon.connect("echo")).collect();
    for client in &present {
        round_trip(client, b"in");
    }
    assert_eq!(read_all(&daemon.connect("echo")), b"", "end of file");
    let line = daemon.wait_log(&["WARN", "refused"]);
    for part in [
        format!("pid {}", getpid()),
        format!("uid {}", geteuid().as_raw()),
        format!("{key} = {limit}"),
    ] {
        assert!(line.contains(&part), "no {part} in: {line}");
    }
    // One that has sent something before it is refused sees that it was not read.
    daemon.halt();
    let mut eager = daemon.connect("echo");
    eager.write_all(&[7; 100_000]).unwrap();
    daemon.resume();
    was_cut_off(&eager);

    for client in &present {
        round_trip(client, b"still in");
    }
    let elsewhere = daemon.connect("other");
    if key.starts_with("socket.") {
        round_trip(&elsewhere, b"not its limit");
    } else {
        assert_eq!(read_all(&elsewhere), b"");
    }
    leave(&present[0]);
    let next = daemon.connect("echo");
    round_trip(&next, b"a place is free");
    assert_eq!(read_all(&daemon.connect("echo")), b"");
}

#[test]
fn the_daemon_admits_so_many_clients() {
    refuses(
        "[limits]\nclients = 3\nclients-per-user = 3",
        "",
        3,
        "limits.clients",
    );
}

#[test]
fn a_user_may_have_so_many_clients_and_root_counts_like_anyone() {
    refuses(
        "[limits]\nclients = 10\nclients-per-user = 4",
        "",
        4,
        "limits.clients-per-user",
    );
}

#[test]
fn half_of_all_clients_is_a_users_share_where_no_key_says_more() {
    refuses("[limits]\nclients = 6", "", 3, "limits.clients-per-user");
}

#[test]
fn a_backlog_that_the_kernel_cuts_is_warned_of() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    let backlog = |more: u32| config("", &format!("backlog = {}", most + more));
    let daemon = Daemon::start(&backlog(0));
    assert!(!daemon.log().contains("somaxconn"));
    daemon.reload_with(&backlog(1));
    let line = daemon.wait_log(&["WARN", "net.core.somaxconn"]);
    for part in [
        format!("socket.echo.backlog = {}", most + 1),
        format!("net.core.somaxconn = {most}"),
    ] {
        assert!(line.contains(&part), "no {part} in: {line}");
    }
}

#[test]
fn a_socket_may_have_so_many_clients() {
    refuses("", "clients = 2", 2, "socket.echo.clients");
}

#[test]
fn who_comes_after_another_has_left_finds_the_place_free() {
    let daemon = Daemon::start(&config("", "clients = 1"));
    for _ in 0..20 {
        let first = daemon.connect("echo");
        round_trip(&first, b"first");
        daemon.halt();
        drop(first);
        let mut second = daemon.connect("echo");
        second.write_all(b"second").unwrap();
        daemon.resume();
        assert_eq!(read_n(&second, 6), b"second");
        leave(&second);
    }
}

#[test]
fn ten_thousand_refused_clients_are_counted_and_logged_a_few_times() {
    const REFUSED: usize = 10_000;
    let mut daemon = Daemon::start(&config("", "clients = 1"));
    let holder = daemon.connect("echo");
    round_trip(&holder, b"in");
    let start = Instant::now();
    for _ in 0..REFUSED {
        assert_eq!(read_all(&daemon.connect("echo")), b"");
    }
    let intervals = 1 + start.elapsed().as_secs() as usize / 10;
    round_trip(&holder, b"still in");
    assert!(daemon.stop().success());
    let log = daemon.log();
    let lines = log.matches("refused a client").count();
    assert!(
        (1..=20 * (intervals + 1)).contains(&lines),
        "{lines} lines for {REFUSED} clients"
    );
    assert!(!log.contains("ERROR"));
    daemon.wait_log(&["1 clients, 10000 refused"]);
}

#[test]
fn without_descriptors_it_neither_spins_nor_stops_serving() {
    const OPEN_FILES: usize = 64;
    if !has_program("prlimit") {
        return;
    }
    let daemon = Setup::new()
        .open_files(OPEN_FILES)
        .config(&config(
            "[limits]\nclients = 1000\nclients-per-user = 1000",
            "",
        ))
        .start();
    daemon.wait_log(&["WARN", "limits.clients = 1000", "64"]);
    let start = (Instant::now(), daemon.cpu_time());
    let mut clients: Vec<UnixStream> = (0..OPEN_FILES + 10)
        .map(|_| daemon.connect("echo"))
        .collect();
    // Whoever finds no descriptor gets an end in place of silence.
    let served: Vec<bool> = clients
        .iter_mut()
        .map(|client| {
            // It may have been closed already.
            let _ = client.write_all(b"x");
            let mut byte = [0];
            client.read(&mut byte).is_ok_and(|bytes| bytes == 1)
        })
        .collect();
    let spent = (start.0.elapsed(), daemon.cpu_time() - start.1);
    assert!(
        spent.1 < spent.0 / 2,
        "{:?} of processor time in {:?}",
        spent.1,
        spent.0
    );
    let inside = served.iter().filter(|served| **served).count();
    assert!(
        served[..inside].iter().all(|served| *served),
        "first come, first served"
    );
    assert!(
        (OPEN_FILES - 36..OPEN_FILES).contains(&inside),
        "{inside} served"
    );
    daemon.wait_log(&[
        "WARN",
        "refused a client (pid ",
        "out of descriptors",
        "LimitNOFILE=",
    ]);
    for client in &clients[..inside] {
        round_trip(client, b"not disturbed");
    }
    for client in clients.drain(..inside) {
        leave(&client);
    }
    for _ in 0..100 {
        round_trip(&daemon.connect("echo"), b"served again");
    }
}

#[test]
fn idle_timeout_closes_the_silent_and_only_them() {
    let daemon = Daemon::start(&config("", "idle-timeout = \"2s\""));
    let start = Instant::now();
    let silent = daemon.connect("echo");
    let active = daemon.connect("echo");
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    while poll(&mut [PollFd::new(&silent, PollFlags::IN)], Some(&now)).unwrap() == 0 {
        round_trip(&active, b"I am here");
        assert!(start.elapsed() < HANG, "the silent client stays");
    }
    assert_eq!(read_all(&silent), b"");
    assert!(start.elapsed() >= Duration::from_secs(2));
    round_trip(&active, b"I am still here");
    let line = daemon.wait_log(&["WARN", "silent for socket.echo.idle-timeout"]);
    assert!(line.contains(&format!("pid {}", getpid())), "{line}");
    assert_eq!(read_all(&active), b"");
}

/// More than fits anywhere.
const FLOOD: usize = 8 << 20;

#[test]
fn wait_makes_a_client_that_does_not_read_wait_and_loses_nothing() {
    let daemon = Daemon::start(&config(
        "",
        "queue-size = \"128KiB\"\nslow-timeout = \"1h\"",
    ));
    let other = daemon.connect("echo");
    round_trip(&other, b"before");
    let before = daemon.memory();
    let bytes = Random::new(21).bytes(FLOOD);
    let client = daemon.connect("echo");
    let taken = write_until_full(&client, &bytes, 0);
    assert!(taken < 1 << 20, "{taken} bytes were taken");
    let grown = daemon.peak_memory().saturating_sub(before);
    assert!(grown < 2 << 20, "grown by {grown} bytes");
    round_trip(&other, b"between");
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&bytes[taken..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&client) == bytes);
    });
}

#[test]
fn queue_size_bounds_the_memory_of_many_clients_that_do_not_read() {
    const CLIENTS: usize = 20;
    let daemon = Daemon::start(&config(
        "",
        "queue-size = \"256KiB\"\nslow-timeout = \"1h\"",
    ));
    round_trip(&daemon.connect("echo"), b"before");
    let before = daemon.memory();
    let bytes = vec![1; FLOOD];
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect("echo")).collect();
    thread::scope(|scope| {
        for client in &clients {
            let bytes = &bytes;
            scope.spawn(move || {
                let taken = write_until_full(client, bytes, 0);
                assert!(taken < 2 << 20, "{taken} bytes were taken");
            });
        }
    });
    // A queue (a buffer that grows doubles) and one read that waits.
    let grown = daemon.peak_memory().saturating_sub(before);
    let allowed = CLIENTS * (2 * 256 + 2 * 64) * 1024 + (1 << 20);
    assert!(grown < allowed, "grown by {grown} of {allowed} bytes");
}

/// Writes all of `bytes` or until the daemon closes; reads nothing.
fn flood(mut client: &UnixStream, bytes: &[u8]) -> Result<(), ErrorKind> {
    client.write_all(bytes).map_err(|error| match error.kind() {
        // The daemon had not read all. Who hears of that first, the writer or the reader, is open.
        ErrorKind::ConnectionReset => ErrorKind::BrokenPipe,
        other => other,
    })
}

#[test]
fn disconnect_closes_a_client_that_does_not_read() {
    let daemon = Daemon::start(&config(
        "",
        "queue-size = \"128KiB\"\nslow-client = \"disconnect\"",
    ));
    let other = daemon.connect("echo");
    let bytes = Random::new(22).bytes(FLOOD);
    let client = daemon.connect("echo");
    assert_eq!(flood(&client, &bytes), Err(ErrorKind::BrokenPipe));
    let came = read_until_closed(&client);
    assert!(bytes.starts_with(&came), "no gap in what came");
    let line = daemon.wait_log(&["WARN", "did not read"]);
    for part in ["queue-size", "slow-client", "pid", "uid", "undelivered"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    round_trip(&other, b"not disturbed");
}

#[test]
fn drop_drops_whole_messages_and_counts_them() {
    const LINES: usize = 100_000;
    let mut daemon = Daemon::start(&config(
        "",
        "queue-size = \"128KiB\"\nslow-client = \"drop\"\nframing = \"lines\"",
    ));
    let client = daemon.connect("echo");
    for n in 0..LINES {
        // Nobody reads, and it never blocks for good.
        assert_eq!(
            flood(&client, format!("line number {n}\n").as_bytes()),
            Ok(())
        );
    }
    client.shutdown(Shutdown::Write).unwrap();
    let came = String::from_utf8(read_all(&client)).unwrap();
    assert!(came.ends_with('\n'));
    let mut last = None;
    for line in came.lines() {
        let number: usize = line.strip_prefix("line number ").unwrap().parse().unwrap();
        assert!(
            last.is_none_or(|last| last < number),
            "{line} after {last:?}"
        );
        last = Some(number);
    }
    let kept = came.lines().count();
    assert!(kept < LINES, "nothing had to be dropped");
    assert!(daemon.stop().success());
    daemon.wait_log(&["echo: 1 clients", &format!(" {} dropped", LINES - kept)]);
}

#[test]
fn slow_timeout_ends_the_waiting_for_a_client_that_never_reads() {
    let daemon = Daemon::start(&config(
        "",
        "queue-size = \"128KiB\"\nslow-timeout = \"500ms\"",
    ));
    let bytes = Random::new(23).bytes(FLOOD);
    let client = daemon.connect("echo");
    assert_eq!(flood(&client, &bytes), Err(ErrorKind::BrokenPipe));
    assert!(bytes.starts_with(&read_until_closed(&client)));
    let line = daemon.wait_log(&["WARN", "did not read"]);
    assert!(line.contains("socket.echo.slow-timeout = 500ms"), "{line}");
    assert!(line.contains("socket.echo.queue-size = 131072"), "{line}");
}

#[test]
fn slow_timeout_spares_a_client_whose_queue_has_room() {
    let daemon = Daemon::start(&config("", "queue-size = \"1MiB\"\nslow-timeout = \"1ms\""));
    let client = daemon.connect("echo");
    // Within the queue, beyond the kernel's buffer.
    let bytes = Random::new(24).bytes(700_000);
    assert_eq!(flood(&client, &bytes), Ok(()));
    client.shutdown(Shutdown::Write).unwrap();
    round_trip(&daemon.connect("echo"), b"hello");
    assert!(read_all(&client) == bytes);
}

#[test]
fn slow_timeout_spares_a_client_that_reads() {
    let daemon = Daemon::start(&config(
        "",
        "queue-size = \"128KiB\"\nslow-timeout = \"2s\"",
    ));
    let bytes = Random::new(25).bytes(8 * FLOOD);
    let client = daemon.connect("echo");
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(flood(&client, &bytes), Ok(()));
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&client) == bytes);
    });
}

#[test]
fn who_waits_for_a_quota_is_named_before_it_is_closed() {
    let daemon = Daemon::start(&config(
        "[limits]\nqueue-per-user = \"256KiB\"",
        "framing = \"lines\"\nmessage-size = \"100KiB\"\nqueue-size = \"128KiB\"\nslow-timeout = \"1500ms\"",
    ));
    // Unfinished messages, for two of which there is room.
    let hogs = [(); 3].map(|()| {
        let mut hog = daemon.connect("echo");
        hog.write_all(&[b'x'; 98_304]).unwrap();
        hog
    });
    for parts in [
        ["waits for room under", "closed after"],
        ["closed: no room for its bytes under", "undelivered"],
    ] {
        let line = daemon.wait_log(&["WARN", parts[0], parts[1]]);
        for part in [
            format!("(pid {}, uid {}", getpid(), geteuid().as_raw()),
            "limits.queue-per-user = 262144 bytes".into(),
        ] {
            assert!(line.contains(&part), "no {part} in: {line}");
        }
    }
    drop(hogs);
    // Who comes before the last of them is closed may have to go with it.
    let text = b"there is room again\n";
    let deadline = Instant::now() + HANG;
    loop {
        let mut client = daemon.connect("echo");
        let mut answer = [0; 20];
        if client.write_all(text).is_ok() && client.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, text);
            return;
        }
        assert!(Instant::now() < deadline, "there is no room again");
    }
}

/// Clients of another user: credentials are those of the thread that connects.
fn connect_as(daemon: &Daemon, uid: u32, count: usize) -> Vec<UnixStream> {
    let act = || {
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).unwrap();
        (0..count).map(|_| daemon.connect("echo")).collect()
    };
    thread::scope(|scope| scope.spawn(act).join().unwrap())
}

#[test]
fn users_who_take_all_that_there_is_leave_another_its_place_and_its_ping() {
    const CLIENTS: usize = 32;
    if !is_root() {
        return;
    }
    let limits = "[limits]\nclients = 320\nclients-per-user = 160\nqueue-per-user = \"4MiB\"\nqueue-total = \"8MiB\"";
    let keys = "mode = \"0666\"\nqueue-size = \"256KiB\"\nslow-timeout = \"1h\"";
    let daemon = Daemon::start(&config(limits, keys));
    let victim = connect_as(&daemon, 7100, 1).remove(0);
    round_trip(&victim, b"a quiet ping");
    let flood = vec![b'x'; 1 << 20];
    let mut hogs = Vec::new();
    for uid in 7001..7006 {
        let clients = connect_as(&daemon, uid, CLIENTS);
        thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| write_until_full(client, &flood, 0));
            }
        });
        hogs.extend(clients);
        round_trip(&victim, b"a ping beside them");
    }
    // Places, too: two of them take what they can.
    for uid in [7001, 7002] {
        hogs.extend(connect_as(&daemon, uid, 160 - CLIENTS));
    }
    daemon.wait_log(&["refused a client", "last sixteenth of limits.clients = 320"]);
    round_trip(&connect_as(&daemon, 7101, 1)[0], b"a newcomer");
    round_trip(&victim, b"at the end");
}

/// The number before `what` in a line.
fn number_before(line: &str, what: &str) -> Option<u64> {
    let number = line[..line.find(what)?].rsplit(' ').next()?;
    number.trim_start_matches('(').parse().ok()
}

#[test]
fn what_the_log_leaves_out_it_counts_in_messages_and_tells_when_the_time_is_over() {
    let mut daemon = Daemon::start(
        "[socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\nslow-client = \"drop\"\n\
         message-size = \"1KiB\"\nqueue-size = \"2KiB\"\n",
    );
    let _deaf = daemon.connect("r");
    let mut speaker = daemon.connect("r");
    let mut other = daemon.connect("r");
    let line = [b"x".repeat(99), b"\n".to_vec()].concat().repeat(10);
    for _ in 0..400 {
        speaker.write_all(&line).unwrap();
        // One who reads has it, so each goes round alone.
        other.read_exact(&mut vec![0; line.len()]).unwrap();
    }
    daemon.wait_log(&["r: ", " more messages dropped ", "lines left out"]);
    assert!(daemon.stop().success());
    let log = daemon.log();
    let mut told = 0;
    for line in log.lines().filter(|line| line.contains("WARN")) {
        told += number_before(line, " messages for client").unwrap_or(0);
        told += number_before(line, " more messages dropped").unwrap_or(0);
        told += number_before(line, " messages)").unwrap_or(0);
    }
    let summary = daemon.wait_log(&["r: ", "messages of"]);
    let dropped = number_before(&summary, " dropped").unwrap();
    assert!(dropped > 1000, "{summary}");
    assert_eq!(told, dropped, "{log}");
}

/// Clients of the socket `name` that the log says were refused, one by one or summed up.
fn told_refused(log: &str, name: &str) -> u64 {
    let lines = log
        .lines()
        .filter(|line| line.contains(&format!("{name}: ")));
    lines
        .map(|line| {
            let one = u64::from(line.contains("refused a client"));
            let more = number_before(line, " more clients refused by limits");
            one + more.unwrap_or(0) + number_before(line, " lines like this left out").unwrap_or(0)
        })
        .sum()
}

#[test]
fn what_the_log_left_out_it_tells_at_a_stop_and_when_the_socket_is_gone() {
    let socket = |name: &str| {
        format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\nservice = \"echo\"\nclients = 1\n")
    };
    let mut daemon = Daemon::start(&(socket("a") + &socket("b")));
    let refuse_at = |daemon: &Daemon, name: &str| {
        let there = daemon.connect(name);
        round_trip(&there, b"in");
        for _ in 0..50 {
            assert_eq!(read_all(&daemon.connect(name)), b"", "end of file");
        }
        leave(&there);
    };
    refuse_at(&daemon, "b");
    // Another takes its place.
    daemon.reload_with(&socket("a"));
    daemon.reload_with(&(socket("a") + &socket("c")));
    refuse_at(&daemon, "a");
    assert!(daemon.stop().success());
    let log = daemon.log();
    for name in ["a", "b"] {
        assert_eq!(told_refused(&log, name), 50, "{name}: {log}");
    }
}

#[test]
fn who_connects_to_a_quiet_socket_waits_for_few_of_those_at_a_busy_one() {
    let daemon = Daemon::start(
        "[socket.a]\npath = \"{dir}/a\"\n\
         [socket.b]\npath = \"{dir}/b\"\nservice = \"collect\"\nframing = \"lines\"\n",
    );
    daemon.halt();
    let crowd: Vec<UnixStream> = (0..200).map(|_| daemon.connect("a")).collect();
    let mut single = daemon.connect("b");
    single.write_all(b"here\n").unwrap();
    daemon.resume();
    let record = &daemon.wait_output(1)[0];
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    // Clients are numbered as they come in.
    let number = record["client"].as_u64().unwrap();
    assert!(number <= 32, "it came in as client {number}");
    for client in crowd {
        round_trip(&client, b"in");
    }
}

#[test]
fn who_came_and_went_delays_nobody_and_is_counted() {
    let mut daemon = Daemon::start(
        "[socket.a]\npath = \"{dir}/a\"\nservice = \"collect\"\nframing = \"lines\"\n\
         [socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\n",
    );
    daemon.halt();
    let messages = 20 * 4096;
    let flood = |_| {
        let mut client = daemon.connect("a");
        client.write_all(&b"x\n".repeat(4096)).unwrap();
        client
    };
    let _flood: Vec<UnixStream> = (0..20).map(flood).collect();
    for _ in 0..1000 {
        daemon.connect("a");
    }
    // This one left too, but has sent something.
    daemon.connect("a").write_all(b"mine\n").unwrap();
    // Who only ended its sending still gets what others say.
    let listener = daemon.connect("r");
    listener.shutdown(Shutdown::Write).unwrap();
    daemon.resume();
    let mut speaker = daemon.connect("r");
    speaker.write_all(b"hello\n").unwrap();
    assert_eq!(read_n(&listener, 6), b"hello\n");
    let records = daemon.wait_output(messages + 1);
    let mine = records.iter().position(|line| line.contains("mine"));
    let before = mine.unwrap();
    // One turn of each of the flooders.
    assert!(before <= 30_000, "{before} messages before it");
    assert!(daemon.stop().success());
    daemon.wait_log(&["a: 1021 clients"]);
}
