//! What the last process left in a record's file: the time and the number of the first JSON line, the number of
//! the last one, and whether the last line of all is whole.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    time::SystemTime,
};

use super::line::{seq_of, start_of};

/// What is read at once of a file whose last number is looked for.
const WINDOW: usize = 64 * 1024;

/// Whether the last line of a file of this size is unfinished.
pub(super) fn ends_torn(file: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// When the first JSON line that has a number was taken, and that number. It is looked for in one window.
pub(super) fn first_number(file: &File) -> io::Result<Option<(SystemTime, u64)>> {
    let mut window = Vec::new();
    let mut from_start = file;
    from_start.rewind()?;
    from_start.take(WINDOW as u64).read_to_end(&mut window)?;
    Ok(window.split(|&byte| byte == b'\n').find_map(start_of))
}

/// Where the last line of a file of this size begins, if that is within its last `most` bytes. The line is
/// unfinished.
pub(super) fn torn_start(file: &File, size: u64, most: u64) -> io::Result<Option<u64>> {
    let mut window = vec![0; WINDOW.min(usize::try_from(size).unwrap_or(WINDOW))];
    let floor = size.saturating_sub(most);
    let mut start = size;
    while start > floor {
        let above = start;
        start = above.saturating_sub(WINDOW as u64).max(floor);
        let piece = &mut window[..(above - start) as usize];
        file.read_exact_at(piece, start)?;
        if let Some(at) = memchr::memrchr(b'\n', piece) {
            return Ok(Some(start + at as u64 + 1));
        }
    }
    Ok((floor == 0).then_some(0))
}

/// The `seq` of the last whole JSON record of a file of this size, within its last `most` bytes. The
/// file may hold anything: what is kept of it is one window, and where the line found last ends.
pub(super) fn last_number(file: &File, size: u64, most: u64) -> io::Result<Option<u64>> {
    let mut window = vec![0; WINDOW.min(usize::try_from(size).unwrap_or(WINDOW))];
    let floor = size.saturating_sub(most);
    let mut start = size;
    // The line feed of the line whose start comes next.
    let mut end = None;
    while start > floor {
        let above = start;
        start = above.saturating_sub(WINDOW as u64).max(floor);
        let piece = &mut window[..(above - start) as usize];
        file.read_exact_at(piece, start)?;
        let mut rest = piece.len();
        while let Some(at) = memchr::memrchr(b'\n', &piece[..rest]) {
            let first = at + 1;
            let seq = match end.replace(start + at as u64) {
                None => None,
                Some(end) if end <= above => seq_of(&piece[first..(end - start) as usize])?,
                Some(end) => seq_between(file, start + first as u64, end)?,
            };
            if seq.is_some() {
                return Ok(seq);
            }
            rest = at;
        }
    }
    match end {
        Some(end) if floor == 0 => seq_between(file, 0, end),
        _ => Ok(None),
    }
}

/// The `seq` of the line between these two places, however long it is.
pub(super) fn seq_between(mut file: &File, start: u64, end: u64) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(start))?;
    seq_of(BufReader::new(file.take(end - start)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::{env, fs, process};

    use super::*;

    #[test]
    fn the_last_number_is_found_wherever_the_windows_end() {
        let path = env::temp_dir().join(format!("udsd-tail-{}", process::id()));
        let line = |seq: u64, message: &str| {
            format!("{{\"time\":\"\",\"socket\":\"s\",\"seq\":{seq},\"message\":\"{message}\"}}\n")
        };
        let last = |text: &[u8], most: u64| {
            fs::write(&path, text).unwrap();
            last_number(&File::open(&path).unwrap(), text.len() as u64, most).unwrap()
        };
        let found = line(7, "the message");
        let whole = u64::MAX;
        for before in ["", "x\n", &line(6, &"z".repeat(WINDOW))] {
            // Around the place where one or two windows end, byte by byte.
            for behind in (WINDOW - found.len() - 2..=WINDOW + 1).chain([2 * WINDOW - 1]) {
                let mut text = before.to_owned() + &found;
                text.extend(std::iter::repeat_n('y', behind.saturating_sub(1)));
                assert_eq!(last(text.as_bytes(), whole), Some(7), "torn, {behind}");
                text.push('\n');
                assert_eq!(last(text.as_bytes(), whole), Some(7), "{behind}");
            }
        }
        let long = line(1, "") + &line(2, &"m".repeat(5 * WINDOW)) + "x\n";
        assert_eq!(last(long.as_bytes(), whole), Some(2));
        let start = long.len() as u64 - line(1, "").len() as u64;
        // The line feed before a line tells that it is whole.
        assert_eq!(last(long.as_bytes(), start + 1), Some(2));
        assert_eq!(last(long.as_bytes(), start), None);
        assert_eq!(last(b"", whole), None);
        assert_eq!(last(b"\n", whole), None);
        assert_eq!(last(line(3, "").trim_end().as_bytes(), whole), None, "torn");
        fs::remove_file(&path).unwrap();
    }
}
