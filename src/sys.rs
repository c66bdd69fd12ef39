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
    ffi::{CStr, CString},
    io,
    mem::{self, MaybeUninit},
    ops,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr, slice,
    time::Duration,
};

pub use libc::{SIGPWR, SIGSTKFLT};
use rustix::{
    ioctl::{Getter, ioctl},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    datagram_header::{Address, BATCH, Header},
    peer::Peer,
};

/// Room for the credentials of one datagram and for nothing else: descriptors that came with it find
/// none, so the kernel closes them (`unix(7)`, SCM_RIGHTS).
// SAFETY: only arithmetic.
const CREDENTIALS: usize =
    unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;

/// Descriptors that one message can have (SCM_MAX_FD, `unix(7)`).
pub const DESCRIPTORS: usize = 253;
/// Room for as many.
// SAFETY: only arithmetic.
const RIGHTS: usize =
    unsafe { libc::CMSG_SPACE((DESCRIPTORS * mem::size_of::<RawFd>()) as u32) } as usize;

/// Whether descriptors may be sent to this socket (SO_PASSRIGHTS, Linux 6.16); what it listens for
/// inherits it. The constant is not in libc yet.
const SO_PASSRIGHTS: libc::c_int = 83;

/// The pidfd of a socket's peer, of linux/socket.h; and what `ioctl(2)` tells of one (linux/pidfd.h): its request,
/// which holds the size of what is told, and what to tell. The constants are not in libc yet.
const SO_PEERPIDFD: libc::c_int = 77;
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Supplementary groups that one `groups_of` has room for at first; few processes have more.
const GROUPS: usize = 32;
/// The most that a process can have (NGROUPS_MAX, `credentials(7)`).
const GROUPS_MAX: usize = 65536;

/// The real-time signals, but for those that the C library keeps to itself (`signal(7)`).
#[must_use]
pub fn real_time_signals() -> ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// How many files this process may have open (RLIMIT_NOFILE).
#[must_use]
pub fn open_files() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// Raises the soft limit of open files to the hard one.
///
/// # Errors
/// Those of `setrlimit(2)`.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current, ..limit })?)
}

/// The credentials of the process at the other end (SO_PEERCRED, `unix(7)`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    // As `struct ucred` has them.
    let mut numbers = [0; 3];
    get_option(socket, libc::SO_PEERCRED, &mut numbers)?;
    let [pid, uid, gid] = numbers;
    Ok(Peer {
        pid: pid.cast_signed(),
        uid,
        gid,
    })
}

/// The process at the other end, as a pidfd (SO_PEERPIDFD, Linux 6.5).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn peer_process(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut number = [0];
    get_option(socket, SO_PEERPIDFD, &mut number)?;
    // SAFETY: the kernel has just opened it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number[0].cast_signed()) })
}

/// The number of the cgroup of a process, also of one that has ended: the inode of its folder (`cgroups(7)`).
/// `None` where the kernel does not say.
///
/// # Errors
/// Those of `ioctl(2)`; ENOTTY or EINVAL before Linux 6.13.
pub fn cgroup_of(process: impl AsFd) -> io::Result<Option<u64>> {
    // `struct pidfd_info` of linux/pidfd.h, in its first form: the mask, the number, twelve that are not asked for.
    let mut info = [0_u64; 8];
    info[0] = PIDFD_INFO_CGROUPID | PIDFD_INFO_EXIT;
    // SAFETY: the kernel writes as many bytes as the request says, which are those of `info`.
    let result = unsafe {
        libc::ioctl(
            process.as_fd().as_raw_fd(),
            PIDFD_GET_INFO,
            info.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info[0] & PIDFD_INFO_CGROUPID != 0).then_some(info[1]))
}

/// The supplementary groups of the process at the other end, at the time it connected
/// (SO_PEERGROUPS, `unix(7)`); its primary one need not be among them.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn groups_of(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; GROUPS];
    let mut count = get_option(&socket, libc::SO_PEERGROUPS, &mut groups);
    if count.as_ref().err().and_then(io::Error::raw_os_error) == Some(libc::ERANGE) {
        groups = vec![0; GROUPS_MAX];
        count = get_option(&socket, libc::SO_PEERGROUPS, &mut groups);
    }
    groups.truncate(count?);
    Ok(groups)
}

