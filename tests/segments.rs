//! Promise: a record in segments is one record: its numbers go on from file to file without gap or repeat, also
//! over a kill at any moment, a reload and a restart; and nothing that is no segment is ever touched.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    io::Write,
    net::Shutdown,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use harness::{
    Daemon, HANG, Random, Setup, Signal, connect,
    faults::{SMALL_DISK, can_mount, mounted},
    read_all,
};
use serde_json::Value;
use udsd::{
    peer::{ClientId, Peer},
    record::{
        Encoder, Format, Line, Output, OutputConfig, Parse, Record, Recorder, Rotation, Writer,
    },
};

/// A record with these keys beside its file.
fn config(keys: &str) -> String {
    format!(
        "[socket.log]\npath = \"{{dir}}/log\"\nservice = \"collect\"\nframing = \"lines\"\n\
         [socket.log.record]\nfile = \"{{dir}}/record\"\n{keys}\n"
    )
}

const SMALL: &str = "rotate-size = \"64KiB\"";

/// The segments of the record in their order, with the number that each is named after, and last the file.
fn files(folder: &Path) -> Vec<(Option<u64>, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(digits) = name.strip_prefix("record.") {
            assert_eq!(digits.len(), 20, "{name}");
            found.push((Some(digits.parse().unwrap()), path));
        }
    }
    found.sort();
    let file = folder.join("record");
    found.extend(file.exists().then_some((None, file)));
    found
}

/// All lines of the record. Each file begins with the number that it is named after, and none but the first of all
/// is missing; `first` is that.
#[track_caller]
fn lines(folder: &Path, first: u64) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for (named, path) in files(folder) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}",
            path.display()
        );
        let next = first + all.len() as u64;
        if let Some(named) = named {
            assert_eq!(named, next, "{}", path.display());
        }
        for (number, line) in (next..).zip(text.lines()) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["seq"], number, "{}", path.display());
            all.push(line);
        }
    }
    all
}

/// The messages of `lines` that start with `client` are the numbers that follow, each once and in order.
#[track_caller]
fn assert_all_of(lines: &[Value], client: usize, messages: usize) {
    let start = format!("{client} ");
    let of = lines.iter().filter_map(|line| {
        let message = line["message"].as_str()?.strip_prefix(&start)?;
        Some(message.trim_end_matches('x').parse::<usize>().unwrap())
    });
    assert!(of.eq(0..messages), "of client {client}");
}

/// Message number `n` of a client, with its line feed.
fn message(client: usize, n: usize) -> String {
    format!("{client} {n}{}\n", "x".repeat(n % 300))
}

/// Several clients say so much; returns once all of it is taken.
fn say_all(daemon: &Daemon, clients: usize, messages: usize) {
    let path = daemon.path("log");
    thread::scope(|scope| {
        for client in 0..clients {
            let path = &path;
            scope.spawn(move || {
                let mut stream = connect(path);
                for n in 0..messages {
                    stream.write_all(message(client, n).as_bytes()).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&stream), b"");
            });
        }
    });
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn a_record_goes_on_from_segment_to_segment_without_gap_or_repeat() {
    let mut daemon = Daemon::start(&config(SMALL));
    say_all(&daemon, 4, 3_000);
    assert!(daemon.stop().success());
    let folder = daemon.folder().path();
    let lines = lines(folder, 1);
    for client in 0..4 {
        assert_all_of(&lines, client, 3_000);
    }
    let files = files(folder);
    assert!(files.len() > 40, "{}", files.len());
    let longest = 500;
    for (named, path) in files {
        let size = fs::metadata(&path).unwrap().len();
        assert!(size <= 64 << 10, "{}: {size}", path.display());
        assert!(named.is_none() || size > (64 << 10) - longest, "{size}");
    }
}

