//! What was said to collect, and the record that must hold it: each message exactly once, in its
//! sender's order, `seq` without gaps, and one client number for each connection for as long as it
//! lasts. Knows no sockets.

use std::{cell::RefCell, collections::HashMap, fs, path::PathBuf, rc::Rc};

use serde_json::Value;

use super::words::{Kind, Voice, difference};

/// What the clients of one socket have said.
#[derive(Debug)]
pub(crate) struct Ledger {
    record: PathBuf,
    /// The `socket` of its lines.
    socket: &'static str,
    said: Vec<Said>,
}

/// What one has said.
#[derive(Clone, Copy, Debug)]
struct Said {
    voice: Voice,
    /// Whole messages.
    messages: u64,
    /// Bytes of the message behind those, which its end made whole.
    rest: usize,
    /// So many of them are in the record for certain: an earlier look found them.
    recorded: u64,
}

/// What the record must hold of what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// The beginning of what each connection said, with all that was there at an earlier look.
    Beginnings,
    /// What an earlier look found, then anything in order: what a datagram socket holds when the
    /// daemon dies is lost in the middle.
    InOrder,
}

impl Ledger {
    pub(crate) fn new(record: PathBuf, socket: &'static str) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Ledger {
            record,
            socket,
            said: Vec::new(),
        }))
    }

    /// A client more. Its number is its place in the ledger.
    pub(crate) fn enter(&mut self, kind: Kind, group: char) -> Voice {
        let voice = Voice {
            kind,
            group,
            client: self.said.len(),
        };
        self.said.push(Said {
            voice,
            messages: 0,
            rest: 0,
            recorded: 0,
        });
        voice
    }

    /// So many whole messages were said by this client.
    pub(crate) fn has_said(&mut self, voice: Voice, messages: u64) {
        self.said[voice.client].messages = messages;
    }

    /// This client has ended in the middle of a message, after so many bytes of it.
    pub(crate) fn ended_after(&mut self, voice: Voice, rest: usize) {
        self.said[voice.client].rest = rest;
    }

    /// Lines that were said, unfinished ones not counted.
    fn whole(&self) -> u64 {
        self.said.iter().map(|said| said.messages).sum()
    }

    /// Whether the record holds as many lines as it must in the end.
    pub(crate) fn is_full(&self, unfinished: bool) -> Result<bool, String> {
        let mut wanted = self.whole();
        if unfinished {
            wanted += self.said.iter().filter(|said| said.rest > 0).count() as u64;
        }
        let lines = self.read()?.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(lines >= wanted)
    }

    /// What an earlier look finds, must be there for good.
    pub(crate) fn note_recorded(&mut self) {
        for said in &mut self.said {
            said.recorded = said.messages;
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        fs::read(&self.record).map_err(|error| format!("{}: {error}", self.record.display()))
    }

    /// Checks the record. Returns how many lines it has, and how many of what was said are missing.
    pub(crate) fn check(&self, wanted: Wanted) -> Result<(usize, u64), String> {
        let bytes = self.read()?;
        let mut found = vec![0; self.said.len()];
        let mut owners = HashMap::new();
        let mut lines = 0;
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            self.check_line(line, index as u64 + 1, wanted, &mut found, &mut owners)
                .map_err(|error| {
                    let file = self.record.display();
                    format!(
                        "{file}:{}: {error}; the line: {}",
                        index + 1,
                        line.escape_ascii()
                    )
                })?;
            lines += 1;
        }
        let mut missing = 0;
        for (said, next) in self.said.iter().zip(found) {
            let all = said.messages + u64::from(said.rest > 0);
            let least = if wanted == Wanted::All {
                all
            } else {
                said.recorded
            };
            if next < least {
                return Err(format!(
                    "{}: of {} only messages before {next} of {all} are there, {least} must be",
                    self.record.display(),
                    said.voice
                ));
            }
            missing += all.saturating_sub(next);
        }
        Ok((lines, missing))
    }

    fn check_line(
        &self,
        line: &[u8],
        seq: u64,
        wanted: Wanted,
        found: &mut [u64],
        owners: &mut HashMap<u64, usize>,
    ) -> Result<(), String> {
        let record: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if record["seq"] != seq {
            return Err(format!("expected seq {seq}"));
        }
        if record["socket"] != self.socket {
            return Err(format!("expected socket {}", self.socket));
        }
        let message = record["message"].as_str().ok_or("no message")?;
        let client = record["client"].as_u64();
        // Only a connection's number tells whose an unfinished message is.
        let known = client
            .filter(|_| self.is_connected())
            .and_then(|client| owners.get(&client));
        let (place, number) = match known {
            Some(&place) => (place, found[place]),
            None => self.author(message).ok_or("of nobody in the crowd")?,
        };
        let said = &self.said[place];
        let next = &mut found[place];
        if number < *next || wanted != Wanted::InOrder && number != *next {
            return Err(format!("expected message {next} of {}", said.voice));
        }
        let mut expected = said.voice.message(number);
        expected.pop();
        if number == said.messages && said.rest > 0 {
            expected.truncate(said.rest);
        } else if number >= said.messages {
            return Err(format!("{} has only said {}", said.voice, said.messages));
        }
        if message.as_bytes() != expected {
            let differs = difference(&expected, message.as_bytes());
            return Err(format!("message {number} of {}: {differs}", said.voice));
        }
        *next = number + 1;
        if record["uid"] != 0 {
            return Err("expected uid 0".to_owned());
        }
        if known.is_none() && self.is_connected() {
            if number > 0 {
                return Err(format!("{} had another client number before", said.voice));
            }
            owners.insert(client.ok_or("no client number")?, place);
        }
        Ok(())
    }

    /// Whether its clients are connections, each with a number of its own.
    fn is_connected(&self) -> bool {
        self.socket == "collect"
    }

    /// Whose it is, and its number.
    fn author(&self, message: &str) -> Option<(usize, u64)> {
        let mut words = message.split(' ');
        let place = words.next()?.get(1..)?.parse().ok()?;
        let number = words.next()?.parse().ok()?;
        (place < self.said.len()).then_some((place, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, process};

    /// Two clients that have said 2 and 1 lines, the second one also began another; `record` has
    /// lines as "seq client place number".
    fn check(name: &str, wanted: Wanted, record: &[[u64; 4]]) -> Result<(usize, u64), String> {
        let file = env::temp_dir().join(format!("udsd-crowd-{name}-{}", process::id()));
        let ledger = Ledger::new(file.clone(), "collect");
        let mut ledger = ledger.borrow_mut();
        let voices = [0, 1].map(|_| ledger.enter(Kind::Lines, 'c'));
        ledger.said[0].messages = 2;
        ledger.said[1].messages = 1;
        ledger.said[1].rest = 9;
        let lines = record.iter().map(|[seq, client, place, number]| {
            let said = &ledger.said[*place as usize];
            let mut message = voices[*place as usize].message(*number);
            message.pop();
            if *number == said.messages {
                message.truncate(said.rest);
            }
            let message = String::from_utf8(message).unwrap();
            let record = serde_json::json!({
                "socket": "collect", "seq": seq, "client": client, "uid": 0, "message": message
            });
            format!("{record}\n")
        });
        fs::write(&file, lines.collect::<String>()).unwrap();
        let checked = ledger.check(wanted);
        fs::remove_file(&file).unwrap();
        checked
    }

    #[test]
    fn a_whole_record_is_whole() {
        let record = [[1, 5, 0, 0], [2, 9, 1, 0], [3, 9, 1, 1], [4, 5, 0, 1]];
        assert_eq!(check("whole", Wanted::All, &record), Ok((4, 0)));
        assert_eq!(
            check("beginning", Wanted::Beginnings, &record[..2]),
            Ok((2, 2))
        );
    }

    #[test]
    fn what_is_wrong_with_a_record_is_found() {
        let wrong: [(&str, &[[u64; 4]], &str); 6] = [
            (
                "lost",
                &[[1, 5, 0, 0], [2, 9, 1, 0], [3, 9, 1, 1]],
                "messages before 1 of 2",
            ),
            (
                "twice",
                &[[1, 5, 0, 0], [2, 5, 0, 0]],
                "bytes that were right",
            ),
            ("order", &[[1, 5, 0, 1], [2, 5, 0, 0]], "expected message 0"),
            ("gap", &[[1, 5, 0, 0], [3, 5, 0, 1]], "expected seq 2"),
            (
                "number",
                &[[1, 5, 0, 0], [2, 6, 0, 1]],
                "another client number",
            ),
            (
                "shared",
                &[[1, 5, 0, 0], [2, 5, 1, 0]],
                "bytes that were right",
            ),
        ];
        for (name, record, complaint) in wrong {
            let said = check(name, Wanted::All, record).unwrap_err();
            assert!(said.contains(complaint), "{name}: {said}");
        }
    }
}
