//! `udsc connect`: standard input to messages, incoming messages to standard output, each at its own
//! pace. A thread sends, the caller receives, so that reading never waits for writing.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
};

use rustix::event::PollFlags;

use super::{
    LINGER, MESSAGE_LIMIT,
    failure::Failure,
    messages::{Broken, Messages},
    ready::until_ready,
    standard::{print_messages, standard_input, standard_output},
    target::Link,
};
use crate::frame::Framing;

/// Bytes passed on at once.
const CHUNK: usize = 64 * 1024;

/// Runs until both directions are done, or the server has closed.
pub(crate) fn run(link: &Link) -> Result<(), Failure> {
    converse(link, standard_input()?, standard_output()?)
}

fn converse(
    link: &Link,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), Failure> {
    let (failed, failures) = mpsc::channel::<Failure>();
    let (framing, name) = (link.framing, link.name.clone());
    let writer = link.stream.try_clone();
    let writer = writer.map_err(|source| Failure::System("duplicating the connection", source))?;
    // Never joined: it may wait for a terminal when the server has long gone.
    thread::spawn(move || {
        let sent = if is_passed_through(framing) {
            pass(input, &writer, &name)
        } else {
            put(input, framing, &writer, &name)
        };
        // Told before the socket is shut down, so that the receiver, once woken, knows.
        let is_ours = sent.is_err_and(|failure| {
            let is_ours = !matches!(failure, Failure::Link { .. } | Failure::Unread(_));
            let _ = failed.send(failure);
            is_ours
        });
        // A socket that can no longer be shut down is gone anyway.
        let _ = writer.shutdown(Shutdown::Write);
        if is_ours {
            // Time for what is owed for the messages before; a relay would go on for ever.
            thread::sleep(LINGER);
            let _ = writer.shutdown(Shutdown::Read);
        }
    });
    let received = receive(link, output).and_then(|()| await_hang_up(link));
    // What went wrong in sending came first, and explains what followed.
    failures.try_recv().map_or(received, Err)
}

/// End of stream may mean that the server reads on: it shut down its writing side alone. It has hung
/// up when it has closed, or when our side has ended as well.
fn await_hang_up(link: &Link) -> Result<(), Failure> {
    until_ready(&link.stream, PollFlags::empty(), None)
        .and_then(|_| link.stream.take_error())
        .and_then(|error| error.map_or(Ok(()), Err))
        .map_err(|source| Failure::of_link(&link.name, source))
}

/// Whether udsc's own lines are the messages, or there are none, so that bytes need no change.
fn is_passed_through(framing: Framing) -> bool {
    matches!(framing, Framing::None | Framing::Lines)
}

fn receive(link: &Link, mut output: impl Write) -> Result<(), Failure> {
    if !is_passed_through(link.framing) {
        let mut messages = Messages::new(&link.stream, link.framing, MESSAGE_LIMIT);
        print_messages(&mut messages, link.framing, &link.name, u64::MAX, output)?;
        return Ok(());
    }
    let mut buffer = vec![0; CHUNK];
    while let Some(n) =
        read(&mut &link.stream, &mut buffer).map_err(|e| Failure::of_link(&link.name, e))?
    {
        output
            .write_all(&buffer[..n])
            .and_then(|()| output.flush())
            .map_err(|source| Failure::Standard("output", source))?;
    }
    Ok(())
}

/// Sends the bytes of `input` as they are.
fn pass(mut input: impl Read, mut server: &UnixStream, name: &str) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    while let Some(n) =
        read(&mut input, &mut buffer).map_err(|source| Failure::Standard("input", source))?
    {
        server
            .write_all(&buffer[..n])
            .map_err(|source| Failure::of_link(name, source))?;
    }
    Ok(())
}

/// Sends each line of `input` as one message. A line that fails takes none of those before it along.
fn put(
    input: impl Read,
    framing: Framing,
    mut server: &UnixStream,
    name: &str,
) -> Result<(), Failure> {
    let mut lines = Messages::new(input, Framing::Lines, MESSAGE_LIMIT);
    let mut wire = Vec::new();
    let mut number = 0;
    let mut ended = false;
    loop {
        let line = put_line(&mut lines, ended, framing, &mut number, &mut wire);
        // What one read brought goes out in one write, if it is not too much.
        if !matches!(line, Ok(true)) || wire.len() >= CHUNK {
            server
                .write_all(&wire)
                .map_err(|source| Failure::of_link(name, source))?;
            wire.clear();
        }
        if line? {
            continue;
        }
        if ended {
            return Ok(());
        }
        ended = !lines.fill().map_err(|broken| of_input(broken, number))?;
    }
}

