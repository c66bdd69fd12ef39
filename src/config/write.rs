//! A `Config` as TOML that loads again to the same: every key, in the order of the manual.

use std::fmt::Write;

use super::{
    Config,
    keys::{self, Setting},
};

/// Width of a setting, before its comment.
const SETTING: usize = 35;

impl Config {
    /// The effective configuration as TOML that loads again to the same, with what each key means behind it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for table in keys::tables(self) {
            if !out.is_empty() {
                out += "\n";
            }
            put(&mut out, &format!("[{}]", table.name), table.meaning);
            for Setting { key, value, .. } in table.settings {
                let path = value.as_str().filter(|_| key.name == "path");
                if path.is_some_and(|path| !path.starts_with(['/', '@'])) {
                    out += "# No file can say this: the absolute path is not UTF-8, or longer than 107 bytes.\n";
                }
                put(&mut out, &format!("{} = {value}", key.name), key.meaning);
            }
        }
        out
    }
}

fn put(out: &mut String, setting: &str, meaning: &str) {
    let meaning = meaning.replace('`', "");
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{setting:<SETTING$} # {meaning}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::{Address, BaseDirs, DEFAULT, Record, Socket, keys::Effect};
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
            let dirs = BaseDirs::system();
            let first = Config::parse(text, None, &dirs).unwrap();
            let text = first.to_toml();
            let again = Config::parse(&text, None, &dirs).unwrap();
            let lines = first.lines.clone();
            assert_eq!(Config { lines, ..again }, first, "{text}");
        }
    }

    /// Every table, with the defaults, as the shipped file names them.
    fn defaults() -> Config {
        let address = Address::Path("/run/udsd.sock".into());
        let mut socket = Socket::new("udsd".into(), address);
        socket.record = Some(Record::default());
        Config {
            sockets: vec![socket],
            ..Config::default()
        }
    }

    #[test]
    fn the_shipped_file_has_the_table_of_keys() {
        let table = defaults().to_toml();
        let table = table.replace("\"/run/udsd.sock\"  ", "\"%t/udsd.sock\"    ");
        let (head, rest) = table.split_at(table.find("\n[socket.udsd.record]").unwrap() + 1);
        let record: String = rest.lines().map(|line| format!("#{line}\n")).collect();
        let expected = format!("{head}{record}");
        assert!(expected.lines().all(|line| line.len() <= 120), "{expected}");
        let shipped = &DEFAULT[DEFAULT.find("[daemon]").unwrap()..];
        assert!(
            shipped == expected,
            "config/udsd.toml is to have:\n{expected}---"
        );
    }

    #[test]
    fn the_manual_has_the_table_of_keys() {
        let mut table = "| key | default | on reload | meaning |\n|---|---|---|---|\n".to_owned();
        for found in keys::defaults() {
            let _ = writeln!(table, "| **`[{}]`** | | | {} |", found.kind, found.meaning);
            let there = |of: &&Setting| of.key.effect != Effect::NotYet;
            for Setting { key, value, .. } in found.settings.iter().filter(there) {
                let default = match key.name {
                    "path" => String::new(),
                    _ => format!("`{value}` "),
                };
                let how = effect(key);
                let _ = writeln!(
                    table,
                    "| `{}` | {default}| {how} | {} |",
                    key.name, key.meaning
                );
            }
        }
        let manual = include_str!("../../README.md");
        assert!(manual.contains(&table), "README.md is to have:\n{table}---");
    }

    fn effect(key: &keys::Key) -> String {
        let how = match key.effect {
            Effect::AtOnce => "at once",
            Effect::Newcomers => "newcomers",
            Effect::EndsClients => "ends clients",
            Effect::Units => "unit",
            Effect::UnitsLater => "unit later",
            Effect::NotYet => "not yet",
        };
        let directives = key.directives.iter().map(|name| format!("`{name}=`"));
        let directives = directives.collect::<Vec<_>>().join(", ");
        match &*directives {
            "" => how.into(),
            _ => format!("{how}; {directives}"),
        }
    }
}
