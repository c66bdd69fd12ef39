//! The record thread: what the event loop hands over is appended to one file or to standard output.
//!
//! The event loop never waits for it: `append` moves bytes under a lock that is never held during a
//! system call. A write that fails is tried again every second and loses nothing; only a standard
//! output that nobody reads any more ends the thread.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    mem,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use log::{info, warn};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

use crate::record;

/// How long a failed write waits before the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Memory that an idle thread may keep for the next lines.
const KEPT: usize = 256 * 1024;

/// Where a record goes.
#[derive(Debug)]
pub struct Target {
    file: File,
    /// As the log names it.
    name: String,
    /// The number of the last whole JSON record that is there; 0 where there is none.
    pub last_seq: u64,
    /// The last line is unfinished: a process ended in the middle of it.
    torn: bool,
}

impl Target {
    /// The daemon's standard output.
    ///
    /// # Errors
    /// Where there is none.
    pub fn standard_output() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Target {
            file,
            name: "standard output".into(),
            last_seq: 0,
            torn: false,
        })
    }

    /// A file, created with `mode` where it is not there, else kept as it is and appended to.
    ///
    /// # Errors
    /// Those of `open(2)`; `AlreadyExists` where it is no regular file; `ResourceBusy` where another
    /// daemon writes it.
    pub fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // NONBLOCK: a FIFO without a reader must be refused, not waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options
            .read(true)
            .append(true)
            .mode(mode)
            .custom_flags(flags.bits().cast_signed());
        let mut file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                // The process may run under a tighter umask than the key asks for.
                file.set_permissions(PermissionsExt::from_mode(mode))?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
            Err(error) => return Err(error),
        };
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_char_device() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something other than a regular file is there; move it away",
            ));
        }
        let mut last = (0, false);
        if kind.is_file() {
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process writes it")
            })?;
            last = last_line(&mut file)?;
        }
        let (last_seq, torn) = last;
        Ok(Target {
            file,
            name: path.display().to_string(),
            last_seq,
            torn,
        })
    }
}

/// The `seq` of the last whole JSON record of a file, and whether an unfinished line follows it.
fn last_line(file: &mut File) -> io::Result<(u64, bool)> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut window = 64 * 1024;
    loop {
        let start = size.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(size - start).read_to_end(&mut tail)?;
        let torn = tail.last().is_some_and(|&byte| byte != b'\n');
        let whole = memchr::memrchr(b'\n', &tail).map_or(&[][..], |end| &tail[..end]);
        // The first line of the window may lack its start.
        let mut lines = whole.rsplit(|&byte| byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() && start > 0 {
                break;
            }
            if let Some(seq) = record::seq_of(line) {
                return Ok((seq, torn));
            }
        }
        if start == 0 {
            return Ok((0, torn));
        }
        window *= 8;
    }
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    work: Condvar,
    written: AtomicU64,
    /// The event loop asks to be woken by the next progress.
    wanted: AtomicBool,
    failed: Mutex<Option<io::Error>>,
}

#[derive(Debug, Default)]
struct Inbox {
    lines: Vec<u8>,
    done: bool,
}

impl Shared {
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
        let name = target.name.clone();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("record".into())
            .spawn(move || {
                if let Err(error) = write_all(&theirs, target, &wake) {
                    *theirs.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    wake();
                }
            })?;
        Ok(Writer {
            shared,
            name,
            heard: 0,
            thread: Some(thread),
        })
    }

    /// Hands over whole lines; `lines` is empty afterwards.
    pub fn append(&self, lines: &mut Vec<u8>) {
        let mut inbox = self.shared.inbox();
        if inbox.lines.is_empty() {
            mem::swap(&mut inbox.lines, lines);
        } else {
            inbox.lines.append(lines);
        }
        drop(inbox);
        self.shared.work.notify_one();
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

    /// Why the thread ended, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.shared
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Writer {
    /// Ends the thread and waits for it; to be called once all is written, or else this waits for
    /// the disk. A `Writer` that is only dropped leaves its thread to the end of the process.
    pub fn finish(mut self) {
        self.shared.inbox().done = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by the thread.
            let _ = thread.join();
        }
    }
}

/// The thread: takes all lines there are, writes them, and so on until the `Writer` is dropped.
fn write_all(shared: &Shared, target: Target, wake: &impl Fn()) -> io::Result<()> {
    let Target {
        mut file,
        name,
        torn,
        ..
    } = target;
    let mut lines = Vec::new();
    // The torn line stays, as a line of its own.
    let mut owed = usize::from(torn);
    let mut failing = false;
    loop {
        lines.clear();
        if lines.capacity() > KEPT {
            lines = Vec::new();
        }
        let mut inbox = shared.inbox();
        while inbox.lines.is_empty() {
            if inbox.done {
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
                    io::ErrorKind::BrokenPipe => return Err(error),
                    io::ErrorKind::WouldBlock => {
                        match poll(&mut [PollFd::new(&file, PollFlags::OUT)], None) {
                            // A signal that this thread handled: no SA_RESTART covers poll(2).
                            Ok(_) | Err(Errno::INTR) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                    _ => {
                        if !mem::replace(&mut failing, true) {
                            warn!(
                                "record {name}: {error}; trying again every second, senders wait when its queue-size is reached"
                            );
                        }
                        // No event tells that a disk has room again.
                        thread::sleep(RETRY);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs, path::PathBuf, process, sync::mpsc};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("udsd-writer-{test}-{}", process::id()));
            fs::create_dir(&folder).unwrap();
            Scratch(folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(path: &Path, text: &str) -> u64 {
        let target = Target::open(path, 0o640).unwrap();
        let last_seq = target.last_seq;
        let (tell, told) = mpsc::channel();
        let mut writer = Writer::start(target, move || tell.send(()).unwrap()).unwrap();
        writer.want_progress();
        writer.append(&mut text.as_bytes().to_vec());
        told.recv().unwrap();
        assert_eq!(writer.progress(), text.len());
        writer.finish();
        last_seq
    }

    #[test]
    fn lines_are_appended_and_their_numbers_found_again() {
        let scratch = Scratch::new("append");
        let path = scratch.0.join("record");
        assert_eq!(write(&path, "{\"seq\":1}\n{\"seq\":2}\n"), 0);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(write(&path, "x\n"), 2);
        fs::write(
            &path,
            format!("{{\"seq\":7}}\n{}\n{{\"seq\":8", "y".repeat(300_000)),
        )
        .unwrap();
        assert_eq!(write(&path, "{\"seq\":8}\n"), 7);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with("y\n{\"seq\":8\n{\"seq\":8}\n"),
            "a torn line stays alone"
        );
    }

    #[test]
    fn a_file_has_one_writer_and_is_a_file() {
        let scratch = Scratch::new("one");
        let path = scratch.0.join("record");
        let _first = Target::open(&path, 0o640).unwrap();
        assert_eq!(
            Target::open(&path, 0o640).unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
        assert!(Target::open(&scratch.0, 0o640).is_err());
        std::os::unix::fs::symlink(&path, scratch.0.join("link")).unwrap();
        assert!(Target::open(&scratch.0.join("link"), 0o640).is_err());
    }
}
