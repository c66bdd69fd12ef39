//! Promise: a restart is invisible. Every client stays connected, with what it has half sent, what it
//! is owed, its number and its place; nothing is lost, repeated or out of order, and nobody who
//! connects is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{Cursor, ErrorKind, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use harness::{
    Daemon, HANG, Setup, Signal, apply_command, has_program,
    manager::{STORED, passing},
    packets::Packets,
    read_all, read_n, round_trip, write_until_full,
};
use rustix::{net::sockopt::set_socket_passcred, process::geteuid};
use udsd::{
    handover_state::State,
    parking::{Memory, Parking, Stored},
};

const SOCKETS: &str = "
[socket.echo]
path = \"{dir}/echo\"
framing = \"lines\"

[socket.raw]
path = \"{dir}/raw\"

[socket.talk]
path = \"{dir}/talk\"
service = \"relay\"
framing = \"lines\"

[socket.packets]
path = \"{dir}/packets\"
type = \"seqpacket\"
";

fn start(config: &str) -> Daemon {
    Setup::new().keeping().config(config).start()
}

fn restart(daemon: Daemon, config: &str) -> Daemon {
    daemon.restart(|setup| setup.config(config))
}

#[test]
fn conversations_go_on() {
    let mut daemon = start(SOCKETS);
    let mut half = daemon.connect("echo");
    half.write_all(b"one\nhalf of ").unwrap();
    assert_eq!(read_n(&half, 4), b"one\n");
    let behind = daemon.connect("raw");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = write_until_full(&behind, &bytes, 1_000_000);
    let packets = Packets::connect(&daemon.path("packets"));
    packets.send(b"");
    packets.send(b"packet");
    let (mut speaker, mut listener) = (daemon.connect("talk"), daemon.connect("talk"));
    listener.write_all(b"here\nI ").unwrap();
    assert_eq!(read_n(&speaker, 5), b"here\n");
    for n in 0..12 {
        daemon = restart(daemon, SOCKETS);
        speaker.write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(read_n(&listener, 2 + n / 10), format!("{n}\n").as_bytes());
        round_trip(&daemon.connect("raw"), b"a newcomer");
    }
    half.write_all(b"a line\n").unwrap();
    assert_eq!(read_n(&half, 15), b"half of a line\n");
    listener.write_all(b"was here\n").unwrap();
    assert_eq!(read_n(&speaker, 11), b"I was here\n");
    assert_eq!(packets.receive().as_deref(), Some(&b""[..]));
    assert_eq!(packets.receive().as_deref(), Some(&b"packet"[..]));
    behind.set_nonblocking(false).unwrap();
    behind.shutdown(Shutdown::Write).unwrap();
    assert!(
        read_all(&behind) == bytes[..sent],
        "bytes were lost or changed"
    );
    assert!(daemon.stop().success());
    for stream in [&mut half, &mut speaker, &mut listener] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_history_goes_on_and_nothing_is_missing_behind_it() {
    let relays = "[socket.lines]\npath = \"{dir}/lines\"\nservice = \"relay\"\nframing = \"lines\"\nhistory = 5\n[socket.packets]\npath = \"{dir}/packets\"\nservice = \"relay\"\ntype = \"seqpacket\"\nhistory = 2\n";
    let mut daemon = start(relays);
    let mut speaker = daemon.connect("lines");
    let packets = Packets::connect(&daemon.path("packets"));
    for packet in [&b"one"[..], b"two", b"", b"four"] {
        packets.send(packet);
    }
    let mut said: Vec<String> = Vec::new();
    for round in 0..3 {
        for n in 0..4 {
            said.push(format!("{round}.{n}\n"));
            speaker.write_all(said[said.len() - 1].as_bytes()).unwrap();
        }
        // With what was said and is not read yet.
        daemon = restart(daemon, relays);
        let came = daemon.connect("lines");
        speaker.write_all(b"live\n").unwrap();
        said.push("live\n".into());
        let mut heard = String::new();
        while !heard.ends_with("live\n") {
            heard += str::from_utf8(&read_n(&came, 1)).unwrap();
        }
        let last = said[said.len().saturating_sub(6)..].concat();
        assert!(last.ends_with(&heard), "{heard} behind {last}");
        let late = Packets::connect(&daemon.path("packets"));
        assert_eq!(late.receive().as_deref(), Some(&b""[..]));
        assert_eq!(late.receive().as_deref(), Some(&b"four"[..]));
    }
}

/// A process that goes on with what waits at `near`.
fn next(daemon: &Daemon, near: &OwnedFd) -> Setup {
    next_by(daemon, near, SOCKETS)
}

/// A process that goes on by `config` with what waits at `near`.
fn next_by(daemon: &Daemon, near: &OwnedFd, config: &str) -> Setup {
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    passing(setup.config(config), &[near.as_fd()], Some(STORED))
}

/// A client in the middle of a line, and with one that it has not read.
fn client(daemon: &Daemon) -> UnixStream {
    let client = daemon.connect("echo");
    round_trip(&client, b"here\n");
    (&client).write_all(b"unread\nhalf").unwrap();
    client
}

#[test]
fn who_is_killed_before_it_serves_has_lost_nothing() {
    let mut daemon = start(SOCKETS);
    let clients: Vec<UnixStream> = (0..300).map(|_| client(&daemon)).collect();
    let near = daemon.park();
    for _ in 0..2 {
        let mut killed = next(&daemon, &near).log_room(0).spawn();
        killed.wait_halted();
        killed.kill();
    }
    let mut daemon = next(&daemon, &near).start();
    for client in &clients {
        assert_eq!(read_n(client, 7), b"unread\n");
        (&*client).write_all(b" a line\n").unwrap();
        assert_eq!(read_n(client, 12), b"half a line\n");
    }
    assert!(daemon.stop().success());
}

/// Wherever it is halted, it can be killed without a loss until it takes all over; and from there on nothing
/// that anybody could hold up stands before the manager knows that it serves.
#[test]
fn nothing_can_hold_it_up_between_the_last_moment_to_be_killed_and_ready() {
    let mut daemon = start(SOCKETS);
    let clients: Vec<UnixStream> = (0..30).map(|_| client(&daemon)).collect();
    let near = daemon.park();
    let mut kills = 0;
    let mut daemon = loop {
        // Some bytes more each time, fewer than a line has.
        let mut next = next(&daemon, &near).log_room(40 * kills).spawn();
        next.wait_halted();
        let parked = Stored::find(&near).ok().flatten();
        let notes = next.notes();
        let is_kept = !notes.iter().any(|note| note.contains("FDSTOREREMOVE=1"));
        match parked.filter(|_| is_kept) {
            // Another can go on with it, as often as this test likes.
            Some(parked) => {
                next.kill();
                parked.unmark();
                kills += 1;
            }
            None => {
                next.wait_note("READY=1");
                next.read_log();
                break next;
            }
        }
    };
    assert!(kills > 1, "it has not been killed in the middle");
    drop(near);
    for client in &clients {
        assert_eq!(read_n(client, 7), b"unread\n");
        (&*client).write_all(b" a line\n").unwrap();
        assert_eq!(read_n(client, 12), b"half a line\n");
    }
    assert!(daemon.stop().success());
    for client in &clients {
        assert_eq!(read_all(client), b"");
    }
}

/// What others notice comes before or after, as whatever fails or takes time.
#[test]
fn nothing_happens_between_the_last_moment_to_be_killed_and_ready() {
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    let without_echo = SOCKETS.split_once("[socket.raw]").unwrap().1;
    let config = format!("[socket.new]\npath = \"{{dir}}/new\"\n[socket.raw]{without_echo}");
    // A manager that has no time to listen: who tells it something waits.
    let notify = daemon.path("busy");
    let notes = UnixDatagram::bind(&notify).unwrap();
    notes.set_read_timeout(Some(HANG)).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"busy", &notify).is_ok() {}
    let setup = next_by(&daemon, &near, &config);
    let mut next = setup
        .variable("NOTIFY_SOCKET", notify.to_str().unwrap())
        .spawn();
    next.wait_telling();
    let parked = Stored::find(&near);
    assert!(parked.is_err(), "it has not taken over yet");
    assert!(daemon.path("new").exists(), "all is made ready before");
    assert!(daemon.path("echo").exists(), "it is in force already");
    let mut note = [0; 4096];
    loop {
        let length = notes.recv(&mut note).unwrap();
        if note[..length].starts_with(b"READY=1") {
            break;
        }
        assert_eq!(&note[..length], b"busy");
    }
    let hears =
        std::thread::spawn(move || while notes.recv(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
    next.wait_log(&["new", "bound"]);
    assert!(!daemon.path("echo").exists());
    assert_eq!(read_all(&client), b"unread\n");
    round_trip(&next.connect("new"), b"served\n");
    assert!(next.stop().success());
    filler.set_nonblocking(false).unwrap();
    filler.send_to(b"", &notify).unwrap();
    hears.join().unwrap();
}

#[test]
fn two_calls_lie_between_the_last_moment_to_be_killed_and_ready() {
    if !has_program("strace") {
        return;
    }
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    let calls = daemon.path("calls");
    let mut next = next(&daemon, &near)
        // Its own parent: the process that goes on is the one that is started.
        .wrapper(&["strace", "-D", "-qq", "-o", calls.to_str().unwrap()])
        .start();
    assert_eq!(read_n(&client, 7), b"unread\n");
    assert!(next.stop().success());
    let calls = fs::read_to_string(calls).unwrap();
    let lines = calls.lines();
    let mut lines =
        lines.skip_while(|line| !line.contains("\"udsd\"") || line.contains("MSG_PEEK"));
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("recvfrom(")),
        "{calls}"
    );
    let between = lines.take_while(|line| !line.contains("READY=1"));
    let between: Vec<&str> = between.filter_map(|line| line.split('(').next()).collect();
    assert_eq!(between, ["socket", "connect"]);
}

