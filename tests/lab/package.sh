# shellcheck shell=bash
# What the Debian package promises to who installs, upgrades, removes and purges it, and packaging/install
# to who does without; run where nothing of udsd is installed. Part of tests/lab/checks.sh, whose words
# it uses, with those of units.sh, users.sh, hardening.sh and handover.sh.

PACKAGE_CHECKS=(
  package_installs_and_serves
  package_upgrade_restarts_the_service_alone
  package_upgrade_keeps_clients
  package_upgrade_keeps_the_crowd
  package_upgrade_starts_nothing_that_was_stopped
  package_keeps_what_the_administrator_disabled
  package_keeps_a_good_file_before_its_folders_are_there
  package_of_another_brings_a_socket
  package_removal_stops_and_disables_all
  package_removal_ends_users_daemons
  package_purge_leaves_nothing
  source_installs_below_another_prefix
)

readonly OLD=/root/old.deb NEW=/root/new.deb

prepare_packages() {
  { put_source "$@" &&
    put 0644 "$4" "$OLD" &&
    put 0644 "$5" "$NEW" &&
    # With it, no package starts anything.
    in_vm rm -f /usr/sbin/policy-rc.d &&
    # What this machine itself may have.
    in_vm dpkg --purge udsd &&
    in_vm rm -rf /etc/udsd /var/lib/udsd /var/log/udsd &&
    in_vm useradd --no-create-home member &&
    in_vm useradd --no-create-home outsider; } >"$stage/installation" 2>&1 ||
    { cat "$stage/installation"; echo "lab: the packages could not be put there"; exit 1; } >&2
}

# --- words of these checks -------------------------------------------------------------------------

# package DPKG'S-ARGUMENTS
package() {
  # The file is the administrator's, also where the shipped one changes.
  in_vm env DEBIAN_FRONTEND=noninteractive dpkg --force-confold "$@" >"$stage/dpkg" 2>&1 || fail "dpkg $*: $(cat "$stage/dpkg")"
  # What a maintainer script complains of goes past dpkg's exit code.
  ! grep --invert-match 'directory .* not empty so not removed' "$stage/dpkg" |
    grep --ignore-case -e error -e warning -e fail -e 'not removed' || fail "dpkg $*: $(cat "$stage/dpkg")"
}

# The old version of the package on a machine that has nothing of it, with the config from standard
# input.
installed() {
  nothing_there
  package --install "$OLD"
  in_vm usermod --append --groups udsd member
  config
  in_vm systemctl daemon-reload
  in_vm systemctl restart udsd.socket
}

nothing_there() {
  ! in_vm dpkg-query --show udsd >/dev/null 2>&1 || package --purge udsd
  in_vm rm -rf /etc/udsd
}

# last_good_is_the_files UDSD: for the day when an edit cannot be read.
last_good_is_the_files() {
  local file
  file=$(in_vm stat --format='%a %U' /etc/udsd/.last-good.toml) || fail "there is no last good file"
  [ "$file" = "644 root" ] || fail "the last good file is $file"
  # shellcheck disable=SC2016 # $1 belongs to the inner shell
  in_vm sh -c '"$1" --check | cmp - /etc/udsd/.last-good.toml' _ "$1" ||
    fail "the last good file is not what the file says"
}

# What systemd knows of it.
udsds_units() {
  in_vm systemctl list-units --all --no-legend --plain 'udsd*'
  # Fails where there is none.
  in_vm systemctl list-unit-files --no-legend 'udsd*' || true
}

socket_must_be() {
  is "$1" ActiveState udsd.socket || fail "udsd.socket is $(property ActiveState udsd.socket), not $1"
}

must_serve() {
  local answer
  answer=$(in_vm runuser --user member -- lab-client echo "$1") || fail "$1: $answer"
  [ "$answer" = hello ] || fail "$1: $answer"
}

# --- the checks ------------------------------------------------------------------------------------

check_package_installs_and_serves() {
  nothing_there
  # As README.md says it.
  in_vm env DEBIAN_FRONTEND=noninteractive apt-get install --yes "$OLD" >"$stage/installation" 2>&1 ||
    fail "apt-get install: $(cat "$stage/installation")"
  in_vm systemctl is-enabled --quiet udsd.socket || fail "udsd.socket does not start at boot"
  socket_must_be active
  is inactive ActiveState || fail "udsd.service runs before anybody has connected"
  file_is "660 udsd udsd" "$SOCKET"
  in_vm usermod --append --groups udsd member
  must_serve "$SOCKET"
  in_vm udsc --system ping --count 1 >/dev/null || fail "udsc finds no daemon"
  last_good_is_the_files udsd
  [ "$(in_vm dpkg-query --show --showformat='${Conffiles}' udsd | awk '{ print $1 }' | sort | xargs)" = "/etc/logrotate.d/udsd /etc/udsd/udsd.toml" ] ||
    fail "conf-files: $(in_vm dpkg-query --show --showformat='${Conffiles}' udsd)"
  # What was promised of the units holds of these.
  check_units_are_sound
}

