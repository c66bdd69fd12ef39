//! Promise: the unit of each client is known as the kernel vouches for it, from its first message on.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail")]

mod harness;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
};

use harness::{Daemon, Setup, has_program, skip, udsc::Udsc, varlink::Caller};
use rustix::{
    fs::statfs,
    net::{self, AddressFamily, SendFlags, SocketType},
};
use serde_json::json;
use udsd::cgroups;

const FILE: &str = "[daemon]\ncontrol = \"{dir}/control.sock\"\n\
                    [socket.bus]\npath = \"{dir}/bus\"\nservice = \"relay\"\nframing = \"lines\"\n\
                    [socket.log]\npath = \"{dir}/log\"\ntype = \"datagram\"\n";

/// A cgroup as systemd makes it for a service, with one of the service's own in it, where programs run.
struct Service {
    slice: PathBuf,
    name: String,
}

impl Service {
    /// `None` where this machine lets nobody make one.
    fn new(test: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let is_one = |path: &&str| statfs(*path).is_ok_and(|of| of.f_type == 0x6367_7270);
        let root = Path::new(roots.into_iter().find(is_one)?);
        let service = Service {
            slice: root.join(format!("udsdtest{}{test}.slice", process::id())),
            name: format!("udsd-{test}.service"),
        };
        let is_made = fs::create_dir_all(service.folder()).is_ok() && cgroups::are_known();
        is_made.then_some(service)
    }

    fn folder(&self) -> PathBuf {
        self.slice.join(&self.name).join("inner")
    }

    /// Runs a program in it.
    fn run(&self, program: &str) -> Command {
        let enter = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter]).arg(self.folder()).arg(program);
        command
    }

    fn udsc(&self, daemon: &Daemon, arguments: &[&str]) -> Child {
        let mut command = self.run(env!("CARGO_BIN_EXE_udsc"));
        command.arg("--socket").arg(daemon.path("bus"));
        command.args(arguments).stdin(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::write(self.slice.join("cgroup.kill"), "1");
        let folders = [
            self.folder(),
            self.slice.join(&self.name),
            self.slice.clone(),
        ];
        for folder in folders {
            // A process that has ended may be there a moment longer.
            let busy = io::ErrorKind::ResourceBusy;
            while fs::remove_dir(&folder).is_err_and(|error| error.kind() == busy) {
                thread::yield_now();
            }
        }
    }
}

#[test]
fn the_unit_of_a_client_is_told_to_the_first_who_asks() {
    let Some(service) = Service::new("a") else {
        return skip("only root, with cgroups of version 2, can make a cgroup");
    };
    let daemon = Daemon::start(FILE);
    let mut caller = Caller::new(&daemon.path("control.sock"));
    // It is not there in the first walk.
    caller.clients(json!({}));
    let mut listens = service.udsc(&daemon, &["listen", "--count", "1"]);
    let clients = loop {
        let clients = caller.clients(json!({"socket": "bus"}));
        if !clients.is_empty() {
            break clients;
        }
    };
    assert_eq!(clients[0]["unit"], "udsd-a.service");
    assert_eq!(clients[0]["user_unit"], json!(null));
    for (unit, count) in [("udsd-a", 1), ("udsd-a.service", 1), ("udsd-a.scope", 0)] {
        let config = daemon.path("udsd.toml");
        let line = format!("--config {} clients --unit {unit} --json", config.display());
        let ended = Udsc::start(&line).end().code(0);
        assert_eq!(ended.text().lines().count(), count, "{unit}");
    }
    listens.kill().unwrap();
    listens.wait().unwrap();
}

#[test]
fn where_units_are_not_known_the_log_says_so_and_who_asks_is_answered() {
    let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
    let hide = ["unshare", "--mount", "sh", "-c", hide];
    let hidden = Command::new(hide[0]).args(&hide[1..]).arg("true").output();
    if !hidden.is_ok_and(|ended| ended.status.success()) {
        return skip("only root can mount something");
    }
    let daemon = Setup::new().wrapper(&hide).config(FILE).start();
    daemon.wait_log(&["INFO", "units of clients are not known here: "]);
    let _client = daemon.connect("bus");
    let mut caller = Caller::new(&daemon.path("control.sock"));
    let clients = caller.clients(json!({"socket": "bus"}));
    assert_eq!(clients[0]["unit"], json!(null));
}

#[test]
fn a_tap_has_all_messages_of_a_unit_that_has_just_started() {
    let Some(service) = Service::new("b") else {
        return skip("only root, with cgroups of version 2, can make a cgroup");
    };
    let mut daemon = Daemon::start(FILE);
    let mut taps = ["udsd-b.service", "udsd-other.service"].map(|unit| {
        let mut tap = Caller::new(&daemon.path("control.sock"));
        tap.send("Tap", json!({"socket": "bus", "unit": unit}), true);
        tap.next().unwrap();
        tap
    });
    // It comes and has left again before anybody has looked where its cgroup is.
    let sent = service.udsc(&daemon, &["send", "one", "two"]).wait();
    assert!(sent.unwrap().success());
    for text in ["one", "two"] {
        let tapped = taps[0].next().unwrap()["parameters"].take();
        assert_eq!(tapped["message"]["message"], text);
        assert_eq!(tapped["message"]["unit"], "udsd-b.service");
        assert_eq!(tapped["missed"], 0);
    }
    // Whoever looks for others learns nothing of it, and has missed nothing.
    daemon.stop();
    let last = taps[1].next().unwrap();
    assert_eq!(last["parameters"], json!({"message": null, "missed": 0}));
}

/// Its process connected, handed the connection on and ended; then its cgroup went too.
#[test]
fn a_tap_on_a_unit_counts_what_comes_from_whom_nobody_knows_any_more() {
    let service = Service::new("c").filter(|_| has_program("python3"));
    let Some(service) = service else {
        return skip("only root, with cgroups of version 2 and Python, can make such a client");
    };
    let daemon = Daemon::start(FILE);
    let client = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let connect = "import socket, sys; socket.socket(fileno=0).connect(sys.argv[1])";
    let mut connects = service.run("python3");
    connects.args(["-c", connect]).arg(daemon.path("bus"));
    let connected = connects.stdin(client.try_clone().unwrap()).status();
    assert!(connected.unwrap().success());
    drop(service);
    let mut tap = Caller::new(&daemon.path("control.sock"));
    tap.send(
        "Tap",
        json!({"socket": "bus", "unit": "udsd-c.service"}),
        true,
    );
    tap.next().unwrap();
    net::send(&client, b"hello\n", SendFlags::empty()).unwrap();
    let told = tap.next().unwrap();
    assert_eq!(told["parameters"], json!({"message": null, "missed": 1}));
}
