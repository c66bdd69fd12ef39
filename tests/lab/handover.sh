# shellcheck shell=bash
# That a restart is invisible, under the crowd of tests/lab/crowd.rs: thousands of clients in the middle
# of conversations that are checked byte for byte. Part of tests/lab/checks.sh, whose words it uses.
# UDSD_LAB_CROWD is the program (the test executable of tests/systemd.rs), UDSD_LAB_STREAMS says how
# many stream clients take part.

CHECKS+=(
  ten_restarts_keep_every_conversation
  killed_in_mid_restore_loses_nothing
  eleven_restarts_at_once_lose_nothing
  kill_9_under_load
  stop_under_load_gives_everything_owed
  a_damaged_state_costs_no_start
)

readonly STREAMS=${UDSD_LAB_STREAMS-5000}
readonly CROWD_WAIT=60 # seconds: the crowd itself gives up after 30 without progress

# --- words of these checks -------------------------------------------------------------------------

# The sockets of the crowd, and limits that it comes near to; then all clients are connected and talk.
begin_crowd() {
  [ -n "${UDSD_LAB_CROWD-}" ] || fail "UDSD_LAB_CROWD does not name the test executable of tests/systemd.rs"
  in_vm test -x /usr/bin/lab-crowd || put 0755 "$UDSD_LAB_CROWD" /usr/bin/lab-crowd
  in_vm systemctl stop udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null
  in_vm sh -c 'rm -f /var/log/udsd/crowd.json* /var/log/udsd/notes.json*; rm -rf /run/lab-crowd'
  crowd_config | fresh
  rm -f "$stage/to" "$stage/from"
  mkfifo "$stage/to" "$stage/from"
  # Only this shell holds the crowd's standard input open for writing: when the check ends, so does the
  # crowd.
  exec {to_client}<>"$stage/to" {from_client}<>"$stage/from"
  {
    trap - ERR
    exec {to_client}>&- {from_client}>&-
    in_vm env LAB_CROWD="crowd $STREAMS" /usr/bin/lab-crowd --exact --ignored --nocapture crowd
  } <"$stage/to" >/dev/null 2>"$stage/from" &
  crowd=$!
  hear_crowd "gathered: *"
  rm "$stage/to" "$stage/from"
}

crowd_config() {
  cat <<'END'
[daemon]
log = "warn" # thousands of clients come and go
[socket.none]
path = "%t/crowd-none.sock"
slow-timeout = "10min"
[socket.lines]
path = "%t/crowd-lines.sock"
framing = "lines"
slow-timeout = "10min"
[socket.narrow]
path = "%t/crowd-narrow.sock"
framing = "lines"
message-size = "4KiB"
queue-size = "8KiB"
slow-client = "wait"
slow-timeout = "10min"
idle-timeout = "10min"
clients = 90
[socket.relay]
path = "%t/crowd-relay.sock"
service = "relay"
framing = "lines"
[socket.collect]
path = "%t/crowd-collect.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/crowd.json"
[socket.packets]
path = "%t/crowd-packets.sock"
type = "seqpacket"
[socket.datagrams]
path = "%t/crowd-datagrams.sock"
type = "datagram"
[socket.notes]
path = "%t/crowd-notes.sock"
type = "datagram"
service = "collect"
record.file = "%L/udsd/notes.json"
END
}

# hear_crowd PATTERN: the crowd's next line must match it.
hear_crowd() {
  local deadline=$((SECONDS + CROWD_WAIT)) part=
  heard=
  # A second may end in mid-line: what came of it is kept.
  until read -r -t 1 -u "$from_client" part; do
    heard+=$part
    kill -0 "$crowd" 2>/dev/null || fail "the crowd is gone; expected: $1"
    [ "$SECONDS" -lt "$deadline" ] || fail "the crowd said nothing; expected: $1"
  done
  heard+=$part
  # shellcheck disable=SC2053 # a pattern is meant
  [[ $heard == "crowd: "$1 ]] || { crowd_says; fail "the crowd said '$heard'; expected: $1"; }
  echo "        $heard"
}

# What else it has to say of its end.
crowd_says() {
  local line
  # No end of file comes: this shell holds the fifo open for writing, too.
  while read -r -t 1 -u "$from_client" line; do
    echo "  $line"
  done
}

# The crowd finishes: every conversation must have been whole.
end_crowd() {
  tell finish
  hear_crowd "passed: *"
  wait "$crowd" || fail "the crowd ended with exit code $?"
  crowd_says
}

# with_crowd COMMAND...: what the command does must not cost the crowd a byte.
with_crowd() {
  begin_crowd
  tell restart
  hear_crowd "middle: *"
  "$@"
  end_crowd
}

# one_restart: once everybody has got on since the last.
one_restart() {
  tell restart
  hear_crowd "middle: *"
  in_vm systemctl restart udsd.service || fail "systemctl restart failed"
}

# Outside a restart nothing may be left with the manager.
store_is_empty() {
  is 0 NFileDescriptorStore
}

