//! A new config file under a server at work. All that may fail has been done before, or is done first;
//! what is then put into force cannot.
//!
//! Reading the file, opening what it names and saying what is wrong with it are the daemon's: `run`
//! returns for that, and the next call goes on.

use std::{
    collections::HashMap,
    io,
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use log::warn;

use super::{
    Server,
    sockets::{deregister, register},
};
use crate::{
    config::Config,
    datagram_socket::DatagramSocket,
    endpoint::{Adjustment, Endpoint},
    error::Faults,
    hub::{Now, Socket, SocketChange},
    limits::Limits,
    record::{NotOpen, Output, OutputConfig, Writer},
};

/// Writers of records that are no more, and are not wholly written.
const DRAINING: usize = 64;

/// What a config file makes of a server: everything is open, nothing is in force.
#[derive(Debug)]
pub struct Plan {
    /// All sockets of the file.
    pub sockets: Vec<PlannedSocket>,
    /// `[limits]`
    pub limits: Limits,
    /// What holds for the process.
    pub settings: Settings,
}

/// What a config file says of the process.
#[derive(Debug, Default)]
pub struct Settings {
    /// `drain-timeout`
    pub drain_timeout: Duration,
    /// `exit-on-idle`
    pub exit_on_idle: Option<Duration>,
    /// The files that it was read from; none for the embedded file and the command line.
    pub files: Vec<PathBuf>,
    /// All of it as TOML.
    pub text: String,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Settings {
            drain_timeout: config.daemon.drain_timeout,
            exit_on_idle: config.daemon.exit_on_idle,
            // Whoever asks for them may be elsewhere.
            files: config.origin.files().map(absolute_path).collect(),
            text: config.to_toml(),
        }
    }
}

fn absolute_path(file: &Path) -> PathBuf {
    path::absolute(file).unwrap_or_else(|_| file.into())
}

/// One socket of a plan.
#[derive(Debug)]
pub struct PlannedSocket {
    /// Its rules, and its record.
    pub socket: Socket,
    /// Where its clients come from.
    pub endpoint: PlannedEndpoint,
    /// What writes its record.
    pub writer: PlannedWriter,
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

/// What becomes of the writer of a planned socket's record.
#[derive(Debug)]
pub enum PlannedWriter {
    /// There is none, or no longer.
    None,
    /// It is a new one.
    New(NewWriter),
    /// The one of the socket with the key `of` goes on.
    Kept {
        /// Whose it is so far.
        of: usize,
        /// What the file says of where lines go.
        config: OutputConfig,
        /// Where lines go from now on, if that is another file than before, or it is not open.
        output: Option<Result<Output, NotOpen>>,
    },
}

impl PlannedWriter {
    /// The writer that there is from now on; `writers` are those of all sockets so far, by their keys.
    fn apply(self, writers: &mut HashMap<usize, Writer>) -> Option<Writer> {
        match self {
            PlannedWriter::None => None,
            PlannedWriter::New(mut writer) => writer.0.take(),
            PlannedWriter::Kept { of, config, output } => {
                let mut writer = writers.remove(&of)?;
                match output {
                    Some(Ok(output)) => writer.move_to(output),
                    Some(Err(not_open)) => writer.reopen(not_open),
                    None => writer.configure(config),
                }
                Some(writer)
            }
        }
    }
}

/// A writer that has nothing to write yet. Of a `Writer` that is only dropped, thread and file would stay.
#[derive(Debug)]
pub struct NewWriter(Option<Writer>);

impl Drop for NewWriter {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Writer::finish);
    }
}

/// A plan of which nothing can fail any more that is not seen to later.
pub struct Prepared(Plan);

/// What the status begins with where a reload has changed nothing, and where a restart goes on by the file of
/// before.
pub const RELOAD_FAILED: &str = "reload failed";
/// See `RELOAD_FAILED`.
pub const REFUSED_AT_RESTART: &str = "restart: new udsd.toml refused";

fn setting_up(source: io::Error) -> Faults {
    Faults::system("setting up what the file says")(source)
}

impl Server {
    /// The manager is told that a reload has begun, and lock files hold this process' pid again.
    pub fn reloading(&mut self) {
        self.is_ready = false;
        self.notifier.reloading();
        self.sockets.endpoints().for_each(Endpoint::fill_lock);
        for lock in self.sockets.writers().filter_map(|(_, of)| of.lock()) {
            lock.fill();
        }
    }

