//! From which files a config comes, and where in them each key stands: for faults, for `--check`, and for whoever
//! watches the files.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use crate::error::Fault;

/// The files of a config, and the place of each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// In the order in which they are read; `None`: the embedded file.
    files: Vec<Option<PathBuf>>,
    /// The folders of drop-ins that there are, also those without a file.
    pub drop_ins: Vec<PathBuf>,
    /// Of each key and table, by its whole name ("socket.udsd.user").
    places: BTreeMap<String, Place>,
}

/// Where a key stands. A table stands where it was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Number of the file, from 0.
    file: usize,
    /// From 1.
    line: usize,
}

impl Origin {
    /// The files, in the order in which they are read, without the embedded one.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().flatten().map(PathBuf::as_path)
    }

    /// Whether all comes with the binary, or from the command line.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.files().next().is_none()
    }

    /// The next file.
    pub(super) fn add_file(&mut self, file: Option<&Path>) {
        self.files.push(file.map(Into::into));
    }

    /// A key of the file that was added last.
    pub(super) fn add_key(&mut self, key: String, line: usize) {
        let file = self.files.len().saturating_sub(1);
        self.places.insert(key, Place { file, line });
    }

    /// The place of `key`.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// The place of `key`, or of the nearest table around it.
    fn nearest(&self, key: &str) -> Option<Place> {
        self.place(key)
            .or_else(|| self.nearest(key.rsplit_once('.')?.0))
    }

    /// The file that has `key`, or the nearest table around it; `None` for the embedded file.
    #[must_use]
    pub fn file_of(&self, key: &str) -> Option<&Path> {
        self.file(self.nearest(key)?)
    }

    fn file(&self, place: Place) -> Option<&Path> {
        self.files.get(place.file)?.as_deref()
    }

    /// A fault of `key`. Where no file has the key, its place is that of its table.
    #[must_use]
    pub fn fault(&self, key: &str, message: String) -> Fault {
        let place = self.nearest(key);
        Fault {
            // What is missing is missing in the first.
            file: match place {
                Some(place) => self.file(place).map(Into::into),
                None => self.files.first().cloned().flatten(),
            },
            line: place.map(|place| place.line),
            key: key.into(),
            message,
        }
    }

    /// Puts faults into the order of the files.
    pub fn sort(&self, faults: &mut [Fault]) {
        faults.sort_by_key(|fault| {
            let file = self.files.iter().position(|file| *file == fault.file);
            let file = file.unwrap_or(self.files.len());
            (file, fault.line.unwrap_or(usize::MAX))
        });
    }

    /// Where `key` stands, as "FILE:LINE"; `None` where no file has it.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<String> {
        let place = self.place(key)?;
        Some(match self.file(place) {
            Some(file) => format!("{}:{}", file.display(), place.line),
            None => format!("{BUILT_IN}:{}", place.line),
        })
    }

    /// Where `[socket.NAME]` is switched off, as "FILE:LINE"; only of a config that has no such socket.
    #[must_use]
    pub fn of_switch(&self, name: &str) -> Option<String> {
        self.of(&switch(name))
    }

    /// The names of all tables `[socket.NAME]` whose switch a file has, on or off.
    pub(super) fn switched(&self) -> impl Iterator<Item = &str> {
        let keys = self.places.keys();
        keys.filter_map(|key| key.strip_prefix("socket.")?.strip_suffix(".enabled"))
    }
}

/// The whole name of the key that switches a socket off.
#[must_use]
pub fn switch(name: &str) -> String {
    format!("socket.{name}.enabled")
}

const BUILT_IN: &str = "the built-in udsd.toml";

/// All files.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.files.iter().map(|file| match file {
            Some(file) => file.display().to_string(),
            None => BUILT_IN.into(),
        });
        f.write_str(&names.collect::<Vec<_>>().join(", "))
    }
}