#[test]
fn only_the_oldest_segments_go_and_that_is_said_and_counted() {
    let text = config(&format!("{SMALL}\nkeep = 3"));
    let setup = Setup::new().config(&text);
    let other = setup.folder().join("record.1");
    fs::write(&other, "precious").unwrap();
    let mut daemon = setup.start();
    say_all(&daemon, 1, 3_000);
    assert!(daemon.stop().success());
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    fs::remove_file(other).unwrap();
    let folder = daemon.folder().path();
    let files = files(folder);
    assert_eq!(files.len(), 3 + 1);
    let lines = lines(folder, files[0].0.unwrap());
    assert_eq!(lines.last().unwrap()["seq"], 3_000);
    daemon.wait_log(&[
        "INFO",
        "segment removed, since keep = 3",
        "record.00000000000000000001",
    ]);
}

#[test]
fn a_line_that_is_longer_than_a_segment_stands_alone() {
    let mut daemon = Daemon::start(&config("rotate-size = \"4KiB\""));
    let mut client = daemon.connect("log");
    for length in [10, 10_000, 10, 20_000, 30_000, 10] {
        writeln!(client, "{}", "y".repeat(length)).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    let folder = daemon.folder().path();
    lines(folder, 1);
    let named: Vec<_> = files(folder).into_iter().map(|(named, _)| named).collect();
    assert_eq!(named, [Some(1), Some(2), Some(3), Some(4), Some(5), None]);
}

/// `rotate-age` needs no timer: the next message ends what is too old.
#[test]
fn a_file_begun_too_long_ago_ends_with_the_next_message() {
    let text = config("rotate-age = \"1h\"");
    let setup = Setup::new().config(&text);
    let line = |seconds, seq| {
        let at = SystemTime::now() - Duration::from_secs(seconds);
        let at = humantime::format_rfc3339_micros(at);
        format!("{{\"time\":\"{at}\",\"socket\":\"log\",\"seq\":{seq},\"message\":\"\"}}\n")
    };
    let before = line(3700, 4) + &line(60, 5);
    fs::write(setup.folder().join("record"), before).unwrap();
    let mut daemon = setup.start();
    say_all(&daemon, 1, 2);
    assert!(daemon.stop().success());
    let folder = daemon.folder().path();
    assert_eq!(lines(folder, 4).len(), 4);
    let named: Vec<_> = files(folder).into_iter().map(|(named, _)| named).collect();
    assert_eq!(named, [Some(4), None]);
}

#[test]
fn text_and_raw_are_named_above_all_segments_that_are_there() {
    for format in ["text", "raw"] {
        let text = config(&format!("format = \"{format}\"\n{SMALL}"));
        let setup = Setup::new().config(&text);
        let folder = setup.folder().clone();
        fs::write(folder.join("record.00000000000000000700"), "a\nb\n").unwrap();
        for _ in 0..2 {
            let mut daemon = Setup::within(folder.clone()).config(&text).start();
            say_all(&daemon, 1, 1_000);
            assert!(daemon.stop().success());
        }
        let files = files(folder.path());
        assert!(files.len() > 4, "{}", files.len());
        assert_eq!(files[1].0, Some(701));
        let texts = files
            .iter()
            .map(|(_, path)| fs::read_to_string(path).unwrap());
        let all: String = texts.collect();
        let messages = all.lines().skip(2);
        let numbers = messages.map(|line| {
            let message = line.rsplit(' ').next().unwrap();
            message.trim_end_matches('x').parse::<usize>().unwrap()
        });
        assert!(numbers.eq((0..1_000).chain(0..1_000)), "{format}");
    }
}

#[test]
fn a_reload_changes_where_files_end_from_the_next_message() {
    let mut daemon = Daemon::start(&config(""));
    say_all(&daemon, 1, 1_000);
    daemon.reload_with(&config(&format!("{SMALL}\nkeep = 2\nmode = \"0644\"")));
    say_all(&daemon, 1, 1_000);
    let mode = || fs::metadata(daemon.path("record")).map(|of| of.mode() & 0o777);
    wait_until("no file has the mode", || {
        mode().is_ok_and(|mode| mode == 0o644)
    });
    daemon.reload_with(&config(""));
    say_all(&daemon, 1, 1_000);
    assert!(daemon.stop().success());
    let folder = daemon.folder().path();
    let files = files(folder);
    assert_eq!(files.len(), 3);
    let size = fs::metadata(&files[2].1).unwrap().len();
    assert!(size > 128 << 10, "{size}");
    let lines = lines(folder, files[0].0.unwrap());
    assert_eq!(lines.last().unwrap()["seq"], 3_000);
}

/// While segments end all the time, a reload does not take one for a file that others have moved.
#[test]
fn reloads_find_the_file_while_segments_end() {
    let text = config("rotate-size = \"4KiB\"\nsync = true");
    // However slow the disk is.
    let text = format!("[daemon]\ndrain-timeout = \"1h\"\n{text}");
    let mut daemon = Daemon::start(&text);
    thread::scope(|scope| {
        let saying = scope.spawn(|| say_all(&daemon, 4, 10_000));
        while !saying.is_finished() {
            daemon.reload_with(&text);
        }
    });
    assert!(daemon.stop().success());
    let lines = lines(daemon.folder().path(), 1);
    for client in 0..4 {
        assert_all_of(&lines, client, 10_000);
    }
    assert!(!daemon.log().contains("opened anew"), "{}", daemon.log());
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

/// What others do to the file is as without segments; none is named twice.
#[test]
fn a_file_that_others_rotate_goes_on_too() {
    let mut daemon = Daemon::start(&config(SMALL));
    for n in 0..5 {
        say_all(&daemon, 1, 500);
        fs::rename(daemon.path("record"), daemon.path(&format!("moved.{n}"))).unwrap();
        daemon.signal(Signal::USR1);
        daemon.wait_for("word of the new file", |said| {
            let anew = said.log.matches("opened anew").count();
            (anew > n).then_some(())
        });
    }
    say_all(&daemon, 1, 500);
    assert!(daemon.stop().success());
    let mut all = Vec::new();
    for entry in fs::read_dir(daemon.folder().path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("moved.") && !name.starts_with("record") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        if let Some(digits) = name.strip_prefix("record.") {
            assert_eq!(lines[0]["seq"], digits.parse::<u64>().unwrap(), "{name}");
        }
        all.extend(lines.iter().map(|line| line["seq"].as_u64().unwrap()));
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=3_000));
}

/// What of somebody else has the name of a segment stays, and the segment goes on until that is moved away.
#[test]
fn a_segment_whose_name_is_taken_goes_on() {
    type Make = fn(&Path) -> std::io::Result<()>;
    let makes: [Make; 3] = [
        |path| fs::create_dir(path),
        |path| fs::write(path, "of somebody else"),
        |path| std::os::unix::fs::symlink("nowhere", path),
    ];
    for make in makes {
        let mut daemon = Daemon::start(&config(SMALL));
        let taken = daemon.path("record.00000000000000000001");
        // At a start, a file of that name is a segment.
        make(&taken).unwrap();
        let before = fs::symlink_metadata(&taken).unwrap();
        say_all(&daemon, 1, 1_000);
        daemon.wait_log(&[
            "ERROR",
            "cannot be renamed to end a segment, which goes on",
            taken.to_str().unwrap(),
            "is there already",
            "move it away",
        ]);
        let after = fs::symlink_metadata(&taken).unwrap();
        let seen = [before, after].map(|of| (of.ino(), of.len()));
        assert_eq!(seen[0], seen[1]);
        fs::rename(&taken, daemon.path("away")).unwrap();
        say_all(&daemon, 1, 1_000);
        assert!(daemon.stop().success());
        let lines = lines(daemon.folder().path(), 1);
        assert_eq!(lines.len(), 2_000);
        assert_eq!(daemon.log().matches("cannot be renamed").count(), 1);
    }
}

/// A restart hands over what is not written, with the ends of segments in it.
#[test]
fn segments_go_on_over_a_restart() {
    let mut daemon = Setup::new().config(&config(SMALL)).keeping().start();
    let mut client = daemon.connect("log");
    let mut said = 0;
    for _ in 0..5 {
        for _ in 0..1_000 {
            client.write_all(message(0, said).as_bytes()).unwrap();
            said += 1;
        }
        let text = config(SMALL);
        daemon = daemon.restart(|setup| setup.config(&text));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    let lines = lines(daemon.folder().path(), 1);
    assert_all_of(&lines, 0, said);
    assert!(files(daemon.folder().path()).len() > 15);
}

/// Files by their names, the first number in them, and the number that comes next.
type State = (Vec<(&'static str, String)>, u64, u64);

/// What a process leaves that ends between any two steps.
#[test]
fn whatever_a_process_leaves_between_two_steps_is_gone_on_from() {
    let one = || vec![("record.00000000000000000001", line(1) + &line(2))];
    let two = || {
        [
            one(),
            vec![("record.00000000000000000003", line(3) + &line(4))],
        ]
        .concat()
    };
    let half = line(5).replace("\"}\n", "");
    let whole = line(5).replace('\n', "");
    let states: Vec<State> = vec![
        // Nothing yet; made and not written to; its first line torn.
        (vec![], 1, 1),
        (vec![("record", String::new())], 1, 1),
        (vec![("record", line(1).replace("}\n", ""))], 1, 1),
        // Larger than allowed, and not ended.
        (vec![("record", (1..=50).map(line).collect())], 1, 51),
        // Ended, and no new file; a new one; one with half a line, and with all of one but its line feed.
        (two(), 1, 5),
        ([two(), vec![("record", String::new())]].concat(), 1, 5),
        ([two(), vec![("record", half.clone())]].concat(), 1, 5),
        ([two(), vec![("record", half[..3].into())]].concat(), 1, 5),
        ([two(), vec![("record", whole)]].concat(), 1, 6),
        (
            [two(), vec![("record", line(5) + &line(6) + &line(7)[..40])]].concat(),
            1,
            8 - 1,
        ),
        // Old ones are removed: all but the last, and that too.
        (two().split_off(1), 3, 5),
        (vec![("record", line(5) + &line(6))], 5, 7),
        // A segment with half a line, as another program may leave it: its name counts.
        (
            vec![("record.00000000000000000009", line(9).replace("}\n", ""))],
            9,
            10,
        ),
    ];
    for (n, (state, first, next)) in states.into_iter().enumerate() {
        let folder = std::env::temp_dir().join(format!("udsd-states-{n}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for (name, text) in &state {
            fs::write(folder.join(name), text).unwrap();
        }
        if n == 12 {
            let record = record_in(&folder, 1);
            assert_eq!(record, next + 1);
        } else {
            for round in 0..3 {
                assert_eq!(record_in(&folder, 20), next + 20 * (round + 1), "state {n}");
            }
            let all = lines(&folder, first);
            assert_eq!(all.len() as u64, next - first + 60, "state {n}");
            assert!(files(&folder).len() > 2);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// A line as udsd writes it.
fn line(seq: u64) -> String {
    let time = "2026-11-22T06:20:31.123456Z";
    let message = "y".repeat(100);
    format!("{{\"time\":\"{time}\",\"socket\":\"log\",\"seq\":{seq},\"message\":\"{message}\"}}\n")
}

/// Opens the record in `folder`, adds so many messages of some hundred bytes and ends; returns the number that
/// comes next.
fn record_in(folder: &Path, messages: usize) -> u64 {
    let config = OutputConfig {
        file: Some(folder.join("record")),
        mode: 0o600,
        search: Format::Json.search(Parse::None, 1000),
    };
    let output = Output::open(&config, &[]).unwrap();
    let encoder = Encoder::new(Format::Json, false, "log");
    let mut record = Record::new(1 << 20, output.found.last_seq);
    let rotation = Rotation {
        size: Some(4096),
        ..Rotation::default()
    };
    record.rotate(rotation, output.found.segment);
    let mut recorder = Recorder::new(encoder, record);
    let mut writer = Writer::start(Ok(output), || {}).unwrap();
    for _ in 0..messages {
        let now = SystemTime::now();
        let line = Line {
            client: ClientId(1),
            peer: &Peer::NONE,
            message: &[b'x'; 300],
            truncated: false,
        };
        assert!(recorder.put(&line, now));
        writer.append(recorder.record().hand_over(now));
    }
    writer.finish();
    let seq = recorder.record().seq();
    seq + 1
}

/// The process may end at any moment: what is in the record then is whole, in order, and goes on. How many rounds:
/// UDSD_TEST_KILLS.
#[test]
fn a_kill_at_any_moment_leaves_a_record_that_goes_on() {
    const CLIENTS: usize = 4;
    let rounds = std::env::var("UDSD_TEST_KILLS").map_or(8, |rounds| rounds.parse().unwrap());
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let text = config(SMALL);
    let folder = harness::Folder::new();
    let mut last = 0;
    for round in 0..rounds {
        let mut daemon = Setup::within(folder.clone()).config(&text).start();
        let path = daemon.path("log");
        let segments = 1 + random.below(4);
        let reached = || {
            let highest = files(folder.path())
                .iter()
                .filter_map(|(named, _)| *named)
                .max();
            highest.unwrap_or(0)
        };
        let before = files(folder.path()).len();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let path = &path;
                scope.spawn(move || {
                    let mut stream = connect(path);
                    let mut n = 0;
                    let client = CLIENTS * round + client;
                    while stream.write_all(message(client, n).as_bytes()).is_ok() {
                        n += 1;
                    }
                });
            }
            wait_until("no segments", || {
                files(folder.path()).len() >= before + segments
            });
            thread::sleep(Duration::from_micros(random.below(3_000) as u64));
            daemon.kill();
        });
        assert!(reached() >= last);
        last = reached();
    }
    let mut daemon = Setup::within(folder.clone()).config(&text).start();
    say_all(&daemon, 1, 0);
    let mut client = daemon.connect("log");
    writeln!(client, "end").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    let lines = lines(folder.path(), 1);
    assert_eq!(lines.last().unwrap()["message"], "end");
    for client in 0..CLIENTS * rounds {
        let start = format!("{client} ");
        let of = lines.iter().filter(|line| {
            let message = line["message"].as_str().unwrap();
            message.starts_with(&start)
        });
        assert_all_of(&lines, client, of.count());
    }
}

/// Senders wait while the disk is full, and nothing is lost.
#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() {
    const MESSAGES: usize = 10_000;
    if !can_mount() {
        return harness::skip("no file system can be mounted");
    }
    let keys = format!("{SMALL}\nqueue-size = \"640KiB\"");
    let text = config(&keys).replace("{dir}/record", "{dir}/disk/record");
    let setup = Setup::new().config(&text);
    let (mut daemon, disk) = mounted(setup, SMALL_DISK);
    let kept = daemon.folder().join("kept");
    fs::create_dir(&kept).unwrap();
    let keep = |path: &Path| {
        fs::copy(path, kept.join(path.file_name().unwrap())).unwrap();
    };
    let path = daemon.path("log");
    thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut stream = connect(&path);
            stream.set_write_timeout(None).unwrap();
            for n in 0..MESSAGES {
                stream.write_all(message(0, n).as_bytes()).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&stream), b"");
        });
        for fills in 1.. {
            wait_until("it does not fill", || {
                let told = daemon.log().matches("No space left").count();
                client.is_finished() || told == fills
            });
            if client.is_finished() {
                break;
            }
            // Segments are moved elsewhere, as an archiver would do it.
            for (_, path) in files(&disk).iter().filter(|(named, _)| named.is_some()) {
                keep(path);
                fs::remove_file(path).unwrap();
            }
        }
        client.join().unwrap();
    });
    let last = format!("{}\"}}\n", message(0, MESSAGES - 1).trim());
    let text = || fs::read_to_string(disk.join("record"));
    wait_until("the last is not written", || {
        text().is_ok_and(|text| text.ends_with(&last))
    });
    files(&disk).iter().for_each(|(_, path)| keep(path));
    assert!(daemon.stop().success());
    daemon.wait_log(&["INFO", "writing again"]);
    assert_all_of(&lines(&kept, 1), 0, MESSAGES);
}

