//! The units follow the file: what the real `udsd-generator` writes for a config file, what it
//! refuses, and that systemd takes it without a complaint. What the units then do stands in
//! `tests/lab/checks.sh`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use harness::{Folder, has_program};
use rustix::process::geteuid;
use udsd::config::keys;

const GENERATOR: &str = env!("CARGO_BIN_EXE_udsd-generator");
const HEADER: &str = "# Written by udsd-generator from udsd.toml and its drop-ins, anew at each daemon-reload: edit those.\n";
/// A user other than root, who need not exist.
const USER: u32 = 54321;

/// A generator's three folders, and a config file beside them.
struct Place {
    folder: Arc<Folder>,
    file: PathBuf,
}

impl Place {
    fn new(text: &str) -> Self {
        let folder = Folder::new();
        for name in ["normal", "early", "late"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let file = folder.join("udsd.toml");
        fs::write(&file, text).unwrap();
        Self { folder, file }
    }

    /// The generator as the manager of `scope` would run it.
    fn command(&self, scope: &str) -> Command {
        let mut command = Command::new(GENERATOR);
        command.env_clear().env("SYSTEMD_SCOPE", scope);
        command.arg("--config").arg(&self.file);
        command.args(["normal", "early", "late"].map(|name| self.folder.join(name)));
        command
    }

    fn run(&self) -> Output {
        self.command("system").output().unwrap()
    }

    /// All that stands in the first folder, links as "-> TARGET".
    fn written(&self) -> BTreeMap<String, String> {
        contents(&self.folder.join("normal"))
    }
}

fn contents(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = match fs::read_link(&path) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) if path.is_dir() => {
                    folders.push(path);
                    continue;
                }
                Err(_) => fs::read_to_string(&path).unwrap(),
            };
            let name = path.strip_prefix(root).unwrap();
            found.insert(name.to_str().unwrap().to_owned(), text);
        }
    }
    found
}

fn generate(text: &str) -> BTreeMap<String, String> {
    let place = Place::new(text);
    let output = place.run();
    assert!(output.status.success(), "{text}\n{output:#?}");
    // Nothing but what this machine's own settings leave to be said.
    let said = String::from_utf8(output.stderr).unwrap();
    let net = |line: &str| line.starts_with("udsd-generator: net.");
    assert!(said.lines().all(net), "{text}\n{said}");
    place.written()
}

/// The lines of a unit that give `key`, without it.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let values = unit.lines().filter_map(|line| line.split_once('='));
    let values = values.filter(|(name, _)| *name == key);
    values.map(|(_, value)| value).collect()
}

#[test]
fn the_first_socket_is_a_drop_in_of_the_static_unit() {
    let place = Place::new(
        "[socket.chat]\npath = \"%t/chat.sock\"\nmode = \"0606\"\nuser = \"alice\"\ngroup = 33\nbacklog = 7\n",
    );
    assert!(place.run().status.success());
    let source = place.file.display();
    let socket = format!(
        "{HEADER}[Unit]\nSourcePath={source}\n\n[Socket]\nListenStream=\nListenStream=/run/chat.sock\n\
         SocketMode=0606\nSocketUser=alice\nSocketGroup=33\nBacklog=7\nFileDescriptorName=chat\n"
    );
    let service = format!(
        "{HEADER}[Unit]\nWants=udsd.socket\nPartOf=udsd.socket\nAfter=udsd.socket\n\n\
         [Service]\nSockets=udsd.socket\n"
    );
    let expected = [
        ("udsd.socket.d/00-udsd.conf", socket),
        ("udsd.service.d/00-udsd.conf", service),
    ];
    let expected = expected.map(|(path, text)| (path.to_owned(), text));
    assert_eq!(place.written(), BTreeMap::from(expected));
    for other in ["early", "late"] {
        assert_eq!(contents(&place.folder.join(other)), BTreeMap::new());
    }
}

#[test]
fn each_further_socket_is_a_unit_that_the_first_brings_up() {
    let place = Place::new(
        "[socket.udsd]\npath = \"%t/udsd.sock\"\n[socket.B_2-x]\npath = \"%t/b.sock\"\nmode = \"0600\"\n\
         [socket.c]\npath = \"%t/c.sock\"\n",
    );
    assert!(place.run().status.success());
    let written = place.written();
    let source = place.file.display();
    let unit = format!(
        "{HEADER}[Unit]\nDescription=Message socket B_2-x of udsd\n\
         Documentation=man:udsd(8) man:udsd.toml(5)\nSourcePath={source}\nStopPropagatedFrom=udsd.socket\nBefore=udsd.socket\n\
         StartLimitIntervalSec=10s\nStartLimitBurst=100\n\n[Socket]\nService=udsd.service\n\
         ListenStream=/run/b.sock\nSocketMode=0600\nSocketUser=udsd\nSocketGroup=udsd\n\
         Backlog=4096\nFileDescriptorName=B_2-x\nRemoveOnStop=yes\n"
    );
    assert_eq!(written["udsd-B_2-x.socket"], unit);
    for name in ["udsd-B_2-x.socket", "udsd-c.socket"] {
        let link = &written[&format!("udsd.socket.wants/{name}")];
        assert_eq!(*link, format!("-> ../{name}"));
    }
    let service = &written["udsd.service.d/00-udsd.conf"];
    for key in ["Sockets", "Wants", "PartOf", "After"] {
        let all = ["udsd.socket udsd-B_2-x.socket udsd-c.socket"];
        assert_eq!(values(service, key), all, "{key}");
    }
    assert!(!service.contains("Requires"));
    assert_eq!(written.len(), 6, "{written:#?}");
}

