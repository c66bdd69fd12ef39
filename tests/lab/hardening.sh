# shellcheck shell=bash
# That what udsd.service takes away is all that udsd does not need: the score holds with whatever the
# generator adds to the unit, and each feature works under it. Part of tests/lab/checks.sh, whose words
# it uses, with those of units.sh.

CHECKS+=(
  score_holds_with_every_kind_of_socket_and_record
  every_type_echoes_under_the_hardened_unit
  relays_work_under_the_hardened_unit
  records_are_written_under_the_hardened_unit
  access_is_judged_under_the_hardened_unit
  an_abstract_socket_of_the_service_itself_is_told_as_out_of_reach
  lines_of_its_own_that_journald_forwards_make_no_more_of_them
  readme_records_all_that_journald_gets
)

readonly RECORDS=/srv/lab-kept

# One of each, in one file: every type, service, kind of address, of record and of access.
everything() {
  in_vm install -d -o udsd -m 750 "$RECORDS"
  fresh <<'EOF'
[socket.stream]
path = "%t/lab-stream.sock"
[socket.packets]
path = "%t/lab-packets.sock"
type = "seqpacket"
[socket.datagrams]
path = "%t/lab-datagrams.sock"
type = "datagram"
[socket.abstract]
path = "@lab-hardened"
allow-users = ["root"]
[socket.abstract-packets]
path = "@lab-hardened-packets"
type = "seqpacket"
allow-users = ["root"]
[socket.abstract-datagrams]
path = "@lab-hardened-datagrams"
type = "datagram"
allow-users = ["root"]
[socket.audited]
path = "%t/lab-audited.sock"
framing = "lines"
record.file = "/srv/lab-kept/audit.json"
[socket.relay]
path = "%t/lab-relay.sock"
service = "relay"
framing = "lines"
record.file = "/srv/lab-kept/relay.txt"
record.format = "text"
[socket.stamped]
path = "%t/lab-stamped.sock"
type = "seqpacket"
service = "relay"
stamp = true
[socket.journal]
path = "%t/lab-journal.sock"
service = "collect"
framing = "nul"
[socket.state]
path = "%t/lab-state.sock"
service = "collect"
framing = "length-prefixed"
record.file = "%S/udsd/lab.json"
[socket.logs]
path = "%t/lab-logs.sock"
type = "seqpacket"
service = "collect"
record.file = "%L/udsd/lab.raw"
record.format = "raw"
[socket.syslog]
path = "%t/lab-syslog.sock"
type = "datagram"
mode = "0666"
service = "collect"
framing = "syslog"
record.file = "/srv/lab-kept/syslog.json"
[socket.guarded]
path = "%t/lab-guarded.sock"
mode = "0666"
framing = "lines"
allow-groups = ["udsd"]
[socket.guarded-datagrams]
path = "%t/lab-guarded-datagrams.sock"
type = "datagram"
mode = "0666"
allow-groups = ["udsd"]
record.file = "/srv/lab-kept/guarded.json"
EOF
}

# recorded TEXT FILE
recorded() {
  wait_until "$1 in $2" in_vm grep --quiet --fixed-strings -e "$1" "$2"
}

# sends SOCKET TEXT
sends() {
  local said
  said=$(in_vm udsc --system --socket "$1" send "$2" 2>&1) || fail "$1: $said"
}

# Nothing that udsd warns of but what the machine is to blame for.
no_complaints() {
  local complaints
  complaints=$(journal --priority=warning --output=cat | grep --invert-match max_dgram_qlen) || complaints=
  [ -z "$complaints" ] || fail "$complaints"
}

