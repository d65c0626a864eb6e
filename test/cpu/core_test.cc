// What CPU operators share: conversions between element types, the thread pool and what is read about the processor. Built by test/cpu/CMakeLists.txt.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "../../kernels/core/cpu/features.h"
#include "../../kernels/core/dispatch.h"
#include "../../kernels/core/numeric.h"
#include "../../kernels/core/packed.h"
#include "../../kernels/core/threads.h"
#include "../counting.h"

namespace {

using namespace kw;
using test::closing_line;
using test::expect;

std::string message(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(kCodeNames[static_cast<int>(error.code)]) + " " + error.what();
  }
  return "";
}

// By definition: no neighbour of the result is nearer, and an exact tie went to the even one.
template <uint16_t (*Narrow)(float), float (*Widen)(uint16_t)>
void check_narrowing(const std::string& type, uint16_t infinity) {
  int64_t wrong = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    const float wide = Widen(static_cast<uint16_t>(h));
    const uint16_t back = Narrow(wide);
    wrong += std::isnan(wide) ? (back & 0x7fff) <= infinity : back != h;
  }
  expect(wrong == 0, type + " to f32 and back keeps every value");
  wrong = 0;
  for (uint64_t u = 0; u < 1ull << 31; u += 1009) {
    const float f = std::bit_cast<float>(static_cast<uint32_t>(u));
    const uint16_t h = Narrow(f);
    if (std::isnan(f)) {
      wrong += h <= infinity;
      continue;
    }
    wrong += Narrow(-f) != (h | 0x8000);
    // Infinity stands for the number one spacing beyond the largest.
    const auto number = [&](int bits) {
      return bits < infinity ? double{Widen(static_cast<uint16_t>(bits))}
                             : 2 * double{Widen(infinity - 1)} - double{Widen(infinity - 2)};
    };
    if (std::isinf(f) || h > infinity) {
      wrong += h != infinity;
      continue;
    }
    const double error = std::abs(double{f} - number(h));
    const auto beaten = [&](int bits) {
      const double other = std::abs(double{f} - number(bits));
      return h % 2 ? other <= error : other < error;
    };
    wrong += (h < infinity && beaten(h + 1)) || (h > 0 && beaten(h - 1));
  }
  expect(wrong == 0, "f32 to " + type + " rounds to nearest even");
}

void check_numeric() {
  check_narrowing<f32_to_f16, f16_to_f32>("f16", 0x7c00);
  check_narrowing<f32_to_bf16, bf16_to_f32>("bf16", 0x7f80);
  expect(ulp(DType::f32, 1) == 0x1p-23 && ulp(DType::bf16, -3) == 0x1p-6 && ulp(DType::f16, 0) == 0x1p-24, "ulp");
  expect(ulp(DType::f16, 1e9) == 32 && ulp(DType::f32, HUGE_VAL) == 0x1p104 && std::isnan(ulp(DType::f32, NAN)),
         "ulp at the ends");
  expect(ulp(DType::f32, 1e-40) == 0x1p-149 && ulp(DType::i32, 7) == 1, "ulp of denormals and integers");
  expect(ulp(DType::f8e4m3, 1) == 0x1p-3 && ulp(DType::f8e4m3, 448) == 32 && ulp(DType::f8e4m3, 1e-9) == 0x1p-9,
         "ulp of f8e4m3");
  expect(rounded(DType::f8e4m3, 1e9f) == 448 && rounded(DType::f8e4m3, -HUGE_VALF) == -448 &&
             rounded(DType::f8e4m3, 0x1.8p-10f) == 0x1p-9f && rounded(DType::f8e4m3, 0x1p-10f) == 0 &&
             std::isnan(rounded(DType::f8e4m3, NAN)),
         "f8e4m3 saturates, rounds to even and keeps NaN");
  for (const DType t : {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::i32, DType::i8, DType::u8}) {
    uint32_t storage[2] = {};
    store_f32(storage, t, 1, 3);
    expect(load_f32(storage, t, 1) == 3 && load_f32(storage, t, 0) == 0, std::string("element access, ") + name(t));
  }
  int8_t bytes[4];
  for (const auto& [index, value] : {std::pair{0, 2.5f}, {1, 300.0f}, {2, -300.0f}, {3, NAN}})
    store_f32(bytes, DType::i8, index, value);
  expect(bytes[0] == 2 && bytes[1] == 127 && bytes[2] == -128 && bytes[3] == 0, "integers round to even and saturate");
  expect(message([] { load_f32(nullptr, DType::i4, 0); }) ==
             "DTYPE load_f32: dtype is i4, expected f32, f16, bf16, f8e4m3, i32, i8 or u8",
         "load_f32 of i4");
  expect(message([] { with_constant<64, 128>("op: head_dim", 80, []<auto>(){}); }) ==
             "UNSUPPORTED op: head_dim is 80, expected one of 64, 128",
         "with_constant");
}

