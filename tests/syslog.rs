//! Promise: `parse = "syslog"` finds in each form that programs write the fields that are there, in any message
//! nothing that is not, never panics, and takes no longer than the message is long. The table of forms is
//! `syslog/messages`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::Shutdown,
    time::{Duration, Instant, SystemTime},
};

use harness::{Random, Setup, read_all};
use serde_json::Value;
use udsd::{
    peer::{ClientId, Peer},
    record::{Encoder, Format, Line, Parse, Syslog, Zone},
    sys::LocalTime,
};

const TABLE: &str = include_str!("syslog/messages");
const RECEIVED: &str = "2026-11-22T06:20:31.000000Z";

struct Case {
    form: &'static str,
    message: String,
    /// Null where there are none.
    fields: Value,
}

fn cases() -> Vec<Case> {
    let blocks = TABLE.split("\n\n").skip(1);
    let blocks = blocks.filter(|block| !block.trim().is_empty());
    let cases = blocks.map(|block| {
        let [form, message, fields] = block.lines().collect::<Vec<_>>()[..] else {
            panic!("three lines: {block}");
        };
        Case {
            form: form.strip_prefix("# ").unwrap(),
            message: serde_json::from_str(message).unwrap(),
            fields: match fields {
                "none" => Value::Null,
                fields => serde_json::from_str(fields).unwrap(),
            },
        }
    });
    cases.collect()
}

/// An hour ahead.
fn zone() -> Zone {
    Zone::new(|local| {
        let LocalTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = local;
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
        let time = humantime::parse_rfc3339(&text).ok()?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs() as i64 - 3600)
    })
}

fn fields(message: &str, received: &str) -> Value {
    let fields = Syslog::parse(message, received, &mut zone());
    serde_json::to_value(fields).unwrap()
}

#[test]
fn each_form_has_the_fields_that_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 100, "{}", cases.len());
    for Case {
        form,
        message,
        fields: expected,
    } in cases
    {
        let fields = fields(&message, RECEIVED);
        assert_eq!(fields, expected, "{form}: {message:?}");
    }
}

#[test]
fn a_time_without_a_year_is_near_the_one_when_it_came() {
    for (message, received, expected) in [
        ("Dec 31 23:59:59", "2027-01-01T00:00:01Z", "2026-12-31"),
        ("Jan  1 00:59:59", "2026-12-31T23:59:58Z", "2026-12-31"),
        ("Jan  1 02:00:00", "2026-12-31T23:59:58Z", "2027-01-01"),
        ("Jan 31 12:00:00", "2026-02-01T00:00:00Z", "2026-01-31"),
        ("Feb 29 12:00:00", "2028-03-01T00:00:00Z", "2028-02-29"),
    ] {
        let time = fields(&format!("<13>{message} app: text"), received)["time"].clone();
        let time = time.as_str().unwrap();
        assert!(time.starts_with(expected), "{message}: {time}");
    }
}

/// A daemon whose zone is an hour ahead, and a record of each message in the table.
#[test]
fn udsd_records_the_fields_beside_the_untouched_message() {
    let cases = cases();
    let mut daemon = Setup::new()
        .config(
            "[socket.log]\npath = \"{dir}/log\"\nframing = \"length-prefixed\"\nservice = \"collect\"\n\
             record = { file = \"{dir}/record.json\", parse = \"syslog\" }\n",
        )
        .variable("TZ", "UTC-1")
        .start();
    let mut client = daemon.connect("log");
    for case in &cases {
        let length = case.message.len() as u32;
        client.write_all(&length.to_be_bytes()).unwrap();
        client.write_all(case.message.as_bytes()).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    daemon.stop();
    let text = fs::read_to_string(daemon.path("record.json")).unwrap();
    assert_eq!(text.lines().count(), cases.len());
    for (line, case) in text.lines().zip(&cases) {
        let line: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        let form = case.form;
        assert_eq!(line["message"], case.message, "{form}");
        let mut found = line.get("syslog").cloned().unwrap_or_default();
        let mut expected = case.fields.clone();
        // The year is that in which the test runs.
        if let (Some(found), Some(expected)) = (found.get_mut("time"), expected.get_mut("time")) {
            let [found, expected] = [found, expected].map(|time| time.as_str().unwrap().to_owned());
            assert_eq!(found[13..], expected[13..], "{form}");
        }
        for fields in [&mut found, &mut expected] {
            fields.as_object_mut().map(|fields| fields.remove("time"));
        }
        assert_eq!(found, expected, "{form}");
    }
}

/// Messages that invite a parser to look at them over and over, each as long as asked for.
fn tedious(length: usize) -> Vec<String> {
    let forms = [
        ("<13>", "a"),
        ("<13>", " "),
        ("<13>", "["),
        ("<13>", "a["),
        ("<13>", "a[1]:"),
        ("<13>", "1"),
        ("<13>Nov 22 06:20:31 ", "a:"),
        ("<13>Nov 22 06:20:31 ", "a: "),
        ("<13>Nov 22 06:20:31 ", "a b: "),
        ("<13>Nov 22 06:20:31 host app[12]: ", "x"),
        ("<13>Nov 22 06:20:31.", "1"),
        ("<13>Nov ", " "),
        ("<13>1 ", "- "),
        ("<13>1 - - - - - ", "[a]"),
        ("<13>1 - - - - - ", "[a"),
        ("<13>1 - - - - - [a", " b=\"\""),
        ("<13>1 - - - - - [a b=\"", "\\\""),
        ("<13>1 - - - - - [a b=\"", "\\"),
        ("<13>1 - - - - - ", "[a b=\"]\"][a b=\"[\"]"),
        ("<13>1 - - - - - [a", " b"),
        ("<13>1 - - - - - - ", "\u{feff}"),
        ("<13>1 - - - - - - ", "\u{1}"),
    ];
    let fill = |(start, more): &(&str, &str)| {
        let times = (length - start.len()) / more.len();
        let mut text = start.to_string() + &more.repeat(times);
        text.push_str("\"]");
        text
    };
    forms.iter().map(fill).collect()
}

fn encode(message: &[u8], parse: Parse) -> Vec<u8> {
    let mut encoder = Encoder::new(Format::Json, false, "log");
    encoder.set_parse(parse);
    encoder.set_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_831));
    let peer = Peer {
        pid: 1,
        uid: 2,
        gid: 3,
    };
    let line = Line {
        client: ClientId(u64::MAX),
        peer: &peer,
        message,
        truncated: true,
    };
    let mut out = Vec::new();
    encoder.put(&mut out, u64::MAX - 1, &line);
    out
}

