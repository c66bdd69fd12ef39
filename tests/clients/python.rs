//! Python: `logging.handlers.SysLogHandler`, which ends messages with NUL whatever is inside, and a
//! script with a socket.

use std::process::Command;

use crate::{
    Program,
    harness::{Daemon, has_program},
    messages, records, run, socket,
};

/// Logs messages of several kinds and then as many numbered ones as it reads. Which type the socket
/// has, SysLogHandler finds out itself where it is not told.
const LOG: &str = r#"
import logging, logging.handlers, os, socket, sys
path, kind = sys.argv[1:]
kinds = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "any": None}
handler = logging.handlers.SysLogHandler(path, socktype=kinds[kind])
handler.ident = "app: "
logging.raiseExceptions = True
handler.handleError = lambda record: os._exit(9)
log = logging.getLogger()
log.addHandler(handler)
log.setLevel(logging.DEBUG)
log.info("plain")
log.error("two\nlines")
log.debug("")
log.warning("Grüße, 世界 \U0001f980")
for i in range(int(sys.stdin.readline())):
    log.critical("number %d", i)
handler.close()
"#;

/// What LOG sends first, as its records hold it.
const FIRST: [&str; 4] = [
    "<14>app: plain",
    "<11>app: two\nlines",
    "<15>app: ",
    "<12>app: Grüße, 世界 \u{1f980}",
];

fn logging(daemon: &Daemon, kind: &str) -> Program {
    let mut python = Command::new("python3");
    python.args(["-c", LOG]).arg(daemon.path("p")).arg(kind);
    Program::start(&mut python)
}

fn all_recorded(keys: &str, kind: &str) {
    if !has_program("python3") {
        return;
    }
    let daemon = Daemon::start(&socket("p", &format!("service = \"collect\"\n{keys}")));
    let ended = logging(&daemon, kind).finish(b"300\n");
    let records = records(&daemon, 304);
    for record in &records {
        assert_eq!(record["pid"], ended.pid, "{record}");
        assert_eq!(record["uid"], rustix::process::getuid().as_raw());
        assert!(record["truncated"].is_null());
    }
    let messages = messages(&records);
    assert_eq!(messages[..4], FIRST);
    for (i, message) in messages[4..].iter().enumerate() {
        assert_eq!(*message, format!("<10>app: number {i}"));
    }
}

#[test]
fn its_handler_logs_in_datagrams() {
    all_recorded("type = \"datagram\"\nframing = \"syslog\"", "datagram");
}

#[test]
fn its_handler_finds_a_datagram_socket() {
    all_recorded("type = \"datagram\"\nframing = \"syslog\"", "any");
}

#[test]
fn its_handler_logs_over_a_stream() {
    all_recorded("framing = \"nul\"", "stream");
}

#[test]
fn its_handler_finds_a_stream_socket() {
    all_recorded("framing = \"nul\"", "any");
}

#[test]
fn what_its_handler_sends_before_the_daemon_looks_is_one_read_and_many_records() {
    if !has_program("python3") {
        return;
    }
    let daemon = Daemon::start(&socket("p", "service = \"collect\"\nframing = \"nul\""));
    daemon.halt();
    // It ends before the daemon goes on. Not all 300: each write of a stream counts for more than
    // 700 bytes of what the kernel lets wait.
    logging(&daemon, "stream").finish(b"200\n");
    daemon.resume();
    let records = records(&daemon, 204);
    assert_eq!(messages(&records)[..4], FIRST);
    // Records of one read have one time.
    let times = records
        .iter()
        .map(|record| record["time"].as_str().unwrap());
    let times: std::collections::BTreeSet<&str> = times.collect();
    assert_eq!(times.len(), 1, "{times:?}");
}

#[test]
fn a_script_sends_all_then_reads_sixteen_bytes_at_a_time() {
    if !has_program("python3") {
        return;
    }
    let daemon = Daemon::start(&socket("p", ""));
    let program = "
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.settimeout(60)
sock.connect(sys.argv[1])
message = b'This is the message.  It will be repeated.'
sock.sendall(message)
received = b''
while len(received) < len(message):
    data = sock.recv(16)
    assert data, 'end of file'
    received += data
sock.close()
sys.stdout.buffer.write(received)
";
    let mut python = Command::new("python3");
    python.args(["-c", program]).arg(daemon.path("p"));
    assert_eq!(
        run(&mut python, b"").stdout,
        b"This is the message.  It will be repeated."
    );
}
