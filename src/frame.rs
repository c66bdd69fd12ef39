//! Framing: where one message of a byte stream ends and the next begins.
//!
//! Owns the rules of every framing and nothing else: no buffer, no descriptor. `cut` looks at the
//! unfinished bytes that a connection holds and at what was just read, so that no byte is searched
//! twice however small the pieces in which it comes.

use std::{fmt, str::FromStr};

use memchr::{memchr, memchr_iter, memchr2, memrchr};
use serde::{Deserialize, Serialize};

/// Most digits of an octet count (RFC 6587, section 3.4.1) that are taken for one.
const COUNT_DIGITS: usize = 9;

/// The greatest octet count that has no more digits.
const COUNT_MAX: usize = 999_999_999;

/// How messages are told apart on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Bytes pass as they come; what one read returned is one message.
    None,
    /// A message ends at LF; CR LF counts as one terminator.
    Lines,
    /// A message ends at NUL.
    Nul,
    /// A 4-byte big-endian length, then that many bytes.
    LengthPrefixed,
    /// Exactly this many bytes.
    Fixed(usize),
    /// Buffers of this many bytes, each a string up to its first NUL.
    CString(usize),
    /// RFC 6587: octet counting, or up to LF, NUL, or LF NUL. A terminator with nothing before it
    /// is no message.
    Syslog,
}

/// What the bytes at the start of a message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole message: what is held and this many bytes of what came.
    Whole(usize),
    /// This many bytes that belong to no message (only where nothing is held).
    Filler(usize),
    /// No end in sight yet.
    Partial,
    /// A message longer than the limit. Its body starts `body` bytes into held and new bytes
    /// together; what follows the first `limit` bytes of the body is described by `skip`.
    TooLong {
        /// Bytes before the body.
        body: usize,
        /// How to find the end of the message.
        skip: Skip,
    },
}

/// The part of a too long message that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skip {
    /// This many bytes.
    Bytes(usize),
    /// Up to and with the terminator.
    Terminator,
}

/// The whole messages at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes that they span.
    pub bytes: usize,
    /// How many they are.
    pub messages: u64,
}

/// Why a message cannot be put on the wire under a framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It contains the byte that ends a message.
    Terminator(u8),
    /// It ends in CR, which would count as part of the terminator.
    CarriageReturn,
    /// It starts with digits, a space and `<`, which would be read as an octet count.
    OctetCount,
    /// It is empty, and would be taken for a stray terminator.
    Empty,
    /// It is not exactly, or is more than, this many bytes long.
    Length(usize),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Terminator(byte) => write!(
                f,
                "the message contains byte {byte:#04x}, which ends a message under this framing"
            ),
            Unfit::CarriageReturn => {
                f.write_str("the message ends in CR, which this framing takes for part of its end")
            }
            Unfit::OctetCount => f.write_str(
                "the message starts with digits, a space and \"<\", which this framing reads as an octet count",
            ),
            Unfit::Empty => f.write_str("the message is empty, which is none under this framing"),
            Unfit::Length(n) => {
                write!(f, "the message does not fit the {n} bytes of this framing")
            }
        }
    }
}

impl Framing {
    /// The first message of `held` and `more` together, where `held` is known to be the start of
    /// one message and not the whole of it. `limit` is the greatest length of a body, in bytes.
    #[must_use]
    pub fn cut(self, held: &[u8], more: &[u8], limit: usize) -> Cut {
        match self {
            Framing::None => Cut::Whole(more.len()),
            Framing::Lines => {
                let end = memchr(b'\n', more);
                let last = match end {
                    Some(0) => held.last(),
                    Some(i) => more.get(i - 1),
                    None => more.last().or(held.last()),
                };
                let length = held.len() + end.unwrap_or(more.len());
                delimited(
                    0,
                    length - usize::from(last == Some(&b'\r')),
                    end.map(|i| i + 1),
                    limit,
                )
            }
            Framing::Nul => {
                let end = memchr(0, more);
                let length = held.len() + end.unwrap_or(more.len());
                delimited(0, length, end.map(|i| i + 1), limit)
            }
            Framing::LengthPrefixed => {
                let mut prefix = [0; 4];
                if head(held, more, &mut prefix) < 4 {
                    return Cut::Partial;
                }
                counted(
                    4,
                    u32::from_be_bytes(prefix) as usize,
                    held.len(),
                    more.len(),
                    limit,
                )
            }
            Framing::Fixed(n) | Framing::CString(n) => counted(0, n, held.len(), more.len(), limit),
            Framing::Syslog => syslog(held, more, limit),
        }
    }

