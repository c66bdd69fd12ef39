//! Standard input and output, past the buffers of the standard library: what came is passed on at
//! once, in as few calls as it came in.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::fd::AsFd,
};

use super::{MESSAGE_LIMIT, connection::Connection, failure::Failure, messages::Messages};
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

/// Sends each line of `input` as one message, and counts them in `sent`. Lines before one that fails are sent.
pub(crate) fn send_lines(
    input: impl Read,
    conn: &Connection,
    sent: &mut u64,
) -> Result<(), Failure> {
    let mut server = &conn.transport;
    let mut lines = Messages::new(input, Framing::Lines, MESSAGE_LIMIT);
    let mut wire = Vec::new();
    let mut ended = false;
    loop {
        let place = || format!("line {} of standard input", *sent + 1);
        let line = if ended { lines.last() } else { lines.at_hand() };
        let put = match line {
            Ok(None) => Ok(false),
            Ok(Some(line)) => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                conn.put(line, &mut wire, place).map(|()| true)
            }
            Err(broken) => Err(broken.at(&place(), Framing::Lines)),
        };
        // What one read brought goes out in one write, if it is not too much.
        if !matches!(put, Ok(true)) || wire.len() >= CHUNK {
            server.write_all(&wire).map_err(|e| conn.broke(e))?;
            wire.clear();
        }
        if put? {
            *sent += 1;
        } else if ended {
            return Ok(());
        } else {
            let more = lines.fill();
            ended = more.map_err(|source| Failure::Standard("input", source))? == 0;
        }
    }
}

/// Prints the messages of the server, up to `count` of them: each as its body and LF, under `none`
/// the bytes as they are. What was printed never waits for the next message. `printed` counts them.
pub(crate) fn print_messages(
    conn: &Connection,
    count: u64,
    out: impl Write,
    printed: &mut u64,
) -> Result<(), Failure> {
    let mut messages = Messages::new(conn.transport.reader(), conn.framing, MESSAGE_LIMIT);
    let mut out = BufWriter::new(out);
    let unprinted = |source| Failure::Standard("output", source);
    let mut ended = false;
    loop {
        while *printed < count {
            let wire = if ended {
                messages.last()
            } else {
                messages.at_hand()
            };
            let Some(wire) = wire.map_err(|broken| conn.garbled(broken))? else {
                break;
            };
            print(conn.framing, wire, &mut out).map_err(unprinted)?;
            *printed += 1;
        }
        out.flush().map_err(unprinted)?;
        if ended || *printed == count {
            return Ok(());
        }
        ended = messages.receive().map_err(|source| conn.broke(source))? == 0;
    }
}

/// Prints one message.
pub(crate) fn print(framing: Framing, wire: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(framing.body(wire))?;
    if framing != Framing::None {
        out.write_all(b"\n")?;
    }
    Ok(())
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
        let mut printed = 0;
        let result = print_messages(&conn, count, &mut out, &mut printed).map(|()| printed);
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
