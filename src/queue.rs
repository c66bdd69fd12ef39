//! The bytes that wait for one client. Bounded by the `queue-size` that its owner passes; holds no
//! memory while it is empty.

use std::{collections::VecDeque, io::IoSlice};

/// Bytes in the order in which they will be written.
#[derive(Debug, Default)]
pub struct Queue(VecDeque<u8>);

impl Queue {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that still fit under `limit`.
    #[must_use]
    pub fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.0.len())
    }

    /// Adds bytes at the end; the caller has looked at `room`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// All that waits, for one `writev`.
    #[must_use]
    pub fn parts(&self) -> [IoSlice<'_>; 2] {
        let (first, second) = self.0.as_slices();
        [IoSlice::new(first), IoSlice::new(second)]
    }

    /// Forgets the first `written` bytes, and the memory once nothing is left.
    pub fn consume(&mut self, written: usize) {
        if written == self.0.len() {
            self.0 = VecDeque::new();
        } else {
            self.0.drain(..written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut queue = Queue::default();
        queue.push(b"abcdef");
        queue.consume(4);
        queue.push(b"ghijkl");
        let seen: Vec<u8> = queue
            .parts()
            .iter()
            .flat_map(|part| part.iter().copied())
            .collect();
        assert_eq!(seen, b"efghijkl");
        assert_eq!((queue.len(), queue.room(10), queue.room(3)), (8, 2, 0));
    }

    #[test]
    fn an_empty_queue_holds_no_memory() {
        let mut queue = Queue::default();
        queue.push(&[7; 100_000]);
        queue.consume(100_000);
        assert!(queue.is_empty());
        assert_eq!(queue.0.capacity(), 0);
    }
}
