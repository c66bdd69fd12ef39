//! The bytes that wait for one client, bounded by the `queue-size` that its owner passes. They stand in
//! chunks. A chunk is given back as soon as all of it is written, and an empty queue holds no memory.

use std::{collections::VecDeque, io::IoSlice};

/// Bytes of a whole chunk. A client that takes little at a time keeps at most one that is written in
/// part.
const CHUNK: usize = 16 * 1024;
/// Bytes of the least chunk, where there is room to spare.
const LEAST: usize = 256;

/// Bytes in the order in which they will be written.
#[derive(Debug, Default)]
pub struct Queue(Option<Box<Chunks>>);

#[derive(Debug, Default)]
struct Chunks {
    /// None of them is empty.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first that are written.
    written: usize,
    /// Bytes that wait.
    len: usize,
    /// Bytes that the chunks have room for.
    held: usize,
}

impl Queue {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len)
    }

    /// Bytes of memory that it holds, which are `len` or more.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.held)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that still fit under `limit`.
    #[must_use]
    pub fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.len())
    }

    /// Adds bytes at the end; the caller has looked at `room`. The memory held grows by no more than these
    /// bytes and `spare` others, which are for what follows.
    pub fn push(&mut self, bytes: &[u8], spare: usize) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push(bytes, spare);
        }
    }

    /// What waits, for one `writev`: whole chunks, until they have `enough` bytes or are all.
    #[must_use]
    pub fn parts(&self, enough: usize) -> Vec<IoSlice<'_>> {
        let Some(queue) = &self.0 else {
            return Vec::new();
        };
        let mut written = queue.written;
        let mut bytes = 0;
        let mut parts = Vec::new();
        for chunk in &queue.chunks {
            if bytes >= enough {
                break;
            }
            let part = &chunk[written..];
            written = 0;
            bytes += part.len();
            parts.push(IoSlice::new(part));
        }
        parts
    }

    /// Forgets the first `written` bytes, with the memory of whole chunks.
    pub fn consume(&mut self, written: usize) {
        if let Some(queue) = &mut self.0 {
            queue.consume(written);
            if queue.len == 0 {
                self.0 = None;
            }
        }
    }
}

impl Chunks {
    fn push(&mut self, mut bytes: &[u8], spare: usize) {
        let before = self.len;
        self.len += bytes.len();
        let mut grow = |chunk: &mut Vec<u8>, bytes: &mut &[u8]| {
            let taken = bytes.split_off(..bytes.len().min(CHUNK - chunk.len()));
            let taken = taken.unwrap_or_default();
            let held = chunk.capacity();
            let needed = chunk.len() + taken.len();
            if needed > held {
                let wanted = before.clamp(LEAST, CHUNK).max(needed);
                let size = wanted.min(needed.saturating_add(spare));
                chunk.reserve_exact(size - chunk.len());
                self.held += chunk.capacity() - held;
            }
            chunk.extend_from_slice(taken);
        };
        if let Some(last) = self.chunks.back_mut() {
            grow(last, &mut bytes);
        }
        while !bytes.is_empty() {
            let mut chunk = Vec::new();
            grow(&mut chunk, &mut bytes);
            self.chunks.push_back(chunk);
        }
    }

    fn consume(&mut self, written: usize) {
        self.len -= written;
        self.written += written;
        while let Some(first) = self.chunks.front()
            && first.len() <= self.written
        {
            self.written -= first.len();
            self.held -= first.capacity();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(queue: &Queue) -> Vec<u8> {
        let parts = queue.parts(usize::MAX);
        parts.iter().flat_map(|part| part.iter().copied()).collect()
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut queue = Queue::default();
        queue.push(b"abcdef", 0);
        queue.consume(4);
        queue.push(b"ghijkl", 0);
        assert_eq!(waiting(&queue), b"efghijkl");
        assert_eq!((queue.len(), queue.room(10), queue.room(3)), (8, 2, 0));
    }

    #[test]
    fn whatever_is_pushed_and_consumed_nothing_is_lost_and_memory_is_given_back() {
        let text: Vec<u8> = (0..200_000_u32)
            .map(|n| (n.wrapping_mul(n) >> 5) as u8)
            .collect();
        for spare in [0, 10, usize::MAX] {
            let mut queue = Queue::default();
            let (mut pushed, mut consumed, mut size) = (0, 0, 1);
            while consumed < text.len() {
                size = (size * 5 + 3) % 50_021;
                let next = &text[pushed..text.len().min(pushed + size)];
                let before = queue.held();
                queue.push(next, spare);
                pushed += next.len();
                let grown = queue.held() - before;
                assert!(grown <= next.len().saturating_add(spare.min(CHUNK)));
                assert!(waiting(&queue) == text[consumed..pushed]);
                let taken = queue.len().min(size * 7 % 49_999);
                queue.consume(taken);
                consumed += taken;
                assert_eq!(queue.len(), pushed - consumed);
                assert!(waiting(&queue) == text[consumed..pushed]);
                assert!((queue.len()..=queue.len() + 2 * CHUNK).contains(&queue.held()));
            }
            assert_eq!((queue.is_empty(), queue.held()), (true, 0));
        }
    }

    #[test]
    fn many_small_pushes_need_few_chunks() {
        for spare in [0, usize::MAX] {
            let mut queue = Queue::default();
            for _ in 0..10_000 {
                queue.push(b"seventeen bytes..", spare);
            }
            assert_eq!(queue.parts(usize::MAX).len(), 170_000_usize.div_ceil(CHUNK));
            assert!(queue.held() < 170_000 + CHUNK);
        }
    }

    #[test]
    fn a_write_gets_no_more_than_is_enough_for_it() {
        let mut queue = Queue::default();
        queue.push(&[7; 10 * CHUNK], 0);
        queue.consume(10);
        assert_eq!(queue.parts(CHUNK - 10).len(), 1);
        assert_eq!(queue.parts(CHUNK).len(), 2);
        assert_eq!(queue.parts(usize::MAX).len(), 10);
    }

    #[test]
    fn a_client_for_whom_nothing_waits_has_no_more_than_a_pointer() {
        assert_eq!(size_of::<Queue>(), size_of::<usize>());
    }
}
