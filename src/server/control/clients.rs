//! The answer to `Clients`, in parts: who is connected, with their units, for which it may have to wait.

use serde::Deserialize;

use super::{Answer, LATER, expect_more, no_such_socket, seconds};
use crate::{
    client_socket::ClientSocket,
    config::ServiceKind,
    connection::{Connection, waits::Awaits},
    control::{
        Client, Clients,
        varlink::{Call, Reply},
    },
    hub::{Found, Now, Socket},
    server::Server,
    service::PendingCall,
    unit::UnitLookup,
};

/// Clients in one part of the answer.
const PART: usize = 16;
/// Those behind them whose units are looked up too where it has to wait: it waits once for all of them.
const AHEAD: usize = 256;
/// What a look at one key counts, and the look-up of a unit, as bytes of a reply.
const LOOK: usize = 4;
const LOOK_UP: usize = 128;

/// Of whom to tell; by default of all but the control socket's clients, who only ask.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Meant {
    socket: Option<String>,
    uid: Option<u32>,
}

impl Meant {
    fn includes(&self, client: &Connection<ClientSocket>, of: &Socket) -> bool {
        let is_of_socket = match &self.socket {
            Some(name) => name == of.name(),
            None => !of.is_control(),
        };
        is_of_socket && self.uid.is_none_or(|uid| uid == client.peer.uid)
    }
}

impl Server {
    pub(super) fn tell_clients(
        &mut self,
        pending: &PendingCall,
        call: &Call,
        now: Now,
    ) -> Result<Answer, Reply> {
        let meant: Meant = call.parameters()?;
        expect_more(call)?;
        if let Some(name) = &meant.socket {
            self.key(name).ok_or_else(|| no_such_socket(name))?;
        }
        let found = self.choose(pending.reached, PART, &meant);
        let work = found.reached.saturating_sub(pending.reached) * LOOK;
        if !self.look_up_units(&found.keys) {
            let ahead = self.choose(found.reached, AHEAD, &meant);
            self.look_up_units(&ahead.keys);
            let look_ups = found.keys.len() + ahead.keys.len();
            let work = work + (ahead.reached - found.reached) * LOOK + look_ups * LOOK_UP;
            return Ok(Answer { work, ..LATER });
        }
        let told = found.keys.iter().filter_map(|&key| {
            let client = self.hub.client(key)?;
            let socket = &self.hub.sockets()[client.socket as usize];
            Some(tell_client(client, socket, now))
        });
        let clients = told.collect();
        let reply = match found.is_all {
            true => Reply::last(Clients { clients }),
            false => Reply::more(Clients { clients }),
        };
        Ok(Answer {
            reply: Some(reply),
            work,
            reached: found.reached,
        })
    }

    /// The next clients of whom to tell, with keys from `first` on.
    fn choose(&self, first: usize, most: usize, meant: &Meant) -> Found {
        let includes = |client: &_, of: &_| meant.includes(client, of);
        self.hub.find_clients(first, most, includes)
    }

    /// Looks up the units of these clients, of all before it waits for one. Returns whether all have ended.
    fn look_up_units(&mut self, keys: &[usize]) -> bool {
        let waits = |key: &&usize| !self.hub.look_up_unit(**key);
        keys.iter().filter(waits).count() == 0
    }
}

fn tell_client(client: &Connection<ClientSocket>, socket: &Socket, now: Now) -> Client {
    let traffic = client.traffic;
    let unit = client.unit.as_ref().and_then(UnitLookup::unit);
    let unit = unit.cloned().unwrap_or_default();
    let messages_out = match socket.nature().service {
        ServiceKind::Echo => traffic.messages_in,
        // All that came since it is here, but its own.
        ServiceKind::Relay => (socket.counters().messages)
            .saturating_sub(traffic.before)
            .saturating_sub(traffic.messages_in),
        ServiceKind::Collect | ServiceKind::Control => 0,
    };
    Client {
        id: client.id.0,
        socket: socket.name().into(),
        uid: client.peer.uid,
        gid: client.peer.gid,
        pid: client.peer.process(),
        unit: unit.unit,
        user_unit: unit.user_unit,
        age: seconds(client.since, now),
        idle: seconds(client.active, now),
        queue: client.queue.len(),
        held: client.weight(),
        messages_in: traffic.messages_in,
        bytes_in: traffic.bytes_in,
        messages_out: messages_out.saturating_sub(traffic.dropped),
        bytes_out: traffic.bytes_out,
        dropped: traffic.dropped,
        waits_for: waits_for(client).map(Into::into),
        holds_up: client.holds_up,
    }
}

/// Why nothing is read from a client.
fn waits_for(client: &Connection<ClientSocket>) -> Option<&'static str> {
    match client.awaits {
        Some(Awaits::Room) => Some("receivers or record"),
        Some(Awaits::Quota) => Some("quota"),
        Some(Awaits::Turn) => Some("turn"),
        Some(Awaits::Answer) => Some("answer"),
        None => client.is_blocked().then_some("queue"),
    }
}
