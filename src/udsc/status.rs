//! `udsc status`: how the daemon is, what its sockets do, and what of that wants looking at: what was refused,
//! dropped and closed and why, records that lag, and the last lines of the log.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Options, control,
    daemon::{Absence, only_daemon},
    failure::Failure,
    show::{count, one_line, size, span, wrapped},
    table::{Cell, Column, Table},
    terminal::{Terminal, Tone, print, print_json},
    troubles::{Troubles, lags, record_cell},
};
use crate::control::{Line, Record, Socket, Sockets, Status};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only the socket of this NAME in udsd.toml
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// One object a line: the daemon, then each socket, with all that the daemon says
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let mut control = match control::find(options)? {
        Ok(control) => control,
        Err(absent) => return of_absent(absent, plan.json),
    };
    let status: Status = control.call("Status", Value::Null)?;
    let parameters = plan.name.as_ref().map(|name| json!({ "name": name }));
    let Sockets { sockets } = control.call("Sockets", parameters.unwrap_or_default())?;
    if plan.json {
        let head = plan.name.is_none().then_some(status);
        print_json(head)?;
        return print_json(sockets);
    }
    let terminal = Terminal::of_output();
    let head = match plan.name {
        None => head(&status, terminal) + "\n",
        Some(_) => String::new(),
    };
    let is_only = plan.name.is_some();
    print(&(head + &table(&sockets, is_only).show(terminal)))?;
    let details = sockets
        .iter()
        .filter_map(|socket| details(socket, is_only, terminal));
    details.into_iter().try_for_each(|text| print(&text))
}

/// Nobody answers, which is as it should be where systemd holds the sockets.
fn of_absent(absent: Vec<Absence>, json: bool) -> Result<(), Failure> {
    let idle = absent.iter().find(|absence| absence.is_idle);
    match idle {
        None => Err(control::failure(absent)),
        Some(_) if json => print_json([json!({ "idle": true })]),
        Some(absence) => print(&format!("{}\n", absence.text)),
    }
}

/// What the daemon says of itself.
fn head(status: &Status, terminal: Terminal) -> String {
    let limits = &status.limits;
    let first = format!("udsd {}", one_line(&status.version));
    let files: Vec<String> = status.config.iter().map(|file| one_line(file)).collect();
    let mut out = format!(
        "{}, pid {}, running for {}\n",
        terminal.paint(&first, Tone::Heading),
        status.pid,
        span(status.age)
    );
    let mut line = |name: &str, text: &str| out += &format!("{name:<9}{text}\n");
    match files.is_empty() {
        true => line("file", "built-in"),
        false => line("file", &files.join(", ")),
    }
    if let Some(problem) = &status.problem {
        line("problem", &terminal.paint(&one_line(problem), Tone::Error));
    }
    let clients = format!(
        "{} of {} ({} of one user)",
        status.clients, limits.clients, limits.clients_per_user
    );
    line("clients", &clients);
    let held = format!(
        "{} of {} ({} for one user)",
        size(status.held as u64),
        size(limits.queue_total as u64),
        size(limits.queue_per_user as u64)
    );
    line("held", &held);
    out
}

const COLUMNS: [Column; 11] = [
    Column::text("SOCKET", 0),
    Column::text("TYPE", 3),
    Column::text("SERVICE", 2),
    Column::number("CLIENTS", 0),
    Column::number("WAITING", 4),
    Column::number("MESSAGES", 0),
    Column::number("BYTES", 0),
    Column::number("REFUSED", 0),
    Column::number("DROPPED", 0),
    Column::number("CLOSED", 1),
    Column::text("RECORD", 0),
];

/// Those of the file, unless it `is_only` asked for one.
fn table(sockets: &[Socket], is_only: bool) -> Table<'_, 11> {
    let shown = sockets.iter().filter(|of| is_only || !of.is_control());
    Table {
        columns: &COLUMNS,
        rows: shown.map(row).collect(),
    }
}

