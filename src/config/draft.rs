//! A file that may have faults: what of it can be used, and what is wrong with the rest. Finds and reads
//! the file; `parse` makes sense of its text.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::{Config, DEFAULT, Places, Socket, parse, source::join, value::show_size};
use crate::error::Fault;

/// Longest config file that is read.
const FILE_SIZE: usize = 1 << 20;

/// A file whose text is TOML.
#[derive(Clone, Debug)]
pub struct Draft {
    /// All sockets that have a table. A value that cannot be read has its default here.
    pub config: Config,
    /// In the order of the file.
    pub faults: Vec<Fault>,
}

impl Draft {
    /// Reads `file`, or where that is `None` the first of `places.files` that exists, or else the
    /// embedded file.
    ///
    /// # Errors
    /// Why the file cannot be read, or is not TOML.
    pub fn load(file: Option<&Path>, places: &Places) -> Result<Self, Fault> {
        if let Some(file) = file {
            let (text, _) = read(file, OFlags::empty()).map_err(|error| {
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound => "; name a file that exists",
                    _ => "",
                };
                unreadable(file, &error, remedy)
            })?;
            return Self::parse(&text, Some(file), places);
        }
        for file in &places.files {
            match read(file, OFlags::empty()) {
                Ok((text, _)) => return Self::parse(&text, Some(file), places),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(unreadable(file, &error, "")),
            }
        }
        Self::parse(DEFAULT.as_bytes(), None, places)
    }

    /// Makes sense of `text` as if it stood in `file`.
    ///
    /// # Errors
    /// Why it is not TOML.
    pub fn parse(text: &[u8], file: Option<&Path>, places: &Places) -> Result<Self, Fault> {
        let text = str::from_utf8(text).map_err(|error| {
            let whole = &text[..error.valid_up_to()];
            Fault {
                file: file.map(Into::into),
                line: Some(1 + whole.iter().filter(|&&b| b == b'\n').count()),
                key: String::new(),
                message: "is not UTF-8, which TOML has to be: save the file as UTF-8".into(),
            }
        })?;
        let (config, faults) = parse::parse(text, file, places)?;
        Ok(Self { config, faults })
    }

    /// Whether the table of `socket` has no fault.
    #[must_use]
    pub fn is_sound(&self, socket: &Socket) -> bool {
        let table = join("socket", &socket.name);
        let of_table = |fault: &Fault| {
            let rest = fault.key.strip_prefix(&table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.faults.iter().any(of_table)
    }

    /// The whole file, if it has no fault.
    ///
    /// # Errors
    /// All faults found.
    pub fn verdict(self) -> Result<Config, Vec<Fault>> {
        if self.faults.is_empty() {
            Ok(self.config)
        } else {
            Err(self.faults)
        }
    }
}

/// Reads a config file of at most `FILE_SIZE`, with its metadata. A FIFO is refused: reading one would wait
/// without end, whatever signals come.
pub(super) fn read(file: &Path, flags: OFlags) -> io::Result<(Vec<u8>, Metadata)> {
    let mut text = Vec::new();
    let most = FILE_SIZE as u64 + 1;
    let mut options = OpenOptions::new();
    let flags = (OFlags::NONBLOCK | flags).bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(file)?;
    let found = file.metadata()?;
    let kind = found.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::other("it is no file: name a regular file"));
    }
    file.take(most).read_to_end(&mut text)?;
    if text.len() > FILE_SIZE {
        let message = format!("it is longer than {}", show_size(FILE_SIZE as u64));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok((text, found))
}

/// A folder of the path may be a file or missing; either way nobody put a config there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unreadable(file: &Path, error: &io::Error, remedy: &str) -> Fault {
    Fault {
        file: Some(file.into()),
        line: None,
        key: String::new(),
        message: format!("cannot be read: {error}{remedy}"),
    }
}
