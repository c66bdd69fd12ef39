//! Drop-ins: which are read and in which order, that later keys win, and that every fault and every key that is
//! set names its file.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use udsd::config::{BaseDirs, Config, Parsed};

use crate::{Folder, check, udsd};

/// A file with one socket, a.
const A: &str = "[socket.a]\npath = '/a'\nallow-users = [1, 2]\n";

/// A system of its own: etc and lib in place of /etc/udsd and /usr/lib/udsd.
struct System {
    folder: Folder,
    dirs: BaseDirs,
}

impl System {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let at = |name: &str| folder.0.join(name);
        let mut dirs = BaseDirs::system();
        dirs.config_file = Some(at("etc/udsd.toml"));
        dirs.drop_ins = vec![at("etc/udsd.toml.d"), at("lib/udsd.toml.d")];
        let system = System { folder, dirs };
        for (name, text) in files {
            system.write(name, text);
        }
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Config {
        Config::load(None, &self.dirs).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// The faults, each as "FILE:LINE: KEY: MESSAGE" with the file as `write` has it.
    fn faults(&self) -> Vec<String> {
        let faults = Config::load(None, &self.dirs).unwrap_err();
        assert_eq!(faults.exit_code(), 78);
        let folder = format!("{}/", self.folder.0.display());
        let said = faults.to_string().replace(&folder, "");
        said.lines().map(str::to_owned).collect()
    }

    /// The one fault.
    #[track_caller]
    fn fault(&self, start: &str, words: &str) {
        let faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(faults[0].starts_with(start), "{start}: {}", faults[0]);
        assert!(faults[0].contains(words), "{words}: {}", faults[0]);
    }
}

fn names(config: &Config) -> Vec<&str> {
    let sockets = config.sockets.iter();
    sockets.map(|socket| socket.name.as_str()).collect()
}

#[test]
fn they_are_read_in_the_order_of_their_names_and_etc_hides_usr_lib() {
    let log = |level: &str| format!("daemon.log = '{level}'\n");
    let system = System::new(&[
        ("etc/udsd.toml", &(log("off") + A)),
        ("lib/udsd.toml.d/10-b.toml", "socket.b.path = '/b'\n"),
        ("lib/udsd.toml.d/30.toml", &log("warn")),
        ("etc/udsd.toml.d/20.toml", &log("trace")),
        ("lib/udsd.toml.d/40.toml", "socket.hidden.path = '/h'\n"),
        ("etc/udsd.toml.d/40.toml", "socket.c.path = '/c'\n"),
        // None of these is a drop-in.
        ("etc/udsd.toml.d/.50.toml", "?"),
        ("etc/udsd.toml.d/50.toml~", "?"),
        ("etc/udsd.toml.d/50.conf", "?"),
    ]);
    let config = system.load();
    assert_eq!(names(&config), ["a", "b", "c"]);
    assert_eq!(config.daemon.log, "warn");
    let read = [
        "etc/udsd.toml",
        "lib/udsd.toml.d/10-b.toml",
        "etc/udsd.toml.d/20.toml",
        "lib/udsd.toml.d/30.toml",
        "etc/udsd.toml.d/40.toml",
    ];
    let read = read.map(|name| system.path(name));
    assert!(config.origin.files().eq(&read), "{}", config.origin);

    // An empty one, and a link to nothing, hide as well.
    system.write("etc/udsd.toml.d/30.toml", "");
    symlink("/dev/null", system.path("etc/udsd.toml.d/10-b.toml")).unwrap();
    let config = system.load();
    assert_eq!(names(&config), ["a", "c"]);
    assert_eq!(config.daemon.log, "trace");
}

#[test]
fn later_keys_win_key_by_key_and_lists_as_a_whole() {
    let record =
        "service = 'collect'\nframing = 'lines'\nrecord = { file = '/r', format = 'raw' }\n";
    let system = System::new(&[
        ("etc/udsd.toml", &(A.to_owned() + record)),
        (
            "etc/udsd.toml.d/1.toml",
            "[socket.b]\npath = '/b'\n[socket.a]\nallow-users = [3]\nrecord.mode = '0600'\n",
        ),
    ]);
    let config = system.load();
    // A drop-in that changes a socket does not move it: the first stays udsd.socket.
    assert_eq!(names(&config), ["a", "b"]);
    let a = &config.sockets[0];
    assert_eq!(a.allow_users, ["3"]);
    let record = a.record.as_ref().unwrap();
    assert_eq!(record.file, Some("/r".into()));
    assert_eq!(
        (record.mode, record.format.to_string()),
        (0o600, "raw".into())
    );
}

#[test]
fn without_a_file_they_extend_the_embedded_one() {
    let system = System::new(&[("lib/udsd.toml.d/app.toml", "socket.app.path = '/app'\n")]);
    assert_eq!(names(&system.load()), ["udsd", "app"]);
    assert!(!system.load().origin.is_built_in());
    system.write("etc/udsd.toml.d/off.toml", "socket.udsd.enabled = false\n");
    assert_eq!(names(&system.load()), ["app"]);
}

#[test]
fn a_socket_that_is_off_is_as_if_it_were_not_there() {
    let system = System::new(&[
        ("etc/udsd.toml", A),
        (
            "etc/udsd.toml.d/1.toml",
            "[socket.b]\npath = '/a'\nstamp = true\n",
        ),
        ("etc/udsd.toml.d/2.toml", "socket.b.enabled = false\n"),
    ]);
    // Neither its path nor its contradictions count.
    let config = system.load();
    assert_eq!(names(&config), ["a"]);
    let off = format!("{}:1", system.path("etc/udsd.toml.d/2.toml").display());
    assert_eq!(config.origin.of_switch("b"), Some(off.clone()));
    assert!(
        config
            .to_toml()
            .ends_with(&format!("\n# [socket.b] is off: {off}\n"))
    );
    // What switches it off may outlive the file that brought it.
    fs::remove_file(system.path("etc/udsd.toml.d/1.toml")).unwrap();
    assert_eq!(names(&system.load()), ["a"]);
    // A slip is a slip all the same.
    system.write("etc/udsd.toml.d/1.toml", "[socket.b]\nmod = '0660'\n");
    system.fault(
        "etc/udsd.toml.d/1.toml:2: socket.b.mod: ",
        "did you mean mode?",
    );
    system.write("etc/udsd.toml.d/1.toml", "[socket.a]\nenabled = false\n");
    system.fault(
        "etc/udsd.toml.d/1.toml:2: socket.a.enabled: ",
        "write true for one of them",
    );
    system.write("etc/udsd.toml.d/1.toml", "[socket.a]\nenabled = 'no'\n");
    system.fault(
        "etc/udsd.toml.d/1.toml:2: socket.a.enabled: ",
        "true or false",
    );
}

#[test]
fn every_fault_names_its_file() {
    let system = System::new(&[("etc/udsd.toml", A)]);
    let drop_in = "lib/udsd.toml.d/1.toml";
    for (text, place, words) in [
        ("\n[socket.a\n", "2: ", "not TOML"),
        ("\nsocket.a.mode = 'rw'\n", "2: socket.a.mode: ", "octal"),
        (
            "\n[sokket.b]\npath = '/b'\n",
            "2: sokket: ",
            "did you mean socket?",
        ),
        ("\nsocket.a = 3\n", "2: socket.a: ", "must be a table"),
        (
            "\nsocket.a.path.x = 3\n",
            "2: socket.a.path: ",
            "must be a string",
        ),
        (
            "\n[socket.b]\nmode = '0600'\n",
            "2: socket.b.path: ",
            "is missing",
        ),
        (
            "limits.clients = 1\n[limits]\nclients = 2\n",
            "2: limits: ",
            "given twice",
        ),
        (
            "\n[socket.b]\npath = '/a'\n",
            "3: socket.b.path: ",
            "is socket.a.path too",
        ),
    ] {
        system.write(drop_in, text);
        system.fault(&format!("{drop_in}:{place}"), words);
    }
    system.write(
        drop_in,
        "\nsocket.a.framing = 'lines'\nsocket.a.user = 'x'\n",
    );
    system.write(
        "etc/udsd.toml",
        "[socket.a]\npath = '@a'\ntype = 'datagram'\nmod = 1\n",
    );
    // In the order of the files; where two contradict each other, both are named.
    let faults = system.faults();
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].starts_with("etc/udsd.toml:4: socket.a.mod: "));
    assert!(faults[1].starts_with("lib/udsd.toml.d/1.toml:2: socket.a.framing: "));
    assert!(faults[1].ends_with(" (socket.a.type: etc/udsd.toml:3)"));
    assert!(faults[2].starts_with("lib/udsd.toml.d/1.toml:3: socket.a.user: "));
    fs::remove_file(system.path(drop_in)).unwrap();
    fs::create_dir(system.path(drop_in)).unwrap();
    system.fault(&format!("{drop_in}: "), "it is no file");
}

