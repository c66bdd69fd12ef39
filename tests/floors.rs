//! Keeps the floors of the architecture: a module imports only modules that stand lower than itself,
//! and unsafe code stands in `src/sys.rs` alone.
//!
//! The source is read as tokens, without comments, strings and `#[cfg(test)]` items. An import is
//! whatever begins with `crate::`, in a `use` or in the middle of a line, or with as many `super::`
//! as lead there. Submodules of one folder are one module here: among themselves they are free.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod source;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use source::{Token, outside_tests, package, rust_files, tokens};

/// The floors from the lowest up. On one floor the modules of a later line may import those of an
/// earlier one, and none of their own: so nothing is circular.
const FLOORS: &[&[&[&str]]] = &[
    &[
        &["counters", "limits", "serde_base64", "throttle", "turns"],
        &["frame", "peer", "queue"],
        &["access", "batch", "header", "error", "status"],
    ],
    &[
        &["timer", "lock", "memory", "sys"],
        &["closer", "parking", "record", "systemd"],
        &["config"],
        &["sysctl"],
    ],
    &[
        &["users", "input"],
        &["connection", "datagram"],
        &["accepted", "datagram_socket", "service", "state"],
        &["endpoint", "hub"],
        &["handover"],
    ],
    &[&["server"]],
    &[&["generator"], &["client", "daemon"]],
    &[&["bin"]],
];

/// Floor and line of a module.
fn place(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, lines)| {
        let line = lines.iter().position(|line| line.contains(&module))?;
        Some((floor, line))
    })
}

