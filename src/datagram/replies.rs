//! What the senders of datagrams are owed and could not take yet.
//!
//! No event tells that a receiver has room again, so what waits for it is tried by timer, at once more
//! and then ever less often. One that takes nothing for `slow-timeout` loses what waits for it:
//! nobody can be disconnected here, and reading on is all that keeps the others served.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{
    DatagramSender, Datagrams, RECEIVERS, cost,
    numbers::Key,
    shares::{Refusal, Shares},
};
use crate::{
    limits::{Charge, Limits, OverQuota},
    serde_base64,
};

/// Receivers of one user that something may wait for.
const RECEIVERS_PER_USER: usize = RECEIVERS / 2;
/// The first wait before a full receiver is tried again; each further one is twice as long,
const FIRST_WAIT: Duration = Duration::from_millis(1);
/// up to this,
const LAST_WAIT: Duration = Duration::from_millis(100);
/// or up to this where its turn comes next: that waits for it no longer than 10 ms.
const LAST_WAIT_FOR_TURN: Duration = Duration::from_millis(4);
/// Datagrams that one receiver may be sent before the others have their turns.
const TURN_DATAGRAMS: usize = 64;
/// Receivers that a turn may try.
const TURN_RECEIVERS: usize = 64;

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The kernel took it.
    Sent,
    /// It waits for its receiver.
    Waits,
    /// Its receiver has no address.
    Unbound,
    /// Its receiver cannot be reached: nobody is there, or it may not be written to.
    Unreachable,
    /// There was no room to let it wait.
    Dropped(Why),
}

/// Why replies were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The receiver's queue is full: `queue-size`.
    Full(Blame),
    /// So many others wait already, of all users or of this one, and there may be no more of them.
    Receivers(usize),
    /// The receiver took nothing for `slow-timeout`.
    Slow(Blame),
    /// Too much waits for its user, or for everybody.
    Quota(OverQuota),
}

/// Who kept a reply from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Its receiver: it does not read.
    Receiver,
    /// Others: what they do not read fills the send buffer.
    Others,
}

impl From<&Refusal> for Blame {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Kernel(_) | Refusal::Unread => Blame::Receiver,
            Refusal::Turn | Refusal::Later | Refusal::Share => Blame::Others,
        }
    }
}

/// Replies that waited and will not be delivered.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Who was owed them: the first who sent.
    pub to: DatagramSender,
    /// How many.
    pub replies: u64,
    /// `None`: the receiver can no longer be reached.
    pub why: Option<Why>,
}

/// What one receiver is owed.
#[derive(Debug)]
struct Owed {
    to: DatagramSender,
    replies: VecDeque<Box<[u8]>>,
    /// What `replies` cost.
    charge: Charge,
    /// When it last took something, or began to owe.
    since: Instant,
    /// How long it waits for the next try; nothing after it took something.
    wait: Duration,
    due: Instant,
    blame: Blame,
}

impl Owed {
    /// One more waits.
    fn push(&mut self, reply: Box<[u8]>, limits: &mut Limits) {
        let held = self.charge.held() + cost(&reply);
        self.charge.settle(limits, held);
        self.replies.push_back(reply);
    }
}

/// What one receiver is owed, as one process hands it to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnsentReplies {
    to: DatagramSender,
    pub(super) replies: Vec<Datagram>,
    /// Since it last took something, or began to owe.
    since: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Datagram(#[serde(with = "serde_base64")] Box<[u8]>);

/// What sending takes.
pub struct Sending<'a> {
    /// Where datagrams go out.
    pub datagrams: &'a mut dyn Datagrams,
    /// What waits is held in these.
    pub limits: &'a mut Limits,
    /// The time of the turn.
    pub now: Instant,
}