#[test]
fn who_is_killed_when_it_has_taken_over_leaves_a_clean_end() {
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    Stored::find(&near).unwrap().unwrap().take().unwrap();
    let daemon = next(&daemon, &near).start();
    daemon.wait_log(&[
        "ERROR",
        "the process that went on with it has ended",
        "clients closed: 1",
    ]);
    assert_eq!(read_all(&client), b"unread\n");
    round_trip(&daemon.connect("echo"), b"served\n");
}

#[test]
fn what_is_not_udsds_in_the_descriptor_store_costs_no_start() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for foreign in [
        reader.as_fd(),
        stream.as_fd(),
        udp.as_fd(),
        file.as_fd(),
        listener.as_fd(),
    ] {
        for name in [STORED, "stored"] {
            let mut daemon = start(SOCKETS);
            let client = client(&daemon);
            let near = daemon.park();
            let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
            let names = format!("{name}:{STORED}");
            let setup = setup.config(SOCKETS);
            let daemon = passing(setup, &[foreign, near.as_fd()], Some(&names)).start();
            assert_eq!(read_n(&client, 7), b"unread\n");
            if foreign.as_raw_fd() != stream.as_raw_fd() {
                daemon.wait_log(&["ERROR", "the descriptor store held", "closed: 1"]);
            }
        }
    }
    // And alone.
    let setup = Setup::new().config(SOCKETS);
    let daemon = passing(setup, &[file.as_fd()], Some("stored")).start();
    round_trip(&daemon.connect("echo"), b"served\n");
}

#[test]
fn what_three_processes_did_not_survive_is_given_up() {
    let mut daemon = start(SOCKETS);
    let client = client(&daemon);
    let near = daemon.park();
    // Nobody reads that; its sender sees the end all the same, and no reset.
    (&client).write_all(b" a line\n").unwrap();
    for _ in 0..3 {
        let mut killed = next(&daemon, &near).log_room(0).spawn();
        killed.wait_halted();
        killed.kill();
    }
    let mut daemon = next(&daemon, &near).start();
    assert_eq!(read_all(&client), b"unread\n");
    let line = daemon.wait_log(&["ERROR", "cannot be used", "3 processes"]);
    assert!(line.contains("clients closed: 1"), "{line}");
    round_trip(&daemon.connect("echo"), b"served\n");
    assert!(daemon.stop().success());
}

