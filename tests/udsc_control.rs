//! What `udsc` asks a running daemon at its control socket: status, clients, disconnect, reload, metrics, tap. What
//! each prints and how it ends, also where nobody answers, or nobody may ask.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    sync::Arc,
    thread,
};

use harness::{
    Daemon, Folder, Setup, is_root, read_until_closed, round_trip,
    udsc::{Ended, Udsc, User},
    varlink::Caller,
};
use rustix::net::listen;
use serde_json::{Value, json};

const FILE: &str = r#"
[daemon]
control = "{dir}/control.sock"

[limits]
clients-per-user = 4

[socket.echo]
path = "{dir}/echo"
framing = "lines"
message-size = "16B"

[socket.bus]
path = "{dir}/bus"
service = "relay"
framing = "lines"

[socket.log]
path = "{dir}/log"
type = "datagram"
service = "collect"
record = { file = "{dir}/log.json" }
"#;

/// udsc for the daemon of `FILE`.
fn udsc(daemon: &Daemon, line: &str) -> Udsc {
    let file = daemon.path("udsd.toml");
    Udsc::start(&format!("--config {} {line}", file.display()))
}

fn end(daemon: &Daemon, line: &str) -> Ended {
    udsc(daemon, line).end()
}

/// The lines of standard output, each an object.
fn objects(ended: &Ended) -> Vec<Value> {
    let lines = ended.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The words of the line of a table that begins with `first`.
#[track_caller]
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let mut rows = text.lines().map(|line| line.split_whitespace().collect());
    let row = rows.find(|words: &Vec<&str>| words.first() == Some(&first));
    row.unwrap_or_else(|| panic!("no {first} in:\n{text}"))
}

/// What stands below the heading `title` in the line that begins with `first`.
#[track_caller]
fn field<'a>(text: &'a str, first: &str, title: &str) -> &'a str {
    let heading = text.lines().find(|line| line.contains(title)).unwrap();
    // Two blanks stand between headings: one of two words is one column.
    let mut titles = heading.split("  ").map(str::trim).filter(|t| !t.is_empty());
    let at = titles.position(|t| t == title).unwrap();
    row(text, first)[at]
}

/// What answers at the control socket of `FILE` as the test says.
struct Scripted {
    folder: Arc<Folder>,
}

impl Scripted {
    /// To each who connects, in turn, a reply for each call; then it closes.
    fn new(replies: Vec<Vec<String>>) -> Self {
        let folder = Folder::new();
        let text = FILE.replace("{dir}", folder.path().to_str().unwrap());
        fs::write(folder.join("udsd.toml"), text).unwrap();
        let listener = UnixListener::bind(folder.join("control.sock")).unwrap();
        thread::spawn(move || {
            for replies in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut calls = BufReader::new(stream.try_clone().unwrap());
                for reply in replies {
                    calls.read_until(0, &mut Vec::new()).unwrap();
                    stream.write_all(format!("{reply}\0").as_bytes()).unwrap();
                }
            }
        });
        Self { folder }
    }

    fn udsc(&self, line: &str) -> Udsc {
        let file = self.folder.join("udsd.toml");
        Udsc::start(&format!("--config {} {line}", file.display()))
    }
}

#[test]
fn status_says_how_the_daemon_and_its_sockets_are() {
    let daemon = Daemon::start(FILE);
    let client = daemon.connect("echo");
    round_trip(&client, b"hello\n");
    let ended = end(&daemon, "status").code(0);
    let text = ended.text();
    let first = text.lines().next().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let pid = daemon.pid().as_raw_nonzero();
    assert!(first.starts_with(&format!("udsd {version}, pid {pid}, running for ")));
    let file = daemon.path("udsd.toml").display().to_string();
    assert_eq!(row(text, "file"), ["file", &file]);
    assert_eq!(row(text, "clients")[1], "1");
    assert!(
        !text.contains("problem") && !text.contains('\x1b'),
        "{text}"
    );
    assert_eq!(field(text, "echo", "MESSAGES"), "1");
    assert_eq!(field(text, "echo", "BYTES"), "6B");
    assert_eq!(field(text, "bus", "SERVICE"), "relay");
    assert_eq!(field(text, "log", "TYPE"), "datagram");

    let [status, echo, ..] = &objects(&end(&daemon, "status --json").code(0))[..] else {
        panic!("too few lines");
    };
    assert_eq!(
        (&status["pid"], &status["clients"]),
        (&pid.get().into(), &1.into())
    );
    assert_eq!(echo["name"], "echo");
    assert_eq!(echo["counters"]["messages"], 1);
}

