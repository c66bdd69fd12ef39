//! `udsc connect` on datagrams, which have no end: a conversation ends some time after standard input,
//! when nothing more is to be expected.

use std::{
    io::{self, Read, Write},
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    LINGER,
    connection::Connection,
    failure::Failure,
    poll::{until_any, until_ready},
    stdio::{Incoming, send_input},
};
use crate::config::ServiceKind;

/// Sends the lines of `input` and prints what comes, until the input has ended and an echo has
/// answered, or nothing came for a while.
pub(super) fn converse(
    conn: &Arc<Connection>,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), Failure> {
    let (end, end_of_input) =
        io::pipe().map_err(|source| Failure::System("making a pipe", source))?;
    let sending = Arc::clone(conn);
    // Not joined before it ends: it may wait for a terminal when the receiver has failed.
    let sender = thread::spawn(move || {
        let mut sent = 0;
        let result = send_input(input, &sending, &mut sent);
        // Wakes the receiver.
        drop(end_of_input);
        (sent, result)
    });
    let mut incoming = Incoming::new(conn, output);
    let mut is_sending = true;
    while is_sending {
        let mut fds = [
            PollFd::new(&conn.socket, PollFlags::IN),
            PollFd::new(&end, PollFlags::IN),
        ];
        until_any(&mut fds, None)?;
        let [came, ended] = fds.map(|fd| !fd.revents().is_empty());
        if came {
            incoming.receive(u64::MAX)?;
        }
        is_sending = !ended;
    }
    let (sent, result) = sender.join().unwrap_or_else(|panic| resume_unwind(panic));
    let quiet = quiet(conn, &result);
    // Only of an echo is it known when all is back.
    while conn.service != Some(ServiceKind::Echo) || incoming.printed < sent {
        let until = Some(Instant::now() + quiet);
        if until_ready(&conn.socket, PollFlags::IN, until)?.is_empty() {
            break;
        }
        incoming.receive(u64::MAX)?;
    }
    result?;
    conn.check_echo(incoming.printed, sent, "messages")
}

/// How long a silence is the end, once sending ended with `result`.
fn quiet(conn: &Connection, result: &Result<(), Failure>) -> Duration {
    // A server that is gone answers no more, and the kernel has thrown away the answers that were not
    // read yet (`unix_dgram_disconnected` in net/unix/af_unix.c).
    let is_gone = matches!(result, Err(Failure::Connection(..)));
    match is_gone || conn.service == Some(ServiceKind::Collect) {
        true => Duration::ZERO,
        false => LINGER,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::net::UnixStream;

    use rustix::net::{SendFlags, send};

    use super::*;
    use crate::config::SocketType;

    /// Converses with a server that reads all of `input`'s lines and sends the first `answers` back.
    fn exchange(
        service: Option<ServiceKind>,
        input: &[u8],
        answers: usize,
    ) -> (Result<(), Failure>, String, Duration) {
        let (mut conn, mut server) = Connection::packets(SocketType::Datagram);
        conn.service = service;
        let lines = input.iter().filter(|&&byte| byte == b'\n').count();
        let serving = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 17];
            for i in 0..lines {
                let n = server.read(&mut buffer).unwrap();
                if i < answers {
                    send(&server, &buffer[..n], SendFlags::empty()).unwrap();
                }
            }
            server
        });
        let input = io::Cursor::new(input.to_vec());
        let mut printed = Vec::new();
        let start = Instant::now();
        let result = converse(&Arc::new(conn), input, &mut printed);
        let took = start.elapsed();
        serving.join().unwrap();
        (result, String::from_utf8(printed).unwrap(), took)
    }

    #[test]
    fn an_echo_is_waited_for_and_no_longer() {
        // The longest is more than one read takes.
        let mut input = [b'x'; 100_000];
        (input[1], input[2], input[99_999]) = (b'\n', b'\n', b'\n');
        let (result, printed, _) = exchange(Some(ServiceKind::Echo), &input, 3);
        result.unwrap();
        assert!(printed.as_bytes() == input);
        let (result, printed, took) = exchange(Some(ServiceKind::Echo), b"a\nb\nc\n", 2);
        assert_eq!(printed, "a\nb\n");
        assert!(took >= LINGER, "{took:?}");
        assert_eq!(
            result.unwrap_err().to_string(),
            "/x: 2 of 3 messages came back"
        );
    }

    #[test]
    fn an_unknown_service_may_answer_for_a_while() {
        let (result, printed, took) = exchange(None, b"a\nb\n", 1);
        result.unwrap();
        assert_eq!(printed, "a\n");
        assert!(took >= LINGER, "{took:?}");
    }

    #[test]
    fn nothing_is_waited_for_that_cannot_come() {
        let (mut conn, _server) = Connection::packets(SocketType::Datagram);
        assert_eq!(quiet(&conn, &Ok(())), LINGER);
        let gone = conn.broke(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(quiet(&conn, &Err(gone)), Duration::ZERO);
        conn.service = Some(ServiceKind::Collect);
        assert_eq!(quiet(&conn, &Ok(())), Duration::ZERO);
    }

    #[test]
    fn what_comes_is_printed_while_the_input_is_open() {
        let (conn, mut server) = Connection::packets(SocketType::Datagram);
        let (input, mut typed) = UnixStream::pair().unwrap();
        let (mut shown, output) = io::pipe().unwrap();
        let conn = &Arc::new(conn);
        thread::scope(|scope| {
            let conversation = scope.spawn(move || converse(conn, input, output));
            server.write_all(b"first").unwrap();
            let mut text = [0; 6];
            shown.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"first\n");
            typed.write_all(b"line\n").unwrap();
            let mut packet = [0; 9];
            assert_eq!(server.read(&mut packet).unwrap(), 4);
            drop(typed);
            conversation.join().unwrap().unwrap();
        });
    }
}
