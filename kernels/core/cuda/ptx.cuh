// One thin function per PTX instruction, and the only inline assembly of the project. Under nvcc the body is the
// instruction; in the emulator it is one call that models it (docs/gpu.md). Names follow the PTX ISA, the reference for
// every semantics here. Shared addresses are 32-bit (smem_u32). Arrays are taken by reference because the emulator
// keeps their address for results that arrive later, as the hardware does.
#pragma once
#include "launch.cuh"

// KW_AT: the caller's source line as a last default argument, which only the emulator has. KW_AT0: the same when it is
// the only one. KW_ON passes it along. KW_PTX picks a body; KW_SM90 and KW_SM90A also refuse other device profiles.
#if defined(KW_EMU)
#define KW_AT , KW_LOC
#define KW_AT0 KW_LOC
#define KW_ON , loc
#define KW_PTX(emulated, ...) emulated
#define KW_SM90(emulated, ...) (emu::require_sm90(__func__, loc), emulated)
#define KW_SM90A(emulated, ...) (emu::require_sm90a(__func__, loc), emulated)
#else
#define KW_AT
#define KW_AT0
#define KW_ON
#define KW_PTX(emulated, ...) __VA_ARGS__
#define KW_SM90(emulated, ...) __VA_ARGS__
#define KW_SM90A(emulated, ...) __VA_ARGS__
#endif

namespace kw::ptx {

// ---- sm_80: addresses and lanes ----------------------------------------------------------------
KW_DEVICE uint32_t smem_u32(const void* p KW_AT) {
  return KW_PTX(emu::smem_u32(p, loc), static_cast<uint32_t>(__cvta_generic_to_shared(p)));
}
KW_DEVICE int lane_id() {
  int lane;
  KW_PTX(lane = emu::lane_id(), asm("mov.u32 %0, %%laneid;" : "=r"(lane)));
  return lane;
}

// 2^x with a relative error of 2^-22; below the smallest normal number it is 0.
KW_DEVICE float ex2(float x) {
  float y;
  KW_PTX(y = emu::ex2(x), asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)));
  return y;
}

// ---- sm_80: mma.sync ---------------------------------------------------------------------------
// d[16,8] = a[16,16] b[16,8] + c, f32 accumulation. d and c may be the same array.
KW_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 const float (&c)[4] KW_AT) {
  KW_PTX(emu::mma(emu::MmaType::bf16, d, a, b, c, loc),
         asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                      "{%10,%11,%12,%13};"
                      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
                        "f"(c[2]), "f"(c[3])));
}
KW_DEVICE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                const float (&c)[4] KW_AT) {
  KW_PTX(emu::mma(emu::MmaType::f16, d, a, b, c, loc),
         asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                      "{%10,%11,%12,%13};"
                      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
                        "f"(c[2]), "f"(c[3])));
}
// d[16,8] = a[16,32] b[32,8] + c in s32, wrapping.
KW_DEVICE void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int (&c)[4] KW_AT) {
  KW_PTX(emu::mma(emu::MmaType::s8, d, a, b, c, loc),
         asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                      "{%10,%11,%12,%13};"
                      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]),
                        "r"(c[2]), "r"(c[3])));
}

// ---- sm_80: ldmatrix ---------------------------------------------------------------------------
// Lane 8 i + j gives the 16-byte aligned address of row j of the i-th 8x8 matrix of 16-bit elements.
KW_DEVICE void ldmatrix_x2(uint32_t (&r)[2], uint32_t addr KW_AT) {
  KW_PTX(emu::ldmatrix(r, 2, false, addr, loc), asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                                                             : "=r"(r[0]), "=r"(r[1])
                                                             : "r"(addr)
                                                             : "memory"));
}
KW_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t addr KW_AT) {
  KW_PTX(emu::ldmatrix(r, 2, true, addr, loc),
         asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                      : "=r"(r[0]), "=r"(r[1])
                      : "r"(addr)
                      : "memory"));
}
KW_DEVICE void ldmatrix_x4(uint32_t (&r)[4], uint32_t addr KW_AT) {
  KW_PTX(emu::ldmatrix(r, 4, false, addr, loc),
         asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                      : "r"(addr)
                      : "memory"));
}
KW_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t addr KW_AT) {
  KW_PTX(emu::ldmatrix(r, 4, true, addr, loc),
         asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                      : "r"(addr)
                      : "memory"));
}

