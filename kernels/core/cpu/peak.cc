// peak(): windows of a few milliseconds, each on all threads at once; the best window counts.
#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "../error.h"
#include "features.h"

namespace kw::cpu {
namespace {

const PeakKernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16) return kPeakAvx512Bf16;
  if (isa == Isa::avx512) return kPeakAvx512;
  if (isa == Isa::avx2) return kPeakAvx2;
#endif
  (void)isa;
  return kPeakGeneric;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One result per thread, each on cache lines of its own.
struct alignas(64) Result {
  float values[16];
  double work;
};

// Calls window() (which returns the work it did) until the time is up, three times at least; the best rate.
template <class Window>
double best_rate(double seconds, Window&& window) {
  const double end = now() + seconds;
  double best = 0;
  for (int n = 0; n < 3 || now() < end; ++n) {
    const double start = now(), work = window();
    best = std::max(best, work / (now() - start));
  }
  return best;
}

double arithmetic(ThreadPool& pool, double (*loop)(int64_t, float*), double seconds) {
  std::vector<Result> results(static_cast<size_t>(pool.threads()));
  return best_rate(seconds, [&] {
    pool.parallel_for(pool.threads(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        results[static_cast<size_t>(i)].work = loop(200000, results[static_cast<size_t>(i)].values);
    });
    double work = 0;
    for (const Result& r : results) work += r.work;
    return work;
  });
}

using Buffer = std::unique_ptr<float, decltype(&std::free)>;

Buffer buffer(int64_t floats) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, static_cast<size_t>(floats) * sizeof(float)) != 0) {
    throw Error(Code::OUT_OF_MEMORY, "peak: " + std::to_string(floats * 4) + " bytes of memory could not be had");
  }
  return Buffer(static_cast<float*>(memory), &std::free);
}

double memory(ThreadPool& pool, const PeakKernels& kernels, bool copies, double seconds) {
  // Twice the last-level cache, 256 MB to 1 GB, and never more than a quarter of what is left of the memory.
  const uint64_t room = available_bytes() == 0 ? ~uint64_t{0} : available_bytes() / 4;
  const uint64_t bytes = std::min(std::clamp<uint64_t>(2 * features().llc_bytes, 256u << 20, 1u << 30), room);
  const int64_t blocks = std::max<int64_t>(pool.threads(), static_cast<int64_t>(bytes / (copies ? 2 : 1)) >> 20),
                block = 1 << 18;
  const Buffer from = buffer(blocks * block), to = buffer(copies ? blocks * block : 1);
  std::vector<Result> results(static_cast<size_t>(pool.threads()));
  pool.parallel_for(blocks, [&](int64_t begin, int64_t end, int) {
    std::memset(from.get() + begin * block, 0, static_cast<size_t>((end - begin) * block) * sizeof(float));
    if (copies) std::memset(to.get() + begin * block, 0, static_cast<size_t>((end - begin) * block) * sizeof(float));
  });
  // A window is the next part of the buffer, so that nothing is met again before all the rest has passed through the
  // caches.
  const int64_t part = std::min<int64_t>(blocks, std::max(64, pool.threads()));
  int64_t first = 0;
  return best_rate(seconds, [&] {
    if (first + part > blocks) first = 0;
    pool.parallel_for(part, [&](int64_t begin, int64_t end, int thread) {
      const int64_t at = (first + begin) * block, floats = (end - begin) * block;
      if (copies) {
        kernels.copy(to.get() + at, from.get() + at, floats);
      } else {
        kernels.read(from.get() + at, floats, results[static_cast<size_t>(thread)].values);
      }
    });
    first += part;
    return static_cast<double>(part * block) * sizeof(float) * (copies ? 2 : 1);
  });
}

}  // namespace

double peak(ThreadPool& pool, PeakKind kind, double seconds) {
  const PeakKernels& kernels = kernels_for(pool.isa());
  switch (kind) {
    case PeakKind::fma_f32:
      return arithmetic(pool, kernels.fma_f32, seconds);
    case PeakKind::dot_bf16:
      return kernels.dot_bf16 ? arithmetic(pool, kernels.dot_bf16, seconds) : std::numeric_limits<double>::quiet_NaN();
    case PeakKind::read:
      return memory(pool, kernels, false, seconds);
    case PeakKind::copy:
      return memory(pool, kernels, true, seconds);
  }
  throw Error(Code::ARGUMENT, "peak: kind is " + std::to_string(static_cast<int>(kind)) + ", expected 0 to 3");
}

}  // namespace kw::cpu
