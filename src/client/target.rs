//! Which server udsc talks to: NAME, path or nothing at all to an address, a framing and a
//! connection. Reads the config file only where a NAME or nothing is given.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, sync::atomic::AtomicBool};

use rustix::io::Errno;

use super::{
    MESSAGE_LIMIT, Options,
    connection::Connection,
    failure::{Failure, reason},
    packets,
    transport::Transport,
};
use crate::{
    config::{Address, BaseDirs, Config, ServiceKind, Socket, SocketType, is_name},
    error::Faults,
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

/// What only a config file says of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    service: ServiceKind,
    /// `None` where an option cuts messages in another way than the server, or where there are no messages.
    message_size: Option<usize>,
    owner: Owner,
}

impl Listed {
    /// How long a message may be, and on which socket.
    fn limit(&self) -> Option<(usize, String)> {
        Some((self.message_size?, self.name.clone()))
    }
}

/// Whose daemon is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    User,
    System,
    /// Whoever started it with `--config FILE`.
    File,
}

impl Owner {
    fn start(self) -> &'static str {
        match self {
            Owner::User => "systemctl --user start udsd.socket",
            Owner::System => "systemctl start udsd.socket",
            Owner::File => "udsd --config FILE",
        }
    }
}

/// Connects to the server that `options` ask for. `unanswered`: why a server that answers nothing is of no use.
pub(crate) fn connect(options: &Options, unanswered: Option<&str>) -> Result<Connection, Failure> {
    let mut reasons = Vec::new();
    for target in targets(options)? {
        match target.and_then(|target| Ok((target.connect()?, target))) {
            Ok((conn, target)) => return target.check_use(unanswered).map(|()| conn),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Failure::Told(reasons.join("\nudsc: ")))
}

/// The servers to try, in order; an error says why a file has none.
fn targets(options: &Options) -> Result<Vec<Result<Target, String>>, Failure> {
    let wanted = options.socket.as_deref().map(Wanted::of).transpose()?;
    let mut targets = match wanted {
        Some(Wanted::Address(address)) => vec![Ok(Target {
            kind: SocketType::Stream,
            framing: Framing::Lines,
            listed: of_path(options, &address),
            address,
        })],
        Some(Wanted::Name(name)) => configured(options, Some(name))?,
        None => configured(options, None)?,
    };
    for target in targets.iter_mut().flatten() {
        let of_file = (target.kind, target.framing);
        let of_stream = target.kind == SocketType::Stream;
        target.kind = options.kind.unwrap_or(target.kind);
        // How a stream is framed says nothing of packets.
        if target.kind != SocketType::Stream && of_stream {
            target.framing = Framing::None;
        }
        target.framing = options.framing.unwrap_or(target.framing);
        if let Some(listed) = &mut target.listed
            && (target.kind, target.framing) != of_file
        {
            listed.message_size = None;
        }
        target.check()?;
    }
    Ok(targets)
}

/// The socket of that name in the file of each daemon that `options` allow, the user's before the system's. An
/// error says that a file lacks it.
fn configured(
    options: &Options,
    name: Option<&str>,
) -> Result<Vec<Result<Target, String>>, Failure> {
    let mut targets = Vec::new();
    for daemon in daemons(options)? {
        let owner = daemon.owner;
        let config = daemon.config()?;
        match select(&config, name) {
            // Both daemons may read the same file, and one that has the socket is enough.
            Err(missing) if targets.contains(&Err(missing.clone())) => {}
            Err(_) if targets.iter().any(Result::is_ok) => {}
            found => targets.push(found.map(|socket| Target::of(socket, owner))),
        }
    }
    Ok(targets)
}

/// What a file says of the socket at `address`, beside its type and framing. A faulty file says nothing: a path
/// needs none.
fn of_path(options: &Options, address: &Address) -> Option<Listed> {
    daemons(options).ok()?.into_iter().find_map(|daemon| {
        let config = daemon.config().ok()?;
        let socket = config.sockets.iter().find(|s| s.address == *address)?;
        let mut listed = Target::of(socket, daemon.owner).listed?;
        if (socket.kind, socket.framing) != (SocketType::Stream, Framing::Lines) {
            listed.message_size = None;
        }
        Some(listed)
    })
}

/// A daemon, by the file that it reads.
struct Daemon<'a> {
    owner: Owner,
    dirs: BaseDirs,
    /// `--config`
    file: Option<&'a Path>,
}

