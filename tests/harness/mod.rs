//! Starts the real daemon for a test, in a fresh folder of its own and with its own NOTIFY_SOCKET,
//! and knows when it is ready, what it logs and when it is gone. Nothing sleeps: threads read what
//! the daemon says, and whoever waits for it is woken. A test that fails prints the log; no process
//! and no folder outlives its test.
//!
//! In a config text, `{dir}` stands for the folder. Sockets are found there by their file names;
//! that of `ad_hoc` is called `socket`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "each test file takes what it needs of this module; a failed unwrap is a failed test; json!({}) is a value"
)]

pub mod faults;
pub mod manager;
pub mod packets;
pub mod skip;
pub mod udsc;
pub mod varlink;

use std::{
    ffi::OsString,
    fs,
    io::{self, IoSlice, PipeReader, PipeWriter, Read, Write},
    mem::{self, MaybeUninit},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixDatagram, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
    pipe::{fcntl_getpipe_size, fcntl_setpipe_size},
    process::{
        Gid, Pid, PidfdFlags, Resource, Rlimit, Uid, WaitId, WaitIdOptions, geteuid, getrlimit,
        kill_process, pidfd_open, setrlimit, test_kill_process, waitid,
    },
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

pub use rustix::process::Signal;
pub use skip::skip;

/// How long anything may take before the test counts as hung.
pub const HANG: Duration = Duration::from_secs(60);

/// What ends the thread that listens on NOTIFY_SOCKET.
const END_OF_NOTES: &[u8] = b"harness: end";

/// Counts up over all tests of this process.
fn next_number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// What the names of all folders start with; the process and a number follow.
const FOLDER: &str = "udsd-test-";

/// How old a folder must be to be swept: one of another pid namespace may have an owner unseen.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Removes the folders of this user's test processes that were killed.
fn sweep() {
    let me = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER)?.split_once('-'))
            .and_then(|(pid, _)| Pid::from_raw(pid.parse::<u32>().ok()?.try_into().ok()?));
        let abandoned = owner.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
            && entry.metadata().is_ok_and(|folder| {
                let age = folder.modified().ok().and_then(|time| time.elapsed().ok());
                folder.is_dir() && folder.uid() == me && age.is_some_and(|age| age > ABANDONED)
            });
        if abandoned {
            // Others may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder that exists as long as this.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A fresh one.
    pub fn new() -> Arc<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = format!("{FOLDER}{}-{}", process::id(), next_number());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Arc::new(Folder(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A program of this build under a name in this folder, where other users reach it too: the
    /// build may lie where they may not look.
    pub fn in_reach(&self, program: &Path) -> PathBuf {
        let name = self.join(program.file_name().unwrap().to_str().unwrap());
        if !name.exists() && fs::hard_link(program, &name).is_err() {
            // Not `fs::copy`: a file that is open for writing cannot be run, and while another test
            // starts a program its child holds whatever is open here.
            let copied = Command::new("cp").args([program, &name]).status().unwrap();
            assert!(copied.success(), "cp {}: {copied}", program.display());
        }
        name
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the config file; `{dir}` in it is this folder. Where it says nothing of the control socket there is
    /// none: that of all others has one path.
    fn write_config(&self, text: &str) -> PathBuf {
        let path = self.join("udsd.toml");
        let text = text.replace("{dir}", self.0.to_str().unwrap());
        let control = if text.contains("\ncontrol = ") {
            ""
        } else {
            "[daemon]\ncontrol = \"\"\n"
        };
        let drop_ins = self.join("udsd.toml.d");
        fs::create_dir_all(&drop_ins).unwrap();
        fs::write(drop_ins.join("50-no-control.toml"), control).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// What the daemon has said so far.
#[derive(Debug, Default)]
pub struct Said {
    /// Standard error.
    pub log: String,
    /// Standard output, where the test does not read it itself.
    pub output: Vec<u8>,
    /// The datagrams on NOTIFY_SOCKET.
    pub notes: Vec<String>,
    /// What it has the manager keep, where that does (FDSTORE=1).
    stored: Vec<OwnedFd>,
    log_ended: bool,
    output_ended: bool,
}

#[derive(Debug, Default)]
struct Ears {
    said: Mutex<Said>,
    more: Condvar,
}

impl Ears {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hear(&self, take: impl FnOnce(&mut Said)) {
        take(&mut self.said());
        self.more.notify_all();
    }

    /// Waits until `find` finds something; `None` after `HANG`.
    fn wait<T>(&self, mut find: impl FnMut(&Said) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + HANG;
        let mut said = self.said();
        loop {
            if let Some(found) = find(&said) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            said = self
                .more
                .wait_timeout(said, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// Follows a pipe to its end.
    fn follow(
        self: &Arc<Self>,
        mut pipe: PipeReader,
        take: fn(&mut Said, Option<&[u8]>),
    ) -> JoinHandle<()> {
        let ears = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) | Err(_) => return ears.hear(|said| take(said, None)),
                    Ok(n) => ears.hear(|said| take(said, Some(&buffer[..n]))),
                }
            }
        })
    }
}

fn take_log(said: &mut Said, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => said.log.push_str(&String::from_utf8_lossy(bytes)),
        None => said.log_ended = true,
    }
}

fn take_output(said: &mut Said, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => said.output.extend_from_slice(bytes),
        None => said.output_ended = true,
    }
}

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Setup {
    folder: Arc<Folder>,
    program: PathBuf,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    journal: bool,
    keeps: bool,
    answers: bool,
    log_room: Option<usize>,
    /// With what an earlier process has left.
    goes_on: bool,
}

impl Setup {
    /// In a fresh folder.
    pub fn new() -> Self {
        Setup::within(Folder::new())
    }

    /// In a folder that may hold what another daemon left.
    pub fn within(folder: Arc<Folder>) -> Self {
        Setup {
            folder,
            program: env!("CARGO_BIN_EXE_udsd").into(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            stdin: None,
            stdout: None,
            journal: false,
            keeps: false,
            answers: true,
            log_room: None,
            goes_on: false,
        }
    }

    /// Under a manager that keeps descriptors.
    pub fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Under a manager that is told all and does nothing.
    pub fn stuck(mut self) -> Self {
        self.answers = false;
        self
    }

    /// With a standard error that nobody reads, and that has room for so many bytes: the daemon halts where
    /// it says more.
    pub fn log_room(mut self, bytes: usize) -> Self {
        self.log_room = Some(bytes);
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// With this config file.
    pub fn config(mut self, text: &str) -> Self {
        let path = self.folder.write_config(text);
        self.arguments.extend(["--config".into(), path.into()]);
        self
    }

    /// With `--socket` and these options.
    pub fn ad_hoc(mut self, options: &[&str]) -> Self {
        let path = self.folder.join("socket");
        self.arguments.extend(["--socket".into(), path.into()]);
        self.arguments(options)
    }

    /// With these arguments, behind those of earlier calls.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// With this variable in its environment, which is otherwise nearly empty.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Started by this command, which gets the daemon's own as its last arguments and must `exec`
    /// it, so that the process stays the same.
    pub fn wrapper(mut self, command: &[&str]) -> Self {
        self.wrapper.extend(command.iter().map(OsString::from));
        self
    }

    /// Another build of the daemon.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = path.into();
        self
    }

    /// With at most this many open files.
    pub fn open_files(self, limit: usize) -> Self {
        self.wrapper(&["prlimit", &format!("--nofile={limit}:{limit}"), "--"])
    }

    /// With this standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// With this standard output, which the harness then does not read.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// With a standard error that it must take for the journal's.
    pub fn journal(mut self) -> Self {
        self.journal = true;
        self
    }

    /// Starts the daemon and waits until it is ready, and has taken over what was left; a panic with its log
    /// where it ends before.
    pub fn start(self) -> Daemon {
        let goes_on = self.goes_on;
        let mut daemon = self.spawn();
        match daemon.wait_ready_or_ended() {
            Some(true) => {
                if goes_on {
                    daemon.wait_note("FDSTOREREMOVE=1");
                }
                daemon
            }
            Some(false) => {
                let status = daemon.wait();
                panic!("the daemon ended before it was ready: {status}");
            }
            None => panic!("the daemon is not ready after {HANG:?}"),
        }
    }

    /// Starts a daemon that must not become ready: its exit code and what it logged.
    pub fn fail(self) -> (Option<i32>, String) {
        let mut daemon = self.spawn();
        match daemon.wait_ready_or_ended() {
            Some(true) => panic!("the daemon was to fail, but serves: {:?}", daemon.notes()),
            Some(false) => {}
            None => panic!("the daemon was to fail, but is neither ready nor gone after {HANG:?}"),
        }
        let status = daemon.wait();
        assert!(
            daemon.notes().is_empty(),
            "it became ready: {:?}",
            daemon.notes()
        );
        (status.code(), daemon.log())
    }

    /// Starts the daemon, and does not wait for it.
    pub fn spawn(self) -> Daemon {
        let Setup {
            folder,
            program,
            wrapper,
            arguments,
            environment,
            stdin,
            stdout,
            journal,
            keeps,
            answers,
            log_room,
            goes_on: _,
        } = self;
        // Its own, also where another daemon is or was in the same folder.
        let notify = folder.join(&format!("notify-{}", next_number()));
        let notes = UnixDatagram::bind(&notify).unwrap();
        let (log, stderr) = io::pipe().unwrap();
        if let Some(room) = log_room {
            // One page, whose last bytes are free.
            fcntl_setpipe_size(&stderr, 1).unwrap();
            let size = fcntl_getpipe_size(&stderr).unwrap();
            (&stderr).write_all(&vec![b'\n'; size - room]).unwrap();
        }
        let (output, stdout): (Option<PipeReader>, Stdio) = match stdout {
            Some(stdout) => (None, stdout),
            None => {
                let (reader, writer) = io::pipe().unwrap();
                (Some(reader), writer.into())
            }
        };

        let mut binary = program.into_os_string();
        if wrapper.first().is_some_and(|first| first == "setpriv") {
            binary = folder.in_reach(Path::new(&binary)).into();
        }
        let mut words = wrapper.into_iter().chain([binary]).chain(arguments);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NOTIFY_SOCKET", &notify);
        for name in [
            "HOME",
            "TMPDIR",
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
        ] {
            command.env(name, folder.path());
        }
        if journal {
            command.env("JOURNAL_STREAM", identity(&stderr));
        }
        command
            .envs(environment)
            .stdin(stdin.unwrap_or_else(Stdio::null))
            .stdout(stdout)
            .stderr(stderr);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        // The harness' own copies of the pipes' writing ends go with the command.
        drop(command);

        let ears = Arc::new(Ears::default());
        let mut threads = vec![follow_notes(&ears, notes, keeps, answers)];
        let mut unread = None;
        if log_room.is_some() {
            ears.said().log_ended = true;
            unread = Some(log);
        } else {
            threads.push(ears.follow(log, take_log));
        }
        match output {
            Some(output) => threads.push(ears.follow(output, take_output)),
            None => ears.said().output_ended = true,
        }
        Daemon {
            child,
            status: None,
            ears,
            threads,
            folder,
            notify,
            unread,
        }
    }
}

fn follow_notes(
    ears: &Arc<Ears>,
    socket: UnixDatagram,
    keeps: bool,
    answers: bool,
) -> JoinHandle<()> {
    let ears = Arc::clone(ears);
    thread::spawn(move || {
        // Not closed, they are not answered.
        let mut unanswered = Vec::new();
        while let Ok((note, descriptors)) = manager::receive_note(&socket) {
            if note == END_OF_NOTES {
                return;
            }
            let note = String::from_utf8_lossy(&note).into_owned();
            ears.hear(|said| {
                if !answers {
                    unanswered.extend(descriptors);
                } else if has_line(&note, "FDSTOREREMOVE=1") {
                    said.stored.clear();
                } else if keeps && has_line(&note, "FDSTORE=1") {
                    said.stored.extend(descriptors);
                }
                said.notes.push(note);
            });
        }
    })
}

/// A pipe as JOURNAL_STREAM names it.
pub fn identity(pipe: &PipeWriter) -> String {
    let stat = rustix::fs::fstat(pipe).unwrap();
    format!("{}:{}", stat.st_dev, stat.st_ino)
}

fn has_line(note: &str, line: &str) -> bool {
    note.lines().any(|l| l == line)
}

/// A daemon at work. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    status: Option<ExitStatus>,
    ears: Arc<Ears>,
    threads: Vec<JoinHandle<()>>,
    folder: Arc<Folder>,
    notify: PathBuf,
    /// Its standard error, where nobody reads it.
    unread: Option<PipeReader>,
}

impl Daemon {
    /// One with this config file; `{dir}` in it is the folder.
    pub fn start(config: &str) -> Self {
        Setup::new().config(config).start()
    }

    /// One with a single socket called `socket`, and these options.
    pub fn ad_hoc(options: &[&str]) -> Self {
        Setup::new().ad_hoc(options).start()
    }

    /// Waits until it is ready (true) or its log has ended (false).
    fn wait_ready_or_ended(&self) -> Option<bool> {
        self.ears.wait(|said| {
            let ready = said.notes.iter().any(|note| has_line(note, "READY=1"));
            (ready || said.log_ended).then_some(ready && !said.log_ended)
        })
    }

    /// Its folder.
    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A client of the socket with this file name. A call on it that takes longer than `HANG` fails.
    pub fn connect(&self, name: &str) -> UnixStream {
        connect(&self.path(name))
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "the daemon has ended");
        kill_process(self.pid(), signal).unwrap();
    }

    /// Halts it, and returns when it stands still.
    pub fn halt(&self) {
        self.signal(Signal::STOP);
        let stopped = waitid(WaitId::Pid(self.pid()), WaitIdOptions::STOPPED).unwrap();
        assert!(stopped.is_some_and(|status| status.stopped()));
    }

    /// Lets it go on after `halt`.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Writes this config file in place of the one that it was started with.
    pub fn write_config(&self, text: &str) {
        self.folder.write_config(text);
    }

    /// SIGHUP; returns its status once it is ready again.
    pub fn reload(&self) -> String {
        let ready = |said: &Said| {
            let ready = said.notes.iter().filter(|note| has_line(note, "READY=1"));
            ready.cloned().collect::<Vec<_>>()
        };
        let before = ready(&self.ears.said()).len();
        self.signal(Signal::HUP);
        let note = self.wait_for("READY=1 after SIGHUP", |said| {
            ready(said).into_iter().nth(before)
        });
        let status = note.lines().find_map(|line| line.strip_prefix("STATUS="));
        status.unwrap_or_default().to_owned()
    }

    /// Reloads this config file, which must succeed.
    #[track_caller]
    pub fn reload_with(&self, text: &str) {
        self.write_config(text);
        let status = self.reload();
        assert!(!status.contains("failed"), "{status}");
    }

    /// Reloads this config file, which must fail: its status.
    #[track_caller]
    pub fn fail_to_reload(&self, text: &str) -> String {
        self.write_config(text);
        let status = self.reload();
        assert!(status.starts_with("reload failed: "), "{status}");
        assert!(status.contains("; serving as before"), "{status}");
        status
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait().signal(), Some(Signal::KILL.as_raw()));
    }

    /// Waits until it has ended by itself and all that it said was heard.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let readable = wait_for(process.as_fd(), PollFlags::IN);
        assert!(readable, "the daemon has not ended after {HANG:?}");
        let status = self.child.wait().unwrap();
        self.status = Some(status);
        let heard = |said: &Said| (said.log_ended && said.output_ended).then_some(());
        assert!(
            self.ears.wait(heard).is_some(),
            "someone else holds its standard output or error"
        );
        status
    }

    /// Waits until it halts for want of room for its log (`Setup::log_room`).
    pub fn wait_halted(&self) {
        self.wait_writing(|fd| fd == 2);
    }

    /// Waits until it halts at telling the manager something.
    pub fn wait_telling(&self) {
        self.wait_writing(|fd| {
            let open = fs::read_link(format!("/proc/{}/fd/{fd}", self.child.id()));
            open.is_ok_and(|path| {
                path.to_str()
                    .is_some_and(|path| path.starts_with("socket:"))
            })
        });
    }

    /// Waits until its main thread waits for events, and so has done all that there is to do.
    pub fn wait_idle(&self) {
        // epoll_wait(2), epoll_pwait(2), epoll_pwait2(2).
        let waits: &[u32] = match cfg!(target_arch = "x86_64") {
            true => &[232, 281, 441],
            false => &[22, 441],
        };
        self.wait_call(|call, _| waits.contains(&call));
    }

    fn wait_writing(&self, is_to: impl Fn(u32) -> bool) {
        let write = match cfg!(target_arch = "x86_64") {
            true => 1,
            false => 64,
        };
        self.wait_call(|call, fd| call == write && is_to(fd));
    }

    /// Waits until its main thread is in a system call with this number and first argument.
    fn wait_call(&self, is_it: impl Fn(u32, u32) -> bool) {
        let start = Instant::now();
        loop {
            let call = fs::read_to_string(format!("/proc/{}/syscall", self.child.id())).unwrap();
            let mut words = call.split(' ');
            let number = words.next().and_then(|word| word.parse().ok());
            let first = words.next().and_then(|word| word.strip_prefix("0x"));
            // Truncated like the kernel does it: a descriptor is an int.
            let first = first.and_then(|word| u64::from_str_radix(word, 16).ok());
            if let (Some(number), Some(first)) = (number, first)
                && is_it(number, first as u32)
            {
                return;
            }
            assert!(start.elapsed() < HANG, "it is not in that call: {call}");
            thread::yield_now();
        }
    }

    /// Reads its log after all.
    pub fn read_log(&mut self) {
        let log = self.unread.take().unwrap();
        self.ears.said().log_ended = false;
        self.threads.push(self.ears.follow(log, take_log));
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.ears.said().log.clone()
    }

    /// Waits for a line of the log that contains all of `parts`, and returns it.
    pub fn wait_log(&self, parts: &[&str]) -> String {
        let line = |said: &Said| {
            let whole = said.log.rfind('\n').map_or("", |end| &said.log[..end]);
            let mut lines = whole.lines();
            let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
            found.map_or_else(
                || said.log_ended.then_some(None),
                |line| Some(Some(line.to_owned())),
            )
        };
        self.ears
            .wait(line)
            .flatten()
            .unwrap_or_else(|| panic!("no line of the log has {parts:?}"))
    }

    /// What it has the manager keep now.
    pub fn stored(&self) -> Vec<OwnedFd> {
        mem::take(&mut self.ears.said().stored)
    }

    /// The datagrams that came on NOTIFY_SOCKET so far.
    pub fn notes(&self) -> Vec<String> {
        self.ears.said().notes.clone()
    }

    /// Waits for a datagram on NOTIFY_SOCKET with a line that starts so, and returns the line.
    pub fn wait_note(&self, start: &str) -> String {
        self.wait_for(&format!("{start} on NOTIFY_SOCKET"), |said| {
            let mut lines = said.notes.iter().flat_map(|note| note.lines());
            lines
                .find(|line| line.starts_with(start))
                .map(str::to_owned)
        })
    }

    /// What it has written to its standard output so far.
    pub fn output(&self) -> Vec<u8> {
        self.ears.said().output.clone()
    }

    /// Waits until it has written this many lines to its standard output, and returns those.
    pub fn wait_output(&self, lines: usize) -> Vec<String> {
        self.wait_for(&format!("{lines} lines of output"), |said| {
            let ended = said.output.iter().filter(|&&byte| byte == b'\n').count();
            (ended >= lines).then(|| {
                let text = String::from_utf8_lossy(&said.output);
                text.lines().take(lines).map(str::to_owned).collect()
            })
        })
    }

    /// Waits until `find` finds something in what the daemon said; `what` is for the panic.
    pub fn wait_for<T>(&self, what: &str, find: impl FnMut(&Said) -> Option<T>) -> T {
        self.ears
            .wait(find)
            .unwrap_or_else(|| panic!("no {what} after {HANG:?}"))
    }

    /// Descriptors that it has open once all who left before this call are gone; `echo` names an
    /// echo socket without framing.
    pub fn descriptors(&self, echo: &str) -> usize {
        let witness = self.connect(echo);
        round_trip(&witness, b"x");
        // One more is open at times, while the manager is told something.
        let all = || fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let counts = (0..50).map(|_| all().unwrap().count());
        counts.min().unwrap() - 1
    }

    /// Its resident memory, bytes.
    pub fn memory(&self) -> usize {
        self.status_field("VmRSS:") * 1024
    }

    /// The most resident memory that it ever had, bytes.
    pub fn peak_memory(&self) -> usize {
        self.status_field("VmHWM:") * 1024
    }

    fn status_field(&self, name: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may hold anything (`proc_pid_stat(5)`): utime and stime.
        let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|f| f.parse::<u64>().unwrap())
            .sum();
        // The kernel tells processes USER_HZ, which is 100 wherever Rust's std runs.
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_none() {
            // SIGKILL ends a halted process too.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(END_OF_NOTES, &self.notify);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}---", self.log());
        }
    }
}

