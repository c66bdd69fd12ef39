//! The recipes of README.md, each as it stands there but for its paths, which are in a folder of the test. That of
//! journald is run as a whole in the lab (`tests/lab/hardening.sh`).

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    README, between, blocks,
    harness::{Daemon, Folder, HANG, Setup, has_program, skip},
    shown::shell,
};

/// The recipe that begins so.
fn recipe(title: &str) -> &'static str {
    let recipes = between(README, "## Recipes\n", &["\n## "]);
    let recipe = between(recipes, &format!("\n**{title}"), &["\n**"]);
    assert!(!recipe.is_empty(), "README.md has no recipe {title}");
    recipe
}

/// The only block of a kind, its paths in a folder.
fn block(recipe: &str, kind: &str, folder: &str) -> String {
    let [block] = blocks(recipe, kind)[..] else {
        panic!("one block of {kind} in {recipe}");
    };
    within(folder, block)
}

fn within(folder: &str, text: &str) -> String {
    let text = text.replace("/var/log/udsd/", "/run/");
    text.replace("/run/", &format!("{folder}/"))
}

/// A daemon with the file of a recipe.
fn start(recipe: &str) -> Daemon {
    Setup::new().config(&block(recipe, "toml", "{dir}")).start()
}

/// A shell in the daemon's folder that has its udsd.toml for the system's.
fn command(daemon: &Daemon, line: &str) -> Command {
    let udsc = format!("udsc --config {}", daemon.path("udsd.toml").display());
    let line = within(daemon.folder().path().to_str().unwrap(), line).replace("udsc", &udsc);
    shell(daemon.folder().path(), &["-c", &line])
}

