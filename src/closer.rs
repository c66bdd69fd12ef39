//! Closes what may take long to close, on a thread of its own: descriptors that clients sent, and
//! sockets in which such wait.
//!
//! The last close of a descriptor does what its kind demands: a TCP socket with SO_LINGER waits for its
//! peer (`socket(7)`), others for the kernel. Whoever makes the last close waits for that, and with
//! plain `recv(2)` and `close(2)` that is who reads what the descriptor came with, or closes the socket
//! that it waits in. Where the kernel keeps descriptors out (SO_PASSRIGHTS) there are none, and this has
//! nothing to do; the thread starts with the first.
//!
//! A signal ends such a wait, and the close goes on without it: the thread has itself interrupted.
//! Otherwise one user after another could have it wait for as long as it takes them to fill its queue.
//! That has a bound: no more than `ROOM` descriptors and sockets, and those of one message, are open here;
//! beyond that no descriptors are received, and nobody is accepted.

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

use crate::{
    peer::Peer,
    sys::{self, DESCRIPTORS, Interrupter},
    throttle::{LeftOut, Throttle},
};

/// Descriptors and sockets that are not closed yet; beyond that, none are received or accepted.
const ROOM: usize = 1024;
/// The part of this process' files that they may be, where that is less.
const SHARE: usize = 16;
/// How long a close may wait for a peer.
const PATIENCE: Duration = Duration::from_millis(1);

static CLOSER: Closer = Closer {
    room: AtomicUsize::new(ROOM),
    epoll: OnceLock::new(),
    work: Mutex::new(Work {
        queue: VecDeque::new(),
        open: 0,
        runs: false,
        lines: Throttle::new(),
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
    /// Those of the queue, and the one that is being closed.
    open: usize,
    runs: bool,
    lines: Throttle,
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

/// Whether the descriptors of one message more may be received, or a socket accepted in which some wait.
pub fn has_room() -> bool {
    let mut work = CLOSER.work();
    let has_room = work.open <= CLOSER.room.load(Ordering::Relaxed);
    if !has_room {
        CLOSER.start(&mut work);
    }
    has_room
}

/// Closes what `sender` sent.
pub fn close_sent(descriptors: Vec<OwnedFd>, sender: &Peer) {
    if descriptors.is_empty() {
        return;
    }
    let mut work = CLOSER.work();
    let count = descriptors.len();
    work.note(|| format!("descriptors that came with a message ({sender}) are closed: {count}"));
    CLOSER.give(work, descriptors.into_iter().map(Open::Any));
}

/// Closes a client's socket with all that waits in it.
pub fn close(socket: OwnedFd) {
    CLOSER.take(socket, Open::Any);
}

/// As `close`, but reads away first what waits there: closed with it, the socket would give its peer
/// ECONNRESET. Nothing more comes: it is shut down.
pub fn read_away(socket: OwnedFd) {
    CLOSER.take(socket, Open::Unread);
}

/// Reads away what waits at a datagram socket, of which this is a copy: nothing more comes.
pub fn read_away_datagrams(socket: OwnedFd) {
    CLOSER.give(CLOSER.work(), [Open::Unread(socket)]);
}

/// Has the log tell of the lines that were left out, as this process ends. Until then the thread does, when
/// their time is over.
pub fn tell_left_out() {
    CLOSER.work().tell_left_out();
}

impl Work {
    fn note(&mut self, line: impl FnOnce() -> String) {
        match self.lines.pass(1, Instant::now()) {
            None => {}
            Some(LeftOut { lines: 0, .. }) => warn!("{}", line()),
            Some(LeftOut { lines, .. }) => {
                warn!("{} ({lines} lines like this left out)", line());
            }
        }
    }

    fn tell_left_out(&mut self) {
        if self.lines.due().is_some() {
            let LeftOut { lines, .. } = self.lines.take_left_out();
            warn!(
                "descriptors that clients sent, and sockets they may wait in: {lines} lines left out"
            );
        }
    }
}

impl Closer {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, socket: OwnedFd, how: fn(OwnedFd) -> Open) {
        // The event loop is to hear nothing more of it, where it watches it.
        if let Some(epoll) = self.epoll.get() {
            let _ = epoll::delete(epoll, &socket);
        }
        let client = sys::peer_of(&socket).unwrap_or(Peer::NONE);
        let mut work = self.work();
        work.note(|| {
            format!("descriptors may wait in a client's socket ({client}), which is closed")
        });
        self.give(work, [how(socket)]);
    }

    fn give(&self, mut work: MutexGuard<'_, Work>, all: impl IntoIterator<Item = Open>) {
        let before = work.queue.len();
        work.queue.extend(all);
        work.open += work.queue.len() - before;
        self.start(&mut work);
        self.more.notify_one();
    }

    fn start(&self, work: &mut Work) {
        if work.runs {
            return;
        }
        let started = thread::Builder::new()
            .name("closer".into())
            .spawn(|| CLOSER.run());
        match started {
            Ok(_) => work.runs = true,
            // They stay open until another attempt succeeds.
            Err(error) => {
                work.note(|| format!("cannot start the thread that closes descriptors: {error}"));
            }
        }
    }

    /// Waits until there may be more to do, or lines that were left out are to be told.
    fn wait<'a>(&self, mut work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        let Some(due) = work.lines.due() else {
            let waited = self.more.wait(work);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        let span = due.saturating_duration_since(Instant::now());
        if span.is_zero() {
            work.tell_left_out();
        }
        let waited = self.more.wait_timeout(work, span);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn run(&self) {
        let interrupter = Interrupter::new();
        if let Err(error) = &interrupter {
            warn!("cannot bound how long the close of a descriptor takes: {error}");
        }
        let bound = |span| interrupter.iter().for_each(|it| it.set(span));
        let mut work = self.work();
        loop {
            let Some(next) = work.queue.pop_front() else {
                work = self.wait(work);
                continue;
            };
            drop(work);
            bound(PATIENCE);
            match next {
                Open::Any(descriptor) => drop(descriptor),
                Open::Unread(socket) => empty(&socket),
            }
            bound(Duration::ZERO);
            work = self.work();
            work.open -= 1;
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
