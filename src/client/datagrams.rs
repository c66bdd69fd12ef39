//! `udsc connect` on datagrams, which have no end: a conversation ends some time after standard input,
//! when nothing more is to be expected.

use std::{
    io::{self, Read, Write},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    LINGER,
    connection::Connection,
    failure::Failure,
    poll::until_any,
    stdio::{Incoming, send_input},
};
use crate::config::ServiceKind;

/// How sending ended.
struct Sent {
    /// Messages.
    count: u64,
    result: Result<(), Failure>,
}

impl Sent {
    /// How long a silence is the end.
    fn quiet(&self, conn: &Connection) -> Duration {
        // A server that is gone answers no more, and the kernel has thrown away the answers that were not
        // read yet (`unix_dgram_disconnected` in net/unix/af_unix.c).
        let is_gone = matches!(self.result, Err(Failure::Connection(..)));
        if is_gone || conn.service == Some(ServiceKind::Collect) {
            return Duration::ZERO;
        }
        LINGER
    }

    /// Whether more may come after `came` messages. Only of an echo is it known when all is back.
    fn may_come(&self, conn: &Connection, came: u64) -> bool {
        conn.service != Some(ServiceKind::Echo) || came < self.count
    }
}

/// Sends the lines of `input` and prints what comes, until the input has ended and an echo has
/// answered, or nothing came for a while.
pub(super) fn converse(
    conn: &Arc<Connection>,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> Result<(), Failure> {
    let (tell, told) = mpsc::channel();
    let (end, end_of_input) =
        io::pipe().map_err(|source| Failure::System("making a pipe", source))?;
    let sending = Arc::clone(conn);
    // Never joined: it may wait for a terminal when the receiver has failed.
    thread::spawn(move || {
        let mut count = 0;
        let result = send_input(input, &sending, &mut count);
        let _ = tell.send(Sent { count, result });
        // Wakes the receiver, who then finds it told.
        drop(end_of_input);
    });
    let mut incoming = Incoming::new(conn, output);
    let mut sent: Option<Sent> = None;
    let mut deadline = None;
    while sent
        .as_ref()
        .is_none_or(|sent| sent.may_come(conn, incoming.printed))
    {
        let mut fds = vec![PollFd::new(&conn.socket, PollFlags::IN)];
        if sent.is_none() {
            fds.push(PollFd::new(&end, PollFlags::IN));
        }
        if !until_any(&mut fds, deadline)? {
            break;
        }
        if !fds[0].revents().is_empty() {
            incoming.receive(u64::MAX)?;
        }
        if sent.is_none() {
            sent = told.try_recv().ok();
        }
        if let Some(sent) = &sent {
            deadline = Some(Instant::now() + sent.quiet(conn));
        }
    }
    let Some(Sent { count, result }) = sent else {
        return Ok(());
    };
    result?;
    conn.check_echo(incoming.printed, count, "messages")
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
        let sent = |result| Sent { count: 1, result };
        assert_eq!(sent(Ok(())).quiet(&conn), LINGER);
        let gone = conn.broke(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(sent(Err(gone)).quiet(&conn), Duration::ZERO);
        conn.service = Some(ServiceKind::Collect);
        assert_eq!(sent(Ok(())).quiet(&conn), Duration::ZERO);
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
