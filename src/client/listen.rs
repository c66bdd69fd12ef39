//! `udsc listen`: incoming messages to standard output. Our writing side stays open, so that a
//! server that answers an end of stream with its own goes on.

use std::io::Write;

use super::{
    failure::{Failure, WHY},
    link::Link,
    standard::{print_messages, standard_output},
};

/// Prints until the server closes, or until `count` messages came.
pub(crate) fn run(link: &Link, count: Option<u64>) -> Result<(), Failure> {
    if !link.transport.has_end() {
        return Err(Failure::Asked(format!(
            "{}: on datagrams only who has sent something is answered; use connect or send --wait",
            link.name
        )));
    }
    listen(link, count, standard_output()?)
}

fn listen(link: &Link, count: Option<u64>, output: impl Write) -> Result<(), Failure> {
    let mut came = 0;
    print_messages(link, count.unwrap_or(u64::MAX), output, &mut came)?;
    match count {
        Some(wanted) if came < wanted => Err(Failure::closed(came, wanted)),
        // Who is refused gets nothing but this end.
        None if came == 0 => Err(Failure::Amount(format!(
            "{}: the server closed before a message came {WHY}",
            link.name
        ))),
        _ => Ok(()),
    }
}
