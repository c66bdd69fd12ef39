//! Accepting: who comes in, and what happens when descriptors run out.

use std::time::{Duration, Instant};

use mio::Registry;
use rustix::io::Errno;

use super::sockets::{Accepting, Served, Sockets, deregister, reserve};
use crate::{
    client_socket::ClientSocket,
    closer,
    endpoint::Endpoint,
    hub::{Hub, Kind, Now},
    peer::Peer,
    round_robin::{CLIENT, SHARED},
    sys,
};

/// What a client costs that is let in: to take it, to watch it and to let it go.
const LET_IN: usize = CLIENT;
/// What a client costs that is turned away, or has left: it has no turns, and nobody watches it.
const TURNED_AWAY: usize = CLIENT / 4;
/// What accepting may cost in a turn of the event loop: a backlog of 4096 that were turned away or have left.
/// That is more than the clients have for theirs, for connecting takes less than accepting, and a backlog that
/// is full keeps everybody out.
const TURN: usize = 4 * SHARED;
/// What a listener may have of that before the others have theirs.
const ROUND: usize = 16 * LET_IN;
/// How long accepting rests once descriptors have run out, or too many wait to be closed.
const REST: Duration = Duration::from_millis(100);

impl Served {
    /// Whether somebody may wait who can be accepted at once.
    fn is_pending(&self) -> bool {
        self.pending && self.rest.is_none()
    }
}

impl Sockets {
    /// Somebody may wait at any listener, also where no event has told so.
    pub(super) fn expect(&mut self) {
        for served in self.iter_mut() {
            served.pending = served.endpoint.as_ref().is_some_and(Endpoint::listens);
        }
        self.accepting.pending = true;
    }

    /// Whether somebody may wait who can be accepted at once.
    pub(super) fn is_pending(&self) -> bool {
        let Accepting { pending, rest, .. } = self.accepting;
        pending && rest.is_none() && self.iter().any(Served::is_pending)
    }

    /// When accepting goes on, where it rests.
    pub(super) fn rest(&self) -> Option<Instant> {
        let Accepting { pending, rest, .. } = self.accepting;
        if !pending {
            return None;
        }
        self.iter().filter_map(|of| of.rest).chain(rest).min()
    }

    /// Lets in who waits, a turn's share: the listeners take turns.
    pub(super) fn accept(&mut self, hub: &mut Hub<ClientSocket>, now: Now) {
        if !self.accepting.pending {
            return;
        }
        let is_on = |until: &Instant| *until > now.instant;
        self.iter_mut()
            .for_each(|of| of.rest = of.rest.filter(is_on));
        self.accepting.rest = self.accepting.rest.filter(is_on);
        if self.accepting.rest.is_some() {
            return;
        }
        let all = self.len();
        let (mut left, mut idle) = (TURN, 0);
        while left > 0 && idle < all {
            let key = self.accepting.next % all;
            self.accepting.next = key + 1;
            let Some(spent) = self.accept_some(key, hub, now) else {
                return;
            };
            left = left.saturating_sub(spent);
            idle = if spent > 0 { 0 } else { idle + 1 };
        }
        // One that rests is pending, too.
        let pending = self.iter().any(|of| of.pending);
        self.accepting.pending = pending;
    }

    /// Lets in some of those who wait at one listener. Returns what that cost; nothing where all rest.
    fn accept_some(&mut self, key: usize, hub: &mut Hub<ClientSocket>, now: Now) -> Option<usize> {
        let mut spent = 0;
        while spent < ROUND {
            let served = self.of(key);
            let Some(endpoint) = served.endpoint.as_ref().filter(|_| served.is_pending()) else {
                break;
            };
            // One more might have to wait there.
            if !closer::has_room() {
                self.accepting.rest = Some(now.instant + REST);
                hub.warn(key, Kind::Unclosed, now, || {
                    format!(
                        "too many descriptors that clients sent are not closed yet: accepting rests for {REST:?}"
                    )
                });
                return None;
            }
            match endpoint.accept() {
                Ok((client, peer)) => {
                    let is_in = enter(key, client, peer, hub, now);
                    spent += if is_in { LET_IN } else { TURNED_AWAY };
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => served.pending = false,
                    // The client is gone already, or the call was interrupted.
                    Some(Errno::CONNABORTED | Errno::INTR) => spent += TURNED_AWAY,
                    Some(Errno::MFILE | Errno::NFILE) => {
                        self.turn_away(key, hub, now);
                        return None;
                    }
                    // The fault of this one; the others have their turns.
                    _ => {
                        served.rest = Some(now.instant + REST);
                        hub.warn(key, Kind::Unaccepted, now, || {
                            format!("cannot accept: {error}; this socket rests for {REST:?}")
                        });
                        break;
                    }
                },
            }
        }
        Some(spent)
    }

    /// Out of descriptors: the reserve lets in one client, who gets an end in place of silence, and
    /// accepting rests.
    fn turn_away(&mut self, key: usize, hub: &mut Hub<ClientSocket>, now: Now) {
        self.accepting.reserve = None;
        if let Some(endpoint) = &self.of(key).endpoint
            && let Ok((client, peer)) = endpoint.accept()
        {
            hub.refuse(key, client, &peer, sys::open_files(), now);
        }
        self.accepting.reserve = reserve();
        self.accepting.rest = Some(now.instant + REST);
    }

    /// Lets nobody in any more.
    pub(super) fn close_listeners(&mut self, registry: &Registry) {
        for key in 0..self.len() {
            self.close(key, registry);
        }
    }

    /// Closes `old`, the endpoint of the socket `key` until now, which listens elsewhere from now on. Clients that
    /// wait at `old` are let in first.
    pub(super) fn drain(
        &mut self,
        mut old: Endpoint,
        key: usize,
        hub: &mut Hub<ClientSocket>,
        registry: &Registry,
        now: Now,
    ) {
        old.unlink();
        // Not until nobody waits: clients that hold the address may come faster than this.
        for _ in 0..=old.backlog() {
            let Ok((client, peer)) = old.accept() else {
                break;
            };
            enter(key, client, peer, hub, now);
        }
        deregister(&old, registry);
        old.close();
    }
}

/// Lets in one client, if it may come in. Returns whether it is there.
fn enter(
    key: usize,
    client: ClientSocket,
    peer: Peer,
    hub: &mut Hub<ClientSocket>,
    now: Now,
) -> bool {
    let mut groups = Vec::new();
    if hub.sockets()[key].asks_groups() {
        groups = sys::groups_of(&client).unwrap_or_else(|error| {
            hub.warn(key, Kind::Groupless, now, || {
                format!(
                    "cannot read the supplementary groups of a client ({peer}): {error}; it is judged by its user and its primary group"
                )
            });
            Vec::new()
        });
    }
    let had_left = client.had_left();
    let Some(client) = hub.enter(key, client, peer, &groups, now) else {
        return false;
    };
    if had_left {
        hub.leave(client, now);
        return false;
    }
    true
}
