//! Which unit a process is of, by the kernel's word alone: a pidfd stands for the one process, also once that has
//! ended, and the kernel says in which cgroup it is. Its number is that of a folder below /sys/fs/cgroup
//! (`cgroups(7)`), whose path names the unit. Where any of that cannot be had, the unit is not known; it is never
//! looked up by a pid, which another process may have by then.

use std::{
    collections::HashMap,
    fs,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::DirEntryExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::statfs,
};

use crate::{sys, unit::Unit};

/// Where the kernel shows them; the second where it also shows those of version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `f_type` of version 2 (`statfs(2)`).
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
/// No more are kept.
const MOST: usize = 1 << 16;
/// How deep they are looked at.
const DEPTH: usize = 16;
/// How long to the next walk, at least, and as a multiple of what the last one took: clients may bring numbers that
/// are not found as often as they like.
const PAUSE: Duration = Duration::from_millis(200);
const PART: u32 = 50;

/// The units by the numbers of their cgroups, as the last walk found them.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

struct Known {
    units: HashMap<u64, Arc<Unit>>,
    /// For all who have none that is known.
    unknown: Arc<Unit>,
    next_walk: Option<Instant>,
}

/// The unit of the process at the other end of a connected socket: of the one that connected. `None` where a later
/// look may tell.
#[must_use]
pub fn unit_of_peer(socket: impl AsFd) -> Option<Arc<Unit>> {
    let process = sys::peer_process(socket).ok();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(|| Known {
        units: HashMap::new(),
        unknown: Arc::default(),
        next_walk: None,
    });
    let Some(process) = process else {
        return Some(Arc::clone(&known.unknown));
    };
    match sys::cgroup_of(&process) {
        Ok(Some(number)) => known.find(number),
        // Linux before 6.13.
        _ => Some(match path_by_proc(&process) {
            Some(path) => Arc::new(Unit::of_path(&path)),
            None => Arc::clone(&known.unknown),
        }),
    }
}

impl Known {
    fn find(&mut self, number: u64) -> Option<Arc<Unit>> {
        if !self.units.contains_key(&number) {
            let begin = Instant::now();
            if self.next_walk.is_some_and(|next| begin < next) {
                return None;
            }
            self.walk();
            self.next_walk = Some(Instant::now() + PAUSE.max(begin.elapsed() * PART));
        }
        Some(Arc::clone(self.units.get(&number).unwrap_or(&self.unknown)))
    }

    /// Finds all that there are. Those that are gone by now stay known for a while: a process of theirs may have
    /// sent something just before.
    fn walk(&mut self) {
        let Some(root) = root() else {
            return;
        };
        let mut found = HashMap::new();
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((path, depth)) = folders.pop() {
            let entries = fs::read_dir(root.join(&path));
            for entry in entries.into_iter().flatten().flatten() {
                if found.len() == MOST || !entry.file_type().is_ok_and(|of| of.is_dir()) {
                    continue;
                }
                let path = path.join(entry.file_name());
                let unit = Unit::of_path(&path.to_string_lossy());
                if !unit.is_unknown() {
                    let before = self.units.get(&entry.ino());
                    let same = before.filter(|before| ***before == unit).cloned();
                    found.insert(entry.ino(), same.unwrap_or_else(|| Arc::new(unit)));
                }
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            }
        }
        for (number, unit) in self.units.drain() {
            if found.len() < MOST {
                found.entry(number).or_insert(unit);
            }
        }
        self.units = found;
    }
}

/// The root of version 2.
fn root() -> Option<&'static Path> {
    let is_one = |path: &&Path| statfs(*path).is_ok_and(|of| of.f_type == CGROUP2);
    ROOTS.into_iter().map(Path::new).find(is_one)
}

/// The path of a process' cgroup, as `/proc/PID/cgroup` has it. The pid stands for no other process, since that of
/// the pidfd is there before and after.
fn path_by_proc(process: &OwnedFd) -> Option<String> {
    // It can be read from once its process has ended (`pidfd_open(2)`).
    let is_there = || {
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        (poll(&mut polled, Some(&Timespec::default())) == Ok(0)).then_some(())
    };
    let fd = process.as_raw_fd();
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let pid = about.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    let pid: u32 = pid.trim().parse().ok()?;
    is_there()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    is_there()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.to_owned())
}
