//! Promise: the sockets that udsd binds have their owner and mode from the first moment, never stand
//! in a live server's place, never cost a file that is no dead socket, and are gone with the daemon.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use harness::{Daemon, Folder, HANG, Setup, connect, has_program, round_trip};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket, socket_with,
    },
    process::{Pid, PidfdFlags, Signal, geteuid, kill_process, pidfd_open},
};

/// The lock file of a socket.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn inode(path: &Path) -> (u64, u64) {
    let there = fs::symlink_metadata(path).unwrap();
    (there.dev(), there.ino())
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A second daemon for the path, in a folder of its own: how it ends.
fn rival(path: &Path) -> (Option<i32>, String) {
    Setup::new()
        .arguments(&["--socket", path.to_str().unwrap()])
        .fail()
}

/// The daemon is refused `path` with these words, and leaves what is there and nothing else.
#[track_caller]
fn assert_refused(path: &Path, words: &[&str]) {
    let before = is_there(path).then(|| inode(path));
    let (code, log) = rival(path);
    assert_eq!(code, Some(1), "{log}");
    for word in words.iter().chain(&[path.to_str().unwrap()]) {
        assert!(log.contains(word), "\"{word}\" is not in: {log}");
    }
    assert_eq!(
        is_there(path).then(|| inode(path)),
        before,
        "touched: {log}"
    );
    assert!(!is_there(&lock_of(path)), "a lock file is left");
}

/// Through a shell that sets its umask first.
fn umask(umask: &str) -> Setup {
    Setup::new().wrapper(&["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"])
}

/// What a client sees of a socket's file while the daemon starts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sight {
    Refused,
    Served,
    File { mode: u32, uid: u32, gid: u32 },
}

#[test]
fn at_no_moment_does_a_file_permit_more_than_the_config_file() {
    let own = geteuid().as_raw();
    // Only root may give files away.
    let (uid, gid) = if own == 0 {
        (4321, 8765)
    } else {
        (own, rustix::process::getegid().as_raw())
    };
    for mask in ["000", "022", "077", "777"] {
        let setup = umask(mask).config(&format!(
            "[socket.s]\npath = \"{{dir}}/s\"\nmode = \"0620\"\nuser = \"{uid}\"\ngroup = \"{gid}\"\n"
        ));
        let path = setup.folder().join("s");
        let done = AtomicBool::new(false);
        let (daemon, sights) = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut sights = BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    let served = match UnixStream::connect(&path) {
                        Ok(_) => Some(Sight::Served),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                            Some(Sight::Refused)
                        }
                        Err(error) => panic!("{error}"),
                    };
                    if let Ok(there) = fs::symlink_metadata(&path) {
                        let file = Sight::File {
                            mode: there.mode() & 0o7777,
                            uid: there.uid(),
                            gid: there.gid(),
                        };
                        if served == Some(Sight::Served) {
                            let mode = 0o620;
                            assert_eq!(file, Sight::File { mode, uid, gid }, "served too early");
                        }
                        sights.insert(file);
                    }
                    sights.extend(served);
                }
                sights
            });
            let daemon = setup.start();
            done.store(true, Ordering::Relaxed);
            (daemon, watcher.join().unwrap())
        });
        let there = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (there.mode() & 0o7777, there.uid(), there.gid()),
            (0o620, uid, gid),
            "under umask {mask}"
        );
        for sight in sights {
            if let Sight::File { mode, .. } = sight {
                assert_eq!(mode & !0o620, 0, "mode {mode:04o} under umask {mask}");
            }
        }
        drop(daemon);
    }
}

/// The lock file of a daemon that was started under this umask.
fn check_lock(mask: &str) {
    let mut daemon = umask(mask).ad_hoc(&[]).start();
    let (path, lock) = (daemon.path("socket"), daemon.path("socket.lock"));
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o660);
    let pid = daemon.pid().as_raw_nonzero();
    assert_eq!(fs::read_to_string(&lock).unwrap(), format!("{pid}\n"));
    let mode = fs::symlink_metadata(&lock).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o600, "{mode:04o} under umask {mask}");
    assert!(daemon.stop().success());
    assert!(!is_there(&path) && !is_there(&lock), "files are left");
}

#[test]
fn the_lock_file_is_private_and_holds_the_pid() {
    check_lock("000");
    check_lock("022");
}

