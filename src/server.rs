//! The event loop: the only `mio::Poll`. Turns readiness, timers, signals and wake-ups into calls
//! of the hub, and what the hub wants watched into registrations.
//!
//! mio registers with EPOLLET, which suits listeners, signals and wake-ups: an event says once that
//! something changed. Clients are registered in the same epoll instance without it (`epoll(7)`):
//! a read from a Unix socket stops short at descriptors, at urgent data and before the end, and on
//! edges each of these would need another look, a third of the cost of an echo; here whatever a read
//! left is told again. The price is that nothing may stay watched that is not acted on, so a client
//! that is not read from, or is awaited for nothing, is not registered for it.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::{info, warn};
use mio::{Events, Interest, Poll, Registry, Token, Waker, event::Event, unix::SourceFd};
use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use crate::{
    alarm::Alarm,
    connection::{Stream, Watch},
    endpoint::Endpoint,
    error::Fatal,
    hub::{Hub, Now},
    link::Link,
    peer::Peer,
    sys,
    systemd::{self, Notifier},
    throttle::Throttle,
    writer::{Target, Writer},
};

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const ALARM: Token = Token(2);
/// Tokens of listeners start here, in the order of the hub's sockets.
const LISTENERS: usize = 3;
/// Tokens of clients start here.
const CLIENTS: usize = 1 << 20;

/// Events that one call of `poll` may bring.
const EVENTS: usize = 1024;
/// Clients that a listener may bring in before the others have their turn.
const TURN_ACCEPTS: usize = 64;
/// How long accepting rests once descriptors have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often the status line may change.
const STATUS_SPAN: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every record is written. Clients that did not take what they were owed in `drain-timeout`,
    /// or until a second signal, were closed without it.
    Stopped,
    /// Messages that were taken into a record could not be written in that time.
    Unwritten,
}

/// The signals that the daemon handles; to be installed first thing in main.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn signals() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])
}

#[derive(Debug)]
struct Listener {
    endpoint: Endpoint,
    /// More clients may wait than were accepted.
    pending: bool,
}

/// The daemon at work.
pub struct Server {
    poll: Poll,
    alarm: Alarm,
    hub: Hub<Link>,
    listeners: Vec<Listener>,
    /// The records' threads, with their sockets' places.
    writers: Vec<(usize, Writer)>,
    signals: Signals,
    notifier: Notifier,
    drain_timeout: Duration,
    watchdog: Option<(Duration, Instant)>,
    status_due: Instant,
    /// Something happened since the status line was last written.
    stale: bool,
    /// Kept open, to be given up for a moment when descriptors run out.
    reserve: Option<File>,
    /// Accepting rests until then.
    rest: Option<Instant>,
    exhausted: Throttle,
    groupless: Throttle,
    /// The stop: it has begun, and ends at this time at the latest.
    stop: Option<Instant>,
    stop_now: bool,
}

