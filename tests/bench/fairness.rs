//! fairness: a client that writes and reads as fast as it can, and what that does to the round trips
//! of another, beside the same on a bare epoll loop.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::{BUFFER, Flood};
use crate::program::{Program, Work};
use crate::setup::{Options, Outcome};

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    println!(
        "{} pairs of {} ms for each server; medians, and the quartiles of the ratios",
        options.pairs,
        options.span.as_millis()
    );
    let side = |program: &Program| {
        let server = program.start(Work::Echo)?;
        let load = Flood::connect(&server.socket())?;
        Side::new(server, load)
    };
    let slices = pairs(options, || side(floor), || side(daemon))?;
    let flood = Compared::new(&slices, |w| {
        (w.messages * BUFFER as u64) as f64 / w.elapsed.as_secs_f64()
    });
    let p99 = Compared::new(&slices, |w| w.p99.as_secs_f64());
    println!("{:>23} | {:>6} {:>6}  ratio", "", "floor", "udsd");
    println!(
        "{:>23} | {}",
        "flood, MiB/s",
        flood.cells(f64::from(1 << 20))
    );
    println!("{:>23} | {}", "p99 round trip, µs", p99.cells(1e-6));
    Ok(vec![Goal::new(
        "fairness: p99 of a ping beside a flood, to floor",
        format!("{:.2}", p99.ratio),
        "2 or less",
    )])
}
