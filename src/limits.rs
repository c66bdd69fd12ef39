//! Who may still come in: clients counted for the daemon, for each user and for each socket.

use std::collections::HashMap;

/// The number that stood in the way of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// The key that sets the limit.
    pub key: OverKey,
    /// The limit, in clients.
    pub limit: usize,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverKey {
    /// `limits.clients`
    Daemon,
    /// `limits.clients-per-user`
    User,
    /// `socket.NAME.clients`
    Socket,
    /// The limit of open files (RLIMIT_NOFILE).
    Files,
}

/// Counts of clients against their limits.
#[derive(Debug)]
pub struct Limits {
    clients: usize,
    clients_per_user: usize,
    present: usize,
    by_user: HashMap<u32, usize>,
}

impl Limits {
    /// Both limits in clients, 1 or more.
    #[must_use]
    pub fn new(clients: usize, clients_per_user: usize) -> Self {
        Limits {
            clients,
            clients_per_user,
            present: 0,
            by_user: HashMap::new(),
        }
    }

    /// Counts a newcomer of user `uid` on a socket that has `on_socket` clients and allows
    /// `socket_limit` (0: any number).
    ///
    /// # Errors
    /// The limit that it would exceed; nothing is then counted.
    pub fn enter(&mut self, uid: u32, on_socket: usize, socket_limit: usize) -> Result<(), Over> {
        if self.present >= self.clients {
            return Err(Over {
                key: OverKey::Daemon,
                limit: self.clients,
            });
        }
        if socket_limit > 0 && on_socket >= socket_limit {
            return Err(Over {
                key: OverKey::Socket,
                limit: socket_limit,
            });
        }
        let mine = self.by_user.entry(uid).or_default();
        if *mine >= self.clients_per_user {
            return Err(Over {
                key: OverKey::User,
                limit: self.clients_per_user,
            });
        }
        *mine += 1;
        self.present += 1;
        Ok(())
    }

    /// Takes back what `enter` counted.
    pub fn leave(&mut self, uid: u32) {
        self.present -= 1;
        if let Some(mine) = self.by_user.get_mut(&uid) {
            *mine -= 1;
            if *mine == 0 {
                self.by_user.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_names_itself_and_counts_nothing_when_it_refuses() {
        let mut limits = Limits::new(4, 2);
        assert_eq!(limits.enter(7, 0, 1), Ok(()));
        let over = |key, limit| Err(Over { key, limit });
        assert_eq!(limits.enter(7, 1, 1), over(OverKey::Socket, 1));
        assert_eq!(limits.enter(7, 1, 0), Ok(()));
        assert_eq!(limits.enter(7, 2, 0), over(OverKey::User, 2));
        assert_eq!(limits.enter(8, 2, 0), Ok(()));
        assert_eq!(limits.enter(9, 3, 0), Ok(()));
        assert_eq!(limits.enter(10, 4, 0), over(OverKey::Daemon, 4));
        assert_eq!(limits.present, 4);
        limits.leave(7);
        assert_eq!(limits.enter(7, 3, 0), Ok(()));
        for uid in [7, 7, 8, 9] {
            limits.leave(uid);
        }
        assert_eq!((limits.present, limits.by_user.len()), (0, 0));
    }
}
