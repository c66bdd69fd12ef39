//! Starts the real `udsc` for a test, alone or as a user with a config file and a daemon of their own,
//! and says what it printed and how it ended. No process outlives its test.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
};

use super::{Daemon, Folder, Setup};

/// A running udsc; killed and reaped when dropped.
pub struct Udsc {
    /// Its process, with all three pipes.
    pub child: Child,
    line: String,
}

impl Udsc {
    /// udsc with the arguments in `line`.
    pub fn start(line: &str) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_udsc")), line)
    }

    fn spawn(mut command: Command, line: &str) -> Self {
        let child = command
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = line.to_owned();
        Self { child, line }
    }

    /// Writes `input` to standard input, closes it, and waits for the end.
    pub fn given(mut self, input: &[u8]) -> Ended {
        let mut stdin = self.child.stdin.take().unwrap();
        let input = input.to_vec();
        // From a thread: udsc may not read on before its output is read. It may also end first.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let ended = self.end();
        writer.join().unwrap();
        ended
    }

    /// Waits for the end; standard input stays as it is.
    pub fn end(&mut self) -> Ended {
        let mut stderr = self.child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            text
        });
        let mut stdout = Vec::new();
        let mut out = self.child.stdout.take().unwrap();
        out.read_to_end(&mut stdout).unwrap();
        Ended {
            line: self.line.clone(),
            output: Output {
                status: self.child_status(),
                stdout,
                stderr: errors.join().unwrap(),
            },
        }
    }

    /// Waits without closing standard input, which `Child::wait` would.
    pub fn child_status(&mut self) -> std::process::ExitStatus {
        let stdin = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        self.child.stdin = stdin;
        status
    }
}

impl Drop for Udsc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an ended udsc left.
pub struct Ended {
    line: String,
    output: Output,
}

impl Ended {
    /// It ended with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        let errors = String::from_utf8_lossy(&self.output.stderr);
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "udsc {}\n{errors}",
            self.line
        );
        self
    }

    /// Standard output was exactly this.
    #[track_caller]
    pub fn printed(self, bytes: impl AsRef<[u8]>) -> Self {
        let (is, expected) = (&self.output.stdout, bytes.as_ref());
        assert!(
            is == expected,
            "udsc {}\n{} bytes: {}\nexpected {}: {}",
            self.line,
            is.len(),
            is[..is.len().min(200)].escape_ascii(),
            expected.len(),
            expected[..expected.len().min(200)].escape_ascii()
        );
        self
    }

    /// Standard error without the "udsc: " and the line feed.
    #[track_caller]
    pub fn complained(self, text: &str) {
        let errors = String::from_utf8(self.output.stderr).unwrap();
        assert_eq!(errors, format!("udsc: {text}\n"), "udsc {}", self.line);
    }

    /// The lines of standard error.
    pub fn complaints(self) -> Vec<String> {
        let errors = String::from_utf8(self.output.stderr).unwrap();
        errors.lines().map(str::to_owned).collect()
    }

    /// Standard output.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.output.stdout).unwrap()
    }
}

/// A user with a config file of their own.
pub struct User {
    /// Theirs.
    pub folder: Arc<Folder>,
    config: String,
}

impl User {
    /// One whose file this is; `{dir}` in it is the folder.
    pub fn new(config: &str) -> Self {
        let folder = Folder::new();
        let config = config.replace("{dir}", folder.path().to_str().unwrap());
        fs::create_dir(folder.join("udsd")).unwrap();
        fs::write(folder.join("udsd/udsd.toml"), &config).unwrap();
        Self { folder, config }
    }

    /// Their daemon.
    pub fn daemon(&self) -> Daemon {
        let setup = Setup::within(Arc::clone(&self.folder));
        setup.config(&self.config).start()
    }

    /// udsc as they run it, with the arguments in `line`. Root has no user's daemon: where the test
    /// runs as root, somebody else it is.
    pub fn udsc(&self, line: &str) -> Udsc {
        self.udsc_of(65534, line)
    }

    /// As `udsc`; where the test runs as root, it is this user.
    pub fn udsc_of(&self, uid: u32, line: &str) -> Udsc {
        let program = Path::new(env!("CARGO_BIN_EXE_udsc"));
        let mut command = Command::new(self.folder.in_reach(program));
        for name in ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
            command.env(name, self.folder.path());
        }
        if rustix::process::geteuid().is_root() {
            command.uid(uid).gid(uid);
        }
        Udsc::spawn(command, line)
    }

    /// A path in their folder, as text.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Whether this machine has a system's daemon, or a config for it, which a test must not meet.
pub fn has_system() -> bool {
    let is_there = |path| Path::new(path).exists();
    is_there("/etc/udsd/udsd.toml")
        || is_there("/etc/udsd/udsd.toml.d")
        || is_there("/usr/lib/udsd/udsd.toml.d")
        || is_there("/run/udsd.sock")
}
