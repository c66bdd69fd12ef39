# shellcheck shell=bash
# udsc and the control socket under systemd: a daemon that need not run, a reload without a control socket. Part of
# tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  status_of_an_idle_daemon_starts_nothing
  reload_needs_no_control_socket
  one_command_answers_each_question
  each_client_has_the_unit_that_the_kernel_vouches_for
  status_says_that_a_disk_is_full_and_that_it_is_over
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

# comes UNIT WORDS COMMAND...: COMMAND is started as that unit, and a client with those words is there.
comes() {
  in_vm systemd-run --quiet --collect --unit="$1" "${@:3}"
  wait_until "$1 is told" client_with "$2"
}

client_with() {
  in_vm udsc clients --json 2>/dev/null | grep --quiet --fixed-strings -e "$1"
}

check_each_client_has_the_unit_that_the_kernel_vouches_for() {
  local pid
  fresh <<'EOF'
[socket.bus]
path = "%t/udsd.sock"
mode = "0666"
service = "relay"
framing = "lines"
EOF
  comes lab-a.service '"unit":"lab-a.service","user_unit":null' udsc listen
  comes lab-dynamic.service '"unit":"lab-dynamic.service"' --property=DynamicUser=yes udsc listen
  comes lab-many@one.service '"unit":"lab-many@one.service"' udsc listen
  comes 'lab-odd\x2dname.service' '"unit":"lab-odd\\x2dname.service"' udsc listen
  comes lab-b.service '"unit":"lab-scope.scope"' systemd-run --quiet --scope --unit=lab-scope udsc listen
  # The process that connects ends at once; another has the connection. The unit is the same.
  comes lab-gone.service '"unit":"lab-gone.service"' --property=Type=forking python3 -c '
import os, socket, time
bus = socket.socket(socket.AF_UNIX)
bus.connect("/run/udsd.sock")
if os.fork():
    os._exit(0)
time.sleep(600)'
  # A user's own manager cannot name a unit of the system.
  resident
  as_resident systemd-run --user --quiet --collect --unit=lab-a.service udsc --system listen
  wait_until "a user's unit is told" client_with "\"unit\":\"user@$uid.service\",\"user_unit\":\"lab-a.service\""
  # Outside of all units, as what nsenter brings in.
  in_vm sh -c 'udsc listen >/dev/null 2>&1 & echo $!' >"$stage/outside"
  pid=$(cat "$stage/outside")
  wait_until "who has no unit is told" client_with "\"pid\":$pid,\"unit\":null,\"user_unit\":null"
  # Its messages are found by its unit, also over a restart.
  in_vm systemctl restart udsd.service
  says '"unit":"lab-a.service"' udsc clients --unit lab-a --json
  in_vm systemd-run --quiet --collect --unit=lab-says sh -c 'while echo from a unit; do sleep 0.1; done | udsc connect'
  says ": from a unit" udsc tap bus --unit lab-says --count 1
  in_vm kill "$pid"
  as_resident systemctl --user stop lab-a.service
  in_vm systemctl stop lab-a.service lab-dynamic.service lab-many@one.service 'lab-odd\x2dname.service' lab-scope.scope lab-gone.service lab-says.service
}

readonly LOGS=/var/log/udsd

check_status_says_that_a_disk_is_full_and_that_it_is_over() {
  in_vm systemctl stop udsd.socket udsd.service 2>/dev/null
  in_vm mkdir --parents "$LOGS"
  in_vm mount --types tmpfs --options size=1M,mode=0750,uid=udsd,gid=udsd tmpfs "$LOGS"
  trap 'in_vm systemctl stop udsd.socket udsd.service 2>/dev/null; in_vm umount --lazy "$LOGS"' EXIT
  fresh <<'EOF'
[socket.log]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
record = { file = "%L/udsd/log.json" }
EOF
  in_vm udsc send first || fail "nobody collects"
  shows '"messages_written":1' udsc status --json
  ! in_vm sh -c "cat /dev/zero >$LOGS/ballast" 2>/dev/null || fail "the disk is not full"
  # More than fits into the last page that the file has.
  in_vm udsc send "$(printf %20000s second)" || fail "what can wait is not taken"
  shows FAILING udsc status
  shows "1 message (" udsc status log
  says "No space left on device" udsc status log
  in_vm rm "$LOGS/ballast"
  shows "all 2 messages written, last error, over since, " udsc status log
  ! prints FAILING udsc status || fail "the status says FAILING when it is over"
  [ "$(in_vm grep --count message "$LOGS/log.json")" = 2 ] || fail "$(in_vm cat "$LOGS/log.json")"
}
