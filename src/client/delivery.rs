//! What became of what was sent on a connection, as far as it can be known without an answer: the
//! server has read it all and is still there, or it ended before that.
//!
//! End of file alone tells nothing: a server that stops sends it too, and may throw away what it has not read.
//! So udsc ends its own side only once the server has read everything, and an end of the server's before that
//! is a failure.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{connection::Connection, failure::Failure};
use crate::config::ServiceKind;

/// How long udsc watches a server that gives no sign that it took what it read: one that refuses a message
/// closes within this time.
pub(super) const SIGN: Duration = Duration::from_millis(100);

/// No event tells what the server has read, so udsc asks again and again: after the first span, then after twice
/// as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// What became of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The server has read it all, and the connection stands.
    Read,
    /// The server ended both directions.
    Ended,
    /// Time ran out before the server had read it all.
    Unread,
}

/// Waits until the server has read all that was sent, or `deadline`. `wait` waits for the connection
/// up to an instant and says what there is; it may read what comes.
pub(super) fn until_read(
    conn: &Connection,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Instant) -> Result<PollFlags, Failure>,
) -> Result<Delivery, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let unread = conn.transport.unread();
        let unread = unread.map_err(|source| conn.broke(source))?;
        let now = Instant::now();
        let until = if unread == 0 { now } else { now + pause };
        // After the count, not before: a server that closes discards what it has not read, and then nothing
        // counts as unread.
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

impl Connection {
    /// Whether the server ends its side once udsc has ended its own and everything is done. A relay does not: it
    /// keeps its receivers.
    pub(super) fn ends_after_us(&self) -> bool {
        self.service != Some(ServiceKind::Relay)
    }

    /// Whether the server gives no sign that it took a message: a relay is silent, and a server that no file knows
    /// may be. An echo answers, and collect refuses no message that it has read.
    pub(super) fn is_silent(&self) -> bool {
        !matches!(self.service, Some(ServiceKind::Echo | ServiceKind::Collect))
    }

    /// The server has ended before udsc: a failure, except of a server that no file knows and that has `answered`.
    pub(super) fn ended(&self, answered: bool) -> Result<(), Failure> {
        match self.service {
            None if answered => Ok(()),
            _ => Err(self.broke(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Fails where `came` of `sent` came back from an echo and that is not all. `what`: messages or bytes.
    pub(super) fn check_echo(&self, came: u64, sent: u64, what: &str) -> Result<(), Failure> {
        if self.service == Some(ServiceKind::Echo) && came < sent {
            return Err(Failure::Told(format!(
                "{}: {came} of {sent} {what} came back",
                self.name
            )));
        }
        Ok(())
    }
}
