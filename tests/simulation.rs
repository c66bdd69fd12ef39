//! Promise 1 under random schedules: messages are whole, in one order, and never silently lost. The
//! hub runs without sockets, on streams in memory and a simulated clock.
//!
//! Clients come at any time, send, take a little or nothing, shut down one side and vanish; calls are
//! cut short, interrupted or find no room; records are written late; the clock jumps; other files are
//! put into force, in which sockets come, go, are renamed or are others, and share a record or no longer; the next
//! process takes over; the daemon stops. After every step a model that knows only the rules says what each client may have got.
//!
//! `UDSD_TEST_SEED=N cargo test --test simulation` replays the one schedule that failed.
//! `UDSD_TEST_SCHEDULES=N` says how many are run.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a failed unwrap is a failed test; nobody imports a test"
)]

use std::{
    env,
    panic::{self, RefUnwindSafe},
    thread,
};

#[path = "simulation/actor.rs"]
mod actor;
#[path = "simulation/change.rs"]
mod change;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/datagram_socket.rs"]
mod datagram_socket;
#[path = "simulation/datagrams.rs"]
mod datagrams;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/receiver.rs"]
mod receiver;
#[path = "simulation/room.rs"]
mod room;
#[path = "simulation/schedule.rs"]
mod schedule;
#[path = "simulation/share.rs"]
mod share;
#[path = "simulation/totals.rs"]
mod totals;
#[path = "hub/world.rs"]
#[allow(dead_code, reason = "shared with the hub's directed tests")]
mod world;

use schedule::Schedule;

/// How many schedules are run; `.ci/run` and `.ci/nightly` ask for more.
fn schedules() -> u64 {
    env::var("UDSD_TEST_SCHEDULES").map_or(2_000, |number| number.parse().unwrap())
}

#[test]
fn under_any_schedule_nothing_is_lost_reordered_or_left_undone() {
    for_each_seed(schedules(), |seed, told| Schedule::new(seed, told).run());
}

#[test]
fn under_any_schedule_no_datagram_is_lost_reordered_or_left_undone() {
    for_each_seed(schedules() / 2, |seed, _| {
        datagrams::Schedule::new(seed).run();
    });
}

/// Runs schedules from 0 on, or the one that is asked for, which tells what happens.
fn for_each_seed(schedules: u64, run: impl Fn(u64, bool) + RefUnwindSafe + Sync) {
    if let Ok(seed) = env::var("UDSD_TEST_SEED") {
        // Told among what happens: why the hub closed a client.
        let mut hub_log = env_logger::builder();
        hub_log
            .filter_level(log::LevelFilter::Debug)
            .target(env_logger::Target::Stdout);
        // The other test may have done so.
        let _ = hub_log.try_init();
        run(seed.parse().unwrap(), true);
        return;
    }
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let run = &run;
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..schedules).step_by(threads as usize) {
                    if let Err(reason) = panic::catch_unwind(|| run(seed, false)) {
                        eprintln!("schedule {seed} failed; UDSD_TEST_SEED={seed} replays it alone");
                        panic::resume_unwind(reason);
                    }
                }
            });
        }
    });
}
