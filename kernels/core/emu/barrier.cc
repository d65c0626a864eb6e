// Barriers of a block (bar.sync, bar.arrive, __syncthreads) and of a cluster.
#include <algorithm>

#include "runtime.h"

namespace kw::emu {
namespace {

// bar.sync is .aligned: every live lane of a warp that takes part must be there.
void check_whole_warps(const Block* b, int id, const NamedBarrier& barrier) {
  for (const Warp* w : b->warps) {
    uint32_t here = 0;
    for (const Fiber* f : barrier.waiting)
      if (f->warp == w) here |= 1u << f->lane;
    if (here && here != w->live)
      fail("barrier", "bar.sync " + std::to_string(id) + " reached by only part of a warp", barrier.loc);
  }
}

void open_if_complete(Block* b, int id) {
  NamedBarrier& barrier = b->barriers[id];
  const int needed = barrier.expected ? barrier.expected : b->live;
  if (barrier.arrived == 0 || barrier.arrived < needed) return;
  if (barrier.expected) check_whole_warps(b, id, barrier);
  for (Fiber* f : barrier.waiting) {
    acquire(f, barrier.clock);
    make_ready(f);
  }
  barrier.waiting.clear();
  barrier.arrived = barrier.expected = 0;
  barrier.clock = Clock();
}

// threads 0: every thread of the block that has not exited.
NamedBarrier& join(int id, int threads, Loc loc) {
  NamedBarrier& barrier = rt->running->block->barriers[id];
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.loc = loc;
  } else if (barrier.expected != threads) {
    fail("barrier",
         "barrier " + std::to_string(id) + " joined for " + std::to_string(threads) + " threads, others said " +
             std::to_string(barrier.expected) + " (" + where(barrier.loc) + ")",
         loc);
  } else if (threads == 0 && (barrier.loc.line != loc.line || barrier.loc.file != loc.file)) {
    fail("barrier", "__syncthreads() in divergent code: some threads are at " + where(barrier.loc), loc);
  }
  ++barrier.arrived;
  if (threads && barrier.arrived > threads) fail("barrier", "too many threads at barrier " + std::to_string(id), loc);
  release(rt->running, barrier.clock);
  return barrier;
}

void join_and_wait(int id, int threads, Loc loc) {
  Fiber* f = rt->running;
  Block* b = f->block;
  const NamedBarrier& barrier = b->barriers[id];
  const bool last = barrier.arrived + 1 == (threads ? threads : b->live);
  join(id, threads, loc).waiting.push_back(f);
  if (last) {
    open_if_complete(b, id);  // this thread runs on, the others become ready
    return;
  }
  block_on(Wait::barrier, static_cast<uint64_t>(id), 0, loc);
}

void check_named(int id, int threads, Loc loc) {
  if (id < 0 || id > 15) fail("barrier", "barrier id is " + std::to_string(id) + ", expected 0 to 15", loc);
  if (threads <= 0 || threads % 32)
    fail("barrier", "thread count is " + std::to_string(threads) + ", expected a positive multiple of 32", loc);
}

void open_cluster_if_complete(Cluster* c) {
  if (!c->arrived || c->arrived != c->live) return;
  c->arrived = 0;
  ++c->phase;
  c->done = c->arriving;
  for (Block* b : c->blocks)
    for (Fiber* f : b->fibers)
      if (f->wait == Wait::cluster) make_ready(f);
}

}  // namespace

void syncthreads(Loc loc) { join_and_wait(0, 0, loc); }

void bar_sync(int id, int threads, Loc loc) {
  check_named(id, threads, loc);
  join_and_wait(id, threads, loc);
}

void bar_arrive(int id, int threads, Loc loc) {
  check_named(id, threads, loc);
  join(id, threads, loc);
  open_if_complete(rt->running->block, id);
}

void recheck_barriers(Block* b) {
  open_if_complete(b, 0);
  open_cluster_if_complete(b->cluster);
}

// Both are .aligned.
void cluster_arrive(Loc loc) {
  Fiber* f = rt->running;
  meet(
      "barrier.cluster.arrive", f->warp->live, true, nullptr, [](void* const*, uint32_t, Loc) {}, loc);
  Cluster* c = f->block->cluster;
  release(f, c->arriving);
  f->cluster_phase = c->phase;
  ++c->arrived;
  open_cluster_if_complete(c);
}

void cluster_wait(Loc loc) {
  Fiber* f = rt->running;
  Cluster* c = f->block->cluster;
  while (c->phase == f->cluster_phase) block_on(Wait::cluster, 0, f->cluster_phase, loc);
  acquire(f, c->done);
}

uint32_t cluster_rank() { return rt->running->block->rank; }

}  // namespace kw::emu
