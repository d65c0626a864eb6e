// cp.async, mbarrier, TMA, bulk stores, proxy fences.
#include <algorithm>

#include "internal.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace kw::emu {
static void poison(Block* b, uint32_t off, size_t n) {
  if (rt->opt.poison) std::memset(b->arena + off, 0xff, n);
}
static bool now() { return rt->opt.async == Async::Eager || (rt->opt.async == Async::Random && rt->rand() & 1); }
static void gmem_check(const void* p, size_t n, const char* what, Loc loc) {
  if (n && !gmem_ok(p, n))
    fail("gmem out of bounds", std::string(what) + " touches memory outside every device buffer", loc);
}
static void copy_in(char* dst, const char* src, size_t n, size_t total) {
  std::memcpy(dst, src, n);
  std::memset(dst + n, 0, total - n);
}

// ---- cp.async --------------------------------------------------------------------------------------
static void arrive_at(Block* b, uint32_t off, uint32_t n, uint32_t tx, Fiber* f, Loc loc);
static void cp_run(Fiber* f, CpOp& o) {
  if (o.is_arrive) {
    arrive_at(o.blk, o.off, 1, 0, nullptr, f->loc);
    return;
  }
  copy_in(o.dst, o.src, (size_t)o.src_bytes, (size_t)o.bytes);
}
void cp_async(uint32_t dst, const void* src, int bytes, int src_bytes, Loc loc) {
  Fiber* f = rt->running;
  ++stats().cp_async;
  uint32_t off;
  Block* b = resolve(dst, &off, (size_t)bytes, loc);
  if (dst % bytes || (uintptr_t)src % (uintptr_t)bytes)
    fail("alignment", "cp.async: source or destination is not aligned to the copy size", loc);
  if (src_bytes < 0 || src_bytes > bytes) fail("cp.async", "src-size out of range", loc);
  gmem_check(src, (size_t)src_bytes, "cp.async", loc);
  if (rt->opt.race)
    shadow(b, off, (uint32_t)bytes, true, (uint32_t)agent_cp(f), f->cp.n_committed + 1, f->clk, false, false, loc);
  CpOp o{b->arena + off, off, b, (const char*)src, bytes, src_bytes, 0, false, false};
  if (now()) {
    cp_run(f, o);
    return;
  }
  poison(b, off, (size_t)bytes);
  f->cp.open.push_back(o);
}
void cp_async_commit(Loc) {
  Fiber* f = rt->running;
  ++f->cp.n_committed;
  f->cp.committed.push_back(std::move(f->cp.open));
  f->cp.open.clear();
}
void cp_async_wait(int n, Loc) {
  Fiber* f = rt->running;
  while ((int)f->cp.committed.size() > (n < 0 ? 0 : n)) {
    for (auto& o : f->cp.committed.front()) cp_run(f, o);
    f->cp.committed.pop_front();
  }
  if (n < 0) {
    for (auto& o : f->cp.open) cp_run(f, o);
    f->cp.open.clear();
  }
  if (rt->opt.race) {
    uint32_t t = n < 0 ? f->cp.n_committed + 1 : f->cp.n_committed - std::min<uint32_t>((uint32_t)n, f->cp.n_committed);
    auto& v = f->clk.seen.c[agent_cp(f)];
    v = std::max(v, t);
  }
}
void cp_async_mbar_arrive_noinc(uint32_t bar, Loc loc) {
  const bool noinc = true;
  Fiber* f = rt->running;
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  if (!noinc) mbar_word(b, off, loc) += 1;
  // model: everything issued so far completes, then arrives; the arrival carries the copies' clock
  for (auto& g : f->cp.committed)
    for (auto& o : g) cp_run(f, o);
  f->cp.committed.clear();
  for (auto& o : f->cp.open) cp_run(f, o);
  f->cp.open.clear();
  ++f->cp.n_committed;
  if (rt->opt.race) {
    Clock c = f->clk;
    c.seen.c[agent_cp(f)] = f->cp.n_committed;
    b->mbars[off].acc.join(c);
  }
  arrive_at(b, off, 1, 0, nullptr, loc);
}

