//! The path that a socket is bound to: clears it of a dead socket, makes the socket file and removes it again.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use log::warn;
use rustix::{
    fs::{self as rfs, AtFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    process::{getegid, geteuid, getgroups, umask},
};

use crate::{
    config,
    handover_state::BoundFile,
    lock::{self, IsOwn, Lock, Unlocked},
    sys,
};

/// A socket file of this process: removed with it, if it is still the same.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) path: PathBuf,
    /// Its device and inode.
    pub(super) file: (u64, u64),
    /// Until `settle`: the file that was moved aside for this one, if it was still there.
    aside: Option<Aside>,
    /// Held for as long as a socket lives there; removed last.
    lock: Rc<Lock>,
    /// Another process owns the file and removes it.
    parked: bool,
}

impl Bound {
    /// Hands the file over to the next process. The lock's descriptor goes with it.
    pub(super) fn park(&mut self) -> io::Result<BoundFile> {
        let lock = self.lock.park()?;
        self.parked = true;
        Ok(BoundFile {
            path: self.path.as_os_str().as_bytes().to_vec(),
            inode: self.file,
            lock,
        })
    }

    /// Takes over from an earlier process. Until `own`, the socket file and the lock file stay even if this
    /// process ends.
    pub(super) fn resume(parked: &BoundFile, lock: File) -> Self {
        let path = PathBuf::from(OsStr::from_bytes(&parked.path));
        let lock = Lock::resume(lock::of_socket(&path), lock);
        Bound {
            path,
            file: parked.inode,
            aside: None,
            lock: Rc::new(lock),
            parked: true,
        }
    }

    /// From now on this process removes both files.
    pub(super) fn own(&mut self) {
        self.parked = false;
        self.lock.own();
    }

    pub(super) fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Whether the file is still the one that was bound.
    pub(super) fn is_there(&self) -> bool {
        is_at(&self.path, self.file)
    }

    /// Makes way for another socket of this process at the same path: shares the lock and moves the file aside.
    /// Where the file is gone, a process that was killed may have moved it aside already, and what is at the path
    /// now is treated as at a start.
    pub(super) fn make_way(&self) -> Result<(Rc<Lock>, Aside), String> {
        let is_there = self.is_there();
        if !is_there {
            clear(&self.path)?;
            warn!(
                "{}: the socket's file was no longer there; binding it anew",
                self.path.display()
            );
        }
        let aside = Aside::of(self);
        if is_there {
            aside.move_there()?;
        }
        Ok((Rc::clone(&self.lock), aside))
    }

    /// The socket stays: what was moved aside for it is removed.
    pub(super) fn settle(&mut self) {
        if let Some(aside) = self.aside.take() {
            aside.settle();
        }
    }
}

/// The file of a socket that made way for another. Dropped before `settle`, it goes back, unless something else
/// is at its path by then. If the process is killed before that, the file stays aside until the next process
/// makes the same socket make way again. Once nobody has the socket open, the file is dead, and is removed when
/// it is in the way.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    aside: PathBuf,
    /// Its device and inode, until it is settled: nothing else has them while its socket lives.
    file: Option<(u64, u64)>,
}

impl Aside {
    fn of(bound: &Bound) -> Self {
        let mut aside = bound.path.as_os_str().to_owned();
        aside.push(".replaced");
        Aside {
            path: bound.path.clone(),
            aside: aside.into(),
            file: Some(bound.file),
        }
    }

    fn move_there(&self) -> Result<(), String> {
        let refused =
            |why: String| format!("cannot move it aside to {}: {why}", self.aside.display());
        let mut moved = rename(&self.path, &self.aside);
        if moved == Err(Errno::EXIST) {
            clear(&self.aside).map_err(refused)?;
            moved = rename(&self.path, &self.aside);
        }
        moved.map_err(|error| refused(error.to_string()))
    }

    fn settle(mut self) {
        if self
            .file
            .take()
            .is_some_and(|file| is_at(&self.aside, file))
            && let Err(error) = fs::remove_file(&self.aside)
        {
            warn!("cannot remove {}: {error}", self.aside.display());
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.file.is_some_and(|file| is_at(&self.aside, file))
            && let Err(error) = rename(&self.aside, &self.path)
        {
            let (from, to) = (self.aside.display(), self.path.display());
            warn!("cannot move {from} back to {to}: {error}");
        }
    }
}

/// Whether the file of this device and inode is at `path`.
fn is_at(path: &Path, file: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == file)
}