/// A parent that has a library of this version of systemd mapped, as the manager has.
const MANAGER: &str = "import mmap, subprocess, sys
library = open(sys.argv[1], 'w+b')
library.write(b'\\x7fELF' + bytes(4096))
library.flush()
mapped = mmap.mmap(library.fileno(), 4096)
sys.exit(subprocess.run(sys.argv[2:]).returncode)";

#[test]
fn the_manager_gets_what_it_knows() {
    const TEXT: &str = "[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\n";
    let tie = |place: &Place| {
        let written = place.written();
        let unit = written["udsd-b.socket"].clone();
        let drop_in = &written["udsd.socket.d/00-udsd.conf"];
        let refuses = [drop_in, &unit].map(|text| values(text, "AcceptFileDescriptors") == ["no"]);
        assert_eq!(refuses[0], refuses[1]);
        let part = values(&unit, "PartOf") == ["udsd.socket"];
        let stops = values(&unit, "StopPropagatedFrom") == ["udsd.socket"];
        assert_ne!(part, stops, "{unit}");
        (stops, refuses[0])
    };
    // Before 251 nothing tells the scope; without a library either, it may be any.
    let place = Place::new(TEXT);
    let status = place.command("system").env_remove("SYSTEMD_SCOPE").status();
    assert!(status.unwrap().success());
    assert_eq!(tie(&place), (false, false));
    assert!(place.run().status.success());
    assert_eq!(tie(&place), (true, false));
    if !has_program("python3") {
        return;
    }
    for (version, expected) in [
        ("247", (false, false)),
        ("249.11", (true, false)),
        ("258", (true, true)),
    ] {
        let place = Place::new(TEXT);
        let library = format!("libsystemd-shared-{version}.so");
        let generator = place.command("system");
        let mut manager = Command::new("python3");
        manager
            .args(["-c", MANAGER])
            .arg(place.folder.join(&library));
        manager.arg(GENERATOR).args(generator.get_args());
        assert!(manager.status().unwrap().success());
        assert_eq!(tie(&place), expected, "{version}");
    }
}

/// What the generated units do not say, the static one says for the first socket, and they follow it.
#[test]
fn further_units_have_all_that_the_static_one_has() {
    let written = generate("[socket.udsd]\npath = \"%t/udsd.sock\"\n[socket.b]\npath = \"/b\"\n");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/udsd.socket");
    let shipped = fs::read_to_string(package).unwrap();
    let keys = |text: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.filter_map(|line| line.split_once('='));
        lines.map(|(k, v)| (k.into(), v.into())).collect()
    };
    let further = keys(&written["udsd-b.socket"]);
    let own = [
        "Description",
        "ListenStream",
        "FileDescriptorName",
        "WantedBy",
    ];
    for (key, value) in keys(&shipped) {
        if own.contains(&key.as_str()) {
            continue;
        }
        assert!(
            further.contains(&(key.clone(), value.clone())),
            "{key}={value}: {further:#?}"
        );
    }
    // The default file's drop-in changes nothing of the static unit.
    let shipped = keys(&shipped);
    for (key, value) in keys(&written["udsd.socket.d/00-udsd.conf"]) {
        let same = shipped.contains(&(key.clone(), value.clone()));
        assert!(
            same || key == "SourcePath" || value.is_empty(),
            "{key}={value}"
        );
    }
}

