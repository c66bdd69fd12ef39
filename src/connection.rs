//! One client: its stream, what it sent, what it is owed, and what the hub must know of it.

pub mod waits;

use std::{
    io::{self, IoSlice},
    mem,
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::Close,
    input::Input,
    limits::{Charge, Limits},
    peer::{ClientId, Peer},
    queue::Queue,
    record::Gap,
    unit::UnitLookup,
};

use waits::Awaits;

/// Bytes that are offered to one write: more than the longest packet, and than a stream takes at once.
const WRITE: usize = 5 << 20;

/// A connected byte stream that never waits: a Unix socket, or a script in memory. One whose end has not
/// been read is given up by `cut_off` or `hang_up`: to drop it may take long.
pub trait Stream {
    /// Reads what is there, or less; 0 is the end of the stream. Descriptors that came with it are
    /// closed elsewhere.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits; any other error ends the client.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as fits, all parts in one call.
    ///
    /// # Errors
    /// `WouldBlock` where nothing fits; any other error ends the client.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Packets may be so long from now on: `message` bytes of those that come, `longest` of those that
    /// are sent. A stream of bytes has none.
    ///
    /// # Errors
    /// Where the kernel refuses; the client is then ended.
    fn resize(&mut self, _message: usize, _longest: usize) -> io::Result<()> {
        Ok(())
    }

    /// What the client had sent stays unread: closing it then gives the client ECONNRESET, by which it
    /// learns that it was not served. Returns the bytes that are unread.
    fn cut_off(self) -> usize;

    /// Looks up the unit of the process that connected, as far as the kernel vouches for one.
    fn look_up_unit(&self) -> UnitLookup {
        UnitLookup::none()
    }

    /// Ends both directions and reads away what the client had sent, so that it sees end of file
    /// and not ECONNRESET. Returns the bytes that were read away.
    fn hang_up(self) -> usize;
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For spans.
    pub instant: Instant,
    /// For records.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// What the event loop is to watch a stream for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Something to read, or the end.
    pub read: bool,
    /// Room to write.
    pub write: bool,
    /// The end of both directions; told also to who watches for one of the others.
    pub end: bool,
}

impl Watch {
    /// Something to read alone.
    pub const READ: Watch = Watch {
        read: true,
        write: false,
        end: false,
    };

    /// What there is by this and by `other`.
    pub fn add(&mut self, other: Watch) {
        self.read |= other.read;
        self.write |= other.write;
        self.end |= other.end;
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
    /// Its unit, once somebody has asked for that.
    pub unit: Option<UnitLookup>,
    /// The socket it came by: an index into the hub's sockets.
    pub socket: u32,
    /// Its user's number among those who take turns.
    pub user: u32,
    /// It waits for its turn.
    pub listed: bool,
    /// What events said since its last turn.
    pub event: Watch,
    /// How often its read buffer is halved: its messages are so short that a turn could not take all
    /// that would fit there.
    pub read_shift: u8,
    /// What the event loop is to watch it for, as it was last noted.
    pub watched: Watch,
    /// What it waits for; it is called when that has come.
    pub awaits: Option<Awaits>,
    /// It gets what others send, and stays for that after its own end of stream.
    pub receiver: bool,
    /// It was a receiver and reads no more: writing to it failed.
    pub is_write_shut: bool,
    /// Senders wait for it to read.
    pub holds_up: bool,
    /// Nothing more is read; closed for this reason once it has what it is owed.
    pub ending: Option<Close>,
    /// When it connected.
    pub since: Instant,
    /// When bytes last went either way.
    pub active: Instant,
    /// Since when its queue has stood full, and what it has taken since then.
    pub full: Option<Box<Full>>,
    /// Its timers, each where it is set; most clients never have one.
    pub timers: Option<Box<[Option<Instant>; TIMERS]>>,
    /// What it sent and the service has not taken. Most clients have none at most times, so it is not
    /// part of the connection.
    pub input: Option<Box<Input>>,
    /// What it is owed.
    pub queue: Queue,
    /// What was dropped for it and not yet told.
    pub gap: Option<Box<Gap>>,
    /// What it was told is stored, and is to be told, once it has sent something under `ack`.
    pub acked: Option<Box<Acked>>,
    /// What is held for it: input that waits, and output unsent.
    pub charge: Charge,
    /// What it sent and was sent so far.
    pub traffic: Traffic,
    /// The stream itself.
    pub stream: S,
}

/// What a client sent and was sent. A restart hands it on as a list: there may be very many clients.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(from = "[u64; 5]", into = "[u64; 5]")]
pub struct Traffic {
    /// Messages of it that its service took.
    pub messages_in: u64,
    /// Their bytes, as the socket counts them.
    pub bytes_in: u64,
    /// Bytes that were written to it.
    pub bytes_out: u64,
    /// Messages that its socket had taken when it came: what came later went to it too, where the service has
    /// receivers.
    pub before: u64,
    /// Messages that were dropped for it.
    pub dropped: u64,
}

impl From<[u64; 5]> for Traffic {
    fn from([messages_in, bytes_in, bytes_out, before, dropped]: [u64; 5]) -> Self {
        Traffic {
            messages_in,
            bytes_in,
            bytes_out,
            before,
            dropped,
        }
    }
}

impl From<Traffic> for [u64; 5] {
    fn from(of: Traffic) -> Self {
        [
            of.messages_in,
            of.bytes_in,
            of.bytes_out,
            of.before,
            of.dropped,
        ]
    }
}

impl Traffic {
    /// So many of its messages were taken, of so many bytes.
    #[inline]
    pub fn sent(&mut self, messages: u64, bytes: u64) {
        self.messages_in += messages;
        self.bytes_in += bytes;
    }
}

/// How many messages of a client are stored, of all that it sent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Acked {
    /// So many were taken, and it is to be told when they are stored.
    #[serde(alias = "promised")]
    pub taken: u64,
    /// So many are.
    pub stored: u64,
    /// So many it was told.
    pub told: u64,
}

