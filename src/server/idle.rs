//! `exit-on-idle`: since when nobody is here and nothing is left to do, and the stop that follows.
//!
//! Only where the manager keeps every socket: who connects or sends between the last look and the end
//! of the process waits in the kernel, the manager sees it there and starts udsd again. Nothing that
//! was accepted, received or taken into a record may be left at that moment, so all of it counts.

use std::{
    mem,
    time::{Duration, Instant},
};

use log::info;
use mio::{Events, Token};

use super::{CLIENTS, SOCKETS, Server};
use crate::hub::{Now, Socket};

/// `exit-on-idle`.
#[derive(Debug)]
pub(super) enum Idle {
    /// No file says so.
    Never,
    /// It does not apply to this process, whatever a file says.
    Barred,
    /// After so long; since when there is nothing to do, if there is nothing.
    After(Duration, Option<Instant>),
}

impl Server {
    /// `exit-on-idle`, from now on: stops as for SIGTERM once there has been nothing to do for `span`.
    /// `None`: never. Where it is as before, the time goes on.
    pub(super) fn set_exit_on_idle(&mut self, span: Option<Duration>) {
        self.idle = match (&self.idle, span) {
            (Idle::Barred, _) => Idle::Barred,
            (_, None) => Idle::Never,
            (Idle::After(before, since), Some(span)) if *before == span => {
                Idle::After(span, *since)
            }
            (_, Some(span)) => Idle::After(span, Some(Instant::now())),
        };
    }

    /// It does not end when it is idle, whatever a file says: the manager no longer has one of its
    /// sockets, and would start nobody for who comes there. Returns whether it would have ended.
    pub fn stay(&mut self) -> bool {
        let before = mem::replace(&mut self.idle, Idle::Barred);
        matches!(before, Idle::After(..))
    }

    /// When the time without anything to do is over.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        match self.idle {
            Idle::After(span, Some(since)) if !self.stops() => Some(since + span),
            _ => None,
        }
    }

    /// Whether the end of writing is awaited only to be idle after it: no client waits for it.
    pub(super) fn awaits_idleness(&self) -> bool {
        matches!(self.idle, Idle::After(..)) && self.hub.present() == 0
    }

    /// Begins a turn that `events` brought: returns whether somebody connected, sent or left. Where
    /// the time is over, this turn accepts and receives once more on every socket.
    pub(super) fn look_around(&mut self, events: &Events, now: Now) -> bool {
        if !matches!(self.idle, Idle::After(..)) {
            return false;
        }
        let mut came = events.iter().any(|event| self.is_used_by(event.token()));
        if self.idle_is_over(now) {
            self.sockets.expect();
            came |= self.sockets.receive(&mut self.hub, now);
            self.stale |= came;
        }
        came
    }

    /// Ends a turn: notes whether anything is left to do, and begins the stop where nothing was for
    /// long enough. `came`: as `look_around` said.
    pub(super) fn stop_if_idle(&mut self, came: bool, now: Now) {
        let Idle::After(span, since) = self.idle else {
            return;
        };
        let since = match since {
            _ if !self.is_idle() => None,
            Some(since) if !came => Some(since),
            _ => Some(now.instant),
        };
        self.idle = Idle::After(span, since);
        if self.idle_is_over(now) {
            info!("idle for {span:?} (exit-on-idle): whoever comes next starts udsd again");
            self.begin_stop(now);
        }
    }

    /// Whether the event of this token is of a socket of the file: who only asks keeps nobody from being idle.
    fn is_used_by(&self, Token(token): Token) -> bool {
        if token >= CLIENTS {
            !self.hub.is_of_control(token - CLIENTS)
        } else if token >= SOCKETS {
            let socket = self.hub.sockets().get(token - SOCKETS);
            !socket.is_some_and(Socket::is_control)
        } else {
            false
        }
    }

    fn idle_is_over(&self, now: Now) -> bool {
        self.idle_until().is_some_and(|until| until <= now.instant)
    }

    /// No client, nobody who may wait at a listener, no datagram or record under way.
    fn is_idle(&mut self) -> bool {
        self.hub.present() == 0
            && !self.hub.has_turns()
            // Replies to datagrams that wait, and receiving that rests.
            && !self.hub.has_timers()
            && self.hub.undelivered() == 0
            && !self.sockets.is_pending()
            && self.sockets.rest().is_none()
            && self.hub.records().all(|record| record.unwritten() == 0)
            && self.draining.is_empty()
            && self.sockets.writers().all(|(_, writer)| writer.is_open())
    }
}
