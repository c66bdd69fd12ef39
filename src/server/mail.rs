//! The datagram sockets in the event loop: watched level-triggered, like clients, for as long as the
//! hub receives from them.

use std::{io, os::fd::OwnedFd, rc::Rc, time::Instant};

use mio::Registry;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::DATAGRAMS;
use crate::{hub::Hub, link::Link, mailbox::Mailbox};

/// All datagram sockets, in the order of their numbers in the hub.
pub(super) struct Mail(Vec<Watched>);

struct Watched {
    fd: Rc<OwnedFd>,
    watched: bool,
}

impl Mail {
    /// Hands the mailboxes to the hub, each for the socket with its number, and registers them. They
    /// stay registered: adding one again could fail for want of memory, a change cannot.
    pub(super) fn new(
        mailboxes: Vec<(usize, Mailbox)>,
        hub: &mut Hub<Link>,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<Self> {
        let mut all = Vec::new();
        for (socket, mailbox) in mailboxes {
            let fd = mailbox.socket();
            let number = hub.open(socket, Box::new(mailbox), now);
            epoll::add(registry, &fd, data(number), EventFlags::empty())?;
            all.push(Watched { fd, watched: false });
        }
        Ok(Mail(all))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Watches those that the hub receives from, and no others: an event that nobody acts on would
    /// come again at once.
    pub(super) fn watch(&mut self, hub: &Hub<Link>, registry: &Registry) -> io::Result<()> {
        for (number, socket) in self.0.iter_mut().enumerate() {
            let wanted = hub.receives(number);
            if wanted != socket.watched {
                let mut flags = EventFlags::empty();
                flags.set(EventFlags::IN, wanted);
                epoll::modify(registry, &socket.fd, data(number), flags)?;
                socket.watched = wanted;
            }
        }
        Ok(())
    }
}

fn data(number: usize) -> EventData {
    EventData::new_u64((DATAGRAMS + number) as u64)
}
