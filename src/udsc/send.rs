//! `udsc send`: each argument one message, then the answers that are waited for. One loop sends and
//! receives as the socket is ready, so that neither waits for the other and a timeout bounds both.

use std::{
    ffi::OsString,
    io::Write,
    net::Shutdown,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use clap::Args;
use rustix::event::PollFlags;

use super::{
    LINGER,
    connection::Connection,
    delivery::settle,
    failure::Failure,
    poll::until_ready,
    stdio::{Form, Incoming, standard_output},
};

// The arguments of `udsc send`. A doc comment here would show in its help.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// The messages; on a stream under framing none the bytes as they are
    #[arg(required = true, value_name = "MESSAGE")]
    messages: Vec<OsString>,
    /// Wait for N messages and print each on a line (of a stream under framing none: N reads)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) wait: u64,
    /// Fail once it took longer than T to send and to get the answers
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Each message that comes as one object a line
    #[arg(long)]
    json: bool,
}

/// Sends the messages, prints what is waited for, and leaves without a reset.
pub(crate) fn run(conn: &Connection, plan: &Plan) -> Result<(), Failure> {
    exchange(conn, plan, standard_output()?)
}

fn exchange(conn: &Connection, plan: &Plan, output: impl Write) -> Result<(), Failure> {
    let mut wire = Vec::new();
    for (i, message) in plan.messages.iter().enumerate() {
        let place = || format!("message {}", i + 1);
        conn.put(message.as_bytes(), &mut wire, place)?;
    }
    conn.never_wait()?;
    let deadline = plan
        .timeout
        .and_then(|span| Instant::now().checked_add(span));
    let mut exchange = Exchange {
        conn,
        unsent: &wire,
        wanted: plan.wait,
        incoming: Incoming::new(conn, output),
    };
    exchange.incoming.form = match plan.json {
        true => Form::Json,
        false => Form::Lines,
    };
    while !exchange.unsent.is_empty() || exchange.lacks_answers() {
        if exchange.lacks_answers() && exchange.incoming.has_ended() {
            return Err(Failure::closed(exchange.incoming.printed, plan.wait));
        }
        if exchange.turn(deadline)?.is_empty() {
            return Err(exchange.ran_out(plan));
        }
    }
    // Datagrams that the kernel has taken stay with the server.
    if conn.has_end() {
        exchange.leave(deadline)?;
        conn.check_echo(exchange.incoming.received, wire.len() as u64, "bytes")?;
    }
    Ok(())
}

/// Messages on their way out, answers on their way in.
struct Exchange<'a, W: Write> {
    conn: &'a Connection,
    unsent: &'a [u8],
    /// Messages that are waited for.
    wanted: u64,
    incoming: Incoming<'a, W>,
}

impl<W: Write> Exchange<'_, W> {
    fn lacks_answers(&self) -> bool {
        self.incoming.printed < self.wanted
    }

    fn ran_out(&self, plan: &Plan) -> Failure {
        if !self.lacks_answers() {
            return self.conn.unread(self.unsent);
        }
        let timeout = humantime::format_duration(plan.timeout.unwrap_or_default());
        Failure::Told(format!(
            "{} of {} messages came within {timeout}",
            self.incoming.printed, self.wanted
        ))
    }

    /// Waits for the connection up to `until`, and does what it is ready for.
    fn turn(&mut self, until: Option<Instant>) -> Result<PollFlags, Failure> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, !self.incoming.has_ended());
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        let ready = until_ready(&self.conn.socket, wanted, until)?;
        if !ready.is_empty() {
            // Receives first: where the server has closed, a failing write must not hide what it said before.
            if !self.incoming.has_ended() {
                self.incoming.receive(self.wanted)?;
            }
            self.conn.send(&mut self.unsent)?;
        }
        Ok(ready)
    }

    /// Waits until the server has read everything, half-closes and reads to the end: closing with input unread
    /// would reset the connection, and the server could lose what it has not read. A relay keeps its receivers
    /// and a server that no file knows may take its time, so udsc does not wait for their end.
    fn leave(&mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        let conn = self.conn;
        if !settle(conn, deadline, |until| self.turn(Some(until)))? {
            return conn.ended();
        }
        // A server that has gone needs no telling.
        let _ = conn.socket.shutdown(Shutdown::Write);
        if !conn.ends_after_us() {
            return Ok(());
        }
        let is_known = conn.service.is_some();
        let latest = match deadline {
            None if !is_known => Some(Instant::now() + LINGER),
            deadline => deadline,
        };
        while !self.incoming.has_ended() {
            if self.turn(latest)?.is_empty() {
                return if is_known { Err(conn.late()) } else { Ok(()) };
            }
        }
        Ok(())
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

    /// Sends `message` and waits for so many.
    fn sent(
        conn: &Connection,
        message: &str,
        wait: u64,
        timeout: Option<Duration>,
    ) -> (Result<(), Failure>, String) {
        let plan = Plan {
            messages: vec![message.into()],
            wait,
            timeout,
            json: false,
        };
        let mut printed = Vec::new();
        let result = exchange(conn, &plan, &mut printed);
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
        let (result, printed) = sent(&conn, &message, 1, None);
        result.unwrap();
        assert_eq!(printed.len(), message.len() + 1);
        assert_eq!(server.join().unwrap(), (8 << 20) + 4);
    }

    #[test]
    fn what_nobody_waits_for_is_read_away_so_that_the_server_is_not_reset() {
        let (conn, server) = Connection::pair(Framing::Lines);
        let server = echo(server);
        let (result, printed) = sent(&conn, &"x".repeat(4 << 20), 0, None);
        result.unwrap();
        assert_eq!(printed, "");
        assert_eq!(server.join().unwrap(), (4 << 20) + 1);
    }

    #[test]
    fn a_timeout_says_how_many_came() {
        let (conn, mut server) = Connection::pair(Framing::Nul);
        server.write_all(b"one\0two").unwrap();
        let (result, printed) = sent(&conn, "x", 2, Some(Duration::from_millis(20)));
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
        let (result, _) = sent(&conn, &"x".repeat(4 << 20), 0, timeout);
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("/x: time ran out with "), "{text}");
    }

    #[test]
    fn a_server_that_closes_too_early_is_told() {
        let (conn, mut server) = Connection::pair(Framing::Lines);
        server.write_all(b"one\ntwo").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let (result, printed) = sent(&conn, "x", 3, None);
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
        let (result, _) = sent(&conn, "x", 0, None);
        result.unwrap();
        drop(conn);
        assert_eq!(reading.join().unwrap(), "x\n");
    }

    #[test]
    fn a_message_without_a_form_is_named() {
        let (conn, _server) = Connection::pair(Framing::Lines);
        let plan = Plan {
            messages: vec!["ab".into(), "a\nb".into()],
            wait: 0,
            timeout: None,
            json: false,
        };
        let failure = exchange(&conn, &plan, Vec::new()).unwrap_err();
        assert!(failure.to_string().starts_with("message 2 cannot be sent"));
    }
}
