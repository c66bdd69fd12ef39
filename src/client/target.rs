//! Which server udsc talks to: NAME, path or nothing at all to an address, a framing and a
//! connection. Reads the config file only where a NAME or nothing is given.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixStream},
        },
    },
    path::Path,
};

use super::{
    MESSAGE_LIMIT, Options,
    failure::{Failure, Refusal},
    messages::Broken,
};
use crate::{
    config::{Address, Config, Places, ServiceKind, Socket, SocketType, is_name},
    frame::Framing,
};

/// A server, as far as it is known before connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    address: Address,
    kind: SocketType,
    framing: Framing,
    service: Option<ServiceKind>,
    start: &'static str,
}

/// A connected server.
pub(crate) struct Link {
    /// The connection.
    pub stream: UnixStream,
    /// How its messages are told apart.
    pub framing: Framing,
    /// What the server does, where the config file says so.
    pub service: Option<ServiceKind>,
    /// The server's address, as errors and replies show it.
    pub name: String,
}

impl Link {
    /// What an error on the connection is.
    pub(crate) fn broke(&self, source: io::Error) -> Failure {
        Failure::Link(self.name.clone(), source)
    }

    /// What it is that the server's messages cannot be told apart.
    pub(crate) fn garbled(&self, broken: Broken) -> Failure {
        broken.at(&self.name, self.framing)
    }

    /// The server left bytes unread until time ran out.
    pub(crate) fn unread(&self, bytes: usize) -> Failure {
        Failure::Amount(format!(
            "{}: time ran out with {bytes} bytes unsent, which the server did not read",
            self.name
        ))
    }

    /// The same connection, for another thread.
    pub(crate) fn duplicate(&self) -> Result<Self, Failure> {
        let stream = self.stream.try_clone();
        Ok(Self {
            stream: stream
                .map_err(|source| Failure::System("duplicating the connection", source))?,
            framing: self.framing,
            service: self.service,
            name: self.name.clone(),
        })
    }

    /// One to a server that is the other end.
    #[cfg(test)]
    pub(crate) fn pair(framing: Framing) -> (Self, UnixStream) {
        let (stream, server) = UnixStream::pair().expect("a pair of sockets");
        let link = Self {
            stream,
            framing,
            service: None,
            name: "/x".into(),
        };
        (link, server)
    }
}

/// Whose daemon is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    User,
    System,
}

impl Owner {
    fn start(self) -> &'static str {
        match self {
            Owner::User => "systemctl --user start udsd.socket",
            Owner::System => "systemctl start udsd.socket",
        }
    }
}

