//! Promise: under `exit-on-idle` the daemon ends by itself once nobody has been there for that span
//! and nothing is left to do, and nobody can fall between its end and its next start.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Stdio,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon, Folder, HANG, Random, Setup, apply_command, connect, read_until_closed, round_trip,
    varlink::Caller,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_passcred,
};

const SECOND: Duration = Duration::from_secs(1);

const IDLE: &str = "[daemon]\nexit-on-idle = \"1s\"\n";
/// A stream socket `a`.
const STREAM: &str = "[socket.a]\npath = \"{dir}/a\"\n";
/// A datagram socket `d`.
const DATAGRAMS: &str = "[socket.d]\npath = \"{dir}/d\"\ntype = \"datagram\"\n";

/// What the manager holds, and passes to each daemon in turn.
struct Manager {
    folder: Arc<Folder>,
    config: String,
    sockets: Vec<(&'static str, OwnedFd)>,
}

impl Manager {
    /// One with the sockets of `STREAM` and `DATAGRAMS` that `config` has.
    fn new(config: &str) -> Self {
        let folder = Folder::new();
        let mut sockets = Vec::new();
        if config.contains("[socket.a]") {
            let listener = UnixListener::bind(folder.join("a")).unwrap();
            sockets.push(("a", listener.into()));
        }
        if config.contains("[socket.d]") {
            let socket = UnixDatagram::bind(folder.join("d")).unwrap();
            set_socket_passcred(&socket, true).unwrap();
            sockets.push(("d", socket.into()));
        }
        for (name, _) in &sockets {
            let mode = PermissionsExt::from_mode(0o660);
            fs::set_permissions(folder.join(name), mode).unwrap();
        }
        Manager {
            folder,
            config: config.into(),
            sockets,
        }
    }

    /// A daemon as the manager starts it, its sockets from descriptor 3 on.
    fn setup(&self, stdout: Option<Stdio>) -> Setup {
        let mut setup = Setup::within(self.folder.clone()).config(&self.config);
        let duplicate = |i: usize| self.sockets[i].1.try_clone().unwrap();
        setup = setup.stdin(duplicate(0));
        let mut moves = "3<&0 </dev/null";
        if self.sockets.len() == 2 {
            setup = setup.stdout(duplicate(1));
            moves = "3<&0 4<&1 </dev/null >/dev/null";
        } else if let Some(stdout) = stdout {
            setup = setup.stdout(stdout);
        }
        let script = format!("exec {moves}; export LISTEN_PID=$$; exec \"$@\"");
        let names: Vec<&str> = self.sockets.iter().map(|(name, _)| *name).collect();
        setup
            .wrapper(&["sh", "-c", &script, "sh"])
            .variable("LISTEN_FDS", &names.len().to_string())
            .variable("LISTEN_FDNAMES", &names.join(":"))
    }

    fn start(&self) -> Daemon {
        self.setup(None).start()
    }

    /// Whether somebody waits at a socket, or does within `HANG`; `end` ends the wait.
    fn is_called(&self, end: &impl AsFd) -> bool {
        let mut all: Vec<PollFd<'_>> = vec![PollFd::new(end, PollFlags::IN)];
        all.extend((self.sockets.iter()).map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        let timeout = Timespec::try_from(HANG).unwrap();
        assert!(poll(&mut all, Some(&timeout)).unwrap() > 0, "nobody came");
        all[1..].iter().any(|fd| !fd.revents().is_empty())
    }
}

/// Returns when so many daemons with nothing to do have ended, one after the other: as many spans of
/// a second have passed, whatever the machine does meanwhile.
fn spans(count: usize) {
    for _ in 0..count {
        let manager = Manager::new(&format!("{IDLE}{STREAM}"));
        assert!(manager.start().wait().success());
    }
}

fn is_idle(daemon: &Daemon) -> bool {
    daemon.log().contains("idle for")
}

/// It ends as after a stop, and no sooner than a span after `since`.
#[track_caller]
fn assert_ends(daemon: &mut Daemon, since: Instant, span: Duration) {
    let status = daemon.wait();
    assert!(since.elapsed() >= span, "after {:?}", since.elapsed());
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(is_idle(daemon), "{}", daemon.log());
}

/// A client of datagram socket `d`, bound to `name`.
fn sender(folder: &Folder, name: &str) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.join(name)).unwrap();
    fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.set_write_timeout(Some(HANG)).unwrap();
    socket
}

