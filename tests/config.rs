//! The config file as an administrator meets it: wrong files are refused by the real binary, each
//! with file, line, key and remedy; shipped files pass; `--check` prints what loads again.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

#[path = "config/drop_ins.rs"]
mod drop_ins;
#[path = "config/wrong.rs"]
mod wrong;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use udsd::config::{Address, BaseDirs, Config};

/// A fresh folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("udsd-config-{}-{count}", process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join("udsd.toml");
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn udsd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udsd"));
    // The folders of root, for whoever runs the test.
    command.env_clear().env("XDG_RUNTIME_DIR", "/run");
    command.env("XDG_STATE_HOME", "/var");
    command.args(arguments).output().unwrap()
}

/// What a check prints, without the comments: they say where each key is set.
fn settings(output: &Output) -> Vec<String> {
    let printed = str::from_utf8(&output.stdout).unwrap();
    let settings = printed.lines().map(|line| line.split(" #").next().unwrap());
    settings.map(|line| line.trim_end().to_owned()).collect()
}

fn check(file: &Path) -> Output {
    udsd(&["--config", file.to_str().unwrap(), "--check"])
}

/// What stands behind the file's name on each line that reports a fault of it.
fn faults(file: &Path, output: &Output) -> Vec<String> {
    let file = file.to_str().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let faults = stderr.lines().filter_map(|line| line.split_once(file));
    faults.map(|(_, fault)| fault.to_owned()).collect()
}

#[test]
fn wrong_files_are_refused_with_line_key_and_remedy() {
    let mut seen = BTreeMap::new();
    for wrong in wrong::files() {
        let folder = Folder::new();
        let file = folder.file(&wrong.text);
        let output = check(&file);
        let faults = faults(&file, &output);
        let context = format!("{}\n{output:#?}", wrong.text);
        assert_eq!(output.status.code(), Some(78), "{context}");
        assert!(output.stdout.is_empty(), "{context}");

        let place = wrong.place();
        let found = faults.iter().find_map(|fault| fault.strip_prefix(&place));
        let message = found.unwrap_or_else(|| panic!("no fault at {place:?}: {context}"));
        for word in wrong.words {
            assert!(
                message.contains(word),
                "{word:?} is not in {message:?}: {context}"
            );
        }
        for other in wrong.others {
            let found = faults
                .iter()
                .any(|fault| fault.starts_with(&format!(":{other}: ")));
            assert!(found, "no fault at {other:?}: {context}");
        }
        assert_eq!(faults.len(), 1 + wrong.others.len(), "{context}");
        if let Some(other) = seen.insert(message.to_owned(), wrong.text.clone()) {
            panic!("{message:?} is said of two files:\n{other}\n{}", wrong.text);
        }
    }
    assert!(seen.len() >= 50);
}

#[test]
fn all_faults_are_reported_in_the_order_of_the_file() {
    let folder = Folder::new();
    let file = folder.file(
        "[daemon]\nlog = 1\n[socket.a]\npath = \"a\"\nmode = 7\nmode = 8\nqueue = 1\n\
         [socket.b]\nservice = \"collect\"\n[limits]\nclients = true\n",
    );
    let output = check(&file);
    let faults = faults(&file, &output);
    assert_eq!(output.status.code(), Some(78));
    let places = [
        ":2: daemon.log: ",
        ":4: socket.a.path: ",
        ":5: socket.a.mode: ",
        ":6: socket.a.mode: ",
        ":7: socket.a.queue: ",
        ":8: socket.b.path: ",
        ":9: socket.b.service: ",
        ":11: limits.clients: ",
    ];
    assert_eq!(faults.len(), places.len(), "{faults:#?}");
    for (fault, place) in faults.iter().zip(places) {
        assert!(fault.starts_with(place), "{place:?}: {faults:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new();
    let missing = folder.0.join("none.toml");
    let long = format!("#{}", "x".repeat(4 << 20));
    for (file, words) in [
        (missing, "name a file that exists"),
        (folder.0.clone(), "is no file: name a regular file"),
        (folder.file(long), "longer than 4MiB"),
    ] {
        let output = check(&file);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(
            stderr.contains(&format!("{}: ", file.display())),
            "{stderr}"
        );
        assert!(stderr.contains(words), "{stderr}");
    }
    let file = folder.file(b"[daemon]\nlog = \"\xff\"\n");
    let output = check(&file);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains(&format!("{}:2: is not UTF-8", file.display())),
        "{stderr}"
    );
}

#[test]
fn a_fifo_is_refused_at_once() {
    let folder = Folder::new();
    let fifo = folder.0.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(check(&fifo)));
    let output = output.recv_timeout(Duration::from_secs(10)).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains("fifo: cannot be read: it is no file: name a regular file"),
        "{stderr}"
    );
}

