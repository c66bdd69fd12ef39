//! How often the log may speak of one kind of event, for events that clients can cause at will.

use std::{
    mem,
    time::{Duration, Instant},
};

/// Lines of one kind that an interval may have.
const BURST: u32 = 20;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts the lines of one kind of event: 20 in 10 seconds, then silence, then one line that says
/// what was left out: the next of its kind, or once the time is over one of its own.
#[derive(Debug, Default)]
pub struct Throttle {
    since: Option<Instant>,
    said: u32,
    left_out: LeftOut,
}

/// What the log does not say one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Lines.
    pub lines: u64,
    /// What they would have told of: messages, clients. A line may be of many.
    pub events: u64,
}

impl Throttle {
    /// Whether a line of `events` may be written at `now`; with it comes what was left out since the
    /// last one.
    pub fn pass(&mut self, events: u64, now: Instant) -> Option<LeftOut> {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL)
        {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said == BURST {
            self.left_out.lines += 1;
            self.left_out.events += events;
            return None;
        }
        self.said += 1;
        Some(mem::take(&mut self.left_out))
    }

    /// When what was left out is to be told, if anything was.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.left_out.lines > 0)?;
        Some(since + INTERVAL)
    }

    /// What was left out, and is told now.
    pub fn take_left_out(&mut self) -> LeftOut {
        mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_silence_then_the_count_of_what_was_left_out() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let none = LeftOut::default();
        for _ in 0..BURST {
            assert_eq!(throttle.pass(7, start), Some(none));
        }
        assert_eq!(throttle.due(), None);
        for _ in 0..300 {
            assert_eq!(throttle.pass(7, start + INTERVAL / 2), None);
        }
        assert_eq!(throttle.due(), Some(start + INTERVAL));
        let left_out = LeftOut {
            lines: 300,
            events: 2100,
        };
        assert_eq!(throttle.pass(1, start + INTERVAL), Some(left_out));
        assert_eq!(throttle.pass(1, start + INTERVAL), Some(none));
        assert_eq!(throttle.due(), None);
    }

    #[test]
    fn what_was_left_out_is_told_once() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..=BURST {
            throttle.pass(5, start);
        }
        let left_out = LeftOut {
            lines: 1,
            events: 5,
        };
        assert_eq!(throttle.take_left_out(), left_out);
        assert_eq!(throttle.due(), None);
        assert_eq!(throttle.pass(1, start), None, "the time is not over");
    }
}
