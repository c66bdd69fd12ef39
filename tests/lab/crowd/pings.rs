//! Who measures the pause: clients that wait for one short answer at a time, and those that connect
//! anew for each.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::net::SocketType;

use super::{
    talk::{Conversation, Lost, Phase, Standing, Step, Turn},
    wire,
    words::{Hearer, Sender, Voice},
};

/// One client of echo, one message under way.
#[derive(Debug)]
pub(crate) struct Pinger {
    voice: Voice,
    fd: OwnedFd,
    says: Sender,
    hears: Hearer,
    /// When the message under way was sent.
    since: Option<Instant>,
    longest: Duration,
    half_closed: bool,
}

impl Pinger {
    pub(crate) fn new(voice: Voice, fd: OwnedFd) -> Self {
        Pinger {
            voice,
            fd,
            says: Sender::new(voice),
            hears: Hearer::new(voice),
            since: None,
            longest: Duration::ZERO,
            half_closed: false,
        }
    }

    /// Reads what has come; whether the end has.
    fn read(&mut self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        while let Some(length) = wire::read(&self.fd, turn.buffer)
            .map_err(|error| Lost::error("read", error, self.situation()))?
        {
            if length == 0 {
                return Ok(true);
            }
            self.hears
                .hear(&turn.buffer[..length])
                .map_err(Lost::Wrong)?;
        }
        if let Some(since) = self
            .since
            .filter(|_| self.hears.heard() == self.says.sent())
        {
            self.longest = self.longest.max(since.elapsed());
            self.since = None;
        }
        Ok(false)
    }

    fn ping(&mut self) -> Result<(), Lost> {
        let message = self.voice.message(self.says.messages());
        match wire::write(&self.fd, &message) {
            Ok(Some(length)) if length == message.len() => {
                self.says.piece(length);
                self.says.took(length);
                self.since = Some(Instant::now());
                Ok(())
            }
            Ok(_) => Err(Lost::Wrong(format!(
                "no room for one message; {}",
                self.situation()
            ))),
            Err(error) => Err(Lost::error("write", error, self.situation())),
        }
    }
}

