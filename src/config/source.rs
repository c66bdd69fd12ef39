//! The text of a file: on which line a key is, where a key that is given twice was first given, and how the file is
//! laid over those before it.

use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::value::quote;

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

    /// Line and column, from 1, of the byte at `offset`, or of the end.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.text.get(self.starts[line - 1]..offset);
        (line, 1 + before.map_or(0, |text| text.chars().count()))
    }

    /// Lays the tables of this text over others: what it has wins, key by key. `note` gets the whole name and the
    /// line of each key that stands here from now on; a table that was there stays where it was.
    pub(super) fn lay<'t>(
        &self,
        over: DeTable<'t>,
        under: &mut DeTable<'t>,
        note: &mut dyn FnMut(String, usize),
    ) {
        self.lay_table("", over, under, note);
    }

    fn lay_table<'t>(
        &self,
        name: &str,
        over: DeTable<'t>,
        under: &mut DeTable<'t>,
        note: &mut dyn FnMut(String, usize),
    ) {
        for (key, value) in over {
            let name = join(name, key.get_ref());
            let (line, span) = (self.line(key.span().start), value.span());
            let before = under.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut);
            let value = match (before, value.into_inner()) {
                (Some(DeValue::Table(under)), DeValue::Table(over)) => {
                    self.lay_table(&name, over, under, note);
                    continue;
                }
                (_, DeValue::Table(over)) => {
                    let mut table = DeTable::new();
                    self.lay_table(&name, over, &mut table, note);
                    DeValue::Table(table)
                }
                (_, value) => value,
            };
            note(name, line);
            under.insert(key, Spanned::new(span, value));
        }
    }

    /// Lines of all keys and tables, by their whole names.
    fn lines(&self, root: DeTable<'_>) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        let mut note = |name, line| _ = lines.insert(name, line);
        self.lay(root, &mut DeTable::new(), &mut note);
        lines
    }

    /// The whole name of a key at `span` that the parser refused as a duplicate, and the line where it was given
    /// first. The parser does not tell that, so this parses the text up to the key again, with a new key in its
    /// place.
    pub(super) fn repeated(&self, span: &Range<usize>) -> Option<(String, usize)> {
        const NEW: &str = "-a-new-key-";
        let setting = format!("{}=0", &self.text[span.clone()]);
        let (table, _) = DeTable::parse_recoverable(&setting);
        let key = table.get_ref().keys().next()?.get_ref();
        ["=0", "]"].iter().find_map(|rest| {
            let text = format!("{}{NEW}{rest}", &self.text[..span.start]);
            let (root, _) = DeTable::parse_recoverable(&text);
            let lines = Source::new(&text).lines(root.into_inner());
            let table = lines.keys().find_map(|name| name.strip_suffix(NEW))?;
            let name = join(table.trim_end_matches('.'), key);
            let first = *lines.get(&name)?;
            Some((name, first))
        })
    }
}

/// The name of `key` in `table`.
pub(super) fn join(table: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let bare = !key.is_empty() && key.chars().all(plain);
    let key = if bare { key.into() } else { quote(key) };
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
    fn places_are_lines_and_columns() {
        let source = Source::new("a = 1\n\nkµ = 1\n");
        for (offset, place) in [
            (0, (1, 1)),
            (5, (1, 6)),
            (6, (2, 1)),
            (10, (3, 3)),
            (99, (4, 1)),
        ] {
            assert_eq!(source.position(offset), place, "{offset}");
        }
    }

    #[test]
    fn odd_keys_are_quoted() {
        assert_eq!(join("socket", "udsd"), "socket.udsd");
        assert_eq!(join("socket", "a\nb"), "socket.\"a\\nb\"");
        assert_eq!(join("", ""), "\"\"");
    }
}
