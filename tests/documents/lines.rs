//! The log lines in udsd(8): each that is listed is in the sources, and each that the sources have is listed.

use std::fs;

use crate::{
    between, manual,
    source::{package, rust_files},
    unescaped,
};

/// What a line is listed by: its words, cut where they differ from line to line.
type Words = Vec<String>;

/// The items of the section.
fn listed() -> Vec<Words> {
    let section = between(manual("udsd.8"), ".Sh LOG LINES\n", &["\n.Sh "]);
    let items = section.lines().filter_map(|line| line.strip_prefix(".It "));
    items
        .map(|item| {
            let parts = item.split("\\fI").enumerate();
            let words = parts.map(|(i, part)| {
                if i == 0 {
                    part
                } else {
                    part.split_once("\\fP").unwrap().1
                }
            });
            let mut words: Words = words.map(unescaped).collect();
            // Whose line it is comes from elsewhere.
            if let [first, second, ..] = &mut words[..]
                && first.is_empty()
                && second.starts_with(": ")
            {
                *second = second.split_off(2);
            }
            words
        })
        .collect()
}

/// Whether the text has all words in this order, not far from each other.
fn has(text: &str, words: &Words) -> bool {
    const FAR: usize = 300;
    let first = words.iter().find(|part| !part.trim().is_empty()).unwrap();
    text.match_indices(first.as_str()).any(|(start, _)| {
        let mut rest: String = text[start..].chars().take(FAR).collect();
        words.iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = rest.split_off(at + part.len());
                true
            }
            None => false,
        })
    })
}

/// The sources without their tests, each text on one line.
fn sources() -> Vec<String> {
    let files = rust_files(&package().join("src"));
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    texts
        .map(|text| {
            let text = text.split("#[cfg(test)]").next().unwrap();
            let lines = text
                .lines()
                .map(|line| line.trim_start().trim_end_matches('\\'));
            lines.collect::<Vec<_>>().join("")
        })
        .map(|text| text.replace("\\\"", "\u{1}"))
        .collect()
}

/// The texts of lines that are logged as they stand: what they are made of otherwise is listed all the same, but
/// nobody sees here that it is missing.
fn logged(source: &str) -> Vec<String> {
    let markers = ["error!(", "warn!(", "info!(", ".write(Kind::", ", Kind::"];
    let starts = markers
        .iter()
        .flat_map(|marker| source.match_indices(marker));
    let texts = starts.map(|(start, _)| between(&source[start..], "\"", &["\""]));
    texts.map(str::to_owned).collect()
}

#[test]
fn each_line_in_the_manual_is_in_the_sources() {
    let sources = sources();
    let quoted = |words: &Words| {
        words
            .iter()
            .map(|part| part.replace('"', "\u{1}"))
            .collect()
    };
    let mut listed = listed();
    listed.retain(|words| !sources.iter().any(|source| has(source, &quoted(words))));
    assert!(listed.is_empty(), "no lines of the sources: {listed:#?}");
}

#[test]
fn each_line_in_the_sources_is_in_the_manual() {
    let (listed, sources) = (listed(), sources());
    let texts = sources.iter().flat_map(|source| logged(source));
    // What is but a variable says nothing here.
    let texts = texts.filter(|text| {
        text.split('{')
            .any(|part| part.split('}').next_back().unwrap().len() > 2)
    });
    let missing: Vec<String> = texts
        .filter(|text| !listed.iter().any(|words| has(text, words)))
        .collect();
    assert!(
        missing.is_empty(),
        "udsd.8 is to have, under LOG LINES: {missing:#?}"
    );
}
