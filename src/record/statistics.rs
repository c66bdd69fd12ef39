//! What a record tells of itself: how much waits for the disk, since when, what was written, and what failed last.
//! The event loop's side knows what was taken and handed over (`Steps`), the thread's side what failed
//! (`Failures`). A `Writer` puts both together when somebody asks.

use std::{collections::VecDeque, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::Position;

/// Turns that hand over less than such a part of `queue-size` are one step together: so there are few.
const PARTS: usize = 256;

/// What a record tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// As the log names it: the path of its file, or standard output.
    pub name: String,
    /// Whether it is open.
    pub is_open: bool,
    /// What was taken and is not written.
    pub waiting: Amount,
    /// What was written since the start, by this process and by those whose clients it took over.
    pub written: Amount,
    /// Since when the disk is behind: when the oldest line that waits was handed over, or writing or opening first
    /// failed. Some milliseconds are nothing to speak of.
    pub behind_since: Option<SystemTime>,
    /// What failed last, and when.
    pub last_error: Option<(SystemTime, String)>,
    /// What became of its segments.
    pub segments: Segments,
}

/// What became of the segments of a record since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Segments {
    /// How many were ended.
    pub ended: u64,
    /// How many were removed, since more were there than are kept.
    pub removed: u64,
}

impl Segments {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Segments) -> Segments {
        Segments {
            ended: self.ended.saturating_add(other.ended),
            removed: self.removed.saturating_add(other.removed),
        }
    }
}

/// Messages as lines of a record. Those that came in one turn count as written together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    /// How many.
    pub messages: u64,
    /// The bytes of their lines.
    pub bytes: u64,
}

/// How far a record has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was taken and is not written.
    pub waiting: Amount,
    /// What was written since the start.
    pub written: Amount,
    /// When the oldest line that waits was handed over; `None` where no line is.
    pub oldest: Option<SystemTime>,
}

/// What was handed over and is not written, in steps of one turn or a few.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: VecDeque<Step>,
    /// Messages that are written.
    written: u64,
}

#[derive(Debug)]
struct Step {
    begin: Position,
    end: Position,
    /// Messages since the start up to `end`.
    messages: u64,
    /// When the first line of it was handed over.
    since: SystemTime,
}

impl Steps {
    /// Goes on after so many messages.
    pub(super) fn after(written: u64) -> Self {
        Steps {
            written,
            ..Steps::default()
        }
    }

    /// What ends at `end`, with `messages` since the start, was handed over.
    pub(super) fn add(
        &mut self,
        (begin, end): (Position, Position),
        messages: u64,
        queue_size: usize,
        now: SystemTime,
    ) {
        match self.steps.back_mut() {
            Some(last) if ((end - last.begin) as usize) < queue_size / PARTS => {
                (last.end, last.messages) = (end, messages);
            }
            _ => self.steps.push_back(Step {
                begin,
                end,
                messages,
                since: now,
            }),
        }
    }

    /// All up to `position` is written.
    pub(super) fn note_written(&mut self, position: Position) {
        while let Some(step) = self.steps.front()
            && step.end <= position
        {
            self.written = step.messages;
            self.steps.pop_front();
        }
    }

    /// Messages that are written once all up to `position` is, and when the next was handed over.
    pub(super) fn at(&self, position: Position) -> (u64, Option<SystemTime>) {
        let first = self.steps.partition_point(|step| step.end <= position);
        let written = first.checked_sub(1).map(|last| self.steps[last].messages);
        let next = self.steps.get(first).map(|step| step.since);
        (written.unwrap_or(self.written), next)
    }
}

/// What failed in a record's thread.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// When writing or opening failed first, and has not succeeded since.
    pub(super) since: Option<SystemTime>,
    /// What failed last, and when.
    pub(super) last: Option<(SystemTime, String)>,
}

impl Failures {
    /// Something failed, and lines go on.
    pub(super) fn note(&mut self, what: String) {
        self.last = Some((SystemTime::now(), what));
    }

