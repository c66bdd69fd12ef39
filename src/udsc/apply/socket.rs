//! Compares a socket with what its unit says now. Looks at the socket itself: systemd may have read the unit anew since
//! it made the socket.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use super::kernel::{self, Bound};
use crate::{
    config::{Address, Socket, SocketType},
    sys,
    udsc::{failure::Failure, systemctl::Properties},
};

/// Finds the number of a name.
type LookUp = fn(&str) -> io::Result<Option<u32>>;

/// A socket of the file.
#[derive(Debug)]
pub(super) struct Wanted {
    /// With the address as its unit has it.
    pub(super) socket: Socket,
    pub(super) unit: String,
}

/// All that can be found out about the sockets that are there.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) bound: Vec<Bound>,
    /// Inodes of the sockets that the manager has open; `None` where that cannot be seen.
    pub(super) held: Option<BTreeSet<u32>>,
    /// What net.core.somaxconn leaves of a backlog.
    pub(super) most_backlog: u32,
    /// Whether the manager is the system's, and so root.
    pub(super) is_of_system: bool,
}

impl Wanted {
    /// How the socket that is there differs; empty where it does not. Type and address are the file's word, the
    /// rest is its unit's, of which the properties are `given`: an administrator may have changed that.
    pub(super) fn differences(
        &self,
        present: &Present,
        given: &Properties,
    ) -> Result<Vec<String>, Failure> {
        let mut file = None;
        if let Address::Path(path) = &self.socket.address {
            match fs::symlink_metadata(path) {
                Ok(found) if found.file_type().is_socket() => file = Some(found),
                Ok(_) => return Ok(vec!["no socket there".into()]),
                Err(_) => return Ok(vec!["nothing there".into()]),
            }
        }
        let mut at = present
            .bound
            .iter()
            .filter(|bound| bound.is_at(&self.socket.address, file.as_ref()));
        let ours = |bound: &&Bound| bound.kind == Some(self.socket.kind);
        let Some(bound) = at.clone().find(ours) else {
            return Ok(vec![match at.find_map(|bound| bound.kind) {
                Some(other) => format!("type {other}"),
                None => "nobody listening".into(),
            }]);
        };
        let mut found = Vec::new();
        if self.socket.kind != SocketType::Datagram
            && let Ok(backlog) = given.get("Backlog").parse::<u32>()
            && ![backlog, backlog.min(present.most_backlog)].contains(&bound.backlog)
        {
            found.push(format!("backlog {}", bound.backlog));
        }
        let send_buffer = given.get("SendBuffer").parse().unwrap_or(0);
        let send_buffer = kernel::granted_send_buffer(send_buffer)
            .map_err(|error| Failure::System("SO_SNDBUF", error))?;
        if (bound.send_buffer as usize) < send_buffer {
            found.push(format!("send buffer {}", bound.send_buffer));
        }
        if present
            .held
            .as_ref()
            .is_some_and(|held| !held.contains(&bound.inode))
        {
            found.push("not in systemd's hands".into());
        }
        if let Some(file) = file {
            let mode = file.mode() & 0o7777;
            if u32::from_str_radix(given.get("SocketMode"), 8).is_ok_and(|wanted| wanted != mode) {
                found.push(format!("mode {mode:04o}"));
            }
            // Without a user, the owner is the manager itself: root, or whoever the user is. A user without a group
            // brings that user's own.
            let by_manager = given.get("SocketUser").is_empty() && present.is_of_system;
            let owner = |key: &str, look_up: LookUp| match given.get(key) {
                "" => by_manager.then_some(0),
                name => look_up(name).ok()?,
            };
            let user = owner("SocketUser", sys::user_id);
            let group = owner("SocketGroup", sys::group_id);
            for (what, wanted, there) in [("user", user, file.uid()), ("group", group, file.gid())]
            {
                if wanted.is_some_and(|wanted| wanted != there) {
                    found.push(format!("{what} {there}"));
                }
            }
        }
        Ok(found)
    }
}