#[test]
fn a_start_that_fails_in_good_order_is_no_attempt() {
    if !has_program("prlimit") {
        return;
    }
    let config = RECORD.replace("FILE", "{dir}/record");
    let mut daemon = start(&config);
    let client = daemon.connect("log");
    (&client).write_all(b"one\nhalf").unwrap();
    let near = daemon.park();
    let setup = || Setup::within(Arc::clone(daemon.folder())).keeping();
    let start = |setup: Setup| passing(setup.config(&config), &[near.as_fd()], Some(STORED));
    for _ in 0..5 {
        // It may have no thread. Root may, always.
        let mut one = setup();
        if geteuid().is_root() {
            let _ = fs::remove_file(daemon.path(".record.lock"));
            for (path, mode) in [(daemon.path(""), 0o777), (daemon.path("record"), 0o666)] {
                fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
            one = one
                .wrapper(&["setpriv", "--reuid=65534", "--regid=65534"])
                .wrapper(&["--clear-groups", "--"]);
        }
        let one = one.wrapper(&["prlimit", "--nproc=1", "--"]);
        let (code, log) = start(one).fail();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("setting up what the file says"), "{log}");
    }
    let mut next = start(setup()).start();
    drop(near);
    (&client).write_all(b" a line\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
    assert!(next.stop().success());
    let text = fs::read_to_string(daemon.path("record")).unwrap();
    assert!(
        text.contains("\"half a line\"") && text.lines().count() == 2,
        "{text}"
    );
}

/// One that could be opened goes on at once, though no file can be made beside it.
#[test]
fn the_lock_of_a_record_stays_over_a_handover() {
    let config = RECORD.replace("FILE", "{dir}/record");
    let mut daemon = start(&config);
    let lock = daemon.path(".record.lock");
    let near = daemon.park();
    assert!(lock.exists());
    let mut next = next_by(&daemon, &near, &config).start();
    drop(near);
    let pid = fs::read_to_string(&lock).unwrap();
    assert_eq!(pid, format!("{}\n", next.pid()));
    assert!(next.stop().success());
    assert!(!lock.exists());
}

/// Also where it is the only one: a restart costs nobody for what may pass.
#[test]
fn a_record_that_another_writes_makes_its_senders_wait() {
    for others in ["", "[socket.echo]\npath = \"{dir}/echo\"\n"] {
        let config = RECORD.replace("FILE", "{dir}/record") + others;
        let mut daemon = start(&config);
        let client = daemon.connect("log");
        let witness = (!others.is_empty()).then(|| daemon.connect("echo"));
        (&client).write_all(b"one\nhalf").unwrap();
        let near = daemon.park();
        let lock = fs::File::create(daemon.path(".record.lock")).unwrap();
        lock.lock().unwrap();
        let mut next = next_by(&daemon, &near, &config).start();
        drop(near);
        next.wait_log(&["ERROR", "another process writes it"]);
        if let Some(witness) = &witness {
            round_trip(witness, b"after");
        }
        (&client).write_all(b" a line\n").unwrap();
        lock.unlock().unwrap();
        next.wait_log(&["INFO", "record", "opened"]);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&client), b"");
        assert!(next.stop().success());
        let text = fs::read_to_string(daemon.path("record")).unwrap();
        assert!(
            text.contains("\"half a line\"") && text.lines().count() == 2,
            "{text}"
        );
    }
}

#[test]
fn a_state_that_cannot_be_used_costs_its_clients_and_no_more() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("version 2", |bytes| bytes[14] = b'2'),
        ("it is damaged: ", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("it is damaged: ", |bytes| bytes.truncate(bytes.len() / 2)),
        ("too short", Vec::clear),
    ];
    for (why, damage) in damages {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(b"unread").unwrap();
        let mut bytes = Cursor::new(Vec::new());
        State::default().encode(&mut bytes).unwrap();
        let mut bytes = bytes.into_inner();
        damage(&mut bytes);
        let (parking, near) = Parking::new().unwrap();
        let memory = Memory::new(|file| file.write_all(&bytes));
        parking.leave(&memory.unwrap(), &[ours.as_fd()]).unwrap();
        drop(ours);
        let setup = Setup::new().keeping().config(SOCKETS);
        let mut daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
        drop(near);
        let line = daemon.wait_log(&["ERROR", "handed over cannot be used", why]);
        assert!(line.contains("clients closed: 1"), "{line}");
        assert_eq!(read_all(&theirs), b"");
        daemon.wait_note("FDSTOREREMOVE=1");
        round_trip(&daemon.connect("echo"), b"served\n");
        assert!(daemon.stop().success());
    }
}

#[test]
fn without_a_descriptor_store_clients_get_what_they_are_owed_and_the_end() {
    let mut daemon = Daemon::start(SOCKETS);
    let client = client(&daemon);
    // It is no longer unread.
    assert_eq!(read_n(&client, 7), b"unread\n");
    daemon.signal(Signal::USR2);
    assert_eq!(read_all(&client), b"");
    assert!(daemon.wait().success());
    daemon.wait_log(&["WARN", "SIGUSR2", "FileDescriptorStoreMax"]);
}

#[test]
fn socket_files_stay_as_they_are() {
    let daemon = start(SOCKETS);
    let inode = |daemon: &Daemon| fs::metadata(daemon.path("echo")).unwrap().ino();
    let before = inode(&daemon);
    let mut daemon = restart(daemon, SOCKETS);
    assert_eq!(inode(&daemon), before);
    let pid = fs::read_to_string(daemon.path("echo.lock")).unwrap();
    assert_eq!(pid, format!("{}\n", daemon.pid().as_raw_nonzero()));
    // Its place is taken.
    let (code, log) = Setup::within(Arc::clone(daemon.folder()))
        .config(SOCKETS)
        .fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(daemon.stop().success());
    for name in ["echo", "echo.lock", "raw", "talk", "packets.lock"] {
        assert!(!daemon.path(name).exists(), "{name} stays behind");
    }
}

const RECORD: &str = "
[socket.log]
path = \"{dir}/log\"
service = \"collect\"
framing = \"lines\"
[socket.log.record]
file = \"FILE\"
";

