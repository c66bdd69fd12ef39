//! Who may still come in, and how much may still wait: clients counted for the daemon, for each user
//! and for each socket; bytes held for clients counted for each user and for everybody together.
//!
//! No user gets all that there is while others are present. Of the last sixteenth of clients and of bytes one
//! user may have half, and a user who has more than that elsewhere gets none of it.

use std::{collections::HashMap, fmt, mem};

/// The number that stood in the way of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// The key that sets the limit.
    pub key: OverKey,
    /// The limit.
    pub limit: usize,
}

/// Which limit on clients was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverKey {
    /// `limits.clients`
    Daemon,
    /// `limits.clients`, of which only the last sixteenth is left, and this user has its part of that.
    Share {
        /// Clients that the user has.
        own: usize,
        /// Clients that may still come.
        free: usize,
    },
    /// `limits.clients-per-user`
    User,
    /// `socket.NAME.clients`
    Socket,
    /// The limit of open files (RLIMIT_NOFILE).
    Files,
}

/// The limit that stood in the way of holding more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// Whose bytes it limits.
    pub quota: Quota,
    /// The limit, in bytes.
    pub limit: usize,
}

/// Whose bytes are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Those of one user: `limits.queue-per-user`.
    PerUser,
    /// Those of everybody: `limits.queue-total`.
    Total,
}

/// The key with its limit.
impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.quota {
            Quota::PerUser => "limits.queue-per-user",
            Quota::Total => "limits.queue-total",
        };
        write!(f, "{key} = {} bytes", self.limit)
    }
}

/// Clients and the bytes held for them, against their limits.
#[derive(Debug)]
pub struct Limits {
    clients: usize,
    clients_per_user: usize,
    queue_per_user: usize,
    queue_total: usize,
    present: usize,
    held: usize,
    /// Something was released since this was last asked.
    released: bool,
    by_user: HashMap<u32, User>,
}

/// What one user has.
#[derive(Debug, Default)]
struct User {
    clients: usize,
    held: usize,
}

/// The bytes that are held for one of a user's clients, or for a datagram of it: they count for the user
/// until they are settled to be 0.
#[derive(Debug)]
pub struct Charge {
    uid: u32,
    held: usize,
}

/// The user for whom bytes of the control socket's clients are held, whoever they are: those who ask what holds up
/// a user have room beside it. No user has this number (`setresuid(2)`).
pub const CONTROL: u32 = u32::MAX;

impl Charge {
    /// Nothing is held yet for user `uid`.
    #[must_use]
    pub fn new(uid: u32) -> Self {
        Charge { uid, held: 0 }
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// The user for whom they are.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// `held` bytes are held from now on.
    #[inline]
    pub fn settle(&mut self, limits: &mut Limits, held: usize) {
        if held != self.held {
            limits.hold(self.uid, self.held, held);
            self.held = held;
        }
    }
}

/// As the log tells of them.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, per_user) = (self.clients, self.clients_per_user);
        write!(f, "{clients} clients, {per_user} of one user")
    }
}

impl Limits {
    /// Both limits in clients, 1 or more; bytes that wait are not limited.
    #[must_use]
    pub fn new(clients: usize, clients_per_user: usize) -> Self {
        Limits {
            clients,
            clients_per_user,
            queue_per_user: usize::MAX,
            queue_total: usize::MAX,
            present: 0,
            held: 0,
            released: false,
            by_user: HashMap::new(),
        }
    }

    /// Those of the control socket, beside all others: so who asks takes no client's place, nor the other way round.
    #[must_use]
    pub fn of_control() -> Self {
        Limits::new(64, 32)
    }

    /// Limits the bytes that are held, input that waits and output unsent: for all clients of one
    /// user, and for everybody together.
    #[must_use]
    pub fn with_queues(mut self, per_user: usize, total: usize) -> Self {
        self.queue_per_user = per_user;
        self.queue_total = total;
        self
    }

    /// Takes the limits of `other` for its own, and keeps what it has counted.
    pub fn adopt(&mut self, other: &Limits) {
        self.clients = other.clients;
        self.clients_per_user = other.clients_per_user;
        self.queue_per_user = other.queue_per_user;
        self.queue_total = other.queue_total;
        // There may be room now for who found none.
        self.released = true;
    }

