#!/usr/bin/env bash
# Part node: the command line that users have, on this GPU: `kernwatt check`, then `kernwatt bench --quick` -> node.jsonl. A
# dry run checks one operator and times nothing, because emulated results are never timed.
set -u
[ -n "$KW_NODE" ] || { echo "there is no Node here; tools/gpu-bundle.sh packs one"; exit 77; }
for file in dist/cli/main.js build/Release/kernwatt.node; do
  [ -f "$KW_ROOT/$file" ] || { echo "$KW_ROOT/$file is not there; npm run build makes it"; exit 77; }
done
kernwatt() { timeout "$1" "$KW_NODE" "$KW_ROOT/dist/cli/main.js" "${@:2}"; }
half=$((KW_LIMIT > 3 ? (KW_LIMIT - 2) / 2 : 1))
if [ "$KW_EMULATED" = 1 ]; then
  export KERNWATT_EMU_LIBRARY=$KW_LIBRARY
  kernwatt "$half" check attention_merge --backend emu || { echo "check: exit code $?"; exit 1; }
  echo "checked on the emulator, which is never timed"
  exit 0
fi
export KERNWATT_CUDA_LIBRARY=$KW_LIBRARY
kernwatt "$half" check --backend cuda
checked=$?
kernwatt "$half" bench --quick --backend cuda --out "$KW_OUT/node.jsonl"
timed=$?
records=0
[ ! -f "$KW_OUT/node.jsonl" ] || records=$(wc -l <"$KW_OUT/node.jsonl")
echo "check: exit code $checked, bench: exit code $timed, $records records (124: cut off after $half s)"
for code in $checked $timed; do [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || exit 1; done
[ $((checked + timed)) -eq 0 ] || exit 124
