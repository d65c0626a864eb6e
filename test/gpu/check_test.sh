#!/usr/bin/env bash
# That kernwatt_check fails where it should and counts nothing as passed that is not: runs it on the library of
# test/native/fake_library.cc, whose gemm computes y[i] = alpha x[i] and misbehaves on request, and on bad input.
#
#   check_test.sh KERNWATT_CHECK FAKE_LIBRARY
set -uo pipefail
check=$1 fake=$2
folder=$(dirname "$fake")/check_test
rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || exit 1
failed=0

# expect STATUS TEXT ARGUMENTS...: exit status, and a line of output (of either stream) that contains the text.
expect() {
  local status=$1 text=$2 output actual
  shift 2
  output=$("$check" "$@" 2>&1)
  actual=$?
  if ((actual != status)) || ! grep -qF -- "$text" <<<"$output"; then
    printf 'FAILED kernwatt_check %s\n  exit %s, expected %s\n  expected: %s\n  output:\n%s\n' "$*" "$actual" "$status" "$text" "$output"
    failed=1
  fi
}

header='{"schema":"kernwatt.cases/0","guard":64,"params":{"gemm":{"alpha":1,"beta":0,"activation":"none","trans_x":false,"trans_w":false,"batch_invariant":false}}}'
x='"x":{"dtype":"f32","shape":[2,1],"seed":0}'
w='"w":{"dtype":"f32","shape":[1,1],"value":1}'
y='"y":{"dtype":"f32","shape":[2,1]}'
# line NAME PARAMS OPERANDS [MEMBERS,]: a case of gemm.
line() {
  printf '{"op":"gemm","case":"%s","flops":4,"params":{%s},"fill":["integers",1,9],%s"operands":{%s}}\n' "$1" "$2" "${4-}" "$3"
}
# cases FILE: the lines of stdin after a first line.
cases() { { echo "$header" && cat; } >"$1"; }

# ---- right and wrong ----------------------------------------------------------------------------------------------------
line right '' "$x,$w,$y" '"exact":["y"],' | cases right.jsonl
expect 0 '1 passed, 0 failed, 0 declined' "$fake" right.jsonl --out right.out
grep -q '^{"op":"gemm","case":"right","state":"passed","reasons":\[\],"exact":true,"kernels":\[\],"seconds":[0-9.e-]*}$' right.out ||
  { echo "FAILED result line: $(cat right.out)" && failed=1; }

# Names come back as they were written, escapes resolved.
line 'caf\u00e9 \ud83d\ude00 \"\t\/' '' "$x,$w,$y" | cases names.jsonl
expect 0 '1 passed, 0 failed, 0 declined' "$fake" names.jsonl --case 'café 😀 "' --out names.out
grep -qF '"case":"café 😀 \"\u0009/"' names.out || { echo "FAILED name: $(cat names.out)" && failed=1; }
{
  line small '' "$x,$w,$y"
  line large '' "$x,$w,$y" | sed 's/"flops":4/"flops":1e9/'
} | cases sizes.jsonl
expect 0 '2 passed, 0 failed' "$fake" sizes.jsonl
expect 0 '1 passed, 0 failed' "$fake" sizes.jsonl --small

# Each configuration by name.
expect 0 'gemm as mma_16x64: 1 passed, 0 failed, 0 declined' "$fake" right.jsonl --each --out each.out
grep -q '^{"op":"gemm","case":"right","configuration":"sm90_64x128","state":"passed",' each.out ||
  { echo "FAILED result line: $(cat each.out)" && failed=1; }
line wrong '' "$x,${w/:1\}/:2\}},$y" | cases wrong.jsonl
expect 1 'failed: gemm "wrong" as fma_64x64: y: 2 of 2 elements' "$fake" wrong.jsonl --each
expect 0 '0 passed, 0 failed, 0 declined, ' "$fake" right.jsonl --each --seconds 0
echo '{"op":"warp_drive","case":"engage","flops":1}' | cases unnamed.jsonl
expect 2 'no case is what the options ask for' "$fake" unnamed.jsonl --each

one() {
  line "$2" "$3" "$4" "${5-}" | cases one.jsonl
  expect 1 "failed: gemm \"$2\": $1" "$fake" one.jsonl
  expect 1 '0 passed, 1 failed, 0 declined' "$fake" one.jsonl
}
one 'y: 2 of 2 elements are outside the tolerance; worst at row' 'wrong' '' "$x,${w/:1\}/:2\}},$y"
# Within one unit in the last place, which the tolerance allows and an exact case does not.
one 'y: 2 of 2 elements differ from the exact result; element 0 is' 'inexact' '' "$x,${w/:1\}/:1.0000001192092896\}},$y" '"exact":["y"],'
one 'memory outside y was overwritten, 65 elements into a buffer of 133 whose first 64 are not its own' 'outside' '' \
  "$x,$w,${y/\}/,\"stride\":[4,1]\}}"
one 'x was modified at element 0 of its memory, expected it only to be read' 'modified' '"alpha":-4' "$x,$w,$y"
one 'y: 2 of 2 elements are outside the tolerance' 'reads what nothing may read' '"alpha":0' "${x/\}/,\"unread\":[[[0,2],[0,1]]]\}},$w,$y"
one 'CUDA: fake: the launch failed' 'launch' '"alpha":-1' "$x,$w,$y"
one 'CUDA: fake: the call failed' 'call' '"alpha":-2' "$x,$w,$y"
one 'DEVICE_LOST: fake: the device is lost' 'lost' '"alpha":-3' "$x,$w,$y"