#[test]
fn status_says_why_a_client_was_refused_and_another_closed() {
    let daemon = Daemon::start(FILE);
    let clients: Vec<UnixStream> = (0..4).map(|_| daemon.connect("echo")).collect();
    for client in &clients {
        round_trip(client, b"x\n");
    }
    assert!(read_until_closed(&daemon.connect("bus")).is_empty());
    (&clients[0]).write_all(b"longer than sixteen\n").unwrap();
    assert!(read_until_closed(&clients[0]).is_empty());
    let ended = end(&daemon, "status").code(0);
    let text = ended.text();
    assert_eq!(field(text, "bus", "REFUSED"), "1");
    assert_eq!(field(text, "echo", "CLOSED"), "1");
    // The line of the log, with how long ago that was.
    let ago = |about: &str| {
        let mut lines = text.lines();
        lines.any(|line| line.contains(" ago ") && line.contains(about))
    };
    assert!(ago("limits.clients-per-user = 4"), "{text}");
    assert!(ago("message-size = 16"), "{text}");

    let ended = end(&daemon, "status bus").code(0);
    assert!(ended.text().contains("\nbus  "), "{}", ended.text());
    assert!(!ended.text().contains("echo"), "{}", ended.text());
    end(&daemon, "status nix")
        .code(1)
        .printed("")
        .complained("udsd has no socket nix");
}

