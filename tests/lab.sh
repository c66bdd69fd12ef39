#!/bin/bash
# Boots a throw-away systemd over a copy-on-write view of this machine's root, installs udsd in it
# by README.md's commands, and runs the checks of tests/lab/checks.sh there. Owns the container: its
# boot, what is put into it, and that nothing of it stays behind. What is promised stands in checks.sh.
#
#   tests/lab.sh UDSD UDSC GENERATOR [CHECK...]    runs all checks, or those named
#   tests/lab.sh UDSD UDSC GENERATOR --shell       installs everything and gives a shell inside
#   tests/lab.sh UDSD UDSC GENERATOR --packages OLD NEW [CHECK...]    runs the checks of
#       tests/lab/package.sh, or those named, where nothing is installed, with two Debian packages
#
# UDSD_LAB_CROWD=PROGRAM names the test executable of tests/systemd.rs, which the checks of
# tests/lab/handover.sh need. UDSD_LAB_STREAMS=N: how many stream clients they have (5000).
#
# Exit code: 0 all well, 1 a check failed or the lab did not come up, 77 this machine cannot run it.
set -uo pipefail

readonly CANNOT=77
readonly BOOT_SECONDS=60
readonly RUN_SECONDS=480 # of all checks: what each waits for is bounded, so this ends only a fault of the lab

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here repo=${here%/*}

main() {
  [ $# -ge 3 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 1; }
  local udsd=$1 udsc=$2 generator=$3 ended code
  shift 3
  require_means
  # shellcheck source=tests/lab/checks.sh
  . "$here/lab/checks.sh"
  # shellcheck source=tests/lab/units.sh
  . "$here/lab/units.sh"
  # shellcheck source=tests/lab/apply.sh
  . "$here/lab/apply.sh"
  # shellcheck source=tests/lab/drop_ins.sh
  . "$here/lab/drop_ins.sh"
  # shellcheck source=tests/lab/metrics.sh
  . "$here/lab/metrics.sh"
  # shellcheck source=tests/lab/reload.sh
  . "$here/lab/reload.sh"
  # shellcheck source=tests/lab/control.sh
  . "$here/lab/control.sh"
  # shellcheck source=tests/lab/users.sh
  . "$here/lab/users.sh"
  # shellcheck source=tests/lab/hardening.sh
  . "$here/lab/hardening.sh"
  # shellcheck source=tests/lab/handover.sh
  . "$here/lab/handover.sh"
  # shellcheck source=tests/lab/package.sh
  . "$here/lab/package.sh"
  boot
  if [ "${1-}" = --packages ]; then
    CHECKS=("${PACKAGE_CHECKS[@]}")
    prepare_packages "$udsd" "$udsc" "$generator" "$2" "$3"
    shift 3
  else
    prepare "$udsd" "$udsc" "$generator"
  fi
  if [ "${1-}" = --shell ]; then
    in_vm bash -i
    exit
  fi
  # In the background, in a process group of its own: bash runs a trap at once only while it waits,
  # and a lab that is told to go must neither finish its check first nor leave parts of it behind.
  set -m
  run_checks "$@" </dev/null &
  checks=$!
  sleep "$RUN_SECONDS" &
  timer=$!
  set +m
  # The code of whichever ends first; the timer's 0 is no success.
  wait -n -p ended "$checks" "$timer"
  code=$?
  if [ "$ended" = "$timer" ]; then
    echo "lab: not through after $RUN_SECONDS s"
    code=1
  fi
  exit "$code"
}

require_means() {
  local tool
  [ "$(id -u)" = 0 ] || cannot "needs root"
  for tool in systemd-nspawn unshare nsenter setpriv ps; do
    # What bash finds it may still not be allowed to run.
    [ -x "$(command -v "$tool")" ] || cannot "needs $tool (apt-get install systemd-container util-linux procps)"
  done
  for tool in /usr/bin/python3 /usr/bin/nc; do
    [ -x "$tool" ] || cannot "needs $tool (apt-get install python3 netcat-openbsd)"
  done
  # Other netcats bear that name too.
  [[ $(/usr/bin/nc -h 2>&1) == *-N*-U* ]] || cannot "needs OpenBSD's nc, with -N and -U (apt-get install netcat-openbsd)"
  # Without it logind starts no manager that a user can reach.
  compgen -G '/usr/lib*/security/pam_systemd.so' >/dev/null ||
    compgen -G '/usr/lib/*/security/pam_systemd.so' >/dev/null ||
    cannot "needs pam_systemd (apt-get install libpam-systemd)"
  unshare --mount true 2>/dev/null || cannot "needs a root that may mount"
}

