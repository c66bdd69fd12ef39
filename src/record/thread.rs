//! A record's thread: takes all lines there are, writes them, and so on until the `Writer` is dropped.
//!
//! It also minds its file, every `LOOK` where it writes: one that is no longer at its path, as after a
//! rotation by others, is told in the log and exchanged when that is asked for; one that has no name at
//! all would lose whatever is written to it, so it is exchanged as soon as that is seen, and until that
//! succeeds its lines wait. The first line that was not whole in the old file then goes to the new one,
//! from its start.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use log::{error, info, warn};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{KEPT, Position, Shared, Target, Unwritten, closed::wait_open, file::Whereabouts};

/// How long a failed write waits before the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file and its path are looked at: not with each write, which would cost as many calls.
const LOOK: Duration = Duration::from_millis(100);
/// How often a writer that waits for a reader looks whether its lines are wanted back.
const GLANCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

pub(super) struct Thread<W> {
    shared: Arc<Shared>,
    wake: W,
    target: Target,
    /// What is to be written.
    lines: Vec<u8>,
    /// Where they end.
    end: Position,
    /// Bytes of them that are written to this file.
    written: usize,
    /// A write failed, which was said.
    failing: bool,
    /// The file was looked at,
    looked: Instant,
    /// and written since.
    unseen: bool,
    /// The file is not at its path, which was said.
    astray: bool,
}

