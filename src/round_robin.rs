//! Whose turn it is, and what a turn may cost. Users take turns, and each user's clients among themselves:
//! so a user with many clients makes nobody else wait longer.
//!
//! Work is counted in bytes, for most of it is done for each byte. Other work counts as the bytes that would
//! take as long. So the bound is the same in every run, and no clock is asked.

use std::collections::{HashMap, VecDeque};

/// What a client's turn costs beside its bytes: its system calls.
pub const CLIENT: usize = 8 << 10;
/// What a message costs beside its bytes, for each step that looks at it.
pub const MESSAGE: usize = 128;
/// What a write to a receiver costs beside its bytes, and a packet or a datagram that comes.
pub const DELIVERY: usize = 4 << 10;
/// Bytes that one client may send in its turn. Only the last packet may go beyond them, to be whole.
pub const READ: usize = 64 << 10;
/// Messages of one client that are taken in its turn.
pub const MESSAGES: u64 = 1024;
/// What the messages of one client may cost in its turn by going to many receivers.
pub const FANOUT: usize = 4 << 20;
/// What all turns may cost before the event loop asks who else is there.
pub const SHARED: usize = 2 << 20;
/// The same while all who take turns are of one user and nobody waits to be let in: asking costs time, too.
pub const ALONE: usize = 64 << 20;

/// All datagram sockets take turns as one user, with the uid that nobody can have (`setresuid(2)`).
pub const DATAGRAM_SOCKETS: u32 = u32::MAX;

/// Small numbers for the users who have clients, and for that of datagram sockets: turns are kept by them.
#[derive(Debug, Default)]
pub struct Users {
    /// By uid: the number, and how many clients or datagram sockets the user has.
    numbers: HashMap<u32, (u32, usize)>,
    free: Vec<u32>,
}

impl Users {
    /// A client or a datagram socket of user `uid` comes. Returns the user's number.
    pub fn enter(&mut self, uid: u32) -> u32 {
        // The numbers in use and the free ones together are all that were ever given.
        let next = (self.numbers.len() + self.free.len()) as u32;
        let (number, clients) = self
            .numbers
            .entry(uid)
            .or_insert_with(|| (self.free.pop().unwrap_or(next), 0));
        *clients += 1;
        *number
    }

    /// A client or a datagram socket of user `uid` goes.
    pub fn leave(&mut self, uid: u32) {
        if let Some((number, clients)) = self.numbers.get_mut(&uid) {
            *clients -= 1;
            if *clients == 0 {
                self.free.push(*number);
                self.numbers.remove(&uid);
            }
        }
    }

    /// How many users there are.
    #[must_use]
    pub fn present(&self) -> usize {
        self.numbers.len()
    }
}

/// Those who wait for a turn: each user's in the order in which they came, and the users in a ring.
#[derive(Debug)]
pub struct RoundRobin<T> {
    /// By the numbers of the users.
    queues: Vec<VecDeque<T>>,
    /// The users who have somebody waiting, the next one first.
    ring: VecDeque<u32>,
}

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        RoundRobin {
            queues: Vec::new(),
            ring: VecDeque::new(),
        }
    }
}

impl<T: Copy + PartialEq> RoundRobin<T> {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether one waits and nobody else.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.ring.len() == 1 && self.queues[self.ring[0] as usize].len() == 1
    }

    /// Adds one behind the others of its user.
    #[inline]
    pub fn push(&mut self, user: u32, one: T) {
        let queue = self.queue(user);
        let is_first = queue.is_empty();
        queue.push_back(one);
        if is_first {
            self.ring.push_back(user);
        }
    }

    /// Adds one before the others of its user; `is_next`: before everybody else.
    pub fn push_front(&mut self, user: u32, one: T, is_next: bool) {
        let queue = self.queue(user);
        queue.push_front(one);
        let is_new = queue.len() == 1;
        if is_next {
            self.ring.retain(|&of| of != user);
            self.ring.push_front(user);
        } else if is_new {
            self.ring.push_back(user);
        }
    }

    #[inline]
    fn queue(&mut self, user: u32) -> &mut VecDeque<T> {
        let index = user as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, VecDeque::new);
        }
        &mut self.queues[index]
    }

    /// Whose turn it is; its user's next one comes after those of all others.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let user = *self.ring.front()?;
        let queue = &mut self.queues[user as usize];
        let one = queue.pop_front();
        if queue.is_empty() {
            self.ring.pop_front();
        } else if self.ring.len() > 1 {
            self.ring.rotate_left(1);
        }
        one
    }

    /// Whose turn it is, without giving it.
    #[must_use]
    pub fn first(&self) -> Option<T> {
        let user = self.ring.front()?;
        self.queues[*user as usize].front().copied()
    }

    /// Takes one out.
    pub fn remove(&mut self, user: u32, one: T) {
        let queue = self.queue(user);
        let before = queue.len();
        queue.retain(|&other| other != one);
        if queue.is_empty() && before > 0 {
            self.ring.retain(|&of| of != user);
        }
    }

    /// All of them, in the order of their turns.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        let users = || self.ring.iter().map(|&user| &self.queues[user as usize]);
        let rounds = users().map(VecDeque::len).max().unwrap_or(0);
        (0..rounds)
            .flat_map(move |round| users().filter_map(move |queue| queue.get(round).copied()))
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        for user in self.ring.drain(..) {
            self.queues[user as usize].clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(of: &[(u32, char)]) -> RoundRobin<char> {
        let mut turns = RoundRobin::default();
        for &(user, one) in of {
            turns.push(user, one);
        }
        turns
    }

    fn rest(mut turns: RoundRobin<char>) -> String {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn users_take_turns_before_their_clients_do() {
        let all = [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'd'), (3, 'e'), (2, 'f')];
        let turns = turns(&all);
        assert_eq!(turns.iter().collect::<String>(), "adebfc");
        assert_eq!(turns.first(), Some('a'));
        assert_eq!(rest(turns), "adebfc");
    }

    #[test]
    fn who_comes_again_comes_behind_the_others_of_its_user_and_behind_other_users() {
        let mut turns = turns(&[(1, 'a'), (1, 'b'), (2, 'd')]);
        assert_eq!(turns.pop(), Some('a'));
        turns.push(1, 'a');
        assert_eq!(rest(turns), "dba");
    }

    #[test]
    fn one_may_go_first_or_go_away() {
        let mut turns = turns(&[(1, 'a'), (2, 'b'), (2, 'c'), (3, 'd')]);
        turns.push_front(2, 'x', true);
        turns.push_front(3, 'y', false);
        assert_eq!(turns.iter().collect::<String>(), "xaybdc");
        for (user, one) in [(3, 'd'), (3, 'd'), (2, 'b'), (3, 'y')] {
            turns.remove(user, one);
        }
        assert!(!turns.is_single());
        assert_eq!(turns.iter().collect::<String>(), "xac");
        turns.clear();
        assert!(turns.is_empty() && turns.first().is_none());
        turns.push(7, 'z');
        assert!(turns.is_single());
        assert_eq!(rest(turns), "z");
    }

    #[test]
    fn a_user_keeps_its_number_for_as_long_as_it_has_clients() {
        let mut users = Users::default();
        let (a, b) = (users.enter(1000), users.enter(1001));
        assert_ne!(a, b);
        assert_eq!(users.enter(1000), a);
        users.leave(1000);
        assert_eq!((users.enter(1000), users.present()), (a, 2));
        users.leave(1001);
        assert_eq!((users.enter(1002), users.present()), (b, 2));
        assert!(![a, b].contains(&users.enter(1003)));
    }
}
