//! Clients of a relay: each says numbered lines in odd pieces and checks every line of all others:
//! none lost, repeated, cut, or out of its sender's order. At the end `Room` checks that one order
//! explains what all have heard.

use std::{
    cell::RefCell,
    os::fd::OwnedFd,
    rc::Rc,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    talk::{Conversation, Lost, Phase, Standing, Step, Turn},
    wire,
    words::{Sender, Voice, difference, shown},
};

/// What the clients of one relay have said and heard.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Whole lines said by each client.
    said: Vec<u64>,
    /// How many clients will say no more.
    silent: usize,
    /// What each client heard, as it came: sender and number.
    heard: Vec<Vec<(u32, u32)>>,
}

/// Begins the lines that tell who is a member yet; they count as nothing.
const PROBE: u8 = b'?';
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Room {
    pub(crate) fn new(clients: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Room {
            said: vec![0; clients],
            silent: 0,
            heard: vec![Vec::new(); clients],
        }))
    }

    /// Waits until all are members: who connects is not one yet, and would miss what others say.
    pub(crate) fn gather(clients: &mut [RelayClient]) -> Result<(), String> {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        let mut members = vec![false; clients.len()];
        members[0] = true;
        while !members.iter().all(|member| *member) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("relay: members after {PATIENCE:?}: {members:?}"));
            }
            wire::write(&clients[0].fd, &[PROBE, b'\n']).map_err(|error| error.to_string())?;
            sleep(Duration::from_millis(5));
            for (client, member) in clients.iter_mut().zip(&mut members).skip(1) {
                while let Some(length) =
                    wire::read(&client.fd, &mut buffer).map_err(|error| error.to_string())?
                {
                    if length == 0 {
                        return Err(format!("{}: end of file", client.name()));
                    }
                    client.partial.extend_from_slice(&buffer[..length]);
                    *member = true;
                }
            }
        }
        Ok(())
    }

    /// Checks that one order of all lines explains what each has heard. Returns how many lines.
    pub(crate) fn common_order(&self) -> Result<usize, String> {
        // Of each log the first line not explained yet; a line comes next in the common order if it
        // is that in all logs but its sender's.
        let all: usize = self.said.iter().map(|said| *said as usize).sum();
        let mut at = vec![0; self.heard.len()];
        let mut first_in = self
            .said
            .iter()
            .map(|said| vec![0; *said as usize])
            .collect::<Vec<Vec<usize>>>();
        let mut ready = Vec::new();
        let mut explained = 0;
        let others = self.heard.len() - 1;
        let mut show = |log: usize, at: usize, ready: &mut Vec<(u32, u32)>| {
            if let Some(&(sender, number)) = self.heard[log].get(at) {
                let count = &mut first_in[sender as usize][number as usize];
                *count += 1;
                if *count == others {
                    ready.push((sender, number));
                }
            }
        };
        for log in 0..self.heard.len() {
            show(log, 0, &mut ready);
        }
        while let Some((sender, _)) = ready.pop() {
            explained += 1;
            for log in (0..self.heard.len()).filter(|log| *log != sender as usize) {
                at[log] += 1;
                show(log, at[log], &mut ready);
            }
        }
        if explained == all {
            return Ok(all);
        }
        let next = self
            .heard
            .iter()
            .zip(&at)
            .enumerate()
            .map(|(client, (log, at))| {
                log.get(*at)
                    .map_or(format!("r{client}: nothing"), |(sender, number)| {
                        format!("r{client}: line {number} of r{sender}")
                    })
            });
        Err(format!(
            "relay: after {explained} of {all} lines no order explains what came next: {}",
            next.take(8).collect::<Vec<_>>().join(", ")
        ))
    }
}

#[derive(Debug)]
pub(crate) struct RelayClient {
    room: Rc<RefCell<Room>>,
    voice: Voice,
    fd: OwnedFd,
    says: Sender,
    /// The line that came in part.
    partial: Vec<u8>,
    /// The number due of each sender.
    next: Vec<u32>,
    heard: u64,
    late_until: Option<Instant>,
    half_closed: bool,
}

