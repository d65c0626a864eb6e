#pragma once
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "emu.h"

namespace kw::emu {
constexpr uint32_t ARENA = 0x40000;      // 256 KiB CTA window
constexpr uint32_t STATIC_LO = 0x39000;  // KW_SHARED objects live above the dynamic part
constexpr uint32_t SMEM_MAX = 227 * 1024;

// ---- happens-before bookkeeping (race mode only) ----
struct VC {
  std::vector<uint32_t> c;
  void join(const VC& o) {
    if (c.size() < o.c.size()) c.resize(o.c.size());
    for (size_t i = 0; i < o.c.size(); ++i) c[i] = c[i] < o.c[i] ? o.c[i] : c[i];
  }
};
struct Clock {
  VC seen, pub;
  void join(const Clock& o) {
    seen.join(o.seen);
    pub.join(o.pub);
  }
};  // pub: generic writes already fenced for the async proxy

struct Cell {
  uint32_t w, r0, r1;
  uint16_t wl, rl;
};  // epochs agent<<20|clock, location ids

enum class St : uint8_t { Ready, Blocked, Done };
enum class Wait : uint8_t { None, Coll, Bar, Mbar, ClusterBar };
struct Block;
struct Warp;
struct Runtime;
struct Fiber;
struct Cluster;

struct CpOp {
  char* dst;
  uint32_t off;
  Block* blk;
  const char* src;
  int bytes, src_bytes;
  uint32_t bar;
  bool is_arrive, noinc;
};
struct StOp {
  TensorMap m;
  uint32_t src;
  int x, y;
};
template <class T>
struct Groups {  // commit/wait-group bookkeeping
  std::deque<std::vector<T>> committed;
  std::vector<T> open;
  uint32_t n_committed = 0;  // groups whose work is not yet done
};

struct Fiber {
  Ctx ctx;
  void* sp = nullptr;
  char* stack = nullptr;
  size_t stack_size = 0;
  void* fake = nullptr;
  int lin = 0, lane = 0, gid = 0;
  Warp* warp = nullptr;
  Block* blk = nullptr;
  St st = St::Done;
  Wait wait = Wait::None;
  Loc loc{};
  uint64_t wa = 0, wb = 0;
  Groups<CpOp> cp;
  Groups<StOp> bulk;
  uint32_t st_read_done = 0;
  Clock clk;
  uint32_t epoch = 1, cl_phase = 0;
  uint64_t spins = 0;
  ~Fiber();
};

struct Coll {
  Op op = Op::None;
  uint32_t mask = 0, arrived = 0;
  void* args[32];
  Exec exec;
  Loc loc;
  bool aligned;
};

struct AccBuf {
  float* d[32];
  int n;
  std::vector<float> v;
  int inflight;
};
struct WgOp {
  int n;
  uint64_t da, db;
  const uint32_t* a[32];
  bool rs, scale_d, ta, tb, f16;
  AccBuf* acc;
  uint32_t seq;
  Loc loc;
};

struct Warp {
  Block* blk = nullptr;
  int id = 0;
  Fiber* f[32] = {};
  uint32_t present = 0, ready = 0, live = 0;
  int last = 31;
  std::vector<std::unique_ptr<Coll>> colls;
  uint64_t prio = 0;
  // wgmma state
  std::deque<WgOp> q;
  std::vector<std::unique_ptr<AccBuf>> accs;
  std::vector<uint32_t> group_end;
  uint32_t wg_seq = 0, wg_committed = 0;
  uint32_t groups_done = 0;
  bool fenced = false;
  std::unordered_map<const float*, uint64_t> acc_hash;
  std::vector<uint64_t> trace;
  int regs = 0;
};

struct NamedBar {
  int expected = 0, arrived = 0;
  bool all = false;
  std::vector<Fiber*> waiting;
  Clock clk;
  Loc loc{};
};
struct Mbar {
  uint32_t phase = 1;
  Clock acc, done;
  std::vector<Fiber*> waiters;
  bool fenced = false;
  int init_by = -1;
  int agent = 0;
};

struct Block {
  Runtime* rt = nullptr;
  Cluster* cl = nullptr;
  U3 bid;
  char* arena = nullptr;
  uint32_t dyn_size = 0, static_top = STATIC_LO;
  std::vector<Fiber*> fibers;
  std::vector<Warp*> warps;
  int live = 0;
  uint32_t rank = 0;
  std::unordered_map<const void*, uint32_t> statics;
  NamedBar bars[16];
  std::unordered_map<uint32_t, Mbar> mbars;
  std::vector<Cell> cells;
};

struct Cluster {
  std::vector<Block*> blocks;
  int arrived = 0, live = 0;
  uint32_t phase = 0;
  Clock acc, done;
};

struct TmaOp {
  Block* dst_blk;
  uint32_t dst, bar;
  TensorMap m;
  int x, y;
  const char* lin;
  uint32_t bytes;
  Loc loc;
};

struct Runtime {
  Launch l;
  const std::function<void()>* body = nullptr;
  Options opt;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::unique_ptr<Cluster>> clusters;  // resident
  std::vector<std::unique_ptr<Fiber>> pool;
  std::vector<char*> arenas;
  void* main_sp = nullptr;
  void* main_fake = nullptr;
  const void* main_stack = nullptr;
  size_t main_stack_size = 0;
  Fiber* running = nullptr;
  bool yielding = false;
  int live = 0;
  size_t wcur = 0;
  uint64_t rng = 1;
  uint64_t steps = 0;
  std::vector<uint64_t> pct_points;
  std::vector<TmaOp> tma;
  std::string error;
  bool failed = false;
  int n_agents = 0;
  uint64_t rand() {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545F4914F6CDD1DULL >> 16;
  }
};
extern constinit thread_local Runtime* rt;

void make_ready(Fiber*);
void block_on(Wait, uint64_t a, uint64_t b, Loc);
Block* resolve(uint32_t addr, uint32_t* off, size_t size, Loc loc);  // shared address -> block + offset
void check_range(Block*, uint32_t off, size_t n, const char* what, Loc loc);
uint64_t& mbar_word(Block*, uint32_t off, Loc loc);
void mbar_complete_tx(Block*, uint32_t off, uint32_t bytes, Loc loc);
void run_tma(TmaOp&);
bool tma_step(bool random);
void wg_drain(Warp*, uint32_t groups_allowed);
void check_exit(Fiber*);
void check_block_end(Block*);

// race.cpp
std::string where(Loc);
void hb_release(Fiber*, Clock& into);  // join and advance the fiber's epoch
void hb_acquire(Fiber*, const Clock& from);
int new_agent();
enum class Who : uint8_t { Thread, Async };
void shadow(Block*, uint32_t off, uint32_t n, bool write, uint32_t agent, uint32_t clock, const Clock& c, bool async,
            bool atomic, Loc loc);
void shadow_thread(Fiber*, Block*, uint32_t off, uint32_t n, bool write, Loc loc);
void shadow_reset(Block*);
bool gmem_ok(const void* p, size_t n);
inline int agent_thread(const Fiber* f) { return f->gid; }
int agent_cp(const Fiber* f);
int agent_bulk(const Fiber* f);
int agent_wg(const Warp* w);
}  // namespace kw::emu
