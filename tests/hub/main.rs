//! The hub without sockets: streams in memory, a simulated clock, random schedules.
//!
//! A `Wire` behaves as a Unix stream under edge-triggered epoll does: an event comes when something
//! changes and never again, a short read means empty unless control data, urgent data or the end
//! stopped it, room to write is told only where it is watched for. So work that the hub forgets
//! stays undone here, as it would in the daemon.
//!
//! `UDSD_TEST_SEED=N cargo test --test hub` replays the one schedule that failed.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a failed unwrap is a failed test; nobody imports a test"
)]

mod access;
mod collect;
mod datagrams;
mod echo;
mod ends;
mod fairness;
mod held_up;
mod limits;
mod packets;
mod quotas;
mod relay;
mod schedules;
mod slow_clients;
mod time;
mod world;
