//! Runs what README.md and the manuals print: each command must print what stands below it, and the Python client
//! must get back what it sent. Each document is a paste of its own.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    MANUALS, README, blocks,
    harness::{Folder, Setup, has_program, read_n},
    manual, unescaped,
};

/// The blocks of a manual.
fn literal_blocks(manual: &str) -> Vec<String> {
    let blocks = manual.split(".Bd -literal").skip(1);
    let blocks = blocks.map(|block| block.split("\n.Ed").next().unwrap());
    let texts = blocks.map(|block| {
        let lines = block.lines().skip(1).map(|line| unescaped(line) + "\n");
        lines.collect::<String>()
    });
    texts.collect()
}

/// Commands of a block, each with the output that is printed below it. "> " goes on with a command.
fn commands(block: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.into(), String::new()));
            continue;
        }
        let (command, output) = found.last_mut().unwrap();
        match line.strip_prefix("> ") {
            Some(more) if output.is_empty() => *command += &format!("\n{more}"),
            _ => *output += &format!("{line}\n"),
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

/// What a daemon says of a moment, made equal: each word that begins with a digit, and who runs this.
fn alike(text: &str) -> String {
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let word = |word: &str| {
        let is_number = word
            .trim_start_matches('(')
            .starts_with(|c: char| c.is_ascii_digit());
        match is_number || ["root", user.trim()].contains(&word) {
            true => "#".into(),
            false => word.to_owned(),
        }
    };
    let line = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether what a command printed is what the document says.
fn is_as_shown(command: &str, printed: &str, shown: &str) -> bool {
    let tells_a_moment = ["udsc status", "udsc clients"];
    match tells_a_moment
        .iter()
        .any(|start| command.starts_with(start))
    {
        true => alike(printed) == alike(shown),
        false => same(printed) == same(shown),
    }
}

/// A shell in the folder, with the built binaries first in its PATH.
pub(crate) fn shell(folder: &Path, arguments: &[&str]) -> Command {
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

/// Pastes the commands of a document into a shell.
fn paste(document: &str, commands: &[(String, String)]) {
    let folder = Folder::new();
    assert!(!commands.is_empty(), "{document}");
    // What follows sees the exit code as if nothing stood between.
    let mut text = format!("mark() {{ local code=$?; echo '{MARK}'; return $code; }}\n");
    for (command, _) in commands {
        text += &format!("{command}\nmark\n");
    }
    let script = folder.join("pasted");
    fs::write(&script, text + "exit 0\n").unwrap();
    // As a paste: what reads its standard input takes commands away from the shell.
    let output = shell(folder.path(), &["-s"])
        .stdin(File::open(&script).unwrap())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{document}: {output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let mark = format!("{MARK}\n");
    let printed: Vec<&str> = printed.split_terminator(&mark).collect();
    assert_eq!(printed.len(), commands.len(), "{document}: {printed:#?}");
    for ((command, expected), printed) in commands.iter().zip(printed) {
        assert!(
            is_as_shown(command, printed, expected),
            "{document}: {command}\n{printed}\nexpected:\n{expected}"
        );
    }
    // Who pasted it has nothing left that runs.
    let sockets = fs::read_dir(folder.path()).unwrap();
    let sockets = sockets.map(|entry| entry.unwrap().path());
    for socket in sockets.filter(|path| path.extension().is_some_and(|end| end == "sock")) {
        assert!(
            UnixStream::connect(&socket).is_err(),
            "{document}: {}",
            socket.display()
        );
    }
}

#[test]
fn pasted_into_a_shell_each_command_of_readme_prints_what_it_says() {
    let commands: Vec<_> = blocks(README, "console")
        .into_iter()
        .flat_map(commands)
        .collect();
    paste("README.md", &commands);
}

#[test]
fn so_does_each_command_of_the_manuals() {
    for (file, text) in MANUALS {
        let mut blocks = literal_blocks(text);
        blocks.retain(|block| block.starts_with("$ "));
        let commands: Vec<_> = blocks.iter().flat_map(|block| commands(block)).collect();
        paste(file, &commands);
    }
}

#[test]
fn each_file_in_the_manuals_is_sound() {
    let blocks = MANUALS.iter().flat_map(|(_, text)| literal_blocks(text));
    let files: Vec<String> = blocks.filter(|block| block.starts_with('[')).collect();
    assert!(!files.is_empty());
    for text in files {
        let folder = Folder::new();
        fs::write(folder.join("udsd.toml"), &text).unwrap();
        let check = "udsd --config udsd.toml --check --text";
        let output = shell(folder.path(), &["-c", check]).output().unwrap();
        assert!(output.status.success(), "{text}{output:?}");
    }
}

#[test]
fn the_python_client_gets_back_what_it_sent() {
    if !has_program("python3") {
        return;
    }
    let setup = Setup::new().arguments(&["--socket", "./echo.sock"]);
    let daemon = setup.start();
    let blocks = literal_blocks(manual("udsc.1"));
    let client = blocks
        .iter()
        .find(|block| block.starts_with("import socket"));
    fs::write(daemon.path("client.py"), client.unwrap()).unwrap();
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
fn readme_is_a_front_page() {
    assert!(README.lines().count() <= 200);
}

#[test]
fn what_readme_installs_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = blocks(README, "sh")
        .into_iter()
        .flat_map(str::split_whitespace);
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

/// Each way that is shown to send one message to a relay and go.
#[test]
fn one_message_reaches_a_relay_and_its_sender_goes() {
    let blocks = literal_blocks(manual("udsc.1"));
    let recipes = blocks
        .iter()
        .find(|block| block.starts_with("udsc -s chat send"));
    let recipes: Vec<&str> = recipes.unwrap().lines().collect();
    assert_eq!(recipes.len(), 4);
    let daemon = Setup::new()
        .config("[socket.chat]\npath = \"{dir}/chat\"\nservice = \"relay\"\nframing = \"lines\"\n")
        .start();
    let (path, file) = (daemon.path("chat"), daemon.path("udsd.toml"));
    for recipe in recipes {
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
