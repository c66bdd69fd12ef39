//! Closes what may take long to close, on a thread of its own: descriptors that clients sent, and
//! sockets in which such wait.
//!
//! The last close of a descriptor does what its kind demands: a TCP socket with SO_LINGER waits for its
//! peer (`socket(7)`), others for the kernel. Whoever makes the last close waits for that, and with
//! plain `recv(2)` and `close(2)` that is who reads what the descriptor came with, or closes the socket
//! that it waits in. Where the kernel keeps descriptors out (SO_PASSRIGHTS) there are none, and this has
//! nothing to do; the thread starts with the first.
//!
//! No more than `ROOM` descriptors, and those of one message, are received and not closed.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use log::warn;
use rustix::{
    event::epoll,
    io::Errno,
    net::{RecvFlags, SocketType, recv, sockopt},
};

use crate::{peer::Peer, sys::DESCRIPTORS, throttle::Throttle};

/// Descriptors that clients sent and that are not closed yet; beyond that, none are received.
const ROOM: usize = 1024;
/// The part of this process' files that they may be, where that is less.
const SHARE: usize = 16;
/// How long one close may take before those who send more are not waited with any longer.
const PATIENCE: Duration = Duration::from_secs(1);

static CLOSER: Closer = Closer {
    room: AtomicUsize::new(ROOM),
    epoll: OnceLock::new(),
    work: Mutex::new(Work {
        queue: VecDeque::new(),
        open: 0,
        since: None,
        runs: false,
        came: None,
    }),
    more: Condvar::new(),
};

struct Closer {
    room: AtomicUsize,
    epoll: OnceLock<OwnedFd>,
    work: Mutex<Work>,
    more: Condvar,
}

struct Work {
    queue: VecDeque<Open>,
    /// Descriptors of the queue, and the one that is being closed.
    open: usize,
    /// When the close began that goes on now.
    since: Option<Instant>,
    runs: bool,
    came: Option<Throttle>,
}

/// What is to be closed.
enum Open {
    /// As it is.
    Any(OwnedFd),
    /// A socket, once what waits there is read away.
    Unread(OwnedFd),
}

/// This process may have so many files open; returns how many of them descriptors that were sent can be.
pub fn limit(files: usize) -> usize {
    let room = ROOM.min(files / SHARE);
    CLOSER.room.store(room, Ordering::Relaxed);
    room + DESCRIPTORS
}

/// The event loop watches sockets by this: it forgets those that are closed here.
///
/// # Errors
/// Those of `fcntl(2)`.
pub fn watched_by(epoll: impl AsFd) -> io::Result<()> {
    let epoll = epoll.as_fd().try_clone_to_owned()?;
    // There is one event loop in a process.
    let _ = CLOSER.epoll.set(epoll);
    Ok(())
}

/// Whether the descriptors of one message more may be received.
pub fn has_room() -> bool {
    CLOSER.work().open <= CLOSER.room.load(Ordering::Relaxed)
}

/// Whether a close goes on that takes long.
pub fn is_stuck() -> bool {
    let since = CLOSER.work().since;
    since.is_some_and(|since| since.elapsed() > PATIENCE)
}

/// Closes what `sender` sent.
pub fn close_sent(descriptors: Vec<OwnedFd>, sender: &Peer) {
    if descriptors.is_empty() {
        return;
    }
    let mut work = CLOSER.work();
    let throttle = work.came.get_or_insert_default();
    if let Some(left_out) = throttle.pass(1, Instant::now()) {
        let count = descriptors.len();
        warn!(
            "descriptors that came with a message ({sender}) are closed: {count} ({} lines like this left out)",
            left_out.lines
        );
    }
    CLOSER.give(work, descriptors.into_iter().map(Open::Any));
}

/// Closes a client's socket with all that waits in it.
pub fn close(socket: OwnedFd) {
    CLOSER.forget(&socket);
    CLOSER.give(CLOSER.work(), [Open::Any(socket)]);
}

/// As `close`, but reads away first what waits there: closed with it, the socket would give its peer
/// ECONNRESET. Nothing more comes: it is shut down.
pub fn read_away(socket: OwnedFd) {
    CLOSER.forget(&socket);
    CLOSER.give(CLOSER.work(), [Open::Unread(socket)]);
}

impl Closer {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event loop is to hear nothing more of it.
    fn forget(&self, socket: &OwnedFd) {
        if let Some(epoll) = self.epoll.get() {
            // It may not be watched.
            let _ = epoll::delete(epoll, socket);
        }
    }

    fn give(&self, mut work: MutexGuard<'_, Work>, all: impl IntoIterator<Item = Open>) {
        let before = work.queue.len();
        work.queue.extend(all);
        work.open += work.queue.len() - before;
        if !work.runs {
            let started = thread::Builder::new()
                .name("closer".into())
                .spawn(|| CLOSER.run());
            match started {
                Ok(_) => work.runs = true,
                // They stay open until the next one starts it.
                Err(error) => warn!("cannot start the thread that closes descriptors: {error}"),
            }
        }
        self.more.notify_one();
    }

    fn run(&self) {
        let mut work = self.work();
        loop {
            let Some(next) = work.queue.pop_front() else {
                let waited = self.more.wait(work);
                work = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            work.since = Some(Instant::now());
            drop(work);
            match next {
                Open::Any(descriptor) => drop(descriptor),
                Open::Unread(socket) => empty(&socket),
            }
            work = self.work();
            work.open -= 1;
            work.since = None;
        }
    }
}

fn empty(socket: &OwnedFd) {
    // What has no connection has no end.
    let has_end = sockopt::socket_type(socket) != Ok(SocketType::DGRAM);
    let mut buffer = [0; 4096];
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) if has_end => return,
            Ok(_) | Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(_) => return,
        }
    }
}
