//! One datagram socket: what `connection` is to a client, for senders that are not connected. What a sender
//! is owed waits by its address. Datagrams for which the record has no room wait here.
//!
//! The hub decides by access, services and records. This keeps what waits, with its bounds and times.

mod numbers;
mod replies;
mod shares;

use std::{collections::VecDeque, fmt, io, iter, mem, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    datagram_header::{Address, Header},
    limits::{Charge, Limits},
    peer::{ClientId, Peer},
    serde_base64,
};

use numbers::Numbers;
pub use replies::{Blame, Lost, Replies, Reply, Sending, Why};

/// Receivers of one socket that something may wait for.
const RECEIVERS: usize = 1024;

/// What a waiting datagram costs beside its bytes, so that empty ones are not free.
const OVERHEAD: usize = 64;

/// What a datagram costs while it waits, in bytes.
fn cost(datagram: &[u8]) -> usize {
    datagram.len() + OVERHEAD
}

/// Counts a datagram that waits for its sender's user.
fn charge(datagram: &HeldDatagram, limits: &mut Limits) -> Charge {
    let mut charge = Charge::new(datagram.from.peer.uid);
    charge.settle(limits, cost(&datagram.bytes));
    charge
}

/// A socket of datagrams that never waits: a Unix socket, or a script in memory.
pub trait Datagrams: fmt::Debug {
    /// Receives what is there, at most `datagram_header::BATCH`, each into `slot` bytes of its own of `buffer`, one
    /// behind the other; what is longer is cut. `headers`, which is empty, gets one for each.
    /// Descriptors that came with them are closed.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        headers: &mut Vec<Header>,
    ) -> io::Result<()>;

    /// Sends one datagram to a socket that `owner` has at this address.
    ///
    /// # Errors
    /// `WouldBlock` where it may fit later; any other error says that it cannot be delivered.
    fn send(&mut self, to: &Address, owner: u32, bytes: &[u8]) -> io::Result<()>;

    /// Bytes that were sent and that no receiver has read, as the kernel counts them.
    fn unread(&self) -> usize;

    /// How many of them there may be (SO_SNDBUF).
    fn send_buffer(&self) -> usize;

    /// Nobody else receives from it any more: what waits there is this process' alone.
    fn disown(&mut self);

    /// Lets nothing more come; what waits can still be received. False where somebody else receives
    /// from it: what waits there is left to them.
    fn shut_down(&mut self) -> bool;

    /// Receives no more. Where nobody else will, what waits is read away: its bytes are returned.
    fn hang_up(&mut self) -> usize;
}

/// Who sent a datagram.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DatagramSender {
    /// Its number; 0 where it has no address, for then nothing tells it from others.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
    /// Its address.
    pub address: Address,
}

/// A datagram that was received and has not been taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldDatagram {
    /// Who sent it.
    pub from: DatagramSender,
    /// What was kept of it.
    #[serde(with = "serde_base64")]
    pub bytes: Box<[u8]>,
    /// That is only its first part.
    pub truncated: bool,
}

/// What waits at a datagram socket, and its senders' numbers, as one process hands them to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatagramState {
    held: Vec<HeldDatagram>,
    owed: Vec<replies::UnsentReplies>,
    numbers: numbers::SavedNumbers,
}

/// A datagram socket that is open.
#[derive(Debug)]
pub struct OpenSocket {
    /// The socket itself.
    pub datagrams: Box<dyn Datagrams>,
    /// The number of its user among those who take turns: all datagram sockets are of one.
    pub user: u32,
    /// It waits for its turn.
    pub listed: bool,
    /// An event said since its last turn that there is something to receive.
    pub event: bool,
    /// Its timer, where it is set.
    pub timer: Option<Instant>,
    /// The event loop is to watch it, as it was last told.
    pub is_watched: bool,
    /// Receiving failed, and rests until then.
    pub rest: Option<Instant>,
    /// Nothing more is received.
    pub ending: bool,
}

impl OpenSocket {
    /// One from which nothing was received yet.
    #[must_use]
    pub fn new(datagrams: Box<dyn Datagrams>, user: u32) -> Self {
        OpenSocket {
            datagrams,
            user,
            listed: false,
            event: false,
            timer: None,
            is_watched: false,
            rest: None,
            ending: false,
        }
    }
}

/// What waits at a datagram socket, or until it is open.
#[derive(Debug, Default)]
pub struct Pending {
    /// What its senders are owed.
    pub replies: Replies,
    /// The rest of a batch that the record had no room for: while there is one, nothing is received.
    held: VecDeque<(HeldDatagram, Charge)>,
    numbers: Numbers,
}

impl Pending {
    /// As one process hands it to the next.
    #[must_use]
    pub fn park(self, now: Instant) -> DatagramState {
        let held = self.held.into_iter().map(|(datagram, _)| datagram);
        DatagramState {
            held: held.collect(),
            owed: self.replies.park(now),
            numbers: self.numbers.park(),
        }
    }

    /// Goes on with what waited in an earlier process; nothing of it is refused.
    #[must_use]
    pub fn resume(parked: DatagramState, limits: &mut Limits, now: Instant) -> Self {
        let mut pending = Pending::default();
        for datagram in parked.held {
            pending.hold(datagram, limits);
        }
        pending.replies.resume(parked.owed, limits, now);
        pending.numbers.resume(parked.numbers);
        pending
    }

    /// Takes out what another socket in its place goes on with: what is held, and the senders'
    /// numbers. Who is owed a reply knows this one, and gets it from here.
    #[must_use]
    pub fn take_received(&mut self) -> Self {
        Pending {
            replies: Replies::default(),
            held: mem::take(&mut self.held),
            numbers: mem::take(&mut self.numbers),
        }
    }

    /// Datagrams that wait, of either kind.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.held() + self.replies.waiting()
    }

    /// Gives up what is held; returns how many datagrams.
    pub fn give_up_held(&mut self, limits: &mut Limits) -> u64 {
        iter::from_fn(|| self.next_held(limits)).count() as u64
    }

    /// Holds what the record had no room for. Its bytes count for its sender's user, though nothing
    /// refuses them: they were read, and are one batch.
    pub fn hold(&mut self, datagram: HeldDatagram, limits: &mut Limits) {
        let charge = charge(&datagram, limits);
        self.held.push_back((datagram, charge));
    }

    /// The next of what is held, which counts no more; to be put back where it is not taken.
    pub fn next_held(&mut self, limits: &mut Limits) -> Option<HeldDatagram> {
        let (datagram, mut charge) = self.held.pop_front()?;
        charge.settle(limits, 0);
        Some(datagram)
    }

    /// Puts back what `next_held` gave.
    pub fn put_back(&mut self, datagram: HeldDatagram, limits: &mut Limits) {
        let charge = charge(&datagram, limits);
        self.held.push_front((datagram, charge));
    }

    /// Datagrams that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The sender of a datagram; `next` gives a number to one that is not known. The flag says that
    /// this one got it.
    pub fn sender(&mut self, of: &Header, next: impl FnOnce() -> u64) -> (DatagramSender, bool) {
        let Header { from, peer, .. } = *of;
        let (id, is_new) = match from.kind() {
            None => (0, false),
            Some(_) => self.numbers.of((from, peer.uid), next),
        };
        let sender = DatagramSender {
            id: ClientId(id),
            peer,
            address: from,
        };
        (sender, is_new)
    }
}
