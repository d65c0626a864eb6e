#!/usr/bin/env bash
# Part build: the CUDA library and the programs that the other parts run, with cmake and nvcc alone. What is current stays.
set -u
[ -f "$KW_ROOT/CMakeLists.txt" ] || { echo "there are no sources in $KW_ROOT to build from"; exit 77; }
for tool in cmake nvcc g++; do
  command -v "$tool" >/dev/null || { echo "$tool is not on PATH, and the CUDA library needs it"; exit 77; }
done
generator=()
if [ ! -f "$KW_BUILD/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S "$KW_ROOT" -B "$KW_BUILD" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release || exit 1
cmake --build "$KW_BUILD" -j"$(nproc)" --target kernwatt_cuda simt_test_gpu kernwatt_check || exit 1
echo "built in $KW_BUILD by $(nvcc --version | tail -n 1)"
