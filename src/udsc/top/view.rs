//! What `udsc top` shows: the last answer with its rates, and where the keys have led. Draws into whatever frame it
//! is given.

use std::cmp::Reverse;

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Paragraph, Wrap},
};

use super::{
    Answer, Sample,
    rates::{Before, Counts, Rates},
};
use crate::{
    control::{Client, Socket, Status},
    udsc::{
        clients::waits,
        show::{Users, count, one_line, size, span},
        table::{Cell, Column, Table},
        terminal::Tone,
        troubles::{Troubles, lags, record_cell},
    },
};

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Quit,
}

/// What clients are sorted by; the key, and its word in the help.
const KEYS: [(char, &str, Key); 7] = [
    ('m', "in", Key::Rate(0)),
    ('b', "bytes in", Key::Rate(1)),
    ('M', "out", Key::Rate(2)),
    ('B', "bytes out", Key::Rate(3)),
    ('w', "queue", Key::Queue),
    ('u', "user", Key::User),
    ('i', "id", Key::Id),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The place among the rates.
    Rate(usize),
    Queue,
    User,
    Id,
}

/// The last answer, with what is made of it.
struct Shown {
    status: Status,
    sockets: Vec<(Socket, Rates)>,
    clients: Vec<(Client, Rates)>,
}

/// The screen.
pub(super) struct View {
    shown: Option<Shown>,
    /// Why the last question had no answer.
    problem: Option<String>,
    clients_before: Before<u64>,
    sockets_before: Before<String>,
    users: Users,
    sort: Key,
    filter: String,
    /// Keys go into the filter.
    is_typing: bool,
    /// The first client on the screen.
    first: usize,
    /// How many have room.
    room: usize,
}

impl Default for View {
    fn default() -> Self {
        Self {
            shown: None,
            problem: None,
            clients_before: Before::default(),
            sockets_before: Before::default(),
            users: Users::default(),
            sort: Key::Rate(0),
            filter: String::new(),
            is_typing: false,
            first: 0,
            room: 1,
        }
    }
}

fn of_client(client: &Client) -> Counts {
    let Client {
        messages_in,
        bytes_in,
        messages_out,
        bytes_out,
        ..
    } = *client;
    [messages_in, bytes_in, messages_out, bytes_out]
}

fn of_socket(socket: &Socket) -> Counts {
    let count = |name: &str| socket.counters.get(name).copied().unwrap_or(0);
    [count("messages"), count("bytes"), 0, 0]
}

impl View {
    /// Takes what the daemon said.
    pub(super) fn take(&mut self, answer: Answer) {
        let Sample {
            at,
            status,
            sockets,
            clients,
        } = match answer {
            Ok(sample) => sample,
            Err(why) => {
                self.problem = Some(why);
                // What was seen last may be long gone.
                self.shown = None;
                return;
            }
        };
        self.problem = None;
        let (by_id, by_name) = (&self.clients_before, &self.sockets_before);
        let client_rates = |client: Client| {
            let rates = by_id.rates(&client.id, at, of_client(&client), client.age);
            (client, rates)
        };
        let socket_rates = |socket: Socket| {
            let rates = by_name.rates(&socket.name, at, of_socket(&socket), status.age);
            (socket, rates)
        };
        let shown = Shown {
            sockets: sockets.into_iter().map(socket_rates).collect(),
            clients: clients.into_iter().map(client_rates).collect(),
            status,
        };
        let ids = shown.clients.iter();
        self.clients_before = Before::new(at, ids.map(|(it, _)| (it.id, of_client(it))));
        let names = shown.sockets.iter();
        self.sockets_before =
            Before::new(at, names.map(|(it, _)| (it.name.clone(), of_socket(it))));
        self.shown = Some(shown);
        self.sort();
    }

