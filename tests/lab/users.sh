# shellcheck shell=bash
# What udsd promises to one user under `systemctl --user`, in a manager that logind has started for an
# ordinary user who lingers. Part of tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  user_units_are_sound
  readme_installs_for_one_user
  users_first_connection_starts_udsd
  users_stop_leaves_the_socket_alone
  users_quick_restarts_cost_no_socket
  users_own_file_and_records
  user_units_follow_the_users_file
  users_units_know_nothing_of_the_systems_file
  users_restart_keeps_clients
  udsc_finds_the_users_daemon
  users_broken_config_costs_no_socket
  users_service_is_confined
  users_service_knows_its_peers
)

readonly UNITS=/usr/lib/systemd/user
readonly HOME_FOLDER=/home/resident

# --- words of these checks -------------------------------------------------------------------------

# Who lives in the lab, with a manager that runs; made by the first check that needs it. From then on a
# failed check also shows the state of that user's units.
resident() {
  trap '[ $? -eq 0 ] || show_resident >&2' EXIT
  in_vm id resident >/dev/null 2>&1 || in_vm useradd --create-home resident
  uid=$(in_vm id -u resident)
  runtime=/run/user/$uid
  in_vm loginctl enable-linger resident
  in_vm systemctl start "user@$uid.service"
}

show_resident() {
  trap - ERR
  as_resident systemctl --user status --no-pager --full --lines=0 udsd.socket udsd.service | sed 's/^/  | /'
  user_journal | sed 's/^/  | /'
}

# as_resident COMMAND...: as in a shell of that user's session.
as_resident() {
  in_vm runuser --user resident -- env --chdir=/ USER=resident LOGNAME=resident \
    HOME="$HOME_FOLDER" XDG_RUNTIME_DIR="$runtime" "$@"
}

# The user's units stopped, and no config file of theirs or the system's, so that the static units stand
# as they are; then udsd.socket listens.
fresh_resident() {
  resident
  in_vm systemctl stop udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null
  in_vm rm -f /etc/udsd/udsd.toml
  in_vm systemctl daemon-reload
  as_resident systemctl --user stop udsd.socket udsd.service 'udsd-*.socket' 2>/dev/null
  in_vm rm -rf "$HOME_FOLDER/.config/udsd" "$HOME_FOLDER/.local" \
    "$HOME_FOLDER/.config/systemd/user/udsd.service.d"
  as_resident systemctl --user unset-environment XDG_STATE_HOME
  as_resident systemctl --user reset-failed
  as_resident systemctl --user daemon-reload
  as_resident systemctl --user restart udsd.socket
}

apply_resident() {
  as_resident udsc --user apply >"$stage/applied" 2>&1 || fail "udsc --user apply: $(cat "$stage/applied")"
}

# The user's own file, from standard input.
own_config() {
  as_resident sh -c 'mkdir -p "$HOME/.config/udsd" && cat >"$HOME/.config/udsd/udsd.toml"'
}

# A drop-in for the user's service, from standard input.
own_drop_in() {
  as_resident sh -c 'mkdir -p "$1" && cat >"$1/lab.conf"' _ "$HOME_FOLDER/.config/systemd/user/udsd.service.d"
  as_resident systemctl --user daemon-reload
}

# user_property NAME [UNIT]
user_property() {
  as_resident systemctl --user show --property="$1" --value "${2-udsd.service}"
}

# user_is VALUE PROPERTY [UNIT]
user_is() {
  [ "$(user_property "${@:2}")" = "$1" ]
}

user_must_be() {
  user_is "$@" || fail "${*:2} is '$(user_property "${@:2}")', not '$1'"
}

# What the user's programs and manager have said since the check began. The arguments select more.
user_journal() {
  in_vm journalctl --sync
  in_vm journalctl --quiet --no-pager --since="$since" _UID="$uid" "$@"
}

# user_journal_has TEXT
user_journal_has() {
  user_journal --output=cat | grep --quiet --fixed-strings -e "$1"
}

# Nothing that udsd warns of: the socket is as the file has it.
no_warnings() {
  local complaints
  user_journal_has ": inherited" || fail "udsd said nothing of its sockets"
  complaints=$(user_journal --output=cat --priority=warning SYSLOG_IDENTIFIER=udsd) || complaints=
  [ -z "$complaints" ] || fail "$complaints"
}

