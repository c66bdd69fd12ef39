//! The daemons that udsc may be about: the user's, the system's, or that of a file; where their control sockets
//! are, and what is known of one where nobody listens.

use std::path::{Path, PathBuf};

use super::{Options, failure::Failure, systemctl::Systemctl};
use crate::{
    config::{BaseDirs, Config, DEFAULT, Parsed},
    error::{Fault, Faults},
};

/// A daemon, whether it runs or not.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// As messages call it.
    pub(crate) name: &'static str,
    /// The command that starts it.
    pub(crate) start: String,
    file: Option<PathBuf>,
    dirs: BaseDirs,
    /// Who has its units, if anybody.
    systemctl: Option<Systemctl>,
}

/// What is known of a daemon that nobody answers for.
pub(crate) struct Absence {
    /// It needs not run: the manager holds its sockets and starts it with the first client.
    pub(crate) is_idle: bool,
    /// That in a sentence, and what to do.
    pub(crate) text: String,
}

impl Daemon {
    /// Those that `options` allow, in the order in which they are asked.
    pub(crate) fn all(options: &Options) -> Result<Vec<Self>, Failure> {
        let (system, current) = (BaseDirs::system(), BaseDirs::current());
        if let Some(file) = &options.config {
            return Ok(vec![Self {
                name: "udsd of this file",
                start: format!("udsd --config {}", file.display()),
                file: Some(file.clone()),
                dirs: current,
                systemctl: None,
            }]);
        }
        let mut daemons = Vec::new();
        // Without a runtime folder there is no place for a daemon of the user's.
        if !options.system && current != system && (options.user || current.runtime.is_some()) {
            daemons.push(Self {
                name: "your udsd",
                start: "systemctl --user start udsd.socket".into(),
                file: None,
                dirs: current,
                systemctl: Some(Systemctl { user: true }),
            });
        }
        if !options.user {
            daemons.push(Self {
                name: "the system's udsd",
                start: "systemctl start udsd.socket".into(),
                file: None,
                dirs: system,
                systemctl: Some(Systemctl { user: false }),
            });
        }
        if daemons.is_empty() {
            return Err(Failure::Usage(
                "--user: root has no user's daemon; use --system".into(),
            ));
        }
        Ok(daemons)
    }

    /// Its file.
    pub(crate) fn config(&self) -> Result<Config, Faults> {
        Config::load(self.file.as_deref(), &self.dirs)
    }

    /// Where its control socket is; `None` for `control = ""`. A faulty file, which the daemon has not in force,
    /// says it too. Where its text cannot be parsed, for this fault, the daemon is looked for at the default place, or
    /// that of a file where this seems to say.
    pub(crate) fn control(&self) -> Result<(Option<PathBuf>, Option<Fault>), Fault> {
        let (config, fault) = match (Parsed::load(self.file.as_deref(), &self.dirs), &self.file) {
            (Ok(parsed), _) => (parsed.config, None),
            // It cannot be read at all.
            (Err(fault), Some(_)) if fault.line.is_none() => return Err(fault),
            (Err(fault), Some(file)) => (Config::guess(file, &self.dirs), Some(fault)),
            (Err(fault), None) => {
                let default = Parsed::new(DEFAULT.as_bytes(), None, &self.dirs)?;
                (default.config, Some(fault))
            }
        };
        Ok((config.daemon.control, fault))
    }

    /// The file that its daemon must say it serves, where for this fault it is only a guess who listens.
    pub(crate) fn to_be_served(&self, fault: Option<&Fault>) -> Option<&Path> {
        self.file.as_deref().filter(|_| fault.is_some())
    }

    /// What is known of it, given that nobody listens at `control`, which is the default place for this fault, if any.
    /// Starts nothing.
    pub(crate) fn absence(&self, control: Option<PathBuf>, fault: Option<Fault>) -> Absence {
        let name = self.name;
        if let (Some(_), Some(fault)) = (&self.file, &fault) {
            let text = format!(
                "{fault}\nudsc: so where {name} has its control socket is not known: mend the file; if it is that of the system's or your udsd, say --system or --user in place of --config"
            );
            let is_idle = false;
            return Absence { is_idle, text };
        }
        let no_control = match (control, fault) {
            (Some(path), Some(fault)) => format!(
                "nobody listens at {}, the default place; its file may say another, and cannot be parsed: {fault}",
                path.display()
            ),
            (Some(path), None) => format!("nobody listens at {}", path.display()),
            (None, _) => "it has no control socket (daemon.control = \"\")".into(),
        };
        let units = self
            .systemctl
            .and_then(|of| of.show(&["udsd.service", "udsd.socket"]).ok());
        let state = |i: usize| {
            let unit = units.as_ref().and_then(|units| units.get(i));
            unit.map_or(("", ""), |unit| {
                (unit.get("ActiveState"), unit.get("MainPID"))
            })
        };
        let (is_idle, text) = match (state(0), state(1).0) {
            (("active" | "reloading", pid), _) => {
                let text =
                    format!("{name} runs (pid {pid}), but {no_control}: its log may say why");
                (false, text)
            }
            (_, "active") => {
                let text =
                    "is idle: systemd holds its sockets, and starts it with the first client";
                (true, format!("{name} {text}"))
            }
            _ => {
                let edited = match self.file {
                    Some(_) => {
                        "; if it runs, and the file has had another daemon.control, send it SIGHUP"
                    }
                    None => "",
                };
                let text = format!(
                    "{name} is not running: {no_control}; start it: {}{edited}",
                    self.start
                );
                (false, text)
            }
        };
        Absence { is_idle, text }
    }
}

/// Refuses the options that say how to talk to a socket, for a command that talks to the daemon. `-s` is left to
/// one that `takes_socket`.
pub(crate) fn only_daemon(options: &Options, takes_socket: bool) -> Result<(), Failure> {
    let given = [
        ("--socket", options.socket.is_some() && !takes_socket),
        ("--type", options.kind.is_some()),
        ("--framing", options.framing.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => Err(Failure::Usage(format!(
            "this command asks the daemon, and not one of its sockets: leave out {option}"
        ))),
    }
}
