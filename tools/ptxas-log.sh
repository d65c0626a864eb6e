#!/bin/sh
# Runs nvcc and keeps beside the object what it otherwise throws away. "ptxas-log.sh nvcc ... -o x.o ..." writes
#   x.o.ptxas      what ptxas said, for tools/ptxas.mjs
#   x.o.*.ptx      the PTX of each virtual architecture, for tools/kernels.mjs
#   x.o.flags      the version of ptxas, then nvcc's arguments, one a line
# Everything else nvcc says goes on to stderr.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
said=$object.said
kept=$object.kept
rm -rf "$kept" "$object".*.ptx "$object.flags"
mkdir -p "$kept"
"$@" --keep --keep-dir "$kept" 2>"$said"
status=$?
ptxas='^ptxas |^    [0-9]+ bytes stack frame|C75[0-9][0-9]'
grep -E "$ptxas" "$said" >"$object.ptxas"
grep -vE "$ptxas" "$said" >&2
grep -E '^ptxas (warning|error|fatal)' "$said" >&2
if [ $status -eq 0 ]; then
  for ptx in "$kept"/*.ptx; do
    [ -e "$ptx" ] && mv "$ptx" "$object.${ptx##*/}"
  done
  nvcc=$(readlink -f "$1")
  for ptxas in "${1%nvcc}ptxas" "${nvcc%nvcc}ptxas" ptxas; do
    version=$("$ptxas" --version 2>/dev/null | sed -n 's/.*, V//p')
    [ -n "$version" ] && break
  done
  printf '%s\n' "$version" "$@" >"$object.flags"
fi
rm -rf "$said" "$kept"
exit $status