#[test]
fn records_go_on_with_their_numbers_and_those_of_their_clients() {
    let full = RECORD.replace("FILE", "/dev/full");
    let kept = RECORD.replace("FILE", "{dir}/kept");
    let mut daemon = start(&full);
    let (mut one, mut other) = (daemon.connect("log"), daemon.connect("log"));
    one.write_all(b"first\nsec").unwrap();
    daemon.wait_log(&["WARN", "/dev/full"]);
    daemon = restart(daemon, &full);
    daemon.wait_log(&["WARN", "/dev/full"]);
    other.write_all(b"another\n").unwrap();
    daemon = restart(daemon, &kept);
    one.write_all(b"ond\n").unwrap();
    // Both are read before it ends.
    one.shutdown(Shutdown::Write).unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    read_all(&one);
    read_all(&other);
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("kept")).unwrap();
    let seen: Vec<(u64, u64, String)> = text
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = record["message"].as_str().unwrap().to_owned();
            (
                record["seq"].as_u64().unwrap(),
                record["client"].as_u64().unwrap(),
                message,
            )
        })
        .collect();
    let numbers: Vec<u64> = seen.iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(numbers, [1, 2, 3]);
    // Which of the two is read first after a restart is up to the kernel.
    let said_by = |who: u64| {
        let of = seen.iter().filter(move |(_, client, _)| *client == who);
        of.map(|(_, _, message)| message.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(said_by(1), ["first", "second"]);
    assert_eq!(said_by(2), ["another"]);
}

#[test]
fn nobody_was_silent_while_nobody_listened() {
    const TIMED: &str = "[socket.echo]\npath = \"{dir}/echo\"\nidle-timeout = \"2s\"\n";
    let mut daemon = start(TIMED);
    let client = daemon.connect("echo");
    round_trip(&client, b"here");
    let near = daemon.park();
    // The pause is the condition.
    std::thread::sleep(Duration::from_millis(2500));
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let next = passing(setup.config(TIMED), &[near.as_fd()], Some(STORED)).start();
    drop(near);
    round_trip(&client, b"still here");
    assert_eq!(read_all(&client), b"");
    next.wait_log(&["client 1 ", "idle-timeout"]);
}

/// Said of sockets that systemd does not have as the file says; the command for it follows.
const UNITS_BEHIND: &str = "until the units follow the file: ";
const ONE: &str = "[socket.a]\npath = \"{dir}/a\"\nframing = \"lines\"\n";
const TWO: &str = "[socket.a]\npath = \"{dir}/a\"\nframing = \"lines\"\n\
                   [socket.b]\npath = \"{dir}/b\"\nframing = \"lines\"\n";

/// A listener as the manager makes it.
fn listener(setup: &Setup, name: &str) -> UnixListener {
    let path = setup.folder().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o660)).unwrap();
    listener
}

/// One with a listener `a` of the manager's.
fn managed(config: &str) -> (Daemon, UnixListener) {
    let setup = Setup::new().keeping().config(config);
    let a = listener(&setup, "a");
    (passing(setup, &[a.as_fd()], Some("a")).start(), a)
}

fn is_refused(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_listener_that_the_manager_passes_again_is_the_same() {
    let (daemon, a) = managed(ONE);
    let client = daemon.connect("a");
    round_trip(&client, b"before\n");
    let mut daemon = daemon.restart_passing(("a", a.as_fd()), |setup| setup.config(ONE));
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("a"), b"new\n");
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    assert!(daemon.stop().success());
    // It is the manager's.
    assert!(daemon.path("a").exists());
    UnixStream::connect(daemon.path("a")).unwrap();
}

#[test]
fn one_that_the_manager_passes_no_more_is_served_on() {
    let (daemon, a) = managed(ONE);
    let client = daemon.connect("a");
    round_trip(&client, b"before\n");
    drop(a);
    // After an edit of its path, too.
    let moved = ONE.replace("{dir}/a", "{dir}/moved");
    let mut daemon = restart(daemon, &moved);
    daemon.wait_log(&["WARN", "socket a", UNITS_BEHIND]);
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("a"), b"new\n");
    daemon = restart(daemon, &moved);
    round_trip(&client, b"again\n");
    round_trip(&daemon.connect("a"), b"new\n");
}

#[test]
fn who_waits_at_a_listener_that_another_replaces_comes_in_first() {
    let (mut daemon, _a) = managed(ONE);
    let client = daemon.connect("a");
    round_trip(&client, b"before\n");
    let near = daemon.park();
    let waiting = daemon.connect("a");
    (&waiting).write_all(b"waited\n").unwrap();
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let setup = setup.config(&ONE.replace("{dir}/a", "{dir}/new"));
    let new = listener(&setup, "new");
    let names = format!("{STORED}:a");
    let daemon = passing(setup, &[near.as_fd(), new.as_fd()], Some(&names)).start();
    drop(near);
    assert_eq!(read_n(&waiting, 7), b"waited\n");
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("new"), b"new\n");
    assert!(is_refused(&daemon.path("a")));
}

#[test]
fn clients_of_a_socket_that_is_gone_get_what_they_are_owed_and_nobody_comes_after_them() {
    let (mut daemon, a) = managed(TWO);
    let gone = daemon.connect("a");
    round_trip(&gone, b"before\n");
    (&gone).write_all(b"owed\nhalf").unwrap();
    let stays = daemon.connect("b");
    round_trip(&stays, b"before\n");
    let near = daemon.park();
    let config = TWO.split_once("[socket.b]").unwrap().1;
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let setup = setup.config(&format!("[socket.b]{config}"));
    let daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
    drop(near);
    assert_eq!(read_all(&gone), b"owed\n");
    daemon.wait_log(&["WARN", "a: client 1 ", "its socket is gone", "unfinished"]);
    round_trip(&stays, b"after\n");
    assert!(is_refused(&daemon.path("a")));
    drop(a);
}

#[test]
fn clients_of_a_changed_service_get_what_they_are_owed_and_the_others_stay() {
    let daemon = start(TWO);
    let (changed, stays) = (daemon.connect("a"), daemon.connect("b"));
    round_trip(&changed, b"before\n");
    round_trip(&stays, b"before\n");
    (&changed).write_all(b"owed\n").unwrap();
    let relay = TWO.replacen("framing", "service = \"relay\"\nframing", 1);
    let daemon = restart(daemon, &relay);
    assert_eq!(read_all(&changed), b"owed\n");
    round_trip(&stays, b"after\n");
    let (mut one, other) = (daemon.connect("a"), daemon.connect("a"));
    (&other).write_all(b"here\n").unwrap();
    assert_eq!(read_n(&one, 5), b"here\n");
    one.write_all(b"too\n").unwrap();
    assert_eq!(read_n(&other, 4), b"too\n");
}