fn run(daemon: &Daemon, line: &str) {
    let output = command(daemon, line).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

/// Tries until it holds. For what foreign programs do, which tell nobody.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "not within {HANG:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the record has this.
fn wait_record(daemon: &Daemon, name: &str, text: &str) {
    let record = daemon.path(name);
    wait_until(text, || {
        fs::read_to_string(&record).is_ok_and(|lines| lines.contains(text))
    });
}

/// Killed and reaped at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NGINX: &str = "
daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events { }
http {
    client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
    uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
    DIRECTIVE
    server { listen unix:{dir}/http; location / { return 204; } }
}
";

#[test]
fn logger_writes_into_json() {
    if !has_program("logger") {
        return;
    }
    let recipe = recipe("nginx and logger into JSON");
    let daemon = start(recipe);
    run(&daemon, blocks(recipe, "sh")[0]);
    wait_record(&daemon, "syslog.json", "from a script");
}

#[test]
fn nginx_writes_into_json() {
    if !has_program("nginx") {
        return;
    }
    let recipe = recipe("nginx and logger into JSON");
    let daemon = start(recipe);
    let folder = daemon.folder().path().to_str().unwrap().to_owned();
    let directive = format!("access_log{};", between(recipe, "`access_log", &[";`"]));
    let config = NGINX.replace("DIRECTIVE", &within(&folder, &directive));
    fs::write(daemon.path("nginx.conf"), config.replace("{dir}", &folder)).unwrap();
    let mut nginx = Command::new("nginx");
    nginx
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(daemon.path("nginx.conf"));
    let _nginx = Running(nginx.stderr(Stdio::null()).spawn().unwrap());
    let mut http = None;
    wait_until("nginx listens", || {
        http = UnixStream::connect(daemon.path("http")).ok();
        http.is_some()
    });
    let mut http = http.unwrap();
    http.write_all(b"GET /recipe HTTP/1.0\r\n\r\n").unwrap();
    http.read_to_end(&mut Vec::new()).unwrap();
    wait_record(&daemon, "syslog.json", "GET /recipe");
}

#[test]
fn what_one_says_on_the_bus_another_hears_and_the_record_has() {
    let recipe = recipe("A local bus");
    let daemon = start(recipe);
    let lines: Vec<&str> = blocks(recipe, "sh")[0].lines().collect();
    let [listen, send] = lines[..] else {
        panic!("two lines: {lines:?}");
    };
    let mut listener = Running(
        command(&daemon, listen)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    // Until it has connected, it hears nothing.
    while listener.0.try_wait().unwrap().is_none() {
        run(&daemon, send);
    }
    let mut heard = String::new();
    listener
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut heard)
        .unwrap();
    assert!(heard.contains(r#""message":"door open""#), "{heard}");
    wait_record(&daemon, "bus.json", r#""message":"door open""#);
}

#[test]
fn of_a_c_program_s_buffer_the_string_is_kept() {
    if !has_program("gcc") {
        return;
    }
    let recipe = recipe("C programs");
    let daemon = start(recipe);
    let code = block(recipe, "c", "");
    let path = daemon.path("readings.sock");
    let text = format!(
        "#include <stdio.h>\n#include <string.h>\n#include <sys/socket.h>\n#include <sys/un.h>\nint main(void) {{\n\
         struct sockaddr_un to = {{ AF_UNIX, \"{}\" }};\nint fd = socket(AF_UNIX, SOCK_STREAM, 0);\n\
         if (connect(fd, (void *)&to, sizeof to)) return 1;\n{code}\nreturn 0; }}\n",
        path.display()
    );
    fs::write(daemon.path("client.c"), text).unwrap();
    run(&daemon, "gcc -o client client.c && ./client");
    wait_record(&daemon, "readings.json", r#""message":"level 7""#);
}

#[test]
fn a_service_behind_the_socket_reads_what_is_said() {
    let daemon = start(recipe("A local bus"));
    let unit = block(recipe("A service of your own"), "ini", "");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let start = start.replace("/usr/local/bin/worker", "cat");
    let mut service = Running(
        command(&daemon, &start)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let stdout = service.0.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        tell.send(line).unwrap();
    });
    // Until it has connected, it hears nothing.
    let line = loop {
        run(&daemon, "udsc -s bus send work");
        if let Ok(line) = told.try_recv() {
            break line;
        }
    };
    assert!(line.contains(r#""message":"work""#), "{line}");
    reader.join().unwrap();
    // Its end is the end of `udsc listen`, and so of the service.
    drop(daemon);
    service.0.wait().unwrap();
}

#[test]
fn what_journald_would_send_is_recorded() {
    if !has_program("logger") {
        return;
    }
    let folder = Folder::new();
    fs::create_dir_all(folder.join("systemd/journal")).unwrap();
    let config = block(recipe("All that journald gets"), "toml", "{dir}");
    let daemon = Setup::within(folder).config(&config).start();
    run(
        &daemon,
        "logger --socket /run/systemd/journal/syslog 'from journald'",
    );
    wait_record(&daemon, "journal.json", "from journald");
}

/// In place of podman: a mount namespace of its own with the volume in it, and nothing else of a container.
const PODMAN: &str = "
podman() {
    local volume=$3
    shift 4
    unshare --map-root-user --mount sh -c 'mount --bind \"$1\" \"$2\" && shift 2 && \"$@\"' sh \"${volume%:*}\" \"${volume#*:}\" \"$@\"
}
";

fn can_unshare() -> bool {
    let mut probe = Command::new("unshare");
    let probe = probe.args(["--map-root-user", "--mount", "true"]).output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        skip("no mount namespace can be made");
    }
    can
}

/// What becomes of a container that is there when its daemon starts anew: says "from inside" before and after.
/// The exit code of the second.
fn outlives_its_daemon(volume: &str, socket: &str) -> bool {
    let recipe = recipe("A container's sidecar");
    let folder = Folder::new();
    for name in ["app", "srv/app"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("srv/app.sock"), "").unwrap();
    let path = within("{dir}", between(recipe, "`path = \"", &["\"`"]));
    let config = format!(
        "[socket.app]\npath = \"{path}\"\nservice = \"collect\"\nframing = \"lines\"\nrecord.file = \"{{dir}}/record\"\n"
    );
    let start = || Setup::within(folder.clone()).config(&config).start();
    let line = blocks(recipe, "sh")[0].replace("/run/app:/srv/app", volume);
    let (outside, inside) = line.split_once("udsc").unwrap();
    let inside = format!("udsc{}", inside.replace("/srv/app/app.sock", socket));
    let inside = inside.trim().replace('\'', "\"");
    let line = format!("{PODMAN}{outside} sh -c '{inside} && echo said && read -r go && {inside}'");
    let line = line.replace("/srv/", "/run/srv/");

    let mut daemon = start();
    let mut container = command(&daemon, &line);
    let container = container.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut container = Running(container.stderr(Stdio::null()).spawn().unwrap());
    let mut said = [0; 5];
    container
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    wait_record(&daemon, "record", "from inside");
    daemon.stop();
    let _daemon = start();
    container.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    container.0.wait().unwrap().success()
}

#[test]
fn a_mounted_folder_has_the_socket_also_when_it_is_made_anew() {
    if !can_unshare() {
        return;
    }
    assert!(outlives_its_daemon(
        "/run/app:/srv/app",
        "/srv/app/app.sock"
    ));
    // As README warns.
    assert!(!outlives_its_daemon(
        "/run/app/app.sock:/srv/app.sock",
        "/srv/app.sock"
    ));
}