#[test]
fn types_have_their_keys() {
    let written = generate(
        "[socket.a]\npath = \"/a\"\ntype = \"seqpacket\"\n[socket.b]\npath = \"/b\"\ntype = \"datagram\"\n",
    );
    let first = &written["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "ListenStream"), [""]);
    assert_eq!(values(first, "ListenSequentialPacket"), ["/a"]);
    assert!(values(first, "PassCredentials").is_empty());
    let second = &written["udsd-b.socket"];
    assert_eq!(values(second, "ListenDatagram"), ["/b"]);
    assert_eq!(values(second, "PassCredentials"), ["yes"]);
    assert_eq!(values(second, "SendBuffer"), ["33554432"]);
    assert!(values(second, "ListenStream").is_empty());
}

#[test]
fn each_directive_follows_the_keys_that_name_it() {
    // Another value of each key, with what that needs.
    let others = [
        ("path", "path = \"/c\""),
        ("mode", "mode = \"0600\""),
        ("user", "user = 1"),
        ("group", "group = 1"),
        ("backlog", "backlog = 9"),
        ("allow-users", "allow-users = [0]"),
        ("allow-groups", "allow-groups = [0]"),
        ("service", "service = \"collect\""),
        ("framing", "framing = \"lines\""),
        ("message-size", "message-size = 9"),
        ("queue-size", "queue-size = \"9MiB\""),
        ("slow-client", "slow-client = \"drop\""),
        ("slow-timeout", "slow-timeout = \"9s\""),
        ("idle-timeout", "idle-timeout = \"9s\""),
        ("clients", "clients = 9"),
        ("answer-abstract", "answer-abstract = true"),
        (
            "history",
            "service = \"relay\"\nframing = \"lines\"\nhistory = 9",
        ),
        ("history-size", "history-size = \"9KiB\""),
        (
            "stamp",
            "service = \"relay\"\nframing = \"lines\"\nstamp = true",
        ),
    ];
    // What `type` is says which directives there are; without `enabled` there is no unit; `ack` needs a file.
    let apart = ["enabled", "type", "ack"];
    let text = |kind: &str, other: &str| {
        let path = if other.starts_with("path") {
            ""
        } else {
            "path = \"/b\"\n"
        };
        let first = "[socket.udsd]\npath = \"%t/udsd.sock\"\n[socket.b]\n";
        format!("{first}{path}type = \"{kind}\"\n{other}\n")
    };
    for key in keys::SOCKET.keys().filter(|key| !apart.contains(&key.name)) {
        let (_, other) = others.iter().find(|(name, _)| *name == key.name).unwrap();
        let kinds: &[&str] = match key.name {
            "framing" | "stamp" | "history" => &["stream"],
            "service" | "answer-abstract" => &["datagram"],
            _ => &["stream", "datagram"],
        };
        let changed = kinds.iter().map(|kind| (text(kind, ""), text(kind, other)));
        let changed: BTreeSet<_> = changed
            .flat_map(|(a, b)| changed_directives(&a, &b))
            .collect();
        let named = key.directives.iter().copied();
        let named: BTreeSet<_> = named
            .filter(|name| *name != "ListenSequentialPacket")
            .collect();
        assert_eq!(
            changed.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            named,
            "{}",
            key.name
        );
    }
}

/// The names of the directives that differ in the units of two files.
fn changed_directives(before: &str, after: &str) -> BTreeSet<String> {
    let lines = |text: &str| -> BTreeSet<(String, String)> {
        let units = generate(text).into_iter();
        let lines = |(name, text): (String, String)| {
            let lines: Vec<_> = text
                .lines()
                .map(|line| (name.clone(), line.to_owned()))
                .collect();
            lines
        };
        units.flat_map(lines).collect()
    };
    let differ = &lines(before) ^ &lines(after);
    let names = differ.iter().filter_map(|(_, line)| line.split_once('='));
    let names = names.map(|(name, _)| name.to_owned());
    names.filter(|name| name != "SourcePath").collect()
}

#[test]
fn each_directive_of_the_service_follows_the_keys_that_name_it() {
    let others = [
        ("daemon", "log", "\"warn\""),
        ("daemon", "drain-timeout", "\"5min\""),
        ("daemon", "exit-on-idle", "\"9s\""),
        ("daemon", "control", "\"/run/x\""),
        ("daemon", "control-users", "[7]"),
        ("daemon", "control-groups", "[7]"),
        ("limits", "clients", "9"),
        ("limits", "clients-per-user", "9"),
        ("limits", "queue-per-user", "\"9MiB\""),
        ("limits", "queue-total", "\"99MiB\""),
        ("socket.udsd.record", "file", "\"/srv/a/b.json\""),
        ("socket.udsd.record", "mode", "\"0600\""),
        ("socket.udsd.record", "queue-size", "\"9MiB\""),
        ("socket.udsd.record", "format", "\"text\""),
        ("socket.udsd.record", "on-full", "\"drop\""),
        ("socket.udsd.record", "parse", "\"syslog\""),
        ("socket.udsd.record", "sync", "true"),
        ("socket.udsd.record", "rotate-size", "\"9MiB\""),
        ("socket.udsd.record", "rotate-age", "\"9min\""),
        ("socket.udsd.record", "keep", "9"),
    ];
    let tables = [
        ("daemon", keys::DAEMON.keys().collect::<Vec<_>>()),
        ("limits", keys::LIMITS.keys().collect()),
        ("socket.udsd.record", keys::RECORD.keys().collect()),
    ];
    let text = |table: &str, line: &str| {
        let socket = "[socket.udsd]\npath = \"/a\"\nservice = \"collect\"\nframing = \"lines\"\n";
        let file = match table == "socket.udsd.record" && !line.starts_with("file") {
            true => "file = \"/srv/a.json\"\n",
            false => "",
        };
        format!("{socket}[{table}]\n{file}{line}\n")
    };
    for (table, keys) in tables {
        for key in keys {
            let other = others
                .iter()
                .find(|other| (other.0, other.1) == (table, key.name));
            let line = format!("{} = {}", key.name, other.unwrap().2);
            let changed = changed_directives(&text(table, ""), &text(table, &line));
            assert!(changed.iter().eq(key.directives), "{line}: {changed:?}");
        }
    }
}

#[test]
fn an_abstract_socket_has_no_owner_and_no_mode() {
    let written = generate("[socket.a]\npath = \"@a b%%\"\n[socket.b]\npath = \"@b\"\n");
    let first = &written["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "ListenStream"), ["", "@a b%%"]);
    for unit in [first, &written["udsd-b.socket"]] {
        assert!(values(unit, "SocketMode").is_empty(), "{unit}");
        // Empty takes back what the static unit says.
        assert_eq!(values(unit, "SocketUser"), [""], "{unit}");
        assert_eq!(values(unit, "SocketGroup"), [""], "{unit}");
    }
}

#[test]
fn an_abstract_socket_is_closed_before_the_others_and_bound_after_them() {
    let written = generate(
        "[socket.a]\npath = \"/run/a\"\n[socket.b]\npath = \"@b\"\n[socket.c]\npath = \"/run/c\"\n\
         [socket.d]\npath = \"/run/d\"\n[socket.e]\npath = \"@e\"\n",
    );
    for name in ["b", "e"] {
        let unit = &written[&format!("udsd-{name}.socket")];
        assert_eq!(values(unit, "After"), ["udsd-c.socket udsd-d.socket"]);
    }
    for name in ["c", "d"] {
        let unit = &written[&format!("udsd-{name}.socket")];
        assert!(values(unit, "After").is_empty(), "{unit}");
    }
}

#[test]
fn a_stop_may_take_as_long_as_drain_timeout_says() {
    for (drain, timeout) in [
        ("5s", None),
        ("60s", None),
        ("60001ms", Some("91")),
        ("5min", Some("330")),
    ] {
        let written = generate(&format!(
            "[daemon]\ndrain-timeout = \"{drain}\"\n[socket.a]\npath = \"/run/a\"\n"
        ));
        let service = &written["udsd.service.d/00-udsd.conf"];
        let found = values(service, "TimeoutStopSec");
        assert_eq!(found, timeout.into_iter().collect::<Vec<_>>(), "{drain}");
    }
}

/// Paths as TOML literals (''), and as the unit has them.
const PATHS: [(&str, &str); 10] = [
    ("%t/a.sock", "/run/a.sock"),
    ("%S/a", "/var/lib/a"),
    ("%L/a", "/var/log/a"),
    ("/50%%n%%%%", "/50%%n%%%%"),
    ("/a b", "/a b"),
    ("/a ", "/a %i"),
    ("/a\\", "/a\\%i"),
    ("/\"a\\x41 #;$", "/\"a\\x41 #;$"),
    ("/ü€", "/ü€"),
    ("/var/run/a.sock", "/run/a.sock"),
];

#[test]
fn nasty_paths_are_written_so_that_systemd_reads_them_back() {
    for (path, expected) in PATHS {
        let written = generate(&format!(
            "[socket.a]\npath = '{path}'\n[socket.b]\npath = '/other'\n"
        ));
        let first = values(&written["udsd.socket.d/00-udsd.conf"], "ListenStream");
        assert_eq!(first, ["", expected], "{path}");
    }
    let written = generate("[socket.a]\npath = '/other'\n[socket.b]\npath = \"/it's\"\n");
    assert_eq!(values(&written["udsd-b.socket"], "ListenStream"), ["/it's"]);
}

#[test]
fn numbers_are_written_as_systemd_takes_them() {
    let written = generate("[socket.a]\npath = '/a'\nuser = \"007\"\ngroup = 0\n");
    let first = &written["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "SocketUser"), ["7"]);
    assert_eq!(values(first, "SocketGroup"), ["0"]);
}

#[test]
fn record_folders_are_opened_where_the_service_has_no_right_of_its_own() {
    let record = |name: &str, file: &str| {
        format!(
            "[socket.{name}]\npath = '/{name}'\nservice = 'collect'\nframing = 'lines'\nrecord.file = '{file}'\n"
        )
    };
    let files = [
        "/srv/a/x.json",
        "/srv/a/y.json",
        "%L/udsd/x.json",
        "%S/udsd/deep/x.json",
        "%L/other/x.json",
        "/tmpfiles/x.json",
        "/top.json",
        "/srv/q\"b\\ s%%/x",
    ];
    let sockets = files.iter().enumerate();
    let text: String = sockets
        .map(|(i, file)| record(&format!("s{i}"), file))
        .collect();
    let written = generate(&text);
    let service = &written["udsd.service.d/00-udsd.conf"];
    let mut opened = values(service, "ReadWritePaths");
    opened.sort_unstable();
    let expected = [
        r#""-/srv/a""#,
        r#""-/srv/q\"b\\ s%%""#,
        r#""-/tmpfiles""#,
        r#""-/top.json""#,
        r#""-/var/log/other""#,
    ];
    assert_eq!(opened, expected);
}

#[test]
fn what_no_unit_can_express_is_refused_with_line_and_key() {
    let long = "n".repeat(107);
    let first = "[socket.a]\npath = '/a'\n";
    for (text, line, key, words) in [
        (
            format!("{first}[socket.b]\npath = '@{long}'\n"),
            4,
            "b.path",
            "at most 106",
        ),
        (
            format!("[socket.b]\npath = '@{long}'\n"),
            2,
            "b.path",
            "at most 106",
        ),
        (
            "[socket.b]\npath = \"/a\\uFDD0\"\n".into(),
            2,
            "b.path",
            "U+FDD0",
        ),
        (
            "[socket.b]\npath = \"/a\\U0001FFFE\"\n".into(),
            2,
            "b.path",
            "U+1FFFE",
        ),
        (
            "[socket.b]\npath = '%t/udsd/b.sock'\n".into(),
            2,
            "b.path",
            "/run/udsd is the service's own folder",
        ),
        (
            "[socket.b]\npath = '/var/run/udsd/b'\n".into(),
            2,
            "b.path",
            "service's own folder",
        ),
        (
            "[socket.b]\npath = '%t/udsd'\n".into(),
            2,
            "b.path",
            "service's own folder",
        ),
        (format!("{first}user = 65535\n"), 3, "a.user", "65535"),
        (format!("{first}group = '..'\n"), 3, "a.group", "\"..\""),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = \"/\\uFFFF/x\"\n"),
            5,
            "a.record.file",
            "U+FFFF",
        ),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = '/tmp/x'\n"),
            5,
            "a.record.file",
            "/tmp is the service's own (PrivateTmp=), and empty again once it stops: write a path below another folder, as \"%L/udsd/x\"",
        ),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = '/var/tmp/y/x'\n"),
            5,
            "a.record.file",
            "/var/tmp is the service's own",
        ),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = '/home/x/y'\n"),
            5,
            "a.record.file",
            "/home is hidden from the service (ProtectHome=): write a path below another folder, as \"%L/udsd/y\"",
        ),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = '/root/x'\n"),
            5,
            "a.record.file",
            "/root is hidden",
        ),
        (
            format!("{first}service = 'collect'\nframing = 'nul'\nrecord.file = '/run/user/7/x'\n"),
            5,
            "a.record.file",
            "/run/user is hidden",
        ),
    ] {
        let place = Place::new(&text);
        let output = place.run();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}\n{stderr}");
        let place_of_fault = format!(
            "udsd-generator: {}:{line}: socket.{key}: ",
            place.file.display()
        );
        assert!(stderr.starts_with(&place_of_fault), "{text}\n{stderr}");
        assert!(stderr.contains(words), "{text}\n{stderr}");
        let name = key.split('.').next().unwrap();
        let instead = format!("udsd-generator: until that is mended, socket {name} has no unit");
        assert_eq!(
            stderr.lines().skip(1).collect::<Vec<_>>(),
            [instead],
            "{text}"
        );
        // Nothing of that socket; of another, if there is one, all.
        let written = place.written();
        let sockets = usize::from(text.contains("[socket.a]") && name == "b");
        assert_eq!(written.len(), 1 + sockets, "{text}\n{written:#?}");
        let socket = &written["udsd.socket.d/00-udsd.conf"];
        assert_eq!(
            values(socket, "FileDescriptorName").len(),
            sockets,
            "{socket}"
        );
    }
    // The longest that is possible passes.
    generate(&format!("[socket.b]\npath = '@{}'\n", &long[1..]));
}

