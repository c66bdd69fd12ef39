//! A restart that no client notices: hands the hub, its sockets and its clients' descriptors from one process
//! to the next.
//!
//! The process that ends makes a state of the hub, and leaves it with all descriptors in a pair of sockets
//! (`parking`) that the service manager keeps. The next process reads copies, builds everything from them, and
//! only then takes them out of the pair and serves. Until that moment it can be killed, and another can begin
//! anew. The state names each descriptor by its SO_COOKIE (`socket(7)`), and each lock file by its inode.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use log::{error, info, warn};
use rustix::net::{SocketType, sockopt};

use crate::{
    client_socket::{ClientSocket, Sizes},
    config::{BaseDirs, Config, Parsed},
    connection::Stream,
    endpoint::Endpoint,
    handover_state::{self, State},
    parking::{self, ATTEMPTS, Memory, Parking, Stored},
    systemd::{self, Inherited},
};

/// Descriptors that are kept free for the daemon itself where there are too few for all clients.
const SPARE: usize = 64;

/// Has the manager keep a pair of sockets for a handover.
///
/// # Errors
/// Why the manager does not.
pub fn prepare() -> Result<Parking, String> {
    let (parking, near) = Parking::new().map_err(|error| error.to_string())?;
    systemd::store(near.as_fd()).map_err(|error| error.to_string())?;
    drop(near);
    if parking.is_held() {
        return Ok(parking);
    }
    Err("the service manager keeps no descriptors: FileDescriptorStoreMax=1 is missing".into())
}

/// Leaves everything behind in `parking`: `streams` are those of the state's clients, in their order, and
/// `endpoints` those of its sockets, by number. A client that cannot be left is closed.
pub fn leave(
    parking: Parking,
    mut state: State,
    streams: Vec<ClientSocket>,
    endpoints: &mut [(usize, Endpoint)],
) {
    for (socket, endpoint) in &mut *endpoints {
        match endpoint.park() {
            Ok(parked) => state.sockets[*socket].endpoint = Some(parked),
            Err(error) => warn!("cannot hand over a listening socket: {error}"),
        }
    }
    for (client, stream) in state.clients.iter_mut().zip(&streams) {
        // 0 is nobody's.
        client.cookie = sockopt::socket_cookie(stream).unwrap_or(0);
        client.plain = stream.is_plain();
    }
    let own: Vec<BorrowedFd<'_>> = endpoints
        .iter()
        .flat_map(|(_, endpoint)| endpoint.descriptors())
        .collect();
    let descriptors: Vec<BorrowedFd<'_>> = own
        .iter()
        .copied()
        .chain(streams.iter().map(AsFd::as_fd))
        .collect();
    let memory = Memory::new(|file| state.encode(file));
    let left = memory.and_then(|memory| parking.leave(&memory, &descriptors));
    let (sent, why) = match left {
        Ok(left) => left,
        Err(error) => (0, Some(error)),
    };
    let kept = sent.saturating_sub(own.len());
    match why {
        None => info!("clients left to the next process: {kept}"),
        Some(why) => error!(
            "clients left to the next process: {kept}; {} others are closed: {why}",
            streams.len() - kept
        ),
    }
    for stream in streams.into_iter().skip(kept) {
        stream.hang_up();
    }
}

/// What an earlier process has left behind.
#[derive(Debug)]
pub struct Handover {
    stored: Stored,
    /// Its hub.
    pub state: State,
    /// The file that it served by.
    pub config: Config,
    /// Copies of the sockets, by their cookies.
    sockets: HashMap<u64, OwnedFd>,
    /// Copies of the lock files, by device and inode.
    locks: HashMap<(u64, u64), File>,
}

impl Handover {
    /// Looks at what the manager kept. What cannot be used is closed so that clients get an end of stream, and
    /// the log says why. `foreign`: how many descriptors it kept that are no sockets; they are closed already.
    #[must_use]
    pub fn find(stored: Vec<OwnedFd>, foreign: usize) -> Option<Self> {
        if foreign > 0 {
            error!(
                "the descriptor store held descriptors that are no sockets and not udsd's; closed: {foreign}"
            );
        }
        let any = !stored.is_empty() || foreign > 0;
        let mut found = None;
        for near in stored {
            match Self::open(&near) {
                Ok(None) => {}
                Ok(handover) if found.is_none() => found = handover,
                Ok(Some(_)) => end("there are two of it", &near),
                Err(why) => end(&why, &near),
            }
        }
        if found.is_none() && any {
            forget();
        }
        found
    }

