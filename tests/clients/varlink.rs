//! Python's `varlink` package and systemd's `varlinkctl`, which know of udsd what the interface says, at the control
//! socket.

use std::{
    env,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Daemon, is_installed, round_trip, skip::pass_over};

const FILE: &str = "[daemon]\ncontrol = \"{dir}/control\"\n[socket.e]\npath = \"{dir}/e\"\n[socket.r]\npath = \"{dir}/r\"\nservice = \"relay\"\nframing = \"lines\"\n";

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
    let daemon = Daemon::start(FILE);
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

/// Whether varlinkctl did what it was told at the control socket; what it printed, and what it complained of.
fn varlinkctl(daemon: &Daemon, line: &[&str], more: &[&str]) -> (bool, String, String) {
    let output = Command::new("varlinkctl")
        .args(line)
        .arg(daemon.path("control"))
        .args(more)
        .output()
        .unwrap();
    let [printed, complained] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), printed, complained)
}

/// The only answer to a call of `dev.udsd.Daemon`.
#[track_caller]
fn call(daemon: &Daemon, method: &str, parameters: &str) -> Value {
    let method = format!("dev.udsd.Daemon.{method}");
    let line = ["call", "--json=short", "--more"];
    let (is_done, answer, complaint) = varlinkctl(daemon, &line, &[&method, parameters]);
    assert!(is_done, "{complaint}");
    // One of several, as it may be, is a record of RFC 7464.
    serde_json::from_str(answer.trim_start_matches('\x1e')).unwrap()
}

#[test]
fn varlinkctl_finds_all_and_asks_and_acts() {
    if !is_installed("varlinkctl") {
        return pass_over("there is no varlinkctl, which systemd has from version 255 on");
    }
    let daemon = Daemon::start(FILE);
    let echo = daemon.connect("e");
    round_trip(&echo, b"ping");
    let interfaces = ["dev.udsd.Daemon", "org.varlink.service"];
    let (is_done, info, complaint) = varlinkctl(&daemon, &["info", "--json=short"], &[]);
    assert!(is_done, "{complaint}");
    let info: Value = serde_json::from_str(&info).unwrap();
    let mut told: Vec<&str> = (info["interfaces"].as_array().unwrap().iter())
        .map(|of| of.as_str().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(
        (&info["product"], told),
        (&json!("udsd"), interfaces.into())
    );
    for (name, words) in [
        (interfaces[0], ["method Tap", "error ReloadFailed"]),
        (interfaces[1], ["method GetInfo", "error InvalidParameter"]),
    ] {
        // It parses what it prints.
        let (is_done, text, complaint) = varlinkctl(&daemon, &["introspect"], &[name]);
        assert!(is_done, "{complaint}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert_eq!(call(&daemon, "Status", "{}")["clients"], 1);
    let clients = &call(&daemon, "Clients", r#"{"socket":"e"}"#)["clients"];
    assert_eq!(clients[0]["messages_in"], 1);
    assert_eq!(call(&daemon, "Reload", "{}"), json!({}));
    for (parameters, error) in [
        (r#"{"id":4000000000}"#, "dev.udsd.Daemon.NoSuchClient"),
        (r#"{"id":"one"}"#, "org.varlink.service.InvalidParameter"),
    ] {
        let disconnect = ["dev.udsd.Daemon.Disconnect", parameters];
        let (is_done, _, complaint) = varlinkctl(&daemon, &["call"], &disconnect);
        assert!(!is_done && complaint.contains(error), "{complaint}");
    }
    round_trip(&echo, b"still here");
}
