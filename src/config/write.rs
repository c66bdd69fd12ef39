//! A `Config` as TOML that loads again to the same: every key, in the order of the manual.

use std::fmt::Write;

use super::{
    Config,
    diagnostics::one_line,
    keys::{self, Setting},
};

/// Width of a setting, before its comment.
const SETTING: usize = 35;

impl Config {
    /// The effective configuration as TOML that loads again to the same. Behind each key stands what it means, or
    /// where it was set.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for table in keys::tables(self) {
            if !out.is_empty() {
                out += "\n";
            }
            put(
                &mut out,
                &format!("[{}]", table.name),
                &plain(table.meaning),
            );
            for Setting {
                key,
                value,
                default,
            } in table.settings
            {
                let path = value.as_str().filter(|_| key.name == "path");
                if path.is_some_and(|path| !path.starts_with(['/', '@'])) {
                    out += "# No file can say this: the absolute path is not UTF-8, or longer than 107 bytes.\n";
                }
                let name = format!("{}.{}", table.name, key.name);
                let set = self.origin.of(&name).filter(|_| value != default);
                let meaning = set.unwrap_or_else(|| plain(key.meaning));
                put(&mut out, &format!("{} = {value}", key.name), &meaning);
            }
        }
        for name in self.origin.switched() {
            let is_here = self.sockets.iter().any(|socket| socket.name == name);
            if let Some(place) = self.origin.of_switch(name).filter(|_| !is_here) {
                let _ = writeln!(out, "\n# [socket.{name}] is off: {}", one_line(&place));
            }
        }
        out
    }
}

fn plain(meaning: &str) -> String {
    meaning.replace('`', "")
}

/// The name of a file may hold what a comment cannot.
fn put(out: &mut String, setting: &str, comment: &str) {
    let comment = one_line(comment);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{setting:<SETTING$} # {comment}");
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
            let origin = first.origin.clone();
            assert_eq!(Config { origin, ..again }, first, "{text}");
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
        let table = table
            .replace("\"/run/udsd/", "\"%t/udsd/")
            .replace("sock\"  #", "sock\"    #");
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

    /// What else the manual has to say of a key stands behind that.
    #[test]
    fn the_manual_has_each_key_as_it_is_here() {
        let mut manual = include_str!("../../packaging/man/udsd.toml.5");
        for table in keys::defaults() {
            let head = format!(".Ss The [{}] table\n{}\n", table.kind, text(table.meaning));
            let found = manual.split_once(&head);
            manual = found
                .unwrap_or_else(|| panic!("udsd.toml.5 is to have, in this order:\n{head}"))
                .1;
            let ends = ["\n.Ss ", "\n.Sh "].map(|end| manual.find(end));
            let end = ends.into_iter().flatten().min().unwrap();
            let items: Vec<&str> = manual[..end].split("\n.It Ic ").skip(1).collect();
            for (i, setting) in table.settings.iter().enumerate() {
                let item = item(setting);
                let there = items.get(i).is_some_and(|there| there.starts_with(&item));
                assert!(
                    there,
                    "udsd.toml.5 is to have, in this order:\n.It Ic {item}"
                );
            }
            assert_eq!(items.len(), table.settings.len(), "[{}]", table.kind);
        }
    }

    /// A key in the manual: default, meaning, what a reload does with it, and the directives that follow it.
    fn item(Setting { key, default, .. }: &Setting) -> String {
        let mut out = key.name.to_owned();
        if key.name != "path" {
            out += &format!(" No = {}", default.to_string().replace('"', "\\(dq"));
        }
        out += &format!("\n{}", text(key.meaning));
        out += &format!("\n.br\nOn reload: {}.", effect(key.effect));
        if !key.directives.is_empty() {
            let directives = key.directives.iter().map(|name| format!("`{name}=`"));
            let directives = directives.collect::<Vec<_>>().join(", ");
            out += &format!("\n{}", text(&format!("In the units: {directives}.")));
        }
        out
    }

    /// A sentence as mdoc has it, in lines of at most 78 bytes; what is in backticks is bold.
    fn text(sentence: &str) -> String {
        let (first, rest) = sentence.split_at(1);
        let sentence = first.to_uppercase() + rest;
        let mut out = String::new();
        for (i, part) in sentence.split('`').enumerate() {
            match i % 2 {
                0 => out += part,
                _ => out += &format!("\\fB{}\\fP", part.replace('"', "\\(dq")),
            }
        }
        if !out.ends_with('.') {
            out.push('.');
        }
        let mut lines = vec![String::new()];
        for word in out.split(' ') {
            let line = lines.last_mut().unwrap();
            match line.len() {
                0 => line.push_str(word),
                length if length + 1 + word.len() > 78 => lines.push(word.into()),
                _ => *line += &format!(" {word}"),
            }
        }
        lines.join("\n")
    }

    fn effect(effect: Effect) -> &'static str {
        match effect {
            Effect::AtOnce => "at once",
            Effect::Newcomers => "newcomers",
            Effect::EndsClients => "ends clients",
            Effect::Units => "unit",
            Effect::UnitsLater => "unit later",
        }
    }
}
