//! The unit of work: all whole messages that one read produced, in wire form, one after another.

use crate::frame::{Cut, Framing};

/// Whole messages, contiguous, iterable.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The messages in wire form. Of a truncated message: the part of its body that was kept.
    pub bytes: &'a [u8],
    /// How many they are.
    pub messages: u64,
    /// They are one, of which `bytes` is the first part.
    pub truncated: bool,
    framing: Framing,
}

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Without terminator, prefix or padding.
    pub body: &'a [u8],
    /// Only the first part is left of it.
    pub truncated: bool,
    /// Where it ends in the batch's bytes.
    pub end: usize,
}

impl<'a> Batch<'a> {
    /// `bytes`, which are so many whole messages.
    #[must_use]
    pub fn whole(framing: Framing, bytes: &'a [u8], messages: u64) -> Self {
        Batch {
            bytes,
            messages,
            framing,
            truncated: false,
        }
    }

    /// The whole messages at the start of `bytes`, none of them longer than `limit`.
    #[must_use]
    pub fn scan(framing: Framing, bytes: &'a [u8], limit: usize) -> Self {
        Self::scan_some(framing, bytes, limit, u64::MAX)
    }

    /// The same, and no more than `most` messages.
    #[must_use]
    pub fn scan_some(framing: Framing, bytes: &'a [u8], limit: usize, most: u64) -> Self {
        let scan = framing.scan(bytes, limit, most);
        Self::whole(framing, &bytes[..scan.bytes], scan.messages)
    }

    /// `body` is the first part of one message that was too long.
    #[must_use]
    pub fn truncated(framing: Framing, body: &'a [u8]) -> Self {
        Batch {
            bytes: body,
            messages: 1,
            framing,
            truncated: true,
        }
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = Message<'a>> + use<'a> {
        self.behind(0)
    }

    /// The messages that start at `start`, where one ends, or later.
    pub fn behind(&self, mut start: usize) -> impl Iterator<Item = Message<'a>> + use<'a> {
        let Batch {
            bytes,
            framing,
            truncated,
            ..
        } = *self;
        let mut cut = truncated;
        std::iter::from_fn(move || {
            if std::mem::take(&mut cut) {
                start = bytes.len();
                return Some(Message {
                    body: bytes,
                    truncated,
                    end: start,
                });
            }
            while start < bytes.len() {
                match framing.cut_next(&bytes[start..]) {
                    Cut::Filler(n) => start += n,
                    Cut::Whole(n) => {
                        let body = framing.body(&bytes[start..start + n]);
                        start += n;
                        return Some(Message {
                            body,
                            truncated,
                            end: start,
                        });
                    }
                    Cut::Partial | Cut::TooLong { .. } => break,
                }
            }
            None
        })
    }

    /// The first `most` messages.
    #[must_use]
    pub fn first_messages(&self, most: u64) -> Self {
        if self.messages <= most {
            return *self;
        }
        let mut messages = self.iter().take(most as usize);
        Batch {
            bytes: &self.bytes[..messages.by_ref().last().map_or(0, |message| message.end)],
            messages: most,
            ..*self
        }
    }

    /// The messages that end in the first `bytes` bytes.
    #[must_use]
    pub fn first(&self, bytes: usize) -> Self {
        Batch {
            bytes: &self.bytes[..bytes],
            messages: self.count(bytes),
            ..*self
        }
    }

    /// Where the last message ends that fits in `room` bytes behind `start`. Under framing `none`,
    /// and of bytes that belong to no message, any part fits.
    #[must_use]
    pub fn fit(&self, start: usize, room: usize) -> usize {
        let most = self.bytes.len().min(start + room);
        if most == self.bytes.len() || self.framing == Framing::None {
            return most;
        }
        let mut end = start;
        while end < most {
            match self.framing.cut_next(&self.bytes[end..]) {
                Cut::Whole(n) if end + n <= most => end += n,
                Cut::Filler(n) => end = most.min(end + n),
                _ => break,
            }
        }
        end
    }

    /// How many messages end in the first `bytes` bytes.
    #[must_use]
    #[inline]
    pub fn count(&self, bytes: usize) -> u64 {
        match bytes {
            0 => 0,
            _ if bytes == self.bytes.len() || self.framing == Framing::None => self.messages,
            _ => self
                .iter()
                .take_while(|message| message.end <= bytes)
                .count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(framing: Framing, bytes: &[u8]) -> Batch<'_> {
        let batch = Batch::scan(framing, bytes, usize::MAX);
        assert_eq!(batch.bytes, bytes);
        batch
    }

    fn bodies<'a>(batch: &Batch<'a>) -> Vec<&'a [u8]> {
        batch.iter().map(|message| message.body).collect()
    }

    #[test]
    fn messages_come_without_their_framing() {
        assert_eq!(
            bodies(&whole(Framing::Lines, b"a\r\n\nbc\n")),
            [&b"a"[..], b"", b"bc"]
        );
        assert_eq!(
            bodies(&whole(Framing::CString(4), b"ab\0\0cdef")),
            [&b"ab"[..], b"cdef"]
        );
        assert_eq!(
            bodies(&whole(Framing::Syslog, b"a\n\0\0\n<1>b\n")),
            [&b"a"[..], b"<1>b"]
        );
        assert_eq!(bodies(&whole(Framing::None, b"ab")), [&b"ab"[..]]);
    }

    #[test]
    fn a_truncated_message_is_one_whatever_it_holds() {
        let batch = Batch::truncated(Framing::Lines, b"ab\ncd");
        let messages: Vec<_> = batch.iter().collect();
        assert_eq!(
            messages,
            [Message {
                body: b"ab\ncd",
                truncated: true,
                end: 5
            }]
        );
    }

    #[test]
    fn only_whole_messages_fit() {
        let batch = whole(Framing::Lines, b"ab\ncd\ne\n");
        assert_eq!(
            (batch.messages, batch.fit(0, 7), batch.fit(3, 4)),
            (3, 6, 6)
        );
        assert_eq!(
            (batch.fit(0, 2), batch.fit(3, 2), batch.fit(0, 100)),
            (0, 3, 8)
        );
        assert_eq!((batch.count(0), batch.count(6), batch.count(8)), (0, 2, 3));
        assert_eq!(whole(Framing::None, b"abc").fit(0, 2), 2);
        let filled = whole(Framing::Syslog, b"\n\n\n\n<1>a\n\n\n\n");
        assert_eq!(
            (filled.fit(0, 3), filled.fit(3, 3), filled.fit(3, 6)),
            (3, 4, 9)
        );
        assert_eq!((filled.fit(9, 2), filled.fit(11, 9)), (11, 12));
    }
}