/// From now on nobody can send descriptors to this socket, nor to those that it accepts: `sendmsg(2)`
/// fails with EPERM. Whether the kernel can do that; what was sent before still waits.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn refuse_descriptors(socket: impl AsFd) -> io::Result<bool> {
    match set_option(socket, SO_PASSRIGHTS, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Whether `refuse_descriptors` does anything on this kernel.
#[must_use]
pub fn can_refuse_descriptors() -> bool {
    let pair = std::os::unix::net::UnixDatagram::unbound();
    pair.is_ok_and(|socket| refuse_descriptors(socket).unwrap_or(false))
}

/// Whether descriptors may be sent to this socket.
#[must_use]
pub fn takes_descriptors(socket: impl AsFd) -> bool {
    let mut takes = [0];
    get_option(socket, SO_PASSRIGHTS, &mut takes).is_err() || takes != [0]
}

/// What was received, and who sent it.
#[derive(Debug)]
pub struct Received {
    /// Its length, and where it came from; on a socket without SO_PASSCRED from nobody.
    pub header: Header,
    /// Neither bytes nor control data came: the end, on a socket that has SO_PASSCRED.
    pub is_end: bool,
}

/// Receives from a socket without waiting: the next packet or datagram, or bytes of a stream.
/// Descriptors that came with it are appended.
///
/// # Errors
/// Those of `recvmsg(2)`; `WouldBlock` where nothing waits.
pub fn receive_with_descriptors(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = Control([MaybeUninit::uninit(); CREDENTIALS + RIGHTS]);
    let mut name = MaybeUninit::<libc::sockaddr_un>::uninit();
    let (length, header) = receive(socket, buffer, &mut control, Some(&mut name), 0)?;
    // SAFETY: the kernel has filled this header and what it leads to, which all still live; nobody has
    // the descriptors that it has opened for this process.
    let received = unsafe { read_header(&header, length, descriptors) };
    Ok(Received {
        header: received,
        is_end: length == 0 && header.msg_controllen == 0,
    })
}

/// What waits at a socket.
#[derive(Debug)]
pub struct Waiting {
    /// Its length; on a stream no more than there was room for.
    pub length: usize,
    /// The end.
    pub is_end: bool,
    /// Descriptors are with it, or right behind.
    pub has_descriptors: bool,
}

/// Looks at what `receive_with_descriptors` would bring, from SO_PEEK_OFF on. No descriptor enters this
/// process, nor is any closed. `passcred`: whether the socket has SO_PASSCRED.
///
/// # Errors
/// As there.
pub fn look(socket: impl AsFd, buffer: &mut [u8], passcred: bool) -> io::Result<Waiting> {
    // Room for the credentials that always come, or for nothing: MSG_CTRUNC tells of more.
    let (length, header) = if passcred {
        let mut control = Control([MaybeUninit::uninit(); CREDENTIALS]);
        receive(socket, buffer, &mut control, None, libc::MSG_PEEK)?
    } else {
        receive(socket, buffer, &mut Control([]), None, libc::MSG_PEEK)?
    };
    Ok(Waiting {
        length,
        is_end: length == 0 && header.msg_controllen == 0,
        has_descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Receives one packet of a seqpacket socket that has SO_PASSCRED, without waiting. Returns its
/// length, which is more than `buffer` has where it was cut (MSG_TRUNC, `recv(2)`); `None` at the end.
///
/// An empty packet reads like the end of file. But each packet brings its sender's credentials
/// (SCM_CREDENTIALS, `unix(7)`), and the end brings nothing. There is room for them alone: descriptors
/// that were sent the kernel closes, in this call.
///
/// # Errors
/// Those of `recvmsg(2)`; `WouldBlock` where no packet waits.
pub fn receive_packet(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut control = Control([MaybeUninit::uninit(); CREDENTIALS]);
    let (length, header) = receive(socket, buffer, &mut control, None, 0)?;
    Ok((length > 0 || header.msg_controllen > 0).then_some(length))
}

/// A header for `recvmsg(2)`. It leads to its arguments, and they must outlive its use.
fn new_header<const ROOM: usize>(
    name: Option<&mut MaybeUninit<libc::sockaddr_un>>,
    buffer: &mut [u8],
    part: &mut MaybeUninit<libc::iovec>,
    control: &mut Control<ROOM>,
) -> libc::msghdr {
    // SAFETY: null pointers with lengths of zero make a valid `struct msghdr`.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(name) = name {
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
    }
    header.msg_iov = part.write(libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    });
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = ROOM as _;
    header
}

/// One `recvmsg(2)`. What the header leads to lives as long as the arguments.
fn receive<const ROOM: usize>(
    socket: impl AsFd,
    buffer: &mut [u8],
    control: &mut Control<ROOM>,
    name: Option<&mut MaybeUninit<libc::sockaddr_un>>,
    flags: libc::c_int,
) -> io::Result<(usize, libc::msghdr)> {
    let mut part = MaybeUninit::uninit();
    let mut header = new_header(name, buffer, &mut part, control);
    // SAFETY: `header` names one part, a control buffer and perhaps an address, all valid for writes of
    // the lengths that stand beside them and alive until the call returns; the kernel writes plain bytes
    // there.
    let length = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut header,
            flags | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // It does not outlive this call.
    header.msg_iov = ptr::null_mut();
    header.msg_iovlen = 0;
    Ok((length, header))
}

/// Room for control data, placed as its header asks (`cmsg(3)`).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control<const ROOM: usize>([MaybeUninit<u8>; ROOM]);

/// Receives the datagrams that are there, at most `BATCH`, each into `slot` bytes of its own of `buffer`,
/// with its sender's address and credentials (`recvmmsg(2)`, SO_PASSCRED in `unix(7)`). `received`
/// gets one for each.
///
/// # Errors
/// Those of `recvmmsg(2)`; `WouldBlock` where nothing waits.
pub fn receive_datagrams(
    socket: impl AsFd,
    buffer: &mut [u8],
    slot: usize,
    received: &mut Vec<Header>,
) -> io::Result<()> {
    let mut names = [const { MaybeUninit::<libc::sockaddr_un>::uninit() }; BATCH];
    let mut controls = [Control([MaybeUninit::uninit(); CREDENTIALS]); BATCH];
    let mut parts = [const { MaybeUninit::uninit() }; BATCH];
    // SAFETY: a header of zeros has neither name nor parts nor control data.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut room = 0;
    for (i, bytes) in buffer.chunks_exact_mut(slot).take(BATCH).enumerate() {
        let name = Some(&mut names[i]);
        headers[i].msg_hdr = new_header(name, bytes, &mut parts[i], &mut controls[i]);
        room += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the first `room` headers lead to names, parts and control data that outlive the call,
    // each with its size.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            room,
            flags,
            ptr::null_mut(),
        )
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(io::Error::last_os_error());
    };
    for header in &headers[..count] {
        // MSG_TRUNC: what was sent, not what there was room for.
        let length = header.msg_len as usize;
        // SAFETY: the kernel has filled this header and what it leads to, which all still live. There was
        // no room for descriptors.
        received.push(unsafe { read_header(&header.msg_hdr, length, &mut Vec::new()) });
    }
    Ok(())
}

/// What the kernel says of a message of `length` bytes. The descriptors that came with it are appended.
///
/// # Safety
/// `header` was filled by the kernel. It had a `sockaddr_un` for a name and a `Control`, which still live, and
/// nobody has taken the descriptors in there yet.
unsafe fn read_header(
    header: &libc::msghdr,
    length: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> Header {
    let start = mem::offset_of!(libc::sockaddr_un, sun_path);
    // A path of all 108 bytes is told with its NUL, for which there is no room.
    let end = mem::size_of::<libc::sockaddr_un>().min(header.msg_namelen as usize);
    // SAFETY: the kernel wrote this many bytes there.
    let from = Address::new(unsafe {
        let path = header.msg_name.cast::<u8>().add(start);
        slice::from_raw_parts(path, end.saturating_sub(start))
    });
    let mut peer = Peer::NONE;
    // SAFETY: only arithmetic.
    let head = unsafe { libc::CMSG_LEN(0) } as usize;
    // SAFETY: the kernel wrote `msg_controllen` bytes of control data; the macros look at no more.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    while let Some(message) = next {
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(message) };
        let size = message.cmsg_len.saturating_sub(head);
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= mem::size_of::<libc::ucred>() => {
                // SAFETY: by its size the data holds a `struct ucred`, of which every bit pattern is valid.
                let sender = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                peer = Peer {
                    pid: sender.pid,
                    uid: sender.uid,
                    gid: sender.gid,
                };
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let first = data.cast::<RawFd>();
                for i in 0..size / mem::size_of::<RawFd>() {
                    // SAFETY: by its size the data holds this many numbers; each is of a descriptor that is
                    // open and nobody's yet.
                    let fd = unsafe { OwnedFd::from_raw_fd(first.add(i).read_unaligned()) };
                    descriptors.push(fd);
                }
            }
            _ => {}
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(header, message).as_ref() };
    }
    Header { from, peer, length }
}

