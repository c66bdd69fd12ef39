//! How often the log may speak of what clients can cause: each kind of line has a rate of its own. The last line of
//! each kind is kept, for whoever asks later.

use std::time::Instant;

use log::{Level, log};

use crate::{
    handover_state::LogLine,
    throttle::{LeftOut, Throttle},
};

/// What a line is about. Each kind has a rate of its own.
#[allow(missing_docs, reason = "KINDS says what they are")]
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Entered,
    Left,
    Denied,
    Refused,
    Closed,
    Dropped,
    Unrecorded,
    Truncated,
    Stalled,
    AwaitsQuota,
    Oversized,
    Announced,
    Nobody,
    Unreachable,
    Unproven,
    Failed,
    Unaccepted,
    Unclosed,
    Groupless,
}

/// All kinds, with what a line calls their events that were left out.
const KINDS: [(Kind, &str); 19] = [
    (Kind::Entered, "clients connected"),
    (Kind::Left, "clients closed"),
    (
        Kind::Denied,
        "clients and datagrams refused by allow-users or allow-groups",
    ),
    (Kind::Refused, "clients refused by limits"),
    (Kind::Closed, "clients closed for a reason"),
    (Kind::Dropped, "messages dropped"),
    (Kind::Unrecorded, "messages that a record went without"),
    (
        Kind::Truncated,
        "messages of which only the first part is kept",
    ),
    (Kind::Stalled, "clients that held up the others"),
    (Kind::AwaitsQuota, "clients that waited for room"),
    (Kind::Oversized, "messages refused as too long"),
    (
        Kind::Announced,
        "messages that began with too great a length",
    ),
    (
        Kind::Nobody,
        "datagrams refused of which the kernel does not know the sender",
    ),
    (Kind::Unreachable, "replies to nobody"),
    (
        Kind::Unproven,
        "replies not sent to addresses that may be somebody else's",
    ),
    (Kind::Failed, "failures to receive"),
    (Kind::Unaccepted, "failures to accept"),
    (
        Kind::Unclosed,
        "rests of accepting while descriptors that clients sent were not closed",
    ),
    (
        Kind::Groupless,
        "clients whose supplementary groups could not be read",
    ),
];

impl Kind {
    fn level(self) -> Level {
        match self {
            Kind::Entered | Kind::Left | Kind::Unreachable => Level::Debug,
            _ => Level::Warn,
        }
    }
}

/// The rates of all kinds of lines, and the last of each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    throttles: [Throttle; KINDS.len()],
    /// When what was left out is to be told.
    due: Option<Instant>,
    /// When an event of each kind last happened, and what the last line said; none where there was none or it is not
    /// kept.
    last: [Option<(Instant, String)>; KINDS.len()],
}

impl Lines {
    /// Whether a line of so many events may be written now, and what was left out before it.
    pub(super) fn pass(&mut self, kind: Kind, events: u64, now: Instant) -> Option<LeftOut> {
        if kind.level() > log::max_level() {
            return None;
        }
        let throttle = &mut self.throttles[kind as usize];
        let passed = throttle.pass(events, now);
        if passed.is_none() {
            self.due = self.due.into_iter().chain(throttle.due()).min();
            // In a flood the line that was written stands for those that are left out.
            if let Some((at, _)) = &mut self.last[kind as usize] {
                *at = now;
            }
        }
        passed
    }

    /// When `tell_left_out` is next due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells what was left out of the kinds whose time is over at `now`; of all where there is none.
    /// `name`: of the socket.
    pub(super) fn tell_left_out(&mut self, name: &str, now: Option<Instant>) {
        if self.due.is_none_or(|due| now.is_some_and(|now| due > now)) {
            return;
        }
        self.due = None;
        for ((kind, what), throttle) in KINDS.into_iter().zip(&mut self.throttles) {
            match throttle.due() {
                Some(due) if now.is_none_or(|now| due <= now) => {
                    let LeftOut { lines, events } = throttle.take_left_out();
                    log!(
                        kind.level(),
                        "{name}: {events} more {what} ({lines} lines left out)"
                    );
                }
                due => self.due = self.due.into_iter().chain(due).min(),
            }
        }
    }

    /// Writes a line of the socket `name`, and says what was left out before.
    pub(super) fn tell(
        &mut self,
        kind: Kind,
        LeftOut { lines, events }: LeftOut,
        name: &str,
        line: String,
        at: Instant,
    ) {
        let left_out = match lines {
            0 => String::new(),
            _ if lines == events => format!(" ({lines} lines like this left out)"),
            _ => format!(" ({lines} lines like this left out, {events} messages)"),
        };
        log!(kind.level(), "{name}: {line}{left_out}");
        if !matches!(kind, Kind::Entered | Kind::Left) {
            self.last[kind as usize] = Some((at, line));
        }
    }

    /// Has the last lines of another too, where they are later.
    pub(super) fn take_last(&mut self, other: &mut Lines) {
        for (last, of_other) in self.last.iter_mut().zip(&mut other.last) {
            let at = |line: &Option<(Instant, String)>| line.as_ref().map(|(at, _)| *at);
            if at(of_other) > at(last) {
                *last = of_other.take();
            }
        }
    }

    /// The last lines, for the next process.
    pub(super) fn park(&self, now: Instant) -> Vec<LogLine> {
        let lines = self.last().map(|(at, kind, text)| LogLine {
            kind: kind.into(),
            age: now.saturating_duration_since(at),
            text: text.into(),
        });
        lines.collect()
    }

    /// Goes on behind the last lines of an earlier process. A kind that is not known here is passed over.
    pub(super) fn resume(&mut self, parked: &[LogLine], now: Instant) {
        for LogLine { kind, age, text } in parked {
            let known = KINDS.iter().position(|(_, what)| what == kind);
            if let (Some(known), Some(at)) = (known, now.checked_sub(*age)) {
                self.last[known] = Some((at, text.clone()));
            }
        }
    }

    /// The last line of each kind that is kept: when an event of its kind last happened, what its kind tells of, and
    /// the line.
    pub(super) fn last(&self) -> impl Iterator<Item = (Instant, &'static str, &str)> {
        let kinds = KINDS.iter().zip(&self.last);
        kinds.filter_map(|((_, what), last)| {
            let (at, line) = last.as_ref()?;
            Some((*at, *what, line.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_that_stands_for_those_left_out_has_the_time_of_the_last_of_them() {
        log::set_max_level(log::LevelFilter::Warn);
        let (start, mut lines) = (Instant::now(), Lines::default());
        let mut told = 0;
        for i in 0..30 {
            let now = start + Duration::from_millis(i);
            if let Some(left_out) = lines.pass(Kind::Denied, 1, now) {
                lines.tell(Kind::Denied, left_out, "a", format!("{i}"), now);
                told = i;
            }
        }
        let last: Vec<_> = lines.last().map(|(at, _, line)| (at, line)).collect();
        assert!(told < 29, "nothing was left out");
        let at = start + Duration::from_millis(29);
        assert_eq!(last, [(at, told.to_string().as_str())]);
    }
}