#[test]
fn a_umask_that_takes_everything_leaves_the_lock_file_to_its_owner() {
    // Else the next daemon of a user who is not root could not open what a killed one left.
    check_lock("777");
}

#[test]
fn a_dead_socket_is_replaced_at_once() {
    let mut daemon = Daemon::ad_hoc(&[]);
    let path = daemon.path("socket");
    let folder = daemon.folder().clone();
    let client = connect(&path);
    round_trip(&client, b"first");
    daemon.kill();
    drop(daemon);
    assert!(is_there(&path) && is_there(&lock_of(&path)));
    let mut daemon = Setup::within(folder).ad_hoc(&[]).start();
    assert_eq!(harness::read_all(&client), b"");
    round_trip(&daemon.connect("socket"), b"again");
    assert!(daemon.stop().success());
    assert!(!is_there(&path) && !is_there(&lock_of(&path)));
}

#[test]
fn a_socket_that_lost_its_owner_and_its_lock_is_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.join("socket")).unwrap());
    let daemon = Setup::within(folder).ad_hoc(&[]).start();
    round_trip(&daemon.connect("socket"), b"hello");
}

#[test]
fn another_daemon_is_named_with_its_pid() {
    let daemon = Daemon::ad_hoc(&[]);
    let path = daemon.path("socket");
    let (code, log) = rival(&path);
    assert_eq!(code, Some(1), "{log}");
    let pid = daemon.pid().as_raw_nonzero();
    assert!(log.contains(&format!("in use by pid {pid};")), "{log}");
    assert!(log.contains(path.to_str().unwrap()), "{log}");
    round_trip(&daemon.connect("socket"), b"still here");
    assert!(is_there(&lock_of(&path)));
}

/// A Unix socket of any type at `path`; one that connects listens.
fn foreign(kind: SocketType, path: &Path, backlog: i32) -> OwnedFd {
    let fd = socket(AddressFamily::UNIX, kind, None).unwrap();
    bind(&fd, &SocketAddrUnix::new(path).unwrap()).unwrap();
    if kind != SocketType::DGRAM {
        listen(&fd, backlog).unwrap();
    }
    fd
}

#[test]
fn a_foreign_server_is_refused_with_its_pid() {
    let folder = Folder::new();
    for (name, kind) in [
        ("stream", SocketType::STREAM),
        ("seqpacket", SocketType::SEQPACKET),
    ] {
        let path = folder.join(name);
        let _server = foreign(kind, &path, 8);
        assert_refused(&path, &[&format!("in use by pid {};", process::id())]);
    }
    // Of a datagram socket the kernel does not tell whose it is, nor of one that is bound and does not listen.
    let path = folder.join("datagram");
    let _server = foreign(SocketType::DGRAM, &path, 0);
    assert_refused(&path, &["in use by another process (`ss -xap` names it)"]);
    let path = folder.join("bound");
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_refused(&path, &["in use by another process (`ss -xap` names it)"]);
}

#[test]
fn a_foreign_server_too_busy_to_answer_is_alive() {
    let folder = Folder::new();
    let path = folder.join("busy");
    let _server = foreign(SocketType::STREAM, &path, 0);
    let address = SocketAddrUnix::new(&path).unwrap();
    let mut waiting = Vec::new();
    loop {
        let flags = SocketFlags::NONBLOCK;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match rustix::net::connect(&client, &address) {
            Ok(()) => waiting.push(client),
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                break;
            }
        }
    }
    assert_refused(&path, &["in use by another process"]);
}

#[test]
fn whatever_is_no_socket_is_refused_and_left_untouched() {
    let folder = Folder::new();
    let words = ["no socket", "left untouched"];

    let file = folder.join("file");
    fs::write(&file, "precious").unwrap();
    assert_refused(&file, &words);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let sub = folder.join("folder");
    fs::create_dir(&sub).unwrap();
    assert_refused(&sub, &words);

    let fifo = folder.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_refused(&fifo, &words);

    let dangling = folder.join("dangling");
    symlink(folder.join("nowhere"), &dangling).unwrap();
    assert_refused(&dangling, &words);
    assert!(!is_there(&folder.join("nowhere")));

    // Even where it leads to a dead socket.
    let dead = folder.join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let link = folder.join("link");
    symlink(&dead, &link).unwrap();
    assert_refused(&link, &words);
    assert!(fs::symlink_metadata(&dead).unwrap().file_type().is_socket());
}

