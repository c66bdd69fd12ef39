//! What the messages of a bench hold, so that one that is lost, doubled, out of order, changed in any byte or
//! brought to the wrong client is told from the one that is due.
//!
//! A message is who sent it and its number among that sender's, in 16 hexadecimal digits, then letters that are
//! others in the next message. They fit every framing.

use crate::{
    frame::Framing,
    udsc::{connection::Connection, failure::Failure},
};

/// Digits of the sender and of the number.
const SENDER: usize = 5;
const NUMBER: usize = 11;

/// Bytes that a message has at least.
pub(super) const LEAST: usize = SENDER + NUMBER;

/// The letters of a message begin at one of so many places.
const STARTS: usize = 997;

/// Makes messages of one length, and knows them again.
pub(super) struct Content {
    framing: Framing,
    letters: Vec<u8>,
    /// Of which each message has so many.
    length: usize,
    body: Vec<u8>,
    wire: Vec<u8>,
}

impl Content {
    /// Messages of `size` bytes. It has been checked that `framing` has a form for them.
    pub(super) fn new(framing: Framing, size: usize) -> Self {
        let length = size.saturating_sub(LEAST);
        let mut state = 1_u32;
        let letters = (0..STARTS + length).map(|_| {
            // Numerical Recipes' generator; the upper bits are the better ones.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 24) as u8 % 26
        });
        Self {
            framing,
            letters: letters.collect(),
            length,
            body: Vec::new(),
            wire: Vec::new(),
        }
    }

    /// Fails where `conn` cannot carry such messages, or its server would not take them.
    pub(super) fn check(&mut self, conn: &Connection) -> Result<(), Failure> {
        self.write(0, 0);
        let place = || format!("a message of {} bytes", self.body.len());
        conn.put(&self.body, &mut Vec::new(), place)
    }

    /// Puts a message on the wire.
    pub(super) fn put(&mut self, sender: usize, number: u64, wire: &mut Vec<u8>) {
        self.write(sender, number);
        // All messages are alike in what a framing looks at, and `check` has put one.
        let put = self.framing.put(&self.body, wire);
        debug_assert!(put.is_ok(), "{put:?}");
    }

    /// Whether `wire` is this message.
    pub(super) fn is(&mut self, wire: &[u8], sender: usize, number: u64) -> bool {
        let mut expected = std::mem::take(&mut self.wire);
        expected.clear();
        self.put(sender, number, &mut expected);
        self.wire = expected;
        self.wire == wire
    }

    /// The number of the message that `wire` is; `None` where it is none of this sender's.
    pub(super) fn number(&mut self, wire: &[u8], sender: usize) -> Option<u64> {
        let digits = self.framing.body(wire).get(SENDER..LEAST)?;
        let number = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        self.is(wire, sender, number).then_some(number)
    }

    fn write(&mut self, sender: usize, number: u64) {
        self.body.resize(LEAST + self.length, 0);
        let (head, rest) = self.body.split_at_mut(LEAST);
        let (first, second) = head.split_at_mut(SENDER);
        hexadecimal(sender as u64, first);
        hexadecimal(number, second);
        let start = (number.wrapping_mul(7) + sender as u64 * 31) % STARTS as u64;
        rest.copy_from_slice(&self.letters[start as usize..][..self.length]);
    }
}

fn hexadecimal(mut value: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value % 16) as usize];
        value /= 16;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn every_framing_carries_messages_that_are_known_again() {
        for (framing, size) in [
            (Framing::Lines, 64),
            (Framing::Nul, 16),
            (Framing::LengthPrefixed, 5000),
            (Framing::Fixed(17), 17),
            (Framing::CString(64), 20),
            (Framing::Syslog, 64),
        ] {
            let mut content = Content::new(framing, size);
            for (sender, number) in [(0, 0), (3, 5), (1_048_575, 1 << 40)] {
                let mut wire = Vec::new();
                content.put(sender, number, &mut wire);
                assert_eq!(framing.scan(&wire, 5000, 9).bytes, wire.len());
                assert_eq!(framing.body(&wire).len(), size);
                assert!(content.is(&wire, sender, number));
                assert_eq!(content.number(&wire, sender), Some(number));
                assert_eq!(content.number(&wire, sender + 1), None);
                for i in 0..wire.len() {
                    let mut changed = wire.clone();
                    changed[i] ^= 1;
                    assert!(!content.is(&changed, sender, number), "{framing} byte {i}");
                }
            }
        }
    }

    #[test]
    fn what_is_shorter_is_no_message() {
        let mut content = Content::new(Framing::Lines, 16);
        assert_eq!(content.number(b"\n", 0), None);
        assert_eq!(content.number(b"0000000000000000", 0), None);
        assert_eq!(content.number(b"+000000000000000\n", 0), None);
    }
}
