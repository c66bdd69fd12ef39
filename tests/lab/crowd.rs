//! The crowd: thousands of clients of one udsd in the lab, all in the middle of long conversations that
//! are checked byte for byte, on one thread. Owns the loop, and what is said to
//! tests/lab/handover.sh, which tells it by lines on standard input what happens to the daemon:
//!
//!   middle    says "middle: ..." once nearly everybody has got on since the last word
//!   restart   the same; from there to the next word a restart is to account for the longest waits
//!   settle    says "settled" once all that was said is answered or recorded, but for what some leave
//!             unread on purpose
//!   go        they talk on
//!   owed      after settle: they read until the end, which must come after all that they are owed
//!   ending    the daemon may die from now on
//!   ended     it has died: all must come to their end, and new clients be served
//!   finish    they finish, as soon as everybody has got on
//!
//! The last line is "passed: ..." or tells what was lost, of whom; the exit code then is 1.

mod catch;
mod collect;
mod echo;
mod gather;
mod ledger;
mod outcome;
mod packets;
mod pings;
mod relay;
mod talk;
mod wire;
mod words;

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    env,
    io::{self, Write},
    os::fd::OwnedFd,
    process,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    io::{Errno, read},
};

use ledger::Ledger;
use relay::Room;
use talk::{Conversation, Lost, Phase, Step, Turn};
use words::Random;

/// Who gets nothing done for so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// When the daemon has died, all must know it within this time.
const PROMPTLY: Duration = Duration::from_secs(10);
/// After the first loss: how long others are counted.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Turns that are taken before descriptors are looked at again.
const TURNS: usize = 50;

/// New clients served after the daemon's death, by each connector.
const SERVED_ANEW: u64 = 20;

/// Does what LAB_CROWD says, "crowd STREAMS" or "catch PID OPEN", and does not return; without it nothing.
pub(crate) fn obey() {
    let Ok(orders) = env::var("LAB_CROWD") else {
        return;
    };
    let number = |word: &str| word.parse::<u32>().unwrap();
    match orders.split(' ').collect::<Vec<_>>()[..] {
        ["crowd", streams] => run(number(streams) as usize),
        ["catch", old, open] => catch::catch(number(old), number(open)),
        _ => panic!("LAB_CROWD={orders}"),
    }
}

/// Runs the crowd of so many stream clients until it is told to finish. Does not return.
fn run(streams: usize) -> ! {
    let code = match Crowd::gather(streams).and_then(Crowd::run) {
        Ok(summary) => {
            say(&format!("passed: {summary}"));
            0
        }
        Err(lost) => {
            say(&format!("LOST\n{lost}"));
            1
        }
    };
    process::exit(code);
}

/// To standard error, which the test harness does not touch.
fn say(line: &str) {
    // At once, or a reader with a time limit might get half a line. Whoever listened may be gone; then
    // nobody is left to tell.
    let _ = io::stderr().write_all(format!("crowd: {line}\n").as_bytes());
}

/// One conversation and its place in time.
struct Seat {
    talk: Box<dyn Conversation>,
    /// The one entry in `due` that counts; `None`: waits for its descriptor or for a new phase.
    due: Option<Instant>,
    settled: bool,
    /// Progress when it was last looked at, and since when it has been that.
    progress: (u64, Instant),
    /// Progress at the last word from outside.
    mark: u64,
}

/// What is waited for before a word from outside is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Middle,
    Restart,
    Settle,
    Ended,
    Finish,
}

struct Crowd {
    seats: Vec<Option<Seat>>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    epoll: OwnedFd,
    phase: Phase,
    word: Option<(Word, Instant)>,
    input: Vec<u8>,
    random: Random,
    room: Rc<RefCell<Room>>,
    notes: Rc<RefCell<Ledger>>,
    collected: Rc<RefCell<Ledger>>,
    /// The longest waits around each restart, of pingers and of connectors.
    pauses: [Vec<Duration>; 2],
    restarts: usize,
    /// Whether what is waited for now is such a wait.
    measures: bool,
    /// The daemon has died once.
    bereaved: bool,
    /// Who was lost, by sort.
    lost: BTreeMap<&'static str, Vec<String>>,
    first_lost: Option<Instant>,
    begun: Instant,
    done: usize,
}

/// Of standard input, among the seats.
const INPUT: u64 = u64::MAX;

impl Crowd {
    // --- the loop ------------------------------------------------------------------------------

