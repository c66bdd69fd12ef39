//! What becomes of each record when a file comes into force. A record that cannot be opened stops only its own
//! socket, and its thread tries again.

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

/// Decides whether the file comes into force without a record that cannot be opened.
pub(super) type Tolerate<'a> = &'a dyn Fn(Faults) -> Result<(), Faults>;

/// Goes on without a record if there are other sockets to serve meanwhile.
///
/// # Errors
/// `fault`, if there are none.
pub(super) fn tolerate(config: &Config, fault: Faults) -> Result<(), Faults> {
    if config.sockets.len() < 2 {
        return Err(fault);
    }
    note_not_open(&fault);
    Ok(())
}

/// Logs why a record cannot be opened, and what follows.
pub(super) fn note_not_open(fault: &Faults) {
    log_fault(fault);
    error!(
        "until that is mended, clients that send there wait, and the others are served; it is tried again, at least every minute"
    );
}

/// A record's file that is still at its path stays open, also where another socket writes it from now on: two
/// threads would mix their lines. A record that could not be opened so far is left to its thread, so that the
/// rest of the file comes into force.
pub(super) fn plan(
    server: &Server,
    config: &Config,
    tolerate: Tolerate<'_>,
) -> Result<Vec<PlannedRecord>, Faults> {
    let mut writers = Writers {
        server,
        left: server.writers().collect(),
    };
    // First the records that stay, so that no other takes their writers.
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
    /// Takes the first that fits, with the number of its socket.
    fn take(&mut self, fits: &dyn Fn(usize, &Writer) -> bool) -> Option<(usize, &'a Writer)> {
        let mut all = self.left.iter();
        let found = all.position(|(of, writer)| fits(*of, writer))?;
        Some(self.left.remove(found))
    }

    /// The writer whose output is already that of the record of `socket`, or that tries to open it.
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

    /// Opens the output of a record that moves or is new.
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
                    // The number of its last line is not known yet.
                    record.await_open();
                }
                let writer = self.server.start_writer(output)?;
                Ok(PlannedRecord::New(writer, record))
            }
        }
    }
}

/// Opens the output of the record of `socket`. `held`: the locks of the records that this process writes.
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
