//! What %t, %S and %L mean here, and where config files are looked for. The only part of the config
//! that reads the environment and knows the current folder.

use std::{
    env,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use super::defaults;

/// What %t, %S and %L mean, and where the user's own file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// %t
    pub runtime: PathBuf,
    /// %S
    pub state: PathBuf,
    /// %L
    pub logs: PathBuf,
    /// Config files in the order they are looked for.
    pub files: Vec<PathBuf>,
}

impl Places {
    /// Those of the system manager.
    #[must_use]
    pub fn system() -> Self {
        Self {
            runtime: "/run".into(),
            state: "/var/lib".into(),
            logs: "/var/log".into(),
            files: vec!["/etc/udsd/udsd.toml".into()],
        }
    }

    /// Those of the process: the user's for one who is not root and has XDG_RUNTIME_DIR, else the
    /// system's.
    #[must_use]
    pub fn current() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::system();
        }
        Self::of_user(|name| env::var_os(name), env::home_dir()).unwrap_or_else(Self::system)
    }

    /// Those of a user; `None` where the environment does not tell them. As the XDG base directory
    /// specification has it, a path that is not absolute counts as unset.
    fn of_user(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<Self> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let folder = |name: &str| variable(name).map(PathBuf::from).filter(absolute);
        let home = home.filter(absolute);
        let below_home = |path: &str| home.as_deref().map(|home: &Path| home.join(path));
        let runtime = folder("XDG_RUNTIME_DIR")?;
        let state = folder("XDG_STATE_HOME").or_else(|| below_home(".local/state"))?;
        let config = folder("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let own = config.map(|folder| folder.join("udsd/udsd.toml"));
        Some(Self {
            runtime,
            logs: state.join("log"),
            state,
            files: own.into_iter().chain(Self::system().files).collect(),
        })
    }
}

/// `path` from the root, to be written where another process may stand in another folder; `None`
/// where no file could name it. The current folder is known without links, so each ".." that `path`
/// begins with takes one name away.
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
        .is_some_and(|text| text.len() <= defaults::PATH && !text.contains(char::is_control))
        .then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn user(variables: &[(&str, &str)], home: Option<&str>) -> Option<Places> {
        let find = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Places::of_user(find, home.map(PathBuf::from))
    }

    #[test]
    fn a_user_has_places_below_home() {
        let places = user(&[("XDG_RUNTIME_DIR", "/run/user/7")], Some("/home/u")).unwrap();
        assert_eq!(places.runtime, Path::new("/run/user/7"));
        assert_eq!(places.state, Path::new("/home/u/.local/state"));
        assert_eq!(places.logs, Path::new("/home/u/.local/state/log"));
        let files = ["/home/u/.config/udsd/udsd.toml", "/etc/udsd/udsd.toml"];
        assert_eq!(places.files, files.map(PathBuf::from));
    }

    #[test]
    fn variables_win_over_home() {
        let variables = [
            ("XDG_RUNTIME_DIR", "/r"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_CONFIG_HOME", "/c"),
        ];
        let places = user(&variables, None).unwrap();
        assert_eq!(places.state, Path::new("/s"));
        assert_eq!(places.logs, Path::new("/s/log"));
        assert_eq!(places.files[0], Path::new("/c/udsd/udsd.toml"));
    }

    #[test]
    fn without_a_runtime_folder_the_system_serves() {
        assert_eq!(user(&[], Some("/home/u")), None);
        assert_eq!(user(&[("XDG_RUNTIME_DIR", "")], Some("/home/u")), None);
        assert_eq!(user(&[("XDG_RUNTIME_DIR", "run")], Some("/home/u")), None);
    }
}