/// Connects to the socket at `path`; a call that takes longer than `HANG` fails.
pub fn connect(path: &Path) -> UnixStream {
    let stream =
        UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    stream
}

/// Waits until `fd` is ready for `flags`, ended or failed; false after `HANG`.
pub fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let timeout = Timespec::try_from(HANG).unwrap();
    poll(&mut [PollFd::new(&fd, flags)], Some(&timeout)).unwrap() == 1
}

/// What comes until the end of file.
pub fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What comes until the end, which may be one with something unread (ECONNRESET).
pub fn read_until_closed(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    bytes
}

/// It was closed with something of it unread, and nothing came.
#[track_caller]
pub fn was_cut_off(mut stream: &UnixStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The next `n` bytes.
pub fn read_n(mut stream: &UnixStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Sends `bytes` and reads them back: the daemon is there, and has done all that went before.
pub fn round_trip(mut stream: &UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    assert_eq!(read_n(stream, bytes.len()), bytes);
}

/// Closes the reading end of a pipe, and waits until nobody has it: a process that another test starts
/// has a copy until it is what it is to become.
pub fn close_reader(reader: PipeReader, writer: &PipeWriter) {
    drop(reader);
    assert!(wait_for(writer.as_fd(), PollFlags::ERR), "it stays open");
}

/// Writes until nothing has fitted for a while, but `least` bytes have, or all is written; returns
/// what was taken.
pub fn write_until_full(stream: &UnixStream, bytes: &[u8], least: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    while taken < bytes.len() {
        match (&mut &*stream).write(&bytes[taken..]) {
            Ok(n) => taken += n,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                // Nothing tells that the daemon will take no more. Where it was merely slow, less
                // was taken than could be: a test that needs a full queue says so by `least`.
                let a_while = Timespec {
                    tv_sec: 0,
                    tv_nsec: 300_000_000,
                };
                let mut room = [PollFd::new(stream, PollFlags::OUT)];
                if taken < least {
                    assert!(
                        wait_for(stream.as_fd(), PollFlags::OUT),
                        "only {taken} taken"
                    );
                } else if poll(&mut room, Some(&a_while)).unwrap() == 0 {
                    break;
                }
            }
        }
    }
    stream.set_nonblocking(false).unwrap();
    taken
}

/// Sends `bytes` in one call together with descriptors (SCM_RIGHTS).
pub fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    assert_eq!(try_send_with(socket, bytes, descriptors), Ok(bytes.len()));
}