/// The cookie of the network namespace that a socket was made in (SO_NETNS_COOKIE, `socket(7)`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn network_of(socket: impl AsFd) -> io::Result<u64> {
    let mut halves = [0; 2];
    get_option(socket, libc::SO_NETNS_COOKIE, &mut halves)?;
    if cfg!(target_endian = "little") {
        halves.reverse();
    }
    Ok(u64::from(halves[0]) << 32 | u64::from(halves[1]))
}

/// What the kernel keeps of SO_SNDBUF for itself when it judges the length of a packet or datagram.
pub const SEND_RESERVE: usize = 32;

/// Raises SO_SNDBUF until a packet of `length` bytes can be sent, or as far as this process may
/// (`socket(7)`). Returns the bytes of the longest that can; what is longer fails with EMSGSIZE.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn make_room(socket: impl AsFd, length: usize) -> io::Result<usize> {
    let longest = || {
        let size = rustix::net::sockopt::socket_send_buffer_size(&socket)?;
        Ok::<_, io::Error>(size.saturating_sub(SEND_RESERVE))
    };
    // The first goes as far as net.core.wmem_max, without a word where that is less; the second needs
    // CAP_NET_ADMIN. What became of them shows in the size.
    if longest()? < length {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, length);
    }
    if longest()? < length {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, length);
    }
    longest()
}

