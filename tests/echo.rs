//! Promise: echo gives every client all of its bytes back, in order, then the end of file, however many
//! there are.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    thread,
};

use harness::{Daemon, Random, raise_open_files, read_all};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

#[test]
fn one_send_then_sixteen_bytes_at_a_time() {
    let daemon = Daemon::ad_hoc(&["--service", "echo"]);
    let mut client = daemon.connect("socket");
    let message = b"This is the message. It will be repeated.";
    client.write_all(message).unwrap();
    let mut back = Vec::new();
    while back.len() < message.len() {
        let mut piece = [0; 16];
        let n = client.read(&mut piece).unwrap();
        assert_ne!(n, 0, "end of file after {} bytes", back.len());
        back.extend_from_slice(&piece[..n]);
    }
    assert_eq!(back, message);
}

#[test]
fn echo_is_the_service_where_none_is_named() {
    let daemon = Daemon::ad_hoc(&[]);
    harness::round_trip(&daemon.connect("socket"), b"\0any bytes\xff\n");
}

/// A client that writes 1 MiB in odd pieces while it reads, then half-closes.
struct Pusher {
    stream: std::os::unix::net::UnixStream,
    number: usize,
    random: Random,
    sent: usize,
    received: usize,
    ended: bool,
}

const PUSHED: usize = 1 << 20;

impl Pusher {
    /// Goes on as far as nothing blocks. Every byte follows from its place and the client's number.
    fn push(&mut self, pattern: &[u8]) {
        let own = &pattern[self.number % 251..];
        while self.sent < PUSHED {
            let piece = (self.random.below(40_000) | 1).min(PUSHED - self.sent);
            let bytes = &own[self.sent..self.sent + piece];
            match send(
                &self.stream,
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => break,
                Err(error) => panic!("client {}: {error}", self.number),
            }
            if self.sent == PUSHED {
                self.stream.shutdown(Shutdown::Write).unwrap();
            }
        }
        let mut buffer = [0; 65536];
        loop {
            match recv(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    assert_eq!(self.received, PUSHED, "client {} at its end", self.number);
                    self.ended = true;
                    return;
                }
                Ok((_, n)) => {
                    let expected = own.get(self.received..self.received + n);
                    assert!(
                        expected == Some(&buffer[..n]),
                        "client {} got other bytes than it sent, near {}",
                        self.number,
                        self.received
                    );
                    self.received += n;
                }
                Err(Errno::AGAIN) => return,
                Err(error) => panic!("client {}: {error}", self.number),
            }
        }
    }

    fn wants(&self) -> PollFlags {
        if self.sent < PUSHED {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        }
    }
}

#[test]
fn a_thousand_clients_at_once_get_every_byte_of_a_mebibyte() {
    // One descriptor each, here and in the daemon; what is left is the tests' beside this one.
    let crowd = (raise_open_files() - 124).min(1000);
    let daemon = Daemon::start(
        "[limits]\nclients = 1500\nclients-per-user = 1500\n\
         [socket.echo]\npath = \"{dir}/echo\"\nservice = \"echo\"\n",
    );
    let pattern = Random::new(7).bytes(PUSHED + 251);
    let mut clients: Vec<Pusher> = (0..crowd)
        .map(|number| Pusher {
            stream: daemon.connect("echo"),
            number,
            random: Random::new(number as u64 + 1),
            sent: 0,
            received: 0,
            ended: false,
        })
        .collect();
    while !clients.is_empty() {
        let ready: Vec<bool> = {
            let mut polled: Vec<PollFd<'_>> = clients
                .iter()
                .map(|client| PollFd::from_borrowed_fd(client.stream.as_fd(), client.wants()))
                .collect();
            let timeout = harness::HANG.try_into().unwrap();
            assert_ne!(poll(&mut polled, Some(&timeout)).unwrap(), 0, "all hang");
            polled.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.push(&pattern);
        }
        clients.retain(|client| !client.ended);
    }
}

#[test]
fn a_client_that_never_stops_sending_does_not_keep_others_waiting() {
    let daemon = Daemon::ad_hoc(&["--service", "echo"]);
    let loud = daemon.connect("socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = [1; 65536];
            while (&loud).write_all(&bytes).is_ok() {}
        });
        scope.spawn(|| {
            let mut buffer = [0; 65536];
            while (&loud).read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        for _ in 0..200 {
            harness::round_trip(&daemon.connect("socket"), b"my turn");
        }
        loud.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn a_client_gone_without_reading_costs_the_others_nothing() {
    let daemon = Daemon::ad_hoc(&["--service", "echo"]);
    let stays = daemon.connect("socket");
    for _ in 0..100 {
        let mut goes = daemon.connect("socket");
        goes.write_all(&[7; 10_000]).unwrap();
    }
    harness::round_trip(&stays, b"still here");
}

#[test]
fn the_end_of_file_comes_after_a_half_close_even_without_a_byte() {
    let daemon = Daemon::ad_hoc(&["--service", "echo"]);
    let client = daemon.connect("socket");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
}
