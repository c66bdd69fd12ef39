//! What a service manager does for a daemon: passes sockets, and keeps descriptors from one process to
//! the next.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::Path,
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
        SocketFlags, SocketType, bind, listen, recvmsg, socket_with, sockopt,
    },
};

use super::{Daemon, Setup, Signal};

/// As the manager passes sockets: descriptors from 3 on, LISTEN_FDS, LISTEN_PID, and LISTEN_FDNAMES
/// where there are names. A process of safe code cannot place descriptors in its child, a shell can.
pub fn passing(setup: Setup, descriptors: &[BorrowedFd<'_>], names: Option<&str>) -> Setup {
    let duplicate = |i: usize| -> OwnedFd { descriptors[i].try_clone_to_owned().unwrap() };
    let (setup, moves) = match descriptors.len() {
        1 => (setup.stdin(duplicate(0)), "3<&0 </dev/null"),
        2 => (
            setup.stdin(duplicate(0)).stdout(duplicate(1)),
            "3<&0 4<&1 </dev/null >/dev/null",
        ),
        _ => panic!("a shell has two descriptors to spare"),
    };
    let script = format!("exec {moves}; export LISTEN_PID=$$; exec \"$@\"");
    let setup = setup
        .wrapper(&["sh", "-c", &script, "sh"])
        .variable("LISTEN_FDS", &descriptors.len().to_string());
    match names {
        Some(names) => {
            let goes_on = names.split(':').any(|name| name == STORED);
            Setup { goes_on, ..setup }.variable("LISTEN_FDNAMES", names)
        }
        None => setup,
    }
}

/// A socket of this type at `path`, as the manager makes it. Until udsd has it, whoever sends to it, or
/// connects, may send descriptors.
pub fn socket_at(path: &Path, kind: SocketType) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    if kind == SocketType::DGRAM {
        sockopt::set_socket_passcred(&socket, true).unwrap();
    }
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    if kind != SocketType::DGRAM {
        listen(&socket, 4096).unwrap();
    }
    socket
}

/// The name of what udsd has the manager keep.
pub const STORED: &str = "udsd.parked";

/// What came on NOTIFY_SOCKET, and the descriptors with it.
pub(super) fn receive_note(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let bytes = recvmsg(socket, &mut parts, &mut control, flags)?.bytes;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    buffer.truncate(bytes);
    Ok((buffer, descriptors))
}

impl Daemon {
    /// SIGUSR2, its end after a handover, and what it left.
    pub fn park(&mut self) -> OwnedFd {
        self.signal(Signal::USR2);
        let code = self.wait().code();
        assert_eq!(code, Some(75), "it ended otherwise than after a handover");
        let mut stored = self.stored();
        assert_eq!(
            stored.len(),
            1,
            "it left something else than one descriptor"
        );
        stored.remove(0)
    }

    /// As `restart`, with a socket that the manager passes under this name.
    pub fn restart_passing(
        mut self,
        (name, socket): (&str, BorrowedFd<'_>),
        setup: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let near = self.park();
        let next = setup(Setup::within(self.folder().clone()).keeping());
        let names = format!("{STORED}:{name}");
        passing(next, &[near.as_fd(), socket], Some(&names)).start()
    }

    /// The process that goes on as `setup` says with what this one leaves.
    pub fn restart(mut self, setup: impl FnOnce(Setup) -> Setup) -> Self {
        let near = self.park();
        let next = Setup::within(self.folder().clone()).keeping();
        passing(setup(next), &[near.as_fd()], Some(STORED)).start()
    }
}
