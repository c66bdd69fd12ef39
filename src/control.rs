//! What is said over the control socket: the interface `dev.udsd.Daemon` as types that the daemon fills and `udsc`
//! reads. `dev.udsd.Daemon.varlink` beside this file is the interface itself, with what each field means.

pub mod metrics;
pub mod varlink;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    error::Fault,
    limits::{self, Over, OverKey},
};
use varlink::Reply;

/// The interface, as `org.varlink.service.GetInterfaceDescription` returns it.
pub const INTERFACE: &str = include_str!("control/dev.udsd.Daemon.varlink");
/// The name of the interface.
pub const NAME: &str = "dev.udsd.Daemon";

/// What `Status` returns.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub age: f64,
    pub config: Vec<String>,
    pub problem: Option<String>,
    pub sockets: usize,
    pub clients: usize,
    pub held: usize,
    pub limits: Limits,
}

/// As `[limits]` has them, with what was derived.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub clients: usize,
    pub clients_per_user: usize,
    pub queue_per_user: usize,
    pub queue_total: usize,
}

/// One socket.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Socket {
    pub name: String,
    pub path: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub service: String,
    pub framing: String,
    pub inherited: bool,
    pub draining: bool,
    pub clients: usize,
    pub senders_waiting: usize,
    pub counters: BTreeMap<String, u64>,
    pub record: Option<Record>,
    pub last: Vec<Line>,
}

impl Socket {
    /// Whether it is the control socket, at which nobody is a client.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.service == "control"
    }
}

/// A socket's record.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub open: bool,
    pub seq: u64,
    pub messages_written: u64,
    pub bytes_written: u64,
    #[serde(default)]
    pub segments_ended: u64,
    #[serde(default)]
    pub segments_removed: u64,
    pub messages_waiting: u64,
    pub bytes_waiting: u64,
    pub behind: Option<f64>,
    pub error: Option<String>,
    pub error_age: Option<f64>,
}

/// A line that the log has of a socket.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub kind: String,
    pub age: f64,
    pub text: String,
}

/// One client.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    pub id: u64,
    pub socket: String,
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
    pub unit: Option<String>,
    pub user_unit: Option<String>,
    pub age: f64,
    pub idle: f64,
    pub queue: usize,
    pub held: usize,
    pub messages_in: u64,
    pub bytes_in: u64,
    pub messages_out: u64,
    pub bytes_out: u64,
    pub dropped: u64,
    pub waits_for: Option<String>,
    pub holds_up: bool,
}

/// A message on a socket with a tap.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub time: f64,
    pub client: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
    pub unit: Option<String>,
    pub user_unit: Option<String>,
    pub message: String,
    pub message_base64: Option<String>,
    pub truncated: bool,
    pub receivers: usize,
}

/// What `Sockets` returns.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sockets {
    pub sockets: Vec<Socket>,
}

/// A part of what `Clients` returns.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clients {
    pub clients: Vec<Client>,
}

/// One of what `Tap` returns.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tapped {
    pub message: Option<Message>,
    pub missed: u64,
}

/// What `Metrics` returns.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metrics {
    pub text: String,
}

/// What the error `ReloadFailed` says.
#[allow(missing_docs, reason = "the interface says what they are")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadFailed {
    pub faults: Vec<Fault>,
}

/// What a caller gets for whom there is no place.
#[must_use]
pub fn refused(over: Over) -> Reply {
    let (all, of_one, ..) = limits::Limits::of_control().numbers();
    let why = match over.key {
        OverKey::User => format!("{of_one} callers of your user are connected, and no more may be"),
        OverKey::Share { own, .. } => format!(
            "{own} callers of your user are connected, and the last of the {all} places are for users who have less"
        ),
        OverKey::Daemon | OverKey::Socket => {
            format!("{all} callers are connected, and no more may be")
        }
        OverKey::Files => "udsd can open no more files".into(),
    };
    Reply::error("dev.udsd.Daemon.Refused", json!({ "why": why }))
}
