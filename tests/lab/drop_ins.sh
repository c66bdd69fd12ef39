# shellcheck shell=bash
# Drop-ins: what a package brings with one file and an administrator changes with another. Part of
# tests/lab/checks.sh, whose words it uses, and those of tests/lab/units.sh and apply.sh.

CHECKS+=(
  a_package_brings_a_socket_with_one_file
  drop_ins_need_no_file_in_etc
)

readonly PACKAGES=/usr/lib/udsd/udsd.toml.d ADMINISTRATORS=/etc/udsd/udsd.toml.d

# write_lines PATH LINE...
write_lines() {
  printf '%s\n' "${@:2}" | put 0644 /dev/stdin "$1"
}

# The file of a package, with further LINE...
app() {
  write_lines "$PACKAGES/10-app.toml" '[socket.app]' 'path = "%t/lab-app.sock"' 'framing = "lines"' "$@"
}

# source_is PATH UNIT
source_is() {
  is "$1" SourcePath "$2" || fail "$2 names $(property SourcePath "$2") as its source; expected: $1"
}

check_a_package_brings_a_socket_with_one_file() {
  local staying mine=$ADMINISTRATORS/20-mine.toml
  fresh <<'EOF'
[socket.first]
path = "%t/lab-first.sock"
framing = "lines"
EOF
  apply
  stay first=/run/lab-first.sock
  app
  apply
  applied first "*as it was"
  applied app "*udsd-app.socket*/run/lab-app.sock*started"
  file_is "660 udsd udsd" /run/lab-app.sock
  source_is /etc/udsd/udsd.toml udsd.socket
  source_is "$PACKAGES/10-app.toml" udsd-app.socket
  serves first app

  # One key of it.
  write_lines "$mine" 'socket.app.mode = "0600"'
  apply
  applied first "*as it was"
  applied app "*made anew; before: mode 0660"
  file_is "600 udsd udsd" /run/lab-app.sock
  in_vm udsd --check >"$stage/check" || fail "udsd --check: $(cat "$stage/check")"
  grep --quiet "^mode = \"0600\" .* # $mine:1$" "$stage/check" || fail "it does not say where mode is set"
  grep --quiet "^framing = \"lines\" .* # $PACKAGES/10-app.toml:3$" "$stage/check" || fail "it does not say where framing is set"
  go_on "first goes on"

  # A slip touches nothing, and after a boot the units are as they were: the last good file has all in one.
  write_lines "$mine" 'socket.app.mode = "rw"'
  apply_fails "udsc: nothing was changed: mend the file first"
  grep --quiet "^udsd: $mine:1: socket.app.mode: " "$stage/applied" || fail "it does not name the file: $(cat "$stage/applied")"
  in_vm systemctl daemon-reload
  is 0600 SocketMode udsd-app.socket || fail "the unit does not follow the last good file"

  # Off, by a key and by a file that hides the package's. A newer package changes nothing of that.
  write_lines "$mine" 'socket.app.enabled = false'
  apply
  applied app "*udsd-app.socket*stopped; the dead /run/lab-app.sock removed"
  app 'stamp = true'
  apply
  in_vm test ! -e /run/lab-app.sock || fail "a socket that is off is back"
  in_vm rm "$mine"
  in_vm ln --symbolic /dev/null "$ADMINISTRATORS/10-app.toml"
  apply
  in_vm test ! -e /run/lab-app.sock || fail "a file that is hidden is read"
  serves first
}

# /etc may be empty: all that is there comes with packages.
check_drop_ins_need_no_file_in_etc() {
  fresh </dev/null
  in_vm rm --recursive /etc/udsd
  app
  apply
  applied udsd "*/run/udsd.sock*"
  applied app "*started"
  serves udsd app
  in_vm systemctl restart udsd.service
  serves udsd app
  in_vm test -e /etc/udsd/.last-good.toml || fail "there is no last good file"
  # The package goes.
  in_vm rm "$PACKAGES/10-app.toml"
  apply
  applied app "*udsd-app.socket*stopped*"
  in_vm test ! -e /etc/udsd/.last-good.toml || fail "the last good file stays where none is needed"
  serves udsd
}
