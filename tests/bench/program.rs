//! The programs that are measured, and how each is started for one kind of work.

use crate::server::Server;
use crate::setup::{Folder, Outcome};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

pub(crate) enum Program {
    Floor,
    Daemon(PathBuf),
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

    pub(crate) fn name(&self) -> String {
        match self {
            Program::Floor => "one thread, epoll, recv, send".to_owned(),
            Program::Daemon(path) => path.display().to_string(),
        }
    }

    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        match self {
            Program::Floor => Ok(env::current_exe()?),
            Program::Daemon(path) => Ok(path.clone()),
        }
    }

    pub(crate) fn start(&self) -> Outcome<Server> {
        Server::start(|folder| {
            let mut command = Command::new(self.path()?);
            match self {
                Program::Floor => command.arg("--floor").arg(folder.socket()),
                Program::Daemon(_) => command
                    .arg("--socket")
                    .arg(folder.socket())
                    .args(["--service", "echo"]),
            };
            Ok(command)
        })
    }

    /// For more clients than one user may have by default.
    pub(crate) fn start_for(&self, clients: usize) -> Outcome<Server> {
        if matches!(self, Program::Floor) {
            return self.start();
        }
        Server::start(|folder| {
            let mut command = Command::new(self.path()?);
            command.arg("--config").arg(config(folder, clients)?);
            Ok(command)
        })
    }
}

fn config(folder: &Folder, clients: usize) -> Outcome<PathBuf> {
    let path = folder.path().join("udsd.toml");
    let text = format!(
        "[daemon]\ncontrol = \"\"\n\n[limits]\nclients = {clients}\nclients-per-user = {clients}\n\n\
         [socket.bench]\npath = \"{}\"\nservice = \"echo\"\n",
        folder.socket().display()
    );
    fs::write(&path, text)?;
    Ok(path)
}
