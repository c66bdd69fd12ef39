//! Which unit a process is of, by the kernel's word alone: a pidfd stands for the one process, also once that has
//! ended, and the kernel says in which cgroup it is. Its number is that of a folder below /sys/fs/cgroup
//! (`cgroups(7)`), whose path names the unit. Where any of that cannot be had, the unit is not known; it is never
//! looked up by a pid, which another process may have by then.
//!
//! The folders are walked by a thread that is there only while somebody waits for it: there may be very many of
//! them. What a walk finds is kept, also which numbers have no unit or are gone, so a walk is for new ones alone.
//!
//! A walk looks at `MOST` folders. First come slices and what is directly in them, the nearest first; then what is
//! below each of those that is no slice, a unit or not, `EACH` folders at most, again the nearest first: so nobody who
//! was given a part of the tree hides the others. A number that a walk does not find that ended early may be found by
//! a later one; after some of those it is unknown for good.

use std::{
    collections::{HashMap, VecDeque},
    fs, io, mem,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{DirEntryExt, MetadataExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mio::Waker;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::statfs,
};

use crate::{
    sys,
    unit::{Unit, UnitLookup, Unknown, is_slice},
};

/// Where the kernel shows them; the second where it also shows those of version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// `f_type` of version 2 (`statfs(2)`).
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
/// No more are looked at in a walk, nor asked for at once; of what is gone no more is kept.
const MOST: usize = 1 << 14;
/// Nor so many of those that are below one that is no slice.
const EACH: usize = 1 << 10;
/// How long to the next walk, as a multiple of what the last one took, and within these bounds: clients may bring
/// numbers that are new as often as they like, and `udsc` waits for some seconds alone.
const PART: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What so many walks did not find, each to its bounds, none will.
const TRIES: u32 = 3;

static LOOK_UPS: LazyLock<Mutex<LookUps>> = LazyLock::new(Mutex::default);
static WAKER: OnceLock<Arc<Waker>> = OnceLock::new();
/// Look-ups have ended since somebody asked for that.
static HAVE_ENDED: AtomicBool = AtomicBool::new(false);

/// Look-ups by the numbers of cgroups.
#[derive(Default)]
struct LookUps {
    /// As the last walks ended them.
    known: HashMap<u64, UnitLookup>,
    /// For the next walk.
    asked: HashMap<u64, UnitLookup>,
    /// How many walks that ended early did not find these.
    missed: HashMap<u64, u32>,
    next_walk: Option<Instant>,
    /// The thread is there.
    runs: bool,
}

/// Wakes the event loop by `waker` when look-ups have ended.
pub fn wake_by(waker: &Arc<Waker>) {
    // There is one event loop in a process.
    let _ = WAKER.set(Arc::clone(waker));
}

/// Whether look-ups have ended since this was last asked.
pub fn have_ended() -> bool {
    HAVE_ENDED.swap(false, Ordering::Acquire)
}

/// Whether units can be looked up here: this process' own cgroup can be.
#[must_use]
pub fn are_known() -> bool {
    let own = UnixStream::pair().and_then(|(end, _other)| sys::peer_process(end));
    own.is_ok_and(|own| match sys::cgroup_of(&own) {
        Ok(Some(_)) => root().is_some(),
        _ => path_by_proc(&own).is_ok(),
    })
}

/// Looks up the unit of the process at the other end of a connected socket: of the one that connected.
#[must_use]
pub fn unit_of_peer(socket: impl AsFd) -> UnitLookup {
    let found = sys::peer_process(socket).and_then(|process| match sys::cgroup_of(&process) {
        Ok(Some(number)) => Ok(look_ups().look_up(number)),
        // Linux before 6.13.
        _ => path_by_proc(&process).map(|path| UnitLookup::ended(Ok(Unit::of_path(&path)))),
    });
    found.unwrap_or_else(|error| {
        UnitLookup::ended(Err(match is_for_now(&error) {
            true => Unknown::Now,
            false => Unknown::Ever,
        }))
    })
}

/// Whether it may be over later: descriptors or memory have run out.
fn is_for_now(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM]
        .map(Some)
        .contains(&number)
}

