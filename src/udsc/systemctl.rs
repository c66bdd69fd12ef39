//! Runs `systemctl`, for the system's manager or the user's.

use std::{
    collections::BTreeMap,
    io,
    process::{Command, Output},
};

use crate::udsc::failure::Failure;

/// What is asked of each unit; those of another type lack some.
const PROPERTIES: &str = "LoadState,ActiveState,UnitFileState,MainPID,StatusText,Backlog,SendBuffer,SocketMode,SocketUser,SocketGroup";

/// The properties of a unit, by name.
#[derive(Debug, Default)]
pub(crate) struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Empty where systemd does not know it.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Systemctl {
    /// The user's manager.
    pub(crate) user: bool,
}

impl Systemctl {
    /// The command, as messages write it.
    pub(crate) fn name(self) -> &'static str {
        if self.user {
            "systemctl --user"
        } else {
            "systemctl"
        }
    }

    /// Runs a command. The inner error is systemctl's own message.
    pub(crate) fn try_to<S: AsRef<str>>(
        self,
        verb: &str,
        units: &[S],
    ) -> Result<Result<(), String>, Failure> {
        let output = self.output(&[verb], units)?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // A second line tells where to look, which the table does too.
        let said = said.lines().next().unwrap_or_default().to_owned();
        Ok(Err(said))
    }

    /// The properties of each of `units`, in their order.
    pub(crate) fn show<S: AsRef<str>>(self, units: &[S]) -> Result<Vec<Properties>, Failure> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.output(&["show", "--property", PROPERTIES], units)?;
        let text = String::from_utf8_lossy(&output.stdout);
        // A blank line stands between two units.
        let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
        let shown = blocks.map(|block| {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            Properties(
                pairs
                    .map(|(key, value)| (key.into(), value.into()))
                    .collect(),
            )
        });
        let shown: Vec<Properties> = shown.collect();
        if output.status.success() && shown.len() == units.len() {
            return Ok(shown);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::Told(format!(
            "{} show: {} of {} units; {}",
            self.name(),
            shown.len(),
            units.len(),
            said.trim()
        )))
    }

    /// The properties of one unit.
    pub(crate) fn state_of(self, unit: &str) -> Result<Properties, Failure> {
        Ok(self.show(&[unit])?.pop().unwrap_or_default())
    }

    /// The names of the socket units that match `pattern`, whatever their state.
    pub(crate) fn list(self, pattern: &str) -> Result<Vec<String>, Failure> {
        let options = [
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "--full",
            "--type=socket",
        ];
        let output = self.output(&options, &[pattern])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(names.map(Into::into).collect())
    }

    /// The socket unit that listens at `path`.
    pub(crate) fn listening_at(self, path: &str) -> Result<Option<String>, Failure> {
        let options = ["list-sockets", "--plain", "--no-legend", "--full"];
        let output = self.output::<&str>(&options, &[])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut there = text.lines().filter_map(|line| line.strip_prefix(path));
        let unit = there.find_map(|rest| rest.strip_prefix(' ')?.split_whitespace().next());
        Ok(unit.map(Into::into))
    }

    fn output<S: AsRef<str>>(self, options: &[&str], units: &[S]) -> Result<Output, Failure> {
        let mut command = Command::new("systemctl");
        if self.user {
            command.arg("--user");
        }
        command.args(options).arg("--");
        command.args(units.iter().map(AsRef::as_ref));
        // What it prints is parsed.
        command
            .env("LC_ALL", "C.UTF-8")
            .env_remove("SYSTEMD_COLORS");
        command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Told(
                "there is no systemctl: apply is for sockets that come from systemd; a udsd without it takes a changed file by SIGHUP".into(),
            ),
            _ => Failure::System("systemctl", error),
        })
    }
}
