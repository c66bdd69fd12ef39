//! A listening socket: bind or inherit, accept, remove.
//!
//! The order of binding leaves no moment in which the socket has wrong permissions, no chance for
//! two daemons on one path, and no file touched that is not a dead socket: lock, look at what is
//! there, bind under a tight umask, set owner and mode, listen.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Read, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    process,
};

use log::warn;
use rustix::{
    fs::{self as rfs, AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix,
        SocketFlags, SocketType, sockopt,
    },
    process::umask,
};

use crate::{
    config::{self, Address, Config},
    connection::Stream,
    error::Fatal,
    peer::Peer,
    sys,
    systemd::Inherited,
};

/// A socket that listens.
#[derive(Debug)]
pub struct Endpoint {
    fd: OwnedFd,
    origin: Origin,
    backlog: u32,
}

/// Where a listening socket comes from.
#[derive(Debug)]
enum Origin {
    /// The manager passed it, and keeps it.
    Inherited,
    /// This process bound it; a name in the abstract namespace has no file.
    Bound(Option<Bound>),
}

/// A socket file of this process: removed with it, if it is still the same.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Held for as long as the socket lives; removed last.
    _lock: Lock,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The lock file beside a path: whoever holds it may replace the socket there.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: nobody else can have taken it for theirs.
        let _ = fs::remove_file(&self.path);
    }
}

impl Endpoint {
    /// Binds and listens as `socket` says.
    ///
    /// # Errors
    /// `Fatal::Socket` with what stands in the way, `Fatal::Config` for a user or group that does
    /// not exist.
    pub fn bind(socket: &config::Socket, config: &Config) -> Result<Self, Fatal> {
        let fault = |fault: String| Fatal::Socket {
            socket: describe(socket),
            fault,
        };
        let system = |error: io::Error| fault(error.to_string());
        let owner = owner(socket, config)?;
        let fd = net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| system(error.into()))?;
        let backlog = i32::try_from(socket.backlog).unwrap_or(i32::MAX);
        let bound = match &socket.address {
            Address::Abstract(name) => {
                let address = SocketAddrUnix::new_abstract_name(name)
                    .map_err(|error| system(error.into()))?;
                net::bind(&fd, &address).map_err(|error| match error {
                    Errno::ADDRINUSE => fault(in_use(owner_of(&address))),
                    other => system(other.into()),
                })?;
                None
            }
            Address::Path(path) => {
                let lock = Lock::take(path).map_err(&fault)?;
                let address = SocketAddrUnix::new(path).map_err(|error| system(error.into()))?;
                clear(path, &address).map_err(&fault)?;
                Some(bind_file(&fd, path, &address, lock, socket, owner).map_err(&fault)?)
            }
        };
        net::listen(&fd, backlog).map_err(|error| system(error.into()))?;
        Ok(Endpoint {
            fd,
            origin: Origin::Bound(bound),
            backlog: socket.backlog,
        })
    }

    /// Takes over a socket that the manager listens on for `socket`.
    ///
    /// # Errors
    /// `Fatal::Socket` naming both sides where it is not what the file says.
    pub fn inherit(passed: Inherited, socket: &config::Socket) -> Result<Self, Fatal> {
        let fault = |fault: String| Fatal::Socket {
            socket: describe(socket),
            fault,
        };
        let system = |error: Errno| fault(io::Error::from(error).to_string());
        let name = passed.name.as_deref().unwrap_or("unnamed");
        let wanted = kind(socket.kind);
        if passed.kind != wanted {
            return Err(fault(format!(
                "the manager passed {name} as a {} socket, the config file says {}: make the unit and the file agree",
                type_name(passed.kind),
                type_name(wanted)
            )));
        }
        let address = address_of(&passed.fd).map_err(system)?;
        if address.as_ref() != Some(&socket.address) {
            return Err(fault(format!(
                "the manager passed {name} at {}, the config file says {}: make the unit and the file agree",
                address.as_ref().map_or_else(|| "no address".into(), show),
                show(&socket.address)
            )));
        }
        if !sockopt::socket_acceptconn(&passed.fd).map_err(system)? {
            return Err(fault(format!(
                "{name}, which the manager passed, does not listen: its unit needs ListenStream= and Accept=no"
            )));
        }
        rustix::io::ioctl_fionbio(&passed.fd, true).map_err(system)?;
        if let Address::Path(path) = &socket.address {
            compare_permissions(path, socket);
        }
        Ok(Endpoint {
            fd: passed.fd,
            origin: Origin::Inherited,
            backlog: socket.backlog,
        })
    }

    /// Listens no more. The file of a bound socket goes, and who had connected and was not accepted
    /// sees end of file; an inherited one stays with the manager, with all who wait there.
    pub fn close(self) {
        let Origin::Bound(file) = self.origin else {
            return;
        };
        drop(file);
        // Not until nobody waits: clients that hold the address may come faster than this.
        for _ in 0..=self.backlog {
            let Ok((mut link, _)) = accept(&self.fd) else {
                break;
            };
            link.hang_up();
        }
    }

    /// The next client and its credentials.
    ///
    /// # Errors
    /// Those of `accept4(2)`; `WouldBlock` where nobody waits.
    pub fn accept(&self) -> io::Result<(Link, Peer)> {
        accept(&self.fd)
    }
}

