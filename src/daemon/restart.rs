//! The start of a process that goes on where another ended.
//!
//! First everything is restored under the file that was in force in the process before. Then the present file
//! comes into force, as by a reload, with the sockets that the manager passes to this process. Where it cannot,
//! this process serves as the one before, and the log and the status say why: a fault in a file closes no client.

use std::mem;

use ::log::{error, info, warn};
use signal_hook_mio::v1_0::Signals;

use super::{
    apply::{self, Change, Current},
    limits::limits,
    log, log_fault, records, reload, serve,
    sockets::{datagram_socket, errors, named, units_remedy},
};
use crate::{
    access::Access,
    client_socket::ClientSocket,
    config::{self, Config},
    endpoint::{self, Endpoint},
    error::Faults,
    handover::Handover,
    handover_state::{self, State},
    hub::{Hub, Now, Socket},
    record::{NotOpen, Output, Recorder, SegmentEnd},
    server::{REFUSED_AT_RESTART, Server},
    systemd::Inherited,
    users,
};

/// Goes on with `handover`; `config` is the present file.
pub(super) fn go_on(
    mut handover: Handover,
    config: Result<Config, Faults>,
    passed: Vec<Inherited>,
    signals: Signals,
) -> Result<(Server, Config), Faults> {
    handover.add(&passed);
    let serving = handover.config.clone();
    match resume(&mut handover, &serving, signals) {
        Ok(resumed) => adopt(resumed, &serving, handover, config, passed),
        Err(fault) => {
            handover.postpone();
            Err(fault)
        }
    }
}

/// What was restored.
struct Resumed {
    server: Server,
    unwritten: Vec<LinesLeft>,
    /// The names of the sockets that the process before has left to the manager alone, which may have passed them.
    left_to_manager: Vec<String>,
}

/// The lines of one record that the process before had made and not written.
struct LinesLeft {
    /// The name of the record's socket.
    socket: String,
    /// Whole lines.
    lines: Vec<u8>,
    /// Bytes of them that stand at the end of the record's file already.
    written: usize,
    /// Where segments end between them.
    segment_ends: Vec<SegmentEnd>,
}

/// Restores everything but the lines of records.
fn resume(handover: &mut Handover, serving: &Config, signals: Signals) -> Result<Resumed, Faults> {
    let (rules, mut outputs): (Vec<_>, Vec<Opened>) = rules(serving).into_iter().unzip();
    let mut rules: Vec<_> = rules.into_iter().map(Some).collect();
    let (mut sockets, mut served) = (Vec::new(), Vec::new());
    let (mut unwritten, mut left_to_manager) = (Vec::new(), Vec::new());
    let mut parked = mem::take(&mut handover.state);
    for before in &mut parked.sockets {
        let mut names = serving.sockets.iter();
        let of_file = names.position(|socket| socket.name == before.name && !before.retired);
        let Some((i, rules)) = of_file.and_then(|i| Some((i, rules[i].take()?))) else {
            sockets.push(Socket::draining(&before.name));
            served.push((None, None));
            continue;
        };
        let recorded_at = serving.shares_record(i).unwrap_or(i);
        unwritten.extend(lines_of(before, &mut outputs[recorded_at]));
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
        served.push((endpoint.transpose()?, Some(i)));
    }
    let mut server = serve(restore(handover, sockets, parked, serving), signals)?;
    server.set(serving.into());
    for (key, (endpoint, i)) in served.into_iter().enumerate() {
        let output = i.and_then(|i| outputs[i].take());
        server.resume(key, endpoint, output)?;
    }
    Ok(Resumed {
        server,
        unwritten,
        left_to_manager,
    })
}

/// Where the record of a socket is written to, or what could not be opened; `None` without a record.
type Opened = Option<Result<Output, NotOpen>>;

/// The sockets of the file as the hub has them, each with the output of its record. One whose access rules name an
/// unknown user or group serves too, but lets no new client in.
///
/// A record may be out of reach: the disk is full, or the units follow another file already. Until it can be opened,
/// or another file is in force, lines gather in its queue, and senders wait when that is full.
fn rules(serving: &Config) -> Vec<(Socket, Opened)> {
    let note = |fault: &Faults| warn!("as the file stood before the restart: {fault}");
    let mut all: Vec<(Socket, Opened)> = Vec::new();
    for (i, socket) in serving.sockets.iter().enumerate() {
        let access = users::access(socket, serving).inspect_err(note);
        let access = access.unwrap_or_else(|_| Access::none());
        let (mut recorder, mut output) = (None, None);
        if let Some(keys) = &socket.record {
            let encoder = records::encoder(socket, keys);
            let shared = serving.shares_record(i);
            let shared = shared.and_then(|first| all[first].0.recorder());
            recorder = Some(match shared {
                Some(other) => other.beside(encoder),
                None => {
                    let opened = open_record(serving, socket, keys, &note);
                    let record = records::new_record(keys, records::found(&opened));
                    output = Some(opened);
                    Recorder::new(encoder, record)
                }
            });
        }
        all.push((Socket::new(socket, access, recorder), output));
    }
    all
}

/// Opens the record of a socket, or says why it is not open.
fn open_record(
    serving: &Config,
    socket: &config::Socket,
    keys: &config::Record,
    note: &dyn Fn(&Faults),
) -> Result<Output, NotOpen> {
    records::open(serving, socket, keys, &[]).map_err(|(not_open, why)| {
        let fault = records::unwritable(serving, socket, &not_open.config.name(), why);
        match fault {
            Faults::Config(_) => note(&fault),
            _ => records::note_not_open(&fault),
        }
        not_open
    })
}

