//! Taps: copies of what passes on a socket, for those who ask to see it. A tap keeps what its client has not read
//! yet, up to a bound, and counts what comes beyond that: nobody waits for it, and what it misses it is told. A
//! message stays until its sender's unit is looked up. Where that is not known, what a tap on one unit may want is
//! missed.

use std::{collections::VecDeque, mem, time::SystemTime};

use crate::{
    message_batch::Message,
    peer::{ClientId, Peer},
    service::Calls,
    unit::UnitLookup,
};

/// Bytes that a tap may keep.
const MOST: usize = 256 << 10;
/// What a message costs beside its bytes.
const EACH: usize = mem::size_of::<Tapped>();

/// Whose messages a tap is to show; by default those of all.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Only those of this user.
    pub uid: Option<u32>,
    /// Only those of this unit, of the system or of a user.
    pub unit: Option<String>,
}

impl Wanted {
    /// Whether it wants what comes from there; `None` where that is not known, or not yet.
    fn admits(&self, of: &Origin) -> Option<bool> {
        if self.uid.is_some_and(|uid| uid != of.peer.uid) {
            return Some(false);
        }
        let Some(wanted) = &self.unit else {
            return Some(true);
        };
        let unit = of.unit.unit()?;
        let mut units = [&unit.unit, &unit.user_unit].into_iter().flatten();
        Some(units.any(|unit| unit == wanted))
    }
}

/// One client's tap on a socket.
#[derive(Debug)]
struct Tap {
    client: usize,
    wanted: Wanted,
    kept: VecDeque<Tapped>,
    bytes: usize,
    missed: u64,
    /// The last message did not fit, and nothing was read since.
    is_full: bool,
}

/// A message that passed.
#[derive(Debug)]
pub struct Tapped {
    /// What it has in common with those that came with it.
    pub of: Origin,
    /// Without terminator, prefix or padding.
    pub body: Box<[u8]>,
    /// Only the first part of it is kept.
    pub is_truncated: bool,
    /// How many messages before it the tap missed.
    pub missed: u64,
}

/// Where messages come from, and when.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When they passed.
    pub time: SystemTime,
    /// The sender's number.
    pub id: ClientId,
    /// The sender.
    pub peer: Peer,
    /// Its unit.
    pub unit: UnitLookup,
    /// How many other clients get them.
    pub receivers: usize,
}

impl Tap {
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.missed == 0
    }

    /// Keeps one more message; false where there is no room for it.
    fn keep(&mut self, of: &Origin, message: &Message<'_>) -> bool {
        let bytes = message.body.len() + EACH;
        // One alone may be longer.
        if self.bytes + bytes > MOST && !self.kept.is_empty() {
            self.is_full = true;
            return false;
        }
        self.bytes += bytes;
        self.kept.push_back(Tapped {
            of: of.clone(),
            body: message.body.into(),
            is_truncated: message.truncated,
            missed: mem::take(&mut self.missed),
        });
        true
    }
}

/// All taps on a socket.
#[derive(Debug, Default)]
pub(super) struct Taps(Vec<Tap>);

impl Taps {
    /// Whether nobody looks at what passes.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Client `client` looks at what passes from now on, as far as that is `wanted`.
    /// It has missed so many messages before.
    pub(super) fn open(&mut self, client: usize, wanted: Wanted, missed: u64) {
        self.0.push(Tap {
            client,
            wanted,
            kept: VecDeque::new(),
            bytes: 0,
            missed,
            is_full: false,
        });
    }

    /// Whether client `client` looks.
    pub(super) fn has(&self, client: usize) -> bool {
        self.0.iter().any(|tap| tap.client == client)
    }

    /// Copies messages that the service took, `count` of them. A tap that is full only counts. The call of one that had
    /// nothing is to be looked at again.
    #[cold]
    pub(super) fn note<'a, M: Iterator<Item = Message<'a>>>(
        &mut self,
        of: &Origin,
        count: u64,
        messages: impl Fn() -> M,
        calls: &mut Calls,
    ) {
        let may_want = |tap: &&mut Tap| tap.wanted.admits(of) != Some(false);
        for tap in self.0.iter_mut().filter(may_want) {
            if tap.is_empty() {
                calls.wake(tap.client);
            }
            let mut kept = 0;
            if !tap.is_full {
                let all = messages().take_while(|message| tap.keep(of, message));
                kept = all.count() as u64;
            }
            tap.missed += count.saturating_sub(kept);
        }
    }

    /// The next message for client `client`, or how many it missed since the last one, if either is there.
    pub(super) fn next(&mut self, client: usize) -> Option<Result<Tapped, u64>> {
        let tap = self.0.iter_mut().find(|tap| tap.client == client)?;
        tap.is_full = false;
        let mut missed = 0;
        while let Some(mut next) = tap.kept.pop_front() {
            next.missed += mem::take(&mut missed);
            if !next.of.unit.has_ended() {
                tap.kept.push_front(next);
                return None;
            }
            tap.bytes -= next.body.len() + EACH;
            match tap.wanted.admits(&next.of) {
                Some(true) => return Some(Ok(next)),
                Some(false) => missed = next.missed,
                None => missed = next.missed + 1,
            }
        }
        missed += mem::take(&mut tap.missed);
        (missed > 0).then_some(Err(missed))
    }

    /// Client `client` no longer looks. Returns how many messages it has not seen.
    pub(super) fn close(&mut self, client: usize) -> u64 {
        let of_client = self.0.iter().filter(|tap| tap.client == client);
        let missed = of_client
            .map(|tap| tap.missed + tap.kept.len() as u64)
            .sum();
        self.0.retain(|tap| tap.client != client);
        missed
    }
}
