#!/usr/bin/env bash
# Packs everything that tools/gpu-run.sh needs on a machine without Node, npm or a network into one archive below 60 MB:
#
#   npm run build && npm run build:cuda && tools/gpu-bundle.sh [OUT.tar.xz]      default: .gpu/bundle.tar.xz
#
# Inside: the CUDA library and its programs, the addon, the TypeScript as JavaScript with what it imports, the running Node,
# cases, peers and these scripts, laid out as in a checkout; bundle.json says which commit. It runs there as
# `tar xf bundle.tar.xz && tools/gpu-run.sh OUTDIR`, or from a checkout (KERNWATT_GPU_BUNDLE, .gpu/bundle.tar.xz).
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
most=60000000 # bytes

stop() {
  printf 'gpu-bundle: %s\n' "$1" >&2
  exit 2
}

out=${1:-$root/.gpu/bundle.tar.xz}
case $#$out in
  [01][!-]*) ;;
  *) stop "usage: tools/gpu-bundle.sh [OUT.tar.xz]" ;;
esac
for tool in node npm xz tar git; do command -v "$tool" >/dev/null || stop "$tool is not on PATH"; done

missing=0
need() {
  local made_by=$1 file
  shift
  for file in "$@"; do
    [ -e "$root/$file" ] && continue
    printf 'gpu-bundle: %s is not there; %s makes it\n' "$file" "$made_by" >&2
    missing=1
  done
}
built=(.build/cuda/{lib/libkernwatt_cuda.so,bin/kernwatt_check,bin/simt_test_gpu,kernels.json})
need 'npm run build:cuda' "${built[@]}"
need 'npm run build' build/Release/kernwatt.node dist/cli/main.js
need 'npm run cases' test/gpu/cases.jsonl
need 'npm ci' node_modules
[ $missing = 0 ] || exit 2

# The one file that names the library's commit must name this library.
node -e '
  const [file, library] = process.argv.slice(1);
  const { readFileSync } = require("node:fs");
  const sha = require("node:crypto").createHash("sha256").update(readFileSync(library)).digest("hex");
  process.exit(JSON.parse(readFileSync(file, "utf8")).library === sha ? 0 : 1);
' "$root/.build/cuda/kernels.json" "$root/.build/cuda/lib/libkernwatt_cuda.so" ||
  stop ".build/cuda/kernels.json belongs to another library; npm run build:cuda makes it again"

node=$(node -p process.execPath)
! ldd "$node" | grep -q libnode || stop "$node needs a shared libnode; run this with a Node from nodejs.org"

stage=$(mktemp -d) || exit 2
trap 'rm -rf "$stage"' EXIT
{
  printf '%s\n' "${built[@]}" build/Release/kernwatt.node dist package.json LICENSE
  cd "$root" || exit 2
  git ls-files --cached --others --exclude-standard tools/gpu-run.sh tools/gpu 'test/gpu/*.jsonl' bench/peers |
    grep -E '^(tools|test)/|\.(py|json)$' | grep -v '^bench/peers/package'
  npm ls --omit=dev --all --parseable | sed -n "s#^$root/##p"
} >"$stage/list" || exit 2
mkdir -p "$stage/tree/bin"
set -o pipefail
tar -C "$root" -cf "$stage/tree.tar" -T "$stage/list" || stop "the files could not be copied"
tar -C "$stage/tree" -xf "$stage/tree.tar" || stop "the files could not be copied"
cp "$node" "$stage/tree/bin/node" && strip --strip-unneeded "$stage/tree/bin/node" 2>/dev/null
"$stage/tree/bin/node" "$stage/tree/dist/cli/main.js" check attention_merge >/dev/null || stop "what was packed does not run"
commit=$(git -C "$root" rev-parse HEAD)
dirty=$([ -z "$(git -C "$root" status --porcelain)" ] && echo false || echo true)
printf '{ "schema": "kernwatt.bundle/0", "commit": "%s", "dirty": %s, "node": "%s" }\n' \
  "$commit" "$dirty" "$(node --version)" >"$stage/tree/bundle.json"

mkdir -p "$(dirname "$out")" || exit 2
tar -C "$stage/tree" --owner=0 --group=0 -cf - . | xz -T0 >"$out.new" || stop "$out could not be written"
size=$(stat -c %s "$out.new")
if ((size >= most)); then
  rm -f "$out.new"
  stop "the archive has $size bytes, expected fewer than $most"
fi
mv "$out.new" "$out"
printf '%s: %d.%d MB, commit %s%s\n' "$out" $((size / 1000000)) $((size / 100000 % 10)) "${commit:0:12}" \
  "$([ "$dirty" = true ] && echo ' with local changes')"
cd "$stage/tree" && du -sk --apparent-size -- bin .build build dist node_modules tools test bench |
  awk '{ printf "  %8.1f MB  %s\n", $1 / 1000, $2 }'
