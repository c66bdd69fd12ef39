//! `udsc send`: each argument one message, then the answers that are waited for. One loop sends and
//! receives as the socket is ready, so that neither waits for the other and a timeout bounds both.

use std::{
    ffi::OsString,
    io::{BufWriter, Write},
    net::Shutdown,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use super::{
    LINGER, MESSAGE_LIMIT,
    connection::Connection,
    delivery::{Delivery, SIGN, is_end, until_read},
    failure::Failure,
    messages::Messages,
    poll::{is_passing, until_ready},
    stdio::standard_output,
    transport::Reader,
};

/// What is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    /// Messages from the server.
    pub messages: u64,
    /// The longest time, from the start.
    pub timeout: Option<Duration>,
}

/// Sends `messages`, prints what is waited for, and leaves without a reset.
pub(crate) fn run(conn: &Connection, messages: &[OsString], wait: Wait) -> Result<(), Failure> {
    let wire = wire(messages, conn)?;
    exchange(conn, &wire, wait, standard_output()?)
}

fn wire(messages: &[OsString], conn: &Connection) -> Result<Vec<u8>, Failure> {
    let mut wire = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        conn.put(message.as_bytes(), &mut wire, || {
            format!("message {}", i + 1)
        })?;
    }
    Ok(wire)
}

fn exchange(conn: &Connection, wire: &[u8], wait: Wait, output: impl Write) -> Result<(), Failure> {
    conn.transport
        .set_nonblocking(true)
        .map_err(|source| Failure::System("making the connection non-blocking", source))?;
    let deadline = wait
        .timeout
        .and_then(|span| Instant::now().checked_add(span));
    let mut exchange = Exchange {
        conn,
        unsent: wire,
        messages: Messages::new(conn.transport.reader(), conn.framing, MESSAGE_LIMIT),
        came: 0,
        wait,
        wire: wire.len() as u64,
        received: 0,
        ended: false,
        output: BufWriter::new(output),
    };
    while !exchange.is_done() {
        if exchange.ended && exchange.came < wait.messages {
            return Err(Failure::closed(exchange.came, wait.messages));
        }
        if !exchange.turn(deadline)? {
            return Err(exchange.ran_out());
        }
    }
    exchange.leave(deadline)
}

/// Messages on their way out, answers on their way in.
struct Exchange<'a, W: Write> {
    conn: &'a Connection,
    unsent: &'a [u8],
    messages: Messages<Reader<'a>>,
    came: u64,
    wait: Wait,
    /// Bytes that were to be sent, and those that came.
    wire: u64,
    received: u64,
    /// The server has ended its side.
    ended: bool,
    output: BufWriter<W>,
}

