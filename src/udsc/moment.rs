//! Points in time as people write them to `journalctl`: in local time, unless they say otherwise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    rfc3339,
    sys::{self, LocalTime},
};

/// What is understood.
const FORMS: &str = "write \"2026-11-22 06:20\", \"06:20\", \"today\", \"yesterday\", \"10min ago\", \"-1h\" or \"2026-11-22T06:20:31Z\"";

/// Reads a point in time.
pub(crate) fn read(text: &str) -> Result<SystemTime, String> {
    parse(text.trim(), SystemTime::now()).ok_or_else(|| FORMS.into())
}

fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    if text == "now" {
        return Some(now);
    }
    let forms = [relative, epoch, with_zone, in_local];
    forms.iter().find_map(|form| form(text, now))
}

/// The local time, of whole seconds.
pub(crate) fn local(time: SystemTime) -> Option<LocalTime> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    sys::local_time(since.as_secs().try_into().ok()?)
}

/// "-1h", "+5min", "10min ago".
fn relative(text: &str, now: SystemTime) -> Option<SystemTime> {
    let span = |text: &str| humantime::parse_duration(text.trim()).ok();
    match text.strip_suffix(" ago").or(text.strip_prefix('-')) {
        Some(rest) => now.checked_sub(span(rest)?),
        None => now.checked_add(span(text.strip_prefix('+')?)?),
    }
}

/// "@1763792431.5".
fn epoch(text: &str, _: SystemTime) -> Option<SystemTime> {
    let seconds = text.strip_prefix('@')?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// "2026-11-22 06:20:31 UTC", "2026-11-22T06:20:31.5Z", "2026-11-22T07:20:31+01:00".
fn with_zone(text: &str, _: SystemTime) -> Option<SystemTime> {
    let text = match text.strip_suffix(" UTC") {
        Some(time) => format!("{time}Z"),
        None => text.into(),
    };
    rfc3339::parse(&text.replacen(' ', "T", 1))
}

/// A date, a time of today, or both.
fn in_local(text: &str, now: SystemTime) -> Option<SystemTime> {
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, time),
        None if text.contains(':') => ("today", text),
        None => (text, "00:00"),
    };
    let day = match date {
        "today" => local(now)?,
        "yesterday" => before(local(now)?),
        date => calendar_day(date)?,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let is_digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = is_digits.then(|| format!("0.{fraction}").parse().ok())??;
    let time = LocalTime {
        hour,
        minute,
        second,
        ..day
    };
    let seconds = u64::try_from(sys::seconds_of(time)?).ok()?;
    let span = Duration::from_secs(seconds) + Duration::try_from_secs_f64(fraction).ok()?;
    UNIX_EPOCH.checked_add(span)
}

/// The day before, also at the start of a month.
fn before(today: LocalTime) -> LocalTime {
    let day = today.day - 1;
    LocalTime { day, ..today }
}

/// "2026-11-22", if there is such a day.
fn calendar_day(text: &str) -> Option<LocalTime> {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().filter(|year| year.len() == 4)?;
    let noon = LocalTime {
        year: year.parse().ok()?,
        month: number(parts.next()?)?,
        day: number(parts.next()?)?,
        hour: 12,
        minute: 0,
        second: 0,
    };
    // Of a 31st of November it makes the 1st of December.
    let there = sys::local_time(sys::seconds_of(noon)?)?;
    (there == noon).then_some(noon)
}

/// Two digits.
fn number(text: &str) -> Option<i32> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn is(text: &str, expected: &str) {
        let now = humantime::parse_rfc3339("2026-11-01T06:20:31.25Z").unwrap();
        let expected = humantime::parse_rfc3339(expected).unwrap();
        assert_eq!(parse(text, now), Some(expected), "{text}");
    }

    #[test]
    fn spans_and_times_with_a_zone_are_the_same_everywhere() {
        for (text, expected) in [
            ("now", "2026-11-01T06:20:31.25Z"),
            ("-1h", "2026-11-01T05:20:31.25Z"),
            ("- 1h 5min", "2026-11-01T05:15:31.25Z"),
            ("+2s", "2026-11-01T06:20:33.25Z"),
            ("10min ago", "2026-11-01T06:10:31.25Z"),
            ("2 days ago", "2026-10-30T06:20:31.25Z"),
            ("@1763792431.5", "2025-11-22T06:20:31.5Z"),
            ("2026-11-22 06:20:31 UTC", "2026-11-22T06:20:31Z"),
            ("2026-11-22T06:20:31Z", "2026-11-22T06:20:31Z"),
            ("2026-11-22T06:20:31.123456Z", "2026-11-22T06:20:31.123456Z"),
            ("2026-11-22T07:20:31+01:00", "2026-11-22T06:20:31Z"),
            ("2026-11-22 05:50:31.5-00:30", "2026-11-22T06:20:31.5Z"),
        ] {
            is(text, expected);
        }
    }

    #[test]
    fn all_else_is_local() {
        // Wherever the test runs: what is read is what is shown.
        let now = humantime::parse_rfc3339("2026-11-01T06:20:31Z").unwrap();
        let shown = |text: &str| {
            let it = local(parse(text, now).unwrap()).unwrap();
            let (date, time) = ((it.year, it.month, it.day), (it.hour, it.minute, it.second));
            (date, time)
        };
        let today = local(now).unwrap();
        let today = (today.year, today.month, today.day);
        assert_eq!(shown("2026-11-22"), ((2026, 11, 22), (0, 0, 0)));
        assert_eq!(shown("2026-11-22 06:20"), ((2026, 11, 22), (6, 20, 0)));
        assert_eq!(shown("2026-11-22T06:20:59"), ((2026, 11, 22), (6, 20, 59)));
        assert_eq!(shown("06:20"), (today, (6, 20, 0)));
        assert_eq!(shown("today"), (today, (0, 0, 0)));
        let (yesterday, time) = shown("yesterday 23:59:59.75");
        assert_eq!(time, (23, 59, 59));
        let (_, month, day) = yesterday;
        assert!(
            [(10, 31), (10, 30)].contains(&(month, day)),
            "{yesterday:?}"
        );
        assert_eq!(shown("yesterday").1, (0, 0, 0));
        let half = parse("2026-11-22 06:20:31.5", now).unwrap();
        let whole = parse("2026-11-22 06:20:31", now).unwrap();
        assert_eq!(half, whole + Duration::from_millis(500));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "soon",
            "-",
            "+",
            "ago",
            "1h",
            "2026-11-31",
            "2026-13-01",
            "26-11-22",
            "2026-11-22 24:00",
            "6:20",
            "06:20:60",
            "06:20:00.x",
            "06:20:31:01",
            "@x",
            "@-1",
            "2026-11-22T07:20:31*01:00",
            "ü:20:31",
            "-1000000000000y",
        ] {
            assert_eq!(parse(text, SystemTime::now()), None, "{text}");
        }
        assert!(read("soon").unwrap_err().contains("yesterday"));
    }
}
