//! Python's `varlink` package, which knows of udsd what the interface says, at the control socket.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::harness::{Daemon, round_trip};

/// Asks as an administrator would, and fails where an answer is another than it should be.
const ASK: &str = r#"
import sys, varlink
control, relay, config, broken = sys.argv[1:]
client = varlink.Client.new_with_address("unix:" + control)
daemon = client.open("dev.udsd.Daemon")
service = client.open("org.varlink.service")
assert service.GetInfo()["interfaces"] == ["org.varlink.service", "dev.udsd.Daemon"]

def clients(**which):
    return [one for part in daemon.Clients(_more=True, **which) for one in part["clients"]]

assert daemon.Status()["clients"] == 2, daemon.Status()
names = {socket["name"]: socket for socket in daemon.Sockets()["sockets"]}
assert names["r"]["service"] == "relay" and names["e"]["counters"]["messages"] == 1, names
echo, = clients(socket="e", uid=None)
assert (echo["messages_in"], echo["bytes_in"]) == (1, 4), echo
daemon.Disconnect(echo["id"])
assert [one["socket"] for one in clients(socket=None, uid=None)] == ["r"]
try:
    daemon.Disconnect(echo["id"])
    sys.exit("a client that is gone was disconnected")
except varlink.VarlinkError as error:
    assert error.error() == "dev.udsd.Daemon.NoSuchClient", error
    assert error.parameters() == {"id": echo["id"]}, error

whole = open(config).read()
open(config, "w").write(whole + broken)
try:
    daemon.Reload()
    sys.exit("a broken file was reloaded")
except varlink.VarlinkError as error:
    fault, = error.parameters()["faults"]
    assert fault["key"] == "socket.r.no-key" and fault["file"] == config, error
open(config, "w").write(whole)
daemon.Reload()

assert "udsd_messages_total" in daemon.Metrics()["text"]
other = varlink.Client.new_with_address("unix:" + control)
tap = other.open("dev.udsd.Daemon").Tap("r", None, _more=True)
opened = next(tap)
assert opened.get("message") is None and opened["missed"] == 0, opened
print("open", flush=True)
passed = next(tap)
assert passed["message"]["message"] == "from Rust", passed
assert passed["message"]["receivers"] == 0, passed
"#;

#[test]
#[ignore = "needs UDSD_TEST_VARLINK, a Python with the package varlink, which .ci/nightly makes"]
fn python_asks_and_acts() {
    let python = env::var("UDSD_TEST_VARLINK").expect("UDSD_TEST_VARLINK names a Python");
    let daemon = Daemon::start(
        "[daemon]\ncontrol = \"{dir}/control\"\n[socket.e]\npath = \"{dir}/e\"\n[socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\n",
    );
    let (echo, speaker) = (daemon.connect("e"), daemon.connect("r"));
    round_trip(&echo, b"ping");
    let mut asks = Command::new(python)
        .args(["-c", ASK])
        .args(["control", "r", "udsd.toml"].map(|name| daemon.path(name)))
        .arg("no-key = 1\n")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut opened = [0; 5];
    std::io::Read::read_exact(asks.stdout.as_mut().unwrap(), &mut opened).unwrap();
    std::io::Write::write_all(&mut &speaker, b"from Rust\n").unwrap();
    assert!(asks.wait().unwrap().success());
}
