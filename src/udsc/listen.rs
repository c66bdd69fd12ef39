//! `udsc listen`: incoming messages to standard output. Our writing side stays open, so that a
//! server that answers an end of stream with its own goes on.

use clap::Args;

use super::{
    connection::Connection,
    failure::{Failure, WHY},
    stdio::{Form, Incoming, standard_output},
};

// The arguments of `udsc listen`. A doc comment here would show in its help.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// End after N messages; fewer are a failure
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Each message as one object a line
    #[arg(long)]
    json: bool,
}

/// Prints until the server closes, or until so many messages came.
pub(crate) fn run(conn: &Connection, plan: &Plan) -> Result<(), Failure> {
    let count = plan.count;
    if !conn.has_end() {
        return Err(conn.failure(
            "on datagrams only who has sent something is answered; use connect or send --wait",
        ));
    }
    let mut incoming = Incoming::new(conn, standard_output()?);
    if plan.json {
        incoming.form = Form::Json;
    }
    incoming.print(count.unwrap_or(u64::MAX))?;
    match (count, incoming.printed) {
        (Some(wanted), came) if came < wanted => Err(Failure::closed(came, wanted)),
        // Who is refused gets nothing but this end.
        (None, 0) => Err(conn.failure(format!("the server closed before a message came {WHY}"))),
        _ => Ok(()),
    }
}
