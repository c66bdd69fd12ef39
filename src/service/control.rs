//! control: what a client says are calls (`control`). A service can answer none of them, for they ask about the
//! whole daemon: they are kept for the event loop, one of each client at a time. Until that is answered, nothing
//! more is read from the client.

use serde::{Deserialize, Serialize};

use super::{Outbox, Sender};
use crate::{
    connection::Stream,
    control::varlink::{Call, Reply},
    message_batch::Batch,
};

/// A call that is not answered, or not to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingCall {
    /// The client's key.
    pub client: usize,
    /// What it calls, or what to answer where that is no call.
    pub call: Result<Call, Reply>,
    /// Something was done about it.
    pub has_begun: bool,
    /// Clients with lower keys are told of, where it asks for those.
    pub reached: usize,
    /// Of a tap: messages that it has not seen over a restart.
    #[serde(default)]
    pub missed: u64,
    /// There was nothing for it yet: it is answered no further until `Calls` wakes it.
    #[serde(skip)]
    pub waits: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Calls(Vec<PendingCall>);

impl Calls {
    /// Whether all are answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are not answered, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &PendingCall> {
        self.0.iter()
    }

    /// Whether client `key` waits for an answer.
    #[must_use]
    pub fn is_calling(&self, key: usize) -> bool {
        self.0.iter().any(|pending| pending.client == key)
    }

    /// Whether client `key` waits for an answer that has begun.
    #[must_use]
    pub fn has_begun(&self, key: usize) -> bool {
        let begun = |pending: &PendingCall| pending.client == key && pending.has_begun;
        self.0.iter().any(begun)
    }

    /// Adds one that waits for an answer.
    pub fn add(&mut self, pending: PendingCall) {
        self.0.push(pending);
    }

    /// Takes out those that are `meant`, in the order in which they came.
    pub fn take(&mut self, meant: impl Fn(&PendingCall) -> bool) -> Vec<PendingCall> {
        self.0.extract_if(.., |pending| meant(pending)).collect()
    }

    /// There may be something for client `key`.
    pub fn wake(&mut self, key: usize) {
        let of_client = self.0.iter_mut().filter(|pending| pending.client == key);
        of_client.for_each(|pending| pending.waits = false);
    }

    /// There may be something for everybody.
    pub fn wake_all(&mut self) {
        self.0.iter_mut().for_each(|pending| pending.waits = false);
    }

    /// The same for another hub, in which clients have other keys, in the same order, if they are there at all.
    #[must_use]
    pub fn renamed(&self, new: impl Fn(usize) -> Option<usize>) -> Vec<PendingCall> {
        let renamed = |of: &PendingCall| {
            Some(PendingCall {
                client: new(of.client)?,
                reached: (0..of.reached).filter_map(&new).count(),
                ..of.clone()
            })
        };
        self.0.iter().filter_map(renamed).collect()
    }

    /// Client `key` is no more.
    pub fn forget(&mut self, key: usize) {
        self.0.retain(|pending| pending.client != key);
    }
}

pub(super) fn receive<S: Stream>(
    from: &Sender,
    batch: &Batch<'_>,
    out: &mut Outbox<'_, S>,
) -> usize {
    let Some(first) = batch.iter().next() else {
        return 0;
    };
    out.effects.calls.add(PendingCall {
        client: from.key,
        call: Call::read(first.body),
        has_begun: false,
        reached: 0,
        missed: 0,
        waits: false,
    });
    first.end
}
