//! What `Metrics` returns: all counters, made from their table, and gauges of the daemon, its sockets and their
//! records. A socket that the file no longer has is left out: another may have its name, and none may be told twice.

use std::time::UNIX_EPOCH;

use super::Server;
use crate::{
    control::{Metrics, metrics::Text, varlink::Reply},
    counters::{Counters, Measure, Row},
    hub::{Now, Socket},
    record::Statistics,
};

impl Server {
    pub(super) fn tell_metrics(&self, now: Now) -> Reply {
        let mut sockets: Vec<(usize, &Socket)> = self.serving().collect();
        sockets.sort_unstable_by_key(|(_, socket)| socket.name());
        // One that several sockets share is told once, or sums would count it several times.
        let own = sockets
            .iter()
            .filter(|(key, _)| self.hub.recorded_at(*key) == Some(*key));
        let records =
            own.filter_map(|&(key, socket)| Some((socket.name(), self.record_statistics(key)?)));
        let records: Vec<(&str, Statistics)> = records.collect();
        let mut text = Text::begin(true);
        self.tell_daemon(&mut text);
        tell_sockets(&mut text, &sockets);
        tell_records(&mut text, &records, now);
        // Who only asks is no client, but who is refused there must be seen.
        let all = self.hub.sockets().iter();
        let control = all.filter(|(_, socket)| socket.is_control() && !socket.is_draining());
        tell_counters(
            &mut text,
            &sockets.into_iter().chain(control).collect::<Vec<_>>(),
        );
        Reply::last(Metrics { text: text.end() })
    }

    fn tell_daemon(&self, text: &mut Text) {
        text.family("udsd_build_info", "What udsd this is; always 1.")
            .add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let started = self.started.wall.duration_since(UNIX_EPOCH);
        let started = started.unwrap_or_default().as_secs() as usize;
        let is_in_force = usize::from(self.unchanged.is_none());
        let (clients, clients_per_user, queue_per_user, queue_total) = self.hub.limits().numbers();
        for (name, help, value) in [
            (
                "udsd_start_time_seconds",
                "When this process began to serve, in seconds since 1970.",
                started,
            ),
            (
                "udsd_config_in_force",
                "0 where the last reload or restart could not bring the config file into force, else 1.",
                is_in_force,
            ),
            (
                "udsd_sockets",
                "Sockets that are served.",
                self.serving().count(),
            ),
            (
                "udsd_held_bytes",
                "Bytes held for all clients: input that waits and output unsent.",
                self.hub.held(),
            ),
            ("udsd_limits_clients", "The limit limits.clients.", clients),
            (
                "udsd_limits_clients_per_user",
                "The limit limits.clients-per-user.",
                clients_per_user,
            ),
            (
                "udsd_limits_queue_per_user_bytes",
                "The limit limits.queue-per-user.",
                queue_per_user,
            ),
            (
                "udsd_limits_queue_total_bytes",
                "The limit limits.queue-total.",
                queue_total,
            ),
        ] {
            text.family(name, help).add(&[], value);
        }
    }
}

/// Name, help and value of a family.
type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

fn tell_sockets(text: &mut Text, sockets: &[(usize, &Socket)]) {
    let figures: [Figure<Socket>; 2] = [
        (
            "udsd_clients_connected",
            "Clients that are connected now; of datagram sockets, none.",
            |of| of.present() as u64,
        ),
        (
            "udsd_senders_waiting",
            "Clients that wait for room in the record or with receivers.",
            |of| of.wait_queue().waiting().count() as u64,
        ),
    ];
    for (name, help, value) in figures {
        let mut family = text.family(name, help);
        for (_, socket) in sockets {
            family.add(&[("socket", socket.name())], value(socket));
        }
    }
}

fn tell_records(text: &mut Text, records: &[(&str, Statistics)], now: Now) {
    if records.is_empty() {
        return;
    }
    let figures: [Figure<Statistics>; 7] = [
        (
            "udsd_record_open",
            "Whether the file of the record is open.",
            |of| of.is_open.into(),
        ),
        (
            "udsd_record_waiting_messages",
            "Messages that wait for the disk.",
            |of| of.waiting.messages,
        ),
        (
            "udsd_record_waiting_bytes",
            "Bytes of lines that wait for the disk.",
            |of| of.waiting.bytes,
        ),
        (
            "udsd_record_written_messages_total",
            "Messages that were written to the record.",
            |of| of.written.messages,
        ),
        (
            "udsd_record_written_bytes_total",
            "Bytes of lines that were written to the record.",
            |of| of.written.bytes,
        ),
        (
            "udsd_record_ended_segments_total",
            "Files of the record that became segments.",
            |of| of.segments.ended,
        ),
        (
            "udsd_record_removed_segments_total",
            "Segments that were removed since more were there than are kept.",
            |of| of.segments.removed,
        ),
    ];
    for (name, help, value) in figures {
        let mut family = text.family(name, help);
        for (socket, of) in records {
            family.add(&[("socket", socket)], value(of));
        }
    }
    let mut behind = text.family(
        "udsd_record_behind_seconds",
        "How long the oldest line has waited for the disk, or writing has failed.",
    );
    for (socket, of) in records {
        let since = of.behind_since.unwrap_or(now.wall);
        let span = now.wall.duration_since(since).unwrap_or_default();
        behind.add(&[("socket", socket)], span.as_secs_f64());
    }
}

fn tell_counters(text: &mut Text, sockets: &[(usize, &Socket)]) {
    let table: Vec<Row> = Counters::default().rows().collect();
    let rows = |socket: &Socket| -> Vec<Row> { socket.counters().rows().collect() };
    let sockets: Vec<(&str, Vec<Row>)> = sockets
        .iter()
        .map(|(_, socket)| (socket.name(), rows(socket)))
        .collect();
    for family in table.chunk_by(|row, next| row.family == next.family) {
        let first = &family[0];
        let name = match (first.family, first.measure) {
            (family, Measure::Bytes) if family != "bytes" => format!("udsd_{family}_bytes_total"),
            (family, _) => format!("udsd_{family}_total"),
        };
        let mut counters = text.family(&name, first.family_meaning);
        for (socket, rows) in &sockets {
            for row in rows.iter().filter(|row| row.family == first.family) {
                let labels = [
                    ("socket", *socket),
                    ("reason", row.reason.unwrap_or_default()),
                ];
                let labels = &labels[..1 + usize::from(row.reason.is_some())];
                counters.add(labels, row.value);
            }
        }
    }
}
