//! A record as people read it: one line a message, aligned, and nothing that a terminal would obey.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    record::{Entry, Fields, Gap},
    udsc::{
        moment,
        show::{Users, harmless, one_line, size},
        terminal::{Terminal, Tone},
    },
};

/// The widest that a column grows by itself.
const WIDEST: usize = 40;

/// What is shown of the lines to come.
pub(super) struct View {
    terminal: Terminal,
    users: Users,
    /// Lines of several sockets may come.
    shows_socket: bool,
    /// Columns, as wide as the widest so far.
    widths: [usize; 3],
}

impl View {
    pub(super) fn new(terminal: Terminal, shows_socket: bool) -> Self {
        View {
            terminal,
            users: Users::default(),
            shows_socket,
            widths: [0; 3],
        }
    }

    /// "TIME SEQ SOCKET USER[PID] UNIT  MESSAGE".
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> String {
        let mut out = time(entry.time);
        let socket = one_line(&entry.socket);
        if let Some(Gap { count, bytes }) = entry.gap {
            let what = match count {
                1 => "message",
                _ => "messages",
            };
            let text = format!("... {count} {what} ({}) of {socket} dropped", size(bytes));
            out.push(' ');
            return out + &self.terminal.paint(&text, Tone::Warning);
        }
        let seq = entry.seq.unwrap_or_default().to_string();
        out += &format!(" {seq:>width$}", width = self.width(0, &seq));
        if self.shows_socket {
            out += &format!(" {socket:<width$}", width = self.width(1, &socket));
        }
        let user = entry.uid.map_or("-".into(), |uid| self.users.show(uid));
        let pid = entry.pid.map_or("-".into(), |pid| pid.to_string());
        let mut who = format!("{user}[{pid}]");
        if let Some(unit) = entry.unit.as_ref().or(entry.user_unit.as_ref()) {
            who += &format!(" {}", one_line(unit));
        }
        out += &format!(" {who:<width$}", width = self.width(2, &who));
        let rest = if entry.truncated { "…" } else { "" };
        let (text, tone) = match &entry.syslog {
            None => (one_line(&entry.message), Tone::Plain),
            Some(fields) => (one_line(&said(fields)), tone(&fields.severity)),
        };
        out + "  " + &self.terminal.paint(&(text + rest), tone)
    }

    fn width(&mut self, column: usize, text: &str) -> usize {
        let width = &mut self.widths[column];
        *width = text.chars().count().min(WIDEST).max(*width);
        *width
    }

    pub(super) fn text(&self, line: &[u8]) -> String {
        harmless(&String::from_utf8_lossy(line))
    }

    pub(super) fn missing(&self, first: u64, last: u64) -> String {
        let text = format!("... {}", missing(first, last));
        self.terminal.paint(&text, Tone::Warning)
    }
}

/// "app[12]: text", of a syslog message.
fn said(fields: &Fields) -> String {
    let Fields {
        app, procid, text, ..
    } = fields;
    let procid = procid.as_ref().map(|id| format!("[{id}]"));
    let tag = app.clone().unwrap_or_default() + &procid.unwrap_or_default();
    match tag.is_empty() {
        true => text.clone(),
        false => format!("{tag}: {text}"),
    }
}

fn tone(severity: &str) -> Tone {
    match severity {
        "emerg" | "alert" | "crit" | "err" => Tone::Error,
        "warning" => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// What is not there.
pub(super) fn missing(first: u64, last: u64) -> String {
    match last - first {
        0 => format!("message {first} is missing"),
        _ => format!("messages {first} to {last} are missing"),
    }
}

/// "2026-11-22 06:20:31.123", in local time.
fn time(time: SystemTime) -> String {
    let Some(at) = moment::local(time) else {
        return humantime::format_rfc3339_millis(time).to_string();
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        at.year,
        at.month,
        at.day,
        at.hour,
        at.minute,
        at.second,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn shown(view: &mut View, rest: &str) -> String {
        let line = format!(r#"{{"time":"2026-11-22T06:20:31.123456Z","socket":"log",{rest}}}"#);
        let shown = view.entry(&Entry::parse(line.as_bytes()).unwrap());
        // The hour is that of the place where the test runs.
        assert_eq!(&shown[16..23], ":31.123");
        shown[24..].to_owned()
    }

    #[test]
    fn a_message_is_a_line_and_columns_grow() {
        let view = &mut View::new(Terminal::none(None), false);
        assert_eq!(
            shown(view, r#""seq":9,"pid":7,"uid":0,"message":"a\u001b[2J\nb""#),
            "9 root[7]  a\\u{1b}[2J\\nb"
        );
        let more = r#""seq":10,"uid":4000000001,"truncated":true,"unit":"a.service","message":"x""#;
        assert_eq!(shown(view, more), "10 4000000001[-] a.service  x…");
        assert_eq!(
            shown(view, r#""seq":1,"pid":7,"uid":0,"message":"""#),
            " 1 root[7]                  "
        );
        let fields = r#""seq":1,"uid":0,"message":"<11>a[1]: b","syslog":{"facility":"user","severity":"err","app":"a","procid":"1","text":"b\n"}"#;
        assert!(shown(view, fields).ends_with("  a[1]: b\\n"));
        let view = &mut View::new(Terminal::none(None), true);
        assert_eq!(
            shown(view, r#""seq":9,"pid":7,"uid":0,"message":"m""#),
            "9 log root[7]  m"
        );
    }

    #[test]
    fn what_is_not_there_is_a_line_too() {
        let view = &mut View::new(Terminal::none(None), false);
        assert_eq!(
            shown(view, r#""gap":{"count":2,"bytes":2048}"#),
            "... 2 messages (2KiB) of log dropped"
        );
        assert_eq!(view.missing(3, 3), "... message 3 is missing");
        assert_eq!(view.missing(3, 4), "... messages 3 to 4 are missing");
    }

    #[test]
    fn text_stays_as_it_is_without_what_a_terminal_obeys() {
        let view = View::new(Terminal::none(None), false);
        assert_eq!(
            view.text(b"a\\n\tb\x1b[2J\xff"),
            "a\\n\tb\\u{1b}[2J\u{fffd}"
        );
    }
}
