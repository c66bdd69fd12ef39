//! Which files may be a record: their kind, their owner, their folder and their lock. What is refused is
//! told with its remedy. `output` opens what passes.

use std::{
    fmt,
    fs::{self, File, FileType, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{Access, OFlags, PROC_SUPER_MAGIC, access, statfs},
    io::Errno,
    process::geteuid,
};

use crate::lock::{self, IsOwn, Lock, Unlocked};

/// Why a record cannot be written.
#[derive(Debug)]
pub enum OpenError {
    /// The config or the file system must change first: what is wrong, and the remedy.
    Refused(String),
    /// A later attempt may succeed.
    Failed(io::Error),
    /// Another record of this process writes it, perhaps one that has ended and has lines left.
    Own,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Refused(fault) => f.write_str(fault),
            OpenError::Failed(error) => write!(f, "{error}"),
            OpenError::Own => {
                f.write_str("another record of this process writes it, or has lines of before to write; give each its own file")
            }
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Failed(error)
    }
}

/// Whether `Output::open` would succeed, without a trace; the lock may be had by the process that `is_own`.
/// `tried`: also whether this process may write there.
///
/// # Errors
/// As `Output::open`.
pub fn check_path(path: &Path, tried: bool, is_own: IsOwn<'_>) -> Result<(), OpenError> {
    let folder = path.parent().unwrap_or(path);
    let there = match fs::symlink_metadata(path) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::metadata(folder).map_err(|error| open_error(path, error, false))?;
            None
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !tried => return Ok(()),
        Err(error) => return Err(open_error(path, error, true)),
    };
    if !tried {
        if let Some(there) = &there {
            check_kind(there.file_type())?;
        }
        return check_folder(path);
    }
    check_writable(path, there.as_ref())?;
    let is_device = |there: &fs::Metadata| there.file_type().is_char_device();
    if !there.as_ref().is_some_and(is_device) {
        let lock = lock::of_record(path);
        lock::look_at_folder(&lock)
            .and_then(|()| lock::look(&lock, is_own))
            .map_err(|why| not_locked(path, &lock, why))?;
    }
    Ok(())
}

/// Whether this process may write a record at `path`, where this is `there`, if anything.
pub(super) fn check_writable(path: &Path, there: Option<&fs::Metadata>) -> Result<(), OpenError> {
    if let Some(there) = there {
        check_kind(there.file_type())?;
        check_owner(path, there)?;
        let may = Access::READ_OK | Access::WRITE_OK;
        access(path, may).map_err(|error| open_error(path, error.into(), true))?;
    }
    check_folder(path)
}

pub(super) fn open_file(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // NONBLOCK: a FIFO without a reader must be refused, not waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options
        .read(true)
        .append(true)
        .mode(mode)
        .custom_flags(flags.bits().cast_signed());
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // The process may run under a tighter umask than the key asks for.
            file.set_permissions(PermissionsExt::from_mode(mode))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

pub(super) fn check_kind(kind: FileType) -> Result<(), OpenError> {
    let fault = if kind.is_file() || kind.is_char_device() {
        return Ok(());
    } else if kind.is_symlink() {
        "is a symbolic link: write the path it leads to; \"\" is standard output"
    } else if kind.is_dir() {
        "is a folder: write the path of a file in it"
    } else {
        "is something other than a regular file: move it away, or choose another path"
    };
    Err(OpenError::Refused(format!("it {fault}")))
}

/// Refuses a file that others have a hand on: whoever owns it, or has it under another name, may change
/// what stands there, or have udsd write to what is not its own.
pub(super) fn check_owner(path: &Path, found: &fs::Metadata) -> Result<(), OpenError> {
    let own = geteuid().as_raw();
    let (uid, names) = (found.uid(), found.nlink());
    let path = path.display();
    if !found.is_file() {
        return Ok(());
    }
    if uid != own && uid != 0 {
        return Err(OpenError::Refused(format!(
            "it belongs to uid {uid}, neither root nor uid {own}, as which udsd runs: chown {own} {path}, or move it away"
        )));
    }
    if names > 1 {
        return Err(OpenError::Refused(format!(
            "it has {names} names (hard links): remove the others, or move it away"
        )));
    }
    Ok(())
}

/// Refuses what the kernel only shows as files.
fn check_folder(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().unwrap_or(path);
    if statfs(folder).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC) {
        return Err(OpenError::Refused(
            "it is below /proc, where no file is kept: choose another path".into(),
        ));
    }
    Ok(())
}

