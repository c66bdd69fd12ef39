//! Promise: programs that know nothing of udsd are its clients as they are: loggers, netcat, socat,
//! Python, nginx, systemd-notify and C programs with buffers. Each is run as its users run it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

#[path = "../harness/mod.rs"]
mod harness;

mod c_buffers;
mod logger;
mod netcat;
mod nginx;
mod python;
mod socat;
mod systemd_notify;
mod varlink;

use std::{
    fs,
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
};

use harness::{Daemon, Folder, HANG, wait_for};
use rustix::{
    event::PollFlags,
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

/// A socket with this name and these keys.
fn socket(name: &str, keys: &str) -> String {
    format!("[socket.{name}]\npath = \"{{dir}}/{name}\"\nmode = \"0666\"\n{keys}\n")
}

/// Lets other users reach what is in the folder.
fn open_to_all(folder: &Folder) {
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

/// The first records on the daemon's standard output.
fn records(daemon: &Daemon, count: usize) -> Vec<Value> {
    let lines = daemon.wait_output(count);
    let records = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

/// The messages of records.
fn messages(records: &[Value]) -> Vec<&str> {
    let messages = records.iter().map(|record| record["message"].as_str());
    messages.map(Option::unwrap).collect()
}

/// A program at work. Killed and reaped when dropped.
struct Program {
    child: Child,
    shown: String,
}

/// What a program left when it ended well.
struct Ended {
    pid: u32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Program {
    /// Starts it. What it reads and writes are pipes.
    fn start(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = piped
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        Program { child, shown }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it more to read.
    fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
    }

    /// It has nothing more to read.
    fn hush(&mut self) {
        self.child.stdin = None;
    }

    /// The next line of what it writes, without its end.
    fn line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            assert!(
                wait_for(stdout.as_fd(), PollFlags::IN),
                "{}: no line after {HANG:?}",
                self.shown
            );
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{}: ended", self.shown);
            if byte == *b"\n" {
                return String::from_utf8(line).unwrap();
            }
            line.extend(byte);
        }
    }

    /// Gives it this and nothing more, and waits until it has ended well.
    fn finish(mut self, input: &[u8]) -> Ended {
        let mut stdin = self.child.stdin.take();
        let input = input.to_vec();
        // Whoever does not read it all ends early, which its status shows.
        let writer = thread::spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(&input)));
        let stdout = follow(self.child.stdout.take());
        let stderr = follow(self.child.stderr.take());
        let status = self.end();
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{}: {status}: {stderr}", self.shown);
        writer.join().unwrap();
        Ended {
            pid: self.pid(),
            stdout,
            stderr,
        }
    }

    /// Waits until it has ended; false after `HANG`.
    fn ends(&self) -> bool {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        wait_for(process.as_fd(), PollFlags::IN)
    }

    /// Its status once it has ended.
    fn end(&mut self) -> ExitStatus {
        assert!(self.ends(), "{} has not ended after {HANG:?}", self.shown);
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Does nothing to one that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all that a pipe brings.
fn follow(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut bytes = Vec::new();
    thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Runs a program on this input to its end.
fn run(command: &mut Command, input: &[u8]) -> Ended {
    Program::start(command).finish(input)
}

/// A command with the path of a socket as its last argument.
fn command(words: &[&str], path: &Path) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(path);
    command
}

/// Makes a program of this source in `folder`.
fn compile(folder: &Folder, name: &str, source: &str) {
    let file = format!("{name}.c");
    fs::write(folder.join(&file), source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-o", name, &file])
        .current_dir(folder.path());
    assert!(gcc.status().unwrap().success());
}
