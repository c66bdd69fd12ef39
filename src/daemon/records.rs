//! What becomes of each record when a file comes into force. A record that cannot be opened stops only its own
//! sockets, and its thread tries again.

use std::sync::Arc;

use ::log::error;

use super::log_fault;
use crate::{
    config::{self, Config},
    error::Faults,
    lock::Lock,
    record::{
        Encoder, Found, NotOpen, OpenError, Output, OutputConfig, Record, Recorder, Rotation,
        Writer,
    },
    server::{PlannedWriter, Server},
    systemd,
};

/// Logs why a record cannot be opened, and what follows.
pub(super) fn note_not_open(fault: &Faults) {
    log_fault(fault);
    error!(
        "until that is mended, clients that send there wait, or their messages are dropped (on-full), and the others are served; it is tried again, at least every minute"
    );
}

/// What a socket has for its record, if it is to have one, and what writes that. Of sockets that share a record, the
/// first has its writer.
type Planned = (Option<Recorder>, PlannedWriter);

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
    let keep = |(i, socket)| match config.shares_record(i) {
        Some(_) => None,
        None => writers.keep(socket),
    };
    let all = config.sockets.iter().enumerate();
    let kept: Vec<_> = all.clone().map(keep).collect();
    let mut planned: Vec<Planned> = Vec::new();
    for ((i, socket), kept) in all.zip(kept) {
        let of_socket = match (&socket.record, config.shares_record(i)) {
            (None, _) => (None, PlannedWriter::None),
            (Some(keys), Some(first)) => {
                let recorder = planned[first].0.as_ref();
                let beside = recorder.map(|of| of.beside(encoder(socket, keys)));
                (beside, PlannedWriter::None)
            }
            (Some(keys), None) => {
                let (record, writer) = match kept {
                    Some((of, writer)) => goes_on(config, (socket, keys), of, writer),
                    None => writers.open(config, socket, keys, is_lenient)?,
                };
                let recorder = Recorder::new(encoder(socket, keys), record);
                (Some(recorder), writer)
            }
        };
        planned.push(of_socket);
    }
    Ok(planned)
}

/// The record that `writer` goes on to write, which is that of the socket with the number `of` so far.
fn goes_on(
    config: &Config,
    (socket, keys): (&config::Socket, &config::Record),
    of: usize,
    writer: &Writer,
) -> (Record, PlannedWriter) {
    let config = output_config(config, socket, keys);
    let not_open = || NotOpen {
        config: config.clone(),
        why: String::new(),
    };
    let output = (!writer.is_open()).then(|| Err(not_open()));
    let record = new_record(keys, Found::default());
    (record, PlannedWriter::Kept { of, config, output })
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
            let name = output_config(config, socket, keys).name();
            return Err(unwritable(config, socket, &name, OpenError::Own));
        }
        let is_draining = self.server.is_draining();
        // A new record waits for all lines that are still to be written to its file. One that moves shares the
        // file with them, as where two records change places.
        let all = self.server.writers();
        let usable = all.filter(|(_, writer)| before.is_some() || writer.unwritten() == 0);
        let held: Vec<_> = usable.filter_map(|(_, writer)| writer.lock()).collect();
        let output = match (open(config, socket, keys, &held), before) {
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
        let mut record = new_record(keys, found(&output));
        let writer = match before {
            Some((of, _)) => PlannedWriter::Kept {
                of,
                config: output_config(config, socket, keys),
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
    of: &Config,
    socket: &config::Socket,
    keys: &config::Record,
    held: &[Arc<Lock>],
) -> Result<Output, (NotOpen, OpenError)> {
    let config = output_config(of, socket, keys);
    Output::open(&config, held).map_err(|error| {
        let why = error.to_string();
        (NotOpen { config, why }, error)
    })
}

fn output_config(config: &Config, socket: &config::Socket, keys: &config::Record) -> OutputConfig {
    let all = config.sockets.iter();
    let sharing = all.filter(|of| of.record.as_ref().is_some_and(|of| of.file == keys.file));
    let longest = match keys.file {
        Some(_) => sharing.map(|of| of.message_size).max(),
        None => None,
    };
    OutputConfig {
        file: keys.file.clone(),
        mode: keys.mode,
        search: keys
            .format
            .search(keys.parse, longest.unwrap_or(socket.message_size)),
    }
}

/// What makes the lines of `socket` in its record.
pub(super) fn encoder(socket: &config::Socket, keys: &config::Record) -> Encoder {
    let journal = keys.file.is_none() && systemd::is_journal(std::io::stdout());
    let mut encoder = Encoder::new(keys.format, journal, &socket.name);
    encoder.set_parse(keys.parse);
    encoder
}

/// A record, which goes on as was `found`.
pub(super) fn new_record(keys: &config::Record, found: Found) -> Record {
    let mut record = Record::new(keys.queue_size, found.last_seq);
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
