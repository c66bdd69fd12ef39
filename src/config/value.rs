//! One value of the file: what it must look like, and how it is written again.
//!
//! Every error says what is wrong and what would be right; who calls knows key and line.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use toml::de::{DeInteger, DeValue};

use super::bounds;

/// Units of sizes, the largest first.
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Units of spans of time in nanoseconds, the largest first.
const SPANS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units that humantime knows and that are refused: whoever writes "M" means minutes.
const CALENDAR: [&str; 8] = ["M", "month", "months", "y", "yr", "yrs", "year", "years"];

/// Most digits of a span: keeps the sums inside humantime far from the end of `Duration`, where it
/// would panic.
const SPAN_DIGITS: usize = 12;

/// `text` in quotes, on one line, cut where it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// "an integer", "a string", ...
pub(super) fn kind(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

/// The fault of a value of the wrong type.
fn must_be(value: &DeValue<'_>, what: &str) -> String {
    format!("is {} and must be {what}", kind(value))
}

/// A string; `example` is one.
pub(super) fn text<'a>(value: &'a DeValue<'_>, example: &str) -> Result<&'a str, String> {
    let text = value.as_str();
    text.ok_or_else(|| must_be(value, &format!("a string, as {}", quote(example))))
}

/// One of the words of `T`, or what else its `FromStr` reads.
pub(super) fn word<T: FromStr<Err = String>>(
    value: &DeValue<'_>,
    example: &str,
) -> Result<T, String> {
    text(value, example)?.parse()
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    let flag = value.as_bool();
    flag.ok_or_else(|| must_be(value, "true or false"))
}

fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The number, where `range` and `T` hold it.
fn within<T: TryFrom<u64>>(range: &RangeInclusive<u64>, number: Option<u64>) -> Option<T> {
    let number = number.filter(|number| range.contains(number))?;
    number.try_into().ok()
}

/// A whole number in `range`.
pub(super) fn count<T: TryFrom<u64>>(
    value: &DeValue<'_>,
    range: &RangeInclusive<u64>,
) -> Result<T, String> {
    let (least, most) = (range.start(), range.end());
    let Some(number) = value.as_integer() else {
        let what = format!("a whole number from {least} to {most}");
        return Err(must_be(value, &what));
    };
    within(range, integer(number))
        .ok_or_else(|| format!("{number} is out of range: write a number from {least} to {most}"))
}

/// Bytes in `range`: "64KiB", or a plain number.
pub(super) fn size<T: TryFrom<u64>>(
    value: &DeValue<'_>,
    range: &RangeInclusive<u64>,
) -> Result<T, String> {
    let (given, bytes) = match value {
        DeValue::Integer(number) => (number.to_string(), integer(number)),
        DeValue::String(text) => (quote(text), read_size(text)?),
        _ => return Err(must_be(value, "a size, as \"64KiB\"")),
    };
    within(range, bytes).ok_or_else(|| {
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        format!("{given} is out of range: write a size from {least} to {most}")
    })
}

pub(super) fn size_or_never(
    value: &DeValue<'_>,
    range: &RangeInclusive<u64>,
) -> Result<Option<u64>, String> {
    match value {
        DeValue::String(text) if text == "never" => Ok(None),
        _ => match size(value, range) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) => Err(format!("{fault}, or \"never\"")),
        },
    }
}

/// The bytes that a size means, as "64KiB"; `None` where they are more than can be counted.
///
/// # Errors
/// What would be right, where it is no size.
pub fn read_size(text: &str) -> Result<Option<u64>, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_matches(' ');
    let unit = SIZES
        .iter()
        .find(|(name, _)| *name == unit || unit.is_empty() && *name == "B");
    match unit {
        Some((_, bytes)) if digits > 0 => {
            let number: Option<u64> = number.parse().ok();
            Ok(number.and_then(|number| number.checked_mul(*bytes)))
        }
        _ => Err(format!(
            "{} is no size: write a whole number and B, KiB, MiB or GiB, as \"64KiB\"",
            quote(text)
        )),
    }
}

pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "B")
}

pub(super) fn show_span(span: Duration) -> String {
    show(span.as_nanos() as u64, &SPANS, "s")
}

