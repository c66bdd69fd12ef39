//! The bytes that one client sent and that are not yet delivered: cuts what was read into batches and
//! keeps what is not yet a whole message, or not yet taken. What a message is for, it does not know.

use std::{
    mem,
    ops::{Deref, DerefMut},
};

use serde::{Deserialize, Serialize};

use crate::{
    counters::UNCOUNTABLE,
    frame::{Cut, Framing, Scan, Skip},
    message_batch::Batch,
    round_robin::MESSAGES,
    serde_base64,
};

/// How messages are cut on a socket.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `framing`
    pub framing: Framing,
    /// `message-size`, bytes.
    pub message_size: usize,
    /// What becomes of a longer message.
    pub too_long: TooLong,
}

/// What becomes of a message longer than `message-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    /// Its sender is closed.
    Close,
    /// It is passed over; its sender goes on.
    Refuse,
    /// Its first part is kept, marked as truncated.
    Keep,
}

/// The bytes of one client that are not yet delivered. Holds no memory where there are none.
///
/// `held` is: what no longer counts (`start` bytes), whole messages that wait (`whole` bytes), and
/// what followed them. Without waiting messages it is the start of one unfinished message.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Input {
    #[serde(with = "serde_base64")]
    held: Vec<u8>,
    start: usize,
    whole: usize,
    /// The waiting bytes are the kept part of a truncated message.
    truncated: bool,
    /// The `message-size` under which `held` came: a smaller one is for the messages behind.
    limit: usize,
    skip: Option<Skip>,
    /// Messages passed over since `take_refused`.
    refused: u64,
    /// A message that is too long by its own word, until `take_announced`.
    #[serde(skip)]
    announced: Option<Announced>,
    /// That was noted of the message which is under way.
    #[serde(skip)]
    is_noted: bool,
}

/// The length that stands before a message, where it is over the limit.
#[derive(Debug, PartialEq, Eq)]
pub struct Announced {
    /// Bytes that the message is said to have.
    pub length: usize,
    /// The bytes that say so.
    pub prefix: Vec<u8>,
}

