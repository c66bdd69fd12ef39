//! The programs that are measured, and how each is started for one kind of work.

use crate::server::Server;
use crate::setup::{Folder, Outcome};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

/// What a server is measured at. Its name is the argument that a floor is started with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// What a client sends goes back to it.
    Echo,
    /// So do lines, from one process to the next.
    Restart,
    /// Lines go to all other clients.
    Relay,
    /// Lines go to the file `folder.record()`.
    Collect,
    /// So do datagrams.
    CollectDatagrams,
    /// Lines go to the file, and each is answered once the disk has it.
    Store,
}

impl Work {
    pub(crate) const ALL: [Work; 6] = [
        Work::Echo,
        Work::Restart,
        Work::Relay,
        Work::Collect,
        Work::CollectDatagrams,
        Work::Store,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Echo => "echo",
            Work::Restart => "restart",
            Work::Relay => "relay",
            Work::Collect => "collect",
            Work::CollectDatagrams => "datagrams",
            Work::Store => "store",
        }
    }

    /// The keys of udsd's socket. A queue that is full holds nobody up in these loads.
    fn keys(self) -> &'static str {
        match self {
            Work::Echo => "service = \"echo\"\n",
            Work::Restart => "service = \"echo\"\nframing = \"lines\"\n",
            Work::Relay => "service = \"relay\"\nframing = \"lines\"\n",
            Work::Collect => "service = \"collect\"\nframing = \"lines\"\n",
            Work::CollectDatagrams => {
                "type = \"datagram\"\nservice = \"collect\"\nframing = \"syslog\"\n"
            }
            Work::Store => "service = \"collect\"\nframing = \"lines\"\nack = true\n",
        }
    }

    /// The keys of the socket's record beside its file, where it has one.
    fn record_keys(self) -> Option<&'static str> {
        match self {
            Work::Collect | Work::CollectDatagrams => Some(""),
            Work::Store => Some("sync = true\n"),
            Work::Echo | Work::Restart | Work::Relay => None,
        }
    }
}

pub(crate) enum Program {
    Floor,
    Daemon(PathBuf),
    /// A peer of udsd's relay.
    Redis,
    /// A peer of udsd's records.
    Rsyslog,
}

impl Program {
    pub(crate) const FLOOR: &str = "floor";

    pub(crate) fn from_env(name: &str, default: PathBuf) -> Program {
        let path = env::var_os(name).map_or(default, PathBuf::from);
        if path.as_os_str() == Program::FLOOR {
            Program::Floor
        } else {
            Program::Daemon(path)
        }
    }

    /// Redis, and its version, where it is installed.
    pub(crate) fn redis() -> Option<(Program, String)> {
        let text = version("redis-server", "--version")?;
        let version = text
            .split_whitespace()
            .find(|word| word.starts_with("v="))?;
        Some((Program::Redis, version[2..].to_owned()))
    }

