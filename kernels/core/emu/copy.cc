// cp.async and its groups, the proxy fence, and the completion of copies that nobody's own wait carries out.
#include <cstring>

#include "runtime.h"

namespace kw::emu {
namespace {

void run_copy(const CopyOp& o) {
  std::memcpy(o.dst, o.src, static_cast<size_t>(o.src_bytes));
  std::memset(o.dst + o.src_bytes, 0, static_cast<size_t>(o.bytes - o.src_bytes));
}

}  // namespace

bool now() { return rt->opt.async == Async::eager || (rt->opt.async == Async::random && rt->coin()); }

void cp_async(uint32_t dst, const void* src, int bytes, int src_bytes, Loc loc) {
  Fiber* f = rt->running;
  ++rt->stats.cp_async;
  uint32_t offset;
  Block* b = resolve(dst, &offset, static_cast<size_t>(bytes), loc);
  if (dst % static_cast<uint32_t>(bytes) || reinterpret_cast<uintptr_t>(src) % static_cast<uintptr_t>(bytes))
    fail("alignment", "cp.async: source or destination is not a multiple of " + std::to_string(bytes), loc);
  if (src_bytes < 0 || src_bytes > bytes)
    fail("cp.async", "src_bytes is " + std::to_string(src_bytes) + ", expected 0 to " + std::to_string(bytes), loc);
  check_gmem(src, static_cast<size_t>(src_bytes), "cp.async", loc);
  check_access(b, offset, static_cast<uint32_t>(bytes), {.write = true, .agent = agent_copy(f), .time = f->copies.tick},
               f->clock, loc);
  const CopyOp op{f->copies.tick, b->window + offset, static_cast<const char*>(src), bytes, src_bytes};
  if (now()) return run_copy(op);
  poison(b, offset, static_cast<size_t>(bytes));
  f->copies.pending.push_back(op);
}

void cp_async_commit(Loc) { rt->running->copies.commit(); }

void cp_async_wait(int pending, Loc) {
  Fiber* f = rt->running;
  const uint32_t covered = f->copies.covered(static_cast<size_t>(pending));
  f->copies.retire(covered, run_copy);
  if (rt->opt.race) f->clock.seen.raise(agent_copy(f), covered);
}

void cp_async_mbar_arrive_noinc(uint32_t bar, Loc loc) {
  Fiber* f = rt->running;
  DeferredOp op{.kind = DeferredOp::copies_arrive, .issuer = f, .block = nullptr};
  op.block = resolve(bar, &op.bar, 8, loc);
  mbar_for_use(op.block, op.bar, f, loc);
  op.tick = f->copies.tick++;
  op.loc = loc;
  if (rt->opt.race) op.clock.seen.raise(agent_copy(f), op.tick);
  f->copies_handed_over = op.tick;
  rt->deferred.push_back(std::move(op));
  if (now()) run_deferred(rt->deferred.size() - 1);
}

// This thread's own ordinary writes, and every cp.async copy it has seen complete, become visible to TMA and wgmma.
// Stricter than the ISA, which also accepts a fence by another thread later on the path.
void fence_proxy_async(Loc loc) {
  fence_mbar_init(loc);
  if (!rt->opt.race) return;
  Fiber* f = rt->running;
  f->clock.fenced.raise(agent_thread(f), f->time);
  for (size_t i = 0; i < rt->threads; ++i) {
    const uint32_t agent = agent_copy(rt->fibers[i].get());
    f->clock.fenced.raise(agent, f->clock.seen.at(agent));
  }
  f->clock.seen.raise(agent_thread(f), ++f->time);
}

void run_deferred(size_t index) {
  const DeferredOp op = std::move(rt->deferred[index]);
  rt->deferred.erase(rt->deferred.begin() + static_cast<long>(index));
  if (op.block->live == 0)
    fail_for(op.issuer, "TMA", "a load completes in the shared memory of a block that has exited", op.loc);
  switch (op.kind) {
    case DeferredOp::tma:
      return run_tma_load(op);
    case DeferredOp::bulk:
      std::memcpy(op.block->window + op.dst, op.src, op.bytes);
      return mbar_complete_tx(op.block, op.bar, op.bytes, op.loc);
    case DeferredOp::copies_arrive:
      op.issuer->copies.retire(op.tick, run_copy);
      return mbar_deferred_arrive(op);
  }
}

void check_exit(Fiber* f) {
  const auto exits = [&](const char* what, const char* how) {
    fail(what, std::string("the thread exits ") + how, f->loc);
  };
  if (f->copies.uncommitted()) exits("cp.async", "with copies it never committed");
  if (!f->copies.pending.empty() && f->copies.pending.back().tick > f->copies_handed_over)
    exits("cp.async", "with copies it never waited for");
  if (f->stores.uncommitted()) exits("TMA", "with a bulk store it never committed");
  if (!f->stores.pending.empty()) exits("TMA", "while a bulk store may still read shared memory");
  if (!f->warp->wgmma.pending.empty()) exits("wgmma", "with wgmma operations it never waited for");
}

}  // namespace kw::emu