    fn sort(&mut self) {
        let Some(Shown { clients, .. }) = &mut self.shown else {
            return;
        };
        match self.sort {
            Key::Rate(i) => clients.sort_by(|(_, a), (_, b)| b[i].total_cmp(&a[i])),
            Key::Queue => clients.sort_by_key(|(client, _)| Reverse(client.queue)),
            Key::User => clients.sort_by_cached_key(|(client, _)| self.users.show(client.uid)),
            Key::Id => clients.sort_by_key(|(client, _)| client.id),
        }
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Then {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Then::Quit,
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::Down => self.first += 1,
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.room),
            KeyCode::PageDown => self.first += self.room,
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = usize::MAX,
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace if self.is_typing => drop(self.filter.pop()),
            KeyCode::Char(c) if self.is_typing && !is_control => self.filter.push(c),
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char(c) => {
                if let Some((_, _, sort)) = KEYS.iter().find(|(key, ..)| *key == c) {
                    self.sort = *sort;
                    self.first = 0;
                    self.sort();
                }
            }
            _ => {}
        }
        Then::GoOn
    }

    /// Draws all of it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [body, help] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Line::from(self.help()), help);
        let Some(shown) = &self.shown else {
            let text = self.problem.as_deref().unwrap_or("asking udsd ...");
            let tone = match self.problem {
                Some(_) => Tone::Error,
                None => Tone::Plain,
            };
            let lines: Vec<Line<'_>> = text.lines().map(|line| styled(line, tone)).collect();
            let wrapped = Paragraph::new(lines).wrap(Wrap { trim: true });
            frame.render_widget(wrapped, body);
            return;
        };
        let head = head(&shown.status);
        // Clients have the larger part, however many sockets there are.
        let most = usize::from(body.height / 3).max(3);
        let sockets = sockets(&shown.sockets, body.width.into(), most);
        let heights = [
            Constraint::Length(head.len() as u16 + 1),
            Constraint::Length(sockets.len() as u16 + 1),
            Constraint::Min(0),
        ];
        let [top, middle, bottom] = Layout::vertical(heights).areas(body);
        frame.render_widget(Text::from(head), top);
        frame.render_widget(Text::from(sockets), middle);
        self.draw_clients(frame, bottom);
    }

    fn draw_clients(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let Some(shown) = &self.shown else { return };
        let filter = self.filter.to_lowercase();
        let mut rows = Vec::new();
        for (client, rates) in &shown.clients {
            let row = client_row(client, *rates, &mut self.users);
            let has_it = |cell: &Cell| cell.text.to_lowercase().contains(&filter);
            if filter.is_empty() || row.iter().any(has_it) {
                rows.push(row);
            }
        }
        self.room = usize::from(area.height.saturating_sub(1)).max(1);
        self.first = self.first.min(rows.len().saturating_sub(self.room));
        rows.drain(..self.first);
        rows.truncate(self.room);
        let table = Table {
            columns: &CLIENTS,
            rows,
        };
        let lines = table.lines(Some(area.width.into()));
        let lines: Vec<Line<'_>> = lines.into_iter().map(line).collect();
        frame.render_widget(Text::from(lines), area);
    }

    fn help(&self) -> String {
        if self.is_typing {
            return format!("filter: {}_  (Enter keeps it, Esc drops it)", self.filter);
        }
        let mut words = vec!["q quit".to_owned(), "/ filter".into()];
        if !self.filter.is_empty() {
            words[1] = format!("/ filter: {} (Esc drops it)", self.filter);
        }
        words.extend(
            KEYS.iter()
                .map(|(key, word, sort)| match *sort == self.sort {
                    true => format!("{key} [{word}]"),
                    false => format!("{key} {word}"),
                }),
        );
        words.join("  ")
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Heading => Style::new().add_modifier(Modifier::BOLD),
        Tone::Warning => Style::new().fg(Color::Yellow),
        Tone::Error => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

fn styled(text: &str, tone: Tone) -> Line<'static> {
    Line::styled(text.to_owned(), style(tone))
}

fn line(cells: Vec<Cell>) -> Line<'static> {
    let spans = cells.into_iter();
    let spans = spans.map(|cell| Span::styled(cell.text, style(cell.tone)));
    Line::from(spans.collect::<Vec<_>>())
}

fn head(status: &Status) -> Vec<Line<'static>> {
    let first = format!(
        "udsd {}, pid {}, running for {}",
        one_line(&status.version),
        status.pid,
        span(status.age)
    );
    let second = format!(
        "{} of {} clients, {} of {} held",
        status.clients,
        status.limits.clients,
        size(status.held as u64),
        size(status.limits.queue_total as u64)
    );
    let mut lines = vec![styled(&first, Tone::Heading), styled(&second, Tone::Plain)];
    let problem = status.problem.as_deref().map(one_line);
    lines.extend(problem.map(|problem| styled(&problem, Tone::Error)));
    lines
}

const SOCKETS: [Column; 10] = [
    Column::text("SOCKET", 0),
    Column::text("SERVICE", 1),
    Column::number("CLIENTS", 0),
    Column::number("WAITING", 2),
    Column::number("MSGS/S", 0),
    Column::number("BYTES/S", 0),
    Column::number("REFUSED", 0),
    Column::number("DROPPED", 0),
    Column::number("CLOSED", 0),
    Column::text("RECORD", 0),
];

