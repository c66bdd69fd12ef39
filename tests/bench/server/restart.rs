//! A measured server from one process to the next: what a service manager does for it, and nothing
//! more. It keeps the descriptor that the old process leaves, and starts the new one at once.

use super::{PATIENCE, Server, surround};
use crate::setup::{Outcome, check_interrupted};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::process::Command;
use std::time::{Duration, Instant};

/// Exits that are a restart.
const HANDED_OVER: i32 = 75;
/// Only safe code here: a shell can place a descriptor in its child. It costs about a millisecond, in
/// all figures alike.
const PASSING: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"";

/// How long it took.
pub(crate) struct Restart {
    /// The signal to the old process.
    pub(crate) begin: Instant,
    /// The start of the new one.
    pub(crate) exec: Instant,
    /// From the signal to the old process' end.
    pub(crate) leaving: Duration,
    /// From the start of the new process to READY=1.
    pub(crate) ready: Duration,
}

impl Server {
    /// SIGUSR2, and `command` in place of the process that ends.
    pub(crate) fn restart(&mut self, command: &Command) -> Outcome<Restart> {
        let mut next = Command::new("sh");
        next.args(["-c", PASSING, "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        surround(&mut next, &self.folder)?;
        next.env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "udsd.parked");

        let pid = Pid::from_child(&self.child);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let begin = Instant::now();
        kill_process(pid, Signal::USR2)?;
        let mut stored = None;
        while self.await_note(&ended, begin)? {
            let (text, descriptors) = self.receive()?;
            // Any others are dropped, as a barrier wants it.
            if says(&text, "FDSTORE=1") {
                stored = descriptors.into_iter().next();
            }
        }
        let leaving = begin.elapsed();
        let status = self.child.wait()?;
        let (Some(HANDED_OVER), Some(stored)) = (status.code(), stored) else {
            return Err(self.blame(&format!("handed nothing over: {status}")).into());
        };

        let exec = Instant::now();
        self.child = next.stdin(stored).spawn()?;
        // It still holds the descriptor: only the new process is to.
        drop(next);
        loop {
            let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
            if !self.await_note(&ended, exec)? {
                return Err(self.blame("ended before READY=1").into());
            }
            let (text, _) = self.receive()?;
            if says(&text, "READY=1") {
                let ready = exec.elapsed();
                return Ok(Restart {
                    begin,
                    exec,
                    leaving,
                    ready,
                });
            }
        }
    }

    /// Whether there is a note; else the process of `ended` has ended.
    fn await_note(&self, ended: &OwnedFd, since: Instant) -> Outcome<bool> {
        let brief = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        loop {
            let mut fds = [
                PollFd::new(&self.notes, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&brief)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(!fds[0].revents().is_empty()),
                Err(error) => return Err(error.into()),
            }
            check_interrupted()?;
            if since.elapsed() > PATIENCE {
                return Err(self.blame("does not come to the end of a restart").into());
            }
        }
    }

    fn receive(&self) -> Outcome<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let bytes = recvmsg(&self.notes, &mut parts, &mut control, flags)?.bytes;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        buffer.truncate(bytes);
        Ok((buffer, descriptors))
    }
}

fn says(text: &[u8], line: &str) -> bool {
    text.split(|b| *b == b'\n').any(|l| l == line.as_bytes())
}
