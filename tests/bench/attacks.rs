//! attacks: what hostile users cost another one's round trips. Two daemons with one config file run side
//! by side; one is attacked, by processes of other users, and the same victim asks both in turn. Both
//! suffer from what the attackers take of the processor; what is between them is the daemon's own fault.

mod hostile;

pub(crate) use hostile::attack;

use crate::Goal;
use crate::program::Program;
use crate::server::Server;
use crate::setup::{Options, Outcome, check_interrupted};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use rustix::process::geteuid;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Attackers are users of no name; each process is another user.
const FIRST_USER: u32 = 61_300;
/// Who has not been answered for so long is counted as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions of the victim.
const PAUSE: Duration = Duration::from_millis(1);
/// The sockets that both daemons have, in their folders. What all users may have together is little, so
/// that a few attackers can reach for all of it.
const CONFIG: &str = r#"
[daemon]
control = ""
[limits]
clients = 1600
clients-per-user = 800
queue-per-user = "16MiB"
queue-total = "64MiB"
[socket.echo]
path = "DIR/echo"
mode = "0666"
framing = "lines"
[socket.closed]
path = "DIR/closed"
mode = "0666"
allow-users = [0]
[socket.relay]
path = "DIR/relay"
mode = "0666"
service = "relay"
framing = "lines"
stamp = true
[socket.datagram]
path = "DIR/datagram"
mode = "0666"
type = "datagram"
"#;

/// What the victim does.
#[derive(Clone, Copy)]
enum Victim {
    /// Asks over a connection that it has.
    Connected,
    /// Connects anew for each question, and does not wait for its place in the backlog.
    Newcomer,
    /// Sends datagrams.
    Datagrams,
}

/// An attack, and how many processes, each of another user, make it.
struct Attack {
    name: &'static str,
    processes: u32,
    victim: Victim,
}

const ATTACKS: [Attack; 9] = [
    attack_by("bytes", 1, Victim::Connected),
    attack_by("lines", 1, Victim::Connected),
    attack_by("relay", 1, Victim::Connected),
    attack_by("connects", 3, Victim::Newcomer),
    attack_by("places", 2, Victim::Newcomer),
    attack_by("queues", 5, Victim::Connected),
    attack_by("descriptors", 1, Victim::Connected),
    attack_by("denied-descriptors", 1, Victim::Connected),
    attack_by("datagrams", 1, Victim::Datagrams),
];

const fn attack_by(name: &'static str, processes: u32, victim: Victim) -> Attack {
    Attack {
        name,
        processes,
        victim,
    }
}

pub(crate) fn run(options: &Options, daemon: &Program, _floor: &Program) -> Outcome<Vec<Goal>> {
    if !geteuid().is_root() {
        println!("left out: only root can act for other users");
        return Ok(Vec::new());
    }
    println!("round trips of the victim in ms, and how many were lost");
    println!(
        "{:>19} | {:>17} | {:>24} | {:>24} | p99 ratio",
        "", "before: p50 p99", "beside: p50 p99 max lost", "attacked: p50 p99 max lost"
    );
    let mut worst_ratio = (0.0, "");
    let mut worst = (Duration::ZERO, "");
    let mut lost = 0;
    for attack in &ATTACKS {
        let seen = measure(options, daemon, attack)?;
        println!("{:>19} | {seen}", attack.name);
        if seen.ratio() > worst_ratio.0 {
            worst_ratio = (seen.ratio(), attack.name);
        }
        if seen.attacked.at(0.99) > worst.0 {
            worst = (seen.attacked.at(0.99), attack.name);
        }
        lost += seen.attacked.lost;
    }
    Ok(vec![
        Goal::new(
            format!("attacks: p99 beside one not attacked ({})", worst_ratio.1),
            format!("{:.2}", worst_ratio.0),
            "10 or less",
        ),
        Goal::new(
            format!("attacks: p99 ({})", worst.1),
            format!("{:.1} ms", worst.0.as_secs_f64() * 1e3),
            "50 ms or less",
        ),
        Goal::new("attacks: questions lost", lost.to_string(), "0"),
    ])
}

/// What the victim saw.
struct Seen {
    before: Trips,
    beside: Trips,
    attacked: Trips,
}

impl Seen {
    fn ratio(&self) -> f64 {
        self.attacked.at(0.99).as_secs_f64() / self.beside.at(0.99).as_secs_f64()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        let Seen {
            before,
            beside,
            attacked,
        } = self;
        write!(
            f,
            "{:>8.2} {:>8.2}",
            ms(before.at(0.5)),
            ms(before.at(0.99))
        )?;
        for trips in [beside, attacked] {
            let (p50, p99, max) = (trips.at(0.5), trips.at(0.99), trips.at(1.0));
            write!(
                f,
                " | {:>6.2} {:>6.2} {:>6.1} {:>3}",
                ms(p50),
                ms(p99),
                ms(max),
                trips.lost
            )?;
        }
        write!(f, " | {:.2}", self.ratio())
    }
}

