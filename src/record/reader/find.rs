//! Finds where in a file to begin, by the number or the time of its lines: a search by halves, since both grow.

use std::io;

use super::lines::{Lines, Text};
use crate::record::entry::Entry;

/// Whether a line stands before where to begin; `None` where it does not tell.
pub(super) type IsBefore<'a> = dyn Fn(&Entry<'_>) -> Option<bool> + 'a;

/// So many bytes are read line by line.
const NEAR: u64 = 64 * 1024;
/// Lines at the start of a file of which one must tell.
const FIRST: usize = 100;

/// Whether the next line is before; `None` where there is none, and within where it does not tell.
fn next(lines: &mut Lines, is_before: &IsBefore<'_>) -> io::Result<Option<Option<bool>>> {
    let found = lines.next()?;
    Ok(found.map(|found| match &found.text {
        Text::Whole(range) => Entry::parse(lines.text(range)).and_then(|it| is_before(&it)),
        _ => None,
    }))
}

/// Whether the file starts with a line that `is_before`.
pub(super) fn starts_with(lines: &mut Lines, is_before: &IsBefore<'_>) -> io::Result<bool> {
    lines.seek(0);
    for _ in 0..FIRST {
        match next(lines, is_before)? {
            None => break,
            Some(Some(is_before)) => return Ok(is_before),
            Some(None) => {}
        }
    }
    Ok(false)
}

/// Goes to the first line behind the last that `is_before`.
pub(super) fn seek(lines: &mut Lines, is_before: &IsBefore<'_>) -> io::Result<()> {
    // `low` is the start of a line, and all before it are.
    let (mut low, mut high) = (0, lines.size()?);
    while high.saturating_sub(low) > NEAR {
        let middle = low + (high - low) / 2;
        // From the byte before on: what follows a line feed is the start of a line.
        lines.seek(middle - 1);
        let mut found = lines.next()?.map(|_| None);
        while found == Some(None) && lines.offset() < high {
            found = next(lines, is_before)?;
        }
        match found {
            Some(Some(true)) => low = lines.offset(),
            _ => high = middle,
        }
    }
    lines.seek(low);
    loop {
        match next(lines, is_before)? {
            Some(Some(true)) => low = lines.offset(),
            Some(None) => {}
            Some(Some(false)) | None => break,
        }
    }
    lines.seek(low);
    Ok(())
}
