//! Metrics as text for Prometheus: how families and their values are written. What there is to tell, the server
//! knows.
//!
//! The text is that of `promtool check metrics` and of node_exporter's textfile collector, in which all lines about a
//! counter name it with its `_total`. OpenMetrics 1.0 leaves that out where type and help are told, and to both of
//! these its counters then have neither. The end is told as there, so that half a text is no whole one.

use std::fmt::{Display, Write};

/// The text so far.
#[derive(Debug, Default)]
pub struct Text(String);

/// A family of metrics of one name, of which each value has other labels.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Text {
    /// Begins with whether there is a daemon that answers.
    #[must_use]
    pub fn begin(is_up: bool) -> Self {
        let mut text = Text::default();
        let help = "1 where udsd answered at its control socket, else 0.";
        text.family("udsd_up", help).add(&[], u8::from(is_up));
        text
    }

    /// Begins a family: of counters where the name ends in `_total`, else of gauges.
    pub fn family<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        let text = &mut self.0;
        let kind = match name.ends_with("_total") {
            true => "counter",
            false => "gauge",
        };
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, text }
    }

    /// The whole text.
    #[must_use]
    pub fn end(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

impl Family<'_> {
    /// Adds a value. Labels and help hold nothing that would be escaped: names, numbers and plain sentences.
    pub fn add(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_help_once_and_the_end_is_told() {
        let mut text = Text::default();
        let mut refused = text.family("udsd_refused_total", "Not let in.");
        refused.add(&[("socket", "a"), ("reason", "access")], 3);
        refused.add(&[("socket", "a"), ("reason", "clients")], 0);
        text.family("udsd_held_bytes", "Held.").add(&[], u64::MAX);
        text.family("udsd_record_behind_seconds", "Behind.")
            .add(&[("socket", "b")], 0.25);
        assert_eq!(
            text.end(),
            r#"# HELP udsd_refused_total Not let in.
# TYPE udsd_refused_total counter
udsd_refused_total{socket="a",reason="access"} 3
udsd_refused_total{socket="a",reason="clients"} 0
# HELP udsd_held_bytes Held.
# TYPE udsd_held_bytes gauge
udsd_held_bytes 18446744073709551615
# HELP udsd_record_behind_seconds Behind.
# TYPE udsd_record_behind_seconds gauge
udsd_record_behind_seconds{socket="b"} 0.25
# EOF
"#
        );
    }
}
