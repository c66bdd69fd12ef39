//! The control socket as a socket like those of the file: its rules are not the file's to change, but for its path
//! and who may ask there.

use std::time::Duration;

use rustix::process::geteuid;

use super::{Address, Daemon, ServiceKind, Socket};
use crate::frame::Framing;

/// The name of the control socket in the log and to a restart. No socket of the file can have it, for a name has no
/// point.
pub const CONTROL_SOCKET: &str = "daemon.control";
/// Bytes that wait for one of them: more than the longest answer, that of all counts of the most sockets.
const QUEUE_SIZE: usize = 8 << 20;
/// How long a caller may be silent that waits for no answer: there are few places.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The control socket, where there is one.
pub(super) fn socket(daemon: &Daemon) -> Option<Socket> {
    let own = geteuid().as_raw().to_string();
    let users = ["0".into(), own].into_iter();
    Some(Socket {
        // Who may not enter learns that from udsd, and not from the file.
        mode: 0o666,
        allow_users: users.chain(daemon.control_users.iter().cloned()).collect(),
        allow_groups: daemon.control_groups.clone(),
        service: ServiceKind::Control,
        framing: Framing::Nul,
        queue_size: QUEUE_SIZE,
        idle_timeout: Some(IDLE_TIMEOUT),
        ..Socket::new(
            CONTROL_SOCKET.into(),
            Address::Path(daemon.control.clone()?),
        )
    })
}

/// The key of `socket` that the file has for this: of the control socket, those that begin with its name.
pub(super) fn key(socket: &Socket, key: &str) -> String {
    match key.strip_prefix("allow") {
        _ if !socket.is_control() => format!("socket.{}.{key}", socket.name),
        Some(kind) => format!("{CONTROL_SOCKET}{kind}"),
        None => CONTROL_SOCKET.into(),
    }
}