    /// The file is not in force, for this reason: the status says so until a reload succeeds. `when` is
    /// `RELOAD_FAILED` or `REFUSED_AT_RESTART`.
    pub fn unchanged(&mut self, when: &str, fault: &str) {
        self.unchanged = Some(format!("{when}: {fault}"));
    }

    /// What was handed over is this process' own from now on.
    pub fn own(&mut self) {
        self.sockets.endpoints_mut().for_each(Endpoint::own);
    }

    /// The manager no longer passes these sockets: once they are let go, nobody can connect there.
    pub fn disown(&mut self, keys: &[usize]) {
        for &key in keys {
            if let Some(endpoint) = &mut self.sockets.of(key).endpoint {
                endpoint.disown();
            }
            self.hub.disown(key);
        }
    }

    /// Whether one of its sockets, beside the control socket, is not among those with these cookies, which the manager has.
    #[must_use]
    pub fn has_unmanaged(&self, cookies: &[u64]) -> bool {
        let mut of_file = self.hub.sockets().iter().filter(|(_, of)| !of.is_control());
        of_file.any(|(key, _)| {
            let cookie = self.endpoint(key).map(Endpoint::cookie);
            cookie.is_some_and(|of| !of.is_ok_and(|cookie| cookies.contains(&cookie)))
        })
    }

