//! A listening socket, or one that datagrams come to: bind or inherit, accept, remove.
//!
//! The order of binding leaves no moment in which the socket has wrong permissions, no chance for
//! two daemons on one path, and no file touched that is not a dead socket: lock, look at what is
//! there, bind under a tight umask, set owner and mode, listen.

mod bound_path;
mod permissions;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use log::warn;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt},
    process::{getegid, geteuid},
};

use crate::{
    client_socket::{ClientSocket, Sizes},
    config::{self, Address, Config},
    connection::Stream,
    datagram_socket::DatagramSocket,
    error::Faults,
    lock,
    peer::Peer,
    state, sys,
    systemd::Inherited,
    users,
};
pub use bound_path::is_served;
use bound_path::{Bound, Free, bind_file, clear, in_use, owner_of, take_lock};
use permissions::Permissions;

/// A socket of the config file: clients connect to it, or datagrams come to it.
#[derive(Debug)]
pub struct Endpoint {
    fd: Rc<OwnedFd>,
    origin: Origin,
    backlog: u32,
    /// How long packets may be, on a seqpacket socket.
    packets: Option<Sizes>,
    /// Clients connect to it; else datagrams come.
    listens: bool,
}

/// What a reload changes on a socket that stays.
#[derive(Debug)]
pub struct Adjustment {
    packets: Option<Sizes>,
    backlog: u32,
    permissions: Option<Permissions>,
}

/// Where a listening socket comes from.
#[derive(Debug)]
enum Origin {
    /// The manager passed it, and keeps it.
    Inherited,
    /// This process bound it; a name in the abstract namespace has no file.
    Bound(Option<Bound>),
}

impl Endpoint {
    /// Binds and listens as `socket` says.
    ///
    /// # Errors
    /// `Faults::Socket` with what stands in the way, `Faults::Config` for a user or group that does
    /// not exist, or a `message-size` that no packet can have.
    pub fn bind(socket: &config::Socket, config: &Config) -> Result<Self, Faults> {
        Self::bind_over(None, socket, config)
    }