// ---- sm_80: cp.async ---------------------------------------------------------------------------
// Copies 4, 8 or 16 bytes from global to shared memory, both aligned to that size; bytes from src_bytes on are zero.
// The 16-byte form bypasses L1. src must be a valid address even when src_bytes is 0.
KW_DEVICE void cp_async_4(uint32_t dst, const void* src, int src_bytes KW_AT) {
  KW_PTX(emu::cp_async(dst, src, 4, src_bytes, loc),
         asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(__cvta_generic_to_global(src)),
                      "r"(src_bytes)
                      : "memory"));
}
KW_DEVICE void cp_async_8(uint32_t dst, const void* src, int src_bytes KW_AT) {
  KW_PTX(emu::cp_async(dst, src, 8, src_bytes, loc),
         asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(dst), "l"(__cvta_generic_to_global(src)),
                      "r"(src_bytes)
                      : "memory"));
}
KW_DEVICE void cp_async_16(uint32_t dst, const void* src, int src_bytes KW_AT) {
  KW_PTX(emu::cp_async(dst, src, 16, src_bytes, loc),
         asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(__cvta_generic_to_global(src)),
                      "r"(src_bytes)
                      : "memory"));
}
KW_DEVICE void cp_async_commit(KW_AT0) {
  KW_PTX(emu::cp_async_commit(loc), asm volatile("cp.async.commit_group;" ::: "memory"));
}
// Waits until at most the N newest groups of this thread are pending.
template <int N>
KW_DEVICE void cp_async_wait(KW_AT0) {
  KW_PTX(emu::cp_async_wait(N, loc), asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"));
}

// ---- sm_80: named barriers and flags -----------------------------------------------------------
// id 0 is __syncthreads; `threads` counts the threads of whole warps that sync plus those that arrive. Give constants:
// a run-time id makes ptxas reserve all 16 barriers.
KW_DEVICE void named_bar_sync(int id, int threads KW_AT) {
  KW_PTX(emu::bar_sync(id, threads, loc), asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}
KW_DEVICE void named_bar_arrive(int id, int threads KW_AT) {
  KW_PTX(emu::bar_arrive(id, threads, loc), asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}
// Flags between blocks in global memory.
KW_DEVICE void red_release_gpu(unsigned* p, unsigned v) {
  KW_PTX(emu::red_release(p, v),
         asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
                      : "memory"));
}
KW_DEVICE unsigned ld_acquire_gpu(const unsigned* p KW_AT) {
  unsigned v;
  KW_PTX(v = emu::ld_acquire(p, loc), asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                                                   : "=r"(v)
                                                   : "l"(__cvta_generic_to_global(p))
                                                   : "memory"));
  return v;
}

#if defined(KW_EMU) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// ---- sm_90: stmatrix, elect --------------------------------------------------------------------
KW_DEVICE void stmatrix_x4(uint32_t addr, const uint32_t (&r)[4] KW_AT) {
  KW_SM90(emu::stmatrix(r, 4, false, addr, loc),
          asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(addr), "r"(r[0]),
                       "r"(r[1]), "r"(r[2]), "r"(r[3])
                       : "memory"));
}
KW_DEVICE void stmatrix_x4_trans(uint32_t addr, const uint32_t (&r)[4] KW_AT) {
  KW_SM90(emu::stmatrix(r, 4, true, addr, loc),
          asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(addr), "r"(r[0]),
                       "r"(r[1]), "r"(r[2]), "r"(r[3])
                       : "memory"));
}
// True in exactly one lane of a converged full warp.
KW_DEVICE bool elect_one(KW_AT0) {
  uint32_t elected;
  KW_SM90(elected = emu::elect_one(loc), asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\n"
                                                      "selp.u32 %0, 1, 0, p;\n}\n"
                                                      : "=r"(elected)));
  return elected != 0;
}

