//! `udsd --check`: finds what a start would refuse, or a reload of the running daemon, and changes nothing: it
//! makes no file, binds no socket and connects to none.
//!
//! What the running daemon holds is no fault: that of $MAINPID in ExecReload=, or one with the same arguments.
//! What another user than the service's cannot try is told in a note, and is no fault.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    mem,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    rc::Rc,
};

use clap::Parser;
use rustix::process::geteuid;
use serde_json::json;

use super::{Arguments, exposure, in_force, read, records::unwritable, sockets, units};
use crate::{
    config::{self, BaseDirs, Config, SocketType},
    datagram_socket::DatagramSocket,
    endpoint,
    error::{Fault, Faults},
    generator, lock, record, sys, users,
};

/// Prints the file as udsd understands it, or what is wrong with it; returns the exit code.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let mut check = Check::new(arguments);
    let checked = read(arguments, &check.dirs).and_then(|config| {
        if !arguments.text {
            check.examine(&config);
        }
        Faults::of_config(mem::take(&mut check.faults)).map(|()| config)
    });
    // Where standard error is closed, the exit code has to do.
    for note in &check.notes {
        let _ = writeln!(io::stderr(), "udsd: note: {note}");
    }
    let (code, out) = match checked {
        Ok(_) if arguments.json => (0, "[]\n".into()),
        Ok(config) => (0, config.to_toml()),
        Err(fault) if arguments.json => (fault.exit_code(), as_json(fault)),
        Err(fault) => {
            for line in fault.to_string().lines() {
                let _ = writeln!(io::stderr(), "udsd: {line}");
            }
            return fault.exit_code().into();
        }
    };
    match io::stdout().write_all(out.as_bytes()) {
        Err(_) if code == 0 => ExitCode::FAILURE,
        _ => code.into(),
    }
}

/// What is wrong with the file, as this daemon sees it before it reads that again.
pub(super) fn before_reload(arguments: &Arguments) -> Vec<Fault> {
    let mut check = Check::new(arguments);
    check.daemon = Some(process::id().cast_signed());
    match read(arguments, &check.dirs) {
        Ok(config) => check.examine(&config),
        Err(faults) => return faults.list(),
    }
    check.faults
}

/// A list of objects, one for each fault.
fn as_json(faults: Faults) -> String {
    format!("{:#}\n", json!(faults.list()))
}

