//! The real `udsc` against small servers in this process, and against the real daemon: what it prints,
//! what it sends and how it ends.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use harness::{
    skip,
    udsc::{Udsc, User, has_system},
};

/// A listener in a fresh folder, which goes with it.
struct Server {
    folder: PathBuf,
    path: String,
}

impl Server {
    /// Serves one client with `serve`, in a thread.
    fn start(serve: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("udsc-{}-{count}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        let path = path.to_str().unwrap().to_owned();
        Self { folder, path }
    }

    /// Sends back what comes, byte for byte, and closes after the client's end.
    fn echo() -> Self {
        Self::start(|mut stream| {
            let mut out = stream.try_clone().unwrap();
            // udsc may leave first, where the test wants that.
            let _ = io::copy(&mut stream, &mut out);
        })
    }

    /// `udsc -s PATH` with the arguments in `line`.
    fn udsc(&self, line: &str) -> Udsc {
        Udsc::start(&format!("-s {} {line}", self.path))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const FRAMINGS: [&str; 7] = [
    "none",
    "lines",
    "nul",
    "length-prefixed",
    "fixed:5",
    "cstring:8",
    "syslog",
];

#[test]
fn connect_speaks_every_framing_to_the_daemon() {
    let table = |framing: &str| {
        let name = framing.replace(':', "-");
        format!(
            "[socket.{name}]\npath = \"{{dir}}/{name}\"\nmode = \"0666\"\nframing = \"{framing}\"\n"
        )
    };
    let user = User::new(&FRAMINGS.map(table).concat());
    let _daemon = user.daemon();
    let input = "<1>ab\n<2>cd\n";
    for framing in FRAMINGS {
        let name = framing.replace(':', "-");
        let path = user.path(&name);
        for server in [name, format!("{path} --framing {framing}")] {
            let ended = user.udsc(&format!("-s {server}")).given(input.as_bytes());
            ended.code(0).printed(input);
        }
    }
    let ended = user.udsc("-s fixed-5").given(b"<1>ab\nlong line\n");
    ended.code(1).printed("<1>ab\n").complained(
        "line 2 of standard input cannot be sent under framing fixed:5: the message does not fit the 5 bytes of this framing",
    );
}

const TWO: &str = "[socket.one]\npath = \"{dir}/one\"\nmode = \"0666\"\nframing = \"nul\"\n\
    [socket.udsd]\npath = \"{dir}/two\"\nmode = \"0666\"\n";

#[test]
fn without_a_name_the_first_socket_of_the_users_file_is_meant() {
    let user = User::new(TWO);
    let _daemon = user.daemon();
    for line in ["", "--user", "-s one"] {
        let ended = user.udsc(&format!("{line} ping -c 1")).given(b"").code(0);
        let start = format!("64 bytes from {}: seq=1 ", user.path("one"));
        assert!(ended.text().starts_with(&start), "{}", ended.text());
    }
}

#[test]
fn the_type_is_that_of_the_file_unless_an_option_says_another() {
    let user = User::new(TWO);
    let _daemon = user.daemon();
    let path = user.path("one");
    let ended = user.udsc("-s one --type datagram").end().code(1);
    // The framing of the file's stream does not stand in the way.
    ended.complained(&format!(
        "cannot connect to {path}: Protocol wrong type for socket (the socket there is of another type than datagram: try --type stream or --type seqpacket)"
    ));
}

#[test]
fn a_name_that_no_file_has_is_told_of_each() {
    let user = User::new(TWO);
    let file = user.path("udsd/udsd.toml");
    let own = format!("udsc: no such socket nosuch in {file}; it has: one, udsd");
    let complaints = user.udsc("-s nosuch").end().code(1).complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert_eq!(complaints[0], own);
    assert!(complaints[1].starts_with("udsc: no such socket nosuch in "));
    if !has_system() {
        assert!(complaints[1].ends_with("the built-in udsd.toml; it has: udsd"));
    }
    let complaints = user.udsc("--user -s nosuch").end().code(1).complaints();
    assert_eq!(complaints, [own]);
}

#[test]
fn a_name_is_looked_up_in_drop_ins_too() {
    let user = User::new(TWO);
    fs::create_dir(user.folder.join("udsd/udsd.toml.d")).unwrap();
    let file = user.path("udsd/udsd.toml.d/1.toml");
    let text = format!(
        "socket.three.path = '{}'\nsocket.one.enabled = false\n",
        user.path("3")
    );
    fs::write(&file, text).unwrap();
    let complaints = user.udsc("--user -s three").end().code(1).complaints();
    let refused = format!("udsc: cannot connect to {}: ", user.path("3"));
    assert!(complaints[0].starts_with(&refused), "{complaints:?}");
    let complaints = user.udsc("--user -s one").end().code(1).complaints();
    assert_eq!(
        complaints,
        [format!("udsc: socket one is switched off: {file}:2")]
    );
}

#[test]
fn the_same_file_is_not_named_twice() {
    let user = User::new("");
    fs::remove_file(user.folder.join("udsd/udsd.toml")).unwrap();
    let complaints = user.udsc("-s nosuch").end().code(1).complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}

#[test]
fn the_users_daemon_comes_before_the_systems() {
    if has_system() {
        return skip("this machine has a udsd of its own");
    }
    let user = User::new(TWO);
    let refused = |path: &str, start: &str| {
        format!(
            "udsc: cannot connect to {path}: No such file or directory (is udsd running? {start} udsd.socket)"
        )
    };
    let users = refused(&user.path("two"), "systemctl --user start");
    let systems = refused("/run/udsd.sock", "systemctl start");
    for (line, expected) in [
        ("-s udsd", vec![users.clone(), systems.clone()]),
        ("-s udsd --user", vec![users]),
        ("-s udsd --system", vec![systems.clone()]),
        ("--system", vec![systems]),
        (
            "-s one",
            vec![refused(&user.path("one"), "systemctl --user start")],
        ),
    ] {
        let complaints = user.udsc(line).end().code(1).complaints();
        assert_eq!(complaints, expected, "{line}");
    }
    let other = User::new(&TWO.replace("socket.udsd", "socket.two"));
    let file = other.path("udsd/udsd.toml");
    let complaints = other.udsc("-s udsd").end().code(1).complaints();
    assert_eq!(
        complaints,
        [
            format!("udsc: no such socket udsd in {file}; it has: one, two"),
            refused("/run/udsd.sock", "systemctl start")
        ]
    );
}

#[test]
fn what_needs_answers_leaves_a_record_alone() {
    let user = User::new(
        "[socket.rec]\npath = \"{dir}/rec\"\nmode = \"0666\"\nservice = \"collect\"\n\
         framing = \"lines\"\n[socket.rec.record]\nformat = \"raw\"\n",
    );
    let daemon = user.daemon();
    for (line, why) in [
        ("ping -c 1 -W 1s", "ping needs service = \"echo\""),
        ("listen", "listen would wait for ever"),
        ("send --wait 1 no", "send --wait would wait for ever"),
    ] {
        let ended = user.udsc(&format!("-s rec {line}")).given(b"").code(1);
        ended
            .printed("")
            .complained(&format!("socket rec collects and answers nothing; {why}"));
    }
    user.udsc("-s rec send sent").given(b"").code(0).printed("");
    user.udsc("-s rec")
        .given(b"connected\n")
        .code(0)
        .printed("");
    assert_eq!(daemon.wait_output(2), ["sent", "connected"]);
}

#[test]
fn connect_speaks_every_framing() {
    for framing in FRAMINGS {
        let server = Server::echo();
        let input = "<1>ab\n<2>cd\n";
        let ended = server
            .udsc(&format!("--framing {framing}"))
            .given(input.as_bytes());
        ended.code(0).printed(input);
    }
}

#[test]
fn connect_passes_binary_through_in_every_amount() {
    let all: Vec<u8> = (0..=255).cycle().take(8 << 20).collect();
    for framing in ["none", "lines"] {
        for amount in [0, 1, 256, 8 << 20] {
            let server = Server::echo();
            let udsc = server.udsc(&format!("connect --framing {framing}"));
            udsc.given(&all[..amount]).code(0).printed(&all[..amount]);
        }
    }
}

#[test]
fn connect_carries_what_a_line_can_hold() {
    let server = Server::echo();
    let input = b"a\0b\xff\n\n\r\nlast";
    let ended = server.udsc("--framing length-prefixed").given(input);
    ended.code(0).printed(b"a\0b\xff\n\n\r\nlast\n");
}

#[test]
fn connect_passes_a_half_close_on_and_receives_to_the_end() {
    let server = Server::start(|mut stream| {
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        let answer = format!("{} bytes, and then some\n", all.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let ended = server.udsc("").given(b"one\ntwo\n");
    ended.code(0).printed("8 bytes, and then some\n");
}

#[test]
fn connect_ends_when_the_server_closes_before_standard_input_does() {
    let server = Server::start(|mut stream| stream.write_all(b"bye\n").unwrap());
    let mut udsc = server.udsc("");
    let ended = udsc.end().code(1).printed("bye\n");
    ended.complained(&format!(
        "{}: the server closed before standard input ended",
        server.path
    ));
    assert!(udsc.child.stdin.is_some());
}

#[test]
fn connect_goes_on_sending_to_a_server_that_only_listens() {
    let (heard, all) = std::sync::mpsc::channel();
    let server = Server::start(move |mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        heard.send(bytes.len()).unwrap();
    });
    server.udsc("").given(&[b'x'; 1 << 20]).code(0).printed("");
    assert_eq!(all.recv().unwrap(), 1 << 20);
}

#[test]
fn connect_names_the_line_that_does_not_fit() {
    let server = Server::echo();
    let ended = server.udsc("--framing fixed:3").given(b"abc\nlong line\n");
    ended.code(1).printed("abc\n").complained(
        "line 2 of standard input cannot be sent under framing fixed:3: the message does not fit the 3 bytes of this framing",
    );
}

#[test]
fn connect_tells_of_a_message_that_the_server_did_not_finish() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"\0\0\0\x01a\0\0\0\x09b").unwrap();
    });
    let ended = server.udsc("--framing length-prefixed").end().code(1);
    let path = &server.path;
    ended.printed("a\n").complained(&format!(
        "{path}: the stream ended after 5 bytes of a message (framing length-prefixed)"
    ));
}

#[test]
fn connect_names_the_limit_on_a_message() {
    let server = Server::start(|mut stream| {
        stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let ended = server.udsc("--framing length-prefixed").end().code(1);
    let path = &server.path;
    ended.complained(&format!(
        "{path}: a message is longer than the 67108864 bytes that udsc holds"
    ));
}

#[test]
fn send_prints_the_answers_that_it_waits_for() {
    let server = Server::echo();
    let udsc = server.udsc("send --wait 3 one two three four");
    udsc.given(b"").code(0).printed("one\ntwo\nthree\n");
    let server = Server::echo();
    let udsc = server.udsc("--framing none send --wait 1 bytes");
    udsc.given(b"").code(0).printed("bytes\n");
}

#[test]
fn send_without_wait_delivers_everything_and_prints_nothing() {
    let (heard, all) = std::sync::mpsc::channel();
    let server = Server::start(move |mut stream| {
        let mut out = stream.try_clone().unwrap();
        let mut lines = BufReader::new(&mut stream).lines();
        let mut count = 0;
        while let Some(Ok(line)) = lines.next() {
            out.write_all(format!("{line}\n").as_bytes()).unwrap();
            count += 1;
        }
        heard.send(count).unwrap();
    });
    let udsc = server.udsc("send a b c");
    udsc.given(b"").code(0).printed("");
    assert_eq!(all.recv().unwrap(), 3);
}

#[test]
fn send_says_how_many_came_when_time_runs_out() {
    let server = Server::echo();
    let udsc = server.udsc("send --wait 2 --timeout 500ms one");
    let ended = udsc.given(b"").code(1).printed("one\n");
    ended.complained("1 of 2 messages came within 500ms");
}

#[test]
fn send_names_the_message_that_does_not_fit() {
    let server = Server::echo();
    let udsc = server.udsc("--framing fixed:3 send abc ab");
    udsc.given(b"").code(1).complained(
        "message 2 cannot be sent under framing fixed:3: the message does not fit the 3 bytes of this framing",
    );
}

#[test]
fn listen_ends_after_its_count_or_with_the_server() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"one\ntwo\nthree\n").unwrap();
        let _ = stream.read(&mut [0]);
    });
    server
        .udsc("listen --count 2")
        .end()
        .code(0)
        .printed("one\ntwo\n");
    let server = Server::start(|mut stream| stream.write_all(b"a\0b").unwrap());
    let mut udsc = server.udsc("--framing nul listen");
    udsc.end().code(0).printed("a\nb\n");
    let server = Server::start(|mut stream| stream.write_all(b"one\n").unwrap());
    let ended = server
        .udsc("listen --count 2")
        .end()
        .code(1)
        .printed("one\n");
    ended.complained("the server closed after 1 of 2 messages");
}

