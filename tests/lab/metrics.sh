# shellcheck shell=bash
# What udsd-metrics.timer writes for node_exporter. Part of tests/lab/checks.sh, whose words it uses.

CHECKS+=(
  metrics_are_written_while_udsd_runs
)

readonly COLLECTED=/var/lib/prometheus/node-exporter

check_metrics_are_written_while_udsd_runs() {
  local file=$COLLECTED/udsd.prom
  fresh <<'EOF'
[socket.udsd]
path = "%t/udsd.sock"
EOF
  # Where nobody collects.
  in_vm rm --recursive --force "$COLLECTED"
  in_vm systemctl start udsd-metrics.service || fail "it fails without a folder"
  in_vm mkdir --parents "$COLLECTED"
  # As where an old file is left.
  in_vm touch "$file"
  in_vm systemctl start udsd-metrics.service || fail "it fails without a daemon"
  is inactive ActiveState || fail "it has started udsd"
  in_vm test ! -e "$file" || fail "an old file stays"
  # Every second, so that nobody waits here.
  printf '[Timer]\nOnCalendar=*:*:*\n' | put 0644 /dev/stdin /run/systemd/system/udsd-metrics.timer.d/lab.conf
  # So often it may start.
  printf '[Unit]\nStartLimitIntervalSec=0\n' | put 0644 /dev/stdin /run/systemd/system/udsd-metrics.service.d/lab.conf
  trap write_no_metrics EXIT
  in_vm systemctl daemon-reload
  in_vm systemctl enable --quiet --now udsd-metrics.timer
  answers
  wait_until "the file is there" in_vm test -e "$file"
  [ "$(in_vm stat --format='%a %U' "$file")" = "644 root" ] || fail "$(in_vm ls -l "$file")"
  in_vm grep --quiet --no-messages '^udsd_up 1$' "$file" || fail "$(in_vm cat "$file")"
  in_vm runuser --user outsider -- grep --quiet '^udsd_clients_connected{socket="udsd"} ' "$file" || fail "$(in_vm cat "$file")"
  [ "$(in_vm tail -n 1 "$file")" = "# EOF" ] || fail "it has no end"
  in_vm systemctl stop udsd.service
  wait_until "the file is gone" in_vm test ! -e "$file"
  is inactive ActiveState || fail "it has started udsd"
  is success Result udsd-metrics.service || fail "udsd-metrics.service: $(property Result udsd-metrics.service)"
  # One that hangs, and one that is not there at all.
  answers
  wait_until "it is up again" in_vm grep --quiet --no-messages '^udsd_up 1$' "$file"
  in_vm systemctl kill --signal=STOP udsd.service
  wait_until "one that hangs is down" in_vm grep --quiet --no-messages '^udsd_up 0$' "$file"
  ! in_vm systemctl start udsd-metrics.service 2>/dev/null || fail "its unit says that all is well"
  in_vm systemctl kill --signal=CONT udsd.service
  wait_until "it is up once it goes on" in_vm grep --quiet --no-messages '^udsd_up 1$' "$file"
  in_vm systemctl stop udsd.service udsd.socket
  wait_until "one that is stopped is down" in_vm grep --quiet --no-messages '^udsd_up 0$' "$file"
}

# Also where the check fails, which is in a subshell of its own.
write_no_metrics() {
  in_vm systemctl disable --quiet --now udsd-metrics.timer
  in_vm rm --recursive /run/systemd/system/udsd-metrics.{timer,service}.d
  in_vm systemctl daemon-reload
}
