//! The segments of a record on disk: files that were written to their end. The segment of `FILE` whose first
//! message has the number SEQ is `FILE.SEQ`, with 20 digits, so that names have the order of numbers. Nothing
//! else beside `FILE` is a segment: whatever has another name, or is no regular file, is left alone.
//!
//! A segment comes to be in one step, the rename of `FILE`. Then a new `FILE` is made, then old segments are
//! removed. A process may end between any two steps: without `FILE` a record goes on behind its last segment,
//! and what is too much is removed when the next segment ends.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// Digits of a number in a name: all that a `u64` can have.
const DIGITS: usize = 20;

/// The segment of the record `file` whose first message has the number `first`.
pub(super) fn path(file: &Path, first: u64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{first:0DIGITS$}"));
    name.into()
}

/// The number in the name of a segment of the record `file`.
fn number(file: &Path, name: &OsStr) -> Option<u64> {
    let digits = name.as_bytes().strip_prefix(file.file_name()?.as_bytes())?;
    let digits = digits.strip_prefix(b".")?;
    // Of `parse` alone a sign would pass.
    is_number(digits).then(|| str::from_utf8(digits).ok()?.parse().ok())?
}

fn is_number(digits: &[u8]) -> bool {
    digits.len() == DIGITS && digits.iter().all(u8::is_ascii_digit)
}

/// Whether a file of this name may be a segment of some record.
#[must_use]
pub fn has_segment_name(file: &Path) -> bool {
    let extension = file.extension();
    extension.is_some_and(|extension| is_number(extension.as_bytes()))
}

/// The numbers of all segments of the record `file`, the lowest first.
pub(super) fn all(file: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder(file))? {
        let entry = entry?;
        if let Some(number) = number(file, &entry.file_name())
            && entry.file_type()?.is_file()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where the record `file` is.
pub(super) fn folder(file: &Path) -> &Path {
    let folder = file.parent().filter(|of| !of.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes `file` a segment. Whatever has that name already stays as it is.
pub(super) fn end(file: &Path, first: u64) -> io::Result<()> {
    let segment = path(file, first);
    let renamed = match renameat_with(CWD, file, CWD, &segment, RenameFlags::NOREPLACE) {
        // Some file systems have no such rename.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(&segment) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(file, &segment),
            Err(error) => Err(error),
            Ok(_) => Err(Errno::EXIST.into()),
        },
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| match error.kind() {
        kind @ ErrorKind::AlreadyExists => {
            let fault = format!("{} is there already, move it away", segment.display());
            io::Error::new(kind, fault)
        }
        _ => error,
    })
}

/// The segments that are too many where `keep` are kept, the oldest first.
pub(super) fn too_many(file: &Path, keep: u32) -> io::Result<Vec<PathBuf>> {
    let mut all = all(file)?;
    all.truncate(all.len().saturating_sub(keep as usize));
    Ok(all.into_iter().map(|first| path(file, first)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{os::unix::fs::symlink, process};

    use super::*;

    #[test]
    fn only_files_with_such_names_are_segments() {
        let folder = std::env::temp_dir().join(format!("udsd-segment-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("record.json");
        let others = [
            "record.json.1",
            "record.json.0000000000000000001",
            "record.json.000000000000000000001",
            "record.json.+0000000000000000001",
            "record.json.99999999999999999999",
            "record.json.00000000000000000001.gz",
            "record.jsonx00000000000000000001",
            "other.json.00000000000000000001",
        ];
        for other in others {
            fs::write(folder.join(other), "").unwrap();
        }
        symlink("elsewhere", path(&file, 2)).unwrap();
        fs::create_dir(path(&file, 3)).unwrap();
        assert_eq!(all(&file).unwrap(), [0_u64; 0]);
        for first in [u64::MAX, 5, 100, 7] {
            fs::write(&file, first.to_string()).unwrap();
            end(&file, first).unwrap();
        }
        assert_eq!(all(&file).unwrap(), [5, 7, 100, u64::MAX]);
        fs::write(&file, "another").unwrap();
        let error = end(&file, 7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(path(&file, 7)).unwrap(), "7");
        assert_eq!(too_many(&file, 4).unwrap(), [""; 0].map(PathBuf::from));
        let oldest = [5, 7].map(|first| path(&file, first));
        assert_eq!(too_many(&file, 2).unwrap(), oldest);
        fs::remove_dir_all(&folder).unwrap();
    }
}
