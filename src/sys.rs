//! The calls of the operating system that no safe wrapper offers as udsd needs them; the only file
//! with unsafe code.
//!
//! Why not rustix for the credentials: its `UCred` holds a pid that cannot be 0, and the kernel
//! reports 0 for a peer of a foreign pid namespace.
#![allow(
    unsafe_code,
    reason = "the one file where the package's ban on unsafe code is lifted"
)]

use std::{
    ffi::CString,
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use crate::peer::Peer;

/// Supplementary groups that one `groups_of` has room for at first; few processes have more.
const GROUPS: usize = 32;
/// The most that a process can have (NGROUPS_MAX, `credentials(7)`).
const GROUPS_MAX: usize = 65536;

/// The credentials of the process at the other end (SO_PEERCRED, `unix(7)`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `credentials` and `length` are valid for writes of the sizes that are passed, and the
    // kernel writes a plain `struct ucred`, of which every bit pattern is valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut credentials).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        pid: credentials.pid,
        uid: credentials.uid,
        gid: credentials.gid,
    })
}

/// The supplementary groups of the process at the other end, at the time it connected
/// (SO_PEERGROUPS, `unix(7)`); its primary one need not be among them.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn groups_of(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS];
    loop {
        let mut length = mem::size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: `groups` is valid for writes of `length` bytes and `length` for writes of itself,
        // and the kernel writes numbers of groups, of which every bit pattern is valid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / mem::size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too little room: the length that would do comes with it.
        let grows = (groups.len() + 1..=GROUPS_MAX).contains(&count);
        if error.raw_os_error() != Some(libc::ERANGE) || !grows {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Receives one packet of a seqpacket socket that has SO_PASSCRED, without waiting. Returns its
/// length, which is more than `buffer` has where it was cut (MSG_TRUNC, `recv(2)`); `None` at the end.
///
/// An empty packet reads like the end of file. But each packet brings its sender's credentials
/// (SCM_CREDENTIALS, `unix(7)`), and the end brings nothing. There is room for them alone, so the
/// kernel closes descriptors that were sent: they never enter this process.
///
/// # Errors
/// Those of `recvmsg(2)`; `WouldBlock` where no packet waits.
pub fn receive_packet(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // A header of 16 bytes and a `struct ucred`, aligned for both.
    let mut control = [0_u64; 4];
    // SAFETY: null pointers with lengths of zero make a valid `struct msghdr`.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: `header` names one part and a control buffer, both valid for writes of the lengths that
    // stand beside them and alive until the call returns; the kernel writes plain bytes there.
    let length = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut header,
            libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length > 0 || header.msg_controllen > 0).then_some(length))
}

/// The number of a user, by name or number (`getpwnam_r(3)`). `None` where there is none.
///
/// # Errors
/// Those of the user database.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: `name` is NUL-terminated, `buffer` is passed with its length, and all of them
        // outlive the call; `found` is null unless `entry` was filled.
        let error = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        // SAFETY: `found` is not null, so it points to `entry`, filled.
        (
            error,
            (!found.is_null()).then(|| unsafe { (*found).pw_uid }),
        )
    })
}

/// The number of a group, by name or number (`getgrnam_r(3)`). `None` where there is none.
///
/// # Errors
/// Those of the user database.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name, buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: as in `user_id`.
        let error = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        // SAFETY: `found` is not null, so it points to `entry`, filled.
        (
            error,
            (!found.is_null()).then(|| unsafe { (*found).gr_gid }),
        )
    })
}

/// Numbers stand for themselves; a name is asked for with a buffer that grows until it is enough.
fn look_up(
    name: &str,
    ask: impl Fn(&CString, &mut [u8]) -> (libc::c_int, Option<u32>),
) -> io::Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer = vec![0; 1024];
    loop {
        match ask(&name, &mut buffer) {
            (_, Some(number)) => return Ok(Some(number)),
            (libc::ERANGE, None) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            // getpwnam(3), NOTES: these too are said for "no such name".
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, None) => return Ok(None),
            (error, None) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{os::unix::net::UnixStream, process};

    use rustix::process::Gid;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = peer_of(&a).unwrap();
        assert_eq!(peer.pid, process::id().cast_signed());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn the_groups_of_a_pair_are_those_of_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let own = rustix::process::getgroups().unwrap();
        let own: Vec<u32> = own.into_iter().map(Gid::as_raw).collect();
        assert_eq!(groups_of(&a).unwrap(), own);
        assert!(groups_of(io::pipe().unwrap().0).is_err());
    }

    #[test]
    fn names_and_numbers_of_users_and_groups() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(user_id("1234567").unwrap(), Some(1_234_567));
        assert_eq!(user_id("no-such-user-here").unwrap(), None);
        assert_eq!(group_id("no-such-group-here").unwrap(), None);
    }
}
