//! The words that the file and the command line write for a choice.

use std::{fmt, str::FromStr};

use super::{Format, OnFull, Parse, ServiceKind, SlowClient, SocketType, value::quote};

/// `beside`: a choice that the file cannot make.
macro_rules! words {
    ($choice:ident, $key:literal, $($variant:ident = $word:literal),+ $(; beside $other:ident = $name:literal)?) => {
        impl $choice {
            /// All words that the file knows.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// As the file writes it, or the log.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    $(Self::$other => $name,)?
                }
            }
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $choice {
            type Err = String;

            /// The error says what would be right.
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{} is no {}: write {}", quote(text), $key, either(Self::WORDS))),
                }
            }
        }
    };
}

words!(
    SocketType,
    "type",
    Stream = "stream",
    Seqpacket = "seqpacket",
    Datagram = "datagram"
);
words!(
    ServiceKind,
    "service",
    Echo = "echo",
    Relay = "relay",
    Collect = "collect"
    ; beside Control = "control"
);
words!(
    SlowClient,
    "slow-client",
    Wait = "wait",
    Disconnect = "disconnect",
    Drop = "drop"
);
words!(OnFull, "on-full", Wait = "wait", Drop = "drop");
words!(Format, "format", Json = "json", Text = "text", Raw = "raw");
words!(Parse, "parse", None = "none", Syslog = "syslog");

/// `"a", "b" or "c"`
pub(super) fn either(words: &[&str]) -> String {
    let mut out = String::new();
    for (i, word) in words.iter().enumerate() {
        out.push_str(match i {
            0 => "",
            _ if i + 1 == words.len() => " or ",
            _ => ", ",
        });
        out.push_str(&quote(word));
    }
    out
}

/// The one of `words` that `text` was probably meant to be.
pub(super) fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    if text.len() > 40 {
        return None;
    }
    let text = text.to_lowercase().replace('_', "-");
    let (distance, word) = words
        .iter()
        .map(|word| (distance(text.as_bytes(), word.as_bytes()), *word))
        .min()?;
    (distance <= 2 && distance < word.len() / 2 + 1).then_some(word)
}

/// How many bytes must be put in, taken out or changed to make one of the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn words_read_back() {
        for kind in [
            SocketType::Stream,
            SocketType::Seqpacket,
            SocketType::Datagram,
        ] {
            assert_eq!(kind.to_string().parse::<SocketType>().unwrap(), kind);
        }
        let error = "packet".parse::<SocketType>().unwrap_err();
        assert_eq!(
            error,
            r#""packet" is no type: write "stream", "seqpacket" or "datagram""#
        );
    }

    #[test]
    fn nearest_forgives_two_slips() {
        let keys = ["message-size", "mode", "user", "queue-size"];
        assert_eq!(nearest("message_size", &keys), Some("message-size"));
        assert_eq!(nearest("Mode", &keys), Some("mode"));
        assert_eq!(nearest("usre", &keys), Some("user"));
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), &keys), None);
    }
}
