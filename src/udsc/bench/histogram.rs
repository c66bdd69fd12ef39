//! Times as a histogram: how many messages took how long, in steps of a scale that grows by factors, since a few
//! take a hundred times as long as most.

use serde::Serialize;

use crate::udsc::statistics::{Statistics, millis};

/// Most steps.
const STEPS: usize = 20;

/// Where the steps begin, in tenths of a power of ten; the first with few enough steps is taken.
const SCALES: [&[u64]; 3] = [&[10, 15, 20, 30, 50, 70], &[10, 20, 50], &[10]];

/// Blocks of one to eight eighths of a column.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// Columns beside the bar: the time, a share, and gaps; the count comes on top.
const BESIDE: usize = 22;

/// Messages that took as long as that.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// This or longer, in nanoseconds.
    from_ns: u64,
    messages: u64,
}

/// From the shortest time to the longest without a gap.
pub(super) fn steps(statistics: &Statistics) -> Vec<Step> {
    let (Some(latency), mut steps) = (statistics.latency(), Vec::new()) else {
        return Vec::new();
    };
    for scale in SCALES {
        steps = begins(scale, latency.min, latency.max);
        if steps.len() <= STEPS {
            break;
        }
    }
    for (time, messages) in statistics.times() {
        let after = steps.partition_point(|step| step.from_ns <= time);
        steps[after.saturating_sub(1)].messages += messages;
    }
    steps
}

fn begins(scale: &[u64], min: u64, max: u64) -> Vec<Step> {
    // No time is measured of more than a day, which is less than ten to the fourteenth.
    let all = (0..15).flat_map(|power| {
        scale
            .iter()
            .map(move |tenths| tenths * 10_u64.pow(power) / 10)
    });
    let mut begins = Vec::new();
    for from_ns in all {
        if from_ns <= min {
            begins.clear();
        }
        if from_ns <= max || begins.is_empty() {
            let messages = 0;
            begins.push(Step { from_ns, messages });
        }
    }
    begins
}

/// Columns at most: along a longer line no eye finds its number.
const WIDEST: usize = 100;

/// One line a step, each of at most `columns`.
pub(super) fn draw(steps: &[Step], columns: usize, has_colour: bool) -> String {
    let all: u64 = steps.iter().map(|step| step.messages).sum();
    let most = steps.iter().map(|step| step.messages).max().unwrap_or(0);
    let digits = most.to_string().len();
    let width = columns.min(WIDEST).saturating_sub(BESIDE + digits).max(1);
    let mut text = String::new();
    for Step { from_ns, messages } in steps {
        let bar = bar(*messages, most, width);
        let gap = " ".repeat(width - bar.chars().count());
        let bar = match has_colour {
            true => format!("\x1b[36m{bar}\x1b[0m"),
            false => bar,
        };
        let share = 100.0 * *messages as f64 / all as f64;
        let from = millis(*from_ns);
        text += &format!("{from:>10} ms {bar}{gap} {share:>5.1}% {messages:>digits$}\n");
    }
    text
}

/// `part` of `whole`, which is `width` columns; something where it is not 0.
fn bar(part: u64, whole: u64, width: usize) -> String {
    let eighths = u128::from(part) * width as u128 * 8;
    let eighths = eighths.div_ceil(u128::from(whole.max(1))) as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    bar
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::time::Duration;

    use super::*;

    fn measured(micros: impl IntoIterator<Item = u64>) -> Vec<Step> {
        let mut statistics = Statistics::new().unwrap();
        for micros in micros {
            statistics.sent += 1;
            statistics.arrived(Duration::from_micros(micros));
        }
        steps(&statistics)
    }

    #[test]
    fn steps_reach_from_the_shortest_to_the_longest_and_count_each_once() {
        let found = measured([12, 13, 16, 40, 41, 41]);
        let found: Vec<_> = found.iter().map(|s| (s.from_ns, s.messages)).collect();
        let micros = [(10, 2), (15, 1), (20, 0), (30, 3)];
        assert_eq!(found, micros.map(|(from, n)| (from * 1000, n)));
        assert_eq!(measured([]), []);
        assert_eq!(measured([0]).len(), 1);
        for longest in [1, 10, 1000, 1_000_000, 86_400_000_000] {
            let found = measured([1, longest]);
            assert!(found.len() <= STEPS, "{longest}: {}", found.len());
            assert_eq!(found.iter().map(|s| s.messages).sum::<u64>(), 2);
        }
    }

    #[test]
    fn what_is_drawn_fits_and_shows_whatever_is_there() {
        let mut times = vec![30; 100_000];
        times.extend([70, 500, 500]);
        let found = measured(times);
        for columns in [80, 200] {
            let text = draw(&found, columns, false);
            for line in text.lines() {
                assert_eq!(line.chars().count(), columns.min(WIDEST), "{line}");
            }
            assert_eq!(text.matches('▏').count(), 2, "{text}");
        }
        assert!(draw(&found, 0, true).contains("\x1b[36m█\x1b[0m"));
    }
}
