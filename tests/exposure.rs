//! Promise: a config file that strangers may change is warned of, at a start, a reload and by `--check`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use harness::{Daemon, Setup, is_root};

const CONFIG: &str = "[socket.echo]\npath = \"{dir}/echo\"\n";

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What `--check` says on standard error of the same file.
fn check(daemon: &Daemon) -> String {
    let mut check = Command::new(env!("CARGO_BIN_EXE_udsd"));
    let file = daemon.path("udsd.toml");
    let output = check.arg("--config").arg(file).arg("--check").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_file_that_anyone_may_write_to_is_warned_of() {
    let setup = Setup::new().config(CONFIG);
    let file = setup.folder().join("udsd.toml");
    chmod(&file, 0o666);
    let mut daemon = setup.start();
    let words = ["WARN", "udsd.toml", "0666", "chmod o-w"];
    daemon.wait_log(&words);
    assert!(check(&daemon).contains("chmod o-w"), "{}", check(&daemon));
    assert!(daemon.stop().success());
}

#[test]
fn a_folder_in_which_anyone_may_replace_it_is_warned_of() {
    let setup = Setup::new().config(CONFIG);
    let folder = setup.folder().path().to_owned();
    // As /tmp is: what is another's stays.
    chmod(&folder, 0o1777);
    let daemon = setup.start();
    daemon.reload();
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    assert_eq!(check(&daemon), "");
    chmod(&folder, 0o777);
    daemon.reload();
    daemon.wait_log(&["WARN", folder.to_str().unwrap(), "chmod o-w"]);
    assert!(check(&daemon).contains("chmod o-w"));
}

#[test]
fn a_file_of_a_stranger_is_warned_of() {
    if !is_root() {
        return;
    }
    let setup = Setup::new().config(CONFIG);
    let file = setup.folder().join("udsd.toml");
    chown(&file, Some(65533), None).unwrap();
    let daemon = setup.start();
    daemon.wait_log(&["WARN", "udsd.toml", "uid 65533", "chown"]);
    assert!(check(&daemon).contains("uid 65533"));
}

#[test]
fn a_drop_in_and_its_folder_are_looked_at_like_the_file() {
    let setup = Setup::new().config(CONFIG);
    let folder = setup.folder().join("udsd.toml.d");
    fs::create_dir_all(&folder).unwrap();
    let daemon = setup.start();
    // One that hides another is /dev/null, where anyone may write.
    symlink("/dev/null", folder.join("0.toml")).unwrap();
    assert_eq!(check(&daemon), "");
    // Empty, it lets in whatever anyone puts there.
    chmod(&folder, 0o777);
    daemon.reload();
    daemon.wait_log(&["WARN", folder.to_str().unwrap(), "chmod o-w"]);
    assert!(check(&daemon).contains("chmod o-w"));
    chmod(&folder, 0o755);
    let file = folder.join("1.toml");
    fs::write(&file, "daemon.log = \"info\"\n").unwrap();
    chmod(&file, 0o666);
    daemon.reload();
    daemon.wait_log(&["WARN", file.to_str().unwrap(), "0666", "chmod o-w"]);
    assert!(check(&daemon).contains("chmod o-w"));
}
