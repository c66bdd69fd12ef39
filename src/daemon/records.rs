//! Records that cannot be opened: each costs its own socket, unless that is the only one, and is tried
//! again.

use std::{sync::Arc, time::Instant};

use ::log::{debug, error};

use super::{open_record, report};
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
        "until that is mended, who sends there waits, and the others are served; it is tried again every second"
    );
}

/// Tries to open what could not be opened so far.
pub(super) fn retry(server: &mut Server, config: &Config) {
    for socket in &config.sockets {
        let number = server.place(&socket.name);
        let number = number.filter(|&number| server.lacks_file(number));
        let (Some(number), Some(keys)) = (number, &socket.record) else {
            continue;
        };
        match open_record(config, socket, keys, &held(server)) {
            Ok(target) => {
                if let Err(error) = server.open_record(number, target) {
                    error!("socket {}: its record has no thread: {error}", socket.name);
                }
            }
            Err(fatal) => debug!("{fatal}"),
        }
    }
    server.retry_later(Instant::now());
}

/// The locks of the records that this process writes.
pub(super) fn held(server: &Server) -> Vec<Arc<Lock>> {
    let all = server.writers().iter();
    all.filter_map(|(_, writer)| writer.lock()).collect()
}
