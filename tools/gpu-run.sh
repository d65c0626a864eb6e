#!/usr/bin/env bash
# Everything a GPU has to prove, in one command that needs neither Node nor a network:
#
#   tools/gpu-run.sh OUTDIR [part...]      build probe conformance check sanitize peers meter node (see docs/gpu.md)
#
# Each part runs by itself under its own time limit, from tools/gpu/PART.sh or .py. OUTDIR/run.json is rewritten after each, so
# a run cut off at any moment loses only the part in progress; a table comes last. Exit code: 0 when every part passed, 1 when
# one did not, 2 when the run cannot begin, 128 + the signal's number when interrupted.
#
#   KERNWATT_GPU_BUNDLE=FILE   use this bundle of tools/gpu-bundle.sh (default: .gpu/bundle.tar.xz where nothing is built)
#   KERNWATT_GPU_BUILD=FOLDER  what is built (default: .build/cuda, or the bundle's)
#   KERNWATT_GPU_LIBRARY=FILE  stands in for libkernwatt_cuda.so: libkernwatt_emu.so for a dry run, and nothing is built
#   KERNWATT_GPU_NODE=FILE     Node for the part node (default: the bundle's, else the one on PATH)
#   KERNWATT_GPU_LIMITS="check=5 meter=3"   other time limits, in seconds
#
# A part is given KW_OUT, KW_ROOT (sources or bundle), KW_BUILD, KW_LIBRARY, KW_LIMIT, KW_EMULATED (1 or 0) and KW_NODE. It
# exits with 0, with 77 when it lacks a tool, or otherwise when it fails; the last line it prints is its summary.
set -u
export KERNWATT_UNPROVED=1 # what no GPU has proved yet is to be proved here
export LC_ALL=C PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CUDA_DEVICE_ORDER=PCI_BUS_ID
export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$here")
every_part="build probe conformance check sanitize peers meter node"
oldest_driver=580 # the first that runs CUDA 13

stop() {
  printf 'gpu-run: %s\n' "$1" >&2
  exit 2
}

limit_of() {
  local pair
  for pair in ${KERNWATT_GPU_LIMITS:-}; do
    if [ "${pair%%=*}" = "$1" ]; then
      printf '%s' "${pair#*=}"
      return
    fi
  done
  case $1 in
    build) printf 300 ;;
    probe | conformance | meter) printf 30 ;;
    check | sanitize) printf 120 ;;
    peers) printf 90 ;;
    node) printf 60 ;;
  esac
}

# ---- what can be wrong before anything runs -----------------------------------------------------------------------------
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then stop "usage: tools/gpu-run.sh OUTDIR [part...], parts: $every_part"; fi
out=$1
shift
for part in "$@"; do
  case " $every_part " in
    *" $part "*) ;;
    *) stop "part is $part, expected some of $every_part" ;;
  esac
done
for pair in ${KERNWATT_GPU_LIMITS:-}; do
  [[ $pair =~ ^[a-z]+=[1-9][0-9]*$ && " $every_part " == *" ${pair%%=*} "* ]] ||
    stop "KERNWATT_GPU_LIMITS holds $pair, expected PART=SECONDS"
done
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || stop "no Python: python3 3.10 or newer is needed"

