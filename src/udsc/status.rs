//! `udsc status`: how the daemon is, what its sockets do, and what of that wants looking at: what was refused,
//! dropped and closed and why, records that lag, and the last lines of the log.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Options, control,
    daemon::{Absence, only_daemon},
    failure::Failure,
    show::{count, one_line, size, span},
    table::{Cell, Column, Table},
    terminal::{Terminal, Tone, print, print_json},
};
use crate::control::{Line, Record, Socket, Sockets, Status};

/// A record that waits for less is not behind: it is being written.
const BEHIND: f64 = 1.0;
/// Counts of what works.
const WORK: [&str; 3] = ["clients", "messages", "bytes"];
/// Counts of bytes among the others.
const OF_BYTES: [&str; 2] = ["unread", "undelivered"];

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
    print(&(head + &table(&sockets).show(terminal)))?;
    let is_only = plan.name.is_some();
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

const fn column(title: &'static str, is_number: bool, rank: u8) -> Column {
    Column {
        title,
        is_number,
        rank,
    }
}

const COLUMNS: [Column; 11] = [
    column("SOCKET", false, 0),
    column("TYPE", false, 3),
    column("SERVICE", false, 2),
    column("CLIENTS", true, 0),
    column("WAITING", true, 4),
    column("MESSAGES", true, 0),
    column("BYTES", true, 0),
    column("REFUSED", true, 0),
    column("DROPPED", true, 0),
    column("CLOSED", true, 1),
    column("RECORD", false, 0),
];

fn table(sockets: &[Socket]) -> Table<'_, 11> {
    Table {
        columns: &COLUMNS,
        rows: sockets.iter().map(row).collect(),
    }
}

fn row(socket: &Socket) -> [Cell; 11] {
    let families = Families::new(&socket.counters);
    let work = |name: &str| socket.counters.get(name).copied().unwrap_or(0);
    let trouble = |name: &str| match families.total(name) {
        0 => Cell::from("0"),
        n => Cell::new(count(n), Tone::Warning),
    };
    let record = match &socket.record {
        None => "-".into(),
        Some(record) if is_failing(record) => Cell::new("FAILING", Tone::Error),
        Some(record) => match record.behind.filter(|behind| *behind >= BEHIND) {
            Some(behind) => Cell::new(format!("{} behind", span(behind)), Tone::Warning),
            None => "ok".into(),
        },
    };
    [
        one_line(&socket.name).into(),
        one_line(&socket.kind).into(),
        one_line(&socket.service).into(),
        socket.clients.to_string().into(),
        socket.senders_waiting.to_string().into(),
        count(work("messages")).into(),
        size(work("bytes")).into(),
        trouble("refused"),
        trouble("dropped"),
        trouble("closed"),
        record,
    ]
}

/// Whether what waits cannot be written now.
fn is_failing(record: &Record) -> bool {
    !record.open || record.error.is_some() && record.behind.is_some()
}

/// Counters by what they count, each family with its reasons.
struct Families<'a>(BTreeMap<&'a str, Vec<(&'a str, u64)>>);

impl<'a> Families<'a> {
    /// Of all that is not the daily work, and not 0.
    fn new(counters: &'a BTreeMap<String, u64>) -> Self {
        let mut families: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for (name, number) in counters {
            if *number > 0 && !WORK.contains(&name.as_str()) {
                let (family, reason) = name.split_once('_').unwrap_or((name, ""));
                families.entry(family).or_default().push((reason, *number));
            }
        }
        Self(families)
    }

    fn total(&self, family: &str) -> u64 {
        let reasons = self.0.get(family).into_iter().flatten();
        reasons.fold(0, |sum, (_, number)| number.saturating_add(sum))
    }

    /// Each family in a line: "3: 2 access, 1 clients-per-user".
    fn lines(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(family, reasons)| {
            let show = |number| match OF_BYTES.contains(family) {
                true => size(number),
                false => number.to_string(),
            };
            let named = reasons.iter().filter(|(reason, _)| !reason.is_empty());
            // As the keys of udsd.toml are written.
            let named =
                named.map(|(reason, n)| format!("{} {}", show(*n), reason.replace('_', "-")));
            let named: Vec<String> = named.collect();
            let total = show(self.total(family));
            let text = match named.is_empty() {
                true => total,
                false => format!("{total}: {}", named.join(", ")),
            };
            (one_line(family), one_line(&text))
        })
    }
}

/// What of a socket wants looking at; `None` where nothing does, unless it `is_only` asked for this one.
fn details(socket: &Socket, is_only: bool, terminal: Terminal) -> Option<String> {
    let families = Families::new(&socket.counters);
    let record = socket.record.as_ref();
    let lags = |record: &Record| {
        let is_behind = record.behind.is_some_and(|behind| behind >= BEHIND);
        is_failing(record) || is_behind || record.error.is_some()
    };
    let is_quiet = families.0.is_empty() && socket.last.is_empty() && socket.senders_waiting == 0;
    if is_quiet && !is_only && !socket.draining && !record.is_some_and(lags) {
        return None;
    }
    let mut out = format!(
        "\n{}  {}\n",
        terminal.paint(&one_line(&socket.name), Tone::Heading),
        place(socket)
    );
    let mut line = |name: &str, text: &str| out += &format!("  {name:<12}{text}\n");
    for (family, text) in families.lines() {
        line(&family, &text);
    }
    match socket.senders_waiting {
        0 => {}
        1 => line(
            "waiting",
            "1 sender, for room in the record or with receivers",
        ),
        n => line(
            "waiting",
            &format!("{n} senders, for room in the record or with receivers"),
        ),
    }
    if let Some(record) = record.filter(|record| is_only || lags(record)) {
        let tone = match lags(record) {
            true => Tone::Warning,
            false => Tone::Plain,
        };
        line("record", &terminal.paint(&of_record(record), tone));
    }
    for Line { age, text, .. } in &socket.last {
        line(&format!("{} ago", span(*age)), &one_line(text));
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
        Some(behind) => words.push(format!(
            "{} behind, {} messages ({}) wait for the disk",
            span(behind),
            record.messages_waiting,
            size(record.bytes_waiting)
        )),
    }
    if let Some(error) = &record.error {
        let ago = record.error_age.map(|age| format!("{} ago: ", span(age)));
        words.push(format!("{}{}", ago.unwrap_or_default(), one_line(error)));
    }
    words.join(", ")
}
