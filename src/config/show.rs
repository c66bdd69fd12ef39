//! One value as TOML that reads again to the same: a function for each of `value` and `path` that reads one.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Value;

use super::{
    Address, base_dirs,
    value::{show_size, show_span},
};

pub(super) use self::{file as control, word as log, word as name_or_number};

pub(super) fn word(value: &impl Display) -> Value {
    value.to_string().into()
}

pub(super) fn users(values: &impl AsRef<[String]>) -> Value {
    values.as_ref().to_owned().into()
}

pub(super) fn flag(value: &bool) -> Value {
    (*value).into()
}

pub(super) fn count<T: Copy + TryInto<i64>>(value: &T) -> Value {
    (*value).try_into().unwrap_or(i64::MAX).into()
}

pub(super) fn size<T: Copy + TryInto<u64>>(value: &T) -> Value {
    show_size((*value).try_into().unwrap_or(u64::MAX)).into()
}

pub(super) fn size_or_never(value: &Option<u64>) -> Value {
    value.as_ref().map_or("never".into(), size)
}

pub(super) fn mode(value: &u32) -> Value {
    format!("{value:04o}").into()
}

pub(super) fn span(value: &Duration) -> Value {
    show_span(*value).into()
}

pub(super) fn span_or_never(value: &Option<Duration>) -> Value {
    value.as_ref().map_or("never".into(), span)
}

/// A path that `--socket` gave relative is written from the root.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Abstract(name) => format!("@{}", text(&String::from_utf8_lossy(name))).into(),
        Address::Path(given) => path(base_dirs::absolute(given).as_ref().unwrap_or(given)).into(),
    }
}

pub(super) fn file(file: &Option<PathBuf>) -> Value {
    file.as_deref().map(path).unwrap_or_default().into()
}

/// The reader takes paths of UTF-8 alone.
fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// As the file writes it: a plain % is doubled.
fn text(path: &str) -> String {
    path.replace('%', "%%")
}
