//! echo: every message goes back to its sender, straight from the read buffer.

use std::io::IoSlice;

use super::{Outbox, Sender};
use crate::{connection::Stream, error::Close, message_batch::Batch};

pub(super) fn receive<S: Stream>(
    from: &Sender,
    batch: &Batch<'_>,
    out: &mut Outbox<'_, S>,
) -> Result<usize, Close> {
    let mut sent = 0;
    while sent < batch.bytes.len() {
        let (queue, quota) = (out.queue_room(from.key), out.quota(from.key));
        let room = queue.min(quota.saturating_add(out.credit));
        let mut end = batch.fit(sent, room);
        if end == sent && out.clients[from.key].queue.is_empty() {
            // It may be longer than `queue-size`: see `Outbox::fits`.
            let next = batch.behind(sent).next();
            let next = next.map_or(sent, |message| message.end);
            if next - sent > queue && next - sent <= quota.saturating_add(out.credit) {
                end = next;
            }
        }
        if end == sent {
            if room < queue {
                out.over = Some(out.limits.over(from.peer.uid));
            }
            break;
        }
        out.draw_credit(from, end - sent);
        out.give(from.key, &[IoSlice::new(&batch.bytes[sent..end])])?;
        sent = end;
    }
    Ok(sent)
}
