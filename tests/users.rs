//! An ordinary user's own daemon: where its socket and its file are, and that the system's file is none
//! of its business.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod harness;

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use harness::{Folder, is_root};
use rustix::process::geteuid;

/// Runs a program of udsd with nothing in its environment but `variables`, as `uid` where this is root.
fn run(
    folder: &Arc<Folder>,
    program: &str,
    uid: u32,
    variables: &[(&str, &str)],
    line: &str,
) -> Output {
    let mut command = Command::new(folder.in_reach(Path::new(program)));
    command.env_clear().args(line.split_whitespace());
    command.envs(variables.iter().copied());
    if geteuid().is_root() {
        command.uid(uid).gid(uid);
    }
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const UDSD: &str = env!("CARGO_BIN_EXE_udsd");
const UDSC: &str = env!("CARGO_BIN_EXE_udsc");
/// Nobody has these numbers.
const OWNER: u32 = 4_000_000_011;
const OTHER: u32 = 4_000_000_012;

/// A folder as pam_systemd makes it.
struct Runtime(PathBuf);

impl Runtime {
    fn of(uid: u32, owner: u32) -> Self {
        let path = PathBuf::from(format!("/run/user/{uid}"));
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        Self(path)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_xdg_runtime_dir_the_folder_that_a_login_would_make_serves_if_it_is_the_users_own() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let home = [("HOME", "/nonexistent")];
    let own = Runtime::of(OWNER, OWNER);
    let checked = run(&folder, UDSD, OWNER, &home, "--check");
    let text = String::from_utf8(checked.stdout.clone()).unwrap();
    let path = format!("path = \"{}/udsd.sock\"", own.0.display());
    assert!(text.contains(&path), "{text}{}", errors(&checked));
    let told = run(&folder, UDSC, OWNER, &home, "--user send x");
    assert!(errors(&told).contains(&format!("cannot connect to {}/udsd.sock", own.0.display())));

    let _others = Runtime::of(OTHER, OWNER);
    let checked = run(&folder, UDSD, OTHER, &home, "--check");
    assert_eq!(checked.status.code(), Some(78));
}

#[test]
fn without_any_runtime_folder_the_remedy_is_named() {
    let uid = match geteuid() {
        root if root.is_root() => OTHER + 1,
        user => user.as_raw(),
    };
    if Path::new(&format!("/run/user/{uid}")).exists() {
        // Which no environment hides.
        harness::skip("this user has a runtime folder");
        return;
    }
    let folder = Folder::new();
    let wanted = format!(
        "socket.udsd.path: \"%t/udsd.sock\" needs XDG_RUNTIME_DIR, which is not set (su and cron do not), and /run/user/{uid} is not there as this user's own: set it, write the path without %t, or serve one socket with --socket PATH\n"
    );
    for line in ["--check", ""] {
        let ended = run(&folder, UDSD, uid, &[("HOME", "/nonexistent")], line);
        assert_eq!(ended.status.code(), Some(78), "{}", errors(&ended));
        assert!(errors(&ended).ends_with(&wanted), "{}", errors(&ended));
    }
    let ended = run(&folder, UDSC, uid, &[], "--user send x");
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        errors(&ended).contains("needs XDG_RUNTIME_DIR"),
        "{}",
        errors(&ended)
    );
}

/// The system's service is no user, though it does not run as root.
#[test]
fn a_service_of_the_system_has_the_systems_directories() {
    let folder = Folder::new();
    let variables = [("RUNTIME_DIRECTORY", "/run/udsd")];
    let config = folder.join("file.toml");
    fs::write(
        &config,
        "[socket.a]\npath = \"@udsd-test-places\"\nservice = \"collect\"\nframing = \"lines\"\nrecord.file = \"%t/a.json\"\n",
    )
    .unwrap();
    let line = format!("--check --config {}", config.display());
    let checked = run(&folder, UDSD, OTHER, &variables, &line);
    let text = String::from_utf8(checked.stdout.clone()).unwrap() + &errors(&checked);
    assert!(text.contains("cannot write /run/a.json: "), "{text}");
}
