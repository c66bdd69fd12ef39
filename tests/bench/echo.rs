//! `cargo bench --bench echo [-- WORD]`: udsd's echo beside the least that a server can do.
//!
//! Sections, chosen by WORD: `echo` (messages per second, per second of server CPU, and p99, as
//! ratios to the floor), `idle` (resident bytes a client), `binary` (its size), `ready` (from exec
//! to READY=1). Nothing but a wrong answer fails the run: figures are reported beside their goals.
//!
//! - UDSD_BENCH_SECONDS (1), UDSD_BENCH_PAIRS (5): time for each server in a pair, and pairs.
//! - UDSD_BENCH_DAEMON, UDSD_BENCH_FLOOR: another program in place of udsd or of the floor, so that
//!   two builds can be compared; the word `floor` is the floor itself, to see how figures vary.
//!
//! Without `--bench` (`cargo test --benches`) it is a short trial.

mod compare;
mod floor;
mod idle;
mod load;
mod server;
mod setup;

use compare::{Compared, Slices, median, pair, sorted};
use server::Server;
use setup::{Folder, Options, Outcome};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

const CLIENTS: [usize; 3] = [1, 64, 1000];
const SIZES: [usize; 2] = [64, 4096];
const STARTS: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["--floor", path] => floor::run(Path::new(path)),
        ["--idle-clients", path, count] => count
            .parse()
            .map_err(Into::into)
            .and_then(|count| idle::run(Path::new(path), count)),
        _ => Options::read(&arguments).and_then(|options| run(&options)),
    };
    // An interruption shows first as whatever broke by it.
    match setup::check_interrupted().and(outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let begin = Instant::now();
    setup::catch_signals()?;
    setup::raise_open_files()?;
    let daemon = Program::from_env("UDSD_BENCH_DAEMON", env!("CARGO_BIN_EXE_udsd").into());
    let floor = Program::from_env("UDSD_BENCH_FLOOR", Program::FLOOR.into());
    println!("{}", setup::machine());
    println!("udsd:  {}\nfloor: {}", daemon.name(), floor.name());
    if options.trial {
        println!("A trial, not a measurement: `cargo bench` gives --bench.");
    }

    type Section = fn(&Options, &Program, &Program) -> Outcome<Vec<Goal>>;
    let sections: [(&str, Section); 4] = [
        ("echo", echo),
        ("idle", idle_client),
        ("binary", binary),
        ("ready", ready),
    ];
    if !sections.iter().any(|(name, _)| options.wants(name)) {
        return Err("no such section: echo, idle, binary or ready".into());
    }
    let mut goals = Vec::new();
    let mut left_out = Vec::new();
    for (name, section) in sections {
        if options.wants(name) {
            println!("\n== {name}");
            goals.extend(section(options, &daemon, &floor)?);
        } else {
            left_out.push(name);
        }
    }

    println!("\n== goals");
    for goal in goals {
        println!("{:<58} {:>10}   goal {}", goal.what, goal.figure, goal.goal);
    }
    for name in left_out {
        println!("{name}: left out by the filter");
    }
    println!(
        "took {:.0} s, load average {}",
        begin.elapsed().as_secs_f64(),
        setup::load_average()
    );
    Ok(())
}

/// A figure beside what it should be.
struct Goal {
    what: String,
    figure: String,
    goal: &'static str,
}

impl Goal {
    fn new(what: impl Into<String>, figure: String, goal: &'static str) -> Goal {
        Goal {
            what: what.into(),
            figure,
            goal,
        }
    }
}

enum Program {
    Floor,
    Daemon(PathBuf),
}

impl Program {
    const FLOOR: &str = "floor";

    fn from_env(name: &str, default: PathBuf) -> Program {
        let path = env::var_os(name).map_or(default, PathBuf::from);
        if path.as_os_str() == Program::FLOOR {
            Program::Floor
        } else {
            Program::Daemon(path)
        }
    }

    fn name(&self) -> String {
        match self {
            Program::Floor => "one thread, epoll, recv, send".to_owned(),
            Program::Daemon(path) => path.display().to_string(),
        }
    }

    fn path(&self) -> Outcome<PathBuf> {
        match self {
            Program::Floor => Ok(env::current_exe()?),
            Program::Daemon(path) => Ok(path.clone()),
        }
    }

    fn start(&self) -> Outcome<Server> {
        Server::start(|folder| {
            let mut command = Command::new(self.path()?);
            match self {
                Program::Floor => command.arg("--floor").arg(folder.socket()),
                Program::Daemon(_) => command
                    .arg("--socket")
                    .arg(folder.socket())
                    .args(["--service", "echo"]),
            };
            Ok(command)
        })
    }

    /// For more clients than one user may have by default.
    fn start_for(&self, clients: usize) -> Outcome<Server> {
        if matches!(self, Program::Floor) {
            return self.start();
        }
        Server::start(|folder| {
            let mut command = Command::new(self.path()?);
            command.arg("--config").arg(config(folder, clients)?);
            Ok(command)
        })
    }
}