/// As `send_with`; returns how many bytes went.
pub fn try_send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let parts = [IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
}

/// Sends `bytes`, the last of them as urgent data (MSG_OOB).
pub fn send_urgent(stream: &UnixStream, bytes: &[u8]) {
    let sent = rustix::net::send(stream, bytes, SendFlags::OOB | SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Raises this process' limit of open files to what is allowed, and returns it.
pub fn raise_open_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
    maximum.map_or(usize::MAX, |n| usize::try_from(n).unwrap())
}

/// Whether a program is there.
pub fn is_installed(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// Whether a program that a test needs is there. Where it is not, the test is skipped.
pub fn has_program(name: &str) -> bool {
    let fault = match name {
        _ if !is_installed(name) => "is not installed",
        "nc" if !is_openbsd_netcat() => "lacks -N or -U (OpenBSD's has them: netcat-openbsd)",
        _ => return true,
    };
    skip(&format!("{name} {fault}"));
    false
}

/// Set at the latest when this is dropped, also where the test fails: a scope waits for its threads, and one
/// that works until then would go on for ever.
pub struct AtLast<'a>(pub &'a AtomicBool);

impl Drop for AtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a message names where the units have to follow the file.
pub fn apply_command() -> &'static str {
    match geteuid().is_root() {
        true => "udsc apply",
        false => "udsc --user apply",
    }
}

/// Acts as another user, with these supplementary groups.
pub fn acting<T: Send>(uid: u32, gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            set_thread_groups(&groups).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        other.join().unwrap()
    })
}

/// Whether this is root, who alone may act for other users. Where it is not, as `has_program`.
pub fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        skip("this user is not root");
    }
    root
}

/// Whether `nc` is the one that knows Unix sockets and half-closes: others bear its name too.
fn is_openbsd_netcat() -> bool {
    Command::new("nc").arg("-h").output().is_ok_and(|output| {
        let help = [output.stdout, output.stderr].concat();
        let help = String::from_utf8_lossy(&help);
        help.contains("-N") && help.contains("-U")
    })
}

/// Random numbers that are the same in every run (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed other than 0.
    pub fn new(seed: u64) -> Self {
        assert_ne!(seed, 0);
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// This many bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend_from_slice(&self.number().to_le_bytes()[..6]);
        }
        bytes.truncate(n);
        bytes
    }
}
