//! Any bytes as a message of a record with `parse = "syslog"`: the line is JSON, has the message, and is no longer
//! than is counted with.
#![no_main]
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed unwrap is a find")]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use udsd::{
    peer::{ClientId, Peer},
    record::{Encoder, Entry, Format, Line, Parse},
};

fuzz_target!(|message: &[u8]| {
    let mut encoder = Encoder::new(Format::Json, false, "log");
    encoder.set_parse(Parse::Syslog);
    encoder.set_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_330_831));
    let peer = Peer {
        pid: 1,
        uid: 2,
        gid: 3,
    };
    let line = Line {
        client: ClientId(1),
        peer: &peer,
        message,
        truncated: false,
    };
    let mut out = Vec::new();
    encoder.put(&mut out, 1, &line);
    assert!(out.len() <= Format::Json.longest(Parse::Syslog, message.len()));
    let line = out.strip_suffix(b"\n").unwrap();
    assert_eq!(&*Entry::parse(line).unwrap().bytes(), message);
    let line: Value = serde_json::from_slice(line).unwrap();
    if let Some(text) = line["syslog"]["text"].as_str() {
        assert!(String::from_utf8_lossy(message).contains(text));
    }
});