cannot() {
  echo "lab: $1" >&2
  exit "$CANNOT"
}

# --- the container ---------------------------------------------------------------------------------

name=udsd-lab-$$
stage='' nspawn='' init='' checks='' timer=''
cgroups=()

boot() {
  local started=${EPOCHREALTIME/./} deadline=$((SECONDS + BOOT_SECONDS))
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  sweep
  stage=$(mktemp -d "/var/tmp/$name.XXXXXX")
  # A cgroup of its own, or labs that run side by side would share one. The first mount is cgroup2;
  # a machine with the old layout has systemd's named hierarchy as well.
  mapfile -t cgroups < <(hierarchies | sed "s:\$:/$name:")
  [ ${#cgroups[@]} -gt 0 ] || { echo "lab: no cgroup hierarchy is mounted" >&2; exit 1; }
  mkdir "${cgroups[@]}" || exit 1
  run_container >"$stage/console" 2>&1 </dev/null &
  nspawn=$!
  until find_init && is_up; do
    if ! kill -0 "$nspawn" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      cat "$stage/console" >&2
      echo "lab: the container did not boot" >&2
      exit 1
    fi
    sleep .02
  done
  echo "lab: $name booted in $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
}

hierarchies() {
  awk '$3 == "cgroup2" && !seen++ || $3 == "cgroup" && $4 ~ /name=systemd/ { print $2 }' /proc/mounts
}

# A lab that was killed outright could not clear up; its container is gone, these are not.
sweep() {
  local left pid
  for left in /var/tmp/udsd-lab-* $(hierarchies | sed 's:$:/udsd-lab-*:'); do
    pid=${left##*/udsd-lab-} pid=${pid%%.*}
    [ -d "$left" ] && ! kill -0 "$pid" 2>/dev/null || continue
    case $left in
      /var/tmp/*) rm -rf "$left" ;;
      *) find "$left" -depth -type d -exec rmdir {} + 2>/dev/null ;;
    esac
  done
}

# Becomes systemd-nspawn. Its mounts live and die with a namespace of its own; there, fresh /run and
# /tmp take what nspawn would otherwise leave on the machine when it is killed. `/` itself is refused
# as a directory to boot from, so it is mounted a second time. --pdeathsig: a script that is killed
# outright takes its container along; --kill-signal: at once, because an orderly shutdown first stops
# all processes, and nsenter stops itself with the one it has started and is never continued.
run_container() {
  local cgroup
  for cgroup in "${cgroups[@]}"; do
    echo "$BASHPID" >"$cgroup/cgroup.procs"
  done
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
  # shellcheck disable=SC2016 # $@ belongs to the inner shell
  exec setpriv --pdeathsig TERM unshare --mount --propagation private bash -c '
    set -e
    mount -t tmpfs -o mode=755 lab /run
    mount -t tmpfs -o mode=1777 lab /tmp
    mkdir /run/root
    mount --bind / /run/root
    exec "$@"' _ \
    systemd-nspawn --directory=/run/root --volatile=overlay --private-network --machine="$name" \
    --register=no --keep-unit --kill-signal=SIGKILL --console=pipe --boot -- --unit=basic.target
}

# Finds the container's PID 1. nspawn has a helper among its children that still stands in this
# machine's pid namespace; what is entered there would happen to the machine itself. Only a process
# that is number 1 of a namespace one level down will do.
find_init() {
  local child
  [ -z "$init" ] || return 0
  for child in $(ps -o pid= --ppid "$nspawn"); do
    if awk '/^NSpid:/ { found = NF == 3 && $3 == 1 } END { exit !found }' "/proc/$child/status" 2>/dev/null; then
      init=$child
      return 0
    fi
  done
  return 1
}

is_up() {
  case $(in_vm systemctl is-system-running 2>/dev/null) in
    running | degraded) ;;
    *) return 1 ;;
  esac
}

# Runs a command inside, as root, with nothing of the caller's environment.
in_vm() {
  nsenter --target "$init" --mount --uts --ipc --net --pid -- \
    /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM="${TERM-dumb}" HOME=/root "$@"
}

clean_up() {
  local code=$? cgroup tries
  trap '' HUP INT TERM
  trap - EXIT
  if [ -n "$checks" ]; then
    kill -KILL -- "-$checks" "-$timer" 2>/dev/null
    wait "$checks" "$timer" 2>/dev/null
  fi
  # The death of its PID 1 ends everything inside at once; nspawn then clears up and ends.
  if [ -n "$init" ]; then
    kill -KILL "$init" 2>/dev/null
  elif [ -n "$nspawn" ]; then
    kill -TERM "$nspawn" 2>/dev/null
  fi
  if [ -n "$nspawn" ]; then
    # Asked to go in the middle of its start, nspawn may wait for a PID 1 that cannot answer yet.
    for ((tries = 0; tries < 100; tries++)); do
      kill -0 "$nspawn" 2>/dev/null || break
      sleep .05
    done
    kill -KILL "$nspawn" 2>/dev/null
    wait "$nspawn" 2>/dev/null
  fi
  for cgroup in "${cgroups[@]}"; do
    for ((tries = 0; tries < 100; tries++)); do
      [ -d "$cgroup" ] || break
      [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill"
      # Empty only once the last process in it has been reaped.
      find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep .05
    done
  done
  [ -z "$stage" ] || rm -rf "$stage"
  exit "$code"
}

# --- what is in it ---------------------------------------------------------------------------------

# Copies a file of this machine into the lab. By its content, not its path: /tmp is not shared.
put() {
  local mode=$1 from=$2 to=$3
  # shellcheck disable=SC2016 # $1, $2 belong to the inner shell
  in_vm sh -ec 'mkdir -p "${2%/*}"; cat >"$2.new"; chmod "$1" "$2.new"; mv "$2.new" "$2"' _ "$mode" "$to" <"$from"
}

readonly SOURCE=/root/udsd # of the lab: what README.md's commands find around them

prepare() {
  { put_source "$@" &&
    install_udsd &&
    in_vm useradd --no-create-home --groups udsd member &&
    in_vm useradd --no-create-home outsider; } >"$stage/installation" 2>&1 ||
    { cat "$stage/installation"; echo "lab: udsd could not be installed"; exit 1; } >&2
}

# put_source UDSD UDSC GENERATOR: what a build leaves, and the program that the checks speak by.
put_source() {
  put 0755 "$1" "$SOURCE/target/release/udsd" &&
    put 0755 "$2" "$SOURCE/target/release/udsc" &&
    put 0755 "$3" "$SOURCE/target/release/udsd-generator" &&
    tar -C "$repo" -c packaging config README.md CHANGELOG.md | in_vm tar -C "$SOURCE" -x &&
    put 0755 "$here/lab/client.py" /usr/bin/lab-client
}

# By README.md's own commands, as they stand.
install_udsd() {
  install_by packaging/install
}

uninstall_udsd() {
  install_by "systemctl disable --now udsd.socket"
}

install_by() {
  local commands
  commands=$(readme_block "$1") || return 1
  # shellcheck disable=SC2016 # $1, $2 belong to the inner shell
  in_vm sh -c 'cd "$1" && set -ex && eval "$2"' _ "$SOURCE" "$commands"
}

# readme_block BEGINNING [KIND]: the first block of sh, or of another kind, in README.md whose first line begins so.
readme_block() {
  awk -v beginning="$1" -v fence="\`\`\`${2-sh}" '
    /^```/ { if (found) exit; opened = $0 == fence; next }
    opened { found = index($0, beginning) == 1; opened = 0 }
    found
    END { exit !found }' "$repo/README.md" ||
    { echo "README.md has no block of ${2-sh} that begins with $1" >&2; return 1; }
}

main "$@"