// ---- sm_90: mbarrier ---------------------------------------------------------------------------
// 8 bytes of shared memory, 8-byte aligned. A phase ends when `count` arrivals and all expected bytes are in; waiting
// for parity p returns once a phase of parity p has ended, so a new barrier passes parity 1 at once.
KW_DEVICE void mbar_init(uint32_t bar, uint32_t count KW_AT) {
  KW_SM90(emu::mbar_init(bar, count, loc), asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count)
                                                        : "memory"));
}
KW_DEVICE void mbar_inval(uint32_t bar KW_AT) {
  KW_SM90(emu::mbar_inval(bar, loc), asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(bar) : "memory"));
}
// By the initialising thread: makes its mbarrier.init visible to the cluster and to TMA.
KW_DEVICE void fence_mbar_init(KW_AT0) {
  KW_SM90(emu::fence_mbar_init(loc), asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}
KW_DEVICE void mbar_arrive(uint32_t bar KW_AT) {
  KW_SM90(emu::mbar_arrive(bar, 0, loc), asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(bar)
                                                      : "memory"));
}
KW_DEVICE void mbar_arrive_expect_tx(uint32_t bar, uint32_t bytes KW_AT) {
  KW_SM90(emu::mbar_arrive(bar, bytes, loc),
          asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                       : "memory"));
}
KW_DEVICE void mbar_expect_tx(uint32_t bar, uint32_t bytes KW_AT) {
  KW_SM90(emu::mbar_expect_tx(bar, bytes, loc),
          asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(bytes)
                       : "memory"));
}
// Arrives at the barrier at the same offset in block `rank` of the cluster.
KW_DEVICE void mbar_arrive_cluster(uint32_t bar, uint32_t rank KW_AT) {
  KW_SM90(emu::mbar_arrive(emu::mapa(bar, rank, loc), 0, loc),
          asm volatile("{\n.reg .b32 r;\nmapa.shared::cluster.u32 r, %0, %1;\n"
                       "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [r];\n}\n" ::"r"(bar),
                       "r"(rank)
                       : "memory"));
}
// May return false for no reason; mbar_wait repeats it.
KW_DEVICE bool mbar_try_wait(uint32_t bar, uint32_t parity KW_AT) {
  uint32_t done;
  KW_SM90(done = emu::mbar_try_wait(bar, parity, loc),
          asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
                       "selp.u32 %0, 1, 0, p;\n}\n"
                       : "=r"(done)
                       : "r"(bar), "r"(parity)
                       : "memory"));
  return done != 0;
}
KW_DEVICE void mbar_wait(uint32_t bar, uint32_t parity KW_AT) {
  while (!ptx::mbar_try_wait(bar, parity KW_ON)) {
  }
}
// Arrives once every cp.async this thread has issued so far is complete; the arrival is part of the barrier's count.
KW_DEVICE void cp_async_mbar_arrive_noinc(uint32_t bar KW_AT) {
  KW_SM90(emu::cp_async_mbar_arrive_noinc(bar, loc),
          asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar)
                       : "memory"));
}

