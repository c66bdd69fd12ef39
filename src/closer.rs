//! Closes, on a thread of its own, what may take long to close: descriptors that clients sent, and sockets in
//! which such descriptors wait.
//!
//! The last close of a descriptor may wait: for the peer of a TCP socket with SO_LINGER (`socket(7)`), or for
//! the kernel. With plain `recv(2)` and `close(2)` the event loop would make the last close, when it reads the
//! message that carried the descriptor, or closes the socket in which it waits. Where the kernel refuses
//! descriptors (SO_PASSRIGHTS) this has nothing to do. The thread starts with the first one.
//!
//! A signal ends such a wait, and the descriptor is closed all the same, so a timer interrupts the thread. Or
//! else one user after another could make it wait until its queue is full. The queue has a bound: `ROOM`
//! descriptors and sockets, and those of one message more. Beyond that no descriptor is received and no client
//! accepted.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
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

/// How many descriptors and sockets may wait to be closed.
const ROOM: usize = 1024;
/// They may be one in so many of the files that this process may open, where that is less.
const SHARE: usize = 16;
/// How long a close may wait.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long the thread sleeps where there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

static CLOSER: LazyLock<Closer> = LazyLock::new(|| Closer {
    room: room(sys::open_files()),
    epoll: OnceLock::new(),
    work: Mutex::default(),
    more: Condvar::new(),
});

struct Closer {
    /// How many may be open before more are received, by the limit of open files as it stood at the start.
    room: usize,
    epoll: OnceLock<OwnedFd>,
    work: Mutex<Work>,
    more: Condvar,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<Open>,
    /// How many are in the queue, and the one that is being closed.
    open: usize,
    runs: bool,
    lines: Throttle,
}

/// What is to be closed.
enum Open {
    /// Anything.
    Any(OwnedFd),
    /// A socket from which everything is read first.
    Unread(OwnedFd),
}

fn room(files: usize) -> usize {
    ROOM.min(files / SHARE)
}

/// How many descriptors may be open here, in a process that may open `files` files.
#[must_use]
pub fn most_open(files: usize) -> usize {
    room(files) + DESCRIPTORS
}

/// Has sockets that are closed here removed from `epoll`, by which the event loop watches them.
///
/// # Errors
/// Those of `fcntl(2)`.
pub fn watched_by(epoll: impl AsFd) -> io::Result<()> {
    let epoll = epoll.as_fd().try_clone_to_owned()?;
    // There is one event loop in a process.
    let _ = CLOSER.epoll.set(epoll);
    Ok(())
}

/// Whether one more message with descriptors may be received, or one more client accepted.
pub fn has_room() -> bool {
    let mut work = CLOSER.work();
    let has_room = work.open <= CLOSER.room;
    if !has_room {
        CLOSER.start(&mut work);
    }
    has_room
}

/// Closes descriptors that `sender` sent.
pub fn close_sent(descriptors: Vec<OwnedFd>, sender: &Peer) {
    if descriptors.is_empty() {
        return;
    }
    let mut work = CLOSER.work();
    let count = descriptors.len();
    work.note(|| format!("descriptors that came with a message ({sender}) are closed: {count}"));
    CLOSER.give(work, descriptors.into_iter().map(Open::Any));
}

/// Closes a client's socket, with what waits in it.
pub fn close(socket: OwnedFd) {
    CLOSER.take(socket, Open::Any);
}

/// Reads everything that waits in a client's socket, then closes it: closed with something unread, it would give
/// the client ECONNRESET. The socket is shut down, so nothing more comes.
pub fn read_away(socket: OwnedFd) {
    CLOSER.take(socket, Open::Unread);
}

/// Reads everything that waits in a datagram socket, and closes this copy of it. Nothing more comes.
pub fn read_away_datagrams(socket: OwnedFd) {
    CLOSER.give(CLOSER.work(), [Open::Unread(socket)]);
}

/// Logs how many lines were left out, before this process ends. Until then the thread does that in time.
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
        // The event loop is to hear no more of it.
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

    /// Waits until there may be more to close, or the log is to tell of lines that were left out.
    fn wait<'a>(&self, mut work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        let now = Instant::now();
        let due = work.lines.due();
        let span = due.map_or(IDLE, |due| due.saturating_duration_since(now));
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
    // A datagram may be empty; elsewhere 0 bytes are the end.
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
