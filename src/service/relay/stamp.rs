//! Messages as JSON records, framed as the socket is.

use std::time::SystemTime;

use crate::{
    frame::Framing,
    record::{Encoder, Gap, Line},
    service::Sender,
};

/// Makes records of messages.
#[derive(Debug)]
pub(super) struct Stamp {
    encoder: Encoder,
    framing: Framing,
    /// The number of the last message.
    seq: u64,
    /// A record before it is framed.
    record: Vec<u8>,
}

impl Stamp {
    /// Numbers go on from `seq`.
    pub(super) fn new(encoder: Encoder, framing: Framing, seq: u64) -> Self {
        Stamp {
            encoder,
            framing,
            seq,
            record: Vec::new(),
        }
    }

    /// The number of the last message.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Numbers go on from `seq`, unless they are further.
    pub(super) fn go_on_from(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// Adds the record of the next message to `out`; it counts once `pass` is told.
    pub(super) fn put(
        &mut self,
        from: &Sender,
        message: &[u8],
        now: SystemTime,
        out: &mut Vec<u8>,
    ) {
        self.record.clear();
        self.encoder.set_time(now);
        let line = Line {
            client: from.id,
            peer: &from.peer,
            message,
            truncated: false,
        };
        let seq = self.seq.saturating_add(1);
        self.encoder.put(&mut self.record, seq, &line);
        frame(self.framing, self.record.trim_ascii_end(), out);
    }

    /// So many messages have passed.
    pub(super) fn pass(&mut self, messages: u64) {
        self.seq = self.seq.saturating_add(messages);
    }

    /// What a receiver is told in place of what it lost.
    pub(super) fn gap(&self, gap: &Gap) -> Vec<u8> {
        let text = format!("{{{gap}}}");
        let mut framed = Vec::new();
        frame(self.framing, text.as_bytes(), &mut framed);
        framed
    }
}

/// JSON holds no byte that ends a message under a framing that may be stamped.
fn frame(framing: Framing, json: &[u8], out: &mut Vec<u8>) {
    let put = framing.put(json, out);
    debug_assert!(put.is_ok(), "JSON that does not fit {framing}");
}
