//! Limits of the kernel that udsd cannot raise and an administrator can (`sysctl(8)`). Of the network
//! namespace that this process is in; `None` where /proc is hidden, as it is from the hardened service.

use std::fs;

/// How many connections may wait at one socket, whatever `backlog` says.
#[must_use]
pub fn somaxconn() -> Option<u32> {
    read("net/core/somaxconn")
}

/// How many datagrams may wait at one socket that is made now.
#[must_use]
pub fn max_dgram_qlen() -> Option<u32> {
    read("net/unix/max_dgram_qlen")
}

fn read(name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}
