//! A new config file under a server at work. All that may fail has been done before, or is done first;
//! what is then put into force cannot.
//!
//! Reading the file, opening what it names and saying what is wrong with it are the daemon's: `run`
//! returns for that, and the next call goes on.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::warn;
use mio::Waker;

use super::{Server, datagrams, listeners, watch};
use crate::{
    accepted::Accepted,
    datagram_socket::DatagramSocket,
    endpoint::{Adjustment, Endpoint},
    error::Fatal,
    hub::{Now, Renewal, Socket, Trail},
    limits::Limits,
    record::Encoder,
    service::Record,
    writer::{Closed, Target, Writer},
};

/// Writers of records that are no more and not yet written.
const PARTING: usize = 64;

/// What a config file makes of a server: everything is open, nothing is in force.
#[derive(Debug)]
pub struct Plan {
    /// All sockets of the file.
    pub sockets: Vec<PlannedSocket>,
    /// `[limits]`
    pub limits: Limits,
    /// `drain-timeout`
    pub drain_timeout: Duration,
    /// `exit-on-idle`
    pub exit_on_idle: Option<Duration>,
    /// All of the file as TOML.
    pub config: String,
}

/// One socket of a plan.
#[derive(Debug)]
pub struct PlannedSocket {
    /// Its rules, without its record.
    pub socket: Socket,
    /// Where its clients come from.
    pub endpoint: PlannedEndpoint,
    /// Its record.
    pub record: PlannedRecord,
}

/// Where the clients of a planned socket come from.
#[derive(Debug)]
pub enum PlannedEndpoint {
    /// From where they come now.
    Kept(Adjustment),
    /// From elsewhere; with a datagram_socket where datagrams come.
    New(Endpoint, Option<DatagramSocket>),
    /// From nowhere: it could not be had.
    None,
}

/// What becomes of the record of a planned socket.
#[derive(Debug)]
pub enum PlannedRecord {
    /// There is none, or no longer.
    None,
    /// It is a new one.
    New(Result<Target, Closed>, Record),
    /// The one of socket number `of` goes on.
    Kept {
        /// Whose it is so far.
        of: usize,
        /// What makes its lines.
        encoder: Encoder,
        /// Bytes that may wait for the disk.
        queue_size: usize,
        /// Where it goes from now on, if that is another file than before, or it is not open.
        target: Option<Result<Target, Closed>>,
    },
}

/// Starts a record's thread, which wakes the event loop.
pub(super) fn start_writer(
    target: Result<Target, Closed>,
    waker: &Arc<Waker>,
) -> io::Result<Writer> {
    let waker = Arc::clone(waker);
    let wake = move || {
        if let Err(error) = waker.wake() {
            warn!("cannot wake the event loop: {error}");
        }
    };
    Writer::start(target, wake)
}

/// A plan of which nothing can fail any more that is not seen to later.
pub struct Prepared {
    places: Vec<usize>,
    ready: Ready,
    limits: Limits,
    drain_timeout: Duration,
    exit_on_idle: Option<Duration>,
    config: String,
}

/// What it has open; the sockets by their numbers in the hub.
#[derive(Default)]
struct Ready {
    renewals: Vec<Renewal>,
    endpoints: Vec<(usize, Source)>,
    writers: Vec<(usize, Thread)>,
}

impl Ready {
    /// It is not put into force. Of a writer that is only dropped, thread and file would stay.
    fn give_up(self) {
        for (_, thread) in self.writers {
            if let Thread::New(writer) = thread {
                writer.finish();
            }
        }
    }
}

enum Source {
    None,
    Kept(Adjustment),
    New(Endpoint, Option<Rc<OwnedFd>>),
}

enum Thread {
    New(Writer),
    Kept {
        of: usize,
        target: Option<Result<Target, Closed>>,
    },
}

impl Server {
    /// The manager is told that a reload has begun, and lock files hold this process' pid again.
    pub fn reloading(&mut self) {
        self.is_ready = false;
        self.notifier.reloading();
        for place in 0..self.listeners.places() {
            self.listeners
                .endpoint(place)
                .iter()
                .for_each(|of| of.fill_lock());
        }
        for lock in self.writers.iter().filter_map(|(_, of)| of.lock()) {
            lock.fill();
        }
    }

    /// The reload changed nothing, for this reason: the status says so until one succeeds.
    pub fn unchanged(&mut self, fault: String) {
        self.unchanged = Some(fault);
    }