    /// The same of bytes that begin with a message, of whatever length.
    #[inline]
    pub(crate) fn cut_next(self, bytes: &[u8]) -> Cut {
        match self.terminator() {
            // A message of most sockets: all else that `cut` looks at would cost as much again.
            Some(terminator) => {
                memchr(terminator, bytes).map_or(Cut::Partial, |i| Cut::Whole(i + 1))
            }
            None => self.cut(&[], bytes, usize::MAX),
        }
    }

    /// The whole messages at the start of `bytes`, none of them longer than `limit`, and `most` at most.
    #[must_use]
    pub fn scan(self, bytes: &[u8], limit: usize, most: u64) -> Scan {
        if self == Framing::None {
            let messages = u64::from(!bytes.is_empty());
            return Scan {
                bytes: bytes.len(),
                messages,
            };
        }
        // None can be too long, nor can they be too many: the terminators need only be counted.
        if bytes.len() <= limit
            && bytes.len() as u64 <= most
            && let Some(terminator) = self.terminator()
        {
            return match memchr(terminator, bytes) {
                None => Scan {
                    bytes: 0,
                    messages: 0,
                },
                // Mostly one comes at a time.
                Some(first) if first + 1 == bytes.len() => Scan {
                    bytes: first + 1,
                    messages: 1,
                },
                Some(_) => Scan {
                    bytes: memrchr(terminator, bytes).map_or(0, |last| last + 1),
                    messages: memchr_iter(terminator, bytes).count() as u64,
                },
            };
        }
        let mut scan = Scan {
            bytes: 0,
            messages: 0,
        };
        while scan.bytes < bytes.len() && scan.messages < most {
            match self.cut(&[], &bytes[scan.bytes..], limit) {
                Cut::Whole(n) => {
                    scan.bytes += n;
                    scan.messages += 1;
                }
                Cut::Filler(n) => scan.bytes += n,
                Cut::Partial | Cut::TooLong { .. } => break,
            }
        }
        scan
    }

    /// The byte that ends every message, whatever stands before it.
    fn terminator(self) -> Option<u8> {
        match self {
            Framing::Lines => Some(b'\n'),
            Framing::Nul => Some(0),
            _ => None,
        }
    }

    /// Passes over the rest of a too long message: how many bytes of `more` belong to it, and what
    /// is still to come.
    #[must_use]
    pub fn skip(self, skip: Skip, more: &[u8]) -> (usize, Option<Skip>) {
        match skip {
            Skip::Bytes(left) if left > more.len() => {
                (more.len(), Some(Skip::Bytes(left - more.len())))
            }
            Skip::Bytes(left) => (left, None),
            Skip::Terminator => {
                let end = match self {
                    Framing::Nul => memchr(0, more),
                    Framing::Syslog => memchr2(b'\n', 0, more),
                    _ => memchr(b'\n', more),
                };
                end.map_or((more.len(), Some(skip)), |i| (i + 1, None))
            }
        }
    }

    /// The message itself, of its whole wire form.
    #[must_use]
    pub fn body(self, wire: &[u8]) -> &[u8] {
        match self {
            Framing::None | Framing::Fixed(_) => wire,
            Framing::Lines => match wire {
                [body @ .., b'\r', b'\n'] | [body @ .., b'\n' | b'\r'] => body,
                _ => wire,
            },
            Framing::Nul => wire.strip_suffix(b"\0").unwrap_or(wire),
            Framing::LengthPrefixed => wire.get(4..).unwrap_or_default(),
            Framing::CString(_) => &wire[..memchr(0, wire).unwrap_or(wire.len())],
            Framing::Syslog => match octet_count(wire) {
                Count::Octets { body, .. } => &wire[body..],
                _ => {
                    let body = wire.strip_suffix(b"\0").unwrap_or(wire);
                    body.strip_suffix(b"\n").unwrap_or(body)
                }
            },
        }
    }

    /// Puts zeros behind the string of every C-string buffer in `wire`, so that nothing that the
    /// sender's memory held there travels on. Does nothing under other framings.
    pub fn blank(self, wire: &mut [u8]) {
        if let Framing::CString(n) = self {
            for buffer in wire.chunks_mut(n) {
                if let Some(end) = memchr(0, buffer) {
                    buffer[end..].fill(0);
                }
            }
        }
    }