/// A file with a faulty second socket.
const FAULTY: &str = "[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\nmode = 7\nserv = 'echo'\n\
    [socket.c]\npath = '/c'\n";

/// What `udsd --check` says of the file.
fn checked(place: &Place) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_udsd"))
        .args(["--check", "--config"])
        .arg(&place.file)
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

fn last_good(place: &Place, text: &str) -> PathBuf {
    let path = place.folder.join(".last-good.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_faulty_table_costs_its_own_socket_alone() {
    let place = Place::new(FAULTY);
    let output = place.run();
    // The manager's log then names the generator.
    assert_eq!(output.status.code(), Some(1));
    let written = place.written();
    let names: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "udsd-c.socket",
            "udsd.service.d/00-udsd.conf",
            "udsd.socket.d/00-udsd.conf",
            "udsd.socket.wants/udsd-c.socket"
        ]
    );
    let first = &written["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "ListenStream"), ["", "/a"]);
    let service = &written["udsd.service.d/00-udsd.conf"];
    assert_eq!(values(service, "Sockets"), ["udsd.socket udsd-c.socket"]);
    // Every fault, then what stands in for it.
    let said = String::from_utf8(output.stderr).unwrap();
    let daemon = checked(&place);
    assert_eq!(daemon.lines().count(), 2);
    let faults = daemon.replace("udsd: ", "udsd-generator: ");
    let instead = "udsd-generator: until that is mended, socket b has no unit\n";
    assert_eq!(said, format!("{faults}{instead}"));
    // Where `systemctl status` shows it.
    let fault = daemon
        .lines()
        .next()
        .unwrap()
        .strip_prefix("udsd: ")
        .unwrap();
    let description = format!("Message socket of udsd (fault: {fault}, and 1 more)");
    assert_eq!(values(first, "Description"), [description]);
}