#[test]
fn clients_are_shown_with_what_they_send_and_sorted() {
    let daemon = Daemon::start(FILE);
    let [quiet, loud] = [daemon.connect("echo"), daemon.connect("echo")];
    round_trip(&quiet, b"x\n");
    for _ in 0..3 {
        round_trip(&loud, b"hello\n");
    }
    let on_bus = daemon.connect("bus");
    let shown = |line: &str| {
        let ended = end(&daemon, line).code(0);
        let lines = ended.text().lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(shown("clients").len(), 3);
    assert_eq!(shown("clients -s echo").len(), 2);
    let user = if rustix::process::geteuid().is_root() {
        "root".into()
    } else {
        rustix::process::geteuid().to_string()
    };
    let sorted = shown(&format!("clients -s echo --user {user} --sort messages-in"));
    assert!(sorted[0].contains(" 3 18B 3 18B 0 -"), "{sorted:?}");
    assert!(sorted[1].contains(" 1 2B 1 2B 0 -"), "{sorted:?}");
    assert_eq!(shown("clients --user 4000000001"), [""; 0]);

    let clients = objects(&end(&daemon, "clients --json --sort bytes-out").code(0));
    assert_eq!(clients.len(), 3);
    assert_eq!(
        (&clients[0]["messages_in"], &clients[0]["socket"]),
        (&3.into(), &"echo".into())
    );
    assert_eq!(clients[0]["uid"], rustix::process::geteuid().as_raw());
    if rustix::process::geteuid().is_root() {
        assert_eq!(clients[0]["user"], "root");
    }
    drop(on_bus);

    end(&daemon, "clients -s nix")
        .code(1)
        .complained("udsd has no socket nix");
    end(&daemon, "clients --user no-such-user-here")
        .code(1)
        .complained("there is no user no-such-user-here");
    end(&daemon, "-s echo status")
        .code(2)
        .complained("this command asks the daemon, and not one of its sockets: leave out --socket");
    end(&daemon, "clients --type stream")
        .code(2)
        .complained("this command asks the daemon, and not one of its sockets: leave out --type");
}

#[test]
fn disconnect_ends_one_client() {
    let daemon = Daemon::start(FILE);
    let [one, other] = [daemon.connect("echo"), daemon.connect("echo")];
    round_trip(&one, b"x\n");
    round_trip(&other, b"y\n");
    let clients = objects(&end(&daemon, "clients --json").code(0));
    end(&daemon, &format!("disconnect {}", clients[0]["id"]))
        .code(0)
        .printed("");
    assert!(read_until_closed(&one).is_empty());
    round_trip(&other, b"y\n");
    let absent = "there is no client 4000000000: it may have left";
    end(&daemon, "disconnect 4000000000")
        .code(1)
        .complained(absent);
    // With --json a failure is told as without it.
    let ended = end(&daemon, "disconnect 4000000000 --json").code(1);
    ended.printed("").complained(absent);
    let line = format!("disconnect {} --json", clients[1]["id"]);
    let ended = end(&daemon, &line).code(0);
    assert_eq!(objects(&ended), [json!({"id": clients[1]["id"]})]);
    assert!(read_until_closed(&other).is_empty());
    end(&daemon, "disconnect one").code(2);
}

#[test]
fn reload_brings_the_file_into_force_or_prints_its_faults() {
    let daemon = Daemon::start(FILE);
    daemon.write_config(&FILE.replace("\"16B\"", "\"32B\""));
    end(&daemon, "reload").code(0).printed("");
    round_trip(&daemon.connect("echo"), b"longer than sixteen\n");

    let broken = FILE.replace("\"16B\"", "16.5");
    daemon.write_config(&broken);
    let complaints = end(&daemon, "reload").code(1).printed("").complaints();
    let [fault, outcome] = &complaints[..] else {
        panic!("{complaints:?}");
    };
    let place = format!(
        "udsc: {}:11: socket.echo.message-size: ",
        daemon.path("udsd.toml").display()
    );
    assert!(fault.starts_with(&place), "{fault}");
    assert_eq!(outcome, "udsc: udsd did not reload, and serves as before");
    let ended = end(&daemon, "reload --json").code(1);
    let faults = objects(&ended);
    assert_eq!(
        (&faults[0]["line"], &faults[0]["key"]),
        (&11.into(), &"socket.echo.message-size".into())
    );
    assert_eq!(faults.len(), 1);
    ended.complained("udsd did not reload, and serves as before");

    let ended = end(&daemon, "status").code(0);
    assert!(row(ended.text(), "problem").contains(&"socket.echo.message-size:"));
    round_trip(&daemon.connect("echo"), b"longer than sixteen\n");
}

#[test]
fn reload_tells_all_that_is_wrong_and_not_only_the_first() {
    let daemon = Daemon::start(FILE);
    let broken = FILE
        .replace("/log.json", "/none/log.json")
        .replace(
            "service = \"relay\"",
            "service = \"relay\"\nuser = \"nobody-has-this-name\"",
        )
        .replace("path = \"{dir}/echo\"", "path = \"{dir}/none/echo\"");
    daemon.write_config(&broken);
    let faults = objects(&end(&daemon, "reload --json").code(1));
    let keys: Vec<&Value> = faults.iter().map(|fault| &fault["key"]).collect();
    let expected = [
        "socket.echo.path",
        "socket.bus.user",
        "socket.log.record.file",
    ];
    assert_eq!(keys, expected, "{faults:#?}");
    assert_eq!(faults[0]["line"], 9);
    // As often as they are there.
    let complaints = end(&daemon, "reload").code(1).complaints();
    assert_eq!(complaints.len(), 4, "{complaints:#?}");
    round_trip(&daemon.connect("echo"), b"as before\n");
}

#[test]
fn the_daemon_of_a_file_that_cannot_be_parsed_is_asked_where_it_can_be_found() {
    let daemon = Daemon::start(FILE);
    let broken = |text: &str| text.to_owned() + "\n[[[";
    daemon.write_config(&broken(FILE));
    let complaints = end(&daemon, "reload").code(1).complaints();
    let file = daemon.path("udsd.toml");
    let line = format!("udsc: {}:24: not TOML", file.display());
    assert!(complaints[0].starts_with(&line), "{complaints:#?}");
    assert_eq!(
        complaints[1],
        "udsc: udsd did not reload, and serves as before"
    );
    end(&daemon, "status").code(0);

    // Where the file no longer says it, and where it leads to the daemon of another file.
    let other = Daemon::start(FILE);
    let to_other = other.folder().path().to_str().unwrap();
    for text in [
        "[[[".into(),
        broken(FILE).replace("{dir}/control", &format!("{to_other}/control")),
    ] {
        daemon.write_config(&text);
        let complaints = end(&daemon, "reload").code(1).complaints();
        let [why, remedy] = &complaints[..] else {
            panic!("{complaints:#?}");
        };
        assert!(
            why.contains("udsd.toml") && why.contains("not TOML"),
            "{why}"
        );
        assert!(remedy.contains("--system or --user"), "{remedy}");
    }
}

#[test]
fn metrics_are_printed_or_replace_a_file() {
    let text = "# TYPE udsd_messages counter\n# EOF\n";
    let reply = json!({"parameters": {"text": text}}).to_string();
    let daemon = Scripted::new(vec![vec![reply.clone()], vec![reply.clone()], vec![reply]]);
    daemon.udsc("metrics").end().code(0).printed(text);

    let file = daemon.folder.join("udsd.prom");
    fs::write(&file, "old").unwrap();
    let before = fs::File::open(&file).unwrap();
    let line = format!("metrics --output {}", file.display());
    daemon.udsc(&line).end().code(0).printed("");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    // Who had it open reads the old one to its end.
    let mut old = String::new();
    (&before).read_to_string(&mut old).unwrap();
    assert_eq!(old, "old");
    let names = fs::read_dir(daemon.folder.path()).unwrap();
    let mut names = names.map(|name| name.unwrap().file_name());
    assert!(!names.any(|name| name.to_string_lossy().contains(".new")));

    let nowhere = daemon.folder.join("nowhere/x");
    let line = format!("metrics --output {}", nowhere.display());
    daemon.udsc(&line).end().code(1).complained(&format!(
        "{} cannot be written: No such file or directory",
        nowhere.display()
    ));
}

const DOWN: &str = "# HELP udsd_up 1 where udsd answered at its control socket, else 0.\n\
                    # TYPE udsd_up gauge\nudsd_up 0\n# EOF\n";

#[test]
fn no_metrics_of_before_stay_where_udsd_does_not_run() {
    let daemon = Daemon::start(FILE);
    let folder = Arc::clone(daemon.folder());
    let (config, file) = (folder.join("udsd.toml"), folder.join("udsd.prom"));
    let (config, output) = (config.display(), file.display());
    let line = format!("--config {config} metrics --output {output}");
    Udsc::start(&line).end().code(0);
    let up = fs::read_to_string(&file).unwrap();
    assert!(up.contains("\nudsd_up 1\n"), "{up}");
    drop(daemon);
    Udsc::start(&line).end().code(1);
    assert_eq!(fs::read_to_string(&file).unwrap(), DOWN);
}

/// Whoever asks is not kept: neither by an answer that does not come, nor where nobody is let in.
#[test]
fn a_daemon_that_hangs_is_not_waited_for_without_end() {
    let folder = Folder::new();
    let text = FILE.replace("{dir}", folder.path().to_str().unwrap());
    fs::write(folder.join("udsd.toml"), text).unwrap();
    let path = folder.join("control.sock");
    let hung = UnixListener::bind(&path).unwrap();
    listen(&hung, 0).unwrap();
    let start = |line: &str| {
        let config = folder.join("udsd.toml");
        Udsc::start(&format!("--config {} {line}", config.display()))
    };
    let file = folder.join("udsd.prom");
    fs::write(&file, "udsd_up 1\n").unwrap();
    let mut asking = start(&format!("metrics --output {}", file.display()));
    let _asking = hung.accept().unwrap();
    // Now as many wait as may.
    let _waiting = UnixStream::connect(&path).unwrap();
    let mut connecting = start("status");
    asking.end().code(1).complained(&format!(
        "{}: udsd does not answer: nothing came for 5s; it hangs, or is stopped",
        path.display()
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), DOWN);
    connecting.end().code(1).complained(&format!(
        "cannot connect to {}: udsd lets nobody in for 5s; it hangs, or is stopped",
        path.display()
    ));
}

#[test]
fn status_says_which_record_is_behind_and_why() {
    let record = |behind: Value, error: Value| {
        json!({"name": "/log/a", "open": true, "seq": 9, "messages_written": 9, "bytes_written": 99,
            "messages_waiting": 3, "bytes_waiting": 2048, "behind": behind, "error": error, "error_age": 240.0})
    };
    let socket = |name: &str, record: Value| {
        json!({"name": name, "path": "/run/a", "type": "datagram", "service": "collect", "framing": "none",
            "inherited": true, "draining": false, "clients": 0, "senders_waiting": 2, "counters": {},
            "record": record, "last": []})
    };
    let sockets = [
        socket("well", record(json!(0.1), Value::Null)),
        socket("slow", record(json!(12.0), Value::Null)),
        socket(
            "full",
            record(json!(300.0), json!("No space left on device")),
        ),
    ];
    let sockets = json!({"parameters": {"sockets": sockets}}).to_string();
    let limits =
        json!({"clients": 9, "clients_per_user": 5, "queue_per_user": 1024, "queue_total": 2048});
    let status = json!({"parameters": {"version": "1", "pid": 7, "age": 1.0, "config": [], "problem": null,
        "sockets": 3, "clients": 0, "held": 0, "limits": limits}});
    let daemon = Scripted::new(vec![vec![status.to_string(), sockets]]);
    let ended = daemon.udsc("status").end().code(0);
    let text = ended.text();
    let records = ["well", "slow", "full"].map(|name| row(text, name)[10..].join(" "));
    assert_eq!(records, ["ok", "12s behind", "FAILING"]);
    assert_eq!(row(text, "file"), ["file", "built-in"]);
    for line in [
        "/run/a, datagram, collect, from systemd",
        "/log/a, 12s behind, 3 messages (2KiB) wait for the disk",
        "/log/a, 5min behind, 3 messages (2KiB) wait for the disk, 4min ago: No space left on device",
        "2 senders, for room in the record or with receivers",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_tap_prints_what_passes_and_ends_after_so_many() {
    let daemon = Daemon::start(FILE);
    let [sender, receiver] = [daemon.connect("bus"), daemon.connect("bus")];
    let mut tap = udsc(&daemon, "tap bus --json");
    let mut lines = BufReader::new(tap.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // It is open.
    assert_eq!(next()["message"], Value::Null);
    (&sender).write_all(b"a\tb\n").unwrap();
    let tapped = next();
    let message = &tapped["message"];
    assert_eq!(
        (&message["message"], &message["receivers"]),
        (&"a\tb".into(), &1.into())
    );
    assert_eq!(message["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(tapped["missed"], 0);

    let mut line = [0; 4];
    (&receiver).read_exact(&mut line).unwrap();
    let mut text = udsc(&daemon, "tap bus --count 2");
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| text.end());
        // Until it has seen two: it may not be open yet.
        while !ended.is_finished() {
            (&sender).write_all(b"a\tb\n").unwrap();
            (&receiver).read_exact(&mut line).unwrap();
        }
        ended.join().unwrap()
    });
    let ended = ended.code(0);
    let lines: Vec<&str> = ended.text().lines().collect();
    assert_eq!(lines.len(), 2);
    let own = std::process::id();
    assert!(
        lines[0].contains(&format!("[{own}] client ")),
        "{}",
        lines[0]
    );
    assert!(lines[0].ends_with(" to 1: a\\tb"), "{}", lines[0]);

    end(&daemon, "tap nix")
        .code(1)
        .complained("udsd has no socket nix");
    end(&daemon, "tap log --unit nginx").code(1).complained(
        "the units of those who send to socket log are not known, for they send datagrams: leave out --unit",
    );
}

#[test]
fn a_tap_ends_with_the_daemon() {
    let mut daemon = Daemon::start(FILE);
    let mut tap = udsc(&daemon, "tap log --json");
    let mut out = BufReader::new(tap.child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"hello", daemon.path("log")).unwrap();
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"message\":\"hello\""), "{line}");
    daemon.stop();
    tap.child.stdout = Some(out.into_inner());
    let control = daemon.path("control.sock");
    tap.end().code(1).complained(&format!(
        "{}: no more comes: the socket is gone, or udsd stops",
        control.display()
    ));
}

#[test]
fn a_tap_goes_on_over_a_restart() {
    let daemon = Setup::new().config(FILE).keeping().start();
    let mut tap = udsc(&daemon, "tap log --json");
    let mut out = BufReader::new(tap.child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let next = daemon.restart(|setup| setup.config(FILE));
    end(&next, "status").code(0);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"hello", next.path("log")).unwrap();
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"message\":\"hello\""), "{line}");
}

