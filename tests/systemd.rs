//! udsd under a real systemd: runs `tests/lab.sh`, which boots one in a container, with the binaries
//! just built. What is promised, and how it is checked, stands in `tests/lab/checks.sh`. Owned here:
//! what becomes of the test where that cannot run.
#![allow(clippy::unwrap_used)] // a test that cannot go on is to say where

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::Command,
};

/// The script's exit code for "not on this machine".
const CANNOT: i32 = 77;

#[test]
fn promises_hold_under_systemd() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab.sh");
    let output = Command::new("bash")
        .arg(&script)
        .arg(env!("CARGO_BIN_EXE_udsd"))
        .arg(env!("CARGO_BIN_EXE_udsc"))
        .arg(env!("CARGO_BIN_EXE_udsd-generator"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);

    if output.status.code() == Some(CANNOT) {
        let reason = complained.trim();
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "a skipped test is a failure under CI=true: {reason}"
        );
        // Not eprintln!, which is shown only for tests that fail.
        writeln!(
            io::stderr(),
            "\n*** SKIPPED: nothing was tested under systemd: {reason} ***\n"
        )
        .unwrap();
        return;
    }
    println!("{said}\n{complained}");
    assert!(
        output.status.success(),
        "tests/lab.sh: {}, see FAIL above",
        output.status
    );
}
