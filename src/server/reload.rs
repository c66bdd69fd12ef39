//! A new config file under a server at work. All that may fail has been done before, or is done first;
//! what is then put into force cannot.
//!
//! Reading the file, opening what it names and saying what is wrong with it are the daemon's: `run`
//! returns for that, and the next call goes on.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use log::warn;

use super::{Server, datagrams, listeners, watch};
use crate::{
    accepted::Accepted,
    datagram_socket::DatagramSocket,
    endpoint::{Adjustment, Endpoint},
    error::Fatal,
    hub::{Now, Renewal, Socket, Trail},
    limits::Limits,
    record::{Closed, Encoder, Record, Target, Writer},
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
    /// From elsewhere; with a datagram socket where datagrams come.
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
    New(Unused, Record),
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

/// A record's thread that has nothing to write yet. Of a writer that is only dropped, thread and file would
/// stay.
#[derive(Debug)]
pub struct Unused(Option<Writer>);

impl Drop for Unused {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Writer::finish);
    }
}

/// A plan of which nothing can fail any more that is not seen to later.
pub struct Prepared {
    plan: Plan,
    /// The numbers of its sockets in the hub.
    places: Vec<usize>,
}

/// What the status begins with where a reload has changed nothing, and where a restart goes on by the file of
/// before.
pub const RELOAD_FAILED: &str = "reload failed";
/// See `RELOAD_FAILED`.
pub const REFUSED_AT_RESTART: &str = "restart: new udsd.toml refused";

