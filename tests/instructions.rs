//! What a message costs, in instructions of the optimised daemon under callgrind: times differ from run to
//! run, this hardly does. Each load is run long and short; what it costs more, by message, is printed, and
//! may not grow by more than 3%.
//!
//! The daemon is built for this alone, so only where CI=true. Another compiler has other counts: state
//! them anew with it, apart from any other change.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Daemon, Setup, has_program, read_n, round_trip, skip};

/// The compiler under which these instructions by message are stated: those of another are only printed.
const COMPILER: &str = "rustc 1.95.";
const ECHO: f64 = 1529.0;
const ECHO_OF_MANY: f64 = 1049.0;
const RELAY: f64 = 6599.0;
const COLLECT: f64 = 1029.0;

/// Of each length a load is run so often, and the least counts: work that time alone starts, as giving back
/// memory, comes on top in some.
const RUNS: usize = 3;
/// Rounds of a short run and of a long one.
const ROUNDS: [usize; 2] = [20, 220];
/// Messages in a round of `ECHO` and `COLLECT`, receivers of `RELAY`, clients of `ECHO_OF_MANY`.
const LINES: usize = 10;
const RECEIVERS: usize = 10;
const CLIENTS: usize = 64;

const MESSAGE: &[u8; 64] = b"the quick brown fox jumps over the lazy dog, again and again...\n";

/// Builds the daemon.
fn optimised() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--bin", "udsd"]);
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success(), "{build:?}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("release/udsd")
}

/// All instructions of a daemon that has served this load.
fn count(program: &Path, rules: &str, load: &dyn Fn(&Daemon)) -> u64 {
    let setup = Setup::new();
    let counts = setup.folder().join("counts");
    let out = format!("--callgrind-out-file={}", counts.display());
    let text = format!("[socket.s]\npath = \"{{dir}}/s\"\n{rules}\n");
    // Without a manager to tell how things stand, now and then.
    let setup = setup.wrapper(&["env", "-u", "NOTIFY_SOCKET", "valgrind", "--quiet"]);
    let setup = setup.wrapper(&["--tool=callgrind", &out]);
    let mut daemon = setup.program(program).config(&text).spawn();
    daemon.wait_log(&["socket s (", "bound"]);
    load(&daemon);
    assert!(daemon.stop().success());
    let counts = fs::read_to_string(counts).unwrap();
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().trim().parse().unwrap()
}

/// Prints what a message costs, and what is wrong with that.
fn judge(name: &str, stated: f64, found: f64) -> Option<String> {
    let text = format!("instructions by message, {name}: {found:.0}, stated {stated:.0}");
    // Past the capture of the test's output.
    let _ = writeln!(io::stderr(), "{text}");
    (found > stated * 1.03).then_some(text)
}

#[test]
fn no_message_costs_more_than_is_stated() {
    if !env::var("CI").is_ok_and(|ci| ci == "true") {
        return skip("the optimised daemon is built with CI=true alone");
    }
    if !has_program("valgrind") {
        return;
    }
    let program = optimised();
    let by_message = |messages: usize, rules: &str, load: &dyn Fn(&Daemon, usize)| {
        let [short, long] = ROUNDS.map(|rounds| {
            let runs = (0..RUNS).map(|_| count(&program, rules, &|daemon| load(daemon, rounds)));
            runs.min().unwrap()
        });
        (long - short) as f64 / ((ROUNDS[1] - ROUNDS[0]) * messages) as f64
    };
    let echo = by_message(LINES, "framing = \"lines\"", &|daemon, rounds| {
        let client = daemon.connect("s");
        for _ in 0..rounds * LINES {
            daemon.wait_idle();
            round_trip(&client, MESSAGE);
        }
    });
    let echo_of_many = by_message(CLIENTS, "framing = \"lines\"", &|daemon, rounds| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| daemon.connect("s")).collect();
        for client in &clients {
            round_trip(client, MESSAGE);
        }
        for _ in 0..rounds {
            daemon.wait_idle();
            daemon.halt();
            for mut client in &clients {
                client.write_all(MESSAGE).unwrap();
            }
            daemon.resume();
            for client in &clients {
                read_n(client, MESSAGE.len());
            }
        }
    });
    let relay = "service = \"relay\"\nframing = \"lines\"";
    let relay = by_message(LINES, relay, &|daemon, rounds| {
        let mut all = Vec::new();
        for _ in 0..=RECEIVERS {
            let mut client = daemon.connect("s");
            client.write_all(MESSAGE).unwrap();
            // Whoever is there hears of the new one, which by that is there too.
            for receiver in &all {
                read_n(receiver, MESSAGE.len());
            }
            all.push(client);
        }
        for _ in 0..rounds * LINES {
            daemon.wait_idle();
            (&all[0]).write_all(MESSAGE).unwrap();
            for receiver in &all[1..] {
                read_n(receiver, MESSAGE.len());
            }
        }
    });
    let collect = "service = \"collect\"\nframing = \"lines\"";
    let collect = by_message(LINES, collect, &|daemon, rounds| {
        let mut client = daemon.connect("s");
        for round in 1..=rounds {
            daemon.wait_idle();
            client.write_all(&MESSAGE.repeat(LINES)).unwrap();
            daemon.wait_output(round * LINES);
        }
    });
    let wrong = [
        judge("echo to one client, with its turn", ECHO, echo),
        judge("echo to 64 clients in a turn", ECHO_OF_MANY, echo_of_many),
        judge("relay to 10, with its turn", RELAY, relay),
        judge("a JSON line, 10 in a turn", COLLECT, collect),
    ];
    let compiler = Command::new("rustc")
        .arg("--version")
        .output()
        .unwrap()
        .stdout;
    if !compiler.starts_with(COMPILER.as_bytes()) {
        let _ = writeln!(io::stderr(), "not judged: they are stated for {COMPILER}x");
        return;
    }
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "over 3% more:\n{}", wrong.join("\n"));
}
