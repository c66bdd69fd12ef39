//! The control socket of a daemon, as a command asks there: calls, their replies one by one, and what to say where
//! there are none. Varlink's messages are cut by NUL; `crate::control` has their forms.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    MESSAGE_LIMIT, Options,
    daemon::{Absence, Daemon},
    failure::{Failure, reason},
    messages::Messages,
};
use crate::{
    config::CONTROL_SOCKET,
    control::{
        self, ReloadFailed, Status,
        varlink::{Call, Reply},
    },
    error::Fault,
    frame::Framing,
};

/// How long an answer may take, and how long it may take to be let in where many ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may take: for that alone a daemon reads the disk.
const PATIENCE_WITH_DISK: Duration = Duration::from_secs(60);

/// Who may ask, and what to do about it.
const WHO: &str = "root, udsd's own user and those of daemon.control-users and daemon.control-groups may ask: \
                   try sudo, or have one of those keys admit you";

/// A connection to a control socket.
pub(crate) struct Control {
    socket: UnixStream,
    replies: Messages<UnixStream>,
    address: String,
    /// How long the answer that is waited for may take.
    patience: Duration,
    has_answered: bool,
}

/// Why a call did not return what it should.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The daemon's error: its name, and what it says.
    Error(String, Value),
    /// There was no answer.
    Failed(Failure),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Error(name, parameters) => Failure::Told(sentence(&name, parameters)),
            Unanswered::Failed(failure) => failure,
        }
    }
}

/// Who listens at the control sockets of the daemons that `options` allow: the first that does, or what is known
/// of each. Starts nothing: the daemon alone makes that socket.
pub(crate) fn find(options: &Options) -> Result<Result<Control, Vec<Absence>>, Failure> {
    let mut absent = Vec::new();
    for daemon in Daemon::all(options)? {
        let (control, fault) = daemon.control().map_err(crate::error::Faults::from)?;
        let connected = control.as_deref().map(Control::connect);
        match connected {
            Some(Ok(mut conn)) => {
                let file = daemon.to_be_served(fault.as_ref());
                if file.is_none_or(|file| conn.serves(file)) {
                    return Ok(Ok(conn));
                }
                absent.push(daemon.absence(control, fault));
            }
            Some(Err(error)) if !is_absent(&error) => {
                let path = control.unwrap_or_default();
                return Err(refusal(&path, &error));
            }
            None | Some(Err(_)) => absent.push(daemon.absence(control, fault)),
        }
    }
    Ok(Err(absent))
}

/// Connects to the control socket of the first daemon that runs.
pub(crate) fn connect(options: &Options) -> Result<Control, Failure> {
    find(options)?.map_err(failure)
}

/// For a command that can do nothing without a daemon.
pub(crate) fn failure(absent: Vec<Absence>) -> Failure {
    let texts: Vec<String> = absent.into_iter().map(|absence| absence.text).collect();
    Failure::Told(texts.join("\nudsc: "))
}

fn is_absent(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::NotADirectory,
        ErrorKind::ConnectionRefused,
    ];
    kinds.contains(&error.kind())
}

fn refusal(path: &Path, error: &io::Error) -> Failure {
    let why = match error.kind() {
        ErrorKind::PermissionDenied => format!("{} ({WHO})", reason(error)),
        ErrorKind::WouldBlock => {
            let seconds = PATIENCE.as_secs();
            format!("udsd lets nobody in for {seconds}s; it hangs, or is stopped")
        }
        _ => reason(error),
    };
    Failure::Told(format!("cannot connect to {}: {why}", path.display()))
}

impl Control {
    fn connect(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let socket = UnixStream::from(socket);
        // Of connecting too (`unix_stream_connect`): a daemon that hangs accepts nobody.
        socket.set_write_timeout(Some(PATIENCE))?;
        net::connect(&socket, &address)?;
        let address = path.display().to_string();
        let replies = Messages::new(socket.try_clone()?, Framing::Nul, MESSAGE_LIMIT);
        Ok(Self {
            socket,
            replies,
            address,
            patience: PATIENCE,
            has_answered: false,
        })
    }

    /// Whether the daemon says that it serves `file`.
    fn serves(&mut self, file: &Path) -> bool {
        let Ok(file) = fs::canonicalize(file) else {
            return false;
        };
        let status: Result<Status, _> = self.call("Status", Value::Null);
        let is_it = |served: &String| fs::canonicalize(served).is_ok_and(|served| served == file);
        status.is_ok_and(|status| status.config.iter().any(is_it))
    }

    /// Calls a method that replies once.
    pub(crate) fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<T, Unanswered> {
        self.send(method, parameters, false)?;
        let reply = self.reply(Some(PATIENCE))?;
        self.read(reply.parameters)
    }

    /// As `call`, of a method that may wait for the disk.
    pub(crate) fn call_slow(&mut self, method: &str) -> Result<(), Unanswered> {
        self.send(method, Value::Null, false)?;
        self.reply(Some(PATIENCE_WITH_DISK)).map(|_| ())
    }

    /// Calls a method that replies in parts, one soon after the other.
    pub(crate) fn call_parts<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<Vec<T>, Unanswered> {
        self.send(method, parameters, true)?;
        let mut parts = Vec::new();
        loop {
            let reply = self.reply(Some(PATIENCE))?;
            parts.push(self.read(reply.parameters)?);
            if !reply.continues {
                return Ok(parts);
            }
        }
    }

