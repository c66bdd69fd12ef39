//! Descriptors in flight: what a process leaves behind for the next one while neither runs.
//!
//! All of them wait in one pair of seqpacket sockets, as SCM_RIGHTS (`unix(7)`), of which one end, the
//! near one, is kept by the service manager; the far end waits in it too, so that it stays open. The
//! first message has the far end and a sealed memfd with bytes; the others up to 253 descriptors each.
//! Payloads of a byte or more, for an empty one looks like the end.
//!
//! The next process looks without taking (MSG_PEEK, SO_PEEK_OFF in `socket(7)`), and each one that looks
//! leaves a mark in the other direction. Until it takes the first message out, in one call, another can
//! look again; from then on nobody can.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Seek, SeekFrom},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{Errno, ioctl_fionread},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
        send, sendmsg, socketpair,
    },
    process::{Resource, getrlimit},
};

use crate::sys;

/// Descriptors that one message can have (SCM_MAX_FD, `unix(7)`).
const MESSAGE: usize = 253;
/// What a message costs of SO_SNDBUF: 768 bytes where it was tried (6.18).
const MESSAGE_COST: usize = 1024;
/// SO_SNDBUF is not raised beyond.
const MOST_ROOM: usize = 1 << 28;
/// How many processes may begin to restore what waits here and not come to the end of it.
pub const ATTEMPTS: u64 = 3;
/// The first message, and the others.
const FIRST: &[u8] = b"udsd";
const MORE: &[u8] = b"fd";

/// The far end, while there is nothing in flight yet.
#[derive(Debug)]
pub struct Parking(OwnedFd);

impl Parking {
    /// A pair: the far end, and the near one for the manager.
    ///
    /// # Errors
    /// Those of `socketpair(2)`.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        // No more can be open, nor in flight.
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::with_room(usize::try_from(files).unwrap_or(usize::MAX))
    }

    /// A pair with room for so many descriptors, or for as many as net.core.wmem_max allows
    /// (`socket(7)`).
    fn with_room(descriptors: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (far, near) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // One more has the memory.
        let messages = descriptors.div_ceil(MESSAGE) + 1;
        sys::make_room(&far, messages.saturating_mul(MESSAGE_COST).min(MOST_ROOM))?;
        Ok((Parking(far), near))
    }

    /// How many descriptors can be left behind at most.
    ///
    /// # Errors
    /// Those of `new` and `getsockopt(2)`.
    pub fn most() -> io::Result<usize> {
        Self::new()?.0.room()
    }

    fn room(&self) -> io::Result<usize> {
        let messages = sys::make_room(&self.0, 0)? / MESSAGE_COST;
        Ok(messages.saturating_sub(1) * MESSAGE)
    }

    /// Whether somebody holds the near end, which this process has closed.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled == Ok(0)
    }

    /// Leaves `bytes` and `descriptors` behind. What is said of the bytes in `memory` is final.
    /// Returns how many descriptors went, and why not all.
    ///
    /// # Errors
    /// Where nothing was left behind.
    pub fn leave(
        self,
        memory: &Memory,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(usize, Option<io::Error>)> {
        let first = [self.0.as_fd(), memory.0.as_fd()];
        send_descriptors(&self.0, FIRST, &first)?;
        let mut sent = 0;
        for chunk in descriptors.chunks(MESSAGE) {
            if let Err(error) = send_descriptors(&self.0, MORE, chunk) {
                return Ok((sent, Some(error)));
            }
            sent += chunk.len();
        }
        Ok((sent, None))
    }
}

/// Bytes that can no longer be changed, in memory that has a descriptor (`memfd_create(2)`).
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// What `write` writes behind `head` bytes and, at the start, what it returns.
    ///
    /// # Errors
    /// Those of `memfd_create(2)` and `write(2)`.
    pub fn new<const HEAD: usize>(
        write: impl FnOnce(&mut File) -> io::Result<[u8; HEAD]>,
    ) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("udsd-state", flags)?);
        file.seek(SeekFrom::Start(HEAD as u64))?;
        let head = write(&mut file)?;
        file.write_all_at(&head, 0)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Memory(file))
    }
}

/// What waits at a near end that the manager kept.
#[derive(Debug)]
pub struct Parked {
    near: OwnedFd,
    far: OwnedFd,
    memory: Memory,
}

