//! Reads a record across its segments, in order, and follows it: each message once, also over a rotation, a restart
//! of udsd, or a file that was moved away.
//!
//! The end of a file is the end of the record for now, unless the file is no longer at its path, and lines stand
//! behind it: in the segment with the next number, or in the file at the path. Whatever had been written to the
//! file of before is read first: nobody writes to it once there are lines behind it.
//!
//! Where the reader is falls out of what it has open, so nothing that happens to names meanwhile leads it astray. A
//! segment that was removed before it was read shows in the numbers that are missing. Memory is bounded by
//! the longest line.

mod find;
mod lines;
mod watch;

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

pub use watch::Watch;

use super::{entry::Entry, segment};
use find::IsBefore;
use lines::{Found, Lines, Text};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest line.
    First,
    /// With the message of this number. Where it is no longer there, `Item::Missing` tells it. Some of before may
    /// come first where a file began with what was not udsd's.
    Seq(u64),
    /// With the first message that came at this time or later, if the clock never went back.
    Time(SystemTime),
}

/// What the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lined {
    /// JSON: each is an `Entry`.
    Entries,
    /// Text.
    Text,
}

/// What a record has.
#[derive(Debug)]
pub enum Item<'a> {
    /// A message or a gap, and its line without the line feed.
    Entry(&'a [u8], Box<Entry<'a>>),
    /// A line of text.
    Text(&'a [u8]),
    /// Messages are not there: from this number to that. Those of a gap have no numbers.
    Missing(u64, u64),
    /// What is no line of ours.
    Damaged(Damage),
}

/// Where a file is damaged. Reading goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it the line begins, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A reader of one record.
#[derive(Debug)]
pub struct Reader {
    /// The record's file.
    path: PathBuf,
    lined: Lined,
    current: Place,
    /// What comes behind `current`, once there is something. No more is written to `current` then.
    next: Option<Place>,
    /// The number of the next message.
    expected: Option<u64>,
    /// So many numbers may be missing before it: lines that are damaged tell of them.
    told: u64,
    /// A line that comes next: before it numbers are missing.
    held: Option<Found>,
    /// When the last entry came.
    last: Option<SystemTime>,
    /// The file became shorter: what comes of this time or earlier was given before.
    given: Option<SystemTime>,
    /// Segments as they were listed last; more may have ended since. To list them for each would cost the more the
    /// more there are.
    listed: Vec<u64>,
}

/// A file of the record.
#[derive(Debug)]
struct Place {
    /// Its path, as far as is known.
    path: PathBuf,
    lines: Lines,
    /// Segments with higher numbers stand behind it.
    above: Option<u64>,
}

