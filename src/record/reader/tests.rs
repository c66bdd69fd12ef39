//! Records made by hand, in every state in which a rotation, a crash, or somebody else may leave them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    time::{Duration, UNIX_EPOCH},
};

use super::*;

/// A record in a folder of its own, and how far it is written.
struct Record {
    folder: PathBuf,
    path: PathBuf,
    /// The number of the next message, and of the file's first.
    seq: u64,
    first: u64,
}

impl Record {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("udsd-reader-{test}-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("record.json");
        fs::write(&path, "").unwrap();
        let (seq, first) = (1, 1);
        Record {
            folder,
            path,
            seq,
            first,
        }
    }

    fn line(seq: u64) -> String {
        let time = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_secs(seq * 10));
        let message = "m".repeat((seq * 7919 % 300) as usize);
        format!(
            "{{\"time\":\"{time}\",\"socket\":\"log\",\"seq\":{seq},\"client\":1,\"uid\":0,\"gid\":0,\"message\":\"{message}\"}}\n"
        )
    }

    fn append(&self, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn say(&mut self, messages: u64) {
        let text: String = (self.seq..self.seq + messages).map(Self::line).collect();
        self.append(text);
        self.seq += messages;
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment::path(&self.path, number)
    }

    fn end(&mut self) {
        fs::rename(&self.path, self.segment(self.first)).unwrap();
        self.first = self.seq;
    }

    fn begin(&self) {
        File::create_new(&self.path).unwrap();
    }

    fn rotate(&mut self) {
        self.end();
        self.begin();
    }

    fn open(&self, start: Start) -> Reader {
        Reader::open(&self.path, Lined::Entries, start).unwrap()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What an item is, in a few words.
fn word(item: &Item<'_>) -> String {
    match item {
        Item::Entry(line, entry) => match (entry.seq, entry.gap) {
            (Some(seq), _) => {
                assert_eq!(*line, Record::line(seq).trim_end().as_bytes());
                seq.to_string()
            }
            (_, gap) => format!("gap {}", gap.unwrap().count),
        },
        Item::Text(text) => str::from_utf8(text).unwrap().into(),
        Item::Missing(first, last) => format!("no {first}-{last}"),
        Item::Damaged(Damage { path, offset, .. }) => {
            let name = path.file_name().unwrap().to_str().unwrap();
            format!("bad {name}:{offset}")
        }
    }
}

/// All that is there now.
fn rest(reader: &mut Reader) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        words.push(word(&item));
    }
    words
}

fn numbers(range: impl IntoIterator<Item = u64>) -> Vec<String> {
    range.into_iter().map(|seq| seq.to_string()).collect()
}

/// Three segments and the file, three messages each.
fn four_files(test: &str) -> Record {
    let mut record = Record::new(test);
    for _ in 0..3 {
        record.say(3);
        record.rotate();
    }
    record.say(3);
    record
}

