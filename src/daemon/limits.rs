//! Fits the limits to this machine: no more clients than it has descriptors for, and than a restart can keep; no
//! more bytes in queues than it has memory for. Warns of a backlog that the kernel cuts.

use ::log::{info, warn};

use crate::{
    closer,
    config::{self, Config},
    limits::Limits,
    memory::{self, Memory},
    parking::Parking,
    sys, sysctl, systemd,
};

/// Descriptors that are no clients: the standard three, those of the event loop, locks and the like.
const OWN_DESCRIPTORS: usize = 32;
/// Descriptors that one socket may need beside its clients: the listener, the lock, the record, and the socket
/// file to which a datagram is sent.
const SOCKET_DESCRIPTORS: usize = 4;

/// What this machine has.
struct Machine {
    /// How many descriptors this process may open.
    files: usize,
    /// How many of them a restart can keep; `None` without a service manager.
    kept: Option<usize>,
    memory: Memory,
}

impl Machine {
    fn current() -> Self {
        let kept = systemd::is_manager().then(Parking::most);
        Machine {
            files: sys::open_files(),
            kept: kept.and_then(Result::ok),
            memory: memory::available(),
        }
    }
}

/// The limits of this file.
pub(super) fn limits(config: &Config) -> Limits {
    derive(config, &Machine::current()).0
}

/// The same, of a file that comes into force: logs them, and why they are lower than the file says.
pub(super) fn new_limits(config: &Config) -> Limits {
    let (limits, reasons) = derive(config, &Machine::current());
    for reason in reasons {
        warn!("{reason}");
    }
    info!("room for {limits}");
    limits
}

/// How many of `files` descriptors are kept free for those that clients send with messages.
fn reserved(files: usize) -> usize {
    if sys::can_refuse_descriptors() {
        // Only what was sent before udsd had the socket has any.
        return 0;
    }
    closer::most_open(files).min(files / 4)
}

fn derive(config: &Config, machine: &Machine) -> (Limits, Vec<String>) {
    let mut reasons = Vec::new();
    let (files, memory) = (machine.files, &machine.memory);
    // Who asks has a place of its own beside the clients.
    let (callers, ..) = match config.daemon.control {
        Some(_) => Limits::of_control().numbers(),
        None => Default::default(),
    };
    let sockets = SOCKET_DESCRIPTORS * config.sockets.len() + callers;
    let own = OWN_DESCRIPTORS + sockets + reserved(files);
    let possible = files.saturating_sub(own).max(1);
    let mut clients = match config.limits.clients {
        0 => possible,
        clients => clients,
    };
    if clients > possible {
        reasons.push(format!(
            "limits.clients = {clients}, but the limit of open files ({files}) leaves room for {possible}: raise LimitNOFILE= or lower the key"
        ));
    }
    if let Some(kept) = machine.kept
        && let kept = kept.saturating_sub(sockets).max(1)
        && clients > kept
    {
        if config.limits.clients > 0 {
            reasons.push(format!(
                "limits.clients = {clients}, but a restart can keep no more than {kept}, which is the limit now: raise net.core.wmem_max, or lower the key"
            ));
        }
        clients = kept;
    }
    let per_user = match config.limits.clients_per_user {
        0 => clients.div_ceil(2),
        per_user => per_user,
    };
    let mut queues = (config.limits.queue_per_user, config.limits.queue_total);
    if let Some(scaled) = scale(config, memory) {
        queues = scaled;
        reasons.push(format!(
            "limits.queue-total = {} bytes and the records and histories together are more than the memory, {} bytes as {} says: scaled to half of it, queue-total = {} and queue-per-user = {}; lower the keys, or give the service more",
            config.limits.queue_total, memory.bytes, memory.source, queues.1, queues.0
        ));
    }
    reasons.extend(sysctl::warnings(config.sockets.iter()));
    let limits = Limits::new(clients, per_user).with_queues(queues.0, queues.1);
    (limits, reasons)
}

