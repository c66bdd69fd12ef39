//! The systemd generator: makes the units follow the config file (`systemd.generator(7)`).
//!
//! The manager runs it at boot and at each `daemon-reload`, before it loads units. It reads the file
//! as the daemon does and writes into the first folder that it is given; `units` has the texts. It reports what
//! is faulty or cannot be expressed by units, and writes the rest; `follow` says what serves in place of that.
//! It talks to no other process and looks no user up: at boot nothing can answer.

mod follow;
mod manager;
mod units;

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use clap::{CommandFactory, Parser};
use rustix::fs::{FileType, fstat, makedev};

use crate::{
    config::{BaseDirs, Config},
    error::Fault,
    sysctl,
};
pub use units::unit_name;
use units::{Content, Entry, Maker};

/// Longest line that is written to /dev/kmsg, in bytes; the kernel refuses one over 992
/// (`devkmsg_write`).
const KERNEL_LINE: usize = 900;
/// What a line to /dev/kmsg begins with: facility daemon (3), and priority err or warning (`syslog(3)`).
const ERROR: u8 = 3 << 3 | 3;
const WARNING: u8 = 3 << 3 | 4;

/// Writes systemd units that follow udsd.toml. systemd runs it at boot and at each daemon-reload.
#[derive(Debug, Parser)]
#[command(name = "udsd-generator", version, about, max_term_width = 100)]
struct Arguments {
    /// Read this file instead of the daemon's, to see what would be written
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that is written to
    #[arg(value_name = "NORMAL-DIR")]
    normal: PathBuf,
    /// As systemd passes it; nothing is written there
    #[arg(value_name = "EARLY-DIR")]
    early: Option<PathBuf>,
    /// As systemd passes it; nothing is written there
    #[arg(value_name = "LATE-DIR")]
    late: Option<PathBuf>,
}

/// Which manager the units are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    System,
    User,
}

impl Scope {
    /// As the manager says (SYSTEMD_SCOPE, 251 and newer), else by who this process is.
    fn current() -> Self {
        match env::var_os("SYSTEMD_SCOPE") {
            Some(scope) if scope == "user" => Self::User,
            Some(scope) if scope == "system" => Self::System,
            _ if rustix::process::geteuid().is_root() => Self::System,
            _ => Self::User,
        }
    }

    /// The manager whose these directories are.
    fn of(dirs: &BaseDirs) -> Self {
        match *dirs == BaseDirs::system() {
            true => Self::System,
            false => Self::User,
        }
    }

    /// The folder below "systemd" that has this manager's units (`systemd.unit(5)`).
    fn folder(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// Its options, for whoever describes them.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the generator. The exit code is 1 after a fault: the manager logs it with the generator's
/// name and goes on.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => {
            // Where standard error is closed there is nobody to tell.
            let _ = message.print();
            return ExitCode::from(u8::from(message.use_stderr()));
        }
    };
    match generate(&arguments, Scope::current()) {
        Ok(said) if said.is_empty() => ExitCode::SUCCESS,
        Ok(said) | Err(said) => {
            report(ERROR, &said);
            ExitCode::FAILURE
        }
    }
}

/// Reads the file and writes the units. Returns lines for the log: the faults of the file, or why nothing was
/// written.
fn generate(arguments: &Arguments, scope: Scope) -> Result<String, String> {
    let dirs = match scope {
        Scope::System => BaseDirs::system(),
        Scope::User => BaseDirs::current(),
    };
    let file = arguments.config.as_deref().map(std::path::absolute);
    let file = file.transpose().map_err(|error| error.to_string())?;
    let maker = Maker::new(&dirs, scope);
    let followed = follow::read(file.as_deref(), &maker);
    // Without a file the embedded one serves, and the static units are made for it.
    if followed.is_built_in {
        return Ok(String::new());
    }
    write(&arguments.normal, &maker.entries(&followed))?;
    let sockets = followed.sockets.iter().map(|unit| &unit.socket);
    report(WARNING, &sysctl::warnings(sockets).join("\n"));
    let faults = followed.faults.iter().map(ToString::to_string);
    let instead = (!followed.instead.is_empty())
        .then(|| format!("until that is mended, {}", followed.instead));
    Ok(faults.chain(instead).collect::<Vec<_>>().join("\n"))
}

/// Whether units are made for this config: it is that of the embedded file, or of files that the generator
/// reads.
#[must_use]
pub fn is_followed(config: &Config, dirs: &BaseDirs) -> bool {
    let is_read = |file: &Path| {
        let is_drop_in = |folder: &PathBuf| file.parent() == Some(folder);
        dirs.config_file.as_deref() == Some(file) || dirs.drop_ins.iter().any(is_drop_in)
    };
    config.origin.files().all(is_read)
}

/// Whether the start of the service makes this folder (LogsDirectory= and the like).
#[must_use]
pub fn makes(folder: &Path, dirs: &BaseDirs) -> bool {
    units::own_folders(dirs).iter().any(|own| own == folder)
}