/// Puts the next line that is at hand on the wire; false where there is none.
fn put_line(
    lines: &mut Messages<impl Read>,
    ended: bool,
    framing: Framing,
    number: &mut u64,
    wire: &mut Vec<u8>,
) -> Result<bool, Failure> {
    let line = if ended { lines.last() } else { lines.at_hand() };
    let Some(line) = line.map_err(|broken| of_input(broken, *number))? else {
        return Ok(false);
    };
    *number += 1;
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    framing.put(line, wire).map_err(|why| Failure::Unfit {
        place: format!("line {number} of standard input"),
        framing,
        why,
    })?;
    Ok(true)
}

/// What ended standard input after so many lines.
fn of_input(broken: Broken, lines: u64) -> Failure {
    match broken {
        Broken::Io(source) => Failure::Standard("input", source),
        broken => broken.at(
            &format!("line {} of standard input", lines + 1),
            Framing::Lines,
        ),
    }
}

/// Reads once; `None` at the end.
fn read(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match source.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn pair(framing: Framing) -> (Link, UnixStream) {
        let (stream, server) = UnixStream::pair().unwrap();
        let link = Link {
            stream,
            framing,
            service: None,
            name: "/x".into(),
        };
        (link, server)
    }

    /// Converses with a server that sends `answer`, closes its writing side and reads to the end.
    fn exchange(framing: Framing, input: &'static [u8], answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (link, mut server) = pair(framing);
        server.write_all(answer).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let reader = thread::spawn(move || {
            let mut sent = Vec::new();
            server.read_to_end(&mut sent).unwrap();
            sent
        });
        let mut printed = Vec::new();
        converse(&link, input, &mut printed).unwrap();
        (reader.join().unwrap(), printed)
    }

    #[test]
    fn bytes_pass_unchanged_where_the_framing_is_none_or_lines() {
        for framing in [Framing::None, Framing::Lines] {
            let (sent, printed) = exchange(framing, b"a\r\nb\0\xffc", b"x\r\n\0y");
            assert_eq!(sent, b"a\r\nb\0\xffc");
            assert_eq!(printed, b"x\r\n\0y");
        }
    }

    #[test]
    fn lines_become_messages_and_messages_lines() {
        let (sent, printed) = exchange(Framing::LengthPrefixed, b"ab\n\nc", b"\0\0\0\x01d");
        assert_eq!(sent, b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
        assert_eq!(printed, b"d\n");
    }

    #[test]
    fn a_small_line_of_a_large_buffer_does_not_pile_up() {
        let framing = Framing::CString(CHUNK);
        let (sent, _) = exchange(framing, b"a\nb\nc\nd\n", b"");
        assert_eq!(sent.len(), 4 * CHUNK);
    }

    #[test]
    fn a_line_that_does_not_fit_is_named_and_those_before_it_are_sent() {
        let (link, mut server) = pair(Framing::Fixed(2));
        let conversation =
            thread::spawn(move || converse(&link, &b"ab\ncde\nfg\n"[..], Vec::new()));
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).unwrap();
        drop(server);
        let failure = conversation.join().unwrap().unwrap_err();
        assert_eq!(sent, b"ab");
        assert_eq!(
            failure.to_string(),
            "line 2 of standard input has no form under framing fixed:2: the message does not fit the 2 bytes of this framing"
        );
    }

    #[test]
    fn a_server_that_closes_ends_it_though_input_is_open() {
        let (input, _open) = UnixStream::pair().unwrap();
        let (link, mut server) = pair(Framing::Lines);
        server.write_all(b"bye\n").unwrap();
        drop(server);
        let mut printed = Vec::new();
        converse(&link, input, &mut printed).unwrap();
        assert_eq!(printed, b"bye\n");
    }

    #[test]
    fn a_server_that_closes_with_input_unread_is_told() {
        let (link, server) = pair(Framing::Lines);
        (&link.stream).write_all(b"unread\n").unwrap();
        drop(server);
        let failure = converse(&link, io::empty(), Vec::new()).unwrap_err();
        assert!(matches!(failure, Failure::Unread(_)), "{failure}");
    }

    #[test]
    fn output_that_nobody_reads_is_a_closed_output() {
        let (link, mut server) = pair(Framing::Nul);
        let (output, reader) = UnixStream::pair().unwrap();
        drop(reader);
        server.write_all(b"a\0").unwrap();
        let (input, _open) = UnixStream::pair().unwrap();
        let failure = converse(&link, input, output).unwrap_err();
        assert!(failure.is_closed_output(), "{failure}");
    }
}
