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
    accepted::Accepted,
    closer,
    connection::{Stream, Watch},
    endpoint::Endpoint,
    hub::{Hub, Kind, Now},
    peer::Peer,
    sys,
    turns::{CLIENT, SHARED},
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

/// All listening sockets.
pub(super) struct Listeners {
    /// In the places of the hub's sockets; `None` for those that are retired, or could not be had.
    listeners: Vec<Option<Listener>>,
    /// Kept open, to be given up for a moment when descriptors run out.
    reserve: Option<File>,
    /// The listener whose turn it is.
    next: usize,
    /// One of them may be pending: else none of them is asked.
    pending: bool,
    /// Accepting rests until then: descriptors ran out, or too many wait to be closed.
    rest: Option<Instant>,
}

struct Listener {
    endpoint: Endpoint,
    /// More clients may wait than were accepted.
    pending: bool,
    /// It failed, and rests until then.
    rest: Option<Instant>,
}

impl Listener {
    fn new(endpoint: Endpoint) -> Self {
        Listener {
            pending: endpoint.listens(),
            endpoint,
            rest: None,
        }
    }

    /// Whether somebody may wait who can be accepted at once.
    fn is_pending(&self) -> bool {
        self.pending && self.rest.is_none()
    }
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners {
            listeners: Vec::new(),
            reserve: reserve(),
            next: 0,
            pending: false,
            rest: None,
        }
    }
}

impl Listeners {
    /// An event for listener number `listener`.
    pub(super) fn event(&mut self, listener: usize) {
        if let Some(Some(listener)) = self.listeners.get_mut(listener) {
            listener.pending = true;
            self.pending = true;
        }
    }

    /// Somebody may wait at any listener, also where no event has told so.
    pub(super) fn expect(&mut self) {
        for listener in self.listeners.iter_mut().flatten() {
            listener.pending = listener.endpoint.listens();
        }
        self.pending = true;
    }

    /// Whether somebody may wait who can be accepted at once.
    pub(super) fn is_pending(&self) -> bool {
        let mut listeners = self.listeners.iter().flatten();
        self.pending && self.rest.is_none() && listeners.any(Listener::is_pending)
    }

    /// When accepting goes on, where it rests.
    pub(super) fn rest(&self) -> Option<Instant> {
        if !self.pending {
            return None;
        }
        let listeners = self.listeners.iter().flatten();
        listeners.filter_map(|of| of.rest).chain(self.rest).min()
    }

    /// Lets in who waits, a turn's share: the listeners take turns.
    pub(super) fn accept(&mut self, hub: &mut Hub<Accepted>, registry: &Registry, now: Now) {
        if !self.pending {
            return;
        }
        let rests = self.listeners.iter_mut().flatten().map(|of| &mut of.rest);
        for rest in rests.chain([&mut self.rest]) {
            *rest = rest.filter(|until| *until > now.instant);
        }
        if self.rest.is_some() {
            return;
        }
        let listeners = self.listeners.len();
        let (mut left, mut idle) = (TURN, 0);
        while left > 0 && idle < listeners {
            let socket = self.next % listeners;
            self.next = socket + 1;
            let Some(spent) = self.accept_some(socket, hub, registry, now) else {
                return;
            };
            left = left.saturating_sub(spent);
            idle = if spent > 0 { 0 } else { idle + 1 };
        }
        // One that rests is pending, too.
        self.pending = self.listeners.iter().flatten().any(|of| of.pending);
    }

    /// Lets in some of those who wait at one listener. Returns what that cost; nothing where all rest.
    fn accept_some(
        &mut self,
        socket: usize,
        hub: &mut Hub<Accepted>,
        registry: &Registry,
        now: Now,
    ) -> Option<usize> {
        let mut spent = 0;
        while spent < ROUND {
            let Some(listener) = &mut self.listeners[socket] else {
                break;
            };
            if !listener.is_pending() {
                break;
            }
            // One more might have to wait there.
            if !closer::has_room() {
                self.rest = Some(now.instant + REST);
                hub.warn(socket, Kind::Unclosed, now, || {
                    format!(
                        "too many descriptors that clients sent are not closed yet: accepting rests for {REST:?}"
                    )
                });
                return None;
            }
            match listener.endpoint.accept() {
                Ok((client, peer)) => {
                    let is_in = self.enter(socket, client, peer, hub, registry, now);
                    spent += if is_in { LET_IN } else { TURNED_AWAY };
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => listener.pending = false,
                    // The client is gone already, or the call was interrupted.
                    Some(Errno::CONNABORTED | Errno::INTR) => spent += TURNED_AWAY,
                    Some(Errno::MFILE | Errno::NFILE) => {
                        self.turn_away(socket, hub, now);
                        return None;
                    }
                    // The fault of this one; the others have their turns.
                    _ => {
                        listener.rest = Some(now.instant + REST);
                        hub.warn(socket, Kind::Unaccepted, now, || {
                            format!("cannot accept: {error}; this socket rests for {REST:?}")
                        });
                        break;
                    }
                },
            }
        }
        Some(spent)
    }

