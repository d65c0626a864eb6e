// Emulator core: a CUDA block runs as fibers on one OS thread.  Only included when KW_EMU is defined.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include "../error.h"

namespace kw::emu {
struct LaunchError : ::kw::Error {
  explicit LaunchError(const std::string& m) : ::kw::Error(Code::CUDA, m) {}
};

struct Loc {
  const char* file;
  int line;
  const void* pc;
};
// Default argument: evaluated at the caller's line.
#define KW_LOC ::kw::emu::Loc loc = {__builtin_FILE(), __builtin_LINE(), nullptr}

struct U3 {
  unsigned x = 1, y = 1, z = 1;
};

enum class Sched { RoundRobin, Ahead, AheadRev, Random, Pct };
enum class Async { Eager, Late, Random };

struct Options {
  Sched sched = Sched::Ahead;
  Async async = Async::Late;
  uint64_t seed = 1;
  bool poison = true;         // fill shared memory with 0xFF (NaN in bf16/f16/f32/fp8) at block start
  bool race = false;          // happens-before race detector on shared memory
  bool uninit = true;         // race mode: report reads of never-written shared bytes
  bool spurious = true;       // mbarrier.try_wait may return false although nothing is wrong
  bool bank = false;          // count ldmatrix/stmatrix bank conflicts
  int workers = 1;            // OS threads, each running whole clusters
  int resident = 1;           // clusters in flight at once (0: the whole grid), for inter-block flags
  unsigned smem_base = 1024;  // offset of dynamic shared memory in the CTA window
  static Options from_env();  // KERNWATT_EMU="sched=random,async=late,seed=3,race=1"
};
Options& options();

struct Stats {
  uint64_t switches = 0, collectives = 0, mma = 0, wgmma = 0, ldmatrix = 0, cp_async = 0, tma = 0, blocks = 0;
  uint64_t ld_conflicts = 0;  // extra wavefronts of ldmatrix/stmatrix
};
Stats& stats();

using Error = LaunchError;

// ---- per-fiber view used by the shim -------------------------------------------------------
struct Fiber;
struct Ctx {
  U3 tid, bid, bdim, gdim;
  Fiber* self;
};
extern constinit thread_local Ctx* cur;  // null outside a kernel

struct Launch {
  const void* kernel = nullptr;
  U3 grid, block, cluster{1, 1, 1};
  size_t smem = 0;
};
void launch(const Launch&, const std::function<void()>& body);  // throws Error

[[noreturn]] void fail(const char* kind, const std::string& msg, Loc loc);
void yield_point();

// ---- shared memory ---------------------------------------------------------------------------
void* dyn_smem();
void* static_smem(const void* tag, size_t size, size_t align, const char* name);
uint32_t smem_u32(const void* p, Loc loc);            // generic -> 32-bit shared address
void* smem_ptr(uint32_t addr, size_t size, Loc loc);  // and back; checks the range

// ---- collectives ------------------------------------------------------------------------------
enum class Op : uint8_t {
  None,
  Shfl,
  Vote,
  Sync,
  Reduce,
  Match,
  Ldmatrix,
  Stmatrix,
  Mma,
  Wgmma,
  WgFence,
  WgCommit,
  WgWait,
  Elect,
  SetReg
};
using Exec = void (*)(void* const* lane_args, uint32_t mask, Loc loc);
void warp_coll(Op op, uint32_t mask, bool aligned, void* args, Exec exec, Loc loc);

int lane_id();
int warp_id();
void bar_sync(int id, int count, Loc loc);
void syncthreads(Loc loc);
void bar_arrive(int id, int count, Loc loc);
uint32_t shfl(uint32_t mask, uint32_t v, int lane_or_delta, int width, int mode, Loc loc);  // 0 idx 1 up 2 down 3 xor
uint32_t vote(uint32_t mask, bool p, Loc loc);
uint64_t reduce(uint32_t mask, uint64_t v, int op, Loc loc);  // 0 add 1 min.u 2 max.u 3 and 4 or 5 xor 6 min.s 7 max.s
uint32_t match_any(uint32_t mask, uint64_t v, Loc loc);
void syncwarp(uint32_t mask, Loc loc);
bool elect_one(Loc loc);

// ---- tensor-core path ---------------------------------------------------------------------------
enum class MmaType { bf16, f16, s8 };
void mma(MmaType t, void* d, const uint32_t* a, const uint32_t* b, const void* c, Loc loc);
void ldmatrix(uint32_t* r, int num, bool trans, uint32_t addr, Loc loc);
void stmatrix(const uint32_t* r, int num, bool trans, uint32_t addr, Loc loc);

// ---- asynchronous copies ------------------------------------------------------------------------
void cp_async(uint32_t dst, const void* src, int bytes, int src_bytes, Loc loc);
void cp_async_commit(Loc loc);
void cp_async_wait(int n, Loc loc);  // n < 0: all, committed or not
void cp_async_mbar_arrive_noinc(uint32_t bar, Loc loc);

void mbar_init(uint32_t bar, uint32_t count, Loc loc);
void mbar_inval(uint32_t bar, Loc loc);
void mbar_arrive(uint32_t bar, uint32_t tx, Loc loc);
void mbar_expect_tx(uint32_t bar, uint32_t tx, Loc loc);
bool mbar_try_wait(uint32_t bar, uint32_t parity, Loc loc);
void fence_mbar_init(Loc loc);
void fence_proxy_async(Loc loc);

struct alignas(64) TensorMap {  // same size as CUtensorMap
  uint64_t magic;
  char* base;
  uint64_t dim[2];
  uint64_t stride;
  uint32_t box[2];
  uint32_t elem;
  uint32_t swizzle;
  char pad[128 - 64];
};
static_assert(sizeof(TensorMap) == 128);
TensorMap tensor_map_2d(uint32_t elem, const void* base, uint64_t inner, uint64_t outer, uint64_t stride, uint32_t bi,
                        uint32_t bo, uint32_t swz);
void tma_load_2d(uint32_t dst, const TensorMap* m, uint32_t bar, int x, int y, uint32_t cta_mask, Loc loc);
void bulk_load(uint32_t dst, const void* src, uint32_t bytes, uint32_t bar, Loc loc);
void tma_store_2d(const TensorMap* m, uint32_t src, int x, int y, Loc loc);
void bulk_commit(Loc loc);
void bulk_wait(int n, bool read_only, Loc loc);

// ---- wgmma ---------------------------------------------------------------------------------------
void wgmma(float* d, int n, const uint32_t* a_regs, uint64_t desc_a, uint64_t desc_b, bool scale_d, bool tnsp_a,
           bool tnsp_b, bool f16, Loc loc);
void wgmma_fence(Loc loc);
void wgmma_commit(Loc loc);
void wgmma_wait(int n, Loc loc);
void setmaxnreg(int n, bool inc, Loc loc);

// ---- clusters ------------------------------------------------------------------------------------
void cluster_arrive(Loc loc);
void cluster_wait(Loc loc);
uint32_t cluster_rank();
uint32_t cluster_size();
uint32_t mapa(uint32_t addr, uint32_t rank, Loc loc);
void* map_shared_rank(void* p, uint32_t rank, Loc loc);

// ---- global memory: acquire/release flags between blocks, registered buffers ------------------------
void* gmem_alloc(size_t n);
void gmem_free(void* p, size_t n);
void gmem_register(const void* p, size_t n);
void gmem_unregister(const void* p);
void red_release(unsigned* p, unsigned v);
unsigned ld_acquire(const unsigned* p, Loc loc);
inline void prepare(const void*, size_t) {}
inline void require_sm90(const char*, Loc) {}
inline void require_sm90a(const char*, Loc) {}

}  // namespace kw::emu
