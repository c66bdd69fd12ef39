//! The record thread: what the event loop hands over is appended to one file or to standard output.
//!
//! The event loop never waits for it: `append` moves bytes under a lock that is never held during a
//! system call. A write that fails is tried again every second and loses nothing; only a standard
//! output that nobody reads any more ends the thread. A record may move to another target: what was
//! handed over before still goes to the old one, and first.

mod target;

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{info, warn};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use target::{FileId, Target, Unopened};

/// How long a failed write waits before the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Targets that a record may be about to move to.
const TARGETS: usize = 8;
/// How often a writer that waits for a reader looks whether its lines are wanted back.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Memory that the thread, or whoever hands over, may keep for the next lines.
const KEPT: usize = 256 * 1024;

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    work: Condvar,
    written: AtomicU64,
    /// The event loop asks to be woken by the next progress.
    wanted: AtomicBool,
    /// Why the thread has ended before its time.
    failed: OnceLock<Errno>,
}

#[derive(Debug, Default)]
struct Inbox {
    lines: Vec<u8>,
    /// Where the record goes once `lines` are written, and what was handed over for there; and so on.
    next: VecDeque<(Target, Vec<u8>)>,
    done: bool,
    /// What is not written is wanted back.
    wanted_back: bool,
    /// Here is what the thread had of it; it has ended, or is about to.
    back: Option<Unwritten>,
}

/// Lines that were handed over and are not written.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// Bytes of the first that stand at the end of the file.
    pub begun: usize,
    /// Bytes before `lines` that were given to a write that has not returned: how many of them will
    /// have been written, nobody can tell.
    pub uncertain: usize,
}

impl Shared {
    /// Gives back `lines` from the one on in which `written` bytes end; the first may have `begun` in
    /// an earlier process. What is still in the inbox is the event loop's to take.
    fn give_back(&self, mut lines: Vec<u8>, mut written: usize, begun: &[u8]) {
        let end = memchr::memrchr(b'\n', &lines[..written]);
        let start = end.map_or(0, |at| at + 1);
        lines.drain(..start);
        if end.is_none() && !begun.is_empty() {
            lines.splice(..0, begun.iter().copied());
            written += begun.len();
        }
        self.inbox().back = Some(Unwritten {
            lines,
            begun: written - start,
            uncertain: 0,
        });
        self.work.notify_all();
    }

    /// Waits for `span`, or until lines are wanted back.
    fn rest(&self, span: Duration) {
        let inbox = self.inbox();
        let resting = |inbox: &mut Inbox| !inbox.wanted_back;
        // How it ended does not matter.
        drop(self.work.wait_timeout_while(inbox, span, resting));
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop's end of one record's thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// As the log names the record.
    pub name: String,
    /// The file that lines go to which are handed over now; `None` for standard output.
    pub file: Option<FileId>,
    /// Bytes that were handed over.
    handed: u64,
    /// Bytes of `written` that the event loop has heard of.
    heard: u64,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `wake` is called from it when there is progress that was asked for.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(target: Target, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (name, file) = (target.name.clone(), target.id);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("record".into())
            .spawn(move || {
                if let Err(error) = write_all(&theirs, target, &wake) {
                    // One thread sets it, once.
                    let _ = theirs.failed.set(error);
                    wake();
                }
            })?;
        Ok(Writer {
            shared,
            name,
            file,
            handed: 0,
            heard: 0,
            thread: Some(thread),
        })
    }

    /// Hands over whole lines; `lines` is empty afterwards.
    pub fn append(&mut self, lines: &mut Vec<u8>) {
        self.handed += lines.len() as u64;
        let mut guard = self.shared.inbox();
        let inbox = &mut *guard;
        let waiting = match inbox.next.back_mut() {
            Some((_, waiting)) => waiting,
            None => &mut inbox.lines,
        };
        if waiting.is_empty() {
            mem::swap(waiting, lines);
        } else {
            waiting.append(lines);
        }
        if lines.capacity() > KEPT {
            *lines = Vec::new();
        }
        drop(guard);
        self.shared.work.notify_one();
    }

    /// Lines that are handed over from now on go to `target`, after those that were before have gone
    /// where they were to go. Not to be called while it `is_stuck`.
    pub fn move_to(&mut self, target: Target) {
        self.name.clone_from(&target.name);
        self.file = target.id;
        self.shared.inbox().next.push_back((target, Vec::new()));
        self.shared.work.notify_one();
    }

    /// Whether so many targets wait for lines to be written before them that there may be no more.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.shared.inbox().next.len() >= TARGETS
    }

