//! A syslog message as fields (`parse = "syslog"`): RFC 5424, and all that is called RFC 3164, with or without time,
//! host, tag and process.
//!
//! It goes by what programs write to a local socket. There a tag comes without a host more often than with one,
//! so a host is only what stands before a tag, or is an address; what leaves that open is text. Each part of a
//! message is looked at a few times at most, however long it is, and no message is refused: what it lacks is left
//! out, and only without a priority there are no fields at all.

mod data;
mod time;

use std::{net::IpAddr, time::SystemTime};

use serde::Serialize;

pub use time::Zone;

use crate::rfc3339;
use data::Data;

/// What a line has beside the message (`parse`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parse {
    /// Nothing.
    #[default]
    None,
    /// The fields of a syslog message.
    Syslog,
}

/// By number (RFC 5424, 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// By number.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// Longest tag, bytes. What is longer is text.
const TAG: usize = 128;

/// The byte order mark with which a text in UTF-8 may begin.
const BOM: char = '\u{feff}';

/// The fields of a message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Syslog<'a> {
    facility: &'static str,
    severity: &'static str,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "time::write"
    )]
    time: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    procid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msgid: Option<&'a str>,
    #[serde(skip_serializing_if = "Data::is_empty")]
    data: Data<'a>,
    text: &'a str,
}

impl<'a> Syslog<'a> {
    /// The fields of a message that came at `received`, a time of RFC 3339; `None` where it has no priority. A time
    /// without a zone is one of `zone`.
    #[must_use]
    pub fn parse(message: &'a str, received: &str, zone: &mut Zone) -> Option<Self> {
        let (priority, rest) = priority(message)?;
        let fields = rest.strip_prefix("1 ").and_then(rfc5424);
        Some(Syslog {
            facility: FACILITIES.get(priority / 8)?,
            severity: SEVERITIES[priority % 8],
            ..fields.unwrap_or_else(|| rfc3164(rest, received, zone))
        })
    }
}

/// "<13>", and what is behind it.
fn priority(message: &str) -> Option<(usize, &str)> {
    let (digits, rest) = message.strip_prefix('<')?.split_once('>')?;
    let is_number = matches!(digits.len(), 1..=3)
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    is_number.then(|| Some((digits.parse().ok()?, rest)))?
}

/// What is behind the version, if all of it is as RFC 5424 has it.
fn rfc5424(text: &str) -> Option<Syslog<'_>> {
    let mut rest = text;
    let mut word = || {
        let (word, behind) = rest.split_once(' ')?;
        rest = behind;
        // None for "-", the nil value.
        (!word.is_empty()).then_some((word != "-").then_some(word))
    };
    let time = match word()? {
        Some(time) => Some(rfc3339::parse(time)?),
        None => None,
    };
    let (host, app, procid, msgid) = (word()?, word()?, word()?, word()?);
    let (data, text) = Data::parse(rest)?;
    Some(Syslog {
        time,
        host,
        app,
        procid,
        msgid,
        data,
        text: text.strip_prefix(BOM).unwrap_or(text),
        ..Syslog::default()
    })
}

/// What is behind the priority, in whatever form.
fn rfc3164<'a>(text: &'a str, received: &str, zone: &mut Zone) -> Syslog<'a> {
    let (time, rest) = match time::find(text, received, zone) {
        Some((time, rest)) => (time, Some(rest)),
        None => (None, None),
    };
    let rest_or_all = rest.unwrap_or(text);
    let tagged = tag(rest_or_all).or_else(|| host(rest?));
    let fields = tagged.unwrap_or(Syslog {
        text: rest_or_all,
        ..Syslog::default()
    });
    Syslog { time, ..fields }
}

/// "app: ", "app[12]: " or "app[12] ", and the text behind it.
fn tag(text: &str) -> Option<Syslog<'_>> {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let word = &text[..end];
    let (app, procid, behind) = match word.split_once('[') {
        None => (word.strip_suffix(':')?, None, &text[end..]),
        Some((app, rest)) => {
            let (procid, rest) = rest.split_once(']')?;
            let is_pid = procid.bytes().all(|byte| byte.is_ascii_digit());
            if procid.is_empty() || !(rest.starts_with(':') || is_pid && rest.is_empty()) {
                return None;
            }
            let behind = &text[end - rest.len()..];
            let behind = behind.strip_prefix(':').unwrap_or(behind);
            (app, Some(procid), behind)
        }
    };
    // "@cee:" tells that the text is JSON.
    (is_tag(app) && app != "@cee").then_some(Syslog {
        app: Some(app),
        procid,
        text: behind.strip_prefix(' ').unwrap_or(behind),
        ..Syslog::default()
    })
}

fn is_tag(app: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "._-/+%@#()~$!*&".contains(c);
    app.len() <= TAG && app.chars().all(fits) && app.contains(char::is_alphabetic)
}

/// A host before a tag, or an address.
fn host(text: &str) -> Option<Syslog<'_>> {
    let (host, behind) = text.split_once(' ')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return None;
    }
    let is_address = host.parse::<IpAddr>().is_ok();
    // "fw1 : %ASA-6-302013: "
    let tagged = tag(behind.strip_prefix(": ").unwrap_or(behind));
    let of_text = || Syslog {
        text: behind,
        ..Syslog::default()
    };
    let fields = tagged.or_else(|| is_address.then(of_text))?;
    let host = Some(host);
    Some(Syslog { host, ..fields })
}
