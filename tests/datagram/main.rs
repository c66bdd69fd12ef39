//! Promise: a datagram keeps its bounds and its order, comes with the sender that the kernel vouches
//! for, and is delivered, or counted with the reason; a receiver that does not read costs the others
//! nothing.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod collect;
mod deputy;
mod echo;
mod ends;
mod own;
mod shares;
mod sockets;
mod unseen;

use std::{
    io,
    os::{
        fd::AsFd,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::PathBuf,
};

use harness::{Daemon, HANG};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::getpid,
};
use serde_json::Value;

/// A datagram socket `s` with these keys.
fn config(keys: &str) -> String {
    format!("[socket.s]\npath = \"{{dir}}/s\"\ntype = \"datagram\"\nmode = \"0666\"\n{keys}\n")
}

/// The same that collects, its record on standard output.
fn collecting(keys: &str, record: &str) -> String {
    config(&format!(
        "service = \"collect\"\n{keys}\n[socket.s.record]\n{record}"
    ))
}

/// One who sends to a socket of the daemon.
struct Client {
    socket: UnixDatagram,
    to: PathBuf,
}

impl Client {
    /// Bound to this name in the daemon's folder, sending to socket `s`.
    fn bound(daemon: &Daemon, name: &str) -> Self {
        Self::of(UnixDatagram::bind(daemon.path(name)).unwrap(), daemon, "s")
    }

    /// Without an address.
    fn unbound(daemon: &Daemon) -> Self {
        Self::of(UnixDatagram::unbound().unwrap(), daemon, "s")
    }

    /// Bound to a name in the abstract namespace.
    fn abstract_name(daemon: &Daemon, name: &[u8]) -> Self {
        let address =
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap();
        Self::of(UnixDatagram::bind_addr(&address).unwrap(), daemon, "s")
    }

    fn of(socket: UnixDatagram, daemon: &Daemon, to: &str) -> Self {
        // A call that takes longer fails.
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket.set_write_timeout(Some(HANG)).unwrap();
        let to = daemon.path(to);
        Client { socket, to }
    }

    /// Waits for as long as the daemon's queue is full.
    fn send(&self, bytes: &[u8]) {
        assert_eq!(self.socket.send_to(bytes, &self.to).unwrap(), bytes.len());
    }

    /// Sends until the daemon takes no more for a while; says how many it took.
    fn send_until_full(&self, each: impl Fn(usize) -> Vec<u8>, most: usize) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.connect(&self.to).unwrap();
        let (mut sent, mut stalled) = (0, false);
        while sent < most {
            match self.socket.send(&each(sent)) {
                Ok(_) => (sent, stalled) = (sent + 1, false),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    let a_while = Timespec {
                        tv_sec: 0,
                        tv_nsec: 300_000_000,
                    };
                    let mut room = [PollFd::new(&self.socket, PollFlags::OUT)];
                    // Nothing is told before three quarters of the buffer are free: tried again.
                    if poll(&mut room, Some(&a_while)).unwrap() == 0 {
                        if stalled {
                            break;
                        }
                        stalled = true;
                    }
                }
            }
        }
        self.socket.set_nonblocking(false).unwrap();
        sent
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 300_000];
        let (length, _) = self.socket.recv_from(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    /// Whether something can be read at once.
    fn has_more(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let fd = self.socket.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    /// Sends `bytes` and gets them back: the daemon has read all that was sent before.
    #[track_caller]
    fn round_trip(&self, bytes: &[u8]) {
        self.send(bytes);
        assert_eq!(self.receive(), bytes);
    }
}

/// The number before `what` in the line that the daemon logs of socket `name` at its end; where it
/// says nothing of that, 0.
fn counted(daemon: &Daemon, name: &str, what: &str) -> u64 {
    let line = daemon.wait_log(&[&format!("{name}: "), " messages of ", " unread, "]);
    let found = line.split([',', ';', '(']).find_map(|part| {
        let (number, rest) = part.rsplit(": ").next()?.trim().split_once(' ')?;
        rest.starts_with(what).then(|| number.parse().ok())?
    });
    found.unwrap_or(0)
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// This process as the log names it.
fn own_pid() -> String {
    format!("pid {}", getpid())
}

/// Datagrams that a receiver's queue in the kernel holds.
fn kernel_queue() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    text.trim().parse::<usize>().unwrap() + 1
}

/// "0", "1" and so on, each of this many bytes.
fn numbered(n: usize, length: usize) -> Vec<u8> {
    let mut bytes = format!("{n} ").into_bytes();
    bytes.resize(length.max(bytes.len()), b'.');
    bytes
}

fn number_of(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    text.split(' ').next().unwrap().parse().unwrap()
}
