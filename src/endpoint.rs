//! A listening socket, or one that datagrams come to: bind or inherit, accept, remove.
//!
//! The order of binding leaves no moment in which the socket has wrong permissions, no chance for
//! two daemons on one path, and no file touched that is not a dead socket: lock, look at what is
//! there, bind under a tight umask, set owner and mode, listen.

mod bound_path;
mod permissions;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
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
    handover_state, lock,
    peer::Peer,
    sys,
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
    /// Binds and listens as `socket` says; in place of `old`, a socket of this process at the same path, if there
    /// is one: that gets the path back if the new one is dropped before `settle`.
    ///
    /// # Errors
    /// `Faults::Socket` with what stands in the way, `Faults::Config` for a user or group that does
    /// not exist, or a `message-size` that no packet can have.
    pub fn bind(
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
                    Some(old) => {
                        let (lock, aside) = old.make_way().map_err(refused)?;
                        (lock, Some(aside))
                    }
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
        let endpoint = Self::new(fd, Origin::Bound(bound), socket, packets);
        if listens {
            endpoint.listen(socket.backlog).map_err(system)?;
        }
        Ok(endpoint)
    }

    fn new(fd: OwnedFd, origin: Origin, socket: &config::Socket, packets: Option<Sizes>) -> Self {
        Endpoint {
            fd: Rc::new(fd),
            origin,
            backlog: socket.backlog,
            packets,
            listens: socket.kind != config::SocketType::Datagram,
        }
    }

    /// Lets so many wait to be accepted.
    fn listen(&self, backlog: u32) -> Result<(), Errno> {
        net::listen(&self.fd, i32::try_from(backlog).unwrap_or(i32::MAX))
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
        if !is_at(&passed.fd, socket) {
            return Err(fault(
                socket,
                &format!(
                    "the manager passed {name} at {}, the config file says {}: make the unit and the file agree",
                    show_address(&passed.fd),
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
        take_over(&passed.fd).map_err(|error| fault(socket, &error))?;
        if let Address::Path(path) = &socket.address {
            compare_permissions(path, socket);
        }
        let packets = packet_sizes(socket, config)?;
        Ok(Self::new(passed.fd, Origin::Inherited, socket, packets))
    }

    /// Hands the socket, its file and its lock over to the next process; `descriptors` go with it.
    ///
    /// # Errors
    /// Those of `getsockopt(2)` and `fstat(2)`.
    pub fn park(&mut self) -> io::Result<handover_state::Endpoint> {
        Ok(handover_state::Endpoint {
            cookie: sockopt::socket_cookie(&self.fd)?,
            inherited: self.is_inherited(),
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
            self.is_inherited() && matches!(address_of(&self.fd), Some(Address::Abstract(_)));
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
        parked: &handover_state::Endpoint,
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
        // It may be one that the manager passed.
        take_over(&fd).map_err(|error| fault(socket, &error))?;
        let bound = parked.file.as_ref().zip(lock);
        let origin = if parked.inherited {
            Origin::Inherited
        } else {
            Origin::Bound(bound.map(|(file, lock)| Bound::resume(file, lock)))
        };
        Ok(Self::new(fd, origin, socket, packets))
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
        is_at(&self.fd, socket)
    }

    /// Whether it is at the address of `socket`, and of its type.
    #[must_use]
    pub fn stands_for(&self, socket: &config::Socket) -> bool {
        stands_for(&self.fd, socket)
    }

    /// A duplicate, to serve as `socket`.
    ///
    /// # Errors
    /// `Faults::Socket` where there is no descriptor left, `Faults::Config` as `inherit`.
    pub fn duplicate(&self, socket: &config::Socket, config: &Config) -> Result<Self, Faults> {
        let packets = packet_sizes(socket, config)?;
        let fd = self.fd.try_clone().map_err(|error| fault(socket, &error))?;
        Ok(Self::new(fd, Origin::Inherited, socket, packets))
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

    /// Where it is, as the kernel has it.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        address_of(&self.fd)
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
        if self.backlog != backlog
            && self.listens
            && !self.is_inherited()
            && let Err(error) = self.listen(backlog)
        {
            warn!("cannot change the backlog of a socket: {error}");
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
        DatagramSocket::new(Rc::clone(&self.fd), self.is_inherited())
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
    let by_address = || sockets.iter().position(|of| stands_for(&passed.fd, of));
    passed.name.as_ref().and_then(by_name).or_else(by_address)
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

/// Whether `fd` is at the address of `socket`, and of its type.
pub fn stands_for(fd: impl AsFd, socket: &config::Socket) -> bool {
    is_at(&fd, socket) && sockopt::socket_type(fd) == Ok(socket.kind.raw())
}

/// Whether `fd` is at the address of `socket`.
fn is_at(fd: impl AsFd, socket: &config::Socket) -> bool {
    let there = address_of(fd);
    there.is_some_and(|there| there == socket.address || there == socket.address.in_unit())
}

/// Makes it non-blocking and refuses descriptors: the manager's sockets block, and take them.
fn take_over(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true)?;
    sys::refuse_descriptors(fd).map(|_| ())
}

/// An inherited socket, as an error names it.
#[must_use]
pub fn describe_inherited(passed: &Inherited) -> String {
    format!(
        "{} at {} ({})",
        passed.name.as_deref().unwrap_or("unnamed"),
        show_address(&passed.fd),
        type_name(passed.kind)
    )
}

/// Warns where an inherited socket's file is not as the config file has it.
fn compare_permissions(path: &Path, socket: &config::Socket) {
    let name = describe(socket);
    let Ok(there) = fs::symlink_metadata(path) else {
        warn!("{name}: its file is gone, nobody can reach it; systemctl restart its socket unit");
        return;
    };
    let mode = there.mode() & 0o777;
    if mode != socket.mode {
        warn!(
            "{name}: the file has mode {mode:04o}, the config file says {:04o}; the socket unit sets it",
            socket.mode
        );
    }
    type LookUp = fn(&str) -> io::Result<Option<u32>>;
    let user = ("user", &socket.user, there.uid(), sys::user_id as LookUp);
    let group = ("group", &socket.group, there.gid(), sys::group_id as LookUp);
    for (key, wanted, number, look_up) in [user, group] {
        if !wanted.is_empty() && look_up(wanted).ok().flatten() != Some(number) {
            warn!(
                "{name}: the file belongs to {key} {number}, the config file says \"{wanted}\"; the socket unit sets it"
            );
        }
    }
}

fn address_of(fd: impl AsFd) -> Option<Address> {
    let address = SocketAddrUnix::try_from(net::getsockname(fd).ok()?).ok()?;
    match address.path_bytes() {
        Some(path) => Some(Address::Path(OsStr::from_bytes(path).into())),
        None => Some(Address::Abstract(address.abstract_name()?.to_vec())),
    }
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

fn show_address(fd: impl AsFd) -> String {
    address_of(fd).map_or("no address".into(), |address| address.to_string())
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
    match socket.is_control() {
        true => format!("control socket ({})", socket.address),
        false => format!("socket {} ({})", socket.name, socket.address),
    }
}
