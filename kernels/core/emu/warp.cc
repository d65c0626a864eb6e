// Collectives of a warp: lanes meet by mask, then one of them does the work for all. Shuffles, votes and the like.
#include <algorithm>
#include <bit>
#include <cstdio>

#include "runtime.h"

namespace kw::emu {
namespace {

// Calls f(lane) for every lane of a mask.
template <class F>
void each_lane(uint32_t mask, F&& f) {
  for (; mask; mask &= mask - 1) f(std::countr_zero(mask));
}

std::string hex(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", mask);
  return text;
}

bool same_place(Loc a, Loc b) { return a.line == b.line && a.file == b.file; }

}  // namespace

// `aligned` collectives also demand the same source line in all lanes.
void meet(const char* op, uint32_t mask, bool aligned, void* args, Collective run, Loc loc) {
  Fiber* f = rt->running;
  Warp* w = f->warp;
  ++rt->stats.collectives;
  const uint32_t bit = 1u << f->lane;
  if (!(mask & bit)) fail("warp", std::string(op) + ": the calling lane is not in the mask " + hex(mask), loc);
  if (mask & ~w->live)
    fail("warp", std::string(op) + ": the mask " + hex(mask) + " names lanes that have exited or do not exist", loc);
  Meeting *meeting = nullptr, *unused = nullptr;
  for (auto& m : w->meetings) {
    if (!m->arrived)
      unused = m.get();
    else if (m->mask == mask && m->op == op && !(m->arrived & bit) && (!aligned || same_place(m->loc, loc)))
      meeting = m.get();
    else if (m->mask & mask)
      fail("warp",
           std::string("diverged warp: ") + op + " while other lanes are at " + m->op + " (" + where(m->loc) + ")",
           loc);
  }
  if (!meeting) {
    if (!unused) unused = w->meetings.emplace_back(std::make_unique<Meeting>()).get();
    meeting = unused;
    meeting->op = op, meeting->mask = mask, meeting->loc = loc;
  }
  meeting->args[f->lane] = args;
  meeting->arrived |= bit;
  if (meeting->arrived != mask) {
    block_on(Wait::collective, mask, reinterpret_cast<uintptr_t>(op), loc);
    return;
  }
  meeting->arrived = 0;
  run(meeting->args, mask, loc);
  each_lane(mask & ~bit, [&](int lane) { make_ready(w->lane[lane]); });
}

int lane_id() { return rt->running->lane; }

void syncwarp(uint32_t mask, Loc loc) {
  const auto run = [](void* const*, uint32_t m, Loc) {
    const Warp* w = rt->running->warp;
    Clock all;
    each_lane(m, [&](int lane) { release(w->lane[lane], all); });
    each_lane(m, [&](int lane) { acquire(w->lane[lane], all); });
  };
  meet("syncwarp", mask, false, nullptr, run, loc);
}

uint32_t shfl(uint32_t mask, uint32_t value, int operand, int width, Shuffle mode, Loc loc) {
  struct Args {
    uint32_t value, result;
    int operand, width;
    Shuffle mode;
  } mine{value, 0, operand, width, mode};
  if (width < 1 || width > 32 || width & (width - 1))
    fail("warp", "shfl: width is " + std::to_string(width) + ", expected a power of two up to 32", loc);
  const auto run = [](void* const* lanes, uint32_t m, Loc l) {
    each_lane(m, [&](int lane) {
      auto* a = static_cast<Args*>(lanes[lane]);
      const int first = lane & ~(a->width - 1), end = first + a->width;
      int source = lane;
      switch (a->mode) {
        case Shuffle::idx:
          source = first + (a->operand & (a->width - 1));
          break;
        case Shuffle::up:
          source = lane - a->operand < first ? lane : lane - a->operand;
          break;
        case Shuffle::down:
          source = lane + a->operand >= end ? lane : lane + a->operand;
          break;
        case Shuffle::bfly:
          source = (lane ^ a->operand) >= end ? lane : lane ^ a->operand;
          break;
      }
      if (source < 0 || source > 31 || !(m >> source & 1))
        fail("warp",
             "shfl: lane " + std::to_string(lane) + " reads lane " + std::to_string(source) +
                 ", which is not in the mask " + hex(m),
             l);
      a->result = static_cast<Args*>(lanes[source])->value;
    });
  };
  meet("shfl", mask, false, &mine, run, loc);
  return mine.result;
}

uint32_t vote(uint32_t mask, bool predicate, Loc loc) {
  struct Args {
    bool predicate;
    uint32_t result;
  } mine{predicate, 0};
  const auto run = [](void* const* lanes, uint32_t m, Loc) {
    uint32_t ballot = 0;
    each_lane(m, [&](int lane) { ballot |= uint32_t{static_cast<Args*>(lanes[lane])->predicate} << lane; });
    each_lane(m, [&](int lane) { static_cast<Args*>(lanes[lane])->result = ballot; });
  };
  meet("vote", mask, false, &mine, run, loc);
  return mine.result;
}

uint32_t reduce(uint32_t mask, uint32_t value, Reduce op, Loc loc) {
  struct Args {
    uint32_t value, result;
    Reduce op;
  } mine{value, 0, op};
  const auto run = [](void* const* lanes, uint32_t m, Loc) {
    const auto combine = [](Reduce how, uint32_t x, uint32_t y) -> uint32_t {
      const auto sx = static_cast<int32_t>(x), sy = static_cast<int32_t>(y);
      switch (how) {
        case Reduce::add:
          return x + y;
        case Reduce::min_u:
          return std::min(x, y);
        case Reduce::max_u:
          return std::max(x, y);
        case Reduce::min_s:
          return static_cast<uint32_t>(std::min(sx, sy));
        case Reduce::max_s:
          return static_cast<uint32_t>(std::max(sx, sy));
        case Reduce::op_and:
          return x & y;
        case Reduce::op_or:
          return x | y;
        case Reduce::op_xor:
          return x ^ y;
      }
      return 0;
    };
    const int first = std::countr_zero(m);
    uint32_t result = static_cast<Args*>(lanes[first])->value;
    each_lane(m & (m - 1), [&](int lane) {
      const auto* a = static_cast<Args*>(lanes[lane]);
      result = combine(a->op, result, a->value);
    });
    each_lane(m, [&](int lane) { static_cast<Args*>(lanes[lane])->result = result; });
  };
  meet("reduce", mask, false, &mine, run, loc);
  return mine.result;
}

uint32_t match_any(uint32_t mask, uint64_t value, Loc loc) {
  struct Args {
    uint64_t value;
    uint32_t result;
  } mine{value, 0};
  const auto run = [](void* const* lanes, uint32_t m, Loc) {
    each_lane(m, [&](int lane) {
      auto* a = static_cast<Args*>(lanes[lane]);
      each_lane(
          m, [&](int other) { a->result |= uint32_t{static_cast<Args*>(lanes[other])->value == a->value} << other; });
    });
  };
  meet("match", mask, false, &mine, run, loc);
  return mine.result;
}

// The ISA promises one leader, the same each time, but not which; random schedules take another than lane 0.
bool elect_one(Loc loc) {
  meet(
      "elect", kFullWarp, true, nullptr, [](void* const*, uint32_t, Loc) {}, loc);
  const bool random = rt->opt.sched == Sched::random || rt->opt.sched == Sched::pct;
  return rt->running->lane == (random ? static_cast<int>(rt->opt.seed % 32) : 0);
}

void setmaxnreg(int registers, Loc loc) {
  if (registers < 24 || registers > 256 || registers % 8)
    fail("setmaxnreg", "the count is " + std::to_string(registers) + ", expected a multiple of 8 in 24..256", loc);
  const auto run = [](void* const* lanes, uint32_t, Loc l) {
    Warp* self = rt->running->warp;
    self->registers = *static_cast<const int*>(lanes[0]);
    self->trace.push_back(static_cast<uint64_t>(self->registers));
    int sum = 0;
    bool all_known = true;
    for (const Warp* w : self->block->warps) {
      all_known &= w->registers > 0;
      sum += w->registers * 32;
    }
    if (all_known && sum > 65536)
      fail("setmaxnreg", "the warps of the block ask for " + std::to_string(sum) + " registers, expected at most 65536",
           l);
  };
  meet("setmaxnreg", kFullWarp, true, &registers, run, loc);
}

}  // namespace kw::emu