    /// The key of the socket `name`.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<usize> {
        self.hub.key(name)
    }

    /// Where the clients of the socket `key` come from.
    #[must_use]
    pub fn endpoint(&self, key: usize) -> Option<&Endpoint> {
        self.sockets.get(key)?.endpoint.as_ref()
    }

    /// The writers of all records, with the keys of their sockets.
    pub fn writers(&self) -> impl Iterator<Item = (usize, &Writer)> {
        self.sockets.writers()
    }

    /// Whether lines still wait to be written to a file that their record has left or may leave.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        let leaves = |writer: &Writer| writer.unwritten() > 0 || writer.is_moving();
        !self.draining.is_empty() || self.writers().any(|(_, writer)| leaves(writer))
    }

    /// Does of a plan what may fail and nobody notices.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn prepare(&self, plan: Plan) -> Result<Prepared, Faults> {
        let mut waiting = self.draining.iter().filter(|of| of.unwritten() > 0);
        if let Some(last) = waiting.nth(DRAINING - 1) {
            return Err(Faults::System(format!(
                "record {}: too many records that earlier reloads ended still wait to be written",
                last.name
            )));
        }
        let new = plan.sockets.iter().filter_map(|of| match &of.endpoint {
            PlannedEndpoint::New(endpoint, _) => Some(endpoint),
            PlannedEndpoint::Kept(_) | PlannedEndpoint::None => None,
        });
        let registry = self.poll.registry();
        let mut registered = Vec::new();
        for endpoint in new {
            if let Err(error) = register(endpoint, registry) {
                // Dropping is not enough where the manager has a copy.
                registered
                    .into_iter()
                    .for_each(|of| deregister(of, registry));
                return Err(setting_up(error));
            }
            registered.push(endpoint);
        }
        Ok(Prepared(plan))
    }

    /// Starts a record's thread, which wakes the event loop.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start_writer(&self, output: Result<Output, NotOpen>) -> Result<NewWriter, Faults> {
        let waker = Arc::clone(&self.waker);
        let wake = move || {
            if let Err(error) = waker.wake() {
                warn!("cannot wake the event loop: {error}");
            }
        };
        let writer = Writer::start(output, wake).map_err(setting_up)?;
        Ok(NewWriter(Some(writer)))
    }

    /// A socket that is restored: by its key in the hub.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`, and of starting threads.
    pub fn resume(
        &mut self,
        key: usize,
        endpoint: Option<(Endpoint, Option<DatagramSocket>)>,
        output: Option<Result<Output, NotOpen>>,
    ) -> Result<(), Faults> {
        if let Some((endpoint, datagram_socket)) = endpoint {
            let registry = self.poll.registry();
            register(&endpoint, registry).map_err(setting_up)?;
            self.sockets.put(key, endpoint, registry);
            if let Some(of) = datagram_socket {
                self.hub.open(key, Box::new(of));
            }
        }
        if let Some(output) = output {
            let at = self.hub.recorded_at(key).unwrap_or(key);
            self.sockets.of(at).writer = self.start_writer(output)?.0.take();
        }
        self.note_time();
        Ok(())
    }

    /// What holds for the process from now on.
    pub fn set(&mut self, settings: Settings) {
        self.set_exit_on_idle(settings.exit_on_idle);
        self.settings = settings;
    }

    /// Puts a plan into force, which cannot fail.
    pub fn put(&mut self, prepared: Prepared) {
        let Prepared(plan) = prepared;
        let now = Now::read();
        let names = plan.sockets.iter().map(|of| self.hub.key(of.socket.name()));
        let before: Vec<Option<usize>> = names.collect();
        for (key, planned) in before.iter().zip(&plan.sockets) {
            if let (Some(key), PlannedEndpoint::New(..)) = (*key, &planned.endpoint) {
                // What waits there comes before what comes to another.
                self.sockets.receive_all(key, &mut self.hub, now);
            }
        }
        // The next turn ends the daemon with a record that cannot be written any more.
        let _ = self.record(now);
        let mut writers: HashMap<usize, Writer> = self.sockets.take_writers().collect();
        let (mut changes, mut rest) = (Vec::new(), Vec::new());
        for (before, planned) in before.into_iter().zip(plan.sockets) {
            let PlannedSocket {
                socket,
                mut endpoint,
                writer,
            } = planned;
            let datagram_socket = match &mut endpoint {
                PlannedEndpoint::New(_, of) => of.take(),
                PlannedEndpoint::Kept(_) | PlannedEndpoint::None => None,
            };
            let record_of = match writer {
                PlannedWriter::Kept { of, .. } => Some(of),
                PlannedWriter::New(_) | PlannedWriter::None => None,
            };
            let writer = writer.apply(&mut writers);
            let nature = socket.nature();
            let goes_on = before.filter(|&key| self.hub.sockets()[key].nature() == nature);
            rest.push((before, endpoint, goes_on.is_some(), writer));
            changes.push(SocketChange {
                socket,
                record_of,
                datagram_socket: datagram_socket.map(|of| Box::new(of) as _),
            });
        }
        let keys = self.hub.apply(changes, &plan.limits, now);
        // Endpoints of sockets that the file still has, by the keys that those have now. The others are closed.
        let mut came_from = HashMap::new();
        for (key, (before, ..)) in keys.iter().zip(&rest) {
            let endpoint = before.and_then(|before| self.sockets.of(before).endpoint.take());
            came_from.extend(endpoint.map(|endpoint| (*key, endpoint)));
        }
        for key in 0..self.sockets.len() {
            self.sockets.close(key, self.poll.registry());
        }
        for (&key, (_, endpoint, goes_on, writer)) in keys.iter().zip(rest) {
            let before = came_from.remove(&key);
            self.put_endpoint(key, endpoint, before, goes_on.then_some(now));
            if writer.is_some() {
                let at = self.hub.recorded_at(key).unwrap_or(key);
                self.sockets.of(at).writer = writer;
            }
        }
        writers.into_values().for_each(|writer| self.let_go(writer));
        self.note_time();
        self.set(plan.settings);
        self.unchanged = None;
        // What the manager was told may not be so any more.
        self.stale |= self.is_ready;
    }

    /// From now on clients and datagrams come to the socket `key` as planned. `before`: where they came from so
    /// far. `goes_on`: now, where clients of before are served by this one.
    fn put_endpoint(
        &mut self,
        key: usize,
        planned: PlannedEndpoint,
        before: Option<Endpoint>,
        goes_on: Option<Now>,
    ) {
        let registry = self.poll.registry();
        let close = |old: Endpoint| {
            deregister(&old, registry);
            old.close();
        };
        let endpoint = match (planned, before) {
            (PlannedEndpoint::Kept(adjustment), Some(mut endpoint)) => {
                endpoint.adjust(adjustment);
                endpoint
            }
            (PlannedEndpoint::New(mut endpoint, _), before) => {
                endpoint.settle();
                match (before, goes_on) {
                    (Some(old), Some(now)) if old.listens() => {
                        self.sockets.drain(old, key, &mut self.hub, registry, now);
                    }
                    (old, _) => old.into_iter().for_each(close),
                }
                endpoint
            }
            (PlannedEndpoint::None | PlannedEndpoint::Kept(_), before) => {
                return before.into_iter().for_each(close);
            }
        };
        self.sockets.put(key, endpoint, registry);
    }

    /// Records and stamped messages carry the time, and so does what a tap shows.
    pub(super) fn note_time(&mut self) {
        let mut sockets = self.hub.sockets().iter();
        let tells_time = sockets.any(|(_, of)| of.stamps() || of.is_tapped());
        self.tells_time = tells_time || self.sockets.writers().next().is_some();
    }
}
