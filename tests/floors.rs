//! Keeps the floors of the architecture: a module imports only modules that stand lower than itself,
//! the files of one folder import each other in no circle, and unsafe code stands in `src/sys.rs` alone.
//!
//! The source is read as tokens, without comments, strings and `#[cfg(test)]` items. An import is
//! whatever begins with `crate::`, `self::` or `super::`, in a `use` or in the middle of a line. For the
//! floors, all files of one folder are one module. Inside a folder, the file that the folder is named after
//! (`hub.rs` of `hub/`) is the parent: it may use its files and they may use what it defines, that is no
//! circle. A name that the parent only passes on (`pub use file::Name`) is an import of the file that
//! defines it. A folder in a folder counts as one file there.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use source::{Token, outside_tests, package, rust_files, tokens};

/// The floors from the lowest up. On one floor the modules of a later line may import those of an
/// earlier one, and none of their own: so nothing is circular.
const FLOORS: &[&[&[&str]]] = &[
    &[
        &[
            "counters",
            "limits",
            "rfc3339",
            "serde_base64",
            "throttle",
            "round_robin",
        ],
        &["frame", "peer", "queue", "unit"],
        &["access", "datagram_header", "error", "message_batch"],
        &["control"],
    ],
    &[
        &["timer", "lock", "memory", "sys"],
        &["cgroups", "closer", "parking", "record", "systemd"],
        &["config"],
        &["sysctl"],
    ],
    &[
        &["users", "input"],
        &["connection", "datagram"],
        &["client_socket", "datagram_socket", "service"],
        &["handover_state"],
        &["endpoint", "hub"],
        &["handover"],
    ],
    &[&["server"]],
    &[&["generator"], &["daemon", "udsc"]],
    &[&["bin"]],
];

/// Floor and line of a module.
fn place(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, lines)| {
        let line = lines.iter().position(|line| line.contains(&module))?;
        Some((floor, line))
    })
}

/// A path from the crate's root, and the name by which it is known where it is imported.
struct Import<'a> {
    path: Vec<Token<'a>>,
    name: &'a str,
}

impl<'a> Import<'a> {
    fn texts(&self) -> Vec<&'a str> {
        self.path.iter().map(|token| token.text).collect()
    }
}

/// Reads the paths of a file.
struct Paths<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    found: Vec<Import<'a>>,
}

impl<'a> Paths<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn goes_on(&self, at: usize) -> bool {
        self.text(at) == ":" && self.text(at + 1) == ":"
    }

    /// Reads what follows `path` and its "::": a name, or a tree of names in braces.
    fn tree(&mut self, mut path: Vec<Token<'a>>) {
        if self.text(self.at) == "{" {
            self.at += 1;
            while !["}", ""].contains(&self.text(self.at)) {
                self.tree(path.clone());
                if self.text(self.at) == "," {
                    self.at += 1;
                }
            }
            self.at += 1;
            return;
        }
        let Some(token) = self.tokens.get(self.at).copied() else {
            return;
        };
        self.at += 1;
        if token.text != "self" {
            path.push(token);
        }
        if self.goes_on(self.at) && self.text(self.at + 2) != "<" {
            self.at += 2;
            return self.tree(path);
        }
        let mut name = path.last().map_or("", |last| last.text);
        if self.text(self.at) == "as" {
            name = self.text(self.at + 1);
            self.at += 2;
        }
        self.found.push(Import { path, name });
    }
}

/// What a file names of the crate `root`. `own`: the module that the file is; `children`: those below it,
/// which it may name without a prefix.
fn imports<'a>(
    tokens: Vec<Token<'a>>,
    root: &'a str,
    own: &'a [String],
    children: &BTreeSet<&str>,
) -> Vec<Import<'a>> {
    let mut paths = Paths {
        tokens,
        at: 0,
        found: Vec::new(),
    };
    while let Some(start) = paths.tokens.get(paths.at).copied() {
        let before = paths.at;
        paths.at += 1;
        let is_first = before < 2 || !paths.goes_on(before - 2);
        let is_use = before > 0 && paths.text(before - 1) == "use";
        let above = match start.text {
            _ if !is_first => continue,
            text if text == root => own.len(),
            "self" => 0,
            "super" => {
                let mut supers = 1;
                while paths.goes_on(paths.at) && paths.text(paths.at + 2) == "super" {
                    supers += 1;
                    paths.at += 3;
                }
                supers
            }
            text if is_use && children.contains(text) => {
                paths.at = before;
                let line = start.line;
                paths.tree(own.iter().map(|text| Token { text, line }).collect());
                continue;
            }
            _ => continue,
        };
        if paths.goes_on(paths.at) && above <= own.len() {
            paths.at += 2;
            let line = start.line;
            let prefix = own[..own.len() - above].iter();
            paths.tree(prefix.map(|text| Token { text, line }).collect());
        } else if start.text == root && paths.text(paths.at) == "as" {
            // It would hide some.
            let path = vec![start];
            paths.found.push(Import { path, name: root });
        }
    }
    paths.found
}

