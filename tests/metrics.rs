//! Promise: the method Metrics of the control socket tells every counter of every socket, and how daemon, sockets and
//! records stand, as text that Prometheus' own tools accept; udsd(8) names it all.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Instant,
};

use harness::{Daemon, HANG, has_program, read_all, round_trip, varlink::Caller};
use serde_json::json;
use udsd::counters::Counters;

const CONTROL: &str = "[daemon]\ncontrol = \"{dir}/control\"\n";
const ECHO: &str = "[socket.e]\npath = \"{dir}/e\"\nclients = 1\n";
const COLLECT: &str = "[socket.c]\npath = \"{dir}/c\"\nservice = \"collect\"\nframing = \"lines\"\nrecord.file = \"{dir}/c.json\"\n";

fn start(rest: &str) -> Daemon {
    Daemon::start(&format!("{CONTROL}{rest}"))
}

fn text(daemon: &Daemon) -> String {
    let mut caller = Caller::new(&daemon.path("control"));
    let mut reply = caller.ask("Metrics", json!({}));
    serde_json::from_value(reply["text"].take()).unwrap()
}

/// Each value by its name and labels, as they stand in the text.
fn values(daemon: &Daemon) -> BTreeMap<String, f64> {
    let text = text(daemon);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    let found: Vec<_> = values.collect();
    let map: BTreeMap<String, f64> = found.iter().cloned().collect();
    assert_eq!(map.len(), found.len(), "told twice: {text}");
    map
}

#[test]
fn counts_go_up_as_clients_do_things() {
    let daemon = start(&format!("{ECHO}{COLLECT}"));
    let before = values(&daemon);
    assert_eq!(before[r#"udsd_clients_total{socket="e"}"#], 0.0);
    assert_eq!(before[r#"udsd_record_open{socket="c"}"#], 1.0);
    let client = daemon.connect("e");
    round_trip(&client, b"five\n");
    assert_eq!(read_all(&daemon.connect("e")), b"");
    let sender = daemon.connect("c");
    (&sender).write_all(b"kept\n").unwrap();
    sender.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&sender), b"");
    // The record is written on a thread of its own.
    let started = Instant::now();
    let after = loop {
        let after = values(&daemon);
        if after[r#"udsd_record_waiting_messages{socket="c"}"#] == 0.0 {
            break after;
        }
        assert!(started.elapsed() < HANG, "it is not written");
    };
    for (name, value) in [
        (r#"udsd_clients_total{socket="e"}"#, 1.0),
        (r#"udsd_clients_connected{socket="e"}"#, 1.0),
        (r#"udsd_messages_total{socket="e"}"#, 1.0),
        (r#"udsd_bytes_total{socket="e"}"#, 5.0),
        (
            r#"udsd_refused_total{socket="e",reason="socket_clients"}"#,
            1.0,
        ),
        (r#"udsd_refused_total{socket="e",reason="access"}"#, 0.0),
        (r#"udsd_record_written_messages_total{socket="c"}"#, 1.0),
        (r#"udsd_record_waiting_messages{socket="c"}"#, 0.0),
        (r#"udsd_record_behind_seconds{socket="c"}"#, 0.0),
        ("udsd_sockets", 2.0),
        ("udsd_config_in_force", 1.0),
    ] {
        assert_eq!(after[name], value, "{name}");
    }
    let line = fs::read(daemon.path("c.json")).unwrap();
    let written = after[r#"udsd_record_written_bytes_total{socket="c"}"#];
    assert_eq!(written, line.len() as f64);
    let start = "udsd_start_time_seconds";
    assert_eq!(before[start], after[start]);
    daemon.write_config("[socket.e]\nno-key = 1\n");
    Caller::new(&daemon.path("control")).fail("Reload", json!({}));
    assert_eq!(values(&daemon)["udsd_config_in_force"], 0.0);
}

#[test]
fn each_counter_of_each_socket_has_its_line() {
    let daemon = start(&format!("{ECHO}{COLLECT}"));
    let values = values(&daemon);
    for socket in ["e", "c"] {
        for row in Counters::default().rows() {
            let family = match row.family {
                "unread" | "undelivered" => format!("{}_bytes", row.family),
                family => family.into(),
            };
            let reason = row.reason.map(|reason| format!(",reason=\"{reason}\""));
            let labels = format!("socket=\"{socket}\"{}", reason.unwrap_or_default());
            let name = format!("udsd_{family}_total{{{labels}}}");
            assert!(values.contains_key(&name), "{name}");
        }
    }
}

#[test]
fn sockets_come_by_name_and_help_comes_once() {
    let daemon = start(&format!("{ECHO}{COLLECT}"));
    let text = text(&daemon);
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let messages: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("udsd_messages_total"))
        .collect();
    assert_eq!(
        messages,
        [
            r#"udsd_messages_total{socket="c"} 0"#,
            r#"udsd_messages_total{socket="e"} 0"#,
            // What is asked here.
            r#"udsd_messages_total{socket="daemon.control"} 1"#
        ]
    );
    let mut helped: Vec<&str> = helps(&text).into_iter().map(|(name, _)| name).collect();
    let all = helped.len();
    helped.sort_unstable();
    helped.dedup();
    assert_eq!(helped.len(), all);
}

/// Name and help of each family.
fn helps(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

#[test]
fn promtool_accepts_it() {
    if !has_program("promtool") {
        return;
    }
    let daemon = start(&format!("{ECHO}{COLLECT}"));
    let text = text(&daemon);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let said = promtool.wait_with_output().unwrap();
    let words = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
}

/// The longest answer is within what may wait for a client: that of 1,024 sockets with the longest names, each with
/// a record and as many digits as there are.
#[test]
fn the_most_sockets_fit_into_an_answer() {
    const PART: usize = 16;
    let socket = |i: usize| {
        format!(
            "[socket.{i:a>64}]\npath = \"{{dir}}/{i}\"\nservice = \"collect\"\nframing = \"lines\"\nrecord.file = \"{{dir}}/{i}.json\"\n"
        )
    };
    let sockets: String = (0..1024 / PART).map(socket).collect();
    let text = text(&start(&sockets));
    let rows = text.lines().filter(|line| line.contains("{socket="));
    let longest = PART * (json!(text).to_string().len() + 19 * rows.count());
    assert!((4 << 20..8 << 20).contains(&longest), "{longest}");
}

#[test]
fn the_manual_names_all_that_is_no_counter_of_the_table() {
    let daemon = start(&format!("{ECHO}{COLLECT}"));
    let text = text(&daemon);
    let families: Vec<&str> = Counters::default().rows().map(|row| row.family).collect();
    let is_of_table = |name: &str| {
        let name = name.trim_start_matches("udsd_").trim_end_matches("_total");
        families.contains(&name) || families.contains(&name.trim_end_matches("_bytes"))
    };
    let told = helps(&text)
        .into_iter()
        .filter(|(name, _)| !is_of_table(name));
    let manual = include_str!("../packaging/man/udsd.8");
    let section = manual.split(".Sh METRICS\n").nth(1).unwrap();
    let section = section.split("\n.Sh ").next().unwrap();
    let items = section.split(".It ").skip(1).map(|item| {
        let (name, meaning) = item.split_once('\n').unwrap();
        let meaning = meaning.split("\n.").next().unwrap();
        let words: Vec<&str> = meaning.split_whitespace().collect();
        format!("{name} {}", words.join(" "))
    });
    let told = told.map(|(name, help)| format!("{name} {help}"));
    assert_eq!(items.collect::<Vec<_>>(), told.collect::<Vec<_>>());
}
