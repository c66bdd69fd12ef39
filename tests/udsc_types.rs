//! The real `udsc` on seqpacket and datagram sockets, against small servers in this process: one
//! message is one packet, none is lost, merged or cut, and each kind of end is told.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
};

use harness::{
    Daemon, Folder, HANG,
    udsc::{Udsc, User},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
        listen, recv, send, socket_with, sockopt,
    },
};

/// The longest packet that the servers here take.
const LONGEST: usize = 1 << 20;

fn packet_socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// A seqpacket listener that anyone may connect to.
fn packet_listener(path: &Path) -> OwnedFd {
    let socket = packet_socket();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    listen(&socket, 1).unwrap();
    socket
}

/// The server's end of a seqpacket connection.
struct Packets(OwnedFd);

impl Packets {
    fn send(&self, packet: &[u8]) {
        let sent = send(&self.0, packet, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(sent, packet.len());
    }

    /// The next packet; `None` at the end.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        // Waits, as the next call does not.
        recv(&self.0, &mut buffer[..0], RecvFlags::PEEK).unwrap();
        let n = udsd::sys::receive_packet(&self.0, &mut buffer).unwrap()?;
        assert!(n <= LONGEST);
        buffer.truncate(n);
        Some(buffer)
    }

    fn close_writing(&self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write).unwrap();
    }
}

/// A server in a fresh folder, of a type that udsc is told.
struct Server {
    /// Goes with it.
    _folder: Arc<Folder>,
    path: PathBuf,
    kind: &'static str,
}

impl Server {
    fn new(kind: &'static str) -> Self {
        let folder = Folder::new();
        let path = folder.join("a.sock");
        Self {
            _folder: folder,
            path,
            kind,
        }
    }

    /// Serves one seqpacket client with `serve`, in a thread.
    fn packets(serve: impl FnOnce(Packets) + Send + 'static) -> Self {
        let server = Self::new("seqpacket");
        let listener = packet_listener(&server.path);
        thread::spawn(move || {
            let client = accept(&listener).unwrap();
            sockopt::set_socket_passcred(&client, true).unwrap();
            sockopt::set_socket_send_buffer_size(&client, LONGEST).unwrap();
            serve(Packets(client));
        });
        server
    }

    /// Serves datagrams with `serve`, in a thread.
    fn datagrams(serve: impl FnOnce(UnixDatagram) + Send + 'static) -> Self {
        let server = Self::new("datagram");
        let socket = UnixDatagram::bind(&server.path).unwrap();
        sockopt::set_socket_send_buffer_size(&socket, LONGEST).unwrap();
        fs::set_permissions(&server.path, fs::Permissions::from_mode(0o777)).unwrap();
        thread::spawn(move || serve(socket));
        server
    }

    /// Sends back what comes, and says what it was once the client is gone.
    fn packet_echo() -> (Self, Receiver<Vec<Vec<u8>>>) {
        let (tell, heard) = mpsc::channel();
        let server = Self::packets(move |client| {
            let mut all = Vec::new();
            while let Some(packet) = client.receive() {
                client.send(&packet);
                all.push(packet);
            }
            // The test may not ask.
            let _ = tell.send(all);
        });
        (server, heard)
    }

    /// Sends back the first `count` datagrams, and says what they were.
    fn datagram_echo(count: usize) -> (Self, Receiver<Vec<Vec<u8>>>) {
        let (tell, heard) = mpsc::channel();
        let server = Self::datagrams(move |socket| {
            let mut all = Vec::new();
            while all.len() < count {
                let (packet, from) = receive_from(&socket);
                // Who does not wait for it may be gone.
                let _ = socket.send_to_addr(&packet, &from);
                all.push(packet);
            }
            tell.send(all).unwrap();
            // Open until the test is over, so that nobody is refused.
            let _ = socket.recv(&mut [0]);
        });
        (server, heard)
    }

    /// An echo of either type, and what it heard.
    fn echo(kind: &str, count: usize) -> (Self, Receiver<Vec<Vec<u8>>>) {
        match kind {
            "seqpacket" => Self::packet_echo(),
            _ => Self::datagram_echo(count),
        }
    }

    fn arguments(&self, line: &str) -> String {
        format!("-s {} --type {} {line}", self.path.display(), self.kind)
    }

