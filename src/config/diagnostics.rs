//! The faults found so far, and which values they made useless.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::origin::Origin;
use crate::error::{Fault, Faults};

/// Collects every fault of the files, or of one command line.
pub(super) struct Diagnostics {
    /// Empty for a command line.
    pub(super) origin: Origin,
    /// The options that give keys: "--type" for "socket.NAME.type", and whether each is given.
    options: BTreeMap<String, (&'static str, bool)>,
    /// Keys whose value could not be used; what depends on them is not judged.
    invalid: BTreeSet<String>,
    found: Vec<Fault>,
}

impl Diagnostics {
    /// For files, of which these faults are known.
    pub(super) fn of_files(origin: Origin, found: Vec<Fault>) -> Self {
        Self {
            origin,
            options: BTreeMap::new(),
            invalid: BTreeSet::new(),
            found,
        }
    }

    /// For a command line: each key, its option, and whether it is given.
    pub(super) fn of_options(options: impl Iterator<Item = (String, &'static str, bool)>) -> Self {
        let options = options.map(|(key, option, given)| (key, (option, given)));
        Self {
            options: options.collect(),
            ..Self::of_files(Origin::default(), Vec::new())
        }
    }

    /// Whether a file or the command line gives `key`.
    pub(super) fn given(&self, key: &str) -> bool {
        let option = self.options.get(key);
        option.is_some_and(|(_, given)| *given) || self.origin.place(key).is_some()
    }

    /// A value that cannot be used.
    pub(super) fn invalid(&mut self, key: &str, message: &str) {
        self.invalid.insert(key.into());
        self.add(key, message);
    }

    /// Values that contradict each other: reported for the first of `keys` that was given, with the place of one
    /// that another file gives. Where one of them could not be used, that fault is enough.
    pub(super) fn clash(&mut self, keys: &[&str], message: &str) {
        if keys.iter().any(|key| self.invalid.contains(*key)) {
            return;
        }
        let mut given = keys.iter().copied().filter(|key| self.given(key));
        let key = given.next().or(keys.first().copied()).unwrap_or_default();
        let file = self.origin.file_of(key);
        let elsewhere = given.find(|other| self.origin.file_of(other) != file);
        match elsewhere.and_then(|other| Some((other, self.origin.of(other)?))) {
            Some((other, place)) => self.add(key, &format!("{message} ({other}: {place})")),
            None => self.add(key, message),
        }
    }

    fn add(&mut self, key: &str, message: &str) {
        let mut fault = self.origin.fault(key, one_line(message));
        if let Some((option, _)) = self.options.get(key) {
            fault.key = (*option).into();
        }
        self.found.push(fault);
    }

    /// A key and its value, as the file or the command line writes them.
    pub(super) fn setting(&self, key: &str, value: &Value) -> String {
        match (self.options.get(key), value) {
            (Some((option, _)), Value::String(text)) => format!("{option} {text}"),
            _ => format!("{} = {value}", key.rsplit('.').next().unwrap_or(key)),
        }
    }

    /// All faults, in the order of the files, and where each key is.
    pub(super) fn found(mut self) -> (Vec<Fault>, Origin) {
        self.origin.sort(&mut self.found);
        (self.found, self.origin)
    }

    /// Fails with all faults where there is one.
    pub(super) fn verdict(self) -> Result<(), Faults> {
        Faults::of_config(self.found().0)
    }
}

/// A fault is one line of a log whatever the file holds.
pub(super) fn one_line(message: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    message.chars().map(escape).collect()
}
