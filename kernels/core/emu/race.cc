// Happens-before check of every access to shared memory. See race.h.
#include "race.h"

#include <algorithm>

#include "runtime.h"

namespace kw::emu {
namespace {

constexpr uint16_t kAtomicBit = 0x8000;

// A small number for a source place, kept per batch of clusters.
uint16_t place_of(Loc loc) {
  const uint64_t key = loc.file ? reinterpret_cast<uintptr_t>(loc.file) * 1000003 + static_cast<uint64_t>(loc.line)
                                : reinterpret_cast<uintptr_t>(loc.pc);
  auto& [recent_key, recent] = rt->recent_places[key % std::size(rt->recent_places)];
  if (recent_key == key) return recent;
  const auto [it, added] = rt->place_ids.try_emplace(key, static_cast<uint16_t>(rt->places.size()));
  if (added) {
    if (rt->places.size() >= kAtomicBit) fail("emulator", "too many source places for the race detector", loc);
    rt->places.push_back(loc);
  }
  recent_key = key, recent = it->second;
  return recent;
}

std::string place(uint16_t id) { return where(rt->places[id & ~kAtomicBit]); }

std::string agent_name(uint32_t agent) {
  const auto threads = static_cast<uint32_t>(rt->threads);
  const auto thread = [&](uint32_t i) {
    const Fiber& f = *rt->fibers[i];
    const std::string name = "thread " + std::to_string(f.index);
    return rt->blocks.size() == 1 ? name
                                  : name + " of block " + std::to_string(f.ctx.block.x) + "," +
                                        std::to_string(f.ctx.block.y) + "," + std::to_string(f.ctx.block.z);
  };
  if (agent < threads) return thread(agent);
  if (agent < 2 * threads) return "cp.async of " + thread(agent - threads);
  if (agent < 3 * threads) return "bulk store of " + thread(agent - 2 * threads);
  if (agent < 3 * threads + rt->warps.size())
    return "wgmma of warp " + std::to_string(rt->warps[agent - 3 * threads]->index);
  return "a TMA load";
}

// One access, checked byte by byte or word by word.
class AccessCheck {
 public:
  AccessCheck(Block* b, const Access& access, const Clock& clock, Loc loc)
      : block_(b), access_(access), clock_(clock), loc_(loc), mine_(epoch(access.agent, access.time)) {}

  void operator()(Shadow& s, uint32_t offset) {
    if (s.write)
      after_write(s, offset);
    else if (!access_.write && rt->opt.uninit)
      fail("uninitialised", "read of " + describe(block_, offset) + ", which nothing has written");
    access_.write ? record_write(s, offset) : record_read(s);
  }

 private:
  bool ordered(Epoch e) const { return agent_of(e) == access_.agent || clock_.seen.covers(agent_of(e), time_of(e)); }
  [[noreturn]] void fail(const char* kind, const std::string& message) const {
    const auto threads = static_cast<uint32_t>(rt->threads);
    const bool by_thread = access_.agent < 3 * threads;
    fail_for(by_thread ? rt->fibers[access_.agent % threads].get() : rt->running, kind, message, loc_);
  }
  const char* verb() const { return access_.write ? "write of " : "read of "; }
  uint16_t my_place() { return place_ ? place_ : place_ = place_of(loc_); }

  void after_write(const Shadow& s, uint32_t offset) const {
    const bool both_atomic = access_.atomic && (s.write_place & kAtomicBit);
    if (!ordered(s.write) && !both_atomic)
      fail("race", verb() + describe(block_, offset) + " by " + agent_name(access_.agent) +
                       " is not ordered after the write by " + agent_name(agent_of(s.write)) + " (" +
                       place(s.write_place) + ")");
    const bool generic_write = agent_of(s.write) < 2 * rt->threads;
    if (access_.async && generic_write && !clock_.fenced.covers(agent_of(s.write), time_of(s.write)))
      fail("proxy", "fence.proxy.async missing: " + describe(block_, offset) + " was written by " +
                        agent_name(agent_of(s.write)) + " (" + place(s.write_place) + ") and is used by " +
                        agent_name(access_.agent));
  }

  void record_write(Shadow& s, uint32_t offset) {
    for (const Epoch r : s.read)
      if (r && !ordered(r))
        fail("race", "write of " + describe(block_, offset) + " by " + agent_name(access_.agent) +
                         " is not ordered after the read by " + agent_name(agent_of(r)) + " (" + place(s.read_place) +
                         ")");
    s.write = mine_;
    s.write_place = static_cast<uint16_t>(my_place() | (access_.atomic ? kAtomicBit : 0));
    s.read[0] = s.read[1] = 0;
  }

  // Keeps two reads: in place of one that this read is ordered after, or of either.
  void record_read(Shadow& s) {
    if (s.read[0] == mine_ || s.read[1] == mine_) return;
    const auto replaceable = [&](Epoch r) { return !r || ordered(r); };
    const int slot = replaceable(s.read[0]) ? 0 : replaceable(s.read[1]) ? 1 : static_cast<int>(rt->random() & 1);
    s.read[slot] = mine_;
    s.read_place = my_place();
  }

  Block* block_;
  const Access& access_;
  const Clock& clock_;
  Loc loc_;
  Epoch mine_;
  uint16_t place_ = 0;  // 0 until needed: places[0] is never used
};

}  // namespace

uint32_t agent_thread(const Fiber* f) { return f->id; }
uint32_t agent_copy(const Fiber* f) { return static_cast<uint32_t>(rt->threads) + f->id; }
uint32_t agent_store(const Fiber* f) { return 2 * static_cast<uint32_t>(rt->threads) + f->id; }
uint32_t agent_wgmma(const Warp* w) { return 3 * static_cast<uint32_t>(rt->threads) + w->id; }

uint32_t new_agent(Loc loc) {
  if (rt->agents >= kMaxAgents) fail("emulator", "too many threads and mbarriers for the race detector", loc);
  return rt->agents++;
}

void release(Fiber* f, Clock& into) {
  if (!rt->opt.race) return;
  into.join(f->clock);
  if (++f->time > kMaxTime) fail("emulator", "too many synchronisations for the race detector", f->loc);
  f->clock.seen.raise(agent_thread(f), f->time);
}

void acquire(Fiber* f, const Clock& from) {
  if (rt->opt.race) f->clock.join(from);
}

void check_access(Block* b, uint32_t offset, uint32_t bytes, const Access& access, const Clock& clock, Loc loc) {
  if (!rt->opt.race) return;
  if (access.time > kMaxTime) fail("emulator", "too many asynchronous groups for the race detector", loc);
  b->shadow.visit(offset, bytes, access.write, AccessCheck(b, access, clock, loc));
}

void check_thread(Fiber* f, Block* b, uint32_t offset, uint32_t bytes, bool write, Loc loc) {
  if (rt->opt.race)
    check_access(b, offset, bytes, {.write = write, .agent = agent_thread(f), .time = f->time}, f->clock, loc);
}

}  // namespace kw::emu