# echoes PATH: as the user.
echoes() {
  local answer
  answer=$(as_resident lab-client echo "$1" "anybody home") || fail "$1: $answer"
  [ "$answer" = "anybody home" ] || fail "$1: the wrong answer: $answer"
}

user_status_has() {
  grep --quiet -e "$1" <<<"$(as_resident systemctl --user status --no-pager --full udsd.service || true)"
}

# What of udsd lies in the user's runtime folder.
left_behind() {
  in_vm find "$runtime" -maxdepth 1 -name '*udsd*' -printf '%f %y %m %u\n'
}

# --- the checks ------------------------------------------------------------------------------------

check_user_units_are_sound() {
  local complaints
  resident
  # Exits 0 even on unknown keys, so what counts is what it says.
  complaints=$(as_resident systemd-analyze --user verify --man=no "$UNITS/udsd.service" "$UNITS/udsd.socket" 2>&1)
  [ -z "$complaints" ] || fail "systemd-analyze --user verify: $complaints"
}

check_readme_installs_for_one_user() {
  local commands
  resident
  as_resident systemctl --user disable --quiet --now udsd.socket udsd.service 2>/dev/null
  in_vm rm "$UNITS/udsd.service" "$UNITS/udsd.socket"
  in_vm rm -rf "$HOME_FOLDER/.config/udsd"
  config <"$repo/config/udsd.toml"
  as_resident systemctl --user daemon-reload
  user_must_be not-found LoadState udsd.socket
  install_udsd >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  commands=$(readme_block "systemctl --user")
  as_resident sh -exc "$commands" >"$stage/installation" 2>&1 ||
    fail "$(cat "$stage/installation")"
  as_resident systemctl --user is-enabled --quiet udsd.socket || fail "udsd.socket does not start with the user's manager"
  user_must_be active ActiveState udsd.socket
  user_must_be inactive ActiveState
  echoes "$runtime/udsd.sock"
  # As after a boot: whoever lingers needs not log in.
  in_vm systemctl restart "user@$uid.service"
  user_must_be active ActiveState udsd.socket
  echoes "$runtime/udsd.sock"
}

check_users_first_connection_starts_udsd() {
  fresh_resident
  user_must_be inactive ActiveState
  [ "$(left_behind)" = "udsd.sock s 660 resident" ] || fail "in $runtime: $(left_behind)"
  [ "$(echo hello | as_resident nc -NU -w "$WAIT" "$runtime/udsd.sock")" = hello ] || fail "nc got no answer"
  user_must_be active ActiveState
  user_must_be 0 NRestarts
  wait_until "systemctl --user status shows STATUS" user_status_has 'Status: ".*client.*"'
  no_warnings
  # The system's has nothing to do with it.
  is_not active ActiveState || fail "the system's udsd.service runs"
}

check_users_stop_leaves_the_socket_alone() {
  fresh_resident
  echoes "$runtime/udsd.sock"
  in_vm test -d "$runtime/udsd" || fail "while it runs, $runtime/udsd is missing"
  as_resident systemctl --user stop udsd.service 2>/dev/null
  user_must_be inactive ActiveState
  user_must_be success Result
  user_must_be 0 ExecMainStatus
  [ "$(left_behind)" = "udsd.sock s 660 resident" ] || fail "after the stop: $(left_behind)"
  echoes "$runtime/udsd.sock"
  as_resident systemctl --user stop udsd.socket
  wait_until "the service goes with its socket" user_is inactive ActiveState
  [ -z "$(left_behind)" ] || fail "after the stop of both: $(left_behind)"
}

check_users_quick_restarts_cost_no_socket() {
  local _
  fresh_resident
  # More than the five in 10 s that systemd allows by default; the service goes along each time.
  for _ in {1..8}; do
    echoes "$runtime/udsd.sock"
    as_resident systemctl --user restart udsd.socket || fail "udsd.socket is $(user_property Result udsd.socket)"
  done
  echoes "$runtime/udsd.sock"
}