#[test]
fn a_line_is_never_longer_than_is_counted_with() {
    for length in [100, 3000] {
        let messages = tedious(length).into_iter().map(String::into_bytes);
        let cases = cases().into_iter().map(|case| case.message.into_bytes());
        for mut message in messages.chain(cases) {
            for last in [None, Some(b'\xff')] {
                message.extend(last);
                let line = encode(&message, Parse::Syslog);
                let most = Format::Json.longest(Parse::Syslog, message.len());
                assert!(line.len() <= most, "{} over {most}", line.len());
                let line: Value = serde_json::from_slice(&line).unwrap();
                let plain = encode(&message, Parse::None);
                let plain: Value = serde_json::from_slice(&plain).unwrap();
                assert_eq!(line["message"], plain["message"]);
            }
        }
    }
}

#[test]
fn a_long_message_takes_no_longer_than_its_length() {
    let time = |length: usize| {
        let messages = tedious(length);
        // The least of some: others use the machine too.
        let times = messages.iter().map(|message| {
            let once = || {
                let begin = Instant::now();
                encode(message.as_bytes(), Parse::Syslog);
                begin.elapsed()
            };
            (0..5).map(|_| once()).min().unwrap()
        });
        times.collect::<Vec<_>>()
    };
    let (short, long) = (time(64 * 1024), time(512 * 1024));
    for (at, (short, long)) in short.iter().zip(&long).enumerate() {
        // Eight times as long; were it the square of that, 64 times.
        let bound = 24 * *short + Duration::from_millis(20);
        assert!(*long < bound, "form {at}: {short:?}, {long:?}");
    }
}

/// As `tests/fuzz` does, for a moment.
#[test]
fn no_message_makes_it_panic_and_all_that_is_told_is_in_the_message() {
    let mut random = Random::new(7);
    let cases = cases();
    let words: Vec<&str> = vec![
        "<13>",
        "<",
        ">",
        "1 ",
        "- ",
        "[",
        "]",
        "\"",
        "\\",
        "=",
        ":",
        " ",
        "Nov 22 06:20:31 ",
        "2026-11-22T06:20:31Z ",
        "+01:00",
        "app",
        "ü",
        "\u{feff}",
        "\0",
        "\n",
        "@cee:",
        "29: *",
    ];
    for _ in 0..50_000 {
        let mut message = cases[random.below(cases.len())].message.clone();
        for _ in 0..random.below(4) {
            let mut at = random.below(message.len() + 1);
            while !message.is_char_boundary(at) {
                at -= 1;
            }
            let word = words[random.below(words.len())];
            match random.below(3) {
                0 => message.truncate(at),
                1 => message.insert_str(at, word),
                _ => {
                    message.truncate(at);
                    message.push_str(word);
                }
            }
        }
        let fields = fields(&message, RECEIVED);
        for name in ["host", "app", "procid", "msgid", "text"] {
            let told = fields[name].as_str().unwrap_or_default();
            assert!(message.contains(told), "{name} of {message:?}: {told}");
        }
    }
}
