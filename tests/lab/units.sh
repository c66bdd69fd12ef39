# shellcheck shell=bash
# That the units follow udsd.toml: what `systemctl daemon-reload` makes of an edit, and what
# `udsc apply` then does. Part of tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  units_have_what_the_file_says
  edits_take_effect_by_udsc_apply
  a_bare_reload_after_an_edit_harms_nobody
  a_faulty_table_costs_its_own_socket_alone
  a_broken_text_leaves_the_last_good_units
  a_broken_text_without_a_last_good_file_leaves_the_default_units
  without_a_file_the_static_units_stand
  an_own_udsd_socket_is_left_alone
  udsd_socket_is_the_only_switch
  a_bad_socket_costs_its_own_unit_alone
  records_may_lie_in_any_folder
  clients_stay_while_sockets_move_come_and_go
  a_bare_reload_and_a_restart_keep_everybody
  a_socket_that_cannot_be_bound_costs_only_itself
  a_broken_file_costs_no_client
  nobody_falls_between_idle_ends_and_restarts
)

# All that an administrator does after an edit. What it printed goes to $stage/applied.
apply() {
  in_vm udsc apply >"$stage/applied" 2>&1 || fail "udsc apply: $(cat "$stage/applied")"
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

# Clients that stay while others come: hears and tells by $staying.
stay() {
  client stay "$@"
  hear here
  staying=("$to_client" "$from_client")
}

# go_on PATTERN: those who stay go on with what they were in the middle of.
go_on() {
  to_client=${staying[0]} from_client=${staying[1]}
  tell on
  hear "$1"
}

# begin_visits PATH [SPAN]: somebody connects in a loop.
begin_visits() {
  client visit "$@"
  hear visiting
  visiting=("$to_client" "$from_client")
}

# end_visits PATTERN: what came of it.
end_visits() {
  to_client=${visiting[0]} from_client=${visiting[1]}
  tell stop
  hear "$1"
  echo "$heard"
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
  # What the service may not have by itself.
  is 33554432 SendBuffer udsd-datagrams.socket ||
    fail "udsd-datagrams.socket has not the send buffer of an echo"
  # Nothing that udsd would warn of: the owners and modes are as the file has them.
  complaints=$(journal --priority=warning --output=cat) || complaints=
  [ -z "$complaints" ] || fail "$complaints"
  complaints=$(in_vm sh -c 'systemd-analyze verify --man=no udsd.service udsd.socket /run/systemd/generator/udsd-*.socket' 2>&1)
  [ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
  in_vm systemd-analyze security --no-pager --threshold=4 udsd.service >"$stage/security" ||
    fail "systemd-analyze security: $(tail -n 1 "$stage/security")"
}

check_edits_take_effect_by_udsc_apply() {
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

# As at a boot with the file as it is: all units begin anew. What the generator says goes to `said`.
begin_anew() {
  in_vm systemctl stop udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null
  # The lab has no kernel log of its own. PID 1 gives its generators nothing else to speak to.
  in_vm touch /dev/kmsg
  in_vm systemctl daemon-reload
  said=$(in_vm cat /dev/kmsg)
  in_vm rm /dev/kmsg
  in_vm systemctl start udsd.socket
}

# listens PATH: somebody does.
listens() {
  in_vm grep --quiet --extended-regexp "^[^ ]+: [0-9A-F]+ [0-9A-F]+ 00010000 .* $1\$" /proc/net/unix
}

# The fault is told once by the generator, and shown where one looks for a socket. fault_is_told FAULT
fault_is_told() {
  [ "$(grep --count --fixed-strings -e "$1" <<<"$said")" = 1 ] || fail "in the kernel's log: $said"
  wait_until "PID 1 says who failed" generator_failed
  grep --quiet --fixed-strings -e "(fault: $1" <<<"$(in_vm systemctl status --no-pager --full --lines=0 udsd.socket || true)" ||
    fail "systemctl status does not name the fault: $(in_vm systemctl status --no-pager --full udsd.socket)"
  journal_has 1 "Message socket of udsd (fault: $1" || fail "the journal does not name the fault"
}

check_a_faulty_table_costs_its_own_socket_alone() {
  local said n
  local -a waiting
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
[socket.c]
path = "%t/lab-c.sock"
EOF
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
mode = "rw-rw----"
[socket.c]
path = "%t/lab-c.sock"
EOF
  # Nobody runs. A package's daemon-reload, then a boot.
  in_vm systemctl daemon-reload
  for n in a c; do
    listens "/run/lab-$n.sock" || fail "after a daemon-reload nobody listens at /run/lab-$n.sock"
  done
  begin_anew
  for n in a c; do
    listens "/run/lab-$n.sock" || fail "after a boot nobody listens at /run/lab-$n.sock"
  done
  ! listens /run/lab-b.sock || fail "a socket without a mode listens"
  fault_is_told "/etc/udsd/udsd.toml:5: socket.b.mode: "
  [[ $said == *"<27>udsd-generator["*"]: until that is mended, socket b has no unit"* ]] || fail "$said"
  # Who comes meanwhile waits, and is served once the file is mended.
  for n in a c; do
    in_vm lab-client echo "/run/lab-$n.sock" "waits $n" >"$stage/waits-$n" &
    waiting+=($!)
  done
  wait_until "udsd refuses the file" journal_has 1 "status=78/CONFIG"
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
[socket.c]
path = "%t/lab-c.sock"
EOF
  for n in "${waiting[@]}"; do
    wait "$n" || fail "a client that waited was not served: $(cat "$stage"/waits-*)"
  done
  apply
  serves a b c
  ! grep --quiet fault <<<"$(in_vm systemctl status --no-pager --full --lines=0 udsd.socket)" || fail "the status still tells a fault"
}

check_a_broken_text_leaves_the_last_good_units() {
  local said
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
mode = "0600"
EOF
  in_vm sh -c 'umask 022; udsd --check >/etc/udsd/.last-good.toml'
  echo '[socket.a' | config
  in_vm systemctl daemon-reload
  { listens /run/lab-a.sock && listens /run/lab-b.sock; } || fail "sockets are gone after a daemon-reload"
  begin_anew
  file_is "660 udsd udsd" /run/lab-a.sock
  file_is "600 udsd udsd" /run/lab-b.sock
  { listens /run/lab-a.sock && listens /run/lab-b.sock; } || fail "sockets are gone after a boot"
  fault_is_told "/etc/udsd/udsd.toml:1: not TOML at column "
  # What others may have written directs nobody.
  in_vm chown udsd /etc/udsd/.last-good.toml
  begin_anew
  [[ $said == *"/etc/udsd/.last-good.toml: is not believed"* ]] || fail "$said"
  ! listens /run/lab-b.sock || fail "units follow a file of the user udsd"
}

check_a_broken_text_without_a_last_good_file_leaves_the_default_units() {
  local said
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  echo '[socket.a' | config
  begin_anew
  file_is "660 udsd udsd" "$SOCKET"
  fault_is_told "/etc/udsd/udsd.toml:1: not TOML at column "
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
  in_vm systemctl daemon-reload
  ! in_vm systemctl start udsd.service 2>/dev/null || fail "it started without a folder for its record"
  wait_until "the fault" journal_has 1 "cannot write /srv/lab-missing/log.json"
}

check_clients_stay_while_sockets_move_come_and_go() {
  local said staying visiting _
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.moved]
path = "%t/lab-before.sock"
framing = "lines"
[socket.gone]
path = "%t/lab-gone.sock"
framing = "lines"
[socket.p]
path = "%t/lab-packets"
type = "seqpacket"
[socket.d]
path = "%t/lab-d.sock"
type = "datagram"
[socket.abstract]
path = "@lab abstract"
allow-users = ["root"]
EOF
  stay a=/run/lab-a.sock moved=/run/lab-before.sock gone=/run/lab-gone.sock p=/run/lab-packets
  serves d abstract
  begin_visits /run/lab-a.sock
  config <<'EOF'
[socket.new]
path = "%t/lab-new.sock"
mode = "0606"
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.moved]
path = "%t/lab-after.sock"
mode = "0600"
user = "member"
group = "outsider"
framing = "lines"
[socket.p]
path = "%t/lab-packets"
type = "seqpacket"
mode = "0666"
[socket.d]
path = "%t/lab-moved.sock"
type = "datagram"
mode = "0622"
[socket.new-packets]
path = "%t/lab-new-packets"
type = "seqpacket"
[socket.abstract]
path = "@lab other"
allow-users = ["root"]
EOF
  apply
  go_on "a goes on, moved goes on, gone got what it was owed, p goes on"
  end_visits "visited * times, refused * times, cut off * times, longest * ms"
  file_is "606 udsd udsd" /run/lab-new.sock
  file_is "660 udsd udsd" /run/lab-a.sock
  file_is "600 member outsider" /run/lab-after.sock
  file_is "666 udsd udsd" /run/lab-packets
  file_is "622 udsd udsd" /run/lab-moved.sock
  file_is "660 udsd udsd" /run/lab-new-packets
  serves new a moved p d new-packets abstract
  refuses /run/lab-before.sock
  refuses /run/lab-gone.sock
  ! in_vm grep --quiet "@lab abstract" /proc/net/unix || fail "somebody listens at @lab abstract"
  # Systemd forgets what the file no longer has.
  is not-found LoadState udsd-gone.socket || fail "udsd-gone.socket is $(property LoadState udsd-gone.socket)"
  is inactive ActiveState udsd-gone.socket || fail "udsd-gone.socket is $(property ActiveState udsd-gone.socket)"
  go_on "a goes on, moved goes on, p goes on"
  # The same without an edit. Between the end of a file and the next one there is none.
  begin_visits /run/lab-a.sock
  for _ in 1 2 3; do
    in_vm systemctl restart udsd.socket
    go_on "a goes on, moved goes on, p goes on"
    in_vm systemctl restart udsd.service
    go_on "a goes on, moved goes on, p goes on"
  done
  end_visits "visited * times, refused * times, cut off * times, longest * ms"
  serves new a moved p d new-packets abstract
  is 0 NRestarts || fail "NRestarts=$(property NRestarts)"
  said=$(journal --priority=err --output=cat) || said=
  [ -z "$said" ] || fail "$said"
}

check_a_bare_reload_and_a_restart_keep_everybody() {
  local said staying visiting _
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  stay a=/run/lab-a.sock b=/run/lab-b.sock
  config <<'EOF'
[socket.a]
path = "%t/lab-elsewhere.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  in_vm systemctl daemon-reload
  begin_visits /run/lab-a.sock
  for _ in 1 2 3; do
    in_vm systemctl restart udsd
    go_on "a goes on, b goes on"
  done
  end_visits "visited * times, refused 0 times, cut off 0 times, longest * ms"
  journal_has 1 ": udsc apply" --priority=warning..warning ||
    fail "the log does not name the remedy"
  # Somebody else's package once more.
  in_vm systemctl daemon-reload
  go_on "a goes on, b goes on"
  said=$(in_vm lab-client echo /run/lab-a.sock) || fail "the old path: $said"
  apply
  go_on "a goes on, b goes on"
  serves a b
  file_is "660 udsd udsd" /run/lab-elsewhere.sock
  refuses /run/lab-a.sock
}

check_a_socket_that_cannot_be_bound_costs_only_itself() {
  local staying
  in_vm sh -c 'echo a file >/run/lab-taken'
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
EOF
  stay a=/run/lab-a.sock
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.bad]
path = "%t/lab-taken/bad.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  ! in_vm udsc apply >"$stage/applied" 2>&1 || fail "udsc apply says that all is well: $(cat "$stage/applied")"
  grep --quiet '^bad .* FAILED: nothing there; journalctl --unit=udsd-bad.socket says why$' "$stage/applied" ||
    fail "udsc apply does not name the socket: $(cat "$stage/applied")"
  go_on "a goes on"
  serves a b
  is failed ActiveState udsd-bad.socket || fail "udsd-bad.socket is $(property ActiveState udsd-bad.socket)"
  journal_has 1 "socket bad (/run/lab-taken/bad.sock): nobody can reach it, the others are served: udsc apply" \
    --priority=err..err || fail "the log does not say what to run"
  in_vm rm /run/lab-taken
  apply
  go_on "a goes on"
  serves a b bad
}