check_gpu() {
  local index=${CUDA_VISIBLE_DEVICES:-0} said name cc driver
  command -v nvidia-smi >/dev/null || stop "no GPU: nvidia-smi is not on PATH, so no NVIDIA driver is installed"
  said=$(timeout 30 nvidia-smi -i "${index%%,*}" --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>&1)
  IFS=, read -r name cc driver <<<"${said%%$'\n'*}"
  cc=${cc// /} driver=${driver// /}
  [[ $driver =~ ^[0-9]+\. ]] || stop "no GPU: nvidia-smi says \"${said%%$'\n'*}\""
  # Below it a compatibility package may still bring CUDA 13, and then libcuda says so.
  if ((${driver%%.*} < oldest_driver)); then
    said="driver too old: $name has driver $driver, expected $oldest_driver or newer for CUDA 13"
    python3 - <<'END' 2>/dev/null || stop "$said"
import ctypes, sys
version = ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
sys.exit(version.value < 13000)
END
  fi
  [[ $cc =~ ^[0-9]+\.[0-9]+$ ]] || stop "wrong architecture: $name has compute capability $cc, expected 8.0 or newer"
  ((${cc%%.*} >= 8)) || stop "wrong architecture: $name has compute capability $cc, expected 8.0 or newer"
}
check_gpu

if ! mkdir -p "$out" 2>/dev/null || ! touch "$out/.writable" 2>/dev/null; then stop "$out cannot be written"; fi
out=$(cd "$out" && pwd)
rm -f "$out/.writable"
free=$(df -Pk "$out" | awk 'NR == 2 { print $4 }')
((free >= 2 * 1024 * 1024)) || stop "no disk: $out has $((free / 1024)) MB free, expected at least 2048"

# ---- what is built ------------------------------------------------------------------------------------------------------
root=$tree
bundle=${KERNWATT_GPU_BUNDLE:-}
if [ -z "$bundle" ] && [ ! -e "$tree/.build/cuda/lib/libkernwatt_cuda.so" ] && [ -f "$tree/.gpu/bundle.tar.xz" ]; then
  bundle=$tree/.gpu/bundle.tar.xz
fi
if [ -n "$bundle" ]; then
  [ -f "$bundle" ] || stop "KERNWATT_GPU_BUNDLE is $bundle, expected a file"
  root=$tree/.gpu/bundle
  python3 "$here/gpu/unpack.py" "$bundle" "$root" || exit 2
  printf 'gpu-run: running what %s holds, whatever this checkout is\n' "$bundle" >&2
fi
build=${KERNWATT_GPU_BUILD:-$root/.build/cuda}
library=$build/lib/libkernwatt_cuda.so
if [ -n "${KERNWATT_GPU_LIBRARY:-}" ]; then
  library=$(realpath -e "$KERNWATT_GPU_LIBRARY" 2>/dev/null) ||
    stop "KERNWATT_GPU_LIBRARY is $KERNWATT_GPU_LIBRARY, expected a file"
fi
node=${KERNWATT_GPU_NODE:-}
[ -n "$node" ] || { [ -x "$root/bin/node" ] && node=$root/bin/node; } || node=$(command -v node)

parts=$*
if [ -z "$parts" ]; then
  parts="probe conformance check sanitize peers meter"
  if [ -n "$node" ] && [ -f "$root/dist/cli/main.js" ] && [ -f "$root/build/Release/kernwatt.node" ]; then parts+=" node"; fi
fi

# Is anything that these parts need not built yet, where it could be?
to_build() {
  [ -z "${KERNWATT_GPU_LIBRARY:-}" ] && [ -f "$root/CMakeLists.txt" ] || return 1
  local part file
  for part in $parts; do
    case $part in
      conformance) file=$build/bin/simt_test_gpu ;;
      check | sanitize) file=$build/bin/kernwatt_check ;;
      *) file=$library ;;
    esac
    [ -e "$file" ] && [ -e "$library" ] || return 0
  done
  return 1
}
if [[ " $parts " != *" build "* ]] && to_build; then
  printf 'gpu-run: not all of it is built in %s, so that comes first\n' "$build" >&2
  parts="build $parts"
fi
ordered=()
for part in $every_part; do [[ " $parts " == *" $part "* ]] && ordered+=("$part"); done

# ---- the run ------------------------------------------------------------------------------------------------------------
interrupted='' child=''
# shellcheck disable=SC2317 # called by the traps below
on_signal() {
  interrupted=$1
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap 'on_signal 1' HUP
trap 'on_signal 2' INT
trap 'on_signal 15' TERM

record() ( # a signal must not reach the one that writes the record
  trap '' HUP INT TERM
  exec timeout 60 python3 "$here/gpu/record.py" "$@"
)

open_run() {
  emulated=$(record open "$out" "$root" "$build" "$library") && return
  [ $? -ne 124 ] || stop "the driver did not answer within 60 s"
  exit 2
}

run_part() {
  local name=$1 limit outcome began seconds script
  limit=$(limit_of "$name")
  script=$here/gpu/$name
  if [ -f "$script.py" ]; then set -- python3 "$script.py"; else set -- bash "$script.sh"; fi
  record start "$out" "$name" "$limit" || exit 2
  printf 'gpu-run: %s, at most %s s\n' "$name" "$limit" >&2
  began=$EPOCHREALTIME
  KW_OUT=$out KW_ROOT=$root KW_BUILD=$build KW_LIBRARY=$library KW_LIMIT=$limit KW_EMULATED=$emulated KW_NODE=$node \
    timeout --kill-after=5 "$limit" "$@" </dev/null >"$out/$name.log" 2>&1 &
  child=$!
  [ -z "$interrupted" ] || kill -TERM "$child" 2>/dev/null
  wait "$child"
  outcome=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; done # a signal of ours ends the first wait early
  child=''
  [ -z "$interrupted" ] || outcome=interrupted
  seconds=$(awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }')
  record finish "$out" "$name" "$limit" "$seconds" "$outcome" || exit 2
}

open_run
for part in "${ordered[@]}"; do
  run_part "$part"
  [ -z "$interrupted" ] || break
  [ "$part" != build ] || open_run
done
record summary "$out" "${ordered[@]}"
status=$?
[ -z "$interrupted" ] || exit $((128 + interrupted))
exit "$status"