check_package_upgrade_restarts_the_service_alone() {
  local pid unit
  local -A begun
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.b]
path = "%t/lab-b.sock"
mode = "0600"
EOF
  must_serve "$SOCKET"
  pid=$(main_pid)
  for unit in udsd.socket udsd-b.socket; do
    begun[$unit]=$(property InvocationID "$unit")
  done
  client knock "$SOCKET"
  hear knocking
  package --install "$NEW"
  tell stop
  # Nobody who came in between was refused.
  hear "knocked *"
  echo "$heard"
  is_not "$pid" MainPID || fail "the old process still runs"
  is active ActiveState || fail "udsd.service is $(property ActiveState)"
  for unit in udsd.socket udsd-b.socket; do
    is "${begun[$unit]}" InvocationID "$unit" || fail "$unit was restarted"
  done
  # The administrator's file.
  in_vm grep --quiet lab-b /etc/udsd/udsd.toml || fail "the config was overwritten"
  serves udsd b
}

check_package_upgrade_keeps_clients() {
  local pid keeping_to keeping_from
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
framing = "lines"
[socket.packets]
path = "%t/lab-packets.sock"
type = "seqpacket"
EOF
  client keep "$SOCKET" /run/lab-packets.sock 200
  hear talking
  keeping_to=$to_client keeping_from=$from_client
  client knock "$SOCKET"
  hear knocking
  pid=$(main_pid)
  package --install "$NEW"
  is_not "$pid" MainPID || fail "the old process still runs"
  tell stop
  # Whoever was just being served is served.
  hear "knocked * times, cut off 0 times"
  to_client=$keeping_to from_client=$keeping_from
  tell "go on"
  hear "kept 400"
}

check_package_upgrade_keeps_the_crowd() {
  crowd_config | installed
  with_crowd upgrade
  # Which the crowd's start has put there.
  in_vm rm -rf /run/systemd/system/udsd.service.d
  in_vm systemctl daemon-reload
}

upgrade() {
  local pid
  pid=$(main_pid)
  package --install "$NEW"
  is_not "$pid" MainPID || fail "the old process still runs"
}

# For a package of an earlier commit: between two of one commit it is like an upgrade.
check_package_downgrade_ends_clients_cleanly() {
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
framing = "lines"
EOF
  package --install "$NEW"
  client owe "$SOCKET" 65536
  hear sent
  # dpkg warns of it.
  in_vm dpkg --force-confold --install "$OLD" >"$stage/dpkg" 2>&1 || fail "dpkg: $(cat "$stage/dpkg")"
  tell read
  # What the kernel has is all that it was owed.
  hear "end of file after 65536 bytes"
  must_serve "$SOCKET"
  wait_until "a line that says why" journal_has 1 "cannot be used"
}

check_package_upgrade_starts_nothing_that_was_stopped() {
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  is inactive ActiveState || fail "udsd.service runs before anybody has connected"
  package --install "$NEW"
  is inactive ActiveState || fail "the upgrade has started udsd.service"
  must_serve "$SOCKET"
}

check_package_keeps_what_the_administrator_disabled() {
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  in_vm systemctl disable --quiet --now udsd.socket
  package --install "$NEW"
  ! in_vm systemctl is-enabled --quiet udsd.socket || fail "the upgrade has enabled udsd.socket"
  socket_must_be inactive
  # Remembered also over a removal, with the config.
  package --remove udsd
  package --install "$NEW"
  ! in_vm systemctl is-enabled --quiet udsd.socket || fail "removed and installed again, udsd.socket is enabled"
  socket_must_be inactive
  # Not over a purge.
  nothing_there
  package --install "$NEW"
  in_vm systemctl is-enabled --quiet udsd.socket || fail "purged and installed again, udsd.socket is not enabled"
  socket_must_be active
}

check_package_keeps_a_good_file_before_its_folders_are_there() {
  nothing_there
  in_vm rm -rf /var/log/udsd
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
allow-users = ["lab-later"]
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "/srv/lab-later/lab.json"
EOF
  in_vm env DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install "$OLD" >"$stage/dpkg" 2>&1 ||
    fail "dpkg: $(cat "$stage/dpkg")"
  in_vm sh -c 'udsd --check --text | cmp - /etc/udsd/.last-good.toml' || fail "the last good file is not what the file says"
  in_vm grep --quiet /srv/lab-later/lab.json /etc/udsd/.last-good.toml || fail "the last good file is another"
}

