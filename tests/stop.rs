//! Promise: a stop delivers what was read, shows every client an end of file and no reset, ends in
//! time, leaves nothing behind, and the manager is told all along.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Instant,
};

use harness::{Daemon, Random, Setup, Signal, read_all, read_n, round_trip, write_until_full};

fn config(daemon: &str, keys: &str) -> String {
    format!(
        "[daemon]\n{daemon}\n[socket.echo]\npath = \"{{dir}}/echo\"\nservice = \"echo\"\nslow-timeout = \"1h\"\n{keys}\n"
    )
}

/// More than fits anywhere.
const FLOOD: usize = 8 << 20;
/// The default `queue-size`: where so much was taken and nobody reads, most of it is in the queue,
/// for the kernel's buffers hold some 200 KiB each way.
const LEAST: usize = 1 << 20;

/// The number before `unit` in the line that the daemon logs of socket `echo` at its end.
fn counted(daemon: &Daemon, unit: &str) -> usize {
    let line = daemon.wait_log(&["echo: ", " messages of ", " unread, "]);
    let words: Vec<&str> = line.split([' ', ',', ';']).collect();
    let place = words.iter().position(|word| *word == unit);
    let place = place.unwrap_or_else(|| panic!("no {unit} in: {line}"));
    // "17 bytes unread": the number may stand one word further back.
    let number = words[..place]
        .iter()
        .rev()
        .find_map(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {unit} in: {line}"))
}

fn nothing_is_left(daemon: &Daemon) {
    let left = fs::read_dir(daemon.folder().path()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours: Vec<String> = names.filter(|name| name.starts_with("echo")).collect();
    assert_eq!(ours, Vec::<String>::new());
}

#[test]
fn sigterm_and_sigint_stop_it_and_leave_nothing_behind() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&config("", ""));
        assert!(daemon.path("echo").exists());
        assert!(daemon.path("echo.lock").exists());
        let clients: Vec<UnixStream> = (0..100).map(|_| daemon.connect("echo")).collect();
        for client in &clients {
            round_trip(client, b"here");
        }
        daemon.signal(signal);
        for client in &clients {
            assert_eq!(read_all(client), b"");
        }
        assert_eq!(daemon.wait().code(), Some(0), "{signal:?}");
        nothing_is_left(&daemon);
        assert!(UnixStream::connect(daemon.path("echo")).is_err());
    }
}

#[test]
fn what_was_read_is_delivered_to_a_client_that_reads_slowly() {
    let mut daemon = Daemon::start(&config("drain-timeout = \"1h\"", ""));
    let bytes = Random::new(31).bytes(FLOOD);
    let client = daemon.connect("echo");
    let taken = write_until_full(&client, &bytes, LEAST);
    daemon.signal(Signal::TERM);
    daemon.wait_note("STOPPING=1");
    let mut came = Vec::new();
    let mut piece = [0; 1_000];
    loop {
        // An error here would be a reset.
        let n = (&client).read(&mut piece).unwrap();
        came.extend_from_slice(&piece[..n]);
        if n == 0 {
            break;
        }
    }
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(bytes.starts_with(&came));
    // Every byte that was sent is either back or counted.
    assert_eq!(counted(&daemon, "bytes"), came.len());
    assert_eq!(counted(&daemon, "unread"), taken - came.len());
    assert_eq!(counted(&daemon, "undelivered"), 0);
}

#[test]
fn lines_are_whole_up_to_the_end() {
    let mut daemon = Daemon::start(&config("drain-timeout = \"1h\"", "framing = \"lines\""));
    let bytes: Vec<u8> = (0..300_000)
        .flat_map(|n| format!("this is line {n}\n").into_bytes())
        .collect();
    let client = daemon.connect("echo");
    write_until_full(&client, &bytes, LEAST);
    daemon.signal(Signal::TERM);
    daemon.wait_note("STOPPING=1");
    let came = read_all(&client);
    assert!(bytes.starts_with(&came));
    assert!(came.ends_with(b"\n"));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn unread_input_ends_in_end_of_file_and_not_in_a_reset() {
    for _ in 0..10 {
        let mut daemon = Daemon::start(&config("", ""));
        let mut client = daemon.connect("echo");
        round_trip(&client, b"accepted");
        daemon.halt();
        client.write_all(&[7; 100_000]).unwrap();
        daemon.signal(Signal::TERM);
        daemon.resume();
        let came = read_all(&client);
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(counted(&daemon, "unread") + came.len(), 100_000);
    }
}

#[test]
fn who_connected_and_was_not_accepted_sees_end_of_file() {
    let mut daemon = Daemon::start(&config("", ""));
    daemon.halt();
    let clients: Vec<UnixStream> = (0..200)
        .map(|n| {
            let mut client = daemon.connect("echo");
            if n % 2 == 0 {
                client.write_all(&[7; 10_000]).unwrap();
            }
            client
        })
        .collect();
    daemon.signal(Signal::TERM);
    daemon.resume();
    for client in &clients {
        // Some may have been accepted and served first.
        read_all(client);
    }
    assert_eq!(daemon.wait().code(), Some(0));
    nothing_is_left(&daemon);
}

#[test]
fn drain_timeout_cuts_a_client_that_never_reads() {
    let mut daemon = Daemon::start(&config("drain-timeout = \"300ms\"", ""));
    let bytes = Random::new(32).bytes(FLOOD);
    let client = daemon.connect("echo");
    let other = daemon.connect("echo");
    round_trip(&other, b"owed nothing");
    write_until_full(&client, &bytes, LEAST);
    assert_eq!(daemon.stop().code(), Some(0), "its own fault");
    daemon.wait_log(&["WARN", "stop cut short by drain-timeout", "1 client left"]);
    assert!(bytes.starts_with(&read_all(&client)), "no gap, no reset");
    assert_eq!(read_all(&other), b"");
    assert_ne!(counted(&daemon, "undelivered"), 0);
    nothing_is_left(&daemon);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&config("drain-timeout = \"1h\"", ""));
        let client = daemon.connect("echo");
        write_until_full(&client, &[7; FLOOD], LEAST);
        daemon.signal(Signal::TERM);
        daemon.wait_note("STOPPING=1");
        daemon.signal(second);
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.wait_log(&["WARN", "stop cut short by a second signal"]);
        read_all(&client);
        nothing_is_left(&daemon);
    }
}

