//! One client: bytes in, messages, queue, bytes out.
//!
//! `Input` cuts what was read into batches and keeps what is not yet a whole message or not yet
//! taken; `Connection` adds the stream, the queue and what the hub must know of the client. Neither
//! decides what a message is for: batches go to the closure that the hub passes in.

use std::{
    io::{self, IoSlice},
    mem,
    time::Instant,
};

use crate::{
    batch::Batch,
    error::Close,
    frame::{Cut, Framing, Skip},
    peer::{ClientId, Peer},
    queue::Queue,
    sys::Received,
};

/// A connected byte stream that never waits: a Unix socket, or a script in memory.
pub trait Stream {
    /// Reads what is there. `Received::control` says that the read stopped at control data.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits; any other error ends the client.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Writes as much as fits, all parts in one call.
    ///
    /// # Errors
    /// `WouldBlock` where nothing fits; any other error ends the client.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends both directions and reads away what the client had sent, so that it sees end of file
    /// and not ECONNRESET. Returns the bytes that were read away.
    fn hang_up(&mut self) -> usize;
}

/// How messages are cut on a socket.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `framing`
    pub framing: Framing,
    /// `message-size`, bytes.
    pub message_size: usize,
    /// Keep the first part of a longer message, in place of closing its sender.
    pub truncate: bool,
}

/// What became of the bytes that were fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Every whole message was taken.
    All,
    /// The service did not take all; the rest is held.
    Blocked,
}

/// The bytes of one client that are not yet delivered. Holds no memory where there are none.
///
/// `held` is: messages already taken (`start` bytes), whole messages that wait (`whole` bytes), and
/// what followed them. Without waiting messages it is the start of one unfinished message.
#[derive(Debug, Default)]
pub struct Input {
    held: Vec<u8>,
    start: usize,
    whole: usize,
    /// The waiting bytes are the kept part of a truncated message.
    truncated: bool,
    skip: Option<Skip>,
}

