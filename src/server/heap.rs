//! Memory goes back to the system once queues have emptied. The allocator keeps what is freed between
//! things that live, and a crowd of clients that once were slow would be paid for for ever.

use std::time::{Duration, Instant};

use crate::sys;

/// The least that is worth it, bytes.
const LEAST: usize = 1 << 20;
/// How often: queues that fill and empty all the time keep most of what they need, and what is freed
/// in so short a time is given back in a few milliseconds.
const SPAN: Duration = Duration::from_millis(100);

/// What was held since memory was last given back.
pub(super) struct Heap {
    /// The most of it, bytes.
    most: usize,
    due: Instant,
}

impl Heap {
    pub(super) fn new(now: Instant) -> Self {
        Heap {
            // What the start needed goes too.
            most: usize::MAX,
            due: now + SPAN,
        }
    }

    /// At the end of a turn, with so many bytes held: gives back what was freed. Returns when that may
    /// be due without a further turn.
    pub(super) fn settle(&mut self, held: usize, now: Instant) -> Option<Instant> {
        self.most = self.most.max(held);
        if self.most - held < LEAST.max(self.most / 8) {
            return None;
        }
        if self.due > now {
            return Some(self.due);
        }
        sys::give_back_memory();
        self.most = held;
        self.due = now + SPAN;
        None
    }
}