// ---- sm_90: bulk copies (TMA) ------------------------------------------------------------------
// Orders this thread's earlier ordinary writes to shared memory before later TMA and wgmma accesses to it.
KW_DEVICE void fence_proxy_async(KW_AT0) {
  KW_SM90(emu::fence_proxy_async(loc), asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
}
// Loads the box at column x, row y; completes its bytes, the whole box, on `bar`.
KW_DEVICE void tma_load_2d(uint32_t dst, const TensorMap* map, uint32_t bar, int x, int y KW_AT) {
  KW_SM90(emu::tma_load(dst, map, bar, {2, {x, y}}, 0, loc),
          asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                       "[%1, {%3, %4}], [%2];" ::"r"(dst),
                       "l"(map), "r"(bar), "r"(x), "r"(y)
                       : "memory"));
}
// The same into every block of the cluster whose bit is set, at the same offsets of data and barrier.
KW_DEVICE void tma_load_2d_multicast(uint32_t dst, const TensorMap* map, uint32_t bar, int x, int y,
                                     uint16_t cta_mask KW_AT) {
  KW_SM90(emu::tma_load(dst, map, bar, {2, {x, y}}, cta_mask, loc),
          asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                       ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(dst),
                       "l"(map), "r"(bar), "h"(cta_mask), "r"(x), "r"(y)
                       : "memory"));
}
// Of matrix z of a map of three dimensions.
KW_DEVICE void tma_load_3d(uint32_t dst, const TensorMap* map, uint32_t bar, int x, int y, int z KW_AT) {
  KW_SM90(emu::tma_load(dst, map, bar, {3, {x, y, z}}, 0, loc),
          asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                       "[%1, {%3, %4, %5}], [%2];" ::"r"(dst),
                       "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z)
                       : "memory"));
}
// Of a map of four dimensions: its box may have rows of several matrices, the rows of one after the other.
KW_DEVICE void tma_load_4d(uint32_t dst, const TensorMap* map, uint32_t bar, int x, int y, int z, int w KW_AT) {
  KW_SM90(emu::tma_load(dst, map, bar, {4, {x, y, z, w}}, 0, loc),
          asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                       "[%1, {%3, %4, %5, %6}], [%2];" ::"r"(dst),
                       "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z), "r"(w)
                       : "memory"));
}
KW_DEVICE void tma_load_3d_multicast(uint32_t dst, const TensorMap* map, uint32_t bar, int x, int y, int z,
                                     uint16_t cta_mask KW_AT) {
  KW_SM90(emu::tma_load(dst, map, bar, {3, {x, y, z}}, cta_mask, loc),
          asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                       ".multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(dst),
                       "l"(map), "r"(bar), "h"(cta_mask), "r"(x), "r"(y), "r"(z)
                       : "memory"));
}
// `bytes` consecutive bytes; addresses and size are multiples of 16.
KW_DEVICE void bulk_load(uint32_t dst, const void* src, uint32_t bytes, uint32_t bar KW_AT) {
  KW_SM90(
      emu::bulk_load(dst, src, bytes, bar, loc),
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst),
                   "l"(__cvta_generic_to_global(src)), "r"(bytes), "r"(bar)
                   : "memory"));
}
KW_DEVICE void tma_store_2d(const TensorMap* map, uint32_t src, int x, int y KW_AT) {
  KW_SM90(emu::tma_store(map, src, {2, {x, y}}, loc),
          asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                       "r"(src), "r"(x), "r"(y)
                       : "memory"));
}
KW_DEVICE void tma_store_3d(const TensorMap* map, uint32_t src, int x, int y, int z KW_AT) {
  KW_SM90(emu::tma_store(map, src, {3, {x, y, z}}, loc),
          asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                       "r"(src), "r"(x), "r"(y), "r"(z)
                       : "memory"));
}
KW_DEVICE void bulk_commit(KW_AT0) {
  KW_SM90(emu::bulk_commit(loc), asm volatile("cp.async.bulk.commit_group;" ::: "memory"));
}
// Waits until at most the N newest groups of stores still read shared memory; bulk_wait: until they are written too.
template <int N>
KW_DEVICE void bulk_wait_read(KW_AT0) {
  KW_SM90(emu::bulk_wait(N, loc), asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"));
}
template <int N>
KW_DEVICE void bulk_wait(KW_AT0) {
  KW_SM90(emu::bulk_wait(N, loc), asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"));
}

// ---- sm_90: clusters ---------------------------------------------------------------------------
KW_DEVICE void cluster_arrive(KW_AT0) {
  KW_SM90(emu::cluster_arrive(loc), asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"));
}
KW_DEVICE void cluster_wait(KW_AT0) {
  KW_SM90(emu::cluster_wait(loc), asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"));
}
KW_DEVICE void cluster_sync(KW_AT0) {
  KW_SM90((emu::cluster_arrive(loc), emu::cluster_wait(loc)),
          asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                           : "memory"));
}
KW_DEVICE uint32_t cluster_rank(KW_AT0) {
  uint32_t rank;
  KW_SM90(rank = emu::cluster_rank(), asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)));
  return rank;
}
// The address of the same object in block `rank` of the cluster (distributed shared memory).
template <class T>
KW_DEVICE T* map_shared_rank(T* p, uint32_t rank KW_AT) {
  uint64_t mapped;
  KW_SM90(mapped = reinterpret_cast<uint64_t>(emu::map_shared_rank(p, rank, loc)), asm volatile("mapa.u64 %0, %1, %2;"
                                                                                                : "=l"(mapped)
                                                                                                : "l"(p), "r"(rank)));
  return reinterpret_cast<T*>(mapped);
}
#endif

#if defined(KW_EMU) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
// ---- sm_90a: wgmma -----------------------------------------------------------------------------
// Shared memory matrix descriptor. lbo and sbo are the leading and stride byte offsets of PTX ISA "Matrix Descriptor".
KW_DEVICE constexpr uint64_t wgmma_desc(uint32_t addr, uint32_t lbo, uint32_t sbo, Swizzle swizzle) {
  const uint64_t mode = swizzle == Swizzle::none ? 0 : 4 - static_cast<uint64_t>(swizzle);  // 1: 128 bytes ... 3: 32
  return uint64_t{(addr >> 4) & 0x3fff} | uint64_t{(lbo >> 4) & 0x3fff} << 16 | uint64_t{(sbo >> 4) & 0x3fff} << 32 |
         mode << 62;
}
// Before the first wgmma, and after every ordinary write to an accumulator or A register.
KW_DEVICE void wgmma_fence(KW_AT0) {
  KW_SM90A(emu::wgmma_fence(loc), asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
}
KW_DEVICE void wgmma_commit(KW_AT0) {
  KW_SM90A(emu::wgmma_commit(loc), asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}
// Waits until at most the N newest groups are pending. Takes the accumulator, so that the compiler cannot move a use of
// it before the wait.
template <int N, int R>
KW_DEVICE void wgmma_wait(float (&d)[R] KW_AT) {
  KW_SM90A((static_cast<void>(d), emu::wgmma_wait(N, loc)), asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N)
                                                                         : "memory"));
#if !defined(KW_EMU)
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// After the wait for the wgmma_rs that reads it: until here the compiler may give its registers to nobody else.
KW_DEVICE void wgmma_release(uint32_t (&a)[4]) {
#if defined(KW_EMU)
  static_cast<void>(a);
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a[i])::"memory");
#endif
}

