//! May this peer enter? Judges by the kernel's numbers alone; who looks names up, and who asks the
//! kernel for a peer's groups, stands elsewhere.

use crate::peer::{NOBODY, Peer};

/// `allow-users` and `allow-groups` of one socket, as numbers. Root is in a list or it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Access {
    /// Lets in these users and the members of these groups; where both lists are empty, anyone.
    #[must_use]
    pub fn new(users: Vec<u32>, groups: Vec<u32>) -> Self {
        Access { users, groups }
    }

    /// Lets in nobody.
    #[must_use]
    pub fn none() -> Self {
        Access::new(vec![NOBODY], Vec::new())
    }

    /// Whether a peer's supplementary groups can make a difference.
    #[must_use]
    pub fn asks_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether `peer` may enter, whose supplementary groups are `groups`. Either list admits.
    #[must_use]
    pub fn admits(&self, peer: &Peer, groups: &[u32]) -> bool {
        if self.users.is_empty() && self.groups.is_empty() {
            return true;
        }
        has(&self.users, peer.uid)
            || has(&self.groups, peer.gid)
            || groups.iter().any(|&gid| has(&self.groups, gid))
    }
}

fn has(list: &[u32], number: u32) -> bool {
    number != NOBODY && list.contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { pid: 1, uid, gid }
    }

    fn access(users: &[u32], groups: &[u32]) -> Access {
        Access::new(users.into(), groups.into())
    }

    #[test]
    fn by_none_nobody_enters() {
        for uid in [0, 7, NOBODY] {
            assert!(!Access::none().admits(&peer(uid, uid), &[uid]));
        }
    }

    #[test]
    fn without_lists_anyone_enters() {
        for uid in [0, 7, NOBODY] {
            assert!(access(&[], &[]).admits(&peer(uid, uid), &[]));
        }
        assert_eq!(Access::default(), access(&[], &[]));
    }

    #[test]
    fn a_list_of_users_knows_users_and_no_groups() {
        let access = access(&[7, 8], &[]);
        assert!(access.admits(&peer(7, 1), &[]) && access.admits(&peer(8, 1), &[]));
        assert!(!access.admits(&peer(9, 7), &[7, 8]));
        assert!(!access.asks_groups());
    }

    #[test]
    fn a_list_of_groups_knows_primary_and_supplementary_ones_and_no_users() {
        let access = access(&[], &[7, 8]);
        assert!(access.admits(&peer(1, 7), &[]));
        assert!(access.admits(&peer(1, 2), &[3, 8]));
        assert!(!access.admits(&peer(7, 1), &[2, 3]));
        assert!(access.asks_groups());
    }

    #[test]
    fn of_two_lists_either_admits() {
        let access = access(&[7], &[8]);
        for (uid, gid, groups, admitted) in [
            (7, 1, &[][..], true),
            (1, 8, &[], true),
            (1, 1, &[8], true),
            (7, 8, &[8], true),
            (8, 7, &[7], false),
        ] {
            assert_eq!(access.admits(&peer(uid, gid), groups), admitted);
        }
    }

    #[test]
    fn root_is_not_exempt() {
        assert!(!access(&[7], &[8]).admits(&peer(0, 0), &[0]));
        assert!(access(&[0], &[]).admits(&peer(0, 1), &[]));
        assert!(access(&[], &[0]).admits(&peer(1, 0), &[]));
    }

    #[test]
    fn nobody_never_matches() {
        let nobody = access(&[NOBODY], &[NOBODY]);
        assert!(!nobody.admits(&peer(NOBODY, 1), &[]));
        assert!(!nobody.admits(&peer(1, NOBODY), &[]));
        assert!(!nobody.admits(&peer(1, 1), &[NOBODY]));
        // It takes nothing from a number that does match.
        assert!(access(&[7], &[]).admits(&peer(7, NOBODY), &[NOBODY]));
        assert!(access(&[], &[7]).admits(&peer(NOBODY, 7), &[]));
    }
}