/// The lines that are still to be written to the record of `before`, if it has one.
fn lines_of(before: &mut handover_state::Socket, output: &mut Opened) -> Option<LinesLeft> {
    let record = before.record.as_mut()?;
    let lines = mem::take(&mut record.lines);
    let segment_ends = mem::take(&mut record.segment_ends);
    let socket = before.name.clone();
    let written = match output {
        Some(Ok(output)) => output.resume(&lines, record.begun).unwrap_or_else(|error| {
            warn!("{socket}: the end of its record cannot be read: {error}");
            0
        }),
        _ => 0,
    };
    Some(LinesLeft {
        socket,
        lines,
        written,
        segment_ends,
    })
}

fn restore(
    handover: &mut Handover,
    sockets: Vec<Socket>,
    parked: State,
    serving: &Config,
) -> Hub<ClientSocket> {
    let now = Now::read();
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

/// The endpoint of a socket, as the process before has left it.
fn endpoint(
    handover: &mut Handover,
    before: &handover_state::Socket,
    socket: &config::Socket,
    config: &Config,
) -> Option<Endpoint> {
    let parked = before.endpoint.as_ref()?;
    let Some((fd, lock)) = handover.endpoint(parked) else {
        // The manager may still pass its own; where it does not, the plan says so.
        if !parked.inherited {
            let name = endpoint::describe(socket);
            error!("{name}: its descriptor is missing in what was handed over");
        }
        return None;
    };
    let resumed = Endpoint::resume(parked, fd, lock, socket, config);
    resumed.inspect_err(log_fault).ok()
}

/// Puts the present file into force or, where it cannot be, the sockets that the manager made anew. Takes over what
/// was handed over, and has the manager forget it.
///
/// What can fail or takes time is done before the commit, or after the manager knows that this process serves. A
/// process that is killed between the two loses all clients.
fn adopt(
    mut resumed: Resumed,
    serving: &Config,
    handover: Handover,
    config: Result<Config, Faults>,
    passed: Vec<Inherited>,
) -> Result<(Server, Config), Faults> {
    let managed: Vec<u64> = passed.iter().filter_map(|of| of.cookie().ok()).collect();
    let before = Current {
        server: &resumed.server,
        sockets: &serving.sockets,
        left_to_manager: &resumed.left_to_manager,
    };
    let spare = passed.iter().filter_map(|of| of.try_clone().ok()).collect();
    let planned = config.and_then(|config| {
        let change = apply::plan(before, &config, Some(passed), false)?;
        Ok((change, config))
    });
    let (change, config, refused) = match planned {
        Ok((change, config)) => (Ok(change), config, None),
        Err(fault) => {
            let change = plan_as_before(before, serving, spare);
            reload::tell_unchanged(&mut resumed.server, REFUSED_AT_RESTART, &fault);
            (change, serving.clone(), Some(fault))
        }
    };
    // A record that stays where it is gets its lines before any new ones; one that moves gets them there.
    let file = |config: &Config, name: &str| {
        let record = named(&config.sockets, name)?.record.as_ref();
        record.map(|record| record.file.clone())
    };
    let (moving, staying): (Vec<_>, Vec<_>) =
        resumed.unwritten.into_iter().partition(|unwritten| {
            let there = file(&config, &unwritten.socket);
            let here = file(serving, &unwritten.socket);
            let mut sharers = serving.sockets.iter().filter(|of| {
                let own = file(serving, &of.name);
                of.name == unwritten.socket || own == here && own.flatten().is_some()
            });
            there.is_some() && !sharers.any(|of| file(&config, &of.name) == here)
        });
    let mut server = resumed.server;
    for mut of in staying {
        // No segment ends within a line that was begun.
        of.segment_ends
            .iter_mut()
            .for_each(|cut| cut.at = cut.at.saturating_sub(of.written));
        server.prepend_lines(&of.socket, &of.lines[of.written..], &of.segment_ends);
    }
    if let Err(source) = handover.commit() {
        handover.postpone();
        return Err(Faults::system("taking over what was handed over")(source));
    }
    server.ready();
    server.own();
    let lines = match change {
        Ok(change) => change.put(&mut server),
        Err(fault) => errors(&fault.to_string()).collect(),
    };
    for of in moving {
        // What ended there is another file.
        server.prepend_lines(&of.socket, &of.lines, &[]);
    }
    handover.forget();
    apply::follow_up_start(&mut server, &config, lines, &managed);
    match refused {
        Some(fault) => note_refused(&mut server, &fault, !managed.is_empty()),
        None => log::to_stderr(&config.daemon.log),
    }
    Ok((server, config))
}

/// Plans for the file of before, where the present one cannot come into force: takes the sockets that the manager
/// has made anew for it, which nobody would serve otherwise.
fn plan_as_before(
    before: Current<'_>,
    serving: &Config,
    passed: Vec<Inherited>,
) -> Result<Change, Faults> {
    let mut fitting = Vec::new();
    for passed in passed {
        let mut sockets = serving.sockets.iter();
        if let Some(socket) = sockets.find(|socket| endpoint::stands_for(&passed.fd, socket)) {
            let name = Some(socket.name.clone());
            fitting.push(Inherited { name, ..passed });
        } else {
            warn!(
                "{}: the service manager has passed it, and nobody serves it",
                endpoint::describe_inherited(&passed)
            );
        }
    }
    apply::plan(before, serving, Some(fitting), false)
}

/// Says that the file of before stays in force. `is_managed`: the manager has passed some socket.
fn note_refused(server: &mut Server, fault: &Faults, is_managed: bool) {
    let mut so = "serving as before the restart".to_owned();
    if is_managed && matches!(fault, Faults::Socket { .. }) {
        so = format!("{so} until the units follow the file: {}", units_remedy());
    }
    reload::note_unchanged(server, REFUSED_AT_RESTART, fault, &so);
}
