//! Round trips: clients in a closed loop, driven by one thread.
//!
//! Each client sends one message, awaits all its bytes, compares them with what it sent, and sends
//! again.

use super::{BUFFER, Load, PATIENCE, Window};
use crate::setup::{MAX_EVENTS, Outcome, check_interrupted};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Client and message number, at both ends of a message: stale or foreign bytes do not pass.
const MARK: usize = 8;

pub(crate) struct Echo {
    epoll: OwnedFd,
    clients: Vec<Client>,
    message: Vec<u8>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

struct Client {
    socket: UnixStream,
    number: u32,
    received: usize,
    sent_at: Instant,
}

impl Echo {
    /// `size` is that of a message.
    pub(crate) fn connect(path: &Path, clients: usize, size: usize) -> Outcome<Echo> {
        let mut load = Echo {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(clients),
            message: (0..size).map(pattern).collect(),
            buffer: vec![0; BUFFER],
            events: Vec::with_capacity(MAX_EVENTS),
        };
        assert!(size >= 2 * MARK, "a message holds its mark twice");
        for index in 0..clients {
            let socket = UnixStream::connect(path)
                .map_err(|error| format!("client {index}: connect: {error}"))?;
            socket.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&load.epoll, &socket, data, epoll::EventFlags::IN)?;
            load.clients.push(Client {
                socket,
                number: 0,
                received: 0,
                sent_at: Instant::now(),
            });
        }
        Ok(load)
    }

    /// One client after another sends `total` bytes and reads none of them until all are sent:
    /// where `total` is more than the kernel holds, the server must queue.
    pub(crate) fn fill(&mut self, total: usize) -> Outcome<()> {
        let sent: Vec<u8> = (0..total).map(pattern).collect();
        for client in &self.clients {
            client.fill(&sent, &mut self.buffer)?;
            check_interrupted()?;
        }
        Ok(())
    }
}

impl Load for Echo {
    /// Runs for `span`, but at least one message a client, and waits for the last answers.
    fn run(&mut self, span: Duration) -> Outcome<Window> {
        let mut trips = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?; // nanoseconds
        let begin = Instant::now();
        let deadline = begin + span;
        for (index, client) in self.clients.iter_mut().enumerate() {
            mark(&mut self.message, index, client.number);
            client.send(&self.message, Instant::now())?;
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
                let index = event.data.u64() as usize;
                let client = &mut self.clients[index];
                mark(&mut self.message, index, client.number);
                if !client.receive(&self.message, &mut self.buffer)? {
                    continue;
                }
                let now = Instant::now();
                let trip = now.duration_since(client.sent_at).as_nanos() as u64;
                trips.saturating_record(trip);
                client.number = client.number.wrapping_add(1);
                if now < deadline {
                    mark(&mut self.message, index, client.number);
                    client.send(&self.message, now)?;
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
    fn send(&mut self, message: &[u8], now: Instant) -> Outcome<()> {
        self.sent_at = now;
        match net::send(&self.socket, message, SendFlags::NOSIGNAL)? {
            sent if sent == message.len() => Ok(()),
            // With one small message under way the kernel takes it whole.
            sent => Err(format!("{sent} of {} bytes sent", message.len()).into()),
        }
    }

    /// True once the whole message is back.
    fn receive(&mut self, message: &[u8], buffer: &mut [u8]) -> Outcome<bool> {
        let length = match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err("the server closed a client".into()),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let end = self.received + length;
        if message.get(self.received..end) != Some(&buffer[..length]) {
            return Err(format!("message {} came back changed", self.number).into());
        }
        self.received = if end == message.len() { 0 } else { end };
        Ok(self.received == 0)
    }

    fn fill(&self, bytes: &[u8], buffer: &mut [u8]) -> Outcome<()> {
        // A server without queues stops reading: then reading must go on before all is sent.
        let brief = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        let (mut sent, mut received) = (0, 0);
        while received < bytes.len() {
            if sent < bytes.len() {
                match net::send(&self.socket, &bytes[sent..], SendFlags::NOSIGNAL) {
                    Ok(length) => {
                        sent += length;
                        continue;
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                if poll(
                    &mut [PollFd::new(&self.socket, PollFlags::OUT)],
                    Some(&brief),
                )? > 0
                {
                    continue;
                }
            }
            if poll(
                &mut [PollFd::new(&self.socket, PollFlags::IN)],
                Some(&PATIENCE),
            )? == 0
            {
                return Err(format!("only {received} of {sent} bytes came back").into());
            }
            let (length, _) = net::recv(&self.socket, &mut *buffer, RecvFlags::empty())?;
            if length == 0 {
                return Err("the server closed a client".into());
            }
            if bytes.get(received..received + length) != Some(&buffer[..length]) {
                return Err("a long message came back changed".into());
            }
            received += length;
        }
        Ok(())
    }
}

/// No two neighbouring pages alike.
fn pattern(position: usize) -> u8 {
    (position.wrapping_mul(0x9e37_79b1) >> 16) as u8
}

fn mark(message: &mut [u8], index: usize, number: u32) {
    let mut bytes = [0; MARK];
    bytes[..4].copy_from_slice(&(index as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    message[..MARK].copy_from_slice(&bytes);
    let end = message.len() - MARK;
    message[end..].copy_from_slice(&bytes);
}