    /// Lines that an earlier process took into the record of the socket `name`: they are written first.
    pub fn take_lines(&mut self, name: &str, lines: &[u8]) {
        let place = self.hub.place(name);
        if let Some(record) = place.and_then(|place| self.hub.record(place)) {
            record.take_lines(lines);
        }
    }

    /// What was handed over is this process' own from now on.
    pub fn own(&mut self) {
        for place in 0..self.listeners.places() {
            if let Some(endpoint) = self.listeners.endpoint_mut(place) {
                endpoint.own();
            }
        }
    }

    /// The manager no longer passes these sockets: once they are let go, nobody can connect there.
    pub fn disown(&mut self, places: &[usize]) {
        for &place in places {
            if let Some(endpoint) = self.listeners.endpoint_mut(place) {
                endpoint.disown();
            }
            self.hub.disown(place);
        }
    }

    /// Whether one of its sockets is not among those with these cookies, which the manager has.
    #[must_use]
    pub fn has_unmanaged(&self, cookies: &[u64]) -> bool {
        let mut all =
            (0..self.listeners.places()).filter_map(|place| self.listeners.endpoint(place));
        all.any(|endpoint| {
            let cookie = endpoint.cookie();
            !cookie.is_ok_and(|cookie| cookies.contains(&cookie))
        })
    }

