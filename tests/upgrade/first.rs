//! The state that the binary of commit 26e5ed3 left, of 13 clients; most of them become many here.
//!
//! Its bytes are as that binary wrote them, but for what a test cannot have: paths, cookies and inodes.
//! What the state has had since then is not in it, and means what it meant before: the count `unproven`
//! is 0.

use std::{
    fs::{self, File},
    io::{Cursor, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
        unix::net::UnixStream,
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt::socket_cookie};
use serde_json::{Deserializer, Value, json};
use udsd::{
    handover_state::{HEAD, State},
    parking::{Memory, Parking},
};

use super::harness::{Folder, manager::socket_at};

/// As it was written.
const STATE: &[u8] = include_bytes!("state-26e5ed3");
/// Where its daemon had its sockets.
const PLACE: &str = "/tmp/udsd-26e5ed3";

/// One client of the state, by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Half,
    Idle,
    Full,
    Finished,
    DropReceiver,
    DropReader,
    DropSender,
    WaitReceiver,
    WaitSender,
    WaitHalf,
    LogHalf,
    PacketsIdle,
    PacketsFull,
}

const KINDS: [Kind; 13] = [
    Kind::Half,
    Kind::Idle,
    Kind::Full,
    Kind::Finished,
    Kind::DropReceiver,
    Kind::DropReader,
    Kind::DropSender,
    Kind::WaitReceiver,
    Kind::WaitSender,
    Kind::WaitHalf,
    Kind::LogHalf,
    Kind::PacketsIdle,
    Kind::PacketsFull,
];

impl Kind {
    fn is_of_relay(self) -> bool {
        let relays = Kind::DropReceiver as usize..=Kind::WaitHalf as usize;
        relays.contains(&(self as usize))
    }

    fn socket_type(self) -> SocketType {
        match self {
            Kind::PacketsIdle | Kind::PacketsFull => SocketType::SEQPACKET,
            _ => SocketType::STREAM,
        }
    }
}

/// A client, and what the state holds of it.
pub(super) struct Client {
    pub kind: Kind,
    pub stream: UnixStream,
    /// What it is owed.
    pub owed: Vec<u8>,
    /// What it sent and nobody has taken.
    pub input: Vec<u8>,
}

/// Leaves the state in `folder` with so many clients; what the manager keeps of it, the clients, and
/// the replies that are owed to the datagram sender at `receiver` there.
pub(super) fn park(folder: &Folder, clients: usize) -> (OwnedFd, Vec<Client>, Vec<Vec<u8>>) {
    State::decode(Cursor::new(STATE)).unwrap();
    let mut documents = Deserializer::from_slice(&STATE[HEAD..]).into_iter::<Value>();
    let mut state = documents.next().unwrap().unwrap();
    let owed = documents.next().unwrap().unwrap();
    let mut queues = &STATE[HEAD + documents.byte_offset()..];
    let mut owed_to = vec![Vec::new(); KINDS.len()];
    for pair in owed.as_array().unwrap() {
        let bytes = pair[1].as_u64().unwrap() as usize;
        owed_to[pair[0].as_u64().unwrap() as usize] = queues.split_off(..bytes).unwrap().to_vec();
    }

    move_to(folder, &mut state);
    let mut descriptors = endpoints(folder, &mut state);
    let many = KINDS.iter().filter(|kind| !kind.is_of_relay()).cycle();
    let kinds: Vec<Kind> = KINDS.iter().chain(many).take(clients).copied().collect();
    let (mut parked, mut here) = (Vec::new(), Vec::new());
    for (place, kind) in kinds.into_iter().enumerate() {
        let flags = SocketFlags::CLOEXEC;
        let (theirs, ours) =
            socketpair(AddressFamily::UNIX, kind.socket_type(), flags, None).unwrap();
        let stream = UnixStream::from(ours);
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut client = state["clients"][kind as usize].clone();
        client["cookie"] = json!(socket_cookie(&theirs).unwrap());
        client["id"] = match place < KINDS.len() {
            true => client["id"].clone(),
            // 14 is the sender of datagrams.
            false => json!(place + 2),
        };
        let input = client["input"]["held"].as_str().unwrap_or_default();
        here.push(Client {
            kind,
            stream,
            owed: owed_to[kind as usize].clone(),
            input: BASE64.decode(input).unwrap(),
        });
        parked.push(client);
        descriptors.push(theirs);
    }
    state["ids"] = json!(clients + 2);
    state["clients"] = Value::Array(parked);
    let lengths = here.iter().map(|client| client.owed.len()).enumerate();
    let lengths: Vec<_> = lengths.filter(|(_, length)| *length > 0).collect();
    let mut body = serde_json::to_vec(&state).unwrap();
    serde_json::to_writer(&mut body, &lengths).unwrap();
    body.extend(here.iter().flat_map(|client| &client.owed));

    let replies = state["sockets"][5]["mail"]["owed"][0]["replies"]
        .as_array()
        .unwrap();
    let replies = replies
        .iter()
        .map(|reply| BASE64.decode(reply.as_str().unwrap()).unwrap());
    let replies = replies.collect();
    (leave(&body, &descriptors), here, replies)
}

