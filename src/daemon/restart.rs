//! The start of a process that goes on where another ended.
//!
//! First everything is as it was, by the file of the process that ended. Then the file that is there
//! now is put into force as by a reload, with what the manager passes to this process; where that is
//! not possible, this one serves as the other did, and the log and the status say why: no fault in a
//! file costs a client.

use std::{
    mem,
    time::{Instant, SystemTime},
};

use ::log::{error, info, warn};
use signal_hook_mio::v1_0::Signals;

use super::{
    in_force,
    limits::limits,
    log as lines, records, reload, report, rules, serve,
    sockets::{
        assign, check_exit_on_idle, datagram_socket, note_abstract, note_served, note_staying,
        note_unserved,
    },
};
use crate::{
    config::{self, Config},
    endpoint::{self, Endpoint},
    error::Fatal,
    handover::Handover,
    hub::{Hub, Now, Socket},
    server::{PlannedEndpoint, Prepared, Server},
    state,
    systemd::Inherited,
};

/// Goes on with `handover`; `config` is the file that is there now.
pub(super) fn go_on(
    mut handover: Handover,
    config: Result<Config, Fatal>,
    passed: Vec<Inherited>,
    signals: Signals,
) -> Result<(Server, Config), Fatal> {
    handover.add(&passed);
    let serving = handover.config.clone();
    match resume(&mut handover, &serving, signals) {
        Ok(resumed) => adopt(resumed, &serving, handover, config, passed),
        Err(fatal) => {
            handover.postpone();
            Err(fatal)
        }
    }
}

/// All as it was.
struct Resumed {
    server: Server,
    unwritten: Vec<Unwritten>,
    /// The sockets that are the manager's alone, by their names: it may have passed them.
    left: Vec<String>,
}

/// Lines that the process before had taken into a record and not written.
struct Unwritten {
    /// Of which socket.
    socket: String,
    /// Whole lines.
    lines: Vec<u8>,
    /// Bytes of them that stand at the end of the file that it wrote.
    written: usize,
}

/// All as it was, but for lines of records.
fn resume(handover: &mut Handover, serving: &Config, signals: Signals) -> Result<Resumed, Fatal> {
    let unknown = |fatal: Fatal| match fatal {
        Fatal::Config(_) => {
            warn!("as the file stood before the restart: {fatal}");
            Ok(())
        }
        // A later attempt may succeed.
        other => Err(other),
    };
    // A record may be out of reach now, as where the units have followed the file already, or the disk is
    // full: until it is not, or a file is in force with which it is not, lines gather, and senders wait
    // when that is full.
    let unopened = |fatal| {
        let _ = unknown(fatal).map_err(|other| records::note_closed(&other));
        Ok(())
    };
    let rules = rules(serving, unknown, unopened)?.into_iter();
    let mut rules: Vec<_> = rules.map(Some).collect();
    let (mut sockets, mut endpoints, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unwritten, mut left) = (Vec::new(), Vec::new());
    let mut parked = mem::take(&mut handover.state);
    for before in &mut parked.sockets {
        let mut names = serving.sockets.iter();
        let of_file = names.position(|socket| socket.name == before.name && !before.retired);
        let Some((i, (rules, mut target))) = of_file.and_then(|i| Some((i, rules[i].take()?)))
        else {
            sockets.push(Socket::retired(&before.name));
            endpoints.push(None);
            targets.push(None);
            continue;
        };
        if let Some(record) = &mut before.record {
            let lines = mem::take(&mut record.lines);
            let written = match &mut target {
                Some(Ok(target)) => target.resume(&lines, record.begun),
                _ => Ok(0),
            };
            let written = written.unwrap_or_else(|error| {
                let name = &before.name;
                warn!("{name}: the end of its record cannot be read: {error}");
                0
            });
            unwritten.push(Unwritten {
                socket: before.name.clone(),
                lines,
                written,
            });
        }
        sockets.push(rules);
        let endpoint = endpoint(handover, before, &serving.sockets[i], serving);
        if endpoint.is_none() && before.endpoint.as_ref().is_some_and(|of| of.inherited) {
            left.push(before.name.clone());
        }
        endpoints.push(endpoint);
        targets.push(target);
    }
    let now = Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    };
    let streams = handover.streams(&parked);
    let clients = streams.iter().flatten().count();
    let hub = match Hub::restore(sockets, limits(serving), parked, streams, now) {
        Ok((hub, _)) => {
            info!("clients taken over: {clients}");
            hub
        }
        Err((why, sockets, streams)) => {
            Handover::end(why, streams);
            Hub::new(sockets, limits(serving))
        }
    };
    let server = serve(serving, hub, endpoints, targets, signals)?;
    Ok(Resumed {
        server,
        unwritten,
        left,
    })
}

