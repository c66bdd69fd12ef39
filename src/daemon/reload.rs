//! SIGHUP: the config file is read again, and what it changes is made ready and put into force, all of
//! it or nothing.
//!
//! Here the file is compared with the one in force, and everything that it names is opened: what is
//! dropped before the server takes it over is undone. What becomes of clients is the hub's to say.

use ::log::{error, info, warn};

use super::{
    Arguments, in_force,
    limits::new_limits,
    load, log as lines, note_exposure, opening,
    records::held,
    report,
    sockets::{check_exit_on_idle, datagram_socket, note_abstract, note_unserved},
    unwritable,
};
use crate::{
    config::{self, Config, Effect, Places},
    endpoint::{self, Endpoint},
    error::{Fatal, Fault},
    hub::Socket,
    record::Encoder,
    server::{Plan, PlannedEndpoint, PlannedRecord, PlannedSocket, Server},
    service::Record,
    systemd, users,
    writer::{Closed, Target, Writer},
};

/// Serves by what the file says now; where that is not possible, goes on as before, and the log and
/// the status say why. `serving` is what is in force.
pub(super) fn reload(server: &mut Server, arguments: &Arguments, serving: &mut Config) {
    server.reloading();
    if arguments.socket.is_some() {
        warn!("SIGHUP: nothing to reload, --socket has no config file");
        return;
    }
    let is_managed = is_managed(server, serving);
    let applied = load(arguments, is_managed).and_then(|config| {
        users::check(&config)?;
        let endpoints = endpoints(server, serving, &config)?;
        server.apply(plan(server, &config, endpoints)?)?;
        Ok(config)
    });
    match applied {
        Ok(config) => {
            lines::to_stderr(&config.daemon.log);
            let file = config.file.as_ref();
            let file = file.map_or("the built-in file".into(), |file| {
                file.display().to_string()
            });
            info!("reloaded {file}");
            note_changes(serving, &config);
            note_exposure(&config);
            note_abstract(server, &config);
            in_force::write(is_managed.then_some(&config));
            *serving = config;
        }
        Err(fatal) => {
            note_unchanged(server, &fatal, "reload failed, serving as before");
        }
    }
}

/// Says why the file is not in force.
pub(super) fn note_unchanged(server: &mut Server, fatal: &Fatal, so: &str) {
    // The exit code is that of a start.
    let _ = report(fatal);
    error!("{so}");
    tell_unchanged(server, fatal);
}

/// The same for the status.
pub(super) fn tell_unchanged(server: &mut Server, fatal: &Fatal) {
    let text = fatal.to_string();
    let first = text.lines().next().unwrap_or_default();
    server.unchanged(first.to_owned());
}

/// Makes ready what `config` changes of what is in force; clients are to come from `endpoints`.
pub(super) fn plan(
    server: &Server,
    config: &Config,
    endpoints: Vec<PlannedEndpoint>,
) -> Result<Plan, Fatal> {
    let access = config
        .sockets
        .iter()
        .map(|socket| users::access(socket, config));
    let access = access.collect::<Result<Vec<_>, _>>()?;
    let records = records(server, config)?;
    let parts = config
        .sockets
        .iter()
        .zip(access)
        .zip(records)
        .zip(endpoints);
    let sockets = parts.map(|(((socket, access), record), endpoint)| PlannedSocket {
        socket: Socket::new(socket, access, None),
        endpoint,
        record,
    });
    let limits = new_limits(config);
    Ok(Plan {
        sockets: sockets.collect(),
        limits,
        drain_timeout: config.daemon.drain_timeout,
        exit_on_idle: config.daemon.exit_on_idle,
        config: config.to_toml(),
    })
}

pub(super) fn endpoint_of<'a>(server: &'a Server, name: &str) -> Option<&'a Endpoint> {
    server.endpoint(server.place(name)?)
}

/// Whether the manager passed any of the sockets that are served.
pub(super) fn is_managed(server: &Server, serving: &Config) -> bool {
    let mut sockets = serving.sockets.iter();
    sockets.any(|socket| endpoint_of(server, &socket.name).is_some_and(Endpoint::is_inherited))
}

