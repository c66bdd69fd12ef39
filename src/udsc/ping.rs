//! `udsc ping`: round trips over an echo socket, one at a time. Each message is its own number, so
//! that a late or a wrong echo is told as such; Ctrl-C ends with the summary.

use std::{
    io::Write,
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use rustix::event::{PollFd, PollFlags};
use signal_hook::{consts::SIGINT, low_level::pipe};

use super::{
    MESSAGE_LIMIT,
    connection::Connection,
    failure::Failure,
    messages::Messages,
    packets::Reader,
    poll::until_any,
    statistics::{Statistics, millis},
    stdio::standard_output,
};
use crate::frame::Framing;

/// Bytes of a message where neither `--size` nor the framing says otherwise.
const SIZE: usize = 64;

// The arguments of `udsc ping`. A doc comment here would show in its help.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// End after N; without it, Ctrl-C ends and prints the summary
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// From one to the next
    #[arg(short, long, value_name = "T", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// How long an answer may take before it counts as lost
    #[arg(short = 'W', long, value_name = "T", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Bytes of each message [default: 64, or what the framing fixes]
    #[arg(long, value_name = "N", value_parser = size)]
    size: Option<usize>,
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok();
    size.filter(|n| (1..=MESSAGE_LIMIT).contains(n))
        .ok_or_else(|| format!("a number of bytes from 1 to {MESSAGE_LIMIT}"))
}

/// Pings, prints each answer and the summary.
pub(crate) fn run(conn: Connection, plan: &Plan) -> Result<(), Failure> {
    let system = |source| Failure::System("catching SIGINT", source);
    let (stop, signal) = UnixStream::pair().map_err(system)?;
    pipe::register(SIGINT, signal).map_err(system)?;
    ping(conn, plan, &stop, standard_output()?)
}

/// As `run`, until `stop` is readable.
fn ping(
    mut conn: Connection,
    plan: &Plan,
    stop: &UnixStream,
    output: impl Write,
) -> Result<(), Failure> {
    let size = match conn.framing {
        Framing::Fixed(n) => n,
        Framing::CString(n) => plan.size.unwrap_or(n.min(SIZE)),
        _ => plan.size.unwrap_or(SIZE),
    };
    // Bytes have no ends under `none`; as many as were sent are the answer.
    if conn.framing == Framing::None {
        conn.framing = Framing::Fixed(size);
    }
    conn.never_wait()?;
    let conn = &conn;
    let mut ping = Ping {
        conn,
        size,
        timeout: plan.timeout,
        stop,
        messages: conn.messages(),
        output,
        statistics: Statistics::new()
            .map_err(|source| Failure::System("making the histogram", source))?,
    };
    let outcome = ping.rounds(plan.count, plan.interval);
    let _ = conn.socket.shutdown(Shutdown::Both);
    // Of a ping that cannot be sent there is nothing to sum up.
    if outcome.is_ok() || ping.statistics.sent > 0 {
        ping.summary()?;
    }
    outcome?;
    if ping.statistics.are_complete() {
        Ok(())
    } else {
        Err(Failure::Told("not every ping came back".into()))
    }
}

struct Ping<'a, W: Write> {
    conn: &'a Connection,
    size: usize,
    timeout: Duration,
    stop: &'a UnixStream,
    messages: Messages<Reader<'a>>,
    output: W,
    statistics: Statistics,
}

/// What a wait ended with.
enum Event {
    Answer(Vec<u8>),
    Timeout,
    Stop,
}

impl<W: Write> Ping<'_, W> {
    fn rounds(&mut self, count: Option<u64>, interval: Duration) -> Result<(), Failure> {
        let mut next = Instant::now();
        for seq in 1..=count.unwrap_or(u64::MAX) {
            if self.stops_before(next)? {
                break;
            }
            next = Instant::now() + interval;
            if !self.round(seq)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the next round; true where SIGINT came first.
    fn stops_before(&self, next: Instant) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(self.stop, PollFlags::IN)];
        until_any(&mut fds, Some(next))
    }

    /// One message there and back; false where SIGINT came in between.
    fn round(&mut self, seq: u64) -> Result<bool, Failure> {
        let message = body(seq, self.size);
        let mut wire = Vec::new();
        let place = || format!("a ping of {} bytes", self.size);
        self.conn.put(&message, &mut wire, place)?;
        let start = Instant::now();
        self.statistics.sent += 1;
        let mut unsent = &wire[..];
        loop {
            match self.answer(&mut unsent, start + self.timeout)? {
                Event::Stop => return Ok(false),
                // The next ping cannot be sent in the middle of this one.
                Event::Timeout if !unsent.is_empty() => return Err(self.conn.unread(unsent)),
                Event::Timeout => {
                    self.say(&format!("no answer from {}: seq={seq}", self.conn.name))?;
                    return Ok(true);
                }
                Event::Answer(echo) if echo == message => {
                    self.arrived(seq, start.elapsed())?;
                    return Ok(true);
                }
                Event::Answer(echo) => self.stray(seq, &echo)?,
            }
        }
    }

    /// Waits for the next answer, and sends meanwhile what is unsent: the answer to a long message may
    /// have to be read before its end can be sent.
    fn answer(&mut self, unsent: &mut &[u8], deadline: Instant) -> Result<Event, Failure> {
        loop {
            let wire = self.messages.at_hand();
            if let Some(wire) = wire.map_err(|why| self.conn.failure(why))? {
                return Ok(Event::Answer(self.conn.framing.body(wire).to_vec()));
            }
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !unsent.is_empty());
            let mut fds = [
                PollFd::new(&self.conn.socket, wanted),
                PollFd::new(self.stop, PollFlags::IN),
            ];
            if !until_any(&mut fds, Some(deadline))? {
                return Ok(Event::Timeout);
            }
            if !fds[1].revents().is_empty() {
                return Ok(Event::Stop);
            }
            self.conn.send(unsent)?;
            self.conn.receive(&mut self.messages)?;
            if self.messages.has_ended() {
                return Err(self.conn.failure("the server closed the connection"));
            }
        }
    }

    fn arrived(&mut self, seq: u64, time: Duration) -> Result<(), Failure> {
        self.statistics.arrived(time);
        self.say(&format!(
            "{} bytes from {}: seq={seq} time={} ms",
            self.size,
            self.conn.name,
            millis(time)
        ))
    }

    /// An answer to another ping than `seq`: to an earlier one that counts as lost, or to none.
    fn stray(&mut self, seq: u64, echo: &[u8]) -> Result<(), Failure> {
        let name = &self.conn.name;
        let text = match number(echo).filter(|n| (1..seq).contains(n)) {
            Some(earlier) => format!("late answer from {name}: seq={earlier}"),
            None => {
                self.statistics.wrong += 1;
                let start = &echo[..echo.len().min(SIZE)];
                format!(
                    "wrong answer from {name}: seq={seq}, {} bytes: \"{}\"",
                    echo.len(),
                    start.escape_ascii()
                )
            }
        };
        self.say(&text)
    }

    fn summary(&mut self) -> Result<(), Failure> {
        self.say(&format!(
            "\n--- {} ---\n{}",
            self.conn.name, self.statistics
        ))
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.output
            .write_all(format!("{text}\n").as_bytes())
            .map_err(|source| Failure::Standard("output", source))
    }
}

