//! What became of each socket, as a table or as JSON.

use std::{
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};

use super::socket::Wanted;
use crate::udsc::failure::Failure;

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
            name: wanted.socket.name.clone(),
            unit: wanted.unit.clone(),
            address: wanted.socket.address.to_string(),
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

    /// As JSON: what the table has no word for is null.
    pub(super) fn object(&self) -> Value {
        let known = |text: &str| (text != "-").then(|| text.to_owned());
        let (Ok(now) | Err(now)) = &self.outcome;
        json!({
            "name": known(&self.name),
            "unit": known(&self.unit),
            "path": known(&self.address),
            "ok": self.outcome.is_ok(),
            "now": now,
        })
    }
}

/// What became of the file that socket `name` had at `path`.
pub(super) fn note_file(
    rows: &mut Vec<Row>,
    name: &str,
    path: &Path,
    became: Result<String, String>,
) {
    if let Some(row) = rows.iter_mut().find(|row| row.name == name) {
        let is_well = row.outcome.is_ok() && became.is_ok();
        let (Ok(socket) | Err(socket)) = &row.outcome;
        let (Ok(file) | Err(file)) = &became;
        let both = format!("{socket}; {file}");
        row.outcome = if is_well { Ok(both) } else { Err(both) };
    } else {
        rows.push(Row {
            name: name.into(),
            unit: "-".into(),
            address: path.display().to_string(),
            outcome: became,
        });
    }
}

pub(super) fn print(rows: &[Row]) -> Result<(), Failure> {
    let mut lines = vec![["SOCKET", "UNIT", "ADDRESS", "NOW"].map(String::from)];
    lines.extend(rows.iter().map(|row| {
        let outcome = match &row.outcome {
            Ok(outcome) => outcome.clone(),
            Err(why) => format!("FAILED: {why}"),
        };
        let (name, unit, address) = (row.name.clone(), row.unit.clone(), row.address.clone());
        [name, unit, address, outcome]
    }));
    let [name, unit, address] = [0, 1, 2].map(|column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let mut out = io::stdout().lock();
    for [a, b, c, d] in &lines {
        writeln!(out, "{a:name$}  {b:unit$}  {c:address$}  {d}")
            .map_err(|error| Failure::Standard("output", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_null_where_the_table_has_nothing_to_say() {
        let failed = Row::of_unit("udsd.service", Err("why".into()));
        assert_eq!(
            failed.object().to_string(),
            r#"{"name":null,"now":"why","ok":false,"path":null,"unit":"udsd.service"}"#
        );
        let stopped = Row::of_unit("udsd-old.socket", Ok("stopped".into())).object();
        assert_eq!(
            (&stopped["name"], &stopped["ok"]),
            (&"old".into(), &true.into())
        );
    }
}
