//! `udsc connect`: standard input to messages, incoming messages to standard output, each at its own
//! pace. A thread sends, the caller receives, so that reading never waits for writing.

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use rustix::event::PollFlags;

use super::{
    LINGER,
    connection::Connection,
    datagrams,
    delivery::{SIGN, settle},
    failure::Failure,
    poll::until_ready,
    stdio::{Incoming, send_input, standard_input, standard_output},
};
use crate::frame::Framing;

/// Runs until both directions are done, or the server has closed.
pub(crate) fn run(conn: Connection) -> Result<(), Failure> {
    converse(conn, standard_input()?, standard_output()?)
}

fn converse(
    mut conn: Connection,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), Failure> {
    // Where no file says how long a line may be, lines pass unchanged as well.
    if conn.framing == Framing::Lines && conn.limit.is_none() {
        conn.framing = Framing::None;
    }
    let conn = Arc::new(conn);
    if !conn.has_end() {
        return datagrams::converse(&conn, input, output);
    }
    let (tell, told) = mpsc::channel();
    let sending = Arc::clone(&conn);
    // Never joined: it may wait for a terminal when the server has long gone.
    thread::spawn(move || {
        let socket = &sending.socket;
        let wait = |until| until_ready(socket, PollFlags::empty(), Some(until));
        let mut sent = 0;
        let result =
            send_input(input, &sending, &mut sent).and_then(|()| settle(&sending, None, wait));
        let is_ours =
            matches!(&result, Err(failure) if !matches!(failure, Failure::Connection(..)));
        // Told before the socket is shut down, so that the receiver, once woken, knows.
        let _ = tell.send(result.map(|stands| (stands, sent)));
        // A socket that can no longer be shut down is gone anyway.
        let _ = socket.shutdown(Shutdown::Write);
        if is_ours {
            // Gives the server time to answer the messages before. A relay would go on for ever.
            let _ = wait(Instant::now() + LINGER);
        }
        if is_ours || !sending.ends_after_us() {
            let _ = socket.shutdown(Shutdown::Read);
        }
    });
    let mut incoming = Incoming::new(&conn, output);
    let received = incoming.print(u64::MAX).and_then(|()| await_hang_up(&conn));
    // Where the input ends together with the server, the thread that sends says so a moment later.
    let Ok(result) = told.recv_timeout(SIGN) else {
        received?;
        return Err(conn.failure("the server closed before standard input ended"));
    };
    // What went wrong in sending came first, and explains what followed.
    let (stands, sent) = result?;
    received?;
    if !stands {
        conn.ended()?;
    }
    let what = match conn.framing {
        Framing::None => "bytes",
        _ => "messages",
    };
    conn.check_echo(incoming.amount(), sent, what)
}

/// End of stream may mean that the server reads on: it shut down its writing side alone. It has hung
/// up when it has closed, or when our side has ended as well.
fn await_hang_up(conn: &Connection) -> Result<(), Failure> {
    let socket = &conn.socket;
    until_ready(socket, PollFlags::empty(), None)?;
    match socket.take_error() {
        Ok(None) => Ok(()),
        Ok(Some(source)) | Err(source) => Err(conn.broke(source)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{io, os::unix::net::UnixStream};

    use super::*;
    use crate::udsc::stdio::CHUNK;

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
        converse(conn, input, &mut printed).unwrap();
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
        let conversation = thread::spawn(move || converse(conn, &b"ab\ncde\nfg\n"[..], Vec::new()));
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
        let failure = converse(conn, input, &mut printed).unwrap_err();
        assert_eq!(printed, b"bye\n");
        assert_eq!(
            failure.to_string(),
            "/x: the server closed before standard input ended"
        );
    }

    #[test]
    fn a_server_that_closes_with_input_unread_is_told() {
        let (conn, server) = Connection::pair(Framing::Lines);
        conn.send(&mut &b"unread\n"[..]).unwrap();
        drop(server);
        let failure = converse(conn, io::empty(), Vec::new()).unwrap_err();
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
        let failure = converse(conn, input, output).unwrap_err();
        assert!(failure.is_closed_output(), "{failure}");
    }
}
