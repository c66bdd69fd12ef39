//! Clients of the stream echo: one says a long stream in odd pieces, stopping anywhere, and reads it
//! back in other pieces, late at times. Those that hold make the daemon keep output for them: they
//! leave more unread than the kernel's buffers take.

use std::{
    cmp::min,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{
    talk::{Conversation, Lost, Phase, Standing, Step, Turn},
    wire::{self, TELLING},
    words::{Hearer, Kind, Sender, Voice},
};

/// How much of its answer a client leaves unread at most, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// About what one reads at once.
    Little,
    /// More than the kernel's buffers take (212,992 bytes less what it keeps for itself), less than the
    /// daemon's queue adds to that.
    InTheQueue,
    /// More than both: the daemon stops reading from it.
    MoreThanTheQueue,
}

impl Holds {
    fn most(self) -> u64 {
        match self {
            Holds::Little => 2048,
            Holds::InTheQueue => 400_000,
            Holds::MoreThanTheQueue => 450_000,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Echo {
    voice: Voice,
    fd: OwnedFd,
    says: Sender,
    hears: Hearer,
    holds: Holds,
    late_until: Option<Instant>,
    half_closed: bool,
    /// In Settle: its last piece is out.
    topped_up: bool,
}

impl Echo {
    pub(crate) fn new(voice: Voice, fd: OwnedFd, holds: Holds) -> Self {
        Echo {
            voice,
            fd,
            says: Sender::new(voice),
            hears: Hearer::new(voice),
            holds,
            late_until: None,
            half_closed: false,
            topped_up: false,
        }
    }

    /// Not the message that is half sent, which cannot come back yet.
    fn unread(&self) -> u64 {
        self.owed().saturating_sub(self.hears.heard())
    }

    /// What must come back of what was sent so far: with framing, whole messages.
    fn owed(&self) -> u64 {
        match self.voice.kind {
            Kind::Blocks => self.says.sent(),
            _ => self.says.whole(),
        }
    }

    fn so_far(&self) -> String {
        format!(
            "sent {} bytes, {} of them whole messages; heard {}; next expected {}",
            self.says.sent(),
            self.says.whole(),
            self.hears.heard(),
            self.hears.next()
        )
    }

    fn write(&mut self, length: usize) -> Result<usize, Lost> {
        let taken = wire::write(&self.fd, self.says.piece(length))
            .map_err(|error| Lost::error("write", error, self.so_far()))?
            .unwrap_or(0);
        self.says.took(taken);
        Ok(taken)
    }

    /// Whether anything came; the end is an error.
    fn read(&mut self, turn: &mut Turn<'_>, most: usize) -> Result<bool, Lost> {
        match self.read_or_end(turn, most)? {
            Some(0) => Err(Lost::Ended(format!("end of file; {}", self.so_far()))),
            came => Ok(came.is_some()),
        }
    }

    fn read_or_end(&mut self, turn: &mut Turn<'_>, most: usize) -> Result<Option<usize>, Lost> {
        let room = min(most, turn.buffer.len());
        let came = wire::read(&self.fd, &mut turn.buffer[..room])
            .map_err(|error| Lost::error("read", error, self.so_far()))?;
        if let Some(length) = came {
            self.hears
                .hear(&turn.buffer[..length])
                .map_err(Lost::Wrong)?;
        }
        Ok(came)
    }

    fn talk(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let holds = self.holds != Holds::Little;
        self.topped_up = false;
        if self.late_until.is_none_or(|until| turn.now >= until) {
            self.late_until = None;
            let most = if holds {
                64 * 1024
            } else {
                turn.random.within(1, 601)
            };
            let came = self.read(turn, most)?;
            if turn.random.one_in(8) || holds && (!came || self.unread() == 0) {
                let late = Duration::from_millis(turn.random.within(500, 2000) as u64);
                self.late_until = Some(turn.now + late);
            }
        }
        if !holds {
            if self.unread() < self.holds.most() {
                let length = turn.random.within(1, 401);
                self.write(length)?;
            }
            return Ok(Step::After(Duration::from_millis(
                turn.random.within(300, 900) as u64,
            )));
        }
        while self.late_until.is_some() && self.unread() < self.holds.most() {
            let length = turn.random.within(1, 24_000);
            if self.write(length)? < length {
                break;
            }
        }
        Ok(Step::After(Duration::from_millis(
            turn.random.within(20, 60) as u64,
        )))
    }

    fn settle(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let soon = Step::After(Duration::from_millis(20));
        if self.holds == Holds::InTheQueue {
            while !self.topped_up {
                if self.unread() < self.holds.most() {
                    let length = turn.random.within(TELLING, 24_000);
                    if self.write(length)? < length {
                        return Ok(soon);
                    }
                } else {
                    self.topped_up = self.write(TELLING)? == TELLING;
                    if !self.topped_up {
                        return Ok(soon);
                    }
                }
            }
            return match wire::is_taken(&self.fd) {
                Ok(true) => Ok(Step::Settled),
                Ok(false) => Ok(soon),
                Err(error) => Err(Lost::error("poll", error, self.so_far())),
            };
        }
        while self.hears.heard() < self.owed() {
            if !self.read(turn, usize::MAX)? {
                return Ok(soon);
            }
        }
        Ok(Step::Settled)
    }

    fn until_owed(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let owed = self.owed();
        self.hears.ends_after(owed, false);
        self.until_end(turn)
    }

    fn until_end(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        for _ in 0..4 {
            match self.read_or_end(turn, usize::MAX)? {
                Some(0) if self.hears.is_through() => return Ok(Step::Done),
                Some(0) => {
                    return Err(Lost::Ended(format!(
                        "end of file too soon; {}",
                        self.so_far()
                    )));
                }
                Some(_) => {}
                None => return Ok(Step::After(Duration::from_millis(20))),
            }
        }
        Ok(Step::After(Duration::ZERO))
    }

    fn finish(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        if !self.half_closed {
            let stops_in_the_middle = self.voice.client.is_multiple_of(2);
            let rest = self.says.rest().len();
            if !stops_in_the_middle && rest > 0 && self.write(rest)? < rest {
                // Its answer may have to be read first.
                self.read(turn, usize::MAX)?;
                return Ok(Step::After(Duration::from_millis(1)));
            }
            wire::half_close(&self.fd)
                .map_err(|error| Lost::error("shutdown", error, self.so_far()))?;
            self.half_closed = true;
            let terminated = self.voice.kind != Kind::Blocks && self.says.is_half();
            self.hears.ends_after(self.says.sent(), terminated);
        }
        self.until_end(turn)
    }
}

impl Conversation for Echo {
    fn name(&self) -> String {
        format!("echo: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        match (self.voice.kind, self.holds) {
            (Kind::LongLines(_), Holds::Little) => "echo of long lines",
            (Kind::LongLines(_), _) => "echo of long lines, over the queue",
            (Kind::Lines, Holds::Little) => "echo of lines",
            (Kind::Lines, _) => "echo of lines, held",
            (_, Holds::Little) => "echo",
            (_, _) => "echo, held",
        }
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        match turn.phase {
            Phase::Talk | Phase::Ending => self.talk(turn),
            Phase::Settle => self.settle(turn),
            Phase::Owed => self.until_owed(turn),
            Phase::Ended => self.until_end(turn),
            Phase::Finish => self.finish(turn),
        }
    }

    fn progress(&self) -> u64 {
        self.says.sent() + self.hears.heard() + u64::from(self.half_closed)
    }

    fn standing(&self) -> Standing {
        Standing {
            half_sent: self.says.is_half(),
            unread: self.unread() > 0,
            late: self.late_until.is_some(),
        }
    }

    fn situation(&self) -> String {
        self.so_far()
    }
}
