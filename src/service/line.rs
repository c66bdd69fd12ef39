//! Senders that wait for room: nobody has a turn before those who came earlier, and one at a time is
//! called, the next when that one had its turn. So room goes to who waited longest, and nobody is
//! called for room that is taken by then.

use std::collections::VecDeque;

/// Clients that wait, by their keys, in the order of their turns.
#[derive(Debug, Default)]
pub struct Line {
    waiting: VecDeque<usize>,
    /// The one that was called and has not had its turn.
    called: Option<usize>,
}

impl Line {
    /// Whether client `key` has to let others go first.
    #[must_use]
    pub fn bars(&self, key: usize) -> bool {
        self.called
            .map_or(!self.waiting.is_empty(), |called| called != key)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those who wait.
    #[must_use]
    pub fn waiting(&self) -> &VecDeque<usize> {
        &self.waiting
    }

    /// All of them in the order of their turns, the one that was called first.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.called.into_iter().chain(self.waiting.iter().copied())
    }

    /// Whether one was called and has not had its turn.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.called.is_some()
    }

    /// A client waits: at the head of the line if it was called and is not done, else at its end.
    pub fn wait(&mut self, key: usize) {
        if self.called == Some(key) {
            self.waiting.push_front(key);
        } else {
            self.waiting.push_back(key);
        }
    }

    /// Calls the next client, where nobody else is having a turn.
    pub fn call(&mut self) -> Option<usize> {
        if self.called.is_some() {
            return None;
        }
        self.called = self.waiting.pop_front();
        self.called
    }

    /// A client had its turn.
    pub fn served(&mut self, key: usize) {
        if self.called == Some(key) {
            self.called = None;
        }
    }

    /// A client goes.
    pub fn leave(&mut self, key: usize) {
        self.served(key);
        self.waiting.retain(|&waiting| waiting != key);
    }

    /// Nobody waits any more.
    pub fn dismiss(&mut self) {
        self.waiting.clear();
        self.called = None;
    }
}