check_score_holds_with_every_kind_of_socket_and_record() {
  local complaints unit=/usr/lib/systemd/system/udsd.service
  # The generator's, or there is nothing to see here. --offline looks for no drop-ins of its own accord.
  local path=SYSTEMD_UNIT_PATH=/run/systemd/generator:/usr/lib/systemd/system
  everything
  in_vm grep --quiet --fixed-strings -e "$RECORDS" /run/systemd/generator/udsd.service.d/00-udsd.conf ||
    fail "the generator has not opened $RECORDS"
  complaints=$(in_vm sh -c 'systemd-analyze verify --man=no udsd.service udsd.socket /run/systemd/generator/udsd-*.socket' 2>&1)
  [ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
  in_vm systemd-analyze security --no-pager --threshold=4 udsd.service >"$stage/security" ||
    fail "as loaded: $(tail -n 1 "$stage/security")"
  tail -n 1 "$stage/security"
  in_vm env "$path" systemd-analyze security --no-pager --offline=true --threshold=4 "$unit" >"$stage/security" ||
    fail "offline: $(tail -n 1 "$stage/security")"
  # It must have seen the drop-ins: with one that gives something away it fails.
  printf '[Service]\nPrivateNetwork=no\nProtectSystem=no\n' |
    put 0644 /dev/stdin /run/systemd/generator/udsd.service.d/99-lab.conf
  ! in_vm env "$path" systemd-analyze security --no-pager --offline=true --threshold=4 "$unit" >"$stage/security" ||
    fail "offline, drop-ins count for nothing"
  in_vm rm /run/systemd/generator/udsd.service.d/99-lab.conf
}

check_every_type_echoes_under_the_hardened_unit() {
  local said
  everything
  serves stream packets datagrams abstract abstract-packets abstract-datagrams
  # Answers go to a socket file too, which the unit sees, though read-only.
  said=$(in_vm lab-client packet /run/lab-datagrams.sock /run/lab-own.sock) || fail "from a socket file: $said"
  [ "$said" = hello ] || fail "from a socket file: $said"
  [ "$(echo audited | in_vm nc -NU -w "$WAIT" /run/lab-audited.sock)" = audited ] || fail "the audited echo"
  recorded '"message":"audited"' "$RECORDS/audit.json"
  no_complaints
}

check_relays_work_under_the_hardened_unit() {
  local said
  everything
  said=$(in_vm lab-client relay /run/lab-relay.sock) || fail "relay: $said"
  [ "$said" = "from the second" ] || fail "relay: $said"
  said=$(in_vm lab-client relay /run/lab-stamped.sock seqpacket) || fail "stamped: $said"
  [[ $said == *'"uid":0'*'"message'*'from the second'* ]] || fail "stamped: $said"
  recorded "uid=0 from the second" "$RECORDS/relay.txt"
  no_complaints
}

check_records_are_written_under_the_hardened_unit() {
  local folder
  everything
  sends journal "kept in the journal"
  sends state "kept as state"
  sends logs "kept as log"
  sends syslog "<13>Nov 22 05:49:01 app: kept as syslog"
  wait_until "the record in the journal" journal_has 1 '"message":"kept in the journal"'
  recorded '"message":"kept as state"' /var/lib/udsd/lab.json
  recorded "kept as log" /var/log/udsd/lab.raw
  recorded 'app: kept as syslog"' "$RECORDS/syslog.json"
  for folder in /var/lib/udsd /var/log/udsd; do
    [ "$(in_vm stat --format='%a %U %G' "$folder")" = "750 udsd udsd" ] || fail "$(in_vm ls -ld "$folder")"
  done
  no_complaints
}

check_access_is_judged_under_the_hardened_unit() {
  local said uid
  everything
  said=$(in_vm runuser --user member -- lab-client echo /run/lab-guarded.sock) || fail "member: $said"
  ! said=$(in_vm runuser --user outsider -- lab-client echo /run/lab-guarded.sock) || fail "outsider got in: $said"
  wait_until "a line that names the key" journal_has 1 "allow-groups"
  in_vm runuser --user outsider -- udsc --system --socket guarded-datagrams send "from outside"
  in_vm runuser --user member -- udsc --system --socket guarded-datagrams send "from a member"
  uid=$(in_vm id -u member)
  recorded '"message":"from a member"' "$RECORDS/guarded.json"
  in_vm grep --quiet "\"uid\":$uid,.*from a member" "$RECORDS/guarded.json" || fail "$(in_vm cat "$RECORDS/guarded.json")"
  # In the order they came, so it would stand there already.
  ! in_vm grep "from outside" "$RECORDS/guarded.json" || fail "outsider's datagram was taken"
}

check_an_abstract_socket_of_the_service_itself_is_told_as_out_of_reach() {
  local told="socket open (@lab-open): it is bound in the network namespace of udsd alone (PrivateNetwork=), nobody outside can reach it: let a socket unit make it: "
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.open]
path = "@lab-open"
EOF
  # The units know nothing of it yet.
  in_vm systemctl restart udsd.service
  journal_has 1 "$told" --priority=err..err || fail "nobody is told"
  ! journal_has 1 "may enter" || fail "it is said to be open to anybody"
  ! in_vm grep --quiet "@lab-open" /proc/net/unix || fail "it can be reached"
  # Where the manager passes nothing, the journal's end tells its network namespace.
  drop_in alone '[Service]' 'ExecStart=' 'ExecStart=/usr/bin/env -u LISTEN_FDS /usr/bin/udsd --socket @lab-open'
  in_vm systemctl stop udsd.service
  in_vm systemctl start udsd.service
  journal_has 2 "it is bound in the network namespace of udsd alone" --priority=err..err ||
    fail "alone, it does not know where it is"
  in_vm rm /run/systemd/system/udsd.service.d/alone.conf
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.open]
path = "@lab-open"
EOF
  apply
  in_vm systemctl restart udsd.service
  in_vm grep --quiet "@lab-open" /proc/net/unix || fail "it cannot be reached"
  journal_has 1 "(@lab-open): an abstract socket has no file mode, anyone on this machine may enter" ||
    fail "nobody is warned"
  journal_has 2 "it is bound in the network" && ! journal_has 3 "it is bound in the network" ||
    fail "it is still said to be out of reach"
}

