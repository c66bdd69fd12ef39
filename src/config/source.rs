//! The text of the file: which line a key is on, and which key a fault of the syntax is about.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue, Error};

/// The text and where its lines begin.
pub(super) struct Source<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = [0].into_iter().chain(ends.map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Lines of all keys and tables, by their whole names.
    pub(super) fn lines(&self, root: &DeTable<'_>) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        self.note("", root, &mut lines);
        lines
    }

    fn note(&self, name: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table {
            let name = join(name, key.get_ref());
            if let DeValue::Table(table) = value.get_ref() {
                self.note(&name, table, lines);
            }
            lines.insert(name, self.line(key.span().start));
        }
    }

    /// Line and key that an error of the parser is about; the key is empty where none can be told.
    pub(super) fn place(&self, error: &Error) -> (usize, String) {
        let line = self.line(
            error
                .span()
                .map_or(0, |span| span.start.min(self.text.len())),
        );
        (line, self.key(line).unwrap_or_default())
    }

    /// The whole name of a key at `span` that the parser refused as a duplicate, and the line of the
    /// first. The parser does not tell: this reads the text before the key again, with a key in its
    /// place that is new.
    pub(super) fn repeated(&self, span: &Range<usize>) -> Option<(String, Option<usize>)> {
        const NEW: &str = "-a-new-key-";
        let key = self.text[span.clone()].trim_matches(['"', '\'']);
        ["=0", "]"].iter().find_map(|rest| {
            let text = format!("{}{NEW}{rest}", &self.text[..span.start]);
            let (root, _) = DeTable::parse_recoverable(&text);
            let lines = Source::new(&text).lines(root.get_ref());
            let table = lines.keys().find_map(|name| name.strip_suffix(NEW))?;
            let name = join(table.trim_end_matches('.'), key);
            let first = lines.get(&name).copied();
            Some((name, first))
        })
    }

    /// The key that a line gives, by its whole name: that of its own table header, or the key before
    /// "=" below the last header above it.
    fn key(&self, line: usize) -> Option<String> {
        let text = self.text.lines().nth(line - 1)?;
        if let Some(table) = header(text) {
            return Some(table);
        }
        let key = bare(text.split_once('=')?.0)?;
        let above = self.text.lines().take(line - 1).filter_map(header).last();
        Some(above.map_or(key.clone(), |table| format!("{table}.{key}")))
    }
}

/// The name in a table header.
fn header(line: &str) -> Option<String> {
    let line = line.trim().strip_prefix('[')?;
    bare(line.trim_start_matches('[').split_once(']')?.0)
}

/// A key that needs no quotes, dots included.
fn bare(key: &str) -> Option<String> {
    let key: String = key.chars().filter(|c| !c.is_whitespace()).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The name of `key` in `table`.
pub(super) fn join(table: &str, key: &str) -> String {
    let key = bare(key)
        .filter(|bare| bare == key)
        .unwrap_or_else(|| super::value::quote(key));
    if table.is_empty() {
        key
    } else {
        format!("{table}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_by_their_lines() {
        let source = Source::new("a = 1\n[ socket.x ] # c\nmode = 0660\n[[q]]\n\n\"k\" = 1\n");
        assert_eq!(source.key(1).as_deref(), Some("a"));
        assert_eq!(source.key(2).as_deref(), Some("socket.x"));
        assert_eq!(source.key(3).as_deref(), Some("socket.x.mode"));
        assert_eq!(source.key(4).as_deref(), Some("q"));
        assert_eq!(source.key(5), None);
        assert_eq!(source.key(6), None);
        assert_eq!(source.key(99), None);
        assert_eq!(source.line(0), 1);
        assert_eq!(source.line(5), 1);
        assert_eq!(source.line(6), 2);
    }

    #[test]
    fn odd_keys_are_quoted() {
        assert_eq!(join("socket", "udsd"), "socket.udsd");
        assert_eq!(join("socket", "a\nb"), "socket.\"a\\nb\"");
        assert_eq!(join("", ""), "\"\"");
    }
}
