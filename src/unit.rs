//! The systemd unit of a process, by the path of its cgroup, as `sd_pid_get_unit(3)` and `sd_pid_get_user_unit(3)`
//! read it (`cg_path_get_unit` and `cg_path_get_user_unit` in systemd's src/basic/cgroup-util.c).

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

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

const SLICE: &str = "slice";

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
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut below = parts.skip_while(|part| is_slice(part));
        let top = below.next();
        let mut below = below.skip_while(|part| is_slice(part));
        let user_unit = top.filter(|top| has_units(top)).and_then(|_| below.next());
        Unit {
            unit: top.and_then(name),
            user_unit: user_unit.and_then(name),
        }
    }

    /// The full name of a unit as people write it: without an ending it is a service, as for `systemctl(1)`.
    #[must_use]
    pub fn full_name(text: &str) -> String {
        let ending = text.rsplit_once('.').map(|(_, ending)| ending);
        match ending.is_some_and(|ending| ending == SLICE || TYPES.contains(&ending)) {
            true => text.into(),
            false => format!("{text}.service"),
        }
    }

    /// Whether neither is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.unit.is_none() && self.user_unit.is_none()
    }
}

/// Why a unit is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It could not be looked up now: a later look may tell.
    Now,
    /// Nobody can tell here, or any more.
    Ever,
}

/// A look-up of a unit, shared by all who wait for its end.
#[derive(Clone, Debug, Default)]
pub struct UnitLookup(Arc<OnceLock<Result<Unit, Unknown>>>);

impl UnitLookup {
    /// One that has ended with what was `found`.
    #[must_use]
    pub fn ended(found: Result<Unit, Unknown>) -> Self {
        UnitLookup(Arc::new(found.into()))
    }

    /// One that has ended with nothing: nobody can tell.
    #[must_use]
    pub fn none() -> Self {
        Self::ended(Err(Unknown::Ever))
    }

    /// Ends it.
    pub fn end(&self, found: Result<Unit, Unknown>) {
        // Who ends it is one thread alone.
        let _ = self.0.set(found);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether another one may tell more.
    #[must_use]
    pub fn is_to_be_repeated(&self) -> bool {
        self.0.get() == Some(&Err(Unknown::Now))
    }

    /// What it has found.
    #[must_use]
    pub fn unit(&self) -> Option<&Unit> {
        self.0.get()?.as_ref().ok()
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

/// The name of the unit whose cgroup is called `part`, if it is one.
fn name(part: &str) -> Option<String> {
    let name = unescaped(part);
    is_name(name, |kind| TYPES.contains(&kind)).then(|| name.to_owned())
}

/// Whether it is the name of a slice's cgroup.
pub(crate) fn is_slice(part: &str) -> bool {
    let name = unescaped(part);
    is_name(name, |kind| kind == SLICE) && !name.contains('@')
}

/// systemd puts `_` before names that the kernel has a use for.
fn unescaped(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

/// Whether units of others than the system's manager stand below this one, as those name them: of a user's manager
/// or of a capsule's, and below a session, where users had their managers once. Below all else names may be anything.
fn has_units(part: &str) -> bool {
    let within = |start, end| part.strip_prefix(start)?.strip_suffix(end);
    within("user@", ".service").is_some_and(is_uid)
        || within("capsule@", ".service").is_some_and(is_capsule)
        || within("session-", ".scope").is_some_and(is_session)
}

/// `parse_uid` in systemd.
fn is_uid(text: &str) -> bool {
    let uid = text.parse::<u32>();
    uid.is_ok_and(|uid| uid.to_string() == text && ![0xffff, u32::MAX].contains(&uid))
}

/// `capsule_name_is_valid` in systemd: "c-" and this are the name of a user.
fn is_capsule(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=29).contains(&name.len()) && name.bytes().all(is_plain)
}

/// `session_id_valid` in systemd.
fn is_session(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
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
            (
                "/user.slice/user-1000.slice/session-3.scope/x.slice/a.service",
                "session-3.scope",
                "a.service",
            ),
            (
                "/capsule.slice/capsule@lab-1.service/app.slice/a.service",
                "capsule@lab-1.service",
                "a.service",
            ),
            // No manager of units: what is below says nothing.
            (
                "/capsule.slice/capsule@a.b.service/a.service",
                "capsule@a.b.service",
                "",
            ),
            ("/session-.scope/a.service", "session-.scope", ""),
            ("/user@01.service/a.service", "user@01.service", ""),
            ("/user@65535.service/a.service", "user@65535.service", ""),
            ("/_user@1.service/a.service", "user@1.service", ""),
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
            ("/system.slice/a@b.slice/a.service", "", ""),
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

    #[test]
    fn a_name_without_an_ending_is_a_service() {
        for (text, name) in [
            ("nginx", "nginx.service"),
            ("user@1000", "user@1000.service"),
            ("org.example.a", "org.example.a.service"),
            ("nginx.service", "nginx.service"),
            ("session-3.scope", "session-3.scope"),
            ("app.slice", "app.slice"),
        ] {
            assert_eq!(Unit::full_name(text), name);
        }
    }
}
