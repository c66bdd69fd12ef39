//! `udsc listen`: incoming messages to standard output. Our writing side stays open, so that a
//! server that answers an end of stream with its own goes on.

use std::io::Write;

use super::{
    MESSAGE_LIMIT,
    failure::Failure,
    messages::Messages,
    standard::{print_messages, standard_output},
    target::Link,
};

/// Prints until the server closes, or until `count` messages came.
pub(crate) fn run(link: &Link, count: Option<u64>) -> Result<(), Failure> {
    listen(link, count, standard_output()?)
}

fn listen(link: &Link, count: Option<u64>, output: impl Write) -> Result<(), Failure> {
    let mut messages = Messages::new(&link.stream, link.framing, MESSAGE_LIMIT);
    let wanted = count.unwrap_or(u64::MAX);
    let came = print_messages(&mut messages, link.framing, &link.name, wanted, output)?;
    match count {
        Some(wanted) if came < wanted => Err(Failure::Answers {
            came,
            wanted,
            timeout: None,
        }),
        _ => Ok(()),
    }
}
