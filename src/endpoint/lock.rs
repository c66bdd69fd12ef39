//! The lock file beside a path.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
};

use log::warn;
use rustix::{
    fs::{self as rfs, Access, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::place::{beside, in_use};

/// Longest content of a lock file: a pid and a line feed, with room to spare.
const LOCK_SIZE: usize = 32;

/// The lock file beside a path: whoever holds it may replace the socket there.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
    /// Another process has it, and removes it.
    parked: Cell<bool>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.parked.get() {
            // Still locked: nobody else can have taken it for theirs.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    /// Takes the lock of `path`, or says who has it. A file of another kind or content is somebody
    /// else's: it is neither changed nor, unless it is a regular one, opened, which a FIFO's other
    /// end or a device would notice.
    pub(super) fn take(path: &Path) -> Result<Self, String> {
        let lock = lock_path(path);
        let refused = |error: io::Error| refused(&lock, &error);
        let foreign = || foreign(&lock);
        loop {
            if fs::symlink_metadata(&lock).is_ok_and(|there| !there.is_file()) {
                return Err(foreign());
            }
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
                Err(Errno::WOULDBLOCK) => return Err(in_use(holder(&mut file))),
                Err(error) => return Err(refused(error.into())),
            }
            // Its last holder may have removed it between the opening and the locking.
            let held = file.metadata().map_err(refused)?;
            let there = fs::symlink_metadata(&lock);
            if !there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                continue;
            }
            if !held.is_file() || held.nlink() != 1 || !holds_pid(&mut file).map_err(refused)? {
                return Err(foreign());
            }
            // From here on it is this process' own, to be removed whatever happens.
            let mut taken = Lock {
                path: lock.clone(),
                file,
                parked: Cell::new(false),
            };
            taken.fill().map_err(refused)?;
            return Ok(taken);
        }
    }

    /// Goes on with the lock of an earlier process, whose it stays until `own`.
    pub(super) fn resume(path: &Path, file: File) -> Self {
        let mut lock = Lock {
            path: lock_path(path),
            file,
            parked: Cell::new(true),
        };
        if let Err(error) = lock.fill() {
            warn!("lock file {}: {error}", lock.path.display());
        }
        lock
    }

    /// Leaves it to the next process; returns its device and inode.
    pub(super) fn park(&self) -> io::Result<(u64, u64)> {
        let file = self.file.metadata()?;
        self.parked.set(true);
        Ok((file.dev(), file.ino()))
    }

    /// From now on it is this process that removes it.
    pub(super) fn own(&self) {
        self.parked.set(false);
    }

    fn fill(&mut self) -> io::Result<()> {
        // Whatever the umask was; where it is another user's, it stays as that user made it.
        let _ = self.file.set_permissions(PermissionsExt::from_mode(0o600));
        let _ = self.file.set_len(0);
        self.file.rewind()?;
        writeln!(self.file, "{}", process::id())
    }
}

/// The lock file beside a path.
fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Whether this process may make the lock of `path`.
pub(super) fn look_at_folder(path: &Path) -> Result<(), String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let may = Access::WRITE_OK | Access::EXEC_OK;
    rfs::access(folder.unwrap_or(Path::new(".")), may)
        .map_err(|error| refused(&lock_path(path), &error.into()))
}

/// Whether a process has the lock of `path` that has it rightly; of no other it may be. Leaves no trace.
pub(super) fn look(path: &Path, is_own: &dyn Fn(i32) -> bool) -> Result<bool, String> {
    let lock = lock_path(path);
    let refused = |error: io::Error| refused(&lock, &error);
    match fs::symlink_metadata(&lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(error)),
        Ok(there) if !there.is_file() || there.nlink() != 1 => return Err(foreign(&lock)),
        Ok(_) => {}
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rfs::open(&lock, flags, Mode::empty()).map_err(|error| refused(error.into()))?;
    let mut file = File::from(fd);
    if !holds_pid(&mut file).map_err(refused)? {
        return Err(foreign(&lock));
    }
    file.rewind().map_err(refused)?;
    let pid = holder(&mut file);
    if pid.is_some_and(is_own) {
        return Ok(true);
    }
    // For a moment; shared, so that two who look are not in each other's way.
    match rfs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Err(in_use(pid)),
        Err(error) => Err(refused(error.into())),
    }
}

/// The pid that a lock file holds.
fn holder(file: &mut File) -> Option<i32> {
    let mut pid = String::new();
    let _ = file.take(LOCK_SIZE as u64).read_to_string(&mut pid);
    pid.trim().parse().ok()
}

fn refused(lock: &Path, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied => {
            "; choose a path in a folder that this user may write to, or run as its owner"
        }
        _ if Errno::from_io_error(error) == Some(Errno::LOOP) => {
            "; symbolic links stand in its way: choose a path without them"
        }
        _ => "",
    };
    format!("lock file {}: {error}{remedy}", lock.display())
}

fn foreign(lock: &Path) -> String {
    format!(
        "{} is no lock file of udsd and was left untouched: move it away, or choose another path",
        lock.display()
    )
}

/// Whether a file holds what a lock file may: a pid, or nothing where its holder was killed early.
fn holds_pid(file: &mut File) -> io::Result<bool> {
    let mut content = Vec::new();
    file.take(LOCK_SIZE as u64 + 1).read_to_end(&mut content)?;
    let fits = |&byte: &u8| byte.is_ascii_digit() || byte == b'\n';
    Ok(content.len() <= LOCK_SIZE && content.iter().all(fits))
}
