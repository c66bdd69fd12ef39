//! Compares a socket of the file with the one that is there. Compares the socket itself, not the text of its
//! unit: systemd may have read that anew since the socket was made.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use super::kernel::Bound;
use crate::config::{Address, Socket, SocketType};

/// What the file, and the unit made of it, say.
#[derive(Debug)]
pub(super) struct Wanted {
    /// With the address as the unit has it.
    pub(super) socket: Socket,
    pub(super) unit: String,
    rights: Rights,
}

/// What the file of a socket is to be, the owner by numbers; `None` where the unit does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rights {
    pub(super) mode: Option<u32>,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

/// All that can be found out about the sockets that are there.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) bound: Vec<Bound>,
    /// Inodes of the sockets that the manager has open; `None` where that cannot be seen.
    pub(super) held: Option<BTreeSet<u32>>,
    /// What net.core.somaxconn leaves of a backlog.
    pub(super) most_backlog: u32,
}

impl Wanted {
    pub(super) fn of(socket: &Socket, unit: String, rights: Rights) -> Self {
        let address = socket.address.in_unit();
        let socket = Socket {
            address,
            ..socket.clone()
        };
        Self {
            socket,
            unit,
            rights,
        }
    }

    /// How the socket that is there differs; empty where it does not. `send_buffer`: the least that its unit gives
    /// it, in bytes.
    pub(super) fn differences(&self, present: &Present, send_buffer: usize) -> Vec<String> {
        let mut file = None;
        if let Address::Path(path) = &self.socket.address {
            match fs::symlink_metadata(path) {
                Ok(found) if found.file_type().is_socket() => file = Some(found),
                Ok(_) => return vec!["no socket there".into()],
                Err(_) => return vec!["nothing there".into()],
            }
        }
        let mut at = present
            .bound
            .iter()
            .filter(|bound| bound.is_at(&self.socket.address, file.as_ref()));
        let ours = |bound: &&Bound| bound.kind == Some(self.socket.kind);
        let Some(bound) = at.clone().find(ours) else {
            return vec![match at.find_map(|bound| bound.kind) {
                Some(other) => format!("type {other}"),
                None => "nobody listening".into(),
            }];
        };
        let mut found = Vec::new();
        if self.socket.kind != SocketType::Datagram {
            let backlog = self.socket.backlog;
            let wanted = [backlog, backlog.min(present.most_backlog)];
            if !wanted.contains(&bound.backlog) {
                found.push(format!("backlog {}", bound.backlog));
            }
        }
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
            let Rights { mode, user, group } = self.rights;
            let mode_there = file.mode() & 0o7777;
            if mode.is_some_and(|mode| mode != mode_there) {
                found.push(format!("mode {mode_there:04o}"));
            }
            for (what, wanted, there) in [("user", user, file.uid()), ("group", group, file.gid())]
            {
                if wanted.is_some_and(|wanted| wanted != there) {
                    found.push(format!("{what} {there}"));
                }
            }
        }
        found
    }
}
