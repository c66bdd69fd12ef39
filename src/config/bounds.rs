//! How far the values of keys may go.

use std::{ops::RangeInclusive, time::Duration};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Bytes of `message-size`.
pub(super) const MESSAGE_SIZE: RangeInclusive<u64> = 1..=GIB;
/// Bytes of `queue-size`, of sockets and records, of `history-size`, `queue-per-user` and `queue-total`.
pub(super) const QUEUE_SIZE: RangeInclusive<u64> = 1..=TIB;
/// Bytes of `rotate-size`: of smaller files there would be more than a folder should have.
pub(super) const ROTATE_SIZE: RangeInclusive<u64> = 4096..=1024 * TIB;
/// `keep`; 0 = all.
pub(super) const KEEP: RangeInclusive<u64> = 0..=1_000_000;
/// `history`: messages.
pub(super) const HISTORY: RangeInclusive<u64> = 0..=1_000_000;
/// `clients`, `clients-per-user`: more descriptors than any kernel gives one process.
pub(super) const CLIENTS: RangeInclusive<u64> = 0..=10_000_000;
/// `backlog`: net.core.somaxconn cuts it further.
pub(super) const BACKLOG: RangeInclusive<u64> = 1..=65535;

/// Longest span of time.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest `slow-timeout` and `idle-timeout`: the timers count milliseconds.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// Shortest `rotate-age`.
pub(super) const SHORTEST_AGE: Duration = Duration::from_secs(1);
/// Shortest `exit-on-idle`: a daemon that ends sooner would be started over and over.
pub(super) const SHORTEST_EXIT: Duration = Duration::from_secs(1);

/// Longest socket path or abstract name, in bytes: `sockaddr_un` has 108, one of them a NUL.
pub(super) const PATH: usize = 107;
/// Most sockets of one file.
pub(super) const SOCKETS: usize = 1024;
/// Longest NAME of a socket.
pub(super) const NAME: usize = 64;