pub(super) fn named<'a>(config: &'a Config, name: &str) -> Option<&'a config::Socket> {
    config.sockets.iter().find(|socket| socket.name == name)
}

/// What makes the socket units follow the file.
pub(super) fn units_remedy() -> &'static str {
    if Places::current() == Places::system() {
        "udsc apply"
    } else {
        "udsc --user apply"
    }
}

/// Refuses what only the socket units can do: which sockets there are, where they are, and whose. Returns
/// what they have to follow all the same, a line each.
pub(super) fn leave_to_units(serving: &Config, config: &Config) -> Result<Vec<String>, Fatal> {
    let remedy = units_remedy();
    let mut faults: Vec<Fault> = Vec::new();
    let mut refuse = |key: String, what: &str| {
        let message =
            format!("{what}, which the socket units have to follow; nothing was changed: {remedy}");
        faults.push(config.fault(&key, message));
    };
    for old in &serving.sockets {
        if named(config, &old.name).is_none() {
            refuse(format!("socket.{}", old.name), "is gone");
        }
    }
    for new in &config.sockets {
        if named(serving, &new.name).is_none() {
            refuse(format!("socket.{}", new.name), "is new");
        }
    }
    let mut notes = Vec::new();
    for (key, row) in config::changes(serving, config) {
        match row.effect {
            Effect::Units => refuse(key, "has changed"),
            Effect::UnitsLater => notes.push(format!(
                "{}: {remedy}",
                config.fault(
                    &key,
                    "the socket units have to follow, the rest of the file applies".into()
                )
            )),
            _ => {}
        }
    }
    if !faults.is_empty() {
        return Err(Fatal::Config(faults));
    }
    Ok(notes)
}

/// What becomes of the records. A file that is still the one at its path stays open, whichever socket
/// writes it from now on: two threads would mix their lines. One that could not be opened so far is left to
/// its thread: the rest of the file is in force meanwhile.
fn records(server: &Server, config: &Config) -> Result<Vec<PlannedRecord>, Fatal> {
    let writers = server.writers();
    let held = held(server);
    let mut taken = vec![false; writers.len()];
    let mut take = |fits: &dyn Fn(usize, &Writer) -> bool| {
        let mut all = writers.iter().enumerate();
        let (i, (of, writer)) = all.find(|(i, (of, writer))| !taken[*i] && fits(*of, writer))?;
        taken[i] = true;
        Some((*of, writer))
    };
    let mut kept = Vec::new();
    for socket in &config.sockets {
        let place = server.place(&socket.name);
        kept.push(socket.record.as_ref().and_then(|keys| match &keys.file {
            Some(path) => take(&|_, writer| writer.lacks(Some(path))).or_else(|| {
                let there = Target::at(path)?;
                take(&|_, writer| writer.file() == Some(there))
            }),
            None => take(&|of, writer| {
                Some(of) == place && (writer.is_standard_output() || writer.lacks(None))
            }),
        }));
    }
    let mut all = Vec::new();
    for (socket, kept) in config.sockets.iter().zip(kept) {
        let Some(keys) = &socket.record else {
            all.push(PlannedRecord::None);
            continue;
        };
        let journal = keys.file.is_none() && systemd::is_journal(std::io::stdout());
        let encoder = Encoder::new(keys.format, journal, &socket.name);
        let queue_size = keys.queue_size;
        let opening = opening(socket, keys);
        if let Some((of, writer)) = kept {
            let why = String::new();
            let is_closed = writer.lacks(keys.file.as_deref());
            all.push(PlannedRecord::Kept {
                of,
                encoder,
                queue_size,
                target: is_closed.then_some(Err(Closed { opening, why })),
            });
            continue;
        }
        let target = opening
            .open(&held)
            .map_err(|why| unwritable(config, socket, opening.name(), why))?;
        let place = server.place(&socket.name);
        all.push(match take(&|of, _| Some(of) == place) {
            Some((_, writer)) if writer.is_stuck() => {
                return Err(Fatal::Record {
                    record: writer.name.clone(),
                    source: std::io::Error::other(
                        "the lines of several reloads still wait to be written",
                    ),
                });
            }
            Some((of, _)) => PlannedRecord::Kept {
                of,
                encoder,
                queue_size,
                target: Some(Ok(target)),
            },
            None => {
                let record = Record::new(encoder, queue_size, target.last_seq);
                PlannedRecord::New(target, record)
            }
        });
    }
    Ok(all)
}

