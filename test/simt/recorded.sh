#!/bin/sh
# recorded.sh SIMT_TEST RESULTS: the emulator computes what every GPU in RESULTS/<gpu>/conformance.txt did. Exits 77 when none
# has been recorded, which CTest reports as skipped.
status=77
for file in "$2"/*/conformance.txt; do
  [ -e "$file" ] || continue
  [ $status -eq 77 ] && status=0
  echo "$file"
  "$1" --golden "$file" || status=1
done
[ $status -eq 77 ] && echo "PTX conformance: not yet recorded on a GPU (tools/gpu-run.sh, then npm run gpu:record)"
exit $status
