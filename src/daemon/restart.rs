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
    apply::{self, Change, Current, Lines},
    decide::{Decision, Present},
    limits::limits,
    log, log_fault, records, reload, serve,
    sockets::{datagram_socket, endpoint_of, errors, named, units_remedy, unserved},
};
use crate::{
    accepted::Accepted,
    access::Access,
    config::{self, Config},
    endpoint::{self, Endpoint},
    error::{Fatal, Faults},
    handover::Handover,
    hub::{Hub, Now, Socket},
    record::{NotOpen, Output, Record},
    server::{REFUSED_AT_RESTART, Server},
    state::{self, State},
    systemd::Inherited,
    users,
};

/// Goes on with `handover`; `config` is the file that is there now.
pub(super) fn go_on(
    mut handover: Handover,
    config: Result<Config, Faults>,
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
    unwritten: Vec<LinesLeft>,
    /// The sockets that are the manager's alone, by their names: it may have passed them.
    left_to_manager: Vec<String>,
}

/// Lines that the process before had taken into a record and not written.
struct LinesLeft {
    /// Of which socket.
    socket: String,
    /// Whole lines.
    lines: Vec<u8>,
    /// Bytes of them that stand at the end of the file that it wrote.
    written: usize,
}

/// All as it was, but for lines of records.
fn resume(handover: &mut Handover, serving: &Config, signals: Signals) -> Result<Resumed, Fatal> {
    let mut rules: Vec<_> = rules(serving)?.into_iter().map(Some).collect();
    let (mut sockets, mut served) = (Vec::new(), Vec::new());
    let (mut unwritten, mut left_to_manager) = (Vec::new(), Vec::new());
    let mut parked = mem::take(&mut handover.state);
    for before in &mut parked.sockets {
        let mut names = serving.sockets.iter();
        let of_file = names.position(|socket| socket.name == before.name && !before.retired);
        let Some((i, (rules, mut output))) = of_file.and_then(|i| Some((i, rules[i].take()?)))
        else {
            sockets.push(Socket::draining(&before.name));
            served.push((None, None));
            continue;
        };
        unwritten.extend(lines_of(before, &mut output));
        sockets.push(rules);
        let socket = &serving.sockets[i];
        let endpoint = endpoint(handover, before, socket, serving);
        if endpoint.is_none() && before.endpoint.as_ref().is_some_and(|of| of.inherited) {
            left_to_manager.push(before.name.clone());
        }
        let endpoint = endpoint.map(|endpoint| {
            let datagram_socket = datagram_socket(serving, socket, &endpoint)?;
            Ok::<_, Faults>((endpoint, datagram_socket))
        });
        served.push((endpoint.transpose()?, output));
    }
    let mut server = serve(restore(handover, sockets, parked, serving), signals)?;
    let daemon = &serving.daemon;
    server.set(daemon.drain_timeout, daemon.exit_on_idle, serving.to_toml());
    for (place, (endpoint, output)) in served.into_iter().enumerate() {
        server.resume(place, endpoint, output)?;
    }
    Ok(Resumed {
        server,
        unwritten,
        left_to_manager,
    })
}

/// Where a record goes, if there is one and it could be opened.
type Opened = Option<Result<Output, NotOpen>>;

/// The sockets of the file as the hub has them, each with where its record goes. One is had all the same whose
/// lists name somebody unknown: nobody new comes in by that.
fn rules(serving: &Config) -> Result<Vec<(Socket, Opened)>, Faults> {
    let unknown = |fault: Faults| match fault {
        Faults::Config(_) => {
            warn!("as the file stood before the restart: {fault}");
            Ok(())
        }
        // A later attempt may succeed.
        other => Err(other),
    };
    // A record may be out of reach now, as where the units have followed the file already, or the disk is
    // full: until it is not, or a file is in force with which it is not, lines gather, and senders wait
    // when that is full.
    let tolerate = |fault| {
        let _ = unknown(fault).map_err(|other| records::note_not_open(&other));
        Ok(())
    };
    let mut all = Vec::new();
    for socket in &serving.sockets {
        let access = match users::access(socket, serving) {
            Ok(access) => access,
            Err(fault) => unknown(fault).map(|()| Access::none())?,
        };
        let (mut record, mut output) = (None, None);
        if let Some(keys) = &socket.record {
            let opened = records::open(serving, socket, keys, &[], &tolerate)?;
            let seq = opened.as_ref().map_or(0, |output| output.last_seq);
            let encoder = records::encoder(socket, keys);
            record = Some(Record::new(encoder, keys.queue_size, seq));
            output = Some(opened);
        }
        all.push((Socket::new(socket, access, record), output));
    }
    Ok(all)
}

/// The lines that are to be written to the record of `before`, if it has one.
fn lines_of(before: &mut state::Socket, output: &mut Opened) -> Option<LinesLeft> {
    let record = before.record.as_mut()?;
    let lines = mem::take(&mut record.lines);
    let written = match output {
        Some(Ok(output)) => output.resume(&lines, record.begun),
        _ => Ok(0),
    };
    let socket = before.name.clone();
    let written = written.unwrap_or_else(|error| {
        warn!("{socket}: the end of its record cannot be read: {error}");
        0
    });
    Some(LinesLeft {
        socket,
        lines,
        written,
    })
}

