//! One timer for the event loop's next deadline.
//!
//! A timeout given to `epoll_wait` sets and cancels a kernel timer at every turn; `timerfd_create(2)`
//! keeps one, which is set again only when the deadline comes nearer or has passed.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Becomes readable, on an edge, no later than it was asked to; perhaps earlier.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    due: Option<Instant>,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// Those of `timerfd_create(2)`.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Timer {
            fd: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            due: None,
        })
    }

    /// Asks for an edge at `due`, or at an earlier time that was asked for before.
    ///
    /// # Errors
    /// Those of `timerfd_settime(2)`.
    pub fn set(&mut self, due: Instant, now: Instant) -> io::Result<()> {
        if self.due.is_some_and(|set| set <= due) {
            return Ok(());
        }
        // Zero would mean never.
        let span = due
            .saturating_duration_since(now)
            .max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        };
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.due = Some(due);
        Ok(())
    }

    /// It has expired.
    pub fn expired(&mut self) {
        self.due = None;
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
