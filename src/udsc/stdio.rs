//! Standard input and output, past the buffers of the standard library: what came is passed on at
//! once, in as few calls as it came in.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::fd::AsFd,
};

use super::{
    MESSAGE_LIMIT, connection::Connection, failure::Failure, messages::Messages, packets::Reader,
};
use crate::frame::Framing;

/// Bytes passed on at once.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Standard input.
pub(crate) fn standard_input() -> Result<File, Failure> {
    own(&io::stdin(), "input")
}

/// Standard output.
pub(crate) fn standard_output() -> Result<File, Failure> {
    own(&io::stdout(), "output")
}

fn own(fd: &impl AsFd, which: &'static str) -> Result<File, Failure> {
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map(File::from)
        .map_err(|source| Failure::Standard(which, source))
}

/// Sends each line of `input` as one message, or under `none` its bytes as they are, and counts those in `sent`.
/// Lines before one that fails are sent.
pub(crate) fn send_input(
    input: impl Read,
    conn: &Connection,
    sent: &mut u64,
) -> Result<(), Failure> {
    let cut = match conn.framing {
        Framing::None => Framing::None,
        _ => Framing::Lines,
    };
    let mut lines = Messages::new(input, cut, MESSAGE_LIMIT);
    let mut wire = Vec::new();
    loop {
        let place = || format!("line {} of standard input", *sent + 1);
        let put = match lines.at_hand() {
            Ok(None) => Ok(None),
            Ok(Some(line)) => {
                let (message, amount) = match cut {
                    Framing::None => (line, line.len() as u64),
                    _ => (line.strip_suffix(b"\n").unwrap_or(line), 1),
                };
                conn.put(message, &mut wire, place).map(|()| Some(amount))
            }
            Err(why) => Err(Failure::Told(format!("{}: {why}", place()))),
        };
        // What one read brought goes out in one write, if it is not too much.
        if !matches!(put, Ok(Some(_))) || wire.len() >= CHUNK {
            let mut unsent = &wire[..];
            while !unsent.is_empty() {
                conn.send(&mut unsent)?;
            }
            wire.clear();
        }
        match put? {
            Some(amount) => *sent += amount,
            None if lines.has_ended() => return Ok(()),
            None => {
                let more = lines.fill();
                more.map_err(|source| Failure::Standard("input", source))?;
            }
        }
    }
}

/// The messages of the server, on their way to standard output.
pub(crate) struct Incoming<'a, W: Write> {
    conn: &'a Connection,
    messages: Messages<Reader<'a>>,
    output: BufWriter<W>,
    /// Whether each message is printed with LF behind it.
    pub(crate) as_lines: bool,
    /// How many were printed.
    pub(crate) printed: u64,
    /// Bytes of all that came.
    pub(crate) received: u64,
}

impl<'a, W: Write> Incoming<'a, W> {
    /// Prints each message as its body and LF, under `none` the bytes as they are.
    pub(crate) fn new(conn: &'a Connection, output: W) -> Self {
        Self {
            conn,
            messages: conn.messages(),
            output: BufWriter::new(output),
            as_lines: conn.framing != Framing::None,
            printed: 0,
            received: 0,
        }
    }

    /// Prints until `count` messages were printed, or the server ends its side.
    pub(crate) fn print(&mut self, count: u64) -> Result<(), Failure> {
        while self.printed < count && !self.has_ended() {
            self.receive(count)?;
        }
        Ok(())
    }

    /// Receives once and prints what is whole by then, up to `count` messages in all. What comes after those is
    /// read and dropped. What was printed never waits for the next message.
    pub(crate) fn receive(&mut self, count: u64) -> Result<(), Failure> {
        if self.printed >= count {
            self.messages.forget();
        }
        self.received += self.conn.receive(&mut self.messages)? as u64;
        let unprinted = |source| Failure::Standard("output", source);
        while self.printed < count
            && let Some(wire) = self
                .messages
                .at_hand()
                .map_err(|why| self.conn.failure(why))?
        {
            let end: &[u8] = if self.as_lines { b"\n" } else { b"" };
            self.output
                .write_all(self.conn.framing.body(wire))
                .and_then(|()| self.output.write_all(end))
                .map_err(unprinted)?;
            self.printed += 1;
        }
        self.output.flush().map_err(unprinted)
    }

    /// How much came, as `send_input` counts.
    pub(crate) fn amount(&self) -> u64 {
        match self.conn.framing {
            Framing::None => self.received,
            _ => self.printed,
        }
    }

    /// Whether the server has ended its side.
    pub(crate) fn has_ended(&self) -> bool {
        self.messages.has_ended()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// What is printed of a server that sends `stream` and goes.
    fn printed(framing: Framing, stream: &[u8], count: u64) -> (Result<u64, Failure>, String) {
        let (conn, mut server) = Connection::pair(framing);
        server.write_all(stream).unwrap();
        drop(server);
        let mut out = Vec::new();
        let mut incoming = Incoming::new(&conn, &mut out);
        let result = incoming.print(count);
        let result = result.map(|()| incoming.printed);
        drop(incoming);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_message_is_a_line_and_none_is_left_as_it_is() {
        let (count, text) = printed(Framing::Nul, b"a\0b\0c", u64::MAX);
        assert_eq!((count.unwrap(), text.as_str()), (3, "a\nb\nc\n"));
        let (_, text) = printed(Framing::None, b"a\0b", u64::MAX);
        assert_eq!(text, "a\0b");
        let (count, text) = printed(Framing::Nul, b"a\0b\0c", 2);
        assert_eq!((count.unwrap(), text.as_str()), (2, "a\nb\n"));
    }

    #[test]
    fn a_broken_stream_prints_what_came_and_tells_server_and_framing() {
        let (result, text) = printed(Framing::Fixed(2), b"abc", u64::MAX);
        assert_eq!(text, "ab\n");
        assert_eq!(
            result.unwrap_err().to_string(),
            "/x: the stream ended after 1 bytes of a message (framing fixed:2)"
        );
    }
}
