//! Promise: nobody holds up the daemon, or anybody else, with descriptors that they send along. Where the
//! kernel can, it refuses them; what was sent before udsd had the socket, or comes on an older kernel,
//! is closed where nobody waits for it, be it received, or with a client that is closed unread.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::{ErrorKind, PipeReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use harness::{
    Daemon, Setup, Signal, manager, packets::try_connect, round_trip, send_with, try_send_with,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, SocketType, recv, send, sockopt},
};
use udsd::sys::can_refuse_descriptors;

/// How long the last close of a descriptor of `Held` takes, unless it is interrupted: longer than any test
/// waits for anything.
const LINGER: Duration = Duration::from_secs(600);

/// A descriptor whose last close waits for this end of it.
struct Held(#[expect(dead_code, reason = "it is kept open")] TcpStream);

impl Held {
    fn new() -> (OwnedFd, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // There may be many of them.
        sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let mut descriptor = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sockopt::set_socket_send_buffer_size(&descriptor, 4096).unwrap();
        let (peer, _) = listener.accept().unwrap();
        descriptor.set_nonblocking(true).unwrap();
        // More than the peer, which does not read, has room for.
        loop {
            match descriptor.write(&[0; 65536]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        descriptor.set_nonblocking(false).unwrap();
        sockopt::set_socket_linger(&descriptor, Some(LINGER)).unwrap();
        (descriptor.into(), Held(peer))
    }
}

/// What an attacker sent: a descriptor of `Held`, and behind it the end of a pipe, which is not closed
/// before that.
struct Attack {
    held: Vec<Held>,
    behind: PipeReader,
}

impl Attack {
    /// Sends it, and keeps no copy. Nobody may receive it meanwhile: the last close would be here.
    fn by(socket: impl AsFd) -> Self {
        Self::by_two(&socket, &socket)
    }

    /// With more descriptors than may wait where there are few files.
    fn by_more(socket: impl AsFd) -> Self {
        let (descriptors, held): (Vec<_>, _) = (0..100).map(|_| Held::new()).unzip();
        let (behind, writer) = std::io::pipe().unwrap();
        let many: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        send_with(&socket, b"one", &many);
        send_with(&socket, b"two", &[writer.as_fd()]);
        Attack { held, behind }
    }

    /// By two clients, of which the one that sends the pipe is closed after the other.
    fn by_two(first: impl AsFd, second: impl AsFd) -> Self {
        let (descriptor, held) = Held::new();
        let (behind, writer) = std::io::pipe().unwrap();
        send_with(first, b"one", &[descriptor.as_fd()]);
        send_with(second, b"two", &[writer.as_fd()]);
        let held = vec![held];
        Attack { held, behind }
    }

    /// The victim is served while somebody waits in the close; and that ends.
    #[track_caller]
    fn holds_nobody_up(self, daemon: &Daemon) {
        for _ in 0..3 {
            round_trip(&daemon.connect("victim"), b"ping");
        }
        self.ends();
    }

    #[track_caller]
    fn ends(mut self) {
        let mut pipe = [PollFd::new(&self.behind, PollFlags::IN)];
        let hang = Timespec::try_from(harness::HANG).unwrap();
        assert_eq!(poll(&mut pipe, Some(&hang)), Ok(1), "the close goes on");
        assert_eq!(self.behind.read(&mut [0]).unwrap(), 0);
        drop(self.held);
    }
}

/// A socket `s` that the manager has made, and nobody serves yet.
struct Idle {
    setup: Setup,
    socket: OwnedFd,
    kind: SocketType,
}

impl Idle {
    fn new(kind: SocketType) -> Self {
        let setup = Setup::new();
        let socket = manager::socket_at(&setup.folder().join("s"), kind);
        Idle {
            setup,
            socket,
            kind,
        }
    }

    fn connect(&self) -> OwnedFd {
        connect(&self.setup.folder().join("s"), self.kind)
    }

    /// The daemon starts, with these rules for the socket and another one.
    fn start(self, keys: &str) -> Daemon {
        self.start_as(keys, |setup| setup).0
    }

    fn start_as(self, keys: &str, how: impl FnOnce(Setup) -> Setup) -> (Daemon, OwnedFd) {
        let config = config(self.kind, keys);
        let setup = how(self.setup.config(&config));
        let daemon = manager::passing(setup, &[self.socket.as_fd()], Some("s")).start();
        (daemon, self.socket)
    }
}

fn config(kind: SocketType, keys: &str) -> String {
    let kind = match kind {
        SocketType::STREAM => "stream",
        SocketType::SEQPACKET => "seqpacket",
        _ => "datagram",
    };
    format!(
        "[socket.s]\npath = \"{{dir}}/s\"\ntype = \"{kind}\"\n{keys}\n\
         [socket.victim]\npath = \"{{dir}}/victim\"\n"
    )
}

fn connect(path: &Path, kind: SocketType) -> OwnedFd {
    let socket = try_connect(path, kind).unwrap();
    for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, timeout, Some(harness::HANG)).unwrap();
    }
    socket
}

/// The next packet, or bytes.
fn receive(socket: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; 100];
    let (_, length) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
    Ok(buffer[..length].to_vec())
}

