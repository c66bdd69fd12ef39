//! How much passes in a second: the difference of two counts.

use std::{collections::HashMap, hash::Hash, time::Instant};

/// What is counted of one thing: messages and bytes in, messages and bytes out.
pub(super) type Counts = [u64; 4];
/// The same in a second.
pub(super) type Rates = [f64; 4];

/// The counts of a time.
#[derive(Default)]
pub(super) struct Before<K> {
    at: Option<Instant>,
    counts: HashMap<K, Counts>,
}

impl<K: Eq + Hash> Before<K> {
    /// The counts at `at`.
    pub(super) fn new(at: Instant, counts: impl Iterator<Item = (K, Counts)>) -> Self {
        let counts = counts.collect();
        Self {
            at: Some(at),
            counts,
        }
    }

    /// The rates since then. What was not there then, or has begun again, was counted from 0 for `age` seconds.
    pub(super) fn rates(&self, key: &K, now: Instant, counts: Counts, age: f64) -> Rates {
        let before = self.at.zip(self.counts.get(key));
        let is_further =
            |before: &Counts| before.iter().zip(counts).all(|(then, now)| *then <= now);
        let (before, seconds) = match before.filter(|(_, before)| is_further(before)) {
            Some((at, before)) => (*before, now.duration_since(at).as_secs_f64()),
            None => ([0; 4], age),
        };
        let mut rates = [0.0; 4];
        // A moment is no ground for a rate.
        if seconds > 0.01 {
            for (i, rate) in rates.iter_mut().enumerate() {
                *rate = (counts[i] - before[i]) as f64 / seconds;
            }
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_differences_in_a_second() {
        let start = Instant::now();
        let before = Before::new(start, [(1, [100, 1000, 0, 5])].into_iter());
        let now = start + Duration::from_secs(2);
        let rates = |key, counts, age| before.rates(&key, now, counts, age);
        assert_eq!(rates(1, [300, 1000, 2, 5], 9.0), [100.0, 0.0, 1.0, 0.0]);
        // A new one, one that begins again, and one of no time.
        assert_eq!(rates(2, [8, 0, 0, 0], 4.0), [2.0, 0.0, 0.0, 0.0]);
        assert_eq!(rates(1, [50, 0, 0, 0], 10.0), [5.0, 0.0, 0.0, 0.0]);
        assert_eq!(rates(2, [8, 0, 0, 0], 0.0), [0.0; 4]);
        let nothing = Before::default();
        assert_eq!(nothing.rates(&1, now, [3, 6, 0, 0], 3.0)[0], 1.0);
    }
}
