# shellcheck shell=bash
# `udsc apply`: what it does with an edit, what it leaves alone, and that its exit code is true. Part of
# tests/lab/checks.sh, whose words it uses, and those of tests/lab/units.sh and users.sh.

CHECKS+=(
  apply_of_a_faulty_file_touches_nothing
  apply_makes_anew_what_changed_and_nothing_else
  apply_cures_what_a_bare_reload_has_broken
  apply_is_true_whatever_the_state
  apply_opens_folders_for_records
  apply_serves_one_user
  apply_leaves_alone_what_somebody_else_serves
  apply_says_why_the_daemon_did_not_follow
)

# applied SOCKET PATTERN: the last line of the table about it.
applied() {
  local line
  line=$(grep "^$1 " "$stage/applied") || fail "apply says nothing of $1: $(cat "$stage/applied")"
  # shellcheck disable=SC2053 # a pattern is meant
  [[ $line == $2 ]] || fail "apply says: $line; expected: $2"
}

# apply_fails PATTERN: it must, with this on its last line.
apply_fails() {
  local last
  ! in_vm udsc apply >"$stage/applied" 2>&1 || fail "udsc apply exits 0: $(cat "$stage/applied")"
  last=$(tail -n 1 "$stage/applied")
  # shellcheck disable=SC2053 # a pattern is meant
  [[ $last == $1 ]] || fail "udsc apply ends with: $last; expected: $1"
}

# lives UNIT...: which lives of these units are running.
lives() {
  property InvocationID "$@" | xargs
}

check_apply_of_a_faulty_file_touches_nothing() {
  local staying before fault pid
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  apply
  stay a=/run/lab-a.sock b=/run/lab-b.sock
  pid=$(main_pid)
  before=$(in_vm stat --format=%Y.%Z.%i /etc/udsd/.last-good.toml)
  for fault in 'mode = "rw-rw----"' 'mode = "0060' 'user = "nobody-of-that-name"'; do
    config <<EOF
[socket.a]
path = "%t/lab-moved.sock"
framing = "lines"
$fault
EOF
    apply_fails "udsc: nothing was changed: mend the file first"
    grep --quiet "^udsd: /etc/udsd/udsd.toml:4: " "$stage/applied" || fail "it does not name the line: $(cat "$stage/applied")"
    is yes NeedDaemonReload udsd.socket || fail "systemd was told of a faulty file"
    go_on "a goes on, b goes on"
    serves_at /run/lab-a.sock /run/lab-b.sock
    is "$pid" MainPID || fail "the daemon was restarted"
    [ "$(in_vm stat --format=%Y.%Z.%i /etc/udsd/.last-good.toml)" = "$before" ] || fail "the last good file is another"
  done
}

serves_at() {
  local path answer
  for path; do
    answer=$(in_vm lab-client echo "$path") || fail "$path: $answer"
  done
}

# Who sends to a datagram socket of the record all the while: begin_sending PATH, then sends TEXT.
begin_sending() {
  client datagrams "$1"
  hear connected
  sending=("$to_client" "$from_client")
}

sends_on() {
  to_client=${sending[0]} from_client=${sending[1]}
  tell "$1"
  hear sent
  wait_until "'$1' is recorded" journal_has 1 "$1" SYSLOG_IDENTIFIER=udsd
}

