//! What a bench found, as text for a person or as one JSON object.

use std::fmt::Write;

use serde::Serialize;

use super::{
    histogram::{Step, draw, steps},
    load::{Load, Task},
};
use crate::{
    config::{ServiceKind, SocketType},
    frame::Framing,
    udsc::{
        connection::Connection,
        failure::Failure,
        statistics::{Latency, millis},
    },
};

/// What a bench found. The field names are those of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    socket: String,
    #[serde(rename = "type")]
    kind: &'static str,
    framing: Option<String>,
    service: &'static str,
    clients: usize,
    size: usize,
    pipeline: usize,
    seconds: f64,
    /// Messages that were sent.
    messages: u64,
    /// Messages that were to come, one for each receiver.
    sent: u64,
    received: u64,
    lost: u64,
    late: u64,
    wrong: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    latency_ns: Option<Latency>,
    histogram: Vec<Step>,
    /// Why not all is well.
    pub(super) error: Option<String>,
}

impl Report {
    /// `conns` had this load, of messages of `size` bytes on a socket of this framing.
    pub(super) fn new(
        conns: &[Connection],
        task: Task,
        framing: Framing,
        size: usize,
        load: &Load<'_>,
    ) -> Self {
        let statistics = load.statistics();
        let seconds = load.took().as_secs_f64();
        let received = statistics.received();
        let rate = |count: u64| match seconds {
            0.0 => 0.0,
            _ => count as f64 / seconds,
        };
        let conn = &conns[0];
        Self {
            socket: conn.name.clone(),
            kind: conn.kind.word(),
            framing: (conn.kind == SocketType::Stream).then(|| framing.to_string()),
            service: task.service.word(),
            clients: conns.len(),
            size,
            pipeline: task.pipeline,
            seconds,
            messages: load.messages(),
            sent: statistics.sent,
            received,
            lost: statistics.lost(),
            late: load.late(),
            wrong: statistics.wrong,
            messages_per_second: rate(received),
            bytes_per_second: rate(received * size as u64),
            latency_ns: statistics.latency(),
            histogram: steps(statistics),
            error: None,
        }
    }

    /// Fails where not everything that was sent came, or something else did.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let Report { lost, sent, .. } = self;
        match (lost, self.wrong) {
            (0, 0) => Ok(()),
            (0, wrong) => Err(Failure::Told(format!(
                "{}: {wrong} wrong messages came",
                self.socket
            ))),
            _ => Err(Failure::Told(format!(
                "{}: {lost} of {sent} messages did not come",
                self.socket
            ))),
        }
    }

    /// For a terminal of so many columns.
    pub(super) fn text(&self, columns: usize, has_colour: bool) -> String {
        let mut text = self.head();
        if let Some(times) = &self.latency_ns {
            let names = ["min", "avg", "p50", "p90", "p99", "p99.9", "max"];
            let times = [
                times.min,
                times.avg,
                times.p50,
                times.p90,
                times.p99,
                times.p99_9,
                times.max,
            ];
            let names = names.map(|name| format!("{name:>9}")).concat();
            let times = times.map(|time| format!("{:>9}", millis(time))).concat();
            let _ = write!(text, "\n           {names}\nlatency, ms{times}\n\n");
            text += &draw(&self.histogram, columns, has_colour);
        }
        text
    }

    fn head(&self) -> String {
        let Report {
            socket,
            service,
            clients,
            size,
            pipeline,
            seconds,
            ..
        } = self;
        let kind = match &self.framing {
            Some(framing) => format!("{}, framing {framing}", self.kind),
            None => self.kind.into(),
        };
        let is_relay = self.service == ServiceKind::Relay.word();
        let count = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            _ => format!("{n} {what}s"),
        };
        let roles = match is_relay {
            true => format!("1 sender, {}", count(clients - 1, "receiver")),
            false => count(*clients, "client"),
        };
        let what = match is_relay {
            true => "deliveries",
            false => "messages",
        };
        let (per_second, bytes) = (self.messages_per_second, self.bytes_per_second / 1048576.0);
        let counts = match (self.service, self.kind) {
            ("collect", "datagram") => "nothing tells whether they arrived".into(),
            ("collect", _) => format!(
                "{} read by the server, nothing tells whether it keeps them",
                self.received
            ),
            _ => format!("{} received, {} lost", self.received, self.lost),
        };
        let mut text = format!(
            "{socket}: {service}, {kind}\n{roles}, {size} bytes a message, pipeline {pipeline}, {seconds:.2} s\n\n\
             {per_second:.0} {what}/s, {bytes:.2} MiB/s\n{} sent, {counts}",
            self.messages,
        );
        for (count, what) in [(self.late, "late"), (self.wrong, "wrong")] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text.push('\n');
        text
    }
}
