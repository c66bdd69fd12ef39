//! A measured server: start it, await READY=1, read its CPU time and memory, stop it.
//!
//! The same for udsd and for the floor: a process of its own in a fresh folder, with a
//! NOTIFY_SOCKET of the benchmark's own. Nothing of it outlives this value.

mod restart;

pub(crate) use restart::Restart;

use crate::setup::{Folder, Outcome, check_interrupted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start or a stop may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the caller's environment must not lend to a measured server.
const FOREIGN: [&str; 7] = [
    "RUST_LOG",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// The socket in its folder that a server tells its manager by.
const NOTES: &str = "notify";

pub(crate) struct Server {
    child: Child,
    folder: Folder,
    /// Where it tells what it does.
    notes: UnixDatagram,
    ready_after: Duration,
}

impl Server {
    /// `command` is given the folder, in which the server is to listen on `folder.socket()`.
    pub(crate) fn start(command: impl FnOnce(&Folder) -> Outcome<Command>) -> Outcome<Server> {
        let folder = Folder::new()?;
        let notes = UnixDatagram::bind(folder.path().join(NOTES))?;
        let mut command = command(&folder)?;
        surround(&mut command, &folder)?;

        let begin = Instant::now();
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut server = Server {
            child,
            folder,
            notes,
            ready_after: Duration::ZERO,
        };
        server.await_ready(begin)?;
        server.ready_after = begin.elapsed();
        Ok(server)
    }

    fn await_ready(&mut self, begin: Instant) -> Outcome<()> {
        // Only so that a dead child is noticed: a message wakes it at once.
        self.notes
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut message = [0; 4096];
        loop {
            match self.notes.recv(&mut message) {
                Ok(length) => {
                    if message[..length]
                        .split(|b| *b == b'\n')
                        .any(|l| l == b"READY=1")
                    {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            check_interrupted()?;
            if let Some(status) = self.child.try_wait()? {
                return Err(self
                    .blame(&format!("ended before READY=1: {status}"))
                    .into());
            }
            if begin.elapsed() > PATIENCE {
                return Err(self.blame("never said READY=1").into());
            }
        }
    }

    /// The server's own log belongs to what it is blamed for.
    pub(crate) fn blame(&self, fault: &str) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n  ");
        format!("the server {fault}; its log ends:\n  {tail}")
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.socket()
    }

    /// The file of what it was sent, where it stores that.
    pub(crate) fn record(&self) -> PathBuf {
        self.folder.record()
    }

    /// From just before the fork to READY=1.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// CPU time of all its threads, user and system. Asked while the server waits for work: the
    /// kernel adds a running thread's share only when it next looks.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let mut sum = 0;
        for task in fs::read_dir(self.proc("task"))? {
            match fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?,
                Err(error) if error.kind() == ErrorKind::NotFound => return self.coarse_cpu(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Duration::from_nanos(sum))
    }

    /// For kernels without schedstat: utime and stime, in hundredths of a second.
    fn coarse_cpu(&self) -> Outcome<Duration> {
        let text = fs::read_to_string(self.proc("stat"))?;
        let (_, fields) = text.rsplit_once(") ").ok_or("/proc/PID/stat: no name")?;
        let fields: Vec<&str> = fields.split(' ').collect(); // the first is field 3
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident bytes. smaps_rollup walks the page tables; VmRSS is a sum that may lag behind.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        let (text, key) = match fs::read_to_string(self.proc("smaps_rollup")) {
            Ok(text) => (text, "Rss:"),
            Err(_) => (fs::read_to_string(self.proc("status"))?, "VmRSS:"),
        };
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no resident size in /proc")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    /// SIGTERM, and the end within `PATIENCE`.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        let pid = Pid::from_child(&self.child);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        kill_process(pid, Signal::TERM)?;
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        if poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(self.blame("did not stop at SIGTERM").into());
        }
        let status = self.child.wait()?;
        if status.success() || status.signal() == Some(Signal::TERM.as_raw()) {
            return Ok(());
        }
        Err(self.blame(&format!("failed at its end: {status}")).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a stop() both find it gone and do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a measured server has around it.
fn surround(command: &mut Command, folder: &Folder) -> Outcome<()> {
    for name in FOREIGN {
        command.env_remove(name);
    }
    let log = File::options()
        .append(true)
        .create(true)
        .open(folder.path().join("log"))?;
    command
        .env("NOTIFY_SOCKET", folder.path().join(NOTES))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(())
}

/// For servers of the benchmark's own: what udsd tells its manager.
pub(crate) fn tell_ready() -> Outcome<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or("no NOTIFY_SOCKET")?;
    UnixDatagram::unbound()?.send_to(b"READY=1", path)?;
    Ok(())
}
