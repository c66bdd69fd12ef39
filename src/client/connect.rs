//! `udsc connect`: standard input to messages, incoming messages to standard output, each at its own
//! pace. A thread sends, the caller receives, so that reading never waits for writing.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Instant,
};

use rustix::event::PollFlags;

use super::{
    LINGER,
    connection::Connection,
    datagrams,
    delivery::{Delivery, SIGN, is_end, until_read},
    failure::Failure,
    messages::read,
    poll::until_ready,
    stdio::{CHUNK, print_messages, send_lines, standard_input, standard_output},
};
use crate::frame::Framing;

/// How sending ended.
struct Sent {
    /// What became of what was sent; the error is the input's, or the connection's.
    result: Result<Delivery, Failure>,
    /// Bytes where they pass unchanged, else messages.
    amount: u64,
}

/// Runs until both directions are done, or the server has closed.
pub(crate) fn run(conn: &Connection) -> Result<(), Failure> {
    converse(conn, standard_input()?, standard_output()?)
}

fn converse(
    conn: &Connection,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), Failure> {
    if !conn.transport.has_end() {
        return datagrams::converse(conn, input, output);
    }
    let (tell, told) = mpsc::channel::<Sent>();
    // Closed when the first bytes come, or the end.
    let (unanswered, answered) = mpsc::channel::<()>();
    let sending = conn.duplicate()?;
    // Never joined: it may wait for a terminal when the server has long gone.
    thread::spawn(move || {
        let mut amount = 0;
        let result =
            put_all(input, &sending, &mut amount).and_then(|()| settle(&sending, &answered));
        let is_ours =
            matches!(&result, Err(failure) if !matches!(failure, Failure::Connection(..)));
        // Told before the socket is shut down, so that the receiver, once woken, knows.
        let _ = tell.send(Sent { result, amount });
        // A socket that can no longer be shut down is gone anyway.
        let _ = sending.transport.shutdown(Shutdown::Write);
        if is_ours {
            // Gives the server time to answer the messages before. A relay would go on for ever.
            let end = Instant::now() + LINGER;
            let _ = until_ready(&sending.transport, PollFlags::empty(), Some(end));
        }
        if is_ours || !sending.ends_after_us() {
            let _ = sending.transport.shutdown(Shutdown::Read);
        }
    });
    let mut came = 0;
    let received = receive(conn, output, unanswered, &mut came).and_then(|()| await_hang_up(conn));
    // Where the input ends together with the server, the thread that sends says so a moment later.
    let Ok(Sent { result, amount }) = told.recv_timeout(SIGN) else {
        received?;
        let text = format!(
            "{}: the server closed before standard input ended",
            conn.name
        );
        return Err(Failure::Told(text));
    };
    // What went wrong in sending came first, and explains what followed.
    let delivery = result?;
    received?;
    if delivery == Delivery::Ended {
        conn.ended(came > 0)?;
    }
    let what = if is_passed_through(conn) {
        "bytes"
    } else {
        "messages"
    };
    conn.check_echo(came, amount, what)
}

/// Once all is sent: waits until the server has read it, and for a sign that it stays.
fn settle(conn: &Connection, answered: &Receiver<()>) -> Result<Delivery, Failure> {
    let wait = |until| {
        until_ready(&conn.transport, PollFlags::empty(), Some(until))
            .map_err(|source| conn.broke(source))
    };
    let delivery = until_read(conn, None, wait)?;
    if delivery != Delivery::Read || !conn.is_silent() {
        return Ok(delivery);
    }
    if conn.ends_after_us() {
        // A server that has answered may end: it has refused nothing.
        let _ = answered.recv_timeout(SIGN);
        return until_read(conn, None, wait);
    }
    match is_end(wait(Instant::now() + SIGN)?) {
        true => Ok(Delivery::Ended),
        false => Ok(Delivery::Read),
    }
}

/// End of stream may mean that the server reads on: it shut down its writing side alone. It has hung
/// up when it has closed, or when our side has ended as well.
fn await_hang_up(conn: &Connection) -> Result<(), Failure> {
    until_ready(&conn.transport, PollFlags::empty(), None)
        .and_then(|_| conn.transport.take_error())
        .and_then(|error| error.map_or(Ok(()), Err))
        .map_err(|source| conn.broke(source))
}

