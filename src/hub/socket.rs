//! One socket as the hub sees it: its rules, its service, and what happened on it.

use std::{
    cell::RefMut,
    fmt,
    time::{Duration, Instant},
};

use super::{Timer, log_rates::Lines, tap::Taps};
use crate::{
    access::Access,
    config::{self, ServiceKind, SlowClient, SocketType},
    connection::{
        Connection, Notice, Stream,
        waits::{Awaits, WaitQueue},
    },
    counters::Counters,
    datagram::{OpenSocket, Pending},
    error::{Changed, Close},
    frame::Framing,
    input::{Rule, TooLong},
    limits,
    peer::Peer,
    record::{Encoder, Format, Record, Recorder},
    round_robin::{DELIVERY, MESSAGE, READ},
    service::{Relay, Service},
};

/// How long senders may wait for a client, or one for a quota, before the log has a line of it.
pub(super) const STALL: Duration = Duration::from_secs(1);

/// What is lost with a client that ends.
#[derive(Debug)]
pub(super) struct Loss {
    /// Bytes that it had sent and nobody read.
    pub(super) unread: usize,
    /// Bytes that it was owed.
    pub(super) undelivered: usize,
    /// Whole messages that were read and not taken.
    pub(super) untaken: u64,
    /// A part of a message was read.
    pub(super) unfinished: bool,
}

impl Loss {
    pub(super) fn is_none(&self) -> bool {
        matches!(
            self,
            Loss {
                unread: 0,
                undelivered: 0,
                untaken: 0,
                unfinished: false
            }
        )
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss {
            unread,
            undelivered,
            untaken,
            unfinished,
        } = self;
        write!(f, "{unread} bytes unread, {undelivered} undelivered")?;
        if *untaken > 0 {
            write!(f, ", {untaken} messages read and not taken")?;
        }
        if *unfinished {
            f.write_str(", an unfinished message lost")?;
        }
        Ok(())
    }
}

/// Bytes of the length that packets have before them inside the daemon, as
/// `Framing::LengthPrefixed` has it.
const PACKET_PREFIX: usize = 4;

/// How a timer of a client stands.
pub(super) enum Time {
    /// It is no longer needed.
    Off,
    /// It is to ring again.
    Until(Instant),
    /// It is to ring again, and others have waited for the client for a while.
    Stall(Instant),
    /// The client's time is over.
    Over(Close),
}

/// What the clients of a socket rely on for as long as they are connected: a socket that differs in it
/// is another one to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// `type`
    pub kind: SocketType,
    /// `service`
    pub service: ServiceKind,
    /// `framing`, as the file says.
    pub framing: Framing,
    /// `ack`: what is told counts from a client's first message.
    pub ack: bool,
}

impl Nature {
    /// As the config file has it.
    #[must_use]
    pub fn of(config: &config::Socket) -> Self {
        Nature {
            kind: config.kind,
            service: config.service,
            framing: config.framing,
            ack: config.ack,
        }
    }

    /// What is different under `other`, if anything.
    #[must_use]
    pub fn change(&self, other: &Nature) -> Option<Changed> {
        if self.kind != other.kind {
            Some(Changed::Type)
        } else if self.service != other.service {
            Some(Changed::Service)
        } else if self.framing != other.framing {
            Some(Changed::Framing)
        } else {
            (self.ack != other.ack).then_some(Changed::Ack)
        }
    }
}

/// What the config file says of a socket: a reload puts others in their place.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) access: Access,
    pub(super) input: Rule,
    /// Bytes that a client may send in a turn.
    pub(super) read_size: usize,
    /// Bytes without which no packet is read; 0 on a stream, of which any part can be.
    pub(super) packet: usize,
    /// Bytes of the longest message that is sent.
    pub(super) longest: usize,
    /// Bytes that each message has here and not on the wire.
    pub(super) unseen: u64,
    /// What a message costs beside its bytes, as `round_robin` has it.
    pub(super) message_work: usize,
    pub(super) queue_size: usize,
    pub(super) slow_client: SlowClient,
    pub(super) slow_timeout: Duration,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) clients: usize,
    pub(super) answer_abstract: bool,
    /// Senders may have to wait for a record or for receivers.
    pub(super) senders_wait: bool,
}

