# shellcheck shell=bash
# What udsd promises under systemd, one function a promise, for tests/lab.sh to run in its lab.
#
# Each check starts from stopped units and a config of its own (`fresh`), runs in a subshell under
# `set -e`, and says `fail WHAT` where a promise is broken. A wait is a wait for its condition, with
# a bound; there is no sleep that hopes.

readonly SOCKET=/run/udsd.sock
readonly WAIT=10 # seconds: how long a condition may take on a busy machine

CHECKS=(
  units_are_sound
  readme_installs
  udsc_finds_the_daemon_by_name
  first_connection_starts_udsd
  status_is_shown
  only_the_group_may_connect
  stop_delivers_what_is_owed
  stop_ends_clients_with_unread_input_cleanly
  stop_ends_clients_with_half_a_message_cleanly
  term_says_stopping_and_a_second_one_ends_it
  watchdog_restarts_a_stopped_daemon
  kill_restarts_udsd_behind_its_socket
  idle_daemon_ends_and_the_next_client_starts_it
  broken_config_costs_no_socket
  config_that_does_not_fit_costs_no_socket
  log_lines_have_priorities
  records_cannot_forge_a_priority
)

# --- the runner ------------------------------------------------------------------------------------

run_checks() {
  local check failed=0 started since
  [ $# -gt 0 ] || set -- "${CHECKS[@]}"
  for check; do
    lab_stands || return 1
    declare -F "check_$check" >/dev/null || { echo "lab: no check is called $check" >&2; return 1; }
    started=${EPOCHREALTIME/./}
    in_vm journalctl --sync
    since=@$EPOCHREALTIME
    # Not as the condition of an `if` or `||`: that would switch `set -e` off inside.
    (
      set -eE
      trap 'say_where "$BASH_COMMAND"' ERR
      "check_$check"
    )
    # shellcheck disable=SC2181
    if [ $? -eq 0 ]; then
      echo "ok    $check ($(((${EPOCHREALTIME/./} - started) / 1000)) ms)"
    else
      failed=$((failed + 1))
      echo "FAIL  $check"
      in_vm systemctl status --no-pager --full --lines=0 udsd.socket udsd.service | sed 's/^/  | /'
      journal | sed 's/^/  | /'
    fi
  done
  echo "lab: $(($# - failed)) of $# checks passed"
  [ "$failed" -eq 0 ]
}

# A command failed that had to work: names it, and the lines that led there.
say_where() {
  local frame
  echo "  failed: $1" >&2
  for ((frame = 1; frame < ${#FUNCNAME[@]}; frame++)); do
    echo "    in ${FUNCNAME[frame]}, line ${BASH_LINENO[frame - 1]}" >&2
    [[ ${FUNCNAME[frame]} != check_* ]] || return 0
  done
}

# Ends the check.
fail() {
  echo "  $*" >&2
  trap - ERR
  exit 1
}

# wait_until WHAT COMMAND...: polls, because most of what systemd knows cannot be waited for.
wait_until() {
  local what=$1 deadline=$((SECONDS + WAIT))
  shift
  until "$@"; do
    lab_stands || fail "the lab is gone"
    [ "$SECONDS" -lt "$deadline" ] || fail "waited $WAIT s in vain: $what"
    sleep .05
  done
}

# Whether the script that holds the lab (its pid, also in a subshell) is still there.
lab_stands() {
  kill -0 $$ 2>/dev/null
}

# --- words of the checks ---------------------------------------------------------------------------

# Stopped units, no last good file, no drop-ins but what the generator makes of the one file from standard input; then
# udsd.socket listens.
fresh() {
  in_vm systemctl stop udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null
  in_vm rm -rf /run/systemd/system/udsd.service.d /etc/systemd/system/udsd.socket /dev/kmsg \
    /etc/udsd/.last-good.toml /etc/udsd/udsd.toml.d /usr/lib/udsd
  config
  # A daemon that does not get ready, or does not stop, is to fail its check soon.
  drop_in bounds '[Service]' TimeoutStartSec=15s TimeoutStopSec=30s
  in_vm systemctl reset-failed udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null || true
  in_vm systemctl start udsd.socket
}

config() {
  put 0644 /dev/stdin /etc/udsd/udsd.toml
}

# drop_in NAME LINE...
drop_in() {
  local name=$1
  shift
  printf '%s\n' "$@" | put 0644 /dev/stdin "/run/systemd/system/udsd.service.d/$name.conf"
  in_vm systemctl daemon-reload
}

# property NAME [UNIT]
property() {
  in_vm systemctl show --property="$1" --value "${2-udsd.service}"
}

# The daemon's process. Never 0, which is what systemd says between two of them, and what kill takes
# for the whole process group of the lab.
main_pid() {
  local pid
  pid=$(property MainPID)
  [ "$pid" != 0 ] || fail "udsd does not run"
  echo "$pid"
}

# is VALUE PROPERTY [UNIT]
is() {
  [ "$(property "${@:2}")" = "$1" ]
}

is_not() {
  ! is "$@"
}

# What the units have said since the check began. (Not --after-cursor: on 252 it loses the first entry
# that a filter lets through.)
journal() {
  in_vm journalctl --sync
  in_vm journalctl --quiet --no-pager --since="$since" \
    --unit=udsd.service --unit=udsd.socket --unit='udsd-*.socket' "$@"
}

# journal_has COUNT TEXT [MATCH...]
journal_has() {
  [ "$(journal --output=cat "${@:3}" | grep --count --fixed-strings -e "$2")" -ge "$1" ]
}

# status_has PATTERN: whether `systemctl status` shows it. Its exit code says how the unit fares.
status_has() {
  grep --quiet -e "$1" <<<"$(in_vm systemctl status --no-pager --full udsd.service || true)"
}

answers() {
  local answer
  answer=$(in_vm lab-client echo "$SOCKET" "are you there") || fail "no answer: $answer"
  [ "$answer" = "are you there" ] || fail "the wrong answer: $answer"
}

# Starts lab-client beside the check; hear waits for its next line, tell sends it one.
client() {
  # Not a coproc: bash forgets its descriptors when it ends, with what it had said last.
  mkfifo "$stage/to" "$stage/from"
  exec {to_client}<>"$stage/to" {from_client}<>"$stage/from"
  rm "$stage/to" "$stage/from"
  # How it ended, hear finds out.
  { trap - ERR; in_vm lab-client "$@"; } <&"$to_client" >&"$from_client" &
}

# hear PATTERN: the next line of the client must match it.
hear() {
  heard=
  read -r -t "$WAIT" -u "$from_client" heard || fail "the client said nothing; expected: $1"
  # shellcheck disable=SC2053 # a pattern is meant
  [[ $heard == $1 ]] || fail "the client said '$heard'; expected: $1"
}

tell() {
  echo "$1" >&"$to_client"
}

# All files and folders of udsd in the system's places, but for what is a user's or lies around it.
udsds_files() {
  in_vm find /etc /opt /run /srv /usr /var \( -path /run/user -o -path /var/tmp -o -path /var/cache \
    -o -path "$repo" \) -prune -o \( -name 'udsd*' -o -name udsc \) -print
}

# Begins `systemctl stop` of both units, returns once systemd is at it.
begin_stop() {
  in_vm systemctl stop udsd.socket udsd.service &
  stopping=$!
  wait_until "udsd begins to stop" is_not active ActiveState
}

# The stop that was begun must end well: systemctl, the service, the socket.
end_stop() {
  wait "$stopping" || fail "systemctl stop failed"
  is success Result || fail "after the stop: Result=$(property Result)"
  is 0 ExecMainStatus || fail "the stop ended with exit code $(property ExecMainStatus)"
  is inactive ActiveState || fail "after the stop: ActiveState=$(property ActiveState)"
  in_vm test ! -e "$SOCKET" || fail "$SOCKET outlived its unit"
}

# --- the checks ------------------------------------------------------------------------------------

check_units_are_sound() {
  local complaints unit
  # Exits 0 even on unknown keys, so what counts is what it says.
  complaints=$(in_vm systemd-analyze verify --man=no \
    /usr/lib/systemd/system/udsd{.service,.socket,-metrics.service,-metrics.timer} 2>&1)
  [ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
  # The threshold is the score times ten. That of the metrics runs as root.
  for unit in udsd=4 udsd-metrics=5; do
    in_vm systemd-analyze security --no-pager --offline=true --threshold="${unit#*=}" \
      "/usr/lib/systemd/system/${unit%=*}.service" >"$stage/security" ||
      fail "systemd-analyze security: $(tail -n 1 "$stage/security")"
    tail -n 1 "$stage/security"
  done
}

check_readme_installs() {
  local user answer left
  # As on a machine that never had it, but for the user.
  in_vm rm -rf /run/systemd/system/udsd.service.d
  uninstall_udsd >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  left=$(udsds_files | grep -v -e '^/etc/udsd' -e '^/var/lib/udsd' -e '^/var/log/udsd') || true
  [ -z "$left" ] || fail "after the removal by README.md's commands: $left"
  ! in_vm pgrep --exact udsd || fail "a udsd runs after its removal"
  in_vm rm -r /etc/udsd
  install_udsd >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  in_vm systemctl is-enabled --quiet udsd.socket || fail "udsd.socket does not start at boot"
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
  is inactive ActiveState || fail "udsd.service runs before anybody has connected"
  for user in root member; do
    answer=$(in_vm runuser --user "$user" -- lab-client echo "$SOCKET") || fail "$user: $answer"
    [ "$answer" = hello ] || fail "$user got $answer"
  done
}

check_udsc_finds_the_daemon_by_name() {
  local user said
  # Not the first of the file, which udsc takes where no name is given.
  fresh <<'EOF'
[socket.other]
path = "%t/other.sock"
[socket.udsd]
path = "%t/udsd.sock"
EOF
  for user in root member; do
    said=$(in_vm runuser --user "$user" -- udsc --system --socket udsd ping --count 2 --interval 1ms 2>&1) ||
      fail "$user: $said"
    [[ $said == *"--- $SOCKET ---"*"2 sent, 2 received, 0 lost"* ]] || fail "$user: $said"
  done
}

check_first_connection_starts_udsd() {
  local file
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  is inactive ActiveState || fail "udsd.service runs before anybody has connected"
  ! in_vm pgrep --exact udsd || fail "a udsd runs before anybody has connected"
  file=$(in_vm stat --format='%a %U %G' "$SOCKET")
  [ "$file" = "660 udsd udsd" ] || fail "$SOCKET is $file"
  [ "$(echo hello | in_vm nc -NU -w "$WAIT" "$SOCKET")" = hello ] || fail "nc got no answer"
  is active ActiveState || fail "it answers, but udsd.service is $(property ActiveState)"
  is 0 NRestarts || fail "it took $(property NRestarts) restarts"
}

check_status_is_shown() {
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  # Says how many clients, messages and sockets; the words are udsd's.
  wait_until "systemctl status shows STATUS" status_has 'Status: ".*client.*"'
}

check_only_the_group_may_connect() {
  local answer
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answer=$(in_vm runuser --user outsider -- lab-client echo "$SOCKET") && fail "outsider got in: $answer"
  [ "$answer" = "connect: Permission denied" ] || fail "outsider: $answer"
  answer=$(in_vm runuser --user member -- lab-client echo "$SOCKET") || fail "member: $answer"
  [ "$answer" = hello ] || fail "member got $answer"
}

check_stop_delivers_what_is_owed() {
  fresh <<'EOF'
[daemon]
drain-timeout = "5s"
[socket.udsd]
path = "%t/udsd.sock"
EOF
  client owe "$SOCKET" 524288
  hear sent
  begin_stop
  tell read
  hear "end of file after 524288 bytes"
  end_stop
}

check_stop_ends_clients_with_unread_input_cleanly() {
  local begun
  fresh <<'EOF'
[daemon]
drain-timeout = "1s"
[socket.udsd]
path = "%t/udsd.sock"
EOF
  # This client's queue is full and it does not read: the drain runs into its limit, and part of
  # what the client has sent was never read.
  client flood "$SOCKET"
  hear "sent *"
  begun=$SECONDS
  begin_stop
  end_stop
  [ $((SECONDS - begun)) -lt 10 ] || fail "a drain-timeout of 1 s took $((SECONDS - begun)) s"
  tell read
  hear "end of file after *"
  [ "$heard" != "end of file after 0 bytes" ] || fail "nothing of the echo was delivered"
}

check_stop_ends_clients_with_half_a_message_cleanly() {
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
framing = "lines"
EOF
  client half "$SOCKET"
  hear sent
  begin_stop
  hear "end of file after *"
  end_stop
}

check_term_says_stopping_and_a_second_one_ends_it() {
  local pid
  fresh <<'EOF'
[daemon]
drain-timeout = "5min"
[socket.udsd]
path = "%t/udsd.sock"
EOF
  client owe "$SOCKET" 524288
  hear sent
  # Sent by hand: only from STOPPING=1 does systemd know of it.
  pid=$(main_pid)
  in_vm kill -TERM "$pid"
  wait_until "STOPPING" is deactivating ActiveState
  in_vm kill -TERM "$pid"
  # The socket unit still listens, so "not deactivating" is all that can be said.
  wait_until "the second signal ends it" is_not deactivating ActiveState
  tell read
  hear "*"
}

check_watchdog_restarts_a_stopped_daemon() {
  local pid first
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  drop_in watchdog '[Service]' WatchdogSec=2s
  answers
  pid=$(main_pid)
  first=$(property WatchdogTimestampMonotonic)
  wait_until "a sign of life" is_not "$first" WatchdogTimestampMonotonic
  is "$pid" MainPID || fail "the watchdog restarted a daemon that was well"
  in_vm kill -STOP "$pid"
  answers
  wait_until "a new process" is_not "$pid" MainPID
  journal_has 1 "Watchdog timeout" || fail "it was not the watchdog that restarted it"
}

check_kill_restarts_udsd_behind_its_socket() {
  local pid
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  pid=$(main_pid)
  in_vm kill -KILL "$pid"
  # At once: the connection waits in the socket's backlog for the next process.
  answers
  is_not "$pid" MainPID || fail "process $pid still answers"
  is 1 NRestarts || fail "NRestarts=$(property NRestarts)"
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
}

check_idle_daemon_ends_and_the_next_client_starts_it() {
  local n begun=$SECONDS
  fresh <<'EOF'
[daemon]
exit-on-idle = "1s"
[socket.udsd]
path = "%t/udsd.sock"
EOF
  # More starts in 10 s than systemd allows by default, which would fail the socket.
  for n in {1..7}; do
    answers
    wait_until "end $n of an idle daemon" is inactive ActiveState
    is success Result || fail "end $n: Result=$(property Result)"
    is 0 ExecMainStatus || fail "end $n: exit code $(property ExecMainStatus)"
    is listening SubState udsd.socket || fail "end $n: udsd.socket is $(property SubState udsd.socket)"
  done
  echo "7 starts in $((SECONDS - begun)) s"
  answers
  is 0 NRestarts || fail "NRestarts=$(property NRestarts)"
  journal_has 7 "idle for 1s" || fail "it did not end for want of clients"
}

check_broken_config_costs_no_socket() {
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
mode = "rw-rw----"
EOF
  ! in_vm systemctl start udsd.service 2>/dev/null || fail "it started with a broken config"
  status_has 'code=exited, status=78' || fail "systemctl status does not show the exit code 78"
  # At once, not restarted: the second that udsd waits before it exits must set the pace.
  a_fault_with_a_client_waiting_is_survived "status=78" 900
}

check_config_that_does_not_fit_costs_no_socket() {
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  # Sound in itself, but without the socket that systemd passes: exit code 1, restarted for ever. An
  # edit that systemd was not told of.
  config <<'EOF'
[socket.other]
path = "%t/udsd/other.sock"
EOF
  a_fault_with_a_client_waiting_is_survived "Main process exited" 110
}

# While a client waits, udsd fails over and over (the journal then says $1), at least $2 ms apart; its
# socket must survive that for good, and the client be answered once the config is mended.
a_fault_with_a_client_waiting_is_survived() {
  local times=4 first last
  client echo "$SOCKET" patience
  wait_until "$times failures" journal_has "$times" "$1"
  # That they never add up to the start limit (100 in 10 s) or the trigger limit of the socket (20 in
  # 2 s) is a matter of their pace.
  first=$(failure_time 1 "$1") last=$(failure_time "$times" "$1")
  [ $(((last - first) / (times - 1))) -ge "$2" ] ||
    fail "$times failures within $((last - first)) ms: less than $2 ms each"
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  hear patience
  is active ActiveState || fail "it answers, but udsd.service is $(property ActiveState)"
}

# failure_time N TEXT: when the journal said TEXT for the Nth time, in milliseconds.
failure_time() {
  journal --output=short-unix | grep --fixed-strings -e "$2" |
    sed -nE "$1"'s/^([0-9]+)\.([0-9]{3}).*/\1\2/p'
}

check_log_lines_have_priorities() {
  local line
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  wait_until "lines of priority info" journal_has 1 "" --priority=info..info SYSLOG_IDENTIFIER=udsd
  in_vm systemctl stop udsd.service 2>/dev/null
  config <<'EOF'
[socket.udsd]
path = 7
EOF
  ! in_vm systemctl start udsd.service 2>/dev/null || fail "it started with a broken config"
  wait_until "the fault of the config, with priority err" \
    journal_has 1 "/etc/udsd/udsd.toml" --priority=err..err SYSLOG_IDENTIFIER=udsd
  line=$(journal --output=cat SYSLOG_IDENTIFIER=udsd | grep '<[0-7]>') || line=
  [ -z "$line" ] || fail "a priority is left in the text: $line"
}

check_records_cannot_forge_a_priority() {
  local answer severe shift
  # The format that can do most harm: messages that hold line feeds, written as they came.
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "nul"
message-size = "256KiB"
[socket.udsd.record]
format = "raw"
EOF
  {
    printf '<0>forged at the start\0'
    printf 'first line\n<0>forged at a second line\0'
    # The journal cuts lines at 48 KiB and looks for a priority behind the cut, wherever it falls.
    for shift in "" . ..; do
      printf 'forged at a cut %s' "$shift"
      printf '<0>%.0s' {1..40000}
      printf '\0'
    done
    printf 'forged no more\0'
  } >"$stage/messages"
  answer=$(in_vm lab-client send "$SOCKET" <"$stage/messages") || fail "$answer"
  wait_until "the record in the journal" journal_has 1 "forged no more" --priority=info..info
  journal_has 1 "forged at the start" --priority=info..info || fail "the first message is missing"
  severe=$(journal --priority=emerg..notice --output=cat | grep -e forged -e '<0>' | cut -c 1-80) || severe=
  [ -z "$severe" ] || fail "more severe than info: $severe"
}
