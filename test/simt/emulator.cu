// Tests of the emulator itself: options, device profiles, what a launch refuses, the diagnosis of each kind of misuse,
// and that it stays usable after a failure and from several threads.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "../../kernels/core/cuda/ptx.cuh"
#include "demos.h"
#include "device.h"
#include "harness.h"

namespace kw::test {
namespace {

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

__global__ void nothing_kernel() {}
__global__ void arrive_without_init_kernel() { ptx::mbar_arrive(ptx::smem_u32(dyn_smem())); }
__global__ void fill_kernel(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(threadIdx.x); }

void works() {  // the emulator is in order
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

// ---- options -----------------------------------------------------------------------------------
KW_TEST(options_are_parsed) {
  const emu::Options o = emu::parse_options(
      "sched=pct,async=random,seed=7,race=1,uninit=0,poison=0,spurious=0,bank=1,"
      "workers=2,resident=0,profile=sm_89");
  require(o.sched == emu::Sched::pct && o.async == emu::Async::random && o.seed == 7, "sched, async, seed");
  require(o.race && !o.uninit && !o.poison && !o.spurious && o.bank, "flags");
  require(o.workers == 2 && o.resident == 0 && o.profile.cc == 89, "workers, resident, profile");
  refuses(Code::ARGUMENT, "KERNWATT_EMU: a key is speed, expected sched, async", [] { emu::parse_options("speed=1"); });
  refuses(Code::ARGUMENT, "sched is fast, expected one of rr, ahead", [] { emu::parse_options("sched=fast"); });
  refuses(Code::ARGUMENT, "race is 2, expected 0 or 1", [] { emu::parse_options("race=2"); });
  refuses(Code::ARGUMENT, "seed is -1, expected a number", [] { emu::parse_options("seed=-1"); });
  refuses(Code::ARGUMENT, "an item is race, expected key=value", [] { emu::parse_options("seed=1,race"); });
}

// ---- profiles and launch limits ----------------------------------------------------------------
KW_TEST(shared_memory_ends_where_the_device_says) {
  const struct {
    const char* profile;
    size_t bytes;
  } limits[] = {{"sm_80", 163 * 1024}, {"sm_89", 99 * 1024}, {"sm_90", 227 * 1024}};
  for (const auto& [profile, bytes] : limits) {
    const With options(std::string("profile=") + profile);
    const std::string expected = "expected at most " + std::to_string(bytes) + " on " + profile;
    prepare(nothing_kernel, bytes);
    launch({.grid = {1}, .block = {32}, .smem = bytes}, nothing_kernel);
    refuses(Code::CUDA, expected, [&] { prepare(nothing_kernel, bytes + 1); });
    refuses(Code::CUDA, expected, [&] { launch({.grid = {1}, .block = {32}, .smem = bytes + 1}, nothing_kernel); });
  }
}
KW_TEST(more_than_48_KB_needs_prepare) {
  launch({.grid = {1}, .block = {32}, .smem = 48 * 1024}, fill_kernel, DeviceBuffer<int>(32).data());
  refuses(Code::CUDA, "expected at most 49152 unless kw::prepare", [] {
    launch({.grid = {1}, .block = {32}, .smem = 48 * 1024 + 1}, fill_kernel, DeviceBuffer<int>(32).data());
  });
}
KW_TEST(static_shared_memory_is_limited) {
  stops("with large the block has 49168 static and 4096 dynamic bytes, expected at most 49152 static",
        [](uint32_t, uint32_t) {
          KW_SHARED(char[48 * 1024 + 16], large);
          large[0] = 1;
        });
}

KW_TEST(launch_limits) {
  const auto refused = [](const std::string& part, LaunchConfig config) {
    refuses(Code::CUDA, part, [&] { launch(config, nothing_kernel); });
  };
  refused("the block is 1025 x 1 x 1 threads", {.grid = {1}, .block = {1025}});
  refused("the block is 1 x 1 x 65 threads", {.grid = {1}, .block = {1, 1, 65}});
  refused("the block is 32 x 33 x 1 threads", {.grid = {1}, .block = {32, 33}});
  refused("the block is 0 x 1 x 1 threads", {.grid = {1}, .block = {0}});
  refused("the grid is 0 x 1 x 1 blocks", {.grid = {0}, .block = {32}});
  refused("the grid is 1 x 65536 x 1 blocks", {.grid = {1, 65536}, .block = {32}});
  refused("the cluster is 16 x 1 x 1 blocks, expected 1 to 8", {.grid = {16}, .block = {32}, .cluster = {16}});
  refused("the grid is 3 x 1 x 1 blocks, expected a multiple", {.grid = {3}, .block = {32}, .cluster = {2}});
  const With options("profile=sm_80");
  refused("the cluster is 2 x 1 x 1 blocks on sm_80", {.grid = {2}, .block = {32}, .cluster = {2}});
}

KW_TEST(newer_instructions_are_refused_on_older_devices) {
  for (const char* profile : {"sm_80", "sm_89"}) {
    const With options(std::string("profile=") + profile);
    const std::string device = std::string(", this device is ") + profile;
    stops("profile: mbar_init needs sm_90" + device, [](uint32_t smem, uint32_t) { ptx::mbar_init(smem, 1); });
    stops("profile: elect_one needs sm_90" + device, [](uint32_t, uint32_t) { ptx::elect_one(); });
    stops("profile: cluster_sync needs sm_90" + device, [](uint32_t, uint32_t) { ptx::cluster_sync(); });
    stops("profile: fence_proxy_async needs sm_90" + device, [](uint32_t, uint32_t) { ptx::fence_proxy_async(); });
    stops("profile: stmatrix_x4 needs sm_90" + device, [](uint32_t smem, uint32_t lane) {
      ptx::stmatrix_x4(smem + lane * 16, {1, 2, 3, 4});
    });
    stops("profile: wgmma_fence needs sm_90a" + device, [](uint32_t, uint32_t) { ptx::wgmma_fence(); });
    stops("profile: reg_dec needs sm_90a" + device, [](uint32_t, uint32_t) { ptx::reg_dec<40>(); });
  }
}
KW_TEST(both_architectures_run_their_own_instructions) {
  const auto delta = [](Outcome (*run)(), const char* profile) {
    const With options(std::string("profile=") + profile);
    emu::stats() = {};
    require(run().wrong == 0, "a demonstration kernel is wrong");
    return emu::stats();
  };
  for (const char* profile : {"sm_80", "sm_89", "sm_90"}) {
    const emu::Stats s = delta([] { return gemm_mma(128, 128, 64); }, profile);
    require(s.blocks == 4 && s.mma > 0 && s.ldmatrix > 0 && s.cp_async > 0 && s.wgmma + s.tma == 0, "gemm_mma");
  }
  const emu::Stats s = delta([] { return gemm_wgmma(128, 128, 128, false); }, "sm_90");
  require(s.blocks == 1 && s.wgmma > 0 && s.tma > 0 && s.mma + s.cp_async == 0, "gemm_wgmma");
}

// ---- diagnoses ---------------------------------------------------------------------------------
KW_TEST(a_deadlock_names_every_waiter) {
  const int line = __LINE__ + 1;
  const auto body = [](uint32_t, uint32_t) { ptx::named_bar_sync(threadIdx.x < 32 ? 3 : 4, 64); };
  stops("warp 0 lanes ffffffff: barrier 3 (32 of 64 arrived) at ", body, 64);
  stops("warp 1 lanes ffffffff: barrier 4 (32 of 64 arrived) at ", body, 64);
  stops(" at test/simt/emulator.cu:" + std::to_string(line), body, 64);
  stops("lanes 0000ffff: syncwarp with mask ffffffff, lanes ffff0000 missing at ", [](uint32_t, uint32_t lane) {
    if (lane >= 16) ptx::named_bar_sync(1, 64);
    __syncwarp();
  });
}
KW_TEST(a_deadlock_shows_an_mbarrier) {
  stops("mbarrier smem+0 parity 0 (phase bit 0, 1 arrivals and 64 bytes missing)", [](uint32_t smem, uint32_t lane) {
    if (lane == 0) ptx::mbar_init(smem, 2);
    __syncthreads();
    if (lane == 0) ptx::mbar_arrive_expect_tx(smem, 64);
    ptx::mbar_wait(smem, 0);
  });
}
KW_TEST(polling_for_ever_is_a_livelock) {
  DeviceBuffer<unsigned> flag(std::vector<unsigned>{0});
  unsigned* p = flag.data();
  stops("livelock", [p](uint32_t, uint32_t) {
    for (unsigned seen = 0; seen == 0;) seen = ptx::ld_acquire_gpu(p);
  });
}
KW_TEST(a_block_cannot_wait_for_one_that_is_not_resident) {
  {
    const With options("resident=0");
    require(last_block().wrong == 0, "with the whole grid resident it works");
  }
  refuses(Code::CUDA, "does it wait for a block that is not resident?", [] { last_block(); });
  works();
}

KW_TEST(misuse_of_shared_memory_and_copies_is_named) {
  DeviceBuffer<char> buffer(64);
  const char* global = buffer.data();
  uint32_t r[4];
  stops("smem out of bounds: shared access of 16 bytes at smem+4096, the block has 4096 dynamic bytes",
        [&](uint32_t smem, uint32_t lane) { ptx::ldmatrix_x4(r, smem + 4096 + lane * 16); });
  stops("alignment: ldmatrix: the row address of lane 0 is not a multiple of 16",
        [&](uint32_t smem, uint32_t lane) { ptx::ldmatrix_x4(r, smem + lane * 16 + 8); });
  stops("alignment: cp.async: source or destination is not a multiple of 16",
        [&](uint32_t smem, uint32_t lane) { ptx::cp_async_16(smem + lane * 16 + 4, global, 16); });
  stops("cp.async: src_bytes is 17, expected 0 to 16",
        [&](uint32_t smem, uint32_t lane) { ptx::cp_async_16(smem + lane * 16, global, 17); });
  stops("gmem out of bounds: cp.async of 16 bytes, 0 bytes past the end of a device buffer of 64",
        [&](uint32_t smem, uint32_t lane) { ptx::cp_async_16(smem + lane * 16, global + 64, 16); });
  stops("cp.async: the thread exits with copies it never committed",
        [&](uint32_t smem, uint32_t lane) { ptx::cp_async_16(smem + lane * 16, global, 16); });
  stops("cp.async: the thread exits with copies it never waited for", [&](uint32_t smem, uint32_t lane) {
    ptx::cp_async_16(smem + lane * 16, global, 16);
    ptx::cp_async_commit();
  });
  stops("smem_u32: the pointer is not in this block's shared memory",
        [&](uint32_t, uint32_t) { ptx::smem_u32(global); });
}
KW_TEST(misuse_of_barriers_is_named) {
  stops("barrier: barrier id is 16, expected 0 to 15", [](uint32_t, uint32_t) { ptx::named_bar_sync(16, 32); });
  stops("barrier: thread count is 33, expected a positive multiple of 32",
        [](uint32_t, uint32_t) { ptx::named_bar_sync(1, 33); });
  stops(
      "barrier: bar.sync 1 reached by only part of a warp",
      [](uint32_t, uint32_t lane) {
        if (lane < 16) ptx::named_bar_sync(1, 32);
      },
      64);
  stops("barrier: __syncthreads() in divergent code", [](uint32_t, uint32_t lane) {
    if (lane < 16)
      __syncthreads();
    else
      __syncthreads();
  });
  stops("mbarrier: smem+0 is not an initialised mbarrier", [](uint32_t smem, uint32_t) { ptx::mbar_arrive(smem); });
  stops("mbarrier: smem+0 is not an initialised mbarrier", [](uint32_t smem, uint32_t lane) {
    if (lane != 0) return;
    ptx::mbar_init(smem, 2);
    dyn_smem()[7] = 0xff;
    ptx::mbar_arrive(smem);
  });
  stops("mbarrier: the address smem+4 is not a multiple of 8",
        [](uint32_t smem, uint32_t) { ptx::mbar_init(smem + 4, 1); });
  stops("mbarrier: the count is 0, expected 1 to 2^20 - 1", [](uint32_t smem, uint32_t) { ptx::mbar_init(smem, 0); });
  stops("mbarrier: block 0,0 ended with 64 bytes outstanding at smem+0", [](uint32_t smem, uint32_t lane) {
    if (lane != 0) return;
    ptx::mbar_init(smem, 1);
    ptx::mbar_expect_tx(smem, 64);
  });
}
KW_TEST(misuse_of_a_warp_is_named) {
  stops("shfl: width is 12, expected a power of two", [](uint32_t, uint32_t) { __shfl_sync(~0u, 1, 0, 12); });
  stops("shfl: lane 0 reads lane 20, which is not in the mask 0000ffff", [](uint32_t, uint32_t lane) {
    if (lane < 16) __shfl_sync(0x0000ffffu, 1, 20);
  });
  stops("shfl: the calling lane is not in the mask fffffffe", [](uint32_t, uint32_t) { __shfl_sync(~1u, 1, 1); });
  stops("diverged warp: shfl while other lanes are at vote", [](uint32_t, uint32_t lane) {
    if (lane < 16)
      __ballot_sync(~0u, 1);
    else
      __shfl_sync(~0u, 1, 0);
  });
  stops(
      "vote: the mask ffffffff names lanes that have exited or do not exist",
      [](uint32_t, uint32_t) { __ballot_sync(~0u, 1); }, 16);
  stops("trap: __trap() reached", [](uint32_t, uint32_t) { __trap(); });
  stops("setmaxnreg: the count is 20, expected a multiple of 8", [](uint32_t, uint32_t) { ptx::reg_dec<20>(); });
  stops(
      "wgmma: the four warps of warpgroup 0 of block 0,0 did not issue the same wgmma and setmaxnreg sequence",
      [](uint32_t, uint32_t) { threadIdx.x < 32 ? ptx::reg_dec<40>() : ptx::reg_dec<48>(); }, 128);
}
KW_TEST(misuse_of_wgmma_is_named) {
  const With options("uninit=0");
  const auto multiply = [](float(&d)[4], uint32_t smem, uint32_t sbo = 256) {
    const uint64_t desc = ptx::wgmma_desc(smem, 128, sbo, Swizzle::none);
    ptx::wgmma_ss<__nv_bfloat16, 8>(d, desc, desc, 0);
  };
  stops("wgmma: the warp is not part of a full warpgroup", [&](uint32_t smem, uint32_t) {
    float d[4] = {};
    ptx::wgmma_fence();
    multiply(d, smem);
  });
  stops(
      "wgmma: the descriptor has no stride byte offset",
      [&](uint32_t smem, uint32_t) {
        float d[4] = {};
        ptx::wgmma_fence();
        multiply(d, smem, 0);
      },
      128);
  stops(
      "wgmma: wgmma.fence missing",
      [&](uint32_t smem, uint32_t) {
        float d[4] = {};
        multiply(d, smem);
      },
      128);
  stops(
      "wgmma: descriptors or scale_d differ between the lanes of a warp",
      [&](uint32_t smem, uint32_t lane) {
        float d[4] = {};
        ptx::wgmma_fence();
        multiply(d, smem + lane / 16 * 128);
      },
      128);
  stops(
      "smem out of bounds: wgmma operand of 16 bytes",
      [&](uint32_t smem, uint32_t) {
        float d[4] = {};
        ptx::wgmma_fence();
        multiply(d, smem, 4096);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>(d);
      },
      128);
}

// TMA and clusters need real launches. Two blocks of one thread.
template <int What>
__global__ void bulk_kernel(const __grid_constant__ TensorMap map, const __grid_constant__ TensorMap blank) {
  const uint32_t smem = ptx::smem_u32(dyn_smem()), bar = smem + 2048;
  ptx::mbar_init(bar, 1);
  if (What != 1) ptx::fence_mbar_init();
  ptx::cluster_sync();
  ptx::mbar_arrive_expect_tx(bar, 1024);
  if (What == 0) ptx::tma_load_2d(smem, &blank, bar, 0, 0);
  if (What == 1) ptx::tma_load_2d(smem, &map, bar, 0, 0);
  if (What == 2) ptx::tma_load_2d(smem + 128, &map, bar, 0, 0);
  if (What == 3) ptx::tma_load_2d_multicast(smem, &map, bar, 0, 0, 4);
  if (What == 4) ptx::tma_load_2d(smem + 3072 + 1024, &map, bar, 0, 0);
  if (What == 5) ptx::map_shared_rank(dyn_smem(), 2);
  if (What == 6) ptx::tma_load_2d(smem, &map, bar, 0, 0);  // and exits before it lands
}
template <int What>
void misuse_of_bulk(const std::string& part) {
  DeviceBuffer<__nv_bfloat16> matrix(64 * 8);
  TensorMap blank{};
  const TensorMap map = make_tensor_map_2d(DType::bf16, matrix.data(), 64, 8, 128, 64, 8, Swizzle::b128);
  refuses(Code::CUDA, part,
          [&] { launch({.grid = {2}, .block = {1}, .smem = 4096, .cluster = {2}}, bulk_kernel<What>, map, blank); });
  works();
}
KW_TEST(misuse_of_bulk_copies_is_named) {
  misuse_of_bulk<0>("TMA: the tensor map is not initialised");
  misuse_of_bulk<1>("proxy: a bulk load signals an mbarrier whose init was not followed by fence_mbar_init");
  misuse_of_bulk<2>("alignment: the TMA destination is at shared address 1152, expected a multiple of 1024");
  misuse_of_bulk<3>("TMA: the multicast mask names a block outside the cluster");
  misuse_of_bulk<4>("smem out of bounds");
  misuse_of_bulk<5>("cluster: map_shared_rank: rank is 2, expected below 2");
  misuse_of_bulk<6>("a load completes in the shared memory of a block that has exited");
}
KW_TEST(tensor_maps_are_checked) {
  const auto refused = [](const std::string& part, uint64_t inner, uint64_t pitch, uint32_t box_inner,
                          uint32_t box_outer, uintptr_t base = 4096, DType dtype = DType::bf16) {
    refuses(Code::ARGUMENT, "make_tensor_map_2d: " + part, [&] {
      make_tensor_map_2d(dtype, reinterpret_cast<const void*>(base), inner, 64, pitch, box_inner, box_outer,
                         Swizzle::b128);
    });
  };
  refused("base is 4098, expected a multiple of 16", 64, 128, 64, 64, 4098);
  refused("inner is 0, expected 1 to 2^32", 0, 128, 64, 64);
  refused("pitch is 136, expected a multiple of 16", 64, 136, 64, 64);
  refused("pitch is 112, expected a multiple of 16, at least one row", 64, 112, 64, 64);
  refused("box_inner is 512, expected 1 to 256", 64, 128, 512, 64);
  refused("box_outer is 257, expected 1 to 256", 64, 128, 64, 257);
  refused("box_inner in bytes is 256, expected a multiple of 16 within the swizzle span", 128, 256, 128, 64);
  refused("the element size in bits is 4, expected 8, 16 or 32", 64, 128, 64, 64, 4096, DType::i4);
}

// ---- bad addresses -----------------------------------------------------------------------------
#if !defined(__SANITIZE_ADDRESS__)  // which would report them itself, and end the process
KW_TEST(a_bad_address_in_global_memory_is_a_diagnosis) {
  DeviceBuffer<int> buffer(64);
  int* p = buffer.data();
  stops("0 bytes past the end of a device buffer of 256", [p](uint32_t, uint32_t lane) { p[64 + lane] = 1; });
  stops("4096 bytes before a device buffer of 256", [p](uint32_t, uint32_t) { p[-1024] = 1; });
  const int line = __LINE__ + 1;
  const auto write = [p](uint32_t, uint32_t lane) { p[64 + lane] = 1; };
  stops("test/simt/emulator.cu:" + std::to_string(line), write);
  stops("far from every device buffer", [](uint32_t, uint32_t) { *static_cast<volatile int*>(nullptr) = 1; });
}
[[gnu::noinline]] int deep(int n) {
  volatile char frame[512];
  frame[0] = static_cast<char>(n);
  return n == 0 ? frame[0] : deep(n - 1) + frame[0];
}
KW_TEST(too_large_local_variables_are_a_diagnosis) {
  stops("exceed the emulator's stack of 131072", [](uint32_t, uint32_t) { deep(100000); });
}
#endif

// ---- asynchrony and order ----------------------------------------------------------------------
#if !KW_SIMT_RACE  // where the very look is reported
// What a thread finds in shared memory after a copy it did not wait for.
bool copy_has_landed(const std::string& options) {
  const With with(options + ",uninit=0");
  DeviceBuffer<int> in(std::vector<int>(4, 7));
  int found = 0;
  run_block(
      [&, src = in.data()](uint32_t smem, uint32_t) {
        ptx::cp_async_16(smem, src, 16);
        ptx::cp_async_commit();
        found = *static_cast<volatile int*>(emu::dyn_smem());
        ptx::cp_async_wait<0>();
      },
      1);
  require(found == 7 || found == -1, "the destination holds neither the data nor poison");
  return found == 7;
}
KW_TEST(copies_land_early_late_or_at_random) {
  require(copy_has_landed("async=eager"), "eager");
  require(!copy_has_landed("async=late"), "late");
  int early = 0;
  for (int seed = 1; seed <= 32; ++seed) early += copy_has_landed("async=random,seed=" + std::to_string(seed));
  require(early > 4 && early < 28, std::to_string(early) + " of 32 seeds landed early");
}
#endif
KW_TEST(a_seed_repeats_a_run) {
  const auto switches = [](int seed) {
    const With options("sched=random,async=random,seed=" + std::to_string(seed));
    emu::stats() = {};
    require(gemm_wgmma(128, 128, 128, true).wrong == 0, "gemm_wgmma is wrong");
    return emu::stats().switches;
  };
  const uint64_t one = switches(1);
  require(switches(1) == one, "the same seed gives another schedule");
  require(switches(2) != one || switches(3) != one, "three seeds give the same schedule");
}
KW_TEST(the_proxy_fence_after_cp_async_is_demanded) {
  const With options("race=1,uninit=0");
  DeviceBuffer<uint32_t> in(std::vector<uint32_t>(256, 0));
  const auto kernel = [src = in.data()](bool fence) {
    return [src, fence](uint32_t smem, uint32_t) {
      float d[4];
      if (threadIdx.x < 64) ptx::cp_async_16(smem + threadIdx.x * 16, src + threadIdx.x * 4, 16);
      ptx::cp_async_commit();
      ptx::cp_async_wait<0>();
      if (fence) ptx::fence_proxy_async();
      __syncthreads();
      const uint64_t desc = ptx::wgmma_desc(smem, 512, 0x80, Swizzle::none);
      ptx::wgmma_fence();
      ptx::wgmma_ss<__nv_bfloat16, 8>(d, desc, desc, 0);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>(d);
    };
  };
  run_block(kernel(true), 128, 2048);
  stops("fence.proxy.async missing: smem+", kernel(false), 128, 2048);
}
KW_TEST(bank_conflicts_of_ldmatrix_are_counted) {
  const auto conflicts = [](uint32_t row_bytes) {
    const With options("bank=1,uninit=0");
    emu::stats() = {};
    run_block([row_bytes](uint32_t smem, uint32_t lane) {
      uint32_t r[4];
      ptx::ldmatrix_x4(r, smem + lane * row_bytes);
    });
    return emu::stats().bank_conflicts;
  };
  require(conflicts(16) == 0, "consecutive rows do not conflict");
  require(conflicts(128) == 4 * 7, "rows 128 bytes apart conflict eight ways in each of four phases");
  require(conflicts(32) == 4 * 1, "rows 32 bytes apart conflict two ways");
}

// ---- failures and threads ----------------------------------------------------------------------
long resident_kilobytes() {
  long pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*s %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}
KW_TEST(failed_launches_leak_nothing) {
  const auto fail_often = [](int times) {
    for (int i = 0; i < times; ++i)
      refuses(Code::CUDA, "deadlock", [] { run_block([](uint32_t, uint32_t) { ptx::named_bar_sync(1, 512); }, 256); });
  };
  fail_often(20);
  const long before = resident_kilobytes();
  fail_often(300);
  const long grown = resident_kilobytes() - before;
  require(grown < 4096, "300 failed launches of 256 threads kept " + std::to_string(grown) + " KB");
  works();
}
KW_TEST(several_threads_launch_at_once) {
  std::atomic<int> bad{0};
  const auto work = [&bad](const std::string& options, bool fails) {
    emu::options() = emu::parse_options(options);
    for (int i = 0; i < 6; ++i) try {
        if (gemm_mma(64, 64, 64).wrong) ++bad;
        if (!fails) continue;
        gemm_wgmma(128, 128, 64, false);  // on sm_80
        ++bad;
      } catch (const Error& e) {
        const std::string what = e.what();
        if (!fails || what.find("mbar_init needs sm_90") == std::string::npos) ++bad;
      }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(work, "sched=random,seed=1", false);
  threads.emplace_back(work, "sched=pct,async=random,seed=2,workers=2", false);
  threads.emplace_back(work, "profile=sm_80", true);
  threads.emplace_back(work, "profile=sm_89,async=eager", false);
  for (std::thread& t : threads) t.join();
  require(bad == 0, std::to_string(bad) + " launches went wrong");
}
KW_TEST(workers_share_a_grid) {
  const With options("workers=2");
  emu::stats() = {};
  require(gemm_mma(128, 192, 64).wrong == 0, "gemm_mma is wrong");
  require(emu::stats().blocks == 6, "two workers ran " + std::to_string(emu::stats().blocks) + " blocks, expected 6");
  refuses(Code::CUDA, "mbarrier", [] { launch({.grid = {8}, .block = {32}, .smem = 64}, arrive_without_init_kernel); });
  works();
}

}  // namespace
}  // namespace kw::test
