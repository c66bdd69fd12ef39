//! Lock files: who holds one may replace what it stands for, a socket's file or the end of a record.
//!
//! Never the record itself: whoever may read a file may lock it (`flock(2)`).

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use log::warn;
use rustix::{
    fs::{self as rfs, Access, FlockOperation, Mode, OFlags},
    io::Errno,
};

/// Longest content of a lock file: a pid and a line feed, with room to spare.
const LOCK_SIZE: usize = 32;

/// The lock file of the socket at `path`.
#[must_use]
pub fn of_socket(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The lock file of the record at `path`: hidden, so that nobody takes it for a record.
#[must_use]
pub fn of_record(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    path.with_file_name(name)
}

/// Why a lock could not be had.
#[derive(Debug)]
pub enum Unlocked {
    /// A process has it, with this pid if it says so.
    Held(Option<i32>),
    /// What stands there is no lock file: what and where, and the remedy.
    Foreign(String),
    /// It cannot be opened or locked: where and why, and the remedy.
    Failed(io::Error, String),
}

/// A lock file that this process holds.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    /// Another process has it, and removes it.
    parked: AtomicBool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.parked.load(Ordering::Relaxed) && self.is_at(&self.path) {
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
    /// Takes the lock file at `lock`, or says who has it. A file of another kind or content is somebody
    /// else's: it is neither changed nor, unless it is a regular one, opened, which a FIFO's other
    /// end or a device would notice.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn take(lock: &Path) -> Result<Self, Unlocked> {
        let refused = |error: io::Error| refused(lock, error);
        loop {
            if fs::symlink_metadata(lock).is_ok_and(|there| !there.is_file()) {
                return Err(foreign(lock));
            }
            let flags = OFlags::RDWR
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC
                | OFlags::NONBLOCK;
            let fd = rfs::open(lock, flags, Mode::from_raw_mode(0o600))
                .map_err(|error| refused(error.into()))?;
            let mut file = File::from(fd);
            match rfs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(Unlocked::Held(holder(&mut file))),
                Err(error) => return Err(refused(error.into())),
            }
            let held = file.metadata().map_err(refused)?;
            let is_lock =
                held.is_file() && held.nlink() == 1 && holds_pid(&mut file).map_err(refused)?;
            let taken = Lock {
                path: lock.into(),
                file,
                parked: AtomicBool::new(true),
            };
            // Its last holder may have removed it between the opening and the locking.
            if !taken.is_at(lock) {
                continue;
            }
            if !is_lock {
                return Err(foreign(lock));
            }
            // From here on it is this process' own, to be removed whatever happens.
            taken.own();
            taken.fill();
            return Ok(taken);
        }
    }

    /// Goes on with the lock file at `lock` of an earlier process, whose it stays until `own`.
    #[must_use]
    pub fn resume(lock: PathBuf, file: File) -> Self {
        let lock = Lock {
            path: lock,
            file,
            parked: AtomicBool::new(true),
        };
        lock.fill();
        lock
    }

    /// Leaves it to the next process; returns its device and inode.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn park(&self) -> io::Result<(u64, u64)> {
        let file = self.file.metadata()?;
        self.leave();
        Ok((file.dev(), file.ino()))
    }

    /// Leaves the file where it is; once this process has ended, who comes next can take it.
    pub fn leave(&self) {
        self.parked.store(true, Ordering::Relaxed);
    }

    /// From now on it is this process that removes it.
    pub fn own(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Whether it is the file at `path`.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        let there = fs::symlink_metadata(path).map(id);
        there.is_ok_and(|there| self.file.metadata().map(id).ok() == Some(there))
    }

    /// Says whose it is, for who asks in vain. Where the disk is full that may remain unsaid, and is to be
    /// tried again.
    pub fn fill(&self) {
        // Whatever the umask was; where it is another user's, it stays as that user made it.
        let _ = self.file.set_permissions(PermissionsExt::from_mode(0o600));
        let pid = format!("{}\n", process::id());
        // First: on a full disk there may be room for it only where a pid stands already.
        let written = self.file.write_all_at(pid.as_bytes(), 0);
        if let Err(error) = written.and_then(|()| self.file.set_len(pid.len() as u64)) {
            warn!("lock file {}: {error}", self.path.display());
        }
    }
}

