//! Clients whose messages are packets: seqpackets, echoed with their boundaries, and datagrams, echoed
//! to the address of their sender.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::{self, SocketAddrUnix, SocketType};

use super::{
    talk::{Conversation, Lost, Phase, Standing, Step, Turn},
    wire,
    words::{Voice, difference, shown},
};

/// Answers that are due at most.
const DUE: u64 = 8;
/// Of those that make the daemon hold answers: more than the kernel's buffers take, 212,992 bytes. A
/// packet has 1500 on the average.
const DUE_HELD: u64 = 300;
/// The same of datagrams: more than `net.unix.max_dgram_qlen`, which systemd raises to 512.
const DUE_DATAGRAMS: u64 = 700;

#[derive(Debug)]
pub(crate) struct PacketClient {
    voice: Voice,
    fd: OwnedFd,
    /// Of a datagram socket: the daemon's address, and its own, removed at the end. It is not connected:
    /// what comes from a peer has no limit but the peer's send buffer (`unix_dgram_sendmsg()` of
    /// net/unix/af_unix.c), and the daemon would have to hold nothing.
    address: Option<(SocketAddrUnix, PathBuf)>,
    /// Answers that it leaves due at most.
    due: u64,
    sent: u64,
    heard: u64,
    late_until: Option<Instant>,
    half_closed: bool,
}

impl PacketClient {
    /// Of a seqpacket socket. Who `holds` makes the daemon hold answers.
    pub(crate) fn connected(voice: Voice, fd: OwnedFd, holds: bool) -> Self {
        PacketClient {
            voice,
            fd,
            address: None,
            due: if holds { DUE_HELD } else { DUE },
            sent: 0,
            heard: 0,
            late_until: None,
            half_closed: false,
        }
    }

    /// Of a datagram socket, with the address `own`, to which everybody may send.
    pub(crate) fn bound(voice: Voice, socket: &Path, own: PathBuf) -> Result<Self, String> {
        let bind = || -> Result<(OwnedFd, SocketAddrUnix), std::io::Error> {
            let fd = wire::unconnected(SocketType::DGRAM)?;
            net::bind(&fd, &SocketAddrUnix::new(&own)?)?;
            fs::set_permissions(&own, fs::Permissions::from_mode(0o777))?;
            Ok((fd, SocketAddrUnix::new(socket)?))
        };
        let (fd, daemon) = bind().map_err(|error| format!("{}: {error}", own.display()))?;
        let mut client = PacketClient::connected(voice, fd, true);
        client.address = Some((daemon, own));
        client.due = DUE_DATAGRAMS;
        Ok(client)
    }

    /// Whether it went out.
    fn send(&mut self) -> Result<bool, Lost> {
        let packet = self.voice.message(self.sent);
        let taken = match &self.address {
            Some((daemon, _)) => wire::send_to(&self.fd, &packet, daemon),
            None => wire::write(&self.fd, &packet),
        };
        let taken = taken.map_err(|error| Lost::error("send", error, self.situation()))?;
        self.sent += u64::from(taken.is_some());
        Ok(taken.is_some())
    }

    /// Whether a packet came. An empty one reads like the end, also where one is due: but then the
    /// next is not empty, and the end is seen there.
    fn read(&mut self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        let Some(length) = wire::read(&self.fd, turn.buffer)
            .map_err(|error| Lost::error("receive", error, self.situation()))?
        else {
            return Ok(false);
        };
        let expected = self.voice.message(self.heard);
        let due = self.heard < self.sent;
        if length == 0 && self.address.is_none() && (!due || !expected.is_empty()) {
            return Err(Lost::Ended(format!("end of file; {}", self.situation())));
        }
        let came = &turn.buffer[..length];
        if !due || came != expected {
            return Err(Lost::Wrong(format!(
                "packet {}: {}; {}",
                self.heard,
                difference(&expected, came),
                self.situation()
            )));
        }
        self.heard += 1;
        Ok(true)
    }

