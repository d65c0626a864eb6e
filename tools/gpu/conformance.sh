#!/usr/bin/env bash
# Part conformance: every wrapper of kernels/core/cuda/ptx.cuh with random inputs; what the device computed goes to
# conformance.txt, the file that the emulator is compared with. A dry run asks the emulator's own build.
set -u
program=$KW_BUILD/bin/simt_test_gpu
[ "$KW_EMULATED" = 0 ] || program=$KW_BUILD/bin/simt_test
[ -x "$program" ] || { echo "$program is not there; npm run build:cuda makes it"; exit 77; }
exec "$program" --record "$KW_OUT/conformance.txt"
