//! nginx writes its access log into a datagram socket. It never waits and never sends again: what
//! finds no room is lost. So each request is logged twice, to a bare recvmmsg loop and to udsd, and
//! where the loop has got all, udsd must have.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixDatagram,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::{
    Program, compile, follow,
    harness::{Daemon, Folder, HANG, Setup, Signal, has_program, is_root},
    open_to_all, socket,
};

/// Receives until a datagram "end" comes; then prints how many came before.
const FLOOR: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    static char bytes[64][4096];
    struct iovec parts[64];
    struct mmsghdr messages[64] = { 0 };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    long count = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod(argv[1], 0666) < 0) {
        perror("bind");
        return 1;
    }
    for (int i = 0; i < 64; i++) {
        parts[i] = (struct iovec) { bytes[i], sizeof bytes[i] };
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = recvmmsg(fd, messages, 64, MSG_WAITFORONE, NULL);
        if (n < 0) {
            perror("recvmmsg");
            return 1;
        }
        for (int i = 0; i < n; i++) {
            if (messages[i].msg_len == 3 && memcmp(bytes[i], "end", 3) == 0) {
                printf("%ld\n", count);
                return 0;
            }
            count++;
        }
    }
}
"#;

/// Two workers, each request logged to `floor` and to `log`, with the pid that serves it, the
/// connection that brought it, its number on that and what it asked for.
const NGINX: &str = "
daemon off;
pid {dir}/nginx.pid;
lock_file {dir}/nginx.lock;
error_log stderr notice;
worker_processes 2;
user daemon daemon;
events { worker_connections 64; }
http {
    client_body_temp_path {dir}/temp-body;
    proxy_temp_path {dir}/temp-proxy;
    fastcgi_temp_path {dir}/temp-fastcgi;
    uwsgi_temp_path {dir}/temp-uwsgi;
    scgi_temp_path {dir}/temp-scgi;
    log_format request '$pid $connection $connection_requests $request_uri';
    access_log syslog:server=unix:{dir}/floor,tag=web request;
    access_log syslog:server=unix:{dir}/log,tag=web request;
    keepalive_requests 1000000;
    server {
        listen unix:{dir}/http;
        location / { return 204; }
    }
}
";

/// Clients of nginx, each with a connection of its own.
const CLIENTS: usize = 4;
/// Requests of each.
const REQUESTS: usize = 5_000;

/// Has the kernel let as many datagrams wait as udsd asks for, in a network namespace of its own.
const ROOM: [&str; 6] = [
    "unshare",
    "--net",
    "sh",
    "-c",
    "echo 512 >/proc/sys/net/unix/max_dgram_qlen && exec \"$@\"",
    "sh",
];

/// Has a receiver go before all others where it has something to do: what they take from it is no
/// fault of its own.
const FIRST: [&str; 3] = ["chrt", "--fifo", "1"];

/// Whether this machine lets a program be started so.
fn is_allowed(command: &[&str]) -> bool {
    let mut run = Command::new(command[0]);
    run.args(&command[1..]).arg("true");
    run.output().is_ok_and(|output| output.status.success())
}

/// nginx and its workers. Stopped when dropped, as whoever kills the one leaves the others.
struct Nginx {
    master: Program,
    workers: Vec<u64>,
}

impl Nginx {
    fn start(folder: &Folder) -> Self {
        let path = folder.path().to_str().unwrap();
        let text = NGINX.replace("{dir}", path);
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p", path, "-c", "nginx.conf"]);
        let master = Program::start(&mut command);
        let mut nginx = Nginx {
            master,
            workers: Vec::new(),
        };
        // It listens before it has workers.
        let stderr = nginx.master.child.stderr.take().unwrap();
        let mut log = BufReader::new(stderr);
        while nginx.workers.len() < 2 {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "nginx ended");
            if let Some((_, pid)) = line.trim_end().split_once("start worker process ") {
                nginx.workers.push(pid.parse().unwrap());
            } else {
                assert!(line.contains("[notice]"), "{line}");
            }
        }
        // What it says now is of no interest, but must go somewhere.
        drop(follow(Some(log)));
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.master.child), Signal::TERM);
        // One that does not is killed next.
        self.master.ends();
    }
}

/// Sends requests one after the other, each at least `span` after the one before, and reads the
/// answers.
fn request(daemon: &Daemon, client: usize, span: Duration) {
    let stream = daemon.connect("http");
    let mut answers = BufReader::new(&stream);
    let mut due = Instant::now();
    for n in 0..REQUESTS {
        // The rate of the load; nothing is waited for.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += span;
        write!(&stream, "GET /{client}/{n} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 204 "), "{line}");
        while line != "\r\n" {
            line.clear();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0);
        }
    }
}