#[test]
fn what_happens_at_last_to_clients_of_a_changed_socket_counts_for_the_one_of_that_name() {
    let config = "[socket.a]\npath = \"{dir}/a\"\n";
    let daemon = Setup::new().keeping().config(config).start();
    let client = daemon.connect("a");
    let bytes = vec![b'x'; 3_000_000];
    write_until_full(&client, &bytes, 1_000_000);
    let lines = format!("{config}framing = \"lines\"\n");
    daemon.reload_with(&lines);
    let mut daemon = restart(daemon, &lines);
    // It is still there.
    read_n(&client, 1000);
    drop(client);
    assert!(daemon.stop().success());
    let log = daemon.log();
    assert!(!log.contains("a: gone"), "{log}");
    let counts = daemon.wait_log(&["INFO", "a: 1 clients"]);
    assert!(!counts.contains(" 0 undelivered"), "{counts}");
}

#[test]
fn a_file_that_is_wrong_costs_nobody() {
    let daemon = start(TWO);
    let client = client_of(&daemon, "a");
    let wrong = TWO.replacen("framing", "frming", 1);
    let daemon = restart(daemon, &wrong);
    daemon.wait_log(&["ERROR", "frming"]);
    daemon.wait_log(&["ERROR", "serving as before the restart"]);
    daemon.wait_note("STATUS=");
    let says = |note: &String| {
        note.contains("STATUS=restart: new udsd.toml refused: ") && note.contains("frming")
    };
    assert!(daemon.notes().iter().any(says), "{:?}", daemon.notes());
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("b"), b"new\n");
    // What the file said before is not forgotten.
    let daemon = restart(daemon, &wrong);
    round_trip(&client, b"again\n");
    let daemon = restart(daemon, TWO);
    round_trip(&client, b"mended\n");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

#[test]
fn a_file_that_is_wrong_costs_nobody_whom_the_manager_sends() {
    let (mut daemon, mut a) = managed(ONE);
    let client = client_of(&daemon, "a");
    let wrong = ONE.replacen("framing", "frming", 1);
    for is_made_anew in [false, true, false] {
        let near = daemon.park();
        let next = Setup::within(Arc::clone(daemon.folder())).keeping();
        if is_made_anew {
            fs::remove_file(daemon.path("a")).unwrap();
            a = listener(&next, "a");
        }
        // As systemd passes it.
        a.set_nonblocking(false).unwrap();
        let names = format!("{STORED}:a");
        let next = passing(
            next.config(&wrong),
            &[near.as_fd(), a.as_fd()],
            Some(&names),
        );
        daemon = next.start();
        daemon.wait_log(&["ERROR", "serving as before the restart"]);
        assert!(daemon.notes().iter().any(|note| note.contains("frming")));
        round_trip(&client, b"after\n");
        round_trip(&daemon.connect("a"), b"new\n");
        round_trip(&client, b"again\n");
    }
}

#[test]
fn an_edit_that_the_manager_was_not_told_of_costs_nobody() {
    let (daemon, a) = managed(ONE);
    let client = client_of(&daemon, "a");
    let moved = ONE.replace("{dir}/a", "{dir}/moved");
    let daemon = daemon.restart_passing(("a", a.as_fd()), |setup| setup.config(&moved));
    daemon.wait_log(&["ERROR", "serving as before the restart", UNITS_BEHIND]);
    round_trip(&client, b"after\n");
    round_trip(&daemon.connect("a"), b"new\n");
}

#[test]
fn a_listener_may_change_its_name() {
    let (daemon, a) = managed(ONE);
    let client = client_of(&daemon, "a");
    let renamed = ONE.replace("socket.a", "socket.b");
    let daemon = daemon.restart_passing(("b", a.as_fd()), |setup| setup.config(&renamed));
    // It knows its socket by the name.
    assert_eq!(read_all(&client), b"");
    round_trip(&daemon.connect("a"), b"new\n");
}

#[test]
fn the_manager_can_make_an_abstract_socket_anew() {
    let setup = Setup::new().keeping();
    let name = setup.folder().join("abstract").display().to_string();
    let config = format!("[socket.a]\npath = \"@{name}\"\nframing = \"lines\"\n");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let connect = || {
        let client = UnixStream::connect_addr(&address).unwrap();
        client.set_read_timeout(Some(HANG)).unwrap();
        client
    };
    let mut a = UnixListener::bind_addr(&address).unwrap();
    let mut daemon = passing(setup.config(&config), &[a.as_fd()], Some("a")).start();
    let client = connect();
    round_trip(&client, b"before\n");
    for is_made_anew in [false, true, false] {
        let near = daemon.park();
        let mut waiting = None;
        if is_made_anew {
            drop(a);
            a = UnixListener::bind_addr(&address).unwrap();
        } else {
            waiting = Some(connect());
        }
        let next = Setup::within(Arc::clone(daemon.folder())).keeping();
        let names = format!("{STORED}:a");
        let next = passing(
            next.config(&config),
            &[near.as_fd(), a.as_fd()],
            Some(&names),
        );
        daemon = next.start();
        round_trip(&client, b"after\n");
        round_trip(&waiting.unwrap_or_else(connect), b"waited\n");
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    }
    let mut daemon = restart(daemon, &config);
    daemon.wait_log(&["ERROR", "socket a", "no longer has it"]);
    round_trip(&client, b"at the end\n");
    assert!(daemon.stop().success());
}

#[test]
fn who_has_a_socket_that_the_manager_lost_does_not_end_when_idle() {
    let idle = format!("[daemon]\nexit-on-idle = \"1s\"\n{ONE}");
    let (daemon, a) = managed(&idle);
    drop(a);
    let daemon = restart(daemon, &idle);
    daemon.wait_log(&["WARN", "exit-on-idle"]);
    daemon.signal(Signal::HUP);
    daemon.wait_log(&["reloaded"]);
    // The pause is the condition.
    std::thread::sleep(Duration::from_millis(1500));
    round_trip(&daemon.connect("a"), b"still here\n");
}

#[test]
fn a_socket_that_is_gone_is_gone_once() {
    let daemon = start(TWO);
    let mut daemon = restart(daemon, ONE);
    daemon.wait_log(&["b: gone"]);
    for _ in 0..2 {
        daemon = restart(daemon, ONE);
        round_trip(&daemon.connect("a"), b"new\n");
        assert!(!daemon.log().contains("b: gone"), "{}", daemon.log());
    }
}

