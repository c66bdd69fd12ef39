# shellcheck shell=bash
# That the units follow udsd.toml: what `systemctl daemon-reload` makes of an edit, and what
# `systemctl restart udsd.socket` then does. Part of tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  units_have_what_the_file_says
  edits_take_effect_by_reload_and_restart_of_udsd_socket
  a_bare_reload_after_an_edit_harms_nobody
  broken_file_leaves_the_default_units
  without_a_file_the_static_units_stand
  an_own_udsd_socket_is_left_alone
  udsd_socket_is_the_only_switch
  a_bad_socket_costs_its_own_unit_alone
  records_may_lie_in_any_folder
)

# All that an administrator does after an edit.
apply() {
  in_vm systemctl daemon-reload
  in_vm systemctl restart udsd.socket
}

# file_is WANTED PATH: mode, owner and group of a socket.
file_is() {
  local there
  there=$(in_vm stat --format='%F %a %U %G' "$2") || fail "$2 is missing"
  [ "$there" = "socket $1" ] || fail "$2 is $there; expected: $1"
}

# serves NAME...: each echo socket of the file answers.
serves() {
  local socket said
  for socket; do
    said=$(in_vm udsc --system --socket "$socket" ping --count 1 2>&1) || fail "$socket: $said"
    [[ $said == *"1 sent, 1 received"* ]] || fail "$socket: $said"
  done
}

# refuses PATH
refuses() {
  local said
  said=$(in_vm lab-client echo "$1") && fail "$1 answers"
  case $said in
    "connect: Connection refused" | "connect: No such file or directory") ;;
    *) fail "$1: $said" ;;
  esac
}

# Whether PID 1 has said so: it runs the generators under no unit.
generator_failed() {
  in_vm journalctl --sync
  in_vm journalctl --quiet --no-pager --since="$since" --output=cat |
    grep --quiet 'udsd-generator failed with exit status 1'
}