fn look_ups() -> MutexGuard<'static, LookUps> {
    LOOK_UPS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LookUps {
    fn look_up(&mut self, number: u64) -> UnitLookup {
        let now = Instant::now();
        let is_due = self.next_walk.is_none_or(|next| next <= now);
        match self.known.get(&number) {
            // Who asks again at once, as whoever has waited for this does, waits for no other walk.
            Some(known) if !(known.is_to_be_repeated() && is_due) => return known.clone(),
            None if self.asked.len() == MOST => return UnitLookup::ended(Err(Unknown::Now)),
            _ => {}
        }
        let asked = self.asked.entry(number).or_default().clone();
        self.start();
        asked
    }

    fn start(&mut self) {
        if self.runs {
            return;
        }
        let started = thread::Builder::new().name("cgroups".into()).spawn(run);
        self.runs = started.is_ok();
        if !self.runs {
            let asked = mem::take(&mut self.asked);
            self.take_in(asked, Walk::cut_short(Unknown::Now));
            self.next_walk = Some(Instant::now() + PAUSE);
        }
    }

    /// Ends those that were `asked` for before a walk began, and later ones whose numbers it found.
    fn take_in(&mut self, asked: HashMap<u64, UnitLookup>, walk: Walk) {
        let mut known = walk.found;
        let found = |number: &u64| Some(known.get(number)?.unit()?.clone());
        self.asked.retain(|number, asked| {
            let found = found(number);
            let stays = found.is_none();
            found.into_iter().for_each(|unit| asked.end(Ok(unit)));
            stays
        });
        for (number, asked) in &asked {
            let found = found(number);
            asked.end(found.ok_or_else(|| self.why_unknown(*number, walk.cut)));
        }
        known.extend(asked);
        // Those that are gone by now stay known for a while: a process of theirs may have sent something just
        // before.
        for (number, before) in self.known.drain() {
            if known.len() < MOST && !before.is_to_be_repeated() {
                known.entry(number).or_insert(before);
            }
        }
        self.known = known;
    }

    /// Of a number that a walk did not find.
    fn why_unknown(&mut self, number: u64, cut: Option<Unknown>) -> Unknown {
        match cut {
            // What is nowhere is gone, or was never below our root.
            None => return Unknown::Ever,
            Some(Unknown::Now) => return Unknown::Now,
            Some(Unknown::Ever) => {}
        }
        if self.missed.len() >= MOST {
            self.missed.clear();
        }
        let missed = self.missed.entry(number).or_default();
        *missed += 1;
        if *missed < TRIES {
            return Unknown::Now;
        }
        self.missed.remove(&number);
        Unknown::Ever
    }
}

/// The thread: walks until nobody waits.
fn run() {
    loop {
        let pause = look_ups().next_walk;
        thread::sleep(pause.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        }));
        let asked = mem::take(&mut look_ups().asked);
        let begin = Instant::now();
        let walk = match root() {
            Some(root) => walk(root, MOST, EACH),
            None => Walk::cut_short(Unknown::Ever),
        };
        let mut look_ups = look_ups();
        look_ups.take_in(asked, walk);
        let pause = (begin.elapsed() * PART).clamp(PAUSE, LONGEST_PAUSE);
        look_ups.next_walk = Some(Instant::now() + pause);
        look_ups.runs = !look_ups.asked.is_empty();
        let is_over = !look_ups.runs;
        drop(look_ups);
        HAVE_ENDED.store(true, Ordering::Release);
        if let Some(waker) = WAKER.get() {
            // It fails where the event loop is gone.
            let _ = waker.wake();
        }
        if is_over {
            return;
        }
    }
}

/// The root of version 2.
fn root() -> Option<&'static Path> {
    let is_one = |path: &&Path| statfs(*path).is_ok_and(|of| of.f_type == CGROUP2);
    ROOTS.into_iter().map(Path::new).find(is_one)
}

/// What a walk has found.
#[derive(Default)]
struct Walk {
    found: HashMap<u64, UnitLookup>,
    /// It ended early: for now, or as every later one will. `None`: there is nothing else.
    cut: Option<Unknown>,
}

/// A folder, below the root, and the unit that it is in.
type Place = (PathBuf, UnitLookup);

/// Looks at the folders below `root`: at `most` of them, and below each that is no slice at `each`.
fn walk(root: &Path, most: usize, each: usize) -> Walk {
    let mut walk = Walk::default();
    let top = UnitLookup::ended(Ok(Unit::default()));
    match fs::metadata(root) {
        Ok(about) => _ = walk.found.insert(about.ino(), top.clone()),
        Err(error) => walk.note(&error),
    }
    for place in walk.look_below(root, (PathBuf::new(), top), most, is_slice) {
        let end = most.min(walk.found.len() + each);
        walk.look_below(root, place, end, |_| true);
    }
    walk
}