impl Server {
    /// A server of `endpoints`, which are the hub's sockets in their order, writing to `targets`
    /// the records of the sockets at these places.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)` and the like, and of starting threads.
    pub fn new(
        hub: Hub<Link>,
        endpoints: Vec<Endpoint>,
        targets: Vec<(usize, Target)>,
        mut signals: Signals,
        drain_timeout: Duration,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, WAKER)?);
        let alarm = Alarm::new()?;
        registry.register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)?;
        for (i, endpoint) in endpoints.iter().enumerate() {
            let token = Token(LISTENERS + i);
            registry.register(
                &mut SourceFd(&endpoint.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
        }
        let mut writers = Vec::new();
        for (socket, target) in targets {
            let waker = Arc::clone(&waker);
            let wake = move || {
                if let Err(error) = waker.wake() {
                    warn!("cannot wake the event loop: {error}");
                }
            };
            writers.push((socket, Writer::start(target, wake)?));
        }
        let listeners = endpoints
            .into_iter()
            .map(|endpoint| Listener {
                endpoint,
                pending: true,
            })
            .collect();
        let now = Instant::now();
        Ok(Server {
            poll,
            alarm,
            hub,
            listeners,
            writers,
            signals,
            notifier: Notifier::default(),
            drain_timeout,
            watchdog: systemd::watchdog().map(|span| (span, now)),
            status_due: now,
            stale: false,
            reserve: reserve(),
            rest: None,
            exhausted: Throttle::default(),
            groupless: Throttle::default(),
            stop: None,
            stop_now: false,
        })
    }

    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// What the daemon cannot go on with.
    pub fn run(mut self) -> Result<Ended, Fatal> {
        self.notifier.ready(self.status());
        let mut events = Events::with_capacity(EVENTS);
        let mut now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        loop {
            let timeout = self.timeout(now)?;
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(Fatal::System {
                    doing: "waiting for events",
                    source: error,
                });
            }
            now.instant = Instant::now();
            if !self.writers.is_empty() {
                now.wall = SystemTime::now();
            }
            for event in &events {
                match event.token() {
                    SIGNALS => self.take_signals(now),
                    WAKER => {}
                    ALARM => self.alarm.rang(),
                    Token(token) if token >= CLIENTS => {
                        self.stale = true;
                        let registry = self.poll.registry();
                        self.hub.event(
                            token - CLIENTS,
                            meaning(event),
                            now,
                            &mut |key, link, from, to| watch(registry, key, link, from, to),
                        );
                    }
                    Token(listener) => {
                        self.stale = true;
                        if let Some(listener) = self.listeners.get_mut(listener - LISTENERS) {
                            listener.pending = true;
                        }
                    }
                }
            }
            let registry = self.poll.registry();
            let mut watch = |key, link: &Link, from, to| watch(registry, key, link, from, to);
            self.hub.turn(now, &mut watch);
            self.hub.expire(now, &mut watch);
            // After those who left: their places are free.
            self.accept(now);
            self.record()?;
            self.report(now);
            if let Some(ended) = self.stopped(now) {
                return Ok(ended);
            }
        }
    }

    /// How long the next `poll` may wait, seen from the turn that has ended: not at all, or until an
    /// event. The next deadline is an event too.
    fn timeout(&mut self, now: Now) -> Result<Option<Duration>, Fatal> {
        let accepts = self.rest.is_none() && self.listeners.iter().any(|listener| listener.pending);
        if self.hub.has_ready() || accepts {
            return Ok(Some(Duration::ZERO));
        }
        let watchdog = self.watchdog.map(|(_, due)| due);
        let status = (self.stale && self.stop.is_none()).then_some(self.status_due);
        let deadlines = [self.hub.deadline(), watchdog, status, self.rest, self.stop];
        if let Some(due) = deadlines.into_iter().flatten().min() {
            self.alarm
                .set(due, now.instant)
                .map_err(|source| Fatal::System {
                    doing: "setting the alarm",
                    source,
                })?;
        }
        Ok(None)
    }

    fn take_signals(&mut self, now: Now) {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP => warn!("SIGHUP: reload is not available yet; systemctl restart udsd"),
                SIGTERM | SIGINT | SIGUSR2 if self.stop.is_some() => self.stop_now = true,
                SIGUSR2 => {
                    warn!("SIGUSR2: handover is not available yet; stopping as for SIGTERM");
                    self.begin_stop(now);
                }
                _ => self.begin_stop(now),
            }
        }
    }

    fn accept(&mut self, now: Now) {
        if self.rest.is_some_and(|until| until > now.instant) {
            return;
        }
        self.rest = None;
        for (socket, listener) in self.listeners.iter_mut().enumerate() {
            for _ in 0..TURN_ACCEPTS {
                if !listener.pending {
                    break;
                }
                match listener.endpoint.accept() {
                    Ok((link, peer)) => {
                        let groups = if self.hub.sockets()[socket].asks_groups() {
                            groups(&link, &peer, &mut self.groupless, now)
                        } else {
                            Vec::new()
                        };
                        let Some(key) = self.hub.enter(socket, link, peer, &groups, now) else {
                            continue;
                        };
                        let Some(link) = self.hub.stream(key) else {
                            continue;
                        };
                        let read = Watch {
                            read: true,
                            write: false,
                        };
                        if let Err(error) =
                            watch(self.poll.registry(), key, link, Watch::default(), read)
                        {
                            self.hub.refuse(key, error, now);
                        }
                    }
                    Err(error) => match Errno::from_io_error(&error) {
                        Some(Errno::AGAIN) => listener.pending = false,
                        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                            // Whoever waits gets an end in place of silence.
                            self.reserve = None;
                            if let Ok((mut link, _)) = listener.endpoint.accept() {
                                link.hang_up();
                            }
                            self.reserve = reserve();
                            self.rest = Some(now.instant + ACCEPT_REST);
                            if let Some(more) = self.exhausted.pass(now.instant) {
                                warn!(
                                    "cannot accept: {error}; resting for {ACCEPT_REST:?} (raise LimitNOFILE= or lower limits.clients; {more} lines like this left out)"
                                );
                            }
                            return;
                        }
                        // The client is gone already, or the call was interrupted.
                        _ => {}
                    },
                }
            }
        }
    }

    /// Hands this turn's lines to the writers, and what they have written to the hub.
    fn record(&mut self) -> Result<(), Fatal> {
        for (socket, writer) in &mut self.writers {
            let Some(record) = self.hub.record(*socket) else {
                continue;
            };
            if !record.pending.is_empty() {
                record.waiting += record.pending.len();
                writer.append(&mut record.pending);
            }
            if record.waiting == 0 {
                continue;
            }
            if !record.blocked.is_empty() || self.stop.is_some() {
                writer.want_progress();
            }
            match writer.progress() {
                0 => {}
                written => self.hub.recorded(*socket, written),
            }
            if let Some(source) = writer.failure() {
                return Err(Fatal::Record {
                    record: writer.name.clone(),
                    source,
                });
            }
        }
        Ok(())
    }

    /// Tells the manager what is due.
    fn report(&mut self, now: Now) {
        if let Some((span, due)) = &mut self.watchdog
            && *due <= now.instant
        {
            self.notifier.alive();
            *due = now.instant + *span;
        }
        if self.stale && self.stop.is_none() && self.status_due <= now.instant {
            self.notifier.status(self.status());
            self.stale = false;
            self.status_due = now.instant + STATUS_SPAN;
        }
    }

    fn status(&self) -> String {
        let messages: u64 = self
            .hub
            .sockets()
            .iter()
            .map(|socket| socket.counters().messages)
            .sum();
        let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}",
            count(self.hub.present() as u64, "client"),
            count(messages, "message"),
            count(self.hub.sockets().len() as u64, "socket")
        )
    }

    /// The stop of `systemctl stop`: accept nothing, read nothing, deliver what was read.
    fn begin_stop(&mut self, now: Now) {
        info!(
            "stopping: {} clients, up to {:?} to deliver what they are owed",
            self.hub.present(),
            self.drain_timeout
        );
        self.notifier
            .stopping(format!("stopping: {} clients", self.hub.present()));
        self.stop = Some(now.instant + self.drain_timeout);
        self.hub.stop();
        for listener in self.listeners.drain(..) {
            listener.endpoint.close();
        }
    }

    /// Ends the stop, once nothing is owed or its time is over.
    fn stopped(&mut self, now: Now) -> Option<Ended> {
        let deadline = self.stop?;
        let unwritten: usize = self.hub.records().map(|(_, record)| record.waiting).sum();
        let clean = self.hub.present() == 0 && unwritten == 0;
        if !clean && !self.stop_now && now.instant < deadline {
            return None;
        }
        if !clean {
            warn!(
                "stop cut short{}: {} clients are still owed something, {unwritten} bytes of records are not written",
                if self.stop_now {
                    " by a second signal"
                } else {
                    " by drain-timeout"
                },
                self.hub.present()
            );
            self.hub.abandon(now);
        }
        if unwritten == 0 {
            for (_, writer) in self.writers.drain(..) {
                writer.finish();
            }
        }
        for socket in self.hub.sockets() {
            info!("{}: {}", socket.name(), socket.counters());
        }
        Some(if unwritten == 0 {
            Ended::Stopped
        } else {
            Ended::Unwritten
        })
    }
}

