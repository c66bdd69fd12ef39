//! The load: clients that send as fast as answers, or the kernel, let them, and check what comes. One thread
//! waits for all of them; each sends what the kernel takes and reads what is there, so that a long message, or many
//! under way, never wait for each other.

use std::{
    collections::VecDeque,
    io::Read,
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::event::{
    PollFd, PollFlags,
    epoll::{Event, EventFlags},
};

use super::content::Content;
use crate::{
    config::{ServiceKind, SocketType},
    udsc::{
        connection::Connection,
        delivery::settle,
        failure::{Failure, WHY},
        messages::Messages,
        packets::Reader,
        poll::{Watch, until_any},
        statistics::Statistics,
        stdio::CHUNK,
    },
};

/// How often progress is shown, and messages are looked for that are overdue.
const TICK: Duration = Duration::from_millis(100);

/// Events taken at once.
const EVENTS: usize = 256;

/// The number by which the interrupts are watched; those of clients count up from 0.
const INTERRUPT: u64 = u64::MAX;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// What the server does.
    pub service: ServiceKind,
    /// Messages of one sender that may be under way.
    pub pipeline: usize,
    /// How long messages are sent.
    pub duration: Duration,
    /// When a message that did not come is lost.
    pub timeout: Duration,
}

/// The messages of one sender that are under way, in their order.
struct Flow {
    sender: usize,
    /// How many receive each.
    receivers: usize,
    /// Number of the first.
    first: u64,
    under_way: VecDeque<UnderWay>,
}

struct UnderWay {
    since: Instant,
    /// How many have it yet to receive.
    missing: usize,
}

impl Flow {
    /// Number of the next message.
    fn next(&self) -> u64 {
        self.first + self.under_way.len() as u64
    }

    /// Forgets the first `n`.
    fn forget(&mut self, n: usize) {
        self.under_way.drain(..n);
        self.first += n as u64;
    }
}

/// What a client is to receive.
struct Due {
    flow: usize,
    /// Number of the next message.
    number: u64,
}

struct Client<'a> {
    conn: &'a Connection,
    messages: Messages<Reader<'a>>,
    due: Option<Due>,
    /// The flow whose messages it sends.
    sends: Option<usize>,
    /// Whole messages, of which the first `sent` bytes are sent.
    wire: Vec<u8>,
    sent: usize,
    /// What its socket is watched for.
    watched: EventFlags,
}

impl Client<'_> {
    /// Sends what the kernel takes; whether that was anything.
    fn send(&mut self) -> Result<bool, Failure> {
        let before = self.sent;
        loop {
            let mut unsent = &self.wire[self.sent..];
            let length = unsent.len();
            self.conn.send(&mut unsent)?;
            let sent = length - unsent.len();
            self.sent += sent;
            if sent == 0 || sent == length {
                break;
            }
        }
        let any = self.sent > before;
        if self.sent == self.wire.len() {
            self.wire.clear();
            self.sent = 0;
        }
        Ok(any)
    }
}

/// Judges what comes.
struct Judge {
    content: Content,
    statistics: Statistics,
    /// Messages that came when they counted as lost.
    late: u64,
    /// Datagrams may be lost, and others come all the same.
    may_lose: bool,
    now: Instant,
}

impl Judge {
    /// Takes `wire` for a message that is `due`; the error says why it is none.
    fn take(&mut self, flow: &mut Flow, due: &mut Due, wire: &[u8]) -> Result<(), String> {
        let number = if self.content.is(wire, flow.sender, due.number) {
            due.number
        } else {
            match self.content.number(wire, flow.sender) {
                Some(number) if self.may_lose => number,
                other => return Err(self.wrong(flow, due, wire, other)),
            }
        };
        if number < flow.first {
            self.late += 1;
            return Ok(());
        }
        if number >= flow.next() {
            return Err(self.wrong(flow, due, wire, Some(number)));
        }
        if number > due.number {
            flow.forget((number - due.number) as usize);
        }
        due.number = number + 1;
        let message = &mut flow.under_way[(number - flow.first) as usize];
        message.missing -= 1;
        self.statistics.arrived(self.now - message.since);
        while flow
            .under_way
            .front()
            .is_some_and(|first| first.missing == 0)
        {
            flow.forget(1);
        }
        Ok(())
    }

    fn wrong(&mut self, flow: &Flow, due: &Due, wire: &[u8], number: Option<u64>) -> String {
        self.statistics.wrong += 1;
        let what = match number {
            Some(number) => format!("message {number} came"),
            None => format!(
                "what came is none: {} bytes, \"{}\"",
                wire.len(),
                wire[..wire.len().min(64)].escape_ascii()
            ),
        };
        let (due, sender) = (due.number, flow.sender);
        format!("message {due} of client {sender} was due, and {what}")
    }
}

/// Clients under load.
pub(super) struct Load<'a> {
    task: Task,
    clients: Vec<Client<'a>>,
    flows: Vec<Flow>,
    judge: Judge,
    watch: Watch,
    is_sending: bool,
    start: Instant,
    /// When bytes last went or came.
    last: Instant,
}

