//! udsd: the message daemon for the local services of one machine.
//!
//! The library holds everything; the binaries are thin. Modules stand on floors, and each imports
//! only from lower ones (`tests/floors.rs` keeps it so).

pub mod access;
pub mod control;
pub mod counters;
pub mod datagram_header;
pub mod error;
pub mod frame;
pub mod limits;
pub mod message_batch;
pub mod peer;
pub mod queue;
pub mod rfc3339;
pub mod round_robin;
pub mod serde_base64;
pub mod throttle;
pub mod unit;

pub mod cgroups;
pub mod closer;
pub mod config;
pub mod lock;
pub mod memory;
pub mod parking;
pub mod record;
pub mod sys;
pub mod sysctl;
pub mod systemd;
pub mod timer;

pub mod client_socket;
pub mod connection;
pub mod datagram;
pub mod datagram_socket;
pub mod endpoint;
pub mod handover;
pub mod handover_state;
pub mod hub;
pub mod input;
pub mod service;
pub mod users;

pub mod server;

pub mod daemon;
pub mod generator;
pub mod udsc;
