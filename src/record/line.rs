//! One message as a line of a record: JSON, text or raw.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read, Write},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    prefix::Prefix,
    syslog::{Parse, Syslog, Zone},
};
use crate::peer::{ClientId, Peer};

/// `format` of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `TIME SOCKET[PID] uid=UID MESSAGE`, control characters and backslashes escaped.
    Text,
    /// The bytes and LF.
    Raw,
}

impl Format {
    /// Bytes of the longest line of a message of `message_size` bytes.
    #[must_use]
    pub fn longest(self, parse: Parse, message_size: usize) -> usize {
        let (each, rest) = match (self, parse) {
            // An escape of six bytes, and four of base64 for three.
            (Format::Json, Parse::None) => (8, REST),
            // The fields have each byte once more.
            (Format::Json, Parse::Syslog) => (14, REST + FIELDS),
            (Format::Text, _) => (6, REST),
            (Format::Raw, _) => (1, 1),
        };
        message_size.saturating_mul(each).saturating_add(rest)
    }

    /// How far from its end a record's last number is looked for, in bytes; `None` where lines have
    /// none. The longest line, and a torn one behind it, are always within.
    #[must_use]
    pub fn search(self, parse: Parse, message_size: usize) -> Option<u64> {
        let longest = self.longest(parse, message_size) as u64;
        (self == Format::Json).then_some(longest.saturating_mul(2).max(SEARCH))
    }
}

/// Bytes of a line beside those of its message, at most.
const REST: usize = 512;
/// The same of its fields.
const FIELDS: usize = 256;

/// The least of `Format::search`: a record may have been written under a larger message-size.
const SEARCH: u64 = 64 << 20;

/// How each line of a JSON record starts.
const START: &[u8; 9] = b"{\"time\":\"";

/// The priority that the journal reads at the start of each line (`sd-daemon(3)`): informational.
const PRIORITY: &[u8] = b"<6>";

/// Longest piece of a line that goes to the journal whole. journald cuts at LineMax=, 48 KiB by
/// default, and would read a priority at the start of what follows (`journald.conf(5)`).
const JOURNAL_LINE: usize = 48 * 1024 - 64;

/// What a line says beside its number.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Whose message it is.
    pub client: ClientId,
    /// Who that is.
    pub peer: &'a Peer,
    /// The message, without its terminator.
    pub message: &'a [u8],
    /// The message was longer.
    pub truncated: bool,
}

/// Messages that were dropped, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many they were.
    pub count: u64,
    /// Their bytes; where they were dropped for a client, as it would have got them.
    pub bytes: u64,
}

impl Gap {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, message: &[u8]) {
        self.count += 1;
        self.bytes += message.len() as u64;
    }
}

/// As a JSON object has it.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { count, bytes } = self;
        write!(f, "\"gap\":{{\"count\":{count},\"bytes\":{bytes}}}")
    }
}

/// Writes the lines of one record.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    /// Lines go to the journal, which takes a leading `<N>` for a priority.
    journal: bool,
    socket: String,
    /// The time as the lines show it, kept for as long as `at` stays the same.
    time: String,
    at: Option<SystemTime>,
    prefix: Prefix,
    /// Under `Parse::Syslog`: whose times are those of messages.
    zone: Option<Zone>,
}