/// Receives these bytes, in packets or not.
#[track_caller]
fn receive_all(socket: &OwnedFd, bytes: &[u8]) {
    let mut came = Vec::new();
    while came.len() < bytes.len() {
        came.extend(receive(socket).unwrap());
    }
    assert_eq!(came, bytes);
}

const CONNECTED: [SocketType; 2] = [SocketType::STREAM, SocketType::SEQPACKET];
const DENIED: &str = "allow-users = [\"4294967\"]";

#[test]
fn who_is_on_no_list_holds_nobody_up() {
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        let attackers = [idle.connect(), idle.connect()];
        let attack = Attack::by_two(&attackers[0], &attackers[1]);
        let daemon = idle.start(DENIED);
        daemon.wait_log(&["s: refused a client"]);
        attack.holds_nobody_up(&daemon);
        for attacker in attackers {
            assert_eq!(receive(&attacker), Err(Errno::CONNRESET));
        }
    }
}

#[test]
fn who_comes_again_and_again_keeps_nobody_out() {
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        let attackers: Vec<_> = (0..20).map(|_| idle.connect()).collect();
        let attacks: Vec<_> = attackers.iter().map(Attack::by).collect();
        // With these more than udsd may have files open.
        let null = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..600 {
            send_with(idle.connect(), b"x", &[null.as_fd()]);
        }
        let (daemon, _socket) = idle.start_as(DENIED, |setup| setup.open_files(500));
        round_trip(&daemon.connect("victim"), b"ping");
        for attacker in &attackers {
            assert_eq!(receive(attacker), Err(Errno::CONNRESET));
        }
        daemon.wait_log(&["WARN", "a client's socket", "uid"]);
        attacks.into_iter().for_each(Attack::ends);
        assert!(!daemon.log().contains("out of descriptors"));
    }
}

#[test]
fn accepting_rests_while_too_many_wait_to_be_closed_and_goes_on() {
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        // Accepting all takes less time than closing them, however often it is interrupted.
        let attackers: Vec<_> = (0..80).map(|_| idle.connect()).collect();
        let attacks: Vec<_> = attackers.iter().map(Attack::by).collect();
        // So few files that no more than 12 may wait to be closed.
        let (daemon, _socket) = idle.start_as(DENIED, |setup| setup.open_files(200));
        daemon.wait_log(&["WARN", "accepting rests"]);
        round_trip(&daemon.connect("victim"), b"ping");
        for attacker in &attackers {
            assert_eq!(receive(attacker), Err(Errno::CONNRESET));
        }
        attacks.into_iter().for_each(Attack::ends);
    }
}

#[test]
fn who_may_enter_holds_nobody_up_and_is_served() {
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        let attacker = idle.connect();
        let attack = Attack::by(&attacker);
        let daemon = idle.start("");
        receive_all(&attacker, b"onetwo");
        attack.holds_nobody_up(&daemon);
        daemon.wait_log(&["WARN", "descriptors that came with a message", "uid"]);
        // It has kept its place.
        send(&attacker, b"three", SendFlags::empty()).unwrap();
        assert_eq!(receive(&attacker).as_deref(), Ok(&b"three"[..]));
    }
}

