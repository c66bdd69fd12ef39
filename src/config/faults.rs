//! The faults found so far, and which values they made useless.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::value::quote;
use crate::error::Fault;

/// Collects every fault of one file, or of one command line.
pub(super) struct Faults {
    file: Option<PathBuf>,
    /// Line of each key and table that was given.
    lines: BTreeMap<String, usize>,
    /// Whether keys were given as options: `--type` for `socket.NAME.type`.
    options: bool,
    /// Keys whose value could not be used; what depends on them is not judged.
    invalid: BTreeSet<String>,
    found: Vec<Fault>,
}

impl Faults {
    /// Those of a file that gives these keys.
    pub(super) fn of_file(file: Option<&Path>, lines: BTreeMap<String, usize>) -> Self {
        Self {
            file: file.map(Into::into),
            lines,
            options: false,
            invalid: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// Those of a command line that gives these keys.
    pub(super) fn of_options(keys: impl Iterator<Item = String>) -> Self {
        Self {
            options: true,
            ..Self::of_file(None, keys.map(|key| (key, 0)).collect())
        }
    }

    /// Whether the file or the command line gives `key`.
    pub(super) fn given(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// Whether the value of `key` could not be used.
    pub(super) fn is_invalid(&self, key: &str) -> bool {
        self.invalid.contains(key)
    }

    /// A value that cannot be used.
    pub(super) fn invalid(&mut self, key: &str, message: &str) {
        self.invalid.insert(key.into());
        self.add(key, message);
    }

    /// Values that contradict each other: reported for the first of `keys` that was given. Where one
    /// could not be used, nothing is known.
    pub(super) fn clash(&mut self, keys: &[&str], message: &str) {
        if keys.iter().any(|key| self.is_invalid(key)) {
            return;
        }
        let key = keys.iter().find(|key| self.given(key)).or(keys.first());
        self.add(key.copied().unwrap_or_default(), message);
    }

    /// A value that is right but not available yet; a fault of its own goes before it.
    pub(super) fn not_yet(&mut self, key: &str, message: &str) {
        if !self.is_invalid(key) {
            self.invalid(key, message);
        }
    }

    /// A fault at a line known only by itself.
    pub(super) fn at(&mut self, line: Option<usize>, key: &str, message: &str) {
        self.found.push(Fault {
            file: self.file.clone(),
            line,
            key: key.into(),
            message: one_line(message),
        });
    }

    fn add(&mut self, key: &str, message: &str) {
        let line = if self.options {
            None
        } else {
            line(&self.lines, key)
        };
        self.at(line, &self.name(key), message);
    }

    fn name(&self, key: &str) -> String {
        if self.options {
            option(key)
        } else {
            key.into()
        }
    }

    /// A key of a socket and its value, as they are written where they were given.
    pub(super) fn setting(&self, key: &str, value: &str) -> String {
        match option(key) {
            option if self.options && option.starts_with('-') => format!("{option} {value}"),
            _ => format!("{key} = {}", quote(value)),
        }
    }

    /// The lines of the file, or all faults in its order.
    pub(super) fn verdict(mut self) -> Result<BTreeMap<String, usize>, Vec<Fault>> {
        if self.found.is_empty() {
            return Ok(if self.options {
                BTreeMap::new()
            } else {
                self.lines
            });
        }
        self.found
            .sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        Err(self.found)
    }
}

/// The option that gives a key of the ad-hoc socket; the bare key where there is none.
fn option(key: &str) -> String {
    let key = key.rsplit('.').next().unwrap_or(key);
    match key {
        "path" => "--socket".into(),
        "type" | "service" | "framing" => format!("--{key}"),
        _ => key.into(),
    }
}

/// The line of `key`, or of the nearest table around it.
pub(super) fn line(lines: &BTreeMap<String, usize>, key: &str) -> Option<usize> {
    lines
        .get(key)
        .copied()
        .or_else(|| line(lines, key.rsplit_once('.')?.0))
}

/// A fault is one line of a log whatever the file holds.
fn one_line(message: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    message.chars().map(escape).collect()
}