impl<'a> Load<'a> {
    /// One client for each connection. On a relay the last sends: where it is connected, the others are.
    pub(super) fn new(
        conns: &'a [Connection],
        task: Task,
        content: Content,
    ) -> Result<Self, Failure> {
        let statistics =
            Statistics::new().map_err(|source| Failure::System("making the histogram", source))?;
        let watch = Watch::new()?;
        let last = conns.len() - 1;
        let is_relay = task.service == ServiceKind::Relay;
        let mut clients = Vec::new();
        for (i, conn) in conns.iter().enumerate() {
            let watched = EventFlags::IN;
            watch.add(&conn.socket, i as u64, watched)?;
            let receives = match task.service {
                ServiceKind::Echo => Some(i),
                ServiceKind::Relay => (i != last).then_some(0),
                ServiceKind::Collect | ServiceKind::Control => None,
            };
            clients.push(Client {
                conn,
                messages: conn.messages(),
                due: receives.map(|flow| Due { flow, number: 0 }),
                sends: match is_relay {
                    true => (i == last).then_some(0),
                    false => Some(i),
                },
                wire: Vec::new(),
                sent: 0,
                watched,
            });
        }
        let senders = if is_relay {
            last..last + 1
        } else {
            0..last + 1
        };
        let flow = |sender| Flow {
            sender,
            receivers: match task.service {
                ServiceKind::Echo => 1,
                ServiceKind::Relay => last,
                ServiceKind::Collect | ServiceKind::Control => 0,
            },
            first: 0,
            under_way: VecDeque::new(),
        };
        let now = Instant::now();
        Ok(Self {
            task,
            clients,
            flows: senders.map(flow).collect(),
            judge: Judge {
                content,
                statistics,
                late: 0,
                may_lose: conns[0].kind == SocketType::Datagram,
                now,
            },
            watch,
            is_sending: true,
            start: now,
            last: now,
        })
    }

    /// Counts and times.
    pub(super) fn statistics(&self) -> &Statistics {
        &self.judge.statistics
    }

    /// Messages that were sent, whoever received them.
    pub(super) fn messages(&self) -> u64 {
        self.flows.iter().map(Flow::next).sum()
    }

    /// Messages that came when they counted as lost.
    pub(super) fn late(&self) -> u64 {
        self.judge.late
    }

    /// From the first message to the last byte.
    pub(super) fn took(&self) -> Duration {
        self.last - self.start
    }