#[test]
fn a_record_is_read_from_any_number_or_time_on() {
    let record = four_files("start");
    assert_eq!(rest(&mut record.open(Start::First)), numbers(1..=12));
    for seq in 1..=13 {
        let mut reader = record.open(Start::Seq(seq));
        assert_eq!(rest(&mut reader), numbers(seq..=12), "{seq}");
        // Each came ten seconds after the one before.
        let time = |seconds| Start::Time(UNIX_EPOCH + Duration::from_secs(seconds));
        for seconds in [seq * 10 - 9, seq * 10] {
            let mut reader = record.open(time(seconds));
            assert_eq!(rest(&mut reader), numbers(seq..=12), "{seconds}");
        }
    }
    let of_file = numbers(record.first..=12);
    for number in [1, 4, 7] {
        fs::remove_file(record.segment(number)).unwrap();
    }
    assert_eq!(rest(&mut record.open(Start::First)), of_file);
    let mut reader = record.open(Start::Seq(5));
    assert_eq!(rest(&mut reader)[..2], ["no 5-9", "10"]);
    fs::remove_file(&record.path).unwrap();
    for start in [Start::First, Start::Seq(5), Start::Time(UNIX_EPOCH)] {
        let error = Reader::open(&record.path, Lined::Entries, start).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_number_is_found_in_a_large_file() {
    let mut record = Record::new("large");
    record.say(3_000);
    record.append("x\n".repeat(40_000));
    record.append("{\"time\":\"2000-01-01T00:00:00.000000Z\",\"socket\":\"log\",\"gap\":{\"count\":2,\"bytes\":3}}\n");
    record.say(3_000);
    let size = fs::metadata(&record.path).unwrap().len();
    assert!(size > 10 * 64 * 1024);
    for seq in (1..=6_000).step_by(301).chain([3_000, 3_001, 6_000]) {
        let mut reader = record.open(Start::Seq(seq));
        let first = loop {
            match reader.next().unwrap().unwrap() {
                Item::Entry(_, entry) if entry.seq.is_some() => break entry.seq,
                Item::Missing(..) => panic!("{seq}: missing"),
                _ => {}
            }
        };
        assert_eq!(first, Some(seq));
    }
}

#[test]
fn the_last_are_found_across_segments() {
    let mut record = four_files("last");
    record.append("torn");
    let open = |record: &Record, count, is_wanted: &dyn Fn(&[u8]) -> bool| {
        Reader::open_last(&record.path, Lined::Entries, count, is_wanted).unwrap()
    };
    for count in 0..15 {
        let mut reader = open(&record, count, &|_| true);
        let first = 13_u64.saturating_sub(count).max(1);
        assert_eq!(rest(&mut reader), numbers(first..=12), "{count}");
    }
    let is_even = |line: &[u8]| Entry::parse(line).unwrap().seq.unwrap().is_multiple_of(2);
    assert_eq!(rest(&mut open(&record, 3, &is_even)), numbers(8..=12));
    // Lines longer than what is read at once, and an end that is one.
    for length in [63 << 10, 64 << 10, 65 << 10, 200 << 10] {
        let long = "l".repeat(length);
        fs::write(&record.path, format!("{long}\na\n{long}\n")).unwrap();
        for (count, expected) in [(1, 1), (2, 2), (3, 3)] {
            let reader = Reader::open_last(&record.path, Lined::Text, count, |_| true);
            assert_eq!(rest(&mut reader.unwrap()).len(), expected, "{length}");
        }
    }
    fs::remove_file(&record.path).unwrap();
    assert_eq!(rest(&mut open(&record, 2, &|_| true)), numbers(8..=9));
    let mut at_end = open(&record, 0, &|_| true);
    (record.seq, record.first) = (10, 10);
    record.begin();
    record.say(1);
    assert_eq!(rest(&mut at_end), numbers(10..=10));
}

/// What udsd does, step by step; a crash may come behind any.
const ROTATION: [fn(&mut Record); 6] = [
    |record| record.say(2),
    Record::end,
    |record| record.begin(),
    |record| record.say(2),
    |record| fs::remove_file(record.segment(1)).unwrap(),
    |record| record.say(1),
];

/// The file that was opened becomes a segment before the segments are listed, and others behind it.
#[test]
fn the_last_are_counted_once_while_segments_end() {
    for rotations in 0..4 {
        let mut record = four_files("rotating");
        let path = record.path.clone();
        let mut left = rotations;
        let listed = look(&path, |path| {
            for _ in 0..std::mem::take(&mut left) {
                record.rotate();
                record.say(1);
            }
            segment::all(path)
        });
        let current = Place::last(&path, listed.unwrap(), 8, |_| true).unwrap();
        let mut reader = Reader::at(&path, Lined::Entries, current);
        assert_eq!(rest(&mut reader), numbers(record.seq - 8..record.seq));
    }
}

#[test]
fn each_step_of_a_rotation_may_be_seen() {
    // Read how far before which step; and how far before any.
    for before in 0..=ROTATION.len() {
        for read_before in [0, 1, 2, 3, 5] {
            for read_first in 0..4 {
                let mut record = Record::new("steps");
                record.say(1);
                record.rotate();
                record.say(2);
                let mut reader = record.open(Start::First);
                let mut words = Vec::new();
                let mut read = |reader: &mut Reader, count| {
                    for _ in 0..count {
                        words.extend(reader.next().unwrap().map(|item| word(&item)));
                    }
                };
                read(&mut reader, read_first);
                for (at, step) in ROTATION.iter().enumerate() {
                    if at == before {
                        read(&mut reader, read_before);
                    }
                    step(&mut record);
                }
                read(&mut reader, 20);
                assert_eq!(words, numbers(1..=8), "{before} {read_before} {read_first}");
            }
        }
    }
}

#[test]
fn whoever_was_away_goes_on_where_it_was_or_hears_what_is_missing() {
    let mut record = Record::new("away");
    record.say(4);
    let mut reader = record.open(Start::First);
    assert_eq!(rest(&mut reader), numbers(1..=4));
    record.say(1);
    for _ in 0..3 {
        record.rotate();
        record.say(2);
    }
    assert_eq!(rest(&mut reader), numbers(5..=11));
    for _ in 0..3 {
        record.rotate();
        record.say(2);
    }
    // The file that it has open, and the one behind it.
    fs::remove_file(record.segment(10)).unwrap();
    fs::remove_file(record.segment(12)).unwrap();
    let mut words = vec!["no 12-13".to_owned()];
    words.extend(numbers(14..=17));
    assert_eq!(rest(&mut reader), words);
}

#[test]
fn what_goes_to_a_file_that_was_moved_away_is_read_before_the_new_one() {
    let mut record = Record::new("logrotate");
    record.say(2);
    let mut reader = record.open(Start::First);
    assert_eq!(rest(&mut reader), numbers(1..=2));
    let (path, moved) = (record.path.clone(), record.folder.join("record.json.1"));
    fs::rename(&path, &moved).unwrap();
    record.begin();
    assert_eq!(rest(&mut reader), [""; 0]);
    // udsd has not been told yet.
    record.path = moved;
    record.say(2);
    record.path = path.clone();
    record.say(2);
    assert_eq!(rest(&mut reader), numbers(3..=6));
    // copytruncate
    fs::write(&path, "").unwrap();
    assert_eq!(rest(&mut reader), [""; 0]);
    record.say(1);
    assert_eq!(rest(&mut reader), numbers(7..=7));
    // Removed, and made anew.
    fs::remove_file(&path).unwrap();
    assert_eq!(rest(&mut reader), [""; 0]);
    record.begin();
    record.say(1);
    assert_eq!(rest(&mut reader), numbers(8..=8));
}

#[test]
fn only_whole_lines_are_given_also_where_a_begun_one_is_cut_off() {
    let mut record = Record::new("torn");
    let mut reader = record.open(Start::First);
    let line = Record::line(1);
    for end in 1..line.len() {
        record.append(&line[end - 1..end]);
        assert_eq!(rest(&mut reader), [""; 0]);
    }
    record.append("\n");
    assert_eq!(rest(&mut reader), numbers(1..=1));
    // As udsd does at a start, with another line at once.
    let size = fs::metadata(&record.path).unwrap().len();
    record.append(&Record::line(2)[..50]);
    assert_eq!(rest(&mut reader), [""; 0]);
    set_length(&record.path, size);
    record.seq = 2;
    record.say(3);
    assert_eq!(rest(&mut reader), numbers(2..=4));
    // What is unfinished in a file that has ended stays so.
    let size = fs::metadata(&record.path).unwrap().len();
    record.append("torn");
    record.rotate();
    assert_eq!(rest(&mut reader), [""; 0]);
    record.say(1);
    let segment = "record.json.00000000000000000001";
    assert_eq!(
        rest(&mut reader),
        [format!("bad {segment}:{size}"), "5".into()]
    );
}

/// What the disk refuses is cut off and written anew; and somebody may empty a file while udsd is stopped.
#[test]
fn what_is_written_anew_is_given_once_and_numbers_may_begin_anew() {
    let mut record = Record::new("anew");
    record.say(4);
    let mut reader = record.open(Start::First);
    assert_eq!(rest(&mut reader), numbers(1..=4));
    for bytes in [0, Record::line(1).len() as u64] {
        set_length(&record.path, bytes);
        assert_eq!(rest(&mut reader), [""; 0]);
        record.seq = if bytes == 0 { 1 } else { 2 };
        let end = 4 + u64::from(bytes > 0);
        record.say(end + 1 - record.seq);
        assert_eq!(rest(&mut reader), numbers(5..=end));
    }
    set_length(&record.path, 0);
    assert_eq!(rest(&mut reader), [""; 0]);
    // All come later than what was there.
    let later = |seq: u64| Record::line(seq).replace("1970-", "1971-");
    record.append("{\"time\":\"1971-01-01T00:00:00.000000Z\",\"socket\":\"log\",\"gap\":{\"count\":2,\"bytes\":3}}\n");
    record.append(later(1) + &later(2));
    let mut seen = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Entry(_, entry) = item else {
            panic!("{item:?}");
        };
        seen.push(entry.seq);
    }
    assert_eq!(seen, [None, Some(1), Some(2)]);
}

#[test]
fn damage_and_gaps_are_told_where_they_are_and_so_is_what_is_missing() {
    let mut record = Record::new("damage");
    record.say(1);
    let size = fs::metadata(&record.path).unwrap().len();
    record.append(b"\0\xff{\"time\"\n\n");
    record.seq += 1;
    record.say(1);
    record.append("{\"time\":\"2000-01-01T00:00:00.000000Z\",\"socket\":\"log\",\"gap\":{\"count\":2,\"bytes\":3}}\n");
    // What was dropped has no numbers.
    record.say(1);
    record.append("{\"time\":\"2000-01-01T00:00:00.000000Z\",\"socket\":\"log\",\"gap\":{\"count\":2,\"bytes\":3}}\n");
    record.seq += 2;
    record.say(1);
    record.seq += 3;
    record.say(1);
    let expected = [
        "1",
        &format!("bad record.json:{size}"),
        &format!("bad record.json:{}", size + 10),
        "3",
        "gap 2",
        "4",
        "gap 2",
        "no 5-6",
        "7",
        "no 8-10",
        "11",
    ];
    assert_eq!(rest(&mut record.open(Start::First)), expected);
    // Numbers that begin anew, as of a record that was removed, are no fault.
    record.seq = 1;
    record.say(2);
    assert_eq!(rest(&mut record.open(Start::First))[11..], ["1", "2"]);
}

#[test]
fn a_line_that_is_too_long_is_passed_over() {
    let mut record = Record::new("long");
    record.say(1);
    let size = fs::metadata(&record.path).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(&record.path).unwrap();
    // A hole: it takes no room on the disk.
    file.seek(SeekFrom::Start(size + lines::LONGEST as u64 + 100_000))
        .unwrap();
    let mut reader = record.open(Start::First);
    assert_eq!(rest(&mut reader), ["1"]);
    file.write_all(b"end").unwrap();
    assert_eq!(rest(&mut reader), [""; 0]);
    file.write_all(b"\n").unwrap();
    record.seq += 1;
    record.say(1);
    let expected = [format!("bad record.json:{size}"), "3".into()];
    assert_eq!(rest(&mut reader), expected);
    let last = Reader::open_last(&record.path, Lined::Entries, 2, |_| true);
    assert_eq!(rest(&mut last.unwrap())[1..], expected);
}

#[test]
fn text_is_read_as_it_is_also_across_segments() {
    let mut record = Record::new("text");
    record.append("a\n");
    let mut reader = Reader::open(&record.path, Lined::Text, Start::First).unwrap();
    assert_eq!(rest(&mut reader), ["a"]);
    for line in ["b\n", "c\n", "d\n"] {
        record.seq += 1;
        record.rotate();
        record.append(line);
    }
    assert_eq!(rest(&mut reader), ["b", "c", "d"]);
    // Only what is behind the cut comes.
    record.append("e\nf\n");
    assert_eq!(rest(&mut reader), ["e", "f"]);
    set_length(&record.path, 5);
    assert_eq!(rest(&mut reader), [""; 0]);
    record.append("\ng\n");
    assert_eq!(rest(&mut reader), ["f", "g"]);
}

/// Folders are listed for new segments, not for each that is passed.
#[test]
fn segments_that_were_removed_and_come_are_found_from_what_was_listed() {
    let mut record = Record::new("listed");
    for _ in 0..6 {
        record.say(2);
        record.rotate();
    }
    let mut reader = record.open(Start::First);
    let first = reader.next().unwrap().map(|item| word(&item));
    assert_eq!(first.as_deref(), Some("1"));
    record.say(2);
    record.rotate();
    for number in [3, 5, 9] {
        fs::remove_file(record.segment(number)).unwrap();
    }
    record.say(1);
    let expected = [
        "2", "no 3-6", "7", "8", "no 9-10", "11", "12", "13", "14", "15",
    ];
    assert_eq!(rest(&mut reader), expected);
}

fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// Bytes of a file change, come and go at random: each line that is whole is given, in order, and all ends.
#[test]
fn whatever_stands_in_a_file_is_read_to_its_end() {
    let mut random = random();
    for round in 0..300 {
        let mut record = Record::new("any");
        record.say(9);
        record.append("{\"time\":\"2000-01-01T00:00:00.000000Z\",\"socket\":\"log\",\"gap\":{\"count\":2,\"bytes\":3}}\n");
        let mut bytes = fs::read(&record.path).unwrap();
        for _ in 0..random(9) {
            let at = random(bytes.len() as u64) as usize;
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.insert(at, *b"\0\n\\\"{}\xff9".get(random(8) as usize).unwrap()),
                _ => drop(bytes.drain(at..bytes.len().min(at + random(40) as usize))),
            }
        }
        fs::write(&record.path, &bytes).unwrap();
        let whole = (1..=9).filter(|&seq| {
            let line = Record::line(seq);
            let ends = memchr::memmem::find_iter(&bytes, line.trim_end());
            let mut ends = ends.map(|at| (at, at + line.len() - 1));
            ends.any(|(at, end)| {
                (at == 0 || bytes[at - 1] == b'\n') && bytes.get(end) == Some(&b'\n')
            })
        });
        let whole: Vec<u64> = whole.collect();
        let mut seen = Vec::new();
        let starts = [
            Start::First,
            Start::Seq(5),
            Start::Time(UNIX_EPOCH + Duration::from_secs(50)),
        ];
        for start in starts {
            let mut reader = record.open(start);
            while let Some(item) = reader.next().unwrap() {
                if let Item::Entry(line, entry) = &item
                    && let Some(seq) = entry.seq
                    && start == Start::First
                    && *line == Record::line(seq).trim_end().as_bytes()
                {
                    seen.push(seq);
                }
            }
        }
        assert_eq!(seen, whole, "{round}");
    }
}

