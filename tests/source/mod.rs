//! Rust sources as tokens, without comments, for tests that look at the sources themselves.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A word or one character of punctuation, and its line from 1.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub text: &'a str,
    /// From 1.
    pub line: usize,
}

/// Stands for a literal.
const LITERAL: &str = "\"";

/// The tokens of a source text without its comments; of a literal one on each line of it.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            for (i, text) in rest[..length].split('\n').enumerate() {
                if !text.trim().is_empty() {
                    let (text, line) = (LITERAL, line + i);
                    found.push(Token { text, line });
                }
            }
            length
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let text = &rest[..length];
            found.push(Token { text, line });
            length
        } else {
            let length = first.len_utf8();
            if !first.is_whitespace() {
                let text = &rest[..length];
                found.push(Token { text, line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    found
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().unwrap().len_utf8();
        }
    }
    text.len()
}

/// The length of the string or character that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    let is_string = ["\"", "b\"", "c\""]
        .iter()
        .any(|open| text.starts_with(open));
    let plain = is_string.then(|| string(text));
    raw_string(text).or(plain).or_else(|| character(text))
}

fn raw_string(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"].into_iter().find_map(|prefix| {
        let rest = text.strip_prefix(prefix)?;
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        rest[hashes..]
            .starts_with('"')
            .then_some((prefix.len() + hashes + 1, hashes))
    });
    let (start, hashes) = start?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body = text[start..].find(&end).map(|found| start + found);
    Some(body.map_or(text.len(), |body| body + end.len()))
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    let open = text.find('"').unwrap() + 1;
    for (i, c) in text[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return open + i + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let open = if text.starts_with("b'") { 2 } else { 1 };
    let body = text.strip_prefix("b'").or(text.strip_prefix('\''))?;
    if body.starts_with('\\') {
        let close = body[2..].find('\'')?;
        return Some(open + 2 + close + 1);
    }
    let c = body.chars().next()?;
    body[c.len_utf8()..]
        .starts_with('\'')
        .then_some(open + c.len_utf8() + 1)
}

/// The tokens without items under `#[cfg(test)]`.
pub fn outside_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked = tokens[at..].len() >= MARK.len()
            && MARK.iter().zip(&tokens[at..]).all(|(m, t)| *m == t.text);
        if !marked {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        at += MARK.len();
        let mut depth = 0;
        while at < tokens.len() {
            let text = tokens[at].text;
            at += 1;
            match text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && (text == "}" || text == ";") {
                break;
            }
        }
    }
    kept
}

pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`, which may be missing.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
