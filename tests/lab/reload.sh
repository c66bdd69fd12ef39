# shellcheck shell=bash
# `systemctl reload udsd`: what it applies, what it refuses, and how it says so. Part of
# tests/lab/checks.sh, whose words it uses, and those of tests/lab/units.sh.

CHECKS+=(
  reload_applies_a_changed_file
  reload_of_a_broken_file_fails_and_touches_nothing
  reload_leaves_to_the_units_what_is_theirs
  reload_brings_a_rotated_record_a_new_file
  the_shipped_rotation_keeps_every_line_also_while_udsd_is_stopped
  a_record_in_a_folder_of_the_service_alone_is_refused
  check_finds_what_a_start_would_as_far_as_it_may
)

# The service is as it was: the same process ($1), up, and done with the reload.
stands() {
  wait_until "the reload is over" is active ActiveState
  is "$1" MainPID || fail "process $1 is gone"
  is 0 NRestarts || fail "NRestarts=$(property NRestarts)"
}

check_reload_applies_a_changed_file() {
  local pid said
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  client owe "$SOCKET" 524288
  hear sent
  pid=$(main_pid)
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
clients = 1
EOF
  in_vm systemctl reload udsd.service || fail "systemctl reload failed"
  wait_until "the file is in force" journal_has 1 "reloaded /etc/udsd/udsd.toml"
  stands "$pid"
  said=$(in_vm lab-client echo "$SOCKET") && fail "a second client is served: $said"
  journal_has 1 "socket.udsd.clients = 1" || fail "the log does not name the new limit"
  # Who was here has noticed nothing.
  begin_stop
  tell read
  hear "end of file after 524288 bytes"
  end_stop
}

check_reload_of_a_broken_file_fails_and_touches_nothing() {
  local pid
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  pid=$(main_pid)
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
mode = "rw"
EOF
  ! in_vm systemctl reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
  stands "$pid"
  journal_has 1 "socket.udsd.mode" || fail "the journal does not name the key"
  journal_has 1 "reload failed, serving as before" || fail "the journal does not say what became of it"
  wait_until "the status says why" status_has 'reload failed: .*udsd.toml:3: socket.udsd.mode: '
  answers
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  in_vm systemctl reload udsd.service || fail "the mended file is refused"
  wait_until "the status is as before" status_has 'Status: "[0-9]* client'
}

check_reload_leaves_to_the_units_what_is_theirs() {
  local pid
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  pid=$(main_pid)
  config <<'EOF'
[socket.udsd]
path = "%t/lab-reloaded.sock"
message-size = "32KiB"
EOF
  ! in_vm systemctl reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
  wait_until "the status names the key" \
    status_has 'reload failed: .*socket.udsd.path.*udsc apply'
  stands "$pid"
  # Nothing of the file is in force.
  client owe "$SOCKET" 16
  hear sent
  answers
  in_vm test ! -e /run/lab-reloaded.sock || fail "there is a new socket"
  apply
  serves udsd
  in_vm test -S /run/lab-reloaded.sock || fail "the new socket is missing"
  ! status_has 'reload failed' || fail "the status still says that a reload failed"
}

check_the_shipped_rotation_keeps_every_line_also_while_udsd_is_stopped() {
  local record=/var/log/udsd/lab-events.json n said
  command -v logrotate >/dev/null || return 0
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
[socket.udsd.record]
file = "%L/udsd/lab-events.json"
EOF
  in_vm sh -c 'rm -f "$1"*' _ "$record"
  for n in 1 2 3 4; do
    said=$(echo "message $n" | in_vm lab-client send "$SOCKET") || fail "$said"
    wait_until "message $n is written" in_vm grep --quiet "message $n" "$record"
    [ "$n" != 3 ] || in_vm systemctl stop udsd.service
    said=$(in_vm logrotate --force --state=/root/lab-rotation /etc/logrotate.d/udsd 2>&1) || fail "logrotate: $said"
    [ -z "$said" ] || fail "logrotate: $said"
    [ "$n" = 3 ] || wait_until "a new file" in_vm test -e "$record"
  done
  said=$(in_vm sh -c 'zcat "$1".*.gz; cat "$1.1" "$1"' _ "$record" | sed -E 's/.*"message":"message ([0-9]+)".*/\1/' | sort | xargs)
  [ "$said" = "1 2 3 4" ] || fail "the records hold: $said"
  said=$(in_vm sh -c 'stat --format="%a %U %G" "$1"*' _ "$record" | sort -u)
  [ "$said" = "640 udsd udsd" ] || fail "the files are $said"
  # On busy cores udsd may write, and look, between the rename and the signal: it says so, and rightly.
  said=$(journal --output=cat --priority=warning | grep --fixed-strings "record $record" |
    grep --invert-match --fixed-strings "its file was moved away, and lines go on into it") || true
  [ -z "$said" ] || fail "udsd warns: $said"
  in_vm sh -c 'rm -f "$1"*' _ "$record"
}

