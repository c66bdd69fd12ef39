//! Answers the calls of the control socket's clients: from what the hub and this process know, each in the turn in
//! which it comes. An answer of many parts goes on as its client reads, a part a turn.

mod clients;

use std::{
    borrow::Cow,
    collections::VecDeque,
    process,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::geteuid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Phase, Server};
use crate::{
    config::{Address, CONTROL_SOCKET, SocketType},
    control::{
        self, INTERFACE, Limits, NAME, ReloadFailed, Sockets, Status,
        varlink::{Call, Reply},
    },
    endpoint::Endpoint,
    error::Fault,
    hub::{Now, Socket, Tapped, Wanted},
    peer::ClientId,
    record::Statistics,
    service::PendingCall,
};

/// Bytes of answers that all callers together get in a turn of the event loop: the others wait meanwhile. Only the
/// last answer may go beyond them.
const ANSWERS: usize = 32 << 10;

/// What becomes of a call.
struct Answer {
    /// A part where others are to follow, or all; `None` where there is nothing yet.
    reply: Option<Reply>,
    /// What was done for it counts as much as so many bytes of a reply.
    work: usize,
    /// Clients with keys from this one on are still to be told of.
    reached: usize,
}

const LATER: Answer = Answer {
    reply: None,
    work: 0,
    reached: 0,
};

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer {
            reply: Some(reply),
            ..LATER
        }
    }
}

/// The interface that every Varlink service has.
const SERVICE: &str = "org.varlink.service";
const SERVICE_INTERFACE: &str = include_str!("../control/org.varlink.service.varlink");

impl Server {
    /// Answers calls, a part of each in turn, as far as their clients read.
    pub(super) fn answer(&mut self, now: Now) {
        let mut left = ANSWERS;
        let mut turns = VecDeque::from(self.hub.take_calls());
        while left > 0
            && let Some(mut pending) = turns.pop_front()
        {
            if !self.hub.has_room(&pending) {
                self.hub.put_back(pending);
                continue;
            }
            let answer = self.answer_one(&pending, now);
            let Answer {
                reply,
                work,
                reached,
            } = answer.unwrap_or_else(Answer::from);
            pending.has_begun = true;
            left = left.saturating_sub(work);
            let Some(reply) = reply else {
                pending.waits = true;
                self.hub.put_back(pending);
                continue;
            };
            pending.reached = reached;
            left = left.saturating_sub(self.hub.reply(&pending, &reply, now).saturating_sub(work));
            if reply.continues {
                turns.push_back(pending);
            }
        }
        for pending in turns {
            self.hub.put_back(pending);
        }
    }

    /// The answer, or the error that the client gets.
    fn answer_one(&mut self, pending: &PendingCall, now: Now) -> Result<Answer, Reply> {
        let call = pending.call.as_ref().map_err(Clone::clone)?;
        let (interface, method) = call.method.rsplit_once('.').unwrap_or_default();
        match (interface, method) {
            (SERVICE, "GetInfo") => expect_none(call).map(|()| info().into()),
            (SERVICE, "GetInterfaceDescription") => description(call),
            (NAME, "Status") => expect_none(call).map(|()| self.tell_status(now).into()),
            (NAME, "Sockets") => self.tell_sockets(call, now),
            (NAME, "Clients") => self.tell_clients(pending, call, now),
            (NAME, "Disconnect") => self.disconnect(pending, call, now),
            (NAME, "Reload") => self.reload(pending, call),
            (NAME, "Tap") => self.tap(pending, call),
            (NAME, "Metrics") => expect_none(call).map(|()| self.tell_metrics(now).into()),
            (SERVICE | NAME, _) => Err(Reply::error(
                "org.varlink.service.MethodNotFound",
                json!({ "method": call.method }),
            )),
            _ => Err(Reply::error(
                "org.varlink.service.InterfaceNotFound",
                json!({ "interface": interface }),
            )),
        }
    }

