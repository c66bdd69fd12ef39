//! `cargo bench [-- WORD]`: udsd beside the least that a server can do.
//!
//! Sections, chosen by WORD: `echo` (messages per second, per second of server CPU, and p99, as
//! ratios to the floor), `relay` (deliveries per second of server CPU, beside a bare fan-out and
//! beside Redis), `collect` (messages stored per second of server CPU), `fairness` (p99 of a ping
//! beside a client that sends without end), `attacks` (round trips of a victim beside hostile users),
//! `restart` (how long clients wait while one process takes
//! the place of another), `idle` (resident bytes a client), `binary` (its size), `ready` (from exec to
//! READY=1). Nothing but a wrong answer fails the run: figures are reported
//! beside their goals.
//!
//! - UDSD_BENCH_SECONDS (1), UDSD_BENCH_PAIRS (5): time for each server in a pair, and pairs.
//! - UDSD_BENCH_DAEMON, UDSD_BENCH_FLOOR: another program in place of udsd or of the floor, so that
//!   two builds can be compared; the word `floor` is the floor itself, to see how figures vary.
//!
//! Without `--bench` (`cargo test --benches`) it is a short trial.

mod attacks;
mod collect;
mod compare;
mod echo;
mod fairness;
mod floor;
mod idle;
mod load;
mod program;
mod relay;
mod restart;
mod server;
mod setup;
mod start;

use program::Program;
use setup::{Options, Outcome};
use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["--floor", work, socket, record] => floor::run(work, Path::new(socket), Path::new(record)),
        ["--attack", name, folder] => attacks::attack(name, Path::new(folder)),
        ["--idle-clients", path, count] => count
            .parse()
            .map_err(Into::into)
            .and_then(|count| idle::hold(Path::new(path), count)),
        ["--restarting-clients", path, count] => count
            .parse()
            .map_err(Into::into)
            .and_then(|count| restart::hold(Path::new(path), count)),
        _ => Options::read(&arguments).and_then(|options| run(&options)),
    };
    // An interruption shows first as whatever broke by it.
    match setup::check_interrupted().and(outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
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
    let sections: [(&str, Section); 9] = [
        ("echo", echo::run),
        ("relay", relay::run),
        ("collect", collect::run),
        ("fairness", fairness::run),
        ("attacks", attacks::run),
        ("restart", restart::run),
        ("idle", idle::run),
        ("binary", start::binary),
        ("ready", start::ready),
    ];
    if !sections.iter().any(|(name, _)| options.wants(name)) {
        return Err(
            "no such section: echo, relay, collect, fairness, attacks, restart, idle, binary or ready"
                .into(),
        );
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