/// What waits for receivers. What it costs is held for the user who is owed it.
#[derive(Debug, Default)]
pub struct Replies {
    owed: Slab<Owed>,
    /// The indices in `owed`.
    by_receiver: HashMap<Key, usize>,
    /// How many receivers of each user that is.
    users: HashMap<u32, usize>,
    timers: BTreeSet<(Instant, usize)>,
    shares: Shares,
}

impl Replies {
    /// Datagrams that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.owed.iter().map(|(_, owed)| owed.replies.len()).sum()
    }

    /// When `retry` is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// What waits, for the next process.
    pub(super) fn park(self, now: Instant) -> Vec<UnsentReplies> {
        let owed = self.owed.into_iter().map(|(_, owed)| UnsentReplies {
            to: owed.to,
            replies: owed.replies.into_iter().map(Datagram).collect(),
            since: now.saturating_duration_since(owed.since),
        });
        owed.collect()
    }

    /// Goes on with what waited for receivers in an earlier process.
    pub(super) fn resume(&mut self, parked: Vec<UnsentReplies>, limits: &mut Limits, now: Instant) {
        for UnsentReplies { to, replies, since } in parked {
            let key = (to.address, to.peer.uid);
            let index = self.by_receiver.get(&key).copied();
            let index = index.unwrap_or_else(|| self.owe(&to, Blame::Receiver, now));
            self.owed[index].since = now.checked_sub(since).unwrap_or(now);
            for Datagram(reply) in replies {
                self.owed[index].push(reply, limits);
            }
        }
    }

    /// Sends `bytes` to `to`, behind what it is owed already; lets them wait where they do not fit,
    /// `queue_size` bytes for one receiver, or one datagram that is longer, and no more than `limits`
    /// has room for.
    pub fn send(
        &mut self,
        to: &DatagramSender,
        bytes: &[u8],
        queue_size: usize,
        by: Sending<'_>,
    ) -> Reply {
        let Sending { limits, now, .. } = by;
        if to.address.kind().is_none() {
            return Reply::Unbound;
        }
        let uid = to.peer.uid;
        let key = (to.address, uid);
        let index = self.by_receiver.get(&key).copied();
        let blame = match index {
            Some(index) => self.owed[index].blame,
            None => match self.shares.send(&key, bytes, by.datagrams, now) {
                Ok(()) => return Reply::Sent,
                Err(refusal) if !is_passing(&refusal) => return Reply::Unreachable,
                Err(refusal) => (&refusal).into(),
            },
        };
        let cost = cost(bytes);
        let why = match index {
            Some(index) if self.owed[index].charge.held() + cost > queue_size => {
                Some(Why::Full(blame))
            }
            None if self.owed.len() == RECEIVERS => Some(Why::Receivers(RECEIVERS)),
            None if self.users.get(&uid) == Some(&RECEIVERS_PER_USER) => {
                Some(Why::Receivers(RECEIVERS_PER_USER))
            }
            _ if limits.room(uid) < cost => Some(Why::Quota(limits.over(uid))),
            _ => None,
        };
        if let Some(why) = why {
            return Reply::Dropped(why);
        }
        let index = index.unwrap_or_else(|| self.owe(to, blame, now));
        self.owed[index].push(bytes.into(), limits);
        Reply::Waits
    }

    /// A receiver is owed something from now on; returns its index.
    fn owe(&mut self, to: &DatagramSender, blame: Blame, now: Instant) -> usize {
        let due = now + FIRST_WAIT;
        let index = self.owed.insert(Owed {
            to: *to,
            replies: VecDeque::new(),
            charge: Charge::new(to.peer.uid),
            since: now,
            wait: FIRST_WAIT,
            due,
            blame,
        });
        self.by_receiver.insert((to.address, to.peer.uid), index);
        *self.users.entry(to.peer.uid).or_default() += 1;
        self.timers.insert((due, index));
        index
    }

    /// Tries those who are due, a turn's share; returns what will not be delivered any more.
    pub fn retry(&mut self, slow_timeout: Duration, mut by: Sending<'_>) -> Vec<Lost> {
        let now = by.now;
        let mut lost = Vec::new();
        for _ in 0..TURN_RECEIVERS {
            let Some(&(_, index)) = self.timers.first().filter(|(due, _)| *due <= now) else {
                break;
            };
            self.timers.pop_first();
            let why = match self.flush(index, &mut by) {
                Flushed::All => {
                    self.forget(index, by.limits);
                    continue;
                }
                Flushed::Unreachable => None,
                Flushed::Full if now >= self.owed[index].since + slow_timeout => {
                    Some(Why::Slow(self.owed[index].blame))
                }
                Flushed::Full | Flushed::Turn => {
                    self.timers.insert((self.owed[index].due, index));
                    continue;
                }
            };
            let owed = self.forget(index, by.limits);
            lost.push(Lost {
                to: owed.to,
                replies: owed.replies.len() as u64,
                why,
            });
        }
        lost
    }

    /// Gives up all that waits; returns the bytes that its receivers will not get.
    pub fn abandon(&mut self, limits: &mut Limits) -> usize {
        let all: Vec<usize> = self.by_receiver.values().copied().collect();
        let mut undelivered = 0;
        for index in all {
            let owed = self.forget(index, limits);
            undelivered += owed.replies.iter().map(|reply| reply.len()).sum::<usize>();
        }
        undelivered
    }

    /// Sends one receiver what it is owed, a turn's share, and says when it is due again.
    fn flush(&mut self, index: usize, by: &mut Sending<'_>) -> Flushed {
        let now = by.now;
        let mut sent = 0;
        loop {
            let owed = &mut self.owed[index];
            let Some(reply) = owed.replies.front() else {
                return Flushed::All;
            };
            if sent == TURN_DATAGRAMS {
                // It takes all it is given: the others first, and the rest in the next turn.
                owed.due = now + Duration::from_nanos(1);
                return Flushed::Turn;
            }
            let key = (owed.to.address, owed.to.peer.uid);
            match self.shares.send(&key, reply, by.datagrams, now) {
                Ok(()) => {
                    let held = owed.charge.held() - cost(reply);
                    owed.charge.settle(by.limits, held);
                    owed.replies.pop_front();
                    sent += 1;
                    owed.since = now;
                    owed.wait = Duration::ZERO;
                }
                Err(refusal) if is_passing(&refusal) => {
                    let last = match refusal {
                        Refusal::Turn => LAST_WAIT_FOR_TURN,
                        _ => LAST_WAIT,
                    };
                    owed.wait = (owed.wait * 2).clamp(FIRST_WAIT, last);
                    owed.due = now + owed.wait;
                    owed.blame = (&refusal).into();
                    return Flushed::Full;
                }
                Err(_) => return Flushed::Unreachable,
            }
        }
    }

    /// Takes out what one receiver is owed.
    fn forget(&mut self, index: usize, limits: &mut Limits) -> Owed {
        let mut owed = self.owed.remove(index);
        owed.charge.settle(limits, 0);
        let uid = owed.to.peer.uid;
        self.by_receiver.remove(&(owed.to.address, uid));
        if let Some(receivers) = self.users.get_mut(&uid) {
            *receivers -= 1;
            if *receivers == 0 {
                self.users.remove(&uid);
            }
        }
        self.timers.remove(&(owed.due, index));
        owed
    }
}

/// How far one receiver's turn came.
#[derive(Debug)]
enum Flushed {
    All,
    /// The receiver takes no more now.
    Full,
    /// It takes more, but others wait.
    Turn,
    Unreachable,
}

/// Whether what failed may go well later: the receiver's queue or the sender's buffer is full
/// (EAGAIN for both, `unix(7)`), or the system is short of something.
fn is_passing(refusal: &Refusal) -> bool {
    let Refusal::Kernel(error) = refusal else {
        return true;
    };
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOBUFS | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
    ) || matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
