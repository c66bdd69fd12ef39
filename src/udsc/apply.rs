//! `udsc apply`: makes the sockets, the units and the daemon follow udsd.toml, and says what became of each.
//! The steps are in `run`. `systemctl` runs that, `kernel` knows the sockets that there are, `socket` compares
//! one with the file, `dead_files` removes what moved or removed sockets leave, `table` prints the outcome.
//!
//! Nothing is touched before the file is found good. Then only what differs from it is made anew: a new datagram
//! socket cuts off for good who was connected to the old one.

mod dead_files;
mod kernel;
mod socket;
mod table;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    process::{geteuid, getuid},
};

use super::{
    Options,
    check::check,
    failure::Failure,
    systemctl::{Properties, Systemctl},
    terminal::print_json,
};
use crate::{
    config::{BaseDirs, Config, Socket, last_good},
    generator,
    server::{REFUSED_AT_RESTART, RELOAD_FAILED},
    sysctl,
};
use socket::{Present, Wanted};
use table::Row;

const SERVICE: &str = "udsd.service";
const FIRST: &str = "udsd.socket";
/// The units of all further sockets.
const FURTHER: &str = "udsd-*.socket";

/// How long apply waits until a new process has closed the old sockets, or until the status of the daemon fits
/// the outcome of a reload; and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

// The arguments of `udsc apply`. A doc comment here would show in its help.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// What became of each as one object a line
    #[arg(long)]
    json: bool,
}

/// The sockets of one manager, and the file that they are to follow.
struct Apply {
    systemctl: Systemctl,
    dirs: BaseDirs,
    config: Config,
    /// The sockets of the file, in its order.
    wanted: Vec<Wanted>,
}

/// What there is of a socket of the file.
struct Look {
    /// ActiveState of its unit.
    state: String,
    /// How the socket differs from the file.
    differences: Vec<String>,
}

impl Look {
    fn is_as_wanted(&self) -> bool {
        self.state == "active" && self.differences.is_empty()
    }
}

pub(super) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    let (systemctl, dirs) = manager(options)?;
    let checked =
        check()?.ok_or_else(|| Failure::Told("nothing was changed: mend the file first".into()))?;
    let config = Config::load(None, &dirs)?;
    for warning in sysctl::warnings(config.sockets.iter()) {
        eprintln!("udsc: warning: {warning}");
    }
    systemctl
        .try_to::<&str>("daemon-reload", &[])?
        .map_err(|said| Failure::Told(format!("{} daemon-reload: {said}", systemctl.name())))?;
    let apply = Apply::new(systemctl, dirs, config);
    apply.must_be_on()?;
    let service = systemctl.state_of(SERVICE)?;
    let (before, gone) = (apply.look()?, apply.gone()?);

    apply.make(&before, &gone)?;
    let daemon = apply.tell_daemon(&service, !gone.is_empty())?;
    let mut rows = apply.verify(before)?;
    rows.extend(apply.verify_gone(&gone)?);
    apply.remove_dead_files(&mut rows)?;
    rows.push(daemon);

    match plan.json {
        true => print_json(rows.iter().map(Row::object))?,
        false => table::print(&rows)?,
    }
    match rows.iter().filter(|row| row.outcome.is_err()).count() {
        0 => apply.remember(&checked),
        1 => Err(Failure::Told("1 is not as the file says".into())),
        n => Err(Failure::Told(format!("{n} are not as the file says"))),
    }
}

/// Whose sockets are meant.
fn manager(options: &Options) -> Result<(Systemctl, BaseDirs), Failure> {
    let Options {
        config,
        socket,
        kind,
        framing,
        ..
    } = options;
    if config.is_some() || socket.is_some() || kind.is_some() || framing.is_some() {
        let text = "apply is for all sockets of the file that a manager's units follow: leave out --config, --socket, --type and --framing";
        return Err(Failure::Usage(text.into()));
    }
    let (system, current) = (BaseDirs::system(), BaseDirs::current());
    let wrong = match (options.user, geteuid().is_root()) {
        (true, _) if current == system => {
            "--user: root has no sockets but the system's; leave it out"
        }
        (false, false) => {
            "the system's sockets are root's: run it as root, or udsc --user apply for your own"
        }
        (user, _) => return Ok((Systemctl { user }, if user { current } else { system })),
    };
    Err(Failure::Told(wrong.into()))
}