    /// As they are in force: clients, and those of one user; bytes held for one user, and for everybody.
    #[must_use]
    pub fn numbers(&self) -> (usize, usize, usize, usize) {
        (
            self.clients,
            self.clients_per_user,
            self.queue_per_user,
            self.queue_total,
        )
    }

    /// Counts a newcomer of user `uid` on a socket that has `on_socket` clients and allows
    /// `socket_limit` (0: any number).
    ///
    /// # Errors
    /// The limit that it would exceed; nothing is then counted.
    pub fn enter(&mut self, uid: u32, on_socket: usize, socket_limit: usize) -> Result<(), Over> {
        let over = |key, limit| Err(Over { key, limit });
        let free = self.clients.saturating_sub(self.present);
        if free == 0 {
            return over(OverKey::Daemon, self.clients);
        }
        if socket_limit > 0 && on_socket >= socket_limit {
            return over(OverKey::Socket, socket_limit);
        }
        let own = self.by_user.get(&uid).map_or(0, |user| user.clients);
        if own >= self.clients_per_user {
            return over(OverKey::User, self.clients_per_user);
        }
        if self.left(self.clients, free, uid, own) == 0 {
            return over(OverKey::Share { own, free }, self.clients);
        }
        self.user(uid, |user| user.clients += 1);
        self.present += 1;
        Ok(())
    }

    /// Counts a client of user `uid` that an earlier process had let in: nothing refuses it.
    pub fn keep(&mut self, uid: u32) {
        self.present += 1;
        self.user(uid, |user| user.clients += 1);
        // Who awaits a quota may have had it from others.
        self.released = true;
    }

    /// Takes back what `enter` counted.
    pub fn leave(&mut self, uid: u32) {
        self.present -= 1;
        self.user(uid, |user| user.clients -= 1);
    }

    /// What is held for a client of user `uid` goes from `before` to `after` bytes.
    fn hold(&mut self, uid: u32, before: usize, after: usize) {
        self.held = self.held - before + after;
        self.released |= after < before;
        self.user(uid, |user| user.held = user.held - before + after);
    }

    fn user(&mut self, uid: u32, change: impl FnOnce(&mut User)) {
        let user = self.by_user.entry(uid).or_default();
        change(user);
        if user.clients == 0 && user.held == 0 {
            self.by_user.remove(&uid);
            // The shares of the others have grown.
            self.released = true;
        }
    }

    /// What user `uid`, who has `own`, may still have of `total`, of which `free` is left.
    fn left(&self, total: usize, free: usize, uid: u32, own: usize) -> usize {
        match self.others(uid) {
            0 => free,
            others => share(total, free, own, others).max(free.saturating_sub(kept(total))),
        }
    }

    /// How many users are present beside `uid`. Who only asks is none of them.
    fn others(&self, uid: u32) -> usize {
        let is_here = |uid| usize::from(self.by_user.contains_key(&uid));
        let control = if uid == CONTROL { 0 } else { is_here(CONTROL) };
        self.by_user.len() - is_here(uid) - control
    }

    /// Whether something was released since `take_released`.
    #[must_use]
    pub fn released(&self) -> bool {
        self.released
    }

    /// Asks the same, and forgets it.
    pub fn take_released(&mut self) -> bool {
        mem::take(&mut self.released)
    }

    /// The lesser of both limits on held bytes.
    #[must_use]
    pub fn smallest(&self) -> usize {
        self.queue_per_user.min(self.queue_total)
    }

    /// Bytes held for everybody.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes held for user `uid`.
    #[must_use]
    pub fn held_for(&self, uid: u32) -> usize {
        self.by_user.get(&uid).map_or(0, |user| user.held)
    }

    /// Bytes that may be held for any client, whoever its user is. It is no more than `room` says, and
    /// needs no look at the user.
    #[must_use]
    pub fn ample(&self) -> usize {
        self.queue_per_user
            .min(self.queue_total - kept(self.queue_total))
            .saturating_sub(self.held)
    }