    /// As `bind`, but in place of `old`, a socket of this process at the same path: that one gets the path back
    /// if the new one is dropped before `settle`.
    ///
    /// # Errors
    /// As `bind`.
    pub fn bind_over(
        old: Option<&Endpoint>,
        socket: &config::Socket,
        config: &Config,
    ) -> Result<Self, Faults> {
        let system = |error: Errno| fault(socket, &error);
        let owner = users::owner(socket, config)?;
        let packets = packet_sizes(socket, config)?;
        let fd = net::socket_with(
            AddressFamily::UNIX,
            socket.kind.raw(),
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .map_err(system)?;
        sys::refuse_descriptors(&fd).map_err(|error| fault(socket, &error))?;
        let listens = socket.kind != config::SocketType::Datagram;
        if !listens {
            // Set before anyone can send: earlier datagrams would have no sender.
            sockopt::set_socket_passcred(&fd, true).map_err(system)?;
        }
        let backlog = i32::try_from(socket.backlog).unwrap_or(i32::MAX);
        let bound = match &socket.address {
            Address::Abstract(name) => {
                let address = SocketAddrUnix::new_abstract_name(name).map_err(system)?;
                net::bind(&fd, &address).map_err(|error| match error {
                    // A file can be moved aside, a name cannot.
                    Errno::ADDRINUSE if old.is_some() => fault(
                        socket,
                        &"another socket of this daemon has the name: restart udsd to pass it on",
                    ),
                    Errno::ADDRINUSE => fault(socket, &in_use(owner_of(&address))),
                    other => system(other),
                })?;
                None
            }
            Address::Path(path) => {
                let refused = |why: String| fault(socket, &why);
                let address = SocketAddrUnix::new(path).map_err(system)?;
                let (lock, aside) = match old.and_then(Endpoint::file) {
                    Some(old) => old.make_way().map_err(refused)?,
                    None => {
                        let lock = take_lock(path).map_err(refused)?;
                        clear(path).map_err(refused)?;
                        (Rc::new(lock), None)
                    }
                };
                let free = Free { path, lock, aside };
                let bound = bind_file(&fd, free, &address, socket, owner);
                Some(bound.map_err(refused)?)
            }
        };
        if listens {
            net::listen(&fd, backlog).map_err(system)?;
        }
        Ok(Endpoint {
            fd: Rc::new(fd),
            origin: Origin::Bound(bound),
            backlog: socket.backlog,
            packets,
            listens,
        })
    }

    /// Takes over a socket that the manager listens on for `socket`.
    ///
    /// # Errors
    /// `Faults::Socket` naming both sides where it is not what the file says, `Faults::Config` for a
    /// `message-size` that no packet can have.
    pub fn inherit(
        passed: Inherited,
        socket: &config::Socket,
        config: &Config,
    ) -> Result<Self, Faults> {
        let system = |error: Errno| fault(socket, &error);
        let name = passed.name.as_deref().unwrap_or("unnamed");
        if passed.kind != socket.kind.raw() {
            return Err(fault(
                socket,
                &format!(
                    "the manager passed {name} as a {} socket, the config file says {}: make the unit and the file agree",
                    type_name(passed.kind),
                    socket.kind
                ),
            ));
        }
        let address = address_of(&passed.fd).map_err(system)?;
        if !address.as_ref().is_some_and(|there| fits(there, socket)) {
            return Err(fault(
                socket,
                &format!(
                    "the manager passed {name} at {}, the config file says {}: make the unit and the file agree",
                    show(address.as_ref()),
                    socket.address
                ),
            ));
        }
        let listens = socket.kind != config::SocketType::Datagram;
        if !listens && !sockopt::socket_passcred(&passed.fd).map_err(system)? {
            warn!(
                "{}: datagrams that were sent to it until now have no sender and will be refused: its unit needs PassCredentials=yes",
                describe(socket)
            );
        }
        if listens && !sockopt::socket_acceptconn(&passed.fd).map_err(system)? {
            return Err(fault(
                socket,
                &format!(
                    "{name}, which the manager passed, does not listen: its unit needs {}= and Accept=no",
                    socket.kind.listen_directive()
                ),
            ));
        }
        rustix::io::ioctl_fionbio(&passed.fd, true).map_err(system)?;
        sys::refuse_descriptors(&passed.fd).map_err(|error| fault(socket, &error))?;
        if let Address::Path(path) = &socket.address {
            compare_permissions(path, socket);
        }
        Ok(Endpoint {
            fd: Rc::new(passed.fd),
            origin: Origin::Inherited,
            backlog: socket.backlog,
            packets: packet_sizes(socket, config)?,
            listens,
        })
    }

    /// Hands the socket, its file and its lock over to the next process; `descriptors` go with it.
    ///
    /// # Errors
    /// Those of `getsockopt(2)` and `fstat(2)`.
    pub fn park(&mut self) -> io::Result<state::Endpoint> {
        Ok(state::Endpoint {
            cookie: sockopt::socket_cookie(&self.fd)?,
            inherited: matches!(self.origin, Origin::Inherited),
            file: match &mut self.origin {
                Origin::Bound(Some(bound)) => Some(bound.park()?),
                _ => None,
            },
        })
    }

    /// The descriptors for the next process: the socket's and, where it has a file, the lock's. An abstract
    /// socket of the manager's is not among them: while another process has it open, its name is taken, and
    /// the manager could not make it anew (`unix(7)`).
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let lock = match &self.origin {
            Origin::Bound(Some(bound)) => Some(bound.lock().as_fd()),
            _ => None,
        };
        let stays =
            self.is_inherited() && matches!(address_of(&self.fd), Ok(Some(Address::Abstract(_))));
        let own = (!stays).then(|| self.fd.as_fd());
        own.into_iter().chain(lock)
    }

    /// Writes this process' pid into the lock file again: the disk may have been full before.
    pub fn fill_lock(&self) {
        if let Origin::Bound(Some(bound)) = &self.origin {
            bound.lock().fill();
        }
    }

