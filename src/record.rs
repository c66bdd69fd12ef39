//! The record of one socket or of several: `line` makes a message a line, a `recorder` puts it into the `queue`, which
//! bounds what waits, and a `writer` appends the lines to an `output`: a file, or standard output.
//!
//! A file is ended between two lines and becomes a `segment`; `rotation` says where. `check` says which files may be a
//! record, and `tail` reads where numbers stand. `statistics` is what a record tells of itself. `syslog` reads fields
//! out of messages. A `reader` reads it back, across its `segment`s, each line as an `entry`.
//!
//! Each step has a `Position` on one scale: how far lines are handed over, and how far they are written.
//! What lies between two positions waits for the later step.

mod acks;
mod check;
mod entry;
mod line;
mod output;
mod prefix;
mod queue;
mod reader;
mod recorder;
mod rotation;
mod segment;
mod statistics;
mod syslog;
mod tail;
mod writer;

pub use acks::{Ack, ParkedAck};
pub use check::{OpenError, check_path};
pub use entry::{Entry, Fields};
pub use line::{Encoder, Format, Gap, Line};
pub use output::{Found, NotOpen, Output, OutputConfig};
pub use queue::{Full, OnFull, Record};
pub use reader::{Damage, Item, Lined, Reader, Start, Watch};
pub use recorder::{Mark, Recorder};
pub use rotation::{Lines, Rotation, Segment, SegmentEnd};
pub use segment::has_segment_name;
pub use statistics::{Amount, Progress, Segments, Statistics};
pub use syslog::{Parse, Syslog, Zone};
pub use writer::{Unwritten, Writer};

/// A place between lines, or within one: the bytes that stand before it, of all that this process has
/// handed over to the record. It only grows, whatever output the lines go to.
pub type Position = u64;
