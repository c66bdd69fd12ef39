//! Standard input and output, past the buffers of the standard library: what came is passed on at
//! once, in as few calls as it came in.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::fd::AsFd,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

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

/// How a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As its bytes.
    Bytes,
    /// With LF behind it.
    Lines,
    /// As an object, with the names of the control interface.
    Json,
}

/// A message, as JSON.
#[derive(Serialize)]
struct Object<'a> {
    /// With U+FFFD where it is no text; then base64 has its bytes.
    message: Cow<'a, str>,
    message_base64: Option<String>,
}

impl Form {
    fn write(self, message: &[u8], mut output: impl Write) -> io::Result<()> {
        if self == Form::Json {
            let text = String::from_utf8_lossy(message);
            let is_text = matches!(text, Cow::Borrowed(_));
            let object = Object {
                message: text,
                message_base64: (!is_text).then(|| BASE64_STANDARD.encode(message)),
            };
            serde_json::to_writer(&mut output, &object)?;
        } else {
            output.write_all(message)?;
        }
        match self {
            Form::Bytes => Ok(()),
            Form::Lines | Form::Json => output.write_all(b"\n"),
        }
    }
}

/// The messages of the server, on their way to standard output.
pub(crate) struct Incoming<'a, W: Write> {
    conn: &'a Connection,
    messages: Messages<Reader<'a>>,
    output: BufWriter<W>,
    /// How each message is printed.
    pub(crate) form: Form,
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
            form: match conn.framing {
                Framing::None => Form::Bytes,
                _ => Form::Lines,
            },
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
            let body = self.conn.framing.body(wire);
            self.form.write(body, &mut self.output).map_err(unprinted)?;
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
    fn as_json_each_message_is_a_line_whatever_it_holds() {
        let mut out = Vec::new();
        for message in [&b"a\nb"[..], b"\xff"] {
            Form::Json.write(message, &mut out).unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"message\":\"a\\nb\",\"message_base64\":null}\n\
             {\"message\":\"\u{fffd}\",\"message_base64\":\"/w==\"}\n"
        );
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