fn config(folder: &Folder, clients: usize) -> Outcome<PathBuf> {
    let path = folder.path().join("udsd.toml");
    let text = format!(
        "[daemon]\ncontrol = \"\"\n\n[limits]\nclients = {clients}\nclients-per-user = {clients}\n\n\
         [socket.bench]\npath = \"{}\"\nservice = \"echo\"\n",
        folder.socket().display()
    );
    fs::write(&path, text)?;
    Ok(path)
}

fn echo(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    println!(
        "{} pairs of {} ms for each server; medians, and the quartiles of the ratios; \
         1 client shares a core with its server",
        options.pairs,
        options.span.as_millis()
    );
    println!(
        "{:>12} | {:^33} | {:^33} | {:^33}",
        "", "1000 messages/s", "1000 messages/s of server CPU", "p99 round trip, µs"
    );
    println!(
        "clients size | {0:>6} {1:>6}  {2:<17} | {0:>6} {1:>6}  {2:<17} | {0:>6} {1:>6}  {2:<17}",
        "floor", "udsd", "ratio"
    );
    let (mut rates, mut cpu_rates, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for clients in CLIENTS {
        for size in SIZES {
            let mut slices = Slices::new();
            for number in 0..options.pairs {
                slices.extend(pair(
                    options.span,
                    number,
                    (|| floor.start(), || daemon.start()),
                    clients,
                    size,
                )?);
            }
            let rate = Compared::new(&slices, |w| w.messages as f64 / w.elapsed.as_secs_f64());
            let cpu_rate = Compared::new(&slices, |w| w.messages as f64 / w.cpu.as_secs_f64());
            let p99 = Compared::new(&slices, |w| w.p99.as_secs_f64());
            println!(
                "{clients:>7} {size:>4} | {} | {} | {}",
                rate.cells(1e3),
                cpu_rate.cells(1e3),
                p99.cells(1e-6)
            );
            rates.push(rate.ratio);
            cpu_rates.push(cpu_rate.ratio);
            p99s.push(p99.ratio);
        }
    }
    let lowest = |ratios: &[f64]| ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = p99s.iter().copied().fold(0.0, f64::max);
    let two = |figure: f64| format!("{figure:.2}");
    Ok(vec![
        Goal::new(
            "echo: messages/s, lowest ratio to the floor",
            two(lowest(&rates)),
            "0.95 (bound 0.9)",
        ),
        Goal::new(
            "echo: messages/s of server CPU, lowest ratio to the floor",
            two(lowest(&cpu_rates)),
            "0.95 (bound 0.9)",
        ),
        Goal::new(
            "echo: p99 round trip, highest ratio to the floor",
            two(highest),
            "1.1 or less",
        ),
    ])
}

fn idle_client(options: &Options, daemon: &Program, _: &Program) -> Outcome<Vec<Goal>> {
    let clients = idle::clients(options.trial);
    let server = daemon.start_for(clients + 100)?;
    let cost = idle::measure(&server, clients)
        .map_err(|error| server.blame(&format!("is at fault: {error}")))?;
    server.stop()?;
    println!("{clients} clients, resident bytes a client:");
    println!("{:>8.0}  each having had one message back", cost.greeted);
    println!(
        "{:>8.0}  each having let {} KiB wait for it, then read them",
        cost.filled,
        idle::FILL / 1024
    );
    Ok(vec![Goal::new(
        format!("idle client: resident bytes, over {clients} clients"),
        format!("{:.0}", cost.greeted.max(cost.filled)),
        "512 or less",
    )])
}

fn binary(_: &Options, daemon: &Program, _: &Program) -> Outcome<Vec<Goal>> {
    let path = daemon.path()?;
    let bytes = fs::metadata(&path)
        .map_err(|error| format!("{}: {error}", path.display()))?
        .len();
    println!("{bytes} bytes: {}", path.display());
    Ok(vec![Goal::new(
        "binary: MiB",
        format!("{:.2}", bytes as f64 / f64::from(1 << 20)),
        "3 or less",
    )])
}

fn ready(_: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    let (mut of_daemon, mut of_floor) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (program, times) in [(floor, &mut of_floor), (daemon, &mut of_daemon)] {
            let server = program.start()?;
            times.push(server.ready_after().as_secs_f64() * 1e3);
            server.stop()?;
        }
    }
    println!("exec to READY=1, milliseconds, of {STARTS} starts:");
    for (name, times) in [("floor", of_floor), ("udsd", of_daemon.clone())] {
        let times = sorted(times.into_iter());
        println!(
            "{name:>8}  median {:.2}, lowest {:.2}, highest {:.2}",
            median(&times),
            times[0],
            times[times.len() - 1]
        );
    }
    Ok(vec![Goal::new(
        "ready: milliseconds from exec to READY=1",
        format!("{:.2}", median(&sorted(of_daemon.into_iter()))),
        "5 or less",
    )])
}