#[test]
fn a_daemon_that_does_not_run_is_told_and_not_started() {
    let folder = Folder::new();
    let file = folder.join("udsd.toml");
    let text = FILE.replace("{dir}", folder.path().to_str().unwrap());
    fs::write(&file, &text).unwrap();
    let (file, control) = (file.display(), folder.join("control.sock"));
    let absent = format!(
        "udsd of this file is not running: nobody listens at {}; start it: udsd --config {file}; if it runs, and the file has had another daemon.control, send it SIGHUP",
        control.display()
    );
    for line in [
        "status",
        "clients",
        "disconnect 1",
        "reload",
        "metrics",
        "tap log",
    ] {
        let ended = Udsc::start(&format!("--config {file} {line}")).end();
        ended.code(1).printed("").complained(&absent);
    }
    // A dead socket is as none.
    drop(UnixListener::bind(&control).unwrap());
    let ended = Udsc::start(&format!("--config {file} status")).end();
    ended.code(1).complained(&absent);

    let control = folder.join("control.sock").display().to_string();
    fs::write(folder.join("udsd.toml"), text.replace(&control, "")).unwrap();
    let ended = Udsc::start(&format!("--config {file} status")).end();
    ended.code(1).complained(&format!(
        "udsd of this file is not running: it has no control socket (daemon.control = \"\"); start it: udsd --config {file}; if it runs, and the file has had another daemon.control, send it SIGHUP"
    ));
}

