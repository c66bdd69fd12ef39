//! The attackers. Each runs in a process of its own until it is killed, or its standard input ends.

use crate::setup::{Outcome, raise_open_files};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// Clients that one attacker has.
const CLIENTS: usize = 500;
/// How long the kernel waits in the last close of a socket whose bytes nobody takes.
const LINGER: Duration = Duration::from_secs(5);

/// Attacks the daemon whose sockets lie in `folder`.
pub(crate) fn attack(name: &str, folder: &Path) -> Outcome<()> {
    raise_open_files()?;
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    let echo = folder.join("echo");
    match name {
        "bytes" => flood(&echo, &b"x\n".repeat(16 * 1024), true),
        "lines" => flood(&echo, &[&[b'x'; 63][..], b"\n"].concat().repeat(512), true),
        "relay" => flood(&folder.join("relay"), &b"x\n".repeat(2048), true),
        "queues" => flood(
            &echo,
            &[&[b'x'; 1023][..], b"\n"].concat().repeat(32),
            false,
        ),
        "connects" => storm(&echo),
        "places" => take_places(&echo),
        "descriptors" => send_descriptors(&echo, &echo),
        "denied-descriptors" => send_descriptors(&folder.join("closed"), &echo),
        "datagrams" => fill_datagrams(&folder.join("datagram")),
        _ => Err(format!("no attack {name}").into()),
    }
}

fn begun() -> Outcome<()> {
    io::stdout().write_all(b".")?;
    Ok(io::stdout().flush()?)
}

fn connect(path: &Path) -> Option<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let address = SocketAddrUnix::new(path).ok()?;
    net::connect(&socket, &address).ok()?;
    Some(socket.into())
}

/// Clients that send `bytes` again and again, as fast as they can, and read what comes back or do not. Who
/// is closed comes back.
fn flood(path: &Path, bytes: &[u8], reads: bool) -> Outcome<()> {
    let mut clients: Vec<Option<UnixStream>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    clients.resize_with(CLIENTS, || connect(path));
    begun()?;
    loop {
        for client in &mut clients {
            if client.is_none() {
                *client = connect(path);
            }
            let Some(stream) = client else { continue };
            if let Err(Errno::PIPE | Errno::CONNRESET) =
                net::send(&*stream, bytes, SendFlags::NOSIGNAL)
            {
                *client = None;
                continue;
            }
            if reads {
                let _ = net::recv(&*stream, &mut buffer[..], RecvFlags::DONTWAIT);
            }
        }
    }
}

/// Connects and leaves, as fast as it can, beside clients that flood.
fn storm(path: &Path) -> Outcome<()> {
    keep_at_work(path);
    begun()?;
    loop {
        drop(connect(path));
    }
}

/// Clients that flood the daemon from a thread of their own: what is sent beside them waits for a while
/// before it is looked at.
fn keep_at_work(echo: &Path) {
    let clients: Vec<_> = (0..100).filter_map(|_| connect(echo)).collect();
    let (bytes, mut buffer) = (b"x\n".repeat(512), vec![0; 64 * 1024]);
    thread::spawn(move || {
        loop {
            for client in &clients {
                let _ = net::send(client, &bytes, SendFlags::NOSIGNAL);
                let _ = net::recv(client, &mut buffer[..], RecvFlags::DONTWAIT);
            }
        }
    });
}

/// Takes every place that there is, and stays.
fn take_places(path: &Path) -> Outcome<()> {
    let mut clients: Vec<UnixStream> = Vec::new();
    let mut is_begun = false;
    loop {
        clients.retain(|client| {
            let mut polled = [PollFd::new(client, PollFlags::RDHUP)];
            let now = Duration::ZERO.try_into().ok();
            poll(&mut polled, now.as_ref()) == Ok(0)
        });
        for _ in 0..100 {
            clients.extend(connect(path));
        }
        if !is_begun && clients.len() >= CLIENTS {
            is_begun = true;
            begun()?;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends descriptors whose last close waits, and closes its own before the daemon sees them.
fn send_descriptors(path: &Path, echo: &Path) -> Outcome<()> {
    keep_at_work(echo);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // The kernel's end of each lives for as long as its close may take.
    let mut unread: VecDeque<(Instant, TcpStream)> = VecDeque::new();
    begun()?;
    loop {
        while unread
            .front()
            .is_some_and(|(since, _)| unread.len() > 200 || since.elapsed() > 2 * LINGER)
        {
            unread.pop_front();
        }
        let stream = TcpStream::connect(address)?;
        let (peer, _) = listener.accept()?;
        unread.push_back((Instant::now(), peer));
        stream.set_nonblocking(true)?;
        while net::send(&stream, &[0; 65536], SendFlags::NOSIGNAL).is_ok() {}
        sockopt::set_socket_linger(&stream, Some(LINGER))?;
        stream.set_nonblocking(false)?;
        if !connect(path).is_some_and(|client| give(&client, &stream)) {
            // The last close is this process' own then, and is not to wait.
            sockopt::set_socket_linger(&stream, None)?;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a line with a descriptor; false where the daemon takes none.
fn give(client: &UnixStream, stream: &TcpStream) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [stream.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let parts = [IoSlice::new(b"x\n")];
    net::sendmsg(client, &parts, &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Receivers, connected to the daemon's socket, that read nothing of what comes back.
fn fill_datagrams(path: &Path) -> Outcome<()> {
    let address = SocketAddrUnix::new(path)?;
    let receivers = (0..CLIENTS)
        .map(|_| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
            net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
            net::connect(&socket, &address)?;
            Ok(socket)
        })
        .collect::<Result<Vec<OwnedFd>, Errno>>()?;
    begun()?;
    loop {
        for receiver in &receivers {
            let _ = net::send(receiver, &[b'x'; 4096], SendFlags::NOSIGNAL);
        }
    }
}
