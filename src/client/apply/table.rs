//! What became of each socket, as a table.

use std::{
    io::{self, Write},
    path::Path,
};

use super::socket::Wanted;
use crate::client::failure::Failure;

/// What became of one socket, or of the service.
pub(super) struct Row {
    name: String,
    unit: String,
    address: String,
    /// The error is why it is not as the file says.
    pub(super) outcome: Result<String, String>,
}

impl Row {
    pub(super) fn of_socket(wanted: &Wanted, outcome: Result<String, String>) -> Self {
        Self {
            name: wanted.name.clone(),
            unit: wanted.unit.clone(),
            address: wanted.address.to_string(),
            outcome,
        }
    }

    /// For a unit that no socket of the file has: an old one, or the service.
    pub(super) fn of_unit(unit: &str, outcome: Result<String, String>) -> Self {
        let name = unit
            .strip_prefix("udsd-")
            .and_then(|rest| rest.strip_suffix(".socket"));
        Self {
            name: name.unwrap_or("-").into(),
            unit: unit.into(),
            address: "-".into(),
            outcome,
        }
    }
}

/// What became of the file that socket `name` had at `path`.
pub(super) fn note_file(
    rows: &mut Vec<Row>,
    name: &str,
    path: &Path,
    became: Result<String, String>,
) {
    let Some(row) = rows.iter_mut().find(|row| row.name == name) else {
        rows.push(Row {
            name: name.into(),
            unit: "-".into(),
            address: path.display().to_string(),
            outcome: became,
        });
        return;
    };
    let (Ok(outcome) | Err(outcome)) = &row.outcome;
    let (Ok(file) | Err(file)) = &became;
    let both = format!("{outcome}; {file}");
    row.outcome = match (&row.outcome, &became) {
        (Ok(_), Ok(_)) => Ok(both),
        _ => Err(both),
    };
}

pub(super) fn print(rows: &[Row]) -> Result<(), Failure> {
    let cells: Vec<[String; 4]> = rows.iter().map(cells).collect();
    let head = ["SOCKET", "UNIT", "ADDRESS", "NOW"].map(String::from);
    let all = || [&head].into_iter().chain(&cells);
    let width = |column: usize| {
        all()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [name, unit, address] = [0, 1, 2].map(width);
    let mut out = io::stdout().lock();
    for [a, b, c, d] in all() {
        writeln!(out, "{a:name$}  {b:unit$}  {c:address$}  {d}")
            .map_err(|error| Failure::Standard("output", error))?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 4] {
    let outcome = match &row.outcome {
        Ok(outcome) => outcome.clone(),
        Err(why) => format!("FAILED: {why}"),
    };
    [
        row.name.clone(),
        row.unit.clone(),
        row.address.clone(),
        outcome,
    ]
}