/// Connects to the server that `options` ask for.
pub(crate) fn connect(options: &Options) -> Result<Link, Failure> {
    let mut refusals = Vec::new();
    for target in targets(options)? {
        match target.connect() {
            Ok(link) => return Ok(link),
            Err(Failure::Connect(refused)) => refusals.extend(refused),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Connect(refusals))
}

/// The servers to try, in order.
fn targets(options: &Options) -> Result<Vec<Target>, Failure> {
    let wanted = options.socket.as_deref();
    let mut targets = match wanted.and_then(bare) {
        Some(address) => {
            let owner = if options.user {
                Owner::User
            } else {
                Owner::System
            };
            vec![Target {
                address,
                kind: SocketType::Stream,
                framing: Framing::Lines,
                service: None,
                start: owner.start(),
            }]
        }
        None => configured(options, wanted.map(name).transpose()?)?,
    };
    for target in &mut targets {
        target.kind = options.kind.unwrap_or(target.kind);
        target.framing = options.framing.unwrap_or(target.framing);
        target.check()?;
    }
    Ok(targets)
}

/// The sockets of that name in the files of the daemons that `options` allow: the user's before the
/// system's. A file that lacks it is an error only where no other has it.
fn configured(options: &Options, name: Option<&str>) -> Result<Vec<Target>, Failure> {
    let (system, current) = (Places::system(), Places::current());
    let mut places = Vec::new();
    if !options.system && current != system {
        places.push((Owner::User, current));
    }
    if !options.user {
        places.push((Owner::System, system));
    }
    let mut found = Vec::new();
    let mut missing = Err(Failure::Asked(
        "--user: no user's daemon here (root has none, and XDG_RUNTIME_DIR must be set); use --system".into(),
    ));
    for (owner, places) in places {
        let config =
            Config::load(None, &places).map_err(|fatal| Failure::Asked(fatal.to_string()))?;
        match select(&config, name) {
            Ok(socket) => found.push(Target::of(socket, owner)),
            Err(failure) => missing = Err(failure),
        }
    }
    if found.is_empty() { missing } else { Ok(found) }
}

fn select<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Socket, Failure> {
    let mut sockets = config.sockets.iter();
    let socket = match name {
        None => sockets.next(),
        Some(name) => sockets.find(|socket| socket.name == name),
    };
    socket.ok_or_else(|| Failure::NoSocket {
        name: name.map(str::to_owned),
        file: config.file.as_deref().map_or_else(
            || "the built-in udsd.toml".into(),
            |file| file.display().to_string(),
        ),
        known: config.sockets.iter().map(|s| s.name.clone()).collect(),
    })
}

/// The address that stands for itself: "@name", or anything with a '/'.
fn bare(text: &OsStr) -> Option<Address> {
    let bytes = text.as_bytes();
    match bytes.strip_prefix(b"@") {
        Some(name) => Some(Address::Abstract(name.to_vec())),
        None if bytes.contains(&b'/') => Some(Address::Path(Path::new(text).to_owned())),
        None => None,
    }
}

fn name(text: &OsStr) -> Result<&str, Failure> {
    text.to_str()
        .filter(|text| is_name(text))
        .ok_or_else(|| {
            let text = text.display();
            Failure::Asked(format!(
                "\"{text}\" is neither the NAME of a socket nor a path: write \"./{text}\" for a file, \"@{text}\" for an abstract name"
            ))
        })
}

impl Target {
    fn of(socket: &Socket, owner: Owner) -> Self {
        Self {
            address: socket.address.clone(),
            kind: socket.kind,
            framing: socket.framing,
            service: Some(socket.service),
            start: owner.start(),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let kind = match self.kind {
            SocketType::Stream => None,
            SocketType::Seqpacket => Some("seqpacket"),
            SocketType::Datagram => Some("datagram"),
        };
        let wrong = match (kind, self.framing) {
            (Some(kind), _) => {
                format!("sockets of type {kind} are not available yet in udsc, only stream")
            }
            (None, Framing::Fixed(n) | Framing::CString(n)) if n > MESSAGE_LIMIT => format!(
                "framing {} exceeds the {MESSAGE_LIMIT} bytes of a message that udsc holds",
                self.framing
            ),
            _ => return Ok(()),
        };
        Err(Failure::Asked(wrong))
    }

    fn connect(&self) -> Result<Link, Failure> {
        let name = self.address.to_string();
        match open(&self.address) {
            Ok(stream) => Ok(Link {
                stream,
                framing: self.framing,
                service: self.service,
                name,
            }),
            Err(source) => Err(Failure::Connect(vec![Refusal {
                address: name,
                source,
                start: self.start,
            }])),
        }
    }
}

fn open(address: &Address) -> io::Result<UnixStream> {
    match address {
        Address::Path(path) => UnixStream::connect(path),
        Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::{io::ErrorKind, os::unix::net::UnixListener};

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
        targets.remove(0)
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
        assert!(targets(&options(&["-s", ""])).is_err());
    }

    #[test]
    fn other_types_are_not_available_yet() {
        let failure = targets(&options(&["-s", "@a", "--type", "datagram"])).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "sockets of type datagram are not available yet in udsc, only stream"
        );
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
        let link = connect(&options(&["-s", &format!("@{name}")])).unwrap();
        assert_eq!(link.name, format!("@{name}"));
        assert_eq!(link.service, None);
    }

    #[test]
    fn a_refusal_names_address_reason_and_remedy() {
        let text = |kind: ErrorKind, start| {
            let refusal = Refusal {
                address: "/x".into(),
                source: kind.into(),
                start,
            };
            refusal.to_string()
        };
        assert_eq!(
            text(ErrorKind::ConnectionRefused, Owner::User.start()),
            "cannot connect to /x: connection refused (is udsd running? systemctl --user start udsd.socket)"
        );
        assert!(text(ErrorKind::PermissionDenied, "").contains("owner and mode"));
    }
}