fn datagram_round_trip(socket: &UnixDatagram, to: &Path, bytes: &[u8]) {
    socket.send_to(bytes, to).unwrap();
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], bytes);
}

#[test]
fn it_ends_as_after_a_stop_and_the_next_one_serves_who_came_meanwhile() {
    for sockets in [STREAM, DATAGRAMS, &format!("{STREAM}{DATAGRAMS}")] {
        let manager = Manager::new(&format!("{IDLE}{sockets}"));
        let started = Instant::now();
        let mut daemon = manager.start();
        assert_ends(&mut daemon, started, SECOND);
        daemon.wait_note("STOPPING=1");
        let log = daemon.log();
        assert!(log.contains("idle for 1s (exit-on-idle)"), "{log}");
        assert!(log.contains(" 0 messages"), "no last lines: {log}");
        for (name, _) in &manager.sockets {
            assert!(manager.folder.join(name).exists(), "unlinked {name}");
        }
        // They came while no daemon was there.
        let (stream, datagrams) = (
            sockets.contains("[socket.a]"),
            sockets.contains("[socket.d]"),
        );
        let client = stream.then(|| connect(&manager.folder.join("a")));
        let sender = datagrams.then(|| sender(&manager.folder, "sender"));
        if let Some(sender) = &sender {
            sender.send_to(b"early", manager.folder.join("d")).unwrap();
        }
        let _next = manager.start();
        if let Some(client) = &client {
            round_trip(client, b"hello");
        }
        if let Some(sender) = &sender {
            let mut buffer = [0; 100];
            assert_eq!(sender.recv(&mut buffer).unwrap(), 5);
        }
    }
}

#[test]
fn without_the_key_it_stays() {
    let manager = Manager::new(STREAM);
    let mut daemon = manager.start();
    spans(2);
    round_trip(&daemon.connect("a"), b"hello");
    assert!(daemon.stop().success());
}

#[test]
fn a_client_keeps_it_and_the_span_begins_when_the_last_one_leaves() {
    let manager = Manager::new(&format!("{IDLE}{STREAM}"));
    let mut daemon = manager.start();
    let (first, second) = (daemon.connect("a"), daemon.connect("a"));
    round_trip(&first, b"hello");
    round_trip(&second, b"hello");
    drop(first);
    spans(2);
    // Silent all that time.
    round_trip(&second, b"still here");
    let left = Instant::now();
    drop(second);
    assert_ends(&mut daemon, left, SECOND);
}

/// Part of a span of 4 s is over when `come` is called; after that the whole span must pass.
#[track_caller]
fn assert_begins_anew(come: impl FnOnce(&Daemon)) {
    let config = format!("[daemon]\nexit-on-idle = \"4s\"\n{STREAM}{DATAGRAMS}");
    let manager = Manager::new(&config);
    let mut daemon = loop {
        let daemon = manager.start();
        spans(1);
        // Else the machine is so busy that the span is over: once more.
        if !is_idle(&daemon) {
            break daemon;
        }
    };
    let came = Instant::now();
    come(&daemon);
    assert_ends(&mut daemon, came, 4 * SECOND);
}

#[test]
fn a_client_that_comes_and_goes_begins_the_span_anew() {
    assert_begins_anew(|daemon| drop(daemon.connect("a")));
}

#[test]
fn a_datagram_begins_the_span_anew() {
    assert_begins_anew(|daemon| {
        let sender = sender(daemon.folder(), "sender");
        datagram_round_trip(&sender, &daemon.path("d"), b"hello");
    });
}

#[test]
fn who_came_when_the_time_was_over_is_served_by_the_same_daemon() {
    let manager = Manager::new(&format!("{IDLE}{STREAM}{DATAGRAMS}"));
    let sender = sender(&manager.folder, "sender");
    for stream in [true, false] {
        let mut daemon = manager.start();
        // It notices late, on a busy machine or after a suspend.
        daemon.halt();
        spans(2);
        let client = stream.then(|| daemon.connect("a"));
        if !stream {
            sender.send_to(b"hello", daemon.path("d")).unwrap();
        }
        let came = Instant::now();
        daemon.resume();
        match client {
            Some(client) => round_trip(&client, b"hello"),
            None => assert_eq!(sender.recv(&mut [0; 100]).unwrap(), 5),
        }
        assert_ends(&mut daemon, came, SECOND);
    }
}

