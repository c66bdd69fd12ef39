//! Which folders %t, %S and %L stand for, and where config files are looked for. No other part of the config
//! reads the environment or the current folder.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use rustix::process::{Uid, geteuid};

use super::bounds;

/// The base directories of the system or of a user (XDG), for which %t, %S and %L stand. `None`: nobody says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseDirs {
    /// %t: for sockets and locks, which go when the machine stops.
    pub runtime: Option<PathBuf>,
    /// %S: for what is kept.
    pub state: Option<PathBuf>,
    /// %L: for logs and records.
    pub logs: Option<PathBuf>,
    /// The config file, which need not be there. `None`: nobody says where.
    pub config_file: Option<PathBuf>,
    /// The folders of its drop-ins. A file in one hides those of its name in the later ones.
    pub drop_ins: Vec<PathBuf>,
}

impl BaseDirs {
    /// Those of the system manager.
    #[must_use]
    pub fn system() -> Self {
        Self {
            runtime: Some("/run".into()),
            state: Some("/var/lib".into()),
            logs: Some("/var/log".into()),
            config_file: Some("/etc/udsd/udsd.toml".into()),
            drop_ins: ["/etc", "/usr/lib"]
                .map(|folder| format!("{folder}/udsd/udsd.toml.d").into())
                .into(),
        }
    }

    /// Those of this process: the system's for root and for the system's service, else the user's.
    #[must_use]
    pub fn current() -> Self {
        let variable = |name: &str| env::var_os(name);
        let user = geteuid();
        if user.is_root() || is_of_system(variable) {
            return Self::system();
        }
        Self::of_user(variable, env::home_dir(), own_runtime(user))
    }

    /// Those of a user; `runtime` serves where the environment does not name a runtime folder. The system's
    /// files are not among them: their sockets are the system's. A path that is not absolute counts as unset, as
    /// the XDG base directory specification says.
    fn of_user(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
        runtime: Option<PathBuf>,
    ) -> Self {
        let folder = |name: &str| absolute_of(variable(name));
        let home = home.filter(|path| path.is_absolute());
        let below_home = |path: &str| home.as_deref().map(|home: &Path| home.join(path));
        let state = folder("XDG_STATE_HOME").or_else(|| below_home(".local/state"));
        let config = folder("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let file = config.map(|folder| folder.join("udsd/udsd.toml"));
        Self {
            runtime: folder("XDG_RUNTIME_DIR").or(runtime),
            logs: state.as_deref().map(|state| state.join("log")),
            state,
            drop_ins: file.as_deref().map(drop_ins_of).into_iter().collect(),
            config_file: file,
        }
    }
}

/// The folder that a config file has beside it for drop-ins.
pub(super) fn drop_ins_of(file: &Path) -> PathBuf {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    folder.into()
}

fn absolute_of(path: Option<OsString>) -> Option<PathBuf> {
    path.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Whether this process belongs to a service of the system manager, which runs as a user of its own: a
/// user's manager gives all its processes XDG_RUNTIME_DIR (`systemd.exec(5)`).
fn is_of_system(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    absolute_of(variable("XDG_RUNTIME_DIR")).is_none()
        && ["NOTIFY_SOCKET", "RUNTIME_DIRECTORY"]
            .iter()
            .any(|name| variable(name).is_some())
}

/// What a login would have put into XDG_RUNTIME_DIR (`pam_systemd(8)`), which su and cron do not, if
/// it is there and the user's own.
fn own_runtime(user: Uid) -> Option<PathBuf> {
    let folder = PathBuf::from(format!("/run/user/{user}"));
    let found = fs::symlink_metadata(&folder).ok()?;
    (found.is_dir() && found.uid() == user.as_raw()).then_some(folder)
}

/// `path` from the root, for a reader that may be in another folder; `None` where no file could name it. The
/// kernel names the current folder without links, so each ".." that `path` begins with takes one name away.
pub(super) fn absolute(path: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path.into());
    }
    let mut out = env::current_dir().ok()?;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.to_str()
        .is_some_and(|text| text.len() <= bounds::PATH && !text.contains(char::is_control))
        .then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn user(variables: &[(&str, &str)], home: Option<&str>, runtime: Option<&str>) -> BaseDirs {
        let find = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        BaseDirs::of_user(find, home.map(PathBuf::from), runtime.map(PathBuf::from))
    }

    #[test]
    fn a_user_has_directories_below_home_and_no_file_of_the_systems() {
        let runtime = [("XDG_RUNTIME_DIR", "/run/user/7")];
        let dirs = user(&runtime, Some("/home/u"), Some("/r"));
        assert_eq!(dirs.runtime.unwrap(), Path::new("/run/user/7"));
        assert_eq!(dirs.state.unwrap(), Path::new("/home/u/.local/state"));
        assert_eq!(dirs.logs.unwrap(), Path::new("/home/u/.local/state/log"));
        let file = PathBuf::from("/home/u/.config/udsd/udsd.toml");
        assert_eq!(dirs.config_file, Some(file));
        let drop_ins = PathBuf::from("/home/u/.config/udsd/udsd.toml.d");
        assert_eq!(dirs.drop_ins, [drop_ins]);
    }

    #[test]
    fn variables_win_over_home() {
        let variables = [("XDG_STATE_HOME", "/s"), ("XDG_CONFIG_HOME", "/c")];
        let dirs = user(&variables, None, Some("/r"));
        assert_eq!(dirs.runtime.unwrap(), Path::new("/r"));
        assert_eq!(dirs.state.unwrap(), Path::new("/s"));
        assert_eq!(dirs.logs.unwrap(), Path::new("/s/log"));
        assert_eq!(dirs.config_file, Some("/c/udsd/udsd.toml".into()));
    }

    #[test]
    fn what_nobody_says_is_not_made_up() {
        for value in ["", "run"] {
            let variables = [("XDG_RUNTIME_DIR", value), ("XDG_STATE_HOME", value)];
            let dirs = user(&variables, None, None);
            assert_eq!((dirs.runtime, dirs.state, dirs.logs), (None, None, None));
            assert!(dirs.config_file.is_none() && dirs.drop_ins.is_empty());
        }
    }

    #[test]
    fn the_systems_service_is_told_from_a_user() {
        for (variables, is_service) in [
            (&[][..], false),
            (&["NOTIFY_SOCKET"], true),
            (&["RUNTIME_DIRECTORY"], true),
            (&["NOTIFY_SOCKET", "XDG_RUNTIME_DIR"], false),
        ] {
            let find = |name: &str| variables.contains(&name).then(|| OsString::from("/x"));
            assert_eq!(is_of_system(find), is_service, "{variables:?}");
        }
    }
}
