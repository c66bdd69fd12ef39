//! The floors: the least that a server can do for each kind of work, and the measure of udsd.
//!
//! One thread, level-triggered epoll, accept, recv, and what was received is sent back, sent to
//! every other client, or written to a file, as it is; of datagrams as many as there are. Where it is to be on
//! the disk, one fdatasync serves all who wait. No framing, no limits, no queues: a client
//! that does not read makes everybody wait, so nothing is lost. Nothing is allocated for a message.
//! It runs as a process of its own, so that its CPU time is read the same way as the daemon's.

use crate::program::Work;
use crate::restart;
use crate::server::tell_ready;
use crate::setup::{MAX_EVENTS, Outcome};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use slab::Slab;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use udsd::datagram_header::BATCH;
use udsd::sys::receive_datagrams;

/// As large as the daemon's own read buffer, shared by all clients.
const BUFFER: usize = 64 * 1024;
const LISTENER: u64 = u64::MAX;
/// Bytes for one datagram.
const SLOT: usize = 2048;

type Clients = Slab<OwnedFd>;

/// Serves `socket` until killed; `record` is the file for work that stores messages.
pub(crate) fn run(work: &str, socket: &Path, record: &Path) -> Outcome<()> {
    // A killed benchmark must not leave its floor behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match Work::ALL.into_iter().find(|known| known.name() == work) {
        Some(Work::Echo) => serve(socket, |clients, from, bytes| {
            Ok(send_all(&clients[from], bytes)?)
        }),
        Some(Work::Restart) => restart::serve(socket),
        Some(Work::Relay) => serve(socket, |clients, from, bytes| {
            for (key, client) in clients {
                if key != from {
                    // One that has gone is found by its own event.
                    send_all(client, bytes)?;
                }
            }
            Ok(true)
        }),
        Some(Work::Collect) => {
            let mut file = File::options().append(true).create(true).open(record)?;
            serve(socket, |_, _, bytes| {
                file.write_all(bytes)?;
                Ok(true)
            })
        }
        Some(Work::CollectDatagrams) => store_datagrams(socket, record),
        Some(Work::Store) => store(socket, record),
        None => Err(format!("no floor for {work}").into()),
    }
}

/// Appends what all have sent, and answers them when the disk has it.
fn store(socket: &Path, record: &Path) -> Outcome<()> {
    let mut file = File::options().append(true).create(true).open(record)?;
    let (mut lines, mut waiting) = (Vec::new(), Vec::new());
    let mut stored: Vec<u64> = Vec::new();
    serve_turns(socket, |clients, said| {
        match said {
            Some((from, bytes)) => {
                lines.extend_from_slice(bytes);
                stored.resize(stored.len().max(from + 1), 0);
                stored[from] += memchr::memchr_iter(b'\n', bytes).count() as u64;
                waiting.push(from);
            }
            None if !lines.is_empty() => {
                file.write_all(&lines)?;
                file.sync_data()?;
                lines.clear();
                for from in waiting.drain(..) {
                    send_all(&clients[from], format!("ok {}\n", stored[from]).as_bytes())?;
                }
            }
            None => {}
        }
        Ok(true)
    })
}

/// `receive` is given all clients, who sent, and what; it answers whether the sender is still there.
fn serve(
    path: &Path,
    mut receive: impl FnMut(&Clients, usize, &[u8]) -> Outcome<bool>,
) -> Outcome<()> {
    serve_turns(path, |clients, said| match said {
        Some((from, bytes)) => receive(clients, from, bytes),
        None => Ok(true),
    })
}

/// As `serve`; at the end of each turn `receive` is called once more, with nothing said.
fn serve_turns(
    path: &Path,
    mut receive: impl FnMut(&Clients, Option<(usize, &[u8])>) -> Outcome<bool>,
) -> Outcome<()> {
    let listener = UnixListener::bind(path)?;
    net::listen(&listener, 4096)?; // std's backlog is too short for 1000 clients at once
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&epoll, &listener, LISTENER)?;
    tell_ready()?;

    let mut clients = Clients::new();
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
            let key = token as usize;
            match net::recv(&clients[key], &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET) => drop(clients.remove(key)),
                Ok((length, _)) => {
                    if !receive(&clients, Some((key, &buffer[..length])))? {
                        clients.remove(key);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {} // level-triggered: it will be told again
                Err(error) => return Err(error.into()),
            }
        }
        receive(&clients, None)?;
    }
}

/// Receives what is there in one call, and writes it in one.
fn store_datagrams(path: &Path, record: &Path) -> Outcome<()> {
    let mut file = File::options().append(true).create(true).open(record)?;
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&epoll, &socket, LISTENER)?;
    tell_ready()?;

    let mut buffer = vec![0; SLOT * BATCH];
    let mut headers = Vec::with_capacity(BATCH);
    let mut events = Vec::with_capacity(MAX_EVENTS);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        headers.clear();
        receive_datagrams(&socket, &mut buffer, SLOT, &mut headers)?;
        let mut parts = [IoSlice::new(&[]); BATCH];
        let mut length = 0;
        let datagrams = headers.iter().zip(buffer.chunks_exact(SLOT));
        for (part, (header, bytes)) in parts.iter_mut().zip(datagrams) {
            *part = IoSlice::new(&bytes[..header.length]);
            length += header.length;
        }
        if file.write_vectored(&parts[..headers.len()])? != length {
            return Err("the disk is full".into());
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
    clients: &mut Clients,
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