fn leave(body: &[u8], descriptors: &[OwnedFd]) -> OwnedFd {
    let (parking, near) = Parking::new().unwrap();
    let bytes = [&head(body)[..], body].concat();
    let memory = Memory::new(|file| file.write_all(&bytes)).unwrap();
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let (left, error) = parking.leave(&memory, &descriptors).unwrap();
    assert!(error.is_none(), "{left} left: {error:?}");
    near
}

/// The paths of what the daemon had, and the user of the sender of datagrams.
fn move_to(folder: &Folder, state: &mut Value) {
    let place = folder.path().to_str().unwrap();
    let config = state["config"].as_str().unwrap().replace(PLACE, place);
    state["config"] = json!(config);
    let receiver = &mut state["sockets"][5]["mail"]["owed"][0]["to"];
    receiver["peer"]["uid"] = json!(rustix::process::getuid().as_raw());
    receiver["address"] = moved(&receiver["address"], place);
    for socket in state["sockets"].as_array_mut().unwrap() {
        let path = &mut socket["endpoint"]["file"]["path"];
        *path = moved(path, place);
    }
}

fn moved(path: &Value, place: &str) -> Value {
    let path = BASE64.decode(path.as_str().unwrap()).unwrap();
    let path = String::from_utf8(path).unwrap().replace(PLACE, place);
    json!(BASE64.encode(path))
}

/// What clients come by, with files and locks.
fn endpoints(folder: &Folder, state: &mut Value) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for socket in state["sockets"].as_array_mut().unwrap() {
        let name = socket["name"].as_str().unwrap().to_owned();
        let path = folder.join(&name);
        let kind = match name.as_str() {
            "packets" => SocketType::SEQPACKET,
            "post" => SocketType::DGRAM,
            _ => SocketType::STREAM,
        };
        let listening = socket_at(&path, kind);
        let lock = File::create(folder.join(&format!("{name}.lock"))).unwrap();
        let inode = |found: fs::Metadata| json!([found.dev(), found.ino()]);
        let endpoint = &mut socket["endpoint"];
        endpoint["cookie"] = json!(socket_cookie(&listening).unwrap());
        endpoint["file"]["inode"] = inode(fs::metadata(&path).unwrap());
        endpoint["file"]["lock"] = inode(lock.metadata().unwrap());
        descriptors.extend([listening, lock.into()]);
    }
    descriptors
}

/// The first line: magic, version, and FNV-1a over words of 8 bytes and the length.
fn head(body: &[u8]) -> [u8; HEAD] {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut mix = |word: u64| {
        sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 32;
    };
    for word in body.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        mix(u64::from_le_bytes(bytes));
    }
    if body.len().is_multiple_of(8) {
        mix(0);
    }
    mix(body.len() as u64);
    let text = format!("udsd-state 0001 {sum:016x}\n");
    text.as_bytes().try_into().unwrap()
}
