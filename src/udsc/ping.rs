//! `udsc ping`: round trips over an echo socket, one at a time. Each message is its own number, so
//! that a late or a wrong echo is told as such; Ctrl-C ends with the summary.

use std::{
    io::Write,
    net::Shutdown,
    os::unix::net::UnixStream,
    slice::EscapeAscii,
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use rustix::event::{PollFd, PollFlags};
use serde::{Serialize, Serializer};

use super::{
    connection::Connection,
    failure::Failure,
    message_size,
    messages::Messages,
    packets::Reader,
    poll::{interrupts, until_any},
    statistics::{Latency, Statistics, millis, nanos},
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
    /// Bytes of each message, as 4KiB [default: 64, or what the framing fixes]
    #[arg(long, value_name = "BYTES", value_parser = message_size)]
    size: Option<usize>,
    /// Print each line as a JSON object, times in nanoseconds
    #[arg(long)]
    json: bool,
}

/// Pings, prints each answer and the summary.
pub(crate) fn run(conn: Connection, plan: &Plan) -> Result<(), Failure> {
    ping(conn, plan, &interrupts()?, standard_output()?)
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
        plan,
        stop,
        messages: conn.messages(),
        output,
        statistics: Statistics::new()
            .map_err(|source| Failure::System("making the histogram", source))?,
    };
    let outcome = ping.rounds();
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
    plan: &'a Plan,
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
    fn rounds(&mut self) -> Result<(), Failure> {
        let mut next = Instant::now();
        for seq in 1..=self.plan.count.unwrap_or(u64::MAX) {
            if self.stops_before(next)? {
                break;
            }
            next = Instant::now() + self.plan.interval;
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
            match self.answer(&mut unsent, start + self.plan.timeout)? {
                Event::Stop => return Ok(false),
                // The next ping cannot be sent in the middle of this one.
                Event::Timeout if !unsent.is_empty() => return Err(self.conn.unread(unsent)),
                Event::Timeout => {
                    self.tell(seq, Became::Lost)?;
                    return Ok(true);
                }
                Event::Answer(echo) if echo == message => {
                    let time = start.elapsed();
                    self.statistics.arrived(time);
                    let latency_ns = nanos(time);
                    self.tell(seq, Became::Answered { latency_ns })?;
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

    /// An answer to another ping than `seq`: to an earlier one that counts as lost, or to none.
    fn stray(&mut self, seq: u64, echo: &[u8]) -> Result<(), Failure> {
        match number(echo).filter(|n| (1..seq).contains(n)) {
            Some(earlier) => self.tell(earlier, Became::Late),
            None => {
                self.statistics.wrong += 1;
                self.tell(seq, Became::Wrong { answer: echo })
            }
        }
    }

    /// Says what became of ping `seq`.
    fn tell(&mut self, seq: u64, became: Became<'_>) -> Result<(), Failure> {
        let line = if self.plan.json {
            json(&Line { seq, became })?
        } else {
            became.text(seq, &self.conn.name, self.size)
        };
        self.say(&line)
    }

    fn summary(&mut self) -> Result<(), Failure> {
        let (name, statistics) = (&self.conn.name, &self.statistics);
        let text = if self.plan.json {
            json(&Summary {
                socket: name,
                sent: statistics.sent,
                received: statistics.received(),
                lost: statistics.lost(),
                wrong: statistics.wrong,
                latency_ns: statistics.latency(),
            })?
        } else {
            format!("\n--- {name} ---\n{statistics}")
        };
        self.say(&text)
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.output
            .write_all(format!("{text}\n").as_bytes())
            .map_err(|source| Failure::Standard("output", source))
    }
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    #[serde(flatten)]
    became: Became<'a>,
}

/// The last line of JSON.
#[derive(Serialize)]
struct Summary<'a> {
    socket: &'a str,
    sent: u64,
    received: u64,
    lost: u64,
    wrong: u64,
    latency_ns: Option<Latency>,
}

fn json(line: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(line);
    json.map_err(|error| Failure::Standard("output", error.into()))
}

/// What became of a ping.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "became", rename_all = "lowercase")]
enum Became<'a> {
    Answered {
        latency_ns: u64,
    },
    Lost,
    /// Its answer came when it counted as lost.
    Late,
    /// While it was waited for, this came.
    Wrong {
        #[serde(serialize_with = "escaped")]
        answer: &'a [u8],
    },
}

impl Became<'_> {
    fn text(self, seq: u64, name: &str, size: usize) -> String {
        match self {
            Became::Answered { latency_ns } => {
                let time = millis(latency_ns);
                format!("{size} bytes from {name}: seq={seq} time={time} ms")
            }
            Became::Lost => format!("no answer from {name}: seq={seq}"),
            Became::Late => format!("late answer from {name}: seq={seq}"),
            Became::Wrong { answer } => format!(
                "wrong answer from {name}: seq={seq}, {} bytes: \"{}\"",
                answer.len(),
                start(answer)
            ),
        }
    }
}

fn escaped<S: Serializer>(answer: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&start(answer))
}

/// The first bytes of an answer, as they can be shown.
fn start(echo: &[u8]) -> EscapeAscii<'_> {
    echo[..echo.len().min(SIZE)].escape_ascii()
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
            json: false,
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
    fn under_json_each_line_is_an_object() {
        let answered = Became::Answered { latency_ns: 1500 };
        let wrong = Became::Wrong { answer: b"a\xff" };
        for (became, text) in [
            (answered, r#""answered","latency_ns":1500"#),
            (Became::Lost, r#""lost""#),
            (Became::Late, r#""late""#),
            (wrong, r#""wrong","answer":"a\\xff""#),
        ] {
            let line = json(&Line { seq: 2, became }).unwrap();
            assert_eq!(line, format!(r#"{{"seq":2,"became":{text}}}"#));
        }
    }

    #[test]
    fn stopping_prints_the_summary() {
        let (conn, _server) = Connection::pair(Framing::None);
        let plan = Plan {
            count: None,
            interval: LONG,
            timeout: LONG,
            size: None,
            json: false,
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
