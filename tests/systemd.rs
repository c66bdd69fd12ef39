//! udsd under a real systemd: runs `tests/lab.sh`, which boots one in a container, with the binaries
//! just built. What is promised, and how it is checked, stands in `tests/lab/checks.sh`.
#![allow(clippy::unwrap_used)] // a test that cannot go on is to say where

#[path = "lab/run.rs"]
mod run;

#[test]
fn promises_hold_under_systemd() {
    run::run_lab::<&str>(&[]);
}
