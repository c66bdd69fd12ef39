//! The last good file: what `udsd --check` printed of udsd.toml and its drop-ins, merged, when they were last applied,
//! kept beside udsd.toml as `.last-good.toml`. The units follow it where the files themselves cannot be followed.
//! `udsc apply` and an installation write it, never the daemon or the generator: only the administrator's word may
//! direct the manager.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};

use super::{BaseDirs, Config, Parsed, load};
use crate::error::Fault;

const NAME: &str = ".last-good.toml";
/// Bits of a mode by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// Where it lies for the config file `file`.
#[must_use]
pub fn path(file: &Path) -> PathBuf {
    file.with_file_name(NAME)
}

/// Reads that of `file`; `None` where there is none. It is believed only where nobody but root and the user of
/// this manager can have written it.
///
/// # Errors
/// Why the one that is there cannot be used.
pub fn load(file: &Path, dirs: &BaseDirs) -> Result<Option<Config>, Fault> {
    let path = path(file);
    let fault = |message: String| Fault::of_file(Some(&path), None, message);
    let unread = |error: io::Error| fault(format!("cannot be read: {error}"));
    let mut opened = match load::open(&path, OFlags::NOFOLLOW) {
        Ok(opened) => opened,
        Err(error) if load::is_absent(&error) => return Ok(None),
        Err(error) => return Err(unread(error)),
    };
    let found = opened.metadata().map_err(unread)?;
    let (owner, mode) = (found.uid(), found.mode());
    if ![0, geteuid().as_raw()].contains(&owner) || mode & OTHERS_WRITE > 0 {
        return Err(fault(format!(
            "is not believed, since others may have written it (owner {owner}, mode {:04o}): remove it, and run udsc apply once udsd.toml is good",
            mode & 0o7777
        )));
    }
    // However long it is: who wrote it is believed.
    let mut text = Vec::new();
    opened.read_to_end(&mut text).map_err(unread)?;
    let parsed = Parsed::new(&text, Some(&path), dirs)?;
    match parsed.faults.first() {
        Some(fault) => Err(fault.clone()),
        None => Ok(Some(parsed.config)),
    }
}

/// Writes that of `file`, whole or not at all.
///
/// # Errors
/// The kernel's.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let path = path(file);
    // Where all files are drop-ins, there may be no folder.
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("toml.new");
    // A crash may have left one, and it may be a link of somebody's.
    remove(&new)?;
    let mut options = OpenOptions::new();
    let mut out = options.write(true).create_new(true).open(&new)?;
    out.set_permissions(Permissions::from_mode(0o644))?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&new, &path)
}

/// Removes that of `file`, if there is one.
///
/// # Errors
/// The kernel's.
pub fn forget(file: &Path) -> io::Result<()> {
    remove(&path(file))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !load::is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}
