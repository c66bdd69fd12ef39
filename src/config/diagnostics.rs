//! The faults found so far, and which values they made useless.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use toml::Value;

use crate::error::{Fault, Faults};

/// Collects every fault of one file, or of one command line.
pub(super) struct Diagnostics {
    file: Option<PathBuf>,
    /// Line of each key and table that was given; 0 where there is none.
    lines: BTreeMap<String, usize>,
    /// The options that give keys: "--type" for "socket.NAME.type".
    options: BTreeMap<String, &'static str>,
    /// Keys whose value could not be used; what depends on them is not judged.
    invalid: BTreeSet<String>,
    found: Vec<Fault>,
}

impl Diagnostics {
    /// For a file that gives these keys.
    pub(super) fn of_file(file: Option<&Path>, lines: BTreeMap<String, usize>) -> Self {
        Self {
            file: file.map(Into::into),
            lines,
            options: BTreeMap::new(),
            invalid: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// For a command line: each key, its option, and whether it is given.
    pub(super) fn of_options(options: impl Iterator<Item = (String, &'static str, bool)>) -> Self {
        let mut faults = Self::of_file(None, BTreeMap::new());
        for (key, option, given) in options {
            if given {
                faults.lines.insert(key.clone(), 0);
            }
            faults.options.insert(key, option);
        }
        faults
    }

    /// Whether the file or the command line gives `key`.
    pub(super) fn given(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// A value that cannot be used.
    pub(super) fn invalid(&mut self, key: &str, message: &str) {
        self.invalid.insert(key.into());
        self.add(key, message);
    }

    /// Values that contradict each other: reported for the first of `keys` that was given. Where one of them
    /// could not be used, that fault is enough.
    pub(super) fn clash(&mut self, keys: &[&str], message: &str) {
        if keys.iter().any(|key| self.invalid.contains(*key)) {
            return;
        }
        let key = keys.iter().find(|key| self.given(key)).or(keys.first());
        self.add(key.copied().unwrap_or_default(), message);
    }

    /// A fault at `line`, whether the file gives `key` or not.
    pub(super) fn at(&mut self, line: Option<usize>, key: &str, message: &str) {
        self.found.push(Fault {
            file: self.file.clone(),
            line,
            key: key.into(),
            message: one_line(message),
        });
    }

    fn add(&mut self, key: &str, message: &str) {
        let line = line(&self.lines, key).filter(|line| *line > 0);
        let key = self.options.get(key).copied().unwrap_or(key).to_owned();
        self.at(line, &key, message);
    }

    /// A key and its value, as the file or the command line writes them.
    pub(super) fn setting(&self, key: &str, value: &Value) -> String {
        match (self.options.get(key), value) {
            (Some(option), Value::String(text)) => format!("{option} {text}"),
            _ => format!("{} = {value}", key.rsplit('.').next().unwrap_or(key)),
        }
    }

    /// All faults, in the order of the file.
    pub(super) fn found(mut self) -> Vec<Fault> {
        self.found
            .sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        self.found
    }

    /// Fails with all faults where there is one.
    pub(super) fn verdict(self) -> Result<(), Faults> {
        Faults::of_config(self.found())
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