/// What a round brought.
struct Round {
    /// How many the loop received.
    floor: usize,
    records: Vec<Value>,
    workers: Vec<u64>,
    /// How long the requests took.
    took: Duration,
}

/// Sends all requests and has them logged into the loop and into udsd, each started by `receiver`.
fn round(span: Duration, receiver: &[&str]) -> Round {
    let setup = Setup::new();
    let folder = Arc::clone(setup.folder());
    open_to_all(&folder);
    compile(&folder, "loop", FLOOR);
    let keys = "type = \"datagram\"\nservice = \"collect\"\nframing = \"syslog\"";
    let setup = setup.config(&socket("log", keys)).wrapper(receiver);
    let daemon = setup.start();
    let mut floor = Command::new("env");
    floor
        .args(receiver)
        .args([folder.join("loop"), folder.join("floor")]);
    let mut floor = Program::start(&mut floor);
    assert_eq!(floor.line(), "ready");
    let nginx = Nginx::start(&folder);
    let workers = nginx.workers.clone();
    let begin = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let daemon = &daemon;
            scope.spawn(move || request(daemon, client, span));
        }
    });
    let took = begin.elapsed();
    // It has logged everything when it is gone.
    drop(nginx);
    let last = UnixDatagram::unbound().unwrap();
    last.set_write_timeout(Some(HANG)).unwrap();
    for name in ["floor", "log"] {
        // Behind all others; it waits for room.
        assert_eq!(last.send_to(b"end", folder.join(name)).unwrap(), 3);
    }
    let floor = floor.line().parse().unwrap();
    let output = daemon.wait_for("last record", |said| {
        let ended = said.output.ends_with(b"\"message\":\"end\"}\n");
        ended.then(|| said.output.clone())
    });
    let lines = std::str::from_utf8(&output).unwrap().lines();
    let mut records: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    records.pop();
    Round {
        floor,
        records,
        workers,
        took,
    }
}

/// A number of `daemon`, whom nginx' workers run as: "-u" or "-g" (`id(1)`).
fn number_of_daemon(option: &str) -> u32 {
    let output = Command::new("id").args([option, "daemon"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn what_a_bare_loop_gets_of_its_access_log_is_recorded_with_the_workers_pid_and_uid() {
    let needed = ["nginx", "gcc"];
    if !is_root() || !needed.into_iter().all(has_program) {
        return;
    }
    const ALL: usize = CLIENTS * REQUESTS;
    let mut receiver = Vec::new();
    let first = is_allowed(&FIRST);
    if first {
        receiver.extend(FIRST);
    }
    if is_allowed(&ROOM) {
        receiver.extend(ROOM);
    }
    let mut span = Duration::ZERO;
    let found = loop {
        let found = round(span, &receiver);
        // Where the two do not go first, one may be kept waiting while the other is not.
        if found.floor == ALL && (first || found.records.len() == ALL) {
            break found;
        }
        // More than this machine can take now: half as many a second.
        let requests = u32::try_from(REQUESTS).unwrap();
        span = found.took / requests * 2;
        assert!(
            span < Duration::from_millis(10),
            "of few requests the loop loses {} too, and udsd {}",
            ALL - found.floor,
            ALL - found.records.len()
        );
    };
    let Round {
        records, workers, ..
    } = found;
    let lost = ALL.saturating_sub(records.len());
    assert_eq!(lost, 0, "of {ALL} requests, all of which the loop got");
    let (uid, gid) = (number_of_daemon("-u"), number_of_daemon("-g"));
    let mut requests = HashSet::new();
    let mut last: HashMap<(u64, u64), u64> = HashMap::new();
    for record in &records {
        let message = record["message"].as_str().unwrap();
        let mut words = message.rsplitn(5, ' ');
        let uri = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let (nth, connection, pid) = (number(), number(), number());
        let start = words.next().unwrap();
        assert!(
            start.starts_with("<190>") && start.ends_with(" web:"),
            "{message}"
        );
        assert!(workers.contains(&pid));
        assert_eq!(record["pid"], pid);
        assert_eq!((&record["uid"], &record["gid"]), (&uid.into(), &gid.into()));
        assert!(requests.insert(uri), "{uri} twice");
        let before = last.insert((pid, connection), nth).unwrap_or(0);
        assert_eq!(nth, before + 1, "{message}");
    }
    for client in 0..CLIENTS {
        assert!((0..REQUESTS).all(|n| requests.contains(format!("/{client}/{n}").as_str())));
    }
}