impl RelayClient {
    pub(crate) fn new(room: &Rc<RefCell<Room>>, voice: Voice, fd: OwnedFd) -> Self {
        RelayClient {
            room: Rc::clone(room),
            voice,
            fd,
            says: Sender::new(voice),
            partial: Vec::new(),
            next: vec![0; room.borrow().said.len()],
            heard: 0,
            late_until: None,
            half_closed: false,
        }
    }

    fn so_far(&self) -> String {
        let room = self.room.borrow();
        let missing = (0..self.next.len())
            .filter(|sender| *sender != self.voice.client)
            .filter(|sender| u64::from(self.next[*sender]) < room.said[*sender])
            .map(|sender| {
                format!(
                    "r{sender} from line {} of {}",
                    self.next[sender], room.said[sender]
                )
            })
            .collect::<Vec<_>>();
        format!(
            "sent {} bytes, {} lines; heard {} bytes; not heard of what others said: {}{}; began of a line: {}",
            self.says.sent(),
            self.says.messages(),
            self.heard,
            missing
                .iter()
                .take(4)
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
            if missing.len() > 4 { ", …" } else { "" },
            shown(&self.partial)
        )
    }

    fn write(&mut self, length: usize) -> Result<usize, Lost> {
        let taken = wire::write(&self.fd, self.says.piece(length))
            .map_err(|error| Lost::error("write", error, self.so_far()))?
            .unwrap_or(0);
        self.says.took(taken);
        self.room.borrow_mut().said[self.voice.client] = self.says.messages();
        Ok(taken)
    }

    /// Whether anything came. At the end, `None`.
    fn read_or_end(&mut self, turn: &mut Turn<'_>, most: usize) -> Result<Option<bool>, Lost> {
        let room = most.min(turn.buffer.len());
        let came = wire::read(&self.fd, &mut turn.buffer[..room])
            .map_err(|error| Lost::error("read", error, self.so_far()))?;
        let Some(length) = came else {
            return Ok(Some(false));
        };
        if length == 0 {
            return Ok(None);
        }
        self.heard += length as u64;
        self.partial.extend_from_slice(&turn.buffer[..length]);
        let lines = std::mem::take(&mut self.partial);
        let mut rest = &lines[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.hear(&rest[..=end])?;
            rest = &rest[end + 1..];
        }
        self.partial = rest.to_vec();
        Ok(Some(true))
    }

    fn read(&mut self, turn: &mut Turn<'_>, most: usize) -> Result<bool, Lost> {
        self.read_or_end(turn, most)?
            .ok_or_else(|| Lost::Ended(format!("end of file; {}", self.so_far())))
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), Lost> {
        if line[0] == PROBE {
            return Ok(());
        }
        let sender = sender(line)
            .filter(|sender| *sender < self.next.len() && *sender != self.voice.client)
            .ok_or_else(|| Lost::Wrong(format!("no line of another client: {}", shown(line))))?;
        let voice = Voice {
            client: sender,
            ..self.voice
        };
        let number = self.next[sender];
        let expected = voice.message(u64::from(number));
        if line != expected {
            return Err(Lost::Wrong(format!(
                "byte {} of what it heard, line {number} of r{sender}: {}",
                self.heard,
                difference(&expected, line)
            )));
        }
        self.next[sender] += 1;
        self.room.borrow_mut().heard[self.voice.client].push((sender as u32, number));
        Ok(())
    }

    fn has_heard_all(&self) -> bool {
        let room = self.room.borrow();
        (0..self.next.len()).all(|sender| {
            sender == self.voice.client || u64::from(self.next[sender]) == room.said[sender]
        })
    }

    fn talk(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        if self.late_until.is_none_or(|until| turn.now >= until) {
            self.late_until = None;
            let most = turn.random.within(1, 16 * 1024);
            self.read(turn, most)?;
            if turn.random.one_in(16) {
                let late = Duration::from_millis(turn.random.within(300, 1000) as u64);
                self.late_until = Some(turn.now + late);
            }
        }
        let length = turn.random.within(1, 251);
        self.write(length)?;
        Ok(Step::After(Duration::from_millis(
            turn.random.within(100, 300) as u64,
        )))
    }

