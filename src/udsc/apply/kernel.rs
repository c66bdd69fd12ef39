//! Asks the kernel which Unix domain sockets clients can reach (`sock_diag(7)`), and which of them a process has
//! open (/proc/PID/fd).

use std::{
    collections::BTreeSet,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
};

use rustix::fs::{major, minor};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, netlink, recv, send, socket_with, sockopt,
};

use crate::config::{Address, SocketType};

/// `nlmsghdr`, `unix_diag_req` and `unix_diag_msg`: their lengths.
const HEADER: usize = 16;
const REQUEST: usize = 24;
const MESSAGE: usize = 16;
/// Bytes of one answer, which holds many messages; the kernel sends at most 32 KiB at once.
const ANSWER: usize = 64 << 10;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_UNIX: u8 = 1;
/// States. A datagram socket is said to be connected too once a peer has connected to it.
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// What is asked for: UDIAG_SHOW_NAME, _VFS, _RQLEN and _MEMINFO.
const SHOW: u32 = 0x1 | 0x2 | 0x10 | 0x20;
/// Attributes of an answer.
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_MEMINFO: u16 = 5;
/// Place of SO_SNDBUF among the numbers of the last (`SK_MEMINFO_SNDBUF`).
const SNDBUF: usize = 3;

/// A socket that listens, or is bound for datagrams. Not one that was accepted: that has the name of its
/// listener too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) kind: Option<SocketType>,
    /// As the kernel has it: an abstract one begins with NUL.
    name: Vec<u8>,
    /// The numbers of its file and of the file system, of which the kernel tells 32 bits.
    file: Option<(u32, u32)>,
    /// The socket's own number, which /proc/PID/fd shows.
    pub(super) inode: u32,
    pub(super) backlog: u32,
    /// SO_SNDBUF.
    pub(super) send_buffer: u32,
}

impl Bound {
    /// Whether it is at `address`; `file` is what is there. Some file systems give a file's own number a
    /// device of its own: there the name has to do.
    pub(super) fn is_at(&self, address: &Address, file: Option<&Metadata>) -> bool {
        match (address, file, self.file) {
            (Address::Abstract(name), ..) => self.name.strip_prefix(b"\0") == Some(name),
            (Address::Path(path), Some(file), Some((inode, device))) => {
                let there = (major(file.dev()) << 20) | minor(file.dev());
                let name = self.name.strip_suffix(b"\0").unwrap_or(&self.name);
                file.ino() & u64::from(u32::MAX) == u64::from(inode)
                    && (there == device || name == path.as_os_str().as_bytes())
            }
            _ => false,
        }
    }
}

/// All sockets that listen or are bound for datagrams.
pub(super) fn bound() -> io::Result<Vec<Bound>> {
    let kind = rustix::net::SocketType::DGRAM;
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; ANSWER];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read_answer(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

/// The inodes of the sockets that a process has open; `None` where that cannot be seen.
pub(super) fn held_by(pid: u32) -> Option<BTreeSet<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inodes = links.filter_map(|link| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    });
    Some(inodes.collect())
}

/// SO_SNDBUF of a socket that asks for `bytes` as the manager does, by force where it may; 0 where it asks for
/// none.
pub(super) fn granted_send_buffer(bytes: usize) -> io::Result<usize> {
    if bytes == 0 {
        return Ok(0);
    }
    let kind = rustix::net::SocketType::DGRAM;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size_force(&socket, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, bytes))?;
    Ok(sockopt::socket_send_buffer_size(&socket)?)
}

fn request() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + REQUEST);
    out.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number and port: one request has no other to be told from.
    out.extend([0; 8]);
    out.extend([AF_UNIX, 0, 0, 0]);
    out.extend((1u32 << TCP_ESTABLISHED | 1 << TCP_CLOSE | 1 << TCP_LISTEN).to_ne_bytes());
    // Any inode.
    out.extend([0; 4]);
    out.extend(SHOW.to_ne_bytes());
    // Any cookie.
    out.extend([0xff; 8]);
    out
}