/// Moves a file to where nothing is, in one step.
fn rename(from: &Path, to: &Path) -> Result<(), Errno> {
    rfs::renameat_with(rfs::CWD, from, rfs::CWD, to, RenameFlags::NOREPLACE)
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.parked
            && self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Takes the lock of `path`, or says who has it.
pub(super) fn take_lock(path: &Path) -> Result<Lock, String> {
    Lock::take(&lock::of_socket(path)).map_err(not_locked)
}

/// Whether a process that `is_own` has the lock of `path`; fails where another has it. Changes nothing.
pub(super) fn look_at_lock(path: &Path, is_own: IsOwn<'_>) -> Result<bool, String> {
    lock::look(&lock::of_socket(path), is_own).map_err(not_locked)
}

/// Whether this process may make the lock of `path`.
pub(super) fn look_at_folder(path: &Path) -> Result<(), String> {
    lock::look_at_folder(&lock::of_socket(path)).map_err(not_locked)
}

fn not_locked(why: Unlocked) -> String {
    match why {
        Unlocked::Held(pid) => in_use(pid),
        // The only folder that it may write to is its own, and that is removed when it stops.
        Unlocked::Failed(error, _) if may_not_write(&error) && is_service() => format!(
            "no file can be made there: {error}; a service may not make sockets there, its socket units do: make them follow the file"
        ),
        Unlocked::Foreign(fault) | Unlocked::Failed(_, fault) => fault,
    }
}

fn may_not_write(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Whether this is a service that has a folder of its own (RuntimeDirectory=, `systemd.exec(5)`).
fn is_service() -> bool {
    env::var_os("RUNTIME_DIRECTORY").is_some()
}

/// Clears `path` for a new socket: removes a dead one, and refuses whatever else is there.
pub(super) fn clear(path: &Path) -> Result<(), String> {
    match look_at_socket(path)? {
        None => Ok(()),
        Some(true) => Err(in_use(
            SocketAddrUnix::new(path).ok().as_ref().and_then(owner_of),
        )),
        Some(false) => fs::remove_file(path)
            .map_err(|error| format!("the dead socket there cannot be removed: {error}")),
    }
}

/// Whether a process has the socket at `path`.
///
/// # Errors
/// What else is there, or why it cannot be told.
pub fn is_served(path: &Path) -> Result<bool, String> {
    Ok(look_at_socket(path)? == Some(true))
}

/// The same, and `None` where nothing is there. Asked by connecting a datagram socket: no server notices that, of
/// whatever type its socket is.
fn look_at_socket(path: &Path) -> Result<Option<bool>, String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => return Err("something that is no socket is there; it was left untouched: move it away, or choose another path".into()),
    }
    let address = SocketAddrUnix::new(path);
    match address.and_then(|address| connect(SocketType::DGRAM, &address)) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(Some(false)),
        Ok(_) | Err(Errno::PROTOTYPE) => Ok(Some(true)),
        Err(error) => Err(format!(
            "a socket is there and it cannot be told whether it is in use ({error}); it was left untouched"
        )),
    }
}

fn connect(kind: SocketType, address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    net::connect(&socket, address)?;
    Ok(socket)
}

/// Whether this process may give a socket's file its owner.
pub(super) fn look_at_owner(
    socket: &config::Socket,
    (user, group): (Option<u32>, Option<u32>),
) -> Result<(), String> {
    let groups = getgroups().unwrap_or_default();
    let is_in = |gid| gid == getegid().as_raw() || groups.iter().any(|own| own.as_raw() == gid);
    let may = geteuid().is_root()
        || user.is_none_or(|uid| uid == geteuid().as_raw()) && group.is_none_or(is_in);
    match may {
        true => Ok(()),
        false => Err(not_given(socket, Errno::PERM)),
    }
}

fn not_given(socket: &config::Socket, error: Errno) -> String {
    format!(
        "cannot give it to user \"{}\", group \"{}\": {error}; run as root, or let a socket unit create it",
        socket.user, socket.group
    )
}

/// The process that listens at `address`, as far as the kernel tells.
pub(super) fn owner_of(address: &SocketAddrUnix) -> Option<i32> {
    let mut kinds = [SocketType::STREAM, SocketType::SEQPACKET].into_iter();
    let client = kinds.find_map(|kind| connect(kind, address).ok())?;
    let peer = sys::peer_of(&client).ok()?;
    peer.process()
}

pub(super) fn in_use(pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("in use by pid {pid}; stop it, or choose another path"),
        // The kernel does not tell who has a datagram socket, one that does not listen, or one whose backlog
        // is full.
        None => {
            "in use by another process (`ss -xap` names it); stop it, or choose another path".into()
        }
    }
}

