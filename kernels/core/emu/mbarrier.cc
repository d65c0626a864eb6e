// mbarrier: the state lives in its 8 bytes of shared memory, so that a missing init or an overwritten barrier shows.
//   bits 0..19 arrivals missing, 20..39 count, 40..60 bytes missing (signed), 61 phase, 62..63 = 01
#include "runtime.h"

namespace kw::emu {
namespace {

constexpr uint64_t kArrivals = 0xfffff, kTxMask = 0x1fffff;
constexpr int kCountShift = 20, kTxShift = 40, kPhaseShift = 61, kTagShift = 62;

int64_t tx_of(uint64_t word) { return static_cast<int64_t>(word << 3) >> 43; }

void add_tx(uint64_t& word, int64_t bytes, Loc loc) {
  const int64_t tx = tx_of(word) + bytes;
  if (tx > 0xfffff || tx < -0xfffff)
    fail("mbarrier", "the transaction count becomes " + std::to_string(tx) + ", expected at most 2^20 - 1", loc);
  word = (word & ~(kTxMask << kTxShift)) | (static_cast<uint64_t>(tx) & kTxMask) << kTxShift;
}

void end_phase_if_complete(Block* b, uint32_t offset, uint64_t& word) {
  if ((word & kArrivals) || tx_of(word)) return;
  Mbarrier& m = b->mbarriers[offset];
  word = (word & ~kArrivals) | (word >> kCountShift & kArrivals);
  word ^= uint64_t{1} << kPhaseShift;
  if (rt->opt.race) {
    m.done = m.arriving;
    m.done.seen.raise(m.agent, m.phase);
  }
  ++m.phase;
  for (Fiber* f : m.waiters) make_ready(f);
  m.waiters.clear();
}

// publish(clock) adds what the arrival makes visible to those who wait.
template <class Publish>
void arrive(Block* b, uint32_t offset, uint32_t expect_bytes, const Fiber* user, Publish&& publish, Loc loc) {
  Mbarrier& m = mbar_for_use(b, offset, user, loc);
  uint64_t& word = mbar_word(b, offset, loc);
  if (expect_bytes) add_tx(word, expect_bytes, loc);
  if ((word & kArrivals) < 1) fail("mbarrier", "more arrivals than the barrier's count in one phase", loc);
  publish(m.arriving);
  word -= 1;
  end_phase_if_complete(b, offset, word);
}

}  // namespace

uint64_t& mbar_word(Block* b, uint32_t offset, Loc loc) {
  if (offset % 8) fail("mbarrier", "the address " + describe(b, offset) + " is not a multiple of 8", loc);
  auto& word = *reinterpret_cast<uint64_t*>(b->window + offset);
  if (word >> kTagShift != 1 || !b->mbarriers.contains(offset))
    fail("mbarrier",
         describe(b, offset) + " is not an initialised mbarrier; no mbarrier.init, or not yet, or overwritten", loc);
  return word;
}

// The barrier, once its init is known to be ordered before this use.
Mbarrier& mbar_for_use(Block* b, uint32_t offset, const Fiber* user, Loc loc) {
  mbar_word(b, offset, loc);
  if (rt->opt.race && user) {
    const Epoch init = b->shadow.at(offset).write;
    if (agent_of(init) != agent_thread(user) && !user->clock.seen.covers(agent_of(init), time_of(init)))
      fail("race", "mbarrier " + describe(b, offset) + " is used before its init is visible to this thread", loc);
  }
  return b->mbarriers[offset];
}

void mbar_init(uint32_t bar, uint32_t count, Loc loc) {
  uint32_t offset;
  Block* b = resolve(bar, &offset, 8, loc);
  Fiber* f = rt->running;
  if (offset % 8) fail("mbarrier", "the address " + describe(b, offset) + " is not a multiple of 8", loc);
  if (count < 1 || count > kArrivals)
    fail("mbarrier", "the count is " + std::to_string(count) + ", expected 1 to 2^20 - 1", loc);
  check_thread(f, b, offset, 8, true, loc);
  Mbarrier& m = b->mbarriers[offset];
  m = Mbarrier();
  m.init_by = f->index;
  if (rt->opt.race) m.agent = new_agent(loc);
  *reinterpret_cast<uint64_t*>(b->window + offset) = uint64_t{1} << kTagShift | uint64_t{count} << kCountShift | count;
}

void mbar_inval(uint32_t bar, Loc loc) {
  uint32_t offset;
  Block* b = resolve(bar, &offset, 8, loc);
  mbar_word(b, offset, loc) = ~uint64_t{0};
  b->mbarriers.erase(offset);
}

void mbar_arrive(uint32_t bar, uint32_t expect_bytes, Loc loc) {
  uint32_t offset;
  Block* b = resolve(bar, &offset, 8, loc);
  Fiber* f = rt->running;
  arrive(
      b, offset, expect_bytes, f, [&](Clock& clock) { release(f, clock); }, loc);
}

void mbar_expect_tx(uint32_t bar, uint32_t bytes, Loc loc) {
  uint32_t offset;
  Block* b = resolve(bar, &offset, 8, loc);
  mbar_for_use(b, offset, rt->running, loc);
  add_tx(mbar_word(b, offset, loc), bytes, loc);
}

bool mbar_try_wait(uint32_t bar, uint32_t parity, Loc loc) {
  Fiber* f = rt->running;
  uint32_t offset;
  Block* b = resolve(bar, &offset, 8, loc);
  if (b != f->block) fail("mbarrier", "try_wait on the mbarrier of another block", loc);
  for (bool first = true;; first = false) {
    Mbarrier& m = mbar_for_use(b, offset, f, loc);
    if ((mbar_word(b, offset, loc) >> kPhaseShift & 1) != (parity & 1)) {
      acquire(f, m.done);
      return true;
    }
    if (!first && rt->opt.spurious && rt->random() % 8 == 0) return false;
    m.waiters.push_back(f);
    block_on(Wait::mbarrier, offset, parity, loc);
  }
}

void mbar_complete_tx(Block* b, uint32_t offset, uint32_t bytes, Loc loc) {
  uint64_t& word = mbar_word(b, offset, loc);
  add_tx(word, -static_cast<int64_t>(bytes), loc);
  end_phase_if_complete(b, offset, word);
}

void mbar_deferred_arrive(const DeferredOp& o) {
  arrive(
      o.block, o.bar, 0, nullptr, [&](Clock& clock) { clock.join(o.clock); }, o.loc);
}

void fence_mbar_init(Loc) {
  const Fiber* f = rt->running;
  for (auto& [offset, m] : f->block->mbarriers)
    if (m.init_by == f->index) m.fenced = true;
}

// Every mbarrier must have received the bytes it was told to expect.
void check_block_end(Block* b) {
  for (const auto& [offset, m] : b->mbarriers) {
    const uint64_t word = *reinterpret_cast<const uint64_t*>(b->window + offset);
    if (word >> kTagShift == 1 && tx_of(word))
      throw Failure("mbarrier: block " + std::to_string(b->index.x) + "," + std::to_string(b->index.y) +
                    " ended with " + std::to_string(tx_of(word)) + " bytes outstanding at " + describe(b, offset));
  }
  for (const DeferredOp& o : rt->deferred)
    if (o.block == b) throw Failure("TMA: the block ended with a load still in flight, issued at " + where(o.loc));
  const auto& warps = b->warps;
  for (size_t i = 0; i + 3 < warps.size(); i += 4)
    for (size_t j = 1; j < 4; ++j)
      if (warps[i]->trace != warps[i + j]->trace)
        throw Failure("wgmma: the four warps of warpgroup " + std::to_string(i / 4) + " of block " +
                      std::to_string(b->index.x) + "," + std::to_string(b->index.y) +
                      " did not issue the same wgmma and setmaxnreg sequence");
}

}  // namespace kw::emu