/// `number` in the largest unit that is exact; zero in the unit `of_zero`.
fn show(number: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    let exact = |(_, unit): &(&str, u64)| number > 0 && number.is_multiple_of(*unit);
    let (name, unit) = units.iter().copied().find(exact).unwrap_or((of_zero, 1));
    format!("{}{name}", number / unit)
}

/// A span of time of `shortest` or more.
pub(super) fn span(value: &DeValue<'_>, shortest: Duration) -> Result<Duration, String> {
    let text = span_text(value)?;
    if text == "never" {
        return Err("cannot be \"never\": write a span of time, as \"5s\"".into());
    }
    read_span(text, shortest, "")
}

/// A span of time of `shortest` or more, or "never".
pub(super) fn span_or_never(
    value: &DeValue<'_>,
    shortest: Duration,
) -> Result<Option<Duration>, String> {
    match span_text(value)? {
        "never" => Ok(None),
        text => read_span(text, shortest, ", or \"never\"").map(Some),
    }
}

fn span_text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        DeValue::Integer(number) => Err(format!(
            "{number} lacks its unit: write a span of time as a string, as \"{number}s\" or \"{number}ms\""
        )),
        _ => Err(must_be(value, "a span of time, as \"5s\"")),
    }
}

fn read_span(text: &str, shortest: Duration, or: &str) -> Result<Duration, String> {
    let given = quote(text);
    let out_of_range = || {
        let (least, most) = (show_span(shortest), show_span(bounds::LONGEST));
        format!("{given} is out of range: write a span from {least} to {most}{or}")
    };
    if text.bytes().filter(u8::is_ascii_digit).count() > SPAN_DIGITS {
        return Err(out_of_range());
    }
    let mut words = text.split(|c: char| !c.is_ascii_alphabetic());
    if let Some(unit) = words.find(|word| CALENDAR.contains(word)) {
        return Err(format!(
            "{} counts months or years, which differ in length: write min for minutes, or days{or}",
            quote(unit)
        ));
    }
    let span = humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => out_of_range(),
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => {
            format!("{given} lacks its unit: write ms, s, min, h or days behind it{or}")
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            let unit = quote(&unit);
            format!("{unit} is no unit of time: write ms, s, min, h or days{or}")
        }
        _ => format!("{given} is no span of time: write one as \"250ms\" or \"5min\"{or}"),
    })?;
    match (shortest..=bounds::LONGEST).contains(&span) {
        true => Ok(span),
        false => Err(out_of_range()),
    }
}

/// Permission bits: an octal string, because an integer of TOML is decimal.
pub(super) fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    let text = match value {
        DeValue::String(text) => text,
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let octal = digits.len() <= 4 && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
            let right = if octal { digits } else { "0660" };
            return Err(format!(
                "{number} is an integer and a mode is an octal string: write \"{right:0>4}\""
            ));
        }
        _ => return Err(must_be(value, "an octal string, as \"0660\"")),
    };
    let given = quote(text);
    // Not a sign, which the standard library would take.
    let is_octal = text.len() <= 5 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        Ok(_) if is_octal => Err(format!(
            "{given} is over \"0777\": permission bits alone can be set"
        )),
        _ => Err(format!(
            "{given} is no mode: write up to four octal digits, as \"0660\""
        )),
    }
}

/// A user or group, by name or number; "" where nobody is named.
pub(super) fn name_or_number(value: &DeValue<'_>) -> Result<String, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => {
            integer(number).map_or_else(|| number.to_string(), |n| n.to_string())
        }
        _ => return Err(must_be(value, "a name or a number, as \"www-data\"")),
    };
    // The last number stands for "no change" in chown(2).
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(u32::MAX) | Err(_) if !text.is_empty() => Err(format!(
                "{text} is out of range: numbers go from 0 to {}",
                u32::MAX - 1
            )),
            _ => Ok(text),
        };
    }
    // Directories have names with blanks, backslashes and what not; a colon no database can hold.
    if text.contains(|c: char| c.is_control() || c == ':') {
        return Err(format!(
            "{} cannot be a name, which has no colon and no control character: write one as in `getent passwd`",
            quote(&text)
        ));
    }
    Ok(text)
}

