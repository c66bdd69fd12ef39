//! A datagram socket of the kernel (`unix(7)`), used without ever waiting for it.

mod file;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
        SocketType, sockopt,
    },
};

use crate::{
    closer,
    datagram::Datagrams,
    datagram_header::{Address, AddressKind, BATCH, Header},
    sys,
};

/// What is asked for as SO_SNDBUF, in bytes. What receivers have not read counts against it, all of
/// them together (`socket(7)`).
pub const SEND_BUFFER: usize = 32 << 20;

/// A datagram socket.
#[derive(Debug)]
pub struct DatagramSocket {
    fd: Rc<OwnedFd>,
    /// Descriptors may be with what waits there.
    has_descriptors: bool,
    /// The kernel keeps out those of others who send now.
    refuses_descriptors: bool,
    /// The manager keeps it: what waits there is for the next process.
    inherited: bool,
    send_buffer: usize,
}

impl DatagramSocket {
    /// Takes a bound socket, whose datagrams come with credentials from now on.
    ///
    /// # Errors
    /// Those of `setsockopt(2)` and `socket(2)`.
    pub fn new(fd: Rc<OwnedFd>, inherited: bool) -> io::Result<Self> {
        sockopt::set_socket_passcred(&fd, true)?;
        raise_send_buffer(&fd)?;
        let send_buffer = sockopt::socket_send_buffer_size(&fd)?;
        let refuses_descriptors = sys::refuse_descriptors(&fd)?;
        let is_empty = sys::look(&fd, &mut [], true)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        Ok(DatagramSocket {
            fd,
            has_descriptors: !(refuses_descriptors && is_empty),
            refuses_descriptors,
            inherited,
            send_buffer,
        })
    }

    /// As `receive`, of what descriptors may be with: they are closed elsewhere.
    fn receive_with_descriptors(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        headers: &mut Vec<Header>,
    ) -> io::Result<()> {
        for bytes in buffer.chunks_exact_mut(slot).take(BATCH) {
            match self.receive_one(bytes) {
                Ok(header) => headers.push(header),
                Err(error) => {
                    // Who sends now cannot send any.
                    let is_empty = error.kind() == io::ErrorKind::WouldBlock;
                    self.has_descriptors &= !(is_empty && self.refuses_descriptors);
                    if headers.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn receive_one(&self, bytes: &mut [u8]) -> io::Result<Header> {
        if !closer::has_room() && sys::look(&self.fd, bytes, true)?.has_descriptors {
            return Err(io::Error::other(
                "descriptors come with it, and those that came before are not closed yet",
            ));
        }
        let mut descriptors = Vec::new();
        let received = sys::receive_with_descriptors(&self.fd, bytes, &mut descriptors)?;
        closer::close_sent(descriptors, &received.header.peer);
        Ok(received.header)
    }

    /// The socket, for the event loop to watch.
    #[must_use]
    pub fn socket(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.fd)
    }

    /// The longest datagram that can be sent, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.send_buffer.saturating_sub(sys::SEND_RESERVE)
    }

    /// Sends to a path, but only to a socket that `owner` has there. The sender chose the path, and
    /// where it leads may differ for the daemon (another mount namespace, a relative path, a link
    /// put there since): without this, anyone could have the daemon write what they like to sockets
    /// of others, in the daemon's name.
    fn send_to_path(&self, path: &[u8], owner: u32, bytes: &[u8]) -> io::Result<()> {
        let file = file::open(path, owner)?;
        // The same file, whatever the path leads to now.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        self.send_to(&address, bytes)
    }

    fn send_to(&self, address: &SocketAddrUnix, bytes: &[u8]) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        net::sendto(&self.fd, bytes, flags, address)?;
        Ok(())
    }
}

impl Datagrams for DatagramSocket {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        slot: usize,
        headers: &mut Vec<Header>,
    ) -> io::Result<()> {
        match self.has_descriptors {
            false => sys::receive_datagrams(&self.fd, buffer, slot, headers),
            true => self.receive_with_descriptors(buffer, slot, headers),
        }
    }

    fn send(&mut self, to: &Address, owner: u32, bytes: &[u8]) -> io::Result<()> {
        match to.kind() {
            Some(AddressKind::Abstract(name)) => {
                self.send_to(&SocketAddrUnix::new_abstract_name(name)?, bytes)
            }
            Some(AddressKind::Path(path)) => self.send_to_path(path, owner, bytes),
            None => Err(Errno::DESTADDRREQ.into()),
        }
    }

    fn unread(&self) -> usize {
        // Of a socket that is open this cannot fail.
        sys::unread_by_peer(&self.fd).unwrap_or_default()
    }

    fn send_buffer(&self) -> usize {
        self.send_buffer
    }

    fn disown(&mut self) {
        self.inherited = false;
    }

    fn shut_down(&mut self) -> bool {
        !self.inherited && net::shutdown(&self.fd, Shutdown::Read).is_ok()
    }

    fn hang_up(&mut self) -> usize {
        // After this nothing more comes, so the loop ends with what the queue held.
        if !self.shut_down() {
            return 0;
        }
        let mut unread = 0;
        loop {
            if self.has_descriptors
                && sys::look(&self.fd, &mut [], true).is_ok_and(|found| found.has_descriptors)
                && let Ok(socket) = self.fd.try_clone()
            {
                // Its answers still go out from here.
                closer::read_away_datagrams(socket);
                return unread;
            }
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match net::recv(&self.fd, &mut [0][..], flags) {
                Ok((_, length)) => unread += length,
                Err(Errno::INTR) => {}
                Err(_) => return unread,
            }
        }
    }
}

/// Raises SO_SNDBUF towards `SEND_BUFFER`, and never lowers what the manager gave.
fn raise_send_buffer(fd: &OwnedFd) -> io::Result<()> {
    let given = sockopt::socket_send_buffer_size(fd)?;
    // The kernel doubles what it is asked for.
    if given >= 2 * SEND_BUFFER
        || sockopt::set_socket_send_buffer_size_force(fd, SEND_BUFFER).is_ok()
    {
        return Ok(());
    }
    // Without CAP_NET_ADMIN net.core.wmem_max is the most, and less than was given is taken for an
    // answer too: another socket shows what would come of it.
    let flags = SocketFlags::CLOEXEC;
    let other = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_send_buffer_size(&other, SEND_BUFFER)?;
    if sockopt::socket_send_buffer_size(&other)? > given {
        sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn what_the_manager_gave_is_never_lowered() {
        let socket = OwnedFd::from(UnixDatagram::unbound().unwrap());
        let before = sockopt::socket_send_buffer_size(&socket).unwrap();
        raise_send_buffer(&socket).unwrap();
        let raised = sockopt::socket_send_buffer_size(&socket).unwrap();
        assert!(raised >= before);
        raise_send_buffer(&socket).unwrap();
        assert_eq!(sockopt::socket_send_buffer_size(&socket).unwrap(), raised);
        // More than udsd asks for: only a privileged manager can.
        if sockopt::set_socket_send_buffer_size_force(&socket, 2 * SEND_BUFFER).is_ok() {
            raise_send_buffer(&socket).unwrap();
            let kept = sockopt::socket_send_buffer_size(&socket).unwrap();
            assert_eq!(kept, 4 * SEND_BUFFER);
        }
    }
}
