//! What one client must get, and how much of it has come.

use crate::plan::{Plan, number_after};

/// The messages that one client is due, in their order, and those that came.
#[derive(Debug, Default)]
pub struct Receiver {
    /// All messages, as they are to come.
    due: Vec<u8>,
    messages: Vec<Due>,
    /// Messages of which is known what became of them.
    settled: usize,
    /// Bytes of `due` that came or are known to be dropped.
    matched: usize,
    /// Bytes that the hub wrote and that were looked at.
    seen: usize,
    /// Bytes behind them, of a message of which the rest has not come.
    begun: usize,
    /// It is served no more, and gets what comes first of `due`: so many bytes for sure, and no part of
    /// a message.
    least: Option<usize>,
    /// Messages that are known to be dropped.
    pub dropped: usize,
}

/// One message that is due, by the rules of the time when it was taken.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// Where it ends in `Receiver::due`.
    end: usize,
    /// It is dropped where it finds no room.
    may_be_dropped: bool,
    /// A gap is told.
    is_stamped: bool,
}

impl Receiver {
    /// One more message that it must get: nothing was in the way of it.
    pub fn push_given(&mut self, plan: &Plan, message: &[u8]) {
        self.push(plan, message);
        self.messages.last_mut().unwrap().may_be_dropped = false;
    }

    /// One more message that it must get.
    pub fn push(&mut self, plan: &Plan, message: &[u8]) {
        self.due.extend(message);
        self.messages.push(Due {
            end: self.due.len(),
            may_be_dropped: plan.drops(),
            is_stamped: plan.socket.stamp,
        });
    }

    /// Of what waits, part may not have been taken before it was to be dropped.
    pub fn may_drop_the_rest(&mut self) {
        let begun = usize::from(self.matched > self.end_of(self.settled));
        for message in self.messages.iter_mut().skip(self.settled + begun) {
            message.may_be_dropped = true;
        }
    }

    /// Where the first `count` messages end.
    fn end_of(&self, count: usize) -> usize {
        count
            .checked_sub(1)
            .map_or(0, |last| self.messages[last].end)
    }

    fn rest(&self) -> &[Due] {
        &self.messages[self.settled..]
    }

    /// Bytes that have not come; some of them may have been dropped.
    pub fn owed(&self) -> usize {
        self.due.len() - self.matched
    }

    /// Bytes that have not come, and that are not dropped.
    pub fn surely_owed(&self) -> usize {
        let mut start = self.matched;
        let mut surely = 0;
        for message in self.rest() {
            if !message.may_be_dropped {
                surely += message.end - start;
            }
            start = message.end;
        }
        surely.saturating_sub(self.begun)
    }

    /// Some of what it is owed may have been dropped; a gap that tells so may wait in its place.
    pub fn is_unsure(&self) -> bool {
        self.open() > 0
    }

    /// It is served no more: what there is `room` for waits for it, and comes; the rest may wait with
    /// what it sent, and does not.
    pub fn end(&mut self, room: usize) {
        let most = self.matched + room;
        let whole = self.messages.partition_point(|message| message.end <= most);
        self.least = Some(self.end_of(whole));
    }

    /// Whether it has all that it must get. A gap that is not told is none that it lacks.
    pub fn is_served(&self) -> bool {
        let is_whole = self.matched == self.end_of(self.settled);
        match self.least {
            Some(least) => self.matched >= least && is_whole,
            None => is_whole && self.rest().iter().all(Due::may_be_missing),
        }
    }

    /// Messages of which is not known whether they will come or were dropped.
    pub fn open(&self) -> usize {
        let rest = self.rest().iter();
        rest.filter(|message| message.may_be_dropped).count()
    }

    /// Messages of which it will be told, if they were dropped.
    pub fn to_be_told(&self) -> usize {
        let rest = self.rest().iter();
        rest.filter(|message| message.may_be_dropped && message.is_stamped)
            .count()
    }

    /// Looks at what has been written since the last time; `said` is all that ever was.
    pub fn look(&mut self, plan: &Plan, said: &[u8]) -> Result<(), String> {
        self.begun = 0;
        while self.seen < said.len() {
            let new = &said[self.seen..];
            let next = self.messages.get(self.settled);
            match next {
                Some(next) if next.may_be_dropped => {
                    let Some(length) = plan.first(new) else {
                        self.begun = new.len();
                        return Ok(());
                    };
                    self.take_message(plan, &new[..length])?;
                    self.seen += length;
                }
                _ => {
                    let end = next.map_or(self.matched, |next| next.end);
                    let length = new.len().min(end - self.matched);
                    if length == 0 || new[..length] != self.due[self.matched..][..length] {
                        return Err(format!(
                            "got {:?} where {:?} was due",
                            new.escape_ascii().to_string(),
                            self.due[self.matched..].escape_ascii().to_string()
                        ));
                    }
                    self.seen += length;
                    self.matched += length;
                    self.settled += usize::from(self.matched == end);
                }
            }
        }
        Ok(())
    }

    /// A whole message came, or a gap; some may be missing before it.
    fn take_message(&mut self, plan: &Plan, message: &[u8]) -> Result<(), String> {
        let body = plan.body_of(message);
        if body.starts_with(b"{\"gap\"") {
            return self.take_gap(plan, str::from_utf8(body).unwrap());
        }
        while let Some((may_be_missing, next)) = self.next() {
            if next == message {
                return Ok(());
            }
            if !may_be_missing {
                return Err(format!(
                    "got {:?} and was not told of the gap before it",
                    message.escape_ascii().to_string()
                ));
            }
            self.dropped += 1;
        }
        Err(format!(
            "got {:?} out of turn",
            message.escape_ascii().to_string()
        ))
    }

    fn take_gap(&mut self, plan: &Plan, text: &str) -> Result<(), String> {
        let count = number_after(text, "\"count\":");
        let bytes = number_after(text, "\"bytes\":");
        let expected = format!("{{\"gap\":{{\"count\":{count},\"bytes\":{bytes}}}}}");
        // Those before it were dropped when no gap was told yet.
        while self.rest().first().is_some_and(Due::may_be_missing) {
            self.next();
            self.dropped += 1;
        }
        let mut missing = 0;
        for _ in 0..count {
            missing += self.next().map_or(0, |(_, message)| plan.bytes_of(message));
        }
        self.dropped += count;
        if text != expected || count == 0 || missing != bytes {
            return Err(format!(
                "was told {text}, but {count} messages are {missing} bytes"
            ));
        }
        Ok(())
    }

    /// The next message, and whether nobody is told where it is missing.
    fn next(&mut self) -> Option<(bool, &[u8])> {
        let message = *self.messages.get(self.settled)?;
        let start = self.end_of(self.settled);
        self.settled += 1;
        self.matched = message.end;
        Some((message.may_be_missing(), &self.due[start..message.end]))
    }

    /// Nothing waits for it: what comes next, and may have been dropped, was.
    pub fn what_waits_is_dropped(&mut self) {
        while self.rest().first().is_some_and(|next| next.may_be_dropped) {
            self.next();
            self.dropped += 1;
        }
    }
}

impl Due {
    /// It may be missing, and nobody is told.
    fn may_be_missing(&self) -> bool {
        self.may_be_dropped && !self.is_stamped
    }
}