/// What a client is to be told behind what waits for it.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Messages were dropped for it.
    Gap(&'a Gap),
    /// So many of its own are stored.
    Stored(u64),
}

/// A queue that is full.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// Since when.
    pub since: Instant,
    /// Bytes the client has taken since.
    pub taken: usize,
    /// The log has a line of it.
    pub told: bool,
}

impl<S: Stream> Connection<S> {
    /// A client that has just come.
    pub fn new(id: ClientId, peer: Peer, socket: u32, stream: S, now: Instant) -> Self {
        Connection {
            id,
            peer,
            unit: None,
            socket,
            user: 0,
            listed: false,
            event: Watch::default(),
            read_shift: 0,
            watched: Watch::default(),
            awaits: None,
            receiver: false,
            is_write_shut: false,
            holds_up: false,
            ending: None,
            since: now,
            active: now,
            full: None,
            timers: None,
            input: None,
            queue: Queue::default(),
            gap: None,
            acked: None,
            charge: Charge::new(peer.uid),
            traffic: Traffic::default(),
            stream,
        }
    }

    /// Its unit. To ask the kernel costs some system calls, so that is done once, and only where somebody asks.
    pub fn look_up_unit(&mut self) -> UnitLookup {
        let before = self.unit.take().filter(|of| !of.is_to_be_repeated());
        let unit = before.unwrap_or_else(|| self.stream.look_up_unit());
        self.unit.insert(unit).clone()
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !self.queue.is_empty() || self.gap.is_some() || self.ack_due().is_some()
    }

    /// How many of its messages are stored, where it was not told so.
    #[inline]
    fn ack_due(&self) -> Option<u64> {
        let acked = self.acked.as_ref()?;
        (acked.stored > acked.told).then_some(acked.stored)
    }

    /// Whether it will be told that more of its messages are stored.
    #[must_use]
    pub fn awaits_ack(&self) -> bool {
        let acked = self.acked.as_ref();
        acked.is_some_and(|acked| acked.stored < acked.taken)
    }

