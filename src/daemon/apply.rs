//! A file comes into force: at a start over nothing, at a restart over what was restored, at a reload over
//! what is served.
//!
//! In this order: who may enter, the records, the sockets (those that are bound, then the modes and owners of
//! those that stay), the event loop's part. All of that is undone by being dropped. Then `Step::put`, which
//! cannot fail; a restart commits before it, and owns what it took over.

use ::log::{Level, log};

use super::{
    decide::{Decision, Passed, Present, decide, decide_unbound},
    in_force,
    limits::new_limits,
    records::{self, Tolerate},
    sockets::{
        assign, check_exit_on_idle, datagram_socket, endpoint_of, errors, is_managed, named,
        note_abstract, note_staying, units_remedy, unserved,
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

/// What there is before.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) server: &'a Server,
    /// The sockets of the file that is in force.
    pub(super) sockets: &'a [config::Socket],
    /// Those of them that only the manager has.
    pub(super) left: &'a [String],
}

/// Lines for the log.
pub(super) type Lines = Vec<(Level, String)>;

/// What is to be put into force.
pub(super) struct Step {
    prepared: Prepared,
    /// The numbers of the sockets that end: nobody is to wait there.
    ended: Vec<usize>,
    lines: Lines,
}

impl Step {
    /// Returns what is to be said of it.
    pub(super) fn put(self, server: &mut Server) -> Lines {
        server.disown(&self.ended);
        server.put(self.prepared);
        self.lines
    }
}

/// Makes ready what `config` changes. `passed`: by the manager to this process; `None` where it has what it
/// had before. `tolerate` says whether a socket is to be had whose record cannot be
/// written.
pub(super) fn plan(
    before: Before<'_>,
    config: &Config,
    passed: Option<Vec<Inherited>>,
    tolerate: Tolerate<'_>,
) -> Result<Step, Faults> {
    let mut sockets = Sockets::new(before, config, passed)?;
    let access = config.sockets.iter().map(|of| users::access(of, config));
    let access = access.collect::<Result<Vec<_>, _>>()?;
    let records = records::plan(before.server, config, tolerate)?;
    let endpoints = sockets.make_ready()?;
    let parts = config.sockets.iter().zip(access).zip(records);
    let planned = parts.zip(endpoints);
    let planned = planned.map(|(((socket, access), record), endpoint)| PlannedSocket {
        socket: Socket::new(socket, access, None),
        endpoint,
        record,
    });
    let prepared = before.server.prepare(Plan {
        sockets: planned.collect(),
        limits: new_limits(config),
        drain_timeout: config.daemon.drain_timeout,
        exit_on_idle: config.daemon.exit_on_idle,
        config: config.to_toml(),
    })?;
    Ok(Step {
        prepared,
        ended: sockets.ended(),
        lines: sockets.lines,
    })
}

/// Says what was put into force by a new process, to which the manager has passed the sockets with these
/// cookies.
pub(super) fn follow_up(server: &mut Server, config: &Config, lines: Lines, managed: &[u64]) {
    for (level, line) in lines {
        log!(level, "{line}");
    }
    // What udsd binds goes with it, and nobody would start it again for those who come there. Not a fault of
    // the file where the units are only behind it: the others are to be served.
    if server.has_unmanaged(managed) && server.stay() {
        note_staying();
    }
    note_abstract(server, config);
    in_force::write(is_managed(server, &config.sockets).then_some(config));
}

/// Where clients come from.
struct Sockets<'a> {
    before: Before<'a>,
    config: &'a Config,
    /// One that cannot be had costs only itself: at a start and a restart beside sockets of the manager, which
    /// must not go for want of another. A reload changes all or nothing.
    is_lenient: bool,
    /// In the order of the file: what is present, what was passed, and that itself.
    all: Vec<(Present, Passed, Option<Inherited>)>,
    /// The cookies of those that serve from now on.
    serving: Vec<u64>,
    lines: Lines,
}

