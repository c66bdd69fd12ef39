//! Which socket that the manager passed is which socket of the file, what the file may ask of each, and what the
//! log says of them.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt};

use ::log::{Level, error, warn};
use rustix::process::geteuid;

use crate::{
    config::{self, Address, BaseDirs, Config, ServiceKind},
    datagram_socket::DatagramSocket,
    endpoint::{self, Endpoint},
    error::Faults,
    server::Server,
    systemd::{self, Inherited},
};

pub(super) fn endpoint_of<'a>(server: &'a Server, name: &str) -> Option<&'a Endpoint> {
    server.endpoint(server.key(name)?)
}

/// Whether the manager passed any of the sockets that are served.
pub(super) fn is_managed(server: &Server, serving: &[config::Socket]) -> bool {
    let mut sockets = serving.iter();
    sockets.any(|socket| endpoint_of(server, &socket.name).is_some_and(Endpoint::is_inherited))
}

pub(super) fn named<'a>(sockets: &'a [config::Socket], name: &str) -> Option<&'a config::Socket> {
    sockets.iter().find(|socket| socket.name == name)
}

/// The command that makes the socket units follow the file.
pub(super) fn units_remedy() -> &'static str {
    if BaseDirs::current() == BaseDirs::system() {
        "udsc apply"
    } else {
        "udsc --user apply"
    }
}

/// The passed socket for each socket of the file.
pub(super) fn assign(
    config: &Config,
    passed: Vec<Inherited>,
) -> Result<Vec<Option<Inherited>>, Faults> {
    let mut inherited: Vec<Option<Inherited>> = config.sockets.iter().map(|_| None).collect();
    for passed in passed {
        let index = endpoint::matching(&passed, &config.sockets);
        let fault = match index.map(|i| &mut inherited[i]) {
            Some(free @ None) => {
                *free = Some(passed);
                continue;
            }
            Some(Some(_)) => "the manager passed a second socket for the same name or path",
            None => "the manager passed a socket that the config file does not have",
        };
        let names = config.sockets.iter().map(|socket| &*socket.name);
        let names: Vec<&str> = names.collect();
        return Err(Faults::Socket {
            socket: endpoint::describe_inherited(&passed),
            fault: format!(
                "{fault} (it has {}): make the units and the file agree, {}",
                names.join(", "),
                units_remedy()
            ),
        });
    }
    Ok(inherited)
}

/// Logs that `exit-on-idle` has to wait for the units.
pub(super) fn note_staying() {
    warn!(
        "exit-on-idle is not in force until the units follow the file, or nobody would start udsd again for all its sockets: {}",
        units_remedy()
    );
}

/// Logs who can reach the abstract sockets, which have no file mode.
pub(super) fn note_abstract(server: &Server, config: &Config) {
    let sockets = config.sockets.iter();
    let all = sockets.filter_map(|socket| Some((socket, endpoint_of(server, &socket.name)?)));
    let all: Vec<(&config::Socket, &Endpoint)> = all.collect();
    // The manager's network namespace: that of a socket that it passed, or of its journal's.
    let passed = all.iter().find(|(_, endpoint)| endpoint.is_inherited());
    let passed = passed.and_then(|(_, endpoint)| endpoint.network().ok());
    let managers = passed.or_else(systemd::network);
    let is_abstract = |of: &config::Socket| matches!(of.address, Address::Abstract(_));
    for (socket, endpoint) in all.into_iter().filter(|(socket, _)| is_abstract(socket)) {
        let own = endpoint.network().ok();
        if managers.is_some() && own.is_some() && own != managers {
            error!(
                "{}: it is bound in the network namespace of udsd alone (PrivateNetwork=), nobody outside can reach it: let a socket unit make it: {}",
                endpoint::describe(socket),
                units_remedy()
            );
        } else if socket.allow_users.is_empty() && socket.allow_groups.is_empty() {
            warn!(
                "{}: an abstract socket has no file mode, anyone on this machine may enter",
                endpoint::describe(socket)
            );
        }
    }
}

/// Makes the folder of the control socket, where it is missing: others may look into it where this is the system's
/// daemon. What stands in the way is found when the socket is bound.
pub(super) fn make_folder(address: &Address) {
    if let Address::Path(path) = address
        && let Some(folder) = path.parent()
    {
        let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
        let _ = DirBuilder::new().mode(mode).create(folder);
    }
}

/// The log lines of a socket that is not served, and why.
pub(super) fn unserved(socket: &config::Socket, why: &str) -> Vec<(Level, String)> {
    let (name, remedy) = (endpoint::describe(socket), units_remedy());
    let consequence = format!("{name}: nobody can reach it, the others are served: {remedy}");
    errors(why).chain(errors(&consequence)).collect()
}

/// The lines of `text` as errors.
pub(super) fn errors(text: &str) -> impl Iterator<Item = (Level, String)> {
    let lines = text.lines();
    lines.map(|line| (Level::Error, line.to_owned()))
}

/// Refuses `exit-on-idle` where the manager passes no socket: a socket that udsd binds ends with it, and then no
/// client can start udsd again.
pub(super) fn check_exit_on_idle(config: &Config) -> Result<(), Faults> {
    let (Some(bound), Some(_)) = (config.sockets.first(), config.daemon.exit_on_idle) else {
        return Ok(());
    };
    let message = format!(
        "needs every socket to be passed by the manager, and that of socket.{}.path ({}) is not: clients that come there could not start udsd again; give it a socket unit, or write \"never\"",
        bound.name, bound.address
    );
    Err(config.fault("daemon.exit-on-idle", message).into())
}

/// The datagram socket of a socket; `None` where clients connect.
pub(super) fn datagram_socket(
    config: &Config,
    socket: &config::Socket,
    endpoint: &Endpoint,
) -> Result<Option<DatagramSocket>, Faults> {
    if endpoint.listens() {
        return Ok(None);
    }
    let datagram_socket = endpoint.datagram_socket().map_err(not_configured)?;
    check_longest(config, socket, &datagram_socket)?;
    Ok(Some(datagram_socket))
}

/// Checks that udsd can send back the longest message that the file lets in.
pub(super) fn check_longest(
    config: &Config,
    socket: &config::Socket,
    datagram_socket: &DatagramSocket,
) -> Result<(), Faults> {
    let longest = datagram_socket.longest();
    if socket.service == ServiceKind::Echo && socket.message_size > longest {
        let key = format!("socket.{}.message-size", socket.name);
        let message = format!(
            "the longest datagram that udsd may send back has {longest} bytes: lower it, or raise net.core.wmem_max"
        );
        return Err(config.fault(&key, message).into());
    }
    Ok(())
}

pub(super) fn not_configured(source: io::Error) -> Faults {
    Faults::system("setting up a datagram socket")(source)
}