/// A process that ends with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a full disk kept from being written goes over, with the ends of segments in it and half a line before it.
#[test]
fn what_waits_for_a_full_disk_is_cut_into_segments_by_the_next_process() {
    if !can_mount() {
        return harness::skip("no file system can be mounted");
    }
    let keys = format!("{SMALL}\nqueue-size = \"640KiB\"");
    let text = config(&keys).replace("{dir}/record", "{dir}/disk/record");
    let setup = Setup::new().keeping().config(&text);
    let (mut daemon, disk) = mounted(setup, SMALL_DISK);
    // Its namespace lives as long as this process is in it.
    let pid = daemon.pid().to_string();
    let mut sleep = std::process::Command::new("nsenter");
    let sleep = sleep.args(["-t", &pid, "-m", "sleep", "1000"]).spawn();
    let sleep = Killed(sleep.unwrap());
    let seen = PathBuf::from(
        disk.to_str()
            .unwrap()
            .replacen(&pid, &sleep.0.id().to_string(), 1),
    );
    wait_until("it does not enter", || seen.join("record").exists());
    say_all(&daemon, 1, 100);
    fs::write(seen.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let mut said = 100;
    let mut client = daemon.connect("log");
    for _ in 0..3 {
        for _ in 0..400 {
            client.write_all(message(0, said).as_bytes()).unwrap();
            said += 1;
        }
        daemon.wait_log(&["WARN", "No space left"]);
        let enter = sleep.0.id().to_string();
        daemon = daemon.restart(|setup| {
            setup
                .config(&text)
                .wrapper(&["nsenter", "-t", &enter, "-m"])
        });
    }
    fs::remove_file(seen.join("filler")).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    assert!(daemon.stop().success());
    let lines = lines(&seen, 1);
    assert_all_of(&lines, 0, said);
    assert!(files(&seen).len() > 4);
}

/// A folder in which nothing can be renamed or made.
#[test]
fn a_folder_that_cannot_be_written_to_holds_up_nobody() {
    let mut daemon = Daemon::start(&config(SMALL));
    say_all(&daemon, 1, 10);
    let lock = |flag| {
        let mut chattr = std::process::Command::new("chattr");
        chattr.arg(flag).arg(daemon.folder().path());
        chattr.output().is_ok_and(|output| output.status.success())
    };
    if !lock("+i") {
        return harness::skip("no folder can be made immutable");
    }
    say_all(&daemon, 1, 1_000);
    let told = daemon.log();
    assert!(lock("-i"));
    daemon.wait_log(&["ERROR", "cannot be renamed to end a segment, which goes on"]);
    assert_eq!(told.matches("ERROR").count(), 1, "{told}");
    say_all(&daemon, 1, 1_000);
    assert!(daemon.stop().success());
    let folder = daemon.folder().path();
    assert_eq!(lines(folder, 1).len(), 2_010);
    assert!(files(folder).len() > 3);
}

/// The folder of the record is renamed, and removed: senders wait, and go on when there is a folder again.
#[test]
fn a_folder_that_is_renamed_or_removed_is_waited_for() {
    let text = config(SMALL).replace("{dir}/record", "{dir}/folder/record");
    let setup = Setup::new().config(&text);
    let folder = setup.folder().join("folder");
    fs::create_dir(&folder).unwrap();
    let mut daemon = setup.start();
    say_all(&daemon, 1, 1_000);
    fs::rename(&folder, daemon.path("renamed")).unwrap();
    say_all(&daemon, 1, 1_000);
    daemon.wait_log(&["ERROR", "folder/record"]);
    fs::create_dir(&folder).unwrap();
    say_all(&daemon, 1, 1_000);
    fs::remove_dir_all(&folder).unwrap();
    say_all(&daemon, 1, 300);
    fs::create_dir(&folder).unwrap();
    say_all(&daemon, 1, 1_000);
    assert!(daemon.stop().success());
    let last = files(&folder)
        .into_iter()
        .find_map(|(named, _)| named)
        .unwrap();
    let lines = lines(&folder, last);
    assert_eq!(lines.last().unwrap()["seq"], 4_300);
}
