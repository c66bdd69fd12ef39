//! Who comes in: a newcomer is judged by its socket's access rules, then by the limits.

use std::io::{self, IoSlice};

use super::{Hub, Now, Socket, Timer, set};
use crate::{
    connection::{Connection, Stream},
    control,
    error::Close,
    limits::{Charge, Over, OverKey},
    peer::{ClientId, Peer},
    service::Outbox,
};

impl<S: Stream> Hub<S> {
    /// A client comes by socket `number`. Returns its key, for events. If an access list or a limit keeps it
    /// out, its stream is ended and `None` returned. `groups`: its supplementary groups, if the socket asks for them.
    pub fn enter(
        &mut self,
        number: usize,
        stream: S,
        peer: Peer,
        groups: &[u32],
        now: Now,
    ) -> Option<usize> {
        let socket = &mut self.sockets[number];
        // Who is refused is closed with all unread, which shows as ECONNRESET and not as an end of file.
        // Before the limits: raising one would not let this client in.
        if !socket.rules.access.admits(&peer, groups) {
            stream.cut_off();
            socket.denied("a client", &peer, now);
            return None;
        }
        let places = match socket.is_control() {
            true => &mut self.callers,
            false => &mut self.limits,
        };
        if let Err(over) = places.enter(peer.uid, socket.present, socket.rules.clients) {
            socket.turn_away(stream, &peer, over, now);
            return None;
        }
        socket.present += 1;
        socket.counters.clients += 1;
        self.ids += 1;
        let id = ClientId(self.ids);
        socket.entered(id, &peer, now);
        let mut client = Connection::new(id, peer, number as u32, stream, now.instant);
        let user = socket.user_of(&peer);
        client.charge = Charge::new(user);
        client.traffic.before = socket.counters.messages;
        client.user = self.users.enter(user);
        let key = self.clients.insert(client);
        socket.service.join(
            key,
            &mut Outbox::new(
                &mut self.clients,
                &mut self.limits,
                &mut self.effects,
                socket.rules.queue_size,
                now,
            ),
        );
        let client = &mut self.clients[key];
        if !self.effects.is_empty() {
            // It was written to, which its turn follows up.
            self.ready.list(client, key);
        }
        self.watch_changes.note(key, client);
        if let Some(timeout) = socket.rules.idle_timeout {
            let due = now.instant + timeout;
            set(&mut self.timers, client, key, Timer::Idle, due);
        }
        // What others had said may have been given out for it, and more can be said.
        self.call(number, now);
        Some(key)
    }

    /// A client came by socket `number` that cannot be served: `files` descriptors are open,
    /// and there may be no more.
    pub fn refuse(&mut self, number: usize, stream: S, peer: &Peer, files: usize, now: Now) {
        let over = Over {
            key: OverKey::Files,
            limit: files,
        };
        self.sockets[number].turn_away(stream, peer, over, now);
    }

    /// An administrator ends client `id`. Returns whether it was here.
    pub fn disconnect(&mut self, id: ClientId, now: Now) -> bool {
        let found = self.clients.iter().find(|(_, client)| client.id == id);
        let Some((key, _)) = found else {
            return false;
        };
        self.close(key, &Close::Disconnected, now);
        true
    }

    /// Client `key` had left before it was let in, and had sent nothing.
    pub fn leave(&mut self, key: usize, now: Now) {
        self.close(key, &Close::Done, now);
    }

    /// The event loop cannot watch client `key`: it is closed.
    pub fn fail(&mut self, key: usize, error: io::Error, now: Now) {
        self.close(key, &Close::Io(error), now);
    }
}

impl Socket {
    /// Ends a client that is over a limit. At the control socket it learns the reason: who may ask, and finds no
    /// place, would else take that for a lack of access.
    fn turn_away<S: Stream>(&mut self, mut stream: S, peer: &Peer, over: Over, now: Now) {
        if self.is_control() {
            let reply = control::refused(over).encode();
            // A new stream has room for it, and who is gone needs no answer.
            let _ = stream.write(&[IoSlice::new(&reply)]);
        }
        stream.cut_off();
        self.refused(peer, over, now);
    }
}
