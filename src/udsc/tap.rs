//! `udsc tap`: the messages that pass on a socket, while they pass.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    Options,
    clients::user,
    control,
    daemon::only_daemon,
    failure::Failure,
    show::{Users, WithUser, one_line},
    terminal::{Terminal, Tone, print, print_json},
};
use crate::{
    control::{Message, Tapped},
    unit::Unit,
};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The NAME of a socket in udsd.toml
    #[arg(value_name = "NAME")]
    name: String,
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only what this user sends, by name or number
    #[arg(long = "user", id = "sender", value_name = "USER")]
    user: Option<String>,
    /// Only what clients of this systemd unit send
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// One object a line; the first has no message, and says that the tap is open
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let mut parameters = json!({ "socket": plan.name });
    if let Some(name) = &plan.user {
        parameters["uid"] = user(name)?.into();
    }
    if let Some(unit) = &plan.unit {
        parameters["unit"] = Unit::full_name(unit).into();
    }
    let mut control = control::connect(options)?;
    let (terminal, mut users) = (Terminal::of_output(), Users::default());
    let mut left = plan.count.unwrap_or(u64::MAX);
    control.follow("Tap", parameters, |tapped: Tapped| {
        match plan.json {
            true => print_json([object(&tapped, &mut users)])?,
            false => print(&line(&tapped, terminal, &mut users))?,
        }
        left -= u64::from(tapped.message.is_some());
        Ok(left > 0)
    })?;
    Ok(())
}

/// As `Tapped`, with the sender's name.
#[derive(Serialize)]
struct Object<'a> {
    message: Option<WithUser<'a, Message>>,
    missed: u64,
}

fn object<'a>(tapped: &'a Tapped, users: &'a mut Users) -> Object<'a> {
    let message = tapped.message.as_ref().map(|of| {
        let user = users.name(of.uid);
        WithUser { of, user }
    });
    let missed = tapped.missed;
    Object { message, missed }
}

/// "TIME USER[PID] client 17 to 3: TEXT", or nothing where there is none; before it what was missed.
fn line(tapped: &Tapped, terminal: Terminal, users: &mut Users) -> String {
    let mut out = String::new();
    if tapped.missed > 0 {
        let gap = match tapped.missed {
            1 => "... 1 message missed".into(),
            n => format!("... {n} messages missed"),
        };
        out += &terminal.paint(&gap, Tone::Warning);
        out.push('\n');
    }
    let Some(message) = &tapped.message else {
        return out;
    };
    let time = UNIX_EPOCH + Duration::try_from_secs_f64(message.time).unwrap_or_default();
    let time = humantime::format_rfc3339_millis(time);
    let pid = message.pid.map_or("-".into(), |pid| pid.to_string());
    let user = users.show(message.uid);
    let who = match (message.client, message.receivers) {
        (0, 0) => String::new(),
        (0, n) => format!(" to {n}"),
        (client, 0) => format!(" client {client}"),
        (client, n) => format!(" client {client} to {n}"),
    };
    let rest = if message.truncated { "…" } else { "" };
    let text = one_line(&message.message);
    out + &format!("{time} {user}[{pid}]{who}: {text}{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message {
            time: 1_764_357_631.25,
            client: 17,
            uid: 0,
            gid: 0,
            pid: Some(1234),
            unit: Some("a.service".into()),
            user_unit: None,
            message: text.into(),
            message_base64: None,
            truncated: false,
            receivers: 3,
        }
    }

    fn shown(message: Option<Message>, missed: u64) -> String {
        let tapped = Tapped { message, missed };
        line(&tapped, Terminal::none(None), &mut Users::default())
    }

    #[test]
    fn a_message_is_a_line() {
        assert_eq!(
            shown(Some(message("a\nb")), 0),
            "2025-11-28T19:20:31.250Z root[1234] client 17 to 3: a\\nb\n"
        );
        let other = Message {
            client: 0,
            receivers: 0,
            pid: None,
            truncated: true,
            time: -1.0,
            ..message("x")
        };
        assert_eq!(
            shown(Some(other), 2),
            "... 2 messages missed\n1970-01-01T00:00:00.000Z root[-]: x…\n"
        );
        assert_eq!(shown(None, 0), "");
    }

    #[test]
    fn json_has_the_names_of_the_interface_and_the_user() {
        let tapped = Tapped {
            message: Some(message("x")),
            missed: 1,
        };
        let mut users = Users::default();
        let object = serde_json::to_value(object(&tapped, &mut users)).unwrap_or_default();
        assert_eq!(object["missed"], 1);
        assert_eq!(object["message"]["user"], "root");
        assert_eq!(object["message"]["receivers"], 3);
        assert!(serde_json::from_value::<Tapped>(object).is_ok());
    }
}
