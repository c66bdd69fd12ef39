//! `udsc reload`: has the daemon read its file again, and says what came of it.

use std::env;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Options,
    check::check,
    control::{self, Unanswered},
    daemon::only_daemon,
    failure::Failure,
    terminal::print_json,
};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// What is wrong with the file on standard output, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let mut control = match (control::find(options)?, main_pid()) {
        (Ok(control), _) => control,
        (Err(_), Some(pid)) => return by_signal(pid),
        (Err(absent), None) => return Err(control::failure(absent)),
    };
    match control.call_slow("Reload") {
        Err(Unanswered::Error(name, parameters))
            if plan.json && name.ends_with(".ReloadFailed") =>
        {
            print_json(control::faults(parameters))?;
            let text = "udsd did not reload, and serves as before";
            Err(Failure::Told(text.into()))
        }
        done => Ok(done?),
    }
}

/// The daemon whose ExecReload= this is.
fn main_pid() -> Option<Pid> {
    let pid = env::var("MAINPID").ok()?;
    Pid::from_raw(pid.parse().ok()?)
}

/// As ExecReload=, where the file has no control socket, or one that the daemon has not made yet. It is told of a
/// faulty file all the same: it goes on as before, and its status says why.
fn by_signal(pid: Pid) -> Result<(), Failure> {
    let checked = check()?;
    kill_process(pid, Signal::HUP).map_err(|error| Failure::System("SIGHUP", error.into()))?;
    match checked {
        Some(_) => Ok(()),
        None => Err(Failure::Told(
            "udsd did not reload, and serves as before".into(),
        )),
    }
}
