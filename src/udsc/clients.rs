//! `udsc clients`: who is connected, what they send and get, and whom they hold up.

use std::cmp::Reverse;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Options,
    control::{self, Control, Unanswered},
    daemon::only_daemon,
    failure::Failure,
    show::{Users, WithUser, count, one_line, size, span},
    table::{Cell, Column, Table},
    terminal::{Terminal, Tone, json_line, print},
};
use crate::{
    control::{Client, Clients},
    sys,
    unit::Unit,
};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Only those of this user, by name or number
    #[arg(long = "user", id = "sender", value_name = "USER")]
    user: Option<String>,
    /// Only those of this systemd unit
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Amounts with the largest first, all else with the smallest
    #[arg(long, value_name = "KEY", default_value = "id")]
    sort: Sort,
    /// One object a line, with all that the daemon says
    #[arg(long)]
    json: bool,
}

/// What clients are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Id,
    User,
    Pid,
    Socket,
    /// Since when they are connected, the newest first
    Since,
    Idle,
    /// Bytes that wait for them to read
    Queue,
    /// Bytes held for them in all
    Held,
    MessagesIn,
    BytesIn,
    MessagesOut,
    BytesOut,
    Dropped,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, true)?;
    let socket = options.socket.as_ref().map(|name| name.display());
    let socket = socket.map(|name| name.to_string());
    let uid = plan.user.as_deref().map(user).transpose()?;
    let mut control = control::connect(options)?;
    let mut clients = ask(&mut control, socket.as_deref(), uid)?;
    if let Some(wanted) = plan.unit.as_deref().map(Unit::full_name) {
        clients.retain(|client| units(client).any(|unit| unit == wanted));
    }
    let mut users = Users::default();
    plan.sort.apply(&mut clients, &mut users);
    if plan.json {
        let lines = clients.iter().map(|client| {
            let user = users.name(client.uid);
            json_line(&WithUser { of: client, user })
        });
        return print(&lines.collect::<Result<String, _>>()?);
    }
    let rows = clients.iter().map(|client| row(client, &mut users));
    let table = Table {
        columns: &COLUMNS,
        rows: rows.collect(),
    };
    print(&table.show(Terminal::of_output()))
}

/// The clients, in the order in which they came.
pub(crate) fn ask(
    control: &mut Control,
    socket: Option<&str>,
    uid: Option<u32>,
) -> Result<Vec<Client>, Unanswered> {
    let mut parameters = serde_json::Map::new();
    parameters.extend(socket.map(|name| ("socket".into(), json!(name))));
    parameters.extend(uid.map(|uid| ("uid".into(), json!(uid))));
    let parts: Vec<Clients> = control.call_parts("Clients", Value::Object(parameters))?;
    Ok(parts.into_iter().flat_map(|part| part.clients).collect())
}

/// The number of a user.
pub(crate) fn user(name: &str) -> Result<u32, Failure> {
    let found = sys::user_id(name).map_err(|error| Failure::System("the user database", error))?;
    found.ok_or_else(|| Failure::Told(format!("there is no user {}", one_line(name))))
}

impl Sort {
    pub(crate) fn apply(self, clients: &mut [Client], users: &mut Users) {
        let millis = |seconds: f64| (seconds * 1000.0) as u64;
        let descending: fn(&Client) -> u64 = match self {
            Sort::Id => return clients.sort_by_key(|client| client.id),
            Sort::Pid => return clients.sort_by_key(|client| client.pid),
            Sort::Since => return clients.sort_by_key(|client| millis(client.age)),
            Sort::Idle => return clients.sort_by_key(|client| millis(client.idle)),
            Sort::Socket => return clients.sort_by(|a, b| a.socket.cmp(&b.socket)),
            Sort::User => {
                return clients.sort_by_cached_key(|client| {
                    // Those without a name come last, by their numbers.
                    let name = users.name(client.uid).map(str::to_owned);
                    (name.is_none(), name, client.uid)
                });
            }
            Sort::Queue => |client| client.queue as u64,
            Sort::Held => |client| client.held as u64,
            Sort::MessagesIn => |client| client.messages_in,
            Sort::BytesIn => |client| client.bytes_in,
            Sort::MessagesOut => |client| client.messages_out,
            Sort::BytesOut => |client| client.bytes_out,
            Sort::Dropped => |client| client.dropped,
        };
        clients.sort_by_key(|client| Reverse(descending(client)));
    }
}

const COLUMNS: [Column; 15] = [
    Column::number("ID", 0),
    Column::text("USER", 0),
    Column::number("UID", 6),
    Column::number("PID", 1),
    Column::text("UNIT", 2),
    Column::text("SOCKET", 0),
    Column::number("SINCE", 3),
    Column::number("IDLE", 2),
    Column::number("QUEUE", 0),
    Column::number("MSGS IN", 0),
    Column::number("BYTES IN", 0),
    Column::number("MSGS OUT", 4),
    Column::number("BYTES OUT", 5),
    Column::number("DROPPED", 0),
    Column::text("WAITS FOR", 0),
];

fn row(client: &Client, users: &mut Users) -> [Cell; 15] {
    [
        client.id.to_string().into(),
        users.show(client.uid).into(),
        client.uid.to_string().into(),
        client.pid.map_or("-".into(), |pid| pid.to_string()).into(),
        units(client).last().map_or("-".into(), one_line).into(),
        one_line(&client.socket).into(),
        span(client.age).into(),
        span(client.idle).into(),
        size(client.queue as u64).into(),
        count(client.messages_in).into(),
        size(client.bytes_in).into(),
        count(client.messages_out).into(),
        size(client.bytes_out).into(),
        count(client.dropped).into(),
        waits(client),
    ]
}

/// Its units: of the system's manager, then of a user's.
fn units(client: &Client) -> impl Iterator<Item = &str> {
    let units = [&client.unit, &client.user_unit].into_iter();
    units.flatten().map(String::as_str)
}

/// What nothing is read from it for, and whether others wait for it.
pub(crate) fn waits(client: &Client) -> Cell {
    let what = client.waits_for.as_deref().map(one_line);
    match (what, client.holds_up) {
        (None, false) => "-".into(),
        (Some(what), false) => what.into(),
        (None, true) => Cell::new("holds up others", Tone::Warning),
        (Some(what), true) => Cell::new(format!("{what}; holds up others"), Tone::Warning),
    }
}
