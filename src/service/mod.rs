//! What udsd does with the messages of one socket. A service owns no descriptor and reads no clock:
//! batches come in, and what it wants written goes to the `Outbox`.

mod echo;
mod record;

pub use record::{Mark, Record};

use slab::Slab;

use crate::{
    batch::Batch,
    connection::{Connection, Stream},
    error::Close,
    peer::{ClientId, Peer},
};

/// The service of one socket.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// Back to the sender.
    Echo,
    /// Into the socket's record, and nowhere else.
    Collect,
}

/// The sender of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its place among the hub's clients.
    pub key: usize,
    /// Its number.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
}

impl Service {
    /// Takes messages from the start of `batch`; returns the bytes that it took. The rest waits
    /// with its sender.
    ///
    /// # Errors
    /// What ends the sender.
    pub fn receive<S: Stream>(
        self,
        from: &Sender,
        batch: Batch<'_>,
        out: &mut Outbox<'_, S>,
    ) -> Result<usize, Close> {
        match self {
            Service::Echo => echo::receive(from, batch, out),
            Service::Collect => Ok(batch.bytes.len()),
        }
    }
}

/// The clients' queues as a service sees them.
#[derive(Debug)]
pub struct Outbox<'a, S> {
    /// All clients of the daemon.
    pub clients: &'a mut Slab<Connection<S>>,
    /// `queue-size` of the socket, bytes.
    pub queue_size: usize,
}

impl<S: Stream> Outbox<'_, S> {
    /// Gives client `to` as many whole messages of `batch` as its queue has room for, and returns
    /// their bytes. What the kernel takes at once never enters the queue.
    ///
    /// # Errors
    /// Where writing fails for good.
    pub fn send(&mut self, to: usize, batch: &Batch<'_>) -> Result<usize, Close> {
        let client = &mut self.clients[to];
        let mut sent = 0;
        while sent < batch.bytes.len() {
            let end = batch.fit(sent, client.queue.room(self.queue_size));
            if end == sent {
                break;
            }
            let bytes = &batch.bytes[sent..end];
            let written = if client.queue.is_empty() {
                client.write(bytes)?
            } else {
                0
            };
            if written < bytes.len() {
                client.queue.push(&bytes[written..]);
            }
            sent = end;
        }
        Ok(sent)
    }
}
