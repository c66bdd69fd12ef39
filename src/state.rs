//! What one process hands to the next beside descriptors: every client, queue, count and unfinished message, as
//! plain data, and as bytes.
//!
//! The bytes begin with a line of fixed length, with the version and a checksum. Then come the state as one JSON
//! document, a second one with the lengths of the clients' queues, and the bytes of these queues, which may be
//! most of it. A field may be added without a new version where its default means what was so before. Times are
//! ages at the moment when the process ended: the time until the next one serves counts for nobody.

use std::{fmt, io, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    connection::Gap,
    counters::Counters,
    datagram::DatagramState,
    error::Changed,
    input::Input,
    peer::{ClientId, Peer},
    queue::Queue,
    serde_base64,
};

/// The version that this binary writes, and the only one it reads.
const VERSION: u32 = 1;
/// What the first line begins with.
const MAGIC: &str = "udsd-state";
/// Bytes of the first line: magic, version, checksum, line feed.
pub const HEAD: usize = MAGIC.len() + 1 + 4 + 1 + 16 + 1;

/// The clients whose queues are not empty: the index in `State::clients`, and the bytes of the queue.
type Owed = Vec<(usize, usize)>;

/// A daemon without its descriptors.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The file that was in force, as TOML.
    pub config: String,
    /// The number of the last client that entered.
    pub ids: u64,
    /// The sockets by the hub's keys: those of the file, those that it no longer has, and `Socket::nobody` where
    /// a key is free.
    pub sockets: Vec<Socket>,
    /// All clients.
    pub clients: Vec<Client>,
    /// The indices in `clients` of those that wait for room under a quota, in their order.
    #[serde(rename = "starved")]
    pub quota_queue: Vec<usize>,
}

/// One socket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    /// NAME
    pub name: String,
    /// The file no longer has it, or has another one by its name: it stays for the clients that it had.
    pub retired: bool,
    /// What happened on it.
    pub counters: Counters,
    /// The indices in `clients` of the senders that wait for room in the record or with receivers, in their
    /// order.
    #[serde(rename = "line")]
    pub wait_queue: Vec<usize>,
    /// The number of the last message that a relay stamped.
    pub stamped: u64,
    /// How much room its queue must have before a receiver that held up the senders of a relay no longer does,
    /// bytes.
    pub enough: usize,
    /// Its record, where it has one.
    pub record: Option<Record>,
    /// Of a datagram socket: what was received and is not recorded, and what its senders are owed.
    #[serde(rename = "mail")]
    pub datagrams: DatagramState,
    /// Its descriptor, where it has one.
    pub endpoint: Option<Endpoint>,
    /// Of a seqpacket socket: the bytes of the longest packet that may come, and of the longest that is sent.
    pub packets: Option<(usize, usize)>,
}

impl Socket {
    /// One that nobody has come to.
    #[must_use]
    pub fn nobody() -> Self {
        Socket {
            retired: true,
            ..Socket::default()
        }
    }
}

/// A socket's record.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The number of the last line.
    pub seq: u64,
    /// Lines that are not written, or of which only a part is.
    #[serde(with = "serde_base64")]
    pub lines: Vec<u8>,
    /// Bytes of the first line that stand at the end of the file.
    pub begun: usize,
}

/// A socket's descriptor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// SO_COOKIE (`socket(7)`).
    pub cookie: u64,
    /// Its file, where udsd has bound it to a path.
    pub file: Option<BoundFile>,
    /// The manager has passed it.
    pub inherited: bool,
}

/// A socket file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoundFile {
    /// Its path.
    #[serde(with = "serde_base64")]
    pub path: Vec<u8>,
    /// Its device and inode.
    pub inode: (u64, u64),
    /// Device and inode of its lock file.
    pub lock: (u64, u64),
}