impl Input {
    /// Whether whole messages wait for the service.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.whole > 0
    }

    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len() - self.start
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts `bytes`, which were just read, and delivers what is whole. Only C-string padding in
    /// `bytes` is written to. Not to be called while blocked.
    ///
    /// # Errors
    /// Those of `deliver`, and `MessageTooLong` where the rule does not truncate.
    pub fn feed(
        &mut self,
        mut bytes: &mut [u8],
        rule: &Rule,
        deliver: &mut impl FnMut(Batch<'_>) -> Result<usize, Close>,
    ) -> Result<Fed, Close> {
        debug_assert!(!self.is_blocked(), "fed while messages wait");
        let Rule {
            framing,
            message_size: limit,
            truncate,
        } = *rule;
        loop {
            if let Some(skip) = self.skip.take() {
                let (passed, rest) = framing.skip(skip, bytes);
                self.skip = rest;
                bytes = &mut bytes[passed..];
            }
            if self.held.is_empty() {
                // Straight from the read buffer.
                framing.blank(bytes);
                let batch = Batch::scan(framing, bytes, limit);
                let whole = batch.bytes.len();
                if whole > 0 {
                    let taken = deliver(batch)?;
                    if taken < whole {
                        self.held.extend_from_slice(&bytes[taken..]);
                        self.whole = whole - taken;
                        return Ok(Fed::Blocked);
                    }
                    bytes = &mut bytes[whole..];
                }
            }
            if bytes.is_empty() {
                return Ok(Fed::All);
            }
            match framing.cut(&self.held, bytes, limit) {
                // Filler stands only where nothing is held, and `scan` has passed over that.
                Cut::Whole(n) | Cut::Filler(n) => {
                    self.held.extend_from_slice(&bytes[..n]);
                    self.whole = self.held.len();
                    framing.blank(&mut self.held);
                    bytes = &mut bytes[n..];
                }
                Cut::Partial => {
                    self.held.extend_from_slice(bytes);
                    return Ok(Fed::All);
                }
                Cut::TooLong { .. } if !truncate => {
                    return Err(Close::MessageTooLong { limit });
                }
                Cut::TooLong { body, .. } if self.held.len() + bytes.len() < body + limit => {
                    self.held.extend_from_slice(bytes);
                    return Ok(Fed::All);
                }
                Cut::TooLong { body, skip } => {
                    let n = (body + limit).saturating_sub(self.held.len());
                    self.held.extend_from_slice(&bytes[..n]);
                    self.held.truncate(body + limit);
                    self.start = body;
                    self.whole = limit;
                    self.truncated = true;
                    self.skip = Some(skip);
                    bytes = &mut bytes[n..];
                }
            }
            if self.deliver_whole(framing, deliver)? == Fed::Blocked {
                self.held.extend_from_slice(bytes);
                return Ok(Fed::Blocked);
            }
            self.held = Vec::new();
            self.start = 0;
        }
    }

    /// Delivers what waited, then goes on with what came behind it.
    ///
    /// # Errors
    /// As `feed`.
    pub fn resume(
        &mut self,
        rule: &Rule,
        deliver: &mut impl FnMut(Batch<'_>) -> Result<usize, Close>,
    ) -> Result<Fed, Close> {
        if !self.is_blocked() {
            return Ok(Fed::All);
        }
        if self.deliver_whole(rule.framing, deliver)? == Fed::Blocked {
            return Ok(Fed::Blocked);
        }
        let mut held = mem::take(&mut self.held);
        let start = mem::take(&mut self.start);
        self.feed(&mut held[start..], rule, deliver)
    }

    /// At end of stream: what is left becomes a message, where the framing lets it.
    ///
    /// # Errors
    /// Those of `deliver`.
    pub fn finish(
        &mut self,
        rule: &Rule,
        deliver: &mut impl FnMut(Batch<'_>) -> Result<usize, Close>,
    ) -> Result<Fed, Close> {
        let too_long = || {
            matches!(
                rule.framing.cut(&[], &self.held, rule.message_size),
                Cut::TooLong { .. }
            )
        };
        if self.skip.is_some() || self.held.is_empty() || too_long() {
            return Ok(Fed::All);
        }
        if !rule.framing.finish(&mut self.held) {
            return Ok(Fed::All);
        }
        self.whole = self.held.len();
        let fed = self.deliver_whole(rule.framing, deliver)?;
        if fed == Fed::All {
            self.held = Vec::new();
            self.start = 0;
        }
        Ok(fed)
    }

    fn deliver_whole(
        &mut self,
        framing: Framing,
        deliver: &mut impl FnMut(Batch<'_>) -> Result<usize, Close>,
    ) -> Result<Fed, Close> {
        let bytes = &self.held[self.start..self.start + self.whole];
        let batch = if self.truncated {
            Batch::truncated(framing, bytes)
        } else {
            Batch::scan(framing, bytes, usize::MAX)
        };
        let taken = deliver(batch)?;
        self.start += taken;
        self.whole -= taken;
        if self.whole > 0 {
            return Ok(Fed::Blocked);
        }
        self.truncated = false;
        Ok(Fed::All)
    }
}

/// How many kinds of timers a client may have.
pub const TIMERS: usize = 2;

/// A client and its stream.
#[derive(Debug)]
pub struct Connection<S> {
    /// Its number.
    pub id: ClientId,
    /// Its sender, from the kernel.
    pub peer: Peer,
    /// The socket it came by: an index into the hub's sockets.
    pub socket: u32,
    /// An event said that there is something to read, and no read has said otherwise since.
    pub readable: bool,
    /// Only WouldBlock or the end may end the reading: see `Readiness::stops_short`.
    pub thorough: bool,
    /// It stands on the ready list.
    pub listed: bool,
    /// The event loop was told to watch for room to write.
    pub watching_room: bool,
    /// It waits for room in its socket's record.
    pub awaits_record: bool,
    /// Nothing more is read; closed for this reason once it has what it is owed.
    pub ending: Option<Close>,
    /// When bytes last went either way.
    pub active: Instant,
    /// Since when its queue has stood full, and what it has taken since then.
    pub full: Option<Full>,
    /// Its timers, each where it is set.
    pub timers: [Option<Instant>; TIMERS],
    /// What it sent.
    pub input: Input,
    /// What it is owed.
    pub queue: Queue,
    /// The stream itself.
    pub stream: S,
}

/// A queue that is full.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// Since when.
    pub since: Instant,
    /// Bytes the client has taken since.
    pub taken: usize,
}

impl<S: Stream> Connection<S> {
    /// A client that has just come.
    pub fn new(id: ClientId, peer: Peer, socket: u32, stream: S, now: Instant) -> Self {
        Connection {
            id,
            peer,
            socket,
            readable: false,
            thorough: false,
            listed: false,
            watching_room: false,
            awaits_record: false,
            ending: None,
            active: now,
            full: None,
            timers: [None; TIMERS],
            input: Input::default(),
            queue: Queue::default(),
            stream,
        }
    }

    /// Writes `bytes` past the queue, which must be empty; returns how many the kernel took.
    ///
    /// # Errors
    /// `HangUp` where the client is gone, `Io` for the rest.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Close> {
        debug_assert!(self.queue.is_empty(), "wrote past a queue");
        accept_write(self.stream.write(&[IoSlice::new(bytes)]))
    }

    /// Writes what waits, in one call.
    ///
    /// A short write means that the kernel's buffer is full, so there is no need to try again: room
    /// that comes later brings an event (`unix_write_space` wakes after the failed allocation).
    ///
    /// # Errors
    /// As `write`.
    pub fn flush(&mut self, now: Instant) -> Result<(), Close> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let written = accept_write(self.stream.write(&self.queue.parts()))?;
        if written > 0 {
            self.queue.consume(written);
            self.active = now;
            if let Some(full) = &mut self.full {
                full.taken += written;
            }
        }
        Ok(())
    }
}

fn accept_write(result: io::Result<usize>) -> Result<usize, Close> {
    match result {
        Ok(written) => Ok(written),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(Close::HangUp),
            _ => Err(Close::Io(error)),
        },
    }
}
