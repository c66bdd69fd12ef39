//! Installing from source: what `packaging/install` puts below DESTDIR, what PREFIX changes in it, what
//! it refuses, and that it takes away what it has put there. That systemd finds it all stands in
//! `tests/lab/package.sh`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use harness::Folder;

const CONFIG: &str = "/etc/udsd/udsd.toml";
const ROTATION: &str = "/etc/logrotate.d/udsd";

/// A folder that stands for the root of a machine.
struct Root(Arc<Folder>);

impl Root {
    fn new() -> Self {
        Self(Folder::new())
    }

    fn path(&self) -> PathBuf {
        self.0.join("root")
    }

    fn script(&self, prefix: Option<&str>, argument: Option<&str>) -> Output {
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
        let mut install = Command::new(packaging.join("install"));
        install
            .env_remove("PREFIX")
            .envs(prefix.map(|prefix| ("PREFIX", prefix)));
        install.env("DESTDIR", self.path()).args(argument);
        let binaries = Path::new(env!("CARGO_BIN_EXE_udsd")).parent().unwrap();
        install.env("BINARIES", binaries).output().unwrap()
    }

    fn install(&self, prefix: Option<&str>) {
        let output = self.script(prefix, None);
        assert!(output.status.success(), "{output:?}");
    }

    /// Each file from the root, with its mode.
    fn files(&self) -> BTreeMap<String, u32> {
        let root = self.path();
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                let name = entry.path().strip_prefix(&root).unwrap().to_owned();
                if entry.file_type().unwrap().is_dir() {
                    assert_eq!(mode & 0o755, 0o755, "{}", name.display());
                    folders.push(entry.path());
                } else {
                    found.insert(format!("/{}", name.display()), mode);
                }
            }
        }
        found
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.join(path)).unwrap()
    }

    fn join(&self, path: &str) -> PathBuf {
        self.path().join(path.strip_prefix('/').unwrap())
    }
}

/// What belongs there, documents aside.
fn expected(prefix: &str, lib: &str) -> BTreeMap<String, u32> {
    let programs = [
        format!("{prefix}/bin/udsd"),
        format!("{prefix}/bin/udsc"),
        format!("{lib}/systemd/system-generators/udsd-generator"),
        format!("{lib}/systemd/user-generators/udsd-generator"),
    ];
    let texts = [
        format!("{lib}/systemd/system/udsd.service"),
        format!("{lib}/systemd/system/udsd.socket"),
        format!("{lib}/systemd/system/udsd-metrics.service"),
        format!("{lib}/systemd/system/udsd-metrics.timer"),
        format!("{lib}/systemd/user/udsd.service"),
        format!("{lib}/systemd/user/udsd.socket"),
        format!("{lib}/sysusers.d/udsd.conf"),
        format!("{lib}/tmpfiles.d/udsd.conf"),
        format!("{prefix}/share/man/man1/udsc.1"),
        format!("{prefix}/share/man/man5/udsd.toml.5"),
        format!("{prefix}/share/man/man8/udsd.8"),
        format!("{prefix}/share/man/man8/udsd-generator.8"),
        CONFIG.into(),
        ROTATION.into(),
    ];
    let completions = ["udsd", "udsc"].into_iter().flat_map(|name| {
        [
            format!("{prefix}/share/bash-completion/completions/{name}"),
            format!("{prefix}/share/zsh/site-functions/_{name}"),
            format!("{prefix}/share/fish/vendor_completions.d/{name}.fish"),
        ]
    });
    let texts = texts.into_iter().chain(completions);
    let programs = programs.into_iter().map(|path| (path, 0o755));
    programs.chain(texts.map(|path| (path, 0o644))).collect()
}

