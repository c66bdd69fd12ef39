//! SIGHUP: the config file is read again, and what it changes is put into force, all of it or nothing.

use ::log::{error, info, warn};

use super::{
    Arguments,
    apply::{self, Current},
    load, log, log_fault, note_exposure,
    sockets::{is_managed, named, units_remedy},
};
use crate::{
    config::{
        Config,
        keys::{self, Effect},
        switch,
    },
    error::{Fault, Faults},
    server::{RELOAD_FAILED, Server},
    users,
};

/// Puts the file into force as it is now. Where that is not possible, udsd serves as before, and the log and the
/// status say why. `serving` is the file in force.
pub(super) fn reload(server: &mut Server, arguments: &Arguments, serving: &mut Config) {
    server.reloading();
    if arguments.socket.is_some() {
        // It has no control socket either, at which somebody could have asked.
        warn!("SIGHUP: nothing to reload, --socket has no config file");
        return;
    }
    let is_managed = is_managed(server, &serving.sockets);
    let before = Current {
        server,
        sockets: &serving.sockets,
        left_to_manager: &[],
    };
    let planned = load(arguments, is_managed).and_then(|config| {
        users::check(&config)?;
        if is_managed {
            for note in leave_to_units(serving, &config)? {
                warn!("{note}");
            }
        }
        Ok((apply::plan(before, &config, None, false)?, config))
    });
    match planned {
        Ok((change, config)) => {
            let lines = change.put(server);
            log::to_stderr(&config.daemon.log);
            info!("reloaded {}", config.origin);
            apply::follow_up(server, &config, lines);
            note_exposure(&config);
            *serving = config;
            server.reloaded(&[]);
        }
        Err(fault) => {
            note_unchanged(
                server,
                RELOAD_FAILED,
                &fault,
                "reload failed, serving as before",
            );
            server.reloaded(&fault.list());
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

/// Refuses changes that the socket units have to make first: of which sockets there are, where they are, and
/// whose. Returns a line for each change that the units may follow later.
pub(super) fn leave_to_units(serving: &Config, config: &Config) -> Result<Vec<String>, Faults> {
    let remedy = units_remedy();
    let mut faults: Vec<Fault> = Vec::new();
    let mut refuse = |key: String, what: &str| {
        let message =
            format!("{what}, which the socket units have to follow; nothing was changed: {remedy}");
        faults.push(config.fault(&key, message));
    };
    for old in serving.of_file() {
        if named(&config.sockets, &old.name).is_none() {
            match config.origin.of_switch(&old.name) {
                Some(_) => refuse(switch(&old.name), "is false by now"),
                None => refuse(format!("socket.{}", old.name), "is gone"),
            }
        }
    }
    for new in config.of_file() {
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
    Faults::of_config(faults).map(|()| notes)
}
