//! Promise: relay brings every message whole to all other clients, in one order, and each sender's
//! in its own; what happens to who does not read is what `slow-client` says, and nobody else loses
//! anything by it.
//!
//! `UDSD_TEST_LINES=10000 cargo test --release --test relay` has each of the hundred say that much.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    cell::RefCell,
    env,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use harness::{Daemon, read_all, read_n, write_until_full};

const CLIENTS: usize = 100;

/// What each of them says, in lines of nine bytes.
fn lines_each(default: usize) -> usize {
    env::var("UDSD_TEST_LINES").map_or(default, |lines| lines.parse().unwrap())
}

fn relay(keys: &str) -> Daemon {
    // A hundred full queues of one user fit: what is tried here is the limit of one client.
    Daemon::start(&format!(
        "[limits]\nqueue-per-user = \"256MiB\"\n[socket.r]\npath = \"{{dir}}/r\"\nservice = \"relay\"\nframing = \"lines\"\n{keys}\n"
    ))
}

/// A number of decimal digits.
fn number(digits: &[u8]) -> usize {
    digits.iter().fold(0, |sum, digit| {
        assert!(digit.is_ascii_digit(), "no number: {digits:?}");
        sum * 10 + usize::from(digit - b'0')
    })
}

/// What a client has heard: the next number that each of the others has to say.
struct Heard {
    next: Vec<usize>,
    count: usize,
}

impl Heard {
    fn new() -> Self {
        Heard {
            next: vec![0; CLIENTS],
            count: 0,
        }
    }

    /// `said`: "who:which", both of fixed width.
    fn hear(&mut self, said: &[u8]) {
        let (who, which) = (number(&said[..2]), number(&said[3..8]));
        let next = &mut self.next[who];
        assert!(
            which == *next,
            "client {who} says {which} in place of {next}"
        );
        *next += 1;
        self.count += 1;
    }
}

/// Cuts what a client reads into lines, until `line` has enough; tells `pause` after each read.
fn each_line(stream: &mut impl Read, mut line: impl FnMut(&[u8]) -> bool, mut pause: impl FnMut()) {
    let mut buffer = vec![0; 256 * 1024];
    let mut held = 0;
    loop {
        let n = stream.read(&mut buffer[held..]).unwrap();
        assert!(n > 0, "an end in the middle");
        let end = held + n;
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &buffer[start..end]) {
            if !line(&buffer[start..start + length]) {
                return;
            }
            start += length + 1;
        }
        buffer.copy_within(start..end, 0);
        held = end - start;
        pause();
    }
}

/// How far a client has heard all others, for its speaker, who waits for that.
struct Progress {
    speaker: thread::Thread,
    heard: Arc<AtomicUsize>,
}

impl Progress {
    fn tell(&self, heard: usize) {
        self.heard.store(heard, Ordering::Relaxed);
        self.speaker.unpark();
    }
}

impl Drop for Progress {
    /// Also where it failed: nobody waits for it.
    fn drop(&mut self) {
        self.tell(usize::MAX);
    }
}

/// A hundred clients, all of whom have been let in.
fn hundred(daemon: &Daemon) -> Vec<UnixStream> {
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect("r")).collect();
    // Whoever came before this one is there when it is heard.
    let mut last = daemon.connect("r");
    last.write_all(b"?\n").unwrap();
    for client in &clients {
        let mut byte = [0];
        while byte != *b"\n" {
            (&mut &*client).read_exact(&mut byte).unwrap();
        }
    }
    clients
}

/// All of them say `lines` lines at once, each reading while it writes, and hear all that the others say. None
/// is more than `window` lines ahead of what it has heard of each of the others.
fn all_talk(
    clients: &[UnixStream],
    lines: usize,
    window: usize,
    message: impl Fn(&[u8]) -> &[u8] + Sync,
) {
    let all = (CLIENTS - 1) * lines;
    thread::scope(|scope| {
        for (me, stream) in clients.iter().enumerate() {
            let message = &message;
            let heard = Arc::new(AtomicUsize::new(0));
            let so_far = Arc::clone(&heard);
            let speaker = scope.spawn(move || {
                let mut said = 0;
                while said < lines {
                    let ahead = so_far.load(Ordering::Relaxed).saturating_add(window);
                    let end = lines.min(ahead).min(said + 500);
                    if said >= end {
                        thread::park();
                        continue;
                    }
                    let text = (said..end).map(|which| format!("{me:02}:{which:05}\n"));
                    (&mut &*stream)
                        .write_all(text.collect::<String>().as_bytes())
                        .unwrap();
                    said = end;
                }
            });
            let progress = Progress {
                speaker: speaker.thread().clone(),
                heard,
            };
            scope.spawn(move || {
                let ears = RefCell::new(Heard::new());
                each_line(
                    &mut &*stream,
                    |line| {
                        let mut ears = ears.borrow_mut();
                        ears.hear(message(line));
                        ears.count < all
                    },
                    || {
                        let next = &ears.borrow().next;
                        let others = next.iter().enumerate().filter(|&(who, _)| who != me);
                        progress.tell(others.map(|(_, &next)| next).min().unwrap());
                    },
                );
                assert_eq!(ears.borrow().next[me], 0, "client {me} hears itself");
            });
        }
    });
}

fn plain(line: &[u8]) -> &[u8] {
    line
}

/// The message of a stamped line.
fn stamped(line: &[u8]) -> &[u8] {
    assert!(line.starts_with(b"{\"time\":\"") && line.ends_with(b"\"}"));
    &line[line.len() - 10..line.len() - 2]
}