/// Where the clients of a socket came from.
fn endpoint(
    handover: &mut Handover,
    before: &state::Socket,
    socket: &config::Socket,
    config: &Config,
) -> Option<Endpoint> {
    let parked = before.endpoint.as_ref()?;
    let Some((fd, lock)) = handover.endpoint(parked) else {
        // The manager's own is for the manager to pass; what becomes of it is said where it is not.
        if !parked.inherited {
            error!("{}: it did not come along", endpoint::describe(socket));
        }
        return None;
    };
    match Endpoint::resume(parked, fd, lock, socket, config) {
        Ok(endpoint) => Some(endpoint),
        Err(fatal) => {
            let _ = report(&fatal);
            None
        }
    }
}

/// Puts the file that is there now into force, and lets the manager forget what was left.
///
/// What can fail, or takes time, stands before the commit, or after the manager has been told that this
/// process serves: between the two one that is killed has lost everybody without having served anybody.
fn adopt(
    resumed: Resumed,
    serving: &Config,
    handover: Handover,
    config: Result<Config, Fatal>,
    passed: Vec<Inherited>,
) -> Result<(Server, Config), Fatal> {
    let Resumed {
        mut server,
        unwritten,
        left,
    } = resumed;
    let managed: Vec<u64> = passed.iter().filter_map(|of| of.cookie().ok()).collect();
    let (step, spare) = match config {
        Ok(config) => {
            let spare = passed.iter().filter_map(|of| of.try_clone().ok());
            let spare: Vec<Inherited> = spare.collect();
            let step = plan(&server, (serving, &left), &config, passed);
            (step.map(|step| (step, config)), spare)
        }
        Err(fatal) => (Err(fatal), passed),
    };
    let (step, fatal, config) = match step {
        Ok((step, config)) => (Ok(Some(step)), None, config),
        Err(fatal) => {
            reload::tell_unchanged(&mut server, &fatal);
            let anew = plan_anew(&server, (serving, &left), spare);
            (anew, Some(fatal), serving.clone())
        }
    };
    // One that goes elsewhere has its lines there, all others have them before anything new.
    let file = |config: &Config, name: &str| {
        let record = reload::named(config, name)?.record.as_ref();
        record.map(|record| record.file.clone())
    };
    let (moving, staying): (Vec<_>, Vec<_>) = unwritten.into_iter().partition(|unwritten| {
        let there = file(&config, &unwritten.socket);
        there.is_some() && there != file(serving, &unwritten.socket)
    });
    for of in staying {
        server.take_lines(&of.socket, &of.lines[of.written..]);
    }
    if let Err(source) = handover.commit() {
        handover.postpone();
        let doing = "taking over what was handed over";
        return Err(Fatal::System { doing, source });
    }
    server.ready();
    server.own();
    let (served, fault) = match step {
        Ok(step) => (step.map(|step| put(&mut server, step)), None),
        Err(fault) => (None, Some(fault)),
    };
    for of in moving {
        server.take_lines(&of.socket, &of.lines);
    }
    handover.forget();
    let stays = server.has_unmanaged(&managed) && server.stay();
    for (socket, how) in served.iter().flatten() {
        note_served(socket, how);
    }
    if let Some(fault) = fault {
        let _ = report(&fault);
    }
    if fatal.is_some() {
        for name in &left {
            if let Some(socket) = reload::named(serving, name)
                && reload::endpoint_of(&server, name).is_none()
            {
                note_left(socket);
            }
        }
    }
    if stays {
        note_staying();
    }
    note_abstract(&server, &config);
    in_force::write(reload::is_managed(&server, &config).then_some(&config));
    if let Some(fatal) = fatal {
        let mut so = "serving as before the restart".to_owned();
        if !managed.is_empty() && matches!(fatal, Fatal::Socket { .. }) {
            so = format!(
                "{so} until the units follow the file: {}",
                reload::units_remedy()
            );
        }
        reload::note_unchanged(&mut server, &fatal, &so);
    } else {
        lines::to_stderr(&config.daemon.log);
    }
    Ok((server, config))
}

