//! What the crowd says: numbered messages that tell who speaks, each made anew from its number by the
//! sender and by the one who checks it, so that nothing said needs to be kept. Owns the cursors of both
//! sides. Knows no sockets.

use std::{
    cmp::min,
    collections::VecDeque,
    fmt::{self, Display, Formatter},
    sync::LazyLock,
};

/// How the messages of one client look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any bytes, in blocks of 16 to 600: for sockets without framing.
    Blocks,
    /// Text up to LF, of 20 to 300 bytes.
    Lines,
    /// The same; every second one is within 64 bytes of this many.
    LongLines(usize),
    /// Packets of 12 to 3000 bytes, some empty: never two in a row, so that the end, which reads like
    /// one, is not taken for it for long.
    Packets,
}

/// Whose messages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) kind: Kind,
    /// Names the group, the first byte of each line.
    pub(crate) group: char,
    pub(crate) client: usize,
}

impl Voice {
    /// The message of this number, with its terminator.
    pub(crate) fn message(self, number: u64) -> Vec<u8> {
        let mut random =
            Random::new((self.group as u64) << 56 ^ (self.client as u64) << 32 ^ number);
        match self.kind {
            Kind::Blocks => {
                let length = random.within(16, 600);
                self.bytes(number, length, &mut random)
            }
            Kind::Packets if number % 7 == 3 => Vec::new(),
            Kind::Packets => {
                let length = random.within(12, 3000);
                self.bytes(number, length, &mut random)
            }
            Kind::LongLines(longest) if number % 2 == 1 => {
                let length = random.within(longest - 64, longest);
                self.line(number, length, &mut random)
            }
            Kind::Lines | Kind::LongLines(_) => {
                let length = random.within(20, 300);
                self.line(number, length, &mut random)
            }
        }
    }

    fn bytes(self, number: u64, length: usize, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(self.client as u32).to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(fill(&BYTES, length - bytes.len(), random));
        bytes
    }

    fn line(self, number: u64, length: usize, random: &mut Random) -> Vec<u8> {
        let mut line = format!("{}{} {number} ", self.group, self.client).into_bytes();
        line.extend_from_slice(fill(&TEXT, length - 1 - line.len(), random));
        line.push(b'\n');
        line
    }
}

/// What messages are filled with, from any place in it: cheap also where nothing is optimised, and
/// there are 65,536 places.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    (0..PLACES + LONGEST).map(|_| random.next() as u8).collect()
});
/// The same, printable, with some that a record escapes.
static TEXT: LazyLock<Vec<u8>> =
    LazyLock::new(|| BYTES.iter().map(|byte| byte % 0x40 + b'0').collect());
const PLACES: usize = 1 << 16;
/// Of a message.
const LONGEST: usize = 1 << 13;

fn fill<'a>(from: &'a [u8], length: usize, random: &mut Random) -> &'a [u8] {
    let at = random.within(0, PLACES - 1);
    &from[at..at + length]
}

impl Display for Voice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "client {}{} ({:?})", self.group, self.client, self.kind)
    }
}

/// What a client says next, in pieces of any length.
#[derive(Debug)]
pub(crate) struct Sender {
    voice: Voice,
    /// Of the message that is made next.
    number: u64,
    waiting: Vec<u8>,
    /// Where the messages in `waiting` end, in bytes from the beginning of the stream.
    ends: VecDeque<u64>,
    sent: u64,
    /// Up to here the stream is whole messages.
    whole: u64,
    /// How many that are.
    messages: u64,
}

impl Sender {
    pub(crate) fn new(voice: Voice) -> Self {
        Sender {
            voice,
            number: 0,
            waiting: Vec::new(),
            ends: VecDeque::new(),
            sent: 0,
            whole: 0,
            messages: 0,
        }
    }

    /// The next bytes, this many.
    pub(crate) fn piece(&mut self, length: usize) -> &[u8] {
        while self.waiting.len() < length {
            self.waiting.extend(self.voice.message(self.number));
            self.ends.push_back(self.sent + self.waiting.len() as u64);
            self.number += 1;
        }
        &self.waiting[..length]
    }

    /// What is missing of the message that was begun.
    pub(crate) fn rest(&self) -> &[u8] {
        let length = match self.ends.front() {
            Some(end) if self.sent > self.whole => end - self.sent,
            _ => 0,
        };
        &self.waiting[..length as usize]
    }

    /// So much of it was sent.
    pub(crate) fn took(&mut self, length: usize) {
        self.waiting.drain(..length);
        self.sent += length as u64;
        while let Some(&end) = self.ends.front().filter(|&&end| end <= self.sent) {
            self.ends.pop_front();
            self.whole = end;
            self.messages += 1;
        }
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of whole messages sent so far.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// Whole messages sent so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether it stands in the middle of a message.
    pub(crate) fn is_half(&self) -> bool {
        self.sent > self.whole
    }
}

/// What a client must hear: the stream of one voice.
#[derive(Debug)]
pub(crate) struct Hearer {
    voice: Voice,
    /// Of the message in `expected`, and where in it the next byte stands.
    number: u64,
    expected: Vec<u8>,
    at: usize,
    heard: u64,
    /// Where the stream ends, and whether in a message that gets its LF there.
    end: Option<(u64, bool)>,
}

impl Hearer {
    pub(crate) fn new(voice: Voice) -> Self {
        Hearer {
            voice,
            number: 0,
            expected: voice.message(0),
            at: 0,
            heard: 0,
            end: None,
        }
    }

    /// Bytes heard so far.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// The stream ends after `sent` bytes, and one LF if that is in the middle of a message.
    pub(crate) fn ends_after(&mut self, sent: u64, terminated: bool) {
        self.end = Some((sent, terminated));
    }

