//! Runs `tests/lab.sh` with the binaries just built, for the tests that are nothing else. Owned here:
//! what becomes of a test where the lab cannot run.

use std::{
    env,
    ffi::OsStr,
    io::{self, Write},
    path::Path,
    process::Command,
};

/// The script's exit code for "not on this machine".
const CANNOT: i32 = 77;

/// Fails where a check fails, and where the lab cannot run under CI=true; else says that it was skipped.
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
        let reason = complained.trim();
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "a skipped test is a failure under CI=true: {reason}"
        );
        // Not eprintln!, which is shown only for tests that fail.
        let mut shown = io::stderr();
        let skipped = "SKIPPED: nothing was tested under systemd";
        writeln!(shown, "\n*** {skipped}: {reason} ***\n").unwrap();
        return;
    }
    println!("{said}\n{complained}");
    assert!(
        output.status.success(),
        "tests/lab.sh: {}, see FAIL above",
        output.status
    );
}
