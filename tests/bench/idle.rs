//! What an idle client costs the server in resident memory.
//!
//! The clients live in processes of their own, since their descriptors count too. They obey one
//! word a line on standard input (`greet`, `fill`) and answer `done`; end of input ends them.

use crate::Goal;
use crate::load::{Echo, Load};
use crate::program::{Program, Work};
use crate::server::Server;
use crate::setup::{Options, Outcome, check_interrupted, open_files};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Large enough that a buffer kept for it would show.
const GREETING: usize = 4096;
/// More than the 208 KiB that the kernel by default holds for a reader, less than queue-size.
const FILL: usize = 320 * 1024;
/// What a process has open beside its clients.
pub(crate) const SPARE_FILES: usize = 200;
const MOST: usize = 19_000;
const TRIAL: usize = 500;

/// Bytes a client.
struct Cost {
    /// After one message to and fro.
    greeted: f64,
    /// After `FILL` bytes that it read only when all were sent.
    filled: f64,
}

pub(crate) fn run(options: &Options, daemon: &Program, _: &Program) -> Outcome<Vec<Goal>> {
    let clients = clients(options.trial);
    let server = daemon.start_for(Work::Echo, clients + 100)?;
    let cost = measure(&server, clients)
        .map_err(|error| server.blame(&format!("is at fault: {error}")))?;
    server.stop()?;
    println!("{clients} clients, resident bytes a client:");
    println!("{:>8.0}  each having had one message back", cost.greeted);
    println!(
        "{:>8.0}  each having let {} KiB wait for it, then read them",
        cost.filled,
        FILL / 1024
    );
    Ok(vec![Goal::new(
        format!("idle client: resident bytes, over {clients} clients"),
        format!("{:.0}", cost.greeted.max(cost.filled)),
        "256 or less",
    )])
}

/// As many clients as one server process may have, up to `MOST`.
fn clients(trial: bool) -> usize {
    let most = if trial { TRIAL } else { MOST };
    most.min(open_files().saturating_sub(SPARE_FILES))
}

fn measure(server: &Server, clients: usize) -> Outcome<Cost> {
    // What the first client of all costs (a read buffer, pages of code) is no client's share.
    Echo::connect(&server.socket(), 1, GREETING)?.run(Duration::ZERO)?;
    let before = server.resident()?;
    let share = |bytes: u64| (bytes as f64 - before as f64) / clients as f64;

    let mut groups = Vec::new();
    for part in parts(clients) {
        groups.push(Group::start("--idle-clients", &server.socket(), part)?);
    }
    all(&mut groups, "greet")?;
    let greeted = share(server.resident()?);
    all(&mut groups, "fill")?;
    let filled = share(server.resident()?);
    Ok(Cost { greeted, filled })
}

/// Two processes at least, each within its limit of open files.
fn parts(clients: usize) -> Vec<usize> {
    let count = clients
        .div_ceil(open_files().saturating_sub(SPARE_FILES).max(1))
        .max(2);
    (0..count)
        .map(|part| clients / count + usize::from(part < clients % count))
        .collect()
}

/// A process of the benchmark's own that holds clients.
pub(crate) struct Group {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Group {
    /// `flag` says which.
    pub(crate) fn start(flag: &str, socket: &Path, clients: usize) -> Outcome<Group> {
        let mut process = Command::new(env::current_exe()?)
            .arg(flag)
            .args([socket.as_os_str(), clients.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("no pipe")?;
        Ok(Group {
            process,
            answers: BufReader::new(output),
        })
    }

    fn order(&mut self, word: &str) -> Outcome<()> {
        let input = self.process.stdin.as_mut().ok_or("no pipe")?;
        writeln!(input, "{word}")?;
        Ok(())
    }

    fn await_done(&mut self) -> Outcome<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line == "done\n" {
            return Ok(());
        }
        Err("a group of idle clients failed".into())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Gives all of them an order, and waits until they have obeyed.
pub(crate) fn all(groups: &mut [Group], word: &str) -> Outcome<()> {
    for group in &mut *groups {
        group.order(word)?;
    }
    for group in groups {
        group.await_done()?;
    }
    check_interrupted()
}

/// The process that holds `clients` idle clients.
pub(crate) fn hold(path: &Path, clients: usize) -> Outcome<()> {
    let mut load = Echo::connect(path, clients, GREETING)?;
    for word in io::stdin().lock().lines() {
        match word?.as_str() {
            "greet" => load.run(Duration::ZERO).map(|_| ())?,
            "fill" => load.fill(FILL)?,
            word => return Err(format!("unknown word {word}").into()),
        }
        println!("done");
    }
    Ok(())
}
