//! Stored round trips: clients in a closed loop, driven by one thread. Each sends a line, awaits the answer that
//! it is stored, and sends again.

use super::{BUFFER, Load, PATIENCE, Window};
use crate::setup::{MAX_EVENTS, Outcome, check_interrupted};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) struct Store {
    epoll: OwnedFd,
    clients: Vec<Client>,
    line: Vec<u8>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    socket: UnixStream,
    /// Lines that are stored.
    stored: u64,
    /// Of the next answer, what has come.
    answer: Vec<u8>,
    sent_at: Instant,
}

impl Store {
    /// `size` is that of a line.
    pub(crate) fn connect(path: &Path, clients: usize, size: usize) -> Outcome<Store> {
        let mut line = vec![b'.'; size - 1];
        line.push(b'\n');
        let mut load = Store {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(clients),
            line,
            buffer: vec![0; BUFFER],
            events: Vec::with_capacity(MAX_EVENTS),
        };
        for index in 0..clients {
            let socket = UnixStream::connect(path)?;
            socket.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&load.epoll, &socket, data, epoll::EventFlags::IN)?;
            load.clients.push(Client {
                socket,
                stored: 0,
                answer: Vec::new(),
                sent_at: Instant::now(),
            });
        }
        Ok(load)
    }
}

impl Load for Store {
    fn run(&mut self, span: Duration) -> Outcome<Window> {
        let mut trips = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?; // nanoseconds
        let begin = Instant::now();
        let deadline = begin + span;
        for client in &mut self.clients {
            client.send(&self.line, begin)?;
        }
        let mut under_way = self.clients.len();
        while under_way > 0 {
            self.events.clear();
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut self.events),
                Some(&PATIENCE),
            ) {
                Ok(0) => return Err(format!("{under_way} clients got no answer").into()),
                Ok(_) => {}
                Err(Errno::INTR) => {
                    check_interrupted()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            for event in &self.events {
                let client = &mut self.clients[event.data.u64() as usize];
                if !client.receive(&mut self.buffer)? {
                    continue;
                }
                let now = Instant::now();
                trips.saturating_record(now.duration_since(client.sent_at).as_nanos() as u64);
                if now < deadline {
                    client.send(&self.line, now)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        let elapsed = begin.elapsed();
        check_interrupted()?;
        Ok(Window {
            messages: trips.len(),
            elapsed,
            p99: Duration::from_nanos(trips.value_at_quantile(0.99)),
            cpu: Duration::ZERO,
        })
    }
}

impl Client {
    fn send(&mut self, line: &[u8], now: Instant) -> Outcome<()> {
        self.sent_at = now;
        match net::send(&self.socket, line, SendFlags::NOSIGNAL)? {
            sent if sent == line.len() => Ok(()),
            sent => Err(format!("{sent} of {} bytes sent", line.len()).into()),
        }
    }

    /// True once the answer is there, and it is that for the last line.
    fn receive(&mut self, buffer: &mut [u8]) -> Outcome<bool> {
        match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err("the server closed a client".into()),
            Ok((length, _)) => self.answer.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if !self.answer.ends_with(b"\n") {
            return Ok(false);
        }
        self.stored += 1;
        let due = format!("ok {}\n", self.stored);
        if self.answer != due.as_bytes() {
            let answer = self.answer.escape_ascii();
            return Err(format!("\"{answer}\" came where \"ok {}\" was due", self.stored).into());
        }
        self.answer.clear();
        Ok(true)
    }
}
