//! What a record is written to: opening a file, going on in it, ending it as a segment, and seeing whether it is
//! still at its path. `check` says which files may be a record, `tail` reads where the last process ended.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use log::warn;

use super::{
    check::{OpenError, check_kind, check_owner, check_writable, open_error, open_file, take_lock},
    line::{is_start, start_of},
    rotation::Segment,
    segment,
    tail::{ends_torn, first_number, last_number, seq_between, torn_start},
};
use crate::lock::Lock;

/// Bytes of a line that tell its time and number, if it has them.
const HEAD: usize = 512;

/// Device and inode of a file.
pub(super) type FileId = (u64, u64);

/// What the config says of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// `None`: standard output.
    pub file: Option<PathBuf>,
    /// The mode of a new file.
    pub mode: u32,
    /// The number of the last JSON record is looked for in so many bytes at the end of the file; in none where
    /// this is `None`.
    pub search: Option<u64>,
}

/// An output that could not be opened.
#[derive(Clone, Debug)]
pub struct NotOpen {
    /// What is tried again.
    pub config: OutputConfig,
    /// Why it failed, as the log has it. Empty where the log has nothing of it: the next failure is told.
    pub why: String,
}

impl OutputConfig {
    /// As the log names it.
    #[must_use]
    pub fn name(&self) -> String {
        let file = self.file.as_ref();
        file.map_or("standard output".into(), |file| file.display().to_string())
    }
}

/// What a record is written to: a file, or standard output.
#[derive(Debug)]
pub struct Output {
    pub(super) file: File,
    pub(super) config: OutputConfig,
    /// Which file that is; `None` for standard output.
    pub(super) id: Option<FileId>,
    /// What keeps other writers from it, where it is a regular file.
    pub(super) lock: Option<Arc<Lock>>,
    /// Where the record goes on.
    pub found: Found,
    /// The last line is unfinished: a process ended in the middle of it.
    pub(super) torn: bool,
    /// What of the first line that comes stands there already.
    pub(super) begun: Vec<u8>,
    /// Its folder is on the disk with its name.
    is_in_folder: bool,
}

/// Where a record goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// The number of its last message that can be known; 0 where there is none.
    pub last_seq: u64,
    /// Its file so far, where it is a regular one.
    pub segment: Option<Segment>,
}

/// Where the file of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// At its path.
    AtPath,
    /// It has another name, and nothing or another file is at its path.
    Moved,
    /// The same, and it has no name any more.
    Removed,
    /// That cannot be told, or it is no regular file.
    Unknown,
}

impl Output {
    /// One without a lock and lines.
    fn new(file: File, config: OutputConfig) -> Self {
        Output {
            file,
            config,
            id: None,
            lock: None,
            found: Found::default(),
            torn: false,
            begun: Vec::new(),
            is_in_folder: false,
        }
    }

