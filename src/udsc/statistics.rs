//! What became of the pings: counts and times, and the summary that they make.

use std::{fmt, io, time::Duration};

use hdrhistogram::Histogram;

/// The longest time that is measured, in nanoseconds: a day. A longer one counts as that.
const LONGEST: u64 = 24 * 60 * 60 * 1_000_000_000;

/// Counts of pings and the times of those that came back.
pub(crate) struct Statistics {
    /// Pings that were sent.
    pub sent: u64,
    /// Answers that differ from every ping.
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
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        self.times.saturating_record(nanos);
    }

    /// Whether all came back, and nothing else.
    pub(crate) fn are_complete(&self) -> bool {
        self.received == self.sent && self.wrong == 0
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.sent - self.received;
        write!(
            f,
            "{} sent, {} received, {lost} lost",
            self.sent, self.received
        )?;
        if self.wrong > 0 {
            write!(f, ", {} wrong", self.wrong)?;
        }
        if self.received == 0 {
            return Ok(());
        }
        let times = &self.times;
        let shown = [
            times.min(),
            times.mean() as u64,
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            times.max(),
        ]
        .map(|nanos| millis(Duration::from_nanos(nanos)));
        write!(f, "\nmin/avg/p50/p99/max = {} ms", shown.join("/"))
    }
}

/// A time in milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> String {
    let micros = (time.as_nanos() + 500) / 1000;
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
        assert_eq!(millis(Duration::from_nanos(41_499)), "0.041");
        assert_eq!(millis(Duration::from_nanos(41_500)), "0.042");
        assert_eq!(millis(Duration::from_nanos(1_234_567_890)), "1234.568");
    }
}
