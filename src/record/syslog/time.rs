//! The time with which a message of RFC 3164 begins.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serializer;

use crate::{
    rfc3339,
    sys::{self, LocalTime},
};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Where clocks on the wall show the times that say no zone.
#[derive(Debug)]
pub struct Zone {
    seconds_of: fn(LocalTime) -> Option<i64>,
    /// The start of an hour, and the seconds from the epoch until then. Most messages are of the hour of the one
    /// before, and to ask the C library costs more than all else.
    hour: Option<(LocalTime, i64)>,
}

impl Default for Zone {
    /// That of this machine.
    fn default() -> Self {
        Zone::new(sys::seconds_of)
    }
}

impl Zone {
    /// One where times are so many seconds behind the epoch.
    #[must_use]
    pub fn new(seconds_of: fn(LocalTime) -> Option<i64>) -> Self {
        let hour = None;
        Zone { seconds_of, hour }
    }

    fn time(&mut self, local: LocalTime, fraction: Duration) -> Option<SystemTime> {
        let hour = LocalTime {
            minute: 0,
            second: 0,
            ..local
        };
        if self.hour.is_none_or(|(of, _)| of != hour) {
            self.hour = Some((hour, (self.seconds_of)(hour)?));
        }
        let (_, start) = self.hour?;
        let seconds = start.checked_add(i64::from(local.minute * 60 + local.second))?;
        let span = Duration::from_secs(seconds.try_into().ok()?) + fraction;
        UNIX_EPOCH.checked_add(span)
    }
}

/// The time at the start of `text`, and what is behind it. There is none of a day that its month has not.
pub(super) fn find<'a>(
    text: &'a str,
    received: &str,
    zone: &mut Zone,
) -> Option<(Option<SystemTime>, &'a str)> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    if let Some((word, rest)) = text.split_once(' ')
        && let Some(time) = rfc3339::parse(word)
    {
        return Some((Some(time), rest));
    }
    // As Cisco's devices have it: a number, and a star where the clock is not set.
    let (_, behind) = number(text, 10).unwrap_or((0, text));
    let text = behind.strip_prefix(": ").unwrap_or(text);
    let text = text.strip_prefix(['*', '.']).unwrap_or(text);
    bsd(text, received, zone)
}

/// "Nov 22 06:20:31", also with year or fraction.
fn bsd<'a>(
    text: &'a str,
    received: &str,
    zone: &mut Zone,
) -> Option<(Option<SystemTime>, &'a str)> {
    let (name, rest) = text.split_at_checked(3)?;
    let month = 1 + MONTHS.iter().position(|month| *month == name)? as i32;
    let rest = rest.strip_prefix(' ')?;
    let (day, rest) = number(rest.strip_prefix(' ').unwrap_or(rest), 2)?;
    let rest = rest.strip_prefix(' ')?;
    let (year, rest) = match number(rest, 4) {
        Some((year, behind)) if behind.starts_with(' ') => (year, &behind[1..]),
        _ => (year_of(month, received)?, rest),
    };
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (fraction, rest) = fraction(rest);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    if hour > 23 || minute > 59 || second > 60 || !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let local = LocalTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    let is_there = (1..=days(year, month)).contains(&day);
    let time = is_there.then(|| zone.time(local, fraction)).flatten();
    Some((time, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// The year that makes the month one of those around `received`.
fn year_of(month: i32, received: &str) -> Option<i32> {
    let (year, rest) = number(received, 4)?;
    let (now, _) = number(rest.strip_prefix('-')?, 2)?;
    Some(match (month, now) {
        (12, 1) => year - 1,
        (1, 12) => year + 1,
        _ => year,
    })
}

fn days(year: i32, month: i32) -> i32 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// ".123", if it is there.
fn fraction(text: &str) -> (Duration, &str) {
    let none = (Duration::ZERO, text);
    let Some((digits, rest)) = text.strip_prefix('.').map(digits) else {
        return none;
    };
    let nanos = format!("{digits:0<9.9}").parse();
    nanos.map_or(none, |nanos| (Duration::from_nanos(nanos), rest))
}

/// A number of so many digits at most, and what is behind it.
fn number(text: &str, most: usize) -> Option<(i32, &str)> {
    let (digits, rest) = digits(text);
    let number = (digits.len() <= most).then(|| digits.parse().ok())??;
    Some((number, rest))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// As a record has times.
#[expect(clippy::ref_option, reason = "serde passes it so")]
pub(super) fn write<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&humantime::format_rfc3339_micros(*time)),
        None => serializer.serialize_none(),
    }
}