impl Encoder {
    /// Whether lines go to the journal.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.journal
    }

    /// For the record of `socket`; `journal`: each line gets a priority, so that no message can
    /// forge one.
    #[must_use]
    pub fn new(format: Format, journal: bool, socket: &str) -> Self {
        Encoder {
            format,
            journal,
            socket: socket.into(),
            time: String::new(),
            at: None,
            prefix: Prefix::default(),
            zone: None,
        }
    }

    /// What JSON lines have beside the message.
    pub fn set_parse(&mut self, parse: Parse) {
        self.zone = match parse {
            Parse::None => None,
            Parse::Syslog => Some(Zone::default()),
        };
    }

    /// The time of the lines to come.
    pub fn set_time(&mut self, at: SystemTime) {
        if self.at != Some(at) {
            self.time = humantime::format_rfc3339_micros(at).to_string();
            self.at = Some(at);
            self.prefix.set_time(&self.time, &self.socket);
        }
    }

    /// Adds line number `seq` to `out`.
    pub fn put(&mut self, out: &mut Vec<u8>, seq: u64, line: &Line<'_>) {
        if self.journal {
            out.extend_from_slice(PRIORITY);
        }
        let start = out.len();
        // Writing to a Vec cannot fail.
        let _ = match self.format {
            Format::Json => self.json(out, seq, line),
            Format::Text => self.text(out, line),
            Format::Raw => out.write_all(line.message),
        };
        if self.journal {
            prefix_pieces(out, start);
        }
        out.push(b'\n');
    }

    /// Adds the line of a gap to `out`. A raw record has none.
    pub(super) fn put_gap(&self, out: &mut Vec<u8>, gap: &Gap) {
        let (time, socket) = (&self.time, &self.socket);
        let line = match self.format {
            Format::Json => format!("{{\"time\":\"{time}\",\"socket\":\"{socket}\",{gap}}}\n"),
            // No message can forge it: behind its socket stands a bracket.
            Format::Text => {
                let Gap { count, bytes } = gap;
                format!("{time} {socket} gap count={count} bytes={bytes}\n")
            }
            Format::Raw => return,
        };
        if self.journal {
            out.extend_from_slice(PRIORITY);
        }
        out.extend_from_slice(line.as_bytes());
    }

    fn json(&mut self, out: &mut Vec<u8>, seq: u64, line: &Line<'_>) -> io::Result<()> {
        let (client, peer, message) = (line.client, line.peer, line.message);
        if line.truncated {
            out.extend_from_slice(&self.prefix.of_cut(seq, client, peer));
        } else {
            out.extend_from_slice(self.prefix.of(seq, client, peer));
        }
        let text = match is_plain(message) {
            true => {
                out.extend_from_slice(message);
                if self.zone.is_none() {
                    // As for most lines.
                    out.extend_from_slice(b"\"}");
                    return Ok(());
                }
                out.push(b'"');
                None
            }
            false => Some(text_of(message, line.truncated)),
        };
        if let Some(text) = &text {
            // It comes with its quotes.
            out.pop();
            serde_json::to_writer(&mut *out, text)?;
            // Owned: it is not what was said, for which the bytes then stand beside it.
            if let Cow::Owned(_) = text {
                write!(out, ",\"message_base64\":\"{}\"", BASE64.encode(message))?;
            }
        }
        if let Some(zone) = &mut self.zone {
            let text = text.unwrap_or_else(|| String::from_utf8_lossy(message));
            if let Some(fields) = Syslog::parse(&text, &self.time, zone) {
                out.extend_from_slice(b",\"syslog\":");
                serde_json::to_writer(&mut *out, &fields)?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn text(&self, out: &mut Vec<u8>, line: &Line<'_>) -> io::Result<()> {
        let peer = line.peer;
        write!(out, "{} {}[", self.time, self.socket)?;
        match peer.process() {
            Some(pid) => write!(out, "{pid}")?,
            None => out.push(b'-'),
        }
        write!(out, "] uid={} ", peer.uid)?;
        if line.truncated {
            out.extend_from_slice(b"(truncated) ");
        }
        for chunk in line.message.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => out.extend_from_slice(b"\\\\"),
                    '\n' => out.extend_from_slice(b"\\n"),
                    '\t' => out.extend_from_slice(b"\\t"),
                    '\r' => out.extend_from_slice(b"\\r"),
                    // C0 and C1: what moves a terminal's cursor or colours it.
                    c if c.is_control() => write!(out, "\\u{{{:x}}}", u32::from(c))?,
                    c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A message as text, with U+FFFD for what is none.
fn text_of(message: &[u8], truncated: bool) -> Cow<'_, str> {
    match str::from_utf8(message) {
        Ok(text) => Cow::Borrowed(text),
        // Cut in the middle of a character, text stays text.
        Err(error) if truncated && error.error_len().is_none() => {
            String::from_utf8_lossy(&message[..error.valid_up_to()])
        }
        Err(_) => String::from_utf8_lossy(message),
    }
}

/// Whether this is ASCII that stands in a JSON string as it is, as most messages do. Finding that out
/// first is a fraction of looking at each byte for its own.
fn is_plain(message: &[u8]) -> bool {
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    // The last bytes once more, as a whole block: none are looked at one by one.
    let last = match message.last_chunk::<BLOCK>() {
        Some(last) => *last,
        None => {
            let mut last = [b' '; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            last
        }
    };
    blocks.iter().all(is_plain_block) && is_plain_block(&last)
}

/// How many bytes are looked at together.
const BLOCK: usize = 32;

#[inline]
fn is_plain_block(block: &[u8; BLOCK]) -> bool {
    // Without an early end the compiler looks at many bytes at once. What is not ASCII is negative.
    let others = block.iter().fold(0, |others, &byte| {
        let is_control = (byte as i8) < b' ' as i8;
        others | u8::from(is_control) | u8::from(byte == b'"') | u8::from(byte == b'\\')
    });
    others == 0
}

/// Gives the priority to whatever the journal would take for a line of its own in the line that
/// begins at `start`.
fn prefix_pieces(out: &mut Vec<u8>, start: usize) {
    if out.len() - start <= JOURNAL_LINE && !out[start..].contains(&b'\n') {
        return;
    }
    let line = out.split_off(start);
    let pieces = line
        .split(|&byte| byte == b'\n')
        .flat_map(|piece| piece.chunks(JOURNAL_LINE));
    for (i, piece) in pieces.enumerate() {
        if i > 0 {
            out.push(b'\n');
            out.extend_from_slice(PRIORITY);
        }
        out.extend_from_slice(piece);
    }
}

/// When a line of a JSON record was taken, and its number, by its first bytes; `None` where it has no number.
pub(super) fn start_of(line: &[u8]) -> Option<(SystemTime, u64)> {
    let line = line.strip_prefix(START)?;
    let rest = str::from_utf8(&line[..line.len().min(REST)]);
    let rest = rest.or_else(|error| str::from_utf8(&line[..error.valid_up_to()]));
    let (time, rest) = rest.ok()?.split_once("\",\"socket\":\"")?;
    let (_, rest) = rest.split_once('"')?;
    let (seq, _) = rest.strip_prefix(",\"seq\":")?.split_once([',', '}'])?;
    Some((humantime::parse_rfc3339(time).ok()?, seq.parse().ok()?))
}

/// Whether this may be the start of a line of a JSON record, however short.
pub(super) fn is_start(bytes: &[u8]) -> bool {
    let length = bytes.len().min(START.len());
    bytes[..length] == START[..length]
}

/// The `seq` of one line of a JSON record, if it is one: udsd's own have `time` and `socket` too. A number that has
/// no next one is none of its own either. A line of any length is read in pieces.
///
/// # Errors
/// Those of reading it.
pub(super) fn seq_of(mut line: impl Read) -> io::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "time")]
        _time: IgnoredAny,
        #[serde(rename = "socket")]
        _socket: IgnoredAny,
        seq: u64,
    }
    let mut start = [0; START.len()];
    match line.read_exact(&mut start) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if start != *START {
        return Ok(None);
    }
    match serde_json::from_reader(start.chain(line)) {
        Ok(Line { seq, .. }) => Ok((seq < u64::MAX).then_some(seq)),
        Err(error) if error.is_io() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;

    fn of(client: u64, peer: &Peer) -> Line<'_> {
        Line {
            client: ClientId(client),
            peer,
            message: b"x",
            truncated: false,
        }
    }

    fn line(format: Format, journal: bool, message: &[u8], truncated: bool) -> String {
        let mut encoder = Encoder::new(format, journal, "log");
        encoder.set_time(SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_792_431_123_456));
        let mut out = Vec::new();
        let peer = Peer {
            pid: 1234,
            uid: 5,
            gid: 6,
        };
        let line = Line {
            message,
            truncated,
            ..of(17, &peer)
        };
        encoder.put(&mut out, 1, &line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_as_the_manual_has_it() {
        assert_eq!(
            line(Format::Json, false, "a \"b\"\n\u{1b}é".as_bytes(), false),
            "{\"time\":\"2025-11-22T06:20:31.123456Z\",\"socket\":\"log\",\"seq\":1,\"client\":17,\
             \"pid\":1234,\"uid\":5,\"gid\":6,\"message\":\"a \\\"b\\\"\\n\\u001bé\"}\n"
        );
        let binary: serde_json::Value =
            serde_json::from_str(&line(Format::Json, false, b"\xff\0", false)).unwrap();
        assert_eq!(binary["message"], "\u{fffd}\0");
        assert_eq!(binary["message_base64"], "/wA=");
    }

    #[test]
    fn a_process_that_is_not_visible_has_no_pid() {
        for (format, words) in [
            (Format::Json, ",\"client\":17,\"uid\":5,\"gid\":6,"),
            (Format::Text, " log[-] uid=5 x"),
        ] {
            let mut encoder = Encoder::new(format, false, "log");
            let (mut out, peer) = (
                Vec::new(),
                Peer {
                    pid: 0,
                    uid: 5,
                    gid: 6,
                },
            );
            encoder.put(&mut out, 1, &of(17, &peer));
            let line = String::from_utf8(out).unwrap();
            assert!(line.contains(words), "{line}");
        }
    }

    #[test]
    fn every_character_stands_in_a_line_as_json_wants_it() {
        for character in (0..=0x2100).filter_map(char::from_u32) {
            let text = format!("plain {character} text");
            let line = line(Format::Json, false, text.as_bytes(), false);
            let message = serde_json::to_string(&text).unwrap();
            assert!(line.ends_with(&format!(",\"message\":{message}}}\n")));
        }
    }

    #[test]
    fn what_is_no_text_stands_as_text_and_as_its_bytes() {
        for (message, text) in [
            // Latin-1, a lone surrogate, one character cut short inside and one at the end.
            (&b"caf\xe9 au lait"[..], "caf\u{fffd} au lait"),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xe2\x82-\xe2\x82", "\u{fffd}-\u{fffd}"),
        ] {
            let line = line(Format::Json, false, message, false);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["message"], text);
            let bytes = BASE64.decode(line["message_base64"].as_str().unwrap());
            assert_eq!(bytes.unwrap(), message);
        }
        let cut: serde_json::Value =
            serde_json::from_str(&line(Format::Json, false, b"\xe9 a\xe2\x82", true)).unwrap();
        assert_eq!(cut["message"], "\u{fffd} a\u{fffd}");
        assert_eq!(cut["message_base64"], "6SBh4oI=");
    }

    #[test]
    fn no_line_is_longer_than_is_counted_with() {
        let size = 3_000;
        for byte in 0..=255 {
            for last in [byte, 0xff] {
                let mut message = vec![byte; size];
                message[size - 1] = last;
                for format in [Format::Json, Format::Text] {
                    let length = line(format, false, &message, true).len();
                    assert!(
                        length <= format.longest(Parse::None, size),
                        "{byte}, {last}: {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn each_line_has_its_own_sender_and_time() {
        let mut encoder = Encoder::new(Format::Json, false, "log");
        let mut out = Vec::new();
        let mut peer = Peer {
            pid: 1,
            uid: 2,
            gid: 3,
        };
        for (seconds, client, pid) in [(0, 4, 1), (0, 4, 1), (1, 4, 1), (1, 5, 1), (1, 5, 6)] {
            encoder.set_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            peer.pid = pid;
            encoder.put(&mut out, 1, &of(client, &peer));
            let line = out.split(|&byte| byte == b'\n').nth_back(1).unwrap();
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            let time = format!("1970-01-01T00:00:0{seconds}.000000Z");
            assert_eq!(line["time"], time);
            assert_eq!(
                (&line["client"], &line["pid"]),
                (&client.into(), &pid.into())
            );
        }
    }

    #[test]
    fn a_cut_inside_a_character_stays_text() {
        let cut: serde_json::Value =
            serde_json::from_str(&line(Format::Json, false, &"aé".as_bytes()[..2], true)).unwrap();
        assert_eq!(
            (cut["message"].as_str(), cut["truncated"].as_bool()),
            (Some("a"), Some(true))
        );
    }

    #[test]
    fn text_escapes_what_could_deceive() {
        assert_eq!(
            line(Format::Text, false, b"a\\b\nc\x1b[1m\xc2\x85\xff", true),
            "2025-11-22T06:20:31.123456Z log[1234] uid=5 (truncated) a\\\\b\\nc\\u{1b}[1m\\u{85}\\xff\n"
        );
    }

    #[test]
    fn no_message_forges_a_priority() {
        assert_eq!(
            line(Format::Raw, true, b"<0>a\n<0>b", false),
            "<6><0>a\n<6><0>b\n"
        );
        assert_eq!(
            line(Format::Raw, false, b"<0>a\n<0>b", false),
            "<0>a\n<0>b\n"
        );
        assert!(line(Format::Json, true, b"<0>a", false).starts_with("<6>{"));
        let long = line(Format::Raw, true, &b"<0>".repeat(40_000), false);
        assert!(
            long.lines()
                .all(|line| line.starts_with("<6>") && line.len() < 48 * 1024)
        );
        assert_eq!(
            long.lines().map(|line| line.len() - 3).sum::<usize>(),
            120_000
        );
    }

    #[test]
    fn seq_is_read_back_from_a_line() {
        let own = line(Format::Json, false, b"x", false);
        assert_eq!(seq_of(own.trim_end().as_bytes()).unwrap(), Some(1));
        let max = own.replace("\"seq\":1,", "\"seq\":18446744073709551615,");
        for other in [
            own.trim_end().trim_end_matches('}'),
            &own.replace("\"socket\"", "\"basket\""),
            &max,
            &max.replace("615", "616"),
            "{\"seq\":1}",
            "{\"socket\":\"log\",\"seq\":1}",
            "[1]",
            "[1,2,3]",
            "[\"x\",\"y\",4711]",
            "{\"seq\":99,\"time\":1,\"socket\":\"x\"}",
            "",
        ] {
            assert_eq!(seq_of(other.as_bytes()).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn time_and_seq_are_read_back_from_the_start_of_a_line() {
        let own = line(Format::Json, false, &"é".repeat(REST).into_bytes(), false);
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_792_431_123_456);
        let enough = own.find("\"client\"").unwrap();
        for length in 0..own.len() {
            let found = (length >= enough).then_some((at, 1));
            assert_eq!(start_of(&own.as_bytes()[..length]), found, "{length}");
            assert!(is_start(&own.as_bytes()[..length]), "{length}");
        }
        let gap = own.replace(",\"seq\":1", ",\"gap\":{}");
        assert_eq!(start_of(gap.as_bytes()), None);
        for other in ["x", "{\"time\":1", "{ \"time\""] {
            assert_eq!(
                (start_of(other.as_bytes()), is_start(other.as_bytes())),
                (None, false)
            );
        }
    }

    #[test]
    fn only_json_is_searched_for_numbers_and_far_enough() {
        assert_eq!(Format::Text.search(Parse::None, 1024), None);
        assert_eq!(Format::Raw.search(Parse::None, 1024), None);
        assert_eq!(Format::Json.search(Parse::None, 1024), Some(64 << 20));
        assert!(Format::Json.search(Parse::None, 1 << 30) > Some(12 << 30));
    }
}
