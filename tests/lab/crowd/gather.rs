//! Who takes part in the crowd: how many of each sort, on which sockets of tests/lab/handover.sh.

use std::{
    collections::{BTreeMap, BinaryHeap},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll,
    net::SocketType,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::{
    Crowd, INPUT, PATIENCE, Seat,
    collect::{CollectClient, NoteSender},
    echo::{Echo, Holds},
    failed,
    ledger::Ledger,
    packets::PacketClient,
    pings::{Connector, Pinger},
    relay::{RelayClient, Room},
    talk::{Conversation, Phase},
    wire,
    words::{Kind, Random, Voice},
};

/// Where the sockets of tests/lab/handover.sh are.
const FOLDER: &str = "/run";
/// Where the records are.
const RECORDS: &str = "/var/log/udsd";
/// Where datagram clients bind their own sockets. Not /tmp: the service has another.
const ADDRESSES: &str = "/run/lab-crowd";

/// As large as the limit of `[socket.narrow]`, less its terminator and a little.
const LONGEST_LINE: usize = 4090;
const NARROW: usize = 90;
const RELAY: usize = 60;
const COLLECT: usize = 50;
const SEQPACKETS: usize = 200;
const PACKET_HOLDERS: usize = 10;
/// Of each sort of echo: who pings, and who makes the daemon hold output.
const PINGERS: usize = 100;
const HOLDERS: usize = 10;
/// Of those on the narrow socket.
const NARROW_HOLDERS: usize = 30;
const DATAGRAMS: usize = 4;
const CONNECTORS: usize = 3;

impl Crowd {
    pub(super) fn gather(streams: usize) -> Result<Self, String> {
        raise_open_files()?;
        fs::create_dir_all(ADDRESSES).map_err(|error| format!("{ADDRESSES}: {error}"))?;
        let others = NARROW + RELAY + COLLECT;
        let plain = streams
            .checked_sub(others + 2 * (PINGERS + HOLDERS))
            .ok_or("too few clients for every sort")?;
        let now = Instant::now();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll"))?;
        epoll::add(
            &epoll,
            io::stdin(),
            epoll::EventData::new_u64(INPUT),
            epoll::EventFlags::IN,
        )
        .map_err(failed("standard input"))?;
        let mut crowd = Crowd {
            seats: Vec::new(),
            due: BinaryHeap::new(),
            epoll,
            phase: Phase::Talk,
            word: None,
            input: Vec::new(),
            random: Random::new(1),
            room: Room::new(RELAY),
            notes: Ledger::new(Path::new(RECORDS).join("notes.json"), "notes"),
            collected: Ledger::new(Path::new(RECORDS).join("crowd.json"), "collect"),
            pauses: [Vec::new(), Vec::new()],
            restarts: 0,
            measures: false,
            bereaved: false,
            lost: BTreeMap::new(),
            first_lost: None,
            begun: now,
            done: 0,
        };
        crowd.gather_relay()?;
        let half = plain / 2;
        crowd.gather_echo('n', Kind::Blocks, half + PINGERS + HOLDERS)?;
        crowd.gather_echo('l', Kind::Lines, plain - half + PINGERS + HOLDERS)?;
        crowd.gather_narrow()?;
        crowd.gather_collect(COLLECT)?;
        crowd.gather_packets()?;
        for client in 0..CONNECTORS {
            let voice = voice(Kind::Blocks, 'v', client);
            crowd.seat(Connector::new(voice, socket("none")))?;
        }
        Ok(crowd)
    }

    fn gather_relay(&mut self) -> Result<(), String> {
        let mut clients = Vec::new();
        for client in 0..RELAY {
            let fd = connect("relay", SocketType::STREAM)?;
            let voice = voice(Kind::Lines, 'r', client);
            clients.push(RelayClient::new(&self.room, voice, fd));
        }
        Room::gather(&mut clients)?;
        clients.into_iter().try_for_each(|client| self.seat(client))
    }

    fn gather_echo(&mut self, group: char, kind: Kind, clients: usize) -> Result<(), String> {
        let name = if kind == Kind::Blocks {
            "none"
        } else {
            "lines"
        };
        for client in 0..clients {
            let fd = connect(name, SocketType::STREAM)?;
            let voice = voice(kind, group, client);
            if client < PINGERS {
                self.seat(Pinger::new(voice, fd))?;
            } else if client < PINGERS + HOLDERS {
                self.seat(Echo::new(voice, fd, Holds::InTheQueue))?;
            } else {
                self.seat(Echo::new(voice, fd, Holds::Little))?;
            }
        }
        Ok(())
    }

    fn gather_narrow(&mut self) -> Result<(), String> {
        for client in 0..NARROW {
            let fd = connect("narrow", SocketType::STREAM)?;
            let holds = if client < NARROW_HOLDERS {
                Holds::MoreThanTheQueue
            } else {
                Holds::Little
            };
            let voice = voice(Kind::LongLines(LONGEST_LINE), 'w', client);
            self.seat(Echo::new(voice, fd, holds))?;
        }
        Ok(())
    }

    pub(super) fn gather_collect(&mut self, clients: usize) -> Result<(), String> {
        for _ in 0..clients {
            let fd = connect("collect", SocketType::STREAM)?;
            let client = CollectClient::new(&self.collected, Kind::Lines, 'c', fd);
            self.seat(client)?;
        }
        Ok(())
    }

    fn gather_packets(&mut self) -> Result<(), String> {
        for client in 0..SEQPACKETS {
            let fd = connect("packets", SocketType::SEQPACKET)?;
            let voice = voice(Kind::Packets, 'p', client);
            let holds = client < PACKET_HOLDERS;
            self.seat(PacketClient::connected(voice, fd, holds))?;
        }
        for client in 0..DATAGRAMS {
            let voice = voice(Kind::Packets, 'd', client);
            let own = Path::new(ADDRESSES).join(format!("d{client}"));
            self.seat(PacketClient::bound(voice, &socket("datagrams"), own)?)?;
            let fd = connect("notes", SocketType::DGRAM)?;
            let sender = NoteSender::new(&self.notes, Kind::Lines, 'm', fd);
            self.seat(sender)?;
        }
        Ok(())
    }

    fn seat(&mut self, talk: impl Conversation + 'static) -> Result<(), String> {
        let index = self.seats.len();
        if let Some(fd) = talk.readable() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN).map_err(failed("epoll"))?;
        }
        let now = Instant::now();
        let mark = talk.progress();
        self.seats.push(Some(Seat {
            talk: Box::new(talk),
            due: None,
            settled: false,
            progress: (mark, now),
            mark,
        }));
        // Spread, or all would take their turns together.
        let begin = now + Duration::from_millis(self.random.within(0, 500) as u64);
        self.schedule(index, begin);
        Ok(())
    }
}

fn voice(kind: Kind, group: char, client: usize) -> Voice {
    Voice {
        kind,
        group,
        client,
    }
}

fn socket(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("crowd-{name}.sock"))
}

/// Waits while the backlog is full.
fn connect(name: &str, kind: SocketType) -> Result<OwnedFd, String> {
    let path = socket(name);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match wire::connect(&path, kind) {
            Ok(Some(fd)) => return Ok(fd),
            Ok(None) => sleep(Duration::from_millis(1)),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Err(format!(
        "{}: not accepted within {PATIENCE:?}",
        path.display()
    ))
}

fn raise_open_files() -> Result<(), String> {
    let most = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, limit).map_err(failed("limit of open files"))
}