check_users_own_file_and_records() {
  local state=$HOME_FOLDER/.local/state folder
  fresh_resident
  own_config <<'END'
[socket.state]
path = "%t/lab-state.sock"
service = "collect"
framing = "lines"
record.file = "%S/udsd/lab.json"
[socket.logs]
path = "%t/lab-logs.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/lab.json"
END
  apply_resident
  echo kept | as_resident nc -NU -w "$WAIT" "$runtime/lab-state.sock"
  echo kept | as_resident nc -NU -w "$WAIT" "$runtime/lab-logs.sock"
  for folder in "$state/udsd" "$state/log/udsd"; do
    wait_until "the record in $folder" in_vm grep --quiet '"message":"kept"' "$folder/lab.json"
    [ "$(in_vm stat --format='%a %U' "$folder")" = "700 resident" ] || fail "$(in_vm ls -ld "$folder")"
  done
  # Nothing of it belongs beside the file.
  [ "$(in_vm ls "$HOME_FOLDER/.config/udsd")" = udsd.toml ] || fail "$(in_vm ls -l "$HOME_FOLDER/.config/udsd")"
  # Where the user keeps state elsewhere.
  as_resident systemctl --user set-environment XDG_STATE_HOME="$HOME_FOLDER/.local/else where"
  as_resident systemctl --user restart udsd.service
  echo moved | as_resident nc -NU -w "$WAIT" "$runtime/lab-logs.sock"
  wait_until "the record elsewhere" \
    in_vm grep --quiet '"message":"moved"' "$HOME_FOLDER/.local/else where/log/udsd/lab.json"
}

check_user_units_follow_the_users_file() {
  fresh_resident
  own_config <<'END'
[socket.first]
path = "%t/lab-first.sock"
mode = "0600"
[socket.second]
path = "%t/lab-second.sock"
END
  apply_resident
  refuses "$runtime/udsd.sock"
  file_is "600 resident resident" "$runtime/lab-first.sock"
  file_is "660 resident resident" "$runtime/lab-second.sock"
  user_must_be inactive ActiveState
  echoes "$runtime/lab-second.sock"
  echoes "$runtime/lab-first.sock"
  no_warnings
}

check_users_units_know_nothing_of_the_systems_file() {
  fresh_resident
  config <<'END'
[socket.theirs]
path = "%t/lab-theirs.sock"
[socket.more]
path = "%t/lab-more.sock"
END
  apply_resident
  file_is "660 resident resident" "$runtime/udsd.sock"
  refuses "$runtime/lab-theirs.sock"
  user_must_be not-found LoadState udsd-more.socket
  echoes "$runtime/udsd.sock"
  no_warnings
}

check_users_restart_keeps_clients() {
  local staying visiting
  fresh_resident
  own_config <<'END'
[socket.a]
path = "%t/lab-a.sock"
framing = "lines"
[socket.p]
path = "%t/lab-packets"
type = "seqpacket"
END
  apply_resident
  stay a="$runtime/lab-a.sock" p="$runtime/lab-packets"
  begin_visits "$runtime/lab-a.sock"
  for _ in 1 2 3; do
    as_resident systemctl --user restart udsd
    go_on "a goes on, p goes on"
  done
  end_visits "visited * times, refused 0 times, cut off 0 times, longest * ms"
  user_must_be 0 NRestarts
  no_warnings
  own_config <<'END'
[socket.a]
path = "%t/lab-moved.sock"
mode = "0600"
framing = "lines"
[socket.p]
path = "%t/lab-packets"
type = "seqpacket"
END
  apply_resident
  go_on "a goes on, p goes on"
  file_is "600 resident resident" "$runtime/lab-moved.sock"
  echoes "$runtime/lab-moved.sock"
  refuses "$runtime/lab-a.sock"
}