    /// Whether nothing is to be done about its state: it has not ended, nothing waits for it, it waits for
    /// nothing, and so it is watched and charged.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let holds = self.is_owed() || self.input.is_some() || self.charge.held() > 0;
        let stands = self.awaits.is_some() || self.holds_up || self.full.is_some();
        let is_read = self.watched == Watch::READ;
        self.ending.is_none() && !holds && !stands && is_read
    }

    /// Bytes of memory that are held for it: for input that waits and output unsent.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.queue.held() + self.input.as_ref().map_or(0, |input| input.held())
    }

    /// What it waited for has come. It was not silent meanwhile: nothing was read from it.
    pub fn go_on(&mut self, now: Instant) {
        self.awaits = None;
        self.active = now;
    }

    /// Whether whole messages of it wait to be taken. Those of a dismissed client will not be.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        // Most clients have no input that waits.
        self.input.as_ref().is_some_and(|input| input.is_blocked()) && !self.is_dismissed()
    }

    /// Whether what it connected to is no more: it only gets what it is owed.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        matches!(self.ending, Some(Close::Changed(_)))
    }

    /// Whether others wait for it, or it waits for a quota: the log tells of that before it is closed.
    #[must_use]
    pub fn stalls(&self) -> bool {
        self.holds_up || self.awaits == Some(Awaits::Quota)
    }

    /// Notes when one of its timers rings (`None`: it does not); returns what was noted before.
    pub fn note_timer(&mut self, timer: usize, at: Option<Instant>) -> Option<Instant> {
        if at.is_none() && self.timers.is_none() {
            return None;
        }
        mem::replace(&mut self.timers.get_or_insert_default()[timer], at)
    }

    /// What its state asks the event loop to watch it for: reading, unless it has ended or waits for
    /// something; writing, if something waits for it; the end, if it only receives, or waits for an answer
    /// or to be told what is stored.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let held_up = self.is_blocked() || self.awaits.is_some();
        Watch {
            read: self.ending.is_none() && !held_up,
            write: self.is_owed(),
            end: self.ending.is_some() && !held_up && (self.receiver || self.awaits_ack())
                || self.awaits == Some(Awaits::Answer),
        }
    }

    /// Writes `parts`, some bytes, past the queue, which must be empty; returns how many the kernel
    /// took.
    ///
    /// # Errors
    /// `HangUp` where the client is gone, `Io` for the rest.
    pub fn write(&mut self, parts: &[IoSlice<'_>], now: Instant) -> Result<usize, Close> {
        debug_assert!(self.queue.is_empty(), "wrote past a queue");
        let written = self.stream.write(parts).or_else(refused_write)?;
        self.note_written(written, now);
        Ok(written)
    }

    /// Writes what waits, in one call, and after the last of it what `tell` says of messages that were
    /// dropped meanwhile, or are stored by now. Returns whether another call may write more.
    ///
    /// # Errors
    /// As `write`.
    pub fn flush(
        &mut self,
        limits: &mut Limits,
        now: Instant,
        tell: impl FnOnce(Notice<'_>) -> Vec<u8>,
    ) -> Result<bool, Close> {
        if !self.queue.is_empty() {
            let written = self.stream.write(&self.queue.parts(WRITE));
            let written = written.or_else(refused_write)?;
            self.note_written(written, now);
            self.change_queue(limits, |queue| queue.consume(written));
            if !self.queue.is_empty() {
                return Ok(written > 0);
            }
        }
        let (gap, ack_due) = (self.gap.take(), self.ack_due());
        let notice = match (&gap, ack_due) {
            (Some(gap), _) => Notice::Gap(gap),
            (None, Some(stored)) => Notice::Stored(stored),
            (None, None) => return Ok(false),
        };
        let told = tell(notice);
        let written = self.write(&[IoSlice::new(&told)], now)?;
        match (&mut self.acked, ack_due) {
            _ if written == 0 => self.gap = gap,
            (Some(acked), Some(stored)) if gap.is_none() => acked.told = stored,
            _ => {}
        }
        if written > 0 {
            self.change_queue(limits, |queue| queue.push(&told[written..], 0));
        }
        Ok(false)
    }

    /// Puts what `tell` says of messages that were dropped behind what waits. Returns whether there were
    /// any.
    pub fn queue_gap(&mut self, limits: &mut Limits, tell: impl FnOnce(&Gap) -> Vec<u8>) -> bool {
        let told = self.gap.take().map(|gap| tell(&gap));
        self.change_queue(limits, |queue| {
            queue.push(told.as_deref().unwrap_or_default(), 0);
        });
        told.is_some()
    }

    /// Changes what waits to be written, and settles what is held for it.
    pub fn change_queue(&mut self, limits: &mut Limits, change: impl FnOnce(&mut Queue)) {
        let before = self.queue.held();
        change(&mut self.queue);
        let held = self.charge.held() + self.queue.held() - before;
        self.charge.settle(limits, held);
    }

    fn note_written(&mut self, written: usize, now: Instant) {
        if written > 0 {
            self.active = now;
        }
        self.traffic.bytes_out += written as u64;
        if let Some(full) = &mut self.full {
            full.taken += written;
        }
    }
}

/// What an error says of a write: nothing was written, or nothing ever will be.
#[cold]
fn refused_write(error: io::Error) -> Result<usize, Close> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(Close::HangUp),
        _ => Err(Close::Io(error)),
    }
}
