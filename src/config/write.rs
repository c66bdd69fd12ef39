//! A `Config` as TOML that loads again to the same: every key, in the order of the manual.

use std::{fmt::Display, path::Path};

use super::{
    Address, Config, Record, Socket, places,
    value::{show_size, show_span},
};

/// The whole file.
pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Writer(String::new());
    let (daemon, limits) = (&config.daemon, &config.limits);
    out.table("daemon");
    out.text("log", &daemon.log);
    out.text(
        "control",
        &daemon.control.as_deref().map(path).unwrap_or_default(),
    );
    out.text("drain-timeout", &show_span(daemon.drain_timeout));
    out.text(
        "exit-on-idle",
        &daemon.exit_on_idle.map_or("never".into(), show_span),
    );
    out.table("limits");
    out.plain("clients", limits.clients);
    out.plain("clients-per-user", limits.clients_per_user);
    out.text("queue-per-user", &show_size(limits.queue_per_user as u64));
    out.text("queue-total", &show_size(limits.queue_total as u64));
    for socket in &config.sockets {
        out.socket(socket);
        if let Some(record) = &socket.record {
            out.table(&format!("socket.{}.record", socket.name));
            out.record(record);
        }
    }
    out.0
}

struct Writer(String);

impl Writer {
    fn socket(&mut self, socket: &Socket) {
        self.table(&format!("socket.{}", socket.name));
        self.address(&socket.address);
        self.text("type", &socket.kind.to_string());
        // An abstract socket has no file to own.
        if let Address::Path(_) = socket.address {
            self.text("mode", &format!("{:04o}", socket.mode));
            self.text("user", &socket.user);
            self.text("group", &socket.group);
        }
        self.plain("backlog", socket.backlog);
        self.list("allow-users", &socket.allow_users);
        self.list("allow-groups", &socket.allow_groups);
        self.text("service", &socket.service.to_string());
        self.text("framing", &socket.framing.to_string());
        self.text("message-size", &show_size(socket.message_size as u64));
        self.text("queue-size", &show_size(socket.queue_size as u64));
        self.text("slow-client", &socket.slow_client.to_string());
        self.text("slow-timeout", &show_span(socket.slow_timeout));
        self.text(
            "idle-timeout",
            &socket.idle_timeout.map_or("never".into(), show_span),
        );
        self.plain("clients", socket.clients);
        self.plain("stamp", socket.stamp);
        self.plain("ack", socket.ack);
    }

    /// A path that `--socket` gave relative is written from the root.
    fn address(&mut self, address: &Address) {
        let text = match address {
            Address::Abstract(name) => {
                format!("@{}", String::from_utf8_lossy(name).replace('%', "%%"))
            }
            Address::Path(given) => {
                let absolute = places::absolute(given);
                if absolute.is_none() {
                    self.0 += "# No file can say this: the absolute path is no text of at most 107 bytes.\n";
                }
                path(absolute.as_deref().unwrap_or(given))
            }
        };
        self.text("path", &text);
    }

    fn record(&mut self, record: &Record) {
        self.text(
            "file",
            &record.file.as_deref().map(path).unwrap_or_default(),
        );
        self.text("mode", &format!("{:04o}", record.mode));
        self.text("queue-size", &show_size(record.queue_size as u64));
        self.text("format", &record.format.to_string());
        self.plain("sync", record.sync);
        self.text("rotate-size", &show_size(record.rotate_size));
        self.plain("keep", record.keep);
    }

    fn table(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.0 += &format!("{gap}[{name}]\n");
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key} = {value}\n");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.plain(key, toml::Value::from(value));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        self.plain(key, toml::Value::from(values.to_vec()));
    }
}

/// A path as the file writes it; a plain % is doubled. The reader takes paths of UTF-8 alone.
fn path(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
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
            mode = "7"
            user = 0
            group = "adm"
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
