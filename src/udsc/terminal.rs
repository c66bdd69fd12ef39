//! What standard output is: how wide, and whether it shows colours; and how text gets there.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::failure::Failure;

/// Columns where nobody says.
const COLUMNS: usize = 80;

/// The columns of the terminal; 80 where there is none.
pub(crate) fn columns() -> usize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS,
    }
}

/// Whether to print in colour: on a terminal that can, and where NO_COLOR (<https://no-color.org>) is not set.
pub(crate) fn has_colour() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

/// What text is meant to catch the eye for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// A heading.
    Heading,
    /// Something was refused, dropped or closed.
    Warning,
    /// Something does not work now.
    Error,
}

/// How to show things on standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Columns; `None` where nobody looks.
    pub(crate) width: Option<usize>,
    colours: bool,
}

impl Terminal {
    /// That of standard output.
    pub(crate) fn of_output() -> Self {
        Self {
            width: io::stdout().is_terminal().then(columns),
            colours: has_colour(),
        }
    }

    /// Nobody looks.
    #[cfg(test)]
    pub(crate) fn none(width: Option<usize>) -> Self {
        let colours = false;
        Self { width, colours }
    }

    /// `text` in its tone.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.into(),
            _ if !self.colours => return text.into(),
            Tone::Heading => "1",
            Tone::Warning => "33",
            Tone::Error => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Writes to standard output, at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::Standard("output", error))
}

/// `objects` as JSON, one a line.
pub(crate) fn print_json(objects: impl IntoIterator<Item = impl Serialize>) -> Result<(), Failure> {
    let lines: Result<String, Failure> = objects.into_iter().map(|it| json_line(&it)).collect();
    print(&lines?)
}

/// `object` as a line of JSON.
pub(crate) fn json_line(object: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(object);
    let line = line.map_err(|error| Failure::Standard("output", error.into()))?;
    Ok(line + "\n")
}
