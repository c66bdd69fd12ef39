//! Stops a udsd while it starts, at a point that can be seen from outside, for the promise that a
//! process that dies in the middle of taking over the clients loses none of them. Whether it is in the
//! middle still, and its death, are left to tests/lab/handover.sh: of a process that stands still, that
//! can be said for certain.

use std::{
    fs,
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The processes of the service.
const PROCESSES: &str = "/sys/fs/cgroup/system.slice/udsd.service/cgroup.procs";
/// How long such a process is awaited.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops the first udsd other than the process `old` as soon as it has as many open descriptors as
/// `open` says; 0: as soon as it is there. Says its pid, and does not return.
pub(crate) fn catch(old: u32, open: u32) -> ! {
    let begun = Instant::now();
    let mut seen = None;
    while begun.elapsed() < PATIENCE {
        let new = fs::read_to_string(PROCESSES)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .find(|pid| *pid != old);
        if let Some(pid) = new {
            seen = Some(pid);
            // Descriptors are given out from the lowest up, so that one stands for all below it. A
            // process that is over before it has so many is awaited no longer: the next is meant.
            while Path::new(&format!("/proc/{pid}")).exists() && begun.elapsed() < PATIENCE {
                if is_udsd(pid) && (open == 0 || has_open(pid, open)) {
                    stop(pid);
                }
                thread::yield_now();
            }
        }
        thread::yield_now();
    }
    match seen {
        None => eprintln!("no new process within {PATIENCE:?}"),
        Some(pid) => eprintln!("process {pid} never had {open} open descriptors"),
    }
    process::exit(1);
}

/// Not before it has become udsd: until then it is a part of systemd.
fn is_udsd(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "udsd")
}

fn has_open(pid: u32, open: u32) -> bool {
    fs::symlink_metadata(format!("/proc/{pid}/fd/{}", open - 1)).is_ok()
}

fn stop(pid: u32) -> ! {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let stopped = process.is_some_and(|pid| kill_process(pid, Signal::STOP).is_ok());
    eprintln!("{} {pid}", if stopped { "caught" } else { "missed" });
    process::exit(i32::from(!stopped));
}