#[test]
fn a_socket_may_move_come_and_go() {
    let daemon = start(TWO);
    let (moved, gone) = (client_of(&daemon, "a"), client_of(&daemon, "b"));
    let third = TWO
        .replace("{dir}/a", "{dir}/moved")
        .replace("socket.b", "socket.c")
        .replace("{dir}/b", "{dir}/c");
    let mut daemon = restart(daemon, &third);
    round_trip(&moved, b"after\n");
    assert_eq!(read_all(&gone), b"");
    for name in ["moved", "c"] {
        round_trip(&daemon.connect(name), b"new\n");
    }
    for name in ["a", "a.lock", "b", "b.lock"] {
        assert!(!daemon.path(name).exists(), "{name} stays behind");
    }
    assert!(daemon.stop().success());
    assert!(!daemon.path("moved").exists());
}

fn client_of(daemon: &Daemon, socket: &str) -> UnixStream {
    let client = daemon.connect(socket);
    round_trip(&client, b"here\n");
    client
}

#[test]
fn limits_that_shrink_close_nobody() {
    let config = |keys: &str| format!("[limits]\n{keys}\n{ONE}");
    let daemon = start(&config(""));
    let clients: Vec<UnixStream> = (0..5).map(|_| client_of(&daemon, "a")).collect();
    let daemon = restart(daemon, &config("clients = 2"));
    for client in &clients {
        round_trip(client, b"after\n");
    }
    assert_eq!(read_all(&daemon.connect("a")), b"");
    daemon.wait_log(&["WARN", "refused", "limits.clients = 2"]);
}

#[test]
fn datagrams_wait_and_their_senders_keep_their_numbers() {
    const MAIL: &str = "[socket.a]\npath = \"{dir}/a\"\ntype = \"datagram\"\n\
                        [socket.a.record]\nfile = \"{dir}/record\"\n";
    let mut daemon = start(MAIL);
    let bind = |name: &str| {
        let socket = UnixDatagram::bind(daemon.path(name)).unwrap();
        socket.connect(daemon.path("a")).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket
    };
    let (slow, other) = (bind("slow"), bind("other"));
    let answer = |socket: &UnixDatagram| {
        let mut buffer = [0; 100];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    other.send(b"first").unwrap();
    assert_eq!(answer(&other), "first");
    // More than its queue in the kernel holds: the rest waits here.
    let most = 1000;
    for n in 0..most {
        slow.send(format!("{n}").as_bytes()).unwrap();
    }
    other.send(b"second").unwrap();
    assert_eq!(answer(&other), "second");
    let near = daemon.park();
    other.send(b"while nobody listened").unwrap();
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let mut daemon = passing(setup.config(MAIL), &[near.as_fd()], Some(STORED)).start();
    drop(near);
    assert_eq!(answer(&other), "while nobody listened");
    for n in 0..most {
        assert_eq!(answer(&slow), format!("{n}"));
    }
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("record")).unwrap();
    let mut seqs = 0;
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        seqs += 1;
        assert_eq!(record["seq"], seqs);
        let is_other = record["message"]
            .as_str()
            .unwrap()
            .contains(char::is_alphabetic);
        assert_eq!(record["client"], if is_other { 1 } else { 2 });
    }
    assert_eq!(seqs, most + 3);
}

#[test]
fn who_does_not_fit_into_the_next_process_is_closed_and_the_others_stay() {
    let mut daemon = start(TWO);
    let clients: Vec<UnixStream> = (0..200).map(|_| client_of(&daemon, "a")).collect();
    let near = daemon.park();
    let setup = Setup::within(Arc::clone(daemon.folder()))
        .keeping()
        .config(TWO);
    let setup = passing(setup.open_files(150), &[near.as_fd()], Some(STORED));
    let daemon = setup.start();
    drop(near);
    daemon.wait_log(&["ERROR", "LimitNOFILE="]);
    let mut kept = 0;
    for mut client in &clients {
        client.write_all(b"after\n").unwrap_or_default();
        let mut answer = [0; 6];
        kept += usize::from(client.read_exact(&mut answer).is_ok());
    }
    assert!((50..150).contains(&kept), "{kept} of 200 were kept");
    let lost = format!("{}", 200 - kept);
    daemon.wait_log(&["ERROR", "descriptors are missing", &lost]);
}

#[test]
fn a_stop_that_comes_with_it_is_a_stop() {
    let mut daemon = start(TWO);
    let client = client_of(&daemon, "a");
    daemon.halt();
    (&client).write_all(b"never read\n").unwrap();
    daemon.signal(Signal::USR2);
    daemon.signal(Signal::TERM);
    daemon.resume();
    // Whichever comes first: the client sees the end, and nothing is handed over.
    let status = daemon.wait();
    assert!(status.success(), "{status}\n{}", daemon.log());
    read_all(&client);
}

#[test]
fn a_manager_that_forgets_nothing_keeps_nobody_connected() {
    let mut daemon = start(TWO);
    let (ends, stays) = (client_of(&daemon, "a"), client_of(&daemon, "b"));
    let near = daemon.park();
    let setup = Setup::within(Arc::clone(daemon.folder()))
        .config(TWO)
        .stuck();
    let daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
    round_trip(&stays, b"after\n");
    ends.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&ends), b"");
    // Nor is anything there to be used twice.
    let folder = Arc::clone(daemon.folder());
    drop(daemon);
    let setup = Setup::within(folder).keeping().config(TWO);
    let daemon = passing(setup, &[near.as_fd()], Some(STORED)).start();
    assert!(!daemon.log().contains("taken over"), "{}", daemon.log());
    assert_eq!(read_all(&stays), b"");
}

