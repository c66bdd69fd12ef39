//! Runs what README.md prints: each `console` block's commands must print what stands below them,
//! the Python client must get back what it sent, and every file that README names must be there.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use harness::{Folder, HANG, has_program};

const README: &str = include_str!("../README.md");

/// The fenced blocks of a kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    let starts = README.match_indices(&fence).map(|(at, _)| at + fence.len());
    starts
        .map(|at| &README[at..at + README[at..].find("```").unwrap()])
        .collect()
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
fn shell(folder: &Path, script: &str) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_udsd")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, script: &str) -> String {
    let output = shell(folder, script).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A daemon that a block started in the background.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, notes: &UnixDatagram, command: &str) -> Background {
    let mut shell = shell(folder, &format!("exec {command}"));
    if !command.contains('>') {
        shell.stdout(Stdio::null());
    }
    let daemon = Background(shell.stderr(Stdio::null()).spawn().unwrap());
    let mut note = [0; 4096];
    loop {
        let length = notes.recv(&mut note).unwrap();
        if note[..length].starts_with(b"READY=1") {
            return daemon;
        }
    }
}

fn notes(folder: &Path) -> UnixDatagram {
    let notes = UnixDatagram::bind(folder.join("notify")).unwrap();
    notes.set_read_timeout(Some(HANG)).unwrap();
    notes
}

#[test]
fn each_block_prints_what_it_says() {
    if !has_program("nc") {
        return;
    }
    let blocks = blocks("console");
    assert!(!blocks.is_empty());
    for block in blocks {
        let folder = Folder::new();
        let notes = notes(folder.path());
        let mut daemons = Vec::new();
        for (command, expected) in commands(block) {
            if let Some(command) = command.strip_suffix(" &") {
                daemons.push(start(folder.path(), &notes, command));
                continue;
            }
            // A record is written behind the back of who is already served.
            let hung = Instant::now() + HANG;
            loop {
                let printed = run(folder.path(), command);
                if same(&printed) == same(&expected) {
                    break;
                }
                assert!(
                    command.starts_with("cat ") && Instant::now() < hung,
                    "{command}\nprinted\n{printed}\nand not\n{expected}"
                );
            }
        }
    }
}

#[test]
fn the_python_client_gets_back_what_it_sent() {
    if !has_program("python3") {
        return;
    }
    let folder = Folder::new();
    let notes = notes(folder.path());
    let _daemon = start(folder.path(), &notes, "udsd --socket ./hello.sock");
    let [client] = blocks("python")[..] else {
        panic!("one python block");
    };
    fs::write(folder.join("client.py"), client).unwrap();
    let printed = run(folder.path(), "python3 client.py");
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