/// A path that is free to be bound, and that no other daemon takes meanwhile.
pub(super) struct Free<'a> {
    pub(super) path: &'a Path,
    pub(super) lock: Rc<Lock>,
    pub(super) aside: Option<Aside>,
}

/// Binds `fd` to a file that has its owner and mode before anyone can connect.
///
/// Whoever may rename in the folder can put another file at the path at any time, and that one must not get the
/// owner and mode. So a file that stays this process' own is created with its mode and not touched again. Any
/// other is changed through a descriptor of the file itself, from `file_of`.
pub(super) fn bind_file(
    fd: &OwnedFd,
    free: Free<'_>,
    address: &SocketAddrUnix,
    socket: &config::Socket,
    (user, group): (Option<u32>, Option<u32>),
) -> Result<Bound, String> {
    let Free { path, lock, aside } = free;
    let stays = user.is_none() && group.is_none();
    let masked = if stays { !socket.mode & 0o777 } else { 0o177 };
    let before = umask(Mode::from_raw_mode(masked));
    let result = net::bind(fd, address);
    umask(before);
    result.map_err(|error| format!("cannot bind: {error}"))?;
    // From here on a failure removes the file, and what was moved aside goes back.
    let file = file_of(fd, path);
    let there = match &file {
        Ok(file) => rfs::fstat(file),
        Err(_) => rfs::lstat(path),
    };
    let there = there.map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(there.st_mode) != FileType::Socket {
        return Err(TAKEN.into());
    }
    let bound = Bound {
        path: path.into(),
        file: (there.st_dev, there.st_ino),
        aside,
        lock,
        parked: false,
    };
    // A default access list of the folder may have changed the mode.
    if !stays || there.st_mode & 0o777 != socket.mode {
        give(&file?, socket, (user, group))?;
    }
    match bound.is_there() {
        true => Ok(bound),
        false => Err(TAKEN.into()),
    }
}

/// Gives a socket's file its owner and mode.
fn give(
    file: &OwnedFd,
    socket: &config::Socket,
    (user, group): (Option<u32>, Option<u32>),
) -> Result<(), String> {
    if user.is_some() || group.is_some() {
        let uid = user.map(rustix::process::Uid::from_raw);
        let gid = group.map(rustix::process::Gid::from_raw);
        rfs::chownat(file, "", uid, gid, AtFlags::EMPTY_PATH)
            .map_err(|error| not_given(socket, error))?;
    }
    chmod(file, socket.mode)
        .map_err(|error| format!("cannot set mode {:04o}: {error}", socket.mode))
}

/// Something else is where the file was.
const TAKEN: &str = "something else took its place and was left untouched";

/// Opens the file that `fd`, a socket of this process, is bound to: the inode itself, whatever is at `path`. The
/// kernel does that for a process with CAP_NET_ADMIN. Any other opens `path`, and is refused where somebody
/// else could have put another file there.
pub(super) fn file_of(fd: impl AsFd, path: &Path) -> Result<OwnedFd, String> {
    if let Ok(file) = sys::file_of_socket(fd) {
        return Ok(file);
    }
    if let Some(folder) = loose_folder(path).map_err(|error| error.to_string())? {
        return Err(format!(
            "its owner and mode cannot be set: others can put something else there, since they may rename files in {}: choose another folder, give udsd CAP_NET_ADMIN, or let a socket unit create it",
            folder.display()
        ));
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::open(path, flags, Mode::empty())
        .map_err(|error| format!("its file cannot be opened: {error}"))
}

/// The first folder on the way to `path` in which others than root and this user can rename what is not
/// theirs.
fn loose_folder(path: &Path) -> io::Result<Option<PathBuf>> {
    let folder = std::path::absolute(path)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let real = fs::canonicalize(folder)?;
    for folder in folder.ancestors().chain(real.ancestors()) {
        let there = fs::metadata(folder)?;
        let is_own = [0, geteuid().as_raw()].contains(&there.uid());
        if !is_own || (there.mode() & 0o022 != 0 && there.mode() & 0o1000 == 0) {
            return Ok(Some(folder.into()));
        }
    }
    Ok(None)
}

/// fchmod(2) refuses a descriptor of this kind (O_PATH), but chmod(2) follows its name in /proc.
pub(super) fn chmod(file: &OwnedFd, mode: u32) -> io::Result<()> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rfs::chmod(name, Mode::from_raw_mode(mode))?)
}
