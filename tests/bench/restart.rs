//! restart: how long clients wait while one process takes the place of another, beside a floor that
//! parks as many descriptors in one socket pair and takes them back, and knows nothing of its clients.
//!
//! The clients live in a process of their own: the new process is started from here, and a process
//! that has many descriptors open is slow at that. One client more makes round trips all the time.

mod floor;
mod ping;

use crate::Goal;
use crate::compare::{median, sorted};
use crate::idle::{Group, SPARE_FILES, all};
use crate::program::{Program, Work};
use crate::server::{Restart, Server};
use crate::setup::{Options, Outcome, open_files};
use ping::Ping;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(crate) use floor::serve;

const CLIENTS: usize = 9_000;
const TRIAL: usize = 300;
/// Each of so many clients is in the middle of a line.
const HALF: usize = 4;
/// Each of so many has not read what it was sent.
const BEHIND: usize = 100;
/// More than the 208 KiB that the kernel by default holds for a reader, less than queue-size.
const UNREAD: usize = 320;
/// Bytes of a line, its end included.
const LINE: usize = 1024;

/// What one restart took, in milliseconds.
struct Figures {
    leaving: f64,
    /// What the manager does in between.
    between: f64,
    ready: f64,
    answer: f64,
    total: f64,
    longest: f64,
}

/// What it is called, and which figure it is.
type Row = (&'static str, fn(&Figures) -> f64);

const ROWS: [Row; 6] = [
    ("signal to the end of the old process", |f| f.leaving),
    ("until the manager starts the new one", |f| f.between),
    ("exec to READY=1", |f| f.ready),
    ("READY=1 to the first answer", |f| f.answer),
    ("signal to the first answer", |f| f.total),
    ("longest round trip of a ping", |f| f.longest),
];
/// The one with a goal.
const TOTAL: usize = 4;

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    let most = if options.trial { TRIAL } else { CLIENTS };
    let clients = most.min(open_files().saturating_sub(SPARE_FILES));
    let restarts = 3 * options.pairs;
    let mut of_floor = Side::start(floor, clients)?;
    let mut of_daemon = Side::start(daemon, clients)?;
    let (mut floors, mut daemons) = (Vec::new(), Vec::new());
    for number in 0..restarts {
        let one = (&mut of_floor, &mut floors);
        let other = (&mut of_daemon, &mut daemons);
        let order = if number % 2 == 0 {
            [one, other]
        } else {
            [other, one]
        };
        for (side, figures) in order {
            figures.push(side.restart()?);
        }
    }
    of_floor.stop()?;
    of_daemon.stop()?;

    println!(
        "{restarts} restarts of each in turn, {clients} clients; of udsd's, one of {HALF} is in the middle \
         of a line, one of {BEHIND} has {UNREAD} KiB unread; milliseconds, medians and quartiles"
    );
    println!("{:>37} | {:^21} | {:^21} | ratio", "", "floor", "udsd");
    for (what, figure) in ROWS {
        let floor = cell(&floors, figure);
        let daemon = cell(&daemons, figure);
        let ratio = ratio(&floors, &daemons, figure);
        println!("{what:>37} | {floor} | {daemon} | {ratio}");
    }
    let (_, total) = ROWS[TOTAL];
    let total = median(&sorted(daemons.iter().map(total)));
    Ok(vec![Goal::new(
        format!("restart: ms from the signal to an answer, {clients} clients"),
        format!("{total:.0}"),
        "100 or less",
    )])
}

fn cell(all: &[Figures], figure: fn(&Figures) -> f64) -> String {
    let all = sorted(all.iter().map(figure));
    format!(
        "{:>6.1} ({:>5.1}–{:>5.1})",
        median(&all),
        all[all.len() / 4],
        all[all.len() * 3 / 4]
    )
}

