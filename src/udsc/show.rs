//! Counts, sizes, spans and users as people write them: short enough for a column of a table.

use std::collections::HashMap;

use serde::Serialize;

use crate::sys;

/// Five characters at most up to a million million: "99999", "1.23M".
pub(crate) fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        _ => scaled(number, 1000, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// "0B", "1023B", "1.5KiB", "64MiB".
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(bytes, 1024, &units)
}

/// Three digits of `number` or, without a unit's, all.
fn scaled(number: u64, base: u64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut at = 0;
    while value >= base as f64 - 0.5 && at + 1 < units.len() {
        value /= base as f64;
        at += 1;
    }
    let decimals = match value {
        _ if at == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    let digits = match digits.split_once('.') {
        Some(_) => digits.trim_end_matches('0').trim_end_matches('.'),
        None => &digits,
    };
    format!("{digits}{}", units[at])
}

/// "0.2s", "59s", "12min", "3h", "9d".
pub(crate) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        ..9.95 => format!("{seconds:.1}s"),
        ..99.5 => format!("{seconds:.0}s"),
        ..5970.0 => format!("{:.0}min", seconds / 60.0),
        ..172_800.0 => format!("{:.0}h", seconds / 3600.0),
        _ => format!("{:.0}d", seconds / 86400.0),
    }
}

/// `text` on one line, without what a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' | '\\' => out.extend(c.escape_default()),
            c if c.is_control() || is_bidirectional(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The same of a line that is one already, and may have escapes of its own.
pub(crate) fn harmless(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            c if c != '\t' && (c.is_control() || is_bidirectional(c)) => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// Characters that turn the order of a line around.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The names of users, each asked for once.
#[derive(Default)]
pub(crate) struct Users(HashMap<u32, Option<String>>);

impl Users {
    /// The user's name, where the user database has one.
    pub(crate) fn name(&mut self, uid: u32) -> Option<&str> {
        let name = self.0.entry(uid);
        let name = name.or_insert_with(|| sys::user_name(uid).ok().flatten());
        name.as_deref()
    }

    /// The user's name, else the number.
    pub(crate) fn show(&mut self, uid: u32) -> String {
        self.name(uid).map_or_else(|| uid.to_string(), one_line)
    }
}

/// Something of a user, as JSON: with the user's name, where that is known.
#[derive(Serialize)]
pub(crate) struct WithUser<'a, T> {
    #[serde(flatten)]
    pub(crate) of: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
}

/// `text` as lines of at most `room` columns where that is known; a longer word is a line of its own.
pub(crate) fn wrapped(text: &str, room: Option<usize>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        let width = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if room.is_some_and(|room| width > room) {
            lines.push(word.into());
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        let text = "one two  three-and-more four";
        assert_eq!(wrapped(text, None), [text]);
        assert_eq!(
            wrapped(text, Some(8)),
            ["one two ", "three-and-more", "four"]
        );
        assert_eq!(wrapped("", Some(1)), [""]);
    }

    #[test]
    fn counts_are_short() {
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_500, "1M"),
            (1_234_567, "1.23M"),
            (99_960_000, "100M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text, "{number}");
        }
    }

    #[test]
    fn sizes_have_the_units_of_the_config_file() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            ((1 << 20) - 1, "1MiB"),
            (1000 << 10, "1000KiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (-1.0, "0.0s"),
            (0.25, "0.2s"),
            (9.96, "10s"),
            (61.0, "61s"),
            (600.0, "10min"),
            (7200.0, "2h"),
            (864_000.0, "10d"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_of_a_line() {
        assert_eq!(
            one_line("a\tb\n\u{1b}[2J\u{202e}ü\\"),
            "a\\tb\\n\\u{1b}[2J\\u{202e}ü\\\\"
        );
    }

    #[test]
    fn users_have_names_or_numbers() {
        let mut users = Users::default();
        assert_eq!(users.show(0), "root");
        assert_eq!(users.show(4_000_000_001), "4000000001");
    }
}
