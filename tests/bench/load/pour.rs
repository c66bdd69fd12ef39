//! Pouring: clients that send as fast as they are read from, and a server that stores what they
//! send; driven by one thread.
//!
//! A run ends when as many lines are stored as were sent. They are then cut off the file, so that
//! it stays in the page cache and costs no disk.

use super::{BUFFER, Load, PATIENCE, Window};
use crate::server::Server;
use crate::setup::{MAX_EVENTS, Outcome, check_interrupted};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::File;
use std::io::{Read, Seek};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that a client sends before the next has its turn.
pub(crate) const TURN: usize = 32;
/// Between two looks at what is stored, of which no event tells.
const LOOK: Duration = Duration::from_micros(200);

pub(crate) struct Pour {
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Lines in one write.
    batch: usize,
    record: File,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    socket: OwnedFd,
    /// One write.
    lines: Vec<u8>,
}

impl Pour {
    /// `clients` of a server's socket of type `kind`. `size` is that of a line, `batch` how many are
    /// sent in one write.
    pub(crate) fn connect(
        server: &Server,
        kind: SocketType,
        clients: usize,
        size: usize,
        batch: usize,
    ) -> Outcome<Pour> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let address = SocketAddrUnix::new(server.socket())?;
        let mut all = Vec::with_capacity(clients);
        for index in 0..clients {
            let flags = SocketFlags::CLOEXEC;
            let socket = net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
            net::connect(&socket, &address)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::OUT)?;
            let mut line = format!("client {index} ").into_bytes();
            line.resize(size - 1, b'.');
            line.push(b'\n');
            all.push(Client {
                socket,
                lines: line.repeat(batch),
            });
        }
        Ok(Pour {
            epoll,
            clients: all,
            batch,
            record: File::options()
                .read(true)
                .write(true)
                .open(server.record())?,
            buffer: vec![0; BUFFER],
            events: Vec::with_capacity(MAX_EVENTS),
        })
    }

    /// One turn for each client that may send; how many writes that were.
    fn send(&mut self) -> Outcome<usize> {
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&PATIENCE),
        ) {
            Ok(0) => return Err("nobody is read from".into()),
            Ok(_) => {}
            Err(Errno::INTR) => check_interrupted()?,
            Err(error) => return Err(error.into()),
        }
        let mut writes = 0;
        for event in &self.events {
            let client = &self.clients[event.data.u64() as usize];
            writes += client.send(TURN / self.batch)?;
        }
        Ok(writes)
    }

    fn await_stored(&mut self, lines: u64) -> Outcome<()> {
        let begin = Instant::now();
        let mut stored = 0;
        loop {
            match self.record.read(&mut self.buffer)? {
                0 if stored == lines => return Ok(()),
                0 if begin.elapsed().as_secs() > PATIENCE.tv_sec as u64 => {
                    return Err(format!("{stored} of {lines} lines were stored").into());
                }
                0 => {
                    check_interrupted()?;
                    thread::sleep(LOOK);
                }
                length => {
                    stored += memchr::memchr_iter(b'\n', &self.buffer[..length]).count() as u64;
                }
            }
        }
    }
}

impl Load for Pour {
    fn run(&mut self, span: Duration) -> Outcome<Window> {
        let begin = Instant::now();
        let mut writes = 0;
        while begin.elapsed() < span {
            writes += self.send()?;
        }
        let lines = (writes * self.batch) as u64;
        self.await_stored(lines)?;
        let elapsed = begin.elapsed();
        self.record.rewind()?;
        self.record.set_len(0)?;
        check_interrupted()?;
        Ok(Window {
            messages: lines,
            elapsed,
            ..Window::default()
        })
    }
}

impl Client {
    /// At most so many writes; how many there were.
    fn send(&self, most: usize) -> Outcome<usize> {
        for sent in 0..most {
            match net::send(&self.socket, &self.lines, SendFlags::NOSIGNAL) {
                // Too little to be taken in parts.
                Ok(length) if length == self.lines.len() => {}
                Ok(length) => return Err(format!("a write was cut at {length} bytes").into()),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(sent),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(most)
    }
}
