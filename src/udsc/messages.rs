//! The messages of an incoming stream, cut as its bytes come. Memory is bounded by the limit on a
//! message; no byte is searched twice.

use std::io::{self, Read};

use super::packets::Reader;
use crate::frame::{Cut, Framing};

/// Room for one read.
const READ: usize = 64 * 1024;

/// Reads a stream and cuts it into messages.
pub(crate) struct Messages<R> {
    source: R,
    framing: Framing,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the next message starts.
    start: usize,
    /// Up to here the next message is known to be unfinished.
    searched: usize,
    /// Up to here the buffer is filled.
    filled: usize,
    has_ended: bool,
}

impl<R: Read> Messages<R> {
    /// The messages of `source`, each with a body of at most `limit` bytes.
    pub(crate) fn new(source: R, framing: Framing, limit: usize) -> Self {
        Self {
            source,
            framing,
            limit,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            filled: 0,
            has_ended: false,
        }
    }

    /// Whether the end of the stream was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next message in wire form, if it is here whole. At end of stream also an unfinished last one, where
    /// the framing lets it count. The error says why no further message can be cut.
    pub(crate) fn at_hand(&mut self) -> Result<Option<&[u8]>, String> {
        match self.find()? {
            Some((from, to)) => Ok(Some(&self.buffer[from..to])),
            None if self.has_ended => self.last(),
            None => Ok(None),
        }
    }

    /// Reads once, whatever signals come in between: so many bytes; 0 at end of stream.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.make_room();
        let n = loop {
            match self.source.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.filled += n;
        self.has_ended = n == 0;
        Ok(n)
    }

    /// Drops all that is held.
    pub(crate) fn forget(&mut self) {
        self.begin_at(self.filled);
    }

    fn last(&mut self) -> Result<Option<&[u8]>, String> {
        let left = self.filled - self.start;
        self.buffer.truncate(self.filled);
        self.buffer.drain(..self.start);
        (self.start, self.searched, self.filled) = (0, 0, 0);
        if left == 0 {
            return Ok(None);
        }
        if self.framing.finish(&mut self.buffer) {
            return Ok(Some(&self.buffer));
        }
        Err(format!(
            "the stream ended after {left} bytes of a message (framing {})",
            self.framing
        ))
    }

    fn find(&mut self) -> Result<Option<(usize, usize)>, String> {
        while self.searched < self.filled {
            let held = &self.buffer[self.start..self.searched];
            let more = &self.buffer[self.searched..self.filled];
            match self.framing.cut(held, more, self.limit) {
                Cut::Whole(n) => {
                    let from = self.start;
                    self.begin_at(self.searched + n);
                    return Ok(Some((from, self.start)));
                }
                Cut::Filler(n) => self.begin_at(self.searched + n),
                Cut::Partial => self.searched = self.filled,
                Cut::TooLong { .. } => {
                    return Err(format!(
                        "a message is longer than the {} bytes that udsc holds",
                        self.limit
                    ));
                }
            }
        }
        Ok(None)
    }

    fn begin_at(&mut self, start: usize) {
        self.start = start;
        self.searched = start;
    }

    /// Moves an unfinished message to the front and grows by doubling, so that a long message is
    /// not copied once a read.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.searched -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.filled < READ {
            let size = (2 * self.buffer.len()).max(self.filled + READ);
            self.buffer.resize(size, 0);
        }
    }
}

impl Messages<Reader<'_>> {
    /// As `fill`, but reads a packet to its end: no wait for the socket would tell that its rest is here.
    pub(crate) fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = self.fill()?;
        while self.source.is_amid_packet() {
            bytes += self.fill()?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// Gives its bytes in pieces of the given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    impl<R: Read> Messages<R> {
        /// The next message, reading as long as it takes; `None` at end of stream.
        fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
            loop {
                if let Some(wire) = self.at_hand()? {
                    return Ok(Some(wire.to_vec()));
                }
                if self.has_ended {
                    return Ok(None);
                }
                self.fill().unwrap();
            }
        }
    }

    fn bodies(framing: Framing, stream: &[u8], piece: usize, limit: usize) -> Vec<Vec<u8>> {
        let mut messages = Messages::new(Pieces(stream, piece), framing, limit);
        let mut bodies = Vec::new();
        while let Some(wire) = messages.next().unwrap() {
            bodies.push(framing.body(&wire).to_vec());
        }
        bodies
    }

    #[test]
    fn pieces_of_any_size_give_the_same_messages() {
        let long = vec![b'x'; 3 * READ];
        let sent: Vec<&[u8]> = vec![b"one", &long, b"<2>two", b"three"];
        for framing in [
            Framing::Lines,
            Framing::Nul,
            Framing::LengthPrefixed,
            Framing::Syslog,
        ] {
            let mut stream = Vec::new();
            for message in &sent {
                framing.put(message, &mut stream).unwrap();
            }
            for piece in [1, 2, 7, 4096, READ, usize::MAX] {
                assert_eq!(bodies(framing, &stream, piece, long.len()), sent);
            }
        }
    }

    #[test]
    fn an_unfinished_last_message_counts_where_the_framing_lets_it() {
        assert_eq!(bodies(Framing::Lines, b"a\nb", 1, 9), [b"a", b"b"]);
        assert_eq!(bodies(Framing::Syslog, b"a\n\0b", 1, 9), [b"a", b"b"]);
        let mut messages = Messages::new(&b"abcde"[..], Framing::Fixed(3), 9);
        assert_eq!(messages.next().unwrap().unwrap(), b"abc");
        assert_eq!(
            messages.next().unwrap_err(),
            "the stream ended after 2 bytes of a message (framing fixed:3)"
        );
    }

    #[test]
    fn what_exceeds_the_limit_is_refused_before_it_is_held() {
        let endless = io::repeat(b'x');
        let mut messages = Messages::new(endless, Framing::Lines, 1000);
        assert_eq!(
            messages.next().unwrap_err(),
            "a message is longer than the 1000 bytes that udsc holds"
        );
        assert!(messages.buffer.len() <= 2 * READ);
        assert_eq!(bodies(Framing::Lines, b"abc\n", 1, 3), [b"abc"]);
    }

    #[test]
    fn many_messages_do_not_grow_the_buffer() {
        let stream = b"message\n".repeat(100_000);
        let mut messages = Messages::new(&stream[..], Framing::Lines, 1000);
        let mut count = 0;
        while messages.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 100_000);
        assert!(messages.buffer.len() <= 2 * READ);
    }

    #[test]
    fn none_gives_what_each_read_gave() {
        assert_eq!(
            bodies(Framing::None, b"abcde", 2, 1),
            [&b"ab"[..], b"cd", b"e"]
        );
    }
}
