# shellcheck shell=bash
# udsc and the control socket under systemd: a daemon that need not run, a reload without a control socket. Part of
# tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  status_of_an_idle_daemon_starts_nothing
  reload_needs_no_control_socket
)

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
  declines "the system's udsd is not running: nobody listens at /run/udsd/control.sock; systemctl start udsd.socket" \
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
