//! What each signal means. Whatever ends a process by default and does not tell of a fault of its own
//! is handled, so that none ends the daemon by accident (`signal(7)`).
//!
//! Left alone are those of a fault (SIGABRT, which the manager's watchdog sends for a core dump, too),
//! those of job control, and those that do nothing by default. SIGPIPE is ignored by Rust's runtime.

use std::io;

use log::warn;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
    SIGXCPU, SIGXFSZ,
};
use signal_hook_mio::v1_0::Signals;

use super::{Phase, Server};
use crate::{
    hub::Now,
    sys::{self, SIGPWR, SIGSTKFLT},
};

/// Each of these does something.
const MEANINGFUL: [i32; 8] = [
    SIGTERM, SIGINT, SIGQUIT, SIGPWR, SIGXCPU, SIGHUP, SIGUSR1, SIGUSR2,
];
/// None of these does, nor do the real-time signals. A write over the limit of a file's size says so
/// by itself (EFBIG).
const MEANINGLESS: [i32; 6] = [SIGXFSZ, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT];

/// The signals that the daemon handles; to be installed before anything that takes time.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn signals() -> io::Result<Signals> {
    let signals = Signals::new(MEANINGFUL)?;
    for signal in MEANINGLESS.into_iter().chain(sys::real_time_signals()) {
        // One that cannot be had, as valgrind keeps one for itself, is no reason not to serve.
        let _ = signals.add_signal(signal);
    }
    Ok(signals)
}

impl Server {
    pub(super) fn take_signals(&mut self, now: Now) {
        for signal in self.signals.pending().collect::<Vec<_>>() {
            match signal {
                SIGHUP if matches!(self.phase, Phase::Serving) => self.phase = Phase::Reloading,
                SIGUSR1 => self.reopen_records(),
                // It comes again for each second that the stop takes.
                SIGXCPU if !self.stops() => {
                    warn!(
                        "SIGXCPU: the limit of processor time is reached (RLIMIT_CPU, LimitCPU=)"
                    );
                    self.begin_stop(now);
                }
                SIGTERM | SIGINT | SIGQUIT | SIGPWR | SIGUSR2 => match &mut self.phase {
                    Phase::Stopping { at_once, .. } => *at_once = true,
                    _ if signal == SIGUSR2 => self.begin_handover(now),
                    _ => self.begin_stop(now),
                },
                _ => {}
            }
        }
    }
}