/// Whether bytes pass unchanged: there are no messages, or each line is one and no file says how long it may be.
fn is_passed_through(conn: &Connection) -> bool {
    match conn.framing {
        Framing::None => true,
        Framing::Lines => conn.limit.is_none(),
        _ => false,
    }
}

/// Sends `input`; `sent` is as in `Sent`.
fn put_all(input: impl Read, conn: &Connection, sent: &mut u64) -> Result<(), Failure> {
    if !is_passed_through(conn) {
        return send_lines(input, conn, sent);
    }
    let unread = |source| Failure::Standard("input", source);
    pass(input, &conn.transport, sent, unread, |e| conn.broke(e))
}

/// Prints what comes; `came` counts as the amount in `Sent`. `unanswered` is dropped when the first bytes come.
fn receive(
    conn: &Connection,
    output: impl Write,
    unanswered: Sender<()>,
    came: &mut u64,
) -> Result<(), Failure> {
    let unprinted = |source| Failure::Standard("output", source);
    // Looks only, whatever it finds.
    let _ = until_ready(&conn.transport, PollFlags::IN, None);
    drop(unanswered);
    if is_passed_through(conn) {
        let reader = conn.transport.reader();
        return pass(reader, output, came, |e| conn.broke(e), unprinted);
    }
    print_messages(conn, u64::MAX, output, came)
}

/// Passes bytes on as they come, and counts them.
fn pass(
    mut from: impl Read,
    mut to: impl Write,
    passed: &mut u64,
    unread: impl Fn(io::Error) -> Failure,
    unwritten: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = read(&mut from, &mut buffer).map_err(&unread)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n])
            .and_then(|()| to.flush())
            .map_err(&unwritten)?;
        *passed += n as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::net::UnixStream;

    use super::*;

    /// Converses with a server that sends `answer`, closes its writing side and reads to the end.
    fn exchange(framing: Framing, input: &'static [u8], answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (conn, mut server) = Connection::pair(framing);
        server.write_all(answer).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let reader = thread::spawn(move || {
            let mut sent = Vec::new();
            server.read_to_end(&mut sent).unwrap();
            sent
        });
        let mut printed = Vec::new();
        converse(&conn, input, &mut printed).unwrap();
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
        let (conn, mut server) = Connection::pair(Framing::Fixed(2));
        let conversation =
            thread::spawn(move || converse(&conn, &b"ab\ncde\nfg\n"[..], Vec::new()));
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).unwrap();
        drop(server);
        let failure = conversation.join().unwrap().unwrap_err();
        assert_eq!(sent, b"ab");
        assert_eq!(
            failure.to_string(),
            "line 2 of standard input cannot be sent under framing fixed:2: the message does not fit the 2 bytes of this framing"
        );
    }

    #[test]
    fn a_server_that_closes_before_the_input_ends_is_told() {
        let (input, _open) = UnixStream::pair().unwrap();
        let (conn, mut server) = Connection::pair(Framing::Lines);
        server.write_all(b"bye\n").unwrap();
        drop(server);
        let mut printed = Vec::new();
        let failure = converse(&conn, input, &mut printed).unwrap_err();
        assert_eq!(printed, b"bye\n");
        assert_eq!(
            failure.to_string(),
            "/x: the server closed before standard input ended"
        );
    }

    #[test]
    fn a_server_that_closes_with_input_unread_is_told() {
        let (conn, server) = Connection::pair(Framing::Lines);
        (&conn.transport).write_all(b"unread\n").unwrap();
        drop(server);
        let failure = converse(&conn, io::empty(), Vec::new()).unwrap_err();
        let text = failure.to_string();
        assert!(
            text.starts_with("/x: the server closed before it had read everything that was sent"),
            "{text}"
        );
    }

    #[test]
    fn output_that_nobody_reads_is_a_closed_output() {
        let (conn, mut server) = Connection::pair(Framing::Nul);
        let (output, reader) = UnixStream::pair().unwrap();
        drop(reader);
        server.write_all(b"a\0").unwrap();
        let (input, _open) = UnixStream::pair().unwrap();
        let failure = converse(&conn, input, output).unwrap_err();
        assert!(failure.is_closed_output(), "{failure}");
    }
}
