//! `udsc bench`: how much a socket carries and how long a message takes, with every byte checked. What the server
//! does decides who receives: an echo's clients their own messages, a relay's all but the one that sends, nobody
//! where messages are collected.

mod content;
mod histogram;
mod load;
mod progress;
mod report;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
    value_parser,
};
use rustix::event::PollFlags;

use super::{
    Options,
    connection::Connection,
    failure::Failure,
    message_size,
    poll::{interrupts, until_ready},
    stdio::standard_output,
    target::{self, Target},
    terminal,
};
use crate::{
    config::{ServiceKind, SocketType},
    frame::Framing,
    sys,
};
use content::{Content, LEAST};
use load::{Load, Task};
use progress::Progress;
use report::Report;

/// Bytes of a message where neither `--size` nor the framing says otherwise.
const SIZE: usize = 64;

/// How long an echo has for the message that shows that it is one.
const PROBE: Duration = Duration::from_secs(1);

/// Who sends that message; no client has the number.
const PROBER: usize = 0xf_ffff;

/// When a message is lost: a connection loses none, so only a server that hangs has that.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WITH_DATAGRAMS: Duration = Duration::from_secs(1);

// The arguments of `udsc bench`. A doc comment here would show in its help.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// Connections at once; on a relay one of them sends and the others receive
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Bytes of each message, as 4KiB, at least 16 [default: 64, or what the framing fixes]
    #[arg(long, value_name = "BYTES", value_parser = message_size)]
    size: Option<usize>,
    /// Messages that each sender has under way at most; of collect: messages in one write
    #[arg(short = 'P', long, value_name = "N", default_value = "1", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pipeline: u32,
    /// How long to send; Ctrl-C ends earlier
    #[arg(short, long, value_name = "SPAN", default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// echo, relay or collect, instead of what udsd.toml says; of a path that no file has, one message
    /// is sent to see whether it is an echo
    #[arg(long, value_name = "SERVICE", value_parser = service())]
    service: Option<ServiceKind>,
    /// When a message that did not come is lost [default: 5s, of datagrams 1s]
    #[arg(short = 'W', long, value_name = "SPAN", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print one JSON object, times in nanoseconds
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    // A century is beyond what a clock can add.
    let day = Duration::from_secs(24 * 60 * 60);
    match span.is_zero() || span > day {
        true => Err("write a span of more than 0 and at most a day".into()),
        false => Ok(span),
    }
}

fn service() -> impl TypedValueParser<Value = ServiceKind> {
    PossibleValuesParser::new(ServiceKind::WORDS).try_map(|word| word.parse::<ServiceKind>())
}

/// Connects, measures, and prints what was found.
pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    let (target, mut first) = target::find(options, None)?;
    let framing = first.framing;
    let size = plan.size(framing)?;
    prepare(&mut first, size)?;
    let mut content = Content::new(first.framing, size);
    content.check(&first)?;
    let service = match plan.service.or(first.service) {
        Some(service) => service,
        None => probe(&first, &mut content)?,
    };
    plan.check(&target, service)?;
    let patience = match first.kind {
        SocketType::Datagram => PATIENCE_WITH_DATAGRAMS,
        _ => PATIENCE,
    };
    let task = Task {
        service,
        pipeline: plan.pipeline as usize,
        duration: plan.duration,
        timeout: plan.timeout.unwrap_or(patience),
    };
    let mut conns = vec![first];
    plan.connect(&target, size, &mut conns)?;
    for conn in &mut conns {
        conn.service = Some(service);
        content.check(conn)?;
    }
    let stop = interrupts()?;
    let mut load = Load::new(&conns, task, content)?;
    let progress = Progress::new(plan.duration);
    let outcome = load.run(&stop, |elapsed, received| progress.show(elapsed, received));
    drop(progress);
    // Where nothing could be sent there is nothing to sum up.
    if load.messages() == 0 {
        return outcome;
    }
    let mut report = Report::new(&conns, task, framing, size, &load);
    let outcome = outcome.and_then(|()| report.verdict());
    report.error = outcome.as_ref().err().map(ToString::to_string);
    plan.print(&report)?;
    outcome
}

