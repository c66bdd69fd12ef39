//! `udsc metrics`: all counts as text for Prometheus, to standard output or into a file for node_exporter's textfile
//! collector. What stands in that file never tells of a daemon that does not answer: its counts would look like those
//! of one that has nothing to do.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use super::{
    Options,
    control::{self, Control},
    daemon::only_daemon,
    failure::{Failure, reason},
    terminal::print,
};
use crate::control::{Metrics, metrics::Text};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Replace this file by them in one step, readable by all; by udsd_up 0 where udsd does not answer
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let Some(file) = &plan.output else {
        return print(&ask(control::connect(options)?)?);
    };
    let asked = match control::find(options) {
        Ok(Ok(control)) => ask(control),
        Ok(Err(absent)) if absent.iter().any(|absence| absence.is_idle) => {
            return done(file, remove(file));
        }
        Ok(Err(absent)) => Err(control::failure(absent)),
        Err(failure) => Err(failure),
    };
    match asked {
        Ok(text) => done(file, replace(file, &text)),
        Err(failure) => {
            done(file, replace(file, &Text::begin(false).end()))?;
            Err(failure)
        }
    }
}

fn ask(mut control: Control) -> Result<String, Failure> {
    let Metrics { text } = control.call("Metrics", Value::Null)?;
    Ok(text)
}

fn done(file: &Path, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| {
        let reason = reason(&error);
        Failure::Told(format!("{} cannot be written: {reason}", file.display()))
    })
}

/// An idle daemon has nothing to tell, and nothing is wrong with it.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whoever reads `file` finds the old text or the new one, each whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(ErrorKind::IsADirectory)?;
    // Not by a name that the collector reads.
    let new = format!(".{}.new", name.display());
    let new = file.with_file_name(new);
    // One that did not come to its end may have left it.
    remove(&new)?;
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