#[test]
fn what_waits_for_the_disk_keeps_it() {
    let config = format!("{IDLE}{STREAM}service = \"collect\"\nframing = \"lines\"\n");
    let manager = Manager::new(&config);
    // A standard output that nobody reads: a disk that takes its time.
    let (mut output, stdout) = io::pipe().unwrap();
    let mut daemon = manager.setup(Some(stdout.into())).start();
    let mut client = daemon.connect("a");
    let lines = 4000;
    for n in 0..lines {
        writeln!(client, "line {n}").unwrap();
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // Taken, but a pipe does not hold it all.
    assert_eq!(harness::read_all(&client), b"");
    drop(client);
    spans(2);
    assert!(!is_idle(&daemon), "it stops with lines unwritten");
    let read = Instant::now();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    });
    assert_ends(&mut daemon, read, SECOND);
    let text = reader.join().unwrap();
    assert_eq!(text.lines().count(), lines);
    assert!(text.contains(&format!("line {}\"", lines - 1)));
}

#[test]
fn an_answer_that_its_receiver_does_not_take_yet_keeps_it() {
    let config = format!("{IDLE}{DATAGRAMS}slow-timeout = \"10min\"\nqueue-size = \"1MiB\"\n");
    let manager = Manager::new(&config);
    let sender = sender(&manager.folder, "sender");
    let mut daemon = manager.start();
    // Its queue in the kernel takes some of the answers, the daemon holds the others.
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let count = 2 * (text.trim().parse::<u32>().unwrap() + 1);
    for n in 0..count {
        sender
            .send_to(&n.to_be_bytes(), manager.folder.join("d"))
            .unwrap();
    }
    spans(2);
    assert!(!is_idle(&daemon), "it stops with answers undelivered");
    let read = Instant::now();
    let mut buffer = [0; 4];
    for n in 0..count {
        sender.recv(&mut buffer).unwrap();
        assert_eq!(u32::from_be_bytes(buffer), n);
    }
    assert_ends(&mut daemon, read, SECOND);
}

#[test]
fn a_signal_stops_it_as_ever() {
    let manager = Manager::new(&format!("[daemon]\nexit-on-idle = \"1h\"\n{STREAM}"));
    let mut daemon = manager.start();
    round_trip(&daemon.connect("a"), b"hello");
    assert!(daemon.stop().success());
    assert!(!is_idle(&daemon));
}

#[test]
fn beside_a_socket_that_is_not_passed_it_stays() {
    let two = format!("{IDLE}{STREAM}[socket.b]\npath = \"{{dir}}/b\"\n");
    let manager = Manager::new(&two);
    let mut daemon = manager.start();
    daemon.wait_log(&["WARN", "exit-on-idle is not in force", apply_command()]);
    spans(3);
    round_trip(&daemon.connect("b"), b"here");
    round_trip(&daemon.connect("a"), b"here");
    assert!(daemon.stop().success());
}

#[test]
fn where_none_is_passed_it_is_refused() {
    let setup = Setup::new().config(&format!("{IDLE}{STREAM}"));
    let folder = setup.folder().clone();
    let (code, log) = setup.fail();
    assert_eq!(code, Some(78), "{log}");
    let path = folder.join("a");
    for word in [
        "udsd.toml:2: daemon.exit-on-idle: ",
        "socket.a.path",
        path.to_str().unwrap(),
        "\"never\"",
    ] {
        assert!(log.contains(word), "\"{word}\" is not in: {log}");
    }
    assert!(!path.exists());
}

/// Rounds of a lane; each ends a daemon, or comes just before its end.
const ROUNDS: usize = 8;
/// Clients of a round, one after the other.
const CLIENTS: usize = 25;
const LANES: u64 = 6;

