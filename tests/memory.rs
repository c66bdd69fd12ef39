//! Promise: memory follows what waits. A queue that empties gives its memory back while its client is
//! still there, and what is charged is what is held.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use harness::{Daemon, HANG, Setup, is_root, round_trip, write_until_full};

const CLIENTS: usize = 100;
/// More than `queue-size` and the kernel's buffers hold together.
const FLOOD: usize = 2 << 20;

const CONFIG: &str = "[limits]\nqueue-per-user = \"256MiB\"\n[socket.echo]\npath = \"{dir}/echo\"\nqueue-size = \"1MiB\"\nslow-timeout = \"1h\"\n";

/// Resident bytes over `idle`, once they are no more than `most`, or after all this time.
fn settled(daemon: &Daemon, idle: usize, most: usize) -> usize {
    let deadline = Instant::now() + HANG / 2;
    loop {
        let grown = daemon.memory().saturating_sub(idle);
        if grown <= most || Instant::now() > deadline {
            return grown;
        }
        // Nothing outside tells when a process gives memory back.
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn queues_give_memory_back_as_they_empty() {
    let daemon = Daemon::start(CONFIG);
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect("echo")).collect();
    for client in &clients {
        round_trip(client, b"here");
    }
    let idle = daemon.memory();
    let bytes = vec![b'x'; FLOOD];
    let taken: Vec<usize> = thread::scope(|scope| {
        let filling = clients.iter().map(|client| {
            let bytes = &bytes;
            scope.spawn(move || write_until_full(client, bytes, 1 << 20))
        });
        let filling: Vec<_> = filling.collect();
        filling.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let full = daemon.memory() - idle;
    let queued = CLIENTS << 20;
    assert!(full > queued / 2, "{full} of {queued} bytes are queued");

    // The kernel has the most of what is left.
    for (mut client, taken) in clients.iter().zip(&taken) {
        let mut rest = vec![0; taken.saturating_sub(224 << 10)];
        client.read_exact(&mut rest).unwrap();
    }
    let drained = settled(&daemon, idle, full / 4);
    assert!(
        drained <= full / 4,
        "{drained} bytes resident of {full} when nearly all was read"
    );
    drop(clients);
    let left = settled(&daemon, idle, full / 10);
    assert!(
        left <= full / 10,
        "{left} bytes resident of {full} when all had left"
    );
    round_trip(&daemon.connect("echo"), b"served on");
}

#[test]
fn an_idle_client_owns_no_buffer() {
    const CLIENTS: usize = 400;
    let daemon = Daemon::start(CONFIG);
    // A buffer that was kept for it would show.
    let message = [b'x'; 4096];
    let first = daemon.connect("echo");
    round_trip(&first, &message);
    let before = daemon.memory();
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect("echo")).collect();
    for client in &clients {
        round_trip(client, &message);
    }
    let each = daemon.memory().saturating_sub(before) / CLIENTS;
    // Tables that double may or may not find room in what the start has freed: that alone is 100 bytes of each.
    assert!(each <= 384, "{each} bytes resident for each idle client");
}

/// A cgroup below the one of this process, with so much memory; `None` where none can be made.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: usize) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let (root, file, path) = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next()?, parts.next()?) {
                ("memory", path) => Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path)),
                ("", path) if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => {
                    Some(("/sys/fs/cgroup", "memory.max", path))
                }
                _ => None,
            }
        })?;
        let folder = format!("{root}{path}/udsd-test-{}", process::id());
        let cgroup = fs::create_dir(&folder)
            .ok()
            .map(|()| Cgroup(folder.into()))?;
        fs::write(cgroup.0.join(file), bytes.to_string()).ok()?;
        Some(cgroup)
    }

    /// What starts a program in it.
    fn enter(&self) -> Vec<String> {
        let tasks = self.0.join("cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$0\" \"$@\"", tasks.display());
        vec!["sh".into(), "-c".into(), script]
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

#[test]
fn where_there_is_less_memory_than_the_limits_allow_queues_are_scaled_to_half_of_it() {
    const THERE: usize = 64 << 20;
    if !is_root() {
        return;
    }
    let Some(cgroup) = Cgroup::new(THERE) else {
        return harness::skip("no cgroup with a limit on memory can be made here");
    };
    let enter = cgroup.enter();
    let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
    let keys =
        "[socket.echo]\npath = \"{dir}/echo\"\nqueue-size = \"1MiB\"\nslow-timeout = \"1h\"\n";
    let daemon = Setup::new().wrapper(&enter).config(keys).start();
    for part in [
        "limits.queue-total = 536870912",
        "67108864 bytes",
        "queue-total = 33554432",
        "queue-per-user = 4194304",
    ] {
        daemon.wait_log(&["WARN", part]);
    }
    // By default it would hold what kills it here.
    let bytes = vec![b'x'; FLOOD];
    let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect("echo")).collect();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| write_until_full(client, &bytes, 0));
        }
    });
    drop(clients);
    round_trip(&daemon.connect("echo"), b"served on");
}
