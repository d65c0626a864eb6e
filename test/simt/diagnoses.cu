// The diagnosis of each kind of misuse: deadlocks, ranges, alignment, barriers, warps, wgmma, bulk copies, bad addresses.
#include <string>
#include <vector>

#include "demos.h"
#include "emulator.h"

namespace kw::test {
namespace {

// ---- diagnoses ---------------------------------------------------------------------------------
KW_TEST(a_deadlock_names_every_waiter) {
  const int line = __LINE__ + 1;
  const auto body = [](uint32_t, uint32_t) { ptx::named_bar_sync(threadIdx.x < 32 ? 3 : 4, 64); };
  stops("warp 0 lanes ffffffff: barrier 3 (32 of 64 arrived) at ", body, 64);
  stops("warp 1 lanes ffffffff: barrier 4 (32 of 64 arrived) at ", body, 64);
  stops(" at test/simt/diagnoses.cu:" + std::to_string(line), body, 64);
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
#if KW_SIMT_RACE  // which sees plain accesses
KW_TEST(a_misaligned_access_is_named) {
  DeviceBuffer<char> buffer(64);
  char* global = buffer.data();
  stops("alignment: store of 4 bytes at an address that is not a multiple of 4",
        [&](uint32_t, uint32_t) { *reinterpret_cast<volatile uint32_t*>(global + 2) = 1; });
  stops("alignment: load of 2 bytes at an address that is not a multiple of 2", [&](uint32_t, uint32_t lane) {
    if (lane == 0) dyn_smem()[0] = static_cast<unsigned char>(*reinterpret_cast<volatile uint16_t*>(dyn_smem() + 1));
  });
  stops("alignment: store of 8 bytes at an address that is not a multiple of 8",
        [&](uint32_t, uint32_t) { *reinterpret_cast<volatile uint64_t*>(global + 4) = 1; });
}
#endif
KW_TEST(misuse_of_barriers_is_named) {
  stops("barrier: barrier id is 16, expected 0 to 15", [](uint32_t, uint32_t) { ptx::named_bar_sync(16, 32); });
  stops("barrier: thread count is 33, expected a positive multiple of 32",
        [](uint32_t, uint32_t) { ptx::named_bar_sync(1, 33); });
  stops(
      "barrier: bar.sync 1 reached by only part of a warp",
      [](uint32_t, uint32_t lane) { ptx::named_bar_sync(lane < 16 ? 1 : 2, 32); }, 64);
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
  if (What == 7) ptx::tma_load_3d(smem, &map, bar, 0, 0, 0);
}
template <int What>
void misuse_of_bulk(const std::string& part) {
  DeviceBuffer<__nv_bfloat16> matrix(64 * 8);
  const With saved;
  emu::options().async = emu::Async::late;  // a load that lands at once is in time
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
  misuse_of_bulk<7>("TMA: the tensor map has 2 dimensions, expected 3 for this instruction");
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
  const auto refused_3d = [](const std::string& part, uint64_t layers, uint64_t layer_pitch) {
    refuses(Code::ARGUMENT, "make_tensor_map_3d: " + part, [&] {
      make_tensor_map_3d(DType::bf16, reinterpret_cast<const void*>(4096), 64, 64, layers, 128, layer_pitch, 64, 64,
                         Swizzle::b128);
    });
  };
  refused_3d("layers is 0, expected 1 to 2^32", 0, 8192);
  refused_3d("layer_pitch is 8200, expected a multiple of 16 below 2^40", 2, 8200);
  const auto refused_4d = [](const std::string& part, uint64_t batch, uint64_t batch_pitch, uint32_t box_layers) {
    refuses(Code::ARGUMENT, "make_tensor_map_4d: " + part, [&] {
      make_tensor_map_4d(DType::bf16, reinterpret_cast<const void*>(4096), {64, 64, 2, batch}, {128, 8192, batch_pitch},
                         {64, 64, box_layers, 1}, Swizzle::b128);
    });
  };
  refused_4d("batch is 0, expected 1 to 2^32", 0, 16384, 1);
  refused_4d("batch_pitch is 16392, expected a multiple of 16 below 2^40", 2, 16392, 1);
  refused_4d("box_layers is 257, expected 1 to 256", 2, 16384, 257);
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
  stops("test/simt/diagnoses.cu:" + std::to_string(line), write);
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

}  // namespace
}  // namespace kw::test
