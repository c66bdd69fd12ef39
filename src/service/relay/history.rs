//! The last messages of a relay, as they were given out: who comes gets them first. They are bounded by their
//! number and their bytes, and are always the last ones without a gap: one that is too long leaves nothing before it.

use std::{collections::VecDeque, io::IoSlice};

use crate::{frame::Framing, message_batch::Batch};

/// The last messages.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Messages that it may hold; 0: there is no history.
    most: usize,
    /// Bytes that they may have.
    size: usize,
    bytes: VecDeque<u8>,
    /// The length of each message.
    lengths: VecDeque<usize>,
}

impl History {
    /// An empty one of at most `most` messages and `size` bytes.
    pub(super) fn new(most: usize, size: usize) -> Self {
        History {
            most,
            size,
            ..History::default()
        }
    }

    /// Whether nothing is kept.
    pub(super) fn is_off(&self) -> bool {
        self.most == 0
    }

    /// Whether as much is kept as in `other`.
    pub(super) fn has_bounds_of(&self, other: &History) -> bool {
        (self.most, self.size) == (other.most, other.size)
    }

    /// Keeps as much as `new`, which is empty, says.
    pub(super) fn renew(&mut self, new: &History) {
        (self.most, self.size) = (new.most, new.size);
        self.trim();
    }

    /// Keeps `bytes`: whole messages under `framing`.
    pub(super) fn keep(&mut self, framing: Framing, bytes: &[u8]) {
        if self.is_off() {
            return;
        }
        self.bytes.extend(bytes);
        let mut start = 0;
        for message in Batch::scan(framing, bytes, usize::MAX).iter() {
            self.lengths.push_back(message.end - start);
            start = message.end;
        }
        self.trim();
    }

    /// Forgets what is beyond the bounds.
    fn trim(&mut self) {
        while self.lengths.len() > self.most || self.bytes.len() > self.size {
            let first = self.lengths.pop_front().unwrap_or(0);
            self.bytes.drain(..first);
        }
    }

    /// The last messages that have no more than `room` bytes together, and how many they are.
    pub(super) fn last(&self, room: usize) -> (u64, [IoSlice<'_>; 2]) {
        let (mut start, mut count) = (0, self.lengths.len());
        let mut lengths = self.lengths.iter();
        while self.bytes.len() - start > room {
            start += lengths.next().unwrap_or(&0);
            count -= 1;
        }
        let (front, back) = self.bytes.as_slices();
        let of_front = start.min(front.len());
        let parts = [&front[of_front..], &back[start - of_front..]];
        (count as u64, parts.map(IoSlice::new))
    }

    /// All of them, one behind the other.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(history: &History, room: usize) -> (u64, String) {
        let (count, parts) = history.last(room);
        let text = parts.map(|part| String::from_utf8_lossy(&part).into_owned());
        (count, text.concat())
    }

    #[test]
    fn the_last_messages_stay_within_both_bounds() {
        let mut history = History::new(3, 10);
        let mut keep = |text: &str| {
            history.keep(Framing::Lines, text.as_bytes());
            last(&history, usize::MAX)
        };
        assert_eq!(keep("a\nb\n"), (2, "a\nb\n".into()));
        assert_eq!(keep("c\nd\n"), (3, "b\nc\nd\n".into()));
        assert_eq!(keep("12345\n"), (3, "c\nd\n12345\n".into()));
        assert_eq!(keep("1234567\n"), (1, "1234567\n".into()));
        assert_eq!(keep("too long for it\n"), (0, String::new()));
        assert_eq!(keep("e\n"), (1, "e\n".into()));
    }

    #[test]
    fn who_has_little_room_gets_the_last_that_fit() {
        let mut history = History::new(9, 100);
        history.keep(Framing::Lines, b"one\ntwo\nthree\n");
        let all = [(14, 3), (13, 2), (10, 2), (9, 1), (6, 1), (5, 0), (0, 0)];
        for (room, count) in all {
            let (given, text) = last(&history, room);
            assert_eq!((given, text.lines().count()), (count, count as usize));
            assert!("one\ntwo\nthree\n".ends_with(&text) && text.len() <= room);
        }
        history.renew(&History::new(1, 100));
        assert_eq!(last(&history, 14), (1, "three\n".into()));
    }
}
