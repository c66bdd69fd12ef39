//! Framing: where one message of a byte stream ends and the next begins.
//!
//! Owns the rules of every framing and nothing else: no buffer, no descriptor. `cut` looks at the
//! unfinished bytes that a connection holds and at what was just read, so that no byte is searched
//! twice however small the pieces in which it comes.

use std::{fmt, str::FromStr};

use memchr::{memchr, memchr2};

/// Most digits of an octet count (RFC 6587, section 3.4.1) that are taken for one.
const COUNT_DIGITS: usize = 9;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The whole messages at the start of `bytes`, none of them longer than `limit`.
    #[must_use]
    pub fn scan(self, bytes: &[u8], limit: usize) -> Scan {
        let mut scan = Scan {
            bytes: 0,
            messages: 0,
        };
        while scan.bytes < bytes.len() {
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
            Framing::Lines => {
                let body = wire.strip_suffix(b"\n").unwrap_or(wire);
                body.strip_suffix(b"\r").unwrap_or(body)
            }
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
            Framing::Syslog if message.first() == Some(&b'<') => {
                out.extend_from_slice(format!("{} ", message.len()).as_bytes());
                out.extend_from_slice(message);
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
            let n = size.and_then(|s| s.parse().ok()).filter(|&n| n > 0);
            n.map(kind).ok_or_else(|| {
                format!("\"{text}\" lacks its size: write \"{name}:N\", N bytes, 1 or more")
            })
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
