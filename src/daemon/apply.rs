//! Puts a file into force: at a start over nothing, at a restart over what was restored, at a reload over
//! what is served.
//!
//! `plan` prepares, in this order: who may enter, the records, the sockets (first those that are bound, then
//! the modes and owners of those that stay), the event loop's part. Dropping the result undoes all of it.
//! `Change::put` does the rest and cannot fail; a restart commits before it, and owns what it took over.

use ::log::{Level, log};

use super::{
    decide::{Decision, Passed, Present, decide, decide_unbound},
    in_force,
    limits::new_limits,
    records,
    sockets::{
        assign, check_exit_on_idle, datagram_socket, endpoint_of, errors, is_managed, make_folder,
        named, note_abstract, note_staying, units_remedy, unserved,
    },
};
use crate::{
    config::{self, Config},
    endpoint::{self, Endpoint},
    error::Faults,
    hub::Socket,
    server::{Plan, PlannedEndpoint, PlannedSocket, Prepared, Server},
    systemd::Inherited,
    users,
};

/// What is in force before.
#[derive(Clone, Copy)]
pub(super) struct Current<'a> {
    pub(super) server: &'a Server,
    /// The sockets of the file that is in force.
    pub(super) sockets: &'a [config::Socket],
    /// The names of those that the process before has left to the manager alone.
    pub(super) left_to_manager: &'a [String],
}

/// Lines for the log.
pub(super) type Lines = Vec<(Level, String)>;

/// What a file changes, prepared.
pub(super) struct Change {
    prepared: Prepared,
    /// The numbers of the sockets that end: nobody can connect there any more.
    ended: Vec<usize>,
    lines: Lines,
}

impl Change {
    /// Puts it into force; returns what the log is to say of it.
    pub(super) fn put(self, server: &mut Server) -> Lines {
        server.disown(&self.ended);
        server.put(self.prepared);
        self.lines
    }
}

/// Prepares what `config` changes. `passed`: what the manager passed to this process; `None` at a reload.
/// `is_lenient`: a record that cannot be opened stops only its own socket.
pub(super) fn plan(
    before: Current<'_>,
    config: &Config,
    passed: Option<Vec<Inherited>>,
    is_lenient: bool,
) -> Result<Change, Faults> {
    let mut sockets = Sockets::new(before, config, passed)?;
    let access = config.sockets.iter().map(|of| users::access(of, config));
    let access = access.collect::<Result<Vec<_>, _>>()?;
    let records = records::plan(before.server, config, is_lenient)?;
    let endpoints = sockets.make_ready()?;
    let parts = config.sockets.iter().zip(access).zip(records);
    let planned = parts.zip(endpoints);
    let planned = planned.map(
        |(((socket, access), (recorder, writer)), endpoint)| PlannedSocket {
            socket: Socket::new(socket, access, recorder),
            endpoint,
            writer,
        },
    );
    let prepared = before.server.prepare(Plan {
        sockets: planned.collect(),
        limits: new_limits(config),
        settings: config.into(),
    })?;
    Ok(Change {
        prepared,
        ended: sockets.ended(),
        lines: sockets.lines,
    })
}

/// Logs what was put into force, and leaves it for the next check.
pub(super) fn follow_up(server: &Server, config: &Config, lines: Lines) {
    for (level, line) in lines {
        log!(level, "{line}");
    }
    note_abstract(server, config);
    in_force::write(is_managed(server, &config.sockets).then_some(config));
}

/// The same in a new process, to which the manager has passed the sockets with the cookies `managed`.
pub(super) fn follow_up_start(server: &mut Server, config: &Config, lines: Lines, managed: &[u64]) {
    follow_up(server, config, lines);
    // A socket that udsd binds goes with it: nobody would start udsd again for clients that come there. The file
    // is not at fault where only the units are behind it, so the others are served.
    if server.has_unmanaged(managed) && server.stay() {
        note_staying();
    }
}

/// The sockets of the file, and what becomes of each.
struct Sockets<'a> {
    before: Current<'a>,
    config: &'a Config,
    is_reload: bool,
    /// The manager passed some socket, now or before. At a start and a restart, one that cannot be had then
    /// costs only itself: the manager's own must not go for want of another. A reload changes all or nothing.
    is_managed: bool,
    /// In the order of the file: what is present, what was passed, and that itself.
    all: Vec<(Present, Passed, Option<Inherited>)>,
    /// The cookies of those that serve from now on.
    serving: Vec<u64>,
    lines: Lines,
}