    fn run(mut self) -> Result<String, String> {
        say(&format!(
            "gathered: {} clients in {} ms",
            self.seats.len(),
            self.begun.elapsed().as_millis()
        ));
        let mut events = Vec::with_capacity(256);
        let mut buffer = vec![0; 64 * 1024];
        let mut swept = Instant::now();
        loop {
            events.clear();
            let wait = self.next_wait();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in &events {
                match event.data.u64() {
                    INPUT => self.listen()?,
                    index => self.take_turn(index as usize, &mut buffer),
                }
            }
            for _ in 0..TURNS {
                let Some(index) = self.next_due() else { break };
                self.take_turn(index, &mut buffer);
            }
            if swept.elapsed() > Duration::from_millis(20) {
                swept = Instant::now();
                self.sweep(swept);
                self.answer(swept)?;
            }
            if self
                .first_lost
                .is_some_and(|first| first.elapsed() > AFTERMATH)
            {
                return Err(self.losses());
            }
            if self.first_lost.is_none() && self.seats.iter().all(Option::is_none) {
                return self.conclude();
            }
        }
    }

    fn next_wait(&self) -> Timespec {
        // The sweep is due every 20 ms.
        let most = Duration::from_millis(20);
        let wait = self.due.peek().map_or(most, |Reverse((at, _))| {
            most.min(at.saturating_duration_since(Instant::now()))
        });
        Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        }
    }

    fn schedule(&mut self, index: usize, at: Instant) {
        if let Some(seat) = &mut self.seats[index] {
            seat.due = Some(at);
            self.due.push(Reverse((at, index)));
        }
    }

    fn next_due(&mut self) -> Option<usize> {
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > Instant::now() {
                return None;
            }
            self.due.pop();
            if self.seats[index]
                .as_ref()
                .is_some_and(|seat| seat.due == Some(at))
            {
                return Some(index);
            }
        }
        None
    }

    fn take_turn(&mut self, index: usize, buffer: &mut [u8]) {
        let now = Instant::now();
        let Some(seat) = &mut self.seats[index] else {
            return;
        };
        seat.due = None;
        let step = seat.talk.turn(&mut Turn {
            now,
            phase: self.phase,
            random: &mut self.random,
            buffer,
        });
        match step {
            Ok(Step::After(wait)) => self.schedule(index, now + wait),
            Ok(Step::WhenReadable) => {}
            Ok(Step::Settled) => seat.settled = true,
            Ok(Step::Done) => self.dismiss(index),
            Err(Lost::Ended(_))
                if matches!(self.phase, Phase::Ending | Phase::Ended)
                    && seat.talk.ends_with_daemon() =>
            {
                self.dismiss(index);
            }
            Err(Lost::Ended(what) | Lost::Wrong(what)) => {
                let text = format!("{}: {what}", seat.talk.name());
                self.lost.entry(seat.talk.sort()).or_default().push(text);
                self.first_lost.get_or_insert(now);
                self.seats[index] = None;
            }
        }
    }

    fn dismiss(&mut self, index: usize) {
        // Its waits count to the end.
        if let Some(seat) = &mut self.seats[index] {
            let connects = !seat.talk.ends_with_daemon();
            if let Some(longest) = seat.talk.longest_wait().filter(|_| self.measures) {
                self.pauses[usize::from(connects)].push(longest);
            }
        }
        self.seats[index] = None;
        self.done += 1;
    }

    /// Finds who gets nothing done.
    fn sweep(&mut self, now: Instant) {
        for index in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[index] else {
                continue;
            };
            let progress = seat.talk.progress();
            if progress != seat.progress.0 || seat.settled {
                seat.progress = (progress, now);
            } else if now.duration_since(seat.progress.1) > PATIENCE {
                let text = format!(
                    "{}: has got nothing done for {PATIENCE:?}: {}",
                    seat.talk.name(),
                    seat.talk.situation()
                );
                self.lost.entry(seat.talk.sort()).or_default().push(text);
                self.first_lost.get_or_insert(now);
                self.seats[index] = None;
            }
        }
    }

    // --- words from outside --------------------------------------------------------------------

    fn listen(&mut self) -> Result<(), String> {
        let mut bytes = [0; 256];
        let length = read(io::stdin(), &mut bytes).map_err(failed("standard input"))?;
        if length == 0 {
            return Err("told nothing more: standard input ended".to_owned());
        }
        self.input.extend_from_slice(&bytes[..length]);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line = self.input.drain(..=end).collect::<Vec<u8>>();
            self.obey(line.trim_ascii_end())?;
        }
        Ok(())
    }

    fn obey(&mut self, word: &[u8]) -> Result<(), String> {
        let now = Instant::now();
        let word = match word {
            b"middle" => Word::Middle,
            b"restart" => Word::Restart,
            b"settle" => {
                self.enter(Phase::Settle);
                Word::Settle
            }
            b"go" => {
                self.enter(Phase::Talk);
                return Ok(());
            }
            b"owed" => {
                self.enter(Phase::Owed);
                return Ok(());
            }
            b"ending" => {
                self.enter(Phase::Ending);
                self.bereaved = true;
                say("awaits the end");
                return Ok(());
            }
            b"ended" => {
                self.enter(Phase::Ended);
                Word::Ended
            }
            b"finish" => Word::Finish,
            other => {
                return Err(format!(
                    "told what it does not know: {}",
                    other.escape_ascii()
                ));
            }
        };
        for seat in self.seats.iter_mut().flatten() {
            seat.mark = seat.talk.progress();
        }
        self.word = Some((word, now));
        Ok(())
    }

    /// Everybody does what the phase wants, soon.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let now = Instant::now();
        for index in 0..self.seats.len() {
            if let Some(seat) = &mut self.seats[index] {
                seat.settled = false;
                self.schedule(index, now);
            }
        }
    }

    /// Answers the last word once what it waits for is so.
    fn answer(&mut self, now: Instant) -> Result<(), String> {
        let Some((word, since)) = self.word else {
            return Ok(());
        };
        match word {
            Word::Middle | Word::Restart if self.all_got_on() => {
                self.measure();
                self.measures = word == Word::Restart;
                self.restarts += usize::from(self.measures);
                say(&self.standing());
            }
            Word::Settle if self.all_settled()? => {
                self.collected.borrow_mut().note_recorded();
                self.notes.borrow_mut().note_recorded();
                say(&format!("settled after {} ms", since.elapsed().as_millis()));
            }
            Word::Ended => {
                let (old, new): (Vec<_>, Vec<_>) = self
                    .seats
                    .iter()
                    .flatten()
                    .partition(|seat| seat.talk.ends_with_daemon());
                let served = new
                    .iter()
                    .all(|seat| seat.talk.progress() >= seat.mark + SERVED_ANEW);
                if !old.is_empty() || !served {
                    if now.duration_since(since) < PROMPTLY {
                        return Ok(());
                    }
                    let waits = old.iter().chain(&new).map(|seat| seat.talk.name());
                    return Err(format!(
                        "{PROMPTLY:?} after the daemon's death {} clients have seen no end; new ones were served: {served}; such as {}",
                        old.len(),
                        waits.take(3).collect::<Vec<_>>().join(", ")
                    ));
                }
                say(&format!(
                    "{} ended and new clients were served within {} ms",
                    self.done,
                    now.duration_since(since).as_millis()
                ));
                // Who collects on, and must find the record going on.
                self.gather_collect(5)?;
                self.enter(Phase::Talk);
            }
            Word::Finish if self.all_got_on() => {
                self.measure();
                self.measures = false;
                self.enter(Phase::Finish);
            }
            _ => return Ok(()),
        }
        self.word = None;
        Ok(())
    }

    /// Whether nearly everybody has got something done since the last word, or is late on purpose.
    fn all_got_on(&self) -> bool {
        let seats = || self.seats.iter().flatten();
        let idle =
            seats().filter(|seat| seat.talk.progress() == seat.mark && !seat.talk.standing().late);
        idle.count() <= seats().count() / 50
    }

    fn all_settled(&self) -> Result<bool, String> {
        Ok(self.seats.iter().flatten().all(|seat| seat.settled)
            && self.collected.borrow().is_full(false)?
            && self.notes.borrow().is_full(false)?)
    }

    /// What was waited for since the last word, if a restart is to account for it.
    fn measure(&mut self) {
        for seat in self.seats.iter_mut().flatten() {
            let connects = !seat.talk.ends_with_daemon();
            if let Some(longest) = seat.talk.longest_wait().filter(|_| self.measures) {
                self.pauses[usize::from(connects)].push(longest);
            }
        }
    }

    fn standing(&self) -> String {
        let (mut half, mut unread, mut late) = (0, 0, 0);
        for standing in self.seats.iter().flatten().map(|seat| seat.talk.standing()) {
            half += usize::from(standing.half_sent);
            unread += usize::from(standing.unread);
            late += usize::from(standing.late);
        }
        let all = self.seats.len();
        format!(
            "middle: of {all}, {half} in mid-message, {unread} owed an answer, {late} not reading"
        )
    }
}

fn failed(what: &str) -> impl Fn(Errno) -> String + '_ {
    move |error| format!("{what}: {error}")
}