/// One client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Client {
    /// SO_COOKIE of its descriptor (`socket(7)`); 0 where it has none.
    pub cookie: u64,
    /// The index of its socket in `sockets`.
    pub socket: usize,
    /// Its number.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
    /// How long no bytes have gone either way.
    pub silent: Duration,
    /// It is a member of a relay and gets what others send.
    #[serde(default, skip_serializing_if = "is_not")]
    pub receiver: bool,
    /// It was a receiver and reads no more: writing to it failed.
    #[serde(rename = "deaf", default, skip_serializing_if = "is_not")]
    pub write_shut: bool,
    /// Senders wait until it reads.
    #[serde(default, skip_serializing_if = "is_not")]
    pub holds_up: bool,
    /// Nothing more is read from it, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Its queue is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Full>,
    /// What was read from it and is not taken yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<Input>>,
    /// What waits to be written to it.
    #[serde(skip)]
    pub queue: Queue,
    /// What was dropped for it, while it has not been told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Box<Gap>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_not(flag: &bool) -> bool {
    !flag
}

/// Why a client will be closed once it has what it is owed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// It has shut down its sending side.
    Done,
    /// It is gone.
    HangUp,
    /// It sent a message longer than this many bytes.
    MessageTooLong(usize),
    /// The file no longer has the socket to which it connected, or has another one by its name.
    Changed(Changed),
}

/// A queue that is full.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Full {
    /// For how long.
    pub since: Duration,
    /// Bytes the client has taken in that time.
    pub taken: usize,
    /// The log has told of it.
    pub told: bool,
}

/// A state that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Damaged {
    /// It has this version, which this binary does not know.
    Version(u32),
    /// It is not what an earlier process has written; why.
    Content(String),
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damaged::Version(version) => write!(
                f,
                "it is of version {version}, and this udsd knows only version {VERSION}"
            ),
            Damaged::Content(what) => write!(f, "it is damaged: {what}"),
        }
    }
}

impl State {
    /// Writes it to `out`, before which the caller leaves `HEAD` bytes free; returns the content of these.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn encode(&self, out: impl io::Write) -> io::Result<[u8; HEAD]> {
        let mut summed = Summed {
            out,
            sum: Checksum::default(),
        };
        // In large pieces: a checksum of a few bytes takes as long as one of many.
        let mut buffered = io::BufWriter::with_capacity(1 << 18, &mut summed);
        serde_json::to_writer(&mut buffered, self)?;
        let queues = self.clients.iter().map(|client| &client.queue).enumerate();
        let queues: Vec<_> = queues.filter(|(_, queue)| !queue.is_empty()).collect();
        let owed: Owed = queues
            .iter()
            .map(|(of, queue)| (*of, queue.len()))
            .collect();
        serde_json::to_writer(&mut buffered, &owed)?;
        for part in queues.iter().flat_map(|(_, queue)| queue.parts(usize::MAX)) {
            io::Write::write_all(&mut buffered, &part)?;
        }
        io::Write::flush(&mut buffered)?;
        drop(buffered);
        Ok(head(VERSION, summed.sum.value()))
    }

    /// Reads what `encode` has written, with its head.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let damaged = |what: &str| Damaged::Content(what.to_owned());
        let (head_bytes, body) = bytes
            .split_at_checked(HEAD)
            .ok_or_else(|| damaged("it is too short"))?;
        let words = std::str::from_utf8(head_bytes).unwrap_or_default();
        let mut words = words.split_ascii_whitespace();
        if words.next() != Some(MAGIC) {
            return Err(damaged("it does not begin as a state does"));
        }
        let version = words.next().and_then(|word| word.parse().ok());
        match version {
            Some(VERSION) => {}
            Some(other) => return Err(Damaged::Version(other)),
            None => return Err(damaged("it has no version")),
        }
        let mut sum = Checksum::default();
        sum.add(body);
        if *head_bytes != head(VERSION, sum.value()) {
            return Err(damaged("its checksum is another"));
        }
        let mut rest = body;
        let mut state: State = next(&mut rest)?;
        let owed: Owed = next(&mut rest)?;
        for (place, bytes) in owed {
            let client = state.clients.get_mut(place);
            let client = client.ok_or_else(|| damaged("a queue is nobody's"))?;
            let queue = rest.split_off(..bytes);
            client
                .queue
                .push(queue.ok_or_else(|| damaged("a queue is cut"))?, 0);
        }
        Ok(state)
    }
}

/// The JSON document at the start of `bytes`, which then begin behind it.
fn next<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, Damaged> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter();
    let found = documents.next();
    *bytes = &bytes[documents.byte_offset()..];
    found
        .ok_or_else(|| Damaged::Content("it ends too early".to_owned()))?
        .map_err(|error| Damaged::Content(error.to_string()))
}

