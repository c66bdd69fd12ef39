//! echo: messages per second, per second of server CPU, and p99, as ratios to the floor.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::Echo;
use crate::program::{Program, Work};
use crate::setup::{OneCore, Options, Outcome};

const CLIENTS: [usize; 3] = [1, 64, 1000];
const SIZES: [usize; 2] = [64, 4096];

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
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
            // A client alone and its server never run at once. Where the scheduler puts them decides
            // more than the server does (tried: 10,000 to 85,000 messages/s for the same floor), so
            // they share a core.
            let _core = (clients == 1).then(OneCore::hold).transpose()?;
            let side = |program: &Program| {
                let server = program.start(Work::Echo)?;
                let load = Echo::connect(&server.socket(), clients, size)?;
                Side::new(server, load)
            };
            let slices = pairs(options, || side(floor), || side(daemon))?;
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
