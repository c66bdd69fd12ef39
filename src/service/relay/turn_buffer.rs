//! What was said in a turn: the messages as they are delivered, one behind the other, and whose they
//! are. What a receiver is to get is the buffer less its own, from where it stood when it came.

use std::io::IoSlice;

/// Memory that stays for the next turn.
const KEPT: usize = 64 * 1024;

/// The messages of a turn.
#[derive(Debug, Default)]
pub(super) struct TurnBuffer {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

/// Messages of one sender in a row.
#[derive(Debug)]
struct Run {
    from: usize,
    end: usize,
}

impl TurnBuffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets client `from` add messages.
    pub(super) fn add(&mut self, from: usize, say: impl FnOnce(&mut Vec<u8>)) {
        let before = self.len();
        say(&mut self.bytes);
        let end = self.len();
        match self.runs.last_mut() {
            Some(last) if last.from == from => last.end = end,
            _ if end > before => self.runs.push(Run { from, end }),
            _ => {}
        }
    }

    /// What others than client `key` said behind `since`.
    pub(super) fn of_others(&self, key: usize, since: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(1);
        let mut add = |from: usize, to: usize| {
            if to > from {
                slices.push(IoSlice::new(&self.bytes[from..to]));
            }
        };
        let mut start = since;
        let mut before = 0;
        for run in &self.runs {
            if run.from == key && run.end > since {
                add(start, before);
                start = run.end;
            }
            before = run.end;
        }
        add(start, before);
        slices
    }

    /// For the next turn. What fuller ones needed is given back step by step.
    pub(super) fn clear(&mut self) {
        let capacity = self.bytes.capacity();
        let was_roomy = self.len() < capacity / 8;
        self.bytes.clear();
        if was_roomy && capacity > KEPT {
            self.bytes.shrink_to(capacity / 2);
        }
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_what_the_others_said_since_it_came() {
        let mut buffer = TurnBuffer::default();
        for (from, text) in [
            (1, "a"),
            (1, "b"),
            (2, "c"),
            (3, ""),
            (3, "d"),
            (1, "e"),
            (1, ""),
        ] {
            buffer.add(from, |bytes| bytes.extend_from_slice(text.as_bytes()));
        }
        let slices = |key, since| -> Vec<String> {
            let slices = buffer.of_others(key, since);
            let text = |slice: &IoSlice<'_>| String::from_utf8_lossy(slice).into_owned();
            slices.iter().map(text).collect()
        };
        assert_eq!(slices(1, 0), ["cd"]);
        assert_eq!(slices(2, 0), ["ab", "de"]);
        assert_eq!(slices(3, 0), ["abc", "e"]);
        assert_eq!(slices(4, 0), ["abcde"]);
        assert_eq!(slices(4, 3), ["de"]);
        // Client 1 left, and another came in its place.
        assert_eq!(slices(1, 3), ["d"]);
        assert_eq!(slices(1, 5), [""; 0]);
    }

    #[test]
    fn what_one_full_turn_needed_is_given_back() {
        let mut buffer = TurnBuffer::default();
        let mut say = |bytes: usize| {
            buffer.add(1, |buffer| buffer.extend(std::iter::repeat_n(b'x', bytes)));
            buffer.clear();
            buffer.bytes.capacity()
        };
        let full = say(1 << 20);
        assert!(full >= 1 << 20);
        assert_eq!(say(1 << 18), full, "fuller ones may come again soon");
        let mut last = full;
        while last > 2 * KEPT {
            let next = say(100);
            assert!(next < last);
            last = next;
        }
    }
}