fn head(version: u32, sum: u64) -> [u8; HEAD] {
    let text = format!("{MAGIC} {version:04} {sum:016x}\n");
    let mut head = [b' '; HEAD];
    let length = text.len().min(HEAD);
    head[..length].copy_from_slice(&text.as_bytes()[..length]);
    head
}

/// FNV-1a over words of 8 bytes: it is to find what was cut or damaged, not what somebody forged.
#[derive(Debug)]
struct Checksum {
    sum: u64,
    /// The bytes of an unfinished word, and how many they are.
    word: [u8; 8],
    filled: usize,
    length: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum {
            sum: 0xcbf2_9ce4_8422_2325,
            word: [0; 8],
            filled: 0,
            length: 0,
        }
    }
}

impl Checksum {
    fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while self.filled > 0 && !bytes.is_empty() {
            self.word[self.filled] = bytes[0];
            self.filled = (self.filled + 1) % 8;
            bytes = &bytes[1..];
            if self.filled == 0 {
                self.mix(u64::from_le_bytes(self.word));
            }
        }
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        self.word[self.filled..self.filled + rest.len()].copy_from_slice(rest);
        self.filled += rest.len();
    }

    fn mix(&mut self, word: u64) {
        self.sum = (self.sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // A product has nothing of its upper bits in its lower ones.
        self.sum ^= self.sum >> 32;
    }

    fn value(mut self) -> u64 {
        self.word[self.filled..].fill(0);
        self.mix(u64::from_le_bytes(self.word));
        self.mix(self.length);
        self.sum
    }
}

struct Summed<W: io::Write> {
    out: W,
    sum: Checksum,
}

impl<W: io::Write> io::Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn encoded(state: &State) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        let head = state.encode(&mut bytes).unwrap();
        bytes[..HEAD].copy_from_slice(&head);
        bytes
    }

    fn some() -> State {
        let mut queue = Queue::default();
        queue.push(b"\0\xff\"queue\\", 0);
        State {
            config: "[socket.s]\npath = \"/run/s\"\n".into(),
            ids: 9,
            sockets: vec![Socket::default()],
            clients: vec![Client {
                cookie: 77,
                socket: 0,
                id: ClientId(9),
                peer: Peer {
                    pid: 1,
                    uid: 2,
                    gid: 3,
                },
                silent: Duration::from_nanos(1_000_000_001),
                receiver: true,
                write_shut: false,
                holds_up: false,
                ending: Some(Ending::MessageTooLong(5)),
                full: None,
                input: None,
                queue,
                gap: Some(Box::default()),
            }],
            quota_queue: vec![0],
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let state = some();
        let back = State::decode(&encoded(&state)).unwrap();
        assert_eq!(back.clients[0].queue.len(), 9);
        assert_eq!(format!("{back:?}"), format!("{state:?}"));
    }

    #[test]
    fn one_that_was_cut_anywhere_is_refused() {
        let bytes = encoded(&some());
        for length in 0..bytes.len() {
            assert!(State::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn one_with_any_bit_flipped_is_refused() {
        let bytes = encoded(&some());
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encoded(&some());
        bytes[MAGIC.len() + 4] = b'2';
        assert_eq!(State::decode(&bytes).unwrap_err(), Damaged::Version(2));
    }

    #[test]
    fn a_later_one_may_have_more_and_an_earlier_one_less() {
        let body = br#"{"ids":3,"new":[1,{"x":null}],"sockets":[{"name":"s"}]}[]later"#;
        let mut sum = Checksum::default();
        sum.add(body);
        let state = State::decode(&[&head(VERSION, sum.value())[..], body].concat()).unwrap();
        assert_eq!((state.ids, state.sockets[0].name.as_str()), (3, "s"));
    }

    #[test]
    fn a_checksum_is_the_same_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut whole = Checksum::default();
        whole.add(&bytes);
        let whole = whole.value();
        for split in 0..bytes.len() {
            let mut parts = Checksum::default();
            parts.add(&bytes[..split]);
            parts.add(&bytes[split..split + (bytes.len() - split) / 3]);
            parts.add(&bytes[split + (bytes.len() - split) / 3..]);
            assert_eq!(parts.value(), whole, "split at {split}");
        }
    }
}
