//! Runs `tests/lab.sh` with the binaries just built, for the tests that are nothing else. Owned here:
//! what becomes of a test where the lab cannot run.

use std::{env, ffi::OsStr, path::Path, process::Command};

use crate::skip::skip;

/// The script's exit code for "not on this machine".
const CANNOT: i32 = 77;

/// Fails where a check fails; where the lab cannot run, the test is skipped.
pub(crate) fn run_lab<A: AsRef<OsStr>>(arguments: &[A]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab.sh");
    let output = Command::new("bash")
        .arg(&script)
        .arg(env!("CARGO_BIN_EXE_udsd"))
        .arg(env!("CARGO_BIN_EXE_udsc"))
        .arg(env!("CARGO_BIN_EXE_udsd-generator"))
        .args(arguments)
        .env("UDSD_LAB_CROWD", env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);

    if output.status.code() == Some(CANNOT) {
        skip(complained.trim().trim_start_matches("lab: "));
        return;
    }
    println!("{said}\n{complained}");
    assert!(
        output.status.success(),
        "tests/lab.sh: {}, see FAIL above",
        output.status
    );
}
