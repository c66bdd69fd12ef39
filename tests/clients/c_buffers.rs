//! C programs that write a whole `char msg[2048]` for every message, whatever stands behind the end of
//! the string.

use std::{
    collections::HashMap,
    io::Read,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::process::geteuid;
use serde_json::Value;

use crate::{
    compile,
    harness::{Folder, Setup, has_program},
};

const CLIENT: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Sends each argument behind the first in a buffer of 2048 bytes; one that is "-" is sent by half. */
int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char msg[2048];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("connect");
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        size_t size = strcmp(argv[i], "-") == 0 ? 1000 : sizeof msg;
        memset(msg, 'S', sizeof msg); /* what the stack held: not for others */
        strcpy(msg, argv[i]);
        if (send(fd, msg, size, 0) != (ssize_t)size) {
            perror("send");
            return 1;
        }
        if (size != sizeof msg) {
            write(1, ".", 1);
            pause();
        }
    }
    close(fd);
    return 0;
}
"#;

#[test]
fn a_c_program_that_sends_whole_buffers_is_understood() {
    if !has_program("gcc") {
        return;
    }
    let folder = Folder::new();
    compile(&folder, "client", CLIENT);
    let daemon = Setup::within(Arc::clone(&folder))
        .arguments(&["--socket", "./domainsocket", "--service", "collect"])
        .arguments(&["--framing", "cstring:2048"])
        .start();
    let client = |messages: &[&str]| {
        let mut client = Command::new(folder.join("client"));
        client
            .arg("./domainsocket")
            .args(messages)
            .current_dir(folder.path())
            .stdout(Stdio::piped());
        client.spawn().unwrap()
    };
    let longest = "x".repeat(2047);
    let mut children = [
        client(&["hello", "", "from one"]),
        client(&["hello from two", &longest]),
        client(&["whole", "-"]),
    ];
    let mut dot = [0];
    children[2]
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut dot)
        .unwrap();
    children[2].kill().unwrap();
    let pids: Vec<u32> = children.iter().map(Child::id).collect();
    for (child, succeeds) in children.iter_mut().zip([true, true, false]) {
        assert_eq!(child.wait().unwrap().success(), succeeds);
    }
    let mut last = client(&["the end"]);
    assert!(last.wait().unwrap().success());

    let mut found: HashMap<u32, Vec<String>> = HashMap::new();
    for line in daemon.wait_output(7) {
        let record = serde_json::from_str::<Value>(&line).unwrap();
        assert_eq!(record["uid"], geteuid().as_raw());
        assert_eq!(record["socket"], "domainsocket");
        let pid = u32::try_from(record["pid"].as_u64().unwrap()).unwrap();
        let message = record["message"].as_str().unwrap().to_owned();
        found.entry(pid).or_default().push(message);
    }
    assert_eq!(found[&pids[0]], ["hello", "", "from one"]);
    assert_eq!(found[&pids[1]], ["hello from two", &longest]);
    assert_eq!(found[&pids[2]], ["whole"]);
    assert_eq!(found[&last.id()], ["the end"]);
    assert!(daemon.path("domainsocket").exists());
}
