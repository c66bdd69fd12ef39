//! `exit-on-idle`: since when nobody is here and nothing is left to do, and the stop that follows.
//!
//! Only where the manager keeps every socket: who connects or sends between the last look and the end
//! of the process waits in the kernel, the manager sees it there and starts udsd again. Nothing that
//! was accepted, received or taken into a record may be left at that moment, so all of it counts.

use std::time::{Duration, Instant};

use log::info;
use mio::Events;

use super::{LISTENERS, Server};
use crate::hub::Now;

/// Counts the time without clients and work.
#[derive(Debug)]
pub(super) struct Idle {
    span: Duration,
    /// `None` while there is something to do.
    since: Option<Instant>,
}

impl Server {
    /// `exit-on-idle` as it is now.
    pub(super) fn exit_on_idle(&self) -> Option<Duration> {
        self.idle.as_ref().map(|idle| idle.span)
    }

    /// The same, from now on: stops as for SIGTERM once there has been nothing to do for `span`. `None`: never.
    pub(super) fn set_exit_on_idle(&mut self, span: Option<Duration>) {
        self.idle = span.filter(|_| !self.stays).map(|span| Idle {
            span,
            since: Some(Instant::now()),
        });
    }

    /// It does not end when it is idle, whatever a file says: the manager no longer has one of its
    /// sockets, and would start nobody for who comes there. Returns whether it would have ended.
    pub fn stay(&mut self) -> bool {
        self.stays = true;
        self.idle.take().is_some()
    }

    /// When the time without anything to do is over.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        let idle = self.idle.as_ref().filter(|_| self.stop.is_none())?;
        Some(idle.since? + idle.span)
    }

    /// Whether the end of writing is awaited only to be idle after it: no client waits for it.
    pub(super) fn awaits_idleness(&self) -> bool {
        self.idle.is_some() && self.hub.present() == 0
    }

    /// Begins a turn that `events` brought: returns whether somebody connected, sent or left. Where
    /// the time is over, this turn accepts and receives once more on every socket.
    pub(super) fn look_around(&mut self, events: &Events, now: Now) -> bool {
        if self.idle.is_none() {
            return false;
        }
        let mut came = events.iter().any(|event| event.token().0 >= LISTENERS);
        if self.idle_is_over(now) {
            self.listeners.expect();
            came |= self.datagrams.receive(&mut self.hub, now);
            self.stale |= came;
        }
        came
    }

    /// Ends a turn: notes whether anything is left to do, and begins the stop where nothing was for
    /// long enough. `came`: as `look_around` said.
    pub(super) fn stop_if_idle(&mut self, came: bool, now: Now) {
        let is_idle = self.idle.is_some() && self.is_idle();
        let Some(Idle { span, since }) = &mut self.idle else {
            return;
        };
        let span = *span;
        *since = match *since {
            _ if !is_idle => None,
            Some(since) if !came => Some(since),
            _ => Some(now.instant),
        };
        if self.idle_is_over(now) {
            info!("idle for {span:?} (exit-on-idle): whoever comes next starts udsd again");
            self.begin_stop(now);
        }
    }

    fn idle_is_over(&self, now: Now) -> bool {
        self.idle_until().is_some_and(|until| until <= now.instant)
    }

    /// No client, nobody who may wait at a listener, no datagram or record under way.
    fn is_idle(&mut self) -> bool {
        self.hub.present() == 0
            && !self.hub.has_ready()
            // Replies to datagrams that wait, and receiving that rests.
            && self.hub.deadline().is_none()
            && self.hub.undelivered() == 0
            && !self.listeners.is_pending()
            && self.listeners.rest().is_none()
            && self.hub.records().all(|record| record.unwritten() == 0)
            && self.parting.is_empty()
            && self.writers.iter().all(|(_, writer)| writer.is_open())
    }
}
