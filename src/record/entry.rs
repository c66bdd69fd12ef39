//! A line of a JSON record, read back: a message, or a gap.

use std::{borrow::Cow, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, de::Error};

use super::line::Gap;

/// What a line says. It has either a number (a message) or a gap.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry<'a> {
    /// When the message came.
    #[serde(deserialize_with = "time")]
    pub time: SystemTime,
    /// The socket to which it came.
    #[serde(borrow)]
    pub socket: Cow<'a, str>,
    /// The number of the message.
    pub seq: Option<u64>,
    /// The number of its client; 0 where there is none.
    #[serde(default)]
    pub client: u64,
    /// The sender's process, where the kernel vouches for it.
    pub pid: Option<u32>,
    /// The sender's user.
    pub uid: Option<u32>,
    /// The sender's unit, where the kernel vouches for it.
    pub unit: Option<String>,
    /// The same, of the user's manager.
    pub user_unit: Option<String>,
    /// The message was longer.
    #[serde(default)]
    pub truncated: bool,
    /// The message, with U+FFFD for what is no UTF-8.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Its bytes in base64, where it is not UTF-8.
    pub message_base64: Option<String>,
    /// What it says of itself as a syslog message.
    pub syslog: Option<Box<Fields>>,
    /// What is missing here.
    pub gap: Option<Gap>,
}

/// Of the fields of a syslog message, those that people read first.
#[derive(Clone, Debug, Deserialize)]
pub struct Fields {
    /// As "err".
    pub severity: String,
    /// The program or tag.
    pub app: Option<String>,
    /// Its process.
    pub procid: Option<String>,
    /// What is said.
    pub text: String,
}

impl<'a> Entry<'a> {
    /// Reads a line, without its line feed; `None` where udsd has not written it, or not whole.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line).ok()?;
        let is_message = entry.seq.is_some_and(|seq| seq < u64::MAX);
        (is_message != entry.gap.is_some()).then_some(entry)
    }

    /// The message as it came.
    #[must_use]
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        let decoded = |text: &String| BASE64.decode(text).ok();
        match self.message_base64.as_ref().and_then(decoded) {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(self.message.as_bytes()),
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;
    use crate::{
        peer::{ClientId, Peer},
        record::{Encoder, Format, Line},
    };

    fn line(message: &[u8], pid: i32) -> Vec<u8> {
        let mut encoder = Encoder::new(Format::Json, false, "log");
        encoder.set_time(SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_792_431_123_456));
        let peer = Peer {
            pid,
            uid: 5,
            gid: 6,
        };
        let line = Line {
            client: ClientId(17),
            peer: &peer,
            message,
            truncated: true,
        };
        let mut out = Vec::new();
        encoder.put(&mut out, 7, &line);
        out.pop();
        out
    }

    #[test]
    fn what_was_written_is_read_back() {
        for message in [&b"a \"b\"\n"[..], b"", "é".as_bytes(), b"\xff\0"] {
            let line = line(message, 0);
            let entry = Entry::parse(&line).unwrap();
            assert_eq!(&*entry.bytes(), message);
            assert_eq!((entry.seq, entry.uid, entry.pid), (Some(7), Some(5), None));
            assert_eq!((&*entry.socket, entry.client), ("log", 17));
            assert!(entry.truncated && entry.gap.is_none() && entry.unit.is_none());
            let at = entry.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(at.as_micros(), 1_763_792_431_123_456);
        }
        assert_eq!(Entry::parse(&line(b"", 9)).unwrap().pid, Some(9));
        let plain = line(b"plain", 0);
        assert!(matches!(
            Entry::parse(&plain).unwrap().message,
            Cow::Borrowed("plain")
        ));
    }

    #[test]
    fn a_gap_is_one() {
        let gap = br#"{"time":"2025-11-22T06:20:31.123456Z","socket":"log","gap":{"count":3,"bytes":70}}"#;
        let entry = Entry::parse(gap).unwrap();
        let expected = Gap {
            count: 3,
            bytes: 70,
        };
        assert_eq!((entry.seq, entry.gap), (None, Some(expected)));
    }

    #[test]
    fn nothing_else_is_an_entry() {
        let whole = line(b"x", 1);
        for end in 0..whole.len() {
            assert!(Entry::parse(&whole[..end]).is_none(), "{end}");
        }
        let time = "\"time\":\"2025-11-22T06:20:31.123456Z\"";
        for other in [
            format!("{{{time},\"socket\":\"log\"}}"),
            format!("{{{time},\"seq\":1}}"),
            format!("{{{time},\"socket\":\"log\",\"seq\":1,\"gap\":{{\"count\":1,\"bytes\":1}}}}"),
            format!("{{{time},\"socket\":\"log\",\"seq\":18446744073709551615}}"),
            "{\"time\":\"yesterday\",\"socket\":\"log\",\"seq\":1}".into(),
            "[]".into(),
        ] {
            assert!(Entry::parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}