#[test]
fn a_user_without_access_is_told_what_to_do() {
    if !is_root() {
        return;
    }
    // The daemon is root's; who asks is nobody.
    let user = User::new("[socket.a]\npath = \"{dir}/a\"\n");
    let setup = |text: &str| {
        let control = format!("[daemon]\ncontrol = \"{{dir}}/udsd/control.sock\"\n{text}");
        format!("{control}[socket.a]\npath = \"{{dir}}/a\"\n")
    };
    let daemon = Setup::within(user.folder.clone())
        .config(&setup(""))
        .start();
    let control = user.path("udsd/control.sock");
    user.udsc("clients").end().code(1).complained(&format!(
        "{control}: udsd closed the connection without an answer: root, udsd's own user and those of \
         daemon.control-users and daemon.control-groups may ask: try sudo, or have one of those keys admit you"
    ));
    daemon.reload_with(&setup("control-users = [\"4000000011\"]\n"));
    user.udsc_of(4_000_000_011, "clients").end().code(0);
    user.udsc_of(4_000_000_011, "status").end().code(0);
    for line in ["disconnect 1", "reload", "tap bus"] {
        user.udsc_of(4_000_000_011, line).end().code(1).complained(
            "udsd does not let you: only root and its own user may disconnect, reload and tap; try sudo",
        );
    }
}

