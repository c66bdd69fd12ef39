//! `udsc read`: a record, across its segments, as `journalctl` reads the journal. The daemon is not asked, and need not
//! run.

mod place;
mod view;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::Path,
    time::SystemTime,
};

use clap::Args;

use super::{
    Options,
    clients::user,
    failure::{Failure, reason},
    moment, stdio,
    terminal::Terminal,
};
use crate::{
    record::{Entry, Item, Lined, Reader, Start, Watch},
    unit::Unit,
};
use place::Place;
use view::View;

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The NAME of a socket in udsd.toml, or the path of a record
    #[arg(value_name = "NAME-OR-FILE")]
    record: OsString,
    /// Begin with the message of this number
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["since", "last"])]
    from: Option<u64>,
    /// Begin with the first message at this time or later: "2026-11-22 06:20", "06:20", today, yesterday,
    /// "10min ago", -1h, 2026-11-22T06:20:31Z
    #[arg(short = 'S', long, value_name = "TIME", value_parser = moment::read,
        allow_hyphen_values = true, conflicts_with = "last")]
    since: Option<SystemTime>,
    /// Begin with the last N messages of those that are asked for
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<u64>,
    /// End with the last message at this time or before
    #[arg(short = 'U', long, value_name = "TIME", value_parser = moment::read,
        allow_hyphen_values = true)]
    until: Option<SystemTime>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only what this user sent, by name or number
    #[arg(long = "user", id = "sender", value_name = "USER")]
    user: Option<String>,
    /// Only what this systemd unit sent
    #[arg(short, long, value_name = "UNIT")]
    unit: Option<String>,
    /// Only what this process sent
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Only messages that contain TEXT
    #[arg(short, long, value_name = "TEXT")]
    grep: Option<String>,
    /// The lines of the record as they are
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    let place = Place::find(options, &plan.record)?;
    let path = &place.path;
    if place.lined == Lined::Text
        && let Some(option) = plan.needs_entries()
    {
        return Err(Failure::Told(format!(
            "{option} needs a record of format json, and {} is text",
            path.display()
        )));
    }
    let filter = Filter::new(plan, place.socket)?;
    // Before its end is seen: nothing that comes later goes unnoticed.
    let watch = plan.follow.then(|| Watch::new(path));
    let reader = match (plan.last, plan.from, plan.since) {
        (Some(count), ..) => Reader::open_last(path, place.lined, count, |line| {
            filter.wants_line(line, place.lined)
        }),
        (_, Some(seq), _) => Reader::open(path, place.lined, Start::Seq(seq)),
        (.., Some(time)) => Reader::open(path, place.lined, Start::Time(time)),
        _ => Reader::open(path, place.lined, Start::First),
    };
    let mut reader = reader.map_err(|error| unread(path, &error))?;
    let view = (!plan.json).then(|| View::new(Terminal::of_output(), filter.socket.is_none()));
    let mut output = Output {
        file: BufWriter::new(stdio::standard_output()?),
        filter,
        view,
        damaged: 0,
    };
    let ended = output.print(&mut reader, watch.as_ref(), path);
    // Whatever ended it, what was read before is printed.
    output.flush()?;
    ended?;
    match output.damaged {
        0 => Ok(()),
        1 => Err(Failure::Told("1 line is damaged".into())),
        n => Err(Failure::Told(format!("{n} lines are damaged"))),
    }
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (owner and mode of the file and of its folder say who may)"
        }
        _ => "",
    };
    let (path, reason) = (path.display(), reason(error));
    Failure::Told(format!("cannot read the record {path}: {reason}{remedy}"))
}

impl Plan {
    /// The option for which a line of text says too little, if there is one.
    fn needs_entries(&self) -> Option<&'static str> {
        let given = [
            ("--from", self.from.is_some()),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--user", self.user.is_some()),
            ("--unit", self.unit.is_some()),
            ("--pid", self.pid.is_some()),
            ("--json", self.json),
        ];
        let given = given.into_iter().find(|(_, is_given)| *is_given);
        given.map(|(option, _)| option)
    }
}

/// Which messages are asked for.
struct Filter {
    socket: Option<String>,
    from: Option<u64>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    uid: Option<u32>,
    unit: Option<String>,
    pid: Option<u32>,
    text: Option<String>,
}