    /// rsyslog, and its version, where it is installed.
    pub(crate) fn rsyslog() -> Option<(Program, String)> {
        let text = version("rsyslogd", "-v")?;
        let version = text.split_whitespace().nth(1)?;
        Some((Program::Rsyslog, version.to_owned()))
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Program::Floor => "one thread, epoll, recv, send".to_owned(),
            Program::Daemon(path) => path.display().to_string(),
            Program::Redis => "redis-server".to_owned(),
            Program::Rsyslog => "rsyslogd".to_owned(),
        }
    }

    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        match self {
            Program::Floor => Ok(env::current_exe()?),
            Program::Daemon(path) => Ok(path.clone()),
            Program::Redis => Ok("redis-server".into()),
            Program::Rsyslog => Ok("rsyslogd".into()),
        }
    }

    pub(crate) fn start(&self, work: Work) -> Outcome<Server> {
        self.start_for(work, 0)
    }

    /// For `clients`, which may be more than one user may have by default (0: that many).
    pub(crate) fn start_for(&self, work: Work, clients: usize) -> Outcome<Server> {
        Server::start(|folder| self.command(work, clients, folder))
    }

    /// What starts it in `folder`.
    pub(crate) fn command(&self, work: Work, clients: usize, folder: &Folder) -> Outcome<Command> {
        let mut command = Command::new(self.path()?);
        match self {
            Program::Floor => command
                .args(["--floor", work.name()])
                .arg(folder.socket())
                .arg(folder.record()),
            Program::Daemon(_) if work == Work::Echo && clients == 0 => command
                .arg("--socket")
                .arg(folder.socket())
                .args(["--service", "echo"]),
            Program::Daemon(_) => command.arg("--config").arg(config(folder, work, clients)?),
            // No snapshots, no log, and no end for a subscriber that is behind.
            Program::Redis => command
                .args(["--port", "0", "--supervised", "systemd", "--save", ""])
                .args(["--appendonly", "no", "--loglevel", "warning"])
                .args(["--client-output-buffer-limit", "pubsub 0 0 0"])
                .arg("--unixsocket")
                .arg(folder.socket())
                .arg("--dir")
                .arg(folder.path()),
            Program::Rsyslog => command
                .args(["-n", "-f"])
                .arg(rsyslog_config(folder, work)?)
                .arg("-i")
                .arg(folder.path().join("pid")),
        };
        Ok(command)
    }
}

/// A config file for udsd; `clients` of one user, 0 for the default.
fn config(folder: &Folder, work: Work, clients: usize) -> Outcome<PathBuf> {
    let path = folder.path().join("udsd.toml");
    let mut text = format!(
        "[daemon]\ncontrol = \"\"\n\n[limits]\nclients = {clients}\nclients-per-user = {clients}\n\n\
         [socket.bench]\npath = \"{}\"\n{}",
        folder.socket().display(),
        work.keys()
    );
    if let Some(keys) = work.record_keys() {
        text += &format!(
            "\n[socket.bench.record]\nfile = \"{}\"\n{keys}",
            folder.record().display()
        );
    }
    fs::write(&path, text)?;
    Ok(path)
}

/// What a program says of its version.
fn version(program: &str, option: &str) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.arg(option).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A config file for rsyslog by which it does as udsd does: JSON lines with the sender, no limit on rates, nothing
/// left out.
fn rsyslog_config(folder: &Folder, work: Work) -> Outcome<PathBuf> {
    let path = folder.path().join("rsyslog.conf");
    let socket = folder.socket();
    let input = match work {
        Work::CollectDatagrams => format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\" Annotate=\"on\" ParseTrusted=\"on\" RateLimit.Interval=\"0\" UseSpecialParser=\"on\")\n",
            socket.display()
        ),
        _ => format!(
            "module(load=\"imptcp\")\ninput(type=\"imptcp\" path=\"{}\" unlink=\"on\")\n",
            socket.display()
        ),
    };
    let text = format!(
        "global(workDirectory=\"{}\")\n{input}\
         template(name=\"json\" type=\"list\" option.jsonf=\"on\") {{\n\
         property(outname=\"time\" name=\"timegenerated\" dateFormat=\"rfc3339\" format=\"jsonf\")\n\
         property(outname=\"pid\" name=\"$!pid\" format=\"jsonf\")\n\
         property(outname=\"uid\" name=\"$!uid\" format=\"jsonf\")\n\
         property(outname=\"gid\" name=\"$!gid\" format=\"jsonf\")\n\
         property(outname=\"message\" name=\"rawmsg\" format=\"jsonf\")\n}}\n\
         action(type=\"omfile\" file=\"{}\" template=\"json\")\n",
        folder.path().display(),
        folder.record().display()
    );
    fs::write(&path, text)?;
    // So that whoever waits for it finds it before the first line.
    fs::write(folder.record(), "")?;
    Ok(path)
}
