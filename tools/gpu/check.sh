#!/usr/bin/env bash
# Part check: every operator, case and random case against its definition, without Node; one line each in check.jsonl. A dry
# run takes the small cases, since an emulated kernel is thousands of times slower. On a GPU the small cases of operators whose
# configurations have names come first, once for each of them, in half of the time at most.
set -u
program=$KW_BUILD/bin/kernwatt_check
cases=$KW_ROOT/test/gpu/cases.jsonl
[ -x "$program" ] || { echo "$program is not there; npm run build:cuda makes it"; exit 77; }
[ -f "$cases" ] || { echo "$cases is not there; npm run cases makes it"; exit 77; }
[ -f "$KW_LIBRARY" ] || { echo "$KW_LIBRARY is not there; npm run build:cuda makes it"; exit 77; }
size=()
[ "$KW_EMULATED" = 0 ] || size=(--small)
seconds=$((KW_LIMIT > 10 ? KW_LIMIT - 5 : KW_LIMIT))
named=$KW_OUT/check-named.jsonl
: >"$named"
wrong=0
if [ "$KW_EMULATED" = 0 ]; then
  "$program" "$KW_LIBRARY" "$cases" --each --small --out "$named" --seconds $((seconds / 2)) || wrong=1
  seconds=$((seconds > SECONDS ? seconds - SECONDS : 1))
fi
"$program" "$KW_LIBRARY" "$cases" --out "$KW_OUT/check.jsonl" --seconds $seconds "${size[@]}"
status=$?
cat "$named" >>"$KW_OUT/check.jsonl"
rm -f "$named"
[ $status -ne 0 ] || status=$wrong
# Cases that time left out are no failure to the program, but the part has not passed.
if [ $status -eq 0 ] && grep -qE ' declined, [0-9]+ not run$' "$KW_OUT/check.log"; then exit 124; fi
exit $status
