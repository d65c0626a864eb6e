#!/usr/bin/env bash
# Part check: every operator, case and random case against its definition, without Node; one line each in check.jsonl. A dry
# run takes the small cases, since an emulated kernel is thousands of times slower. On a GPU the small cases of gemm, gemm_int4
# and attention_gqa come first, once for each configuration that the library holds for compute capability 9.0, named as only it is.
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
: >"$named.all"
wrong=0
# each OPERATOR VARIABLE PATTERN: its small cases with every name of the pattern as the variable's value.
each() {
  local names
  mapfile -t names < <(grep -aoE "$3" "$KW_LIBRARY" | sort -u)
  for name in "${names[@]}"; do
    echo "$1 as $name"
    env "$2=$name" "$program" "$KW_LIBRARY" "$cases" --op "$1" --small --out "$named" --seconds 5 || wrong=1
    cat "$named" >>"$named.all"
  done
}
if [ "$KW_EMULATED" = 0 ]; then
  each gemm KERNWATT_GEMM 'sm90_[0-9]+x[0-9]+(_[a-z])?'
  each gemm_int4 KERNWATT_GEMM_INT4 'sm90_int4_(r_)?[0-9]+x[0-9]+(_[a-z])?'
  each attention_gqa KERNWATT_ATTENTION_GQA 'sm90_attn_[0-9]+(_128)?(_ss)?'
  seconds=$((seconds > SECONDS ? seconds - SECONDS : 1))
fi
"$program" "$KW_LIBRARY" "$cases" --out "$KW_OUT/check.jsonl" --seconds $seconds "${size[@]}"
status=$?
cat "$named.all" >>"$KW_OUT/check.jsonl"
rm -f "$named" "$named.all"
[ $status -ne 0 ] || status=$wrong
# Cases that time left out are no failure to the program, but the part has not passed.
if [ $status -eq 0 ] && tail -n 1 "$KW_OUT/check.log" | grep -q 'not run'; then exit 124; fi
exit $status