check_a_broken_file_costs_no_client() {
  local staying visiting path said
  fresh <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  stay a=/run/lab-a.sock b=/run/lab-b.sock
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
mode = "rw-rw----"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  begin_visits /run/lab-b.sock
  in_vm systemctl restart udsd
  go_on "a goes on, b goes on"
  end_visits "visited * times, refused 0 times, cut off 0 times, longest * ms"
  journal_has 1 "socket.a.mode" --priority=err..err || fail "the log does not name the key"
  wait_until "the status names the key" status_has 'Status: ".*socket.a.mode'
  # Systemd makes the same sockets anew; then, told of the file, those of its sound tables.
  for said in "restart udsd.socket" daemon-reload "restart udsd.socket"; do
    # shellcheck disable=SC2086 # words are meant
    in_vm systemctl $said
    go_on "a goes on, b goes on"
    for path in /run/lab-a.sock /run/lab-b.sock; do
      answer=$(in_vm lab-client echo "$path") || fail "after $said, $path: $answer"
    done
    wait_until "the status names the key" status_has 'Status: ".*socket.a.mode'
  done
  config <<'EOF'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
mode = "0600"
[socket.b]
path = "%t/lab-b.sock"
framing = "lines"
EOF
  apply
  go_on "a goes on, b goes on"
  serves a b
  file_is "600 udsd udsd" /run/lab-a.sock
}

check_nobody_falls_between_idle_ends_and_restarts() {
  local visiting n
  fresh <<'EOF'
[daemon]
exit-on-idle = "1s"
[socket.a]
path = "%t/lab-a.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  # With pauses of more and less than that.
  begin_visits /run/lab-a.sock 2000
  for n in {1..4}; do
    wait_until "idle end $n" is inactive ActiveState
    in_vm systemctl restart udsd.service
    serves b
    in_vm systemctl restart udsd.service
  done
  end_visits "visited * times, refused 0 times, cut off 0 times, longest * ms"
  journal_has 4 "idle for 1s" || fail "it did not end for want of clients"
}
