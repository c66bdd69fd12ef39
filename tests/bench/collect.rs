//! collect: lines and datagrams into a JSON record, beside a floor that writes what it receives to a
//! file as it is; messages stored per second of server CPU, the record's thread included.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::{Pour, TURN};
use crate::program::{Program, Work};
use crate::setup::{self, Options, Outcome};
use rustix::net::SocketType;

const CLIENTS: usize = 16;
/// Bytes of a line.
const SIZE: usize = 128;

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    println!(
        "{} pairs of {} ms for each server; {CLIENTS} clients, messages of {SIZE} bytes, so many in \
         one write; net.unix.max_dgram_qlen {}; medians, and the quartiles of the ratios",
        options.pairs,
        options.span.as_millis(),
        setup::datagram_queue()
    );
    println!(
        "{:>16} | {:^33} | {:^33}",
        "", "1000 messages/s", "1000 messages/s of server CPU"
    );
    println!(
        "{:>16} | {1:>6} {2:>6}  {3:<17} | {1:>6} {2:>6}  {3:<17}",
        "a write", "floor", "udsd", "ratio"
    );
    let mut goals = Vec::new();
    for (name, work, kind, batch, goal) in [
        ("lines", Work::Collect, SocketType::STREAM, 1, "0.5"),
        ("lines", Work::Collect, SocketType::STREAM, TURN, "0.5"),
        (
            "datagrams",
            Work::CollectDatagrams,
            SocketType::DGRAM,
            1,
            "0.6",
        ),
    ] {
        let side = |program: &Program| {
            let server = program.start(work)?;
            let load = Pour::connect(&server, kind, CLIENTS, SIZE, batch)?;
            Side::new(server, load)
        };
        let slices = pairs(options, || side(floor), || side(daemon))?;
        let rate = Compared::new(&slices, |w| w.messages as f64 / w.elapsed.as_secs_f64());
        let cpu_rate = Compared::new(&slices, |w| w.messages as f64 / w.cpu.as_secs_f64());
        println!(
            "{name:>9} {batch:>6} | {} | {}",
            rate.cells(1e3),
            cpu_rate.cells(1e3)
        );
        goals.push(Goal::new(
            format!("collect: {name}/s of server CPU, {batch:>2} a write, to floor"),
            format!("{:.2}", cpu_rate.ratio),
            goal,
        ));
    }
    Ok(goals)
}