fn measure(options: &Options, daemon: &Program, attack: &Attack) -> Outcome<Seen> {
    let quiet = start(daemon)?;
    let target = start(daemon)?;
    let asker = |server: &Server| Asker::new(attack.victim, server.folder().path());
    let (mut of_quiet, mut of_target) = (asker(&quiet)?, asker(&target)?);
    let span = options.span * options.pairs as u32;
    let mut before = Trips::default();
    let deadline = Instant::now() + span / 2;
    while Instant::now() < deadline {
        before.add(of_target.ask());
        thread::sleep(PAUSE);
    }
    let attackers = (0..attack.processes)
        .map(|number| Attacker::start(attack.name, target.folder().path(), FIRST_USER + number))
        .collect::<Outcome<Vec<_>>>()?;
    let (mut beside, mut attacked) = (Trips::default(), Trips::default());
    let deadline = Instant::now() + span;
    while Instant::now() < deadline {
        beside.add(of_quiet.ask());
        attacked.add(of_target.ask());
        check_interrupted()?;
        thread::sleep(PAUSE);
    }
    for attacker in attackers {
        attacker.stop()?;
    }
    drop((of_quiet, of_target));
    // Dropped, not stopped: what the attackers left unread may take the whole of drain-timeout.
    Ok(Seen {
        before,
        beside,
        attacked,
    })
}

fn start(daemon: &Program) -> Outcome<Server> {
    let path = daemon.path()?;
    Server::start(|folder| {
        let file = folder.path().join("udsd.toml");
        let text = CONFIG.replace("DIR", &folder.path().display().to_string());
        fs::write(&file, text)?;
        let mut command = Command::new(path);
        command.arg("--config").arg(file);
        Ok(command)
    })
}

/// Times of round trips.
#[derive(Default)]
struct Trips {
    times: Vec<Duration>,
    lost: usize,
}

impl Trips {
    fn add(&mut self, trip: Option<Duration>) {
        match trip {
            Some(time) => self.times.push(time),
            None => self.lost += 1,
        }
    }

    /// The time within which this part of them came back; a long one where none did.
    fn at(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        times
            .get((last as f64 * part).round() as usize)
            .copied()
            .unwrap_or(PATIENCE)
    }
}

/// The victim's end.
enum Asker {
    Connected(UnixStream),
    Newcomer(SocketAddrUnix),
    Datagrams(OwnedFd),
}

impl Asker {
    fn new(victim: Victim, folder: &Path) -> Outcome<Asker> {
        Ok(match victim {
            Victim::Connected => {
                let stream = UnixStream::connect(folder.join("echo"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Asker::Connected(stream)
            }
            Victim::Newcomer => Asker::Newcomer(SocketAddrUnix::new(folder.join("echo"))?),
            Victim::Datagrams => {
                let socket = socket(SocketType::DGRAM, SocketFlags::CLOEXEC)?;
                // The kernel chooses an abstract address (`unix(7)`, autobind).
                net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
                net::connect(&socket, &SocketAddrUnix::new(folder.join("datagram"))?)?;
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
                Asker::Datagrams(socket)
            }
        })
    }

    /// One round trip; `None` where nothing came back.
    fn ask(&mut self) -> Option<Duration> {
        let begin = Instant::now();
        let mut answer = [0; 2];
        match self {
            Asker::Connected(stream) => {
                stream.write_all(b"?\n").ok()?;
                stream.read_exact(&mut answer).ok()?;
            }
            Asker::Newcomer(address) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket(SocketType::STREAM, flags).ok()?;
                net::connect(&socket, address).ok()?;
                let mut stream = UnixStream::from(socket);
                stream.set_nonblocking(false).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).ok()?;
                stream.write_all(b"?\n").ok()?;
                stream.read_exact(&mut answer).ok()?;
            }
            Asker::Datagrams(socket) => {
                net::send(&*socket, b"?\n", SendFlags::empty()).ok()?;
                net::recv(&*socket, &mut answer[..], RecvFlags::empty()).ok()?;
            }
        }
        Some(begin.elapsed())
    }
}

fn socket(kind: SocketType, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A process of another user; it ends with its standard input.
struct Attacker(Child);

impl Attacker {
    /// Returns once the attack has begun.
    fn start(name: &str, folder: &Path, user: u32) -> Outcome<Attacker> {
        let mut child = Command::new(env::current_exe()?)
            .arg("--attack")
            .arg(name)
            .arg(folder)
            .uid(user)
            .gid(user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("an attacker, who must reach the benchmark: {error}"))?;
        let mut begun = [0];
        let output = child.stdout.as_mut().ok_or("no pipe")?;
        let attacker = match output.read_exact(&mut begun) {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("the attack {name} did not begin").into()),
        };
        let child = Attacker(child);
        attacker.map(|()| child)
    }

    fn stop(mut self) -> Outcome<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("an attacker gave up: {status}").into()),
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