/// The table of sockets in at most so many lines. Where not all have room, those whose record is behind come first,
/// then those where the most passes.
fn sockets(sockets: &[(Socket, Rates)], width: usize, most: usize) -> Vec<Line<'static>> {
    let mut chosen: Vec<&(Socket, Rates)> = sockets.iter().collect();
    if chosen.len() + 1 > most {
        let is_well = |of: &Socket| !of.record.as_ref().is_some_and(lags);
        chosen.sort_by(|(a, ra), (b, rb)| {
            let by_record = is_well(a).cmp(&is_well(b));
            let by_rate = || rb[0].total_cmp(&ra[0]);
            let by_clients = || b.clients.cmp(&a.clients);
            by_record.then_with(by_rate).then_with(by_clients)
        });
        chosen.truncate(most.saturating_sub(2));
    }
    let left_out = sockets.len() - chosen.len();
    let rows = chosen.into_iter().map(|(socket, rates)| {
        let troubles = Troubles::new(socket);
        [
            one_line(&socket.name).into(),
            one_line(&socket.service).into(),
            socket.clients.to_string().into(),
            socket.senders_waiting.to_string().into(),
            count(rates[0].round() as u64).into(),
            size(rates[1].round() as u64).into(),
            troubles.cell("refused"),
            troubles.cell("dropped"),
            troubles.cell("closed"),
            record_cell(socket),
        ]
    });
    let table = Table {
        columns: &SOCKETS,
        rows: rows.collect(),
    };
    let lines = table.lines(Some(width)).into_iter();
    let mut lines: Vec<Line<'_>> = lines.map(line).collect();
    if left_out > 0 {
        let text = format!("and {left_out} more: udsc status shows all");
        lines.push(styled(&text, Tone::Plain));
    }
    lines
}

const CLIENTS: [Column; 12] = [
    Column::number("ID", 0),
    Column::text("USER", 0),
    Column::number("PID", 0),
    Column::text("SOCKET", 0),
    Column::number("SINCE", 4),
    Column::number("IDLE", 1),
    Column::number("QUEUE", 0),
    Column::number("IN/S", 0),
    Column::number("BYTES/S", 0),
    Column::number("OUT/S", 2),
    Column::number("BYTES/S", 3),
    Column::text("WAITS FOR", 0),
];

