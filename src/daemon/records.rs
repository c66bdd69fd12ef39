//! Records that cannot be opened: each costs its own socket, and its thread tries again.

use std::sync::Arc;

use ::log::error;

use super::report;
use crate::{config::Config, error::Fatal, lock::Lock, server::Server};

/// Goes on without a record, where others can be served meanwhile.
///
/// # Errors
/// `fatal`, where nobody could.
pub(super) fn bear(config: &Config, fatal: Fatal) -> Result<(), Fatal> {
    if config.sockets.len() < 2 {
        return Err(fatal);
    }
    note_closed(&fatal);
    Ok(())
}

/// Says why a record cannot be opened, and what follows.
pub(super) fn note_closed(fatal: &Fatal) {
    // The exit code is that of a start.
    let _ = report(fatal);
    error!(
        "until that is mended, who sends there waits, and the others are served; it is tried again, at least every minute"
    );
}

/// The locks of the records that this process writes.
pub(super) fn held(server: &Server) -> Vec<Arc<Lock>> {
    let all = server.writers().iter();
    all.filter_map(|(_, writer)| writer.lock()).collect()
}
