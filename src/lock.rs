//! Lock files: the process that holds one may replace the socket file, or append to the record, beside it.
//!
//! The record itself is never locked: every reader of a file may lock it (`flock(2)`).

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

/// The longest content of a lock file, bytes: a pid and a line feed, with room to spare.
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

/// Why a lock was not taken.
#[derive(Debug)]
pub enum Unlocked {
    /// Another process holds it; its pid, if the file has one.
    Held(Option<i32>),
    /// The file there is no lock file: the path and the remedy.
    Foreign(String),
    /// It cannot be opened or locked: the path, the reason and the remedy.
    Failed(io::Error, String),
}

/// A lock file that this process holds.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    /// Another process removes it.
    is_left: AtomicBool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.is_left.load(Ordering::Relaxed) && self.is_at(&self.path) {
            // It is still locked, so no other process has taken it.
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
    /// Takes the lock file at `lock`. A file of another kind or content is not udsd's and is not changed. Unless
    /// it is a regular file it is not even opened: a device, or the other end of a FIFO, would notice.
    ///
    /// # Errors
    /// Why it is not taken.
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
                is_left: AtomicBool::new(true),
            };
            // The last holder may have removed it after this process opened it.
            if !taken.is_at(lock) {
                continue;
            }
            if !is_lock {
                return Err(foreign(lock));
            }
            // From here on this process removes it, whatever happens.
            taken.own();
            taken.fill();
            return Ok(taken);
        }
    }

    /// Goes on with the lock file at `lock` of an earlier process. Until `own` this process does not remove it.
    #[must_use]
    pub fn resume(lock: PathBuf, file: File) -> Self {
        let lock = Lock {
            path: lock,
            file,
            is_left: AtomicBool::new(true),
        };
        lock.fill();
        lock
    }

    /// Leaves it to the next process. Returns its device and inode.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn park(&self) -> io::Result<(u64, u64)> {
        let file = self.file.metadata()?;
        self.leave();
        Ok((file.dev(), file.ino()))
    }

    /// Leaves the file where it is: once this process has ended, the next can take it.
    pub fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// From now on this process removes it.
    pub fn own(&self) {
        self.is_left.store(false, Ordering::Relaxed);
    }

    /// Whether it is the file at `path`.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        let there = fs::symlink_metadata(path).map(id);
        there.is_ok_and(|there| self.file.metadata().map(id).ok() == Some(there))
    }

    /// Writes the pid into it, which another process then names in its error. On a full disk that may fail, so it
    /// is called again later.
    pub fn fill(&self) {
        // Whatever the umask was. This fails where another user has made the file.
        let _ = self.file.set_permissions(PermissionsExt::from_mode(0o600));
        let pid = format!("{}\n", process::id());
        // Before the length is set: on a full disk there may be room only where a pid stands already.
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

/// Whether the caller knows the process that holds a lock file: by the pid in it, if there is one, or by the
/// file.
pub type IsOwn<'a> = &'a dyn Fn(Option<i32>, &File) -> bool;

/// Looks which process holds the lock file at `lock`, and changes nothing. True if `is_own` knows the process;
/// an error if another process holds it.
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
    // For a moment. Shared, so that two processes can look at once.
    match rfs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Err(Unlocked::Held(pid)),
        Err(error) => Err(refused(error.into())),
    }
}

/// Whether process `pid` has `file` open, as far as this process may see.
#[must_use]
pub fn has_open(pid: i32, file: &File) -> bool {
    file.metadata()
        .is_ok_and(|of| is_open(&pid.to_string(), &of))
}

/// Whether this process holds the lock file at `lock`, given that some process does.
#[must_use]
pub fn is_held_here(lock: &Path) -> bool {
    fs::symlink_metadata(lock).is_ok_and(|of| is_open("self", &of))
}

fn is_open(process: &str, wanted: &fs::Metadata) -> bool {
    let id = |of: &fs::Metadata| (of.dev(), of.ino());
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|fd| fs::metadata(fd.path()).is_ok_and(|found| id(&found) == id(wanted)))
}

/// The pid in a lock file. For a moment the rest of a longer one may stand behind it.
fn holder(file: &mut File) -> Option<i32> {
    let mut pid = String::new();
    let _ = file.take(LOCK_SIZE as u64).read_to_string(&mut pid);
    pid.lines().next()?.parse().ok()
}

fn refused(lock: &Path, error: io::Error) -> Unlocked {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied if lock.exists() => {
            "; it belongs to another user: remove it, if no udsd of that user runs"
        }
        io::ErrorKind::PermissionDenied => {
            "; choose a path in a folder that this user may write to, or run as its owner"
        }
        _ if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            "; the path has symbolic links: choose one without them"
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

/// Whether the content is that of a lock file: a pid, or nothing where its process was killed early.
fn holds_pid(file: &mut File) -> io::Result<bool> {
    let mut content = Vec::new();
    file.take(LOCK_SIZE as u64 + 1).read_to_end(&mut content)?;
    let fits = |&byte: &u8| byte.is_ascii_digit() || byte == b'\n';
    Ok(content.len() <= LOCK_SIZE && content.iter().all(fits))
}
