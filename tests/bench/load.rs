//! Loads: what the clients of a measured server do, the same for every server.
//!
//! Each is driven by the benchmark's own process. A run begins and ends with nothing under way, so
//! the messages counted are exactly those that the server spent its CPU time on.

mod echo;
mod fan_out;
mod flood;
mod pour;
mod store;

pub(crate) use echo::Echo;
pub(crate) use fan_out::{FanOut, Wire};
pub(crate) use flood::Flood;
pub(crate) use pour::{Pour, TURN};
pub(crate) use store::Store;

use crate::setup::Outcome;
use rustix::event::Timespec;
use std::time::Duration;

/// No progress for so long is an error.
const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};
/// As large as the daemon's own read buffer; what a flood writes at once.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Clients of one server.
pub(crate) trait Load {
    /// Keeps the server at work for `span` at least, and waits until all of it is done.
    fn run(&mut self, span: Duration) -> Outcome<Window>;
}

/// What was measured while a load ran.
#[derive(Default)]
pub(crate) struct Window {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    /// Of round trips, where the load makes any.
    pub(crate) p99: Duration,
    /// Of the server: for its observer to fill in.
    pub(crate) cpu: Duration,
}