fn accept(listener: &OwnedFd) -> io::Result<(Link, Peer)> {
    let fd = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = sys::peer_of(&fd)?;
    Ok((Link(fd), peer))
}

impl AsRawFd for Endpoint {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
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
            .position(|socket| socket.address == address && kind(socket.kind) == passed.kind)
    })
}

/// An inherited socket, as an error names it.
#[must_use]
pub fn describe_inherited(passed: &Inherited) -> String {
    let address = address_of(&passed.fd).ok().flatten();
    format!(
        "{} at {} ({})",
        passed.name.as_deref().unwrap_or("unnamed"),
        address.as_ref().map_or_else(|| "no address".into(), show),
        type_name(passed.kind)
    )
}

/// The kernel's end of a client.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Without room for control data the kernel itself closes descriptors that were sent
        // (`unix(7)`, SCM_RIGHTS): they never enter this process.
        let (read, _) = net::recv(&self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let written = match parts {
            [part] => net::send(&self.0, part, flags)?,
            parts => net::sendmsg(&self.0, parts, &mut SendAncillaryBuffer::default(), flags)?,
        };
        Ok(written)
    }

    fn hang_up(&mut self) -> usize {
        // After this the peer can send no more, so the loop ends with what its buffer held.
        if net::shutdown(&self.0, Shutdown::Both).is_err() {
            return 0;
        }
        let mut unread = 0;
        let mut buffer = [0; 4096];
        loop {
            match net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return unread,
                Ok((_, n)) => unread += n,
                Err(Errno::INTR) => {}
                Err(_) => return unread,
            }
        }
    }
}

impl Lock {
    /// Takes the lock of `path`, or says who has it.
    fn take(path: &Path) -> Result<Self, String> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let refused = |error: io::Error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "; create the folder first",
                io::ErrorKind::PermissionDenied => {
                    "; choose a path in a folder that this user may write to, or run as its owner"
                }
                _ => "",
            };
            format!("lock file {}: {error}{remedy}", lock.display())
        };
        loop {
            let flags = OFlags::RDWR
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC
                | OFlags::NONBLOCK;
            let fd = rfs::open(&lock, flags, Mode::from_raw_mode(0o600))
                .map_err(|error| refused(error.into()))?;
            let mut file = File::from(fd);
            match rfs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut pid = String::new();
                    let _ = (&mut file).take(32).read_to_string(&mut pid);
                    return Err(in_use(pid.trim().parse().ok()));
                }
                Err(error) => return Err(refused(error.into())),
            }
            // Its last holder may have removed it between the opening and the locking.
            let held = file.metadata().map_err(refused)?;
            let there = fs::symlink_metadata(&lock);
            if !there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                continue;
            }
            // Whatever the umask was; where it is another user's, it stays as that user made it.
            let _ = file.set_permissions(PermissionsExt::from_mode(0o600));
            let _ = file.set_len(0);
            file.rewind()
                .and_then(|()| writeln!(file, "{}", process::id()))
                .map_err(refused)?;
            return Ok(Lock {
                path: lock,
                _file: file,
            });
        }
    }
}

/// Makes way for a new socket at `path`: removes a dead one, and refuses whatever else is there.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), String> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(there) => there,
    };
    if !there.file_type().is_socket() {
        return Err("something that is no socket is there; it was left untouched: move it away, or choose another path".into());
    }
    match probe(address) {
        Probe::Dead => {
            fs::remove_file(path).map_err(|error| format!("a dead socket is there: {error}"))
        }
        Probe::Alive(pid) => Err(in_use(pid)),
        Probe::Unknown(error) => Err(format!(
            "a socket is there and it cannot be told whether it is in use ({error}); it was left untouched"
        )),
    }
}

enum Probe {
    Dead,
    Alive(Option<i32>),
    Unknown(Errno),
}

