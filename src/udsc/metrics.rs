//! `udsc metrics`: all counts as text for Prometheus, to standard output or into a file for node_exporter's textfile
//! collector.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use super::{
    Options, control,
    daemon::only_daemon,
    failure::{Failure, reason},
    terminal::print,
};
use crate::control::Metrics;

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Replace this file by them in one step, readable by all
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let mut control = control::connect(options)?;
    let Metrics { text } = control.call("Metrics", Value::Null)?;
    let Some(file) = &plan.output else {
        return print(&text);
    };
    replace(file, &text).map_err(|error| {
        let reason = reason(&error);
        Failure::Told(format!("{} cannot be written: {reason}", file.display()))
    })
}

/// Whoever reads `file` finds the old text or the new one, each whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(ErrorKind::IsADirectory)?;
    // Not by a name that the collector reads.
    let new = format!(".{}.new", name.display());
    let new = file.with_file_name(new);
    // One that did not come to its end may have left it.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let written = out
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| out.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}
