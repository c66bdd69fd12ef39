//! The whole lines of one file, from any offset on, each with where it stands.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// Memory that is kept for the next lines.
const KEPT: usize = 1 << 20;
/// Bytes of the longest line that is given. For one line twice as much memory may be needed.
pub(super) const LONGEST: usize = 64 << 20;

/// Lines of a file that may grow.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    /// What was read of the file, from `start` on not yet given.
    buffer: Vec<u8>,
    start: usize,
    /// So many bytes from `start` on have no line feed.
    scanned: usize,
    /// Where in the file `start` is.
    offset: u64,
    /// Where the line began that is too long, and is skipped.
    skipping: Option<u64>,
    /// Nothing was there behind `buffer`.
    is_at_end: bool,
    /// Bytes of an unfinished line at the end, as it was seen last.
    unfinished: u64,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins.
    pub(super) offset: u64,
    pub(super) text: Text,
}

/// The text of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// `Lines::text` has it here, without the line feed.
    Whole(Range<usize>),
    /// It is too long.
    TooLong,
    /// It has no line feed.
    Unfinished,
}

impl Lines {
    /// From the start of the file on.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(Lines {
            id: (found.dev(), found.ino()),
            file,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            offset: 0,
            skipping: None,
            is_at_end: false,
            unfinished: 0,
        })
    }

    /// The file at `path`; `None` where there is none.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Lines::new(file).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at `offset`.
    pub(super) fn seek(&mut self, offset: u64) {
        self.offset = offset;
        self.skipping = None;
        self.unfinished = 0;
        self.forget();
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        (self.start, self.scanned, self.is_at_end) = (0, 0, false);
    }

    /// Whether both are one file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Whether the file is at `path`.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match path.metadata() {
            Ok(there) => Ok((there.dev(), there.ino()) == self.id),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Goes back where the file has become shorter than what was read of it: to where its last whole line ends. Whether
    /// it did.
    pub(super) fn follow_cut(&mut self) -> io::Result<bool> {
        let size = self.size()?;
        if size >= self.offset {
            return Ok(false);
        }
        let end = match self.skipping.filter(|&begun| size >= begun) {
            Some(begun) => begun,
            None => self.end(size)?,
        };
        self.seek(end);
        Ok(true)
    }

    /// The unfinished line at the end, if there is one; it is passed over.
    pub(super) fn pass_unfinished(&mut self) -> Option<Found> {
        let offset = self.skipping.take().unwrap_or(self.offset);
        let end = self.offset + self.unfinished;
        self.seek(end);
        let text = Text::Unfinished;
        (end > offset).then_some(Found { offset, text })
    }

    /// The next whole line; `None` where there is none so far. An unfinished line is read anew each time: udsd
    /// cuts off what a crash has left of one, and writes another.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        let mut has_looked = false;
        loop {
            let fresh = &self.buffer[self.start + self.scanned..];
            if let Some(more) = memchr::memchr(b'\n', fresh) {
                return Ok(Some(self.give(self.scanned + more)));
            }
            self.scanned = self.buffer.len() - self.start;
            if self.is_at_end {
                self.unfinished = self.scanned as u64;
                self.forget();
                if has_looked {
                    return Ok(None);
                }
            }
            has_looked = true;
            if self.scanned > LONGEST {
                self.skipping.get_or_insert(self.offset);
                self.offset += self.scanned as u64;
                self.forget();
            }
            self.fill()?;
        }
    }

    fn give(&mut self, length: usize) -> Found {
        let (start, offset) = (self.start, self.offset);
        self.start += length + 1;
        self.offset += length as u64 + 1;
        self.scanned = 0;
        match self.skipping.take() {
            Some(offset) => Found {
                offset,
                text: Text::TooLong,
            },
            None => Found {
                offset,
                text: Text::Whole(start..start + length),
            },
        }
    }

    /// The text of the line that was given last.
    pub(super) fn text(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let there = self.buffer.len();
        let wanted = there.max(CHUNK);
        self.buffer.resize(there + wanted, 0);
        let read = loop {
            let room = &mut self.buffer[there..];
            match self.file.read_at(room, self.offset + there as u64) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(there + *read.as_ref().unwrap_or(&0));
        // A file gives less than was asked for at its end alone. More may be there by now, of another line
        // than the one that ended so.
        self.is_at_end = read? < wanted;
        Ok(())
    }

    /// Where the last lines begin, as many as `is_enough` asks for from the last on; 0 where it never has enough.
    /// An unfinished line at the end is not asked about, nor is one that is too long.
    pub(super) fn last(&self, mut is_enough: impl FnMut(&[u8]) -> bool) -> io::Result<u64> {
        let mut window = vec![0; CHUNK];
        let mut start = self.size()?;
        let mut long = Vec::new();
        // The line feed of the line whose start comes next.
        let mut end = None;
        while start > 0 {
            let above = start;
            start = above.saturating_sub(CHUNK as u64);
            let piece = &mut window[..(above - start) as usize];
            self.file.read_exact_at(piece, start)?;
            let mut rest = piece.len();
            while rest > 0 {
                // The first line has no line feed before it.
                let before = memchr::memrchr(b'\n', &piece[..rest]);
                if before.is_none() && start > 0 {
                    break;
                }
                let first = before.map_or(0, |at| at + 1);
                rest = before.unwrap_or(0);
                let feed = before.map(|at| start + at as u64);
                let Some(end) = std::mem::replace(&mut end, feed) else {
                    continue;
                };
                let offset = start + first as u64;
                let text = match end <= above {
                    true => &piece[first..(end - start) as usize],
                    false if end - offset > LONGEST as u64 => continue,
                    false => {
                        long.resize((end - offset) as usize, 0);
                        self.file.read_exact_at(&mut long, offset)?;
                        &long
                    }
                };
                if is_enough(text) {
                    return Ok(offset);
                }
            }
        }
        Ok(0)
    }

    /// Where the last whole line ends of the first `size` bytes.
    pub(super) fn end(&self, size: u64) -> io::Result<u64> {
        let mut window = vec![0; CHUNK];
        let mut start = size;
        while start > 0 {
            let above = start;
            start = above.saturating_sub(CHUNK as u64);
            let piece = &mut window[..(above - start) as usize];
            match self.file.read_exact_at(piece, start) {
                // It became shorter once more.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    start = self.size()?.min(above);
                    continue;
                }
                read => read?,
            }
            if let Some(at) = memchr::memrchr(b'\n', piece) {
                return Ok(start + at as u64 + 1);
            }
        }
        Ok(0)
    }
}
