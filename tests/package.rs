//! The Debian package: that `packaging/build-deb` makes it of the binaries just built, the same each
//! time, with what `packaging/install` installs; then `tests/lab.sh` installs, upgrades, removes and
//! purges it under a real systemd. What is promised there stands in `tests/lab/package.sh`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;
#[path = "lab/run.rs"]
mod run;

mod lab {
    pub(super) mod crowd;
}

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Folder, has_program, skip};

/// The default place of systemd's files and of udsd's documents.
const DOCUMENTS: &str = "/usr/share/doc/udsd";

/// What it takes to make a package; where it is missing, the tests are passed over.
fn has_tools() -> bool {
    // cargo finds its own also where they are not in the PATH.
    let mut cargo = Command::new(env!("CARGO"));
    let probe = cargo.args(["deb", "--version"]).output();
    let has_cargo_deb = probe.is_ok_and(|output| output.status.success());
    let others = ["dpkg-shlibdeps", "dpkg-deb", "strip"];
    (has_cargo_deb || has_program("cargo-deb")) && others.into_iter().all(has_program)
}

fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(name);
    Command::new(path)
}

/// The folder that has the binaries just built.
fn binaries() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_udsd")).parent().unwrap()
}

/// Version and revision of a package of this crate.
fn version(revision: u32) -> String {
    format!("{}-{revision}", env!("CARGO_PKG_VERSION"))
}

/// Runs a command that must work; what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complained}");
    String::from_utf8(output.stdout).unwrap()
}

/// Builds the package into a folder; its path, as the script prints it.
fn package(folder: &Path, revision: u32) -> PathBuf {
    let mut build = script("build-deb");
    build.arg("--binaries").arg(binaries()).arg("--fast");
    build.args(["--version", &version(revision)]);
    let printed = output(build.arg("--output").arg(folder));
    let path = PathBuf::from(printed.strip_suffix('\n').unwrap());
    assert_eq!(path.parent(), Some(folder), "{printed}");
    path
}

/// Each file with its mode, as "-rw-r--r-- /PATH".
fn packed(package: &Path) -> BTreeSet<String> {
    let listing = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let files = listing.lines().filter(|line| !line.ends_with('/'));
    files
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(fields[1], "0/0", "{line}");
            format!("{} {}", fields[0], fields[5].strip_prefix('.').unwrap())
        })
        .collect()
}

/// The same of a folder that stands for the root.
fn installed(root: &Path) -> BTreeSet<String> {
    let format = "%M /%P\n";
    let mut find = Command::new("find");
    find.arg(root).args(["!", "-type", "d", "-printf", format]);
    output(&mut find).lines().map(str::to_owned).collect()
}

#[test]
fn the_same_sources_give_the_same_package() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let [first, second] = ["first", "second"].map(|name| package(&folder.join(name), 1));
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let field = |name| {
        output(
            Command::new("dpkg-deb")
                .arg("--field")
                .arg(&first)
                .arg(name),
        )
    };
    assert_eq!(field("Package").trim(), "udsd");
    assert_eq!(field("Version").trim(), version(1));
    // What the C library's own package is called is Debian's matter.
    assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
}

#[test]
fn the_package_has_what_is_installed_from_source() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let root = folder.join("root");
    let mut install = script("install");
    install.env("DESTDIR", &root).env("BINARIES", binaries());
    output(install.env_remove("PREFIX"));
    let mut packed = packed(&package(folder.path(), 1));
    let mut installed = installed(&root);
    // Debian wants these in each package; of the last, dpkg itself keeps what was shipped.
    for debians in [
        "doc/udsd/copyright",
        "doc/udsd/changelog.Debian.gz",
        "lintian/overrides/udsd",
    ] {
        assert!(packed.remove(&format!("-rw-r--r-- /usr/share/{debians}")));
    }
    assert!(installed.remove(&format!("-rw-r--r-- {DOCUMENTS}/udsd.toml")));
    // Debian has manuals and changes compressed, and its zsh looks elsewhere.
    let as_debian = |line: String| match line.replace("CHANGELOG.md", "changelog") {
        line if line.contains("/share/man/") || line.ends_with("/changelog") => line + ".gz",
        line => line.replace("/zsh/site-functions/", "/zsh/vendor-completions/"),
    };
    let installed: BTreeSet<String> = installed.into_iter().map(as_debian).collect();
    assert_eq!(packed, installed);
}

/// What it may find is explained in packaging/debian/lintian-overrides.
#[test]
fn lintian_finds_nothing() {
    if !has_tools() || !has_program("lintian") {
        return;
    }
    let folder = Folder::new();
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    let found = output(lintian.arg(package(folder.path(), 1)));
    assert!(found.is_empty(), "{found}");
}

#[test]
fn what_cannot_be_built_is_said() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let missing = folder.join("missing");
    let [missing, empty] = [missing.as_path(), folder.path()].map(|path| path.to_str().unwrap());
    for (arguments, reason) in [
        (vec!["--binaries", missing], "missing is no folder"),
        (vec!["--binaries", empty], "/udsd is missing"),
        (vec!["--version"], "--version needs a value"),
        (vec!["--unknown"], "unknown argument --unknown"),
    ] {
        let output = script("build-deb").args(&arguments).output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complained}");
        assert!(complained.contains(reason), "{arguments:?}: {complained}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn promises_of_the_package_hold_under_systemd() {
    if !has_tools() {
        return;
    }
    let folder = Folder::new();
    let packages = [1, 2].map(|revision| package(folder.path(), revision));
    let [old, new] = packages.map(|path| path.into_os_string());
    run::run_lab(&["--packages".into(), old, new]);
}

#[test]
#[ignore = "needs UDSD_TEST_FIRST_PACKAGE, the package of an earlier commit, which .ci/nightly builds"]
fn an_upgrade_from_an_earlier_package_keeps_clients_and_a_downgrade_ends_them_cleanly() {
    let first = env::var_os("UDSD_TEST_FIRST_PACKAGE").unwrap();
    let folder = Folder::new();
    let new = package(folder.path(), 1).into_os_string();
    let mut arguments = vec!["--packages".into(), first, new];
    let checks = [
        "package_upgrade_keeps_clients",
        "package_upgrade_keeps_the_crowd",
        "package_downgrade_ends_clients_cleanly",
    ];
    arguments.extend(checks.map(Into::into));
    run::run_lab(&arguments);
}

/// This program inside the lab, where an upgrade must not cost the crowd a byte.
#[test]
#[ignore = "runs inside the lab"]
fn crowd() {
    lab::crowd::obey();
}