/// The module that a file below `src` is, from the root; nothing for `lib.rs`.
fn module_of(file: &Path) -> Vec<String> {
    let name = |part: &std::ffi::OsStr| part.to_str().unwrap().to_owned();
    let mut parts: Vec<String> = file.iter().map(name).collect();
    let last = parts.pop().unwrap();
    let stem = last.strip_suffix(".rs").unwrap();
    let is_root = parts.is_empty() && stem == "lib";
    if stem != "mod" && !is_root {
        parts.push(stem.to_owned());
    }
    parts
}

/// What is wrong with the imports of one file.
fn faults(file: &Path, source: &str) -> Vec<String> {
    let own = module_of(file);
    let Some(module) = own.first() else {
        return Vec::new();
    };
    let shown = file.display();
    let Some(place_of_own) = place(module) else {
        return vec![format!("src/{shown}: {module} stands on no floor")];
    };
    let all = tokens(source);
    // A binary is a crate of its own, above the library.
    let root = if module == "bin" { "udsd" } else { "crate" };
    let mut wrong = Vec::new();
    for import in imports(outside_tests(&all), root, &own, &BTreeSet::new()) {
        let Some(Token { text, line }) = import.path.first() else {
            continue;
        };
        let message = match place(text) {
            _ if text == module => continue,
            None => format!("src/{shown}:{line}: imports {text}, which stands on no floor"),
            Some(other) if other >= place_of_own => format!(
                "src/{shown}:{line}: {module} (floor {}) imports {text} (floor {})",
                place_of_own.0, other.0
            ),
            Some(_) => continue,
        };
        if !wrong.contains(&message) {
            wrong.push(message);
        }
    }
    wrong
}

/// All modules, by their paths, with the tokens of their files.
type Modules<'a> = BTreeMap<Vec<String>, Vec<Token<'a>>>;
/// A folder and two of its files, of which the first imports the second.
type Edge = (Vec<String>, String, String);

/// The imports among files of one folder, each with the module and the line where it first stands.
fn edges(modules: &Modules<'_>) -> BTreeMap<Edge, String> {
    let mut all = BTreeMap::new();
    for (own, tokens) in modules {
        let below = modules.keys().filter(|path| path.starts_with(own));
        let children = below.filter_map(|path| path.get(own.len()));
        let children = children.map(String::as_str).collect();
        all.insert(own, imports(tokens.clone(), "crate", own, &children));
    }
    let module = |path: &[&str]| {
        let longest = (0..=path.len()).rev().map(|length| &path[..length]);
        let mut known = longest.filter_map(|path| {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            modules.contains_key(&path).then_some(path)
        });
        known.next().unwrap_or_default()
    };
    // Where a name comes from that a module passes on.
    let passed_on = |through: &Vec<String>, name: &str| {
        let mut imports = all.get(through)?.iter();
        let same = imports.find(|import| import.name == name)?;
        Some(module(&same.texts())).filter(|from| from.starts_with(through) && from != through)
    };
    let mut edges = BTreeMap::new();
    for (own, imports) in &all {
        for import in imports {
            let path = import.texts();
            let mut target = module(&path);
            while let Some(name) = path.get(target.len())
                && let Some(from) = passed_on(&target, name)
            {
                target = from;
            }
            let same = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (own.get(same), target.get(same))
                && same > 0
            {
                let line = import.path.last().map_or(0, |token| token.line);
                let edge = (own[..same].to_vec(), from.clone(), to.clone());
                edges
                    .entry(edge)
                    .or_insert(format!("{}:{line}", own.join("::")));
            }
        }
    }
    edges
}

