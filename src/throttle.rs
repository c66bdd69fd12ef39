//! How often the log may speak of one kind of event, for events that clients can cause at will.

use std::time::{Duration, Instant};

/// Lines of one kind that an interval may have.
const BURST: u32 = 20;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts the lines of one kind of event: 20 in 10 seconds, then silence, then one line that says
/// how many there would have been.
#[derive(Debug, Default)]
pub struct Throttle {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Throttle {
    /// Whether a line may be written at `now`; with it comes the number of lines of the kind that
    /// were left out since the last one.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL)
        {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said == BURST {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_silence_then_the_count_of_what_was_left_out() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..BURST {
            assert_eq!(throttle.pass(start), Some(0));
        }
        for _ in 0..300 {
            assert_eq!(throttle.pass(start + INTERVAL / 2), None);
        }
        assert_eq!(throttle.pass(start + INTERVAL), Some(300));
        assert_eq!(throttle.pass(start + INTERVAL), Some(0));
    }
}