/// Tells by connecting whether a server listens at `address`. Nothing but ECONNREFUSED means dead.
fn probe(address: &SocketAddrUnix) -> Probe {
    for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match net::socket_with(AddressFamily::UNIX, kind, flags, None) {
            Ok(socket) => socket,
            Err(error) => return Probe::Unknown(error),
        };
        match net::connect(&socket, address) {
            Ok(()) => {
                let pid = sys::peer_of(&socket).ok().map(|peer| peer.pid);
                return Probe::Alive(pid.filter(|&pid| pid > 0));
            }
            // A full backlog is a live server's.
            Err(Errno::AGAIN) => return Probe::Alive(None),
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Probe::Dead,
            // Another type of socket is there.
            Err(Errno::PROTOTYPE) => {}
            Err(error) => return Probe::Unknown(error),
        }
    }
    Probe::Unknown(Errno::PROTOTYPE)
}

fn owner_of(address: &SocketAddrUnix) -> Option<i32> {
    match probe(address) {
        Probe::Alive(pid) => pid,
        _ => None,
    }
}

fn in_use(pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("in use by pid {pid}; stop it, or choose another path"),
        None => "in use by another process; stop it, or choose another path".into(),
    }
}

/// Binds `fd` to a file that has its owner and mode before anyone can connect.
fn bind_file(
    fd: &OwnedFd,
    path: &Path,
    address: &SocketAddrUnix,
    lock: Lock,
    socket: &config::Socket,
    (user, group): (Option<u32>, Option<u32>),
) -> Result<Bound, String> {
    let before = umask(Mode::from_raw_mode(0o177));
    let result = net::bind(fd, address);
    umask(before);
    result.map_err(|error| format!("cannot bind: {}", io::Error::from(error)))?;
    // Held by its inode from here on, whatever becomes of the path.
    let file = rfs::open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| error.to_string())?;
    let stat = rfs::fstat(&file).map_err(|error| error.to_string())?;
    let bound = Bound {
        path: path.into(),
        device: stat.st_dev,
        inode: stat.st_ino,
        _lock: lock,
    };
    if user.is_some() || group.is_some() {
        let uid = user.map(rustix::process::Uid::from_raw);
        let gid = group.map(rustix::process::Gid::from_raw);
        rfs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH).map_err(|error| {
            format!(
                "cannot give it to user \"{}\", group \"{}\": {}; run as root, or let a socket unit create it",
                socket.user,
                socket.group,
                io::Error::from(error)
            )
        })?;
    }
    // chmod(2) knows no descriptor of this kind, but follows its name in /proc.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    rfs::chmod(name, Mode::from_raw_mode(socket.mode)).map_err(|error| {
        format!(
            "cannot set mode {:04o}: {}",
            socket.mode,
            io::Error::from(error)
        )
    })?;
    Ok(bound)
}

/// The numbers of `user` and `group`, where the file names them.
fn owner(socket: &config::Socket, config: &Config) -> Result<(Option<u32>, Option<u32>), Fatal> {
    let find = |key: &str, name: &str, look_up: fn(&str) -> io::Result<Option<u32>>| {
        if name.is_empty() {
            return Ok(None);
        }
        let wrong = match look_up(name) {
            Ok(Some(number)) => return Ok(Some(number)),
            Ok(None) => format!(
                "there is no {key} \"{name}\" on this machine; create it, or use its number"
            ),
            Err(error) => format!("cannot look up {key} \"{name}\": {error}; use its number"),
        };
        let key = format!("socket.{}.{key}", socket.name);
        Err(Fatal::Config(vec![config.fault(&key, wrong)]))
    };
    Ok((
        find("user", &socket.user, sys::user_id)?,
        find("group", &socket.group, sys::group_id)?,
    ))
}

/// Warns where an inherited socket's file is not as the config file has it.
fn compare_permissions(path: &Path, socket: &config::Socket) {
    let Ok(there) = fs::symlink_metadata(path) else {
        warn!(
            "{}: its file is gone, nobody can connect; systemctl restart its socket unit",
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

fn kind(kind: config::SocketType) -> SocketType {
    match kind {
        config::SocketType::Stream => SocketType::STREAM,
        config::SocketType::Seqpacket => SocketType::SEQPACKET,
        config::SocketType::Datagram => SocketType::DGRAM,
    }
}

fn type_name(kind: SocketType) -> &'static str {
    match kind {
        SocketType::STREAM => "stream",
        SocketType::SEQPACKET => "seqpacket",
        SocketType::DGRAM => "datagram",
        _ => "unknown",
    }
}

fn show(address: &Address) -> String {
    match address {
        Address::Path(path) => path.display().to_string(),
        Address::Abstract(name) => format!("@{}", name.escape_ascii()),
    }
}

/// A socket of the config file, as errors and the log name it.
#[must_use]
pub fn describe(socket: &config::Socket) -> String {
    format!("socket {} ({})", socket.name, show(&socket.address))
}
