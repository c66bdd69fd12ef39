//! echo: every message goes back to its sender, straight from the read buffer.

use super::{Outbox, Sender};
use crate::{batch::Batch, connection::Stream, error::Close};

pub(super) fn receive<S: Stream>(
    from: &Sender,
    batch: Batch<'_>,
    out: &mut Outbox<'_, S>,
) -> Result<usize, Close> {
    out.send(from.key, &batch)
}
