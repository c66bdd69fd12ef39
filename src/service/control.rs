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
    /// Where answers of many parts go on: 0 at the start.
    pub reached: u64,
    /// Of a tap: messages that it has not seen over a restart.
    #[serde(default)]
    pub missed: u64,
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

    /// Whether client `key` waits for an answer.
    #[must_use]
    pub fn is_calling(&self, key: usize) -> bool {
        self.0.iter().any(|pending| pending.client == key)
    }

    /// Adds one that waits for an answer.
    pub fn add(&mut self, pending: PendingCall) {
        self.0.push(pending);
    }

    /// Takes out all, in the order in which they came.
    pub fn take(&mut self) -> Vec<PendingCall> {
        std::mem::take(&mut self.0)
    }

    /// The same for another hub, in which clients have other keys, if they are there at all.
    #[must_use]
    pub fn renamed(&self, new: impl Fn(usize) -> Option<usize>) -> Vec<PendingCall> {
        let renamed = |of: &PendingCall| {
            let client = new(of.client)?;
            Some(PendingCall {
                client,
                ..of.clone()
            })
        };
        self.0.iter().filter_map(renamed).collect()
    }

    /// Client `key` is no more.
    pub(super) fn forget(&mut self, key: usize) {
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
        reached: 0,
        missed: 0,
    });
    first.end
}