// ---- mbarrier: state lives in the 8 shared bytes ---------------------------------------------------------
// [0,20) arrivals missing  [20,40) count  [40,61) tx bytes missing (signed)  61 phase  [62,64) = 01
uint64_t& mbar_word(Block* b, uint32_t off, Loc loc) {
  if (off % 8) fail("mbarrier", "address is not 8-byte aligned", loc);
  auto& w = *(uint64_t*)(b->arena + off);
  if (w >> 62 != 1 || !b->mbars.count(off))
    fail("mbarrier",
         "smem+" + std::to_string(off) + " is not an initialised mbarrier (missing init, or init not yet visible)",
         loc);
  return w;
}
static int64_t tx_of(uint64_t w) {
  int64_t t = (int64_t)(w >> 40 & 0x1fffff);
  return t & 0x100000 ? t - 0x200000 : t;
}
static void set_tx(uint64_t& w, int64_t t, Loc loc) {
  if (t > 0xfffff || t < -0xfffff) fail("mbarrier", "transaction count out of range", loc);
  w = (w & ~(0x1fffffULL << 40)) | ((uint64_t)t & 0x1fffff) << 40;
}
static void flip_check(Block* b, uint32_t off, uint64_t& w) {
  if ((w & 0xfffff) || tx_of(w)) return;
  Mbar& m = b->mbars[off];
  w = (w & ~0xfffffULL) | (w >> 20 & 0xfffff);
  w ^= 1ULL << 61;
  if (rt->opt.race) {
    m.done = m.acc;
    if ((int)m.done.seen.c.size() <= m.agent) m.done.seen.c.resize(m.agent + 1);
    m.done.seen.c[m.agent] = m.phase;
  }
  ++m.phase;
  for (Fiber* f : m.waiters) make_ready(f);
  m.waiters.clear();
}
void mbar_init(uint32_t bar, uint32_t count, Loc loc) {
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  Fiber* f = rt->running;
  if (off % 8) fail("mbarrier", "address is not 8-byte aligned", loc);
  if (count < 1 || count > 0xfffff) fail("mbarrier", "count out of range", loc);
  Mbar& m = b->mbars[off];
  m = Mbar();
  m.init_by = f->lin;
  if (rt->opt.race) {
    shadow_thread(f, b, off, 8, true, loc);
    m.agent = new_agent();
  }
  *(uint64_t*)(b->arena + off) = 1ULL << 62 | (uint64_t)count << 20 | count;
}
void mbar_inval(uint32_t bar, Loc loc) {
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  mbar_word(b, off, loc) = ~0ULL;
  b->mbars.erase(off);
}
static void init_seen(Block* b, uint32_t off, Fiber* f, Loc loc) {  // was init ordered before this use?
  if (!rt->opt.race || !f) return;
  Cell& k = b->cells[off];
  uint32_t a = k.w >> 20, t = k.w & 0xfffff;
  if (a != (uint32_t)f->gid && !(a < f->clk.seen.c.size() && t <= f->clk.seen.c[a]))
    fail("race", "mbarrier at smem+" + std::to_string(off) + " is used before its init is visible to this thread", loc);
}
static void arrive_at(Block* b, uint32_t off, uint32_t n, uint32_t tx, Fiber* f, Loc loc) {
  uint64_t& w = mbar_word(b, off, loc);
  init_seen(b, off, f, loc);
  if (tx) set_tx(w, tx_of(w) + tx, loc);
  if ((w & 0xfffff) < n) fail("mbarrier", "more arrivals than the barrier's count in one phase", loc);
  if (f && rt->opt.race) hb_release(f, b->mbars[off].acc);
  w -= n;
  flip_check(b, off, w);
}
void mbar_arrive(uint32_t bar, uint32_t tx, Loc loc) {
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  arrive_at(b, off, 1, tx, rt->running, loc);
}
void mbar_expect_tx(uint32_t bar, uint32_t tx, Loc loc) {
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  uint64_t& w = mbar_word(b, off, loc);
  set_tx(w, tx_of(w) + tx, loc);
}
void mbar_complete_tx(Block* b, uint32_t off, uint32_t bytes, Loc loc) {
  uint64_t& w = mbar_word(b, off, loc);
  set_tx(w, tx_of(w) - bytes, loc);
  flip_check(b, off, w);
}
bool mbar_try_wait(uint32_t bar, uint32_t parity, Loc loc) {
  Fiber* f = rt->running;
  uint32_t off;
  Block* b = resolve(bar, &off, 8, loc);
  if (b != f->blk) fail("mbarrier", "try_wait on another block's mbarrier", loc);
  for (int i = 0;; ++i) {
    uint64_t& w = mbar_word(b, off, loc);
    init_seen(b, off, f, loc);
    if ((w >> 61 & 1) != (parity & 1)) break;
    if (i && rt->opt.spurious && rt->rand() % 8 == 0) return false;
    b->mbars[off].waiters.push_back(f);
    block_on(Wait::Mbar, off, parity, loc);
  }
  if (rt->opt.race) hb_acquire(f, b->mbars[off].done);
  return true;
}
void fence_mbar_init(Loc) {
  for (auto& k : rt->running->blk->mbars)
    if (k.second.init_by == rt->running->lin) k.second.fenced = true;
}
void fence_proxy_async(Loc loc) {
  fence_mbar_init(loc);
  if (rt->opt.race) {
    Fiber* f = rt->running;
    f->clk.pub.c[f->gid] = f->epoch;
    f->clk.seen.c[f->gid] = ++f->epoch;
  }
}  // strict: own writes only

