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

/// The number that the kernel gives for whoever has none here, as from a foreign user namespace
/// (`user_namespaces(7)`): it says nothing of who that is.
pub const NOBODY: u32 = 65534;

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

impl Peer {
    /// The kernel names nobody: what was sent before SO_PASSCRED was set.
    pub const NONE: Peer = Peer {
        pid: 0,
        uid: NOBODY,
        gid: NOBODY,
    };

    /// Its process, where that is visible from here.
    #[must_use]
    pub fn process(&self) -> Option<i32> {
        (self.pid != 0).then_some(self.pid)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer { uid, gid, .. } = self;
        match self.process() {
            Some(pid) => write!(f, "pid {pid}, uid {uid}, gid {gid}"),
            None => write!(f, "pid in another namespace, uid {uid}, gid {gid}"),
        }
    }
}
