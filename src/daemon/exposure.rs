//! Whether a user other than root, and than udsd's own, may change a config file, and with it what udsd does.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use rustix::process::geteuid;

use crate::config::Config;

/// A line for each way to change it, with the remedy.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    // The target of a link counts.
    let files = config.origin.files();
    let files: BTreeSet<_> = files
        .filter_map(|file| fs::canonicalize(file).ok())
        .collect();
    let folders = config.origin.drop_ins.iter();
    let folders = folders.filter_map(|folder| fs::canonicalize(folder).ok());
    let of_files = files.iter().filter_map(|file| Some(file.parent()?.into()));
    let folders: BTreeSet<_> = folders.chain(of_files).collect();

    let files = files.iter().map(|file| exposed(file, 0, "the config file"));
    let folders = folders.iter();
    let folders = folders.map(|folder| exposed(folder, 0o1000, "the folder of config files"));
    files.chain(folders).flatten().collect()
}

/// `sparing`: a bit of the mode that makes a path harmless although anyone may write there.
fn exposed(path: &Path, sparing: u32, what: &str) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let own = geteuid().as_raw();
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    let path = path.display();
    if uid != 0 && uid != own {
        return Some(format!(
            "{what}, {path}, belongs to uid {uid}, who may change what udsd does: chown root {path}"
        ));
    }
    (mode & 0o002 != 0 && mode & sparing == 0).then(|| {
        format!("{what}, {path}, has mode {mode:04o}: anyone may change what udsd does: chmod o-w {path}")
    })
}
