// Helpers of the tests of the emulator itself.
#pragma once
#include <string>

#include "../../kernels/core/cuda/ptx.cuh"
#include "device.h"
#include "harness.h"

namespace kw::test {

// The calling thread's options, put back at the end.
class With {
 public:
  explicit With(const std::string& text) : saved_(emu::options()) {
    const bool race = saved_.race;
    emu::options() = emu::parse_options(text);
    emu::options().race |= race;
  }
  ~With() { emu::options() = saved_; }

 private:
  emu::Options saved_;
};

// body throws kw::Error with this code and a message that contains `part`.
template <class Body>
void refuses(Code code, const std::string& part, Body&& body) {
  std::string message;
  try {
    body();
  } catch (const Error& e) {
    message = e.what();
    require(e.code == code, "the code is " + std::string(kCodeNames[static_cast<int>(e.code)]) + ": " + message);
  }
  require(!message.empty(), "nothing was thrown, expected '" + part + "'");
  require(message.find(part) != std::string::npos, "the message is '" + message + "', expected '" + part + "' in it");
}

static __global__ void fill_kernel(int* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(threadIdx.x);
}

inline void works() {  // the emulator is in order
  DeviceBuffer<int> out(64);
  launch({.grid = {2}, .block = {32}}, fill_kernel, out.data());
  const auto got = out.download();
  for (int i = 0; i < 64; ++i) require(got[i] == i % 32, "a correct kernel gives wrong results");
}

// Runs body as a kernel of one block: body(shared address, lane).
template <class Body>
void run_block(Body&& body, unsigned threads = 32, size_t smem = 4096) {
  emu::Launch l;
  l.block = {threads, 1, 1};
  l.smem = smem;
  emu::launch(l, [&] { body(ptx::smem_u32(dyn_smem()), threadIdx.x % 32); });
}
// Such a kernel must be stopped with a diagnosis that contains `part`.
template <class Body>
void stops(const std::string& part, Body&& body, unsigned threads = 32, size_t smem = 4096) {
  refuses(Code::CUDA, part, [&] { run_block(body, threads, smem); });
  works();
}

}  // namespace kw::test