impl Parked {
    /// Looks at what waits; `None` where nothing does.
    ///
    /// # Errors
    /// Where the near end is none, or what waits was not left by `Parking`; with that end.
    pub fn find(near: OwnedFd) -> Result<Option<Self>, (io::Error, OwnedFd)> {
        match Self::look(&near) {
            Ok(None) => Ok(None),
            Ok(Some((far, memory))) => Ok(Some(Parked { near, far, memory })),
            Err(error) => Err((error, near)),
        }
    }

    fn look(near: &OwnedFd) -> io::Result<Option<(OwnedFd, Memory)>> {
        // It is the socket's, not the process': somebody may have looked before.
        sys::set_peek_offset(near, 0)?;
        let Some(message) = receive(near, RecvFlags::PEEK)? else {
            return Ok(None);
        };
        let Message {
            payload,
            descriptors,
            ..
        } = message;
        match <[OwnedFd; 2]>::try_from(descriptors) {
            Ok([far, memory]) if payload == FIRST => Ok(Some((far, Memory(File::from(memory))))),
            _ if payload == MORE => Err(io::Error::other(
                "the process that went on with it has ended",
            )),
            _ => Err(io::Error::other("it was not left by udsd")),
        }
    }

    /// How many others have looked, and left their marks.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    pub fn marks(&self) -> io::Result<u64> {
        Ok(ioctl_fionread(&self.far)?)
    }

    /// Leaves the mark of one that looks.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn mark(&self) -> io::Result<()> {
        send(&self.near, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Takes the mark back: this process ends in good order, and a later one may look as often.
    pub fn unmark(&self) {
        // At worst there is one attempt less.
        let _ = rustix::net::recv(&self.far, &mut [0; 8][..], RecvFlags::DONTWAIT);
    }

    /// The bytes that were left, where they are: a copy could be as large as all queues together.
    ///
    /// # Errors
    /// Those of `sys::Mapping`.
    pub fn bytes(&self) -> io::Result<sys::Mapping> {
        sys::Mapping::new(&self.memory.0)
    }

    /// Copies of all descriptors; and whether some could not be had, for want of room in this process.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub fn descriptors(&self) -> io::Result<(Vec<OwnedFd>, bool)> {
        let (mut all, mut lacking) = (Vec::new(), false);
        // Behind the first message, where peeking has brought this end.
        while let Some(message) = receive(&self.near, RecvFlags::PEEK)? {
            all.extend(message.descriptors);
            lacking |= message.lacking;
        }
        Ok((all, lacking))
    }

    /// From now on no other process can go on with it.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn take(&self) -> io::Result<()> {
        rustix::net::recv(&self.near, &mut [0; 8][..], RecvFlags::DONTWAIT)?;
        Ok(())
    }

    /// Takes out what is left. This process has its own copies.
    pub fn empty(self) {
        while let Ok((_, 1..)) = rustix::net::recv(&self.near, &mut [0; 8][..], RecvFlags::DONTWAIT)
        {
        }
    }

    /// Takes the descriptors out for good, a few at a time, and gives each to `end`.
    pub fn give_up(self, end: impl FnMut(OwnedFd)) {
        give_up(&self.near, end);
    }
}

/// As `Parked::give_up`, of whatever waits at `near`.
pub fn give_up(near: &OwnedFd, mut end: impl FnMut(OwnedFd)) {
    while let Ok(Some(message)) = receive(near, RecvFlags::empty()) {
        // Those of the first are the pair's own.
        if message.payload != FIRST {
            message.descriptors.into_iter().for_each(&mut end);
        }
    }
}

struct Message {
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// MSG_CTRUNC: this process may have no more.
    lacking: bool,
}

/// The next message; `None` where there is none, or the other end is closed.
fn receive(near: &OwnedFd, flags: RecvFlags) -> io::Result<Option<Message>> {
    let mut payload = [0; 8];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut payload)];
        match recvmsg(near, &mut parts, &mut control, flags) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Message {
        payload: payload[..received.bytes.min(payload.len())].to_vec(),
        descriptors,
        lacking: received.flags.contains(ReturnFlags::CTRUNC),
    }))
}