    fn tell_status(&self, now: Now) -> Reply {
        let limits = self.hub.limits();
        let (clients, clients_per_user, queue_per_user, queue_total) = limits.numbers();
        let files = self.settings.files.iter();
        Reply::last(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: process::id(),
            age: seconds(self.started.instant, now),
            config: files.map(|file| file.display().to_string()).collect(),
            problem: self.unchanged.clone(),
            sockets: self.serving().count(),
            clients: self.hub.present(),
            held: self.hub.held(),
            limits: Limits {
                clients,
                clients_per_user,
                queue_per_user,
                queue_total,
            },
        })
    }

    fn tell_sockets(&self, call: &Call, now: Now) -> Result<Answer, Reply> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parameters {
            name: Option<String>,
        }
        let Parameters { name } = call.parameters()?;
        let all = self.hub.sockets().iter();
        let is_meant = |of: &Socket| name.as_ref().is_none_or(|name| name == of.name());
        let mut meant: Vec<(usize, &Socket)> = all.filter(|(_, of)| is_meant(of)).collect();
        // Behind those of the file.
        meant.sort_by_key(|(_, of)| of.is_control());
        let told = meant
            .iter()
            .map(|(key, of)| self.tell_socket(*key, of, now));
        let sockets: Vec<control::Socket> = told.collect();
        match name {
            Some(name) if sockets.is_empty() => Err(no_such_socket(&name)),
            _ => Ok(Reply::last(Sockets { sockets }).into()),
        }
    }

    fn tell_socket(&self, key: usize, socket: &Socket, now: Now) -> control::Socket {
        let nature = socket.nature();
        let counters = socket.counters().rows();
        let endpoint = self.endpoint(key);
        let address = endpoint.and_then(Endpoint::address);
        control::Socket {
            name: socket.name().into(),
            path: address.as_ref().map(Address::to_string),
            kind: nature.kind.word().into(),
            service: nature.service.word().into(),
            framing: nature.framing.to_string(),
            inherited: endpoint.is_some_and(Endpoint::is_inherited),
            draining: socket.is_draining(),
            clients: socket.present(),
            senders_waiting: socket.wait_queue().waiting().count(),
            counters: counters.map(|row| (row.name.into(), row.value)).collect(),
            record: self
                .record_statistics(key)
                .map(|of| tell_record(of, socket, now)),
            last: socket
                .last_lines()
                .map(|line| tell_line(line, now))
                .collect(),
        }
    }

    fn disconnect(
        &mut self,
        pending: &PendingCall,
        call: &Call,
        now: Now,
    ) -> Result<Answer, Reply> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parameters {
            id: u64,
        }
        self.may_act(pending)?;
        let Parameters { id } = call.parameters()?;
        if self.hub.disconnect(ClientId(id), now) {
            return Ok(Reply::last(json!({})).into());
        }
        Err(Reply::error(
            "dev.udsd.Daemon.NoSuchClient",
            json!({ "id": id }),
        ))
    }

    /// The file is read again at the end of this turn. `reloaded` answers.
    fn reload(&mut self, pending: &PendingCall, call: &Call) -> Result<Answer, Reply> {
        self.may_act(pending)?;
        expect_none(call)?;
        if self.stops() {
            let fault = Fault::of_file(None, None, "the daemon stops: nothing is reloaded");
            return Err(reload_failed(&[fault]));
        }
        if matches!(self.phase, Phase::Serving) {
            self.phase = Phase::Reloading;
        }
        Ok(LATER)
    }

    /// Answers those who asked for the reload that has ended with these faults, or with none.
    pub fn reloaded(&mut self, faults: &[Fault]) {
        let now = Now::read();
        let reply = match faults {
            [] => Reply::last(json!({})),
            faults => reload_failed(faults),
        };
        for pending in self.hub.take_begun("dev.udsd.Daemon.Reload") {
            _ = self.hub.reply(&pending, &reply, now);
        }
    }

    /// One message that passed on a socket. The tap is opened first and, after a restart, anew. Who only asks gets
    /// none: it may not be meant to enter that socket.
    fn tap(&mut self, pending: &PendingCall, call: &Call) -> Result<Answer, Reply> {
        self.may_act(pending)?;
        expect_more(call)?;
        let nothing = |missed| control::Tapped {
            message: None,
            missed,
        };
        if let Some(next) = self.hub.next_tapped(pending) {
            let next = next.map_or_else(nothing, tell_message);
            return Ok(Reply::more(next).into());
        }
        if self.stops() {
            let missed = self.hub.close_taps(pending.client);
            return Ok(Reply::last(nothing(missed)).into());
        }
        self.open_tap(pending, call)?;
        match pending.has_begun {
            false => Ok(Reply::more(nothing(0)).into()),
            true => Ok(LATER),
        }
    }

    fn open_tap(&mut self, pending: &PendingCall, call: &Call) -> Result<(), Reply> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parameters {
            socket: String,
            uid: Option<u32>,
            unit: Option<String>,
        }
        let Parameters { socket, uid, unit } = call.parameters()?;
        if !self.hub.has_tap(pending.client) {
            let key = self.key(&socket).filter(|_| socket != CONTROL_SOCKET);
            let key = key.ok_or_else(|| no_such_socket(&socket))?;
            let kind = self.hub.sockets()[key].nature().kind;
            if unit.is_some() && kind == SocketType::Datagram {
                let name = json!({ "name": socket });
                return Err(Reply::error("dev.udsd.Daemon.NoUnits", name));
            }
            self.hub.open_tap(pending, key, Wanted { uid, unit });
            self.note_time();
        }
        Ok(())
    }

    /// Opens the taps that an earlier process had, also of those who do not read: nothing has passed yet.
    pub(super) fn reopen_taps(&mut self) {
        for pending in self.hub.take_begun("dev.udsd.Daemon.Tap") {
            if let Ok(call) = &pending.call {
                // What is in its way it is told when it is answered.
                let _ = self.open_tap(&pending, call);
            }
            self.hub.put_back(pending);
        }
    }

    /// Root and the daemon's own user act; others only ask.
    fn may_act(&self, pending: &PendingCall) -> Result<(), Reply> {
        let caller = self.hub.caller(pending);
        match caller.is_some_and(|peer| [0, geteuid().as_raw()].contains(&peer.uid)) {
            true => Ok(()),
            false => Err(Reply::error(
                "org.varlink.service.PermissionDenied",
                json!({}),
            )),
        }
    }
}

