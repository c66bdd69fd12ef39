//! What an administrator sees before the first message: the binary's size, and the time from exec
//! to READY=1.

use crate::Goal;
use crate::compare::{median, sorted};
use crate::program::{Program, Work};
use crate::setup::{Options, Outcome};
use std::fs;

const STARTS: usize = 20;

pub(crate) fn binary(_: &Options, daemon: &Program, _: &Program) -> Outcome<Vec<Goal>> {
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

pub(crate) fn ready(_: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    let (mut of_daemon, mut of_floor) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (program, times) in [(floor, &mut of_floor), (daemon, &mut of_daemon)] {
            let server = program.start(Work::Echo)?;
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
