//! The files of sockets that were moved or removed. Removes one whose socket no process has open; of any other,
//! says who has it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use super::{
    Apply, LOOK_AGAIN, PATIENCE, SERVICE,
    kernel::{self, Bound},
    table::{self, Row},
};
use crate::{
    config::{Address, last_good},
    endpoint::is_served,
    udsc::failure::Failure,
};

impl Apply {
    /// Removes the dead files of sockets that were moved or removed since the last good file: systemd leaves
    /// them. A file whose socket a process has open stays.
    pub(super) fn remove_dead_files(&self, rows: &mut Vec<Row>) -> Result<(), Failure> {
        let last = self.dirs.config_file.as_deref();
        let last = last.map(|file| last_good::load(file, &self.dirs));
        let Some(Ok(Some(last))) = last else {
            return Ok(());
        };
        let mut left: Vec<(String, PathBuf)> = Vec::new();
        for old in last.sockets {
            let address = old.address.in_unit();
            if self
                .wanted
                .iter()
                .all(|wanted| wanted.socket.address != address)
                && let Address::Path(path) = address
            {
                left.push((old.name, path));
            }
        }
        // A new process accepts the clients that wait at the old sockets before it closes them.
        let end = Instant::now() + PATIENCE;
        loop {
            left.retain(|(name, path)| {
                let bound = is_bound(path);
                if bound == Some(false) {
                    table::note_file(rows, name, path, remove(path));
                }
                bound == Some(true)
            });
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return self.tell_bound(&left, rows);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Says who has the sockets of these files open.
    fn tell_bound(&self, left: &[(String, PathBuf)], rows: &mut Vec<Row>) -> Result<(), Failure> {
        let daemon = self.systemctl.state_of(SERVICE)?;
        let daemon = daemon.get("MainPID").parse().ok();
        let present = self.present()?;
        let ours = [
            (SERVICE, daemon.and_then(kernel::held_by)),
            ("systemd", present.held),
        ];
        let ours = ours.map(|(name, held)| (name, held.unwrap_or_default()));
        for (name, path) in left {
            let unit = self.systemctl.listening_at(&path.to_string_lossy())?;
            let became = match unit {
                // A unit of udsd would have been stopped.
                Some(unit) if !unit.starts_with("udsd") => {
                    Ok(format!("{} is {unit}'s now", path.display()))
                }
                _ => tell_bound(path, &present.bound, &ours),
            };
            table::note_file(rows, name, path, became);
        }
        Ok(())
    }
}

/// Removes a dead file: what became of it.
fn remove(path: &Path) -> Result<String, String> {
    let path_text = path.display();
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("the dead {path_text} cannot be removed: {error}"))
        }
        _ => Ok(format!("the dead {path_text} removed")),
    }
}

/// Whether a process has the socket at `path` open, or that cannot be told; `None` where no socket is. Asked by
/// connecting: the kernel lists the sockets of this network namespace alone, but a file leads to those of others
/// too.
fn is_bound(path: &Path) -> Option<bool> {
    let file = fs::symlink_metadata(path).ok()?;
    let is_socket = file.file_type().is_socket();
    is_socket.then(|| is_served(path).unwrap_or(true))
}

/// What is said of an old socket that a process has open: an error where that is one of `ours`, each with the
/// inodes of its sockets.
fn tell_bound(
    path: &Path,
    bound: &[Bound],
    ours: &[(&str, BTreeSet<u32>)],
) -> Result<String, String> {
    let address = Address::Path(path.into());
    let file = fs::symlink_metadata(path).ok();
    let mut there = bound
        .iter()
        .filter(|bound| bound.is_at(&address, file.as_ref()));
    let holder = there.find_map(|bound| {
        ours.iter()
            .find_map(|(name, inodes)| inodes.contains(&bound.inode).then_some(name))
    });
    let path = path.display();
    match holder {
        Some(name) => Err(format!("{path} is still open in {name}")),
        None => Ok(format!("{path} is somebody else's now")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::{os::unix::net::UnixListener, process};

    use super::*;
    use crate::udsc::apply::kernel;

    #[test]
    fn an_old_socket_is_told_by_who_has_it() {
        let folder = std::env::temp_dir().join(format!("udsd-old-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("old");
        assert_eq!(is_bound(&path), None);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(is_bound(&path), Some(true));
        let own = kernel::held_by(process::id()).unwrap();
        let bound = kernel::bound().unwrap();
        let open = path.display();
        assert_eq!(
            tell_bound(
                &path,
                &bound,
                &[("systemd", BTreeSet::new()), ("this", own)]
            ),
            Err(format!("{open} is still open in this"))
        );
        assert_eq!(
            tell_bound(&path, &bound, &[("systemd", BTreeSet::new())]),
            Ok(format!("{open} is somebody else's now"))
        );
        drop(listener);
        assert_eq!(is_bound(&path), Some(false));
        fs::remove_dir_all(&folder).unwrap();
    }
}
