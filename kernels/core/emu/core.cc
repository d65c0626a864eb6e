// Fibers, scheduler, barriers, warp collectives, launch.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "internal.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(KW_EMU_UCONTEXT) || !defined(__x86_64__)
#define USE_UCONTEXT 1
#include <ucontext.h>
#else
#define USE_UCONTEXT 0
#endif

namespace kw::emu {
constinit thread_local Ctx* cur = nullptr;
constinit thread_local Runtime* rt = nullptr;
static Options g_opt = Options::from_env();
Options& options() { return g_opt; }
static thread_local Stats t_stats;
Stats& stats() { return t_stats; }

Options Options::from_env() {
  Options o;
  const char* e = std::getenv("KERNWATT_EMU");
  if (!e) return o;
  std::string s = e;
  for (size_t i = 0; i < s.size();) {
    size_t j = s.find(',', i);
    if (j == std::string::npos) j = s.size();
    std::string kv = s.substr(i, j - i);
    i = j + 1;
    size_t q = kv.find('=');
    std::string k = kv.substr(0, q), v = q == std::string::npos ? "1" : kv.substr(q + 1);
    if (k == "sched")
      o.sched = v == "rr"      ? Sched::RoundRobin
                : v == "ahead" ? Sched::Ahead
                : v == "rev"   ? Sched::AheadRev
                : v == "pct"   ? Sched::Pct
                               : Sched::Random;
    else if (k == "async")
      o.async = v == "eager" ? Async::Eager : v == "late" ? Async::Late : Async::Random;
    else if (k == "seed")
      o.seed = std::strtoull(v.c_str(), nullptr, 10);
    else if (k == "race")
      o.race = v != "0";
    else if (k == "poison")
      o.poison = v != "0";
    else if (k == "uninit")
      o.uninit = v != "0";
    else if (k == "spurious")
      o.spurious = v != "0";
    else if (k == "bank")
      o.bank = v != "0";
    else if (k == "resident")
      o.resident = std::atoi(v.c_str());
    else if (k == "workers")
      o.workers = std::atoi(v.c_str());
    else if (k == "smem_base")
      o.smem_base = (unsigned)std::atoi(v.c_str());
    else {
      std::fprintf(stderr, "KERNWATT_EMU: unknown key %s\n", k.c_str());
      std::abort();
    }
  }
  return o;
}

// ---- context switch -------------------------------------------------------------------------
#if USE_UCONTEXT
static void raw_swap(void** save, void* to) { swapcontext((ucontext_t*)*save, (ucontext_t*)to); }
#else
extern "C" void kw_emu_swap(void** save, void* to);
asm(R"(
.text
.globl kw_emu_swap
.type kw_emu_swap,@function
kw_emu_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kw_emu_swap,.-kw_emu_swap
)");
static inline void raw_swap(void** save, void* to) { kw_emu_swap(save, to); }
#endif

static void fiber_main();

static void prepare(Fiber* f) {
  if (!f->stack) {
#if defined(__SANITIZE_ADDRESS__)
    f->stack_size = 512 << 10;
#else
    f->stack_size = 128 << 10;
#endif
    char* p = (char*)mmap(nullptr, f->stack_size + 4096, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw Error("mmap of a fiber stack failed");
    mprotect(p, 4096, PROT_NONE);  // guard page
    f->stack = p + 4096;
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(f->stack, f->stack_size);
#endif
#if USE_UCONTEXT
  auto* u = f->sp ? (ucontext_t*)f->sp : new ucontext_t;
  getcontext(u);
  u->uc_stack.ss_sp = f->stack;
  u->uc_stack.ss_size = f->stack_size;
  u->uc_link = nullptr;
  makecontext(u, fiber_main, 0);
  f->sp = u;
#else
  auto* top = (uintptr_t*)(((uintptr_t)f->stack + f->stack_size) & ~uintptr_t(15));
  *--top = 0;
  *--top = (uintptr_t)fiber_main;
  for (int i = 0; i < 6; ++i) *--top = 0;
  f->sp = top;
#endif
  f->fake = nullptr;
}

static void switch_to(Fiber* next) {  // nullptr: back to launch()
  Fiber* prev = rt->running;
  if (next == prev) return;
  ++t_stats.switches;
  rt->running = next;
  cur = next ? &next->ctx : nullptr;
#if defined(__SANITIZE_ADDRESS__)
  bool dying = prev && prev->st == St::Done;
  if (next)
    __sanitizer_start_switch_fiber(prev ? (dying ? nullptr : &prev->fake) : &rt->main_fake, next->stack,
                                   next->stack_size);
  else
    __sanitizer_start_switch_fiber(dying ? nullptr : &prev->fake, rt->main_stack, rt->main_stack_size);
#endif
  raw_swap(prev ? &prev->sp : &rt->main_sp, next ? next->sp : rt->main_sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(prev ? prev->fake : rt->main_fake, nullptr, nullptr);
#endif
}

// ---- scheduler ----------------------------------------------------------------------------------
std::string where(Loc l) {
  char b[512];
  if (l.file) {
    const char* s = l.file;
    std::snprintf(b, sizeof b, "%s:%d", s, l.line);
    return b;
  }
  if (l.pc) {  // a plain access in the -fsanitize=thread build
    char cmd[600], line[512] = "";
    Dl_info d{};
    if (!dladdr(l.pc, &d)) return "?";
    std::snprintf(cmd, sizeof cmd, "addr2line -e '%s' 0x%zx 2>/dev/null", d.dli_fname,
                  (size_t)l.pc - (size_t)d.dli_fbase - 1);
    if (FILE* p = popen(cmd, "r")) {
      if (!std::fgets(line, sizeof line, p)) line[0] = 0;
      pclose(p);
    }
    line[std::strcspn(line, "\n")] = 0;
    return line;
  }
  return "?";
}

static Warp* pick_warp() {
  auto& ws = rt->warps;
  size_t n = ws.size();
  Warp* w = ws[rt->wcur].get();
  auto from = [&](size_t s, int step) -> Warp* {
    for (size_t i = 0, k = s; i < n; ++i, k = (k + n + step) % n)
      if (ws[k]->ready) return ws[k].get();
    return nullptr;
  };
  if (rt->yielding) {
    rt->yielding = false;
    return from((rt->wcur + 1) % n, 1);
  }  // a polling thread must not starve the others
  switch (rt->opt.sched) {
    case Sched::RoundRobin:
      return from((rt->wcur + 1) % n, 1);
    case Sched::Ahead:
      return w->ready ? w : from(0, 1);
    case Sched::AheadRev:
      return w->ready ? w : from(n - 1, -1);
    case Sched::Random:
      if (w->ready && rt->rand() % 8) return w;
      return from(rt->rand() % n, 1);
    case Sched::Pct: {
      ++rt->steps;
      for (auto& p : rt->pct_points)
        if (p == rt->steps) {
          w->prio = p % 16;
          p = 0;
        }
      Warp* best = nullptr;
      for (auto& x : ws)
        if (x->ready && (!best || x->prio > best->prio)) best = x.get();
      return best;
    }
  }
  return nullptr;
}

static Fiber* pick() {
  for (;;) {
    if (rt->failed) return nullptr;
    if (rt->opt.async == Async::Random && !rt->tma.empty() && rt->rand() % 4 == 0) tma_step(true);
    if (Warp* w = pick_warp()) {
      rt->wcur = (size_t)w->id;
      uint32_t m = w->ready;
      int lane;
      if (rt->opt.sched == Sched::Random || rt->opt.sched == Sched::Pct) {
        int r = (int)(rt->rand() % 32);
        lane = (r + __builtin_ctz(r ? (m >> r | m << (32 - r)) : m)) & 31;
      } else if (rt->opt.sched == Sched::AheadRev)
        lane = 31 - __builtin_clz(m);
      else
        lane = __builtin_ctz(m);
      return w->f[lane];
    }
    if (tma_step(rt->opt.async == Async::Random)) continue;
    return nullptr;
  }
}

static std::string deadlock_report() {
  std::string s;
  int shown = 0;
  for (auto& w : rt->warps) {
    uint32_t left = w->live;
    while (left && shown < 40) {
      Fiber* f = w->f[__builtin_ctz(left)];
      uint32_t same = 0;
      for (uint32_t m = left; m; m &= m - 1) {
        Fiber* g = w->f[__builtin_ctz(m)];
        if (g->wait == f->wait && g->loc.line == f->loc.line && g->wa == f->wa && g->wb == f->wb) same |= 1u << g->lane;
      }
      left &= ~same;
      ++shown;
      char b[256];
      const char* k = f->wait == Wait::Coll         ? "warp collective"
                      : f->wait == Wait::Bar        ? "barrier"
                      : f->wait == Wait::Mbar       ? "mbarrier"
                      : f->wait == Wait::ClusterBar ? "cluster barrier"
                                                    : "?";
      std::snprintf(b, sizeof b, "\n  block %u warp %d lanes %08x: %s", f->blk->bid.x,
                    w->id % (int)f->blk->warps.size(), same, k);
      s += b;
      if (f->wait == Wait::Mbar) {
        uint64_t v;
        std::memcpy(&v, f->blk->arena + f->wa, 8);
        int tx = (int)(v >> 40 & 0x1fffff);
        if (tx & 0x100000) tx -= 0x200000;
        std::snprintf(b, sizeof b, " smem+%llu parity %llu (now phase bit %d, %d arrivals and %d bytes missing)",
                      (unsigned long long)f->wa, (unsigned long long)f->wb, (int)(v >> 61 & 1), (int)(v & 0xfffff), tx);
        s += b;
      } else if (f->wait == Wait::Bar) {
        auto& q = f->blk->bars[f->wa];
        std::snprintf(b, sizeof b, " %d (%d of %d arrived)", (int)f->wa, q.arrived, q.all ? f->blk->live : q.expected);
        s += b;
      }
      s += " at " + where(f->loc);
    }
  }
  return s;
}

static void schedule() {
  Fiber* n = pick();
  if (!n && !rt->failed && rt->live) {
    rt->failed = true;
    rt->error = "deadlock: no thread can run" + deadlock_report();
  }
  switch_to(n);
}

void make_ready(Fiber* f) {
  f->st = St::Ready;
  f->wait = Wait::None;
  f->warp->ready |= 1u << f->lane;
}
void block_on(Wait w, uint64_t a, uint64_t b, Loc loc) {
  Fiber* f = rt->running;
  f->st = St::Blocked;
  f->wait = w;
  f->wa = a;
  f->wb = b;
  f->loc = loc;
  f->warp->ready &= ~(1u << f->lane);
  schedule();
}
void yield_point() {
  if (!rt || !rt->running) return;
  if (++rt->running->spins > 2000000)
    fail("livelock", "a thread polled 2,000,000 times (does it wait for a block that is not resident?)", {});
  rt->yielding = true;
  schedule();
}
Fiber::~Fiber() {
  if (stack) munmap(stack - 4096, stack_size + 4096);
}

void fail(const char* kind, const std::string& msg, Loc loc) {
  std::string s = std::string(kind) + ": " + msg;
  if (rt && rt->running) {
    Fiber* f = rt->running;
    char b[96];
    std::snprintf(b, sizeof b, " [block %u,%u thread %d]", f->ctx.bid.x, f->ctx.bid.y, f->lin);
    s += b;
  }
  s += " at " + where(loc);
  if (!rt || !rt->running) throw Error(s);
  if (!rt->failed) {
    rt->failed = true;
    rt->error = s;
  }
  switch_to(nullptr);
  __builtin_unreachable();
}

// ---- barriers --------------------------------------------------------------------------------------
static void bar_check(Block* b, int id) {
  NamedBar& q = b->bars[id];
  int need = q.all ? b->live : q.expected;
  if (q.arrived == 0 || q.arrived < need) return;
  if (rt->opt.race)
    for (Fiber* f : q.waiting) hb_acquire(f, q.clk);
  // bar.sync is .aligned: every live lane of a participating warp must be there
  if (!q.all) {
    std::vector<std::pair<Warp*, uint32_t>> m;
    for (Fiber* f : q.waiting) {
      if (m.empty() || m.back().first != f->warp) {
        auto it = std::find_if(m.begin(), m.end(), [&](auto& x) { return x.first == f->warp; });
        if (it == m.end())
          m.push_back({f->warp, 0});
        else
          std::swap(*it, m.back());
      }
      m.back().second |= 1u << f->lane;
    }
    for (auto& x : m)
      if (x.second != x.first->live)
        fail("barrier", "bar.sync " + std::to_string(id) + " reached by only part of a warp", q.loc);
  }
  for (Fiber* f : q.waiting) make_ready(f);
  q.waiting.clear();
  q.arrived = 0;
  q.expected = 0;
  q.clk = Clock();
}
static NamedBar& bar_join(int id, int count, bool all, Loc loc) {
  if (id < 0 || id > 15) fail("barrier", "barrier id out of range", loc);
  if (!all && (count <= 0 || count % 32))
    fail("barrier", "thread count of bar.sync/arrive must be a positive multiple of 32", loc);
  NamedBar& q = rt->running->blk->bars[id];
  if (q.arrived == 0) {
    q.expected = count;
    q.all = all;
    q.loc = loc;
  } else if (q.expected != count || q.all != all)
    fail("barrier",
         "barrier " + std::to_string(id) + " joined with " + std::to_string(count) + " threads, others said " +
             std::to_string(q.expected) + " (" + where(q.loc) + ")",
         loc);
  else if (all && q.loc.line != loc.line)
    fail("barrier", "__syncthreads() in divergent code: some threads are at " + where(q.loc), loc);
  ++q.arrived;
  if (!all && q.arrived > q.expected) fail("barrier", "too many threads at barrier " + std::to_string(id), loc);
  if (rt->opt.race) hb_release(rt->running, q.clk);
  return q;
}
static void bar_wait(int id, int count, bool all, Loc loc) {
  NamedBar& q = bar_join(id, count, all, loc);
  Fiber* f = rt->running;
  q.waiting.push_back(f);
  f->st = St::Blocked;
  f->wait = Wait::Bar;
  f->wa = (uint64_t)id;
  f->wb = 0;
  f->loc = loc;
  f->warp->ready &= ~(1u << f->lane);
  bar_check(f->blk, id);
  schedule();
}
void bar_sync(int id, int count, Loc loc) { bar_wait(id, count, false, loc); }
void syncthreads(Loc loc) { bar_wait(0, 0, true, loc); }
void bar_arrive(int id, int count, Loc loc) {
  bar_join(id, count, false, loc);
  bar_check(rt->running->blk, id);
}

static void cluster_check(Cluster* c) {
  if (!c->arrived || c->arrived != c->live) return;
  c->arrived = 0;
  ++c->phase;
  c->done = c->acc;
  for (Block* b : c->blocks)
    for (Fiber* f : b->fibers)
      if (f->wait == Wait::ClusterBar) make_ready(f);
}
void cluster_arrive(Loc) {
  Fiber* f = rt->running;
  Cluster* c = f->blk->cl;
  if (rt->opt.race) hb_release(f, c->acc);
  f->cl_phase = c->phase;
  ++c->arrived;
  cluster_check(c);
}
void cluster_wait(Loc loc) {
  Fiber* f = rt->running;
  Cluster* c = f->blk->cl;
  while (c->phase == f->cl_phase) block_on(Wait::ClusterBar, 0, f->cl_phase, loc);
  if (rt->opt.race) hb_acquire(f, c->done);
}
uint32_t cluster_rank() { return rt->running->blk->rank; }
uint32_t cluster_size() { return (uint32_t)rt->running->blk->cl->blocks.size(); }

// ---- warp collectives --------------------------------------------------------------------------------
static const char* op_name(Op o) {
  static const char* n[] = {"?",           "shfl",         "vote",       "syncwarp", "reduce",
                            "match",       "ldmatrix",     "stmatrix",   "mma",      "wgmma",
                            "wgmma.fence", "wgmma.commit", "wgmma.wait", "elect",    "setmaxnreg"};
  return n[(int)o];
}
void warp_coll(Op op, uint32_t mask, bool aligned, void* args, Exec exec, Loc loc) {
  Fiber* f = rt->running;
  Warp* w = f->warp;
  ++t_stats.collectives;
  uint32_t bit = 1u << f->lane;
  if (!(mask & bit)) fail("warp", std::string(op_name(op)) + ": the calling lane is not in the mask", loc);
  if (mask & ~w->live)
    fail("warp", std::string(op_name(op)) + ": the mask names lanes that have exited or do not exist", loc);
  Coll* c = nullptr;
  for (auto& k : w->colls)
    if (k->arrived) {
      if (k->mask == mask && k->op == op && !(k->arrived & bit) &&
          (!aligned || (k->loc.line == loc.line && k->loc.file == loc.file))) {
        c = k.get();
        break;
      }
      if (k->mask & mask)
        fail("warp",
             std::string("diverged warp: ") + op_name(op) + " while other lanes are at " + op_name(k->op) + " (" +
                 where(k->loc) + ")",
             loc);
    }
  if (!c) {
    for (auto& k : w->colls)
      if (!k->arrived) {
        c = k.get();
        break;
      }
    if (!c) {
      w->colls.push_back(std::make_unique<Coll>());
      c = w->colls.back().get();
    }
    c->op = op;
    c->mask = mask;
    c->exec = exec;
    c->loc = loc;
    c->aligned = aligned;
  }
  c->args[f->lane] = args;
  c->arrived |= bit;
  if (c->arrived != mask) {
    block_on(Wait::Coll, mask, (uint64_t)op, loc);
    return;
  }
  Coll done = *c;
  c->arrived = 0;
  exec(done.args, mask, loc);
  for (uint32_t m = mask & ~bit; m; m &= m - 1) make_ready(w->f[__builtin_ctz(m)]);
}
int lane_id() { return rt->running->lane; }
int warp_id() { return rt->running->warp->id; }

namespace {
struct ShflArg {
  uint32_t v, out;
  int a, width, mode;
};
struct VoteArg {
  bool p;
  uint32_t out;
};
struct RedArg {
  uint64_t v, out;
  int op;
};
}  // namespace
uint32_t shfl(uint32_t mask, uint32_t v, int a, int width, int mode, Loc loc) {
  ShflArg s{v, 0, a, width, mode};
  warp_coll(
      Op::Shfl, mask, false, &s,
      [](void* const* A, uint32_t m, Loc l) {
        for (uint32_t k = m; k; k &= k - 1) {
          int lane = __builtin_ctz(k);
          auto* s = (ShflArg*)A[lane];
          int base = lane & ~(s->width - 1), src = lane;
          if (s->mode == 0)
            src = base + (s->a & (s->width - 1));
          else if (s->mode == 1) {
            src = lane - s->a;
            if (src < base) src = lane;
          } else if (s->mode == 2) {
            src = lane + s->a;
            if (src >= base + s->width) src = lane;
          } else {
            src = lane ^ s->a;
            if (src >= base + s->width) src = lane;
          }
          if (!(m >> src & 1)) fail("warp", "shfl reads lane " + std::to_string(src) + ", which is not in the mask", l);
          s->out = ((ShflArg*)A[src])->v;
        }
      },
      loc);
  return s.out;
}
uint32_t vote(uint32_t mask, bool p, Loc loc) {
  VoteArg s{p, 0};
  warp_coll(
      Op::Vote, mask, false, &s,
      [](void* const* A, uint32_t m, Loc) {
        uint32_t r = 0;
        for (uint32_t k = m; k; k &= k - 1) r |= (uint32_t)((VoteArg*)A[__builtin_ctz(k)])->p << __builtin_ctz(k);
        for (uint32_t k = m; k; k &= k - 1) ((VoteArg*)A[__builtin_ctz(k)])->out = r;
      },
      loc);
  return s.out;
}
uint64_t reduce(uint32_t mask, uint64_t v, int op, Loc loc) {
  RedArg s{v, 0, op};
  warp_coll(
      Op::Reduce, mask, false, &s,
      [](void* const* A, uint32_t m, Loc) {
        bool first = true;
        uint64_t r = 0;
        for (uint32_t k = m; k; k &= k - 1) {
          auto* s = (RedArg*)A[__builtin_ctz(k)];
          uint64_t x = s->v;
          if (first) {
            r = x;
            first = false;
            continue;
          }
          switch (s->op) {
            case 0:
              r += x;
              break;
            case 1:
              r = std::min(r, x);
              break;
            case 2:
              r = std::max(r, x);
              break;
            case 3:
              r &= x;
              break;
            case 4:
              r |= x;
              break;
            default:
              r ^= x;
          }
        }
        for (uint32_t k = m; k; k &= k - 1) ((RedArg*)A[__builtin_ctz(k)])->out = r;
      },
      loc);
  return s.out;
}
uint32_t match_any(uint32_t mask, uint64_t v, Loc loc) {
  RedArg s{v, 0, 0};
  warp_coll(
      Op::Match, mask, false, &s,
      [](void* const* A, uint32_t m, Loc) {
        for (uint32_t k = m; k; k &= k - 1) {
          auto* s = (RedArg*)A[__builtin_ctz(k)];
          uint32_t r = 0;
          for (uint32_t j = m; j; j &= j - 1)
            if (((RedArg*)A[__builtin_ctz(j)])->v == s->v) r |= 1u << __builtin_ctz(j);
          s->out = r;
        }
      },
      loc);
  return (uint32_t)s.out;
}
void syncwarp(uint32_t mask, Loc loc) {
  warp_coll(
      Op::Sync, mask, false, nullptr,
      [](void* const*, uint32_t m, Loc) {
        if (!rt->opt.race) return;
        Clock c;
        Warp* w = rt->running->warp;
        for (uint32_t k = m; k; k &= k - 1) hb_release(w->f[__builtin_ctz(k)], c);
        for (uint32_t k = m; k; k &= k - 1) hb_acquire(w->f[__builtin_ctz(k)], c);
      },
      loc);
}
bool elect_one(Loc loc) {
  uint32_t m = rt->running->warp->live;
  warp_coll(
      Op::Elect, m, true, nullptr, [](void* const*, uint32_t, Loc) {}, loc);
  return rt->running->lane == __builtin_ctz(m);
}
void setmaxnreg(int n, bool inc, Loc loc) {
  if (n < 24 || n > 256 || n % 8) fail("setmaxnreg", "count must be a multiple of 8 in 24..256", loc);
  static thread_local int sn;
  static thread_local bool si;
  sn = n;
  si = inc;
  warp_coll(
      Op::SetReg, 0xffffffffu, true, nullptr,
      [](void* const*, uint32_t, Loc l) {
        Block* b = rt->running->blk;
        rt->running->warp->regs = sn;
        (void)si;
        int sum = 0;
        bool all = true;
        for (Warp* w : b->warps) {
          all &= w->regs > 0;
          sum += w->regs * 32;
        }
        if (all && sum > 65536)
          fail("setmaxnreg", "the warps of the block together ask for " + std::to_string(sum) + " registers", l);
      },
      loc);
}

// ---- shared memory ---------------------------------------------------------------------------------------
void* dyn_smem() { return rt->running->blk->arena + rt->opt.smem_base; }
void* static_smem(const void* tag, size_t size, size_t align, const char* name) {
  Block* b = rt->running->blk;
  auto it = b->statics.find(tag);
  if (it == b->statics.end()) {
    uint32_t a = (uint32_t)((b->static_top + 31 + align - 1) / align * align);  // 32-byte gap: ASan red zone
    if (a + size > ARENA) fail("smem", std::string("static shared memory exhausted by ") + name, {});
    b->static_top = a + (uint32_t)size;
    it = b->statics.emplace(tag, a).first;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(b->arena + a, size);
#endif
  }
  return b->arena + it->second;
}
uint32_t smem_u32(const void* p, Loc loc) {
  Block* b = rt->running->blk;
  auto off = (uintptr_t)p - (uintptr_t)b->arena;
  if (off > ARENA)
    fail("smem", "the pointer is not in this block's shared memory (plain __shared__? use KW_SHARED)", loc);
  return (uint32_t)off;
}
Block* resolve(uint32_t addr, uint32_t* off, size_t size, Loc loc) {
  Block* b = rt->running->blk;
  uint32_t hi = addr >> 24;
  *off = addr & 0xffffff;
  if (hi) {
    if (hi > b->cl->blocks.size()) fail("smem", "cluster rank out of range", loc);
    b = b->cl->blocks[hi - 1];
    if (b->live == 0) fail("smem", "access to the shared memory of a block that has exited", loc);
  }
  check_range(b, *off, size, "shared access", loc);
  return b;
}
void check_range(Block* b, uint32_t off, size_t n, const char* what, Loc loc) {
  uint32_t lo = rt->opt.smem_base, hi = lo + b->dyn_size;
  bool ok = (off >= lo && off + n <= hi) || (off >= STATIC_LO && off + n <= b->static_top);
  if (!ok)
    fail("smem out of bounds",
         std::string(what) + " at [" + std::to_string((int)off - (int)lo) + ", +" + std::to_string(n) + ") of a " +
             std::to_string(b->dyn_size) + "-byte allocation",
         loc);
}
void* smem_ptr(uint32_t addr, size_t size, Loc loc) {
  uint32_t off;
  Block* b = resolve(addr, &off, size, loc);
  return b->arena + off;
}
uint32_t mapa(uint32_t addr, uint32_t rank, Loc loc) {
  if (rank >= rt->running->blk->cl->blocks.size()) fail("cluster", "mapa: rank out of range", loc);
  return (addr & 0xffffff) | (rank + 1) << 24;
}
void* map_shared_rank(void* p, uint32_t rank, Loc loc) {
  uint32_t o = smem_u32(p, loc);
  auto& bs = rt->running->blk->cl->blocks;
  if (rank >= bs.size()) fail("cluster", "map_shared_rank: rank out of range", loc);
  return bs[rank]->arena + o;
}

#if defined(__SANITIZE_ADDRESS__)
void* gmem_alloc(size_t n) {
  void* p = nullptr;
  if (posix_memalign(&p, 256, n)) std::abort();
  return p;
}  // exact size: red zones
void gmem_free(void* p, size_t) { std::free(p); }
#else
static size_t gm_pages(size_t n) { return (n + 255 + 4095) / 4096 * 4096; }
void* gmem_alloc(size_t n) {  // the end is flush (to 256 bytes) with a guard page
  size_t m = gm_pages(n);
  char* p = (char*)mmap(nullptr, m + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(p + 4096, m, PROT_READ | PROT_WRITE);
  return p + 4096 + (m - (n + 255) / 256 * 256);
}
void gmem_free(void* q, size_t n) {
  size_t m = gm_pages(n);
  munmap((char*)q - (m - (n + 255) / 256 * 256) - 4096, m + 8192);
}
#endif

// ---- launch ---------------------------------------------------------------------------------------------
static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  const void* b;
  size_t n;
  __sanitizer_finish_switch_fiber(nullptr, &b, &n);
  if (!rt->main_stack) {
    rt->main_stack = b;
    rt->main_stack_size = n;
  }
#endif
  (*rt->body)();
  Fiber* f = rt->running;
  check_exit(f);
  f->st = St::Done;
  f->warp->ready &= ~(1u << f->lane);
  f->warp->live &= ~(1u << f->lane);
  --f->blk->live;
  --f->blk->cl->live;
  --rt->live;
  bar_check(f->blk, 0);
  cluster_check(f->blk->cl);
  schedule();
  __builtin_unreachable();
}

static void run_batch(Runtime& R, const std::vector<U3>& firsts) {
  const Launch& l = R.l;
  const int T = (int)(l.block.x * l.block.y * l.block.z), CB = (int)(l.cluster.x * l.cluster.y * l.cluster.z);
  R.blocks.clear();
  R.warps.clear();
  R.tma.clear();
  R.failed = false;
  R.error.clear();
  R.clusters.clear();
  R.wcur = 0;
  R.steps = 0;
  R.live = 0;
  for (auto& f : R.fibers) R.pool.push_back(std::move(f));
  R.fibers.clear();
  R.pct_points.clear();
  for (int i = 0; i < 3; ++i) R.pct_points.push_back(1 + R.rand() % 2000);
  int nw = (T + 31) / 32;
  R.n_agents = (T * 3 + nw) * CB * (int)firsts.size();
  for (U3 first : firsts) {
    R.clusters.push_back(std::make_unique<Cluster>());
    Cluster* cl = R.clusters.back().get();
    cl->live = T * CB;
    for (int c = 0; c < CB; ++c) {
      size_t bi = R.blocks.size();
      auto blk = std::make_unique<Block>();
      Block* b = blk.get();
      R.blocks.push_back(std::move(blk));
      b->rt = &R;
      b->cl = cl;
      cl->blocks.push_back(b);
      b->rank = (uint32_t)c;
      b->live = T;
      b->dyn_size = (uint32_t)l.smem;
      b->bid = {first.x + c % l.cluster.x, first.y + c / l.cluster.x % l.cluster.y,
                first.z + c / (l.cluster.x * l.cluster.y)};
      if (R.arenas.size() <= bi) {
        char* p = (char*)mmap(nullptr, ARENA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p = (char*)(((uintptr_t)p + 1023) & ~uintptr_t(1023));
        R.arenas.push_back(p);
      }
      b->arena = R.arenas[bi];
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(b->arena, ARENA);
#endif
      if (R.opt.poison) {
        std::memset(b->arena + R.opt.smem_base, 0xff, l.smem);
        std::memset(b->arena + STATIC_LO, 0xff, ARENA - STATIC_LO);
      }
#if defined(__SANITIZE_ADDRESS__)
      __asan_poison_memory_region(b->arena, R.opt.smem_base);
      __asan_poison_memory_region(b->arena + ((R.opt.smem_base + l.smem + 7) & ~size_t(7)),
                                  ARENA - ((R.opt.smem_base + l.smem + 7) & ~size_t(7)));
#endif
      if (R.opt.race) shadow_reset(b);
      for (int w = 0; w < nw; ++w) {
        auto ww = std::make_unique<Warp>();
        ww->blk = b;
        ww->id = (int)R.warps.size();
        ww->prio = 16 + R.rand() % 1000000;
        b->warps.push_back(ww.get());
        R.warps.push_back(std::move(ww));
      }
      for (int t = 0; t < T; ++t) {
        std::unique_ptr<Fiber> f;
        if (!R.pool.empty()) {
          f = std::move(R.pool.back());
          R.pool.pop_back();
        } else
          f = std::make_unique<Fiber>();
        prepare(f.get());
        f->lin = t;
        f->lane = t % 32;
        f->gid = (int)R.fibers.size();
        f->blk = b;
        f->warp = b->warps[t / 32];
        f->st = St::Ready;
        f->wait = Wait::None;
        f->cp = {};
        f->bulk = {};
        f->clk = Clock();
        f->epoch = 1;
        f->spins = 0;
        if (R.opt.race) {
          f->clk.seen.c.assign((size_t)R.n_agents, 0);
          f->clk.seen.c[f->gid] = 1;
          f->clk.pub.c.assign((size_t)R.n_agents, 0);
        }
        f->ctx.tid = {(unsigned)t % l.block.x, (unsigned)t / l.block.x % l.block.y,
                      (unsigned)t / (l.block.x * l.block.y)};
        f->ctx.bid = b->bid;
        f->ctx.bdim = l.block;
        f->ctx.gdim = l.grid;
        f->ctx.self = f.get();
        f->warp->f[f->lane] = f.get();
        f->warp->present |= 1u << f->lane;
        f->warp->ready |= 1u << f->lane;
        f->warp->live |= 1u << f->lane;
        b->fibers.push_back(f.get());
        R.fibers.push_back(std::move(f));
        ++R.live;
      }
    }
  }
  t_stats.blocks += (uint64_t)R.blocks.size();
#if USE_UCONTEXT
  if (!R.main_sp) R.main_sp = new ucontext_t;
#endif
  R.running = nullptr;
  switch_to(pick());
  R.running = nullptr;
  cur = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  for (auto& f : R.fibers) __asan_unpoison_memory_region(f->stack, f->stack_size);
#endif
  if (!R.failed && R.live) {
    R.failed = true;
    R.error = "deadlock at start";
  }
  if (!R.failed)
    for (auto& b : R.blocks) try {
        check_block_end(b.get());
      } catch (Error& e) {
        R.failed = true;
        R.error = e.what();
      }
  if (R.failed) throw Error(R.error);
}

void launch(const Launch& l, const std::function<void()>& body) {
  size_t T = (size_t)l.block.x * l.block.y * l.block.z;
  if (T == 0 || T > 1024) throw Error("launch: block of " + std::to_string(T) + " threads");
  if (l.smem > SMEM_MAX) throw Error("launch: " + std::to_string(l.smem) + " bytes of dynamic shared memory");
  if (l.grid.x % l.cluster.x || l.grid.y % l.cluster.y || l.grid.z % l.cluster.z)
    throw Error("launch: the grid is not a multiple of the cluster");
  if (l.cluster.x * l.cluster.y * l.cluster.z > 8) throw Error("launch: cluster of more than 8 blocks");
  U3 nc = {l.grid.x / l.cluster.x, l.grid.y / l.cluster.y, l.grid.z / l.cluster.z};
  size_t total = (size_t)nc.x * nc.y * nc.z;
  std::atomic<size_t> next{0};
  std::mutex mu;
  std::string err;
  std::atomic<bool> stop{false};
  std::vector<size_t> order(total);
  for (size_t i = 0; i < total; ++i) order[i] = i;
  Options opt = g_opt;
  uint64_t s = opt.seed * 0x9E3779B97F4A7C15ULL + 1;
  if (opt.sched == Sched::Random || opt.sched == Sched::Pct)
    for (size_t i = total; i > 1; --i) {
      s = s * 6364136223846793005ULL + 1442695040888963407ULL;
      std::swap(order[i - 1], order[(s >> 33) % i]);
    }
  Stats sum;
  Stats before = t_stats;
  auto work = [&] {
    static thread_local std::unique_ptr<Runtime> keep;  // stacks and arenas are reused by later launches
    if (!keep) keep = std::make_unique<Runtime>();
    Runtime* outer = rt;
    rt = keep.get();
    rt->l = l;
    rt->body = &body;
    rt->opt = opt;
    const size_t res = opt.resident < 1 ? total : (size_t)opt.resident;
    for (size_t i; !stop && (i = next.fetch_add(res)) < total;) {
      std::vector<U3> batch;
      size_t k = order[i];
      for (size_t j = i; j < total && j < i + res; ++j) {
        size_t q = order[j];
        batch.push_back({(unsigned)(q % nc.x) * l.cluster.x, (unsigned)(q / nc.x % nc.y) * l.cluster.y,
                         (unsigned)(q / nc.x / nc.y) * l.cluster.z});
      }
      rt->rng = (opt.seed + 1) * 0x9E3779B97F4A7C15ULL ^ (k + 1) * 0xD1B54A32D192ED03ULL;
      if (!rt->rng) rt->rng = 1;
      try {
        run_batch(*rt, batch);
      } catch (Error& e) {
        std::lock_guard<std::mutex> g(mu);
        if (err.empty()) err = e.what();
        stop = true;
      }
    }
    rt = outer;
  };
  if (opt.workers <= 1)
    work();
  else {
    std::vector<std::thread> ts;
    for (int i = 0; i < opt.workers; ++i)
      ts.emplace_back([&] {
        work();
        std::lock_guard<std::mutex> g(mu);
        uint64_t* a = (uint64_t*)&sum;
        uint64_t* b = (uint64_t*)&t_stats;
        for (size_t j = 0; j < sizeof(Stats) / 8; ++j) a[j] += b[j];
      });
    for (auto& t : ts) t.join();
    uint64_t* a = (uint64_t*)&t_stats;
    uint64_t* b = (uint64_t*)&sum;
    for (size_t j = 0; j < sizeof(Stats) / 8; ++j) a[j] += b[j];
  }
  (void)before;
  if (!err.empty()) throw Error(err);
}
}  // namespace kw::emu
