//! What one client must get, and how much of it has come.

use udsd::config::SlowClient;

use crate::plan::{Plan, number_after};

/// The messages that one client is due, in their order, and those that came.
#[derive(Debug, Default)]
pub struct Receiver {
    /// All messages, as they are to come.
    due: Vec<u8>,
    /// Where each ends in `due`.
    ends: Vec<usize>,
    /// Messages of which is known what became of them.
    settled: usize,
    /// Bytes of `due` that came or are known to be dropped.
    matched: usize,
    /// Bytes that the hub wrote and that were looked at.
    seen: usize,
    /// It is served no more, and gets what comes first of `due`: so many bytes for sure, and no part of
    /// a message.
    least: Option<usize>,
    /// Messages that are known to be dropped.
    pub dropped: usize,
}

impl Receiver {
    /// One more message that it must get.
    pub fn push(&mut self, message: &[u8]) {
        self.due.extend(message);
        self.ends.push(self.due.len());
    }

    /// Bytes that have not come.
    pub fn owed(&self) -> usize {
        self.due.len() - self.matched
    }

    /// It is served no more: what there is `room` for waits for it, and comes; the rest may wait with
    /// what it sent, and does not.
    pub fn end(&mut self, room: usize) {
        let whole = self.ends.partition_point(|&end| end <= self.matched + room);
        self.least = Some(whole.checked_sub(1).map_or(0, |last| self.ends[last]));
    }

    /// Whether it has all that it must get.
    pub fn is_served(&self) -> bool {
        let is_whole = || self.matched == 0 || self.ends.binary_search(&self.matched).is_ok();
        match self.least {
            Some(least) => self.matched >= least && is_whole(),
            None => self.owed() == 0,
        }
    }

    /// Messages of which is not known whether they will come or were dropped.
    pub fn open(&self) -> usize {
        self.ends.len() - self.settled
    }

    /// Looks at what has been written since the last time; `said` is all that ever was.
    pub fn look(&mut self, plan: &Plan, said: &[u8]) -> Result<(), String> {
        if plan.socket.slow_client == SlowClient::Drop {
            return self.look_for_gaps(plan, said);
        }
        let new = &said[self.seen..];
        if !self.due[self.matched..].starts_with(new) {
            return Err(format!(
                "got {:?} where {:?} was due",
                new.escape_ascii().to_string(),
                self.due[self.matched..].escape_ascii().to_string()
            ));
        }
        self.seen = said.len();
        self.matched += new.len();
        while self
            .ends
            .get(self.settled)
            .is_some_and(|&end| end <= self.matched)
        {
            self.settled += 1;
        }
        Ok(())
    }

    /// Message by message, for some may be missing.
    fn look_for_gaps(&mut self, plan: &Plan, said: &[u8]) -> Result<(), String> {
        while let Some(length) = plan.first(&said[self.seen..]) {
            let message = &said[self.seen..self.seen + length];
            self.seen += length;
            let body = plan.body_of(message);
            if plan.socket.stamp && body.starts_with(b"{\"gap\"") {
                self.take_gap(plan, str::from_utf8(body).unwrap())?;
                continue;
            }
            loop {
                let Some(next) = self.next() else {
                    return Err(format!(
                        "got {:?} out of turn",
                        message.escape_ascii().to_string()
                    ));
                };
                if next == message {
                    break;
                }
                if plan.socket.stamp {
                    return Err(format!(
                        "got {:?} and was not told of the gap before it",
                        message.escape_ascii().to_string()
                    ));
                }
                self.dropped += 1;
            }
        }
        Ok(())
    }

    fn take_gap(&mut self, plan: &Plan, text: &str) -> Result<(), String> {
        let count = number_after(text, "\"count\":");
        let bytes = number_after(text, "\"bytes\":");
        let expected = format!("{{\"gap\":{{\"count\":{count},\"bytes\":{bytes}}}}}");
        let mut missing = 0;
        for _ in 0..count {
            missing += self.next().map_or(0, |message| plan.bytes_of(message));
        }
        self.dropped += count;
        if text != expected || count == 0 || missing != bytes {
            return Err(format!(
                "was told {text}, but {count} messages are {missing} bytes"
            ));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.settled)?;
        let start = self
            .settled
            .checked_sub(1)
            .map_or(0, |last| self.ends[last]);
        self.settled += 1;
        self.matched = end;
        Some(&self.due[start..end])
    }

    /// Nothing waits for it: what has not come was dropped.
    pub fn rest_is_dropped(&mut self) {
        self.dropped += self.open();
        self.settled = self.ends.len();
        self.matched = self.due.len();
    }
}
