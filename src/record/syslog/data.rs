//! The structured data of RFC 5424 (6.3): `[id name="value" ...]`, any number of them.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Serialize, Serializer, ser::SerializeSeq};

/// Elements by their ids, and their parameters by their names.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Data<'a>(BTreeMap<&'a str, BTreeMap<&'a str, Values<'a>>>);

/// The values of one name, which may come several times. They have their escapes.
#[derive(Clone, Debug, Default)]
struct Values<'a>(Vec<&'a str>);

impl<'a> Data<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That at the start of `text`, or "-" for none; and what is behind it.
    pub(super) fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let mut data = Data::default();
        let mut rest = text.strip_prefix('-').unwrap_or(text);
        if rest.len() == text.len() {
            while let Some(inside) = rest.strip_prefix('[') {
                rest = data.element(inside)?;
            }
            if data.is_empty() {
                return None;
            }
        }
        match rest.strip_prefix(' ') {
            Some(behind) => Some((data, behind)),
            None => rest.is_empty().then_some((data, rest)),
        }
    }

    /// Takes what is left of an element, and returns what is behind it.
    fn element(&mut self, text: &'a str) -> Option<&'a str> {
        let (id, mut rest) = name(text)?;
        let params = self.0.entry(id).or_default();
        loop {
            if let Some(behind) = rest.strip_prefix(']') {
                return Some(behind);
            }
            let (name, behind) = name(rest.strip_prefix(' ')?)?;
            let value = behind.strip_prefix("=\"")?;
            let end = quote(value)?;
            params.entry(name).or_default().0.push(&value[..end]);
            rest = &value[end + 1..];
        }
    }
}

/// A name, and what is behind it.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| c.is_whitespace() || "=]\"".contains(c))?;
    (end > 0).then(|| text.split_at(end))
}

/// Where the quote is that ends a value.
fn quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

/// Without its escapes. A backslash before any other character stands for itself.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return value.into();
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = chars.next_if(|next| c == '\\' && "\"\\]".contains(*next));
        out.push(escaped.unwrap_or(c));
    }
    out.into()
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [value] = self.0[..] {
            return serializer.serialize_str(&unescaped(value));
        }
        let mut all = serializer.serialize_seq(Some(self.0.len()))?;
        for value in &self.0 {
            all.serialize_element(&unescaped(value))?;
        }
        all.end()
    }
}