    /// Whether all has come, up to the end that was set.
    pub(crate) fn is_through(&self) -> bool {
        self.end
            .is_some_and(|(sent, terminated)| self.heard == sent + u64::from(terminated))
    }

    /// Compares what came with what must come; says where they differ.
    pub(crate) fn hear(&mut self, mut came: &[u8]) -> Result<(), String> {
        while !came.is_empty() {
            let left = match self.end {
                Some((sent, true)) if self.heard == sent => {
                    self.compare(b"\n", came)?;
                    self.heard += 1;
                    came = &came[1..];
                    continue;
                }
                Some((sent, _)) if self.heard >= sent => {
                    return Err(format!(
                        "after all {} bytes of its answer came more: {}",
                        self.heard,
                        shown(came)
                    ));
                }
                Some((sent, _)) => (sent - self.heard) as usize,
                None => usize::MAX,
            };
            if self.at == self.expected.len() {
                self.number += 1;
                self.expected = self.voice.message(self.number);
                self.at = 0;
            }
            let length = min(min(self.expected.len() - self.at, came.len()), left);
            self.compare(&self.expected[self.at..self.at + length], came)?;
            self.at += length;
            self.heard += length as u64;
            came = &came[length..];
        }
        Ok(())
    }

    fn compare(&self, expected: &[u8], came: &[u8]) -> Result<(), String> {
        if came.starts_with(expected) {
            return Ok(());
        }
        let at = agreed(expected, came);
        Err(format!(
            "byte {} of its answer, in message {} at {}: {}",
            self.heard + at as u64,
            self.number,
            self.at + at,
            difference(expected, came)
        ))
    }

    /// What must come next, for a report.
    pub(crate) fn next(&self) -> String {
        if self.at == self.expected.len() {
            return format!("message {}", self.number + 1);
        }
        format!(
            "message {} at {}: {}",
            self.number,
            self.at,
            shown(&self.expected[self.at..])
        )
    }
}

/// How many bytes are alike.
fn agreed(expected: &[u8], came: &[u8]) -> usize {
    let alike = expected
        .iter()
        .zip(came)
        .take_while(|(one, other)| one == other);
    alike.count()
}

/// Where what came is another than what was expected, and what it is.
pub(crate) fn difference(expected: &[u8], came: &[u8]) -> String {
    let at = agreed(expected, came);
    format!(
        "expected {}, came {}, after {at} bytes that were right",
        shown(&expected[at..]),
        shown(&came[at..])
    )
}

/// The beginning of bytes, readable.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 48;
    let begun = bytes[..min(bytes.len(), MOST)].escape_ascii();
    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{begun}{more}\" ({} bytes)", bytes.len())
}

/// xorshift64*, which needs to be no better.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Spread, or near seeds would begin alike; never 0, which stays 0.
        let mut seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        seed = (seed ^ seed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((seed ^ seed >> 31) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From `from` to `to`, both included.
    pub(crate) fn within(&mut self, from: usize, to: usize) -> usize {
        from + ((self.next() >> 32) as usize) % (to - from + 1)
    }

    /// One time in so many.
    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.within(1, many) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOICE: Voice = Voice {
        kind: Kind::Lines,
        group: 'x',
        client: 7,
    };

    fn stream(messages: u64) -> Vec<u8> {
        (0..messages)
            .flat_map(|number| VOICE.message(number))
            .collect()
    }

    #[test]
    fn what_was_said_is_heard_in_any_pieces() {
        for length in [1, 7, 100, 1000] {
            let mut says = Sender::new(VOICE);
            let mut hears = Hearer::new(VOICE);
            for _ in 0..2000 / length {
                let piece = says.piece(length).to_vec();
                says.took(length);
                hears.hear(&piece).unwrap();
            }
            assert!(says.is_half());
            let rest = says.rest().to_vec();
            says.took(rest.len());
            hears.hear(&rest).unwrap();
            assert!(!says.is_half());
            assert_eq!(says.whole(), hears.heard());
            assert_eq!(stream(says.messages()).len() as u64, says.whole());
        }
    }

    #[test]
    fn what_is_lost_repeated_or_changed_is_named() {
        let whole = stream(20);
        for at in [0, 1, whole.len() / 2] {
            let mut lost = whole.clone();
            lost.remove(at);
            let mut repeated = whole.clone();
            repeated.insert(at, whole[at]);
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for wrong in [lost, repeated, changed] {
                let differs = (0..).find(|at| wrong[*at] != whole[*at]).unwrap();
                let said = Hearer::new(VOICE).hear(&wrong).unwrap_err();
                assert!(said.starts_with(&format!("byte {differs} ")), "{said}");
            }
        }
        // A message of the same client that comes once more.
        let mut hears = Hearer::new(VOICE);
        hears.hear(&VOICE.message(0)).unwrap();
        hears.hear(&VOICE.message(0)).unwrap_err();
    }

    #[test]
    fn the_end_comes_after_the_terminator_of_an_unfinished_line() {
        let whole = stream(2);
        let sent = whole.len() as u64 - 5;
        for terminated in [false, true] {
            let mut hears = Hearer::new(VOICE);
            hears.ends_after(sent, terminated);
            hears.hear(&whole[..sent as usize]).unwrap();
            assert_eq!(hears.is_through(), !terminated);
            assert!(hears.hear(b"x").is_err());
            assert_eq!(hears.hear(b"\n").is_ok(), terminated);
            assert!(hears.is_through());
            assert!(hears.hear(b"\n").is_err());
        }
    }
}