#[test]
fn a_record_that_went_out_of_reach_goes_on_where_the_file_says() {
    let folder = |name: &str| RECORD.replace("FILE", &format!("{{dir}}/{name}/log"));
    let setup = Setup::new().keeping();
    fs::create_dir(setup.folder().join("old")).unwrap();
    let mut daemon = setup.config(&folder("old")).start();
    let client = daemon.connect("log");
    (&client).write_all(b"first\nhalf").unwrap();
    let old = daemon.path("old");
    let near = daemon.park();
    fs::remove_dir_all(old).unwrap();
    // Nor is there a new one yet: what is said waits.
    let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
    let daemon = passing(setup.config(&folder("new")), &[near.as_fd()], Some(STORED)).start();
    drop(near);
    daemon.wait_log(&["WARN", "old/log"]);
    daemon.wait_log(&["ERROR", "serving as before the restart"]);
    (&client).write_all(b" a line\nsecond\n").unwrap();
    round_trip_of_record(&daemon);
    let daemon = restart(daemon, &folder("new"));
    (&client).write_all(b"third\n").unwrap();
    round_trip_of_record(&daemon);
    fs::create_dir(daemon.path("new")).unwrap();
    let mut daemon = restart(daemon, &folder("new"));
    (&client).write_all(b"fourth\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
    assert!(daemon.stop().success());
    let text = fs::read_to_string(daemon.path("new/log")).unwrap();
    let said = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}", record["seq"], record["message"])
    };
    let mut said: Vec<String> = text.lines().map(said).collect();
    // It may have been written before.
    said.retain(|line| line != "1 \"first\"");
    let expected = [
        "2 \"half a line\"",
        "3 \"second\"",
        "4 \"visit\"",
        "5 \"third\"",
        "6 \"visit\"",
        "7 \"fourth\"",
    ];
    assert_eq!(said, expected);
}

/// All that was sent before is taken.
fn round_trip_of_record(daemon: &Daemon) {
    let visit = daemon.connect("log");
    (&visit).write_all(b"visit\n").unwrap();
    visit.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&visit), b"");
}

#[test]
fn lines_that_a_record_out_of_reach_had_to_keep_are_not_given_up_without_a_word() {
    let folder = |name: &str| RECORD.replace("FILE", &format!("{{dir}}/{name}/log"));
    let plain = "[socket.log]\npath = \"{dir}/log\"\nframing = \"lines\"\n";
    // By a restart, and by a reload after one.
    for is_reload in [false, true] {
        let setup = Setup::new().keeping();
        fs::create_dir(setup.folder().join("old")).unwrap();
        let mut daemon = setup.config(&folder("old")).start();
        let old = daemon.path("old");
        let near = daemon.park();
        fs::remove_dir_all(old).unwrap();
        let setup = Setup::within(Arc::clone(daemon.folder())).keeping();
        let next = setup.config(&folder("new"));
        let mut daemon = passing(next, &[near.as_fd()], Some(STORED)).start();
        drop(near);
        round_trip_of_record(&daemon);
        if is_reload {
            daemon.reload_with(plain);
        } else {
            daemon = restart(daemon, plain);
        }
        let line = daemon.wait_log(&["WARN", "bytes", "are lost"]);
        assert!(line.contains("log: "), "{line}");
        assert!(daemon.stop().success());
    }
}

/// Collects raw lines to standard output, in larger pieces than a pipe holds.
const OUTPUT: &str = "
[daemon]
drain-timeout = \"1s\"
[socket.log]
path = \"{dir}/log\"
service = \"collect\"
framing = \"lines\"
message-size = \"256KiB\"
[socket.log.record]
queue-size = \"4MiB\"
format = \"raw\"
";

/// Another record, in `file`.
fn second(file: &str) -> String {
    let name = "[socket.two]\npath = \"{dir}/two\"\nservice = \"collect\"\nframing = \"lines\"\n";
    format!(
        "{name}[socket.two.record]\nfile = \"{file}\"\nqueue-size = \"4MiB\"\nformat = \"raw\"\n"
    )
}

/// A daemon with a write to its standard output that does not return, and the reader of that.
fn start_with_stuck_output(config: &str) -> (Daemon, std::io::PipeReader) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let daemon = Setup::new().keeping().config(config).stdout(writer).start();
    fill(
        &daemon,
        "log",
        &[b"x".repeat(STUCK - 1), b"\n".to_vec()].concat(),
    );
    // Its first byte comes out of a write that needs more room than there is.
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    (daemon, reader)
}

/// The length of the line which that write was given.
const STUCK: usize = 200_000;

/// Sends `lines`, and returns when all are taken.
fn fill(daemon: &Daemon, socket: &str, lines: &[u8]) {
    let mut client = daemon.connect(socket);
    client.write_all(lines).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}

/// Lines that a turn does not read at once.
fn many_lines() -> String {
    (0..5000).map(|n| format!("{n:099}\n")).collect()
}

#[test]
fn a_write_that_does_not_return_costs_no_lines_but_its_own() {
    let (mut daemon, mut reader) = start_with_stuck_output(OUTPUT);
    fill(&daemon, "log", many_lines().as_bytes());
    let near = daemon.park();
    let warning = daemon.wait_log(&["WARN", "standard output", "has not returned"]);
    assert!(warning.contains(&format!(" {STUCK} bytes")), "{warning}");
    let mut came = Vec::new();
    reader.read_to_end(&mut came).unwrap();
    assert!(
        came.iter().all(|&byte| byte == b'x'),
        "what was handed over came"
    );
    let mut next = next_by(&daemon, &near, OUTPUT).start();
    assert!(next.stop().success());
    assert!(next.output() == many_lines().as_bytes());
}

#[test]
fn a_stuck_record_costs_another_no_lines() {
    let (mut daemon, _reader) =
        start_with_stuck_output(&(OUTPUT.to_owned() + &second("/dev/full")));
    fill(&daemon, "two", many_lines().as_bytes());
    let near = daemon.park();
    let config = OUTPUT.to_owned() + &second("{dir}/record");
    let mut next = next_by(&daemon, &near, &config).start();
    assert!(next.stop().success());
    assert!(fs::read(next.path("record")).unwrap() == many_lines().as_bytes());
}

#[test]
fn a_stuck_record_that_a_reload_has_ended_costs_another_no_lines() {
    let (mut daemon, _reader) = start_with_stuck_output(OUTPUT);
    let two = |file: &str| "[daemon]\ndrain-timeout = \"1s\"\n".to_owned() + &second(file);
    daemon.reload_with(&two("/dev/full"));
    fill(&daemon, "two", many_lines().as_bytes());
    let near = daemon.park();
    let warning = daemon.wait_log(&["WARN", "standard output", "are lost"]);
    assert!(warning.contains(&format!(" {STUCK} bytes")), "{warning}");
    let mut next = next_by(&daemon, &near, &two("{dir}/record")).start();
    assert!(next.stop().success());
    assert!(fs::read(next.path("record")).unwrap() == many_lines().as_bytes());
}