#[test]
fn what_the_log_leaves_out_is_told_though_nothing_more_comes() {
    let idle = Idle::new(SocketType::STREAM);
    let sender = idle.connect();
    let (daemon, _socket) = idle.start_as("", |setup| setup);
    let null = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..25 {
        send_with(&sender, b"x", &[null.as_fd()]);
        receive_all(&sender, b"x");
    }
    daemon.wait_log(&[
        "WARN",
        "descriptors that clients sent",
        ": 5 lines left out",
    ]);
}

#[test]
fn who_is_closed_unread_holds_nobody_up() {
    let idle = Idle::new(SocketType::STREAM);
    let attackers = [idle.connect(), idle.connect()];
    let null = std::fs::File::open("/dev/null").unwrap();
    for attacker in &attackers {
        // One read ends here, and with it the client.
        send_with(attacker, &[b'x'; 100], &[null.as_fd()]);
        // Further on than one look reaches.
        send(attacker, &[b'x'; 10_000], SendFlags::empty()).unwrap();
    }
    let attack = Attack::by_two(&attackers[0], &attackers[1]);
    let daemon = idle.start("framing = \"lines\"\nmessage-size = \"10B\"");
    daemon.wait_log(&["WARN", "s: client 2", "message", "10003 bytes unread"]);
    attack.holds_nobody_up(&daemon);
    for attacker in attackers {
        assert_eq!(receive(&attacker), Err(Errno::CONNRESET));
    }
}

#[test]
fn datagrams_hold_nobody_up_and_are_taken() {
    let idle = Idle::new(SocketType::DGRAM);
    let sender = idle.connect();
    let attack = Attack::by(&sender);
    send(&sender, b"three", SendFlags::empty()).unwrap();
    let daemon = idle.start("service = \"collect\"\nrecord.format = \"raw\"\nframing = \"none\"");
    let lines = daemon.wait_output(3);
    assert_eq!(lines, ["one", "two", "three"]);
    attack.holds_nobody_up(&daemon);
}

#[test]
fn datagrams_of_somebody_on_no_list_hold_nobody_up() {
    let idle = Idle::new(SocketType::DGRAM);
    let sender = idle.connect();
    let attack = Attack::by(&sender);
    let daemon = idle.start(&format!("service = \"collect\"\n{DENIED}"));
    daemon.wait_log(&["s: refused a datagram"]);
    attack.holds_nobody_up(&daemon);
}

#[test]
fn descriptors_that_wait_in_sockets_that_were_sent_hold_nobody_up() {
    let idle = Idle::new(SocketType::STREAM);
    let attacker = idle.connect();
    let (inner, outer) = std::os::unix::net::UnixStream::pair().unwrap();
    let (descriptor, held) = Held::new();
    let (behind, writer) = std::io::pipe().unwrap();
    send_with(&inner, b"inside", &[descriptor.as_fd()]);
    send_with(&attacker, b"one", &[outer.as_fd()]);
    send_with(&attacker, b"two", &[writer.as_fd()]);
    drop((inner, outer, descriptor, writer));
    let daemon = idle.start("");
    receive_all(&attacker, b"onetwo");
    let held = vec![held];
    Attack { held, behind }.holds_nobody_up(&daemon);
}

#[test]
fn none_stays_open_whatever_it_came_with() {
    let idle = Idle::new(SocketType::SEQPACKET);
    let client = idle.connect();
    let daemon = idle.start("");
    send(&client, b"hello", SendFlags::empty()).unwrap();
    receive_all(&client, b"hello");
    let before = daemon.descriptors("victim");
    for packet in [&b"with descriptors"[..], b""] {
        for many in [253, 1] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            send_with(&client, packet, &vec![writer.as_fd(); many]);
            drop(writer);
            assert_eq!(receive(&client).as_deref(), Ok(packet));
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        }
    }
    assert_eq!(daemon.descriptors("victim"), before);
}