    /// Something failed, and no line is written until it succeeds.
    pub(super) fn stop(&mut self, what: String) {
        self.note(what);
        let now = self.last.as_ref().map(|(now, _)| *now);
        self.since = self.since.or(now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{fs, process, thread, time::Duration};

    use super::*;
    use crate::record::{NotOpen, Output, OutputConfig, Record, Writer};

    fn after(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn record(queue_size: usize, seq: u64) -> Record {
        Record::new(queue_size, seq)
    }

    /// Takes a line of 10 bytes, which holds a line feed of its own.
    fn take(record: &mut Record) {
        let line = |lines: &mut Vec<u8>, _| lines.extend_from_slice(b"four\nfour\n");
        assert!(record.put(0, true, after(0), line));
    }

    fn hand_over(record: &mut Record, seconds: u64) -> Vec<u8> {
        std::mem::take(&mut record.hand_over(after(seconds)).bytes)
    }

    fn amount(messages: u64) -> Amount {
        Amount {
            messages,
            bytes: 10 * messages,
        }
    }

    #[test]
    fn what_waits_and_since_when_follows_from_what_is_written() {
        let mut record = record(2000, 70);
        for second in 1..=3 {
            take(&mut record);
            take(&mut record);
            hand_over(&mut record, second);
        }
        take(&mut record);
        let check = |record: &Record, position, waiting, oldest: Option<u64>| {
            let progress = record.progress(position);
            assert_eq!(progress.waiting, amount(waiting));
            assert_eq!(progress.written, amount(7 - waiting));
            assert_eq!(progress.oldest, oldest.map(after));
        };
        check(&record, 0, 7, Some(1));
        check(&record, 20, 5, Some(2));
        record.note_written(40);
        check(&record, 40, 3, Some(3));
        // A reload, under which numbers go on from further on.
        let mut next = self::record(2000, 0);
        next.continue_from(&mut record);
        next.go_on_from(100);
        check(&next, 40, 3, Some(3));
        check(&next, 60, 1, None);
        hand_over(&mut next, 4);
        check(&next, 60, 1, Some(4));
        next.note_written(70);
        check(&next, 70, 0, None);
    }

    #[test]
    fn steps_are_few_however_many_turns_there_are() {
        let mut record = record(100_000, 0);
        for second in 0..10_000 {
            take(&mut record);
            hand_over(&mut record, second);
        }
        assert!(record.progress(0).waiting == amount(10_000));
        let Progress {
            waiting, oldest, ..
        } = record.progress(50_000);
        // To a part of the queue.
        assert!((5000..5000 + 40).contains(&waiting.messages), "{waiting:?}");
        assert!((after(4960)..=after(5000)).contains(&oldest.unwrap()));
    }

    #[test]
    fn another_process_counts_on() {
        let mut record = record(2000, 9);
        record.count_on(amount(4), 2);
        record.prepend(&[b'x'; 20], &[]);
        take(&mut record);
        let progress = record.progress(0);
        assert_eq!(progress.waiting, amount(3));
        assert_eq!(progress.written, amount(4));
        let end = hand_over(&mut record, 1).len() as u64;
        assert_eq!(record.progress(end).written, amount(7));
    }

    #[test]
    fn a_failure_is_told_and_stays_the_last_when_it_is_over() {
        let folder = std::env::temp_dir().join(format!("udsd-statistics-{}", process::id()));
        let config = OutputConfig {
            file: Some(folder.join("record")),
            mode: 0o600,
            search: None,
        };
        let not_open = NotOpen {
            why: Output::open(&config, &[]).unwrap_err().to_string(),
            config,
        };
        let why = not_open.why.clone();
        let mut record = record(2000, 0);
        let mut writer = Writer::start(Err(not_open), || {}).unwrap();
        let Statistics {
            is_open,
            behind_since,
            last_error,
            ..
        } = writer.statistics(&record);
        let (at, what) = last_error.unwrap();
        assert_eq!((is_open, behind_since, what), (false, Some(at), why));
        let is_on_time = |writer: &Writer, record: &Record| {
            let Statistics {
                behind_since,
                last_error,
                ..
            } = writer.statistics(record);
            assert!(last_error.is_some());
            behind_since.is_none()
        };
        fs::create_dir(&folder).unwrap();
        writer.retry();
        while writer.opened().is_none() {
            thread::yield_now();
        }
        assert!(is_on_time(&writer, &record));
        // Its file is removed, and no other can be made there.
        fs::remove_dir_all(&folder).unwrap();
        writer.request_check();
        take(&mut record);
        writer.append(record.hand_over(after(1)));
        let failed = "its file was removed, and no other opens";
        while !writer
            .statistics(&record)
            .last_error
            .unwrap()
            .1
            .starts_with(failed)
        {
            thread::yield_now();
        }
        let statistics = writer.statistics(&record);
        assert_eq!(statistics.waiting, amount(1));
        assert_eq!(statistics.behind_since, Some(after(1)));
        fs::create_dir(&folder).unwrap();
        writer.request_check();
        while !is_on_time(&writer, &record) {
            thread::yield_now();
        }
        assert_eq!(writer.statistics(&record).written, amount(1));
        writer.finish();
        fs::remove_dir_all(&folder).unwrap();
    }
}
