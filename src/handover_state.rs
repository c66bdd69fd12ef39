//! What one process hands to the next beside descriptors: every client, queue, count and unfinished message, as
//! plain data, and as bytes.
//!
//! The bytes begin with a line of fixed length, with the version and a checksum. Then come the state as one JSON
//! document, a second one with the lengths of the clients' queues, and the bytes of these queues, which may be
//! most of it. A field may be added without a new version where its default means what was so before. Times are
//! ages at the moment when the process ended: the time until the next one serves counts for nobody.

use std::{
    fmt::Display,
    io::{self, BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    connection::{Acked, Traffic},
    counters::Counters,
    datagram::DatagramState,
    error::Changed,
    input::Input,
    peer::{ClientId, Peer},
    queue::Queue,
    record::{Amount, Gap, ParkedAck, Segment, SegmentEnd, Segments},
    serde_base64,
    service::PendingCall,
    unit::Unit,
};

/// The version that this binary writes, and the only one it reads.
const VERSION: u32 = 1;
/// What the first line begins with.
const MAGIC: &str = "udsd-state";
/// Bytes of the first line: magic, version, checksum, line feed.
pub const HEAD: usize = MAGIC.len() + 1 + 4 + 1 + 16 + 1;
/// Most bytes of a queue for which room is made before they are read.
const CHUNK: usize = 1 << 20;
/// Bytes in which the JSON documents are looked for first.
const DOCUMENTS: u64 = 4 << 20;

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
    /// The calls of the control socket's clients that are not answered to their end, by the indices in `clients`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<PendingCall>,
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
    /// The last lines that the log had of it, one of each kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// The indices in `clients` of the senders that wait for room in the record or with receivers, in their
    /// order.
    #[serde(rename = "line")]
    pub wait_queue: Vec<usize>,
    /// The number of the last message that a relay stamped.
    pub stamped: u64,
    /// How much room its queue must have before a receiver that held up the senders of a relay no longer does,
    /// bytes.
    pub enough: usize,
    /// The last messages of a relay, as they were given out.
    #[serde(with = "serde_base64", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<u8>,
    /// Its record, where it has one and is the first that shares it.
    pub record: Option<Record>,
    /// What was dropped behind its last line there.
    pub unrecorded: Gap,
    /// Of a datagram socket: what was received and is not recorded, and what its senders are owed.
    #[serde(rename = "mail")]
    pub datagrams: DatagramState,
    /// Its descriptor, where it has one.
    pub endpoint: Option<Endpoint>,
    /// Of a seqpacket socket: the bytes of the longest packet that may come, and of the longest that is sent.
    pub packets: Option<(usize, usize)>,
}

/// The last line of its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// What lines of this kind tell of.
    pub kind: String,
    /// How long ago something of the kind last happened.
    pub age: Duration,
    /// What it said.
    pub text: String,
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

    /// The same for clients by their indices, which `index` has by their keys.
    #[must_use]
    pub fn renamed(mut self, index: impl Fn(usize) -> Option<usize>) -> Self {
        if let Some(record) = &mut self.record {
            record.acks.retain_mut(|ack| match index(ack.client) {
                Some(client) => {
                    ack.client = client;
                    true
                }
                None => false,
            });
        }
        self
    }
}

/// The record of one socket or of several.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The number of the last line.
    pub seq: u64,
    /// What was written since the start.
    pub written: Amount,
    /// Messages whose lines are not written.
    pub waiting: u64,
    /// Lines that are not written, or of which only a part is.
    #[serde(with = "serde_base64")]
    pub lines: Vec<u8>,
    /// Bytes of the first line that stand at the end of the file.
    pub begun: usize,
    /// Where segments end between the lines.
    #[serde(skip_serializing_if = "Vec::is_empty", alias = "cuts")]
    pub segment_ends: Vec<SegmentEnd>,
    /// The file that lines were taken for last, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// What became of segments.
    pub segments: Segments,
    /// Who is to be told once its messages are stored, by the indices in `State::clients`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acks: Vec<ParkedAck>,
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
    /// The options of its socket are known: no descriptors can come, and urgent bytes are among the others.
    #[serde(default, skip_serializing_if = "is_not")]
    pub plain: bool,
    /// The index of its socket in `sockets`.
    pub socket: usize,
    /// Its number.
    pub id: ClientId,
    /// Its credentials.
    pub peer: Peer,
    /// Its unit, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// How long it has been connected, in milliseconds.
    #[serde(default)]
    pub age: u64,
    /// How long no bytes have gone either way.
    pub silent: Duration,
    /// What it sent and was sent.
    #[serde(default)]
    pub traffic: Traffic,
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
    /// What it was told is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Box<Acked>>,
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

