//! Times as RFC 3339 has them, with any offset.

use std::time::{Duration, SystemTime};

/// Reads one: "2026-11-22T06:20:31.123456Z", "2026-11-22T07:20:31+01:00".
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    let utc = |time: &str| humantime::parse_rfc3339(time).ok();
    // What is longer has digits of which none counts.
    if text.len() > 40 || text.ends_with('Z') {
        return utc(text).filter(|_| text.len() <= 40);
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let digits = |text: &str| -> Option<u64> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let offset_of = Duration::from_secs(digits(hours)? * 3600 + digits(minutes)? * 60);
    let time = utc(&format!("{time}Z"))?;
    match offset.as_bytes().first()? {
        b'+' => time.checked_sub(offset_of),
        b'-' => time.checked_add(offset_of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn each_offset_is_taken() {
        let time = humantime::parse_rfc3339("2026-11-22T06:20:31.5Z").unwrap();
        for text in [
            "2026-11-22T06:20:31.5Z",
            "2026-11-22T06:20:31.500000+00:00",
            "2026-11-22T07:20:31.5+01:00",
            "2026-11-22T05:50:31.5-00:30",
        ] {
            assert_eq!(parse(text), Some(time), "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "Z",
            "+01:00",
            "2026-11-22",
            "2026-11-22T06:20:31",
            "2026-11-22T06:20:31*01:00",
            "2026-11-22T06:20:31+1:000",
            "2026-11-31T06:20:31Z",
            "2026-11-22T06:20:31.ü1:00",
            "0000-00-00T00:00:00+99:99",
            "2026-11-22T06:20:31.55555555555555555555555555555Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
