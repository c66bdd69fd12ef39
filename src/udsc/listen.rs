//! `udsc listen`: incoming messages to standard output. Our writing side stays open, so that a
//! server that answers an end of stream with its own goes on.

use super::{
    connection::Connection,
    failure::{Failure, WHY},
    stdio::{Incoming, standard_output},
};

/// Prints until the server closes, or until `count` messages came.
pub(crate) fn run(conn: &Connection, count: Option<u64>) -> Result<(), Failure> {
    if !conn.has_end() {
        return Err(conn.failure(
            "on datagrams only who has sent something is answered; use connect or send --wait",
        ));
    }
    let mut incoming = Incoming::new(conn, standard_output()?);
    incoming.print(count.unwrap_or(u64::MAX))?;
    match (count, incoming.printed) {
        (Some(wanted), came) if came < wanted => Err(Failure::closed(came, wanted)),
        // Who is refused gets nothing but this end.
        (None, 0) => Err(conn.failure(format!("the server closed before a message came {WHY}"))),
        _ => Ok(()),
    }
}