impl Conversation for Pinger {
    fn name(&self) -> String {
        format!("pings: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        "pings"
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let waits = self.since.is_some();
        if turn.phase == Phase::Settle && !waits {
            // Also its end may be there by now; that counts in the next phase.
            return Ok(Step::Settled);
        }
        let ended = self.read(turn)?;
        match turn.phase {
            Phase::Owed | Phase::Finish if ended && self.since.is_none() => return Ok(Step::Done),
            _ if ended => {
                return Err(Lost::Ended(format!("end of file; {}", self.situation())));
            }
            _ if self.since.is_some() => return Ok(Step::WhenReadable),
            Phase::Talk | Phase::Ending if waits => {
                let pause = turn.random.within(40, 120) as u64;
                return Ok(Step::After(Duration::from_millis(pause)));
            }
            Phase::Talk | Phase::Ending => self.ping()?,
            Phase::Settle => return Ok(Step::Settled),
            Phase::Owed | Phase::Ended => {}
            Phase::Finish if self.half_closed => {}
            Phase::Finish => {
                wire::half_close(&self.fd)
                    .map_err(|error| Lost::error("shutdown", error, self.situation()))?;
                self.half_closed = true;
            }
        }
        Ok(Step::WhenReadable)
    }

    fn progress(&self) -> u64 {
        self.says.sent() + self.hears.heard() + u64::from(self.half_closed)
    }

    fn standing(&self) -> Standing {
        Standing {
            unread: self.since.is_some(),
            ..Standing::default()
        }
    }

    fn situation(&self) -> String {
        format!(
            "sent {} bytes, heard {}; next expected {}",
            self.says.sent(),
            self.hears.heard(),
            self.hears.next()
        )
    }

    fn longest_wait(&mut self) -> Option<Duration> {
        Some(std::mem::take(&mut self.longest))
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

/// Connects, says one message, expects it back and then the end, and connects anew.
#[derive(Debug)]
pub(crate) struct Connector {
    voice: Voice,
    path: PathBuf,
    visit: Option<Visit>,
    /// When it began to connect, while the backlog is full.
    since: Option<Instant>,
    served: u64,
    longest: Duration,
    /// In which phase it began.
    phase: Phase,
}

#[derive(Debug)]
struct Visit {
    fd: OwnedFd,
    message: Vec<u8>,
    heard: usize,
}

impl Connector {
    pub(crate) fn new(voice: Voice, path: PathBuf) -> Self {
        Connector {
            voice,
            path,
            visit: None,
            since: None,
            served: 0,
            longest: Duration::ZERO,
            phase: Phase::Talk,
        }
    }

    fn begin(&mut self, turn: &Turn<'_>) -> Result<(), Lost> {
        let since = *self.since.get_or_insert(turn.now);
        self.phase = turn.phase;
        let connected = wire::connect(&self.path, SocketType::STREAM);
        // Refused is refused, whatever the phase.
        let Some(fd) = connected
            .map_err(|error| Lost::Wrong(format!("connect: {error}; {}", self.situation())))?
        else {
            return Ok(());
        };
        self.since = Some(since);
        let message = self.voice.message(self.served);
        wire::write(&fd, &message)
            .and_then(|_| wire::half_close(&fd))
            .map_err(|error| Lost::error("write", error, self.situation()))?;
        self.visit = Some(Visit {
            fd,
            message,
            heard: 0,
        });
        Ok(())
    }

    /// Whether the visit is over.
    fn go_on(&mut self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        let Some(visit) = &mut self.visit else {
            return Ok(false);
        };
        let due = &visit.message[visit.heard..];
        match wire::read(&visit.fd, turn.buffer) {
            Ok(None) => return Ok(false),
            Ok(Some(0)) if due.is_empty() => {}
            Ok(Some(0)) => {
                let text = format!("end of file with {} bytes due", due.len());
                return Err(Lost::Ended(format!("{text}; {}", self.situation())));
            }
            Ok(Some(length)) if due.starts_with(&turn.buffer[..length]) => {
                visit.heard += length;
                return Ok(false);
            }
            Ok(Some(_)) => {
                return Err(Lost::Wrong(format!(
                    "the wrong answer; {}",
                    self.situation()
                )));
            }
            Err(error) => return Err(Lost::error("read", error, self.situation())),
        }
        self.served += 1;
        if let Some(since) = self.since.take() {
            self.longest = self.longest.max(since.elapsed());
        }
        Ok(true)
    }
}

impl Conversation for Connector {
    fn name(&self) -> String {
        format!("connects: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        "connects"
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let soon = Step::After(Duration::from_millis(1));
        let now = turn.phase;
        // The daemon may have died, or be about to, before it served who came before its end.
        let in_danger = |phase| match now {
            Phase::Ending => true,
            Phase::Ended => phase != Phase::Ended,
            _ => false,
        };
        if self.visit.is_some() {
            match self.go_on(turn) {
                Ok(false) => return Ok(soon),
                Ok(true) => self.visit = None,
                Err(Lost::Ended(_)) if in_danger(self.phase) => {
                    self.visit = None;
                    self.since = None;
                }
                Err(lost) => return Err(lost),
            }
        }
        match turn.phase {
            Phase::Settle => return Ok(Step::Settled),
            Phase::Owed | Phase::Finish => return Ok(Step::Done),
            Phase::Talk | Phase::Ending | Phase::Ended => {}
        }
        match self.begin(turn) {
            Err(Lost::Ended(_)) if in_danger(self.phase) => self.since = None,
            other => other?,
        }
        Ok(soon)
    }

    fn progress(&self) -> u64 {
        self.served
    }

    fn situation(&self) -> String {
        format!("{} visits served before", self.served)
    }

    fn longest_wait(&mut self) -> Option<Duration> {
        Some(std::mem::take(&mut self.longest))
    }

    fn ends_with_daemon(&self) -> bool {
        false
    }
}
