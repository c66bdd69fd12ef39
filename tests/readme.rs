//! Runs what README.md prints: each `console` block's commands must print what stands below them,
//! the Python client must get back what it sent, and every file that README names must be there.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use harness::{Folder, Setup, has_program, read_n};

const README: &str = include_str!("../README.md");

/// The fenced blocks of a kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    let starts = README.match_indices(&fence).map(|(at, _)| at + fence.len());
    starts
        .map(|at| &README[at..at + README[at..].find("```").unwrap()])
        .collect()
}

/// Each way that is shown to send one message to a relay and go.
#[test]
fn one_message_reaches_a_relay_and_its_sender_goes() {
    let mut recipes = blocks("sh").into_iter();
    let recipes = recipes.find(|block| block.contains("one message")).unwrap();
    assert_eq!(recipes.lines().count(), 4);
    let daemon = Setup::new()
        .config("[socket.chat]\npath = \"{dir}/chat\"\nservice = \"relay\"\nframing = \"lines\"\n")
        .start();
    let (path, file) = (daemon.path("chat"), daemon.path("udsd.toml"));
    for recipe in recipes.lines() {
        let foreign = ["socat", "nc"]
            .into_iter()
            .find(|name| recipe.contains(&format!("| {name} ")));
        if foreign.is_some_and(|name| !has_program(name)) {
            continue;
        }
        let hears = daemon.connect("chat");
        let line = recipe
            .replace("udsc", &format!("udsc --config {}", file.display()))
            .replace("/run/chat.sock", &path.display().to_string());
        let sent = shell(daemon.folder().path(), &["-c", &line])
            .output()
            .unwrap();
        assert!(
            sent.status.success() && sent.stdout.is_empty(),
            "{line}: {sent:?}"
        );
        assert_eq!(read_n(&hears, 12), b"one message\n", "{line}");
    }
}

/// Commands of a block, each with the output that is printed below it.
fn commands(block: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => found.push((command, String::new())),
            None => {
                let output = &mut found.last_mut().unwrap().1;
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    found
}

/// What may differ from run to run, made equal: numbers with a point, times, pids and ids.
fn same(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && !".:TZ-".contains(c));
        let number = &rest[..digits.unwrap_or(rest.len())];
        let after_key = ["\"pid\":", "\"uid\":", "\"gid\":"]
            .iter()
            .any(|key| kept.ends_with(key));
        if first.is_ascii_digit() && (number.contains('.') || after_key) {
            kept.push('#');
            rest = &rest[number.len()..];
        } else {
            kept.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    kept
}

/// A shell in the folder, with the built binaries first in its PATH.
fn shell(folder: &Path, arguments: &[&str]) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_udsd")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command
        .args(arguments)
        .current_dir(folder)
        .env("PATH", path)
        .env("XDG_RUNTIME_DIR", folder);
    command
}

/// What stands between the outputs of two commands.
const MARK: &str = "--- next ---";

#[test]
fn pasted_into_a_shell_each_command_prints_what_it_says() {
    let folder = Folder::new();
    let blocks = blocks("console");
    let commands: Vec<_> = blocks.into_iter().flat_map(commands).collect();
    assert!(!commands.is_empty());
    let marked = commands
        .iter()
        .map(|(command, _)| format!("{command}\necho '{MARK}'\n"));
    let script = folder.join("pasted");
    fs::write(&script, marked.collect::<String>()).unwrap();
    // As a paste: what reads its standard input takes commands away from the shell.
    let output = shell(folder.path(), &["-s"])
        .stdin(File::open(&script).unwrap())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let mark = format!("{MARK}\n");
    let printed: Vec<&str> = printed.split_terminator(&mark).collect();
    assert_eq!(printed.len(), commands.len(), "{printed:#?}");
    for ((command, expected), printed) in commands.iter().zip(printed) {
        assert_eq!(same(printed), same(expected), "{command}");
    }
    // Who pasted it has nothing left that runs.
    for socket in ["hello.sock", "log.sock"] {
        assert!(
            UnixStream::connect(folder.join(socket)).is_err(),
            "{socket}"
        );
    }
}

#[test]
fn the_python_client_gets_back_what_it_sent() {
    if !has_program("python3") {
        return;
    }
    let setup = Setup::new().arguments(&["--socket", "./hello.sock"]);
    let daemon = setup.start();
    let [client] = blocks("python")[..] else {
        panic!("one python block");
    };
    fs::write(daemon.path("client.py"), client).unwrap();
    let python = Command::new("python3")
        .arg("client.py")
        .current_dir(daemon.folder().path())
        .output();
    let printed = String::from_utf8(python.unwrap().stdout).unwrap();
    let pieces: String = printed
        .lines()
        .map(|line| line.strip_prefix("b'").unwrap().strip_suffix('\'').unwrap())
        .collect();
    assert_eq!(pieces, "sent once, read in pieces");
    assert_eq!(printed.lines().count(), 2);
}

#[test]
fn what_readme_installs_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = blocks("sh").into_iter().flat_map(str::split_whitespace);
    let files: Vec<&str> = words
        .map(|word| word.trim_start_matches("\"$(").trim_end_matches(")\""))
        .filter(|word| word.starts_with("packaging/") || word.starts_with("config/"))
        .collect();
    for script in ["packaging/build-deb", "packaging/install"] {
        assert!(files.contains(&script), "{files:?}");
    }
    for file in files {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    for link in ["config/udsd.toml", "config/examples"] {
        assert!(README.contains(&format!("({link}")) && root.join(link).exists());
    }
}