    /// The number of the socket `name`.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.hub.place(name)
    }

    /// Where the clients of socket number `place` come from.
    #[must_use]
    pub fn endpoint(&self, place: usize) -> Option<&Endpoint> {
        self.listeners.endpoint(place)
    }

    /// The writers of all records, with the numbers of their sockets.
    #[must_use]
    pub fn writers(&self) -> &[(usize, Writer)] {
        &self.writers
    }

    /// Does of a plan what may fail and nobody notices.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn prepare(&self, plan: Plan) -> Result<Prepared, Fatal> {
        let Plan {
            sockets,
            limits,
            drain_timeout,
            exit_on_idle,
            config,
        } = plan;
        if self.parting.len() >= PARTING {
            return Err(Fatal::Record {
                record: self.parting[0].name.clone(),
                source: io::Error::other(
                    "too many records that earlier reloads ended still wait to be written",
                ),
            });
        }
        let places = self
            .hub
            .places(sockets.iter().map(|planned| planned.socket.name()));
        let mut ready = Ready::default();
        for (&place, planned) in places.iter().zip(sockets) {
            if let Err(source) = self.make_ready(place, planned, &mut ready) {
                ready.give_up();
                return Err(Fatal::System {
                    doing: "setting up what the file says",
                    source,
                });
            }
        }
        Ok(Prepared {
            places,
            ready,
            limits,
            drain_timeout,
            exit_on_idle,
            config,
        })
    }

    /// Does the rest.
    pub fn put(&mut self, prepared: Prepared) {
        let Prepared {
            places,
            ready,
            limits,
            drain_timeout,
            exit_on_idle,
            config,
        } = prepared;
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        self.receive_the_last(&ready, now);
        self.put_into_force(&places, ready, &limits, now);
        self.config = config;
        self.drain_timeout = drain_timeout;
        if self.exit_on_idle() != exit_on_idle {
            self.set_exit_on_idle(exit_on_idle);
        }
        self.unchanged = None;
        // What the manager was told may not be so any more.
        self.stale |= self.is_ready;
    }

    /// What may fail: watching, and starting threads. What was watched is forgotten where it is
    /// dropped (`epoll(7)`).
    fn make_ready(
        &self,
        place: usize,
        planned: PlannedSocket,
        ready: &mut Ready,
    ) -> io::Result<()> {
        let PlannedSocket {
            socket,
            endpoint,
            record,
        } = planned;
        let registry = self.poll.registry();
        let mut datagram_socket = None;
        let source = match endpoint {
            PlannedEndpoint::None => Source::None,
            PlannedEndpoint::Kept(adjustment) => Source::Kept(adjustment),
            PlannedEndpoint::New(endpoint, new) => {
                listeners::register(&endpoint, place, registry)?;
                let fd = new.as_ref().map(DatagramSocket::socket);
                if let Some(fd) = &fd {
                    datagrams::register(fd, place, registry)?;
                }
                datagram_socket = new;
                Source::New(endpoint, fd)
            }
        };
        let trail = match record {
            PlannedRecord::None => Trail::None,
            PlannedRecord::New(target, record) => {
                let writer = start_writer(target, &self.waker)?;
                ready.writers.push((place, Thread::New(writer)));
                Trail::New(record)
            }
            PlannedRecord::Kept {
                of,
                encoder,
                queue_size,
                target,
            } => {
                let opened = target.as_ref().and_then(|target| target.as_ref().ok());
                let seq = opened.map_or(0, |target| target.last_seq);
                ready.writers.push((place, Thread::Kept { of, target }));
                Trail::Kept {
                    of,
                    encoder,
                    queue_size,
                    seq,
                }
            }
        };
        ready.endpoints.push((place, source));
        ready.renewals.push(Renewal {
            socket,
            trail,
            datagram_socket: datagram_socket.map(|datagram_socket| Box::new(datagram_socket) as _),
        });
        Ok(())
    }

    /// What waits at datagram sockets that others take the places of is received first.
    fn receive_the_last(&mut self, ready: &Ready, now: Now) {
        for (place, source) in &ready.endpoints {
            if matches!(source, Source::New(..)) {
                self.datagrams.receive_all(*place, &mut self.hub, now);
            }
        }
        // The next turn ends the daemon with a record that cannot be written any more.
        let _ = self.record(now);
    }

    fn put_into_force(&mut self, places: &[usize], ready: Ready, limits: &Limits, now: Now) {
        let Ready {
            renewals,
            endpoints,
            writers,
        } = ready;
        let registry = self.poll.registry();
        let goes_on = |renewal: &Renewal| {
            let socket = &renewal.socket;
            self.hub.place_of(socket.name(), &socket.nature()).is_ok()
        };
        let go_on: Vec<bool> = renewals.iter().map(goes_on).collect();
        let mut watch = |key, link: &Accepted, from, to| watch(registry, key, link, from, to);
        let opened = self.hub.apply(renewals, limits, now, &mut watch);
        for place in 0..self.listeners.places() {
            if !places.contains(&place)
                && let Some(old) = self.listeners.take(place)
            {
                self.datagrams.remove(place, registry);
                listeners::deregister(&old, registry);
                old.close();
            }
        }
        for ((place, source), goes_on) in endpoints.into_iter().zip(go_on) {
            let (mut endpoint, fd) = match source {
                Source::None => {
                    self.datagrams.remove(place, registry);
                    if let Some(old) = self.listeners.take(place) {
                        listeners::deregister(&old, registry);
                        old.close();
                    }
                    continue;
                }
                Source::New(endpoint, fd) => (endpoint, fd),
                Source::Kept(adjustment) => {
                    if let Some(endpoint) = self.listeners.endpoint_mut(place) {
                        endpoint.adjust(adjustment);
                    }
                    continue;
                }
            };
            endpoint.settle();
            let old = self.listeners.put(place, endpoint);
            self.datagrams.remove(place, registry);
            if let Some(fd) = fd
                && let Some(&(_, number)) = opened.iter().find(|(of, _)| *of == place)
            {
                self.datagrams.put(place, fd, number);
            }
            match old {
                Some(old) if goes_on && old.listens() => {
                    self.listeners
                        .drain(old, place, &mut self.hub, registry, now);
                }
                Some(old) => {
                    listeners::deregister(&old, registry);
                    old.close();
                }
                None => {}
            }
        }
        let mut before: HashMap<usize, Writer> = self.writers.drain(..).collect();
        for (place, thread) in writers {
            let writer = match thread {
                Thread::New(writer) => Some(writer),
                Thread::Kept { of, target } => before.remove(&of).map(|mut writer| {
                    match target {
                        Some(Ok(target)) => writer.move_to(target),
                        Some(Err(closed)) => writer.try_again(closed),
                        None => {}
                    }
                    writer
                }),
            };
            self.writers.extend(writer.map(|writer| (place, writer)));
        }
        for writer in before.into_values() {
            if writer.is_open() {
                self.parting.push(writer);
                continue;
            }
            writer.want_back();
            let lost = writer.unwritten();
            if lost > 0 {
                warn!(
                    "record {}: it is no more, {lost} bytes of lines that could not be written are lost",
                    writer.name
                );
            }
        }
        let stamps = self.hub.sockets().iter().any(Socket::stamps);
        self.tells_time = !self.writers.is_empty() || stamps;
    }

    /// Lets go of the writers of records that are no more, once all is written.
    pub(super) fn part(&mut self) -> Result<(), Fatal> {
        let mut outcome = Ok(());
        for writer in &self.parting {
            writer.want_progress();
            outcome = outcome.and(writer.check());
        }
        let written = |writer: &mut Writer| writer.unwritten() == 0;
        self.parting
            .extract_if(.., written)
            .for_each(Writer::finish);
        outcome
    }
}