/// What a file takes from the crate's root, with the line: `depth` is how many `super::` lead there.
fn imports<'a>(tokens: &[Token<'a>], root: &str, depth: usize) -> Vec<Token<'a>> {
    let path_goes_on = |at: usize| {
        tokens.get(at).is_some_and(|t| t.text == ":")
            && tokens.get(at + 1).is_some_and(|t| t.text == ":")
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        at += 1;
        let within = start > 1 && path_goes_on(start - 2) && tokens[start].text == root;
        if tokens[start].text == "super" && depth > 0 {
            let mut supers = 1;
            while path_goes_on(at) && tokens.get(at + 2).is_some_and(|t| t.text == "super") {
                supers += 1;
                at += 3;
            }
            if supers < depth {
                continue;
            }
        } else if tokens[start].text != root || within {
            continue;
        }
        if !path_goes_on(at) {
            // `pub(crate)` is no import; `use crate as other` would hide some.
            if tokens.get(at).is_some_and(|t| t.text == "as") {
                found.push(tokens[start]);
            }
            continue;
        }
        at += 2;
        match tokens.get(at).map(|t| t.text) {
            Some("{") => {
                let mut depth = 0;
                let mut begins = false;
                while let Some(token) = tokens.get(at) {
                    match token.text {
                        "{" => (depth, begins) = (depth + 1, true),
                        "}" => depth -= 1,
                        "," => begins = true,
                        _ => {
                            if depth == 1 && begins {
                                found.push(*token);
                            }
                            begins = false;
                        }
                    }
                    at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            Some(_) => {
                found.push(tokens[at]);
                at += 1;
            }
            None => {}
        }
    }
    found
}

/// The module that a file below `src` belongs to, and its depth below the root; `None` for `lib.rs`.
fn module_of(file: &Path) -> Option<(String, usize)> {
    let name = |part: &std::ffi::OsStr| part.to_str().unwrap().to_owned();
    let mut parts: Vec<String> = file.iter().map(name).collect();
    let last = parts.pop().unwrap();
    let stem = last.strip_suffix(".rs").unwrap().to_owned();
    match stem.as_str() {
        "lib" if parts.is_empty() => return None,
        "mod" => {}
        _ => parts.push(stem),
    }
    Some((parts[0].clone(), parts.len()))
}

/// What is wrong with the imports of one file.
fn faults(file: &Path, source: &str) -> Vec<String> {
    let Some((module, depth)) = module_of(file) else {
        return Vec::new();
    };
    let shown = file.display();
    let Some(own) = place(&module) else {
        return vec![format!("src/{shown}: {module} stands on no floor")];
    };
    let all = tokens(source);
    // A binary is a crate of its own, above the library.
    let (root, depth) = if module == "bin" {
        ("udsd", 0)
    } else {
        ("crate", depth)
    };
    let mut wrong = Vec::new();
    for Token { text, line } in imports(&outside_tests(&all), root, depth) {
        if text == module {
            continue;
        }
        match place(text) {
            None => wrong.push(format!(
                "src/{shown}:{line}: imports {text}, which stands on no floor"
            )),
            Some(other) if other >= own => wrong.push(format!(
                "src/{shown}:{line}: {module} (floor {}) imports {text} (floor {})",
                own.0, other.0
            )),
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn modules_import_only_lower_floors() {
    let src = package().join("src");
    let files = rust_files(&src);
    assert!(
        files.len() > 20,
        "{} files in {}",
        files.len(),
        src.display()
    );
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            faults(
                file.strip_prefix(&src).unwrap(),
                &fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_floor() {
    let source = fs::read_to_string(package().join("src/lib.rs")).unwrap();
    let tokens = tokens(&source);
    let modules: Vec<&str> = tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text)
        .collect();
    assert!(modules.contains(&"hub"), "{modules:?}");
    for module in modules {
        assert!(place(module).is_some(), "{module} stands on no floor");
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let mut with: BTreeSet<PathBuf> = BTreeSet::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for file in rust_files(&package().join(folder)) {
            let source = fs::read_to_string(&file).unwrap();
            if tokens(&source).iter().any(|token| token.text == "unsafe") {
                with.insert(file.strip_prefix(package()).unwrap().to_owned());
            }
        }
    }
    assert_eq!(with, BTreeSet::from(["src/sys.rs".into()]));
}

/// The tests of the checker itself: without them, a checker that finds nothing would please.
mod checker {
    use super::*;

    fn check(file: &str, source: &str) -> Vec<String> {
        faults(Path::new(file), source)
    }

    #[test]
    fn an_import_from_above_is_found_with_its_line() {
        assert_eq!(
            check("queue.rs", "//! Bytes.\n\nuse crate::hub::Hub;\n"),
            ["src/queue.rs:3: queue (floor 0) imports hub (floor 2)"]
        );
    }

    #[test]
    fn an_import_from_beside_is_found() {
        for (file, source) in [
            ("sys.rs", "use crate::systemd;"),
            ("service/echo.rs", "use crate::endpoint::Accepted;"),
            ("connection.rs", "use crate::service::Service;"),
            ("service/mod.rs", "use crate::hub::Hub;"),
            ("frame.rs", "use crate::batch::Batch;"),
            ("daemon.rs", "use crate::client::run;"),
        ] {
            assert_eq!(check(file, source).len(), 1, "{file}: {source}");
        }
    }

    #[test]
    fn every_branch_of_a_tree_is_seen() {
        let source = "use crate::{\n    error::{Close, Fatal},\n    peer::{self, Peer},\n    server::{\n        Ended,\n        Server,\n    },\n    daemon,\n};\n";
        assert_eq!(
            check("hub.rs", source),
            [
                "src/hub.rs:4: hub (floor 2) imports server (floor 3)",
                "src/hub.rs:8: hub (floor 2) imports daemon (floor 4)"
            ]
        );
    }

    #[test]
    fn paths_outside_of_use_are_seen() {
        assert_eq!(
            check("sys.rs", "fn f() { let x = crate::hub::Hub::new(); }").len(),
            1
        );
        assert_eq!(check("sys.rs", "use super::hub::Hub;").len(), 1);
        assert_eq!(
            check("service/echo.rs", "use super::super::hub::Hub;").len(),
            1
        );
        assert_eq!(check("sys.rs", "use super::{peer, hub};").len(), 1);
        assert_eq!(check("sys.rs", "use crate::*;").len(), 1);
        assert_eq!(check("sys.rs", "use crate as root;").len(), 1);
        assert_eq!(
            check("sys.rs", "/* /* */ */ use /* x */ crate :: hub;").len(),
            1
        );
        assert_eq!(
            check("sys.rs", "const A: char = '\"'; use crate::hub;").len(),
            1
        );
        assert_eq!(
            check("sys.rs", "fn f<'a>(x: &'a u8) {} use crate::hub;").len(),
            1
        );
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        assert_eq!(
            check("helper.rs", ""),
            ["src/helper.rs: helper stands on no floor"]
        );
        assert_eq!(check("hub.rs", "use crate::helper;").len(), 1);
        assert_eq!(check("bin/udsd.rs", "use udsd::helper::main;").len(), 1);
    }

    #[test]
    fn what_is_allowed_passes() {
        for (file, source) in [
            (
                "hub.rs",
                "use crate::{service::Collect, connection::Stream, sys};",
            ),
            ("batch.rs", "use crate::frame::{Cut, Framing};"),
            (
                "service/echo.rs",
                "use super::{Outbox, collect}; use crate::service::Sender;",
            ),
            ("config/check.rs", "use super::{faults::Faults, value};"),
            ("config.rs", "pub use places::Places; pub(crate) fn f() {}"),
            ("bin/udsd.rs", "fn main() { udsd::daemon::main() }"),
            (
                "queue.rs",
                "// use crate::hub;\n/// crate::hub\nconst A: &str = \"use crate::hub;\"; const B: &str = r#\"\" crate::hub\"#;",
            ),
            (
                "queue.rs",
                "#[cfg(test)]\nmod tests {\n use super::*;\n use crate::hub::Hub;\n fn f() {}\n}\n",
            ),
            ("queue.rs", "#[cfg(test)]\nuse crate::hub::Hub;\n"),
        ] {
            assert_eq!(
                check(file, source),
                Vec::<String>::new(),
                "{file}: {source}"
            );
        }
        // What follows a test module counts again.
        let source = "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::hub::Hub;\n";
        assert_eq!(check("queue.rs", source).len(), 1);
    }

    #[test]
    fn unsafe_is_a_word_of_code() {
        let has = |source| tokens(source).iter().any(|token| token.text == "unsafe");
        assert!(has("fn f() { unsafe { g() } }"));
        assert!(!has(
            "// unsafe\n#![allow(unsafe_code, reason = \"unsafe\")]"
        ));
    }
}