impl Filter {
    fn new(plan: &Plan, socket: Option<String>) -> Result<Self, Failure> {
        Ok(Filter {
            socket,
            from: plan.from,
            since: plan.since,
            until: plan.until,
            uid: plan.user.as_deref().map(user).transpose()?,
            unit: plan.unit.as_deref().map(Unit::full_name),
            pid: plan.pid,
            text: plan.grep.clone(),
        })
    }

    fn wants_line(&self, line: &[u8], lined: Lined) -> bool {
        match lined {
            Lined::Text => self.wants_text(line),
            Lined::Entries => {
                Entry::parse(line).is_some_and(|entry| entry.seq.is_some() && self.wants(&entry))
            }
        }
    }

    /// Whose a gap is, nobody knows: it is wanted wherever it is of the socket and of the time.
    fn wants(&self, entry: &Entry<'_>) -> bool {
        let fits = self
            .socket
            .as_ref()
            .is_none_or(|name| *name == entry.socket)
            && self.since.is_none_or(|since| entry.time >= since)
            && !self.is_over(entry);
        if entry.seq.is_none() || !fits {
            return fits;
        }
        let is_of = |unit: &String| [&entry.unit, &entry.user_unit].contains(&&Some(unit.clone()));
        self.from.is_none_or(|from| entry.seq >= Some(from))
            && self.uid.is_none_or(|uid| entry.uid == Some(uid))
            && self.pid.is_none_or(|pid| entry.pid == Some(pid))
            && self.unit.as_ref().is_none_or(is_of)
            && self.wants_text(&entry.bytes())
    }

    fn wants_text(&self, text: &[u8]) -> bool {
        let is_in = |wanted: &String| memchr::memmem::find(text, wanted.as_bytes()).is_some();
        self.text.as_ref().is_none_or(is_in)
    }

    fn is_over(&self, entry: &Entry<'_>) -> bool {
        self.until.is_some_and(|until| entry.time > until)
    }
}

/// Standard output.
struct Output {
    file: BufWriter<File>,
    filter: Filter,
    /// `None`: lines are printed as they are.
    view: Option<View>,
    /// Lines that are damaged.
    damaged: u64,
}

impl Output {
    /// Prints what is asked for, to the end, or with a `watch` until nobody reads it any more.
    fn print(
        &mut self,
        reader: &mut Reader,
        watch: Option<&Watch>,
        path: &Path,
    ) -> Result<(), Failure> {
        loop {
            match reader.next().map_err(|error| unread(path, &error))? {
                Some(Item::Entry(_, entry)) if self.filter.is_over(&entry) => return Ok(()),
                Some(item) => self.item(&item)?,
                None => {
                    let Some(watch) = watch else {
                        return Ok(());
                    };
                    self.flush()?;
                    let is_closed = watch.wait(self.file.get_ref().as_fd());
                    if is_closed.map_err(|error| Failure::System("poll(2)", error))? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), Failure> {
        let shown = match (item, &mut self.view) {
            (Item::Entry(_, entry), _) if !self.filter.wants(entry) => return Ok(()),
            (Item::Text(text), _) if !self.filter.wants_text(text) => return Ok(()),
            (Item::Entry(line, _) | Item::Text(line), None) => return self.line(line),
            (Item::Entry(_, entry), Some(view)) => view.entry(entry),
            (Item::Text(text), Some(view)) => view.text(text),
            (Item::Missing(first, last), Some(view)) => view.missing(*first, *last),
            (Item::Missing(first, last), None) => {
                return self.complain(&view::missing(*first, *last));
            }
            (Item::Damaged(damage), _) => {
                self.damaged += 1;
                let (path, offset) = (damage.path.display(), damage.offset);
                return self.complain(&format!("{path}, byte {offset}: {}", damage.what));
            }
        };
        self.line(shown.as_bytes())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(line);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| Failure::Standard("output", error))
    }

    /// On standard error, behind what was printed so far.
    fn complain(&mut self, text: &str) -> Result<(), Failure> {
        self.flush()?;
        eprintln!("udsc: {text}");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.file.flush();
        flushed.map_err(|error| Failure::Standard("output", error))
    }
}