/// Gives the system back the memory that the allocator keeps of what was freed (`malloc_trim(3)`). Other
/// libraries than glibc do so by themselves.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What was sent on a socket and not yet read, by its peer or by any receiver (SIOCOUTQ, `unix(7)`): bytes
/// as the kernel accounts for them, more than were sent; 0 once all was read.
///
/// # Errors
/// Those of `ioctl(2)`.
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    // TIOCOUTQ is the same number as SIOCOUTQ, on every architecture.
    // SAFETY: the kernel answers this request with one `int`.
    let bytes = unsafe {
        ioctl(
            socket,
            Getter::<{ libc::TIOCOUTQ as _ }, libc::c_int>::new(),
        )
    }?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// The file that a socket is bound to, whatever is at its path by now (SIOCUNIXFILE, 4.11): a descriptor
/// as of O_PATH.
///
/// # Errors
/// Those of `ioctl(2)`: EPERM without CAP_NET_ADMIN.
pub fn file_of_socket(socket: impl AsFd) -> io::Result<OwnedFd> {
    // SIOCPROTOPRIVATE + 0, `linux/un.h`.
    const SIOCUNIXFILE: libc::Ioctl = 0x89E0;
    // SAFETY: this request has no argument.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Interrupts the thread that made it where that waits: in the kernel, a wait that signals end ends then
/// (`timer_create(2)`).
#[derive(Debug)]
pub struct Interrupter(libc::timer_t);

impl Interrupter {
    /// Takes SIGURG, which else does nothing, for this process.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and `timer_create(2)`.
    pub fn new() -> io::Result<Self> {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: zeros are a valid `struct sigaction` and an empty set of signals; the handler does nothing.
        // The mask of this thread alone is changed.
        let result = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            let mut urgent: libc::sigset_t = mem::zeroed();
            libc::sigaddset(&raw mut urgent, libc::SIGURG);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const urgent, ptr::null_mut());
            libc::sigaction(libc::SIGURG, &raw const action, ptr::null_mut())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut timer = MaybeUninit::uninit();
        // SAFETY: zeros are a valid `struct sigevent`; the kernel writes the timer's number.
        let result = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGURG;
            event.sigev_notify_thread_id = libc::gettid();
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: written where that did not fail.
        Ok(Interrupter(unsafe { timer.assume_init() }))
    }

    /// Interrupts after this span, and then each time it is over again, until this is set to zero.
    pub fn set(&self, span: Duration) {
        let span = libc::timespec {
            tv_sec: span.as_secs() as libc::time_t,
            tv_nsec: span.subsec_nanos().into(),
        };
        let when = libc::itimerspec {
            it_interval: span,
            it_value: span,
        };
        // SAFETY: the timer is this one's, and the kernel reads `when`. It cannot fail with these.
        unsafe { libc::timer_settime(self.0, 0, &raw const when, ptr::null_mut()) };
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Sets from which byte on MSG_PEEK looks at what waits at a socket; each look moves it behind what it
/// saw (SO_PEEK_OFF, `socket(7)`).
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn set_peek_offset(socket: impl AsFd, offset: i32) -> io::Result<()> {
    set_option(socket, libc::SO_PEEK_OFF, offset)
}

/// Reads an option of a socket that is one or more numbers of 32 bits; returns how many it has.
fn get_option(socket: impl AsFd, option: libc::c_int, numbers: &mut [u32]) -> io::Result<usize> {
    let mut length = mem::size_of_val(numbers) as libc::socklen_t;
    // SAFETY: `numbers` is valid for writes of `length` bytes and `length` for writes of itself, and of
    // numbers every bit pattern is valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(length as usize / mem::size_of::<u32>())
}

/// Sets an option of a socket that is a number.
fn set_option(socket: impl AsFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one `int` behind the pointer, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A time as clocks on the wall of this machine show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// As 2026.
    pub year: i32,
    /// From 1 on.
    pub month: i32,
    /// From 1 on.
    pub day: i32,
    /// From 0 on, like the rest.
    pub hour: i32,
    /// Of the hour.
    pub minute: i32,
    /// Of the minute.
    pub second: i32,
}

/// The local time, so many seconds after the epoch (`localtime_r(3)`).
#[must_use]
pub fn local_time(seconds: i64) -> Option<LocalTime> {
    let mut found = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both live until it returns; it reads the one and writes the other.
    let is_written = !unsafe { libc::localtime_r(&seconds, found.as_mut_ptr()) }.is_null();
    // SAFETY: it is written.
    let found = is_written.then(|| unsafe { found.assume_init() })?;
    Some(LocalTime {
        year: found.tm_year + 1900,
        month: found.tm_mon + 1,
        day: found.tm_mday,
        hour: found.tm_hour,
        minute: found.tm_min,
        second: found.tm_sec,
    })
}

/// The seconds from the epoch until that local time (`mktime(3)`). A day 0 is the last of the month before.
#[must_use]
pub fn seconds_of(local: LocalTime) -> Option<i64> {
    // SAFETY: numbers and a pointer, of which all can be zero.
    let mut time: libc::tm = unsafe { mem::zeroed() };
    time.tm_year = local.year - 1900;
    time.tm_mon = local.month - 1;
    time.tm_mday = local.day;
    time.tm_hour = local.hour;
    time.tm_min = local.minute;
    time.tm_sec = local.second;
    // Whether it is summer time then, it finds out itself.
    time.tm_isdst = -1;
    // SAFETY: it reads and writes what lives until it returns.
    let seconds = unsafe { libc::mktime(&mut time) };
    // What it says of an error is also a time, of which none is asked for.
    (seconds != -1).then_some(seconds)
}

/// The number of a user, by name or number (`getpwnam_r(3)`). `None` where there is none.
///
/// # Errors
/// Those of the user database.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name| {
        entry(
            |entry, buffer, size, found| {
                // SAFETY: `name` is NUL-terminated; `entry` passes the rest as it must be.
                unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, size, found) }
            },
            |user| user.pw_uid,
        )
    })
}

