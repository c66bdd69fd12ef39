//! The writer of a record: the event loop's end of it, and the thread at the other, which writes.
//!
//! The event loop never waits for it: `append` moves bytes under a lock that is never held during a
//! system call. A write that fails is tried again every second and loses nothing; only a standard
//! output that nobody reads any more ends the thread. A record may move to another output: what was
//! handed over before still goes to the old one, and first; so it is where a segment ends. `retry` opens later what
//! cannot be opened now.

mod retry;
mod thread;

use std::{
    collections::VecDeque,
    io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::io::Errno;

use super::{
    Found, Lines, NotOpen, Output, OutputConfig, Position, Progress, Record, SegmentEnd, Segments,
    Statistics, output::FileId, statistics::Failures,
};
use crate::{
    error::{Fatal, Faults},
    lock::Lock,
};
use thread::Thread;

/// Moves to another output that may wait for lines to be written before them.
const MOVES: usize = 8;
/// Memory that the thread, or whoever hands over, may keep for the next lines, bytes.
const KEPT: usize = 256 * 1024;

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    work: Condvar,
    /// The `Position` up to which all is written and, where that is asked for, on the disk.
    written: AtomicU64,
    /// What is written is to be on the disk before it counts as written.
    sync: AtomicBool,
    /// The event loop asks to be woken by the next progress.
    wake_requested: AtomicBool,
    /// Why the thread has ended before its time.
    failed: OnceLock<Errno>,
}

#[derive(Debug, Default)]
struct Inbox {
    lines: Vec<u8>,
    /// What comes once `lines` are written, with the lines that were handed over behind it; and so on.
    next: VecDeque<(Next, Vec<u8>)>,
    /// The output of before a move may still be there, with its lock.
    is_moving: bool,
    /// The file for which lines are handed over now, and its path; `None` for standard output.
    file: Option<FileId>,
    path: Option<PathBuf>,
    /// A segment is about to end, or has ended and has none in its place: another file comes to the path.
    is_rotating: bool,
    /// Its lock.
    lock: Option<Arc<Lock>>,
    /// What the config says of the next file at the path, where it has changed.
    config: Option<OutputConfig>,
    /// What is to be opened, where there is no output so far.
    not_open: Option<NotOpen>,
    /// What was found in the output, where there was none at first and now there is.
    opened: Option<Found>,
    /// What failed in the thread.
    failures: Failures,
    /// What became of segments.
    segments: Segments,
    /// The thread is to check whether its file is still at its path, or to try to open it.
    check_requested: bool,
    /// The thread is to end.
    end: Option<End>,
    /// The thread has ended, or is about to, and had these lines.
    ended: Option<Unwritten>,
}

/// What comes between lines.
#[derive(Debug)]
enum Next {
    /// Lines go to another output.
    MoveTo(Output),
    /// The segment ends whose first message has the number `first`; `keep` are kept.
    EndSegment { first: u64, keep: u32 },
}

impl Next {
    fn is_move(&self) -> bool {
        matches!(self, Next::MoveTo(_))
    }
}

/// How a thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Once all is written. What cannot be opened is tried once more.
    Finished,
    /// Now. It leaves what is not written.
    Stopped,
}

impl Inbox {
    /// Lines that are handed over from now on go to `output`.
    fn set_output(&mut self, output: &Output) {
        self.file = output.id;
        self.path.clone_from(&output.config.file);
        self.lock.clone_from(&output.lock);
    }

    /// Adds lines.
    fn add(&mut self, lines: &mut Vec<u8>) {
        let waiting = match self.next.back_mut() {
            Some((_, waiting)) => waiting,
            None => &mut self.lines,
        };
        if waiting.is_empty() {
            mem::swap(waiting, lines);
        } else {
            waiting.append(lines);
        }
    }

    /// Takes what comes between lines.
    fn pop_next(&mut self) -> Option<Next> {
        let (next, waiting) = self.next.pop_front()?;
        self.lines = waiting;
        self.is_rotating = !next.is_move();
        Some(next)
    }

    /// Whether another file comes to this path, for the lines that are handed over now.
    fn comes_to(&self, file: Option<&Path>) -> bool {
        let ends = self.next.iter().any(|(next, _)| !next.is_move());
        (ends || self.is_rotating) && self.path.as_deref() == file
    }

    fn note_moved(&mut self) {
        self.is_moving = self.next.iter().any(|(next, _)| next.is_move());
    }

    /// Takes all lines out for the next process, with the ends of segments in the last output.
    fn take_all(&mut self, unwritten: &mut Unwritten) {
        unwritten.segments = self.segments;
        unwritten.lines.append(&mut self.lines);
        for (next, mut waiting) in self.next.drain(..) {
            let at = unwritten.lines.len();
            match next {
                Next::MoveTo(_) => unwritten.segment_ends.clear(),
                Next::EndSegment { first, keep } => {
                    unwritten.segment_ends.push(SegmentEnd { at, first, keep });
                }
            }
            unwritten.lines.append(&mut waiting);
        }
    }
}