#[test]
fn who_connects_while_nobody_runs_is_served() {
    let mut daemon = start(SOCKETS);
    let near = daemon.park();
    let clients: Vec<UnixStream> = (0..50).map(|_| daemon.connect("echo")).collect();
    let packets = Packets::connect(&daemon.path("packets"));
    packets.send(b"a packet");
    for (n, client) in clients.iter().enumerate() {
        (&*client).write_all(format!("{n:2}\n").as_bytes()).unwrap();
    }
    let _next = next(&daemon, &near).start();
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(read_n(client, 3), format!("{n:2}\n").as_bytes());
    }
    assert_eq!(packets.receive().as_deref(), Some(&b"a packet"[..]));
}

#[test]
fn a_type_that_changes_under_a_manager_that_was_not_told_is_not_served_and_costs_nobody_else() {
    let stream = "[socket.b]\npath = \"{dir}/b\"\nframing = \"lines\"\n";
    let types = [
        ("", "type = \"seqpacket\""),
        ("type = \"datagram\"", ""),
        ("", "type = \"datagram\""),
    ];
    for (was, is) in types {
        let a = |kind: &str| format!("[socket.a]\npath = \"{{dir}}/a\"\n{kind}\n{stream}");
        let setup = Setup::new().keeping().config(&a(was));
        let path = setup.folder().join("a");
        let held: OwnedFd = match was {
            "" => listener(&setup, "a").into(),
            _ => UnixDatagram::bind(path).unwrap().into(),
        };
        if !was.is_empty() {
            set_socket_passcred(&held, true).unwrap();
        }
        let daemon = passing(setup, &[held.as_fd()], Some("a")).start();
        let client = client_of(&daemon, "b");
        drop(held);
        let mut daemon = restart(daemon, &a(is));
        daemon.wait_log(&["ERROR", "socket a", "nobody can reach it", apply_command()]);
        assert!(UnixStream::connect(daemon.path("a")).is_err());
        for _ in 0..2 {
            round_trip(&client, b"after\n");
            round_trip(&daemon.connect("b"), b"new\n");
            daemon = restart(daemon, &a(is));
        }
        // It is nobody's now, and nothing keeps udsd from binding it here.
        daemon.wait_log(&["socket a", "bound"]);
    }
}

#[test]
fn one_that_cannot_move_yet_is_served_where_it_is() {
    let b =
        |place: &str| format!("{ONE}[socket.b]\npath = \"{{dir}}/{place}\"\nframing = \"lines\"\n");
    let (mut daemon, a) = managed(&b("b"));
    let client = client_of(&daemon, "b");
    let go_on = |mut daemon: Daemon| {
        daemon = daemon.restart_passing(("a", a.as_fd()), |setup| setup.config(&b("no/b")));
        round_trip(&client, b"after\n");
        daemon
    };
    for _ in 0..2 {
        daemon = go_on(daemon);
        daemon.wait_log(&["ERROR", "socket b", "where it was"]);
        daemon.wait_log(&["socket b (", "/b): kept"]);
        assert!(!daemon.log().contains("in place of"), "{}", daemon.log());
        round_trip(&daemon.connect("b"), b"new\n");
    }
    fs::create_dir(daemon.path("no")).unwrap();
    let daemon = go_on(daemon);
    round_trip(&daemon.connect("no/b"), b"new\n");
    assert!(!daemon.path("b").exists());
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

#[test]
fn one_that_was_renamed_is_served_on_where_the_manager_has_it_no_more() {
    let (daemon, a) = managed(ONE);
    let client = client_of(&daemon, "a");
    drop(a);
    let renamed = ONE.replace("socket.a", "socket.b");
    let mut daemon = daemon;
    for _ in 0..2 {
        daemon = restart(daemon, &renamed);
        daemon.wait_log(&["WARN", "socket b", apply_command()]);
        round_trip(&daemon.connect("a"), b"new\n");
    }
    // A socket of another name is another.
    assert_eq!(read_all(&client), b"");
}

#[test]
fn out_of_descriptors_it_hands_over_all_the_same() {
    let config = format!("[limits]\nclients = 1000\nclients-per-user = 1000\n{ONE}");
    let setup = Setup::new().keeping().config(&config);
    let daemon = setup.open_files(100).start();
    let clients: Vec<UnixStream> = (0..120).map(|_| daemon.connect("a")).collect();
    daemon.wait_log(&["WARN", "out of descriptors"]);
    let mut daemon = daemon.restart(|setup| setup.config(&config));
    let answers = |mut client: &UnixStream| {
        let mut answer = [0; 5];
        client.write_all(b"here\n").is_ok() && client.read_exact(&mut answer).is_ok()
    };
    let kept = clients.iter().filter(|client| answers(client)).count();
    assert!(kept > 50, "{kept} of 120 were kept");
    assert!(daemon.stop().success());
}

#[test]
fn beside_a_socket_that_udsd_binds_it_does_not_end_when_idle_after_a_restart_either() {
    let config = format!("[daemon]\nexit-on-idle = \"1s\"\n{TWO}");
    let (daemon, a) = managed(&config);
    daemon.wait_log(&["WARN", "exit-on-idle is not in force"]);
    let daemon = daemon.restart_passing(("a", a.as_fd()), |setup| setup.config(&config));
    daemon.wait_log(&["WARN", "exit-on-idle is not in force"]);
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    daemon.signal(Signal::HUP);
    daemon.wait_log(&["reloaded"]);
    // The span is the condition.
    std::thread::sleep(Duration::from_millis(2500));
    round_trip(&daemon.connect("b"), b"here\n");
}

#[test]
fn a_reload_leaves_alone_what_is_served_on_where_it_was() {
    let (daemon, a) = managed(ONE);
    drop(a);
    let moved = ONE.replace("{dir}/a", "{dir}/moved");
    let daemon = restart(daemon, &moved);
    daemon.wait_log(&["WARN", "the service manager no longer has it"]);
    daemon.wait_log(&["socket a (", "/a): kept"]);
    daemon.signal(Signal::HUP);
    daemon.wait_log(&["reloaded"]);
    round_trip(&daemon.connect("a"), b"here\n");
    assert!(!daemon.path("moved").exists());
}
