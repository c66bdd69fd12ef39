//! Promise: whatever a disk does for a while, a record lacks nothing that was acknowledged, senders wait or the record
//! tells what it lacks, and other sockets answer.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
    time::Instant,
};

use harness::{
    Daemon, HANG, Setup,
    faults::{Disk, can_mount, mounted},
    has_program, read_all, round_trip, skip,
};
use serde_json::Value;

/// More bytes than sockets and queues hold.
const MESSAGES: usize = 10_000;

/// One record of which senders wait, one that they do not wait for, and a socket without any.
const CONFIG: &str = r#"
[socket.echo]
path = "{dir}/echo"
[socket.waits]
path = "{dir}/waits"
service = "collect"
framing = "lines"
message-size = "1KiB"
ack = true
[socket.waits.record]
file = "{dir}/disk/waits"
sync = true
queue-size = "64KiB"
[socket.drops]
path = "{dir}/drops"
service = "collect"
framing = "lines"
message-size = "1KiB"
[socket.drops.record]
file = "{dir}/disk/drops"
on-full = "drop"
queue-size = "64KiB"
"#;

fn message(n: usize) -> String {
    format!("{n} {}", "x".repeat(100))
}

fn say(mut client: &UnixStream, numbers: std::ops::Range<usize>) {
    for n in numbers {
        client
            .write_all(format!("{}\n", message(n)).as_bytes())
            .unwrap();
    }
}

fn read_answers(answers: &mut impl BufRead, until: usize) {
    let last = format!("ok {until}\n");
    let mut line = String::new();
    while line != last {
        line.clear();
        assert!(answers.read_line(&mut line).unwrap() > 0);
    }
}

/// What the record says of messages that follow from number 0: how many stand there or are missing.
fn accounted(record: &Path) -> usize {
    let text = fs::read_to_string(record).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut next = 0;
    for line in whole.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        if let Some(count) = line["gap"]["count"].as_u64() {
            next += count as usize;
        } else {
            assert_eq!(line["message"], message(next), "{line}");
            next += 1;
        }
    }
    next
}

fn gaps(record: &Path) -> usize {
    let text = fs::read_to_string(record).unwrap();
    text.matches("\"gap\":").count()
}

/// What mends a disk, also where the test fails: who writes to a frozen one cannot be killed.
struct Mends<F: FnMut()>(F);

impl<F: FnMut()> Drop for Mends<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// `disk`: the folder of the records, as it is seen from here; it fails until what `fails` returns is dropped.
fn stands<M>(daemon: &Daemon, disk: &Path, fails: impl FnOnce() -> M) {
    let (waits, drops) = (disk.join("waits"), disk.join("drops"));
    let client = daemon.connect("waits");
    let mut answers = BufReader::new(client.try_clone().unwrap());
    say(&client, 0..10);
    read_answers(&mut answers, 10);
    thread::scope(|scope| {
        let fault = fails();
        let saying = scope.spawn(|| say(&client, 10..MESSAGES));
        let dropped = daemon.connect("drops");
        say(&dropped, 0..MESSAGES);
        dropped.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&dropped), b"");
        round_trip(&daemon.connect("echo"), b"served");
        assert!(!saying.is_finished(), "nobody waits");
        drop(fault);
    });
    read_answers(&mut answers, MESSAGES);
    assert_eq!(accounted(&waits), MESSAGES);
    assert_eq!(gaps(&waits), 0);
    let deadline = Instant::now() + HANG;
    while accounted(&drops) < MESSAGES {
        assert!(Instant::now() < deadline, "{} of them", accounted(&drops));
        thread::yield_now();
    }
    assert!(gaps(&drops) > 0);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    if !can_mount() {
        return skip("no file system can be mounted");
    }
    let (mut daemon, disk) = mounted(
        Setup::new().config(CONFIG),
        "mount -t tmpfs -o size=4m none",
    );
    let filler = disk.join("filler");
    stands(&daemon, &disk, || {
        fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
        Mends(|| fs::remove_file(&filler).unwrap())
    });
    daemon.wait_log(&["WARN", "waits", "No space left"]);
    daemon.wait_log(&["WARN", "drops", "No space left"]);
    assert!(daemon.stop().success());
}

#[test]
fn a_file_system_that_is_frozen_for_a_while() {
    let needed = ["mkfs.ext4", "fsfreeze", "nsenter"];
    let has_loops = Path::new("/dev/loop-control").exists();
    if !can_mount() || !has_loops || !needed.into_iter().all(has_program) {
        return skip("no file system can be mounted and frozen");
    }
    let setup = Setup::new();
    let (image, folder) = (setup.folder().join("image"), setup.folder().join("disk"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    assert!(made.unwrap().success());
    let (mut daemon, disk) = mounted(
        setup.config(CONFIG),
        &format!("mount -o loop {}", image.display()),
    );
    let pid = daemon.pid().to_string();
    let turn = |to: &str| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &pid, "fsfreeze", to]);
        assert!(command.arg(&folder).status().unwrap().success(), "{to}");
    };
    stands(&daemon, &disk, || {
        turn("--freeze");
        Mends(|| turn("--unfreeze"))
    });
    assert!(daemon.stop().success());
}

/// The preloaded disk has writes fail with this error for a while (`errno(3)`).
fn writes_fail(error: i32, words: &str) {
    let setup = Setup::new();
    let Some(faults) = Disk::new(setup.folder()) else {
        return skip("no C compiler");
    };
    let disk = setup.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut daemon = faults.of(setup.config(CONFIG)).start();
    stands(&daemon, &disk, || {
        faults.begin_with("write-fails", &error.to_string());
        Mends(|| faults.end("write-fails"))
    });
    daemon.wait_log(&["WARN", "waits", words]);
    daemon.wait_log(&["WARN", "drops", words]);
    assert!(daemon.stop().success());
}

#[test]
fn a_disk_that_has_errors_for_a_while() {
    writes_fail(libc::EIO, "Input/output error");
}

/// No mount can be made so while a file is open for writing (EBUSY, `mount(2)`): a file system does it by itself when
/// it finds an error.
#[test]
fn a_disk_that_is_read_only_for_a_while() {
    writes_fail(libc::EROFS, "Read-only file system");
}
