//! What became of what was sent on a connection, as far as it can be known without an answer: the
//! server has read it all and is still there, or it ended before that.
//!
//! End of file alone tells nothing: udsd ends a stop with it, also where it throws something away. So
//! our own end is passed on only once everything was read, and an end that comes before it is none
//! that was waited for.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{failure::Failure, link::Link};
use crate::config::ServiceKind;

/// How long a server is watched that gives no sign of having taken what it read: one that refuses a
/// message closes within this time.
pub(super) const SIGN: Duration = Duration::from_millis(100);

/// No event tells of what the server reads, so it is asked for again: after the first span, then
/// after twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The server has read it all, and is there.
    Read,
    /// It ended both directions.
    Ended,
    /// Time ran out.
    Unread,
}

/// Waits until the server has read all that was sent, or `deadline`. `wait` waits for the connection
/// up to an instant and says what there is; it may read what comes.
pub(super) fn until_read(
    link: &Link,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Instant) -> Result<PollFlags, Failure>,
) -> Result<Delivery, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let unread = link.transport.unread();
        let unread = unread.map_err(|source| link.broke(source))?;
        let now = Instant::now();
        let until = if unread == 0 { now } else { now + pause };
        // After the count: a server that reads away what it ends with has ended before it reads.
        let ready = wait(deadline.map_or(until, |deadline| until.min(deadline)))?;
        if is_end(ready) {
            return Ok(Delivery::Ended);
        }
        if unread == 0 {
            return Ok(Delivery::Read);
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Ok(Delivery::Unread);
        }
        pause = (2 * pause).min(LAST_PAUSE);
    }
}

/// Whether both directions of the connection have ended.
pub(super) fn is_end(ready: PollFlags) -> bool {
    ready.intersects(PollFlags::HUP | PollFlags::ERR)
}

impl Link {
    /// Whether the end that the server gives after ours is what tells that it is done. A relay keeps
    /// its receivers.
    pub(super) fn ends_after_us(&self) -> bool {
        self.service != Some(ServiceKind::Relay)
    }

    /// Whether nothing that comes can show that a message was taken: a relay is silent, and of another
    /// server nobody knows. An echo answers, and a record refuses no message that it has read.
    pub(super) fn is_silent(&self) -> bool {
        !matches!(self.service, Some(ServiceKind::Echo | ServiceKind::Collect))
    }

    /// The failure that it is when the server ends before we do, after it sent something or not. A
    /// server that no file knows may end as it likes once it has answered.
    pub(super) fn ended(&self, answered: bool) -> Result<(), Failure> {
        match self.service {
            None if answered => Ok(()),
            _ => Err(self.broke(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Whether all came back that an echo owes, `came` of `sent`; `what` they are.
    pub(super) fn check_echo(&self, came: u64, sent: u64, what: &str) -> Result<(), Failure> {
        if self.service == Some(ServiceKind::Echo) && came < sent {
            return Err(Failure::Amount(format!(
                "{}: {came} of {sent} {what} came back",
                self.name
            )));
        }
        Ok(())
    }
}