#[test]
fn a_named_file_has_the_drop_ins_beside_it_and_a_check_says_where_each_key_is_set() {
    let folder = Folder::new();
    let at = |name: &str| folder.0.join(name).display().to_string();
    let file = folder.file(format!(
        "[socket.a]\nmode = '0600'\npath = '{}'\nbacklog = 4096\n",
        at("a")
    ));
    let drop_ins = folder.0.join("udsd.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    // What a comment cannot hold.
    let odd = drop_ins.join("1\n\u{1b}.toml");
    fs::write(&odd, "[socket.a]\n\nmode = '0640'\n").unwrap();
    fs::write(drop_ins.join("2.toml"), "socket.z.enabled = false").unwrap();
    let first = check(&file);
    assert!(first.status.success(), "{first:#?}");
    let text = String::from_utf8_lossy(&first.stdout);
    let setting = |key: &str, comment: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.ends_with(&format!(" {comment}")), "{line}");
    };
    setting("path = ", &format!("{}:3", file.display()));
    let folder_of = drop_ins.display();
    setting(
        "mode = \"0640\"",
        &format!("{folder_of}/1\\n\\u{{1b}}.toml:3"),
    );
    // As the default is.
    setting("backlog = ", "connections that wait to be accepted");
    setting("# [socket.z] is off:", &format!("{folder_of}/2.toml:1"));

    fs::remove_dir_all(&drop_ins).unwrap();
    let again = check(&folder.file(&first.stdout));
    let dirs = BaseDirs::system();
    let read = |output: &[u8]| Parsed::new(output, None, &dirs).unwrap().verdict().unwrap();
    assert_eq!(read(&first.stdout).sockets, read(&again.stdout).sockets);
}

#[test]
fn a_file_that_is_named_needs_to_be_there_whatever_lies_beside_it() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("udsd.toml.d")).unwrap();
    fs::write(folder.0.join("udsd.toml.d/1.toml"), A).unwrap();
    let file = folder.0.join("udsd.toml");
    let output = udsd(&["--config", file.to_str().unwrap(), "--check"]);
    assert_eq!(output.status.code(), Some(78), "{output:#?}");
}
