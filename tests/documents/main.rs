//! Promise: what README.md and the manuals say is so. Every command that they print is run and prints what stands
//! below it; the manuals have every option, command and log line, and nothing that is not there; the
//! completions are those of the options. The keys of the file are compared in `src/config/write.rs`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

#[path = "../harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "others look at more of the sources")]
#[path = "../source/mod.rs"]
mod source;

mod completions;
mod counts;
mod lines;
mod manuals;
mod recipes;
mod shown;

const README: &str = include_str!("../../README.md");

/// Each manual: its file and its text.
const MANUALS: [(&str, &str); 4] = [
    ("udsd.8", include_str!("../../packaging/man/udsd.8")),
    ("udsc.1", include_str!("../../packaging/man/udsc.1")),
    (
        "udsd.toml.5",
        include_str!("../../packaging/man/udsd.toml.5"),
    ),
    (
        "udsd-generator.8",
        include_str!("../../packaging/man/udsd-generator.8"),
    ),
];

fn manual(file: &str) -> &'static str {
    MANUALS.iter().find(|(name, _)| *name == file).unwrap().1
}

/// What lies between `start` and the next of `ends`, without either; nothing where `start` is not there.
fn between<'a>(text: &'a str, start: &str, ends: &[&str]) -> &'a str {
    let Some(at) = text.find(start) else {
        return "";
    };
    let rest = &text[at + start.len()..];
    let end = ends.iter().filter_map(|end| rest.find(end)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The fenced blocks of a kind in README.md, or in a part of it.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("```{kind}\n");
    let starts = text.match_indices(&fence).map(|(at, _)| at);
    starts
        .map(|at| between(&text[at..], &fence, &["```"]))
        .collect()
}

/// A line of mdoc(7) as it is shown.
fn unescaped(line: &str) -> String {
    let escapes = [
        ("\\&", ""),
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fP", ""),
        ("\\(aq", "'"),
        ("\\(dq", "\""),
        ("\\(ga", "`"),
        ("\\-", "-"),
        ("\\e", "\\"),
    ];
    let line = line.to_owned();
    escapes
        .iter()
        .fold(line, |line, (from, to)| line.replace(from, to))
}