/// The user that the service runs as; `None` for a user's own.
#[must_use]
pub fn user(dirs: &BaseDirs) -> Option<&'static str> {
    (Scope::of(dirs) == Scope::System).then_some(units::OWNER)
}

/// What the file says and units cannot do; nothing where units do not follow the file.
#[must_use]
pub fn faults(config: &Config, dirs: &BaseDirs) -> Vec<Fault> {
    // The static units are made for the embedded file.
    if config.origin.is_built_in() || !is_followed(config, dirs) {
        return Vec::new();
    }
    let maker = Maker::new(dirs, Scope::of(dirs));
    let sockets = config.sockets.iter().enumerate();
    let units = sockets.map(|(i, socket)| maker.express(i, socket, config));
    units.flat_map(|(_, faults)| faults).collect()
}

/// Whether systemd runs here and has udsd's units for this manager.
#[must_use]
pub fn is_installed(dirs: &BaseDirs) -> bool {
    let unit = Path::new("systemd").join(Scope::of(dirs).folder());
    let unit = unit.join("udsd.service");
    // `sd_booted(3)`, and where units lie (`systemd.unit(5)`).
    Path::new("/run/systemd/system").is_dir()
        && ["/etc", "/usr/local/lib", "/usr/lib", "/lib"]
            .iter()
            .any(|folder| Path::new(folder).join(&unit).exists())
}

impl<'a> Maker<'a> {
    fn new(dirs: &'a BaseDirs, scope: Scope) -> Self {
        Self {
            dirs,
            scope,
            own_first: has_own_socket_unit(dirs, scope),
            version: manager::version(),
        }
    }
}

/// Whether the administrator has put a whole udsd.socket in place of the shipped one, or masked it:
/// such a unit is not to be changed by a drop-in. It lies in /etc or, for a user, also beside the
/// config file.
fn has_own_socket_unit(dirs: &BaseDirs, scope: Scope) -> bool {
    let own = dirs.config_file.as_deref();
    let own = own.and_then(|file| file.parent().and_then(Path::parent));
    let is_there = |folder: &Path| {
        let unit = folder.join("systemd").join(scope.folder());
        fs::symlink_metadata(unit.join(units::FIRST)).is_ok()
    };
    is_there(Path::new("/etc")) || own.is_some_and(is_there)
}

/// Writes all entries. Where one cannot be written, those before it are removed again: half of the units would
/// be neither the old state nor the new.
fn write(folder: &Path, entries: &[Entry]) -> Result<(), String> {
    for (i, entry) in entries.iter().enumerate() {
        let path = folder.join(&entry.path);
        if let Err(error) = write_entry(&path, &entry.content) {
            for entry in &entries[..=i] {
                let _ = fs::remove_file(folder.join(&entry.path));
            }
            return Err(format!("{}: cannot be written: {error}", path.display()));
        }
    }
    Ok(())
}

fn write_entry(path: &Path, content: &Content) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match content {
        Content::Text(text) => fs::write(path, text),
        Content::Link(target) => match symlink(target, path) {
            // A second run by hand.
            Err(_) if fs::read_link(path).is_ok_and(|there| there == *target) => Ok(()),
            linked => linked,
        },
    }
}

/// Writes each line to standard error or, where that leads nowhere, to the kernel's log, which the journal
/// reads.
fn report(priority: u8, lines: &str) {
    let mut kernel = if is_null(io::stderr()) {
        OpenOptions::new().write(true).open("/dev/kmsg").ok()
    } else {
        None
    };
    for line in lines.lines() {
        // Where neither can be written to, the exit code has to say it.
        let _ = match &mut kernel {
            Some(log) => log.write_all(kernel_line(priority, line).as_bytes()),
            None => writeln!(io::stderr(), "udsd-generator: {line}"),
        };
    }
}

/// Whether `fd` leads to /dev/null (`null(4)`), as that of PID 1 and its generators does.
fn is_null(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|there| {
        let kind = FileType::from_raw_mode(there.st_mode);
        kind.is_char_device() && there.st_rdev == makedev(1, 3)
    })
}

/// One write to /dev/kmsg is one entry, with its priority first.
fn kernel_line(priority: u8, line: &str) -> String {
    let mut end = line.len().min(KERNEL_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!(
        "<{priority}>udsd-generator[{}]: {}\n",
        process::id(),
        &line[..end]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_the_kernel_is_cut_between_characters() {
        for length in [0, 1, KERNEL_LINE - 1, KERNEL_LINE, KERNEL_LINE + 1] {
            let line = kernel_line(ERROR, &format!("{}µµ", "x".repeat(length)));
            assert!(line.starts_with("<27>udsd-generator["), "{line}");
            assert!(line.ends_with('\n') && line.len() < 992, "{}", line.len());
        }
    }
}