/// `queue-per-user` and `queue-total`, lowered where all queues together could need more memory than there is.
/// Together with the queues of the records they are then half of it, for the kernel's buffers of the clients need
/// memory too.
fn scale(config: &Config, memory: &Memory) -> Option<(usize, usize)> {
    let config::Limits {
        queue_per_user,
        queue_total,
        ..
    } = config.limits;
    let all = config.sockets.iter().enumerate();
    let own = all.filter(|(i, _)| config.shares_record(*i).is_none());
    let records = own.filter_map(|(_, of)| of.record.as_ref());
    let queues = records.map(|record| record.queue_size);
    let relays = config.sockets.iter().filter(|of| of.history > 0);
    let kept = queues.chain(relays.map(|relay| relay.history_size));
    let all = kept.fold(queue_total, usize::saturating_add);
    if all as u64 <= memory.bytes {
        return None;
    }
    // One message has to pass, however little memory there is.
    let least = config.least_queue();
    let part = |bytes: usize| {
        let part = u128::from(memory.bytes / 2) * bytes as u128 / all as u128;
        // No more than `bytes`, since the memory is less than `all`.
        bytes.min((part as usize).max(least))
    };
    Some((part(queue_per_user), part(queue_total)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::config::BaseDirs;

    fn scaled(text: &str, bytes: u64) -> Option<(usize, usize)> {
        let config = Config::parse(text, None, &BaseDirs::system()).unwrap();
        let source = String::new();
        scale(&config, &Memory { bytes, source })
    }

    #[test]
    fn there_are_no_more_clients_than_a_restart_can_keep() {
        let derived = |clients: usize, kept: Option<usize>| {
            let text =
                format!("[limits]\nclients = {clients}\n[socket.a]\npath = \"/a\"\nbacklog = 1\n");
            let config = Config::parse(&text, None, &BaseDirs::system()).unwrap();
            let memory = Memory {
                bytes: u64::MAX,
                source: String::new(),
            };
            let machine = Machine {
                files: 300_000,
                kept,
                memory,
            };
            let (limits, reasons) = derive(&config, &machine);
            (limits.to_string(), reasons.join("\n"))
        };
        // What the socket itself needs is kept too, and the places of 64 who ask.
        let room = "99932 clients, 49966 of one user";
        let (limits, why) = derived(200_000, Some(100_000));
        assert_eq!(limits, room);
        assert_eq!(
            why,
            "limits.clients = 200000, but a restart can keep no more than 99932, which is the limit now: raise net.core.wmem_max, or lower the key"
        );
        // Nobody asked for more.
        assert_eq!(derived(0, Some(100_000)), (room.into(), String::new()));
        let (limits, why) = derived(99_932, Some(100_000));
        assert_eq!((limits.as_str(), why.as_str()), (room, ""));
        let (limits, why) = derived(200_000, None);
        let all = "200000 clients, 100000 of one user";
        assert_eq!((limits.as_str(), why.as_str()), (all, ""));
    }

    #[test]
    fn queues_are_scaled_to_half_of_the_memory_with_those_of_records() {
        let echo = "[limits]\nqueue-per-user = \"64MiB\"\nqueue-total = \"512MiB\"\n[socket.a]\npath = \"/a\"\n";
        let mib = 1 << 20;
        assert_eq!(scaled(echo, 512 << 20), None);
        assert_eq!(scaled(echo, 64 << 20), Some((4 * mib, 32 * mib)));
        let collect = format!(
            "{echo}service = \"collect\"\nframing = \"lines\"\n[socket.a.record]\nqueue-size = \"512MiB\"\n"
        );
        assert_eq!(scaled(&collect, 1024 << 20), None);
        assert_eq!(scaled(&collect, 64 << 20), Some((2 * mib, 16 * mib)));
        // A message comes, and goes.
        let lines = format!("{echo}framing = \"lines\"\n");
        let least = 2 * (65536 + 2);
        assert_eq!(scaled(&lines, 4096), Some((least, least)));
    }
}
