//! SIGHUP: the config file is read again, and what it changes is put into force, all of it or nothing.

use ::log::{error, info, warn};

use super::{
    Arguments,
    apply::{self, Current},
    check, load, log, log_fault, note_exposure,
    sockets::is_managed,
    units::leave_to_units,
};
use crate::{
    config::Config,
    error::Faults,
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
        Err(first) => {
            let fault = with_others(first, arguments);
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

/// With what else `udsd --check` finds wrong: what is prepared here ends at the first that stands in the way.
fn with_others(first: Faults, arguments: &Arguments) -> Faults {
    let others = check::before_reload(arguments);
    let mut all = first.list();
    // It may be told there with its key and line.
    all.retain(|fault| {
        !others
            .iter()
            .any(|other| fault.message.ends_with(&other.message))
    });
    all.extend(others);
    Faults::Config(all)
}