    /// Bytes that were handed over and are not written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        (self.handed - self.shared.written.load(Ordering::SeqCst)) as usize
    }

    /// Bytes written since the last call.
    pub fn progress(&mut self) -> usize {
        // SeqCst, like all of `written` and `wanted`: after `want_progress`, either this sees what
        // the thread has written, or the thread sees that it is to wake.
        let written = self.shared.written.load(Ordering::SeqCst);
        (written - mem::replace(&mut self.heard, written)) as usize
    }

    /// Asks for a wake-up at the next progress. What was written before this call is told by
    /// `progress`, which is to be asked once more.
    pub fn want_progress(&self) {
        self.shared.wanted.store(true, Ordering::SeqCst);
    }

    /// Why the thread ended, if it has. Whoever asks is told, however often: a failure that somebody
    /// has seen and passed over still ends the daemon.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.shared.failed.get().map(|&errno| errno.into())
    }

    /// Tells the thread that what it has not written is wanted back. `take_back` waits for that: of
    /// several writers each is told first, lest one have the time of all.
    pub fn want_back(&self) {
        self.shared.inbox().wanted_back = true;
        self.shared.work.notify_all();
    }

    /// Tells the thread to end once all is written. `finish_within` waits for that.
    pub fn want_end(&self) {
        self.shared.inbox().done = true;
        self.shared.work.notify_all();
    }

    /// Ends the thread and takes back what it has not written. Where it is still at a write after
    /// `patience`, the lines which that write was given are not among it, but all after them are.
    pub fn take_back(mut self, patience: Duration) -> Unwritten {
        self.want_back();
        let mut inbox = self.shared.inbox();
        let waiting = |inbox: &mut Inbox| inbox.back.is_none();
        let waited = self
            .shared
            .work
            .wait_timeout_while(inbox, patience, waiting);
        inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        // Under the lock: from here on the thread finds nothing to write in the inbox.
        let mut waiting = mem::take(&mut inbox.lines);
        for (_, mut lines) in mem::take(&mut inbox.next) {
            waiting.append(&mut lines);
        }
        let back = inbox.back.take();
        drop(inbox);
        let Some(mut back) = back else {
            return Unwritten {
                uncertain: self.unwritten() - waiting.len(),
                lines: waiting,
                begun: 0,
            };
        };
        back.lines.append(&mut waiting);
        if let Some(thread) = self.thread.take() {
            // As in `finish`.
            let _ = thread.join();
        }
        back
    }

    /// Ends the thread once all is written, but waits for that no longer than `patience`; returns the
    /// bytes that are not written.
    pub fn finish_within(self, patience: Duration) -> usize {
        self.want_end();
        let inbox = self.shared.inbox();
        let working = |inbox: &mut Inbox| inbox.back.is_none();
        // How it ended shows in what is unwritten.
        drop(
            self.shared
                .work
                .wait_timeout_while(inbox, patience, working),
        );
        self.unwritten()
    }

    /// Ends the thread and waits for it; to be called once all is written, or else this waits for
    /// the disk. A `Writer` that is only dropped leaves its thread to the end of the process.
    pub fn finish(mut self) {
        self.want_end();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the thread.
            let _ = thread.join();
        }
    }
}

/// The thread: takes all lines there are, writes them, and so on until the `Writer` is dropped.
fn write_all(shared: &Shared, target: Target, wake: &impl Fn()) -> Result<(), Errno> {
    let Target {
        mut file,
        mut name,
        torn,
        mut begun,
        ..
    } = target;
    let mut lines = Vec::new();
    // The torn line stays, as a line of its own.
    let mut owed = usize::from(torn);
    let mut failing = false;
    loop {
        if !lines.is_empty() {
            // Whole lines were written behind it.
            begun = Vec::new();
        }
        lines.clear();
        if lines.capacity() > KEPT {
            lines = Vec::new();
        }
        let mut inbox = shared.inbox();
        while inbox.lines.is_empty() {
            if let Some((target, waiting)) = inbox.next.pop_front() {
                inbox.lines = waiting;
                drop(inbox);
                // Closing a file may take long; nobody is to wait for the lock meanwhile.
                file = target.file;
                name = target.name;
                owed = usize::from(target.torn);
                begun = target.begun;
                inbox = shared.inbox();
                continue;
            }
            if inbox.done || inbox.wanted_back {
                inbox.back = Some(Unwritten::default());
                shared.work.notify_all();
                return Ok(());
            }
            inbox = shared
                .work
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut inbox.lines, &mut lines);
        drop(inbox);
        let mut written = 0;
        while written < lines.len() {
            if shared.inbox().wanted_back {
                shared.give_back(lines, written, &begun);
                return Ok(());
            }
            let next = if owed > 0 {
                &b"\n"[..]
            } else {
                &lines[written..]
            };
            let result = match file.write(next) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match result {
                Ok(n) => {
                    if mem::take(&mut failing) {
                        info!("record {name}: writing again, nothing was lost");
                    }
                    if owed > 0 {
                        owed -= n;
                        continue;
                    }
                    written += n;
                    shared.written.fetch_add(n as u64, Ordering::SeqCst);
                    if shared.wanted.swap(false, Ordering::SeqCst) {
                        wake();
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::BrokenPipe => {
                        shared.give_back(lines, written, &begun);
                        return Err(Errno::PIPE);
                    }
                    io::ErrorKind::WouldBlock => {
                        match poll(&mut [PollFd::new(&file, PollFlags::OUT)], Some(&LOOK)) {
                            // A signal that this thread handled: no SA_RESTART covers poll(2).
                            Ok(_) | Err(Errno::INTR) => {}
                            Err(error) => {
                                shared.give_back(lines, written, &begun);
                                return Err(error);
                            }
                        }
                    }
                    _ => {
                        if !mem::replace(&mut failing, true) {
                            warn!(
                                "record {name}: {error}; trying again every second, senders wait when its queue-size is reached"
                            );
                        }
                        // No event tells that a disk has room again.
                        shared.rest(RETRY);
                    }
                },
            }
        }
    }
}
