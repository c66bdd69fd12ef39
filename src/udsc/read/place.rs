//! Which record is meant, and what its lines are.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use super::unread;
use crate::{
    config::{Socket, is_name},
    record::{Entry, Format, Item, Lined, Reader, Start},
    udsc::{Options, failure::Failure, target},
};

/// So many lines at the start tell what all are.
const FIRST: usize = 20;

/// A record.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// The only socket that is meant of those that write it.
    pub(super) socket: Option<String>,
    pub(super) lined: Lined,
}

impl Place {
    /// The record of the socket NAME, else the file of this path.
    pub(super) fn find(options: &Options, record: &OsStr) -> Result<Self, Failure> {
        let given = [
            ("--socket", options.socket.is_some()),
            ("--type", options.kind.is_some()),
            ("--framing", options.framing.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::Told(format!(
                "this command reads a record, and talks to no socket: leave out {option}"
            )));
        }
        if record.to_str().is_some_and(is_name) {
            return of_socket(options, record);
        }
        let path = PathBuf::from(record);
        let lined = look(&path).map_err(|error| unread(&path, &error))?;
        Ok(Place {
            path,
            socket: None,
            lined,
        })
    }
}

/// The record of the first socket of that name that has one.
fn of_socket(options: &Options, name: &OsStr) -> Result<Place, Failure> {
    let mut reasons = Vec::new();
    for socket in target::sockets(options, name)? {
        match socket.and_then(|socket| of_config(&socket)) {
            Ok(place) => return Ok(place),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Failure::Told(reasons.join("\nudsc: ")))
}

fn of_config(socket: &Socket) -> Result<Place, String> {
    let name = &socket.name;
    let Some(record) = &socket.record else {
        return Err(format!("socket {name} has no record"));
    };
    let Some(path) = &record.file else {
        return Err(format!(
            "the record of socket {name} goes to standard output: under systemd, journalctl -u udsd has it"
        ));
    };
    look(path).map_err(|error| unread(path, &error).to_string())?;
    Ok(Place {
        path: path.clone(),
        socket: (record.format == Format::Json).then(|| name.clone()),
        lined: match record.format {
            Format::Json => Lined::Entries,
            Format::Text | Format::Raw => Lined::Text,
        },
    })
}

/// What the lines of a record are, going by the first.
fn look(path: &Path) -> io::Result<Lined> {
    let mut reader = Reader::open(path, Lined::Text, Start::First)?;
    for at in 0..FIRST {
        match reader.next()? {
            Some(Item::Text(line)) if Entry::parse(line).is_some() => break,
            None if at == 0 => break,
            None => return Ok(Lined::Text),
            _ if at + 1 == FIRST => return Ok(Lined::Text),
            _ => {}
        }
    }
    Ok(Lined::Entries)
}
