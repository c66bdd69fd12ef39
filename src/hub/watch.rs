//! What the event loop is to watch for. It follows from the state of a client or of a datagram socket: nothing
//! is watched that is not acted on, for an event that nobody acts on would come again at once.

use std::{collections::VecDeque, mem};

use super::Hub;
use crate::{
    connection::{Connection, Stream, Watch},
    peer::ClientId,
};

/// A change in what the event loop is to watch for.
#[derive(Debug)]
pub enum WatchChange<'a, S> {
    /// Of client `key`, whose stream this is. A newcomer was not watched before.
    Client {
        /// As `Hub::enter` returned it.
        key: usize,
        /// What to watch.
        stream: &'a S,
        /// What it was watched for.
        from: Watch,
        /// What it is watched for from now on.
        to: Watch,
    },
    /// Of the datagram socket of this socket: whether it is read.
    Datagrams {
        /// The socket's key.
        socket: usize,
        /// Whether it is to be watched for reading.
        read: bool,
    },
}

/// Clients that are to be watched for something else than before, in the order in which that came about.
#[derive(Debug, Default)]
pub(super) struct WatchChanges(VecDeque<(usize, ClientId, Watch, Watch)>);

impl WatchChanges {
    /// Notes what the state of client `key` asks for now.
    #[inline]
    pub(super) fn note<S: Stream>(&mut self, key: usize, client: &mut Connection<S>) {
        let wanted = client.watch();
        if client.watched != wanted {
            self.add(key, client, wanted);
        }
    }

    #[cold]
    fn add<S>(&mut self, key: usize, client: &mut Connection<S>, wanted: Watch) {
        let watched = mem::replace(&mut client.watched, wanted);
        self.0.push_back((key, client.id, watched, wanted));
    }
}

impl<S: Stream> Hub<S> {
    /// The next change since this was last asked, before the event loop waits.
    pub fn next_watch_change(&mut self) -> Option<WatchChange<'_, S>> {
        while let Some((key, id, from, to)) = self.watch_changes.0.pop_front() {
            // Another client may have its key by now.
            if self.clients.get(key).is_some_and(|client| client.id == id) {
                let stream = &self.clients[key].stream;
                return Some(WatchChange::Client {
                    key,
                    stream,
                    from,
                    to,
                });
            }
        }
        self.sockets.iter_mut().find_map(|(socket, of)| {
            let read = of.receives_datagrams();
            let open = of.open.as_mut()?;
            let is_changed = mem::replace(&mut open.is_watched, read) != read;
            is_changed.then_some(WatchChange::Datagrams { socket, read })
        })
    }
}
