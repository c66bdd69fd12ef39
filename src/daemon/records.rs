//! What becomes of the records when a file comes into force. One that cannot be opened costs its own socket,
//! and its thread tries again.

use std::sync::Arc;

use ::log::error;

use super::log_fault;
use crate::{
    config::{self, Config},
    error::Faults,
    lock::Lock,
    record::{Encoder, NotOpen, OpenError, Output, OutputConfig, Record, Writer},
    server::{PlannedRecord, Server},
    systemd,
};

/// Whether a socket is to be had whose record cannot be written.
pub(super) type Tolerate<'a> = &'a dyn Fn(Faults) -> Result<(), Faults>;

/// Goes on without a record, where others can be served meanwhile.
///
/// # Errors
/// `fault`, where nobody could.
pub(super) fn tolerate(config: &Config, fault: Faults) -> Result<(), Faults> {
    if config.sockets.len() < 2 {
        return Err(fault);
    }
    note_not_open(&fault);
    Ok(())
}

/// Says why a record cannot be opened, and what follows.
pub(super) fn note_not_open(fault: &Faults) {
    log_fault(fault);
    error!(
        "until that is mended, who sends there waits, and the others are served; it is tried again, at least every minute"
    );
}

/// A file that is still the one at its path stays open, whichever socket writes it from now on: two threads
/// would mix their lines. One that could not be opened so far is left to its thread: the rest of the file is
/// in force meanwhile.
pub(super) fn plan(
    server: &Server,
    config: &Config,
    tolerate: Tolerate<'_>,
) -> Result<Vec<PlannedRecord>, Faults> {
    let mut writers = Writers {
        server,
        left: server.writers().collect(),
    };
    // First all that stay: the others may not take theirs.
    let kept: Vec<_> = config.sockets.iter().map(|of| writers.keep(of)).collect();
    let all = config.sockets.iter().zip(kept);
    let planned = all.map(|(socket, kept)| match (&socket.record, kept) {
        (None, _) => Ok(PlannedRecord::None),
        (Some(keys), Some((of, writer))) => {
            let waits = writer.waits_for(keys.file.as_deref());
            let not_open = || NotOpen {
                config: output_config(socket, keys),
                why: String::new(),
            };
            Ok(PlannedRecord::Kept {
                of,
                encoder: encoder(socket, keys),
                queue_size: keys.queue_size,
                output: waits.then(|| Err(not_open())),
            })
        }
        (Some(keys), None) => writers.open(config, socket, keys, tolerate),
    });
    planned.collect()
}

/// The writers of the records that are in force.
struct Writers<'a> {
    server: &'a Server,
    /// Those that nobody has taken yet, with the numbers of their sockets.
    left: Vec<(usize, &'a Writer)>,
}

impl<'a> Writers<'a> {
    /// The first that fits, with the number of its socket; it is not to be had again.
    fn take(&mut self, fits: &dyn Fn(usize, &Writer) -> bool) -> Option<(usize, &'a Writer)> {
        let mut all = self.left.iter();
        let found = all.position(|(of, writer)| fits(*of, writer))?;
        Some(self.left.remove(found))
    }

    /// The one that writes already where the record of `socket` is to go, or tries to.
    fn keep(&mut self, socket: &config::Socket) -> Option<(usize, &'a Writer)> {
        let place = self.server.place(&socket.name);
        let Some(path) = &socket.record.as_ref()?.file else {
            return self.take(&|of, writer| {
                Some(of) == place && (writer.is_standard_output() || writer.waits_for(None))
            });
        };
        let waiting = self.take(&|_, writer| writer.waits_for(Some(path)));
        waiting.or_else(|| {
            let there = Output::at(path)?;
            self.take(&|_, writer| writer.file() == Some(there))
        })
    }

    /// A record that goes on elsewhere, or is new.
    fn open(
        &mut self,
        config: &Config,
        socket: &config::Socket,
        keys: &config::Record,
        tolerate: Tolerate<'_>,
    ) -> Result<PlannedRecord, Faults> {
        let all = self.server.writers();
        let held: Vec<_> = all.filter_map(|(_, writer)| writer.lock()).collect();
        let (encoder, queue_size) = (encoder(socket, keys), keys.queue_size);
        let output = open(config, socket, keys, &held, tolerate)?;
        let place = self.server.place(&socket.name);
        match self.take(&|of, _| Some(of) == place) {
            Some((_, writer)) if writer.has_too_many_moves() => Err(Faults::Record {
                record: writer.name.clone(),
                source: std::io::Error::other(
                    "the lines of several reloads still wait to be written",
                ),
            }),
            Some((of, _)) => Ok(PlannedRecord::Kept {
                of,
                encoder,
                queue_size,
                output: Some(output),
            }),
            None => {
                let seq = output.as_ref().map_or(0, |output| output.last_seq);
                let mut record = Record::new(encoder, queue_size, seq);
                if output.is_err() {
                    // The number of its last line is not known.
                    record.await_open();
                }
                let writer = self.server.start_writer(output)?;
                Ok(PlannedRecord::New(writer, record))
            }
        }
    }
}

/// Opens where the record of `socket` is to go. `held`: the locks of those that this process writes.
pub(super) fn open(
    config: &Config,
    socket: &config::Socket,
    keys: &config::Record,
    held: &[Arc<Lock>],
    tolerate: Tolerate<'_>,
) -> Result<Result<Output, NotOpen>, Faults> {
    let output = output_config(socket, keys);
    match output.open(held) {
        Ok(output) => Ok(Ok(output)),
        Err(failed) => {
            let why = failed.to_string();
            tolerate(unwritable(config, socket, output.name(), failed))?;
            Ok(Err(NotOpen {
                config: output,
                why,
            }))
        }
    }
}

fn output_config(socket: &config::Socket, keys: &config::Record) -> OutputConfig {
    OutputConfig {
        file: keys.file.clone(),
        mode: keys.mode,
        search: keys.format.search(socket.message_size),
    }
}

/// What makes the lines of the record of `socket`.
pub(super) fn encoder(socket: &config::Socket, keys: &config::Record) -> Encoder {
    let journal = keys.file.is_none() && systemd::is_journal(std::io::stdout());
    Encoder::new(keys.format, journal, &socket.name)
}

pub(super) fn unwritable(
    config: &Config,
    socket: &config::Socket,
    record: String,
    why: OpenError,
) -> Faults {
    match why {
        OpenError::Refused(fault) => {
            let key = format!("socket.{}.record.file", socket.name);
            let fault = config.fault(&key, format!("cannot write {record}: {fault}"));
            fault.into()
        }
        OpenError::Failed(source) => Faults::Record { record, source },
    }
}
