//! Who is to be told that its messages are stored, and when: once all lines up to a `Position` are written.

use std::{collections::VecDeque, mem};

use serde::{Deserialize, Serialize};

use super::Position;
use crate::peer::ClientId;

/// A client, so many of whose messages are stored once all is written up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its key, under which another one may be by then.
    pub client: usize,
    /// Its number.
    pub id: ClientId,
    /// All its messages so far.
    pub count: u64,
    position: Position,
}

/// An `Ack` between two processes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ParkedAck {
    /// As in `Ack`.
    pub client: usize,
    /// As in `Ack`.
    pub id: ClientId,
    /// As in `Ack`.
    pub count: u64,
    /// Bytes of lines behind those of its messages.
    pub behind: u64,
}

/// Those of one record, in the order of their positions.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: VecDeque<Ack>,
    /// What an earlier process left, until its lines are there; and those lines: where they end, and how many bytes.
    parked: Vec<ParkedAck>,
    prepended: Option<(Position, u64)>,
    /// Whose messages may be stored or not, nobody can tell.
    uncertain: Vec<Ack>,
}

impl Acks {
    /// Memory that they need, bytes.
    pub(super) fn size(&self) -> usize {
        self.waiting.len() * mem::size_of::<Ack>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Messages of a client stand in lines that end at `position`.
    pub(super) fn add(&mut self, (client, id): (usize, ClientId), count: u64, position: Position) {
        self.waiting.push_back(Ack {
            client,
            id,
            count,
            position,
        });
    }

    /// The next whose messages are stored where all is written up to `written`.
    pub(super) fn next(&mut self, written: Position) -> Option<Ack> {
        let is_written = self.waiting.front()?.position <= written;
        is_written.then(|| self.waiting.pop_front()).flatten()
    }

    /// The next of whose messages nobody can tell whether they are stored.
    pub(super) fn next_uncertain(&mut self) -> Option<Ack> {
        self.uncertain.pop()
    }

    /// Forgets the next, whatever is written.
    pub(super) fn forget(&mut self) -> Option<Ack> {
        self.waiting.pop_front()
    }

    /// Takes out those of whose clients `leaves` says so.
    pub(super) fn take(&mut self, mut leaves: impl FnMut(&Ack) -> bool) -> Vec<Ack> {
        let (left, stay) = self.waiting.drain(..).partition(|ack| leaves(ack));
        self.waiting = stay;
        Vec::from(left)
    }

    /// As the next process has them, where lines end at `end`.
    pub(super) fn park(&self, end: Position) -> impl Iterator<Item = ParkedAck> {
        self.waiting.iter().map(move |ack| ParkedAck {
            client: ack.client,
            id: ack.id,
            count: ack.count,
            behind: end - ack.position,
        })
    }

    /// Goes on with those of an earlier process.
    pub(super) fn resume(&mut self, parked: Vec<ParkedAck>) {
        self.parked = parked;
        self.settle();
    }

    /// The lines that an earlier process left are `bytes` long and end at `end`.
    pub(super) fn note_lines(&mut self, end: Position, bytes: u64) {
        self.prepended = Some((end, bytes));
        self.settle();
    }

    fn settle(&mut self) {
        let Some((end, bytes)) = self.prepended else {
            return;
        };
        for ParkedAck {
            client,
            id,
            count,
            behind,
        } in mem::take(&mut self.parked)
        {
            let position = end.saturating_sub(behind);
            let ack = Ack {
                client,
                id,
                count,
                position,
            };
            // Lines before those that were left were given to a write that had not returned.
            match behind < bytes {
                true => self.waiting.push_back(ack),
                false => self.uncertain.push(ack),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(acks: &mut Acks, client: usize, count: u64, position: Position) {
        acks.add((client, ClientId(client as u64)), count, position);
    }

    fn stored(acks: &mut Acks, written: Position) -> Vec<(usize, u64)> {
        let all = std::iter::from_fn(|| acks.next(written));
        all.map(|ack| (ack.client, ack.count)).collect()
    }

    #[test]
    fn who_waits_is_told_in_order_and_never_early() {
        let mut acks = Acks::default();
        for (client, count, position) in [(1, 1, 10), (2, 3, 40), (1, 2, 50)] {
            add(&mut acks, client, count, position);
        }
        assert_eq!(stored(&mut acks, 9), []);
        assert_eq!(stored(&mut acks, 45), [(1, 1), (2, 3)]);
        assert_eq!(stored(&mut acks, 50), [(1, 2)]);
        assert!(acks.is_empty());
    }

    #[test]
    fn the_next_process_goes_on_behind_the_lines_that_it_was_left() {
        let mut acks = Acks::default();
        for (client, position) in [(1, 10), (2, 40), (3, 50)] {
            add(&mut acks, client, 1, position);
        }
        // The first 10 bytes were given to a write that did not return.
        let parked: Vec<ParkedAck> = acks.park(50).collect();
        let mut next = Acks::default();
        next.note_lines(40, 40);
        next.resume(parked);
        assert_eq!(next.next_uncertain().map(|ack| ack.client), Some(1));
        assert_eq!(stored(&mut next, 29), []);
        assert_eq!(stored(&mut next, 30), [(2, 1)]);
        assert_eq!(stored(&mut next, 40), [(3, 1)]);
    }
}
