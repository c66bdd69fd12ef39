//! The listening sockets at work: who comes in, and what happens when descriptors run out.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use log::warn;
use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

use super::{LISTENERS, watch};
use crate::{
    connection::{Stream, Watch},
    endpoint::Endpoint,
    hub::{Hub, Now},
    link::Link,
    peer::Peer,
    sys,
    throttle::Throttle,
};

/// Clients that a listener may bring in before the others have their turn.
const TURN_ACCEPTS: usize = 64;
/// How long accepting rests once descriptors have run out.
const REST: Duration = Duration::from_millis(100);

/// All listening sockets.
pub(super) struct Door {
    listeners: Vec<Listener>,
    /// Kept open, to be given up for a moment when descriptors run out.
    reserve: Option<File>,
    /// Accepting rests until then.
    rest: Option<Instant>,
    failed: Throttle,
    groupless: Throttle,
}

struct Listener {
    endpoint: Endpoint,
    /// More clients may wait than were accepted.
    pending: bool,
}

impl Door {
    /// Watches `endpoints`, which are the hub's sockets in their order.
    pub(super) fn new(endpoints: Vec<Endpoint>, registry: &Registry) -> io::Result<Self> {
        for (i, endpoint) in endpoints.iter().enumerate() {
            if !endpoint.listens() {
                continue;
            }
            let fd = endpoint.as_raw_fd();
            registry.register(&mut SourceFd(&fd), Token(LISTENERS + i), Interest::READABLE)?;
        }
        let listeners = endpoints.into_iter();
        let listeners = listeners.map(|endpoint| Listener {
            pending: endpoint.listens(),
            endpoint,
        });
        Ok(Door {
            listeners: listeners.collect(),
            reserve: reserve(),
            rest: None,
            failed: Throttle::default(),
            groupless: Throttle::default(),
        })
    }

    /// An event for listener number `listener`.
    pub(super) fn event(&mut self, listener: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.pending = true;
        }
    }

    /// Somebody may wait at any listener, also where no event has told so.
    pub(super) fn expect(&mut self) {
        for listener in &mut self.listeners {
            listener.pending = listener.endpoint.listens();
        }
    }

    /// Whether somebody may wait who can be accepted at once.
    pub(super) fn is_pending(&self) -> bool {
        self.rest.is_none() && self.listeners.iter().any(|listener| listener.pending)
    }

    /// When accepting goes on.
    pub(super) fn rest(&self) -> Option<Instant> {
        self.rest
    }

    /// Lets in who waits, a turn's share.
    pub(super) fn accept(&mut self, hub: &mut Hub<Link>, registry: &Registry, now: Now) {
        if self.rest.is_some_and(|until| until > now.instant) {
            return;
        }
        self.rest = None;
        for socket in 0..self.listeners.len() {
            for _ in 0..TURN_ACCEPTS {
                if !self.listeners[socket].pending {
                    break;
                }
                match self.listeners[socket].endpoint.accept() {
                    Ok((link, peer)) => self.enter(socket, link, peer, hub, registry, now),
                    Err(error) => match Errno::from_io_error(&error) {
                        Some(Errno::AGAIN) => self.listeners[socket].pending = false,
                        // The client is gone already, or the call was interrupted.
                        Some(Errno::CONNABORTED | Errno::INTR) => {}
                        Some(Errno::MFILE | Errno::NFILE) => {
                            self.turn_away(socket, hub, now);
                            return;
                        }
                        // The fault of this one; the others have their turns.
                        _ => {
                            self.rest = Some(now.instant + REST);
                            if let Some(more) = self.failed.pass(now.instant) {
                                warn!(
                                    "{}: cannot accept: {error}; resting for {REST:?} ({more} lines like this left out)",
                                    hub.sockets()[socket].name()
                                );
                            }
                            break;
                        }
                    },
                }
            }
        }
    }

    fn enter(
        &mut self,
        socket: usize,
        link: Link,
        peer: Peer,
        hub: &mut Hub<Link>,
        registry: &Registry,
        now: Now,
    ) {
        let mut groups = Vec::new();
        if hub.sockets()[socket].asks_groups() {
            groups = self.groups(&link, &peer, now);
        }
        let Some(key) = hub.enter(socket, link, peer, &groups, now) else {
            return;
        };
        let watched = hub.stream(key).map(|link| {
            let read = Watch {
                read: true,
                ..Watch::default()
            };
            watch(registry, key, link, Watch::default(), read)
        });
        if let Some(Err(error)) = watched {
            hub.fail(key, error, now);
        }
    }

    /// Out of descriptors: the reserve lets in one client, who gets an end in place of silence, and
    /// accepting rests.
    fn turn_away(&mut self, socket: usize, hub: &mut Hub<Link>, now: Now) {
        self.reserve = None;
        if let Ok((mut link, peer)) = self.listeners[socket].endpoint.accept() {
            let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            hub.refuse(
                socket,
                &peer,
                usize::try_from(files).unwrap_or(usize::MAX),
                now,
            );
            link.hang_up();
        }
        self.reserve = reserve();
        self.rest = Some(now.instant + REST);
    }

    /// The supplementary groups of a client. One whose groups cannot be read has none: it is judged
    /// by its user and its primary group.
    fn groups(&mut self, link: &Link, peer: &Peer, now: Now) -> Vec<u32> {
        sys::groups_of(link).unwrap_or_else(|error| {
            if let Some(more) = self.groupless.pass(now.instant) {
                warn!(
                    "cannot read the supplementary groups of a client ({peer}): {error}; it counts as having none ({more} lines like this left out)"
                );
            }
            Vec::new()
        })
    }

    /// Stops watching: the next process lets in who waits. Returns the endpoints with their numbers.
    pub(super) fn park(&mut self) -> Vec<(usize, Endpoint)> {
        let listeners = self.listeners.drain(..);
        listeners
            .enumerate()
            .map(|(socket, listener)| (socket, listener.endpoint))
            .collect()
    }

    /// Lets nobody in any more.
    pub(super) fn close(&mut self, registry: &Registry) {
        for listener in self.listeners.drain(..) {
            // The manager keeps its copy of an inherited one open, and with it the registration.
            let fd = listener.endpoint.as_raw_fd();
            if listener.endpoint.listens()
                && let Err(error) = registry.deregister(&mut SourceFd(&fd))
            {
                warn!("cannot stop watching a socket: {error}");
            }
            listener.endpoint.close();
        }
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