/// The name of a user (`getpwuid_r(3)`). `None` where there is none.
///
/// # Errors
/// Those of the user database.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    entry(
        |entry, buffer, size, found| {
            // SAFETY: `entry` passes all of it as it must be.
            unsafe { libc::getpwuid_r(uid, entry, buffer, size, found) }
        },
        |user: &libc::passwd| {
            // SAFETY: a NUL-terminated name, which lives as long as the entry.
            let name = unsafe { CStr::from_ptr(user.pw_name) };
            name.to_string_lossy().into_owned()
        },
    )
}

/// The number of a group, by name or number (`getgrnam_r(3)`). `None` where there is none.
///
/// # Errors
/// Those of the user database.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, |name| {
        entry(
            |entry, buffer, size, found| {
                // SAFETY: `name` is NUL-terminated; `entry` passes the rest as it must be.
                unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer, size, found) }
            },
            |group| group.gr_gid,
        )
    })
}

/// The names of the members of group `gid` (`getgrgid_r(3)`): those that the group lists, to whom
/// users whose primary group it is need not belong. None where there is no such group.
///
/// # Errors
/// Those of the user database.
pub fn members_of(gid: u32) -> io::Result<Vec<String>> {
    let members = entry(
        |entry, buffer, size, found| {
            // SAFETY: `entry` passes all of it as it must be.
            unsafe { libc::getgrgid_r(gid, entry, buffer, size, found) }
        },
        |group| {
            let mut names = Vec::new();
            let mut member = group.gr_mem;
            // SAFETY: an array of NUL-terminated names that a null pointer ends; they live as long as the
            // entry. `member` moves on only from what is not that end.
            while let Some(name) = unsafe { member.as_ref().filter(|name| !name.is_null()) } {
                // SAFETY: as above.
                let name = unsafe { CStr::from_ptr(*name) };
                names.push(name.to_string_lossy().into_owned());
                // SAFETY: as above.
                member = unsafe { member.add(1) };
            }
            names
        },
    )?;
    Ok(members.unwrap_or_default())
}