fn send_descriptors(
    far: &OwnedFd,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(far, &[IoSlice::new(payload)], &mut control, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{
        io::Write,
        os::unix::net::{UnixDatagram, UnixStream},
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn memory(bytes: &[u8]) -> Memory {
        Memory::new(|file| {
            file.write_all(bytes)?;
            Ok(*b"head")
        })
        .unwrap()
    }

    /// A user has no more descriptors in flight than files may be open (`unix(7)`, ETOOMANYREFS): tests
    /// with many of them take turns.
    static MANY: Mutex<()> = Mutex::new(());

    fn in_turn() -> MutexGuard<'static, ()> {
        MANY.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `count` clients, and the near end in which they wait.
    fn park(count: usize) -> (Vec<u64>, Vec<UnixStream>, OwnedFd) {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..count).map(|_| UnixStream::pair().unwrap()).unzip();
        let cookies = ours.iter().map(|fd| socket_cookie(fd).unwrap()).collect();
        let (parking, near) = Parking::new().unwrap();
        let descriptors: Vec<_> = ours.iter().map(AsFd::as_fd).collect();
        let left = parking.leave(&memory(b"bytes"), &descriptors).unwrap();
        assert_eq!((left.0, left.1.is_none()), (count, true));
        (cookies, theirs, near)
    }

    fn find(near: &OwnedFd) -> Parked {
        Parked::find(near.try_clone().unwrap()).unwrap().unwrap()
    }

    fn cookies(parked: &Parked) -> Vec<u64> {
        let (descriptors, lacking) = parked.descriptors().unwrap();
        assert!(!lacking);
        descriptors
            .iter()
            .map(|fd| socket_cookie(fd).unwrap())
            .collect()
    }

    #[test]
    fn whoever_looks_finds_all_of_it_again_and_again() {
        let _turn = in_turn();
        for count in [0, 1, MESSAGE, MESSAGE + 1] {
            let (parked, mut clients, near) = park(count);
            for look in 0..3 {
                let found = find(&near);
                assert_eq!(found.marks().unwrap(), look);
                found.mark().unwrap();
                assert_eq!(*found.bytes().unwrap(), *b"headbytes");
                assert_eq!(cookies(&found), parked);
            }
            let found = find(&near);
            found.unmark();
            assert_eq!(found.marks().unwrap(), 2);
            let mut ended = 0;
            found.give_up(|_| ended += 1);
            assert_eq!(ended, count);
            assert!(Parked::find(near).unwrap().is_none());
            for client in &mut clients {
                assert_eq!(io::Read::read(client, &mut [0]).unwrap(), 0);
            }
        }
    }

    /// Sockets of one descriptor each: many messages fit below 1,024 open files.
    #[test]
    fn many_messages_are_found_in_their_order() {
        let _turn = in_turn();
        let sockets: Vec<_> = (0..2 * MESSAGE + 1)
            .map(|_| UnixDatagram::unbound().unwrap())
            .collect();
        let parked: Vec<u64> = sockets
            .iter()
            .map(|fd| socket_cookie(fd).unwrap())
            .collect();
        let (parking, near) = Parking::new().unwrap();
        let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let (left, error) = parking.leave(&memory(b""), &descriptors).unwrap();
        assert_eq!((left, error.is_none()), (parked.len(), true));
        drop(sockets);
        assert_eq!(cookies(&find(&near)), parked);
    }

    #[test]
    fn all_is_closed_with_the_near_end() {
        let _turn = in_turn();
        let (_, clients, near) = park(300);
        drop(find(&near));
        drop(near);
        for mut client in &clients {
            assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn it_is_known_whether_the_near_end_is_held() {
        let (parking, near) = Parking::new().unwrap();
        let held = near.try_clone().unwrap();
        drop(near);
        assert!(parking.is_held());
        drop(held);
        assert!(!parking.is_held());
    }

    #[test]
    fn as_many_fit_as_is_said() {
        let _turn = in_turn();
        let (_, little) = Parking::with_room(0).unwrap();
        for descriptors in [1, 100_000] {
            let (parking, near) = Parking::with_room(descriptors).unwrap();
            let room = parking.room().unwrap();
            assert!(room >= 50_000, "{room}");
            for _ in 0..=room / MESSAGE {
                send_descriptors(&parking.0, MORE, &[little.as_fd()]).unwrap();
            }
            give_up(&near, drop);
        }
    }

    #[test]
    fn what_nobody_parked_is_refused() {
        let (parking, near) = Parking::new().unwrap();
        send_descriptors(&parking.0, b"what", &[parking.0.as_fd(), near.as_fd()]).unwrap();
        let near = Parked::find(near).unwrap_err().1;
        give_up(&near, drop);
        assert!(Parked::find(near).unwrap().is_none());
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(Parked::find(stream.into()).unwrap().is_none());
        let file = File::open("/dev/null").unwrap();
        assert!(Parked::find(file.into()).is_err());
    }

    #[test]
    fn memory_that_was_left_cannot_be_changed() {
        let mut memory = memory(b"bytes");
        assert!(memory.0.write_all(b"more").is_err());
        assert!(memory.0.set_len(0).is_err());
    }
}
