//! A `Config` as TOML that loads again to the same: every key, in the order of the manual.

use std::{
    fmt::{Display, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Value;

use super::{
    Address, Config, keys, places,
    value::{show_size, show_span},
};

/// The whole file.
pub(super) fn to_toml(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for table in keys::tables(config) {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}[{}]", table.name);
        for (key, value) in table.keys {
            if key == "path"
                && value
                    .as_str()
                    .is_some_and(|path| !path.starts_with(['/', '@']))
            {
                out +=
                    "# No file can say this: the absolute path is no text of at most 107 bytes.\n";
            }
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

pub(super) fn word(value: &impl Display) -> Value {
    value.to_string().into()
}

pub(super) fn list(values: &impl AsRef<[String]>) -> Value {
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

pub(super) fn mode(value: &u32) -> Value {
    format!("{value:04o}").into()
}

pub(super) fn span(value: &Duration) -> Value {
    show_span(*value).into()
}

pub(super) fn or_never(value: &Option<Duration>) -> Value {
    value.as_ref().map_or("never".into(), span)
}

/// A path that `--socket` gave relative is written from the root.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Abstract(name) => format!("@{}", text(&String::from_utf8_lossy(name))).into(),
        Address::Path(given) => path(places::absolute(given).as_ref().unwrap_or(given)).into(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::{DEFAULT, Places};
    use super::*;

    #[test]
    fn what_is_written_loads_again_to_the_same() {
        let rich = r#"
            [daemon]
            log = "warn,udsd=trace"
            drain-timeout = "1500ms"
            [limits]
            clients = 7
            [socket.z]
            path = "@100%%\"x"
            idle-timeout = "90s"
            slow-client = "drop"
            [socket.a]
            path = "%t/b\\'.sock"
            mode = "700"
            user = 0
            group = 'DOM\ad m'
            allow-users = [0, "www-data"]
            allow-groups = ["adm"]
            queue-size = 1048577
            framing = "fixed:12"
            [socket.m]
            path = "/m"
            service = "collect"
            framing = "syslog"
            record = { file = "%S/%%t.json", mode = "0600", format = "raw", queue-size = "1GiB" }
        "#;
        for text in [DEFAULT, rich] {
            let places = Places::system();
            let first = Config::parse(text, None, &places).unwrap();
            let again = Config::parse(&first.to_toml(), None, &places).unwrap();
            let lines = first.lines.clone();
            assert_eq!(Config { lines, ..again }, first, "{}", first.to_toml());
        }
    }
}