impl Daemon<'_> {
    fn config(&self) -> Result<Config, Faults> {
        Config::load(self.file, &self.dirs)
    }
}

/// The daemons that `options` allow, in the order in which they are asked.
fn daemons(options: &Options) -> Result<Vec<Daemon<'_>>, Failure> {
    let (system, current) = (BaseDirs::system(), BaseDirs::current());
    let file = options.config.as_deref();
    let daemon = |owner, dirs| Daemon { owner, dirs, file };
    if file.is_some() {
        return Ok(vec![daemon(Owner::File, current)]);
    }
    let mut daemons = Vec::new();
    // Without a runtime folder there is no place for a daemon of the user's.
    if !options.system && current != system && (options.user || current.runtime.is_some()) {
        daemons.push(daemon(Owner::User, current));
    }
    if !options.user {
        daemons.push(daemon(Owner::System, system));
    }
    if daemons.is_empty() {
        return Err(Failure::Told(
            "--user: root has no user's daemon; use --system".into(),
        ));
    }
    Ok(daemons)
}

fn select<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Socket, String> {
    let fits = |socket: &&Socket| name.is_none_or(|name| socket.name == name);
    config.sockets.iter().find(fits).ok_or_else(|| {
        let file = config.file.as_deref().map_or_else(
            || "the built-in udsd.toml".into(),
            |file| file.display().to_string(),
        );
        let known: Vec<&str> = config.sockets.iter().map(|s| s.name.as_str()).collect();
        format!(
            "no such socket {} in {file}; it has: {}",
            name.unwrap_or_default(),
            known.join(", ")
        )
    })
}

/// What `-s` says.
enum Wanted<'a> {
    /// "@name", or anything with a '/'.
    Address(Address),
    /// In the config file.
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn of(text: &'a OsStr) -> Result<Self, Failure> {
        let bytes = text.as_bytes();
        let shown = text.display();
        let wrong = match bytes.strip_prefix(b"@") {
            Some(b"") => "\"@\" lacks the name: write \"@name\" for an abstract socket".into(),
            Some(name) => return Ok(Wanted::Address(Address::Abstract(name.to_vec()))),
            None if bytes.contains(&b'/') => {
                return Ok(Wanted::Address(Address::Path(text.into())));
            }
            None if bytes.is_empty() => {
                "-s is empty: write the NAME of a socket, a path with a \"/\", or \"@name\"".into()
            }
            None => match text.to_str().filter(|text| is_name(text)) {
                Some(name) => return Ok(Wanted::Name(name)),
                None => format!(
                    "\"{shown}\" is neither the NAME of a socket nor a path: write \"./{shown}\" for a file, \"@{shown}\" for an abstract name"
                ),
            },
        };
        Err(Failure::Told(wrong))
    }
}

impl Target {
    fn of(socket: &Socket, owner: Owner) -> Self {
        Self {
            address: socket.address.clone(),
            kind: socket.kind,
            framing: socket.framing,
            listed: Some(Listed {
                name: socket.name.clone(),
                service: socket.service,
                message_size: (socket.kind != SocketType::Stream
                    || socket.framing != Framing::None)
                    .then_some(socket.message_size),
                owner,
            }),
        }
    }

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
        Err(Failure::Told(wrong))
    }

    fn connect(&self) -> Result<Connection, String> {
        let transport =
            Transport::connect(&self.address, self.kind).map_err(|error| self.refusal(&error))?;
        let framing = if transport.is_packets() {
            packets::FRAMING
        } else {
            self.framing
        };
        Ok(Connection {
            transport,
            framing,
            service: self.listed.as_ref().map(|listed| listed.service),
            limit: self.listed.as_ref().and_then(Listed::limit),
            name: self.address.to_string(),
            answered: AtomicBool::new(false),
        })
    }

    /// Before anything is sent: under collect it would become part of the record.
    fn check_use(&self, unanswered: Option<&str>) -> Result<(), Failure> {
        match (&self.listed, unanswered) {
            (Some(listed), Some(why)) if listed.service == ServiceKind::Collect => {
                let name = &listed.name;
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
                format!(" (is udsd running? {})", listed.owner.start())
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
    use crate::client::Arguments;

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
            name: "x".into(),
            service: ServiceKind::Echo,
            message_size: None,
            owner: Owner::User,
        });
        assert_eq!(
            text(&target, ErrorKind::ConnectionRefused),
            "cannot connect to /x: connection refused (is udsd running? systemctl --user start udsd.socket)"
        );
    }
}
