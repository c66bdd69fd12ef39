//! Who a client is: its number in this daemon and the sender that the kernel vouches for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A client's number: counts up from 1 over the life of the daemon and is never used twice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The credentials of a client as the kernel reports them (`unix(7)`). Of a connection (SO_PEERCRED):
/// those of the process that connected, at the time it did, with its effective ids. Of a datagram
/// (SCM_CREDENTIALS): those of the process that sent it, with its real ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Process id in the daemon's pid namespace; 0 where the process is not visible from it.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, uid {}, gid {}", self.pid, self.uid, self.gid)
    }
}
