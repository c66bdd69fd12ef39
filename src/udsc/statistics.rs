//! What became of messages that are to come back: counts and times, and the summary that they make.

use std::{fmt, io, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is measured, in nanoseconds: a day. A longer one counts as that.
const LONGEST: u64 = 24 * 60 * 60 * 1_000_000_000;

/// Counts of messages and the times of those that came back.
pub(crate) struct Statistics {
    /// Messages that were sent.
    pub sent: u64,
    /// Answers that differ from every message.
    pub wrong: u64,
    received: u64,
    /// Nanoseconds.
    times: Histogram<u64>,
}

impl Statistics {
    pub(crate) fn new() -> io::Result<Self> {
        // Three digits: a summary shows microseconds.
        let times = Histogram::new_with_bounds(1, LONGEST, 3).map_err(io::Error::other)?;
        Ok(Self {
            sent: 0,
            wrong: 0,
            received: 0,
            times,
        })
    }

    /// Counts one that came back.
    pub(crate) fn arrived(&mut self, time: Duration) {
        self.received += 1;
        self.times.saturating_record(nanos(time));
    }

    /// Counts `n` that came where no time can be told.
    pub(crate) fn came(&mut self, n: u64) {
        self.received += n;
    }

    /// How many came back.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// How many did not come back.
    pub(crate) fn lost(&self) -> u64 {
        self.sent - self.received
    }

    /// Whether all came back, and nothing else.
    pub(crate) fn are_complete(&self) -> bool {
        self.lost() == 0 && self.wrong == 0
    }

    /// The times, shortest first, in nanoseconds, each with how many took so long.
    pub(crate) fn times(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.times.iter_recorded();
        recorded.map(|time| (time.value_iterated_to(), time.count_at_value()))
    }

    /// How long they took; `None` where none was measured.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let times = &self.times;
        let quantile = |q| times.value_at_quantile(q);
        (!times.is_empty()).then(|| Latency {
            min: times.min(),
            avg: times.mean() as u64,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: times.max(),
        })
    }
}

/// How long messages took, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub min: u64,
    pub avg: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, received, lost) = (self.sent, self.received, self.lost());
        write!(f, "{sent} sent, {received} received, {lost} lost")?;
        if self.wrong > 0 {
            write!(f, ", {} wrong", self.wrong)?;
        }
        let Some(times) = self.latency() else {
            return Ok(());
        };
        let shown = [times.min, times.avg, times.p50, times.p99, times.max].map(millis);
        write!(f, "\nmin/avg/p50/p99/max = {} ms", shown.join("/"))
    }
}

/// A time in nanoseconds, as it is counted.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(LONGEST)
}

/// Nanoseconds as milliseconds, to the microsecond.
pub(crate) fn millis(nanos: u64) -> String {
    let micros = nanos.saturating_add(500) / 1000;
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_summary_counts_and_measures() {
        let mut statistics = Statistics::new().unwrap();
        assert_eq!(statistics.to_string(), "0 sent, 0 received, 0 lost");
        for micros in 1..=100 {
            statistics.sent += 1;
            statistics.arrived(Duration::from_micros(micros));
        }
        assert!(statistics.are_complete());
        assert_eq!(
            statistics.to_string(),
            "100 sent, 100 received, 0 lost\nmin/avg/p50/p99/max = 0.001/0.051/0.050/0.099/0.100 ms"
        );
        statistics.sent += 1;
        statistics.wrong += 1;
        assert!(!statistics.are_complete());
        assert!(
            statistics
                .to_string()
                .starts_with("101 sent, 100 received, 1 lost, 1 wrong\n")
        );
    }

    #[test]
    fn times_are_rounded_to_the_microsecond() {
        assert_eq!(millis(41_499), "0.041");
        assert_eq!(millis(41_500), "0.042");
        assert_eq!(millis(1_234_567_890), "1234.568");
    }
}