    /// Sends until time is up or an interrupt can be read from `stop`, then waits for what is under way, but not
    /// after another interrupt. `show` is told now and then how much came in which time.
    pub(super) fn run(
        &mut self,
        stop: &UnixStream,
        mut show: impl FnMut(Duration, u64),
    ) -> Result<(), Failure> {
        self.watch.add(stop, INTERRUPT, EventFlags::IN)?;
        let now = Instant::now();
        (self.start, self.last, self.judge.now) = (now, now, now);
        let (end, mut tick) = (now + self.task.duration, now + TICK);
        for flow in 0..self.flows.len() {
            self.fill(flow)?;
        }
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            let now = self.judge.now;
            self.is_sending &= now < end;
            if !self.is_sending && self.is_done() {
                return self.finish(stop);
            }
            if now >= tick {
                show(now - self.start, self.judge.statistics.received());
                self.look_for_overdue()?;
                tick = now + TICK;
            }
            let until = if self.is_sending { tick.min(end) } else { tick };
            self.watch.wait(until - now, &mut events)?;
            if events.is_empty() {
                self.judge.now = Instant::now();
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    INTERRUPT => self.interrupt(stop)?,
                    client => self.serve(client as usize, event.flags)?,
                }
            }
        }
    }

    /// Whether nothing is under way.
    fn is_done(&self) -> bool {
        self.flows.iter().all(|flow| flow.under_way.is_empty())
    }

    fn interrupt(&mut self, mut stop: &UnixStream) -> Result<(), Failure> {
        let _ = stop.read(&mut [0; 1]);
        if !self.is_sending {
            return Err(interrupted());
        }
        self.is_sending = false;
        Ok(())
    }

    fn serve(&mut self, client: usize, ready: EventFlags) -> Result<(), Failure> {
        // Else for writing alone.
        if ready != EventFlags::OUT {
            self.receive(client)?;
        } else {
            self.judge.now = Instant::now();
        }
        match self.clients[client].sends {
            Some(flow) => self.fill(flow),
            None => Ok(()),
        }
    }

    /// Takes what is there for a client. Its sender may then have something to send.
    fn receive(&mut self, client: usize) -> Result<(), Failure> {
        let Client {
            conn,
            messages,
            due,
            ..
        } = &mut self.clients[client];
        loop {
            let bytes = conn.receive(messages)?;
            self.judge.now = Instant::now();
            if bytes > 0 {
                self.last = self.judge.now;
            }
            if self.task.service == ServiceKind::Collect {
                messages.forget();
            } else {
                while let Some(wire) = messages.at_hand().map_err(|why| conn.failure(why))? {
                    let taken = match due {
                        Some(due) => self.judge.take(&mut self.flows[due.flow], due, wire),
                        None => Err("a message came back to its sender".into()),
                    };
                    taken.map_err(|why| conn.failure(why))?;
                }
            }
            if messages.has_ended() {
                return Err(conn.failure(format!("the server closed the connection {WHY}")));
            }
            // One read empties a stream, but takes one packet.
            let awaits = due
                .as_ref()
                .is_some_and(|due| due.number < self.flows[due.flow].next());
            if bytes == 0 || conn.kind == SocketType::Stream || !awaits {
                break;
            }
        }
        match due {
            Some(Due { flow, .. }) => {
                let flow = *flow;
                self.fill(flow)
            }
            None => Ok(()),
        }
    }

    /// Sends as much of a flow as may be under way and the kernel takes.
    fn fill(&mut self, flow: usize) -> Result<(), Failure> {
        let flow = &mut self.flows[flow];
        let client = &mut self.clients[flow.sender];
        let judge = &mut self.judge;
        let is_collect = self.task.service == ServiceKind::Collect;
        loop {
            if client.wire.is_empty() {
                while self.is_sending
                    && flow.under_way.len() < self.task.pipeline
                    && client.wire.len() < CHUNK
                {
                    let number = flow.next();
                    judge.content.put(flow.sender, number, &mut client.wire);
                    flow.under_way.push_back(UnderWay {
                        since: judge.now,
                        missing: flow.receivers,
                    });
                    judge.statistics.sent += flow.receivers.max(1) as u64;
                }
            }
            if client.wire.is_empty() {
                break;
            }
            if client.send()? {
                self.last = judge.now;
            }
            if !client.wire.is_empty() {
                break;
            }
            if is_collect {
                // Taken by the kernel is all that can be known now. The rest has its turn at the next event.
                judge.statistics.came(flow.under_way.len() as u64);
                flow.forget(flow.under_way.len());
                break;
            }
        }
        let mut wanted = EventFlags::IN;
        wanted.set(
            EventFlags::OUT,
            !client.wire.is_empty() || is_collect && self.is_sending,
        );
        if wanted != client.watched {
            let number = flow.sender as u64;
            self.watch.change(&client.conn.socket, number, wanted)?;
            client.watched = wanted;
        }
        Ok(())
    }

    /// Gives datagrams up that did not come in time; of connections, where nothing is lost, fails if none moves.
    fn look_for_overdue(&mut self) -> Result<(), Failure> {
        let Task {
            timeout, service, ..
        } = self.task;
        if self.judge.may_lose && service == ServiceKind::Echo {
            for i in 0..self.flows.len() {
                let flow = &mut self.flows[i];
                let now = self.judge.now;
                let is_overdue = |message: &&UnderWay| now - message.since > timeout;
                let overdue = flow.under_way.iter().take_while(is_overdue).count();
                if overdue > 0 {
                    flow.forget(overdue);
                    if let Some(due) = &mut self.clients[flow.sender].due {
                        due.number = due.number.max(flow.first);
                    }
                    self.fill(i)?;
                }
            }
            return Ok(());
        }
        if self.is_done() || self.judge.now - self.last <= timeout {
            return Ok(());
        }
        let span = humantime::format_duration(timeout);
        Err(self.clients[0].conn.failure(match service {
            ServiceKind::Collect | ServiceKind::Control => {
                format!("the server has read nothing for {span}")
            }
            _ => format!("nothing has come for {span}, and messages are under way"),
        }))
    }

    /// Where nothing comes back, waits until the server has read everything and has closed after our end.
    fn finish(&mut self, stop: &UnixStream) -> Result<(), Failure> {
        let timeout = self.task.timeout;
        if self.task.service != ServiceKind::Collect {
            return Ok(());
        }
        for Client { conn, messages, .. } in &mut self.clients {
            // Datagrams that the kernel has taken stay with the server.
            if !conn.has_end() {
                continue;
            }
            let deadline = Instant::now() + timeout;
            let wait = |wanted, until| {
                let mut fds = [
                    PollFd::new(&conn.socket, wanted),
                    PollFd::new(stop, PollFlags::IN),
                ];
                until_any(&mut fds, Some(until))?;
                match fds[1].revents().is_empty() {
                    true => Ok(fds[0].revents()),
                    false => Err(interrupted()),
                }
            };
            if !settle(conn, Some(deadline), |until| {
                wait(PollFlags::empty(), until)
            })? {
                conn.ended()?;
            }
            // A server that has gone needs no telling.
            let _ = conn.socket.shutdown(Shutdown::Write);
            while !messages.has_ended() {
                if wait(PollFlags::IN, deadline)?.is_empty() {
                    return Err(conn.late());
                }
                conn.receive(messages)?;
                messages.forget();
            }
        }
        self.last = Instant::now();
        Ok(())
    }
}

fn interrupted() -> Failure {
    Failure::Told("interrupted before the end of what was under way".into())
}
