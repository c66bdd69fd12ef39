//! Changes the mode and owner of a socket's file in place, and takes the change back unless it is to stay.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use log::warn;
use rustix::fs::{self as rfs, AtFlags};

use super::bound_path::{Bound, chmod, file_of};

/// A change of a socket's file. Dropped before `settle`, it gives the file its old mode and owner back.
#[derive(Debug)]
pub(super) struct Permissions {
    /// Holds the file by its inode, whatever becomes of the path.
    file: OwnedFd,
    before: Option<Rights>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    mode: u32,
    user: u32,
    group: u32,
}

impl Permissions {
    /// Gives the file of `bound`, which `fd` is bound to, this mode and, where they are named, user and
    /// group.
    pub(super) fn change(
        fd: impl AsFd,
        bound: &Bound,
        mode: u32,
        (user, group): (Option<u32>, Option<u32>),
    ) -> Result<Self, String> {
        let file = file_of(fd, &bound.path)?;
        let stat = rfs::fstat(&file).map_err(|error| error.to_string())?;
        if (stat.st_dev, stat.st_ino) != bound.file || !bound.is_there() {
            return Err(
                "something else is at its path now, and was left untouched: restart udsd".into(),
            );
        }
        let before = Rights {
            mode: stat.st_mode & 0o777,
            user: stat.st_uid,
            group: stat.st_gid,
        };
        let after = Rights {
            mode,
            user: user.unwrap_or(before.user),
            group: group.unwrap_or(before.group),
        };
        let changed = Permissions {
            file,
            before: Some(before),
        };
        // A failure drops `changed`, which takes back what was done.
        changed.set(before.mode, after).map_err(|error| {
            format!(
                "cannot give it mode {mode:04o}, user {}, group {}: {error}; run as root, or let a socket unit create it",
                after.user, after.group
            )
        })?;
        Ok(changed)
    }

    /// While the owner changes, the file has only the permission bits that both the old and the new mode have:
    /// there is no moment in which somebody gets in whom neither lets in.
    fn set(&self, now: u32, to: Rights) -> io::Result<()> {
        chmod(&self.file, now & to.mode)?;
        let uid = rustix::process::Uid::from_raw(to.user);
        let gid = rustix::process::Gid::from_raw(to.group);
        let stat = rfs::fstat(&self.file)?;
        if (stat.st_uid, stat.st_gid) != (to.user, to.group) {
            rfs::chownat(&self.file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        chmod(&self.file, to.mode)
    }

    /// The change stays.
    pub(super) fn settle(mut self) {
        self.before = None;
    }
}

impl Drop for Permissions {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let now = rfs::fstat(&self.file).map_or(0, |stat| stat.st_mode & 0o777);
            if let Err(error) = self.set(now, before) {
                warn!("cannot give a socket's file its mode and owner back: {error}");
            }
        }
    }
}
