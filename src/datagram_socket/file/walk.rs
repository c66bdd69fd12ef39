//! Fetches into the kernel's cache what a path needs, on a thread of its own: one look more then finds it
//! at hand. It goes folder by folder, and into none whose file system asks somebody else.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use rustix::{
    fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{look, may_wait};

/// Paths that may be asked for at a time; more are unreachable.
const PATHS: usize = 64;
/// Symbolic links on one way (`path_resolution(7)`).
const LINKS: usize = 40;

/// What is asked for.
#[derive(Default)]
struct Asked {
    /// Each path, and whether its walk is over.
    paths: HashMap<PathBuf, bool>,
    /// To the thread, once it runs.
    thread: Option<SyncSender<PathBuf>>,
}

static ASKED: LazyLock<Mutex<Asked>> = LazyLock::new(Mutex::default);

fn asked() -> MutexGuard<'static, Asked> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for a walk along `path`. False where one was made already and did not help, or none can be.
pub(super) fn fetch(path: &Path) -> bool {
    let mut asked = asked();
    match asked.paths.get(path) {
        Some(false) => return true,
        Some(true) => {
            asked.paths.remove(path);
            return false;
        }
        None => {}
    }
    if asked.paths.len() == PATHS {
        // Of those that helped nobody asked again.
        asked.paths.retain(|_, is_over| !*is_over);
        if asked.paths.len() == PATHS {
            return false;
        }
    }
    if asked.thread.is_none() {
        let (sender, paths) = mpsc::sync_channel(PATHS);
        let thread = thread::Builder::new().name("udsd-paths".into());
        let started = thread.spawn(|| serve(paths));
        asked.thread = started.is_ok().then_some(sender);
    }
    let thread = asked.thread.as_ref();
    let is_asked = thread.is_some_and(|thread| thread.try_send(path.into()).is_ok());
    if is_asked {
        asked.paths.insert(path.into(), false);
    }
    is_asked
}

/// `path` is at hand: if it is not another time, it takes another walk.
pub(super) fn helped(path: &Path) {
    let mut asked = asked();
    // Most of the time nothing is asked for, and hashing the path would cost something.
    if !asked.paths.is_empty() {
        asked.paths.remove(path);
    }
}

fn serve(paths: Receiver<PathBuf>) {
    for path in paths {
        // Whether it helped shows when the path is looked at again.
        let _ = walk(&path);
        if let Some(is_over) = asked().paths.get_mut(&path) {
            *is_over = true;
        }
    }
}

/// Looks every part of `path` up, as the kernel would.
fn walk(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut place = fs::open(".", flags, Mode::empty())?;
    let mut parts = parts(path);
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == "/" {
            place = fs::openat(CWD, "/", flags, Mode::empty())?;
            continue;
        }
        if may_wait(&look(&place)?) {
            return Err(Errno::PERM);
        }
        let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let next = match fs::openat2(&place, &part, flags, Mode::empty(), within) {
            // Another file system begins here, and what it begins with is always at hand.
            Err(Errno::XDEV) => {
                let at_hand = ResolveFlags::CACHED | ResolveFlags::NO_MAGICLINKS;
                fs::openat2(&place, &part, flags, Mode::empty(), at_hand)?
            }
            next => next?,
        };
        let mode = look(&next)?.stx_mode;
        if FileType::from_raw_mode(mode.into()) != FileType::Symlink {
            place = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP);
        }
        let target = fs::readlinkat(&next, "", Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        for part in self::parts(&target).into_iter().rev() {
            parts.push_front(part);
        }
    }
    Ok(())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts
        .map(Component::as_os_str)
        .map(OsStr::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_walk_follows_links_and_finds_what_is_there() {
        let folder = std::env::temp_dir().join(format!("udsd-walk-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(folder.join("a/b/file"), "").unwrap();
        symlink("a/../a", folder.join("relative")).unwrap();
        symlink(folder.join("relative/b"), folder.join("absolute")).unwrap();
        symlink("round", folder.join("round")).unwrap();
        let walked = ["a/b/file", "absolute/./file", "absolute/none", "round"]
            .map(|path| walk(&folder.join(path)));
        std::fs::remove_dir_all(&folder).unwrap();
        let expected = [Ok(()), Ok(()), Err(Errno::NOENT), Err(Errno::LOOP)];
        assert_eq!(walked, expected);
    }
}