# With one file and no script of its own.
check_package_of_another_brings_a_socket() {
  local staying unit=udsd-app.socket
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
framing = "lines"
EOF
  stay udsd=$SOCKET
  put 0644 /dev/stdin /root/app/usr/lib/udsd/udsd.toml.d/10-app.toml <<'EOF'
[socket.app]
path = "%t/lab-app.sock"
EOF
  put 0644 /dev/stdin /root/app/DEBIAN/control <<'EOF'
Package: udsd-lab-app
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: brings a socket of udsd
EOF
  in_vm dpkg-deb --build /root/app /root/app.deb >/dev/null
  package --install /root/app.deb
  is active ActiveState "$unit" || fail "$unit is $(property ActiveState "$unit")"
  must_serve /run/lab-app.sock
  last_good_is_the_files udsd
  # What the administrator has switched off, no package switches on.
  put 0644 /dev/stdin /etc/udsd/udsd.toml.d/off.toml <<<'socket.app.enabled = false'
  package --install /root/app.deb
  in_vm test ! -e /run/lab-app.sock || fail "a socket that is off is back"
  in_vm rm /etc/udsd/udsd.toml.d/off.toml
  in_vm udsc apply >/dev/null
  must_serve /run/lab-app.sock
  package --purge udsd-lab-app
  in_vm test ! -e /run/lab-app.sock || fail "its socket stays behind the package"
  go_on "udsd goes on"
}

check_package_removal_stops_and_disables_all() {
  local left said
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.b]
path = "%t/lab-b.sock"
[socket.taken-out]
path = "%t/lab-taken-out.sock"
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "%S/udsd/lab.json"
[socket.rotated]
path = "%t/lab-rotated.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/lab.json"
EOF
  sends log kept
  recorded kept /var/lib/udsd/lab.json
  sends rotated kept
  recorded kept /var/log/udsd/lab.json
  in_vm systemctl enable --quiet --now udsd-metrics.timer
  # Its unit stays behind in systemd until somebody stops it.
  in_vm sed -i '/taken-out/d' /etc/udsd/udsd.toml
  in_vm systemctl daemon-reload
  client owe "$SOCKET" 524288
  hear sent
  # dpkg waits until the service has stopped.
  { trap - ERR; package --remove udsd; } &
  tell read
  hear "end of file after 524288 bytes"
  wait $! || fail "the removal failed"
  # But for the one that systemd had forgotten before.
  left=$(in_vm sh -c 'ls -d /run/udsd* /run/lab-*.sock 2>/dev/null' | grep -v '^/run/lab-taken-out.sock$') || true
  [ -z "$left" ] || fail "left in /run: $left"
  ! in_vm pgrep --list-full udsd || fail "a process is left"
  left=$(udsds_units)
  [ -z "$left" ] || fail "left in systemd: $left"
  left=$(udsds_files | grep -v -e '^/etc/udsd$' -e '^/etc/udsd/udsd.toml$' -e '^/etc/logrotate.d/udsd$' -e '^/var/lib/udsd$' -e '^/var/log/udsd$' \
    -e '^/var/lib/dpkg/info/udsd\.') || true
  [ -z "$left" ] || fail "left: $left"
  # What belongs to who runs the machine.
  in_vm grep --quiet lab-b /etc/udsd/udsd.toml || fail "the config is gone"
  in_vm grep --quiet kept /var/lib/udsd/lab.json || fail "the record is gone"
  # logrotate goes on with what stays.
  if command -v logrotate >/dev/null; then
    said=$(in_vm logrotate --force --state=/root/lab-rotation /etc/logrotate.d/udsd 2>&1) || fail "logrotate: $said"
    [ -z "$said" ] || fail "logrotate: $said"
    in_vm grep --quiet kept /var/log/udsd/lab.json.1 || fail "the rotated record is gone"
  fi
  in_vm id udsd >/dev/null || fail "the user is gone, the record is not"
  # And as it was, once it is back.
  package --install "$OLD"
  in_vm systemctl is-enabled --quiet udsd.socket || fail "installed again, udsd.socket does not start at boot"
  must_serve "$SOCKET"
  serves b
  # What has failed goes too.
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.bad]
path = "%t/lab-bad.sock"
user = "nobody-of-that-name"
EOF
  in_vm systemctl daemon-reload
  in_vm systemctl restart udsd.socket
  in_vm systemctl start udsd.service || fail "a socket whose user is unknown costs the others"
  is failed ActiveState udsd-bad.socket || fail "udsd-bad.socket is $(property ActiveState udsd-bad.socket)"
  package --remove udsd
  left=$(udsds_units)
  [ -z "$left" ] || fail "left in systemd: $left"
}

