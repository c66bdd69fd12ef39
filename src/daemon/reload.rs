//! SIGHUP: the config file is read again, and what it changes is put into force, all of it or nothing.

use ::log::{Level, error, info, log, warn};

use super::{
    Arguments,
    apply::{self, Before},
    in_force, load, log as lines, log_fault, note_exposure,
    sockets::{is_managed, named, note_abstract, units_remedy},
};
use crate::{
    config::{
        Config,
        keys::{self, Effect},
    },
    endpoint,
    error::{Fault, Faults},
    server::{RELOAD_FAILED, Server},
    users,
};

/// Serves by what the file says now; where that is not possible, goes on as before, and the log and
/// the status say why. `serving` is what is in force.
pub(super) fn reload(server: &mut Server, arguments: &Arguments, serving: &mut Config) {
    server.reloading();
    if arguments.socket.is_some() {
        warn!("SIGHUP: nothing to reload, --socket has no config file");
        return;
    }
    let is_managed = is_managed(server, &serving.sockets);
    let before = Before {
        server,
        sockets: &serving.sockets,
        left: &[],
    };
    let planned = load(arguments, is_managed).and_then(|config| {
        users::check(&config)?;
        if is_managed {
            for note in leave_to_units(serving, &config)? {
                warn!("{note}");
            }
        }
        Ok((apply::plan(before, &config, None, &Err)?, config))
    });
    match planned {
        Ok((step, config)) => {
            let said = step.put(server).into_iter();
            // What came, went or moved is said below.
            for (level, line) in said.filter(|(level, _)| *level != Level::Info) {
                log!(level, "{line}");
            }
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
        Err(fault) => {
            note_unchanged(
                server,
                RELOAD_FAILED,
                &fault,
                "reload failed, serving as before",
            );
        }
    }
}

/// Says in the log and in the status why the file is not in force; `when` is as in `Server::unchanged`.
pub(super) fn note_unchanged(server: &mut Server, when: &str, fault: &Faults, so: &str) {
    log_fault(fault);
    error!("{so}");
    tell_unchanged(server, when, fault);
}

/// Says it in the status alone.
pub(super) fn tell_unchanged(server: &mut Server, when: &str, fault: &Faults) {
    let text = fault.to_string();
    server.unchanged(when, text.lines().next().unwrap_or_default());
}

/// Refuses what only the socket units can do: which sockets there are, where they are, and whose. Returns
/// what they have to follow all the same, a line each.
pub(super) fn leave_to_units(serving: &Config, config: &Config) -> Result<Vec<String>, Faults> {
    let remedy = units_remedy();
    let mut faults: Vec<Fault> = Vec::new();
    let mut refuse = |key: String, what: &str| {
        let message =
            format!("{what}, which the socket units have to follow; nothing was changed: {remedy}");
        faults.push(config.fault(&key, message));
    };
    for old in &serving.sockets {
        if named(&config.sockets, &old.name).is_none() {
            refuse(format!("socket.{}", old.name), "is gone");
        }
    }
    for new in &config.sockets {
        if named(&serving.sockets, &new.name).is_none() {
            refuse(format!("socket.{}", new.name), "is new");
        }
    }
    let mut notes = Vec::new();
    for (key, row) in keys::changes(serving, config) {
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
        return Err(Faults::Config(faults));
    }
    Ok(notes)
}

/// One line for each socket that came, went or moved.
fn note_changes(before: &Config, after: &Config) {
    for old in &before.sockets {
        if named(&after.sockets, &old.name).is_none() {
            info!("{}: removed", endpoint::describe(old));
        }
    }
    for new in &after.sockets {
        match named(&before.sockets, &new.name) {
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