    /// At end of stream: makes an unfinished last message whole by the terminator it lacks. False
    /// where this framing cannot (the rest of a counted message is lost with its sender).
    pub fn finish(self, held: &mut Vec<u8>) -> bool {
        if held.is_empty() {
            return false;
        }
        match self {
            Framing::Lines => held.push(b'\n'),
            Framing::Nul => held.push(0),
            Framing::Syslog if !matches!(octet_count(held), Count::Octets { .. }) => {
                held.push(b'\n');
            }
            _ => return false,
        }
        true
    }

    /// Puts one message on the wire, at the end of `out`.
    ///
    /// # Errors
    /// Where the framing has no form for it; `out` is then as it was.
    pub fn put(self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
        let terminated = |end: u8, out: &mut Vec<u8>| {
            if memchr(end, message).is_some() {
                return Err(Unfit::Terminator(end));
            }
            out.extend_from_slice(message);
            out.push(end);
            Ok(())
        };
        match self {
            Framing::None => out.extend_from_slice(message),
            Framing::Lines if message.last() == Some(&b'\r') => return Err(Unfit::CarriageReturn),
            Framing::Lines => return terminated(b'\n', out),
            Framing::Nul => return terminated(0, out),
            Framing::LengthPrefixed => {
                let length =
                    u32::try_from(message.len()).map_err(|_| Unfit::Length(u32::MAX as usize))?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(message);
            }
            Framing::Fixed(n) if message.len() != n => return Err(Unfit::Length(n)),
            Framing::Fixed(_) => out.extend_from_slice(message),
            Framing::CString(n) if message.len() > n => return Err(Unfit::Length(n)),
            Framing::CString(_) if memchr(0, message).is_some() => {
                return Err(Unfit::Terminator(0));
            }
            Framing::CString(n) => {
                out.extend_from_slice(message);
                out.resize(out.len() + n - message.len(), 0);
            }
            Framing::Syslog if message.len() > COUNT_MAX => return Err(Unfit::Length(COUNT_MAX)),
            Framing::Syslog if message.first() == Some(&b'<') => {
                out.extend_from_slice(format!("{} ", message.len()).as_bytes());
                out.extend_from_slice(message);
            }
            Framing::Syslog if message.is_empty() => return Err(Unfit::Empty),
            Framing::Syslog if matches!(octet_count(message), Count::Octets { .. }) => {
                return Err(Unfit::OctetCount);
            }
            Framing::Syslog if memchr(0, message).is_some() => return Err(Unfit::Terminator(0)),
            Framing::Syslog => return terminated(b'\n', out),
        }
        Ok(())
    }

    /// Bytes on the wire of the longest message that `limit` allows.
    #[must_use]
    pub fn largest(self, limit: usize) -> usize {
        match self {
            Framing::None => 1,
            Framing::Lines => limit + 2,
            Framing::Nul => limit + 1,
            Framing::LengthPrefixed => limit + 4,
            Framing::Fixed(n) | Framing::CString(n) => n,
            Framing::Syslog => limit + COUNT_DIGITS + 1,
        }
    }
}

/// A message that ends at a terminator: `length` bytes of body seen so far, `end` the bytes of what
/// came up to and with the terminator.
fn delimited(body: usize, length: usize, end: Option<usize>, limit: usize) -> Cut {
    match end {
        _ if length > limit => Cut::TooLong {
            body,
            skip: Skip::Terminator,
        },
        Some(end) => Cut::Whole(end),
        None => Cut::Partial,
    }
}

/// A message whose length is known: `length` bytes after a prefix of `body`.
fn counted(body: usize, length: usize, held: usize, more: usize, limit: usize) -> Cut {
    if length > limit {
        return Cut::TooLong {
            body,
            skip: Skip::Bytes(length - limit),
        };
    }
    let missing = (body + length).saturating_sub(held);
    if missing <= more {
        Cut::Whole(missing)
    } else {
        Cut::Partial
    }
}