check_package_removal_ends_users_daemons() {
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  resident
  as_resident systemctl --user daemon-reload
  as_resident systemctl --user start udsd.socket
  echoes "$runtime/udsd.sock"
  package --remove udsd
  user_must_be inactive ActiveState udsd.socket
  user_must_be inactive ActiveState
  [ -z "$(left_behind)" ] || fail "left in $runtime: $(left_behind)"
}

check_package_purge_leaves_nothing() {
  local after name left
  nothing_there
  installed <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.log]
path = "%t/lab-log.sock"
service = "collect"
framing = "lines"
record.file = "%L/udsd/lab.json"
EOF
  must_serve "$SOCKET"
  sends log kept
  recorded kept /var/log/udsd/lab.json
  package --install "$NEW"
  package --purge udsd
  after=$(udsds_files)
  [ -z "$after" ] || fail "left: $after"
  # The backups that passwd's tools keep beside them hold the last state but one.
  left=$(in_vm grep --extended-regexp '(^|[:,])udsd([:,]|$)' /etc/passwd /etc/group /etc/shadow /etc/gshadow) || true
  [ -z "$left" ] || fail "left: $left"
  left=$(in_vm grep --recursive --files-with-matches udsd /var/lib/systemd /etc/systemd) || true
  [ -z "$left" ] || fail "left: $left"
  left=$(udsds_units)
  [ -z "$left" ] || fail "left in systemd: $left"
  ! in_vm pgrep --list-full udsd || fail "a process is left"
  for name in udsd lab-log; do
    in_vm test ! -e "/run/$name.sock" || fail "/run/$name.sock is left"
  done
  ! in_vm dpkg-query --show udsd 2>/dev/null || fail "dpkg still knows it"
}

check_source_installs_below_another_prefix() {
  local commands said left pid text
  nothing_there
  commands=$(readme_block packaging/install)
  # shellcheck disable=SC2016 # $1, $2 belong to the inner shell
  in_vm sh -c 'export PREFIX=/usr/local && cd "$1" && set -ex && eval "$2"' _ "$SOURCE" "$commands" \
    >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  in_vm usermod --append --groups udsd member
  last_good_is_the_files /usr/local/bin/udsd
  config <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
[socket.b]
path = "%t/lab-b.sock"
EOF
  # The generator is found there too, and the user by systemd-sysusers.
  in_vm /usr/local/bin/udsc apply || fail "udsc apply fails"
  must_serve "$SOCKET"
  must_serve /run/lab-b.sock
  said=$(in_vm readlink "/proc/$(main_pid)/exe")
  [ "$said" = /usr/local/bin/udsd ] || fail "what runs is $said"
  said=$(in_vm systemd-analyze verify --man=no udsd.service udsd.socket 2>&1)
  [ -z "$said" ] || fail "systemd-analyze verify: $said"
  # An upgrade, over a program that runs.
  pid=$(main_pid)
  in_vm env PREFIX=/usr/local "$SOURCE/packaging/install" >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  in_vm systemctl daemon-reload
  in_vm systemctl try-restart udsd.service
  is_not "$pid" MainPID || fail "the old process still runs"
  must_serve /run/lab-b.sock
  last_good_is_the_files /usr/local/bin/udsd
  # Its text alone counts: folders and users may come later. One that cannot be read is no last good file.
  in_vm sh -c 'echo "allow-users = [\"lab-later\"]" >>/etc/udsd/udsd.toml'
  for text in "" "["; do
    # shellcheck disable=SC2016 # $1 belongs to the inner shell
    in_vm sh -c 'echo "$1" >>/etc/udsd/udsd.toml' _ "$text"
    in_vm env PREFIX=/usr/local "$SOURCE/packaging/install" >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
    in_vm grep --quiet lab-later /etc/udsd/.last-good.toml || fail "the last good file is not the text that was good"
  done
  left=$(in_vm ls -A /etc/udsd | sort | xargs)
  [ "$left" = ".last-good.toml udsd.toml" ] || fail "in /etc/udsd: $left"
  commands=$(readme_block "systemctl disable --now udsd.socket")
  # shellcheck disable=SC2016 # $1, $2 belong to the inner shell
  in_vm sh -c 'export PREFIX=/usr/local && cd "$1" && set -ex && eval "$2"' _ "$SOURCE" "$commands" \
    >"$stage/installation" 2>&1 || fail "$(cat "$stage/installation")"
  left=$(udsds_files | grep -v -e '^/etc/udsd' -e '^/var/lib/udsd$' -e '^/var/log/udsd$') || true
  [ -z "$left" ] || fail "left: $left"
  left=$(udsds_units)
  [ -z "$left" ] || fail "left in systemd: $left"
  ! in_vm pgrep --list-full udsd || fail "a process is left"
}