    /// Reads what has come; whether all has, that is due.
    fn catch_up(&mut self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        while !self.has_heard_all() {
            if !self.read(turn, usize::MAX)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn settle(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        // Every tenth is owed what came since the others stopped.
        if self.voice.client % 10 == 9 || self.catch_up(turn)? {
            return Ok(Step::Settled);
        }
        Ok(Step::After(Duration::from_millis(20)))
    }

    fn until_owed(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        loop {
            match self.read_or_end(turn, usize::MAX)? {
                Some(true) => {}
                Some(false) => return Ok(Step::After(Duration::from_millis(20))),
                None if self.has_heard_all() && self.partial.is_empty() => return Ok(Step::Done),
                None => {
                    return Err(Lost::Ended(format!(
                        "end of file too soon; {}",
                        self.so_far()
                    )));
                }
            }
        }
    }

    fn finish(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        if !self.half_closed {
            let rest = self.says.rest().len();
            if rest > 0 && self.write(rest)? < rest {
                self.read(turn, usize::MAX)?;
                return Ok(Step::After(Duration::from_millis(1)));
            }
            wire::half_close(&self.fd)
                .map_err(|error| Lost::error("shutdown", error, self.so_far()))?;
            self.half_closed = true;
            self.room.borrow_mut().silent += 1;
        }
        let all_silent = {
            let room = self.room.borrow();
            room.silent == room.said.len()
        };
        if all_silent && self.catch_up(turn)? {
            // Its end is not awaited: who has half-closed stays a receiver.
            return Ok(Step::Done);
        }
        Ok(Step::After(Duration::from_millis(20)))
    }
}

/// Who said it: the number behind the group's letter.
fn sender(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line.get(1..)?).ok()?;
    text.split(' ').next()?.parse().ok()
}

impl Conversation for RelayClient {
    fn name(&self) -> String {
        format!("relay: {}", self.voice)
    }

    fn sort(&self) -> &'static str {
        "relay"
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        match turn.phase {
            Phase::Talk | Phase::Ending => self.talk(turn),
            Phase::Settle => self.settle(turn),
            Phase::Owed => self.until_owed(turn),
            Phase::Ended => {
                while self.read(turn, usize::MAX)? {}
                Ok(Step::After(Duration::from_millis(20)))
            }
            Phase::Finish => self.finish(turn),
        }
    }

    fn progress(&self) -> u64 {
        self.says.sent() + self.heard + u64::from(self.half_closed)
    }

    fn standing(&self) -> Standing {
        Standing {
            half_sent: self.says.is_half(),
            unread: !self.has_heard_all(),
            late: self.late_until.is_some(),
        }
    }

    fn situation(&self) -> String {
        self.so_far()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room of three in which each has heard what its text says: "10" is line 0 of client 1.
    fn room(said: [u64; 3], heard: [&str; 3]) -> Room {
        let digit = |digit: char| digit.to_digit(10).unwrap();
        let log = |text: &str| {
            let digits = text.chars().filter(|c| *c != ' ').map(digit);
            digits
                .collect::<Vec<_>>()
                .chunks(2)
                .map(|pair| (pair[0], pair[1]))
                .collect()
        };
        Room {
            said: said.to_vec(),
            silent: 3,
            heard: heard.map(log).to_vec(),
        }
    }

    #[test]
    fn one_order_explains_what_all_heard() {
        let heard = ["10 20 11", "00 20", "10 00 11"];
        assert_eq!(room([1, 2, 1], heard).common_order(), Ok(4));
        assert_eq!(room([0, 0, 0], ["", "", ""]).common_order(), Ok(0));
    }

    #[test]
    fn two_orders_are_found() {
        // 0 before 1, 1 before 2, and 2 before 0: each two agree.
        let said = room([1, 1, 1], ["10 20", "20 00", "00 10"])
            .common_order()
            .unwrap_err();
        assert!(said.contains("after 0 of 3 lines"), "{said}");
        assert!(said.contains("r1: line 0 of r2"), "{said}");
    }

    #[test]
    fn a_line_that_one_missed_is_found() {
        room([1, 2, 1], ["10 20 11", "00 20", "10 00"])
            .common_order()
            .unwrap_err();
    }
}