/// What is to be put into force.
struct Step {
    prepared: Prepared,
    ways: Ways,
}

/// Where clients are to come from.
#[derive(Default)]
struct Ways {
    endpoints: Vec<PlannedEndpoint>,
    /// Which sockets of the file are served, and since when: for the log.
    served: Vec<(config::Socket, &'static str)>,
    /// The numbers of the sockets that go for good: nobody is to wait there.
    gone: Vec<usize>,
}

/// Makes ready what `config` changes of what was served, where sockets were `left` to the manager alone.
fn plan(
    server: &Server,
    (serving, left): (&Config, &[String]),
    config: &Config,
    passed: Vec<Inherited>,
) -> Result<Step, Fatal> {
    let mut ways = ways(server, (serving, left), config, passed)?;
    let plan = reload::plan(server, config, mem::take(&mut ways.endpoints))?;
    let prepared = server.prepare(plan)?;
    Ok(Step { prepared, ways })
}

/// Returns which sockets of the file are served, and since when.
fn put(server: &mut Server, step: Step) -> Vec<(config::Socket, &'static str)> {
    let Step { prepared, ways } = step;
    server.disown(&ways.gone);
    server.put(prepared);
    ways.served
}

/// The file that is there cannot be put into force, and that of before stays: of what the manager
/// passes, takes what stands anew where this process has served, and where else nobody would.
fn plan_anew(
    server: &Server,
    (serving, left): (&Config, &[String]),
    passed: Vec<Inherited>,
) -> Result<Option<Step>, Fatal> {
    let mut anew = false;
    let mut fitting = Vec::new();
    for passed in passed {
        let mut sockets = serving.sockets.iter();
        let Some(socket) = sockets.find(|socket| endpoint::stands_for(&passed, socket)) else {
            warn!(
                "{}: the service manager has passed it, and nobody serves it",
                endpoint::describe_inherited(&passed)
            );
            continue;
        };
        let there = reload::endpoint_of(server, &socket.name);
        let there = there.and_then(|there| there.cookie().ok());
        anew |= there.is_none() || there != passed.cookie().ok();
        let name = Some(socket.name.clone());
        fitting.push(Inherited { name, ..passed });
    }
    if anew {
        return Ok(Some(plan(server, (serving, left), serving, fitting)?));
    }
    Ok(None)
}

/// Where clients come from now: what the manager passes comes first. What it no longer passes, which
/// is so once it has read its units anew after an edit, this process has all the same, and serves on.
fn ways(
    server: &Server,
    (serving, left): (&Config, &[String]),
    config: &Config,
    passed: Vec<Inherited>,
) -> Result<Ways, Fatal> {
    let cookies: Vec<u64> = passed.iter().filter_map(|of| of.cookie().ok()).collect();
    let passed = assign(config, passed)?;
    let is_managed = passed.iter().any(Option::is_some) || reload::is_managed(server, serving);
    if !is_managed {
        check_exit_on_idle(config)?;
    }
    // The place of one that cannot move may be another's now.
    let is_wanted = |there: &Endpoint, by: &config::Socket| {
        let mut others = config.sockets.iter().filter(|other| other.name != by.name);
        others.any(|other| there.is_at(other))
    };
    let mut ways = Ways::default();
    let (mut kept, mut again) = (Vec::new(), Vec::new());
    for (new, passed) in config.sockets.iter().zip(passed) {
        let there = reload::endpoint_of(server, &new.name);
        let before = reload::named(serving, &new.name).zip(there);
        let (how, endpoint) = match (passed, before) {
            (Some(passed), before) => {
                let inherited = Endpoint::inherit(passed, new, config)?;
                match before {
                    Some((old, there)) if there.cookie().ok() == inherited.cookie().ok() => {
                        kept.push(new.name.as_str());
                        ("inherited", reload::keep(there, old, new, config)?)
                    }
                    _ => {
                        let datagram_socket = datagram_socket(config, new, &inherited)?;
                        (
                            "inherited",
                            PlannedEndpoint::New(inherited, datagram_socket),
                        )
                    }
                }
            }
            (None, Some((old, there))) if there.is_inherited() && old.kind == new.kind => {
                note_unmanaged(new);
                kept.push(new.name.as_str());
                ("kept", reload::keep(there, old, new, config)?)
            }
            (None, None) if left.contains(&new.name) => {
                note_left(new);
                ways.endpoints.push(PlannedEndpoint::None);
                continue;
            }
            (None, Some((_, there))) if there.is_inherited() => {
                let fault =
                    "it was another type of socket until now, which its unit has to make anew";
                let socket = endpoint::describe(new);
                let fault = fault.into();
                note_unserved(new, &Fatal::Socket { socket, fault });
                ways.endpoints.push(PlannedEndpoint::None);
                continue;
            }
            (None, before) => {
                let had = match renamed(server, serving, new, config) {
                    Some(there) => {
                        note_unmanaged(new);
                        let endpoint = there.again(new, config)?;
                        again.push(endpoint.cookie().ok());
                        let datagram_socket = datagram_socket(config, new, &endpoint)?;
                        Ok(("kept", PlannedEndpoint::New(endpoint, datagram_socket)))
                    }
                    None => match reload::stays(server, serving, new) {
                        Some((old, there)) => reload::keep(there, old, new, config),
                        None => reload::bind(server, serving, new, config),
                    }
                    .map(|endpoint| ("bound", endpoint)),
                };
                match (had, before) {
                    (Ok(had), _) => had,
                    (Err(fatal), Some((old, there)))
                        if is_managed && old.kind == new.kind && !is_wanted(there, new) =>
                    {
                        let _ = report(&fatal);
                        error!(
                            "{}: it is served on where it was, until that is mended and udsd restarts",
                            endpoint::describe(new)
                        );
                        kept.push(new.name.as_str());
                        ("kept", reload::keep(there, old, old, serving)?)
                    }
                    (Err(fatal), _) if is_managed => {
                        note_unserved(new, &fatal);
                        ways.endpoints.push(PlannedEndpoint::None);
                        continue;
                    }
                    (Err(fatal), _) => return Err(fatal),
                }
            }
        };
        ways.served.push((new.clone(), how));
        ways.endpoints.push(endpoint);
    }
    // Under another name one may be there all the same.
    let is_passed = |old: &config::Socket| {
        let cookie = reload::endpoint_of(server, &old.name).map(Endpoint::cookie);
        cookie
            .is_some_and(|of| of.is_ok_and(|of| cookies.contains(&of) || again.contains(&Some(of))))
    };
    let goes = |old: &&config::Socket| !kept.contains(&old.name.as_str()) && !is_passed(old);
    let gone = serving.sockets.iter().filter(goes);
    ways.gone = gone.filter_map(|old| server.place(&old.name)).collect();
    Ok(ways)
}

/// The socket that only this process still has, and that has another name in the file.
fn renamed<'a>(
    server: &'a Server,
    serving: &Config,
    new: &config::Socket,
    config: &Config,
) -> Option<&'a Endpoint> {
    let mut gone = serving
        .sockets
        .iter()
        .filter(|old| reload::named(config, &old.name).is_none())
        .filter_map(|old| reload::endpoint_of(server, &old.name));
    gone.find(|there| there.is_inherited() && there.stands_for(new))
}

fn note_unmanaged(socket: &config::Socket) {
    warn!(
        "{}: the service manager no longer has it; served on as it was until the units follow the file: {}",
        endpoint::describe(socket),
        reload::units_remedy()
    );
}

/// Only the manager could have had it.
fn note_left(socket: &config::Socket) {
    let why = Fatal::Socket {
        socket: endpoint::describe(socket),
        fault: "the service manager no longer has it".into(),
    };
    note_unserved(socket, &why);
}
