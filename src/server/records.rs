//! Records whose files are not as they should be: moved away by others, or not to be had at all.
//!
//! One that cannot be opened costs its own socket: whoever sends there waits, as for a full disk (after a
//! restart once its queue is full, since lines may have come along), and it is tried again. Opening is the daemon's: `run` returns for that, and the next call goes on.

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

use log::info;

use super::{Server, reload};
use crate::{hub::Now, writer::Target};

/// How long until a record is tried again whose file could not be opened.
const RETRY: Duration = Duration::from_secs(1);

impl Server {
    /// Each record whose file is no longer at its path is begun anew there, by its thread; where none
    /// could be opened, that is tried now.
    pub(super) fn reopen_records(&mut self, now: Now) {
        info!("SIGUSR1: looking whether records were moved away");
        for (_, writer) in &self.writers {
            writer.look();
        }
        self.retry = self.retry.map(|_| now.instant);
    }

    /// Whether the record of socket `number` could not be opened yet.
    #[must_use]
    pub fn lacks_file(&self, number: usize) -> bool {
        let is_written = self.writers.iter().any(|(of, _)| *of == number);
        self.hub.sockets()[number].has_record() && !is_written
    }

    /// The record of socket `number` goes to `target`, and takes messages from now on.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn open_record(&mut self, number: usize, target: Target) -> io::Result<()> {
        let seq = target.last_seq;
        let writer = reload::start_writer(target, &self.waker)?;
        info!("record {}: opened", writer.name);
        self.writers.push((number, writer));
        self.tells_time = true;
        if let Some(record) = self.hub.record(number) {
            record.open(seq);
        }
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        self.hub.recorded(number, 0, now);
        Ok(())
    }

    /// Records that could not be opened are tried again after a while.
    pub fn retry_later(&mut self, now: Instant) {
        let mut numbers = 0..self.hub.sockets().len();
        let any = numbers.any(|number| self.lacks_file(number));
        self.retry = any.then(|| now + RETRY);
    }
}
