//! A record that is not open: its own thread tries again, where nobody waits for the disk, and less and
//! less often, since what is wrong may stay so. Until it is open, its lines stay in the inbox.

use std::{
    mem,
    path::PathBuf,
    sync::PoisonError,
    time::{Duration, Instant},
};

use log::{error, info};

use super::{Shared, Target, Unopened, Unwritten};
use crate::lock::Lock;

/// How long until the next attempt: at first, and at most.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// What is to be opened for a record.
#[derive(Clone, Debug)]
pub struct Opening {
    /// `None`: standard output.
    pub file: Option<PathBuf>,
    /// The mode of a new file.
    pub mode: u32,
    /// As for `Target::open`.
    pub search: Option<u64>,
}

impl Opening {
    /// Opens it; `held` as for `Target::open`.
    ///
    /// # Errors
    /// As `Target::open`.
    pub fn open(&self, held: &[std::sync::Arc<Lock>]) -> Result<Target, Unopened> {
        match &self.file {
            None => Target::standard_output(),
            Some(file) => Target::open(file, self.mode, self.search, held),
        }
    }

    /// As the log names it.
    #[must_use]
    pub fn name(&self) -> String {
        let file = self.file.as_ref();
        file.map_or("standard output".into(), |file| file.display().to_string())
    }
}

/// A record that is not open.
#[derive(Clone, Debug)]
pub struct Closed {
    /// What is tried again.
    pub opening: Opening,
    /// Why it failed, as it was said.
    pub why: String,
}

/// Tries until it is open, or has moved to another target; `None` where it is wanted no more.
pub(super) fn wait_open(shared: &Shared, wake: &impl Fn()) -> Option<Target> {
    let mut delay = FIRST;
    let mut due = Instant::now() + delay;
    let mut inbox = shared.inbox();
    loop {
        if let Some((target, mut waiting)) = inbox.next.pop_front() {
            // Lines for a file that never was go to the next.
            inbox.lines.append(&mut waiting);
            inbox.opened = Some(target.last_seq);
            drop(inbox);
            wake();
            return Some(target);
        }
        if inbox.wanted_back || inbox.done && inbox.lines.is_empty() {
            inbox.back = Some(Unwritten::default());
            shared.work.notify_all();
            return None;
        }
        let asked = mem::take(&mut inbox.look);
        let wait = due.saturating_duration_since(Instant::now());
        let closed = match &inbox.closed {
            Some(closed) if asked || wait.is_zero() => closed.clone(),
            _ => {
                let waited = shared.work.wait_timeout(inbox, wait);
                inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
        };
        drop(inbox);
        let opened = closed.opening.open(&[]);
        let name = closed.opening.name();
        inbox = shared.inbox();
        match opened {
            Ok(target) => {
                if inbox.closed.take().is_some() {
                    inbox.note(&target);
                }
                inbox.opened = Some(target.last_seq);
                drop(inbox);
                info!("record {name}: opened");
                wake();
                return Some(target);
            }
            Err(why) => {
                let why = why.to_string();
                if let Some(closed) = &mut inbox.closed
                    && closed.why != why
                {
                    error!("record {name}: cannot be opened: {why}; it is tried again");
                    closed.why = why;
                }
                delay = if asked { FIRST } else { (2 * delay).min(MOST) };
                due = Instant::now() + delay;
            }
        }
    }
}