impl<W: Fn() + Send + 'static> Thread<W> {
    /// Starts it. `wake` is called when there is progress that was asked for. `target`: `None` where it
    /// is not open.
    pub(super) fn start(
        shared: Arc<Shared>,
        target: Option<Target>,
        wake: W,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("record".into()).spawn(move || {
            let Some(target) = target.or_else(|| wait_open(&shared, &wake)) else {
                return;
            };
            let mut all = Thread {
                shared,
                wake,
                target,
                lines: Vec::new(),
                end: 0,
                written: 0,
                failing: false,
                looked: Instant::now(),
                unseen: false,
                astray: false,
            };
            if let Err(error) = all.run() {
                // One thread sets it, once.
                let _ = all.shared.failed.set(error);
                (all.wake)();
            }
        })
    }

    fn run(&mut self) -> Result<(), Errno> {
        while self.take() {
            if !self.write()? {
                break;
            }
            // Whole lines were written behind it.
            self.target.begun = Vec::new();
            self.lines.clear();
            if self.lines.capacity() > KEPT {
                self.lines = Vec::new();
            }
            self.written = 0;
        }
        Ok(())
    }

    /// Waits for lines and takes all there are; false where none come any more.
    fn take(&mut self) -> bool {
        let mut inbox = self.shared.inbox();
        loop {
            if !inbox.lines.is_empty() {
                mem::swap(&mut inbox.lines, &mut self.lines);
                self.end += self.lines.len() as u64;
                return true;
            } else if let Some((target, waiting)) = inbox.next.pop_front() {
                inbox.lines = waiting;
                drop(inbox);
                // Closing a file may take long; nobody is to wait for the lock meanwhile.
                self.target = target;
                self.astray = false;
                inbox = self.shared.inbox();
            } else if inbox.look && self.target.begun.is_empty() {
                // What is begun needs its rest, which is to come at once.
                inbox.look = false;
                drop(inbox);
                self.mind_file(true);
                inbox = self.shared.inbox();
            } else if self.unseen && (inbox.done || inbox.wanted_back || self.is_due()) {
                // What was written last may be lost, and that is to be told.
                drop(inbox);
                self.mind_file(false);
                inbox = self.shared.inbox();
            } else if inbox.done || inbox.wanted_back {
                inbox.back = Some(Unwritten::default());
                self.shared.work.notify_all();
                return false;
            } else {
                let work = &self.shared.work;
                inbox = if self.unseen {
                    let waited = work.wait_timeout(inbox, LOOK);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                } else {
                    work.wait(inbox).unwrap_or_else(PoisonError::into_inner)
                };
            }
        }
    }

    /// Writes what was taken; false where it is wanted back.
    fn write(&mut self) -> Result<bool, Errno> {
        while self.written < self.lines.len() {
            let mut inbox = self.shared.inbox();
            let asked = mem::take(&mut inbox.look);
            if inbox.wanted_back {
                drop(inbox);
                self.give_back();
                return Ok(false);
            }
            drop(inbox);
            if (asked || self.is_due()) && !self.mind_file(asked) {
                self.shared.rest(RETRY);
                continue;
            }
            let next = match self.target.torn {
                // The torn line stays, as a line of its own.
                true => &b"\n"[..],
                false => &self.lines[self.written..],
            };
            let error = match self.target.file.write(next) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(n) => {
                    self.note_written(n);
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::BrokenPipe => {
                    self.give_back();
                    return Err(Errno::PIPE);
                }
                io::ErrorKind::WouldBlock => {
                    let mut output = [PollFd::new(&self.target.file, PollFlags::OUT)];
                    match poll(&mut output, Some(&GLANCE)) {
                        // A signal that this thread handled: no SA_RESTART covers poll(2).
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => {
                            self.give_back();
                            return Err(error);
                        }
                    }
                }
                _ => {
                    if !mem::replace(&mut self.failing, true) {
                        warn!(
                            "record {}: {error}; trying again every second, senders wait when its queue-size is reached",
                            self.target.name
                        );
                    }
                    // No event tells that a disk has room again.
                    self.shared.rest(RETRY);
                }
            }
        }
        Ok(true)
    }

    fn note_written(&mut self, n: usize) {
        self.unseen = true;
        if mem::take(&mut self.failing) {
            let name = &self.target.name;
            info!("record {name}: writing again, nothing was lost");
        }
        if mem::take(&mut self.target.torn) {
            return;
        }
        self.written += n;
        let left = (self.lines.len() - self.written) as u64;
        // Lines that an earlier process had begun, and that are written anew, begin before all positions.
        let written = self.end.saturating_sub(left);
        // What is written anew is no progress. Nobody else stores it.
        if written > self.shared.written.load(Ordering::Relaxed) {
            self.shared.written.store(written, Ordering::SeqCst);
            if self.shared.wanted.swap(false, Ordering::SeqCst) {
                (self.wake)();
            }
        }
    }

    /// Cuts off what is written, up to the last line's end; returns how many bytes of the first line
    /// that is left are. Some of them may be of an earlier process.
    fn cut_written(&mut self) -> usize {
        let end = memchr::memrchr(b'\n', &self.lines[..self.written]);
        let start = end.map_or(0, |at| at + 1);
        self.lines.drain(..start);
        let mut begun = self.written - start;
        self.written = 0;
        let before = mem::take(&mut self.target.begun);
        if end.is_none() && !before.is_empty() {
            begun += before.len();
            self.lines.splice(..0, before);
        }
        begun
    }

    /// Gives back what is not written. What is still in the inbox is the event loop's to take.
    fn give_back(&mut self) {
        let begun = self.cut_written();
        self.shared.inbox().back = Some(Unwritten {
            lines: mem::take(&mut self.lines),
            begun,
            uncertain: 0,
        });
        self.shared.work.notify_all();
    }

    /// Whether the file is to be looked at again. Always where a write failed: the file may have been
    /// removed, and then no line may go into it.
    fn is_due(&self) -> bool {
        self.failing || self.looked.elapsed() >= LOOK
    }

    /// Looks after the file; false while lines may not go into it. `asked`: the record is to go on in what is
    /// at the path.
    fn mind_file(&mut self, asked: bool) -> bool {
        (self.looked, self.unseen) = (Instant::now(), false);
        match self.target.whereabouts() {
            Whereabouts::Unknown => true,
            Whereabouts::AtPath => {
                self.astray = false;
                true
            }
            Whereabouts::Elsewhere => {
                if asked {
                    self.begin_anew(false);
                } else if !mem::replace(&mut self.astray, true) {
                    warn!(
                        "record {}: its file was moved away, and lines go on into it: whoever moves it is to send SIGUSR1 or reload udsd behind that",
                        self.target.name
                    );
                }
                true
            }
            Whereabouts::Nowhere => self.begin_anew(true),
        }
    }

    /// Goes on in the file that is at the path, or a new one there; false where none can be had.
    /// `removed`: the one until now has no name any more.
    fn begin_anew(&mut self, removed: bool) -> bool {
        let name = &self.target.name;
        match self.target.anew() {
            Ok(target) => {
                if removed {
                    warn!(
                        "record {name}: its file was removed, and what was written to it since is lost; opened anew: move it, send SIGUSR1 or reload udsd, and only then compress or remove it"
                    );
                } else {
                    info!("record {name}: opened anew, its file was moved away");
                }
                self.go_on_in(target);
                true
            }
            Err(why) if removed => {
                if !mem::replace(&mut self.failing, true) {
                    error!(
                        "record {name}: its file was removed, and no other can be opened: {why}; trying again every second, senders wait when its queue-size is reached"
                    );
                }
                false
            }
            Err(why) => {
                error!(
                    "record {name}: it goes on in the file that was moved away, no other can be opened: {why}"
                );
                self.astray = true;
                false
            }
        }
    }

    fn go_on_in(&mut self, target: Target) {
        self.cut_written();
        (self.astray, self.failing) = (false, false);
        let mut inbox = self.shared.inbox();
        if inbox.next.is_empty() {
            inbox.note(&target);
        }
        drop(inbox);
        self.target = target;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs, process};

    use super::*;
    use crate::record::Writer;

    /// Half a line stands in the old file, written by an earlier process; the whole goes to the new one.
    #[test]
    fn a_line_that_was_begun_in_a_file_that_was_moved_is_whole_in_the_next() {
        let folder = std::env::temp_dir().join(format!("udsd-thread-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let (path, old) = (folder.join("record"), folder.join("record.1"));
        fs::write(&path, "first\nsecond, ha").unwrap();
        let mut target = Target::open(&path, 0o600, None, &[]).unwrap();
        let lines = b"second, half\nthird\n";
        let begun = target.resume(lines, 10).unwrap();
        assert_eq!(begun, 10);
        let mut writer = Writer::start(Ok(target), || {}).unwrap();
        fs::rename(&path, &old).unwrap();
        writer.look();
        writer.append(&mut lines[begun..].to_vec());
        writer.append(&mut b"fourth\n".to_vec());
        assert_eq!(writer.finish_within(Duration::from_secs(60)), 0);
        let texts = [&old, &path].map(|path| fs::read_to_string(path).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        let [old, new] = ["first\nsecond, ha", "second, half\nthird\nfourth\n"];
        assert_eq!(texts, [old, new]);
    }
}
