//! Promise: memory follows what waits. A queue that empties gives its memory back while its client is
//! still there, and what is charged is what is held.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::Read,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, HANG, round_trip, write_until_full};

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
    const CLIENTS: usize = 700;
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
    assert!(each <= 256, "{each} bytes resident for each idle client");
}
