// Happens-before bookkeeping of shared memory (options().race). Every source of accesses is an agent with a clock of its
// own: each thread, each thread's cp.async copies and bulk stores, each warp's wgmma, each mbarrier's TMA loads.
// Source: FastTrack (Flanagan, Freund 2009), with agents for the hardware's asynchronous units.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "emu.h"

namespace kw::emu {

struct Block;
struct Fiber;
struct Warp;

// How far one agent has seen every other agent.
class VectorClock {
 public:
  void reset(size_t agents) { seen_.assign(agents, 0); }
  bool covers(uint32_t agent, uint32_t time) const { return agent < seen_.size() && time <= seen_[agent]; }
  uint32_t at(uint32_t agent) const { return agent < seen_.size() ? seen_[agent] : 0; }
  void raise(uint32_t agent, uint32_t time) {
    if (agent >= seen_.size()) seen_.resize(agent + 1);
    if (seen_[agent] < time) seen_[agent] = time;
  }
  void join(const VectorClock& other) {
    if (seen_.size() < other.seen_.size()) seen_.resize(other.seen_.size());
    uint32_t* __restrict mine = seen_.data();
    const uint32_t* __restrict theirs = other.seen_.data();
    const size_t n = other.seen_.size();
    for (size_t i = 0; i < n; ++i)
      mine[i] = std::max(mine[i], theirs[i]);  // vectorised: barriers spend their time here
  }

 private:
  std::vector<uint32_t> seen_;
};

struct Clock {
  VectorClock seen;
  VectorClock fenced;  // ordinary writes and cp.async copies that a proxy fence has handed to TMA and wgmma
  void join(const Clock& other) {
    seen.join(other.seen);
    fenced.join(other.fenced);
  }
};

// An access: agent and its time in one word, 0 for none.
using Epoch = uint32_t;
inline constexpr uint32_t kTimeBits = 18, kMaxTime = (1u << kTimeBits) - 1, kMaxAgents = 1u << (32 - kTimeBits);
constexpr Epoch epoch(uint32_t agent, uint32_t time) { return agent << kTimeBits | time; }
constexpr uint32_t agent_of(Epoch e) { return e >> kTimeBits; }
constexpr uint32_t time_of(Epoch e) { return e & kMaxTime; }

// What is known of a byte, or of four alike: the last write, and two of the reads since. Places are numbers in
// Runtime::places.
struct Shadow {
  Epoch write = 0, read[2] = {0, 0};
  uint16_t write_place = 0, read_place = 0;  // the top bit of write_place marks an atomic
};

// Shadows of a window, one per aligned word until an access tears the word apart.
class ShadowMemory {
 public:
  void open(uint32_t bytes) {
    words_.assign((bytes + 3) / 4, Shadow{});
    torn_.assign(words_.size(), 0);
    bytes_.resize(words_.size() * 4);
  }
  void grow(uint32_t bytes) {
    words_.resize((bytes + 3) / 4);
    torn_.resize(words_.size());
    bytes_.resize(words_.size() * 4);
  }
  const Shadow& at(uint32_t offset) const { return torn_[offset / 4] ? bytes_[offset] : words_[offset / 4]; }
  // Calls visit(shadow, offset) for every word or byte of the range.
  template <class Visit>
  void visit(uint32_t offset, uint32_t bytes, bool write, Visit&& visit) {
    const uint32_t end = offset + bytes;
    for (uint32_t i = offset; i < end;) {
      const uint32_t word = i / 4;
      const bool whole = i % 4 == 0 && end - i >= 4;
      if (whole && !torn_[word]) {
        visit(words_[word], i);
        i += 4;
        continue;
      }
      if (!torn_[word]) std::fill_n(&bytes_[word * 4], 4, words_[word]);
      torn_[word] = 1;
      for (const uint32_t stop = std::min(end, word * 4 + 4); i < stop; ++i) visit(bytes_[i], i);
      if (whole && write) {  // now alike again
        words_[word] = bytes_[word * 4];
        torn_[word] = 0;
      }
    }
  }

 private:
  std::vector<Shadow> words_, bytes_;
  std::vector<uint8_t> torn_;
};

struct Access {
  bool write = false;
  bool async = false;  // through the asynchronous proxy (TMA, wgmma)
  bool atomic = false;
  uint32_t agent = 0, time = 0;
};

uint32_t agent_thread(const Fiber*);
uint32_t agent_copy(const Fiber*);   // cp.async
uint32_t agent_store(const Fiber*);  // bulk stores
uint32_t agent_wgmma(const Warp*);
uint32_t new_agent(Loc loc);  // for an mbarrier

// All of these do nothing unless options().race is set.
void release(Fiber*, Clock& into);  // what the thread did so far becomes visible to whoever acquires `into`
void acquire(Fiber*, const Clock& from);
void check_access(Block*, uint32_t offset, uint32_t bytes, const Access&, const Clock&, Loc loc);
void check_thread(Fiber*, Block*, uint32_t offset, uint32_t bytes, bool write, Loc loc);

}  // namespace kw::emu