/// Of neighbours in time.
fn ratio(floors: &[Figures], daemons: &[Figures], figure: fn(&Figures) -> f64) -> String {
    let pairs = floors.iter().zip(daemons);
    let ratio = median(&sorted(
        pairs.map(|(floor, daemon)| figure(daemon) / figure(floor)),
    ));
    // Where the floor takes no time, the ratio says nothing.
    if ratio < 50.0 {
        format!("{ratio:.2}")
    } else {
        "-".into()
    }
}

/// A server, its clients, and what starts its next process.
struct Side<'a> {
    program: &'a Program,
    server: Server,
    clients: usize,
    /// Their process.
    group: [Group; 1],
    ping: Ping,
}

impl<'a> Side<'a> {
    fn start(program: &'a Program, clients: usize) -> Outcome<Self> {
        let server = program.start_for(Work::Restart, 2 * clients)?;
        let mut group = [Group::start(
            "--restarting-clients",
            &server.socket(),
            clients,
        )?];
        all(&mut group, "greet")?;
        if !matches!(program, Program::Floor) {
            all(&mut group, "begin")?;
        }
        let ping = Ping::connect(&server.socket())?;
        Ok(Side {
            program,
            server,
            clients,
            group,
            ping,
        })
    }

    fn restart(&mut self) -> Outcome<Figures> {
        let folder = self.server.folder();
        let command = self
            .program
            .command(Work::Restart, 2 * self.clients, folder)?;
        let pinging = self.ping.start()?;
        let restart = self.server.restart(&command)?;
        let trips = pinging
            .finish(restart.exec)
            .map_err(|error| self.server.blame(&format!("is at fault: {error}")))?;
        let Restart {
            begin,
            exec,
            leaving,
            ready,
        } = restart;
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        Ok(Figures {
            leaving: ms(leaving),
            between: ms(exec - begin - leaving),
            ready: ms(ready),
            answer: ms(trips.first_answer.saturating_duration_since(exec + ready)),
            total: ms(trips.first_answer - begin),
            longest: ms(trips.longest),
        })
    }

    /// Sees that every conversation goes on where it was.
    fn stop(mut self) -> Outcome<()> {
        let last = match self.program {
            Program::Floor => "greet",
            _ => "finish",
        };
        all(&mut self.group, last)
            .map_err(|error| self.server.blame(&format!("is at fault: {error}")))?;
        drop((self.group, self.ping));
        self.server.stop()
    }
}

/// The process that holds `clients` clients.
pub(crate) fn hold(path: &Path, clients: usize) -> Outcome<()> {
    let mut streams = Vec::with_capacity(clients);
    for index in 0..clients {
        let stream = UnixStream::connect(path)
            .map_err(|error| format!("client {index}: connect: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        streams.push(stream);
    }
    let unread = vec![b'u'; LINE - 1];
    let unread = [&unread[..], b"\n"].concat().repeat(UNREAD);
    for word in io::stdin().lock().lines() {
        let word = word?;
        for (index, stream) in streams.iter_mut().enumerate() {
            let (is_half, is_behind) = (index % HALF == 0, index % BEHIND == 1);
            let greeting = format!("client {index}\n");
            match word.as_str() {
                "begin" if is_half => stream.write_all(b"half of ")?,
                "begin" if is_behind => stream.write_all(&unread)?,
                "begin" => {}
                "finish" if is_half => say(stream, b"a line\n", b"half of a line\n")?,
                "finish" if is_behind => {
                    say(stream, b"", &unread)?;
                    say(stream, greeting.as_bytes(), greeting.as_bytes())?;
                }
                "greet" | "finish" => say(stream, greeting.as_bytes(), greeting.as_bytes())?,
                word => return Err(format!("unknown word {word}").into()),
            }
        }
        println!("done");
    }
    Ok(())
}

fn say(stream: &mut UnixStream, bytes: &[u8], answer: &[u8]) -> Outcome<()> {
    stream.write_all(bytes)?;
    let mut read = vec![0; answer.len()];
    stream.read_exact(&mut read)?;
    if read == answer {
        return Ok(());
    }
    Err("an answer is another than it should be".into())
}