#if !defined(KW_EMU)
namespace device {
#include "wgmma.inc"
}
#endif
// d[64,N] = a[64,16] b[16,N] (+ d when scale_d), one warpgroup; T is __nv_bfloat16 or __half. A and B in shared memory;
// TA, TB = 1: that operand's M or N dimension is the contiguous one.
template <class T, int N, int TA = 0, int TB = 0>
KW_DEVICE void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d KW_AT) {
  KW_SM90A(emu::wgmma(d, N, nullptr, a, b, scale_d != 0, TA, TB, std::is_same_v<T, __half>, loc),
           device::Wgmma<N>::template ss<T, TA, TB>(d, a, b, scale_d));
}
// A from registers, in the fragment layout of mma m16n8k16's A, each warp its 16 rows.
template <class T, int N, int TB = 0>
KW_DEVICE void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d KW_AT) {
  KW_SM90A(emu::wgmma(d, N, a, 0, b, scale_d != 0, false, TB, std::is_same_v<T, __half>, loc),
           device::Wgmma<N>::template rs<T, TB>(d, a, b, scale_d));
}

// ---- sm_90a: setmaxnreg ------------------------------------------------------------------------
// All warps of a warpgroup; R is a multiple of 8 in 24..256, and the block's registers must not exceed 65536.
template <int R>
KW_DEVICE void reg_dec(KW_AT0) {
  KW_SM90A(emu::setmaxnreg(R, loc), asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R)));
}
template <int R>
KW_DEVICE void reg_inc(KW_AT0) {
  KW_SM90A(emu::setmaxnreg(R, loc), asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(R)));
}
#endif

}  // namespace kw::ptx