impl Reader {
    /// Opens the record `path`.
    ///
    /// # Errors
    /// `NotFound` where there is neither the file nor a segment; else those of reading.
    pub fn open(path: &Path, lined: Lined, start: Start) -> io::Result<Self> {
        let is_before: &IsBefore<'_> = &|entry| match start {
            Start::First => Some(false),
            Start::Seq(seq) => entry.seq.map(|number| number < seq),
            Start::Time(time) => Some(entry.time < time),
        };
        let current = match start {
            Start::First => Place::oldest(path)?,
            Start::Seq(seq) => Place::find(path, |number| Ok(number < seq), is_before)?,
            Start::Time(_) => {
                let starts_before = |number| {
                    let lines = Lines::open(&segment::path(path, number))?;
                    lines.map_or(Ok(false), |mut lines| {
                        find::starts_with(&mut lines, is_before)
                    })
                };
                Place::find(path, starts_before, is_before)?
            }
        };
        let mut reader = Reader::at(path, lined, current);
        if let Start::Seq(seq) = start {
            reader.expected = Some(seq);
        }
        Ok(reader)
    }

    /// Opens the record `path` where the last `count` lines begin of those that `is_wanted`; at its end
    /// where `count` is 0.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_last(
        path: &Path,
        lined: Lined,
        count: u64,
        is_wanted: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Self> {
        let listed = look(path, segment::all)?;
        let current = Place::last(path, listed, count, is_wanted)?;
        Ok(Reader::at(path, lined, current))
    }

    fn at(path: &Path, lined: Lined, current: Place) -> Self {
        Reader {
            path: path.into(),
            lined,
            current,
            next: None,
            expected: None,
            told: 0,
            held: None,
            last: None,
            given: None,
            listed: Vec::new(),
        }
    }

    /// What comes next; `None` at the end, so far.
    ///
    /// # Errors
    /// Those of reading.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives is borrowed from it"
    )]
    pub fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let Some((found, held)) = self.find_new()? else {
            return Ok(None);
        };
        let lines = &self.current.lines;
        let mut damaged = |what| {
            self.told += 1;
            Ok(Some(Item::Damaged(Damage {
                path: self.current.path.clone(),
                offset: found.offset,
                what,
            })))
        };
        let text = match &found.text {
            Text::Whole(range) => lines.text(range),
            Text::TooLong => return damaged("a line of over 64 MiB"),
            Text::Unfinished => return damaged("the last line is not whole"),
        };
        if self.lined == Lined::Text {
            return Ok(Some(Item::Text(text)));
        }
        let Some(entry) = Entry::parse(text) else {
            return damaged("no line of a JSON record of udsd");
        };
        self.last = Some(entry.time);
        if let Some(seq) = entry.seq {
            let expected = self.expected.replace(seq + 1).filter(|_| !held);
            if let Some(expected) = expected
                && seq > expected.saturating_add(self.told)
            {
                self.held = Some(found);
                return Ok(Some(Item::Missing(expected, seq - 1)));
            }
            self.told = 0;
        }
        Ok(Some(Item::Entry(text, Box::new(entry))))
    }

    /// As `find`, without what was given before: what the disk refuses, udsd cuts off and writes anew.
    fn find_new(&mut self) -> io::Result<Option<(Found, bool)>> {
        while let Some(found) = self.find()? {
            let Some(given) = self.given else {
                return Ok(Some(found));
            };
            let entry = match &found.0.text {
                Text::Whole(range) => Entry::parse(self.current.lines.text(range)),
                Text::TooLong | Text::Unfinished => None,
            };
            // What is written anew has the time at which it came. Numbers may begin anew: somebody has emptied the
            // file while udsd was stopped.
            let expected = self.expected;
            let is_new = |entry: Entry<'_>| {
                let is_next = entry.seq.is_some_and(|seq| Some(seq) >= expected);
                is_next || entry.time > given
            };
            if entry.is_some_and(is_new) {
                self.given = None;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next line; and whether it was held.
    fn find(&mut self) -> io::Result<Option<(Found, bool)>> {
        if let Some(held) = self.held.take() {
            return Ok(Some((held, true)));
        }
        loop {
            if let Some(found) = self.current.lines.next()? {
                return Ok(Some((found, false)));
            }
            if let Some(next) = self.next.take() {
                if let Some(found) = self.current.lines.pass_unfinished() {
                    self.next = Some(next);
                    return Ok(Some((found, false)));
                }
                self.current = next;
            } else if self.current.lines.is_at(&self.path)? {
                if !self.current.lines.follow_cut()? {
                    return Ok(None);
                }
                self.given = self.last;
            } else {
                // There may be more in this one since its end was seen: it is read once more before the next.
                self.next = Place::behind(&self.path, &mut self.listed, Some(&mut self.current))?;
                if self.next.is_none() {
                    return Ok(None);
                }
            }
        }
    }
}

impl Place {
    /// The file `path` itself, which stands above all segments.
    fn of_file(path: &Path, lines: Lines, segments: &[u64]) -> Self {
        Place {
            path: path.into(),
            lines,
            above: segments.last().copied(),
        }
    }

    /// A segment; `None` where it is not there any more.
    fn of_segment(path: &Path, number: u64) -> io::Result<Option<Self>> {
        let path = segment::path(path, number);
        let lines = Lines::open(&path)?;
        let above = Some(number);
        Ok(lines.map(|lines| Place { path, lines, above }))
    }

    /// The oldest of the record.
    fn oldest(path: &Path) -> io::Result<Self> {
        Place::behind(path, &mut Vec::new(), None)?.ok_or(ErrorKind::NotFound.into())
    }

    /// What has the lines behind those of `current`, if there are any; without a `current`, the oldest.
    fn behind(
        path: &Path,
        listed: &mut Vec<u64>,
        mut current: Option<&mut Self>,
    ) -> io::Result<Option<Self>> {
        loop {
            let above = current.as_ref().and_then(|current| current.above);
            let next = |listed: &[u64]| {
                let first = listed.partition_point(|&number| Some(number) <= above);
                listed.get(first).copied()
            };
            let Some(number) = next(listed) else {
                let (file, segments) = look(path, segment::all)?;
                *listed = segments;
                if next(listed).is_some() {
                    continue;
                }
                return Place::file_behind(path, file, listed, current.as_deref());
            };
            match (Place::of_segment(path, number)?, &mut current) {
                // It was removed since, and more may have been.
                (None, _) => listed.clear(),
                (Some(place), Some(current)) if place.lines.is_same(&current.lines) => {
                    (current.path, current.above) = (place.path, place.above);
                }
                (place, _) => return Ok(place),
            }
        }
    }

    /// The same where no segment is behind `current`: `file`, if that is another.
    fn file_behind(
        path: &Path,
        file: Option<Lines>,
        segments: &[u64],
        current: Option<&Self>,
    ) -> io::Result<Option<Self>> {
        let Some(lines) = file else {
            return Ok(None);
        };
        let is_behind = match current {
            None => true,
            // A new file without lines may be there while others still go to `current` (logrotate).
            Some(current) => !lines.is_same(&current.lines) && lines.size()? > 0,
        };
        Ok(is_behind.then(|| Place::of_file(path, lines, segments)))
    }

    /// Where the first line is that is not `is_before`. `starts_before`: whether a segment begins with one that is.
    fn find(
        path: &Path,
        starts_before: impl Fn(u64) -> io::Result<bool>,
        is_before: &IsBefore<'_>,
    ) -> io::Result<Self> {
        loop {
            let (file, segments) = look(path, segment::all)?;
            let mut place = None;
            if let Some(mut lines) = file
                && find::starts_with(&mut lines, is_before)?
            {
                place = Some(Place::of_file(path, lines, &segments));
            }
            if place.is_none() {
                let mut failed = None;
                let first = segments.partition_point(|&number| {
                    starts_before(number).unwrap_or_else(|error| {
                        failed.get_or_insert(error);
                        false
                    })
                });
                if let Some(error) = failed {
                    return Err(error);
                }
                let Some(index) = first.checked_sub(1) else {
                    return Place::oldest(path);
                };
                place = Place::of_segment(path, segments[index])?;
            }
            // Else it was removed since, and others are the oldest now.
            if let Some(mut place) = place {
                find::seek(&mut place.lines, is_before)?;
                return Ok(place);
            }
        }
    }

    /// Where the last `count` lines begin of those that `is_wanted`.
    fn last(
        path: &Path,
        (file, segments): Listed,
        count: u64,
        mut is_wanted: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Self> {
        let file = file.map(|lines| Place::of_file(path, lines, &segments));
        let older = segments.iter().rev();
        let older = older.map(|&number| Place::of_segment(path, number));
        let mut found = None;
        let mut left = count;
        for place in file.map(|file| Ok(Some(file))).into_iter().chain(older) {
            // Else it was removed since, and with it all that are older.
            let Some(mut place) = place? else {
                break;
            };
            let offset = match count {
                0 => place.lines.end(place.lines.size()?)?,
                _ => place.lines.last(|line| {
                    left -= u64::from(is_wanted(line));
                    left == 0
                })?,
            };
            place.lines.seek(offset);
            found = Some(place);
            if left == 0 {
                break;
            }
        }
        found.ok_or(ErrorKind::NotFound.into())
    }
}

/// The file of a record, if there is one, and the numbers of its segments.
type Listed = (Option<Lines>, Vec<u64>);

/// The file, and its segments, as `list` lists them. What is renamed meanwhile is looked at again: the file that was
/// opened is none of the segments, and stands behind all of them.
fn look(path: &Path, mut list: impl FnMut(&Path) -> io::Result<Vec<u64>>) -> io::Result<Listed> {
    loop {
        let file = Lines::open(path)?;
        let segments = list(path)?;
        if file.as_ref().map_or(Ok(true), |file| file.is_at(path))? {
            return Ok((file, segments));
        }
    }
}

#[cfg(test)]
mod tests;
