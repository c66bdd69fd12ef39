//! Finds and reads the config file; `parse` makes sense of its text.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{BaseDirs, DEFAULT, Parsed, value::show_size};
use crate::error::Fault;

/// Longest config file that is read. `--check` may print more, and so the last good file has no such limit.
const FILE_SIZE: usize = 4 << 20;

impl Parsed {
    /// Reads `file`, or where that is `None` the first of `dirs.config_files` that exists, or else the
    /// embedded file.
    ///
    /// # Errors
    /// Why the file cannot be read, or is not TOML.
    pub fn load(file: Option<&Path>, dirs: &BaseDirs) -> Result<Self, Fault> {
        let candidates = match file {
            Some(file) => vec![file],
            None => dirs.config_files.iter().map(PathBuf::as_path).collect(),
        };
        for path in candidates {
            match read(path) {
                Ok(text) => return Self::new(&text, Some(path), dirs),
                Err(error) if is_absent(&error) && file.is_none() => {}
                Err(error) => {
                    let remedy = match error.kind() {
                        io::ErrorKind::NotFound => "; name a file that exists",
                        _ => "",
                    };
                    let message = format!("cannot be read: {error}{remedy}");
                    return Err(Fault::of_file(Some(path), None, message));
                }
            }
        }
        Self::new(DEFAULT.as_bytes(), None, dirs)
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = FILE_SIZE as u64 + 1;
    let file = open(file, OFlags::empty())?;
    file.take(most).read_to_end(&mut text)?;
    if text.len() > FILE_SIZE {
        let message = format!("it is longer than {}", show_size(FILE_SIZE as u64));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Opens a config file. A FIFO is refused: reading one would wait without end, whatever signals come.
pub(super) fn open(file: &Path, flags: OFlags) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NONBLOCK | flags).bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(file)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::other("it is no file: name a regular file"));
    }
    Ok(file)
}

/// A folder of the path may be a file or missing; either way nobody put a config there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