/// Where systemd looks: systemd.unit(5), systemd.generator(7), sysusers.d(5), tmpfiles.d(5).
#[test]
fn files_go_where_systemd_looks() {
    for (prefix, lib) in [
        ("/usr", "/usr/lib"),
        ("/usr/local", "/usr/local/lib"),
        ("/opt/udsd-1.0", "/usr/local/lib"),
    ] {
        let root = Root::new();
        root.install((prefix != "/usr").then_some(prefix));
        let mut files = root.files();
        let documents = format!("{prefix}/share/doc/udsd/");
        files.retain(|path, mode| !(path.starts_with(&documents) && *mode == 0o644));
        assert_eq!(files, expected(prefix, lib), "PREFIX={prefix}");
    }
}

#[test]
fn units_follow_the_prefix_and_know_nothing_of_destdir() {
    let root = Root::new();
    root.install(Some("/opt/udsd"));
    for manager in ["system", "user"] {
        let unit = root.read(&format!("/usr/local/lib/systemd/{manager}/udsd.service"));
        let commands: Vec<&str> = unit
            .lines()
            .filter(|line| line.starts_with("Exec"))
            .collect();
        assert!(
            commands.contains(&"ExecStart=/opt/udsd/bin/udsd"),
            "{commands:?}"
        );
        let reload = match manager {
            "user" => "ExecReload=/opt/udsd/bin/udsc --user reload",
            _ => "ExecReload=/opt/udsd/bin/udsc --system reload",
        };
        assert!(commands.contains(&reload), "{commands:?}");
        assert!(!unit.contains("/usr/bin/uds"), "{unit}");
    }
    let outside = root.path().to_str().unwrap().to_owned();
    for (path, mode) in root.files() {
        assert!(
            mode == 0o755 || !root.read(&path).contains(&outside),
            "{path}"
        );
    }
}

#[test]
fn a_file_that_is_there_stays_and_all_else_is_replaced() {
    let root = Root::new();
    root.install(None);
    for file in [CONFIG, ROTATION] {
        fs::write(root.join(file), "# mine").unwrap();
    }
    let unit = root.join("/usr/lib/systemd/system/udsd.socket");
    fs::write(&unit, "# of an older version").unwrap();
    let before = root.files();
    root.install(None);
    for file in [CONFIG, ROTATION] {
        assert_eq!(root.read(file), "# mine");
    }
    assert!(fs::read_to_string(unit).unwrap().contains("ListenStream="));
    assert_eq!(root.files(), before);
}

#[test]
fn uninstalling_takes_away_all_but_the_config() {
    for prefix in [None, Some("/usr/local")] {
        let root = Root::new();
        root.install(prefix);
        // As systemd-tmpfiles makes it.
        let link = root.join("/run/varlink/registry/dev.udsd.Daemon");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink("/run/udsd/control.sock", &link).unwrap();
        let output = root.script(prefix, Some("--uninstall"));
        assert!(output.status.success(), "{output:?}");
        assert!(!link.is_symlink());
        let left: Vec<String> = root.files().into_keys().collect();
        assert_eq!(left, [CONFIG]);
        let documents = format!("{}/share/doc", prefix.unwrap_or("/usr"));
        assert_eq!(fs::read_dir(root.join(&documents)).unwrap().count(), 0);
        // What somebody has changed is theirs.
        fs::write(root.join(ROTATION), "# mine").unwrap();
        // A second time there is nothing to do.
        assert!(root.script(prefix, Some("--uninstall")).status.success());
        assert_eq!(root.read(ROTATION), "# mine");
    }
}

#[test]
fn prefixes_that_cannot_work_are_refused() {
    for (prefix, reason) in [
        ("usr", "absolute path"),
        ("/", "absolute path"),
        ("/opt/with space", "absolute path"),
        ("/opt/100%", "absolute path"),
        ("/opt/../usr", "no . or .."),
        ("/home/somebody/udsd", "udsd.service sees nothing below"),
    ] {
        let root = Root::new();
        let output = root.script(Some(prefix), None);
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(1),
            "PREFIX={prefix}: {complained}"
        );
        assert!(complained.contains(reason), "PREFIX={prefix}: {complained}");
        assert!(root.files().is_empty());
    }
    let output = Root::new().script(None, Some("--unknown"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