fn tell_record(of: Statistics, socket: &Socket, now: Now) -> control::Record {
    let age = |at: SystemTime| {
        now.wall
            .duration_since(at)
            .unwrap_or_default()
            .as_secs_f64()
    };
    let (error_at, error) = of.last_error.unzip();
    control::Record {
        name: of.name,
        open: of.is_open,
        seq: socket.record().map_or(0, |of| of.seq()),
        messages_written: of.written.messages,
        bytes_written: of.written.bytes,
        segments_ended: of.segments.ended,
        segments_removed: of.segments.removed,
        messages_waiting: of.waiting.messages,
        bytes_waiting: of.waiting.bytes,
        behind: of.behind_since.map(age),
        error,
        error_age: error_at.map(age),
    }
}

fn tell_line((at, kind, text): (Instant, &str, &str), now: Now) -> control::Line {
    control::Line {
        kind: kind.into(),
        age: seconds(at, now),
        text: text.into(),
    }
}

fn tell_message(tapped: Tapped) -> control::Tapped {
    let Tapped { of, body, .. } = tapped;
    let unit = of.unit.unit().cloned().unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let is_text = matches!(text, Cow::Borrowed(_));
    let time = of.time.duration_since(UNIX_EPOCH);
    control::Tapped {
        message: Some(control::Message {
            time: time.unwrap_or_default().as_secs_f64(),
            client: of.id.0,
            uid: of.peer.uid,
            gid: of.peer.gid,
            pid: of.peer.process(),
            unit: unit.unit,
            user_unit: unit.user_unit,
            message_base64: (!is_text).then(|| BASE64_STANDARD.encode(&body)),
            message: text.into_owned(),
            truncated: tapped.is_truncated,
            receivers: of.receivers,
        }),
        missed: tapped.missed,
    }
}

fn info() -> Reply {
    Reply::last(json!({
        "vendor": "udsd",
        "product": "udsd",
        "version": env!("CARGO_PKG_VERSION"),
        "url": "",
        "interfaces": [SERVICE, NAME],
    }))
}

fn description(call: &Call) -> Result<Answer, Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        interface: String,
    }
    let Parameters { interface } = call.parameters()?;
    let description = match interface.as_str() {
        SERVICE => SERVICE_INTERFACE,
        NAME => INTERFACE,
        _ => {
            return Err(Reply::error(
                "org.varlink.service.InterfaceNotFound",
                json!({ "interface": interface }),
            ));
        }
    };
    Ok(Reply::last(json!({ "description": description })).into())
}

/// A method without parameters was given none.
fn expect_none(call: &Call) -> Result<(), Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {}
    call.parameters().map(|Parameters {}| ())
}

/// An answer of many parts needs a client that takes them.
fn expect_more(call: &Call) -> Result<(), Reply> {
    match call.more {
        true => Ok(()),
        false => Err(Reply::error(
            "org.varlink.service.ExpectedMore",
            Value::Object(Default::default()),
        )),
    }
}

fn reload_failed(faults: &[Fault]) -> Reply {
    let faults = faults.into();
    Reply::error("dev.udsd.Daemon.ReloadFailed", ReloadFailed { faults })
}

fn no_such_socket(name: &str) -> Reply {
    Reply::error("dev.udsd.Daemon.NoSuchSocket", json!({ "name": name }))
}

fn seconds(since: Instant, now: Now) -> f64 {
    now.instant.saturating_duration_since(since).as_secs_f64()
}