/// The state of a socket that the config file no longer has, or has with another nature:
/// nobody new comes to it, and its clients get what they are owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draining {
    /// The socket that now has its name, and gets its counts.
    pub(super) successor: Option<usize>,
}

/// One socket: its rules, its service, its record, its datagram socket, its counts.
#[derive(Debug)]
pub struct Socket {
    pub(super) name: String,
    pub(super) nature: Nature,
    pub(super) rules: Rules,
    pub(super) draining: Option<Draining>,
    pub(super) present: usize,
    pub(super) service: Service,
    /// During the stop: everything was given out that its clients had sent.
    pub(super) has_given_all: bool,
    pub(super) recorder: Option<Recorder>,
    /// Senders that wait for room in the record or with receivers.
    pub(super) wait_queue: WaitQueue,
    pub(super) counters: Counters,
    /// Its datagram socket, once that is open.
    pub(super) open: Option<OpenSocket>,
    /// What waits there, or until then: it came to one before, of this process or an earlier one.
    pub(super) pending: Pending,
    /// How often the log may speak of it: what happens on one socket hides nothing of another.
    pub(super) lines: Lines,
    /// The number of the last message, as it stood at the last reload: numbers go on from there where
    /// nothing counted in between.
    pub(super) numbered: u64,
    /// Who looks at what passes.
    pub(super) taps: Taps,
}

impl Socket {
    /// A socket as the config file has it; `access` holds its lists as numbers, `recorder`
    /// puts its messages into its record, where it has one.
    #[must_use]
    pub fn new(config: &config::Socket, access: Access, recorder: Option<Recorder>) -> Self {
        let (framing, packet, unseen) = match config.kind {
            // Packets are whole already; the length tells them apart where they stand in a row. A
            // byte beyond the longest shows one that is too long.
            SocketType::Seqpacket => (
                Framing::LengthPrefixed,
                PACKET_PREFIX + config.message_size + 1,
                PACKET_PREFIX as u64,
            ),
            SocketType::Stream | SocketType::Datagram => (config.framing, 0, 0),
        };
        let rule = Rule {
            framing,
            message_size: config.message_size,
            too_long: match (config.service, config.kind) {
                (ServiceKind::Collect, _) => TooLong::Keep,
                (_, SocketType::Stream) => TooLong::Close,
                _ => TooLong::Refuse,
            },
        };
        let service = service(config, rule.framing, unseen as usize, recorder.as_ref());
        // The record of it costs as much again.
        let mut message_work = MESSAGE * (1 + usize::from(config.record.is_some()));
        if packet > 0 {
            message_work += DELIVERY;
        }
        Socket {
            name: config.name.clone(),
            nature: Nature::of(config),
            rules: Rules {
                access,
                input: rule,
                read_size: READ + packet,
                packet,
                longest: config.longest_sent(),
                unseen,
                message_work,
                queue_size: config.queue_size,
                slow_client: config.slow_client,
                slow_timeout: config.slow_timeout,
                idle_timeout: config.idle_timeout,
                clients: config.clients,
                answer_abstract: config.answer_abstract,
                senders_wait: config.record.is_some() || config.service == ServiceKind::Relay,
            },
            draining: None,
            present: 0,
            service,
            has_given_all: false,
            recorder,
            wait_queue: WaitQueue::default(),
            counters: Counters::default(),
            open: None,
            pending: Pending::default(),
            lines: Lines::default(),
            numbered: 0,
            taps: Taps::default(),
        }
    }

    /// Bytes for which there must be room under the quotas before a client is read from. The byte
    /// that shows a packet to be too long is never held.
    pub(super) fn least_held(&self) -> usize {
        self.rules.packet.saturating_sub(1).max(1)
    }

    /// The user as whom a client of it counts.
    pub(super) fn user_of(&self, peer: &Peer) -> u32 {
        match self.service {
            Service::Control => limits::CONTROL,
            _ => peer.uid,
        }
    }