impl Walk {
    /// One that has found nothing.
    fn cut_short(why: Unknown) -> Self {
        Walk {
            found: HashMap::new(),
            cut: Some(why),
        }
    }

    /// A folder could not be read.
    fn note(&mut self, error: &io::Error) {
        if is_for_now(error) {
            self.cut = Some(Unknown::Now);
        }
        self.cut.get_or_insert(Unknown::Ever);
    }

    /// Looks at what is below `top`, and below each folder whose name is one to `enter`, the nearest first, until
    /// `end` are found in all. Returns the folders below which it did not look.
    fn look_below(
        &mut self,
        root: &Path,
        top: Place,
        end: usize,
        enter: fn(&str) -> bool,
    ) -> Vec<Place> {
        let mut others = Vec::new();
        let mut places = VecDeque::from([top]);
        while let Some((path, of)) = places.pop_front() {
            let entries = match fs::read_dir(root.join(&path)) {
                Ok(entries) => entries,
                // It is gone by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.note(&error);
                    continue;
                }
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        self.note(&error);
                        break;
                    }
                };
                if !entry.file_type().is_ok_and(|of| of.is_dir()) {
                    continue;
                }
                if self.found.len() >= end {
                    self.cut.get_or_insert(Unknown::Ever);
                    return others;
                }
                let name = entry.file_name();
                let path = path.join(&name);
                let unit = Unit::of_path(&path.to_string_lossy());
                let of = match of.unit() == Some(&unit) {
                    true => of.clone(),
                    false => UnitLookup::ended(Ok(unit)),
                };
                self.found.insert(entry.ino(), of.clone());
                match enter(&name.to_string_lossy()) {
                    true => places.push_back((path, of)),
                    false => others.push((path, of)),
                }
            }
        }
        others
    }
}

