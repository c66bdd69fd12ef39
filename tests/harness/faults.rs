//! A disk that fails, waits or loses what it was not told to keep: a library that is preloaded into the daemon.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Daemon, Folder, Setup, has_program, is_root};

/// Whether a daemon may have a file system of its own.
pub fn can_mount() -> bool {
    is_root() && has_program("unshare")
}

/// A daemon that has a file system of its own in the folder `disk`, which `mount` mounts; and where that is seen from
/// here.
pub fn mounted(setup: Setup, mount: &str) -> (Daemon, PathBuf) {
    let disk = setup.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = format!("{mount} {} && exec \"$@\"", disk.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let daemon = setup.wrapper(&wrapper).start();
    let seen = format!("/proc/{}/root{}", daemon.pid(), disk.display());
    (daemon, PathBuf::from(seen))
}

/// A megabyte.
pub const SMALL_DISK: &str = "mount -t tmpfs -o size=1m none";

/// The files in `folder` whose names begin with `start`, in the order of their names.
pub fn files_in(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let begins = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().starts_with(start);
    let mut files: Vec<_> = entries.filter(begins).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The disk of the daemons of one folder.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// One without faults so far; `None` without a C compiler.
    pub fn new(folder: &Folder) -> Option<Self> {
        let folder = folder.join("faults");
        fs::create_dir(&folder).unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/faults/disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", source, "-o"]);
        let made = compiler.arg(folder.join("disk.so")).status().ok()?;
        assert!(made.success(), "{compiler:?}");
        Some(Disk { folder })
    }

    /// A daemon with this disk.
    pub fn of(&self, setup: Setup) -> Setup {
        let library = self.folder.join("disk.so");
        let setup = setup.variable("LD_PRELOAD", library.to_str().unwrap());
        setup.variable("UDSD_FAULTS", self.folder.to_str().unwrap())
    }

    /// From now on it does so: `sync-fails`, `sync-waits` or `write-waits`.
    pub fn begin(&self, fault: &str) {
        self.begin_with(fault, "");
    }

    /// As `begin`, in this way: `write-fails` with the number of an error.
    pub fn begin_with(&self, fault: &str, how: &str) {
        // At once, with all that it says.
        let begun = self.folder.join("begun");
        fs::write(&begun, how).unwrap();
        fs::rename(begun, self.folder.join(fault)).unwrap();
    }

    /// It no longer does.
    pub fn end(&self, fault: &str) {
        fs::remove_file(self.folder.join(fault)).unwrap();
    }

    /// How often it has refused something.
    pub fn refusals(&self) -> usize {
        self.ledger().matches("refused").count()
    }

    fn ledger(&self) -> String {
        fs::read_to_string(self.folder.join("ledger")).unwrap_or_default()
    }

    /// The files below `folder` whose names begin with `start` are as they were synced last, with the names that their
    /// folder had when that was.
    pub fn lose_power(&self, folder: &Path, start: &str) {
        let (mut sizes, mut names, mut coming) = (HashMap::new(), HashMap::new(), HashMap::new());
        for line in self.ledger().lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["file", inode, size] => {
                    sizes.insert(inode.to_owned(), size.parse::<u64>().unwrap());
                }
                ["names"] => coming.clear(),
                ["name", inode, name] if name.starts_with(start) => {
                    coming.insert(inode.to_owned(), name.to_owned());
                }
                // The daemon may have been killed before.
                ["folder"] => names.clone_from(&coming),
                _ => {}
            }
        }
        let mut kept = Vec::new();
        for path in files_in(folder, start) {
            let inode = path.metadata().unwrap().ino().to_string();
            let Some(name) = names.get(&inode) else {
                fs::remove_file(path).unwrap();
                continue;
            };
            let size = sizes.get(&inode).copied().unwrap_or(0);
            let file = fs::File::options().write(true).open(&path).unwrap();
            // An earlier file may have had the number, and more bytes.
            let size = size.min(file.metadata().unwrap().len());
            file.set_len(size).unwrap();
            let aside = folder.join(format!("aside.{name}"));
            fs::rename(path, &aside).unwrap();
            kept.push((aside, folder.join(name)));
        }
        for (aside, path) in kept {
            fs::rename(aside, path).unwrap();
        }
    }
}
