//! relay: one sends, many receive; deliveries per second of server CPU, beside a bare fan-out and
//! beside Redis pub/sub on its Unix socket.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::{FanOut, Wire};
use crate::program::{Program, Work};
use crate::setup::{Options, Outcome};

const RECEIVERS: [usize; 2] = [10, 100];
/// Lines in one write of the sender.
const BATCHES: [u64; 2] = [1, 32];
/// Bytes of a line.
const SIZE: usize = 128;

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    let redis = Program::redis();
    println!(
        "{} pairs of {} ms for each server; one sender, lines of {SIZE} bytes, so many in one write; \
         medians, and the quartiles of the ratios",
        options.pairs,
        options.span.as_millis()
    );
    println!(
        "{:>23} | {:^33} | {:^33}",
        "", "1000 deliveries/s", "1000 deliveries/s of server CPU"
    );
    println!(
        "beside receivers  lines | {0:>6} {1:>6}  {2:<17} | {0:>6} {1:>6}  {2:<17}",
        "it", "udsd", "ratio"
    );
    let mut goals = Vec::new();
    let mut beside = vec![(floor, "floor", "0.8")];
    match &redis {
        Some((redis, _)) => beside.push((redis, "redis", "2.5")),
        None => println!(" redis: left out, redis-server is not installed"),
    }
    for (other, name, goal) in beside {
        for batch in BATCHES {
            let mut lowest = f64::INFINITY;
            for receivers in RECEIVERS {
                let side = |program: &Program| {
                    let wire = match program {
                        Program::Redis => Wire::redis(SIZE, receivers),
                        _ => Wire::lines(SIZE),
                    };
                    let server = program.start(Work::Relay)?;
                    let load = FanOut::connect(&server.socket(), receivers, batch, wire)?;
                    Side::new(server, load)
                };
                let slices = pairs(options, || side(other), || side(daemon))?;
                let each = receivers as f64;
                let rate = Compared::new(&slices, |w| {
                    each * w.messages as f64 / w.elapsed.as_secs_f64()
                });
                let cpu_rate =
                    Compared::new(&slices, |w| each * w.messages as f64 / w.cpu.as_secs_f64());
                println!(
                    "{name:>6} {receivers:>9} {batch:>6} | {} | {}",
                    rate.cells(1e3),
                    cpu_rate.cells(1e3)
                );
                lowest = lowest.min(cpu_rate.ratio);
            }
            goals.push(Goal::new(
                format!("relay: deliveries/s of server CPU, {batch:>2} a write, to {name}"),
                format!("{lowest:.2}"),
                goal,
            ));
        }
    }
    Ok(goals)
}