/// Lines that were handed over and are not written.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// Where segments end between them.
    pub segment_ends: Vec<SegmentEnd>,
    /// Bytes of the first line that stand at the end of the file.
    pub begun: usize,
    /// Bytes before `lines` that were given to a write that has not returned. How many of them will be
    /// written, nobody can tell.
    pub uncertain: usize,
    /// What became of segments under this process.
    pub segments: Segments,
    /// How far all is written, as a `Position` of the process that handed over.
    pub written: Position,
}

impl Shared {
    /// Waits for `span`, or until the thread is to stop or to check its file.
    fn wait(&self, span: Duration) {
        let waits = |inbox: &mut Inbox| inbox.end != Some(End::Stopped) && !inbox.check_requested;
        // How it ended does not matter.
        drop(self.work.wait_timeout_while(self.inbox(), span, waits));
    }

    /// Waits until the thread has ended, or is about to, but no longer than `patience`.
    fn wait_for_end(&self, patience: Duration) -> MutexGuard<'_, Inbox> {
        let works = |inbox: &mut Inbox| inbox.ended.is_none();
        let waited = self.work.wait_timeout_while(self.inbox(), patience, works);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the thread something.
    fn tell(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox());
        self.work.notify_all();
    }
}

/// The event loop's end of one record's thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// As the log names the record.
    pub name: String,
    /// How far lines are handed over.
    handed_over: Position,
    /// The event loop has heard that it is open.
    is_open: bool,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. `wake` is called from it when there is progress after `request_wake`, once what was
    /// not open is open, and when it ends.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        output: Result<Output, NotOpen>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let mut inbox = Inbox::default();
        let (name, output) = match output {
            Ok(output) => {
                inbox.set_output(&output);
                (output.config.name(), Some(output))
            }
            Err(not_open) => {
                let name = not_open.config.name();
                // Where it only waits for other lines, there is nothing to say.
                if !not_open.why.is_empty() {
                    inbox.failures.stop(not_open.why.clone());
                }
                inbox.not_open = Some(not_open);
                (name, None)
            }
        };
        let is_open = output.is_some();
        let inbox = Mutex::new(inbox);
        let shared = Arc::new(Shared {
            inbox,
            ..Shared::default()
        });
        let thread = Thread::start(Arc::clone(&shared), output, wake)?;
        Ok(Writer {
            shared,
            name,
            handed_over: 0,
            is_open,
            thread,
        })
    }

    /// Hands over whole lines; `lines` is empty afterwards.
    pub fn append(&mut self, lines: &mut Lines) {
        let Lines {
            bytes,
            segment_ends,
        } = lines;
        self.handed_over += bytes.len() as u64;
        let mut parts = Vec::with_capacity(segment_ends.len());
        while let Some(SegmentEnd { at, first, keep }) = segment_ends.pop() {
            parts.push((Next::EndSegment { first, keep }, bytes.split_off(at)));
        }
        let mut inbox = self.shared.inbox();
        inbox.add(bytes);
        inbox.next.extend(parts.into_iter().rev());
        drop(inbox);
        if bytes.capacity() > KEPT {
            *bytes = Vec::new();
        }
        self.shared.work.notify_one();
    }

    /// Whether what is written from now on is to be on the disk before it counts as written.
    pub fn set_sync(&self, sync: bool) {
        self.shared.sync.store(sync, Ordering::Relaxed);
    }

    /// Lines that are handed over from now on go to `output`, once those before have gone where they were
    /// to go. Not to be called where it `has_too_many_moves`.
    pub fn move_to(&mut self, output: Output) {
        self.name = output.config.name();
        self.shared.tell(|inbox| {
            inbox.set_output(&output);
            (inbox.not_open, inbox.is_moving, inbox.config) = (None, true, None);
            inbox.next.push_back((Next::MoveTo(output), Vec::new()));
        });
    }

    /// The next file at the path of this output is made by this config: a segment's, or one in place of a file that
    /// was moved.
    pub fn configure(&self, config: OutputConfig) {
        self.shared.inbox().config = Some(config);
    }

    /// Where there is no output so far, the thread tries to open this one from now on, and at once.
    pub fn reopen(&self, not_open: NotOpen) {
        self.shared.tell(|inbox| {
            if inbox.not_open.is_some() {
                (inbox.not_open, inbox.check_requested) = (Some(not_open), true);
            }
        });
    }

    /// Where there is no output so far, the thread tries at once to open it.
    pub fn retry(&self) {
        self.shared
            .tell(|inbox| inbox.check_requested |= inbox.not_open.is_some());
    }

    /// Whether it is open, as far as `opened` has told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Tells once that what was not open is open: what was found there.
    pub fn opened(&mut self) -> Option<Found> {
        if self.is_open {
            return None;
        }
        let opened = self.shared.inbox().opened;
        self.is_open = opened.is_some();
        opened
    }

    /// Whether lines that are handed over now go to this file, as it is at its path, or to standard output
    /// (`None`); or will once that can be opened.
    #[must_use]
    pub fn writes_to(&self, file: Option<&Path>) -> bool {
        let mut seen = None;
        loop {
            let there = file.and_then(Output::at);
            let inbox = self.shared.inbox();
            if let Some(not_open) = &inbox.not_open {
                return not_open.config.file.as_deref() == file;
            }
            let is_it = inbox.file == there && there.is_some() == file.is_some();
            // A segment may have ended between the two looks, and more that were to end.
            if is_it || inbox.comes_to(file) || seen.replace(inbox.file) == Some(inbox.file) {
                return is_it || inbox.comes_to(file);
            }
        }
    }

    /// The lock of the file for which lines are handed over now, where it is a regular one.
    #[must_use]
    pub fn lock(&self) -> Option<Arc<Lock>> {
        self.shared.inbox().lock.clone()
    }

    /// Has the thread check whether its file is still at its path. Where it is not, the record goes on in
    /// the file that is there, or a new one, as soon as a line ends.
    pub fn request_check(&self) {
        self.shared.tell(|inbox| inbox.check_requested = true);
    }

    /// Whether there may be no further move: each waits for lines to be written before it.
    #[must_use]
    pub fn has_too_many_moves(&self) -> bool {
        let inbox = self.shared.inbox();
        let moves = inbox.next.iter().filter(|(next, _)| next.is_move());
        moves.count() >= MOVES
    }

    /// Bytes that were handed over and are not written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        (self.handed_over - self.written()) as usize
    }

    /// How far all is written.
    #[must_use]
    pub fn written(&self) -> Position {
        // SeqCst, like all of `written` and `wake_requested`: after `request_wake`, either this sees what
        // the thread has written, or the thread sees that it is to wake.
        self.shared.written.load(Ordering::SeqCst)
    }

    /// What `record`, whose lines this writes, tells of itself.
    #[must_use]
    pub fn statistics(&self, record: &Record) -> Statistics {
        let Progress {
            waiting,
            written,
            oldest,
        } = record.progress(self.written());
        let inbox = self.shared.inbox();
        let Failures { since, last } = &inbox.failures;
        Statistics {
            name: self.name.clone(),
            is_open: self.is_open,
            waiting,
            written,
            behind_since: oldest.into_iter().chain(*since).min(),
            last_error: last.clone(),
            segments: record.segments(inbox.segments),
        }
    }

    /// Asks for a wake-up at the next progress. What was written before this call is told by
    /// `written`, which is to be asked once more.
    pub fn request_wake(&self) {
        self.shared.wake_requested.store(true, Ordering::SeqCst);
    }

    /// Whether the thread still writes.
    ///
    /// # Errors
    /// Why it ended. Whoever asks is told, however often: a failure that somebody has seen and passed over
    /// still ends the daemon.
    pub fn check(&self) -> Result<(), Fatal> {
        let failed = self.shared.failed.get();
        failed.map_or(Ok(()), |&errno| {
            let error = io::Error::from(errno);
            Err(Faults::System(format!("record {}: {error}", self.name)).into())
        })
    }

    /// Tells the thread to stop. `stop_within` waits for that: of several writers each is told first, or
    /// one could use up the time of all.
    pub fn request_stop(&self) {
        self.shared.tell(|inbox| inbox.end = Some(End::Stopped));
    }

    /// Tells the thread to end once all is written. `finish_within` waits for that.
    pub fn request_finish(&self) {
        self.shared.tell(|inbox| inbox.end = Some(End::Finished));
    }

    /// Stops the thread and returns what it has not written. Where it is still at a write after
    /// `patience`, the lines which that write was given are not among it, but all after them are.
    pub fn stop_within(self, patience: Duration) -> Unwritten {
        self.request_stop();
        let mut inbox = self.shared.wait_for_end(patience);
        // Under the lock: from here on the thread finds nothing to write in the inbox.
        let ended = inbox.ended.take();
        let has_ended = ended.is_some();
        let mut unwritten = ended.unwrap_or_default();
        inbox.take_all(&mut unwritten);
        drop(inbox);
        unwritten.written = self.written();
        if has_ended {
            // As in `finish`.
            let _ = self.thread.join();
        } else {
            let left = (self.handed_over - unwritten.written) as usize;
            unwritten.uncertain = left - unwritten.lines.len();
        }
        unwritten
    }

    /// Whether lines may still go to an output of before a move, whose file is locked until then.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.shared.inbox().is_moving
    }

    /// Whether the thread has ended, or is about to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.inbox().ended.is_some()
    }

    /// Ends the thread once all is written, but waits for that no longer than `patience`; returns the
    /// bytes that are not written.
    pub fn finish_within(self, patience: Duration) -> usize {
        self.request_finish();
        // How it ended shows in what is unwritten.
        drop(self.shared.wait_for_end(patience));
        self.unwritten()
    }

    /// Ends the thread and waits for it; to be called once all is written, or else this waits for the
    /// disk. It does not wait for a thread that tries to open its output. A `Writer` that is only dropped leaves its
    /// thread to the end of the process.
    pub fn finish(self) {
        self.request_finish();
        if self.is_open || self.has_ended() {
            // A panic of the thread has been printed by the thread.
            let _ = self.thread.join();
        }
    }
}
