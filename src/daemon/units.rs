//! Where units make the sockets: which changes of the file they have to follow first, and which they may follow
//! later.

use super::sockets::{named, units_remedy};
use crate::{
    config::{
        Config,
        keys::{self, Effect},
        switch,
    },
    error::{Fault, Faults},
};

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
