//! How much memory this process may use: that of the machine, or less where a cgroup has a limit. Read by
//! sysinfo(2) and from /sys/fs/cgroup, for the service sees little of /proc, but its own cgroup.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use rustix::system::sysinfo;

/// Where cgroups are (`cgroups(7)`).
const ROOT: &str = "/sys/fs/cgroup";

/// A limit, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// "the machine", or the path of a file.
    pub source: String,
}

/// The lowest limit.
#[must_use]
pub fn available() -> Memory {
    let machine = sysinfo();
    // Both may be 64 bits wide.
    let bytes = u128::from(machine.totalram) * u128::from(machine.mem_unit);
    let machine = Memory {
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        source: "the machine".into(),
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limits(Path::new(ROOT), &own);
    let all = limits.into_iter().chain([machine.clone()]);
    all.min_by_key(|memory| memory.bytes).unwrap_or(machine)
}

/// The limits of the cgroups in `own`, as /proc/self/cgroup has them, and of their parents.
fn limits(root: &Path, own: &str) -> Vec<Memory> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (roots, file): (&[&str], _) = match controllers {
            // Beside hierarchies of version 1, version 2 is mounted below them.
            "" => (&["", "unified"], "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (&["memory"], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Below a root.
        let names = Path::new(path).components();
        let path: PathBuf = names
            .filter(|name| matches!(name, Component::Normal(_)))
            .collect();
        // In a container the path may be that of the host, and only the root exists here.
        for root in roots.iter().map(|name| root.join(name)) {
            for folder in path.ancestors() {
                let file = root.join(folder).join(file);
                let text = fs::read_to_string(&file).ok();
                // "max" is no number.
                if let Some(bytes) = text.and_then(|text| text.trim().parse().ok()) {
                    let source = file.display().to_string();
                    found.push(Memory { bytes, source });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_least_of_all_cgroups_counts() {
        let root = std::env::temp_dir().join(format!("udsd-memory-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("a/b/memory.max", "3000\n");
        put("a/memory.max", "2000\n");
        put("memory.max", "max\n");
        put("other/memory.max", "1\n");
        put("unified/c/memory.max", "4000\n");
        put("memory/d/memory.limit_in_bytes", "5000\n");
        put("memory/memory.limit_in_bytes", "6000\n");
        let found = |own: &str| -> Vec<u64> {
            let limits = limits(&root, own);
            limits.iter().map(|limit| limit.bytes).collect()
        };
        let seen = [
            found("0::/a/b\n"),
            found("0::/a/unseen/../b/c\n"),
            found("0::/\n"),
            found("1:name=systemd:/a\n4:cpu,memory:/d\n0::/c\n"),
            // A container that sees the path of the host.
            found("4:memory:/docker/0123\n"),
            found("nonsense\n"),
        ];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            seen,
            [
                vec![3000, 2000],
                vec![2000],
                vec![],
                vec![5000, 6000, 4000],
                vec![6000],
                vec![]
            ]
        );
    }

    #[test]
    fn there_is_some() {
        assert!(available().bytes > 1 << 20);
    }
}