    fn open(near: &OwnedFd) -> Result<Option<Self>, String> {
        let text = |error: io::Error| error.to_string();
        let Some(stored) = Stored::find(near).map_err(text)? else {
            return Ok(None);
        };
        let marks = stored.marks().map_err(text)?;
        if marks >= ATTEMPTS {
            return Err(format!("{ATTEMPTS} processes have tried to go on with it"));
        }
        stored.mark().map_err(text)?;
        let state = State::decode(stored.memory()).map_err(text)?;
        // Its paths have no specifiers left, so the directories of today do not matter. A fault of today does not
        // matter either: the file was in force, and an upgrade closes no client for it.
        let parsed = Parsed::new(state.config.as_bytes(), None, &BaseDirs::current());
        let parsed = parsed.map_err(|fault| format!("its config is not understood: {fault}"))?;
        for fault in &parsed.faults {
            info!("before the restart served by what is a fault now: {fault}");
        }
        let (mut descriptors, lacking) = stored.descriptors().map_err(text)?;
        if lacking {
            error!(
                "this process may have fewer open files than the one before it: clients that do not fit are closed; raise LimitNOFILE="
            );
            // The daemon needs some itself, and the last in the list are clients.
            let sockets = 2 * state.sockets.len();
            descriptors.truncate(descriptors.len().saturating_sub(SPARE).max(sockets));
        }
        let (mut sockets, mut locks) = (HashMap::new(), HashMap::new());
        for fd in descriptors {
            if let Ok(cookie) = sockopt::socket_cookie(&fd) {
                sockets.insert(cookie, fd);
                continue;
            }
            let file = File::from(fd);
            if let Ok(found) = file.metadata() {
                locks.insert((found.dev(), found.ino()), file);
            }
        }
        Ok(Some(Handover {
            stored,
            state,
            config: parsed.config.with_control(),
            sockets,
            locks,
        }))
    }

    /// The streams of the state's clients, in their order; `None` where a descriptor is missing.
    pub fn streams(&mut self, state: &State) -> Vec<Option<ClientSocket>> {
        let sizes: Vec<Option<Sizes>> = state.sockets.iter().map(sizes).collect();
        let mut missing = 0;
        let mut streams = Vec::with_capacity(state.clients.len());
        for client in &state.clients {
            let fd = self.sockets.remove(&client.cookie);
            let sizes = sizes.get(client.socket).copied().flatten();
            let stream = fd.and_then(|fd| ClientSocket::resume(fd, sizes, client.plain).ok());
            missing += usize::from(stream.is_none());
            streams.push(stream);
        }
        if missing > 0 {
            error!("clients whose descriptors are missing in what was handed over: {missing}");
        }
        streams
    }

    /// Closes clients whose state cannot be used.
    pub fn end(why: &str, streams: Vec<Option<ClientSocket>>) {
        let mut clients = 0;
        for stream in streams.into_iter().flatten() {
            stream.hang_up();
            clients += 1;
        }
        note_ended(why, clients);
    }

    /// Adds sockets that the earlier process left to the manager alone, where the manager passes them.
    pub fn add(&mut self, passed: &[Inherited]) {
        let endpoints = self
            .state
            .sockets
            .iter()
            .filter_map(|of| of.endpoint.as_ref());
        let cookies: Vec<u64> = endpoints.map(|endpoint| endpoint.cookie).collect();
        for socket in passed {
            if let Ok(cookie) = socket.cookie()
                && cookies.contains(&cookie)
                && !self.sockets.contains_key(&cookie)
                && let Ok(fd) = socket.fd.try_clone()
            {
                self.sockets.insert(cookie, fd);
            }
        }
    }

    /// The descriptor of a socket of the earlier process, and that of its lock file.
    pub fn endpoint(
        &mut self,
        parked: &handover_state::Endpoint,
    ) -> Option<(OwnedFd, Option<File>)> {
        let fd = self.sockets.remove(&parked.cookie)?;
        let lock = parked.file.as_ref();
        Some((fd, lock.and_then(|file| self.locks.remove(&file.lock))))
    }

    /// Takes everything over: from now on no other process can go on with it.
    ///
    /// # Errors
    /// Those of `recv(2)`; then nothing has changed.
    pub fn commit(&self) -> io::Result<()> {
        self.stored.take()
    }

    /// Has the manager forget what was left. Also empties the pair, so that no copy in it holds a client open if
    /// the manager does not.
    pub fn forget(self) {
        forget();
        self.stored.empty();
    }

    /// Ends without having used it, and gives the attempt back: only crashes are to count.
    pub fn postpone(&self) {
        self.stored.unmark();
    }
}

/// How long the packets of a socket's clients may be.
fn sizes(socket: &handover_state::Socket) -> Option<Sizes> {
    let (message, longest) = socket.packets?;
    Some(Sizes::new(message, longest).ok()?.0)
}

/// Closes what waits at `near` and cannot be used, so that clients get an end of stream.
fn end(why: &str, near: &OwnedFd) {
    let mut clients = 0;
    parking::give_up(near, |fd| {
        let is_client = sockopt::socket_acceptconn(&fd) == Ok(false);
        let sizes = match sockopt::socket_type(&fd) {
            Ok(SocketType::STREAM) if is_client => None,
            Ok(SocketType::SEQPACKET) if is_client => Some(Sizes::any()),
            _ => return,
        };
        if let Ok(stream) = ClientSocket::resume(fd, sizes, false) {
            clients += 1;
            stream.hang_up();
        }
    });
    note_ended(why, clients);
}

fn note_ended(why: &str, clients: usize) {
    error!("what was handed over cannot be used ({why}); clients closed: {clients}");
}

/// Has the manager forget what it keeps.
fn forget() {
    if let Err(error) = systemd::empty_store() {
        warn!("the service manager cannot be told to forget what was handed over: {error}");
    }
}