#[test]
fn listen_prints_a_message_before_the_next_one_comes() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |mut stream| {
        stream.write_all(b"first\n").unwrap();
        gone.recv().unwrap();
        stream.write_all(b"second\n").unwrap();
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
fn a_closed_standard_output_ends_quietly() {
    for command in ["connect", "listen", "ping --interval 0s"] {
        let server = if command.starts_with("ping") {
            Server::echo()
        } else {
            Server::start(|mut stream| while stream.write_all(b"more\n").is_ok() {})
        };
        let mut udsc = server.udsc(command);
        drop(udsc.child.stdout.take());
        let mut errors = String::new();
        let mut stderr = udsc.child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        assert_eq!(
            (udsc.child_status().code(), errors.as_str()),
            (Some(0), ""),
            "{command}"
        );
    }
}

#[test]
fn ping_measures_under_every_framing() {
    for framing in [
        "none",
        "lines",
        "nul",
        "length-prefixed",
        "fixed:8",
        "cstring:8",
        "syslog",
    ] {
        let server = Server::echo();
        let ended = server
            .udsc(&format!("--framing {framing} ping -c 3 -i 0s"))
            .given(b"");
        let ended = ended.code(0);
        let lines: Vec<&str> = ended.text().lines().collect();
        assert_eq!(lines.len(), 7, "{framing}: {lines:?}");
        let size = if framing.contains(':') { 8 } else { 64 };
        let first = format!("{size} bytes from {}: seq=1 time=", server.path);
        assert!(lines[0].starts_with(&first), "{framing}: {lines:?}");
        assert_eq!(lines[4], format!("--- {} ---", server.path));
        assert_eq!(lines[5], "3 sent, 3 received, 0 lost");
        assert!(lines[6].starts_with("min/avg/p50/p99/max = "), "{lines:?}");
    }
}

#[test]
fn ping_fails_when_one_is_lost() {
    let server = Server::start(|mut stream| {
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let ended = server.udsc("ping -c 1 -W 20ms").given(b"").code(1);
    assert!(ended.text().contains("1 sent, 0 received, 1 lost\n"));
    ended.complained("not every ping came back");
}

#[test]
fn ping_prints_its_summary_on_an_interrupt() {
    let server = Server::echo();
    let mut udsc = server.udsc("ping -i 1h");
    let mut lines = BufReader::new(udsc.child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("seq=1"));
    let pid = rustix::process::Pid::from_child(&udsc.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(rest[2], "1 sent, 1 received, 0 lost");
    assert!(udsc.child_status().success());
}

#[test]
fn a_missing_socket_is_named() {
    let path = "/nonexistent/udsd.sock";
    for command in ["connect", "listen", "send x", "ping"] {
        let ended = Udsc::start(&format!("-s {path} {command}")).end().code(1);
        ended.complained(&format!(
            "cannot connect to {path}: No such file or directory"
        ));
    }
}

#[test]
fn a_dead_socket_is_told_from_a_missing_one() {
    let server = Server::echo();
    let path = server.folder.join("dead.sock");
    drop(UnixListener::bind(&path).unwrap());
    let path = path.to_str().unwrap();
    Udsc::start(&format!("-s {path}"))
        .end()
        .code(1)
        .complained(&format!(
            "cannot connect to {path}: Connection refused (nobody listens there)"
        ));
    let path = server.folder.join("packets.sock");
    let _packets = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    Udsc::start(&format!("-s {path}")).end().code(1).complained(&format!(
        "cannot connect to {path}: Protocol wrong type for socket (the socket there is of another type than stream: try --type seqpacket or --type datagram)"
    ));
}

#[test]
fn wrong_usage_exits_2() {
    for line in [
        "--framing words",
        "--framing fixed",
        "--type pipe",
        "--system --user",
        "send",
        "send --timeout 5",
        "ping -c 0",
        "unknown",
    ] {
        Udsc::start(line).end().code(2);
    }
    Udsc::start("-s @x --type seqpacket --framing lines")
        .end()
        .code(2)
        .complained(
            "framing lines contradicts type seqpacket: packets need no framing; leave it out",
        );
    Udsc::start("-s @")
        .end()
        .code(2)
        .complained("\"@\" lacks the name: write \"@name\" for an abstract socket");
    Udsc::start("--socket=")
        .end()
        .code(2)
        .complained("-s is empty: write the NAME of a socket, a path with a \"/\", or \"@name\"");
    Udsc::start("-s udsd.sock").end().code(2).complained(
        "\"udsd.sock\" is neither the NAME of a socket nor a path: write \"./udsd.sock\" for a file, \"@udsd.sock\" for an abstract name",
    );
}

#[test]
fn names_are_those_of_the_file_that_the_daemon_serves() {
    let mut daemon = harness::Setup::new()
        .config(
            "[daemon]\ncontrol = \"\"\n[socket.here]\npath = \"{dir}/here\"\nframing = \"nul\"\n",
        )
        .start();
    let file = daemon.path("udsd.toml").display().to_string();
    let udsc = |line: &str| Udsc::start(&format!("--config {file} {line}"));
    let answered = udsc("-s here send --wait 1 hello").given(b"").code(0);
    answered.printed("hello\n");
    udsc("ping -c 1").given(b"").code(0);
    udsc("-s nosuch")
        .end()
        .code(1)
        .complained(&format!("no such socket nosuch in {file}; it has: here"));
    for option in ["--system", "--user"] {
        udsc(option).end().code(2);
    }
    daemon.stop();
    let complaints = udsc("-s here").end().code(1).complaints();
    assert!(
        complaints[0].ends_with(&format!("(is udsd running? udsd --config {file})")),
        "{complaints:?}"
    );
}

/// What is at a path, the file may know: an echo owes all of it.
#[test]
fn what_the_file_says_of_a_path_counts() {
    let user = User::new(
        "[socket.s]\npath = \"{dir}/s\"\nmode = \"0666\"\nframing = \"lines\"\nmessage-size = 5\n",
    );
    let _daemon = user.daemon();
    let ended = user
        .udsc(&format!("-s {}", user.path("s")))
        .given(b"1\n123456\n");
    ended.code(1).printed("1\n").complained(
        "line 2 of standard input has 6 bytes, and message-size of socket s is 5: send it in parts, or raise message-size",
    );
}

#[test]
fn a_ping_that_no_buffer_holds_comes_back() {
    let server = Server::echo();
    let ended = server
        .udsc("ping -c 2 -i 0s --size 3000000")
        .given(b"")
        .code(0);
    assert!(ended.text().contains("2 sent, 2 received, 0 lost\n"));
}

#[test]
fn a_ping_that_nobody_reads_is_given_up_in_time() {
    let server = Server::start(|stream| {
        thread::park();
        drop(stream);
    });
    let ended = server.udsc("ping -c 1 -W 100ms --size 3000000").given(b"");
    let complaints = ended.code(1).complaints();
    let start = format!("udsc: {}: time ran out with ", server.path);
    assert!(complaints[0].starts_with(&start), "{complaints:?}");
}

#[test]
fn help_fits_the_terminal() {
    let udsc = env!("CARGO_BIN_EXE_udsc");
    let udsd = env!("CARGO_BIN_EXE_udsd");
    for (program, command) in [
        (udsc, ""),
        (udsc, "connect"),
        (udsc, "send"),
        (udsc, "listen"),
        (udsc, "ping"),
        (udsd, ""),
    ] {
        let output = std::process::Command::new(program)
            .args(command.split_whitespace())
            .arg("--help")
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let long: Vec<&str> = text.lines().filter(|line| line.len() > 80).collect();
        assert!(
            text.lines().count() > 5 && long.is_empty(),
            "{program} {command}: {long:?}"
        );
    }
}

#[test]
fn apply_is_for_the_whole_file_of_a_manager() {
    for (arguments, words) in [
        (&["apply", "-s", "/x"][..], "leave out --config, --socket"),
        (&["apply", "--config", "/x"], "leave out --config, --socket"),
        (
            &["apply", "--framing", "nul"],
            "leave out --config, --socket",
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_udsc"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
