//! The numbers of those who sent datagrams: nothing says that one of them is gone, so the table
//! forgets whoever was silent while many others sent. Who comes back then gets a new number.

use std::{collections::HashMap, mem};

use serde::{Deserialize, Serialize};

use crate::datagram_header::Address;

/// Addresses of one generation; there are at most two of them.
const GENERATION: usize = 4096;

/// An address and its user: the same path in another mount namespace, or the same abstract name in
/// another network namespace, is another user's.
pub(super) type Key = (Address, u32);

/// Numbers by address and user.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    young: HashMap<Key, u64>,
    /// The generation before, of those who have not been seen since.
    old: HashMap<Key, u64>,
}

/// Numbers as one process hands them to the next: of each generation the addresses, users, numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedNumbers([Vec<(Address, u32, u64)>; 2]);

impl Numbers {
    pub(super) fn park(self) -> SavedNumbers {
        SavedNumbers([self.young, self.old].map(|generation| {
            let entries = generation.into_iter();
            entries
                .map(|((address, uid), number)| (address, uid, number))
                .collect()
        }))
    }

    pub(super) fn resume(&mut self, parked: SavedNumbers) {
        [self.young, self.old] = parked.0.map(|generation| {
            let entries = generation.into_iter().take(GENERATION);
            entries
                .map(|(address, uid, number)| ((address, uid), number))
                .collect()
        });
    }

    /// The number of a sender, and whether it got it from `next` just now.
    pub(super) fn of(&mut self, key: Key, next: impl FnOnce() -> u64) -> (u64, bool) {
        if let Some(&number) = self.young.get(&key) {
            return (number, false);
        }
        let (number, is_new) = match self.old.remove(&key) {
            Some(number) => (number, false),
            None => (next(), true),
        };
        if self.young.len() == GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, number);
        (number, is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (Address::new(format!("\0{n}").as_bytes()), 7)
    }

    #[test]
    fn a_sender_keeps_its_number_while_it_sends_now_and_then() {
        let mut numbers = Numbers::default();
        let mut last = 0;
        let mut next = || {
            last += 1;
            last
        };
        assert_eq!(numbers.of(key(0), &mut next), (1, true));
        for n in 1..10 * GENERATION {
            numbers.of(key(n), &mut next);
            if n % 1000 == 0 {
                assert_eq!(numbers.of(key(0), &mut next), (1, false));
            }
            assert!(numbers.young.len() + numbers.old.len() <= 2 * GENERATION);
        }
        assert!(numbers.of(key(1), &mut next).1, "remembered for ever");
    }

    #[test]
    fn another_user_at_the_same_address_is_another() {
        let mut numbers = Numbers::default();
        let (address, user) = key(1);
        assert_eq!(numbers.of((address, user), || 1), (1, true));
        assert_eq!(numbers.of((address, user + 1), || 2), (2, true));
        assert_eq!(numbers.of((address, user), || 3), (1, false));
    }
}