/// Where clients come from: sockets that are new, elsewhere or of another type are bound, then those
/// that stay get their modes and owners.
fn endpoints(
    server: &Server,
    serving: &Config,
    config: &Config,
) -> Result<Vec<PlannedEndpoint>, Fatal> {
    let is_managed = is_managed(server, serving);
    if is_managed {
        for note in leave_to_units(serving, config)? {
            warn!("{note}");
        }
    } else {
        check_exit_on_idle(config)?;
    }
    let mut bound = Vec::new();
    for new in &config.sockets {
        if stays(server, serving, new).is_some() {
            bound.push(None);
            continue;
        }
        let endpoint = bind(server, serving, new, config);
        bound.push(Some(match endpoint {
            // As before: it could not be had at the start either.
            Err(fatal) if is_managed && endpoint_of(server, &new.name).is_none() => {
                note_unserved(new, &fatal);
                PlannedEndpoint::None
            }
            other => other?,
        }));
    }
    let mut all = Vec::new();
    for (new, bound) in config.sockets.iter().zip(bound) {
        all.push(match (bound, stays(server, serving, new)) {
            (None, Some((old, endpoint))) => keep(endpoint, old, new, config)?,
            (Some(bound), _) => bound,
            (None, None) => bind(server, serving, new, config)?,
        });
    }
    Ok(all)
}

/// The socket and its endpoint that can stay as they are, but for permissions.
pub(super) fn stays<'a>(
    server: &'a Server,
    serving: &'a Config,
    new: &config::Socket,
) -> Option<(&'a config::Socket, &'a Endpoint)> {
    let old = named(serving, &new.name)?;
    let endpoint = endpoint_of(server, &new.name)?;
    // It may be elsewhere than the config file says, if it could not be moved, and where its own file is
    // gone, nobody can connect until it is bound anew. What the manager made, its units have to move.
    let stays = match endpoint.is_inherited() {
        true => old.kind == new.kind,
        false => endpoint.stands_for(new) && endpoint.is_reachable(),
    };
    stays.then_some((old, endpoint))
}

/// Binds a socket; one of this process that stands in its place makes way.
pub(super) fn bind(
    server: &Server,
    serving: &Config,
    new: &config::Socket,
    config: &Config,
) -> Result<PlannedEndpoint, Fatal> {
    let sockets = serving.sockets.iter();
    let mut all = sockets.filter_map(|old| endpoint_of(server, &old.name));
    let there = all.find(|there| there.is_at(new));
    let endpoint = Endpoint::bind_over(there, new, config)?;
    let datagram_socket = datagram_socket(config, new, &endpoint)?;
    Ok(PlannedEndpoint::New(endpoint, datagram_socket))
}

/// Keeps an endpoint of socket `old` for `new`.
pub(super) fn keep(
    endpoint: &Endpoint,
    old: &config::Socket,
    new: &config::Socket,
    config: &Config,
) -> Result<PlannedEndpoint, Fatal> {
    // A longer datagram may be more than can be sent back.
    datagram_socket(config, new, endpoint)?;
    Ok(PlannedEndpoint::Kept(endpoint.prepare(old, new, config)?))
}

/// One line for each socket that came, went or moved.
fn note_changes(before: &Config, after: &Config) {
    for old in &before.sockets {
        if named(after, &old.name).is_none() {
            info!("{}: removed", endpoint::describe(old));
        }
    }
    for new in &after.sockets {
        match named(before, &new.name) {
            None => info!(
                "{}: bound, {}, {}",
                endpoint::describe(new),
                new.kind,
                new.service
            ),
            Some(old) if (&old.address, old.kind) != (&new.address, new.kind) => {
                let (was, is) = (endpoint::describe(old), endpoint::describe(new));
                info!("{is}: bound, {}, in place of {was}, {}", new.kind, old.kind);
            }
            Some(_) => {}
        }
    }
}
