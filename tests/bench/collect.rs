//! collect: lines and datagrams into a JSON record, beside a floor that writes what it receives to a
//! file as it is, and beside rsyslog; messages stored per second of server CPU, the record's thread included. And
//! lines that are answered once the disk has them, beside a floor that has one fdatasync for all who wait.

use crate::Goal;
use crate::compare::{Compared, Side, pairs};
use crate::load::{Pour, Store, TURN};
use crate::program::{Program, Work};
use crate::setup::{self, Options, Outcome};
use rustix::net::SocketType;

const CLIENTS: usize = 16;
/// Clients that wait for the disk.
const WAITING: usize = 64;
/// Bytes of a line.
const SIZE: usize = 128;

pub(crate) fn run(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Vec<Goal>> {
    let rsyslog = Program::rsyslog();
    println!(
        "{} pairs of {} ms for each server; {CLIENTS} clients, {WAITING} who wait for the disk, messages of {SIZE} \
         bytes, so many in one write; net.unix.max_dgram_qlen {}; medians, and the quartiles of the ratios",
        options.pairs,
        options.span.as_millis(),
        setup::datagram_queue()
    );
    println!(
        "{:>24} | {:^33} | {:^33}",
        "", "1000 messages/s", "1000 messages/s of server CPU"
    );
    println!(
        "{:>24} | {1:>6} {2:>6}  {3:<17} | {1:>6} {2:>6}  {3:<17}",
        "beside       a write", "it", "udsd", "ratio"
    );
    let mut goals = Vec::new();
    let mut beside = vec![(floor, "floor", ["0.6", "0.8"])];
    match &rsyslog {
        Some((rsyslog, _)) => beside.push((rsyslog, "rsyslog", ["10", "10"])),
        None => println!("rsyslog: left out, rsyslogd is not installed"),
    }
    for (other, beside, [lines, datagrams]) in beside {
        for (name, work, kind, batch, goal) in [
            ("lines", Work::Collect, SocketType::STREAM, 1, lines),
            ("lines", Work::Collect, SocketType::STREAM, TURN, lines),
            (
                "datagrams",
                Work::CollectDatagrams,
                SocketType::DGRAM,
                1,
                datagrams,
            ),
        ] {
            let side = |program: &Program| {
                let server = program.start(work)?;
                let load = Pour::connect(&server, kind, CLIENTS, SIZE, batch)?;
                Side::new(server, load)
            };
            let slices = pairs(options, || side(other), || side(daemon))?;
            let rate = Compared::new(&slices, |w| w.messages as f64 / w.elapsed.as_secs_f64());
            let cpu_rate = Compared::new(&slices, |w| w.messages as f64 / w.cpu.as_secs_f64());
            println!(
                "{beside:>7} {name:>9} {batch:>6} | {} | {}",
                rate.cells(1e3),
                cpu_rate.cells(1e3)
            );
            goals.push(Goal::new(
                format!("collect: {name}/s of server CPU, {batch:>2} a write, to {beside}"),
                format!("{:.2}", cpu_rate.ratio),
                goal,
            ));
        }
    }
    goals.push(stored(options, daemon, floor)?);
    Ok(goals)
}

/// `ack` with `sync`: by the clock, for most of it is waiting.
fn stored(options: &Options, daemon: &Program, floor: &Program) -> Outcome<Goal> {
    let side = |program: &Program| {
        let server = program.start(Work::Store)?;
        let load = Store::connect(&server.socket(), WAITING, SIZE)?;
        Side::new(server, load)
    };
    let slices = pairs(options, || side(floor), || side(daemon))?;
    let rate = Compared::new(&slices, |w| w.messages as f64 / w.elapsed.as_secs_f64());
    let cpu_rate = Compared::new(&slices, |w| w.messages as f64 / w.cpu.as_secs_f64());
    println!(
        "  floor  ack, sync      1 | {} | {}",
        rate.cells(1e3),
        cpu_rate.cells(1e3)
    );
    Ok(Goal::new(
        format!("collect: lines/s stored with ack and sync, {WAITING} clients, to floor"),
        format!("{:.2}", rate.ratio),
        "0.7",
    ))
}
