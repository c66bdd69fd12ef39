//! Where one file of a record ends and the next begins. The event loop decides it, which knows the size and the
//! number of each line as it comes; what it decides goes to the record's thread among the lines, as a `SegmentEnd`.
//!
//! A segment is named after its first message, so no segment ends before it has one, and a file whose first
//! number cannot be read is named after the next message that comes. So no name is given twice.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// `rotate-size`, `rotate-age` and `keep` of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that a file has at most, unless one line alone is longer; `None` = never.
    pub size: Option<u64>,
    /// A file that was begun longer ago ends with the next message; `None` = never.
    pub age: Option<Duration>,
    /// Segments that are kept, beside the file that is written; 0 = all.
    pub keep: u32,
}

/// The file that lines are taken for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The number of its first message, which may be still to come.
    pub first: u64,
    /// When it was begun.
    pub begun: SystemTime,
    /// Its size.
    pub bytes: u64,
}

impl Segment {
    /// One that is not there yet.
    pub const NONE: Segment = Segment {
        first: 1,
        begun: SystemTime::UNIX_EPOCH,
        bytes: 0,
    };

    /// Whether it ends before a line of so many bytes that comes `now`. `seq`: the number of the last message.
    pub(super) fn ends(&self, seq: u64, line: usize, now: SystemTime, rotation: &Rotation) -> bool {
        let is_full = |size| self.bytes.saturating_add(line as u64) > size;
        // Where the clock was set back, it is not old.
        let is_old = |age| now.duration_since(self.begun).is_ok_and(|past| past > age);
        self.bytes > 0
            && seq >= self.first
            && (rotation.size.is_some_and(is_full) || rotation.age.is_some_and(is_old))
    }

    /// It has one more line. `seq`: the number of the next message.
    pub(super) fn add(&mut self, seq: u64, line: usize, now: SystemTime) {
        if self.bytes == 0 {
            (self.first, self.begun) = (seq, now);
        }
        self.bytes = self.bytes.saturating_add(line as u64);
    }
}

/// The end of a segment between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEnd {
    /// How many bytes of the lines are before it.
    pub at: usize,
    /// The number of the segment's first message.
    pub first: u64,
    /// `keep`, as it was then.
    pub keep: u32,
}

/// Whole lines, and where files end between them.
#[derive(Debug, Default)]
pub struct Lines {
    /// The lines.
    pub bytes: Vec<u8>,
    /// In their order.
    pub segment_ends: Vec<SegmentEnd>,
}

impl From<Vec<u8>> for Lines {
    fn from(bytes: Vec<u8>) -> Self {
        let segment_ends = Vec::new();
        Lines {
            bytes,
            segment_ends,
        }
    }
}

impl Lines {
    /// Takes others in before these.
    pub(super) fn prepend(&mut self, bytes: &[u8], segment_ends: &[SegmentEnd]) {
        let behind = self.segment_ends.iter_mut();
        behind.for_each(|end| end.at += bytes.len());
        self.segment_ends.splice(..0, segment_ends.iter().copied());
        self.bytes.splice(..0, bytes.iter().copied());
    }
}