impl Plan {
    /// Bytes of a message.
    fn size(&self, framing: Framing) -> Result<usize, Failure> {
        let size = match (framing, self.size) {
            (Framing::Fixed(n), Some(size)) if size != n => {
                return Err(Failure::Usage(format!(
                    "--size {size} contradicts framing {framing}: leave it out"
                )));
            }
            (Framing::Fixed(n), _) => n,
            (Framing::CString(n), None) => n.min(SIZE),
            (_, size) => size.unwrap_or(SIZE),
        };
        if size < LEAST {
            let text = format!(
                "a message of {size} bytes is too short to be checked: it holds its sender and number, {LEAST} bytes"
            );
            return Err(match self.size {
                Some(_) => Failure::Usage(text),
                None => Failure::Told(text),
            });
        }
        Ok(size)
    }

    /// Fails where there would be nothing to measure.
    fn check(&self, target: &Target, service: ServiceKind) -> Result<(), Failure> {
        let is_relay = service == ServiceKind::Relay;
        match target.listed() {
            Some(socket) if is_relay && socket.stamp => Err(Failure::Told(format!(
                "socket {} has stamp = true and delivers records, not the bytes that were sent: bench one without",
                socket.name
            ))),
            _ if is_relay && self.clients < 2 => Err(Failure::Usage(
                "--clients 1: on a relay one client sends and the others receive: 2 or more".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Connects the clients that are missing in `conns`.
    fn connect(
        &self,
        target: &Target,
        size: usize,
        conns: &mut Vec<Connection>,
    ) -> Result<(), Failure> {
        // Where it cannot be raised, it may be enough all the same.
        let _ = sys::raise_open_files();
        while conns.len() < self.clients as usize {
            let mut conn = target.connect().map_err(|why| {
                let (number, all) = (conns.len() + 1, self.clients);
                Failure::Told(format!("client {number} of {all}: {why}"))
            })?;
            prepare(&mut conn, size)?;
            conns.push(conn);
        }
        Ok(())
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        let unprinted = |source| Failure::Standard("output", source);
        let text = if self.json {
            let object = serde_json::to_string(report);
            object.map_err(|error| unprinted(error.into()))? + "\n"
        } else {
            report.text(terminal::columns(), terminal::has_colour())
        };
        let mut output = standard_output()?;
        output.write_all(text.as_bytes()).map_err(unprinted)
    }
}

/// Makes a connection ready for messages of `size` bytes.
fn prepare(conn: &mut Connection, size: usize) -> Result<(), Failure> {
    // Bytes have no ends under `none`; as many as were sent are the answer.
    if conn.framing == Framing::None {
        conn.framing = Framing::Fixed(size);
    }
    conn.never_wait()
}

/// Whether it is an echo, seen by one message that comes back. What else it is, nobody can see.
fn probe(conn: &Connection, content: &mut Content) -> Result<ServiceKind, Failure> {
    let mut wire = Vec::new();
    content.put(PROBER, 0, &mut wire);
    let mut unsent = &wire[..];
    let mut messages = conn.messages();
    let deadline = Instant::now() + PROBE;
    loop {
        if let Some(wire) = messages.at_hand().map_err(|why| conn.failure(why))? {
            return match content.is(wire, PROBER, 0) {
                true => Ok(ServiceKind::Echo),
                false => Err(conn.failure(
                    "something else came than the message that was sent, so it is no echo; if it is a relay, say --service relay",
                )),
            };
        }
        if messages.has_ended() {
            return Err(conn.failure("the server closed the connection"));
        }
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !unsent.is_empty());
        if until_ready(&conn.socket, wanted, Some(deadline))?.is_empty() {
            let span = humantime::format_duration(PROBE);
            return Err(conn.failure(format!(
                "no udsd.toml says what it does, and a message did not come back within {span}, so it is no echo: say --service relay or --service collect"
            )));
        }
        conn.send(&mut unsent)?;
        conn.receive(&mut messages)?;
    }
}