/// The message of a number: its digits, zeros before them. They fit every framing, and are no octet
/// count.
fn body(seq: u64, size: usize) -> Vec<u8> {
    let digits = format!("{seq:0>20}").into_bytes();
    let mut body = vec![b'0'; size.saturating_sub(digits.len())];
    body.extend_from_slice(&digits[digits.len().saturating_sub(size)..]);
    body
}

fn number(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{io::Read, thread};

    use super::*;

    /// Pings a server that answers the n-th ping with `answers[n - 1]`, then hangs up.
    fn scripted(answers: &[&str], size: usize, timeout: Duration) -> (Result<(), Failure>, String) {
        let (conn, mut server) = Connection::pair(Framing::Lines);
        let plan = Plan {
            count: Some(answers.len() as u64),
            interval: Duration::ZERO,
            timeout,
            size: Some(size),
        };
        let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
        let server = thread::spawn(move || {
            let mut ping = vec![0; size + 1];
            for answer in answers {
                server.read_exact(&mut ping).unwrap();
                server.write_all(answer.as_bytes()).unwrap();
            }
            server.read_to_end(&mut ping).unwrap();
        });
        let (stop, _signal) = UnixStream::pair().unwrap();
        let mut printed = Vec::new();
        let result = ping(conn, &plan, &stop, &mut printed);
        server.join().unwrap();
        (result, String::from_utf8(printed).unwrap())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn each_answer_has_a_line_and_the_summary_counts() {
        let (result, text) = scripted(&["0001\n", "0002\n"], 4, LONG);
        result.unwrap();
        assert!(text.starts_with("4 bytes from /x: seq=1 time="), "{text}");
        assert!(text.contains("\n2 sent, 2 received, 0 lost\nmin/avg/p50/p99/max = "));
    }

    #[test]
    fn a_wrong_answer_is_told_as_such() {
        let (result, text) = scripted(&["9\n0001\n", "x\ty\n0002\n"], 4, LONG);
        result.unwrap_err();
        assert!(
            text.contains("wrong answer from /x: seq=1, 1 bytes: \"9\"\n"),
            "{text}"
        );
        assert!(text.contains("seq=2, 3 bytes: \"x\\ty\""), "{text}");
        assert!(
            text.contains("2 sent, 2 received, 0 lost, 2 wrong"),
            "{text}"
        );
    }

    #[test]
    fn a_lost_and_a_late_answer_are_told_apart() {
        let (result, text) = scripted(&["", "0001\n0002\n"], 4, Duration::from_millis(500));
        assert_eq!(result.unwrap_err().to_string(), "not every ping came back");
        assert!(text.contains("no answer from /x: seq=1\n"), "{text}");
        assert!(text.contains("late answer from /x: seq=1\n"), "{text}");
        assert!(text.contains("2 sent, 1 received, 1 lost\n"), "{text}");
    }

    #[test]
    fn stopping_prints_the_summary() {
        let (conn, _server) = Connection::pair(Framing::None);
        let plan = Plan {
            count: None,
            interval: LONG,
            timeout: LONG,
            size: None,
        };
        let (stop, mut signal) = UnixStream::pair().unwrap();
        signal.write_all(b"!").unwrap();
        let mut printed = Vec::new();
        ping(conn, &plan, &stop, &mut printed).unwrap();
        assert_eq!(printed, b"\n--- /x ---\n0 sent, 0 received, 0 lost\n");
    }

    #[test]
    fn a_body_is_its_number_in_any_size() {
        assert_eq!(body(123, 2), b"23");
        assert_eq!(body(123, 5), b"00123");
        assert_eq!(body(7, 64).len(), 64);
        assert_eq!(number(&body(7, 64)), Some(7));
    }
}
