// Happens-before race detector for shared memory, and the hooks that g++ -fsanitize=thread emits.
// Kernel files are compiled with -fsanitize=thread but linked without libtsan: this file is the runtime.
#include <algorithm>
#include <map>
#include <mutex>

#include "internal.h"

namespace kw::emu {
// agent numbers: threads 0..F-1, then cp.async agents, bulk-store agents, wgmma agents per warp, one per mbarrier
static int F() { return (int)rt->fibers.size(); }
int agent_cp(const Fiber* f) { return F() + f->gid; }
int agent_bulk(const Fiber* f) { return 2 * F() + f->gid; }
int agent_wg(const Warp* w) { return 3 * F() + w->id; }
int new_agent() {
  if (rt->n_agents >= 4095) fail("emulator", "too many agents for the race detector", {});
  return rt->n_agents++;
}

static std::vector<Loc> g_locs(1);
static std::map<std::pair<const void*, int>, uint16_t> g_loc_ids;
static std::mutex g_mu;
static uint16_t loc_id(Loc l) {
  static thread_local std::map<std::pair<const void*, int>, uint16_t> cache;
  std::pair<const void*, int> k{l.file ? (const void*)l.file : l.pc, l.line};
  auto c = cache.find(k);
  if (c != cache.end()) return c->second;
  std::lock_guard<std::mutex> g(g_mu);
  auto it = g_loc_ids.find(k);
  if (it == g_loc_ids.end()) {
    it = g_loc_ids.emplace(k, (uint16_t)g_locs.size()).first;
    g_locs.push_back(l);
  }
  return cache[k] = it->second;
}

void hb_release(Fiber* f, Clock& into) {
  into.join(f->clk);
  ++f->epoch;
  f->clk.seen.c[f->gid] = f->epoch;
}
void hb_acquire(Fiber* f, const Clock& from) {
  f->clk.join(from);
  f->clk.seen.c[f->gid] = f->epoch;
}

void shadow_reset(Block* b) { b->cells.assign(ARENA, Cell{}); }
static std::string agent_name(uint32_t a) {
  int n = F();
  if ((int)a < n) return "thread " + std::to_string(rt->fibers[a]->lin);
  if ((int)a < 2 * n) return "cp.async of thread " + std::to_string(rt->fibers[a - n]->lin);
  if ((int)a < 3 * n) return "bulk store of thread " + std::to_string(rt->fibers[a - 2 * n]->lin);
  if ((int)a < 3 * n + (int)rt->warps.size()) return "wgmma of warp " + std::to_string((int)a - 3 * n);
  return "TMA load";
}

void shadow(Block* b, uint32_t off, uint32_t n, bool write, uint32_t agent, uint32_t clock, const Clock& c, bool async,
            bool atomic, Loc loc) {
  const uint32_t me = agent << 20 | (clock & 0xfffff);
  const int nf = F();
  uint16_t lid = 0;
  auto& seen = c.seen.c;
  auto& pub = c.pub.c;
  for (uint32_t i = off; i < off + n; ++i) {
    Cell& k = b->cells[i];
    if (k.w) {
      uint32_t a = k.w >> 20, t = k.w & 0xfffff;
      if (a != agent) {
        bool ordered = a < seen.size() && t <= seen[a];
        if (!ordered && !(atomic && (k.wl & 0x8000)))
          fail("race",
               std::string(write ? "write" : "read") + " of smem+" + std::to_string(i) + " by " + agent_name(agent) +
                   " is not ordered after the write by " + agent_name(a) + " (" + where(g_locs[k.wl & 0x7fff]) + ")",
               loc);
        if (async && (int)a < nf && !(a < pub.size() && t <= pub[a]))
          fail("proxy",
               std::string("fence.proxy.async missing: smem+") + std::to_string(i) + " was written by " +
                   agent_name(a) + " through the generic proxy (" + where(g_locs[k.wl & 0x7fff]) + ") and is used by " +
                   agent_name(agent),
               loc);
      }
    } else if (!write && rt->opt.uninit)
      fail("uninitialised", "read of smem+" + std::to_string(i) + ", which nothing has written", loc);
    if (write) {
      for (uint32_t r : {k.r0, k.r1})
        if (r) {
          uint32_t a = r >> 20, t = r & 0xfffff;
          if (a != agent && !(a < seen.size() && t <= seen[a]))
            fail("race",
                 "write of smem+" + std::to_string(i) + " by " + agent_name(agent) +
                     " is not ordered after the read by " + agent_name(a) + " (" + where(g_locs[k.rl]) + ")",
                 loc);
        }
      if (!lid) lid = loc_id(loc);
      k.w = me;
      k.wl = (uint16_t)(lid | (atomic ? 0x8000 : 0));
      k.r0 = k.r1 = 0;
    } else {
      if (k.r0 == me || k.r1 == me) continue;
      if (!lid) lid = loc_id(loc);
      auto old = [&](uint32_t r) {
        return !r || r >> 20 == agent || (r >> 20 < seen.size() && (r & 0xfffff) <= seen[r >> 20]);
      };
      if (old(k.r0))
        k.r0 = me;
      else if (old(k.r1))
        k.r1 = me;
      else if (rt->rand() & 1)
        k.r0 = me;
      else
        k.r1 = me;
      k.rl = lid;
    }
  }
}
void shadow_thread(Fiber* f, Block* b, uint32_t off, uint32_t n, bool write, Loc loc) {
  if (rt->opt.race) shadow(b, off, n, write, (uint32_t)f->gid, f->epoch, f->clk, false, false, loc);
}

// ---- global memory -------------------------------------------------------------------------------
static std::map<uintptr_t, size_t> g_bufs;
static std::mutex g_bufs_mu;
static std::map<const void*, Clock> g_flags;
void gmem_register(const void* p, size_t n) {
  std::lock_guard<std::mutex> g(g_bufs_mu);
  g_bufs[(uintptr_t)p] = n;
}
void gmem_unregister(const void* p) {
  std::lock_guard<std::mutex> g(g_bufs_mu);
  g_bufs.erase((uintptr_t)p);
}
bool gmem_ok(const void* p, size_t n) {
  auto a = (uintptr_t)p;
  auto it = g_bufs.upper_bound(a);
  if (it == g_bufs.begin()) return false;
  --it;
  return a >= it->first && a + n <= it->first + it->second;
}
void red_release(unsigned* p, unsigned v) { __atomic_fetch_add(p, v, __ATOMIC_RELEASE); }
unsigned ld_acquire(const unsigned* p, Loc) {
  yield_point();
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

// ---- hooks ------------------------------------------------------------------------------------------
static inline void plain(const void* p, size_t n, bool write, bool atomic, const void* pc) {
  if (!cur || !rt || !rt->running) return;
  Fiber* f = rt->running;
  for (auto& bp : rt->blocks) {
    Block* b = bp.get();
    uintptr_t off = (uintptr_t)p - (uintptr_t)b->arena;
    if (off < ARENA) {
      Loc l{nullptr, 0, pc};
      check_range(b, (uint32_t)off, n, write ? "store" : "load", l);
      if (b != f->blk && b->live == 0) fail("cluster", "access to the shared memory of a block that has exited", l);
      if (rt->opt.race) {
        shadow(b, (uint32_t)off, (uint32_t)n, write, (uint32_t)f->gid, f->epoch, f->clk, false, atomic, l);
      }
      return;
    }
  }
  if ((uintptr_t)p - (uintptr_t)f->stack < f->stack_size) return;
  for (auto& g : rt->fibers)
    if ((uintptr_t)p - (uintptr_t)g->stack < g->stack_size)
      fail("local", "access to a local variable of another thread", Loc{nullptr, 0, pc});
  if (!g_bufs.empty() && !gmem_ok(p, n)) {  // buffers are surrounded by guard pages
    auto it = g_bufs.upper_bound((uintptr_t)p + 4095);
    if (it != g_bufs.begin()) {
      --it;
      if ((uintptr_t)p + 4096 > it->first && (uintptr_t)p < it->first + it->second + 4096)
        fail("gmem out of bounds",
             std::string(write ? "store" : "load") + " outside the device buffer by " +
                 std::to_string((long)((uintptr_t)p - it->first)) + " of " + std::to_string(it->second) + " bytes",
             Loc{nullptr, 0, pc});
    }
  }
}
}  // namespace kw::emu

using kw::emu::plain;
#define PC __builtin_return_address(0)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define RW(N)                                                               \
  void __tsan_read##N(void* p) { plain(p, N, false, false, PC); }           \
  void __tsan_write##N(void* p) { plain(p, N, true, false, PC); }           \
  void __tsan_unaligned_read##N(void* p) { plain(p, N, false, false, PC); } \
  void __tsan_unaligned_write##N(void* p) { plain(p, N, true, false, PC); } \
  void __tsan_volatile_read##N(void* p) { plain(p, N, false, false, PC); }  \
  void __tsan_volatile_write##N(void* p) { plain(p, N, true, false, PC); }
RW(1) RW(2) RW(4) RW(8) RW(16) void __tsan_read_range(void* p, unsigned long n) { plain(p, n, false, false, PC); }
void __tsan_write_range(void* p, unsigned long n) { plain(p, n, true, false, PC); }
void* __tsan_memcpy(void* d, const void* s, unsigned long n) {
  plain(s, n, false, false, PC);
  plain(d, n, true, false, PC);
  return std::memcpy(d, s, n);
}  // clang
void* __tsan_memmove(void* d, const void* s, unsigned long n) {
  plain(s, n, false, false, PC);
  plain(d, n, true, false, PC);
  return std::memmove(d, s, n);
}
void* __tsan_memset(void* d, int c, unsigned long n) {
  plain(d, n, true, false, PC);
  return std::memset(d, c, n);
}
#define AT(N, T)                                                                            \
  T __tsan_atomic##N##_load(const volatile T* p, int) {                                     \
    plain((void*)p, N / 8, false, true, PC);                                                \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                            \
  }                                                                                         \
  void __tsan_atomic##N##_store(volatile T* p, T v, int) {                                  \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                               \
  }                                                                                         \
  T __tsan_atomic##N##_exchange(volatile T* p, T v, int) {                                  \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                     \
  }                                                                                         \
  T __tsan_atomic##N##_fetch_add(volatile T* p, T v, int) {                                 \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##N##_fetch_sub(volatile T* p, T v, int) {                                 \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##N##_fetch_or(volatile T* p, T v, int) {                                  \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                       \
  }                                                                                         \
  T __tsan_atomic##N##_fetch_and(volatile T* p, T v, int) {                                 \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##N##_fetch_xor(volatile T* p, T v, int) {                                 \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  int __tsan_atomic##N##_compare_exchange_strong(volatile T* p, T* e, T v, int, int) {      \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                         \
  int __tsan_atomic##N##_compare_exchange_weak(volatile T* p, T* e, T v, int, int) {        \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                         \
  T __tsan_atomic##N##_compare_exchange_val(volatile T* p, T e, T v, int, int) {            \
    plain((void*)p, N / 8, true, true, PC);                                                 \
    __atomic_compare_exchange_n(p, &e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    return e;                                                                               \
  }
AT(8, unsigned char)
AT(16, unsigned short) AT(32, unsigned int) AT(64, unsigned long) void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}
