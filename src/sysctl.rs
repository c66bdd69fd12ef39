//! What the kernel's settings leave of a socket, whatever the file says. They can only be read where /proc
//! is not hidden, as it is from the hardened service.

use std::fs;

use crate::config::{Socket, SocketType};

/// As many datagrams as may wait at a socket where systemd has set up the machine.
const DATAGRAMS: u32 = 512;

/// What is too small for these sockets.
#[must_use]
pub fn warnings<'a>(sockets: impl Iterator<Item = &'a Socket>) -> Vec<String> {
    let (datagrams, connected): (Vec<&Socket>, Vec<&Socket>) =
        sockets.partition(|socket| socket.kind == SocketType::Datagram);
    let backlog = connected.into_iter().max_by_key(|socket| socket.backlog);
    let mut found = Vec::new();
    if let Some(length) = number("net.unix.max_dgram_qlen")
        && !datagrams.is_empty()
        && length < DATAGRAMS
    {
        found.push(format!(
            "net.unix.max_dgram_qlen = {length}: no more datagrams than that wait in the kernel, and senders that do not wait lose those of a burst; sysctl -w net.unix.max_dgram_qlen={DATAGRAMS} before the sockets are made"
        ));
    }
    if let (Some(most), Some(socket)) = (most_backlog(), backlog)
        && most < socket.backlog
    {
        found.push(format!(
            "net.core.somaxconn = {most}: no more clients than that wait to be accepted, and those of a burst are refused, whatever socket.{}.backlog = {} says; sysctl -w net.core.somaxconn={1} before the sockets are made",
            socket.name, socket.backlog
        ));
    }
    found
}

/// What the kernel leaves of any backlog.
#[must_use]
pub fn most_backlog() -> Option<u32> {
    number("net.core.somaxconn")
}

fn number(name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    text.trim().parse().ok()
}