/// The manager of one lane: starts a daemon when somebody waits, for as long as there is none, and
/// tells `stopping` when one has begun to stop. Returns how many it started.
fn manage(manager: &Manager, end: &impl AsFd, stopping: &mpsc::Sender<()>) -> usize {
    let mut starts = 0;
    while manager.is_called(end) {
        let mut daemon = manager.start();
        starts += 1;
        daemon.wait_note("STOPPING=1");
        // The lane may be through.
        let _ = stopping.send(());
        let status = daemon.wait();
        assert_eq!(status.code(), Some(0), "{status}");
    }
    starts
}

/// The clients of one lane: they come when the daemon is about to stop, or while it does.
fn come_and_go(folder: &Folder, stopping: &mpsc::Receiver<()>, random: &mut Random) {
    let sender = sender(folder, "sender");
    let mut left = None::<Instant>;
    for round in 0..ROUNDS {
        if let Some(left) = left.filter(|_| round % 2 == 0) {
            // The moment is the test, nothing is waited for: up to 10 ms before the time is over, or
            // after it.
            let due = left + SECOND - Duration::from_millis(10);
            let due = due + Duration::from_micros(random.below(20_000) as u64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        } else if left.is_some() {
            stopping.recv_timeout(HANG).unwrap();
        }
        for n in 0..CLIENTS {
            let bytes = format!("round {round} client {n}");
            // Whoever comes first may find no daemon: also in the way of datagrams.
            if (n + round / 2) % 2 == 0 {
                let client = UnixStream::connect(folder.join("a")).unwrap();
                client.set_read_timeout(Some(HANG)).unwrap();
                round_trip(&client, bytes.as_bytes());
            } else {
                datagram_round_trip(&sender, &folder.join("d"), bytes.as_bytes());
            }
        }
        left = Some(Instant::now());
        // What came before this daemon was there is of another one.
        for () in stopping.try_iter() {}
    }
}

#[test]
fn nobody_falls_between_two_daemons() {
    let config = format!("{IDLE}{STREAM}{DATAGRAMS}");
    let begin = Barrier::new(LANES as usize);
    let lane = |seed| {
        let manager = Manager::new(&config);
        let (told, stopping) = mpsc::channel();
        let (end, ended) = io::pipe().unwrap();
        begin.wait();
        thread::scope(|scope| {
            let starts = scope.spawn(|| manage(&manager, &end, &told));
            let mut random = Random::new(seed);
            come_and_go(&manager.folder, &stopping, &mut random);
            drop(ended);
            starts.join().unwrap()
        })
    };
    let starts: usize = thread::scope(|scope| {
        let lanes: Vec<_> = (1..=LANES)
            .map(|seed| scope.spawn(move || lane(seed)))
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    // Every second round but the first came while a daemon was stopping.
    let least = LANES as usize * (1 + ROUNDS / 2);
    assert!(starts >= least, "{starts} daemons, expected {least}");
}

#[test]
fn who_asks_at_the_control_socket_keeps_nobody_from_being_idle() {
    let control = "control = \"{dir}/control\"\n";
    let manager = Manager::new(&format!("{IDLE}{control}{STREAM}"));
    let started = Instant::now();
    let mut daemon = manager.start();
    let mut caller = Caller::new(&daemon.path("control"));
    let asked = thread::spawn(move || {
        let mut answers = 0;
        // Until the daemon ends.
        while caller.try_ask("Status").is_some() {
            answers += 1;
        }
        answers
    });
    assert_ends(&mut daemon, started, SECOND);
    assert!(asked.join().unwrap() > 0);
}

/// What the log left out of them it tells up to 10 s later; nobody is there for that.
#[test]
fn who_is_not_let_in_keeps_it_no_longer_than_the_span() {
    let config = format!("{IDLE}{STREAM}allow-users = [4000000003]\n");
    let manager = Manager::new(&config);
    let mut daemon = manager.start();
    for _ in 0..30 {
        assert!(read_until_closed(&daemon.connect("a")).is_empty());
    }
    assert!(daemon.wait().success());
    let log = daemon.log();
    let at = |words: &str| {
        log.find(words)
            .unwrap_or_else(|| panic!("no {words} in\n{log}"))
    };
    assert!(at("idle for") < at("lines left out"), "{log}");
}