fn setting_up(source: io::Error) -> Fatal {
    Fatal::System {
        doing: "setting up what the file says",
        source,
    }
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

    /// The file is not in force, for this reason: the status says so until a reload succeeds. `when` is
    /// `RELOAD_FAILED` or `REFUSED_AT_RESTART`.
    pub fn unchanged(&mut self, when: &str, fault: &str) {
        self.unchanged = Some(format!("{when}: {fault}"));
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
            .places(plan.sockets.iter().map(|of| of.socket.name()));
        for (&place, planned) in places.iter().zip(&plan.sockets) {
            if let PlannedEndpoint::New(endpoint, datagram_socket) = &planned.endpoint {
                self.register(place, endpoint, datagram_socket.as_ref())
                    .map_err(setting_up)?;
            }
        }
        Ok(Prepared { plan, places })
    }

    /// What is watched is forgotten where it is dropped (`epoll(7)`).
    fn register(
        &self,
        place: usize,
        endpoint: &Endpoint,
        datagram_socket: Option<&DatagramSocket>,
    ) -> io::Result<()> {
        let registry = self.poll.registry();
        listeners::register(endpoint, place, registry)?;
        match datagram_socket {
            Some(of) => datagrams::register(&of.socket(), place, registry),
            None => Ok(()),
        }
    }

    /// Starts a record's thread, which wakes the event loop.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start_writer(&self, target: Result<Target, Closed>) -> Result<Unused, Fatal> {
        let waker = Arc::clone(&self.waker);
        let wake = move || {
            if let Err(error) = waker.wake() {
                warn!("cannot wake the event loop: {error}");
            }
        };
        let writer = Writer::start(target, wake).map_err(setting_up)?;
        Ok(Unused(Some(writer)))
    }

    /// A socket that is restored: number `place` of the hub.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`, and of starting threads.
    pub fn resume(
        &mut self,
        place: usize,
        endpoint: Option<(Endpoint, Option<DatagramSocket>)>,
        target: Option<Result<Target, Closed>>,
    ) -> Result<(), Fatal> {
        if let Some((endpoint, datagram_socket)) = endpoint {
            self.register(place, &endpoint, datagram_socket.as_ref())
                .map_err(setting_up)?;
            self.listeners.put(place, endpoint);
            if let Some(of) = datagram_socket {
                let (fd, now) = (of.socket(), Instant::now());
                self.hub.open(place, Box::new(of), now);
                self.datagrams.put(place, fd);
            }
        }
        if let Some(target) = target {
            let writer = self.start_writer(target)?.0.take();
            self.writers.extend(writer.map(|writer| (place, writer)));
        }
        self.note_time();
        Ok(())
    }

    /// `[daemon]`, and all of the file as TOML.
    pub fn set(&mut self, drain_timeout: Duration, exit_on_idle: Option<Duration>, config: String) {
        self.drain_timeout = drain_timeout;
        self.config = config;
        self.set_exit_on_idle(exit_on_idle);
    }

    /// Does the rest.
    pub fn put(&mut self, prepared: Prepared) {
        let Prepared { plan, places } = prepared;
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        for (&place, planned) in places.iter().zip(&plan.sockets) {
            if matches!(planned.endpoint, PlannedEndpoint::New(..)) {
                // What waits there comes before what comes to another.
                self.datagrams.receive_all(place, &mut self.hub, now);
            }
        }
        // The next turn ends the daemon with a record that cannot be written any more.
        let _ = self.record(now);
        let mut writers: HashMap<usize, Writer> = self.writers.drain(..).collect();
        let (mut renewals, mut endpoints) = (Vec::new(), Vec::new());
        for (&place, planned) in places.iter().zip(plan.sockets) {
            let PlannedSocket {
                socket,
                mut endpoint,
                record,
            } = planned;
            let datagram_socket = match &mut endpoint {
                PlannedEndpoint::New(_, of) => of.take(),
                PlannedEndpoint::Kept(_) | PlannedEndpoint::None => None,
            };
            let goes_on = self.hub.place_of(socket.name(), &socket.nature()).is_ok();
            endpoints.push((place, endpoint, goes_on));
            renewals.push(Renewal {
                socket,
                trail: self.put_record(place, record, &mut writers),
                datagram_socket: datagram_socket.map(|of| Box::new(of) as _),
            });
        }
        let registry = self.poll.registry();
        let mut watch = |key, link: &Accepted, from, to| watch(registry, key, link, from, to);
        self.hub.apply(renewals, &plan.limits, now, &mut watch);
        for place in 0..self.listeners.places() {
            if !places.contains(&place) {
                self.close(place);
            }
        }
        for (place, endpoint, goes_on) in endpoints {
            self.put_endpoint(place, endpoint, goes_on.then_some(now));
        }
        writers.into_values().for_each(|writer| self.let_go(writer));
        self.note_time();
        self.set(plan.drain_timeout, plan.exit_on_idle, plan.config);
        self.unchanged = None;
        // What the manager was told may not be so any more.
        self.stale |= self.is_ready;
    }

    /// Of the `writers` of before the one that goes on is taken out.
    fn put_record(
        &mut self,
        place: usize,
        record: PlannedRecord,
        writers: &mut HashMap<usize, Writer>,
    ) -> Trail {
        match record {
            PlannedRecord::None => Trail::None,
            PlannedRecord::New(mut unused, record) => {
                let writer = unused.0.take();
                self.writers.extend(writer.map(|writer| (place, writer)));
                Trail::New(record)
            }
            PlannedRecord::Kept {
                of,
                encoder,
                queue_size,
                target,
            } => {
                let mut seq = 0;
                if let Some(mut writer) = writers.remove(&of) {
                    match target {
                        Some(Ok(target)) => {
                            seq = target.last_seq;
                            writer.move_to(target);
                        }
                        Some(Err(closed)) => writer.try_again(closed),
                        None => {}
                    }
                    self.writers.push((place, writer));
                }
                Trail::Kept {
                    of,
                    encoder,
                    queue_size,
                    seq,
                }
            }
        }
    }

    /// `goes_on`: now, where clients of the one before are served by this one.
    fn put_endpoint(&mut self, place: usize, endpoint: PlannedEndpoint, goes_on: Option<Now>) {
        let mut endpoint = match endpoint {
            PlannedEndpoint::None => return self.close(place),
            PlannedEndpoint::Kept(adjustment) => {
                if let Some(endpoint) = self.listeners.endpoint_mut(place) {
                    endpoint.adjust(adjustment);
                }
                return;
            }
            PlannedEndpoint::New(endpoint, _) => endpoint,
        };
        let registry = self.poll.registry();
        endpoint.settle();
        self.datagrams.remove(place, registry);
        if !endpoint.listens() {
            self.datagrams.put(place, endpoint.socket());
        }
        match (self.listeners.put(place, endpoint), goes_on) {
            (Some(old), Some(now)) if old.listens() => {
                self.listeners
                    .drain(old, place, &mut self.hub, registry, now);
            }
            (Some(old), _) => {
                listeners::deregister(&old, registry);
                old.close();
            }
            (None, _) => {}
        }
    }

    /// Nobody comes to socket number `place` any more.
    fn close(&mut self, place: usize) {
        let registry = self.poll.registry();
        if let Some(old) = self.listeners.take(place) {
            self.datagrams.remove(place, registry);
            listeners::deregister(&old, registry);
            old.close();
        }
    }

    /// A record is no more.
    fn let_go(&mut self, writer: Writer) {
        if writer.is_open() {
            self.parting.push(writer);
            return;
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

    /// Records and stamped messages carry the time.
    fn note_time(&mut self) {
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