    /// Goes on behind the first `begun` bytes of `lines`, if an earlier process had ended with them:
    /// returns how many of `lines` are written already.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn resume(&mut self, lines: &[u8], begun: usize) -> io::Result<usize> {
        let first = lines.get(..begun).unwrap_or_default();
        let start = self.file.metadata()?.len().checked_sub(first.len() as u64);
        let Some(start) = start.filter(|_| self.torn && !first.is_empty()) else {
            return Ok(0);
        };
        let mut there = vec![0; first.len()];
        self.file.read_exact_at(&mut there, start)?;
        if there != first {
            return Ok(0);
        }
        self.torn = false;
        self.begun = first.to_vec();
        Ok(first.len())
    }

    /// Whether it is a regular file.
    pub(super) fn is_regular(&self) -> bool {
        self.lock.is_some()
    }

    /// Has the disk take what was written, and the name of the file with it (`fdatasync(2)`; of a name, `fsync(2)`
    /// of its folder).
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if !self.is_in_folder
            && let Some(folder) = self.config.file.as_deref().and_then(Path::parent)
        {
            File::open(folder)?.sync_all()?;
            self.is_in_folder = true;
        }
        Ok(())
    }

    /// Whether the file has a name. Cheap where it has one: this is asked behind each write.
    pub(super) fn has_name(&self) -> bool {
        let counted = self.file.metadata().is_ok_and(|found| found.nlink() > 0);
        counted || self.file_state() != FileState::Removed
    }

    /// Cuts so many bytes off the end of the file.
    pub(super) fn shorten(&self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let length = self.file.metadata()?.len();
        self.file.set_len(length.saturating_sub(bytes as u64))
    }

    /// Opens it. A file is created where it is not there, else kept as it is and appended to. `held`: the locks
    /// that this process holds, among which its own may be.
    ///
    /// # Errors
    /// `Refused` where it is neither a regular file nor a character device, or its path cannot be
    /// opened as things stand; `Failed` where another process writes it, and with what the kernel
    /// refuses for the moment.
    pub fn open(config: &OutputConfig, held: &[Arc<Lock>]) -> Result<Self, OpenError> {
        let mut output = Output::open_file(config, held)?;
        if let Some(path) = &config.file
            && output.lock.is_some()
        {
            output.found = output.look_for_end(path)?;
        }
        Ok(output)
    }

    /// As `open`, but nothing is looked for in it.
    fn open_file(config: &OutputConfig, held: &[Arc<Lock>]) -> Result<Self, OpenError> {
        let Some(path) = &config.file else {
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            return Ok(Output::new(file, config.clone()));
        };
        let there = fs::symlink_metadata(path);
        // Before a lock file is made for it, and before opening it, which the other end of a FIFO would
        // notice; and after: it may change.
        check_writable(path, there.as_ref().ok())?;
        let lock = match &there {
            Ok(there) if there.file_type().is_char_device() => None,
            _ => Some(take_lock(path, held)?),
        };
        let file =
            open_file(path, config.mode).map_err(|error| open_error(path, error, there.is_ok()))?;
        let found = file.metadata()?;
        check_kind(found.file_type())?;
        check_owner(path, &found)?;
        // Only now: its last writer may have just ended.
        let torn = found.is_file() && ends_torn(&file, file.metadata()?.len())?;
        Ok(Output {
            id: Some((found.dev(), found.ino())),
            lock,
            torn,
            ..Output::new(file, config.clone())
        })
    }

    /// Where the record at `path`, which this is, goes on. Its numbers never go back: where its file has none, as after
    /// a process that ended just when it had ended a segment, they go on behind the last segment.
    fn look_for_end(&self, path: &Path) -> Result<Found, OpenError> {
        let found = self.file.metadata()?;
        let size = found.len();
        let segments = segment::all(path).map_err(|error| {
            io::Error::new(error.kind(), format!("its folder cannot be read: {error}"))
        })?;
        let highest = segments.last().copied();
        // Without numbers in lines, this is all that is known.
        let mut last_seq = highest.unwrap_or(0);
        let mut first = None;
        if let Some(search) = self.config.search {
            first = first_number(&self.file)?;
            let mut last = self.last_number(size)?;
            if let (None, Some(highest)) = (last, highest) {
                last = last_of_segment(&segment::path(path, highest))?;
            }
            last_seq = last_seq.max(last.unwrap_or(0));
            if last.is_none() && size > search {
                warn!(
                    "record {}: no JSON record in its last {search} bytes, numbers start from {}",
                    self.config.name(),
                    last_seq + 1
                );
            }
        }
        let begun = found.created().or_else(|_| found.modified());
        let (begun, first) = first.unwrap_or((begun.unwrap_or(SystemTime::now()), last_seq + 1));
        let segment = Segment {
            first,
            begun,
            bytes: size,
        };
        Ok(Found {
            last_seq,
            segment: Some(segment),
        })
    }

    /// The number of the last JSON line of a file of this size, which may lack its line feed.
    fn last_number(&self, size: u64) -> io::Result<Option<u64>> {
        let Some(search) = self.config.search else {
            return Ok(None);
        };
        if self.torn
            && let Some(start) = torn_start(&self.file, size, search)?
            && let Some(seq) = seq_between(&self.file, start, size)?
        {
            return Ok(Some(seq));
        }
        last_number(&self.file, size, search)
    }

    /// Cuts off a JSON line that an earlier process had begun and nobody finishes. It was never acknowledged, and it
    /// would be in the way of whoever reads the record. Whatever else is unfinished stays, as a line of its own.
    ///
    /// # Errors
    /// Those of reading and cutting.
    pub(super) fn mend(&mut self) -> io::Result<()> {
        let Some(search) = self.config.search.filter(|_| self.torn) else {
            return Ok(());
        };
        let size = self.file.metadata()?.len();
        let Some(start) = torn_start(&self.file, size, search)? else {
            return Ok(());
        };
        let mut torn = vec![0; usize::try_from(size - start).unwrap_or(HEAD).min(HEAD)];
        self.file.read_exact_at(&mut torn, start)?;
        // A whole one lacks only its line feed.
        if !is_start(&torn) || seq_between(&self.file, start, size)?.is_some() {
            return Ok(());
        }
        self.file.set_len(start)?;
        self.torn = false;
        let seq = start_of(&torn).map_or(String::new(), |(_, seq)| format!(" of seq {seq}"));
        warn!(
            "record {}: its last line was not finished when a process ended: cut off, {} bytes{seq}",
            self.config.name(),
            size - start
        );
        Ok(())
    }

    /// Makes the file a segment. `first`: the number of its first message, where it does not say so itself.
    ///
    /// # Errors
    /// Those of `rename(2)`; then it is at its path as before.
    pub(super) fn end_segment(&self, first: u64) -> io::Result<()> {
        let Some(path) = &self.config.file else {
            return Ok(());
        };
        let says = match self.config.search {
            Some(_) => first_number(&self.file)?,
            None => None,
        };
        segment::end(path, says.map_or(first, |(_, first)| first))
    }

    /// What its path leads to now, a new file where there is none.
    ///
    /// # Errors
    /// As `open`.
    pub(super) fn reopen(&self) -> Result<Self, OpenError> {
        // Numbers go on.
        Output::open_file(&self.config, self.lock.as_slice())
    }

    /// Where the file is.
    pub(super) fn file_state(&self) -> FileState {
        let Some(path) = &self.config.file else {
            return FileState::Unknown;
        };
        let is_nameless = match self.file.metadata() {
            Ok(found) if found.is_file() => found.nlink() == 0,
            _ => return FileState::Unknown,
        };
        match fs::symlink_metadata(path) {
            // Some file systems count no names.
            Ok(there) if self.id == Some((there.dev(), there.ino())) => FileState::AtPath,
            Err(error) if error.kind() != io::ErrorKind::NotFound => FileState::Unknown,
            _ if is_nameless => FileState::Removed,
            _ => FileState::Moved,
        }
    }

    /// Which file is at `path` now, if any.
    pub(super) fn at(path: &Path) -> Option<FileId> {
        let there = fs::symlink_metadata(path).ok()?;
        Some((there.dev(), there.ino()))
    }
}