fn client_row(client: &Client, rates: Rates, users: &mut Users) -> [Cell; 12] {
    let [messages_in, bytes_in, messages_out, bytes_out] = rates.map(|rate| rate.round() as u64);
    [
        client.id.to_string().into(),
        users.show(client.uid).into(),
        client.pid.map_or("-".into(), |pid| pid.to_string()).into(),
        one_line(&client.socket).into(),
        span(client.age).into(),
        span(client.idle).into(),
        size(client.queue as u64).into(),
        count(messages_in).into(),
        size(bytes_in).into(),
        count(messages_out).into(),
        size(bytes_out).into(),
        waits(client),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::{Duration, Instant};

    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;

    /// The daemon `seconds` after `start`, with its clients: their numbers, and messages in.
    fn sample(start: Instant, seconds: u64, clients: &[(u64, u64)]) -> Sample {
        let limits = json!({"clients": 100, "clients_per_user": 50, "queue_per_user": 1024, "queue_total": 2048});
        let status = json!({"version": "1.2.3", "pid": 7, "age": 60.0, "config": [], "problem": null,
            "sockets": 1, "clients": clients.len(), "held": 512, "limits": limits});
        let socket = json!({"name": "bus", "path": "/run/bus", "type": "stream", "service": "relay",
            "framing": "lines", "inherited": false, "draining": false, "clients": 2, "senders_waiting": 1,
            "counters": {"messages": 100 * seconds, "bytes": 0, "refused_access": 3}, "record": null, "last": []});
        let client = |(id, messages): &(u64, u64)| {
            serde_json::from_value(
                json!({"id": id, "socket": "bus", "uid": id % 2, "gid": 0, "pid": 10 + id,
                "age": 3600.0, "idle": 1.0, "queue": id, "held": 0, "messages_in": messages, "bytes_in": 0,
                "messages_out": 0, "bytes_out": 0, "dropped": 0, "waits_for": null, "holds_up": *id == 2}),
            )
        };
        Sample {
            at: start + Duration::from_secs(seconds),
            status: serde_json::from_value(status).unwrap(),
            sockets: vec![serde_json::from_value(socket).unwrap()],
            clients: clients.iter().map(|of| client(of).unwrap()).collect(),
        }
    }

    fn screen(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let text = terminal.backend().to_string();
        let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
        lines.map(str::to_owned).collect()
    }

    fn press(view: &mut View, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                'v' => KeyCode::Down,
                key => KeyCode::Char(key),
            };
            assert_eq!(view.press(code.into()), Then::GoOn);
        }
    }

    fn ids(view: &mut View) -> Vec<String> {
        let lines = screen(view, 80, 20);
        let clients = lines[..19]
            .iter()
            .skip_while(|line| !line.contains("PID"))
            .skip(1);
        let ids = clients.map(|line| line.split_whitespace().next().unwrap_or("").to_owned());
        ids.take_while(|id| !id.is_empty()).collect()
    }

    fn two_samples() -> View {
        let (mut view, start) = (View::default(), Instant::now());
        view.take(Ok(sample(start, 1, &[(1, 1000), (2, 1000), (3, 1000)])));
        view.take(Ok(sample(start, 3, &[(1, 1000), (2, 1400), (3, 1020)])));
        view
    }

    #[test]
    fn a_screen_has_rates_sockets_and_clients() {
        let lines = screen(&mut two_samples(), 80, 20);
        assert_eq!(lines[0], "udsd 1.2.3, pid 7, running for 60s");
        assert_eq!(lines[1], "3 of 100 clients, 512B of 2KiB held");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&lines[4]), "bus relay 2 100 0B 3 0 0 -");
        assert_eq!(
            words(&lines[7]),
            "2 root 12 bus 1.0s 2B 200 0B 0 holds up others"
        );
        assert!(
            lines[19].starts_with("q quit") && lines[19].ends_with("i id"),
            "{}",
            lines[19]
        );
        assert!(screen(&mut two_samples(), 200, 20)[6].contains("SINCE"));
    }

    #[test]
    fn keys_sort_and_filter() {
        let mut view = two_samples();
        assert_eq!(ids(&mut view), ["2", "3", "1"]);
        press(&mut view, "w");
        assert_eq!(ids(&mut view), ["3", "2", "1"]);
        press(&mut view, "i");
        assert_eq!(ids(&mut view), ["1", "2", "3"]);
        press(&mut view, "/RooT");
        assert_eq!(ids(&mut view), ["2"]);
        assert!(screen(&mut view, 80, 20)[19].starts_with("filter: RooT_"));
        press(&mut view, "\n");
        assert!(screen(&mut view, 80, 20)[19].contains("/ filter: RooT"));
        press(&mut view, "\x1b");
        assert_eq!(ids(&mut view).len(), 3);
        let quit = [
            KeyEvent::from(KeyCode::Char('q')),
            KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ];
        assert!(quit.into_iter().all(|key| view.press(key) == Then::Quit));
    }

    #[test]
    fn more_clients_than_lines_are_scrolled() {
        let (mut view, start) = (View::default(), Instant::now());
        let clients: Vec<(u64, u64)> = (1..=30).map(|id| (id, 0)).collect();
        view.take(Ok(sample(start, 1, &clients)));
        press(&mut view, "ivv");
        assert_eq!(ids(&mut view)[0], "3");
        view.press(KeyCode::End.into());
        assert_eq!(ids(&mut view).last().map(String::as_str), Some("30"));
        view.press(KeyCode::Home.into());
        assert_eq!(ids(&mut view)[0], "1");
    }

    #[test]
    fn more_sockets_than_have_room_are_told_and_the_busiest_are_shown() {
        let (mut view, start) = (View::default(), Instant::now());
        for seconds in [1, 2] {
            let mut sample = sample(start, seconds, &[(1, 0)]);
            let busy = sample.sockets.remove(0);
            let quiet = (0..20).map(|i| Socket {
                name: format!("quiet{i}"),
                counters: Default::default(),
                clients: 0,
                ..busy.clone()
            });
            sample.sockets = quiet.chain([busy.clone()]).collect();
            view.take(Ok(sample));
        }
        let lines = screen(&mut view, 80, 20);
        assert!(lines[4].starts_with("bus ") && lines[5].starts_with("quiet0 "));
        assert_eq!(lines[8], "and 17 more: udsc status shows all");
        assert_eq!(lines[9], "");
        assert!(lines[10].starts_with("ID "), "{lines:#?}");
    }

    #[test]
    fn no_screen_is_too_small_and_no_answer_is_told() {
        let mut view = two_samples();
        for (width, height) in [(1, 1), (5, 3), (20, 6), (300, 2)] {
            screen(&mut view, width, height);
        }
        view.take(Err("your udsd is not running".into()));
        assert_eq!(
            screen(&mut view, 12, 4)[..2],
            ["your udsd is", "not running"]
        );
    }
}
