//! The hub without sockets: streams in memory, a simulated clock. Random schedules over the same world
//! are `tests/simulation.rs`.
//!
//! A `Wire` behaves as a Unix stream under edge-triggered epoll does: an event comes when something
//! changes and never again, a short read means empty unless control data, urgent data or the end
//! stopped it, room to write is told only where it is watched for. So work that the hub forgets
//! stays undone here, as it would in the daemon.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a failed unwrap is a failed test; nobody imports a test"
)]

mod access;
mod collect;
mod control;
mod damage;
mod datagrams;
mod echo;
mod ends;
mod fairness;
mod held_up;
mod limits;
mod packets;
mod park;
mod quotas;
mod reasons;
mod relay;
mod reload;
mod shared_record;
mod slow_clients;
mod time;
#[allow(dead_code, reason = "shared with tests/simulation.rs")]
mod world;