impl State {
    /// Writes it to `file`, which must be empty.
    ///
    /// # Errors
    /// Those of `file`.
    pub fn encode(&self, file: &mut (impl Write + Seek)) -> io::Result<()> {
        file.seek(SeekFrom::Start(HEAD as u64))?;
        let mut out = BufWriter::new(&mut *file);
        let mut sum = Checksum::default();
        let mut put = |bytes: &[u8]| {
            sum.add(bytes);
            out.write_all(bytes)
        };
        put(&serde_json::to_vec(self)?)?;
        let queues = self.clients.iter().map(|client| &client.queue).enumerate();
        let queues: Vec<_> = queues.filter(|(_, queue)| !queue.is_empty()).collect();
        let owed = queues.iter().map(|(of, queue)| (*of, queue.len()));
        put(&serde_json::to_vec(&owed.collect::<Owed>())?)?;
        for part in queues.iter().flat_map(|(_, queue)| queue.parts(usize::MAX)) {
            put(&part)?;
        }
        out.flush()?;
        drop(out);
        file.rewind()?;
        file.write_all(head(sum.finish()).as_bytes())
    }

    /// Reads what `encode` has written to `file`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn decode(mut file: impl Read + Seek) -> io::Result<Self> {
        file.rewind()?;
        let mut found = [0; HEAD];
        let read = file.read_exact(&mut found);
        read.map_err(|_| damaged("it is too short"))?;
        let words = str::from_utf8(&found).unwrap_or_default();
        let mut words = words.split_ascii_whitespace();
        if words.next() != Some(MAGIC) {
            return Err(damaged("it does not begin as a state does"));
        }
        let version = words.next().and_then(|word| word.parse().ok());
        match version {
            Some(VERSION) => {}
            Some(other) => {
                return Err(io::Error::other(format!(
                    "it is of version {other}, and this udsd knows only version {VERSION}"
                )));
            }
            None => return Err(damaged("it has no version")),
        }
        let mut sum = Checksum::default();
        let (mut state, owed, begun) = documents(&mut file, &mut sum)?;
        // Small queues are read together, large ones go by its buffer.
        let mut rest = begun.chain(BufReader::new(file));
        for (index, bytes) in owed {
            let client = state.clients.get_mut(index);
            let client = client.ok_or_else(|| damaged("a queue is nobody's"))?;
            let mut queue = Vec::with_capacity(bytes.min(CHUNK));
            rest.by_ref().take(bytes as u64).read_to_end(&mut queue)?;
            if queue.len() < bytes {
                return Err(damaged("a queue is cut"));
            }
            sum.add(&queue);
            client.queue.push(&queue, 0);
        }
        let mut behind = Vec::new();
        rest.read_to_end(&mut behind)?;
        sum.add(&behind);
        if found != *head(sum.finish()).as_bytes() {
            return Err(damaged("its checksum is another"));
        }
        Ok(state)
    }
}

fn damaged(what: impl Display) -> io::Error {
    io::Error::other(format!("it is damaged: {what}"))
}

/// Both JSON documents, and those bytes behind them that were read along.
fn documents(
    mut file: impl Read,
    sum: &mut Checksum,
) -> io::Result<(State, Owed, Cursor<Vec<u8>>)> {
    // They are read in one piece, which is faster, and without most of what follows them.
    let (mut bytes, mut room) = (Vec::new(), DOCUMENTS);
    loop {
        let more = file.by_ref().take(room).read_to_end(&mut bytes)?;
        let mut documents = serde_json::Deserializer::from_slice(&bytes);
        let state = State::deserialize(&mut documents);
        match state.and_then(|state| Ok((state, Owed::deserialize(&mut documents)?))) {
            Err(error) if error.is_eof() && more > 0 => room *= 4,
            Err(error) => return Err(damaged(error)),
            Ok((state, owed)) => {
                let read = documents.into_iter::<IgnoredAny>().byte_offset();
                sum.add(&bytes[..read]);
                let mut begun = Cursor::new(bytes);
                begun.set_position(read as u64);
                return Ok((state, owed, begun));
            }
        }
    }
}

fn head(sum: u64) -> String {
    format!("{MAGIC} {VERSION:04} {sum:016x}\n")
}