#[test]
fn who_finds_no_place_is_told_and_it_is_counted() {
    let daemon = Daemon::start(FILE);
    let control = daemon.path("control.sock");
    let mut callers: Vec<Caller> = (0..32).map(|_| Caller::new(&control)).collect();
    callers.iter_mut().for_each(|of| {
        of.ask("Status", json!({}));
    });
    for line in ["status", "clients --json", "reload", "tap bus"] {
        end(&daemon, line).code(1).printed("").complained(
            "udsd lets nobody more in to ask: 32 callers of your user are connected, and no more may be; \
             try again in a minute, when it has let go of who asks nothing, or find who asks with \
             udsc -s daemon.control clients, as another user who may ask, and end some with \
             udsc disconnect ID, as root",
        );
    }
    let told = callers[0].ask("Metrics", json!({}));
    let refused = "udsd_refused_total{socket=\"daemon.control\",reason=\"clients_per_user\"} 4\n";
    assert!(told["text"].as_str().unwrap().contains(refused), "{told}");
    callers.clear();
    // They leave when udsd has seen it.
    let status = loop {
        let ended = end(&daemon, "status");
        if ended.text() != "" {
            break ended.code(0);
        }
    };
    let text = status.text();
    let (table, details) = text.split_once("\ndaemon.control  ").unwrap();
    assert!(!table.contains("daemon.control"), "{text}");
    assert!(details.contains("control.sock, stream, control"), "{text}");
    assert!(details.contains("(clients-per-user)"), "{text}");
    assert!(details.contains(" ago "), "{text}");
    let ended = end(&daemon, "status daemon.control").code(0);
    assert_eq!(
        field(ended.text(), "daemon.control", "SERVICE"),
        "control",
        "{}",
        ended.text()
    );
    let all = objects(&end(&daemon, "status --json").code(0));
    assert_eq!(all.last().unwrap()["name"], "daemon.control");
}

#[test]
fn a_server_that_says_nothing_sensible_is_told() {
    let answers = ["nonsense", "{\"parameters\":{}}", "{\"error\":\"a.B\"}"];
    let mut replies: Vec<Vec<String>> = answers.map(|answer| vec![answer.into()]).into();
    replies.push(Vec::new());
    let daemon = Scripted::new(replies);
    let strange = "an answer that this udsc does not understand";
    for words in [
        strange,
        strange,
        "udsd says a.B null",
        "closed the connection",
    ] {
        let said = daemon.udsc("metrics").end().code(1).complaints().concat();
        assert!(said.contains(words), "{said}");
    }
}
