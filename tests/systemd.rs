//! udsd under a real systemd: runs `tests/lab.sh`, which boots one in a container, with the binaries
//! just built. What is promised, and how it is checked, stands in `tests/lab/checks.sh`. The script puts
//! this very program into the lab as well, as the crowd of clients that `tests/lab/handover.sh` needs.
#![allow(clippy::unwrap_used)] // a test that cannot go on is to say where

#[path = "lab/run.rs"]
mod run;
#[path = "harness/skip.rs"]
mod skip;

mod lab {
    pub(super) mod crowd;
}

#[test]
fn promises_hold_under_systemd() {
    run::run_lab::<&str>(&[]);
}

#[test]
#[ignore = "runs inside the lab"]
fn crowd() {
    lab::crowd::obey();
}