/// The number of the last message of this segment, however far from its end that is.
fn last_of_segment(path: &Path) -> Result<Option<u64>, OpenError> {
    let last = || {
        let file = File::open(path)?;
        last_number(&file, file.metadata()?.len(), u64::MAX)
    };
    // Numbers that were given would be given again.
    last().map_err(|error| {
        let fault = format!(
            "its last segment {} cannot be read: {error}",
            path.display()
        );
        io::Error::new(error.kind(), fault).into()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{
        fs,
        io::Read,
        os::{fd::OwnedFd, unix::fs::PermissionsExt},
        path::PathBuf,
        process,
        sync::mpsc,
        thread,
        time::Duration,
    };

    use super::*;
    use crate::record::Writer;

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

    fn open(path: &Path) -> Result<Output, OpenError> {
        let config = OutputConfig {
            file: Some(path.into()),
            mode: 0o640,
            search: Some(4 << 20),
        };
        Output::open(&config, &[])
    }

    fn write(path: &Path, text: &str) -> u64 {
        let output = open(path).unwrap();
        let last_seq = output.found.last_seq;
        let (tell, told) = mpsc::channel();
        let mut writer = Writer::start(Ok(output), move || tell.send(()).unwrap()).unwrap();
        writer.request_wake();
        writer.append(&mut text.as_bytes().to_vec().into());
        told.recv().unwrap();
        assert_eq!(writer.written(), text.len() as u64);
        writer.finish();
        last_seq
    }

    fn a_pipe(pipe: io::PipeWriter) -> Output {
        Output::new(File::from(OwnedFd::from(pipe)), OutputConfig::default())
    }

    fn line(seq: u64, message: &str) -> String {
        format!("{{\"time\":\"\",\"socket\":\"s\",\"seq\":{seq},\"message\":\"{message}\"}}\n")
    }

    #[test]
    fn numbers_go_on_behind_a_segment_that_ends_in_much_that_is_no_line() {
        let scratch = Scratch::new("behind");
        let path = scratch.0.join("record");
        let other = "y".repeat(5 << 20);
        let text = line(5, "") + &line(6, "") + &other + "\n";
        fs::write(segment::path(&path, 5), text).unwrap();
        assert_eq!(write(&path, &line(7, "")), 6);
    }

    #[test]
    fn lines_are_appended_and_their_numbers_found_again() {
        let scratch = Scratch::new("append");
        let path = scratch.0.join("record");
        assert_eq!(write(&path, &(line(1, "") + &line(2, ""))), 0);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(write(&path, "x\n"), 2);
        let torn = line(8, "").replace("}\n", "");
        let other = "y".repeat(300_000);
        fs::write(&path, line(7, "") + &other + "\n" + &torn).unwrap();
        assert_eq!(write(&path, &line(8, "")), 7);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with(&format!("y\n{}", line(8, ""))),
            "{}",
            &text[text.len() - 99..]
        );
    }

    #[test]
    fn what_was_handed_over_before_a_move_goes_to_the_old_output_and_what_comes_after_to_the_new() {
        let scratch = Scratch::new("move");
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut writer = Writer::start(Ok(a_pipe(pipe)), || {}).unwrap();
        // More than a pipe holds: the writer waits for the reader.
        let first = "first\n".repeat(100_000);
        writer.append(&mut first.clone().into_bytes().into());
        for name in ["a", "b"] {
            let output = open(&scratch.0.join(name)).unwrap();
            assert_eq!(Output::at(&scratch.0.join(name)), output.id);
            writer.move_to(output);
            writer.append(&mut format!("to {name}\n").into_bytes().into());
        }
        let mut came = String::new();
        reader.read_to_string(&mut came).unwrap();
        assert!(came == first);
        assert_eq!(writer.finish_within(Duration::from_secs(60)), 0);
        for name in ["a", "b"] {
            let text = fs::read_to_string(scratch.0.join(name)).unwrap();
            assert_eq!(text, format!("to {name}\n"));
        }
    }

    #[test]
    fn a_failure_stays() {
        let (reader, pipe) = io::pipe().unwrap();
        let (tell, told) = mpsc::channel();
        let wake = move || tell.send(()).unwrap();
        let mut writer = Writer::start(Ok(a_pipe(pipe)), wake).unwrap();
        drop(reader);
        writer.append(&mut b"to nobody\n".to_vec().into());
        told.recv().unwrap();
        for _ in 0..2 {
            let failed = writer.check().unwrap_err().0.to_string();
            assert!(failed.contains("Broken pipe"), "{failed}");
        }
        writer.append(&mut b"nor this\n".to_vec().into());
        let back = writer.stop_within(Duration::from_secs(60));
        assert_eq!(back.lines, b"to nobody\nnor this\n");
        assert_eq!((back.begun, back.uncertain), (0, 0));
    }

    #[test]
    fn what_a_write_that_does_not_return_was_not_given_comes_back() {
        let scratch = Scratch::new("back");
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut writer = Writer::start(Ok(a_pipe(pipe)), || {}).unwrap();
        let first = "first\n".repeat(100_000);
        writer.append(&mut first.clone().into_bytes().into());
        // From here on the thread is at it: a pipe does not hold that much.
        reader.read_exact(&mut [0]).unwrap();
        writer.append(&mut b"second\n".to_vec().into());
        writer.move_to(open(&scratch.0.join("record")).unwrap());
        writer.append(&mut b"third\n".to_vec().into());
        let back = writer.stop_within(Duration::from_millis(1));
        assert_eq!(back.lines, b"second\nthird\n");
        assert_eq!((back.begun, back.uncertain), (0, first.len()));
        let mut came = String::new();
        reader.read_to_string(&mut came).unwrap();
        assert!(came == first[1..], "what came back is written all the same");
        assert_eq!(fs::metadata(scratch.0.join("record")).unwrap().len(), 0);
    }

    #[test]
    fn a_line_that_was_begun_is_finished_however_often_it_comes_back() {
        let (mut reader, pipe) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let patience = Duration::from_secs(60);
        let line = format!("{}\n", "x".repeat(200_000)).into_bytes();
        let mut begun = 0;
        for _ in 0..3 {
            let mut output = a_pipe(pipe.try_clone().unwrap());
            output.begun = line[..begun].to_vec();
            let mut writer = Writer::start(Ok(output), || {}).unwrap();
            writer.append(&mut line[begun..].to_vec().into());
            // As much as the pipe holds.
            while begun == 0 && writer.unwritten() == line.len() {
                thread::yield_now();
            }
            let back = writer.stop_within(patience);
            assert!(back.lines == line, "it came back in part");
            assert!(back.begun > 0 && back.begun >= begun);
            begun = back.begun;
        }
        let mut output = a_pipe(pipe);
        output.begun = line[..begun].to_vec();
        let mut writer = Writer::start(Ok(output), || {}).unwrap();
        writer.append(&mut line[begun..].to_vec().into());
        let mut came = vec![0; line.len()];
        reader.read_exact(&mut came).unwrap();
        assert!(came == line);
        writer.append(&mut b"next\n".to_vec().into());
        reader.read_exact(&mut came[..5]).unwrap();
        let back = writer.stop_within(patience);
        assert_eq!((back.lines.as_slice(), back.begun), (&b""[..], 0));
    }

    #[test]
    fn only_so_many_moves_wait() {
        let scratch = Scratch::new("stuck");
        let (reader, pipe) = io::pipe().unwrap();
        let mut writer = Writer::start(Ok(a_pipe(pipe)), || {}).unwrap();
        writer.append(&mut vec![b'\n'; 1 << 20].into());
        let mut moves = 0;
        while !writer.has_too_many_moves() {
            writer.move_to(open(&scratch.0.join(format!("{moves}"))).unwrap());
            moves += 1;
        }
        assert!(moves < 20);
        assert_ne!(writer.unwritten(), 0);
        // Its end lets the writer go, which fails.
        drop(reader);
    }

    #[test]
    fn a_file_has_one_writer_and_is_a_file() {
        let scratch = Scratch::new("one");
        let path = scratch.0.join("record");
        let _first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Own)));
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&scratch.0, &link] {
            assert!(matches!(open(path), Err(OpenError::Refused(_))));
        }
    }
}
