//! What a schedule asks of one socket, and what a message looks like there: as its sender writes it,
//! as it is passed on, and as a record or a stamp tells of it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use udsd::{
    config::{self, Record, ServiceKind, SlowClient, SocketType},
    frame::Framing,
    record::Format,
};

use crate::world::{PEER, Random, SECOND};

const HOUR: Duration = Duration::from_secs(3600);

/// Where the common order of a socket's messages is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Witness {
    /// In the socket's record.
    Record,
    /// At a client that sends nothing and always has room.
    Listener,
    /// One client alone sends at a time: the order is its own, and the counter tells how far it is.
    Talker,
    /// Nowhere: under echo without a record each client has an order of its own.
    Nobody,
}

/// The rules of one socket.
#[derive(Clone, Debug)]
pub struct Plan {
    pub socket: config::Socket,
    pub witness: Witness,
    /// Messages begin with their sender's number and their own; without, they may be empty.
    pub tagged: bool,
}

impl Plan {
    /// `base`: a socket with all defaults.
    pub fn random(random: &mut Random, base: &config::Socket, number: usize) -> Self {
        let service = random.pick(&[
            ServiceKind::Relay,
            ServiceKind::Relay,
            ServiceKind::Relay,
            ServiceKind::Echo,
            ServiceKind::Echo,
            ServiceKind::Collect,
        ]);
        let slow_client = random.pick(&[
            SlowClient::Wait,
            SlowClient::Wait,
            SlowClient::Disconnect,
            SlowClient::Drop,
        ]);
        let witness = match service {
            ServiceKind::Collect | ServiceKind::Control => Witness::Record,
            ServiceKind::Echo => random.pick(&[Witness::Record, Witness::Nobody, Witness::Nobody]),
            ServiceKind::Relay => {
                random.pick(&[Witness::Record, Witness::Listener, Witness::Talker])
            }
        };
        let stamp = service == ServiceKind::Relay && random.one_in(3);
        let tagged = match witness {
            Witness::Record | Witness::Listener => true,
            // What is missing must be found by what came.
            Witness::Talker | Witness::Nobody => {
                (slow_client == SlowClient::Drop && !stamp) || random.one_in(2)
            }
        };
        let message_size = if tagged {
            random.pick(&[10, 16, 40, 100])
        } else {
            random.pick(&[1, 7, 16, 100])
        };
        let framings = [
            Framing::Lines,
            Framing::LengthPrefixed,
            Framing::Nul,
            Framing::Fixed(message_size),
            Framing::CString(message_size),
            Framing::None,
        ];
        let framing = match (stamp, witness) {
            (true, _) => random.pick(&framings[..3]),
            (_, Witness::Record) => random.pick(&framings[..5]),
            _ => random.pick(&framings),
        };
        let queue_size =
            longest(message_size, stamp) + random.below(3) as usize * random.below(60) as usize;
        let may_come = service == ServiceKind::Relay && framing != Framing::None;
        let has_record = witness == Witness::Record || (may_come && random.one_in(4));
        let record = has_record.then(|| record(random));
        let answers = framings[..3].contains(&framing) && random.one_in(2);
        let ack = service == ServiceKind::Collect && answers;
        let keeps = may_come && random.one_in(2);
        let history = if keeps {
            1 + random.below(20) as usize
        } else {
            0
        };
        let idle_timeout = random.pick(&[None, None, Some(HOUR), Some(3 * SECOND)]);
        // The kernel's packets are to the hub a stream of which each message is whole.
        let kind = match framing {
            Framing::LengthPrefixed if random.one_in(2) => SocketType::Seqpacket,
            _ => SocketType::Stream,
        };
        let socket = config::Socket {
            name: format!("s{number}"),
            kind,
            service,
            framing,
            message_size,
            queue_size,
            slow_client,
            slow_timeout: random.pick(&[2 * SECOND, HOUR]),
            // The witness itself sends nothing.
            idle_timeout: idle_timeout.filter(|_| witness != Witness::Listener),
            stamp,
            ack,
            history,
            history_size: queue_size / 2,
            record,
            ..base.clone()
        };
        Plan {
            socket,
            witness,
            tagged,
        }
    }

    /// Without a history: what a quota leaves of one, nobody sees.
    pub fn forget(&mut self) {
        self.socket.history = 0;
    }

    /// Without what has numbers, but for a record that tells them.
    pub fn forget_numbers(&mut self) {
        self.socket.stamp = false;
        if self.witness != Witness::Record {
            self.socket.record = None;
        }
    }

    /// The most bytes that one message can have on its way to a client.
    pub fn longest(&self) -> usize {
        longest(self.socket.message_size, self.socket.stamp)
    }

    /// What finds no room is dropped.
    pub fn drops(&self) -> bool {
        self.socket.slow_client == SlowClient::Drop && !self.is(ServiceKind::Collect)
    }

    pub fn is(&self, service: ServiceKind) -> bool {
        self.socket.service == service
    }

    /// Of a seqpacket socket.
    pub fn has_packets(&self) -> bool {
        self.socket.kind == SocketType::Seqpacket
    }

    /// Under `none` each byte is followed by itself.
    pub fn bytewise(&self) -> bool {
        self.socket.framing == Framing::None
    }

    /// Message `seq` of client `number`, which is the `nth` on this socket: as it is sent, and where
    /// its body is in that.
    pub fn message(&self, number: usize, nth: usize, seq: usize) -> Vec<u8> {
        if self.bytewise() {
            return vec![(nth % 16 * 16 + seq % 16) as u8];
        }
        self.framed(self.body(number, seq))
    }

