//! The floor: the least that an echo server can do, and the measure of udsd.
//!
//! One thread, level-triggered epoll, accept, recv, send. No framing, no limits, no queues: a
//! client that does not read makes everybody wait. Nothing is allocated for a message. It runs as
//! a process of its own, so that its CPU time is read the same way as the daemon's.

use crate::server::tell_ready;
use crate::setup::{MAX_EVENTS, Outcome};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use slab::Slab;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// As large as the daemon's own read buffer, shared by all clients.
const BUFFER: usize = 64 * 1024;
const LISTENER: u64 = u64::MAX;

/// Echoes on `path` until killed.
pub(crate) fn run(path: &Path) -> Outcome<()> {
    // A killed benchmark must not leave its floor behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let listener = UnixListener::bind(path)?;
    net::listen(&listener, 4096)?; // std's backlog is too short for 1000 clients at once
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&epoll, &listener, LISTENER)?;
    tell_ready()?;

    let mut clients: Slab<OwnedFd> = Slab::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(MAX_EVENTS);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                accept_all(&epoll, &listener, &mut clients)?;
                continue;
            }
            let client = &clients[token as usize];
            match net::recv(client, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => drop(clients.remove(token as usize)),
                Ok((length, _)) => {
                    if !send_all(client, &buffer[..length])? {
                        clients.remove(token as usize);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {} // level-triggered: it will be told again
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn watch(epoll: &OwnedFd, source: impl AsFd, token: u64) -> rustix::io::Result<()> {
    let data = epoll::EventData::new_u64(token);
    epoll::add(epoll, source, data, epoll::EventFlags::IN)
}

fn accept_all(
    epoll: &OwnedFd,
    listener: &UnixListener,
    clients: &mut Slab<OwnedFd>,
) -> rustix::io::Result<()> {
    loop {
        match net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(client) => {
                let slot = clients.vacant_entry();
                watch(epoll, &client, slot.key() as u64)?;
                slot.insert(client);
            }
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// False if the client has gone.
fn send_all(client: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<bool> {
    loop {
        match net::send(client, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(true),
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(client, PollFlags::OUT)], None)?;
            }
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