/// Whether this process may make the lock file at `lock`.
///
/// # Errors
/// As `Lock::take`.
pub fn look_at_folder(lock: &Path) -> Result<(), Unlocked> {
    let folder = lock.parent().filter(|folder| *folder != Path::new(""));
    let may = Access::WRITE_OK | Access::EXEC_OK;
    rfs::access(folder.unwrap_or(Path::new(".")), may).map_err(|error| refused(lock, error.into()))
}

/// Whether a lock file is that of a process which has it rightly: by the pid in it, if there is one, or by
/// the file itself.
pub type IsOwn<'a> = &'a dyn Fn(Option<i32>, &File) -> bool;

/// Looks who holds the lock file at `lock`, without a trace. True if `is_own` holds it; an error if another
/// process does.
///
/// # Errors
/// As `Lock::take`.
pub fn look(lock: &Path, is_own: IsOwn<'_>) -> Result<bool, Unlocked> {
    let refused = |error: io::Error| refused(lock, error);
    match fs::symlink_metadata(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(error)),
        Ok(there) if !there.is_file() || there.nlink() != 1 => return Err(foreign(lock)),
        Ok(_) => {}
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rfs::open(lock, flags, Mode::empty()).map_err(|error| refused(error.into()))?;
    let mut file = File::from(fd);
    if !holds_pid(&mut file).map_err(refused)? {
        return Err(foreign(lock));
    }
    file.rewind().map_err(refused)?;
    let pid = holder(&mut file);
    if is_own(pid, &file) {
        return Ok(true);
    }
    // For a moment; shared, so that two who look are not in each other's way.
    match rfs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Err(Unlocked::Held(pid)),
        Err(error) => Err(refused(error.into())),
    }
}

/// Whether process `pid` has `file` open, as far as this process may see.
#[must_use]
pub fn has_open(pid: i32, file: &File) -> bool {
    let id = |of: fs::Metadata| (of.dev(), of.ino());
    let Ok(wanted) = file.metadata().map(id) else {
        return false;
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|fd| fs::metadata(fd.path()).is_ok_and(|found| id(found) == wanted))
}

/// The pid that a lock file holds. Behind it the rest of a longer one may stand for a moment.
fn holder(file: &mut File) -> Option<i32> {
    let mut pid = String::new();
    let _ = file.take(LOCK_SIZE as u64).read_to_string(&mut pid);
    pid.lines().next()?.parse().ok()
}

fn refused(lock: &Path, error: io::Error) -> Unlocked {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied if lock.exists() => {
            "; it is another user's: remove it, if no udsd of that user runs"
        }
        io::ErrorKind::PermissionDenied => {
            "; choose a path in a folder that this user may write to, or run as its owner"
        }
        _ if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            "; symbolic links stand in its way: choose a path without them"
        }
        _ => "",
    };
    let text = format!("lock file {}: {error}{remedy}", lock.display());
    Unlocked::Failed(error, text)
}

fn foreign(lock: &Path) -> Unlocked {
    Unlocked::Foreign(format!(
        "{} is no lock file of udsd and was left untouched: move it away, or choose another path",
        lock.display()
    ))
}

/// Whether a file holds what a lock file may: a pid, or nothing where its holder was killed early.
fn holds_pid(file: &mut File) -> io::Result<bool> {
    let mut content = Vec::new();
    file.take(LOCK_SIZE as u64 + 1).read_to_end(&mut content)?;
    let fits = |&byte: &u8| byte.is_ascii_digit() || byte == b'\n';
    Ok(content.len() <= LOCK_SIZE && content.iter().all(fits))
}
