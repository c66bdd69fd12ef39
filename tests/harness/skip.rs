//! Tests that this machine cannot run. libtest knows no such outcome and counts them as passed: each
//! says so at once and leaves a line, and `tests/what_was_skipped.rs`, which cargo runs last, counts the
//! lines.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the tests skip, the count takes; a failed unwrap is a failed test"
)]

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use rustix::process::{Pid, getppid, test_kill_process};

const FILE: &str = "skipped-";

/// The lines of this run. Whoever started this process, cargo or another runner, started the others too.
fn file() -> PathBuf {
    let runner = Pid::as_raw(getppid());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{FILE}{runner}"))
}

/// Passes over the test of this thread; with CI=true, fails it.
pub fn skip(reason: &str) {
    let ci = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{reason}, and with CI=true nothing is skipped");
    pass_over(reason);
}

/// Passes over the test of this thread, with CI=true too: what it needs, not every distribution has.
pub fn pass_over(reason: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a thread without a name");
    // Past the capture of the test's output: nobody reads the output of a test that passes.
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {reason}");
    let file = OpenOptions::new().create(true).append(true).open(file());
    writeln!(file.unwrap(), "{test}\t{reason}").unwrap();
}

/// Takes what the tests of this run left: each test once, with its first reason.
pub fn take() -> Vec<(String, String)> {
    let mut skipped: Vec<(String, String)> = Vec::new();
    let lines = fs::read_to_string(file()).unwrap_or_default();
    for (test, reason) in lines.lines().filter_map(|line| line.split_once('\t')) {
        if !skipped.iter().any(|(known, _)| known == test) {
            skipped.push((test.to_owned(), reason.to_owned()));
        }
    }
    let _ = fs::remove_file(file());
    remove_abandoned();
    skipped
}

/// Removes what earlier runs left that did not come to their end.
fn remove_abandoned() {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR"))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let runner = name.to_str().and_then(|name| name.strip_prefix(FILE));
        let runner = runner.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        if runner.is_some_and(|pid| test_kill_process(pid).is_err()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