    /// Calls a method that replies whenever there is something. Gives each reply to `take`, until that has enough;
    /// the end of the replies is a failure.
    pub(crate) fn follow<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: Value,
        mut take: impl FnMut(T) -> Result<bool, Failure>,
    ) -> Result<(), Unanswered> {
        self.send(method, parameters, true)?;
        // The first says that it has begun.
        let mut patience = Some(PATIENCE);
        loop {
            let reply = self.reply(patience)?;
            patience = None;
            if !take(self.read(reply.parameters)?).map_err(Unanswered::Failed)? {
                return Ok(());
            }
            if !reply.continues {
                return Err(self.failed("no more comes: the socket is gone, or udsd stops"));
            }
        }
    }

    fn send(&mut self, method: &str, parameters: Value, more: bool) -> Result<(), Unanswered> {
        let method = format!("{}.{method}", control::NAME);
        let mut call = Call::new(&method, parameters);
        call.more = more;
        match self.socket.write_all(&call.encode()) {
            // Who is refused is not read from, and may have been told why.
            Err(error) if is_end(error.kind()) => Ok(()),
            sent => sent.map_err(|error| self.broken(&error)),
        }
    }

    fn reply(&mut self, patience: Option<Duration>) -> Result<Reply, Unanswered> {
        self.patience = patience.unwrap_or_default();
        let set = self.socket.set_read_timeout(patience);
        set.map_err(|error| self.broken(&error))?;
        let reply = loop {
            match self.replies.at_hand() {
                Ok(Some(message)) => {
                    let message = message.strip_suffix(b"\0").unwrap_or(message);
                    break serde_json::from_slice::<Reply>(message);
                }
                Ok(None) => {}
                Err(why) => return Err(Unanswered::Failed(Failure::Told(why))),
            }
            let filled = self.replies.fill();
            if filled.map_err(|error| self.broken(&error))? == 0 {
                return Err(self.broken(&ErrorKind::UnexpectedEof.into()));
            }
        };
        let reply = reply.map_err(|error| self.strange(&error))?;
        self.has_answered = true;
        match reply.error {
            Some(name) => Err(Unanswered::Error(name, reply.parameters)),
            None => Ok(reply),
        }
    }

    fn read<T: DeserializeOwned>(&self, parameters: Value) -> Result<T, Unanswered> {
        serde_json::from_value(parameters).map_err(|error| self.strange(&error))
    }

    fn strange(&self, error: &serde_json::Error) -> Unanswered {
        self.failed(&format!(
            "an answer that this udsc does not understand ({error}): is it of udsd's version?"
        ))
    }

    fn broken(&self, error: &io::Error) -> Unanswered {
        let text = match error.kind() {
            ErrorKind::WouldBlock => {
                let seconds = self.patience.as_secs();
                format!(
                    "udsd does not answer: nothing came for {seconds}s; it hangs, or is stopped"
                )
            }
            // Who may not ask is let go at once.
            kind if is_end(kind) => match self.has_answered {
                true => "udsd closed the connection; its log says why".into(),
                false => format!("udsd closed the connection without an answer: {WHO}"),
            },
            _ => reason(error),
        };
        self.failed(&text)
    }

    fn failed(&self, text: &str) -> Unanswered {
        Unanswered::Failed(Failure::Told(format!("{}: {text}", self.address)))
    }
}

/// Whether that is how the end of a connection shows.
fn is_end(kind: ErrorKind) -> bool {
    let kinds = [
        ErrorKind::UnexpectedEof,
        ErrorKind::BrokenPipe,
        ErrorKind::ConnectionReset,
    ];
    kinds.contains(&kind)
}

/// An error of the daemon, as a person says it.
fn sentence(name: &str, parameters: Value) -> String {
    let (interface, short) = name.rsplit_once('.').unwrap_or(("", name));
    let of = |key: &str| match &parameters[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (interface, short) {
        (control::NAME, "Refused") => format!(
            "udsd lets nobody more in to ask: {}; try again in a minute, when it has let go of who asks nothing, or find who asks with udsc -s {CONTROL_SOCKET} clients, as another user who may ask, and end some with udsc disconnect ID, as root",
            of("why")
        ),
        (control::NAME, "NoSuchSocket") => format!("udsd has no socket {}", of("name")),
        (control::NAME, "NoSuchClient") => {
            format!("there is no client {}: it may have left", of("id"))
        }
        (control::NAME, "NoUnits") => format!(
            "the units of those who send to socket {} are not known, for they send datagrams: leave out --unit",
            of("name")
        ),
        (control::NAME, "ReloadFailed") => {
            let faults = faults(parameters);
            let mut lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            lines.push("udsd did not reload, and serves as before".into());
            lines.join("\nudsc: ")
        }
        (_, "PermissionDenied") => {
            "udsd does not let you: only root and its own user may disconnect, reload and tap; try sudo"
                .into()
        }
        (_, "MethodNotFound" | "InterfaceNotFound" | "MethodNotImplemented") => {
            "udsd does not know this command: it may be older than this udsc".into()
        }
        _ => format!("udsd says {name} {parameters}"),
    }
}

/// What a reload found wrong.
pub(crate) fn faults(parameters: Value) -> Vec<Fault> {
    serde_json::from_value::<ReloadFailed>(parameters).map_or_else(|_| Vec::new(), |it| it.faults)
}
