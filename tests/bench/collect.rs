//! collect: lines into a JSON record, beside a floor that writes what it receives to a file as it
//! is; messages stored per second of server CPU, the record's thread included.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::{Pour, TURN};
use crate::program::{Program, Work};
use crate::setup::{Options, Outcome};

const CLIENTS: usize = 16;
/// Bytes of a line.
const SIZE: usize = 128;

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    println!(
        "{} pairs of {} ms for each server; {CLIENTS} clients, messages of {SIZE} bytes, so many in \
         one write; medians, and the quartiles of the ratios",
        options.pairs,
        options.span.as_millis()
    );
    println!(
        "{:>16} | {:^33} | {:^33}",
        "", "1000 messages/s", "1000 messages/s of server CPU"
    );
    println!(
        "{:>16} | {1:>6} {2:>6}  {3:<17} | {1:>6} {2:>6}  {3:<17}",
        "lines", "floor", "udsd", "ratio"
    );
    let mut goals = Vec::new();
    for batch in [1, TURN] {
        let side = |program: &Program| {
            let server = program.start(Work::Collect)?;
            let load = Pour::connect(&server.socket(), &server.record(), CLIENTS, SIZE, batch)?;
            Side::new(server, load)
        };
        let slices = pairs(options, || side(floor), || side(daemon))?;
        let rate = Compared::new(&slices, |w| w.messages as f64 / w.elapsed.as_secs_f64());
        let cpu_rate = Compared::new(&slices, |w| w.messages as f64 / w.cpu.as_secs_f64());
        println!(
            "{batch:>16} | {} | {}",
            rate.cells(1e3),
            cpu_rate.cells(1e3)
        );
        goals.push(Goal::new(
            format!("collect: messages/s of server CPU, {batch} a write"),
            format!("{:.2}", cpu_rate.ratio),
            "0.5",
        ));
    }
    Ok(goals)
}
