//! What the event loop has of each socket of the hub, by the same key: where clients and datagrams come
//! from, whether that is watched, and the thread of its record.
//!
//! A listener is watched as mio has it, on edges: an event says once that somebody came. A datagram socket
//! is watched like a client, for as long as the hub receives from it. Both are registered before a plan is put
//! into force, watched for nothing: adding could fail for want of memory, a change cannot.

use std::{fs::File, io, time::Instant};

use log::{error, warn};
use mio::Registry;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::SOCKETS;
use crate::{
    client_socket::ClientSocket,
    endpoint::Endpoint,
    hub::{Hub, Now},
    record::Writer,
};

/// Batches that may be received of a socket before another takes its turn.
const LAST_BATCHES: usize = 1024;

/// All sockets.
#[derive(Default)]
pub(super) struct Sockets {
    /// By the keys of the hub's sockets.
    all: Vec<Served>,
    pub(super) accepting: Accepting,
}

/// What accepting needs for all listeners together.
pub(super) struct Accepting {
    /// Kept open, to be given up for a moment when descriptors run out.
    pub(super) reserve: Option<File>,
    /// The listener whose turn it is.
    pub(super) next: usize,
    /// One of them may be pending: else none of them is asked.
    pub(super) pending: bool,
    /// Accepting rests until then: descriptors ran out, or too many wait to be closed.
    pub(super) rest: Option<Instant>,
}

impl Default for Accepting {
    fn default() -> Self {
        Accepting {
            reserve: reserve(),
            next: 0,
            pending: false,
            rest: None,
        }
    }
}

pub(super) fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// One socket.
#[derive(Default)]
pub(super) struct Served {
    /// `None` where nobody comes any more, or it could not be had.
    pub(super) endpoint: Option<Endpoint>,
    /// More clients may wait than were accepted.
    pub(super) pending: bool,
    /// Accepting failed here, and rests until then.
    pub(super) rest: Option<Instant>,
    /// The thread of its record, if it has one.
    pub(super) writer: Option<Writer>,
}

impl Served {
    fn receives_datagrams(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|of| !of.listens())
    }
}

impl Sockets {
    /// What there is of the socket `key`.
    pub(super) fn get(&self, key: usize) -> Option<&Served> {
        self.all.get(key)
    }

    /// The same, to change it; where there was none, an empty one.
    pub(super) fn of(&mut self, key: usize) -> &mut Served {
        if self.all.len() <= key {
            self.all.resize_with(key + 1, Served::default);
        }
        &mut self.all[key]
    }

    /// All, by their keys; some are empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.all.iter()
    }

    /// The same, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Served> {
        self.all.iter_mut()
    }

    /// How many there are, the empty ones among them.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where clients and datagrams come from.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.all
            .iter()
            .filter_map(|served| served.endpoint.as_ref())
    }

    /// The same, to change it.
    pub(super) fn endpoints_mut(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.all
            .iter_mut()
            .filter_map(|served| served.endpoint.as_mut())
    }

    /// The threads of the records, with the keys of their sockets.
    pub(super) fn writers(&self) -> impl Iterator<Item = (usize, &Writer)> {
        let all = self.all.iter().enumerate();
        all.filter_map(|(key, served)| Some((key, served.writer.as_ref()?)))
    }

    /// Takes out the threads of the records, with the keys of their sockets.
    pub(super) fn take_writers(&mut self) -> impl Iterator<Item = (usize, Writer)> {
        let all = self.all.iter_mut().enumerate();
        all.filter_map(|(key, served)| Some((key, served.writer.take()?)))
    }

    /// Takes out where clients and datagrams come from, with the keys of their sockets: the next process lets
    /// in who waits.
    pub(super) fn take_endpoints(&mut self) -> Vec<(usize, Endpoint)> {
        let all = self.all.iter_mut().enumerate();
        all.filter_map(|(key, served)| Some((key, served.endpoint.take()?)))
            .collect()
    }

    /// Puts a registered endpoint to the socket `key`, which has none, and watches it if it listens: a datagram
    /// socket is watched as the hub says.
    pub(super) fn put(&mut self, key: usize, endpoint: Endpoint, registry: &Registry) {
        let listens = endpoint.listens();
        if listens
            && let Err(error) = epoll::modify(
                registry,
                &endpoint,
                data(key),
                EventFlags::IN | EventFlags::ET,
            )
        {
            let error = io::Error::from(error);
            error!("cannot watch a socket: {error}");
        }
        self.accepting.pending |= listens;
        let served = self.of(key);
        (served.pending, served.rest) = (listens, None);
        served.endpoint = Some(endpoint);
    }

    /// Nobody comes to the socket `key` any more.
    pub(super) fn close(&mut self, key: usize, registry: &Registry) {
        let served = self.of(key);
        (served.pending, served.rest) = (false, None);
        if let Some(endpoint) = served.endpoint.take() {
            deregister(&endpoint, registry);
            endpoint.close();
        }
    }

    /// An event for the socket `key`.
    pub(super) fn event(&mut self, key: usize, hub: &mut Hub<ClientSocket>) {
        let Some(served) = self.all.get_mut(key) else {
            return;
        };
        if served.receives_datagrams() {
            hub.datagram_event(key);
        } else if served.endpoint.is_some() {
            served.pending = true;
            self.accepting.pending = true;
        }
    }

    /// Receives all datagrams that are there for the socket `key`, but not without end.
    pub(super) fn receive_all(&self, key: usize, hub: &mut Hub<ClientSocket>, now: Now) {
        if self.get(key).is_some_and(Served::receives_datagrams) {
            for _ in 0..LAST_BATCHES {
                if !hub.receive(key, now) {
                    return;
                }
            }
        }
    }

    /// Receives datagrams that are there, of each socket; whether anything came.
    pub(super) fn receive(&self, hub: &mut Hub<ClientSocket>, now: Now) -> bool {
        let mut came = false;
        for (key, served) in self.all.iter().enumerate() {
            came |= served.receives_datagrams() && hub.receive(key, now);
        }
        came
    }

    /// Watches the datagram socket of the socket `key` for reading, or for nothing.
    pub(super) fn watch_datagrams(
        &self,
        key: usize,
        read: bool,
        registry: &Registry,
    ) -> io::Result<()> {
        let endpoint = self.get(key).and_then(|served| served.endpoint.as_ref());
        endpoint.map_or(Ok(()), |endpoint| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, read);
            Ok(epoll::modify(registry, endpoint, data(key), flags)?)
        })
    }
}

/// Registers an endpoint, watched for nothing yet.
pub(super) fn register(endpoint: &Endpoint, registry: &Registry) -> io::Result<()> {
    Ok(epoll::add(
        registry,
        endpoint,
        data(0),
        EventFlags::empty(),
    )?)
}

/// Watches it no more. The manager keeps its copy of an inherited one open, and with it the
/// registration.
pub(super) fn deregister(endpoint: &Endpoint, registry: &Registry) {
    if let Err(error) = epoll::delete(registry, endpoint) {
        let error = io::Error::from(error);
        warn!("cannot stop watching a socket: {error}");
    }
}

fn data(key: usize) -> EventData {
    EventData::new_u64((SOCKETS + key) as u64)
}