# journald sends what it forwards under the credentials of who wrote the line: udsd's own lines come from udsd.
check_lines_of_its_own_that_journald_forwards_make_no_more_of_them() {
  local keys marker record=/var/log/udsd/forwarded.json own
  printf '[Journal]\nForwardToSyslog=yes\n' | put 0644 /dev/stdin /run/systemd/journald.conf.d/lab.conf
  trap forward_no_more EXIT
  in_vm systemctl restart systemd-journald.service
  for keys in '' 'allow-users = ["root"]'; do
    fresh <<EOF
[socket.forwarded]
path = "%t/systemd/journal/syslog"
type = "datagram"
mode = "0666"
service = "collect"
framing = "syslog"
record.file = "%L/udsd/forwarded.json"
$keys
[socket.talk]
path = "%t/udsd.sock"
EOF
    in_vm rm --force "$record"
    answers
    for marker in one two three four five; do
      # Whoever is refused here is told of in the log, which comes back.
      in_vm runuser --user outsider -- logger "refused or not"
      in_vm logger "marker $marker"
      recorded "marker $marker" "$record"
    done
    own=$(in_vm grep --count --fixed-strings -e 'udsd[' "$record") || true
    if [ -z "$keys" ]; then
      [ "$own" -ge 1 ] || fail "udsd's own lines are not recorded"
    else
      [ "$own" -eq 0 ] || fail "lines of a user who may not enter are recorded"
      wait_until "a line that names the key" journal_has 1 "allow-users"
    fi
    ! journal_has 1 "pid $(main_pid)," || fail "udsd's own lines make more of them"
  done
}

check_readme_records_all_that_journald_gets() {
  local commands record=/var/log/udsd/journal.json sender
  fresh <"$repo/config/udsd.toml"
  { cat "$repo/config/udsd.toml" && readme_block '[socket.journal]' toml; } | config
  in_vm rm --force "$record"
  commands=$(readme_block "systemctl mask --now syslog.socket")
  trap forward_nothing EXIT
  in_vm sh -exc "$commands" >"$stage/forwarding" 2>&1 || fail "$(cat "$stage/forwarding")"
  in_vm runuser --user member -- logger "by way of the journal"
  recorded "by way of the journal" "$record"
  sender=$(in_vm id --user member)
  in_vm grep --fixed-strings "by way of the journal" "$record" | grep --quiet "\"uid\":$sender," ||
    fail "not of uid $sender: $(in_vm cat "$record")"
}

# As it was before README.md's commands.
forward_nothing() {
  in_vm rm --force /etc/systemd/journald.conf.d/forward.conf
  in_vm systemctl unmask --quiet syslog.socket
  in_vm systemctl restart systemd-journald.service
}

# Also where the check fails, which is in a subshell of its own.
forward_no_more() {
  in_vm rm /run/systemd/journald.conf.d/lab.conf
  in_vm systemctl restart systemd-journald.service
}
