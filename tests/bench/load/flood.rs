//! A flood and a ping: one client writes and reads as fast as it can, another makes round trips of
//! one small message. Each has a thread of its own: driven by one, the flood could never be faster
//! than the server, and a server that hears out one client before the next would not show.

use super::{BUFFER, Load, PATIENCE, Window};
use crate::setup::{Outcome, check_interrupted};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a ping.
const PING: usize = 64;

/// Two clients of an echo server.
pub(crate) struct Flood {
    ping: UnixStream,
    flooder: Flooder,
}

struct Flooder {
    socket: UnixStream,
    /// Bytes sent, less those received.
    under_way: usize,
}

impl Flood {
    pub(crate) fn connect(path: &Path) -> Outcome<Flood> {
        let ping = UnixStream::connect(path)?;
        ping.set_read_timeout(Some(Duration::from_secs(PATIENCE.tv_sec as u64)))?;
        let socket = UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        let flooder = Flooder {
            socket,
            under_way: 0,
        };
        Ok(Flood { ping, flooder })
    }
}

impl Load for Flood {
    /// The window's messages are those of the flood, in units of its writes; p99 is of the ping.
    fn run(&mut self, span: Duration) -> Outcome<Window> {
        let Flood { ping, flooder } = self;
        let begin = Instant::now();
        let deadline = begin + span;
        let (flooded, trips) = thread::scope(|scope| {
            // The error as text: one of any kind may not leave its thread.
            let flooding = scope.spawn(|| flooder.run(deadline).map_err(|error| error.to_string()));
            let trips = ping_until(ping, deadline);
            (flooding.join(), trips)
        });
        let received = flooded.map_err(|_| "the flood panicked")??;
        let trips = trips?;
        check_interrupted()?;
        Ok(Window {
            messages: received / BUFFER as u64,
            elapsed: begin.elapsed(),
            p99: Duration::from_nanos(trips.value_at_quantile(0.99)),
            ..Window::default()
        })
    }
}

/// Round trips, in nanoseconds.
fn ping_until(ping: &mut UnixStream, deadline: Instant) -> Outcome<Histogram<u64>> {
    let mut trips = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let message = [b'.'; PING];
    let mut answer = [0; PING];
    loop {
        let begin = Instant::now();
        ping.write_all(&message)?;
        ping.read_exact(&mut answer)?;
        let now = Instant::now();
        trips.saturating_record(now.duration_since(begin).as_nanos() as u64);
        if now >= deadline {
            return Ok(trips);
        }
    }
}

impl Flooder {
    /// Writes and reads until `deadline`, then reads the rest. Returns the bytes that came back. They
    /// are not compared: that is for the echo load, and would only slow down the flood.
    fn run(&mut self, deadline: Instant) -> Outcome<u64> {
        let bytes = vec![b'.'; BUFFER];
        let mut buffer = vec![0; BUFFER];
        let mut received = 0;
        loop {
            let goes_on = Instant::now() < deadline;
            if !goes_on && self.under_way == 0 {
                return Ok(received);
            }
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, goes_on);
            let mut descriptor = [PollFd::new(&self.socket, wanted)];
            match poll(&mut descriptor, Some(&PATIENCE)) {
                Ok(0) => return Err("the flood is not answered".into()),
                Ok(_) => {}
                Err(Errno::INTR) => check_interrupted()?,
                Err(error) => return Err(error.into()),
            }
            let ready = descriptor[0].revents();
            if ready.contains(PollFlags::OUT) {
                self.send(&bytes)?;
            }
            if ready.contains(PollFlags::IN) {
                received += self.receive(&mut buffer)?;
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => self.under_way += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Outcome<u64> {
        match net::recv(&self.socket, buffer, RecvFlags::empty()) {
            Ok((0, _)) => Err("the server closed the flood".into()),
            Ok((length, _)) if length > self.under_way => {
                Err("more came back than was sent".into())
            }
            Ok((length, _)) => {
                self.under_way -= length;
                Ok(length as u64)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