    /// `udsc -s PATH --type TYPE` with the arguments in `line`.
    fn udsc(&self, line: &str) -> Udsc {
        Udsc::start(&self.arguments(line))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn receive_from(socket: &UnixDatagram) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; LONGEST];
    let (n, from) = socket.recv_from(&mut buffer).unwrap();
    assert!(n < LONGEST);
    buffer.truncate(n);
    (buffer, from)
}

/// Waits until nothing more fits into the queue of `socket`.
fn wait_full(path: &Path) {
    let probe = UnixDatagram::unbound().unwrap();
    probe.connect(path).unwrap();
    let end = std::time::Instant::now() + HANG;
    loop {
        let mut room = [PollFd::new(&probe, PollFlags::OUT)];
        // Nothing tells of a queue that fills; only whether it is full can be asked.
        if poll(&mut room, Some(&Timespec::default())).unwrap() == 0 {
            return;
        }
        assert!(std::time::Instant::now() < end, "the queue never got full");
        thread::yield_now();
    }
}

const TYPES: [&str; 2] = ["seqpacket", "datagram"];

#[test]
fn connect_sends_each_line_as_a_packet_and_prints_each_packet_as_a_line() {
    for kind in TYPES {
        let (server, heard) = Server::echo(kind, 5);
        let long = "x".repeat(100_000);
        let input = format!("one\n\ntwo words\r\n{long}\nlast");
        let ended = server.udsc("").given(input.as_bytes());
        ended.code(0).printed(format!("{input}\n"));
        let lines: Vec<&[u8]> = vec![b"one", b"", b"two words\r", long.as_bytes(), b"last"];
        assert!(heard.recv().unwrap() == lines, "{kind}");
    }
}

#[test]
fn send_makes_each_argument_a_packet_and_prints_the_answers_that_it_waits_for() {
    for kind in TYPES {
        let (server, heard) = Server::echo(kind, 3);
        let ended = server.udsc("send --wait 2 a <2>b c").given(b"");
        ended.code(0).printed("a\n<2>b\n");
        assert_eq!(heard.recv().unwrap(), [&b"a"[..], b"<2>b", b"c"], "{kind}");
        // The first server answers once.
        let (server, _heard) = Server::echo(kind, 1);
        let udsc = server.udsc("send --wait 2 --timeout 500ms one");
        let ended = udsc.given(b"").code(1).printed("one\n");
        ended.complained("1 of 2 messages came within 500ms");
    }
}

#[test]
fn ping_measures_on_packets() {
    for kind in TYPES {
        for (option, size) in [("", 64), ("--size 70000", 70_000)] {
            let (server, _heard) = Server::echo(kind, 3);
            let ended = server.udsc(&format!("ping -c 3 -i 0s {option}")).given(b"");
            let ended = ended.code(0);
            let lines: Vec<&str> = ended.text().lines().collect();
            let first = format!("{size} bytes from {}: seq=1 time=", server.name());
            assert!(lines[0].starts_with(&first), "{kind}: {lines:?}");
            assert_eq!(lines[5], "3 sent, 3 received, 0 lost", "{kind}");
        }
    }
    let (server, _heard) = Server::datagram_echo(0);
    let ended = server.udsc("ping -c 1 -W 20ms").given(b"").code(1);
    assert!(ended.text().contains("1 sent, 0 received, 1 lost\n"));
    ended.complained("not every ping came back");
}

#[test]
fn listen_prints_each_packet_until_its_count_or_the_end() {
    let serve = |client: Packets| {
        let long = vec![b'x'; 150_000];
        for packet in [&b"one"[..], b"", b"tw\no", &long] {
            client.send(packet);
        }
    };
    let server = Server::packets(serve);
    let all = format!("one\n\ntw\no\n{}\n", "x".repeat(150_000));
    server.udsc("listen").end().code(0).printed(all);
    let server = Server::packets(serve);
    let mut udsc = server.udsc("listen --count 2");
    udsc.end().code(0).printed("one\n\n");
    let server = Server::packets(serve);
    let mut udsc = server.udsc("listen --count 3 --json");
    let objects = ["one", "", "tw\\no"]
        .map(|text| format!("{{\"message\":\"{text}\",\"message_base64\":null}}\n"));
    udsc.end().code(0).printed(objects.concat());
    let server = Server::packets(serve);
    let ended = server.udsc("listen --count 9").end().code(1);
    ended.complained("the server closed after 4 of 9 messages");
}

