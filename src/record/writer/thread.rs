//! A record's thread: takes all lines there are, writes them, and so on until it is told to end.
//!
//! It also checks its file, every `CHECK` where it writes. One that is no longer at its path, as after a
//! rotation by others, is told in the log, and exchanged when that is asked for. One that has no name at
//! all would lose whatever is written to it: it is exchanged as soon as that is seen, and until that
//! succeeds its lines wait. The first line that does not count as written then goes to the new one, from its start.
//!
//! Lines of a file count as written once it still has a name behind them, and under `sync` once the disk has them:
//! after all that was there to be written, one fdatasync(2) serves all who wait. What the disk did not take may be
//! gone from memory too, whatever a later attempt says (`fsync(2)`): it is cut off the file and written anew.
//!
//! A segment ends when all lines before its end are written. Where the file cannot be renamed, the segment goes on:
//! no line waits for that. Where no new file can be had behind it, lines wait.

use std::{
    fs,
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

use super::{End, KEPT, Next, Shared, Unwritten, retry::open_later};
use crate::{
    record::{OpenError, Output, Position, output::FileState, segment},
    throttle::Throttle,
};

/// How long a failed write waits before the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is checked whether the file is at its path: not with each write, which would cost as many look-ups.
const CHECK: Duration = Duration::from_millis(100);
/// How often a thread that waits for a reader looks whether it is to stop.
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

pub(super) struct Thread<W> {
    shared: Arc<Shared>,
    wake: W,
    output: Output,
    /// What is to be written.
    lines: Vec<u8>,
    /// Where it ends.
    end: Position,
    /// Bytes of it that are written to this output.
    written: usize,
    /// Bytes of those that do not count yet: whether they are stored is not known.
    unstored: usize,
    /// Bytes at the end of the file that are to be cut off: the disk did not take them, or the file has no name.
    refused: usize,
    /// A write failed, which was said.
    failing: bool,
    /// When the file was checked last.
    checked: Instant,
    /// It was written since.
    unchecked: bool,
    /// The file is not at its path, which was said.
    moved: bool,
    /// The file is a segment by now, and there is none in its place: how many segments are kept.
    ended: Option<u32>,
    /// A segment could not be ended, or an old one not removed, which was said.
    cannot_rotate: bool,
    /// Lines of the log that tell of old segments that were removed.
    removals: Throttle,
}

impl<W: Fn() + Send + 'static> Thread<W> {
    /// Starts it. `wake` is called when there is progress that was asked for. `output`: `None` where it
    /// is not open.
    pub(super) fn start(
        shared: Arc<Shared>,
        output: Option<Output>,
        wake: W,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("record".into()).spawn(move || {
            let is_open = output.is_some();
            let Some(output) = output.or_else(|| open_later(&shared)) else {
                shared.tell(|inbox| inbox.ended = Some(Unwritten::default()));
                return wake();
            };
            if !is_open {
                wake();
            }
            let mut all = Thread {
                shared,
                wake,
                output,
                lines: Vec::new(),
                end: 0,
                written: 0,
                unstored: 0,
                refused: 0,
                failing: false,
                checked: Instant::now(),
                unchecked: false,
                moved: false,
                ended: None,
                cannot_rotate: false,
                removals: Throttle::default(),
            };
            all.mend();
            let outcome = all.write_all();
            let begun = all.drop_written();
            let unwritten = Unwritten {
                lines: all.lines,
                begun,
                ..Unwritten::default()
            };
            if let Err(error) = outcome {
                // One thread sets it, once.
                let _ = all.shared.failed.set(error);
            }
            // What is still in the inbox is the event loop's to take.
            all.shared.tell(|inbox| inbox.ended = Some(unwritten));
            (all.wake)();
        })
    }

    /// Writes what comes, until the thread is to end.
    fn write_all(&mut self) -> Result<(), Errno> {
        while self.next_lines() && self.write()? {
            // Whole lines were written behind it.
            self.output.begun = Vec::new();
            self.lines.clear();
            if self.lines.capacity() > KEPT {
                self.lines = Vec::new();
            }
            self.written = 0;
        }
        Ok(())
    }

    /// Waits for lines and takes all there are; false where the thread is to end.
    fn next_lines(&mut self) -> bool {
        let mut inbox = self.shared.inbox();
        loop {
            // What is begun needs its rest, which is to come at once.
            let asked = inbox.check_requested && self.output.begun.is_empty();
            if !inbox.lines.is_empty() {
                mem::swap(&mut inbox.lines, &mut self.lines);
                self.end += self.lines.len() as u64;
                return true;
            } else if let Some(next) = inbox.pop_next() {
                drop(inbox);
                // This may take long; nobody is to wait for the lock meanwhile.
                match next {
                    Next::MoveTo(output) => {
                        self.output = output;
                        (self.moved, self.ended) = (false, None);
                    }
                    Next::EndSegment { first, keep } => self.end_segment(first, keep),
                }
                inbox = self.shared.inbox();
                inbox.is_rotating = self.ended.is_some();
                inbox.note_moved();
            } else if asked || self.unchecked && (inbox.end.is_some() || self.is_check_due()) {
                // What was written last may be lost, and that is to be told.
                inbox.check_requested &= !asked;
                drop(inbox);
                self.check_file(asked);
                inbox = self.shared.inbox();
            } else if inbox.end.is_some() {
                return false;
            } else {
                let work = &self.shared.work;
                inbox = if self.unchecked {
                    let waited = work.wait_timeout(inbox, CHECK);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                } else {
                    work.wait(inbox).unwrap_or_else(PoisonError::into_inner)
                };
            }
        }
    }

    /// Writes what was taken; false where the thread is to stop before all is written.
    fn write(&mut self) -> Result<bool, Errno> {
        while self.written < self.lines.len() || !self.store() {
            let mut inbox = self.shared.inbox();
            if inbox.end == Some(End::Stopped) {
                drop(inbox);
                self.store();
                self.leave_file();
                return Ok(false);
            }
            let asked = mem::take(&mut inbox.check_requested);
            drop(inbox);
            if (asked || self.is_check_due()) && !self.check_file(asked) {
                self.shared.wait(RETRY);
                continue;
            }
            if self.refused > 0 {
                // The disk has failed just now.
                self.shared.wait(RETRY);
                if !self.remove_refused() {
                    continue;
                }
            }
            self.mend();
            let next = match self.output.torn {
                // The torn line stays, as a line of its own.
                true => &b"\n"[..],
                false => &self.lines[self.written..],
            };
            let error = match self.output.file.write(next) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(n) => {
                    self.note_written(n);
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::BrokenPipe => return Err(Errno::PIPE),
                // A pipe that somebody has made non-blocking.
                io::ErrorKind::WouldBlock => {
                    let mut output = [PollFd::new(&self.output.file, PollFlags::OUT)];
                    match poll(&mut output, Some(&POLL)) {
                        // A signal that this thread handled: no SA_RESTART covers poll(2).
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error),
                    }
                }
                _ => {
                    // What is written counts, and is not waited for.
                    self.store();
                    if self.fail(error.to_string()) {
                        warn!(
                            "record {}: {error}; trying again every second, senders wait when its queue-size is reached, or messages are dropped (on-full)",
                            self.output.config.name()
                        );
                    }
                    // No event tells that a disk has room again.
                    self.shared.wait(RETRY);
                }
            }
        }
        Ok(true)
    }

    /// Something failed, and no line is written until it succeeds. Whether it is the first such failure in a row.
    fn fail(&mut self, what: String) -> bool {
        self.shared.inbox().failures.stop(what);
        !mem::replace(&mut self.failing, true)
    }

    fn note_written(&mut self, n: usize) {
        self.unchecked = true;
        if mem::take(&mut self.output.torn) {
            return;
        }
        self.written += n;
        if self.output.is_regular() {
            self.unstored += n;
        } else {
            self.publish();
        }
    }

    /// Has what is written to the file count, and tells how far that is: under `sync` the disk is to take it first.
    /// False where it does not, and where the file has no name any more: nobody will find that.
    fn store(&mut self) -> bool {
        if self.unstored > 0 {
            let synced = match self.shared.sync.load(Ordering::Relaxed) {
                true => self.output.sync(),
                false => Ok(()),
            };
            if let Err(error) = &synced
                && self.fail(format!("the disk does not take it: {error}"))
            {
                warn!(
                    "record {}: the disk does not take it: {error}; written anew every second, nobody is told that it is stored",
                    self.output.config.name()
                );
            }
            // It may have lost it meanwhile. What is to be said of that, the next check says.
            if synced.is_err() || !self.output.has_name() {
                self.refused += self.unstored;
                self.written -= mem::take(&mut self.unstored);
                return false;
            }
            self.unstored = 0;
            self.publish();
        }
        true
    }

    /// Cuts off what is not stored; false where that fails.
    fn remove_refused(&mut self) -> bool {
        match self.output.shorten(self.refused) {
            Ok(()) => {
                self.refused = 0;
                true
            }
            Err(error) => {
                self.shared
                    .inbox()
                    .failures
                    .stop(format!("the end of its file cannot be cut off: {error}"));
                false
            }
        }
    }

    /// No more is written to this file: what is not stored goes to another.
    fn leave_file(&mut self) {
        if !self.remove_refused() {
            error!(
                "record {}: what the disk did not take cannot be cut off and may stand there twice",
                self.output.config.name()
            );
            self.refused = 0;
        }
    }

    /// Tells how far all is written.
    fn publish(&mut self) {
        if mem::take(&mut self.failing) {
            self.shared.inbox().failures.since = None;
            let name = self.output.config.name();
            info!("record {name}: writing again");
        }
        let left = (self.lines.len() - self.written) as u64;
        // Lines that an earlier process had begun, and that are written anew, begin before all positions.
        let written = self.end.saturating_sub(left);
        // What is written anew is no progress. Nobody else stores it.
        if written > self.shared.written.load(Ordering::Relaxed) {
            self.shared.written.store(written, Ordering::SeqCst);
            if self.shared.wake_requested.swap(false, Ordering::SeqCst) {
                (self.wake)();
            }
        }
    }

    /// Cuts off what is written, up to the last line's end; returns how many bytes of the first line
    /// that is left are. Some of them may be of an earlier process.
    fn drop_written(&mut self) -> usize {
        let end = memchr::memrchr(b'\n', &self.lines[..self.written]);
        let start = end.map_or(0, |at| at + 1);
        self.lines.drain(..start);
        let mut begun = mem::take(&mut self.written) - start;
        let before = mem::take(&mut self.output.begun);
        if end.is_none() && !self.lines.is_empty() {
            begun += before.len();
            self.lines.splice(..0, before);
        }
        begun
    }

    /// Whether the file is to be checked again. Always where a write failed or does not count: the file may
    /// have been removed, and then no line may go into it.
    fn is_check_due(&self) -> bool {
        self.failing || self.refused > 0 || self.checked.elapsed() >= CHECK
    }

    /// Checks the file; false while lines may not go into it. `asked`: the record is to go on in what is
    /// at the path.
    fn check_file(&mut self, asked: bool) -> bool {
        (self.checked, self.unchecked) = (Instant::now(), false);
        match self.output.file_state() {
            // A segment takes no more.
            FileState::Unknown => self.ended.is_none(),
            FileState::AtPath => {
                (self.moved, self.ended) = (false, None);
                true
            }
            FileState::Moved => {
                if let Some(keep) = self.ended {
                    return self.begin_segment(keep);
                }
                if asked {
                    self.reopen(false);
                } else if !mem::replace(&mut self.moved, true) {
                    warn!(
                        "record {}: its file was moved away, and lines go on into it: whoever moves it is to send SIGUSR1 or reload udsd behind that",
                        self.output.config.name()
                    );
                }
                true
            }
            FileState::Removed => self.reopen(true),
        }
    }

    /// Goes on in the file that is at the path, or a new one there; false where none can be had.
    /// `removed`: the one until now has no name any more.
    fn reopen(&mut self, removed: bool) -> bool {
        let name = self.output.config.name();
        match self.open_next() {
            Ok(output) => {
                if removed {
                    let lost = "its file was removed with what it alone had";
                    self.shared.inbox().failures.note(lost.into());
                    warn!(
                        "record {name}: its file was removed, and what it alone had is lost; opened anew: move it, send SIGUSR1 or reload udsd, and only then compress or remove it"
                    );
                } else {
                    info!("record {name}: opened anew, its file was moved away");
                }
                self.go_on_in(output);
                true
            }
            Err(why) if removed => {
                if self.fail(format!("its file was removed, and no other opens: {why}")) {
                    error!(
                        "record {name}: its file was removed, and no other can be opened: {why}; trying again every second, senders wait when its queue-size is reached, or messages are dropped (on-full)"
                    );
                }
                false
            }
            Err(why) => {
                error!(
                    "record {name}: it goes on in the file that was moved away, no other can be opened: {why}"
                );
                let failed = format!("its file was moved away, and no other opens: {why}");
                self.shared.inbox().failures.note(failed);
                self.moved = true;
                false
            }
        }
    }

    /// Opens what is at the path, by the config of now.
    fn open_next(&mut self) -> Result<Output, OpenError> {
        let mut inbox = self.shared.inbox();
        if let Some(config) = inbox.config.take() {
            self.output.config = config;
        }
        drop(inbox);
        self.output.reopen()
    }

    /// Makes the file a segment and goes on in a new one; all lines before its end are written.
    fn end_segment(&mut self, first: u64, keep: u32) {
        match self.output.file_state() {
            // A device has no end.
            FileState::Unknown => {}
            // Whoever moved the file has ended it.
            FileState::Moved | FileState::Removed => drop(self.check_file(true)),
            FileState::AtPath => match self.output.end_segment(first) {
                Ok(()) => {
                    self.shared.inbox().segments.ended += 1;
                    self.ended = Some(keep);
                    self.begin_segment(keep);
                }
                // Somebody moved it just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.check_file(true);
                }
                Err(error) => {
                    if self.cannot_rotate(format!("its file cannot be renamed: {error}")) {
                        let name = self.output.config.name();
                        error!(
                            "record {name}: its file cannot be renamed to end a segment, which goes on: {error}; it is tried again with the next"
                        );
                    }
                }
            },
        }
    }

    /// Goes on in a new file where the last became a segment; false where none can be had. Removes what is too much.
    fn begin_segment(&mut self, keep: u32) -> bool {
        match self.open_next() {
            Ok(output) => self.go_on_in(output),
            Err(why) => {
                if self.fail(format!("no new file opens behind its segment: {why}")) {
                    let name = self.output.config.name();
                    error!(
                        "record {name}: no new file can be opened behind its segment: {why}; trying again every second, senders wait when its queue-size is reached, or messages are dropped (on-full)"
                    );
                }
                return false;
            }
        }
        match self.remove_old(keep) {
            Ok(()) => self.cannot_rotate = false,
            Err(error) => {
                if self.cannot_rotate(format!("an old segment cannot be removed: {error}")) {
                    let name = self.output.config.name();
                    error!(
                        "record {name}: an old segment cannot be removed: {error}; it is tried again when the next ends"
                    );
                }
            }
        }
        true
    }

    /// Removes the oldest segments where there are more than `keep`.
    fn remove_old(&mut self, keep: u32) -> io::Result<()> {
        let file = self.output.config.file.as_ref();
        let Some(file) = file.filter(|_| keep > 0) else {
            return Ok(());
        };
        for old in segment::too_many(file, keep)? {
            match fs::remove_file(&old) {
                // Somebody else was first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed?,
            }
            self.shared.inbox().segments.removed += 1;
            if let Some(left_out) = self.removals.pass(1, Instant::now()) {
                let (name, old) = (self.output.config.name(), old.display());
                let more = match left_out.events {
                    0 => String::new(),
                    more => format!(", and {more} before it"),
                };
                info!("record {name}: segment removed, since keep = {keep}: {old}{more}");
            }
        }
        Ok(())
    }

    /// Segments do not end or go as they should, and lines are written all the same. Whether it is the first time in
    /// a row.
    fn cannot_rotate(&mut self, what: String) -> bool {
        self.shared.inbox().failures.note(what);
        !mem::replace(&mut self.cannot_rotate, true)
    }

    /// Cuts off what an earlier process left of a line. Where that cannot be, writing says what is wrong.
    fn mend(&mut self) {
        if self.output.torn
            && let Err(error) = self.output.mend()
            && !self.failing
        {
            let name = self.output.config.name();
            warn!("record {name}: its last line is unfinished and cannot be cut off: {error}");
        }
    }

    fn go_on_in(&mut self, output: Output) {
        self.store();
        self.leave_file();
        self.drop_written();
        (self.moved, self.failing, self.ended) = (false, false, None);
        let mut inbox = self.shared.inbox();
        inbox.is_rotating = false;
        inbox.failures.since = None;
        if !inbox.next.iter().any(|(next, _)| next.is_move()) {
            inbox.set_output(&output);
        }
        drop(inbox);
        self.output = output;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs, process};

    use super::*;
    use crate::record::{OutputConfig, Writer};

    /// Half a line stands in the old file, written by an earlier process; the whole goes to the new one.
    #[test]
    fn a_line_that_was_begun_in_a_file_that_was_moved_is_whole_in_the_next() {
        let folder = std::env::temp_dir().join(format!("udsd-thread-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let (path, old) = (folder.join("record"), folder.join("record.1"));
        fs::write(&path, "first\nsecond, ha").unwrap();
        let config = OutputConfig {
            file: Some(path.clone()),
            mode: 0o600,
            search: None,
        };
        let mut output = Output::open(&config, &[]).unwrap();
        let lines = b"second, half\nthird\n";
        let begun = output.resume(lines, 10).unwrap();
        assert_eq!(begun, 10);
        let mut writer = Writer::start(Ok(output), || {}).unwrap();
        fs::rename(&path, &old).unwrap();
        writer.request_check();
        writer.append(&mut lines[begun..].to_vec().into());
        writer.append(&mut b"fourth\n".to_vec().into());
        assert_eq!(writer.finish_within(Duration::from_secs(60)), 0);
        let texts = [&old, &path].map(|path| fs::read_to_string(path).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        let [old, new] = ["first\nsecond, ha", "second, half\nthird\nfourth\n"];
        assert_eq!(texts, [old, new]);
    }
}
