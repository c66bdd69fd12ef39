//! The event loop: the only `mio::Poll`. Turns readiness, timers, signals and wake-ups into calls
//! of the hub, and what the hub wants watched into registrations.
//!
//! mio registers with EPOLLET, which suits listeners, signals and wake-ups: an event says once that
//! something changed. Clients are registered in the same epoll instance without it (`epoll(7)`):
//! a read from a Unix socket stops short at descriptors, at urgent data and before the end, and on
//! edges each of these would need another look, a third of the cost of an echo; here whatever a read
//! left is told again. The price is that nothing may stay watched that is not acted on, so a client
//! that is not read from, or is awaited for nothing, is not registered for it. Datagram sockets are
//! registered in the same way.

mod accept;
mod apply;
mod control;
mod handover;
mod heap;
mod idle;
mod metrics;
mod records;
mod signals;
mod sockets;

use std::{
    fs::File,
    io, mem,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::{info, warn};
use mio::{Events, Interest, Poll, Registry, Token, Waker, event::Event, unix::SourceFd};
use rustix::event::epoll::{self, EventData, EventFlags};
use signal_hook_mio::v1_0::Signals;

pub use apply::{
    Plan, PlannedEndpoint, PlannedSocket, PlannedWriter, Prepared, REFUSED_AT_RESTART,
    RELOAD_FAILED, Settings,
};
pub use signals::signals;

use heap::Heap;
use idle::Idle;
use sockets::Sockets;

use crate::{
    cgroups,
    client_socket::ClientSocket,
    closer,
    connection::Watch,
    error::{Fatal, Faults},
    hub::{Hub, Now, Socket, WatchChange},
    parking::Parking,
    record::Writer,
    systemd::{self, Notifier},
    timer::Timer,
};

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const TIMER: Token = Token(2);
/// Tokens of sockets start here, by the hub's keys.
const SOCKETS: usize = 3;
/// Tokens of clients start here.
const CLIENTS: usize = 1 << 20;

/// Events that one call of `poll` may bring.
const EVENTS: usize = 1024;
/// How often the status line may change.
const STATUS_SPAN: Duration = Duration::from_secs(5);

/// How a run ended.
pub enum Ended {
    /// Every record is written. Clients that did not take what they were owed in `drain-timeout`,
    /// or until a second signal, were closed without it.
    Stopped,
    /// Messages that were taken into a record could not be written in that time.
    LinesLost,
    /// It has not: SIGHUP asks for a reload, and the next call of `run` goes on.
    Reload(Box<Server>),
    /// Everything is left to the next process.
    HandedOver,
}

/// The daemon at work.
pub struct Server {
    poll: Poll,
    timer: Timer,
    hub: Hub<ClientSocket>,
    sockets: Sockets,
    /// The threads of records that are no more, until all is written.
    draining: Vec<Writer>,
    waker: Arc<Waker>,
    signals: Signals,
    notifier: Notifier,
    /// When this process began to serve.
    started: Now,
    settings: Settings,
    watchdog: Option<(Duration, Instant)>,
    status_due: Instant,
    /// Records or stamped messages carry the time.
    tells_time: bool,
    /// Something happened since the status line was last written.
    stale: bool,
    phase: Phase,
    /// The manager has been told that it serves.
    is_ready: bool,
    /// Why the last one changed nothing.
    unchanged: Option<String>,
    idle: Idle,
    heap: Heap,
    /// Memory may have to be given back by then.
    heap_due: Option<Instant>,
    /// Kept open, to be given up for a handover when descriptors have run out.
    spare: Vec<File>,
}

/// What comes next. Later ones win over those before them.
enum Phase {
    /// It serves.
    Serving,
    /// At the end of this turn the file is read again.
    Reloading,
    /// At the end of this turn all is left there.
    HandingOver(Parking),
    /// What is owed is delivered. It ends at this time at the latest, or at once by a second signal.
    Stopping { until: Instant, at_once: bool },
}

impl Server {
    /// A server of `hub`, whose sockets `resume` adds, and `put`.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)` and the like.
    pub fn new(hub: Hub<ClientSocket>, mut signals: Signals) -> io::Result<Self> {
        let poll = Poll::new()?;
        closer::watched_by(poll.registry())?;
        let registry = poll.registry();
        registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, WAKER)?);
        cgroups::wake_by(&waker);
        let timer = Timer::new()?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let started = Now::read();
        let now = started.instant;
        Ok(Server {
            tells_time: false,
            poll,
            timer,
            hub,
            sockets: Sockets::default(),
            draining: Vec::new(),
            waker,
            signals,
            notifier: Notifier::default(),
            started,
            settings: Settings::default(),
            watchdog: systemd::watchdog().map(|span| (span, now)),
            status_due: now,
            stale: false,
            phase: Phase::Serving,
            is_ready: false,
            unchanged: None,
            idle: Idle::Never,
            heap: Heap::new(now),
            heap_due: None,
            spare: handover::spare(),
        })
    }

    /// Tells the manager, once, that it serves.
    pub fn ready(&mut self) {
        if !mem::replace(&mut self.is_ready, true) {
            self.notifier.ready(self.status());
        }
    }

    /// Serves until a signal ends it, or asks for a reload.
    ///
    /// # Errors
    /// What the daemon cannot go on with.
    pub fn run(mut self) -> Result<Ended, Fatal> {
        // Taps are open again before anything passes.
        self.reopen_taps();
        self.ready();
        let mut events = Events::with_capacity(EVENTS);
        let mut now = Now::read();
        loop {
            self.wait(&mut events, now)?;
            now.instant = Instant::now();
            if self.tells_time {
                now.wall = SystemTime::now();
            }
            let is_due = self.take(&events, now);
            let came = self.look_around(&events, now);
            if is_due {
                self.hub.expire(now);
            }
            self.hub.expect_clients(self.sockets.is_pending());
            self.hub.turn(now);
            if self.hub.has_calls() {
                self.answer(now);
            }
            // After those who left: there is room again.
            self.sockets.accept(&mut self.hub, now);
            if let Err(fatal) = self.record(now) {
                self.hub.abandon(now);
                self.sum_up();
                return Err(fatal);
            }
            if matches!(self.phase, Phase::HandingOver(_)) {
                self.hand_over(now);
                return Ok(Ended::HandedOver);
            }
            self.heap_due = self.heap.settle(self.hub.held(), now.instant);
            self.report(now);
            self.stop_if_idle(came, now);
            if let Some(ended) = self.stopped(now) {
                return Ok(ended);
            }
            // Last: nothing of this turn is left, and no event of it comes to who is new under a key.
            if matches!(self.phase, Phase::Reloading) {
                self.phase = Phase::Serving;
                return Ok(Ended::Reload(Box::new(self)));
            }
        }
    }

    /// Waits for events, or for the next deadline, seen from the turn that has ended.
    fn wait(&mut self, events: &mut Events, now: Now) -> Result<(), Fatal> {
        self.watch(now)?;
        let timeout = self.timeout(now)?;
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(Faults::system("waiting for events")(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Changes what is watched as the hub asks for it.
    fn watch(&mut self, now: Now) -> Result<(), Fatal> {
        let registry = self.poll.registry();
        while let Some(change) = self.hub.next_watch_change() {
            match change {
                WatchChange::Client {
                    key,
                    stream,
                    from,
                    to,
                } => {
                    if let Err(error) = watch_client(registry, key, stream, from, to) {
                        self.hub.fail(key, error, now);
                    }
                }
                WatchChange::Datagrams { socket, read } => {
                    let watched = self.sockets.watch_datagrams(socket, read, registry);
                    watched.map_err(Faults::system("watching a datagram socket"))?;
                }
            }
        }
        Ok(())
    }

    /// Notes what events say; whether a deadline is over.
    fn take(&mut self, events: &Events, now: Now) -> bool {
        let mut is_due = false;
        for event in events {
            match event.token() {
                SIGNALS => self.take_signals(now),
                WAKER => {
                    if cgroups::have_ended() {
                        self.hub.wake_calls();
                    }
                }
                TIMER => {
                    is_due = true;
                    self.timer.expired();
                }
                Token(token) if token >= CLIENTS => {
                    self.stale = true;
                    self.hub.event(token - CLIENTS, meaning(event));
                }
                Token(token) => {
                    self.stale = true;
                    self.sockets.event(token - SOCKETS, &mut self.hub);
                }
            }
        }
        is_due
    }

    /// How long the next `poll` may wait, seen from the turn that has ended: not at all, or until an
    /// event. The next deadline is an event too.
    fn timeout(&mut self, now: Now) -> Result<Option<Duration>, Fatal> {
        let watchdog = self.watchdog.map(|(_, due)| due);
        let status = (self.stale && !self.stops()).then_some(self.status_due);
        let deadlines = [
            self.hub.deadline(),
            watchdog,
            status,
            self.sockets.rest(),
            self.stop_until(),
            self.heap_due,
            self.idle_until(),
        ];
        if let Some(due) = deadlines.into_iter().flatten().min() {
            let set = self.timer.set(due, now.instant);
            set.map_err(Faults::system("setting the timer"))?;
        }
        let goes_on = self.hub.has_calls() || self.hub.has_ready() || self.sockets.is_pending();
        Ok(goes_on.then_some(Duration::ZERO))
    }

    /// The last lines of the log: what happened on each socket.
    fn sum_up(&mut self) {
        self.hub.tell_left_out(None);
        closer::tell_left_out();
        for (_, socket) in self.serving() {
            info!("{}: {}", socket.name(), socket.counters());
        }
    }

    /// Tells the manager what is due.
    fn report(&mut self, now: Now) {
        if let Some((span, due)) = &mut self.watchdog
            && *due <= now.instant
        {
            self.notifier.alive();
            *due = now.instant + *span;
        }
        if self.stale && !self.stops() && self.status_due <= now.instant {
            self.notifier.status(self.status());
            self.stale = false;
            self.status_due = now.instant + STATUS_SPAN;
        }
    }

    /// The sockets that the file has.
    fn serving(&self) -> impl Iterator<Item = (usize, &Socket)> {
        let all = self.hub.sockets().iter();
        all.filter(|(_, socket)| !socket.is_draining() && !socket.is_control())
    }

    fn status(&self) -> String {
        let counts = self.serving().map(|(_, of)| (1, of.counters().messages));
        let (sockets, messages) = counts.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        let counts = format!(
            "{}, {}, {}",
            count(self.hub.present() as u64, "client"),
            count(messages, "message"),
            count(sockets, "socket")
        );
        let counts = match self.unopened_records() {
            Some(closed) => format!("{closed}: {counts}"),
            None => counts,
        };
        match &self.unchanged {
            Some(why) => format!("{why}; serving as before: {counts}"),
            None => counts,
        }
    }

    /// The stop of `systemctl stop`: accept nothing, read nothing, deliver what was read.
    fn begin_stop(&mut self, now: Now) {
        let clients = count(self.hub.present() as u64, "client");
        let span = self.settings.drain_timeout;
        info!("stopping: {clients}, up to {span:?} to deliver what they are owed");
        self.notifier.stopping(format!("stopping: {clients}"));
        // Whoever stops the service does not want another process.
        self.phase = Phase::Stopping {
            until: now.instant + span,
            at_once: false,
        };
        self.hub.stop();
        self.sockets.close_listeners(self.poll.registry());
    }

    fn stops(&self) -> bool {
        self.stop_until().is_some()
    }

    fn stop_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Ends the stop, once nothing is owed or its time is over.
    fn stopped(&mut self, now: Now) -> Option<Ended> {
        let Phase::Stopping { until, at_once } = self.phase else {
            return None;
        };
        let unwritten: usize = self.hub.records().map(|record| record.unwritten()).sum();
        let unwritten = unwritten + self.draining.iter().map(Writer::unwritten).sum::<usize>();
        let undelivered = self.hub.undelivered();
        // Who only asks, and may not even read the answer, holds up no stop.
        let clean = self.hub.present() == 0 && undelivered == 0 && unwritten == 0;
        if !clean && !at_once && now.instant < until {
            return None;
        }
        if !clean {
            let clients = count(self.hub.present() as u64, "client");
            let by = if at_once {
                "a second signal"
            } else {
                "drain-timeout"
            };
            warn!(
                "stop cut short by {by}: {clients} left that are owed something, {unwritten} bytes of records are not written, {undelivered} datagrams are not delivered"
            );
        }
        self.hub.abandon(now);
        if unwritten == 0 {
            let writers = self.sockets.take_writers().map(|(_, writer)| writer);
            for writer in writers.chain(self.draining.drain(..)) {
                writer.finish();
            }
        }
        self.sum_up();
        Some(if unwritten == 0 {
            Ended::Stopped
        } else {
            Ended::LinesLost
        })
    }
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What an event says. An error or a hang-up is found by reading or by writing, whichever the client
/// is watched for.
fn meaning(event: &Event) -> Watch {
    let over = event.is_error() || event.is_read_closed() || event.is_write_closed();
    Watch {
        read: event.is_readable() || over,
        write: event.is_writable() || over,
        end: event.is_error() || event.is_write_closed(),
    }
}

/// Changes what a client is watched for. EPOLLHUP and EPOLLERR come always, so one that is watched
/// for nothing is taken out.
fn watch_client(
    registry: &Registry,
    key: usize,
    client: &ClientSocket,
    from: Watch,
    to: Watch,
) -> io::Result<()> {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, to.read);
    flags.set(EventFlags::OUT, to.write);
    let data = EventData::new_u64((CLIENTS + key) as u64);
    let none = Watch::default();
    if to == none {
        epoll::delete(registry, client)?;
    } else if from == none {
        epoll::add(registry, client, data, flags)?;
    } else {
        epoll::modify(registry, client, data, flags)?;
    }
    Ok(())
}