    /// Goes on with a socket that an earlier process served for `socket`. `lock`: that of its file.
    ///
    /// # Errors
    /// `Faults::Socket` where it is not of the type that the file says, `Faults::Config` as `inherit`.
    pub fn resume(
        parked: &state::Endpoint,
        fd: OwnedFd,
        lock: Option<File>,
        socket: &config::Socket,
        config: &Config,
    ) -> Result<Self, Faults> {
        let packets = packet_sizes(socket, config)?;
        let there = sockopt::socket_type(&fd);
        if there != Ok(socket.kind.raw()) {
            let kind = socket.kind;
            let why = format!(
                "it was another type of socket until now, and is {kind} in the config file"
            );
            return Err(fault(socket, &why));
        }
        // The manager makes the sockets that it passes blocking, and this may be one of them.
        let blocking = rustix::io::ioctl_fionbio(&fd, true).map_err(io::Error::from);
        let taken_over = blocking.and_then(|()| sys::refuse_descriptors(&fd));
        taken_over.map_err(|error| fault(socket, &error))?;
        let bound = parked.file.as_ref().zip(lock);
        let origin = if parked.inherited {
            Origin::Inherited
        } else {
            Origin::Bound(bound.map(|(file, lock)| Bound::resume(file, lock)))
        };
        Ok(Endpoint {
            fd: Rc::new(fd),
            origin,
            backlog: socket.backlog,
            packets,
            listens: socket.kind != config::SocketType::Datagram,
        })
    }

    /// Stops listening. The file of a bound socket is removed, and clients that wait to be accepted see end of
    /// file. An inherited socket stays with the manager, and so do the clients that wait there.
    pub fn close(self) {
        let Origin::Bound(file) = self.origin else {
            return;
        };
        drop(file);
        // Another process may hold it open, and nobody is to wait there any more. A datagram socket still
        // sends answers.
        let ended = match self.listens {
            true => Shutdown::Both,
            false => Shutdown::Read,
        };
        let _ = net::shutdown(&self.fd, ended);
        if !self.listens {
            return;
        }
        // At most as many as could wait: clients that hold the address may come faster than this.
        for _ in 0..=self.backlog {
            let Ok((client, _)) = ClientSocket::accept(&self.fd, self.packets) else {
                break;
            };
            client.hang_up();
        }
    }

    /// The file of a socket that this process bound.
    fn file(&self) -> Option<&Bound> {
        match &self.origin {
            Origin::Bound(file) => file.as_ref(),
            Origin::Inherited => None,
        }
    }

    /// Whether it is at the address of `socket`.
    #[must_use]
    pub fn is_at(&self, socket: &config::Socket) -> bool {
        let there = address_of(&self.fd).ok().flatten();
        there.is_some_and(|there| fits(&there, socket))
    }

    /// Whether it is at the address of `socket`, and of its type.
    #[must_use]
    pub fn stands_for(&self, socket: &config::Socket) -> bool {
        self.is_at(socket) && sockopt::socket_type(&self.fd) == Ok(socket.kind.raw())
    }

    /// A duplicate, to serve as `socket`.
    ///
    /// # Errors
    /// `Faults::Socket` where there is no descriptor left, `Faults::Config` as `inherit`.
    pub fn duplicate(&self, socket: &config::Socket, config: &Config) -> Result<Self, Faults> {
        let packets = packet_sizes(socket, config)?;
        let fd = self.fd.try_clone().map_err(|error| fault(socket, &error))?;
        Ok(Endpoint {
            fd: Rc::new(fd),
            origin: Origin::Inherited,
            backlog: socket.backlog,
            packets,
            listens: self.listens,
        })
    }

    /// From now on this process removes the file.
    pub fn own(&mut self) {
        if let Origin::Bound(Some(file)) = &mut self.origin {
            file.own();
        }
    }

    /// The manager has dropped it, or the file has no use for it: closing it ends it.
    pub fn disown(&mut self) {
        if self.is_inherited() {
            self.origin = Origin::Bound(None);
        }
    }