    /// Bytes that a queue may come to hold beyond what it is given, so that what follows finds room
    /// there: none once half of a limit is used, which leaves as much as a relay gives out in a turn.
    #[must_use]
    pub fn spare(&self) -> usize {
        let (smallest, spare) = (self.smallest(), self.smallest() / 64);
        if self.ample() >= smallest / 2 + spare {
            spare
        } else {
            0
        }
    }

    /// As `ample`, of `input_room`.
    #[must_use]
    pub fn ample_for_input(&self) -> usize {
        self.ample().saturating_sub(self.smallest() / 4)
    }

    /// Bytes that may still be held for clients of user `uid`.
    #[must_use]
    pub fn room(&self, uid: u32) -> usize {
        let (user, total) = self.rooms(uid);
        user.min(total)
    }

    /// Bytes of input that may still be held for clients of user `uid`. A quarter is kept for what
    /// they are to be sent: else those who send could leave no room in which their messages go on.
    /// Likewise half of what a user may have of the last sixteenth.
    #[must_use]
    pub fn input_room(&self, uid: u32) -> usize {
        let own = self.held_for(uid);
        let (total, free) = (self.queue_total, self.queue_total.saturating_sub(self.held));
        let common = free.saturating_sub(total / 4);
        let total = match self.others(uid) {
            0 => common,
            others => share(total / 2, free / 2, own, others).max(common),
        };
        let user = self.queue_per_user.saturating_sub(own);
        user.saturating_sub(self.queue_per_user / 4).min(total)
    }

    /// Bytes that may still be held for each of `clients` clients, if all of them were to get as much;
    /// `users`: how many of them each user has.
    #[must_use]
    pub fn room_each(&self, users: &HashMap<u32, usize>, clients: usize) -> usize {
        let total = self.queue_total - kept(self.queue_total);
        let total = total.saturating_sub(self.held) / clients.max(1);
        let users = users.iter();
        let each =
            users.map(|(&uid, n)| self.queue_per_user.saturating_sub(self.held_for(uid)) / n);
        each.min().unwrap_or(total).min(total)
    }

    /// What `room_each` says where nothing is held.
    #[must_use]
    pub fn most_each(&self, users: &HashMap<u32, usize>, clients: usize) -> usize {
        let each = users.values().map(|n| self.queue_per_user / n).min();
        let total = (self.queue_total - kept(self.queue_total)) / clients.max(1);
        each.unwrap_or(total).min(total)
    }

    /// The limit that stands in the way of holding more for user `uid`.
    #[must_use]
    pub fn over(&self, uid: u32) -> OverQuota {
        let (user, total) = self.rooms(uid);
        let (quota, limit) = match user <= total {
            true => (Quota::PerUser, self.queue_per_user),
            false => (Quota::Total, self.queue_total),
        };
        OverQuota { quota, limit }
    }

    fn rooms(&self, uid: u32) -> (usize, usize) {
        let own = self.held_for(uid);
        let free = self.queue_total.saturating_sub(self.held);
        (
            self.queue_per_user.saturating_sub(own),
            self.left(self.queue_total, free, uid, own),
        )
    }
}

/// The last part of `total`, which is not for everyone.
fn kept(total: usize) -> usize {
    total / 16
}

/// What a user who has `own` may have of `free`, the last part of `total`, beside so many others. It may grow
/// until it has as much as is then left, so that there is something for the next user, and to no more than
/// the mean of all users.
fn share(total: usize, free: usize, own: usize, others: usize) -> usize {
    let mean = total / (others + 1);
    let half = free.saturating_sub(own).div_ceil(2);
    half.min(mean.saturating_sub(own))
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

    #[test]
    fn held_bytes_are_counted_for_each_user_and_together() {
        let mut limits = Limits::new(9, 9).with_queues(100, 150);
        limits.hold(7, 0, 90);
        assert_eq!(
            (limits.ample(), limits.room(7), limits.room(8)),
            (10, 10, 51)
        );
        assert_eq!(limits.over(7).quota, Quota::PerUser);
        limits.hold(8, 0, 60);
        assert_eq!((limits.ample(), limits.room(7), limits.room(9)), (0, 0, 0));
        assert_eq!(limits.over(9).quota, Quota::Total);
        limits.hold(7, 90, 0);
        limits.hold(8, 60, 0);
        assert_eq!((limits.held(), limits.by_user.len()), (0, 0));
    }
}
