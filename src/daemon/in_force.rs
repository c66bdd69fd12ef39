//! The file in force, which the daemon writes into its runtime folder for the check before a reload. Only the daemon
//! knows it: the file in /etc may have changed several times since.

use std::{env, fs, path::PathBuf};

use ::log::warn;

use crate::config::{BaseDirs, Config, Parsed};

const NAME: &str = "in-force.toml";

/// Writes the file, whole or not at all. Removes it where no unit makes the sockets (`None`), or where writing fails.
pub(super) fn write(config: Option<&Config>) {
    let Some(path) = path() else {
        return;
    };
    if let Some(config) = config {
        let new = path.with_extension("new");
        match fs::write(&new, config.to_toml()).and_then(|()| fs::rename(new, &path)) {
            Ok(()) => return,
            Err(error) => warn!(
                "{}: cannot be written: {error}; udsd --check cannot compare with it",
                path.display()
            ),
        }
    }
    let _ = fs::remove_file(path);
}

/// The file in force in the daemon of this unit.
pub(super) fn read(dirs: &BaseDirs) -> Option<Config> {
    let text = fs::read_to_string(path()?).ok()?;
    // It is in force, even if a newer version finds faults in it.
    Some(Parsed::new(text.as_bytes(), None, dirs).ok()?.config)
}

/// RuntimeDirectory= of the unit (`systemd.exec(5)`).
fn path() -> Option<PathBuf> {
    let folders = env::var_os("RUNTIME_DIRECTORY")?;
    let first = env::split_paths(&folders).next()?;
    Some(first.join(NAME))
}