impl Input {
    /// Whether it is as this process would have left it: what came from another may not be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let taken_and_whole = self.start.checked_add(self.whole);
        let at_rest = self.start == 0 && !self.truncated;
        taken_and_whole.is_some_and(|bytes| bytes <= self.held.len())
            && (self.whole > 0 || at_rest)
            && self.refused < UNCOUNTABLE
    }

    /// Whether whole messages wait for the service.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.whole > 0
    }

    /// Bytes of memory that it holds: those that wait, and little more.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Holds more bytes, of a message that may come in many parts.
    fn hold(&mut self, bytes: &[u8]) {
        if self.held.capacity() - self.held.len() < bytes.len() {
            self.held
                .reserve_exact(bytes.len().max(self.held.len() / 8));
        }
        self.held.extend_from_slice(bytes);
    }

    /// What is lost if the client ends now: the whole messages that wait, and whether part of a
    /// further one is held.
    #[must_use]
    pub fn loss(&self, framing: Framing) -> (u64, bool) {
        let (waiting, behind) = self.held[self.start..].split_at(self.whole);
        let waiting = if self.truncated {
            1
        } else {
            Batch::scan(framing, waiting, usize::MAX).messages
        };
        // Came while the ones before waited, and was not cut yet.
        let passed = self.skip.map_or(0, |skip| framing.skip(skip, behind).0);
        let behind = &behind[passed..];
        let further = Batch::scan(framing, behind, usize::MAX);
        (
            waiting + further.messages,
            behind.len() > further.bytes.len(),
        )
    }

    /// Whether nothing waits and the next byte starts a message.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.held.is_empty() && self.skip.is_none()
    }

    /// How many messages were passed over as too long, since this was last asked.
    pub fn take_refused(&mut self) -> u64 {
        mem::take(&mut self.refused)
    }

    /// A message of which the length alone says that it is too long: told once, when the length is seen.
    pub fn take_announced(&mut self) -> Option<Announced> {
        self.announced.take()
    }

    /// Notes what is seen of a message that is too long.
    fn note_length(&mut self, bytes: &[u8], body: usize, skip: Skip, limit: usize) {
        if let Skip::Bytes(left) = skip
            && !mem::replace(&mut self.is_noted, true)
        {
            let prefix = self.held.iter().chain(bytes).take(body);
            self.announced = Some(Announced {
                length: limit.saturating_add(left),
                prefix: prefix.copied().collect(),
            });
        }
    }

    /// Of a message that is too long, keeps its first part, or nothing where it is refused. Returns how many
    /// of `bytes` belong to that part; `None` where its sender is to be closed.
    #[cold]
    fn cut_short(&mut self, bytes: &[u8], rule: &Rule, body: usize, skip: Skip) -> Option<usize> {
        let limit = self.limit;
        if rule.too_long != TooLong::Refuse {
            self.note_length(bytes, body, skip, limit);
        }
        if rule.too_long == TooLong::Close {
            return None;
        }
        if self.held.len() + bytes.len() < body + limit {
            self.hold(bytes);
            return Some(bytes.len());
        }
        let n = (body + limit).saturating_sub(self.held.len());
        self.skip = Some(skip);
        if rule.too_long == TooLong::Refuse {
            self.refused += 1;
            self.held = Vec::new();
            self.limit = rule.message_size;
        } else {
            self.hold(&bytes[..n]);
            self.held.truncate(body + limit);
            self.start = body;
            self.whole = limit;
            self.truncated = true;
        }
        Some(n)
    }

    /// What was just read, in batches. Only C-string padding in `bytes` is written to. Not to be called
    /// while messages wait.
    pub fn feed<'a>(&'a mut self, bytes: &'a mut [u8], rule: Rule) -> Batches<'a> {
        debug_assert!(!self.is_blocked(), "fed while messages wait");
        self.limit = self.limit_under(&rule);
        Batches::new(self, Bytes::Read(bytes), rule)
    }

    /// What waited, and what came behind it.
    pub fn resume(&mut self, rule: Rule) -> Batches<'_> {
        Batches::new(self, Bytes::Behind(Vec::new()), rule)
    }

    /// What is left at the end of the stream, as a message where the framing lets it be one.
    pub fn finish(&mut self, rule: Rule) -> Batches<'_> {
        if !self.held.is_empty() && self.skip.is_none() {
            let framing = rule.framing;
            let cut = framing.cut(&[], &self.held, self.limit_under(&rule));
            // A terminator.
            self.held.reserve_exact(1);
            if !matches!(cut, Cut::TooLong { .. }) && framing.finish(&mut self.held) {
                self.whole = self.held.len();
            }
        }
        self.resume(rule)
    }

    /// The greatest length of the message that comes next: one that was begun under a larger
    /// `message-size` keeps that.
    fn limit_under(&self, rule: &Rule) -> usize {
        if self.held.is_empty() {
            rule.message_size
        } else {
            rule.message_size.max(self.limit)
        }
    }
}

/// The batches of what one client sent: `next_batch` cuts one, and `took` says how much of it the service took.
#[derive(Debug)]
pub struct Batches<'a> {
    input: &'a mut Input,
    rule: Rule,
    /// What is not cut yet begins at `at`.
    bytes: Bytes<'a>,
    at: usize,
    /// The batch that `next_batch` gave: so many bytes, from `bytes` or else from what is held.
    offered: usize,
    is_fresh: bool,
    /// A message is longer than this, which ends its sender: the rule says `TooLong::Close`.
    pub too_long: Option<usize>,
}

#[derive(Debug)]
enum Bytes<'a> {
    /// They were just read.
    Read(&'a mut [u8]),
    /// They came behind messages that waited.
    Behind(Vec<u8>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Read(bytes) => bytes,
            Bytes::Behind(bytes) => bytes,
        }
    }
}

impl DerefMut for Bytes<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Bytes::Read(bytes) => bytes,
            Bytes::Behind(bytes) => bytes,
        }
    }
}

impl<'a> Batches<'a> {
    fn new(input: &'a mut Input, bytes: Bytes<'a>, rule: Rule) -> Self {
        Batches {
            input,
            rule,
            bytes,
            at: 0,
            offered: 0,
            is_fresh: false,
            too_long: None,
        }
    }