fn restore(
    handover: &mut Handover,
    sockets: Vec<Socket>,
    parked: State,
    serving: &Config,
) -> Hub<Accepted> {
    let now = Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    };
    let streams = handover.streams(&parked);
    let clients = streams.iter().flatten().count();
    match Hub::restore(sockets, limits(serving), parked, streams, now) {
        Ok((hub, _)) => {
            info!("clients taken over: {clients}");
            hub
        }
        Err((why, sockets, streams)) => {
            Handover::end(why, streams);
            Hub::new(sockets, limits(serving))
        }
    }
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
    let resumed = Endpoint::resume(parked, fd, lock, socket, config);
    resumed.inspect_err(log_fault).ok()
}

/// Puts the file that is there now into force, or what the manager passes anew, and lets it forget what was
/// left.
///
/// What can fail, or takes time, stands before the commit, or after the manager has been told that this
/// process serves: between the two one that is killed has lost everybody without having served anybody.
fn adopt(
    resumed: Resumed,
    serving: &Config,
    handover: Handover,
    config: Result<Config, Faults>,
    passed: Vec<Inherited>,
) -> Result<(Server, Config), Fatal> {
    let Resumed {
        mut server,
        unwritten,
        left_to_manager,
    } = resumed;
    let managed: Vec<u64> = passed.iter().filter_map(|of| of.cookie().ok()).collect();
    let before = Current {
        server: &server,
        sockets: &serving.sockets,
        left_to_manager: &left_to_manager,
    };
    let spare = passed.iter().filter_map(|of| of.try_clone().ok()).collect();
    let planned = config.and_then(|config| {
        let change = apply::plan(before, &config, Some(passed), &Err)?;
        Ok((change, config))
    });
    let (change, config, refused) = match planned {
        Ok((change, config)) => (Ok(change), config, None),
        Err(fault) => {
            let change = plan_anew(before, serving, spare);
            reload::tell_unchanged(&mut server, REFUSED_AT_RESTART, &fault);
            (change, serving.clone(), Some(fault))
        }
    };
    // One that goes elsewhere has its lines there, all others have them before anything new.
    let file = |config: &Config, name: &str| {
        let record = named(&config.sockets, name)?.record.as_ref();
        record.map(|record| record.file.clone())
    };
    let (moving, staying): (Vec<_>, Vec<_>) = unwritten.into_iter().partition(|unwritten| {
        let there = file(&config, &unwritten.socket);
        there.is_some() && there != file(serving, &unwritten.socket)
    });
    for of in staying {
        server.prepend_lines(&of.socket, &of.lines[of.written..]);
    }
    if let Err(source) = handover.commit() {
        handover.postpone();
        return Err(Faults::system("taking over what was handed over")(source).into());
    }
    server.ready();
    server.own();
    let lines = change.map_or_else(|lines| lines, |change| change.put(&mut server));
    for of in moving {
        server.prepend_lines(&of.socket, &of.lines);
    }
    handover.forget();
    apply::follow_up_start(&mut server, &config, lines, &managed);
    match refused {
        Some(fault) => note_refused(&mut server, &fault, !managed.is_empty()),
        None => log::to_stderr(&config.daemon.log),
    }
    Ok((server, config))
}

/// The file that is there cannot be put into force, and that of before stays: of what the manager
/// passes, takes what stands anew where this process has served, and where else nobody would. Where nothing
/// does: what there is to be said.
fn plan_anew(
    before: Current<'_>,
    serving: &Config,
    passed: Vec<Inherited>,
) -> Result<Change, Lines> {
    let (mut is_anew, mut fitting, mut lines) = (false, Vec::new(), Vec::new());
    let there = |name: &str| endpoint_of(before.server, name);
    for passed in passed {
        let mut sockets = serving.sockets.iter();
        let Some(socket) = sockets.find(|socket| endpoint::stands_for(&passed, socket)) else {
            warn!(
                "{}: the service manager has passed it, and nobody serves it",
                endpoint::describe_inherited(&passed)
            );
            continue;
        };
        let cookie = there(&socket.name).and_then(|of| of.cookie().ok());
        is_anew |= cookie.is_none() || cookie != passed.cookie().ok();
        let name = Some(socket.name.clone());
        fitting.push(Inherited { name, ..passed });
    }
    if is_anew {
        match apply::plan(before, serving, Some(fitting), &Err) {
            Ok(change) => return Ok(change),
            Err(fault) => lines.extend(errors(&fault.to_string())),
        }
    }
    let left = before.left_to_manager.iter();
    let left = left.filter_map(|name| named(&serving.sockets, name));
    for socket in left.filter(|of| there(&of.name).is_none()) {
        let why = Decision::Leave
            .why(Present::LeftToManager)
            .unwrap_or_default();
        let why = format!("{}: {why}", endpoint::describe(socket));
        lines.extend(unserved(socket, &why));
    }
    Err(lines)
}

/// Says that the file of before serves. `is_managed`: the manager has passed any.
fn note_refused(server: &mut Server, fault: &Faults, is_managed: bool) {
    let mut so = "serving as before the restart".to_owned();
    if is_managed && matches!(fault, Faults::Socket { .. }) {
        so = format!("{so} until the units follow the file: {}", units_remedy());
    }
    reload::note_unchanged(server, REFUSED_AT_RESTART, fault, &so);
}
