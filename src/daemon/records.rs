//! What becomes of each record when a file comes into force. A record that cannot be opened stops only its own
//! socket, and its thread tries again.

use std::sync::Arc;

use ::log::error;

use super::log_fault;
use crate::{
    config::{self, Config},
    error::Faults,
    lock::Lock,
    record::{Encoder, Found, NotOpen, OpenError, Output, OutputConfig, Record, Rotation, Writer},
    server::{PlannedWriter, Server},
    systemd,
};

/// Logs why a record cannot be opened, and what follows.
pub(super) fn note_not_open(fault: &Faults) {
    log_fault(fault);
    error!(
        "until that is mended, clients that send there wait, and the others are served; it is tried again, at least every minute"
    );
}

/// The record of a socket, if it is to have one, and what writes it.
type Planned = (Option<Record>, PlannedWriter);

/// A record's file that is still at its path stays open, also where another socket writes it from now on: two
/// threads would mix their lines. A record that could not be opened so far is left to its thread, so that the
/// rest of the file comes into force; where `is_lenient`, one that cannot be opened now as well.
pub(super) fn plan(
    server: &Server,
    config: &Config,
    is_lenient: bool,
) -> Result<Vec<Planned>, Faults> {
    let mut writers = Writers {
        server,
        left: server.writers().collect(),
    };
    // First the records that stay, so that no other takes their writers.
    let kept: Vec<_> = config.sockets.iter().map(|of| writers.keep(of)).collect();
    let all = config.sockets.iter().zip(kept);
    let planned = all.map(|(socket, kept)| {
        let Some(keys) = &socket.record else {
            return Ok((None, PlannedWriter::None));
        };
        let Some((of, writer)) = kept else {
            let (record, writer) = writers.open(config, socket, keys, is_lenient)?;
            return Ok((Some(record), writer));
        };
        let not_open = || NotOpen {
            config: output_config(socket, keys),
            why: String::new(),
        };
        let output = (!writer.is_open()).then(|| Err(not_open()));
        Ok((
            Some(new_record(socket, keys, Found::default())),
            PlannedWriter::Kept { of, output },
        ))
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
        let file = socket.record.as_ref()?.file.as_deref();
        let own = self.server.key(&socket.name);
        // Standard output may have several.
        self.take(&|of, writer| writer.writes_to(file) && (file.is_some() || Some(of) == own))
    }

    /// Opens the output of a record that moves or is new.
    fn open(
        &mut self,
        config: &Config,
        socket: &config::Socket,
        keys: &config::Record,
        is_lenient: bool,
    ) -> Result<(Record, PlannedWriter), Faults> {
        let key = self.server.key(&socket.name);
        let before = self.take(&|of, _| Some(of) == key);
        if let Some((_, writer)) = before
            && writer.has_too_many_moves()
        {
            return Err(Faults::System(format!(
                "record {}: the lines of several reloads still wait to be written",
                writer.name
            )));
        }
        let mut others = self.server.writers().map(|(_, writer)| writer);
        let file = keys.file.as_deref();
        // Another record has this file, by another path: one that no record has any more was kept before this.
        if others.any(|writer| writer.lock().is_some() && writer.writes_to(file)) {
            let name = output_config(socket, keys).name();
            return Err(unwritable(config, socket, &name, OpenError::Own));
        }
        let is_draining = self.server.is_draining();
        // A new record waits for all lines that are still to be written to its file. One that moves shares the
        // file with them, as where two records change places.
        let all = self.server.writers();
        let usable = all.filter(|(_, writer)| before.is_some() || writer.unwritten() == 0);
        let held: Vec<_> = usable.filter_map(|(_, writer)| writer.lock()).collect();
        let output = match (open(socket, keys, &held), before) {
            (Ok(output), _) => Ok(output),
            (Err((mut not_open, OpenError::Own)), None) if is_draining => {
                // The log has nothing of it, unless it takes long.
                not_open.why = String::new();
                Err(not_open)
            }
            (Err((not_open, OpenError::Own)), Some(_)) if is_draining => {
                return Err(Faults::System(format!(
                    "record {}: lines of an earlier reload still wait to be written to it: reload again once they are",
                    not_open.config.name()
                )));
            }
            (Err((not_open, why)), _) => {
                let fault = unwritable(config, socket, &not_open.config.name(), why);
                if !is_lenient {
                    return Err(fault);
                }
                note_not_open(&fault);
                Err(not_open)
            }
        };
        let mut record = new_record(socket, keys, found(&output));
        let writer = match before {
            Some((of, _)) => PlannedWriter::Kept {
                of,
                output: Some(output),
            },
            None => {
                if output.is_err() {
                    // The number of its last line is not known yet.
                    record.await_open();
                }
                PlannedWriter::New(self.server.start_writer(output)?)
            }
        };
        Ok((record, writer))
    }
}

/// Opens the output of the record of `socket`, or says why it is not open. `held`: the locks of the records that
/// this process writes.
pub(super) fn open(
    socket: &config::Socket,
    keys: &config::Record,
    held: &[Arc<Lock>],
) -> Result<Output, (NotOpen, OpenError)> {
    let config = output_config(socket, keys);
    Output::open(&config, held).map_err(|error| {
        let why = error.to_string();
        (NotOpen { config, why }, error)
    })
}

fn output_config(socket: &config::Socket, keys: &config::Record) -> OutputConfig {
    OutputConfig {
        file: keys.file.clone(),
        mode: keys.mode,
        search: keys.format.search(keys.parse, socket.message_size),
    }
}

/// The record of `socket`, which goes on as was `found`.
pub(super) fn new_record(socket: &config::Socket, keys: &config::Record, found: Found) -> Record {
    let journal = keys.file.is_none() && systemd::is_journal(std::io::stdout());
    let mut encoder = Encoder::new(keys.format, journal, &socket.name);
    encoder.set_parse(keys.parse);
    let mut record = Record::new(encoder, keys.queue_size, found.last_seq);
    let rotation = Rotation {
        size: keys.rotate_size,
        age: keys.rotate_age,
        keep: keys.keep,
    };
    record.rotate(rotation, found.segment);
    record.set_on_full(keys.on_full);
    record.set_sync(keys.sync);
    record
}

/// What was found there, where it is open.
pub(super) fn found(output: &Result<Output, NotOpen>) -> Found {
    output
        .as_ref()
        .map_or(Found::default(), |output| output.found)
}

pub(super) fn unwritable(
    config: &Config,
    socket: &config::Socket,
    record: &str,
    why: OpenError,
) -> Faults {
    match why {
        OpenError::Failed(source) => Faults::System(format!("record {record}: {source}")),
        OpenError::Refused(_) | OpenError::Own => {
            let key = format!("socket.{}.record.file", socket.name);
            let fault = config.fault(&key, format!("cannot write {record}: {why}"));
            fault.into()
        }
    }
}
