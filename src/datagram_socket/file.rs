//! Opens the socket file that a sender names as its address, without waiting for a file system.
//!
//! A path is its sender's word. It may lead to a file system that asks somebody else (FUSE, NFS), who
//! could hold up the event loop for as long as they like; a thread that is stuck there outlives SIGKILL,
//! and its process cannot end. So the loop looks only at what the kernel has at hand: a socket that is
//! open keeps its file and all folders above it there. What else the way needs (permissions, links), a
//! thread fetches (`walk`), from file systems that ask nobody.

mod walk;

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::LazyLock,
};

use rustix::{
    fs::{
        self, AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, Statx,
        StatxAttributes, StatxFlags,
    },
    io::Errno,
};

/// Looks at one path: a rename or a mount anywhere in the middle of one spoils it.
const LOOKS: usize = 8;

/// Opens (O_PATH) the socket that `owner` has at `path`.
///
/// # Errors
/// EPERM where something else is there, or where writing could wait; EAGAIN while the way there is
/// fetched, EHOSTUNREACH where that did not help; else those of `openat2(2)`.
pub(super) fn open(path: &[u8], owner: u32) -> io::Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(path));
    let file = open_at_hand(path)?;
    walk::helped(path);
    let stat = look(&file)?;
    let is_socket = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Socket;
    if !is_socket || stat.stx_uid != owner || may_wait(&stat) {
        return Err(Errno::PERM.into());
    }
    Ok(file)
}

fn open_at_hand(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::CACHED | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..LOOKS {
        match fs::openat2(CWD, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            // Before Linux 5.12 there is no such look, and a path on FUSE can hold up the loop.
            Err(Errno::INVAL | Errno::NOSYS) => return fs::open(path, flags, Mode::empty()),
            result => return result,
        }
    }
    match walk::fetch(path) {
        true => Err(Errno::AGAIN),
        false => Err(Errno::HOSTUNREACH),
    }
}

/// What the kernel has at hand of a file.
fn look(file: &OwnedFd) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    fs::statx(file, "", flags, StatxFlags::TYPE | StatxFlags::UID)
}

/// Whether the file system asks somebody else. Sending to a socket asks for its permissions once more,
/// and FUSE may then wait although all was at hand before. What waits for nobody knows which files are
/// immutable: ext4, XFS, Btrfs, tmpfs and overlays of them do, FUSE and NFS do not.
fn may_wait(stat: &Statx) -> bool {
    *TELLS && !tells_immutable(stat)
}

fn tells_immutable(stat: &Statx) -> bool {
    let known = stat.stx_attributes_mask;
    known.contains(StatxAttributes::IMMUTABLE)
}

/// Whether this kernel's tmpfs tells; it does since Linux 6.0.
static TELLS: LazyLock<bool> = LazyLock::new(|| {
    let file = fs::memfd_create("udsd-look", MemfdFlags::CLOEXEC);
    file.and_then(|file| look(&file))
        .is_ok_and(|stat| tells_immutable(&stat))
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{os::unix::net::UnixDatagram, thread};

    use super::*;

    #[test]
    fn only_a_socket_of_its_owner_is_opened() {
        let folder = std::env::temp_dir().join(format!("udsd-file-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (socket, file) = (folder.join("socket"), folder.join("file"));
        let _socket = UnixDatagram::bind(&socket).unwrap();
        std::fs::write(&file, "").unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let kind = |path: &Path, owner| {
            loop {
                match open(path.as_os_str().as_bytes(), owner) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                    opened => return opened.map_err(|error| error.raw_os_error().unwrap()),
                }
            }
        };
        let own = kind(&socket, owner);
        let others = kind(&socket, owner + 1);
        let no_socket = kind(&file, owner);
        let nothing = kind(&folder.join("nothing"), owner);
        let link = kind(Path::new("/proc/self/exe"), owner);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(own.is_ok());
        let refused = [others, no_socket].map(Result::unwrap_err);
        assert_eq!(refused, [Errno::PERM.raw_os_error(); 2]);
        assert!(nothing.is_err() && link.is_err());
    }
}
