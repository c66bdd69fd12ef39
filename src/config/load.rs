//! Finds and reads the config file and its drop-ins; `parse` makes sense of their texts.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    BaseDirs, Config, DEFAULT, Parsed,
    base_dirs::drop_ins_of,
    parse::{Layer, guess},
    value::show_size,
};
use crate::error::Fault;

/// Longest config file that is read. `--check` may print more, and so the last good file has no such limit.
const FILE_SIZE: usize = 4 << 20;

impl Parsed {
    /// Reads `file` and the drop-ins beside it; or where that is `None` `dirs.config_file`, or else the embedded
    /// file, and `dirs.drop_ins`.
    ///
    /// # Errors
    /// Why a file cannot be read, or is not TOML.
    pub fn load(file: Option<&Path>, dirs: &BaseDirs) -> Result<Self, Fault> {
        let of_file = file.map(|file| vec![drop_ins_of(file)]);
        let folders = of_file.as_ref().unwrap_or(&dirs.drop_ins);
        let main = match file.or(dirs.config_file.as_deref()) {
            Some(path) => match read(path) {
                Err(error) if is_absent(&error) && file.is_none() => None,
                Err(error) => return Err(unread(path, &error)),
                Ok(text) => Some(Layer::new(Some(path), text)),
            },
            None => None,
        };
        let mut layers = vec![main.unwrap_or_else(|| Layer::new(None, DEFAULT.into()))];
        let drop_ins = drop_ins(folders)?;
        for path in drop_ins.values() {
            let text = read(path).map_err(|error| unread(path, &error))?;
            // As /dev/null, it is there to hide another.
            if !text.is_empty() {
                layers.push(Layer::new(Some(path), text));
            }
        }
        let mut parsed = Self::of_layers(&layers, dirs)?;
        let folders = folders.iter().filter(|folder| folder.is_dir());
        parsed.config.origin.drop_ins = folders.cloned().collect();
        Ok(parsed)
    }
}

impl Config {
    /// What a file whose text is no TOML seems to say: nothing to serve by, but its daemon may be found by it.
    #[must_use]
    pub fn guess(file: &Path, dirs: &BaseDirs) -> Self {
        let text = read(file).unwrap_or_default();
        guess(&String::from_utf8_lossy(&text), dirs)
    }
}

fn unread(path: &Path, error: &io::Error) -> Fault {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; name a file that exists",
        io::ErrorKind::PermissionDenied => "; give the user that udsd runs as the right to",
        _ => "",
    };
    let message = format!("cannot be read: {error}{remedy}");
    Fault::of_file(Some(path), None, message)
}

/// The drop-ins of these folders, in the order in which they are read. One hides those of its name in later folders.
fn drop_ins(folders: &[PathBuf]) -> Result<BTreeMap<OsString, PathBuf>, Fault> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Err(error) if is_absent(&error) => continue,
            entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        for entry in entries.map_err(|error| unread(folder, &error))? {
            let name = entry.file_name();
            let bytes = name.as_bytes();
            // What an editor leaves beside a file is none.
            if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
                found.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    Ok(found)
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