# catch_restart OPEN...: a restart whose new processes are killed, one after the other, once they have
# so many open descriptors. Whoever has already taken over all when it is caught, goes on, and the
# restart counts as a usual one; false.
catch_restart() {
  local pid old open
  tell restart
  hear_crowd "middle: *"
  # No check of its own: as a condition it runs without `set -e`.
  old=$(main_pid) || exit 1
  for open; do
    # Before there is anything to be caught.
    in_vm env LAB_CROWD="catch $old $open" \
      /usr/bin/lab-crowd --exact --ignored --nocapture crowd >/dev/null 2>"$stage/caught" &
    if [ "$open" = "$1" ]; then
      in_vm systemctl restart --no-block udsd.service || fail "systemctl restart failed"
    else
      in_vm kill -KILL "$pid" || fail "$pid has gone by itself"
    fi
    wait $! || fail "$(cat "$stage/caught")"
    pid=$(sed 's/.* //' "$stage/caught")
    # It stands still: what it has said to the manager came before this question.
    if is 0 NFileDescriptorStore; then
      echo "        $pid was through before it was caught with $open open descriptors"
      in_vm kill -CONT "$pid"
      wait_until "udsd serves again" is running SubState
      return 1
    fi
    echo "        $pid was caught with $open open descriptors"
    old=$pid
  done
  in_vm kill -KILL "$pid" || fail "$pid has gone by itself"
  wait_until "udsd serves again" is running SubState
}

# --- the checks ------------------------------------------------------------------------------------

check_ten_restarts_keep_every_conversation() {
  local n
  begin_crowd
  for n in {1..10}; do
    one_restart
  done
  # As many as its limit says are still there.
  ! in_vm lab-client echo /run/crowd-narrow.sock >"$stage/said" || fail "a client over the limit got in"
  end_crowd
  wait_until "the store is empty" store_is_empty
  is 0 NRestarts || fail "after $n restarts NRestarts=$(property NRestarts): some were faults"
}

check_killed_in_mid_restore_loses_nothing() {
  local _
  begin_crowd
  # At once and early; in the middle and near the end of what a process takes over. The third must
  # succeed.
  for _ in {1..5}; do if catch_restart 0 $((STREAMS / 20)); then break; fi; done
  for _ in {1..5}; do if catch_restart $((STREAMS / 2)) "$STREAMS"; then break; fi; done
  end_crowd
  journal_has 4 "status=9/KILL" || fail "no two restarts could be caught twice each"
  wait_until "the store is empty" store_is_empty
}

check_eleven_restarts_at_once_lose_nothing() {
  local n restarts=()
  begin_crowd
  tell restart
  hear_crowd "middle: *"
  # One after the other, as fast as they end; then all at once, most of which systemd makes one.
  for n in {1..11}; do
    in_vm systemctl restart udsd.service || fail "restart $n failed"
  done
  for n in {1..11}; do
    in_vm systemctl restart --no-block udsd.service || fail "restart $n could not be asked for"
  done
  for n in {1..11}; do
    in_vm systemctl restart udsd.service &
    restarts+=($!)
  done
  for n in "${restarts[@]}"; do
    wait "$n" || fail "systemctl restart failed"
  done
  end_crowd
  wait_until "the store is empty" store_is_empty
}

check_kill_9_under_load() {
  local pid
  begin_crowd
  tell middle
  hear_crowd "middle: *"
  # What is in the record now must stay there.
  tell settle
  hear_crowd "settled *"
  tell go
  tell middle
  hear_crowd "middle: *"
  tell ending
  hear_crowd "awaits the end"
  pid=$(main_pid)
  in_vm kill -KILL "$pid"
  tell ended
  hear_crowd "*ended and new clients were served*"
  is_not "$pid" MainPID || fail "process $pid still serves"
  is 1 NRestarts || fail "NRestarts=$(property NRestarts)"
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
  end_crowd
}

check_stop_under_load_gives_everything_owed() {
  begin_crowd
  tell middle
  hear_crowd "middle: *"
  tell settle
  hear_crowd "settled *"
  begin_stop
  tell owed
  hear_crowd "passed: *"
  wait "$crowd" || fail "the crowd ended with exit code $?"
  wait "$stopping" || fail "systemctl stop failed"
  is success Result || fail "after the stop: Result=$(property Result)"
  is inactive ActiveState || fail "after the stop: ActiveState=$(property ActiveState)"
}

# Whatever stands in the descriptor store, udsd starts, says what is wrong with it in one line, and serves.
check_a_damaged_state_costs_no_start() {
  local damage n length=152 # of the state that is whole
  fresh <<<"$(printf '[socket.udsd]\npath = "%%t/udsd.sock"\n')"
  put 0755 "$here/lab/damage.py" /usr/bin/lab-damage
  drop_in damage '[Service]' NotifyAccess=all ExecStartPre=/usr/bin/lab-damage
  for ((n = 0; n < length; n++)); do
    echo "cut $n"
    ((n % 9)) || echo "flip $((n * 8 + n % 8))"
  done >"$stage/damages"
  printf '%s\n' "version 2" "version 9999" >>"$stage/damages"
  n=0
  while read -r damage; do
    in_vm systemctl stop udsd.service 2>/dev/null
    in_vm systemctl reset-failed udsd.service udsd.socket 2>/dev/null || true
    put 0644 /dev/stdin /run/lab-damage <<<"$damage"
    in_vm systemctl start udsd.service || fail "after $damage: it does not start"
    answers
    is 0 NFileDescriptorStore || fail "after $damage: the store is not empty"
    n=$((n + 1))
  done <"$stage/damages"
  is 0 NRestarts || fail "a process did not survive it"
  wait_until "a line for each" journal_has "$n" "what was handed over cannot be used"
  ! journal_has 1 panicked || fail "it panicked"
  # And one that is whole is gone on with.
  in_vm systemctl stop udsd.service 2>/dev/null
  put 0644 /dev/stdin /run/lab-damage <<<"whole"
  in_vm systemctl start udsd.service
  wait_until "it goes on" journal_has 1 "clients taken over: 0"
  answers
}