impl<'a> Sockets<'a> {
    fn new(
        before: Current<'a>,
        config: &'a Config,
        passed: Option<Vec<Inherited>>,
    ) -> Result<Self, Faults> {
        let is_reload = passed.is_none();
        let passed = passed.unwrap_or_default();
        let cookies = passed.iter().filter_map(|of| of.cookie().ok()).collect();
        let is_managed = !passed.is_empty() || is_managed(before.server, before.sockets);
        let passed = assign(config, passed)?;
        if !is_managed {
            check_exit_on_idle(config)?;
        }
        let of_file = config.sockets.iter().zip(passed);
        let all = of_file.map(|(new, of)| {
            let present = before.present(new, config);
            let there = endpoint_of(before.server, &new.name).and_then(|of| of.cookie().ok());
            let passed = match &of {
                Some(of) if there.is_some() && there == of.cookie().ok() => Passed::Same,
                Some(_) => Passed::Another,
                None if is_reload && present == Present::Inherited => Passed::Same,
                None => Passed::Nothing,
            };
            (present, passed, of)
        });
        let all = all.collect();
        let mut sockets = Sockets {
            before,
            config,
            is_reload,
            is_managed,
            all,
            serving: cookies,
            lines: Vec::new(),
        };
        let is_gone = |old: &&config::Socket| named(&config.sockets, &old.name).is_none();
        for old in before.sockets.iter().filter(is_gone) {
            sockets.say(Level::Info, old, "removed");
        }
        Ok(sockets)
    }

    /// Those that stay come last: other processes may notice a new mode.
    fn make_ready(&mut self) -> Result<Vec<PlannedEndpoint>, Faults> {
        let mut ready: Vec<Option<PlannedEndpoint>> = Vec::new();
        ready.resize_with(self.all.len(), || None);
        for stays in [false, true] {
            for (i, ready) in ready.iter_mut().enumerate() {
                let (present, passed, _) = self.all[i];
                let decision = decide(present, passed);
                if (decision == Decision::Keep) == stays {
                    *ready = Some(self.make_one_ready(i, decision)?);
                }
            }
        }
        Ok(ready.into_iter().flatten().collect())
    }

    fn make_one_ready(&mut self, i: usize, decision: Decision) -> Result<PlannedEndpoint, Faults> {
        let new = &self.config.sockets[i];
        let (present, passed, inherited) = &mut self.all[i];
        let (present, passed, inherited) = (*present, *passed, inherited.take());
        let inherited = inherited.map(|of| Endpoint::inherit(of, new, self.config));
        let inherited = inherited.transpose()?;
        let done = match (decision, inherited) {
            (Decision::Inherit, Some(endpoint)) => self.take(endpoint, new),
            (Decision::Bind | Decision::Move, _) => self.bind(new),
            (Decision::ServeOn, _) if present == Present::Renamed => self.rename(new),
            (Decision::Keep | Decision::ServeOn, _) => self.keep(new, new),
            (Decision::Inherit | Decision::Leave, _) => Ok(PlannedEndpoint::None),
        };
        let old = named(self.before.sockets, &new.name);
        let (decision, done) = match done {
            Err(fault) if matches!(decision, Decision::Bind | Decision::Move) => {
                let is_lenient = self.is_managed && !self.is_reload || new.is_control();
                let Some(instead) = decide_unbound(present, is_lenient) else {
                    return Err(fault);
                };
                self.say_unbound(new, instead, &fault);
                let done = match old {
                    Some(old) if instead == Decision::ServeOn => self.keep(old, old)?,
                    _ => PlannedEndpoint::None,
                };
                (instead, done)
            }
            done => {
                self.say_why(new, decision, present);
                (decision, done?)
            }
        };
        // A reload tells only of sockets that came or moved.
        let is_kept = matches!(done, PlannedEndpoint::Kept(_));
        if let Some(how) = decision.served(passed, present)
            && !(self.is_reload && is_kept)
        {
            let moved = old.filter(|old| (&old.address, old.kind) != (&new.address, new.kind));
            let (at, instead) = match moved {
                None => (new, String::new()),
                // It is still where it was.
                Some(old) if is_kept => (old, String::new()),
                Some(old) => {
                    let old = format!(", in place of {}, {}", endpoint::describe(old), old.kind);
                    (new, old)
                }
            };
            let line = format!("{how}, {}, {}{instead}", new.kind, new.service);
            self.say(Level::Info, at, &line);
        }
        Ok(done)
    }

    fn take(
        &mut self,
        endpoint: Endpoint,
        new: &config::Socket,
    ) -> Result<PlannedEndpoint, Faults> {
        let datagram_socket = datagram_socket(self.config, new, &endpoint)?;
        self.serving.extend(endpoint.cookie().ok());
        Ok(PlannedEndpoint::New(endpoint, datagram_socket))
    }