/// FNV-1a over words of 8 bytes: it is to find what was cut or damaged, not what somebody forged.
struct Checksum {
    sum: u64,
    length: u64,
    /// Bytes of a word that is not whole yet.
    part: Vec<u8>,
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum {
            sum: 0xcbf2_9ce4_8422_2325,
            length: 0,
            part: Vec::new(),
        }
    }
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let missing = self.part.len().next_multiple_of(8) - self.part.len();
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.part.extend_from_slice(first);
        let (words, rest) = rest.as_chunks();
        if let Ok(word) = <[u8; 8]>::try_from(&self.part[..]) {
            self.mix(u64::from_le_bytes(word));
            self.part.clear();
        }
        words
            .iter()
            .for_each(|word| self.mix(u64::from_le_bytes(*word)));
        self.part.extend_from_slice(rest);
    }

    fn mix(&mut self, word: u64) {
        self.sum = (self.sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // A product has nothing of its upper bits in its lower ones.
        self.sum ^= self.sum >> 32;
    }

    fn finish(mut self) -> u64 {
        let mut last = [0; 8];
        last[..self.part.len()].copy_from_slice(&self.part);
        self.mix(u64::from_le_bytes(last));
        self.mix(self.length);
        self.sum
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::control::varlink::Call;

    fn encoded(state: &State) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        state.encode(&mut file).unwrap();
        file.into_inner()
    }

    fn decoded(bytes: impl AsRef<[u8]>) -> Result<State, String> {
        State::decode(Cursor::new(bytes)).map_err(|why| why.to_string())
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
                plain: true,
                socket: 0,
                id: ClientId(9),
                peer: Peer {
                    pid: 1,
                    uid: 2,
                    gid: 3,
                },
                unit: Some(Unit::of_path("/system.slice/a.service")),
                age: 2000,
                silent: Duration::from_nanos(1_000_000_001),
                traffic: Traffic {
                    bytes_in: 4,
                    ..Traffic::default()
                },
                receiver: true,
                write_shut: false,
                holds_up: false,
                ending: Some(Ending::MessageTooLong(5)),
                full: None,
                input: None,
                queue,
                acked: Some(Box::default()),
                gap: Some(Box::default()),
            }],
            quota_queue: vec![0],
            calls: vec![PendingCall {
                client: 0,
                call: Call::read(b"{\"method\": \"a.B\"}"),
                has_begun: true,
                reached: 7,
                missed: 0,
                waits: false,
            }],
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let state = some();
        let back = decoded(encoded(&state)).unwrap();
        assert_eq!(back.clients[0].queue.len(), 9);
        assert_eq!(format!("{back:?}"), format!("{state:?}"));
    }

    #[test]
    fn queues_of_more_than_a_chunk_come_back() {
        let mut state = some();
        for length in [CHUNK + 3, 1] {
            state.clients.extend(some().clients);
            let last = state.clients.len() - 1;
            state.clients[last]
                .queue
                .push(&vec![length as u8; length], 0);
        }
        let back = decoded(encoded(&state)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{state:?}"));
    }

    #[test]
    fn a_checksum_is_the_same_in_whatever_pieces() {
        let bytes: Vec<u8> = (0..100).collect();
        let sum = |size: usize| {
            let mut sum = Checksum::default();
            bytes.chunks(size).for_each(|piece| sum.add(piece));
            sum.finish()
        };
        for size in 1..30 {
            assert_eq!(sum(size), sum(100), "{size}");
        }
    }

    #[test]
    fn one_that_was_cut_anywhere_is_refused() {
        let bytes = encoded(&some());
        for length in 0..bytes.len() {
            assert!(decoded(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn one_with_any_bit_flipped_is_refused() {
        let bytes = encoded(&some());
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decoded(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encoded(&some());
        bytes[MAGIC.len() + 4] = b'2';
        let why = decoded(bytes).unwrap_err();
        assert!(why.contains("version 2"), "{why}");
    }

    #[test]
    fn a_later_one_may_have_more_and_an_earlier_one_less() {
        let body = br#"{"ids":3,"new":[1,{"x":null}],"sockets":[{"name":"s"}]}[]later"#;
        let mut sum = Checksum::default();
        sum.add(body);
        let head = head(sum.finish());
        let state = decoded([head.as_bytes(), body].concat()).unwrap();
        assert_eq!((state.ids, state.sockets[0].name.as_str()), (3, "s"));
    }
}
