//! The version of the systemd that runs the generator. A generator may not ask it (`systemd.generator(7)`), but the
//! process that runs it has mapped a shared library whose name has the version.

use std::{env, fs};

use rustix::process::{Pid, getppid};

/// The oldest that udsd's units are for.
const OLDEST: u32 = 244;
/// The first that tells generators its scope (`systemd.generator(7)`).
const TELLS_SCOPE: u32 = 251;
const LIBRARY: &str = "libsystemd-shared-";

/// Its version or, where that cannot be seen, the oldest that it can be.
pub(super) fn version() -> u32 {
    let parent = Pid::as_raw(getppid());
    let maps = fs::read(format!("/proc/{parent}/maps")).unwrap_or_default();
    in_maps(&String::from_utf8_lossy(&maps)).unwrap_or_else(|| {
        if env::var_os("SYSTEMD_SCOPE").is_some() {
            TELLS_SCOPE
        } else {
            OLDEST
        }
    })
}

/// From the lines of `proc_pid_maps(5)`.
fn in_maps(maps: &str) -> Option<u32> {
    maps.lines().find_map(|line| {
        let (_, version) = line.split_once(LIBRARY)?;
        let digits = version.find(|c: char| !c.is_ascii_digit())?;
        version[..digits].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_names_the_version() {
        let line = |name: &str| {
            format!(
                "7f-80 r--p 00000000 00:20 9 /lib/x/libc.so.6\n80-81 r-xp 0 00:20 7 /usr/lib/{name}\n"
            )
        };
        for (name, version) in [
            ("systemd/libsystemd-shared-252.so", Some(252)),
            (
                "x86_64-linux-gnu/systemd/libsystemd-shared-258.so",
                Some(258),
            ),
            ("systemd/libsystemd-shared-249.11-1.fc35.so", Some(249)),
            ("systemd/libsystemd-shared-257~rc1.so (deleted)", Some(257)),
            ("systemd/libsystemd-shared-.so", None),
            ("libsystemd.so.0.35.0", None),
        ] {
            assert_eq!(in_maps(&line(name)), version, "{name}");
        }
    }
}
