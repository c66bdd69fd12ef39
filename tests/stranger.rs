//! Promise: whoever owns the folder of a socket can have nothing of others given away by a daemon that
//! has more rights. A swapper exchanges the socket's file with another one all the time.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use harness::{Folder, Setup, has_program, is_root};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    process::Uid,
    thread::set_thread_res_uid,
};

const STRANGER: u32 = 7001;
const STARTS: usize = 100;

/// A folder of a stranger, with a file of root's in it.
fn folder() -> Arc<Folder> {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let theirs = folder.join("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    put_victim(&theirs.join("victim"));
    folder
}

fn put_victim(path: &Path) {
    fs::write(path, "root's").unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// Exchanges both names as the stranger until `done`.
fn swap(folder: &Path, done: &AtomicBool) {
    let uid = Uid::from_raw(STRANGER);
    set_thread_res_uid(uid, uid, uid).unwrap();
    let (socket, victim) = (folder.join("socket"), folder.join("victim"));
    while !done.load(Ordering::Relaxed) {
        // Not before there is a socket.
        let _ = renameat_with(CWD, &socket, CWD, &victim, RenameFlags::EXCHANGE);
    }
}

/// Ends the swapper, whatever becomes of the test.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does so while daemons start, each in a setup of its own. Returns what they logged.
#[track_caller]
fn race(keys: &str, setup: impl Fn(Setup) -> Setup) -> Vec<String> {
    let folder = folder();
    let theirs = folder.join("theirs");
    let (socket, victim) = (theirs.join("socket"), theirs.join("victim"));
    let path = socket.display();
    let config = format!("[socket.s]\npath = \"{path}\"\n{keys}\n");
    let (mut logs, mut owned) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| swap(&theirs, &done));
            let _ends = Ends(&done);
            let daemon = setup(Setup::within(Arc::clone(&folder)).config(&config)).spawn();
            // It serves, or has found out.
            daemon.wait_for("start and no end", |said| {
                let is_ready = said.notes.iter().any(|note| note.contains("READY=1"));
                (is_ready || said.log.contains("ERROR")).then_some(())
            });
            logs.push(daemon.log());
        });
        // For the next: what is no socket is root's file.
        for name in [&socket, &victim] {
            let is_socket = |of: fs::Metadata| of.file_type().is_socket();
            if fs::symlink_metadata(name).is_ok_and(is_socket) {
                fs::remove_file(name).unwrap();
            }
        }
        let _ = fs::rename(&socket, &victim);
        // It may be gone: that is in the power of whose folder it is.
        if let Ok(there) = fs::symlink_metadata(&victim) {
            owned.push((there.uid(), there.mode() & 0o7777));
        }
        let _ = fs::remove_file(&victim);
        put_victim(&victim);
    }
    let untouched = |&found: &(u32, u32)| found == (0, 0o600);
    assert!(owned.iter().all(untouched), "given away: {owned:?}");
    logs
}

#[test]
fn nothing_of_roots_is_given_away() {
    if !is_root() {
        return;
    }
    race(
        &format!("mode = \"0666\"\nuser = \"{STRANGER}\""),
        |setup| setup,
    );
}

#[test]
fn nor_where_root_may_not_ask_for_a_sockets_file() {
    if !is_root() || !has_program("setpriv") {
        return;
    }
    let keys = format!("mode = \"0666\"\nuser = \"{STRANGER}\"");
    let logs = race(&keys, |setup| {
        setup.wrapper(&["setpriv", "--bounding-set=-net_admin"])
    });
    for log in logs {
        let refused = ["others can put something else there", "something else took"];
        assert!(refused.iter().any(|why| log.contains(why)), "{log}");
    }
}

#[test]
fn nor_where_only_the_mode_is_to_be_set() {
    if !is_root() || !has_program("setpriv") {
        return;
    }
    let logs = race("mode = \"0666\"", |setup| {
        setup.wrapper(&["setpriv", "--bounding-set=-net_admin"])
    });
    assert!(logs.iter().any(|log| log.contains("bound, stream")));
}