/// The path of a process' cgroup, as `/proc/PID/cgroup` has it. The pid stands for no other process, since that of
/// the pidfd is there before and after.
fn path_by_proc(process: &OwnedFd) -> io::Result<String> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    // It can be read from once its process has ended (`pidfd_open(2)`).
    let is_there = || {
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(0) => Ok(()),
            _ => Err(gone()),
        }
    };
    let fd = process.as_raw_fd();
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let pid = about.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid: u32 = pid
        .and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(gone)?;
    is_there()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    is_there()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(str::to_owned).ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// A tree of folders like that below /sys/fs/cgroup.
    struct Tree(PathBuf);

    impl Tree {
        fn new(test: &str, folders: &[&str]) -> Self {
            let name = format!("udsd-cgroups-{test}-{}", std::process::id());
            let tree = Tree(std::env::temp_dir().join(name));
            for folder in folders {
                fs::create_dir_all(tree.0.join(folder)).unwrap();
            }
            tree
        }

        fn number(&self, path: &str) -> u64 {
            fs::metadata(self.0.join(path)).unwrap().ino()
        }

        /// The unit that `walk` found for the folder: of the system, a user's; none where the number is unknown.
        fn unit(&self, walk: &Walk, path: &str) -> Option<[String; 2]> {
            let unit = walk.found.get(&self.number(path))?.unit().unwrap().clone();
            Some([unit.unit, unit.user_unit].map(Option::unwrap_or_default))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MANAGER: &str = "user.slice/user-1.slice/user@1.service";

    #[test]
    fn a_walk_finds_the_number_of_each_folder_with_a_unit_or_without() {
        let b = &format!("{MANAGER}/app.slice/b.service");
        let inner = &format!("{b}/inner.service");
        let tree = Tree::new("all", &["system.slice/a.service/inner/deep", inner]);
        fs::write(tree.0.join("system.slice/cgroup.procs"), "").unwrap();
        let walk = walk(&tree.0, MOST, EACH);
        assert_eq!(walk.cut, None);
        for (path, unit, user_unit) in [
            ("", "", ""),
            ("system.slice", "", ""),
            ("system.slice/a.service", "a.service", ""),
            ("system.slice/a.service/inner", "a.service", ""),
            ("system.slice/a.service/inner/deep", "a.service", ""),
            (MANAGER, "user@1.service", ""),
            (b, "user@1.service", "b.service"),
            (inner, "user@1.service", "b.service"),
        ] {
            let found = tree.unit(&walk, path);
            assert_eq!(found, Some([unit.into(), user_unit.into()]), "{path}");
        }
        assert_eq!(walk.found.len(), 11);
    }

    #[test]
    fn a_walk_is_bounded_and_no_part_hides_another() {
        let own = (0..20).flat_map(|n| [MANAGER, "docker"].map(|top| format!("{top}/{n}/{n}")));
        let own: Vec<String> = own.collect();
        let others = ["system.slice/a.service/inner", "z.slice/z.service/inner"];
        let all = own.iter().map(String::as_str).chain(others);
        let tree = Tree::new("bounded", &all.collect::<Vec<_>>());
        let cut = walk(&tree.0, MOST, 10);
        assert_eq!(cut.cut, Some(Unknown::Ever));
        for path in others {
            assert!(tree.unit(&cut, path).is_some(), "{path}");
        }
        // The nearest first: none of them is two folders below its top.
        let is_found = |path: &&String| tree.unit(&cut, path).is_some();
        assert_eq!(own.iter().filter(is_found).count(), 0);
        // The first nine are slices, or directly in them.
        assert_eq!(cut.found.len(), 9 + 10 + 10 + 2);
        let cut = walk(&tree.0, 5, 10);
        assert_eq!(cut.cut, Some(Unknown::Ever));
        assert_eq!(cut.found.len(), 5);
        let gone = walk(&tree.0.join("gone"), MOST, EACH);
        assert_eq!(gone.cut, Some(Unknown::Ever));
    }

    fn asked(number: u64) -> (UnitLookup, HashMap<u64, UnitLookup>) {
        let lookup = UnitLookup::default();
        (lookup.clone(), HashMap::from([(number, lookup)]))
    }

    fn found(numbers: &[u64], cut: Option<Unknown>) -> Walk {
        let unit = Unit::of_path("a.service");
        let found = UnitLookup::ended(Ok(unit));
        Walk {
            found: numbers.iter().map(|n| (*n, found.clone())).collect(),
            cut,
        }
    }

    #[test]
    fn what_a_whole_walk_does_not_find_stays_unknown_and_is_not_looked_for_again() {
        let mut look_ups = LookUps::default();
        let (gone, all) = asked(1);
        look_ups.take_in(all, found(&[2], None));
        assert!(gone.has_ended() && !gone.is_to_be_repeated());
        assert!(gone.unit().is_none());
        look_ups.next_walk = None;
        assert!(look_ups.look_up(1).has_ended());
        // Nor what was there before.
        look_ups.take_in(HashMap::new(), found(&[], None));
        assert!(!look_ups.look_up(2).unit().unwrap().is_unknown());
        assert!(!look_ups.runs);
    }

    #[test]
    fn what_a_walk_that_ended_early_does_not_find_is_looked_for_again_after_a_pause() {
        let mut look_ups = LookUps::default();
        let (early, all) = asked(1);
        look_ups.take_in(all, found(&[2], Some(Unknown::Ever)));
        assert!(early.is_to_be_repeated());
        look_ups.next_walk = Some(Instant::now() + Duration::from_secs(3600));
        assert!(look_ups.look_up(1).has_ended());
        assert!(look_ups.asked.is_empty());
        look_ups.next_walk = None;
        look_ups.runs = true;
        let again = look_ups.look_up(1);
        assert!(!again.has_ended());
        // It was asked for when the walk had begun, which has passed there later.
        look_ups.take_in(HashMap::new(), found(&[1], Some(Unknown::Ever)));
        assert!(!again.unit().unwrap().is_unknown());
        assert!(look_ups.asked.is_empty());
    }

    #[test]
    fn what_several_walks_to_their_bounds_do_not_find_stays_unknown() {
        let mut look_ups = LookUps::default();
        let mut walk_without_it = |cut| {
            let (early, all) = asked(1);
            look_ups.take_in(all, found(&[2], Some(cut)));
            early.is_to_be_repeated()
        };
        for _ in 1..TRIES {
            assert!(walk_without_it(Unknown::Ever));
            // That says nothing of the number.
            assert!(walk_without_it(Unknown::Now));
        }
        assert!(!walk_without_it(Unknown::Ever));
        look_ups.next_walk = None;
        assert!(look_ups.look_up(1).has_ended());
        assert!(look_ups.missed.is_empty());
    }
}
