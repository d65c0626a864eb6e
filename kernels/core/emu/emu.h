// The SIMT emulator: a grid runs on the CPU, every CUDA thread as a fiber of the calling OS thread. This header is what
// shim.h, core/cuda/ptx.cuh and core/cuda/launch.cuh call; docs/gpu.md says what is modelled and what is not.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "../error.h"

namespace kw::emu {

// A place in the kernel: a source line, or the address of an instruction in the race build.
struct Loc {
  const char* file = nullptr;
  int line = 0;
  const void* pc = nullptr;
};
// As a default argument it is the caller's line.
#define KW_LOC ::kw::emu::Loc loc = {__builtin_FILE(), __builtin_LINE(), nullptr}

// ---- options -----------------------------------------------------------------------------------
enum class Sched { rr, ahead, rev, random, pct };
enum class Async { eager, late, random };

struct Profile {
  const char* name;
  int cc;             // 10 * major + minor
  uint32_t smem_max;  // bytes a block may opt in to, static and dynamic together
};
inline constexpr Profile kSm80{"sm_80", 80, 163 * 1024};
inline constexpr Profile kSm89{"sm_89", 89, 99 * 1024};
inline constexpr Profile kSm90{"sm_90", 90, 227 * 1024};

struct Options {
  Sched sched = Sched::ahead;  // which warp runs next
  Async async = Async::late;   // when copies and wgmma take effect
  uint64_t seed = 1;           // for every random choice
  bool race = false;           // happens-before check of shared memory
  bool uninit = true;          // with race: report reads of bytes that nothing wrote
  bool poison = true;          // fill shared memory and pending destinations with 0xff (NaN)
  bool spurious = true;        // mbarrier.try_wait may fail for no reason
  bool bank = false;           // count bank conflicts of ldmatrix and stmatrix
  int workers = 1;             // OS threads per launch, each running whole clusters
  int resident = 1;            // clusters in flight per worker; 0: the whole grid
  Profile profile = kSm90;
};
// "sched=random,async=late,seed=3,race=1" over the defaults; throws ARGUMENT for an unknown key or value.
Options parse_options(const std::string& text);
// The calling thread's options, which its launches use: first what the environment variable KERNWATT_EMU says.
Options& options();

struct Stats {  // sums over the calling thread's launches
  uint64_t blocks = 0, switches = 0, collectives = 0, mma = 0, wgmma = 0, ldmatrix = 0, cp_async = 0, tma = 0;
  uint64_t bank_conflicts = 0;  // extra wavefronts of ldmatrix and stmatrix, with options().bank
  Stats& operator+=(const Stats&);
};
Stats& stats();

// ---- launching ---------------------------------------------------------------------------------
struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct Launch {
  const void* kernel = nullptr;
  Dim3 grid, block, cluster;
  size_t smem = 0;
};
// Runs the grid before it returns. Throws kw::Error(Code::CUDA) with a diagnosis; the emulator stays usable.
void launch(const Launch&, const std::function<void()>& body);
// The part of that which the driver says at once: throws for a grid, block, cluster or size that this device refuses.
void check_launch(const Launch&);
// Lets a kernel use more than 48 KB of dynamic shared memory, like cudaFuncSetAttribute.
void prepare(const void* kernel, size_t smem);

// What the running thread sees as threadIdx and its relatives; null outside a kernel.
struct Ctx {
  Dim3 thread, block, block_dim, grid_dim;
};
extern constinit thread_local Ctx* cur;

[[noreturn]] void fail(const char* kind, const std::string& message, Loc loc);  // ends the launch
void require_sm90(const char* wrapper, Loc loc);
void require_sm90a(const char* wrapper, Loc loc);

// ---- shared memory -----------------------------------------------------------------------------
void* dyn_smem();
void* static_smem(const void* tag, size_t size, size_t align, const char* name, Loc loc);
uint32_t smem_u32(const void* p, Loc loc);

// ---- warps and barriers ------------------------------------------------------------------------
int lane_id();
void syncthreads(Loc loc);
void syncwarp(uint32_t mask, Loc loc);
void bar_sync(int id, int threads, Loc loc);
void bar_arrive(int id, int threads, Loc loc);
enum class Shuffle { idx, up, down, bfly };
uint32_t shfl(uint32_t mask, uint32_t value, int operand, int width, Shuffle mode, Loc loc);
uint32_t vote(uint32_t mask, bool predicate, Loc loc);  // ballot
enum class Reduce { add, min_u, max_u, min_s, max_s, op_and, op_or, op_xor };
uint32_t reduce(uint32_t mask, uint32_t value, Reduce op, Loc loc);
uint32_t match_any(uint32_t mask, uint64_t value, Loc loc);
bool elect_one(Loc loc);
void setmaxnreg(int registers, Loc loc);
void yield_point(Loc loc);  // lets other threads run; ends a launch that polls for ever

// ---- arithmetic --------------------------------------------------------------------------------
float ex2(float x);

// ---- tensor cores ------------------------------------------------------------------------------
enum class MmaType { bf16, f16, s8 };
void mma(MmaType type, void* d, const uint32_t* a, const uint32_t* b, const void* c, Loc loc);
void ldmatrix(uint32_t* r, int count, bool trans, uint32_t addr, Loc loc);
void stmatrix(const uint32_t* r, int count, bool trans, uint32_t addr, Loc loc);

void wgmma(float* d, int n, const uint32_t* a_regs, uint64_t desc_a, uint64_t desc_b, bool scale_d, bool trans_a,
           bool trans_b, bool f16, Loc loc);
void wgmma_fence(Loc loc);
void wgmma_commit(Loc loc);
void wgmma_wait(int pending, Loc loc);

// ---- asynchronous copies -----------------------------------------------------------------------
void cp_async(uint32_t dst, const void* src, int bytes, int src_bytes, Loc loc);
void cp_async_commit(Loc loc);
void cp_async_wait(int pending, Loc loc);
void cp_async_mbar_arrive_noinc(uint32_t bar, Loc loc);

void mbar_init(uint32_t bar, uint32_t count, Loc loc);
void mbar_inval(uint32_t bar, Loc loc);
void mbar_arrive(uint32_t bar, uint32_t expect_bytes, Loc loc);
void mbar_expect_tx(uint32_t bar, uint32_t bytes, Loc loc);
bool mbar_try_wait(uint32_t bar, uint32_t parity, Loc loc);
void fence_mbar_init(Loc loc);
void fence_proxy_async(Loc loc);

struct alignas(64) TensorMap {  // as large and as aligned as CUtensorMap
  uint64_t magic;
  char* base;
  uint64_t extent[4];  // elements of a row, rows ...; 1 from `rank` on
  uint64_t pitch[3];   // bytes between neighbours in dimensions 1 to 3
  uint32_t box[4];     // as extent
  uint32_t rank, element, swizzle;
  char unused[28];
};
static_assert(sizeof(TensorMap) == 128);
TensorMap tensor_map(uint32_t rank, uint32_t element, const void* base, const uint64_t (&extents)[4],
                     const uint64_t (&pitches)[3], const uint32_t (&box)[4], uint32_t swizzle);
struct BoxAt {
  uint32_t rank;  // that the instruction names
  int at[4];
};
// cta_mask 0: into the block that dst names; otherwise into every block of the mask.
void tma_load(uint32_t dst, const TensorMap* map, uint32_t bar, BoxAt at, uint32_t cta_mask, Loc loc);
void tma_store(const TensorMap* map, uint32_t src, BoxAt at, Loc loc);
void bulk_load(uint32_t dst, const void* src, uint32_t bytes, uint32_t bar, Loc loc);
void bulk_commit(Loc loc);
void bulk_wait(int pending, Loc loc);

// ---- clusters ----------------------------------------------------------------------------------
void cluster_arrive(Loc loc);
void cluster_wait(Loc loc);
uint32_t cluster_rank();
uint32_t mapa(uint32_t addr, uint32_t rank, Loc loc);
void* map_shared_rank(void* p, uint32_t rank, Loc loc);

// ---- global memory -----------------------------------------------------------------------------
// Copies may only touch memory from gmem_alloc (256-byte aligned, filled with 0xff, followed by a guard page) or
// memory registered by gmem_register. gmem_free and gmem_unregister take the pointer that was given.
void* gmem_alloc(size_t bytes);
void gmem_free(void* p);
void gmem_register(const void* p, size_t bytes);
void gmem_unregister(const void* p);
void red_release(unsigned* p, unsigned value);
unsigned ld_acquire(const unsigned* p, Loc loc);
void thread_fence();  // not inline: the race build's compiler has no fence

}  // namespace kw::emu
