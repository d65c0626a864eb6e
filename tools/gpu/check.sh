#!/usr/bin/env bash
# Part check: every operator, case and random case against its definition, without Node; one line each in check.jsonl. A dry
# run takes the small cases, since an emulated kernel is thousands of times slower.
set -u
program=$KW_BUILD/bin/kernwatt_check
cases=$KW_ROOT/test/gpu/cases.jsonl
[ -x "$program" ] || { echo "$program is not there; npm run build:cuda makes it"; exit 77; }
[ -f "$cases" ] || { echo "$cases is not there; npm run cases makes it"; exit 77; }
[ -f "$KW_LIBRARY" ] || { echo "$KW_LIBRARY is not there; npm run build:cuda makes it"; exit 77; }
size=()
[ "$KW_EMULATED" = 0 ] || size=(--small)
seconds=$((KW_LIMIT > 10 ? KW_LIMIT - 5 : KW_LIMIT))
"$program" "$KW_LIBRARY" "$cases" --out "$KW_OUT/check.jsonl" --seconds $seconds "${size[@]}"
status=$?
# Cases that time left out are no failure to the program, but the part has not passed.
if [ $status -eq 0 ] && tail -n 1 "$KW_OUT/check.log" | grep -q 'not run'; then exit 124; fi
exit $status
