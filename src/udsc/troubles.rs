//! What of a socket wants looking at: what was refused, dropped, closed or lost, and whether its record lags.

use std::collections::HashMap;

use super::{
    show::{count, one_line, size, span},
    table::Cell,
    terminal::Tone,
};
use crate::{
    control::{Record, Socket},
    counters::{Counters, Measure, Row},
};

/// Families of counters that tell of what works.
const WORK: [&str; 3] = ["clients", "messages", "bytes"];
/// A record that waits for less is not behind: it is being written.
const BEHIND: f64 = 1.0;
/// Whether what waits cannot be written now.
fn is_failing(record: &Record) -> bool {
    !record.open || record.error.is_some() && record.behind.is_some()
}

/// A count that is not 0.
struct Trouble<'a> {
    family: &'a str,
    reason: Option<&'a str>,
    is_of_bytes: bool,
    meaning: &'a str,
    number: u64,
}

/// What a socket has counted of all but its daily work.
pub(crate) struct Troubles<'a>(Vec<Trouble<'a>>);

impl<'a> Troubles<'a> {
    pub(crate) fn new(socket: &'a Socket) -> Self {
        let known: HashMap<&str, Row> = Counters::default()
            .rows()
            .map(|row| (row.name, row))
            .collect();
        let counted = socket.counters.iter().filter(|(_, number)| **number > 0);
        let troubles = counted.map(|(name, number)| match known.get(name.as_str()) {
            Some(row) => Trouble {
                family: row.family,
                reason: row.reason,
                is_of_bytes: row.measure == Measure::Bytes,
                meaning: row.meaning,
                number: *number,
            },
            // Of a later version.
            None => Trouble {
                family: name,
                reason: None,
                is_of_bytes: false,
                meaning: "",
                number: *number,
            },
        });
        let is_work = |trouble: &Trouble<'_>| WORK.contains(&trouble.family);
        Self(troubles.filter(|trouble| !is_work(trouble)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn total(&self, family: &str) -> u64 {
        let of_family = self.0.iter().filter(|trouble| trouble.family == family);
        of_family.fold(0, |sum, trouble| trouble.number.saturating_add(sum))
    }

    /// The number of a family.
    pub(crate) fn cell(&self, family: &str) -> Cell {
        match self.total(family) {
            0 => "0".into(),
            n => Cell::new(count(n), Tone::Warning),
        }
    }

    /// A line for each family: its name, and "3 (2 access, 1 clients-per-user)".
    pub(crate) fn families(&self) -> impl Iterator<Item = (String, String)> {
        let families = self.0.chunk_by(|a, b| a.family == b.family);
        families.map(|of_family| {
            let first = &of_family[0];
            let total = first.show(self.total(first.family));
            let reasons = of_family.iter().filter_map(|trouble| {
                let reason = as_key(trouble.reason?);
                // Alone, its number is the family's.
                Some(match of_family.len() {
                    1 => reason,
                    _ => format!("{} {reason}", trouble.show(trouble.number)),
                })
            });
            let reasons: Vec<String> = reasons.collect();
            let text = match reasons.is_empty() {
                true => total,
                false => format!("{total} ({})", reasons.join(", ")),
            };
            (one_line(first.family), text)
        })
    }

    /// A line for each count: its name, the number, and what it means.
    pub(crate) fn explained(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|trouble| {
            let name = match trouble.reason {
                None => one_line(trouble.family),
                Some(reason) => format!("{} ({})", trouble.family, as_key(reason)),
            };
            let number = trouble.show(trouble.number);
            (name, format!("{number}  {}", trouble.meaning))
        })
    }
}

impl Trouble<'_> {
    fn show(&self, number: u64) -> String {
        match self.is_of_bytes {
            true => size(number),
            false => number.to_string(),
        }
    }
}

/// A reason, as the key of udsd.toml is written that it is named after.
fn as_key(reason: &str) -> String {
    reason.replace('_', "-")
}

/// Whether a record is behind, or fails.
pub(crate) fn lags(record: &Record) -> bool {
    let is_behind = record.behind.is_some_and(|behind| behind >= BEHIND);
    is_failing(record) || is_behind
}

/// How the record of a socket is, in a word or two.
pub(crate) fn record_cell(socket: &Socket) -> Cell {
    let Some(record) = &socket.record else {
        return "-".into();
    };
    match record.behind.filter(|behind| *behind >= BEHIND) {
        _ if is_failing(record) => Cell::new("FAILING", Tone::Error),
        Some(behind) => Cell::new(format!("{} behind", span(behind)), Tone::Warning),
        None => "ok".into(),
    }
}
