//! What standard output is: how wide, and whether it shows colours.

use std::io::{IsTerminal, stdout};

use rustix::termios::tcgetwinsize;

/// Columns where nobody says.
const COLUMNS: usize = 80;

/// The columns of the terminal; 80 where there is none.
pub(crate) fn columns() -> usize {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS,
    }
}

/// Whether to print in colour: on a terminal that can, and where NO_COLOR (<https://no-color.org>) is not set.
pub(crate) fn has_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stdout().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}
