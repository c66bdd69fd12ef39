//! The users and groups that the config file names, as the numbers that they have on this machine.

use std::io;

use log::warn;

use crate::{
    access::Access,
    config::{Config, Socket, SocketType},
    error::{Fault, Faults},
    peer::NOBODY,
    sys,
};

/// Finds the number of a name.
type LookUp = fn(&str) -> io::Result<Option<u32>>;

/// Whether all users and groups that the file names exist.
///
/// # Errors
/// `Faults::Config` for all that do not.
pub fn check(config: &Config) -> Result<(), Faults> {
    let mut all = Vec::new();
    for socket in &config.sockets {
        let owner = owner(socket, config).map(|_| ());
        for result in [owner, access(socket, config).map(|_| ())] {
            match result {
                Err(Faults::Config(faults)) => all.extend(faults),
                other => other?,
            }
        }
    }
    Faults::of_config(all)
}

/// The numbers of `user` and `group`, where the file names them.
///
/// # Errors
/// `Faults::Config` for the first that does not exist.
pub fn owner(socket: &Socket, config: &Config) -> Result<(Option<u32>, Option<u32>), Faults> {
    let find = |kind: &str, name: &str, look_up: LookUp| {
        if name.is_empty() {
            return Ok(None);
        }
        let key = socket.key(kind);
        let number = number(config, &key, kind, name, look_up);
        number.map(Some).map_err(Faults::from)
    };
    Ok((
        find("user", &socket.user, sys::user_id)?,
        find("group", &socket.group, sys::group_id)?,
    ))
}

/// The users that the database lists as members of a group. A datagram comes with its sender's primary
/// group alone (SO_PEERGROUPS knows connected sockets only, `unix(7)`), so these enter as users.
fn members(socket: &Socket, gid: u32) -> Vec<u32> {
    let names = sys::members_of(gid).unwrap_or_else(|error| {
        let name = &socket.name;
        warn!(
            "socket.{name}.allow-groups: cannot look up the members of group {gid}: {error}; of their datagrams only those sent with it as primary group are let in"
        );
        Vec::new()
    });
    let numbers = names.iter().filter_map(|name| sys::user_id(name).ok()?);
    numbers.collect()
}

/// Who may enter by `allow-users` and `allow-groups`.
///
/// # Errors
/// `Faults::Config` for all that do not exist.
pub fn access(socket: &Socket, config: &Config) -> Result<Access, Faults> {
    let mut faults = Vec::new();
    let mut numbers = |kind: &str, names: &[String], look_up: LookUp| {
        let key = socket.key(&format!("allow-{kind}s"));
        let mut numbers = Vec::new();
        for name in names {
            match number(config, &key, kind, name, look_up) {
                Ok(number) => numbers.push(number),
                Err(fault) => faults.push(fault),
            }
        }
        if numbers.contains(&NOBODY) {
            let message = format!(
                "{NOBODY} never matches: the kernel gives it to every {kind} that has no number here"
            );
            warn!("{}", config.fault(&key, message));
        }
        numbers
    };
    let mut users = numbers("user", &socket.allow_users, sys::user_id);
    let groups = numbers("group", &socket.allow_groups, sys::group_id);
    if socket.kind == SocketType::Datagram {
        for &gid in &groups {
            users.extend(members(socket, gid));
        }
    }
    Faults::of_config(faults).map(|()| Access::new(users, groups))
}

/// `kind` is "user" or "group".
fn number(
    config: &Config,
    key: &str,
    kind: &str,
    name: &str,
    look_up: LookUp,
) -> Result<u32, Fault> {
    let wrong = match look_up(name) {
        Ok(Some(number)) => return Ok(number),
        Ok(None) => {
            format!("there is no {kind} \"{name}\" on this machine; create it, or use its number")
        }
        Err(error) => format!("cannot look up {kind} \"{name}\": {error}; use its number"),
    };
    Err(config.fault(key, wrong))
}
