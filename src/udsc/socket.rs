//! udsc's own socket, of whichever type: how it is connected. All are a `UnixStream`, since the standard library has
//! no type for seqpackets: all its calls but reading and writing are those of any connected socket.

use std::{
    io,
    os::unix::{ffi::OsStrExt, net::UnixStream},
};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, sockopt};

use crate::config::{Address, SocketType};

/// A socket that is connected to `address`.
///
/// # Errors
/// Those of `connect(2)` and, for an address that has no room in it, ENAMETOOLONG.
pub(crate) fn connect(address: &Address, kind: SocketType) -> io::Result<UnixStream> {
    let address = match address {
        Address::Path(path) => SocketAddrUnix::new(path.as_os_str().as_bytes())?,
        Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
    };
    let socket = net::socket_with(AddressFamily::UNIX, kind.raw(), SocketFlags::CLOEXEC, None)?;
    net::connect(&socket, &address)?;
    prepare(socket.into(), kind)
}

fn prepare(socket: UnixStream, kind: SocketType) -> io::Result<UnixStream> {
    match kind {
        SocketType::Stream => {}
        // Tells empty packets from the end. Not earlier: connecting would then bind an address
        // that nobody needs (`unix(7)`).
        SocketType::Seqpacket => sockopt::set_socket_passcred(&socket, true)?,
        // An abstract address that the kernel chooses (`unix(7)`, autobind), for the answers.
        // Not earlier: now nobody but the server can send there.
        SocketType::Datagram => net::bind(&socket, &SocketAddrUnix::new_unnamed())?,
    }
    Ok(socket)
}

/// Two that are connected with each other, the first as `connect` makes it.
#[cfg(test)]
pub(crate) fn pair(kind: SocketType) -> io::Result<(UnixStream, UnixStream)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = net::socketpair(AddressFamily::UNIX, kind.raw(), flags, None)?;
    Ok((prepare(ours.into(), kind)?, theirs.into()))
}
