//! Fan-out: one client sends at full speed, many receive; driven by one thread.
//!
//! The sender has a window: so many messages may be under way to the slowest receiver. It is as good
//! as full all the time, the same for every server, and no server is asked to hold more than fits in
//! the kernel. Every byte is compared with what was sent.

use super::{BUFFER, Load, PATIENCE, Window};
use crate::setup::{MAX_EVENTS, Outcome, check_interrupted};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Messages that may be under way to the slowest receiver. As much as the kernel by default lets a
/// client send in writes of one small message before the server reads.
const WINDOW: u64 = 256;
/// Messages before the bytes repeat: more than the window, so that none can pass for another.
const CYCLE: u64 = 1024;
const SENDER: u64 = u64::MAX;

/// What a protocol makes of the messages, in cycles.
pub(crate) struct Wire {
    sent: Cycle,
    delivered: Cycle,
    /// What the sender gets for each message; may be empty.
    answered: Cycle,
    /// What a receiver says first, and is told.
    join: (Vec<u8>, Vec<u8>),
}

impl Wire {
    /// Lines, as udsd and the floor pass them on.
    pub(crate) fn lines(size: usize) -> Wire {
        let line = |number: u64| text(number, size);
        Wire {
            sent: Cycle::new(line),
            delivered: Cycle::new(line),
            answered: Cycle::new(|_| Vec::new()),
            join: (Vec::new(), Vec::new()),
        }
    }

    /// Redis pub/sub on one channel. The messages are the same bytes.
    pub(crate) fn redis(size: usize, receivers: usize) -> Wire {
        let framed = |start: &str, number: u64| {
            let mut bytes = format!("*3\r\n{start}$1\r\nc\r\n${size}\r\n").into_bytes();
            bytes.extend(text(number, size));
            bytes.extend(b"\r\n");
            bytes
        };
        // The publisher is told at first how many there were, and that answer never changes length.
        let answer = format!(":{receivers}\r\n");
        Wire {
            sent: Cycle::new(|number| framed("$7\r\nPUBLISH\r\n", number)),
            delivered: Cycle::new(|number| framed("$7\r\nmessage\r\n", number)),
            answered: Cycle::new(|_| answer.clone().into_bytes()),
            join: (
                b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n".to_vec(),
                b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".to_vec(),
            ),
        }
    }
}

/// The number of a message, filled up to `size` bytes; a line.
fn text(number: u64, size: usize) -> Vec<u8> {
    let mut text = format!("{number:>0$}", size - 1).into_bytes();
    text.push(b'\n');
    text
}

/// `CYCLE` messages of one length.
struct Cycle {
    bytes: Vec<u8>,
    each: u64,
}

impl Cycle {
    fn new(message: impl Fn(u64) -> Vec<u8>) -> Cycle {
        let bytes: Vec<u8> = (0..CYCLE).flat_map(message).collect();
        let each = bytes.len() as u64 / CYCLE;
        Cycle { bytes, each }
    }

    /// From `position` in the stream of all messages, up to the end of the cycle.
    fn behind(&self, position: u64) -> &[u8] {
        &self.bytes[(position % self.bytes.len() as u64) as usize..]
    }
}

pub(crate) struct FanOut {
    epoll: OwnedFd,
    sender: Client,
    receivers: Vec<Client>,
    wire: Wire,
    /// Messages in one write.
    batch: u64,
    /// Bytes that the sender has sent.
    sent: u64,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    socket: UnixStream,
    /// Bytes.
    received: u64,
}

impl FanOut {
    /// The sender sends `batch` messages in each write.
    pub(crate) fn connect(
        path: &Path,
        receivers: usize,
        batch: u64,
        wire: Wire,
    ) -> Outcome<FanOut> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let client = |token| -> Outcome<Client> {
            let socket = UnixStream::connect(path)?;
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            Ok(Client {
                socket,
                received: 0,
            })
        };
        let mut all = Vec::with_capacity(receivers);
        for index in 0..receivers {
            let mut receiver = client(index as u64)?;
            let (said, told) = &wire.join;
            receiver.socket.write_all(said)?;
            let mut answer = vec![0; told.len()];
            receiver.socket.read_exact(&mut answer)?;
            if answer != *told {
                return Err(format!("joining was answered {:?}", answer.escape_ascii()).into());
            }
            receiver.socket.set_nonblocking(true)?;
            all.push(receiver);
        }
        // Accepted after all receivers, so its first message already goes to all of them.
        let sender = client(SENDER)?;
        sender.socket.set_nonblocking(true)?;
        Ok(FanOut {
            sent: 0,
            epoll,
            sender,
            receivers: all,
            wire,
            batch,
            buffer: vec![0; BUFFER],
            events: Vec::with_capacity(MAX_EVENTS),
        })
    }

    /// Messages that everybody has: receivers, and the sender its answers.
    fn done(&self) -> u64 {
        let slowest = self.receivers.iter().map(|client| client.received).min();
        let delivered = slowest.unwrap_or(0) / self.wire.delivered.each;
        match self.wire.answered.each {
            0 => delivered,
            each => delivered.min(self.sender.received / each),
        }
    }

    /// Sends up to the end of message `end`, as far as the kernel takes it.
    fn send(&mut self, end: u64) -> Outcome<()> {
        let end = end * self.wire.sent.each;
        while self.sent < end {
            let bytes = self.wire.sent.behind(self.sent);
            let most = (self.batch * self.wire.sent.each).min(end - self.sent) as usize;
            let bytes = &bytes[..most.min(bytes.len())];
            match net::send(&self.sender.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent as u64,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Outcome<()> {
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&PATIENCE),
        ) {
            Ok(0) => return Err("messages were not delivered".into()),
            Ok(_) => {}
            Err(Errno::INTR) => check_interrupted()?,
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let (client, cycle) = match event.data.u64() {
                SENDER => (&mut self.sender, &self.wire.answered),
                index => (&mut self.receivers[index as usize], &self.wire.delivered),
            };
            client.receive(cycle, &mut self.buffer)?;
        }
        Ok(())
    }
}

impl Load for FanOut {
    fn run(&mut self, span: Duration) -> Outcome<Window> {
        let begin = Instant::now();
        let deadline = begin + span;
        let first = self.done();
        let mut end = first;
        while Instant::now() < deadline {
            // Whole batches, while there is room for them.
            let room = self.done() + WINDOW - end;
            let more = room - room % self.batch;
            // Where the kernel takes no more, something is under way: its receipt goes on here.
            self.send(end + more)?;
            end += more;
            self.receive()?;
        }
        while self.done() < end {
            self.send(end)?;
            self.receive()?;
        }
        check_interrupted()?;
        Ok(Window {
            messages: end - first,
            elapsed: begin.elapsed(),
            ..Window::default()
        })
    }
}

impl Client {
    fn receive(&mut self, cycle: &Cycle, buffer: &mut [u8]) -> Outcome<()> {
        let length = match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err("the server closed a client".into()),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = &buffer[..length];
        while !bytes.is_empty() {
            let due = cycle.behind(self.received);
            let (now, later) = bytes.split_at(bytes.len().min(due.len()));
            if now != &due[..now.len()] {
                return Err(format!("wrong bytes behind {}", self.received).into());
            }
            self.received += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}
