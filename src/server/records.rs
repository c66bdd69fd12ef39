//! Records whose files are not as they should be: moved away by others, or not to be had at all. One that is
//! not open costs its own socket: whoever sends there waits, as for a full disk (after a restart once its
//! queue is full, since lines may have come along), and its thread tries again.

use log::info;

use super::Server;

impl Server {
    /// Each record whose file is no longer at its path is begun anew there, by its thread; where it could
    /// not be opened, that is tried now.
    pub(super) fn reopen_records(&mut self) {
        info!("SIGUSR1: looking whether records were moved away");
        for (_, writer) in self.places.writers() {
            writer.request_check();
        }
    }

    /// What the status says of records that are not open.
    pub(super) fn unopened_records(&self) -> Option<String> {
        let closed = self.places.writers();
        let closed = closed.filter(|(_, writer)| !writer.is_open());
        let mut names = closed.map(|(key, _)| self.hub.sockets()[key].name());
        let first = names.next()?;
        let more = match names.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("record of {first}{more} not open, senders wait"))
    }
}