check_apply_makes_anew_what_changed_and_nothing_else() {
  local staying sending visiting before n=0 line
  local -a edits
  fresh <<'EOF'
[socket.first]
path = "%t/lab-first.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
[socket.d]
path = "%t/lab-d.sock"
type = "datagram"
service = "collect"
[socket.gone]
path = "%t/lab-gone.sock"
EOF
  apply
  applied d "*as it was"
  applied - "*not running: the next client starts it"
  in_vm udsc apply --json >"$stage/applied" || fail "udsc apply --json failed"
  grep --quiet --line-regexp --fixed-strings \
    '{"name":"d","now":"as it was","ok":true,"path":"/run/lab-d.sock","unit":"udsd-d.socket"}' "$stage/applied" ||
    fail "udsc apply --json says: $(cat "$stage/applied")"
  begin_sending /run/lab-d.sock
  sends_on "at first"
  stay first=/run/lab-first.sock b=/run/lab-b.sock
  before=$(lives udsd-b.socket udsd-d.socket)
  # The first socket, on which all others hang, in each of its ways; one that comes, one that goes.
  edits=(
    'path = "%t/lab-first.sock" mode = "0600"'
    'path = "%t/lab-first.sock" mode = "0600" user = "member"'
    'path = "%t/lab-first.sock" mode = "0600" user = "member" group = "outsider"'
    'path = "%t/lab-first.sock" mode = "0600" backlog = 7'
    'path = "%t/lab-moved.sock"'
  )
  begin_visits /run/lab-b.sock
  for line in "${edits[@]}"; do
    n=$((n + 1))
    config <<EOF
[socket.first]
framing = "lines"
${line//\" /\"$'\n'}
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
[socket.d]
path = "%t/lab-d.sock"
type = "datagram"
service = "collect"
[socket.new-$n]
path = "%t/lab-new-$n.sock"
EOF
    apply
    applied first "*made anew; *"
    applied b "*as it was"
    applied d "*as it was"
    applied "new-$n" "*started"
    applied - "*restarted, with all its clients"
    serves first b "new-$n"
    go_on "first goes on, b goes on"
    sends_on "after edit $n"
    [ "$(lives udsd-b.socket udsd-d.socket)" = "$before" ] || fail "sockets were made anew that had not changed"
    # The one before is gone, to its file.
    line="new-$((n - 1))"
    [ "$n" -gt 1 ] || line=gone
    applied "$line" "*stopped; the dead /run/lab-$line.sock removed"
    in_vm test ! -e "/run/lab-$line.sock" || fail "/run/lab-$line.sock is left"
    is inactive ActiveState "udsd-$line.socket" || fail "udsd-$line.socket is $(property ActiveState "udsd-$line.socket")"
    is 0 NRestarts || fail "NRestarts=$(property NRestarts)"
  done
  end_visits "visited * times, refused 0 times, cut off 0 times, longest * ms"
  applied first "*; the dead /run/lab-first.sock removed"
  in_vm test ! -e /run/lab-first.sock || fail "/run/lab-first.sock is left"
  # What is no matter of the units needs no restart.
  before="$before $(main_pid)"
  in_vm sed -i 's/^framing.*/&\nidle-timeout = "1h"/' /etc/udsd/udsd.toml
  apply
  applied first "*as it was"
  applied - "*reloaded"
  [ "$(lives udsd-b.socket udsd-d.socket) $(main_pid)" = "$before" ] || fail "a reload was enough"
  go_on "first goes on, b goes on"
}

check_apply_cures_what_a_bare_reload_has_broken() {
  local staying
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
[socket.c]
path = "%t/lab-c.sock"
framing = "lines"
EOF
  apply
  stay a=/run/lab-a.sock b=/run/lab-b.sock
  # The units have the file's words at once, the sockets have not.
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
mode = "0600"
[socket.b]
path = "%t/lab-moved.sock"
framing = "lines"
EOF
  in_vm systemctl daemon-reload
  apply
  applied a "*made anew; before: mode 0660"
  applied b "*made anew; before: nothing there; the dead /run/lab-b.sock removed"
  applied c "*stopped; the dead /run/lab-c.sock removed"
  file_is "600 udsd udsd" /run/lab-a.sock
  serves a b
  go_on "a goes on, b goes on"
  # There and back: the socket looks right, and systemd no longer has it.
  in_vm sed -i s/lab-moved/lab-elsewhere/ /etc/udsd/udsd.toml
  in_vm systemctl daemon-reload
  in_vm sed -i s/lab-elsewhere/lab-moved/ /etc/udsd/udsd.toml
  in_vm systemctl daemon-reload
  apply
  applied a "*as it was"
  applied b "*made anew; before: not in systemd's hands"
  go_on "a goes on, b goes on"
  in_vm systemctl stop udsd.service
  listens /run/lab-moved.sock || fail "without udsd nobody listens"
  # Without udsd, the same leaves a dead file.
  in_vm sed -i s/lab-moved/lab-elsewhere/ /etc/udsd/udsd.toml
  in_vm systemctl daemon-reload
  apply
  applied b "*made anew; before: nothing there; the dead /run/lab-moved.sock removed"
  serves a b
}

check_apply_is_true_whatever_the_state() {
  local n said
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  apply
  # A socket was stopped, its file removed, another's file is in its place: each time it is as the file
  # says afterwards.
  for said in "systemctl stop udsd-b.socket" "rm /run/lab-b.sock" "chmod 0777 /run/lab-b.sock" \
    "sh -c 'rm /run/lab-b.sock; touch /run/lab-b.sock'"; do
    for n in 1 2; do
      eval "in_vm $said"
      apply
      applied a "*as it was"
      file_is "660 udsd udsd" /run/lab-b.sock
      serves a b
    done
  done
  # Two sockets change places.
  config <<'EOF'
[socket.c]
path = "%t/lab-c.sock"
[socket.a]
path = "%t/lab-b.sock"
[socket.b]
path = "%t/lab-a.sock"
EOF
  apply
  serves a b c
  # Who has an own udsd.socket decides its mode.
  printf '%s\n' '[Socket]' ListenStream=/run/lab-c.sock FileDescriptorName=c SocketMode=0666 |
    put 0644 /dev/stdin /etc/systemd/system/udsd.socket
  apply
  applied c "*made anew; before: mode 0660, user *"
  file_is "666 root root" /run/lab-c.sock
  apply
  applied c "*as it was"
  in_vm rm /etc/systemd/system/udsd.socket
  # A send buffer is the unit's word, the administrator's before all.
  config <<'EOF'
[socket.c]
path = "%t/lab-c.sock"
[socket.d]
path = "%t/lab-d.sock"
type = "datagram"
EOF
  apply
  printf '[Socket]\nSendBuffer=64M\n' | put 0644 /dev/stdin /etc/systemd/system/udsd-d.socket.d/lab.conf
  apply
  applied d "*made anew; before: send buffer *"
  apply
  applied d "*as it was"
  # So are mode, owner and backlog.
  printf '[Socket]\nSocketMode=0640\nSocketUser=member\n' | put 0644 /dev/stdin /etc/systemd/system/udsd-d.socket.d/lab.conf
  printf '[Socket]\nBacklog=7\n' | put 0644 /dev/stdin /etc/systemd/system/udsd.socket.d/lab.conf
  apply
  applied c "*made anew; before: backlog *"
  applied d "*made anew; before: mode 0660, user *"
  file_is "640 member udsd" /run/lab-d.sock
  apply
  applied c "*as it was"
  applied d "*as it was"
  in_vm rm -r /etc/systemd/system/udsd-d.socket.d /etc/systemd/system/udsd.socket.d
  # Switched off is off.
  in_vm systemctl disable --quiet --now udsd.socket
  apply_fails "udsc: udsd.socket is disabled, so there are no sockets: systemctl enable --now udsd.socket"
  is inactive ActiveState udsd.socket || fail "a disabled socket was started"
  in_vm systemctl enable --quiet udsd.socket
  apply
  serves c d
  # Not for everybody.
  said=$(in_vm runuser --user member -- udsc apply 2>&1) && fail "member may apply: $said"
  [[ $said == "udsc: the system's sockets are root's: "* ]] || fail "$said"
}

check_apply_opens_folders_for_records() {
  in_vm install -d -o udsd /srv/lab-applied
  fresh <<'EOF'
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/lab-applied.json"
EOF
  apply
  echo before | in_vm nc -NU -w "$WAIT" /run/lab-log.sock
  config <<'EOF'
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "/srv/lab-applied/log.json"
EOF
  apply
  applied log "*as it was"
  applied - "*restarted, with all its clients"
  echo after | in_vm nc -NU -w "$WAIT" /run/lab-log.sock
  wait_until "the record" in_vm grep --quiet '"message":"after"' /srv/lab-applied/log.json
  in_vm rm /var/log/udsd/lab-applied.json
}

check_apply_serves_one_user() {
  local staying said
  fresh_resident
  own_config <<'END'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
END
  apply_resident
  stay a="$runtime/lab-a.sock" b="$runtime/lab-b.sock"
  own_config <<'END'
[socket.a]
path = "%t/lab-moved.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
END
  as_resident systemctl --user daemon-reload
  apply_resident
  applied a "*made anew; before: nothing there; the dead $runtime/lab-a.sock removed"
  applied b "*as it was"
  applied - "*restarted, with all its clients"
  go_on "a goes on, b goes on"
  as_resident systemctl --user daemon-reload
  # Given up by the user's manager, and back.
  for said in elsewhere moved; do
    as_resident sed -i "2s/.*/path = \"%t\/lab-$said.sock\"/" "$HOME_FOLDER/.config/udsd/udsd.toml"
    as_resident systemctl --user daemon-reload
  done
  apply_resident
  applied a "*made anew; before: not in systemd's hands"
  go_on "a goes on, b goes on"
  echo 'nonsense' | own_config
  said=$(as_resident udsc --user apply 2>&1) && fail "a faulty file is applied: $said"
  [[ $said == *"$HOME_FOLDER/.config/udsd/udsd.toml:1: "*"nothing was changed"* ]] || fail "$said"
  # The last good one stands in for it.
  as_resident systemctl --user daemon-reload
  as_resident systemctl --user restart udsd.socket
  go_on "a goes on, b goes on"
  in_vm test -e "$runtime/lab-moved.sock" || fail "the user's socket is gone"
}

check_apply_leaves_alone_what_somebody_else_serves() {
  local n listen
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
[socket.c]
path = "%t/lab-c.sock"
[socket.d]
path = "%t/lab-d.sock"
type = "datagram"
EOF
  apply
  # One in another network namespace, whose sockets the kernel does not list here; of each type.
  in_vm rm /run/lab-b.sock /run/lab-d.sock
  n=0
  for listen in "-klU /run/lab-b.sock" "-kluU /run/lab-d.sock"; do
    n=$((n + 1))
    # shellcheck disable=SC2086 # words
    in_vm systemd-run --quiet --unit="lab-other-$n" --property=PrivateNetwork=yes nc $listen
  done
  # One of another unit's.
  printf '%s\n' '[Socket]' ListenStream=/run/lab-c.sock Accept=yes | put 0644 /dev/stdin /run/systemd/system/lab-own.socket
  printf '%s\n' '[Service]' ExecStart=/bin/cat StandardInput=socket |
    put 0644 /dev/stdin /run/systemd/system/lab-own@.service
  in_vm systemctl daemon-reload
  in_vm systemctl start lab-own.socket
  for n in b d; do
    wait_until "somebody else is at /run/lab-$n.sock" in_vm test -S "/run/lab-$n.sock"
  done
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
EOF
  apply
  applied b "*stopped; /run/lab-b.sock is somebody else's now"
  applied d "*stopped; /run/lab-d.sock is somebody else's now"
  applied c "*stopped; /run/lab-c.sock is lab-own.socket's now"
  for n in b c d; do
    in_vm test -S "/run/lab-$n.sock" || fail "/run/lab-$n.sock, which somebody serves, was removed"
  done
  in_vm systemctl stop lab-other-1 lab-other-2 lab-own.socket
  in_vm rm -f /run/lab-[bcd].sock /run/systemd/system/lab-own*
  in_vm systemctl daemon-reload
}

check_apply_says_why_the_daemon_did_not_follow() {
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/lab-told.json"
EOF
  apply
  in_vm systemctl start udsd.service
  # What root's check cannot try, the service finds at the reload.
  in_vm install -d -m 755 /var/log/udsd/lab-sealed
  in_vm sed -i s,udsd/lab-told,udsd/lab-sealed/told, /etc/udsd/udsd.toml
  apply_fails "udsc: 1 is not as the file says"
  applied - "*FAILED: reload failed: *socket.a.record.file: *; journalctl --unit=udsd.service says why"
  in_vm rm -r /var/log/udsd/lab-sealed
  in_vm sed -i s,udsd/lab-sealed/told,udsd/lab-told, /etc/udsd/udsd.toml
  apply
  # One that cannot start says nothing itself.
  drop_in lab '[Service]' ExecStartPre=/bin/false
  in_vm sed -i s,lab-a,lab-moved, /etc/udsd/udsd.toml
  apply_fails "udsc: * not as the file says"
  applied - "*FAILED: Job for udsd.service failed*; journalctl --unit=udsd.service says why"
}