fn row(socket: &Socket) -> [Cell; 11] {
    let work = |name: &str| socket.counters.get(name).copied().unwrap_or(0);
    let troubles = Troubles::new(socket);
    [
        one_line(&socket.name).into(),
        one_line(&socket.kind).into(),
        one_line(&socket.service).into(),
        socket.clients.to_string().into(),
        socket.senders_waiting.to_string().into(),
        count(work("messages")).into(),
        size(work("bytes")).into(),
        troubles.cell("refused"),
        troubles.cell("dropped"),
        troubles.cell("closed"),
        record_cell(socket),
    ]
}

/// What of a socket wants looking at; `None` where nothing does, unless it `is_only` asked for this one.
fn details(socket: &Socket, is_only: bool, terminal: Terminal) -> Option<String> {
    let troubles = Troubles::new(socket);
    let record = socket.record.as_ref();
    let is_quiet = troubles.is_empty() && socket.last.is_empty() && socket.senders_waiting == 0;
    if is_quiet && !is_only && !socket.draining && !record.is_some_and(lags) {
        return None;
    }
    let mut out = format!(
        "\n{}  {}\n",
        terminal.paint(&one_line(&socket.name), Tone::Heading),
        place(socket)
    );
    let (counts, width): (Vec<_>, _) = match is_only {
        true => (troubles.explained().collect(), 28),
        false => (troubles.families().collect(), 12),
    };
    let mut lines: Vec<(String, String, Tone)> = counts
        .into_iter()
        .map(|(name, text)| (name, text, Tone::Plain))
        .collect();
    let senders = match socket.senders_waiting {
        0 => None,
        1 => Some("1 sender".into()),
        n => Some(format!("{n} senders")),
    };
    lines.extend(senders.map(|senders| {
        let text = format!("{senders}, for room in the record or with receivers");
        ("waiting".into(), text, Tone::Plain)
    }));
    if let Some(record) = record.filter(|record| is_only || lags(record)) {
        let tone = match lags(record) {
            true => Tone::Warning,
            false => Tone::Plain,
        };
        lines.push(("record".into(), of_record(record), tone));
    }
    lines.extend(socket.last.iter().map(|Line { age, text, .. }| {
        let ago = format!("{} ago", span(*age));
        (ago, one_line(text), Tone::Plain)
    }));
    let room = terminal.width.map(|all| all.saturating_sub(width + 3));
    for (name, text, tone) in &lines {
        for (i, text) in wrapped(text, room).iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            out += &format!("  {name:<width$} {}\n", terminal.paint(text, *tone));
        }
    }
    Some(out)
}

/// Where a socket is, and what it is.
fn place(socket: &Socket) -> String {
    let mut words = vec![
        socket
            .path
            .as_deref()
            .map_or("nobody can reach it".into(), one_line),
    ];
    words.extend([&socket.kind, &socket.service].map(|word| one_line(word)));
    if socket.kind == "stream" {
        words.push(format!("framing {}", one_line(&socket.framing)));
    }
    if socket.inherited {
        words.push("from systemd".into());
    }
    if socket.draining {
        words.push("no longer in the file: only gives its clients what they are owed".into());
    }
    words.join(", ")
}

/// How a record is.
fn of_record(record: &Record) -> String {
    let mut words = vec![one_line(&record.name)];
    if !record.open {
        words.push("cannot be written".into());
    }
    match record.behind {
        None => words.push(format!("all {} messages written", record.messages_written)),
        Some(behind) => {
            let bytes = size(record.bytes_waiting);
            words.push(format!("{} behind", span(behind)));
            words.push(match record.messages_waiting {
                1 => format!("1 message ({bytes}) waits for the disk"),
                n => format!("{n} messages ({bytes}) wait for the disk"),
            });
        }
    }
    if record.segments_ended > 0 {
        words.push(format!(
            "{} segments ended, {} removed",
            record.segments_ended, record.segments_removed
        ));
    }
    if let Some(error) = &record.error {
        let ago = record.error_age.map(|age| format!("{} ago: ", span(age)));
        // What it says to do has been done where nothing is behind any more.
        let over = if record.behind.is_none() && record.open {
            "last error, over since, "
        } else {
            ""
        };
        let ago = ago.unwrap_or_default();
        words.push(format!("{over}{ago}{}", one_line(error)));
    }
    words.join(", ")
}