/// The supplementary groups of a client. One whose groups cannot be read has none: it is judged by
/// its user and its primary group.
fn groups(link: &Link, peer: &Peer, throttle: &mut Throttle, now: Now) -> Vec<u32> {
    sys::groups_of(link).unwrap_or_else(|error| {
        if let Some(more) = throttle.pass(now.instant) {
            warn!(
                "cannot read the supplementary groups of a client ({peer}): {error}; it counts as having none ({more} lines like this left out)"
            );
        }
        Vec::new()
    })
}

/// What an event says. An error or a hang-up is found by reading or by writing, whichever the client
/// is watched for.
fn meaning(event: &Event) -> Watch {
    let over = event.is_error() || event.is_read_closed() || event.is_write_closed();
    Watch {
        read: event.is_readable() || over,
        write: event.is_writable() || over,
    }
}

/// Changes what a client is watched for. EPOLLHUP and EPOLLERR come always, so one that is watched
/// for nothing is taken out.
fn watch(registry: &Registry, key: usize, link: &Link, from: Watch, to: Watch) -> io::Result<()> {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, to.read);
    flags.set(EventFlags::OUT, to.write);
    let data = EventData::new_u64((CLIENTS + key) as u64);
    let none = Watch::default();
    if to == none {
        epoll::delete(registry, link)?;
    } else if from == none {
        epoll::add(registry, link, data, flags)?;
    } else {
        epoll::modify(registry, link, data, flags)?;
    }
    Ok(())
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
