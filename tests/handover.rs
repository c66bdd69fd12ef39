//! Promise: a restart is invisible. Every client stays connected, with what it has half sent, what it
//! is owed, its number and its place; nothing is lost, repeated or out of order, and nobody who
//! connects is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use harness::{Daemon, Setup, packets::Packets, read_all, read_n, round_trip, write_until_full};

const SOCKETS: &str = "
[socket.echo]
path = \"{dir}/echo\"
framing = \"lines\"

[socket.raw]
path = \"{dir}/raw\"

[socket.talk]
path = \"{dir}/talk\"
service = \"relay\"
framing = \"lines\"

[socket.packets]
path = \"{dir}/packets\"
type = \"seqpacket\"
";

fn start(config: &str) -> Daemon {
    Setup::new().keeping().config(config).start()
}

fn restart(daemon: Daemon, config: &str) -> Daemon {
    daemon.restart(|setup| setup.config(config))
}

#[test]
fn conversations_go_on() {
    let mut daemon = start(SOCKETS);
    let mut half = daemon.connect("echo");
    half.write_all(b"one\nhalf of ").unwrap();
    assert_eq!(read_n(&half, 4), b"one\n");
    let behind = daemon.connect("raw");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = write_until_full(&behind, &bytes, 1_000_000);
    let packets = Packets::connect(&daemon.path("packets"));
    packets.send(b"");
    packets.send(b"packet");
    let (mut speaker, mut listener) = (daemon.connect("talk"), daemon.connect("talk"));
    listener.write_all(b"here\nI ").unwrap();
    assert_eq!(read_n(&speaker, 5), b"here\n");
    for n in 0..12 {
        daemon = restart(daemon, SOCKETS);
        speaker.write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(read_n(&listener, 2 + n / 10), format!("{n}\n").as_bytes());
        round_trip(&daemon.connect("raw"), b"a newcomer");
    }
    half.write_all(b"a line\n").unwrap();
    assert_eq!(read_n(&half, 15), b"half of a line\n");
    listener.write_all(b"was here\n").unwrap();
    assert_eq!(read_n(&speaker, 11), b"I was here\n");
    assert_eq!(packets.receive().as_deref(), Some(&b""[..]));
    assert_eq!(packets.receive().as_deref(), Some(&b"packet"[..]));
    behind.set_nonblocking(false).unwrap();
    behind.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&behind) == bytes[..sent], "bytes were lost or changed");
    assert!(daemon.stop().success());
    for stream in [&mut half, &mut speaker, &mut listener] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