check_udsc_finds_the_users_daemon() {
  local said
  fresh_resident
  # The user's comes first also where both would answer.
  in_vm usermod --append --groups udsd resident
  in_vm systemctl start udsd.socket
  said=$(as_resident udsc ping --count 1 2>&1) || fail "$said"
  [[ $said == *"--- $runtime/udsd.sock ---"*"1 sent, 1 received"* ]] || fail "without flags: $said"
  said=$(as_resident udsc --user --socket udsd ping --count 1 2>&1) || fail "$said"
  [[ $said == *"--- $runtime/udsd.sock ---"*"1 sent, 1 received"* ]] || fail "--user: $said"
  said=$(as_resident udsc --system ping --count 1 2>&1) || fail "$said"
  [[ $said == *"--- $SOCKET ---"*"1 sent, 1 received"* ]] || fail "--system: $said"
  as_resident systemctl --user stop udsd.socket
  said=$(as_resident udsc ping --count 1 2>&1) || fail "$said"
  [[ $said == *"--- $SOCKET ---"*"1 sent, 1 received"* ]] || fail "without a daemon of the user's: $said"
  ! said=$(as_resident udsc --user ping --count 1 2>&1) || fail "--user without a daemon of the user's: $said"
  [[ $said == *"systemctl --user start udsd.socket"* ]] || fail "--user does not say what to do: $said"
}

check_users_broken_config_costs_no_socket() {
  local said
  fresh_resident
  own_config <<'END'
[socket.udsd]
path = "%t/udsd.sock"
mode = "rw-rw----"
END
  ! as_resident systemctl --user start udsd.service 2>/dev/null || fail "it started with a broken config"
  user_must_be 78 ExecMainStatus
  # Not about to be restarted.
  user_must_be failed ActiveState
  said=$(user_journal --output=cat)
  [[ $said == *"$HOME_FOLDER/.config/udsd/udsd.toml:3: socket.udsd.mode: "* ]] || fail "in the journal: $said"
  user_must_be active ActiveState udsd.socket
  own_config <<'END'
[socket.udsd]
path = "%t/udsd.sock"
END
  echoes "$runtime/udsd.sock"
  # Nor does a reload of one, which fails, and says why for as long as that is so.
  as_resident systemctl --user reload udsd.service || fail "the reload of the same file fails"
  for said in 'service = "collect"' 'type = "seqpacket"'; do
    printf '[socket.udsd]\npath = "%%t/udsd.sock"\n%s\n' "$said" | own_config
    ! as_resident systemctl --user reload udsd.service 2>/dev/null || fail "systemctl reload says that all is well"
    wait_until "the status names the key" user_status_has "Status: \"reload failed: .*socket.udsd.${said%% *}"
    echoes "$runtime/udsd.sock"
  done
}

check_users_service_is_confined() {
  local pid limits everything permitted
  fresh_resident
  echoes "$runtime/udsd.sock"
  # At the usual soft limit of 1024 it would take few clients.
  pid=$(user_property MainPID)
  read -r -a limits <<<"$(in_vm grep '^Max open files' "/proc/$pid/limits")"
  [ "${limits[3]}" = "${limits[4]}" ] || fail "${limits[*]}"
  as_resident systemctl --user stop udsd.socket
  # What a shell of the user's may do, and so shows that the attempts can succeed.
  put 0755 "$here/lab/confined.py" /usr/bin/lab-confined
  everything="privileges open-files inet netlink priority code suid chown personality namespaces"
  permitted=$(as_resident lab-confined)
  [ "$permitted" = "$everything" ] || fail "a shell was permitted no more than: $permitted"
  # The same in the place of udsd. A unit that is through once its program is takes no restarts.
  printf '%s\n' '[Service]' Type=oneshot ExecStart= ExecStart=/usr/bin/lab-confined Restart=no \
    RestartForceExitStatus= StandardOutput=file:%t/lab-permitted | own_drop_in
  as_resident systemctl --user start udsd.service
  permitted=$(in_vm cat "$runtime/lab-permitted")
  [ -z "$permitted" ] || fail "it was permitted: $permitted"
}

check_users_service_knows_its_peers() {
  fresh_resident
  own_config <<'END'
[socket.udsd]
path = "%t/udsd.sock"
service = "collect"
framing = "lines"
record.format = "text"
END
  echo from root | in_vm nc -NU -w "$WAIT" "$runtime/udsd.sock"
  echo from resident | as_resident nc -NU -w "$WAIT" "$runtime/udsd.sock"
  # Under PrivateUsers= root would be 65534.
  wait_until "root's message" user_journal_has "uid=0 from root"
  wait_until "the user's message" user_journal_has "uid=$uid from resident"
}