/// Reads the messages of one answer; true if they were the last.
fn read_answer(mut answer: &[u8], found: &mut Vec<Bound>) -> io::Result<bool> {
    while answer.len() >= HEADER {
        let length = number(answer, 0) as usize;
        let kind = half(answer, 4);
        let body = answer.get(HEADER..length).ok_or_else(cut)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let error = number(body, 0).cast_signed();
                return Err(io::Error::from_raw_os_error(-error));
            }
            _ if body.len() >= MESSAGE => found.extend(read_socket(body)),
            _ => return Err(cut()),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `unix_diag_msg` and what follows it; `None` for a socket that nobody reaches by its name.
fn read_socket(body: &[u8]) -> Option<Bound> {
    let mut socket = Bound {
        kind: SocketType::of_raw(rustix::net::SocketType::from_raw(body[1].into())),
        inode: number(body, 4),
        ..Bound::default()
    };
    if body[2] != TCP_LISTEN && socket.kind != Some(SocketType::Datagram) {
        return None;
    }
    let mut rest = &body[MESSAGE..];
    while rest.len() >= 4 {
        let (length, kind) = (usize::from(half(rest, 0)), half(rest, 2));
        let value = rest.get(4..length)?;
        match kind {
            UNIX_DIAG_NAME => socket.name = value.to_vec(),
            UNIX_DIAG_VFS => socket.file = Some((number(value, 0), number(value, 4))),
            UNIX_DIAG_RQLEN => socket.backlog = number(value, 4),
            UNIX_DIAG_MEMINFO => socket.send_buffer = number(value, 4 * SNDBUF),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (!socket.name.is_empty()).then_some(socket)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

fn cut() -> io::Error {
    io::Error::other("the kernel's answer is cut short")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::{
        os::unix::net::{UnixDatagram, UnixListener, UnixStream},
        process,
    };

    use super::*;

    #[test]
    fn sockets_are_found_by_their_files() {
        let folder = std::env::temp_dir().join(format!("udsd-diag-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let [stream, datagram, gone] = ["stream", "datagram", "gone"].map(|name| folder.join(name));
        let listener = UnixListener::bind(&stream).unwrap();
        rustix::net::listen(&listener, 7).unwrap();
        // Who is connected does not listen, and has the same name.
        let client = UnixStream::connect(&stream).unwrap();
        let _server = listener.accept().unwrap();
        drop(client);
        let _datagrams = UnixDatagram::bind(&datagram).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&datagram).unwrap();
        drop(UnixListener::bind(&gone).unwrap());
        let all = bound().unwrap();
        let at = |path: &std::path::PathBuf| -> Vec<&Bound> {
            let file = fs::symlink_metadata(path).unwrap();
            let address = Address::Path(path.clone());
            all.iter()
                .filter(|found| found.is_at(&address, Some(&file)))
                .collect()
        };
        let found = at(&stream);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].kind, Some(SocketType::Stream));
        assert_eq!(found[0].backlog, 7);
        let found = at(&datagram);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].kind, Some(SocketType::Datagram));
        assert!(found[0].send_buffer > 0);
        assert!(at(&gone).is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn no_answer_makes_it_panic() {
        let mut answer = Vec::new();
        answer.extend(64u32.to_ne_bytes());
        answer.extend([20, 0, 2, 0]);
        answer.extend([0; 8]);
        answer.extend([1, 1, 10, 0, 9, 0, 0, 0]);
        answer.extend([0; 8]);
        answer.extend([6, 0, 0, 0, b'/', b'a', 0, 0]);
        answer.extend([12, 0, 4, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        answer.extend([12, 0, 1, 0, 5, 0, 0, 0, 7, 0, 0, 0]);
        let mut found = Vec::new();
        assert!(!read_answer(&answer, &mut found).unwrap());
        assert_eq!(
            (found[0].backlog, found[0].file, found[0].inode),
            (2, Some((5, 7)), 9)
        );
        for end in 0..answer.len() {
            let _ = read_answer(&answer[..end], &mut Vec::new());
        }
        for at in 0..answer.len() {
            for byte in [0, 1, 3, 4, 0xff] {
                let mut other = answer.clone();
                other[at] = byte;
                // A message of length 0 must not be read for ever.
                let _ = read_answer(&other, &mut Vec::new());
            }
        }
    }
}
