//! A client that makes a round trip each millisecond, on a thread of its own.

use crate::setup::Outcome;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(1);
/// Round trips before the restart.
const BEFORE: usize = 20;
/// No answer for so long is an error.
const PATIENCE: Duration = Duration::from_secs(20);
const MESSAGE: &[u8] = b"ping\n";

pub(super) struct Ping(UnixStream);

/// One that is at it.
pub(super) struct Pinging {
    trips: Receiver<(Instant, Instant)>,
    thread: JoinHandle<io::Result<()>>,
    longest: Duration,
}

/// What it saw of a restart.
pub(super) struct Trips {
    /// When the new process first answered.
    pub(super) first_answer: Instant,
    /// The longest round trip before that, and that one.
    pub(super) longest: Duration,
}

impl Ping {
    pub(super) fn connect(path: &Path) -> Outcome<Ping> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Ping(stream))
    }

    /// Begins, and waits for the first answers.
    pub(super) fn start(&self) -> Outcome<Pinging> {
        let mut stream = self.0.try_clone()?;
        let (sender, trips) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut answer = [0; MESSAGE.len()];
            loop {
                let sent = Instant::now();
                stream.write_all(MESSAGE)?;
                stream.read_exact(&mut answer)?;
                if answer != MESSAGE {
                    return Err(io::Error::other("an answer is another than it should be"));
                }
                if sender.send((sent, Instant::now())).is_err() {
                    return Ok(());
                }
                thread::sleep(PAUSE);
            }
        });
        let mut pinging = Pinging {
            trips,
            thread,
            longest: Duration::ZERO,
        };
        for _ in 0..BEFORE {
            if pinging.next().is_none() {
                pinging.end()?;
                return Err("the ping has ended".into());
            }
        }
        pinging.longest = Duration::ZERO;
        Ok(pinging)
    }
}

impl Pinging {
    /// Goes on until the process that began at `exec` has answered.
    pub(super) fn finish(mut self, exec: Instant) -> Outcome<Trips> {
        while let Some(received) = self.next() {
            if received >= exec {
                let longest = self.longest;
                self.end()?;
                return Ok(Trips {
                    first_answer: received,
                    longest,
                });
            }
        }
        self.end()?;
        Err("the ping has ended".into())
    }

    /// When the next answer came.
    fn next(&mut self) -> Option<Instant> {
        let (sent, received) = self.trips.recv().ok()?;
        self.longest = self.longest.max(received - sent);
        Some(received)
    }

    fn end(self) -> Outcome<()> {
        drop(self.trips);
        self.thread.join().map_err(|_| "the ping panicked")??;
        Ok(())
    }
}