    fn talk(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let holds = self.due > DUE;
        let (mut read, mut send) = (turn.random.within(1, 4), turn.random.within(1, 3));
        if holds {
            (read, send) = (usize::MAX, usize::MAX);
        }
        if self.late_until.is_none_or(|until| turn.now >= until) {
            self.late_until = None;
            while read > 0 && self.read(turn)? {
                read -= 1;
            }
            if turn.random.one_in(8) {
                let late = Duration::from_millis(turn.random.within(300, 1500) as u64);
                self.late_until = Some(turn.now + late);
            } else if holds {
                send = 3;
            }
        }
        while send > 0 && self.sent - self.heard < self.due && self.send()? {
            send -= 1;
        }
        let most = if holds { 60 } else { 300 };
        let pause = turn.random.within(most / 3, most) as u64;
        Ok(Step::After(Duration::from_millis(pause)))
    }

    fn until_end(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        loop {
            if self.heard == self.sent {
                // No packet is due, so that an empty read is the end.
                return match wire::read(&self.fd, turn.buffer) {
                    Ok(Some(0)) => Ok(Step::Done),
                    Ok(None) => Ok(Step::After(Duration::from_millis(20))),
                    Ok(Some(length)) => Err(Lost::Wrong(format!(
                        "after all its answers came {}",
                        shown(&turn.buffer[..length])
                    ))),
                    Err(error) => Err(Lost::error("receive", error, self.situation())),
                };
            }
            if !self.read(turn)? {
                return Ok(Step::After(Duration::from_millis(20)));
            }
        }
    }

    /// Whether all answers are there, the last of them not an empty one.
    fn caught_up(&mut self, turn: &mut Turn<'_>) -> Result<bool, Lost> {
        if self.sent > 0 && self.voice.message(self.sent - 1).is_empty() && !self.send()? {
            return Ok(false);
        }
        while self.heard < self.sent {
            if !self.read(turn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        let soon = Step::After(Duration::from_millis(20));
        if self.address.is_some() {
            return Ok(if self.caught_up(turn)? {
                Step::Done
            } else {
                soon
            });
        }
        if !self.half_closed {
            if self.voice.message(self.sent - 1).is_empty() && !self.send()? {
                return Ok(soon);
            }
            wire::half_close(&self.fd)
                .map_err(|error| Lost::error("shutdown", error, self.situation()))?;
            self.half_closed = true;
        }
        self.until_end(turn)
    }
}

impl Drop for PacketClient {
    fn drop(&mut self) {
        if let Some((_, own)) = &self.address {
            // Nothing to be done about it here; the lab goes anyway.
            let _ = fs::remove_file(own);
        }
    }
}

impl Conversation for PacketClient {
    fn name(&self) -> String {
        format!("{}: {}", self.sort(), self.voice)
    }

    fn sort(&self) -> &'static str {
        match self.address {
            Some(_) => "datagrams",
            None => "seqpackets",
        }
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Result<Step, Lost> {
        match turn.phase {
            Phase::Talk | Phase::Ending => self.talk(turn),
            Phase::Settle => Ok(if self.caught_up(turn)? {
                Step::Settled
            } else {
                Step::After(Duration::from_millis(20))
            }),
            // Datagrams have no end that could be seen.
            Phase::Owed | Phase::Ended if self.address.is_some() => Ok(Step::Done),
            Phase::Owed => self.until_end(turn),
            Phase::Ended => {
                while self.read(turn)? {}
                Ok(Step::After(Duration::from_millis(20)))
            }
            Phase::Finish => self.finish(turn),
        }
    }

    fn progress(&self) -> u64 {
        self.sent + self.heard + u64::from(self.half_closed)
    }

    fn standing(&self) -> Standing {
        Standing {
            half_sent: false,
            unread: self.heard < self.sent,
            late: self.late_until.is_some(),
        }
    }

    fn situation(&self) -> String {
        format!("sent {} packets, heard {}", self.sent, self.heard)
    }
}