    /// A socket of this process that stands in the way ends.
    fn bind(&mut self, new: &config::Socket) -> Result<PlannedEndpoint, Faults> {
        if new.is_control() {
            make_folder(&new.address);
        }
        let there = self.before.endpoints().find(|(_, there)| there.is_at(new));
        let endpoint = Endpoint::bind(there.map(|(_, there)| there), new, self.config)?;
        self.take(endpoint, new)
    }

    fn rename(&mut self, new: &config::Socket) -> Result<PlannedEndpoint, Faults> {
        match self.before.renamed(new, self.config) {
            Some(there) => self.take(there.duplicate(new, self.config)?, new),
            None => Ok(PlannedEndpoint::None),
        }
    }

    /// The one that is present by the name of `new` stays, with the mode and owner of `as_of`.
    fn keep(
        &mut self,
        new: &config::Socket,
        as_of: &config::Socket,
    ) -> Result<PlannedEndpoint, Faults> {
        let old = named(self.before.sockets, &new.name);
        let there = endpoint_of(self.before.server, &new.name);
        let Some((old, there)) = old.zip(there) else {
            return Ok(PlannedEndpoint::None);
        };
        // The file may let in longer datagrams than can be sent back.
        datagram_socket(self.config, as_of, there)?;
        self.serving.extend(there.cookie().ok());
        let adjustment = there.prepare(old, as_of, self.config)?;
        Ok(PlannedEndpoint::Kept(adjustment))
    }

    /// The numbers of the present sockets that do not serve from now on, under whatever name.
    fn ended(&self) -> Vec<usize> {
        let serves = |cookie: u64| self.serving.contains(&cookie);
        let all = self.before.endpoints();
        let ended = all.filter(|(_, there)| !there.cookie().is_ok_and(serves));
        let keys = ended.filter_map(|(old, _)| self.before.server.key(&old.name));
        keys.collect()
    }

    fn say_why(&mut self, new: &config::Socket, decision: Decision, present: Present) {
        let remedy = units_remedy();
        let Some(why) = decision.why(present) else {
            return;
        };
        if decision == Decision::ServeOn {
            let line =
                format!("{why}; served on as it was until the units follow the file: {remedy}");
            self.say(Level::Warn, new, &line);
        } else {
            let why = format!("{}: {why}", endpoint::describe(new));
            self.lines.extend(unserved(new, &why));
        }
    }

    fn say_unbound(&mut self, new: &config::Socket, decision: Decision, fault: &Faults) {
        if new.is_control() {
            let line = format!("{fault}; nobody can ask with udsc status and the like");
            self.lines.push((Level::Warn, line));
        } else if decision == Decision::ServeOn {
            self.lines.extend(errors(&fault.to_string()));
            let line =
                "it is served on where it was, until that is mended and udsd reloads or restarts";
            self.say(Level::Error, new, line);
        } else {
            self.lines.extend(unserved(new, &fault.to_string()));
        }
    }

    fn say(&mut self, level: Level, socket: &config::Socket, line: &str) {
        let line = format!("{}: {line}", endpoint::describe(socket));
        self.lines.push((level, line));
    }
}

impl<'a> Current<'a> {
    /// The sockets in force that have an endpoint, with it.
    fn endpoints(self) -> impl Iterator<Item = (&'a config::Socket, &'a Endpoint)> {
        let all = self.sockets.iter();
        all.filter_map(move |old| Some((old, endpoint_of(self.server, &old.name)?)))
    }

    fn present(self, new: &config::Socket, config: &Config) -> Present {
        let found = self.endpoints().find(|(old, _)| old.name == new.name);
        // The file may want another socket where this one is.
        let is_in_the_way = |there: &Endpoint| {
            let mut others = config.sockets.iter().filter(|other| other.name != new.name);
            others.any(|other| there.is_at(other))
        };
        match found {
            Some((old, there)) if there.is_inherited() => match old.kind == new.kind {
                true => Present::Inherited,
                false => Present::OtherType,
            },
            None if self.left_to_manager.contains(&new.name) => Present::LeftToManager,
            _ if self.renamed(new, config).is_some() => Present::Renamed,
            Some((_, there)) if there.stands_for(new) && there.is_reachable() => Present::InPlace,
            Some((old, there)) => Present::Elsewhere {
                may_stay: old.kind == new.kind && !is_in_the_way(there),
            },
            None => Present::Nothing,
        }
    }

    /// The socket, once passed by the manager, that the file now calls `new`, and whose old name is gone.
    fn renamed(self, new: &config::Socket, config: &Config) -> Option<&'a Endpoint> {
        let is_gone = |(old, _): &(&config::Socket, _)| named(&config.sockets, &old.name).is_none();
        let mut gone = self.endpoints().filter(is_gone).map(|(_, there)| there);
        gone.find(|there| there.is_inherited() && there.stands_for(new))
    }
}