// ---- TMA ---------------------------------------------------------------------------------------------------
static constexpr uint64_t MAGIC = 0x5449444d414d5354ULL;
TensorMap tensor_map_2d(uint32_t elem, const void* base, uint64_t inner, uint64_t outer, uint64_t stride, uint32_t bi,
                        uint32_t bo, uint32_t swz) {
  return TensorMap{MAGIC, (char*)const_cast<void*>(base), {inner, outer}, stride, {bi, bo}, elem, swz, {}};
}
static uint32_t swz_addr(uint32_t a, uint32_t mode) {
  return mode == 3 ? a ^ (a >> 7 & 7) << 4 : mode == 2 ? a ^ (a >> 7 & 3) << 4 : mode == 1 ? a ^ (a >> 7 & 1) << 4 : a;
}
void run_tma(TmaOp& o) {
  Block* b = o.dst_blk;
  if (o.lin) {
    std::memcpy(b->arena + o.dst, o.lin, o.bytes);
    mbar_complete_tx(b, o.bar, o.bytes, o.loc);
    return;
  }
  const TensorMap& m = o.m;
  uint32_t row = m.box[0] * m.elem;
  for (uint32_t r = 0; r < m.box[1]; ++r)
    for (uint32_t c = 0; c < row; c += 16) {
      char tmp[16] = {};
      int64_t y = (int64_t)o.y + r, x = (int64_t)o.x * m.elem + c, w = (int64_t)m.dim[0] * m.elem;
      if (y >= 0 && y < (int64_t)m.dim[1])
        for (int i = 0; i < 16; ++i)
          if (x + i >= 0 && x + i < w) tmp[i] = m.base[(uint64_t)y * m.stride + (uint64_t)(x + i)];
      std::memcpy(b->arena + swz_addr(o.dst + r * row + c, m.swizzle), tmp, 16);
    }
  mbar_complete_tx(b, o.bar, row * m.box[1], o.loc);
}
bool tma_step(bool random) {
  if (rt->tma.empty()) return false;
  size_t i = random ? rt->rand() % rt->tma.size() : 0;
  TmaOp o = rt->tma[i];
  rt->tma.erase(rt->tma.begin() + (long)i);
  if (o.dst_blk->live == 0) {
    rt->failed = true;
    rt->error = "TMA load completes into the shared memory of a block that has exited";
    return false;
  }
  // mbar_complete_tx may report an error: it needs a running fiber to switch away from
  run_tma(o);
  return true;
}
static void issue(TmaOp& o, uint32_t bytes, Fiber* f, Loc loc) {
  Block* b = o.dst_blk;
  check_range(b, o.dst, bytes, "TMA destination", loc);
  mbar_word(b, o.bar, loc);
  init_seen(b, o.bar, f, loc);
  if (!b->mbars[o.bar].fenced)
    fail("proxy", "TMA signals an mbarrier whose init was not followed by fence.mbarrier_init or fence.proxy.async",
         loc);
  if (rt->opt.race) {
    Mbar& m = b->mbars[o.bar];
    shadow(b, o.dst, bytes, true, (uint32_t)m.agent, m.phase, f->clk, true, false, loc);
  }
  if (now()) {
    run_tma(o);
    return;
  }
  poison(b, o.dst, bytes);
  rt->tma.push_back(o);
}
void tma_load_2d(uint32_t dst, const TensorMap* m, uint32_t bar, int x, int y, uint32_t cta_mask, Loc loc) {
  ++stats().tma;
  Fiber* f = rt->running;
  if (m->magic != MAGIC) fail("TMA", "the tensor map is not initialised", loc);
  uint32_t bytes = m->box[0] * m->box[1] * m->elem, off, boff;
  Block* b = resolve(dst, &off, bytes, loc);
  Block* bb = resolve(bar, &boff, 8, loc);
  if (off % 128) fail("alignment", "TMA destination is not 128-byte aligned", loc);
  if (m->swizzle && off % (128u << m->swizzle))
    fail("alignment",
         "TMA destination is not aligned to the swizzle pattern (" + std::to_string(128u << m->swizzle) + " bytes)",
         loc);
  if (!cta_mask) {
    if (b != bb) fail("TMA", "destination and mbarrier are in different blocks", loc);
    TmaOp o{b, off, boff, *m, x, y, nullptr, 0, loc};
    issue(o, bytes, f, loc);
    return;
  }
  for (size_t r = 0; r < 16; ++r)
    if (cta_mask >> r & 1) {
      auto& bs = f->blk->cl->blocks;
      if (r >= bs.size()) fail("TMA", "multicast mask names a block outside the cluster", loc);
      TmaOp o{bs[r], off, boff, *m, x, y, nullptr, 0, loc};
      issue(o, bytes, f, loc);
    }
}
void bulk_load(uint32_t dst, const void* src, uint32_t bytes, uint32_t bar, Loc loc) {
  uint32_t off, boff;
  Block* b = resolve(dst, &off, bytes, loc);
  resolve(bar, &boff, 8, loc);
  if (off % 16 || (uintptr_t)src % 16 || bytes % 16)
    fail("alignment", "cp.async.bulk needs 16-byte alignment and size", loc);
  gmem_check(src, bytes, "cp.async.bulk", loc);
  TmaOp o{b, off, boff, {}, 0, 0, (const char*)src, bytes, loc};
  issue(o, bytes, rt->running, loc);
}
static void st_run(Fiber* f, StOp& o) {
  const TensorMap& m = o.m;
  uint32_t row = m.box[0] * m.elem;
  Block* b = f->blk;
  for (uint32_t r = 0; r < m.box[1]; ++r)
    for (uint32_t c = 0; c < row; ++c) {
      int64_t y = (int64_t)o.y + r, x = (int64_t)o.x * m.elem + c;
      if (y < 0 || x < 0 || y >= (int64_t)m.dim[1] || x >= (int64_t)(m.dim[0] * m.elem)) continue;
      m.base[(uint64_t)y * m.stride + (uint64_t)x] =
          b->arena[swz_addr(o.src + r * row + (c & ~15u), m.swizzle) + (c & 15)];
    }
}
void tma_store_2d(const TensorMap* m, uint32_t src, int x, int y, Loc loc) {
  ++stats().tma;
  Fiber* f = rt->running;
  if (m->magic != MAGIC) fail("TMA", "the tensor map is not initialised", loc);
  uint32_t off, bytes = m->box[0] * m->box[1] * m->elem;
  Block* b = resolve(src, &off, bytes, loc);
  if (off % 128) fail("alignment", "TMA source is not 128-byte aligned", loc);
  if (rt->opt.race)
    shadow(b, off, bytes, false, (uint32_t)agent_bulk(f), f->bulk.n_committed + 1, f->clk, true, false, loc);
  StOp o{*m, off, x, y};
  if (now())
    st_run(f, o);
  else
    f->bulk.open.push_back(o);
}
void bulk_commit(Loc) {
  Fiber* f = rt->running;
  ++f->bulk.n_committed;
  f->bulk.committed.push_back(std::move(f->bulk.open));
  f->bulk.open.clear();
}
void bulk_wait(int n, bool, Loc) {
  Fiber* f = rt->running;
  while ((int)f->bulk.committed.size() > n) {
    for (auto& o : f->bulk.committed.front()) st_run(f, o);
    f->bulk.committed.pop_front();
  }
  if (rt->opt.race) {
    uint32_t t = f->bulk.n_committed - std::min<uint32_t>((uint32_t)n, f->bulk.n_committed);
    auto& v = f->clk.seen.c[agent_bulk(f)];
    v = std::max(v, t);
  }
}