/// A writer that does all of that at random, and a reader that looks now and then.
#[test]
fn no_order_of_events_loses_or_repeats_a_message() {
    let mut random = random();
    for round in 0..50 {
        let mut record = Record::new("random");
        let mut reader = record.open(Start::First);
        let mut words = Vec::new();
        let mut torn = 0;
        for _ in 0..60 {
            let is_there = record.path.exists();
            match random(8) {
                0 if is_there && torn == 0 && record.seq > record.first => record.end(),
                _ if !is_there => record.begin(),
                1 => {
                    let line = Record::line(record.seq);
                    let length = 1 + random(line.len() as u64 - 1);
                    torn += length;
                    record.append(&line[..length as usize]);
                }
                2..=4 => {
                    cut(&record.path, torn);
                    torn = 0;
                    let messages = 1 + random(3);
                    record.say(messages);
                }
                _ => {
                    for _ in 0..random(6) {
                        words.extend(reader.next().unwrap().map(|item| word(&item)));
                    }
                }
            }
        }
        words.extend(rest(&mut reader));
        assert_eq!(words, numbers(1..record.seq), "{round}");
    }
}

fn cut(path: &Path, bytes: u64) {
    set_length(path, path.metadata().unwrap().len() - bytes);
}

fn set_length(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}