#[test]
fn shipped_files_pass_and_print_what_loads_again() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = fs::read_dir(config.join("examples")).unwrap();
    let mut files: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    files.push(config.join("udsd.toml"));
    let rich = Folder::new();
    let uid = rustix::process::geteuid().as_raw();
    files.push(rich.file(format!(
        "[socket.a]\npath = \"@100%%\"\nclients = 7\nidle-timeout = \"90s\"\nslow-client = \"drop\"\n\
         [socket.b]\npath = \"%t/b\\\"'.sock\"\nuser = {uid}\nqueue-size = 1048577\nservice = \"collect\"\n\
         framing = \"syslog\"\nrecord.file = \"%S/b%%.json\"\nrecord.format = \"raw\"\n",
    )));
    for file in files {
        // The system's folders need not be there.
        let folder = Folder::new();
        fs::create_dir(folder.0.join("udsd")).unwrap();
        let mut text = fs::read_to_string(&file).unwrap();
        for place in ["%t", "%S", "%L"] {
            text = text.replace(place, folder.0.to_str().unwrap());
        }
        let first = check(&folder.file(text));
        let context = format!("{}: {first:#?}", file.display());
        assert!(first.status.success(), "{context}");
        let again = check(&folder.file(&first.stdout));
        assert!(again.status.success(), "{context}\n{again:#?}");
        assert_eq!(settings(&first), settings(&again), "{context}");
    }
}

#[test]
fn what_is_printed_of_the_most_sockets_loads_again() {
    let folder = Folder::new();
    let socket = |n: usize| {
        format!("[socket.{n:064}]\npath = \"@{n}\"\nframing = \"lines\"\nrecord.file = \"/{n}\"\n")
    };
    let text: String = (0..1024).map(socket).collect();
    let print = |text: &[u8]| {
        let file = folder.file(text);
        udsd(&["--config", file.to_str().unwrap(), "--check", "--text"])
    };
    let first = print(text.as_bytes());
    assert!(first.status.success(), "{:?}", first.stderr);
    let again = print(&first.stdout);
    assert!(again.status.success(), "{:?}", again.stderr);
    assert!(settings(&first) == settings(&again));
}

#[test]
fn an_ad_hoc_path_is_printed_from_the_root_and_loads_again() {
    let folder = Folder::new();
    let below = folder.0.join("below");
    fs::create_dir(&below).unwrap();
    let print = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udsd"));
        command.args(["--check", "--socket", path]);
        command.env_clear().current_dir(&below).output().unwrap()
    };
    for (path, written) in [
        ("./x", below.join("x")),
        ("50%%", below.join("50%%")),
        ("../y.sock", folder.0.join("y.sock")),
        (folder.0.join("z").to_str().unwrap(), folder.0.join("z")),
    ] {
        let first = print(path);
        let text = String::from_utf8_lossy(&first.stdout);
        assert!(first.status.success(), "{first:#?}");
        let line = format!("\npath = \"{}\" ", written.display());
        assert!(text.contains(&line), "{line:?}: {text}");
        let again = check(&folder.file(&first.stdout));
        assert_eq!(settings(&first), settings(&again), "{again:#?}");
    }
    let text = print(&"n".repeat(100)).stdout;
    assert!(String::from_utf8_lossy(&text).contains("# No file can say this: "));
}

#[test]
fn the_file_is_read_where_it_exists_else_the_embedded_one() {
    let folder = Folder::new();
    let file = folder.file("[socket.a]\npath = \"%t/a.sock\"\n");
    let mut dirs = BaseDirs::system();
    dirs.drop_ins.clear();
    dirs.config_file = Some(file.clone());
    let config = Config::load(None, &dirs).unwrap();
    assert!(config.origin.files().eq([file.as_path()]));
    assert_eq!(
        config.sockets[0].address,
        Address::Path("/run/a.sock".into())
    );

    for absent in [folder.0.join("none.toml"), file.join("below-a-file.toml")] {
        dirs.config_file = Some(absent);
        let config = Config::load(None, &dirs).unwrap();
        assert!(config.origin.is_built_in());
        assert_eq!(config.sockets[0].name, "udsd");
    }

    dirs.config_file = Some(folder.0.clone());
    let fatal = Config::load(None, &dirs).unwrap_err();
    assert_eq!(fatal.exit_code(), 78);
}
