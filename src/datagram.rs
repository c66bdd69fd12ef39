//! One datagram socket: the connectionless twin of `connection`. Its senders have no stream and no
//! end; what one of them is owed waits by its address, what the record has no room for waits here.
//!
//! It knows nothing of access, services and records: the hub decides, this keeps what waits, its
//! bounds and its times.

mod numbers;
mod replies;

use std::{collections::VecDeque, fmt, io, time::Instant};

use crate::{
    envelope::{Address, Envelope},
    peer::{ClientId, Peer},
};

use numbers::Numbers;
pub use replies::{Lost, Replies, Reply, Why};

/// Datagrams that one call may receive.
pub const BATCH: usize = 64;

/// A socket of datagrams that never waits: a Unix socket, or a script in memory.
pub trait Datagrams: fmt::Debug {
    /// Receives what is there, at most `BATCH`, each into `slot` bytes of its own of `buffer`, one
    /// behind the other; what is longer is cut. `envelopes`, which is empty, gets one for each.
    /// Descriptors that came with them are closed.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        envelopes: &mut Vec<Envelope>,
    ) -> io::Result<()>;

    /// Sends one datagram to a socket that `owner` has at this address.
    ///
    /// # Errors
    /// `WouldBlock` where it may fit later; any other error says that it cannot be delivered.
    fn send(&mut self, to: &Address, owner: u32, bytes: &[u8]) -> io::Result<()>;

    /// Receives no more. Where nobody else will, what waits is read away: its bytes are returned.
    fn hang_up(&mut self) -> usize;
}

/// Who sent a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its number; 0 where it has no address, for then nothing tells it from others.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
    /// Its address.
    pub address: Address,
}

/// A datagram that was received and has not been taken.
#[derive(Debug)]
pub struct Letter {
    /// Who sent it.
    pub from: Sender,
    /// What was kept of it.
    pub bytes: Box<[u8]>,
    /// That is only its first part.
    pub truncated: bool,
}

/// A datagram socket and all that waits for it.
#[derive(Debug)]
pub struct Exchange {
    /// The socket itself.
    pub mailbox: Box<dyn Datagrams>,
    /// What its senders are owed.
    pub replies: Replies,
    /// The rest of a batch that the record had no room for: while there is one, nothing is received.
    pub held: VecDeque<Letter>,
    /// The record has room again.
    pub called: bool,
    /// Receiving failed, and rests until then.
    pub rest: Option<Instant>,
    /// The stop: nothing more is received.
    pub ending: bool,
    numbers: Numbers,
}

impl Exchange {
    /// A socket at which nothing has come yet.
    #[must_use]
    pub fn new(mailbox: Box<dyn Datagrams>) -> Self {
        Exchange {
            mailbox,
            replies: Replies::default(),
            held: VecDeque::new(),
            called: false,
            rest: None,
            ending: false,
            numbers: Numbers::default(),
        }
    }

    /// Whether the event loop is to watch for datagrams.
    #[must_use]
    pub fn receives(&self) -> bool {
        !self.ending && self.held.is_empty() && self.rest.is_none()
    }

    /// Whether something that was read is not yet where it belongs.
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.held.is_empty() || !self.replies.is_empty()
    }

    /// When there is something to do without an event.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.replies.deadline().into_iter().chain(self.rest).min()
    }

    /// The sender of a datagram; `next` gives a number to one that is not known. The flag says that
    /// this one got it.
    pub fn sender(&mut self, of: &Envelope, next: impl FnOnce() -> u64) -> (Sender, bool) {
        let Envelope { from, peer, .. } = *of;
        let (id, is_new) = match from.place() {
            None => (0, false),
            Some(_) => self.numbers.of((from, peer.uid), next),
        };
        let sender = Sender {
            id: ClientId(id),
            peer,
            address: from,
        };
        (sender, is_new)
    }
}
