#!/usr/bin/env bash
# Part peers: our kernels beside cuBLAS, cuDNN, FlashAttention and copies in one process (bench/peers/gpu.py) -> peers.jsonl.
set -u
program=$KW_ROOT/bench/peers/gpu.py
[ -f "$program" ] || { echo "$program is not there"; exit 77; }
python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
  { echo "PyTorch is not installed for $(command -v python3)"; exit 77; }
size=()
[ "$KW_EMULATED" = 0 ] || size=(--tiny)
seconds=$((KW_LIMIT > 10 ? KW_LIMIT - 8 : KW_LIMIT))
exec python3 "$program" --library "$KW_LIBRARY" --out "$KW_OUT/peers.jsonl" --seconds $seconds "${size[@]}"