impl Apply {
    fn new(systemctl: Systemctl, dirs: BaseDirs, config: Config) -> Self {
        let sockets = config.sockets.iter().enumerate();
        let wanted = sockets.map(|(i, socket)| Wanted {
            unit: generator::unit_name(i, socket),
            socket: Socket {
                address: socket.address.in_unit(),
                ..socket.clone()
            },
        });
        Self {
            wanted: wanted.collect(),
            systemctl,
            dirs,
            config,
        }
    }

    /// Whether the administrator wants any socket: udsd.socket is the only switch.
    fn must_be_on(&self) -> Result<(), Failure> {
        let first = self.systemctl.state_of(FIRST)?;
        let is_on = first.get("ActiveState") == "active"
            || first.get("UnitFileState").starts_with("enabled");
        if is_on {
            return Ok(());
        }
        let systemctl = self.systemctl.name();
        let state = match first.get("LoadState") {
            "loaded" => first.get("UnitFileState"),
            other => other,
        };
        Err(Failure::Told(format!(
            "{FIRST} is {state}, so there are no sockets: {systemctl} enable --now {FIRST}"
        )))
    }

    /// What there is of each socket of the file.
    fn look(&self) -> Result<Vec<Look>, Failure> {
        let present = self.present()?;
        let units: Vec<&str> = self.wanted.iter().map(|wanted| &*wanted.unit).collect();
        let states = self.systemctl.show(&units)?;
        let looks = self.wanted.iter().zip(&states).map(|(wanted, state)| {
            Ok(Look {
                state: state.get("ActiveState").into(),
                differences: wanted.differences(&present, state)?,
            })
        });
        looks.collect()
    }

    /// The units that systemd still has of sockets that the file no longer has.
    fn gone(&self) -> Result<Vec<String>, Failure> {
        let mut gone = self.systemctl.list(FURTHER)?;
        gone.retain(|unit| self.wanted.iter().all(|wanted| wanted.unit != *unit));
        let mut states = self.systemctl.show(&gone)?.into_iter();
        // A unit that has a file is somebody else's of such a name.
        gone.retain(|_| {
            states
                .next()
                .is_some_and(|state| state.get("LoadState") == "not-found")
        });
        Ok(gone)
    }

    fn present(&self) -> Result<Present, Failure> {
        let manager = if self.systemctl.user {
            let unit = format!("user@{}.service", getuid().as_raw());
            let of_system = Systemctl { user: false };
            of_system.state_of(&unit)?.get("MainPID").parse().ok()
        } else {
            Some(1)
        };
        Ok(Present {
            bound: kernel::bound().map_err(|error| Failure::System("sock_diag(7)", error))?,
            held: manager.and_then(kernel::held_by),
            most_backlog: sysctl::most_backlog().unwrap_or(u32::MAX),
            is_of_system: !self.systemctl.user,
        })
    }

    /// Stops what is gone, and makes anew what is not as the file says. `verify` sees what failed.
    fn make(&self, before: &[Look], gone: &[String]) -> Result<(), Failure> {
        if !gone.is_empty() {
            let _ = self.systemctl.try_to("stop", gone)?;
            // A unit that had failed would stay in the list.
            let _ = self.systemctl.try_to("reset-failed", gone)?;
        }
        let stale = self.wanted.iter().zip(before);
        let stale = stale.filter(|(_, look)| !look.is_as_wanted());
        let units: Vec<&str> = stale.map(|(wanted, _)| &*wanted.unit).collect();
        if !units.is_empty() {
            let _ = self.systemctl.try_to("restart", &units)?;
        }
        Ok(())
    }

    /// Has a daemon that runs read the file; `service` is its state before anything was touched. A socket that was
    /// made anew has restarted it already (PartOf=). Else it is restarted where something can only be had anew,
    /// and reloaded otherwise.
    fn tell_daemon(&self, service: &Properties, any_gone: bool) -> Result<Row, Failure> {
        if ["inactive", "failed"].contains(&service.get("ActiveState")) {
            let now = "not running: the next client starts it";
            return Ok(Row::of_unit(SERVICE, Ok(now.into())));
        }
        // Waits for a restart that is under way.
        let started = self.systemctl.try_to("start", &[SERVICE])?;
        if started.is_err() {
            return self.row_of_daemon(started, "");
        }
        let now = self.systemctl.state_of(SERVICE)?;
        let is_new = now.get("MainPID") != service.get("MainPID");
        if !is_new && !any_gone && !self.needs_new_mounts(now.get("MainPID")) {
            let done = self.systemctl.try_to("reload", &[SERVICE])?;
            return self.row_of_daemon(done, "reloaded");
        }
        let done = match is_new {
            true => Ok(()),
            false => self.systemctl.try_to("restart", &[SERVICE])?,
        };
        self.row_of_daemon(done, "restarted, with all its clients")
    }