impl<'a> Sockets<'a> {
    fn new(
        before: Before<'a>,
        config: &'a Config,
        passed: Option<Vec<Inherited>>,
    ) -> Result<Self, Faults> {
        let is_asked = passed.is_some();
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
                None if !is_asked && present == Present::Inherited => Passed::Same,
                None => Passed::Nothing,
            };
            (present, passed, of)
        });
        Ok(Sockets {
            before,
            config,
            is_lenient: is_managed && is_asked,
            all: all.collect(),
            serving: cookies,
            lines: Vec::new(),
        })
    }

    /// Those that stay come last: others may notice a new mode.
    fn make_ready(&mut self) -> Result<Vec<PlannedEndpoint>, Faults> {
        let mut ready: Vec<Option<PlannedEndpoint>> = Vec::new();
        ready.resize_with(self.all.len(), || None);
        for stays in [false, true] {
            for (i, ready) in ready.iter_mut().enumerate() {
                let (present, passed, _) = self.all[i];
                let decision = decide(true, present, passed);
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
            (Decision::Inherit | Decision::Leave | Decision::End, _) => Ok(PlannedEndpoint::None),
        };
        let mut decision = decision;
        let done = match done {
            Err(fault) if matches!(decision, Decision::Bind | Decision::Move) => {
                decision = match decide_unbound(present, self.is_lenient) {
                    Some(decision) => decision,
                    None => return Err(fault),
                };
                self.say_unbound(new, decision, &fault);
                match named(self.before.sockets, &new.name) {
                    Some(old) if decision == Decision::ServeOn => self.keep(old, old)?,
                    _ => PlannedEndpoint::None,
                }
            }
            done => {
                self.say_why(new, decision, present);
                done?
            }
        };
        if let Some(how) = decision.served(passed, present) {
            let (kind, service) = (new.kind, new.service);
            self.say(Level::Info, new, &format!("{how}, {kind}, {service}"));
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

    /// One of this process that stands in its place makes way.
    fn bind(&mut self, new: &config::Socket) -> Result<PlannedEndpoint, Faults> {
        let there = self.before.endpoints().find(|(_, there)| there.is_at(new));
        let endpoint = Endpoint::bind_over(there.map(|(_, there)| there), new, self.config)?;
        self.take(endpoint, new)
    }

    fn rename(&mut self, new: &config::Socket) -> Result<PlannedEndpoint, Faults> {
        match self.before.renamed(new, self.config) {
            Some(there) => self.take(there.duplicate(new, self.config)?, new),
            None => Ok(PlannedEndpoint::None),
        }
    }

    /// The one that is there by the name of `new` stays, as `as_of` says.
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
        // A longer datagram may be more than can be sent back.
        datagram_socket(self.config, as_of, there)?;
        self.serving.extend(there.cookie().ok());
        let adjustment = there.prepare(old, as_of, self.config)?;
        Ok(PlannedEndpoint::Kept(adjustment))
    }

    /// The numbers of those that end.
    fn ended(&self) -> Vec<usize> {
        let ends = |there: &Endpoint| {
            let serves = |cookie: u64| self.serving.contains(&cookie);
            let passed = match there.cookie().is_ok_and(serves) {
                true => Passed::Same,
                false => Passed::Nothing,
            };
            decide(false, Present::Inherited, passed) == Decision::End
        };
        let all = self.before.endpoints().filter(|(_, there)| ends(there));
        all.filter_map(|(old, _)| self.before.server.place(&old.name))
            .collect()
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
        if decision == Decision::ServeOn {
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

impl<'a> Before<'a> {
    /// The sockets that are served, with where their clients come from.
    fn endpoints(self) -> impl Iterator<Item = (&'a config::Socket, &'a Endpoint)> {
        let all = self.sockets.iter();
        all.filter_map(move |old| Some((old, endpoint_of(self.server, &old.name)?)))
    }

    fn present(self, new: &config::Socket, config: &Config) -> Present {
        let found = self.endpoints().find(|(old, _)| old.name == new.name);
        // Another's place may be the one where it is.
        let is_wanted = |there: &Endpoint| {
            let mut others = config.sockets.iter().filter(|other| other.name != new.name);
            others.any(|other| there.is_at(other))
        };
        match found {
            Some((old, there)) if there.is_inherited() => match old.kind == new.kind {
                true => Present::Inherited,
                false => Present::OtherType,
            },
            None if self.left.contains(&new.name) => Present::Left,
            _ if self.renamed(new, config).is_some() => Present::Renamed,
            Some((_, there)) if there.stands_for(new) && there.is_reachable() => Present::InPlace,
            Some((old, there)) => Present::Elsewhere {
                may_stay: old.kind == new.kind && !is_wanted(there),
            },
            None => Present::Nothing,
        }
    }

    /// The socket that only this process still has, and that has another name in the file.
    fn renamed(self, new: &config::Socket, config: &Config) -> Option<&'a Endpoint> {
        let is_gone = |(old, _): &(&config::Socket, _)| named(&config.sockets, &old.name).is_none();
        let mut gone = self.endpoints().filter(is_gone).map(|(_, there)| there);
        gone.find(|there| there.is_inherited() && there.stands_for(new))
    }
}
