//! `udsc listen`: incoming messages to standard output. Our writing side stays open, so that a
//! server that answers an end of stream with its own goes on.

use std::io::Write;

use super::{
    connection::Connection,
    failure::{Failure, WHY},
    stdio::{print_messages, standard_output},
};

/// Prints until the server closes, or until `count` messages came.
pub(crate) fn run(conn: &Connection, count: Option<u64>) -> Result<(), Failure> {
    if !conn.transport.has_end() {
        return Err(Failure::Told(format!(
            "{}: on datagrams only who has sent something is answered; use connect or send --wait",
            conn.name
        )));
    }
    listen(conn, count, standard_output()?)
}

fn listen(conn: &Connection, count: Option<u64>, output: impl Write) -> Result<(), Failure> {
    let mut came = 0;
    print_messages(conn, count.unwrap_or(u64::MAX), output, &mut came)?;
    match count {
        Some(wanted) if came < wanted => Err(Failure::closed(came, wanted)),
        // Who is refused gets nothing but this end.
        None if came == 0 => Err(Failure::Told(format!(
            "{}: the server closed before a message came {WHY}",
            conn.name
        ))),
        _ => Ok(()),
    }
}