    /// Whether it is the control socket.
    #[must_use]
    pub fn is_control(&self) -> bool {
        matches!(self.service, Service::Control)
    }

    /// NAME
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its clients rely on.
    #[must_use]
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// Whether nobody new comes to it: see `Draining`.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// A notice to a client, framed as its messages are.
    pub(super) fn tell(&self, notice: Notice<'_>) -> Vec<u8> {
        match notice {
            Notice::Gap(gap) => self.service.tell(gap),
            Notice::Stored(count) => {
                let mut framed = Vec::new();
                let put = self
                    .rules
                    .input
                    .framing
                    .put(format!("ok {count}").as_bytes(), &mut framed);
                debug_assert!(put.is_ok(), "an answer that fits no framing");
                framed
            }
        }
    }

    /// Whether a newcomer's supplementary groups can make a difference.
    #[must_use]
    pub fn asks_groups(&self) -> bool {
        self.rules.access.asks_groups()
    }

    /// Its record, where it has one.
    #[must_use]
    pub fn record(&self) -> Option<RefMut<'_, Record>> {
        Some(self.recorder.as_ref()?.record())
    }

    /// What puts its messages into its record, where it has one.
    #[must_use]
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Clients that are connected to it.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present
    }

    /// Whether somebody looks at what passes.
    #[must_use]
    pub fn is_tapped(&self) -> bool {
        !self.taps.is_empty()
    }

    /// The senders that wait for room in its record or with receivers.
    #[must_use]
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.wait_queue
    }

    /// Whether messages carry the time.
    #[must_use]
    pub fn stamps(&self) -> bool {
        self.service.stamps()
    }

    /// What happened on it.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a client's time is over at `now`.
    pub(super) fn over<S: Stream>(
        &self,
        client: &mut Connection<S>,
        timer: Timer,
        now: Instant,
    ) -> Time {
        let (due, reason) = match timer {
            Timer::Idle => {
                let Some(timeout) = self.rules.idle_timeout else {
                    return Time::Off;
                };
                let waits = match client.awaits {
                    // Nothing more is answered to one that does not read.
                    Some(Awaits::Answer) => client.queue.is_empty(),
                    awaits => awaits.is_some(),
                };
                // Not its fault that nothing was read, or nothing stored.
                let active = if waits || client.awaits_ack() {
                    now
                } else {
                    client.active
                };
                (active + timeout, Close::Idle)
            }
            Timer::Slow => {
                let stalls = client.stalls();
                let Some(full) = &mut client.full else {
                    return Time::Off;
                };
                let since = full.since;
                if since + self.rules.slow_timeout <= now && full.taken >= self.rules.queue_size / 2
                {
                    full.since = now;
                    full.taken = 0;
                }
                let due = full.since + self.rules.slow_timeout;
                if stalls && !full.told && due > now {
                    full.told = since + STALL <= now;
                    return if full.told {
                        Time::Stall(due)
                    } else {
                        Time::Until(due.min(since + STALL))
                    };
                }
                let waiting = client.queue.len();
                (due, Close::SlowReader { waiting })
            }
        };
        if due > now {
            Time::Until(due)
        } else {
            Time::Over(reason)
        }
    }
}

/// The service of a socket whose messages have this framing inside the daemon, and so many bytes more than on the wire.
fn service(
    config: &config::Socket,
    framing: Framing,
    unseen: usize,
    recorder: Option<&Recorder>,
) -> Service {
    match config.service {
        ServiceKind::Collect => Service::Collect,
        ServiceKind::Echo => Service::Echo,
        ServiceKind::Control => Service::Control,
        ServiceKind::Relay => {
            let stamp = || {
                let seq = recorder.map_or(0, |of| of.record().seq());
                (Encoder::new(Format::Json, false, &config.name), seq)
            };
            let stamp = config.stamp.then(stamp);
            let relay = Relay::new(framing, unseen, config.slow_client, stamp);
            let relay = relay.with_history(config.history, config.history_size);
            Service::Relay(Box::new(relay))
        }
    }
}