    /// Lets in one client, if it may come in. Returns whether it is there.
    fn enter(
        &mut self,
        socket: usize,
        client: Accepted,
        peer: Peer,
        hub: &mut Hub<Accepted>,
        registry: &Registry,
        now: Now,
    ) -> bool {
        let mut groups = Vec::new();
        if hub.sockets()[socket].asks_groups() {
            groups = sys::groups_of(&client).unwrap_or_else(|error| {
                hub.warn(socket, Kind::Groupless, now, || {
                    format!(
                        "cannot read the supplementary groups of a client ({peer}): {error}; it is judged by its user and its primary group"
                    )
                });
                Vec::new()
            });
        }
        let had_left = client.had_left();
        let Some(key) = hub.enter(socket, client, peer, &groups, now) else {
            return false;
        };
        if had_left {
            hub.leave(key, now);
            return false;
        }
        let watched = hub.stream(key).map(|client| {
            let read = Watch {
                read: true,
                ..Watch::default()
            };
            watch(registry, key, client, Watch::default(), read)
        });
        if let Some(Err(error)) = watched {
            hub.fail(key, error, now);
        }
        true
    }

    /// Out of descriptors: the reserve lets in one client, who gets an end in place of silence, and
    /// accepting rests.
    fn turn_away(&mut self, socket: usize, hub: &mut Hub<Accepted>, now: Now) {
        self.reserve = None;
        if let Some(Some(listener)) = self.listeners.get(socket)
            && let Ok((client, peer)) = listener.endpoint.accept()
        {
            let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            hub.refuse(
                socket,
                &peer,
                usize::try_from(files).unwrap_or(usize::MAX),
                now,
            );
            client.cut_off();
        }
        self.reserve = reserve();
        self.rest = Some(now.instant + REST);
    }

    /// Stops watching: the next process lets in who waits. Returns the endpoints with their numbers.
    pub(super) fn park(&mut self) -> Vec<(usize, Endpoint)> {
        let listeners = self.listeners.drain(..);
        listeners
            .enumerate()
            .filter_map(|(socket, listener)| Some((socket, listener?.endpoint)))
            .collect()
    }

    /// Lets nobody in any more.
    pub(super) fn close(&mut self, registry: &Registry) {
        for listener in self.listeners.drain(..).flatten() {
            deregister(&listener.endpoint, registry);
            listener.endpoint.close();
        }
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.listeners.len()
    }

    /// The endpoint of socket number `socket`.
    pub(super) fn endpoint(&self, socket: usize) -> Option<&Endpoint> {
        let listener = self.listeners.get(socket)?.as_ref()?;
        Some(&listener.endpoint)
    }

    /// The same, to change it.
    pub(super) fn endpoint_mut(&mut self, socket: usize) -> Option<&mut Endpoint> {
        let listener = self.listeners.get_mut(socket)?.as_mut()?;
        Some(&mut listener.endpoint)
    }

    /// Puts a registered endpoint into the place of socket number `socket`; returns the one that was
    /// there.
    pub(super) fn put(&mut self, socket: usize, endpoint: Endpoint) -> Option<Endpoint> {
        if self.listeners.len() <= socket {
            self.listeners.resize_with(socket + 1, || None);
        }
        self.pending = true;
        let old = self.listeners[socket].replace(Listener::new(endpoint));
        old.map(|listener| listener.endpoint)
    }

    /// Takes out the endpoint of socket number `socket`.
    pub(super) fn take(&mut self, socket: usize) -> Option<Endpoint> {
        let listener = self.listeners.get_mut(socket)?.take()?;
        Some(listener.endpoint)
    }

    /// Lets nobody in by `old` any more, whose socket number `socket` listens elsewhere now: who waits
    /// there comes in first.
    pub(super) fn drain(
        &mut self,
        mut old: Endpoint,
        socket: usize,
        hub: &mut Hub<Accepted>,
        registry: &Registry,
        now: Now,
    ) {
        old.unlink();
        // Not until nobody waits: clients that hold the address may come faster than this.
        for _ in 0..=old.backlog() {
            let Ok((client, peer)) = old.accept() else {
                break;
            };
            self.enter(socket, client, peer, hub, registry, now);
        }
        deregister(&old, registry);
        old.close();
    }
}

/// Watches an endpoint that is to be that of socket number `socket`, if clients connect to it.
pub(super) fn register(endpoint: &Endpoint, socket: usize, registry: &Registry) -> io::Result<()> {
    let fd = endpoint.as_raw_fd();
    let token = Token(LISTENERS + socket);
    match endpoint.listens() {
        true => registry.register(&mut SourceFd(&fd), token, Interest::READABLE),
        false => Ok(()),
    }
}

/// Watches it no more. The manager keeps its copy of an inherited one open, and with it the
/// registration.
pub(super) fn deregister(endpoint: &Endpoint, registry: &Registry) {
    let fd = endpoint.as_raw_fd();
    if endpoint.listens()
        && let Err(error) = registry.deregister(&mut SourceFd(&fd))
    {
        warn!("cannot stop watching a socket: {error}");
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