#[test]
fn a_stop_records_all_that_was_read() {
    let text = "[socket.echo]\npath = \"{dir}/echo\"\nservice = \"collect\"\nframing = \"lines\"\n\
                [socket.echo.record]\nfile = \"{dir}/record\"\nformat = \"raw\"\n";
    let mut daemon = Daemon::start(text);
    let bytes: Vec<u8> = (0..500_000)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    let client = daemon.connect("echo");
    let first = thread::scope(|scope| {
        scope.spawn(|| {
            // Ends with the daemon.
            let _ = (&client).write_all(&bytes);
        });
        daemon.wait_note("STATUS=1 client,");
        daemon.stop()
    });
    assert_eq!(first.code(), Some(0));
    let record = fs::read(daemon.path("record")).unwrap();
    assert!(bytes.starts_with(&record));
    assert!(record.is_empty() || record.ends_with(b"\n"));
    let lines = record.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(counted(&daemon, "messages"), lines);
}

#[test]
fn the_manager_is_told_of_everything() {
    let mut daemon = Setup::new()
        .config(&config("", ""))
        .variable("WATCHDOG_USEC", "200000")
        .start();
    assert_eq!(
        daemon.notes()[0],
        "READY=1\nSTATUS=0 clients, 0 messages, 1 socket\n"
    );
    let client = daemon.connect("echo");
    round_trip(&client, b"a message");
    daemon.wait_note("STATUS=1 client, ");
    let start = Instant::now();
    let alive = |said: &harness::Said| {
        said.notes
            .iter()
            .filter(|n| n.contains("WATCHDOG=1"))
            .count()
    };
    daemon.wait_for("third WATCHDOG=1", |said| (alive(said) >= 3).then_some(()));
    let so_far = daemon.wait_for("count", |said| Some(alive(said)));
    // Twice in the time after which the manager would act, and not as fast as it can.
    let most = 6 + start.elapsed().as_millis() / 50;
    assert!((so_far as u128) < most, "{so_far} in {:?}", start.elapsed());
    assert!(daemon.stop().success());
    daemon.wait_note("STOPPING=1");
    let notes = daemon.notes();
    let stopping = notes
        .iter()
        .position(|note| note.contains("STOPPING=1"))
        .unwrap();
    assert!(
        notes[stopping].contains("STATUS=stopping: 1 client"),
        "{notes:?}"
    );
    assert_eq!(
        notes.iter().filter(|note| note.contains("READY=1")).count(),
        1
    );
}

#[test]
fn without_a_watchdog_none_is_fed() {
    let mut daemon = Daemon::start(&config("", ""));
    round_trip(&daemon.connect("echo"), b"x");
    daemon.wait_note("STATUS=1 client, ");
    assert!(daemon.stop().success());
    assert!(!daemon.notes().concat().contains("WATCHDOG"));
}

#[test]
fn lines_have_priorities_only_for_the_journal() {
    let text = config("log = \"debug\"", "clients = 1");
    let mut daemon = Setup::new().config(&text).journal().start();
    let client = daemon.connect("echo");
    round_trip(&client, b"in");
    assert_eq!(read_all(&daemon.connect("echo")), b"");
    assert!(daemon.stop().success());
    let log = daemon.log();
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    daemon.wait_log(&["<4>echo: refused"]);
    daemon.wait_log(&["<6>stopping: "]);
    daemon.wait_log(&["<7>echo: client 1 "]);

    // JOURNAL_STREAM may be that of a parent whose standard error was another.
    let setup = Setup::new().config(&text);
    let mut daemon = setup.variable("JOURNAL_STREAM", "1:1").start();
    assert!(daemon.stop().success());
    let log = daemon.log();
    assert!(!log.lines().any(|line| line.starts_with('<')), "{log}");
    let line = daemon.wait_log(&["INFO", "stopping"]);
    assert_eq!(line.as_bytes()[10], b'T', "no time in: {line}");
}

#[test]
fn an_idle_daemon_stops_at_once_whatever_drain_timeout_says() {
    let mut daemon = Daemon::start(&config("drain-timeout = \"1h\"", ""));
    let client = daemon.connect("echo");
    (&client).write_all(b"read back").unwrap();
    assert_eq!(read_n(&client, 9), b"read back");
    // Does not wait for an hour: see `HANG`.
    assert!(daemon.stop().success());
}

#[test]
fn without_a_store_for_descriptors_sigusr2_says_so_and_stops() {
    let mut daemon = Daemon::start(&config("", ""));
    let client = daemon.connect("echo");
    round_trip(&client, b"here");
    daemon.signal(Signal::USR2);
    daemon.wait_log(&["WARN", "SIGUSR2", "stopping as for SIGTERM"]);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(read_all(&client), b"");
    nothing_is_left(&daemon);
}