// ---- what must not be left over ---------------------------------------------------------------------------
void check_exit(Fiber* f) {
  for (auto& g : f->cp.committed)
    if (!g.empty()) fail("cp.async", "the thread exits with copies it never waited for", f->loc);
  if (!f->cp.open.empty()) fail("cp.async", "the thread exits with copies it never committed", f->loc);
  for (auto& g : f->bulk.committed)
    if (!g.empty()) fail("TMA", "the thread exits while a bulk store may still read shared memory", f->loc);
  if (!f->bulk.open.empty()) fail("TMA", "the thread exits with a bulk store it never committed", f->loc);
  if (!f->warp->q.empty()) fail("wgmma", "the thread exits with wgmma operations it never waited for", f->loc);
}
void check_block_end(Block* b) {
  for (auto& o : rt->tma)
    if (o.dst_blk == b) throw Error("TMA: the block ended with a load still in flight");
  for (auto& k : b->mbars) {
    uint64_t w;
    std::memcpy(&w, b->arena + k.first, 8);
    if (w >> 62 == 1 && tx_of(w))
      throw Error("mbarrier: the block ended with " + std::to_string(tx_of(w)) +
                  " transaction bytes outstanding at smem+" + std::to_string(k.first));
  }
  size_t n = b->warps.size();
  for (size_t i = 0; i + 3 < n; i += 4)
    for (size_t j = 1; j < 4; ++j)
      if (b->warps[i]->trace != b->warps[i + j]->trace)
        throw Error("wgmma: the four warps of warpgroup " + std::to_string(i / 4) + " did not issue the same sequence");
}
}  // namespace kw::emu