fn syslog(held: &[u8], more: &[u8], limit: usize) -> Cut {
    if held.is_empty() {
        let filler = more.iter().take_while(|&&b| b == b'\n' || b == 0).count();
        if filler > 0 {
            return Cut::Filler(filler);
        }
    }
    let mut start = [0; COUNT_DIGITS + 2];
    let seen = head(held, more, &mut start);
    match octet_count(&start[..seen]) {
        Count::Octets { body, length } => counted(body, length, held.len(), more.len(), limit),
        Count::Undecided => Cut::Partial,
        Count::No => {
            let end = memchr2(b'\n', 0, more);
            let length = held.len() + end.unwrap_or(more.len());
            let end =
                end.map(|i| i + 1 + usize::from(more[i] == b'\n' && more.get(i + 1) == Some(&0)));
            delimited(0, length, end, limit)
        }
    }
}

enum Count {
    Octets { body: usize, length: usize },
    No,
    Undecided,
}

/// Reads `MSG-LEN SP` before `<` (RFC 6587, section 3.4.1: the length does not start with 0).
fn octet_count(start: &[u8]) -> Count {
    let digits = start
        .iter()
        .take(COUNT_DIGITS + 1)
        .take_while(|b| b.is_ascii_digit())
        .count();
    if digits > COUNT_DIGITS || start.first() == Some(&b'0') {
        return Count::No;
    }
    match (start.get(digits), start.get(digits + 1)) {
        (None, _) => Count::Undecided,
        (Some(_), _) if digits == 0 => Count::No,
        (Some(b' '), None) => Count::Undecided,
        (Some(b' '), Some(b'<')) => {
            let length = start[..digits]
                .iter()
                .fold(0, |n, b| n * 10 + usize::from(b - b'0'));
            Count::Octets {
                body: digits + 1,
                length,
            }
        }
        _ => Count::No,
    }
}

/// Fills `out` from the start of `held` and `more` together; returns how much there was.
fn head(held: &[u8], more: &[u8], out: &mut [u8]) -> usize {
    let first = held.len().min(out.len());
    out[..first].copy_from_slice(&held[..first]);
    let second = more.len().min(out.len() - first);
    out[first..first + second].copy_from_slice(&more[..second]);
    first + second
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Framing::None => f.write_str("none"),
            Framing::Lines => f.write_str("lines"),
            Framing::Nul => f.write_str("nul"),
            Framing::LengthPrefixed => f.write_str("length-prefixed"),
            Framing::Fixed(n) => write!(f, "fixed:{n}"),
            Framing::CString(n) => write!(f, "cstring:{n}"),
            Framing::Syslog => f.write_str("syslog"),
        }
    }
}

impl FromStr for Framing {
    type Err = String;

