//! What all conversations have in common: the phases they go through, what a turn in one comes to, and
//! how one is lost. Each sort of conversation has a file of its own.

use std::{
    fmt::Display,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::words::Random;

/// What all clients are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// They send and read in odd pieces.
    Talk,
    /// They send no more, and leave unread no more than what they are to be owed.
    Settle,
    /// They read until the end, which must come after all that they are owed.
    Owed,
    /// They talk on; the daemon may die at any time.
    Ending,
    /// It has died: they read until the end.
    Ended,
    /// They half-close and expect exactly the rest, then the end.
    Finish,
}

/// The means of one turn.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) phase: Phase,
    pub(crate) random: &'a mut Random,
    /// To read into.
    pub(crate) buffer: &'a mut [u8],
}

/// What a turn comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The next turn is due after this time.
    After(Duration),
    /// The next turn is due when the descriptor is readable, or the phase changes.
    WhenReadable,
    /// Nothing to do until the phase changes: what this phase wants is reached.
    Settled,
    /// The conversation is over, and all was well.
    Done,
}

/// A conversation went wrong.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The daemon ended it.
    Ended(String),
    /// What came is not what was due.
    Wrong(String),
}

impl Lost {
    pub(crate) fn error(doing: &str, error: Errno, so_far: impl Display) -> Self {
        let text = format!("{doing}: {error}; {so_far}");
        match error {
            Errno::CONNRESET | Errno::PIPE => Lost::Ended(text),
            _ => Lost::Wrong(text),
        }
    }
}

/// How one stands at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// It has sent part of a message.
    pub(crate) half_sent: bool,
    /// More than a few bytes of what it is owed have not been read.
    pub(crate) unread: bool,
    /// It leaves unread what it gets, for a while.
    pub(crate) late: bool,
}

/// One client's conversation with the daemon.
pub(crate) trait Conversation {
    /// Names it in a report.
    fn name(&self) -> String;
    /// Which sort it belongs to, for counting.
    fn sort(&self) -> &'static str;
    /// Does a little of what the phase wants, without waiting.
    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost>;
    /// Rises with everything that it gets done.
    fn progress(&self) -> u64;
    fn standing(&self) -> Standing {
        Standing::default()
    }
    /// What it waits for, for a report.
    fn situation(&self) -> String;
    /// Of those that wait for answers: the longest wait since this was asked last.
    fn longest_wait(&mut self) -> Option<Duration> {
        None
    }
    /// Of those that wait for `WhenReadable`.
    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Whether it ends when the daemon does.
    fn ends_with_daemon(&self) -> bool {
        true
    }
}