void check_threads() {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    bool covered = true, alone = true;
    for (int n = 0; n < 400; ++n) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n)), busy(static_cast<size_t>(threads));
      pool.parallel_for(
          n,
          [&](int64_t begin, int64_t end, int thread) {
            alone = alone && busy[static_cast<size_t>(thread)].fetch_add(1) == 0;
            for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
            --busy[static_cast<size_t>(thread)];
          },
          n % 9);
      covered = covered && std::all_of(hits.begin(), hits.end(), [](const auto& h) { return h == 1; });
    }
    expect(covered && alone, "parallel_for covers its range once, " + std::to_string(threads) + " threads");
    int caught = 0;
    for (int i = 0; i < 200; ++i) {
      caught += !message([&] {
                   pool.parallel_for(threads, [&](int64_t begin, int64_t, int) {
                     if (begin == i % threads) throw Error(Code::SHAPE, "from inside");
                   });
                 }).empty();
    }
    expect(caught == 200, "exceptions reach the caller, " + std::to_string(threads) + " threads");
    expect(message([&] {
             pool.parallel_for(1, [&](int64_t, int64_t, int) { pool.parallel_for(1, [](int64_t, int64_t, int) {}); });
           }) == "INTERNAL ThreadPool: parallel_for is called from inside parallel_for",
           "nesting is refused");
  }
  ThreadPool shared(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i)
        shared.parallel_for(10, [&](int64_t begin, int64_t end, int) { sum += end - begin; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(sum == 4 * 500 * 10, "several callers share a pool");
  // Two callers that never pause: neither gets far ahead, whatever the system does to the threads meanwhile.
  ThreadPool fair(2);
  std::atomic<int> jobs[2] = {};
  std::vector<std::thread> pair;
  for (std::atomic<int>& own : jobs) {
    pair.emplace_back([&] {
      while (jobs[0] < 400 && jobs[1] < 400) {
        fair.parallel_for(2, [](int64_t, int64_t, int) { std::this_thread::sleep_for(std::chrono::microseconds(20)); });
        ++own;
      }
    });
  }
  for (std::thread& caller : pair) caller.join();
  expect(std::min(jobs[0], jobs[1]) > 200, "callers take turns");
  const auto one = ThreadPool::shared(2, cpu::best(), {}), same = ThreadPool::shared(2, cpu::best(), {});
  const auto other = ThreadPool::shared(3, cpu::best(), {});
  expect(one == same && one != other, "one pool for all that ask for it alike");
  const std::vector<int> allowed = cpu::cpus();
  expect(!allowed.empty() && std::is_sorted(allowed.begin(), allowed.end()), "CPUs of this process");
  std::atomic<bool> tied{true};
  ThreadPool pinned(3, cpu::best(), {allowed.back()});
  pinned.parallel_for(3, [&](int64_t, int64_t, int thread) {
    if (thread != 0 && cpu::cpus() != std::vector<int>{allowed.back()}) tied = false;
  });
  expect(tied, "workers are tied to their CPU");
  expect(message([] { ThreadPool pool(2, cpu::best(), {60000}); }) ==
             "ARGUMENT ThreadPool: affinity has CPU 60000, expected CPUs that this process may run on",
         "a CPU there is not");
  expect(message([] { ThreadPool pool(0); }) == "ARGUMENT ThreadPool: threads is 0, expected 1 to 1024", "no threads");
}

// 4-bit elements: where PackedExtent::at says, zeros in the padding, and back.
void check_packed_nibbles() {
  for (const PanelFormat format : {PanelFormat{16, 2, 4}, PanelFormat{3, 4, 32}, PanelFormat{32, 32, 64}}) {
    TensorView plain;
    plain.dtype = DType::u4;
    plain.rank = 3, plain.shape[0] = 2, plain.shape[1] = 37, plain.shape[2] = 70;
    plain.stride[0] = 37 * 70, plain.stride[1] = 70, plain.stride[2] = 1;
    std::vector<uint8_t> elements(bytes_of(plain.dtype, plain.count())), again(elements.size());
    for (int64_t i = 0; i < plain.count(); ++i) store_nibble(elements.data(), i, static_cast<int>(i * 7 % 17));
    plain.data = elements.data();
    TensorView packed = plain;
    packed.format = format.tag();
    std::vector<uint8_t> bytes(packed_bytes(packed), 0xff);
    packed.data = bytes.data();
    const PackedExtent extent(packed);
    pack_panels(plain, packed, 0, 2 * extent.panels());
    int64_t wrong = 0, sum = 0, all = 0;
    for (int64_t i = 0; i < plain.count(); ++i) {
      const int64_t at = i / (37 * 70) * extent.matrix() + extent.at(i / 70 % 37, i % 70);
      wrong += nibble(bytes.data(), at) != nibble(elements.data(), i);
      sum += nibble(elements.data(), i);
    }
    for (const uint8_t byte : bytes) all += (byte & 15) + (byte >> 4);
    expect(wrong == 0 && sum == all, "packed nibbles are where at() says, and the rest is zero");
    plain.data = again.data();
    unpack_panels(packed, plain, 0, 2 * extent.panels());
    expect(again == elements, "unpacking nibbles gives them back");
    plain.shape[2] = packed.shape[2] = 69;
    expect(message([&] { pack_panels(plain, packed, 0, 1); }) ==
               "UNSUPPORTED pack: dtype is u4, expected 16 or 32 bits, or 4 with an even k",
           "an odd k of nibbles");
  }
}

void check_features() {
  expect(cpu::cores() >= 1 && cpu::memory_bytes() > 0, "cores and memory");
  expect(cpu::available_bytes() > 0 && cpu::available_bytes() <= cpu::memory_bytes(), "available memory");
  expect(cpu::parse("generic") == cpu::Isa::generic && cpu::parse(cpu::name(cpu::best())) == cpu::best(), "parse");
  expect(message([] { cpu::parse("sse"); }) ==
             "ARGUMENT cpu: isa is sse, expected one of generic, avx2, avx512, avx512_bf16, amx_bf16",
         "parse of sse");
}

}  // namespace

int main() {
  check_numeric();
  check_threads();
  check_packed_nibbles();
  check_features();
  return closing_line();
}