    /// Reads a framing as the config file and the command line write it; the error says what would
    /// be right.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, size) = text
            .split_once(':')
            .map_or((text, None), |(n, s)| (n, Some(s)));
        let size = |kind: fn(usize) -> Framing| {
            let digits = size.map(|size| size.strip_prefix('-').unwrap_or(size));
            let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            let wrong = if digits.is_some_and(number) {
                "is out of range in its size: write N from 1 to message-size"
            } else {
                "lacks its size: write N bytes, 1 or more"
            };
            let n = size.and_then(|s| s.parse().ok()).filter(|&n| n > 0);
            n.map(kind)
                .ok_or_else(|| format!("\"{text}\" {wrong}, as \"{name}:N\""))
        };
        match name {
            "fixed" => size(Framing::Fixed),
            "cstring" => size(Framing::CString),
            _ => match text {
                "none" => Ok(Framing::None),
                "lines" => Ok(Framing::Lines),
                "nul" => Ok(Framing::Nul),
                "length-prefixed" => Ok(Framing::LengthPrefixed),
                "syslog" => Ok(Framing::Syslog),
                _ => Err(format!(
                    "\"{text}\" is no framing: none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// What a reader makes of a stream.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        /// A message's body.
        Message(Vec<u8>),
        /// The first `limit` bytes of a too long one.
        Cut(Vec<u8>),
        /// Bytes of a last message that cannot be finished.
        Lost(usize),
    }

    fn message(body: &[u8]) -> Seen {
        Seen::Message(body.to_vec())
    }

    /// Reads `pieces` one after the other, as a connection does.
    fn read(framing: Framing, pieces: &[&[u8]], limit: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut held = Vec::new();
        let mut cut_off: Option<(Vec<u8>, Skip)> = None;
        for piece in pieces {
            let mut more = *piece;
            while !more.is_empty() {
                if let Some((first, skip)) = &mut cut_off {
                    let missing = (limit - first.len()).min(more.len());
                    first.extend_from_slice(&more[..missing]);
                    more = &more[missing..];
                    if first.len() < limit {
                        continue;
                    }
                    let (passed, left) = framing.skip(*skip, more);
                    more = &more[passed..];
                    match left {
                        Some(left) => *skip = left,
                        None => {
                            seen.push(Seen::Cut(first.clone()));
                            cut_off = None;
                        }
                    }
                    continue;
                }
                match framing.cut(&held, more, limit) {
                    Cut::Whole(n) => {
                        held.extend_from_slice(&more[..n]);
                        seen.push(message(framing.body(&held)));
                        held.clear();
                        more = &more[n..];
                    }
                    Cut::Filler(n) => {
                        assert!(held.is_empty() && n > 0);
                        more = &more[n..];
                    }
                    Cut::Partial => {
                        held.extend_from_slice(more);
                        more = &[];
                    }
                    Cut::TooLong { body, skip } => {
                        let prefix = body.saturating_sub(held.len());
                        let first = held.split_off(body.min(held.len()));
                        let kept = first[..first.len().min(limit)].to_vec();
                        held.clear();
                        more = &more[prefix..];
                        cut_off = Some((kept, skip));
                    }
                }
            }
        }
        if let Some((first, _)) = cut_off {
            seen.push(Seen::Cut(first));
        }
        let left = held.len();
        if framing.finish(&mut held) {
            seen.push(message(framing.body(&held)));
        } else if left > 0 {
            seen.push(Seen::Lost(left));
        }
        seen
    }

    /// The stream gives the same messages in one piece, in every two and in every three.
    fn check(framing: Framing, stream: &[u8], limit: usize, expected: &[Seen]) {
        assert_eq!(
            read(framing, &[stream], limit),
            expected,
            "{framing}, limit {limit}, whole: {:?}",
            stream.escape_ascii().to_string()
        );
        for i in 0..=stream.len() {
            for j in i..=stream.len() {
                let pieces = [&stream[..i], &stream[i..j], &stream[j..]];
                assert_eq!(
                    read(framing, &pieces, limit),
                    expected,
                    "{framing}, limit {limit}, cut at {i} and {j}: {:?}",
                    stream.escape_ascii().to_string()
                );
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(
            read(framing, &bytes, limit),
            expected,
            "{framing}, byte by byte"
        );
    }

    fn gives(framing: Framing, stream: &[u8], bodies: &[&[u8]]) {
        let expected: Vec<Seen> = bodies.iter().map(|body| message(body)).collect();
        check(framing, stream, 64, &expected);
    }

    #[test]
    fn lines_end_at_lf_and_cr_lf() {
        let f = Framing::Lines;
        gives(f, b"", &[]);
        gives(f, b"one\ntwo\n", &[b"one", b"two"]);
        gives(f, b"one\r\ntwo\r\n", &[b"one", b"two"]);
        gives(f, b"\n\r\n\n", &[b"", b"", b""]);
        gives(f, b"a\rb\n\rc\n", &[b"a\rb", b"\rc"]);
        gives(f, b"a\r\r\n", &[b"a\r"]);
        gives(f, b"nul\0inside\n", &[b"nul\0inside"]);
        gives(f, b"one\nunfinished", &[b"one", b"unfinished"]);
        gives(f, b"unfinished\r", &[b"unfinished"]);
        gives(f, b"\xff\xfe\n", &[b"\xff\xfe"]);
    }

    #[test]
    fn nul_ends_at_nul() {
        let f = Framing::Nul;
        gives(f, b"one\0two\0", &[b"one", b"two"]);
        gives(f, b"\0\0", &[b"", b""]);
        gives(f, b"a\nb\r\n\0", &[b"a\nb\r\n"]);
        gives(f, b"one\0rest", &[b"one", b"rest"]);
    }

    #[test]
    fn length_prefixed_counts() {
        let f = Framing::LengthPrefixed;
        gives(
            f,
            b"\0\0\0\x03one\0\0\0\0\0\0\0\x02\n\0",
            &[b"one", b"", b"\n\0"],
        );
        check(
            f,
            b"\0\0\0\x01a\0\0\0\x05bcd",
            64,
            &[message(b"a"), Seen::Lost(7)],
        );
        check(f, b"\0\0\0", 64, &[Seen::Lost(3)]);
    }

    #[test]
    fn fixed_and_c_strings_count() {
        gives(
            Framing::Fixed(3),
            b"one\n\0\nabc",
            &[b"one", b"\n\0\n", b"abc"],
        );
        gives(Framing::Fixed(1), b"ab", &[b"a", b"b"]);
        check(
            Framing::Fixed(3),
            b"onetw",
            64,
            &[message(b"one"), Seen::Lost(2)],
        );
        gives(
            Framing::CString(4),
            b"ab\0xabcd\0xyz",
            &[b"ab", b"abcd", b""],
        );
        check(Framing::CString(4), b"ab\0", 64, &[Seen::Lost(3)]);
    }

    #[test]
    fn syslog_counts_octets_or_ends_at_lf_nul_or_both() {
        let f = Framing::Syslog;
        gives(
            f,
            b"<1>a\n<2>b\0<3>c\n\0<4>d\n",
            &[b"<1>a", b"<2>b", b"<3>c", b"<4>d"],
        );
        gives(f, b"\n\0\n<1>a\n\n\0\0<2>b\n", &[b"<1>a", b"<2>b"]);
        gives(f, b"4 <1>a5 <2>b\n", &[b"<1>a", b"<2>b\n"]);
        gives(
            f,
            b"4 <1>a\n<2>b\n6 <3>\n\0c",
            &[b"<1>a", b"<2>b", b"<3>\n\0c"],
        );
        gives(f, b"1 <", &[b"<"]);
        gives(f, b"\n\0", &[]);
        gives(f, b"no priority\n", &[b"no priority"]);
        gives(f, b"<1>cr\r\n", &[b"<1>cr\r"]);
        gives(f, b"<1>unfinished", &[b"<1>unfinished"]);
    }

    #[test]
    fn what_only_looks_like_an_octet_count_is_text() {
        let f = Framing::Syslog;
        gives(f, b"0 <a\n", &[b"0 <a"]);
        gives(f, b"04 <1>a\n", &[b"04 <1>a"]);
        gives(f, b"5 x\n", &[b"5 x"]);
        gives(f, b"5  <\n", &[b"5  <"]);
        gives(f, b"5<1>\n", &[b"5<1>"]);
        gives(f, b"1234567890 <\n", &[b"1234567890 <"]);
        gives(f, b"123456789\n", &[b"123456789"]);
        gives(f, b"12\n34 \n", &[b"12", b"34 "]);
        gives(f, b"12", &[b"12"]);
        gives(f, b"12 ", &[b"12 "]);
        gives(f, b"12\0", &[b"12"]);
        check(f, b"12 <1>a", 64, &[Seen::Lost(7)]);
    }

    #[test]
    fn the_limit_is_exact() {
        let cases: &[(Framing, &[u8], &[u8])] = &[
            (Framing::Lines, b"1234\n", b"12345\n"),
            (Framing::Lines, b"1234\r\n", b"12345\r\n"),
            (Framing::Lines, b"123\r\r\n", b"1234\r\r\n"),
            (Framing::Nul, b"1234\0", b"12345\0"),
            (
                Framing::LengthPrefixed,
                b"\0\0\0\x041234",
                b"\0\0\0\x0512345",
            ),
            (Framing::Syslog, b"<1>4\n", b"<1>45\n"),
            (Framing::Syslog, b"<1>4\n\0", b"<1>45\n\0"),
            (Framing::Syslog, b"4 <1>4", b"5 <1>45"),
        ];
        for &(framing, fits, exceeds) in cases {
            let whole = message(framing.body(fits));
            check(framing, fits, 4, &[whole]);

            let first = framing.body(exceeds)[..4].to_vec();
            let stream = [exceeds, fits].concat();
            let expected = [Seen::Cut(first), message(framing.body(fits))];
            check(framing, &stream, 4, &expected);
            assert_eq!(framing.scan(&stream, 4, u64::MAX).messages, 0);
        }
        check(Framing::Fixed(4), b"1234", 4, &[message(b"1234")]);
        check(
            Framing::Fixed(5),
            b"1234512345",
            4,
            &[Seen::Cut(b"1234".to_vec()), Seen::Cut(b"1234".to_vec())],
        );
    }

    #[test]
    fn a_too_long_message_is_told_before_its_end() {
        for framing in [Framing::Lines, Framing::Nul, Framing::Syslog] {
            let skip = Skip::Terminator;
            assert_eq!(framing.cut(b"<12", b"3", 4), Cut::Partial);
            assert_eq!(
                framing.cut(b"<123", b"4", 4),
                Cut::TooLong { body: 0, skip }
            );
        }
        let skip = Skip::Bytes(u32::MAX as usize - 4);
        assert_eq!(
            Framing::LengthPrefixed.cut(b"\xff", b"\xff\xff\xff", 4),
            Cut::TooLong { body: 4, skip }
        );
        let skip = Skip::Bytes(999_999_995);
        assert_eq!(
            Framing::Syslog.cut(b"999999999", b" <", 4),
            Cut::TooLong { body: 10, skip }
        );
    }

    #[test]
    fn a_count_over_the_limit_that_turns_out_to_be_text_is_too_long() {
        check(
            Framing::Syslog,
            b"12345678\n<1>\n",
            4,
            &[Seen::Cut(b"1234".to_vec()), message(b"<1>")],
        );
    }

    #[test]
    fn skip_passes_over_what_belongs_to_the_message() {
        let bytes = Skip::Bytes;
        assert_eq!(
            Framing::Fixed(9).skip(bytes(5), b"abc"),
            (3, Some(bytes(2)))
        );
        assert_eq!(Framing::Fixed(9).skip(bytes(2), b"abc"), (2, None));
        assert_eq!(Framing::Fixed(9).skip(bytes(3), b"abc"), (3, None));
        let end = Skip::Terminator;
        assert_eq!(Framing::Lines.skip(end, b"a\0b\nc"), (4, None));
        assert_eq!(Framing::Lines.skip(end, b"a\0b"), (3, Some(end)));
        assert_eq!(Framing::Nul.skip(end, b"a\nb\0c"), (4, None));
        assert_eq!(Framing::Syslog.skip(end, b"ab\0c"), (3, None));
        assert_eq!(Framing::Syslog.skip(end, b"ab\n\0c"), (3, None));
    }

    #[test]
    fn none_passes_what_came() {
        assert_eq!(Framing::None.cut(&[], b"any\nthing\0", 1), Cut::Whole(10));
        assert_eq!(Framing::None.body(b"a\n"), b"a\n");
        assert_eq!(
            Framing::None.scan(b"any\n", 1, 0),
            Scan {
                bytes: 4,
                messages: 1
            }
        );
        assert!(!Framing::None.finish(&mut b"rest".to_vec()));
    }

    #[test]
    fn scan_stops_at_the_first_message_that_is_not_whole() {
        let scan = |framing: Framing, bytes: &[u8]| {
            let scan = framing.scan(bytes, 4, u64::MAX);
            (scan.bytes, scan.messages)
        };
        assert_eq!(scan(Framing::Lines, b"a\n\nbc\nde"), (6, 3));
        assert_eq!(scan(Framing::Lines, b"a\ntoolong\nb\n"), (2, 1));
        assert_eq!(scan(Framing::Syslog, b"\n\0<1>\n\0\n1 <4 <"), (11, 2));
        assert_eq!(scan(Framing::Fixed(2), b"abc"), (2, 1));
        assert_eq!(scan(Framing::Nul, b""), (0, 0));
        assert_eq!(scan(Framing::Lines, b"\n\na"), (2, 2));
        assert_eq!(scan(Framing::Nul, b"abc\0"), (4, 1));
        assert_eq!(scan(Framing::Nul, b"abc"), (0, 0));
    }

    #[test]
    fn scan_stops_at_the_number_of_messages_that_is_asked_for() {
        let cases: &[(Framing, &[u8])] = &[
            (Framing::Lines, b"a\n\nb"),
            (Framing::Nul, b"a\0\0b"),
            (Framing::Fixed(1), b"abcd"),
            (Framing::Syslog, b"1 <1 <1 <"),
        ];
        for (framing, bytes) in cases {
            let one = framing.scan(bytes, 9, 1);
            assert_eq!(one.messages, 1, "{framing}");
            let rest = framing.scan(&bytes[one.bytes..], 9, u64::MAX);
            let all = framing.scan(bytes, 9, u64::MAX);
            let sum = (one.bytes + rest.bytes, 1 + rest.messages);
            assert_eq!(sum, (all.bytes, all.messages), "{framing}");
        }
    }

    #[test]
    fn blank_clears_what_stood_behind_the_strings() {
        let mut wire = b"ab\0xabcd\0xyz".to_vec();
        Framing::CString(4).blank(&mut wire);
        assert_eq!(wire, b"ab\0\0abcd\0\0\0\0");
        let mut wire = b"a\0secret".to_vec();
        Framing::Fixed(8).blank(&mut wire);
        assert_eq!(wire, b"a\0secret");
    }

    #[test]
    fn finish_adds_the_terminator_that_is_missing() {
        let finish = |framing: Framing, held: &[u8]| {
            let mut held = held.to_vec();
            framing.finish(&mut held).then_some(held)
        };
        assert_eq!(finish(Framing::Lines, b"a").unwrap(), b"a\n");
        assert_eq!(finish(Framing::Nul, b"a").unwrap(), b"a\0");
        assert_eq!(finish(Framing::Syslog, b"<1>a").unwrap(), b"<1>a\n");
        assert_eq!(finish(Framing::Syslog, b"12 ").unwrap(), b"12 \n");
        assert_eq!(finish(Framing::Syslog, b"12 <"), None);
        assert_eq!(finish(Framing::LengthPrefixed, b"\0\0\0\x02a"), None);
        assert_eq!(finish(Framing::CString(4), b"a"), None);
        assert_eq!(finish(Framing::Lines, b""), None);
    }

    #[test]
    fn what_is_put_is_cut_again() {
        let bodies: &[&[u8]] = &[
            b"",
            b"a",
            b"abcd",
            b"a\nbc",
            b"a\0bc",
            b"\n",
            b"\0",
            b"\rab",
            b"ab\r",
            b"a\r\nb",
            b"<1>a",
            b"<1>a\n",
            b"<1\0",
            b"5 <a",
            b"123456789 <",
            b"0 <a",
            b"12",
            b"5 x",
            b"\xff",
        ];
        let framings = [
            Framing::Lines,
            Framing::Nul,
            Framing::LengthPrefixed,
            Framing::Fixed(4),
            Framing::CString(4),
            Framing::Syslog,
        ];
        for framing in framings {
            for body in bodies {
                let mut wire = b"before".to_vec();
                match framing.put(body, &mut wire) {
                    Ok(()) => {
                        // Twice, so that a message must not swallow the start of the next.
                        let wire = wire[6..].repeat(2);
                        check(framing, &wire, 64, &[message(body), message(body)]);
                        assert!(wire.len() / 2 <= framing.largest(body.len()));
                    }
                    Err(_) => assert_eq!(wire, b"before", "{framing}: not as it was"),
                }
            }
        }
    }

    #[test]
    fn put_refuses_what_has_no_form() {
        let put = |framing: Framing, body: &[u8]| framing.put(body, &mut Vec::new());
        assert_eq!(put(Framing::Lines, b"a\nb"), Err(Unfit::Terminator(b'\n')));
        assert_eq!(put(Framing::Nul, b"a\0"), Err(Unfit::Terminator(0)));
        assert_eq!(put(Framing::Fixed(3), b"ab"), Err(Unfit::Length(3)));
        assert_eq!(put(Framing::CString(3), b"abcd"), Err(Unfit::Length(3)));
        assert_eq!(put(Framing::CString(3), b"a\0"), Err(Unfit::Terminator(0)));
        assert_eq!(put(Framing::Syslog, b"a\nb"), Err(Unfit::Terminator(b'\n')));
        assert_eq!(put(Framing::Syslog, b"a\0b"), Err(Unfit::Terminator(0)));
        assert_eq!(put(Framing::Syslog, b"<1>a\n\0"), Ok(()));
        assert_eq!(put(Framing::Lines, b"a\r"), Err(Unfit::CarriageReturn));
        assert_eq!(put(Framing::Syslog, b""), Err(Unfit::Empty));
        assert_eq!(put(Framing::Syslog, b"5 <a"), Err(Unfit::OctetCount));
        assert_eq!(put(Framing::Syslog, b"5 a"), Ok(()));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in [
            "none",
            "lines",
            "nul",
            "length-prefixed",
            "fixed:7",
            "cstring:2048",
            "syslog",
        ] {
            assert_eq!(text.parse::<Framing>().unwrap().to_string(), text);
        }
        for text in ["fixed:0", "cstring:-1", "fixed:99999999999999999999"] {
            let error = text.parse::<Framing>().unwrap_err();
            assert!(error.contains("out of range"), "{text}: {error}");
        }
        for text in ["fixed", "fixed:", "fixed:-", "fixed:x"] {
            let error = text.parse::<Framing>().unwrap_err();
            assert!(error.contains("lacks its size"), "{text}: {error}");
        }
        for text in ["", "line", "lines:2", "LINES"] {
            assert!(text.parse::<Framing>().unwrap_err().contains("no framing"));
        }
    }
}
