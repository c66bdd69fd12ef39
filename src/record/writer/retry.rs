//! Opens later what cannot be opened now. The record's own thread does so, where nobody waits for the disk,
//! and less and less often, since what is wrong may stay so. Until then lines stay in the inbox.

use std::{
    mem,
    time::{Duration, Instant},
};

use log::{error, info};

use super::{End, Inbox, Next, Shared};
use crate::record::{OpenError, Output};

/// How long until the next attempt: at first, and at most.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// Tries until it is open, or the record has moved to another output; `None` where the thread is to end.
pub(super) fn open_later(shared: &Shared) -> Option<Output> {
    let mut delay = FIRST;
    let mut due = Instant::now() + delay;
    loop {
        let mut inbox = shared.inbox();
        if let Some(output) = take_move(&mut inbox) {
            inbox.opened = Some(output.found);
            inbox.failures.since = None;
            return Some(output);
        }
        match inbox.end {
            Some(End::Stopped) => return None,
            Some(End::Finished) if inbox.lines.is_empty() => return None,
            _ => {}
        }
        let is_last = inbox.end.is_some();
        let asked = mem::take(&mut inbox.check_requested) || is_last;
        let wait = due.saturating_duration_since(Instant::now());
        let config = match &inbox.not_open {
            Some(not_open) if asked || wait.is_zero() => not_open.config.clone(),
            _ => {
                // How it ended does not matter.
                drop(shared.work.wait_timeout(inbox, wait));
                continue;
            }
        };
        drop(inbox);
        let name = config.name();
        match Output::open(&config, &[]) {
            Ok(output) => {
                let mut inbox = shared.inbox();
                let wanted = inbox.not_open.take_if(|wanted| wanted.config == config);
                if wanted.is_none() {
                    // The record has moved meanwhile.
                    continue;
                }
                inbox.set_output(&output);
                inbox.opened = Some(output.found);
                inbox.failures.since = None;
                drop(inbox);
                info!("record {name}: opened");
                return Some(output);
            }
            Err(_) if is_last => return None,
            Err(error) => {
                let why = error.to_string();
                let mut inbox = shared.inbox();
                inbox.failures.stop(why.clone());
                let not_open = inbox.not_open.as_mut();
                let before = not_open.map(|of| mem::replace(&mut of.why, why.clone()));
                drop(inbox);
                if before.is_some_and(|before| before != why) {
                    error!("record {name}: cannot be opened: {why}; it is tried again");
                }
                // What this process writes itself is done as soon as the disk takes it.
                let is_soon = asked || matches!(error, OpenError::Own);
                delay = if is_soon {
                    FIRST
                } else {
                    (2 * delay).min(MOST)
                };
                due = Instant::now() + delay;
            }
        }
    }
}

/// Takes the first output that the record has moved to. Lines for a file that never was go to it, and no segment
/// ends before them.
fn take_move(inbox: &mut Inbox) -> Option<Output> {
    let at = inbox.next.iter().position(|(next, _)| next.is_move())?;
    let mut output = None;
    for (next, mut waiting) in inbox.next.drain(..=at) {
        inbox.lines.append(&mut waiting);
        if let Next::MoveTo(of) = next {
            output = Some(of);
        }
    }
    inbox.note_moved();
    output
}