check_units_have_what_the_file_says() {
  local complaints name
  fresh <<'EOF'
[socket.first]
path = "%t/lab-first.sock"
mode = "0606"
user = "member"
group = "outsider"
[socket.plain]
path = "/var/run/lab-plain.sock"
[socket.odd]
path = "%t/lab %%t\"'\\x41\\"
mode = "0600"
group = 7
[socket.blank]
path = "%t/lab-blank "
type = "seqpacket"
[socket.datagrams]
path = "%t/lab-datagrams.sock"
type = "datagram"
mode = "0666"
user = "outsider"
[socket.abstract]
path = "@lab %%i \\"
allow-users = ["root"]
[socket.abstract-datagrams]
path = "@lab-datagrams"
type = "datagram"
allow-users = [0]
EOF
  file_is "606 member outsider" /run/lab-first.sock
  file_is "660 udsd udsd" /run/lab-plain.sock
  file_is "600 udsd lp" "/run/lab %t\"'\\x41\\"
  file_is "660 udsd udsd" "/run/lab-blank "
  file_is "666 outsider udsd" /run/lab-datagrams.sock
  in_vm test ! -e "$SOCKET" || fail "$SOCKET is there, and the file has no such path"
  for name in "@lab %i \\" @lab-datagrams; do
    in_vm grep --quiet --fixed-strings -e " $name" /proc/net/unix || fail "nobody listens on $name"
  done
  is inactive ActiveState || fail "udsd.service runs before anybody has connected"
  # A connection to any of them starts it, not only to the first.
  serves odd first plain blank datagrams abstract abstract-datagrams
  # Nothing that udsd would warn of: the owners and modes are as the file has them.
  complaints=$(journal --priority=warning --output=cat) || complaints=
  [ -z "$complaints" ] || fail "$complaints"
  complaints=$(in_vm sh -c 'systemd-analyze verify --man=no udsd.service udsd.socket /run/systemd/generator/udsd-*.socket' 2>&1)
  [ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
  in_vm systemd-analyze security --no-pager --threshold=4 udsd.service >"$stage/security" ||
    fail "systemd-analyze security: $(tail -n 1 "$stage/security")"
}

check_edits_take_effect_by_reload_and_restart_of_udsd_socket() {
  fresh <<'EOF'
[socket.a]
path = "%t/lab-1.sock"
[socket.b]
path = "%t/lab-2.sock"
[socket.c]
path = "%t/lab-c.sock"
[socket.d]
path = "%t/lab-d.sock"
[socket.gone]
path = "%t/lab-gone.sock"
EOF
  serves a b c d gone
  config <<'EOF'
[socket.a]
path = "%t/lab-2.sock"
mode = "0600"
[socket.b]
path = "%t/lab-1.sock"
[socket.c]
path = "%t/lab-c.sock"
mode = "0606"
user = "member"
group = "outsider"
[socket.d]
path = "%t/lab-moved.sock"
type = "seqpacket"
[socket.new]
path = "%t/lab-new.sock"
EOF
  is yes NeedDaemonReload udsd.socket || fail "systemctl does not say that the file has changed"
  apply
  is no NeedDaemonReload udsd.socket || fail "after the reload: the file still counts as changed"
  file_is "660 udsd udsd" /run/lab-1.sock
  file_is "600 udsd udsd" /run/lab-2.sock
  file_is "606 member outsider" /run/lab-c.sock
  file_is "660 udsd udsd" /run/lab-moved.sock
  file_is "660 udsd udsd" /run/lab-new.sock
  serves a b c d new
  refuses /run/lab-d.sock
  refuses /run/lab-gone.sock
  # Another first, and one that was taken out and may still be known to systemd.
  config <<'EOF'
[socket.gone]
path = "%t/lab-gone.sock"
[socket.a]
path = "%t/lab-2.sock"
EOF
  apply
  serves a gone
  file_is "660 udsd udsd" /run/lab-gone.sock
  file_is "660 udsd udsd" /run/lab-2.sock
  refuses /run/lab-1.sock
  refuses /run/lab-moved.sock
  refuses /run/lab-new.sock
}

check_a_bare_reload_after_an_edit_harms_nobody() {
  local pid
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
[socket.c]
path = "%t/lab-c.sock"
EOF
  serves a b c
  pid=$(main_pid)
  config <<'EOF'
[socket.a]
path = "%t/lab-elsewhere.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  # As the package of somebody else does it.
  in_vm systemctl daemon-reload
  for path in /run/lab-a.sock /run/lab-b.sock /run/lab-c.sock; do
    answer=$(in_vm lab-client echo "$path") || fail "$path: $answer"
  done
  is "$pid" MainPID || fail "the daemon was restarted"
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
}

check_broken_file_leaves_the_default_units() {
  local said
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
mode = "rw-rw----"
EOF
  # The lab has no kernel log of its own. PID 1 gives its generators nothing else to speak to.
  in_vm touch /dev/kmsg
  apply
  said=$(in_vm cat /dev/kmsg)
  in_vm rm /dev/kmsg
  [[ $said == *"<27>udsd-generator["*"]: /etc/udsd/udsd.toml:3: socket.a.mode: "* ]] ||
    fail "in the kernel's log: $said"
  wait_until "PID 1 says who failed" generator_failed
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
  file_is "660 udsd udsd" "$SOCKET"
  in_vm sh -c 'ls /run/systemd/generator' | grep udsd && fail "the generator has written units"
  # Mended, without more than what an edit takes.
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
EOF
  apply
  serves a
}

check_without_a_file_the_static_units_stand() {
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
EOF
  in_vm rm /etc/udsd/udsd.toml
  apply
  file_is "660 udsd udsd" "$SOCKET"
  answers
}

check_an_own_udsd_socket_is_left_alone() {
  fresh <<'EOF'
[socket.own]
path = "%t/lab-own.sock"
mode = "0600"
[socket.b]
path = "%t/lab-b.sock"
EOF
  printf '%s\n' '[Socket]' ListenStream=/run/lab-own.sock FileDescriptorName=own SocketMode=0666 |
    put 0644 /dev/stdin /etc/systemd/system/udsd.socket
  apply
  file_is "666 root root" /run/lab-own.sock
  file_is "660 udsd udsd" /run/lab-b.sock
  serves own b
  in_vm rm /etc/systemd/system/udsd.socket
  apply
  file_is "600 udsd udsd" /run/lab-own.sock
}

check_udsd_socket_is_the_only_switch() {
  local unit
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  in_vm systemctl disable --quiet --now udsd.socket
  in_vm systemctl daemon-reload
  for unit in udsd.socket udsd-b.socket udsd.service; do
    is inactive ActiveState "$unit" || fail "$unit is $(property ActiveState "$unit")"
  done
  in_vm sh -c 'ls /run/lab-[ab].sock 2>/dev/null' && fail "sockets outlived their units"
  in_vm systemctl enable --quiet --now udsd.socket
  serves b a
  in_vm systemctl stop udsd.socket
  for unit in udsd.socket udsd-b.socket udsd.service; do
    wait_until "$unit stops" is inactive ActiveState "$unit"
  done
}

check_a_bad_socket_costs_its_own_unit_alone() {
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.bad]
path = "%t/lab-bad.sock"
user = "nobody-of-that-name"
[socket.c]
path = "%t/lab-c.sock"
EOF
  wait_until "udsd-bad.socket fails" is failed ActiveState udsd-bad.socket
  is active ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket)"
  is active ActiveState udsd-c.socket || fail "udsd-c.socket is $(property ActiveState udsd-c.socket)"
  file_is "660 udsd udsd" /run/lab-a.sock
  file_is "660 udsd udsd" /run/lab-c.sock
}

check_records_may_lie_in_any_folder() {
  local folder='/srv/lab records "%d\'
  in_vm install -d -o udsd "$folder"
  fresh <<'EOF'
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "/srv/lab records \"%%d\\/log.json"
EOF
  echo kept | in_vm nc -NU -w "$WAIT" /run/lab-log.sock
  wait_until "the record" in_vm grep --quiet '"message":"kept"' "$folder/log.json"
  # A folder that is missing is a matter for udsd, which names it, not for systemd. At a start: a restart
  # goes on as before.
  in_vm systemctl stop udsd.service
  config <<'EOF'
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "/srv/lab-missing/log.json"
EOF
  apply
  ! in_vm systemctl start udsd.service 2>/dev/null || fail "it started without a folder for its record"
  wait_until "the fault" journal_has 1 "cannot write /srv/lab-missing/log.json"
}
