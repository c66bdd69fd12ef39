//! The systemd unit of a process, by the path of its cgroup, as `sd_pid_get_unit(3)` and `sd_pid_get_user_unit(3)`
//! read it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name of a unit, bytes, with its type (`systemd.unit(5)`).
const LONGEST: usize = 255;

/// The types of units that there are (`systemd.unit(5)`), without slices, which hold other units and no process.
const TYPES: [&str; 10] = [
    "service",
    "scope",
    "socket",
    "target",
    "device",
    "mount",
    "automount",
    "swap",
    "timer",
    "path",
];

/// The units of a process; neither is known of one whose cgroup is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Of the system's manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Of a user's own manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_unit: Option<String>,
}

impl Unit {
    /// Those of a process in the cgroup at `path`, below the root of all.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let parts = || path.split('/').filter(|part| !part.is_empty());
        let mut below = parts().skip_while(|part| is_slice(part));
        let unit = below.next().and_then(name);
        // What stands below a user's manager is as that names it; below all else it may be anything.
        let is_manager = unit.as_deref().is_some_and(is_user_manager);
        let user_unit = is_manager
            .then(|| below.find(|part| !is_slice(part)).and_then(name))
            .flatten();
        Unit { unit, user_unit }
    }

    /// Whether neither is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.unit.is_none() && self.user_unit.is_none()
    }
}

/// As the log shows it; nothing where neither is known.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [("unit", &self.unit), ("user unit", &self.user_unit)];
        for (what, name) in names {
            if let Some(name) = name {
                write!(f, ", {what} {name}")?;
            }
        }
        Ok(())
    }
}

/// The name of the unit whose cgroup is called `part`, if it is one. systemd puts `_` before names that the kernel
/// has a use for.
fn name(part: &str) -> Option<String> {
    let name = part.strip_prefix('_').unwrap_or(part);
    is_name(name, |kind| TYPES.contains(&kind)).then(|| name.to_owned())
}

fn is_slice(part: &str) -> bool {
    is_name(part.strip_prefix('_').unwrap_or(part), |kind| {
        kind == "slice"
    })
}

fn is_user_manager(name: &str) -> bool {
    let uid = name.strip_prefix("user@");
    let uid = uid.and_then(|rest| rest.strip_suffix(".service"));
    uid.is_some_and(|uid| uid.parse::<u32>().is_ok())
}

/// Whether it is the name of a unit of a type that `fits`, and no template's (`unit_name_is_valid` in systemd).
fn is_name(text: &str, fits: impl Fn(&str) -> bool) -> bool {
    let Some((before, kind)) = text.rsplit_once('.') else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let is_instance = match before.split_once('@') {
        Some((prefix, instance)) => !prefix.is_empty() && !instance.is_empty(),
        None => !before.is_empty(),
    };
    text.len() <= LONGEST && text.bytes().all(is_plain) && is_instance && fits(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_paths_as_systemd_reads_them() {
        let manager = "user@1000.service";
        for (path, unit, user_unit) in [
            ("/system.slice/nginx.service", "nginx.service", ""),
            ("/system.slice/nginx.service/worker", "nginx.service", ""),
            (
                "/system.slice/system-backup.slice/backup@home.service",
                "backup@home.service",
                "",
            ),
            (
                "/system.slice/dev-disk-by\\x2duuid.swap",
                "dev-disk-by\\x2duuid.swap",
                "",
            ),
            ("/system.slice/_cpu.service", "cpu.service", ""),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope",
                "",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                manager,
                "init.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
                manager,
                "a.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.slice/a@1.service/b.scope",
                manager,
                "a@1.service",
            ),
            ("/user.slice/user-1000.slice/user@1000.service", manager, ""),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice",
                manager,
                "",
            ),
            (
                "/machine.slice/systemd-nspawn@box.service/payload/system.slice/nginx.service",
                "systemd-nspawn@box.service",
                "",
            ),
            (
                "/system.slice/docker-0123abcd.scope",
                "docker-0123abcd.scope",
                "",
            ),
            ("/init.scope", "init.scope", ""),
            ("/top.service", "top.service", ""),
            // No user's manager: what is below says nothing.
            (
                "/system.slice/user@x.service/a.service",
                "user@x.service",
                "",
            ),
            (
                "/system.slice/a.service/user@0.service/b.service",
                "a.service",
                "",
            ),
            ("/system.slice", "", ""),
            ("/", "", ""),
            ("", "", ""),
            ("/docker/0123abcd", "", ""),
            ("/docker/x.service", "", ""),
            ("/system.slice/backup@.service", "", ""),
            ("/system.slice/@x.service", "", ""),
            ("/system.slice/no type", "", ""),
            ("/system.slice/a b.service", "", ""),
            ("/system.slice/.service", "", ""),
        ] {
            let known = |name: &str| (!name.is_empty()).then(|| name.to_owned());
            let (unit, user_unit) = (known(unit), known(user_unit));
            assert_eq!(Unit::of_path(path), Unit { unit, user_unit }, "{path}");
        }
        let long = format!("/system.slice/{}.service", "x".repeat(250));
        assert!(Unit::of_path(&long).is_unknown());
    }
}
