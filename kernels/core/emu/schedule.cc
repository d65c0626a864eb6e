// Which thread runs next: schedules, blocking, switching, and ending a launch with a diagnosis.
#include <bit>

#include "runtime.h"

namespace kw::emu {
namespace {

// The first warp at or after `start` (step 1) or at or before it (step -1), cyclically, that has a ready thread.
Warp* ready_warp_from(size_t start, int step) {
  const size_t n = rt->warps.size();
  for (size_t i = 0, k = start; i < n; ++i, k = (k + n + static_cast<size_t>(step)) % n)
    if (rt->warps[k]->ready) return rt->warps[k].get();
  return nullptr;
}

// PCT (Burckhardt et al. 2010): the highest of random priorities runs; at random steps the runner falls to the bottom.
Warp* highest_priority(Warp* current) {
  ++rt->steps;
  for (uint64_t& point : rt->change_points)
    if (point == rt->steps) current->priority = point % 16;
  Warp* best = nullptr;
  for (const auto& w : rt->warps)
    if (w->ready && (!best || w->priority > best->priority)) best = w.get();
  return best;
}

Warp* pick_warp() {
  const size_t n = rt->warps.size();
  Warp* current = rt->warps[rt->warp_cursor].get();
  if (rt->yielding) {  // a polling thread must not starve the others
    rt->yielding = false;
    return ready_warp_from((rt->warp_cursor + 1) % n, 1);
  }
  switch (rt->opt.sched) {
    case Sched::rr:
      return ready_warp_from((rt->warp_cursor + 1) % n, 1);
    case Sched::ahead:
      return current->ready ? current : ready_warp_from(0, 1);
    case Sched::rev:
      return current->ready ? current : ready_warp_from(n - 1, -1);
    case Sched::random:
      return current->ready && rt->random() % 8 ? current : ready_warp_from(rt->random() % n, 1);
    case Sched::pct:
      return highest_priority(current);
  }
  return nullptr;
}

int pick_lane(uint32_t ready) {
  switch (rt->opt.sched) {
    case Sched::random:
    case Sched::pct: {
      const int r = static_cast<int>(rt->random() % 32);
      return (r + std::countr_zero(std::rotr(ready, r))) & 31;
    }
    case Sched::rev:
      return 31 - std::countl_zero(ready);
    default:
      return std::countr_zero(ready);
  }
}

}  // namespace

Fiber* pick_next() {
  if (!rt->error.empty()) return nullptr;
  for (;;) {
    const bool random = rt->opt.async == Async::random;
    if (random && !rt->deferred.empty() && rt->random() % 4 == 0) run_deferred(rt->random() % rt->deferred.size());
    if (Warp* w = pick_warp()) {
      rt->warp_cursor = w->id;
      return w->lane[pick_lane(w->ready)];
    }
    if (rt->deferred.empty()) break;
    run_deferred(random ? rt->random() % rt->deferred.size() : 0);
  }
  if (rt->live) throw Failure("deadlock: no thread can run" + deadlock_report());
  return nullptr;
}

void switch_to(Fiber* next) {
  Fiber* previous = rt->running;
  if (next == previous) return;
  ++rt->stats.switches;
  rt->running = next;
  cur = next ? &next->ctx : nullptr;
  Context& from = previous ? previous->context : rt->main;
  from.switch_to(next ? next->context : rt->main, previous && previous->state == State::done);
}

void make_ready(Fiber* f) {
  f->state = State::ready;
  f->wait = Wait::none;
  f->warp->ready |= 1u << f->lane;
}

void block_on(Wait wait, uint64_t a, uint64_t b, Loc loc) {
  Fiber* f = rt->running;
  f->state = State::blocked;
  f->wait = wait, f->wait_a = a, f->wait_b = b, f->loc = loc;
  f->warp->ready &= ~(1u << f->lane);
  switch_to(pick_next());
}

void yield_point(Loc loc) {
  constexpr uint64_t kPatience = 2'000'000;
  if (++rt->running->polls > kPatience)
    fail("livelock", "a thread polled 2,000,000 times; does it wait for a block that is not resident?", loc);
  rt->yielding = true;
  switch_to(pick_next());
}

void fail_for(const Fiber* who, const char* kind, const std::string& message, Loc loc) {
  std::string text = std::string(kind) + ": " + message;
  if (who) {
    const Dim3 b = who->ctx.block;
    text += " [block " + std::to_string(b.x) + "," + std::to_string(b.y) + "," + std::to_string(b.z) + " thread " +
            std::to_string(who->index) + "]";
  }
  throw Failure(text + " at " + where(loc));
}

void fail(const char* kind, const std::string& message, Loc loc) { fail_for(rt->running, kind, message, loc); }

void require_sm90(const char* wrapper, Loc loc) {
  if (rt->opt.profile.cc < 90)
    fail("profile", std::string(wrapper) + " needs sm_90, this device is " + rt->opt.profile.name, loc);
}

void require_sm90a(const char* wrapper, Loc loc) {
  if (rt->opt.profile.cc != 90)
    fail("profile", std::string(wrapper) + " needs sm_90a, this device is " + rt->opt.profile.name, loc);
}

}  // namespace kw::emu