    /// The next whole messages, if there are any. What is no whole message is held.
    #[inline]
    pub fn next_batch(&mut self) -> Option<Batch<'_>> {
        let framing = self.rule.framing;
        while self.input.whole == 0 {
            if let Some(skip) = self.input.skip {
                let (passed, rest) = framing.skip(skip, &self.bytes[self.at..]);
                self.input.skip = rest;
                self.at += passed;
            }
            let bytes = &mut self.bytes[self.at..];
            if bytes.is_empty() || self.too_long.is_some() {
                return None;
            }
            // Behind a fresh batch stands what `scan` has seen and is no whole message.
            if self.input.held.is_empty() && !self.is_fresh {
                framing.blank(bytes);
                let Scan { bytes, messages } = framing.scan(bytes, self.input.limit, u64::MAX);
                if bytes > 0 {
                    (self.offered, self.is_fresh) = (bytes, true);
                    let bytes = &self.bytes[self.at..][..bytes];
                    return Some(Batch::whole(framing, bytes, messages));
                }
            }
            self.hold_next();
        }
        let Input {
            held, start, whole, ..
        } = &*self.input;
        let bytes = &held[*start..*start + *whole];
        let batch = if self.input.truncated {
            Batch::truncated(framing, bytes)
        } else {
            // As many as may be taken at once: who looks at all of them each time looks too often.
            Batch::scan_some(framing, bytes, usize::MAX, MESSAGES)
        };
        (self.offered, self.is_fresh) = (batch.bytes.len(), false);
        Some(batch)
    }

    /// Holds what comes next: a whole message, or the first part of one.
    fn hold_next(&mut self) {
        self.is_fresh = false;
        let Batches {
            input, rule, at, ..
        } = self;
        let bytes = &self.bytes[*at..];
        *at += match rule.framing.cut(&input.held, bytes, input.limit) {
            // Filler stands only where nothing is held, and `scan` has passed over that.
            Cut::Whole(n) | Cut::Filler(n) => {
                input.hold(&bytes[..n]);
                input.whole = input.held.len();
                rule.framing.blank(&mut input.held);
                n
            }
            Cut::Partial => {
                input.hold(bytes);
                bytes.len()
            }
            Cut::TooLong { body, skip } => match input.cut_short(bytes, rule, body, skip) {
                Some(n) => n,
                None => {
                    self.too_long = Some(input.limit);
                    return;
                }
            },
        };
    }

    /// The service took so many bytes of the last batch, in whole messages. False where that was not all:
    /// the rest is held, and waits.
    #[inline]
    pub fn took(&mut self, taken: usize) -> bool {
        let Batches {
            input, rule, at, ..
        } = self;
        if self.is_fresh {
            *at += taken;
            if taken < self.offered {
                input.hold(&self.bytes[*at..]);
                input.whole = self.offered - taken;
                return false;
            }
            return true;
        }
        input.start += taken;
        input.whole -= taken;
        if taken < self.offered || taken == 0 {
            // What was taken goes, or it would count with what waits; but not each time.
            if input.start > input.held.len() / 8 {
                input.held.drain(..mem::take(&mut input.start));
                input.held.shrink_to_fit();
            }
            if *at < self.bytes.len() {
                // What waits is whole: what came behind it was not begun under a larger limit.
                input.limit = rule.message_size;
                input.hold(&self.bytes[*at..]);
            }
            return false;
        }
        if input.whole == 0 {
            input.truncated = false;
            input.is_noted = false;
            let held = mem::take(&mut input.held);
            let start = mem::take(&mut input.start);
            if start < held.len() {
                // All of it came before, perhaps under a larger limit.
                rule.message_size = rule.message_size.max(input.limit);
                (self.bytes, self.at) = (Bytes::Behind(held), start);
            }
            input.limit = rule.message_size;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fed {
        /// Every whole message was taken.
        All,
        /// The rest is held.
        Blocked,
    }

    #[derive(Debug)]
    struct TooLongFor(usize);

    /// Offers each batch to a service that says how many bytes it takes.
    fn deliver(
        mut batches: Batches<'_>,
        mut take: impl FnMut(Batch<'_>) -> usize,
    ) -> Result<Fed, TooLongFor> {
        while let Some(batch) = batches.next_batch() {
            let taken = take(batch);
            if !batches.took(taken) {
                return Ok(Fed::Blocked);
            }
        }
        batches
            .too_long
            .map_or(Ok(Fed::All), |limit| Err(TooLongFor(limit)))
    }

    #[test]
    fn a_length_over_the_limit_is_told_once_as_soon_as_it_is_seen() {
        let cases: [(Framing, &[u8], usize); 2] = [
            (Framing::LengthPrefixed, &[0, 0, 1, 2], 258),
            (Framing::Syslog, b"300 ", 300),
        ];
        for (framing, prefix, length) in cases {
            for too_long in [TooLong::Keep, TooLong::Close] {
                let rule = Rule {
                    too_long,
                    ..rule(framing, 8)
                };
                let mut input = Input::default();
                let feed = |input: &mut Input, bytes: &[u8]| {
                    let mut bytes = bytes.to_vec();
                    let _ = deliver(input.feed(&mut bytes, rule), |batch| batch.bytes.len());
                    input.take_announced()
                };
                let seen: Vec<Announced> = prefix
                    .iter()
                    .chain(b"<")
                    .filter_map(|&byte| feed(&mut input, &[byte]))
                    .collect();
                let expected = Announced {
                    length,
                    prefix: prefix.to_vec(),
                };
                if too_long == TooLong::Close {
                    // In the loop that feeds it, the first refusal is the end of its client.
                    assert_eq!(seen.first(), Some(&expected), "{framing}");
                    continue;
                }
                assert_eq!(seen, [expected], "{framing}");
                assert_eq!(feed(&mut input, b"abc"), None, "told twice");
                assert_eq!(feed(&mut input, &vec![b'x'; length - 4]), None);
                assert!(input.is_clear());
                assert!(
                    feed(&mut input, &[prefix, b"<"].concat()).is_some(),
                    "the next one"
                );
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_told_of_each_message_also_after_a_block() {
        let rule = rule(Framing::LengthPrefixed, 8);
        let message = [&[0, 0, 0, 12], b"abcdefghijkl".as_slice()].concat();
        let mut input = Input::default();
        for n in 0..3 {
            let fed = deliver(input.feed(&mut message.clone(), rule), |_| 0);
            assert_eq!(fed.unwrap(), Fed::Blocked);
            assert!(input.take_announced().is_some(), "message {n}");
            let fed = deliver(input.resume(rule), |batch| batch.bytes.len());
            assert_eq!(fed.unwrap(), Fed::All);
            assert_eq!(input.take_announced(), None, "told twice");
            assert!(input.is_clear());
        }
    }

    /// A service that takes what `quota` says, message by message, and remembers the bodies.
    struct Taker {
        bodies: Vec<(Vec<u8>, bool)>,
        quota: usize,
    }

    impl Taker {
        fn new(quota: usize) -> Self {
            Taker {
                bodies: Vec::new(),
                quota,
            }
        }

        fn take(&mut self, batch: Batch<'_>) -> usize {
            let mut taken = 0;
            for message in batch.iter() {
                if self.quota == 0 {
                    return taken;
                }
                self.quota -= 1;
                self.bodies.push((message.body.to_vec(), message.truncated));
                taken = message.end;
            }
            batch.bytes.len()
        }
    }

    fn rule(framing: Framing, message_size: usize) -> Rule {
        Rule {
            framing,
            message_size,
            too_long: TooLong::Keep,
        }
    }

    /// What arrives when `stream` comes in these pieces and the service takes `quota` messages
    /// before it blocks, each time.
    fn run(rule: &Rule, pieces: &[&[u8]], quota: usize) -> Vec<(Vec<u8>, bool)> {
        run_counting(rule, pieces, quota).0
    }

    /// As `run`, and how many messages were passed over.
    fn run_counting(rule: &Rule, pieces: &[&[u8]], quota: usize) -> (Vec<(Vec<u8>, bool)>, u64) {
        let mut input = Input::default();
        let mut taker = Taker::new(quota);
        let settle = |input: &mut Input, taker: &mut Taker, mut fed: Fed| {
            while fed == Fed::Blocked {
                assert!(input.is_blocked());
                taker.quota = quota;
                fed = deliver(input.resume(*rule), |batch| taker.take(batch)).unwrap();
            }
            assert!(!input.is_blocked());
        };
        for piece in pieces {
            let fed = deliver(input.feed(&mut piece.to_vec(), *rule), |batch| {
                taker.take(batch)
            });
            let fed = fed.unwrap();
            settle(&mut input, &mut taker, fed);
        }
        let fed = deliver(input.finish(*rule), |batch| taker.take(batch)).unwrap();
        settle(&mut input, &mut taker, fed);
        (taker.bodies, input.take_refused())
    }

    #[test]
    fn messages_are_the_same_however_the_stream_is_split_and_however_the_service_blocks() {
        let long = 6;
        type Case = (Framing, &'static [u8], &'static [(&'static str, bool)]);
        let cases: &[Case] = &[
            (
                Framing::Lines,
                b"one\r\n\nabcdefgh\ntwo\nlast",
                &[
                    ("one", false),
                    ("", false),
                    ("abcdef", true),
                    ("two", false),
                    ("last", false),
                ],
            ),
            (
                Framing::Nul,
                b"a\0bcdefghij\0\0k",
                &[("a", false), ("bcdefg", true), ("", false), ("k", false)],
            ),
            (
                Framing::LengthPrefixed,
                b"\0\0\0\x02hi\0\0\0\x08abcdefgh\0\0\0\0\0\0\0\x01x\0\0\0\x09lost",
                &[("hi", false), ("abcdef", true), ("", false), ("x", false)],
            ),
            (
                Framing::Fixed(3),
                b"abcdefgh",
                &[("abc", false), ("def", false)],
            ),
            (
                Framing::CString(4),
                b"ab\0Xcdefg\0YZno",
                &[("ab", false), ("cdef", false), ("g", false)],
            ),
            (
                Framing::Syslog,
                b"4 <1>a<2>b\n\0<3>c\0\n9 <4>abcdef<5>defghi\n<6>z",
                &[
                    ("<1>a", false),
                    ("<2>b", false),
                    ("<3>c", false),
                    ("<4>abc", true),
                    ("<5>def", true),
                    ("<6>z", false),
                ],
            ),
        ];
        for (framing, stream, expected) in cases {
            let rule = rule(*framing, long);
            let expected: Vec<_> = expected
                .iter()
                .map(|(body, cut)| (body.as_bytes().to_vec(), *cut))
                .collect();
            for quota in [1, 2, usize::MAX] {
                for i in 0..=stream.len() {
                    for j in i..=stream.len() {
                        let pieces = [&stream[..i], &stream[i..j], &stream[j..]];
                        assert_eq!(
                            run(&rule, &pieces, quota),
                            expected,
                            "{framing} cut at {i} and {j}"
                        );
                    }
                }
                let bytes: Vec<&[u8]> = stream.chunks(1).collect();
                assert_eq!(
                    run(&rule, &bytes, quota),
                    expected,
                    "{framing} byte by byte"
                );
            }
        }
    }

    #[test]
    fn what_is_lost_with_a_blocked_client_is_counted_message_by_message() {
        let rule = rule(Framing::Lines, 4);
        let mut input = Input::default();
        let feed = |input: &mut Input, bytes: &[u8]| {
            deliver(input.feed(&mut bytes.to_vec(), rule), |_| 0).unwrap()
        };
        assert_eq!(feed(&mut input, b"on"), Fed::All);
        assert_eq!(input.loss(Framing::Lines), (0, true));
        // The first was completed by a read that brought two more, and a part.
        assert_eq!(feed(&mut input, b"e\ntwo\n\nthr"), Fed::Blocked);
        assert_eq!(input.loss(Framing::Lines), (3, true));
        let mut input = Input::default();
        assert_eq!(feed(&mut input, b"abcdefgh\ntwo\n"), Fed::Blocked);
        assert_eq!(input.loss(Framing::Lines), (2, false));
    }

    #[test]
    fn padding_behind_a_string_is_zero_on_its_way_out() {
        let rule = rule(Framing::CString(8), 8);
        let mut seen = Vec::new();
        let mut input = Input::default();
        for piece in [&b"ab\0secr"[..], b"etcd\0x", b"yzabc"] {
            let mut keep = |batch: Batch<'_>| {
                seen.extend_from_slice(batch.bytes);
                batch.bytes.len()
            };
            deliver(input.feed(&mut piece.to_vec(), rule), &mut keep).unwrap();
        }
        assert_eq!(seen, b"ab\0\0\0\0\0\0tcd\0\0\0\0\0");
    }

    #[test]
    fn a_message_over_the_limit_ends_its_sender_where_nothing_is_cut() {
        let rule = Rule {
            too_long: TooLong::Close,
            ..rule(Framing::Lines, 4)
        };
        let mut input = Input::default();
        let mut taker = Taker::new(usize::MAX);
        let mut feed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            deliver(input.feed(&mut bytes, rule), |batch| taker.take(batch))
        };
        assert!(feed(b"abcd\r\nabc").is_ok());
        assert!(matches!(feed(b"de"), Err(TooLongFor(4))));
        assert_eq!(taker.bodies, [(b"abcd".to_vec(), false)]);
    }

    #[test]
    fn a_message_over_the_limit_is_passed_over_and_counted_where_it_alone_is_refused() {
        type Case = (Framing, &'static [u8], &'static [&'static [u8]], u64);
        let cases: &[Case] = &[
            (
                Framing::LengthPrefixed,
                b"\0\0\0\x02hi\0\0\0\x05abcde\0\0\0\0\0\0\0\x09abcdefghi\0\0\0\x04last",
                &[b"hi", b"", b"last"],
                2,
            ),
            (
                Framing::Lines,
                b"abcd\nabcde\nx\n\nabcdefgh\n",
                &[b"abcd", b"x", b""],
                2,
            ),
        ];
        for (framing, stream, expected, count) in cases {
            let rule = Rule {
                too_long: TooLong::Refuse,
                ..rule(*framing, 4)
            };
            let expected: Vec<_> = expected.iter().map(|body| (body.to_vec(), false)).collect();
            for quota in [1, usize::MAX] {
                for i in 0..=stream.len() {
                    for j in i..=stream.len() {
                        let pieces = [&stream[..i], &stream[i..j], &stream[j..]];
                        let (bodies, refused) = run_counting(&rule, &pieces, quota);
                        assert_eq!(bodies, expected, "{framing} cut at {i} and {j}");
                        assert_eq!(refused, *count, "{framing} cut at {i} and {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_came_under_a_larger_limit_is_judged_by_that_and_the_next_message_by_the_new() {
        for too_long in [TooLong::Close, TooLong::Refuse, TooLong::Keep] {
            let with = |message_size| Rule {
                framing: Framing::Lines,
                message_size,
                too_long,
            };
            let mut input = Input::default();
            let mut taker = Taker::new(0);
            let feed = |input: &mut Input, taker: &mut Taker, bytes: &[u8], size| {
                let rule = with(size);
                deliver(input.feed(&mut bytes.to_vec(), rule), |batch| {
                    taker.take(batch)
                })
            };
            // Whole ones that wait, one behind them that was not cut, and a part.
            let fed = feed(&mut input, &mut taker, b"abcde\nfghij\nklm", 6).unwrap();
            assert_eq!(fed, Fed::Blocked);
            taker.quota = usize::MAX;
            let fed = deliver(input.resume(with(2)), |batch| taker.take(batch));
            assert_eq!(fed.unwrap(), Fed::All);
            let fed = feed(&mut input, &mut taker, b"no\npq\n", 2).unwrap();
            assert_eq!(fed, Fed::All);
            let bodies: Vec<&[u8]> = taker.bodies.iter().map(|(body, _)| &body[..]).collect();
            assert_eq!(bodies, [&b"abcde"[..], b"fghij", b"klmno", b"pq"]);
            let fed = feed(&mut input, &mut taker, b"rst\nuv\n", 2);
            match too_long {
                TooLong::Close => assert!(matches!(fed, Err(TooLongFor(2)))),
                TooLong::Refuse => {
                    assert_eq!((fed.unwrap(), input.take_refused()), (Fed::All, 1));
                    assert_eq!(taker.bodies.last().unwrap().0, b"uv");
                }
                TooLong::Keep => {
                    assert_eq!(fed.unwrap(), Fed::All);
                    let last = &taker.bodies[4..];
                    assert_eq!(last, [(b"rs".to_vec(), true), (b"uv".to_vec(), false)]);
                }
            }
        }
    }

    #[test]
    fn what_comes_behind_one_that_was_begun_under_a_larger_limit_is_judged_by_the_new_also_where_it_waits()
     {
        let with = |message_size| Rule {
            framing: Framing::Lines,
            message_size,
            too_long: TooLong::Close,
        };
        let mut input = Input::default();
        let mut taker = Taker::new(0);
        let mut take = |batch: Batch<'_>| taker.take(batch);
        let fed = deliver(input.feed(&mut b"abc".to_vec(), with(6)), &mut take);
        assert_eq!(fed.unwrap(), Fed::All);
        let fed = deliver(input.feed(&mut b"de\nfghij\n".to_vec(), with(2)), &mut take);
        assert_eq!(fed.unwrap(), Fed::Blocked);
        taker.quota = usize::MAX;
        let fed = deliver(input.resume(with(2)), |batch| taker.take(batch));
        assert!(matches!(fed, Err(TooLongFor(2))));
        assert_eq!(taker.bodies, [(b"abcde".to_vec(), false)]);
    }

    #[test]
    fn nothing_is_held_beyond_one_message() {
        let rule = rule(Framing::Lines, 1000);
        let mut input = Input::default();
        let mut taker = Taker::new(usize::MAX);
        for _ in 0..10_000 {
            deliver(input.feed(&mut [b'x'; 999], rule), |batch| {
                taker.take(batch)
            })
            .unwrap();
            assert!(input.held.len() <= 1001 && input.held.capacity() <= 4096);
        }
        assert_eq!(taker.bodies, [(vec![b'x'; 1000], true)]);
    }
}
