#!/bin/sh
# Runs nvcc and keeps its ptxas messages beside the object: "ptxas-log.sh nvcc ... -o x.o ..." writes x.o.ptxas, which
# tools/ptxas.mjs reads. Everything else nvcc says goes on to stderr.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
said=$object.said
"$@" 2>"$said"
status=$?
ptxas='^ptxas |^    [0-9]+ bytes stack frame|C75[0-9][0-9]'
grep -E "$ptxas" "$said" >"$object.ptxas"
grep -vE "$ptxas" "$said" >&2
grep -E '^ptxas (warning|error|fatal)' "$said" >&2
rm -f "$said"
exit $status
