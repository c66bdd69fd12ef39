//! The least that a server can do to let another process go on: SIGUSR2 parks the descriptors in a
//! socket pair that the manager keeps, and the process ends; the next one takes them out and watches
//! them. Nothing is known of a client but its descriptor, and nothing is left for a second attempt.

use crate::server::tell_ready;
use crate::setup::{MAX_EVENTS, Outcome};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};
use signal_hook::consts::SIGUSR2;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process;
use udsd::parking::{Memory, Parking, Stored, give_up};
use udsd::systemd;

const LISTENER: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
const HANDED_OVER: i32 = 75;

/// Serves `path`, or goes on with what an earlier process parked.
pub(crate) fn serve(path: &Path) -> Outcome<()> {
    let (signal, on_signal) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGUSR2, on_signal)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |source: &OwnedFd, token| {
        epoll::add(&epoll, source, EventData::new_u64(token), EventFlags::IN)
    };
    watch(&OwnedFd::from(signal.try_clone()?), SIGNAL)?;

    // The listener first, then the clients.
    let mut open = restored()?;
    if open.is_empty() {
        let listener = UnixListener::bind(path)?;
        net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)?;
        open.push(listener.into());
    }
    watch(&open[0], LISTENER)?;
    for (key, client) in open.iter().enumerate().skip(1) {
        watch(client, key as u64)?;
    }
    tell_ready()?;

    let mut buffer = vec![0; 1 << 16];
    let mut events = Vec::with_capacity(MAX_EVENTS);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                SIGNAL => park(&open)?,
                LISTENER => loop {
                    match net::accept_with(&open[0], SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                        Ok(client) => {
                            watch(&client, open.len() as u64)?;
                            open.push(client);
                        }
                        Err(Errno::AGAIN) => break,
                        Err(error) => return Err(error.into()),
                    }
                },
                key => {
                    let client = &open[key as usize];
                    match net::recv(client, &mut buffer[..], RecvFlags::empty()) {
                        // Nobody comes after those who end.
                        Ok((0, _)) | Err(Errno::CONNRESET) => epoll::delete(&epoll, client)?,
                        Ok((length, _)) => {
                            net::send(client, &buffer[..length], SendFlags::NOSIGNAL)?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }
}

fn restored() -> Outcome<Vec<OwnedFd>> {
    let mut open = Vec::new();
    if let Some(near) = systemd::passed()?.stored.pop()
        && Stored::find(&near)?.is_some()
    {
        give_up(&near, |fd| open.push(fd));
    }
    Ok(open)
}

fn park(open: &[OwnedFd]) -> Outcome<()> {
    let (parking, near) = Parking::new()?;
    systemd::store(near.as_fd())?;
    let memory = Memory::new(|_| Ok(()))?;
    let descriptors: Vec<_> = open.iter().map(AsFd::as_fd).collect();
    match parking.leave(&memory, &descriptors)? {
        (_, None) => process::exit(HANDED_OVER),
        (_, Some(error)) => Err(error.into()),
    }
}