check_reload_brings_a_rotated_record_a_new_file() {
  local record=/var/log/udsd/record n said
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
[socket.udsd.record]
file = "%L/udsd/record"
EOF
  in_vm rm -f "$record" "$record".{1,2,3}
  for n in 1 2 3; do
    said=$(echo "message $n" | in_vm lab-client send "$SOCKET") || fail "$said"
    # As logrotate does, with postrotate: systemctl reload udsd.
    wait_until "message $n is written" in_vm grep --quiet "message $n" "$record"
    in_vm mv "$record" "$record.$n"
    in_vm systemctl reload udsd.service || fail "systemctl reload failed"
    wait_until "a new file" in_vm test -e "$record"
  done
  said=$(echo "message 4" | in_vm lab-client send "$SOCKET") || fail "$said"
  wait_until "message 4 is written" in_vm grep --quiet "message 4" "$record"
  said=$(in_vm sh -c 'cat "$1.1" "$1.2" "$1.3" "$1"' _ "$record" | sed -E 's/.*"seq":([0-9]+),.*"message":"message ([0-9]+)".*/\1 \2/')
  [ "$said" = $'1 1\n2 2\n3 3\n4 4' ] || fail "the records hold: $said"
  said=$(in_vm stat --format='%a %U %G' "$record")
  [ "$said" = "640 udsd udsd" ] || fail "the new file is $said"
  in_vm rm -f "$record" "$record".{1,2,3}
}

check_a_record_in_a_folder_of_the_service_alone_is_refused() {
  local pid said refused="udsd.toml:6: socket.log.record.file: /tmp is the service's own (PrivateTmp=)"
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  answers
  pid=$(main_pid)
  config <<'EOF'
[socket.log]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
[socket.log.record]
file = "/tmp/lab.json"
EOF
  said=$(in_vm udsd --check 2>&1) && fail "udsd --check says that all is well"
  [[ $said == *"$refused"*'%L/udsd/lab.json'* ]] || fail "udsd --check: $said"
  said=$(in_vm /usr/lib/systemd/system-generators/udsd-generator /root/lab-units 2>&1) && fail "the generator says that all is well"
  [[ $said == *"$refused"* ]] || fail "the generator: $said"
  ! in_vm systemctl reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
  stands "$pid"
  answers
  # A restart goes on as before, and says so; a start has nothing to go on with.
  in_vm systemctl restart udsd.service
  answers
  wait_until "the status names the key" status_has 'restart: new udsd.toml refused: .*socket.log.record.file'
  in_vm systemctl stop udsd.service
  ! in_vm systemctl start udsd.service 2>/dev/null || fail "it starts"
  is 78 ExecMainStatus || fail "it ended with $(property ExecMainStatus)"
  journal_has 2 "$refused" || fail "the journal does not name the key"
  # What is hidden from the service is said so, and not that its folder is missing.
  in_vm sed -i 's,/tmp/lab.json,/home/lab-none/lab.json,' /etc/udsd/udsd.toml
  said=$(in_vm udsd --check 2>&1) && fail "udsd --check says that all is well"
  [[ $said == *"socket.log.record.file: /home is hidden from the service (ProtectHome=)"* && $said != *mkdir* ]] ||
    fail "udsd --check: $said"
  in_vm sed -i 's,/home/lab-none/lab.json,/tmp/lab.json,' /etc/udsd/udsd.toml
  # By hand, on another file, it is a record like any other.
  in_vm sh -c 'sed s,udsd.sock,lab-other.sock, /etc/udsd/udsd.toml >/root/other.toml'
  in_vm udsd --check --config /root/other.toml >/dev/null || fail "refused where no unit follows the file"
}

# checked USER WORDS: udsd --check, as the system's places have it for that user, says so; "": nothing.
checked() {
  local said
  # A user who is not root has a daemon and a file of their own; the variable is the service's.
  said=$(in_vm runuser --user "$1" -- env RUNTIME_DIRECTORY=/run/udsd udsd --check 2>&1 >/dev/null) || true
  [ "$said" = "$2" ] || [[ -n $2 && $said == *"$2"* ]] || fail "udsd --check as $1: $said; expected: $2"
}

check_check_finds_what_a_start_would_as_far_as_it_may() {
  local pid record=/srv/lab-sealed/record
  in_vm rm -rf /srv/lab-sealed /var/log/udsd
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
[socket.udsd.record]
file = "%L/udsd/record"
EOF
  # What the first start makes is not missing, and its own daemon is in nobody's way.
  in_vm udsd --check >/dev/null || fail "before the first start"
  in_vm systemctl start udsd.service
  pid=$(main_pid)
  checked udsd ""
  checked root "note: the service runs as user udsd, and this check as uid 0: whether it may write /var/log/udsd/record was not tried"
  checked outsider "whether it may write /var/log/udsd/record was not tried; for that, run it as that user: runuser -u udsd -- env -u XDG_RUNTIME_DIR RUNTIME_DIRECTORY=/run/udsd udsd --check"
  in_vm systemctl reload udsd.service || fail "the reload of the same file fails"
  config <<EOF
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
[socket.udsd.record]
file = "$record"
EOF
  for said in root udsd outsider; do
    checked $said "udsd.toml:6: socket.udsd.record.file: cannot write $record: No such file or directory (os error 2); create the folder first: mkdir -p /srv/lab-sealed"
  done
  # Root alone can write there.
  in_vm mkdir -m 755 /srv/lab-sealed
  checked udsd "must be able to create files in /srv/lab-sealed"
  checked root "whether it may write $record was not tried"
  in_vm udsd --check >/dev/null 2>&1 || fail "what could not be tried is a fault"
  ! in_vm systemctl reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
  stands "$pid"
  wait_until "the status says why" status_has 'reload failed: .*socket.udsd.record.file'
  in_vm test ! -e "$record" || fail "there is a record"
  in_vm rm -rf /srv/lab-sealed
}