#[test]
fn listen_prints_a_packet_before_the_next_one_comes() {
    let (go, gone) = mpsc::channel::<()>();
    let server = Server::packets(move |client| {
        client.send(b"first");
        gone.recv().unwrap();
        client.send(b"second");
    });
    let mut udsc = server.udsc("listen");
    let mut lines = BufReader::new(udsc.child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    go.send(()).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert!(lines.next().is_none());
    assert!(udsc.child_status().success());
}

#[test]
fn listen_on_datagrams_is_refused() {
    let (server, _heard) = Server::datagram_echo(0);
    server.udsc("listen").end().code(1).complained(&format!(
        "{}: on datagrams only who has sent something is answered; use connect or send --wait",
        server.name()
    ));
}

#[test]
fn a_half_close_passes_on_both_ways_and_an_empty_packet_is_none() {
    let (tell, heard) = mpsc::channel();
    let server = Server::packets(move |client| {
        client.send(b"");
        client.send(b"hello");
        client.close_writing();
        let mut count = 0;
        while client.receive().is_some() {
            count += 1;
        }
        tell.send(count).unwrap();
    });
    let ended = server.udsc("").given(b"a\n\nb\n\n\n");
    ended.code(0).printed("\nhello\n");
    assert_eq!(heard.recv().unwrap(), 5);
}

#[test]
fn what_a_server_sent_before_it_closed_with_packets_unread_is_printed() {
    for command in ["connect", "listen", "send --wait 3 x"] {
        let server = Server::packets(move |client| {
            if command != "listen" {
                // It came, and stays unread: so closing is a reset.
                recv(&client.0, &mut [0; 1][..], RecvFlags::PEEK).unwrap();
            }
            client.send(b"one");
            client.send(b"two");
        });
        let ended = server.udsc(command).given(b"x\n");
        let reset = format!(
            "{}: the server closed before it had read everything that was sent (udsd's log says why: access rules or a limit refused it, or it stopped)",
            server.name()
        );
        if command == "listen" {
            ended.code(0).printed("one\ntwo\n");
        } else {
            ended.code(1).printed("one\ntwo\n").complained(&reset);
        }
    }
}

#[test]
fn a_full_datagram_queue_is_waited_for_and_nothing_is_lost() {
    let lines: Vec<String> = (0..300).map(|n| format!("line-{n}")).collect();
    for (command, input) in [
        ("connect".to_owned(), lines.join("\n")),
        (format!("send {}", lines.join(" ")), String::new()),
    ] {
        let (go, gone) = mpsc::channel::<()>();
        let (tell, heard) = mpsc::channel();
        let count = lines.len();
        let server = Server::datagrams(move |socket| {
            gone.recv().unwrap();
            let all: Vec<Vec<u8>> = (0..count).map(|_| receive_from(&socket).0).collect();
            tell.send(all).unwrap();
            let _ = socket.recv(&mut [0]);
        });
        let udsc = server.udsc(&command);
        let path = server.path.clone();
        let reader = thread::spawn(move || {
            wait_full(&path);
            go.send(()).unwrap();
        });
        udsc.given(input.as_bytes()).code(0).printed("");
        reader.join().unwrap();
        let all = heard.recv().unwrap();
        assert!(all.iter().eq(lines.iter().map(String::as_bytes)), "{all:?}");
    }
}

#[test]
fn a_server_that_does_not_read_is_told_by_the_packets_left() {
    let server = Server::datagrams(|socket| {
        thread::park();
        drop(socket);
    });
    let messages = "x ".repeat(2000);
    let udsc = server.udsc(&format!("send --timeout 200ms {messages}"));
    let complaints = udsc.given(b"").code(1).complaints();
    let start = format!("udsc: {}: time ran out with ", server.name());
    let left = complaints[0].strip_prefix(&start).unwrap();
    let left = left
        .strip_suffix(" packets unsent, which the server did not read")
        .unwrap();
    // The queue takes net.unix.max_dgram_qlen of them and one more.
    let length = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let length: usize = length.trim().parse().unwrap();
    assert_eq!(left, (2000 - length - 1).to_string());
}

#[test]
fn a_packet_that_is_too_long_is_told_with_the_limit_and_the_line() {
    let most = fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    // The kernel doubles what it is asked for, and keeps 32 bytes for itself.
    let largest = 2 * most.trim().parse::<usize>().unwrap() - 32;
    for kind in TYPES {
        let user = User::new("");
        let (server, heard) = Server::echo(kind, 2);
        // More than the default, which is half.
        let long = "x".repeat(300_000);
        let over = "x".repeat(largest + 1);
        // As somebody who is not root.
        let udsc = user.udsc(&server.arguments(""));
        let ended = udsc.given(format!("a\n{long}\n{over}\nb\n").as_bytes());
        ended.code(1).printed(format!("a\n{long}\n")).complained(&format!(
            "line 3 of standard input does not fit into a packet: it has {} bytes, a packet at most {largest}; send it in parts, or raise net.core.wmem_max",
            largest + 1
        ));
        assert_eq!(heard.recv().unwrap().len(), 2);
    }
}

#[test]
fn a_datagram_server_that_goes_is_noticed_with_the_next_message() {
    let (go, going) = mpsc::channel::<()>();
    let (tell, gone) = mpsc::channel();
    let server = Server::datagrams(move |socket| {
        let (packet, from) = receive_from(&socket);
        socket.send_to_addr(&packet, &from).unwrap();
        going.recv().unwrap();
        drop(socket);
        tell.send(()).unwrap();
    });
    let mut udsc = server.udsc("");
    let mut input = udsc.child.stdin.take().unwrap();
    let mut lines = BufReader::new(udsc.child.stdout.take().unwrap()).lines();
    input.write_all(b"one\n").unwrap();
    // Read before the server goes: with the refusal the kernel drops answers that still wait.
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    go.send(()).unwrap();
    gone.recv().unwrap();
    // A child of another test, not yet become udsc, may hold the server's socket a little longer.
    while input.write_all(b"more\n").is_ok() {}
    assert!(lines.next().is_none());
    let mut errors = String::new();
    let mut stderr = udsc.child.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    let expected = format!("udsc: {}: the server is gone\n", server.name());
    assert_eq!((udsc.child_status().code(), errors), (Some(1), expected));
}

#[test]
fn only_the_server_can_answer_a_datagram() {
    let (tell, told) = mpsc::channel();
    let server = Server::datagrams(move |socket| {
        let (_, from) = receive_from(&socket);
        let name = from.as_abstract_name().map(<[u8]>::to_vec);
        let stranger = UnixDatagram::unbound().unwrap();
        let refused = stranger.send_to_addr(b"forged", &from).unwrap_err();
        socket.send_to_addr(b"real", &from).unwrap();
        tell.send((name, refused.kind())).unwrap();
    });
    let udsc = server.udsc("send --wait 1 hello");
    udsc.given(b"").code(0).printed("real\n");
    let (name, refused) = told.recv().unwrap();
    // Bound by the kernel, five hexadecimal digits (`unix(7)`).
    let name = String::from_utf8(name.unwrap()).unwrap();
    assert!(name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(refused, ErrorKind::PermissionDenied);
}

#[test]
fn a_datagram_under_syslog_has_no_terminator() {
    let (server, heard) = Server::datagram_echo(2);
    let udsc = server.udsc("--framing syslog send --wait 2 <13>a plain");
    udsc.given(b"").code(0).printed("<13>a\nplain\n");
    assert_eq!(heard.recv().unwrap(), [&b"<13>a"[..], b"plain"]);
}

#[test]
fn a_socket_of_another_type_is_told_with_the_options_to_try() {
    let folder = Folder::new();
    let at = |kind: &str| folder.join(kind);
    let _stream = UnixListener::bind(at("stream")).unwrap();
    let _datagram = UnixDatagram::bind(at("datagram")).unwrap();
    let _packets = packet_listener(&at("seqpacket"));
    for (kind, others) in [
        ("stream", "--type seqpacket or --type datagram"),
        ("seqpacket", "--type stream or --type datagram"),
        ("datagram", "--type stream or --type seqpacket"),
    ] {
        for there in ["stream", "seqpacket", "datagram"] {
            let path = at(there).display().to_string();
            let mut udsc = Udsc::start(&format!("-s {path} --type {kind} send x"));
            if there == kind {
                continue;
            }
            udsc.end().code(1).complained(&format!(
                "cannot connect to {path}: Protocol wrong type for socket (the socket there is of another type than {kind}: try {others})"
            ));
        }
    }
    let name = format!("udsc-types-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _stream = UnixListener::bind_addr(&address).unwrap();
    let mut udsc = Udsc::start(&format!("-s @{name} --type datagram"));
    udsc.end().code(1).complained(&format!(
        "cannot connect to @{name}: Connection refused (nobody listens there with type datagram)"
    ));
}

#[test]
fn an_abstract_name_is_connected_with_every_type() {
    let name = format!("udsc-types-too-{}", std::process::id());
    let listener = packet_socket();
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 1).unwrap();
    let serving = thread::spawn(move || {
        let client = accept(&listener).unwrap();
        send(&client, b"hello", SendFlags::NOSIGNAL).unwrap();
    });
    let mut udsc = Udsc::start(&format!("-s @{name} --type seqpacket listen"));
    udsc.end().code(0).printed("hello\n");
    serving.join().unwrap();
}

#[test]
fn a_closed_standard_output_ends_quietly() {
    let server =
        Server::packets(|client| while send(&client.0, b"more", SendFlags::NOSIGNAL).is_ok() {});
    let mut udsc = server.udsc("listen");
    drop(udsc.child.stdout.take());
    let mut errors = String::new();
    let mut stderr = udsc.child.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    assert_eq!((udsc.child_status().code(), errors.as_str()), (Some(0), ""));
}

/// A user with an echo and a record on sockets of `kind`; `framing` is that of the record's.
fn user_of(kind: &str, framing: &str) -> User {
    let socket = |name: &str| {
        format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\nmode = \"0666\"\ntype = \"{kind}\"\n")
    };
    User::new(&format!(
        "{}{}service = \"collect\"\nframing = \"{framing}\"\n[socket.record.record]\nformat = \"raw\"\n",
        socket("echo"),
        socket("record")
    ))
}

fn speak_to_echo(user: &User, kind: &str) {
    let long = "x".repeat(64 << 10);
    let input = format!("one\n\n{long}\nlast\n");
    let path = user.path("echo");
    for server in ["echo".to_owned(), format!("{path} --type {kind}")] {
        let ended = user.udsc(&format!("-s {server}")).given(input.as_bytes());
        ended.code(0).printed(&input);
    }
    let ended = user.udsc("-s echo ping -c 3 -i 0s").given(b"").code(0);
    assert!(ended.text().contains("3 sent, 3 received, 0 lost\n"));
    let ended = user.udsc("-s echo send --wait 2 a b").given(b"");
    ended.code(0).printed("a\nb\n");
}

fn speak_to_record(user: &User, daemon: &Daemon) {
    for (line, why) in [
        ("ping -c 1 -W 1s", "ping needs service = \"echo\""),
        ("listen", "listen would wait for ever"),
        ("send --wait 1 no", "send --wait would wait for ever"),
    ] {
        let ended = user.udsc(&format!("-s record {line}")).given(b"").code(1);
        ended.printed("").complained(&format!(
            "socket record collects and answers nothing; {why}"
        ));
    }
    let ended = user.udsc("-s record send <13>a b").given(b"");
    ended.code(0).printed("");
    assert_eq!(daemon.wait_output(2), ["<13>a", "b"]);
    user.udsc("-s record").given(b"c\n").code(0).printed("");
    assert_eq!(daemon.wait_output(3)[2], "c");
}

#[test]
fn the_daemon_is_spoken_to_in_seqpackets() {
    let user = user_of("seqpacket", "none");
    let daemon = user.daemon();
    speak_to_echo(&user, "seqpacket");
    speak_to_record(&user, &daemon);
}

#[test]
fn the_daemon_is_spoken_to_in_datagrams() {
    let user = user_of("datagram", "syslog");
    let daemon = user.daemon();
    speak_to_echo(&user, "datagram");
    speak_to_record(&user, &daemon);
}

#[test]
fn a_relay_of_the_daemon_passes_packets_on() {
    let user = User::new(
        "[socket.relay]\npath = \"{dir}/relay\"\nmode = \"0666\"\ntype = \"seqpacket\"\n\
         service = \"relay\"\n",
    );
    let _daemon = user.daemon();
    let mut listening = user.udsc("-s relay listen --count 1");
    let mut talking = user.udsc("-s relay");
    let mut input = talking.child.stdin.take().unwrap();
    // Until the listener is there, nobody hears it.
    while listening.child.try_wait().unwrap().is_none() {
        input.write_all(b"anybody there\n").unwrap();
        thread::yield_now();
    }
    listening.end().code(0).printed("anybody there\n");
}