struct Check<'a> {
    arguments: &'a Arguments,
    dirs: BaseDirs,
    /// The pid of the daemon whose ExecReload= this is.
    daemon: Option<i32>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        let pid = env::var("MAINPID").ok();
        Self {
            arguments,
            dirs: BaseDirs::current(),
            daemon: pid.and_then(|pid| pid.parse().ok()),
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn examine(&mut self, config: &Config) {
        self.notes.extend(exposure::warnings(config));
        // The file in force in the daemon that is to be reloaded, if units make its sockets.
        let serving = self.daemon.and_then(|_| in_force::read(&self.dirs));
        let has_units = match self.daemon {
            Some(_) => serving.is_some(),
            None => generator::is_installed(&self.dirs),
        };
        let is_managed = has_units && generator::is_followed(config, &self.dirs);
        self.take(users::check(config), config, "");
        if is_managed {
            self.faults.extend(generator::faults(config, &self.dirs));
        }
        if let Some(serving) = &serving {
            let judged = units::leave_to_units(serving, config);
            let judged = judged.map(|notes| self.notes.extend(notes));
            self.take(judged, config, "");
        }
        for socket in &config.sockets {
            let key = format!("socket.{}.path", socket.name);
            self.take(
                endpoint::packet_sizes(socket, config).map(|_| ()),
                config,
                &key,
            );
            // Otherwise the units make the socket.
            if serving.is_none() && !is_managed {
                self.look_at_path(socket, config, &key);
            }
        }
        self.records(config, is_managed);
        config.origin.sort(&mut self.faults);
    }

    fn look_at_path(&mut self, socket: &config::Socket, config: &Config, key: &str) {
        match endpoint::look(socket, config, &|pid, lock| self.is_own(pid, lock)) {
            // Before a reload the daemon itself serves it: the manager passed it.
            Ok(true) if self.daemon.is_some() => {}
            Ok(true) => self.notes.push(format!(
                "{key}: {} is served by somebody: right where a service manager passes it, else a start will refuse it",
                socket.address
            )),
            Ok(false) => self.take(longest(socket, config), config, key),
            Err(fault) => self.take(Err(fault), config, key),
        }
    }

    /// `key` is at fault where the fault itself names no key.
    fn take(&mut self, checked: Result<(), Faults>, config: &Config, key: &str) {
        match checked {
            Ok(()) => {}
            Err(Faults::Config(faults)) => self.faults.extend(faults),
            Err(Faults::Socket { fault, .. }) => self.faults.push(config.fault(key, fault)),
            Err(other) => self.faults.push(config.fault(key, other.to_string())),
        }
    }

    fn records(&mut self, config: &Config, is_managed: bool) {
        let service = match self.daemon {
            None if is_managed => generator::user(&self.dirs),
            _ => None,
        };
        let is_other = |user: &&str| {
            let uid = sys::user_id(user).ok().flatten();
            uid != Some(geteuid().as_raw())
        };
        let other = service.filter(is_other);
        let mut untried = Vec::new();
        for (i, socket) in config.sockets.iter().enumerate() {
            let Some(file) = socket.record.as_ref().and_then(|keys| keys.file.as_ref()) else {
                continue;
            };
            if config.shares_record(i).is_some() {
                continue;
            }
            let key = format!("socket.{}.record.file", socket.name);
            // The service sees other folders there than this process.
            if self.faults.iter().any(|fault| fault.key == key) {
                continue;
            }
            // The service makes at its start what is missing there.
            let is_made = |folder: &Path| {
                is_managed && generator::makes(folder, &self.dirs) && !folder.exists()
            };
            if file.parent().is_some_and(is_made) {
                continue;
            }
            let looked =
                record::check_path(file, other.is_none(), &|pid, lock| self.is_own(pid, lock));
            if let Err(why) = looked {
                let fatal = unwritable(config, socket, &file.display().to_string(), why);
                self.take(Err(fatal), config, &key);
            } else if other.is_some() {
                untried.push(file.display().to_string());
            }
        }
        if let Some(user) = other
            && !untried.is_empty()
        {
            let uid = geteuid().as_raw();
            self.notes.push(format!(
                "the service runs as user {user}, and this check as uid {uid}: whether it may write {} was not tried; for that, run it as that user: runuser -u {user} -- env -u XDG_RUNTIME_DIR RUNTIME_DIRECTORY=/run/udsd udsd --check",
                untried.join(", ")
            ));
        }
    }

    /// Whether a lock file is that of the daemon that is to be reloaded, or of one that serves the same.
    fn is_own(&self, pid: Option<i32>, lock: &File) -> bool {
        match self.daemon {
            // Its pid is not in the file if the disk was full when it took the lock.
            Some(daemon) => pid == Some(daemon) || lock::has_open(daemon, lock),
            None => pid.is_some_and(|pid| is_same(pid, self.arguments)),
        }
    }
}

/// Checks that udsd can send back the longest datagram that the file lets in.
fn longest(socket: &config::Socket, config: &Config) -> Result<(), Faults> {
    if socket.kind != SocketType::Datagram {
        return Ok(());
    }
    let made =
        UnixDatagram::unbound().and_then(|fd| DatagramSocket::new(Rc::new(fd.into()), false));
    sockets::check_longest(config, socket, &made.map_err(sockets::not_configured)?)
}

/// Whether process `pid` is a udsd that was started to serve the same.
fn is_same(pid: i32, arguments: &Arguments) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
    let line = read("cmdline");
    let words = line.strip_suffix(b"\0").unwrap_or(&line);
    let words = words.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let served = |arguments: &Arguments, folder: PathBuf| {
        let file = arguments.config.as_ref().map(|file| folder.join(file));
        let socket = arguments.socket.as_ref();
        let socket = socket.map(|path| match path.starts_with(['@', '%']) {
            true => path.into(),
            false => folder.join(path),
        });
        (file, socket)
    };
    let here = env::current_dir().unwrap_or_default();
    let folder = fs::read_link(process.join("cwd")).unwrap_or_default();
    read("comm") == b"udsd\n"
        && Arguments::try_parse_from(words)
            .is_ok_and(|there| served(&there, folder) == served(arguments, here))
}
