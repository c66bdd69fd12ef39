//! `udsc top` in a terminal of its own: what it shows, also over an end of the daemon, and that it leaves the terminal
//! as it was, whatever ends it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    process::{Child, Command, ExitStatus},
};

use harness::{Daemon, Setup, has_program, round_trip, wait_for};
use rustix::{
    event::PollFlags,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, Termios, Winsize, tcflow, tcgetattr, tcsetwinsize},
};

const FILE: &str =
    "[daemon]\ncontrol = \"{dir}/control.sock\"\n[socket.echo]\npath = \"{dir}/echo\"\n";
/// udsc top in a terminal.
struct Top {
    udsc: Child,
    terminal: File,
    width: u16,
    before: Termios,
    shown: String,
}

impl Top {
    fn start(daemon: &Daemon) -> Self {
        // No child has it: so udsc is hung up on where this process is killed.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        resize(&terminal, 80);
        let far = other_end(&terminal);
        let before = tcgetattr(&terminal).unwrap();
        // Of whoever runs the tests, udsc would find the size.
        let udsc = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_udsc"), "--config"])
            .arg(daemon.path("udsd.toml"))
            .arg("top")
            .env("TERM", "xterm")
            .stdin(far.try_clone().unwrap())
            .stdout(far.try_clone().unwrap())
            .stderr(far)
            .spawn()
            .unwrap();
        Self {
            udsc,
            terminal: terminal.into(),
            width: 80,
            before,
            shown: String::new(),
        }
    }

    /// Reads on; fails where nothing comes any more.
    fn read(&mut self) {
        assert!(
            wait_for(self.terminal.as_fd(), PollFlags::IN),
            "{}",
            self.shown
        );
        let mut bytes = [0; 65536];
        // The kernel's word for a terminal that nobody has any more.
        let n = self.terminal.read(&mut bytes).unwrap_or(0);
        assert!(n > 0, "it ended: {:?}", self.shown);
        self.shown += &String::from_utf8_lossy(&bytes[..n]);
    }

    /// Waits for a screen that has `text`. All of it is drawn only after a change of its size.
    fn shows(&mut self, text: &str) {
        while !letters(&self.shown).contains(&letters(text)) {
            self.shown.clear();
            self.width = if self.width == 140 { 150 } else { 140 };
            resize(&self.terminal, self.width);
            // The last line is drawn last.
            while !letters(&self.shown).contains("iid") {
                self.read();
            }
        }
        self.shown.clear();
    }

    /// It ends, and the terminal is as it was.
    fn end(mut self) -> ExitStatus {
        // It leaves the other screen, and shows the cursor.
        while !(self.shown.contains("\x1b[?1049l") && self.shown.contains("\x1b[?25h")) {
            self.read();
        }
        let status = self.udsc.wait().unwrap();
        self.has_modes_of_before();
        status
    }

    fn has_modes_of_before(&self) {
        let after = tcgetattr(&self.terminal).unwrap();
        let modes = |of: &Termios| (of.local_modes, of.input_modes, of.output_modes);
        assert_eq!(modes(&after), modes(&self.before));
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.udsc.kill();
        let _ = self.udsc.wait();
    }
}

/// Text without what moves the cursor, as it is moved over blanks, and without blanks.
fn letters(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut letters = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        letters += &part[end.map_or(0, |end| end + 1)..];
    }
    letters.retain(|c| !c.is_whitespace());
    letters
}

/// Where udsc is, of this end of a terminal.
fn other_end(terminal: &impl AsFd) -> File {
    let name = ptsname(terminal, Vec::new()).unwrap();
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    options.open(name.to_str().unwrap()).unwrap()
}

fn resize(terminal: &impl AsFd, columns: u16) {
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn every_way_out_leaves_the_terminal_as_it_was() {
    if !has_program("setsid") {
        return;
    }
    let daemon = Daemon::start(FILE);
    for key in ["q", "\x03"] {
        let mut top = Top::start(&daemon);
        top.shows("running for");
        (&top.terminal).write_all(key.as_bytes()).unwrap();
        assert!(top.end().success());
    }
    let mut top = Top::start(&daemon);
    top.shows("running for");
    kill_process(Pid::from_child(&top.udsc), Signal::TERM).unwrap();
    assert_eq!(top.end().to_string(), "signal: 15 (SIGTERM)");
}

/// Where nobody reads, writing to the terminal takes for ever.
#[test]
fn a_signal_ends_it_also_where_the_terminal_takes_nothing() {
    if !has_program("setsid") {
        return;
    }
    let daemon = Daemon::start(FILE);
    let mut top = Top::start(&daemon);
    top.shows("running for");
    tcflow(other_end(&top.terminal), Action::OOff).unwrap();
    let pid = Pid::from_child(&top.udsc);
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(wait_for(process.as_fd(), PollFlags::IN), "it goes on");
    let status = top.udsc.wait().unwrap();
    assert_eq!(status.to_string(), "signal: 15 (SIGTERM)");
    top.has_modes_of_before();
}

#[test]
fn it_goes_on_when_the_daemon_is_there_again() {
    if !has_program("setsid") {
        return;
    }
    let mut daemon = Daemon::start(FILE);
    let mut top = Top::start(&daemon);
    round_trip(&daemon.connect("echo"), b"hello");
    top.shows(&format!("pid {}, running for", daemon.pid()));
    daemon.stop();
    top.shows("udsd of this file is not running");
    let next = Setup::within(daemon.folder().clone()).config(FILE).start();
    top.shows(&format!("pid {}, running for", next.pid()));
}

#[test]
fn it_goes_on_over_a_restart() {
    if !has_program("setsid") {
        return;
    }
    let daemon = Setup::new().config(FILE).keeping().start();
    let client = daemon.connect("echo");
    round_trip(&client, b"hello");
    let mut top = Top::start(&daemon);
    top.shows("1 of ");
    let next = daemon.restart(|setup| setup.config(FILE));
    top.shows(&format!("pid {}, running for", next.pid()));
    top.shows("1 of ");
}