#[test]
fn a_symlink_is_no_lock_file() {
    let folder = Folder::new();
    let target = folder.join("target");
    fs::write(&target, "precious").unwrap();
    let path = folder.join("socket");
    symlink(&target, lock_of(&path)).unwrap();
    let (code, log) = rival(&path);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(lock_of(&path).to_str().unwrap()), "{log}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(is_there(&lock_of(&path)) && !is_there(&path));
}

/// What a file is, for a comparison: kind and mode, links, inode, what it holds.
fn sight(path: &Path) -> (u32, u64, (u64, u64), Option<Vec<u8>>) {
    let there = fs::symlink_metadata(path).unwrap();
    let content = there.is_file().then(|| fs::read(path).unwrap());
    (there.mode(), there.nlink(), inode(path), content)
}

#[test]
fn a_foreign_file_in_the_lock_files_place_is_refused_and_left_untouched() {
    type Make = fn(&Path);
    let makes: [(&str, Make); 8] = [
        ("text", |lock| fs::write(lock, "precious\n").unwrap()),
        ("binary", |lock| fs::write(lock, b"\0\xff12\n").unwrap()),
        ("digits", |lock| fs::write(lock, "1".repeat(33)).unwrap()),
        ("FIFO", |lock| {
            mknodat(CWD, lock, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        }),
        ("folder", |lock| fs::create_dir(lock).unwrap()),
        ("hard link", |lock| {
            let other = lock.with_extension("other");
            fs::write(&other, "123\n").unwrap();
            fs::hard_link(&other, lock).unwrap();
        }),
        ("link", |lock| symlink("nowhere", lock).unwrap()),
        ("socket", |lock| drop(UnixListener::bind(lock).unwrap())),
    ];
    for (what, make) in makes {
        // Beside nothing, and beside a file for which the start is refused anyway.
        for occupied in [false, true] {
            let folder = Folder::new();
            let path = folder.join("socket");
            if occupied {
                fs::write(&path, "precious too").unwrap();
            }
            let lock = lock_of(&path);
            make(&lock);
            if !lock.is_symlink() {
                set_mode(&lock, 0o644);
            }
            let before = sight(&lock);
            let (code, log) = rival(&path);
            assert_eq!(code, Some(1), "{what}: {log}");
            let words = format!(
                "{} is no lock file of udsd and was left untouched: move it away, or choose another path",
                lock.display()
            );
            assert!(log.contains(&words), "{what}: {log}");
            assert_eq!(sight(&lock), before, "{what}: {log}");
            if occupied {
                assert_eq!(fs::read(&path).unwrap(), b"precious too", "{what}");
            }
            assert!(!folder.join("nowhere").exists());
        }
    }
}

#[test]
fn a_fifo_in_the_lock_files_place_is_not_even_opened() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let fifo = lock_of(&path);
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    // Whoever opens the other end as a writer would let this reader hear of it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = rustix::fs::open(&fifo, flags, Mode::empty()).unwrap();
    let (code, log) = rival(&path);
    assert_eq!(code, Some(1), "{log}");
    let mut ends = [PollFd::new(&reader, PollFlags::IN)];
    poll(&mut ends, Some(&Timespec::default())).unwrap();
    assert!(ends[0].revents().is_empty(), "a writer came and went");
}

#[test]
fn a_lock_file_that_cannot_be_written_is_not_left_behind() {
    if !has_program("prlimit") {
        return;
    }
    let folder = Folder::new();
    let path = folder.join("socket");
    let mut daemon = Setup::new()
        .wrapper(&["prlimit", "--fsize=0", "--"])
        .arguments(&["--socket", path.to_str().unwrap()])
        .start();
    // Whose it is stays unsaid; it is held all the same.
    daemon.wait_log(&["WARN", "lock file", "File too large"]);
    let (code, log) = rival(&path);
    assert!(code == Some(1) && log.contains("in use by"), "{log}");
    assert!(daemon.stop().success());
    assert!(!is_there(&path) && !is_there(&lock_of(&path)));
}

#[test]
fn a_lock_file_that_a_killed_daemon_left_serves_again() {
    for content in ["", "1234567\n"] {
        let folder = Folder::new();
        let lock = lock_of(&folder.join("socket"));
        fs::write(&lock, content).unwrap();
        let mut daemon = Setup::within(folder).ad_hoc(&[]).start();
        let pid = daemon.pid().as_raw_nonzero();
        assert_eq!(fs::read_to_string(&lock).unwrap(), format!("{pid}\n"));
        assert!(daemon.stop().success());
        assert!(!is_there(&lock));
    }
}

