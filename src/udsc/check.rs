//! Runs `udsd --check`, of the udsd that was installed with this udsc. It says itself what is wrong with a faulty
//! file.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::failure::Failure;

/// What it prints of a good file; `None` for a faulty one.
pub(crate) fn check() -> Result<Option<String>, Failure> {
    let beside = env::current_exe()
        .ok()
        .map(|own| own.with_file_name("udsd"));
    let udsd = beside.filter(|path| path.exists());
    let udsd = udsd.unwrap_or_else(|| PathBuf::from("udsd"));
    let output = Command::new(&udsd)
        .arg("--check")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::Told(format!("{} cannot be run: {error}", udsd.display())))?;
    let text = String::from_utf8(output.stdout).ok();
    Ok(text.filter(|_| output.status.success()))
}
