//! Senders that wait for room: users take turns, and of one user nobody has a turn before those who
//! came earlier. One at a time is called, the next when that one had its turn, so nobody is called for
//! room that is taken by then.

use crate::turns::Turns;

/// Clients that wait, by their keys.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiting: Turns<usize>,
    /// The one that was called and has not had its turn.
    called: Option<usize>,
}

impl WaitQueue {
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

    /// Those who wait, in the order of their turns.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter()
    }

    /// The one whose turn is next.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.waiting.first()
    }

    /// Whether more than one waits.
    #[must_use]
    pub fn has_several(&self) -> bool {
        !self.waiting.is_empty() && !self.waiting.is_single()
    }

    /// All of them in the order of their turns, the one that was called first.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.called.into_iter().chain(self.waiting.iter())
    }

    /// Whether one was called and has not had its turn.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.called.is_some()
    }

    /// A client of the user with this number waits. If it was called and is not done, it comes before the
    /// others of its user, and where nothing was taken (`took`) before everybody: else shorter messages
    /// would have the room for ever.
    pub fn wait(&mut self, user: u32, key: usize, took: bool) {
        if self.called == Some(key) {
            self.waiting.push_front(user, key, !took);
        } else {
            self.waiting.push(user, key);
        }
    }

    /// Calls the next client, where nobody else is having a turn.
    pub fn call(&mut self) -> Option<usize> {
        if self.called.is_some() {
            return None;
        }
        self.called = self.waiting.pop();
        self.called
    }

    /// A client had its turn.
    pub fn served(&mut self, key: usize) {
        if self.called == Some(key) {
            self.called = None;
        }
    }

    /// A client goes.
    pub fn leave(&mut self, user: u32, key: usize) {
        self.served(key);
        self.waiting.remove(user, key);
    }

    /// Nobody waits any more.
    pub fn dismiss(&mut self) {
        self.waiting.clear();
        self.called = None;
    }
}