#[test]
fn no_more_are_received_than_can_be_closed_in_time() {
    // So few files that no more than 12 may be open; the second message is left where it waits.
    let few = |setup: Setup| setup.open_files(200);
    let (mut attacks, mut sockets) = (Vec::new(), Vec::new());
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        let (attacker, honest) = (idle.connect(), idle.connect());
        let attack = Attack::by_more(&attacker);
        send(&honest, b"hello", SendFlags::empty()).unwrap();
        let (daemon, socket) = idle.start_as("", few);
        daemon.wait_log(&["WARN", "s: client", "it sends more descriptors"]);
        assert_eq!(receive(&honest).as_deref(), Ok(&b"hello"[..]));
        receive_all(&attacker, b"one");
        attack.holds_nobody_up(&daemon);
        send(&honest, b"bye", SendFlags::empty()).unwrap();
        assert_eq!(receive(&honest).as_deref(), Ok(&b"bye"[..]));
        attacks.push(daemon);
        sockets.push(socket);
    }
}

#[test]
fn datagrams_wait_whose_descriptors_cannot_be_closed_in_time() {
    let idle = Idle::new(SocketType::DGRAM);
    let sender = idle.connect();
    let attack = Attack::by_more(&sender);
    let keys = "service = \"collect\"\nrecord.format = \"raw\"";
    let (daemon, _socket) = idle.start_as(keys, |setup| setup.open_files(200));
    daemon.wait_log(&["s: cannot receive", "descriptors come with it"]);
    assert_eq!(daemon.wait_output(2), ["one", "two"]);
    attack.holds_nobody_up(&daemon);
}

#[test]
fn a_stop_waits_for_none() {
    for kind in CONNECTED {
        for unread in [false, true] {
            let idle = Idle::new(kind);
            let attacker = idle.connect();
            let (mut daemon, _socket) = idle.start_as("", |setup| setup);
            send(&attacker, b"here", SendFlags::empty()).unwrap();
            receive_all(&attacker, b"here");
            daemon.halt();
            let _attack = Attack::by(&attacker);
            if unread {
                daemon.signal(Signal::TERM);
            }
            daemon.resume();
            if !unread {
                receive_all(&attacker, b"onetwo");
                daemon.signal(Signal::TERM);
            }
            assert!(daemon.wait().success());
        }
    }
}

#[test]
fn whose_descriptors_can_come_is_known_after_a_restart() {
    for kind in CONNECTED {
        let idle = Idle::new(kind);
        let attacker = idle.connect();
        let (daemon, socket) = idle.start_as("", Setup::keeping);
        send(&attacker, b"here", SendFlags::empty()).unwrap();
        assert_eq!(receive(&attacker).as_deref(), Ok(&b"here"[..]));
        let daemon = daemon.restart_passing(("s", socket.as_fd()), |setup| {
            setup.config(&config(kind, ""))
        });
        daemon.halt();
        let attack = Attack::by(&attacker);
        daemon.resume();
        receive_all(&attacker, b"onetwo");
        attack.holds_nobody_up(&daemon);
    }
}

#[test]
fn the_kernel_refuses_descriptors_where_it_can() {
    if !can_refuse_descriptors() {
        return;
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
        let is_refused = |daemon: &Daemon| {
            let client = connect(&daemon.path("s"), kind);
            let sent = try_send_with(&client, b"with", &[null.as_fd()]);
            assert_eq!(sent, Err(Errno::PERM));
        };
        is_refused(&Daemon::start(&config(kind, "")));
        let idle = Idle::new(kind);
        let (daemon, socket) = idle.start_as("", |setup| setup);
        is_refused(&daemon);
        // And while it is idle from here on.
        let path = daemon.path("s");
        let mut daemon = daemon;
        assert!(daemon.stop().success());
        let client = connect(&path, kind);
        let sent = try_send_with(&client, b"with", &[null.as_fd()]);
        assert_eq!(sent, Err(Errno::PERM));
        drop(socket);
    }
}
