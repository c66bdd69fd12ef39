//! The record of a socket: `line` makes a message a line, `queue` counts what waits, and `Writer` hands the
//! lines to a `thread` that appends them to one file or to standard output.
//!
//! The event loop never waits for it: `append` moves bytes under a lock that is never held during a
//! system call. A write that fails is tried again every second and loses nothing; only a standard
//! output that nobody reads any more ends the thread. A record may move to another target: what was
//! handed over before still goes to the old one, and first. `file` opens, `check` says which files may be
//! a record, `tail` reads where numbers stand, and `closed` tries again what could not be opened.
//!
//! How far each of them is, is a `Position` on one scale: lines are handed over, then written. What is
//! between two positions is what waits between the two.

mod check;
mod closed;
mod file;
mod line;
mod queue;
mod tail;
mod thread;

use std::{
    collections::VecDeque,
    io, mem,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::io::Errno;

pub use check::{Unopened, look};
pub use closed::{Closed, Opening};
pub use file::{FileId, Target};
pub use line::{Encoder, Format, Line};
pub use queue::{Mark, Record};

use thread::Thread;

use crate::{error::Fatal, lock::Lock};

/// Targets that a record may be about to move to.
const TARGETS: usize = 8;
/// Memory that the thread, or whoever hands over, may keep for the next lines.
const KEPT: usize = 256 * 1024;

/// A place between lines, or within one: the bytes that stand before it, of all that this process has
/// handed over to the record. It only grows, whatever file the lines go to.
pub type Position = u64;

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    work: Condvar,
    /// The `Position` up to which all is written.
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
    /// The file that lines go to which are handed over now; `None` for standard output.
    file: Option<FileId>,
    /// Its lock.
    lock: Option<Arc<Lock>>,
    /// It is not open.
    closed: Option<Closed>,
    /// It is since then, and this is the number of the last line there.
    opened: Option<u64>,
    /// The thread is to look whether its file is still at its path.
    look: bool,
    done: bool,
    /// What is not written is wanted back.
    wanted_back: bool,
    /// Here is what the thread had of it; it has ended, or is about to.
    back: Option<Unwritten>,
}

impl Inbox {
    /// Lines that are handed over from now on go to `target`.
    fn note(&mut self, target: &Target) {
        self.file = target.id;
        self.lock.clone_from(&target.lock);
    }
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
    /// Waits for `span`, or until lines are wanted back, or another file may be at the path.
    fn rest(&self, span: Duration) {
        let inbox = self.inbox();
        let resting = |inbox: &mut Inbox| !inbox.wanted_back && !inbox.look;
        // How it ended does not matter.
        drop(self.work.wait_timeout_while(inbox, span, resting));
    }

    /// Waits until the thread has ended, or is about to, but no longer than `patience`.
    fn wait_for_end(&self, patience: Duration) -> MutexGuard<'_, Inbox> {
        let working = |inbox: &mut Inbox| inbox.back.is_none();
        let waited = self
            .work
            .wait_timeout_while(self.inbox(), patience, working);
        waited.unwrap_or_else(PoisonError::into_inner).0
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
    /// The end of what was handed over.
    handed_over: Position,
    /// The event loop has heard that it is open.
    is_open: bool,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `wake` is called from it when there is progress that was asked for, and once
    /// what is closed is open.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        target: Result<Target, Closed>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let is_open = target.is_ok();
        let (name, target) = match target {
            Ok(target) => {
                shared.inbox().note(&target);
                (target.name.clone(), Some(target))
            }
            Err(closed) => {
                let name = closed.opening.name();
                shared.inbox().closed = Some(closed);
                (name, None)
            }
        };
        let thread = Thread::start(Arc::clone(&shared), target, wake)?;
        Ok(Writer {
            shared,
            name,
            handed_over: 0,
            is_open,
            thread: Some(thread),
        })
    }

    /// Hands over whole lines; `lines` is empty afterwards.
    pub fn append(&mut self, lines: &mut Vec<u8>) {
        self.handed_over += lines.len() as u64;
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
        let mut inbox = self.shared.inbox();
        inbox.note(&target);
        inbox.closed = None;
        inbox.next.push_back((target, Vec::new()));
        drop(inbox);
        self.shared.work.notify_one();
    }

    /// Of what is not open, this is tried from now on, and at once.
    pub fn try_again(&self, closed: Closed) {
        let mut inbox = self.shared.inbox();
        if inbox.closed.is_some() {
            (inbox.closed, inbox.look) = (Some(closed), true);
        }
        drop(inbox);
        self.shared.work.notify_all();
    }

    /// Whether it is open, as far as `opened` has told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Tells once that what was closed is open: the number of the last line there.
    pub fn opened(&mut self) -> Option<u64> {
        if self.is_open {
            return None;
        }
        let opened = self.shared.inbox().opened;
        self.is_open = opened.is_some();
        opened
    }

    /// Whether it has not been able to open this file, or standard output, so far.
    #[must_use]
    pub fn lacks(&self, file: Option<&Path>) -> bool {
        let inbox = self.shared.inbox();
        let closed = inbox.closed.as_ref();
        closed.is_some_and(|closed| closed.opening.file.as_deref() == file)
    }

    /// Whether lines that are handed over now go to standard output.
    #[must_use]
    pub fn is_standard_output(&self) -> bool {
        let inbox = self.shared.inbox();
        inbox.file.is_none() && inbox.closed.is_none()
    }

    /// The file that lines go to which are handed over now; `None` for standard output.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        self.shared.inbox().file
    }

    /// The lock of that file, where it is a regular one.
    #[must_use]
    pub fn lock(&self) -> Option<Arc<Lock>> {
        self.shared.inbox().lock.clone()
    }

    /// Has the thread look whether its file is still at its path: where it is not, the record goes on in
    /// the one that is there, or a new one, as soon as a line ends.
    pub fn look(&self) {
        self.shared.inbox().look = true;
        self.shared.work.notify_all();
    }

    /// Whether so many targets wait for lines to be written before them that there may be no more.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.shared.inbox().next.len() >= TARGETS
    }

    /// Bytes that were handed over and are not written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        (self.handed_over - self.written()) as usize
    }

    /// Up to where all is written.
    #[must_use]
    pub fn written(&self) -> Position {
        // SeqCst, like all of `written` and `wanted`: after `want_progress`, either this sees what
        // the thread has written, or the thread sees that it is to wake.
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Asks for a wake-up at the next progress. What was written before this call is told by
    /// `written`, which is to be asked once more.
    pub fn want_progress(&self) {
        self.shared.wanted.store(true, Ordering::SeqCst);
    }

    /// Whether the thread still writes.
    ///
    /// # Errors
    /// Why it ended. Whoever asks is told, however often: a failure that somebody has seen and passed over
    /// still ends the daemon.
    pub fn check(&self) -> Result<(), Fatal> {
        match self.shared.failed.get() {
            None => Ok(()),
            Some(&errno) => Err(Fatal::Record {
                record: self.name.clone(),
                source: errno.into(),
            }),
        }
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
        let mut inbox = self.shared.wait_for_end(patience);
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
        // How it ended shows in what is unwritten.
        drop(self.shared.wait_for_end(patience));
        self.unwritten()
    }

    /// Ends the thread and waits for it; to be called once all is written, or else this waits for
    /// the disk. Of one that is not open nothing is left to wait for. A `Writer` that is only dropped leaves its thread to the end of the process.
    pub fn finish(mut self) {
        self.want_end();
        if self.is_open
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread has been printed by the thread.
            let _ = thread.join();
        }
    }
}
