// The emulator's state while a grid runs: Runtime > Cluster > Block > Warp > Fiber. One Runtime belongs to one OS thread at a time.
#pragma once
#include <deque>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "emu.h"
#include "fiber.h"
#include "race.h"

namespace kw::emu {

// Shared memory of a block: a window whose first KB the system reserves, as on sm_90, then the dynamic part, then the
// static objects. Addresses are offsets in the window; in a cluster, bits 24 and up hold rank + 1.
inline constexpr uint32_t kWindow = 256 * 1024, kDynamicBase = 1024, kStaticMax = 48 * 1024;
inline constexpr uint32_t kFullWarp = 0xffffffffu;

enum class State : uint8_t { ready, blocked, done };
enum class Wait : uint8_t { none, collective, barrier, mbarrier, cluster };

struct Warp;
struct Block;
struct Cluster;

// Operations in issue order, closed into groups by commit and retired by wait_group. A tick is the race detector's time
// of the agent that carries them out.
template <class Op>
struct Groups {
  std::vector<Op> pending;     // Op::tick never decreases
  std::vector<uint32_t> ends;  // tick of each committed group
  uint32_t tick = 1;
  void commit() { ends.push_back(tick++); }
  // Last tick that a wait_group leaving `newest` groups pending covers; 0 for none.
  uint32_t covered(size_t newest) const { return ends.size() > newest ? ends[ends.size() - 1 - newest] : 0; }
  template <class Run>
  void retire(uint32_t up_to, Run&& run) {
    size_t n = 0;
    while (n < pending.size() && pending[n].tick <= up_to) run(pending[n++]);
    pending.erase(pending.begin(), pending.begin() + static_cast<long>(n));
  }
  bool uncommitted() const { return !pending.empty() && pending.back().tick == tick; }
  void reset() { pending.clear(), ends.clear(), tick = 1; }
};

struct CopyOp {  // cp.async
  uint32_t tick;
  char* dst;
  const char* src;
  int bytes, src_bytes;
};
struct StoreOp {  // TMA store
  uint32_t tick;
  TensorMap map;
  uint32_t src;
  BoxAt at;
};

struct Fiber {  // one CUDA thread
  Context context;
  Ctx ctx;
  int index = 0, lane = 0;  // in the block, in the warp
  uint32_t id = 0;          // among the resident threads
  Warp* warp = nullptr;
  Block* block = nullptr;
  State state = State::done;
  Wait wait = Wait::none;
  uint64_t wait_a = 0, wait_b = 0;  // what it waits for, by kind
  Loc loc;
  uint64_t polls = 0;
  Groups<CopyOp> copies;
  uint32_t copies_handed_over = 0;  // tick up to which cp.async.mbarrier.arrive waits instead of the thread
  Groups<StoreOp> stores;
  uint32_t cluster_phase = 0;
  Clock clock;
  uint32_t time = 1;  // own entry of clock.seen
};

using Collective = void (*)(void* const* lane_args, uint32_t mask, Loc loc);
struct Meeting {  // lanes of a warp gathering for a collective
  const char* op = nullptr;
  uint32_t mask = 0, arrived = 0;
  void* args[32];
  Loc loc;
};

struct Accumulator {  // registers of a wgmma in flight: 16 rows of n per warp
  float* d[32];
  int n = 0, in_flight = 0;
  std::vector<float> value;
};
struct WgmmaOp {
  uint32_t tick;
  int n;
  uint64_t desc_a, desc_b;
  const uint32_t* a[32];
  bool a_in_registers, scale_d, trans_a, trans_b, f16;
  Accumulator* acc;
  Loc loc;
};

struct Warp {
  Block* block = nullptr;
  uint32_t id = 0, index = 0;  // among the resident warps, in the block
  Fiber* lane[32] = {};
  uint32_t ready = 0, live = 0;  // masks of lanes
  uint64_t priority = 0;
  std::vector<std::unique_ptr<Meeting>> meetings;
  Groups<WgmmaOp> wgmma;
  std::vector<std::unique_ptr<Accumulator>> accumulators;
  std::unordered_map<const float*, uint64_t> written_back;  // hash of what a finished wgmma left in the registers
  std::vector<uint64_t> trace;                              // what a warpgroup's four warps must agree on
  bool fenced = false;
  int registers = 0;  // per thread, 0 before the first setmaxnreg
};

struct NamedBarrier {
  int expected = 0, arrived = 0;  // expected 0: every thread that has not exited
  std::vector<Fiber*> waiting;
  Clock clock;
  Loc loc;
};

// The phase, counts and bytes live in the 8 bytes of shared memory; this is what the hardware does not show.
struct Mbarrier {
  uint32_t agent = 0, phase = 1;  // phase is the agent's time
  int init_by = -1;
  bool fenced = false;
  Clock arriving, done;
  std::vector<Fiber*> waiters;
};

struct StaticObject {
  uint32_t offset, size;
  const char* name;
};

struct Block {
  Cluster* cluster = nullptr;
  Dim3 index;
  uint32_t rank = 0;
  char* window = nullptr;
  uint32_t dynamic_end = 0, static_begin = 0, static_end = 0, static_bytes = 0;
  std::vector<Fiber*> fibers;
  std::vector<Warp*> warps;
  int live = 0;
  std::unordered_map<const void*, StaticObject> statics;
  NamedBarrier barriers[16];
  std::unordered_map<uint32_t, Mbarrier> mbarriers;  // by offset
  ShadowMemory shadow;
};

struct Cluster {
  std::vector<Block*> blocks;
  int arrived = 0, live = 0;
  uint32_t phase = 0;
  Clock arriving, done;
};

// A copy that nobody's wait carries out: it completes on an mbarrier, whenever the scheduler picks it.
struct DeferredOp {
  enum Kind { tma, bulk, copies_arrive } kind;
  Fiber* issuer;
  Block* block;               // whose shared memory and mbarrier
  uint32_t dst = 0, bar = 0;  // offsets
  TensorMap map{};
  BoxAt at{};
  const char* src = nullptr;
  uint32_t bytes = 0, tick = 0;
  Clock clock{};  // copies_arrive: what the arrival publishes
  Loc loc{};
};

struct Runtime {
  Launch launch;
  const std::function<void()>* body = nullptr;
  Options opt;
  Stats stats;
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept across launches with their stacks; the first `threads` are in use
  size_t threads = 0;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Cluster>> clusters;
  std::vector<char*> windows;  // kept across launches
  Context main;
  Fiber* running = nullptr;
  int live = 0;
  // scheduler
  size_t warp_cursor = 0;
  bool yielding = false;
  uint64_t rng = 1, steps = 0;
  uint64_t change_points[3] = {};
  std::vector<DeferredOp> deferred;
  // race detector
  uint32_t agents = 0;
  std::vector<Loc> places;
  std::unordered_map<uint64_t, uint16_t> place_ids;
  std::pair<uint64_t, uint16_t> recent_places[256] = {};
  std::unordered_map<const void*, Clock> flags;  // global memory words used by red_release and ld_acquire
  std::string error;                             // first failure; empty while all is well
  uintptr_t fault_address = 0;                   // of a bad access, from the signal handler
  const void* fault_pc = nullptr;

