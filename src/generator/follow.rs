//! What the units follow: the file with its drop-ins, and where they have faults, the last good one. A faulty table costs at most
//! its own socket; of a text that is not TOML nothing can be used.

use std::path::Path;

use super::units::{Followed, Maker, SocketUnit, source};
use crate::{
    config::{Address, Config, Parsed, Socket, last_good},
    error::Fault,
};

/// Reads `file`, or the one that is there for the manager.
pub(super) fn read(file: Option<&Path>, maker: &Maker<'_>) -> Followed {
    let main = file.or(maker.dirs.config_file.as_deref());
    match Parsed::load(file, maker.dirs) {
        Ok(parsed) => of_parsed(&parsed, main, maker),
        Err(fault) => without_text(fault, main, maker),
    }
}

/// `main`: beside it is the last good file.
fn of_parsed(parsed: &Parsed, main: Option<&Path>, maker: &Maker<'_>) -> Followed {
    let config = &parsed.config;
    let mut faults = parsed.faults.clone();
    let mut units = Vec::new();
    for (i, socket) in config.sockets.iter().enumerate() {
        // A unit of the administrator's is there whatever the table says.
        let stands = parsed.is_sound(socket) || maker.is_own(i);
        let unit = stands.then(|| maker.express(i, socket, config));
        let (unit, found) = unit.unwrap_or_default();
        faults.extend(found);
        units.push(unit);
    }
    let instead = if faults.is_empty() {
        String::new()
    } else {
        let last = last_good(main, maker, &mut faults);
        replace(&mut units, config, last.as_ref(), maker)
    };
    Followed {
        drain: config.daemon.drain_timeout,
        sockets: maker.in_order(units),
        faults,
        instead,
        is_built_in: config.origin.is_built_in(),
    }
}

/// Puts units of the last good file in place of those of faulty sockets, and says so. Not where a sound socket
/// has the address by now.
fn replace(
    units: &mut [Option<SocketUnit>],
    config: &Config,
    last: Option<&Config>,
    maker: &Maker<'_>,
) -> String {
    let taken = units.iter().flatten();
    let taken: Vec<Address> = taken.map(|unit| unit.socket.address.clone()).collect();
    let mut said = Vec::new();
    for (i, socket) in config.sockets.iter().enumerate() {
        if units[i].is_some() {
            continue;
        }
        let name = &socket.name;
        let same = |old: &&Socket| old.name == *name && !taken.contains(&old.address);
        units[i] = last.and_then(|last| {
            let old = last.sockets.iter().find(same)?;
            let mut unit = maker.express(i, old, last).0?;
            unit.source = source(socket, config);
            Some(unit)
        });
        said.push(match units[i] {
            Some(_) => format!("the unit of socket {name} stays as it was"),
            None => format!("socket {name} has no unit"),
        });
    }
    said.join(", ")
}

fn without_text(fault: Fault, main: Option<&Path>, maker: &Maker<'_>) -> Followed {
    let source = fault.file.clone();
    let mut faults = vec![fault];
    let last = last_good(main, maker, &mut faults).unwrap_or_default();
    let sockets = last.sockets.iter().enumerate();
    let sockets = sockets.map(|(i, socket)| {
        let mut unit = maker.express(i, socket, &last).0?;
        unit.source = source.clone();
        Some(unit)
    });
    let sockets = maker.in_order(sockets);
    Followed {
        drain: last.daemon.drain_timeout,
        instead: match sockets.is_empty() {
            false => format!("the units follow {}", last.origin),
            true => "the units are those of the built-in file".into(),
        },
        sockets,
        faults,
        is_built_in: false,
    }
}

/// The last good one of `file`. A fault of it is added to `faults`.
fn last_good(file: Option<&Path>, maker: &Maker<'_>, faults: &mut Vec<Fault>) -> Option<Config> {
    last_good::load(file?, maker.dirs).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::{config::BaseDirs, generator::Scope};

    /// The files that are written for the system where udsd.socket is the administrator's own, and Sockets=
    /// of the service.
    fn beside_an_own_unit(text: &str) -> (Vec<String>, String, usize) {
        let dirs = BaseDirs::system();
        let maker = Maker {
            dirs: &dirs,
            scope: Scope::System,
            own_first: true,
            version: 257,
        };
        let parsed = Parsed::new(text.as_bytes(), None, &dirs).unwrap();
        let followed = of_parsed(&parsed, None, &maker);
        let entries = maker.entries(&followed);
        let names = entries.iter().map(|of| of.path.display().to_string());
        let texts = entries.iter().filter_map(|of| of.as_text());
        let sockets = texts.flat_map(str::lines);
        let mut sockets = sockets.filter_map(|line| line.strip_prefix("Sockets="));
        let sockets = sockets.next().unwrap().to_owned();
        (names.collect(), sockets, followed.faults.len())
    }

    #[test]
    fn an_own_first_unit_stands_whatever_its_table_says_and_takes_no_other_sockets_place() {
        let further = "[socket.b]\npath = '/b'\n";
        for (first, faults) in [
            ("path = '/a'", 0),
            ("path = 'a'", 1),
            ("path = '/a'\nrecord.file = '/tmp/x'\nframing = 'lines'", 1),
        ] {
            let (names, sockets, found) =
                beside_an_own_unit(&format!("[socket.a]\n{first}\n{further}"));
            assert_eq!(sockets, "udsd.socket udsd-b.socket", "{first}");
            let all = [
                "udsd-b.socket",
                "udsd.socket.wants/udsd-b.socket",
                "udsd.service.d/00-udsd.conf",
            ];
            assert_eq!(
                (names, found),
                (all.map(String::from).into(), faults),
                "{first}"
            );
        }
    }
}
