//! The prefix of a JSON line: what it has before its message. Most lines of a turn differ from the one before in number and message
//! only: so this is kept from line to line, and its number counted up in place.

use std::ops::Range;

use crate::peer::{ClientId, Peer};

/// What is last.
const MESSAGE: &str = ",\"message\":\"";

/// That of the last line, and what the next one's is made of.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    /// What is before the number.
    head: String,
    /// What is behind it.
    sender: String,
    of: Option<(ClientId, Peer)>,
    /// The whole, as the last line had it; empty where another head or sender has come since.
    text: Vec<u8>,
    seq: u64,
    digits: Range<usize>,
}

impl Prefix {
    /// The lines to come are of this time.
    pub(super) fn set_time(&mut self, time: &str, socket: &str) {
        // A socket's name is [A-Za-z0-9_-]: it needs no escapes.
        self.head = format!("{{\"time\":\"{time}\",\"socket\":\"{socket}\",\"seq\":");
        self.text.clear();
    }

    /// That of line number `seq`, up to the quote before the message.
    pub(super) fn of(&mut self, seq: u64, client: ClientId, peer: &Peer) -> &[u8] {
        if self.of != Some((client, *peer)) {
            self.of = Some((client, *peer));
            let Peer { uid, gid, .. } = peer;
            let pid = peer.process();
            let pid = pid.map_or(String::new(), |pid| format!("\"pid\":{pid},"));
            self.sender = format!(",\"client\":{client},{pid}\"uid\":{uid},\"gid\":{gid}{MESSAGE}");
            self.text.clear();
        }
        let is_next = !self.text.is_empty() && self.seq.checked_add(1) == Some(seq);
        if !is_next || !count_up(&mut self.text[self.digits.clone()]) {
            self.text.clear();
            self.text.extend_from_slice(self.head.as_bytes());
            self.text.extend_from_slice(seq.to_string().as_bytes());
            self.digits = self.head.len()..self.text.len();
            self.text.extend_from_slice(self.sender.as_bytes());
        }
        self.seq = seq;
        &self.text
    }

    /// The same of a message that was cut.
    pub(super) fn of_cut(&mut self, seq: u64, client: ClientId, peer: &Peer) -> Vec<u8> {
        let whole = self.of(seq, client, peer);
        let sender = &whole[..whole.len() - MESSAGE.len()];
        [sender, b",\"truncated\":true", MESSAGE.as_bytes()].concat()
    }
}

/// Adds one to a decimal number in place; false where that has more digits.
fn count_up(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return true;
        }
        *digit = b'0';
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_up_as_they_are_written() {
        let mut prefix = Prefix::default();
        let peers = [(1, 10), (2, 20)].map(|(client, uid)| {
            let peer = Peer {
                pid: 5,
                uid,
                gid: 7,
            };
            (ClientId(client), peer)
        });
        prefix.set_time("T", "log");
        let numbers = (1..=120).chain([998, 999, 1000, 1000, 7, 8, u64::MAX - 1, u64::MAX, 0, 1]);
        for (n, seq) in numbers.enumerate() {
            let (client, peer) = &peers[usize::from(n % 7 == 0)];
            if n % 50 == 0 {
                prefix.set_time(&n.to_string(), "log");
            }
            let time = n / 50 * 50;
            let sender = format!(
                "\"client\":{client},\"pid\":5,\"uid\":{},\"gid\":7",
                peer.uid
            );
            let head = format!("{{\"time\":\"{time}\",\"socket\":\"log\",\"seq\":{seq},{sender}");
            let is = prefix.of(seq, *client, peer);
            assert_eq!(
                String::from_utf8_lossy(is),
                format!("{head},\"message\":\"")
            );
            let is = prefix.of_cut(seq, *client, peer);
            let is = String::from_utf8_lossy(&is);
            assert_eq!(is, format!("{head},\"truncated\":true,\"message\":\""));
        }
    }
}
