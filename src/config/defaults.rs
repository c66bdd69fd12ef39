//! What each key is where the file does not say, and how far it may go.

use std::{ops::RangeInclusive, time::Duration};

use super::{Address, Daemon, Format, Limits, Record, ServiceKind, SlowClient, Socket, SocketType};
use crate::frame::Framing;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// `message-size`
pub(super) const MESSAGE_SIZE: RangeInclusive<u64> = 1..=GIB;
/// `queue-size` of sockets and records, `queue-per-user`, `queue-total`
pub(super) const QUEUE_SIZE: RangeInclusive<u64> = 1..=TIB;
/// `rotate-size`; 0 = never.
pub(super) const ROTATE_SIZE: RangeInclusive<u64> = 0..=1024 * TIB;
/// `keep`: without one, rotating would throw the record away.
pub(super) const KEEP: RangeInclusive<u64> = 1..=1000;
/// `clients`, `clients-per-user`: more descriptors than any kernel gives one process.
pub(super) const CLIENTS: RangeInclusive<u64> = 0..=10_000_000;
/// `backlog`: net.core.somaxconn cuts it further.
pub(super) const BACKLOG: RangeInclusive<u64> = 1..=65535;

/// Longest span of time.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest `slow-timeout` and `idle-timeout`: the timers count milliseconds.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// Shortest `exit-on-idle`: a daemon that ends sooner would be started over and over.
pub(super) const SHORTEST_EXIT: Duration = Duration::from_secs(1);

/// Longest socket path or abstract name, in bytes: `sockaddr_un` has 108, one of them a NUL.
pub(super) const PATH: usize = 107;
/// Most sockets of one file.
pub(super) const SOCKETS: usize = 1024;
/// Longest NAME of a socket.
pub(super) const NAME: usize = 64;

impl Default for Daemon {
    fn default() -> Self {
        Self {
            log: "info".into(),
            control: None,
            drain_timeout: Duration::from_secs(5),
            exit_on_idle: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 0,
            clients_per_user: 0,
            queue_per_user: 64 * MIB,
            queue_total: 512 * MIB,
        }
    }
}

impl Socket {
    /// A socket of which only name and address are known.
    #[must_use]
    pub fn new(name: String, address: Address) -> Self {
        Self {
            name,
            address,
            kind: SocketType::Stream,
            mode: 0o660,
            user: String::new(),
            group: String::new(),
            backlog: 4096,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            service: ServiceKind::Echo,
            framing: Framing::None,
            message_size: 64 * KIB,
            queue_size: MIB,
            slow_client: SlowClient::Wait,
            slow_timeout: Duration::from_secs(10),
            idle_timeout: None,
            clients: 0,
            answer_abstract: false,
            stamp: false,
            ack: false,
            record: None,
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self {
            file: None,
            mode: 0o640,
            queue_size: 4 * MIB,
            format: Format::Json,
            sync: false,
            rotate_size: 64 << 20,
            keep: 8,
        }
    }
}
