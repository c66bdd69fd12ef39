//! The kernel's side of datagram sockets: what was sent, what was received, and what came back.

use std::{cell::RefCell, collections::VecDeque, io, mem, rc::Rc};

use udsd::{
    datagram::Datagrams,
    datagram_header::{Address, Header},
    peer::Peer,
};

use crate::{schedule::USERS, world::PEER};

pub const SENDERS: usize = 4;

/// Who sends, and what came back.
#[derive(Debug, Default)]
pub struct Sender {
    pub sent: usize,
    pub room: usize,
    pub got: VecDeque<Vec<u8>>,
}

pub type Senders = Rc<RefCell<Vec<Sender>>>;

/// The kernel's queue of one socket.
#[derive(Debug, Default)]
pub struct Queue {
    pub sent: VecDeque<(usize, Vec<u8>)>,
    /// What the hub received of it since somebody looked.
    pub received: VecDeque<(usize, Vec<u8>)>,
    /// Datagrams that one call brings at most.
    pub most: usize,
}

#[derive(Debug)]
pub struct DatagramSocket {
    pub queue: Rc<RefCell<Queue>>,
    pub senders: Senders,
}

fn peer(sender: usize) -> Peer {
    let uid = USERS[sender % USERS.len()];
    Peer { uid, ..PEER }
}

impl Datagrams for DatagramSocket {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        headers: &mut Vec<Header>,
    ) -> io::Result<()> {
        let queue = &mut *self.queue.borrow_mut();
        for place in buffer.chunks_exact_mut(slot).take(queue.most) {
            let Some((from, bytes)) = queue.sent.pop_front() else {
                break;
            };
            place[..bytes.len()].copy_from_slice(&bytes);
            headers.push(Header {
                from: Address::new(format!("/{from}").as_bytes()),
                peer: peer(from),
                length: bytes.len(),
            });
            queue.received.push_back((from, bytes));
        }
        if headers.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn send(&mut self, to: &Address, owner: u32, bytes: &[u8]) -> io::Result<()> {
        let to: usize = to.to_string()[1..].parse().unwrap();
        assert_eq!(owner, peer(to).uid);
        let sender = &mut self.senders.borrow_mut()[to];
        if sender.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sender.room -= 1;
        sender.got.push_back(bytes.to_vec());
        Ok(())
    }

    fn unread(&self) -> usize {
        0
    }

    fn send_buffer(&self) -> usize {
        usize::MAX
    }

    fn disown(&mut self) {}

    fn shut_down(&mut self) -> bool {
        true
    }

    fn hang_up(&mut self) -> usize {
        let sent = mem::take(&mut self.queue.borrow_mut().sent);
        sent.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}
