//! What became of what was sent on a connection, as far as it can be known without an answer: the
//! server has read it all and is still there, or it ended before that.
//!
//! End of file alone tells nothing: a server that stops sends it too, and may throw away what it has not read.
//! So udsc ends its own side only once the server has read everything, and an end of the server's before that
//! is a failure.

use std::{
    io,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{connection::Connection, failure::Failure};
use crate::{config::ServiceKind, sys};

/// How long udsc watches a server that gives no sign that it took what it read: one that refuses a message
/// closes within this time.
pub(super) const SIGN: Duration = Duration::from_millis(100);

/// No event tells what the server has read, so udsc asks again and again: after the first span, then after twice
/// as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// Waits until the server has read all that was sent, at most until `deadline`, and then for a sign that it stays.
/// False where it ended both directions before that. `wait` waits for the connection up to an instant and says
/// what there is; it may read what comes.
pub(super) fn settle(
    conn: &Connection,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Instant) -> Result<PollFlags, Failure>,
) -> Result<bool, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut sign_ends = None;
    loop {
        let unread = sys::unread_by_peer(&conn.socket);
        let is_read = unread.map_err(|source| conn.broke(source))? == 0;
        let now = Instant::now();
        let is_settled =
            is_read && (conn.has_given_sign() || *sign_ends.get_or_insert(now + SIGN) <= now);
        // After the count, not before: a server that closes discards what it has not read, and then nothing
        // counts as unread.
        if is_end(wait(if is_settled { now } else { now + pause })?) {
            return Ok(false);
        }
        if is_settled {
            return Ok(true);
        }
        if !is_read && deadline.is_some_and(|deadline| deadline <= now) {
            return Err(conn.late());
        }
        pause = (2 * pause).min(LAST_PAUSE);
    }
}

/// Whether both directions of the connection have ended.
fn is_end(ready: PollFlags) -> bool {
    ready.intersects(PollFlags::HUP | PollFlags::ERR)
}

impl Connection {
    /// Whether the server ends its side once udsc has ended its own and everything is done. A relay does not: it
    /// keeps its receivers.
    pub(super) fn ends_after_us(&self) -> bool {
        self.service != Some(ServiceKind::Relay)
    }

    /// Whether there was, or will be, a sign that the server took what it read: an echo answers, and collect refuses
    /// no message that it has read. A relay is silent. A server that no file knows has refused nothing once it has
    /// answered.
    fn has_given_sign(&self) -> bool {
        match self.service {
            Some(ServiceKind::Echo | ServiceKind::Collect | ServiceKind::Control) => true,
            Some(ServiceKind::Relay) => false,
            None => self.answered.load(Ordering::Relaxed),
        }
    }

    /// The server has ended before udsc: a failure, except of a server that no file knows and that has answered.
    pub(super) fn ended(&self) -> Result<(), Failure> {
        match self.service {
            None if self.answered.load(Ordering::Relaxed) => Ok(()),
            _ => Err(self.broke(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Fails where `came` of `sent` came back from an echo and that is not all. `what`: messages or bytes.
    pub(super) fn check_echo(&self, came: u64, sent: u64, what: &str) -> Result<(), Failure> {
        if self.service == Some(ServiceKind::Echo) && came < sent {
            return Err(self.failure(format!("{came} of {sent} {what} came back")));
        }
        Ok(())
    }
}
