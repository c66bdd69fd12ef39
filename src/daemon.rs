//! The daemon from its arguments to its exit code: config, log, sockets, run.

mod apply;
mod check;
mod decide;
mod exposure;
mod in_force;
mod limits;
mod log;
mod records;
mod reload;
mod restart;
mod sockets;
mod units;

use std::{env, io, path::PathBuf, process::ExitCode, thread, time::Duration};

use ::log::{error, info, warn};
use clap::{CommandFactory, Parser};
use signal_hook_mio::v1_0::Signals;

use crate::{
    cgroups,
    client_socket::ClientSocket,
    config::{BaseDirs, Config, SocketOptions},
    error::{Fatal, Faults},
    generator,
    handover::Handover,
    hub::Hub,
    server::{self, Ended, Server},
    sys,
    systemd::{self, Inherited, Passed},
};
use apply::Current;

/// How long a failed start waits before it ends, where the manager holds the sockets. A client that waits at one
/// makes the manager start udsd again at once. Without this pause that would be 100 times in a few seconds, the
/// start limit, at which the manager closes the sockets (`systemd.unit(5)`, StartLimitBurst=).
const FAILED_START: Duration = Duration::from_secs(1);
/// The exit code after a handover (EX_TEMPFAIL): the units have RestartForceExitStatus=75.
const HANDED_OVER: u8 = 75;

/// The message daemon for the local services of one machine.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// The config file, and FILE.d/*.toml [default: /etc/udsd/udsd.toml, by a user
    /// ~/.config/udsd/udsd.toml, else the built-in one; and their drop-ins]
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Print the effective configuration, or what is wrong with it (exit code 78), and end
    #[arg(long)]
    check: bool,
    /// Print the faults alone, as a JSON list of objects
    #[arg(long, requires = "check")]
    json: bool,
    /// Judge the text alone: on this machine nothing of it has to be there
    #[arg(long, requires = "check")]
    text: bool,
    /// Serve one socket at PATH in place of the config file's ("@name": abstract)
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    #[command(flatten)]
    of_socket: SocketOptions,
}

/// Its options, for whoever describes them.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the daemon.
#[must_use]
pub fn main() -> ExitCode {
    // Before this process opens a descriptor of its own, whose number could be taken for a passed one.
    let passed = systemd::passed();
    // Before anything that takes time: until then a signal kills the process. A check is to end by signals.
    let is_check = env::args_os().any(|word| word == "--check");
    let signals = (!is_check).then(server::signals);
    let activated = passed
        .as_ref()
        .map_or(true, |passed| !passed.sockets.is_empty());
    let started = match Arguments::try_parse() {
        Ok(arguments) if arguments.check => return check::main(&arguments),
        Ok(arguments) => {
            let signals = signals.unwrap_or_else(server::signals);
            start(&arguments, passed, signals).map(|(server, config)| (server, config, arguments))
        }
        Err(message) => {
            // Fails where standard error is closed.
            let _ = message.print();
            if !message.use_stderr() {
                return ExitCode::SUCCESS;
            }
            Err(ExitCode::FAILURE)
        }
    };
    let (mut server, mut config, arguments) = match started {
        Ok(started) => started,
        Err(code) => {
            if activated {
                thread::sleep(FAILED_START);
            }
            return code;
        }
    };
    loop {
        server = match server.run() {
            Ok(Ended::Reload(mut server)) => {
                reload::reload(&mut server, &arguments, &mut config);
                *server
            }
            Ok(Ended::Stopped) => return ExitCode::SUCCESS,
            Ok(Ended::LinesLost) => return ExitCode::FAILURE,
            Ok(Ended::HandedOver) => return HANDED_OVER.into(),
            Err(fatal) => return report(&fatal),
        }
    }
}

/// Everything up to the event loop. What fails is logged.
fn start(
    arguments: &Arguments,
    passed: Result<Passed, String>,
    signals: io::Result<Signals>,
) -> Result<(Server, Config), ExitCode> {
    let is_managed = passed
        .as_ref()
        .is_ok_and(|passed| !passed.sockets.is_empty());
    let config = load(arguments, is_managed);
    log::to_stderr(config.as_ref().map_or("info", |config| &config.daemon.log));
    config.iter().for_each(note_exposure);
    let start = || {
        let signals = signals.map_err(Faults::system("handling signals"))?;
        let passed = passed.map_err(|fault| Faults::Socket {
            socket: "inherited".into(),
            fault,
        })?;
        if let Err(error) = sys::raise_open_files() {
            warn!("cannot raise the limit of open files: {error}");
        }
        if !cgroups::are_known() {
            info!(
                "units of clients are not known here: that needs cgroups of version 2 at /sys/fs/cgroup, and Linux 6.13, or 6.5 and /proc"
            );
        }
        match Handover::find(passed.stored, passed.foreign) {
            Some(handover) => restart::go_on(handover, config, passed.sockets, signals),
            None => {
                let config = config?;
                let server = begin(&config, passed.sockets, signals)?;
                Ok((server, config))
            }
        }
    };
    start().map_err(|faults| report(&faults.into()))
}

/// The file, or the one socket of the command line. Where units make the sockets, a value that they cannot have is
/// a fault of the file like any other.
fn load(arguments: &Arguments, is_managed: bool) -> Result<Config, Faults> {
    let dirs = BaseDirs::current();
    let config = read(arguments, &dirs)?;
    if is_managed {
        Faults::of_config(generator::faults(&config, &dirs))?;
    }
    Ok(config.with_control())
}

fn read(arguments: &Arguments, dirs: &BaseDirs) -> Result<Config, Faults> {
    match &arguments.socket {
        None => Config::load(arguments.config.as_deref(), dirs),
        Some(path) => Config::ad_hoc(path, &arguments.of_socket, dirs),
    }
}

/// Warns if other users may change the config file.
fn note_exposure(config: &Config) {
    for warning in exposure::warnings(config) {
        warn!("{warning}");
    }
}

/// Logs what ends the daemon; returns the exit code for it.
fn report(Fatal(faults): &Fatal) -> ExitCode {
    log_fault(faults);
    faults.exit_code().into()
}

fn log_fault(fault: &Faults) {
    for line in fault.to_string().lines() {
        error!("{line}");
    }
}

/// Starts without a handover: the file comes into force over nothing.
fn begin(config: &Config, passed: Vec<Inherited>, signals: Signals) -> Result<Server, Faults> {
    let managed: Vec<u64> = passed.iter().filter_map(|of| of.cookie().ok()).collect();
    let hub = Hub::new(Vec::new(), limits::limits(config));
    let mut server = serve(hub, signals)?;
    let before = Current {
        server: &server,
        sockets: &[],
        left_to_manager: &[],
    };
    let has_others = config.of_file().count() > 1;
    let change = apply::plan(before, config, Some(passed), has_others)?;
    let lines = change.put(&mut server);
    apply::follow_up_start(&mut server, config, lines, &managed);
    Ok(server)
}

/// Makes the server of `hub`.
fn serve(hub: Hub<ClientSocket>, signals: Signals) -> Result<Server, Faults> {
    Server::new(hub, signals).map_err(Faults::system("setting up the event loop"))
}