/// What the daemon says of its socket when it ends.
fn summary(mut daemon: Daemon) -> String {
    assert!(daemon.stop().success());
    daemon.wait_log(&["r: ", "messages of"])
}

#[test]
fn a_hundred_talk_while_one_does_not_read_until_the_log_names_it() {
    let lines = lines_each(2_000);
    let daemon = relay("");
    let mut lazy = daemon.connect("r");
    let clients = hundred(&daemon);
    thread::scope(|scope| {
        scope.spawn(|| {
            let line = daemon.wait_log(&["WARN", "client 1 ", "holds up the others"]);
            assert!(line.contains("socket.r.slow-timeout = 10s"), "{line}");
            read_n(&lazy, 2);
            let mut ears = Heard::new();
            let more = |line: &[u8]| {
                ears.hear(line);
                ears.count < CLIENTS * lines
            };
            each_line(&mut lazy, more, || {});
        });
        all_talk(&clients, lines, usize::MAX, plain);
    });
    let summary = summary(daemon);
    assert!(summary.contains(" 0 dropped"), "{summary}");
}

#[test]
fn a_hundred_talk_while_one_never_reads_and_is_disconnected() {
    let daemon = relay("slow-client = \"disconnect\"");
    let deaf = daemon.connect("r");
    let clients = hundred(&daemon);
    all_talk(&clients, lines_each(2_000), 400, plain);
    let line = daemon.wait_log(&["WARN", "client 1 ", "closed: did not read"]);
    assert!(line.contains("socket.r.queue-size = 1048576"), "{line}");
    // It got whole bytes of one order until then, and its end.
    let got = read_all(&deaf);
    assert!(got.len() > 100_000 && got.starts_with(b"?\n"));
    let summary = summary(daemon);
    assert!(summary.contains(" 0 dropped"), "{summary}");
}

#[test]
fn a_hundred_talk_while_one_does_not_read_and_is_told_its_gap() {
    let lines = lines_each(500);
    let daemon = relay("slow-client = \"drop\"\nstamp = true");
    let mut lazy = daemon.connect("r");
    let clients = hundred(&daemon);
    all_talk(&clients, lines, 30, stamped);
    // What it finds when it reads again: all in order, and in place of the rest how much that was.
    let all = 1 + CLIENTS * lines;
    let (mut seq, mut lost) = (0, 0);
    let more = |line: &[u8]| {
        let json: serde_json::Value = serde_json::from_slice(line).unwrap();
        if let Some(gap) = json.get("gap") {
            let count = gap["count"].as_u64().unwrap();
            let bytes = gap["bytes"].as_u64().unwrap();
            assert!(count > 0 && (100 * count..140 * count).contains(&bytes));
            lost += count;
            seq += count;
        } else {
            seq += 1;
            assert_eq!(json["seq"], seq);
        }
        seq < all as u64
    };
    each_line(&mut lazy, more, || {});
    assert!(lost > 0);
    let line = daemon.wait_log(&["WARN", "dropped", "client 1 "]);
    assert!(line.contains("socket.r.queue-size = 1048576"), "{line}");
    let summary = summary(daemon);
    assert!(summary.contains(&format!(" {lost} dropped")), "{summary}");
}

#[test]
fn who_shuts_down_its_sending_side_listens_on_and_may_go_unread() {
    let mut daemon = relay("");
    let (mut speaker, listener) = (daemon.connect("r"), daemon.connect("r"));
    (&mut &listener).write_all(b"the last").unwrap();
    listener.shutdown(Shutdown::Write).unwrap();
    // An unfinished line counts as one at the end, and gets its terminator.
    assert_eq!(read_n(&speaker, 9), b"the last\n");
    speaker.write_all(b"hear\n").unwrap();
    assert_eq!(read_n(&listener, 5), b"hear\n");
    drop(listener);
    // One that goes while it is being written to has said what it said.
    let mut hasty = daemon.connect("r");
    hasty.write_all(b"here\n").unwrap();
    assert_eq!(read_n(&speaker, 5), b"here\n");
    daemon.halt();
    speaker.write_all(b"there\n").unwrap();
    hasty.write_all(b"and gone\n").unwrap();
    drop(hasty);
    daemon.resume();
    assert_eq!(read_n(&speaker, 9), b"and gone\n");
    assert!(daemon.stop().success());
    assert_eq!(read_all(&speaker), b"");
}

#[test]
fn bytes_without_framing_pass_as_they_come() {
    let daemon = Daemon::ad_hoc(&["--service", "relay"]);
    let (mut first, mut second) = (daemon.connect("socket"), daemon.connect("socket"));
    // What the second is heard to say, it says as a member.
    second.write_all(&[0, 255, b'\n', 7]).unwrap();
    assert_eq!(read_n(&first, 4), [0, 255, b'\n', 7]);
    first.write_all(b"\n\n\0").unwrap();
    assert_eq!(read_n(&second, 3), b"\n\n\0");
}

#[test]
fn who_goes_with_a_full_queue_is_named_with_what_it_did_not_take() {
    let daemon = relay("queue-size = \"128KiB\"");
    let (deaf, mut speaker) = (daemon.connect("r"), daemon.connect("r"));
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    write_until_full(&speaker, &line.repeat(10_000), 300_000);
    speaker.set_nonblocking(false).unwrap();
    drop(deaf);
    let told = daemon.wait_log(&["WARN", "client 1 ", "hung up on what it was owed: "]);
    let number = told.rsplit(' ').nth(2).unwrap();
    speaker.write_all(b"\n").unwrap();
    drop(speaker);
    let summary = summary(daemon);
    assert!(
        summary.ends_with(&format!(" {number} undelivered")),
        "{summary}"
    );
}