/// What `open(2)` said of a record's file, with the remedy where there is one. `is_there`: it was to be
/// opened, not made.
pub(super) fn open_error(path: &Path, error: io::Error, is_there: bool) -> OpenError {
    let folder = path.parent().unwrap_or(path);
    let remedy = match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => {
            format!("create the folder first: mkdir -p {}", folder.display())
        }
        io::ErrorKind::PermissionDenied => {
            let what = match is_there {
                true => "read and write it".into(),
                false => format!("create files in {}", folder.display()),
            };
            let uid = geteuid().as_raw();
            format!("uid {uid}, as which udsd runs, must be able to {what}")
        }
        io::ErrorKind::NotADirectory => "choose a path in a folder".into(),
        io::ErrorKind::ReadOnlyFilesystem => {
            "choose a path that can be written to; of a unit, ReadWritePaths= or LogsDirectory= say which"
                .into()
        }
        io::ErrorKind::InvalidFilename => "choose a shorter path".into(),
        _ => match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => "symbolic links stand in its way: write the path they lead to".into(),
            Some(Errno::NXIO | Errno::NODEV) => "choose a device that is there, or a file".into(),
            _ => return OpenError::Failed(error),
        },
    };
    OpenError::Refused(format!("{error}; {remedy}"))
}

/// The lock of a record: one of those that are `held`, or its own.
pub(super) fn take_lock(path: &Path, held: &[Arc<Lock>]) -> Result<Arc<Lock>, OpenError> {
    let lock = lock::of_record(path);
    if let Some(held) = held.iter().find(|held| held.is_at(&lock)) {
        return Ok(Arc::clone(held));
    }
    let taken = match Lock::take(&lock) {
        Err(Unlocked::Held(_)) if lock::is_held_here(&lock) => return Err(OpenError::Own),
        // This process may have held it until just now.
        Err(Unlocked::Held(_)) => Lock::take(&lock),
        taken => taken,
    };
    taken
        .map(Arc::new)
        .map_err(|why| not_locked(path, &lock, why))
}

fn not_locked(path: &Path, lock: &Path, why: Unlocked) -> OpenError {
    match why {
        Unlocked::Held(pid) => {
            let pid = pid.map_or(String::new(), |pid| format!(", pid {pid}"));
            let fault =
                format!("another process writes it{pid}: stop that, or choose another file");
            io::Error::new(io::ErrorKind::ResourceBusy, fault).into()
        }
        Unlocked::Foreign(fault) => OpenError::Refused(fault),
        // It is there, and is not for this user.
        Unlocked::Failed(error, fault)
            if error.kind() == io::ErrorKind::PermissionDenied && lock.exists() =>
        {
            OpenError::Refused(fault)
        }
        Unlocked::Failed(error, _) => {
            let at = |fault| format!("lock file {}: {fault}", lock.display());
            match open_error(path, error, false) {
                OpenError::Refused(fault) => OpenError::Refused(at(fault)),
                OpenError::Failed(error) => {
                    io::Error::new(error.kind(), at(error.to_string())).into()
                }
                OpenError::Own => OpenError::Own,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn what_may_pass_is_no_fault_of_the_config() {
        let path = std::env::temp_dir().join("record");
        for (error, config) in [
            (Errno::NOSPC, false),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::IO, false),
            // The folder is there: the file came and went.
            (Errno::NOENT, false),
            (Errno::ACCESS, true),
            (Errno::PERM, true),
            (Errno::ROFS, true),
            (Errno::NOTDIR, true),
            (Errno::NAMETOOLONG, true),
            (Errno::LOOP, true),
            (Errno::NXIO, true),
        ] {
            let refused = matches!(open_error(&path, error.into(), true), OpenError::Refused(_));
            assert_eq!(refused, config, "{error}");
        }
    }
}