    /// The row of the daemon. `done` is systemctl's outcome and `became` the word for its success; a failure is
    /// told by the daemon's status, or else by systemctl's message.
    fn row_of_daemon(&self, done: Result<(), String>, became: &str) -> Result<Row, Failure> {
        // Without a control socket a reload is a signal, which the daemon may see only after systemctl has ended.
        let end = Instant::now() + PATIENCE;
        let status = loop {
            let state = self.systemctl.state_of(SERVICE)?;
            let is_up = ["active", "reloading"].contains(&state.get("ActiveState"));
            let status = state.get("StatusText");
            if !is_up || is_refused(status) == done.is_err() || Instant::now() > end {
                break status.to_owned();
            }
            thread::sleep(LOOK_AGAIN);
        };
        let outcome = match done {
            _ if is_refused(&status) => Err(status),
            Err(said) => Err(said),
            Ok(()) => Ok(became.into()),
        };
        let outcome = outcome.map_err(|why| format!("{why}; {}", self.see(SERVICE)));
        Ok(Row::of_unit(SERVICE, outcome))
    }

    /// Says which command shows a unit's log.
    fn see(&self, unit: &str) -> String {
        let user = if self.systemctl.user { "--user " } else { "" };
        format!("journalctl {user}--unit={unit} says why")
    }

    /// Whether the process cannot write to a record's folder, but a new one can (ReadWritePaths=).
    fn needs_new_mounts(&self, pid: &str) -> bool {
        let files = self.config.sockets.iter();
        let files = files.filter_map(|socket| socket.record.as_ref()?.file.as_deref());
        let mut folders = files.filter_map(Path::parent);
        folders.any(|folder| {
            let seen = format!("/proc/{pid}/root{}", folder.display());
            statvfs(seen).is_ok_and(|there| there.f_flag.contains(StatVfsMountFlags::RDONLY))
        })
    }

    /// What became of the sockets of the file.
    fn verify(&self, before: Vec<Look>) -> Result<Vec<Row>, Failure> {
        let now = before.into_iter().zip(self.look()?);
        let rows = self.wanted.iter().zip(now).map(|(wanted, (before, now))| {
            let outcome = if !now.is_as_wanted() {
                let left = match now.differences.is_empty() {
                    true => now.state,
                    false => now.differences.join(", "),
                };
                Err(format!("{left}; {}", self.see(&wanted.unit)))
            } else if before.is_as_wanted() {
                Ok("as it was".into())
            } else if before.state == "active" {
                let before = before.differences.join(", ");
                Ok(format!("made anew; before: {before}"))
            } else {
                Ok("started".into())
            };
            Row::of_socket(wanted, outcome)
        });
        Ok(rows.collect())
    }

    /// What became of those that the file no longer has.
    fn verify_gone(&self, gone: &[String]) -> Result<Vec<Row>, Failure> {
        let states = self.systemctl.show(gone)?;
        let rows = gone.iter().zip(&states).map(|(unit, state)| {
            let outcome = match state.get("ActiveState") {
                "inactive" => Ok("stopped".into()),
                other => Err(format!("still {other}")),
            };
            Row::of_unit(unit, outcome)
        });
        Ok(rows.collect())
    }

    /// Keeps what was checked as the last good file.
    fn remember(&self, checked: &str) -> Result<(), Failure> {
        let Some(file) = &self.dirs.config_file else {
            return Ok(());
        };
        let kept = match self.config.origin.is_built_in() {
            false => last_good::write(file, checked),
            // Where the embedded one serves, none needs to be kept.
            true => last_good::forget(file),
        };
        kept.map_err(|error| Failure::System("the last good file", error))
    }
}

/// Whether the daemon says by this status that the file is not in force.
fn is_refused(status: &str) -> bool {
    [RELOAD_FAILED, REFUSED_AT_RESTART]
        .iter()
        .any(|when| status.starts_with(when))
}
