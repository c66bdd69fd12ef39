//! Clients of collect, on streams and as datagrams, which say numbered lines; `ledger.rs` checks the
//! record of them.

use std::{cell::RefCell, os::fd::OwnedFd, rc::Rc, time::Duration};

use super::{
    ledger::Ledger,
    talk::{Conversation, Lost, Phase, Standing, Step, Turn},
    wire::{self, TELLING},
    words::{Kind, Sender, Voice, shown},
};

#[derive(Debug)]
pub(crate) struct CollectClient {
    ledger: Rc<RefCell<Ledger>>,
    voice: Voice,
    fd: OwnedFd,
    says: Sender,
    half_closed: bool,
    topped_up: bool,
}

impl CollectClient {
    pub(crate) fn new(ledger: &Rc<RefCell<Ledger>>, kind: Kind, group: char, fd: OwnedFd) -> Self {
        let voice = ledger.borrow_mut().enter(kind, group);
        CollectClient {
            ledger: Rc::clone(ledger),
            voice,
            fd,
            says: Sender::new(voice),
            half_closed: false,
            topped_up: false,
        }
    }

    fn so_far(&self) -> String {
        format!(
            "sent {} bytes, {} lines",
            self.says.sent(),
            self.says.messages()
        )
    }

    fn write(&mut self, length: usize) -> Result<usize, Lost> {
        let taken = wire::write(&self.fd, self.says.piece(length))
            .map_err(|error| Lost::error("write", error, self.so_far()))?
            .unwrap_or(0);
        self.says.took(taken);
        self.ledger
            .borrow_mut()
            .has_said(self.voice, self.says.messages());
        Ok(taken)
    }

    /// Whether the end has come. Anything else is wrong.
    fn at_end(&self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        match wire::read(&self.fd, turn.buffer)
            .map_err(|error| Lost::error("read", error, self.so_far()))?
        {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(length) => {
                let came = shown(&turn.buffer[..length]);
                Err(Lost::Wrong(format!("expected nothing, came {came}")))
            }
        }
    }

    fn not_at_end(&self, turn: &mut Turn<'_>) -> Result<(), Lost> {
        if self.at_end(turn)? {
            return Err(Lost::Ended(format!("end of file; {}", self.so_far())));
        }
        Ok(())
    }

    fn finish(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let soon = Step::After(Duration::from_millis(20));
        if !self.half_closed {
            let stops_in_the_middle = self.voice.client.is_multiple_of(2);
            let rest = self.says.rest().len();
            if !stops_in_the_middle && rest > 0 && self.write(rest)? < rest {
                return Ok(soon);
            }
            wire::half_close(&self.fd)
                .map_err(|error| Lost::error("shutdown", error, self.so_far()))?;
            self.half_closed = true;
            let rest = (self.says.sent() - self.says.whole()) as usize;
            self.ledger.borrow_mut().ended_after(self.voice, rest);
        }
        Ok(if self.at_end(turn)? { Step::Done } else { soon })
    }
}

impl Conversation for CollectClient {
    fn name(&self) -> String {
        format!("collect: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        "collect"
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let soon = Step::After(Duration::from_millis(20));
        match turn.phase {
            Phase::Talk | Phase::Ending => {
                self.topped_up = false;
                self.not_at_end(turn)?;
                let length = turn.random.within(1, 401);
                self.write(length)?;
                let pause = turn.random.within(50, 200) as u64;
                Ok(Step::After(Duration::from_millis(pause)))
            }
            Phase::Settle => {
                self.not_at_end(turn)?;
                if !self.topped_up {
                    self.topped_up = self.write(TELLING)? == TELLING;
                }
                match wire::is_taken(&self.fd) {
                    Ok(true) if self.topped_up => Ok(Step::Settled),
                    Ok(_) => Ok(soon),
                    Err(error) => Err(Lost::error("poll", error, self.so_far())),
                }
            }
            Phase::Owed => Ok(if self.at_end(turn)? { Step::Done } else { soon }),
            Phase::Ended => {
                self.not_at_end(turn)?;
                Ok(soon)
            }
            Phase::Finish => self.finish(turn),
        }
    }

    fn progress(&self) -> u64 {
        self.says.sent() + u64::from(self.half_closed)
    }

    fn standing(&self) -> Standing {
        Standing {
            half_sent: self.says.is_half(),
            ..Standing::default()
        }
    }

    fn situation(&self) -> String {
        self.so_far()
    }
}

/// Says its lines as datagrams, without an address of its own.
#[derive(Debug)]
pub(crate) struct NoteSender {
    ledger: Rc<RefCell<Ledger>>,
    voice: Voice,
    fd: OwnedFd,
    sent: u64,
}

impl NoteSender {
    pub(crate) fn new(ledger: &Rc<RefCell<Ledger>>, kind: Kind, group: char, fd: OwnedFd) -> Self {
        let voice = ledger.borrow_mut().enter(kind, group);
        NoteSender {
            ledger: Rc::clone(ledger),
            voice,
            fd,
            sent: 0,
        }
    }
}

impl Conversation for NoteSender {
    fn name(&self) -> String {
        format!("datagrams into a record: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        "datagrams into a record"
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        match turn.phase {
            Phase::Talk | Phase::Ending => {}
            Phase::Settle => return Ok(Step::Settled),
            Phase::Owed | Phase::Ended | Phase::Finish => return Ok(Step::Done),
        }
        let mut message = self.voice.message(self.sent);
        message.pop();
        let taken = wire::write(&self.fd, &message)
            .map_err(|error| Lost::error("send", error, self.situation()))?;
        if taken.is_none() {
            // The socket's queue is full: as a blocking send would, it tries on.
            return Ok(Step::After(Duration::from_millis(1)));
        }
        self.sent += 1;
        self.ledger.borrow_mut().has_said(self.voice, self.sent);
        let pause = turn.random.within(1, 40) as u64;
        Ok(Step::After(Duration::from_millis(pause)))
    }

    fn progress(&self) -> u64 {
        self.sent
    }

    fn situation(&self) -> String {
        format!("sent {} datagrams", self.sent)
    }
}
