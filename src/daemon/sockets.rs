//! Where clients and datagrams come from, at a start: the sockets of the config file, each inherited or
//! bound; which of those that the manager passed is which; and what the log says of them.

use std::io;

use ::log::{error, info, warn};

use super::reload;
use crate::{
    accepted::Accepted,
    config::{self, Address, Config, ServiceKind},
    datagram_socket::DatagramSocket,
    endpoint::{self, Endpoint},
    error::Fatal,
    hub::Hub,
    server::Server,
    systemd::{self, Inherited},
};

/// The sockets of the config file in its order: each inherited where the manager passed it, else
/// bound. Where the manager passes any, one that cannot be had costs only itself.
pub(super) fn endpoints(
    config: &Config,
    passed: Vec<Inherited>,
) -> Result<Vec<Option<Endpoint>>, Fatal> {
    let inherited = assign(config, passed)?;
    let is_managed = inherited.iter().any(Option::is_some);
    if !is_managed {
        check_exit_on_idle(config)?;
    }
    let sockets = config.sockets.iter().zip(inherited);
    sockets
        .map(|(socket, inherited)| {
            let (how, endpoint) = match inherited {
                Some(passed) => ("inherited", Endpoint::inherit(passed, socket, config)?),
                None => match Endpoint::bind(socket, config) {
                    Ok(endpoint) => ("bound", endpoint),
                    Err(fatal) if is_managed => {
                        note_unserved(socket, &fatal);
                        return Ok(None);
                    }
                    Err(fatal) => return Err(fatal),
                },
            };
            note_served(socket, how);
            Ok(Some(endpoint))
        })
        .collect()
}

/// Which of the sockets that the manager passed is which of the config file.
pub(super) fn assign(
    config: &Config,
    passed: Vec<Inherited>,
) -> Result<Vec<Option<Inherited>>, Fatal> {
    let mut inherited: Vec<Option<Inherited>> = config.sockets.iter().map(|_| None).collect();
    for passed in passed {
        let place = endpoint::matching(&passed, &config.sockets);
        let fault = match place.map(|i| &mut inherited[i]) {
            Some(free @ None) => {
                *free = Some(passed);
                continue;
            }
            Some(Some(_)) => "the manager passed a second socket for the same name or path",
            None => "the manager passed a socket that the config file does not have",
        };
        let names: Vec<&str> = config
            .sockets
            .iter()
            .map(|socket| socket.name.as_str())
            .collect();
        return Err(Fatal::Socket {
            socket: endpoint::describe_inherited(&passed),
            fault: format!(
                "{fault} (it has {}): make the units and the file agree, {}",
                names.join(", "),
                reload::units_remedy()
            ),
        });
    }
    Ok(inherited)
}

/// `exit-on-idle` would leave somebody without a daemon.
pub(super) fn note_staying() {
    warn!(
        "exit-on-idle is not in force until the units follow the file, or nobody would start udsd again for all its sockets: {}",
        reload::units_remedy()
    );
}

/// The line of a socket at which clients may come.
pub(super) fn note_served(socket: &config::Socket, how: &str) {
    info!(
        "{}: {how}, {}, {}",
        endpoint::describe(socket),
        socket.kind,
        socket.service
    );
}

/// Who reaches the abstract sockets, which no file mode guards.
pub(super) fn note_abstract(server: &Server, config: &Config) {
    let all = config.sockets.iter().filter_map(|socket| {
        let endpoint = reload::endpoint_of(server, &socket.name)?;
        Some((socket, endpoint))
    });
    let all: Vec<(&config::Socket, &Endpoint)> = all.collect();
    // Those of the manager: the sockets that it passed, and the journal's.
    let passed = all.iter().find(|(_, endpoint)| endpoint.is_inherited());
    let passed = passed.and_then(|(_, endpoint)| endpoint.network().ok());
    let managers = passed.or_else(systemd::network);
    for (socket, endpoint) in all {
        if !matches!(socket.address, Address::Abstract(_)) {
            continue;
        }
        let own = endpoint.network().ok();
        if managers.is_some() && own.is_some() && own != managers {
            error!(
                "{}: it is bound in the network namespace of udsd alone (PrivateNetwork=), nobody outside can reach it: let a socket unit make it: {}",
                endpoint::describe(socket),
                reload::units_remedy()
            );
        } else if socket.allow_users.is_empty() && socket.allow_groups.is_empty() {
            warn!(
                "{}: an abstract socket has no file mode, anyone on this machine may enter",
                endpoint::describe(socket)
            );
        }
    }
}

/// The lines of one that could not be had.
pub(super) fn note_unserved(socket: &config::Socket, why: &Fatal) {
    for line in why.to_string().lines() {
        error!("{line}");
    }
    error!(
        "{}: nobody can reach it, the others are served: {}",
        endpoint::describe(socket),
        reload::units_remedy()
    );
}

/// `exit-on-idle` where the manager passes nothing: what udsd binds goes with it, and nobody would start
/// it again for those who come there.
pub(super) fn check_exit_on_idle(config: &Config) -> Result<(), Fatal> {
    let Some(bound) = config.sockets.first() else {
        return Ok(());
    };
    if config.daemon.exit_on_idle.is_none() {
        return Ok(());
    }
    let message = format!(
        "needs every socket to be passed by the manager, and that of socket.{}.path ({}) is not: nobody would start udsd again for those who come there; give it a socket unit, or write \"never\"",
        bound.name, bound.address
    );
    let fault = config.fault("daemon.exit-on-idle", message);
    Err(Fatal::Config(vec![fault]))
}

/// The datagram_sockets of the datagram sockets, with their places in the hub.
pub(super) fn datagram_sockets(
    config: &Config,
    hub: &Hub<Accepted>,
    endpoints: &[Option<Endpoint>],
) -> Result<Vec<(usize, DatagramSocket)>, Fatal> {
    let mut datagram_sockets = Vec::new();
    for socket in &config.sockets {
        if let Some(place) = hub.place(&socket.name)
            && let Some(Some(endpoint)) = endpoints.get(place)
            && let Some(datagram_socket) = datagram_socket(config, socket, endpoint)?
        {
            datagram_sockets.push((place, datagram_socket));
        }
    }
    Ok(datagram_sockets)
}

/// The datagram_socket of a datagram socket; `None` where clients connect.
pub(super) fn datagram_socket(
    config: &Config,
    socket: &config::Socket,
    endpoint: &Endpoint,
) -> Result<Option<DatagramSocket>, Fatal> {
    if endpoint.listens() {
        return Ok(None);
    }
    let datagram_socket = endpoint.datagram_socket().map_err(not_configured)?;
    check_longest(config, socket, &datagram_socket)?;
    Ok(Some(datagram_socket))
}

/// Whether messages as long as the file lets in can be sent back.
pub(super) fn check_longest(
    config: &Config,
    socket: &config::Socket,
    datagram_socket: &DatagramSocket,
) -> Result<(), Fatal> {
    let longest = datagram_socket.longest();
    if socket.service == ServiceKind::Echo && socket.message_size > longest {
        let key = format!("socket.{}.message-size", socket.name);
        let message = format!(
            "the longest datagram that udsd may send back has {longest} bytes: lower it, or raise net.core.wmem_max"
        );
        return Err(Fatal::Config(vec![config.fault(&key, message)]));
    }
    Ok(())
}

pub(super) fn not_configured(source: io::Error) -> Fatal {
    Fatal::System {
        doing: "setting up a datagram socket",
        source,
    }
}