# ---- what is not run is never counted as passed ----------------------------------------------------------------------------
{
  line first '' "$x,$w,$y"
  line lost '"alpha":-3' "$x,$w,$y"
  line after '' "$x,$w,$y"
} | cases lost.jsonl
expect 1 'stopped: the device does nothing any more since gemm "lost"' "$fake" lost.jsonl
expect 1 '1 passed, 1 failed, 0 declined, 1 not run' "$fake" lost.jsonl
{
  line relu '"activation":"relu"' "$x,$w,$y"
  echo '{"op":"warp_drive","case":"engage","flops":1}'
} | cases declined.jsonl
expect 0 '0 passed, 0 failed, 2 declined' "$fake" declined.jsonl
expect 0 'declined: fake: it has no activations (1)' "$fake" declined.jsonl
expect 0 'declined: warp_drive: this program has no definition of it (1)' "$fake" declined.jsonl
expect 0 '0 passed, 0 failed, 0 declined, 1 not run' "$fake" right.jsonl --seconds 0

{
  line quick '' "$x,$w,$y"
  line slow '"beta":60000' "$x,$w,$y"
} | cases slow.jsonl
output=$(timeout 2 "$check" "$fake" slow.jsonl --out slow.out 2>&1)
if (($? != 124)) || [[ $output != *'ended while running gemm "slow"'* ]] || (($(wc -l <slow.out) != 1)); then
  echo "FAILED when ended by a signal: $output; results: $(cat slow.out)" && failed=1
fi

# ---- bad input --------------------------------------------------------------------------------------------------------------
bad() {
  { cat right.jsonl && printf '%s\n' "$2"; } >bad.jsonl
  expect 2 "kernwatt_check: bad.jsonl:3: $1" "$fake" bad.jsonl
}
bad 'column 1: expected a value' ''
bad 'column 13: a string without an end' '{"op": "gemm'
bad 'column 11: text after the value' '{"op": 1} 2'
bad 'column 15: a second "op"' '{"op": 1, "op": 2}'
bad 'column 10: a number with a leading 0' '{"op": 01}'
bad 'column 10: an unknown escape' '{"op": "\x"}'
bad 'column 14: half of a surrogate pair' '{"op":"\ud800"}'
bad 'column 34: nested too deep' "$(printf '[%.0s' {1..99})"
bad 'the case has no op' '{}'
bad 'params has an unknown member gamma' "$(line bad '"gamma":1' "$x,$w,$y")"
bad 'params.activation is tanh, no choice of it' "$(line bad '"activation":"tanh"' "$x,$w,$y")"
bad 'operands has no w' "$(line bad '' "$x,$y")"
bad 'operands has an unknown member z' "$(line bad '' "$x,$w,$y,${y/y/z}")"
bad 'operands.x has 0 of seed, value, values and flags, expected 1' "$(line bad '' "${y/y/x},$w,$y")"
bad 'operands.x.values has 1 numbers, expected 2' "$(line bad '' "${x/\"seed\":0/\"values\":[1]},$w,$y")"
bad 'operands.x.shape is -2, expected a whole number from 0' "$(line bad '' "${x/\[2/[-2},$w,$y")"
bad 'operands.x is too large' "$(line bad '' "${x/2,1/99999,99999},$w,$y")"
bad 'operands.x.dtype is f33' "$(line bad '' "${x/f32/f33},$w,$y")"
bad 'exact names "z", which is no output' "$(line bad '' "$x,$w,$y" '"exact":["z"],')"
bad 'the case has an unknown member extra' "$(line bad '' "$x,$w,$y" '"extra":1,')"
: >empty.jsonl
expect 2 'empty.jsonl:1: empty' "$fake" empty.jsonl
echo '{"schema":"kernwatt.cases/9"}' >schema.jsonl
expect 2 'schema.jsonl:1: schema is kernwatt.cases/9, expected kernwatt.cases/0' "$fake" schema.jsonl
expect 2 'missing.jsonl: cannot be read: No such file' "$fake" missing.jsonl
expect 2 'library: missing.so: ' missing.so right.jsonl
expect 2 'no case is what the options ask for' "$fake" right.jsonl --op attention_gqa
expect 2 'unknown option --fast' "$fake" right.jsonl --fast
expect 2 '--device is 9, expected 0 to 1' "$fake" right.jsonl --device 9
expect 2 '--seconds is soon, expected a number' "$fake" right.jsonl --seconds soon
expect 2 'files given, expected a library and a file of cases' "$fake"
expect 2 'none/x cannot be written: No such file' "$fake" right.jsonl --out none/x
expect 2 '/dev/full cannot be written: No space left' "$fake" right.jsonl --out /dev/full
expect 0 'Exit status' --help

# ---- other libraries: copies of the file behave by their name ---------------------------------------------------------------
for name in abi mute args empty; do cp "$fake" "./$name.so"; done
expect 2 'speaks abi 99' ./abi.so right.jsonl
expect 2 'does not speak abi' ./mute.so right.jsonl
expect 2 'its arguments of gemm have 8 bytes' ./args.so right.jsonl
expect 77 'no device: fake: no driver' ./empty.so right.jsonl

((failed == 0)) && echo "kernwatt_check fails where it should"
exit "$failed"