/// The imports by which files of one folder depend on themselves, each with where it stands.
fn circles(modules: &Modules<'_>) -> BTreeMap<String, String> {
    let edges = edges(modules);
    let leads_back = |(folder, start, first): &Edge| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![first.clone()]);
        while let Some(file) = next.pop() {
            let of_file = edges
                .keys()
                .filter(|edge| edge.0 == *folder && edge.1 == file);
            next.extend(
                of_file
                    .map(|edge| edge.2.clone())
                    .filter(|to| !reached.contains(to)),
            );
            reached.insert(file);
        }
        reached.contains(start)
    };
    let in_circle = edges.iter().filter(|(edge, _)| leads_back(edge));
    let shown = in_circle.map(|((folder, from, to), at)| {
        (
            format!("{}/: {from} imports {to}", folder.join("/")),
            at.clone(),
        )
    });
    shown.collect()
}

#[test]
fn files_of_one_folder_import_each_other_in_no_circle() {
    let src = package().join("src");
    let files = rust_files(&src);
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let all: Vec<Vec<Token<'_>>> = texts.iter().map(|text| tokens(text)).collect();
    let modules = files.iter().zip(&all).map(|(file, tokens)| {
        let own = module_of(file.strip_prefix(&src).unwrap());
        (own, outside_tests(tokens))
    });
    let found = circles(&modules.collect());
    let wrong: Vec<String> = found
        .iter()
        .map(|(circle, at)| format!("{circle} ({at})"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
fn the_floors_have_the_modules_of_the_library() {
    let source = fs::read_to_string(package().join("src/lib.rs")).unwrap();
    let tokens = tokens(&source);
    let modules: BTreeSet<&str> = tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text)
        .collect();
    let lines = FLOORS.iter().copied().flatten().copied();
    let on_floors = lines.flatten().copied().filter(|module| *module != "bin");
    assert_eq!(modules, on_floors.collect());
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
            ("service/echo.rs", "use crate::endpoint::Endpoint;"),
            ("connection.rs", "use crate::service::Service;"),
            ("service.rs", "use crate::hub::Hub;"),
            ("frame.rs", "use crate::message_batch::Batch;"),
            ("daemon.rs", "use crate::udsc::run;"),
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
            ("message_batch.rs", "use crate::frame::{Cut, Framing};"),
            (
                "service/echo.rs",
                "use super::{Outbox, collect}; use crate::service::Sender;",
            ),
            (
                "config/check.rs",
                "use super::{diagnostics::Diagnostics, value};",
            ),
            (
                "config.rs",
                "pub use base_dirs::BaseDirs; pub(crate) fn f() {}",
            ),
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

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let all = files
            .iter()
            .map(|(file, source)| (module_of(Path::new(file)), tokens(source)));
        circles(&all.collect()).into_keys().collect()
    }

    #[test]
    fn circles_in_a_folder_are_found() {
        let both = ["hub/: a imports b", "hub/: b imports a"];
        for (a, b) in [
            ("use super::b;", "use super::a::A;"),
            (
                "use super::{X, b::{B, C}};",
                "use crate::{hub::a::A, peer::Peer};",
            ),
            ("fn f() { super::b::f() }", "fn f() { crate::hub::a::f() }"),
            ("use super::B;", "use super::a;"),
            ("use crate::hub::Other;", "use super::a;"),
        ] {
            let parent = "mod a; mod b; pub use b::{B, C as Other}; use a::A; struct X;";
            let files = [("hub.rs", parent), ("hub/a.rs", a), ("hub/b.rs", b)];
            assert_eq!(circles_of(&files), both, "{a} {b}");
        }
        let three = [
            ("hub/mod.rs", ""),
            ("hub/a.rs", "use super::b;"),
            ("hub/b/mod.rs", ""),
            ("hub/b/c.rs", "use super::super::d;"),
            ("hub/d.rs", "use super::a;"),
            ("hub/e.rs", "use super::a;"),
        ];
        let found = [
            "hub/: a imports b",
            "hub/: b imports d",
            "hub/: d imports a",
        ];
        assert_eq!(circles_of(&three), found);
    }

    #[test]
    fn a_parent_and_its_files_are_no_circle() {
        let files = [
            (
                "hub.rs",
                "mod a; mod b; use a::{A, f}; use self::b::B; struct X; fn g() { f(b::h()) }",
            ),
            ("hub/a.rs", "use super::{X, B, b}; use crate::hub::X as Y;"),
            ("hub/b.rs", "use super::X; fn f() { self::g() }"),
            ("peer.rs", "use crate::hub::a;"),
        ];
        assert_eq!(circles_of(&files), [""; 0]);
    }
}