#[test]
fn a_file_that_took_the_sockets_place_is_not_removed_on_exit() {
    let mut daemon = Daemon::ad_hoc(&[]);
    let path = daemon.path("socket");
    fs::remove_file(&path).unwrap();
    let usurper = UnixListener::bind(&path).unwrap();
    let there = inode(&path);
    assert!(daemon.stop().success());
    assert_eq!(inode(&path), there);
    let _client = UnixStream::connect(&path).unwrap();
    usurper.accept().unwrap();
    assert!(!is_there(&lock_of(&path)));
}

/// A daemon started without waiting for it, as a race needs it. Killed when dropped.
struct Racer(Child);

impl Racer {
    fn start(path: &Path, notify: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udsd"));
        command
            .arg("--socket")
            .arg(path)
            .env("NOTIFY_SOCKET", notify)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        Racer(command.spawn().unwrap())
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn of_two_daemons_for_one_path_exactly_one_wins() {
    let folder = Folder::new();
    let (path, notify) = (folder.join("socket"), folder.join("notify"));
    let notes = UnixDatagram::bind(&notify).unwrap();
    notes.set_read_timeout(Some(HANG)).unwrap();
    for round in 0..20 {
        // Every other time there is a dead socket to be replaced.
        if round % 2 == 1 {
            drop(UnixListener::bind(&path).unwrap());
        }
        let mut racers = [Racer::start(&path, &notify), Racer::start(&path, &notify)];
        let pidfds = racers
            .each_ref()
            .map(|racer| pidfd_open(Pid::from_child(&racer.0), PidfdFlags::empty()).unwrap());
        let mut ends = pidfds
            .each_ref()
            .map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
        let timeout = Timespec::try_from(HANG).unwrap();
        let ended = poll(&mut ends, Some(&timeout)).unwrap();
        assert_ne!(ended, 0, "both serve one path");
        let loser = usize::from(ends[0].revents().is_empty());
        assert_eq!(racers[loser].0.wait().unwrap().code(), Some(1));
        let log = racers[loser].log();
        assert!(log.contains("in use by"), "{log}");

        let mut note = [0; 256];
        let n = notes.recv(&mut note).unwrap();
        assert!(note[..n].starts_with(b"READY=1"), "nobody won");
        let winner = &mut racers[1 - loser];
        round_trip(&connect(&path), b"hello");
        assert_eq!(
            fs::read_to_string(lock_of(&path)).unwrap(),
            format!("{}\n", winner.0.id())
        );
        kill_process(Pid::from_child(&winner.0), Signal::TERM).unwrap();
        assert!(winner.0.wait().unwrap().success());
        assert!(!is_there(&path) && !is_there(&lock_of(&path)));
        // What the winner said of its end.
        notes.set_nonblocking(true).unwrap();
        while let Ok(n) = notes.recv(&mut note) {
            assert!(!note[..n].starts_with(b"READY=1"), "both were ready");
        }
        notes.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new();
    let path = folder.join("missing/socket");
    assert_refused(&path, &["create the folder first"]);
    assert!(!is_there(&folder.join("missing")));
}

#[test]
fn an_unknown_user_or_group_is_a_fault_of_its_line() {
    for key in ["user", "group"] {
        let setup = Setup::new().config(&format!(
            "# one line before\n[socket.s]\npath = \"{{dir}}/s\"\n{key} = \"no-such-name-here\"\n"
        ));
        let folder = setup.folder().clone();
        let file = folder.join("udsd.toml");
        let (code, log) = setup.fail();
        assert_eq!(code, Some(78), "{log}");
        let fault = format!("{}:4: socket.s.{key}: there is no {key}", file.display());
        assert!(log.contains(&fault), "{log}");
        assert!(log.contains("\"no-such-name-here\""), "{log}");
        assert!(!is_there(&folder.join("s")) && !is_there(&folder.join("s.lock")));
    }
}

#[test]
fn names_of_users_and_groups_are_looked_up() {
    if !geteuid().is_root() {
        return;
    }
    let daemon =
        Daemon::start("[socket.s]\npath = \"{dir}/s\"\nuser = \"root\"\ngroup = \"root\"\n");
    let there = fs::symlink_metadata(daemon.path("s")).unwrap();
    assert_eq!((there.uid(), there.gid()), (0, 0));
}

#[test]
fn an_abstract_name_is_served_and_warned_of() {
    let setup = Setup::new();
    let name = setup
        .folder()
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let at = format!("@{name}");
    let daemon = setup.arguments(&["--socket", &at]).start();
    daemon.wait_log(&["WARN", &at, "anyone on this machine may enter"]);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let client = UnixStream::connect_addr(&address).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    round_trip(&client, b"hello");
    let (code, log) = Setup::new().arguments(&["--socket", &at]).fail();
    assert_eq!(code, Some(1), "{log}");
    let pid = daemon.pid().as_raw_nonzero();
    assert!(log.contains(&format!("in use by pid {pid};")), "{log}");
    let left: Vec<_> = fs::read_dir(daemon.folder().path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("notify"))
        .collect();
    assert!(left.is_empty(), "an abstract socket has no files: {left:?}");
}

#[test]
fn a_path_may_have_107_bytes_and_no_more() {
    let folder = Folder::new();
    let base = folder.path().as_os_str().len() + 1;
    let longest = folder.join(&"x".repeat(107 - base));
    let daemon = Setup::new()
        .arguments(&["--socket", longest.to_str().unwrap()])
        .start();
    round_trip(&connect(&longest), b"hello");
    drop(daemon);
    let longer = folder.join(&"x".repeat(108 - base));
    let (code, log) = rival(&longer);
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("108") && log.contains("107"), "{log}");
    let in_file = Setup::new().config(&format!(
        "[socket.s]\npath = \"{}\"\n",
        longer.to_str().unwrap()
    ));
    let file = in_file.folder().join("udsd.toml");
    let (code, log) = in_file.fail();
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains(&format!("{}:2: socket.s.path: ", file.display())),
        "{log}"
    );
    assert!(!is_there(&longer));
}

/// As a user who is not root, if this is root.
fn ordinary(setup: Setup) -> Setup {
    if geteuid().is_root() {
        setup.wrapper(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
        ])
    } else {
        setup
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_the_user_may_not_write_to_is_named_with_the_remedy() {
    if !has_program("setpriv") {
        return;
    }
    let folder = Folder::new();
    let path = folder.join("socket");
    set_mode(folder.path(), 0o555);
    let (code, log) = ordinary(Setup::new())
        .arguments(&["--socket", path.to_str().unwrap()])
        .fail();
    set_mode(folder.path(), 0o755);
    assert_eq!(code, Some(1), "{log}");
    for word in [
        path.to_str().unwrap(),
        "Permission denied",
        "a folder that this user may write to",
    ] {
        assert!(log.contains(word), "\"{word}\" is not in: {log}");
    }
}

/// The one folder that the service may write to is the one where units may not have sockets.
#[test]
fn a_service_is_not_sent_to_a_folder_where_it_cannot_have_sockets() {
    if !has_program("setpriv") {
        return;
    }
    let folder = Folder::new();
    let path = folder.join("socket");
    set_mode(folder.path(), 0o555);
    let (code, log) = ordinary(Setup::new())
        .variable("RUNTIME_DIRECTORY", "/run/udsd")
        .arguments(&["--socket", path.to_str().unwrap()])
        .fail();
    set_mode(folder.path(), 0o755);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("its socket units do: make them follow the file"),
        "{log}"
    );
    assert!(!log.contains("choose a path"), "{log}");
}

#[test]
fn a_socket_that_cannot_be_given_away_leaves_no_file() {
    if !has_program("setpriv") {
        return;
    }
    let folder = Folder::new();
    set_mode(folder.path(), 0o1777);
    let other = geteuid().as_raw() + 1;
    let config = format!(
        "[socket.s]\npath = \"{}\"\nuser = \"{other}\"\n",
        folder.join("s").display()
    );
    let (code, log) = ordinary(Setup::new()).config(&config).fail();
    assert_eq!(code, Some(1), "{log}");
    let refused = format!("cannot give it to user \"{other}\"");
    assert!(log.contains(&refused), "{log}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "files are left"
    );
}

#[test]
fn a_start_that_fails_at_one_socket_leaves_no_other() {
    let setup = Setup::new()
        .config("[socket.a]\npath = \"{dir}/a\"\n[socket.b]\npath = \"{dir}/missing/b\"\n");
    let folder = setup.folder().clone();
    let (code, log) = setup.fail();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("socket b ("), "{log}");
    assert!(!is_there(&folder.join("a")) && !is_there(&folder.join("a.lock")));
}
