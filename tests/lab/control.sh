# shellcheck shell=bash
# udsc and the control socket under systemd: a daemon that need not run, a reload without a control socket. Part of
# tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  status_of_an_idle_daemon_starts_nothing
  reload_needs_no_control_socket
  one_command_answers_each_question
)

# shows WORDS COMMAND...: prints that sooner or later.
shows() {
  wait_until "${*:2} prints $1" prints "$@"
}

prints() {
  [[ $(in_vm "${@:2}") == *"$1"* ]]
}

# The number of the client who sends the most.
first_client() {
  in_vm udsc clients --sort messages-in --json | sed -n '1s/^{"id":\([0-9]*\),.*"user":"root"}/\1/p'
}

# says WORDS COMMAND...: it ends well, and prints that.
says() {
  local said
  said=$(in_vm "${@:2}" 2>&1) || fail "${*:2}: $said"
  [[ $said == *"$1"* ]] || fail "${*:2}: $said; expected: $1"
}

# declines WORDS COMMAND...: it fails, and prints that.
declines() {
  local said
  ! said=$(in_vm "${@:2}" 2>&1) || fail "${*:2} says that all is well: $said"
  [[ $said == *"$1"* ]] || fail "${*:2}: $said; expected: $1"
}

check_status_of_an_idle_daemon_starts_nothing() {
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  says "the system's udsd is idle" udsc status
  says '{"idle":true}' udsc status --json
  declines "the system's udsd is idle" udsc clients
  is inactive ActiveState || fail "asking has started udsd"
  answers
  says "pid $(main_pid), running for" udsc status
  in_vm systemctl stop udsd.service udsd.socket
  declines "the system's udsd is not running: nobody listens at /run/udsd/control.sock; start it: systemctl start udsd.socket" \
    udsc status
}

check_reload_needs_no_control_socket() {
  local pid
  fresh <<'EOF'
[daemon]
control = ""
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  pid=$(main_pid)
  declines "the system's udsd runs (pid $pid), but it has no control socket (daemon.control = \"\")" udsc status
  in_vm systemctl reload udsd.service || fail "systemctl reload failed"
  wait_until "the file is in force" journal_has 1 "reloaded /etc/udsd/udsd.toml"
  config <<'EOF'
[daemon]
control = ""
[socket.udsd]
path = "%t/udsd.sock"
mode = "rw"
EOF
  ! in_vm systemctl reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
  stands "$pid"
  wait_until "the status says why" status_has 'reload failed: .*udsd.toml:5: socket.udsd.mode: '
  # The file has one, and the daemon not yet: then it has.
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  in_vm systemctl reload udsd.service || fail "the mended file is refused"
  wait_until "there is a control socket" in_vm test -S /run/udsd/control.sock
  says "pid $pid" udsc status
  in_vm udsc reload || fail "udsc reload failed"
}

check_one_command_answers_each_question() {
  local slow flood
  fresh <<'EOF'
[limits]
clients-per-user = 2
[socket.bus]
path = "%t/udsd.sock"
service = "relay"
framing = "lines"
slow-client = "drop"
queue-size = "128KiB"
EOF
  # One who does not read, and one who floods.
  in_vm systemd-run --quiet --collect --unit=lab-slow udsc listen
  wait_until "it listens" is active ActiveState
  shows '"socket":"bus"' udsc clients --json
  slow=$(first_client)
  in_vm systemctl kill --signal=STOP lab-slow.service
  in_vm systemd-run --quiet --collect --unit=lab-flood sh -c 'yes flood | udsc connect'
  # How many messages a socket dropped, and for whom.
  shows " (queue-size)" udsc status
  says "for client $slow (pid " udsc status bus
  # Who floods.
  flood=$(first_client)
  [ "$flood" != "$slow" ] || fail "client $slow floods, who does not even read"
  # Why a client was refused.
  ! in_vm udsc send hello 2>/dev/null || fail "a third client is served"
  says "limits.clients-per-user = 2" udsc status bus
  # What passes.
  says " client $flood to 1: flood" udsc tap bus --count 1
  # End that client.
  in_vm udsc disconnect "$flood"
  wait_until "the flood ends" is inactive ActiveState lab-flood.service
  in_vm systemctl kill --signal=KILL lab-slow.service
}