    /// SO_COOKIE (`socket(7)`), which tells the socket from all others.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn cookie(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(&self.fd)?)
    }

    /// The network namespace that it is in. A name in the abstract namespace is known there alone
    /// (`network_namespaces(7)`).
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn network(&self) -> io::Result<u64> {
        sys::network_of(&self.fd)
    }

    /// Whether the manager passed it.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        matches!(self.origin, Origin::Inherited)
    }

    /// Whether clients can find it: the file of one that this process bound is still at its path. An
    /// inherited one's is the manager's to keep there, and a name in the abstract namespace stays.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.file().is_none_or(Bound::is_there)
    }

    /// Prepares what `new` changes against `old`, which has the same address and type. The socket file gets its
    /// new mode and owner now, and the old ones back if the result is dropped before `adjust`.
    ///
    /// # Errors
    /// As `bind`.
    pub fn prepare(
        &self,
        old: &config::Socket,
        new: &config::Socket,
        config: &Config,
    ) -> Result<Adjustment, Faults> {
        let packets = packet_sizes(new, config)?;
        let (user, group) = users::owner(new, config)?;
        let mut permissions = None;
        let is_changed = (old.mode, &old.user, &old.group) != (new.mode, &new.user, &new.group);
        if is_changed && let Some(file) = self.file() {
            // "" means the daemon's own.
            let user = (old.user != new.user).then(|| user.unwrap_or(geteuid().as_raw()));
            let group = (old.group != new.group).then(|| group.unwrap_or(getegid().as_raw()));
            let changed = Permissions::change(&self.fd, file, new.mode, (user, group));
            permissions = Some(changed.map_err(|why| fault(new, &why))?);
        }
        Ok(Adjustment {
            packets,
            backlog: new.backlog,
            permissions,
        })
    }

    /// Applies what `prepare` returned.
    pub fn adjust(&mut self, adjustment: Adjustment) {
        let Adjustment {
            packets,
            backlog,
            permissions,
        } = adjustment;
        self.packets = packets;
        if let Some(permissions) = permissions {
            permissions.settle();
        }
        // The backlog of an inherited socket is its unit's.
        if self.backlog != backlog && self.listens && !self.is_inherited() {
            let most = i32::try_from(backlog).unwrap_or(i32::MAX);
            if let Err(error) = net::listen(&self.fd, most) {
                warn!("cannot change the backlog of a socket: {error}");
            }
        }
        self.backlog = backlog;
    }

    /// The socket stays: the file that was moved aside for it is removed.
    pub fn settle(&mut self) {
        if let Origin::Bound(Some(file)) = &mut self.origin {
            file.settle();
        }
    }

    /// Removes the file of a bound socket. Clients that wait can still be accepted.
    pub fn unlink(&mut self) {
        if let Origin::Bound(file) = &mut self.origin {
            *file = None;
        }
    }

    /// How many may wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Whether clients connect to it; else datagrams come.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// The kernel's socket, where datagrams come; it outlives the endpoint's file.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn datagram_socket(&self) -> io::Result<DatagramSocket> {
        let inherited = matches!(self.origin, Origin::Inherited);
        DatagramSocket::new(Rc::clone(&self.fd), inherited)
    }

    /// The next client and its credentials.
    ///
    /// # Errors
    /// As `ClientSocket::accept`.
    pub fn accept(&self) -> io::Result<(ClientSocket, Peer)> {
        ClientSocket::accept(&self.fd, self.packets)
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The socket of the config file that an inherited one belongs to: by its name, else by its path
/// and type.
#[must_use]
pub fn matching(passed: &Inherited, sockets: &[config::Socket]) -> Option<usize> {
    let by_name = |name: &String| sockets.iter().position(|socket| socket.name == *name);
    passed.name.as_ref().and_then(by_name).or_else(|| {
        let address = address_of(&passed.fd).ok()??;
        sockets
            .iter()
            .position(|socket| fits(&address, socket) && socket.kind.raw() == passed.kind)
    })
}

/// Looks at the path of `socket` and changes nothing. True if a process serves there: that may be the service
/// manager, which will pass the socket. False if the socket could be bound, or if the process that has it
/// `is_own`. A name in the abstract namespace could only be tried by taking it, so it counts as free.
///
/// # Errors
/// As `Endpoint::bind`.
pub fn look(
    socket: &config::Socket,
    config: &Config,
    is_own: lock::IsOwn<'_>,
) -> Result<bool, Faults> {
    let Address::Path(path) = &socket.address else {
        return Ok(false);
    };
    let look = || {
        if bound_path::look_at_lock(path, is_own)? {
            return Ok(false);
        }
        if bound_path::is_served(path)? {
            return Ok(true);
        }
        bound_path::look_at_folder(path)?;
        // Whether the names are known is asked for all sockets at once.
        let owner = users::owner(socket, config).unwrap_or_default();
        bound_path::look_at_owner(socket, owner).map(|()| false)
    };
    look().map_err(|why| fault(socket, &why))
}

/// Whether an inherited socket is at the address of this one, and of its type.
#[must_use]
pub fn stands_for(passed: &Inherited, socket: &config::Socket) -> bool {
    let address = address_of(&passed.fd).ok().flatten();
    address.is_some_and(|there| fits(&there, socket)) && socket.kind.raw() == passed.kind
}

/// Whether an inherited socket's address is what the config file says.
fn fits(there: &Address, socket: &config::Socket) -> bool {
    *there == socket.address || *there == socket.address.in_unit()
}

/// An inherited socket, as an error names it.
#[must_use]
pub fn describe_inherited(passed: &Inherited) -> String {
    let address = address_of(&passed.fd).ok().flatten();
    format!(
        "{} at {} ({})",
        passed.name.as_deref().unwrap_or("unnamed"),
        show(address.as_ref()),
        type_name(passed.kind)
    )
}

/// Warns where an inherited socket's file is not as the config file has it.
fn compare_permissions(path: &Path, socket: &config::Socket) {
    let Ok(there) = fs::symlink_metadata(path) else {
        warn!(
            "{}: its file is gone, nobody can reach it; systemctl restart its socket unit",
            describe(socket)
        );
        return;
    };
    if there.mode() & 0o777 != socket.mode {
        warn!(
            "{}: the file has mode {:04o}, the config file says {:04o}; the socket unit sets it",
            describe(socket),
            there.mode() & 0o777,
            socket.mode
        );
    }
    let names = [
        (
            "user",
            &socket.user,
            there.uid(),
            sys::user_id as fn(&str) -> _,
        ),
        ("group", &socket.group, there.gid(), sys::group_id),
    ];
    for (key, name, number, look_up) in names {
        if !name.is_empty() && look_up(name).ok().flatten() != Some(number) {
            warn!(
                "{}: the file belongs to {key} {number}, the config file says \"{name}\"; the socket unit sets it",
                describe(socket)
            );
        }
    }
}

fn address_of(fd: &OwnedFd) -> Result<Option<Address>, Errno> {
    let address = SocketAddrUnix::try_from(net::getsockname(fd)?)?;
    let path = address
        .path_bytes()
        .map(|path| Address::Path(PathBuf::from(std::ffi::OsStr::from_bytes(path))));
    Ok(path.or_else(|| {
        address
            .abstract_name()
            .map(|name| Address::Abstract(name.to_vec()))
    }))
}

fn type_name(raw: SocketType) -> &'static str {
    config::SocketType::of_raw(raw).map_or("unknown", config::SocketType::word)
}