/// Users or groups, by names or numbers.
pub(super) fn users(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let Some(list) = value.as_array() else {
        return Err(must_be(value, "an array of names, as [\"www-data\"]"));
    };
    let named = |value: &DeValue<'_>| match name_or_number(value)? {
        name if name.is_empty() => Err("\"\" names nobody: leave it out".into()),
        name => Ok(name),
    };
    list.iter().map(|entry| named(entry.get_ref())).collect()
}

/// What env_logger takes, except a bare name: env_logger takes it for a module, but here it is a slip.
pub(super) fn log(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value, "info")?;
    let level = |word: &str| word.trim().parse::<log::LevelFilter>().is_ok();
    let is_wrong = |directive: &&str| match directive.split_once('=') {
        Some((target, word)) => target.trim().is_empty() || !level(word),
        None => !level(directive),
    };
    let directives = text.split('/').next().unwrap_or_default();
    match directives.split(',').find(is_wrong) {
        None => Ok(text.into()),
        Some(wrong) => Err(format!(
            "{} is no log level: write off, error, warn, info, debug, trace, or MODULE=LEVEL",
            quote(wrong.trim())
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn read_one<T>(
        text: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        read(DeValue::parse(text).unwrap().get_ref())
    }

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [
            ("\"64KiB\"", 65536u64),
            ("\"1 MiB\"", 1 << 20),
            ("\"3GiB\"", 3 << 30),
            ("\"7B\"", 7),
            ("\"7\"", 7),
            ("65537", 65537),
            ("0x10", 16),
            ("0", 0),
        ] {
            assert_eq!(
                read_one(text, |v| size(v, &(0..=u64::MAX))),
                Ok(bytes),
                "{text}"
            );
            let shown = format!("\"{}\"", show_size(bytes));
            assert_eq!(
                read_one(&shown, |v| size(v, &(0..=u64::MAX))),
                Ok(bytes),
                "{shown}"
            );
        }
        assert_eq!(show_size(65536), "64KiB");
        assert_eq!(show_size(65537), "65537B");
        for text in [
            "\"\"",
            "\"KiB\"",
            "\"64K\"",
            "\"64kib\"",
            "\"-1B\"",
            "\"1.5MiB\"",
            "\"99999999999GiB\"",
            "\"99999999999999999999B\"",
            "-1",
            "1e3",
            "true",
        ] {
            assert!(
                read_one(text, |v| size::<u64>(v, &(0..=u64::MAX))).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn spans_round_trip() {
        for (text, millis, shown) in [
            ("250ms", 250, "250ms"),
            ("5min", 300_000, "5min"),
            ("90s", 90_000, "90s"),
            ("1h 30min", 5_400_000, "90min"),
            ("2days", 172_800_000, "48h"),
            ("0s", 0, "0s"),
        ] {
            let span = read_span(text, Duration::ZERO, "").unwrap();
            assert_eq!(span, Duration::from_millis(millis));
            assert_eq!(show_span(span), shown);
            assert_eq!(read_span(shown, Duration::ZERO, ""), Ok(span));
        }
    }

    #[test]
    fn spans_at_the_end_of_time_do_not_panic() {
        for text in [
            "18446744073709551615s 1000ms",
            "1844674407370955161 5s 1000ms",
            "584554049253y",
            "5 5 5s",
            "µ",
            "1µs",
        ] {
            let _ = read_span(text, Duration::ZERO, "");
        }
    }

    #[test]
    fn a_mode_given_as_integer_is_told_its_string() {
        assert_eq!(read_one("\"0660\"", mode), Ok(0o660));
        for (text, right) in [
            ("660", "\"0660\""),
            ("0o600", "\"0600\""),
            ("7", "\"0007\""),
            ("989", "\"0660\""),
        ] {
            let error = read_one(text, mode).unwrap_err();
            assert!(
                error.contains("octal string") && error.ends_with(right),
                "{error}"
            );
        }
    }

    #[test]
    fn log_filters_are_levels() {
        for text in [
            "info",
            "OFF",
            "warn,udsd=debug",
            "udsd::hub=trace",
            "info/client",
        ] {
            assert_eq!(read_one(&format!("{text:?}"), log), Ok(text.into()));
        }
        for text in ["", "inof", "udsd=", "=info", "warn,,info"] {
            assert!(read_one(&format!("{text:?}"), log).is_err(), "{text}");
        }
    }
}
