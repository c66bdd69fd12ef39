//! Which server udsc talks to: NAME, path or nothing at all to an address, a framing and a
//! connection. A path needs no config file; what one says of it counts all the same.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::atomic::AtomicBool};

use rustix::io::Errno;

use super::{
    MESSAGE_LIMIT, Options,
    connection::Connection,
    daemon::Daemon,
    failure::{Failure, reason},
    packets, socket,
};
use crate::{
    config::{Address, Config, ServiceKind, Socket, SocketType, is_name},
    frame::Framing,
};

/// A server, as far as it is known before connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    address: Address,
    kind: SocketType,
    framing: Framing,
    listed: Option<Listed>,
}

/// A socket of a daemon's config file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    socket: Socket,
    /// The command that starts the daemon.
    start: String,
}

/// Connects to the server that `options` ask for. `unanswered`: why a server that answers nothing is of no use.
pub(crate) fn connect(options: &Options, unanswered: Option<&str>) -> Result<Connection, Failure> {
    find(options, unanswered).map(|(_, conn)| conn)
}

/// As `connect`; with the server, to which more may be connected.
pub(crate) fn find(
    options: &Options,
    unanswered: Option<&str>,
) -> Result<(Target, Connection), Failure> {
    let mut reasons = Vec::new();
    for target in targets(options)? {
        match target.and_then(|target| Ok((target.connect()?, target))) {
            Ok((conn, target)) => return target.check_use(unanswered).map(|()| (target, conn)),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Failure::Told(reasons.join("\nudsc: ")))
}

/// The servers to try, in order; an error says why a file has none.
fn targets(options: &Options) -> Result<Vec<Result<Target, String>>, Failure> {
    let name = options.socket.as_deref();
    let mut targets = match name.map(address).transpose()?.flatten() {
        Some(address) => vec![Ok(Target {
            kind: SocketType::Stream,
            framing: Framing::Lines,
            listed: at_address(options, &address),
            address,
        })],
        None => configured(options, name)?,
    };
    for target in targets.iter_mut().flatten() {
        let of_stream = target.kind == SocketType::Stream;
        target.kind = options.kind.unwrap_or(target.kind);
        // How a stream is framed says nothing of packets.
        if target.kind != SocketType::Stream && of_stream {
            target.framing = Framing::None;
        }
        target.framing = options.framing.unwrap_or(target.framing);
        target.check()?;
    }
    Ok(targets)
}

/// The socket of that name in the file of each daemon that `options` allow, the user's before the system's. An
/// error says that a file lacks it.
fn configured(
    options: &Options,
    name: Option<&OsStr>,
) -> Result<Vec<Result<Target, String>>, Failure> {
    let mut targets = Vec::new();
    for daemon in Daemon::all(options)? {
        let (config, start) = (daemon.config()?, daemon.start);
        match select(config, name) {
            // Both daemons may read the same file, and one that has the socket is enough.
            Err(missing) if targets.contains(&Err(missing.clone())) => {}
            Err(_) if targets.iter().any(Result::is_ok) => {}
            found => targets.push(found.map(|socket| Target {
                address: socket.address.clone(),
                kind: socket.kind,
                framing: socket.framing,
                listed: Some(Listed { socket, start }),
            })),
        }
    }
    Ok(targets)
}

/// The sockets of that name, in the order in which daemons are asked.
pub(crate) fn sockets(
    options: &Options,
    name: &OsStr,
) -> Result<Vec<Result<Socket, String>>, Failure> {
    let targets = configured(options, Some(name))?.into_iter();
    let sockets = targets.map(|target| target.map(|target| target.listed.map(|of| of.socket)));
    Ok(sockets.filter_map(Result::transpose).collect())
}

/// The socket that a file has at `address`. A faulty file says nothing: an address needs none.
fn at_address(options: &Options, address: &Address) -> Option<Listed> {
    let daemons = Daemon::all(options).ok()?.into_iter();
    let mut listed = daemons.filter_map(|daemon| {
        let mut sockets = daemon.config().ok()?.sockets.into_iter();
        let socket = sockets.find(|socket| socket.address == *address)?;
        let start = daemon.start;
        Some(Listed { socket, start })
    });
    listed.next()
}

fn select(config: Config, name: Option<&OsStr>) -> Result<Socket, String> {
    let known: Vec<&str> = config.sockets.iter().map(|s| s.name.as_str()).collect();
    let known = known.join(", ");
    let fits = |socket: &Socket| name.is_none_or(|name| name == socket.name.as_str());
    config.sockets.into_iter().find(fits).ok_or_else(|| {
        let name = name.unwrap_or_default().display();
        match config.origin.of_switch(&name.to_string()) {
            Some(place) => format!("socket {name} is switched off: {place}"),
            None => format!(
                "no such socket {name} in {}; it has: {known}",
                config.origin
            ),
        }
    })
}

/// The address that `-s` gives, "@name" or anything with a '/'; `None` for the NAME of a socket in the config file.
fn address(text: &OsStr) -> Result<Option<Address>, Failure> {
    let bytes = text.as_bytes();
    let shown = text.display();
    let wrong = match bytes.strip_prefix(b"@") {
        Some(b"") => "\"@\" lacks the name: write \"@name\" for an abstract socket".into(),
        Some(name) => return Ok(Some(Address::Abstract(name.to_vec()))),
        None if bytes.contains(&b'/') => return Ok(Some(Address::Path(text.into()))),
        None if bytes.is_empty() => {
            "-s is empty: write the NAME of a socket, a path with a \"/\", or \"@name\"".into()
        }
        None if text.to_str().is_some_and(is_name) => return Ok(None),
        None => format!(
            "\"{shown}\" is neither the NAME of a socket nor a path: write \"./{shown}\" for a file, \"@{shown}\" for an abstract name"
        ),
    };
    Err(Failure::Usage(wrong))
}

impl Target {
    fn check(&self) -> Result<(), Failure> {
        let (kind, framing) = (self.kind, self.framing);
        let wrong = match (kind, framing) {
            (SocketType::Stream, Framing::Fixed(n) | Framing::CString(n)) if n > MESSAGE_LIMIT => {
                format!(
                    "framing {framing} exceeds the {MESSAGE_LIMIT} bytes of a message that udsc holds"
                )
            }
            (SocketType::Stream, _)
            | (_, Framing::None)
            | (SocketType::Datagram, Framing::Syslog) => return Ok(()),
            _ => format!(
                "framing {framing} contradicts type {kind}: packets need no framing; leave it out"
            ),
        };
        Err(Failure::Usage(wrong))
    }

    /// Connects to it; the error names the address and, where there is one, the remedy.
    pub(crate) fn connect(&self) -> Result<Connection, String> {
        let listed = self.listed();
        // What is cut in another way than the server's, or not at all, is no message of the server's.
        let limit = listed.filter(|listed| {
            (self.kind, self.framing) == (listed.kind, listed.framing)
                && (self.kind, self.framing) != (SocketType::Stream, Framing::None)
        });
        let socket = socket::connect(&self.address, self.kind);
        Ok(Connection {
            socket: socket.map_err(|error| self.refusal(&error))?,
            kind: self.kind,
            framing: match self.kind {
                SocketType::Stream => self.framing,
                _ => packets::FRAMING,
            },
            service: listed.map(|listed| listed.service),
            limit: limit.map(|listed| (listed.message_size, listed.name.clone())),
            name: self.address.to_string(),
            answered: AtomicBool::new(false),
        })
    }

    /// The socket of the config file, where one has it.
    pub(crate) fn listed(&self) -> Option<&Socket> {
        self.listed.as_ref().map(|listed| &listed.socket)
    }

    /// Before anything is sent: under collect it would become part of the record.
    fn check_use(&self, unanswered: Option<&str>) -> Result<(), Failure> {
        match (&self.listed, unanswered) {
            (Some(Listed { socket, .. }), Some(why)) if socket.service == ServiceKind::Collect => {
                let name = &socket.name;
                let text = format!("socket {name} collects and answers nothing; {why}");
                Err(Failure::Told(text))
            }
            _ => Ok(()),
        }
    }

    /// Why it could not be connected, and the remedy where there is one.
    fn refusal(&self, error: &io::Error) -> String {
        let kind = self.kind;
        let remedy = match (error.kind(), &self.listed, &self.address) {
            (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, Some(listed), _) => {
                format!(" (is udsd running? {})", listed.start)
            }
            (io::ErrorKind::ConnectionRefused, None, Address::Path(_)) => {
                " (nobody listens there)".into()
            }
            // Each type has abstract names of its own.
            (io::ErrorKind::ConnectionRefused, None, Address::Abstract(_)) => {
                format!(" (nobody listens there with type {kind})")
            }
            (io::ErrorKind::PermissionDenied, ..) => {
                " (the file's owner and mode, and those of its folders, say who may)".into()
            }
            _ => match Errno::from_io_error(error) {
                Some(Errno::NAMETOOLONG) => " (a path has at most 107 bytes)".into(),
                Some(Errno::PROTOTYPE) => format!(
                    " (the socket there is of another type than {kind}: try {})",
                    others(kind)
                ),
                _ => String::new(),
            },
        };
        let address = &self.address;
        format!("cannot connect to {address}: {}{remedy}", reason(error))
    }
}

/// The options for the types that this is not.
fn others(kind: SocketType) -> String {
    let others = SocketType::ALL.iter().filter(|other| **other != kind);
    let options = others.map(|other| format!("--type {other}"));
    options.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{
        io::ErrorKind,
        os::{
            linux::net::SocketAddrExt,
            unix::net::{SocketAddr, UnixListener},
        },
    };

    use clap::Parser;

    use super::*;
    use crate::udsc::Arguments;

    fn options(arguments: &[&str]) -> Options {
        let arguments = [&["udsc"], arguments].concat();
        Arguments::try_parse_from(arguments).unwrap().options
    }

    fn only(arguments: &[&str]) -> Target {
        let mut targets = targets(&options(arguments)).unwrap();
        assert_eq!(targets.len(), 1);
        targets.remove(0).unwrap()
    }

    #[test]
    fn a_slash_makes_a_path_and_an_at_sign_an_abstract_name() {
        let target = only(&["-s", "./a.sock"]);
        assert_eq!(target.address, Address::Path("./a.sock".into()));
        assert_eq!(target.framing, Framing::Lines);
        assert_eq!(target.kind, SocketType::Stream);
        let target = only(&["-s", "@a/b", "--framing", "fixed:9"]);
        assert_eq!(target.address, Address::Abstract(b"a/b".to_vec()));
        assert_eq!(target.framing, Framing::Fixed(9));
    }

    #[test]
    fn what_is_neither_name_nor_path_is_told_with_the_remedy() {
        let failure = targets(&options(&["-s", "a.sock"])).unwrap_err();
        assert!(failure.to_string().contains("write \"./a.sock\""));
    }

    #[test]
    fn packets_have_no_framing_but_syslog_which_changes_nothing() {
        for (arguments, framing) in [
            (&["--type", "seqpacket"][..], Framing::None),
            (&["--type", "datagram", "--framing", "none"], Framing::None),
            (
                &["--type", "datagram", "--framing", "syslog"],
                Framing::Syslog,
            ),
        ] {
            let target = only(&[&["-s", "@a"], arguments].concat());
            assert_eq!(target.framing, framing, "{arguments:?}");
        }
        for (kind, framing) in [("datagram", "lines"), ("seqpacket", "syslog")] {
            let arguments = ["-s", "@a", "--type", kind, "--framing", framing];
            assert_eq!(
                targets(&options(&arguments)).unwrap_err().to_string(),
                format!(
                    "framing {framing} contradicts type {kind}: packets need no framing; leave it out"
                )
            );
        }
    }

    #[test]
    fn a_framing_beyond_the_limit_is_refused() {
        let huge = "cstring:99999999999";
        let failure = targets(&options(&["-s", "@a", "--framing", huge])).unwrap_err();
        assert!(failure.to_string().contains("67108864 bytes"), "{failure}");
    }

    #[test]
    fn an_abstract_name_is_connected() {
        let name = format!("udsc-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let conn = connect(&options(&["-s", &format!("@{name}")]), None).unwrap();
        assert_eq!(conn.name, format!("@{name}"));
        assert_eq!(conn.service, None);
    }

    #[test]
    fn a_refusal_names_address_reason_and_remedy() {
        let mut target = only(&["-s", "/x"]);
        let text = |target: &Target, kind: ErrorKind| target.refusal(&kind.into());
        assert_eq!(
            text(&target, ErrorKind::NotFound),
            "cannot connect to /x: entity not found"
        );
        assert!(text(&target, ErrorKind::PermissionDenied).contains("owner and mode"));
        target.listed = Some(Listed {
            socket: Socket::new("x".into(), target.address.clone()),
            start: "udsd".into(),
        });
        assert_eq!(
            text(&target, ErrorKind::ConnectionRefused),
            "cannot connect to /x: connection refused (is udsd running? udsd)"
        );
    }
}