/// How long the packets of a seqpacket socket may be, if it is one.
///
/// # Errors
/// `Faults::Config` where the kernel does not carry as long ones.
pub fn packet_sizes(socket: &config::Socket, config: &Config) -> Result<Option<Sizes>, Faults> {
    if socket.kind != config::SocketType::Seqpacket {
        return Ok(None);
    }
    let longest = socket.longest_sent();
    let (sizes, room) =
        Sizes::new(socket.message_size, longest).map_err(|error| fault(socket, &error))?;
    if room < longest {
        let key = format!("socket.{}.message-size", socket.name);
        let message = format!(
            "packets of {longest} bytes are over what SO_SNDBUF can be raised to for type = \"seqpacket\", {room} bytes: lower message-size, or raise net.core.wmem_max to {}",
            longest.div_ceil(2) + 32
        );
        return Err(config.fault(&key, message).into());
    }
    Ok(Some(sizes))
}

fn show(address: Option<&Address>) -> String {
    address.map_or_else(|| "no address".into(), Address::to_string)
}

/// The fault that `socket` cannot serve.
fn fault(socket: &config::Socket, why: &impl ToString) -> Faults {
    Faults::Socket {
        socket: describe(socket),
        fault: why.to_string(),
    }
}

/// A socket of the config file, as errors and the log name it.
#[must_use]
pub fn describe(socket: &config::Socket) -> String {
    format!("socket {} ({})", socket.name, socket.address)
}