#[test]
fn the_first_sound_socket_comes_first() {
    let place = Place::new("[socket.a]\npath = 'a'\n[socket.b]\npath = '/b'\n");
    assert_eq!(place.run().status.code(), Some(1));
    let first = &place.written()["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "FileDescriptorName"), ["b"]);
}

#[test]
fn a_faulty_table_is_as_it_last_was() {
    let place = Place::new(&FAULTY.replace("'/b'", "'/moved'").replace("'/c'", "'/b'"));
    // Its address is another's now.
    last_good(
        &place,
        "[socket.a]\npath = '/old'\n[socket.b]\npath = '/b'\n",
    );
    assert_eq!(place.run().status.code(), Some(1));
    assert!(!place.written().contains_key("udsd-b.socket"));
    // The others are as the file says.
    last_good(
        &place,
        "[socket.x]\npath = '/x'\n[socket.b]\npath = '/was'\nmode = '0600'\n[socket.a]\npath = '/old'\n",
    );
    let output = place.run();
    assert_eq!(output.status.code(), Some(1));
    let written = place.written();
    let listens = |unit: &str| values(&written[unit], "ListenStream").join(" ");
    assert_eq!(listens("udsd.socket.d/00-udsd.conf"), " /a");
    assert_eq!(listens("udsd-b.socket"), "/was");
    assert_eq!(values(&written["udsd-b.socket"], "SocketMode"), ["0600"]);
    assert_eq!(listens("udsd-c.socket"), "/b");
    assert!(!written.contains_key("udsd-x.socket"), "{written:#?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.ends_with("until that is mended, the unit of socket b stays as it was\n"),
        "{said}"
    );
}

/// What is no TOML.
const BROKEN: [&[u8]; 3] = [
    b"[socket.a]\npath = '/new'\n[socket.b\n",
    b"[socket.a]\npath = \"/\xff\"\n",
    b"path = '/a'\npath ! '/b'\n",
];

#[test]
fn a_text_that_is_no_toml_leaves_the_last_good_file() {
    for text in BROKEN {
        let place = Place::new("");
        fs::write(&place.file, text).unwrap();
        let last = last_good(
            &place,
            "[daemon]\ndrain-timeout = '90s'\n[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\n",
        );
        let output = place.run();
        assert_eq!(output.status.code(), Some(1));
        let written = place.written();
        let first = &written["udsd.socket.d/00-udsd.conf"];
        assert_eq!(values(first, "ListenStream"), ["", "/a"]);
        // The file that is to be mended.
        assert_eq!(values(first, "SourcePath"), [place.file.to_str().unwrap()]);
        let fault = checked(&place);
        let fault = fault.trim_end().strip_prefix("udsd: ").unwrap();
        let description = format!("Message socket of udsd (fault: {fault})");
        assert_eq!(values(first, "Description"), [description]);
        assert_eq!(values(&written["udsd-b.socket"], "ListenStream"), ["/b"]);
        let service = &written["udsd.service.d/00-udsd.conf"];
        assert_eq!(values(service, "TimeoutStopSec"), ["120"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let instead = format!(
            "udsd-generator: {fault}\nudsd-generator: until that is mended, the units follow {}\n",
            last.display()
        );
        assert_eq!(said, instead);
    }
}

#[test]
fn without_a_last_good_file_the_static_units_say_why() {
    for text in BROKEN {
        let place = Place::new("");
        fs::write(&place.file, text).unwrap();
        let output = place.run();
        assert_eq!(output.status.code(), Some(1));
        let written = place.written();
        assert_eq!(written.len(), 1, "{written:#?}");
        let first = &written["udsd.socket.d/00-udsd.conf"];
        assert_eq!(values(first, "Description").len(), 1, "{first}");
        assert!(!first.contains("[Socket]"), "{first}");
        let said = String::from_utf8(output.stderr).unwrap();
        let instead = "until that is mended, the units are those of the built-in file\n";
        assert!(said.ends_with(instead), "{said}");
    }
}

#[test]
fn a_last_good_file_is_believed_where_others_cannot_have_written_it() {
    let place = Place::new("no TOML");
    let good = "[socket.a]\npath = '/a'\n";
    let path = last_good(&place, good);
    let believed = |words: &str| {
        let output = place.run();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{words}: {said}");
        let first = &place.written()["udsd.socket.d/00-udsd.conf"];
        !values(first, "ListenStream").is_empty()
    };
    assert!(believed("the units follow"));
    for mode in [0o664, 0o646] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(!believed("is not believed"), "{mode:o}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(believed("the units follow"));
    if geteuid().is_root() {
        chown(&path, Some(USER), Some(USER)).unwrap();
        assert!(!believed(
            "is not believed, since others may have written it (owner 54321"
        ));
    }
    // A link may lead to what somebody else writes.
    fs::remove_file(&path).unwrap();
    fs::write(place.folder.join("elsewhere"), good).unwrap();
    symlink(place.folder.join("elsewhere"), &path).unwrap();
    assert!(!believed("cannot be read"));
    // `udsd --check` may print more than a config file may have.
    fs::remove_file(&path).unwrap();
    last_good(&place, &format!("{good}{}", "#\n".repeat(3 << 20)));
    assert!(believed("the units follow"));
    // Neither are faults.
    last_good(&place, "[socket.a]\npath = 'a'\n");
    assert!(!believed(".last-good.toml:2: socket.a.path"));
}

/// A description is one line of a unit whatever the file holds, and however it is called.
#[test]
fn a_fault_that_no_unit_can_hold_is_named_all_the_same() {
    for (name, said) in [
        ("udsd.toml", "50%%\\u{7}"),
        ("udsd\u{FFFF}.toml", "(faults: udsd --check)"),
    ] {
        let mut place = Place::new("");
        place.file = place.folder.join(name);
        fs::write(&place.file, "[socket.a]\npath = \"50%\\u0007\"\n").unwrap();
        assert_eq!(place.run().status.code(), Some(1));
        let first = &place.written()["udsd.socket.d/00-udsd.conf"];
        let description = values(first, "Description");
        assert!(
            description.len() == 1 && description[0].contains(said),
            "{name}: {first}"
        );
        assert!(first.lines().count() <= 4, "{first}");
    }
}

#[test]
fn where_a_unit_cannot_be_written_none_is_left() {
    let place = Place::new("[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\n");
    // The last to be written.
    let obstacle = place.folder.join("normal/udsd.service.d");
    fs::write(&obstacle, "").unwrap();
    let output = place.run();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("udsd.service.d/00-udsd.conf: cannot be written: "),
        "{said}"
    );
    let left = place.written();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["udsd.service.d"]);
}

#[test]
fn a_second_run_by_hand_writes_the_same() {
    let place = Place::new("[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\n");
    assert!(place.run().status.success());
    let first = place.written();
    let output = place.run();
    assert!(output.status.success(), "{output:#?}");
    assert_eq!(place.written(), first);
}

/// "For tests, generators may be called with just one argument" (`systemd.generator(7)`).
#[test]
fn one_folder_is_enough_and_none_is_an_error() {
    let place = Place::new("[socket.a]\npath = '/a'\n");
    let run = |arguments: &[&Path]| {
        let mut command = Command::new(GENERATOR);
        let command = command.env_clear().arg("--config").arg(&place.file);
        command.args(arguments).output().unwrap()
    };
    assert!(run(&[&place.folder.join("normal")]).status.success());
    assert_eq!(place.written().len(), 2);
    assert_eq!(run(&[]).status.code(), Some(1));
}

#[test]
fn as_many_sockets_as_a_file_may_have() {
    let text: String = (0..1024)
        .map(|i| format!("[socket.{i:n>64}]\npath = '/{i}'\n"))
        .collect();
    let written = generate(&text);
    assert_eq!(written.len(), 2 * 1023 + 2);
    let service = &written["udsd.service.d/00-udsd.conf"];
    // Longer lines systemd does not read (LONG_LINE_MAX).
    assert!(service.lines().all(|line| line.len() < 1 << 20));
}

/// Each unit names the file that has the table of its socket; what is off has no unit.
#[test]
fn units_follow_drop_ins() {
    let place =
        Place::new("[socket.a]\npath = '/a'\n[socket.b]\npath = '/b'\n[socket.c]\npath = '/c'\n");
    let drop_ins = place.folder.join("udsd.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    let app = drop_ins.join("10-app.toml");
    fs::write(&app, "[socket.app]\npath = '/app'\n").unwrap();
    let mine = drop_ins.join("20-mine.toml");
    let keys = "socket.app.mode = '0600'\nsocket.b.mode = '0640'\nsocket.a.enabled = false\n";
    fs::write(&mine, keys).unwrap();
    let output = place.run();
    assert!(output.status.success(), "{output:#?}");
    let written = place.written();
    let (file, app) = (place.file.to_str().unwrap(), app.to_str().unwrap());
    for (unit, path, mode, source) in [
        ("udsd.socket.d/00-udsd.conf", "/b", "0640", file),
        ("udsd-c.socket", "/c", "0660", file),
        ("udsd-app.socket", "/app", "0600", app),
    ] {
        let text = &written[unit];
        assert_eq!(values(text, "ListenStream").last(), Some(&path), "{unit}");
        assert_eq!(values(text, "SocketMode"), [mode], "{unit}");
        assert_eq!(values(text, "SourcePath"), [source], "{unit}");
    }
    assert_eq!(written.len(), 2 + 2 * 2, "{written:#?}");
    let service = &written["udsd.service.d/00-udsd.conf"];
    let sockets = "udsd.socket udsd-c.socket udsd-app.socket";
    assert_eq!(values(service, "Sockets"), [sockets]);
}

/// The last good file has the drop-ins in it, and none beside it.
#[test]
fn a_drop_in_with_faults_leaves_the_units_of_the_last_good_file() {
    let place = Place::new("[socket.a]\npath = '/a'\n");
    fs::create_dir(place.folder.join("udsd.toml.d")).unwrap();
    let app = place.folder.join("udsd.toml.d/10-app.toml");
    fs::write(&app, "[socket.app]\npath = '/app'\nmode = '0600'\n").unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_udsd"));
    check
        .args(["--check", "--text", "--config"])
        .arg(&place.file);
    let printed = check.output().unwrap();
    assert!(printed.status.success(), "{printed:#?}");
    fs::write(place.folder.join(".last-good.toml"), &printed.stdout).unwrap();
    for broken in ["[socket.app]\npath = '/app'\nmode = 'rw'\n", "[socket.app"] {
        fs::write(&app, broken).unwrap();
        let output = place.run();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("10-app.toml:"), "{said}");
        let unit = &place.written()["udsd-app.socket"];
        assert_eq!(values(unit, "SocketMode"), ["0600"]);
        // What is to be mended.
        assert_eq!(values(unit, "SourcePath"), [app.to_str().unwrap()]);
    }
}

/// A user's place: the config file in their own folder, where a whole unit of theirs may stand too.
struct Home {
    folder: Arc<Folder>,
    program: PathBuf,
}

impl Home {
    fn new(text: &str) -> Self {
        let folder = Folder::new();
        let program = folder.in_reach(Path::new(GENERATOR));
        fs::create_dir_all(folder.join("config/udsd")).unwrap();
        fs::create_dir(folder.join("normal")).unwrap();
        fs::write(folder.join("config/udsd/udsd.toml"), text).unwrap();
        if geteuid().is_root() {
            chown(folder.join("normal"), Some(USER), Some(USER)).unwrap();
        }
        Self { folder, program }
    }

    fn generate(&self, scope: Option<&str>) -> BTreeMap<String, String> {
        let mut command = Command::new(&self.program);
        command.env_clear().arg(self.folder.join("normal"));
        command.env("XDG_CONFIG_HOME", self.folder.join("config"));
        command.env("XDG_RUNTIME_DIR", "/run/user/7");
        command.env("XDG_STATE_HOME", "/state");
        if let Some(scope) = scope {
            command.env("SYSTEMD_SCOPE", scope);
        }
        if geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:#?}");
        contents(&self.folder.join("normal"))
    }
}

#[test]
fn a_users_units_follow_the_users_file() {
    for scope in [Some("user"), None] {
        let home = Home::new(
            "[socket.a]\npath = '%t/a.sock'\nservice = 'collect'\nframing = 'lines'\nrecord.file = '/srv/a'\n\
             [socket.b]\npath = '%S/b.sock'\n",
        );
        let written = home.generate(scope);
        let first = &written["udsd.socket.d/00-udsd.conf"];
        assert_eq!(values(first, "ListenStream"), ["", "/run/user/7/a.sock"]);
        let further = &written["udsd-b.socket"];
        assert_eq!(values(further, "ListenStream"), ["/state/b.sock"]);
        for unit in [first, further] {
            assert_eq!(values(unit, "SocketUser"), [""]);
            assert_eq!(values(unit, "SocketGroup"), [""]);
        }
        let service = &written["udsd.service.d/00-udsd.conf"];
        assert!(values(service, "ReadWritePaths").is_empty());
    }
}

#[test]
fn a_users_drop_ins_are_those_beside_the_users_file() {
    let home = Home::new("[socket.a]\npath = '%t/a.sock'\n");
    let drop_ins = home.folder.join("config/udsd/udsd.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    let file = drop_ins.join("10-b.toml");
    fs::write(&file, "[socket.b]\npath = '%t/b.sock'\n").unwrap();
    let written = home.generate(Some("user"));
    let further = &written["udsd-b.socket"];
    assert_eq!(values(further, "ListenStream"), ["/run/user/7/b.sock"]);
    assert_eq!(values(further, "SourcePath"), [file.to_str().unwrap()]);
    // Without a file they extend the embedded one.
    fs::remove_file(home.folder.join("config/udsd/udsd.toml")).unwrap();
    let written = home.generate(Some("user"));
    let first = &written["udsd.socket.d/00-udsd.conf"];
    assert_eq!(values(first, "ListenStream"), ["", "/run/user/7/udsd.sock"]);
    assert!(values(first, "SourcePath").is_empty());
    assert!(written.contains_key("udsd-b.socket"));
}

#[test]
fn a_whole_unit_of_the_users_own_is_left_alone() {
    let home = Home::new("[socket.a]\npath = '%t/udsd/a'\n[socket.b]\npath = '/b'\n");
    let units = home.folder.join("config/systemd/user");
    fs::create_dir_all(&units).unwrap();
    // Masked counts too.
    symlink("/dev/null", units.join("udsd.socket")).unwrap();
    let written = home.generate(Some("user"));
    let names: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "udsd-b.socket",
            "udsd.service.d/00-udsd.conf",
            "udsd.socket.wants/udsd-b.socket"
        ]
    );
}

#[test]
fn systemd_has_no_complaint() {
    if !has_program("systemd-analyze") {
        return;
    }
    let mut text = String::new();
    for (i, (path, _)) in PATHS.iter().enumerate() {
        text += &format!("[socket.s{i}]\npath = '{path}'\n");
    }
    text = text.replacen("%t/a.sock", "%t/first.sock", 1);
    text += "user = '1x'\ngroup = 'domain users'\n[socket.r]\npath = '%t/r'\nuser = 'DOMAIN\\name'\ngroup = 'first.last'\n[socket.q]\npath = \"@it's\"\ntype = 'datagram'\n\
        service = 'collect'\nrecord.file = '/srv/q\"b\\\\ s%%/x'\n[socket.p]\npath = '@p\\'\ntype = 'seqpacket'\n";
    let place = Place::new(&text);
    let output = place.run();
    assert!(output.status.success(), "{output:#?}");
    let units = place.folder.join("units");
    fs::create_dir(&units).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    fs::copy(shipped.join("udsd.socket"), units.join("udsd.socket")).unwrap();
    let service = fs::read_to_string(shipped.join("udsd.service")).unwrap();
    // That the programs are missing here is no fault of the unit.
    let service = service.replace("/usr/bin/udsd", "/bin/true");
    let service = service.replace("/usr/bin/udsc", "/bin/true");
    fs::write(units.join("udsd.service"), service).unwrap();

    let normal = place.folder.join("normal");
    let path = format!("{}:{}:", normal.display(), units.display());
    let written = place.written();
    let sockets = written.keys().filter(|name| !name.contains('/'));
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(units.join("udsd.service"))
        .arg(units.join("udsd.socket"))
        .args(sockets.map(|name| normal.join(name)))
        .env("SYSTEMD_UNIT_PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It takes names that are none of its own, and says so.
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("Accepting user/group name '"))
        .collect();
    assert!(output.status.success(), "{said}");
    assert_eq!(complaints, Vec::<&str>::new());
}