/// Numbers stand for themselves; a name is asked for.
fn look_up(name: &str, ask: impl Fn(&CStr) -> io::Result<Option<u32>>) -> io::Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    CString::new(name).map_or(Ok(None), |name| ask(&name))
}

/// Asks the user database for an entry, with a buffer that grows until it is enough, and reads what was found.
/// `ask` gets the last arguments of `getpwnam_r(3)` and its like.
fn entry<E, T>(
    ask: impl Fn(*mut E, *mut libc::c_char, usize, *mut *mut E) -> libc::c_int,
    read: impl Fn(&E) -> T,
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::uninit();
        let mut found = ptr::null_mut();
        let (start, size) = (buffer.as_mut_ptr(), buffer.len());
        let error = ask(entry.as_mut_ptr(), start, size, &raw mut found);
        // SAFETY: null, unless `entry` was filled, to which it then points.
        match (error, unsafe { found.as_ref() }) {
            (_, Some(found)) => return Ok(Some(read(found))),
            (libc::ERANGE, None) if size < 1 << 20 => buffer.resize(size * 4, 0),
            // getpwnam(3), NOTES: these too are said for "no such name".
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, None) => return Ok(None),
            (error, None) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{
        os::unix::net::{UnixDatagram, UnixStream},
        process,
    };

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
    fn datagrams_come_with_their_senders() {
        let folder = std::env::temp_dir().join(format!("udsd-sys-{}", process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (a, b) = (folder.join("a"), folder.join("b"));
        let receiver = UnixDatagram::bind(&a).unwrap();
        rustix::net::sockopt::set_socket_passcred(&receiver, true).unwrap();
        let sender = UnixDatagram::bind(&b).unwrap();
        let unbound = UnixDatagram::unbound().unwrap();
        let send = |bytes: &[u8], from: &UnixDatagram| from.send_to(bytes, &a).unwrap();
        send(b"one", &sender);
        send(b"", &unbound);
        send(b"too long", &sender);
        let (mut buffer, mut received) = ([0; 64 * 4 + 3], Vec::new());
        receive_datagrams(&receiver, &mut buffer, 4, &mut received).unwrap();
        let again = receive_datagrams(&receiver, &mut buffer, 4, &mut received);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(buffer.starts_with(b"one\0\0\0\0\0too \0"));
        let seen: Vec<_> = received.iter().map(|e| (e.from, e.length)).collect();
        let address = Address::new(b.to_str().unwrap().as_bytes());
        let no_address = Address::new(b"");
        assert_eq!(seen, [(address, 3), (no_address, 0), (address, 8)]);
        for header in received {
            assert_eq!(header.peer.pid, process::id().cast_signed());
            assert_eq!(header.peer.uid, rustix::process::getuid().as_raw());
            assert_eq!(header.peer.gid, rustix::process::getgid().as_raw());
        }
    }

    #[test]
    fn members_are_those_that_the_database_lists() {
        let text = std::fs::read_to_string("/etc/group").unwrap();
        for line in text.lines() {
            let [_, _, gid, members] = line.split(':').collect::<Vec<_>>()[..] else {
                continue;
            };
            let listed: Vec<&str> = members.split(',').filter(|name| !name.is_empty()).collect();
            assert_eq!(members_of(gid.parse().unwrap()).unwrap(), listed, "{line}");
        }
        assert_eq!(members_of(1_234_567).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_and_numbers_of_users_and_groups() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(user_id("1234567").unwrap(), Some(1_234_567));
        assert_eq!(user_id("no-such-user-here").unwrap(), None);
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));
        assert_eq!(user_name(4_000_000_001).unwrap(), None);
        assert_eq!(group_id("no-such-group-here").unwrap(), None);
    }
}
