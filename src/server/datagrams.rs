//! The datagram sockets in the event loop: watched level-triggered, like clients, for as long as the
//! hub receives from them.

use std::{io, os::fd::OwnedFd, rc::Rc};

use log::warn;
use mio::Registry;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::DATAGRAMS;
use crate::{
    accepted::Accepted,
    hub::{Hub, Now},
};

/// Batches that may be received of a socket before another takes its place.
const LAST_BATCHES: usize = 1024;

/// All datagram sockets, in the places of the hub's sockets.
#[derive(Default)]
pub(super) struct DatagramSockets(Vec<Option<Watched>>);

struct Watched {
    fd: Rc<OwnedFd>,
    watched: bool,
}

impl DatagramSockets {
    /// Takes in a registered datagram socket.
    pub(super) fn put(&mut self, socket: usize, fd: Rc<OwnedFd>) {
        if self.0.len() <= socket {
            self.0.resize_with(socket + 1, || None);
        }
        self.0[socket] = Some(Watched { fd, watched: false });
    }

    /// Lets go of the datagram socket of socket number `socket`, if there is one.
    pub(super) fn remove(&mut self, socket: usize, registry: &Registry) {
        if let Some(old) = self.0.get_mut(socket).and_then(Option::take) {
            deregister(&old.fd, registry);
        }
    }

    /// An event for socket number `socket`.
    pub(super) fn event(&self, socket: usize, hub: &mut Hub<Accepted>) {
        if let Some(Some(_)) = self.0.get(socket) {
            hub.datagram_event(socket);
        }
    }

    /// Receives what is there for socket number `socket`, but not without end.
    pub(super) fn receive_all(&self, socket: usize, hub: &mut Hub<Accepted>, now: Now) {
        if let Some(Some(_)) = self.0.get(socket) {
            for _ in 0..LAST_BATCHES {
                if !hub.receive(socket, now) {
                    return;
                }
            }
        }
    }

    /// Receives what is there on all of them; whether anything came.
    pub(super) fn receive(&self, hub: &mut Hub<Accepted>, now: Now) -> bool {
        let mut came = false;
        for (socket, of) in self.0.iter().enumerate() {
            came |= of.is_some() && hub.receive(socket, now);
        }
        came
    }

    /// Watches those that the hub receives from, and no others: an event that nobody acts on would
    /// come again at once.
    pub(super) fn watch(&mut self, hub: &Hub<Accepted>, registry: &Registry) -> io::Result<()> {
        for (socket, of) in self.0.iter_mut().enumerate() {
            let Some(of) = of else { continue };
            let wanted = hub.receives(socket);
            if wanted != of.watched {
                let mut flags = EventFlags::empty();
                flags.set(EventFlags::IN, wanted);
                epoll::modify(registry, &of.fd, data(socket), flags)?;
                of.watched = wanted;
            }
        }
        Ok(())
    }
}

/// Registers what is to be the datagram socket of socket number `socket`, watched for nothing yet. It stays
/// registered: adding it again could fail for want of memory, a change cannot.
pub(super) fn register(fd: &OwnedFd, socket: usize, registry: &Registry) -> io::Result<()> {
    Ok(epoll::add(registry, fd, data(socket), EventFlags::empty())?)
}

/// Takes it out again.
pub(super) fn deregister(fd: &OwnedFd, registry: &Registry) {
    if let Err(error) = epoll::delete(registry, fd) {
        warn!(
            "cannot stop watching a datagram socket: {}",
            io::Error::from(error)
        );
    }
}

fn data(socket: usize) -> EventData {
    EventData::new_u64((DATAGRAMS + socket) as u64)
}
