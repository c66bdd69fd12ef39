//! udsd: the message daemon for the local services of one machine.
//!
//! The library holds everything; the binaries are thin. Modules stand on floors, and each imports
//! only from lower ones (`tests/floors.rs` keeps it so).

pub mod error;
pub mod frame;
pub mod peer;

pub mod config;