    fn body(&self, number: usize, seq: usize) -> Vec<u8> {
        let size = self.socket.message_size;
        let mut body = if self.tagged {
            format!("{number}.{seq}.").into_bytes()
        } else {
            Vec::new()
        };
        assert!(body.len() <= size, "a message has no room for its tag");
        let mut shuffled = Random::new((number * 7919 + seq) as u64);
        let length = match self.socket.framing {
            Framing::Fixed(size) => size,
            _ => body.len() + shuffled.below((size - body.len()) as u64 + 1) as usize,
        };
        // Plain, to be escaped, and not UTF-8.
        let odd = shuffled.pick(&[b'.', b'.', b'"', b'\t', 0xff]);
        while body.len() < length {
            let n = body.len() + seq;
            body.push(if n % 7 == 3 {
                odd
            } else {
                b'a' + (n % 26) as u8
            });
        }
        body
    }

    /// Puts a body on the wire.
    pub fn framed(&self, mut body: Vec<u8>) -> Vec<u8> {
        match self.socket.framing {
            Framing::Lines => body.push(b'\n'),
            Framing::Nul => body.push(0),
            Framing::LengthPrefixed => {
                let length = (body.len() as u32).to_be_bytes();
                body.splice(..0, length);
            }
            Framing::CString(size) if body.len() < size => {
                // What stood in the sender's buffer is nobody's business.
                body.push(0);
                body.resize(size, b'X');
            }
            _ => {}
        }
        body
    }

    /// A message longer than `message-size`, where there can be one.
    pub fn too_long(&self) -> Option<Vec<u8>> {
        let fits = matches!(
            self.socket.framing,
            Framing::None | Framing::Fixed(_) | Framing::CString(_)
        );
        let cut = self.is(ServiceKind::Collect);
        (!fits && !cut && !self.has_packets())
            .then(|| self.framed(vec![b'o'; self.socket.message_size + 1]))
    }

    /// The same as echo and an unstamped relay pass it on.
    pub fn passed(&self, mut sent: Vec<u8>) -> Vec<u8> {
        if let Framing::CString(_) = self.socket.framing
            && let Some(end) = sent.iter().position(|&byte| byte == 0)
        {
            sent[end..].fill(0);
        }
        sent
    }

    /// How many bytes a client sees of a message in wire form.
    pub fn bytes_of(&self, passed: &[u8]) -> usize {
        match self.has_packets() {
            true => self.body_of(passed).len(),
            false => passed.len(),
        }
    }

    /// The body of a message in wire form.
    pub fn body_of<'a>(&self, passed: &'a [u8]) -> &'a [u8] {
        match self.socket.framing {
            Framing::Lines | Framing::Nul => &passed[..passed.len() - 1],
            Framing::LengthPrefixed => &passed[4..],
            Framing::CString(_) => passed.split(|&byte| byte == 0).next().unwrap(),
            _ => passed,
        }
    }

    /// The message number `seq` of the socket as JSON.
    pub fn json(&self, seq: usize, client: usize, uid: u32, at: Duration, body: &[u8]) -> String {
        let seconds = at.as_secs();
        let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
        let message = match str::from_utf8(body) {
            Ok(text) => format!("\"message\":{}", serde_json::to_string(text).unwrap()),
            Err(_) => format!(
                "\"message\":{},\"message_base64\":\"{}\"",
                serde_json::to_string(&String::from_utf8_lossy(body)).unwrap(),
                BASE64.encode(body)
            ),
        };
        format!(
            "{{\"time\":\"1970-01-{:02}T{hours:02}:{minutes:02}:{:02}.{:06}Z\",\"socket\":\"{}\",\"seq\":{seq},\"client\":{client},\"pid\":{},\"uid\":{},\"gid\":{},{message}}}",
            days + 1,
            seconds % 60,
            at.subsec_micros(),
            self.socket.name,
            PEER.pid,
            uid,
            PEER.gid,
        )
    }

    /// The length of the first whole message in `wire`.
    pub fn first(&self, wire: &[u8]) -> Option<usize> {
        let ends_at = |byte| wire.iter().position(|&b| b == byte).map(|at| at + 1);
        let whole = |length| (wire.len() >= length).then_some(length);
        match self.socket.framing {
            Framing::Lines => ends_at(b'\n'),
            Framing::Nul => ends_at(0),
            Framing::LengthPrefixed => {
                let length = u32::from_be_bytes(*wire.first_chunk()?);
                whole(4 + length as usize)
            }
            Framing::Fixed(size) | Framing::CString(size) => whole(size),
            Framing::None | Framing::Syslog => whole(1),
        }
    }
}

pub fn record(random: &mut Random) -> Record {
    Record {
        format: random.pick(&[Format::Raw, Format::Json]),
        queue_size: 65 + random.below(400) as usize,
        rotate_size: random.one_in(2).then(|| 100 + random.below(1_000)),
        ..Record::default()
    }
}

fn longest(message_size: usize, stamp: bool) -> usize {
    // A prefix, a terminator; a byte of a message may be six in JSON.
    let framed = message_size + 8;
    if stamp { 6 * framed + 512 } else { framed }
}

/// The number behind `key` in the text of a record or a gap.
pub fn number_after(text: &str, key: &str) -> usize {
    let number = text
        .split_once(key)
        .map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
    match number.and_then(|digits| digits.parse().ok()) {
        Some(number) => number,
        None => panic!("no number behind {key} in {text}"),
    }
}
