//! Descriptors in flight: what one process leaves for the next while neither runs.
//!
//! They wait in one pair of seqpacket sockets, as SCM_RIGHTS (`unix(7)`). The service manager keeps one end, the
//! near one. The far end waits in the pair itself, so that it stays open. The first message carries the far end
//! and a sealed memfd with bytes, each other message up to 253 descriptors. Each has a payload of at least a
//! byte, for an empty one looks like the end.
//!
//! The next process reads without taking (MSG_PEEK, SO_PEEK_OFF in `socket(7)`), and leaves a mark in the other
//! direction first. Until it takes the first message out, which is one call, another process can read again;
//! from then on none can.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
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
};

use crate::sys::{self, DESCRIPTORS as MESSAGE};

/// What a message costs of SO_SNDBUF: 768 bytes where it was tried (6.18).
const MESSAGE_COST: usize = 1024;
/// SO_SNDBUF is not raised beyond.
const MOST_ROOM: usize = 1 << 28;
/// How many processes may begin to restore what waits here and fail.
pub const ATTEMPTS: u64 = 3;
/// The payload of the first message, and of the others.
const FIRST: &[u8] = b"udsd";
const MORE: &[u8] = b"fd";

/// The far end, before anything is in flight.
#[derive(Debug)]
pub struct Parking(OwnedFd);

impl Parking {
    /// A pair: the far end, and the near one for the manager.
    ///
    /// # Errors
    /// Those of `socketpair(2)`.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        // A process can have no more descriptors open, or in flight.
        Self::with_room(sys::open_files())
    }

    /// A pair with room for so many descriptors, or for as many as net.core.wmem_max allows
    /// (`socket(7)`).
    fn with_room(descriptors: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (far, near) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The first message has none of them.
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

    /// Whether the manager holds the near end, which this process has closed.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled == Ok(0)
    }

    /// Leaves `memory` and `descriptors` behind. Returns how many descriptors went and, if not all, why.
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

/// Sealed bytes in a `memfd_create(2)`: nobody can change them any more.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// What `write` writes.
    ///
    /// # Errors
    /// Those of `memfd_create(2)` and `write`.
    pub fn new(write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("udsd-state", flags)?);
        write(&mut file)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Memory(file))
    }
}

/// What an earlier process has left in the pair whose near end the manager kept.
#[derive(Debug)]
pub struct Stored {
    near: OwnedFd,
    far: OwnedFd,
    memory: Memory,
}

impl Stored {
    /// Looks at what waits at `near`; `None` where nothing does.
    ///
    /// # Errors
    /// Why it is not what `Parking` leaves.
    pub fn find(near: &OwnedFd) -> io::Result<Option<Self>> {
        // The socket has this offset, not the process, and another process may have moved it.
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
            Ok([far, memory]) if payload == FIRST => Ok(Some(Stored {
                near: near.try_clone()?,
                far,
                memory: Memory(File::from(memory)),
            })),
            _ if payload == MORE => Err(io::Error::other(
                "the process that went on with it has ended",
            )),
            _ => Err(io::Error::other("it was not left by udsd")),
        }
    }

    /// How many processes have left their marks.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    pub fn marks(&self) -> io::Result<u64> {
        Ok(ioctl_fionread(&self.far)?)
    }

    /// Leaves the mark of this process.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn mark(&self) -> io::Result<()> {
        send(&self.near, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Takes the mark back: this process ends in good order, which is no failed attempt.
    pub fn unmark(&self) {
        // At worst there is one attempt less.
        let _ = rustix::net::recv(&self.far, &mut [0; 8][..], RecvFlags::DONTWAIT);
    }

    /// The file with what was left.
    #[must_use]
    pub fn memory(&self) -> &File {
        &self.memory.0
    }

    /// Copies of all descriptors, and whether some are missing because this process may open no more.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub fn descriptors(&self) -> io::Result<(Vec<OwnedFd>, bool)> {
        let (mut all, mut lacking) = (Vec::new(), false);
        // The first message has been peeked at: this begins behind it.
        while let Some(message) = receive(&self.near, RecvFlags::PEEK)? {
            all.extend(message.descriptors);
            lacking |= message.lacking;
        }
        Ok((all, lacking))
    }

    /// Takes the first message out: from now on no other process can go on with the rest.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn take(&self) -> io::Result<()> {
        rustix::net::recv(&self.near, &mut [0; 8][..], RecvFlags::DONTWAIT)?;
        Ok(())
    }

    /// Takes out the rest, of which this process has its own copies.
    pub fn empty(self) {
        while let Ok((_, 1..)) = rustix::net::recv(&self.near, &mut [0; 8][..], RecvFlags::DONTWAIT)
        {
        }
    }
}

/// Takes out whatever descriptors wait at `near`, a few at a time, and gives each to `end`.
pub fn give_up(near: &OwnedFd, mut end: impl FnMut(OwnedFd)) {
    // The first message has no descriptors of clients, but the far end: with its close the rest would be lost.
    let mut first = Vec::new();
    while let Ok(Some(message)) = receive(near, RecvFlags::empty()) {
        match message.payload == FIRST {
            true => first = message.descriptors,
            false => message.descriptors.into_iter().for_each(&mut end),
        }
    }
    drop(first);
}

struct Message {
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// MSG_CTRUNC: this process may open no more descriptors.
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
        os::unix::{
            fs::FileExt,
            net::{UnixDatagram, UnixStream},
        },
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn memory(bytes: &[u8]) -> Memory {
        Memory::new(|file| file.write_all(bytes)).unwrap()
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

    fn find(near: &OwnedFd) -> Stored {
        Stored::find(near).unwrap().unwrap()
    }

    fn cookies(parked: &Stored) -> Vec<u64> {
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
                let mut bytes = [0; 5];
                found.memory().read_exact_at(&mut bytes, 0).unwrap();
                assert_eq!(bytes, *b"bytes");
                assert_eq!(cookies(&found), parked);
            }
            let found = find(&near);
            found.unmark();
            assert_eq!(found.marks().unwrap(), 2);
            let mut ended = 0;
            give_up(&near, |_| ended += 1);
            assert_eq!(ended, count);
            assert!(Stored::find(&near).unwrap().is_none());
            drop((found, near));
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
        assert!(Stored::find(&near).is_err());
        give_up(&near, drop);
        assert!(Stored::find(&near).unwrap().is_none());
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(Stored::find(&stream.into()).unwrap().is_none());
        let file = File::open("/dev/null").unwrap();
        assert!(Stored::find(&file.into()).is_err());
    }

    #[test]
    fn memory_that_was_left_cannot_be_changed() {
        let mut memory = memory(b"bytes");
        assert!(memory.0.write_all(b"more").is_err());
        assert!(memory.0.set_len(0).is_err());
    }
}