impl<W: Write> Exchange<'_, W> {
    fn is_done(&self) -> bool {
        self.unsent.is_empty() && self.came >= self.wait.messages
    }

    fn ran_out(&self) -> Failure {
        let Wait { messages, timeout } = self.wait;
        if self.came == messages {
            return self.conn.unread(self.unsent);
        }
        let timeout = humantime::format_duration(timeout.unwrap_or_default());
        Failure::Told(format!(
            "{} of {messages} messages came within {timeout}",
            self.came
        ))
    }

    /// Does what the socket is ready for; false once time is up.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<bool, Failure> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, !self.ended);
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        let ready = until_ready(&self.conn.transport, wanted, deadline)
            .map_err(|source| Failure::System("waiting for the server", source))?;
        if ready.is_empty() {
            return Ok(false);
        }
        // Receives first: where the server has closed, a failing write must not hide what it said before.
        if !self.ended {
            self.receive()?;
        }
        if !self.unsent.is_empty() {
            self.send()?;
        }
        Ok(true)
    }

    fn send(&mut self) -> Result<(), Failure> {
        match (&self.conn.transport).write(self.unsent) {
            Ok(n) => self.unsent = &self.unsent[n..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(self.conn.broke(error)),
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Failure> {
        if self.came >= self.wait.messages {
            return self.discard();
        }
        let framing = self.conn.framing;
        match self.messages.receive() {
            Ok(bytes) => {
                self.received += bytes as u64;
                self.ended = bytes == 0;
            }
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(self.conn.broke(error)),
        }
        let unprinted = |source| Failure::Standard("output", source);
        while self.came < self.wait.messages {
            let wire = if self.ended {
                self.messages.last()
            } else {
                self.messages.at_hand()
            };
            let Some(wire) = wire.map_err(|broken| self.conn.garbled(broken))? else {
                break;
            };
            self.output
                .write_all(framing.body(wire))
                .and_then(|()| self.output.write_all(b"\n"))
                .map_err(unprinted)?;
            self.came += 1;
        }
        self.output.flush().map_err(unprinted)
    }

    /// Reads and discards what comes beyond the messages that are waited for.
    fn discard(&mut self) -> Result<(), Failure> {
        match self.messages.discard() {
            Ok(bytes) => {
                self.received += bytes as u64;
                self.ended = bytes == 0;
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(self.conn.broke(error)),
        }
    }

    /// Waits until the server has read everything, half-closes and reads to the end: closing with input unread
    /// would reset the connection, and the server could lose what it has not read. A relay keeps its receivers
    /// and a server that no file knows may take its time, so udsc does not wait for their end. Datagrams that
    /// the kernel has taken stay with the server.
    fn leave(mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        let conn = self.conn;
        if !conn.transport.has_end() {
            return Ok(());
        }
        let mut delivery = until_read(conn, deadline, |until| self.wait(until))?;
        let sign = Instant::now() + SIGN;
        // A server that has answered may end: it has refused nothing.
        while delivery == Delivery::Read
            && conn.is_silent()
            && !(conn.ends_after_us() && self.received > 0)
            && Instant::now() < sign
        {
            if is_end(self.wait(sign)?) {
                delivery = Delivery::Ended;
            }
        }
        match delivery {
            Delivery::Read => {}
            Delivery::Ended => return conn.ended(self.received > 0),
            Delivery::Unread => return Err(conn.late()),
        }
        // A server that has gone needs no telling.
        let _ = conn.transport.shutdown(Shutdown::Write);
        if !conn.ends_after_us() {
            return Ok(());
        }
        let known = conn.service.is_some();
        let latest = match deadline {
            Some(deadline) => Some(deadline),
            None => (!known).then(|| Instant::now() + LINGER),
        };
        while !self.ended {
            let ready = self.wait_for(PollFlags::IN, latest)?;
            if ready.is_empty() {
                return if known { Err(conn.late()) } else { Ok(()) };
            }
        }
        conn.check_echo(self.received, self.wire, "bytes")
    }

    /// Waits for the connection up to `until`, and discards what comes.
    fn wait(&mut self, until: Instant) -> Result<PollFlags, Failure> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, !self.ended);
        self.wait_for(wanted, Some(until))
    }

    fn wait_for(
        &mut self,
        wanted: PollFlags,
        until: Option<Instant>,
    ) -> Result<PollFlags, Failure> {
        let ready = until_ready(&self.conn.transport, wanted, until)
            .map_err(|source| Failure::System("waiting for the server", source))?;
        if !ready.is_empty() && !self.ended {
            self.discard()?;
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{
        io::{self, Read},
        os::unix::net::UnixStream,
        thread,
    };

    use super::*;
    use crate::{config::ServiceKind, frame::Framing};

    fn wait(messages: u64, timeout: Option<Duration>) -> Wait {
        Wait { messages, timeout }
    }

    fn sent(conn: &Connection, message: &str, wait: Wait) -> (Result<(), Failure>, String) {
        let mut printed = Vec::new();
        let wire = wire(&[message.into()], conn).unwrap();
        let result = exchange(conn, &wire, wait, &mut printed);
        (result, String::from_utf8(printed).unwrap())
    }

    /// Sends back what comes, until the end.
    fn echo(mut server: UnixStream) -> thread::JoinHandle<u64> {
        let mut out = server.try_clone().unwrap();
        thread::spawn(move || {
            let n = io::copy(&mut server, &mut out).unwrap();
            out.shutdown(Shutdown::Both).unwrap();
            n
        })
    }

    #[test]
    fn a_large_message_is_sent_while_its_echo_is_received() {
        let (conn, server) = Connection::pair(Framing::LengthPrefixed);
        let server = echo(server);
        let message = "x".repeat(8 << 20);
        let (result, printed) = sent(&conn, &message, wait(1, None));
        result.unwrap();
        assert_eq!(printed.len(), message.len() + 1);
        assert_eq!(server.join().unwrap(), (8 << 20) + 4);
    }

    #[test]
    fn what_nobody_waits_for_is_read_away_so_that_the_server_is_not_reset() {
        let (conn, server) = Connection::pair(Framing::Lines);
        let server = echo(server);
        let (result, printed) = sent(&conn, &"x".repeat(4 << 20), wait(0, None));
        result.unwrap();
        assert_eq!(printed, "");
        assert_eq!(server.join().unwrap(), (4 << 20) + 1);
    }

    #[test]
    fn a_timeout_says_how_many_came() {
        let (conn, mut server) = Connection::pair(Framing::Nul);
        server.write_all(b"one\0two").unwrap();
        let (result, printed) = sent(&conn, "x", wait(2, Some(Duration::from_millis(20))));
        assert_eq!(printed, "one\n");
        assert_eq!(
            result.unwrap_err().to_string(),
            "1 of 2 messages came within 20ms"
        );
    }

    #[test]
    fn a_timeout_bounds_a_server_that_does_not_read() {
        let (conn, _server) = Connection::pair(Framing::Lines);
        let timeout = Some(Duration::from_millis(20));
        let (result, _) = sent(&conn, &"x".repeat(4 << 20), wait(0, timeout));
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("/x: time ran out with "), "{text}");
    }

    #[test]
    fn a_server_that_closes_too_early_is_told() {
        let (conn, mut server) = Connection::pair(Framing::Lines);
        server.write_all(b"one\ntwo").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let (result, printed) = sent(&conn, "x", wait(3, None));
        assert_eq!(printed, "one\ntwo\n");
        assert_eq!(
            result.unwrap_err().to_string(),
            "the server closed after 2 of 3 messages"
        );
    }

    #[test]
    fn a_relay_is_not_waited_for() {
        let (mut conn, mut server) = Connection::pair(Framing::Lines);
        conn.service = Some(ServiceKind::Relay);
        let reading = thread::spawn(move || {
            let mut all = String::new();
            server.read_to_string(&mut all).unwrap();
            all
        });
        let (result, _) = sent(&conn, "x", wait(0, None));
        result.unwrap();
        drop(conn);
        assert_eq!(reading.join().unwrap(), "x\n");
    }

    #[test]
    fn a_message_without_a_form_is_named() {
        let (conn, _server) = Connection::pair(Framing::Lines);
        let failure = wire(&["ab".into(), "a\nb".into()], &conn).unwrap_err();
        assert!(failure.to_string().starts_with("message 2 cannot be sent"));
    }
}