  uint64_t random() {
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return rng * 0x2545F4914F6CDD1DULL >> 16;
  }
  bool coin() { return random() & 1; }
  Runtime() = default;
  Runtime(const Runtime&) = delete;
  ~Runtime();
};
extern constinit thread_local Runtime* rt;

// A diagnosis on its way to launch(). Thrown inside a fiber, caught at that fiber's end.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// fail() on behalf of a thread that is not running (a copy that completes late).
[[noreturn]] void fail_for(const Fiber* who, const char* kind, const std::string& message, Loc loc);

// schedule.cc
void make_ready(Fiber*);
void block_on(Wait, uint64_t a, uint64_t b, Loc);  // returns when someone made the thread ready
Fiber* pick_next();                                // null when all have exited; throws Failure on a deadlock
void switch_to(Fiber*);                            // null: back to launch()
// report.cc
std::string where(Loc);
std::string describe(const Block*, uint32_t offset);  // "smem+128" or "tile+12"
std::string deadlock_report();
// memory.cc
Block* resolve(uint32_t addr, uint32_t* offset, size_t size, Loc loc);
void check_range(const Block*, uint32_t offset, size_t size, const char* what, Loc loc);
void poison(Block*, uint32_t offset, size_t size);
char* map_window();
void unmap_window(char*);
void open_block_memory(Block*, size_t dynamic_bytes);
// gmem.cc
void check_gmem(const void* p, size_t size, const char* what, Loc loc);
bool gmem_contains(const void* p, size_t size);
bool gmem_near(uintptr_t p);             // inside or within a page of a buffer
std::string describe_gmem(uintptr_t p);  // where the address lies relative to the nearest buffer
void catch_faults();                     // a bad address in a kernel becomes a Failure (x86-64 Linux)
class FaultStack {                       // the calling thread can take a fault even when a fiber's stack is exhausted
 public:
  FaultStack();
  FaultStack(const FaultStack&) = delete;
  ~FaultStack();

 private:
  [[maybe_unused]] void* memory_ = nullptr;
  [[maybe_unused]] size_t size_ = 0;
};
// warp.cc
void meet(const char* op, uint32_t mask, bool aligned, void* args, Collective run, Loc loc);
// barrier.cc
void recheck_barriers(Block*);  // after a thread has exited
// copy.cc, tma.cc, mbarrier.cc
bool now();  // does an operation issued now take effect at once?
void run_deferred(size_t index);
void run_tma_load(const DeferredOp&);
void defer(DeferredOp, uint32_t bytes);
uint64_t& mbar_word(Block*, uint32_t offset, Loc loc);
Mbarrier& mbar_for_use(Block*, uint32_t offset, const Fiber* user, Loc loc);
void mbar_complete_tx(Block*, uint32_t offset, uint32_t bytes, Loc loc);
void mbar_deferred_arrive(const DeferredOp&);
void check_exit(Fiber*);
void check_block_end(Block*);

}  // namespace kw::emu
